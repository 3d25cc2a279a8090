//! The agent as `/init` of a bare image: an image that has no other program. Process 1 mounts what a system needs, has the drivers
//! loaded, runs the boot, and enters the root or starts the program that follows; or it says what went wrong and asks at a prompt.
//!
//! Process 1 itself only starts processes and waits for them. Whatever reads bytes that others vouch for, loads drivers or may hang with a
//! device is a process of its own, which starts this program again: a fault there ends that process, and its reason stands at the
//! prompt. Process 1 never exits: the kernel would panic, and the reason would be gone.

mod children;
mod error;
mod load;
mod mounts;
mod names;
mod prompt;
mod root;
mod switch;
mod worker;

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sys::reboot::RebootMode;

pub use error::{Ended, InitError, LoadError};

use crate::chain::chain;
use crate::console::{complain, say};
use crate::handover::{self, staged};
use crate::options::{BootWords, ImageWords, Rescue, Root};
use crate::run;
use crate::source::{self, reader, unpacked};
use children::{Children, Task};
use prompt::Typed;

/// What a bare image needs beside the agent, by its path in the image: modules that are loaded first, one name a line.
pub const LISTED: &str = "imprint/modules";
/// The folder in which process 1 keeps what only the initramfs needs ([`crate::uevent::LOADER`]).
const FOLDER: &str = crate::uevent::LOADER;
/// Where the root is mounted.
const SYSROOT: &str = "sysroot";
/// The folder of the hand-over.
const RUN_DIR: &str = "run/imprint";
/// How long the reason stands on the console before the machine reboots or is switched off.
const PAUSE: Duration = Duration::from_secs(10);
/// Begins process 1 again at the prompt, after a fault.
const AGAIN: &str = "imprint-init-again";
/// Modules that are listed, and after them those that devices need.
const LOAD_LISTED: &str = "init-listed";
const LOAD_DEVICES: &str = "init-devices";
/// Finds and mounts the root.
const MOUNT_ROOT: &str = "init-root";
/// Says why the last run was stopped.
const WHY: &str = "init-why";

/// Does what this process was started for, if the words of its command line say that it is part of `/init`. `None`: they do not.
/// `words`: all of them, the name of the program first.
pub fn called(words: &[String]) -> Option<ExitCode> {
    let (program, words) = words.split_first()?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let name = Path::new(program).file_name().and_then(OsStr::to_str).unwrap_or_default();
    let root = Path::new("/");
    if std::process::id() == 1 && (name == "init" || words.first() == Some(&AGAIN)) {
        match words.as_slice() {
            [AGAIN, fault, rest @ ..] => first(Some(fault), rest),
            rest => first(None, rest),
        }
    }
    let result = match words.as_slice() {
        // The kernel asks for a module by a name or an alias ("fs-ext4"): kernel/kmod.c, call_modprobe.
        words if name == "modprobe" => return Some(load::modprobe(root, words)),
        [LOAD_LISTED] => load::listed(root),
        [LOAD_DEVICES] => load::devices(root),
        [MOUNT_ROOT] => root::mount(root),
        [worker::WORD] => return Some(worker::serve(|file, parameters| load::ask(root, file, parameters))),
        [WHY] => {
            let why = run::why(root);
            why.iter().for_each(|why| complain(why));
            return Some(if why.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        [names::WORD, node] => return Some(names::serve(node)),
        [prompt::WORD, tty, words @ ..] => return Some(prompt::start(tty, words)),
        _ => return None,
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let reason = format!("hand-over: {}", chain(&error));
            complain(&reason);
            // An error is ignored: the line above is on the console.
            let _ = std::fs::write(reason_of(root, std::process::id()), reason);
            ExitCode::from(EXIT_CODE)
        }
    })
}

/// The exit code of the stage hand-over, which all of this belongs to.
const EXIT_CODE: u8 = 19;

/// The file in [`FOLDER`] with the reason of a process that has failed. Several are at work at the same time.
fn reason_of(root: &Path, process: impl std::fmt::Display) -> PathBuf {
    root.join(FOLDER).join(format!("reason-{process}"))
}

/// Process 1. `fault`: what ended the one before. `words`: what the kernel gives the root's init.
fn first(fault: Option<&str>, words: &[&str]) -> ! {
    let for_init: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let again = for_init.clone();
    // A panic would end process 1, and the kernel with it.
    std::panic::set_hook(Box::new(move |info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let reason = format!("internal error at {place}; please report it");
        let error = Command::new(reader::PROGRAM).args([AGAIN, &reason]).args(&again).exec();
        complain(&format!("{reason}; and the program did not start again: {error}"));
        children::rest()
    }));
    let root = Path::new("/");
    let notes = mounts::prepare(root);
    let mut children = match Children::begin() {
        Ok(children) => children,
        Err(error) => {
            complain(&format!("process 1 cannot wait for others: {error}"));
            children::rest()
        }
    };
    notes.iter().for_each(|note| complain(note));
    if fault.is_some() {
        // Those of the one before are nobody's any more.
        children.end_all();
    }
    let words = boot_words(root);
    let mut one = One { root, children, words, for_init, loads: false };
    let mut failed = match fault {
        Some(fault) => InitError::Fault(fault.to_owned()),
        None => one.boot(),
    };
    loop {
        failed = one.rescue(&failed);
    }
}

/// The words for whoever leaves the initramfs. Files of the image that cannot be read have none: `imprint run` refuses them.
fn boot_words(root: &Path) -> BootWords {
    let image = source::cmdline::of_image(root).unwrap_or_else(|_| ImageWords::default());
    let cmdline = source::cmdline::text(root).unwrap_or_default();
    BootWords::of(&image, &cmdline)
}

/// Process 1 at work.
struct One<'a> {
    root: &'a Path,
    children: Children,
    words: BootWords,
    /// Words for the root's init: `single`, and what stands behind `--` (init/main.c, argv_init).
    for_init: Vec<String>,
    /// The process that loads drivers was started.
    loads: bool,
}

impl One<'_> {
    /// The whole boot. Returns only if it fails.
    fn boot(&mut self) -> InitError {
        match self.try_boot() {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn try_boot(&mut self) -> Result<std::convert::Infallible, InitError> {
        // It is gone where leaving the initramfs has failed. An error is ignored: it holds what helps, and nothing that is needed.
        let _ = std::fs::create_dir_all(self.root.join(FOLDER));
        self.load()?;
        self.part("imprint run", &["run"])?;
        self.leave()
    }

    /// Has the drivers loaded: those that are listed now, and those of the devices while the boot goes on.
    fn load(&mut self) -> Result<(), InitError> {
        if std::mem::replace(&mut self.loads, true) {
            return Ok(());
        }
        if self.root.join(LISTED).exists()
            && let Err(error) = self.part("loading modules", &[LOAD_LISTED])
        {
            // They are listed because the machine needs them; the next attempt loads them again.
            self.loads = false;
            return Err(error);
        }
        load::busy(self.root, true);
        self.children.helper(&[LOAD_DEVICES]).map_err(|source| InitError::Start { what: "loading drivers", source })
    }

    /// Lays the bundle over the root, and goes there.
    fn leave(&mut self) -> Result<std::convert::Infallible, InitError> {
        if let Some(next) = self.words.next.clone() {
            self.bundle("/")?;
            return self.start(&next);
        }
        match &self.words.root {
            None => return Err(InitError::NoRoot),
            Some(Root::Imprint) => self.part("imprint root", &["root", "--to", "/sysroot"])?,
            Some(_) => self.part("mounting the root", &[MOUNT_ROOT])?,
        }
        let init = switch::init(&self.root.join(SYSROOT), self.words.init.as_deref())?;
        self.bundle("/sysroot")?;
        // No boot is stopped for lack of swap space, and the agent itself has said what is wrong.
        let _ = self.part("imprint swap on", &["swap", "on"]);
        self.end_helpers();
        switch::enter(self.root, SYSROOT, &init, &self.for_init)
    }

    /// Ends what works beside the boot. The next attempt begins it again.
    fn end_helpers(&mut self) {
        self.children.end_helpers();
        self.loads = false;
    }

    /// Lays the bundle over the root, if there is one, and leaves there what says that the machine has its identity.
    fn bundle(&mut self, root: &str) -> Result<(), InitError> {
        let directory = self.root.join(RUN_DIR);
        let no_bundle = matches!(staged::read(&directory), Ok(None)) && !staged::is_anew(&directory);
        if no_bundle && (root == "/" || !handover::is_complete(&directory)) {
            return Ok(());
        }
        self.part("imprint apply", &["apply", "--root", root])
    }

    /// What `imprint.next=` names.
    fn start(&mut self, next: &[String]) -> Result<std::convert::Infallible, InitError> {
        let Some((program, arguments)) = next.split_first() else { return Err(InitError::NoRoot) };
        let failed = |source| InitError::Next { program: program.clone(), source };
        switch::is_program(&switch::resolved(self.root, program).map_err(failed)?).map_err(failed)?;
        if matches!(program.rsplit('/').next(), Some("init" | "systemd")) {
            self.end_helpers();
            switch::forget(self.root);
            return Err(failed(children::become_program(Command::new(program).args(arguments))));
        }
        say(&format!("starting {program}"));
        let task = Task { program, words: &arguments.iter().map(String::as_str).collect::<Vec<_>>(), tty: None };
        let ended = self.children.run(&task).map_err(failed)?;
        Err(InitError::NextEnded { program: program.clone(), ended })
    }

    /// Runs a part of the boot in a process of its own.
    fn part(&mut self, what: &'static str, words: &[&str]) -> Result<(), InitError> {
        let task = Task { program: reader::PROGRAM, words, tty: None };
        let (pid, ended) = self.children.run_as(&task).map_err(|source| InitError::Start { what, source })?;
        if ended == Ended::Exit(0) {
            return Ok(());
        }
        let reason = reason_of(self.root, pid);
        Err(match std::fs::read_to_string(&reason) {
            Ok(words) => {
                // An error is ignored: another process of this number writes it anew.
                let _ = std::fs::remove_file(reason);
                InitError::Said(words)
            }
            Err(_) => InitError::Part { what, ended },
        })
    }

    /// What `imprint.rescue=` asks for. Returns the next failure.
    fn rescue(&mut self, failed: &InitError) -> InitError {
        let (mode, word) = match self.words.rescue {
            Rescue::Prompt => return self.ask(failed),
            Rescue::Reboot => (RebootMode::RB_AUTOBOOT, "reboots"),
            Rescue::PowerOff => (RebootMode::RB_POWER_OFF, "is switched off"),
        };
        say(&format!("the machine {word} in {} s (imprint.rescue= on the kernel command line)", PAUSE.as_secs()));
        self.reason(failed);
        self.children.pause(PAUSE);
        self.children.shut_down(self.root, mode)
    }

    /// The prompt. Returns when something that was typed has failed.
    fn ask(&mut self, failed: &InitError) -> InitError {
        let tty = prompt::terminal(self.root);
        let shell = prompt::SHELL;
        let has_shell = self.root.join(shell.trim_start_matches('/')).exists();
        say(&prompt::words(has_shell));
        self.reason(failed);
        loop {
            let typed = self.children.line(&tty, prompt::PROMPT);
            let mut on_tty = |program: &str, words: &[&str]| {
                let ended = self.children.run(&Task { program, words, tty: Some(&tty) });
                ended.inspect_err(|error| complain(&format!("starting {program}: {error}")))
            };
            match Typed::parse(&typed) {
                Some(Typed::Run) => return self.boot(),
                Some(Typed::Console) => {
                    let ended = on_tty(reader::PROGRAM, &["console"]);
                    if matches!(ended, Ok(Ended::Exit(0))) && handover::is_complete(&self.root.join(RUN_DIR)) {
                        return match self.leave() {
                            Ok(never) => match never {},
                            Err(error) => error,
                        };
                    }
                }
                Some(Typed::Setup) => drop(on_tty(reader::PROGRAM, &["setup", "--out", "/run/setup.toml"])),
                Some(Typed::Status) => drop(on_tty(reader::PROGRAM, &["status"])),
                Some(Typed::Shell) if has_shell => drop(on_tty(shell, &[])),
                Some(Typed::Reboot) => self.children.shut_down(self.root, RebootMode::RB_AUTOBOOT),
                Some(Typed::PowerOff) => self.children.shut_down(self.root, RebootMode::RB_POWER_OFF),
                Some(Typed::Shell) | None => say(&prompt::words(has_shell)),
            }
        }
    }

    /// Why the boot was stopped, as the last thing on the console.
    fn reason(&mut self, failed: &InitError) {
        if let Some(note) = unpacked::fault(self.root) {
            complain(&note);
        }
        let task = Task { program: reader::PROGRAM, words: &[WHY], tty: None };
        if !matches!(failed, InitError::Part { .. }) || !matches!(self.children.run(&task), Ok(Ended::Exit(0))) {
            complain(&chain(failed));
        }
    }
}
