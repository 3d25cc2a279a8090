//! Encodes requests to the kernel. Never decodes an answer.

use std::net::IpAddr;

use super::info::{
    IFLA_BOND_AD_LACP_RATE, IFLA_BOND_MIIMON, IFLA_BOND_MODE, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_VLAN_ID,
};
use super::{
    HEADER, IFA_ADDRESS, IFA_F_NOPREFIXROUTE, IFA_FLAGS, IFA_LOCAL, IFF_UP, IFLA_ADDRESS, IFLA_IFNAME, IFLA_LINK,
    IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU, RT_SCOPE_LINK, RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK,
};
use crate::payload::{HardwareAddress, InterfaceName, Prefix, Route};

// include/uapi/linux/netlink.h
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

// include/uapi/linux/rtnetlink.h
const RTM_GETLINK: u16 = 18;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RT_TABLE_MAIN: u8 = 254;
/// "Route installed during boot".
const RTPROT_BOOT: u8 = 3;
/// "DHCP client"
const RTPROT_DHCP: u8 = 16;
const RTN_UNICAST: u8 = 1;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;

// include/uapi/linux/if_addr.h, and families of addresses
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A request to the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// List every link.
    Links,
    /// Show one link.
    Link {
        /// The index of the link.
        index: u32,
    },
    /// Set the MTU, bring the link up, or both.
    SetLink {
        /// The index of the link.
        index: u32,
        /// In bytes.
        mtu: Option<u32>,
        /// Whether to bring the link up.
        up: bool,
    },
    /// Bring a link down that was down before.
    LinkDown {
        /// The index of the link.
        index: u32,
    },
    /// Make a link. One of that name is an error.
    MakeLink {
        /// The name of the new link.
        name: InterfaceName,
        /// What it is.
        new: NewLink,
        /// Its hardware address; `None`: the kernel's choice.
        address: Option<HardwareAddress>,
    },
    /// Remove a link that was made.
    DropLink {
        /// The index of the link.
        index: u32,
    },
    /// Make a link the port of a bond or a bridge.
    SetMaster {
        /// The index of the port.
        index: u32,
        /// The index of the bond or bridge; 0: the link becomes nobody's port.
        master: u32,
    },
    /// List every address of one family.
    Addresses {
        /// `true`: IPv6; `false`: IPv4.
        ipv6: bool,
    },
    /// Add an address. An address that exists is an error, unless the request has a lifetime: the address then gets
    /// that lifetime.
    AddAddress {
        /// The index of the link.
        index: u32,
        /// The address and the network that is on-link with it.
        prefix: Prefix,
        /// Seconds until the kernel removes the address; `None`: never.
        lifetime: Option<u32>,
    },
    /// Add an IPv6 address that a server leased, or give one that exists these lifetimes. It brings no route to its network:
    /// routers say which networks are on the link.
    Lease6 {
        /// The index of the link.
        index: u32,
        /// The address and its network.
        prefix: Prefix,
        /// Seconds in which new connections may use it; `u32::MAX`: for ever.
        preferred: u32,
        /// Seconds until the kernel removes the address; `u32::MAX`: never.
        valid: u32,
    },
    /// Remove an address.
    DropAddress {
        /// The index of the link.
        index: u32,
        /// The address and its network.
        prefix: Prefix,
    },
    /// Add a route, or replace the one with the same destination and metric.
    SetRoute {
        /// The index of the link.
        index: u32,
        /// Destination, gateway, metric.
        route: Route,
        /// The address that a DHCP server leased together with the route; `None`: the route is the payload's.
        leased: Option<IpAddr>,
    },
    /// Remove a route.
    DropRoute {
        /// The index of the link.
        index: u32,
        /// Destination, gateway, metric.
        route: Route,
        /// The address that a DHCP server leased together with the route; `None`: the route is the payload's.
        leased: Option<IpAddr>,
    },
}

/// A link to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewLink {
    /// IEEE 802.1Q.
    Vlan {
        /// 1 to 4094.
        id: u16,
        /// The index of the link that carries it.
        parent: u32,
    },
    /// A bond that looks every 100 ms whether its ports have carrier.
    Bond {
        /// BOND_MODE_… ([`super::Bond::mode`]).
        mode: u8,
        /// Whether the partner is asked for a LACPDU each second; `None`: no LACP.
        fast: Option<bool>,
    },
    /// A bridge without the spanning tree protocol.
    Bridge,
}

impl NewLink {
    /// The kernel's name for this kind of link.
    pub fn kind(&self) -> &'static str {
        match self {
            NewLink::Vlan { .. } => "vlan",
            NewLink::Bond { .. } => "bond",
            NewLink::Bridge => "bridge",
        }
    }

    /// The kernel's module for it.
    pub fn module(&self) -> &'static str {
        match self {
            NewLink::Vlan { .. } => "8021q",
            NewLink::Bond { .. } => "bonding",
            NewLink::Bridge => "bridge",
        }
    }
}

impl Request {
    /// Whether the answer is a dump: many messages and [`Answer::Done`], not one acknowledgement.
    pub fn is_dump(&self) -> bool {
        matches!(self, Request::Links | Request::Addresses { .. })
    }

    /// The bytes, header included.
    pub fn encode(&self, sequence: u32) -> Vec<u8> {
        let ask = NLM_F_REQUEST | NLM_F_ACK;
        let (kind, flags, body) = match self {
            Request::Links => (RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, link_header(0, 0, 0)),
            Request::Link { index } => (RTM_GETLINK, ask, link_header(*index, 0, 0)),
            Request::SetLink { index, mtu, up } => {
                let flag = if *up { IFF_UP } else { 0 };
                let mut body = link_header(*index, flag, flag);
                if let Some(mtu) = mtu {
                    attribute(&mut body, IFLA_MTU, &mtu.to_ne_bytes());
                }
                (RTM_NEWLINK, ask, body)
            }
            Request::LinkDown { index } => (RTM_NEWLINK, ask, link_header(*index, 0, IFF_UP)),
            Request::MakeLink { name, new, address } => {
                (RTM_NEWLINK, ask | NLM_F_CREATE | NLM_F_EXCL, new_link(name, *new, address.as_ref()))
            }
            Request::DropLink { index } => (RTM_DELLINK, ask, link_header(*index, 0, 0)),
            Request::SetMaster { index, master } => {
                let mut body = link_header(*index, 0, 0);
                attribute(&mut body, IFLA_MASTER, &master.to_ne_bytes());
                (RTM_NEWLINK, ask, body)
            }
            Request::Addresses { ipv6 } => {
                let family = if *ipv6 { AF_INET6 } else { AF_INET };
                (RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, vec![family, 0, 0, 0, 0, 0, 0, 0])
            }
            Request::AddAddress { index, prefix, lifetime } => {
                let mut body = address_body(*index, *prefix);
                // Without the broadcast address systemd-networkd 252 does not recognise its own address.
                if let Some(broadcast) = prefix.broadcast() {
                    attribute(&mut body, IFA_BROADCAST, &broadcast.octets());
                }
                let how = match lifetime {
                    None => NLM_F_EXCL,
                    Some(seconds) => {
                        // struct ifa_cacheinfo: preferred, valid, and two times that only the kernel sets.
                        let info = [*seconds, *seconds, 0, 0].map(u32::to_ne_bytes);
                        attribute(&mut body, IFA_CACHEINFO, info.as_flattened());
                        NLM_F_REPLACE
                    }
                };
                (RTM_NEWADDR, ask | NLM_F_CREATE | how, body)
            }
            Request::Lease6 { index, prefix, preferred, valid } => {
                let mut body = address_body(*index, *prefix);
                let info = [*preferred, *valid, 0, 0].map(u32::to_ne_bytes);
                attribute(&mut body, IFA_CACHEINFO, info.as_flattened());
                attribute(&mut body, IFA_FLAGS, &IFA_F_NOPREFIXROUTE.to_ne_bytes());
                (RTM_NEWADDR, ask | NLM_F_CREATE | NLM_F_REPLACE, body)
            }
            Request::DropAddress { index, prefix } => (RTM_DELADDR, ask, address_body(*index, *prefix)),
            Request::SetRoute { index, route, leased } => {
                (RTM_NEWROUTE, ask | NLM_F_CREATE | NLM_F_REPLACE, route_body(*index, route, *leased))
            }
            Request::DropRoute { index, route, leased } => (RTM_DELROUTE, ask, route_body(*index, route, *leased)),
        };
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]); // the kernel fills in the sender
        bytes.extend(body);
        bytes
    }
}

/// `struct ifaddrmsg`, and the address as local address and as prefix.
fn address_body(index: u32, prefix: Prefix) -> Vec<u8> {
    let mut body = vec![family(prefix.address()), prefix.length(), 0, RT_SCOPE_UNIVERSE];
    body.extend(index.to_ne_bytes());
    address(&mut body, IFA_LOCAL, prefix.address());
    address(&mut body, IFA_ADDRESS, prefix.address());
    body
}

/// `struct ifinfomsg`
fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![AF_UNSPEC, 0, 0, 0];
    for word in [index, flags, change] {
        body.extend(word.to_ne_bytes());
    }
    body
}

/// How often a bond looks at the carrier of its ports, in milliseconds. The kernel's own number is 0, never.
const MIIMON: u32 = 100;

/// A link that is not there yet: the kernel chooses its index.
fn new_link(name: &InterfaceName, new: NewLink, address: Option<&HardwareAddress>) -> Vec<u8> {
    let mut body = link_header(0, 0, 0);
    if let Some(address) = address {
        attribute(&mut body, IFLA_ADDRESS, address.as_bytes());
    }
    if let NewLink::Vlan { parent, .. } = new {
        attribute(&mut body, IFLA_LINK, &parent.to_ne_bytes());
    }
    attribute(&mut body, IFLA_IFNAME, &[name.as_str().as_bytes(), &[0]].concat());
    let (mut info, mut data) = (Vec::new(), Vec::new());
    attribute(&mut info, IFLA_INFO_KIND, new.kind().as_bytes());
    match new {
        NewLink::Vlan { id, .. } => attribute(&mut data, IFLA_VLAN_ID, &id.to_ne_bytes()),
        NewLink::Bond { mode, fast } => {
            attribute(&mut data, IFLA_BOND_MODE, &[mode]);
            attribute(&mut data, IFLA_BOND_MIIMON, &MIIMON.to_ne_bytes());
            if let Some(fast) = fast {
                attribute(&mut data, IFLA_BOND_AD_LACP_RATE, &[u8::from(fast)]);
            }
        }
        NewLink::Bridge => {}
    }
    if !data.is_empty() {
        attribute(&mut info, IFLA_INFO_DATA, &data);
    }
    attribute(&mut body, IFLA_LINKINFO, &info);
    body
}

/// `struct rtmsg` and its attributes.
fn route_body(index: u32, route: &Route, leased: Option<IpAddr>) -> Vec<u8> {
    let destination = route.destination;
    // Scope says how far away the next hop is; IPv6 ignores it.
    let scope = match route.gateway {
        None if destination.address().is_ipv4() => RT_SCOPE_LINK,
        _ => RT_SCOPE_UNIVERSE,
    };
    let mut body = vec![family(destination.address()), destination.length(), 0, 0];
    let protocol = if leased.is_some() { RTPROT_DHCP } else { RTPROT_BOOT };
    body.extend([RT_TABLE_MAIN, protocol, scope, RTN_UNICAST]);
    body.extend([0; 4]);
    if destination.length() > 0 {
        address(&mut body, RTA_DST, destination.address());
    }
    if let Some(gateway) = route.gateway {
        address(&mut body, RTA_GATEWAY, gateway);
    }
    if let Some(metric) = route.metric {
        attribute(&mut body, RTA_PRIORITY, &metric.to_ne_bytes());
    }
    if let Some(source) = leased {
        address(&mut body, RTA_PREFSRC, source);
    }
    attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
    body
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn address(body: &mut Vec<u8>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => attribute(body, kind, &v4.octets()),
        IpAddr::V6(v6) => attribute(body, kind, &v6.octets()),
    }
}

/// Appends one attribute, and zeros up to the next multiple of four.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(super::align(body.len()), 0);
}
