//! One node at the end of a line: sends its payload, takes its request, sends its certificates, and takes its report.
//! `inject` and the door use it alike. Never opens a line, and never decides who gets what: `compose` decides what is in a
//! payload, and `enrol` who gets a certificate.

mod objects;
mod words;

use std::time::Duration;

use imprint::line::{
    Challenge, End, Hello, Host, HostEvent, Kind, NotTaken, Session as Conversation, Stage, TimeKey, Wire,
};
use imprint::payload::PayloadId;
use imprint::secret::Secret;
use tokio::time::Instant;

pub use words::Outcome;
pub(crate) use words::{kind_name, shown, stage_name};

use crate::admission::Level;
use crate::compose::{Composed, Options};
use crate::csr::{Csr, CsrError};
use crate::enrol::{Answer, Credentials};
use crate::store::CertificateRow;

/// After this time the host tries again what it had no room for.
const LATER: Duration = Duration::from_secs(5);
/// After this time it asks again for a node that is not let in any more.
const SOON: Duration = Duration::from_secs(1);

/// What a talk needs from the program that drives it. There are two: `inject` has the store to itself; the door asks the
/// server's desk.
pub(crate) trait Office: Sync {
    /// Microseconds since 1970. Setting the system's clock moves no timer.
    fn now(&self) -> u64;

    /// Tells people or programs what has happened to a node.
    fn tell(&self, node: &str, event: &str, detail: &str);

    /// Makes a payload for the node with this HELLO and stores it.
    fn compose(
        &self,
        node: &str,
        hello: &Hello,
        options: Options,
    ) -> impl Future<Output = Result<Payload, Trouble>> + Send;

    /// The payload, signed for this HELLO, for the challenge and for this moment.
    fn fresh(
        &self,
        node: &str,
        payload: &Payload,
        hello: &Hello,
        challenge: Challenge,
    ) -> impl Future<Output = Result<Signed, Trouble>> + Send;

    /// Decides about a request, by the same rules as over HTTP.
    fn enroll(&self, asked: Asked) -> impl Future<Output = Result<Decided, Trouble>> + Send;

    /// The node's latest certificate.
    fn latest(&self, node: &str) -> impl Future<Output = Result<Option<CertificateRow>, Trouble>> + Send;
}

/// Why an office has not done what it was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// It cannot now. The talk asks again.
    Later(String),
    /// The node is not let in any more.
    Ended,
    /// It cannot.
    Failed(String),
}

impl From<String> for Trouble {
    fn from(why: String) -> Trouble {
        Trouble::Failed(why)
    }
}

/// A payload, signed for a node and a moment.
pub(crate) enum Signed {
    /// The signed payload.
    Payload(Secret),
    /// There is no key to sign with.
    NoSigner,
    /// The payload is not good any more. The office has forgotten it, and makes another.
    Void,
}

/// What a talk has still to do, because its office could not.
enum Undone {
    /// The node waits for its payload.
    Payload,
    /// It has sent this request. `true`: an administrator may have decided.
    Request(Vec<u8>, bool),
    /// It has sent this report.
    Report(Vec<u8>),
}

/// A payload that was made.
#[derive(Clone)]
pub(crate) struct Payload {
    pub(crate) id: PayloadId,
    pub(crate) bytes: Secret,
    /// SHA-256 of its token.
    pub(crate) token_hash: [u8; 32],
    /// How many earlier payloads of the node it made void.
    pub(crate) voided: usize,
}

impl From<Composed> for Payload {
    fn from(made: Composed) -> Payload {
        let bytes = Secret::new(made.bytes.to_vec());
        Payload { id: made.id, bytes, token_hash: made.token_hash, voided: made.voided }
    }
}

/// A request for a certificate that came over a line.
pub(crate) struct Asked {
    pub(crate) csr: Result<Csr, CsrError>,
    pub(crate) credentials: Credentials,
    /// The other end, for the audit log and for limits.
    pub(crate) peer: String,
}

/// The decision about a request.
pub(crate) struct Decided {
    pub(crate) answer: Answer,
    /// The intermediate CA, DER. The node gets it with its certificate.
    pub(crate) intermediate: Vec<u8>,
}

/// What the node is sent, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Send the payload unsealed, to a node that accepts this.
    pub(crate) plain: bool,
    /// Send the payload without a signature.
    pub(crate) unsigned: bool,
    /// Send no payload that is not signed for the node's challenge.
    pub(crate) fresh: bool,
    /// How long a payload is valid.
    pub(crate) expires: Duration,
    /// How the node was let in at a door. It is in the payload, under the signature.
    pub(crate) admitted: Option<Level>,
}

/// A node, and how far it is.
pub(crate) struct Talk<'a, O> {
    office: &'a O,
    /// Name of the record.
    pub(crate) node: String,
    /// The other end, for the audit log and for limits.
    peer: String,
    pub(crate) terms: Terms,
    pub(crate) wire: Wire<Host>,
    pub(crate) hello: Option<Hello>,
    pub(crate) hello_at: Option<Instant>,
    /// The payload of this session. Each conversation gets it sealed anew.
    pub(crate) payload: Option<Payload>,
    /// What this host proves the time with, once the node has a payload that was signed for its challenge.
    time_key: Option<TimeKey>,
    /// The conversation that the payload is being sent in.
    sending: Option<Conversation>,
    /// The node has the whole payload and has sent no request since.
    delivered: bool,
    deliveries: u8,
    /// The request that waits for an administrator, and when it was looked at last.
    pub(crate) pending: Option<(Vec<u8>, Instant)>,
    /// What is still to be done, and when to try again.
    undone: Option<(Instant, Undone)>,
    /// The office has said that the node is not let in any more.
    pub(crate) ended: bool,
    /// Code of the key that this session has signed a certificate for.
    pub(crate) code: Option<String>,
    /// Whether the node has acknowledged that certificate.
    pub(crate) certified: bool,
    /// Whether the node has said that it failed. The report with the reason may be lost.
    pub(crate) gave_up: bool,
    pub(crate) outcome: Option<Outcome>,
}

impl<'a, O: Office> Talk<'a, O> {
    pub(crate) fn new(office: &'a O, (node, peer): (String, String), wire: Wire<Host>, terms: Terms) -> Talk<'a, O> {
        Talk {
            office,
            node,
            peer,
            terms,
            wire,
            hello: None,
            hello_at: None,
            payload: None,
            time_key: None,
            sending: None,
            delivered: false,
            deliveries: 0,
            pending: None,
            undone: None,
            ended: false,
            code: None,
            certified: false,
            gave_up: false,
            outcome: None,
        }
    }

    pub(crate) fn tell(&self, event: &str, detail: &str) {
        self.office.tell(&self.node, event, detail);
    }

    /// A HELLO came that this talk is about from now on.
    pub(crate) fn met(&mut self, hello: Hello) {
        self.hello = Some(hello);
        self.hello_at = Some(Instant::now());
    }

    /// The node has reached a stage. Sends what it wants there.
    pub(crate) async fn reached(&mut self, stage: Stage) {
        self.gave_up = stage == Stage::Failed;
        self.certified |= stage == Stage::Done && self.code.is_some();
        if stage == Stage::Payload {
            self.deliver().await;
        }
    }

    /// Handles an event that has nothing to do with who the node is.
    pub(crate) async fn happened(&mut self, event: HostEvent) {
        match event {
            HostEvent::Challenged => self.deliver().await,
            HostEvent::Delivered(kind) => {
                if is_payload(kind) {
                    (self.sending, self.delivered) = (None, true);
                }
                self.certified |= kind == Kind::Certificates && self.code.is_some();
                let (retransmits, _) = self.wire.sent();
                self.tell("delivered", &format!("{}, {retransmits} retransmits so far", kind_name(kind)));
            }
            HostEvent::Refused(kind, reason) => {
                self.tell("not taken", &format!("{}: {reason}", kind_name(kind)));
                if is_payload(kind) {
                    self.sending = None;
                    // The node gives the same reason each time, so fail. Not for `Unwanted`: the payload was wanted when it
                    // was sent.
                    if reason != NotTaken::Unwanted {
                        self.fail(format!("the node does not take its payload: {reason}"));
                    }
                }
            }
            HostEvent::Object(Kind::Request, request) => self.decide(request, false).await,
            HostEvent::Object(Kind::Report, report) => self.report(&report).await,
            // At a door it was looked at already. Elsewhere whoever runs the command says which node it is.
            HostEvent::Object(Kind::Admission, _) => {}
            HostEvent::Object(kind, _) => self.tell("unexpected", kind_name(kind)),
            _ => {}
        }
    }

    /// When to call [`Talk::resume`].
    pub(crate) fn due(&self) -> Option<Instant> {
        self.undone.as_ref().map(|(at, _)| *at)
    }

    /// Tries again what the office could not do.
    pub(crate) async fn resume(&mut self) {
        match self.undone.take().map(|(_, undone)| undone) {
            None => {}
            Some(Undone::Payload) => self.deliver().await,
            Some(Undone::Request(request, again)) => self.decide(request, again).await,
            Some(Undone::Report(report)) => self.report(&report).await,
        }
    }

    fn trouble(&mut self, trouble: Trouble, undone: Undone) {
        match trouble {
            Trouble::Later(why) => {
                self.tell("later", &why);
                self.undone = Some((Instant::now() + LATER, undone));
            }
            Trouble::Ended => {
                self.ended = true;
                self.undone = Some((Instant::now() + SOON, undone));
            }
            Trouble::Failed(why) => self.fail(why),
        }
    }

    /// Whether a payload is on its way to the node.
    pub(crate) fn is_sending(&self) -> bool {
        self.sending.is_some() && self.sending == End::session(self.wire.end())
    }

    /// The node is not let in any more: forgets what was made for it. The answer: the request that it waits with, which is to
    /// be decided if it is let in again.
    pub(crate) fn let_go(&mut self) -> Option<Vec<u8>> {
        (self.payload, self.time_key, self.sending) = (None, None, None);
        (self.delivered, self.deliveries, self.ended) = (false, 0, false);
        match (self.pending.take(), self.undone.take()) {
            (Some((request, _)), _) | (_, Some((_, Undone::Request(request, _)))) => Some(request),
            _ => None,
        }
    }

    pub(crate) fn fail(&mut self, why: String) {
        if self.outcome.is_none() {
            self.outcome = Some(Outcome::Failed(why));
        }
    }

    /// The outcome of a node that has its certificate.
    pub(crate) fn done(&self, key_code: String, reported: bool) -> Outcome {
        let millis = self.hello_at.map(|at| at.elapsed().as_millis()).unwrap_or_default();
        Outcome::Done {
            key_code,
            payload: self.payload.as_ref().map(|payload| payload.bytes.expose().len()).unwrap_or_default(),
            retransmits: self.wire.sent().0,
            millis: u64::try_from(millis).unwrap_or(u64::MAX),
            reported,
        }
    }
}

fn is_payload(kind: Kind) -> bool {
    matches!(kind, Kind::Sealed | Kind::Plain | Kind::Fresh)
}

/// An error with its reasons, as one line.
pub(crate) fn failed(error: impl std::error::Error + 'static) -> String {
    imprint::chain::chain(&error)
}
