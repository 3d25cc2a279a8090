//! Requests that wait for an administrator: the token is right, but another key has used it already. The node shows its
//! key's code on its console and asks again; the administrator compares the code and approves. Signs nothing.

use std::time::Duration;

use imprint::time::Timestamp;

use super::{Refusal, Stop};
use crate::code::plain;
use crate::csr::Csr;
use crate::origin;
use crate::store::{Changes, Event, PayloadRow, RequestRow, Store, StoreError, Verdict};

/// The most keys that wait with one payload. A node in a boot loop makes a new key at each boot.
const MOST: usize = 8;

/// A waiting node asks every few seconds. A key that was silent for this long loses its place to another key.
const SILENT: Duration = Duration::from_secs(60);

/// The time of a node's last request is stored at most this often.
const NOTED: Duration = Duration::from_secs(10);

/// For this long after a denial, no new key can wait with the same payload.
const BARRED: Duration = Duration::from_secs(3600);

/// The state of a request.
pub(super) enum Standing {
    /// An administrator approved it. It may be signed once.
    Approved,
    /// Nobody has decided yet.
    Pending {
        /// Whether this is its first arrival.
        first: bool,
    },
    /// All places are taken by other keys.
    Crowded {
        /// How many keys wait.
        waiting: usize,
        /// When to ask again.
        after: Duration,
    },
}

/// Records a request that has to be approved, and answers with its state.
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

/// The place for a key that would wait.
#[derive(PartialEq, Eq, Debug)]
enum Place<'a> {
    /// A place is free.
    Free,
    /// Replaces this request. If its node still waits, it asks again and is listed again.
    Of(&'a RequestRow),
    /// No place.
    None,
}

/// Shares the places out by address. An address that fills all places loses one to each other address that asks, so that an
/// attacker cannot keep the real node off the list. Within one address, a silent key loses its place.
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

/// Whether an administrator has denied this key.
pub(super) fn is_denied(changes: &Changes<'_>, node: &str, csr: &Csr, now: Timestamp) -> Result<bool, StoreError> {
    let requests = changes.requests(node, now)?;
    Ok(requests.iter().any(|row| row.spki_hash == csr.spki_hash() && row.verdict == Some(Verdict::Denied)))
}

/// Why `approve` or `deny` failed.
#[derive(Debug, thiserror::Error)]
pub enum Decided {
    /// No request of this node with this key waits.
    #[error("{}", not_waiting(.node, .code.as_deref(), .waiting))]
    NotWaiting {
        /// The node.
        node: String,
        /// The code that was given; `None`: any key.
        code: Option<String>,
        /// Codes of the keys that wait.
        waiting: Vec<String>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Approves the request of `node` with the key `code`: it is signed when the node asks again. A node has one key, so all
/// its other open requests are denied: those that wait, and those that were approved and not signed yet.
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

/// Denies all open requests of `node`: those that wait, and those that were approved and not signed yet. For an hour, no
/// other keys can take their places.
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

/// Denies the open requests of one key, or of all keys. The answer: how many there were.
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

/// Stores the verdict and a line in the audit log. The line's `peer` is the node's address; its `actor` is the
/// administrator.
fn settle(changes: &Changes<'_>, row: &RequestRow, verdict: Verdict, now: Timestamp) -> Result<(), StoreError> {
    changes.decide(row, verdict)?;
    let event = match verdict {
        Verdict::Approved => "approved",
        Verdict::Denied => "denied",
    };
    let detail = format!("key {}: {}", row.key_code, row.why);
    changes.audit(&Event { event, node: Some(&row.node), peer: Some(&row.peer), detail: &detail }, now)
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

    /// Attack: one address fills all places. Other addresses still get one; so does its own address once a key is silent.
    #[test]
    fn places_are_shared_out_by_address() {
        let now = Timestamp::from_secs(1000);
        let rows: Vec<RequestRow> = (0..8).map(|number| row("2001:db8::1", number, 990 + u64::from(number))).collect();
        let all: Vec<&RequestRow> = rows.iter().collect();
        assert_eq!(place(&all[..7], "2001:db8::2", now), Place::Free);
        assert_eq!(place(&all, "2001:db8::2", now), Place::None, "the same network");
        assert_eq!(place(&all, "2001:db8:0:1::2", now), Place::Of(&rows[0]));
        assert_eq!(place(&all, "2001:db8::2", Timestamp::from_secs(1050)), Place::Of(&rows[0]), "silent for a minute");
        // As many addresses as places: a new address is still listed.
        let rows: Vec<RequestRow> = (0..8).map(|number| row(&format!("192.0.2.{number}"), number, 990)).collect();
        let all: Vec<&RequestRow> = rows.iter().collect();
        assert_eq!(place(&all, "192.0.2.99", now), Place::Of(&rows[0]));
        assert_eq!(place(&all, "192.0.2.3", now), Place::None);
    }
}
