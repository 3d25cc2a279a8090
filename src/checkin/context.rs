//! What a check-in is told, what it may ask for, and what it reports to a console. Types only: nothing here acts.

use std::time::Duration;

use super::error::Attempt;
use crate::dialogue::Dialogue;
use crate::identity::Identity;
use crate::key_code::KeyCode;
use crate::payload::{EstUrl, NodeName};
use crate::plan::{ClockPlan, Server};
use crate::time::{Deadline, Timestamp};
use crate::tls::ClientCertificate;

/// What the check-in may ask of the privileged half, by value. Exactly these things are possible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Set the system clock and the real-time clock to this time. The time is right to within a second, and confirmed:
    /// a server whose certificate is valid at that time told it.
    SetClock(Timestamp),
    /// No server can be reached over the present network: bring up one more link or address, and wait for it until this
    /// deadline.
    NextLink(Deadline),
    /// Renew the leases that are due, and restore addresses that are gone, until this deadline.
    RenewLease(Deadline),
}

/// What became of an [`Ask`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// It was done, and something may have changed.
    Done,
    /// There is nothing more of that kind, or it did not come in time.
    NothingMore,
}

/// An event of the check-in, for a console.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A server said what time it is, and the time is credible.
    Clock {
        /// URL and address of the server.
        server: &'a str,
        /// Its Date.
        date: Timestamp,
    },
    /// A server holds the request until an administrator approves it. Reported once for each server.
    Approval {
        /// The server's URL.
        url: &'a EstUrl,
        /// The node that asks.
        node: &'a NodeName,
        /// The code that console and administrator compare.
        code: KeyCode,
    },
    /// No server has given a certificate yet. Reported when something changed, and every minute.
    Waiting {
        /// The most telling failure of each URL.
        attempts: &'a [&'a Attempt],
        /// The wait until the next try.
        delay: Duration,
    },
}

/// `key 7K3M-Q0ZT-N4V8-XW1C waits for approval at https://…; compare …: imprint-host approve node1 7K3M-Q0ZT-N4V8-XW1C`
impl std::fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Progress::Clock { server, date } => write!(f, "clock: {date} by {server}"),
            Progress::Approval { url, node, code } => write!(
                f,
                "key {code} waits for approval at {url}; compare the code there and run: imprint-host approve {node} \
                 {code}"
            ),
            Progress::Waiting { attempts, delay } => {
                for attempt in *attempts {
                    write!(f, "{attempt}; ")?;
                }
                write!(f, "trying again in {:.1} s", delay.as_secs_f64())
            }
        }
    }
}

/// What a check-in needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The servers to ask, and the CA to trust.
    pub server: &'a Server,
    /// What is known about the time of day.
    pub clock: &'a ClockPlan,
    /// Key and CSR.
    pub identity: &'a Identity,
    /// The certificate that is to be renewed, with its key; `None`: this is the first certificate.
    pub renews: Option<&'a ClientCertificate>,
    /// User-Agent header field.
    pub user_agent: &'a str,
    /// How long an administrator may take to approve a first certificate, from the first 202 on; `None`: for ever. A
    /// renewal has until its deadline.
    pub approval_timeout: Option<Duration>,
    /// The line that the payload came on, for the URL `line:`.
    pub line: Option<Line<'a>>,
}

/// A line to a host that signs.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    /// The conversation.
    pub dialogue: &'a Dialogue,
    /// The request that is sent on it: the CSR with its proof.
    pub request: &'a [u8],
}

impl std::fmt::Debug for Line<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}
