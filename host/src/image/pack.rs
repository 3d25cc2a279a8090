//! Compresses an image in a form that kernels unpack (init/initramfs.c). The same bytes always give the same bytes. Pure.

use std::io;

use imprint::checksum::crc32;
use miniz_oxide::deflate::compress_to_vec;
use zeroize::Zeroizing;

/// How an image is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Compress {
    /// zstd, for Linux 5.9 and later
    Zstd,
    /// gzip, for every kernel
    Gzip,
    /// Not at all
    None,
}

impl Compress {
    /// The word for it, and the part of a kernel that unpacks it, as `modules.builtin` lists it.
    pub(super) fn unpacker(self) -> Option<(&'static str, &'static str)> {
        match self {
            Compress::Zstd => Some(("zstd", "zstd_decompress")),
            Compress::Gzip => Some(("gzip", "zlib_inflate")),
            Compress::None => None,
        }
    }

    /// Packs an archive.
    pub(super) fn pack(self, archive: Zeroizing<Vec<u8>>) -> io::Result<Zeroizing<Vec<u8>>> {
        match self {
            Compress::None => Ok(archive),
            Compress::Gzip => Ok(Zeroizing::new(gzip(&archive))),
            Compress::Zstd => {
                let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
                // An image that arrives damaged is said to be by the kernel.
                compressor.include_checksum(true)?;
                compressor.compress(&archive).map(Zeroizing::new)
            }
        }
    }
}

/// The smallest form that needs no more memory to unpack than a kernel gives: its window is 8 MiB.
const ZSTD_LEVEL: i32 = 19;

/// RFC 1952 §2.3: magic, deflate, no flags, no time, no word about the effort, unknown operating system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let body = compress_to_vec(bytes, 6);
    // ISIZE is the length modulo 2^32.
    let length = u32::try_from(bytes.len() % (1 << 32)).unwrap_or_default();
    [&HEAD[..], &body, &(!crc32(u32::MAX, bytes)).to_le_bytes(), &length.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// Other people's programs unpack it.
    #[test]
    fn gzip_and_zstd_unpack_it() {
        let archive: Vec<u8> = (0..200_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        for (form, program) in [(Compress::Gzip, "gzip"), (Compress::Zstd, "zstd")] {
            let packed = form.pack(Zeroizing::new(archive.clone())).unwrap();
            assert!(packed.len() < archive.len() / 2, "{program}: {}", packed.len());
            assert_eq!(*packed, *form.pack(Zeroizing::new(archive.clone())).unwrap(), "{program}: always the same");
            let mut child = Command::new(program)
                .args(["-d", "-c"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("{program}: {error}: run scripts/install-needs test"));
            let mut into = child.stdin.take().unwrap();
            let writer = std::thread::spawn(move || into.write_all(&packed).unwrap());
            let unpacked = child.wait_with_output().unwrap();
            writer.join().unwrap();
            assert!(unpacked.status.success() && unpacked.stdout == archive, "{program}");
        }
        assert_eq!(*Compress::None.pack(Zeroizing::new(archive.clone())).unwrap(), archive);
    }
}
