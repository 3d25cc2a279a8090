//! What the kernel says of block devices, in sysfs. Never opens a device.

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
