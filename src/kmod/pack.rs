//! Unpacks a module that is stored compressed, known by its first bytes: gzip, and with the feature `unpackers`, which the host has, xz
//! and zstd. Whoever built the image vouches for the
//! file; a limit holds before and while it is unpacked all the same. Never reads a file.

use std::fmt;

use crate::checksum::crc32;
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit};

#[cfg(feature = "unpackers")]
mod more;

/// The longest module, packed or not, in bytes. The longest of Debian's has 19 MB.
pub const MAX_MODULE: usize = 64 * 1024 * 1024;

/// How the file of a module is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packing {
    /// An ELF file, as the kernel takes it.
    None,
    /// RFC 1952
    Gzip,
    /// The .xz File Format 1.2.0
    Xz,
    /// RFC 8878
    Zstd,
    /// Something else.
    Unknown,
}

/// Why a module cannot be unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnpackError {
    /// It is neither a module nor packed in a way that is known.
    Unknown,
    /// Kernels since 5.17 unpack it themselves if they are built so. This program does not: the agent in an image has gzip alone.
    NotHere(Packing),
    /// The packed data is damaged, or ends too early.
    Damaged(Packing),
    /// It is longer than [`MAX_MODULE`], or needs a window that is.
    TooLong,
    /// What was packed is no ELF file.
    NotElf(Packing),
}

impl Packing {
    /// By the first bytes of the file.
    pub fn of(bytes: &[u8]) -> Packing {
        match bytes {
            [0x7f, b'E', b'L', b'F', ..] => Packing::None,
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            _ => Packing::Unknown,
        }
    }

    /// What the files are called behind `.ko`.
    pub fn suffix(self) -> &'static str {
        match self {
            Packing::Gzip => ".gz",
            Packing::Xz => ".xz",
            Packing::Zstd => ".zst",
            Packing::None | Packing::Unknown => "",
        }
    }
}

/// The module in a file. A module that is not packed is returned as it is.
pub fn unpack(bytes: &[u8]) -> Result<Vec<u8>, UnpackError> {
    up_to(bytes, MAX_MODULE)
}

/// With another limit.
pub(super) fn up_to(bytes: &[u8], most: usize) -> Result<Vec<u8>, UnpackError> {
    if bytes.len() > most {
        return Err(UnpackError::TooLong);
    }
    let packing = Packing::of(bytes);
    let module = match packing {
        Packing::None => return Ok(bytes.to_vec()),
        Packing::Gzip => gzip(bytes, most),
        #[cfg(feature = "unpackers")]
        Packing::Xz => more::xz(bytes, most),
        #[cfg(feature = "unpackers")]
        Packing::Zstd => more::zstd(bytes, most),
        #[cfg(not(feature = "unpackers"))]
        Packing::Xz | Packing::Zstd => Err(UnpackError::NotHere(packing)),
        Packing::Unknown => Err(UnpackError::Unknown),
    }?;
    match Packing::of(&module) {
        Packing::None => Ok(module),
        _ => Err(UnpackError::NotElf(packing)),
    }
}

/// One member; its name and other optional fields are passed over.
fn gzip(bytes: &[u8], most: usize) -> Result<Vec<u8>, UnpackError> {
    let damaged = UnpackError::Damaged(Packing::Gzip);
    let (head, rest) = bytes.split_first_chunk::<10>().ok_or(damaged)?;
    let (mut rest, trailer) = rest.split_last_chunk::<8>().ok_or(damaged)?;
    // RFC 1952 §2.3.1
    let [_, _, 8, flags, ..] = *head else { return Err(damaged) };
    if flags & 4 != 0 {
        let (length, behind) = rest.split_first_chunk::<2>().ok_or(damaged)?;
        rest = behind.get(usize::from(u16::from_le_bytes(*length))..).ok_or(damaged)?;
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            let end = rest.iter().position(|byte| *byte == 0).ok_or(damaged)?;
            rest = rest.get(end..).and_then(|rest| rest.get(1..)).ok_or(damaged)?;
        }
    }
    if flags & 2 != 0 {
        rest = rest.get(2..).ok_or(damaged)?;
    }
    let module = decompress_to_vec_with_limit(rest, most).map_err(|error| match error.status {
        TINFLStatus::HasMoreOutput => UnpackError::TooLong,
        _ => damaged,
    })?;
    let [a, b, c, d, length @ ..] = *trailer;
    let is_whole = u32::try_from(module.len()).is_ok_and(|len| len == u32::from_le_bytes(length))
        && !crc32(u32::MAX, &module) == u32::from_le_bytes([a, b, c, d]);
    if is_whole { Ok(module) } else { Err(damaged) }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Packing::None => "ELF",
            Packing::Gzip => "gzip",
            Packing::Xz => "xz",
            Packing::Zstd => "zstd",
            Packing::Unknown => "unknown",
        })
    }
}

impl fmt::Display for UnpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnpackError::Unknown => f.write_str(
                "it is neither a module nor compressed with gzip, xz or zstd; store modules unpacked in the image, as imprint-host \
                 image does",
            ),
            UnpackError::NotHere(packing) => write!(
                f,
                "it is compressed with {packing}, and this kernel does not unpack that (CONFIG_MODULE_DECOMPRESS); store modules \
                 unpacked in the image, as imprint-host image does"
            ),
            UnpackError::Damaged(packing) => {
                write!(f, "its {packing} data is damaged or cut short; build the image again")
            }
            UnpackError::TooLong => write!(f, "it unpacks to more than {MAX_MODULE} bytes; build the image again"),
            UnpackError::NotElf(packing) => write!(f, "its {packing} data holds no module; build the image again"),
        }
    }
}

impl std::error::Error for UnpackError {}
