//! The objects of a talk: payload, request, certificates and report. Never decides about them: `compose` decides what is in
//! a payload, and `enrol` who gets a certificate.

use imprint::line::fresh::to_sign_for;
use imprint::line::{Kind, Stage, TimeKey, seal};
use imprint::secret::Secret;
use imprint::status::{self, Status};
use tokio::time::Instant;

use super::{Asked, Decided, Office, Outcome, Signed, Talk, Terms, Trouble, Undone, failed, shown};
use crate::compose::{Medium, Options};
use crate::csr::Csr;
use crate::enrol::{Answer, Credentials, Proof};
use crate::est;

/// How often a node can get its payload, if it was damaged or lost. Conversations that stall before delivery do not count.
const DELIVERIES: u8 = 3;

impl<O: Office> Talk<'_, O> {
    /// Sends the payload into the current conversation, once, sealed for that conversation.
    pub(crate) async fn deliver(&mut self) {
        let (Some(hello), Some(session)) = (self.hello.clone(), imprint::line::End::session(self.wire.end())) else {
            return;
        };
        // The event may be about an earlier conversation that the node has left. The payload goes into the current one,
        // once.
        if self.wire.end().stage() != Some(Stage::Payload) || self.sending == Some(session) {
            return;
        }
        if std::mem::take(&mut self.delivered) {
            self.deliveries = self.deliveries.saturating_add(1);
        }
        if self.deliveries >= DELIVERIES {
            return self.fail("the node asked for its payload again and again; look at its console".to_owned());
        }
        let Terms { plain, unsigned, fresh, expires, admitted } = self.terms;
        let signs = hello.fresh && !plain && !unsigned;
        if plain && !hello.plain {
            return self.fail(
                "the node takes sealed payloads only; leave out --plain, or boot it with imprint.line=plain".to_owned(),
            );
        }
        if self.payload.is_none() {
            // A node credits a seed that was sealed for a key of this boot.
            let options = Options {
                expires,
                seed: !plain,
                single_boot: !plain,
                medium: if plain { Medium::PlainLine } else { Medium::Line },
                // What is signed for a challenge is signed once, when it is sent.
                unsigned: unsigned || signs,
                admitted,
                ..Options::default()
            };
            match self.office.compose(&self.node, &hello, options).await {
                Ok(made) => {
                    if made.voided > 0 {
                        self.tell("voided", &format!("{} earlier payloads of the node", made.voided));
                    }
                    self.time_key = Some(TimeKey::of_hash(made.token_hash));
                    self.payload = Some(made);
                }
                Err(trouble) => return self.trouble(trouble, Undone::Payload),
            }
        }
        let Some(payload) = self.payload.clone() else { return };
        let signed = match to_sign_for(self.wire.end().challenge(), self.office.now()) {
            Some(challenge) if signs => self.office.fresh(&self.node, &payload, &hello, challenge).await,
            // Without a signer this node takes no payload, but it says so itself.
            _ if signs => return self.wire.end_mut().renew(),
            _ => Ok(Signed::NoSigner),
        };
        let payload = payload.bytes;
        let number = self.wire.end().next_number();
        let sealed = |payload: &Secret, kind| seal::seal(payload, &hello, session, kind, number).map_err(failed);
        let object = match signed {
            Ok(Signed::Payload(signed)) => {
                if let Some(key) = &self.time_key {
                    self.wire.end_mut().prove_time(key.clone());
                }
                sealed(&signed, Kind::Fresh).map(|bytes| (Kind::Fresh, bytes))
            }
            Ok(Signed::Void) => {
                self.payload = None;
                self.undone = Some((Instant::now(), Undone::Payload));
                return;
            }
            Ok(Signed::NoSigner) if fresh => {
                Err("this host has no signer; make one with imprint-host signer new".to_owned())
            }
            Ok(Signed::NoSigner) if plain => Ok((Kind::Plain, payload.expose().to_vec())),
            Ok(Signed::NoSigner) => sealed(&payload, Kind::Sealed).map(|bytes| (Kind::Sealed, bytes)),
            Err(trouble) => return self.trouble(trouble, Undone::Payload),
        };
        match object {
            Ok((kind, bytes)) => {
                self.wire.end_mut().send(kind, bytes);
                self.sending = Some(session);
            }
            Err(why) => self.fail(why),
        }
    }

    /// Decides about a request, by the same rules as over HTTP. `again`: the node did not ask again; the host checks
    /// whether an administrator has decided.
    pub(crate) async fn decide(&mut self, request: Vec<u8>, again: bool) {
        (self.pending, self.undone) = (None, None);
        let Some(hello) = self.hello.clone() else { return };
        let Some((tag, csr)) = seal::open_request(&request) else {
            return self.refuse("the request is shorter than its proof");
        };
        let proof = Proof::Line { tag: *tag, hello: Box::new(hello) };
        let credentials = Credentials { name: self.node.clone(), proof };
        let csr = Csr::parse(csr);
        let code = csr.as_ref().ok().map(|csr| csr.code().to_string());
        let Decided { answer, intermediate } =
            match self.office.enroll(Asked { csr, credentials, peer: self.peer.clone() }).await {
                Ok(decided) => decided,
                Err(trouble) => return self.trouble(trouble, Undone::Request(request, again)),
            };
        match answer {
            Answer::Issued { der, detail } => {
                match est::certs_only(&[&der, &intermediate]) {
                    Ok(bytes) => self.wire.end_mut().send(Kind::Certificates, bytes),
                    Err(error) => return self.fail(failed(error)),
                }
                (self.code, self.certified) = (code, false);
                self.tell("signed", &detail);
            }
            Answer::Pending { detail, .. } => {
                if !again {
                    let code = code.unwrap_or_default();
                    let run = format!("imprint-host approve {} {code}", self.node);
                    self.tell("pending", &format!("{detail}; compare the code with the node's console and run: {run}"));
                    self.wire.end_mut().send(Kind::Pending, detail.into_bytes());
                }
                self.pending = Some((request, Instant::now()));
            }
            Answer::Later { detail, .. } => self.refuse(&detail),
            Answer::Unauthorized => self.refuse("no payload"),
            Answer::Refused(refusal) => self.refuse(&refusal.to_string()),
        }
    }

    fn refuse(&mut self, why: &str) {
        self.tell("refused", why);
        self.wire.end_mut().send(Kind::Refused, why.as_bytes().to_vec());
    }

    /// Handles the node's report. Only the first outcome counts.
    pub(crate) async fn report(&mut self, report: &[u8]) {
        if self.outcome.is_some() {
            return;
        }
        let Ok(status) = serde_json::from_slice::<Status>(report) else {
            return self.fail("the node's report is not a status.json; are both of the same release?".to_owned());
        };
        let outcome = match (status.outcome, &status.error) {
            (status::Outcome::Done, _) => match self.certified(status.key_code.as_deref()).await {
                Ok(key_code) => self.done(key_code, true),
                Err(Trouble::Failed(why)) => Outcome::Failed(why),
                Err(trouble) => return self.trouble(trouble, Undone::Report(report.to_vec())),
            },
            (_, Some(error)) => {
                for step in status.steps.iter().rev().take(5).rev() {
                    self.tell("step", &shown(&step.to_string()));
                }
                Outcome::NodeFailed { reason: shown(&format!("{}: {}", error.stage, error.message)) }
            }
            (_, None) => Outcome::NodeFailed { reason: "the node gave no reason".to_owned() },
        };
        self.outcome = Some(outcome);
    }

    /// The code of the node's key, if the store has a certificate for it. A report is not authenticated: anybody who can
    /// write to the line can forge one.
    async fn certified(&self, said: Option<&str>) -> Result<String, Trouble> {
        let Some(said) = said else {
            return Err(Trouble::Failed(
                "the node says that it is done, but not with which key; are both of the same release?".to_owned(),
            ));
        };
        if self.code.as_deref() == Some(said) {
            return Ok(said.to_owned());
        }
        // The certificate was signed by `serve`, or by an earlier run of this command.
        let latest = self.office.latest(&self.node).await?;
        let latest = match &self.payload {
            None => latest,
            Some(payload) => latest.filter(|row| row.payload == payload.id),
        };
        match latest {
            Some(row) if row.key_code == said && row.revoked.is_none() => Ok(row.key_code),
            _ => Err(Trouble::Failed(format!(
                "the node says that it is done with key {}, but this host has issued no certificate for that key; does \
                 another host, or somebody else, write to the line? Compare the key on the node's console",
                shown(said)
            ))),
        }
    }
}
