//! Serial and virtio ports: opened without a trace, taken over when a host is there, given back as they were. Bytes
//! only; nothing here knows the protocol.

mod find;
pub mod spcr;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{self, ControlFlags, SetArg, SpecialCharacterIndices, Termios};

pub use find::{Place, console_baud, consoles, named, terminal, virtio};

use crate::sys;
use crate::time::Deadline;

/// An open port. Dropped, it is as it was before.
pub struct Port {
    file: File,
    place: Place,
    taken: Option<Taken>,
}

/// What was there before.
struct Taken {
    /// `None`: no terminal.
    termios: Option<Termios>,
    _console: Option<Console>,
}

/// Why a port is of no use.
#[derive(Debug)]
pub enum PortError {
    /// It cannot be opened.
    Open {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its settings cannot be changed.
    Settings {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Reading or writing failed, or the other end is gone.
    Broken {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It takes no bytes any more.
    Stalled(PathBuf),
}

impl Port {
    /// Opens it and changes nothing: whatever else uses it goes on as before. `None`: it is not there.
    pub fn open(place: Place) -> Result<Option<Port>, PortError> {
        let flags = nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
        match OpenOptions::new().read(true).write(true).custom_flags(flags).open(&place.path) {
            Ok(file) => Ok(Some(Port { file, place, taken: None })),
            // ENXIO, ENODEV, EIO: a device node without a device, as Linux has for each serial port that there may be.
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

    /// The same with its speed, if it is one that will be set: `ttyS0 at 115200`.
    pub fn label(&self) -> String {
        match self.place.baud {
            Some(baud) => format!("{} at {baud}", self.place.name),
            None => self.place.name.clone(),
        }
    }

    /// Bits a second, where that is known.
    pub fn baud(&self) -> Option<u32> {
        self.place.baud
    }

    /// Makes it ours: raw, at its speed, and the console quiet if it is one.
    pub fn take(&mut self, root: &Path) -> Result<(), PortError> {
        if self.taken.is_some() {
            return Ok(());
        }
        let console = self.place.console.then(|| Console::quiet(root));
        let termios = match self.place.virtio {
            true => None,
            false => {
                let before = self.settings()?;
                // Kept before anything is changed, so that a failure half-way gives it back, too.
                self.taken = Some(Taken { termios: Some(before.clone()), _console: None });
                self.make_raw(before.clone())?;
                Some(before)
            }
        };
        self.taken = Some(Taken { termios, _console: console });
        Ok(())
    }

    fn settings(&self) -> Result<Termios, PortError> {
        termios::tcgetattr(&self.file).map_err(|errno| self.failed(errno.into()))
    }

    fn make_raw(&self, before: Termios) -> Result<(), PortError> {
        if let Some(baud) = self.place.baud {
            // Any speed at all, also those that have no constant. It opens the port anew and makes it exclusive, which
            // ends when it is dropped; what it set stays.
            let path = self.place.path.to_string_lossy();
            let port = serialport::new(path, baud).open_native().map_err(|error| self.failed(error.into()))?;
            drop(port);
        }
        let mut raw = if self.place.baud.is_some() { self.settings()? } else { before };
        let output = raw.output_flags;
        termios::cfmakeraw(&mut raw);
        if self.place.console {
            // Messages of others go on being written there, with line feeds only. A carriage return more hurts no frame.
            raw.output_flags = output;
        }
        if self.place.keys {
            raw.local_flags.insert(termios::LocalFlags::ISIG);
        }
        // No modem to listen to, and none to hang up on; no parity, no flow control, eight bits.
        let off = ControlFlags::HUPCL | ControlFlags::CRTSCTS | ControlFlags::PARENB | ControlFlags::CSTOPB;
        raw.control_flags.remove(off);
        raw.control_flags.insert(ControlFlags::CLOCAL | ControlFlags::CREAD | ControlFlags::CS8);
        raw.input_flags.remove(termios::InputFlags::IXOFF | termios::InputFlags::IXANY);
        for (index, value) in [(SpecialCharacterIndices::VMIN, 1), (SpecialCharacterIndices::VTIME, 0)] {
            // An enumeration of the C library's own indices.
            #[allow(clippy::as_conversions)]
            let index = index as usize;
            if let Some(slot) = raw.control_chars.get_mut(index) {
                *slot = value;
            }
        }
        termios::tcsetattr(&self.file, SetArg::TCSANOW, &raw).map_err(|errno| self.failed(errno.into()))
    }

    fn failed(&self, source: io::Error) -> PortError {
        PortError::Settings { path: self.place.path.clone(), source }
    }

    /// What is there; 0 when nothing is.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, PortError> {
        match self.file.read(buffer) {
            // The end of a terminal is that it was hung up; a virtio port without a reader gives nothing.
            Ok(0) if self.place.virtio => Ok(0),
            Ok(0) => Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => Ok(count),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(self.broken(error)),
        }
    }

    /// Writes all of it, until then at the latest.
    pub fn write_all(&mut self, mut bytes: &[u8], until: Deadline) -> Result<(), PortError> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
                    if !sys::poll(&mut fds, until).map_err(|error| self.broken(error))? {
                        return Err(PortError::Stalled(self.place.path.clone()));
                    }
                }
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }

    fn broken(&self, source: io::Error) -> PortError {
        PortError::Broken { path: self.place.path.clone(), source }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if let Some(Taken { termios: Some(before), .. }) = &self.taken {
            // What was written goes out at the speed that it was written for.
            let _ = termios::tcsetattr(&self.file, SetArg::TCSADRAIN, before);
        }
    }
}

/// A console that is quiet for as long as this lives.
struct Console {
    printk: PathBuf,
    /// The four numbers that were there (Documentation/admin-guide/sysctl/kernel.rst, printk).
    before: Option<String>,
    systemd: bool,
}

/// systemd(1): status output on the console on and off; the numbers are offsets from SIGRTMIN.
const STATUS_ON: i32 = 20;
const STATUS_OFF: i32 = 21;

impl Console {
    /// What cannot be had quiet is borne: the protocol survives it.
    fn quiet(root: &Path) -> Console {
        let printk = root.join("proc/sys/kernel/printk");
        let before = std::fs::read_to_string(&printk).ok();
        // Emergencies still come through.
        let before = before.filter(|_| std::fs::write(&printk, "1").is_ok());
        let systemd = root.join("run/systemd/system").exists();
        if systemd {
            sys::signal_init(STATUS_OFF);
        }
        Console { printk, before, systemd }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = std::fs::write(&self.printk, before.trim_end());
        }
        if self.systemd {
            sys::signal_init(STATUS_ON);
        }
    }
}

/// The signals that end a program, caught so that ports can be given back first. SIGKILL cannot be: then a line stays
/// raw until somebody runs `stty sane`, or the next program sets it.
pub struct Signals {
    set: SigSet,
    fd: SignalFd,
}

/// A signal that came.
pub struct Caught {
    signal: Signal,
    set: SigSet,
}

impl Signals {
    /// From here on, in this thread and those that it starts.
    pub fn catch() -> io::Result<Signals> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            set.add(signal);
        }
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Signals { set, fd })
    }

    /// The one that has come.
    pub fn take(&mut self) -> Option<Caught> {
        let info = self.fd.read_signal().ok()??;
        let number = i32::try_from(info.ssi_signo).ok()?;
        Some(Caught { signal: Signal::try_from(number).ok()?, set: self.set })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Caught {
    /// What the signal would have done.
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
