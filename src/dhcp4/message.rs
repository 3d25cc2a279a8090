//! Encodes and decodes DHCPv4 messages (RFC 2131, 2132, 3396, 3397, 3442): what a client sends, and those parts of the
//! answers that it needs. The messages are whole IPv4 packets, as packet(7) sockets give and take them. No sockets
//! here.
//!
//! The dhcproto crate is too big for the agent (docs/design-notes.md). The tests compare with it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::options::{Contradiction, Options, once};
use crate::checksum;
use crate::payload::{DnsName, Prefix, Route};

/// RFC 2131 §4.1
const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// RFC 2131 §3: the first four bytes of the options.
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Fixed fields before the cookie.
const FIXED: usize = 236;
/// BOOTP relays may drop a shorter message (RFC 1542 §2.1).
const SHORTEST: usize = 300;
/// RFC 2132 §9.10: the longest message that the client accepts, IP header included. Every link carries 576 bytes (RFC
/// 791).
const LONGEST: u16 = 1472;

/// RFC 2132 §9.6
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A client looks for servers.
    Discover,
    /// A server offers an address.
    Offer,
    /// A client asks for the address that it was offered, or for more time.
    Request,
    /// A server gives the address.
    Ack,
    /// A server refuses the address.
    Nak,
}

impl Kind {
    const ALL: [(u8, Kind); 5] =
        [(1, Kind::Discover), (2, Kind::Offer), (3, Kind::Request), (5, Kind::Ack), (6, Kind::Nak)];

    fn number(self) -> u8 {
        Kind::ALL.iter().find(|(_, kind)| *kind == self).map_or(0, |(number, _)| *number)
    }
}

/// What a client sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question<'a> {
    /// Discover or Request.
    pub kind: Kind,
    /// Transaction number.
    pub xid: [u8; 4],
    /// Seconds since the client began to ask.
    pub seconds: u16,
    /// Hardware type (ARPHRD_…, the same numbers as RFC 1700's).
    pub hardware: u16,
    /// 6 or 20 bytes.
    pub mac: &'a [u8],
    /// The client identifier; `None`: the hardware address.
    pub client_id: Option<&'a [u8]>,
    /// The server is to broadcast its answer.
    pub broadcast: bool,
    /// The host name that the client wants.
    pub hostname: Option<&'a str>,
    /// The address that the client has; unspecified: none.
    pub has: Ipv4Addr,
    /// The address that the client was offered.
    pub wants: Option<Ipv4Addr>,
    /// The server whose offer the client takes.
    pub server: Option<Ipv4Addr>,
}

impl Question<'_> {
    /// A whole IPv4 packet, to be broadcast on the link (RFC 2131 §4.1).
    pub fn encode(&self) -> Vec<u8> {
        let mut bootp = vec![1];
        // RFC 4390 §2.1: an InfiniBand address is too long for the field and is left out, and the answer has to be
        // broadcast. On Ethernet the packet socket receives every frame to our hardware address, whatever its IP
        // address.
        let short = self.mac.len() == 6;
        bootp.push(u8::try_from(self.hardware).unwrap_or(0));
        bootp.push(if short { 6 } else { 0 });
        bootp.push(0);
        bootp.extend(self.xid);
        bootp.extend(self.seconds.to_be_bytes());
        bootp.extend(if short && !self.broadcast { [0, 0] } else { [0x80, 0] });
        bootp.extend(self.has.octets());
        bootp.extend([0; 12]);
        if short {
            bootp.extend(self.mac);
        }
        bootp.resize(FIXED, 0);
        bootp.extend(COOKIE);
        option(&mut bootp, 53, &[self.kind.number()]);
        // networkd calls the hardware address ClientIdentifier=mac, and NetworkManager dhcp-client-id=mac. With the same
        // identifier the next stage gets the same lease.
        let by_mac = || [&[u8::try_from(self.hardware).unwrap_or(0)], self.mac].concat();
        option(&mut bootp, 61, &self.client_id.map_or_else(by_mac, <[u8]>::to_vec));
        if let Some(address) = self.wants {
            option(&mut bootp, 50, &address.octets());
        }
        if let Some(server) = self.server {
            option(&mut bootp, 54, &server.octets());
        }
        option(&mut bootp, 57, &LONGEST.to_be_bytes());
        if let Some(hostname) = self.hostname {
            option(&mut bootp, 12, hostname.as_bytes());
        }
        // RFC 3442: classless routes before routers.
        option(&mut bootp, 55, &[1, 121, 3, 6, 15, 26, 51, 54, 58, 119]);
        bootp.push(255);
        bootp.resize(bootp.len().max(SHORTEST), 0);
        packet((self.has, CLIENT_PORT), (Ipv4Addr::BROADCAST, SERVER_PORT), &bootp)
    }
}

fn option(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    bytes.extend([code, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
    bytes.extend(value.iter().take(255));
}

/// Puts IPv4 (RFC 791) and UDP (RFC 768) headers before a message.
pub(super) fn packet(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), message: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(message.len().saturating_add(8)).unwrap_or(u16::MAX);
    let length = udp_length.saturating_add(20);
    let addresses = [from.0.octets(), to.0.octets()].concat();
    let mut ip = vec![0x45, 0];
    ip.extend(length.to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    ip.extend(&addresses);
    let checksum = checksum::internet(&[&ip]);
    ip.splice(10..12, checksum.to_be_bytes());
    let mut udp = Vec::with_capacity(message.len().saturating_add(8));
    for word in [from.1, to.1, udp_length, 0] {
        udp.extend(word.to_be_bytes());
    }
    udp.extend(message);
    let pseudo = [&addresses[..], &[0, UDP], &udp_length.to_be_bytes()].concat();
    // RFC 768: a sum of zero is sent as all ones.
    let sum = match checksum::internet(&[&pseudo, &udp]) {
        0 => u16::MAX,
        sum => sum,
    };
    udp.splice(6..8, sum.to_be_bytes());
    ip.extend(udp);
    ip
}

const UDP: u8 = 17;

/// What a server sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Offer, Ack or Nak.
    pub kind: Kind,
    /// Transaction number.
    pub xid: [u8; 4],
    /// The hardware address that the answer is for; empty on InfiniBand.
    pub mac: Vec<u8>,
    /// The server that sent it.
    pub server: Server,
    /// The address that is given, with its network. A server that names no network means the address alone.
    pub address: Prefix,
    /// Classless routes, or else the default route.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<DnsName>,
    /// The node's own domain.
    pub domain: Vec<DnsName>,
    /// In bytes, as the server gave it.
    pub mtu: Option<u16>,
    /// Options that cannot be read. Their numbers, each once.
    pub unread: Vec<u8>,
    /// How long the lease lasts, in seconds; `u32::MAX`: for ever.
    pub lease: u32,
    /// T1 in seconds (RFC 2131 §4.4.5), if the server gives it.
    pub renew: Option<u32>,
    /// The server's message for people.
    pub message: Option<String>,
}

/// The server that sent an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Server {
    /// The address by which the server identifies itself; else the next server of the message, or the source of the
    /// packet.
    pub address: Ipv4Addr,
    /// Whether the server identifies itself (option 54). The servers of some clouds do not.
    pub identified: bool,
}

impl Server {
    /// Whether both may be the same server. A server that does not identify itself may be any.
    pub fn may_be(self, other: Server) -> bool {
        self.address == other.address || !self.identified || !other.identified
    }
}

/// Why a packet for DHCP clients is dropped. In messages, a number stands before these words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    /// It is only the first fragment of a packet.
    Fragment,
    /// It is cut short.
    Cut,
    /// Its IP header was changed on the way.
    Checksum,
    /// It has no DHCP options: it is BOOTP, or another protocol on that port.
    NoOptions,
    /// It is not from a server, or not a message that a client waits for.
    NoAnswer,
    /// Option 53 is missing.
    NoKind,
    /// A fixed-size option occurs twice, with different values.
    Contradiction,
    /// Neither option 54 nor the headers name the server.
    NoServer,
    /// It has an address that no host can have, or a mask with holes.
    NoAddress,
    /// Its hardware address does not have the length of an Ethernet address.
    HardwareLength,
    /// It is for another hardware address. Where servers broadcast, there are many of these.
    OtherMachine,
    /// It has another transaction number.
    OtherExchange,
    /// It is from a server that was not asked.
    OtherServer,
    /// It does not fit what the client asked for.
    Unasked,
}

impl From<Contradiction> for Dropped {
    fn from(_: Contradiction) -> Dropped {
        Dropped::Contradiction
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dropped::Fragment => "in fragments",
            Dropped::Cut => "cut short",
            Dropped::Checksum => "with a wrong IP checksum",
            Dropped::NoOptions => "without DHCP options",
            Dropped::NoAnswer => "that are not answers from a server",
            Dropped::NoKind => "without a message type (option 53)",
            Dropped::Contradiction => "with two values of one option",
            Dropped::NoServer => "that name no server",
            Dropped::NoAddress => "without a usable address and mask",
            Dropped::HardwareLength => "with a wrong hardware address length (hlen)",
            Dropped::OtherMachine => "for other machines",
            Dropped::OtherExchange => "of another exchange",
            Dropped::OtherServer => "by a server that was not asked",
            Dropped::Unasked => "that were not asked for",
        })
    }
}

/// RFC 2131 makes servers say how long a lease lasts. Other clients assume this for a server that does not.
const AN_HOUR: u32 = 3600;

impl Answer {
    /// Reads an answer. `None`: the packet is not for a DHCP client.
    ///
    /// Only the port that the packet is sent to counts: relays and some servers do not send from port 67. The UDP
    /// checksum is not verified, because virtual machines often leave it to hardware that does not exist (packet(7),
    /// TP_STATUS_CSUMNOTREADY). The client compares transaction number and hardware address.
    pub fn decode(packet: &[u8]) -> Option<Result<Answer, Dropped>> {
        let (source, bootp) = payload(packet)?;
        Some(bootp.and_then(|bootp| Answer::read(source, bootp)))
    }

    fn read(source: Ipv4Addr, bootp: &[u8]) -> Result<Answer, Dropped> {
        let (fixed, rest) = bootp.split_first_chunk::<FIXED>().ok_or(Dropped::Cut)?;
        let area = rest.strip_prefix(&COOKIE).ok_or(Dropped::NoOptions)?;
        let [2, _, length, _, x, i, d, n, ..] = *fixed else { return Err(Dropped::NoAnswer) };
        let options = Options::new(fixed, area);
        let [kind] = options.number(53)?.ok_or(Dropped::NoKind)?;
        let (_, kind) = *Kind::ALL.iter().find(|(number, _)| *number == kind).ok_or(Dropped::NoAnswer)?;
        if !matches!(kind, Kind::Offer | Kind::Ack | Kind::Nak) {
            return Err(Dropped::NoAnswer);
        }
        let given = address_at(fixed, 16);
        let address = match kind {
            Kind::Nak => Prefix::new(IpAddr::V4(given), 32),
            _ => options.prefix(given)?.filter(Prefix::is_host),
        };
        let router = options.all::<4>(3).into_iter().find(|router| *router != [0; 4]).and_then(|router| {
            let destination = Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0)?;
            Some(Route { destination, gateway: Some(router.into()), metric: None })
        });
        Ok(Answer {
            kind,
            xid: [x, i, d, n],
            mac: fixed.iter().skip(28).take(usize::from(length).min(16)).copied().collect(),
            server: server(&options, address_at(fixed, 20), source)?,
            address: address.ok_or(Dropped::NoAddress)?,
            routes: once(options.classless().unwrap_or_else(|| router.into_iter().collect())),
            dns: once(options.all::<4>(6).into_iter().map(IpAddr::from).collect()),
            search: once(options.search()),
            domain: once(options.domain()),
            mtu: options.number(26).ok().flatten().map(u16::from_be_bytes),
            unread: options.unread(),
            lease: options.number(51)?.map_or(AN_HOUR, u32::from_be_bytes),
            renew: options.number(58).ok().flatten().map(u32::from_be_bytes),
            message: options.text(56),
        })
    }
}

/// The server by option 54, or else by the next server's address, or else by the source of the packet.
fn server(options: &Options<'_>, next: Ipv4Addr, source: Ipv4Addr) -> Result<Server, Dropped> {
    let known = |address: &Ipv4Addr| !address.is_unspecified();
    let named = options.number(54)?.map(Ipv4Addr::from).filter(known);
    let address = named.or(Some(next).filter(known)).or(Some(source).filter(known)).ok_or(Dropped::NoServer)?;
    Ok(Server { address, identified: named.is_some() })
}

fn address_at(fixed: &[u8; FIXED], place: usize) -> Ipv4Addr {
    fixed.get(place..).and_then(|bytes| bytes.first_chunk::<4>()).copied().unwrap_or_default().into()
}

/// The source of a packet to a DHCP client, and the BOOTP message in it. `None`: the packet is for another port or
/// protocol.
fn payload(packet: &[u8]) -> Option<(Ipv4Addr, Result<&[u8], Dropped>)> {
    let [version, _, high, low, _, _, fragment, offset, _, UDP, _, _, a, b, c, d, ..] = *packet.first_chunk::<20>()?
    else {
        return None;
    };
    let length = usize::from(version & 15).checked_mul(4).filter(|length| *length >= 20)?;
    let (header, rest) = packet.split_at_checked(length)?;
    let fragment = u16::from_be_bytes([fragment, offset]);
    // Only the first fragment of a packet has the port.
    let (port, _) = rest.get(2..)?.split_first_chunk::<2>()?;
    if version >> 4 != 4 || fragment & 0x1fff != 0 || u16::from_be_bytes(*port) != CLIENT_PORT {
        return None;
    }
    let read = || {
        if checksum::internet(&[header]) != 0 {
            return Err(Dropped::Checksum);
        }
        if fragment & 0x2000 != 0 {
            return Err(Dropped::Fragment);
        }
        let total = usize::from(u16::from_be_bytes([high, low]));
        // The link may have padded the packet.
        let udp = packet.get(..total).and_then(|packet| packet.get(length..));
        let ([_, _, _, _, high, low, _, _], message) =
            udp.and_then(|udp| udp.split_first_chunk::<8>()).ok_or(Dropped::Cut)?;
        let length = usize::from(u16::from_be_bytes([*high, *low])).checked_sub(8);
        length.and_then(|length| message.get(..length)).ok_or(Dropped::Cut)
    };
    Some((Ipv4Addr::new(a, b, c, d), read()))
}
