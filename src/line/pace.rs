//! Estimates how long an answer takes, from how long earlier answers took for how many bytes. Never reads a clock:
//! times are arguments, in microseconds.
//!
//! The time for an answer is a constant delay plus a time for each byte on its way. Both are unknown at first, and one
//! answer cannot tell them apart. For more bytes than were measured the estimate therefore grows in proportion, as if
//! there were no delay. For fewer bytes it shrinks only as far as answers to few and to many bytes have shown. Both
//! estimates err on the long side, because a needless retransmission makes a slow line slower.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Patience, Timer};

/// The estimate for one line.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Bits a second, if the speed was given.
    baud: Option<u32>,
    measured: Option<Measured>,
    /// How often the wait is doubled: once for each timeout since an answer was measured.
    doubled: u32,
    /// Bytes that were sent in all.
    written: u64,
    /// How many of these bytes are known, or assumed, to be on their way no more.
    arrived: u64,
    /// Frames that await an answer.
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

/// Means over the last answers: time taken, bytes on their way (the load), and how the two vary together.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// How many answers, [`REMEMBERED`] at most.
    count: i64,
    took: i64,
    load: i64,
    /// Variance of the load.
    variance: i64,
    /// Covariance of load and time.
    covariance: i64,
    /// How much later than expected answers came, on average. An early answer counts as one in time: it need not
    /// lengthen the next wait.
    late: i64,
}

/// How many answers the means cover.
const REMEMBERED: i64 = 8;
/// Time between two HELLOs of a node.
const CALL: Duration = Duration::from_millis(1000);
/// Time between two CALLs of a host.
const HAIL: Duration = Duration::from_millis(300);
/// How often the host asks whether the node is there: without a person, and while an administrator decides.
const KEEPALIVE: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(20));
/// The silence after which a node takes its host for gone: without a person, and while an administrator decides. On a
/// slow line the first is at least the time of [`WATCH_FRAMES`] frames, since a frame that comes slowly is not silence.
const WATCH: (Duration, Duration) = (Duration::from_millis(2000), Duration::from_secs(50));
const WATCH_FRAMES: u64 = 8;
/// The longest wait after doubling: lines stall while a boot loader or a console server is busy.
const LONGEST: u64 = 5_000_000;
/// The longest wait after doubling on a line whose speed is given or was measured, but at least [`TIMES_KNOWN`] times
/// the time of an answer. A line that loses frames is not slower for that.
const LONGEST_KNOWN: u64 = 1_000_000;
const TIMES_KNOWN: u64 = 4;
/// The longest wait at all, for lines of a few hundred bits a second.
const NEVER_LONGER: u64 = 60_000_000;
/// The shortest first wait: on a line whose speed is given, for devices in between; and on a line of unknown speed.
const FIRST: (u64, u64) = (400_000, 1_000_000);
/// The assumed speed of a line of unknown speed, until an answer was measured: that of old consoles.
const UNKNOWN: u32 = 9600;
/// A line is assumed to be at most so many times slower than its given speed, until answers show otherwise.
const SLOWER: u64 = 4;
/// Allowance for scheduling, and for a serial-over-LAN that collects characters before it sends them.
const SLACK: u64 = 60_000;
/// Characters in the longest frame with its mark, carriage return and line feed.
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
            // No answer to the bytes before is awaited, so nothing will tell when they arrive: they count as arrived.
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

    /// A frame that was sent again was answered. The answer may be to any of the copies, so it measures nothing; but
    /// the line works, so the next wait need not be much longer.
    pub(super) fn answered_again(&mut self) {
        self.doubled /= 2;
    }

    /// No answer is awaited.
    pub(super) fn idle(&mut self) {
        self.sent.clear();
    }

    /// No answer came: the frames on their way are lost. The next wait is twice as long (RFC 6298 §5.5). Later waits
    /// stay as long until the answer to a frame that was sent once measures the line; answers to other frames measure
    /// nothing.
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

    /// How long the answer to the bytes on their way may take.
    fn answer_takes(&self) -> u64 {
        let load = if self.sent.is_empty() { FRAME } else { self.written.saturating_sub(self.arrived) };
        let Some(measured) = &self.measured else {
            // One frame more than is on its way: the other end may be busy with it.
            return self.assumed(load.saturating_add(FRAME)).saturating_add(SLACK.saturating_mul(2));
        };
        let frame = self.assumed(FRAME).min(measured.in_proportion(FRAME));
        // RFC 6298 §2.3 takes four times the mean deviation, early and late. `late` holds only the late half, hence
        // eight.
        let margin = unsigned(measured.late.saturating_mul(8)).max(frame.saturating_add(SLACK));
        let mut expected = measured.expects(load);
        if self.baud.is_some() {
            // A line may be slower than its given speed, but not by any factor: the time of a short answer from far
            // away depends little on bytes.
            let more = self.assumed(load.saturating_sub(unsigned(measured.load)));
            expected = expected.min(unsigned(measured.took).saturating_add(more.saturating_mul(SLOWER)));
        }
        expected.saturating_add(margin)
    }

    /// The shortest wait for an answer.
    fn first(&self) -> u64 {
        match (&self.measured, self.baud) {
            (Some(_), _) => 0,
            (None, Some(_)) => FIRST.0,
            (None, None) => FIRST.1,
        }
    }

    /// How long so many bytes take at the given or assumed speed.
    fn assumed(&self, bytes: u64) -> u64 {
        bytes.saturating_mul(10_000_000) / u64::from(self.baud.unwrap_or(UNKNOWN).max(50))
    }
}

impl Measured {
    /// How long so many bytes take if the line has no constant delay.
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
