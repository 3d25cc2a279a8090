//! Tests of a machine with a USB link to its management controller. The link has a DHCP server behind it, and a signal
//! before the network card has one. `match = { any = true }` must take the card.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use super::line::{connected, until};
use crate::*;

const ANY: &str = "{ any = true }";
const DHCP: &str = "dhcp4 = true\n";
/// The server, in the network of the card.
const SITE: &str = "10.0.2.2";

/// A node that finds its server by this address.
fn node(matching: &'static str, server: &'static str) -> Node {
    Node { matching, network: DHCP, server: ("127.0.0.1", server), ..NODE }
}

/// QEMU's monitor (qemu-qmp-ref(7)).
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn connected(socket: &Path) -> Monitor {
        let mut monitor = Monitor(BufReader::new(connected(socket)));
        monitor.says("QMP");
        monitor.run("qmp_capabilities", "{}");
        monitor
    }

    fn run(&mut self, command: &str, arguments: &str) {
        let text = format!("{{\"execute\": \"{command}\", \"arguments\": {arguments}}}\n");
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        self.says("return");
    }

    /// Reads up to the line that says this. Other lines are events.
    fn says(&mut self, what: &str) {
        let mut line = String::new();
        while !line.contains(&format!("\"{what}\"")) {
            line.clear();
            assert!(self.0.read_line(&mut line).unwrap() > 0 && !line.contains("\"error\""), "{what}: {line}");
        }
    }

    fn signal(&mut self, up: bool) {
        self.run("set_link", &format!("{{\"name\": \"net\", \"up\": {up}}}"));
    }
}

/// A machine with a card, and with a USB link into `controllers`, a network with a DHCP server in it. The card has no signal
/// before the console says `words`; `None`: never.
fn boot(site: &Site, controllers: &str, more: &[&str], words: Option<&str>) -> Report {
    let at = |name: &str| site.work.path().join(name);
    let (console, monitor) = (at("console"), at("monitor"));
    let machine = machine(Kernel::Generic)
        .optical(&site.config_drive(&site.payload))
        .without_network()
        // QEMU does not start the processors (-S) before the test has taken the signal away.
        .qemu(&["-S", "-qmp", &format!("unix:{},server=on,wait=off", monitor.display())])
        .qemu(&["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,addr=8"])
        .qemu(&["-netdev", &format!("user,id=controller,net={controllers}")])
        .qemu(&["-device", "qemu-xhci", "-device", "usb-net,netdev=controller"])
        .qemu(more)
        .console(&format!("socket,path={},server=on,wait=off", console.display()));
    std::thread::scope(|scope| {
        let person = scope.spawn(move || {
            let (mut monitor, mut line) = (Monitor::connected(&monitor), connected(&console));
            monitor.signal(false);
            monitor.run("cont", "{}");
            if let Some(words) = words {
                until(&mut line, &mut String::new(), words);
                monitor.signal(true);
            }
            // The machine ends by itself. Until then the test reads what the machine writes, so that it is not kept
            // waiting.
            let _ = line.read_to_end(&mut Vec::new());
        });
        let report = machine.boot();
        person.join().unwrap();
        report
    })
}

/// The link that the certificate came over, and its address.
#[track_caller]
fn used(report: &Report) -> (String, String) {
    came_up(report);
    let node: serde_json::Value = serde_json::from_str(report.part("node")).unwrap();
    let text = |item: &str| node.pointer(item).and_then(|value| value.as_str()).unwrap_or_else(|| panic!("{node}"));
    (text("/network/link").to_owned(), text("/network/addresses/0").to_owned())
}

/// Most controllers give link-local addresses there.
#[test]
fn a_usb_link_with_link_local_addresses_is_not_taken_for_the_network() {
    const CONTROLLERS: &str = "169.254.3.0/24";
    // Premise: the link works. A payload that asks for it gets its certificate from a server behind it.
    let site = Site::new(node("{ driver = \"cdc_ether\" }", "169.254.3.2"));
    let (link, address) = used(&boot(&site, CONTROLLERS, &[], None));
    assert!(link != "ens8" && address == "169.254.3.15/24", "{link} {address}");
    // The link has a signal and a lease long before the card, and the agent still leaves it for the card.
    let site = Site::new(node(ANY, SITE));
    let words = "169.254.3.15/24 by 169.254.3.2, a USB link with a link-local address is taken for the management";
    let report = boot(&site, CONTROLLERS, &[], Some(words));
    assert_eq!(used(&report), ("ens8".to_owned(), "10.0.2.15/24".to_owned()));
    assert!(!report.part("unit").contains("169.254."), "{}", report.part("unit"));
}

/// DSP0270 table 7: a USB network interface (version 2) of QEMU's vendor and product, whose hardware address the firmware does
/// not know; DSP0134 §7.43 around it.
const TYPE_42: [u8; 25] =
    [42, 23, 0, 0x42, 0x40, 17, 4, 16, 0x25, 0x05, 0xa2, 0xa4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0];

/// Some give addresses that look like any other.
#[test]
fn a_usb_link_that_smbios_names_is_left_alone() {
    const CONTROLLERS: &str = "10.9.9.0/24";
    // Premise: without the entry in SMBIOS, the agent takes the link for the network.
    let site = Site::new(node(ANY, "10.9.9.2"));
    let (link, address) = used(&boot(&site, CONTROLLERS, &[], None));
    assert!(link != "ens8" && address == "10.9.9.15/24", "{link} {address}");
    let site = Site::new(node(ANY, SITE));
    let table = site.work.path().join("type42");
    std::fs::write(&table, TYPE_42).unwrap();
    let more = ["-smbios", &format!("file={}", table.display())];
    let words = "not used because it leads to the management controller (SMBIOS type 42)";
    let report = boot(&site, CONTROLLERS, &more, Some(words));
    assert_eq!(used(&report), ("ens8".to_owned(), "10.0.2.15/24".to_owned()));
    assert!(!report.part("unit").contains("10.9.9."), "{}", report.part("unit"));
}
