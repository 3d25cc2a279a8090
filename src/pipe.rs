//! What a line's bytes go through: a port of this machine, a connection, or the Ethernet frames of a link. Carries bytes
//! only: this module never interprets the line protocol, and never decides where to call or when to call again.
//!
//! Nobody vouches for what comes out of a pipe. A port leads to whoever holds the other end of a cable, or runs the virtual
//! machine; behind a connection and behind a link is the whole network.

pub mod ether;
pub mod stream;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use crate::payload::InterfaceName;
use crate::port::{Port, PortError, Quiet};
use crate::time::Deadline;
use ether::Peer;
use stream::{Seen, Stream};

/// Where to call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A TCP port. A name is looked up before.
    Tcp(SocketAddr),
    /// A vsock port (vsock(7)).
    Vsock {
        /// The context id; 2 is the hypervisor's host.
        cid: u32,
        /// The port.
        port: u32,
    },
    /// A Unix socket.
    Unix(PathBuf),
    /// Whoever is next to this link; `None`: next to any Ethernet link.
    Ether(Option<InterfaceName>),
}

/// An open pipe.
pub enum Pipe {
    /// A serial or virtio port.
    Port(Port),
    /// A connection.
    Stream(Stream),
    /// Ethernet frames of one link, to and from one host.
    Ether(Peer),
}

/// Why a pipe cannot be used.
#[derive(Debug)]
pub enum PipeError {
    /// A port.
    Port(PortError),
    /// A place that the node has called at.
    Far {
        /// `tcp:192.0.2.1:8444`
        name: String,
        /// What is wrong.
        fault: Fault,
    },
}

/// What is wrong with a place that the node has called at.
#[derive(Debug)]
pub enum Fault {
    /// There is no connection.
    Connect(io::Error),
    /// The connection, or the link, has broken.
    Broken(io::Error),
    /// It closed the connection.
    Closed(Seen),
    /// It has said nothing for too long.
    Silent(Seen),
    /// What it says is no line.
    NoLine(Seen),
    /// It takes no bytes.
    Stalled,
    /// There is no such link.
    NoLink,
    /// The machine has no Ethernet link.
    NoLinks,
    /// The link cannot be brought up.
    Link(String),
}

impl Target {
    /// Whether the place may be unknown to the machine before it has an address.
    pub fn needs_network(&self) -> bool {
        matches!(self, Target::Tcp(_))
    }
}

impl Pipe {
    /// For messages.
    pub fn name(&self) -> &str {
        match self {
            Pipe::Port(port) => port.name(),
            Pipe::Stream(stream) => stream.name(),
            Pipe::Ether(peer) => peer.name(),
        }
    }

    /// The name with the speed, if the speed is known: `ttyS0 at 115200`.
    pub fn label(&self) -> String {
        match self {
            Pipe::Port(port) => port.label(),
            pipe => pipe.name().to_owned(),
        }
    }

    /// Bits a second, where that is known.
    pub fn baud(&self) -> Option<u32> {
        match self {
            Pipe::Port(port) => port.baud(),
            Pipe::Stream(_) | Pipe::Ether(_) => None,
        }
    }

    /// Whether a person types there: `imprint console`.
    pub fn is_typed_on(&self) -> bool {
        matches!(self, Pipe::Port(port) if port.is_typed_on())
    }

    /// Takes the pipe for the protocol, once a host was heard ([`Port::take`]).
    pub fn take(&mut self, root: &Path, quiet: &mut Quiet) -> Result<(), PipeError> {
        match self {
            Pipe::Port(port) => port.take(root, quiet).map_err(PipeError::Port),
            Pipe::Stream(_) | Pipe::Ether(_) => Ok(()),
        }
    }

    /// Reads the bytes that have come. 0 if there are none.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, PipeError> {
        match self {
            Pipe::Port(port) => port.read(buffer).map_err(PipeError::Port),
            Pipe::Stream(stream) => stream.read(buffer),
            Pipe::Ether(peer) => Ok(peer.read(buffer)),
        }
    }

    /// Writes all bytes. A port waits until the deadline for room. Other pipes do not wait: the protocol sends again what
    /// they had no room for.
    pub fn write_all(&mut self, bytes: &[u8], until: Deadline) -> Result<(), PipeError> {
        match self {
            Pipe::Port(port) => port.write_all(bytes, until).map_err(PipeError::Port),
            Pipe::Stream(stream) => stream.write(bytes),
            Pipe::Ether(peer) => peer.write(bytes),
        }
    }

    /// Readable when [`Pipe::read`] should be called. `None`: the socket of the link is, and says so itself.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        match self {
            Pipe::Port(port) => Some(port.as_fd()),
            Pipe::Stream(stream) => Some(stream.as_fd()),
            Pipe::Ether(_) => None,
        }
    }
}

impl From<Port> for Pipe {
    fn from(port: Port) -> Pipe {
        Pipe::Port(port)
    }
}

impl From<PortError> for PipeError {
    fn from(error: PortError) -> PipeError {
        PipeError::Port(error)
    }
}

impl PipeError {
    /// Whether the bytes were not taken, and may be taken later.
    pub fn is_stall(&self) -> bool {
        matches!(self, PipeError::Port(PortError::Stalled(_)) | PipeError::Far { fault: Fault::Stalled, .. })
    }
}

/// As a source is named on the kernel command line, with an address in the place of a name.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(address) => write!(f, "tcp:{address}"),
            Target::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
            Target::Ether(Some(link)) => write!(f, "ether:{link}"),
            Target::Ether(None) => f.write_str("ether"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Connect(error) => stream::why(error, f),
            Fault::Broken(error) => write!(f, "the connection broke ({error})"),
            Fault::Closed(Seen::Nothing) => f.write_str("it closed the connection without a word"),
            Fault::Closed(Seen::Line) => f.write_str("it closed the connection"),
            Fault::Silent(Seen::Nothing) => f.write_str("it says nothing"),
            Fault::Silent(Seen::Line) => f.write_str("it says nothing any more"),
            Fault::Closed(seen) | Fault::Silent(seen) | Fault::NoLine(seen) => {
                write!(f, "{seen}; is that the port of a door (imprint-host serve --door)?")
            }
            Fault::Stalled => f.write_str("it takes no bytes any more"),
            Fault::NoLink => f.write_str("there is no such link; is its driver in the image, and its name right?"),
            Fault::NoLinks => f.write_str("this machine has no Ethernet link; is its driver in the image?"),
            Fault::Link(why) => write!(f, "the link cannot be used: {why}"),
        }
    }
}

impl fmt::Display for PipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PipeError::Port(error) => error.fmt(f),
            PipeError::Far { name, fault } => write!(f, "{name}: {fault}"),
        }
    }
}

impl std::error::Error for PipeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PipeError::Port(error) => error.source(),
            PipeError::Far { .. } => None,
        }
    }
}
