//! imprint gives a machine its identity in the first second of its life.
//!
//! Data flows one way, and the modules stand in that order:
//!
//! ```text
//! options → source → payload → plan → apply → identity → check-in → hand-over
//!           bytes    decode    pure   clock    key, CSR   EST/TLS     /run
//!                                     entropy
//!                                     network
//! ```
//!
//! Each step takes only what the one before returns; [`run`] tells the story on one screen. All decisions are in the
//! pure [`mod@plan`]; [`apply`] only acts. One door leads back: the check-in may ask `apply` for the things listed in
//! [`checkin::Ask`], by value. Codecs (payload, ISO 9660, EST bodies, netlink messages) are pure, bytes to values and
//! back, and are shared with the host tool.

#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)] // they panic where nobody takes it: use console
#![cfg_attr(test, allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap))]

pub mod run;
pub mod renew;
pub mod fault;
pub mod options;
pub mod source;
pub mod payload;
pub mod facts;
pub mod plan;
pub mod apply;
pub mod identity;
pub mod checkin;
pub mod est;
pub mod tls;
pub mod handover;
pub mod status;

pub mod error;
pub mod console;
pub mod chain;
pub mod confine;
pub mod certificate;
pub mod digest;
pub mod key_code;
pub mod hex;
pub mod line;
pub mod dialogue;
pub mod port;
pub mod netlink;
pub mod uevent;
pub mod dhcp4;
pub mod neighbour;
mod checksum;
pub mod machine;
pub mod smbios;
pub mod pem;
pub mod pool;
pub mod secret;
pub mod shown;
pub mod time;
pub mod trial;
pub mod sys;
