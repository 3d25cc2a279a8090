//! Why a stateless node has no bundle, in words for an operator at the console. Never acts on an error.

use std::fmt;
use std::time::Duration;

use crate::bundle::BundleError;
use crate::bundle::answer::{Stand, Standing};
use crate::chain::chain;
use crate::checkin::AskError;
use crate::netlink::RequestError;
use crate::payload::NodeName;
use crate::retrieval::RetrievalError;
use crate::setup::SetupError;
use crate::shown::Printable;
use crate::source::bundle_key::BundleKeyError;

/// Why there is no bundle.
#[derive(Debug)]
pub enum StatelessError {
    /// The key that opens bundles was not found.
    Key(BundleKeyError),
    /// The node's certificate cannot be shown to the configuration server.
    Client(rustls::Error),
    /// The configuration server could not be asked.
    Retrieval(RetrievalError),
    /// The bundle that the server has is refused.
    Refused {
        /// The server's base URL for bundles.
        url: String,
        /// Why.
        source: BundleError,
    },
    /// The settings make no bundle.
    Make(BundleError),
    /// The links of the machine cannot be listed, for the dialogue.
    Links(RequestError),
    /// Nobody has answered the questions.
    Setup(SetupError),
    /// Another upload waits for the administrator.
    Occupied(Box<Standing>),
    /// An administrator has denied the bundle.
    Denied {
        /// This node.
        node: NodeName,
        /// The bundle's code.
        code: Printable,
        /// What an administrator can do, in the server's words.
        who: Option<Printable>,
    },
    /// No administrator has approved the bundle in time.
    NotApproved {
        /// This node.
        node: NodeName,
        /// The bundle's code.
        code: Printable,
        /// How long the node waited.
        waited: Duration,
    },
    /// The bundle that waited is gone.
    Withdrawn(Stand),
    /// The server gives another bundle than the one that was uploaded, and an older one.
    Another {
        /// The counter of the one that came.
        counter: u64,
        /// The least counter that the upload can have.
        next: u64,
    },
    /// The network could not be kept while the node waited.
    Ask(AskError),
}

impl StatelessError {
    pub(super) fn denied(node: &NodeName, stands: &Standing) -> StatelessError {
        let who = stands.who.as_deref().map(Printable::of);
        StatelessError::Denied { node: node.clone(), code: code(stands), who }
    }

    pub(super) fn not_approved(node: &NodeName, stands: &Standing, waited: Duration) -> StatelessError {
        StatelessError::NotApproved { node: node.clone(), code: code(stands), waited }
    }
}

fn code(stands: &Standing) -> Printable {
    stands.code.as_deref().map_or("of this node".into(), Printable::of)
}

impl fmt::Display for StatelessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatelessError::Key(error) => error.fmt(f),
            StatelessError::Client(_) => {
                f.write_str("the node's new certificate cannot be shown to the configuration server")
            }
            StatelessError::Retrieval(error) => error.fmt(f),
            StatelessError::Refused { url, source } => write!(f, "the bundle from {url} is refused: {}", chain(source)),
            StatelessError::Make(error) => write!(f, "no bundle can be made of the settings: {}", chain(error)),
            StatelessError::Links(_) => f.write_str("listing the links of this machine"),
            StatelessError::Setup(error) => error.fmt(f),
            StatelessError::Occupied(stands) => {
                write!(f, "another bundle, {}, waits for approval, so this one was not taken; ", code(stands))?;
                match &stands.who {
                    Some(who) => write!(f, "{}", Printable::of(who))?,
                    None => f.write_str("have it approved or denied")?,
                }
                f.write_str("; then boot again or run imprint console")
            }
            StatelessError::Denied { node, code, who } => {
                write!(
                    f,
                    "the bundle {code} was denied; correct the settings (imprint.set. on the kernel command line, or the dialogue), \
                     or run imprint-host bundle make {node} --from FILE.toml"
                )?;
                who.iter().try_for_each(|who| write!(f, ", or {who}"))?;
                f.write_str("; then boot again or run imprint console")
            }
            StatelessError::NotApproved { node, code, waited } => write!(
                f,
                "nobody approved the bundle {code} within {} s; run imprint-host bundle approve {node} {code}, then boot again, \
                 or allow more time with imprint.approval-timeout",
                waited.as_secs()
            ),
            StatelessError::Withdrawn(stand) => {
                f.write_str("the bundle that waited for approval is not there any more")?;
                f.write_str(match stand {
                    Stand::Renew => ": this node was told to make a new one; boot again, or run imprint console",
                    _ => "; see imprint-host log, then boot again or run imprint console",
                })
            }
            StatelessError::Another { counter, next } => write!(
                f,
                "the configuration server answers with bundle number {counter}, but the one that was uploaded is number {next} or \
                 later; see imprint-host bundle list there"
            ),
            StatelessError::Ask(_) => f.write_str("keeping the network while the bundle waits"),
        }
    }
}

impl std::error::Error for StatelessError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Display shows these errors themselves, so their sources are the next causes.
            StatelessError::Key(error) => error.source(),
            StatelessError::Retrieval(error) => error.source(),
            StatelessError::Setup(error) => error.source(),
            StatelessError::Client(error) => Some(error),
            StatelessError::Links(error) => Some(error),
            StatelessError::Ask(error) => Some(error),
            StatelessError::Refused { .. }
            | StatelessError::Make(_)
            | StatelessError::Occupied(_)
            | StatelessError::Denied { .. }
            | StatelessError::NotApproved { .. }
            | StatelessError::Withdrawn(_)
            | StatelessError::Another { .. } => None,
        }
    }
}
