//! Tests of a node's report, and of what the host believes of it: a report is not authenticated.

use super::*;

const NO_CERTIFICATE: &str = "but this host has issued no certificate for that key; does another host, or somebody else, write to the \
                              line? Compare the key on the node's console\n";

#[test]
fn a_node_that_is_done_without_a_certificate_is_not_done() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::Claims);
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1), "{told}");
    let want = format!("node1: failed: the node says that it is done with key AAAA-BBBB-CCCC-DDDD, {NO_CERTIFICATE}");
    assert!(told.contains(&want), "{told}");
}

/// The codes of keys are on consoles for everybody to read.
#[test]
fn a_key_of_an_earlier_payload_is_not_enough() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let mut before = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::None);
    before.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
    let inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::Claims);
    node.code.clone_from(&before.code);
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1), "{told}");
    let want = format!("node1: failed: the node says that it is done with key {}, {NO_CERTIFICATE}", before.code);
    assert!(told.contains(&want), "{told}");
}

/// Killed once the certificate is on its way: the one that is started again has not signed it.
#[test]
fn a_report_to_a_host_that_starts_again_is_believed_by_the_books() {
    let site = Site::new();
    let mut inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::None);
    node.run(|node| node.certificates.is_some());
    inject.kill().unwrap();
    inject.wait().unwrap();
    let inject = site.inject(&[]);
    node.line_again(&site);
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains(&format!("node1: done: key {}, payload 0 bytes", node.code)), "{told}");
}

#[test]
fn the_first_report_stands() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::Fails);
    node.run(|node| node.over);
    node.over = false;
    node.wire.end_mut().set_stage(Stage::Done);
    node.wire.end_mut().say(Kind::Report, report(Some("AAAA-BBBB-CCCC-DDDD")));
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("node1: failed: the node says: plan: CA CN=x is none of this site's\\u{1b}[2J\n"), "{told}");
}
