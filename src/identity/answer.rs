//! The reasons to refuse a certificate from a server or a payload, and their messages. Never verifies anything.

use std::fmt;

use crate::certificate::Oddity;
use crate::key_code::KeyCode;
use crate::time::Timestamp;

/// Why a certificate from a server or a payload is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnswerError {
    /// No certificate that came is for our key.
    OtherKey {
        /// The code of our key.
        ours: KeyCode,
        /// Subject and key of each certificate that came.
        have: Vec<String>,
    },
    /// The certificate cannot be read.
    Unreadable(String),
    /// The certificate has another subject than the CSR.
    Subject {
        /// The subject in the CSR.
        asked: String,
        /// The subject in the certificate.
        have: String,
    },
    /// A name of the CSR is not in the certificate.
    NameMissing {
        /// The name.
        name: String,
        /// The names in the certificate.
        have: String,
    },
    /// The certificate has a name that is not in the CSR.
    NameAdded {
        /// The name.
        name: String,
        /// The names in the CSR.
        asked: String,
    },
    /// The certificate is a CA certificate.
    IsCa,
    /// The certificate is not valid now.
    Validity {
        /// The first second of the validity.
        not_before: Timestamp,
        /// The last second of the validity.
        not_after: Timestamp,
        /// The time by the clock.
        now: Timestamp,
    },
    /// The certificate has extended key usages, and clientAuth is not among them.
    Purpose(String),
    /// The certificate does not chain to the CA of the payload.
    Chain {
        /// The issuer of the certificate.
        issuer: String,
        /// The CA in the payload.
        ca: String,
        /// How many further CAs the payload allows, and how many of those the server or the payload sent.
        issuers: (usize, usize),
        /// Why the chain is not valid.
        why: &'static str,
    },
    /// The verifier (webpki) cannot use the certificate, or one between the certificate and the CA.
    Odd(Oddity),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerError::OtherKey { ours, have } => {
                write!(
                    f,
                    "none of the certificates received is for this node's key {ours}; received: {}",
                    have.join(", ")
                )
            }
            AnswerError::Unreadable(why) => write!(f, "the certificate cannot be read: {why}"),
            AnswerError::Subject { asked, have } => {
                write!(f, "the certificate's subject is \"{have}\", but the CSR asked for \"{asked}\"")
            }
            AnswerError::NameMissing { name, have } => {
                write!(f, "the certificate lacks the name {name} that was asked for; it has {have}")
            }
            AnswerError::NameAdded { name, asked } => {
                write!(
                    f,
                    "the certificate has the name {name}, which the CSR did not ask for; the CSR asked for {asked}"
                )
            }
            AnswerError::IsCa => f.write_str("the certificate is one of a CA (basicConstraints CA:TRUE)"),
            AnswerError::Validity { not_before, not_after, now } => {
                write!(f, "certificate valid from {not_before} until {not_after}, clock is {now}")
            }
            AnswerError::Purpose(have) => {
                write!(
                    f,
                    "the certificate's extended key usages are {have}, without clientAuth: the node could never renew \
                     it, because it authenticates as a TLS client; have the CA add clientAuth"
                )
            }
            AnswerError::Chain { issuer, ca, issuers: (listed, known), why } => {
                write!(f, "the certificate, issued by \"{issuer}\", does not chain to this node's CA, \"{ca}\"")?;
                if *listed != 0 {
                    write!(
                        f,
                        ", nor to one of the {listed} further issuers listed for this node, of which the certificates \
                         of {known} were received"
                    )?;
                }
                write!(f, " ({why})")
            }
            AnswerError::Odd(oddity) => write!(f, "the certificate cannot be used: {oddity}; {}", oddity.remedy()),
        }
    }
}

impl std::error::Error for AnswerError {}
