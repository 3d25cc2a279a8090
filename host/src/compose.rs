//! Makes a payload from a record, the CA and fresh secrets. Writes no file and no row; `state` stores what was made.

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use imprint::age;
use imprint::digest::sha256;
use imprint::identity::{Identity, IdentityError};
use imprint::line::frame::{Frame, Packet};
use imprint::line::transfer::Sender;
use imprint::line::{Challenge, Hello, Kind, Shape, Side};
use imprint::medium;
use imprint::options::CMDLINE_MAX;
use imprint::payload::signed;
use imprint::payload::{
    BundleKey, BundleTerms, Credentials, DecodeError, Enrolment, EstUrl, MAX_LEN, NameError, Payload, PayloadId, Seed,
    Token,
};
use imprint::plan::SubjectPlan;
use imprint::pool::{EntropyError, Seeded};
use imprint::secret::Secret;
use imprint::shown::Printable;
use imprint::source::{self, Origin, SourceError};
use imprint::time::{Deadline, Timestamp};
use zeroize::Zeroizing;

use crate::admission::Level;
use crate::ca::{Ca, Issued, Leaf, SigningKey, Standing, StateError};
use crate::record::bundle::{BundleRule, KeySource};
use crate::record::{Record, names_a_server};
use crate::x509::{self, X509Error};

/// How a payload is to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How long the payload is valid.
    pub expires: Duration,
    /// Put in an entropy seed.
    pub seed: bool,
    /// Declare that the medium is used for one boot only, so that the node may credit the seed.
    pub single_boot: bool,
    /// Leave earlier payloads of the node valid.
    pub keep: bool,
    /// The medium that carries the payload to the node.
    pub medium: Medium,
    /// Make key and certificate here, and put them into the payload instead of URLs and a token.
    pub credentials: bool,
    /// Leave the signature out, for an image that is too old for it.
    pub unsigned: bool,
    /// How the node was let in at a door. It stands in the payload, under the signature.
    pub admitted: Option<Level>,
}

/// What brings a payload to its node, if that forbids some contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Medium {
    /// Unknown: nothing is forbidden.
    #[default]
    Any,
    /// A medium of the table: its rules are those of its row.
    Held(medium::Medium),
    /// Text that a person pastes into a console. Consoles are often logged.
    Text,
    /// A serial line, sealed for a key that the node has just made: the payload is fresh for one boot. The CSR comes back
    /// on the same line.
    Line,
    /// A serial line without a seal, which may be logged. The CSR comes back on the same line.
    PlainLine,
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
            admitted: None,
        }
    }
}

/// Why a payload cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// `--expires 0s`
    #[error("a payload that expires after {} seconds cannot be used; give a longer --expires", .0.as_secs())]
    Expires(Duration),
    /// The payload was made too long ago to be sent.
    #[error("the payload expired at {0}, before the node could have it; begin again, with a longer --expires")]
    Expired(Timestamp),
    /// The payload that was made before is none.
    #[error("reading the payload that was made before")]
    Unreadable(#[source] Box<DecodeError>),
    /// A private key for a node that was let in for what it says of itself.
    #[error(
        "{node} was let in for what it says of itself (level {level}), so it gets no private key of this host; write \
         claims_suffice = true into its record, or another admit"
    )]
    OnlyClaims {
        /// The node.
        node: String,
        /// How it was let in.
        level: Level,
    },
    /// A bundle key for a node that was let in for what it says of itself.
    #[error(
        "{node} was let in for what it says of itself (level {level}), so it gets no bundle key of this host; write bundle_key = \
         \"image\" or \"stick\" into its record, or another admit"
    )]
    BundleKeyForClaims {
        /// The node.
        node: String,
        /// How it was let in.
        level: Level,
    },
    /// A certificate in the payload, and a bundle.
    #[error(
        "the record of {0} has bundle_key, and a bundle comes from the server that gives the node its certificate; leave out \
         --credentials, or bundle_key"
    )]
    BundleAndCredentials(String),
    /// A bundle that nobody signs.
    #[error(
        "the record of {0} has bundle_key, and this host has no signer, so it can sign no bundle; make one: imprint-host signer \
         new"
    )]
    NoBundleSigner(String),
    /// The record says that the payload brings the bundle key, and the store has none.
    #[error("there is no bundle key of {0} in the store; restore the store from a backup")]
    NoBundleKey(String),
    /// The key is on a stick, and nobody says which one counts.
    #[error(
        "the record of {0} has bundle_key = \"stick\" and no bundle_recipient, so its node would take the stick of anybody; add \
         bundle_recipient = \"age1…\", which imprint check shows, to the record"
    )]
    NoRecipient(String),
    /// A bundle, and no server that the node reaches over the network.
    #[error(
        "the record of {0} has bundle_key and no network, so its node can fetch no bundle; add [[network]] to the record"
    )]
    BundleOverLine(String),
    /// A single-boot medium that names no machine: any machine that boots it would credit its seed.
    #[error("a single-boot payload must name its machine; add bind = {{ uuid = … }} to the record of {0}")]
    NotBound(String),
    /// A single-boot seed on a medium from which no node credits a seed.
    #[error(
        "no node credits a seed from {0}, so --single-boot has no effect there; leave it out, or write a config drive \
         (--as iso)"
    )]
    NeverCredited(&'static str),
    /// The payload holds something that may not be on this medium.
    #[error(transparent)]
    Forbidden(Box<SourceError>),
    /// The payload is longer than a kernel command line.
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
    /// The new token is not a valid token.
    #[error("making a token")]
    Token(#[source] NameError),
    /// The payload is larger than a node accepts.
    #[error("the payload has {0} bytes, the limit is {MAX_LEN}; make the record shorter")]
    TooLong(usize),
    /// A key cannot be made.
    #[error(transparent)]
    Key(IdentityError),
    /// The system's random pool is not ready.
    #[error(transparent)]
    Entropy(EntropyError),
    /// The certificate or the payload was not signed.
    #[error(transparent)]
    Ca(StateError),
    /// The record asks for the EST server's own name.
    #[error("{0} is the EST server's own name; change the node's record")]
    ServerName(String),
}

/// A payload, and what the store records about it.
pub struct Composed {
    /// The encoded payload.
    pub bytes: Zeroizing<Vec<u8>>,
    /// The payload's id.
    pub id: PayloadId,
    /// SHA-256 of the token. A payload with a certificate has no token: then the hash of a random one that was thrown away.
    pub token_hash: [u8; 32],
    /// The end of the payload's validity.
    pub expiry: Timestamp,
    /// The certificate in the payload, if there is one.
    pub certificate: Option<Made>,
    /// How many earlier payloads of the node this payload made void.
    pub voided: usize,
    /// Codes of the keys whose certificates were revoked because this payload's certificate replaces them.
    pub superseded: Vec<String>,
}

/// A certificate that was made together with its key for a payload.
pub struct Made {
    /// The certificate.
    pub issued: Issued,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki_hash: [u8; 32],
    /// The code of its key.
    pub key_code: String,
}

/// What the host knows of a node's bundles and puts into its payload, if its record has bundles.
#[derive(Default)]
pub struct Bundles {
    /// The key that opens them, if this host holds it.
    pub identity: Option<age::Identity>,
    /// The counter of the newest version; 0: there is none.
    pub least: u64,
}

/// Makes a payload with a fresh id, token and, if asked for, seed. It is signed if the CA has a signer.
pub fn compose(
    record: &Record,
    ca: &Ca,
    urls: &[EstUrl],
    options: &Options,
    bundles: Bundles,
    now: Timestamp,
) -> Result<Composed, ComposeError> {
    let expiry = now.plus(options.expires);
    if expiry <= now {
        return Err(ComposeError::Expires(options.expires));
    }
    if options.single_boot {
        credited(options.medium, record)?;
    }
    if let Some(level) = options.admitted.filter(|level| options.credentials && level.is_claim())
        && !record.rule.claims_suffice
    {
        return Err(ComposeError::OnlyClaims { node: record.name.to_string(), level });
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
    if matches!(options.medium, Medium::Line | Medium::PlainLine) {
        // The line comes first: it is connected already. A record without a network has no other way.
        urls.retain(|_| record.from_cmdline || !record.network.is_empty());
        urls.insert(0, EstUrl::Line);
    }
    let urls = urls.as_slice();
    let mut payload = record.payload(ca.root(), urls, (id, now, expiry), Some(secret), seed);
    if let Some(rule) = &record.bundle {
        let over_network = urls.iter().any(|url| matches!(url, EstUrl::Https(_)));
        payload.bundle = Some(terms(record, rule, bundles, options, over_network)?);
        payload.signers = signers(record, ca)?;
    }
    let mut certificate = None;
    if options.credentials {
        let (made, credentials) = credentials(record, ca, urls, now)?;
        payload.enrolment = Enrolment::Credentials(credentials);
        certificate = Some(made);
    }
    if let Some(level) = options.admitted {
        payload.admit(level.word());
    }
    let mut bytes = payload.encode();
    let signing_key = if options.unsigned { None } else { ca.signing_key().map_err(ComposeError::Ca)? };
    if let Some(key) = signing_key {
        bytes = key.sign(&bytes, &signed::aad(None)).map_err(ComposeError::Ca)?;
    }
    if bytes.len() > MAX_LEN {
        return Err(ComposeError::TooLong(bytes.len()));
    }
    let origin = match options.medium {
        Medium::Any | Medium::Line => None,
        Medium::Held(medium) => Some(Origin::Medium { medium, place: Printable::default() }),
        Medium::Text | Medium::PlainLine => Some(Origin::Line { name: "text".to_owned(), sealed: false }),
    };
    if let Some(origin) = origin {
        source::permitted(&origin, &payload, None).map_err(|error| ComposeError::Forbidden(Box::new(error)))?;
    }
    if options.medium == Medium::Held(medium::Medium::Cmdline) {
        let word = cmdline_len(bytes.len());
        if word > CMDLINE_MAX {
            return Err(ComposeError::CmdlineTooLong { payload: bytes.len(), word });
        }
    }
    Ok(Composed { bytes, id, token_hash, expiry, certificate, voided: 0, superseded: Vec::new() })
}

/// The payload as a node wants it that has sent a challenge: as if made at this moment, and signed for the node's HELLO and the
/// challenge. Beside the challenge that stands before it, this is what the seal of [`Kind::Fresh`] is made of. `payload`: what
/// [`compose`] has made, signed or not.
pub fn fresh(
    payload: &[u8],
    key: &SigningKey,
    hello: &Hello,
    challenge: &Challenge,
    now: Timestamp,
) -> Result<Secret, ComposeError> {
    let mut payload = Payload::unwrapped(payload).map_err(|error| ComposeError::Unreadable(Box::new(error)))?;
    payload.composed = now;
    if payload.expiry <= now {
        return Err(ComposeError::Expired(payload.expiry));
    }
    let signed = key.sign(&payload.encode(), &signed::aad(Some((&hello.digest(), &challenge.0))));
    let signed = signed.map_err(ComposeError::Ca)?;
    if signed.len() > MAX_LEN {
        return Err(ComposeError::TooLong(signed.len()));
    }
    Ok(Secret::new([&challenge.0[..], &signed].concat()))
}

/// What the payload says about the node's bundles.
fn terms(
    record: &Record,
    rule: &BundleRule,
    Bundles { identity, least }: Bundles,
    options: &Options,
    over_network: bool,
) -> Result<BundleTerms, ComposeError> {
    let node = || record.name.to_string();
    if options.credentials {
        return Err(ComposeError::BundleAndCredentials(node()));
    }
    if !over_network {
        return Err(ComposeError::BundleOverLine(node()));
    }
    let key = match rule.key {
        KeySource::Payload => {
            // The record's admit rules this out today. A payload that was asked for before the record was replaced may still
            // come here.
            if let Some(level) = options.admitted.filter(|level| level.is_claim()) {
                return Err(ComposeError::BundleKeyForClaims { node: node(), level });
            }
            BundleKey::Payload(identity.ok_or_else(|| ComposeError::NoBundleKey(node()))?)
        }
        KeySource::Image => BundleKey::Image(rule.recipient),
        KeySource::Stick => {
            // The record's rules ask for it today.
            let recipient = rule.recipient.ok_or_else(|| ComposeError::NoRecipient(node()))?;
            BundleKey::Stick { recipient, pull: rule.pull }
        }
    };
    Ok(BundleTerms { key, least })
}

/// Every key that signs bundles, or may have signed the one that the node gets.
fn signers(record: &Record, ca: &Ca) -> Result<Vec<signed::Signer>, ComposeError> {
    let signers = ca.signers().map_err(ComposeError::Ca)?;
    if !signers.iter().any(|(_, standing)| *standing == Standing::Signs) {
        return Err(ComposeError::NoBundleSigner(record.name.to_string()));
    }
    Ok(signers.into_iter().map(|(signer, _)| signer).collect())
}

/// An error if no node credits a seed from this medium, or if the payload names no machine.
fn credited(medium: Medium, record: &Record) -> Result<(), ComposeError> {
    match medium {
        Medium::Line => Ok(()),
        Medium::Any if record.names_a_machine() => Ok(()),
        Medium::Held(medium) if medium.row().credits_seed && record.names_a_machine() => Ok(()),
        Medium::Held(medium) if !medium.row().credits_seed => Err(ComposeError::NeverCredited(medium.row().kind)),
        Medium::Text => Err(ComposeError::NeverCredited("text")),
        Medium::PlainLine => Err(ComposeError::NeverCredited("a line without a seal")),
        Medium::Any | Medium::Held(_) => Err(ComposeError::NotBound(record.name.to_string())),
    }
}

/// Makes a key and a certificate by the record. Uses the same CSR that a node would send.
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

/// The payload as a word for a kernel command line: `imprint.payload=…`.
pub fn cmdline(payload: &[u8]) -> Zeroizing<String> {
    let mut word = Zeroizing::new(String::with_capacity(cmdline_len(payload.len())));
    word.push_str(CMDLINE_NAME);
    let text = Zeroizing::new(Base64UrlUnpadded::encode_string(payload));
    word.push_str(&text);
    word
}

/// The payload as lines of at most 76 columns for `imprint console`: frames of the line protocol, one way only. The first
/// line announces the payload, so line 2 is piece 0.
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
        // There are no answers: each frame is written once, in order.
        sender.acknowledged(index, 0);
    }
    out
}

/// `NAME:TOKEN`, for EST clients that cannot read payloads. curl and strongSwan's pki accept this form. `None`: the payload
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

/// Bytes in a piece. With mark, head and CRC a line has 76 columns.
const TEXT_CHUNK: u8 = 52;

/// Length of the word of [`cmdline`]: base64 without padding, four characters for three bytes.
pub fn cmdline_len(payload: usize) -> usize {
    payload.saturating_mul(4).div_ceil(3).saturating_add(CMDLINE_NAME.len())
}

const CMDLINE_NAME: &str = "imprint.payload=";
