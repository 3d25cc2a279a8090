//! Restarts udevd when it hangs on a drive that does not answer. A worker of udevd then waits in the kernel for that
//! drive while it loads a driver, and cannot be killed. udevd handles no event of other drives with the same driver,
//! and the root device never appears. After the restart this module announces all devices again, except the drives that
//! do not answer. It never opens a drive.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::time::Deadline;

/// The device classes that are announced again: disks for the root device, and links for their names. Their own events
/// load no driver.
const CLASSES: [&str; 2] = ["block", "net"];
/// How long the restart may take. The image's udevd has a second to end, twice (dracut/50imprint/stop.conf).
const PATIENCE: Duration = Duration::from_secs(10);
/// The time between two looks at whether the restart has ended.
const PAUSE: Duration = Duration::from_millis(20);

/// Restarts udevd if systemd runs it and it hangs, and announces all devices again except the drives in `left`. `None`
/// if no restart is needed. After an error the boot may still succeed, so the caller only reports the error.
pub fn begin_anew(root: &Path, left: &[String]) -> Option<io::Result<()>> {
    is_needed(root, left).then(|| restart().map(|()| tell(root, left)))
}

/// Whether a drive was left, systemd runs (sd_booted(3)), this is an initramfs, and udevd is busy. udevd removes
/// `run/udev/queue` when it has nothing left to do.
fn is_needed(root: &Path, left: &[String]) -> bool {
    let here = |path: &str| root.join(path).exists();
    !left.is_empty() && here("run/systemd/system") && here("etc/initrd-release") && here("run/udev/queue")
}

fn tell(root: &Path, left: &[String]) {
    for class in CLASSES {
        let entries = fs::read_dir(root.join("sys/class").join(class)).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !left.iter().any(|drive| is_of(drive, &name)) {
                // The kernel sends the event again to all listeners (Documentation/ABI/testing/sysfs-uevent). Errors
                // are ignored: a device may have gone meanwhile.
                let _ = fs::write(entry.path().join("uevent"), "add");
            }
        }
    }
}

/// Whether `name` is the drive or one of its partitions: `vdb`, `vdb1`, `nvme0n1p1`.
fn is_of(drive: &str, name: &str) -> bool {
    name.strip_prefix(drive).is_some_and(|rest| rest.trim_start_matches('p').bytes().all(|byte| byte.is_ascii_digit()))
}

fn restart() -> io::Result<()> {
    let mut command = Command::new("systemctl");
    command.args(["restart", "systemd-udevd.service"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let until = Deadline::after(PATIENCE);
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(io::Error::other(format!("systemctl: {status}"))),
            None if !until.expired() => std::thread::sleep(PAUSE),
            None => {
                // systemctl only waits for the job; systemd continues it.
                let _ = child.kill();
                let _ = child.wait();
                return Err(io::ErrorKind::TimedOut.into());
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

    /// Without systemd nothing would start udevd again. A udevd that makes progress must not be restarted.
    #[test]
    fn a_udevd_that_gets_on_is_left_alone() {
        let left = ["vdb".to_owned()];
        let all = ["run/systemd/system", "etc/initrd-release", "run/udev/queue"];
        let root = |but: &str| {
            let root = tempfile::tempdir().unwrap();
            all.iter()
                .filter(|path| **path != but)
                .for_each(|path| fs::create_dir_all(root.path().join(path)).unwrap());
            root
        };
        assert!(is_needed(root("").path(), &left));
        assert!(!is_needed(root("").path(), &[]), "every drive has answered");
        for but in all {
            assert!(!is_needed(root(but).path(), &left), "without {but}");
        }
    }

    #[test]
    fn it_is_told_of_everything_but_the_drives_that_were_left() {
        let root = tempfile::tempdir().unwrap();
        let names = ["block/vda", "block/vda1", "block/vdb", "block/vdb1", "net/eth0"];
        let uevent = |name: &str| root.path().join("sys/class").join(name).join("uevent");
        for name in names {
            fs::create_dir_all(uevent(name).parent().unwrap()).unwrap();
            fs::write(uevent(name), "").unwrap();
        }
        tell(root.path(), &["vdb".to_owned()]);
        let told: Vec<&str> = names.into_iter().filter(|name| fs::read(uevent(name)).unwrap() == b"add").collect();
        assert_eq!(told, ["block/vda", "block/vda1", "net/eth0"]);
    }
}
