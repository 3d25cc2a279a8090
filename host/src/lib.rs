//! imprint-host makes bootstrap payloads and signs the CSRs that match what was injected.
//!
//! [`cli`] reads the command; [`state`] is the directory with CA and store; [`record`] compiles a node's TOML;
//! [`compose`] makes a payload of it; [`serve`] speaks EST and asks [`enrol`], which alone decides what is signed.

#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)] // they panic where nobody takes it
#![cfg_attr(test, allow(clippy::cast_possible_truncation, clippy::cast_sign_loss))]

pub mod cli;
pub mod state;
pub mod record;
pub mod compose;
pub mod iso;
pub mod vfat;
pub mod cpio;
pub mod output;
pub mod list;
pub mod csr;
pub mod enrol;
pub mod serve;
pub mod inject;
pub mod est;
pub mod store;
pub mod ca;
pub mod x509;
pub mod origin;
pub mod room;
pub mod crash;
pub mod json;
mod users;
pub mod load;
