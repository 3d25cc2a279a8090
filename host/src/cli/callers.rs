//! `imprint-host nodes`, `admit` and `deny`: who calls, who waits, and what an administrator says to that. `state` stores the
//! decisions, and `serve` acts on them within a second.

use std::time::Duration;

use imprint::shown::line;
use imprint::time::Timestamp;

use super::published::{Admitted, Armed, Denied};
use super::{Cli, CliError, decided, say};
use crate::code;
use crate::enrol::{self, Decided};
use crate::list;
use crate::state::{self, AdmitError, LetIn, State};
use crate::store::CallerRow;

pub(super) fn nodes(cli: &Cli, door: bool, now: Timestamp) -> Result<(), CliError> {
    let read = |state: &mut State| Ok((list::nodes(state, now)?, list::callers(state, now)?));
    let (nodes, callers) = decided(cli, read)?;
    match (cli.json, door) {
        (true, true) => say::json(&list::callers_json(&callers)),
        (true, false) => say::json(&list::nodes_json(&nodes)),
        (false, true) => say::text(&list::callers_text(&callers)),
        (false, false) => {
            let waiting = if callers.is_empty() { String::new() } else { list::callers_text(&callers) };
            say::text(&format!("{}{waiting}", list::nodes_table(&nodes)))
        }
    }
}

pub(super) fn admit(cli: &Cli, code: &str, node: Option<&str>, now: Timestamp) -> Result<(), CliError> {
    let LetIn { node, code, denied } = decided(cli, |state| state.admit(code, node, now).map_err(failed))?;
    let others = match denied.as_slice() {
        [] => String::new(),
        denied => format!(", and denied line key {}, which called as {node}, too", state::some(denied)),
    };
    say::either(
        cli,
        &Admitted { node: &node, admitted: &code, denied: &denied },
        &format!("admitted line key {code} as {node}{others}\n"),
    )
}

pub(super) fn arm(cli: &Cli, node: &str, within: Duration, now: Timestamp) -> Result<(), CliError> {
    let (until, waiting) = decided(cli, |state| state.arm(node, within, now).map_err(failed))?;
    let shown = line(node);
    let others = match waiting.as_slice() {
        [] => String::new(),
        codes => format!(
            "line key {} calls as {shown} already: the window is not for it, and stays shut while it calls. Compare the code \
             with the node's console, then imprint-host admit or deny {}\n",
            state::some(codes),
            codes.first().map_or("", String::as_str)
        ),
    };
    say::either(
        cli,
        &Armed { node, until: until.to_string(), waiting: &waiting },
        &format!("the first that calls as {shown} until {until} is let in\n{others}"),
    )
}

/// Denies requests for certificates and callers at doors alike: for the administrator they are one node.
pub(super) fn deny(cli: &Cli, text: &str, now: Timestamp) -> Result<(), CliError> {
    let Done { node, codes, callers, closed } = decided(cli, |state| denied(state, text, now))?;
    let shown = state::some(&codes);
    let codes: Vec<&str> = codes.iter().map(String::as_str).collect();
    let whom = node.as_deref().map(line).unwrap_or_default();
    let mut words = String::new();
    if !codes.is_empty() {
        let between = if whom.is_empty() { "" } else { " " };
        words.push_str(&format!("denied {whom}{between}key {shown}\n"));
    }
    for row in callers.iter().filter(|row| row.nodes.len() > 1).take(state::LISTED) {
        let (code, nodes) = (&row.code, row.nodes.join(" or "));
        words.push_str(&line(&format!(
            "line key {code} may be {nodes}: it is denied as each of them; imprint-host admit {code} --as NODE lets it in"
        )));
        words.push('\n');
    }
    if closed {
        words.push_str(&format!("closed the window of {whom}\n"));
    }
    say::either(cli, &Denied { node: node.as_deref(), denied: &codes }, &words)
}

/// Whom an administrator has denied.
struct Done {
    node: Option<String>,
    /// Codes of the keys: of callers, and of requests for certificates.
    codes: Vec<String>,
    callers: Vec<CallerRow>,
    /// A window was closed.
    closed: bool,
}

fn denied(state: &mut State, text: &str, now: Timestamp) -> Result<Done, CliError> {
    let (callers, closed) = state.deny_callers(text, now).map_err(state::Error::Store)?;
    let mut codes: Vec<String> = callers.iter().map(|row| row.code.clone()).collect();
    codes.dedup();
    let is_node = state.store.node(text).map_err(state::Error::Store)?.is_some();
    if !is_node && !codes.is_empty() {
        let node = match callers.as_slice() {
            [row] if row.nodes.len() == 1 => row.nodes.first().cloned(),
            _ => None,
        };
        return Ok(Done { node, codes, callers, closed });
    }
    if let Some(code) = code::shown(text).filter(|_| !is_node) {
        return Err(failed(AdmitError::NotWaiting { code, waiting: Vec::new() }));
    }
    match enrol::deny(&mut state.store, text, now) {
        Ok(rows) => codes.extend(rows.into_iter().map(|row| row.key_code)),
        Err(Decided::NotWaiting { .. }) if closed || !codes.is_empty() => {}
        Err(error) => return Err(CliError::Decide(error)),
    }
    Ok(Done { node: Some(text.to_owned()), codes, callers, closed })
}

fn failed(error: AdmitError) -> CliError {
    CliError::Admit(Box::new(error))
}
