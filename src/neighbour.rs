//! Messages between neighbours on a link, to and from bytes: ARP (RFC 826), neighbour discovery (RFC 4861), and the
//! name servers of router advertisements (RFC 8106) as the kernel passes them on. Never opens a socket.

pub mod router;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::checksum;
use crate::dhcp4::names;
use crate::payload::DnsName;

/// Name servers and search domains of a router.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct UserOptions {
    /// Kernel interface index.
    pub index: u32,
    /// Name servers (RFC 8106 §5.1), each with its lifetime in seconds; 0: the router withdraws it, `u32::MAX`: for ever.
    pub dns: Vec<(Ipv6Addr, u32)>,
    /// Search domains (RFC 8106 §5.2), likewise.
    pub search: Vec<(DnsName, u32)>,
}

/// Name servers and search domains of a link's routers, until their lifetimes are over.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Names {
    dns: Vec<(Ipv6Addr, Duration)>,
    search: Vec<(DnsName, Duration)>,
}

/// The most servers, and the most domains, that are kept of one link, however many a router or its impostor advertises.
const MOST: usize = 8;

impl Names {
    /// Adds what is new, and drops what is withdrawn or over.
    pub fn take(&mut self, newer: UserOptions, now: Duration) {
        merge(&mut self.dns, newer.dns, now);
        merge(&mut self.search, newer.search, now);
    }

    /// The name servers that count now.
    pub fn dns(&self, now: Duration) -> impl Iterator<Item = Ipv6Addr> {
        self.dns.iter().filter(move |(_, until)| *until > now).map(|(server, _)| *server)
    }

    /// The search domains that count now.
    pub fn search(&self, now: Duration) -> impl Iterator<Item = &DnsName> {
        self.search.iter().filter(move |(_, until)| *until > now).map(|(name, _)| name)
    }
}

fn merge<T: PartialEq>(known: &mut Vec<(T, Duration)>, newer: Vec<(T, u32)>, now: Duration) {
    known.retain(|(_, until)| *until > now);
    for (item, seconds) in newer {
        let until = router::after(now, seconds);
        match known.iter().position(|(other, _)| *other == item) {
            Some(place) if seconds == 0 => drop(known.remove(place)),
            // It keeps its place: the first one is asked first.
            Some(place) => known.iter_mut().skip(place).take(1).for_each(|(_, old)| *old = until),
            None if seconds > 0 && known.len() < MOST => known.push((item, until)),
            None => {}
        }
    }
}

/// include/uapi/linux/icmpv6.h: the kernel passes on options of router advertisements only.
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// RFC 8106
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;

/// The body of RTM_NEWNDUSEROPT (struct nduseroptmsg in include/uapi/linux/rtnetlink.h and the options after it).
/// `None`: nothing about name servers in it.
pub fn user_options(body: &[u8]) -> Option<UserOptions> {
    let (header, rest) = body.split_first_chunk::<16>()?;
    let [family, _, low, high, a, b, c, d, kind, ..] = *header;
    if i32::from(family) != nix::libc::AF_INET6 || kind != ROUTER_ADVERTISEMENT {
        return None;
    }
    let index = u32::from_ne_bytes([a, b, c, d]);
    let mut found = UserOptions { index, ..UserOptions::default() };
    let mut rest = rest.get(..usize::from(u16::from_ne_bytes([low, high])))?;
    while let Some((code, option, after)) = nd_option(rest) {
        // Type, length, two reserved bytes, then the lifetime (RFC 8106 §5).
        if let Some((head, value)) = option.split_first_chunk::<8>() {
            let [.., w, x, y, z] = *head;
            let seconds = u32::from_be_bytes([w, x, y, z]);
            match code {
                RDNSS => {
                    let servers = value.as_chunks::<16>().0.iter().copied().map(Ipv6Addr::from);
                    found.dns.extend(servers.filter(usable).map(|server| (server, seconds)));
                }
                DNSSL => found.search.extend(names(value).into_iter().map(|name| (name, seconds))),
                _ => {}
            }
        }
        rest = after;
    }
    let says = !(found.dns.is_empty() && found.search.is_empty());
    says.then_some(found)
}

/// Whether a server's address can be used. A link-local one can, together with the link that it was heard on.
fn usable(server: &Ipv6Addr) -> bool {
    !(server.is_unspecified() || server.is_loopback() || server.is_multicast())
}

/// Code, the whole option, and what follows (RFC 4861 §4.6: the length is in units of 8 bytes, never 0).
fn nd_option(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [code, length] = *bytes.first_chunk()?;
    let length = usize::from(length).checked_mul(8).filter(|length| *length > 0)?;
    let (option, after) = bytes.split_at_checked(length)?;
    Some((code, option, after))
}

/// Ethernet, IPv4, six and four bytes of address (RFC 826).
const ARP: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// An ARP request: who has `target`?
pub fn arp_request(mac: [u8; 6], from: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    [&ARP[..], &[0, 1], &mac, &from.octets(), &[0; 6], &target.octets()].concat()
}

/// The address that an ARP reply comes from. `None`: the packet is not an ARP reply.
pub fn arp_reply(packet: &[u8]) -> Option<Ipv4Addr> {
    let rest = packet.strip_prefix(&ARP)?.strip_prefix(&[0, 2])?;
    // The sender, then the target, which is the machine that asked. The link may have added padding.
    let [_, _, _, _, _, _, a, b, c, d, _, _, _, _, _, _, _, _, _, _] = *rest.first_chunk::<20>()?;
    Some(Ipv4Addr::new(a, b, c, d))
}

const ICMPV6: u8 = 58;
/// RFC 4861 §7.1: a packet with another hop limit came from another link.
const HOPS: u8 = 255;

/// A neighbour solicitation (RFC 4861 §4.3) as a whole IPv6 packet: who has `target`?
pub fn solicitation(mac: [u8; 6], from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let to = solicited_node(target);
    let mut message = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    // Source link-layer address, one unit of 8 bytes.
    message.extend([1, 1]);
    message.extend(mac);
    let sum = icmp_checksum(from, to, &message);
    message.splice(2..4, sum.to_be_bytes());
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[0x60, 0, 0, 0], &length[..], &[ICMPV6, HOPS], &from.octets(), &to.octets(), &message].concat()
}

/// RFC 4291 §2.7.1
fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., x, y, z] = target.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z])
}

/// The Ethernet address that a solicitation goes to (RFC 2464 §7).
pub fn solicited_node_mac(target: Ipv6Addr) -> [u8; 6] {
    let [.., x, y, z] = target.octets();
    [0x33, 0x33, 0xff, x, y, z]
}

/// The address that a neighbour advertisement is for (RFC 4861 §4.4, §7.1.2). `None`: the packet is not a valid
/// advertisement.
pub fn advertisement(packet: &[u8]) -> Option<Ipv6Addr> {
    let (header, rest) = packet.split_first_chunk::<40>()?;
    let [version, _, _, _, high, low, ICMPV6, HOPS, addresses @ ..] = *header else { return None };
    let (from, to) = addresses.split_first_chunk::<16>()?;
    let message = rest.get(..usize::from(u16::from_be_bytes([high, low])))?;
    let (from, to) = (Ipv6Addr::from(*from), Ipv6Addr::from(*to.first_chunk::<16>()?));
    let (head, body) = message.split_first_chunk::<8>()?;
    let [NEIGHBOUR_ADVERTISEMENT, 0, ..] = *head else { return None };
    if version >> 4 != 6 || icmp_checksum(from, to, message) != 0 {
        return None;
    }
    body.first_chunk::<16>().copied().map(Ipv6Addr::from)
}

/// RFC 8200 §8.1
fn icmp_checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    checksum::internet(&[&from.octets(), &to.octets(), &length, &[0, 0, 0, ICMPV6], message])
}

#[cfg(test)]
mod tests;
