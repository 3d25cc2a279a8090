//! Tests of what administrators decide about a node while its conversation at a door is open, and of payloads that are void by the
//! time that they would be sent. Each node here was let in already.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use imprint::line::ether::frames;
use imprint::line::{Hello, LineKey, Stage, base85};
use imprint::time::Timestamp;
use imprint_host::compose::Options;
use imprint_host::enrol;
use imprint_host::serve::Server;
use imprint_host::state::Adding;
use imprint_host::x509::CrlReason;
use imprint_tests::caller::{Caller, hello, seeded};

use super::door::{Site, Stream, talk, tcp};

/// What an administrator does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deed {
    Deny,
    Revoke,
    Replace,
}

const DEEDS: [Deed; 3] = [Deed::Deny, Deed::Revoke, Deed::Replace];

fn site() -> Site {
    Site::new(&[("node1", "bind = { serial = 'S1' }\nadmit = 'known'")])
}

fn replace(site: &Site, subject: &str, more: &str) {
    let record = format!("name = \"node1\"\nsubject = [\"CN={subject}\"]\nbind = {{ serial = 'S1' }}\n{more}\n");
    let adding = Adding { replace: true, ..Adding::default() };
    site.state().add_nodes_as(&[("node1.toml".to_owned(), record)], &adding, Timestamp::system()).unwrap();
}

fn act(site: &Site, deed: Deed, node: &mut Caller) {
    // It may have been told that somebody looks who else calls.
    node.pending.clear();
    let now = Timestamp::system();
    match deed {
        Deed::Deny => assert_eq!(site.state().deny_callers(&node.code(), now).unwrap().0.len(), 1),
        Deed::Revoke => {
            // There has to be something to revoke.
            site.state().payload("node1", &Options { keep: true, ..Options::default() }, now).unwrap();
            enrol::revoke(&mut site.state().store, "node1", None, CrlReason::Superseded, now).unwrap();
        }
        Deed::Replace => replace(site, "node1.example.org", "admit = 'approve'"),
    }
}

fn is_let_in(site: &Site) -> bool {
    let callers = site.state().store.callers(Timestamp::system()).unwrap();
    callers.iter().any(|row| row.standing.level().is_some())
}

/// The same node calls again, from stage 0, and gets nothing: its console says why.
fn gets_nothing(server: &Server, deed: Deed, node: &mut Caller) {
    let had = node.payloads.len();
    node.calls_again();
    node.wire.end_mut().set_stage(Stage::Payload);
    talk(node, &mut tcp(server), |node| {
        node.refused.is_some() || !node.pending.is_empty() || node.payloads.len() > had
    });
    assert_eq!(node.payloads.len(), had, "{deed:?}");
    is_told(deed, node);
}

fn is_told(deed: Deed, node: &Caller) {
    match deed {
        Deed::Deny => assert!(
            node.refused.as_ref().is_some_and(|why| why.starts_with("an administrator has denied this line key")),
            "{:?}",
            node.refused
        ),
        Deed::Revoke | Deed::Replace => assert!(
            node.pending
                .last()
                .is_some_and(|why| why == "an administrator must compare the codes, and admit this node"),
            "{deed:?}: {:?}, {:?}",
            node.pending,
            node.refused
        ),
    }
}

/// Attack: a caller is let in, asks for nothing and stays, for days if it likes. Then an administrator ends that the node is let
/// in. The conversation ends by itself, and there is no payload for the caller.
#[test]
fn a_caller_that_was_let_in_and_stays_is_ended() {
    for deed in DEEDS {
        let site = site();
        let server = site.serve(&["tcp:127.0.0.1:0"]);
        let mut node = Caller::new("S1", &site.pin);
        node.wire.end_mut().set_stage(Stage::Busy);
        let mut stream = tcp(&server);
        assert!(talk(&mut node, &mut stream, |_| is_let_in(&site)));
        act(&site, deed, &mut node);
        assert!(!talk(&mut node, &mut stream, |_| false), "{deed:?}");
        gets_nothing(&server, deed, &mut node);
    }
}

/// Attack: the same with the payload in hand. It is of no use.
#[test]
fn a_caller_with_its_payload_gets_no_certificate() {
    for deed in DEEDS {
        let site = site();
        let server = site.serve(&["tcp:127.0.0.1:0"]);
        let mut node = Caller::new("S1", &site.pin);
        node.lazy = true;
        let mut stream = tcp(&server);
        assert!(talk(&mut node, &mut stream, |node| !node.payloads.is_empty()));
        act(&site, deed, &mut node);
        assert!(!talk(&mut node, &mut stream, |_| false), "{deed:?}");
        node.calls_again();
        node.asks();
        let mut stream = tcp(&server);
        talk(&mut node, &mut stream, |node| node.over || node.refused.is_some() || !node.pending.is_empty());
        assert!(node.certificates.is_none(), "{deed:?}");
        is_told(deed, &node);
        assert_eq!(site.events().iter().filter(|event| *event == "enrolled").count(), 0);
    }
}

/// A caller that is let in and holds its challenge back: nothing can be sent to it yet. It is told over the same connection, and
/// where it may be admitted again it goes on there.
#[test]
fn a_caller_that_holds_its_challenge_back_is_told() {
    for deed in DEEDS {
        let site = site();
        let server = site.serve(&["tcp:127.0.0.1:0"]);
        let mut node = Caller::new("S1", &site.pin);
        let mut stream = Quiet { stream: tcp(&server), is_quiet: true };
        assert!(talk(&mut node, &mut stream, |_| is_let_in(&site)));
        act(&site, deed, &mut node);
        assert!(talk(&mut node, &mut stream, |node| node.refused.is_some() || !node.pending.is_empty()), "{deed:?}");
        is_told(deed, &node);
        if deed == Deed::Deny {
            continue;
        }
        site.state().admit(&node.code(), None, Timestamp::system()).unwrap();
        stream.is_quiet = false;
        assert!(talk(&mut node, &mut stream, |node| node.over), "{deed:?}: {:?}", node.refused);
        assert_eq!(node.payloads[0].admitted(), Some("approved"));
    }
}

/// The connection of a node whose challenges are lost.
struct Quiet {
    stream: TcpStream,
    is_quiet: bool,
}

impl Write for Quiet {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        /// docs/line-protocol.md, "Frames".
        const CHALLENGE: u8 = 11;
        for text in frames(bytes) {
            let digits = text.trim_ascii().strip_prefix(b"#").and_then(base85::decode);
            let is_challenge = digits.is_some_and(|message| message[0] == CHALLENGE);
            if !(self.is_quiet && is_challenge) {
                self.stream.write_all(text)?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Read for Quiet {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Stream for Quiet {
    fn patient(&self, timeout: Duration) {
        self.stream.patient(timeout);
    }
}

/// A node that was let in, has its payload, and has lost its line.
fn left(site: &Site, server: &Server, admits: bool) -> (Caller, Arc<LineKey>, Hello) {
    let key = Arc::new(LineKey::generate(&seeded()).unwrap());
    let hello = hello(&key, "S1");
    let mut node = Caller::with(Arc::clone(&key), hello.clone(), &site.pin);
    node.lazy = true;
    let mut stream = tcp(server);
    if admits {
        assert!(talk(&mut node, &mut stream, |node| !node.pending.is_empty()));
        site.state().admit(&node.code(), None, Timestamp::system()).unwrap();
    }
    assert!(talk(&mut node, &mut stream, |node| !node.payloads.is_empty()));
    (node, key, hello)
}

/// The same machine calls again and gets its certificate, with another payload than before.
fn gets_another(site: &Site, mut stream: TcpStream, before: &Caller, (key, hello): (Arc<LineKey>, Hello)) -> Caller {
    let mut node = Caller::with(key, hello, &site.pin);
    assert!(talk(&mut node, &mut stream, |node| node.over || node.refused.is_some()));
    assert_eq!(node.refused, None);
    assert_ne!(node.payloads[0].id, before.payloads[0].id);
    node
}

/// Accident: an administrator makes a payload for a stick while the node is on its way. That makes the node's own void, and the
/// door still has it: the node would be sent a payload that is refused.
#[test]
fn a_payload_that_is_void_is_not_sent_again() {
    let site = site();
    let server = site.serve(&["tcp:127.0.0.1:0"]);
    let (node, key, hello) = left(&site, &server, false);
    site.state().payload("node1", &Options::default(), Timestamp::system()).unwrap();
    gets_another(&site, tcp(&server), &node, (key, hello));
}

/// The same over the connection that the payload came on: the node could not open it, and wants it again.
#[test]
fn nor_is_it_on_the_same_connection() {
    let site = site();
    let server = site.serve(&["tcp:127.0.0.1:0"]);
    let mut node = Caller::new("S1", &site.pin);
    node.lazy = true;
    let mut stream = tcp(&server);
    assert!(talk(&mut node, &mut stream, |node| !node.payloads.is_empty()));
    site.state().payload("node1", &Options::default(), Timestamp::system()).unwrap();
    node.lazy = false;
    node.wire.end_mut().set_stage(Stage::Payload);
    assert!(talk(&mut node, &mut stream, |node| node.over || node.refused.is_some()));
    assert!(node.refused.is_none() && node.payloads[0].id != node.payloads[1].id, "{:?}", node.refused);
}

/// Accident: the record was replaced meanwhile, and asks for another name. The administrator has admitted the node, so it stays let
/// in.
#[test]
fn a_payload_of_the_record_before_is_not_sent_again() {
    let site = Site::new(&[("node1", "bind = { serial = 'S1' }")]);
    let server = site.serve(&["tcp:127.0.0.1:0"]);
    let (node, key, hello) = left(&site, &server, true);
    replace(&site, "other.example.org", "");
    let node = gets_another(&site, tcp(&server), &node, (key, hello));
    assert!(!node.certificates.unwrap().is_empty());
}

/// `revoke`, and then `admit` with the code of the same key: the documented way back.
#[test]
fn a_node_that_is_admitted_after_revoke_gets_another_payload() {
    let site = Site::new(&[("node1", "bind = { serial = 'S1' }")]);
    let server = site.serve(&["tcp:127.0.0.1:0"]);
    let (node, key, hello) = left(&site, &server, true);
    enrol::revoke(&mut site.state().store, "node1", None, CrlReason::Superseded, Timestamp::system()).unwrap();
    site.state().admit(&node.code(), None, Timestamp::system()).unwrap();
    gets_another(&site, tcp(&server), &node, (key, hello));
}
