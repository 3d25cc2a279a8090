//! The console while a line is on it: the kernel's messages and systemd's status lines are held back, and come again as
//! they did before. Touches no terminal.

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

/// The quiet of the console, which all ports share: it ends with the last of them.
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

/// A console that is quiet for as long as this lives.
pub(super) struct Console {
    printk: PathBuf,
    /// The four numbers that were there (Documentation/admin-guide/sysctl/kernel.rst, printk).
    before: Option<String>,
    /// Where status lines were shown.
    systemd: Option<Systemd>,
}

impl Console {
    fn before(root: &Path) -> Console {
        let printk = root.join("proc/sys/kernel/printk");
        Console { before: std::fs::read_to_string(&printk).ok(), printk, systemd: Systemd::that_shows_status(root) }
    }

    /// What cannot be had quiet is borne: the protocol survives it.
    fn quiet(&self) {
        if self.before.is_some() {
            // Emergencies still come through.
            let _ = std::fs::write(&self.printk, "1");
        }
        if let Some(systemd) = &self.systemd {
            systemd.ask(STATUS_OFF);
        }
    }
}

/// Once more does no harm.
impl Change for Console {
    fn give_back(&self) {
        // Unless somebody has set it meanwhile.
        let now = std::fs::read_to_string(&self.printk).unwrap_or_default();
        let first = |text: &str| text.split_whitespace().next().map(str::to_owned);
        if let Some(level) = self.before.as_deref().and_then(first).filter(|_| first(&now).as_deref() == Some("1")) {
            // The first number alone; the others were not touched.
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

/// How long systemd may take to hide its status. It does so at once, unless it is busy.
const HIDDEN: Duration = Duration::from_secs(2);

/// systemd(1), "SIGNALS": status lines on the console on and off; the numbers are offsets from SIGRTMIN.
const STATUS_ON: c_int = 20;
const STATUS_OFF: c_int = 21;

/// SIGRTMIN of a program that is linked with glibc: the kernel's is 32, and glibc keeps two for its threads
/// (signal(7), "Real-time signals"). What counts is the C library of whoever gets the signal, not that of this program:
/// the agent is linked with musl, which keeps three, and its SIGRTMIN + 21 would be systemd's + 22, which is "log at
/// debug level".
const SIGRTMIN_GLIBC: c_int = 34;
/// The same with musl, which systemd can be linked with from version 259 on.
const SIGRTMIN_MUSL: c_int = 35;

/// systemd as PID 1, while its status lines are on.
struct Systemd {
    sigrtmin: c_int,
    /// There while status lines are shown (systemd, src/core/manager.c, set_show_status_marker).
    marker: PathBuf,
}

impl Systemd {
    /// `None`: it is not there, or it shows nothing. It is not told to begin with what it did not do: neither where the
    /// kernel command line says so, nor where a configuration file does, which its marker shows.
    fn that_shows_status(root: &Path) -> Option<Systemd> {
        let marker = root.join("run/systemd/show-status");
        let cmdline = std::fs::read_to_string(root.join("proc/cmdline")).unwrap_or_default();
        let shows = root.join("run/systemd/system").exists() && marker.exists() && shows_status(&cmdline);
        shows.then(|| Systemd { sigrtmin: sigrtmin(root), marker })
    }

    fn ask(&self, offset: c_int) {
        sys::signal_init(self.sigrtmin.saturating_add(offset));
    }

    /// Signals that wait to be taken are taken in the order of their numbers, not in that in which they were sent
    /// (signal(7)): "on" would come before "off" if systemd had no time for either, and status lines would stay off.
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

/// That of PID 1, by what its memory is made of (proc_pid_maps(5)).
fn sigrtmin(root: &Path) -> c_int {
    let maps = std::fs::read(root.join("proc/1/maps")).unwrap_or_default();
    let name = b"/ld-musl-";
    if maps.windows(name.len()).any(|window| window == name) { SIGRTMIN_MUSL } else { SIGRTMIN_GLIBC }
}

/// Whether the kernel command line lets systemd show what it does (kernel-command-line(7)). With `auto` or `error` it
/// shows some of it, sometimes, and no signal brings that back.
fn shows_status(cmdline: &str) -> bool {
    // In an initramfs with "rd." before it, too (systemd, src/basic/proc-cmdline.c); alone it means yes.
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

    /// It is busy, and takes "off" only when "on" would be on its way already.
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
