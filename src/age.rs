//! Keys of the age v1 format (age-encryption.org/v1). Never reads a file.

use std::fmt;

use zeroize::Zeroizing;

/// The private key of a recipient: 32 bytes of X25519. Wiped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(Zeroizing<[u8; 32]>);

impl Identity {
    /// Takes the 32 bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Identity {
        Identity(Zeroizing::new(*bytes))
    }

    /// The 32 bytes. Do not copy them into a type that is not wiped.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}
