//! Writes the content of the efivarfs file for the EFI variable that holds a payload. Pure: bytes to bytes.

use zeroize::Zeroizing;

/// Non-volatile, boot service access and runtime access (UEFI Specification 2.10, §8.2). efivarfs wants the attributes
/// before the value (Documentation/filesystems/efivarfs.rst).
const ATTRIBUTES: [u8; 4] = 7u32.to_le_bytes();

/// The content. Wiped on drop, as the payload is secret.
pub fn file(payload: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut file = Zeroizing::new(Vec::with_capacity(payload.len().saturating_add(ATTRIBUTES.len())));
    file.extend_from_slice(&ATTRIBUTES);
    file.extend_from_slice(payload);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_reads_it() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("sys/firmware/efi/efivars");
        std::fs::create_dir_all(&folder).unwrap();
        let written = file(b"payload");
        assert_eq!(written[..], b"\x07\0\0\0payload"[..]);
        std::fs::write(folder.join(imprint::medium::EFI_VARIABLE), written).unwrap();
        let found = imprint::source::efivar::find(root.path()).unwrap().unwrap();
        assert_eq!(found.bytes.expose(), b"payload");
    }
}
