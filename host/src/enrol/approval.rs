//! Requests that wait for an administrator: a right token that another key has used. The node shows the code of its key
//! on its console and asks again; whoever compares the code approves it.

use std::time::Duration;

use imprint::time::Timestamp;

use super::{Refusal, Stop};
use crate::csr::Csr;
use crate::origin;
use crate::store::{Changes, Event, PayloadRow, RequestRow, Store, StoreError, Verdict};

/// The most keys that wait with one payload. A node that boots again and again makes a new one each time.
const MOST: usize = 8;

/// A node that waits asks every few seconds. One that has been silent for so long gives its place to another key.
const SILENT: Duration = Duration::from_secs(60);

/// When a node last asked is noted no more often than this.
const NOTED: Duration = Duration::from_secs(10);

/// So long after a denial no other key takes a place with the same payload.
const BARRED: Duration = Duration::from_secs(3600);

/// Where a request stands.
pub(super) enum Standing {
    /// It may be signed, this once.
    Approved,
    /// Nobody has decided yet.
    Pending {
        /// Whether it has come for the first time.
        first: bool,
    },
    /// Others wait, and have as much of a right to.
    Crowded {
        /// How many.
        waiting: usize,
        /// When to ask again.
        after: Duration,
    },
}

/// A request came that has to be approved.
pub(super) fn asked(
    changes: &Changes<'_>,
    node: &str,
    payload: &PayloadRow,
    csr: &Csr,
    why: &str,
    peer: &str,
    now: Timestamp,
) -> Result<Standing, Stop> {
    changes.forget_requests(now)?;
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
    if let Some(row) = known
        && row.peer == peer
        && row.payload == Some(payload.id)
        && row.last_at <= now
        && now < row.last_at.plus(NOTED)
    {
        return Ok(Standing::Pending { first: false });
    }
    if known.is_none() {
        if payload.denied_at.is_some_and(|at| at <= now && now < at.plus(BARRED)) {
            return Err(Refusal::Denied.into());
        }
        let waiting: Vec<&RequestRow> =
            requests.iter().filter(|row| row.verdict.is_none() && row.payload == Some(payload.id)).collect();
        match place(&waiting, peer, now) {
            Place::Free => {}
            Place::Of(row) => changes.drop_request(row)?,
            Place::None => return Ok(Standing::Crowded { waiting: waiting.len(), after: SILENT }),
        }
    }
    changes.put_request(&RequestRow {
        node: node.to_owned(),
        payload: Some(payload.id),
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

/// Where another key may wait.
#[derive(PartialEq, Eq, Debug)]
enum Place<'a> {
    /// There is room.
    Free,
    /// In the place of this one. If it still waits, it comes again and is listed again.
    Of(&'a RequestRow),
    /// Nowhere.
    None,
}

/// Places are shared out by address: whoever fills them all from one gives one up to each other address that comes, so
/// that the node is listed. Within one address a key that has gone silent gives way.
fn place<'a>(waiting: &[&'a RequestRow], peer: &str, now: Timestamp) -> Place<'a> {
    if waiting.len() < MOST {
        return Place::Free;
    }
    let of = |from: &str| waiting.iter().filter(|row| origin::of(&row.peer) == from).count();
    let most = waiting.iter().map(|row| of(&origin::of(&row.peer))).max().unwrap_or_default();
    let fullest = waiting.iter().filter(|row| of(&origin::of(&row.peer)) == most);
    let Some(longest_silent) = fullest.min_by_key(|row| row.last_at) else { return Place::None };
    let gives_way = of(&origin::of(peer)) < most || longest_silent.last_at.plus(SILENT) <= now;
    if gives_way { Place::Of(longest_silent) } else { Place::None }
}

/// Whether an administrator has said no to this key.
pub(super) fn is_denied(changes: &Changes<'_>, node: &str, csr: &Csr, now: Timestamp) -> Result<bool, StoreError> {
    let requests = changes.requests(node, now)?;
    Ok(requests.iter().any(|row| row.spki_hash == csr.spki_hash() && row.verdict == Some(Verdict::Denied)))
}

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum Decided {
    /// No request of that node with that key waits.
    #[error("{}", not_waiting(.node, .code.as_deref(), .waiting))]
    NotWaiting {
        /// The node.
        node: String,
        /// The code that was given; `None`: any.
        code: Option<String>,
        /// What does wait: codes.
        waiting: Vec<String>,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Approves the one request of `node` with the key `code`: it is signed when the node asks again. What else waits under
/// that name is denied, and what was approved before and has not come for its certificate, for a node has one key.
pub fn approve(store: &mut Store, node: &str, code: &str, now: Timestamp) -> Result<RequestRow, Decided> {
    let changes = store.changes()?;
    let open = changes.open_requests(node, now)?;
    let waiting = || open.iter().filter(|row| row.verdict.is_none());
    let Some(approved) = waiting().find(|row| plain(&row.key_code) == plain(code)) else {
        let waiting = waiting().map(|row| row.key_code.clone()).collect();
        return Err(Decided::NotWaiting { node: node.to_owned(), code: Some(code.to_owned()), waiting });
    };
    for row in &open {
        let verdict = if row == approved { Verdict::Approved } else { Verdict::Denied };
        settle(&changes, row, verdict, now)?;
    }
    changes.commit()?;
    Ok(approved.clone())
}

/// Denies all that waits under the name of `node`, and what was approved and has not come for its certificate. Other keys
/// do not take the places at once.
pub fn deny(store: &mut Store, node: &str, now: Timestamp) -> Result<Vec<RequestRow>, Decided> {
    let changes = store.changes()?;
    let open = changes.open_requests(node, now)?;
    if open.is_empty() {
        return Err(Decided::NotWaiting { node: node.to_owned(), code: None, waiting: Vec::new() });
    }
    for row in &open {
        settle(&changes, row, Verdict::Denied, now)?;
        if let Some(payload) = row.payload {
            changes.deny_payload(payload, now)?;
        }
    }
    changes.commit()?;
    Ok(open)
}

/// Denies what is open of one key, or of all. How many there were.
pub(super) fn deny_of_key(
    changes: &Changes<'_>,
    node: &str,
    code: Option<&str>,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let mut open = changes.open_requests(node, now)?;
    open.retain(|row| code.is_none_or(|code| plain(code) == plain(&row.key_code)));
    for row in &open {
        settle(changes, row, Verdict::Denied, now)?;
    }
    Ok(open.len())
}

/// `peer` in the log is the node that asked; who decided stands beside it.
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

fn not_waiting(node: &str, code: Option<&str>, waiting: &[String]) -> String {
    match code {
        Some(code) if !waiting.is_empty() => {
            format!("no request of {node} with key {code} waits; waiting: {}", waiting.join(", "))
        }
        _ => format!("no request of {node} waits; a request is forgotten a day after the node last asked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(peer: &str, number: u8, last_at: u64) -> RequestRow {
        let at = Timestamp::from_secs(last_at);
        let (node, why, peer) = ("node1".to_owned(), String::new(), peer.to_owned());
        let (key_code, spki_hash, payload) = (number.to_string(), [number; 32], None);
        RequestRow { node, payload, spki_hash, key_code, why, peer, first_at: at, last_at: at, verdict: None }
    }

    /// Who fills all places keeps out neither another address nor, once it is silent, its own.
    #[test]
    fn places_are_shared_out_by_address() {
        let now = Timestamp::from_secs(1000);
        let rows: Vec<RequestRow> = (0..8).map(|number| row("2001:db8::1", number, 990 + u64::from(number))).collect();
        let all: Vec<&RequestRow> = rows.iter().collect();
        assert_eq!(place(&all[..7], "2001:db8::2", now), Place::Free);
        assert_eq!(place(&all, "2001:db8::2", now), Place::None, "the same network");
        assert_eq!(place(&all, "2001:db8:0:1::2", now), Place::Of(&rows[0]));
        assert_eq!(place(&all, "2001:db8::2", Timestamp::from_secs(1050)), Place::Of(&rows[0]), "silent for a minute");
        // As many addresses as places: each that comes is listed nevertheless.
        let rows: Vec<RequestRow> = (0..8).map(|number| row(&format!("192.0.2.{number}"), number, 990)).collect();
        let all: Vec<&RequestRow> = rows.iter().collect();
        assert_eq!(place(&all, "192.0.2.99", now), Place::Of(&rows[0]));
        assert_eq!(place(&all, "192.0.2.3", now), Place::None);
    }

    #[test]
    fn codes_as_people_copy_them() {
        for text in ["7K3M-Q0ZT-N4V8-XW1C", "7k3m q0zt n4v8 xw1c", "7K3MQOZTN4V8XWIC", "7k3m-qozt-n4v8-xwlc"] {
            assert_eq!(plain(text), "7K3MQ0ZTN4V8XW1C");
        }
    }
}
