//! `imprint-host bundle`: shows bundles, and hands an administrator's decisions about them to `bundles`. Decides nothing.

use std::fmt::Write as _;
use std::path::Path;

use imprint::bundle::{Bundle, Content as Kind};
use imprint::hex;
use imprint::shown::line;
use imprint::time::Timestamp;

use super::args::bundle::{BundleCommand, MakeArgs};
use super::published::{
    BundleDiff, BundleEntry, BundleKept, BundleLine, BundleMade, BundlePart, BundleRenewed, BundleShown, BundleSide,
    BundlesSigned,
};
use super::{Cli, CliError, decided, open, say};
use crate::bundles::{self, BundleError, Content, Difference, Read, Source, Which, named};
use crate::output::Output;
use crate::state::{self, State};
use crate::store::{BundleRow, BundleState};

pub(super) fn bundle(cli: &Cli, command: &BundleCommand, now: Timestamp) -> Result<(), CliError> {
    match command {
        BundleCommand::Make(arguments) => make(cli, arguments, now),
        BundleCommand::Show { node, bundle, age, tar } => {
            show(cli, node, *bundle, (age.as_deref(), tar.as_deref()), now)
        }
        BundleCommand::Diff { node, old, new } => diff(cli, node, (*old, *new), now),
        BundleCommand::List { node } => list(cli, node.as_deref()),
        BundleCommand::Approve { node, code } => {
            let row = decided(cli, |state| Ok(bundles::approve(state, node, code, now)?))?;
            let counter = row.counter.unwrap_or_default();
            said(
                cli,
                &row,
                &format!("approved {}: version {counter} of {node}; the node gets it when it asks again\n", row.code),
            )
        }
        BundleCommand::Deny { node, code } => {
            let row = decided(cli, |state| Ok(bundles::deny(state, node, code, now)?))?;
            said(cli, &row, &format!("denied {} of {node}; the same bundle is refused from now on\n", row.code))
        }
        BundleCommand::Sign { nodes, all } => sign(cli, nodes, *all, now),
        BundleCommand::Rollback { node, counter } => {
            let row = decided(cli, |state| Ok(bundles::rollback(state, node, *counter, now)?))?;
            let next = row.counter.unwrap_or_default();
            said(cli, &row, &format!("version {next} of {node} has the content of version {counter}\n"))
        }
        BundleCommand::Remove { node, counter } => {
            let row = decided(cli, |state| Ok(bundles::remove(state, node, *counter, now)?))?;
            let newest = decided(cli, |state| Ok(state.store.newest_bundle(node).map_err(state::Error::Store)?))?;
            let mut words = format!("removed the content of version {counter} of {node}\n");
            if newest.is_some_and(|newest| newest.counter == Some(*counter)) {
                let _ = writeln!(
                    words,
                    "it was the newest one: {node} gets no bundle until there is another; imprint-host bundle rollback makes one of \
                     an old version"
                );
            }
            said(cli, &row, &words)
        }
        BundleCommand::Renew { node, cancel: true } => {
            decided(cli, |state| Ok(bundles::keep(state, node, now)?))?;
            let words = format!("{node} need not make another bundle, and gets the version that there is\n");
            say::either(cli, &BundleKept { cancelled: node }, &words)
        }
        BundleCommand::Renew { node, cancel: false } => {
            decided(cli, |state| Ok(bundles::renew(state, node, now)?))?;
            let words = format!(
                "{node} makes another bundle at its next boot; until a new one has come it gets none; bundle make ends that\n"
            );
            say::either(cli, &BundleRenewed { renew: node }, &words)
        }
    }
}

fn said(cli: &Cli, row: &BundleRow, words: &str) -> Result<(), CliError> {
    say::either(cli, &BundleLine::of(row), words)
}

fn make(cli: &Cli, arguments: &MakeArgs, now: Timestamp) -> Result<(), CliError> {
    let MakeArgs { node, from, recipient, age, above } = arguments;
    let mut state = open(cli)?;
    let source = match (from, age) {
        (_, Some(path)) => {
            let most = usize::try_from(bundles::MAX_UPLOAD).unwrap_or(usize::MAX);
            Source::Age(bundles::read_file(path, most).map_err(BundleError::Content)?)
        }
        (Some(path), None) => Source::Content(Content::read(path).map_err(BundleError::Content)?),
        (None, None) => Source::Content(bundles::of_record(&state, node)?),
    };
    let bundles::Made { row, unchanged } = match above {
        Some(above) => bundles::make_above(&mut state, node, source, recipient, *above, now)?,
        None => bundles::make(&mut state, node, source, recipient, now)?,
    };
    let (counter, code) = (row.counter.unwrap_or_default(), &row.code);
    let words = match unchanged {
        true => format!("version {counter} of {node} has this content already: {code}\n"),
        false => format!("version {counter} of {node}: {code}, {} bytes\n", row.length.saturating_add(row.seal_length)),
    };
    say::either(cli, &BundleMade { bundle: BundleLine::of(&row), unchanged }, &words)
}

/// Each node by itself, so that what was signed stays signed whatever comes after it.
fn sign(cli: &Cli, named: &[String], all: bool, now: Timestamp) -> Result<(), CliError> {
    let nodes = if all { decided(cli, |state| Ok(bundles::unsigned(state)?))? } else { named.to_vec() };
    let (mut rows, mut failed, mut words) = (Vec::new(), None, String::new());
    for node in &nodes {
        match decided(cli, |state| Ok(bundles::sign(state, node, now)?)) {
            Ok(Some(row)) => {
                let _ = writeln!(words, "version {} of {node}: {}", row.counter.unwrap_or_default(), row.code);
                rows.push(row);
            }
            Ok(None) => {
                let _ = writeln!(words, "{node}: the key that signs now has signed its version already");
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if words.is_empty() && failed.is_none() {
        words.push_str("nothing to sign: the key that signs now has signed the version of each node\n");
    }
    say::either(cli, &BundlesSigned { signed: rows.iter().map(BundleLine::of).collect() }, &words)?;
    failed.map_or(Ok(()), Err)
}

fn see<T>(
    cli: &Cli,
    now: Timestamp,
    look: impl Fn(&crate::enrol::Desk<'_>) -> Result<T, BundleError>,
) -> Result<T, CliError> {
    decided(cli, |state: &mut State| Ok(bundles::see(state, now, &look)?))
}

fn show(
    cli: &Cli,
    node: &str,
    which: Option<Which>,
    (age, tar): (Option<&Path>, Option<&Path>),
    now: Timestamp,
) -> Result<(), CliError> {
    let (Read { row, age: bytes, bundle }, waits) = see(cli, now, |desk| {
        // Who has not said which one may mean the one that waits.
        let waits = if which.is_none() { bundles::waiting(desk, node)? } else { None };
        Ok((bundles::read(desk, node, which)?, waits))
    })?;
    let output = tar.map(|path| Output::open_new(path).map_err(CliError::Write)).transpose()?;
    if let Some(output) = output {
        let not_readable =
            || BundleError::NotReadable { node: node.to_owned(), what: named(&row), key: row.key.clone() };
        written(output, &bundle.as_ref().ok_or_else(not_readable)?.tar())?;
    }
    if let Some(path) = age {
        written(Output::open(path).map_err(CliError::Write)?, &bytes)?;
    }
    let mut words = heading(&row);
    match &bundle {
        None => {
            words.push_str("content   this host does not hold the key, and cannot read it\n");
        }
        Some(bundle) => {
            for unit in bundle.units() {
                let _ = writeln!(words, "unit      {unit}");
            }
            for part in parts(bundle) {
                let BundlePart { path, mode, uid, gid, kind, bytes, target } = part;
                let more = match (bytes, target) {
                    (Some(bytes), _) => format!("  {bytes} bytes"),
                    (None, Some(target)) => format!("  -> {}", line(target)),
                    (None, None) => String::new(),
                };
                let _ = writeln!(words, "{kind:<9} {mode} {uid}:{gid}  {}{more}", line(path));
            }
        }
    }
    if let Some(code) = &waits {
        let _ =
            writeln!(words, "the bundle {code} waits, and is another one: imprint-host bundle diff {node} shows it");
    }
    let shown = BundleShown {
        bundle: BundleLine::of(&row),
        waits: waits.as_deref(),
        readable: bundle.is_some(),
        units: bundle.iter().flat_map(Bundle::units).map(ToString::to_string).collect(),
        entries: bundle.as_ref().map(parts).unwrap_or_default(),
    };
    say::either(cli, &shown, &words)
}

fn written(output: Output, bytes: &[u8]) -> Result<(), CliError> {
    output.stage(bytes).and_then(|staged| staged.finish(bytes)).map_err(CliError::Write)
}

fn heading(row: &BundleRow) -> String {
    let BundleRow { node, code, sha256, length, key, made_at, made_by, peer, decided_at, decided_by, .. } = row;
    let mut words = format!("{} of {node}, {}\n", named(row), row.state.word());
    let from = peer.as_ref().map(|peer| format!(" from {peer}")).unwrap_or_default();
    let _ = writeln!(words, "code      {code}\nsha256    {}\nbytes     {length}\nkey       {key}", hex::encode(sha256));
    let _ = writeln!(words, "made      {made_at} by {}{}", line(made_by), line(&from));
    if let (Some(at), Some(by)) = (decided_at, decided_by) {
        let _ = writeln!(words, "decided   {at} by {}", line(by));
    }
    if let Some(old) = row.content_of {
        let _ = writeln!(words, "content   that of version {old}");
    }
    words
}

fn parts(bundle: &Bundle) -> Vec<BundlePart<'_>> {
    let entries = bundle.entries().iter();
    entries
        .map(|entry| {
            let (kind, bytes, target) = match &entry.content {
                Kind::File(bytes) => ("file", Some(bytes.expose().len()), None),
                Kind::Link(target) => ("link", None, Some(target.as_str())),
                Kind::Directory => ("directory", None, None),
            };
            let (path, mode) = (entry.path.as_str(), format!("{:04o}", entry.mode));
            BundlePart { path, kind, mode, uid: entry.uid, gid: entry.gid, bytes, target }
        })
        .collect()
}

fn diff(cli: &Cli, node: &str, given: (Option<Which>, Option<Which>), now: Timestamp) -> Result<(), CliError> {
    let (old, new) = see(cli, now, |desk| {
        let (old, new) = match given {
            (Some(old), Some(new)) => (Some(old), new),
            _ => bundles::newest_two(desk, node)?,
        };
        let old = old.map(|which| bundles::read(desk, node, Some(which))).transpose()?;
        Ok((old, bundles::read(desk, node, Some(new))?))
    })?;
    let readable = new.bundle.is_some() && old.as_ref().is_none_or(|old| old.bundle.is_some());
    let differences: Option<Vec<Difference>> = match (&new.bundle, readable) {
        (Some(bundle), true) => Some(bundles::differences(old.as_ref().and_then(|old| old.bundle.as_ref()), bundle)),
        _ => None,
    };
    let side =
        |read: &Read| format!("{}: {}, sha256 {}", named(&read.row), read.row.code, hex::encode(&read.row.sha256));
    let before = old.as_ref().map_or_else(|| "nothing".to_owned(), side);
    let mut words = format!("--- {before}\n+++ {}\n", side(&new));
    match &differences {
        None => {
            let _ = writeln!(
                words,
                "this host does not hold the key, and cannot read them: compare the code with the one on the node's console"
            );
        }
        Some(differences) if differences.is_empty() => words.push_str("the content is the same\n"),
        Some(differences) => {
            for Difference { path, change, lines, .. } in differences {
                let _ = writeln!(words, "{change} {}", line(path));
                for text in lines {
                    let _ = writeln!(words, "{}", line(text));
                }
            }
        }
    }
    let hidden = differences.iter().flatten().filter(|one| !one.in_full).count();
    if hidden > 0 {
        let files = if hidden == 1 { "1 file is".to_owned() } else { format!("{hidden} files are") };
        let which = new.row.counter.map_or_else(|| "pending".to_owned(), |counter| counter.to_string());
        let _ = writeln!(
            words,
            "{files} not shown in full; imprint-host bundle show {node} {which} --tar FILE writes all of them"
        );
    }
    let entry = |one: Difference| {
        let Difference { path, change, lines, in_full } = one;
        BundleEntry { path, change, lines, in_full }
    };
    let shown = BundleDiff {
        node,
        old: old.as_ref().map(|old| BundleSide::of(&old.row)),
        new: BundleSide::of(&new.row),
        readable,
        differences: differences.map(|all| all.into_iter().map(entry).collect()),
    };
    say::either(cli, &shown, &words)
}

fn list(cli: &Cli, node: Option<&str>) -> Result<(), CliError> {
    let rows = decided(cli, |state| {
        let nodes = match node {
            Some(node) => {
                let known = state.store.node(node).map_err(state::Error::Store)?;
                vec![known.ok_or_else(|| BundleError::NoSuchNode(node.to_owned()))?]
            }
            None => state.store.nodes().map_err(state::Error::Store)?,
        };
        let mut rows = Vec::new();
        for node in nodes {
            rows.extend(state.store.bundles(&node.name).map_err(state::Error::Store)?);
        }
        Ok(rows)
    })?;
    let mut words = String::new();
    for row in &rows {
        let BundleRow { node, code, length, made_at, made_by, .. } = row;
        let version = row.counter.map_or_else(|| "-".to_owned(), |counter| counter.to_string());
        let decided = match (&row.decided_at, &row.decided_by, row.state) {
            (Some(at), Some(by), BundleState::Approved | BundleState::Denied) => {
                format!(", decided {at} by {}", line(by))
            }
            _ => String::new(),
        };
        let _ = writeln!(
            words,
            "{node}  {version:>4}  {:<8}  {code}  {length} bytes, made {made_at} by {}{decided}",
            row.state.word(),
            line(made_by)
        );
    }
    if words.is_empty() {
        words.push_str("no bundles; imprint-host bundle make makes one\n");
    }
    say::either(cli, &rows.iter().map(BundleLine::of).collect::<Vec<_>>(), &words)
}
