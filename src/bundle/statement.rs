//! A sealed bundle: what its signer states about the encrypted file, the signature, and the file. Says who signed and whether the
//! signature fits; never decrypts.

use super::{BundleError, COUNTERS, MAX_COUNTER, MAX_SEALED};
use crate::digest::sha256;
use crate::hex;
use crate::key_code::KeyCode;
use crate::payload::items::{self, Reader, at, put_bytes, put_head};
use crate::payload::signed::{Kid, Signed, Signer};
use crate::payload::{DecodeError, NodeName, Problem};
use crate::shown::Printable;
use crate::time::Timestamp;

/// What a signature covers besides the statement, so that it is good for nothing else: `external_aad` of RFC 9052 §4.3.
pub const AAD: &[u8] = b"imprint bundle 1";

/// What the signer of a bundle states.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// The node that the bundle is for.
    pub node: NodeName,
    /// Grows with each version of the node's bundle.
    pub counter: u64,
    /// When it was signed, by the server's clock.
    pub signed: Timestamp,
    /// Who approved it.
    pub approver: Approver,
    /// SHA-256 of the encrypted file.
    pub sha256: [u8; 32],
    /// Length of the encrypted file.
    pub length: u64,
}

/// The name of somebody who approves bundles: 1 to 64 characters that a console can show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Approver(String);

impl Approver {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Approver {
    type Error = &'static str;
    fn try_from(text: &str) -> Result<Approver, &'static str> {
        // What is escaped when it is shown cannot be printed as it is.
        let is_printable = text == Printable::given(text).as_str();
        if (1..=64).contains(&text.chars().count()) && is_printable {
            Ok(Approver(text.to_owned()))
        } else {
            Err("the name of an approver has 1 to 64 printable characters")
        }
    }
}

impl std::fmt::Display for Approver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Statement {
    /// What is stated about this encrypted file.
    pub fn of(age: &[u8], node: NodeName, counter: u64, signed: Timestamp, approver: Approver) -> Statement {
        let length = u64::try_from(age.len()).unwrap_or(u64::MAX);
        Statement { node, counter, signed, approver, sha256: sha256(age), length }
    }

    /// The bytes that are signed, with [`AAD`].
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        put_head(&mut bytes, items::MAP, 7);
        let text = |bytes: &mut Vec<u8>, text: &str| {
            put_head(bytes, items::TEXT, u64::try_from(text.len()).unwrap_or_default());
            bytes.extend_from_slice(text.as_bytes());
        };
        let numbers = [(0, 1), (2, self.counter), (3, self.signed.as_millis()), (6, self.length)];
        for key in 0..7u64 {
            put_head(&mut bytes, items::UINT, key);
            match key {
                1 => text(&mut bytes, self.node.as_str()),
                4 => text(&mut bytes, self.approver.as_str()),
                5 => put_bytes(&mut bytes, &self.sha256),
                _ => {
                    let number = numbers.iter().find(|(at, _)| *at == key).map_or(0, |(_, number)| *number);
                    put_head(&mut bytes, items::UINT, number);
                }
            }
        }
        bytes
    }

    /// The inverse of [`Statement::encode`]. Every other encoding is an error.
    pub fn decode(bytes: &[u8]) -> Result<Statement, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.head("", items::MAP, "a map")? != 7 {
            return Err(at(0, "", Problem::Value("not a map of 7 pairs".to_owned())));
        }
        let begin = value(&mut reader, 0, "version")?;
        match reader.uint("version")? {
            1 => {}
            other => return Err(at(begin, "version", Problem::Version(other))),
        }
        let begin = value(&mut reader, 1, "node")?;
        let node = NodeName::try_from(reader.text("node")?);
        let node = node.map_err(|error| at(begin, "node", Problem::Value(error.to_string())))?;
        let begin = value(&mut reader, 2, "counter")?;
        let counter = reader.uint("counter")?;
        if !COUNTERS.contains(&counter) {
            return Err(at(begin, "counter", Problem::Value(format!("{counter}, want 1 to {MAX_COUNTER}"))));
        }
        let begin = value(&mut reader, 3, "signed-at")?;
        let signed = reader.uint("signed-at")?;
        let after = || at(begin, "signed-at", Problem::Value(format!("{signed} ms is after the year 9999")));
        let signed = Timestamp::from_millis(signed).ok_or_else(after)?;
        let begin = value(&mut reader, 4, "approver")?;
        let approver = Approver::try_from(reader.text("approver")?);
        let approver = approver.map_err(|why| at(begin, "approver", Problem::Value(why.to_owned())))?;
        let begin = value(&mut reader, 5, "sha256")?;
        let digest = reader.string("sha256")?;
        let wrong = |_| at(begin, "sha256", Problem::Value(format!("{} bytes, want 32", digest.len())));
        let sha256 = digest.try_into().map_err(wrong)?;
        value(&mut reader, 6, "length")?;
        let length = reader.uint("length")?;
        match reader.rest.len() {
            0 => Ok(Statement { node, counter, signed, approver, sha256, length }),
            extra => Err(at(reader.offset(), "", Problem::Trailing(extra))),
        }
    }

    /// The code of the encrypted file, for people to compare.
    pub fn code(&self) -> KeyCode {
        KeyCode::of_digest(&self.sha256)
    }

    /// The entity tag of the sealed bundle, in its quotes (RFC 9110 §8.8.3): counter, and 16 digits of the digest.
    pub fn etag(&self) -> String {
        let digest = hex::encode(self.sha256.get(..8).unwrap_or_default());
        format!("\"{}-{digest}\"", self.counter)
    }
}

/// Reads the key of the next value, and returns the value's offset.
fn value(reader: &mut Reader<'_>, key: u64, name: &'static str) -> Result<usize, DecodeError> {
    let begin = reader.offset();
    if reader.uint(name)? != key {
        return Err(at(begin, name, Problem::Missing(name)));
    }
    Ok(reader.offset())
}

/// The parts of a sealed bundle. Nothing is verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed<'a> {
    signed: Signed<'a>,
    statement: Statement,
    age: &'a [u8],
}

impl<'a> Sealed<'a> {
    /// Takes a sealed bundle apart.
    pub fn split(bytes: &'a [u8]) -> Result<Sealed<'a>, BundleError> {
        if bytes.len() > MAX_SEALED {
            return Err(BundleError::TooLong(bytes.len()));
        }
        let (signed, age) = Signed::split(bytes).map_err(|error| fault(error, 0))?;
        let statement = Statement::decode(signed.payload).map_err(|error| fault(error, signed.offset))?;
        Ok(Sealed { signed, statement, age })
    }

    /// Puts a sealed bundle together: the signed form of a statement, made with [`AAD`], and the encrypted file.
    pub fn join(signed: &[u8], age: &[u8]) -> Vec<u8> {
        [signed, age].concat()
    }

    /// What is stated. Not verified.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The key that the signature names.
    pub fn kid(&self) -> Kid {
        self.signed.kid
    }

    /// The encrypted file. Not verified.
    pub fn age(&self) -> &'a [u8] {
        self.age
    }

    /// The statement, if one of these signers has signed it and it fits the encrypted file.
    pub fn verify(&self, signers: &[Signer]) -> Result<&Statement, BundleError> {
        let kid = self.kid();
        let signer = signers.iter().find(|signer| signer.kid() == kid);
        let signer =
            signer.ok_or_else(|| BundleError::Signer { kid, known: signers.iter().map(Signer::kid).collect() })?;
        if !self.signed.is_by(signer, AAD) {
            return Err(BundleError::Signature(kid));
        }
        let has = u64::try_from(self.age.len()).unwrap_or(u64::MAX);
        if has != self.statement.length {
            return Err(BundleError::Length { says: self.statement.length, has });
        }
        if sha256(self.age) != self.statement.sha256 {
            return Err(BundleError::Digest);
        }
        Ok(&self.statement)
    }
}

/// The words of the payload's reader speak of a payload; here it is a bundle. `begin`: where the bytes begin in the bundle.
fn fault(error: DecodeError, begin: usize) -> BundleError {
    let why = match error.problem {
        Problem::Truncated => "it ends here; it was cut short, fetch it again".to_owned(),
        Problem::Trailing(extra) => format!("{extra} bytes after the statement"),
        Problem::Version(version) => format!("version {version}, this program reads version 1; update the image"),
        other => other.to_string(),
    };
    let place = if error.place.is_empty() { "statement".to_owned() } else { error.place };
    BundleError::Statement { offset: error.offset.saturating_add(begin), place, why }
}
