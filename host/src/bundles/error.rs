//! Why a command about bundles failed, and why a bundle of a node is none: errors and their messages. Decides nothing.

use imprint::bundle;
use imprint::time::Timestamp;

use super::content::ContentError;
use crate::bundle_key::BundleKeyError;
use crate::ca::StateError;
use crate::enrol::EnrolError;
use crate::record::RecordError;
use crate::state;
use crate::store::StoreError;

/// Why a decision about a bundle failed.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// There is no such node.
    #[error("there is no node {0}; imprint-host nodes lists them, node add makes one")]
    NoSuchNode(String),
    /// The record does not switch bundles on.
    #[error(
        "the record of {0} has no bundle_key, so its node asks for no bundle; add bundle_key = \"payload\" and replace the \
         record (node add --replace)"
    )]
    NoBundles(String),
    /// Nothing waits.
    #[error("no bundle of {0} waits; imprint-host bundle list {0} shows all of them")]
    NothingWaits(String),
    /// The node is not to make another bundle.
    #[error("{0} is not asked for another bundle; there is nothing to take back")]
    NotAsked(String),
    /// Another bundle waits.
    #[error("no bundle of {node} with the code {code} waits; the one that waits has the code {waiting}")]
    OtherCode {
        /// The node.
        node: String,
        /// The code that was given.
        code: String,
        /// The code of the bundle that waits.
        waiting: String,
    },
    /// The bundle was denied before.
    #[error(
        "the bundle {code} of {node} was denied at {at} by {by}; a denied bundle cannot be approved: run imprint-host bundle renew \
         {node}, then the node makes another"
    )]
    DeniedBefore {
        /// The node.
        node: String,
        /// The bundle's code.
        code: String,
        /// When it was denied.
        at: Timestamp,
        /// Who denied it.
        by: String,
    },
    /// The bundle is a version already.
    #[error("the bundle {code} of {node} is version {counter} already")]
    ApprovedBefore {
        /// The node.
        node: String,
        /// The bundle's code.
        code: String,
        /// Its version.
        counter: u64,
    },
    /// There is no such version.
    #[error("{node} has no version {counter}; imprint-host bundle list {node} shows those that it has")]
    NoSuchVersion {
        /// The node.
        node: String,
        /// The version.
        counter: u64,
    },
    /// The node has no version.
    #[error("{0} has no bundle; make one with imprint-host bundle make {0}")]
    NoVersion(String),
    /// The node has no version, and one waits.
    #[error("{node} has no version yet, and the bundle {code} waits: imprint-host bundle diff {node} shows it")]
    OnlyWaits {
        /// The node.
        node: String,
        /// Its code.
        code: String,
    },
    /// The version was removed.
    #[error(
        "version {counter} of {node} was removed, and its content is gone; imprint-host bundle list {node} shows others"
    )]
    Removed {
        /// The node.
        node: String,
        /// The version.
        counter: u64,
    },
    /// The version is the current one already.
    #[error("version {counter} of {node} is the current one; there is nothing to roll back")]
    Current {
        /// The node.
        node: String,
        /// The version.
        counter: u64,
    },
    /// The bundle is encrypted for another key than the node has now.
    #[error(
        "{what} of {node} is encrypted for another key ({was}) than the node has now ({is}), and it could not open it; make a new \
         bundle (imprint-host bundle make {node})"
    )]
    KeyChanged {
        /// The node.
        node: String,
        /// `version 3`, `the bundle CODE`
        what: String,
        /// The key then.
        was: String,
        /// The key now.
        is: String,
    },
    /// Nobody knows whom to encrypt for.
    #[error(
        "the key of {node} is on its {source_of}, and the record does not name its recipient: add bundle_recipient = \"age1…\", or \
         give --recipient"
    )]
    NoRecipient {
        /// The node.
        node: String,
        /// `image` or `stick`
        source_of: &'static str,
    },
    /// Nothing to make a bundle of.
    #[error(
        "nothing to make a bundle of; give --from DIR, --from FILE.toml or --age FILE, or write [set] into the record"
    )]
    NoContent,
    /// The content of a bundle.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A bundle waits for a decision.
    #[error(
        "the bundle {code} of {node} waits already; approve or deny it first (imprint-host bundle approve {node} {code})"
    )]
    Waits {
        /// The node.
        node: String,
        /// Its code.
        code: String,
    },
    /// The key of the node.
    #[error(transparent)]
    Key(#[from] BundleKeyError),
    /// A bundle that is stored here cannot be read.
    #[error("reading {what} of {node}")]
    Unreadable {
        /// The node.
        node: String,
        /// `version 3`, `the bundle CODE`
        what: String,
        /// Why not.
        source: Box<BadUpload>,
    },
    /// This host cannot read a bundle.
    #[error(
        "this host cannot read {what} of {node}: it is encrypted for another key ({key}) than those that are here; write the age file with --age \
         FILE, and open it with age -d where the key is"
    )]
    NotReadable {
        /// The node.
        node: String,
        /// `version 3`, `the bundle CODE`
        what: String,
        /// The key.
        key: String,
    },
    /// `--above` names no counter that is new.
    #[error(
        "--above {above}: {node} has version {newest} already, and the next one is above that without --above; leave it out, or give \
         the highest counter that {node} can have been given"
    )]
    NotAbove {
        /// The node.
        node: String,
        /// The counter that was given.
        above: u64,
        /// The newest version.
        newest: u64,
    },
    /// `--above` names a counter far away.
    #[error(
        "--above {above} is more than {most} above version {newest} of {node}, and counters never go back; give a lower number"
    )]
    TooFar {
        /// The node.
        node: String,
        /// The counter that was given.
        above: u64,
        /// The newest version; 0: there is none.
        newest: u64,
        /// The longest step.
        most: u64,
    },
    /// A bundle cannot be made.
    #[error(transparent)]
    Bundle(Box<bundle::BundleError>),
    /// A record is invalid.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The directory, or the key that signs.
    #[error(transparent)]
    Ca(#[from] StateError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BundleError {
    /// For decisions about requests of nodes: a fault of the store or the CA. Other errors are answers; `Err` has them.
    pub(super) fn fault(self) -> Result<EnrolError, BundleError> {
        match self {
            BundleError::Store(error) | BundleError::Key(BundleKeyError::Store(error)) => Ok(EnrolError::Store(error)),
            BundleError::Ca(error) => Ok(EnrolError::Ca(error)),
            BundleError::Record(error) => Ok(EnrolError::Record(error)),
            other => Err(other),
        }
    }
}

/// Why bytes are no bundle of a node. The text goes to the node's console.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadUpload {
    /// It is no bundle that the node's key opens.
    #[error("the upload is no bundle of this node")]
    Bundle(#[source] bundle::BundleError),
    /// It is a bundle of another node.
    #[error("the bundle in the upload names the node {named}, and the certificate {node}; make it for {node}")]
    OtherNode {
        /// The node that the bundle names.
        named: String,
        /// The node of the certificate.
        node: String,
    },
    /// Its counter is higher than that of the next version.
    #[error("the bundle in the upload has the counter {counter}, and the next is {next}; make it with {next}")]
    Counter {
        /// Its counter.
        counter: u64,
        /// The next one.
        next: u64,
    },
    /// The tag is not that of the content.
    #[error("the tag of the upload is not that of its content; make it with the bundle's key (docs/bundle.md)")]
    Tag,
}
