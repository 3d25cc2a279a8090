//! Tests of what happens to a certificate when another one is signed or an administrator revokes it; and of the CA's own
//! keys.

use crate::support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use imprint_host::compose::Options;
use imprint_host::csr::{Csr, CsrError};
use imprint_host::enrol;
use imprint_host::est::Layout;
use imprint_host::serve::{Config, LISTS_EVERY, Server};
use imprint_host::x509::CrlReason;
use support::{Answer, NODE, Site, run, shown, start};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const EACH_BOOT: &str = "name = \"node1\"\nsubject = [\"CN=node1.example.org\", \"O=Example\"]\n\
                         sans = [\"dns:node1.example.org\", \"ip:192.0.2.10\"]\nenrol = \"each-boot\"\n";
const HELLO: &[u8] = b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// A site with one node, its token, and its keys in the order in which they were made.
struct Fleet {
    site: Site,
    token: String,
}

/// A CSR, the number of its key's file, and its code.
struct Key {
    csr: Vec<u8>,
    number: u64,
    code: String,
}

impl Fleet {
    fn new(record: &str) -> Fleet {
        let site = start(&[record]);
        let token = site.token("node1", &Options { expires: 30 * 24 * HOUR, ..Options::default() });
        Fleet { site, token }
    }

    fn key(&self, number: u64) -> Key {
        let csr = self.site.good();
        let code = Csr::parse(&csr).unwrap().code().to_string();
        Key { csr, number, code }
    }

    fn ask(&self, key: &Key) -> Answer {
        self.site.enroll(Some(("node1", &self.token)), &key.csr)
    }

    /// A certificate, verified.
    fn enrolled(&self, key: &Key) -> PathBuf {
        self.site.verified(&self.ask(key))
    }

    /// The newest lines of the audit log, without those of `init` and the like.
    fn log(&self, count: u32) -> Vec<String> {
        let rows = self.site.state().store.log(count).unwrap();
        rows.iter().map(|row| format!("{} {}", row.event, row.detail)).collect()
    }

    fn live(&self) -> Vec<String> {
        let mut state = self.site.state();
        let rows = state.store.changes().unwrap().live_certificates("node1", self.site.clock()).unwrap();
        rows.into_iter().map(|row| row.key_code).collect()
    }

    /// What openssl thinks of a certificate by the list that its own distribution point names, once that has to be up to
    /// date.
    fn checked(&self, certificate: &Path) -> Result<(), String> {
        self.site.pass(LISTS_EVERY);
        let text = shown(certificate);
        let point = text.split("CRL Distribution Points: \n").nth(1).expect("a distribution point");
        let url = point.split("URI:").nth(1).unwrap().lines().next().unwrap();
        let (server, path) = url.strip_prefix("http://").unwrap().split_at(14);
        assert_eq!(server, "127.0.0.1:8443", "the site's URL, without TLS");
        let (head, der) = self.site.plain(self.site.server.local_addr(), path);
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.contains("\r\nContent-Type: application/pkix-crl\r\n"),
            "{head}"
        );
        let (crl, pem) = (self.site.dir.path().join("list.crl"), self.site.dir.path().join("list.pem"));
        std::fs::write(&crl, der).unwrap();
        let (crl, pem) = (crl.to_str().unwrap(), pem.to_str().unwrap());
        run("openssl", &["crl", "-inform", "DER", "-in", crl, "-out", pem]);
        let state = self.site.dir.path().join("state");
        let file = |name: &str| state.join(name).display().to_string();
        let issuers: Vec<u8> = std::fs::read_dir(state.join("intermediates"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "pem"))
            .flat_map(|path| std::fs::read(path).unwrap())
            .collect();
        let chain = self.site.dir.path().join("chain.pem");
        std::fs::write(&chain, issuers).unwrap();
        let output = std::process::Command::new("openssl")
            .args(["verify", "-x509_strict", "-crl_check", "-attime", &self.site.clock().as_secs().to_string()])
            .args(["-CRLfile", pem, "-CAfile", &file("root.pem"), "-untrusted", chain.to_str().unwrap()])
            .arg(certificate)
            .output()
            .unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
    }
}

/// Who reads such a medium is the node, for as long as its certificate is valid: a medium that was lost ends with the one
/// that takes its place. What the node has asked for itself is not of a medium, and stays.
#[test]
fn credentials_of_an_earlier_payload_end_with_the_next_one() {
    let fleet = Fleet::new(NODE);
    let own = fleet.key(0);
    fleet.enrolled(&own);
    let own = own.code;
    let brings = |keep: bool| {
        let options = Options { credentials: true, keep, ..Options::default() };
        let made = fleet.site.state().payload("node1", &options, fleet.site.clock()).unwrap();
        (made.certificate.unwrap().key_code, made.superseded)
    };
    let (first, ended) = brings(false);
    assert_eq!((ended, fleet.live()), (vec![], vec![own.clone(), first.clone()]));
    let (second, ended) = brings(false);
    assert_eq!((ended, fleet.live()), (vec![first.clone()], vec![own.clone(), second.clone()]));
    let lines = fleet.log(2);
    assert_eq!(lines[0], format!("superseded key {first}: replaced by key {second}"));
    assert!(
        lines[1].starts_with("payload payload ") && lines[1].contains(&format!(" and key {second}, ")),
        "{lines:?}"
    );
    // Both media may be in use.
    let (third, ended) = brings(true);
    assert_eq!((ended, fleet.live()), (vec![], vec![own.clone(), second.clone(), third.clone()]));
    let (fourth, ended) = brings(false);
    assert_eq!((ended, fleet.live()), (vec![second, third], vec![own.clone(), fourth.clone()]));
    // A token ends nothing before it is used.
    fleet.site.token("node1", &Options::default());
    assert_eq!(fleet.live(), [own, fourth]);
}

/// Power failed between signature and hand-over: the node boots again with the same payload and another key.
#[test]
fn a_certificate_that_nobody_has_shown_gives_way_for_a_quarter_of_an_hour() {
    let fleet = Fleet::new(NODE);
    let (first, second, third) = (fleet.key(0), fleet.key(1), fleet.key(2));
    let lost = fleet.enrolled(&first);
    assert_eq!(fleet.checked(&lost), Ok(()));
    fleet.site.pass(14 * MINUTE);
    let kept = fleet.enrolled(&second);
    assert_eq!(fleet.log(2)[0], format!("superseded key {}: replaced by key {}", first.code, second.code));
    assert_eq!(fleet.live(), std::slice::from_ref(&second.code));
    assert!(fleet.checked(&lost).unwrap_err().contains("certificate revoked"));
    assert_eq!(fleet.checked(&kept), Ok(()));
    // Whoever has the first key is another machine, and somebody has to look.
    let answer = fleet.ask(&first);
    assert_eq!(answer.status, 403);
    assert!(answer.body.starts_with("this key's certificate was replaced at "), "{}", answer.body);
    let alarm = &fleet.log(2)[0];
    assert!(alarm.starts_with(&format!("alarm key {} is in use, but was revoked at ", first.code)), "{alarm}");
    let valid =
        format!(" (superseded), and key {} is valid now: is there a second machine with its payload", second.code);
    assert!(alarm.contains(&valid), "{alarm}");
    // Its own certificate again costs nothing, and after a quarter of an hour nothing gives way.
    assert_eq!(fleet.ask(&second).status, 200);
    fleet.site.pass(15 * MINUTE);
    assert_eq!(fleet.ask(&third).status, 202);
    assert_eq!(fleet.live(), [second.code]);
}

#[test]
fn a_certificate_that_was_shown_does_not_give_way() {
    let fleet = Fleet::new(NODE);
    let (first, second) = (fleet.key(0), fleet.key(1));
    let certificate = fleet.enrolled(&first);
    assert_eq!(fleet.site.shows(&certificate, first.number, HELLO).status, 200);
    assert_eq!(fleet.ask(&second).status, 202);
    assert_eq!(fleet.live(), [first.code]);
}

/// A stateless node: each boot has its own key, and the one before ends with it.
#[test]
fn each_boot_revokes_the_last_one_and_alarms_if_that_is_still_in_use() {
    let fleet = Fleet::new(EACH_BOOT);
    let keys: Vec<Key> = (0..3).map(|number| fleet.key(number)).collect();
    let mut certificates = Vec::new();
    for key in &keys {
        certificates.push(fleet.enrolled(key));
        // However old, and shown or not.
        assert_eq!(fleet.site.shows(&certificates[certificates.len() - 1], key.number, HELLO).status, 200);
        fleet.site.pass(HOUR);
    }
    let day = fleet.site.clock().plus(23 * HOUR).to_string();
    assert_eq!(fleet.live(), [keys[2].code.clone()]);
    for certificate in &certificates[..2] {
        assert!(fleet.checked(certificate).unwrap_err().contains("certificate revoked"));
    }
    assert_eq!(fleet.checked(&certificates[2]), Ok(()));
    let alarms = || fleet.log(1000).iter().filter(|line| line.starts_with("alarm ")).count();
    assert_eq!(alarms(), 0);
    for _ in 0..2 {
        assert_eq!(fleet.site.shows(&certificates[1], keys[1].number, HELLO).status, 200);
        assert_eq!(alarms(), 1, "once for each certificate");
    }
    // Its lifetime is a day.
    let text = shown(&certificates[2]);
    let until = text.split("Not After : ").nth(1).unwrap().lines().next().unwrap();
    assert!(until.contains(&day[11..19]), "{until}, want {day}");
}

#[test]
fn a_node_that_boots_again_and_again_is_slowed_down() {
    let fleet = Fleet::new(EACH_BOOT);
    for number in 0..20 {
        assert_eq!(fleet.ask(&fleet.key(number)).status, 200);
        fleet.site.pass(MINUTE);
    }
    let last = fleet.key(20);
    let answer = fleet.ask(&last);
    assert_eq!((answer.status, answer.header("Retry-After")), (429, Some("2400")));
    assert!(answer.body.starts_with("20 certificates within an hour for payload "), "{}", answer.body);
    fleet.site.pass(40 * MINUTE);
    assert_eq!(fleet.ask(&last).status, 200);
}

#[test]
fn a_node_that_is_revoked_stays_out() {
    let fleet = Fleet::new(EACH_BOOT);
    let (first, second) = (fleet.key(0), fleet.key(1));
    let certificate = fleet.enrolled(&first);
    let revoke = |code: Option<&str>| {
        enrol::revoke(&mut fleet.site.state().store, "node1", code, CrlReason::KeyCompromise, fleet.site.clock())
    };
    let other = revoke(Some(&second.code)).err().unwrap().to_string();
    assert_eq!(other, format!("node1 has no valid certificate of key {}; it has those of {}", second.code, first.code));
    let at = fleet.site.clock();
    let enrol::Revoked { certificates, payloads, callers } = revoke(None).unwrap();
    assert_eq!((certificates[0].key_code.as_str(), certificates.len(), payloads), (first.code.as_str(), 1, 1));
    assert_eq!(callers, Vec::<String>::new());
    assert!(fleet.checked(&certificate).unwrap_err().contains("certificate revoked"));
    let crl =
        run("openssl", &["crl", "-noout", "-text", "-in", fleet.site.dir.path().join("list.pem").to_str().unwrap()]);
    assert!(crl.contains("Key Compromise") && crl.contains("X509v3 CRL Number: \n                1\n"), "{crl}");
    // Neither its key nor another one, and no renewal.
    let void = fleet.ask(&second);
    assert_eq!(void.status, 403);
    assert!(void.body.starts_with("an administrator revoked this payload at "), "{}", void.body);
    let csr = support::wrapped(&fleet.key(2).csr);
    let head = format!(
        "POST /.well-known/est/simplereenroll HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: \
         application/pkcs10\r\nContent-Length: {}\r\n\r\n",
        csr.len()
    );
    let renewal = fleet.site.shows(&certificate, first.number, &[head.as_bytes(), &csr].concat());
    let want = format!(
        "the certificate of this key was revoked at {at} (keyCompromise); a revoked key never gets another \
         certificate, enrol with a new payload\n"
    );
    assert_eq!((renewal.status, renewal.body), (403, want));
    let nothing = revoke(None).err().unwrap().to_string();
    assert_eq!(nothing, "node1 has no valid certificate; imprint-host nodes lists what each node has");
}

/// The list is made anew when it has to be, with a number of its own.
#[test]
fn the_list_of_revoked_certificates_is_numbered() {
    let fleet = Fleet::new(NODE);
    let id = fleet.site.state().ca.current().id();
    let number = || {
        let (_, der) = fleet.site.plain(fleet.site.server.local_addr(), &format!("/crl/{id}.crl"));
        let path = fleet.site.dir.path().join("numbered.crl");
        std::fs::write(&path, der).unwrap();
        let text = run("openssl", &["crl", "-inform", "DER", "-noout", "-crlnumber", "-in", path.to_str().unwrap()]);
        text.trim().to_owned()
    };
    assert_eq!((number(), number()), ("crlNumber=0x01".to_owned(), "crlNumber=0x01".to_owned()));
    fleet.site.pass(HOUR);
    assert_eq!(number(), "crlNumber=0x02");
    fleet.enrolled(&fleet.key(0));
    enrol::revoke(&mut fleet.site.state().store, "node1", None, CrlReason::Unspecified, fleet.site.clock()).unwrap();
    // However often it is asked for.
    assert_eq!((number(), number()), ("crlNumber=0x02".to_owned(), "crlNumber=0x02".to_owned()));
    fleet.site.pass(LISTS_EVERY);
    assert_eq!((number(), number()), ("crlNumber=0x03".to_owned(), "crlNumber=0x03".to_owned()));
    let (head, _) = fleet.site.plain(fleet.site.server.local_addr(), "/crl/00.crl");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let (head, body) = fleet.site.plain(fleet.site.server.local_addr(), "/.well-known/est/cacerts");
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(body, b"this server speaks EST over TLS: use https://\n");
}

/// A new intermediate while the server runs: it signs from the next request on, and the old one's certificates stay.
#[test]
fn the_intermediate_is_replaced_while_the_server_runs() {
    let fleet = Fleet::new(EACH_BOOT);
    let (first, second) = (fleet.key(0), fleet.key(1));
    let old = fleet.enrolled(&first);
    let (state, away) = (fleet.site.dir.path().join("state"), fleet.site.dir.path().join("offline.key"));
    std::fs::rename(state.join("root.key"), &away).unwrap();
    let refused = fleet.site.state().rotate(None, fleet.site.clock(), &mut |_| ()).unwrap_err().to_string();
    let want = "bring it back for this one command, or say where it is with --root-key";
    assert!(refused.starts_with("the root's key is not at ") && refused.ends_with(want), "{refused}");
    let wrong = fleet
        .site
        .state()
        .rotate(Some(&fleet.site.dir.path().join("0.key")), fleet.site.clock(), &mut |_| ())
        .unwrap_err();
    assert!(wrong.to_string().ends_with("0.key is not the key of root.pem"), "{wrong}");
    let before = fleet.site.state().ca.current().id();
    fleet.site.state().rotate(Some(&away), fleet.site.clock(), &mut |_| ()).unwrap();
    let after = fleet.site.state().ca.current().id();
    assert_ne!(before, after);
    let new = fleet.enrolled(&second);
    assert!(shown(&new).contains(" nodes 2\n"), "{}", shown(&new));
    // The old one's list says what was superseded, signed by the old one; both are given to whoever asks for CAs.
    assert!(fleet.checked(&old).unwrap_err().contains("certificate revoked"));
    assert_eq!(fleet.checked(&new), Ok(()));
    let answer = fleet.site.get("/.well-known/est/cacerts");
    assert_eq!(answer.status, 200);
    let p7 = fleet.site.dir.path().join("cas.p7");
    std::fs::write(&p7, format!("-----BEGIN PKCS7-----\n{}-----END PKCS7-----\n", answer.body)).unwrap();
    let text = run("openssl", &["pkcs7", "-print_certs", "-in", p7.to_str().unwrap()]);
    assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 3, "{text}");
}

#[test]
fn one_server_for_one_directory() {
    let fleet = Fleet::new(NODE);
    let dir = fleet.site.dir.path().join("state");
    let clock = std::sync::Arc::new(imprint::time::Timestamp::system);
    let config = || Config {
        dir: dir.clone(),
        listen: "127.0.0.1:0".parse().unwrap(),
        metrics: None,
        doors: Vec::new(),
        layout: Layout::Wrapped,
        tell: Default::default(),
        clock: clock.clone(),
    };
    let second = Server::start(config()).err().unwrap().to_string();
    assert!(second.starts_with("another imprint-host serve runs on "), "{second}");
    let Fleet { site, .. } = fleet;
    site.server.shutdown();
    Server::start(config()).unwrap().shutdown();
}

#[test]
fn metrics_count_what_happens() {
    let fleet = Fleet::new(EACH_BOOT);
    let (first, second) = (fleet.key(0), fleet.key(1));
    let certificate = fleet.enrolled(&first);
    fleet.enrolled(&second);
    fleet.site.shows(&certificate, first.number, HELLO);
    fleet.site.enroll(Some(("node1", "wrong")), &fleet.key(2).csr);
    let (head, body) = fleet.site.plain(fleet.site.server.metrics_addr().unwrap(), "/metrics");
    let text = String::from_utf8(body).unwrap();
    assert!(head.contains("Content-Type: application/openmetrics-text"), "{head}");
    for line in [
        "imprint_host_requests_total{operation=\"simpleenroll\",code=\"200\"} 2",
        "imprint_host_requests_total{operation=\"simpleenroll\",code=\"403\"} 1",
        "imprint_host_requests_total{operation=\"cacerts\",code=\"200\"} 1",
        "imprint_host_decisions_total{event=\"enrolled\"} 2",
        "imprint_host_decisions_total{event=\"refused\"} 1",
        "imprint_host_alarms_total 1",
        "imprint_host_queue_length 0",
        "imprint_host_request_duration_seconds_count 4",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(name) && line.as_bytes()[name.len()] == b' ');
        line.unwrap_or_else(|| panic!("{name}\n{text}")).split(' ').nth(1).unwrap().parse().unwrap()
    };
    assert!(value("imprint_host_process_resident_memory_bytes") > 1e6);
    let until = fleet.site.clock().plus(90 * 24 * HOUR).as_secs();
    assert_eq!(value("imprint_host_server_certificate_expiry_seconds").to_string(), until.to_string());
}

/// Clocks jump. What cannot be decided at that time is not, and nothing is used up.
#[test]
fn a_clock_that_jumps_costs_nothing() {
    use std::sync::atomic::Ordering;
    let fleet = Fleet::new(EACH_BOOT);
    let year = 365 * 24 * 3600;
    // Before the CA was made.
    fleet.site.now.fetch_sub(year, Ordering::SeqCst);
    let key = fleet.key(0);
    let mut state = fleet.site.state();
    let credentials = enrol::Credentials {
        name: "node1".into(),
        proof: enrol::Proof::Token(imprint::secret::Secret::new(fleet.token.clone().into_bytes())),
    };
    let csr = Csr::parse(&key.csr);
    let request = enrol::Request { csr: csr.as_ref(), credentials: Some(&credentials), peer: "192.0.2.1" };
    let early = state.decide(fleet.site.clock(), |desk| enrol::simple_enroll(desk, &request)).unwrap_err();
    assert!(early.to_string().starts_with("intermediate CA is valid from "), "{early}");
    // After the payload's expiry.
    fleet.site.now.fetch_add(2 * year, Ordering::SeqCst);
    assert_eq!(fleet.ask(&key).status, 403);
    assert!(fleet.live().is_empty());
    // Set right: as if nothing had been.
    fleet.site.now.fetch_sub(year, Ordering::SeqCst);
    fleet.enrolled(&key);
    // A day ahead, where a node boots as often as it may; that hour is not this one.
    fleet.site.pass(24 * HOUR);
    for number in 1..=20 {
        assert_eq!(fleet.ask(&fleet.key(number)).status, 200);
    }
    assert_eq!(fleet.ask(&fleet.key(21)).status, 429);
    fleet.site.now.fetch_sub(24 * 3600, Ordering::SeqCst);
    fleet.enrolled(&fleet.key(22));
}

/// Somebody without a token sends CSRs without a pause, and none of them is signed by its key. Signatures are checked before
/// the desk: it hears of few of them, and what it does not hear of is answered while it cannot decide anything.
#[test]
fn csrs_that_are_none_cost_the_desk_nothing() {
    let fleet = Fleet::new(EACH_BOOT);
    let key = fleet.key(0);
    let mut bad = key.csr.clone();
    *bad.last_mut().unwrap() ^= 1;
    assert!(matches!(Csr::parse(&bad), Err(CsrError::Signature)));
    let refused = || {
        let answer = fleet.site.enroll(None, &bad);
        assert_eq!((answer.status, answer.body.as_str()), (403, "the CSR is not signed by the key in it\n"));
    };
    (0..40).for_each(|_| refused());
    let rows = fleet.site.state().store.log(1000).unwrap();
    let lines = rows.iter().filter(|row| row.detail.starts_with("the CSR is not signed by the key in it"));
    assert_eq!(lines.count(), 30, "the log has those that the desk heard of");
    let mut state = fleet.site.state();
    std::thread::scope(|scope| {
        // The desk waits for the store, and what has to be decided waits for the desk.
        let held = state.store.changes().unwrap();
        let decided = scope.spawn(|| fleet.ask(&key).status);
        (0..10).for_each(|_| refused());
        drop(held);
        assert_eq!(decided.join().unwrap(), 200);
    });
}

/// A clock that was ahead is set right: what was signed last is the latest, whatever the dates say.
#[test]
fn the_latest_certificate_is_the_one_that_was_signed_last() {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options::default());
    let mut state = site.state();
    let issued = |decision: enrol::Decision| match decision.answer {
        enrol::Answer::Issued { der, .. } => der,
        other => panic!("{other:?}"),
    };
    let credentials = enrol::Credentials {
        name: "node1".into(),
        proof: enrol::Proof::Token(imprint::secret::Secret::new(token.into_bytes())),
    };
    let csr = Csr::parse(&site.good());
    let request = enrol::Request { csr: csr.as_ref(), credentials: Some(&credentials), peer: "192.0.2.1" };
    let ahead = site.clock().plus(12 * HOUR);
    let first = issued(state.decide(ahead, |desk| enrol::simple_enroll(desk, &request)).unwrap());
    let mut renew = |certificate: &[u8], now: imprint::time::Timestamp| {
        let csr = Csr::parse(&site.good());
        let renewed =
            state.decide(now, |desk| enrol::simple_reenroll(desk, csr.as_ref(), Some(certificate), "192.0.2.1"));
        issued(renewed.unwrap())
    };
    let second = renew(&first, site.clock());
    let third = renew(&second, site.clock().plus(6 * HOUR));
    assert_eq!(site.state().store.latest("node1").unwrap().0.unwrap().der, third);
}
