//! EST request and answer bodies for the server (RFC 7030, RFC 8951). Pure: bytes in, bytes out; no network.

use base64ct::{Base64, Encoding};
use clap::ValueEnum;
use cms::content_info::ContentInfo;
use der::{Decode, Encode};
use imprint::secret::Secret;
use x509_cert::certificate::Certificate;

use crate::enrol::{Credentials, Proof};

/// Why a request body is not a CSR.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    /// Neither base64 nor DER.
    #[error("the body is not base64 of a CSR")]
    NotBase64,
    /// The body is empty.
    #[error("the body is empty; want base64 of a CSR")]
    Empty,
}

/// A certs-only PKCS#7 (RFC 5272 §4.1) in DER.
pub fn certs_only(certificates: &[&[u8]]) -> der::Result<Vec<u8>> {
    let certificates: Vec<Certificate> =
        certificates.iter().map(|der| Certificate::from_der(der)).collect::<der::Result<_>>()?;
    ContentInfo::try_from(certificates)?.to_der()
}

/// Line breaks in the base64 of answers. RFC 8951 §3.1 requires clients to accept both layouts; some accept only one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Layout {
    /// Lines of 64 columns. cisco/libest's client requires this.
    #[default]
    Wrapped,
    /// No line breaks. strongSwan's `pki --est` of Debian 12 requires this.
    OneLine,
}

/// DER in base64.
pub fn encoded(der: &[u8], layout: Layout) -> String {
    let base64 = Base64::encode_string(der);
    match layout {
        Layout::OneLine => base64,
        Layout::Wrapped => {
            let mut text = String::new();
            imprint::pem::wrap(&base64, &mut text);
            text
        }
    }
}

/// The CSR in a request body: base64 with any white space in it (RFC 8951 §3.1), or plain DER, which some clients send.
pub fn csr(body: &[u8]) -> Result<Vec<u8>, BodyError> {
    // A SEQUENCE begins with 0x30. That is "0" in ASCII, and base64 of a SEQUENCE begins with "M".
    if body.first() == Some(&0x30) {
        return Ok(body.to_vec());
    }
    if body.trim_ascii().is_empty() {
        return Err(BodyError::Empty);
    }
    imprint::est::base64(body).ok_or(BodyError::NotBase64)
}

/// Reads `Authorization: Basic …` (RFC 7617 §2). `None`: another scheme, or malformed.
pub fn basic(header: &str) -> Option<Credentials> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = Secret::new(Base64::decode_vec(encoded.trim()).ok()?);
    let (name, token) = std::str::from_utf8(decoded.expose()).ok()?.split_once(':')?;
    Some(Credentials { name: name.to_owned(), proof: Proof::Token(Secret::new(token.as_bytes().to_vec())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_as_clients_send_them() {
        let der = [0x30, 0x03, 0x02, 0x01, 0x05];
        for body in [&b"MAMCAQU="[..], b"MAMC\r\nAQU=\r\n", b"\nMAM CAQU=", &der] {
            assert_eq!(csr(body), Ok(der.to_vec()));
        }
        assert_eq!(csr(b""), Err(BodyError::Empty));
        assert_eq!(csr(b"-----BEGIN"), Err(BodyError::NotBase64));
        assert_eq!(csr(&[0xff, 0xfe]), Err(BodyError::NotBase64));
    }

    #[test]
    fn layouts() {
        let der = [0x30; 97];
        let one_line = encoded(&der, Layout::OneLine);
        assert_eq!((one_line.len(), one_line.contains('\n')), (132, false));
        let lines: Vec<String> = encoded(&der, Layout::Wrapped).split_terminator('\n').map(str::to_owned).collect();
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [64, 64, 4]);
        assert_eq!(lines.concat(), one_line);
        assert!(encoded(&der, Layout::Wrapped).ends_with('\n'));
    }

    #[test]
    fn credentials() {
        let found = basic("basic bm9kZTE6YTpi").unwrap();
        let Proof::Token(token) = &found.proof else { panic!("a token") };
        assert_eq!((found.name.as_str(), token.expose()), ("node1", &b"a:b"[..]));
        for bad in ["Bearer bm9kZTE6YTpi", "Basic bm9kZTE=", "Basic ?", "Basic"] {
            assert!(basic(bad).is_none(), "{bad}");
        }
    }
}
