//! Loads the kernel module that shows QEMU's fw_cfg device in /sys, if nobody else has loaded it. The hypervisor
//! vouches for what the device offers. Never reads what the device offers.
//!
//! systemd as PID 1 loads the module before it starts a unit, and udevd loads it where it runs. So this code matters
//! only in an initramfs with neither. It starts modprobe, which knows where modules are and how they are compressed.
//! The sandbox of imprint.service forbids that, and there the module is loaded already.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use crate::sys;
use crate::time::Deadline;

/// The folder that the module makes.
const FOLDER: &str = "sys/firmware/qemu_fw_cfg";
/// The folder of the devices that the module is for.
const DEVICES: &str = "sys/bus/platform/devices";
const MODPROBE: [&str; 3] = ["usr/sbin/modprobe", "sbin/modprobe", "usr/bin/modprobe"];
/// How long modprobe may take. The module waits for no hardware.
const PATIENCE: Duration = Duration::from_secs(2);

/// Loads the module if its device is there and nobody has loaded it. A failure is silent: [`unread`] tells of it where
/// it matters.
pub fn load(root: &Path, deadline: Deadline) {
    if !unread(root) {
        return;
    }
    let Some(program) = MODPROBE.iter().map(|path| root.join(path)).find(|path| path.exists()) else { return };
    let mut command = Command::new(program);
    command.args(["-q", "qemu_fw_cfg"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return };
    let Some(output) = child.stdout.take() else { return };
    // The pipe closes when modprobe ends. modprobe prints nothing, and what it prints would not be read.
    let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
    let ended = sys::poll(&mut fds, deadline.at_most(PATIENCE));
    if !matches!(ended, Ok(true)) {
        // Errors are ignored: the process may have ended already.
        let _ = child.kill();
    }
    // Does not wait for a process that hangs in the kernel.
    let _ = child.try_wait();
}

/// Whether the machine has the device, and the kernel does not show what the device offers.
pub fn unread(root: &Path) -> bool {
    // QEMU's ACPI tables name the device QEMU0002; its device trees have a node ADDRESS.fw-cfg.
    let is_device = |name: &str| name.starts_with("QEMU0002:") || name.ends_with(".fw-cfg");
    let devices = || root.join(DEVICES).read_dir().into_iter().flatten().flatten();
    !root.join(FOLDER).exists() && devices().any(|device| device.file_name().to_str().is_some_and(is_device))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PATIENTLY: Duration = Duration::from_secs(120);

    /// A root with this script as modprobe.
    fn root(script: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["sbin", "sys/firmware", DEVICES] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let program = root.path().join("sbin/modprobe");
        fs::write(&program, format!("#!/bin/sh\ncd {}\n{script}\n", root.path().display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        root
    }

    /// The module is loaded only on machines with its device, and only once.
    #[test]
    fn the_module_is_loaded_where_its_device_is() {
        let loading = "echo \"$@\" >>loaded; mkdir -p sys/firmware/qemu_fw_cfg";
        for (device, loads) in
            [("QEMU0002:00", true), ("9020000.fw-cfg", true), ("PNP0C0C:00", false), ("QEMU0001:00", false)]
        {
            let root = root(loading);
            fs::create_dir(root.path().join(DEVICES).join(device)).unwrap();
            assert_eq!(unread(root.path()), loads, "{device}");
            load(root.path(), Deadline::after(PATIENTLY));
            load(root.path(), Deadline::after(PATIENTLY));
            let loaded = fs::read_to_string(root.path().join("loaded")).unwrap_or_default();
            assert_eq!(loaded, if loads { "-q qemu_fw_cfg\n" } else { "" }, "{device}");
            assert!(!unread(root.path()));
        }
    }

    #[test]
    fn a_module_that_is_not_there_is_no_error() {
        let root = root("exit 1");
        fs::create_dir(root.path().join(DEVICES).join("QEMU0002:00")).unwrap();
        load(root.path(), Deadline::after(PATIENTLY));
        fs::remove_file(root.path().join("sbin/modprobe")).unwrap();
        load(root.path(), Deadline::after(PATIENTLY));
        assert!(unread(root.path()));
    }

    /// A modprobe that hangs is left behind: the script waits for ever, and the test ends.
    #[test]
    fn a_modprobe_that_hangs_is_left() {
        let root = root("exec sleep 1000000");
        fs::create_dir(root.path().join(DEVICES).join("QEMU0002:00")).unwrap();
        load(root.path(), Deadline::after(Duration::from_millis(50)));
        assert!(unread(root.path()));
    }
}
