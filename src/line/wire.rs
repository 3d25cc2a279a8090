//! Around either end of a line: bytes to packets and back, round trips measured, timers as durations. The ends decide
//! what is said; here is only when it is said again.

use std::time::Duration;

use super::frame::{Frame, Packet};
use super::scan::Scanner;
use super::{End, Patience, Timer};

/// An end with bytes on one side and a driver on the other.
pub struct Wire<E> {
    end: E,
    scanner: Scanner,
    pace: Pace,
    text: Vec<u8>,
    keep_text: bool,
    /// What is waited for, and until when by the clock of `now`.
    armed: Option<(Timer, u64)>,
    retransmits: u64,
    frames: u64,
}

/// What became of a poll.
#[derive(Debug)]
pub struct Polled<T> {
    /// To be written to the line.
    pub bytes: Vec<u8>,
    /// What the end has to tell.
    pub events: Vec<T>,
    /// When to poll again at the latest, by the clock of `now`; `None`: when something comes.
    pub next: Option<u64>,
}

impl<E: End> Wire<E> {
    /// `baud`: bits a second, if the line has a speed that is known.
    pub fn new(end: E, baud: Option<u32>) -> Wire<E> {
        Wire {
            end,
            scanner: Scanner::default(),
            pace: Pace::new(baud),
            text: Vec::new(),
            keep_text: false,
            armed: None,
            retransmits: 0,
            frames: 0,
        }
    }

    /// Keeps what is no frame for [`Wire::text`].
    #[must_use]
    pub fn keeping_text(mut self) -> Wire<E> {
        self.keep_text = true;
        self
    }

    /// The end.
    pub fn end(&self) -> &E {
        &self.end
    }

    /// The end, to tell it something. Poll afterwards.
    pub fn end_mut(&mut self) -> &mut E {
        &mut self.end
    }

    /// How often something was sent again because nothing was heard, and how many frames were sent.
    pub fn sent(&self) -> (u64, u64) {
        (self.retransmits, self.frames)
    }

    /// What came and was no frame, since it was asked last.
    pub fn text(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.text)
    }

    /// Takes bytes that came at `now`, in microseconds.
    pub fn push(&mut self, bytes: &[u8], now: u64) {
        let Wire { end, scanner, pace, text, keep_text, armed, .. } = self;
        let frame = |digits: &[u8]| {
            let Some(packet) = Packet::decode(digits, end.session()) else {
                if digits.len() >= LEAST_DIGITS {
                    end.stranger();
                }
                return false;
            };
            let says_nothing = is_about_the_conversation(&packet.frame);
            end.receive(packet, now);
            if let Some(sent_at) = end.sample() {
                pace.sample(now.saturating_sub(sent_at));
            }
            // Whoever is heard is there: the wait begins anew. Not the wait for an acknowledgement, when it is only the
            // conversation that is spoken of: a host says OPEN more often than some of those waits are long.
            if !(says_nothing && matches!(armed, Some((Timer::Retransmit(_), _)))) {
                *armed = None;
            }
            true
        };
        scanner.push(bytes, frame, |other| {
            if *keep_text {
                text.extend(other);
            }
        });
    }

    /// What is to be done at `now`.
    pub fn poll(&mut self, now: u64) -> Polled<E::Event> {
        if let Some((timer, at)) = self.armed
            && at <= now
        {
            if matches!(timer, Timer::Retransmit(_)) {
                self.retransmits = self.retransmits.saturating_add(1);
            }
            self.end.fire();
            self.armed = None;
        }
        let mut bytes = Vec::new();
        while let Some(packet) = self.end.packet(now) {
            let says_nothing = is_about_the_conversation(&packet.frame);
            packet.encode(&mut bytes);
            self.frames = self.frames.saturating_add(1);
            if !(says_nothing && matches!(self.armed, Some((Timer::Retransmit(_), _)))) {
                self.armed = None;
            }
        }
        let timer = self.end.timer();
        let same = matches!((self.armed, timer), (Some((armed, _)), timer) if armed == timer);
        if !same {
            let wait = self.pace.wait(timer).map(|wait| u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
            self.armed = wait.map(|wait| (timer, now.saturating_add(wait)));
        }
        let events = std::iter::from_fn(|| self.end.event()).collect();
        Polled { bytes, events, next: self.armed.map(|(_, at)| at) }
    }
}

/// Says no more than that somebody is there, and how far.
fn is_about_the_conversation(frame: &Frame) -> bool {
    frame.is_outside() || matches!(frame, Frame::Ready(_))
}

/// The digits of the shortest frame.
const LEAST_DIGITS: usize = 10;

/// How long to wait, by what round trips took (RFC 6298).
#[derive(Clone, Debug)]
struct Pace {
    /// Smoothed round trip and its deviation, in microseconds.
    measured: Option<(u64, u64)>,
    /// Until one was measured.
    first: u64,
    /// The least: less than the time of a frame would be noise.
    least: u64,
}

/// A beacon.
const CALL: Duration = Duration::from_millis(1000);
/// A call.
const HAIL: Duration = Duration::from_millis(300);
/// The host looks whether the node is there, while things are moving and while an administrator is waited for.
const KEEPALIVE: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(20));
/// A node that heard nothing for so long takes its host for gone.
const WATCH: (Duration, Duration) = (Duration::from_millis(2000), Duration::from_secs(50));
/// The longest wait for an acknowledgement: lines stall while a boot loader or a console server is busy.
const LONGEST: u64 = 5_000_000;
/// A line whose speed nobody knows.
const FIRST: u64 = 1_000_000;
/// Scheduling, and a serial-over-LAN that collects characters before it sends them.
const SLACK: u64 = 60_000;
/// Characters in a frame with its ends, and bits in a character.
const FRAME_BITS: u64 = 253 * 10;

impl Pace {
    fn new(baud: Option<u32>) -> Pace {
        // Three frames: two on their way, and the answer.
        let frame = baud.map(|baud| FRAME_BITS.saturating_mul(1_000_000) / u64::from(baud.max(50)));
        let first = frame.map_or(FIRST, |frame| frame.saturating_mul(3).saturating_add(SLACK.saturating_mul(2)));
        let least = frame.unwrap_or_default().saturating_add(SLACK);
        Pace { measured: None, first: first.min(LONGEST), least: least.min(LONGEST) }
    }

    /// RFC 6298 §2.2 and §2.3.
    fn sample(&mut self, took: u64) {
        self.measured = Some(match self.measured {
            None => (took, took / 2),
            Some((smooth, deviation)) => {
                let deviation = (deviation.saturating_mul(3).saturating_add(smooth.abs_diff(took))) / 4;
                ((smooth.saturating_mul(7).saturating_add(took)) / 8, deviation)
            }
        });
    }

    fn wait(&self, timer: Timer) -> Option<Duration> {
        match timer {
            Timer::None => None,
            Timer::Call => Some(CALL),
            Timer::Hail => Some(HAIL),
            Timer::Keepalive(Patience::Short) => Some(KEEPALIVE.0),
            Timer::Keepalive(Patience::Long) => Some(KEEPALIVE.1),
            Timer::Watch(Patience::Short) => Some(WATCH.0),
            Timer::Watch(Patience::Long) => Some(WATCH.1),
            Timer::Retransmit(times) => {
                let measured = self
                    .measured
                    .map(|(smooth, deviation)| smooth.saturating_add(deviation.saturating_mul(4).max(self.least)));
                let once = measured.unwrap_or(self.first).clamp(self.least, LONGEST);
                // RFC 6298 §5.5: twice as long each time.
                let backed = once.saturating_mul(1u64.checked_shl(u32::from(times)).unwrap_or(u64::MAX));
                Some(Duration::from_micros(backed.min(LONGEST)))
            }
        }
    }
}
