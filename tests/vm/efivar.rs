//! Tests of a payload in an EFI variable, with real firmware. The tests write and read the store of variables
//! themselves, with the structures of EDK2 (MdeModulePkg/Include/Guid/VariableFormat.h).

#![allow(clippy::indexing_slicing, reason = "a test panics")]

use crate::*;

/// EFI_FIRMWARE_VOLUME_HEADER with its block map, and VARIABLE_STORE_HEADER: what stands before the first variable.
const FIRST: usize = 0x48 + 28;
/// gEfiAuthenticatedVariableGuid, the signature of the store.
const STORE: [u8; 16] =
    [0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92];
/// AUTHENTICATED_VARIABLE_HEADER
const HEADER: usize = 60;
/// VAR_ADDED: the variable is there. Each later state clears a bit.
const ADDED: u8 = 0x3f;

fn name() -> (Vec<u8>, [u8; 16]) {
    let (name, guid) = imprint::source::efivar::NAME.split_once('-').unwrap();
    let utf16: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let digits = guid.replace('-', "");
    let mut guid: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap()).collect();
    // The first three fields of a GUID are little-endian.
    guid[..4].reverse();
    guid[4..6].reverse();
    guid[6..8].reverse();
    (utf16, guid.try_into().unwrap())
}

/// A store of Debian's OVMF, with the variable in it.
fn store(value: &[u8]) -> Vec<u8> {
    let path = "/usr/share/OVMF/OVMF_VARS_4M.fd";
    let mut store = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}: run scripts/install-needs vm"));
    assert_eq!(store[0x48..0x58], STORE);
    assert_eq!(store[FIRST..FIRST + 2], [0xff, 0xff], "the store is empty");
    let (name, guid) = name();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
    let variable = [
        &[0xaa, 0x55, ADDED, 0][..],
        // The attributes non-volatile, boot service access and runtime access; then no count, no time and no key.
        &7u32.to_le_bytes(),
        &[0; 8 + 16 + 4],
        &length(&name),
        &length(value),
        &guid,
        &name,
        value,
    ]
    .concat();
    store[FIRST..FIRST + variable.len()].copy_from_slice(&variable);
    store
}

/// The value of our variable, if the store has one.
fn value(store: &[u8]) -> Option<Vec<u8>> {
    let (name, guid) = name();
    let mut at = FIRST;
    while store[at..at + 2] == [0xaa, 0x55] {
        let number = |offset: usize| {
            let bytes = store[at + offset..at + offset + 4].try_into().unwrap();
            usize::try_from(u32::from_le_bytes(bytes)).unwrap()
        };
        let (name_size, data_size) = (number(36), number(40));
        let data = at + HEADER + name_size;
        let ours = store[at + 44..at + 60] == guid && store[at + HEADER..data] == name[..];
        if ours && store[at + 2] == ADDED {
            return Some(store[data..data + data_size].to_vec());
        }
        at = (data + data_size).next_multiple_of(4);
    }
    None
}

#[test]
fn a_store_has_what_was_written() {
    assert_eq!(value(&store(b"payload")), Some(b"payload".to_vec()));
    assert_eq!(value(&store(b"")[..0x1000]), Some(vec![]));
}

/// systemd mounts efivarfs before the agent starts, and dracut's scripts do not mount it. The node gets its identity
/// either way, and the variable is deleted from the firmware: it would outlive every reinstallation.
/// The next boot has the same command line, and goes on without a payload because of `imprint=auto`.
#[test]
fn a_variable_becomes_an_identity_and_is_deleted() {
    const WORDS: &str = "imprint=auto imprint.source=efivar";
    for init in [Init::Plain, Init::Systemd] {
        let site = Site::typical();
        let vars = site.work.path().join("vars.fd");
        std::fs::write(&vars, store(&site.payload)).unwrap();
        let report = machine(Kernel::Stable).init(init).efi(&vars).append(WORDS).boot();
        came_up_from(&report, Medium::EfiVariable, imprint::source::efivar::NAME);
        let last = report.status().steps.last().unwrap().clone();
        assert_eq!(
            (last.name.as_str(), last.detail.as_str()),
            ("spent", "the payload was removed (efivar)"),
            "{init:?}"
        );
        assert_eq!(value(&std::fs::read(&vars).unwrap()), None, "{init:?}");
        if init == Init::Plain {
            assert!(!report.part("mounts").contains(" efivarfs "), "{}", report.part("mounts"));
        }
        let next = machine(Kernel::Stable).init(init).efi(&vars).append(WORDS).boot();
        assert_eq!(next.status().outcome, Outcome::Absent, "{init:?}: {}", next.status());
    }
}
