//! The objects of a session: payload, request, certificate and report. Never decides about them: `compose` decides what is
//! in a payload, and `enrol` who gets a certificate.

use imprint::line::{Challenge, Hello, Kind, Stage, TimeKey, seal};
use imprint::secret::Secret;
use imprint::status::{self, Status};
use tokio::time::Instant;

use super::{APPROVAL, Session, failed, shown};
use crate::compose::{Medium, Options};
use crate::csr::Csr;
use crate::enrol::{self, Answer, Credentials, Proof, Request};
use crate::est;
use crate::inject::Config;
use crate::inject::words::Outcome;

/// In microseconds: after this time a host asks for another challenge, rather than sign for this one.
const YOUNG: u64 = 2_000_000;

/// How often a node can get its payload, if it was damaged or lost. Conversations that stall before delivery do not count.
const DELIVERIES: u8 = 3;

impl Session<'_> {
    /// Sends the payload into the current conversation, once, sealed for that conversation.
    pub(super) async fn deliver(&mut self) {
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
        let Config { plain, unsigned, expires, .. } = self.shared.config;
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
                medium: Medium::Line,
                unsigned,
                ..Options::default()
            };
            let now = self.shared.timestamp();
            let node = self.job.node.clone();
            let made = self.shared.books(move |state| state.payload(&node, &options, now)).await;
            match made {
                Ok(made) => {
                    if made.voided > 0 {
                        self.tell("voided", &format!("{} earlier payloads of the node", made.voided));
                    }
                    self.time_key = Some(TimeKey::of_hash(made.token_hash));
                    self.payload = Some((made.id, Secret::new(made.bytes.to_vec())));
                }
                Err(error) => return self.fail(failed(error)),
            }
        }
        let Some(payload) = self.payload.as_ref().map(|(_, payload)| payload.clone()) else { return };
        let signs = hello.fresh && !plain && !unsigned;
        let fresh = match self.young_challenge() {
            Some(challenge) if signs => self.signed(&payload, &hello, challenge).await,
            // Without a signer this node takes no payload, but it says so itself.
            _ if signs => return self.wire.end_mut().renew(),
            _ => Ok(None),
        };
        let number = self.wire.end().next_number();
        let sealed = |payload: &Secret, kind| seal::seal(payload, &hello, session, kind, number).map_err(failed);
        let object = match fresh {
            Ok(Some(fresh)) => {
                if let Some(key) = &self.time_key {
                    self.wire.end_mut().prove_time(key.clone());
                }
                sealed(&fresh, Kind::Fresh).map(|bytes| (Kind::Fresh, bytes))
            }
            Ok(None) if plain => Ok((Kind::Plain, payload.expose().to_vec())),
            Ok(None) => sealed(&payload, Kind::Sealed).map(|bytes| (Kind::Sealed, bytes)),
            Err(why) => Err(why),
        };
        match object {
            Ok((kind, bytes)) => {
                self.wire.end_mut().send(kind, bytes);
                self.sending = Some(session);
            }
            Err(why) => self.fail(why),
        }
    }

    /// The node's newest challenge, if what is signed for it now comes long before it is too old.
    fn young_challenge(&self) -> Option<Challenge> {
        let (challenge, heard) = self.wire.end().challenge()?;
        (self.shared.now().saturating_sub(heard) <= YOUNG).then_some(challenge)
    }

    /// The payload, signed for this node and at this moment. `None`: there is no key to sign with.
    async fn signed(&self, payload: &Secret, hello: &Hello, challenge: Challenge) -> Result<Option<Secret>, String> {
        let (payload, hello, now) = (payload.clone(), hello.clone(), self.shared.timestamp());
        let signed = self.shared.books(move |state| state.fresh(payload.expose(), &hello, &challenge, now));
        signed.await.map_err(failed)
    }

    /// Decides about a request, by the same rules as over HTTP. `again`: the node did not ask again; the host checks
    /// whether an administrator has decided.
    pub(super) async fn decide(&mut self, request: Vec<u8>, again: bool) {
        self.waited();
        let Some(hello) = self.hello.clone() else { return };
        let Some((tag, csr)) = seal::open_request(&request) else {
            return self.refuse("the request is shorter than its proof");
        };
        let proof = Proof::Line { tag: *tag, hello: Box::new(hello) };
        let credentials = Some(Credentials { name: self.job.node.clone(), proof });
        let peer = self.job.line.to_string();
        let now = self.shared.timestamp();
        let csr = Csr::parse(csr);
        let code = csr.as_ref().ok().map(|csr| csr.code().to_string());
        let books = self.shared.books(move |state| {
            let asked = Request { csr: csr.as_ref(), credentials: credentials.as_ref(), peer: &peer };
            let decided = state
                .refresh()
                .map_err(failed)
                .and_then(|_| state.decide(now, |desk| enrol::simple_enroll(desk, &asked)).map_err(failed));
            decided.map(|decision| (decision.answer, state.ca.intermediate().to_vec()))
        });
        match books.await {
            Ok((Answer::Issued { der, detail }, intermediate)) => {
                match est::certs_only(&[&der, &intermediate]) {
                    Ok(bytes) => self.wire.end_mut().send(Kind::Certificates, bytes),
                    Err(error) => return self.fail(failed(error)),
                }
                (self.code, self.certified) = (code, false);
                self.tell("signed", &detail);
            }
            Ok((Answer::Pending { detail, .. }, _)) => {
                if !again {
                    let code = code.unwrap_or_default();
                    let run = format!("imprint-host approve {} {code}", self.job.node);
                    self.tell("pending", &format!("{detail}; compare the code with the node's console and run: {run}"));
                    self.wire.end_mut().send(Kind::Pending, detail.into_bytes());
                }
                self.pending = Some((request, Instant::now() + APPROVAL));
            }
            Ok((Answer::Later { detail, .. }, _)) => self.refuse(&detail),
            Ok((Answer::Unauthorized, _)) => self.refuse("no payload"),
            Ok((Answer::Refused(refusal), _)) => self.refuse(&refusal.to_string()),
            Err(why) => self.fail(why),
        }
    }

    fn refuse(&mut self, why: &str) {
        self.tell("refused", why);
        self.wire.end_mut().send(Kind::Refused, why.as_bytes().to_vec());
    }

    /// Handles the node's report. Only the first outcome counts.
    pub(super) async fn report(&mut self, report: &[u8]) {
        if self.outcome.is_some() {
            return;
        }
        let Ok(status) = serde_json::from_slice::<Status>(report) else {
            return self.fail("the node's report is not a status.json; are both of the same release?".to_owned());
        };
        let outcome = match (status.outcome, &status.error) {
            (status::Outcome::Done, _) => match self.certified(status.key_code.as_deref()).await {
                Ok(key_code) => self.done(key_code, true),
                Err(why) => Outcome::Failed(why),
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
    async fn certified(&self, said: Option<&str>) -> Result<String, String> {
        let Some(said) = said else {
            return Err(
                "the node says that it is done, but not with which key; are both of the same release?".to_owned()
            );
        };
        if self.code.as_deref() == Some(said) {
            return Ok(said.to_owned());
        }
        // The certificate was signed by `serve`, or by an earlier run of this command.
        let node = self.job.node.clone();
        let (latest, _) = self.shared.books(move |state| state.store.latest(&node)).await.map_err(failed)?;
        let latest = match &self.payload {
            None => latest,
            Some((id, _)) => latest.filter(|row| row.payload == *id),
        };
        match latest {
            Some(row) if row.key_code == said && row.revoked.is_none() => Ok(row.key_code),
            _ => Err(format!(
                "the node says that it is done with key {}, but this host has issued no certificate for that key; does \
                 another host, or somebody else, write to the line? Compare the key on the node's console",
                shown(said)
            )),
        }
    }
}
