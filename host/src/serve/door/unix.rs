//! Unix sockets: one that everybody on this machine may call at, or one for each virtual machine. A hypervisor makes the
//! sockets of its machines, so a socket's name is a fact, as far as only the hypervisor may write to the directory. Never
//! looks at what a caller says.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep};

use super::enter::enter;
use super::hall::Hall;
use super::spec::Machines;
use super::{Arrival, visit};
use crate::admission::Facts;
use crate::origin;
use crate::serve::files::Listening;

pub(super) const WHAT: &str =
    "make its directory, and let this user write there; a file that is no unused socket is left alone";

/// How often a directory is looked at for sockets of new machines.
const LOOK: Duration = Duration::from_secs(1);
/// The longest wait before a socket that does not answer is connected to again.
const REOPEN: Duration = Duration::from_secs(10);
/// The most machines of one pattern. Each has a task, and a socket that is open.
const MACHINES: usize = 4096;

/// Listens at a path. An unused socket of an earlier run is replaced.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_unused(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

/// Whether nobody listens at this socket.
fn is_unused(path: &Path) -> bool {
    is_socket(path)
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

pub(super) async fn accept(listener: &UnixListener, path: &Path) -> io::Result<(UnixStream, Arrival)> {
    let (stream, _) = listener.accept().await?;
    let peer = format!("unix:{}", path.display());
    Ok((stream, Arrival { from: peer.clone(), peer, facts: Facts::default(), patient: false }))
}

/// The sockets of virtual machines.
pub(super) struct Pattern {
    machines: Machines,
    /// Machines that have a task.
    known: Arc<Mutex<HashSet<String>>>,
}

impl Pattern {
    pub(super) fn new(machines: Machines) -> io::Result<Pattern> {
        std::fs::read_dir(&machines.directory)?;
        Ok(Pattern { machines, known: Arc::default() })
    }

    /// The machines whose sockets are there. A socket of a machine's vsock port is no machine.
    fn found(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let Machines { directory, vsock, .. } = &self.machines;
        let mut sockets = HashSet::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str().filter(|_| entry.file_type().is_ok_and(|is| is.is_socket()))
            {
                sockets.insert(name.to_owned());
            }
        }
        let is_port = |name: &str| {
            let Some((of, port)) = name.rsplit_once('_') else { return false };
            let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            // Those of this door stay when a machine's own socket goes.
            is_number && (sockets.contains(of) || vsock.is_some_and(|own| port == own.to_string()))
        };
        let machines = sockets.iter().filter(|name| !is_port(name));
        let machines = machines.filter_map(|name| Some((self.machines.machine(name)?, directory.join(name))));
        Ok(machines.map(|(machine, path)| (machine.to_owned(), path)).collect())
    }
}

/// Serves the sockets of a pattern, each in a task of its own. Ends with the server.
pub(super) async fn machines(pattern: Pattern, hall: Arc<Hall>) {
    let mut told = None;
    loop {
        // A directory of a running system: reading it does not wait.
        match pattern.found() {
            Ok(found) => {
                told = None;
                for (machine, path) in found {
                    begin(&pattern, machine, path, &hall);
                }
            }
            Err(error) => {
                if told.replace(error.kind()) != Some(error.kind()) {
                    tracing::warn!("door {}: {error}", pattern.machines.directory.display());
                }
            }
        }
        sleep(LOOK).await;
    }
}

fn begin(pattern: &Pattern, machine: String, path: PathBuf, hall: &Arc<Hall>) {
    let mut known = pattern.known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= MACHINES || !known.insert(machine.clone()) {
        return;
    }
    drop(known);
    let (known, hall, vsock) = (Arc::clone(&pattern.known), Arc::clone(hall), pattern.machines.vsock);
    tokio::spawn(async move {
        match vsock {
            None => connect(&machine, &path, &hall).await,
            Some(port) => listen(&machine, &path, port, &hall).await,
        }
        known.lock().unwrap_or_else(PoisonError::into_inner).remove(&machine);
    });
}

fn arrival(machine: &str, path: &Path, patient: bool) -> Arrival {
    let facts = Facts { vm: Some(machine.to_owned()), ..Facts::default() };
    Arrival { from: format!("unix:{}", path.display()), peer: format!("vm:{machine}"), facts, patient }
}

/// Connects to the socket of a serial or virtio-serial port, again and again, until the socket is gone.
async fn connect(machine: &str, path: &Path, hall: &Arc<Hall>) {
    let mut wait = LOOK;
    while is_socket(path) {
        let begun = Instant::now();
        // A socket that nobody listens at is of a machine that is off.
        if let Ok(stream) = UnixStream::connect(path).await {
            let arrival = arrival(machine, path, true);
            let source = origin::of(&arrival.peer);
            if let Some(_place) = hall.place(&source) {
                visit::visit(stream, arrival, source, hall).await;
            }
        }
        if begun.elapsed() > REOPEN {
            wait = LOOK;
        }
        sleep(wait).await;
        wait = wait.saturating_mul(2).min(REOPEN);
    }
}

/// Listens where the hypervisor connects to when a guest calls at a vsock port, until the socket of the device is gone
/// (Firecracker's docs/vsock.md; cloud-hypervisor and vhost-device-vsock do the same).
async fn listen(machine: &str, path: &Path, port: u32, hall: &Arc<Hall>) {
    let mut at = path.as_os_str().to_owned();
    at.push(format!("_{port}"));
    let at = PathBuf::from(at);
    let listener = match bind(&at) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!("door {}: {error}; {WHAT}", at.display());
            return sleep(REOPEN).await;
        }
    };
    let own = Own(at.clone());
    let mut listening = Listening::new("door unix");
    while is_socket(path) && is_socket(&at) {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    enter(stream, arrival(machine, &at, false), hall);
                }
                Err(error) => listening.failed(&error).await,
            },
            () = sleep(LOOK) => {}
        }
    }
    drop(own);
}

/// A socket that this door has made. It goes with the machine's own one, and with the server.
struct Own(PathBuf);

impl Drop for Own {
    fn drop(&mut self) {
        // Ignored: the hypervisor may have removed the directory.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unused_socket_is_replaced_and_nothing_else() {
        let work = tempfile::tempdir().unwrap();
        let path = work.path().join("door");
        drop(bind(&path).unwrap());
        let in_use = bind(&path).unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(in_use);
        let file = work.path().join("file");
        std::fs::write(&file, "of somebody else").unwrap();
        assert_eq!(bind(&file).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "of somebody else");
    }

    /// Attack: files that are no sockets, and symlinks to sockets of other machines, lie in the directory.
    #[test]
    fn only_sockets_are_machines() {
        let work = tempfile::tempdir().unwrap();
        let at = |name: &str| work.path().join(name);
        let _socket = std::os::unix::net::UnixListener::bind(at("web1.sock")).unwrap();
        std::fs::write(at("web2.sock"), "").unwrap();
        std::os::unix::fs::symlink(at("web1.sock"), at("web3.sock")).unwrap();
        let machines =
            Machines { directory: work.path().into(), before: String::new(), after: ".sock".to_owned(), vsock: None };
        let pattern = Pattern::new(machines).unwrap();
        assert_eq!(pattern.found().unwrap(), [("web1".to_owned(), at("web1.sock"))]);
    }

    /// Accident: with `*` alone the sockets that this door makes fit the pattern, too. Each would be a machine with a socket of its
    /// own, which would be a machine. So would those of other ports of the same device.
    #[test]
    fn sockets_of_ports_are_no_machines() {
        let work = tempfile::tempdir().unwrap();
        let listens = |name: &str| std::os::unix::net::UnixListener::bind(work.path().join(name)).unwrap();
        let _sockets =
            ["web1", "web1_6909296", "web1_52", "gone_6909296", "vm_1", "vm_", "_7"].map(|name| (name, listens(name)));
        for (vsock, want) in [
            (Some(6_909_296), &["_7", "vm_", "vm_1", "web1"][..]),
            (None, &["_7", "gone_6909296", "vm_", "vm_1", "web1"]),
        ] {
            let (directory, before) = (work.path().to_owned(), String::new());
            let machines = Machines { directory, after: before.clone(), before, vsock };
            let mut found = Pattern::new(machines).unwrap().found().unwrap();
            found.sort();
            assert_eq!(found.into_iter().map(|(machine, _)| machine).collect::<Vec<_>>(), want);
        }
    }
}
