//! The origin of a request, for limits: peers that can use each other's addresses count as one peer. Does no DNS or other
//! lookup.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A host with one IPv6 address can use every address of its /64 (RFC 4291 §2.5.1), so the /64 is the origin. An IPv4
/// address that is mapped into IPv6 counts as IPv4.
pub fn of_address(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// The origin of a peer as the store has it, as text. A serial line is its own origin. A caller at a door may have its port
/// with its address: `tcp:192.0.2.1:40000`.
pub fn of(peer: &str) -> String {
    if let Some(Ok(address)) = peer.strip_prefix("tcp:").map(str::parse::<SocketAddr>) {
        return of_address(address.ip()).to_string();
    }
    peer.parse().map_or_else(|_| peer.to_owned(), |address| of_address(address).to_string())
}

/// The network that an origin is in, as text: of an IPv6 origin its /48, since a site has one with 65536 /64s (RFC 6177). Any
/// other origin is a network of its own.
pub fn wide(origin: &str) -> String {
    match origin.parse() {
        Ok(IpAddr::V6(v6)) => {
            let [a, b, c, ..] = v6.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
        _ => origin.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_addresses_is_one() {
        for (text, want) in [
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("192.0.2.1", "192.0.2.1"),
            ("/dev/ttyUSB0", "/dev/ttyUSB0"),
            ("tcp:192.0.2.1:40000", "192.0.2.1"),
            ("tcp:[2001:db8:1:2:3:4:5:6]:8444", "2001:db8:1:2::"),
            ("tcp:host:8444", "tcp:host:8444"),
            ("vm:web-1", "vm:web-1"),
        ] {
            assert_eq!(of(text), want);
        }
    }

    #[test]
    fn a_site_of_networks_is_one() {
        for (origin, want) in [
            ("2001:db8:1:2::", "2001:db8:1::/48"),
            ("2001:db8:1:ffff::", "2001:db8:1::/48"),
            ("192.0.2.1", "192.0.2.1"),
            ("vsock:3", "vsock:3"),
        ] {
            assert_eq!(wide(origin), want);
        }
    }
}
