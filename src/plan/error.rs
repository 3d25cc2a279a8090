//! Why a payload gives no plan, with messages that name the remedy. Never decides anything.

use std::fmt;

use super::StackError;
use crate::hex;
use crate::shown::Printable;
use crate::site::{PinFile, SignatureError};
use crate::source::Origin;
use crate::time::Timestamp;

/// Why a payload gives no plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlanError {
    /// The payload is for another machine.
    OtherMachine {
        /// SMBIOS UUID, serial number or MAC address.
        item: &'static str,
        /// The value in the payload.
        want: Printable,
        /// The value of this machine.
        have: Printable,
    },
    /// The image has a site pin, and the payload's CA is not in it.
    NotThisSite {
        /// Subject of the payload's CA.
        subject: Printable,
        /// SHA-256 of the payload's CA.
        sha256: [u8; 32],
        /// Where the CAs of the site pin are listed.
        file: PinFile,
    },
    /// The image names signers, and the payload has no signature of one of them.
    Signature(SignatureError),
    /// The image names signers, and the payload names no machine and was not signed for this one.
    NotBound(Origin, PinFile),
    /// The CA is valid at no moment of the payload's life.
    CaValidity {
        /// Subject of the payload's CA.
        subject: Printable,
        /// First second of the CA's validity.
        not_before: Timestamp,
        /// Last second of the CA's validity.
        not_after: Timestamp,
        /// When the payload was made.
        composed: Timestamp,
        /// When the payload expires.
        expiry: Timestamp,
    },
    /// The payload has expired according to the node's clock. It contains certificate and key, so no server is asked
    /// for the time.
    Expired {
        /// When the payload expired.
        expiry: Timestamp,
        /// The system clock.
        now: Timestamp,
    },
    /// The payload has expired according to the host on the line.
    ExpiredByLine {
        /// When the payload expired.
        expiry: Timestamp,
        /// The time that the host told.
        told: Timestamp,
    },
    /// No link matches.
    NoSuchLink {
        /// The links that the payload asks for.
        want: String,
        /// The links of this machine.
        have: String,
    },
    /// The payload asks for the link that the machine booted from, and the boot loader did not name it.
    NoBootIf {
        /// The links of this machine.
        have: String,
    },
    /// The network is to be as the kernel command line says, and that says nothing that can be used.
    NoWords {
        /// The words that cannot be used, and why.
        unused: String,
    },
    /// VLANs, bonds and bridges cannot stand on each other as the payload asks.
    Stack(StackError),
    /// Every URL is `line:`, and the payload did not come over a line.
    OnlyLine(Origin),
    /// The payload asks for a bundle, and neither the site pin nor the payload names a signer.
    BundleSigner,
    /// The payload asks for a bundle, and has no URL that uses the network.
    BundleOverLine,
    /// The payload asks for a bundle, and this is not an initramfs.
    BundleInRealRoot,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::OtherMachine { item, want, have } => write!(
                f,
                "the payload is for a machine with {item} {want}, this one has {have}; give this machine its own payload"
            ),
            PlanError::NotThisSite { subject, sha256, file } => write!(
                f,
                "the payload's CA \"{subject}\" (sha256 {}) is not among those of {file}; use a payload of this site, or an \
                 image of the payload's site",
                hex::encode(sha256)
            ),
            PlanError::Signature(error) => error.fmt(f),
            PlanError::NotBound(origin, file) => write!(
                f,
                "the payload from {origin} names no machine, and {file} names signers: a signed payload \
                 must not be good for another node; add bind to the node's record, with macs if the firmware of the machine has \
                 no UUID or serial number of its own, and make the payload again"
            ),
            PlanError::CaValidity { subject, not_before, not_after, composed, expiry } => write!(
                f,
                "the payload's CA \"{subject}\" is valid from {not_before} to {not_after}, the payload from {composed} to \
                 {expiry}: never at the same time; make a payload with a current CA"
            ),
            PlanError::Expired { expiry, now } => write!(
                f,
                "the payload expired at {expiry}, the clock is {now}; make a new payload, or correct the clock; a node \
                 with certificate and key in its payload asks no server for the time"
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
            PlanError::NoWords { unused } => {
                f.write_str(
                    "the payload says that the network is as the kernel command line says, and that has no ip= which can be used; \
                     add ip=dhcp or another form of ip= (imprint.cmdline(7)), or list the links in the node's record",
                )?;
                if unused == "none" { Ok(()) } else { write!(f, "; {unused}") }
            }
            PlanError::Stack(error) => error.fmt(f),
            PlanError::OnlyLine(origin) => write!(
                f,
                "the payload has no URL but line:, and it did not come over a line but from {origin}; add an https URL"
            ),
            PlanError::BundleSigner => f.write_str(
                "the payload asks for a bundle, and nobody can sign one: neither the site pin of this image nor the payload names \
                 a signer; put the line that imprint-host signer prints into the site pin, or make the payload again on a \
                 host that has a signer",
            ),
            PlanError::BundleOverLine => f.write_str(
                "the payload asks for a bundle, which a server brings over the network, and it has no https URL; add a network \
                 to the node's record, and make the payload again",
            ),
            PlanError::BundleInRealRoot => f.write_str(
                "the payload asks for a bundle, which is laid over the root before the system starts, and this is no initramfs; \
                 boot an image with imprint in its initramfs, or leave bundle_key out of the node's record",
            ),
        }
    }
}

impl std::error::Error for PlanError {}
