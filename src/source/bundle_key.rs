//! The key that opens the node's bundles: an age identity in the payload, in the file `/imprint/bundle-key` of the image, or in the
//! file `imprint/bundle-key` on a medium with the label IMPRINT-KEY. Everybody who has the image or the medium has the key in it.
//! USB media count (`key_file`), and anybody can plug one in: so the key on a medium has to be the one of the payload's recipient.
//! Whoever plugs in a wrong key stops the boot, and learns nothing. Never opens a bundle, and never keeps a key.

mod error;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::BundleKeyError;

use super::answer::{Looked, Place};
use super::config_drive::PATIENCE;
use super::key_file::{self, Content, OfImage, Stick, Sticks};
use super::{SourceError, reader};
use crate::age::{Identity, KeyTextError, Recipient};
use crate::line::admission::MAX_FILE;
use crate::payload::BundleKey;
use crate::shown::Printable;
use crate::time::{Deadline, since_boot};
use crate::uevent::{Change, Watch};

/// The key in the image.
pub const PATH: &str = "imprint/bundle-key";
/// The same file on a system that runs, where image builders take it from.
pub const INSTALLED: &str = "etc/imprint/bundle-key";

/// Where keys are looked for, and how long drives may take.
pub struct Around<'a> {
    /// The root.
    pub root: &'a Path,
    /// The program that reads a drive.
    pub program: &'a Path,
    /// A drive that has not answered for so long is named, and not waited for.
    pub patience: Duration,
    /// After so long all drives are listed again, and one that could not be read is tried again: events get lost, and a stick
    /// that was pulled half-way may come back without one.
    pub again: Duration,
    /// How often a person is told again to pull the medium.
    pub remind: Duration,
}

impl Around<'_> {
    /// Those of a boot.
    pub fn of(root: &Path) -> Around<'_> {
        let (again, remind) = (Duration::from_secs(5), Duration::from_secs(30));
        Around { root, program: Path::new(reader::PROGRAM), patience: PATIENCE, again, remind }
    }
}

/// The key of an image, or of a file that a person names.
#[derive(Debug)]
pub struct ImageKey {
    identity: Identity,
    path: PathBuf,
    /// Others than the owner of the file can read it.
    exposed: bool,
}

/// A key that was found.
#[derive(Debug)]
pub struct Held {
    /// The key.
    pub identity: Identity,
    /// Where it was, for people: `the payload`, `/imprint/bundle-key`, `sdb (IMPRINT-KEY)`.
    pub from: Printable,
}

/// Finds the key. A medium is waited for until `deadline`; if it has to be pulled, a person has time until `pulled` for that.
/// `tell`: for the console.
pub fn find(
    key: &BundleKey,
    around: &Around<'_>,
    deadline: Deadline,
    pulled: Deadline,
    tell: &mut dyn FnMut(&str),
) -> Result<Held, BundleKeyError> {
    match key {
        BundleKey::Payload(identity) => Ok(Held { identity: identity.clone(), from: "the payload".into() }),
        BundleKey::Image(recipient) => held_by_image(around.root, recipient.as_ref(), tell),
        BundleKey::Stick { recipient, pull } => {
            let mut search = Search::begin(around, *recipient, tell)?;
            let held = search.find(deadline)?;
            if *pull {
                search.until_pulled(pulled)?;
            }
            Ok(held)
        }
    }
}

fn held_by_image(
    root: &Path,
    recipient: Option<&Recipient>,
    tell: &mut dyn FnMut(&str),
) -> Result<Held, BundleKeyError> {
    let key = of_image(root)?.ok_or(BundleKeyError::NotInImage)?;
    let has = key.identity.recipient();
    if let Some(wants) = recipient.copied().filter(|wants| *wants != has) {
        return Err(BundleKeyError::OtherInImage { path: key.path, has, wants });
    }
    key.note().into_iter().for_each(|note| tell(&note));
    Ok(Held { identity: key.identity, from: Printable::path(&key.path) })
}

/// The key of the image. `None` without the file.
pub fn of_image(root: &Path) -> Result<Option<ImageKey>, BundleKeyError> {
    match key_file::of_image(root, [PATH, INSTALLED], MAX_FILE) {
        Ok(found) => found.map(|OfImage { path, bytes }| named(path, bytes.expose())).transpose(),
        Err(SourceError::TooLong(path, _)) => Err(BundleKeyError::File { path, why: KeyTextError::Identity }),
        Err(SourceError::Read { path, source }) => Err(BundleKeyError::Read { path, source }),
        // `key_file` gives no other.
        Err(_) => Ok(None),
    }
}

/// The key in a file that has these bytes.
pub fn named(path: PathBuf, bytes: &[u8]) -> Result<ImageKey, BundleKeyError> {
    let exposed = key_file::is_exposed(&path);
    match parsed(bytes) {
        Ok(identity) => Ok(ImageKey { identity, path, exposed }),
        Err(why) => Err(BundleKeyError::File { path, why }),
    }
}

fn parsed(bytes: &[u8]) -> Result<Identity, KeyTextError> {
    std::str::from_utf8(bytes).map_err(|_| KeyTextError::Identity).and_then(Identity::parse)
}

impl ImageKey {
    /// What the operator should know of the file.
    fn note(&self) -> Option<String> {
        let path = Printable::path(&self.path);
        self.exposed.then(|| format!("others than its owner can read the bundle key {path}; chmod 0600 {path}"))
    }
}

/// The public key and the file, and what a record needs that names it. Never the key.
impl fmt::Display for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "bundle key     {}", self.identity.recipient())?;
        writeln!(f, "file           {}", Printable::path(&self.path))?;
        writeln!(f, "record         bundle_key = \"image\", or \"stick\"")?;
        writeln!(f, "               bundle_recipient = \"{}\"", self.identity.recipient())?;
        self.note().into_iter().try_for_each(|note| writeln!(f, "note           {note}"))
    }
}

/// Whether a file is meant to have a bundle key: a line of it begins as an age identity does.
pub fn is_meant(file: &[u8]) -> bool {
    let text = std::str::from_utf8(file).unwrap_or_default();
    text.lines().any(|line| line.trim_start().get(..MARK.len()).is_some_and(|mark| mark.eq_ignore_ascii_case(MARK)))
}

const MARK: &str = "AGE-SECRET-KEY-";

/// A place on a medium, and the key there or why it is none.
type Placed = (Printable, Result<Identity, String>);

/// The media, while they are looked at.
struct Search<'a> {
    sticks: Sticks,
    /// The public key that counts.
    recipient: Recipient,
    watch: Watch,
    again: Duration,
    remind: Duration,
    tell: &'a mut dyn FnMut(&str),
    /// By drive: what it has in the place of the key. A drive without the file is not here.
    found: BTreeMap<String, Vec<Placed>>,
    /// Media with the label and without the file, and drives that cannot be read; why.
    without: BTreeMap<String, String>,
    /// Drives that could not be read.
    failed: BTreeSet<String>,
    told: Vec<String>,
    /// The key was found, and its medium has to be pulled.
    pulling: bool,
}

/// What the media say, once all have answered.
enum Verdict {
    One(Held),
    None(BundleKeyError),
}

impl<'a> Search<'a> {
    fn begin(
        around: &Around<'_>,
        recipient: Recipient,
        tell: &'a mut dyn FnMut(&str),
    ) -> Result<Search<'a>, BundleKeyError> {
        let Around { root, program, patience, again, remind } = *around;
        // Opened before the first look, so that no drive is missed in between.
        let watch = Watch::open(root, true, patience).map_err(BundleKeyError::Watch)?;
        let sticks = Sticks::new(root, program, patience, Place::BundleKey);
        let (found, without, failed) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let (told, pulling) = (Vec::new(), false);
        Ok(Search { sticks, recipient, watch, again, remind, tell, found, without, failed, told, pulling })
    }

    /// One key. A medium that comes later counts as well as one that is there, and so does one that is left when another was
    /// pulled.
    fn find(&mut self, deadline: Deadline) -> Result<Held, BundleKeyError> {
        let mut settled = false;
        loop {
            self.look();
            let mut until = deadline;
            // All drives are waited for, and devices that are still to come: of two media none counts.
            if settled && !self.sticks.is_reading() {
                match self.verdict() {
                    Verdict::One(held) => return Ok(held),
                    Verdict::None(error) if deadline.expired() => return Err(error),
                    Verdict::None(error) => {
                        let seconds = deadline.remaining().as_secs();
                        self.say(error.to_string(), &format!("; waiting up to {seconds} s for it"));
                    }
                }
                until = deadline.at_most(self.again);
            }
            if deadline.expired() {
                return match self.verdict() {
                    Verdict::One(held) => Ok(held),
                    Verdict::None(error) => Err(error),
                };
            }
            match self.wait(settled, until)? {
                Change::Block(_) => settled = false,
                Change::Settled => settled = true,
                Change::Deadline if settled => self.retry(),
                Change::Deadline | Change::Readable(_) => {}
            }
        }
    }

    /// Waits until no medium with a key is left.
    fn until_pulled(&mut self, deadline: Deadline) -> Result<(), BundleKeyError> {
        let Some(place) = self.places().into_iter().next() else { return Ok(()) };
        self.pulling = true;
        let mut next = Duration::ZERO;
        while let Some(place) = self.places().into_iter().next() {
            if deadline.expired() {
                return Err(BundleKeyError::Stays(place));
            }
            if next <= since_boot() {
                (self.tell)(&format!("pull the medium with the bundle key, {place}; the boot waits for that"));
                next = since_boot().saturating_add(self.remind);
            }
            let until = deadline.at_most(self.again.min(self.remind));
            self.wait(true, until)?;
            self.look();
        }
        (self.tell)(&format!("the medium with the bundle key, {place}, is gone"));
        Ok(())
    }

    /// Lists the drives, and begins to read those that are new.
    fn look(&mut self) {
        self.sticks.begin();
        let Search { sticks, found, without, failed, .. } = self;
        found.retain(|drive, _| sticks.has(drive));
        without.retain(|drive, _| sticks.has(drive));
        failed.retain(|drive| sticks.has(drive));
    }

    /// Waits for a change, and takes it in.
    fn wait(&mut self, settled: bool, until: Deadline) -> Result<Change, BundleKeyError> {
        let fds: Vec<BorrowedFd<'_>> = self.sticks.fds().collect();
        let change = self.watch.wait(settled, &fds, self.sticks.late_at(until)).map_err(BundleKeyError::Watch)?;
        drop(fds);
        match &change {
            Change::Readable(index) => self.take(*index),
            Change::Block(device) => self.sticks.changed(device.as_deref()),
            Change::Settled | Change::Deadline => {}
        }
        let tell = &mut self.tell;
        self.sticks.name_late("a bundle key", &mut |words| tell(&words));
        Ok(change)
    }

    /// Has the drives read again that could not be read. A stick that was pulled half-way may come back without an event.
    fn retry(&mut self) {
        let broken = self.found.iter().filter(|(_, media)| media.iter().any(|(_, key)| key.is_err()));
        for drive in broken.map(|(drive, _)| drive).chain(&self.failed) {
            self.sticks.changed(Some(drive));
        }
    }

    /// Takes what has come from this reader.
    fn take(&mut self, index: usize) {
        let Some((drive, content)) = self.sticks.take(index) else { return };
        let is_failure = matches!(content, Content::Unreadable(_));
        if is_failure {
            self.failed.insert(drive.clone())
        } else {
            self.failed.remove(&drive)
        };
        // One that is half pulled is not gone.
        if !(is_failure && self.pulling) {
            self.found.remove(&drive);
        }
        self.without.remove(&drive);
        match content {
            Content::Closed => {}
            Content::Unreadable(why) => {
                let why = format!("{} cannot be read: {}", Printable::of(&drive), Printable::of(&why));
                self.without.insert(drive, why);
            }
            Content::Sticks(sticks) => {
                for Stick { place, looked } in sticks {
                    let key = match looked {
                        Looked::Found(bytes) => parsed(bytes.expose()).map_err(|error| error.to_string()),
                        Looked::Broken { why, .. } | Looked::Foreign(why) => Err(Printable::of(&why).to_string()),
                        Looked::Absent | Looked::Unwanted => {
                            self.without.insert(drive.clone(), format!("{place} has no file {PATH}"));
                            continue;
                        }
                    };
                    let media = self.found.entry(drive.clone()).or_default();
                    // The same key twice on one medium is one key, and one medium to pull.
                    if key.is_err() || media.iter().all(|(_, known)| *known != key) {
                        media.push((place, key));
                    }
                }
            }
        }
    }

    /// The media with a key, for people.
    fn places(&self) -> Vec<Printable> {
        self.found.values().flatten().map(|(place, _)| place.clone()).collect()
    }

    fn verdict(&self) -> Verdict {
        let mut media = self.found.values().flatten();
        match (media.next(), media.next()) {
            (Some((place, Ok(identity))), None) => match (identity.recipient(), self.recipient) {
                (has, wants) if has == wants => Verdict::One(Held { identity: identity.clone(), from: place.clone() }),
                (has, wants) => Verdict::None(BundleKeyError::OtherStick { place: place.clone(), has, wants }),
            },
            (Some((place, Err(why))), None) => {
                Verdict::None(BundleKeyError::Stick { place: place.clone(), why: why.clone() })
            }
            // Which of them is meant, nobody can say; and both would have to be pulled.
            (Some((first, _)), Some((second, _))) => {
                Verdict::None(BundleKeyError::TwoSticks { first: first.clone(), second: second.clone() })
            }
            (None, _) => {
                let without: Vec<&str> = self.without.values().map(String::as_str).collect();
                Verdict::None(BundleKeyError::NoStick(without.join(", ")))
            }
        }
    }

    /// Tells the console the same once. What is behind it changes with the time.
    fn say(&mut self, words: String, behind: &str) {
        if !self.told.contains(&words) {
            (self.tell)(&format!("{words}{behind}"));
            self.told.push(words);
        }
    }
}

#[cfg(test)]
mod tests;
