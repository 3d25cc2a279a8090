//! Unpacks what is compressed with xz or zstd, for whoever builds an image. The agent in an image has no room for it, and Linux 5.17 and
//! later do it themselves. Never reads a file.

use ruzstd::decoding::StreamingDecoder;
use ruzstd::io::Read as _;
use xz4rust::{XzDecoder, XzNextBlockResult};

use super::{MAX_MODULE, Packing, UnpackError};

/// One stream. The kernel's own build uses a dictionary of 1 or 2 MiB (scripts/Makefile.modinst), `xz -9` one of 64 MiB.
pub(super) fn xz(bytes: &[u8], most: usize) -> Result<Vec<u8>, UnpackError> {
    let damaged = UnpackError::Damaged(Packing::Xz);
    let mut decoder = XzDecoder::in_heap_with_alloc_dict_size(PIECE, MAX_MODULE);
    let (mut rest, mut module, mut piece) = (bytes, Vec::new(), vec![0; PIECE]);
    loop {
        let done = decoder.decode(rest, &mut piece).map_err(|_| damaged)?;
        let (read, written, ended) = match done {
            XzNextBlockResult::NeedMoreData(read, written) => (read, written, false),
            XzNextBlockResult::EndOfStream(read, written) => (read, written, true),
        };
        rest = rest.get(read..).ok_or(damaged)?;
        add(&mut module, piece.get(..written).ok_or(damaged)?, most)?;
        if ended {
            return Ok(module);
        }
        if read == 0 && written == 0 {
            return Err(damaged);
        }
    }
}

/// One frame. A checksum in it is not compared: the kernel checks what it loads, and the image is checked as a whole where it counts.
pub(super) fn zstd(bytes: &[u8], most: usize) -> Result<Vec<u8>, UnpackError> {
    let damaged = UnpackError::Damaged(Packing::Zstd);
    let mut decoder = StreamingDecoder::new_with_max_window_size(bytes, WINDOW).map_err(|_| damaged)?;
    let (mut module, mut piece) = (Vec::new(), vec![0; PIECE]);
    loop {
        match decoder.read(&mut piece).map_err(|_| damaged)? {
            0 => return Ok(module),
            count => add(&mut module, piece.get(..count).ok_or(damaged)?, most)?,
        }
    }
}

/// The largest window, which is memory. `zstd -19` uses 8 MiB.
const WINDOW: u64 = 64 * 1024 * 1024;
/// How much is unpacked at a time.
const PIECE: usize = 64 * 1024;

fn add(module: &mut Vec<u8>, piece: &[u8], most: usize) -> Result<(), UnpackError> {
    if module.len().saturating_add(piece.len()) > most {
        return Err(UnpackError::TooLong);
    }
    module.extend_from_slice(piece);
    Ok(())
}
