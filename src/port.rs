//! Serial and virtio ports. Opening a port changes nothing; a console's settings change only when a host is there.
//! Dropping the port restores all settings. Carries bytes only: this module never interprets the line protocol.

mod find;
mod quiet;
pub mod spcr;
mod undo;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{self, ControlFlags, FlushArg, OutputFlags, SetArg, SpecialCharacterIndices, Termios, tcflush};

pub use find::{Place, console_baud, consoles, named, screens, terminal, virtio};
pub use quiet::Quiet;
pub use undo::give_everything_back;

use crate::sys;
use crate::time::Deadline;
use quiet::Console;
use undo::Change;

/// An open port. Dropping it restores the settings of the port.
pub struct Port {
    file: File,
    place: Place,
    /// The settings before they were changed. `None` if they were not changed.
    before: Option<Arc<Before>>,
    console: Option<Arc<Console>>,
    /// The other end of a virtio port; `None` for a serial port.
    peer: Option<Peer>,
}

/// A terminal, and its settings before they were changed.
struct Before {
    terminal: File,
    settings: sys::Terminal,
}

impl Change for Before {
    fn give_back(&self) {
        // Discard input that was meant for the agent: a shell that reads next might take it for commands.
        let _ = tcflush(&self.terminal, FlushArg::TCIFLUSH);
        let _ = sys::set_terminal(&self.terminal, &self.settings);
    }
}

/// Why a port cannot be used.
#[derive(Debug)]
pub enum PortError {
    /// The port cannot be opened.
    Open {
        /// The port.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The settings of the port cannot be changed.
    Settings {
        /// The port.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// Reading or writing failed, or the other end is gone.
    Broken {
        /// The port.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The port accepts no more bytes.
    Stalled(PathBuf),
}

impl Port {
    /// Opens a port and changes no setting, so other users of the port are not disturbed. `None` if the port does not
    /// exist.
    pub fn open(place: Place) -> Result<Option<Port>, PortError> {
        let flags = nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
        match OpenOptions::new().read(true).write(true).custom_flags(flags).open(&place.path) {
            Ok(file) => match place.virtio.then(|| Peer::of(&file)).transpose() {
                Ok(peer) => Ok(Some(Port { file, place, before: None, console: None, peer })),
                Err(source) => Err(PortError::Open { path: place.path, source }),
            },
            // ENXIO, ENODEV, EIO: a device node without a device. Linux makes nodes for serial ports that do not exist.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(nix::libc::ENOENT | nix::libc::ENXIO | nix::libc::ENODEV | nix::libc::EIO)
                ) =>
            {
                Ok(None)
            }
            Err(source) => Err(PortError::Open { path: place.path, source }),
        }
    }

    /// For messages.
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// The name with the speed, if the speed is known: `ttyS0 at 115200`.
    pub fn label(&self) -> String {
        match self.place.baud {
            Some(baud) => format!("{} at {baud}", self.place.name),
            None => self.place.name.clone(),
        }
    }

    /// Whether the port is the virtio port. The operator gives no name for it.
    pub fn is_virtio(&self) -> bool {
        self.place.virtio
    }

    /// Whether a person types there: `imprint console`.
    pub fn is_typed_on(&self) -> bool {
        self.place.keys
    }

    /// Bits a second, where that is known.
    pub fn baud(&self) -> Option<u32> {
        self.place.baud
    }

    /// Makes a line ready to hear a host, unless that would disturb a console. The kernel opens a line that is not a
    /// console at 9600 bits a second in cooked mode (drivers/tty/serial/serial_core.c, uart_register_driver).
    pub fn prepare(&mut self) -> Result<(), PortError> {
        if self.place.set { self.make_raw() } else { Ok(()) }
    }

    /// Takes the line for the protocol: makes it raw, and silences the console if the line is one. A console's speed
    /// does not change: a host was heard at that speed.
    pub fn take(&mut self, root: &Path, quiet: &mut Quiet) -> Result<(), PortError> {
        self.make_raw()?;
        if self.place.console && self.console.is_none() {
            self.console = Some(quiet.keep(root));
        }
        Ok(())
    }

    fn settings(&self) -> Result<Termios, PortError> {
        termios::tcgetattr(&self.file).map_err(|errno| self.failed(errno.into()))
    }

    fn make_raw(&mut self) -> Result<(), PortError> {
        if self.place.virtio || self.before.is_some() {
            return Ok(());
        }
        // Saved and registered before the first change, so that the settings are restored after a failure, too.
        let settings = sys::terminal(&self.file).map_err(|error| self.failed(error))?;
        let terminal = self.file.try_clone().map_err(|error| self.failed(error))?;
        let before = Arc::new(Before { terminal, settings });
        let change: Arc<dyn Change> = before.clone();
        undo::register(Arc::downgrade(&change));
        self.before = Some(before);
        let output = self.settings()?.output_flags;
        if let Some(baud) = self.place.baud.filter(|_| self.place.set) {
            // `serialport` can set any speed, also one without a constant. It opens the port again and makes it
            // exclusive until it is dropped; the speed stays.
            let path = self.place.path.to_string_lossy();
            let port = serialport::new(path, baud).open_native().map_err(|error| self.failed(error.into()))?;
            drop(port);
        }
        let raw = raw(self.settings()?, output, &self.place);
        termios::tcsetattr(&self.file, SetArg::TCSANOW, &raw).map_err(|errno| self.failed(errno.into()))
    }

    fn failed(&self, source: io::Error) -> PortError {
        PortError::Settings { path: self.place.path.clone(), source }
    }

    /// Reads the bytes that have come. 0 if there are none.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, PortError> {
        if let Some(peer) = &mut self.peer {
            peer.look();
        }
        match self.file.read(buffer) {
            Ok(0) => {
                let hung_up = self.is_hung_up();
                match &mut self.peer {
                    Some(peer) => peer.away = hung_up,
                    None if hung_up => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                    // Somebody typed ^D on a line that is still in cooked mode (termios(3), VEOF).
                    None => {}
                }
                Ok(0)
            }
            Ok(count) => Ok(count),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::empty())];
        let _ = poll(&mut fds, PollTimeout::ZERO);
        fds.iter().any(|fd| fd.revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)))
    }

    /// Writes all bytes, or fails at `until`.
    pub fn write_all(&mut self, mut bytes: &[u8], until: Deadline) -> Result<(), PortError> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody has opened the other end. Drop the bytes, as a serial line without a listener would.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.peer.is_some() && self.is_hung_up() => {
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !until.expired() => {
                    let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
                    sys::poll(&mut fds, until).map_err(|error| self.broken(error))?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(PortError::Stalled(self.place.path.clone()));
                }
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }

    /// Waits until all bytes are sent, so that they go out before the settings change back. After [`DRAIN`] the rest is
    /// discarded: the kernel would wait without end (drivers/tty/tty_ioctl.c, tty_wait_until_sent).
    fn drain(&self) {
        let Ok(file) = self.file.try_clone() else { return };
        let (tell, drained) = channel();
        let drain = move || {
            let _ = termios::tcdrain(&file);
            let _ = tell.send(());
        };
        let thread = std::thread::Builder::new().name("drain".to_owned()).spawn(drain);
        if thread.is_ok() && drained.recv_timeout(DRAIN).is_err() {
            // Discarding the output also ends the thread's tcdrain.
            let _ = termios::tcflush(&self.file, FlushArg::TCOFLUSH);
        }
    }

    fn broken(&self, source: io::Error) -> PortError {
        PortError::Broken { path: self.place.path.clone(), source }
    }
}

/// Enough time to send a terminal's full buffer (4 KiB) at 9600 bits a second.
const DRAIN: Duration = Duration::from_secs(5);

/// Readable when [`Port::read`] should be called.
impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.peer {
            Some(peer) if peer.away => peer.changes.0.as_fd(),
            _ => self.file.as_fd(),
        }
    }
}

/// The raw settings for `place`, made from `found`. A console keeps its `output` flags.
fn raw(found: Termios, output: OutputFlags, place: &Place) -> Termios {
    let mut raw = found;
    let characters = ControlFlags::CSIZE | ControlFlags::PARENB | ControlFlags::PARODD | ControlFlags::CSTOPB;
    let before = raw.control_flags & characters;
    // cfmakeraw sets eight bits and no parity, among others.
    termios::cfmakeraw(&mut raw);
    if place.console {
        // Other programs still write messages to the console, with line feeds only. The extra carriage returns do not
        // damage a frame.
        raw.output_flags = output;
    }
    if place.keys {
        raw.local_flags.insert(termios::LocalFlags::ISIG);
    }
    // Ignore the modem lines, do not hang up on close, and use no flow control.
    raw.control_flags.remove(ControlFlags::HUPCL | ControlFlags::CRTSCTS);
    raw.control_flags.insert(ControlFlags::CLOCAL | ControlFlags::CREAD);
    raw.control_flags.remove(ControlFlags::CSTOPB);
    if place.console && !place.set {
        // A host was heard on this console, so its character size, parity and stop bits are right.
        raw.control_flags.remove(characters);
        raw.control_flags.insert(before);
    }
    raw.input_flags.remove(termios::InputFlags::IXOFF | termios::InputFlags::IXANY);
    // No suspend key: a stopped program would leave the console raw and silent. 0 disables a key (_POSIX_VDISABLE).
    let chars =
        [(SpecialCharacterIndices::VMIN, 1), (SpecialCharacterIndices::VTIME, 0), (SpecialCharacterIndices::VSUSP, 0)];
    for (index, value) in chars {
        // The enumeration has the values of the C library's indices.
        #[allow(clippy::as_conversions)]
        let index = index as usize;
        if let Some(slot) = raw.control_chars.get_mut(index) {
            *slot = value;
        }
    }
    raw
}

impl Drop for Port {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            self.drain();
            before.give_back();
        }
    }
}

/// Whether a host has opened the other end of a virtio port. If not, poll(2) returns at once each time with a hang-up
/// (drivers/char/virtio_console.c, port_fops_poll: EPOLLHUP). Edge-triggered epoll(7) reports only a change.
struct Peer {
    changes: Epoll,
    away: bool,
}

impl Peer {
    fn of(file: &File) -> io::Result<Peer> {
        let changes = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        changes.add(file, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))?;
        Ok(Peer { changes, away: false })
    }

    /// Called before the port is read. A later change is reported again.
    fn look(&mut self) {
        let _ = self.changes.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO);
        self.away = false;
    }
}

/// The signals that end a program. They are caught so that the settings of ports can be restored first. SIGKILL cannot
/// be caught: after it a line stays raw until somebody runs `stty sane`, or the next program sets the line.
pub struct Signals {
    set: SigSet,
    fd: SignalFd,
}

/// Blocks the signals in the thread that called [`Signals::catch`]. Dropping it in that thread unblocks them.
pub struct Held(SigSet);

/// A signal that came.
pub struct Caught {
    signal: Signal,
    set: SigSet,
}

impl Signals {
    /// Catches the signals in this thread and in threads that it starts later. A signal that is ignored (nohup(1)) or
    /// blocked already stays so.
    pub fn catch() -> io::Result<(Signals, Held)> {
        let blocked = SigSet::thread_get_mask()?;
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            if !blocked.contains(signal) && !sys::is_ignored(signal) {
                set.add(signal);
            }
        }
        set.thread_block()?;
        let held = Held(set);
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok((Signals { set, fd }, held))
    }

    /// Takes a signal that has come.
    pub fn take(&mut self) -> Option<Caught> {
        let info = self.fd.read_signal().ok()??;
        let number = i32::try_from(info.ssi_signo).ok()?;
        Some(Caught { signal: Signal::try_from(number).ok()?, set: self.set })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.thread_unblock();
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Caught {
    /// Lets the signal end the program.
    pub fn end(&self) {
        let _ = self.set.thread_unblock();
        let _ = nix::sys::signal::raise(self.signal);
    }
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortError::Open { path, .. } => write!(f, "opening {}", path.display()),
            PortError::Settings { path, .. } => {
                write!(
                    f,
                    "setting speed and mode of {}; give its speed with imprint.source=serial:NAME,BAUD",
                    path.display()
                )
            }
            PortError::Broken { path, .. } => write!(f, "the line {} broke", path.display()),
            PortError::Stalled(path) => {
                write!(f, "the line {} takes no bytes any more; is anybody connected at the other end?", path.display())
            }
        }
    }
}

impl std::error::Error for PortError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PortError::Open { source, .. } | PortError::Settings { source, .. } | PortError::Broken { source, .. } => {
                Some(source)
            }
            PortError::Stalled(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
