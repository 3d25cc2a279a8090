//! Tests of alarms about certificates that are in use where they should not be, and of their number. Calls `enrol` as the
//! server does, without TLS.

use crate::support::books;

use std::time::Duration;

use books::{AWAY, Books, DAY, HOME, Key, issued, key, refused};
use imprint_host::enrol::Refusal;

const HOUR: Duration = Duration::from_secs(3600);

fn enrolled(books: &Books, own: &Key) -> Vec<u8> {
    let certificate = issued(books.first(&books.token("node1", false), own, HOME));
    assert!(!books.show(&certificate, HOME));
    books.pass(DAY);
    certificate
}

/// Once the thief's certificate is shown, the node's own is the one that was superseded: the alarm named that alone, and
/// revoking its key did nothing, for it has no certificate that is valid.
#[test]
fn an_alarm_about_what_was_superseded_names_the_key_that_is_valid_and_what_helps() {
    let books = Books::new("once");
    let (own, thief) = (key(), key());
    let certificate = enrolled(&books, &own);
    let other = issued(books.renew(&certificate, &thief.csr, AWAY));
    assert!(!books.show(&other, AWAY));
    assert_eq!(books.live("node1"), std::slice::from_ref(&other), "the attack: the node has none that is valid");
    let at = books.now.get();
    books.pass(DAY);
    let decision = books.renew(&certificate, &key().csr, HOME);
    let want = format!(
        "key {own} is in use, but was revoked at {at} (superseded), and key {thief} is valid now: is there a second machine \
         with its payload or its key? compare the code on the node: if it is {own}, the other machine has key {thief}; then \
         run imprint-host revoke node1 and make the node another payload",
        own = own.code,
        thief = thief.code
    );
    assert_eq!(decision.alarm.as_ref().unwrap().detail, want);
    assert!(matches!(refused(decision), Refusal::Superseded { .. }));
    // And that helps.
    books.revoke(None);
    let fresh = issued(books.first(&books.token("node1", false), &key(), HOME));
    for stolen in [&certificate, &other] {
        refused(books.renew(stolen, &key().csr, AWAY));
    }
    assert_eq!(books.live("node1"), [fresh]);
}

/// The node lost an answer, which was an alarm about its certificate, and that was superseded later. Whoever uses it then is
/// somebody else: an alarm about it when it was valid is not this one.
#[test]
fn an_alarm_about_a_certificate_that_was_valid_hides_none_once_it_is_revoked() {
    let books = Books::new("once");
    let certificate = enrolled(&books, &key());
    issued(books.renew(&certificate, &key().csr, HOME));
    let kept = issued(books.renew(&certificate, &key().csr, HOME));
    assert_eq!(books.events("alarm"), 1);
    assert!(!books.show(&kept, HOME));
    assert!(books.show(&certificate, AWAY));
    assert!(!books.show(&certificate, AWAY), "once");
    assert_eq!(books.events("alarm"), 2);
}

/// Where no other key is valid there is none to name: none is valid at all, or the same key has a newer certificate.
#[test]
fn an_alarm_names_no_other_key_where_there_is_none() {
    for kept in [false, true] {
        let books = Books::new("once");
        let own = key();
        let certificate = enrolled(&books, &own);
        let next = if kept { own } else { key() };
        assert!(!books.show(&issued(books.renew(&certificate, &next.csr, HOME)), HOME));
        if !kept {
            books.revoke(None);
        }
        assert!(books.show(&certificate, AWAY));
        let last = books.last();
        assert!(last.ends_with(" (superseded): is there a second machine with its payload or its key?"), "{last}");
    }
}

/// Each revoked certificate is an alarm of its own, and whoever has many of them wrote as many lines, beside those that
/// strangers may.
#[test]
fn alarms_about_revoked_certificates_write_few_lines_and_none_is_lost() {
    let books = Books::new("each-boot");
    let token = books.token("node1", false);
    let revoked: Vec<Vec<u8>> = (0..20).map(|_| issued(books.first(&token, &key(), HOME))).collect();
    books.revoke(None);
    let show = || revoked.iter().filter(|certificate| books.show(certificate, AWAY)).count();
    let before = books.lines();
    assert_eq!(show(), 20, "the log of serve and the metric have each of them");
    assert_eq!(books.events("alarm"), 10);
    assert!(books.last().ends_with("; more of this within the hour is counted and not written"), "{}", books.last());
    // Each of those that are not in the log yet is news until it is.
    assert_eq!((show(), books.events("alarm")), (10, 10));
    for number in 0..200 {
        books.ask("node1", None, b"no CSR", &format!("198.51.100.{number}"));
    }
    assert_eq!(books.lines() - before, 100, "an hour of strangers");
    books.pass(HOUR);
    assert_eq!((show(), books.events("alarm")), (10, 20));
    let rows = books.state.borrow().store.log(100).unwrap();
    let first = rows.iter().filter(|row| row.event == "alarm").nth_back(9).unwrap();
    assert!(first.detail.contains(" (20 more since ") && first.detail.ends_with(" were counted and not written)"));
    assert_eq!((show(), books.events("alarm")), (0, 20), "once for each");
}

/// Whoever shows many revoked certificates hides nothing about one that is valid.
#[test]
fn an_alarm_about_a_valid_certificate_is_always_written() {
    let books = Books::new("each-boot");
    let token = books.token("node1", false);
    let certificates: Vec<Vec<u8>> = (0..20).map(|_| issued(books.first(&token, &key(), HOME))).collect();
    assert!(certificates[..19].iter().all(|certificate| books.show(certificate, AWAY)));
    let certificate = &certificates[19];
    issued(books.renew(certificate, &key().csr, AWAY));
    assert!(books.renew(certificate, &key().csr, HOME).alarm.is_some());
    assert_eq!(books.events("alarm"), 11);
}
