//! A socket to the kernel's rtnetlink: sends one request and returns its whole answer, within a deadline. Never decides
//! what to configure. Trusts no sender but the kernel, and no answer but that to its own request.

pub mod message;

use std::fmt;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, sendto, socket,
};

use crate::sys;
use crate::time::Deadline;
use message::{Answer, LinkMessage, Message, MessageError, Request};

/// Dumps come in datagrams of at most 32 KiB (netlink_dump, net/netlink/af_netlink.c).
const BUFFER: usize = 32 * 1024;
/// How often a dump is attempted when changes interrupt it.
const DUMPS: usize = 8;

/// An rtnetlink socket.
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// The reasons that a request has no answer.
#[derive(Debug)]
pub enum RequestError {
    /// The socket failed.
    Socket(io::Error),
    /// The kernel refused the request.
    Refused {
        /// The error number.
        errno: Errno,
        /// The kernel's own message, if it sent one.
        words: Option<String>,
    },
    /// The kernel sent bytes that are not a netlink message.
    Message(MessageError),
    /// A datagram was longer than any that the kernel sends.
    TooLong,
    /// No answer by the deadline.
    Deadline,
    /// Changes interrupted every attempt at a dump.
    Unstable,
}

impl Netlink {
    /// Opens a socket; `groups` are the notifications to hear ([`message::GROUP_LINK`]), 0 for none.
    pub fn open(groups: u32) -> Result<Netlink, RequestError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd =
            socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute).map_err(socket_error)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(socket_error)?;
        // New in Linux 4.12. An older kernel sends the number of an error without a message.
        let _ = sys::netlink_ext_ack(&fd);
        Ok(Netlink { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Every link that the machine has, loopback included.
    pub fn links(&mut self, deadline: Deadline) -> Result<Vec<LinkMessage>, RequestError> {
        let answers = self.request(&Request::Links, deadline)?;
        Ok(answers.into_iter().filter_map(into_link).collect())
    }

    /// One link; ENODEV when it does not exist.
    pub fn link(&mut self, index: u32, deadline: Deadline) -> Result<LinkMessage, RequestError> {
        let answers = self.request(&Request::Link { index }, deadline)?;
        let none = || RequestError::Refused { errno: Errno::ENODEV, words: None };
        answers.into_iter().find_map(into_link).ok_or_else(none)
    }

    /// Sends a request and returns everything up to its end: the acknowledgement, or the end of the dump.
    pub fn request(&mut self, request: &Request, deadline: Deadline) -> Result<Vec<Answer>, RequestError> {
        for _ in 0..DUMPS {
            if let Some(answers) = self.attempt(request, deadline)? {
                return Ok(answers);
            }
        }
        Err(RequestError::Unstable)
    }

    /// Sends the request once. `None`: a change interrupted the dump.
    fn attempt(&mut self, request: &Request, deadline: Deadline) -> Result<Option<Vec<Answer>>, RequestError> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.encode(self.sequence);
        sendto(self.fd.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty()).map_err(socket_error)?;
        let (mut answers, mut consistent) = (Vec::new(), true);
        loop {
            for message in self.receive(deadline)? {
                if message.sequence != self.sequence {
                    continue; // a notification, or the answer to a request that was given up
                }
                consistent &= !message.interrupted;
                match message.answer {
                    Answer::Done | Answer::Acknowledged => return Ok(consistent.then_some(answers)),
                    Answer::Refused { errno, words } => {
                        return Err(RequestError::Refused { errno: Errno::from_raw(errno), words });
                    }
                    answer => answers.push(answer),
                }
            }
        }
    }

    /// Waits for notifications, and drops them: notifications can be lost (ENOBUFS) or out of date, so they only say
    /// when to look again.
    pub fn changed(&mut self, deadline: Deadline) -> Result<(), RequestError> {
        self.wait(deadline)?;
        self.news().map(drop)
    }

    /// The notifications that have arrived. Some may be lost, so callers should ask the kernel for what they can.
    pub fn news(&mut self) -> Result<Vec<Answer>, RequestError> {
        let mut answers = Vec::new();
        loop {
            match self.take() {
                Ok(Some(messages)) => answers.extend(messages.into_iter().map(|message| message.answer)),
                Ok(None) => return Ok(answers),
                Err(RequestError::Socket(error)) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The messages of one datagram from the kernel.
    fn receive(&mut self, deadline: Deadline) -> Result<Vec<Message>, RequestError> {
        loop {
            self.wait(deadline)?;
            if let Some(messages) = self.take()? {
                return Ok(messages);
            }
        }
    }

    fn wait(&self, deadline: Deadline) -> Result<(), RequestError> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        match sys::poll(&mut fds, deadline).map_err(RequestError::Socket)? {
            true => Ok(()),
            false => Err(RequestError::Deadline),
        }
    }

    /// One datagram of the kernel that has arrived already; `None`: there is none.
    fn take(&mut self) -> Result<Option<Vec<Message>>, RequestError> {
        loop {
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            let received = recvmsg::<NetlinkAddr>(self.fd.as_raw_fd(), &mut slices, None, MsgFlags::empty());
            let (length, sender, flags) = match received {
                Ok(received) => (received.bytes, received.address, received.flags),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(socket_error(errno)),
            };
            // Any process may send to a netlink socket; only the kernel has port 0 (netlink(7)).
            if sender.is_none_or(|sender| sender.pid() != 0) {
                continue;
            }
            if flags.contains(MsgFlags::MSG_TRUNC) {
                return Err(RequestError::TooLong);
            }
            return message::decode(self.buffer.get(..length).unwrap_or_default())
                .map(Some)
                .map_err(RequestError::Message);
        }
    }
}

/// For waiting on several descriptors at once.
impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn into_link(answer: Answer) -> Option<LinkMessage> {
    match answer {
        Answer::Link(link) => Some(link),
        _ => None,
    }
}

fn socket_error(errno: Errno) -> RequestError {
    RequestError::Socket(errno.into())
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Socket(error) => write!(f, "netlink socket: {error}"),
            RequestError::Refused { errno, words: Some(words) } => {
                write!(f, "{} (the kernel says: {words})", errno.desc().to_lowercase())
            }
            RequestError::Refused { errno, words: None } => f.write_str(&errno.desc().to_lowercase()),
            RequestError::Message(error) => error.fmt(f),
            RequestError::TooLong => write!(f, "netlink datagram of more than {BUFFER} bytes"),
            RequestError::Deadline => f.write_str("no answer from the kernel in time"),
            RequestError::Unstable => {
                write!(f, "the kernel's list changed during each of {DUMPS} attempts to read it; try again")
            }
        }
    }
}

impl std::error::Error for RequestError {}
