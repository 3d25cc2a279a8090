//! imprint-host. Reads the arguments, prints an error once, returns the exit code.

#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)] // they panic where nobody takes it

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use imprint::time::Timestamp;
use imprint_host::cli::{self, Cli};

/// musl's own allocator has one lock for all threads, which `serve` would wait for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The CA's key is in this process.
    imprint::sys::no_core_dumps();
    match cli::run(&Cli::parse(), Timestamp::system()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever is in the names of files and nodes that it tells of. The exit code says it, too, where
            // nobody takes this.
            let words = imprint::shown::line(&imprint::chain::chain(&error));
            let _ = writeln!(std::io::stderr(), "imprint-host: {words}");
            ExitCode::FAILURE
        }
    }
}
