//! What becomes of a bundle that a node sends. One of each node waits; the same one is known by its tag. Never approves one that
//! an administrator has to look at.

use std::time::Duration;

use imprint::age::{self, Identity};
use imprint::bundle::answer::Standing;
use imprint::bundle::{self, Bundle, BundleError as BundleFault, MAX_SEALED};
use imprint::chain::chain;
use imprint::digest::sha256;

use super::error::{BadUpload, BundleError};
use super::events::{self, Happened};
use super::standing::standing;
use super::{Key, Terms, ToSign, next_counter, signed, terms};
use crate::ca::StateError;
use crate::enrol::{Desk, EnrolError};
use crate::store::{Budget, BundleRow, BundleState, Event, NewBundle, Signed, StoreError, Told};

/// The most bundles an hour that are stored for one node. A node in a boot loop sends the same one.
const MOST: usize = 20;
const HOUR: Duration = Duration::from_secs(3600);
/// How many versions keep their content that nobody has looked at: a node could fill the disk with them.
const AUTO_KEPT: usize = 8;
/// Who approves under `bundle_approve = "auto"`.
const AUTO: &str = "auto";
/// The longest age file that a node may send: a version has the signed statement before it.
pub const MAX_UPLOAD: u64 = MAX_SEALED as u64 - 1024;

/// What a bundle is checked with.
pub struct Reader {
    /// The node's key, if this host holds it.
    key: Option<Identity>,
    /// The key, as [`Key::shown`] says it.
    shown: String,
    /// The counter of the next version.
    next: u64,
}

/// The answer before the bytes of an upload have come.
pub enum May {
    /// Send it.
    Send(Reader),
    /// It need not come: this is the answer.
    Not(Put),
}

/// A bundle that a node has sent.
pub struct Upload<'a> {
    /// By which the same one is known.
    pub tag: &'a [u8; 32],
    /// The age file.
    pub age: &'a [u8],
    /// What [`check`] has found.
    pub checked: &'a Result<Checked, BadUpload>,
}

/// An age file that was checked.
#[derive(Clone)]
pub struct Checked {
    sha256: [u8; 32],
    /// The key that it was checked with.
    key: String,
}

/// What has become of an upload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Put {
    /// It is stored: it waits, or is a version.
    Stored(Standing),
    /// The same one is known.
    Known(Standing),
    /// Another one waits.
    Waits(Standing),
    /// It was denied before.
    Denied(Standing),
    /// The record of the node allows no bundles.
    Off(String),
    /// Too many.
    Later(Duration, String),
    /// It is no bundle of this node.
    Bad(String),
}

/// Whether a node may send a bundle with this tag.
pub fn may_upload(desk: &Desk<'_>, node: &str, tag: &[u8; 32], peer: &str) -> Result<May, EnrolError> {
    match before(desk, node, tag)? {
        Err(answer) => {
            tell_refused(desk, node, &answer, peer)?;
            Ok(May::Not(answer))
        }
        Ok((terms, next)) => {
            let shown = terms.key.shown();
            let key = match terms.key {
                Key::Held(identity) => Some(identity),
                Key::Elsewhere { .. } => None,
            };
            Ok(May::Send(Reader { key, shown, next }))
        }
    }
}

/// Checks an upload with all that this host can see of it. Needs no store, so that it holds up nobody.
pub fn check(age: &[u8], reader: &Reader, node: &str, tag: &[u8; 32]) -> Result<Checked, BadUpload> {
    age::check(age).map_err(|error| BadUpload::Bundle(BundleFault::Age(error)))?;
    if let Some(key) = &reader.key {
        let bundle = opened(age, key)?;
        if bundle.node().as_str() != node {
            return Err(BadUpload::OtherNode { named: bundle.node().to_string(), node: node.to_owned() });
        }
        if bundle.counter() > reader.next {
            return Err(BadUpload::Counter { counter: bundle.counter(), next: reader.next });
        }
        let own = bundle.tag(key).map_err(BadUpload::Bundle)?;
        if own != *tag {
            return Err(BadUpload::Tag);
        }
    }
    Ok(Checked { sha256: sha256(age), key: reader.shown.clone() })
}

/// The bundle in an age file.
pub(super) fn opened(age: &[u8], key: &Identity) -> Result<Bundle, BadUpload> {
    Bundle::decrypt(age, key).map_err(BadUpload::Bundle)
}

/// Decides about an upload. `tell`: who is told of one that waits.
pub fn put(desk: &Desk<'_>, node: &str, upload: &Upload<'_>, tell: &[Told], peer: &str) -> Result<Put, EnrolError> {
    let (terms, next) = match before(desk, node, upload.tag)? {
        Ok(found) => found,
        Err(answer) => {
            tell_refused(desk, node, &answer, peer)?;
            return Ok(answer);
        }
    };
    let Checked { sha256, key } = match upload.checked {
        Ok(checked) => checked,
        Err(bad) => {
            let answer = Put::Bad(chain(bad));
            tell_refused(desk, node, &answer, peer)?;
            return Ok(answer);
        }
    };
    // What was checked with another key is not checked.
    if *key != terms.key.shown() {
        let detail = "the key of this node's bundles has changed while the upload came; send it again".to_owned();
        return Ok(Put::Later(Duration::from_secs(1), detail));
    }
    if let Some(row) = same_again(desk, node, upload.tag, (&terms, sha256))? {
        desk.changes.bundle_renewed(node)?;
        let counter = row.counter.unwrap_or_default();
        let detail =
            format!("{}: the node was to make another one, and makes the same: version {counter} stays", row.code);
        audit(desk, node, Some(peer), "bundle", &detail)?;
        return Ok(Put::Known(standing(&row, next)));
    }
    let code = bundle::code(upload.age).to_string();
    let length = u64::try_from(upload.age.len()).unwrap_or(u64::MAX);
    let seal = if terms.auto { seal(desk, node, next, sha256, length)? } else { None };
    let new = NewBundle {
        node,
        tag: Some(*upload.tag),
        key: &terms.key.shown(),
        sha256: *sha256,
        code: &code,
        age: upload.age,
        made_by: "node",
        peer: Some(peer),
        content_of: None,
    };
    let version = seal.as_ref().map(|seal| Signed { counter: next, seal, by: AUTO });
    desk.changes.add_bundle(&new, version.as_ref(), desk.now)?;
    desk.changes.bundle_renewed(node)?;
    let detail = match (&seal, terms.auto) {
        (Some(_), _) => format!("{code}, {length} bytes: version {next} (bundle_approve = \"auto\")"),
        (None, true) => format!("{code}, {length} bytes: waits, because nothing signs; run imprint-host signer new"),
        (None, false) => format!("{code}, {length} bytes: waits"),
    };
    audit(desk, node, Some(peer), "bundle", &detail)?;
    if seal.is_some() {
        prune(desk, node)?;
    } else {
        events::add(desk, tell, node, &Happened::Pending { code: &code })?;
    }
    let row = desk.changes.bundle_of_tag(node, upload.tag)?;
    let next = if seal.is_some() { next.saturating_add(1) } else { next };
    // The row was stored above.
    Ok(row.map_or(Put::Off(String::new()), |row| Put::Stored(standing(&row, next))))
}

/// The current version, if a node that was asked for another bundle has made the same content again. What this host cannot read is
/// the same only byte for byte: anybody with the certificate could name its tag.
fn same_again(
    desk: &Desk<'_>,
    node: &str,
    tag: &[u8; 32],
    (terms, sha256): (&Terms, &[u8; 32]),
) -> Result<Option<BundleRow>, StoreError> {
    let Some(row) = desk.changes.bundle_of_tag(node, tag)? else { return Ok(None) };
    let is_current = desk.changes.newest_bundle(node)?.is_some_and(|newest| newest.id == row.id);
    let is_same = row.state == BundleState::Approved
        && is_current
        && terms.key.opens(&row)
        && (terms.key.held().is_some() || row.sha256 == *sha256);
    Ok(is_same.then_some(row))
}

/// What is known without the bytes: the terms and the next counter, or the answer.
fn before(desk: &Desk<'_>, node: &str, tag: &[u8; 32]) -> Result<Result<(Terms, u64), Put>, EnrolError> {
    let terms = match terms(desk, node).map_err(BundleError::fault) {
        Ok(terms) => terms,
        Err(Ok(fault)) => return Err(fault),
        Err(Err(error)) => return Ok(Err(Put::Off(error.to_string()))),
    };
    let changes = desk.changes;
    let newest = changes.newest_bundle(node)?;
    let next = next_counter(changes, node)?;
    if let Some(row) = changes.bundle_of_tag(node, tag)? {
        let is_current = newest.is_some_and(|newest| newest.id == row.id);
        match row.state {
            BundleState::Pending => return Ok(Err(Put::Known(standing(&row, next)))),
            BundleState::Denied => return Ok(Err(Put::Denied(standing(&row, next)))),
            // Where it was asked for another one, whoever only knows the tag is not to take that back: the bytes are to come.
            BundleState::Approved if is_current && terms.key.opens(&row) && changes.renewal(node)?.is_none() => {
                return Ok(Err(Put::Known(standing(&row, next))));
            }
            // The current version where another one was asked for, an older one, or one that was removed: it is decided anew.
            BundleState::Approved | BundleState::Removed => {}
        }
    }
    if let Some(row) = changes.pending_bundle(node)? {
        return Ok(Err(Put::Waits(standing(&row, next))));
    }
    let since = desk.now.minus(HOUR);
    let recent = changes.uploaded_since(node, since)?;
    if recent.len() >= MOST
        && let Some(first) = recent.first()
    {
        let after = Duration::from_millis(first.plus(HOUR).as_millis().saturating_sub(desk.now.as_millis()));
        let detail = format!("{MOST} bundles of this node within an hour; come back later");
        return Ok(Err(Put::Later(after, detail)));
    }
    Ok(Ok((terms, next)))
}

/// The signed statement of a version that nobody has to look at. `None`: nothing signs.
fn seal(
    desk: &Desk<'_>,
    node: &str,
    counter: u64,
    sha256: &[u8; 32],
    length: u64,
) -> Result<Option<Vec<u8>>, EnrolError> {
    let what = ToSign { node, counter, approver: AUTO, sha256: *sha256, length };
    match signed(desk.ca, &what, desk.now) {
        Ok(seal) => Ok(Some(seal)),
        Err(BundleError::Ca(StateError::NoSigner(_))) => Ok(None),
        Err(error) => Err(error.fault().unwrap_or_else(|_| EnrolError::Ca(StateError::Sign))),
    }
}

/// Of the versions that nobody has looked at, only the newest keep their content.
fn prune(desk: &Desk<'_>, node: &str) -> Result<(), StoreError> {
    let is_auto = |row: &&BundleRow| row.state == BundleState::Approved && row.decided_by.as_deref() == Some(AUTO);
    let rows = desk.changes.bundles(node)?;
    let old = rows.iter().rev().filter(is_auto).skip(AUTO_KEPT);
    for row in old {
        desk.changes.remove_bundle(row.id)?;
        let counter = row.counter.unwrap_or_default();
        let detail =
            format!("version {counter} removed: {AUTO_KEPT} later ones were approved without an administrator");
        audit(desk, node, None, "bundle", &detail)?;
    }
    Ok(())
}

pub(super) fn audit(
    desk: &Desk<'_>,
    node: &str,
    peer: Option<&str>,
    event: &str,
    detail: &str,
) -> Result<(), StoreError> {
    desk.changes.audit(&Event { event, node: Some(node), peer, detail }, desk.now)
}

fn tell_refused(desk: &Desk<'_>, node: &str, answer: &Put, peer: &str) -> Result<(), StoreError> {
    let detail = match answer {
        // Nothing is refused.
        Put::Stored(_) | Put::Known(_) => return Ok(()),
        Put::Waits(stands) => {
            format!("bundle: another one waits ({}); approve or deny it", stands.code.as_deref().unwrap_or_default())
        }
        Put::Denied(stands) => {
            format!("bundle: it was denied before ({})", stands.code.as_deref().unwrap_or_default())
        }
        Put::Off(why) | Put::Bad(why) | Put::Later(_, why) => format!("bundle: {why}"),
    };
    let event = Event { event: "refused", node: Some(node), peer: Some(peer), detail: &detail };
    desk.changes.audit_within(&Budget::Certificate(node.to_owned()), &event, desk.now)?;
    Ok(())
}
