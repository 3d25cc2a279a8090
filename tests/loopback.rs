//! Tests that need the loopback interface and nothing else: real TLS, real HTTP, no privileges.

// Clippy counts only #[test] functions as tests, not the functions that they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod loopback {
    mod boot;
    mod bundle_keys;
    mod checkin;
    mod clients;
    mod console;
    mod door;
    mod door_limits;
    mod door_open;
    mod handover;
    mod host;
    mod inject;
    mod keys;
    mod netroot;
    mod output;
    mod port;
    mod reload;
    mod setup;
    mod signed;
    mod stateless;
    mod words;
}
