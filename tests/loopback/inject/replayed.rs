//! Tests of old console output that is replayed when a host attaches, as tmux, screen and console servers do. The frames in
//! it are real, but their node is gone.

use imprint::line::{Host, HostEvent};

use super::*;

/// A conversation of an earlier boot as a console has kept it: both ends, with the kernel's words in between.
fn recording(uuid: [u8; 16], versions: Versions) -> Vec<u8> {
    let key = LineKey::generate(&seeded()).unwrap();
    let mut node = Wire::new(Node::new(Hello { versions, ..hello(&key, uuid) }, true, Shape::default()), None);
    let mut host = Wire::new(Host::new(Nonce([4; 8]), true, Shape::default()), None);
    let mut kept = b"Linux version 6.1 #1 SMP\r\nimprint: line key\r\n".to_vec();
    for now in 0..20 {
        let said = node.poll(now);
        kept.extend(&said.bytes);
        host.push(&said.bytes, now);
        for event in said.events {
            if let NodeEvent::Object { kind: Kind::Sealed, .. } = event {
                node.end_mut().set_stage(Stage::Request);
                node.end_mut().say(Kind::Request, vec![5; 300]);
            }
        }
        let said = host.poll(now);
        kept.extend(&said.bytes);
        node.push(&said.bytes, now);
        for event in said.events {
            if let HostEvent::Opened(..) = event {
                host.end_mut().send(Kind::Sealed, vec![6; 700]);
            }
        }
    }
    kept.extend(b"[    9.000000] reboot: Restarting system\r\n");
    kept
}

/// What is repeated is taken for a node: it says HELLO, and a host answers.
#[test]
fn an_old_hello_is_a_hello() {
    let mut host = Wire::new(Host::new(Nonce([9; 8]), false, Shape::default()), None);
    host.push(&recording(UUID, Versions::OURS), 1);
    let polled = host.poll(1);
    assert!(matches!(polled.events[..], [HostEvent::Hello(_)]), "{:?}", polled.events);
    assert!(!polled.bytes.is_empty());
}

/// Several boots, of another mainboard, too, and of a release that speaks another version.
#[test]
fn a_console_that_repeats_earlier_boots_blocks_nobody() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let (mut stream, _) = site.listener.accept().unwrap();
    let foreign = Versions { lowest: 2, highest: 2 };
    for (uuid, versions) in [([8; 16], Versions::OURS), (UUID, foreign), (UUID, Versions::OURS), (UUID, Versions::OURS)]
    {
        stream.write_all(&recording(uuid, versions)).unwrap();
    }
    let mut node = Remote::new(stream, UUID, Twist::None);
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains(&format!("node1: done: key {}, payload ", node.code)), "{told}");
    assert_eq!(site.events().iter().filter(|event| *event == "payload").count(), 1);
}

/// The node has said HELLO already, and has not answered yet.
#[test]
fn an_old_hello_behind_the_live_one_does_not_take_its_place() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::None);
    let live = node.wire.poll(1).bytes;
    node.stream.write_all(&[live, recording(UUID, Versions::OURS)].concat()).unwrap();
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
}

/// A line that breaks is opened again, and all of it is repeated once more, in the middle of a conversation.
#[test]
fn what_is_repeated_in_the_middle_does_not_end_a_conversation() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let old = recording(UUID, Versions::OURS);
    let (mut stream, _) = site.listener.accept().unwrap();
    stream.write_all(&old).unwrap();
    let mut node = Remote::new(stream, UUID, Twist::None);
    node.run(|node| node.wire.end().stage() == Stage::Request);
    node.stream.shutdown(std::net::Shutdown::Both).unwrap();
    let (mut stream, _) = site.listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    stream.write_all(&old).unwrap();
    node.stream = stream;
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("node1: line lost: "), "{told}");
}

/// It goes on saying so: it is there.
#[test]
fn a_node_that_speaks_another_version_is_told_of() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::None);
    let other = Hello { versions: Versions { lowest: 2, highest: 3 }, ..hello(&node.key, UUID) };
    node.wire = Wire::new(Node::new(other, true, Shape::default()), None);
    node.run(|_| false);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1), "{told}");
    let want = "node1: failed: the node speaks versions 2 to 3 of the line protocol, and this program does not; bring both \
                to the same release\n";
    assert!(told.contains(want), "{told}");
}
