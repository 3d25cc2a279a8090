//! The state directory: CA files and store together, and the operations of the commands on both. Prints nothing.

mod adding;
mod bundled;
mod calling;
mod deciding;
mod keys;
mod sealed;
mod signing;

use std::path::{Path, PathBuf};

use imprint::line::{Challenge, Hello};
use imprint::payload::signed::Kid;
use imprint::payload::{EstUrl, TokenMode, UrlHost};
use imprint::secret::Secret;
use imprint::time::Timestamp;

pub use adding::{Added, Adding, Differs, Taken, Warning};
pub use calling::CALLERS;
pub(crate) use calling::{call_within, may_be_sent, stands};
pub use deciding::{AdmitError, LISTED, LetIn, some};
pub use keys::{KeyError, MadeKey, public_key};
pub(crate) use sealed::{signed_bundles, signer_of};
pub use signing::Signing;

use crate::bundle_key::BundleKeyError;
use crate::ca::{self, Ca, StateError};
use crate::compose::{self, ComposeError, Composed, Made, Options};
use crate::enrol::{Decision, Desk, EnrolError};
use crate::record::{self, Record, RecordError};
use crate::room;
use crate::store::{Books, CertificateRow, Changes, Event, PayloadRow, Standing, Store, StoreError, mode_name};
use crate::x509::CrlReason;

/// An open state directory.
pub struct State {
    /// The CA and its files.
    pub ca: Ca,
    /// The store.
    pub store: Store,
    /// EST bases that were given to `init`.
    pub urls: Vec<EstUrl>,
}

/// Why an operation on the state failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory or the CA cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record is invalid.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// There is no bundle key for a payload.
    #[error(transparent)]
    BundleKey(Box<BundleKeyError>),
    /// Two files for one node.
    #[error("{file}: name: {name} is in another file, too; give each its own")]
    SameName {
        /// The node.
        name: String,
        /// The second file.
        file: String,
    },
    /// Another node has this name or binding.
    #[error("{0}")]
    Taken(Box<Taken>),
    /// `--allow-duplicate` names a node that is not among the added nodes.
    #[error("--allow-duplicate {0}: none of the records to add has this name")]
    NotAdded(String),
    /// A record whose certificate would lack clientAuth: the node could never renew it.
    #[error(
        "{file}: usages lack clientAuth: a node needs it to renew its certificate, and the agent refuses a certificate \
         without it; write usages = [\"clientAuth\", \"serverAuth\"]"
    )]
    OnlyServer {
        /// The record's file.
        file: String,
    },
    /// There is no such node.
    #[error("there is no node {0}; imprint-host nodes lists them, node add makes one")]
    NoSuchNode(String),
    /// A payload cannot be made.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// A payload for a caller at a door that is not let in, or not any more.
    #[error("the caller is not let in as {0} any more; imprint-host log says what happened")]
    NotLetIn(String),
    /// Another payload for a line key that has its certificate. Anybody could ask, by saying its HELLO again.
    #[error("line key {code} has the certificate of {node} already; start the node again for another key")]
    HasCertificate {
        /// The node.
        node: String,
        /// The code of the line key.
        code: String,
    },
    /// The rotation succeeded, but its line in the audit log could not be written.
    #[error(
        "the CA has another intermediate now, {id}, and serve uses it; only the line of the audit log is missing. Take \
         the root's key offline, and do not repeat the command"
    )]
    RotatedUnlogged {
        /// Key identifier of the new intermediate.
        id: String,
        /// Why the line could not be written.
        source: StoreError,
    },
    /// A signer that is to be retired has signed bundles that nodes get.
    #[error(
        "signer {kid} has signed the current bundles of {} nodes ({}), which could not verify them any more; sign them anew first: \
         imprint-host bundle sign --all",
        nodes.len(),
        some(nodes)
    )]
    SignsBundles {
        /// The signer.
        kid: Kid,
        /// The nodes.
        nodes: Vec<String>,
    },
    /// The signers have changed, and the audit log does not say so.
    #[error("{what}; only the line of the audit log is missing, there is nothing to repeat")]
    SignerUnlogged {
        /// What has changed.
        what: String,
        /// Why there is no line.
        source: StoreError,
    },
}

impl State {
    /// Makes CA and store in a new or empty directory.
    pub fn init(dir: &Path, urls: &[EstUrl], now: Timestamp) -> Result<State, Error> {
        State::init_in_turn(dir, urls, now, &mut |_| ())
    }

    /// As [`State::init`]; `waits` is called with the directory before a wait for another command's lock begins.
    pub fn init_in_turn(
        dir: &Path,
        urls: &[EstUrl],
        now: Timestamp,
        waits: &mut dyn FnMut(&Path),
    ) -> Result<State, Error> {
        let ca = Ca::init(dir, now, waits)?;
        let store = Store::create(&database(dir), urls, now)?;
        // Ignored: `serve` makes the reserve if it is missing.
        let _ = room::restore(dir, 0);
        Ok(State { ca, store, urls: urls.to_vec() })
    }

    /// Opens what `init` made.
    pub fn open(dir: &Path) -> Result<State, Error> {
        let ca = Ca::open(dir)?;
        ca::may_change(&database(dir))?;
        let mut store = Store::open(&database(dir))?;
        let urls = store.urls()?;
        // Does something only after an update of this program. The log gets the system's time, whatever `now` the caller
        // uses.
        adding::fill(&mut store, &urls, Timestamp::system())?;
        Ok(State { ca, store, urls })
    }

    /// Adds the nodes of a CSV file: all of them or none.
    pub fn add_rows(
        &mut self,
        file: &str,
        rows: &[record::csv::Row],
        adding: &Adding,
        now: Timestamp,
    ) -> Result<Added, Error> {
        let mut files = Vec::with_capacity(rows.len());
        for row in rows {
            // An error names the line of the CSV file, not the line of the record that was made from it.
            let at_row = |error: RecordError| RecordError { file: file.to_owned(), line: row.line, ..error };
            Record::to_add(file, &row.record, self.ca.root(), &self.urls).map_err(at_row)?;
            files.push((format!("{file}:{}", row.line), row.record.clone()));
        }
        self.add_nodes_as(&files, adding, now)
    }

    /// A node's record.
    pub fn record(&self, node: &str) -> Result<Record, Error> {
        record_of(&self.store, &self.ca, &self.urls, node)
    }

    /// Makes a payload and stores it. The node's earlier payloads become void unless `options.keep` is set.
    pub fn payload(&mut self, node: &str, options: &Options, now: Timestamp) -> Result<Composed, Error> {
        Ok(self.payload_after(node, options, now, |_| Ok::<_, Error>(()))?.0)
    }

    /// As [`State::payload`], but stores nothing unless `prepare` succeeds: a payload that cannot be written must not void
    /// earlier payloads.
    pub fn payload_after<T, E: From<Error>>(
        &mut self,
        node: &str,
        options: &Options,
        now: Timestamp,
        prepare: impl FnOnce(&Composed) -> Result<T, E>,
    ) -> Result<(Composed, T), E> {
        let record = self.record(node)?;
        let bundles = bundled::of(&mut self.store, &record, now)?;
        let mut composed =
            compose::compose(&record, &self.ca, &self.urls, options, bundles, now).map_err(Error::Compose)?;
        let prepared = prepare(&composed)?;
        let booked = self.store.changes().and_then(|changes| {
            book(&changes, &self.ca, &record, &mut composed, (options, None), now)?;
            changes.commit()
        });
        booked.map_err(Error::Store)?;
        Ok((composed, prepared))
    }

    /// A payload for the caller at a door with this HELLO, which is let in as this node.
    pub fn payload_for(
        &mut self,
        hello: &[u8; 32],
        node: &str,
        options: &Options,
        now: Timestamp,
    ) -> Result<Composed, Error> {
        let changes = self.store.changes()?.for_nodes();
        let desk = Desk { changes: &changes, ca: &self.ca, urls: &self.urls, now };
        let composed = payload_for(&desk, hello, node, options)?;
        changes.commit()?;
        Ok(composed)
    }

    /// A payload of this state as a node wants it that has sent a challenge ([`compose::fresh`]). `None`: this state has no key to
    /// sign with.
    pub fn fresh(
        &self,
        payload: &[u8],
        hello: &Hello,
        challenge: &Challenge,
        now: Timestamp,
    ) -> Result<Option<Secret>, Error> {
        let Some(key) = self.ca.signing_key()? else { return Ok(None) };
        Ok(Some(compose::fresh(payload, &key, hello, challenge, now)?))
    }

    /// Makes and stores payloads for many nodes: all of them or none.
    pub fn payloads(&mut self, nodes: &[String], options: &Options, now: Timestamp) -> Result<Vec<Composed>, Error> {
        let mut made = Vec::with_capacity(nodes.len());
        for node in nodes {
            let record = self.record(node)?;
            let bundles = bundled::of(&mut self.store, &record, now)?;
            let composed = compose::compose(&record, &self.ca, &self.urls, options, bundles, now)?;
            made.push((record, composed));
        }
        let changes = self.store.changes()?;
        for (record, composed) in &mut made {
            book(&changes, &self.ca, record, composed, (options, None), now)?;
        }
        changes.commit()?;
        Ok(made.into_iter().map(|(_, composed)| composed).collect())
    }

    /// Copies the state into a new or empty directory, also while `serve` runs. The copy is a state directory without the
    /// root's key. `waits` is called with the directory before a wait for its lock begins.
    pub fn back_up(&self, to: &Path, waits: &mut dyn FnMut(&Path)) -> Result<(), Error> {
        let _held = ca::new_directory(to, waits)?;
        // The store first: the CA's files, copied later, then have every intermediate that the store names.
        self.store.back_up(&database(to))?;
        Ok(self.ca.back_up(to, waits)?)
    }

    /// Makes one decision in a transaction of its own.
    pub fn decide(
        &mut self,
        now: Timestamp,
        decide: impl FnOnce(&Desk<'_>) -> Result<Decision, EnrolError>,
    ) -> Result<Decision, EnrolError> {
        let changes = self.store.changes()?;
        let changes = changes.for_nodes();
        let decision = decide(&Desk { changes: &changes, ca: &self.ca, urls: &self.urls, now })?;
        changes.commit()?;
        decision.tell();
        Ok(decision)
    }

    /// Opens the CA again if `ca rotate` has replaced its intermediate. True: it was opened again.
    pub fn refresh(&mut self) -> Result<bool, Error> {
        if !self.ca.is_outdated() {
            return Ok(false);
        }
        self.ca = Ca::open(self.ca.dir())?;
        Ok(true)
    }

    /// Gives the CA a new intermediate, signed with the root's key: `root_key`, or `root.key` in the directory. `waits` is
    /// called before a wait for the directory's lock begins.
    pub fn rotate(
        &mut self,
        root_key: Option<&Path>,
        now: Timestamp,
        waits: &mut dyn FnMut(&Path),
    ) -> Result<(), Error> {
        // The lock first, then the transaction: the wait for the lock may be long, and `serve` must not wait for the
        // store meanwhile. Both come before the rotation, which cannot be undone.
        let turn = self.ca.turn(waits)?;
        let changes = self.store.changes()?;
        self.ca = Ca::rotate(self.ca.dir(), &turn, root_key, now)?;
        let id = self.ca.current().id();
        let detail = format!("intermediate {id}, until {}", self.ca.current().not_after());
        let event = Event { event: "rotated", node: None, peer: None, detail: &detail };
        let logged = changes.audit(&event, now).and_then(|()| changes.commit());
        logged.map_err(|source| Error::RotatedUnlogged { id, source })
    }

    /// The hosts of the EST URLs. They are the names in the server's certificate.
    pub fn hosts(&self) -> Vec<UrlHost> {
        let host = |url: &EstUrl| match url {
            EstUrl::Https(https) => Some(https.host().clone()),
            EstUrl::Line => None,
        };
        self.urls.iter().filter_map(host).collect()
    }
}

/// A payload for the caller with this HELLO, which was let in as this node, in the desk's transaction. [`Error::NotLetIn`]: it is
/// not let in any more ([`stands`]). The payload is good as long as the caller stands; `options.admitted` is set here. After
/// an error of the store nothing in the transaction may be kept.
pub(crate) fn payload_for(desk: &Desk<'_>, hello: &[u8; 32], node: &str, options: &Options) -> Result<Composed, Error> {
    let Desk { changes, ca, urls, now } = *desk;
    let not_let_in = || Error::NotLetIn(node.to_owned());
    let caller = calling::let_in(changes, hello, node, now)?.ok_or_else(not_let_in)?;
    let level = match caller.standing {
        Standing::Served(_) => return Err(Error::HasCertificate { node: node.to_owned(), code: caller.code }),
        standing => standing.level().ok_or_else(not_let_in)?,
    };
    // Its line key makes the node's earlier payloads void once. Whoever says its HELLO again gets nothing else made void.
    let keep = options.keep || changes.has_good_payload(node, &caller.key, now)?;
    let options = Options { keep, admitted: Some(level), ..*options };
    let record = record_of(changes, ca, urls, node)?;
    let bundles = bundled::within(changes, &record, now)?;
    let mut composed = compose::compose(&record, ca, urls, &options, bundles, now)?;
    book(changes, ca, &record, &mut composed, (&options, Some(&caller.from)), now)?;
    changes.has_payload(composed.id, &caller.key, now)?;
    Ok(composed)
}

fn record_of(books: &Books, ca: &Ca, urls: &[EstUrl], node: &str) -> Result<Record, Error> {
    let row = books.node(node)?.ok_or_else(|| Error::NoSuchNode(node.to_owned()))?;
    let record = Record::compile(&row.file, &row.record, ca.root(), urls)?;
    // A record that an older version took.
    adding::renewable(&row.file, &record)?;
    Ok(record)
}

/// Stores a payload that was made, and the effects on the node's earlier payloads and certificates. `peer`: who gets it at a
/// door.
fn book(
    changes: &Changes<'_>,
    ca: &Ca,
    record: &Record,
    composed: &mut Composed,
    (options, peer): (&Options, Option<&str>),
    now: Timestamp,
) -> Result<(), StoreError> {
    let node = record.name.to_string();
    let voided = if options.keep { 0 } else { withdraw(changes, &node, now)? };
    composed.voided = voided;
    if let Some(made) = composed.certificate.as_ref().filter(|_| !options.keep) {
        composed.superseded = supersede(changes, &node, &made.key_code, now)?;
    }
    changes.add_payload(&PayloadRow {
        id: composed.id,
        node: node.clone(),
        token_hash: composed.token_hash,
        mode: if composed.certificate.is_some() { TokenMode::Once } else { record.mode },
        composed: now,
        expiry: composed.expiry,
        spent: None,
        void_at: None,
        denied_at: None,
    })?;
    let brings = match &composed.certificate {
        None => format!("token {}", mode_name(record.mode)),
        Some(made) => {
            let Made { issued, spki_hash, key_code } = made;
            // Such a payload has no token, so it counts as used from the start.
            changes.spend(composed.id, key_code, now)?;
            changes.add_certificate(&CertificateRow {
                serial: issued.serial.clone(),
                node: node.clone(),
                payload: composed.id,
                spki_hash: *spki_hash,
                key_code: key_code.clone(),
                der: issued.der.clone(),
                issued_at: now,
                not_after: issued.not_after,
                renews: None,
                seen_at: None,
                issuer: ca.current().id(),
                approved: false,
                revoked: None,
                peer: None,
            })?;
            format!("with certificate and key {key_code}, until {}", issued.not_after)
        }
    };
    let detail = format!("payload {}, {brings}, expires {}, {voided} earlier void", composed.id, composed.expiry);
    changes.audit(&Event { event: "payload", node: Some(&node), peer, detail: &detail }, now)
}

/// Voids all earlier payloads of the node, and drops the requests that were made with them. The answer: how many payloads.
fn withdraw(changes: &Changes<'_>, node: &str, now: Timestamp) -> Result<usize, StoreError> {
    changes.drop_requests(node)?;
    changes.void_payloads(node, now)
}

/// Revokes certificates that came in earlier payloads, now that the key `by` goes to the node in a new one: a medium with
/// an old key could still be used to impersonate the node. The answer: codes of the revoked keys. Certificates that the
/// node enrolled for itself are not touched; `enrol`'s gate ends those.
fn supersede(changes: &Changes<'_>, node: &str, by: &str, now: Timestamp) -> Result<Vec<String>, StoreError> {
    let payloads = changes.payloads(node)?;
    // A certificate that came in a payload has no peer, renews nothing, and was made at the same time as the payload.
    let came_with = |row: &CertificateRow| {
        let made_with = |payload: &PayloadRow| payload.id == row.payload && payload.composed == row.issued_at;
        row.peer.is_none() && row.renews.is_none() && payloads.iter().any(made_with)
    };
    let mut codes = Vec::new();
    for row in changes.live_certificates(node, now)?.into_iter().filter(came_with) {
        changes.revoke(&row, CrlReason::Superseded, now)?;
        let detail = format!("key {}: replaced by key {by}", row.key_code);
        changes.audit(&Event { event: "superseded", node: Some(node), peer: None, detail: &detail }, now)?;
        codes.push(row.key_code);
    }
    Ok(codes)
}

fn database(dir: &Path) -> PathBuf {
    dir.join("imprint.db")
}
