//! A DHCPv4 client as a state machine (RFC 2131 §4.4). It takes packets and the time, and returns packets and the next
//! time to call it. No sockets and no clock here. Never decides what a lease is used for.

pub mod message;
mod options;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::payload::{DnsName, HardwareAddress, HostName, Prefix, Route};
use crate::shown::Printable;
use message::{Answer, Dropped, Kind, Question, Server};
pub(crate) use options::{name, names};

/// The node that asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asker {
    /// ARPHRD_…
    pub hardware: u16,
    /// The link's current hardware address.
    pub mac: HardwareAddress,
    /// The client identifier (RFC 2132 §9.14, RFC 4361). `None`: the hardware address, as firmware has it.
    pub client_id: Option<Vec<u8>>,
    /// The host name that the node wants.
    pub hostname: Option<HostName>,
}

/// A lease that a server gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The address and its network.
    pub address: Prefix,
    /// The server that gave the lease.
    pub server: Ipv4Addr,
    /// Routes that came with the lease.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<DnsName>,
    /// The node's own domain (option 15), which is a search domain only where the server names no others.
    pub domain: Vec<DnsName>,
    /// In bytes, as the server gave it: it may be of no use.
    pub mtu: Option<u16>,
    /// Options of the server that cannot be read. Their numbers, each once.
    pub unread: Vec<u8>,
    /// How long the lease lasts, in seconds; `u32::MAX`: for ever.
    pub seconds: u32,
    /// When the lease was given, since boot.
    pub bound: Duration,
    /// T1, from `bound` on: the client may then ask for more time.
    pub renew: Duration,
}

impl Lease {
    /// When to ask for more time, since boot.
    pub fn renew_at(&self) -> Duration {
        self.bound.saturating_add(self.renew)
    }

    /// When the lease ends unless it is renewed, since boot.
    pub fn ends_at(&self) -> Duration {
        match self.seconds {
            u32::MAX => Duration::MAX,
            seconds => self.bound.saturating_add(Duration::from_secs(seconds.into())),
        }
    }
}

/// What a packet led to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A server gave a lease.
    Bound(Lease),
    /// A server refused. The client begins again.
    Refused,
}

/// What to do now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Poll {
    /// A whole IPv4 packet, to be broadcast on the link.
    pub send: Option<Vec<u8>>,
    /// When to poll again, since boot.
    pub wake: Duration,
}

/// The first wait for an answer. Each further wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait for an answer: shorter than RFC 2131's 64 s, because people wait for this node.
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// The same while the node has an address, and nobody waits (RFC 2131 §4.1).
const LONGEST_TO_RENEW: Duration = Duration::from_secs(64);
/// From this question on, the answer is asked for as a broadcast (RFC 2131 §4.1): a relay or a switch may lose one that is sent to an
/// address which nobody has yet. The link hears both.
const BROADCAST: u32 = 2;
/// How often an offer is requested before the client begins again.
const REQUESTS: u32 = 4;
/// The same, if another server has offered as well.
const REQUESTS_OF_SEVERAL: u32 = 2;
/// The most servers that are told apart.
const MOST_SERVERS: usize = 8;

/// A client that wants one address on one link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    asker: Asker,
    random: [u8; 8],
    begun: Duration,
    stage: Stage,
    /// How many messages were sent in this stage.
    sent: u32,
    next: Duration,
    discovers: u32,
    /// The servers that have offered, and how many offers of each have failed.
    servers: Vec<(Ipv4Addr, u32)>,
    /// The offer that is requested if no better one comes. Its server has failed before, or it came while another
    /// server was asked.
    spare: Option<Offer>,
    /// The last refusal, for people.
    refusal: Option<(Ipv4Addr, Printable)>,
    /// The last server that offered and then did not answer, and how often the client asked it.
    deaf: Option<(Ipv4Addr, u32)>,
    dropped: Vec<(Dropped, u32)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    Discover,
    /// A server offered an address.
    Request(Offer),
    /// The address of a lease that is to be extended, and when the lease ends.
    Renew(Ipv4Addr, Duration),
    /// A server gave a lease.
    Bound(Prefix, Ipv4Addr),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Offer {
    address: Ipv4Addr,
    server: Server,
}

impl Client {
    /// A client without an address. It asks at once. RFC 2131 §4.4.1 wants a random wait of one to ten seconds, for
    /// rooms full of machines that are switched on together. These nodes' firmware has just asked at the same moment
    /// anyway.
    pub fn new(asker: Asker, random: [u8; 8], now: Duration) -> Client {
        Client {
            asker,
            random,
            begun: now,
            stage: Stage::Discover,
            sent: 0,
            next: now,
            discovers: 0,
            servers: Vec::new(),
            spare: None,
            refusal: None,
            deaf: None,
            dropped: Vec::new(),
        }
    }

    /// A client that wants to keep its lease. It broadcasts its question, as RFC 2131 §4.4.5 does to rebind: that needs
    /// no route to the server, and finds other servers, too.
    pub fn renewing(asker: Asker, lease: &Lease, random: [u8; 8], now: Duration) -> Client {
        match lease.address.address() {
            IpAddr::V4(address) => Client::keeping(asker, address, lease.ends_at(), random, now),
            IpAddr::V6(_) => Client::new(asker, random, now),
        }
    }

    /// The same where no more is known of the lease than its address and when it ends, since boot.
    pub fn keeping(asker: Asker, address: Ipv4Addr, ends: Duration, random: [u8; 8], now: Duration) -> Client {
        Client { stage: Stage::Renew(address, ends), ..Client::new(asker, random, now) }
    }

    /// The packet that is to be sent now, if any, and when to call again.
    pub fn poll(&mut self, now: Duration) -> Poll {
        if now < self.next {
            return Poll { send: None, wake: self.next };
        }
        match self.stage {
            Stage::Request(Offer { server, .. }) if self.sent >= self.patience(server.address) => {
                self.deaf = Some((server.address, self.sent));
                self.failed(server.address);
                (self.stage, self.sent) = (self.spare.take().map_or(Stage::Discover, Stage::Request), 0);
            }
            // RFC 2131 §4.4.5. A server that does not know the lease would stay silent for ever (§4.3.2).
            Stage::Renew(_, end) if now >= end => (self.stage, self.sent) = (Stage::Discover, 0),
            // No other server has offered.
            Stage::Discover => {
                if let Some(offer) = self.spare.take() {
                    (self.stage, self.sent) = (Stage::Request(offer), 0);
                }
            }
            _ => {}
        }
        let (kind, wants, server, has) = match self.stage {
            Stage::Discover => (Kind::Discover, None, None, Ipv4Addr::UNSPECIFIED),
            Stage::Request(Offer { address, server }) => {
                // A server that does not identify itself would not recognise an identifier.
                let named = server.identified.then_some(server.address);
                (Kind::Request, Some(address), named, Ipv4Addr::UNSPECIFIED)
            }
            Stage::Renew(address, _) => (Kind::Request, None, None, address),
            Stage::Bound(..) => return Poll { send: None, wake: Duration::MAX },
        };
        let question = Question {
            kind,
            xid: self.xid(),
            seconds: u16::try_from(now.saturating_sub(self.begun).as_secs()).unwrap_or(u16::MAX),
            hardware: self.asker.hardware,
            mac: self.asker.mac.as_bytes(),
            client_id: self.asker.client_id.as_deref(),
            broadcast: self.sent >= BROADCAST && has.is_unspecified(),
            hostname: self.asker.hostname.as_ref().map(HostName::as_str),
            has,
            wants,
            server,
        };
        let longest = if matches!(self.stage, Stage::Renew(..)) { LONGEST_TO_RENEW } else { LONGEST_WAIT };
        let wait = FIRST_WAIT.saturating_mul(1 << self.sent.min(8)).min(longest);
        self.next = now.saturating_add(self.jittered(wait));
        if let Stage::Renew(_, end) = self.stage {
            self.next = self.next.min(end);
        }
        self.sent = self.sent.saturating_add(1);
        if kind == Kind::Discover {
            self.discovers = self.discovers.saturating_add(1);
        }
        Poll { send: Some(question.encode()), wake: self.next }
    }

    /// Takes a packet that came in. A packet for DHCP clients that does not answer this client's last question is
    /// counted.
    pub fn push(&mut self, packet: &[u8], now: Duration) -> Option<Event> {
        match Answer::decode(packet)?.and_then(|answer| self.take(answer, now)) {
            Ok(event) => event,
            Err(why) => {
                match self.dropped.iter_mut().find(|(reason, _)| *reason == why) {
                    Some((_, count)) => *count = count.saturating_add(1),
                    None => self.dropped.push((why, 1)),
                }
                None
            }
        }
    }

    fn take(&mut self, answer: Answer, now: Duration) -> Result<Option<Event>, Dropped> {
        let mac = self.asker.mac.as_bytes();
        // RFC 4390 §2.1: InfiniBand messages have no hardware address, so the transaction number has to do.
        if mac.len() == 6 && answer.mac.len() != 6 {
            return Err(Dropped::HardwareLength);
        }
        if mac.len() == 6 && answer.mac != mac {
            return Err(Dropped::OtherMachine);
        }
        if answer.xid != self.xid() {
            return Err(Dropped::OtherExchange);
        }
        // The first offer ends the stage of DISCOVER, and more may follow, also once that server has refused: there is one
        // transaction number for all of them.
        let asked_before = matches!(self.stage, Stage::Discover | Stage::Request(_)) && self.discovers > 0;
        let late_offer = asked_before && answer.kind == Kind::Offer;
        let IpAddr::V4(address) = answer.address.address() else { return Err(Dropped::NoAddress) };
        if self.sent == 0 && !late_offer {
            return Err(Dropped::Unasked);
        }
        match (&self.stage, answer.kind) {
            (Stage::Discover | Stage::Request(_), Kind::Offer) => {
                self.offered(Offer { address, server: answer.server }, now);
                Ok(None)
            }
            (Stage::Request(asked), _) if !asked.server.may_be(answer.server) => Err(Dropped::OtherServer),
            (Stage::Request(Offer { address: wanted, .. }) | Stage::Renew(wanted, _), Kind::Ack)
                if *wanted == address =>
            {
                self.stage = Stage::Bound(answer.address, answer.server.address);
                Ok(Some(Event::Bound(lease(answer, now))))
            }
            (Stage::Request(asked), Kind::Nak) => {
                self.failed(asked.server.address);
                Ok(Some(self.refused(answer, now)))
            }
            (Stage::Renew(..), Kind::Nak) => Ok(Some(self.refused(answer, now))),
            _ => Err(Dropped::Unasked),
        }
    }

    /// Takes the first offer of a server that has not failed yet. A server that has failed is asked again only if no
    /// other server offers: a server that refuses or is deaf must not keep the client from another one. An offer that
    /// comes while another server is asked is kept, because a second server may be set to answer later.
    fn offered(&mut self, offer: Offer, now: Duration) {
        let failures = self.failures(offer.server.address);
        if failures.is_none() && self.servers.len() < MOST_SERVERS {
            self.servers.push((offer.server.address, 0));
        }
        let failures = failures.unwrap_or(0);
        let better = self.spare.is_none_or(|spare| failures < self.failures(spare.server.address).unwrap_or(0));
        // In the pause behind a refusal, the server that has just refused is not asked.
        let other_failed_more =
            self.servers.iter().any(|(other, count)| *other != offer.server.address && *count > failures);
        match self.stage {
            Stage::Discover if failures == 0 => {
                (self.stage, self.sent, self.next, self.spare) = (Stage::Request(offer), 0, now, None);
            }
            Stage::Discover if better && (self.sent > 0 || other_failed_more) => {
                self.spare = Some(offer);
                self.next = self.next.min(now.saturating_add(FIRST_WAIT));
            }
            Stage::Request(asked) if better && asked.server.address != offer.server.address => {
                self.spare = Some(offer);
            }
            _ => {}
        }
    }

    /// How many offers of a server have failed; `None`: the server is not known.
    fn failures(&self, server: Ipv4Addr) -> Option<u32> {
        self.servers.iter().find(|(known, _)| *known == server).map(|(_, failures)| *failures)
    }

    fn failed(&mut self, server: Ipv4Addr) {
        if let Some((_, failures)) = self.servers.iter_mut().find(|(known, _)| *known == server) {
            *failures = failures.saturating_add(1);
        } else if self.servers.len() < MOST_SERVERS {
            self.servers.push((server, 1));
        } else if let Some(first) = self.servers.first_mut() {
            *first = (server, 1);
        }
    }

    /// How often a server is asked for what it offered.
    fn patience(&self, server: Ipv4Addr) -> u32 {
        let own = self.failures(server).unwrap_or(0);
        let other = self.servers.iter().any(|(known, failures)| *known != server && *failures <= own);
        if other { REQUESTS_OF_SEVERAL } else { REQUESTS }
    }

    /// The client's state in words.
    pub fn state(&self) -> String {
        let mut state = match &self.stage {
            Stage::Discover if self.discovers == 0 => "about to ask".to_owned(),
            Stage::Discover => format!("{} DISCOVER sent, no OFFER", self.discovers),
            Stage::Request(Offer { address, server }) => {
                format!("OFFER of {address} by {}, {} REQUEST sent, no answer", server.address, self.sent)
            }
            Stage::Renew(address, _) => format!("{} REQUEST sent to keep {address}, no answer", self.sent),
            Stage::Bound(address, server) => format!("{address} by {server}"),
        };
        if let Some((server, words)) = &self.refusal {
            let words = if words.is_empty() { String::new() } else { format!(": \"{words}\"") };
            state.push_str(&format!(", last NAK by {server}{words}"));
        }
        if let Some((server, asked)) = &self.deaf {
            state.push_str(&format!(", no answer by {server} to {asked} REQUEST"));
        }
        for (position, (why, count)) in self.dropped.iter().enumerate() {
            let comma = if position == 0 { ", dropped: " } else { ", " };
            state.push_str(&format!("{comma}{count} {why}"));
        }
        state
    }

    fn xid(&self) -> [u8; 4] {
        self.random.first_chunk().copied().unwrap_or_default()
    }

    /// RFC 2131 §4.1: waits vary at random, here by a quarter either way, so that nodes that began together do not stay
    /// together.
    fn jittered(&self, wait: Duration) -> Duration {
        let random = self.random.last_chunk::<4>().copied().map_or(0, u32::from_le_bytes);
        let part = random.rotate_left(self.sent.saturating_mul(7)) & 0xff;
        wait.mul_f64(0.75) + wait.mul_f64(0.5 * f64::from(part) / 255.0)
    }

    fn refused(&mut self, answer: Answer, now: Duration) -> Event {
        // Words from the network must neither flood the console that shows them nor control it.
        let words = answer.message.unwrap_or_default();
        let words = Printable::up_to(&words, 80);
        self.refusal = Some((answer.server.address, words));
        self.sent = 0;
        // A server that refuses and offers in turn would keep both ends busy, so only one that has not failed is asked at
        // once.
        let fresh = self.spare.filter(|spare| self.failures(spare.server.address).unwrap_or(0) == 0);
        (self.stage, self.next) = match fresh {
            Some(offer) => (Stage::Request(offer), now),
            None => (Stage::Discover, now.saturating_add(FIRST_WAIT)),
        };
        self.spare = self.spare.filter(|_| fresh.is_none());
        Event::Refused
    }
}

fn lease(answer: Answer, now: Duration) -> Lease {
    // A lease of less than a minute is of no use: the kernel would take the address away during the check-in.
    let seconds = answer.lease.max(60);
    // RFC 2131 §4.4.5: T1 is half of the lease that the server gave, unless the server says otherwise.
    // A server that gives a lease of a second would be asked without a pause.
    let renew = answer.renew.filter(|timer| (1..answer.lease).contains(timer)).unwrap_or(answer.lease / 2).max(1);
    Lease {
        address: answer.address,
        server: answer.server.address,
        routes: answer.routes,
        dns: answer.dns,
        search: answer.search,
        domain: answer.domain,
        mtu: answer.mtu,
        unread: answer.unread,
        seconds,
        bound: now,
        renew: Duration::from_secs(renew.into()),
    }
}

#[cfg(test)]
mod tests;
