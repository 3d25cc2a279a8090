//! Adds nodes: which node may have which names, bindings and addresses, and the effects on a node whose record is replaced.
//! Prints nothing.

use std::collections::BTreeSet;
use std::fmt;

use imprint::payload::{EstUrl, KeyType, TokenMode};
use imprint::time::Timestamp;

use super::{Error, State};
use crate::admission::KeyName;
use crate::bundle_key;
use crate::ca;
use crate::ca::Usage;
use crate::record::claims::{Claim, Kind};
use crate::record::{Entitlement, Record};
use crate::store::{BundleState, Changes, Event, Holder, NodeRow, Store, StoreError};

/// How nodes are added.
#[derive(Clone, Default, Debug)]
pub struct Adding {
    /// Replace the records of nodes that exist.
    pub replace: bool,
    /// Nodes that may have a name or binding of another node.
    pub allow_duplicate: Vec<String>,
}

/// The result of adding nodes.
pub struct Added {
    /// The nodes, in the order in which they were given.
    pub records: Vec<Record>,
    /// Warnings for the administrator.
    pub warnings: Vec<Warning>,
}

/// A warning for the administrator about a node that was added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Warning {
    /// Another node has the same name, binding or address, and that is allowed.
    Twice {
        /// The node.
        node: String,
        /// The name, binding or address.
        claim: Claim,
        /// The other node.
        other: Holder,
    },
    /// The node has a certificate that it can no longer renew.
    Renewal {
        /// The node.
        node: String,
        /// Code of the certificate's key.
        key_code: String,
        /// Last second of its validity.
        not_after: Timestamp,
        /// How the certificate differs from the new record.
        differs: Differs,
    },
    /// Payloads of the node that are still valid hold data of the old record.
    Payloads {
        /// The node.
        node: String,
        /// How many payloads.
        count: usize,
    },
    /// The node's current bundle is for another key than the new record names.
    BundleKey {
        /// The node.
        node: String,
        /// Its version.
        counter: u64,
        /// For whom it was made.
        was: String,
        /// The key of the new record.
        is: String,
    },
    /// The record names an admission key that this host does not know.
    AdmissionKey {
        /// The node.
        node: String,
        /// The key's name.
        key: String,
    },
}

/// How a certificate differs from a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Differs {
    /// It has other names.
    Names,
    /// Its key has another type.
    Key {
        /// The certificate's type of key.
        have: KeyType,
        /// The type in the record.
        want: KeyType,
    },
}

/// Another node has this name or binding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// The node that was to be added.
    pub node: String,
    /// The file of its record.
    pub file: String,
    /// The name or binding.
    pub claim: Claim,
    /// The node that has it.
    pub holder: Holder,
    /// How many more conflicts there are.
    pub more: usize,
}

impl State {
    /// Adds nodes, given as (file name, TOML): all of them or none. Allows no duplicates.
    pub fn add_nodes(
        &mut self,
        files: &[(String, String)],
        replace: bool,
        now: Timestamp,
    ) -> Result<Vec<Record>, Error> {
        let adding = Adding { replace, allow_duplicate: Vec::new() };
        Ok(self.add_nodes_as(files, &adding, now)?.records)
    }

    /// As [`State::add_nodes`], with all options and warnings.
    pub fn add_nodes_as(
        &mut self,
        files: &[(String, String)],
        adding: &Adding,
        now: Timestamp,
    ) -> Result<Added, Error> {
        let mut records: Vec<Record> = Vec::with_capacity(files.len());
        let mut known = BTreeSet::new();
        for (file, text) in files {
            let record = Record::to_add(file, text, self.ca.root(), &self.urls)?;
            renewable(file, &record)?;
            if !known.insert(record.name.to_string()) {
                return Err(Error::SameName { name: record.name.to_string(), file: file.clone() });
            }
            records.push(record);
        }
        if let Some(name) = adding.allow_duplicate.iter().find(|name| !known.contains(*name)) {
            return Err(Error::NotAdded(name.clone()));
        }
        let changes = self.store.changes()?;
        // First all replaced records give up their claims, then the new ones take theirs: two nodes may swap names.
        let mut before = Vec::with_capacity(records.len());
        for (record, (file, text)) in records.iter().zip(files) {
            let name = record.name.to_string();
            let is_old = changes.node(&name)?.is_some();
            let old = changes.entitlement(&name)?;
            let had: BTreeSet<(String, String)> = changes.claimed(&name)?.into_iter().collect();
            changes.put_node(
                &NodeRow { name: name.clone(), file: file.clone(), record: text.clone() },
                adding.replace,
                now,
            )?;
            if is_old {
                changes.release(&name)?;
            }
            changes.entitle(&record.entitlement())?;
            before.push((is_old.then_some(old), had));
        }
        // Claims that a node keeps come before new claims, so that the order of the files does not matter. A kept claim
        // that another node has, too, was allowed earlier; a new one is a duplicate.
        let mut kept = Vec::with_capacity(records.len());
        for (record, (_, had)) in records.iter().zip(&before) {
            let keeps = record.claims().into_iter().filter(|claim| had.contains(&key(claim)));
            kept.push(claim(&changes, record.name.as_str(), keeps)?);
        }
        let (mut warnings, mut taken) = (Vec::new(), Vec::new());
        for (((record, (file, _)), (old, had)), kept) in records.iter().zip(files).zip(&before).zip(kept) {
            let name = record.name.to_string();
            let detail = format!("record from {file}: {}", record.names);
            changes.audit(&Event { event: "node", node: Some(&name), peer: None, detail: &detail }, now)?;
            let is_allowed = adding.allow_duplicate.contains(&name);
            let added = record.claims().into_iter().filter(|claim| !had.contains(&key(claim)));
            let added = claim(&changes, &name, added)?.into_iter().map(|twice| (twice, is_allowed));
            changes.all_claimed(&name)?;
            for ((claim, other), may) in kept.into_iter().map(|twice| (twice, true)).chain(added) {
                if claim.kind.identifies() && !may {
                    let (node, file) = (name.clone(), file.clone());
                    taken.push(Taken { node, file, claim, holder: other, more: 0 });
                    continue;
                }
                if claim.kind.identifies() {
                    tell_duplicate(&changes, &name, &claim, &other, now)?;
                }
                warnings.push(Warning::Twice { node: name.clone(), claim, other });
            }
            for key in &record.rule.keys {
                if let KeyName::Named(key) = key
                    && changes.admission_key(key)?.is_none()
                {
                    warnings.push(Warning::AdmissionKey { node: name.clone(), key: key.clone() });
                }
            }
            if let Some(old) = old {
                warnings.extend(replaced(&changes, old.as_ref(), record, now)?);
            }
        }
        let more = taken.len().saturating_sub(1);
        if let Some(first) = taken.into_iter().next() {
            // Dropping the transaction rolls it back.
            return Err(Error::Taken(Box::new(Taken { more, ..first })));
        }
        changes.commit()?;
        Ok(Added { records, warnings })
    }
}

/// The claim as the store stores it: kind and value.
fn key(claim: &Claim) -> (String, String) {
    (claim.kind.word().to_owned(), claim.value.clone())
}

/// Stores these claims of a node. The answer: claims that other nodes have, too, with the first such node.
fn claim(
    changes: &Changes<'_>,
    node: &str,
    claims: impl IntoIterator<Item = Claim>,
) -> Result<Vec<(Claim, Holder)>, StoreError> {
    let mut twice = Vec::new();
    for claim in claims {
        let holder = changes.holders(&claim, node)?.into_iter().next();
        changes.claim(node, &claim, holder.is_some())?;
        twice.extend(holder.map(|holder| (claim, holder)));
    }
    Ok(twice)
}

fn tell_duplicate(
    changes: &Changes<'_>,
    node: &str,
    claim: &Claim,
    other: &Holder,
    now: Timestamp,
) -> Result<(), StoreError> {
    let detail = format!("{} is {}'s, too ({})", claim.shown, other.node, other.shown);
    changes.audit(&Event { event: "duplicate", node: Some(node), peer: None, detail: &detail }, now)
}

/// After an update: stores claims and entitlements of records that an older imprint-host added. Skips records that this
/// version refuses, until they are replaced.
pub(super) fn fill(store: &mut Store, urls: &[EstUrl], now: Timestamp) -> Result<(), StoreError> {
    fill_claims(store, urls, now)?;
    let understood = |row: &NodeRow| compiled(row, urls).map(|record| record.entitlement());
    if !store.unentitled()?.iter().any(|row| understood(row).is_some()) {
        return Ok(());
    }
    let changes = store.changes()?;
    for entitlement in changes.unentitled()?.iter().filter_map(understood) {
        changes.entitle(&entitlement)?;
    }
    changes.commit()
}

fn compiled(row: &NodeRow, urls: &[EstUrl]) -> Option<Record> {
    Record::of_store(&row.file, &row.record, urls).ok()
}

/// Stores the claims of records that an older imprint-host added. If two records have the same claim, both keep it: the
/// second is marked as shared, and the audit log gets a line.
fn fill_claims(store: &mut Store, urls: &[EstUrl], now: Timestamp) -> Result<(), StoreError> {
    if !store.unclaimed()?.iter().any(|row| compiled(row, urls).is_some()) {
        return Ok(());
    }
    let changes = store.changes()?;
    for row in changes.unclaimed()? {
        let Some(record) = compiled(&row, urls) else { continue };
        let twice = claim(&changes, &row.name, record.claims())?;
        changes.all_claimed(&row.name)?;
        for (claim, other) in twice {
            if claim.kind.identifies() {
                tell_duplicate(&changes, &row.name, &claim, &other, now)?;
                tracing::warn!("{} of {} is {}'s, too: two records of one identity", claim.shown, row.name, other.node);
            }
        }
    }
    changes.commit()
}

/// Warnings about certificates and payloads of the node's old record. `old`: the old entitlement; `None`: this version
/// could not read the old record.
fn replaced(
    changes: &Changes<'_>,
    old: Option<&Entitlement>,
    new: &Record,
    now: Timestamp,
) -> Result<Vec<Warning>, StoreError> {
    let node = new.name.to_string();
    let mut warnings = Vec::new();
    let other_key = old.map(|old| old.key).filter(|key| *key != new.key);
    for row in changes.live_certificates(&node, now)? {
        let differs = match other_key {
            _ if !ca::is_for(&row.der, &new.names) => Differs::Names,
            Some(have) => Differs::Key { have, want: new.key },
            None => continue,
        };
        let (node, key_code, not_after) = (node.clone(), row.key_code, row.not_after);
        warnings.push(Warning::Renewal { node, key_code, not_after, differs });
    }
    if old.is_none_or(|old| old.names != new.names || old.key != new.key) {
        let is_good = |row: &&crate::store::PayloadRow| {
            row.void_at.is_none() && row.expiry > now && (row.spent.is_none() || row.mode == TokenMode::EachBoot)
        };
        let count = changes.payloads(&node)?.iter().filter(is_good).count();
        if count > 0 {
            warnings.push(Warning::Payloads { node: node.clone(), count });
        }
    }
    if let (Some(is), None) = (bundle_key::key_of(changes, new)?, bundle_key::current(changes, new)?)
        && let Some(row) = changes.newest_bundle(&node)?.filter(|row| row.state == BundleState::Approved)
    {
        let counter = row.counter.unwrap_or_default();
        warnings.push(Warning::BundleKey { node, counter, was: row.key, is });
    }
    Ok(warnings)
}

impl Warning {
    /// The kind of warning, for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Warning::Twice { claim, .. } => claim.kind.word(),
            Warning::Renewal { .. } => "renewal",
            Warning::Payloads { .. } => "payloads",
            Warning::BundleKey { .. } => "bundle_key",
            Warning::AdmissionKey { .. } => "admission_key",
        }
    }

    /// The node of the warning.
    pub fn node(&self) -> &str {
        match self {
            Warning::Twice { node, .. }
            | Warning::Renewal { node, .. }
            | Warning::Payloads { node, .. }
            | Warning::BundleKey { node, .. }
            | Warning::AdmissionKey { node, .. } => node,
        }
    }

    /// The other node that has the same claim.
    pub fn other(&self) -> Option<&str> {
        match self {
            Warning::Twice { other, .. } => Some(&other.node),
            Warning::Renewal { .. }
            | Warning::Payloads { .. }
            | Warning::BundleKey { .. }
            | Warning::AdmissionKey { .. } => None,
        }
    }
}

fn key_name(key: KeyType) -> &'static str {
    KeyType::ALL.iter().find(|(known, _)| *known == key).map_or("", |(_, name)| name)
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Twice { node, claim, other } if claim.kind == Kind::Address => write!(
                f,
                "{node}: {} is {}'s, too ({}): two nodes with one address conflict in one network",
                claim.shown, other.node, other.file
            ),
            Warning::Twice { node, claim, other } if claim.kind == Kind::HostName => {
                write!(f, "{node}: {} is {}'s, too ({})", claim.shown, other.node, other.file)
            }
            Warning::Twice { node, claim, other } if claim.kind == Kind::SubjectSerial => write!(
                f,
                "{node}: {} is {}'s, too ({}): programs that use it cannot tell the nodes apart",
                claim.shown, other.node, other.file
            ),
            Warning::Twice { node, claim, other } => write!(
                f,
                "{node}: {} is {}'s, too ({}), and was allowed: programs that use it cannot tell the nodes apart",
                claim.shown, other.node, other.file
            ),
            Warning::Renewal { node, key_code, not_after, differs } => {
                write!(f, "{node}: its certificate of key {key_code}, until {not_after}, ")?;
                match differs {
                    Differs::Names => f.write_str("has other names than the new record")?,
                    Differs::Key { have, want } => {
                        write!(f, "has a key of type {}, the new record wants {}", key_name(*have), key_name(*want))?;
                    }
                }
                write!(
                    f,
                    ": its renewals are refused from now on. Give the node a new payload before then (imprint-host \
                     payload {node})"
                )?;
                match differs {
                    Differs::Names => write!(
                        f,
                        ", and revoke the certificate if it must not have the old names until then (imprint-host revoke \
                         {node} --key {key_code})"
                    ),
                    Differs::Key { .. } => Ok(()),
                }
            }
            Warning::Payloads { node, count } => write!(
                f,
                "{node}: {count} of its payloads were made from the old record, and requests with them are refused; \
                 make another one (imprint-host payload {node})"
            ),
            Warning::BundleKey { node, counter, was, is } => write!(
                f,
                "{node}: version {counter} of its bundle was made for another key ({was}) than the new record names ({is}), and counts \
                 as none from now on; make another one (imprint-host bundle make {node}), or the node does"
            ),
            Warning::AdmissionKey { node, key } => write!(
                f,
                "{node}: this host has no admission key of the name {key}, so no key lets the node in; imprint-host key make \
                 or key add makes it known, key list shows those that are"
            ),
        }
    }
}

/// Refuses a record whose certificate would lack clientAuth.
pub(super) fn renewable(file: &str, record: &Record) -> Result<(), Error> {
    if record.usages.contains(&Usage::Client) { Ok(()) } else { Err(Error::OnlyServer { file: file.to_owned() }) }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Taken { node, file, claim, holder, more } = self;
        write!(f, "{file}: {node}: {} is {}'s already ({}", claim.shown, holder.node, holder.file)?;
        if holder.shown != claim.shown {
            write!(f, ": {}", holder.shown)?;
        }
        write!(
            f,
            "); two records must not be one identity: change one of them (node add --replace), or allow it with \
             --allow-duplicate {node}"
        )?;
        match more {
            0 => Ok(()),
            more => write!(f, "; {more} more names or bindings belong to other nodes"),
        }
    }
}
