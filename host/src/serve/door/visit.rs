//! One caller, from HELLO to report: who is it, is it let in, and then what every node gets. Never decides who is let in;
//! the desk does.

mod standing;

use std::sync::Arc;
use std::time::Duration;

use imprint::key_code::KeyCode;
use imprint::line::admission::{MOST_KEYS, Proof};
use imprint::line::{End, Hello, Host, HostEvent, Kind, Nonce, Shape, Stage, Wire};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, sleep_until};

use super::Arrival;
use super::hall::{Hall, News};
use crate::talk::{Office, Outcome, Talk, Terms, kind_name, stage_name};
use crate::x509;
use standing::{AGAIN, Standing};

/// A caller must have said HELLO and answered within this time.
const MEET: Duration = Duration::from_secs(15);
/// Bytes that are no frame, before the first frame. More are of something else than a node.
const NOISE: usize = 1024;
/// So many conversations and objects of one caller cost no turn of its origin. A node needs three or four; each is work: a
/// question to the desk, a signature, a seal.
const FREE: u32 = 16;
/// The most bytes that wait to be written. Nothing is read meanwhile.
const WAITING: usize = 16 * 1024;
/// How long repeats of the report are answered after the last one, and at most.
const LINGER: Duration = Duration::from_millis(1500);
const LINGER_MOST: Duration = Duration::from_secs(10);
/// How long a payload is valid. The node uses it at once.
const EXPIRES: Duration = Duration::from_secs(86_400);

struct Visit<'a> {
    hall: &'a Arc<Hall>,
    arrival: Arrival,
    source: String,
    talk: Talk<'a, Hall>,
    /// The admission keys that the caller has proven.
    keys: Vec<[u8; 32]>,
    standing: Standing,
    /// The caller has answered, so its HELLO is not repeated by somebody.
    met: bool,
    /// Bytes that came before the first frame.
    noise: usize,
    /// Conversations and objects that it has begun.
    work: u32,
    /// The caller waits because the host could not answer, and not for an administrator.
    late: bool,
    /// When the caller is told that it waits, if it still does then.
    owed: Option<Instant>,
    /// The request that the caller waits with: it is decided when the caller is let in.
    request: Option<Vec<u8>>,
    /// When to leave, and what to say then. `None` for the words: the visit has ended well.
    leave: Option<(Instant, Option<String>)>,
}

/// Talks to a caller until it is done, gone, or not served.
pub(super) async fn visit<S>(stream: S, arrival: Arrival, source: String, hall: &Arc<Hall>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let from = arrival.from.clone();
    let Ok(nonce) = x509::random() else {
        return tracing::error!("door {from}: the system has no random numbers");
    };
    let host = Host::new(Nonce(nonce), !arrival.patient, Shape::default());
    let terms = Terms { plain: false, unsigned: false, fresh: true, expires: EXPIRES, admitted: None };
    let talk = Talk::new(hall.as_ref(), (from.clone(), arrival.peer.clone()), Wire::new(host, None), terms);
    let visit = Visit {
        hall,
        arrival,
        source,
        talk,
        keys: Vec::new(),
        standing: Standing::New,
        met: false,
        noise: 0,
        work: 0,
        late: false,
        owed: None,
        request: None,
        leave: None,
    };
    match visit.speak(stream).await {
        Ok(()) => tracing::debug!("door {from}: over"),
        Err(why) => tracing::info!("door {from}: {why}"),
    }
}

impl Visit<'_> {
    async fn speak<S: AsyncRead + AsyncWrite + Unpin>(mut self, stream: S) -> Result<(), String> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut news = self.hall.news();
        let begun = *news.borrow_and_update();
        let meet = Instant::now() + MEET;
        let mut buffer = [0; 2048];
        let mut out: Vec<u8> = Vec::new();
        let mut linger: Option<Instant> = None;
        loop {
            let polled = self.talk.wire.poll(self.hall.now());
            out.extend(polled.bytes);
            let idle = polled.events.is_empty();
            for event in polled.events {
                self.happened(event).await;
            }
            if !idle {
                continue;
            }
            if self.talk.outcome.is_some() && linger.is_none() {
                self.ended();
                linger = Some(Instant::now() + LINGER_MOST);
            }
            if self.owed.is_some_and(|at| at <= Instant::now()) {
                self.tell_what_is_owed();
                continue;
            }
            if self.talk.ended {
                self.talk.ended = false;
                self.ask().await;
                continue;
            }
            let now = Instant::now();
            if let Some((at, why)) = &self.leave
                && *at <= now
            {
                return why.clone().map_or(Ok(()), Err);
            }
            if !self.met && !self.arrival.patient && meet <= now {
                return Err(self.stranger());
            }
            let next = polled.next.map(|at| now + Duration::from_micros(at.saturating_sub(self.hall.now())));
            let again = match &self.standing {
                Standing::Waits { again, .. } => Some(*again),
                Standing::In { again, .. } => Some(*again).filter(|_| !self.is_served()),
                _ => None,
            };
            let due = self.talk.due().filter(|_| self.is_in());
            let leave = self.leave.as_ref().map(|(at, _)| *at);
            let first = if self.met { None } else { Some(meet) };
            let wake = [next, again, due, self.owed, leave, linger, first].into_iter().flatten().min();
            tokio::select! {
                read = reader.read(&mut buffer), if out.len() <= WAITING => match read {
                    Ok(0) if self.leave.is_some() || linger.is_some() => return Ok(()),
                    Ok(0) => return Err(self.gone()),
                    Ok(count) => self.heard(buffer.get(..count).unwrap_or_default())?,
                    Err(_) if linger.is_some() => return Ok(()),
                    Err(error) => return Err(error.to_string()),
                },
                written = writer.write(&out), if !out.is_empty() => match written {
                    Ok(count) => drop(out.drain(..count.min(out.len()))),
                    Err(error) => return Err(error.to_string()),
                },
                () = sleep_until(wake.unwrap_or(now + AGAIN)) => {}
                _ = news.changed() => {
                    let News { set, closed, .. } = *news.borrow_and_update();
                    if closed {
                        return Err("the server stops".to_owned());
                    }
                    if set != begun.set {
                        return Err("the clock of this machine was set: the node has to call again".to_owned());
                    }
                    self.look_again().await;
                }
            }
            if again.is_some_and(|at| at <= Instant::now()) {
                self.look_again().await;
            }
            if due.is_some_and(|at| at <= Instant::now()) && self.is_in() {
                self.talk.resume().await;
            }
        }
    }

    /// Takes bytes. An error: they are not from a node.
    fn heard(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.talk.wire.heard() == 0 {
            if self.noise == 0
                && let Some(what) = of_another_protocol(bytes)
            {
                return Err(format!("{what}; a door speaks the line protocol, and EST is on another port (--listen)"));
            }
            self.noise = self.noise.saturating_add(bytes.len());
        }
        self.talk.wire.push(bytes, self.hall.now());
        if self.talk.wire.heard() == 0 && self.noise > NOISE && !self.arrival.patient {
            return Err(format!("{} bytes without a frame of the line protocol; is it a node?", self.noise));
        }
        Ok(())
    }

    async fn happened(&mut self, event: HostEvent) {
        if is_work(&event) && !self.turn().await {
            return;
        }
        match event {
            HostEvent::Hello(hello) => self.hello(hello),
            HostEvent::Second(hello) => {
                let code = KeyCode::of(&hello.key);
                self.leave(format!("another HELLO, with line key {code}: its node has to call for itself"));
            }
            HostEvent::Foreign(versions) => self.leave(format!(
                "it speaks versions {} to {} of the line protocol, and this program does not; bring both to the same \
                 release",
                versions.lowest, versions.highest
            )),
            HostEvent::Opened(_, stage) | HostEvent::Stage(stage) => {
                self.met = true;
                if matches!(event, HostEvent::Opened(..)) {
                    self.request = None;
                    self.begins_anew();
                }
                self.talk.tell("node", stage_name(stage));
                let wants = matches!(stage, Stage::Payload | Stage::Busy | Stage::Request);
                if wants && matches!(self.standing, Standing::New | Standing::Waits { .. }) {
                    self.ask().await;
                }
                if self.is_in() {
                    self.talk.reached(stage).await;
                }
            }
            HostEvent::Object(Kind::Admission, proof) => self.proven(&proof).await,
            // It says it once in a conversation.
            HostEvent::Object(Kind::Request, request) if matches!(self.standing, Standing::Waits { .. }) => {
                self.request = Some(request);
            }
            HostEvent::Object(kind @ (Kind::Request | Kind::Report), _) if !self.is_in() => {
                self.talk.tell("unexpected", kind_name(kind));
            }
            HostEvent::Delivered(Kind::Refused) | HostEvent::Refused(Kind::Refused, _)
                if matches!(self.standing, Standing::Out) =>
            {
                self.leave = Some((Instant::now(), None));
            }
            HostEvent::Challenged if !self.is_in() => {}
            HostEvent::Lost => self.leave("the node does not answer".to_owned()),
            HostEvent::Challenged | HostEvent::Delivered(_) | HostEvent::Refused(..) | HostEvent::Object(..) => {
                self.talk.happened(event).await;
            }
        }
    }

    /// Whether the caller may make work now: somebody who begins conversations on one connection without a pause has no more
    /// turns than somebody who calls without a pause.
    async fn turn(&mut self) -> bool {
        self.work = self.work.saturating_add(1);
        if self.work <= FREE {
            return true;
        }
        let Some(wait) = self.hall.turn(&self.source) else {
            self.leave("it begins too many conversations, or sends too many objects".to_owned());
            return false;
        };
        if !wait.is_zero() {
            sleep(wait).await;
        }
        true
    }

    fn hello(&mut self, hello: Hello) {
        let code = KeyCode::of(&hello.key);
        let uuid = hello.uuid.map_or("none".to_owned(), |uuid| imprint::hex::uuid(&uuid));
        let serial = hello.serial.clone().unwrap_or_else(|| "none".to_owned());
        self.talk.tell("hello", &format!("line key {code}, says UUID {uuid}, serial number {serial}"));
        // A proof is for one HELLO: another node on the same connection has proven nothing.
        self.keys.clear();
        self.talk.met(hello);
    }

    /// The caller says that it has an admission key. A proof counts for this HELLO and in this conversation only.
    async fn proven(&mut self, proof: &[u8]) {
        let (Some(hello), Some(session)) = (&self.talk.hello, self.talk.wire.end().session()) else { return };
        let Some(public) = Proof::decode(proof).and_then(|proof| proof.key(hello, session.host)) else {
            return self
                .talk
                .tell("not taken", "the proof of an admission key is for another node or another conversation");
        };
        // Said again, it brings no news.
        if self.keys.contains(&public) {
            return;
        }
        if self.keys.len() >= MOST_KEYS {
            return self.talk.tell("not taken", &format!("it has proven {MOST_KEYS} other admission keys"));
        }
        self.keys.push(public);
        if matches!(self.standing, Standing::New | Standing::Waits { .. }) {
            self.look_again().await;
        }
    }

    fn leave(&mut self, why: String) {
        self.leave = Some((Instant::now(), Some(why)));
    }

    /// The talk has its outcome: tells it, and stays for a moment, since the last acknowledgement may be lost.
    fn ended(&mut self) {
        let Some(outcome) = &self.talk.outcome else { return };
        self.talk.tell(outcome.word(), &outcome.to_string());
        self.hall.shared.metrics.called(outcome.word());
        let stays = match outcome {
            Outcome::Done { .. } | Outcome::NodeFailed { .. } => {
                LINGER.max(self.talk.wire.patience().saturating_mul(2))
            }
            Outcome::Failed(_) => Duration::from_millis(100),
        };
        self.leave = Some((Instant::now() + stays, None));
    }

    /// Why a caller that has not answered in time is left.
    fn stranger(&self) -> String {
        let within = MEET.as_secs();
        match (&self.talk.hello, self.noise) {
            (Some(_), _) => format!("it said HELLO and did not answer within {within} s"),
            (None, 0) => format!("it said nothing within {within} s"),
            (None, noise) => format!("{noise} bytes without a HELLO within {within} s; is it a node?"),
        }
    }

    /// Why the connection ended too early.
    fn gone(&self) -> String {
        match (self.talk.wire.end().stage(), &self.standing) {
            (None, _) => "it hung up before it had answered".to_owned(),
            (Some(stage), Standing::In { .. }) => format!("it hung up; last stage of the node: {}", stage_name(stage)),
            (Some(_), _) => "it hung up before it was let in".to_owned(),
        }
    }
}

fn is_work(event: &HostEvent) -> bool {
    matches!(event, HostEvent::Opened(..) | HostEvent::Stage(_) | HostEvent::Object(..))
}

/// Words for a protocol that begins like this and is not the line protocol.
fn of_another_protocol(bytes: &[u8]) -> Option<&'static str> {
    // RFC 8446 §5.1: a record with a handshake message.
    if bytes.starts_with(&[22, 3]) {
        return Some("it speaks TLS");
    }
    let http = ["GET ", "POST ", "HEAD ", "PUT ", "OPTIONS ", "CONNECT ", "PRI * HTTP"];
    if http.iter().any(|method| bytes.starts_with(method.as_bytes())) {
        return Some("it speaks HTTP");
    }
    bytes.starts_with(b"SSH-").then_some("it speaks SSH")
}
