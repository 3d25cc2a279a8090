//! Finds out whether the kernel failed to unpack an archive of the initramfs. The kernel continues without such an
//! archive and reports it only in its log. This module reads the log and never writes to it.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::shown::printable;

/// Documentation/ABI/testing/dev-kmsg: the kernel's log; each read gives one record.
const LOG: &str = "dev/kmsg";
/// init/initramfs.c, do_populate_rootfs
const FAILED: &str = "Initramfs unpacking failed: ";
/// A limit for the loop, in records; no log has as many.
const MAX_RECORDS: usize = 100_000;
/// In bytes; a record is shorter (include/linux/printk.h, PRINTK_MESSAGE_MAX).
const RECORD: usize = 8192;

/// A message for an operator whose file in the initramfs is missing. `None` if the log has no such failure, or cannot
/// be read.
pub fn fault(root: &Path) -> Option<String> {
    let mut log = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(root.join(LOG)).ok()?;
    let mut record = vec![0; RECORD];
    for _ in 0..MAX_RECORDS {
        let text = match log.read(&mut record) {
            Ok(0) => return None,
            Ok(length) => record.get(..length).unwrap_or_default(),
            // The kernel has overwritten the record; the next read gives the one after it.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => continue,
            // The end of the log (EAGAIN), or another error.
            Err(_) => return None,
        };
        let text = String::from_utf8_lossy(text);
        if let Some((_, why)) = text.split_once(FAILED) {
            return Some(format!(
                "the kernel could not unpack an archive of the initramfs ({}), so what was in it is missing: an archive \
                 has to begin at a multiple of four bytes",
                printable(why.lines().next().unwrap_or_default())
            ));
        }
    }
    None
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
        assert!(log("0,1,1,-;Initramfs unpacking failed: \x1b[2J\n SUBSYSTEM=x\n").unwrap().contains("(\\u{1b}[2J),"));
    }
}
