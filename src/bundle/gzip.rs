//! gzip (RFC 1952) in one form: one member, no name, no time, nothing behind it. Inflates into a buffer of the length that the file
//! itself names, which has a limit, and never beyond it.

use std::fmt;

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress, create_comp_flags_from_zip_params,
};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use zeroize::Zeroizing;

use crate::checksum::crc32;

/// Why bytes are no gzip file of this form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GzipError {
    /// They do not begin as a gzip file does.
    NotGzip,
    /// The head has a name, a time, or the number of an operating system.
    Head,
    /// The file ends too early.
    Cut,
    /// It says that it unpacks to more bytes than a bundle may have.
    TooLong(u32),
    /// It unpacks to more bytes than it says.
    Bomb(u32),
    /// It unpacks to fewer bytes than it says.
    Short(u32),
    /// The compressed data is damaged.
    Damaged,
    /// The checksum does not fit.
    Checksum,
    /// So many bytes follow.
    Trailing(usize),
    /// It could not be compressed.
    Compressor,
}

impl fmt::Display for GzipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GzipError::NotGzip => f.write_str("not a gzip file; make the bundle with imprint-host bundle make"),
            GzipError::Head => f.write_str("the gzip file has a name or a time in its head; make it without"),
            GzipError::Cut => f.write_str("the gzip file ends too early"),
            GzipError::TooLong(length) => {
                write!(f, "the gzip file unpacks to {length} bytes, the limit is {}", super::MAX_TAR)
            }
            GzipError::Bomb(length) => write!(f, "the gzip file unpacks to more than the {length} bytes that it says"),
            GzipError::Short(length) => {
                write!(f, "the gzip file unpacks to fewer than the {length} bytes that it says")
            }
            GzipError::Damaged => f.write_str("the data of the gzip file is damaged"),
            GzipError::Checksum => f.write_str("the checksum of the gzip file does not fit"),
            GzipError::Trailing(extra) => write!(f, "{extra} bytes after the gzip file"),
            GzipError::Compressor => f.write_str("the content could not be compressed"),
        }
    }
}

impl std::error::Error for GzipError {}

/// RFC 1952 §2.3: magic, deflate, no flags, no time, best compression, unknown operating system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255];

/// Packs bytes.
pub(super) fn pack(bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, GzipError> {
    let length = u32::try_from(bytes.len()).map_err(|_| GzipError::Compressor)?;
    // Incompressible bytes are stored in blocks of less than 64 KiB, each with a head of 5 bytes. The buffer has room for that: one
    // that grows would leave a copy of a secret behind.
    let room = HEAD.len() + bytes.len() + bytes.len() / 8 + 256;
    let mut file = Zeroizing::new(vec![0; room]);
    let (head, out) = file.split_at_mut_checked(HEAD.len()).ok_or(GzipError::Compressor)?;
    head.copy_from_slice(&HEAD);
    let mut compressor = new();
    let written = match deflate(&mut compressor, bytes, out) {
        (TDEFLStatus::Done, read, written) if read == bytes.len() && written + 8 <= out.len() => written,
        _ => return Err(GzipError::Compressor),
    };
    file.truncate(HEAD.len() + written);
    file.extend((!crc32(u32::MAX, bytes)).to_le_bytes());
    file.extend(length.to_le_bytes());
    Ok(file)
}

fn new() -> Box<CompressorOxide> {
    Box::new(CompressorOxide::new(create_comp_flags_from_zip_params(9, 0, 0)))
}

/// Compresses bytes, and leaves no copy of them in the compressor.
fn deflate(compressor: &mut CompressorOxide, bytes: &[u8], out: &mut [u8]) -> (TDEFLStatus, usize, usize) {
    let result = compress(compressor, bytes, out, TDEFLFlush::Finish);
    compressor.reset();
    // The compiler would leave out writes to what is freed behind them.
    std::hint::black_box(compressor);
    result
}

/// Unpacks at most [`super::MAX_TAR`] bytes.
pub(super) fn unpack(file: &[u8]) -> Result<Zeroizing<Vec<u8>>, GzipError> {
    let (head, rest) = file.split_first_chunk::<10>().ok_or(GzipError::Cut)?;
    match head {
        // The ninth byte says how hard the compressor tried, which changes nothing.
        [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, _, 255] => {}
        [0x1f, 0x8b, ..] => return Err(GzipError::Head),
        _ => return Err(GzipError::NotGzip),
    }
    let (_, says) = rest.split_last_chunk::<4>().ok_or(GzipError::Cut)?;
    let says = u32::from_le_bytes(*says);
    let length = usize::try_from(says).ok().filter(|length| *length <= super::MAX_TAR);
    let mut bytes = Zeroizing::new(vec![0; length.ok_or(GzipError::TooLong(says))?]);
    let mut inflater = Box::new(DecompressorOxide::new());
    let (status, read, written) =
        decompress(&mut inflater, rest, &mut bytes, 0, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF);
    match status {
        TINFLStatus::Done => {}
        TINFLStatus::HasMoreOutput => return Err(GzipError::Bomb(says)),
        TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => return Err(GzipError::Cut),
        _ => return Err(GzipError::Damaged),
    }
    let end = rest.get(read..).unwrap_or_default();
    let (checksum, end) = end.split_first_chunk::<4>().ok_or(GzipError::Cut)?;
    let (_, end) = end.split_first_chunk::<4>().ok_or(GzipError::Cut)?;
    if !end.is_empty() {
        return Err(GzipError::Trailing(end.len()));
    }
    if written != bytes.len() {
        return Err(GzipError::Short(says));
    }
    if u32::from_le_bytes(*checksum) != !crc32(u32::MAX, &bytes) {
        return Err(GzipError::Checksum);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use zeroize::Zeroize;

    use super::*;

    /// Whether this process has these bytes somewhere in memory that it can write to. They are given in another form.
    fn has(inverted: &[u8]) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let memory = File::open("/proc/self/mem").unwrap();
        let mut found = false;
        for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
            let (begin, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let (begin, end) = (u64::from_str_radix(begin, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
            let mut piece = vec![0; usize::try_from(end - begin).unwrap()];
            let read = memory.read_at(&mut piece, begin).unwrap_or_default();
            found |= piece[..read].windows(inverted.len()).any(|part| part.iter().zip(inverted).all(|(a, b)| *a == !b));
            piece.zeroize();
        }
        found
    }

    /// Attack: somebody reads the memory later, which once had a key in it.
    #[test]
    fn the_compressor_keeps_nothing() {
        // No byte is like the one before, so nothing is shorter in the memory than in the text.
        let mut number = 1_u32;
        let mut next = || {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            !number.to_be_bytes()[0]
        };
        let inverted: Vec<u8> = (0..4096).map(|_| next()).collect();
        let mut text: Vec<u8> = inverted.iter().map(|byte| !byte).collect();
        assert!(has(&inverted[2000..2100]), "the search finds what is there");
        let mut out = vec![0; 8192];
        // It lives until the search is over: what is freed may be given back to the system.
        let mut compressor = new();
        assert_eq!(deflate(&mut compressor, &text, &mut out).0, TDEFLStatus::Done);
        // What it has written may have the text in it as it is, and its caller wipes it.
        out.zeroize();
        text.zeroize();
        assert!(!has(&inverted[2000..2100]), "a copy is left");
        drop(compressor);
    }
}
