//! Tests of network, mounts and host name against the real kernel. Each test has namespaces of its own: every test is a
//! thread, and namespaces belong to threads. They need root and `ip`, and fail without them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test panics

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use imprint::apply::network::set_hostname;
use imprint::apply::{clock, entropy};
use imprint::handover::{self, Certificates, Folder, HandoverError, Private, memory};
use imprint::identity::Identity;
use imprint::netlink::Netlink;
use imprint::netlink::message::{GROUP_LINK, Request};
use imprint::payload::{CertificateNames, DnsName, HostName, KeyType};
use imprint::plan::{SeedPlan, SubjectPlan};
use imprint::secret::Secret;
use imprint::source::config_drive::{self, Search, Wanted};
use imprint::status::{Node, Outcome, Status, Timeline, VERSION};
use imprint::time::{Deadline, Timestamp};
use imprint::uevent::{Change, Watch};
use imprint_tests::patience::{PATIENCE, patiently};
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, getsockname, sendto, socket,
};

mod netns {
    mod calls;
    mod answers;
    mod approval;
    mod waiting;
    mod ether;
    mod enterprise;
    mod crowd;
    mod finding;
    mod disk;
    mod checkin;
    mod dhcp;
    mod dhcp6;
    mod door;
    mod handover;
    mod heard;
    mod home;
    mod laid;
    mod line;
    mod netroot;
    mod network;
    mod output;
    mod peer;
    mod rooms;
    mod servers;
    mod root_file;
    mod several;
    mod swap;
}

/// Moves this thread into new namespaces. It does not come back.
fn namespaces() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .expect("these tests make namespaces: run them as root");
    // Mounts of this test must not show outside.
    let none: Option<&str> = None;
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
}

/// New namespaces with eth0 and its peer p0, both down.
fn veth() {
    namespaces();
    ip("link add eth0 type veth peer name p0");
}

fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split(' ')).output().expect("these tests need iproute2");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn later() -> Deadline {
    Deadline::after(PATIENCE)
}

fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

#[test]
fn only_the_kernel_is_believed() {
    namespaces();
    let mut netlink = Netlink::open(0).unwrap();
    let port = getsockname::<NetlinkAddr>(netlink.as_fd().as_raw_fd()).unwrap().pid();
    // Attack: another process sends a refusal of the next request (sequence number 1).
    let mut forged = vec![0; 36];
    forged[0] = 36;
    forged[4] = 2; // NLMSG_ERROR
    forged[8] = 1; // sequence number
    forged[16..20].copy_from_slice(&(-1i32).to_ne_bytes());
    let flags = SockFlag::SOCK_CLOEXEC;
    let liar = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute).unwrap();
    sendto(liar.as_raw_fd(), &forged, &NetlinkAddr::new(port, 0), MsgFlags::empty()).unwrap();
    let links = netlink.links(later()).unwrap();
    assert_eq!(links.len(), 1, "a new namespace has a loopback and nothing else");
    assert_eq!(links[0].name.as_ref().unwrap().as_str(), "lo");
}

#[test]
fn answers_to_requests_that_were_given_up_are_not_taken_for_others() {
    veth();
    let mut netlink = Netlink::open(0).unwrap();
    // An answer with a wrong sequence number: the request was sent past this type.
    let stray = Request::Link { index: index("eth0") }.encode(77);
    sendto(netlink.as_fd().as_raw_fd(), &stray, &NetlinkAddr::new(0, 0), MsgFlags::empty()).unwrap();
    let link = netlink.link(index("p0"), later()).unwrap();
    assert_eq!(link.name.unwrap().as_str(), "p0");
}

#[test]
fn a_dump_of_many_datagrams_is_read_to_its_end() {
    namespaces();
    for n in 0..50 {
        ip(&format!("link add a{n} type veth peer name b{n}"));
    }
    assert_eq!(Netlink::open(0).unwrap().links(later()).unwrap().len(), 101);
}

#[test]
fn the_host_name_is_set() {
    namespaces();
    set_hostname(&HostName::try_from("node1.example.org").unwrap()).unwrap();
    assert_eq!(nix::unistd::gethostname().unwrap(), "node1.example.org");
}

/// Waits until the kernel reports that a link is operational: up to a second after its carrier (net/core/link_watch.c).
fn operational(name: &str) {
    let mut changes = Netlink::open(GROUP_LINK).unwrap();
    while !Netlink::open(0).unwrap().link(index(name), later()).unwrap().operational() {
        changes.changed(later()).unwrap();
    }
}

/// The mounts on `path`: (file system, its options, mount options). Namespaces belong to threads, so not /proc/self.
fn mounts(path: &Path) -> Vec<(String, String, String)> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let lines = table.lines().map(|line| line.split_once(" - ").unwrap());
    lines
        .filter_map(|(left, right)| {
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            (Path::new(left[4]) == path).then(|| (right[0].to_owned(), right[2].to_owned(), left[5].to_owned()))
        })
        .collect()
}

#[test]
fn the_keys_file_system_is_a_tmpfs_that_is_never_swapped_out() {
    namespaces();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("private");
    fs::create_dir(&path).unwrap();
    for _ in 0..2 {
        memory::mount(&path, memory::TMPFS_OPTIONS).unwrap();
        let [(kind, options, flags)] = &mounts(&path)[..] else { panic!("{:?}", mounts(&path)) };
        assert_eq!(kind, "tmpfs");
        for option in ["noswap", "size=17408k", "mode=700"] {
            assert!(options.split(',').any(|o| o == option), "{option} in {options}");
        }
        for flag in ["nosuid", "nodev", "noexec"] {
            assert!(flags.split(',').any(|f| f == flag), "{flag} in {flags}");
        }
    }
    nix::mount::umount(&path).unwrap();
}

#[test]
fn a_kernel_that_does_not_know_the_option_gets_a_ramfs() {
    namespaces();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("private");
    fs::create_dir(&path).unwrap();
    for _ in 0..2 {
        // An unknown mount option, as `noswap` is to Linux before 6.4.
        memory::mount(&path, "imprint-no-such-option,mode=0700").unwrap();
        let [(kind, _, flags)] = &mounts(&path)[..] else { panic!("{:?}", mounts(&path)) };
        assert_eq!(kind, "ramfs");
        assert!(flags.contains("nosuid,nodev,noexec"), "{flags}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
    }
    nix::mount::umount(&path).unwrap();
}

#[test]
fn somebody_elses_mount_is_not_used_for_a_key() {
    namespaces();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("private");
    fs::create_dir(&path).unwrap();
    nix::mount::mount(Some("proc"), &path, Some("proc"), MsFlags::empty(), None::<&str>).unwrap();
    let error = memory::mount(&path, memory::TMPFS_OPTIONS).unwrap_err();
    let HandoverError::NotOurs { what, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*what, "a mount of another file system");
    nix::mount::umount(&path).unwrap();
}

/// Somebody else mounted the tmpfs, and a key on it could be swapped out to a disk.
#[test]
fn a_tmpfs_that_may_be_swapped_out_is_not_used_for_a_key() {
    namespaces();
    let directory = tempfile::tempdir().unwrap();
    // mountinfo writes the space as an octal number.
    let path = directory.path().join("private folder");
    fs::create_dir(&path).unwrap();
    let tmpfs = |options: &str| {
        nix::mount::mount(Some("other"), &path, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
        let mounted = memory::mount(&path, memory::TMPFS_OPTIONS);
        nix::mount::umount(&path).unwrap();
        mounted
    };
    for options in ["mode=0700", "mode=0700,size=1m,huge=never"] {
        let error = tmpfs(options).unwrap_err();
        let HandoverError::NotOurs { what, .. } = &error else { panic!("{options}: {error:?}") };
        assert_eq!(*what, "a tmpfs without noswap, which the kernel may swap out", "{options}");
    }
    // With the option, a key on it stays in memory.
    tmpfs("mode=0700,noswap").unwrap();
}

#[test]
fn a_boot_hands_over_twice_and_a_failure_takes_nothing_away() {
    namespaces();
    let run = tempfile::tempdir().unwrap();
    let directory = run.path().join("imprint");
    let key = directory.join("private/key.pem");
    let names = CertificateNames { dns: vec![DnsName::try_from("node1").unwrap()], ..Default::default() };
    let subject = SubjectPlan { names, key: KeyType::P256 };
    let status = || Timeline::new(|_| ()).done();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let seeded = imprint::pool::Seeded::ready(later()).unwrap();
        let identity = Identity::generate(&subject, &seeded).unwrap();
        let node = Node {
            version: VERSION,
            name: Some("node1".to_owned()),
            payload_id: "00".repeat(16),
            hostname: None,
            key_code: identity.code().to_string(),
            not_after: "2026-11-23T00:00:00Z".to_owned(),
            network: None,
            renewal: None,
            root_sha256: None,
        };
        let certificates = Certificates { leaf: b"leaf", intermediates: &[], ca: b"ca" };
        let folder = Folder::make(&directory).unwrap();
        handover::write(&folder, Private::Mount, identity, &certificates, &node).unwrap().finish(&status()).unwrap();
        assert_eq!(mounts(&directory.join("private")).len(), 1, "one mount, not a stack of them");
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(directory.join("private")).unwrap().mode() & 0o7777, 0o700);
        assert!(directory.join("ready").exists());
        keys.push(fs::read_to_string(&key).unwrap());
        // After a renewal the new key is on the same file system in memory, and the old key is gone.
        let identity = Identity::generate(&subject, &seeded).unwrap();
        handover::replace(&folder, identity, &certificates, &node).unwrap();
        let (private, renewed) = (directory.join("private"), fs::metadata(&key).unwrap());
        assert_eq!(renewed.mode() & 0o7777, 0o600);
        assert_eq!(renewed.dev(), fs::metadata(&private).unwrap().dev());
        assert_ne!(renewed.dev(), fs::metadata(&directory).unwrap().dev());
        let files = fs::read_dir(&private).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
        assert!(
            files.into_iter().all(|text| text == fs::read_to_string(&key).unwrap() && text != keys[keys.len() - 1])
        );
        keys.push(fs::read_to_string(&key).unwrap());
    }
    let last = keys.last().unwrap().clone();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 4);
    // A failed run does not remove `ready`.
    handover::fail(&directory, &Status { outcome: Outcome::Failed, exit_code: 18, ..status() }).unwrap();
    assert!(directory.join("ready").exists());
    assert_eq!(fs::read_to_string(&key).unwrap(), last);
    nix::mount::umount(&directory.join("private")).unwrap();
}

#[test]
fn the_kernel_takes_a_credited_seed() {
    let seed = SeedPlan { bytes: Secret::new(vec![7; 32]), credit_bits: 256 };
    entropy::seed(&Some(seed), Path::new("/"), later()).unwrap();
}

/// The wall clock has no namespace, so the test sets it to its present value; virtual machines test the rest.
#[test]
fn the_kernel_takes_a_time_of_day() {
    clock::set(Timestamp::system()).unwrap();
}

/// Makes the kernel send an event about a block device, by writing to its uevent file. Every machine has a loop device, and
/// the event changes nothing.
fn block_event() {
    fs::write("/sys/block/loop0/uevent", "change").expect("these tests need root and a loop device");
}

#[test]
fn a_block_event_of_the_kernel_ends_a_wait() {
    let root = tempfile::tempdir().unwrap();
    let mut watch = Watch::open(root.path(), false, PATIENCE).unwrap();
    block_event();
    // Other tests, and the machine itself, may cause events as well.
    loop {
        match watch.wait(true, &[], later()).unwrap() {
            Change::Block(Some(device)) if device == "loop0" => return,
            Change::Block(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A drive appears after the list of drives was made. The test knows that moment by a second drive, a FIFO: it can be
/// written to once its reader was started.
#[test]
fn a_drive_that_appears_behind_the_scan_is_found() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    fs::create_dir_all(root.join("sys/block")).unwrap();
    fs::create_dir_all(root.join("dev")).unwrap();
    let in_sysfs = |name: &str| {
        let target = format!("../devices/pci0000:00/0000:00:01.1/ata2/host1/target1:0:0/1:0:0:0/block/{name}");
        std::os::unix::fs::symlink(target, root.join("sys/block").join(name)).unwrap();
    };
    in_sysfs("sda");
    nix::unistd::mkfifo(&root.join("dev/sda"), nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    let found = std::thread::scope(|scope| {
        scope.spawn(|| {
            let _held = fs::OpenOptions::new().write(true).open(root.join("dev/sda")).unwrap();
            fs::write(root.join("dev/sr0"), include_bytes!("data/iso-plain.iso")).unwrap();
            in_sysfs("sr0");
            block_event();
        });
        let program = imprint_tests::programs::agent();
        let search = Search {
            wanted: &[Wanted::Label(None)],
            named: false,
            pinned: false,
            insist: false,
            patience: PATIENCE,
            program: &program,
            other: None,
        };
        config_drive::find(&search, root, later(), &mut |_| {}).unwrap()
    });
    let found = found.unwrap();
    assert_eq!(found.origin.to_string(), "config-drive sr0 (IMPRINT)");
    assert_eq!(found.bytes.expose(), b"payload\n");
}
