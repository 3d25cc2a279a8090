//! Parses the SMBIOS table (DMTF DSP0134): network links to the machine's management controller (type 42, with the details
//! of DSP0270), and strings for the system (type 11). Never reads a file.
//!
//! The firmware vouches for the table, and in a virtual machine the hypervisor. Malformed structures are ignored.

/// A network link between this machine and its management controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostInterface {
    /// The identifiers of the device.
    pub device: Device,
    /// Hardware address of this machine's end, if the firmware gives it.
    pub mac: Option<[u8; 6]>,
}

/// The identifiers of a device on its bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Device {
    /// idVendor and idProduct.
    Usb {
        /// idVendor.
        vendor: u16,
        /// idProduct.
        product: u16,
    },
    /// Identifiers from the configuration space.
    Pci {
        /// Vendor ID.
        vendor: u16,
        /// Device ID.
        device: u16,
        /// Subsystem vendor ID and subsystem ID.
        subsystem: [u16; 2],
    },
}

/// OEM Strings (DSP0134 §7.12).
const OEM_STRINGS: u8 = 11;
/// Management Controller Host Interface (DSP0134 §7.43).
const HOST_INTERFACE: u8 = 42;
/// Interface Type: network (DSP0270).
const NETWORK: u8 = 0x40;
const END_OF_TABLE: u8 = 127;

/// The network links to the management controller in the table.
pub fn host_interfaces(table: &[u8]) -> Vec<HostInterface> {
    structures(table)
        .filter(|found| found.kind == HOST_INTERFACE)
        .filter_map(|found| host_interface(found.body))
        .collect()
}

/// The strings of all structures of type 11, in order. Hypervisors put texts for the system there, and manufacturers
/// put what they like.
pub fn oem_strings(table: &[u8]) -> impl Iterator<Item = &[u8]> {
    let strings = structures(table).filter(|found| found.kind == OEM_STRINGS).map(|found| found.strings);
    strings.flat_map(|strings| strings.split(|byte| *byte == 0)).filter(|string| !string.is_empty())
}

struct Structure<'t> {
    kind: u8,
    /// With its header of four bytes.
    body: &'t [u8],
    /// Separated by zero bytes.
    strings: &'t [u8],
}

/// Where the table has a structure that makes no sense: its first byte, from 0. What is behind it cannot be read.
pub fn broken_at(table: &[u8]) -> Option<usize> {
    let mut rest = table;
    while next(&mut rest).is_some() {}
    match *rest {
        [] | [END_OF_TABLE, ..] => None,
        _ => Some(table.len().saturating_sub(rest.len())),
    }
}

/// The structures up to the end of the table, or up to the first malformed one. If the table ends within the strings of
/// a structure, the strings end there.
fn structures(table: &[u8]) -> impl Iterator<Item = Structure<'_>> {
    let mut rest = table;
    std::iter::from_fn(move || next(&mut rest))
}

/// Takes the next structure. `None`: the table ends there, or makes no sense.
fn next<'t>(rest: &mut &'t [u8]) -> Option<Structure<'t>> {
    let [kind, length, ..] = **rest else { return None };
    if kind == END_OF_TABLE || length < 4 {
        return None;
    }
    let (body, strings) = rest.split_at_checked(length.into())?;
    // Each string ends with a zero byte, and one more zero byte ends the list. An empty list is two zero bytes.
    let end = strings.windows(2).position(|pair| pair == [0, 0]).unwrap_or(strings.len());
    *rest = strings.get(end.saturating_add(2)..).unwrap_or_default();
    Some(Structure { kind, body, strings: strings.get(..end).unwrap_or_default() })
}

/// DSP0270 §7.2: the interface type, the length of the data, then the data, which begin with the kind of device.
fn host_interface(structure: &[u8]) -> Option<HostInterface> {
    let [_, _, _, _, NETWORK, length, data @ ..] = structure else { return None };
    let word = |low: u8, high: u8| u16::from_le_bytes([low, high]);
    let mac = |mac: [u8; 6]| Some(mac).filter(|mac| *mac != [0; 6] && *mac != [0xff; 6]);
    match *data.get(..usize::from(*length))? {
        [2, a, b, c, d, ..] => {
            Some(HostInterface { device: Device::Usb { vendor: word(a, b), product: word(c, d) }, mac: None })
        }
        [4, _, a, b, c, d, _serial, m1, m2, m3, m4, m5, m6, ..] => Some(HostInterface {
            device: Device::Usb { vendor: word(a, b), product: word(c, d) },
            mac: mac([m1, m2, m3, m4, m5, m6]),
        }),
        [3, a, b, c, d, e, f, g, h, ..] => {
            let device = Device::Pci { vendor: word(a, b), device: word(c, d), subsystem: [word(e, f), word(g, h)] };
            Some(HostInterface { device, mac: None })
        }
        [5, _, a, b, c, d, e, f, g, h, m1, m2, m3, m4, m5, m6, ..] => {
            let device = Device::Pci { vendor: word(a, b), device: word(c, d), subsystem: [word(e, f), word(g, h)] };
            Some(HostInterface { device, mac: mac([m1, m2, m3, m4, m5, m6]) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A structure with its header and strings.
    fn structure(kind: u8, body: &[u8], strings: &[u8]) -> Vec<u8> {
        let length = u8::try_from(body.len() + 4).unwrap();
        [&[kind, length, 0x2a, 0][..], body, strings].concat()
    }

    // Made by hand from DSP0270 1.3, tables 4 to 7.
    const USB: &[u8] = &[0x40, 9, 2, 0x6b, 0x04, 0xb0, 0xff, 4, 3, b'1', 0, 0];
    const USB_V2: &[u8] = &[0x40, 17, 4, 16, 0x6b, 0x04, 0xb0, 0xff, 1, 2, 0, 0, 0, 0xbc, 1, 0, 0, 0xff, 0xff, 1, 4, 0];
    const PCI: &[u8] = &[0x40, 9, 3, 0x86, 0x80, 0x3b, 0x15, 0xd9, 0x15, 0x5b, 0x1f, 0];
    const PCI_V2: &[u8] = &[
        0x40, 24, 5, 24, 0x86, 0x80, 0x3b, 0x15, 0xd9, 0x15, 0x5b, 0x1f, 2, 0, 0, 0, 0xbc, 2, 0, 0, 0x3a, 0x19, 0, 0,
        0, 0,
    ];

    #[test]
    fn links_to_the_management_controller() {
        let table = [
            structure(1, &[0; 23], b"maker\0product\0\0"),
            structure(42, USB, b"\0\0"),
            structure(42, USB_V2, b"serial\0\0"),
            // KCS, which is not a network.
            structure(42, &[2, 1, 0, 0], b"\0\0"),
            structure(42, PCI, b"\0\0"),
            structure(42, PCI_V2, b"\0\0"),
            structure(127, &[], b"\0\0"),
            structure(42, USB, b"\0\0"),
        ]
        .concat();
        let usb = Device::Usb { vendor: 0x046b, product: 0xffb0 };
        let pci = Device::Pci { vendor: 0x8086, device: 0x153b, subsystem: [0x15d9, 0x1f5b] };
        let found = |device: &Device, mac| HostInterface { device: device.clone(), mac };
        assert_eq!(
            host_interfaces(&table),
            [
                found(&usb, None),
                found(&usb, Some([2, 0, 0, 0, 0xbc, 1])),
                found(&pci, None),
                found(&pci, Some([2, 0, 0, 0, 0xbc, 2]))
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_names_nothing() {
        let cut = structure(42, &USB_V2[..12], b"\0\0");
        assert_eq!(host_interfaces(&cut), []);
        let mut nobody = USB_V2.to_vec();
        nobody[9..15].fill(0);
        assert_eq!(host_interfaces(&structure(42, &nobody, b"\0\0"))[0].mac, None);
        // A length that is too short, and strings without an end.
        assert_eq!(host_interfaces(&[42, 3, 0, 0, 0, 0]), []);
        assert_eq!(host_interfaces(&structure(1, &[], b"abc")), []);
    }

    /// The accident: the string with the payload is behind a structure that makes no sense, and nobody says why it is not found.
    #[test]
    fn where_a_table_is_broken() {
        let good = [structure(1, &[0; 23], b"QEMU\0\0"), structure(11, &[1], b"a\0\0")].concat();
        let end = structure(127, &[], b"\0\0");
        for whole in [&[][..], &good, &[&good[..], &end].concat(), &[&good[..], &end, b"behind the end"].concat()] {
            assert_eq!(broken_at(whole), None, "{whole:?}");
        }
        for behind in [&[11, 3, 0, 0, 0, 0][..], &[0; 6], &[11, 200, 0, 0], &[42]] {
            let table = [&good, behind, &end].concat();
            assert_eq!(broken_at(&table[..table.len().min(good.len() + behind.len())]), Some(good.len()), "{behind:?}");
        }
        // Strings without an end are shown as far as they go.
        assert_eq!(broken_at(&structure(11, &[1], b"abc")), None);
    }

    /// Firmware has several structures of this type, and most of their strings belong to others. Structures of another
    /// type, and structures behind the end of the table, do not count.
    #[test]
    fn strings_of_every_structure_of_type_11() {
        let table = [
            structure(1, &[0; 23], b"io.systemd.credential:a=b\0\0"),
            structure(11, &[2], b"Dell System\0[0000]\0\0"),
            structure(11, &[0], b"\0\0"),
            structure(11, &[1], b"io.systemd.credential:a=b\0\0"),
            structure(127, &[], b"\0\0"),
            structure(11, &[1], b"behind the end\0\0"),
        ]
        .concat();
        let found: Vec<_> = oem_strings(&table).map(|string| std::str::from_utf8(string).unwrap()).collect();
        assert_eq!(found, ["Dell System", "[0000]", "io.systemd.credential:a=b"]);
        // The table ends within its strings. What is there is returned, so that its user can say that it is broken.
        for (strings, want) in [(&b"one\0tw"[..], &["one", "tw"][..]), (b"one\0", &["one"]), (b"", &[])] {
            let table = structure(11, &[2], strings);
            let found: Vec<_> = oem_strings(&table).map(|string| std::str::from_utf8(string).unwrap()).collect();
            assert_eq!(found, want);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            host_interfaces(&bytes);
            host_interfaces(&structure(42, &bytes, b"\0\0"));
            broken_at(&bytes);
            oem_strings(&bytes).count();
            oem_strings(&structure(11, &[1], &bytes)).count();
        }
    }
}
