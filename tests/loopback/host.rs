//! Tests of the agent's commands against imprint-host's server: payload in, files out. The node's clock is the machine's;
//! the server's clock is a little ahead if a test needs that.

mod given;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imprint::chain::chain;
use imprint::error::Error;
use imprint::identity::Identity;
use imprint::payload::{self, CaCertificate, CertificateNames, Credentials, DnsName, EstUrl, KeyType, Payload};
use imprint::plan::SubjectPlan;
use imprint::pool::Seeded;
use imprint::renew::{self, Request};
use imprint::run;
use imprint::secret::Secret;
use imprint::status::{Enrolment, Outcome, Status};
use imprint::time::{Deadline, Timestamp};
use imprint_host::compose::Options;
use imprint_host::est::Layout;
use imprint_host::serve::{Config, Server};
use imprint_host::state::State;
use imprint_tests::books::in_use;
use imprint_tests::ca::{Ca, Leaf, certs_only, spki_of_csr};
use imprint_tests::est_server::{EstServer, date_field, reply};
use imprint_tests::patience::{PATIENCE, patiently};
use imprint_tests::ports::Reserved;
use imprint_tests::programs;
use rcgen::ExtendedKeyUsagePurpose;

use given::{enroll_with, with_credentials};

/// A state directory with nodes, and its server.
struct Site {
    dir: tempfile::TempDir,
    server: Option<Server>,
    /// By how many seconds the server's clock is ahead.
    ahead: Arc<AtomicU64>,
    url: String,
    _port: Reserved,
}

const LIMIT: Duration = PATIENCE;

impl Site {
    fn new(records: &[String]) -> Site {
        let dir = tempfile::tempdir().unwrap();
        // Payloads name it before the server listens there.
        let port = Reserved::new();
        let listen = port.address();
        let url = format!("https://{listen}/.well-known/est");
        let base = EstUrl::try_from(url.as_str()).unwrap();
        let mut state = State::init(&dir.path().join("state"), &[base], Timestamp::system()).unwrap();
        let files: Vec<_> = records.iter().map(|text| ("node.toml".to_owned(), text.clone())).collect();
        state.add_nodes(&files, false, Timestamp::system()).unwrap();
        let ahead = Arc::new(AtomicU64::new(0));
        let seconds = ahead.clone();
        let clock = move || Timestamp::system().plus(Duration::from_secs(seconds.load(Ordering::SeqCst)));
        let config = Config {
            dir: dir.path().join("state"),
            listen,
            metrics: None,
            doors: Vec::new(),
            layout: Layout::Wrapped,
            tell: Default::default(),
            clock: Arc::new(clock),
        };
        Site { server: Some(Server::start(config).unwrap()), dir, ahead, url, _port: port }
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

/// How many files and links one identity is: seven names and `current`, what they lead to, and the lock.
const ONE: usize = 16;

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
        assert_eq!(files.len(), ONE, "{files:?}");
        assert!(contents(&out).iter().all(|(_, bytes)| *bytes != old_key.as_bytes()));
        let folder = std::fs::read_link(out.join("current")).unwrap();
        let pair = ["cert.pem", "key.pem"].map(|name| read(&out.join(&folder), name));
        assert_eq!(pair, [read(&out, "cert.pem"), read(&out, "private/key.pem")]);
    }
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 4);
    // Another check-in into the same folder takes its place in the same way.
    run::enroll(Path::new("/"), &site.payload("node1"), &out, LIMIT, None).unwrap();
    assert_eq!(contents(&out).len(), ONE);
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
    assert!(chain(&error).contains("this certificate was replaced at "), "{}", chain(&error));
    let was = contents(&stolen);
    site.pass(16);
    for request in [NEW_KEY, SAME_KEY] {
        let error = renewed(&stolen, request).unwrap_err();
        assert!(chain(&error).contains("this certificate was replaced at "), "{}", chain(&error));
        assert_eq!(site.last().0, "refused");
    }
    assert_eq!(contents(&stolen), was, "what fails changes nothing");
    // As soon as the latest was seen, there is no waiting.
    renewed(&again, NEW_KEY).unwrap();
    renewed(&again, SAME_KEY).unwrap();
    let error = renewed(&out, NEW_KEY).unwrap_err();
    assert!(chain(&error).contains("was replaced at"), "{}", chain(&error));
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
    patiently(Duration::from_millis(100), |timeout| {
        let error = renewed(&out, Request { timeout, ..NEW_KEY }).unwrap_err();
        assert_eq!(error.stage(), ("check-in", 18));
        if chain(&error).contains(&site.url) { Ok(()) } else { Err(chain(&error)) }
    });
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
    assert!(
        error.contains("the server refuses this node's certificate; its log may say why: received fatal alert"),
        "{error}"
    );
    assert_eq!(contents(&out), was);
    // A record with other names: what was signed for the old ones is not renewed.
    let out = other.enroll("node1");
    let renamed = NODE1.replace("dns:node1", "dns:other");
    other.state().add_nodes(&[("node.toml".to_owned(), renamed)], true, Timestamp::system()).unwrap();
    let error = chain(&renewed(&out, NEW_KEY).unwrap_err());
    assert!(
        error.contains("the node's record (names or key type) has changed since this certificate was issued"),
        "{error}"
    );
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
    let want = format!(
        "hand-over: reading {}, which imprint run or imprint enroll writes; run one of them first, or name their \
         folder: ",
        nowhere.display()
    );
    assert!(says(&nowhere).starts_with(&want), "{}", says(&nowhere));
    let out = site.enroll("node1");
    let node = read(&out, "node.json");
    let without: String = node.split("  \"renewal\"").next().unwrap().trim_end().trim_end_matches(',').to_owned() + "}";
    std::fs::write(out.join("node.json"), without).unwrap();
    assert!(says(&out).contains("names no EST server, so this certificate cannot be renewed"), "{}", says(&out));
    std::fs::write(out.join("node.json"), node).unwrap();
    std::fs::write(out.join("private/key.pem"), "rubbish").unwrap();
    assert!(
        says(&out).contains("private/key.pem was changed or damaged since imprint wrote it (no PRIVATE KEY in PEM)")
    );
    std::fs::copy(site.enroll("node1").join("private/key.pem"), out.join("private/key.pem")).unwrap();
}

/// A payload that is used a second time, by another key: the node says its code and waits, whoever reads the console
/// approves it, and the certificate comes. Agent and host tool as people run them.
#[test]
fn an_administrator_approves_what_the_console_shows() {
    let site = Site::new(&[NODE1.to_owned()]);
    let payload = site.payload("node1");
    run::enroll(Path::new("/"), &payload, &site.file("first"), LIMIT, None).unwrap();
    in_use(&mut site.state(), "node1");
    let out = site.file("second");
    let mut agent = Command::new(programs::agent())
        .args(["enroll", "--timeout", "120", "--approval-timeout", "120", "--payload"])
        .args([&payload, Path::new("--out"), &out])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut console = BufReader::new(agent.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = console.find(|line| line.contains(" waits for approval at ")).expect("a line that says what to do");
    let (_, command) = line.split_once(" run: imprint-host ").unwrap();
    let host = |arguments: &str| {
        let output = Command::new(programs::host())
            .arg("--dir")
            .arg(site.file("state"))
            .args(arguments.split(' '))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let code = command.rsplit(' ').next().unwrap();
    assert!(host("nodes").contains(&format!("\nnode1 waits for approval: key {code} from 127.0.0.1 since ")));
    assert!(host("--json nodes").contains(&format!("\"key\":\"{code}\"")));
    assert_eq!(host(command), format!("approved node1 key {code}; it gets its certificate when it asks again\n"));
    let rest: Vec<String> = console.collect();
    assert!(agent.wait().unwrap().success(), "{rest:?}");
    assert!(!rest.iter().any(|line| line.contains("waits for approval")), "{rest:?}");
    assert_eq!(certified(&out).0, certified(&out).1);
    let log = host("log");
    let approved = log.lines().find(|line| line.contains(" approved node1 by ")).unwrap_or_else(|| panic!("{log}"));
    assert!(approved.contains("(uid ") && approved.contains(", asked from 127.0.0.1: key "), "{approved}");

    // Nobody approves the third one.
    let output = Command::new(programs::agent())
        .args(["enroll", "--timeout", "120", "--approval-timeout", "1", "--payload"])
        .args([&payload, Path::new("--out"), &site.file("third")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(18));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("imprint: check-in: nobody approved key "), "{error}");
}

/// With the same key there is one certificate, however often its answer is lost.
#[test]
fn an_answer_that_was_lost_is_given_again() {
    let site = Site::new(&[NODE1.to_owned()]);
    let out = site.enroll("node1");
    let before = site.file("before");
    assert!(Command::new("cp").arg("-a").arg(&out).arg(&before).status().unwrap().success());
    renewed(&out, SAME_KEY).unwrap();
    assert_eq!(site.last().0, "renewed");
    // This one never heard of it.
    renewed(&before, SAME_KEY).unwrap();
    assert!(site.last().1.ends_with(", same certificate again"), "{}", site.last().1);
    assert_eq!(read(&before, "cert.pem"), read(&out, "cert.pem"));
}

/// By another server than ours: what it answers is verified like any first certificate, and nothing changes before.
#[test]
fn an_answer_to_a_renewal_is_verified() {
    let site = Site::new(&[NODE1.to_owned()]);
    let now = Timestamp::system().as_secs();
    let life = (now - 600, now + 6000);
    let root = Arc::new(Ca::new("Root", life));
    let names = CertificateNames { dns: vec![DnsName::try_from("node1").unwrap()], ..Default::default() };
    let seeded = Seeded::ready(Deadline::after(LIMIT)).unwrap();
    let identity = Identity::generate(&SubjectPlan { names, key: KeyType::P256 }, &seeded).unwrap();
    let leaf = Leaf::node("node1", &["node1"], life);
    let chain_of = |spki: &[u8]| vec![root.issue(&leaf, spki)];
    let payload = Payload {
        ca: CaCertificate::new(root.der()).unwrap(),
        enrolment: payload::Enrolment::Credentials(Credentials {
            chain: chain_of(identity.spki()),
            key: identity.into(),
        }),
        ..with_credentials(&site, "node1")
    };
    let out = site.file("out");
    enroll_with(&site, &payload, &out).unwrap();
    // As if it had enrolled at that server.
    let tls_leaf = Leaf::server([127, 0, 0, 1].into(), life);
    let tls = root.asking_server(&tls_leaf, &[&rustls::version::TLS12], root.verifier(false));
    let shape = Arc::new(Mutex::new(leaf.clone()));
    let (ca, shaped) = (root.clone(), shape.clone());
    let server = EstServer::start(vec![tls], move |request| {
        let certificates = match request.operation() {
            "cacerts" => vec![ca.der()],
            "simplereenroll" => vec![ca.issue(&shaped.lock().unwrap(), &spki_of_csr(&request.csr()))],
            other => panic!("{other}"),
        };
        let body = imprint::pem::encode("X", &certs_only(&certificates));
        let body: String = body.lines().filter(|line| !line.starts_with('-')).collect();
        reply("200 OK", &[date_field(Timestamp::system().as_secs())], body.as_bytes())
    });
    let mut node: imprint::status::Node = serde_json::from_str(&read(&out, "node.json")).unwrap();
    node.name = Some("node1".to_owned());
    let (urls, key) = (vec![server.url()], "p384".to_owned());
    node.renewal = Some(imprint::status::NodeRenewal { urls, issuers: Vec::new(), key });
    std::fs::write(out.join("node.json"), serde_json::to_string(&node).unwrap()).unwrap();

    let was = contents(&out);
    for (change, want) in [
        (
            Leaf { cn: "node2".to_owned(), ..leaf.clone() },
            "the certificate's subject is \"CN=node2\", but the CSR asked for",
        ),
        (Leaf::node("node1", &["node1", "node2"], life), "the name dns:node2, which the CSR did not ask for"),
        (Leaf::node("node1", &[], life), "lacks the name dns:node1"),
        (Leaf { ca: true, ..leaf.clone() }, "the certificate is one of a CA"),
    ] {
        *shape.lock().unwrap() = change;
        let error = renewed(&out, NEW_KEY).unwrap_err();
        assert_eq!(error.stage(), ("check-in", 18));
        assert!(chain(&error).contains(want), "{}", chain(&error));
        assert_eq!(contents(&out), was);
    }
    *shape.lock().unwrap() = leaf;
    renewed(&out, NEW_KEY).unwrap();
    assert_eq!(certified(&out).0, certified(&out).1);
    assert!(openssl(&["x509", "-noout", "-text"], &out.join("cert.pem")).contains("Public-Key: (384 bit)"));
    assert!(server.requests().iter().all(|request| !request.head.contains("Authorization")));
}
