//! What the kernel says of block devices, in sysfs and in /proc/swaps. Never opens a device.

use std::fs;
use std::path::{Path, PathBuf};

/// A text of sysfs without its newline. `None`: there is no such file.
pub(super) fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

pub(super) fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// `254:18`
pub(super) fn device(path: &Path) -> Option<(u64, u64)> {
    let text = text(path)?;
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The kernel's name of the device with this number.
pub(super) fn name(root: &Path, (major, minor): (u64, u64)) -> Option<String> {
    let target = fs::read_link(root.join(format!("sys/dev/block/{major}:{minor}"))).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

/// The device node. The kernel writes `!` in place of a slash (lib/kobject.c, kobject_set_name_vargs).
pub(super) fn node(root: &Path, name: &str) -> PathBuf {
    root.join("dev").join(name.replace('!', "/"))
}

/// Who uses the device below another one: the name in device-mapper, or that of the kernel.
pub(super) fn holder(root: &Path, name: &str) -> Option<String> {
    let entry = fs::read_dir(root.join("sys/class/block").join(name).join("holders")).ok()?.flatten().next()?;
    let held = entry.file_name().to_str()?.to_owned();
    Some(text(&root.join("sys/class/block").join(&held).join("dm/name")).unwrap_or(held))
}

/// Whether the kernel uses a device as swap space (proc(5), /proc/swaps). `names`: what it may be called in /dev.
pub(super) fn is_swap(root: &Path, names: &[String]) -> bool {
    let swaps = fs::read_to_string(root.join("proc/swaps")).unwrap_or_default();
    let mut used = swaps.lines().filter_map(|line| line.split_whitespace().next()?.strip_prefix("/dev/"));
    used.any(|used| names.iter().any(|name| name == used))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mapping alone is no swap space: a run that was killed leaves one.
    #[test]
    fn swap_space_is_what_the_kernel_lists() {
        let root = tempfile::tempdir().unwrap();
        let names = ["dm-1".to_owned(), "mapper/imprint-swap-vdb2".to_owned()];
        assert!(!is_swap(root.path(), &names), "no /proc");
        fs::create_dir(root.path().join("proc")).unwrap();
        // Linux 6.1
        let header = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        for (line, is) in [
            ("", false),
            ("/dev/dm-1                               partition\t25596\t\t0\t\t10\n", true),
            ("/dev/mapper/imprint-swap-vdb2           partition\t25596\t\t0\t\t10\n", true),
            ("/dev/dm-10                              partition\t25596\t\t0\t\t10\n", false),
            ("/dm-1                                   file\t\t25596\t\t0\t\t10\n", false),
        ] {
            fs::write(root.path().join("proc/swaps"), format!("{header}{line}")).unwrap();
            assert_eq!(is_swap(root.path(), &names), is, "{line}");
        }
    }
}
