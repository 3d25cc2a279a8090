//! Tests of `imprint apply` with real overlays, on a root in a file system of its own: what lies where afterwards, that the root's
//! own bytes stay, and that a kill at any point leaves the old configuration or the new one.

mod kills;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use imprint::apply::root::POINTS;
use imprint::bundle::{Bundle, Content, Entry, EntryPath, UnitAction, Verb};
use imprint::digest::sha256;
use imprint::handover::staged::{self, Description};
use imprint::payload::{NodeName, UnitName};
use imprint::secret::Secret;
use imprint::status::{BundleState, Status, Timeline};
use imprint_tests::programs::agent;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::namespaces;

const NONE: Option<&str> = None;

/// A machine in its initramfs: its folders, and the place where its root is mounted.
struct Machine {
    work: tempfile::TempDir,
}

impl Machine {
    /// In namespaces of its own, in which all mounts are shared, as systemd has it.
    fn new() -> Machine {
        namespaces();
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE).unwrap();
        Machine::again()
    }

    /// In the namespaces of an earlier one.
    fn again() -> Machine {
        let machine = Machine { work: tempfile::tempdir().unwrap() };
        for folder in ["sysroot", "plain", "machine/run/imprint/private"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        fs::write(machine.path("machine/run/imprint/.lock"), "").unwrap();
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.work.path().join(path)
    }

    /// A file of the root, as whoever enters it sees it.
    fn seen(&self, path: &str) -> Option<String> {
        let path = self.path("sysroot").join(path);
        match fs::symlink_metadata(&path) {
            Ok(there) if there.is_symlink() => Some(format!("-> {}", fs::read_link(&path).unwrap().display())),
            Ok(_) => Some(fs::read_to_string(&path).unwrap()),
            Err(_) => None,
        }
    }

    /// A root without a disk: a folder, bound to its place.
    fn plain_root(&self) {
        tree(&self.path("plain"));
        mount(Some(&self.path("plain")), &self.path("sysroot"), NONE, MsFlags::MS_BIND, NONE).unwrap();
    }

    /// A root on a disk, mounted with these options. Returns the image.
    fn disk(&self, options: &str) -> PathBuf {
        tree(&self.path("plain"));
        let image = self.path("image");
        fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
        let lazy = "lazy_itable_init=0,lazy_journal_init=0";
        let made = ["-q", "-t", "ext4", "-E", lazy, "-d"];
        run(Command::new("/usr/sbin/mke2fs").args(made).arg(self.path("plain")).arg(&image));
        run(Command::new("mount").args(["-o", &format!("loop,{options}")]).arg(&image).arg(self.path("sysroot")));
        image
    }

    fn leave(&self, counter: u64, entries: Vec<Entry>, units: Vec<UnitAction>) {
        let node = NodeName::try_from("node1").unwrap();
        let described = units.iter().map(|action| (action.verb.word().to_owned(), action.unit.to_string())).collect();
        let bundle = Bundle::new(node, counter, units, entries).unwrap();
        let directory = self.path("machine/run/imprint");
        let description = Description {
            version: staged::VERSION,
            node: "node1".to_owned(),
            counter,
            sha256: "00".repeat(32),
            code: "7K3M-Q0ZT-N4V8-XW1C".to_owned(),
            signer: "0123456789abcdef".to_owned(),
            approver: "alice".to_owned(),
            signed: "2026-11-23T00:00:00Z".to_owned(),
            units: described,
            url: "https://localhost:1/.well-known/imprint".to_owned(),
        };
        staged::write(&directory, &description, &bundle.tar()).unwrap();
        let mut timeline = Timeline::new(|_| ());
        timeline.staged(counter, description.code);
        // As a boot hands it over.
        fs::create_dir_all(directory.join(".generation-1")).unwrap();
        let _ = symlink(".generation-1", directory.join("current"));
        fs::write(directory.join("current/status.json"), serde_json::to_vec(&timeline.done()).unwrap()).unwrap();
    }

    fn status(&self) -> Status {
        serde_json::from_slice(&fs::read(self.path("machine/run/imprint/status.json")).unwrap()).unwrap()
    }

    fn agent(&self, words: &[&str]) -> Command {
        let mut command = Command::new(agent());
        command.args(words).env("IMPRINT_ROOT", self.path("machine"));
        command
    }

    fn apply(&self) -> Output {
        self.agent(&["apply", "--root"]).arg(self.path("sysroot")).output().unwrap()
    }

    #[track_caller]
    fn applied(&self) {
        let output = self.apply();
        assert!(output.status.success(), "{output:?}");
    }

    /// Exit code 20, and one line that says so.
    #[track_caller]
    fn refused(&self, words: &str) {
        let work = self.path("machine/run/imprint/root");
        let others = || self.mounts().into_iter().filter(|point| Path::new(point) != work).collect::<Vec<_>>();
        let before = others();
        let output = self.apply();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(20), 1), "{said}");
        assert!(said.contains(words), "{said}");
        let bundle = self.status().bundle.unwrap();
        assert_eq!(bundle.state, BundleState::Staged);
        assert!(said.ends_with(&format!("{}\n", bundle.error.unwrap())), "{said}");
        assert_eq!(others(), before, "nothing half-done");
    }

    /// The mount points of this machine.
    fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let points = table.lines().map(|line| line.split(' ').nth(4).unwrap().to_owned());
        points.filter(|point| Path::new(point).starts_with(self.work.path())).collect()
    }
}

/// The folder cannot be removed while something is mounted in it.
impl Drop for Machine {
    fn drop(&mut self) {
        for point in self.mounts().iter().rev() {
            let _ = umount2(Path::new(&point.replace("\\040", " ")), MntFlags::MNT_DETACH);
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What a root has of its own.
fn tree(path: &Path) {
    for folder in ["etc/ssh", "etc/pki", "usr/lib", "var/lib/chrony", "etc/odd: a,b\\c d", "root"] {
        fs::create_dir_all(path.join(folder)).unwrap();
    }
    for (name, text) in [
        ("etc/hostname", "image"),
        ("etc/machine-id", "0123456789abcdef0123456789abcdef"),
        ("etc/ssh/sshd_config", "of the image"),
        ("etc/pki/ca", "of the image"),
        ("usr/lib/os-release", "of the image"),
    ] {
        fs::write(path.join(name), text).unwrap();
    }
    symlink("/usr/share/zoneinfo/UTC", path.join("etc/localtime")).unwrap();
    symlink("../usr/lib/os-release", path.join("etc/os-release")).unwrap();
    symlink("usr/lib", path.join("lib")).unwrap();
    fs::set_permissions(path.join("root"), Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(path.join("var/lib/chrony"), Some(107), Some(114)).unwrap();
    fs::set_permissions(path.join("var/lib/chrony"), Permissions::from_mode(0o2750)).unwrap();
}

fn file(path: &str, text: &str) -> Entry {
    let content = Content::File(Secret::new(text.as_bytes().to_vec()));
    Entry { path: EntryPath::try_from(path).unwrap(), mode: 0o644, uid: 0, gid: 0, content }
}

fn link(path: &str, to: &str) -> Entry {
    Entry { content: Content::Link(to.to_owned()), mode: 0o777, ..file(path, "") }
}

fn folder(path: &str, mode: u16) -> Entry {
    Entry { content: Content::Directory, mode, ..file(path, "") }
}

fn bundle() -> Vec<Entry> {
    vec![
        file("etc/hostname", "node1"),
        link("etc/localtime", "/usr/share/zoneinfo/Europe/Berlin"),
        link("etc/systemd/system/multi-user.target.wants/x.service", "/etc/systemd/system/x.service"),
        Entry { mode: 0o600, uid: 107, gid: 114, ..file("var/lib/chrony/keys/new/key", "secret") },
        folder("root/.ssh", 0o700),
        Entry { mode: 0o600, ..file("root/.ssh/authorized_keys", "ssh-ed25519 …") },
        file("etc/os-release", "not the file that the link leads to"),
        file("etc/odd: a,b\\c d/x", "odd"),
    ]
}

#[track_caller]
fn has_the_bundle(machine: &Machine) {
    let seen = |path: &str| machine.seen(path).unwrap_or_else(|| panic!("no {path}"));
    assert_eq!(seen("etc/hostname"), "node1");
    assert_eq!(seen("etc/localtime"), "-> /usr/share/zoneinfo/Europe/Berlin");
    assert_eq!(seen("etc/systemd/system/multi-user.target.wants/x.service"), "-> /etc/systemd/system/x.service");
    assert_eq!(seen("etc/os-release"), "not the file that the link leads to");
    assert_eq!(seen("etc/odd: a,b\\c d/x"), "odd");
    let attributes = |path: &str| {
        let there = fs::metadata(machine.path("sysroot").join(path)).unwrap();
        (there.mode() & 0o7777, there.uid(), there.gid())
    };
    assert_eq!(attributes("var/lib/chrony/keys/new/key"), (0o600, 107, 114));
    assert_eq!(attributes("var/lib/chrony/keys/new"), (0o755, 0, 0), "what the bundle does not name");
    assert_eq!(attributes("root/.ssh"), (0o700, 0, 0));
    // What the root has stays as it is.
    assert_eq!(seen("etc/machine-id"), "0123456789abcdef0123456789abcdef");
    assert_eq!(seen("etc/ssh/sshd_config"), "of the image");
    assert_eq!(seen("usr/lib/os-release"), "of the image");
    assert_eq!(attributes("var/lib/chrony"), (0o2750, 107, 114));
    assert_eq!(attributes("root"), (0o700, 0, 0));
}

/// A persistent root must not change: a machine that boots another image, or that is set up anew, would find old files there.
#[test]
fn the_files_are_there_and_the_bytes_of_the_root_are_as_they_were() {
    let first = Machine::new();
    for (machine, options) in [(first, "ro"), (Machine::again(), "rw")] {
        let image = machine.disk(options);
        let bytes = || {
            nix::unistd::sync();
            sha256(&fs::read(&image).unwrap())
        };
        let before = bytes();
        machine.leave(7, bundle(), Vec::new());
        machine.applied();
        assert_eq!(bytes(), before, "{options}");
        // Whoever writes there later, writes to the memory.
        fs::write(machine.path("sysroot/etc/ssh/sshd_config"), "changed").unwrap();
        fs::write(machine.path("sysroot/etc/new"), "new").unwrap();
        assert_eq!(bytes(), before, "{options}");
        // This reads files that are not covered, too, which sets their access times.
        fs::write(machine.path("sysroot/etc/ssh/sshd_config"), "of the image").unwrap();
        has_the_bundle(&machine);
        if options == "rw" {
            // Premise: where no overlay is, a write is seen.
            let read = bytes();
            fs::write(machine.path("sysroot/usr/new"), "new").unwrap();
            assert_ne!(bytes(), read);
        }
        assert_eq!(fs::read_to_string(machine.path("machine/run/imprint/applied")).unwrap(), "7\n");
        assert!(!machine.path("machine/run/imprint/private/bundle.tar").exists());
        assert_eq!(machine.status().bundle.unwrap().state, BundleState::Applied);
        // Nothing but the program is left in the folder, and nothing is mounted there.
        let work = machine.path("machine/run/imprint/root");
        assert_eq!(fs::read_dir(&work).unwrap().count(), 1);
        assert_eq!(fs::read(work.join("bin/imprint")).unwrap(), fs::read(agent()).unwrap());
        let inner = machine.mounts().into_iter().filter(|point| Path::new(point).starts_with(&work));
        assert_eq!(inner.count(), 1);
    }
}

/// The next stage starts this: it must be there, and be wanted.
#[test]
fn the_real_root_has_the_unit_that_reports() {
    let machine = Machine::new();
    machine.plain_root();
    machine.leave(7, vec![file("etc/hostname", "node1")], Vec::new());
    machine.applied();
    let units = machine.path("machine/run/systemd/system");
    for (name, text) in [
        ("imprint-available.service", include_str!("../../systemd/imprint-available.service")),
        ("imprint-units.service", include_str!("../../systemd/imprint-units.service")),
    ] {
        assert_eq!(fs::read_to_string(units.join(name)).unwrap(), text);
        let wanted = fs::canonicalize(units.join("multi-user.target.wants").join(name)).unwrap();
        assert_eq!(wanted, fs::canonicalize(units.join(name)).unwrap());
    }
    assert!(!machine.path("machine/run/systemd/relabel-extra.d").exists(), "this root has no labels");
    fs::create_dir(machine.path("plain/etc/selinux")).unwrap();
    machine.leave(8, vec![file("etc/hostname", "node1")], Vec::new());
    machine.applied();
    let list = fs::read_to_string(machine.path("machine/run/systemd/relabel-extra.d/imprint.relabel")).unwrap();
    assert_eq!(list, "/etc/hostname\n");
}

#[test]
fn a_second_time_does_nothing_and_a_new_bundle_takes_the_place_of_the_old_one() {
    let machine = Machine::new();
    machine.plain_root();
    machine.leave(7, vec![file("etc/a", "7"), file("var/lib/b", "7"), file("etc/hostname", "node1")], Vec::new());
    machine.applied();
    let mounts = machine.mounts();
    let again = machine.apply();
    assert!(again.status.success());
    assert!(String::from_utf8(again.stdout).unwrap().contains("is in the root already, nothing to do"));
    assert_eq!(machine.mounts(), mounts);
    machine.leave(8, vec![file("etc/c", "8")], Vec::new());
    machine.applied();
    let seen = ["etc/a", "var/lib/b", "etc/hostname", "etc/c"].map(|path| machine.seen(path));
    assert_eq!(seen, [None, None, Some("image".to_owned()), Some("8".to_owned())]);
    // One that has units alone.
    machine.leave(9, Vec::new(), Vec::new());
    machine.applied();
    assert_eq!((machine.seen("etc/c"), machine.seen("etc/hostname")), (None, Some("image".to_owned())));
}

/// An overlay shows nothing of what is mounted below it, and a file for such a place must not be written to what is mounted there.
#[test]
fn what_is_mounted_in_the_root_stays_there_and_is_not_written() {
    let machine = Machine::new();
    machine.plain_root();
    let pki = machine.path("sysroot/etc/pki");
    mount(Some("other"), &pki, Some("tmpfs"), MsFlags::MS_NOEXEC, NONE).unwrap();
    fs::create_dir(pki.join("tls")).unwrap();
    fs::write(pki.join("ca"), "of the mount").unwrap();
    let aside = machine.path("machine");
    let other = aside.join("other");
    fs::create_dir(&other).unwrap();
    mount(Some(&pki), &other, NONE, MsFlags::MS_BIND, NONE).unwrap();
    machine.leave(7, vec![file("etc/a", "7"), file("etc/pki/tls/cert", "7")], Vec::new());
    machine.applied();
    let seen = || ["etc/a", "etc/pki/ca", "etc/pki/tls/cert"].map(|path| machine.seen(path));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(seen(), [text("7"), text("of the mount"), text("7")]);
    assert!(!other.join("tls/cert").exists());
    let allowed = nix::sys::statvfs::statvfs(&machine.path("sysroot/etc/pki/tls")).unwrap().flags();
    assert!(allowed.contains(nix::sys::statvfs::FsFlags::ST_NOEXEC), "an overlay allows no more than what it covers");
    machine.leave(8, vec![file("etc/a", "8")], Vec::new());
    machine.applied();
    assert_eq!(seen(), [text("8"), text("of the mount"), None]);
    machine.leave(9, vec![file("etc/pki/ca", "9")], Vec::new());
    machine.applied();
    assert_eq!(seen(), [None, text("9"), None]);
    assert_eq!(fs::read_to_string(other.join("ca")).unwrap(), "of the mount");
}

/// Live images have an overlay as their root already.
#[test]
fn a_root_that_is_an_overlay_is_covered_too() {
    let machine = Machine::new();
    tree(&machine.path("plain"));
    let memory = machine.path("memory");
    fs::create_dir(&memory).unwrap();
    mount(Some("memory"), &memory, Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
    for name in ["upper", "work"] {
        fs::create_dir(memory.join(name)).unwrap();
    }
    let at = |path: &str| machine.path(path).display().to_string();
    let options = format!("lowerdir={},upperdir={},workdir={}", at("plain"), at("memory/upper"), at("memory/work"));
    let root = machine.path("sysroot");
    mount(Some("LiveOS_rootfs"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
    machine.leave(7, bundle(), Vec::new());
    machine.applied();
    has_the_bundle(&machine);
    assert_eq!(fs::read_dir(memory.join("upper")).unwrap().count(), 0, "the live image's own layer is not written");
    machine.leave(8, vec![file("etc/c", "8")], Vec::new());
    machine.applied();
    assert_eq!((machine.seen("etc/hostname"), machine.seen("etc/c")), (Some("image".to_owned()), Some("8".to_owned())));
}

#[test]
fn what_is_in_the_way_leaves_the_root_as_it_is() {
    let machine = Machine::new();
    let entry = || file("etc/hostname", "node1");
    machine.leave(7, vec![entry()], Vec::new());
    machine.refused("the root has no directory that it could be in");
    machine.plain_root();
    for (other, words) in [
        (
            file("lib/modprobe.d/x.conf", ""),
            "in the root lib is a symbolic link to usr/lib; settings name fixed paths, so make",
        ),
        (file("etc/machine-id/x", ""), "has a directory etc/machine-id, and the root has a file there"),
        (file("etc/ssh", ""), "has a file etc/ssh, and the root has a directory there"),
        (link("etc/ssh", "/x"), "has a file etc/ssh, and the root has a directory there"),
        (folder("etc/localtime", 0o755), "has a directory etc/localtime, and the root has a file there"),
        (file("srv/www/x", ""), "the root has no directory that it could be in"),
    ] {
        // The first entry could be written.
        machine.leave(7, vec![entry(), other], Vec::new());
        machine.refused(words);
        assert_eq!(machine.seen("etc/hostname").as_deref(), Some("image"));
    }
    machine.leave(7, vec![entry()], Vec::new());
    fs::write(machine.path("machine/run/imprint/private/bundle.tar"), "no tar").unwrap();
    machine.refused("the bundle's tar");
    fs::remove_file(machine.path("machine/run/imprint/private/bundle.tar")).unwrap();
    machine.refused("bundle number 7 is not in the root, which was mounted anew, and not in the memory any more");
    machine.leave(7, vec![entry()], Vec::new());
    let output = machine.agent(&["apply", "--root", "/"]).output().unwrap();
    assert_eq!(output.status.code(), Some(20));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no root at /: it is the root of the running"));
}

/// Attack, or accident: the root is unmounted in the emergency shell, checked, and mounted again. "In the root already" would boot the
/// bare image, and so would a run that begins anew and gets no bundle.
#[test]
fn a_root_that_was_mounted_anew_has_no_bundle() {
    let machine = Machine::new();
    machine.plain_root();
    fs::create_dir_all(machine.path("machine/etc")).unwrap();
    fs::write(machine.path("machine/etc/initrd-release"), "").unwrap();
    machine.leave(7, bundle(), Vec::new());
    machine.applied();
    machine.applied();
    umount2(&machine.path("sysroot"), MntFlags::MNT_DETACH).unwrap();
    mount(Some(&machine.path("plain")), &machine.path("sysroot"), NONE, MsFlags::MS_BIND, NONE).unwrap();
    machine.refused("bundle number 7 is not in the root, which was mounted anew");
    let folder = machine.path("machine/run/imprint");
    fs::write(folder.join("ready"), "").unwrap();
    let begun = imprint::handover::Folder::begin(&folder).unwrap();
    assert!(begun.is_some(), "imprint console can begin");
    drop(begun);
    let output = machine.apply();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(20), "{said}");
    assert!(said.contains("no other one has come; run imprint console, or boot again"), "{said}");
    machine.leave(8, bundle(), Vec::new());
    machine.applied();
    has_the_bundle(&machine);
    assert!(!folder.join("anew").exists());
}

/// Accident: the real root mounts its own /var over what the bundle has there. A file that the running system has changed, replaced
/// or removed is no such thing.
#[test]
fn files_that_a_later_mount_hides_are_not_available() {
    let machine = Machine::new();
    machine.plain_root();
    machine.leave(7, bundle(), Vec::new());
    machine.applied();
    let root = machine.path("sysroot");
    fs::write(root.join("etc/hostname"), "another").unwrap();
    fs::remove_file(root.join("etc/localtime")).unwrap();
    fs::create_dir(machine.path("plain/run")).unwrap();
    mount(Some(&machine.path("machine/run")), &root.join("run"), NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .unwrap();
    let available = || {
        let output = Command::new(agent()).arg("available").env("IMPRINT_ROOT", &root).output().unwrap();
        assert_eq!(output.status.code(), Some(20), "this machine has no server");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(available().contains("reading "), "the report is the only thing that fails: {}", available());
    mount(Some("later"), &root.join("var"), Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
    let hidden = "bundle number 7 has var/lib/chrony/keys/new/key, and this system does not show it";
    assert!(available().contains(hidden), "{}", available());
    fs::create_dir_all(root.join("var/lib/chrony/keys/new")).unwrap();
    fs::write(root.join("var/lib/chrony/keys/new/key"), "secret").unwrap();
    assert!(available().contains(hidden), "a file of the same name");
}

/// A small machine. Nothing was changed when the memory is at its end, and afterwards it works with more of it.
#[test]
fn a_memory_that_is_full_is_named() {
    let machine = Machine::new();
    machine.plain_root();
    machine.leave(7, bundle(), Vec::new());
    let work = machine.path("machine/run/imprint/root");
    fs::create_dir(&work).unwrap();
    mount(Some("imprint"), &work, Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=0700")).unwrap();
    machine.refused("the memory is full, writing ");
    mount(Some("imprint"), &work, NONE, MsFlags::MS_REMOUNT, Some("size=1g,mode=0700")).unwrap();
    machine.applied();
    has_the_bundle(&machine);
}

#[test]
fn without_a_bundle_there_is_nothing_to_do() {
    let machine = Machine::new();
    machine.plain_root();
    let output = machine.apply();
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("no bundle waits"),
        "{output:?}"
    );
    assert!(!machine.path("machine/run/imprint/root").exists());
}

/// A stand-in for systemctl: it notes what it is told, and fails for a unit while a file is there.
const SYSTEMCTL: &str =
    "#!/bin/sh\necho \"$*\" >>\"$NOTES/told\"\ncase $* in *broken*) [ ! -e \"$NOTES/fails\" ] ;; esac\n";

/// A report that does not get through is sent again, and that must not start a database a second time.
#[test]
fn units_are_started_once_and_in_order() {
    let machine = Machine::new();
    machine.plain_root();
    let unit = |verb: Verb, name: &str| UnitAction { verb, unit: UnitName::try_from(name).unwrap() };
    let units =
        vec![unit(Verb::Enable, "a.service"), unit(Verb::Restart, "broken.service"), unit(Verb::Reload, "c.service")];
    machine.leave(7, Vec::new(), units);
    let notes = machine.path("notes");
    fs::create_dir(&notes).unwrap();
    fs::write(notes.join("systemctl"), SYSTEMCTL).unwrap();
    fs::set_permissions(notes.join("systemctl"), Permissions::from_mode(0o755)).unwrap();
    fs::write(notes.join("fails"), "").unwrap();
    let available = || {
        let path = format!("{}:{}", notes.display(), std::env::var("PATH").unwrap());
        let output = machine.agent(&["available"]).env("PATH", path).env("NOTES", &notes).output().unwrap();
        let told = fs::read_to_string(notes.join("told")).unwrap_or_default();
        let _ = fs::remove_file(notes.join("told"));
        let told: Vec<String> = told.lines().map(|line| line.replace("--no-ask-password --quiet ", "")).collect();
        (output.status.code(), String::from_utf8(output.stderr).unwrap(), told)
    };
    let (code, said, told) = available();
    assert_eq!((code, told.len()), (Some(20), 0));
    assert!(said.contains("bundle number 7 is not in the root"), "{said}");
    machine.applied();
    let (code, said, told) = available();
    // One that fails keeps nothing from its start.
    assert_eq!(
        told,
        [
            "enable --runtime -- a.service",
            "start -- a.service",
            "restart -- broken.service",
            "reload-or-restart -- c.service"
        ]
    );
    assert_eq!(code, Some(20), "{said}");
    assert!(said.contains("restart broken.service: systemctl ended with exit status: 1; see journalctl -u"), "{said}");
    fs::remove_file(notes.join("fails")).unwrap();
    let (_, _, told) = available();
    assert_eq!(told, ["restart -- broken.service"], "what was done is not done again");
    let (_, _, told) = available();
    assert_eq!(told, [""; 0]);
}
