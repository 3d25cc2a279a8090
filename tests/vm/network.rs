//! Tests of networks that give addresses, and of their hand-over to the next stage. QEMU's own network has a DHCP server
//! and a router that advertises fec0::/64.

use crate::*;

fn node(report: &Report) -> serde_json::Value {
    serde_json::from_str(report.part("node")).unwrap()
}

fn network<'n>(node: &'n serde_json::Value, item: &str) -> &'n serde_json::Value {
    node.pointer(&format!("/network/{item}")).unwrap_or_else(|| panic!("no {item} in {node}"))
}

#[test]
fn an_address_by_dhcp_and_all_that_the_next_stage_needs() {
    let site = Site::new(Node { network: "dhcp4 = true\n", ..NODE });
    let report = machine(Kernel::Backports).optical(&site.config_drive(&site.payload)).append("imprint.debug").boot();
    came_up(&report);
    // With imprint.debug the console has the plan, and what became of each link.
    for line in ["imprint: link       driver virtio_net (now: ens8)", "imprint:   ens8 (virtio_net): carrier, "] {
        assert!(report.console.contains(line), "no {line}: {}", report.console);
    }
    let node = node(&report);
    assert_eq!(network(&node, "addresses"), &serde_json::json!(["10.0.2.15/24"]));
    assert_eq!(network(&node, "dns"), &serde_json::json!(["10.0.2.3"]));
    let unit = report.part("unit");
    assert!(unit.contains("DHCP=ipv4\n") && unit.contains("ClientIdentifier=mac\n"), "{unit}");
    assert!(unit.contains("MACAddress=52:54:00:12:34:56\n"), "{unit}");
    let keyfile = report.part("keyfile");
    assert!(keyfile.contains("[ipv4]\nmethod=auto\ndhcp-client-id=mac\n"), "{keyfile}");
    let file = "/run/NetworkManager/system-connections/imprint-ens8.nmconnection";
    let modes = report.part("keyfile-modes");
    assert!(modes.contains(&format!("-rw------- {file}")), "{modes}");
    // As NetworkManager makes it: every user's programs read resolv.conf there.
    assert!(modes.contains("drwxr-xr-x /run/NetworkManager\n"), "{modes}");
    let modes = report.part("unit-modes");
    assert!(modes.contains("-rw-r--r-- /run/systemd/network/70-imprint-ens8.network"), "{modes}");
}

#[test]
fn an_address_by_router_advertisement_and_a_server_over_ipv6() {
    let site = Site::new(Node { network: "slaac = true\n", server: ("[::1]", "[fec0::2]"), ..NODE });
    let report = machine(Kernel::Stable).init(Init::Plain).optical(&site.config_drive(&site.payload)).boot();
    came_up(&report);
    // fec0::/64 and the hardware address 52:54:00:12:34:56.
    assert_eq!(network(&node(&report), "addresses"), &serde_json::json!(["fec0::5054:ff:fe12:3456/64"]));
    assert!(report.part("inet6").contains("fec0000000000000505400fffe123456"), "{}", report.part("inet6"));
    assert!(report.part("unit").contains("IPv6AcceptRA=yes\n"), "{}", report.part("unit"));
}

#[test]
fn both_at_once() {
    let site = Site::new(Node { network: "dhcp4 = true\nslaac = true\n", ..NODE });
    let report = machine(Kernel::Stable).optical(&site.config_drive(&site.payload)).boot();
    came_up(&report);
    let node = node(&report);
    let addresses = network(&node, "addresses").as_array().unwrap();
    assert_eq!(addresses.first(), Some(&serde_json::json!("10.0.2.15/24")));
    // Whichever is there first is enough for the check-in; the other one comes all the same.
    assert!(report.part("inet6").contains("fec0000000000000505400fffe123456"), "{}", report.part("inet6"));
}

/// A network with nobody in it: the console has a line for each link, and so has the reason of the stop.
#[test]
fn without_a_network_the_console_says_what_became_of_each_link() {
    let site = Site::new(Node { network: "dhcp4 = true\n", ..NODE });
    let report = patiently(Duration::from_secs(12), |limit| {
        let report = machine(Kernel::Stable)
            .optical(&site.config_drive(&site.payload))
            .append(&format!("imprint.timeout={}", limit.as_secs()))
            // A cable that leads nowhere.
            .qemu(&["-netdev", "socket,id=mute,udp=127.0.0.1:9,localaddr=127.0.0.1:0"])
            .qemu(&["-device", "virtio-net-pci,netdev=mute,addr=9"])
            .without_network()
            .boot();
        let (_, message) = report.failure();
        if message.contains("DISCOVER sent, no OFFER") { Ok(report) } else { Err(message) }
    });
    stopped(&report, 16, "network", "no link is usable after ");
    let (_, message) = report.failure();
    assert!(message.contains("ens9 (virtio_net): carrier"), "{message}");
    assert!(report.console.contains("imprint: no link is usable yet:"), "{}", report.console);
    assert!(report.console.contains("imprint:   ens9 (virtio_net): carrier, 0 packets received"), "{}", report.console);
}
