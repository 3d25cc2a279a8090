//! Random calls, decisions and times at a door, and what must hold of whoever is let in. Asks the state as the server's desk does,
//! without sockets.

use crate::support::door;

use std::time::Duration;

use door::{Door, MINUTE, Says, code};
use imprint_host::admission::{Admission, Level};
use rusqlite::Connection;

const S1: Says = Says { serial: Some("SN-1"), ..Says::NOTHING };

/// Random calls, decisions and times. Whoever is let in under a rule that does not rest on words had what the rule asks for.
#[test]
fn whoever_is_let_in_had_what_its_record_asks_for() {
    let mut reached = std::collections::BTreeSet::new();
    for number in 0..30u64 {
        let mut seed = door::Seed(number);
        let rules = ["", "admit = \"armed\"", "admit = \"wire\"", "admit = \"key\"\nadmission_key = \"stick\""];
        let record = |n: usize| {
            let bind = if n == 2 {
                "{ tap = \"tap2\", serial = \"SN-2\" }".to_owned()
            } else {
                format!("{{ serial = \"SN-{n}\" }}")
            };
            format!("name = \"node{n}\"\nsubject = [\"CN=node{n}\"]\n{}\nbind = {bind}\n", rules[n])
        };
        let door = Door::new(&[record(0), record(1), record(2), record(3)]);
        door.key("stick", 7, false);
        let serials = ["SN-0", "SN-1", "SN-2", "SN-3"];
        let (mut yes, mut windows) = (std::collections::BTreeSet::new(), Vec::new());
        let mut callers = Vec::new();
        for step in 0..60u8 {
            match seed.below(8) {
                0 | 1 => {
                    let says = Says { serial: Some(serials[seed.below(4)]), ..S1 };
                    let mut caller = door.from(step, says, ["192.0.2.1", "203.0.113.66"][seed.below(2)]);
                    caller.facts.tap = [None, Some("tap2"), Some("tap9")][seed.below(3)].map(str::to_owned);
                    let public = [[7; 32], [8; 32]][seed.below(2)];
                    caller.keys = [public, [9; 32]].into_iter().filter(|_| seed.below(2) == 0).collect();
                    callers.push(caller);
                }
                2 => {
                    if let Some(caller) = callers.get(seed.below(callers.len().max(1))) {
                        let node = format!("node{}", seed.below(4));
                        if let Ok(let_in) = door.admit(caller, [None, Some(node.as_str())][seed.below(2)]) {
                            yes.insert((code(caller), let_in.node));
                        }
                    }
                }
                3 => {
                    door.arm("node1", 10 * MINUTE).unwrap();
                    windows.push((door.now(), door.now().plus(10 * MINUTE)));
                }
                4 => door.pass(Duration::from_secs([1, 2, 60, 700][seed.below(4)])),
                5 if seed.below(3) == 0 => {
                    if let Some(caller) = callers.get(seed.below(callers.len().max(1))) {
                        door.deny(caller);
                    }
                }
                _ => {}
            }
            let before: Vec<_> = door.listed();
            for caller in &callers {
                let Admission::Admitted { node, level } = door.call(caller) else { continue };
                reached.insert(level.word());
                let was_in = before.iter().any(|row| row.code == code(caller) && row.standing.level().is_some());
                let had = match level {
                    Level::Approved => yes.contains(&(code(caller), node.clone())),
                    Level::Armed => {
                        let open = windows.iter().any(|(from, to)| *from <= door.now() && door.now() < *to);
                        node == "node1" && (was_in || open)
                    }
                    Level::Wire => node == "node2" && caller.facts.tap.as_deref() == Some("tap2"),
                    Level::Stick => node == "node3" && caller.keys.contains(&[7; 32]),
                    Level::ImageKey | Level::ApprovedOnce | Level::Known => false,
                };
                assert!(had, "seed {number}: {node} {level} {caller:?}");
            }
        }
        // The counts that places are given by.
        let store = Connection::open(door.path()).unwrap();
        let counted = |sql: &str| store.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        let by_source = "SELECT json_group_array(source || ' ' || waiting ORDER BY source) FROM";
        assert_eq!(
            counted(&format!("{by_source} callers_by_source")),
            counted(&format!(
                "{by_source} (SELECT source, count(*) AS waiting FROM callers WHERE state = 'waits' GROUP BY source)"
            )),
            "seed {number}"
        );
        assert_eq!(
            counted(&format!("{by_source} (SELECT net AS source, waiting FROM callers_by_net)")),
            counted(&format!(
                "{by_source} (SELECT net AS source, count(*) AS waiting FROM callers WHERE state = 'waits' GROUP BY net)"
            )),
            "seed {number}"
        );
        assert_eq!(
            counted("SELECT CAST(waiting AS TEXT) FROM callers_count"),
            counted("SELECT CAST(count(*) AS TEXT) FROM callers WHERE state = 'waits'")
        );
        // A window is good for one key.
        let armed = door.log().iter().filter(|line| line.starts_with("admitted node1: level armed")).count();
        assert!(armed <= windows.len(), "seed {number}: {armed} by {} windows", windows.len());
    }
    let want: Vec<&str> = vec!["approved", "armed", "stick", "wire"];
    assert_eq!(reached.into_iter().collect::<Vec<_>>(), want);
}
