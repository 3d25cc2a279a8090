//! Reads the kernel's own log. The kernel vouches for its records; root can add others there, and those do not count.
//! Never writes to the log.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Documentation/ABI/testing/dev-kmsg: each read gives one record.
const LOG: &str = "dev/kmsg";
/// A limit for the loop, in records; no log has as many.
const MAX_RECORDS: usize = 100_000;
/// In bytes; a record is shorter (include/linux/printk.h, PRINTK_MESSAGE_MAX).
const RECORD: usize = 8192;

/// The first message of the kernel that `wanted` takes. `None`: there is none, or the log cannot be read.
pub fn first<T>(root: &Path, wanted: impl Fn(&str) -> Option<T>) -> Option<T> {
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
        if let Some(found) = message(&String::from_utf8_lossy(text)).and_then(&wanted) {
            return Some(found);
        }
    }
    None
}

/// `6,339,5140900,-;message`, and more lines about devices. The first number is the facility times eight, plus the
/// level. The kernel gives its own records facility 0, and allows nobody else that (kernel/printk/printk.c,
/// devkmsg_write).
fn message(record: &str) -> Option<&str> {
    let (priority, rest) = record.split_once(',')?;
    let (_, text) = rest.split_once(';')?;
    priority.parse::<u32>().is_ok_and(|priority| priority < 8).then(|| text.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_kernel_is_its_message() {
        for (record, want) in [
            ("6,339,5140900,-;NET: Registered PF_VSOCK\n", Some("NET: Registered PF_VSOCK")),
            ("4,1,0,-,caller=T1;a;b\n SUBSYSTEM=pci\n DEVICE=+pci:1\n", Some("a;b")),
            ("0,1,0,c;\n", Some("")),
            // What root writes to /dev/kmsg has facility 1 at least.
            ("12,1,0,-;Memory Encryption Features active: AMD SEV\n", None),
            ("30,1,0,-;systemd[1]: started\n", None),
            ("", None),
            ("6,1,0,-", None),
            ("x,1,0,-;y", None),
        ] {
            assert_eq!(message(record), want, "{record}");
        }
    }
}
