//! Makes the string of an SMBIOS structure of type 11 that brings a payload as a credential of systemd
//! (systemd.system-credentials(7)). Pure: bytes to bytes.

use base64ct::{Base64, Encoding};
use imprint::source::credential;
use zeroize::Zeroizing;

/// The most bytes of all structures of a machine together, where the entry point is that of SMBIOS 2.1: it counts them in
/// 16 bits (DSP0134 §5.2.1). The entry point of SMBIOS 3.0 counts them in 32 bits (§5.2.2). A single string has no limit
/// (§6.1.3).
pub const ALL_STRUCTURES: usize = 65_535;

/// The string, without a line break. It cannot contain a NUL, which would end it, because its content is base64.
pub fn string(payload: &[u8]) -> Zeroizing<Vec<u8>> {
    let text = Zeroizing::new(Base64::encode_string(payload));
    let name = format!("io.systemd.credential.binary:{}=", credential::NAME);
    let mut string = Zeroizing::new(Vec::with_capacity(name.len().saturating_add(text.len())));
    string.extend_from_slice(name.as_bytes());
    string.extend_from_slice(text.as_bytes());
    string
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this test fails, do not change it: hypervisors hold such strings.
    #[test]
    fn frozen() {
        let want = b"io.systemd.credential.binary:imprint.payload=cGF5bG9hZA==";
        assert_eq!(string(b"payload")[..], want[..]);
    }
}
