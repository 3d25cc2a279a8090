//! Tests of who is let in at a door: by an administrator, by a rule, and who is not. Each test states the attack or the
//! accident first. Asks the state as the server's desk does, without sockets.

use crate::support::door;

use std::time::Duration;

use door::{DAY, Door, HOUR, MINUTE, Says, code, spoken};
use imprint::key_code::KeyCode;
use imprint_host::admission::{Admission, Facts, Level, QUIET, RECENT};
use imprint_host::compose::Options;
use imprint_host::state::{AdmitError, CALLERS};
use imprint_host::store::AdmissionKeyRow;
use rusqlite::Connection;

const S1: Says = Says { serial: Some("SN-1"), ..Says::NOTHING };
const S2: Says = Says { serial: Some("SN-2"), ..Says::NOTHING };
/// A virtual machine, and its record.
const S3: Says = Says { serial: Some("SN-3"), ..Says::NOTHING };
const VM3: &str = "name = \"vm3\"\nsubject = [\"CN=vm3\"]\nadmit = \"wire\"\nbind = { cid = 3, serial = \"SN-3\" }\n";

fn bound(rule: &str) -> [String; 2] {
    let record = |n: u8, rule: &str| {
        format!("name = \"node{n}\"\nsubject = [\"CN=node{n}\"]\n{rule}\nbind = {{ serial = \"SN-{n}\" }}\n")
    };
    [record(1, rule), record(2, "")]
}

fn cid(cid: u32) -> Facts {
    Facts { cid: Some(cid), ..Facts::default() }
}

/// At every boot: the yes for one key is none for the next, and none for whoever says the same.
#[test]
fn an_administrator_lets_in_one_key() {
    let door = Door::new(&bound(""));
    let node = door.caller(1, S1);
    assert!(door.waits(&node));
    door.pass(DAY - HOUR);
    assert!(door.waits(&node), "for days, as long as it calls");
    door.pass(DAY - HOUR);
    assert_eq!(door.admit(&node, None).unwrap().node, "node1");
    assert_eq!(door.call(&node), spoken("node1", Level::Approved));
    // It lost its line, or serve was started again.
    door.reopen();
    assert_eq!(door.call(&node), spoken("node1", Level::Approved));
    assert!(door.waits(&door.caller(2, S1)), "the next boot, or somebody else");
    assert!(door.log().contains(&format!(
        "admitted node1: level approved, line key {}, says serial number \"SN-1\", the door knows nothing",
        code(&node)
    )));
}

/// The attack: somebody calls as node1 before node1 does, and while node1 waits.
#[test]
fn a_forged_hello_locks_nobody_out() {
    let door = Door::new(&bound(""));
    let (forged, node, late) = (door.from(1, S1, "203.0.113.66"), door.caller(2, S1), door.from(3, S1, "203.0.113.66"));
    for caller in [&forged, &node, &late] {
        assert!(door.waits(caller));
    }
    let listed = door.listed();
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|row| row.nodes == ["node1"]));
    let text = door.text();
    for caller in [&forged, &node, &late] {
        assert!(text.contains(&format!("node1 waits at the door: line key {} from {}", code(caller), caller.from)));
    }
    // The administrator picks by the code on the node's console.
    let let_in = door.admit(&node, None).unwrap();
    assert_eq!(let_in.denied, [code(&forged), code(&late)]);
    assert_eq!(door.call(&node), spoken("node1", Level::Approved));
    for caller in [&forged, &late] {
        assert!(matches!(door.call(caller), Admission::Refused { .. }));
    }
}

/// The attack: the line key of a HELLO can be heard, so somebody says other things with it. Only its holder can open what is
/// sealed for it; but the code must still let the node in, and the lie must not be learnt.
#[test]
fn a_hello_with_the_nodes_key_and_other_words() {
    let [_, node2] = bound("");
    let once = "name = \"node1\"\nsubject = [\"CN=node1\"]\nadmit = \"approve-once\"\n".to_owned();
    for (records, taken_in) in [(bound("admit = \"approve-once\""), false), ([once, node2], true)] {
        let door = Door::new(&records);
        let (node, liar) = (door.caller(1, S1), door.from(1, Says { serial: Some("SN-3"), ..S1 }, "203.0.113.66"));
        assert!(door.waits(&liar) && door.waits(&node));
        assert_eq!(door.listed().len(), 2, "nothing is put together");
        let named = door.admit(&node, None);
        assert!(matches!(named, Err(AdmitError::Several { .. } | AdmitError::Unknown(_))), "{named:?}");
        door.admit(&node, Some("node1")).unwrap();
        assert_eq!(door.call(&node), spoken("node1", Level::Approved));
        // Where the record has no word, the code is all that there is: what leaves is sealed for that key.
        let expected = if taken_in { Some(spoken("node1", Level::Approved)) } else { None };
        assert_eq!(Some(door.call(&liar)).filter(|answer| matches!(answer, Admission::Admitted { .. })), expected);
        // The next boot: of neither anything was learnt.
        for says in [S1, Says { serial: Some("SN-3"), ..S1 }] {
            let next = door.caller(9, says);
            door.waits(&next);
            door.pass(RECENT);
            assert!(door.waits(&next), "{says:?}");
        }
    }
}

/// The attack: one node says two serial numbers, in two HELLOs.
#[test]
fn two_hellos_are_two_callers() {
    let door = Door::new(&bound("admit = \"known\""));
    let (one, two) = (door.caller(1, S1), door.caller(1, S2));
    door.settle(&one);
    assert_eq!(door.call(&one), spoken("node1", Level::Known));
    assert!(door.waits(&two), "node2 is approved at every boot");
    let rows = door.listed();
    assert_eq!(rows.iter().map(|row| row.nodes.clone()).collect::<Vec<_>>(), [["node1"], ["node2"]]);
    // One code, two nodes: the administrator has to say which.
    assert!(matches!(door.admit(&two, None), Err(AdmitError::Several { nodes, .. }) if nodes == ["node1", "node2"]));
    assert!(matches!(door.admit(&two, Some("node2")), Err(AdmitError::Already { node, .. }) if node == "node1"));
}

#[test]
fn two_records_that_name_one_machine() {
    let text = |n: u8, bind: &str| {
        format!("name = \"node{n}\"\nsubject = [\"CN=node{n}\"]\nadmit = \"known\"\nbind = {bind}\n")
    };
    let door = Door::new(&[text(1, "{ serial = \"SN-1\" }"), text(2, "{ macs = [\"02:00:00:00:00:01\"] }")]);
    let node = door.caller(1, Says { macs: &[[2, 0, 0, 0, 0, 1]], ..S1 });
    door.settle(&node);
    assert!(door.waits(&node));
    assert!(door.text().contains("node1 or node2 waits at the door"), "{}", door.text());
    assert!(door.text().contains("the records node1 and node2 all name this machine"), "{}", door.text());
    assert!(matches!(door.admit(&node, None), Err(AdmitError::Several { nodes, .. }) if nodes == ["node1", "node2"]));
    door.admit(&node, Some("node2")).unwrap();
    assert_eq!(door.call(&node), spoken("node2", Level::Approved));
}

#[test]
fn an_unknown_machine_waits_and_is_bound() {
    let text = "name = \"node1\"\nsubject = [\"CN=node1\"]\nadmit = \"approve-once\"\n".to_owned();
    let door = Door::new(&[text, bound("")[1].clone()]);
    let says = Says { serial: Some("SN-9"), macs: &[[2, 0, 0, 0, 0, 9]], uuid: Some([9; 16]) };
    let node = door.caller(1, says);
    assert!(door.waits(&node));
    let text = door.text();
    assert!(
        text.starts_with(&format!(
            "an unknown machine waits at the door: line key {} from tcp:192.0.2.1:",
            code(&node)
        ))
    );
    assert!(text.contains(
        "says UUID 09090909-0909-0909-0909-090909090909, serial number \"SN-9\", MAC address 02:00:00:00:00:09: no record \
         names this machine; compare the code with its console"
    ));
    assert!(matches!(door.admit(&node, None), Err(AdmitError::Unknown(_))));
    assert!(matches!(door.admit(&node, Some("node7")), Err(AdmitError::NoSuchNode(_))));
    // Not as a node whose record names another machine: it would refuse its payload.
    let other = door.admit(&node, Some("node2")).unwrap_err().to_string();
    assert!(other.starts_with(
        "the record of node2 names another machine: its serial number is \"SN-2\", the caller says \"SN-9\""
    ));
    assert!(door.waits(&node));
    door.admit(&node, Some("node1")).unwrap();
    assert_eq!(door.call(&node), spoken("node1", Level::Approved));
    door.serve(&node, "node1");
    door.pass(RECENT);
    // The next boot says the same.
    let next = door.caller(2, says);
    door.settle(&next);
    assert_eq!(door.call(&next), spoken("node1", Level::ApprovedOnce));
    door.serve(&next, "node1");
    door.pass(RECENT);
    // The attack: one word less, or over another kind of line.
    for other in [door.caller(3, Says { uuid: None, ..says }), door.over(4, says, "vsock:7")] {
        door.settle(&other);
        assert!(door.waits(&other));
    }
}

#[test]
fn a_window_lets_in_one_node_once() {
    let door = Door::new(&bound("admit = \"armed\""));
    let early = door.caller(1, S1);
    assert!(door.waits(&early), "no window");
    door.pass(DAY);
    door.arm("node1", 10 * MINUTE).unwrap();
    let node = door.caller(2, S1);
    door.settle(&node);
    assert_eq!(door.call(&node), spoken("node1", Level::Armed));
    // It is used: not by a second key, neither before the delivery nor after it.
    let second = door.caller(3, S1);
    door.settle(&second);
    assert!(door.waits(&second));
    assert_eq!(door.call(&node), spoken("node1", Level::Armed), "the same key, after its line was lost");
    door.serve(&node, "node1");
    door.settle(&second);
    assert!(door.waits(&second));
    assert!(door.state().store.window("node1").unwrap().is_none());
    // Another window, too late.
    assert_eq!(door.deny(&second), 1);
    door.arm("node1", 10 * MINUTE).unwrap();
    door.pass(10 * MINUTE);
    let late = door.caller(4, S1);
    door.settle(&late);
    assert!(door.waits(&late));
    assert!(matches!(door.arm("node2", MINUTE), Err(AdmitError::NotArmed { .. })));
    assert!(matches!(door.arm("node7", MINUTE), Err(AdmitError::NoSuchNode(_))));
}

/// The attack: within the window somebody calls first, and answers first.
#[test]
fn two_keys_within_a_window() {
    let door = Door::new(&bound("admit = \"armed\""));
    door.arm("node1", 10 * MINUTE).unwrap();
    let (forged, node) = (door.from(1, S1, "203.0.113.66"), door.caller(2, S1));
    assert!(door.waits(&forged));
    door.pass(QUIET - Duration::from_millis(1));
    assert!(door.waits(&node));
    for _ in 0..10 {
        door.settle(&forged);
        door.settle(&node);
        assert!(door.waits(&forged) && door.waits(&node));
    }
    // One hangs up: the other is still not believed.
    door.pass(5 * MINUTE);
    assert!(door.waits(&forged));
    door.admit(&node, None).unwrap();
    assert_eq!(door.call(&node), spoken("node1", Level::Approved));
    assert!(matches!(door.call(&forged), Admission::Refused { .. }));
}

/// Instead of picking one, the administrator denies the other: then the window does its work.
#[test]
fn a_denied_rival_is_none() {
    let door = Door::new(&bound("admit = \"armed\""));
    door.arm("node1", 10 * MINUTE).unwrap();
    let (forged, node) = (door.from(1, S1, "203.0.113.66"), door.caller(2, S1));
    assert!(door.waits(&forged) && door.waits(&node));
    assert_eq!(door.deny(&forged), 1);
    door.settle(&node);
    assert_eq!(door.call(&node), spoken("node1", Level::Armed));
    assert!(matches!(door.call(&forged), Admission::Refused { .. }));
    assert_eq!(door.deny(&forged), 0, "once");
    // A slip: whom somebody has denied can still be let in by its code.
    let door = Door::new(&bound(""));
    let node = door.caller(1, S1);
    door.waits(&node);
    door.deny(&node);
    door.admit(&node, None).unwrap();
    assert_eq!(door.call(&node), spoken("node1", Level::Approved));
}

/// The attack: the node has its certificate, just now or in use since; somebody calls with its words. Nothing of the node is
/// replaced.
#[test]
fn a_running_node_is_not_replaced() {
    for rule in ["admit = \"known\"", "admit = \"approve-once\""] {
        let door = Door::new(&bound(rule));
        let node = door.caller(1, S1);
        door.waits(&node);
        door.admit(&node, None).unwrap();
        let certificate = door.serve(&node, "node1");
        let thief = door.from(2, S1, "203.0.113.66");
        door.settle(&thief);
        assert!(door.waits(&thief), "{rule}");
        assert!(door.text().contains("a certificate of node1 was issued or shown at"), "{}", door.text());
        // The premise: when it was not in use for a while, words are enough.
        door.pass(RECENT);
        assert!(matches!(door.call(&thief), Admission::Admitted { .. }), "{rule}");
        door.deny(&thief);
        // One in a payload that lies in a drawer is not in use.
        let options = Options { credentials: true, keep: true, ..Options::default() };
        door.state().payload("node1", &options, door.now()).unwrap();
        let early = door.from(9, S1, "203.0.113.66");
        door.settle(&early);
        assert!(matches!(door.call(&early), Admission::Admitted { .. }), "{rule}");
        door.deny(&early);
        // It is shown again and again.
        door.show(&certificate);
        let thief = door.from(3, S1, "203.0.113.66");
        door.settle(&thief);
        assert!(door.waits(&thief), "{rule}");
        door.pass(RECENT - MINUTE);
        door.show(&certificate);
        door.pass(RECENT - MINUTE);
        assert!(door.waits(&thief), "{rule}");
        assert_eq!(door.live("node1"), 2);
        // The node is gone, and comes back.
        door.pass(MINUTE);
        assert!(matches!(door.call(&thief), Admission::Admitted { .. }), "{rule}");
    }
}

#[test]
fn what_the_hypervisor_knows() {
    let record = VM3.to_owned();
    let door = Door::new(&[record, bound("admit = \"known\"")[0].clone()]);
    let vm = door.knows(1, S3, "vsock:3", cid(3));
    assert_eq!(door.call(&vm), spoken("vm3", Level::Wire), "at once");
    // It starts again.
    assert_eq!(door.call(&door.knows(2, S3, "vsock:3", cid(3))), spoken("vm3", Level::Wire));
    // The attack: the machine passes on the call of node1, or says nothing of a machine. And somebody on the network says that it is
    // the virtual machine.
    for says in [S1, Says::NOTHING] {
        assert!(door.waits(&door.knows(3, says, "vsock:3", cid(3))));
    }
    for says in [Says::NOTHING, S3, Says { serial: Some("vm3"), ..S1 }, Says { serial: Some("3"), ..S1 }] {
        let caller = door.caller(4, says);
        door.settle(&caller);
        assert!(door.waits(&caller));
    }
    assert!(door.waits(&door.knows(5, S3, "vsock:4", cid(4))));
    assert!(door.text().contains("the door knows vsock CID 4"));
}

#[test]
fn an_admission_key() {
    let rule = "admit = \"key\"\nadmission_key = [\"rack-7\", \"BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=\"]";
    let door = Door::new(&bound(rule));
    let shows = |number: u8, keys: &[u8]| imprint_host::admission::Caller {
        keys: keys.iter().map(|key| [*key; 32]).collect(),
        ..door.caller(number, S1)
    };
    assert!(door.waits(&shows(1, &[7])), "this host knows no key of the name rack-7");
    door.key("rack-7", 7, false);
    assert_eq!(door.call(&shows(1, &[7])), spoken("node1", Level::Stick), "by this host's list");
    // Nobody has said where the key lies that the record gives itself, so everybody may have it.
    assert_eq!(door.call(&shows(2, &[5])), spoken("node1", Level::ImageKey));
    // With two sticks, the one that the record names lets the node in.
    assert_eq!(door.call(&shows(7, &[8, 7])), spoken("node1", Level::Stick));
    // The proof comes after HELLO: until then no line of the log.
    let lines = door.lines("waits");
    let node = shows(6, &[]);
    assert!(door.waits(&node) && door.lines("waits") == lines);
    assert_eq!(door.call(&shows(6, &[5])), spoken("node1", Level::ImageKey));
    // The attack: no key, somebody else's key, and the right key with other words.
    for (number, shown) in [(3, &[][..]), (4, &[8])] {
        door.settle(&shows(number, shown));
        assert!(door.waits(&shows(number, shown)));
    }
    assert!(
        door.text().contains(&KeyCode::of(&[8; 32]).to_string()),
        "the key that was shown is named: {}",
        door.text()
    );
    door.key("rack-8", 8, false);
    assert!(door.waits(&shows(4, &[8])), "a key of another rack");
    let other = imprint_host::admission::Caller { keys: vec![[5; 32]], ..door.caller(5, S2) };
    assert!(door.waits(&other));
}

/// Names of keys are taken once, and so are keys.
#[test]
fn admission_keys_by_name() {
    let door = Door::new(&bound(""));
    let row = |name: &str, public: u8| AdmissionKeyRow {
        name: name.to_owned(),
        public: [public; 32],
        in_image: false,
        made_at: door.now(),
    };
    let mut state = door.state();
    let changes = state.store.changes().unwrap();
    for (row, is_new) in [(row("a", 1), true), (row("a", 2), false), (row("b", 1), false), (row("b", 2), true)] {
        assert_eq!(changes.put_admission_key(&row).unwrap(), is_new, "{row:?}");
    }
    assert_eq!(changes.admission_keys().unwrap(), [row("a", 1), row("b", 2)]);
    assert!(changes.drop_admission_key("a").unwrap() && !changes.drop_admission_key("a").unwrap());
    assert_eq!(changes.admission_key_of(&[1; 32]).unwrap(), None);
}

/// The attack: one source says HELLO as often as it can. The node's place stays, and the log does not grow with it.
#[test]
fn a_flood_takes_places_from_itself_only() {
    let door = Door::new(&bound(""));
    let node = door.caller(1, S1);
    assert!(door.waits(&node));
    door.fill("203.0.113.66", CALLERS);
    let flood = |number: u8| door.from(number, Says { serial: Some("X"), ..S1 }, "203.0.113.66");
    for number in 10..60 {
        assert!(door.waits(&flood(number)), "who calls is served, and its own source's oldest goes");
    }
    let listed = door.listed();
    assert!(listed.len() <= CALLERS + 1, "{}", listed.len());
    assert!(listed.iter().any(|row| row.code == code(&node)), "the node was there first, and calls from elsewhere");
    // A node that comes later has a place, too.
    let late = door.from(2, S2, "192.0.2.2");
    assert!(door.waits(&late));
    assert!(door.listed().iter().any(|row| row.code == code(&late)));
    door.admit(&node, None).unwrap();
    door.admit(&late, None).unwrap();
    assert!(door.lines("waits") <= 33, "{}", door.lines("waits"));
    // All is forgotten a day later, but for what was decided and is asked about.
    door.pass(DAY);
    assert!(door.waits(&door.caller(3, S1)));
    assert_eq!(door.listed().len(), 1);
}

/// Thousands wait, and each is asked about whenever the store changes: that must not change the store.
#[test]
fn a_call_that_changes_nothing_writes_nothing() {
    let door = Door::new(&bound("admit = \"armed\""));
    let callers = [door.caller(1, S1), door.caller(2, S2), door.caller(3, Says::NOTHING)];
    callers.iter().for_each(|caller| assert!(door.waits(caller)));
    door.pass(MINUTE);
    callers.iter().for_each(|caller| assert!(door.waits(caller)));
    let other = Connection::open(door.path()).unwrap();
    let version = || other.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0)).unwrap();
    let before = version();
    for _ in 0..3 {
        callers.iter().for_each(|caller| assert!(door.waits(caller)));
    }
    assert_eq!(version(), before);
    // Now and then it is noted that they still call, or they would be forgotten.
    door.pass(HOUR);
    assert!(door.waits(&callers[0]));
    assert_ne!(version(), before);
}

/// The attack: somebody calls in order to learn what a record says. The node's console gets the same words whoever it is.
#[test]
fn a_caller_learns_nothing_of_any_record() {
    let vm = "name = \"node3\"\nsubject = [\"CN=node3\"]\nadmit = \"wire\"\nbind = { tap = \"tap-3\", uuid = \
              \"03030303-0303-0303-0303-030303030303\", macs = [\"02:00:00:00:00:03\"] }\n";
    for rule in ["", "admit = \"armed\"", "admit = \"known\"", "admit = \"approve-once\""] {
        let [one, two] = bound(rule);
        let door = Door::new(&[one, two, vm.to_owned()]);
        let says = [
            S1,
            S2,
            Says { serial: Some("SN-9"), ..S1 },
            Says { macs: &[[2, 0, 0, 0, 0, 3]], ..S1 },
            Says { macs: &[[2, 0, 0, 0, 0, 3]], ..Says::NOTHING },
            Says { uuid: Some([3; 16]), ..S2 },
            Says::NOTHING,
        ];
        for (number, says) in (1..).zip(says) {
            let caller = door.caller(number, says);
            for _ in 0..2 {
                let Admission::Waits { why, code: shown, .. } = door.call(&caller) else { continue };
                assert_eq!(shown.to_string(), code(&caller));
                let words = [
                    "an administrator must compare the codes, and admit this node",
                    "a moment, to see who else calls and with what",
                ];
                assert!(words.contains(&why.as_str()), "{why}");
                // The node shows them, and never a code that somebody else has given it.
                assert!(!imprint::key_code::may_hold_a_code(&why), "{why}");
                door.pass(QUIET);
            }
        }
    }
}

/// The accident: without this, a rule would at once give a new certificate to a machine that somebody has just revoked.
#[test]
fn a_revoked_node_is_let_in_by_an_administrator_only() {
    for (rule, facts) in [("admit = \"known\"", Facts::default()), ("admit = \"armed\"", Facts::default())] {
        let door = Door::new(&bound(rule));
        if rule.contains("armed") {
            door.arm("node1", HOUR).unwrap();
        }
        let node = imprint_host::admission::Caller { facts, ..door.caller(1, S1) };
        door.settle(&node);
        assert!(matches!(door.call(&node), Admission::Admitted { .. }), "{rule}");
        door.serve(&node, "node1");
        door.revoke("node1");
        assert!(door.waits(&node), "{rule}: the boot that was let in");
        let next = door.caller(2, S1);
        door.settle(&next);
        door.pass(HOUR);
        assert!(door.waits(&next), "{rule}: and the next one");
        assert!(door.text().contains("the certificates of node1 were revoked at") || rule.contains("armed"));
        door.admit(&next, None).unwrap();
        door.serve(&next, "node1");
        door.pass(HOUR);
        if rule.contains("armed") {
            door.arm("node1", HOUR).unwrap();
        }
        let third = door.caller(3, S1);
        door.settle(&third);
        assert!(matches!(door.call(&third), Admission::Admitted { .. }), "{rule}");
    }
}

#[test]
fn a_new_record_ends_what_the_old_one_let_in() {
    let door = Door::new(&bound("admit = \"known\""));
    let (node, other) = (door.caller(1, S1), door.caller(2, S2));
    door.settle(&node);
    assert!(matches!(door.call(&node), Admission::Admitted { .. }));
    door.waits(&other);
    door.admit(&other, None).unwrap();
    door.replace(&bound(""));
    assert!(door.waits(&node), "the rule is gone");
    assert_eq!(door.call(&other), spoken("node2", Level::Approved), "an administrator's word stays");
}

/// The accident: a node in a boot loop; or somebody who calls with its words again and again.
#[test]
fn a_rule_has_a_limit_and_an_administrator_has_none() {
    let record = VM3.to_owned();
    let door = Door::new(&[record]);
    let boots = (1..=40).map(|number| door.knows(number, S3, "vsock:3", cid(3)));
    let let_in: Vec<_> = boots.filter(|boot| matches!(door.call(boot), Admission::Admitted { .. })).collect();
    assert_eq!(let_in.len(), 20);
    let more = door.knows(50, S3, "vsock:3", cid(3));
    assert!(door.waits(&more));
    door.admit(&more, None).unwrap();
    assert_eq!(door.call(&more), spoken("vm3", Level::Approved));
    door.pass(HOUR);
    assert_eq!(door.call(&door.knows(60, S3, "vsock:3", cid(3))), spoken("vm3", Level::Wire));
}
