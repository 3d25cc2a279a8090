//! Tests of attackers with a stolen certificate, a stolen key or a used payload, or with nothing; and of whose decision
//! counts. Each test first makes the attack, then checks its result. Calls `enrol` as the server and a line do, without
//! TLS.

use crate::support::books;

use std::time::Duration;

use books::{AWAY, Books, DAY, HOME, Key, csr, issued, key, refused, waits};
use imprint::key_code::KeyCode;
use imprint_host::enrol::{Answer, Refusal};
use imprint_host::list;
use imprint_host::x509::CrlReason;

/// What an administrator decides about a key that asked with a token, and what a stranger sends from an address.
type Decide<'a> = &'a dyn Fn(&Books, &Key, &str);
type Attack<'a> = &'a dyn Fn(&str);

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Somebody has the node's certificate and key, and asks with them for one certificate after the other. 200 keys on one
/// connection brought 200 certificates that were all valid, and the node was refused then.
#[test]
fn a_stolen_certificate_brings_one_more_at_a_time_and_an_alarm() {
    let books = Books::new("once");
    let certificate = books.node();
    let mut brought = Vec::new();
    let mut later = 0;
    for number in 0..200 {
        let decision = books.renew(&certificate, &key().csr, AWAY);
        assert_eq!(books.events("alarm"), usize::from(number > 0), "with the second key that asks, once");
        match decision.answer {
            Answer::Issued { der, .. } => brought.push(der),
            Answer::Later { .. } => later += 1,
            other => panic!("{other:?}"),
        }
        assert_eq!(books.live("node1"), [certificate.clone(), brought.last().unwrap().clone()]);
    }
    assert_eq!((brought.len(), later), (3, 197));
    // The node has turns of its own, and gets the one place beside its certificate.
    let own = issued(books.renew(&certificate, &key().csr, HOME));
    assert_eq!(books.live("node1"), [certificate.clone(), own.clone()]);
    assert!(books.show(brought.last().unwrap(), AWAY), "what was stolen is seen in use");
    assert!(!books.show(&own, HOME));
    assert_eq!(books.live("node1"), [own]);
    assert!(matches!(refused(books.renew(&certificate, &key().csr, AWAY)), Refusal::Superseded { .. }));
}

/// The certificate was sent to no address, or the node has another one by now: whoever else asks with it, from one address,
/// leaves turns for the node.
#[test]
fn one_address_leaves_turns_for_a_node_that_is_not_where_its_certificate_went() {
    for home in [None, Some("/dev/ttyUSB0"), Some("192.0.2.99")] {
        let books = Books::new("once");
        let certificate = match home {
            Some(home) => issued(books.first(&books.token("node1", false), &key(), home)),
            None => books.credentials(),
        };
        assert!(!books.show(&certificate, HOME));
        books.pass(DAY);
        let asked = (0..50).map(|_| books.renew(&certificate, &key().csr, AWAY));
        let brought = asked.filter(|decision| matches!(decision.answer, Answer::Issued { .. })).count();
        assert_eq!(brought, 3, "{home:?}");
        issued(books.renew(&certificate, &key().csr, HOME));
    }
}

/// From many addresses, and each time with the newest certificate.
#[test]
fn however_a_stolen_certificate_is_renewed_two_are_valid_and_few_are_signed() {
    for chain in [false, true] {
        let books = Books::new("once");
        let certificate = books.node();
        let mut newest = certificate.clone();
        let mut brought = Vec::new();
        let before = books.lines();
        for number in 0..100 {
            let shown = if chain { &newest } else { &certificate };
            let decision = books.renew(shown, &key().csr, &format!("203.0.113.{number}"));
            if let Answer::Issued { der, .. } = decision.answer {
                brought.push(der.clone());
                newest = der;
            }
            assert!(books.live("node1").len() <= 2);
        }
        assert!((10..=20).contains(&brought.len()), "{}", brought.len());
        let decision = books.renew(&certificate, &key().csr, HOME);
        if chain {
            // Whoever goes on with the newest one has the name. The node's own word is the alarm.
            assert!(decision.alarm.is_some(), "{decision:?}");
            refused(decision);
        } else {
            issued(decision);
        }
        assert_eq!(books.events("alarm"), 1);
        for certificate in &brought {
            books.show(certificate, AWAY);
            books.renew(certificate, b"no CSR", AWAY);
        }
        assert!(books.lines() - before <= 100, "{} lines in an hour", books.lines() - before);
        books.pass(HOUR);
        let decision = books.renew(&newest, &key().csr, AWAY);
        assert!(!matches!(decision.answer, Answer::Later { .. }), "another hour: {decision:?}");
    }
}

/// The certificate was used for a renewal long ago, and the node comes when its own is due: that is the alarm, and the
/// administrator says whose key it is.
#[test]
fn the_node_that_comes_late_raises_the_alarm_and_goes_on_once_the_other_key_is_revoked() {
    let books = Books::new("once");
    let certificate = books.node();
    // Whoever has the certificate still has it once the other key is revoked: the next time is another alarm.
    let mut others = Vec::new();
    for round in 1..=3 {
        let thief = key();
        let other = issued(books.renew(&certificate, &thief.csr, AWAY));
        books.pass(HOUR);
        let decision = books.renew(&certificate, &key().csr, HOME);
        let alarm = decision.alarm.as_ref().unwrap_or_else(|| panic!("round {round}: no alarm")).detail.clone();
        let remedy = format!(
            "revoke the other key with imprint-host revoke node1 --key CODE; if that key is not the node's, the certificate \
             of key {} is stolen, too: make the node another payload and then revoke that key",
            code(&certificate)
        );
        assert!(alarm.contains(&thief.code.to_string()) && alarm.ends_with(&remedy), "{alarm}");
        assert!(matches!(refused(decision), Refusal::Superseded { .. }));
        refused(books.renew(&certificate, &key().csr, HOME));
        assert_eq!(books.events("alarm"), round, "once until somebody has decided");
        assert_eq!(books.live("node1"), [certificate.clone(), other.clone()]);
        books.revoke(Some(&thief.code));
        others.push(other);
    }
    // And what it says helps.
    let fresh = issued(books.first(&books.token("node1", false), &key(), HOME));
    books.revoke(Some(&code(&certificate)));
    assert_eq!(books.live("node1"), [fresh]);
    refused(books.renew(&certificate, &key().csr, AWAY));
    assert!(others.iter().all(|other| books.show(other, AWAY)));
}

/// Power fails between signature and hand-over: the node comes again with another key.
#[test]
fn a_renewal_whose_answer_was_lost_is_given_again() {
    let books = Books::new("once");
    let certificate = books.node();
    let (lost, kept) = (key(), key());
    let answer = issued(books.renew(&certificate, &lost.csr, HOME));
    assert_eq!(issued(books.renew(&certificate, &lost.csr, HOME)), answer, "the same key, the same answer");
    assert_eq!(books.events("alarm"), 0);
    books.pass(14 * MINUTE);
    let answer = issued(books.renew(&certificate, &kept.csr, HOME));
    assert_eq!(books.live("node1"), [certificate.clone(), answer.clone()], "the lost one is revoked");
    assert_eq!(books.events("alarm"), 1, "or it was stolen: somebody looks");
    // The successor has arrived, and its predecessor ends.
    books.pass(14 * MINUTE);
    assert!(!books.show(&answer, HOME));
    assert_eq!(books.live("node1"), std::slice::from_ref(&answer));
    assert_eq!(books.last(), format!("superseded node1: key {}: replaced by key {}", code(&certificate), kept.code));
    issued(books.renew(&answer, &key().csr, HOME));
}

fn code(certificate: &[u8]) -> KeyCode {
    use x509_cert::der::{Decode, Encode};
    let certificate = x509_cert::Certificate::from_der(certificate).unwrap();
    KeyCode::of(&certificate.tbs_certificate.subject_public_key_info.to_der().unwrap())
}

/// `imprint renew --keep-key`: that the one before gave way says nothing against the key.
#[test]
fn a_key_that_is_kept_is_renewed_again_and_again() {
    let books = Books::new("once");
    let same = key();
    let mut certificate = issued(books.first(&books.token("node1", false), &same, HOME));
    for _ in 0..3 {
        books.pass(DAY);
        certificate = issued(books.renew(&certificate, &same.csr, HOME));
        assert!(!books.show(&certificate, HOME));
        assert_eq!(books.live("node1"), [certificate.clone()]);
    }
    // All have ended, and the node comes with the same key and another payload.
    books.pass(91 * DAY);
    assert!(books.live("node1").is_empty());
    issued(books.first(&books.token("node1", false), &same, HOME));
    assert_eq!(books.events("alarm"), 0);
    // Revoked, it stays so, also once the newest certificate has ended, too.
    books.revoke(Some(&same.code));
    for wait in [MINUTE, 91 * DAY] {
        books.pass(wait);
        let token = books.token("node1", false);
        assert!(matches!(refused(books.first(&token, &same, HOME)), Refusal::Revoked { .. }));
    }
}

/// A key that was revoked asks again: by token, by the other node's token, with the other node's certificate.
#[test]
fn a_key_that_was_revoked_is_refused_everywhere() {
    let books = Books::new("once");
    let (bad, good) = (key(), key());
    issued(books.first(&books.token("node1", false), &bad, HOME));
    let token = books.token("node2", false);
    let other = issued(books.ask("node2", Some(&token), &csr(&good.pair, "node2"), HOME));
    books.revoke(None);
    // Also once its certificate has ended.
    for wait in [MINUTE, 89 * DAY] {
        books.pass(wait);
        let (first, second) = (books.token("node1", false), books.token("node2", false));
        let decision = books.first(&first, &bad, AWAY);
        assert_eq!(decision.alarm.is_some(), wait == MINUTE, "once");
        let for_two = csr(&bad.pair, "node2");
        let mut decisions = vec![decision, books.ask("node2", Some(&second), &for_two, AWAY)];
        if wait == MINUTE {
            decisions.push(books.renew(&other, &for_two, AWAY));
        }
        for decision in decisions {
            let refusal = refused(decision);
            assert!(matches!(refusal, Refusal::Revoked { reason: CrlReason::KeyCompromise, .. }), "{refusal}");
        }
    }
}

/// A key with a certificate of one node gets none of another: revoking it for one would leave the other.
#[test]
fn a_key_is_one_nodes() {
    let books = Books::new("once");
    let same = key();
    issued(books.first(&books.token("node1", false), &same, HOME));
    let token = books.token("node2", false);
    let request = csr(&same.pair, "node2");
    let refusal = refused(books.ask("node2", Some(&token), &request, AWAY));
    assert_eq!(
        refusal.to_string(),
        "the key in the CSR has a certificate of another node; make a key of this node's own"
    );
    assert_eq!(books.last(), "refused node2: the key in the CSR has a certificate of node1");
    // The token was not used up.
    let certificate = issued(books.ask("node2", Some(&token), &csr(&key().pair, "node2"), HOME));
    refused(books.renew(&certificate, &request, HOME));
    // It is free once that certificate has ended.
    books.pass(91 * DAY);
    issued(books.ask("node2", Some(&books.token("node2", false)), &request, HOME));
}

/// A new payload for each boot, while certificates of the one before are valid.
#[test]
fn the_first_use_of_a_new_each_boot_payload_ends_what_was_before() {
    let books = Books::new("each-boot");
    let before = books.node();
    let after = issued(books.first(&books.token("node1", false), &key(), HOME));
    assert_eq!(books.live("node1"), [after]);
    assert!(books.show(&before, HOME));
    // A node is installed anew, again and again: two are valid at most.
    let books = Books::new("once");
    let certificates: Vec<_> = (0..4).map(|_| books.node()).collect();
    assert_eq!(books.live("node1"), certificates[2..]);
}

/// Renewals with a stolen certificate do not use up what the token is good for in an hour.
#[test]
fn renewals_take_no_turns_from_the_token() {
    let books = Books::new("each-boot");
    let token = books.token("node1", false);
    let certificates: Vec<_> = (0..15).map(|_| issued(books.first(&token, &key(), HOME))).collect();
    for number in 0..40 {
        books.renew(&certificates[14], &key().csr, &format!("203.0.113.{number}"));
    }
    assert_eq!(books.events("renewed"), 10);
    for _ in 15..20 {
        issued(books.first(&token, &key(), HOME));
    }
    assert!(matches!(books.first(&token, &key(), HOME).answer, Answer::Later { .. }));
}

/// Approved, and before the node has come for it the administrator decides otherwise: each way, the key still got its
/// certificate.
#[test]
fn the_later_decision_counts() {
    let third = key();
    let decisions: [(&str, Decide<'_>); 5] = [
        ("revoke", &|books, _, _| books.revoke(None)),
        ("revoke --key", &|books, key, _| books.revoke(Some(&key.code))),
        ("deny", &|books, _, _| assert_eq!(books.deny(), 1)),
        ("payload", &|books, _, _| drop(books.token("node1", false))),
        ("approve", &|books, _, token| {
            assert!(waits(&books.first(token, &third, HOME)));
            books.approve(&third);
        }),
    ];
    for (what, decide) in decisions {
        let books = Books::new("once");
        let token = books.token("node1", false);
        assert!(!books.show(&issued(books.first(&token, &key(), HOME)), HOME));
        let second = key();
        assert!(waits(&books.first(&token, &second, AWAY)));
        books.approve(&second);
        decide(&books, &second, &token);
        let before = books.live("node1");
        let refusal = refused(books.first(&token, &second, AWAY));
        assert!(matches!(refusal, Refusal::Denied | Refusal::Void(_) | Refusal::Withdrawn(_)), "{what}: {refusal}");
        assert_eq!(books.live("node1"), before, "{what}");
        // And the later one the other way round, where there is one.
        match what {
            "payload" => drop(issued(books.first(&books.token("node1", false), &key(), HOME))),
            "approve" => drop(issued(books.first(&token, &third, HOME))),
            _ => {}
        }
    }
}

/// What could still be taken back is shown.
#[test]
fn an_approval_that_was_not_collected_is_listed() {
    let books = Books::new("once");
    let token = books.token("node1", false);
    assert!(!books.show(&issued(books.first(&token, &key(), HOME)), HOME));
    let second = key();
    assert!(waits(&books.first(&token, &second, AWAY)));
    books.approve(&second);
    let nodes = || list::nodes(&books.state.borrow(), books.now.get()).unwrap();
    let json = list::nodes_json(&nodes());
    assert_eq!(
        (json[0]["waiting"][0].as_str(), json[0]["approved"][0]["key"].as_str()),
        (None, Some(&*second.code.to_string()))
    );
    let line = format!("\nnode1 is approved, but has not asked again yet: key {}; ", second.code);
    assert!(list::nodes_table(&nodes()).contains(&line));
    issued(books.first(&token, &second, AWAY));
    assert!(!list::nodes_table(&nodes()).contains(&line));
}

/// Whoever has copied a used payload asks with eight keys and more, so that no place is left for the node; and again after
/// they were denied.
#[test]
fn a_used_token_fills_no_places_that_the_node_needs() {
    let books = Books::new("once");
    let token = books.token("node1", false);
    assert!(!books.show(&issued(books.first(&token, &key(), HOME)), HOME));
    let strangers: Vec<Key> = (0..30).map(|_| key()).collect();
    let listed = strangers.iter().filter(|key| waits(&books.first(&token, key, AWAY))).count();
    assert_eq!((listed, books.waiting().len()), (8, 8), "the attack: all places are taken");
    // The node lost its disk, and comes with the same payload.
    let node = key();
    assert!(waits(&books.first(&token, &node, HOME)));
    assert!(books.waiting().contains(&node.code.to_string()));
    for _ in 0..20 {
        books.pass(Duration::from_secs(5));
        for key in &strangers {
            books.first(&token, key, AWAY);
        }
        assert!(waits(&books.first(&token, &node, HOME)));
        assert!(books.waiting().contains(&node.code.to_string()), "{:?}", books.waiting());
    }
    // Denied, and they come again with new keys.
    assert_eq!(books.deny(), 8);
    for peer in [AWAY, "198.51.100.1"] {
        assert_eq!(refused(books.first(&token, &key(), peer)), Refusal::Denied);
    }
    assert_eq!(books.waiting().len(), 0);
    // The node has another payload, and needs nobody's approval; a third machine with that one waits for it.
    let newest = books.token("node1", false);
    assert!(!books.show(&issued(books.first(&newest, &key(), HOME)), HOME));
    let again = key();
    assert!(waits(&books.first(&newest, &again, HOME)));
    // What was replaced waits for nobody any more.
    assert!(matches!(refused(books.first(&token, &key(), AWAY)), Refusal::Void(_)));
    assert_eq!(books.waiting(), [again.code.to_string()]);
}

/// Two payloads that are both good: what is asked with one takes no place of the other.
#[test]
fn places_are_each_payloads_own() {
    let books = Books::new("once");
    let (old, new) = (books.token("node1", false), books.token("node1", true));
    for token in [&old, &new] {
        assert!(!books.show(&issued(books.first(token, &key(), HOME)), HOME));
    }
    for number in 0..50 {
        books.first(&old, &key(), &format!("203.0.113.{number}"));
    }
    let node = key();
    assert!(waits(&books.first(&new, &node, HOME)));
    assert_eq!((books.waiting().len(), books.waiting().contains(&node.code.to_string())), (9, true));
}

/// A revoked certificate looked as good as any in the list of nodes and in its JSON.
#[test]
fn what_was_revoked_is_shown_as_that() {
    let books = Books::new("once");
    let certificate = books.node();
    let thief = key();
    issued(books.renew(&certificate, &thief.csr, AWAY));
    let shown = || {
        let nodes = list::nodes(&books.state.borrow(), books.now.get()).unwrap();
        (list::nodes_json(&nodes)[0].clone(), list::nodes_table(&nodes))
    };
    assert_eq!(shown().0["certificate"]["status"], "valid");
    assert_eq!(shown().0["valid"].as_array().unwrap().len(), 2);
    let at = books.now.get().to_string();
    books.revoke(Some(&thief.code));
    let (json, table) = shown();
    let certificate = &json["certificate"];
    assert_eq!(
        (certificate["status"].as_str(), certificate["revoked_at"].as_str(), certificate["reason"].as_str()),
        (Some("revoked"), Some(at.as_str()), Some("keyCompromise"))
    );
    assert!(table.contains(&format!("revoked {at} (keyCompromise)")), "{table}");
    assert!(table.contains("\nnode1 has another certificate: key "), "{table}");
    books.pass(91 * DAY);
    assert_eq!(shown().0["certificate"]["status"], "revoked", "for good");
    issued(books.first(&books.token("node1", false), &key(), HOME));
    books.pass(91 * DAY);
    assert_eq!(shown().0["certificate"]["status"], "expired");
}

/// Who decided was not in the log, and the address of whoever asked looked like it.
#[test]
fn the_log_says_who_decided_and_who_asked() {
    let books = Books::new("once");
    let token = books.token("node1", false);
    books.state.borrow_mut().store.run_by("alice (uid 1000)".to_owned());
    assert!(!books.show(&issued(books.first(&token, &key(), HOME)), HOME));
    let second = key();
    assert!(waits(&books.first(&token, &second, AWAY)));
    books.approve(&second);
    let rows = books.state.borrow().store.log(2).unwrap();
    let who = |row: &imprint_host::store::AuditRow| (row.event.clone(), row.actor.clone(), row.peer.clone());
    assert_eq!(who(&rows[0]), ("pending".into(), None, Some(AWAY.into())), "the program decided");
    assert_eq!(who(&rows[1]), ("approved".into(), Some("alice (uid 1000)".into()), Some(AWAY.into())));
    let text = list::log_text(&rows, None);
    assert!(text.contains(&format!(" approved node1 by alice (uid 1000), asked from {AWAY}: key ")), "{text}");
    assert_eq!(list::log_json(&rows)[1]["by"], "alice (uid 1000)");
    assert_eq!(list::log_json(&rows)[1]["peer"], AWAY);
}

/// Everything that somebody can send who has nothing that is good now, over and over, from one address and from many:
/// each wrote a line of a log that only grows, thousands in a second, until the disk was full.
#[test]
fn strangers_write_few_lines_whatever_they_send() {
    let books = Books::new("once");
    let expired = books.token("node1", false);
    books.pass(31 * DAY);
    let replaced = books.token("node1", false);
    let replayed = key();
    let certificate = issued(books.first(&replaced, &replayed, HOME));
    let token = books.token("node1", false);
    let own = key();
    let revoked = issued(books.first(&token, &own, HOME));
    books.revoke(Some(&own.code));
    let other = key();
    let attacks: [(&str, Attack<'_>); 9] = [
        ("no CSR", &|peer| drop(books.ask("node1", None, b"no CSR", peer))),
        ("no credentials", &|peer| drop(books.ask("node1", None, &other.csr, peer))),
        ("wrong token", &|peer| drop(books.ask("node1", Some("wrong"), &other.csr, peer))),
        ("no such node", &|peer| drop(books.ask("node9", Some("wrong"), &other.csr, peer))),
        ("replaced token", &|peer| drop(books.ask("node1", Some(&replaced), &other.csr, peer))),
        ("expired token", &|peer| drop(books.ask("node1", Some(&expired), &other.csr, peer))),
        ("replayed CSR", &|peer| drop(books.ask("node1", None, &replayed.csr, peer))),
        ("revoked certificate", &|peer| drop(books.renew(&revoked, &other.csr, peer))),
        ("strange certificate", &|peer| drop(books.renew(b"none", &other.csr, peer))),
    ];
    let before = books.lines();
    for round in 0..40 {
        for (_, attack) in &attacks {
            attack(AWAY);
            attack(&format!("198.51.100.{round}"));
        }
        if round % 10 == 9 {
            books.reopen();
        }
    }
    assert_eq!(books.lines() - before, 91, "720 requests, the server started four times; one of them is the alarm");
    let rows = books.state.borrow().store.log(100).unwrap();
    let refusals = rows.iter().filter(|row| row.event != "alarm" && row.peer.as_deref() == Some(AWAY));
    assert!(refusals.count() <= 30, "one address leaves room for others");
    assert_eq!(rows.iter().filter(|row| row.event == "alarm").count(), 1);
    assert!(books.last().ends_with("; more of this within the hour is counted and not written"), "{}", books.last());
    // A request with a good credential is not counted as a stranger's: it has a budget of its own.
    let wrong = csr(&key().pair, "node2");
    let fresh = books.token("node1", false);
    let before = books.lines();
    for _ in 0..50 {
        refused(books.ask("node1", Some(&fresh), &wrong, HOME));
        refused(books.renew(&certificate, &wrong, HOME));
    }
    assert_eq!(books.lines() - before, 20, "ten for the payload, ten for the node");
    // The next hour says how many there were.
    let unwritten = books.state.borrow().store.not_written().unwrap().unwrap();
    assert!(unwritten.count > 0);
    books.pass(HOUR);
    attacks[1].1(AWAY);
    let last = books.last();
    assert!(
        last.starts_with("refused -: no credentials (") && last.contains(" were counted and not written)"),
        "{last}"
    );
}

/// Whoever has a used token makes a new key for each request.
#[test]
fn keys_that_wait_write_few_lines() {
    let books = Books::new("once");
    let token = books.token("node1", false);
    assert!(!books.show(&issued(books.first(&token, &key(), HOME)), HOME));
    let before = books.lines();
    for number in 0..100 {
        books.first(&token, &key(), &format!("203.0.113.{number}"));
    }
    assert!(books.lines() - before <= 10, "{}", books.lines() - before);
}
