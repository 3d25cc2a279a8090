//! What is said of a certificate that is in use where it should not be, and how much of it. The books are asked as the server
//! asks them, without TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "support/books.rs"]
mod books;

use books::{AWAY, Books, DAY, HOME, Key, issued, key, refused};
use imprint_host::enrol::Refusal;

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
