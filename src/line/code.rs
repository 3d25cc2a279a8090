//! Codes of the line protocol: sides, kinds of objects, reasons to refuse an object, stages of a node. All but the
//! sides are one byte on the line (docs/line-protocol.md). Knows no frames, does no I/O.

use std::fmt;

/// The side that sent a frame. The CRC covers it, so that an echo is not taken for a frame of the other end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Side {
    /// The node.
    Node,
    /// The host.
    Host,
}

/// The stage that a node has reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// The node wants a payload.
    Payload,
    /// The node has its payload, and is busy with it.
    Busy,
    /// The node wants its CSR to be signed.
    Request,
    /// The node has its certificate.
    Done,
    /// The node has given up.
    Failed,
}

/// The kind of an object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Host: a payload, sealed.
    Sealed,
    /// Host: a payload, not sealed.
    Plain,
    /// Host: a payload, sealed, and signed for this node and for a challenge of the last minute.
    Fresh,
    /// Host: the certificate and its chain to the CA, as certs-only CMS in DER (RFC 8951 §3).
    Certificates,
    /// Host: the CSR waits for an administrator; UTF-8.
    Pending,
    /// Host: the CSR is refused, and why; UTF-8.
    Refused,
    /// Node: a CSR, and a proof that the node has the payload.
    Request,
    /// Node: status.json, at the end of the run.
    Report,
    /// Node: the proof that it has an admission key.
    Admission,
}

/// Why an object is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum NotTaken {
    /// No object of this number was announced: announce it again.
    Unknown,
    /// The bytes do not have the digest that was announced: send it again.
    Digest,
    /// Longer than an object of this kind may be.
    TooLong,
    /// The node has offered a key, and takes sealed payloads only.
    NotSealed,
    /// The receiver does not want an object of this kind now.
    Unwanted,
    /// Sealed for another node or another conversation, or sealed wrongly.
    Seal,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotTaken::Unknown => "it was not announced",
            NotTaken::Digest => "it was damaged on its way",
            NotTaken::TooLong => "it is too long",
            NotTaken::NotSealed => "it is not sealed",
            NotTaken::Unwanted => "the receiver does not want it now",
            NotTaken::Seal => "it was sealed for another node or another conversation, or is damaged",
        })
    }
}

/// Bytes of a challenge.
pub const CHALLENGE_LEN: usize = 16;

/// The bytes for these values on the line.
pub(super) const KINDS: [(Kind, u8); 9] = [
    (Kind::Sealed, 1),
    (Kind::Plain, 2),
    (Kind::Certificates, 3),
    (Kind::Pending, 4),
    (Kind::Refused, 5),
    (Kind::Fresh, 6),
    (Kind::Request, 16),
    (Kind::Report, 17),
    (Kind::Admission, 18),
];
pub(super) const REASONS: [(NotTaken, u8); 6] = [
    (NotTaken::Unknown, 1),
    (NotTaken::Digest, 2),
    (NotTaken::TooLong, 3),
    (NotTaken::NotSealed, 4),
    (NotTaken::Unwanted, 5),
    (NotTaken::Seal, 6),
];
pub(super) const STAGES: [(Stage, u8); 5] =
    [(Stage::Payload, 0), (Stage::Busy, 1), (Stage::Request, 2), (Stage::Done, 3), (Stage::Failed, 4)];

pub(super) fn code<T: Copy + PartialEq>(table: &[(T, u8)], value: T) -> u8 {
    table.iter().find(|(known, _)| *known == value).map_or(0, |(_, code)| *code)
}

pub(super) fn value<T: Copy>(table: &[(T, u8)], code: u8) -> Option<T> {
    table.iter().find(|(_, known)| *known == code).map(|(value, _)| *value)
}

impl Kind {
    /// The most bytes that an object of this kind has. A longer object is refused before a byte of it is kept.
    pub fn max_len(self) -> usize {
        match self {
            Kind::Sealed => crate::payload::MAX_LEN.saturating_add(super::SEAL_LEN),
            Kind::Plain => crate::payload::MAX_LEN,
            Kind::Fresh => crate::payload::MAX_LEN.saturating_add(CHALLENGE_LEN + super::SEAL_LEN),
            Kind::Certificates => 32 * 1024,
            Kind::Request | Kind::Report => 16 * 1024,
            Kind::Pending | Kind::Refused | Kind::Admission => 1024,
        }
    }

    /// The side that sends objects of this kind.
    pub fn from(self) -> Side {
        match self {
            Kind::Request | Kind::Report | Kind::Admission => Side::Node,
            _ => Side::Host,
        }
    }

    /// The byte that stands for this kind in ANNOUNCE.
    pub fn code(self) -> u8 {
        code(&KINDS, self)
    }
}
