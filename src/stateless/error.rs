//! Why a stateless node has no bundle, in words for an operator at the console. Never acts on an error.

use std::fmt;
use std::time::Duration;

use super::told::{FOREIGN, Named};
use crate::bundle::BundleError;
use crate::bundle::answer::{Stand, Standing};
use crate::chain::chain;
use crate::checkin::AskError;
use crate::key_code::KeyCode;
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
    Occupied {
        /// This node.
        node: NodeName,
        /// The other one's code, as the server says.
        code: Printable,
        /// What an administrator can do, in the server's words.
        who: Option<Printable>,
    },
    /// An administrator has denied the bundle.
    Denied {
        /// This node.
        node: NodeName,
        /// The bundle.
        named: Named,
        /// What an administrator can do, in the server's words.
        who: Option<Printable>,
    },
    /// No administrator has approved the bundle in time.
    NotApproved {
        /// This node.
        node: NodeName,
        /// The bundle.
        named: Named,
        /// How long the node waited.
        waited: Duration,
    },
    /// The bundle that waited is gone.
    Withdrawn(Stand),
    /// The server gives another bundle than the one that was uploaded, and an older one.
    Another {
        /// The counter of the one that came.
        counter: u64,
        /// The least counter that it can have, by what the server has told and shown.
        next: u64,
    },
    /// The network could not be kept while the node waited.
    Ask(AskError),
}

impl StatelessError {
    pub(super) fn denied(node: &NodeName, stands: &Standing, own: Option<&KeyCode>) -> StatelessError {
        let who = stands.who.as_deref().map(Printable::of);
        StatelessError::Denied { node: node.clone(), named: Named::of(stands, own), who }
    }

    pub(super) fn occupied(node: &NodeName, stands: &Standing) -> StatelessError {
        let code = stands.code.as_deref().map_or("CODE".into(), Printable::of);
        StatelessError::Occupied { node: node.clone(), code, who: stands.who.as_deref().map(Printable::of) }
    }
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
            StatelessError::Occupied { node, code, who } => {
                write!(f, "another bundle, {code}, waits for approval, so this one was not taken; ")?;
                match who {
                    Some(who) => write!(f, "{who}")?,
                    None => write!(
                        f,
                        "look at it there (imprint-host bundle diff {node}), and run: imprint-host bundle deny {node} {code}, or \
                         approve {node} {code}"
                    )?,
                }
                f.write_str("; then boot again or run imprint console")
            }
            StatelessError::Denied { node, named: Named { code, own }, who } => {
                let says = if *own { "" } else { "the server says that " };
                write!(
                    f,
                    "{says}the bundle {code} was denied; correct the settings (imprint.set. on the kernel command line, or the \
                     dialogue), or run imprint-host bundle make {node} --from FILE.toml"
                )?;
                who.iter().try_for_each(|who| write!(f, ", or {who}"))?;
                f.write_str("; then boot again or run imprint console")
            }
            StatelessError::NotApproved { node, named: Named { code, own }, waited } => {
                write!(
                    f,
                    "nobody approved the bundle {code} within {} s; run imprint-host bundle approve {node} {code}, then boot again, \
                     or allow more time with imprint.approval-timeout",
                    waited.as_secs()
                )?;
                if *own { Ok(()) } else { write!(f, "; the code is what the server says, {FOREIGN}") }
            }
            StatelessError::Withdrawn(stand) => {
                f.write_str("the bundle that waited for approval is not there any more")?;
                f.write_str(match stand {
                    Stand::Renew => ": this node was told to make a new one; boot again, or run imprint console",
                    _ => "; see imprint-host log, then boot again or run imprint console",
                })
            }
            StatelessError::Another { counter, next } => write!(
                f,
                "the configuration server answers with bundle number {counter}, which is not the one that was uploaded, and by \
                 what it has told before a later one is number {next} or more; see imprint-host bundle list there"
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
            | StatelessError::Occupied { .. }
            | StatelessError::Denied { .. }
            | StatelessError::NotApproved { .. }
            | StatelessError::Withdrawn(_)
            | StatelessError::Another { .. } => None,
        }
    }
}
