//! Reads the kernel's table of mounts (proc_pid_mountinfo(5)). Never mounts anything.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::makedev;

use super::{NAME, RootError};

// Mount namespaces belong to threads.
const TABLE: &str = "/proc/thread-self/mountinfo";

/// One line of the table.
struct Row {
    device: u64,
    point: PathBuf,
    kind: String,
    source: String,
}

impl Row {
    fn is_ours(&self) -> bool {
        self.kind == "overlay" && self.source == NAME
    }
}

/// Whether something is mounted at this path itself.
pub(super) fn is_mount_point(path: &Path) -> Result<bool, RootError> {
    Ok(rows()?.iter().any(|row| row.point == path))
}

/// The source of what is mounted at this path itself: of the uppermost, where there are several.
pub(in crate::apply) fn source_at(path: &Path) -> Result<Option<String>, RootError> {
    Ok(rows()?.into_iter().rfind(|row| row.point == path).map(|row| row.source))
}

/// The device numbers of this program's overlays, wherever they are. A directory of an overlay has that of the overlay.
pub(super) fn devices() -> Result<Vec<u64>, RootError> {
    Ok(rows()?.into_iter().filter(Row::is_ours).map(|row| row.device).collect())
}

/// The overlays of this program below a directory, in the order in which they were mounted.
pub(super) fn ours(tree: &Path) -> Result<Vec<PathBuf>, RootError> {
    let rows = rows()?.into_iter().filter(|row| row.point.starts_with(tree));
    Ok(rows.filter(Row::is_ours).map(|row| row.point).collect())
}

/// What is mounted below a directory, each path once, without that of the directory. A path that is not UTF-8 cannot be one of a
/// bundle, so it is left out.
pub(super) fn below(tree: &Path) -> Result<Vec<String>, RootError> {
    let inner = |row: Row| Some(row.point.strip_prefix(tree).ok()?.to_str()?.to_owned());
    let mut points: Vec<String> = rows()?.into_iter().filter_map(inner).filter(|point| !point.is_empty()).collect();
    points.sort_unstable();
    points.dedup();
    Ok(points)
}

fn rows() -> Result<Vec<Row>, RootError> {
    let failed = |source| RootError::File { doing: "reading", path: TABLE.into(), source };
    let text = fs::read(TABLE).map_err(failed)?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| row(line).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn row(line: &[u8]) -> Option<Row> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (major, minor) = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let device = makedev(major.parse().ok()?, minor.parse().ok()?);
    let point = unescaped(fields.nth(1)?);
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let (kind, source) = (text(fields.next()?), text(fields.next()?));
    Some(Row { device, point: OsString::from_vec(point).into(), kind, source })
}

/// The kernel writes space, tab, line feed and backslash as three octal digits (seq_path, fs/seq_file.c).
fn unescaped(field: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((first, after)) = rest.split_first() {
        let digits = after.split_at_checked(3).filter(|_| *first == b'\\').and_then(|(digits, after)| {
            let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?;
            Some((byte, after))
        });
        let (byte, after) = digits.unwrap_or((*first, after));
        bytes.push(byte);
        rest = after;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table() {
        // Linux 6.1: mount -t overlay -o … imprint "/tmp/a b\\c", with an optional field, and without one.
        for optional in ["", "shared:7 master:2 "] {
            let line = format!("90 60 0:77 / /tmp/a\\040b\\134c rw,relatime {optional}- overlay imprint rw,lowerdir=x");
            let row = row(line.as_bytes()).unwrap();
            assert_eq!(row.device, makedev(0, 77));
            assert_eq!((row.point.to_str(), &*row.kind, &*row.source), (Some("/tmp/a b\\c"), "overlay", "imprint"));
        }
        assert!(row(b"90 60 0:77 /").is_none());
        assert_eq!(unescaped(b"\\9\\04"), b"\\9\\04");
    }

    #[test]
    fn the_table_of_this_machine_is_read() {
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        assert!(below(Path::new("/")).unwrap().contains(&"proc".to_owned()));
        assert!(!is_mount_point(Path::new("/proc/1")).unwrap());
    }
}
