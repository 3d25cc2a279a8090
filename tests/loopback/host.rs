//! The agent's own commands against our own server: payload in, files out. The node's clock is the machine's, the
//! server's a little ahead when a test needs it to be.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use imprint::chain::chain;
use imprint::error::Error;
use imprint::payload::{EstUrl, KeyType};
use imprint::renew::{self, Request};
use imprint::run;
use imprint::time::Timestamp;
use imprint_host::compose::Options;
use imprint_host::serve::{Config, Server};
use imprint_host::state::State;

/// A state directory with nodes, and its server.
struct Site {
    dir: tempfile::TempDir,
    server: Option<Server>,
    /// By how many seconds the server's clock is ahead.
    ahead: Arc<AtomicU64>,
    url: String,
}

const LIMIT: Duration = Duration::from_secs(60);

impl Site {
    fn new(records: &[String]) -> Site {
        let dir = tempfile::tempdir().unwrap();
        // A port that was free a moment ago: payloads name it before the server listens there.
        let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = format!("https://{listen}/.well-known/est");
        let base = EstUrl::try_from(url.as_str()).unwrap();
        let mut state = State::init(&dir.path().join("state"), &[base], Timestamp::system()).unwrap();
        let files: Vec<_> = records.iter().map(|text| ("node.toml".to_owned(), text.clone())).collect();
        state.add_nodes(&files, false, Timestamp::system()).unwrap();
        let ahead = Arc::new(AtomicU64::new(0));
        let seconds = ahead.clone();
        let clock = move || Timestamp::system().plus(Duration::from_secs(seconds.load(Ordering::SeqCst)));
        let config = Config { dir: dir.path().join("state"), listen, clock: Arc::new(clock) };
        Site { server: Some(Server::start(config).unwrap()), dir, ahead, url }
    }

    fn pass(&self, minutes: u64) {
        self.ahead.fetch_add(60 * minutes, Ordering::SeqCst);
    }

    /// What the server did last.
    fn last(&self) -> (String, String) {
        let row = self.state().store.log(1).unwrap().remove(0);
        (row.event, row.detail)
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
        // And is renewed: the key proves itself in TLS.
        renewed(&out, NEW_KEY).unwrap();
        let (again, private) = certified(&out);
        assert_eq!(again, private, "{key}");
        assert_ne!(again, certificate, "{key}");
        assert_eq!(openssl(&["x509", "-noout", "-subject"], &out.join("cert.pem")), subject);
    }
}

const NEW_KEY: Request = Request { timeout: LIMIT, keep_key: false, if_due: false };
const SAME_KEY: Request = Request { keep_key: true, ..NEW_KEY };
const IF_DUE: Request = Request { if_due: true, ..NEW_KEY };

const NODE1: &str = "name = \"node1\"\nsubject = [\"CN=node1\", \"O=Example\"]\n\
                     sans = [\"uri:spiffe://example/node1\", \"dns:node1.example\", \"ip:192.0.2.10\"]\n";

fn renewed(directory: &Path, request: Request) -> Result<(), Error> {
    renew::renew(directory, request, Timestamp::system())
}

/// Everything in a folder that a reader can see, by path.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                // A link to a folder is where it points.
                false => all.push((entry.path(), std::fs::read(entry.path()).unwrap_or_else(|_| link(&entry.path())))),
            }
        }
    }
    all.sort();
    all
}

fn link(path: &Path) -> Vec<u8> {
    std::fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()
}

fn read(directory: &Path, name: &str) -> String {
    std::fs::read_to_string(directory.join(name)).unwrap()
}

#[test]
fn a_renewal_brings_a_new_key_with_the_same_names() {
    let site = Site::new(&[NODE1.to_owned()]);
    let out = site.enroll("node1");
    let names = ["x509", "-noout", "-subject", "-nameopt", "RFC2253,show_type", "-ext", "subjectAltName"];
    let (before, old_key) = (openssl(&names, &out.join("cert.pem")), read(&out, "private/key.pem"));
    let mut serials = vec![openssl(&["x509", "-noout", "-serial"], &out.join("cert.pem"))];
    for _ in 0..3 {
        renewed(&out, NEW_KEY).unwrap();
        let (certificate, private) = certified(&out);
        assert_eq!(certificate, private);
        assert_eq!(openssl(&names, &out.join("cert.pem")), before);
        let chain = out.join("chain.pem");
        let (ca, cert) = (out.join("ca.pem"), out.join("cert.pem"));
        let output = Command::new("openssl")
            .args(["verify", "-purpose", "sslclient", "-CAfile"])
            .args([&ca, Path::new("-untrusted"), &chain, &cert])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serials.push(openssl(&["x509", "-noout", "-serial"], &out.join("cert.pem")));
        let node: imprint::status::Node = serde_json::from_str(&read(&out, "node.json")).unwrap();
        let (event, detail) = site.last();
        assert_eq!(event, "renewed");
        assert!(detail.contains(&format!("key {}, until {}", node.key_code, node.not_after)), "{detail}");
        // Nothing of the ones before is left.
        let files: Vec<_> = contents(&out).into_iter().map(|(path, _)| path).collect();
        assert_eq!(files.len(), 13, "{files:?}");
        assert!(contents(&out).iter().all(|(_, bytes)| *bytes != old_key.as_bytes()));
        let folder = std::fs::read_link(out.join("current")).unwrap();
        let pair = ["cert.pem", "key.pem"].map(|name| read(&out.join(&folder), name));
        assert_eq!(pair, [read(&out, "cert.pem"), read(&out, "private/key.pem")]);
    }
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 4);
    // Another check-in into the same folder begins anew, with plain files.
    run::enroll(Path::new("/"), &site.payload("node1"), &out, LIMIT, None).unwrap();
    assert_eq!(contents(&out).len(), 7);
    assert_eq!(certified(&out).0, certified(&out).1);
}

#[test]
fn a_renewal_may_keep_the_key() {
    let site = Site::new(&[NODE1.to_owned()]);
    let out = site.enroll("node1");
    let (key, certificate) = (read(&out, "private/key.pem"), read(&out, "cert.pem"));
    renewed(&out, SAME_KEY).unwrap();
    assert_eq!(read(&out, "private/key.pem"), key);
    assert_ne!(read(&out, "cert.pem"), certificate);
    assert_eq!(certified(&out).0, certified(&out).1);
}

/// A key that was copied is of no use once its certificate has a successor that was seen, or 15 minutes have passed.
#[test]
fn the_old_key_cannot_be_used_again() {
    let site = Site::new(&[NODE1.to_owned()]);
    let out = site.enroll("node1");
    let copy = |name: &str| {
        let to = site.file(name);
        let output = Command::new("cp").arg("-a").arg(&out).arg(&to).status().unwrap();
        assert!(output.success());
        to
    };
    let (stolen, again) = (copy("stolen"), copy("again"));
    renewed(&out, NEW_KEY).unwrap();
    // The answer might have been lost: for a while the one before may ask again.
    renewed(&again, NEW_KEY).unwrap();
    // That one's successor is the latest now, and the one that got lost is none.
    let error = renewed(&out, NEW_KEY).unwrap_err();
    assert_eq!(error.stage().1, 18);
    assert!(chain(&error).contains("took the place of this certificate's at"), "{}", chain(&error));
    let was = contents(&stolen);
    site.pass(16);
    for request in [NEW_KEY, SAME_KEY] {
        let error = renewed(&stolen, request).unwrap_err();
        assert!(chain(&error).contains("took the place of this certificate's at"), "{}", chain(&error));
        assert_eq!(site.last().0, "refused");
    }
    assert_eq!(contents(&stolen), was, "what fails changes nothing");
    // As soon as the latest was seen, there is no waiting.
    renewed(&again, NEW_KEY).unwrap();
    renewed(&again, SAME_KEY).unwrap();
    let error = renewed(&out, NEW_KEY).unwrap_err();
    assert!(chain(&error).contains("took the place"), "{}", chain(&error));
}

#[test]
fn a_renewal_waits_until_it_is_due() {
    let site = Site::new(&[format!("{NODE1}validity = \"30d\"\n")]);
    let out = site.enroll("node1");
    let was = contents(&out);
    let day = Duration::from_secs(86_400);
    let asked = site.state().store.log(100).unwrap().len();
    renew::renew(&out, IF_DUE, Timestamp::system().plus(19 * day)).unwrap();
    assert_eq!((contents(&out), site.state().store.log(100).unwrap().len()), (was, asked), "nobody is asked");
    renew::renew(&out, IF_DUE, Timestamp::system().plus(21 * day)).unwrap();
    assert_eq!(site.last().0, "renewed");
}

#[test]
fn a_server_that_is_down_leaves_everything_as_it_was() {
    let mut site = Site::new(&[NODE1.to_owned()]);
    let out = site.enroll("node1");
    drop(site.server.take());
    let was = contents(&out);
    let error = renewed(&out, Request { timeout: Duration::from_millis(100), ..NEW_KEY }).unwrap_err();
    assert_eq!(error.stage(), ("check-in", 18));
    assert!(chain(&error).contains(&site.url), "{}", chain(&error));
    assert_eq!(contents(&out), was);
}

#[test]
fn a_certificate_that_the_server_does_not_take_leaves_everything_as_it_was() {
    let (site, other) = (Site::new(&[NODE1.to_owned()]), Site::new(&[NODE1.to_owned()]));
    let (out, stranger) = (site.enroll("node1"), other.enroll("node1"));
    // Certificate and key of another site, presented here.
    for name in ["cert.pem", "chain.pem", "private/key.pem"] {
        std::fs::copy(stranger.join(name), out.join(name)).unwrap();
    }
    let was = contents(&out);
    let error = chain(&renewed(&out, NEW_KEY).unwrap_err());
    assert!(error.contains("the server does not take this node's certificate: received fatal alert"), "{error}");
    assert_eq!(contents(&out), was);
    // A record with other names: what was signed for the old ones is not renewed.
    let out = other.enroll("node1");
    let renamed = NODE1.replace("dns:node1", "dns:other");
    other.state().add_nodes(&[("node.toml".to_owned(), renamed)], true, Timestamp::system()).unwrap();
    let error = chain(&renewed(&out, NEW_KEY).unwrap_err());
    assert!(error.contains("the node's record has other names now than the certificate"), "{error}");
    // A certificate that has ended by the server's clock.
    let site = Site::new(&[format!("{NODE1}validity = \"10m\"\n")]);
    let out = site.enroll("node1");
    site.pass(11);
    let error = chain(&renewed(&out, NEW_KEY).unwrap_err());
    assert!(error.starts_with("check-in: the certificate ended at ") && error.contains("new payload"), "{error}");
}

#[test]
fn what_cannot_be_renewed_says_why() {
    let site = Site::new(&[NODE1.to_owned()]);
    let nowhere = site.file("nowhere");
    let says = |directory: &Path| {
        let error = renewed(directory, NEW_KEY).unwrap_err();
        assert_eq!(error.stage(), ("hand-over", 19));
        chain(&error)
    };
    let want = format!("hand-over: reading {}, which imprint run or enroll leaves there: ", nowhere.display());
    assert!(says(&nowhere).starts_with(&want), "{}", says(&nowhere));
    let out = site.enroll("node1");
    let lock = imprint::handover::lock(&out).unwrap();
    assert!(says(&out).contains("somebody else renews what is in"), "{}", says(&out));
    drop(lock);
    let node = read(&out, "node.json");
    let without: String = node.split("  \"renewal\"").next().unwrap().trim_end().trim_end_matches(',').to_owned() + "}";
    std::fs::write(out.join("node.json"), without).unwrap();
    assert!(says(&out).contains("names no EST server, so there is nobody to ask for a renewal"), "{}", says(&out));
    std::fs::write(out.join("node.json"), node).unwrap();
    std::fs::write(out.join("private/key.pem"), "rubbish").unwrap();
    assert!(says(&out).contains("private/key.pem is not what imprint left there (no PRIVATE KEY in PEM)"));
    std::fs::copy(site.enroll("node1").join("private/key.pem"), out.join("private/key.pem")).unwrap();
}

/// Killed at any moment, a renewal leaves a key and a certificate that belong together.
#[test]
fn a_renewal_that_was_killed_is_taken_up_again() {
    let site = Site::new(&[NODE1.to_owned()]);
    let out = site.enroll("node1");
    // As after a crash before the switch: leftovers of a generation that nobody points at.
    std::fs::create_dir(out.join(".generation-1")).unwrap();
    std::fs::write(out.join(".generation-1/cert.pem"), "half").unwrap();
    std::fs::write(out.join("private/key-1.pem"), "half").unwrap();
    renewed(&out, NEW_KEY).unwrap();
    assert_eq!(certified(&out).0, certified(&out).1);
    // As after a crash behind it: what was is still there.
    std::fs::create_dir(out.join(".generation-1")).unwrap();
    std::fs::write(out.join("private/key-1.pem"), "old").unwrap();
    renewed(&out, NEW_KEY).unwrap();
    assert_eq!(certified(&out).0, certified(&out).1);
    assert_eq!(contents(&out).len(), 13);
}
