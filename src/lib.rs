//! imprint gives a machine its identity in the first second of its life.
//!
//! Data flows one way:
//!
//! ```text
//! options → source → payload → plan → apply → identity → check-in → hand-over
//!           bytes    decode    pure   clock    key, CSR   EST/TLS     /run
//!                                     entropy
//!                                     network
//! ```
//!
//! Each step takes only what the step before it returns; [`run`] shows the whole sequence on one screen. All decisions
//! are in the pure [`mod@plan`]; [`apply`] only acts. There is one way back: the check-in may ask `apply` for the
//! things listed in [`checkin::Ask`], by value. Codecs (payload, ISO 9660, EST bodies, netlink messages) are pure,
//! bytes to values and back, and are shared with the host tool.
//!
//! The modules below are listed in floors (layers): a module uses only modules that are listed below it, and a test
//! (tests/pure/floors.rs) checks this. Code that two floors need is a module of its own, below both.

#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)] // printing panics if a write fails: use console
#![cfg_attr(test, allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap))]

// Subcommands from start to end, and their errors. Process 1 of a bare image starts them.
pub mod init;
pub mod run;
pub mod renew;
pub mod error;
pub mod fault;

// The stages of a run, the last one first.
pub mod netroot;
pub mod stateless;
pub mod handover;
pub mod status;
pub mod retrieval;
pub mod checkin;
pub mod identity;
pub mod finding;
pub mod swap;
pub mod apply;
pub mod plan;
pub mod setup;
pub mod facts;
pub mod source;
pub mod options;
pub mod medium;
pub mod site;

// Protocols and codecs.
pub mod setting;
pub mod bundle;
pub mod est;
pub mod https;
pub mod http;
pub mod tls;
pub mod dialogue;
pub mod pipe;
pub mod line;
pub mod machine;
pub mod confidential;
pub mod smbios;
pub mod link_files;
pub mod neighbour;
pub mod lldp;
pub mod dns;
pub mod dhcp6;
pub mod dhcp4;
pub mod duid;
pub mod netlink;
pub mod port;
pub mod uevent;
pub mod payload;
pub mod age;
pub mod kmod;
pub mod superblock;

// Used by several of the modules above.
pub mod certificate;
pub mod base85;
pub mod checksum;
pub mod key_code;
pub mod kernel_log;
pub mod console;
pub mod confine;
pub mod pool;
pub mod connect;
pub mod sys;
pub mod digest;
pub mod pem;
pub mod hex;
pub mod secret;
pub mod shown;
pub mod chain;
pub mod order;
pub mod trial;
pub mod time;
