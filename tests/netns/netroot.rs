//! Tests of `imprint root` with real images, loop devices and overlays: what is mounted, and that nothing is when anything is wrong.
//! The transfers themselves are in tests/loopback/netroot.rs.

use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use imprint::digest::sha256;
use imprint::handover::{self, Certificates, Folder, Private};
use imprint::hex;
use imprint::identity::Identity;
use imprint::payload::{CertificateNames, KeyType};
use imprint::plan::SubjectPlan;
use imprint::pool::Seeded;
use imprint::status::{Node, RootStatus, Status, Timeline, VERSION};
use imprint::time::Timestamp;
use imprint_tests::ca::{Ca, Leaf};
use imprint_tests::est_server::{Ending, EstServer, reply};
use imprint_tests::programs::agent;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustls::version::TLS13;

use crate::{ip, later, namespaces};

const NONE: Option<&str> = None;

/// A machine in its initramfs with an identity, and a server that gives images to nodes of its CA.
struct Machine {
    work: tempfile::TempDir,
    ca: Ca,
    now: u64,
}

impl Machine {
    /// In namespaces of its own, in which all mounts are shared, as systemd has it.
    fn new() -> Machine {
        namespaces();
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE).unwrap();
        ip("link set lo up");
        let now = Timestamp::system().as_secs();
        let ca = Ca::new("Root", (now - 3600, now + 86_400));
        let machine = Machine { work: tempfile::tempdir().unwrap(), ca, now };
        for folder in ["sysroot", "machine/proc", "machine/run"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        symlink("/dev", machine.path("machine/dev")).unwrap();
        fs::copy("/proc/meminfo", machine.path("machine/proc/meminfo")).unwrap();
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.work.path().join(path)
    }

    /// What a boot hands over. `root`: what the payload says of the root.
    fn enrol(&self, root: Option<[u8; 32]>) {
        let plan = SubjectPlan { names: CertificateNames::default(), key: KeyType::P256 };
        let identity = Identity::generate(&plan, &Seeded::ready(later()).unwrap()).unwrap();
        let leaf = self.ca.issue(&Leaf::node("node1", &[], (self.now - 60, self.now + 3600)), identity.spki());
        let ca = self.ca.der();
        let certificates = Certificates { leaf: &leaf, intermediates: &[], ca: &ca };
        let node = Node {
            version: VERSION,
            name: Some("node1".to_owned()),
            payload_id: "00".repeat(16),
            hostname: None,
            key_code: identity.code().to_string(),
            not_after: "2026-11-23T00:00:00Z".to_owned(),
            network: None,
            renewal: None,
            root_sha256: root.map(|digest| hex::encode(&digest)),
        };
        let folder = Folder::make(&self.path("machine/run/imprint")).unwrap();
        let pending = handover::write(&folder, Private::Directory, identity, &certificates, &node).unwrap();
        pending.finish(&Timeline::new(|_| ()).done()).unwrap();
    }

    /// Serves these bytes to whoever shows a certificate of the CA.
    fn server(&self, image: Vec<u8>) -> EstServer {
        let leaf = Leaf::server(IpAddr::V4(Ipv4Addr::LOCALHOST), (self.now - 60, self.now + 3600));
        let tls = self.ca.asking_server(&leaf, &[&TLS13], self.ca.verifier(true));
        EstServer::ending(vec![tls], Ending::Notify, move |_| reply("200 OK", &["ETag: \"1\"".to_owned()], &image))
    }

    fn cmdline(&self, words: &str) {
        fs::write(self.path("machine/proc/cmdline"), format!("quiet {words}\n")).unwrap();
    }

    /// The words for an image at this server.
    fn named(&self, server: &EstServer, digest: &[u8; 32]) {
        let url = format!("https://{}/root.img", server.address());
        self.cmdline(&format!("root=imprint:{url} imprint.root-sha256={}", hex::encode(digest)));
    }

    fn root(&self) -> Output {
        let to = self.path("sysroot");
        Command::new(agent()).args(["root", "--to"]).arg(to).env("IMPRINT_ROOT", self.path("machine")).output().unwrap()
    }

    fn status(&self) -> Option<RootStatus> {
        let text = fs::read(self.path("machine/run/imprint/status.json")).unwrap();
        serde_json::from_slice::<Status>(&text).unwrap().root
    }

    /// One line that says why, and nothing that is mounted, or that takes memory.
    #[track_caller]
    fn refused(&self, code: i32, words: &str) {
        let output = self.root();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(code), 1), "{said}");
        assert!(said.contains(words), "{said}");
        assert_eq!(self.mounts(), Vec::<String>::new(), "{said}");
        assert!(!self.path("machine/run/imprint/netroot").exists());
        if code == 20 {
            let error = self.status().unwrap().error.unwrap();
            assert!(said.ends_with(&format!("root: {error}\n")), "{said}");
        }
    }

    /// What is mounted in this machine, with file system and source.
    fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let rows = table.lines().map(|line| line.split_once(" - ").unwrap());
        let row = |(left, right): (&str, &str)| {
            let point = Path::new(left.split(' ').nth(4).unwrap()).strip_prefix(self.work.path()).ok()?;
            let kind = right.rsplit_once(' ').unwrap().0;
            Some(format!("{} {kind}", point.display()))
        };
        rows.filter_map(row).collect()
    }
}

/// The folder cannot be removed while something is mounted in it.
impl Drop for Machine {
    fn drop(&mut self) {
        for row in self.mounts().iter().rev() {
            let _ = umount2(&self.path(row.split(' ').next().unwrap()), MntFlags::MNT_DETACH);
        }
    }
}

/// A root as it is made into an image.
fn tree(path: &Path) {
    for folder in ["etc", "usr/lib", "home/user", "tmp"] {
        fs::create_dir_all(path.join(folder)).unwrap();
    }
    fs::write(path.join("etc/hostname"), "image").unwrap();
    fs::write(path.join("usr/lib/os-release"), "of the image").unwrap();
    fs::write(path.join("usr/lib/big"), (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    symlink("../usr/lib/os-release", path.join("etc/os-release")).unwrap();
    fs::set_permissions(path.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::chown(path.join("home/user"), Some(1000), Some(1001)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o711)).unwrap();
}

/// An image of [`tree`], by the program that makes such images.
fn image(work: &Path, program: &str) -> Vec<u8> {
    let (folder, file) = (work.join("tree"), work.join(program));
    if !folder.exists() {
        fs::create_dir(&folder).unwrap();
        tree(&folder);
    }
    let mut command = Command::new(program);
    match program {
        "mksquashfs" => command.arg(&folder).arg(&file).args(["-no-progress", "-quiet", "-comp", "gzip"]),
        _ => command.arg("-zlz4").arg(&file).arg(&folder),
    };
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}: run scripts/install-needs test"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    fs::read(&file).unwrap()
}

#[test]
fn an_image_of_either_kind_is_the_root_and_keeps_nothing() {
    let machine = Machine::new();
    machine.enrol(None);
    for (program, kind) in [("mksquashfs", "squashfs"), ("mkfs.erofs", "erofs")] {
        let image = image(machine.work.path(), program);
        let (digest, server) = (sha256(&image), machine.server(image));
        machine.named(&server, &digest);
        let output = machine.root();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let words = format!("sysroot: {kind}, ");
        assert!(said.contains(&words) && said.contains("MiB from https://127.0.0.1:"), "{said}");
        assert!(said.contains(" s, SHA-256 as it has to be"), "{said}");
        // The root alone is left of all that was mounted, and shared as the initramfs has it.
        assert_eq!(machine.mounts(), ["sysroot overlay imprint-root"]);
        let sysroot = machine.path("sysroot");
        let read = |path: &str| fs::read_to_string(sysroot.join(path)).unwrap();
        assert_eq!((read("etc/hostname"), read("etc/os-release")), ("image".to_owned(), "of the image".to_owned()));
        assert!(fs::read(sysroot.join("usr/lib/big")).unwrap() == fs::read(machine.path("tree/usr/lib/big")).unwrap());
        let attributes = |path: &str| {
            let there = fs::metadata(sysroot.join(path)).unwrap();
            (there.mode() & 0o7777, there.uid(), there.gid())
        };
        assert_eq!(attributes(""), (0o711, 0, 0), "the root itself has the attributes of the image's");
        assert_eq!((attributes("tmp"), attributes("home/user")), ((0o1777, 0, 0), (0o755, 1000, 1001)));
        // It can be written to, and the verified bytes are not changed by that.
        fs::write(sysroot.join("etc/hostname"), "changed").unwrap();
        fs::create_dir(sysroot.join("new")).unwrap();
        assert_eq!(read("etc/hostname"), "changed");
        let root = machine.status().unwrap();
        let url = format!("https://{}/root.img", server.address());
        assert_eq!((root.sha256, root.url, root.error), (hex::encode(&digest), Some(url), None));
        // A second call finds it there.
        let again = machine.root();
        assert!(again.status.success() && String::from_utf8(again.stdout).unwrap().contains("already, nothing to do"));
        assert_eq!(server.requests().len(), 1);
        umount2(&sysroot, MntFlags::empty()).unwrap();
        assert!(!sysroot.join("new").exists());
    }
}

/// Attack: everything is right but the last byte.
#[test]
fn nothing_is_mounted_of_an_image_that_is_not_the_right_one() {
    let machine = Machine::new();
    machine.enrol(None);
    let image = image(machine.work.path(), "mksquashfs");
    let mut wrong = image.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let (bad, good) = (machine.server(wrong), machine.server(image.clone()));
    machine.named(&bad, &sha256(&image));
    machine.refused(20, "the image there has the SHA-256 ");
    // The next server has the right one.
    let digest = hex::encode(&sha256(&image));
    let url = |server: &EstServer| format!("https://{}/root.img", server.address());
    machine.cmdline(&format!("root=imprint:{},{} imprint.root-sha256={digest}", url(&bad), url(&good)));
    // It counts as much as the payload says so, too.
    machine.enrol(Some(sha256(&image)));
    let output = machine.root();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(machine.mounts(), ["sysroot overlay imprint-root"]);
    assert_eq!(machine.status().unwrap().url, Some(url(&good)));
}

/// The right bytes, and no root: each time one line, and nothing is left.
#[test]
fn what_cannot_be_a_root_is_refused_in_one_line() {
    let machine = Machine::new();
    machine.enrol(None);
    let disk = b"\0".repeat(100_000);
    let server = machine.server(disk.clone());
    machine.named(&server, &sha256(&disk));
    machine.refused(20, "the image has neither erofs nor squashfs; make it with mkfs.erofs or mksquashfs");
    // A superblock and nothing behind it: the kernel refuses it.
    let cut = [b"hsqs".to_vec(), vec![0; 10_000]].concat();
    let server = machine.server(cut.clone());
    machine.named(&server, &sha256(&cut));
    machine.refused(20, "mounting the image on ");
    // Memory for the image, and none for the system.
    fs::write(machine.path("machine/proc/meminfo"), "MemAvailable:     131076 kB\n").unwrap();
    machine.refused(
        20,
        "the image has 1 MiB, and this machine has 128 MiB of memory available, of which 128 MiB stay for the system",
    );
    fs::write(machine.path("machine/proc/meminfo"), "MemTotal: 1 kB\n").unwrap();
    machine.refused(20, "reading MemAvailable in /proc/meminfo");
    fs::copy("/proc/meminfo", machine.path("machine/proc/meminfo")).unwrap();
    // Something else is there already.
    mount(Some("other"), &machine.path("sysroot"), Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
    let output = machine.root();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(20), "{said}");
    assert!(said.contains("sysroot: something else is mounted there; name another folder with --to"), "{said}");
    umount2(&machine.path("sysroot"), MntFlags::empty()).unwrap();
}

/// Words that do not fit together, and a boot that got no identity.
#[test]
fn without_a_digest_or_an_identity_no_server_is_asked() {
    let machine = Machine::new();
    let server = machine.server(b"hsqs".to_vec());
    let root = format!("root=imprint:https://{}/root.img", server.address());
    let digest = format!("imprint.root-sha256={}", "00".repeat(32));
    machine.cmdline(&format!("{root} {digest} imprint=off"));
    machine.refused(10, "root=imprint: and imprint=off are both on the kernel command line");
    for wrong in [
        "root=imprint:http://x/y",
        "root=imprint:",
        "root=imprint:https://x/y,",
        "root=imprint:https://x/y imprint.root-sha256=00",
    ] {
        machine.cmdline(wrong);
        machine.refused(10, " on the kernel command line is not valid: want ");
    }
    machine.cmdline(&format!("{root} {digest}"));
    machine.refused(19, "/run/imprint, which imprint run or imprint enroll writes; run one of them first");
    machine.enrol(None);
    machine.cmdline(&root);
    machine.refused(10, "root=imprint: is on the kernel command line, and nothing says the SHA-256 of the image; add imprint.root-sha256=");
    machine.enrol(Some([7; 32]));
    machine.cmdline(&format!("{root} {digest}"));
    let payload = hex::encode(&[7; 32]);
    machine.refused(
        10,
        &format!("imprint.root-sha256= on the kernel command line is not what the payload says, {payload}; correct"),
    );
    machine.cmdline("root=/dev/vda1");
    let output = machine.root();
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("root=imprint: is not on the kernel command line, nothing to do")
    );
    assert!(server.requests().is_empty());
}
