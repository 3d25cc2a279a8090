//! How long an end waits for an answer: what a line takes for so many bytes, learned from what it took for others. No
//! clock: times are arguments, in microseconds.
//!
//! An answer takes a delay that is always the same, and a time for each byte that was on its way. Neither is known at
//! first, nor are they told apart by one answer. So a wait for more bytes than were measured is taken to be longer in
//! proportion, as if there were no delay; and one for fewer bytes is shorter only by what answers to few and to many
//! bytes have shown. Both err on the long side: what is sent again needlessly makes a slow line slower.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Patience, Timer};

/// What is known of a line.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Bits a second, if somebody said so.
    baud: Option<u32>,
    measured: Option<Measured>,
    /// How often nothing was heard, since an answer was measured.
    doubled: u32,
    /// Bytes that were sent.
    written: u64,
    /// Of those, what is known to have arrived, or to be on its way no more.
    arrived: u64,
    /// What was sent and is to be answered.
    sent: VecDeque<Sent>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    frame: u64,
    at: u64,
    /// Bytes that had been sent by then, this frame included.
    written: u64,
    /// Bytes that were on their way then, this frame included.
    load: u64,
}

/// Means over the last answers: of what they took and of how many bytes were on their way, and how these go together.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// How many answers, [`REMEMBERED`] at most.
    count: i64,
    took: i64,
    load: i64,
    /// Of the load.
    variance: i64,
    /// Of load and time.
    covariance: i64,
    /// By how much answers were later than expected. One that comes early needs no longer wait for the next; it counts as
    /// one in time.
    late: i64,
}

/// So many answers count.
const REMEMBERED: i64 = 8;
/// A beacon.
const CALL: Duration = Duration::from_millis(1000);
/// A call.
const HAIL: Duration = Duration::from_millis(300);
/// The host looks whether the node is there, while things are moving and while an administrator is waited for.
const KEEPALIVE: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(20));
/// A node that heard nothing for so long takes its host for gone. A frame that comes slowly is not silence.
const WATCH: (Duration, Duration) = (Duration::from_millis(2000), Duration::from_secs(50));
const WATCH_FRAMES: u64 = 8;
/// The longest that waits grow to: lines stall while a boot loader or a console server is busy.
const LONGEST: u64 = 5_000_000;
/// The same for a line whose speed is named or was measured, unless so many times what an answer takes is longer: a line
/// that loses frames is no slower for that.
const LONGEST_KNOWN: u64 = 1_000_000;
const TIMES_KNOWN: u64 = 4;
/// The longest wait at all, for lines of a few hundred bits a second.
const NEVER_LONGER: u64 = 60_000_000;
/// The first wait at least: on a line whose speed is named, for what is in between, and on one whose speed nobody knows.
const FIRST: (u64, u64) = (400_000, 1_000_000);
/// What a line whose speed nobody knows is taken to have, until something was measured: what old consoles have.
const UNKNOWN: u32 = 9600;
/// So many times slower than its name says a line is taken to be, until it has shown how slow it is.
const SLOWER: u64 = 4;
/// Scheduling, and a serial-over-LAN that collects characters before it sends them.
const SLACK: u64 = 60_000;
/// Characters in the longest frame with its ends.
const FRAME: u64 = 253;
/// Frames that are remembered until they are answered: more than are ever on their way.
const MOST: usize = 32;

impl Pace {
    pub(super) fn new(baud: Option<u32>) -> Pace {
        Pace { baud, measured: None, doubled: 0, written: 0, arrived: 0, sent: VecDeque::new() }
    }

    /// A frame was sent. `awaited`: it will be answered.
    pub(super) fn sent(&mut self, frame: u64, bytes: usize, awaited: bool, now: u64) {
        if self.sent.is_empty() {
            // What went before is not waited for, so that nobody will hear when it has arrived.
            self.arrived = self.written;
        }
        self.written = self.written.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if awaited {
            let load = self.written.saturating_sub(self.arrived);
            self.sent.push_back(Sent { frame, at: now, written: self.written, load });
            let over = self.sent.len().saturating_sub(MOST);
            self.sent.drain(..over);
        }
    }

    /// A frame that was sent once was answered.
    pub(super) fn answered(&mut self, frame: u64, now: u64) {
        let Some(sent) = self.sent.iter().find(|sent| sent.frame == frame).copied() else { return };
        self.sent.retain(|sent| sent.frame > frame);
        self.arrived = self.arrived.max(sent.written);
        self.doubled = 0;
        let number = |value: u64| i64::try_from(value.min(u64::from(u32::MAX))).unwrap_or_default();
        let (took, load) = (number(now.saturating_sub(sent.at)), number(sent.load));
        match &mut self.measured {
            Some(measured) => measured.add(took, load),
            none => *none = Some(Measured { count: 1, took, load, variance: 0, covariance: 0, late: took / 4 }),
        }
    }

    /// Something that was sent again has arrived. Nobody knows which of them was answered; but something was, so that the
    /// next wait need not be much longer.
    pub(super) fn answered_again(&mut self) {
        self.doubled /= 2;
    }

    /// Nothing is waited for.
    pub(super) fn idle(&mut self) {
        self.sent.clear();
    }

    /// Nothing was heard: what was on its way is lost. The next wait is twice as long (RFC 6298 §5.5), and so are those
    /// after it until an answer to something that was sent once shows how long is long enough. Other frames show nothing.
    pub(super) fn timed_out(&mut self) {
        self.sent.clear();
        self.doubled = self.doubled.saturating_add(1);
    }

    pub(super) fn wait(&self, timer: Timer) -> Option<Duration> {
        match timer {
            Timer::None => None,
            Timer::Call => Some(CALL),
            Timer::Hail => Some(HAIL),
            Timer::Keepalive(Patience::Short) => Some(KEEPALIVE.0),
            Timer::Keepalive(Patience::Long) => Some(KEEPALIVE.1),
            Timer::Watch(Patience::Short) => {
                Some(WATCH.0.max(Duration::from_micros(self.assumed(FRAME.saturating_mul(WATCH_FRAMES)))))
            }
            Timer::Watch(Patience::Long) => Some(WATCH.1),
            Timer::Retransmit => {
                let takes = self.answer_takes();
                let once = takes.max(self.first()).min(NEVER_LONGER);
                let longest = if self.baud.is_some() || self.measured.is_some() {
                    LONGEST_KNOWN.max(takes.saturating_mul(TIMES_KNOWN)).min(LONGEST)
                } else {
                    LONGEST
                };
                let factor = 1u64.checked_shl(self.doubled).unwrap_or(u64::MAX);
                Some(Duration::from_micros(once.saturating_mul(factor).min(once.max(longest))))
            }
        }
    }

    /// How long an answer may take.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_micros(self.answer_takes().max(self.first()).min(LONGEST))
    }

    /// How long the answer to what is on its way may take.
    fn answer_takes(&self) -> u64 {
        let load = if self.sent.is_empty() { FRAME } else { self.written.saturating_sub(self.arrived) };
        let Some(measured) = &self.measured else {
            // Beside what is on its way: a frame that the other end is busy with.
            return self.assumed(load.saturating_add(FRAME)).saturating_add(SLACK.saturating_mul(2));
        };
        let frame = self.assumed(FRAME).min(measured.in_proportion(FRAME));
        // RFC 6298 §2.3 takes four times the deviation to both sides, of which half is to this one.
        let margin = unsigned(measured.late.saturating_mul(8)).max(frame.saturating_add(SLACK));
        let mut expected = measured.expects(load);
        if self.baud.is_some() {
            // A line may be slower than it says, but not by any factor: a short answer from far away has little to do with bytes.
            let more = self.assumed(load.saturating_sub(unsigned(measured.load)));
            expected = expected.min(unsigned(measured.took).saturating_add(more.saturating_mul(SLOWER)));
        }
        expected.saturating_add(margin)
    }

    /// The shortest wait.
    fn first(&self) -> u64 {
        match (&self.measured, self.baud) {
            (Some(_), _) => 0,
            (None, Some(_)) => FIRST.0,
            (None, None) => FIRST.1,
        }
    }

    /// What so many bytes take by what the line is said, or taken, to be.
    fn assumed(&self, bytes: u64) -> u64 {
        bytes.saturating_mul(10_000_000) / u64::from(self.baud.unwrap_or(UNKNOWN).max(50))
    }
}

impl Measured {
    /// As a line without a delay of its own would take.
    fn in_proportion(&self, load: u64) -> u64 {
        unsigned(self.took).saturating_mul(load) / unsigned(self.load).max(1)
    }

    /// How long an answer takes when so many bytes are on their way; long rather than short.
    fn expects(&self, load: u64) -> u64 {
        let less = unsigned(self.load).saturating_sub(load);
        if less == 0 {
            return self.in_proportion(load);
        }
        let shown = unsigned(self.covariance).saturating_mul(less) / unsigned(self.variance).max(1);
        unsigned(self.took).saturating_sub(shown.min(self.in_proportion(less)))
    }

    fn add(&mut self, took: i64, load: i64) {
        let expected = i64::try_from(self.expects(unsigned(load))).unwrap_or(i64::MAX);
        self.late = self.late.saturating_mul(3).saturating_add(took.saturating_sub(expected).max(0)) / 4;
        self.count = self.count.saturating_add(1).min(REMEMBERED);
        let (longer, more) = (took.saturating_sub(self.took), load.saturating_sub(self.load));
        self.took = self.took.saturating_add(longer / self.count);
        self.load = self.load.saturating_add(more / self.count);
        let kept = |of: i64, news: i64| {
            of.saturating_add(news / self.count).saturating_mul(self.count.saturating_sub(1)) / self.count
        };
        self.variance = kept(self.variance, more.saturating_mul(more));
        self.covariance = kept(self.covariance, more.saturating_mul(longer));
    }
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}
