//! Router advertisements from the packet (RFC 4861 §4.2): what the kernel does not pass on. Whether there is a router, whether
//! DHCPv6 is to be asked (M and O), which prefixes are on the link, and the prefix of a NAT64 (RFC 8781). Never opens a socket.
//!
//! Nobody vouches for a router: any machine on the link may send this.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::{HOPS, ROUTER_ADVERTISEMENT, nd_option};
use crate::payload::Prefix;

/// RFC 4861 §4.6.2, RFC 8781 §4
const PREFIX_INFORMATION: u8 = 3;
const PREF64: u8 = 38;
/// Flags of the advertisement.
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
/// Flag of a prefix.
const ON_LINK: u8 = 0x80;
/// The most routers, and prefixes, that are kept of one link.
const MOST: usize = 8;

/// One advertisement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advertisement {
    /// The router's link-local address.
    pub from: Ipv6Addr,
    /// For how many seconds it is a way out; 0: it is none.
    pub lifetime: u16,
    /// Addresses are to be had by DHCPv6.
    pub managed: bool,
    /// Other things than addresses are to be had by DHCPv6.
    pub other: bool,
    /// Prefixes on the link, each with its lifetime in seconds; `u32::MAX`: for ever.
    pub on_link: Vec<(Prefix, u32)>,
    /// Prefixes of a NAT64, likewise.
    pub nat64: Vec<(Prefix, u32)>,
}

impl Advertisement {
    /// Reads ICMPv6, its header included; the kernel has verified the checksum. `None`: it is no valid advertisement (RFC 4861
    /// §6.1.2). `hops`: the packet's hop limit; with another than 255 it comes from another link.
    pub fn decode(from: Ipv6Addr, hops: u8, message: &[u8]) -> Option<Advertisement> {
        let (head, options) = message.split_first_chunk::<16>()?;
        let [ROUTER_ADVERTISEMENT, 0, _, _, _, flags, high, low, ..] = *head else { return None };
        if hops != HOPS || !from.is_unicast_link_local() {
            return None;
        }
        let mut found = Advertisement {
            from,
            lifetime: u16::from_be_bytes([high, low]),
            managed: flags & MANAGED != 0,
            other: flags & OTHER != 0,
            on_link: Vec::new(),
            nat64: Vec::new(),
        };
        let mut rest = options;
        while !rest.is_empty() {
            // One option of length 0, or one that is cut, and all of it is dropped.
            let (code, option, after) = nd_option(rest)?;
            match code {
                PREFIX_INFORMATION => found.on_link.extend(on_link(option)),
                PREF64 => found.nat64.extend(nat64(option)),
                _ => {}
            }
            rest = after;
        }
        found.on_link.truncate(MOST);
        found.nat64.truncate(MOST);
        Some(found)
    }
}

/// A prefix that the router says is on the link, and for how long.
fn on_link(option: &[u8]) -> Option<(Prefix, u32)> {
    let (head, address) = option.split_first_chunk::<16>()?;
    let [_, _, length, flags, a, b, c, d, ..] = *head;
    let prefix = network((*address.first_chunk::<16>()?).into(), length)?;
    let inner =
        matches!(prefix.address(), IpAddr::V6(network) if network.is_unicast_link_local() || network.is_multicast());
    (flags & ON_LINK != 0 && !inner).then_some((prefix, u32::from_be_bytes([a, b, c, d])))
}

/// RFC 8781 §4: a lifetime in units of eight seconds, a code for the length, and 96 bits.
fn nat64(option: &[u8]) -> Option<(Prefix, u32)> {
    let ([_, _, high, low], rest) = option.split_first_chunk::<4>()?;
    let scaled = u16::from_be_bytes([*high, *low]);
    let length = *[96_u8, 64, 56, 48, 40, 32].get(usize::from(scaled & 7))?;
    let mut bytes = [0; 16];
    bytes.first_chunk_mut::<12>()?.copy_from_slice(rest.first_chunk::<12>()?);
    Some((network(bytes.into(), length)?, u32::from(scaled & !7)))
}

/// The prefix with its host bits cleared.
fn network(address: Ipv6Addr, length: u8) -> Option<Prefix> {
    let host = 128_u32.checked_sub(length.into())?;
    let bits = u128::from(address).checked_shr(host).unwrap_or(0).checked_shl(host).unwrap_or(0);
    Prefix::new(IpAddr::V6(bits.into()), length)
}

/// The routers of a link, as far as they have advertised.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Routers {
    all: Vec<Router>,
    on_link: Vec<(Prefix, Duration)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Router {
    from: Ipv6Addr,
    /// Until when it is a way out, since boot.
    until: Duration,
    managed: bool,
    other: bool,
    nat64: Vec<(Prefix, Duration)>,
}

impl Routers {
    /// Takes what a router says now in the place of what it has said before.
    pub fn take(&mut self, new: &Advertisement, now: Duration) {
        for (prefix, seconds) in &new.on_link {
            self.on_link.retain(|(known, until)| known != prefix && *until > now);
            if *seconds > 0 && self.on_link.len() < MOST {
                self.on_link.push((*prefix, after(now, *seconds)));
            }
        }
        let before = self.all.iter().position(|router| router.from == new.from).map(|place| self.all.remove(place));
        // A router that is no way out leads to no NAT64 either.
        let mut nat64 = before.map(|router| router.nat64).unwrap_or_default();
        nat64.retain(|(prefix, until)| {
            *until > now && new.lifetime > 0 && !new.nat64.iter().any(|(other, _)| other == prefix)
        });
        let fresh = new.nat64.iter().filter(|(_, seconds)| *seconds > 0 && new.lifetime > 0);
        nat64.extend(fresh.map(|(prefix, seconds)| (*prefix, after(now, *seconds))));
        nat64.truncate(MOST);
        let Advertisement { from, managed, other, lifetime, .. } = *new;
        // One router more is no reason to forget one that is a way out.
        if self.all.len() >= MOST {
            let over = self.all.iter().position(|router| router.until <= now);
            let Some(over) = over else { return };
            self.all.remove(over);
        }
        self.all.push(Router { from, until: after(now, lifetime.into()), managed, other, nat64 });
    }

    /// Whether any has advertised, even one that is no way out.
    pub fn heard(&self) -> bool {
        !self.all.is_empty()
    }

    /// Whether one is a way out of the link.
    pub fn lead_out(&self, now: Duration) -> bool {
        self.all.iter().any(|router| router.until > now)
    }

    /// Whether addresses are to be had by DHCPv6 (M). A router without a lifetime may say so, too: a network may have no way out.
    pub fn managed(&self) -> bool {
        self.all.iter().any(|router| router.managed)
    }

    /// Whether name servers and the like are to be had by DHCPv6 (O).
    pub fn other(&self) -> bool {
        self.all.iter().any(|router| router.other)
    }

    /// The address with the length of the longest on-link prefix around it; alone if there is none.
    pub fn with_network(&self, address: Ipv6Addr, now: Duration) -> Option<Prefix> {
        let around = |(prefix, until): &&(Prefix, Duration)| *until > now && prefix.contains(IpAddr::V6(address));
        let length = self.on_link.iter().filter(around).map(|(prefix, _)| prefix.length()).max();
        Prefix::new(IpAddr::V6(address), length.unwrap_or(128))
    }

    /// Prefixes of a NAT64, each once.
    pub fn nat64(&self, now: Duration) -> Vec<Prefix> {
        let mut found = Vec::new();
        for (prefix, until) in self.all.iter().flat_map(|router| &router.nat64) {
            if *until > now && !found.contains(prefix) {
                found.push(*prefix);
            }
        }
        found
    }
}

/// So many seconds from now on. The largest number is for ever (RFC 4861 §4.6.2).
pub(super) fn after(now: Duration, seconds: u32) -> Duration {
    match seconds {
        u32::MAX => Duration::MAX,
        seconds => now.saturating_add(Duration::from_secs(seconds.into())),
    }
}

/// A router solicitation (RFC 4861 §4.1), ICMPv6 without a checksum, which the kernel fills in, and without a link-layer
/// address: the router asks for that.
pub const SOLICITATION: [u8; 8] = [133, 0, 0, 0, 0, 0, 0, 0];

#[cfg(test)]
mod tests;
