//! The errors of sources, in words that say what to do. Reads nothing and decides nothing.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::bundle_key::BundleKeyError;
use super::{CredentialError, EfiVarError, Origin, RootFileError};
use crate::confidential::Confidential;
use crate::line::admission::KeyFileError;
use crate::line::seal::SealError;
use crate::options::CMDLINE_MAX;
use crate::payload::{DecodeError, Form, MAX_LEN};
use crate::pipe::PipeError;
use crate::shown::Printable;
use crate::site::PinError;

/// Why a source gave no payload.
#[derive(Debug)]
pub enum SourceError {
    /// A file of the kernel, the initramfs or the operator cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The file is longer than a payload can be; its form, if the form is known.
    TooLong(PathBuf, Option<Form>),
    /// `imprint.payload=` contains another form than a payload in base64url.
    Form(Form),
    /// The value of `imprint.payload=` is not base64url.
    Base64 {
        /// The number of characters.
        length: usize,
        /// Position, from 1, of the first character outside the alphabet. `None`: all characters are valid, but their
        /// number is not.
        position: Option<usize>,
    },
    /// The kernel command line has its greatest length, and the payload at its end is not complete.
    CmdlineCut,
    /// The payload contains an item that its source may not carry.
    Forbidden {
        /// `a private key`
        item: &'static str,
        /// The place where others can read the item.
        place: &'static str,
    },
    /// The agent cannot wait for devices.
    Watch(io::Error),
    /// A volume with the label IMPRINT or a label that the operator named cannot be read.
    Broken {
        /// Kernel name of the block device.
        device: String,
        /// Volume label.
        label: Printable,
        /// The error of the process that read the drive.
        source: Said,
    },
    /// The medium has a volume that would be used, and a second volume, file system or partition table beside it.
    Claims {
        /// Kernel name of the block device.
        device: String,
        /// `an ISO 9660 volume "IMPRINT"`
        first: Printable,
        /// `a partition table (GPT)`
        second: Printable,
    },
    /// A volume with the label IMPRINT or a label that the operator named has no payload.
    NoFile {
        /// Kernel name of the block device.
        device: String,
        /// Volume label.
        label: Printable,
    },
    /// Two media have different payloads.
    Several {
        /// Device and label of one.
        first: Printable,
        /// Device and label of the other.
        second: Printable,
    },
    /// A credential with one of our names cannot be used.
    Credential {
        /// `imprint.payload`
        name: &'static str,
        /// Where it is.
        place: Printable,
        /// What is wrong with it.
        source: CredentialError,
    },
    /// Two partitions have different payloads.
    SeveralPartitions {
        /// Device and label of one.
        first: Printable,
        /// Device and label of the other.
        second: Printable,
    },
    /// A partition with our type or name has no payload that can be read, or is in a table that cannot be used.
    Partition {
        /// `sda3`, or `table of sda`
        place: Printable,
        /// The error of the process that read the drive.
        source: Said,
    },
    /// The file on the real root cannot be trusted.
    RootFile(RootFileError),
    /// The EFI variable cannot be used.
    EfiVar(EfiVarError),
    /// The person who runs this confidential virtual machine can write the source, and the image has no site pin.
    OfHypervisor {
        /// Where the payload came from.
        origin: Origin,
        /// The kind of machine.
        machine: Confidential,
    },
    /// Whoever runs this confidential virtual machine can read the source, and the payload contains an item that must stay
    /// secret.
    ReadByHypervisor {
        /// `a private key`
        item: &'static str,
        /// Where the payload came from.
        origin: Origin,
        /// The kind of machine.
        machine: Confidential,
    },
    /// Two media of the same rank hold different payloads.
    Differ {
        /// Where one is.
        first: Printable,
        /// Where the other is.
        second: Printable,
    },
    /// A payload is required, and no source has one.
    Nothing {
        /// The sources that were searched, and the result of each.
        looked: String,
        /// Where the operator can bring a payload, according to the options.
        remedy: String,
    },
    /// This line leads to a network, and the image names no signer whose payloads could be told from others.
    NoSigner(String),
    /// The admission key of the image cannot be used.
    AdmissionKey {
        /// The file.
        path: PathBuf,
        /// Why it holds no key.
        why: KeyFileError,
    },
    /// The image's file with the network before a payload cannot be used.
    Network {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A line that was named cannot be used.
    Line(PipeError),
    /// The random pool was not ready, so the node could not make its line key. Payloads on a line are sealed for that
    /// key.
    NoKey,
    /// Making the line key failed.
    Key(SealError),
    /// Standard input of `imprint console` is not a terminal.
    NoTerminal,
    /// The site pin of the image cannot be used.
    Pin(PinError),
    /// A bundle key that a person names, or that of the image, cannot be used.
    BundleKey(BundleKeyError),
}

/// The error message of a drive's reader. The reader had a [`super::medium::VolumeError`]; the pipe carries only its
/// text.
#[derive(Debug)]
pub struct Said(pub Printable);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Said {}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::Read { path, .. } => write!(f, "reading {}", path.display()),
            SourceError::TooLong(path, form) => {
                write!(f, "{} has more than {MAX_LEN} bytes, the most that a payload can have; ", path.display())?;
                match form {
                    Some(form) => write!(f, "it is {form}, or use the output of imprint-host payload NODE --as cbor"),
                    None => f.write_str("give the payload itself, in CBOR"),
                }
            }
            SourceError::Form(form) => write!(
                f,
                "imprint.payload= on the kernel command line is not base64url: it is {form}, or use the output of \
                 imprint-host payload NODE --as cmdline"
            ),
            SourceError::Base64 { length, position: Some(position) } => write!(
                f,
                "imprint.payload= on the kernel command line is not base64url: character {position} of {length} is not \
                 one of A-Z a-z 0-9 - _; copy the output of imprint-host payload NODE --as cmdline"
            ),
            SourceError::Base64 { length, position: None } => write!(
                f,
                "imprint.payload= on the kernel command line is incomplete: {length} characters of base64url end \
                 within a byte; copy it again"
            ),
            SourceError::CmdlineCut => write!(
                f,
                "the kernel command line is full with {CMDLINE_MAX} bytes, and the end of its payload is missing; \
                 remove other words, or bring the payload in the initramfs or on a config drive (imprint-host payload \
                 NODE --as cpio or --as iso)"
            ),
            SourceError::Forbidden { item, place } => write!(
                f,
                "the payload {place} holds {item}; bring it in the initramfs or on a config drive (imprint-host payload \
                 NODE --as cpio or --as iso)"
            ),
            SourceError::Watch(_) => write!(f, "waiting for devices (uevent socket)"),
            SourceError::NoSigner(source) => write!(
                f,
                "imprint.source={source} leads to a network, where anybody can answer, so its payloads have to be signed, and the \
                 site pin of this image names no signer; put the line that imprint-host signer prints into /imprint/site"
            ),
            SourceError::AdmissionKey { path, why } => write!(f, "admission key {}: {why}", path.display()),
            SourceError::Network { path, .. } => write!(
                f,
                "{}, the network over which a door is called at; make it anew with imprint-host network",
                path.display()
            ),
            SourceError::Line(error) => error.fmt(f),
            SourceError::NoKey => write!(
                f,
                "the kernel's random pool was not ready, so there is no key for a sealed payload; give the machine a \
                 virtio-rng device"
            ),
            SourceError::Key(error) => error.fmt(f),
            SourceError::NoTerminal => {
                write!(f, "standard input is not a terminal; run imprint console by hand, on the console of the node")
            }
            SourceError::Broken { device, label, .. } => write!(f, "volume \"{label}\" on {device}"),
            SourceError::Claims { device, first, second } => write!(
                f,
                "{device} has {first} and {second}, one of which is left from an earlier use; save the data that you \
                 need, clear the drive with wipefs -a /dev/{device}, and write the config drive again"
            ),
            SourceError::NoFile { device, label } => write!(
                f,
                "volume \"{label}\" on {device} has no file imprint/payload; write it with imprint-host payload NODE \
                 --as iso"
            ),
            SourceError::Several { first, second } => write!(
                f,
                "two different payloads: on {first} and on {second}; remove one, or give them different labels and name \
                 one with imprint.source=config-drive:LABEL"
            ),
            SourceError::Credential { name, place, .. } => write!(f, "credential {name} ({place})"),
            SourceError::SeveralPartitions { first, second } => {
                write!(
                    f,
                    "two different payloads: in partition {first} and in partition {second}; clear the beginning of one with \
                     zeros"
                )
            }
            SourceError::Partition { place, .. } => write!(f, "partition {place}"),
            SourceError::RootFile(error) => error.fmt(f),
            SourceError::EfiVar(error) => error.fmt(f),
            SourceError::OfHypervisor { origin, machine } => write!(
                f,
                "this is a confidential virtual machine ({machine}); whoever runs it could have written the payload \
                 ({origin}), and this image has no site pin; use an image with a site pin, or bring the payload in the \
                 initramfs"
            ),
            SourceError::ReadByHypervisor { item, origin, machine } => write!(
                f,
                "this is a confidential virtual machine ({machine}), whoever runs it can read the payload ({origin}), and the \
                 payload holds {item}; have the node make its key, with a token that is good once, and have it take the key of \
                 its bundles from the image, or bring the payload on an encrypted root (/etc/imprint/payload)"
            ),
            SourceError::Differ { first, second } => {
                write!(f, "two different payloads: one from {first}, one from {second}; remove one")
            }
            SourceError::Nothing { looked, remedy } => write!(f, "no payload found ({looked}); {remedy}"),
            SourceError::Pin(error) => error.fmt(f),
            SourceError::BundleKey(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SourceError::Read { source, .. } | SourceError::Watch(source) => Some(source),
            SourceError::Broken { source, .. } | SourceError::Partition { source, .. } => Some(source),
            SourceError::Credential { source, .. } => Some(source),
            SourceError::Network { source, .. } => Some(source),
            SourceError::Line(error) => error.source(),
            SourceError::Key(error) => error.source(),
            SourceError::Pin(error) => error.source(),
            SourceError::BundleKey(error) => error.source(),
            SourceError::RootFile(error) => error.source(),
            SourceError::EfiVar(error) => error.source(),
            _ => None,
        }
    }
}
