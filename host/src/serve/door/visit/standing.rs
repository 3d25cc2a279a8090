//! How a caller stands: asks the desk whether it is let in, when it calls, when an administrator may have decided, and once a
//! minute; and tells the caller what has changed. Never decides who is let in; the desk does.

use std::time::Duration;

use imprint::key_code::KeyCode;
use imprint::line::{Kind, Stage};
use tokio::time::Instant;

use super::Visit;
use crate::admission::{Admission, Caller, Level};
use crate::serve::door::hall::Follower;
use crate::talk::Trouble;

/// A caller that waits or was let in is asked about again after this time, also without news: some rules depend on the time, and
/// the store forgets a caller that it has not heard of for a day.
pub(super) const AGAIN: Duration = Duration::from_secs(60);
/// So it is after this time, if the host could not answer.
const LATER: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(1);
/// A caller is told that it waits after this time only: it may still prove that it has an admission key, and a rule that rests on
/// words looks for a moment first.
const HOLD: Duration = Duration::from_millis(2500);
/// How long a caller may take to acknowledge that it is not served.
const FAREWELL: Duration = Duration::from_secs(5);

/// How a caller stands.
pub(super) enum Standing {
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

impl Visit<'_> {
    /// Asks whether the caller is let in.
    pub(super) async fn ask(&mut self) {
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
            keys: self.keys.clone(),
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
    pub(super) fn tries_again(&mut self, why: String) {
        let later = LATER + self.spread(LATER);
        match &mut self.standing {
            Standing::In { again, .. } => *again = Instant::now() + later,
            // It waits already. This may be over in a moment, so it is told the next time only.
            Standing::Waits { again, told: Some(_), .. } if !self.late => {
                (*again, self.late) = (Instant::now() + later, true);
            }
            _ => {
                self.late = true;
                self.waits(why, Some(later), HOLD);
            }
        }
    }

    /// A part of a time: not all that have called together ask again together.
    pub(super) fn spread(&self, of: Duration) -> Duration {
        let number = self.talk.hello.as_ref().map_or(0, |hello| hello.nonce.0[7]);
        of.saturating_mul(u32::from(number)) / 256
    }

    pub(super) fn is_in(&self) -> bool {
        matches!(self.standing, Standing::In { .. })
    }

    /// Whether the caller has all that it came for.
    pub(super) fn is_served(&self) -> bool {
        self.talk.code.is_some()
            || self.talk.outcome.is_some()
            || matches!(self.talk.wire.end().stage(), Some(Stage::Done | Stage::Failed))
    }

    /// The caller is not served, or not any more.
    pub(super) fn turned_away(&mut self, why: String) {
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

    pub(super) async fn admitted(&mut self, node: String, level: Level) {
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
    pub(super) fn stays(&mut self, node: &str, level: Level) {
        if self.talk.node != node {
            return self.leave(format!("it is let in as {node} now: the node has to call again"));
        }
        self.talk.terms.admitted = Some(level);
        let next = Instant::now() + AGAIN + self.spread(AGAIN);
        if let Standing::In { again, .. } = &mut self.standing {
            *again = next;
        }
    }

    /// The caller was let in, and is not any more. It waits again where it can; otherwise it has to call again.
    pub(super) fn ends(&mut self, why: String, again: Option<Duration>) {
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
    pub(super) fn waits(&mut self, why: String, again: Option<Duration>, hold: Duration) {
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

    /// Another conversation has begun: what was said in the one before may not have arrived.
    pub(super) fn begins_anew(&mut self) {
        if let Standing::Waits { told, .. } = &mut self.standing
            && told.take().is_some()
        {
            self.owed.get_or_insert_with(Instant::now);
        }
    }

    /// Tells the caller that it waits, if that is due.
    pub(super) fn tell_what_is_owed(&mut self) {
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
    pub(super) async fn look_again(&mut self) {
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
}
