//! The CA in its directory: a root whose key can be taken offline, an online intermediate, and the server's own
//! certificate. Decides nothing about who gets a certificate; `enrol` does.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use der::asn1::{Ia5String, OctetString};
use der::oid::ObjectIdentifier;
use der::{Decode, Encode};
use imprint::hex;
use imprint::identity::{distinguished_name, general_names};
use imprint::payload::{Attribute, CaCertificate, CaError, CertificateNames, Subject, SubjectAttribute, UrlHost};
use imprint::pem;
use imprint::time::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::certificate::Certificate;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
    SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use zeroize::Zeroizing;

use crate::x509::{self, Body, X509Error};

const DAY: Duration = Duration::from_secs(86_400);
const ROOT_VALIDITY: Duration = DAY.saturating_mul(7305);
const INTERMEDIATE_VALIDITY: Duration = DAY.saturating_mul(3652);
const SERVER_VALIDITY: Duration = DAY.saturating_mul(90);
/// The server certificate is renewed when less than this is left of it.
const SERVER_RENEWAL: Duration = DAY.saturating_mul(30);
/// Certificates start this much before they are made, for peers whose clocks are a little behind.
const BACKDATE: Duration = Duration::from_secs(300);

const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// What a node's certificate may be used for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Usage {
    /// TLS client.
    Client,
    /// TLS server.
    Server,
}

impl Usage {
    /// Every usage with the name that records use for it (RFC 5280 §4.2.1.12).
    pub const ALL: [(Usage, &str); 2] = [(Usage::Client, "clientAuth"), (Usage::Server, "serverAuth")];

    fn oid(self) -> ObjectIdentifier {
        match self {
            Usage::Client => CLIENT_AUTH,
            Usage::Server => SERVER_AUTH,
        }
    }
}

/// A node's certificate, as the record has it.
pub struct Leaf<'a> {
    /// Exactly these.
    pub names: &'a CertificateNames,
    /// SubjectPublicKeyInfo, DER.
    pub spki: &'a [u8],
    /// From now on; cut where the intermediate ends.
    pub validity: Duration,
    /// Never empty.
    pub usages: &'a [Usage],
}

/// A certificate that was just signed.
pub struct Issued {
    /// Its serial number.
    pub serial: Vec<u8>,
    /// DER.
    pub der: Vec<u8>,
    /// First second of its validity.
    pub not_before: Timestamp,
    /// Last second of its validity.
    pub not_after: Timestamp,
}

/// First and last second.
type Validity = (Timestamp, Timestamp);

/// The server's own certificate and key.
pub struct ServerIdentity {
    /// Leaf, intermediate: what TLS sends.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8.
    pub key: PrivateKeyDer<'static>,
    /// First second of its validity: a clock before that has been set back, and another one should be made.
    pub not_before: Timestamp,
    /// From when on another one should be made.
    pub renew_at: Timestamp,
    /// Whether it was made just now.
    pub renewed: bool,
}

/// The CA, ready to sign.
pub struct Ca {
    dir: PathBuf,
    root: CaCertificate,
    intermediate: Vec<u8>,
    name: Name,
    key_id: OctetString,
    /// rcgen keeps the private key as bytes, too, and wipes them only when told.
    key: Zeroizing<KeyPair>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// Why the CA cannot be made, opened or used.
#[derive(Debug)]
pub enum StateError {
    /// `init` overwrites nothing.
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// Something in it.
        found: String,
    },
    /// A file or directory.
    Io {
        /// What was done with it.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no CA here.
    Absent(PathBuf),
    /// A file that should hold a certificate or key does not.
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The root is no trust anchor.
    Root(CaError),
    /// Outside the validity of the intermediate.
    Intermediate {
        /// First second of its validity.
        not_before: Timestamp,
        /// Last second of its validity.
        not_after: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// Making a certificate.
    X509(X509Error),
    /// Making a key.
    Key(rcgen::Error),
}

impl Ca {
    /// Makes root and intermediate in a new or empty directory.
    pub fn init(dir: &Path, now: Timestamp) -> Result<Ca, StateError> {
        refuse_used(dir)?;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(io_error("making directory", dir))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(dir, mode).map_err(io_error("restricting", dir))?;
        let site = hex::encode(&x509::random::<4>()?);
        let (root_key, key) = (new_key()?, new_key()?);
        let (root_spki, spki) = (root_key.subject_public_key_info(), key.subject_public_key_info());
        let root_name = common_name(&format!("imprint-{site}"))?;
        // No authority key identifier (RFC 5280 §4.2.1.1 lets a self-signed certificate go without) and a short
        // name: the root travels in every payload.
        let root = Body {
            serial: x509::serial::<8>()?,
            subject: root_name.clone(),
            not_before: now,
            not_after: now.plus(ROOT_VALIDITY),
            extensions: ca_extensions(&root_spki, None, None)?,
            spki: root_spki.clone(),
        };
        let intermediate = Body {
            serial: x509::serial::<16>()?,
            subject: common_name(&format!("imprint-{site} nodes"))?,
            not_before: now,
            not_after: now.plus(INTERMEDIATE_VALIDITY),
            extensions: ca_extensions(&spki, Some(0), Some(x509::key_id(&root_spki)?))?,
            spki: spki.clone(),
        };
        let root = x509::sign(root, &root_name, &root_key)?;
        let intermediate = x509::sign(intermediate, &root_name, &root_key)?;
        write_key(&dir.join("root.key"), &root_key)?;
        write_key(&dir.join("intermediate.key"), &key)?;
        write(&dir.join("root.pem"), 0o644, pem::encode("CERTIFICATE", &root).as_bytes())?;
        write(&dir.join("intermediate.pem"), 0o644, pem::encode("CERTIFICATE", &intermediate).as_bytes())?;
        Ca::open(dir)
    }

    /// Reads what `init` made. The root's key is not needed.
    pub fn open(dir: &Path) -> Result<Ca, StateError> {
        if !dir.join("intermediate.pem").exists() {
            return Err(StateError::Absent(dir.to_owned()));
        }
        let root = CaCertificate::new(read_certificate(&dir.join("root.pem"))?).map_err(StateError::Root)?;
        let path = dir.join("intermediate.pem");
        let intermediate = read_certificate(&path)?;
        let broken = |path: &Path, why: String| StateError::File { path: path.to_owned(), why };
        let parsed = Certificate::from_der(&intermediate).map_err(|error| broken(&path, error.to_string()))?;
        let spki = parsed.tbs_certificate.subject_public_key_info.to_der().map_err(X509Error::Encode)?;
        let key_path = dir.join("intermediate.key");
        let text = fs::read_to_string(&key_path).map(Zeroizing::new).map_err(io_error("reading", &key_path))?;
        let key = KeyPair::from_pem(&text).map(Zeroizing::new);
        let key = key.map_err(|error| broken(&key_path, error.to_string()))?;
        if key.subject_public_key_info() != spki {
            return Err(broken(&key_path, "the key does not belong to intermediate.pem".to_owned()));
        }
        let (not_before, not_after) = x509::validity(&parsed);
        let name = parsed.tbs_certificate.subject;
        Ok(Ca {
            dir: dir.to_owned(),
            root,
            intermediate,
            name,
            key_id: x509::key_id(&spki)?,
            key,
            not_before,
            not_after,
        })
    }

    /// The trust anchor of every payload.
    pub fn root(&self) -> &CaCertificate {
        &self.root
    }

    /// The certificate that signs, DER.
    pub fn intermediate(&self) -> &[u8] {
        &self.intermediate
    }

    /// Signs a node's certificate.
    pub fn issue(&self, leaf: &Leaf<'_>, now: Timestamp) -> Result<Issued, StateError> {
        let usages = leaf.usages.iter().map(|usage| usage.oid()).collect();
        self.sign(leaf.names, leaf.spki, leaf.validity, usages, now)
    }

    /// The server's certificate for these hosts: the one on disk, or a new one when that is missing, for other names,
    /// of another CA, or about to expire.
    pub fn server_identity(&self, hosts: &[UrlHost], now: Timestamp) -> Result<ServerIdentity, StateError> {
        let names = server_names(hosts)?;
        let (path, key_path) = (self.dir.join("server.pem"), self.dir.join("server.key"));
        if let Some(current) = self.current_server(&path, &key_path, &names, now) {
            return self.server_files(current, &key_path, false);
        }
        let key = new_key()?;
        let spki = key.subject_public_key_info();
        let issued = self.sign(&names, &spki, SERVER_VALIDITY, vec![SERVER_AUTH], now)?;
        // Key first: a certificate that does not belong to the key is noticed and made again.
        write_key(&key_path, &key)?;
        write(&path, 0o644, pem::encode("CERTIFICATE", &issued.der).as_bytes())?;
        let Issued { der, not_before, not_after, .. } = issued;
        self.server_files((der, (not_before, not_after)), &key_path, true)
    }

    /// Nothing that is made later lasts longer than the intermediate.
    fn renew_server_at(&self, not_after: Timestamp) -> Timestamp {
        if not_after < self.not_after { not_after.minus(SERVER_RENEWAL) } else { not_after }
    }

    fn current_server(
        &self,
        path: &Path,
        key_path: &Path,
        names: &CertificateNames,
        now: Timestamp,
    ) -> Option<(Vec<u8>, Validity)> {
        let der = read_certificate(path).ok()?;
        let certificate = Certificate::from_der(&der).ok()?;
        let (not_before, not_after) = x509::validity(&certificate);
        let tbs = &certificate.tbs_certificate;
        let SubjectAltName(alternatives) = tbs.get().ok()??.1;
        let (_, key_ids) = tbs.get::<AuthorityKeyIdentifier>().ok()??;
        let key = fs::read_to_string(key_path).map(Zeroizing::new).ok()?;
        let spki = KeyPair::from_pem(&key).map(Zeroizing::new).ok()?.subject_public_key_info();
        let current = not_before <= now
            && now < self.renew_server_at(not_after)
            && tbs.issuer == self.name
            && key_ids.key_identifier.as_ref() == Some(&self.key_id)
            && alternatives == general_names(names).ok()?
            && tbs.subject_public_key_info.to_der().ok()? == spki;
        current.then_some((der, (not_before, not_after)))
    }

    fn server_files(
        &self,
        (der, (not_before, not_after)): (Vec<u8>, Validity),
        key_path: &Path,
        renewed: bool,
    ) -> Result<ServerIdentity, StateError> {
        let key = PrivateKeyDer::from_pem_file(key_path)
            .map_err(|error| StateError::File { path: key_path.to_owned(), why: error.to_string() })?;
        let chain = vec![CertificateDer::from(der), CertificateDer::from(self.intermediate.clone())];
        Ok(ServerIdentity { chain, key, not_before, renew_at: self.renew_server_at(not_after), renewed })
    }

    fn sign(
        &self,
        names: &CertificateNames,
        spki: &[u8],
        validity: Duration,
        usages: Vec<ObjectIdentifier>,
        now: Timestamp,
    ) -> Result<Issued, StateError> {
        if now < self.not_before || now > self.not_after {
            let (not_before, not_after) = (self.not_before, self.not_after);
            return Err(StateError::Intermediate { not_before, not_after, now });
        }
        let serial = x509::serial::<16>()?;
        let (not_before, not_after) =
            (now.minus(BACKDATE).max(self.not_before), now.plus(validity).min(self.not_after));
        let authority = AuthorityKeyIdentifier { key_identifier: Some(self.key_id.clone()), ..Default::default() };
        let mut extensions = vec![
            x509::extension(true, &KeyUsage(KeyUsages::DigitalSignature.into()))?,
            x509::extension(false, &ExtendedKeyUsage(usages))?,
            x509::extension(false, &authority)?,
        ];
        let alternatives = general_names(names).map_err(X509Error::Encode)?;
        if !alternatives.is_empty() {
            // RFC 5280 §4.2.1.6: critical if the subject is empty.
            extensions.push(x509::extension(names.subject.0.is_empty(), &SubjectAltName(alternatives))?);
        }
        let body = Body {
            serial: serial.clone(),
            subject: distinguished_name(&names.subject).map_err(X509Error::Encode)?,
            spki: spki.to_vec(),
            not_before,
            not_after,
            extensions,
        };
        Ok(Issued { serial, der: x509::sign(body, &self.name, &self.key)?, not_before, not_after })
    }
}

/// Whether a certificate that we signed is for exactly these names.
pub fn is_for(der: &[u8], names: &CertificateNames) -> bool {
    let Ok(certificate) = Certificate::from_der(der) else { return false };
    let tbs = certificate.tbs_certificate;
    let alternatives: Vec<GeneralName> = match tbs.get::<SubjectAltName>() {
        Ok(found) => found.map(|(_, SubjectAltName(names))| names).unwrap_or_default(),
        Err(_) => return false,
    };
    distinguished_name(&names.subject).is_ok_and(|subject| subject == tbs.subject)
        && general_names(names).is_ok_and(|names| names == alternatives)
}

/// keyCertSign and cRLSign, CA:TRUE, both critical (RFC 5280 §4.2.1.3, §4.2.1.9), and the key's identifier.
fn ca_extensions(
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

fn common_name(name: &str) -> Result<Name, X509Error> {
    let value = SubjectAttribute::new(Attribute::CommonName, name);
    Ok(distinguished_name(&Subject(value.into_iter().collect()))?)
}

/// Names only, no subject: clients look at nothing else (RFC 9525 §2).
fn server_names(hosts: &[UrlHost]) -> Result<CertificateNames, StateError> {
    let mut names = CertificateNames::default();
    for host in hosts {
        match host {
            UrlHost::Dns(name) if !names.dns.contains(name) => {
                Ia5String::new(name.as_str()).map_err(X509Error::Encode)?;
                names.dns.push(name.clone());
            }
            UrlHost::Ip(ip) if !names.ips.contains(ip) => names.ips.push(IpAddr::clone(ip)),
            _ => {}
        }
    }
    Ok(names)
}

fn new_key() -> Result<Zeroizing<KeyPair>, StateError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map(Zeroizing::new).map_err(StateError::Key)
}

fn refuse_used(dir: &Path) -> Result<(), StateError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("reading directory", dir)(error)),
    };
    for entry in entries {
        let found = entry.map_err(io_error("reading directory", dir))?.file_name();
        // A file system of its own has this one from the start.
        if found != "lost+found" {
            return Err(StateError::NotEmpty { dir: dir.to_owned(), found: found.to_string_lossy().into_owned() });
        }
    }
    Ok(())
}

fn read_certificate(path: &Path) -> Result<Vec<u8>, StateError> {
    let text = fs::read(path).map_err(io_error("reading", path))?;
    match CertificateDer::from_pem_slice(&text) {
        Ok(certificate) => Ok(certificate.to_vec()),
        Err(error) => Err(StateError::File { path: path.to_owned(), why: error.to_string() }),
    }
}

fn write_key(path: &Path, key: &KeyPair) -> Result<(), StateError> {
    let der = Zeroizing::new(key.serialize_der());
    write(path, 0o600, pem::encode("PRIVATE KEY", &der).as_bytes())
}

fn write(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), StateError> {
    NewFile::create(path, mode)?.finish(bytes)
}

/// A file that appears whole or not at all: made beside its place, then renamed. It has its mode before its first byte.
pub struct NewFile {
    file: File,
    new: PathBuf,
    path: PathBuf,
}

impl NewFile {
    /// Shows that the file can be made, before anything depends on it.
    pub fn create(path: &Path, mode: u32) -> Result<NewFile, StateError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = path.with_file_name(name);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("replacing", &new)(error)),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new);
        Ok(NewFile { file: file.map_err(io_error("making", &new))?, new, path: path.to_owned() })
    }

    /// Writes it and puts it in its place.
    pub fn finish(mut self, bytes: &[u8]) -> Result<(), StateError> {
        self.file.write_all(bytes).and_then(|()| self.file.sync_all()).map_err(io_error("writing", &self.new))?;
        fs::rename(&self.new, &self.path).map_err(io_error("writing", &self.path))?;
        // The rename is on the disk once the directory is.
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(io_error("writing", parent))
    }
}

/// A file that was not finished leaves nothing behind.
impl Drop for NewFile {
    fn drop(&mut self) {
        // After a rename there is nothing of this name.
        let _ = fs::remove_file(&self.new);
    }
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { action, path, source }
}

impl From<X509Error> for StateError {
    fn from(error: X509Error) -> StateError {
        StateError::X509(error)
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::NotEmpty { dir, found } => {
                write!(f, "{} holds {found}; init overwrites nothing, give an empty --dir", dir.display())
            }
            StateError::Io { action, path, .. } => write!(f, "{action} {}", path.display()),
            StateError::Absent(dir) => {
                write!(f, "no CA in {}; make one with imprint-host init, or give its --dir", dir.display())
            }
            StateError::File { path, why } => write!(f, "{}: {why}; restore it from a backup", path.display()),
            StateError::Root(_) => write!(f, "root.pem is no trust anchor"),
            StateError::Intermediate { not_before, not_after, now } => {
                write!(f, "intermediate CA is valid from {not_before} to {not_after}, clock is {now}")
            }
            StateError::X509(_) => write!(f, "making a certificate"),
            StateError::Key(_) => write!(f, "making a key"),
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StateError::Io { source, .. } => Some(source),
            StateError::Root(error) => Some(error),
            StateError::X509(error) => Some(error),
            StateError::Key(error) => Some(error),
            _ => None,
        }
    }
}
