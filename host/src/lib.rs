//! imprint-host makes bootstrap payloads and signs the CSRs that match a record. It never runs on a node.
//!
//! [`cli`] reads the command; [`state`] is the directory with CA and store; [`record`] compiles a node's TOML;
//! [`compose`] makes a payload of the record; [`serve`] speaks EST and asks [`enrol`]. Only [`enrol`] decides what is
//! signed. Each module uses only modules that are listed below it; a test checks this.

#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)] // they panic when writing fails
#![cfg_attr(test, allow(clippy::cast_possible_truncation, clippy::cast_sign_loss))]

// Commands.
pub mod cli;
pub mod list;
pub mod load;
pub mod serve;
pub mod inject;
pub mod talk;

// The records and the store, and the modules that decide by them.
pub mod est;
pub mod bundles;
pub mod state;
pub mod enrol;
pub mod compose;
pub mod bundle_key;
pub mod store;
pub mod record;
pub mod admission;
pub mod room;
pub mod ca;

// Formats, and helpers that several formats need.
pub mod image;
pub mod output;
pub mod iso;
pub mod vfat;
pub mod gpt;
pub mod cpio;
pub mod elf;
pub mod smbios;
pub mod qemu;
pub mod efivar;
pub mod user_data;
pub mod csr;
pub mod x509;
pub mod origin;
pub mod code;
pub mod json;
mod users;
pub mod crash;
