//! The admission key of a node: the file `/imprint/key` of the image, or `imprint/key` on a medium with the label IMPRINT-KEY.
//! Nobody vouches for it, and nobody needs to: it shows that somebody has the key, and the host decides what that is good for.
//! So USB media count here, too (`key_file`). Everybody who has the image has the key in it. A medium with a key is never a source of
//! payloads. This module never proves anything.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::SourceError;
use super::answer::{Looked, Place};
use super::key_file::{self, Content, OfImage, Stick, Sticks};
use crate::dialogue::Prover;
use crate::key_code::KeyCode;
use crate::line::admission::{AdmissionKey, KeyFileError, MAX_FILE, MOST_KEYS};
use crate::options::{Options, SourceName};
use crate::shown::Printable;
use crate::time::Deadline;
use crate::uevent::{Change, Watch};

/// The key in the image.
pub const PATH: &str = "imprint/key";
/// The same file on a system that runs, where image builders take it from.
pub const INSTALLED: &str = "etc/imprint/key";

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
    match key_file::of_image(root, [PATH, INSTALLED], MAX_FILE) {
        Ok(found) => found.map(|OfImage { path, bytes }| parsed(path, bytes.expose())).transpose(),
        Err(SourceError::TooLong(path, _)) => Err(SourceError::AdmissionKey { path, why: KeyFileError::TooLong }),
        Err(error) => Err(error),
    }
}

/// The key in a file that has these bytes.
pub fn parsed(path: PathBuf, bytes: &[u8]) -> Result<ImageKey, SourceError> {
    let exposed = key_file::is_exposed(&path);
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
        let sticks = Sticks::new(root, program, patience, Place::Key);
        let search = Search { stop: Arc::clone(&stop), watch, sticks, prover, told: Vec::new() };
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
    sticks: Sticks,
    prover: Prover,
    /// What was told already: keys, and why there is none.
    told: Vec<String>,
}

impl Search {
    fn run(mut self) {
        while self.told.len() < KEYS {
            self.sticks.begin();
            let mut fds: Vec<BorrowedFd<'_>> = vec![self.stop.as_fd()];
            fds.extend(self.sticks.fds());
            let until = self.sticks.late_at(Deadline::after(Duration::MAX));
            match self.watch.wait(true, &fds, until) {
                Ok(Change::Readable(0)) | Err(_) => return,
                Ok(Change::Readable(index)) => self.take(index.saturating_sub(1)),
                Ok(Change::Block(device)) => self.sticks.changed(device.as_deref()),
                Ok(Change::Settled) => {}
                Ok(Change::Deadline) => {
                    let prover = &self.prover;
                    self.sticks.name_late("an admission key", &mut |words| prover.tell(words));
                }
            }
        }
        self.prover.tell(format!("{KEYS} media with admission keys were looked at; no other is"));
    }

    /// Takes what has come from this reader. Of a drive that cannot be read nothing is known that would concern admission.
    fn take(&mut self, index: usize) {
        if let Some((_, Content::Sticks(sticks))) = self.sticks.take(index) {
            sticks.into_iter().for_each(|Stick { place, looked }| self.looked(&place, looked));
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
