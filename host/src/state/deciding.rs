//! What administrators decide about callers at the doors: this key is that node, this key is nobody, and whoever calls as this
//! node within a time is let in. Each decision is one transaction with its line in the audit log. Lets nobody in by a rule.

use std::time::Duration;

use imprint::time::Timestamp;

use super::State;
use crate::admission::{Admit, Differs, Level, contradicts, differs};
use crate::code;
use crate::record::Record;
use crate::store::{CallerRow, Changes, Event, Standing, StoreError};

/// A caller that an administrator has let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LetIn {
    /// The node.
    pub node: String,
    /// The code of its line key.
    pub code: String,
    /// Codes of other keys that called as this node: they are denied.
    pub denied: Vec<String>,
}

/// Why a decision about a caller was not made.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// Neither a code nor with a time.
    #[error(
        "{0} is not the code of a line key, like 7K3M-Q0ZT-N4V8-XW1C; imprint-host nodes lists those that wait. To let in \
         whoever calls as a node within a time, give --for 10m"
    )]
    NoCode(String),
    /// No caller has this code.
    #[error(
        "no caller with line key {code} waits{}; a caller is forgotten a day after it called last",
        if .waiting.is_empty() { String::new() } else { format!("; waiting: {}", .waiting.join(", ")) }
    )]
    NotWaiting {
        /// The code.
        code: String,
        /// Codes that wait.
        waiting: Vec<String>,
    },
    /// No record names the caller.
    #[error("no record names the caller with line key {0}; say which node it is: --as NODE")]
    Unknown(String),
    /// Several records name the caller, or several callers with this key say different things.
    #[error("the caller with line key {code} may be {}; say which node it is: --as NODE", .nodes.join(" or "))]
    Several {
        /// The code.
        code: String,
        /// The nodes.
        nodes: Vec<String>,
    },
    /// Two line keys have one code.
    #[error("two line keys have the code {0}: one of them was made to have it. Start the node again for another key")]
    Forged(String),
    /// The caller was let in as another node.
    #[error("line key {code} was let in as {node} already; start the node again for another key")]
    Already {
        /// The code.
        code: String,
        /// The node.
        node: String,
    },
    /// There is no such node.
    #[error("there is no node {0}; imprint-host nodes lists them, node add makes one")]
    NoSuchNode(String),
    /// The record names another machine, so the node would refuse its payload.
    #[error(
        "the record of {node} names another machine: its {what} is {want}, the caller says {have}. If it is the same \
         machine, change bind in the record (imprint-host node add --replace)"
    )]
    Other {
        /// The node.
        node: String,
        /// `serial number`
        what: &'static str,
        /// The record's value.
        want: String,
        /// What the caller says.
        have: String,
    },
    /// The record binds something of the hypervisor, and the caller is behind something else.
    #[error(
        "the record of {node} binds {want}, and the caller calls from {have}. If it is the same machine, change bind in the \
         record (imprint-host node add --replace)"
    )]
    Elsewhere {
        /// The node.
        node: String,
        /// What the record binds.
        want: String,
        /// What the door knows.
        have: String,
    },
    /// A window that would be closed at once.
    #[error("--for {} s opens no window; give a time within which {node} is started, like --for 10m", .within.as_secs())]
    NoTime {
        /// The node.
        node: String,
        /// The time that was given.
        within: Duration,
    },
    /// A window for a node whose record has another rule.
    #[error(
        "the record of {node} says admit = \"{}\", and --for is for admit = \"armed\"; change the record, or admit the node \
         by its code", .admit.word()
    )]
    NotArmed {
        /// The node.
        node: String,
        /// The record's rule.
        admit: Admit,
    },
    /// The record is invalid.
    #[error(transparent)]
    Record(#[from] crate::record::RecordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl State {
    /// An administrator has compared this code with the one on the node's console: it is let in. As the node that the record
    /// or `node` names; what it says is remembered for `admit = "approve-once"`. Other keys that call as the node are
    /// denied.
    pub fn admit(&mut self, text: &str, node: Option<&str>, now: Timestamp) -> Result<LetIn, AdmitError> {
        let code = code::shown(text).ok_or_else(|| AdmitError::NoCode(text.to_owned()))?;
        let changes = self.store.changes()?;
        let callers = changes.callers_of_code(&code, now)?;
        let Some(first) = callers.first() else { return Err(not_waiting(&changes, code, now)?) };
        if callers.iter().any(|row| row.key != first.key) {
            return Err(AdmitError::Forged(code));
        }
        let node = match node {
            Some(node) => node.to_owned(),
            None => only(&code, &callers)?,
        };
        let other = |row: &&CallerRow| row.standing.level().is_some() && row.nodes != [node.as_str()];
        if let Some(row) = callers.iter().find(other) {
            return Err(AdmitError::Already { code, node: row.nodes.join(", ") });
        }
        let Some(row) = changes.node(&node)? else { return Err(AdmitError::NoSuchNode(node)) };
        let record = Record::of_store(&row.file, &row.record, &self.urls)?;
        // Anybody can say HELLO with somebody else's line key. Whoever differs from the record is not the node; the others
        // get what only the holder of the key can open.
        let (callers, others): (Vec<CallerRow>, Vec<CallerRow>) =
            callers.into_iter().partition(|row| fits(&record, &node, row).is_ok());
        let Some(first) = callers.first() else {
            let unfit = others.iter().find_map(|row| fits(&record, &node, row).err());
            return Err(unfit.unwrap_or(AdmitError::Unknown(code)));
        };
        settle(&changes, None, &others, now)?;
        changes.begin_admissions(&node)?;
        changes.let_in(&callers, &node, Level::Approved, now)?;
        let detail = first.as_let_in(Level::Approved);
        changes
            .audit(&Event { event: "admitted", node: Some(&node), peer: Some(&first.from), detail: &detail }, now)?;
        // With several HELLOs of one key somebody else has said one of them: nothing is learnt from any.
        if others.is_empty() && !first.said.is_empty() && callers.iter().all(|row| row.said == first.said) {
            changes.put_said(&node, &first.said, now)?;
        }
        let mut rivals = changes.callers_of_node(&node, now)?;
        // Also one that a rule has let in. One that may be another node as well is not denied for this one.
        rivals.retain(|row| row.key != first.key && row.nodes == [node.as_str()]);
        settle(&changes, Some(&node), &rivals, now)?;
        changes.commit()?;
        let mut denied: Vec<String> = rivals.into_iter().map(|row| row.code).collect();
        denied.dedup();
        Ok(LetIn { node, code, denied })
    }

    /// Opens a window: the first caller that the record of `node` names is let in within this time. The answer: when it closes,
    /// and the codes of the keys that call as the node already.
    pub fn arm(
        &mut self,
        node: &str,
        within: Duration,
        now: Timestamp,
    ) -> Result<(Timestamp, Vec<String>), AdmitError> {
        let changes = self.store.changes()?;
        let Some(row) = changes.node(node)? else { return Err(AdmitError::NoSuchNode(node.to_owned())) };
        let admit = Record::of_store(&row.file, &row.record, &self.urls)?.rule.admit;
        if admit != Admit::Armed {
            return Err(AdmitError::NotArmed { node: node.to_owned(), admit });
        }
        let until = now.plus(within);
        if until <= now {
            return Err(AdmitError::NoTime { node: node.to_owned(), within });
        }
        changes.begin_admissions(node)?;
        changes.open_window(node, now, until)?;
        let detail = format!("whoever calls as {node} first until {until} is let in");
        changes.audit(&Event { event: "armed", node: Some(node), peer: None, detail: &detail }, now)?;
        let waiting = changes.callers_of_node(node, now)?.into_iter();
        let waiting = waiting.filter(|row| row.standing == Standing::Waits).map(|row| row.code).collect();
        changes.commit()?;
        Ok((until, waiting))
    }

    /// Denies callers: those with this code; or all that wait as this node, also as one of several, or were let in as it and have
    /// no certificate yet. A window of the node is closed. The answer: the callers, and whether a window was open; neither is
    /// no error.
    pub fn deny_callers(&mut self, text: &str, now: Timestamp) -> Result<(Vec<CallerRow>, bool), StoreError> {
        let changes = self.store.changes()?;
        let mut callers = match code::shown(text) {
            Some(code) => changes.callers_of_code(&code, now)?,
            None => Vec::new(),
        };
        let (mut closed, mut node) = (false, None);
        if callers.is_empty() {
            node = Some(text);
            callers = changes.callers_of_node(text, now)?;
            closed = changes.window(text)?.is_some_and(|window| now < window.until);
            changes.close_window(text)?;
        }
        if closed {
            let detail = "the window is closed";
            changes.audit(&Event { event: "denied", node: Some(text), peer: None, detail }, now)?;
        }
        callers.retain(|row| row.standing != Standing::Denied);
        settle(&changes, node, &callers, now)?;
        changes.commit()?;
        Ok((callers, closed))
    }
}

/// Denies callers that one decision is about. It is one line of the log: whoever calls often enough would otherwise write it
/// full by the administrator's hand.
fn settle(changes: &Changes<'_>, node: Option<&str>, rows: &[CallerRow], now: Timestamp) -> Result<(), StoreError> {
    let Some(first) = rows.first() else { return Ok(()) };
    for row in rows {
        changes.deny(row, now)?;
    }
    let node = match first.nodes.as_slice() {
        [only] => node.or(Some(only.as_str())),
        _ => node,
    };
    let detail = match rows {
        [row] => format!("line key {}, says {}: {}", row.code, row.said, row.why),
        rows => {
            let codes: Vec<String> = rows.iter().map(|row| row.code.clone()).collect();
            format!("{} callers: line key {}", rows.len(), some(&codes))
        }
    };
    let peer = (rows.len() == 1).then_some(first.from.as_str());
    changes.audit(&Event { event: "denied", node, peer, detail: &detail }, now)
}

/// A list of codes that ends, however many callers there are.
pub fn some(codes: &[String]) -> String {
    let listed: Vec<&str> = codes.iter().take(LISTED).map(String::as_str).collect();
    let more = codes.len().saturating_sub(LISTED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", listed.join(", "))
}

/// Whether what a caller says and what the door knows of it fits the record. The error: what does not fit.
fn fits(record: &Record, node: &str, row: &CallerRow) -> Result<(), AdmitError> {
    let node = node.to_owned();
    if let Some((want, have)) = contradicts(&record.rule.facts, &row.facts) {
        return Err(AdmitError::Elsewhere { node, want: want.to_string(), have: have.to_string() });
    }
    match record.binding.as_ref().and_then(|binding| differs(binding, &row.said)) {
        Some(Differs { what, want, have }) => Err(AdmitError::Other { node, what, want, have }),
        None => Ok(()),
    }
}

/// The one node that all these callers of one key may be.
fn only(code: &str, callers: &[CallerRow]) -> Result<String, AdmitError> {
    let mut nodes: Vec<String> = callers.iter().flat_map(|row| row.nodes.clone()).collect();
    nodes.sort();
    nodes.dedup();
    let known = callers.iter().all(|row| !row.nodes.is_empty());
    match nodes.as_slice() {
        [] => Err(AdmitError::Unknown(code.to_owned())),
        [node] if known => Ok(node.clone()),
        [node] => Err(AdmitError::Several {
            code: code.to_owned(),
            nodes: vec![node.clone(), "a machine that no record names".to_owned()],
        }),
        _ => Err(AdmitError::Several { code: code.to_owned(), nodes }),
    }
}

/// The most codes that a line lists.
pub const LISTED: usize = 5;

fn not_waiting(changes: &Changes<'_>, code: String, now: Timestamp) -> Result<AdmitError, StoreError> {
    let waiting = changes.callers(now)?.into_iter().filter(|row| row.standing == Standing::Waits);
    Ok(AdmitError::NotWaiting { code, waiting: waiting.map(|row| row.code).take(LISTED).collect() })
}
