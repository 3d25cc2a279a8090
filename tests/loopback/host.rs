//! The agent's own commands against our own server: payload in, files out. The clock is the machine's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use imprint::payload::{EstUrl, KeyType};
use imprint::run;
use imprint::time::Timestamp;
use imprint_host::compose::Options;
use imprint_host::serve::{Config, Server};
use imprint_host::state::State;

/// A state directory with nodes, and its server.
struct Site {
    dir: tempfile::TempDir,
    server: Option<Server>,
}

const LIMIT: Duration = Duration::from_secs(60);

impl Site {
    fn new(records: &[String]) -> Site {
        let dir = tempfile::tempdir().unwrap();
        // A port that was free a moment ago: payloads name it before the server listens there.
        let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = EstUrl::try_from(format!("https://{listen}/.well-known/est").as_str()).unwrap();
        let mut state = State::init(&dir.path().join("state"), &[url], Timestamp::system()).unwrap();
        let files: Vec<_> = records.iter().map(|text| ("node.toml".to_owned(), text.clone())).collect();
        state.add_nodes(&files, false, Timestamp::system()).unwrap();
        let config = Config { dir: dir.path().join("state"), listen, clock: Arc::new(Timestamp::system) };
        Site { server: Some(Server::start(config).unwrap()), dir }
    }

    fn state(&self) -> State {
        State::open(&self.dir.path().join("state")).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new payload for a node, in a file.
    fn payload(&self, node: &str) -> PathBuf {
        let made = self.state().payload(node, &Options::default(), Timestamp::system()).unwrap();
        let file = self.file(&format!("{node}.cbor"));
        std::fs::write(&file, &*made.bytes).unwrap();
        file
    }

    /// Where the node's files are.
    fn enroll(&self, node: &str) -> PathBuf {
        let out = self.file(node);
        run::enroll(Path::new("/"), &self.payload(node), &out, LIMIT, None).unwrap();
        out
    }
}

fn openssl(arguments: &[&str], file: &Path) -> String {
    let output = Command::new("openssl").args(arguments).arg("-in").arg(file).output();
    let output = output.expect("openssl: apt-get install openssl");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The public key in a certificate, and that of a private key.
fn certified(out: &Path) -> (String, String) {
    let certificate = openssl(&["x509", "-noout", "-pubkey"], &out.join("cert.pem"));
    (certificate, openssl(&["pkey", "-pubout"], &out.join("private/key.pem")))
}

#[test]
fn every_type_of_key_checks_in() {
    let record = |(_, key): &(KeyType, &str)| format!("name = \"{key}\"\nsubject = [\"CN={key}\"]\nkey = \"{key}\"\n");
    let site = Site::new(&KeyType::ALL.iter().map(record).collect::<Vec<_>>());
    for (_, key) in KeyType::ALL {
        let out = site.enroll(key);
        let (certificate, private) = certified(&out);
        assert_eq!(certificate, private, "{key}");
        let subject = openssl(&["x509", "-noout", "-subject"], &out.join("cert.pem"));
        assert_eq!(subject.trim(), format!("subject=CN = {key}"));
    }
    drop(site.server);
}
