//! The arguments of `imprint-host bundle`. Runs no command.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use imprint::age::Recipient;

use crate::bundles::Which;

#[derive(Subcommand)]
pub(in crate::cli) enum BundleCommand {
    /// Make a node's next version and sign it: of files, or of the record's [set]
    Make(MakeArgs),
    /// Show a version: its files and units if this host holds the key, else its digests
    Show {
        /// Name of the record
        node: String,
        /// Which version, or "pending" for the bundle that waits; the newest one when left out
        #[arg(value_parser = which)]
        bundle: Option<Which>,
        /// Write the age file to this file, for age -d
        #[arg(long, value_name = "FILE")]
        age: Option<PathBuf>,
        /// Write all of the content to this new file, for tar -tvf; it may have secrets, so only you can read it
        #[arg(long, value_name = "FILE")]
        tar: Option<PathBuf>,
    },
    /// Show what differs between two bundles: when left out, between the newest version and the bundle that waits, or else the
    /// version before
    Diff {
        /// Name of the record
        node: String,
        /// A version, or "pending" for the bundle that waits
        #[arg(value_parser = which, requires = "new")]
        old: Option<Which>,
        /// The same
        #[arg(value_parser = which)]
        new: Option<Which>,
    },
    /// List the bundles of a node, or of all nodes
    List {
        /// Name of the record
        node: Option<String>,
    },
    /// Make the bundle that waits the node's next version: compare the code with the one on the node's console
    Approve {
        /// Name of the record
        node: String,
        /// Code of the bundle, like 7K3M-Q0ZT-N4V8-XW1C
        code: String,
    },
    /// Deny the bundle that waits; the same one is refused from then on
    Deny {
        /// Name of the record
        node: String,
        /// Code of the bundle, like 7K3M-Q0ZT-N4V8-XW1C
        code: String,
    },
    /// Sign versions anew that another key has signed than the one that signs now: the same content, the next version
    Sign {
        /// Names of records
        #[arg(value_name = "NODE", required_unless_present = "all")]
        nodes: Vec<String>,
        /// All nodes whose version another key has signed
        #[arg(long, conflicts_with = "nodes")]
        all: bool,
    },
    /// Make a new version with the content of an old one
    Rollback {
        /// Name of the record
        node: String,
        /// The old version
        counter: u64,
    },
    /// Remove the content of a version; its number is not used again
    Remove {
        /// Name of the record
        node: String,
        /// The version
        counter: u64,
    },
    /// Tell the node to make another bundle at its next boot, also if it has one
    Renew {
        /// Name of the record
        node: String,
        /// Take that back: the node gets the version that there is
        #[arg(long)]
        cancel: bool,
    },
}

#[derive(Args)]
pub(in crate::cli) struct MakeArgs {
    /// Name of the record
    pub(in crate::cli) node: String,
    /// A folder with the files of the root, or a file in TOML with [set], [[file]], [[link]], [[directory]], enable, restart and
    /// reload
    #[arg(long, value_name = "DIR|FILE")]
    pub(in crate::cli) from: Option<PathBuf>,
    /// Somebody who can open the bundle, too: age1…; repeat it for more
    #[arg(long, value_name = "AGE1", value_parser = recipient)]
    pub(in crate::cli) recipient: Vec<Recipient>,
    /// An age file that was encrypted elsewhere for the node's key
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "recipient"])]
    pub(in crate::cli) age: Option<PathBuf>,
    /// The new version gets a counter above this one: after a restore from a backup, the highest that the node can have been given
    #[arg(long, value_name = "COUNTER")]
    pub(in crate::cli) above: Option<u64>,
}

fn which(text: &str) -> Result<Which, String> {
    match (text, text.parse()) {
        ("pending", _) => Ok(Which::Waiting),
        (_, Ok(counter)) => Ok(Which::Version(counter)),
        _ => Err("want the number of a version, or \"pending\" for the bundle that waits".to_owned()),
    }
}

fn recipient(text: &str) -> Result<Recipient, String> {
    Recipient::parse(text).map_err(|error| error.to_string())
}
