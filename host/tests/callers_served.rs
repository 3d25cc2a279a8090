//! Tests of what becomes of a caller at a door that was let in: what its payload may hold, its certificate, and how it is listed. Asks
//! the state as the server's desk does, without sockets.

use crate::support::door;

use door::{DAY, Door, HOUR, Says, code, spoken};
use imprint_host::admission::Level;
use imprint_host::compose::{ComposeError, Options};
use imprint_host::{list, state};

const S1: Says = Says { serial: Some("SN-1"), ..Says::NOTHING };

fn bound(rule: &str) -> [String; 2] {
    let record = |n: u8, rule: &str| {
        format!("name = \"node{n}\"\nsubject = [\"CN=node{n}\"]\n{rule}\nbind = {{ serial = \"SN-{n}\" }}\n")
    };
    [record(1, rule), record(2, "")]
}

/// Words bring a certificate for a key that the node makes, and no key that this host makes.
#[test]
fn no_private_key_for_words() {
    for (rule, level, want) in [
        ("admit = \"known\"", Level::Known, false),
        ("admit = \"known\"\nclaims_suffice = true", Level::Known, true),
        ("admit = \"approve-once\"", Level::ApprovedOnce, false),
        ("", Level::Approved, true),
    ] {
        let door = Door::new(&bound(rule));
        let options = Options { credentials: true, admitted: Some(level), ..Options::default() };
        let made = door.state().payload("node1", &options, door.now());
        match made {
            Ok(_) => assert!(want, "{rule}"),
            Err(state::Error::Compose(ComposeError::OnlyClaims { .. })) => assert!(!want, "{rule}"),
            Err(error) => panic!("{error}"),
        }
        let own = Options { admitted: Some(level), ..Options::default() };
        assert!(door.state().payload("node1", &own, door.now()).is_ok());
    }
}

/// A record that lets in by words and brings a bundle key is refused. A door has to refuse it as well: the record may be replaced
/// while a node that was let in by the old one waits for its payload.
#[test]
fn no_bundle_key_for_words() {
    let network = "[[network]]\nmatch = { any = true }\ndhcp4 = true\n";
    let named = format!("bundle_recipient = \"{}\"", imprint::age::Identity::from_bytes(&[7; 32]).recipient());
    for (level, want) in [
        (Level::Known, false),
        (Level::ApprovedOnce, false),
        (Level::Approved, true),
        (Level::Armed, true),
        (Level::Wire, true),
        (Level::Stick, true),
        (Level::ImageKey, true),
    ] {
        for (key, secret) in [("payload", true), ("image", false), ("stick", false)] {
            let [record, other] =
                bound(&format!("bundle_key = \"{key}\"\n{}", if key == "stick" { &named } else { "" }));
            let door = Door::new(&[record + network, other]);
            let options = Options { admitted: Some(level), ..Options::default() };
            match door.state().payload("node1", &options, door.now()) {
                Ok(_) => assert!(want || !secret, "{level} {key}"),
                Err(state::Error::Compose(ComposeError::BundleKeyForClaims { level: named, .. })) => {
                    assert!(!want && secret && named == level, "{level} {key}")
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The request after the delivery goes through the same gate as everybody's, and needs no second approval.
#[test]
fn one_approval_for_one_boot() {
    for mode in ["once", "each-boot"] {
        let door = Door::new(&bound(&format!("enrol = \"{mode}\"")));
        for boot in 1..4 {
            let node = door.caller(boot, S1);
            assert!(door.waits(&node));
            door.admit(&node, None).unwrap();
            door.serve(&node, "node1");
            let listed = door.listed();
            assert!(listed.is_empty(), "{listed:?}");
            door.pass(DAY);
        }
    }
}

/// The accident: the line breaks after the delivery, and the node asks over its network.
#[test]
fn a_node_that_asks_over_its_network_is_served_too() {
    let door = Door::new(&bound("admit = \"armed\""));
    door.arm("node1", HOUR).unwrap();
    let node = door.caller(1, S1);
    door.settle(&node);
    assert_eq!(door.call(&node), spoken("node1", Level::Armed));
    assert_eq!(door.listed().len(), 1);
    door.enroll("node1");
    assert_eq!(door.listed(), []);
    assert!(door.state().store.window("node1").unwrap().is_none());
}

#[test]
fn what_is_listed() {
    let door = Door::new(&bound("admit = \"known\""));
    assert_eq!(door.text(), "nobody waits at a door\n");
    let node = door.caller(1, S1);
    door.settle(&node);
    door.call(&node);
    assert!(
        door.text()
            .starts_with(&format!("node1 is let in (known), and has no certificate yet: line key {}", code(&node)))
    );
    let json = list::callers_json(&door.listed())[0].clone();
    let names: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let want =
        ["cid", "first_at", "key", "last_at", "level", "macs", "nodes", "peer", "serial", "tap", "uuid", "vm", "why"];
    assert_eq!(names, want);
    assert_eq!((&json["level"], &json["serial"]), (&"known".into(), &"SN-1".into()));
    door.serve(&node, "node1");
    let nodes = list::nodes(&door.state(), door.now()).unwrap();
    let entry = &list::nodes_json(&nodes)[0];
    assert_eq!((&entry["admitted"]["level"], &entry["admitted"]["key"]), (&"known".into(), &code(&node).into()));
    assert!(list::nodes_table(&nodes).contains(&format!("(known): line key {} from {}", code(&node), node.from)));
    assert_eq!(list::nodes_json(&nodes)[1]["admitted"], serde_json::Value::Null);
    // The attack: words that would forge lines of the list.
    let forger = door.from(2, Says { serial: Some("\u{1b}[2J\nnode2 waits"), ..S1 }, "203.0.113.66");
    door.waits(&forger);
    assert_eq!(door.text().lines().count(), 1, "{}", door.text());
    assert!(!door.text().contains('\u{1b}'));
}
