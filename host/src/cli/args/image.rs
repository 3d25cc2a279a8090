//! The arguments of `imprint-host image`, as clap parses them. Runs no command.

use std::path::PathBuf;

use clap::Args;

use crate::image::{Added, Compress};

#[derive(Args)]
pub(in crate::cli) struct ImageArgs {
    /// Folder with the modules of a kernel: lib/modules/VERSION
    #[arg(long, value_name = "FOLDER")]
    pub(in crate::cli) kernel_modules: PathBuf,
    /// Where to: a file is made anew
    #[arg(short, long)]
    pub(in crate::cli) output: PathBuf,
    /// Site pin of the image: the lines that init and signer print
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) site: Option<PathBuf>,
    /// Network before the payload: what imprint-host network makes
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) network: Option<PathBuf>,
    /// Admission key. Everybody who can read the image has it
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) key: Option<PathBuf>,
    /// Bundle key. Everybody who can read the image can read the bundles of its nodes
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) bundle_key: Option<PathBuf>,
    /// More modules: names with commas between them, or =FOLDER for all in a folder like =drivers/scsi; repeat it for more. One that
    /// no device announces is loaded at the start
    #[arg(long, value_name = "LIST")]
    pub(in crate::cli) modules: Vec<String>,
    /// Only the modules of --modules and what they need
    #[arg(long, requires = "modules")]
    pub(in crate::cli) only: bool,
    /// Put in the firmware that the modules ask for, from this folder: /lib/firmware
    #[arg(long, value_name = "FOLDER")]
    pub(in crate::cli) firmware: Option<PathBuf>,
    /// The agent; the file imprint beside this program, or /usr/bin/imprint, when left out
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) agent: Option<PathBuf>,
    /// How the image is compressed
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Compress::Zstd)]
    pub(in crate::cli) compress: Compress,
    /// Words like those of the kernel command line, which replaces them: imprint=require
    #[arg(long, value_name = "WORDS")]
    pub(in crate::cli) words: Option<String>,
    /// Program that is started in the place of a root: it goes in, and the word imprint.next= that names it
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) next: Option<PathBuf>,
    /// Make a medium for USB drives and optical discs that starts this image by BIOS and UEFI; it needs grub-mkrescue
    #[arg(long, requires = "kernel")]
    pub(in crate::cli) iso: bool,
    /// The kernel of that medium: vmlinuz
    #[arg(long, value_name = "FILE", requires = "iso")]
    pub(in crate::cli) kernel: Option<PathBuf>,
    /// Words for the kernel command line of that medium
    #[arg(long, value_name = "WORDS", requires = "iso", default_value = "")]
    pub(in crate::cli) append: String,
    /// Put a file or folder in; repeat it for more
    #[arg(long, value_name = "SOURCE:DESTINATION", value_parser = added)]
    pub(in crate::cli) add: Vec<Added>,
}

fn added(text: &str) -> Result<Added, String> {
    Added::parse(text).map_err(|error| error.to_string())
}
