//! Swap space in memory, compressed (zram), for machines without a disk. Takes a device that nobody has set up, and never changes another.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::disk::{activate, put_header};
use super::{Area, Kind, SwapError, sysfs};
use crate::pool::Seeded;
use crate::sys;

/// The best first. The kernel's own is lzo-rle.
const ALGORITHMS: [&str; 2] = ["zstd", "lzo-rle"];
/// As zram-generator of systemd has it: before any disk.
const PRIORITY: i32 = 100;

/// Has the kernel use compressed memory of `percent` % of the memory. Does nothing if it uses some already, whoever asked for it.
pub(super) fn enable(root: &Path, percent: u8, _: &Seeded) -> Result<Area, SwapError> {
    let failed = |what| move |source| SwapError::Zram { what, source };
    let swaps = fs::read_to_string(root.join("proc/swaps")).unwrap_or_default();
    if let Some((device, bytes)) = active(&swaps) {
        return Ok(Area { kind: Kind::Zram, device, partition: None, bytes });
    }
    let page = u64::try_from(sys::page_size().map_err(failed("the size of a page"))?).unwrap_or(4096);
    let text = fs::read_to_string(root.join("proc/meminfo")).map_err(failed("reading /proc/meminfo"))?;
    let total = memory(&text).ok_or_else(|| failed("reading /proc/meminfo")(io::ErrorKind::InvalidData.into()))?;
    let bytes = (total / 100).saturating_mul(percent.into()) / page * page;
    let name = device(root).map_err(failed("making a device"))?;
    let folder = root.join("sys/block").join(&name);
    set_up(root, &folder, &name, bytes).inspect_err(|_| {
        // Gives the memory back. Errors of the clean-up are ignored: the first error is reported.
        let _ = fs::write(folder.join("reset"), "1");
    })?;
    Ok(Area { kind: Kind::Zram, device: name, partition: None, bytes })
}

fn set_up(root: &Path, folder: &Path, name: &str, bytes: u64) -> Result<(), SwapError> {
    let known = sysfs::text(&folder.join("comp_algorithm")).unwrap_or_default();
    // A kernel that lists an algorithm may be without its module. Its own one is there.
    for algorithm in ALGORITHMS.into_iter().filter(|algorithm| knows(&known, algorithm)) {
        if fs::write(folder.join("comp_algorithm"), algorithm).is_ok() {
            break;
        }
    }
    let sized = fs::write(folder.join("disksize"), bytes.to_string());
    sized.map_err(|source| SwapError::Zram { what: "setting its size", source })?;
    let node = sysfs::node(root, name);
    let written = fs::OpenOptions::new().write(true).open(&node).and_then(|mut file| {
        put_header(&mut file, bytes)?;
        file.sync_all()
    });
    written.map_err(|source| SwapError::Write { device: name.to_owned(), source })?;
    activate(&node, PRIORITY).map_err(|source| SwapError::Activate { device: name.to_owned(), source })
}

/// The name of a device that nobody has set up.
fn device(root: &Path) -> io::Result<String> {
    let control = root.join("sys/class/zram-control/hot_add");
    if !control.exists() {
        load(root)?;
    }
    // The module makes one at its start.
    if sysfs::number(&root.join("sys/block/zram0/disksize")) == Some(0) {
        return Ok("zram0".to_owned());
    }
    // Documentation/admin-guide/blockdev/zram.rst: reading it makes a device, and gives its number.
    let number: u32 = fs::read_to_string(control)?.trim().parse().map_err(io::Error::other)?;
    Ok(format!("zram{number}"))
}

/// Loads the module with the kernel's own program for that: unlike other devices, nothing asks for this one by opening it.
fn load(root: &Path) -> io::Result<()> {
    let program = sysfs::text(&root.join("proc/sys/kernel/modprobe")).unwrap_or_default();
    let program = if program.is_empty() { PathBuf::from("/sbin/modprobe") } else { PathBuf::from(program) };
    let mut command = Command::new(program);
    command.args(["-q", "--", "zram"]).env_clear().current_dir("/");
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("modprobe zram: {status}"))) }
}

/// Name and size of compressed memory in /proc/swaps (proc(5)): `/dev/zram0  partition  126860  0  100`, in KiB.
fn active(swaps: &str) -> Option<(String, u64)> {
    swaps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?.strip_prefix("/dev/").filter(|name| name.starts_with("zram"))?;
        let size: u64 = words.nth(1)?.parse().ok()?;
        Some((name.to_owned(), size.checked_mul(1024)?))
    })
}

/// proc_meminfo(5): `MemTotal:        1014908 kB`
fn memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// `lzo [lzo-rle] lz4 zstd`
fn knows(list: &str, algorithm: &str) -> bool {
    list.split_whitespace().any(|known| known.trim_matches(['[', ']']) == algorithm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_memory_and_algorithms() {
        // A guest of 1 GiB with Linux 6.1.
        let text = "MemTotal:        1014908 kB\nMemFree:          901234 kB\nMemAvailable:     912345 kB\n";
        assert_eq!(memory(text), Some(1_014_908 * 1024));
        assert_eq!(memory("MemFree: 1 kB\n"), None);
        assert_eq!(memory("MemTotal: x kB\n"), None);
        assert_eq!(memory("MemTotal: 18446744073709551615 kB\n"), None);
        let list = "lzo [lzo-rle] lz4 lz4hc 842 zstd";
        assert!(knows(list, "lzo-rle") && knows(list, "zstd"));
        assert!(!knows(list, "lz") && !knows("", "zstd"));
    }

    /// A second run must not take as much memory again.
    #[test]
    fn what_is_in_use_already_is_seen() {
        let header = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        let disk = format!("{header}/dev/dm-0                               partition\t25596\t\t0\t\t10\n");
        assert_eq!(active(header), None);
        assert_eq!(active(&disk), None);
        let both = format!("{disk}/dev/zram0                              partition\t126860\t\t0\t\t100\n");
        assert_eq!(active(&both), Some(("zram0".to_owned(), 126_860 * 1024)));
    }

    /// Somebody else's device is not set up anew: its pages would be lost.
    #[test]
    fn a_device_that_is_in_use_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("sys/class/zram-control/hot_add", "1\n");
        write("sys/block/zram0/disksize", "0\n");
        assert_eq!(device(root.path()).unwrap(), "zram0");
        write("sys/block/zram0/disksize", "1073741824\n");
        assert_eq!(device(root.path()).unwrap(), "zram1");
    }
}
