//! Computes SHA-256: of bytes that are there, for key codes, site pins, issuers and spent payloads, and of those that come piece by
//! piece. Never reads anything itself.

/// SHA-256 (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    // SHA-256 has 32 bytes; a digest of another length would match nothing.
    digest.as_ref().try_into().unwrap_or([0; 32])
}

/// SHA-256 of bytes that come piece by piece.
pub struct Sha256(aws_lc_rs::digest::Context);

impl Default for Sha256 {
    fn default() -> Sha256 {
        Sha256(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
    }
}

impl Sha256 {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes so far.
    pub fn finish(self) -> [u8; 32] {
        self.0.finish().as_ref().try_into().unwrap_or([0; 32])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_three_letters() {
        // FIPS 180-4, example of SHA-256: "abc"
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(crate::hex::encode(&sha256(b"abc")), want);
        let mut pieces = Sha256::default();
        [b"a".as_slice(), b"", b"bc"].iter().for_each(|piece| pieces.update(piece));
        assert_eq!(crate::hex::encode(&pieces.finish()), want);
    }
}
