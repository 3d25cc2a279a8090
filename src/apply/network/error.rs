//! Says why there is no network, in words for an operator at the console. Never acts on an error.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use super::report::LinkReport;
use crate::facts::FactsError;
use crate::netlink::RequestError;
use crate::payload::{HostName, InterfaceName, Prefix};

/// Why there is no network.
#[derive(Debug)]
pub enum NetworkError {
    /// An rtnetlink socket could not be opened, or failed.
    Netlink(RequestError),
    /// The kernel did not carry out a request.
    Refused {
        /// What was asked for, with its value: `address 10.0.0.5/24`.
        what: String,
        /// The link.
        name: InterfaceName,
        /// Why the request failed.
        source: RequestError,
    },
    /// A socket of one link failed.
    Socket {
        /// What the socket was for.
        what: &'static str,
        /// The link.
        name: InterfaceName,
        /// The error of the system call.
        source: io::Error,
    },
    /// Waiting for links failed.
    Wait(io::Error),
    /// A link of that name, or a VLAN of that id, is there already, and is not what was to be made.
    Taken {
        /// `bond bond0`
        what: String,
        /// What is there.
        found: String,
        /// The name.
        name: InterfaceName,
    },
    /// A link is the port of another bond or bridge.
    PortTaken {
        /// The link.
        port: InterfaceName,
        /// What has it as a port.
        other: String,
        /// What was to have it.
        what: String,
    },
    /// The kernel cannot make such a link.
    NoModule {
        /// The link.
        name: InterfaceName,
        /// The kernel's module for it.
        module: &'static str,
    },
    /// Another machine already uses the address of this one (RFC 4862 §5.4.5).
    Duplicate {
        /// The address.
        prefix: Prefix,
        /// The link.
        name: InterfaceName,
    },
    /// No link is usable.
    NoLink {
        /// The state of each link that the payload asks for; empty: there is none.
        links: Vec<LinkReport>,
        /// How long this program waited for a link.
        waited: Duration,
    },
    /// resolv.conf cannot be written.
    ResolvConf {
        /// The file that was to be written, after following symbolic links.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// The links could not be listed, or udevd could not be waited for.
    Facts(FactsError),
    /// The host name cannot be set.
    HostName {
        /// The name.
        name: HostName,
        /// The error of the system call.
        source: io::Error,
    },
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::Netlink(_) => f.write_str("the kernel did not list the network links (rtnetlink)"),
            NetworkError::Refused { what, name, source: RequestError::Refused { errno: Errno::EPERM, .. } } => {
                write!(f, "{what} on {name}, which needs CAP_NET_ADMIN; run imprint as root")
            }
            NetworkError::Refused { what, name, .. } => write!(f, "{what} on {name}"),
            NetworkError::Socket { what, name, source } => {
                write!(f, "{what} on {name}")?;
                match source.raw_os_error() {
                    // EAFNOSUPPORT: the kernel has no packet sockets.
                    Some(nix::libc::EAFNOSUPPORT) => f.write_str("; is af_packet in the kernel, or its module loaded?"),
                    _ => Ok(()),
                }
            }
            NetworkError::Wait(_) => f.write_str("waiting for links"),
            NetworkError::Taken { what, found, .. } => {
                write!(
                    f,
                    "{what} cannot be made: {found}; remove that link, or give the one of the payload another name"
                )
            }
            NetworkError::PortTaken { port, other, what } => {
                write!(f, "{port} cannot be a port of {what}: it is one of {other}; take it out there")
            }
            NetworkError::NoModule { name, module } => write!(
                f,
                "{name} cannot be made, because the kernel's module {module} is not loaded, and could not be; put {module} into the \
                 image (docs/network.md)"
            ),
            NetworkError::Duplicate { prefix, name } => {
                write!(f, "another machine uses {prefix} on {name}; change the address of this node or of that machine")
            }
            NetworkError::NoLink { links, waited } => {
                write!(f, "no link is usable after {:.1} s", waited.as_secs_f64())?;
                if links.is_empty() {
                    return f.write_str(": no link matches the payload; is the link's driver in the image?");
                }
                for (position, link) in links.iter().enumerate() {
                    write!(f, "{} {link}", if position == 0 { ':' } else { ';' })?;
                }
                Ok(())
            }
            NetworkError::ResolvConf { path, .. } => write!(f, "writing {}", path.display()),
            NetworkError::Facts(error) => error.fmt(f),
            NetworkError::HostName { name, .. } => write!(f, "setting the host name {}", name.as_str()),
        }
    }
}

impl std::error::Error for NetworkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            NetworkError::Netlink(source) | NetworkError::Refused { source, .. } => Some(source),
            NetworkError::Socket { source, .. }
            | NetworkError::Wait(source)
            | NetworkError::ResolvConf { source, .. }
            | NetworkError::HostName { source, .. } => Some(source),
            NetworkError::Facts(error) => error.source(),
            NetworkError::Duplicate { .. }
            | NetworkError::NoLink { .. }
            | NetworkError::Taken { .. }
            | NetworkError::PortTaken { .. }
            | NetworkError::NoModule { .. } => None,
        }
    }
}
