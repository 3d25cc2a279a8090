//! Computes the Internet checksum (RFC 1071) and CRC-32. Knows no protocol.

/// The checksum of parts that follow each other. Every part but the last has an even length. A packet that holds its
/// right checksum gives zero.
pub(crate) fn internet(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            let high = pair.first().copied().unwrap_or(0);
            let low = pair.get(1).copied().unwrap_or(0);
            sum = sum.wrapping_add(u32::from(u16::from_be_bytes([high, low])));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// CRC-32 as in Ethernet (IEEE 802.3 §3.2.9), reflected. `crc` is [`u32::MAX`] at the beginning, and the caller inverts
/// the result at the end. Works on half a byte at a time: the inputs are short, and the usual table for whole bytes has
/// 1 KiB.
pub fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    let nibble = |crc: u32, nibble: u32| {
        let index = usize::try_from((crc ^ nibble) & 15).unwrap_or_default();
        CRC_TABLE.get(index).copied().unwrap_or_default() ^ crc >> 4
    };
    bytes.iter().fold(crc, |crc, byte| nibble(nibble(crc, u32::from(*byte) & 15), u32::from(*byte) >> 4))
}

const CRC_TABLE: [u32; 16] = crc_table();

#[allow(clippy::indexing_slicing)] // evaluated by the compiler
const fn crc_table() -> [u32; 16] {
    let mut table = [0; 16];
    let mut index = 0;
    while index < 16 {
        let mut crc = index;
        let mut bit = 0;
        while bit < 4 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[index as usize] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        // RFC 1071 §3: the sum of 0001 f203 f4f5 f6f7 is ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(internet(&[&bytes]), !0xddf2);
        assert_eq!(internet(&[&bytes[..4], &bytes[4..]]), !0xddf2);
        assert_eq!(internet(&[&[0xff]]), !0xff00);
        assert_eq!(internet(&[]), 0xffff);
    }
}
