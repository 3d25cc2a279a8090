//! What the server tells those who ask before they make a key, and how it lays out what it sends: base64, dates, the
//! challenge, the CA's certificates.

use crate::support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use imprint::payload::KeyType;
use imprint_host::compose::Options;
use imprint_host::csr;
use imprint_host::enrol::{Desk, Refusal, key_wanted};
use imprint_host::est::{self, Layout};
use imprint_host::state::State;
use support::{Answer, NODE, Site, basic, run, start, start_with};

const DAY: Duration = Duration::from_secs(86_400);

fn csrattrs(site: &Site, path: &str, headers: &str) -> Answer {
    let request =
        format!("GET /.well-known/est/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\r\n");
    site.send(request.as_bytes())
}

fn records() -> Vec<String> {
    let record = |(_, key): &(KeyType, &str)| format!("name = \"{key}\"\nsubject = [\"CN={key}\"]\nkey = \"{key}\"\n");
    KeyType::ALL.iter().map(record).collect()
}

fn started(records: &[String]) -> Site {
    start(&records.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn attributes_of_a_csr_for_nobody_and_for_each_record() {
    let site = started(&records());
    let lines = site.state().store.log(100).unwrap().len();
    for path in ["csrattrs", "nodes/csrattrs"] {
        let answer = csrattrs(&site, path, "");
        assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/csrattrs")));
        assert_eq!(answer.header("Content-Transfer-Encoding"), Some("base64"));
        assert_eq!(answer.header("Content-Length").unwrap(), answer.body.len().to_string());
        // ecPublicKey { secp256r1 }, ecdsa-with-SHA256
        assert_eq!(answer.body, "MCEwFQYHKoZIzj0CATEKBggqhkjOPQMBBwYIKoZIzj0EAwI=\n");
    }
    for (key, name) in KeyType::ALL {
        let token = site.token(name, &Options::default());
        for _ in 0..2 {
            let answer = csrattrs(&site, "csrattrs", &basic(name, &token));
            assert_eq!(answer.status, 200, "{}", answer.body);
            let der = Base64::decode_vec(&answer.body.replace('\n', "")).unwrap();
            assert_eq!(der, csr::attributes(key).unwrap(), "{name}");
        }
    }
    // It spent nothing and booked nothing: a CSR as openssl reads the answer is signed with the same token.
    let token = site.token("p384", &Options::default());
    let answer = csrattrs(&site, "csrattrs", &basic("p384", &token));
    let file = site.dir.path().join("csrattrs");
    std::fs::write(&file, Base64::decode_vec(&answer.body.replace('\n', "")).unwrap()).unwrap();
    let shown = run("openssl", &["asn1parse", "-inform", "DER", "-in", file.to_str().unwrap()]);
    let objects: Vec<&str> = shown.lines().filter_map(|line| Some(line.split_once("OBJECT            :")?.1)).collect();
    assert_eq!(objects, ["id-ecPublicKey", "secp384r1", "ecdsa-with-SHA384"], "{shown}");
    let payloads = KeyType::ALL.len() + 1;
    assert_eq!(site.state().store.log(100).unwrap().len(), lines + payloads);
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha384"];
    site.verified(&site.enroll(Some(("p384", &token)), &site.csr_for(&key, "/CN=p384", &[])));
}

#[test]
fn attributes_are_for_nobody_with_wrong_credentials() {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options::default());
    let lines = site.state().store.log(100).unwrap().len();
    let unknown = "no payload was made with this name and token; make one with imprint-host payload\n";
    for (name, token) in [("node1", "wrong"), ("node9", token.as_str()), ("", "")] {
        let answer = csrattrs(&site, "csrattrs", &basic(name, token));
        assert_eq!((answer.status, answer.body.as_str()), (401, unknown));
        assert_eq!(answer.header("WWW-Authenticate"), Some("Basic realm=\"imprint\", charset=\"UTF-8\""));
    }
    let answer = csrattrs(&site, "csrattrs", "Authorization: Bearer x\r\n");
    assert_eq!((answer.status, answer.body.as_str()), (400, "want Authorization: Basic with node name and token\n"));
    let expiry = site.clock().plus(DAY);
    site.pass(DAY);
    let answer = csrattrs(&site, "csrattrs", &basic("node1", &token));
    let want = format!("payload expired at {expiry}, it is {expiry}; make another with imprint-host payload\n");
    assert_eq!((answer.status, answer.body), (403, want));
    assert_eq!(site.state().store.log(100).unwrap().len(), lines, "the audit log is for what was decided");
    let answer = site.post("csrattrs", "", b"");
    assert_eq!(answer.status, 405);
    assert_eq!(answer.body, "GET cacerts and csrattrs, POST simpleenroll and simplereenroll\n");
}

/// Whoever renews has no token any more, but a certificate.
#[test]
fn attributes_for_whoever_shows_a_certificate() {
    let site = started(&records());
    let token = site.token("ed25519", &Options::default());
    let csr = site.csr_for(&["-newkey", "ed25519"], "/CN=ed25519", &[]);
    site.verified(&site.enroll(Some(("ed25519", &token)), &csr));
    let issued = site.state().store.latest("ed25519").unwrap().0.unwrap();
    let State { ca, mut store, urls } = site.state();
    let changes = store.changes().unwrap();
    let desk = Desk { changes: &changes, ca: &ca, urls: &urls, now: site.clock() };
    let asked = |der: &[u8]| key_wanted(&desk, None, Some(der)).unwrap();
    assert_eq!(asked(&issued.der), Ok::<_, Refusal>(KeyType::Ed25519));
    assert_eq!(asked(ca.root().der()), Ok(KeyType::P256), "not a node's");
}

/// For clients that stop at the first line break.
#[test]
fn answers_on_one_line() {
    let site = start_with(&[NODE], Layout::OneLine);
    let token = site.token("node1", &Options::default());
    let issued = site.enroll(Some(("node1", &token)), &site.good());
    site.verified(&issued);
    let (ca_certs, attributes) = (site.get("/.well-known/est/cacerts"), csrattrs(&site, "csrattrs", ""));
    for answer in [issued, ca_certs, attributes] {
        assert_eq!(answer.header("Content-Length").unwrap(), answer.body.len().to_string());
        assert!(!answer.body.contains('\n'), "{}", answer.body);
        assert!(Base64::decode_vec(&answer.body).unwrap().starts_with(&[0x30]));
    }
}

/// Byte for byte: cisco/libest's client looks for its challenge with strncmp, letter case and all.
#[test]
fn the_challenge_is_spelled_as_rfc_9110_has_it() {
    let site = start(&[NODE]);
    let nobody = site.enroll(None, &site.good());
    let stranger = site.send(
        format!(
            "GET /.well-known/est/csrattrs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n",
            basic("node1", "wrong")
        )
        .as_bytes(),
    );
    for answer in [nobody, stranger] {
        assert_eq!(answer.status, 401);
        let challenge = "\r\nWWW-Authenticate: Basic realm=\"imprint\", charset=\"UTF-8\"";
        assert!(answer.head.contains(challenge), "{}", answer.head);
        assert_eq!(answer.head.to_lowercase().matches("www-authenticate").count(), 1);
        // All other names are as they were.
        assert!(answer.head.contains("\r\nContent-Length: ") && answer.head.contains("\r\nDate: "), "{}", answer.head);
    }
}

#[test]
fn every_answer_has_the_date_of_the_given_clock() {
    let site = start(&[NODE]);
    site.now.store(site.clock().as_secs() + 2 * 86_400, Ordering::SeqCst);
    for path in ["/.well-known/est/cacerts", "/.well-known/est/nodes/cacerts", "/"] {
        let answer = site.get(path);
        let date = answer.header("Date").unwrap().to_owned();
        let seconds = run("date", &["-u", "-d", &date, "+%s"]);
        assert_eq!(seconds.trim(), site.clock().as_secs().to_string(), "{path}");
    }
}

#[test]
fn ca_certs_are_root_and_intermediate() {
    let site = start(&[NODE]);
    let answer = site.get("/.well-known/est/cacerts");
    assert_eq!(answer.status, 200);
    let state = site.state();
    let want = est::certs_only(&[state.ca.root().der(), state.ca.intermediate()]).unwrap();
    assert_eq!(answer.body, est::encoded(&want, Layout::Wrapped));
}
