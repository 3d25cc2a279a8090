//! Network, mounts and host name against the real kernel, in namespaces of the test's own. They need root and `ip`;
//! without them they fail. Every test is a thread of its own, and namespaces belong to threads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test panics

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use imprint::apply::network::{NetworkError, configure, set_hostname};
use imprint::apply::{clock, entropy};
use imprint::chain::chain;
use imprint::handover::{self, Certificates, HandoverError, Private, memory};
use imprint::identity::Identity;
use imprint::netlink::message::{GROUP_LINK, IFF_UP, Request};
use imprint::netlink::{Netlink, RequestError};
use imprint::payload::{CertificateNames, DnsName, HostName, InterfaceName, KeyType, Prefix, Route};
use imprint::plan::{NetworkPlan, SeedPlan, SubjectPlan};
use imprint::secret::Secret;
use imprint::source::config_drive::{self, Search};
use imprint::source::uevent::{Change, Watch};
use imprint::status::{Node, Outcome, Status, Timeline, VERSION};
use imprint::time::{Deadline, Timestamp};
use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, getsockname, sendto, socket,
};

/// Leaves the machine's namespaces for good.
fn namespaces() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .expect("these tests make namespaces: run them as root");
    // What is mounted here must not show outside.
    let none: Option<&str> = None;
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
}

/// eth0 and its peer p0, both down.
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
    Deadline::after(Duration::from_secs(60))
}

fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

fn route(to: &str, via: Option<&str>, metric: Option<u32>) -> Route {
    Route { destination: Prefix::parse(to).unwrap(), gateway: via.map(|via| via.parse().unwrap()), metric }
}

fn plan() -> NetworkPlan {
    NetworkPlan {
        index: index("eth0"),
        name: InterfaceName::try_from("eth0").unwrap(),
        mtu: Some(1400),
        addresses: vec![Prefix::parse("192.0.2.10/24").unwrap(), Prefix::parse("2001:db8::10/64").unwrap()],
        routes: vec![
            route("0.0.0.0/0", Some("192.0.2.1"), Some(100)),
            route("198.51.100.0/24", None, None),
            route("2001:db8:1::/48", Some("2001:db8::1"), None),
        ],
        dns: vec!["192.0.2.53".parse().unwrap()],
        search: vec![DnsName::try_from("example.org").unwrap()],
    }
}

#[test]
fn a_link_gets_what_the_plan_says_and_a_second_run_changes_nothing() {
    veth();
    ip("link set p0 up");
    let root = tempfile::tempdir().unwrap();
    let network = configure(&plan(), root.path(), later()).unwrap();
    assert_eq!(network.name.as_str(), "eth0");
    assert_eq!(network.mtu, 1400);
    let mac = network.mac.clone().unwrap().to_string();
    assert!(ip("-o link show dev eth0").contains(&mac));
    assert_eq!(network.addresses, plan().addresses);

    let show = || ["-o -4 addr show dev eth0", "-4 route", "-6 route", "-o link show dev eth0"].map(ip);
    let first = show();
    assert!(first[0].contains("inet 192.0.2.10/24 scope global eth0"), "{}", first[0]);
    assert!(first[1].contains("default via 192.0.2.1 dev eth0 metric 100"), "{}", first[1]);
    assert!(first[1].contains("198.51.100.0/24 dev eth0 scope link"), "{}", first[1]);
    assert!(first[2].contains("2001:db8:1::/48 via 2001:db8::1 dev eth0"), "{}", first[2]);
    assert!(first[3].contains("mtu 1400"), "{}", first[3]);
    // Usable at once: duplicate address detection would leave it tentative for a second.
    let six = ip("-o -6 addr show dev eth0 to 2001:db8::10");
    assert!(six.contains("2001:db8::10/64") && !six.contains("tentative"), "{six}");
    let resolv = fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap();
    assert!(resolv.ends_with("\nnameserver 192.0.2.53\nsearch example.org\n"), "{resolv}");

    assert_eq!(configure(&plan(), root.path(), later()).unwrap(), network);
    assert_eq!(show(), first);
}

#[test]
fn carrier_is_awaited() {
    veth();
    // Once eth0 is up, and not before, its peer follows.
    let mut changes = Netlink::open(GROUP_LINK).unwrap();
    let peer = std::thread::spawn(move || {
        let mut netlink = Netlink::open(0).unwrap();
        while netlink.link(index("eth0"), later()).unwrap().flags & IFF_UP == 0 {
            changes.changed(later()).unwrap();
        }
        ip("link set p0 up");
    });
    let root = tempfile::tempdir().unwrap();
    configure(&plan(), root.path(), later()).unwrap();
    peer.join().unwrap();
    let link = Netlink::open(0).unwrap().link(index("eth0"), later()).unwrap();
    assert!(link.operational());
}

#[test]
fn no_carrier_is_an_error_that_names_link_and_driver() {
    veth();
    let root = tempfile::tempdir().unwrap();
    let device = root.path().join("sys/class/net/eth0/device");
    fs::create_dir_all(&device).unwrap();
    std::os::unix::fs::symlink("../../../bus/pci/drivers/e1000e", device.join("driver")).unwrap();
    let error = configure(&plan(), root.path(), Deadline::after(Duration::from_millis(20))).unwrap_err();
    let NetworkError::NoCarrier { name, driver, .. } = &error else { panic!("{error:?}") };
    assert_eq!((name.as_str(), driver.as_deref()), ("eth0", Some("e1000e")));
    assert!(!root.path().join("etc").exists(), "no resolv.conf for a network that is not there");
}

#[test]
fn a_gateway_outside_every_network_is_refused_in_the_kernels_words() {
    veth();
    let root = tempfile::tempdir().unwrap();
    let plan = NetworkPlan { routes: vec![route("0.0.0.0/0", Some("203.0.113.1"), None)], ..plan() };
    // At once, without waiting for the carrier that never comes.
    let error = configure(&plan, root.path(), later()).unwrap_err();
    assert_eq!(
        chain(&error),
        "route default via 203.0.113.1 on eth0: network is unreachable (the kernel says: Nexthop has invalid gateway)"
    );
}

#[test]
fn an_mtu_that_the_link_cannot_have_is_refused() {
    veth();
    let root = tempfile::tempdir().unwrap();
    let error = configure(&NetworkPlan { mtu: Some(60), ..plan() }, root.path(), later()).unwrap_err();
    assert_eq!(chain(&error), "MTU 60 on eth0: invalid argument (the kernel says: mtu less than device minimum)");
}

#[test]
fn the_same_address_with_another_prefix_is_no_success() {
    veth();
    ip("link set p0 up");
    ip("addr add 2001:db8::10/80 dev eth0");
    let root = tempfile::tempdir().unwrap();
    let error = configure(&plan(), root.path(), later()).unwrap_err();
    let NetworkError::Refused { what, source: RequestError::Refused { errno: Errno::EEXIST, .. }, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(what, "address 2001:db8::10/64");
}

#[test]
fn a_link_that_is_gone_is_named() {
    veth();
    let plan = plan();
    ip("link del eth0");
    let root = tempfile::tempdir().unwrap();
    let error = configure(&plan, root.path(), later()).unwrap_err();
    let want = format!("link eth0 (index {}) is gone; was it unplugged, or its driver unloaded?", plan.index);
    assert_eq!(chain(&error), want);
}

#[test]
fn a_link_that_was_renamed_is_still_the_same() {
    veth();
    let plan = plan();
    ip("link set eth0 name enp0s1");
    ip("link set p0 up");
    let root = tempfile::tempdir().unwrap();
    assert_eq!(configure(&plan, root.path(), later()).unwrap().name.as_str(), "enp0s1");
}

#[test]
fn only_the_kernel_is_believed() {
    namespaces();
    let mut netlink = Netlink::open(0).unwrap();
    let port = getsockname::<NetlinkAddr>(netlink.as_fd().as_raw_fd()).unwrap().pid();
    // A refusal of the request with sequence number 1, which is the next one, from another process.
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
    // An answer with the wrong sequence number: to a request that did not go through this type.
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
        for option in ["noswap", "size=1024k", "mode=700"] {
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
        // What `noswap` is to Linux before 6.4: an option that nobody knows.
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

#[test]
fn a_boot_hands_over_twice_and_fails_once() {
    namespaces();
    let run = tempfile::tempdir().unwrap();
    let directory = run.path().join("imprint");
    let key = directory.join("private/key.pem");
    let names = CertificateNames { dns: vec![DnsName::try_from("node1").unwrap()], ..Default::default() };
    let subject = SubjectPlan { names, key: KeyType::P256 };
    let status = || Timeline::new(|_| ()).done();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let seeded = entropy::Seeded::ready(later()).unwrap();
        let identity = Identity::generate(&subject, &seeded).unwrap();
        let node = Node {
            version: VERSION,
            name: "node1".to_owned(),
            payload_id: "00".repeat(16),
            hostname: None,
            key_code: identity.code().to_string(),
            not_after: "2026-11-23T00:00:00Z".to_owned(),
            network: None,
            renewal: None,
        };
        let certificates = Certificates { leaf: b"leaf", intermediates: &[], ca: b"ca" };
        handover::write(&directory, Private::Mount, identity, &certificates, &node).unwrap().finish(&status()).unwrap();
        assert_eq!(mounts(&directory.join("private")).len(), 1, "one mount, not a stack of them");
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(directory.join("private")).unwrap().mode() & 0o7777, 0o700);
        assert!(directory.join("ready").exists());
        keys.push(fs::read_to_string(&key).unwrap());
    }
    assert_ne!(keys[0], keys[1]);
    handover::fail(&directory, &Status { outcome: Outcome::Failed, exit_code: 18, ..status() }).unwrap();
    for gone in ["private/key.pem", "cert.pem", "chain.pem", "node.json", "ready"] {
        assert!(!directory.join(gone).exists(), "{gone}");
    }
    nix::mount::umount(&directory.join("private")).unwrap();
}

#[test]
fn the_kernel_takes_a_credited_seed() {
    let seed = SeedPlan { bytes: Secret::new(vec![7; 32]), credit_bits: 256 };
    entropy::seed(&Some(seed), Path::new("/"), later()).unwrap();
}

/// There are no namespaces of the wall clock, so it is set to what it says already; virtual machines test the rest.
#[test]
fn the_kernel_takes_a_time_of_day() {
    clock::set(Timestamp::system()).unwrap();
}

/// The kernel tells about a device again when its uevent file is written to; a loop device is on every machine, and its
/// event says no more than it is.
fn block_event() {
    fs::write("/sys/block/loop0/uevent", "change").expect("these tests need root and a loop device");
}

#[test]
fn a_block_event_of_the_kernel_ends_a_wait() {
    let root = tempfile::tempdir().unwrap();
    let mut watch = Watch::open(root.path()).unwrap();
    block_event();
    // Other tests, and the machine itself, may cause events as well.
    loop {
        match watch.wait(true, later()).unwrap() {
            Change::Block(Some(device)) if device == "loop0" => return,
            Change::Block(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A drive appears after the list of drives was made, and only the kernel's event tells of it: without the event this
/// ends with "absent". The scan is held meanwhile by a drive that is a FIFO, which opens once somebody writes to it.
#[test]
fn a_drive_that_appears_behind_the_scan_is_found_by_its_event() {
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
        let search = Search { labels: &[], pinned: false, insist: false };
        config_drive::find(&search, root, later(), &mut |_| {}).unwrap()
    });
    let found = found.unwrap();
    assert_eq!(found.origin.to_string(), "config-drive sr0 (IMPRINT)");
    assert_eq!(found.bytes.expose(), b"payload\n");
}
