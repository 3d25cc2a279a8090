//! Tests of how a caller at a door stands: what ends that it is let in, and that nothing which was made for it is of use
//! afterwards. Each test states the attack or the accident first. Asks the state as the server's desk does, without sockets.

use crate::support::door;

use door::{DAY, Door, HOUR, MINUTE, Says, code, spoken};
use imprint_host::admission::{Admission, Caller, Facts, Level, RECENT};
use imprint_host::compose::Options;
use imprint_host::enrol::{Answer, Refusal};
use imprint_host::state::{AdmitError, CALLERS, Error};
use imprint_host::store::{CallerRow, Standing};
use rusqlite::Connection;

const S1: Says = Says { serial: Some("SN-1"), ..Says::NOTHING };

fn bound(rule: &str) -> [String; 2] {
    let record = |n: u8, rule: &str| {
        format!("name = \"node{n}\"\nsubject = [\"CN=node{n}\"]\n{rule}\nbind = {{ serial = \"SN-{n}\" }}\n")
    };
    [record(1, rule), record(2, "")]
}

fn standing(door: &Door, caller: &Caller) -> Option<Standing> {
    row(door, caller).map(|row| row.standing)
}

fn row(door: &Door, caller: &Caller) -> Option<CallerRow> {
    door.state().store.caller(&caller.hello.digest(), door.now()).unwrap()
}

fn let_in(door: &Door, caller: &Caller) {
    door.settle(caller);
    assert!(matches!(door.call(caller), Admission::Admitted { .. }), "{}", door.text());
}

/// The way of a caller that nothing happens to.
#[test]
fn from_the_first_call_to_the_certificate() {
    let door = Door::new(&bound(""));
    let node = door.caller(1, S1);
    door.waits(&node);
    assert_eq!(standing(&door, &node), Some(Standing::Waits));
    door.admit(&node, None).unwrap();
    assert_eq!(standing(&door, &node), Some(Standing::LetIn(Level::Approved)));
    let got = door.payload(&node, "node1").unwrap();
    assert_eq!(standing(&door, &node), Some(Standing::HasPayload(Level::Approved)));
    assert!(door.text().starts_with("node1 is let in (approved), and has its payload, but no certificate yet"));
    assert!(matches!(door.request(&got, &node), Answer::Issued { .. }));
    assert_eq!(standing(&door, &node), Some(Standing::Served(Level::Approved)));
    door.pass(DAY);
    assert_eq!(standing(&door, &node), None, "forgotten");
}

/// The attack: somebody calls with the node's words, is let in by the rule, and has its payload when the node calls. The
/// administrator picks the node.
#[test]
fn the_key_that_was_not_picked_has_nothing() {
    for rule in ["admit = \"known\"", "admit = \"armed\""] {
        let door = Door::new(&bound(&format!("{rule}\nenrol = \"each-boot\"")));
        if rule.contains("armed") {
            door.arm("node1", HOUR).unwrap();
        }
        let (thief, node) = (door.from(1, S1, "203.0.113.66"), door.caller(2, S1));
        let_in(&door, &thief);
        let stolen = door.payload(&thief, "node1").unwrap();
        door.pass(MINUTE);
        assert!(door.waits(&node), "{rule}");
        assert_eq!(door.admit(&node, None).unwrap().denied, [code(&thief)], "{rule}");
        assert!(matches!(door.call(&thief), Admission::Refused { .. }), "{rule}");
        assert!(matches!(door.payload(&thief, "node1"), Err(Error::NotLetIn(_))), "{rule}");
        for answer in [door.request(&stolen, &thief), door.request_over_network(&stolen)] {
            assert!(matches!(answer, Answer::Refused(Refusal::Withdrawn(_))), "{rule}: {answer:?}");
        }
        door.serve(&node, "node1");
        assert_eq!((door.live("node1"), door.listed().len()), (1, 0), "{rule}");
    }
}

/// The accident: a caller is let in, or has its payload, when the administrator decides otherwise. It may still be connected,
/// and what it was given lies in its memory.
#[test]
fn what_ends_an_admission_ends_all_of_it() {
    type Ends = (&'static str, fn(&Door, &Caller), fn(&Admission) -> bool);
    let waits: fn(&Admission) -> bool = |answer| matches!(answer, Admission::Waits { .. });
    let refused: fn(&Admission) -> bool = |answer| matches!(answer, Admission::Refused { .. });
    let ends: [Ends; 6] = [
        ("deny CODE", |door, caller| assert_eq!(door.deny(caller), 1), refused),
        (
            "deny NODE",
            |door, _| assert_eq!(door.state().deny_callers("node1", door.now()).unwrap().0.len(), 1),
            refused,
        ),
        ("revoke NODE", |door, _| door.revoke("node1"), waits),
        ("node add --replace", |door, _| door.replace(&bound("validity = \"30d\"")), waits),
        (
            "payload NODE",
            |door, _| drop(door.state().payload("node1", &Options::default(), door.now()).unwrap()),
            waits,
        ),
        // As by `inject`, or with a payload on a drive.
        ("a certificate elsewhere", |door, _| drop(door.enroll("node1")), waits),
    ];
    for (what, end, after) in ends {
        for has_payload in [false, true] {
            // Whoever was let in and has no payload yet has nothing that the next payload could make void.
            if what == "payload NODE" && !has_payload {
                continue;
            }
            let door = Door::new(&bound("admit = \"known\""));
            let node = door.caller(1, S1);
            let_in(&door, &node);
            let got = has_payload.then(|| door.payload(&node, "node1").unwrap());
            door.pass(MINUTE);
            end(&door, &node);
            assert!(matches!(door.payload(&node, "node1"), Err(Error::NotLetIn(_))), "{what}");
            if let Some(got) = got {
                for answer in [door.request(&got, &node), door.request_over_network(&got)] {
                    let void = matches!(answer, Answer::Refused(Refusal::Withdrawn(_) | Refusal::Void(_)));
                    assert!(void, "{what}: {answer:?}");
                }
            }
            assert!(door.listed().is_empty(), "{what}: it waits when it calls again: {}", door.text());
            if what != "payload NODE" {
                assert!(after(&door.call(&node)), "{what}");
            }
        }
    }
}

/// The accident: the record is replaced while a node that an administrator has let in fetches its payload. His word stays; what
/// was made from the old record does not.
#[test]
fn whom_an_administrator_has_let_in_gets_the_new_record() {
    let door = Door::new(&bound(""));
    let node = door.caller(1, S1);
    door.waits(&node);
    door.admit(&node, None).unwrap();
    let old = door.payload(&node, "node1").unwrap();
    door.pass(MINUTE);
    door.replace(&bound("validity = \"30d\""));
    assert!(matches!(door.request(&old, &node), Answer::Refused(Refusal::Withdrawn(_))));
    assert_eq!(door.call(&node), spoken("node1", Level::Approved));
    door.serve(&node, "node1");
    // The same text is no new record.
    let next = door.caller(2, S1);
    door.waits(&next);
    door.admit(&next, None).unwrap();
    let got = door.payload(&next, "node1").unwrap();
    door.replace(&bound("validity = \"30d\""));
    assert!(matches!(door.request(&got, &next), Answer::Issued { .. } | Answer::Pending { .. }));
}

/// The attack: inject --power opens a window, and the node gets everything over its serial line. The window must not wait for
/// somebody else.
#[test]
fn a_window_closes_with_any_certificate() {
    let door = Door::new(&bound("admit = \"armed\"\nenrol = \"each-boot\""));
    door.arm("node1", 5 * MINUTE).unwrap();
    door.enroll("node1");
    assert_eq!(door.state().store.window("node1").unwrap(), None);
    let thief = door.from(2, S1, "203.0.113.66");
    door.settle(&thief);
    assert!(door.waits(&thief));
    // Neither does it stay for a record that it was not opened for.
    door.arm("node1", 5 * MINUTE).unwrap();
    door.replace(&bound("admit = \"armed\""));
    assert_eq!(door.state().store.window("node1").unwrap(), None);
}

/// The attack: a window of last week, under another rule, hides that two keys call.
#[test]
fn a_window_that_has_closed_hides_no_rival() {
    for stale in [false, true] {
        let door = Door::new(&bound("admit = \"armed\""));
        if stale {
            door.arm("node1", MINUTE).unwrap();
            door.pass(2 * MINUTE);
        }
        let silent = door.caller(1, S1);
        assert!(door.waits(&silent));
        door.pass(HOUR);
        if stale {
            // As if the record had been replaced before windows ended with it.
            let sql = "INSERT OR REPLACE INTO windows SELECT 'node1', ?1, ?1 + 60000, NULL";
            let at = i64::try_from(door.now().minus(2 * HOUR).as_millis()).unwrap();
            door.replace(&bound("admit = \"known\""));
            Connection::open(door.path()).unwrap().execute(sql, [at]).unwrap();
        } else {
            door.replace(&bound("admit = \"known\""));
        }
        assert!(door.waits(&door.from(2, S1, "203.0.113.66")));
        let node = door.caller(3, S1);
        door.settle(&node);
        assert!(door.waits(&node), "stale window: {stale}");
        assert_eq!(door.state().store.window("node1").unwrap(), None, "it is deleted");
    }
}

/// The attack: somebody has heard a node's HELLO and says it again, without its private key.
#[test]
fn a_hello_that_is_said_again_makes_nothing_void() {
    for served in [false, true] {
        let door = Door::new(&bound(""));
        let node = door.caller(1, S1);
        door.waits(&node);
        door.admit(&node, None).unwrap();
        let got = door.payload(&node, "node1").unwrap();
        if served {
            assert!(matches!(door.request(&got, &node), Answer::Issued { .. }));
        }
        door.pass(MINUTE);
        // The administrator writes a stick.
        let stick = door.state().payload("node1", &Options::default(), door.now()).unwrap().id;
        let before = row(&door, &node);
        let again = Caller { from: "tcp:203.0.113.66:1".to_owned(), source: "203.0.113.66".to_owned(), ..node.clone() };
        door.pass(MINUTE);
        let _ = door.call(&again);
        match door.payload(&again, "node1").err().unwrap() {
            Error::NotLetIn(_) => assert!(!served),
            Error::HasCertificate { .. } => assert!(served),
            other => panic!("{other}"),
        }
        assert!(
            door.state().store.payloads("node1").unwrap().iter().all(|row| row.id != stick || row.void_at.is_none())
        );
        if served {
            assert_eq!(row(&door, &node), before, "where it called from is what it was");
        }
    }
}

/// As before, while the node has its payload and no certificate yet: it has lost its line, or somebody else says its HELLO. What
/// the node has stays good.
#[test]
fn a_second_payload_for_one_caller_leaves_the_first() {
    let door = Door::new(&bound(""));
    let node = door.caller(1, S1);
    door.waits(&node);
    let earlier = door.state().payload("node1", &Options::default(), door.now()).unwrap().id;
    door.pass(MINUTE);
    door.admit(&node, None).unwrap();
    let got = door.payload(&node, "node1").unwrap();
    let void =
        |id| door.state().store.payloads("node1").unwrap().iter().any(|row| row.id == id && row.void_at.is_some());
    assert!(void(earlier), "the first one for a caller is the node's only one");
    door.pass(MINUTE);
    door.payload(&node, "node1").unwrap();
    assert!(matches!(door.request(&got, &node), Answer::Issued { .. }));
    let lines = door.state().store.log(100).unwrap();
    let peers: Vec<_> = lines.iter().filter(|line| line.event == "payload").map(|line| line.peer.clone()).collect();
    assert_eq!(peers, [None, Some(node.from.clone()), Some(node.from.clone())], "the log says who got it");
}

/// The attack: a HELLO is said again every hour, so that what an administrator approved once is approved for ever.
#[test]
fn an_approval_is_for_a_day() {
    let door = Door::new(&bound(""));
    let node = door.caller(1, S1);
    door.waits(&node);
    door.admit(&node, None).unwrap();
    for _ in 0..23 {
        door.pass(HOUR);
        assert_eq!(door.call(&node), spoken("node1", Level::Approved));
    }
    door.pass(HOUR);
    assert!(door.waits(&node));
}

/// The attack: one HELLO names three machines, so that it is of none of them. Who denies one of them means this caller, too.
#[test]
fn a_caller_that_may_be_several_is_denied_as_one_of_them() {
    const MACS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]];
    let record = |n: u8| {
        format!(
            "name = \"x{n}\"\nsubject = [\"CN=x{n}\"]\nadmit = \"known\"\nbind = {{ macs = [\"02:00:00:00:00:0{n}\"] }}\n"
        )
    };
    let door = Door::new(&[record(1), record(2), record(3)]);
    let forged = door.from(1, Says { macs: &MACS, ..Says::NOTHING }, "203.0.113.66");
    let node = door.caller(2, Says { macs: &MACS[1..2], ..Says::NOTHING });
    for caller in [&forged, &node] {
        door.settle(caller);
    }
    assert!(door.waits(&forged) && door.waits(&node));
    let (denied, _) = door.state().deny_callers("x1", door.now()).unwrap();
    assert_eq!(denied.iter().map(|row| row.code.clone()).collect::<Vec<_>>(), [code(&forged)]);
    assert_eq!(denied[0].nodes, ["x1", "x2", "x3"]);
    assert!(matches!(door.call(&forged), Admission::Refused { .. }));
    assert_eq!(door.call(&node), spoken("x2", Level::Known), "nobody keeps it out any more");
    // A slip is mended by the code.
    door.admit(&forged, Some("x1")).unwrap();
    assert_eq!(door.call(&forged), spoken("x1", Level::Approved));
}

/// The accident: a record is replaced, or a node revoked. Boots that are long done must not come back as callers that wait.
#[test]
fn a_boot_that_is_done_does_not_wait_again() {
    let ends: [fn(&Door); 2] =
        [|door| door.replace(&bound("admit = \"known\"\nvalidity = \"30d\"")), |door| door.revoke("node1")];
    for (number, end) in ends.into_iter().enumerate() {
        let door = Door::new(&bound("admit = \"known\""));
        let node = door.caller(1, S1);
        let_in(&door, &node);
        door.serve(&node, "node1");
        door.pass(RECENT);
        end(&door);
        assert_eq!(door.listed(), []);
        let next = door.caller(2, S1);
        door.settle(&next);
        let answer = door.call(&next);
        assert!(!door.text().contains("two keys call"), "{}", door.text());
        assert_eq!(matches!(answer, Admission::Admitted { .. }), number == 0, "{answer:?}");
    }
}

/// The accident: a caller is let in, and has neither payload nor certificate when the node is revoked.
#[test]
fn revoke_ends_a_caller_that_has_nothing_yet() {
    let door = Door::new(&bound("admit = \"known\""));
    let node = door.caller(1, S1);
    let_in(&door, &node);
    let reason = imprint_host::x509::CrlReason::KeyCompromise;
    let revoked = imprint_host::enrol::revoke(&mut door.state().store, "node1", None, reason, door.now()).unwrap();
    assert_eq!((revoked.certificates.len(), revoked.payloads, revoked.callers), (0, 0, vec![code(&node)]));
    assert!(door.log().contains(&format!("revoked node1: line key {} is not let in any more", code(&node))));
    assert!(door.waits(&node));
    let nothing = imprint_host::enrol::revoke(&mut door.state().store, "node1", None, reason, door.now());
    assert!(nothing.is_err(), "there is nothing more");
}

/// The attack: a request that was heard is sent again, and is answered with the same certificate. It says nothing about who is
/// let in now.
#[test]
fn a_request_that_is_sent_again_ends_nobody() {
    let door = Door::new(&bound(""));
    let node = door.caller(1, S1);
    door.waits(&node);
    door.admit(&node, None).unwrap();
    let got = door.payload(&node, "node1").unwrap();
    assert!(matches!(door.request(&got, &node), Answer::Issued { .. }));
    let next = door.caller(2, S1);
    door.waits(&next);
    door.admit(&next, None).unwrap();
    for answer in [door.request(&got, &node), door.request_over_network(&got)] {
        assert!(matches!(answer, Answer::Issued { .. }), "{answer:?}");
    }
    assert_eq!(door.call(&next), spoken("node1", Level::Approved));
    assert_eq!(door.listed().len(), 1);
    door.serve(&next, "node1");
}

/// The attack: somebody has a /48, and calls from as many networks as there are places. Each of them has one caller, as the
/// virtual machine has.
#[test]
fn a_site_of_networks_takes_places_from_itself_only() {
    let door = Door::new(&bound(""));
    let vm = Caller { source: "vsock:3".to_owned(), ..door.over(1, S1, "vsock:3") };
    assert!(door.waits(&vm));
    door.pass(HOUR);
    door.fill("2001:db8:1:%x::", CALLERS);
    for number in 10..20 {
        let late = door.from(number, Says { serial: Some("X"), ..S1 }, &format!("2001:db8:1:f0{number}::"));
        assert!(door.waits(&late));
    }
    assert!(door.listed().iter().any(|row| row.code == code(&vm)), "it is the only one of its network");
    assert!(door.listed().len() <= CALLERS + 1);
}

/// The accident: all sources have one caller each. The one that was silent for the longest time goes.
#[test]
fn of_equals_the_silent_one_goes() {
    let door = Door::new(&bound(""));
    door.fill("198.51.%d.1", CALLERS - 1);
    door.pass(HOUR);
    let vm = Caller { source: "vsock:3".to_owned(), ..door.over(1, S1, "vsock:3") };
    assert!(door.waits(&vm));
    for number in 10..20 {
        assert!(door.waits(&door.from(number, Says { serial: Some("X"), ..S1 }, &format!("203.0.113.{number}"))));
    }
    assert!(door.listed().iter().any(|row| row.code == code(&vm)), "it was heard after them");
}

/// The attack: words that would read as what the door knows.
#[test]
fn a_claim_is_not_shown_as_a_fact() {
    let door = Door::new(&bound(""));
    let liar = door.caller(1, Says { serial: Some("A\", the door knows vsock CID 3"), ..S1 });
    assert!(door.waits(&liar));
    assert!(door.text().contains("says serial number \"A\\\", the door knows vsock CID 3\": "), "{}", door.text());
    let other = door.admit(&liar, Some("node2")).unwrap_err().to_string();
    assert!(other.contains("the caller says \"A\\\", the door knows vsock CID 3\"."), "{other}");
}

/// The accident: an administrator takes a virtual machine for another one. The kernel knows better.
#[test]
fn nobody_is_admitted_against_a_fact() {
    let record = |n: u8, serial: &str| {
        format!(
            "name = \"vm{n}\"\nsubject = [\"CN=vm{n}\"]\nadmit = \"wire\"\nbind = {{ cid = {n}, serial = \"{serial}\" }}\n"
        )
    };
    let door = Door::new(&[record(3, "SN-1"), record(5, "SN-5")]);
    let seven = door.knows(1, S1, "vsock:7", Facts { cid: Some(7), ..Facts::default() });
    assert!(door.waits(&seven));
    let error = door.admit(&seven, Some("vm3")).unwrap_err();
    assert!(matches!(error, AdmitError::Elsewhere { .. }));
    assert!(
        error.to_string().starts_with("the record of vm3 binds vsock CID 3, and the caller calls from vsock CID 7.")
    );
    assert!(door.waits(&seven));
    // Where the door knows nothing, the code is what the administrator has.
    let over_tcp = door.caller(2, S1);
    assert!(door.waits(&over_tcp));
    door.admit(&over_tcp, Some("vm3")).unwrap();
}

/// The accident: a window of no length.
#[test]
fn a_window_needs_a_time() {
    let door = Door::new(&bound("admit = \"armed\""));
    let error = door.arm("node1", std::time::Duration::ZERO).unwrap_err();
    assert!(matches!(error, AdmitError::NoTime { .. }));
    assert_eq!(
        error.to_string(),
        "--for 0 s opens no window; give a time within which node1 is started, like --for 10m"
    );
    assert!(door.state().store.window("node1").unwrap().is_none() && door.lines("armed") == 0);
}

/// The accident: a record names a key that this host does not have, and nobody says so until the node stands at the door.
#[test]
fn a_record_with_an_unknown_admission_key_is_warned_about() {
    let door = Door::new(&bound(""));
    let text = bound("admit = \"key\"\nadmission_key = [\"rack-7\", \"BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=\"]");
    let warned = || {
        let adding = imprint_host::state::Adding { replace: true, ..Default::default() };
        let files = [("1.toml".to_owned(), text[0].clone())];
        let warnings = door.state().add_nodes_as(&files, &adding, door.now()).unwrap().warnings;
        warnings.iter().map(|warning| (warning.word(), warning.to_string())).collect::<Vec<_>>()
    };
    let warnings = warned();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].0, "admission_key");
    assert!(warnings[0].1.starts_with("node1: this host has no admission key of the name rack-7, so no key"));
    door.key("rack-7", 7, false);
    assert_eq!(warned(), []);
}
