//! The CA in its directory: a root whose key can be taken offline, an online intermediate, and the server's own
//! certificate. Never decides who gets a certificate; `enrol` does.

mod error;
mod files;
mod intermediate;
mod signers;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use der::asn1::Ia5String;
use der::oid::ObjectIdentifier;
use der::{Decode, Encode};
use imprint::hex;
use imprint::identity::{distinguished_name, general_names};
use imprint::payload::{CaCertificate, CertificateNames, EstUrl, UrlHost};
use imprint::pem;
use imprint::time::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::certificate::Certificate;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, CrlDistributionPoints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
};
use zeroize::Zeroizing;

pub use error::StateError;
pub(crate) use files::{Held, Waits, given_away, may_change};
use files::{
    hold, io_error, private_directory, private_folder, read_certificate, read_key, refuse_used, write, write_key,
};
pub use intermediate::{CRL_VALIDITY, Intermediate};
use intermediate::{FOLDER, Signer, ca_extensions, common_name, new_key};
pub use signers::{SigningKey, Standing};

use crate::crash;
use crate::x509::{self, Body, X509Error};

const DAY: Duration = Duration::from_secs(86_400);
const ROOT_VALIDITY: Duration = DAY.saturating_mul(7305);
const INTERMEDIATE_VALIDITY: Duration = DAY.saturating_mul(3652);
const SERVER_VALIDITY: Duration = DAY.saturating_mul(90);
/// The server certificate is renewed when less than this is left of it.
const SERVER_RENEWAL: Duration = DAY.saturating_mul(30);
/// A certificate's notBefore is this much before its signature, for peers whose clocks are a little behind.
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

    /// Its name.
    pub fn name(self) -> &'static str {
        Usage::ALL.iter().find(|(known, _)| *known == self).map_or("?", |(_, name)| name)
    }

    fn oid(self) -> ObjectIdentifier {
        match self {
            Usage::Client => CLIENT_AUTH,
            Usage::Server => SERVER_AUTH,
        }
    }
}

/// What to put into a node's certificate.
pub struct Leaf<'a> {
    /// The record's names, all of them and no others.
    pub names: &'a CertificateNames,
    /// SubjectPublicKeyInfo, DER.
    pub spki: &'a [u8],
    /// Counted from now; never beyond the end of the intermediate.
    pub validity: Duration,
    /// Never empty.
    pub usages: &'a [Usage],
    /// EST bases. The certificate names the list of revoked certificates (CRL) on the same servers.
    pub urls: &'a [EstUrl],
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
    /// Leaf and intermediate, in the order in which TLS sends them.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8.
    pub key: PrivateKeyDer<'static>,
    /// First second of its validity. If the clock is earlier, it was set back: make another certificate.
    pub not_before: Timestamp,
    /// Last second of its validity.
    pub not_after: Timestamp,
    /// Make another certificate from this time on.
    pub renew_at: Timestamp,
    /// Whether this call made the certificate.
    pub renewed: bool,
}

/// The CA, ready to sign.
pub struct Ca {
    dir: PathBuf,
    root: CaCertificate,
    current: Intermediate,
    /// Oldest first.
    retired: Vec<Intermediate>,
    stamp: Option<Stamp>,
}

/// Device, inode and time of change of [`CURRENT`]: they differ when there is another intermediate.
type Stamp = (u64, u64, i64, i64);

impl Ca {
    /// Makes root and intermediate in a new or empty directory.
    pub(crate) fn init(dir: &Path, now: Timestamp, waits: Waits<'_>) -> Result<Ca, StateError> {
        let held = new_directory(dir, waits)?;
        private_folder(&dir.join(FOLDER))?;
        let key = new_key()?;
        let spki = key.subject_public_key_info();
        let name = common_name(&format!("imprint-{}", hex::encode(&x509::random::<4>()?)))?;
        // No authority key identifier (RFC 5280 §4.2.1.1 lets a self-signed certificate go without) and a short
        // name: the root travels in every payload.
        let root = Body {
            serial: x509::serial::<8>()?,
            subject: name.clone(),
            not_before: now,
            not_after: now.plus(ROOT_VALIDITY),
            extensions: ca_extensions(&spki, None, None)?,
            spki: spki.clone(),
        };
        let root = x509::sign(root, &name, &key)?;
        write_key(&dir.join("root.key"), &key)?;
        write(&dir.join("root.pem"), 0o644, pem::encode("CERTIFICATE", &root).as_bytes())?;
        let root = CaCertificate::new(root).map_err(StateError::Root)?;
        signers::first(dir, &held)?;
        Ca::replace(dir, &root, &key, now)
    }

    /// Reads what `init` made. The root's key is not needed.
    pub fn open(dir: &Path) -> Result<Ca, StateError> {
        let path = dir.join(CURRENT);
        let stamp = match fs::metadata(&path) {
            Ok(_) => stamp(&path),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(StateError::Absent(dir.to_owned()));
            }
            // There may be a CA that this user cannot read.
            Err(error) => return Err(io_error("reading", &path)(error)),
        };
        let root = CaCertificate::new(read_certificate(&dir.join("root.pem"))?).map_err(StateError::Root)?;
        let current = Intermediate::open(dir, read_certificate(&path)?, &path)?;
        let mut retired = Intermediate::all(dir)?;
        retired.retain(|one| one.key_id != current.key_id);
        Ok(Ca { dir: dir.to_owned(), root, current, retired, stamp })
    }

    /// Replaces the current intermediate by a new one that the root's key signs. Certificates of the old intermediate stay
    /// valid. At any moment, and after any crash, either the old or the new intermediate is the current one; the old one
    /// stays among the retired ones. `_turn` is the lock of the directory: rotations wait for each other.
    pub(crate) fn rotate(dir: &Path, _turn: &Held, root_key: Option<&Path>, now: Timestamp) -> Result<Ca, StateError> {
        let ca = Ca::open(dir)?;
        let path = root_key.map_or_else(|| dir.join("root.key"), Path::to_owned);
        if !path.exists() {
            return Err(StateError::RootKey(path));
        }
        let key = read_key(&path)?;
        let parsed = Certificate::from_der(ca.root.der()).map_err(X509Error::Encode)?;
        let spki = parsed.tbs_certificate.subject_public_key_info.to_der().map_err(X509Error::Encode)?;
        if key.subject_public_key_info() != spki {
            return Err(StateError::NotTheRoot(path));
        }
        // An interrupted rotation may have left files.
        ca.current.keep(dir)?;
        Intermediate::clear(dir)?;
        Ca::replace(dir, &ca.root, &key, now)
    }

    /// Waits for the lock of the directory, for changing its files.
    pub(crate) fn turn(&self, waits: Waits<'_>) -> Result<Held, StateError> {
        let absent = || StateError::Absent(self.dir.clone());
        hold(&self.dir, waits).map_err(|error| if self.dir.join(CURRENT).exists() { error } else { absent() })
    }

    fn replace(dir: &Path, root: &CaCertificate, key: &KeyPair, now: Timestamp) -> Result<Ca, StateError> {
        let parsed = Certificate::from_der(root.der()).map_err(X509Error::Encode)?;
        let (not_before, not_after) = x509::validity(&parsed);
        if now < not_before || now > not_after {
            return Err(StateError::Intermediate { not_before, not_after, now });
        }
        // Each intermediate has its own name: verifiers find an issuer by its name (RFC 5280 §4.1.2.4).
        let site = parsed.tbs_certificate.subject.to_string().trim_start_matches("CN=").to_owned();
        let name = match Intermediate::all(dir)?.len() {
            0 => format!("{site} nodes"),
            before => format!("{site} nodes {}", before.saturating_add(1)),
        };
        let signer = Signer { name: &parsed.tbs_certificate.subject, key };
        let der = Intermediate::make(dir, &name, &signer, (now, now.plus(INTERMEDIATE_VALIDITY).min(not_after)))?;
        crash::point("key made");
        // With this write the new intermediate becomes the current one.
        write(&dir.join(CURRENT), 0o644, pem::encode("CERTIFICATE", &der).as_bytes())?;
        crash::point("rotated");
        let ca = Ca::open(dir)?;
        // Ignored: the rotation has succeeded already, and an error would say that it failed. The next rotation calls
        // `keep` again.
        let _ = ca.current.keep(dir);
        Ok(ca)
    }

    /// Copies everything but the root's key into a directory of its own. Holds the lock, so that no rotation adds an
    /// intermediate whose key the copy would lack.
    pub(crate) fn back_up(&self, to: &Path, waits: Waits<'_>) -> Result<(), StateError> {
        let _held = hold(&self.dir, waits)?;
        private_folder(&to.join(FOLDER))?;
        let folder = self.dir.join(FOLDER);
        let mut names = vec![PathBuf::from("root.pem")];
        for entry in fs::read_dir(&folder).map_err(io_error("reading directory", &folder))? {
            names.push(Path::new(FOLDER).join(entry.map_err(io_error("reading directory", &folder))?.file_name()));
        }
        names.extend(signers::FILES.into_iter().filter(|name| self.dir.join(name).exists()).map(PathBuf::from));
        // CURRENT is copied last: a directory without this file does not count as a CA.
        names.push(PathBuf::from(CURRENT));
        for name in names {
            let from = self.dir.join(&name);
            let mode = if name.extension().is_some_and(|extension| extension == "key") { 0o600 } else { 0o644 };
            let bytes = fs::read(&from).map(Zeroizing::new).map_err(io_error("reading", &from))?;
            write(&to.join(&name), mode, &bytes)?;
        }
        Ok(())
    }

    /// The state directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the CA was given another intermediate since it was opened.
    pub fn is_outdated(&self) -> bool {
        stamp(&self.dir.join(CURRENT)) != self.stamp
    }

    /// The certificates that a node's chain may need: the root, the current intermediate, then the retired ones that are
    /// still valid.
    pub fn certificates(&self, now: Timestamp) -> Vec<&[u8]> {
        let retired = self.retired.iter().rev().filter(|one| one.not_after >= now);
        let all = std::iter::once(&self.current).chain(retired).map(Intermediate::der);
        std::iter::once(self.root.der()).chain(all).collect()
    }

    /// The intermediate with this key identifier, in hexadecimal digits.
    pub fn intermediate_of(&self, id: &str) -> Option<&Intermediate> {
        std::iter::once(&self.current).chain(&self.retired).find(|one| one.id() == id)
    }

    /// The intermediate that signs.
    pub fn current(&self) -> &Intermediate {
        &self.current
    }

    /// The trust anchor of every payload.
    pub fn root(&self) -> &CaCertificate {
        &self.root
    }

    /// The certificate that signs, DER.
    pub fn intermediate(&self) -> &[u8] {
        &self.current.der
    }

    /// Signs a node's certificate.
    pub fn issue(&self, leaf: &Leaf<'_>, now: Timestamp) -> Result<Issued, StateError> {
        let usages = leaf.usages.iter().map(|usage| usage.oid()).collect();
        self.sign(leaf, usages, now)
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
        let leaf = Leaf { names: &names, spki: &spki, validity: SERVER_VALIDITY, usages: &[], urls: &[] };
        let issued = self.sign(&leaf, vec![SERVER_AUTH], now)?;
        // The key first: a certificate that does not fit its key is detected and made again.
        write_key(&key_path, &key)?;
        write(&path, 0o644, pem::encode("CERTIFICATE", &issued.der).as_bytes())?;
        let Issued { der, not_before, not_after, .. } = issued;
        self.server_files((der, (not_before, not_after)), &key_path, true)
    }

    /// URLs of the current intermediate's CRL. Without TLS: a client may need the CRL to verify a TLS server (RFC 5280 §8).
    fn crl_urls(&self, urls: &[EstUrl]) -> Vec<String> {
        let id = self.current.id();
        let url = |url: &EstUrl| match url {
            EstUrl::Https(url) if url.authority() == url.host().to_string() => {
                Some(format!("http://{}:443/crl/{id}.crl", url.host()))
            }
            EstUrl::Https(url) => Some(format!("http://{}/crl/{id}.crl", url.authority())),
            EstUrl::Line => None,
        };
        urls.iter().filter_map(url).collect()
    }

    /// When to renew the server certificate: 30 days before its end. A certificate that ends with the intermediate is
    /// renewed at its end, because a new one would end at the same time.
    fn renew_server_at(&self, not_after: Timestamp) -> Timestamp {
        if not_after < self.current.not_after { not_after.minus(SERVER_RENEWAL) } else { not_after }
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
            && tbs.issuer == self.current.name
            && key_ids.key_identifier.as_ref() == Some(&self.current.key_id)
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
        let chain = vec![CertificateDer::from(der), CertificateDer::from(self.current.der.clone())];
        Ok(ServerIdentity { chain, key, not_before, not_after, renew_at: self.renew_server_at(not_after), renewed })
    }

    fn sign(&self, leaf: &Leaf<'_>, usages: Vec<ObjectIdentifier>, now: Timestamp) -> Result<Issued, StateError> {
        let Leaf { names, spki, validity, .. } = *leaf;
        let Intermediate { not_before, not_after, .. } = self.current;
        if now < not_before || now > not_after {
            return Err(StateError::Intermediate { not_before, not_after, now });
        }
        let serial = x509::serial::<16>()?;
        let (not_before, not_after) = (now.minus(BACKDATE).max(not_before), now.plus(validity).min(not_after));
        let authority =
            AuthorityKeyIdentifier { key_identifier: Some(self.current.key_id.clone()), ..Default::default() };
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
        let points = self.crl_urls(leaf.urls);
        if !points.is_empty() {
            let name = |url: &String| Ok(GeneralName::UniformResourceIdentifier(Ia5String::new(url)?));
            let names = points.iter().map(name).collect::<Result<Vec<_>, der::Error>>().map_err(X509Error::Encode)?;
            let name = Some(DistributionPointName::FullName(names));
            let point = DistributionPoint { distribution_point: name, reasons: None, crl_issuer: None };
            extensions.push(x509::extension(false, &CrlDistributionPoints(vec![point]))?);
        }
        let body = Body {
            serial: serial.clone(),
            subject: distinguished_name(&names.subject).map_err(X509Error::Encode)?,
            spki: spki.to_vec(),
            not_before,
            not_after,
            extensions,
        };
        Ok(Issued { serial, der: x509::sign(body, &self.current.name, &self.current.key)?, not_before, not_after })
    }
}

/// Makes a state directory, or takes an empty one. The lock keeps other commands from taking the same directory.
pub(crate) fn new_directory(dir: &Path, waits: Waits<'_>) -> Result<Held, StateError> {
    // Checked here, too, so that a directory with files in it keeps its mode.
    refuse_used(dir)?;
    private_directory(dir)?;
    let held = hold(dir, waits)?;
    refuse_used(dir)?;
    Ok(held)
}

/// A copy of the current intermediate's certificate. This file says which intermediate is the current one.
const CURRENT: &str = "intermediate.pem";

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec()))
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

/// Subject alternative names only, no subject: clients do not look at the subject (RFC 9525 §2).
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
