//! The program imprint-host: reads the arguments, prints an error once, returns the exit code. Runs no command
//! itself; `cli` does.

#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)] // they panic when writing fails

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use imprint::time::Timestamp;
use imprint_host::cli::{self, Cli};

/// musl's own allocator has one lock for all threads; the threads of `serve` would wait for each other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // This process holds the CA's key, and a core dump would contain it.
    imprint::sys::no_core_dumps();
    match cli::run(&Cli::parse(), Timestamp::system()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // `line` escapes line breaks in names of files and nodes, so that the error stays on one line. A failed write is
            // ignored: the exit code reports the error as well.
            let words = imprint::shown::line(&imprint::chain::chain(&error));
            let _ = writeln!(std::io::stderr(), "imprint-host: {words}");
            ExitCode::FAILURE
        }
    }
}
