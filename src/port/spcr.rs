//! Parses ACPI's Serial Port Console Redirection table: the address and speed of the firmware's serial console. The
//! firmware vouches for it. Never reads a file. Source: Microsoft, "Serial Port Console Redirection Table (SPCR)",
//! revisions 1 to 4.

/// The firmware's serial console.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spcr {
    /// Base address of the UART's registers: an I/O port or a memory address.
    pub address: u64,
    /// Bits a second. `None`: the speed stays as the firmware has set it, and the table does not give it.
    pub baud: Option<u32>,
}

/// Parses the table. `None` if it is not a complete SPCR table, or if redirection is off.
pub fn parse(table: &[u8]) -> Option<Spcr> {
    let (signature, _) = table.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(at(table, 4)?)).ok()?;
    if signature != b"SPCR" || length > table.len() {
        return None;
    }
    let table = table.get(..length)?;
    let [revision] = at(table, 8)?;
    // A Generic Address Structure (ACPI §5.2.3.2) is at 40; its address begins 4 bytes later.
    let address = u64::from_le_bytes(at(table, 44)?);
    let [code] = at(table, 58)?;
    let precise = at(table, 80).map(u32::from_le_bytes).filter(|baud| revision >= 4 && *baud != 0);
    let baud = precise.or(match code {
        3 => Some(9600),
        4 => Some(19_200),
        6 => Some(57_600),
        7 => Some(115_200),
        _ => None,
    });
    (address != 0).then_some(Spcr { address, baud })
}

fn at<const N: usize>(table: &[u8], offset: usize) -> Option<[u8; N]> {
    table.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by hand from the specification: revision 2, 16550 at I/O port 0x3f8, 115200 baud.
    pub(crate) fn table() -> Vec<u8> {
        let mut table = vec![0; 80];
        table[..4].copy_from_slice(b"SPCR");
        table[4] = 80;
        table[8] = 2;
        table[40..44].copy_from_slice(&[1, 8, 0, 1]);
        table[44..46].copy_from_slice(&[0xf8, 0x03]);
        table[58] = 7;
        table
    }

    #[test]
    fn a_uart_at_its_usual_place() {
        let mut table = table();
        assert_eq!(parse(&table), Some(Spcr { address: 0x3f8, baud: Some(115_200) }));
        table[58] = 0;
        assert_eq!(parse(&table), Some(Spcr { address: 0x3f8, baud: None }));
        table.extend(1_500_000u32.to_le_bytes());
        table.extend([0; 8]);
        table[4] = 92;
        assert_eq!(parse(&table).unwrap().baud, None, "revision 2 has no such item");
        table[8] = 4;
        assert_eq!(parse(&table).unwrap().baud, Some(1_500_000));
        assert_eq!(parse(&table[..60]), None);
        table[44..52].fill(0);
        assert_eq!(parse(&table), None, "an address of zero: redirection is off");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(mut bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&bytes);
            if bytes.len() > 8 {
                bytes[..4].copy_from_slice(b"SPCR");
                bytes[4..8].copy_from_slice(&[88, 0, 0, 0]);
                let _ = parse(&bytes);
            }
        }
    }
}
