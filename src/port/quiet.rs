//! Silences the console while a line uses it: turns off the kernel's messages and systemd's status lines, and turns
//! them on again afterwards. Never changes a terminal's settings.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::libc::c_int;
use nix::poll::{PollFd, PollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::fd::AsFd;

use super::undo::{self, Change};
use crate::sys;
use crate::time::Deadline;

/// The silence of the console. All ports share it; it ends when the last port is given back.
#[derive(Default)]
pub struct Quiet(Weak<Console>);

impl Quiet {
    pub(super) fn keep(&mut self, root: &Path) -> Arc<Console> {
        self.0.upgrade().unwrap_or_else(|| {
            let console = Arc::new(Console::before(root));
            let change: Arc<dyn Change> = console.clone();
            undo::register(Arc::downgrade(&change));
            console.quiet();
            self.0 = Arc::downgrade(&console);
            console
        })
    }
}

/// The console stays silent until this value is dropped.
pub(super) struct Console {
    printk: PathBuf,
    /// The four numbers before the change (Documentation/admin-guide/sysctl/kernel.rst, printk).
    before: Option<String>,
    /// systemd, if it showed status lines.
    systemd: Option<Systemd>,
}

impl Console {
    fn before(root: &Path) -> Console {
        let printk = root.join("proc/sys/kernel/printk");
        Console { before: std::fs::read_to_string(&printk).ok(), printk, systemd: Systemd::that_shows_status(root) }
    }

    /// Errors are ignored: the line protocol survives messages on the console.
    fn quiet(&self) {
        if self.before.is_some() {
            // Emergency messages are still shown.
            let _ = std::fs::write(&self.printk, "1");
        }
        if let Some(systemd) = &self.systemd {
            systemd.ask(STATUS_OFF);
        }
    }
}

/// Undoing twice does no harm.
impl Change for Console {
    fn give_back(&self) {
        // If another program has changed the level meanwhile, leave it.
        let now = std::fs::read_to_string(&self.printk).unwrap_or_default();
        let first = |text: &str| text.split_whitespace().next().map(str::to_owned);
        if let Some(level) = self.before.as_deref().and_then(first).filter(|_| first(&now).as_deref() == Some("1")) {
            // Write the first number only; the others were not changed.
            let _ = std::fs::write(&self.printk, level);
        }
        if let Some(systemd) = &self.systemd {
            systemd.until_hidden(Deadline::after(HIDDEN));
            systemd.ask(STATUS_ON);
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// How long systemd may take to hide its status lines. It does so at once unless it is busy.
const HIDDEN: Duration = Duration::from_secs(2);

/// systemd(1), "SIGNALS": turn status lines on the console on and off. The numbers are offsets from SIGRTMIN.
const STATUS_ON: c_int = 20;
const STATUS_OFF: c_int = 21;

/// SIGRTMIN of a program that is linked with glibc: the kernel's is 32, and glibc reserves two signals for its threads
/// (signal(7), "Real-time signals"). The C library of the receiver counts, not that of the sender. The agent is linked
/// with musl, which reserves three: its SIGRTMIN + 21 would be systemd's SIGRTMIN + 22, which means "log at debug
/// level".
const SIGRTMIN_GLIBC: c_int = 34;
/// SIGRTMIN of a program that is linked with musl. systemd can be linked with musl from version 259 on.
const SIGRTMIN_MUSL: c_int = 35;

/// systemd as PID 1, while its status lines are on.
struct Systemd {
    sigrtmin: c_int,
    /// This file exists while status lines are shown (systemd, src/core/manager.c, set_show_status_marker).
    marker: PathBuf,
}

impl Systemd {
    /// `None` if systemd does not run or shows no status lines; then it must not be told to show them afterwards. The
    /// kernel command line can turn the status lines off, and so can a configuration file. The marker shows the effect
    /// of the file.
    fn that_shows_status(root: &Path) -> Option<Systemd> {
        let marker = root.join("run/systemd/show-status");
        let cmdline = std::fs::read_to_string(root.join("proc/cmdline")).unwrap_or_default();
        let shows = root.join("run/systemd/system").exists() && marker.exists() && shows_status(&cmdline);
        shows.then(|| Systemd { sigrtmin: sigrtmin(root), marker })
    }

    fn ask(&self, offset: c_int) {
        sys::signal_init(self.sigrtmin.saturating_add(offset));
    }

    /// Waits until systemd has handled "off". Pending signals are delivered in the order of their numbers, not in the
    /// order in which they were sent (signal(7)). A busy systemd would handle "on" before "off", and status lines would
    /// stay off.
    fn until_hidden(&self, until: Deadline) {
        let (Some(folder), Ok(inotify)) =
            (self.marker.parent(), Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK))
        else {
            return;
        };
        if inotify.add_watch(folder, AddWatchFlags::IN_DELETE).is_err() {
            return;
        }
        while self.marker.exists() {
            let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
            if !sys::poll(&mut fds, until).unwrap_or(false) {
                return;
            }
            while inotify.read_events().is_ok() {}
        }
    }
}

/// SIGRTMIN of PID 1. The memory map of PID 1 shows its C library (proc_pid_maps(5)).
fn sigrtmin(root: &Path) -> c_int {
    let maps = std::fs::read(root.join("proc/1/maps")).unwrap_or_default();
    let name = b"/ld-musl-";
    if maps.windows(name.len()).any(|window| window == name) { SIGRTMIN_MUSL } else { SIGRTMIN_GLIBC }
}

/// Whether the kernel command line lets systemd show its status lines (kernel-command-line(7)). With `auto` or `error`
/// systemd shows some of them, sometimes; no signal restores that mode, so the result is false.
fn shows_status(cmdline: &str) -> bool {
    // In an initramfs the word may begin with "rd." (systemd, src/basic/proc-cmdline.c). Without a value it means yes.
    let value = |word: &str| {
        let (key, value) = word.split_once('=').unwrap_or((word, "yes"));
        let key = key.strip_prefix("rd.").unwrap_or(key).replace('-', "_");
        (key == "systemd.show_status").then(|| value.to_ascii_lowercase())
    };
    match cmdline.split_whitespace().rev().find_map(value).as_deref() {
        Some(value) => matches!(value, "1" | "yes" | "y" | "true" | "t" | "on"),
        None => !cmdline.split_whitespace().any(|word| word == "quiet"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn systemd_is_told_to_show_only_what_it_showed() {
        for (cmdline, shows) in [
            ("console=ttyS0", true),
            ("console=ttyS0 quiet", false),
            ("quiet systemd.show_status=1", true),
            ("systemd.show_status=true systemd.show_status=error", false),
            ("systemd.show_status=auto", false),
            ("quiet rd.systemd.show-status", true),
            ("systemd.show_status=Y quiet", true),
            ("rd.systemd.show_status= ", false),
        ] {
            assert_eq!(shows_status(cmdline), shows, "{cmdline}");
        }
    }

    /// A configuration file in the image may hide what the kernel command line would show.
    #[test]
    fn a_systemd_that_shows_nothing_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("proc")).unwrap();
        fs::write(root.join("proc/cmdline"), "console=ttyS0\n").unwrap();
        assert!(Systemd::that_shows_status(root).is_none(), "there is none");
        fs::create_dir_all(root.join("run/systemd/system")).unwrap();
        assert!(Systemd::that_shows_status(root).is_none(), "it shows nothing");
        fs::write(root.join("run/systemd/show-status"), "").unwrap();
        assert!(Systemd::that_shows_status(root).is_some());
        fs::write(root.join("proc/cmdline"), "console=ttyS0 quiet\n").unwrap();
        assert!(Systemd::that_shows_status(root).is_none(), "it shows something for the moment only");
    }

    /// systemd(1): SIGRTMIN+20 and SIGRTMIN+21, counted as PID 1 counts.
    #[test]
    fn signals_have_the_numbers_of_whoever_gets_them() {
        let root = tempfile::tempdir().unwrap();
        let maps = root.path().join("proc/1/maps");
        assert_eq!(sigrtmin(root.path()), 34);
        fs::create_dir_all(maps.parent().unwrap()).unwrap();
        // /proc/1/maps of Debian 12 and of Alpine 3.22, shortened.
        fs::write(
            &maps,
            "7f3a5c028000-7f3a5c02a000 rw-p 00032000 fe:01 1966 /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2\n",
        )
        .unwrap();
        assert_eq!(sigrtmin(root.path()), 34);
        fs::write(&maps, "7f3a5c028000-7f3a5c02a000 r-xp 00000000 fe:01 1966 /lib/ld-musl-x86_64.so.1\n").unwrap();
        assert_eq!(sigrtmin(root.path()), 35);
    }

    /// A busy systemd handles "off" late; "on" must not be sent before that.
    #[test]
    fn on_is_not_said_before_off_was_heard() {
        let root = tempfile::tempdir().unwrap();
        let marker = root.path().join("show-status");
        fs::write(&marker, "").unwrap();
        let systemd = Systemd { sigrtmin: 0, marker: marker.clone() };
        let thread = std::thread::spawn(move || {
            systemd.until_hidden(Deadline::after(Duration::from_secs(60)));
            !systemd.marker.exists()
        });
        fs::remove_file(&marker).unwrap();
        assert!(thread.join().unwrap());
    }
}
