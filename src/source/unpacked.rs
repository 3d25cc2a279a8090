//! Finds out whether the kernel failed to unpack an archive of the initramfs. The kernel continues without such an
//! archive and reports it only in its log. This module reads the log and never writes to it.

use std::path::Path;

use crate::kernel_log;
use crate::shown::printable;

/// init/initramfs.c, do_populate_rootfs
const FAILED: &str = "Initramfs unpacking failed: ";

/// What the kernel says of an archive that is not where it has to begin (unpack_to_rootfs).
const MISPLACED: &str = "invalid magic at start of compressed archive";

/// A message for an operator whose file in the initramfs is missing. `None` if the log has no such failure, or cannot
/// be read.
pub fn fault(root: &Path) -> Option<String> {
    kernel_log::first(root, |message| {
        let (_, why) = message.split_once(FAILED)?;
        Some(format!(
            "the kernel could not unpack an archive of the initramfs ({}), so what was in it is missing: {}",
            printable(why),
            if why.starts_with(MISPLACED) {
                "an archive has to begin at a multiple of four bytes"
            } else {
                "it was cut short or damaged; compare it with the file where it was made"
            }
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_says_so_and_others() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(fault(root.path()), None, "no log");
        std::fs::create_dir(root.path().join("dev")).unwrap();
        let log = |text: &str| {
            std::fs::write(root.path().join("dev/kmsg"), text).unwrap();
            fault(root.path())
        };
        assert_eq!(log(""), None);
        // From Linux 6.1, with an archive appended to an image of 4n + 1 bytes.
        assert_eq!(log("6,300,512345,-;Unpacking initramfs...\n6,301,712345,-;Freeing initrd memory: 12K\n"), None);
        assert_eq!(
            log("0,301,612345,-;Initramfs unpacking failed: invalid magic at start of compressed archive\n").unwrap(),
            "the kernel could not unpack an archive of the initramfs (invalid magic at start of compressed archive), so \
             what was in it is missing: an archive has to begin at a multiple of four bytes"
        );
        // An archive that gzip had compressed, cut short (lib/decompress_inflate.c).
        assert_eq!(
            log("0,301,612345,-;Initramfs unpacking failed: read error\n").unwrap(),
            "the kernel could not unpack an archive of the initramfs (read error), so what was in it is missing: it was \
             cut short or damaged; compare it with the file where it was made"
        );
        assert!(log("0,1,1,-;Initramfs unpacking failed: \x1b[2J\n SUBSYSTEM=x\n").unwrap().contains("(\\u{1b}[2J),"));
    }
}
