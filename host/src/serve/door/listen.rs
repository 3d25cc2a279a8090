//! Opens the doors before the server says that it runs, and takes callers in, each in a task of its own. Says nothing to
//! them; `visit` does.

use std::io;
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use super::enter::enter;
use super::hall::Hall;
use super::unix::Pattern;
use super::vsock::VsockListener;
use super::{DoorSpec, ether, tcp, unix, vsock};
use crate::serve::files::Listening;

/// Open doors.
pub(in crate::serve) struct Doors(pub(super) Vec<(DoorSpec, Door)>);

/// An open door.
pub(super) enum Door {
    Tcp(TcpListener),
    Vsock(VsockListener),
    Unix(UnixListener, std::path::PathBuf),
    Machines(Pattern),
    Ether(Vec<String>),
}

/// Why the doors cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The system does not let this process listen there.
    #[error("--door {door}: {what}")]
    Listen {
        /// The door.
        door: String,
        /// What to do.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// No signer: payloads could not be signed.
    #[error(
        "--door {0}: at a door every payload is signed, and this directory has no signer; make one with imprint-host \
         signer new, and put its line into /imprint/site of the nodes' images"
    )]
    NoSigner(String),
    /// The same door twice.
    #[error("--door {0}: is given twice")]
    Twice(String),
    /// Two doors would open the same thing: each caller there would be heard twice.
    #[error("--door {door}: {what} belongs to --door {other}, too; name it once")]
    Both {
        /// The door.
        door: String,
        /// An earlier door.
        other: String,
        /// What belongs to both.
        what: String,
    },
}

impl Doors {
    /// The doors as text: TCP doors with the port that they have.
    pub(in crate::serve) fn names(&self) -> io::Result<Vec<String>> {
        let name = |(spec, door): &(DoorSpec, Door)| match door {
            Door::Tcp(listener) => Ok(DoorSpec::Tcp(listener.local_addr()?).to_string()),
            _ => Ok(spec.to_string()),
        };
        self.0.iter().map(name).collect()
    }
}

/// Opens all doors, or none. Needs the server's runtime.
pub(in crate::serve) async fn open(specs: &[DoorSpec]) -> Result<Doors, DoorError> {
    let mut doors = Vec::with_capacity(specs.len());
    for (at, spec) in specs.iter().enumerate() {
        if specs.iter().take(at).any(|other| other == spec) {
            return Err(DoorError::Twice(spec.to_string()));
        }
        if let Some((other, what)) = specs.iter().take(at).find_map(|other| Some((other, spec.shares(other)?))) {
            return Err(DoorError::Both { door: spec.to_string(), other: other.to_string(), what });
        }
        let failed = |what: &'static str| {
            let door = spec.to_string();
            move |source| DoorError::Listen { door, what, source }
        };
        let door = match spec {
            DoorSpec::Tcp(address) => {
                let listener = TcpListener::bind(address).await;
                Door::Tcp(listener.map_err(failed("is the address this machine's, and free?"))?)
            }
            DoorSpec::Vsock(port) => Door::Vsock(VsockListener::bind(*port).map_err(failed(vsock::WHAT))?),
            DoorSpec::Unix(path) => Door::Unix(unix::bind(path).map_err(failed(unix::WHAT))?, path.clone()),
            DoorSpec::Machines(machines) => {
                let pattern = Pattern::new(machines.clone());
                Door::Machines(pattern.map_err(failed("make the directory, and let this user read it"))?)
            }
            DoorSpec::Ether(links) => {
                ether::may_open().map_err(failed(ether::WHAT))?;
                Door::Ether(links.clone())
            }
        };
        doors.push((spec.clone(), door));
    }
    Ok(Doors(doors))
}

/// Takes callers in at a door. Ends with the server.
pub(super) async fn accept(door: Door, hall: Arc<Hall>) {
    match door {
        Door::Ether(links) => {
            let mut ports = JoinSet::new();
            for link in links {
                ports.spawn(ether::serve(link, Arc::clone(&hall)));
            }
            while ports.join_next().await.is_some() {}
        }
        Door::Machines(pattern) => unix::machines(pattern, hall).await,
        Door::Tcp(listener) => {
            let mut listening = Listening::new("door tcp");
            loop {
                match tcp::accept(&listener).await {
                    Ok((stream, arrival)) => {
                        enter(stream, arrival, &hall);
                    }
                    Err(error) => listening.failed(&error).await,
                }
            }
        }
        Door::Vsock(listener) => {
            let mut listening = Listening::new("door vsock");
            loop {
                match listener.accept().await {
                    Ok((stream, arrival)) => {
                        enter(stream, arrival, &hall);
                    }
                    Err(error) => listening.failed(&error).await,
                }
            }
        }
        Door::Unix(listener, path) => {
            let mut listening = Listening::new("door unix");
            loop {
                match unix::accept(&listener, &path).await {
                    Ok((stream, arrival)) => {
                        enter(stream, arrival, &hall);
                    }
                    Err(error) => listening.failed(&error).await,
                }
            }
        }
    }
}
