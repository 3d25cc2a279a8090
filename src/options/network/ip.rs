//! One `ip=` of dracut.cmdline(7) and of the kernel (Documentation/admin-guide/nfs/nfsroot.rst). Knows no other word.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{address, address_and_length, blank, fields, length};
use crate::payload::{HostName, InterfaceName, Link, Prefix, Route};

/// What one `ip=` says.
pub(super) struct Said {
    pub(super) name: Option<InterfaceName>,
    pub(super) link: Link,
    pub(super) hostname: Option<HostName>,
    /// Parts that are not used.
    pub(super) notes: Vec<&'static str>,
}

type Result<T> = std::result::Result<T, &'static str>;

pub(super) fn read(value: &str) -> Result<Said> {
    let fields = fields(value);
    let at = |place: usize| fields.get(place).copied().filter(|field| !field.is_empty());
    match (fields.len(), at(0), at(1)) {
        // ip=METHOD
        (1, method, _) if method.is_none_or(|text| address_and_length(text).is_none()) => {
            Ok(Said { name: None, link: by(blank(), method)?, hostname: None, notes: Vec::new() })
        }
        // ip=LINK:METHOD[:[MTU][:MAC]]
        (_, Some(name), Some(method)) if address_and_length(name).is_none() && is_method(method) => {
            if fields.iter().skip(3).any(|field| !field.is_empty()) {
                return Err(MAC);
            }
            let link = mtu(by(blank(), Some(method))?, at(2))?;
            Ok(Said { name: Some(named(name)?), link, hostname: None, notes: Vec::new() })
        }
        (_, Some(first), _) if address_and_length(first).is_none() => Err(WANT),
        _ => full(&fields),
    }
}

/// `ADDRESS:PEER:GATEWAY:MASK:HOSTNAME:LINK:METHOD`, and behind that an MTU and a hardware address, or name servers and a time server.
fn full(fields: &[&str]) -> Result<Said> {
    let at = |place: usize| fields.get(place).copied().filter(|field| !field.is_empty());
    let mut notes = Vec::new();
    let name = at(5).map(named).transpose()?;
    let mut link = blank();
    if let Some(own) = at(0) {
        fixed(&mut link, own, at)?;
    } else if at(1).or(at(2)).is_some() {
        return Err("it gives a peer or a gateway, and no address; write the address first");
    }
    if link.addresses.is_empty() || !matches!(at(6), None | Some("none" | "off" | "static")) {
        link = by(link, at(6))?;
    }
    let hostname = match at(4).map(HostName::try_from) {
        Some(Err(_)) => {
            notes.push("its host name is none, and is left out; write letters, digits and hyphens");
            None
        }
        given => given.and_then(std::result::Result::ok),
    };
    // An MTU is a number; a name server has a dot or a bracket.
    match (at(7), at(8).and_then(address)) {
        (None, None) => {}
        (Some(first), _) if address(first).is_none() => {
            link = mtu(link, Some(first))?;
            if fields.iter().skip(8).any(|field| !field.is_empty()) {
                return Err(MAC);
            }
            return Ok(Said { name, link, hostname, notes });
        }
        (first, second) => link.dns.extend(first.and_then(address).into_iter().chain(second)),
    }
    if at(8).is_some_and(|text| address(text).is_none()) {
        return Err(MAC);
    }
    match at(9).map(address) {
        None => {}
        Some(Some(_)) => notes.push("its time server is left out; set ntp in the bundle"),
        Some(None) => return Err("what stands behind its name servers is no address"),
    }
    if fields.len() > 10 { Err("it has too many fields") } else { Ok(Said { name, link, hostname, notes }) }
}

/// A fixed address. An address with a peer, or with nothing but itself in its network, reaches its peer and its gateway over the link.
fn fixed<'a>(link: &mut Link, own: &str, at: impl Fn(usize) -> Option<&'a str>) -> Result<()> {
    let (own, given) = address_and_length(own).ok_or(ADDRESS)?;
    let peer = at(1).map(|text| address_and_length(text).ok_or("its peer is no address")).transpose()?;
    let gateway = at(2).map(|text| address(text).ok_or("its gateway is no address")).transpose()?;
    let whole: u8 = if own.is_ipv4() { 32 } else { 128 };
    let mask = match (given, at(3)) {
        (Some(_), Some(_)) => return Err("it gives its mask twice; write one of them"),
        (Some(length), None) => Some(length),
        (None, Some(mask)) => Some(length(mask).ok_or(ADDRESS)?),
        (None, None) => None,
    };
    let network = mask.map(|length| Prefix::new(own, length).ok_or(ADDRESS)).transpose()?;
    let on_link = |to: IpAddr, length: u8| {
        let destination = Prefix::new(to, length).ok_or("its peer's prefix is too long")?.network();
        Ok::<_, &'static str>(Route { destination, gateway: None, metric: None })
    };
    let mut prefix = match (network, peer) {
        // The kernel has a server in the place of the peer: a neighbour like any other.
        (Some(network), Some((peer, None))) if network.contains(peer) => network,
        (_, Some(_)) => Prefix::new(own, whole).ok_or(ADDRESS)?,
        (Some(network), None) => network,
        (None, None) => return Err("it gives no mask; write 255.255.255.0 or 24 in the fourth field"),
    };
    if let Some((peer, length)) = peer.filter(|(peer, _)| prefix.length() == whole && *peer != own) {
        if peer.is_ipv4() != own.is_ipv4() {
            return Err("its peer and its address are not of one family");
        }
        link.routes.push(on_link(peer, length.unwrap_or(whole))?);
    }
    if let Some(gateway) = gateway {
        let reached = link.routes.iter().any(|route| route.destination.contains(gateway));
        if prefix.length() == whole && !reached && gateway.is_ipv4() == own.is_ipv4() {
            link.routes.push(on_link(gateway, whole)?);
        }
        let everywhere: IpAddr =
            if gateway.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let destination = Prefix::new(everywhere, 0).ok_or(ADDRESS)?;
        link.routes.push(Route { destination, gateway: Some(gateway), metric: None });
    }
    if prefix.length() > whole {
        prefix = Prefix::new(own, whole).ok_or(ADDRESS)?;
    }
    link.addresses.push(prefix);
    Ok(())
}

/// How the link gets its addresses. dracut takes several methods, with commas between them (ifup.sh).
fn by(mut link: Link, methods: Option<&str>) -> Result<Link> {
    for method in methods.unwrap_or_default().split(',') {
        match method {
            "dhcp" | "on" | "any" | "dhcp4" | "single-dhcp" => link.dhcp4 = true,
            "auto6" => link.slaac = true,
            "dhcp6" => link.dhcp6 = true,
            "either6" => (link.slaac, link.dhcp6) = (true, true),
            "auto" => (link.dhcp4, link.slaac) = (true, true),
            // The kernel gives a link that is up its link-local address.
            "link6" => {}
            "link-local" => return Err("IPv4 link-local addresses are not supported; write link6, dhcp or auto6"),
            "ibft" => return Err("the iBFT is not read; write dhcp, or a fixed address"),
            "none" | "off" | "static" => return Err("it gives no address; write dhcp, auto6 or a fixed address"),
            _ => return Err(WANT),
        }
    }
    Ok(link)
}

fn is_method(text: &str) -> bool {
    text.split(',').all(|method| METHODS.contains(&method))
}

fn named(name: &str) -> Result<InterfaceName> {
    InterfaceName::try_from(name).map_err(|_| "its link has no name that a link can have")
}

fn mtu(link: Link, mtu: Option<&str>) -> Result<Link> {
    let mtu = mtu.map(|text| text.parse().map_err(|_| "its MTU is no number from 68 to 65535")).transpose()?;
    Ok(Link { mtu, ..link })
}

const METHODS: [&str; 15] = [
    "dhcp",
    "on",
    "any",
    "dhcp4",
    "single-dhcp",
    "auto6",
    "dhcp6",
    "either6",
    "auto",
    "link6",
    "link-local",
    "ibft",
    "none",
    "off",
    "static",
];
const WANT: &str =
    "want dhcp, auto6, dhcp6, LINK:dhcp or ADDRESS::GATEWAY:MASK:HOSTNAME:LINK:none, an IPv6 address in brackets";
const ADDRESS: &str = "its address or its mask is none";
const MAC: &str = "it sets a hardware address, which is not supported; leave that out";
