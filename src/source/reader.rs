//! Reads each drive in a process of its own. If a drive does not answer, the process that reads it hangs in the kernel
//! and cannot be killed; therefore the agent never opens a drive itself. It starts its own program again for each drive
//! ([`serve`]). That process opens the drive, gives up its rights ([`crate::confine`]), and only then reads the medium.
//! Nobody vouches for the medium, so the agent treats the process's answer as untrusted bytes.

pub mod keys;
mod swap;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use zeroize::Zeroizing;

use super::answer::{
    Answer, Content, Fault, KEY_LABEL, LABELS, Looked, MAX_ANSWER, MAX_PARTS, MAX_PAYLOADS, Medium, Part, Place,
};
use super::marks;
use super::medium::{VolumeError, Window};
use super::partition::{self, Partition, Table};
use super::user_data::{self, MAX_FILE};
use super::volume::Volume;
use crate::chain::chain;
use crate::confine::confine;
use crate::line::admission;
use crate::order;
use crate::payload::{self, MAX_LEN};
use crate::secret::Secret;
use crate::sys;
use crate::time::since_boot;

/// The internal subcommand that makes this program a reader. `imprint help` does not list it.
pub const WORD: &str = "read-drive";
/// This program.
pub const PROGRAM: &str = "/proc/self/exe";

/// What a reader looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted<'a> {
    /// The labels of wanted volumes that take up the whole medium. The files of such volumes are read.
    pub labels: &'a [&'a str],
    /// Whether partitions are read. If not, the first one that might hold a payload is named.
    pub partitions: bool,
}

/// The words for [`Wanted::partitions`].
const WITH_PARTITIONS: &str = "partitions";
const WHOLE: &str = "whole";
/// The word for partitions with the marker of swap space.
const SWAP_SPACE: &str = "swap";
/// The words for a key in the place of payloads, and its place.
const KEYS: [(&str, Place); 2] = [("key", Place::Key), ("bundle-key", Place::BundleKey)];

/// A process that reads one drive. Dropping it kills the process. A process that hangs in the kernel stays behind.
pub struct Reader {
    child: Child,
    pipe: ChildStdout,
    bytes: Zeroizing<Vec<u8>>,
    since: Duration,
}

impl Reader {
    /// Begins to read the drive of a device node.
    pub fn start(program: &Path, node: &Path, wanted: Wanted<'_>) -> io::Result<Reader> {
        let mut command = Command::new(program);
        let extent = if wanted.partitions { WITH_PARTITIONS } else { WHOLE };
        command.arg(WORD).arg(node).arg(extent).args(wanted.labels);
        Reader::begin(command)
    }

    /// Begins to look for a key on the drive of a device node: an admission key, or the key of bundles.
    pub fn for_key(program: &Path, node: &Path, place: Place) -> io::Result<Reader> {
        let word = KEYS.iter().find(|(_, known)| *known == place).map(|(word, _)| *word);
        let mut command = Command::new(program);
        command.arg(WORD).arg(node).arg(word.ok_or(io::ErrorKind::InvalidInput)?);
        Reader::begin(command)
    }

    /// Begins to look for partitions with the marker of swap space on the drive of a device node.
    pub fn for_swap(program: &Path, node: &Path) -> io::Result<Reader> {
        let mut command = Command::new(program);
        command.arg(WORD).arg(node).arg(SWAP_SPACE);
        Reader::begin(command)
    }

    fn begin(mut command: Command) -> io::Result<Reader> {
        command.env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let Some(pipe) = child.stdout.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        // Allocated at its full size: a buffer that grows would leave copies of a payload behind.
        let bytes = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
        Ok(Reader { child, pipe, bytes, since: since_boot() })
    }

    /// When the process was started, since boot.
    pub fn since(&self) -> Duration {
        self.since
    }

    /// Takes the bytes that have come, once the descriptor is readable. `None`: the answer is not complete yet.
    pub fn answer(&mut self) -> Option<Result<Answer, NoAnswer>> {
        let mut buffer = Zeroizing::new([0; 8192]);
        match self.pipe.read(&mut *buffer) {
            Ok(0) => {}
            Ok(count) if self.bytes.len() + count <= MAX_ANSWER => {
                self.bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
                return None;
            }
            Ok(_) => return Some(Err(NoAnswer)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return None,
            Err(_) => return Some(Err(NoAnswer)),
        }
        Some(Answer::decode(&self.bytes).ok_or(NoAnswer))
    }
}

/// The reader ended without a valid answer. For example, the kernel killed it for a forbidden system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoAnswer;

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Errors are ignored: the process may have ended already. `try_wait` does not wait for one that hangs in the
        // kernel.
        let _ = self.child.kill();
        let _ = self.child.try_wait();
    }
}

/// What a reader process is to read.
#[derive(Clone, Copy)]
enum Task<'a> {
    Payload(Wanted<'a>),
    Key(Place),
    Swap,
}

/// The reader process: `read-drive NODE whole|partitions LABEL…`, or `read-drive NODE key|bundle-key|swap`. It writes its answer to standard
/// output.
pub fn serve(words: &[&str]) -> io::Result<()> {
    let (node, task) = match words {
        [node, WHOLE, labels @ ..] => (node, Task::Payload(Wanted { labels, partitions: false })),
        [node, WITH_PARTITIONS, labels @ ..] => (node, Task::Payload(Wanted { labels, partitions: true })),
        [node, SWAP_SPACE] => (node, Task::Swap),
        [node, word] => {
            let place = KEYS.iter().find(|(known, _)| known == word).map(|(_, place)| *place);
            (node, Task::Key(place.ok_or(io::ErrorKind::InvalidInput)?))
        }
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    sys::close_inherited_files();
    // The kernel kills the reader when its parent ends, until the reader confines itself: nobody would read the answer.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let answer = read(Path::new(node), task);
    io::stdout().write_all(answer.encode().expose())?;
    io::stdout().flush()
}

fn read(node: &Path, task: Task<'_>) -> Answer {
    let device = match File::open(node) {
        // Never closed here: the filter does not allow close(2), and the end of the process closes the file.
        Ok(device) => ManuallyDrop::new(device),
        Err(error) => return Answer::Closed(error.raw_os_error().unwrap_or_default().unsigned_abs()),
    };
    match confine() {
        Ok(confined) => {
            let (mut device, filtered) = (Window::whole(&*device), confined.filtered);
            let medium = match task {
                Task::Payload(wanted) => look(&mut device, wanted, filtered),
                Task::Key(place) => keys::look(&mut device, place, filtered),
                Task::Swap => swap::look(&mut device, filtered),
            };
            match medium {
                Ok(medium) => Answer::Medium(medium),
                Err(error) => Answer::Unreadable(chain(&error)),
            }
        }
        Err(error) => Answer::Unconfined(chain(&error)),
    }
}

/// Reads a medium: its volumes, its partitions, and the files of those that are wanted.
pub fn look(device: &mut Window<impl Read + Seek>, wanted: Wanted<'_>, filtered: bool) -> Result<Medium, VolumeError> {
    let mut whole = part(device, wanted.labels, &mut { MAX_PAYLOADS })?;
    let table = if wanted.partitions || whole.volumes.is_empty() { partition::table(device) } else { Ok(None) };
    let mut medium = Medium { filtered, fault: None, parts: Vec::new() };
    let table = match table {
        Err(error) if whole.volumes.is_empty() => return Err(error),
        Err(error) => {
            medium.fault = Some(Fault { why: chain(&error), ours: false });
            None
        }
        Ok(table) => table,
    };
    if whole.volumes.is_empty() {
        whole.beside = marks::instead(device, table.as_ref())?.map(ToOwned::to_owned);
    }
    let mut left = MAX_PAYLOADS.saturating_sub(whole.payloads());
    medium.parts.push(whole);
    match table {
        Some(Table { fault: Some(fault), partitions, .. }) if wanted.partitions => {
            let ours = partitions.iter().any(Partition::is_ours);
            medium.fault = Some(Fault { why: chain(&fault), ours });
        }
        Some(table) if wanted.partitions => match of_use(&table, device, &mut left) {
            Ok(parts) => medium.parts.extend(parts),
            Err(why) => medium.fault = Some(Fault { why, ours: true }),
        },
        Some(table) if medium.parts.iter().all(|part| part.volumes.is_empty()) => {
            medium.parts.extend(first_of_use(&table, device, wanted.labels));
        }
        _ => {}
    }
    Ok(medium)
}

/// The volumes of a medium or of a partition, and the files on those that have a wanted label. `left`: how many more payloads
/// the answer has room for.
fn part(device: &mut (impl Read + Seek), labels: &[&str], left: &mut usize) -> Result<Part, VolumeError> {
    let mut part =
        Part { number: 0, name: String::new(), ours: false, raw: Looked::Unwanted, volumes: Vec::new(), beside: None };
    for volume in Volume::all(device)? {
        let mut content = Content { format: volume.format().to_owned(), labels: labels_of(&volume), files: Vec::new() };
        // A stick with an admission key is no payload's, whatever else is on it.
        if is_wanted(&content.labels, labels) && !is_wanted(&content.labels, &[KEY_LABEL]) {
            content.files = files(device, &volume, &content.labels, left);
            match marks::beside(device, &volume) {
                Ok(beside) => part.beside = part.beside.or(beside.map(ToOwned::to_owned)),
                // It is not known whether something else claims the medium, so the volume counts as broken.
                Err(error) => {
                    content.files = vec![(Place::File, Looked::Broken { at_the_file: true, why: chain(&error) })];
                }
            }
        }
        part.volumes.push(content);
    }
    Ok(part)
}

/// Looks for a payload in each place that a volume with these labels may have one in.
fn files(
    device: &mut (impl Read + Seek),
    volume: &Volume,
    labels: &[String],
    left: &mut usize,
) -> Vec<(Place, Looked)> {
    let places = Place::ALL.into_iter().filter(|(_, label)| label.is_none_or(|label| is_wanted(labels, &[label])));
    places.map(|(place, _)| (place, counted(file(device, volume, place), left))).collect()
}

/// Takes room for a payload in the answer. One that there is no room for might differ from the others.
fn counted(looked: Looked, left: &mut usize) -> Looked {
    match (looked, left.checked_sub(1)) {
        (Looked::Found(bytes), Some(fewer)) => {
            *left = fewer;
            Looked::Found(bytes)
        }
        (Looked::Found(_), None) => {
            let why = format!("more than {MAX_PAYLOADS} payloads on one medium; remove all but one");
            Looked::Broken { at_the_file: true, why }
        }
        (looked, _) => looked,
    }
}

fn file(device: &mut (impl Read + Seek), volume: &Volume, place: Place) -> Looked {
    let most = match place {
        Place::File => MAX_LEN,
        Place::Key | Place::BundleKey => admission::MAX_FILE,
        _ => MAX_FILE,
    };
    let bytes = match volume.file(device, place.path(), most) {
        Ok(None) => return Looked::Absent,
        Ok(Some(bytes)) => bytes,
        Err(VolumeError::TooLong { len, .. }) if place != Place::File => {
            return Looked::Foreign(format!("it has {len} bytes, and {most} are read"));
        }
        // Nobody knows whose file it is, so it counts as damaged only if it is imprint/payload itself.
        Err(error) => {
            return Looked::Broken {
                at_the_file: matches!(place, Place::File | Place::Key | Place::BundleKey) && error.is_about_the_file(),
                why: chain(&error),
            };
        }
    };
    let content = match place {
        Place::File | Place::Key | Place::BundleKey => return Looked::Found(bytes),
        Place::OpenStackUserData | Place::NoCloudUserData => user_data::user_data(bytes.expose()),
        Place::OpenStackVendorData | Place::OpenStackVendorData2 => user_data::vendor_data(bytes.expose()),
    };
    match content {
        user_data::Content::Payload(payload) => Looked::Found(payload),
        user_data::Content::Foreign(why) => Looked::Foreign(why.to_owned()),
        user_data::Content::Damaged(why) => {
            Looked::Broken { at_the_file: true, why: format!("its file {}: {why}", place.path().join("/")) }
        }
    }
}

/// The partitions that are to be judged. The error: there are more than are looked at, and any of them may have a payload.
fn of_use(table: &Table, device: &mut Window<impl Read + Seek>, left: &mut usize) -> Result<Vec<Part>, String> {
    const ROOM: usize = MAX_PARTS - 1;
    if table.holding().skip(MAX_PARTITIONS).any(Partition::is_ours) {
        return Err(format!(
            "it has more than {MAX_PARTITIONS} partitions, and one behind those is for a payload; give that one a lower number"
        ));
    }
    let (mut parts, mut empty, mut hinted) = (Vec::new(), Vec::new(), false);
    for partition in table.holding().take(MAX_PARTITIONS) {
        match in_partition(partition, device, left, &mut hinted) {
            None => {}
            // Such parts only say why there is nothing in them, where the answer has room for that.
            Some(part) if !part.counts() => empty.push(part),
            Some(_) if parts.len() == ROOM => {
                return Err(format!(
                    "more than {ROOM} of its partitions have something for imprint; leave one, and clear the others with zeros"
                ));
            }
            Some(part) => parts.push(part),
        }
    }
    empty.truncate(ROOM.saturating_sub(parts.len()));
    parts.extend(empty);
    order::sort(&mut parts, |one, other| one.number < other.number);
    Ok(parts)
}

/// What a partition holds, if it is ours, or if it has a volume with one of our labels. `hinted`: a partition with a payload that
/// nothing marks was found; one is enough for the message.
fn in_partition(
    partition: &Partition,
    device: &mut Window<impl Read + Seek>,
    left: &mut usize,
    hinted: &mut bool,
) -> Option<Part> {
    let (start, len) = partition.place();
    device.narrow(start, len);
    let mut found = if partition.is_ours() { ours(device, left) } else { part(device, &LABELS, left).ok()? };
    (found.number, found.ours) = (partition.number, partition.is_ours());
    found.name.clone_from(&partition.name);
    if !found.ours && found.volumes.is_empty() && !*hinted && begins_like_a_payload(device) {
        *hinted = true;
        found.raw = Looked::Foreign(UNMARKED.to_owned());
        return Some(found);
    }
    (found.ours || found.volumes.iter().any(|volume| is_wanted(&volume.labels, &LABELS))).then_some(found)
}

/// A payload is CBOR, which begins as other data may. So the table has to say that the partition holds one.
const UNMARKED: &str = "it begins like a payload, which counts only in a GPT partition with the type or the name of imprint; \
                        write a volume with it there (imprint-host payload NODE --as vfat)";

/// Whether the partition begins as payloads do, with or without a signature. For a message only.
fn begins_like_a_payload(device: &mut (impl Read + Seek)) -> bool {
    let mut bytes = [0; 5];
    // Errors are ignored: the partition holds nothing that is looked for.
    if !partition::read(device, 0, &mut bytes).unwrap_or(false) {
        return false;
    }
    match bytes {
        // A map with the version, which is a small number, and an identifier of 16 bytes (docs/payload.cddl).
        [map, 0, version, 1, 0x50] => map >> 5 == 5 && version < 0x18,
        // Tag 18, and a protected header of 13 bytes with the algorithm first and the signer's `kid` behind it.
        signed => signed == [0xd2, 0x84, 0x4d, 0xa2, 1],
    }
}

/// A partition with our type or our name: the payload itself, or a volume, whatever its label.
fn ours(device: &mut (impl Read + Seek), left: &mut usize) -> Part {
    let broken = |why| Part {
        number: 0,
        name: String::new(),
        ours: true,
        raw: Looked::Broken { at_the_file: true, why },
        volumes: Vec::new(),
        beside: None,
    };
    let look = |device: &mut _, left: &mut usize| {
        let labels: Vec<String> = Volume::all(device)?.iter().flat_map(labels_of).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let mut part = part(device, &labels, left)?;
        part.raw = match raw(device)? {
            // The volume is what is in the partition.
            Looked::Foreign(_) | Looked::Broken { .. } if !part.volumes.is_empty() => Looked::Absent,
            raw => counted(raw, left),
        };
        if part.volumes.is_empty() {
            part.beside = marks::mark(device)?.map(ToOwned::to_owned);
        }
        Ok(part)
    };
    look(device, left).unwrap_or_else(|error: VolumeError| broken(chain(&error)))
}

/// The payload itself, at the beginning of a partition. Its CBOR tells its length. The bytes behind it do not matter,
/// because a short payload may have been written over a longer one.
fn raw(device: &mut (impl Read + Seek)) -> Result<Looked, VolumeError> {
    let mut bytes = Zeroizing::new(vec![0; MAX_LEN]);
    let len = read_up_to(device, &mut bytes)?;
    let bytes = bytes.get(..len).unwrap_or_default();
    let why = match (payload::first_item(bytes), bytes.first()) {
        (Some(item), Some(first)) if may_begin(*first) => return Ok(Looked::Found(Secret::new(item.to_vec()))),
        _ if bytes.iter().take(EMPTY).all(|byte| *byte == 0) => return Ok(Looked::Foreign("it is empty".to_owned())),
        (None, Some(first)) if may_begin(*first) => "the payload in it is damaged or too long",
        _ => "no payload is at its beginning",
    };
    let why = format!("{why}; write it with imprint-host payload NODE --as gpt, or clear it with zeros");
    Ok(Looked::Broken { at_the_file: true, why })
}

/// A partition that begins with this many zeros is empty: a payload is removed by writing zeros over it.
const EMPTY: usize = 512;

/// A map (RFC 8949 §3.1), or tag 18: a payload with a signature (RFC 9052 §2).
fn may_begin(byte: u8) -> bool {
    byte >> 5 == 5 || byte == 0xd2
}

/// Reads from the beginning until the device ends or the buffer is full. Returns how many bytes were read.
fn read_up_to(device: &mut (impl Read + Seek), bytes: &mut [u8]) -> Result<usize, VolumeError> {
    let failed = |source| VolumeError::Read { offset: 0, source };
    device.rewind().map_err(failed)?;
    let mut len = 0;
    loop {
        match device.read(bytes.get_mut(len..).unwrap_or_default()).map_err(failed)? {
            0 => return Ok(len),
            count => len += count,
        }
    }
}

fn labels_of(volume: &Volume) -> Vec<String> {
    volume.labels().map(ToOwned::to_owned).collect()
}

/// The first partition that might hold a payload, so that a message can name it. It is not looked into.
fn first_of_use(table: &Table, device: &mut Window<impl Read + Seek>, labels: &[&str]) -> Option<Part> {
    table.holding().take(MAX_NAMED).find_map(|partition| {
        let (start, len) = partition.place();
        device.narrow(start, len);
        // Errors are ignored: the result is used for a message only.
        let volumes = Volume::all(device).unwrap_or_default();
        let volumes = volumes.iter().map(|volume| Content {
            format: volume.format().to_owned(),
            labels: labels_of(volume),
            files: Vec::new(),
        });
        let volumes: Vec<Content> = volumes.filter(|volume| is_wanted(&volume.labels, labels)).take(1).collect();
        let (number, name, ours) = (partition.number, partition.name.clone(), partition.is_ours());
        (ours || !volumes.is_empty()).then_some(Part {
            number,
            name,
            ours,
            raw: Looked::Unwanted,
            volumes,
            beside: None,
        })
    })
}

/// How many partitions are read: all that an MBR may have. Programs make room for 128 in a GPT.
const MAX_PARTITIONS: usize = 4 + partition::MAX_LINKS;
/// How many are searched to name one. A disk that was made into a config drive has one or two.
const MAX_NAMED: usize = 8;

fn is_wanted(labels: &[String], wanted: &[&str]) -> bool {
    labels.iter().any(|label| wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(label)))
}

/// The path of the agent that `cargo build --workspace --bins` has made.
#[cfg(test)]
pub(super) fn program() -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/debug/deps/TEST
    let path = test.parent().and_then(Path::parent).unwrap().join("imprint");
    assert!(path.exists(), "{} is missing: run cargo build --workspace --bins", path.display());
    path
}
