//! The payload's CA certificate: checks that the bytes can serve as a trust anchor. Never compares the validity period
//! with the clock; `plan` does that.

use std::fmt;

use der::{Decode, Encode, Reader, SliceReader};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

use crate::certificate::Certificate;
use crate::shown::Printable;
use crate::time::Timestamp;

/// Exactly one DER certificate of a CA (CA:TRUE) that may sign certificates.
#[derive(Clone, PartialEq, Eq)]
pub struct CaCertificate {
    der: Vec<u8>,
    subject: Printable,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// Why a certificate cannot be a trust anchor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CaError {
    /// Not a DER certificate.
    NotDer(String),
    /// PEM text.
    Pem,
    /// Bytes follow the first certificate, such as a second certificate.
    Trailing {
        /// How many bytes follow the first certificate.
        extra: usize,
    },
    /// basicConstraints is absent or says CA:FALSE.
    NotCa(Printable),
    /// keyUsage is present and lacks keyCertSign.
    NoKeyCertSign(Printable),
    /// An extension cannot be read.
    Extension(String),
}

impl CaCertificate {
    /// Checks one DER certificate and keeps it.
    pub fn new(der: Vec<u8>) -> Result<CaCertificate, CaError> {
        if der.starts_with(b"-----") {
            return Err(CaError::Pem);
        }
        let certificate = first(&der)?;
        let tbs = &certificate.tbs_certificate;
        let subject = Printable::of(&tbs.subject.to_string());
        let constraints =
            tbs.get::<BasicConstraints>().map_err(|e| CaError::Extension(format!("basicConstraints: {e}")))?;
        if !constraints.is_some_and(|(_, constraints)| constraints.ca) {
            return Err(CaError::NotCa(subject));
        }
        // RFC 5280 §4.2.1.3: a certificate without keyUsage may be used for everything. `openssl req -x509` makes such
        // CAs.
        let usage = tbs.get::<KeyUsage>().map_err(|e| CaError::Extension(format!("keyUsage: {e}")))?;
        if usage.is_some_and(|(_, usage)| !usage.key_cert_sign()) {
            return Err(CaError::NoKeyCertSign(subject));
        }
        let at = |time: x509_cert::time::Time| Timestamp::from_secs(time.to_unix_duration().as_secs());
        let (not_before, not_after) = (at(tbs.validity.not_before), at(tbs.validity.not_after));
        Ok(CaCertificate { der, subject, not_before, not_after })
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the DER certificate; a site pin has this value.
    pub fn sha256(&self) -> [u8; 32] {
        crate::digest::sha256(&self.der)
    }

    /// The subject in the form of RFC 4514, safe to print.
    pub fn subject(&self) -> &Printable {
        &self.subject
    }

    /// First second of the validity period.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Last second of the validity period.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

fn first(der: &[u8]) -> Result<Certificate, CaError> {
    let mut reader = SliceReader::new(der).map_err(|e| CaError::NotDer(e.to_string()))?;
    let certificate = Certificate::decode(&mut reader).map_err(|e| CaError::NotDer(e.to_string()))?;
    let extra = usize::try_from(u32::from(reader.remaining_len())).unwrap_or(usize::MAX);
    if extra != 0 {
        return Err(CaError::Trailing { extra });
    }
    // TLS verifies against the bytes, and this module checks the parsed certificate. Refuse bytes that encode
    // differently: the two could disagree.
    match certificate.to_der() {
        Ok(again) if again == der => Ok(certificate),
        _ => Err(CaError::NotDer("not in distinguished encoding".to_owned())),
    }
}

impl fmt::Debug for CaCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaCertificate").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CaError::NotDer(why) => write!(f, "not a DER certificate: {why}"),
            CaError::Pem => write!(f, "PEM text where DER bytes belong; convert it with openssl x509 -outform DER"),
            CaError::Trailing { extra } => {
                write!(f, "{extra} bytes after the first certificate; give exactly one CA certificate")
            }
            CaError::NotCa(subject) => {
                write!(f, "\"{subject}\" is not a CA (no basicConstraints CA:TRUE); give the CA's own certificate")
            }
            CaError::NoKeyCertSign(subject) => {
                write!(f, "\"{subject}\" may not sign certificates (keyUsage without keyCertSign); give another CA")
            }
            CaError::Extension(why) => write!(f, "CA certificate with an extension that cannot be read: {why}"),
        }
    }
}

impl std::error::Error for CaError {}
