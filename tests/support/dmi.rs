//! The strings of an SMBIOS table, as dmidecode reads them.

use std::path::Path;
use std::process::Command;

/// The strings of all structures of type 11. Fails if dmidecode complains about the table.
pub fn oem_strings(table: &[u8]) -> Vec<String> {
    let mut dump = entry_point(table.len());
    dump.extend(table);
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("dump");
    std::fs::write(&file, dump).unwrap();
    let words = ["--quiet", "--type", "11", "--from-dump", file.to_str().unwrap()];
    let output = Command::new(dmidecode()).args(words).output().expect("run scripts/install-needs test");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let strings = text.lines().filter_map(|line| line.strip_prefix("\tString ")?.split_once(": "));
    strings.map(|(_, string)| string.to_owned()).collect()
}

/// An entry point of SMBIOS 3.0 (DSP0134 §5.2.2) for a table that follows it at byte 32.
fn entry_point(table: usize) -> Vec<u8> {
    let mut bytes = b"_SM3_\0\x18\x03\0\0\x01\0".to_vec();
    bytes.extend(u32::try_from(table).unwrap().to_le_bytes());
    bytes.extend(32u64.to_le_bytes());
    bytes[5] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    bytes.resize(32, 0);
    bytes
}

/// The path of dmidecode, whose folder is not always in a user's PATH.
fn dmidecode() -> &'static Path {
    Path::new("/usr/sbin/dmidecode")
}
