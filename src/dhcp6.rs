//! A DHCPv6 client as a state machine (RFC 8415 §18). It takes messages and the time, and returns messages and the next
//! time to call it. No sockets and no clock here. Never decides what a lease is used for, and never lets a server tell it
//! when to ask (Reconfigure).
//!
//! Nobody vouches for a server: any machine on the link may answer.

mod lease;
pub mod message;
mod words;

use std::net::Ipv6Addr;
use std::time::Duration;

pub use crate::duid::{Duid, Identity, iaid};
use crate::payload::HostName;
use crate::shown::Printable;
pub use lease::{Information, Lease, Server};
use message::{Answer, Dropped, Given, Kind, Question, Status};

/// The node that asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asker {
    /// Client and link.
    pub identity: Identity,
    /// The host name that the node wants.
    pub hostname: Option<HostName>,
}

/// What a message led to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A server gave a lease.
    Bound(Lease),
    /// A server told what was asked for.
    Informed(Information),
    /// A server refused. The client begins again.
    Refused,
}

/// What to do now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Poll {
    /// A message to [`EVERYBODY`].
    pub send: Option<Vec<u8>>,
    /// When to poll again, since boot.
    pub wake: Duration,
}

/// All_DHCP_Relay_Agents_and_Servers, ff02::1:2 (RFC 8415 §7.1), and the ports of servers and clients (§7.2).
pub const EVERYBODY: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// Where servers listen.
pub const SERVER_PORT: u16 = 547;
/// Where clients listen.
pub const CLIENT_PORT: u16 = 546;

/// The first wait for an answer (RFC 8415 §7.6). Each further wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait for an answer: shorter than RFC 8415's hour, because people wait for this node.
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// The same where a server asks its clients to be slower (SOL_MAX_RT, INF_MAX_RT), whatever it says: at most this long.
const LONGEST_ASKED: Duration = Duration::from_secs(120);
/// How long the client waits for further offers after the first one. RFC 8415 §18.2.1 would have it wait for the rest of
/// the first second.
const COLLECT: Duration = Duration::from_millis(250);
/// How often an offer is requested before the client turns to another.
const REQUESTS: u32 = 4;
/// The same, if another server has offered as well.
const REQUESTS_OF_SEVERAL: u32 = 2;
/// How often a server is told that another machine has its address. It answers at once, or not at all.
const DECLINES: u32 = 2;
/// The most servers that are told apart.
const MOST_SERVERS: usize = 8;

/// A client that wants one address, or information, on one link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    asker: Asker,
    random: [u8; 8],
    stage: Stage,
    /// Number of this exchange: each has a transaction number of its own.
    exchange: u32,
    /// When this exchange began.
    begun: Duration,
    /// How many messages were sent in this exchange.
    sent: u32,
    next: Duration,
    /// The transaction number of the last Solicit. Offers to it may come late.
    solicited: Option<[u8; 3]>,
    solicits: u32,
    /// Offers that are not requested yet.
    offers: Vec<Offer>,
    /// Servers that refused their own offer, or did not keep it, and how often.
    failed: Vec<(Duid, u32)>,
    longest: Duration,
    /// The last refusal, for people.
    refusal: Option<(Ipv6Addr, String, Printable)>,
    /// The last server that offered and then did not answer, and how often the client asked it.
    deaf: Option<(Ipv6Addr, u32)>,
    /// The last address that another machine has.
    taken: Option<Ipv6Addr>,
    dropped: Vec<(Dropped, u32)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    Solicit,
    /// A server offered an address.
    Request(Offer),
    /// A lease is to be extended. `server`: until T2.
    Renew {
        address: Ipv6Addr,
        server: Option<Server>,
        rebind: Duration,
        ends: Duration,
    },
    /// Another machine has the address that this server gave.
    Decline(Ipv6Addr, Server),
    Inform,
    /// Done: an address, or information. From where it came.
    Bound(Ipv6Addr, Ipv6Addr),
    Informed(Ipv6Addr),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Offer {
    address: Ipv6Addr,
    server: Server,
    preference: u8,
}

/// What an answer says of the client's link.
enum Grant {
    Given(Given, u32, u32),
    Refused(Status),
}

impl Client {
    /// A client without an address. It asks at once: see [`crate::dhcp4::Client::new`].
    pub fn new(asker: Asker, random: [u8; 8], now: Duration) -> Client {
        Client::at(Stage::Solicit, asker, random, now)
    }

    /// A client that wants name servers and search domains, and no address.
    pub fn informing(asker: Asker, random: [u8; 8], now: Duration) -> Client {
        Client::at(Stage::Inform, asker, random, now)
    }

    /// A client that wants to keep its lease: it asks the server that gave it, and from T2 on any server.
    pub fn renewing(asker: Asker, lease: &Lease, random: [u8; 8], now: Duration) -> Client {
        let rebind = lease.bound.saturating_add(lease.rebind);
        let stage =
            Stage::Renew { address: lease.address, server: Some(lease.server.clone()), rebind, ends: lease.ends_at() };
        Client::at(stage, asker, random, now)
    }

    /// The same where no more is known of the lease than its address and when it ends, since boot: it asks any server.
    pub fn keeping(asker: Asker, address: Ipv6Addr, ends: Duration, random: [u8; 8], now: Duration) -> Client {
        Client::at(Stage::Renew { address, server: None, rebind: now, ends }, asker, random, now)
    }

    /// A client that tells its server that another machine has the address (RFC 4862 §5.4.5), and then asks for another one.
    pub fn declining(asker: Asker, lease: &Lease, random: [u8; 8], now: Duration) -> Client {
        let server = lease.server.clone();
        let mut client = Client::at(Stage::Decline(lease.address, server.clone()), asker, random, now);
        client.failed.push((server.duid, 1));
        client.taken = Some(lease.address);
        client
    }

    fn at(stage: Stage, asker: Asker, random: [u8; 8], now: Duration) -> Client {
        Client {
            asker,
            random,
            stage,
            exchange: 0,
            begun: now,
            sent: 0,
            next: now,
            solicited: None,
            solicits: 0,
            offers: Vec::new(),
            failed: Vec::new(),
            longest: LONGEST_WAIT,
            refusal: None,
            deaf: None,
            taken: None,
            dropped: Vec::new(),
        }
    }

    /// The message that is to be sent now, if any, and when to call again.
    pub fn poll(&mut self, now: Duration) -> Poll {
        if now < self.next {
            return Poll { send: None, wake: self.next };
        }
        self.turn(now);
        let (kind, address, server, until) = match &self.stage {
            Stage::Solicit => (Kind::Solicit, None, None, Duration::MAX),
            Stage::Request(offer) => (Kind::Request, Some(offer.address), Some(&offer.server), Duration::MAX),
            Stage::Renew { address, server: Some(server), rebind, ends } => {
                (Kind::Renew, Some(*address), Some(server), *rebind.min(ends))
            }
            Stage::Renew { address, ends, .. } => (Kind::Rebind, Some(*address), None, *ends),
            Stage::Decline(address, server) => (Kind::Decline, Some(*address), Some(server), Duration::MAX),
            Stage::Inform => (Kind::Information, None, None, Duration::MAX),
            Stage::Bound(..) | Stage::Informed(_) => return Poll { send: None, wake: Duration::MAX },
        };
        let xid = self.xid();
        let question = Question {
            kind,
            xid,
            identity: &self.asker.identity,
            server: server.map(|server| &server.duid),
            address,
            elapsed: u16::try_from(now.saturating_sub(self.begun).as_millis() / 10).unwrap_or(u16::MAX),
            hostname: self.asker.hostname.as_ref().map(HostName::as_str),
        };
        let bytes = question.encode();
        let wait = FIRST_WAIT.saturating_mul(1 << self.sent.min(16)).min(self.longest);
        self.next = now.saturating_add(self.jittered(wait, kind)).min(until);
        self.sent = self.sent.saturating_add(1);
        if kind == Kind::Solicit {
            self.solicits = self.solicits.saturating_add(1);
            self.solicited = Some(xid);
        }
        Poll { send: Some(bytes), wake: self.next }
    }

    /// Goes on to the next stage where it is time to.
    fn turn(&mut self, now: Duration) {
        match &mut self.stage {
            // No better offer has come.
            Stage::Solicit => {
                if let Some(offer) = self.best() {
                    self.begin(Stage::Request(offer), now);
                }
            }
            Stage::Request(Offer { server, .. }) => {
                let server = server.clone();
                if self.sent >= self.patience(&server.duid) {
                    self.deaf = Some((server.from, self.sent));
                    self.give_up(&server.duid, now);
                }
            }
            // RFC 8415 §18.2.5: without an answer, all is over when the lifetimes are.
            Stage::Renew { ends, .. } if now >= *ends => self.begin(Stage::Solicit, now),
            Stage::Renew { server, rebind, .. } if now >= *rebind && server.is_some() => {
                *server = None;
                self.begin(self.stage.clone(), now);
            }
            Stage::Decline(..) if self.sent >= DECLINES => self.begin(Stage::Solicit, now),
            _ => {}
        }
    }

    /// Begins another exchange, at once.
    fn begin(&mut self, stage: Stage, now: Duration) {
        (self.stage, self.begun, self.sent, self.next) = (stage, now, 0, now);
        self.exchange = self.exchange.wrapping_add(1);
    }

    /// Takes a message that came in, and where it came from. One that does not answer this client's last question is counted.
    pub fn push(&mut self, from: Ipv6Addr, message: &[u8], now: Duration) -> Option<Event> {
        match Answer::decode(message).and_then(|answer| self.take(from, answer, now)) {
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

    fn take(&mut self, from: Ipv6Addr, answer: Answer, now: Duration) -> Result<Option<Event>, Dropped> {
        if answer.client != self.asker.identity.duid {
            return Err(Dropped::OtherMachine);
        }
        let server = Server { duid: answer.server.clone(), from };
        if answer.kind == Kind::Advertise {
            return self.offered(server, &answer, now).map(|()| None);
        }
        if answer.xid != self.xid() {
            return Err(Dropped::OtherExchange);
        }
        let is_other = |asked: &Server| asked.duid != server.duid;
        match &self.stage {
            _ if self.sent == 0 => Err(Dropped::Unasked),
            Stage::Request(Offer { server: asked, .. })
            | Stage::Renew { server: Some(asked), .. }
            | Stage::Decline(_, asked)
                if is_other(asked) =>
            {
                Err(Dropped::OtherServer)
            }
            Stage::Solicit if !answer.rapid => Err(Dropped::Unasked),
            // Whatever the reply says, the server knows now.
            Stage::Decline(..) => {
                self.begin(Stage::Solicit, now);
                Ok(None)
            }
            Stage::Inform => {
                self.slow(answer.inf_max_rt);
                if answer.status.code != 0 {
                    self.refusal = Some(refusal(from, &answer.status));
                    return Ok(None);
                }
                self.begin(Stage::Informed(from), Duration::MAX);
                Ok(Some(Event::Informed(Information::of(answer, now))))
            }
            Stage::Solicit | Stage::Request(_) | Stage::Renew { .. } => self.replied(server, answer, now),
            Stage::Bound(..) | Stage::Informed(_) => Err(Dropped::Unasked),
        }
    }

    /// A reply of the right server that gives an address, or refuses it.
    fn replied(&mut self, server: Server, answer: Answer, now: Duration) -> Result<Option<Event>, Dropped> {
        self.slow(answer.sol_max_rt);
        let held = match &self.stage {
            Stage::Renew { address, .. } => Some(*address),
            _ => None,
        };
        let status = match self.granted(&answer, held)? {
            Grant::Given(given, t1, t2) => {
                self.begin(Stage::Bound(given.address, server.from), Duration::MAX);
                return Ok(Some(Event::Bound(Lease::of(given, (t1, t2), server, answer, now))));
            }
            Grant::Refused(status) => status,
        };
        self.refusal = Some(refusal(server.from, &status));
        match (status.code, held) {
            // RFC 8415 §18.2.10: the server may be able to do it later; the same question goes out again.
            (UNSPEC_FAIL | USE_MULTICAST, _) => Ok(None),
            // RFC 8415 §18.2.10.1: the server has forgotten the lease. It may give the same address once more.
            (NO_BINDING, Some(address)) => {
                self.begin(Stage::Request(Offer { address, server, preference: 0 }), now);
                Ok(None)
            }
            _ => {
                let duid = server.duid;
                self.give_up(&duid, now);
                // A server that refuses and offers in turn would keep both ends busy.
                if self.stage == Stage::Solicit {
                    self.next = now.saturating_add(FIRST_WAIT);
                }
                Ok(Some(Event::Refused))
            }
        }
    }

    /// The address in an answer, best the one that the client has.
    fn granted(&self, answer: &Answer, held: Option<Ipv6Addr>) -> Result<Grant, Dropped> {
        if answer.status.code != 0 {
            return Ok(Grant::Refused(answer.status.clone()));
        }
        let mine = answer.associations.iter().find(|association| association.iaid == self.asker.identity.iaid);
        let association = mine.ok_or(Dropped::NoAddress)?;
        if association.status.code != 0 {
            return Ok(Grant::Refused(association.status.clone()));
        }
        // RFC 8415 §21.4: such an association is dropped; and so is an address that is preferred longer than it is valid (§21.6).
        if association.t2 > 0 && association.t1 > association.t2 {
            return Err(Dropped::Timers);
        }
        let usable =
            |given: &&Given| given.valid > 0 && given.preferred <= given.valid && lease::is_host(given.address);
        let all = || association.addresses.iter().filter(usable);
        let given = all().find(|given| Some(given.address) == held).or_else(|| all().next());
        match given {
            Some(given) => Ok(Grant::Given(*given, association.t1, association.t2)),
            // The server says that the client may have it no more.
            None if association.addresses.iter().any(|given| Some(given.address) == held && given.valid == 0) => {
                Ok(Grant::Refused(Status { code: NO_ADDRESS, words: String::new() }))
            }
            None => Err(Dropped::NoAddress),
        }
    }

    /// Keeps an offer. The best one is requested once others have had a moment, or at once if its preference is 255.
    fn offered(&mut self, server: Server, answer: &Answer, now: Duration) -> Result<(), Dropped> {
        if self.solicited != Some(answer.xid) {
            return Err(Dropped::OtherExchange);
        }
        // An offer that comes while another server is asked counts, too: a second server may be set to be slower.
        if !matches!(self.stage, Stage::Solicit | Stage::Request(_)) {
            return Err(Dropped::Unasked);
        }
        self.slow(answer.sol_max_rt);
        let given = match self.granted(answer, None)? {
            Grant::Given(given, ..) => given,
            Grant::Refused(status) => {
                self.refusal = Some(refusal(server.from, &status));
                return Ok(());
            }
        };
        if matches!(&self.stage, Stage::Request(asked) if asked.server.duid == server.duid) {
            return Ok(());
        }
        let failures = self.failures(&server.duid);
        self.offers.retain(|offer| offer.server.duid != server.duid);
        if self.offers.len() < MOST_SERVERS {
            self.offers.push(Offer { address: given.address, server, preference: answer.preference });
        }
        if self.stage == Stage::Solicit {
            let wait = match failures {
                0 if answer.preference == u8::MAX => Duration::ZERO,
                0 => COLLECT,
                // Others go first.
                _ => FIRST_WAIT,
            };
            self.next = self.next.min(now.saturating_add(wait));
        }
        Ok(())
    }

    /// Takes the offer of the server that has failed least, and among those the one with the greatest preference.
    fn best(&mut self) -> Option<Offer> {
        let rank = |offer: &Offer| (self.failures(&offer.server.duid), u8::MAX.saturating_sub(offer.preference));
        let (place, _) = self.offers.iter().enumerate().min_by_key(|(_, offer)| rank(offer))?;
        Some(self.offers.remove(place))
    }

    /// A server did not keep its offer, or refuses. Another one that has offered is asked at once.
    fn give_up(&mut self, server: &Duid, now: Duration) {
        if let Some((_, failures)) = self.failed.iter_mut().find(|(known, _)| known == server) {
            *failures = failures.saturating_add(1);
        } else if self.failed.len() < MOST_SERVERS {
            self.failed.push((server.clone(), 1));
        }
        self.offers.retain(|offer| offer.server.duid != *server);
        let next = self.best().map_or(Stage::Solicit, Stage::Request);
        self.begin(next, now);
    }

    fn failures(&self, server: &Duid) -> u32 {
        self.failed.iter().find(|(known, _)| known == server).map_or(0, |(_, failures)| *failures)
    }

    /// How often a server is asked for what it offered.
    fn patience(&self, server: &Duid) -> u32 {
        let own = self.failures(server);
        let other = self.offers.iter().any(|offer| self.failures(&offer.server.duid) <= own);
        if other { REQUESTS_OF_SEVERAL } else { REQUESTS }
    }

    fn slow(&mut self, seconds: Option<u32>) {
        if let Some(seconds) = seconds {
            self.longest = Duration::from_secs(seconds.into()).min(LONGEST_ASKED);
        }
    }

    /// RFC 8415 §16.1: each exchange has another one.
    fn xid(&self) -> [u8; 3] {
        let start = self.random.first_chunk().copied().map_or(0, u32::from_le_bytes);
        let [.., x, i, d] = start.wrapping_add(self.exchange.wrapping_mul(0x009e_3779)).to_be_bytes();
        [x, i, d]
    }

    /// RFC 8415 §15: waits vary by a tenth either way, so that nodes that began together do not stay together. The first wait
    /// for offers is never shortened (§18.2.1).
    fn jittered(&self, wait: Duration, kind: Kind) -> Duration {
        let random = self.random.last_chunk::<4>().copied().map_or(0, u32::from_le_bytes);
        let part = f64::from(random.rotate_left(self.sent.saturating_mul(7)) & 0xff) / 255.0;
        let first = kind == Kind::Solicit && self.sent == 0;
        wait.mul_f64(if first { 1.0 + 0.1 * part } else { 0.9 + 0.2 * part })
    }
}

// RFC 8415 §21.13
const UNSPEC_FAIL: u16 = 1;
const NO_ADDRESS: u16 = 2;
const NO_BINDING: u16 = 3;
const USE_MULTICAST: u16 = 5;

/// Words from the network must neither flood the console that shows them nor control it.
fn refusal(from: Ipv6Addr, status: &Status) -> (Ipv6Addr, String, Printable) {
    (from, status.name(), Printable::up_to(&status.words, 80))
}

#[cfg(test)]
mod tests;
