//! Requests that wait for an administrator: a right token that another key has used. The node shows the code of its key
//! on its console and asks again; whoever compares the code approves it.

use std::fmt;

use imprint::time::Timestamp;

use super::{Refusal, Stop};
use crate::csr::Csr;
use crate::store::{Changes, Event, RequestRow, Store, StoreError, Verdict};

/// The most keys that wait under one name. A node that boots again and again makes a new one each time.
const MOST: usize = 8;

/// Where a request stands.
pub(super) enum Standing {
    /// It may be signed, this once.
    Approved,
    /// Nobody has decided yet.
    Pending {
        /// Whether it has come for the first time.
        first: bool,
    },
}

/// A request came that has to be approved.
pub(super) fn asked(
    changes: &Changes<'_>,
    node: &str,
    csr: &Csr,
    why: &str,
    peer: &str,
    now: Timestamp,
) -> Result<Standing, Stop> {
    let requests = changes.requests(node, now)?;
    let known = requests.iter().find(|row| row.spki_hash == csr.spki_hash());
    match known.and_then(|row| row.verdict.map(|verdict| (row, verdict))) {
        Some((row, Verdict::Approved)) => {
            changes.drop_request(row)?;
            return Ok(Standing::Approved);
        }
        Some((_, Verdict::Denied)) => return Err(Refusal::Denied.into()),
        None => {}
    }
    let waiting = requests.iter().filter(|row| row.verdict.is_none()).count();
    if known.is_none() && waiting >= MOST {
        return Err(Refusal::TooMany(waiting).into());
    }
    changes.put_request(&RequestRow {
        node: node.to_owned(),
        spki_hash: csr.spki_hash(),
        key_code: csr.code().to_string(),
        why: why.to_owned(),
        peer: peer.to_owned(),
        first_at: now,
        last_at: now,
        verdict: None,
    })?;
    Ok(Standing::Pending { first: known.is_none() })
}

/// Whether an administrator has said no to this key.
pub(super) fn is_denied(changes: &Changes<'_>, node: &str, csr: &Csr, now: Timestamp) -> Result<bool, StoreError> {
    let requests = changes.requests(node, now)?;
    Ok(requests.iter().any(|row| row.spki_hash == csr.spki_hash() && row.verdict == Some(Verdict::Denied)))
}

/// Why nothing was decided.
#[derive(Debug)]
pub enum Decided {
    /// No request of that node with that key waits.
    NotWaiting {
        /// The node.
        node: String,
        /// The code that was given; `None`: any.
        code: Option<String>,
        /// What does wait: codes.
        waiting: Vec<String>,
    },
    /// The store.
    Store(StoreError),
}

/// Approves the one request of `node` with the key `code`: it is signed when the node asks again. What else waits under
/// that name is denied, for a node has one key.
pub fn approve(store: &mut Store, node: &str, code: &str, now: Timestamp) -> Result<RequestRow, Decided> {
    let changes = store.changes()?;
    let waiting = waiting(&changes, node, now)?;
    let Some(approved) = waiting.iter().find(|row| plain(&row.key_code) == plain(code)) else {
        let waiting = waiting.into_iter().map(|row| row.key_code).collect();
        return Err(Decided::NotWaiting { node: node.to_owned(), code: Some(code.to_owned()), waiting });
    };
    for row in &waiting {
        let verdict = if row == approved { Verdict::Approved } else { Verdict::Denied };
        settle(&changes, row, verdict, now)?;
    }
    changes.commit()?;
    Ok(approved.clone())
}

/// Denies all that waits under the name of `node`.
pub fn deny(store: &mut Store, node: &str, now: Timestamp) -> Result<Vec<RequestRow>, Decided> {
    let changes = store.changes()?;
    let waiting = waiting(&changes, node, now)?;
    if waiting.is_empty() {
        return Err(Decided::NotWaiting { node: node.to_owned(), code: None, waiting: Vec::new() });
    }
    for row in &waiting {
        settle(&changes, row, Verdict::Denied, now)?;
    }
    changes.commit()?;
    Ok(waiting)
}

fn waiting(changes: &Changes<'_>, node: &str, now: Timestamp) -> Result<Vec<RequestRow>, StoreError> {
    Ok(changes.requests(node, now)?.into_iter().filter(|row| row.verdict.is_none()).collect())
}

fn settle(changes: &Changes<'_>, row: &RequestRow, verdict: Verdict, now: Timestamp) -> Result<(), StoreError> {
    changes.decide(row, verdict)?;
    let event = match verdict {
        Verdict::Approved => "approved",
        Verdict::Denied => "denied",
    };
    let detail = format!("key {}: {}", row.key_code, row.why);
    changes.audit(&Event { event, node: Some(&row.node), peer: Some(&row.peer), detail: &detail }, now)
}

/// A code as people copy it: any case, with or without hyphens, O for 0, I and L for 1 (Crockford's base32).
pub(super) fn plain(code: &str) -> String {
    let letters = code.chars().filter(|c| *c != '-' && !c.is_whitespace()).map(|c| c.to_ascii_uppercase());
    letters
        .map(|c| match c {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect()
}

impl From<StoreError> for Decided {
    fn from(error: StoreError) -> Decided {
        Decided::Store(error)
    }
}

impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decided::NotWaiting { node, code: Some(code), waiting } if !waiting.is_empty() => {
                write!(f, "no request of {node} with key {code} waits; waiting: {}", waiting.join(", "))
            }
            Decided::NotWaiting { node, .. } => {
                write!(f, "no request of {node} waits; a request is forgotten a day after the node last asked")
            }
            Decided::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Decided {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Decided::NotWaiting { .. } => None,
            Decided::Store(error) => error.source(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_as_people_copy_them() {
        for text in ["7K3M-Q0ZT-N4V8-XW1C", "7k3m q0zt n4v8 xw1c", "7K3MQOZTN4V8XWIC", "7k3m-qozt-n4v8-xwlc"] {
            assert_eq!(plain(text), "7K3MQ0ZTN4V8XW1C");
        }
    }
}
