//! Writes to people: on standard output and standard error, and also on the console when those two are the journal.
//! The agent writes to people nowhere else, and all text is made printable here, whatever its source. Output never stops
//! the program: text that cannot be written is dropped silently, and a console that takes nothing is waited for once.
//! Decides nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{SFlag, fstat};

use crate::shown::{line, page};
use crate::sys;
use crate::time::Deadline;

/// How many lines were said. Whoever has something else on a console learns from it that it was disturbed.
pub fn said() -> usize {
    SAID.load(Ordering::Relaxed)
}

static SAID: AtomicUsize = AtomicUsize::new(0);

/// One line about what happens, on standard output.
pub fn say(words: &str) {
    SAID.fetch_add(1, Ordering::Relaxed);
    let text = format!("imprint: {}\n", line(words));
    tell(io::stdout().as_fd(), text.as_bytes());
    tell_console(io::stdout().as_fd(), text.as_bytes());
}

/// One line about what went wrong, on standard error.
pub fn complain(words: &str) {
    SAID.fetch_add(1, Ordering::Relaxed);
    let text = format!("imprint: {}\n", line(words));
    tell(io::stderr().as_fd(), text.as_bytes());
    tell_console(io::stderr().as_fd(), text.as_bytes());
}

/// From here on, text for the journal is also written to the console, by this program itself. The journal may be late:
/// journald reads what the kernel says of devices, and waits with a drive that does not answer (drivers/base/core.c,
/// uevent_show, which takes the lock that the driver holds while it looks at a drive).
pub fn also_on(console: PathBuf) {
    // The first console stays.
    let _ = CONSOLE.set(console);
}

static CONSOLE: OnceLock<PathBuf> = OnceLock::new();

fn tell_console(fd: BorrowedFd<'_>, text: &[u8]) {
    if let Some(path) = CONSOLE.get()
        && is_journal(fd, std::env::var("JOURNAL_STREAM").ok().as_deref())
        && let Ok(console) = nonblocking(path)
    {
        tell_with(&Sink::Own(console), text, &CONSOLE_STALLED);
    }
}

/// Whether this descriptor is the journal. systemd names the journal as `DEVICE:INODE` (systemd.exec(5),
/// $JOURNAL_STREAM).
fn is_journal(fd: BorrowedFd<'_>, stream: Option<&str>) -> bool {
    fstat(fd).is_ok_and(|stat| stream == Some(&format!("{}:{}", stat.st_dev, stat.st_ino)))
}

/// Text that the user asked for, on standard output. The reader may take as long as it likes.
pub fn answer(text: &str) {
    write(&Sink::of(io::stdout().as_fd()), page(text).as_bytes(), Deadline::after(Duration::MAX));
}

/// The answer to wrong usage, on standard error.
pub fn usage(text: &str) {
    tell(io::stderr().as_fd(), page(text).as_bytes());
}

/// A console at 9600 bits a second needs this long for everything that it buffers. A console that has not taken a byte
/// for this long was stopped (^S, flow control), or its other end is gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last text was not taken. Until a text is taken, no text waits.
static STALLED: AtomicBool = AtomicBool::new(false);
static CONSOLE_STALLED: AtomicBool = AtomicBool::new(false);

fn tell(fd: BorrowedFd<'_>, text: &[u8]) {
    tell_with(&Sink::of(fd), text, &STALLED);
}

fn tell_with(sink: &Sink<'_>, text: &[u8], stalled: &AtomicBool) {
    let patience = if stalled.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
    let taken = write(sink, text, Deadline::after(patience));
    stalled.store(!taken, Ordering::Relaxed);
}

/// Opens a terminal or a pipe so that no write waits.
fn nonblocking(path: &Path) -> io::Result<File> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY | nix::libc::O_CLOEXEC;
    OpenOptions::new().write(true).custom_flags(flags).open(path)
}

/// A destination of bytes. A write to it never waits for room.
enum Sink<'a> {
    /// A terminal or a pipe, opened anew: O_NONBLOCK belongs to the open file, which other processes may share.
    Own(File),
    Socket(BorrowedFd<'a>),
    /// A file, or something that cannot be opened again. Each write asks first whether there is room, and then writes
    /// no more than a pipe is sure to have room for (PIPE_BUF, pipe(7)).
    Shared(BorrowedFd<'a>),
}

/// PIPE_BUF
const PIECE: usize = 4096;

impl<'a> Sink<'a> {
    fn of(fd: BorrowedFd<'a>) -> Sink<'a> {
        let kind = fstat(fd).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
        match kind {
            Ok(SFlag::S_IFSOCK) => Sink::Socket(fd),
            Ok(SFlag::S_IFCHR | SFlag::S_IFIFO) => {
                match nonblocking(Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd()))) {
                    Ok(file) => Sink::Own(file),
                    Err(_) => Sink::Shared(fd),
                }
            }
            _ => Sink::Shared(fd),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Sink::Own(file) => file.as_fd(),
            Sink::Socket(fd) | Sink::Shared(fd) => *fd,
        }
    }

    fn has_room(&self, until: Deadline) -> bool {
        sys::poll(&mut [PollFd::new(self.fd(), PollFlags::POLLOUT)], until).unwrap_or(false)
    }

    fn put(&self, bytes: &[u8], until: Deadline) -> io::Result<usize> {
        let piece = bytes.get(..PIECE).unwrap_or(bytes);
        match self {
            Sink::Own(file) => (&mut &*file).write(piece),
            Sink::Socket(fd) => Ok(send(fd.as_raw_fd(), piece, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?),
            Sink::Shared(_) if !self.has_room(until) => Err(io::ErrorKind::TimedOut.into()),
            Sink::Shared(fd) => Ok(nix::unistd::write(fd, piece)?),
        }
    }
}

/// Writes what can be written by `until`. False when the reader did not take it all by then. An error returns true:
/// waiting would not help.
fn write(sink: &Sink<'_>, mut bytes: &[u8], until: Deadline) -> bool {
    while !bytes.is_empty() {
        match sink.put(bytes, until) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !sink.has_room(until) {
                    return false;
                }
            }
            Err(error) => return error.kind() != io::ErrorKind::TimedOut,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::pty::openpty;
    use nix::sys::termios::{FlowArg, SetArg, cfmakeraw, tcflow, tcgetattr, tcsetattr};

    use super::*;

    fn now() -> Deadline {
        Deadline::after(Duration::ZERO)
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(20))
    }

    /// After ^S, text that does not fit is dropped, and other programs on the terminal find its settings unchanged.
    #[test]
    fn a_terminal_that_was_stopped_holds_nobody_up() {
        let pty = openpty(None, None).unwrap();
        let mut settings = tcgetattr(&pty.slave).unwrap();
        cfmakeraw(&mut settings);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &settings).unwrap();
        tcflow(&pty.slave, FlowArg::TCOOFF).unwrap();
        // A plain write would wait here for ever.
        assert!(!Sink::Shared(pty.slave.as_fd()).has_room(now()));
        assert!(!write(&Sink::of(pty.slave.as_fd()), b"nobody reads this", now()));
        let flags = OFlag::from_bits_truncate(fcntl(&pty.slave, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));
        tcflow(&pty.slave, FlowArg::TCOON).unwrap();
        assert!(write(&Sink::of(pty.slave.as_fd()), b"this", soon()));
        let mut heard = [0; 4];
        File::from(pty.master).read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"this");
    }

    #[test]
    fn the_journal_is_what_systemd_says_it_is() {
        let (stream, other) = UnixStream::pair().unwrap();
        let stat = fstat(&stream).unwrap();
        let said = format!("{}:{}", stat.st_dev, stat.st_ino);
        assert!(is_journal(stream.as_fd(), Some(&said)));
        assert!(!is_journal(other.as_fd(), Some(&said)), "the standard output of a shell that systemd has started");
        assert!(!is_journal(stream.as_fd(), None));
    }

    /// The journal, a pipe, and a reader that is gone.
    #[test]
    fn what_is_full_or_gone_holds_nobody_up() {
        let text = vec![b'x'; 10_000_000];
        let (mine, theirs) = UnixStream::pair().unwrap();
        assert!(!write(&Sink::of(mine.as_fd()), &text, now()));
        drop(theirs);
        assert!(write(&Sink::of(mine.as_fd()), &text, soon()));
        let (read, pipe) = nix::unistd::pipe().unwrap();
        assert!(!write(&Sink::of(pipe.as_fd()), &text, now()));
        assert!(!write(&Sink::Shared(pipe.as_fd()), &text, now()));
        drop(read);
        assert!(write(&Sink::of(pipe.as_fd()), &text, soon()));
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!(write(&Sink::of(full.as_fd()), &text, soon()));
    }

    #[test]
    fn whoever_reads_slowly_gets_all_of_it() {
        let (read, pipe) = nix::unistd::pipe().unwrap();
        let text: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        let want = text.clone();
        let thread = std::thread::spawn(move || {
            let mut heard = Vec::new();
            File::from(read).read_to_end(&mut heard).unwrap();
            assert!(heard == want);
        });
        assert!(write(&Sink::of(pipe.as_fd()), &text, Deadline::after(Duration::MAX)));
        drop(pipe);
        thread.join().unwrap();
    }
}
