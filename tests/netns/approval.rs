//! A stateless node whose bundle waits for an administrator: the program itself, the server itself, and a real dnsmasq with short
//! leases.

use std::process::Command;
use std::thread;

use imprint::netlink::Netlink;

use super::finding::{RANGE, dnsmasq};
use super::home::{Machine, Site, bridge};
use crate::later;

/// RTMGRP_IPV4_IFADDR (linux/rtnetlink.h): addresses that are added, removed, or get another life.
const ADDRESSES: u32 = 0x10;

/// Accident: the administrator comes after the weekend, and the node's lease has ended on Saturday. T1 is 3 s, the shortest that
/// dnsmasq has; the program looks at its leases every ten seconds.
#[test]
fn a_lease_is_renewed_while_a_bundle_waits_for_approval() {
    bridge("");
    let record = "bind = { tap = \"p0\", serial = \"SN-1\" }\nadmit = \"wire\"\nbundle_key = \"payload\"\n\
                  [[network]]\nmatch = { any = true }\ndhcp4 = true";
    let mut site = Site::at("https://192.0.2.1:8443/.well-known/est", record);
    let mut serve = site.command();
    serve.args(["serve", "--listen", "192.0.2.1:8443", "--door", "ether:p0"]);
    site.server = Some(serve.spawn().unwrap());
    let leases = dnsmasq("br0", &format!("{RANGE} --keep-in-foreground --port=0 --dhcp-option=option:T1,3"));
    let mut leases = Command::new("sh").args(["-c", &format!("exec {leases}")]).spawn().unwrap();
    let mut machine = Machine::boot("imprint.source=ether:eth0 imprint.set.hostname=made", &site.signer);
    let code = machine.says(" waits for approval at ");
    let code = code.split("bundle ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let net = std::fs::File::open(format!("/proc/{}/ns/net", machine.agent.id())).unwrap();
    let renewals = thread::spawn(move || {
        nix::sched::setns(net, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let mut news = Netlink::open(ADDRESSES).unwrap();
        for _ in 0..2 {
            news.changed(later()).unwrap();
            let shown = crate::ip("-4 addr show dev eth0");
            assert!(shown.contains("192.0.2.100/24"), "{shown}");
        }
    });
    renewals.join().unwrap();
    site.host(&["bundle", "approve", "node1", &code]);
    let (exit, said, ..) = machine.ended();
    leases.kill().unwrap();
    leases.wait().unwrap();
    assert_eq!(exit, Some(0), "{said}");
    assert!(said.contains(&code), "{said}");
}
