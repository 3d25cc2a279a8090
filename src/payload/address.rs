//! Hardware addresses and IP prefixes, as types that hold valid values only. No sockets here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A link-layer address: 6 bytes (Ethernet) or 20 bytes (IP over InfiniBand, RFC 4391 §9.1.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HardwareAddress(Vec<u8>);

impl HardwareAddress {
    /// `None` unless `bytes` has 6 or 20 bytes.
    pub fn new(bytes: &[u8]) -> Option<HardwareAddress> {
        matches!(bytes.len(), 6 | 20).then(|| HardwareAddress(bytes.to_vec()))
    }

    /// Parses `52:54:00:12:34:56` or `52-54-00-12-34-56`.
    pub fn parse(text: &str) -> Option<HardwareAddress> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let parts = text.split(separator).map(|part| if part.len() == 2 { crate::hex::decode(part) } else { None });
        HardwareAddress::new(&parts.collect::<Option<Vec<_>>>()?.concat())
    }

    /// 6 or 20 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::hex::separated(&self.0, ":"))
    }
}

/// An address and the length of its network prefix, `192.0.2.10/24`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// `None` when the length is more than the address has bits.
    pub fn new(address: IpAddr, length: u8) -> Option<Prefix> {
        (length <= width(address)).then_some(Prefix { address, length })
    }

    /// The address, host bits included.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// In bits.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether `address` lies in the same network.
    pub fn contains(&self, address: IpAddr) -> bool {
        width(address) == width(self.address) && self.network_of(address) == self.network_of(self.address)
    }

    /// Whether all host bits are zero, as a route's destination needs.
    pub fn is_network(&self) -> bool {
        bits(self.address) == self.network_of(self.address)
    }

    /// The same prefix with all host bits zero.
    #[must_use]
    pub fn network(&self) -> Prefix {
        let bits = self.network_of(self.address);
        let address = match self.address {
            IpAddr::V4(_) => Ipv4Addr::from(u32::try_from(bits).unwrap_or_default()).into(),
            IpAddr::V6(_) => Ipv6Addr::from(bits).into(),
        };
        Prefix { address, length: self.length }
    }

    /// Whether a host can have this address: neither unspecified, multicast nor loopback, and not the network or
    /// broadcast address of an IPv4 prefix shorter than 31 bits (RFC 3021).
    pub fn is_host(&self) -> bool {
        let address = self.address;
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return false;
        }
        let host_bits = u32::from(width(address).saturating_sub(self.length));
        if address.is_ipv6() || host_bits < 2 {
            return true;
        }
        let mask = 1u128.checked_shl(host_bits).map_or(u128::MAX, |n| n.wrapping_sub(1));
        let host = bits(address) & mask;
        host != 0 && host != mask
    }

    /// The broadcast address of the network (RFC 919). `None` for IPv6, and for IPv4 prefixes of 31 and 32 bits
    /// (RFC 3021).
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        let IpAddr::V4(address) = self.address else { return None };
        let hosts = u32::MAX.checked_shr(self.length.into()).filter(|hosts| *hosts > 1)?;
        Some((u32::from(address) | hosts).into())
    }

    /// Parses `192.0.2.10/24`.
    pub fn parse(text: &str) -> Option<Prefix> {
        let (address, length) = text.split_once('/')?;
        Prefix::new(address.parse().ok()?, length.parse().ok()?)
    }

    fn network_of(&self, address: IpAddr) -> u128 {
        let host_bits = u32::from(width(address).saturating_sub(self.length));
        bits(address).checked_shr(host_bits).unwrap_or(0).checked_shl(host_bits).unwrap_or(0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// 4 or 16 bytes in network order.
pub(super) fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// `None` unless `bytes` has 4 or 16 bytes.
pub(super) fn address_from(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| IpAddr::V6(Ipv6Addr::from(v6)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses() {
        let mac = HardwareAddress::parse("52:54:00:12:34:56").unwrap();
        assert_eq!(mac.to_string(), "52:54:00:12:34:56");
        assert_eq!(HardwareAddress::parse("52-54-00-12-34-56"), Some(mac));
        for bad in ["52:54:00:12:34", "52:54:00:12:34:5g", "525:4:00:12:34:56", ""] {
            assert_eq!(HardwareAddress::parse(bad), None, "{bad}");
        }
        assert_eq!(HardwareAddress::new(&[0; 20]).unwrap().as_bytes().len(), 20);
    }

    #[test]
    fn broadcast_addresses() {
        let of = |text: &str| Prefix::parse(text).unwrap().broadcast().map(|address| address.to_string());
        assert_eq!(of("192.0.2.10/24").as_deref(), Some("192.0.2.255"));
        assert_eq!(of("10.1.2.3/8").as_deref(), Some("10.255.255.255"));
        assert_eq!(of("192.0.2.1/30").as_deref(), Some("192.0.2.3"));
        for none in ["192.0.2.0/31", "192.0.2.1/32", "2001:db8::1/64"] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn prefixes() {
        let prefix = Prefix::parse("192.0.2.10/24").unwrap();
        assert!(prefix.contains("192.0.2.1".parse().unwrap()));
        assert!(!prefix.contains("192.0.3.1".parse().unwrap()));
        assert!(!prefix.contains("2001:db8::1".parse().unwrap()));
        assert!(!prefix.is_network() && prefix.is_host());
        assert!(Prefix::parse("0.0.0.0/0").unwrap().is_network());
        assert!(Prefix::parse("0.0.0.0/0").unwrap().contains("203.0.113.1".parse().unwrap()));
        assert!(Prefix::parse("::/0").unwrap().contains("2001:db8::1".parse().unwrap()));
        assert_eq!(Prefix::parse("192.0.2.10/33"), None);
        for not_a_host in ["192.0.2.0/24", "192.0.2.255/24", "0.0.0.0/8", "224.0.0.1/24", "127.0.0.1/8", "::/64"] {
            assert!(!Prefix::parse(not_a_host).unwrap().is_host(), "{not_a_host}");
        }
        for host in ["192.0.2.0/31", "192.0.2.1/32", "2001:db8::/64"] {
            assert!(Prefix::parse(host).unwrap().is_host(), "{host}");
        }
    }
}
