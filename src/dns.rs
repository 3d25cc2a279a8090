//! Questions to name servers and their answers, to bytes and back (RFC 1035, RFC 2782, RFC 3596): as much as it takes to find a
//! service and its addresses. No sockets here; [`ask`] has them.
//!
//! Nobody vouches for an answer: whoever owns the network may have written it. It carries places to try, and never trust.

pub mod ask;
pub mod local;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dhcp4::name;
use crate::order;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Where a service is.
    Srv,
}

/// One place of a service (RFC 2782).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Lower ones are tried first.
    pub priority: u16,
    /// The share of those with the same priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host. Empty: the domain says that it does not have this service.
    pub target: String,
}

/// A record of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Data {
    /// The name has this address.
    Address(IpAddr),
    /// The name is another name for this one.
    Alias(String),
    /// The service is there.
    Service(Service),
}

/// An answer to a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// RCODE (RFC 1035 §4.1.1).
    pub code: u8,
    /// It did not fit into a datagram.
    pub truncated: bool,
    /// A record cannot be read. Those before it are there.
    pub broken: bool,
    /// The records that answer, each with its name.
    pub records: Vec<(String, Data)>,
    /// Addresses that the server adds.
    pub more: Vec<(String, Data)>,
}

/// What an answer says of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// These records.
    Records(Vec<Data>),
    /// The name is another name for this one, of which the answer says nothing.
    Alias(String),
    /// There is no such record.
    Nothing,
    /// Its aliases lead in a circle, or are too many.
    Circle,
}

/// RFC 1035 §4.1.1: no error.
pub const NO_ERROR: u8 = 0;
/// RFC 1035 §4.1.1: the name does not exist.
pub const NO_NAME: u8 = 3;
/// The most aliases that are followed.
pub const MAX_ALIASES: usize = 8;

/// RFC 1035 §4.1.1: the server does not understand the question.
pub const NOT_UNDERSTOOD: u8 = 1;
/// RFC 1035 §4.1.1: the server does not do what is asked.
pub const NOT_DONE: u8 = 4;

/// Class of the Internet.
const IN: u16 = 1;
/// What a datagram may have (RFC 6891 §6.2.3): it fits into one packet of every link with IPv6 (1280 bytes), so no fragment gets lost.
const DATAGRAM: u16 = 1232;
const CNAME: u16 = 5;
/// Recursion desired.
const RD: u8 = 1;

impl Kind {
    fn number(self) -> u16 {
        match self {
            Kind::A => 1,
            Kind::Aaaa => 28,
            Kind::Srv => 33,
        }
    }

    fn fits(self, data: &Data) -> bool {
        match data {
            Data::Address(address) => self == if address.is_ipv4() { Kind::A } else { Kind::Aaaa },
            Data::Service(_) => self == Kind::Srv,
            Data::Alias(_) => false,
        }
    }
}

/// A question. `None`: the name is none. `edns`: with an OPT record (RFC 6891 §6.1), so that long answers fit into a datagram.
pub fn question(id: u16, name: &str, kind: Kind, edns: bool) -> Option<Vec<u8>> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([RD, 0, 0, 1, 0, 0, 0, 0, 0, edns.into()]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    // RFC 1035 §2.3.4: a name has 255 bytes.
    if bytes.len() > 12 + 255 {
        return None;
    }
    bytes.extend(kind.number().to_be_bytes());
    bytes.extend(IN.to_be_bytes());
    if edns {
        // The root's name, the type OPT, and in the place of the class what fits; no flags and no options.
        bytes.extend([0, 0, 41]);
        bytes.extend(DATAGRAM.to_be_bytes());
        bytes.extend([0; 6]);
    }
    Some(bytes)
}

/// Reads an answer to a question. `None`: it is none to this question.
pub fn answer(message: &[u8], id: u16, asked: &str, kind: Kind) -> Option<Answer> {
    let ([i, d, flags, code, q, d2, a, n, s1, s2, m, r], _) = message.split_first_chunk::<12>()?;
    let count = |high: &u8, low: &u8| u16::from_be_bytes([*high, *low]);
    // A response to a standard query with one question.
    if u16::from_be_bytes([*i, *d]) != id || flags & 0xf8 != 0x80 {
        return None;
    }
    let truncated = flags & 2 != 0;
    let mut answer = Answer { code: code & 15, truncated, broken: false, records: Vec::new(), more: Vec::new() };
    match count(q, d2) {
        1 => {}
        // A server that does not understand a question cannot always repeat it: there is the header alone (RFC 6891 §7).
        0 if !matches!(answer.code, NO_ERROR | NO_NAME) => return Some(answer),
        _ => return None,
    }
    let (of, at) = name(message, 12)?;
    let (kinds, mut at) = (message.get(at..)?.first_chunk::<4>()?, at.checked_add(4)?);
    let [k1, k2, c1, c2] = *kinds;
    if !of.eq_ignore_ascii_case(asked) || [k1, k2] != kind.number().to_be_bytes() || [c1, c2] != IN.to_be_bytes() {
        return None;
    }
    let (answers, servers) = (count(a, n), count(s1, s2));
    let total = u32::from(answers).saturating_add(servers.into()).saturating_add(count(m, r).into());
    for place in 0..total {
        let Some((found, next)) = record(message, at) else {
            answer.broken = true;
            break;
        };
        at = next;
        let Some(found) = found else { continue };
        if place < answers.into() {
            answer.records.push(found);
        } else if place >= u32::from(answers).saturating_add(servers.into()) && matches!(found.1, Data::Address(_)) {
            answer.more.push(found);
        }
    }
    Some(answer)
}

/// The record at an offset, if it is of a known type, and where the next one begins. `None`: it cannot be read.
fn record(message: &[u8], at: usize) -> Option<(Option<(String, Data)>, usize)> {
    let (of, at) = name(message, at)?;
    let [k1, k2, c1, c2, _, _, _, _, l1, l2] = *message.get(at..)?.first_chunk::<10>()?;
    let begin = at.checked_add(10)?;
    let end = begin.checked_add(u16::from_be_bytes([l1, l2]).into())?;
    let bytes = message.get(begin..end)?;
    // A name may point back into the message, and has to end where the record ends.
    let to_end = |at: usize| name(message, at).filter(|(_, next)| *next == end).map(|(name, _)| name);
    let data = match (u16::from_be_bytes([c1, c2]), u16::from_be_bytes([k1, k2])) {
        (IN, 1) => Data::Address(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        (IN, 28) => Data::Address(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        (IN, CNAME) => Data::Alias(to_end(begin)?),
        (IN, 33) => {
            let [p1, p2, w1, w2, o1, o2] = *bytes.first_chunk::<6>()?;
            let [priority, weight, port] = [[p1, p2], [w1, w2], [o1, o2]].map(u16::from_be_bytes);
            Data::Service(Service { priority, weight, port, target: to_end(begin.checked_add(6)?)? })
        }
        _ => return Some((None, end)),
    };
    Some((Some((of, data)), end))
}

impl Answer {
    /// What it says of a name, aliases followed. `followed`: how many were followed before.
    pub fn says(&self, asked: &str, kind: Kind, followed: &mut usize) -> Said {
        let mut at = asked;
        loop {
            let here = || self.records.iter().filter(|(name, _)| name.eq_ignore_ascii_case(at)).map(|(_, data)| data);
            let records: Vec<Data> = here().filter(|data| kind.fits(data)).cloned().collect();
            if !records.is_empty() {
                return Said::Records(records);
            }
            let alias = here().find_map(|data| match data {
                Data::Alias(name) => Some(name),
                _ => None,
            });
            match alias {
                None if at == asked => return Said::Nothing,
                None => return Said::Alias(at.to_owned()),
                Some(next) => {
                    *followed = followed.saturating_add(1);
                    if *followed > MAX_ALIASES || next.eq_ignore_ascii_case(asked) {
                        return Said::Circle;
                    }
                    at = next;
                }
            }
        }
    }

    /// Addresses of a name that the server has added to its answer.
    pub fn added(&self, of: &str) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for (name, data) in &self.more {
            if let Data::Address(address) = data
                && name.eq_ignore_ascii_case(of)
                && !found.contains(address)
            {
                found.push(*address);
            }
        }
        found
    }
}

/// The order in which the places of a service are tried (RFC 2782): by priority, and of the same priority at random by weight.
/// At most `most` of them. `random(n)`: a number from 0 to n.
pub fn in_order(mut places: Vec<Service>, most: usize, random: &mut dyn FnMut(u32) -> u32) -> Vec<Service> {
    // Those without weight first, so that they have a small chance (RFC 2782, "Weight").
    order::sort(&mut places, |one, other| (one.priority, one.weight) < (other.priority, other.weight));
    let mut ordered = Vec::new();
    while let Some(first) = places.first().filter(|_| ordered.len() < most) {
        let priority = first.priority;
        let alike = || places.iter().take_while(|place| place.priority == priority);
        let sum = alike().fold(0_u32, |sum, place| sum.saturating_add(place.weight.into()));
        let wanted = random(sum).min(sum);
        let mut running = 0_u32;
        let chosen = alike().position(|place| {
            running = running.saturating_add(place.weight.into());
            running >= wanted
        });
        ordered.push(places.remove(chosen.unwrap_or(0)));
    }
    ordered
}

/// For messages.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::A => "A",
            Kind::Aaaa => "AAAA",
            Kind::Srv => "SRV",
        })
    }
}

#[cfg(test)]
mod tests;
