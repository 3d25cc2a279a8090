//! Handles a silent node or a lost line: whether the node still needs anything, how long to wait, and the error message.
//! The store knows which node has a certificate; the line knows who has acknowledged one. Sends nothing.

use std::time::Duration;

use imprint::line::Stage;
use tokio::time::Instant;

use super::{APPROVAL, Session, shown, stage_name};
use crate::talk::{Office, Outcome};

/// After this much silence, or this long without a line, the host checks whether the node still needs anything.
const GONE: Duration = Duration::from_secs(5);

/// After a report, repeats of it are answered until this much time has passed since the last one.
const LINGER: Duration = Duration::from_millis(1500);

impl Session<'_> {
    /// The next time to act without input.
    pub(super) fn until(&self) -> Instant {
        self.gone.map_or(self.deadline, |(at, _)| at.min(self.deadline))
    }

    /// Notes that the node is silent or the line is lost.
    pub(super) fn falls_silent(&mut self) {
        self.gone.get_or_insert((Instant::now() + GONE, self.talk.wire.heard()));
    }

    /// Checks whether a node that has been silent for [`GONE`] still needs anything. A node with its certificate does not:
    /// its report may be lost, or was sent while the host was not listening.
    pub(super) async fn look(&mut self) {
        let Some((_, heard)) = self.gone.filter(|(at, _)| *at <= Instant::now() && self.talk.outcome.is_none()) else {
            return;
        };
        self.gone = None;
        if self.talk.wire.heard() != heard {
            return;
        }
        if self.talk.gave_up {
            let reason = "it has failed, and why is lost; look at its console".to_owned();
            self.talk.outcome = Some(Outcome::NodeFailed { reason });
            return;
        }
        match self.unreported().await {
            Some(outcome) => self.talk.outcome = Some(outcome),
            // The node may be enrolling over its network: check again later.
            None => self.gone = Some((Instant::now() + APPROVAL, heard)),
        }
    }

    /// The outcome for a node that has its certificate but whose report is lost. It has acknowledged the certificate here,
    /// or the store has one for this session's payload, which the node got over the network.
    async fn unreported(&self) -> Option<Outcome> {
        let key_code = match (&self.talk.code, &self.talk.payload) {
            (Some(code), _) => self.talk.certified.then(|| code.clone())?,
            (None, Some(payload)) => {
                let latest = self.shared.latest(&self.job.node).await.ok()?;
                latest.filter(|row| row.payload == payload.id && row.revoked.is_none())?.key_code
            }
            (None, None) => return None,
        };
        Some(self.talk.done(key_code, false))
    }

    /// The time limit is over. A node that still answers is not done, even if the store has its certificate.
    pub(super) async fn time_is_over(&mut self) {
        let answers =
            matches!(self.talk.wire.end().stage(), Some(stage) if stage != Stage::Done) && self.gone.is_none();
        let unreported = if answers || self.talk.gave_up { None } else { self.unreported().await };
        self.talk.outcome = Some(unreported.unwrap_or_else(|| Outcome::Failed(self.silence())));
    }

    /// The latest console output, with `lead` before it; empty if there was none.
    pub(super) fn last_words(&self, lead: &str) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() { String::new() } else { format!("{lead}{}", shown(&words.join(" "))) }
    }

    /// The error message for a node that did not finish.
    pub(super) fn silence(&self) -> String {
        if let (Some((_, words)), false) = (&self.foreign, self.talk.wire.end().counts()) {
            return words.clone();
        }
        let window = self.shared.config.window.as_secs();
        let odd = self.odd.map(|odd| format!("; {odd}")).unwrap_or_default();
        let said = format!("{odd}{}", self.last_words(". Last console output: "));
        match (&self.talk.hello, self.talk.wire.end().stage()) {
            (None, _) => format!(
                "no node said HELLO within {window} s; is this its line, at its speed, and does its image hold imprint? \
                 With imprint=auto a node waits for a second only, and for a host that speaks first: --call{said}"
            ),
            (Some(_), None) => format!("the node fell silent; look at its console, and run inject again{said}"),
            (Some(_), Some(stage)) if self.talk.certified => format!(
                "the node has its certificate, but did not say in time that it is done; last stage of the node: \
                 {}{said}",
                stage_name(stage)
            ),
            (Some(_), Some(stage)) => format!("not done in time; last stage of the node: {}{said}", stage_name(stage)),
        }
    }

    /// How long to answer repeats of the report. Longer on a slow line, where the node waits longer before it repeats.
    pub(super) fn linger(&self) -> Duration {
        LINGER.max(self.talk.wire.patience().saturating_mul(2))
    }

    /// Ends the wait for an administrator: the request was decided, or the line is lost and the node will ask again.
    pub(super) fn waited(&mut self) {
        if self.talk.pending.take().is_some() {
            self.deadline = self.deadline.max(Instant::now() + self.shared.config.timeout);
        }
    }
}
