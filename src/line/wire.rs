//! Drives either end of a line: bytes to packets and back, timers. The ends decide what to send, [`super::pace`] how
//! long to wait. Never does I/O and never reads a clock.

use std::time::Duration;

use super::frame::{Frame, MARK, Packet};
use super::odd::{Distortion, Oddities};
use super::pace::Pace;
use super::scan::Scanner;
use super::{Answered, End, Timer};

/// An end with its scanner and its timer, between the bytes of a line and a driver.
pub struct Wire<E> {
    end: E,
    scanner: Scanner,
    oddities: Oddities,
    pace: Pace,
    text: Vec<u8>,
    keep_text: bool,
    /// The timer that runs, and when it expires by the clock of `now`.
    armed: Option<(Timer, u64)>,
    retransmits: u64,
    frames: u64,
    heard: u64,
}

/// The result of a poll.
#[derive(Debug)]
pub struct Polled<T> {
    /// Bytes to write to the line.
    pub bytes: Vec<u8>,
    /// Events of the end.
    pub events: Vec<T>,
    /// When to poll again at the latest, by the clock of `now`; `None`: only when bytes come.
    pub next: Option<u64>,
}

impl<E: End> Wire<E> {
    /// `baud`: bits a second, if the line has a speed that is known.
    pub fn new(end: E, baud: Option<u32>) -> Wire<E> {
        Wire {
            end,
            scanner: Scanner::default(),
            oddities: Oddities::default(),
            pace: Pace::new(baud),
            text: Vec::new(),
            keep_text: false,
            armed: None,
            retransmits: 0,
            frames: 0,
            heard: 0,
        }
    }

    /// Keeps bytes that belong to no frame for [`Wire::text`].
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

    /// How often the timer for an answer has expired, and how many frames were sent.
    pub fn sent(&self) -> (u64, u64) {
        (self.retransmits, self.frames)
    }

    /// How many frames of the other end were heard.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// How long an answer may take on this line, by earlier answers.
    pub fn patience(&self) -> Duration {
        self.pace.patience()
    }

    /// The bytes that belonged to no frame, since the last call.
    pub fn text(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.text)
    }

    /// The next distortion of the line that was not reported yet.
    pub fn odd(&mut self) -> Option<Distortion> {
        self.oddities.news()
    }

    /// Takes bytes that came at `now`, in microseconds.
    pub fn push(&mut self, bytes: &[u8], now: u64) {
        let Wire { end, scanner, oddities, pace, text, keep_text, armed, heard, .. } = self;
        let mut missed: Vec<Vec<u8>> = Vec::new();
        let frame = |digits: &[u8]| {
            let earlier = || end.earlier().and_then(|session| Packet::decode(digits, Some(session)));
            let Some(packet) = Packet::decode(digits, end.session()).or_else(earlier) else {
                if digits.len() >= LEAST_DIGITS {
                    end.stranger();
                }
                // A late frame of an earlier conversation is a whole frame and not text. Its message does not count any
                // more.
                return end.left().any(|session| Packet::decode(digits, Some(session)).is_some());
            };
            if packet.from == E::SIDE {
                // An echo of a frame that this end sent: neither text nor a sign of the other end.
                return true;
            }
            let answers = is_answer(&packet.frame);
            *heard = heard.saturating_add(1);
            end.receive(packet, now);
            match end.answered() {
                Some(Answered::Once(frame)) => pace.answered(frame, now),
                Some(Answered::Again) => pace.answered_again(),
                None => {}
            }
            // The other end is there, so the timer starts anew. A timer for an answer starts anew only if this frame is
            // an answer: a node whose last acknowledgement was lost sends its request, and that may take longer than
            // the timer.
            if answers || !matches!(armed, Some((Timer::Retransmit, _))) {
                *armed = None;
            }
            true
        };
        scanner.push(bytes, frame, |other| {
            if *keep_text {
                text.extend(other);
            }
            let digits = other.strip_prefix(&[MARK]).and_then(|rest| rest.split(|byte| b"\r\n".contains(byte)).next());
            missed.extend(digits.filter(|digits| digits.len() >= LEAST_DIGITS).map(<[u8]>::to_vec));
        });
        if let Some(odd) = scanner.odd() {
            oddities.saw(odd);
        }
        missed.iter().for_each(|digits| oddities.missed(digits, end.session().is_some()));
    }

    /// Fires the timer if it has expired, and returns what to do at `now`.
    pub fn poll(&mut self, now: u64) -> Polled<E::Event> {
        if let Some((timer, at)) = self.armed
            && at <= now
        {
            if matches!(timer, Timer::Retransmit) {
                self.retransmits = self.retransmits.saturating_add(1);
                self.pace.timed_out();
            }
            self.end.fire();
            self.armed = None;
        }
        let mut bytes = Vec::new();
        while let Some(packet) = self.end.packet(now, self.frames) {
            let (awaited, before) = (is_answered(&packet.frame), bytes.len());
            packet.encode(&mut bytes);
            self.pace.sent(self.frames, bytes.len().saturating_sub(before), awaited, now);
            self.frames = self.frames.saturating_add(1);
            // An OPEN that is sent besides the rest does not restart the timer for an answer.
            let new = awaited && !packet.frame.is_outside();
            if new || !matches!(self.armed, Some((Timer::Retransmit, _))) {
                self.armed = None;
            }
        }
        let timer = self.end.timer();
        if timer != Timer::Retransmit {
            self.pace.idle();
        }
        let same = matches!((self.armed, timer), (Some((armed, _)), timer) if armed == timer);
        if !same {
            let wait = self.pace.wait(timer).map(|wait| u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
            self.armed = wait.map(|wait| (timer, now.saturating_add(wait)));
        }
        let events = std::iter::from_fn(|| self.end.event()).collect();
        Polled { bytes, events, next: self.armed.map(|(_, at)| at) }
    }
}

/// Whether the frame answers another.
fn is_answer(frame: &Frame) -> bool {
    matches!(frame, Frame::Ack { .. } | Frame::Refuse { .. } | Frame::Time { .. } | Frame::ProvenTime { .. })
}

/// Whether the other end answers the frame at once.
fn is_answered(frame: &Frame) -> bool {
    matches!(frame, Frame::Open { .. } | Frame::Announce(_) | Frame::Data { .. } | Frame::Ask { .. })
}

/// The digits of the shortest frame.
const LEAST_DIGITS: usize = 10;
