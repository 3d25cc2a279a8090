//! Why there is no plan, in words that say what to do. Decides nothing.

use std::fmt;

use crate::hex;
use crate::shown::Printable;
use crate::source::Origin;
use crate::time::Timestamp;

/// Why there is no plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlanError {
    /// The payload is for another machine.
    OtherMachine {
        /// SMBIOS UUID, serial number or MAC address.
        item: &'static str,
        /// What the payload says.
        want: Printable,
        /// What this machine has.
        have: Printable,
    },
    /// The image names the CAs of this site, and this one is not among them.
    NotThisSite {
        /// Subject of the payload's CA.
        subject: Printable,
        /// Its SHA-256.
        sha256: [u8; 32],
    },
    /// The CA is never valid while the payload is.
    CaValidity {
        /// Subject of the payload's CA.
        subject: Printable,
        /// First second of its validity.
        not_before: Timestamp,
        /// Last second of its validity.
        not_after: Timestamp,
        /// When the payload was made.
        composed: Timestamp,
        /// When the payload expires.
        expiry: Timestamp,
    },
    /// The payload has expired, and brings certificate and key, so that nobody is asked what time it is.
    Expired {
        /// When.
        expiry: Timestamp,
        /// The system clock.
        now: Timestamp,
    },
    /// The payload has expired by the host on the line that it came on.
    ExpiredByLine {
        /// When.
        expiry: Timestamp,
        /// What time it is by the host.
        told: Timestamp,
    },
    /// No link matches.
    NoSuchLink {
        /// What the payload asks for.
        want: String,
        /// Links that there are.
        have: String,
    },
    /// The payload asks for the link that the machine booted from, and the boot loader did not name it.
    NoBootIf {
        /// Links that there are.
        have: String,
    },
    /// Every URL is `line:`, and the payload did not come over a line.
    OnlyLine(Origin),
    /// Part of version 1 that this program cannot do yet.
    Unsupported {
        /// The item.
        item: String,
        /// What to do instead.
        instead: &'static str,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::OtherMachine { item, want, have } => write!(
                f,
                "the payload is for a machine with {item} {want}, this one has {have}; give this machine its own payload"
            ),
            PlanError::NotThisSite { subject, sha256 } => write!(
                f,
                "the payload's CA \"{subject}\" (sha256 {}) is not among those of /imprint/site in this image; use a \
                 payload of this site, or an image of the other",
                hex::encode(sha256)
            ),
            PlanError::CaValidity { subject, not_before, not_after, composed, expiry } => write!(
                f,
                "the payload's CA \"{subject}\" is valid from {not_before} to {not_after}, the payload from {composed} to \
                 {expiry}: never at the same time; make a payload with a current CA"
            ),
            PlanError::Expired { expiry, now } => write!(
                f,
                "the payload expired at {expiry}, the clock is {now}; make a new payload, or correct the clock: one with \
                 certificate and key asks no server for the time"
            ),
            PlanError::ExpiredByLine { expiry, told } => write!(
                f,
                "the payload expired at {expiry}, and the host on the line says that it is {told}; make a new payload, or \
                 correct the host's clock"
            ),
            PlanError::NoSuchLink { want, have } => {
                write!(f, "no network link with {want}; this machine has: {have}; is its driver in the image?")
            }
            PlanError::NoBootIf { have } => write!(
                f,
                "the payload asks for the link that the machine booted from, and BOOTIF= is not on the kernel command \
                 line; add BOOTIF=01-MAC (SYSAPPEND 2 in PXELINUX, BOOTIF=01-${{netX/mac:hexhyp}} in iPXE), or match \
                 another way; this machine has: {have}"
            ),
            PlanError::OnlyLine(origin) => write!(
                f,
                "the payload has no URL but line:, and it did not come over a line but from {origin}; add an https URL"
            ),
            PlanError::Unsupported { item, instead } => {
                write!(f, "{item} is not supported by this version; {instead}")
            }
        }
    }
}

impl std::error::Error for PlanError {}
