//! The drives of a search, each with the process that reads it, or with the result. Never waits; `config_drive` does
//! that.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::super::reader::{NoAnswer, Reader, Wanted};
use super::super::{Found, Notice, SourceError, agreed};
use super::verdict::{Hit, Look, judge};
use super::{Search, may_be_usb};
use crate::order;
use crate::time::since_boot;

/// How many drives are read at once. Drives whose patience has ended do not count.
const AT_ONCE: usize = 32;

#[derive(Default)]
pub(super) struct Drives {
    /// By kernel name.
    known: BTreeMap<String, State>,
    hits: Vec<Hit>,
    /// The broken volume whose label comes first in the order.
    broken: Option<(usize, SourceError)>,
    /// The console has been told that the kernel has no system call filter.
    unfiltered: bool,
}

enum State {
    Reading {
        reader: Reader,
        /// A uevent for the drive came while it was read.
        again: bool,
        /// The patience for this drive has ended.
        late: bool,
        /// The console has been told that the drive does not answer.
        named: bool,
    },
    /// The drive has no payload; the reason.
    Done(String),
    /// The drive cannot be read yet; the reason. Any uevent makes the search try again.
    NotYet(&'static str),
    /// The result is in `hits` or in `broken`.
    Judged,
}

impl Drives {
    /// Begins to read the devices that are new.
    pub(super) fn look(&mut self, search: &Search<'_>, root: &Path, devices: Vec<String>) {
        // Do not wait for a drive that was removed.
        self.known.retain(|device, state| !matches!(state, State::Reading { .. }) || devices.contains(device));
        for device in devices {
            let busy = self.known.values().filter(|state| matches!(state, State::Reading { late: false, .. })).count();
            if busy >= AT_ONCE {
                break;
            }
            self.known.entry(device).or_insert_with_key(|device| begin(search, root, device));
        }
    }

    /// The readers of the drives that are being read.
    pub(super) fn readers(&self) -> impl Iterator<Item = &Reader> {
        self.known.values().filter_map(|state| match state {
            State::Reading { reader, .. } => Some(reader),
            _ => None,
        })
    }

    /// When the patience for the last of the drives that are being read ends. `None` if every drive has answered or its
    /// patience has ended.
    pub(super) fn patience_ends(&mut self, patience: Duration) -> Option<Duration> {
        let now = since_boot();
        let mut last = None;
        for state in self.known.values_mut() {
            if let State::Reading { reader, late, .. } = state {
                let end = reader.since().saturating_add(patience);
                *late = end <= now;
                last = last.max(Some(end).filter(|end| *end > now));
            }
        }
        last
    }

    /// Tells the console, once, of each drive that does not answer.
    pub(super) fn name_late(&mut self, notice: &mut dyn FnMut(Notice<'_>)) {
        for (device, state) in &mut self.known {
            if let State::Reading { reader, named, .. } = state
                && !std::mem::replace(named, true)
            {
                notice(Notice::Drive(&format!("{device}: {}", no_answer(reader))));
            }
        }
    }

    /// The drives that are still being read.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = &str> {
        let reading = self.known.iter().filter(|(_, state)| matches!(state, State::Reading { .. }));
        reading.map(|(device, _)| device.as_str())
    }

    /// Takes the bytes that have come from the reader at this position of [`Drives::readers`].
    pub(super) fn take(&mut self, search: &Search<'_>, index: usize, notice: &mut dyn FnMut(Notice<'_>)) {
        let mut reading = self.known.iter_mut().filter(|(_, state)| matches!(state, State::Reading { .. }));
        let Some((device, state)) = reading.nth(index) else { return };
        let State::Reading { reader, again, .. } = state else { return };
        let Some(answer) = reader.answer() else { return };
        let (device, again) = (device.clone(), *again);
        let looks = match answer {
            Ok(answer) => {
                if !answer.is_filtered() && !std::mem::replace(&mut self.unfiltered, true) {
                    notice(Notice::Drive(UNFILTERED));
                }
                judge(search, &device, answer)
            }
            Err(NoAnswer) => vec![Look::Nothing("the process that read it ended without an answer".to_owned())],
        };
        // The medium may have changed while it was read, so read it again.
        if again && !looks.iter().any(|look| matches!(look, Look::Hit(_))) {
            self.known.remove(&device);
            return;
        }
        // The drive was read before, and has changed since.
        self.hits.retain(|hit| hit.disk != device);
        let (mut judged, mut reasons, mut not_yet) = (false, Vec::new(), None);
        for look in looks {
            match look {
                Look::Hit(hit) => {
                    self.hits.push(hit);
                    judged = true;
                }
                Look::Broken(rank, error) => {
                    if self.broken.as_ref().is_none_or(|(first, _)| rank < *first) {
                        self.broken = Some((rank, error));
                    }
                    judged = true;
                }
                Look::Nothing(why) => reasons.push(why),
                Look::NotYet(why) => not_yet = Some(why),
            }
        }
        let state = match (judged, not_yet) {
            (true, _) => State::Judged,
            (false, Some(why)) => State::NotYet(why),
            (false, None) => State::Done(reasons.join(", ")),
        };
        self.known.insert(device, state);
    }

    /// A uevent came for this drive; `None`: for any drive.
    pub(super) fn changed(&mut self, device: Option<&str>) {
        for (known, state) in &mut self.known {
            if let State::Reading { again, .. } = state
                && device.is_none_or(|device| device == known)
            {
                *again = true;
            }
        }
        self.known.retain(|known, state| match state {
            State::Reading { .. } => true,
            State::NotYet(_) => false,
            State::Done(_) | State::Judged => device.is_some_and(|device| device != known),
        });
    }

    /// The payload, once every drive that is there has had its time.
    pub(super) fn verdict(&mut self) -> Result<Option<Found>, SourceError> {
        // A broken volume whose turn comes after that of a payload is passed over, as are all sources behind the
        // payload.
        if let Some((rank, error)) = self.broken.take()
            && self.hits.iter().all(|hit| hit.rank >= rank)
        {
            return Err(error);
        }
        one(std::mem::take(&mut self.hits))
    }

    /// Each drive, and why it gave no payload.
    pub(super) fn summary(&self) -> String {
        if self.known.is_empty() {
            return "no disk and no optical drive".to_owned();
        }
        let each = self.known.iter().map(|(device, state)| match state {
            State::Done(why) => format!("{device}: {why}"),
            State::NotYet(why) => format!("{device}: {why}"),
            State::Reading { reader, .. } => format!("{device}: {}", no_answer(reader)),
            State::Judged => format!("{device}: was read"),
        });
        let each: Vec<String> = each.collect();
        each.join("; ")
    }
}

const UNFILTERED: &str = "this kernel does not filter system calls (CONFIG_SECCOMP_FILTER), so drives are read without \
                          a filter";

/// Why a drive that is still being read has no answer.
pub(in super::super) fn no_answer(reader: &Reader) -> String {
    let seconds = since_boot().saturating_sub(reader.since()).as_secs();
    format!("the drive has not answered for {seconds} s; check it, its cable, or the server behind it")
}

fn begin(search: &Search<'_>, root: &Path, device: &str) -> State {
    if may_be_usb(root, device) && !search.named && !search.pinned {
        return State::Done(
            "ignored, a USB medium; name it with imprint.source=config-drive or put a site pin into the image"
                .to_owned(),
        );
    }
    // sysfs replaces each slash of a kernel name by an exclamation mark (drivers/base/core.c, device_add).
    let node = root.join("dev").join(device.replace('!', "/"));
    let wanted = Wanted { labels: &search.labels(), partitions: search.rank_of_partitions().is_some() };
    match Reader::start(search.program, &node, wanted) {
        Ok(reader) => State::Reading { reader, again: false, late: false, named: false },
        Err(error) => State::Done(format!("no process can be started to read it: {error}")),
    }
}

/// The payload of the first rank that has one. A copy of a drive, or the other half of a mirror, has the same payload, and does
/// not stop the boot.
fn one(mut hits: Vec<Hit>) -> Result<Option<Found>, SourceError> {
    // Payloads of the same rank are sorted by device name, so that the order in which drives answer does not matter.
    order::sort(&mut hits, |one, other| (one.rank, &one.device) < (other.rank, &other.device));
    let rank = hits.first().map(|hit| hit.rank);
    hits.retain(|hit| Some(hit.rank) == rank);
    match agreed(hits, |hit| &hit.found) {
        Ok(hit) => Ok(hit.map(|hit| hit.found)),
        Err((first, second)) => {
            let (in_partition, first, second) = (first.in_partition, first.place(), second.place());
            Err(match in_partition {
                true => SourceError::SeveralPartitions { first, second },
                false => SourceError::Several { first, second },
            })
        }
    }
}
