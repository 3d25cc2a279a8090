//! The admission key of a node: the file `/imprint/key` of the image, or `imprint/key` on a medium with the label IMPRINT-KEY.
//! Nobody vouches for it, and nobody needs to: it shows that somebody has the key, and the host decides what that is good for.
//! So USB media count here, too. Everybody who has the image has the key in it. A medium is read by a process without rights, as
//! every drive is (`reader`), and is never a source of payloads. This module never proves anything.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::answer::{Answer, Looked, Place};
use super::config_drive::{device_of, devices, no_answer, place};
use super::reader::Reader;
use super::{SourceError, file};
use crate::dialogue::Prover;
use crate::key_code::KeyCode;
use crate::line::admission::{AdmissionKey, KeyFileError, MAX_FILE, MOST_KEYS};
use crate::options::{Options, SourceName};
use crate::shown::Printable;
use crate::time::{Deadline, since_boot};
use crate::uevent::{Change, Watch};

/// The key in the image.
pub const PATH: &str = "imprint/key";
/// The same file on a system that runs, where image builders take it from.
pub const INSTALLED: &str = "etc/imprint/key";

/// How many drives are read at once. Those that do not answer do not count.
const AT_ONCE: usize = 32;
/// How many keys are taken from media, and media without a key named; the image may have one key more. A medium that says
/// again and again that it has changed does not fill the console.
const KEYS: usize = MOST_KEYS - 1;

/// The key of the image.
pub struct ImageKey {
    /// The key.
    pub key: AdmissionKey,
    /// Its file.
    pub path: PathBuf,
    /// Others than the owner of the file can read it.
    pub exposed: bool,
}

/// The key of the image. `None` without the file.
pub fn of_image(root: &Path) -> Result<Option<ImageKey>, SourceError> {
    for path in [PATH, INSTALLED].map(|path| root.join(path)) {
        match path.metadata() {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            _ => return of_file(path).map(Some),
        }
    }
    Ok(None)
}

fn of_file(path: PathBuf) -> Result<ImageKey, SourceError> {
    // Reading anything but a regular file might block or never end.
    let is_file =
        path.metadata().and_then(|meta| if meta.is_file() { Ok(()) } else { Err(io::Error::other("no file")) });
    is_file.map_err(|source| SourceError::Read { path: path.clone(), source })?;
    match file::read_at_most(&path, MAX_FILE) {
        Ok(bytes) => parsed(path, bytes.expose()),
        Err(SourceError::TooLong(..)) => Err(SourceError::AdmissionKey { path, why: KeyFileError::TooLong }),
        Err(error) => Err(error),
    }
}

/// The key in a file that has these bytes.
pub fn parsed(path: PathBuf, bytes: &[u8]) -> Result<ImageKey, SourceError> {
    let exposed = path.metadata().is_ok_and(|meta| meta.is_file() && meta.mode() & 0o077 != 0);
    match AdmissionKey::parse(bytes) {
        Ok(key) => Ok(ImageKey { key, path, exposed }),
        Err(why) => Err(SourceError::AdmissionKey { path, why }),
    }
}

impl ImageKey {
    /// What the operator should know of the file.
    pub fn note(&self) -> Option<String> {
        let path = Printable::path(&self.path);
        self.exposed.then(|| format!("others than its owner can read the admission key {path}; chmod 0600 {path}"))
    }
}

/// The key and its file, and what a record needs that names it.
impl fmt::Display for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let public = self.key.public();
        writeln!(f, "admission key  {}", KeyCode::of(&public))?;
        writeln!(f, "file           {}", Printable::path(&self.path))?;
        writeln!(f, "record         admit = \"key\"")?;
        writeln!(f, "               admission_key = \"{}\"", Base64::encode_string(&public))?;
        writeln!(f, "image          everybody who can read the file has the key")?;
        self.note().into_iter().try_for_each(|note| writeln!(f, "note           {note}"))
    }
}

/// Looks for media with a key until it is dropped, in a thread of its own: a medium may be plugged in while the node waits.
pub struct Media {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Media {
    /// Begins to look, if the operator names a line: only a door on a line lets a node in for its key. `program`: the one that
    /// reads a drive. `patience`: a drive that has not answered for so long is named.
    pub fn look(
        options: &Options,
        root: &Path,
        program: &Path,
        patience: Duration,
        prover: Prover,
    ) -> Result<Option<Media>, SourceError> {
        if !options.sources.iter().any(SourceName::is_line) {
            return Ok(None);
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let stop = Arc::new(EventFd::from_flags(flags).map_err(|errno| SourceError::Watch(errno.into()))?);
        // Opened before the first look, so that no drive is missed in between.
        let watch = Watch::open(root, true, patience).map_err(SourceError::Watch)?;
        let (root, program) = (root.to_owned(), program.to_owned());
        let (known, told) = (BTreeMap::new(), Vec::new());
        let search = Search { stop: Arc::clone(&stop), watch, root, program, patience, prover, known, told };
        let thread = std::thread::Builder::new().name("key".to_owned()).spawn(move || search.run());
        Ok(Some(Media { stop, thread: Some(thread.map_err(SourceError::Watch)?) }))
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // The thread cannot panic, so its result is ignored.
            drop(thread.join());
        }
    }
}

struct Search {
    stop: Arc<EventFd>,
    watch: Watch,
    root: PathBuf,
    program: PathBuf,
    patience: Duration,
    prover: Prover,
    /// By kernel name of the drive.
    known: BTreeMap<String, State>,
    /// What was told already: keys, and why there is none.
    told: Vec<String>,
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

impl Search {
    fn run(mut self) {
        while self.told.len() < KEYS {
            self.begin();
            let mut fds: Vec<BorrowedFd<'_>> = vec![self.stop.as_fd()];
            fds.extend(self.known.values().filter_map(|state| match state {
                State::Reading { reader, .. } => Some(reader.as_fd()),
                State::Read | State::NotYet => None,
            }));
            let never = Deadline::after(Duration::MAX);
            let late = self.known.values().filter_map(|state| match state {
                State::Reading { reader, late: false, .. } => Some(reader.since().saturating_add(self.patience)),
                _ => None,
            });
            let until = late.min().map_or(never, |moment| never.at(moment));
            match self.watch.wait(true, &fds, until) {
                Ok(Change::Readable(0)) | Err(_) => return,
                Ok(Change::Readable(index)) => self.take(index.saturating_sub(1)),
                Ok(Change::Block(device)) => self.changed(device.as_deref()),
                Ok(Change::Settled) => {}
                Ok(Change::Deadline) => self.name_late(),
            }
        }
        self.prover.tell(format!("{KEYS} media with admission keys were looked at; no other is"));
    }

    /// Tells the console, once, of each drive that does not answer. It is still waited for.
    fn name_late(&mut self) {
        for (device, state) in &mut self.known {
            if let State::Reading { reader, late: late @ false, .. } = state
                && reader.since().saturating_add(self.patience) <= since_boot()
            {
                *late = true;
                let device = Printable::of(device);
                self.prover.tell(format!("{device}: not read for an admission key: {}", no_answer(reader)));
            }
        }
    }

    /// Begins to read the drives that are new. A drive that cannot be listed is none.
    fn begin(&mut self) {
        let present = devices(&self.root).unwrap_or_default();
        self.known.retain(|device, _| present.contains(device));
        for device in present {
            if self.known.values().filter(|state| matches!(state, State::Reading { late: false, .. })).count()
                >= AT_ONCE
            {
                return;
            }
            let (root, program) = (&self.root, &self.program);
            self.known.entry(device).or_insert_with_key(|device| {
                let node = root.join("dev").join(device.replace('!', "/"));
                match Reader::for_key(program, &node) {
                    Ok(reader) => State::Reading { reader, again: false, late: false },
                    Err(_) => State::NotYet,
                }
            });
        }
    }

    /// A uevent came for this drive; `None`: for any drive.
    fn changed(&mut self, device: Option<&str>) {
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

    /// Takes what has come from this reader.
    fn take(&mut self, index: usize) {
        let mut reading = self.known.iter_mut().filter(|(_, state)| matches!(state, State::Reading { .. }));
        let Some((device, State::Reading { reader, again, .. })) = reading.nth(index) else { return };
        let Some(answer) = reader.answer() else { return };
        let (device, again) = (device.clone(), *again);
        let state = match &answer {
            Ok(Answer::Closed(_)) => State::NotYet,
            _ => State::Read,
        };
        match again {
            true => drop(self.known.remove(&device)),
            false => drop(self.known.insert(device.clone(), state)),
        }
        // Of a drive that cannot be read nothing is known that would concern admission.
        let Ok(Answer::Medium(medium)) = answer else { return };
        for part in medium.parts {
            let device = if part.number == 0 { device.clone() } else { device_of(&device, part.number) };
            for volume in part.volumes {
                let place = place(&device, &Printable::of(&volume.labels.join("/")));
                let files = volume.files.into_iter().filter(|(file, _)| *file == Place::Key);
                files.for_each(|(_, looked)| self.looked(&place, looked));
            }
        }
    }

    fn looked(&mut self, place: &Printable, looked: Looked) {
        let why = match looked {
            Looked::Found(bytes) => match AdmissionKey::parse(bytes.expose()) {
                Ok(key) => {
                    let known = crate::hex::encode(&key.public());
                    // A medium that only says that it has changed brings no news.
                    if !self.told.contains(&known) {
                        self.told.push(known);
                        self.prover.prove(key, place.to_string());
                    }
                    return;
                }
                Err(error) => error.to_string(),
            },
            Looked::Broken { why, .. } | Looked::Foreign(why) => Printable::of(&why).to_string(),
            Looked::Absent | Looked::Unwanted => "it has no such file; write it with imprint-host key make".to_owned(),
        };
        let words = format!("no admission key in imprint/key on {place}: {why}");
        if !self.told.contains(&words) {
            self.told.push(words.clone());
            self.prover.tell(words);
        }
    }
}
