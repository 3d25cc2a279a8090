//! The configuration of one link as the network managers read it: a unit of systemd-networkd (systemd.network(5)) and a
//! keyfile of NetworkManager (nm-settings-keyfile(5)). The hand-over and bundles share it. Pure: never writes a file.

mod stack;

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::dhcp6::Identity;
use crate::payload::{DnsName, HardwareAddress, Prefix, Route};
pub use stack::{Kind, Standing, netdev};

/// A link and what it is to have.
pub struct LinkFile<'a> {
    /// What the first line says after "Written by imprint".
    pub origin: &'a str,
    /// The link's name. It is what the files match by if there is no address.
    pub name: &'a str,
    /// The hardware address that a unit matches by.
    pub mac: Option<&'a HardwareAddress>,
    /// The permanent address. NetworkManager compares mac-address= with it, where there is one.
    pub permanent: Option<&'a HardwareAddress>,
    /// NetworkManager takes the file with the greatest of these numbers. Without a number it is 0.
    pub priority: Option<u8>,
    /// In bytes.
    pub mtu: Option<u16>,
    /// The DHCP server's MTU must not be used; this one is.
    pub instead_of_dhcp: Option<u32>,
    /// Ask for an address by DHCPv4.
    pub dhcp4: bool,
    /// The client identifier of RFC 4361 for that. `None`: the hardware address.
    pub client_id: Option<&'a [u8]>,
    /// Take addresses from router advertisements.
    pub slaac: bool,
    /// Ask for an address by DHCPv6, whatever routers say.
    pub dhcp6: bool,
    /// Who asks by DHCPv6. `None`: whoever the network manager takes itself for.
    pub identity: Option<&'a Identity>,
    /// Routers say that addresses are to be had by DHCPv6.
    pub managed: bool,
    /// Static addresses.
    pub addresses: &'a [Prefix],
    /// Static routes.
    pub routes: &'a [Route],
    /// Name servers.
    pub dns: &'a [IpAddr],
    /// Search domains.
    pub search: &'a [DnsName],
    /// The link was made, or others stand on it.
    pub standing: Option<&'a Standing>,
}

impl LinkFile<'_> {
    /// Whether router advertisements are taken. DHCPv6 gives no routes, so they are with it, too.
    fn asks_routers(&self) -> bool {
        self.slaac || self.dhcp6
    }
}

/// Appends a line. Writing to a String cannot fail.
macro_rules! line {
    ($text:expr, $($words:tt)*) => {
        let _ = writeln!($text, $($words)*);
    };
}

/// systemd.network(5), as of systemd 247.
pub fn unit(link: &LinkFile<'_>) -> String {
    let mut text = format!("# Written by imprint {}\n", link.origin);
    line!(text, "[Match]");
    match (link.standing.and_then(Standing::permanent), link.mac) {
        (Some(mac), _) => {
            line!(text, "PermanentMACAddress={mac}");
        }
        (None, Some(mac)) if !link.standing.is_some_and(is_by_name) => {
            line!(text, "MACAddress={mac}");
            // A VLAN, bridge or bond on top of the link has the same address and must not match.
            line!(text, "Type=!vlan bridge bond");
        }
        _ => {
            line!(text, "Name={}", link.name);
        }
    }
    if let Some(mtu) = link.mtu {
        line!(text, "\n[Link]\nMTUBytes={mtu}");
    }
    line!(text, "\n[Network]");
    let dhcp = match (link.dhcp4, link.dhcp6) {
        (true, true) => "yes",
        (true, _) => "ipv4",
        (_, true) => "ipv6",
        _ => "no",
    };
    line!(text, "DHCP={dhcp}");
    line!(text, "IPv6AcceptRA={}", if link.asks_routers() { "yes" } else { "no" });
    if let Some(standing) = link.standing {
        text.push_str(&standing.of_unit());
    }
    if link.dhcp4 || link.dhcp6 || link.managed && link.slaac {
        // networkd keeps the address while it asks for the lease again.
        line!(text, "KeepConfiguration=dhcp");
    }
    link.addresses.iter().for_each(|prefix| {
        line!(text, "Address={prefix}");
    });
    link.dns.iter().for_each(|server| {
        line!(text, "DNS={server}");
    });
    if !link.search.is_empty() {
        let names: Vec<&str> = link.search.iter().map(|name| name.as_str()).collect();
        line!(text, "Domains={}", names.join(" "));
    }
    for route in link.routes {
        line!(text, "\n[Route]\nDestination={}", route.destination);
        if let Some(gateway) = route.gateway {
            line!(text, "Gateway={gateway}");
        }
        if let Some(metric) = route.metric {
            line!(text, "Metric={metric}");
        }
    }
    if link.dhcp4 {
        line!(text, "\n[DHCPv4]\n{}\nUseDomains=yes", unit_client_id(link.client_id));
        let takes = link.mtu.is_none() && link.instead_of_dhcp.is_none();
        line!(text, "UseMTU={}", if takes { "yes" } else { "no" });
    }
    if let Some(identity) = link.identity.filter(|_| link.asks_routers()) {
        line!(text, "\n[DHCPv6]\n{}\nUseDomains=yes", unit_identity(identity));
        if link.dhcp6 {
            line!(text, "WithoutRA=solicit");
        }
    }
    if link.asks_routers() {
        line!(text, "\n[IPv6AcceptRA]\nUseDomains=yes");
        if link.dhcp6 {
            line!(text, "DHCPv6Client=always");
        }
        if !link.slaac {
            line!(text, "UseAutonomousPrefix=no");
        }
    }
    text
}

/// systemd.network(5), section DHCPv4: the identifier in the parts that networkd makes it of. Its number of the interface is the four bytes
/// as one number.
fn unit_client_id(client_id: Option<&[u8]>) -> String {
    let identity = client_id.and_then(Identity::of_client_id);
    identity.map_or_else(
        || "ClientIdentifier=mac".to_owned(),
        |identity| format!("ClientIdentifier=duid\n{}", unit_identity(&identity)),
    )
}

/// The same parts for both protocols. By default networkd takes a DUID from the machine ID, and an IAID from the link's name: another
/// client to the server.
fn unit_identity(Identity { duid, iaid }: &Identity) -> String {
    let (kind, raw) = duid.parts();
    format!("IAID={iaid}\nDUIDType={kind}\nDUIDRawData={}", crate::hex::separated(raw, ":"))
}

/// nm-settings-keyfile(5), as of NetworkManager 1.30.
pub fn keyfile(link: &LinkFile<'_>) -> String {
    let infiniband = link.mac.is_some_and(|mac| mac.as_bytes().len() == 20);
    let kind = match link.standing.and_then(|standing| standing.kind.as_ref()) {
        Some(made) => made.name(),
        None if infiniband => "infiniband",
        None => "ethernet",
    };
    let mut text = format!("# Written by imprint {}\n", link.origin);
    line!(text, "[connection]\nid=imprint-{}\ntype={kind}", link.name);
    let mac = match link.standing {
        Some(standing) if is_by_name(standing) => standing.permanent(),
        _ => link.permanent.or(link.mac),
    };
    if mac.is_none() {
        line!(text, "interface-name={}", link.name);
    }
    if let Some(priority) = link.priority {
        line!(text, "autoconnect-priority={priority}");
    }
    if let Some(standing) = link.standing {
        text.push_str(&standing.of_keyfile());
    }
    let section = if kind == "infiniband" { kind } else { "ethernet" };
    line!(text, "\n[{section}]");
    if let Some(mac) = link.standing.and_then(Standing::taken) {
        line!(text, "cloned-mac-address={}", mac.to_string().to_uppercase());
    }
    if let Some(mac) = mac {
        line!(text, "mac-address={}", mac.to_string().to_uppercase());
    }
    if kind == "infiniband" {
        line!(text, "transport-mode=datagram");
    }
    if let Some(mtu) = link.mtu.map(u32::from).or(link.instead_of_dhcp) {
        line!(text, "mtu={mtu}");
    }
    if link.standing.is_some_and(|standing| standing.master.is_some()) {
        return text;
    }
    let (four, six) = (link.addresses.iter().any(is_ipv4), link.addresses.iter().any(|prefix| !is_ipv4(prefix)));
    let method = match (link.dhcp4, four) {
        (true, _) => "auto",
        (_, true) => "manual",
        _ => "disabled",
    };
    line!(text, "\n[ipv4]\nmethod={method}");
    if link.dhcp4 {
        line!(
            text,
            "dhcp-client-id={}",
            link.client_id.map_or_else(|| "mac".to_owned(), |bytes| crate::hex::separated(bytes, ":"))
        );
    }
    if method != "disabled" {
        family(&mut text, link, false);
    }
    let method = match (link.slaac, link.dhcp6, six) {
        (true, ..) => "auto",
        // With "dhcp" NetworkManager takes no routes from routers; with "auto" it asks by DHCPv6 where a router says so.
        (_, true, _) if link.managed => "auto",
        (_, true, _) => "dhcp",
        (.., true) => "manual",
        _ if link.standing.is_some_and(|standing| standing.plain) => "disabled",
        _ => "link-local",
    };
    line!(text, "\n[ipv6]\nmethod={method}");
    if method == "auto" {
        // The kernel made the SLAAC address from the hardware address (net/ipv6/addrconf.c); with eui64 NetworkManager
        // makes the same one.
        line!(text, "addr-gen-mode=eui64");
    }
    if let Some(Identity { duid, iaid }) = link.identity.filter(|_| link.asks_routers()) {
        line!(text, "dhcp-duid={duid}\ndhcp-iaid={iaid}");
    }
    if method != "link-local" && method != "disabled" {
        family(&mut text, link, true);
    }
    text
}

/// Whether a link is found by its name: one that is made, and a port, whose present address may be that of its bond.
fn is_by_name(standing: &Standing) -> bool {
    standing.kind.is_some() || standing.master.is_some()
}

fn is_ipv4(prefix: &Prefix) -> bool {
    prefix.address().is_ipv4()
}

/// Writes the lines that the sections `[ipv4]` and `[ipv6]` have in common: addresses, routes, DNS.
fn family(text: &mut String, link: &LinkFile<'_>, ipv6: bool) {
    let mine = |address: &IpAddr| address.is_ipv6() == ipv6;
    for (number, prefix) in (1..).zip(link.addresses.iter().filter(|prefix| mine(&prefix.address()))) {
        line!(text, "address{number}={prefix}");
    }
    for (number, route) in (1..).zip(link.routes.iter().filter(|route| mine(&route.destination.address()))) {
        line!(text, "route{number}={}", via(route, ipv6));
    }
    let servers: Vec<String> =
        link.dns.iter().filter(|server| mine(server)).map(|server| format!("{server};")).collect();
    if !servers.is_empty() {
        line!(text, "dns={}", servers.concat());
    }
    // Search domains are written for one family only: NetworkManager joins the lists of both.
    let with_ipv4 = link.dhcp4 || link.addresses.iter().any(is_ipv4);
    if !link.search.is_empty() && ipv6 != with_ipv4 {
        let names: Vec<String> = link.search.iter().map(|name| format!("{};", name.as_str())).collect();
        line!(text, "dns-search={}", names.concat());
    }
}

/// `DESTINATION[,GATEWAY[,METRIC]]`; a gateway of zeros means on-link.
fn via(route: &Route, ipv6: bool) -> String {
    let none = if ipv6 { "::" } else { "0.0.0.0" };
    let gateway = route.gateway.map_or(none.to_owned(), |gateway| gateway.to_string());
    let metric = route.metric.map_or(String::new(), |metric| format!(",{metric}"));
    format!("{},{gateway}{metric}", route.destination)
}
