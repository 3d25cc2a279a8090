//! Connections over TCP, vsock and Unix sockets. Never waits: a connection is begun, and its end asked for later. Keeps the
//! first bytes of the other end, to say what is there if it is no line.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, UnixAddr, VsockAddr, setsockopt, sockopt};

use super::{Fault, PipeError, Target};
use crate::connect;

/// A connection that was begun. Writable once it is there, or has failed.
pub struct Calling {
    fd: OwnedFd,
    name: String,
}

/// A connection.
pub struct Stream {
    file: File,
    name: String,
    /// The first bytes that came.
    first: Vec<u8>,
    /// A frame of the line protocol came.
    is_line: bool,
}

/// What has come from the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Nothing.
    Nothing,
    /// Frames of the line protocol.
    Line,
    /// A message of TLS.
    Tls,
    /// An answer of HTTP.
    Http,
    /// A greeting of SSH.
    Ssh,
    /// Something else.
    Other,
}

/// How many of the first bytes are kept.
const FIRST: usize = 8;

impl Calling {
    /// Begins a connection. `None`: the target is no connection.
    pub fn begin(target: &Target) -> Option<Result<Calling, PipeError>> {
        let name = target.to_string();
        let begun = match target {
            Target::Tcp(address) => connect::begin_tcp(*address),
            Target::Vsock { cid, port } => connect::begin(AddressFamily::Vsock, &VsockAddr::new(*cid, *port)),
            Target::Unix(path) => {
                let address = UnixAddr::new(path).map_err(io::Error::from);
                address.and_then(|address| connect::begin(AddressFamily::Unix, &address))
            }
            Target::Ether(_) => return None,
        };
        Some(match begun {
            Ok(fd) => Ok(Calling { fd, name }),
            Err(error) => Err(PipeError::Far { name, fault: Fault::Connect(error) }),
        })
    }

    /// The connection. To be asked for once the descriptor is writable.
    pub fn finish(self) -> Result<Stream, PipeError> {
        let Calling { fd, name } = self;
        match connect::outcome(&fd) {
            Ok(()) => {
                // A frame is an answer, or is answered. It must not wait for a full segment. Other sockets than those of TCP do
                // not know the option.
                let _ = setsockopt(&fd, sockopt::TcpNoDelay, &true);
                Ok(Stream { file: File::from(fd), name, first: Vec::new(), is_line: false })
            }
            Err(error) => Err(PipeError::Far { name, fault: Fault::Connect(error) }),
        }
    }
}

impl AsFd for Calling {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Stream {
    /// `tcp:192.0.2.1:8444`
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the bytes that have come. 0 if there are none.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, PipeError> {
        match self.file.read(buffer) {
            Ok(0) => Err(self.failed(Fault::Closed(self.seen()))),
            Ok(count) => {
                let room = FIRST.saturating_sub(self.first.len());
                self.first.extend(buffer.iter().take(room.min(count)));
                Ok(count)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            // A server that does not understand closes with bytes unread, which resets the connection (RFC 1122 §4.2.2.13).
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                Err(self.failed(Fault::Closed(self.seen())))
            }
            Err(error) => Err(self.failed(Fault::Broken(error))),
        }
    }

    /// Writes bytes. Where there is no room for all of them, the rest is dropped: a frame that is cut is lost like one that
    /// noise has changed, and the protocol sends it again.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), PipeError> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(self.failed(Fault::Stalled)),
                // What the other end has said before it closed is still to be read, and says more.
                Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    return Ok(());
                }
                Err(error) => return Err(self.failed(Fault::Broken(error))),
            }
        }
        Ok(())
    }

    /// Notes that a frame of the line protocol came.
    pub fn speaks(&mut self) {
        self.is_line = true;
    }

    /// What the first bytes were, or that a frame came.
    pub fn seen(&self) -> Seen {
        match self.first.as_slice() {
            _ if self.is_line => Seen::Line,
            [] => Seen::Nothing,
            // RFC 8446 §5.1: an alert or a handshake message of TLS 1.0 to 1.3.
            [0x15 | 0x16, 3, ..] => Seen::Tls,
            first if first.starts_with(b"HTTP/") => Seen::Http,
            first if first.starts_with(b"SSH-") => Seen::Ssh,
            _ => Seen::Other,
        }
    }

    fn failed(&self, fault: Fault) -> PipeError {
        PipeError::Far { name: self.name.clone(), fault }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Seen::Nothing => "it says nothing",
            Seen::Line => "it speaks the line protocol",
            Seen::Tls => "it speaks TLS",
            Seen::Http => "it speaks HTTP",
            Seen::Ssh => "it speaks SSH",
            Seen::Other => "it does not speak the line protocol",
        })
    }
}

/// Why there is no connection, in words that say what to look at.
pub(super) fn why(error: &io::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => f.write_str("nobody listens there (connection refused)"),
        // af_vsock.c: a reset is the answer for a port where nobody listens.
        Some(libc::ECONNRESET) => f.write_str("nobody listens there (connection reset)"),
        Some(libc::ETIMEDOUT) => f.write_str("no answer"),
        Some(libc::EAFNOSUPPORT) => f.write_str(
            "this kernel has no such sockets; for vsock the image needs the module vmw_vsock_virtio_transport",
        ),
        Some(libc::ENODEV) => f.write_str(
            "this machine has no vsock device, or no driver for it; give the virtual machine one, and the image the \
             module vmw_vsock_virtio_transport",
        ),
        Some(libc::ENOENT) => f.write_str("there is no such socket"),
        _ => write!(f, "no connection ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use nix::poll::{PollFd, PollFlags};

    use super::*;
    use crate::sys;
    use crate::time::Deadline;

    fn ready(fd: &impl AsFd, flags: PollFlags) {
        assert!(sys::poll(&mut [PollFd::new(fd.as_fd(), flags)], Deadline::after(Duration::from_secs(120))).unwrap());
    }

    fn called(target: &Target) -> Result<Stream, PipeError> {
        let calling = Calling::begin(target).unwrap()?;
        ready(&calling, PollFlags::POLLOUT);
        calling.finish()
    }

    #[test]
    fn a_connection_carries_bytes_both_ways() {
        let folder = tempfile::tempdir().unwrap();
        let (tcp, path) = (TcpListener::bind("127.0.0.1:0").unwrap(), folder.path().join("door"));
        let unix = UnixListener::bind(&path).unwrap();
        let targets = [Target::Tcp(tcp.local_addr().unwrap()), Target::Unix(path)];
        for (index, target) in targets.iter().enumerate() {
            let mut stream = called(target).unwrap();
            assert_eq!(stream.name(), target.to_string());
            let mut other: File = match index {
                0 => OwnedFd::from(tcp.accept().unwrap().0).into(),
                _ => OwnedFd::from(unix.accept().unwrap().0).into(),
            };
            let mut buffer = [0; 64];
            assert_eq!(stream.read(&mut buffer).unwrap(), 0);
            stream.write(b"hello").unwrap();
            let count = other.read(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"hello");
            other.write_all(b"there").unwrap();
            ready(&stream, PollFlags::POLLIN);
            assert_eq!((stream.read(&mut buffer).unwrap(), &buffer[..5]), (5, &b"there"[..]));
        }
    }

    #[test]
    fn nobody_there_is_said_so() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = called(&Target::Tcp(address)).err().unwrap();
        assert_eq!(error.to_string(), format!("tcp:{address}: nobody listens there (connection refused)"));
        let error = called(&Target::Unix("/nowhere/door".into())).err().unwrap();
        assert_eq!(error.to_string(), "unix:/nowhere/door: there is no such socket");
    }

    /// A door that is stopped, or has a full disk: it has spoken the line protocol, so the port is right.
    #[test]
    fn a_door_that_closes_after_a_frame_is_no_other_server() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = called(&Target::Tcp(listener.local_addr().unwrap())).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        other.write_all(b"#frame\r\n").unwrap();
        ready(&stream, PollFlags::POLLIN);
        let mut buffer = [0; 64];
        assert!(stream.read(&mut buffer).unwrap() > 0);
        // Premise.
        assert_eq!(stream.seen(), Seen::Other);
        stream.speaks();
        drop(other);
        let error = loop {
            ready(&stream, PollFlags::POLLIN);
            if let Err(error) = stream.read(&mut buffer) {
                break error.to_string();
            }
        };
        assert_eq!(error, format!("{}: it closed the connection", stream.name()));
    }

    /// No test calls at a hypervisor: the machine that runs it may have one.
    #[test]
    fn what_vsock_lacks_is_said() {
        for (number, words) in [
            (
                libc::EAFNOSUPPORT,
                "this kernel has no such sockets; for vsock the image needs the module vmw_vsock_virtio_transport",
            ),
            (
                libc::ENODEV,
                "this machine has no vsock device, or no driver for it; give the virtual machine one, and the image the \
                 module vmw_vsock_virtio_transport",
            ),
            (libc::ECONNRESET, "nobody listens there (connection reset)"),
            (libc::ETIMEDOUT, "no answer"),
            (libc::ENETUNREACH, "no connection (Network unreachable (os error 101))"),
        ] {
            let said = Fault::Connect(io::Error::from_raw_os_error(number)).to_string();
            assert!(said == words || number == libc::ENETUNREACH && said.starts_with("no connection ("), "{said}");
        }
        assert_eq!(Target::Vsock { cid: 2, port: 6_909_296 }.to_string(), "vsock:2:6909296");
    }

    /// The port of EST, of a web server, of SSH, or a server that is full.
    #[test]
    fn what_is_there_instead_of_a_door_is_named() {
        for (said, words) in [
            (&b"\x15\x03\x03\x00\x02\x02\x32"[..], "it speaks TLS; is that the port of a door"),
            (b"HTTP/1.1 400 Bad Request\r\n", "it speaks HTTP; is that the port of a door"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "it speaks SSH; is that the port of a door"),
            (b"220 mail ESMTP\r\n", "it does not speak the line protocol; is that the port of a door"),
            (b"", "it closed the connection without a word"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut stream = called(&Target::Tcp(listener.local_addr().unwrap())).unwrap();
            stream.write(b"#hello\r\n").unwrap();
            let (mut other, _) = listener.accept().unwrap();
            other.write_all(said).unwrap();
            // With bytes unread: the connection is reset.
            drop(other);
            let error = loop {
                ready(&stream, PollFlags::POLLIN);
                if let Err(error) = stream.read(&mut [0; 64]) {
                    break error.to_string();
                }
            };
            assert!(error.starts_with(&format!("{}: {words}", stream.name())), "{error}");
        }
    }
}
