//! The way to a server with an IPv4 address over a network that has IPv6 only: the address of a NAT64 for it (RFC 6052). Never
//! connects, and never asks a name server: one that knows of a NAT64 (DNS64) has answered AAAA itself.
//!
//! Nobody vouches for the prefix, which a router has said. It is only a place to try: the certificate decides which server is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use crate::payload::Prefix;

/// What stands in resolv.conf before a prefix. It is a comment there: resolv.conf(5) has no word for it.
pub(crate) const WORD: &str = "# nat64 ";
/// RFC 6052 §2.1: what networks use that name no other.
const WELL_KNOWN: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);
/// The most prefixes that are tried.
const MOST: usize = 4;

/// Where to reach a server, by each prefix that resolv.conf has; without one, by the well-known prefix.
pub(super) fn ways(server: SocketAddrV4, resolv_conf: &str) -> Vec<SocketAddr> {
    let lines = resolv_conf.lines().filter_map(|line| line.strip_prefix(WORD));
    let mut prefixes: Vec<Prefix> = lines.filter_map(|text| Prefix::parse(text.trim())).take(MOST).collect();
    // RFC 6052 §3.1: no address of a private network stands behind the well-known prefix.
    let ip = server.ip();
    // No host has such an address, behind a NAT64 or elsewhere.
    if ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified() {
        return Vec::new();
    }
    if prefixes.is_empty() && !(ip.is_private() || ip.is_link_local() || ip.is_loopback()) {
        prefixes.extend(Prefix::new(IpAddr::V6(WELL_KNOWN), 96));
    }
    let ways = prefixes.into_iter().filter_map(|prefix| embed(prefix, *ip));
    ways.map(|address| SocketAddr::new(address.into(), server.port())).collect()
}

/// RFC 6052 §2.2: the four bytes follow the prefix, and leave out the ninth byte of the address.
fn embed(prefix: Prefix, server: Ipv4Addr) -> Option<Ipv6Addr> {
    let IpAddr::V6(network) = prefix.address() else { return None };
    if !matches!(prefix.length(), 32 | 40 | 48 | 56 | 64 | 96) {
        return None;
    }
    let mut bytes = network.octets();
    let places = (0..16).filter(|place| *place != 8 || prefix.length() == 96).skip(usize::from(prefix.length() / 8));
    for (place, byte) in places.zip(server.octets()) {
        *bytes.get_mut(place)? = byte;
    }
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of RFC 6052 §2.4.
    #[test]
    fn where_the_address_stands() {
        for (prefix, want) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ] {
            let address = embed(Prefix::parse(prefix).unwrap(), [192, 0, 2, 33].into());
            assert_eq!(address, Some(want.parse().unwrap()), "{prefix}");
        }
        for prefix in ["2001:db8::/33", "2001:db8::/128", "192.0.2.0/24"] {
            assert_eq!(embed(Prefix::parse(prefix).unwrap(), [192, 0, 2, 33].into()), None, "{prefix}");
        }
    }

    #[test]
    fn what_routers_say_goes_before_the_well_known_prefix() {
        let ways = |server: &str, text: &str| -> Vec<String> {
            ways(server.parse().unwrap(), text).iter().map(ToString::to_string).collect()
        };
        let named = "# written by imprint\n# nat64 2001:db8:64::/96\nnameserver 2001:db8::53\n# nat64 none\n";
        assert_eq!(ways("192.0.2.1:8443", named), ["[2001:db8:64::c000:201]:8443"]);
        assert_eq!(ways("10.0.0.1:443", named), ["[2001:db8:64::a00:1]:443"]);
        assert_eq!(ways("198.51.100.1:443", "nameserver 2001:db8::53\n"), ["[64:ff9b::c633:6401]:443"]);
        for (server, text) in
            [("10.0.0.1:443", ""), ("224.0.0.1:443", named), ("255.255.255.255:443", named), ("0.0.0.0:443", named)]
        {
            assert_eq!(ways(server, text), [] as [String; 0], "{server}");
        }
    }
}
