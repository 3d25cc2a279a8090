//! Encodes and decodes DHCPv6 messages (RFC 8415, 3646, 4704): what a client sends, and those parts of the answers that it
//! needs. A message is what UDP carries. No sockets here.
//!
//! The dhcproto crate is too big for the agent (docs/design-notes.md). The tests compare with it.

use std::fmt;
use std::net::Ipv6Addr;

use crate::dhcp4::names;
use crate::duid::{Duid, Identity};
use crate::payload::DnsName;

/// The kinds of messages that a client sends, and those that it may hear (RFC 8415 §7.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A client looks for servers.
    Solicit,
    /// A server offers an address.
    Advertise,
    /// A client takes the offer.
    Request,
    /// A client asks its server for more time.
    Renew,
    /// A client asks any server for more time.
    Rebind,
    /// A server gives what was asked for, or refuses it.
    Reply,
    /// Another machine has the address.
    Decline,
    /// A client asks for everything but an address.
    Information,
}

impl Kind {
    const ALL: [(u8, Kind); 8] = [
        (1, Kind::Solicit),
        (2, Kind::Advertise),
        (3, Kind::Request),
        (5, Kind::Renew),
        (6, Kind::Rebind),
        (7, Kind::Reply),
        (9, Kind::Decline),
        (11, Kind::Information),
    ];

    fn number(self) -> u8 {
        Kind::ALL.iter().find(|(_, kind)| *kind == self).map_or(0, |(number, _)| *number)
    }
}

/// RFC 8415 §7.3: a server tells its clients to ask again. It has to be authenticated, and only a client that has said
/// that it takes it gets one (option 20). This client never says so.
const RECONFIGURE: u8 = 10;

// RFC 8415 §21, RFC 3646, RFC 8415 §21.23 to §21.25, RFC 4704
const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IAADDR: u16 = 5;
const OPTION_REQUEST: u16 = 6;
const PREFERENCE: u16 = 7;
const ELAPSED: u16 = 8;
const STATUS: u16 = 13;
const RAPID_COMMIT: u16 = 14;
const DNS: u16 = 23;
const SEARCH: u16 = 24;
const REFRESH: u16 = 32;
const FQDN: u16 = 39;
const SOL_MAX_RT: u16 = 82;
const INF_MAX_RT: u16 = 83;

/// RFC 8415 §21.24 and §21.25: another value is ignored. In seconds.
const MAX_RT: std::ops::RangeInclusive<u32> = 60..=86_400;
/// The most name servers, domains, associations and addresses that are read.
const MOST: usize = 8;

/// What a client sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question<'a> {
    /// What is asked for.
    pub kind: Kind,
    /// Transaction number.
    pub xid: [u8; 3],
    /// Who asks.
    pub identity: &'a Identity,
    /// The server that is asked. `None`: any.
    pub server: Option<&'a Duid>,
    /// The address that was offered, that is to be kept, or that another machine has.
    pub address: Option<Ipv6Addr>,
    /// Hundredths of a second since the client began to ask.
    pub elapsed: u16,
    /// The host name that the client wants.
    pub hostname: Option<&'a str>,
}

impl Question<'_> {
    /// The message, to be sent to port 547 of ff02::1:2.
    pub fn encode(&self) -> Vec<u8> {
        let [x, i, d] = self.xid;
        let mut bytes = vec![self.kind.number(), x, i, d];
        option(&mut bytes, CLIENT_ID, self.identity.duid.as_bytes());
        if let Some(server) = self.server {
            option(&mut bytes, SERVER_ID, server.as_bytes());
        }
        if self.kind != Kind::Information {
            // T1 and T2 are the server's to say.
            let mut association = [&self.identity.iaid.to_be_bytes()[..], &[0; 8]].concat();
            if let Some(address) = self.address {
                option(&mut association, IAADDR, &[&address.octets()[..], &[0; 8]].concat());
            }
            option(&mut bytes, IA_NA, &association);
        }
        if self.kind == Kind::Solicit {
            option(&mut bytes, RAPID_COMMIT, &[]);
        }
        option(&mut bytes, ELAPSED, &self.elapsed.to_be_bytes());
        let wants: &[u16] = match self.kind {
            Kind::Decline => return bytes,
            Kind::Information => &[DNS, SEARCH, REFRESH, INF_MAX_RT],
            _ => &[DNS, SEARCH, SOL_MAX_RT],
        };
        option(
            &mut bytes,
            OPTION_REQUEST,
            wants.iter().flat_map(|code| code.to_be_bytes()).collect::<Vec<_>>().as_slice(),
        );
        if let Some(name) = self.hostname {
            // RFC 4704 §4: the server is to make the AAAA record. A name without a domain has no final zero.
            let mut fqdn = vec![1];
            for label in name.split('.') {
                fqdn.push(u8::try_from(label.len()).unwrap_or(0));
                fqdn.extend(label.bytes());
            }
            fqdn.extend(name.contains('.').then_some(0));
            option(&mut bytes, FQDN, &fqdn);
        }
        bytes
    }
}

fn option(bytes: &mut Vec<u8>, code: u16, value: &[u8]) {
    bytes.extend(code.to_be_bytes());
    bytes.extend(u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
    bytes.extend(value);
}

/// What a server sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Advertise or Reply.
    pub kind: Kind,
    /// Transaction number.
    pub xid: [u8; 3],
    /// The client that the answer is for.
    pub client: Duid,
    /// The server that sent it.
    pub server: Duid,
    /// The client takes the offer with the greatest, and one with 255 at once.
    pub preference: u8,
    /// The reply is to a Solicit, and needs no Request.
    pub rapid: bool,
    /// What the server says of the whole message.
    pub status: Status,
    /// IA_NA options.
    pub associations: Vec<Association>,
    /// Name servers.
    pub dns: Vec<Ipv6Addr>,
    /// Search domains.
    pub search: Vec<DnsName>,
    /// SOL_MAX_RT in seconds, if it is one that RFC 8415 allows.
    pub sol_max_rt: Option<u32>,
    /// INF_MAX_RT, likewise.
    pub inf_max_rt: Option<u32>,
    /// How long information without an address counts, in seconds.
    pub refresh: Option<u32>,
}

/// IA_NA: what a server says of the addresses of one link (RFC 8415 §21.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Association {
    /// The link, as the client has named it.
    pub iaid: u32,
    /// When to ask this server for more time, in seconds; 0: as the client likes.
    pub t1: u32,
    /// When to ask any server.
    pub t2: u32,
    /// What the server says of the link.
    pub status: Status,
    /// The addresses, also those that are over.
    pub addresses: Vec<Given>,
}

/// An address that a server gives (RFC 8415 §21.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Given {
    /// The address.
    pub address: Ipv6Addr,
    /// For how many seconds new connections may use it; `u32::MAX`: for ever.
    pub preferred: u32,
    /// For how many seconds the client may have it; 0: no more.
    pub valid: u32,
}

/// RFC 8415 §21.13. Code 0 is success.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Status {
    /// As IANA registers it.
    pub code: u16,
    /// The server's words for people.
    pub words: String,
}

impl Status {
    /// The name of the code.
    pub fn name(&self) -> String {
        let names =
            ["Success", "UnspecFail", "NoAddrsAvail", "NoBinding", "NotOnLink", "UseMulticast", "NoPrefixAvail"];
        names.get(usize::from(self.code)).map_or_else(|| format!("status {}", self.code), |name| (*name).to_owned())
    }
}

/// Why a message is dropped. In messages, a number stands before these words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    /// It is cut short, or an option says that it is longer than what is there.
    Cut,
    /// It is not a message that a client waits for.
    NoAnswer,
    /// It tells the client to ask again, which nobody may.
    Reconfigure,
    /// It has no server identifier.
    NoServer,
    /// It has no client identifier.
    NoClient,
    /// An option that may be there once is there twice, with different values.
    Contradiction,
    /// It is for another DUID.
    OtherMachine,
    /// It has another transaction number.
    OtherExchange,
    /// It is from a server that was not asked.
    OtherServer,
    /// It gives no address that a host can have.
    NoAddress,
    /// T1 is later than T2.
    Timers,
    /// It does not fit what the client asked for.
    Unasked,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dropped::Cut => "cut short",
            Dropped::NoAnswer => "that are not answers from a server",
            Dropped::Reconfigure => "RECONFIGURE, which nobody may send",
            Dropped::NoServer => "that name no server (option 2)",
            Dropped::NoClient => "that name no client (option 1)",
            Dropped::Contradiction => "with two values of one option",
            Dropped::OtherMachine => "for another DUID",
            Dropped::OtherExchange => "of another exchange",
            Dropped::OtherServer => "by a server that was not asked",
            Dropped::NoAddress => "without a usable address",
            Dropped::Timers => "with a T1 later than T2",
            Dropped::Unasked => "that were not asked for",
        })
    }
}

impl Answer {
    /// Reads an answer. UDP and IP are verified by the kernel already.
    pub fn decode(message: &[u8]) -> Result<Answer, Dropped> {
        let ([kind, xid @ ..], rest) = message.split_first_chunk::<4>().ok_or(Dropped::Cut)?;
        let kind = match Kind::ALL.iter().find(|(number, _)| number == kind) {
            Some((_, kind @ (Kind::Advertise | Kind::Reply))) => *kind,
            _ if *kind == RECONFIGURE => return Err(Dropped::Reconfigure),
            _ => return Err(Dropped::NoAnswer),
        };
        let options = Options::read(rest)?;
        let duid = |code| options.one(code).map(|value| value.and_then(Duid::new));
        let seconds = |code| options.one(code).map(|value| value.and_then(number));
        let in_bounds = |seconds: &u32| MAX_RT.contains(seconds);
        Ok(Answer {
            kind,
            xid: *xid,
            server: duid(SERVER_ID)?.ok_or(Dropped::NoServer)?,
            client: duid(CLIENT_ID)?.ok_or(Dropped::NoClient)?,
            preference: options.one(PREFERENCE)?.and_then(|value| value.first().copied()).unwrap_or(0),
            rapid: options.one(RAPID_COMMIT)?.is_some(),
            status: options.status()?,
            associations: options.all(IA_NA).take(MOST).map(association).collect::<Result<_, _>>()?,
            dns: servers(options.all(DNS)),
            search: options.all(SEARCH).flat_map(names).take(MOST).collect(),
            sol_max_rt: seconds(SOL_MAX_RT)?.filter(in_bounds),
            inf_max_rt: seconds(INF_MAX_RT)?.filter(in_bounds),
            refresh: seconds(REFRESH)?,
        })
    }
}

fn association(value: &[u8]) -> Result<Association, Dropped> {
    let ([iaid, t1, t2], rest) = words(value).ok_or(Dropped::Cut)?;
    let options = Options::read(rest)?;
    let given = |value: &[u8]| {
        let (address, rest) = value.split_first_chunk::<16>().ok_or(Dropped::Cut)?;
        let ([preferred, valid], rest) = words(rest).ok_or(Dropped::Cut)?;
        let status = Options::read(rest)?.status()?;
        // An address with a fault of its own is not given.
        let valid = if status.code == 0 { valid } else { 0 };
        Ok(Given { address: Ipv6Addr::from(*address), preferred, valid })
    };
    let addresses = options.all(IAADDR).take(MOST).map(given).collect::<Result<_, _>>()?;
    Ok(Association { iaid, t1, t2, status: options.status()?, addresses })
}

/// Each name server once, and only those that can be used. A link-local one can, together with its link.
fn servers<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<Ipv6Addr> {
    let mut servers: Vec<Ipv6Addr> = Vec::new();
    for server in values.flat_map(|value| value.as_chunks::<16>().0).copied().map(Ipv6Addr::from) {
        let usable = !(server.is_unspecified() || server.is_loopback() || server.is_multicast());
        if usable && !servers.contains(&server) && servers.len() < MOST {
            servers.push(server);
        }
    }
    servers
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// So many numbers from the front, and what follows.
fn words<const N: usize>(bytes: &[u8]) -> Option<([u32; N], &[u8])> {
    let (mut found, mut rest) = ([0; N], bytes);
    for word in &mut found {
        let (first, after) = rest.split_first_chunk()?;
        (*word, rest) = (u32::from_be_bytes(*first), after);
    }
    Some((found, rest))
}

/// The options of a message, or those inside an option.
struct Options<'a>(Vec<(u16, &'a [u8])>);

impl<'a> Options<'a> {
    fn read(mut bytes: &'a [u8]) -> Result<Options<'a>, Dropped> {
        let mut options = Vec::new();
        while !bytes.is_empty() {
            let ([a, b, c, d], rest) = bytes.split_first_chunk::<4>().ok_or(Dropped::Cut)?;
            let length = usize::from(u16::from_be_bytes([*c, *d]));
            let (value, rest) = rest.split_at_checked(length).ok_or(Dropped::Cut)?;
            options.push((u16::from_be_bytes([*a, *b]), value));
            bytes = rest;
        }
        Ok(Options(options))
    }

    fn all(&self, code: u16) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(found, _)| *found == code).map(|(_, value)| *value)
    }

    /// An option that may be there once.
    fn one(&self, code: u16) -> Result<Option<&'a [u8]>, Dropped> {
        let first = self.all(code).next();
        if self.all(code).any(|value| Some(value) != first) { Err(Dropped::Contradiction) } else { Ok(first) }
    }

    fn status(&self) -> Result<Status, Dropped> {
        let Some(value) = self.one(STATUS)? else { return Ok(Status::default()) };
        let (code, words) = value.split_first_chunk().ok_or(Dropped::Cut)?;
        Ok(Status { code: u16::from_be_bytes(*code), words: String::from_utf8_lossy(words).into_owned() })
    }
}
