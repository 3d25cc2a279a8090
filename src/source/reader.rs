//! Reads each drive in a process of its own. If a drive does not answer, the process that reads it hangs in the kernel
//! and cannot be killed; therefore the agent never opens a drive itself. It starts its own program again for each drive
//! ([`serve`]). That process opens the drive, gives up its rights ([`crate::confine`]), and only then reads the medium.
//! Nobody vouches for the medium, so the agent treats the process's answer as untrusted bytes.

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

use super::answer::{Answer, Content, Looked, MAX_ANSWER, Medium};
use super::marks::{self, Partition};
use super::medium::{VolumeError, Window};
use super::volume::Volume;
use crate::chain::chain;
use crate::confine::confine;
use crate::payload::MAX_LEN;
use crate::sys;
use crate::time::since_boot;

/// The internal subcommand that makes this program a reader. `imprint help` does not list it.
pub const WORD: &str = "read-drive";
/// This program.
pub const PROGRAM: &str = "/proc/self/exe";
/// Where the payload is on a volume.
pub const PATH: [&str; 2] = ["imprint", "payload"];

/// A process that reads one drive. Dropping it kills the process. A process that hangs in the kernel stays behind.
pub struct Reader {
    child: Child,
    pipe: ChildStdout,
    bytes: Zeroizing<Vec<u8>>,
    since: Duration,
}

impl Reader {
    /// Begins to read the drive of a device node. `labels`: the payload file is read from volumes with one of these
    /// labels.
    pub fn start(program: &Path, node: &Path, labels: &[&str]) -> io::Result<Reader> {
        let mut command = Command::new(program);
        command.arg(WORD).arg(node).args(labels).env_clear().current_dir("/");
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

/// The reader process: `read-drive NODE LABEL…`. It writes its answer to standard output.
pub fn serve(words: &[&str]) -> io::Result<()> {
    let Some((node, labels)) = words.split_first() else { return Err(io::ErrorKind::InvalidInput.into()) };
    sys::close_inherited_files();
    // The kernel kills the reader when its parent ends, until the reader confines itself: nobody would read the answer.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let answer = read(Path::new(node), labels);
    io::stdout().write_all(answer.encode().expose())?;
    io::stdout().flush()
}

fn read(node: &Path, labels: &[&str]) -> Answer {
    let device = match File::open(node) {
        // Never closed here: the filter does not allow close(2), and the end of the process closes the file.
        Ok(device) => ManuallyDrop::new(device),
        Err(error) => return Answer::Closed(error.raw_os_error().unwrap_or_default().unsigned_abs()),
    };
    match confine() {
        Ok(confined) => match look(&mut Window::whole(&*device), labels, confined.filtered) {
            Ok(medium) => Answer::Medium(medium),
            Err(error) => Answer::Unreadable(chain(&error)),
        },
        Err(error) => Answer::Unconfined(chain(&error)),
    }
}

/// Reads a medium: its volumes, and the payload file of those volumes that have a wanted label.
fn look(device: &mut Window<impl Read + Seek>, wanted: &[&str], filtered: bool) -> Result<Medium, VolumeError> {
    let mut medium = Medium { filtered, volumes: Vec::new(), beside: None };
    for volume in Volume::all(device)? {
        let labels: Vec<String> = volume.labels().map(ToOwned::to_owned).collect();
        let mut file = Looked::Unwanted;
        if is_wanted(&labels, wanted) {
            file = match volume.file(device, &PATH, MAX_LEN) {
                Ok(Some(bytes)) => Looked::Found(bytes),
                Ok(None) => Looked::Absent,
                Err(error) => Looked::Broken { at_the_file: error.is_about_the_file(), why: chain(&error) },
            };
            match marks::beside(device, &volume) {
                Ok(beside) => medium.beside = medium.beside.or(beside.map(ToOwned::to_owned)),
                // It is not known whether something else claims the medium, so the volume counts as broken.
                Err(error) => file = Looked::Broken { at_the_file: true, why: chain(&error) },
            }
        }
        medium.volumes.push(Content { format: volume.format().to_owned(), labels, file });
    }
    if medium.volumes.is_empty()
        && let Some((name, partitions)) = marks::instead(device)?
    {
        medium.beside = Some(name.to_owned());
        medium.volumes.extend(first_in(&partitions, device, wanted));
    }
    Ok(medium)
}

/// The first volume with a wanted label in a partition, so that a message can name it. Its payload file is not read.
fn first_in(partitions: &[Partition], device: &mut Window<impl Read + Seek>, wanted: &[&str]) -> Option<Content> {
    partitions.iter().take(MAX_PARTITIONS).find_map(|partition| {
        let (start, len) = partition.place();
        device.narrow(start, len);
        // Errors are ignored: the result is used for a message only.
        let volumes = Volume::all(device).unwrap_or_default();
        volumes.into_iter().find_map(|volume| {
            let labels: Vec<String> = volume.labels().map(ToOwned::to_owned).collect();
            let file = Looked::InPartition(partition.number);
            is_wanted(&labels, wanted).then(|| Content { format: volume.format().to_owned(), labels, file })
        })
    })
}

/// How many partitions are searched. A disk that was made into a config drive has one or two.
const MAX_PARTITIONS: usize = 8;

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
