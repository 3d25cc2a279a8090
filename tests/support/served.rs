//! Runs `imprint-host serve` as a process of its own, for tests with other people's EST clients. Asserts nothing itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::patience::PATIENCE;
use crate::ports::Reserved;
use crate::programs;

/// A state directory and its server. Dropping it ends both.
pub struct Served {
    dir: tempfile::TempDir,
    server: Child,
    address: String,
    _port: Reserved,
}

impl Served {
    /// Adds the records and starts the server. `arguments` are further arguments of `serve`.
    pub fn start(records: &[&str], arguments: &[&str]) -> Served {
        let dir = tempfile::tempdir().unwrap();
        // Payloads name the port before the server listens on it.
        let port = Reserved::new();
        let address = port.address().to_string();
        let state = dir.path().join("state");
        host(&state, &["init", "--url", &format!("https://{address}/.well-known/est")]);
        for record in records {
            let file = dir.path().join("node.toml");
            std::fs::write(&file, record).unwrap();
            host(&state, &["node", "add", file.to_str().unwrap()]);
        }
        let mut serve = command(&state);
        serve.args(["serve", "--listen", &address]).args(arguments);
        let mut server = serve.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(server.stderr.take().unwrap()).lines();
        let listens = said.by_ref().map(|line| line.unwrap()).find(|line| line.contains("EST on "));
        assert!(listens.is_some(), "it ended: {:?}", server.wait());
        // Read standard error to its end: a full pipe would block the server.
        std::thread::spawn(move || said.count());
        Served { dir, server, address, _port: port }
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The file of the CA certificate that nodes trust.
    pub fn root(&self) -> PathBuf {
        self.dir().join("root.pem")
    }

    /// Runs a command of `imprint-host` and returns its output.
    pub fn host(&self, arguments: &[&str]) -> String {
        host(&self.dir(), arguments)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Ignored: the server may have ended already, and the test then fails elsewhere.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn command(state: &Path) -> Command {
    let mut command = Command::new(programs::host());
    command.arg("--dir").arg(state);
    command
}

fn host(state: &Path, arguments: &[&str]) -> String {
    let output = command(state).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The value of a metric, with its labels, at a server that serves its metrics there.
pub fn metric(at: SocketAddr, name: &str) -> u64 {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |value| value.trim().parse().unwrap())
}

/// Waits until the metric has reached the value.
pub fn reaches(at: SocketAddr, name: &str, value: u64) {
    let start = Instant::now();
    while metric(at, name) < value {
        assert!(start.elapsed() < PATIENCE, "{name} does not reach {value}");
    }
}

/// Fails if one of these programs or files is missing.
pub fn clients(needed: &[&str]) {
    let path = std::env::var_os("PATH").unwrap();
    for needed in needed {
        // Joining an absolute path gives the path itself.
        let found = std::env::split_paths(&path).any(|folder| folder.join(needed).exists());
        assert!(found, "{needed} is missing: run scripts/install-needs clients");
    }
}
