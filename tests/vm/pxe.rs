//! Tests of machines that have nothing: their firmware gets a boot loader over the network, and the boot loader gets kernel, image and
//! payload. Each test has a network namespace with dnsmasq (DHCP, TFTP, router advertisements), an HTTP server and the EST server. It uses
//! the files and commands of docs/pxe.md as they stand there, but for the words of the kernel command line that a test machine needs.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use imprint_tests::vm;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::door::{Ends, ip};
use crate::*;

/// Where the page has everything that nodes load.
const FOLDER: &str = "/srv/pxe";
/// The link of the page's node.
const MAC: &str = "52-54-00-12-34-57";
/// A link that comes first and is dead: its cable leads to a switch port without anybody.
const DEAD: &str = "52-54-00-12-34-56";
const IPV4: &str = "192.0.2.1";
const IPV6: &str = "2001:db8::1";
/// The page's words for the root.
const ROOT: &str = "root=LABEL=node-root";

const NODE: Node =
    Node { matching: "{ bootif = true }", network: "dhcp4 = true\n", server: (IPV4, IPV4), ..crate::NODE };

fn page() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/pxe.md")).unwrap()
}

/// The block of the page behind these words, which end with the file's name.
fn block(words: &str) -> String {
    let page = page();
    let (_, rest) = page.split_once(&format!("{words}:\n\n```\n")).unwrap_or_else(|| panic!("no {words} on the page"));
    let (text, _) = rest.split_once("```\n").unwrap();
    text.replace(ROOT, &format!("{} quiet", vm::WORDS))
}

/// The command of the page that begins with these words.
fn command(begin: &str) -> String {
    let page = page();
    let found = page.split('`').skip(1).step_by(2).find(|span| span.starts_with(begin));
    found.unwrap_or_else(|| panic!("no command {begin} on the page")).to_owned()
}

/// The network of the page's nodes, its boot server, and the EST server.
struct Network {
    site: Site,
    _servers: [Ends; 2],
}

impl Network {
    /// `blocks`: of the page, beside the one that all boot loaders need. `commands`: those that copy the boot loader.
    fn new(node: Node, init: Init, blocks: &[&str], commands: &[&str]) -> Network {
        let ipv6_only = node.server.0.starts_with('[');
        links(ipv6_only);
        let none: Option<&str> = None;
        // Mounts of this test must not show outside.
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("pxe"), "/srv", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        fs::create_dir(FOLDER).unwrap();
        for begin in commands {
            let status = Command::new("sh").args(["-ec", &command(begin)]).stdout(Stdio::null()).status().unwrap();
            assert!(status.success(), "{begin}: run scripts/install-needs pxe");
        }
        let site = Site::new(node);
        files(&site, init);
        let mut lines = block("`/etc/dnsmasq.d/pxe.conf`");
        for words in blocks {
            let path = words.split('`').nth(1).unwrap();
            if path.starts_with(FOLDER) {
                fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
                fs::write(path, block(words)).unwrap();
            } else {
                lines += &block(words);
            }
        }
        let lines: Vec<&str> = lines.lines().filter(|line| !ipv6_only || !line.contains("192.0.2.")).collect();
        let at = |name: &str| site.work.path().join(name).display().to_string();
        fs::write(at("pxe.conf"), lines.join("\n") + "\n").unwrap();
        let dnsmasq = format!("dnsmasq --keep-in-foreground --user=root --conf-file={}", at("pxe.conf"));
        let files = format!("--dhcp-leasefile={} --log-facility={}", at("leases"), at("dnsmasq.log"));
        let servers = [started(&format!("{dnsmasq} {files}")), started(&command("python3 -m http.server"))];
        let address = if ipv6_only { IPV6 } else { IPV4 };
        await_that("the HTTP server", || TcpStream::connect((address, 80)).is_ok());
        // Its ports, 547 and 67, in hexadecimal.
        let (table, port) = if ipv6_only { ("udp6", ":0223 ") } else { ("udp", ":0043 ") };
        await_that("dnsmasq", || fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap().contains(port));
        Network { site, _servers: servers }
    }
}

/// A bridge with the boot server's addresses and a tap device, and a tap device that leads nowhere.
fn links(ipv6_only: bool) {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("this test makes namespaces: run it as root");
    for words in [
        "link add eth0 type bridge",
        // A port that is always there: a bridge without one has no carrier.
        "link add s0 type veth peer name s1",
        "link set s0 master eth0 up",
        "link set s1 addrgenmode none up",
        "tuntap add live mode tap",
        "tuntap add dead mode tap",
        "link set live master eth0 up",
        "link set dead up",
        "link set lo up",
        "link set eth0 up",
    ] {
        ip(words);
    }
    ip(&format!("-6 addr add {IPV6}/64 dev eth0 nodad"));
    if !ipv6_only {
        ip(&format!("addr add {IPV4}/24 dev eth0"));
    }
}

/// Kernel, image and payloads. The payload for the other link names another machine: with it a node does not come up.
fn files(site: &Site, init: Init) {
    let image = format!("{FOLDER}/initramfs.img");
    fs::copy(vm::vmlinuz(Kernel::Stable, init), format!("{FOLDER}/vmlinuz")).unwrap();
    fs::copy(vm::initramfs(Kernel::Stable, init), &image).unwrap();
    // dracut makes images that only root can read, and a TFTP server does not hand those out.
    fs::set_permissions(&image, fs::Permissions::from_mode(0o644)).unwrap();
    fs::create_dir(format!("{FOLDER}/nodes")).unwrap();
    let mut other = imprint::payload::Payload::unwrapped(&site.payload).unwrap();
    other.binding = Some(imprint::payload::Binding { uuid: Some([0xee; 16]), ..Default::default() });
    for (mac, payload) in [(MAC, site.payload.as_slice()), (DEAD, other.encode().as_slice())] {
        fs::write(format!("{FOLDER}/nodes/{mac}.cbor"), payload).unwrap();
        fs::write(format!("{FOLDER}/nodes/{mac}.cpio"), &*imprint_host::cpio::archive(payload).unwrap()).unwrap();
    }
}

/// A server of this network. It ends with the test.
fn started(command: &str) -> Ends {
    let mut words = command.split(' ');
    let mut server = Command::new(words.next().unwrap());
    let child = server.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Ends(child.unwrap_or_else(|error| panic!("{command} ({error}): run scripts/install-needs pxe")))
}

fn await_that(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what} did not start");
        // Neither gives notice.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A machine whose second link leads to the boot server, and the first one to nobody. Its firmware boots from the second. `rom`: the
/// card brings QEMU's iPXE; EFI has drivers of its own.
fn two_links(init: Init, rom: bool) -> Machine {
    let card = |name: &str, mac: &str| format!("virtio-net-pci,netdev={name},mac={}", mac.replace('-', ":"));
    let live = if rom { ",addr=9,bootindex=1" } else { ",addr=9,bootindex=1,romfile=" };
    let tap = |name: &str| format!("tap,id={name},ifname={name},script=no,downscript=no");
    machine(Kernel::Stable)
        .init(init)
        .without_network()
        // Emulated, a boot loader may need a minute for kernel and image.
        .limit(Duration::from_secs(1200))
        .qemu(&["-netdev", &tap("dead"), "-device", &(card("dead", DEAD) + ",addr=8,romfile=")])
        .qemu(&["-netdev", &tap("live"), "-device", &(card("live", MAC) + live)])
}

/// It came up with its own payload, over the link that it booted from, and has one address. `links`: the dead one, and the other one.
#[track_caller]
fn came_up_over(network: &Network, report: &Report, [dead, live]: [&str; 2], address: &str) {
    came_up_from(report, Medium::Initramfs, "/imprint/payload");
    assert_eq!(report.part("links").split_whitespace().collect::<Vec<_>>(), [dead, live, "lo"]);
    let node: serde_json::Value = serde_json::from_str(report.part("node")).unwrap();
    let text = |item: &str| node.pointer(item).and_then(|value| value.as_str()).unwrap_or_else(|| panic!("{node}"));
    assert_eq!(text("/network/link"), live);
    assert!(text("/network/addresses/0").starts_with(address), "{node}");
    assert_eq!(report.part("unit").matches("MACAddress=").count(), 1, "{}", report.part("unit"));
    assert_eq!(network.site.certificates_issued(), 1);
}

/// As udev names them by their slots, and as the kernel does where there is no udev.
const SLOTS: [&str; 2] = ["ens8", "ens9"];
const KERNELS: [&str; 2] = ["eth0", "eth1"];

/// A machine whose firmware has an own boot loader, iPXE. The payload is a plain file, of which iPXE makes an archive.
#[test]
fn boots_pxe_bios_systemd_cpio() {
    let blocks = ["`/etc/dnsmasq.d/ipxe.conf`", "For BIOS, in `/srv/pxe/boot.ipxe`"];
    let network = Network::new(NODE, Init::Systemd, &blocks, &[]);
    let report = two_links(Init::Systemd, true).from_firmware().boot();
    came_up_over(&network, &report, SLOTS, "192.0.2.1");
    openssl_agrees(&report, &network.site.work.path().join("state/root.pem"));
}

/// A machine with EFI, with what EFI of later releases needs for a network.
fn efi(network: &Network, init: Init) -> Machine {
    let variables = network.site.work.path().join("vars.fd");
    fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables).unwrap();
    two_links(init, false).efi(&variables).from_firmware().qemu(&["-device", "virtio-rng-pci"])
}

/// EFI gets iPXE by TFTP, and the kernel loads the archives itself.
#[test]
fn boots_pxe_uefi_bare_cpio() {
    let blocks = ["`/etc/dnsmasq.d/ipxe.conf`", "For both, in `/srv/pxe/boot.ipxe`"];
    let network = Network::new(NODE, Init::Bare, &blocks, &["cp /usr/lib/ipxe/"]);
    let report = efi(&network, Init::Bare).boot();
    came_up_over(&network, &report, KERNELS, "192.0.2.1");
}

/// There is no IPv4 from the boot loader to the certificate, and the node has a script of its own.
#[test]
fn over_ipv6_alone_with_a_script_for_the_node() {
    let node = Node { network: "slaac = true\n", server: ("[2001:db8::1]", "[2001:db8::1]"), ..NODE };
    let blocks = ["`/etc/dnsmasq.d/ipxe.conf`", "`/srv/pxe/nodes/52-54-00-12-34-57.ipxe`"];
    let network = Network::new(node, Init::Plain, &blocks, &[]);
    let script = network.site.work.path().join("start.ipxe");
    fs::write(&script, block("`start.ipxe`")).unwrap();
    let report = two_links(Init::Plain, true).from_loader(Path::new("/usr/lib/ipxe/ipxe.lkrn"), &script).boot();
    came_up_over(&network, &report, SLOTS, "2001:db8::5054:ff:fe12:3457/64");
}

/// A configuration for this node, which names the archive behind the image.
#[test]
fn pxelinux_loads_an_archive_behind_the_image() {
    let blocks = ["`/etc/dnsmasq.d/pxelinux.conf`", "`/srv/pxe/pxelinux.cfg/01-52-54-00-12-34-57`"];
    let network = Network::new(NODE, Init::Plain, &blocks, &["cp /usr/lib/PXELINUX/"]);
    let report = two_links(Init::Plain, true).from_firmware().boot();
    came_up_over(&network, &report, SLOTS, "192.0.2.1");
}
