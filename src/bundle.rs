//! The bundle: the required configuration of one node, as files for its root and a manifest; and its sealed form, which travels.
//! `docs/bundle.md` is normative for the bytes. Pure: bytes to values and back. Never writes a file, never asks a server, and never
//! decides whether a bundle is wanted.

pub mod answer;
mod gzip;
mod manifest;
mod path;
pub mod statement;
mod tar;

use std::fmt;
use std::ops::RangeInclusive;

use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

use crate::age::{self, AgeError, Identity, Recipient};
use crate::key_code::KeyCode;
pub use crate::payload::MAX_COUNTER;
use crate::payload::NodeName;
use crate::payload::signed::{Kid, Signer};
use crate::secret::Secret;
use crate::shown::{Printable, line};
pub use gzip::GzipError;
pub use manifest::{ManifestError, UnitAction, Verb};
pub use path::{EntryPath, PathError};
use statement::{Sealed, Statement};
pub use tar::TarError;

/// The longest tar, in bytes.
pub const MAX_TAR: usize = 16 * 1024 * 1024;
/// The most entries below `root/`.
pub const MAX_ENTRIES: usize = 4096;
/// The most units in a manifest.
pub const MAX_UNITS: usize = 256;
/// The longest sealed bundle, in bytes.
pub const MAX_SEALED: usize = 17 * 1024 * 1024;
const COUNTERS: RangeInclusive<u64> = 1..=MAX_COUNTER;

/// A bundle that keeps all rules. [`Bundle::new`] and [`Bundle::unpack`] alone make one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bundle {
    node: NodeName,
    counter: u64,
    units: Vec<UnitAction>,
    entries: Vec<Entry>,
}

/// One file, link or directory of the root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where it is, from the root.
    pub path: EntryPath,
    /// Its permissions. A link has 0777.
    pub mode: u16,
    /// Number of its user.
    pub uid: u32,
    /// Number of its group.
    pub gid: u32,
    /// What it is.
    pub content: Content,
}

/// What an entry is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A file and its bytes.
    File(Secret),
    /// A symbolic link and its target, which nobody follows.
    Link(String),
    /// A directory.
    Directory,
}

/// Why something is no bundle, or not the one that is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BundleError {
    /// More bytes than [`MAX_SEALED`].
    TooLong(usize),
    /// The signed statement at the beginning cannot be read.
    Statement {
        /// Where, from the beginning of the bundle.
        offset: usize,
        /// The item.
        place: String,
        /// The fault.
        why: String,
    },
    /// Signed by somebody who does not count.
    Signer {
        /// Who signed.
        kid: Kid,
        /// Who counts.
        known: Vec<Kid>,
    },
    /// The signature does not fit.
    Signature(Kid),
    /// The encrypted file has another length than the statement says.
    Length {
        /// What the statement says.
        says: u64,
        /// What there is.
        has: u64,
    },
    /// The encrypted file is another one than the statement says.
    Digest,
    /// The bundle is for another node.
    Node {
        /// Whom it is for.
        bundle: NodeName,
        /// This node.
        this: NodeName,
    },
    /// An old bundle.
    Counter {
        /// Its counter.
        has: u64,
        /// The least counter that the payload allows.
        least: u64,
    },
    /// It cannot be decrypted, or encrypted.
    Age(AgeError),
    /// It cannot be unpacked, or packed.
    Gzip(GzipError),
    /// An entry of the tar.
    Entry {
        /// Its name; empty for the tar as a whole.
        name: Printable,
        /// The rule that it breaks.
        error: TarError,
    },
    /// An entry below a file or a link of the bundle itself.
    Below {
        /// The entry.
        path: EntryPath,
        /// What it is below.
        of: EntryPath,
    },
    /// Two paths that differ in the case of letters only.
    Case {
        /// One.
        one: EntryPath,
        /// The other.
        other: EntryPath,
    },
    /// The tar would be longer than [`MAX_TAR`].
    Size(usize),
    /// The manifest.
    Manifest(ManifestError),
    /// The manifest names another node than the statement.
    ManifestNode {
        /// The statement's.
        statement: NodeName,
        /// The manifest's.
        manifest: NodeName,
    },
    /// The manifest was made for a later counter than the statement's.
    ManifestCounter {
        /// The statement's.
        statement: u64,
        /// The manifest's.
        manifest: u64,
    },
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BundleError::TooLong(length) => {
                write!(f, "{length} bytes are too many for a bundle, the limit is {MAX_SEALED}")
            }
            BundleError::Statement { offset, place, why } => {
                write!(f, "the bundle's statement, byte {offset}, {}: {}", line(place), line(why))
            }
            BundleError::Signer { kid, known } => {
                let known: Vec<String> = known.iter().map(Kid::to_string).collect();
                let known = if known.is_empty() { "nobody".to_owned() } else { known.join(", ") };
                write!(f, "the bundle is signed by {kid}, and here {known} may sign; have it signed again")
            }
            BundleError::Signature(kid) => {
                write!(f, "the bundle's signature by {kid} does not fit; the bundle was changed, fetch it again")
            }
            BundleError::Length { says, has } => {
                write!(f, "the bundle has {has} encrypted bytes, and its statement says {says}; fetch it again")
            }
            BundleError::Digest => {
                f.write_str("the bundle's encrypted bytes are not those of its statement; fetch it again")
            }
            BundleError::Node { bundle, this } => {
                write!(f, "the bundle is for node {bundle}, and this is {this}; look at what the server serves")
            }
            BundleError::Counter { has, least } => write!(
                f,
                "the bundle has counter {has}, and the payload wants at least {least}; make a new version, with imprint-host bundle rollback for old content"
            ),
            BundleError::Age(_) => f.write_str("the bundle's encryption"),
            BundleError::Gzip(_) => f.write_str("the bundle's compression"),
            BundleError::Entry { name, .. } if name.is_empty() => f.write_str("the bundle's tar"),
            BundleError::Entry { name, .. } => write!(f, "the bundle's entry \"{name}\""),
            BundleError::Below { path, of } => {
                write!(
                    f,
                    "the bundle's entry {} is below {}, which is no directory; leave one of the two out",
                    line(path.as_str()),
                    line(of.as_str())
                )
            }
            BundleError::Case { one, other } => write!(
                f,
                "the bundle's entries {} and {} differ in the case of letters only; rename one",
                line(one.as_str()),
                line(other.as_str())
            ),
            BundleError::Size(length) => {
                write!(
                    f,
                    "the bundle has {length} bytes unpacked, the limit is {MAX_TAR}; put large files into the image"
                )
            }
            BundleError::Manifest(_) => f.write_str("the bundle"),
            BundleError::ManifestNode { statement, manifest } => {
                write!(
                    f,
                    "the bundle was signed for node {statement}, and its manifest is for {manifest}; make it again: imprint-host bundle \
                     make {statement}"
                )
            }
            BundleError::ManifestCounter { statement, manifest } => {
                write!(
                    f,
                    "the bundle was signed with counter {statement}, and its manifest has {manifest}; make it again: imprint-host bundle \
                     make NODE"
                )
            }
        }
    }
}

impl std::error::Error for BundleError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BundleError::Age(error) => Some(error),
            BundleError::Gzip(error) => Some(error),
            BundleError::Entry { error, .. } => Some(error),
            BundleError::Manifest(error) => Some(error),
            _ => None,
        }
    }
}

impl Bundle {
    /// Sorts units and entries, and checks every rule.
    pub fn new(
        node: NodeName,
        counter: u64,
        mut units: Vec<UnitAction>,
        mut entries: Vec<Entry>,
    ) -> Result<Bundle, BundleError> {
        if !COUNTERS.contains(&counter) {
            let shown = Printable::of(&counter.to_string());
            return Err(BundleError::Manifest(ManifestError::Counter(shown)));
        }
        units.sort_unstable();
        units.dedup();
        if units.len() > MAX_UNITS {
            return Err(BundleError::Manifest(ManifestError::TooMany));
        }
        if entries.len() > MAX_ENTRIES {
            return Err(fault((Vec::new(), TarError::TooMany)));
        }
        entries.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        for entry in &entries {
            tar::check(entry).map_err(|error| fault((entry.path.as_str().as_bytes().to_vec(), error)))?;
        }
        check_tree(&entries)?;
        let bundle = Bundle { node, counter, units, entries };
        match tar::length(bundle.manifest(counter).len(), &bundle.entries) {
            0..=MAX_TAR => Ok(bundle),
            length => Err(BundleError::Size(length)),
        }
    }

    /// The node that it is for.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// The counter at which the content was made.
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// What is done with which units, in this order.
    pub fn units(&self) -> &[UnitAction] {
        &self.units
    }

    /// The entries, sorted by the bytes of their paths. A directory stands before what it holds.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The deterministic tar.
    pub fn tar(&self) -> Zeroizing<Vec<u8>> {
        tar::whole(&self.manifest(self.counter), &self.entries)
    }

    /// Reads a tar that [`Bundle::tar`] could have written.
    pub fn of_tar(bytes: &[u8]) -> Result<Bundle, BundleError> {
        if bytes.len() > MAX_TAR {
            return Err(BundleError::Size(bytes.len()));
        }
        let (manifest, entries) = tar::read(bytes).map_err(fault)?;
        check_tree(&entries)?;
        let manifest::Manifest { node, counter, units } = manifest::read(manifest).map_err(BundleError::Manifest)?;
        Ok(Bundle { node, counter, units, entries })
    }

    /// The plain bundle: the tar, compressed.
    pub fn pack(&self) -> Result<Zeroizing<Vec<u8>>, BundleError> {
        gzip::pack(&self.tar()).map_err(BundleError::Gzip)
    }

    /// The inverse of [`Bundle::pack`], for bytes of any compressor.
    pub fn unpack(bytes: &[u8]) -> Result<Bundle, BundleError> {
        Bundle::of_tar(&gzip::unpack(bytes).map_err(BundleError::Gzip)?)
    }

    /// The plain bundle, encrypted for these recipients.
    pub fn encrypt(&self, recipients: &[Recipient]) -> Result<Vec<u8>, BundleError> {
        age::encrypt(&self.pack()?, recipients).map_err(BundleError::Age)
    }

    /// The plain bundle, encrypted for the node that makes it, and the same bytes each time: a node that boots again knows its own
    /// bundle.
    pub fn encrypt_own(&self, identity: &Identity) -> Result<Vec<u8>, BundleError> {
        age::encrypt_for_self(&self.pack()?, identity, FILE_INFO).map_err(BundleError::Age)
    }

    /// The inverse of [`Bundle::encrypt`].
    pub fn decrypt(age: &[u8], identity: &Identity) -> Result<Bundle, BundleError> {
        Bundle::unpack(&age::decrypt(age, identity).map_err(BundleError::Age)?)
    }

    /// Equal for the same content under the same key, whatever the counter is; tells nothing to anybody without the key.
    pub fn tag(&self, identity: &Identity) -> Result<[u8; 32], BundleError> {
        let library = BundleError::Age(AgeError::Library);
        let mut key = Zeroizing::new([0; 32]);
        let filled = hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
            .extract(identity.expose())
            .expand(&[TAG_INFO], hkdf::HKDF_SHA256)
            .and_then(|output| output.fill(&mut *key));
        filled.map_err(|_| library.clone())?;
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &*key));
        tar::write(&self.manifest(0), &self.entries, &mut |piece| context.update(piece));
        context.sign().as_ref().try_into().map_err(|_| library)
    }

    fn manifest(&self, counter: u64) -> String {
        manifest::write(&self.node, counter, &self.units)
    }
}

const TAG_INFO: &[u8] = b"imprint bundle tag 1";
const FILE_INFO: &[u8] = b"imprint bundle file 1";

/// The code of an encrypted bundle, for people to compare.
pub fn code(age: &[u8]) -> KeyCode {
    KeyCode::of(age)
}

/// What a node expects of its bundle.
#[derive(Clone, Copy, Debug)]
pub struct Expect<'a> {
    /// This node.
    pub node: &'a NodeName,
    /// The least counter.
    pub least: u64,
    /// Who may sign.
    pub signers: &'a [Signer],
}

/// Verifies and opens a sealed bundle. Nothing is decrypted, and nothing unpacked, before the signature fits.
pub fn open(sealed: &[u8], expect: &Expect<'_>, identity: &Identity) -> Result<(Statement, Bundle), BundleError> {
    let sealed = Sealed::split(sealed)?;
    let statement = sealed.verify(expect.signers)?;
    if statement.node != *expect.node {
        return Err(BundleError::Node { bundle: statement.node.clone(), this: expect.node.clone() });
    }
    if statement.counter < expect.least {
        return Err(BundleError::Counter { has: statement.counter, least: expect.least });
    }
    let bundle = Bundle::decrypt(sealed.age(), identity)?;
    if bundle.node != statement.node {
        return Err(BundleError::ManifestNode { statement: statement.node.clone(), manifest: bundle.node });
    }
    if bundle.counter > statement.counter {
        return Err(BundleError::ManifestCounter { statement: statement.counter, manifest: bundle.counter });
    }
    Ok((statement.clone(), bundle))
}

/// Checks the paths against each other: none twice, none below a file or link, and no two names that differ in case only.
fn check_tree(entries: &[Entry]) -> Result<(), BundleError> {
    // In this order, what shares a directory stands together, whatever its case: NUL is in no path and comes before all others.
    let mut paths: Vec<(String, &Entry)> =
        entries.iter().map(|entry| (entry.path.as_str().to_lowercase().replace('/', "\0"), entry)).collect();
    paths.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    for pair in paths.windows(2) {
        let [(lower_one, one), (lower_other, other)] = pair else { continue };
        let names = |entry: &Entry| entry.path.as_str().split('/').map(str::to_owned).collect::<Vec<String>>();
        let shared = lower_one.split('\0').zip(lower_other.split('\0')).take_while(|(one, other)| one == other).count();
        let (one_names, other_names) = (names(one), names(other));
        if one_names.iter().zip(&other_names).take(shared).any(|(one, other)| one != other) {
            return Err(BundleError::Case { one: one.path.clone(), other: other.path.clone() });
        }
        if shared == one_names.len() {
            if shared == other_names.len() {
                return Err(fault((one.path.as_str().as_bytes().to_vec(), TarError::Duplicate)));
            }
            if one.content != Content::Directory {
                return Err(BundleError::Below { path: other.path.clone(), of: one.path.clone() });
            }
        }
    }
    Ok(())
}

fn fault((name, error): tar::Fault) -> BundleError {
    BundleError::Entry { name: Printable::of_bytes(&name), error }
}

#[cfg(test)]
mod tests;
