//! Tests of a boot that takes its payload from a file of the real root. The program itself runs, in a root of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use imprint::apply::spent::{self, Spent};
use imprint::medium::Medium;
use imprint::payload::EstUrl;
use imprint::source::efivar;
use imprint_host::compose;
use imprint_host::state::State;
use imprint_tests::programs;
use nix::mount::{MntFlags, mount, umount2};

use super::super::*;

/// A machine with a payload in its root. The payload has certificate and key, so no server is needed.
struct Rooted {
    root: tempfile::TempDir,
    payload: Vec<u8>,
}

impl Rooted {
    fn new(cmdline: &str) -> Rooted {
        namespaces();
        let root = tempfile::tempdir().unwrap();
        let url = EstUrl::try_from("https://127.0.0.1:1/.well-known/est").unwrap();
        let now = Timestamp::system();
        let mut state = State::init(&root.path().join("state"), &[url], now).unwrap();
        let record = "name = \"node1\"\nsubject = [\"CN=node1\"]\nsans = [\"dns:node1.example\"]\n";
        state.add_nodes(&[("node1.toml".to_owned(), record.to_owned())], false, now).unwrap();
        let options = compose::Options { credentials: true, ..compose::Options::default() };
        let payload = state.payload("node1", &options, now).unwrap().bytes.to_vec();
        let machine = Rooted { root, payload };
        machine.write("proc/cmdline", format!("{cmdline}\n").as_bytes());
        machine.write("etc/imprint/payload", &machine.payload);
        for folder in ["run", "dev"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        fs::set_permissions(machine.path("etc/imprint"), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(machine.file(), Permissions::from_mode(0o600)).unwrap();
        machine
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    fn file(&self) -> PathBuf {
        self.path("etc/imprint/payload")
    }

    fn write(&self, below: &str, bytes: &[u8]) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn run(&self, words: &[&str]) -> Output {
        // Whatever goes wrong, the program must not set the clock of this machine.
        Command::new("setpriv")
            .args(["--bounding-set=-sys_time", "--"])
            .arg(programs::agent())
            .arg("run")
            .args(words)
            .env("IMPRINT_ROOT", self.root.path())
            .env_remove("CREDENTIALS_DIRECTORY")
            .stdin(Stdio::null())
            .output()
            .expect("setpriv: apt-get install util-linux")
    }

    fn status(&self) -> Status {
        serde_json::from_slice(&fs::read(self.path("run/imprint/status.json")).unwrap()).unwrap()
    }

    /// The run has left no identity, and the file is as it was.
    #[track_caller]
    fn nothing_was_done(&self, outcome: Outcome) {
        assert_eq!(self.status().outcome, outcome);
        assert!(!self.path("run/imprint/ready").exists() && !self.path("run/imprint/cert.pem").exists());
        assert_eq!(fs::read(self.file()).unwrap(), self.payload);
    }
}

impl Drop for Rooted {
    fn drop(&mut self) {
        for folder in ["run/imprint/private", "etc/imprint"] {
            let _ = umount2(&self.path(folder), MntFlags::MNT_DETACH);
        }
    }
}

const ROOT_FILE: [&str; 2] = ["--source", "root-file"];

#[track_caller]
fn ended(output: &Output, code: i32) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

#[test]
fn a_file_on_the_root_becomes_an_identity_and_is_removed() {
    let next = "; the next boot needs another payload, or imprint=auto on the kernel command line";
    for (cmdline, next) in [
        ("quiet", ""),
        ("imprint=auto imprint.source=root-file", ""),
        ("imprint.source=root-file", next),
        ("imprint=require imprint.payload=oQEB", next),
    ] {
        let machine = Rooted::new(cmdline);
        ended(&machine.run(&ROOT_FILE), 0);
        assert!(!machine.file().exists(), "{cmdline}");
        assert!(machine.path("run/imprint/ready").exists());
        let status = machine.status();
        assert_eq!(status.outcome, Outcome::Done);
        assert_eq!(status.origin, Some(format!("root-file {}", machine.file().display())));
        let last = status.steps.last().unwrap();
        assert_eq!(
            (last.name.as_str(), last.detail.clone()),
            ("spent", format!("the payload was removed (root-file){next}"))
        );
        // The second time there is nothing to do, and no file is missed.
        assert!(ended(&machine.run(&ROOT_FILE), 0).contains("is complete, nothing to do"));
    }
}

/// The identity is good. The file is reported, because the next boot would use it again.
#[test]
fn a_file_that_cannot_be_removed_is_told() {
    let machine = Rooted::new("quiet");
    let (folder, none) = (machine.path("etc/imprint"), None::<&str>);
    mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).unwrap();
    machine.write("etc/imprint/payload", &machine.payload);
    fs::set_permissions(machine.file(), Permissions::from_mode(0o600)).unwrap();
    mount(none, &folder, none, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).unwrap();
    let text = ended(&machine.run(&ROOT_FILE), 0);
    let want = format!(
        "the payload {} was for this boot and cannot be removed; remove it by hand, or the next boot uses it again: \
         Read-only file system",
        machine.file().display()
    );
    assert!(text.contains(&want), "{text}");
    let status = machine.status();
    assert_eq!(status.outcome, Outcome::Done);
    assert!(status.steps.last().unwrap().detail.starts_with(&want), "{status}");
    assert!(machine.path("run/imprint/ready").exists() && machine.file().exists());
}

/// Accident: a deployer puts the next payload there while the boot is under way. It would be lost, and nobody has read it. The
/// boot waits where it reads the firmware's UUID, which here is a FIFO.
#[test]
fn a_file_that_was_replaced_during_the_boot_stays() {
    let machine = Rooted::new("quiet");
    let uuid = machine.path("sys/class/dmi/id/product_uuid");
    fs::create_dir_all(uuid.parent().unwrap()).unwrap();
    nix::unistd::mkfifo(&uuid, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let next = b"the next payload";
    let text = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Opens when the agent reads.
            let _uuid = fs::OpenOptions::new().write(true).open(&uuid).unwrap();
            machine.write("etc/imprint/new", next);
            fs::rename(machine.path("etc/imprint/new"), machine.file()).unwrap();
        });
        ended(&machine.run(&ROOT_FILE), 0)
    });
    assert_eq!(fs::read(machine.file()).unwrap(), next);
    let want = format!(
        "{} was replaced or changed after this boot had read it, so it was not removed; the next boot reads what is there now",
        machine.file().display()
    );
    assert!(text.contains(&want), "{text}");
    let status = machine.status();
    assert_eq!((status.outcome, &status.steps.last().unwrap().detail), (Outcome::Done, &want));
    assert!(machine.path("run/imprint/ready").exists());
}

/// A folder of variables that is a file system of its own, as efivarfs is, with a payload of ours in it.
fn variables() -> (tempfile::TempDir, PathBuf) {
    namespaces();
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sys/firmware/efi/efivars");
    fs::create_dir_all(&folder).unwrap();
    mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let variable = folder.join(efivar::NAME);
    fs::write(&variable, [7, 0, 0, 0, 0xa1, 0, 1]).unwrap();
    (root, variable)
}

/// The payload of [`variables`], used.
fn used() -> Spent {
    Spent { medium: Medium::EfiVariable, sha256: imprint::digest::sha256(&[0xa1, 0, 1]) }
}

fn immutable(file: &Path) {
    let done = Command::new("chattr").arg("+i").arg(file).output().expect("chattr: apt-get install e2fsprogs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// The kernel makes a variable that it does not know immutable.
#[test]
fn an_immutable_variable_is_removed() {
    let (root, variable) = variables();
    immutable(&variable);
    let refused = fs::remove_file(&variable).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::libc::EPERM), "the flag protects it");
    assert!(efivar::find(root.path()).unwrap().is_some());
    spent::remove(root.path(), &used()).unwrap();
    assert!(!variable.exists());
}

/// Firmware without runtime services has efivarfs read-only, and so has an administrator who fears for it. The payload is
/// read, and that it stays is told, with and without the flag.
#[test]
fn a_variable_on_a_read_only_efivarfs_is_read_and_told() {
    for flag in [false, true] {
        let (root, variable) = variables();
        if flag {
            immutable(&variable);
        }
        let none = None::<&str>;
        mount(none, variable.parent().unwrap(), none, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).unwrap();
        let found = efivar::find(root.path()).unwrap().unwrap();
        assert_eq!(found.bytes.expose(), [0xa1, 0, 1]);
        let error = spent::remove(root.path(), &used()).unwrap_err();
        assert_eq!((error.source.kind(), &error.path), (std::io::ErrorKind::ReadOnlyFilesystem, &variable), "{flag}");
        assert!(variable.exists());
    }
}

/// Somebody else may have read or written such a file. Nothing of it is used, and it stays, so that it can be examined.
#[test]
fn a_file_that_others_can_read_stops_the_boot() {
    let machine = Rooted::new("quiet");
    fs::set_permissions(machine.file(), Permissions::from_mode(0o644)).unwrap();
    let text = ended(&machine.run(&ROOT_FILE), 11);
    assert!(text.contains("has mode 0644") && text.contains("run chmod 0600 "), "{text}");
    machine.nothing_was_done(Outcome::Failed);
}

#[test]
fn a_payload_that_is_of_no_use_stays() {
    let mut machine = Rooted::new("quiet");
    machine.payload.truncate(100);
    fs::write(machine.file(), &machine.payload).unwrap();
    ended(&machine.run(&ROOT_FILE), 12);
    machine.nothing_was_done(Outcome::Failed);
}

/// The site pin of a running system is the file that image builders copy.
#[test]
fn the_pin_of_the_system_counts() {
    let machine = Rooted::new("quiet");
    machine.write("etc/imprint/site", "00".repeat(32).as_bytes());
    ended(&machine.run(&ROOT_FILE), 13);
    machine.nothing_was_done(Outcome::Failed);
}

/// The accident: a file was left on a disk. It must not be used if the operator names other sources, or none.
#[test]
fn the_kernel_command_line_has_the_last_word() {
    let machine = Rooted::new("imprint.source=config-drive");
    let text = ended(&machine.run(&ROOT_FILE), 0);
    assert!(text.contains("imprint.source= on the kernel command line names other sources"), "{text}");
    machine.nothing_was_done(Outcome::Absent);
    let machine = Rooted::new("imprint=off");
    assert_eq!(ended(&machine.run(&ROOT_FILE), 0), "");
    assert!(machine.file().exists() && !machine.path("run/imprint").exists());
    // Nobody has named it.
    let machine = Rooted::new("imprint.timeout=1");
    ended(&machine.run(&[]), 0);
    machine.nothing_was_done(Outcome::Absent);
}

/// In an initramfs that path is another file. An agent that used it, or insisted on it, would stop the boot before the
/// real root.
#[test]
fn an_initramfs_leaves_it_to_the_real_root() {
    let machine = Rooted::new("imprint.source=root-file");
    machine.write("etc/initrd-release", b"");
    let text = ended(&machine.run(&[]), 0);
    assert!(text.contains("root-file is left to imprint-root.service in the real root"), "{text}");
    machine.nothing_was_done(Outcome::Absent);
    // The same machine after the change to the real root.
    fs::remove_file(machine.path("etc/initrd-release")).unwrap();
    ended(&machine.run(&ROOT_FILE), 0);
    assert!(machine.path("run/imprint/ready").exists() && !machine.file().exists());
}

/// Every process can read an EFI variable, so a key in one is not secret. The variable stays, so that it can be
/// examined.
#[test]
fn an_efi_variable_with_a_key_stops_the_boot() {
    let machine = Rooted::new("imprint.source=efivar");
    let path = format!("sys/firmware/efi/efivars/{}", imprint::source::efivar::NAME);
    machine.write(&path, &[&[7, 0, 0, 0][..], &machine.payload].concat());
    let text = ended(&machine.run(&[]), 11);
    assert!(text.contains("in an EFI variable, which everybody on the node can read, holds a private key"), "{text}");
    machine.nothing_was_done(Outcome::Failed);
    assert!(machine.path(&path).exists());
}

/// The attack: the hypervisor brings a payload to a guest that hides its memory from the hypervisor. The kernel's
/// device stands for such a guest.
#[test]
fn a_confidential_machine_needs_a_pin() {
    let machine = Rooted::new("quiet");
    let word = |machine: &Rooted| {
        use base64ct::{Base64UrlUnpadded, Encoding};
        format!("imprint.source=cmdline imprint.payload={}\n", Base64UrlUnpadded::encode_string(&machine.payload))
    };
    machine.write("proc/cmdline", word(&machine).as_bytes());
    // Premise: without the device the boot gets further, to the rule that a command line carries no private key.
    assert!(ended(&machine.run(&[]), 11).contains("holds a private key"));
    fs::create_dir_all(machine.path("sys/devices/platform/sev-guest")).unwrap();
    let text = ended(&machine.run(&[]), 11);
    assert!(text.contains("this is a confidential virtual machine (SEV-SNP)"), "{text}");
    machine.nothing_was_done(Outcome::Failed);
    // The file on the root is the owner's own, and needs no pin.
    machine.write("proc/cmdline", b"quiet\n");
    ended(&machine.run(&ROOT_FILE), 0);
    assert!(Path::new(&machine.path("run/imprint/ready")).exists());
}
