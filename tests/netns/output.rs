//! Tests of `payload -o` onto devices: loop devices, which are real block devices, and a character device. The device nodes
//! are on a file system of the test's own, so that replacing them cannot harm the machine's.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Output, Stdio};

use imprint::payload::Payload;
use imprint::source::volume::Volume;
use imprint_tests::programs;
use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};

use crate::*;

const MIB: u64 = 1024 * 1024;
const NONE: Option<&str> = None;

struct Site {
    work: tempfile::TempDir,
}

/// A block device whose content is a file.
struct Drive {
    /// The machine's node.
    system: PathBuf,
    /// The file.
    image: PathBuf,
    /// The test's node.
    node: PathBuf,
}

impl Drop for Drive {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.system).status();
    }
}

impl Site {
    fn new() -> Site {
        namespaces();
        let site = Site { work: tempfile::tempdir().unwrap() };
        // Whatever the machine's /tmp is: one on which devices work.
        nix::mount::mount(Some("none"), site.work.path(), Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
        site.fine(&["init", "--url", "https://est.example.org:8443/.well-known/est"]);
        fs::write(site.path("node1.toml"), "name = \"node1\"\nsubject = [\"CN=node1\"]\n").unwrap();
        site.fine(&["node", "add", site.path("node1.toml").to_str().unwrap()]);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut host = Command::new(programs::host());
        host.arg("--dir").arg(self.path("state")).args(words).stdin(Stdio::null());
        host
    }

    fn fine(&self, words: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(words).output().unwrap();
        assert!(status.success(), "{words:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    /// What is said of the failure.
    fn write(&self, form: &str, to: &Path, more: &[&str]) -> Result<(), String> {
        let words = ["payload", "node1", "--as", form, "-o", to.to_str().unwrap()];
        let Output { status, stderr, .. } = self.command(&[&words[..], more].concat()).output().unwrap();
        if status.success() { Ok(()) } else { Err(String::from_utf8(stderr).unwrap()) }
    }

    fn payloads(&self) -> usize {
        self.fine(&["log"]).lines().filter(|line| line.contains(" payload ")).count()
    }

    fn drive(&self, name: &str, len: u64, options: &[&str]) -> Drive {
        let image = self.path(&format!("{name}.image"));
        fs::File::create(&image).unwrap().set_len(len).unwrap();
        self.drive_of(name, image, options)
    }

    fn drive_of(&self, name: &str, image: PathBuf, options: &[&str]) -> Drive {
        let losetup = Command::new("losetup").args(options).args(["-f", "--show"]).arg(&image).output().unwrap();
        assert!(losetup.status.success(), "{}", String::from_utf8_lossy(&losetup.stderr));
        let system = PathBuf::from(String::from_utf8(losetup.stdout).unwrap().trim());
        let node = self.path(name);
        let device = fs::metadata(&system).unwrap().rdev();
        mknod(&node, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, makedev(major(device), minor(device))).unwrap();
        Drive { system, image, node }
    }
}

impl Drive {
    fn is_device(&self) -> bool {
        fs::symlink_metadata(&self.node).unwrap().file_type().is_block_device()
    }

    /// The payload that the agent finds on it.
    fn payload(&self) -> Payload {
        let mut device = fs::File::open(&self.node).unwrap();
        let volume = Volume::all(&mut device).unwrap().remove(0);
        assert!(volume.labels().any(|label| label == "IMPRINT"));
        let found = volume.file(&mut device, &["imprint", "payload"], 65_536).unwrap().unwrap();
        Payload::unwrapped(found.expose()).unwrap()
    }

    fn mkfs(&self) {
        let made = Command::new("mkfs.ext4").arg("-q").arg(&self.node).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

/// Premise: what is made beside its place and renamed takes the place of a device.
fn replaces(site: &Site, kind: SFlag, device: u64) {
    mknod(&site.path("premise"), kind, Mode::S_IRUSR, device).unwrap();
    fs::write(site.path("beside"), "new").unwrap();
    fs::rename(site.path("beside"), site.path("premise")).unwrap();
    assert!(fs::symlink_metadata(site.path("premise")).unwrap().is_file());
    fs::remove_file(site.path("premise")).unwrap();
}

#[test]
fn a_drive_is_written_to_in_place() {
    let site = Site::new();
    let drive = site.drive("drive", 4 * MIB, &[]);
    replaces(&site, SFlag::S_IFBLK, fs::metadata(&drive.system).unwrap().rdev());
    // An empty one is asked for once, and from then on it is not empty.
    site.write("iso", &drive.node, &[]).unwrap();
    assert!(drive.is_device());
    drive.payload();
    site.write("vfat", &drive.node, &["--overwrite", drive.node.to_str().unwrap()]).unwrap();
    assert!(drive.is_device());
    drive.payload();
    // By way of a link, as /dev/disk/by-id has them.
    let linked = site.drive("linked", 4 * MIB, &[]);
    std::os::unix::fs::symlink("linked", site.path("by-id")).unwrap();
    site.write("vfat", &site.path("by-id"), &[]).unwrap();
    assert!(linked.is_device() && fs::symlink_metadata(site.path("by-id")).unwrap().is_symlink());
    linked.payload();
}

#[test]
fn a_drive_that_holds_a_file_system_is_named_twice() {
    let site = Site::new();
    let drive = site.drive("drive", 16 * MIB, &[]);
    drive.mkfs();
    // The copy of a partition table, as an earlier life of the drive has left it at its end.
    let mut image = fs::OpenOptions::new().write(true).open(&drive.node).unwrap();
    std::io::Seek::seek(&mut image, std::io::SeekFrom::Start(16 * MIB - 512)).unwrap();
    std::io::Write::write_all(&mut image, b"EFI PART").unwrap();
    image.sync_all().unwrap();
    drop(image);
    let before = fs::read(&drive.image).unwrap();
    let name = drive.node.display();
    let want = format!(
        "imprint-host: {name} holds an ext2, ext3 or ext4 file system and the copy of a partition table (GPT); nothing was \
         written. To overwrite it, name the drive again: --overwrite {name}\n"
    );
    assert_eq!(site.write("iso", &drive.node, &[]), Err(want));
    let other = site.write("iso", &drive.node, &["--overwrite", "/dev/sdx"]).unwrap_err();
    assert!(other.contains(" and --overwrite /dev/sdx; nothing was written, "), "{other}");
    assert!(fs::read(&drive.image).unwrap() == before && drive.is_device());
    assert_eq!(site.payloads(), 0);
    site.write("iso", &drive.node, &["--overwrite", drive.node.to_str().unwrap()]).unwrap();
    drive.payload();
    // Nothing of what was there competes with it.
    let after = fs::read(&drive.image).unwrap();
    let found = |mark: &[u8], at: usize| after[at..].starts_with(mark);
    assert!(!found(b"\x53\xef", 0x438) && !found(b"EFI PART", 16 * 1024 * 1024 - 512));
    // A second image: what the first left is asked for as well.
    let again = site.write("vfat", &drive.node, &[]).unwrap_err();
    assert!(again.contains(" holds an ISO 9660 volume \"IMPRINT\"; nothing was written. "), "{again}");
}

#[test]
fn somebody_at_a_terminal_types_the_name_twice() {
    let site = Site::new();
    let drive = site.drive("drive", 4 * MIB, &[]);
    let name = drive.node.display().to_string();
    for (answers, is_written) in
        [(format!("{name}\n{name}\n"), true), (format!("{name}\nyes\n"), false), ("yes\nyes\n".to_owned(), false)]
    {
        drive.mkfs();
        let pty = nix::pty::openpty(None, None).unwrap();
        let mut host = site.command(&["payload", "node1", "--as", "iso", "-o", &name]);
        host.stdin(pty.slave.try_clone().unwrap()).stderr(pty.slave).stdout(Stdio::piped());
        // The terminal keeps it until it is asked for.
        let mut master = fs::File::from(pty.master);
        std::io::Write::write_all(&mut master, answers.as_bytes()).unwrap();
        let output = host.output().unwrap();
        assert_eq!(output.status.success(), is_written, "{answers}");
        drop(host);
        let mut said = Vec::new();
        // The other end of a terminal that is closed says EIO.
        let _ = std::io::Read::read_to_end(&mut master, &mut said);
        let said = String::from_utf8_lossy(&said);
        assert!(
            said.contains(" bytes and holds an ext2, ext3 or ext4 file system. All of that will be lost."),
            "{said}"
        );
        let begins = |at: usize, mark: &[u8]| fs::read(&drive.image).unwrap()[at..].starts_with(mark);
        assert_eq!((begins(0x438, b"\x53\xef"), begins(0x8001, b"CD001")), (!is_written, is_written), "{said}");
    }
}

#[test]
fn a_drive_in_use_is_refused_whatever_is_said() {
    let site = Site::new();
    let drive = site.drive("drive", 16 * MIB, &[]);
    drive.mkfs();
    fs::create_dir(site.path("mounted")).unwrap();
    nix::mount::mount(Some(&drive.node), &site.path("mounted"), Some("ext4"), MsFlags::empty(), NONE).unwrap();
    // Premise: nothing else keeps a program from writing to it.
    drop(fs::OpenOptions::new().write(true).open(&drive.node).unwrap());
    let name = drive.node.display().to_string();
    for more in [&[][..], &["--overwrite", &name]] {
        let error = site.write("iso", &drive.node, more).unwrap_err();
        assert!(
            error.starts_with(&format!("imprint-host: {name} is in use: it or a part of it is mounted, ")),
            "{error}"
        );
    }
    assert_eq!(site.payloads(), 0);
    nix::mount::umount(&site.path("mounted")).unwrap();
    site.write("iso", &drive.node, &["--overwrite", &name]).unwrap();
    drive.payload();
}

#[test]
fn what_does_not_fit_or_is_no_image_is_refused_before_it_is_written() {
    let site = Site::new();
    let small = site.drive("small", 32 * 1024, &[]);
    let name = small.node.display().to_string();
    for form in ["iso", "vfat"] {
        let error = site.write(form, &small.node, &[]).unwrap_err();
        assert!(error.starts_with(&format!("imprint-host: {name} has 32768 bytes and the image ")), "{error}");
        assert!(error.ends_with("; nothing was written, give a larger drive\n"), "{error}");
    }
    let drive = site.drive("drive", 4 * MIB, &[]);
    for form in ["cbor", "text", "userpass", "cmdline", "cpio", "gpt", "smbios", "efivar", "user-data"] {
        let want = format!(
            "imprint-host: {} is a drive, and only a config drive is written to one; give --as iso or --as vfat\n",
            drive.node.display()
        );
        assert_eq!(site.write(form, &drive.node, &[]), Err(want));
    }
    for drive in [&small, &drive] {
        assert!(fs::read(&drive.image).unwrap().iter().all(|byte| *byte == 0));
    }
    assert_eq!(site.payloads(), 0, "earlier payloads stay valid");
}

/// Nodes look for config drives on whole drives.
#[test]
fn a_partition_is_refused() {
    let site = Site::new();
    let mut table = vec![0; 4 * 1024 * 1024];
    // One partition of type 0x83, from sector 2048 on, of 4096 sectors.
    table[446..462].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0]);
    table[510..512].copy_from_slice(b"\x55\xaa");
    fs::write(site.path("table"), table).unwrap();
    let drive = site.drive_of("drive", site.path("table"), &["-P"]);
    // Not every kernel reads tables by itself.
    drop(Command::new("addpart").arg(&drive.system).args(["1", "2048", "4096"]).output().unwrap());
    let name = drive.system.file_name().unwrap().to_str().unwrap();
    let numbers = fs::read_to_string(format!("/sys/block/{name}/{name}p1/dev")).unwrap();
    let (first, second) = numbers.trim().split_once(':').unwrap();
    let device = makedev(first.parse().unwrap(), second.parse().unwrap());
    let partition = site.path("partition");
    mknod(&partition, SFlag::S_IFBLK, Mode::S_IRUSR, device).unwrap();
    let error = site.write("iso", &partition, &[]).unwrap_err();
    assert!(error.contains(" is a partition, and only whole drives are written to; "), "{error}");
    let error = site.write("iso", &drive.node, &[]).unwrap_err();
    assert!(error.contains(" holds a partition table (MBR); nothing was written. "), "{error}");
}

/// It takes what it is given, and has no place for it: what is on the drive counts, not what is in memory.
#[test]
fn a_drive_that_loses_what_is_written_is_told() {
    let site = Site::new();
    fs::create_dir(site.path("full")).unwrap();
    nix::mount::mount(Some("none"), &site.path("full"), Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
    let image = site.path("full/image");
    fs::File::create(&image).unwrap().set_len(4 * MIB).unwrap();
    let drive = site.drive_of("drive", image, &[]);
    let error = site.write("iso", &drive.node, &[]).unwrap_err();
    assert_eq!(error, format!("imprint-host: writing {}: Input/output error (os error 5)\n", drive.node.display()));
}

#[test]
fn a_drive_that_can_only_be_read() {
    let site = Site::new();
    let drive = site.drive("drive", 4 * MIB, &["-r"]);
    let error = site.write("iso", &drive.node, &[]).unwrap_err();
    let why = "is read-only; check its write-protect switch, or give another drive";
    assert_eq!(error, format!("imprint-host: {} {why}\n", drive.node.display()));
    assert_eq!(site.payloads(), 0);
}

#[test]
fn a_character_device_is_written_to() {
    let site = Site::new();
    let null = site.path("null");
    replaces(&site, SFlag::S_IFCHR, makedev(1, 3));
    // Numbers of devices: Linux, Documentation/admin-guide/devices.txt.
    mknod(&null, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(1, 3)).unwrap();
    for form in ["cbor", "iso", "cmdline"] {
        site.write(form, &null, &[]).unwrap();
        assert!(fs::symlink_metadata(&null).unwrap().file_type().is_char_device(), "{form}");
    }
    let full = site.path("always-full");
    mknod(&full, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(1, 7)).unwrap();
    let error = site.write("cbor", &full, &[]).unwrap_err();
    assert_eq!(error, format!("imprint-host: writing {}: No space left on device (os error 28)\n", full.display()));
    assert!(fs::symlink_metadata(&full).unwrap().file_type().is_char_device());
}

/// What is binary and secret does not go to a screen, whatever that is called.
#[test]
fn a_terminal_gets_text_only() {
    let site = Site::new();
    let pty = nix::pty::openpty(None, None).unwrap();
    let name = nix::unistd::ttyname(&pty.slave).unwrap();
    let want = "imprint-host: a payload is binary and secret, not for a terminal; give -o FILE\n".to_owned();
    assert_eq!(site.write("cbor", &name, &[]), Err(want));
    site.write("cmdline", &name, &[]).unwrap();
    let mut said = vec![0; 4096];
    let count = std::io::Read::read(&mut fs::File::from(pty.master), &mut said).unwrap();
    assert!(said[..count].starts_with(b"imprint.payload="));
}

/// The old file stays whole, nothing is left beside it, and the payload before stays valid.
#[test]
fn a_full_disk_costs_nothing() {
    let site = Site::new();
    fs::create_dir(site.path("small")).unwrap();
    nix::mount::mount(Some("none"), &site.path("small"), Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
    let file = site.path("small/payload");
    site.write("cbor", &file, &[]).unwrap();
    let before = fs::read(&file).unwrap();
    // An image of a megabyte.
    let error = site.write("vfat", &file, &[]).unwrap_err();
    assert_eq!(error, format!("imprint-host: writing {}: No space left on device (os error 28)\n", file.display()));
    assert!(fs::read(&file).unwrap() == before);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(site.path("small")).unwrap().count(), 1);
    assert_eq!(site.payloads(), 1, "the second was never booked, so the first is still good");
}

/// Who can write to the folder waits there for the name of a payload, with a FIFO to read it from or a link to a file of
/// root's. The kernel refuses neither without O_CREAT (proc(5): protected_fifos, protected_symlinks).
#[test]
fn what_a_stranger_has_put_there_is_not_written_to() {
    let site = Site::new();
    let (fifo, link, valuable) = (site.path("fifo"), site.path("link"), site.path("valuable"));
    nix::unistd::mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    fs::write(&valuable, "valuable").unwrap();
    std::os::unix::fs::symlink("valuable", &link).unwrap();
    let mut reader = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    // Premise: root may write to it, and the stranger reads.
    std::io::Write::write_all(&mut fs::OpenOptions::new().write(true).open(&fifo).unwrap(), b"token").unwrap();
    let mut read = [0; 16];
    assert_eq!(std::io::Read::read(&mut reader, &mut read).unwrap(), 5);
    let stranger = |path: &Path| std::os::unix::fs::lchown(path, Some(65_534), Some(65_534)).unwrap();
    stranger(&fifo);
    stranger(&link);
    for (path, what) in [(&fifo, "a FIFO"), (&link, "a link")] {
        let name = path.display();
        let want = format!(
            "{name} is {what} of another user, who could read or redirect the output; remove it, or write to a folder of \
             your own\n"
        );
        assert_eq!(site.write("cbor", path, &[]), Err(format!("imprint-host: {want}")));
        let words =
            ["inject", "node1", "--line", "unix:/nowhere/line", "--window", "1s", "--log", path.to_str().unwrap()];
        let said = String::from_utf8(site.command(&words).output().unwrap().stderr).unwrap();
        assert!(said.contains(&format!("node1: failed: --log: {want}")), "{said}");
    }
    assert_eq!((fs::read_to_string(&valuable).unwrap().as_str(), site.payloads()), ("valuable", 0));
    let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&reader), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).unwrap(), 0, "nothing was written");
    // A pipe has no name, and belongs to whoever started the program: sudo imprint-host … -o /dev/stdout | …
    let (reader, writer) = nix::unistd::pipe().unwrap();
    nix::unistd::fchown(&writer, Some(65_534.into()), None).unwrap();
    let mut host = site.command(&["payload", "node1", "-o", "/proc/self/fd/1"]);
    let status = host.stdout(writer).status().unwrap();
    drop(host);
    let mut said = Vec::new();
    std::io::Read::read_to_end(&mut fs::File::from(reader), &mut said).unwrap();
    assert!(status.success() && said.len() > 300);
}
