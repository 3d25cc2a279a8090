//! What firmware shows where a machine has no identity of its own: the values that a board has before its manufacturer writes
//! others. Many machines have the same, so they name none. Pure; reads no firmware.

use crate::payload::{Binding, HardwareAddress};

/// Whether this SMBIOS UUID names no machine. DSP0134 §7.2.1: all bits set, or none, mean that there is none. As systemd
/// (src/libsystemd/sd-id128/id128-util.c) and dmidecode have it; and what boards are known to be sold with.
pub fn is_uuid(uuid: &[u8; 16]) -> bool {
    let [first, ..] = uuid;
    uuid.iter().all(|byte| byte == first) && [0, 0xfe, 0xff].contains(first) || UUIDS.contains(uuid)
}

/// Whether this text, in the place of a serial number, names no machine.
pub fn is_serial(text: &str) -> bool {
    // Boards differ in case, spaces and full stops.
    let plain: String = text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    // A text in another script is somebody's own.
    if plain.is_empty() {
        return text.is_ascii();
    }
    let counts_up = |row: &str| plain.len() >= COUNTED && row.starts_with(&plain);
    SERIALS.contains(&plain.as_str())
        || [b'0', b'x', b'f'].iter().any(|one| plain.bytes().all(|byte| byte == *one))
        || ["01234567890123456789", "12345678901234567890", "0123456789abcdef", "123456789abcdef0"]
            .into_iter()
            .any(counts_up)
}

/// Whether this hardware address names no link: all bits are zero, or all are set.
pub fn is_mac(mac: &HardwareAddress) -> bool {
    let bytes = mac.as_bytes();
    [0, 0xff].iter().any(|one| bytes.iter().all(|byte| byte == one))
}

/// Whether a payload with this binding is for one machine: an item of it is an identity.
pub fn is_named(binding: Option<&Binding>) -> bool {
    binding.is_some_and(|binding| {
        binding.uuid.as_ref().is_some_and(|uuid| !is_uuid(uuid))
            || binding.serial.as_deref().is_some_and(|text| !is_serial(text))
            || binding.macs.iter().any(|mac| !is_mac(mac))
    })
}

/// A row of digits shorter than this may be somebody's own number.
const COUNTED: usize = 5;

/// UUIDs, in the order in which sysfs prints them.
const UUIDS: [[u8; 16]; 3] = [
    // American Megatrends: 03000200-0400-0500-0006-000700080009.
    [3, 0, 2, 0, 4, 0, 5, 0, 0, 6, 0, 7, 0, 8, 0, 9],
    // The same where SMBIOS is older than 2.6: the kernel then prints the bytes as they lie (drivers/firmware/dmi_scan.c,
    // dmi_save_uuid). 00020003-0004-0005-0006-000700080009.
    [0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0, 9],
    // 12345678-1234-5678-90ab-cddeefaabbcc
    [0x12, 0x34, 0x56, 0x78, 0x12, 0x34, 0x56, 0x78, 0x90, 0xab, 0xcd, 0xde, 0xef, 0xaa, 0xbb, 0xcc],
];

/// Texts without spaces and marks, in lower case: those of dmidecode ("Not Specified", "Not Present", "Not Settable", "<OUT OF
/// SPEC>", "<BAD INDEX>", "Unknown"), and those that boards are sold with ("To be filled by O.E.M.", "Default string", …).
const SERIALS: [&str; 24] = [
    "none",
    "null",
    "na",
    "oem",
    "sn",
    "empty",
    "invalid",
    "unknown",
    "unspecified",
    "notspecified",
    "notavailable",
    "notapplicable",
    "notpresent",
    "notsettable",
    "outofspec",
    "badindex",
    "defaultstring",
    "tobefilledbyoem",
    "tobefilledbyoemoem",
    "serialnumber",
    "systemserialnumber",
    "chassisserialnumber",
    "baseboardserialnumber",
    "nonumber",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex;

    /// The accident: one of these in `bind`, and the payload is good for every board of the kind.
    #[test]
    fn what_boards_are_sold_with_names_no_machine() {
        for uuid in [
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "fefefefe-fefe-fefe-fefe-fefefefefefe",
            "03000200-0400-0500-0006-000700080009",
            "00020003-0004-0005-0006-000700080009",
            "12345678-1234-5678-90ab-cddeefaabbcc",
        ] {
            let bytes = hex::decode(&uuid.replace('-', "")).unwrap().try_into().unwrap();
            assert_eq!(hex::uuid(&bytes), uuid);
            assert!(is_uuid(&bytes), "{uuid}");
        }
        for text in [
            "",
            " ",
            "None",
            "none.",
            "N/A",
            "NA",
            "...",
            "........",
            "-",
            "0",
            "00000000",
            "xxxxxxxx",
            "FFFFFFFF",
            "Not Specified",
            "Not Present",
            "Not Settable",
            "Not Available",
            "Not Applicable",
            "Unknown",
            "Empty",
            "Default string",
            "Default_string",
            "DEFAULT STRING",
            "System Serial Number",
            "SystemSerialNumber",
            "Chassis Serial Number",
            "Base Board Serial Number",
            "To be filled by O.E.M.",
            "To Be Filled By O.E.M.",
            "To be filled by OEM",
            "<OUT OF SPEC>",
            "<BAD INDEX>",
            "OEM",
            "O.E.M.",
            "INVALID",
            "0123456789",
            "123456789",
            "1234567890",
            "12345",
            "01234567",
            "0123456789ABCDEF",
            "01234567890123456789",
        ] {
            assert!(is_serial(text), "{text}");
        }
        for mac in [[0; 6], [0xff; 6]] {
            assert!(is_mac(&HardwareAddress::new(&mac).unwrap()));
        }
    }

    #[test]
    fn identities_are_identities() {
        for uuid in [
            "4c4c4544-0042-3510-8054-b4c04f564433",
            // ASRock: six bytes of a hardware address, then zeros.
            "76006b9c-c49c-0000-0000-000000000000",
            "03000200-0400-0500-0006-000700080008",
            "00000000-0000-0000-0000-000000000001",
            "07070707-0707-0707-0707-070707070707",
        ] {
            assert!(!is_uuid(&hex::decode(&uuid.replace('-', "")).unwrap().try_into().unwrap()), "{uuid}");
        }
        for text in
            ["SN-1", "SN-0042", "VM-0001", "7", "1234", "12346", "0123456788", "NONE-7", "F00", "系列12", "系列"]
        {
            assert!(!is_serial(text), "{text}");
        }
        assert!(!is_mac(&HardwareAddress::new(&[0x52, 0x54, 0, 0, 0, 0]).unwrap()));
    }

    #[test]
    fn one_identity_is_enough() {
        let uuid = |byte| Binding { uuid: Some([byte; 16]), ..Binding::default() };
        let mac = |byte| HardwareAddress::new(&[byte; 6]).unwrap();
        assert!(!is_named(None) && !is_named(Some(&Binding::default())));
        assert!(!is_named(Some(&uuid(0xff))) && is_named(Some(&uuid(7))));
        let serial = Some("Default string".to_owned());
        assert!(!is_named(Some(&Binding { serial: serial.clone(), macs: vec![mac(0)], ..uuid(0) })));
        assert!(is_named(Some(&Binding { serial, macs: vec![mac(0), mac(2)], ..uuid(0) })));
    }
}
