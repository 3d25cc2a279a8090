//! Intermediate CAs and their keys: the current one, and the retired ones, which go on signing the CRLs of their own
//! certificates (RFC 5280 §5). Never uses the root's key for anything but an intermediate's certificate.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use der::asn1::OctetString;
use der::{Decode, Encode};
use imprint::hex;
use imprint::identity::distinguished_name;
use imprint::payload::{Attribute, Subject, SubjectAttribute};
use imprint::pem;
use imprint::time::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use x509_cert::certificate::Certificate;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier};
use x509_cert::name::Name;
use zeroize::Zeroizing;

use super::files::{io_error, read_certificate, read_key, write, write_key};
use super::{StateError, Validity};
use crate::x509::{self, Body, Revoked, X509Error};

/// Validity of a CRL. A new one is made each hour, and after a revocation.
pub const CRL_VALIDITY: Duration = Duration::from_secs(7 * 86_400);

/// An intermediate CA certificate and its key.
pub struct Intermediate {
    pub(super) der: Vec<u8>,
    pub(super) name: Name,
    pub(super) key_id: OctetString,
    /// rcgen keeps the private key as bytes, too, and wipes them only when told.
    pub(super) key: Zeroizing<KeyPair>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

/// Name and key of the CA that signs a new intermediate.
pub(super) struct Signer<'a> {
    pub(super) name: &'a Name,
    pub(super) key: &'a KeyPair,
}

impl Intermediate {
    /// Reads the key that belongs to a certificate: its file is named after the key.
    pub(super) fn open(dir: &Path, der: Vec<u8>, path: &Path) -> Result<Intermediate, StateError> {
        let broken = |path: &Path, why: String| StateError::File { path: path.to_owned(), why };
        let parsed = Certificate::from_der(&der).map_err(|error| broken(path, error.to_string()))?;
        let spki = parsed.tbs_certificate.subject_public_key_info.to_der().map_err(X509Error::Encode)?;
        let key_id = x509::key_id(&spki)?;
        let key_path = files(dir, &key_id).0;
        let key = read_key(&key_path)?;
        if key.subject_public_key_info() != spki {
            return Err(broken(&key_path, "the key does not belong to its certificate".to_owned()));
        }
        let (not_before, not_after) = x509::validity(&parsed);
        Ok(Intermediate { der, name: parsed.tbs_certificate.subject, key_id, key, not_before, not_after })
    }

    /// All intermediates whose certificate is kept, oldest first.
    pub(super) fn all(dir: &Path) -> Result<Vec<Intermediate>, StateError> {
        let folder = dir.join(FOLDER);
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(io_error("reading directory", &folder))? {
            let path = entry.map_err(io_error("reading directory", &folder))?.path();
            if path.extension().is_some_and(|extension| extension == "pem") {
                found.push(Intermediate::open(dir, read_certificate(&path)?, &path)?);
            }
        }
        // Oldest first.
        found.sort_by_key(|one| (one.not_before, one.key_id.as_bytes().to_vec()));
        Ok(found)
    }

    /// Makes key and certificate, and writes the key's file. The caller writes the certificate (`keep`) when the
    /// intermediate becomes the current one.
    pub(super) fn make(
        dir: &Path,
        name: &str,
        root: &Signer<'_>,
        (not_before, not_after): Validity,
    ) -> Result<Vec<u8>, StateError> {
        let key = new_key()?;
        let spki = key.subject_public_key_info();
        let body = Body {
            serial: x509::serial::<16>()?,
            subject: common_name(name)?,
            not_before,
            not_after,
            extensions: ca_extensions(&spki, Some(0), Some(x509::key_id(&root.key.subject_public_key_info())?))?,
            spki: spki.clone(),
        };
        let der = x509::sign(body, root.name, root.key)?;
        // The key first: the CA cannot be opened with a certificate whose key is missing.
        write_key(&files(dir, &x509::key_id(&spki)?).0, &key)?;
        Ok(der)
    }

    /// Writes the certificate beside its key. It stays there after a rotation.
    pub(super) fn keep(&self, dir: &Path) -> Result<(), StateError> {
        let path = files(dir, &self.key_id).1;
        if path.exists() {
            return Ok(());
        }
        write(&path, 0o644, pem::encode("CERTIFICATE", &self.der).as_bytes())
    }

    /// Removes keys that never signed anything: those without a certificate, and files that were not finished.
    pub(super) fn clear(dir: &Path) -> Result<(), StateError> {
        let folder = dir.join(FOLDER);
        for entry in fs::read_dir(&folder).map_err(io_error("reading directory", &folder))? {
            let path = entry.map_err(io_error("reading directory", &folder))?.path();
            let known = path.extension().is_some_and(|extension| extension == "pem" || extension == "key");
            if !known || !path.with_extension("pem").exists() {
                fs::remove_file(&path).map_err(io_error("removing", &path))?;
            }
        }
        Ok(())
    }

    /// DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The identifier of its key, which its certificates name (RFC 5280 §4.2.1.1), in hexadecimal digits.
    pub fn id(&self) -> String {
        hex::encode(self.key_id.as_bytes())
    }

    /// Last second of its validity.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The CRL of this intermediate: its certificates that were revoked. DER.
    pub fn crl(&self, number: u64, revoked: &[Revoked], now: Timestamp) -> Result<Vec<u8>, StateError> {
        let validity = (now, now.plus(CRL_VALIDITY));
        Ok(x509::sign_crl(number, revoked, validity, (&self.name, &self.key_id), &self.key)?)
    }
}

/// The folder of all intermediates, in the state directory.
pub(super) const FOLDER: &str = "intermediates";

/// Paths of key and certificate.
fn files(dir: &Path, key_id: &OctetString) -> (PathBuf, PathBuf) {
    let stem = dir.join(FOLDER).join(hex::encode(key_id.as_bytes()));
    (stem.with_extension("key"), stem.with_extension("pem"))
}

/// keyCertSign and cRLSign, CA:TRUE, both critical (RFC 5280 §4.2.1.3, §4.2.1.9), and the key's identifier.
pub(super) fn ca_extensions(
    spki: &[u8],
    path_len: Option<u8>,
    authority: Option<OctetString>,
) -> Result<Vec<Extension>, X509Error> {
    let mut extensions = vec![
        x509::extension(true, &BasicConstraints { ca: true, path_len_constraint: path_len })?,
        x509::extension(true, &KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign))?,
        x509::extension(false, &SubjectKeyIdentifier(x509::key_id(spki)?))?,
    ];
    if authority.is_some() {
        let authority = AuthorityKeyIdentifier { key_identifier: authority, ..Default::default() };
        extensions.push(x509::extension(false, &authority)?);
    }
    Ok(extensions)
}

pub(super) fn common_name(name: &str) -> Result<Name, X509Error> {
    let value = SubjectAttribute::new(Attribute::CommonName, name);
    Ok(distinguished_name(&Subject(value.into_iter().collect()))?)
}

pub(super) fn new_key() -> Result<Zeroizing<KeyPair>, StateError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map(Zeroizing::new).map_err(StateError::Key)
}
