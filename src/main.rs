//! The program's entry point: parses the subcommand, runs it, prints the error chain once and returns the exit code.
//! Never makes another decision.

#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)] // printing panics if a write fails: use console

#[cfg(all(panic = "abort", target_env = "musl"))]
mod unwind;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use argh::FromArgs;
use imprint::chain::chain;
use imprint::error::Error;
use imprint::options::{SourceName, source_named};
use imprint::source::reader;
use imprint::time::Timestamp;
use imprint::{console, fault, init, renew, run, trial};

/// Gives a machine its identity in the first second of its life.
///
/// Exit codes: 0 done, or nothing found under imprint=auto; 2 usage; 10 options, 11 source, 12 payload, 13 plan,
/// 14 clock, 15 entropy, 16 network, 17 identity, 18 check-in, 19 hand-over, 20 bundle; 70 a fault of imprint itself.
#[derive(FromArgs)]
struct Arguments {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Run(Run),
    Check(Check),
    Plan(Plan),
    Enroll(Enroll),
    Renew(Renew),
    Reload(Reload),
    Console(Console),
    Setup(Setup),
    Root(Root),
    Apply(Apply),
    Available(Available),
    Swap(Swap),
    Network(Network),
    Status(Status),
    Version(Version),
}

/// the boot: find the payload, set clock, entropy and network, make a key, check in, hand over
#[derive(FromArgs)]
#[argh(subcommand, name = "run")]
struct Run {
    /// search here only, as imprint.source= says it; repeatable, in order. The kernel command line may narrow it
    #[argh(option, from_str_fn(source_named))]
    source: Vec<SourceName>,
}

/// validate a payload file and show it, secrets left out; without a file, the site pin, network and keys of the image
#[derive(FromArgs)]
#[argh(subcommand, name = "check")]
struct Check {
    /// root of the image (/); image builders give theirs before they pack it
    #[argh(option)]
    image: Option<PathBuf>,
    #[argh(positional)]
    file: Option<PathBuf>,
}

/// show what a payload file would do on this machine, and do nothing
#[derive(FromArgs)]
#[argh(subcommand, name = "plan")]
struct Plan {
    #[argh(positional)]
    file: PathBuf,
}

/// get a certificate on a running system; touches neither clock nor network
#[derive(FromArgs)]
#[argh(subcommand, name = "enroll")]
struct Enroll {
    /// payload file
    #[argh(option)]
    payload: PathBuf,
    /// folder for certificate and key, laid out like /run/imprint
    #[argh(option)]
    out: PathBuf,
    /// seconds until it gives up (60)
    #[argh(option, default = "60")]
    timeout: u64,
    /// seconds that an administrator may take to approve (as long as it takes)
    #[argh(option)]
    approval_timeout: Option<u64>,
}

/// replace certificate and key by new ones with the same names, before the certificate expires
#[derive(FromArgs)]
#[argh(subcommand, name = "renew")]
struct Renew {
    /// folder that run or enroll handed over (/run/imprint)
    #[argh(option, default = "PathBuf::from(\"/run/imprint\")")]
    dir: PathBuf,
    /// seconds until it gives up (60)
    #[argh(option, default = "60")]
    timeout: u64,
    /// another certificate for the same key
    #[argh(switch)]
    keep_key: bool,
    /// do nothing before two thirds of the certificate's validity have passed
    #[argh(switch)]
    if_due: bool,
}

/// have the units that /etc/imprint/reload.d lists take up a renewed certificate
#[derive(FromArgs)]
#[argh(subcommand, name = "reload")]
struct Reload {
    /// folder of the certificate (/run/imprint)
    #[argh(option, default = "PathBuf::from(\"/run/imprint\")")]
    dir: PathBuf,
}

/// enrol by hand on a node's console: show which node it is, take a pasted payload, and enrol
#[derive(FromArgs)]
#[argh(subcommand, name = "console")]
struct Console {
    /// seconds to wait for the payload, and again for everything after it (600)
    #[argh(option, default = "600")]
    timeout: u64,
}

/// ask on this terminal what a node is to have, and write the answers to a file for imprint-host bundle make
#[derive(FromArgs)]
#[argh(subcommand, name = "setup")]
struct Setup {
    /// file for the answers, readable by its owner only (setup.toml)
    #[argh(option, default = "PathBuf::from(\"setup.toml\")")]
    out: PathBuf,
}

/// in the initramfs: fetch the root that root=imprint: names with the identity of this node, verify it, and mount it
#[derive(FromArgs)]
#[argh(subcommand, name = "root")]
struct Root {
    /// where the root is mounted (/sysroot)
    #[argh(option, default = "PathBuf::from(\"/sysroot\")")]
    to: PathBuf,
}

/// in the initramfs: lay the bundle that the boot has fetched over the root, all of it or nothing
#[derive(FromArgs)]
#[argh(subcommand, name = "apply")]
struct Apply {
    /// where the root is mounted (/sysroot)
    #[argh(option, default = "PathBuf::from(\"/sysroot\")")]
    root: PathBuf,
}

/// in the real root: start what the bundle names, and report to the configuration server that this machine is available
#[derive(FromArgs)]
#[argh(subcommand, name = "available")]
struct Available {
    /// start the units only, before the network is up; a later call looks after the rest
    #[argh(switch)]
    early: bool,
}

/// swap space on a local disk, encrypted with a key that is made anew at each boot and kept nowhere
#[derive(FromArgs)]
#[argh(subcommand, name = "swap")]
struct Swap {
    #[argh(subcommand)]
    command: SwapCommand,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum SwapCommand {
    Prepare(SwapPrepare),
    On(SwapOn),
}

/// by hand: write the marker to a partition with the type Linux swap, so that each boot uses it; asks twice
#[derive(FromArgs)]
#[argh(subcommand, name = "prepare")]
struct SwapPrepare {
    /// the partition: /dev/vdb2
    #[argh(positional)]
    device: PathBuf,
}

/// in the initramfs: use the partitions with the marker, as imprint.swap= says
#[derive(FromArgs)]
#[argh(subcommand, name = "on")]
struct SwapOn {}

/// show each link of this machine: carrier, speed, driver, VLANs on the wire, the switch at the other end, addresses
#[derive(FromArgs)]
#[argh(subcommand, name = "network")]
struct Network {
    /// seconds to listen for the switch and for frames (5); switches speak every 30 s, as a rule
    #[argh(option, default = "5")]
    listen: u64,
}

/// show what the last run did
#[derive(FromArgs)]
#[argh(subcommand, name = "status")]
struct Status {
    /// show only why the last run failed, and what to do; nothing if it did not fail
    #[argh(switch)]
    reason: bool,
}

/// show the version
#[derive(FromArgs)]
#[argh(subcommand, name = "version")]
struct Version {}

const VERSION: &str = concat!("imprint ", env!("CARGO_PKG_VERSION"), "\n");

/// The exit code for wrong usage.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    fault::watch();
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(code) = init::called(&words) {
        return code;
    }
    let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    if let Some((&reader::WORD, words)) = words.split_first() {
        return if reader::serve(words).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    // argh has no option that acts as a command, so `--version` is handled here.
    if let ["--version" | "-V"] = words.as_slice() {
        console::answer(VERSION);
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::from_args(&["imprint"], &words) {
        Ok(arguments) => arguments,
        Err(early) if early.status.is_ok() => {
            console::answer(&early.output);
            return ExitCode::SUCCESS;
        }
        Err(early) => {
            console::usage(&early.output);
            return ExitCode::from(USAGE);
        }
    };
    imprint::sys::no_core_dumps();
    let root = &trial::root();
    let result = match arguments.command {
        Command::Run(Run { source }) => {
            // The person at the console needs the one line that says what is wrong.
            console::also_on(root.join("dev/console"));
            run::boot_from(root, &source)
        }
        Command::Check(Check { image, file }) => {
            run::check(image.as_deref().unwrap_or(root), file.as_deref()).map(|text| console::answer(&text))
        }
        Command::Plan(Plan { file }) => run::plan(root, &file).map(|text| console::answer(&text)),
        Command::Enroll(Enroll { payload, out, timeout, approval_timeout }) => {
            let approval = approval_timeout.map(Duration::from_secs);
            run::enroll(root, &payload, &out, Duration::from_secs(timeout), approval)
        }
        Command::Renew(Renew { dir, timeout, keep_key, if_due }) => {
            let request = renew::Request { timeout: Duration::from_secs(timeout), keep_key, if_due };
            renew::renew(&dir, request, Timestamp::system())
        }
        Command::Reload(Reload { dir }) => run::reload(root, &dir),
        Command::Console(Console { timeout }) => run::console(root, Duration::from_secs(timeout)),
        Command::Setup(Setup { out }) => run::setup(root, &out),
        Command::Root(Root { to }) => {
            console::also_on(root.join("dev/console"));
            run::root(root, &to)
        }
        Command::Apply(Apply { root: new }) => {
            console::also_on(root.join("dev/console"));
            run::apply(root, &new)
        }
        Command::Available(Available { early }) => run::available(root, early),
        Command::Swap(Swap { command: SwapCommand::Prepare(SwapPrepare { device }) }) => {
            run::swap_prepare(root, &device)
        }
        Command::Swap(Swap { command: SwapCommand::On(SwapOn {}) }) => {
            console::also_on(root.join("dev/console"));
            run::swap_on(root)
        }
        Command::Network(Network { listen }) => {
            run::network(root, Duration::from_secs(listen)).map(|text| console::answer(&text))
        }
        Command::Status(Status { reason }) => run::status(root, reason).map(|text| console::answer(&text)),
        Command::Version(Version {}) => {
            console::answer(VERSION);
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn report(error: &Error) -> ExitCode {
    console::complain(&chain(error));
    ExitCode::from(error.stage().1)
}
