//! Tests of a node whose report is lost: the host knows from its store that the node has its certificate, or says that it
//! does not know.

use imprint_host::csr::Csr;
use imprint_host::enrol::{Answer, Credentials, Proof, Request, simple_enroll};

use super::*;

const LOST: &str = "; it has its certificate, and its report was lost\n";

/// Nobody listens on the line any more.
fn closed(site: &Site) {
    std::fs::remove_file(site.work.path().join("line")).unwrap();
}

#[test]
fn a_node_that_falls_silent_with_its_certificate_is_done() {
    let site = Site::new();
    let inject = site.inject_for("60s", &[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::Mute);
    node.run(|node| node.certificates.is_some());
    // The line stays open, and nothing more is said on it.
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains(&format!("node1: done: key {}, payload ", node.code)) && told.contains(LOST), "{told}");
}

#[test]
fn a_line_that_is_closed_behind_the_certificate_is_waited_for_but_not_without_an_end() {
    let site = Site::new();
    let inject = site.inject_for("600s", &[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::Mute);
    node.run(|node| node.certificates.is_some());
    closed(&site);
    drop(node.stream);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("node1: line lost: ") && told.contains(LOST), "{told}");
}

/// It was signed, and may never have arrived.
#[test]
fn a_certificate_that_was_not_acknowledged_is_not_believed_to_be_there() {
    let site = Site::new();
    let inject = site.inject_for("12s", &[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::None);
    node.run(|node| node.wire.end().stage() == Stage::Request);
    let start = Instant::now();
    while !site.events().contains(&"enrolled".to_owned()) {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing was signed");
        std::thread::sleep(Duration::from_millis(50));
    }
    closed(&site);
    drop(node.stream);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("node1: failed: ") && !told.contains(LOST), "{told}");
}

/// It says that it has failed; only the reason is lost.
#[test]
fn a_node_that_fails_behind_its_certificate_has_failed() {
    let site = Site::new();
    let inject = site.inject_for("60s", &[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::HandOver);
    node.run(|node| node.certificates.is_some());
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1), "{told}");
    let want = "node1: failed: the node says: it has failed, and why is lost; look at its console\n";
    assert!(told.contains(want), "{told}");
}

/// What it was given is gone with its memory.
#[test]
fn a_node_that_starts_again_behind_its_certificate_is_not_done() {
    let site = Site::new();
    let inject = site.inject_for("60s", &[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::Mute);
    node.run(|node| node.certificates.is_some());
    let mut again = Remote::new(node.stream, UUID, Twist::None);
    again.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("node1: failed: a second line key, "), "{told}");
}

/// The books have a certificate for the payload that came down this line.
#[test]
fn a_node_that_enrolled_over_the_network_and_falls_silent_is_done() {
    for books in [true, false] {
        let site = Site::new();
        let inject = site.inject_for(if books { "60s" } else { "12s" }, &[]);
        let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::Network);
        node.run(|node| node.over_network.is_some());
        let (token, csr) = node.over_network.take().unwrap();
        if books {
            let credentials = Some(Credentials { name: "node1".to_owned(), proof: Proof::Token(token) });
            let csr = Csr::parse(&csr);
            let asked = Request { csr: csr.as_ref(), credentials: credentials.as_ref(), peer: "192.0.2.1" };
            let answer = site.state().decide(Timestamp::system(), |desk| simple_enroll(desk, &asked)).unwrap().answer;
            assert!(matches!(answer, Answer::Issued { .. }));
        }
        let (code, told) = ended(inject);
        assert_eq!(code, Some(if books { 0 } else { 1 }), "{told}");
        assert_eq!(told.contains(LOST), books, "{told}");
    }
}

/// The host's last acknowledgement is lost: it has heard enough.
#[test]
fn a_host_that_is_not_heard_any_more_is_done() {
    let site = Site::new();
    let inject = site.inject_for("60s", &[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::None);
    node.run(|node| node.certificates.is_some());
    // Its report went with the last poll; what comes back is not read.
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("node1: done: ") && !told.contains(LOST), "{told}");
}
