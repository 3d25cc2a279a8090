//! The marker of a partition for swap space, and the parts of the partition that stay as `imprint swap prepare` has written them. The
//! marker is at the beginning; all else in both margins is zeros, at every moment. So the partition never looks like a file system or a
//! member of a RAID, whatever lies between the margins. Everybody who ever wrote to the disk vouches for its bytes, so they are compared,
//! and never interpreted. Never writes, and never reads between the margins.

use std::io::{Read, Seek};

use super::medium::VolumeError;
use super::partition::read;

/// How long the first margin is. libblkid (util-linux 2.38), which udev, mkfs and mdadm ask, reads up to 4 MiB and 512 bytes from the
/// start, where LUKS2 may have its second header; VMFS has its mark at 2 MiB.
pub const HEAD: u64 = 5 * MIB;
/// The least length of the last margin. RAID, ZFS and GPT have their marks in the last MiB, and the furthest from the end that libblkid
/// reads is that of Promise, at 3087 sectors.
pub const TAIL: u64 = 2 * MIB;
/// The smallest partition that is used.
pub const LEAST: u64 = 16 * MIB;
const MIB: u64 = 1024 * 1024;
/// What lies between the margins is a multiple of the largest page of any machine (arm64: 64 KiB).
const LARGEST_PAGE: u64 = 64 * 1024;
/// How many bytes are compared at once. Divides [`HEAD`].
const PIECE: u64 = 64 * 1024;
/// The length of the marker: a sector.
pub const MARK: usize = 512;

/// How every marker begins.
const WORDS: &[u8] = b"imprint swap ";

/// What a partition is, as far as swap space goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// Both margins are as they were written.
    Ours,
    /// It begins with a marker, but something else was written since. The first place that differs, in bytes from the start.
    Changed(u64),
    /// It is somebody else's.
    None,
}

/// Where swap space is on a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    bytes: u64,
}

impl Layout {
    /// For a partition of so many bytes. `None`: it is too small.
    pub fn of(bytes: u64) -> Option<Layout> {
        (bytes >= LEAST).then_some(Layout { bytes })
    }

    /// Start and length in bytes of what lies between the margins.
    pub fn inner(self) -> (u64, u64) {
        let len = self.bytes.saturating_sub(HEAD + TAIL);
        (HEAD, len - len % LARGEST_PAGE)
    }

    /// Start and length in bytes of both margins.
    pub fn margins(self) -> [(u64, u64); 2] {
        let (start, len) = self.inner();
        let end = start.saturating_add(len);
        [(0, HEAD), (end, self.bytes.saturating_sub(end))]
    }

    /// The marker. It names the length of the partition, so that one that was made smaller or larger since is not used.
    pub fn mark(self) -> [u8; MARK] {
        let text = format!(
            "imprint swap 1\nlength {}\nimprint uses this partition as swap space. The key is made anew at each boot and kept nowhere.\n",
            self.bytes
        );
        let mut mark = [0; MARK];
        mark.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
        mark
    }
}

/// Compares the margins of a partition of so many bytes.
pub fn look(device: &mut (impl Read + Seek), bytes: u64) -> Result<Mark, VolumeError> {
    let Some(layout) = Layout::of(bytes) else { return Ok(Mark::None) };
    let mut first = [0; MARK];
    if !read(device, 0, &mut first)? || !first.starts_with(WORDS) {
        return Ok(Mark::None);
    }
    let mark = layout.mark();
    if let Some(at) = first.iter().zip(mark).position(|(found, wanted)| *found != wanted) {
        return Ok(Mark::Changed(u64::try_from(at).unwrap_or(0)));
    }
    let behind = u64::try_from(MARK).unwrap_or(0);
    let [(_, head), (start, len)] = layout.margins();
    for (start, len) in [(behind, head.saturating_sub(behind)), (start, len)] {
        if let Some(at) = first_byte(device, start, len)? {
            return Ok(Mark::Changed(at));
        }
    }
    Ok(Mark::Ours)
}

/// The place of the first byte in this range that is not zero. Where the device ends before, the end counts as one.
pub fn first_byte(device: &mut (impl Read + Seek), start: u64, len: u64) -> Result<Option<u64>, VolumeError> {
    let mut piece = vec![0; usize::try_from(PIECE).unwrap_or(0)];
    let end = start.saturating_add(len);
    let mut at = start;
    while at < end {
        let count = PIECE.min(end.saturating_sub(at));
        let part = piece.get_mut(..usize::try_from(count).unwrap_or(0)).unwrap_or_default();
        if !read(device, at, part)? {
            return Ok(Some(at));
        }
        // Without a way out in the middle, the compiler compares many bytes at once.
        if part.iter().fold(0, |all, byte| all | byte) != 0 {
            let index = part.iter().position(|byte| *byte != 0).unwrap_or(0);
            return Ok(Some(at.saturating_add(u64::try_from(index).unwrap_or(0))));
        }
        at = at.saturating_add(count);
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
