//! All tests of the host tool as one program: it is linked once, and not once for each file. Contains no tests itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

mod admission_keys;
mod alarms;
mod books;
mod bundle_disk;
mod bundle_kills;
mod bundle_payloads;
mod bundle_rules;
mod bundles;
mod callers;
mod callers_at_random;
mod callers_served;
mod cli;
mod deciding;
mod disk;
mod est;
mod gate;
mod hostile;
mod kills;
mod lists;
mod older_store;
mod output;
mod owner;
mod payload_forms;
mod serve;
mod server_certificate;
mod signers;
mod standing;
mod words;
