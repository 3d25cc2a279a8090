//! Events for programs: what they are told, stored in the transaction of the decision, so that none is lost. Tells nobody;
//! `serve` does.

use serde::Serialize;

use crate::enrol::Desk;
use crate::store::{AvailableRow, StoreError, Told};

/// The most events of a node that wait for a program. Older ones are dropped: the newest says how it stands.
const KEPT: u32 = 64;

/// What has happened.
pub(super) enum Happened<'a> {
    /// A bundle waits for an administrator.
    Pending {
        /// Its code.
        code: &'a str,
    },
    /// A node has reported.
    Reported(&'a AvailableRow),
}

/// The fields are a published format. `id` comes in when it is sent.
#[derive(Serialize)]
struct Line<'a> {
    version: u8,
    event: &'static str,
    node: &'a str,
    counter: Option<u64>,
    code: Option<&'a str>,
    detail: Option<&'a str>,
    at: String,
}

/// Notes an event for each of these programs.
pub(super) fn add(desk: &Desk<'_>, tell: &[Told], node: &str, what: &Happened<'_>) -> Result<(), StoreError> {
    let (event, counter, code, detail) = match what {
        Happened::Pending { code } => ("pending", None, Some(*code), None),
        Happened::Reported(row) => {
            let event = if row.available { "available" } else { "failed" };
            (event, Some(row.counter), None, row.detail.as_deref())
        }
    };
    let line = crate::json::line(&Line { version: 1, event, node, counter, code, detail, at: desk.now.to_string() });
    tell.iter().try_for_each(|told| desk.changes.add_event(*told, node, &line, KEPT, desk.now))
}

/// The line that a program gets: the stored event with its number.
pub fn numbered(event: &str, id: i64) -> String {
    match serde_json::from_str(event) {
        Ok(serde_json::Value::Object(mut items)) => {
            items.insert("id".to_owned(), id.into());
            crate::json::line(&items)
        }
        // The store holds JSON objects only.
        _ => event.to_owned(),
    }
}
