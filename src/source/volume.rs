//! The volumes on a medium, in every format that is supported: their labels, and one small file by its path. Nobody
//! vouches for a medium. It is therefore read in userspace, so that no file system code of the kernel runs on it, and
//! by a process without other rights (`reader.rs`). Never writes, and never follows the medium's data beyond fixed
//! limits.

use std::io::{Read, Seek};

use super::medium::VolumeError;
use super::{fat, iso9660};
use crate::secret::Secret;

/// A volume whose descriptor has been read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Volume {
    /// ECMA-119, with Joliet and Rock Ridge.
    Iso9660(iso9660::Volume),
    /// FAT12, FAT16, FAT32 on a whole disk.
    Fat(fat::Volume),
}

impl Volume {
    /// Every volume of a supported format, ISO 9660 first. A medium can have both: ISO 9660 begins at byte 32768 and
    /// FAT at byte 0, so that writing one need not erase the other. A damaged descriptor still gives a volume with its
    /// label; [`Volume::file`] then fails.
    pub fn all(device: &mut (impl Read + Seek)) -> Result<Vec<Volume>, VolumeError> {
        let iso = iso9660::Volume::open(device)?.map(Volume::Iso9660);
        let fat = fat::Volume::open(device)?.map(Volume::Fat);
        Ok(iso.into_iter().chain(fat).collect())
    }

    /// The name of the format.
    pub fn format(&self) -> &'static str {
        match self {
            Volume::Iso9660(_) => "ISO 9660",
            Volume::Fat(_) => "FAT",
        }
    }

    /// The labels, without trailing blanks. A volume with Joliet has two.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        match self {
            Volume::Iso9660(volume) => volume.labels(),
            Volume::Fat(volume) => volume.labels(),
        }
        .iter()
        .map(String::as_str)
    }

    /// The content of the file at `path`; names are compared without regard to case. `None` if there is no such file.
    pub fn file(
        &self,
        device: &mut (impl Read + Seek),
        path: &[&str],
        max: usize,
    ) -> Result<Option<Secret>, VolumeError> {
        match self {
            Volume::Iso9660(volume) => volume.file(device, path, max),
            Volume::Fat(volume) => volume.file(device, path, max),
        }
    }
}
