//! What a drive that was left does to others: udevd's worker waits in the kernel for it, in the middle of loading the driver
//! that other drives have, too, so that udevd handles no event of theirs either, and the root device never appears. A worker
//! there cannot be killed. So udevd is begun anew, and told of what is there. Touches no drive itself.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::time::Deadline;

/// What there is to be told of: disks, for the root device, and links, for their names. Their own events load no driver.
const CLASSES: [&str; 2] = ["block", "net"];
/// What the change from one udevd to the next may take. The image's udevd has a second to end, twice
/// (dracut/90imprint/stop.conf).
const PATIENCE: Duration = Duration::from_secs(10);
/// How often that is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// Begins udevd anew if systemd runs it and it hangs, and tells it of everything but the drives that were `left`. Whether
/// it was begun anew. What fails leaves all as it was, and the boot may still come through.
pub fn begin_anew(root: &Path, left: &[String]) -> bool {
    // systemd says so itself (sd_booted(3)); udevd removes its file when it has nothing left to do.
    let is_needed = root.join("run/systemd/system").is_dir() && root.join("run/udev/queue").exists();
    if !is_needed || left.is_empty() || !restart() {
        return false;
    }
    for class in CLASSES {
        let entries = fs::read_dir(root.join("sys/class").join(class)).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !left.iter().any(|drive| is_of(drive, &name)) {
                // The kernel says it once more, to everybody (Documentation/ABI/testing/sysfs-uevent).
                let _ = fs::write(entry.path().join("uevent"), "add");
            }
        }
    }
    true
}

/// The drive or one of its partitions: `vdb`, `vdb1`, `nvme0n1p1`.
fn is_of(drive: &str, name: &str) -> bool {
    name.strip_prefix(drive).is_some_and(|rest| rest.trim_start_matches('p').bytes().all(|byte| byte.is_ascii_digit()))
}

fn restart() -> bool {
    let mut command = Command::new("systemctl");
    command.args(["restart", "systemd-udevd.service"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    let until = Deadline::after(PATIENCE);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if !until.expired() => std::thread::sleep(PAUSE),
            // It waits for a job that systemd goes on with.
            Ok(None) | Err(_) => {
                let _ = child.kill();
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_belong_to_their_drive() {
        for (drive, name) in [("vdb", "vdb"), ("vdb", "vdb12"), ("nvme0n1", "nvme0n1p1"), ("mmcblk0", "mmcblk0p2")] {
            assert!(is_of(drive, name), "{drive} {name}");
        }
        for (drive, name) in
            [("vdb", "vda"), ("sda", "sdaa"), ("sda", "sdaa1"), ("vdb", "eth0"), ("mmcblk0", "mmcblk0boot0")]
        {
            assert!(!is_of(drive, name), "{drive} {name}");
        }
    }

    /// Without systemd nobody would start it again, and one that gets on is left alone.
    #[test]
    fn a_udevd_that_gets_on_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let left = ["vdb".to_owned()];
        fs::create_dir_all(root.path().join("run/udev")).unwrap();
        fs::write(root.path().join("run/udev/queue"), "").unwrap();
        assert!(!begin_anew(root.path(), &left), "no systemd");
        fs::remove_file(root.path().join("run/udev/queue")).unwrap();
        fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
        assert!(!begin_anew(root.path(), &left), "nothing left to do");
    }
}
