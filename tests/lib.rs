//! The helpers that the tests share. Contains no tests.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/ca.rs"]
pub mod ca;
#[path = "support/far_host.rs"]
pub mod far_host;
#[path = "support/listening.rs"]
pub mod listening;
#[path = "support/est_server.rs"]
pub mod est_server;
#[path = "support/flights.rs"]
pub mod flights;
#[path = "support/vm.rs"]
pub mod vm;
#[path = "support/dmi.rs"]
pub mod dmi;
#[path = "support/nbd.rs"]
pub mod nbd;
#[path = "support/programs.rs"]
pub mod programs;
#[path = "support/line.rs"]
pub mod line;
#[path = "support/served.rs"]
pub mod served;
#[path = "support/books.rs"]
pub mod books;
#[path = "support/guest.rs"]
pub mod guest;
#[path = "support/identity.rs"]
pub mod identity;
#[path = "support/signer.rs"]
pub mod signer;
#[path = "support/patience.rs"]
pub mod patience;
#[path = "support/ports.rs"]
pub mod ports;
#[path = "support/caller.rs"]
pub mod caller;
