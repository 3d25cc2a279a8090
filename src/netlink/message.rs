//! rtnetlink messages to and from bytes (rtnetlink(7), RFC 3549): only the requests that imprint sends, and the
//! attributes that it reads. Never opens a socket.
//!
//! This module does not use netlink-packet-route: decoding with that crate adds 560 KiB to the binary, a fifth of its
//! budget, for eight attributes; and one attribute that a newer kernel made longer fails the whole message. This module
//! skips attributes that it does not need. The tests compare with that crate, both ways.

mod info;
mod request;

use std::fmt;
use std::net::IpAddr;

use crate::payload::{InterfaceName, Prefix};
pub use info::{Bond, Info, Port};
pub use request::{NewLink, Request};

/// The interface is administratively up.
pub const IFF_UP: u32 = 1;
/// The interface can pass packets: operstate is up, or the driver keeps none (RFC 2863 ifOperStatus).
pub const IFF_RUNNING: u32 = 0x40;
/// The driver sees carrier.
pub const IFF_LOWER_UP: u32 = 0x1_0000;
/// The driver says that the medium is there and not open yet.
pub const IFF_DORMANT: u32 = 0x2_0000;
/// Carrier alone opens no such link: a supplicant does, as with 802.1X (include/uapi/linux/if.h).
pub const IF_LINK_MODE_DORMANT: u8 = 1;
/// Loopback, by hardware type (include/uapi/linux/if_arp.h).
pub const ARPHRD_LOOPBACK: u16 = 772;
/// Ethernet, and links that behave like it.
pub const ARPHRD_ETHER: u16 = 1;
/// Multicast group of link changes, as a bit of `nl_groups`.
pub const GROUP_LINK: u32 = 1;
/// RTMGRP_IPV6_IFADDR
pub const GROUP_IPV6_ADDRESS: u32 = 0x100;
/// The bit of RTNLGRP_ND_USEROPT (20).
pub const GROUP_ND_OPTIONS: u32 = 1 << 19;
/// IFA_F_DADFAILED: another machine has this address.
pub const IFA_F_DADFAILED: u32 = 0x08;
/// IFA_F_TENTATIVE: not usable before duplicate address detection is over (RFC 4862 §5.4).
pub const IFA_F_TENTATIVE: u32 = 0x40;

/// IFA_F_NOPREFIXROUTE: the address brings no route to its network.
pub const IFA_F_NOPREFIXROUTE: u32 = 0x200;

// include/uapi/linux/netlink.h
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Flags in the upper bits of an attribute's type.
const NLA_TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 16;

// include/uapi/linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWNDUSEROPT: u16 = 68;
/// Addresses and routes that end on the link.
pub const RT_SCOPE_LINK: u8 = 253;

// include/uapi/linux/if_link.h, if_addr.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_BROADCAST: u16 = 2;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKMODE: u16 = 17;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_PERM_ADDRESS: u16 = 54;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;

/// One message of an answer or a notification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The sequence number of the request; 0 in notifications.
    pub sequence: u32,
    /// Something changed during the dump, so it may be inconsistent.
    pub interrupted: bool,
    /// The contents.
    pub answer: Answer,
}

/// The contents of a message from the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The request was carried out.
    Acknowledged,
    /// The request was refused.
    Refused {
        /// Positive errno.
        errno: i32,
        /// The kernel's own message, since Linux 4.12; `None`: it has none for this error.
        words: Option<String>,
    },
    /// End of a dump.
    Done,
    /// Messages were lost.
    Overrun,
    /// A link exists or has changed.
    Link(LinkMessage),
    /// A link is gone.
    LinkGone {
        /// The index of the link.
        index: u32,
    },
    /// An address exists.
    Address {
        /// The index of the link that has the address.
        index: u32,
        /// The address and its network; `None` when it has neither IFA_LOCAL nor IFA_ADDRESS.
        prefix: Option<Prefix>,
        /// IFA_F_…
        flags: u32,
        /// RT_SCOPE_…; 0 is global.
        scope: u8,
        /// Seconds until the kernel removes it; `None`: never.
        left: Option<u32>,
    },
    /// Options of a router advertisement that the kernel leaves to programs: `struct nduseroptmsg` and the options
    /// after it.
    UserOptions(Vec<u8>),
    /// Anything else.
    Other(u16),
}

/// The attributes of a link that imprint reads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LinkMessage {
    /// Kernel interface index.
    pub index: u32,
    /// IFF_…
    pub flags: u32,
    /// ARPHRD_…
    pub hardware: u16,
    /// `None`: a name that no payload can contain.
    pub name: Option<InterfaceName>,
    /// In bytes; 0 when the kernel does not say.
    pub mtu: u32,
    /// Current hardware address.
    pub address: Vec<u8>,
    /// Broadcast hardware address of the link.
    pub broadcast: Vec<u8>,
    /// What made the link: `bridge`, `veth`; `None`: a driver of hardware.
    pub kind: Option<String>,
    /// Index of the link that this one is on, such as that of a VLAN.
    pub lower: Option<u32>,
    /// Index of the bond or bridge that has this link as a port.
    pub master: Option<u32>,
    /// What the kernel says of a VLAN, a bond, and the port of a bond.
    pub info: Info,
    /// Permanent hardware address, when the driver knows it (Linux 5.6). That of a bond's port, from the bond.
    pub permanent_address: Option<Vec<u8>>,
    /// IF_LINK_MODE_…
    pub link_mode: u8,
    /// Packets received since the link was made.
    pub received: u64,
}

impl LinkMessage {
    /// Carrier, as far as the driver tells.
    pub fn carrier(&self) -> bool {
        self.flags & IFF_LOWER_UP != 0
    }

    /// Carrier, and nothing else holds packets back (as 802.1X and a bond without ports do).
    ///
    /// Hardware sends as soon as it has carrier: the kernel activates the queue when the link is brought up (net/sched/sch_generic.c,
    /// dev_activate), and notes that the link runs up to a second later (net/core/link_watch.c), a second of every boot.
    pub fn operational(&self) -> bool {
        let open = match self.kind {
            None => self.flags & IFF_DORMANT == 0 && self.link_mode != IF_LINK_MODE_DORMANT,
            Some(_) => self.flags & IFF_RUNNING != 0,
        };
        self.carrier() && open
    }
}

/// Bytes that are not a netlink message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageError {
    /// The bytes end inside a header, a message or a fixed part.
    Truncated {
        /// Bytes that were needed.
        need: usize,
        /// Bytes that were there.
        have: usize,
    },
    /// A length that does not cover its own header.
    Length(usize),
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessageError::Truncated { need, have } => {
                write!(f, "netlink message cut short: {need} bytes announced, {have} there")
            }
            MessageError::Length(length) => write!(f, "netlink message with an impossible length of {length} bytes"),
        }
    }
}

impl std::error::Error for MessageError {}

/// Decodes every message of one datagram.
pub fn decode(datagram: &[u8]) -> Result<Vec<Message>, MessageError> {
    let mut messages = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let mut header = Reader(rest);
        let length = usize::try_from(header.u32()?).unwrap_or(usize::MAX);
        if length < HEADER {
            return Err(MessageError::Length(length));
        }
        let message = rest.get(..length).ok_or(MessageError::Truncated { need: length, have: rest.len() })?;
        messages.push(decode_one(message)?);
        rest = rest.get(align(length)..).unwrap_or_default();
    }
    Ok(messages)
}

fn decode_one(message: &[u8]) -> Result<Message, MessageError> {
    let mut reader = Reader(message);
    reader.u32()?;
    let (kind, flags, sequence) = (reader.u16()?, reader.u16()?, reader.u32()?);
    reader.u32()?;
    let answer = match kind {
        NLMSG_ERROR => acknowledgement(reader, flags)?,
        // A dump that fails ends in NLMSG_DONE with a negative errno (netlink_dump_done, net/netlink/af_netlink.c).
        NLMSG_DONE => match reader.u32().unwrap_or(0).cast_signed() {
            errno if errno < 0 => Answer::Refused { errno: errno.saturating_neg(), words: None },
            _ => Answer::Done,
        },
        NLMSG_OVERRUN => Answer::Overrun,
        RTM_NEWLINK => Answer::Link(link(reader)?),
        RTM_DELLINK => Answer::LinkGone { index: link(reader)?.index },
        RTM_NEWADDR => address_answer(reader)?,
        RTM_NEWNDUSEROPT => Answer::UserOptions(reader.0.to_vec()),
        NLMSG_NOOP => Answer::Other(NLMSG_NOOP),
        other => Answer::Other(other),
    };
    Ok(Message { sequence, interrupted: flags & NLM_F_DUMP_INTR != 0, answer })
}

/// `struct nlmsgerr`: errno, the header of the request, the rest of it unless capped, and then attributes.
fn acknowledgement(mut reader: Reader<'_>, flags: u16) -> Result<Answer, MessageError> {
    let errno = reader.u32()?.cast_signed();
    if errno == 0 {
        return Ok(Answer::Acknowledged);
    }
    let mut words = None;
    if flags & NLM_F_ACK_TLVS != 0 {
        let length = usize::try_from(Reader(reader.0).u32()?).unwrap_or(usize::MAX);
        let request = if flags & NLM_F_CAPPED != 0 { HEADER } else { align(length) };
        let attributes = reader.0.get(request..).unwrap_or_default();
        words = Attributes(attributes).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG).map(|(_, value)| {
            let text = String::from_utf8_lossy(value);
            text.trim_end_matches('\0').to_owned()
        });
    }
    Ok(Answer::Refused { errno: errno.saturating_neg(), words })
}

/// `struct ifinfomsg`
fn link(mut reader: Reader<'_>) -> Result<LinkMessage, MessageError> {
    reader.u16()?; // family and padding
    let (hardware, index, flags, _change) = (reader.u16()?, reader.u32()?, reader.u32()?, reader.u32()?);
    let mut link = LinkMessage { index, flags, hardware, ..LinkMessage::default() };
    for (kind, value) in Attributes(reader.0) {
        match kind {
            IFLA_IFNAME => {
                let text = std::str::from_utf8(value).unwrap_or_default().trim_end_matches('\0');
                link.name = InterfaceName::try_from(text).ok();
            }
            IFLA_MTU => link.mtu = value.try_into().map_or(0, u32::from_ne_bytes),
            IFLA_ADDRESS => link.address = value.to_vec(),
            IFLA_BROADCAST => link.broadcast = value.to_vec(),
            IFLA_LINK => link.lower = value.try_into().ok().map(u32::from_ne_bytes),
            IFLA_LINKMODE => link.link_mode = value.first().copied().unwrap_or_default(),
            IFLA_MASTER => link.master = value.try_into().ok().map(u32::from_ne_bytes),
            IFLA_LINKINFO => info::read(value, &mut link),
            // struct rtnl_link_stats64 begins with rx_packets.
            IFLA_STATS64 => link.received = value.first_chunk().map_or(0, |first| u64::from_ne_bytes(*first)),
            IFLA_PERM_ADDRESS => link.permanent_address = Some(value.to_vec()),
            _ => {}
        }
    }
    // A port has the address of its bond.
    if let Some(port) = &mut link.info.port
        && link.permanent_address.is_none()
        && !port.permanent.is_empty()
    {
        link.permanent_address = Some(std::mem::take(&mut port.permanent));
    }
    Ok(link)
}

/// `struct ifaddrmsg`
fn address_answer(mut reader: Reader<'_>) -> Result<Answer, MessageError> {
    let [_family, length, flags, scope] = reader.array()?;
    let index = reader.u32()?;
    let (mut local, mut peer, mut flags, mut left) = (None, None, u32::from(flags), None);
    for (kind, value) in Attributes(reader.0) {
        match kind {
            IFA_LOCAL => local = ip(value),
            IFA_ADDRESS => peer = ip(value),
            // The header has room for eight flags only.
            IFA_FLAGS => flags = value.try_into().map_or(flags, u32::from_ne_bytes),
            // struct ifa_cacheinfo: preferred, valid. The largest number is for ever (INFINITY_LIFE_TIME).
            IFA_CACHEINFO => {
                let valid = value.get(4..8).and_then(|valid| valid.try_into().ok()).map(u32::from_ne_bytes);
                left = valid.filter(|valid| *valid != u32::MAX);
            }
            _ => {}
        }
    }
    // IFA_ADDRESS is the other end of a point-to-point link. IPv6 often sends IFA_ADDRESS alone (if_addr.h).
    let prefix = local.or(peer).and_then(|address| Prefix::new(address, length));
    Ok(Answer::Address { index, prefix, flags, scope, left })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Reads fixed-size fields from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (array, rest) =
            self.0.split_first_chunk().ok_or(MessageError::Truncated { need: N, have: self.0.len() })?;
        self.0 = rest;
        Ok(*array)
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, MessageError> {
        self.array().map(u32::from_ne_bytes)
    }
}

/// Yields (type without flags, value). Stops where the bytes make no sense, as the kernel's own nla_for_each_attr does.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = Reader(self.0);
        let length = usize::from(reader.u16().ok()?);
        let kind = reader.u16().ok()? & NLA_TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Rounds up to the next multiple of four (NLMSG_ALIGN, NLA_ALIGN).
fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
#[cfg(target_endian = "little")] // the frozen bytes are those of a little-endian machine
mod tests;
