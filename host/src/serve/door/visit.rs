//! One caller, from HELLO to report: who is it, is it let in, and then what every node gets. Never decides who is let in;
//! the desk does.

use std::sync::Arc;
use std::time::Duration;

use imprint::key_code::KeyCode;
use imprint::line::admission::Proof;
use imprint::line::{End, Hello, Host, HostEvent, Kind, Nonce, Shape, Stage, Wire};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use super::Arrival;
use super::hall::{Follower, Hall, News};
use crate::admission::{Admission, Caller, Level, ProvenKey};
use crate::talk::{Office, Outcome, Talk, Terms, Trouble, kind_name, stage_name};
use crate::x509;

/// A caller must have said HELLO and answered within this time.
const MEET: Duration = Duration::from_secs(15);
/// Bytes that are no frame, before the first frame. More are of something else than a node.
const NOISE: usize = 1024;
/// The most bytes that wait to be written. Nothing is read meanwhile.
const WAITING: usize = 16 * 1024;
/// A caller that waits or was let in is asked about again after this time, also without news: some rules depend on the time, and
/// the store forgets a caller that it has not heard of for a day.
const AGAIN: Duration = Duration::from_secs(60);
/// So it is after this time, if the host could not answer.
const LATER: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(1);
/// A caller is told that it waits after this time only: it may still prove that it has an admission key, and a rule that rests on
/// words looks for a moment first.
const HOLD: Duration = Duration::from_millis(2500);
/// How long repeats of the report are answered after the last one, and at most.
const LINGER: Duration = Duration::from_millis(1500);
const LINGER_MOST: Duration = Duration::from_secs(10);
/// How long a caller may take to acknowledge that it is not served.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long a payload is valid. The node uses it at once.
const EXPIRES: Duration = Duration::from_secs(86_400);

/// How a caller stands.
enum Standing {
    /// It has not answered yet.
    New,
    /// An administrator must decide, or the host cannot answer now.
    Waits {
        why: String,
        /// What the caller was told last, and what the log was.
        told: Option<String>,
        logged: Option<String>,
        again: Instant,
        _follower: Follower,
    },
    /// It is let in. An administrator may end that.
    In { again: Instant, _follower: Follower },
    /// It is told that it is not served.
    Out,
}

struct Visit<'a> {
    hall: &'a Arc<Hall>,
    arrival: Arrival,
    source: String,
    talk: Talk<'a, Hall>,
    key: Option<ProvenKey>,
    standing: Standing,
    /// The caller has answered, so its HELLO is not repeated by somebody.
    met: bool,
    /// Bytes that came before the first frame.
    noise: usize,
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
        key: None,
        standing: Standing::New,
        met: false,
        noise: 0,
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

    fn hello(&mut self, hello: Hello) {
        let code = KeyCode::of(&hello.key);
        let uuid = hello.uuid.map_or("none".to_owned(), |uuid| imprint::hex::uuid(&uuid));
        let serial = hello.serial.clone().unwrap_or_else(|| "none".to_owned());
        self.talk.tell("hello", &format!("line key {code}, says UUID {uuid}, serial number {serial}"));
        // A proof is for one HELLO: another node on the same connection has proven nothing.
        self.key = None;
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
        // Where the key lies, this host's list says. Of one that is not in it nothing is known: everybody may have it.
        self.key = Some(ProvenKey { public, in_image: true });
        if matches!(self.standing, Standing::New | Standing::Waits { .. }) {
            self.look_again().await;
        }
    }

    /// Asks whether the caller is let in.
    async fn ask(&mut self) {
        let Some(hello) = self.talk.hello.clone() else { return };
        if !hello.fresh {
            return self.turned_away(
                "its image names no signer in /imprint/site, or is of an older release: a door sends signed payloads only"
                    .to_owned(),
            );
        }
        let caller = Caller {
            hello,
            from: self.arrival.from.clone(),
            source: self.source.clone(),
            facts: self.arrival.facts.clone(),
            key: self.key,
        };
        match (self.hall.call(caller).await, self.is_in()) {
            (Ok(Admission::Admitted { node, level }), false) => self.admitted(node, level).await,
            (Ok(Admission::Admitted { node, level }), true) => self.stays(&node, level),
            (Ok(Admission::Waits { why, again, .. }), true) => self.ends(why, again),
            (Ok(Admission::Waits { why, again, .. }), false) => {
                self.late = false;
                self.waits(why, again, HOLD);
            }
            (Ok(Admission::Refused { why }), _) => self.turned_away(why),
            (Err(Trouble::Later(why)), _) => self.tries_again(why),
            (Err(Trouble::Ended), _) => self.leave("it is not let in any more".to_owned()),
            // The node calls again.
            (Err(Trouble::Failed(why)), _) => self.leave(why),
        }
    }

    /// The host cannot answer now. A caller that was let in goes on meanwhile.
    fn tries_again(&mut self, why: String) {
        let later = LATER + self.spread(LATER);
        match &mut self.standing {
            Standing::In { again, .. } => *again = Instant::now() + later,
            _ => {
                self.late = true;
                self.waits(why, Some(later), HOLD);
            }
        }
    }

    /// A part of a time: not all that have called together ask again together.
    fn spread(&self, of: Duration) -> Duration {
        let number = self.talk.hello.as_ref().map_or(0, |hello| hello.nonce.0[7]);
        of.saturating_mul(u32::from(number)) / 256
    }

    fn is_in(&self) -> bool {
        matches!(self.standing, Standing::In { .. })
    }

    /// Whether the caller has all that it came for.
    fn is_served(&self) -> bool {
        self.talk.code.is_some()
            || self.talk.outcome.is_some()
            || matches!(self.talk.wire.end().stage(), Some(Stage::Done | Stage::Failed))
    }

    /// The caller is not served, or not any more.
    fn turned_away(&mut self, why: String) {
        let ended = self.is_in();
        self.talk.tell(if ended { "ended" } else { "refused" }, &why);
        self.hall.shared.metrics.called("refused");
        self.standing = Standing::Out;
        if ended && self.talk.is_sending() {
            // Behind the payload it would come too late. The node hears it when it calls again.
            return self.leave = Some((Instant::now(), None));
        }
        self.talk.let_go();
        self.talk.wire.end_mut().send(Kind::Refused, why.into_bytes());
        self.leave.get_or_insert((Instant::now() + FAREWELL, None));
    }

    async fn admitted(&mut self, node: String, level: Level) {
        self.talk.tell("admitted", &format!("as {node}, level {level}"));
        self.hall.shared.metrics.called(level.word());
        self.talk.node = node;
        self.talk.terms.admitted = Some(level);
        let again = Instant::now() + AGAIN + self.spread(AGAIN);
        (self.standing, self.owed) = (Standing::In { again, _follower: self.hall.follow(false) }, None);
        if let Some(request) = self.request.take() {
            self.talk.decide(request, false).await;
        }
    }

    /// The caller is let in still.
    fn stays(&mut self, node: &str, level: Level) {
        if self.talk.node != node || self.talk.terms.admitted != Some(level) {
            return self.leave(format!("it is let in as {node}, level {level}, now: the node has to call again"));
        }
        let next = Instant::now() + AGAIN + self.spread(AGAIN);
        if let Standing::In { again, .. } = &mut self.standing {
            *again = next;
        }
    }

    /// The caller was let in, and is not any more. It waits again where it can; otherwise it has to call again.
    fn ends(&mut self, why: String, again: Option<Duration>) {
        self.talk.tell("ended", &format!("it is not let in any more: {why}"));
        let waits = matches!(self.talk.wire.end().stage(), Some(Stage::Payload | Stage::Request));
        if !waits || self.talk.is_sending() {
            self.standing = Standing::Out;
            return self.leave = Some((Instant::now(), None));
        }
        self.request = self.talk.let_go();
        self.talk.node.clone_from(&self.arrival.from);
        self.talk.terms.admitted = None;
        self.late = false;
        self.waits(why, again, Duration::ZERO);
    }

    /// `hold`: how long the caller is not told that it waits.
    fn waits(&mut self, why: String, again: Option<Duration>, hold: Duration) {
        let after = again.map_or(AGAIN + self.spread(AGAIN) / 4, |after| after.clamp(SOON, AGAIN));
        let (next, at) = (Instant::now() + after, Instant::now() + hold);
        match &mut self.standing {
            Standing::Waits { why: before, again, told, .. } => {
                *again = next;
                if *before != why {
                    // Told at once, unless the first words are still owed.
                    let now = if told.is_some() { Instant::now() } else { at };
                    self.owed.get_or_insert(now);
                    *before = why;
                }
            }
            _ => {
                self.owed = Some(at);
                let _follower = self.hall.follow(true);
                self.standing = Standing::Waits { why, told: None, logged: None, again: next, _follower };
            }
        }
    }

    /// Tells the caller that it waits, if that is due.
    fn tell_what_is_owed(&mut self) {
        if self.owed.take_if(|at| *at <= Instant::now()).is_none() {
            return;
        }
        let (Standing::Waits { why, told, logged, .. }, Some(hello)) = (&mut self.standing, &self.talk.hello) else {
            return;
        };
        if told.as_ref() == Some(why) {
            return;
        }
        *told = Some(why.clone());
        let (code, why) = (KeyCode::of(&hello.key), why.clone());
        // Of a full disk the desk has told: thousands may wait for it.
        if !self.late && logged.as_ref() != Some(&why) {
            let before = logged.replace(why.clone());
            self.talk.tell("waits", &format!("line key {code}: {why}"));
            if before.is_none() {
                self.hall.shared.metrics.called("waits");
            }
        }
        self.talk.wire.end_mut().send(Kind::Pending, why.into_bytes());
    }

    /// An administrator may have decided: about the caller, or about its request.
    async fn look_again(&mut self) {
        match self.standing {
            Standing::Waits { .. } => {
                self.ask().await;
                if self.is_in()
                    && let Some(stage) = self.talk.wire.end().stage()
                {
                    self.talk.reached(stage).await;
                }
            }
            Standing::In { .. } if !self.is_served() => self.ask().await,
            _ => {}
        }
        if self.is_in()
            && let Some((request, _)) = self.talk.pending.clone()
        {
            self.talk.decide(request, true).await;
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
