//! Record + CA + fresh secrets → payload. Writes nothing; `state` keeps the books.

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use imprint::digest::sha256;
use imprint::identity::{Identity, IdentityError};
use imprint::line::frame::{Frame, Packet};
use imprint::line::transfer::Sender;
use imprint::line::{Kind, Shape, Side};
use imprint::options::CMDLINE_MAX;
use imprint::payload::{Credentials, Enrolment, EstUrl, MAX_LEN, NameError, Payload, PayloadId, Seed, Token};
use imprint::plan::SubjectPlan;
use imprint::pool::{EntropyError, Seeded};
use imprint::secret::Secret;
use imprint::source::{self, Origin, SourceError};
use imprint::time::{Deadline, Timestamp};
use zeroize::Zeroizing;

use crate::ca::{Ca, Issued, Leaf, StateError};
use crate::record::{Record, names_a_server};
use crate::x509::{self, X509Error};

/// How a payload is to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How long it is good for.
    pub expires: Duration,
    /// Put in an entropy seed.
    pub seed: bool,
    /// Declare that the medium is used for one boot only, so that the node may credit the seed.
    pub single_boot: bool,
    /// Leave earlier payloads of the node valid.
    pub keep: bool,
    /// What brings it to the node.
    pub medium: Medium,
    /// Make key and certificate here and put them in, instead of URLs and a token.
    pub credentials: bool,
    /// Leave the signature out, for an image that is too old for it.
    pub unsigned: bool,
}

/// What brings a payload to its node, as far as that forbids something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Medium {
    /// Nothing is known of it.
    #[default]
    Any,
    /// The kernel command line, which everybody on the node can read, and which has an end.
    Cmdline,
    /// An initramfs, which may be booted again.
    Initramfs,
    /// Text that a person pastes on a console, which may be logged.
    Text,
    /// A line to a node that has just made a key for it: fresh for one boot, and the way back for the CSR.
    Line,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            expires: Duration::from_secs(86_400),
            seed: false,
            single_boot: false,
            keep: false,
            medium: Medium::Any,
            credentials: false,
            unsigned: false,
        }
    }
}

/// Why there is no payload.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// `--expires 0s`
    #[error("a payload that expires after {} seconds is good for nothing", .0.as_secs())]
    Expires(Duration),
    /// A single-boot medium that names no machine: its seed would be credited by whoever finds it.
    #[error("a single-boot payload must name its machine; add bind = {{ uuid = … }} to the record of {0}")]
    NotBound(String),
    /// A single-boot seed on a medium for which no node credits one.
    #[error(
        "a seed is never credited from a command line or an initramfs, so --single-boot is of no use there; leave it \
         out, or write a config drive (--as iso)"
    )]
    NeverCredited,
    /// What may not stand on a command line.
    #[error(transparent)]
    Forbidden(SourceError),
    /// Longer than a kernel command line.
    #[error(
        "a payload of {payload} bytes takes {word} characters, and a kernel command line has {CMDLINE_MAX} in all; \
         make the record shorter, or bring it in the initramfs or on a config drive (--as cpio or --as iso)"
    )]
    CmdlineTooLong {
        /// Bytes of the payload.
        payload: usize,
        /// Characters of the word.
        word: usize,
    },
    /// The system has no random numbers.
    #[error("making secrets")]
    Random(#[from] X509Error),
    /// A token that is none.
    #[error("making a token")]
    Token(#[source] NameError),
    /// Larger than any node reads.
    #[error("the payload has {0} bytes, the limit is {MAX_LEN}; make the record shorter")]
    TooLong(usize),
    /// Making a key.
    #[error(transparent)]
    Key(IdentityError),
    /// The system's random pool is not ready.
    #[error(transparent)]
    Entropy(EntropyError),
    /// Signing the certificate, or the payload.
    #[error(transparent)]
    Ca(StateError),
    /// The record asks for the EST server's own name.
    #[error("{0} is the EST server's own name; change the node's record")]
    ServerName(String),
}

/// A payload and what the store must know of it.
pub struct Composed {
    /// The wire form.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Its id.
    pub id: PayloadId,
    /// SHA-256 of its token; with a certificate in it, of one that nobody has.
    pub token_hash: [u8; 32],
    /// Until when it is good.
    pub expiry: Timestamp,
    /// The certificate in it.
    pub certificate: Option<Made>,
    /// How many earlier payloads of the node became void when it was booked.
    pub voided: usize,
    /// Codes of the keys whose certificates gave way to that one when it was booked.
    pub superseded: Vec<String>,
}

/// A certificate that was made for a payload, key and all.
pub struct Made {
    /// The certificate.
    pub issued: Issued,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki_hash: [u8; 32],
    /// The code of its key.
    pub key_code: String,
}

/// Makes a payload with a fresh id, token and, if asked for, seed. It is signed if the CA has a signer.
pub fn compose(
    record: &Record,
    ca: &Ca,
    urls: &[EstUrl],
    options: &Options,
    now: Timestamp,
) -> Result<Composed, ComposeError> {
    let expiry = now.plus(options.expires);
    if expiry <= now {
        return Err(ComposeError::Expires(options.expires));
    }
    if options.single_boot && !matches!(options.medium, Medium::Any | Medium::Line) {
        return Err(ComposeError::NeverCredited);
    }
    if options.single_boot && options.medium == Medium::Any && record.binding.is_none() {
        return Err(ComposeError::NotBound(record.name.to_string()));
    }
    let id = PayloadId(x509::random()?);
    let bytes = Zeroizing::new(x509::random::<16>()?);
    let secret = Token::try_from(Base64UrlUnpadded::encode_string(&*bytes)).map_err(ComposeError::Token)?;
    let token_hash = sha256(secret.expose().as_bytes());
    let seed = if options.seed || options.single_boot {
        let bytes = Zeroizing::new(x509::random::<32>()?);
        Some(Seed { bytes: Secret::new(bytes.to_vec()), single_boot: options.single_boot })
    } else {
        None
    };
    let mut urls = urls.to_vec();
    if options.medium == Medium::Line {
        // The line is there already; without a network it is the only way.
        urls.retain(|_| !record.network.is_empty());
        urls.insert(0, EstUrl::Line);
    }
    let urls = urls.as_slice();
    let mut payload = record.payload(ca.root(), urls, (id, now, expiry), Some(secret), seed);
    let mut certificate = None;
    if options.credentials {
        let (made, credentials) = credentials(record, ca, urls, now)?;
        payload.enrolment = Enrolment::Credentials(credentials);
        certificate = Some(made);
    }
    let mut bytes = payload.encode();
    let signing_key = if options.unsigned { None } else { ca.signing_key().map_err(ComposeError::Ca)? };
    if let Some(key) = signing_key {
        bytes = key.sign(&bytes).map_err(ComposeError::Ca)?;
    }
    if bytes.len() > MAX_LEN {
        return Err(ComposeError::TooLong(bytes.len()));
    }
    if options.medium == Medium::Text {
        let origin = Origin::Line { name: "text".to_owned(), sealed: false };
        source::permitted(&origin, &payload).map_err(ComposeError::Forbidden)?;
    }
    if options.medium == Medium::Cmdline {
        let origin = Origin::Medium { medium: imprint::medium::Medium::Cmdline, place: String::new() };
        source::permitted(&origin, &payload).map_err(ComposeError::Forbidden)?;
        let word = cmdline_len(bytes.len());
        if word > CMDLINE_MAX {
            return Err(ComposeError::CmdlineTooLong { payload: bytes.len(), word });
        }
    }
    Ok(Composed { bytes, id, token_hash, expiry, certificate, voided: 0, superseded: Vec::new() })
}

/// Key and certificate as the record has them, by way of the same CSR that a node would send.
fn credentials(record: &Record, ca: &Ca, urls: &[EstUrl], now: Timestamp) -> Result<(Made, Credentials), ComposeError> {
    if let Some(name) = names_a_server(&record.names, urls) {
        return Err(ComposeError::ServerName(name));
    }
    let seeded = Seeded::ready(Deadline::after(Duration::from_secs(10))).map_err(ComposeError::Entropy)?;
    let subject = SubjectPlan { names: record.names.clone(), key: record.key };
    let identity = Identity::generate(&subject, &seeded).map_err(ComposeError::Key)?;
    let leaf =
        Leaf { names: &record.names, spki: identity.spki(), validity: record.validity, usages: &record.usages, urls };
    let issued = ca.issue(&leaf, now).map_err(ComposeError::Ca)?;
    let (spki_hash, key_code) = (sha256(identity.spki()), identity.code().to_string());
    let chain = vec![issued.der.clone(), ca.intermediate().to_vec()];
    Ok((Made { issued, spki_hash, key_code }, Credentials { chain, key: identity.into() }))
}

/// `imprint.payload=…`, the word for a kernel command line.
pub fn cmdline(payload: &[u8]) -> Zeroizing<String> {
    let mut word = Zeroizing::new(String::with_capacity(cmdline_len(payload.len())));
    word.push_str(CMDLINE_NAME);
    let text = Zeroizing::new(Base64UrlUnpadded::encode_string(payload));
    word.push_str(&text);
    word
}

/// Lines of at most 76 columns for `imprint console`: frames of the line protocol from a host that cannot hear. The
/// first announces, so line 2 is piece 0.
pub fn text(payload: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(payload.len().saturating_mul(2).saturating_add(100)));
    let shape = Shape { chunk: TEXT_CHUNK, window: 1 };
    let Some(mut sender) = Sender::new(0, Kind::Plain, payload.to_vec(), shape) else { return out };
    let mut index = 0u16;
    while let Some(frame) = sender.next(0) {
        if matches!(frame, Frame::Data { .. }) {
            index = index.saturating_add(1);
        }
        Packet { from: Side::Host, session: None, frame }.encode(&mut out);
        // Nobody answers; all goes out once, in order.
        sender.acknowledged(index, 0);
    }
    out
}

/// `NAME:TOKEN`, for EST clients that read no payloads; curl and strongSwan's pki take it as it is. `None`: the payload
/// has no token.
pub fn userpass(payload: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let Enrolment::Csr(csr) = Payload::unwrapped(payload).ok()?.enrolment else { return None };
    let (name, token) = (csr.name, csr.token?);
    let mut line = Zeroizing::new(Vec::with_capacity(512));
    for part in [name.as_str(), ":", token.secret.expose(), "\n"] {
        line.extend_from_slice(part.as_bytes());
    }
    Some(line)
}

/// Bytes in a piece: with mark, head and CRC they take 76 columns.
const TEXT_CHUNK: u8 = 52;

/// How long that word is: four characters for three bytes, no padding.
pub fn cmdline_len(payload: usize) -> usize {
    payload.saturating_mul(4).div_ceil(3).saturating_add(CMDLINE_NAME.len())
}

const CMDLINE_NAME: &str = "imprint.payload=";
