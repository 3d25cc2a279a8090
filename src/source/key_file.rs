//! Where keys of a node are found, whatever they are for: files of the image, and media with the label IMPRINT-KEY. A medium may be
//! plugged in at any time, so each drive is read when it appears and when it changes. USB media count, too: whoever can plug one
//! in brings a key and nothing else. Each drive is read by a process without rights (`reader`). Never parses a key and never keeps
//! one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::answer::{Answer, Looked, Place};
use super::config_drive::{device_of, devices, no_answer, place};
use super::reader::{NoAnswer, Reader};
use super::{SourceError, file};
use crate::secret::Secret;
use crate::shown::Printable;
use crate::time::{Deadline, since_boot};

/// How many drives are read at once. Those that do not answer do not count.
const AT_ONCE: usize = 32;

/// A file of the image with a key.
pub(super) struct OfImage {
    pub(super) path: PathBuf,
    pub(super) bytes: Secret,
}

/// The first of these files, below the root, that exists. `most`: the most bytes that it may have.
pub(super) fn of_image(root: &Path, paths: [&str; 2], most: usize) -> Result<Option<OfImage>, SourceError> {
    for path in paths.map(|path| root.join(path)) {
        match path.metadata() {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            _ => return of_file(path, most).map(Some),
        }
    }
    Ok(None)
}

fn of_file(path: PathBuf, most: usize) -> Result<OfImage, SourceError> {
    // Reading anything but a regular file might block or never end.
    let is_file =
        path.metadata().and_then(|meta| if meta.is_file() { Ok(()) } else { Err(io::Error::other("no file")) });
    is_file.map_err(|source| SourceError::Read { path: path.clone(), source })?;
    let bytes = file::read_at_most(&path, most)?;
    Ok(OfImage { path, bytes })
}

/// Whether others than the owner of the file can read it.
pub(super) fn is_exposed(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.mode() & 0o077 != 0)
}

/// The drives, each with what is known of it.
pub(super) struct Sticks {
    root: PathBuf,
    /// The one that reads a drive.
    program: PathBuf,
    /// A drive that has not answered for so long is named.
    patience: Duration,
    /// The file that is looked for.
    file: Place,
    /// Kernel names of the drives that are there.
    present: Vec<String>,
    /// By kernel name of the drive.
    known: BTreeMap<String, State>,
}

enum State {
    Reading {
        reader: Reader,
        /// The drive changed while it was read.
        again: bool,
        /// The console has been told that it does not answer.
        late: bool,
    },
    Read,
    /// It could not be opened. Any event makes the search try again.
    NotYet,
}

/// A volume with the label, and what is in the place of its file.
pub(super) struct Stick {
    /// The volume, for people: `sdb1 (IMPRINT-KEY)`
    pub(super) place: Printable,
    pub(super) looked: Looked,
}

/// What a drive has.
pub(super) enum Content {
    /// Volumes with the label; it may have none.
    Sticks(Vec<Stick>),
    /// There is no medium in it, or it cannot be opened.
    Closed,
    /// It cannot be read; why.
    Unreadable(String),
}

impl Sticks {
    pub(super) fn new(root: &Path, program: &Path, patience: Duration, file: Place) -> Sticks {
        let (root, program) = (root.to_owned(), program.to_owned());
        Sticks { root, program, patience, file, present: Vec::new(), known: BTreeMap::new() }
    }

    /// Begins to read the drives that are new. A drive that cannot be listed is none.
    pub(super) fn begin(&mut self) {
        self.present = devices(&self.root).unwrap_or_default();
        let present = &self.present;
        self.known.retain(|device, _| present.contains(device));
        for device in present {
            if self.known.values().filter(|state| matches!(state, State::Reading { late: false, .. })).count()
                >= AT_ONCE
            {
                return;
            }
            let (root, program, file) = (&self.root, &self.program, self.file);
            self.known.entry(device.clone()).or_insert_with_key(|device| {
                let node = root.join("dev").join(device.replace('!', "/"));
                match Reader::for_key(program, &node, file) {
                    Ok(reader) => State::Reading { reader, again: false, late: false },
                    Err(_) => State::NotYet,
                }
            });
        }
    }

    /// Whether this drive is there.
    pub(super) fn has(&self, drive: &str) -> bool {
        self.present.iter().any(|device| device == drive)
    }

    /// Whether a drive is being read that has not been named for its silence.
    pub(super) fn is_reading(&self) -> bool {
        self.known.values().any(|state| matches!(state, State::Reading { late: false, .. }))
    }

    /// One descriptor for each drive that is being read; [`Sticks::take`] knows them by their position.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.known.values().filter_map(|state| match state {
            State::Reading { reader, .. } => Some(reader.as_fd()),
            State::Read | State::NotYet => None,
        })
    }

    /// When the next drive is to be named for its silence. At the latest this deadline.
    pub(super) fn late_at(&self, deadline: Deadline) -> Deadline {
        let late = self.known.values().filter_map(|state| match state {
            State::Reading { reader, late: false, .. } => Some(reader.since().saturating_add(self.patience)),
            _ => None,
        });
        late.min().map_or(deadline, |moment| deadline.at(moment))
    }

    /// Tells, once, of each drive that does not answer. It is still waited for. `what`: what it would be read for.
    pub(super) fn name_late(&mut self, what: &str, tell: &mut dyn FnMut(String)) {
        for (device, state) in &mut self.known {
            if let State::Reading { reader, late: late @ false, .. } = state
                && reader.since().saturating_add(self.patience) <= since_boot()
            {
                *late = true;
                let device = Printable::of(device);
                tell(format!("{device}: not read for {what}: {}", no_answer(reader)));
            }
        }
    }

    /// A uevent came for this drive; `None`: for any drive.
    pub(super) fn changed(&mut self, device: Option<&str>) {
        self.known.retain(|known, state| {
            let concerned = device.is_none_or(|device| device == known);
            match state {
                State::Reading { again, .. } => {
                    *again |= concerned;
                    true
                }
                State::Read => !concerned,
                State::NotYet => false,
            }
        });
    }

    /// Takes what has come from the reader with this descriptor. `None`: its answer is not complete.
    pub(super) fn take(&mut self, index: usize) -> Option<(String, Content)> {
        let mut reading = self.known.iter_mut().filter(|(_, state)| matches!(state, State::Reading { .. }));
        let Some((device, State::Reading { reader, again, .. })) = reading.nth(index) else { return None };
        let answer = reader.answer()?;
        let (device, again) = (device.clone(), *again);
        let state = match &answer {
            Ok(Answer::Closed(_)) => State::NotYet,
            _ => State::Read,
        };
        match again {
            true => drop(self.known.remove(&device)),
            false => drop(self.known.insert(device.clone(), state)),
        }
        let content = match answer {
            Ok(Answer::Medium(medium)) => {
                let mut sticks = Vec::new();
                for part in medium.parts {
                    let device = if part.number == 0 { device.clone() } else { device_of(&device, part.number) };
                    for volume in part.volumes {
                        let place = place(&device, &Printable::of(&volume.labels.join("/")));
                        let files = volume.files.into_iter().filter(|(file, _)| *file == self.file);
                        sticks.extend(files.map(|(_, looked)| Stick { place: place.clone(), looked }));
                    }
                }
                Content::Sticks(sticks)
            }
            Ok(Answer::Closed(_)) => Content::Closed,
            Ok(Answer::Unconfined(why) | Answer::Unreadable(why)) => Content::Unreadable(why),
            Err(NoAnswer) => Content::Unreadable("its reader ended without an answer".to_owned()),
        };
        Some((device, content))
    }
}
