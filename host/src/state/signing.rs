//! Changes the signers of payloads under the lock of the state directory, and writes each change to the audit log.

use std::path::Path;

use imprint::payload::EstUrl;
use imprint::payload::signed::Signer;
use imprint::time::Timestamp;

use super::sealed::signed_bundles;
use super::{Error, State};
use crate::ca::{Ca, Standing, StateError};
use crate::store::{Changes, Event};

/// A change of the signers.
#[derive(Clone, Copy, Debug)]
pub enum Signing<'a> {
    /// Makes the first signer of a directory that has none: a new key, or the one in this file.
    New(Option<&'a Path>),
    /// Announces a signer that signs after the next rotation, so that images can name it before.
    Announce(Option<&'a Path>),
    /// Lets the announced signer sign from now on; without one, a new key, or the one in this file.
    Rotate(Option<&'a Path>),
    /// Takes the signer with this key id off the list.
    Retire(&'a str),
}

impl State {
    /// Makes the change. Calls `waits` if it has to wait for another command. Returns the signer that was changed.
    pub fn sign_with(
        &mut self,
        signing: Signing<'_>,
        now: Timestamp,
        waits: &mut dyn FnMut(&Path),
    ) -> Result<Signer, Error> {
        let turn = self.ca.turn(waits)?;
        let changes = self.store.changes()?;
        let before = self.ca.signing_key()?.map(|key| key.signer().clone());
        let signer = match (signing, &before) {
            (Signing::New(_), Some(before)) => return Err(StateError::SignerThere(before.kid()).into()),
            (Signing::Announce(_), None) => return Err(StateError::NoSigner(self.ca.dir().to_owned()).into()),
            (Signing::New(key) | Signing::Announce(key), _) => self.ca.announce(&turn, key)?,
            (Signing::Rotate(key), _) => self.ca.rotate_signer(&turn, key)?,
            (Signing::Retire(kid), _) => {
                unused(&changes, &self.ca, &self.urls, kid)?;
                self.ca.retire_signer(&turn, kid)?
            }
        };
        let kid = signer.kid();
        let detail = match (signing, before) {
            (Signing::New(_), _) => format!("{kid} signs payloads from now on: {signer}"),
            (Signing::Announce(_), _) => format!("{kid} is announced: {signer}"),
            (Signing::Rotate(_), Some(before)) => {
                format!("{kid} signs payloads from now on, {} stays listed: {signer}", before.kid())
            }
            (Signing::Rotate(_), None) => format!("{kid} signs payloads from now on: {signer}"),
            (Signing::Retire(_), _) => format!("{kid} is retired: {signer}"),
        };
        let event = Event { event: "signer", node: None, peer: None, detail: &detail };
        let logged = changes.audit(&event, now).and_then(|()| changes.commit());
        logged.map_err(|source| Error::SignerUnlogged { what: detail, source })?;
        Ok(signer)
    }
}

/// An error if a node gets a bundle that this key has signed: without its line no node takes it.
fn unused(changes: &Changes<'_>, ca: &Ca, urls: &[EstUrl], kid: &str) -> Result<(), Error> {
    // The one that signs, and one that is not listed, are refused anyway.
    let is_it =
        |(signer, standing): &(Signer, Standing)| signer.kid().to_string() == kid && *standing != Standing::Signs;
    let Some((signer, _)) = ca.signers()?.into_iter().find(is_it) else { return Ok(()) };
    let kid = signer.kid();
    let signed = signed_bundles(changes, urls)?.into_iter().filter(|(_, by)| *by == Some(kid));
    let nodes: Vec<String> = signed.map(|(node, _)| node).collect();
    if nodes.is_empty() { Ok(()) } else { Err(Error::SignsBundles { kid, nodes }) }
}
