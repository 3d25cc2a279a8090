//! What may be wrong with a certificate that was given, in words. Looks at none.

use std::fmt;

use crate::certificate::Oddity;
use crate::key_code::KeyCode;
use crate::time::Timestamp;

/// What is wrong with the certificate that the server gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnswerError {
    /// None of the certificates is for our key.
    OtherKey {
        /// Our key.
        ours: KeyCode,
        /// Subject and key of each certificate that came.
        have: Vec<String>,
    },
    /// The certificate cannot be read.
    Unreadable(String),
    /// Another subject than the CSR's.
    Subject {
        /// The CSR's.
        asked: String,
        /// The certificate's.
        have: String,
    },
    /// A name of the CSR is not in the certificate.
    NameMissing {
        /// The name.
        name: String,
        /// The names that are.
        have: String,
    },
    /// A name that the CSR did not ask for.
    NameAdded {
        /// The name.
        name: String,
        /// The names that were.
        asked: String,
    },
    /// A CA certificate.
    IsCa,
    /// Not valid now.
    Validity {
        /// First second.
        not_before: Timestamp,
        /// Last second.
        not_after: Timestamp,
        /// The time.
        now: Timestamp,
    },
    /// Its extended key usages leave out clientAuth.
    Purpose(String),
    /// It does not chain to the CA of the payload.
    Chain {
        /// Who issued it.
        issuer: String,
        /// The CA in the payload.
        ca: String,
        /// Further CAs that the payload allows, and how many of them the server knows.
        issuers: (usize, usize),
        /// Why not.
        why: &'static str,
    },
    /// The verifier cannot use it, or one between it and the CA.
    Odd(Oddity),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerError::OtherKey { ours, have } => {
                write!(f, "no certificate for this node's key {ours} among those that came: {}", have.join(", "))
            }
            AnswerError::Unreadable(why) => write!(f, "the certificate cannot be read: {why}"),
            AnswerError::Subject { asked, have } => {
                write!(f, "the certificate's subject is \"{have}\", asked for was \"{asked}\"")
            }
            AnswerError::NameMissing { name, have } => {
                write!(f, "the certificate lacks the name {name} that was asked for; it has {have}")
            }
            AnswerError::NameAdded { name, asked } => {
                write!(f, "the certificate has a name that nobody asked for, {name}; asked for was {asked}")
            }
            AnswerError::IsCa => f.write_str("the certificate is one of a CA (basicConstraints CA:TRUE)"),
            AnswerError::Validity { not_before, not_after, now } => {
                write!(f, "certificate valid from {not_before} until {not_after}, clock is {now}")
            }
            AnswerError::Purpose(have) => {
                write!(
                    f,
                    "the certificate's extended key usages are {have}, without clientAuth: it could never be renewed, since a \
                     node shows it as a client; have the CA add clientAuth"
                )
            }
            AnswerError::Chain { issuer, ca, issuers: (listed, known), why } => {
                write!(f, "the certificate, issued by \"{issuer}\", does not chain to this node's CA, \"{ca}\"")?;
                if *listed != 0 {
                    write!(f, ", nor to one of the {listed} issuers listed there, {known} of which the server knows")?;
                }
                write!(f, " ({why})")
            }
            AnswerError::Odd(oddity) => write!(f, "the certificate cannot be used: {oddity}; {}", oddity.remedy()),
        }
    }
}

impl std::error::Error for AnswerError {}
