//! How it stands with the bundles of nodes, for `nodes`. Changes nothing.

use std::fmt::Write as _;

use imprint::shown::line;
use serde::Serialize;

use crate::bundle_key;
use crate::state::{Error, State};
use crate::store::{AvailableRow, BundleRow, BundleState};

/// How it stands with a node's bundle.
pub(super) struct Bundle {
    newest: Option<BundleRow>,
    pending: Option<BundleRow>,
    available: Option<AvailableRow>,
    renew: bool,
    /// The newest version is for another key than the record names now.
    other_key: bool,
}

impl Bundle {
    pub(super) fn of(state: &State, node: &str) -> Result<Bundle, Error> {
        let store = &state.store;
        let (newest, pending) = (store.newest_bundle(node)?, store.pending_bundle(node)?);
        let (available, renew) = (store.available(node)?, store.renewal(node)?.is_some());
        // A record that is not understood says nothing about keys.
        let other_key = match (&newest, state.record(node)) {
            (Some(BundleRow { state: BundleState::Approved, .. }), Ok(record)) => {
                bundle_key::current(store, &record)?.is_none()
            }
            _ => false,
        };
        Ok(Bundle { newest, pending, available, renew, other_key })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.newest.is_none() && self.pending.is_none() && !self.renew
    }

    /// The column `bundle` of the table.
    pub(super) fn text(&self) -> String {
        let version = match &self.newest {
            Some(BundleRow { counter: Some(counter), state: BundleState::Approved, .. }) if self.other_key => {
                format!("{counter}, for another key")
            }
            Some(BundleRow { counter: Some(counter), state: BundleState::Approved, .. }) => counter.to_string(),
            Some(BundleRow { counter: Some(counter), .. }) => format!("{counter}, removed"),
            _ => String::new(),
        };
        let more = match (&self.pending, self.renew) {
            (Some(_), _) => "one waits",
            (None, true) => "to be renewed",
            (None, false) => "",
        };
        [version, more.to_owned()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }

    /// The column `available`.
    pub(super) fn available_text(&self) -> String {
        let Some(AvailableRow { counter, available, at, .. }) = &self.available else { return String::new() };
        let word = if *available { "" } else { "failed, " };
        format!("{word}{counter}, {at}")
    }

    /// What is told below the table: a bundle that waits, and a failure.
    pub(super) fn told(&self, node: &str, text: &mut String) {
        if let Some(BundleRow { code, peer, made_at, .. }) = &self.pending {
            let from = peer.as_deref().unwrap_or("here");
            let told = format!(
                "{node} waits for approval: bundle {code} from {from} since {made_at}; imprint-host bundle diff {node}"
            );
            let _ = writeln!(text, "{}", line(&told));
        }
        if let Some(AvailableRow { counter, available: false, detail, at, .. }) = &self.available {
            let why = detail.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            let told = format!("{node} has failed with version {counter} of its bundle at {at}{why}");
            let _ = writeln!(text, "{}", line(&told));
        }
    }
}

/// How it stands with a node's bundle.
#[derive(Serialize)]
pub(super) struct BundleEntry {
    /// The newest version; null: there is none.
    counter: Option<u64>,
    /// Its content was removed.
    removed: bool,
    code: Option<String>,
    /// The code of the bundle that waits.
    pending: Option<String>,
    /// The node is to make another one.
    renew: bool,
    /// The newest version is for another key than the record names now, so the node gets none.
    other_key: bool,
    available: Option<AvailableEntry>,
}

/// What a node has reported last.
#[derive(Serialize)]
struct AvailableEntry {
    state: &'static str,
    counter: u64,
    detail: Option<String>,
    at: String,
}

impl BundleEntry {
    pub(super) fn of(bundle: &Bundle) -> Option<BundleEntry> {
        if bundle.is_empty() {
            return None;
        }
        let newest = bundle.newest.as_ref();
        Some(BundleEntry {
            counter: newest.and_then(|row| row.counter),
            removed: newest.is_some_and(|row| row.state == BundleState::Removed),
            code: newest.map(|row| row.code.clone()),
            pending: bundle.pending.as_ref().map(|row| row.code.clone()),
            renew: bundle.renew,
            other_key: bundle.other_key,
            available: bundle.available.as_ref().map(|row| AvailableEntry {
                state: if row.available { "available" } else { "failed" },
                counter: row.counter,
                detail: row.detail.clone(),
                at: row.at.to_string(),
            }),
        })
    }
}
