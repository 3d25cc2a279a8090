//! imprint-host. Reads the arguments, prints an error once, returns the exit code.

use std::process::ExitCode;

use clap::Parser;
use imprint::time::Timestamp;
use imprint_host::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::run(&Cli::parse(), Timestamp::system()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("imprint-host: {}", imprint::chain::chain(&error));
            ExitCode::FAILURE
        }
    }
}
