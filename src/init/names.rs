//! What a block device calls itself: the UUID and the label of its file system, and those of its partitions. Everybody who ever wrote to a
//! disk vouches for that. So each device is read by a process of its own, which gives up its rights before it reads: one that does not
//! answer holds up nobody, and a fault in a parser has no rights. Its answer is untrusted, too.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};

use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::confine::confine;
use crate::source::partition;
use crate::source::reader::PROGRAM;
use crate::superblock;
use crate::sys;

/// The internal subcommand that makes this program read a device.
pub(super) const WORD: &str = "init-names";
/// The longest answer, in bytes: 256 partitions.
const MAX: usize = 256 * 256;

/// What a device or one of its partitions is called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Name {
    /// 0: the whole device, whose file system this is. Otherwise a partition, as its table names it.
    pub(super) number: u32,
    /// The file system. Empty for a partition.
    pub(super) kind: String,
    pub(super) uuid: String,
    pub(super) label: String,
}

/// A process that reads a device.
pub(super) struct Reading {
    child: Child,
    pipe: ChildStdout,
    bytes: Vec<u8>,
}

impl Reading {
    pub(super) fn start(node: &Path) -> io::Result<Reading> {
        let mut command = Command::new(PROGRAM);
        command.arg(WORD).arg(node).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let Some(pipe) = child.stdout.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        Ok(Reading { child, pipe, bytes: Vec::new() })
    }

    /// Takes the bytes that have come, once the descriptor is readable. `None`: there may be more.
    pub(super) fn answer(&mut self) -> Option<Vec<Name>> {
        let mut buffer = [0; 4096];
        match self.pipe.read(&mut buffer) {
            Ok(count) if count > 0 && self.bytes.len().saturating_add(count) <= MAX => {
                self.bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
                None
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            _ => Some(decode(&self.bytes)),
        }
    }
}

impl AsFd for Reading {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // Errors are ignored: it may have ended. It is not waited for, as it may hang in the kernel.
        let _ = self.child.kill();
        let _ = self.child.try_wait();
    }
}

/// The process that reads a device. It writes its answer to standard output.
pub(super) fn serve(node: &str) -> ExitCode {
    sys::close_inherited_files();
    let answer = prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from).and_then(|()| read(Path::new(node)));
    let written = answer.and_then(|names| io::stdout().write_all(&encode(&names)).and_then(|()| io::stdout().flush()));
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(node: &Path) -> io::Result<Vec<Name>> {
    // Never closed here: the filter of the confined process does not allow close(2).
    let device = ManuallyDrop::new(File::open(node)?);
    confine().map_err(io::Error::other)?;
    let mut device = &*device;
    let mut names = Vec::new();
    if let Some(found) = superblock::read(&mut device)? {
        names.push(Name { number: 0, kind: found.kind.to_owned(), uuid: found.uuid, label: found.label });
    }
    if let Ok(Some(table)) = partition::table(&mut device) {
        let named = |one: &partition::Partition| Name {
            number: one.number,
            kind: String::new(),
            uuid: one.unique.clone(),
            label: one.name.clone(),
        };
        names.extend(table.holding().map(named));
    }
    Ok(names)
}

/// Four texts each, each ended by NUL.
fn encode(names: &[Name]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in names {
        for field in [&name.number.to_string(), &name.kind, &name.uuid, &name.label] {
            bytes.extend(field.bytes().filter(|byte| *byte != 0));
            bytes.push(0);
        }
    }
    bytes
}

fn decode(bytes: &[u8]) -> Vec<Name> {
    let text = String::from_utf8_lossy(bytes);
    let fields: Vec<&str> = text.split_terminator('\0').collect();
    let named = |fields: &[&str; 4]| {
        let [number, kind, uuid, label] = fields.map(str::to_owned);
        // The kind goes to mount(2), so it is one that is known.
        let known = kind.is_empty() || superblock::kinds().any(|known| known == kind);
        Some(Name { number: number.parse().ok()?, kind, uuid, label }).filter(|_| known)
    };
    fields.as_chunks().0.iter().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u32, [kind, uuid, label]: [&str; 3]) -> Name {
        Name { number, kind: kind.into(), uuid: uuid.into(), label: label.into() }
    }

    #[test]
    fn answers_come_back_as_they_were() {
        let names = [name(0, ["ext4", "0123", "a b"]), name(2, ["", "dead-02", ""])];
        assert_eq!(decode(&encode(&names)), names);
        assert_eq!(decode(b""), []);
    }

    /// Attack: a process that a disk has taken over answers what it likes.
    #[test]
    fn an_answer_that_makes_no_sense_names_nothing() {
        assert_eq!(decode(b"0\0nfs\0x\0y\0"), [], "a file system that no superblock has");
        assert_eq!(decode(b"0\0ext4\0x"), []);
        assert_eq!(decode(b"-1\0ext4\0x\0y\0\xff\0"), []);
        let long = Name { number: 0, kind: "xfs".into(), uuid: "x".into(), label: "a\0b".into() };
        assert_eq!(decode(&encode(&[long]))[0].label, "ab");
    }
}
