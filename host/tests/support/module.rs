/// A kernel module as small as one can be, for the kernel and machine that its `.modinfo` and number say: head, names, `.modinfo`,
/// and the table of sections. Included by unit tests, too.
fn module(modinfo: &str, machine: u8) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let (names_at, info_at) = (64_u64, 64 + names.len() as u64);
    let table_at = info_at + modinfo.len() as u64;
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    bytes.resize(16, 0);
    bytes.extend([1, 0, machine, 0, 1, 0, 0, 0]);
    bytes.extend([0; 16]);
    bytes.extend(table_at.to_le_bytes());
    bytes.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    bytes.extend(names);
    bytes.extend(modinfo.as_bytes());
    bytes.extend([0; 64]);
    for (name, at, length) in [(1_u32, info_at, modinfo.len() as u64), (10, names_at, names.len() as u64)] {
        let mut section = [0; 64];
        section[..4].copy_from_slice(&name.to_le_bytes());
        section[24..32].copy_from_slice(&at.to_le_bytes());
        section[32..40].copy_from_slice(&length.to_le_bytes());
        bytes.extend(section);
    }
    bytes
}
