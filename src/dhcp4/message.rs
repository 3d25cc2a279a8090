//! DHCPv4 messages to and from bytes (RFC 2131, 2132, 3396, 3397, 3442): what a client sends, and of the answers what
//! it needs. Whole IPv4 packets, as packet(7) sockets give and take them. No sockets here.
//!
//! Not dhcproto, which is too big (docs/design-notes.md). The tests compare with it.

use std::net::{IpAddr, Ipv4Addr};

use crate::checksum;
use crate::payload::{DnsName, Prefix, Route};

/// RFC 2131 §4.1
const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// RFC 2131 §3: the first four bytes of the options.
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Fixed fields before the cookie.
const FIXED: usize = 236;
/// BOOTP relays may drop what is shorter (RFC 1542 §2.1).
const SHORTEST: usize = 300;
/// RFC 2132 §9.10: the longest message that is taken, IP header included. Every link carries 576 bytes (RFC 791).
const LONGEST: u16 = 1472;

/// RFC 2132 §9.6
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Who has an address?
    Discover,
    /// I have.
    Offer,
    /// I would like it.
    Request,
    /// It is yours.
    Ack,
    /// It is not.
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
    /// Transaction.
    pub xid: [u8; 4],
    /// Seconds since it began to ask.
    pub seconds: u16,
    /// Hardware type (ARPHRD_…, the same numbers as RFC 1700's).
    pub hardware: u16,
    /// 6 or 20 bytes.
    pub mac: &'a [u8],
    /// What it wants to be called.
    pub hostname: Option<&'a str>,
    /// The address that it has; unspecified: none.
    pub has: Ipv4Addr,
    /// The address that it was offered.
    pub wants: Option<Ipv4Addr>,
    /// Whose offer it takes.
    pub server: Option<Ipv4Addr>,
}

impl Question<'_> {
    /// A whole IPv4 packet to everybody on the link (RFC 2131 §4.1).
    pub fn encode(&self) -> Vec<u8> {
        let mut bootp = vec![1];
        // RFC 4390 §2.1: an InfiniBand address is too long for the field and stays out of it, and the answer has to be
        // broadcast. With Ethernet the packet socket hears what is sent to our address, whatever IP address it is for.
        let short = self.mac.len() == 6;
        bootp.push(u8::try_from(self.hardware).unwrap_or(0));
        bootp.push(if short { 6 } else { 0 });
        bootp.push(0);
        bootp.extend(self.xid);
        bootp.extend(self.seconds.to_be_bytes());
        bootp.extend(if short { [0, 0] } else { [0x80, 0] });
        bootp.extend(self.has.octets());
        bootp.extend([0; 12]);
        if short {
            bootp.extend(self.mac);
        }
        bootp.resize(FIXED, 0);
        bootp.extend(COOKIE);
        option(&mut bootp, 53, &[self.kind.number()]);
        // What networkd calls ClientIdentifier=mac and NetworkManager dhcp-client-id=mac: with the same one the next
        // stage gets the same lease.
        let identifier = [&[u8::try_from(self.hardware).unwrap_or(0)], self.mac].concat();
        option(&mut bootp, 61, &identifier);
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

/// IPv4 (RFC 791) and UDP (RFC 768) around a message.
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
    /// Transaction.
    pub xid: [u8; 4],
    /// Hardware address that it is for; empty for InfiniBand.
    pub mac: Vec<u8>,
    /// Who sent it.
    pub server: Ipv4Addr,
    /// The address that is given, and its network. A server that does not say which network means the address alone.
    pub address: Prefix,
    /// Classless ones, or else the default route.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<DnsName>,
    /// At least 576 bytes.
    pub mtu: Option<u16>,
    /// Seconds; `u32::MAX`: for ever.
    pub lease: u32,
    /// T1 (RFC 2131 §4.4.5), where the server says.
    pub renew: Option<u32>,
    /// What it has to say, for people.
    pub message: Option<String>,
}

/// RFC 2131 makes servers say how long; where one does not, this is what others assume.
const AN_HOUR: u32 = 3600;

impl Answer {
    /// `None`: nothing that a DHCP client would read, or an address that no host can have.
    ///
    /// The UDP checksum is not verified: between virtual machines it is often left to hardware that is not there
    /// (packet(7), TP_STATUS_CSUMNOTREADY). Transaction and hardware address are.
    pub fn decode(packet: &[u8]) -> Option<Answer> {
        let bootp = payload(packet)?;
        let (fixed, rest) = bootp.split_at_checked(FIXED)?;
        let area = rest.strip_prefix(&COOKIE)?;
        let [2, _, length, _] = *fixed.first_chunk()? else { return None };
        let options = Options::new(fixed, area);
        let kind = options.number::<1>(53).map(|[number]| number)?;
        let (_, kind) = *Kind::ALL.iter().find(|(number, _)| *number == kind)?;
        if !matches!(kind, Kind::Offer | Kind::Ack | Kind::Nak) {
            return None;
        }
        let given = Ipv4Addr::from(*fixed.get(16..20)?.first_chunk::<4>()?);
        let address = match kind {
            Kind::Nak => Prefix::new(IpAddr::V4(given), 32)?,
            _ => options.prefix(given).filter(Prefix::is_host)?,
        };
        let router = options.all::<4>(3).into_iter().find(|router| *router != [0; 4]).and_then(|router| {
            let destination = Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0)?;
            Some(Route { destination, gateway: Some(router.into()), metric: None })
        });
        Some(Answer {
            kind,
            xid: *fixed.get(4..8)?.first_chunk()?,
            mac: fixed.get(28..)?.get(..usize::from(length).min(16))?.to_vec(),
            server: options.number::<4>(54)?.into(),
            address,
            routes: options.classless().unwrap_or_else(|| router.into_iter().collect()),
            dns: options.all::<4>(6).into_iter().map(IpAddr::from).collect(),
            search: options.search(),
            // RFC 2132 §5.1 allows 68, which no link has; below 576 it breaks more than it mends.
            mtu: options.number(26).map(u16::from_be_bytes).filter(|mtu| *mtu >= 576),
            lease: options.number(51).map_or(AN_HOUR, u32::from_be_bytes),
            renew: options.number(58).map(u32::from_be_bytes),
            message: options.get(56).map(|text| String::from_utf8_lossy(&text).into_owned()),
        })
    }
}

/// The BOOTP message of a packet from a server to a client.
fn payload(packet: &[u8]) -> Option<&[u8]> {
    let header = packet.first_chunk::<20>()?;
    let [version, _, high, low, _, _, fragment, offset, _, protocol, ..] = *header;
    let length = usize::from(version & 15).checked_mul(4).filter(|length| *length >= 20)?;
    let header = packet.get(..length)?;
    let total = usize::from(u16::from_be_bytes([high, low]));
    // The link may have padded it.
    let udp = packet.get(..total)?.get(length..)?;
    let whole = u16::from_be_bytes([fragment, offset]) & 0x3fff == 0;
    if version >> 4 != 4 || protocol != UDP || !whole || checksum::internet(&[header]) != 0 {
        return None;
    }
    let ([a, b, c, d, e, f, _, _], message) = udp.split_first_chunk::<8>()?;
    let ports = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
    let length = usize::from(u16::from_be_bytes([*e, *f])).checked_sub(8)?;
    (ports == (SERVER_PORT, CLIENT_PORT)).then_some(message.get(..length)?)
}

/// The options of one message, wherever they stand (RFC 2132 §9.3).
struct Options<'a>([&'a [u8]; 3]);

impl<'a> Options<'a> {
    fn new(fixed: &'a [u8], area: &'a [u8]) -> Options<'a> {
        let alone = Options([area, &[], &[]]);
        let more = alone.number::<1>(52).map_or(0, |[more]| more);
        let field = |bit: u8, range: std::ops::Range<usize>| -> &'a [u8] {
            if more & bit != 0 { fixed.get(range).unwrap_or_default() } else { &[] }
        };
        Options([area, field(1, 108..236), field(2, 44..108)])
    }

    /// The value, put together again where it was too long for one option (RFC 3396).
    fn get(&self, wanted: u8) -> Option<Vec<u8>> {
        let mut value: Option<Vec<u8>> = None;
        for mut rest in self.0 {
            while let Some((code, after)) = rest.split_first() {
                match *code {
                    0 => rest = after,
                    255 => break,
                    code => {
                        let Some((length, after)) = after.split_first() else { break };
                        let Some((bytes, after)) = after.split_at_checked(usize::from(*length)) else { break };
                        if code == wanted {
                            value.get_or_insert_default().extend(bytes);
                        }
                        rest = after;
                    }
                }
            }
        }
        value
    }

    fn number<const N: usize>(&self, code: u8) -> Option<[u8; N]> {
        self.get(code)?.try_into().ok()
    }

    /// A list of fixed-size items; none when the length is no multiple.
    fn all<const N: usize>(&self, code: u8) -> Vec<[u8; N]> {
        let value = self.get(code).unwrap_or_default();
        let (items, rest) = value.as_chunks::<N>();
        if rest.is_empty() { items.to_vec() } else { Vec::new() }
    }

    fn prefix(&self, address: Ipv4Addr) -> Option<Prefix> {
        let mask = self.number(1).map_or(u32::MAX, u32::from_be_bytes);
        // Ones and then zeros only.
        (mask.leading_ones() + mask.trailing_zeros() >= 32)
            .then(|| Prefix::new(IpAddr::V4(address), u8::try_from(mask.leading_ones()).ok()?))?
    }

    /// RFC 3442, host bits ignored as it says. A list that makes no sense, or is empty, is as good as none.
    fn classless(&self) -> Option<Vec<Route>> {
        let value = self.get(121).filter(|value| !value.is_empty())?;
        let mut rest = value.as_slice();
        let mut routes = Vec::new();
        while let Some((length, after)) = rest.split_first() {
            let octets = usize::from(length.div_ceil(8));
            let (significant, after) = after.split_at_checked(octets)?;
            let (gateway, after) = after.split_first_chunk::<4>()?;
            let mut network = [0; 4];
            network.get_mut(..octets)?.copy_from_slice(significant);
            let mask = u32::MAX.checked_shl(32_u32.checked_sub((*length).into())?).unwrap_or(0);
            let network = Ipv4Addr::from(u32::from_be_bytes(network) & mask);
            let destination = Prefix::new(network.into(), *length)?;
            let gateway = Some(Ipv4Addr::from(*gateway)).filter(|gateway| !gateway.is_unspecified()).map(IpAddr::V4);
            routes.push(Route { destination, gateway, metric: None });
            rest = after;
        }
        Some(routes)
    }

    /// RFC 3397, and else the domain name of RFC 2132 §3.17.
    fn search(&self) -> Vec<DnsName> {
        if let Some(list) = self.get(119) {
            return names(&list);
        }
        let text = self.get(15).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.trim_end_matches('\0').split_whitespace().filter_map(|name| DnsName::try_from(name).ok()).collect()
    }
}

/// Names in the encoding of RFC 1035 §4.1.4, with pointers into the same list. Ends at the first that makes no sense.
pub(crate) fn names(list: &[u8]) -> Vec<DnsName> {
    let (mut names, mut at) = (Vec::new(), 0);
    while at < list.len() {
        let Some((name, next)) = name(list, at) else { break };
        names.extend(DnsName::try_from(name.as_str()));
        at = next;
    }
    names
}

/// The name at an offset, and where the next one begins.
fn name(list: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut labels, mut at, mut next): (Vec<&str>, _, _) = (Vec::new(), start, None);
    loop {
        let length = *list.get(at)?;
        let after = at.checked_add(1)?;
        match length {
            0 => return Some((labels.join("."), next.unwrap_or(after))),
            1..64 => {
                let end = after.checked_add(usize::from(length))?;
                labels.push(std::str::from_utf8(list.get(after..end)?).ok()?);
                at = end;
            }
            // A pointer leads backwards, so that there is an end to it.
            192.. => {
                let target = usize::from(u16::from_be_bytes([length & 63, *list.get(after)?]));
                next = next.or(after.checked_add(1));
                at = Some(target).filter(|target| *target < at)?;
            }
            _ => return None,
        }
        if labels.len() > 127 {
            return None;
        }
    }
}
