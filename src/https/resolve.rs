//! Looks up the addresses of a server, within a deadline: in hosts(5), and at the name servers of resolv.conf(5), as it is at that
//! moment. Never connects to one. nsswitch.conf(5) is not read: what it names are libraries, and a static program has none.
//!
//! IPv4 and IPv6 are asked for at once, and each has an outcome of its own (RFC 8305 §3): name servers of isolated networks answer for
//! A, but refuse AAAA or stay silent about it. A name server's answer is only a place to try: the certificate decides which server
//! is there.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sys::eventfd::EventFd;

use super::error::{HttpsError, Unresolved};
use crate::dns::ask::{No, Outcome, Until, ask};
use crate::dns::local::{PORT, Settings, hosts};
use crate::dns::{Data, Kind};
use crate::payload::{DnsName, HttpsUrl, InterfaceName, UrlHost};
use crate::time::Deadline;

/// Addresses to try, in order. More addresses of a name may become known while the first ones are tried.
pub(super) struct Addresses {
    ipv6: VecDeque<SocketAddr>,
    ipv4: VecDeque<SocketAddr>,
    /// The addresses that were tried.
    given: Vec<SocketAddr>,
    lookups: Option<Lookups>,
}

/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

impl Addresses {
    /// The addresses of a URL's host. For a name, it waits until there is an address to begin with, or until none can
    /// come.
    pub(super) fn of(url: &HttpsUrl, deadline: Deadline) -> Result<Addresses, HttpsError> {
        let name = match url.host() {
            UrlHost::Ip(address) => return Ok(Addresses::known(&[on_link(*address, url)])),
            UrlHost::Dns(name) => name,
        };
        let known = hosts(&text("/etc/hosts"), name.as_str());
        if !known.is_empty() {
            let known: Vec<_> = known.into_iter().map(|address| SocketAddr::new(address, url.port())).collect();
            return Ok(Addresses::known(&known));
        }
        let settings = Settings::read(&text("/etc/resolv.conf"), &|link| if_nametoindex(link).ok());
        Addresses::asked(settings, name, url.port(), deadline)
    }

    /// The addresses of a name according to these name servers.
    fn asked(settings: Settings, name: &DnsName, port: u16, deadline: Deadline) -> Result<Addresses, HttpsError> {
        let lookups = Lookups::begin(settings, name, port, deadline.at_most(RESOLVE));
        let lookups = lookups.map_err(|said| HttpsError::Resolve(Box::new(said)))?;
        let mut addresses = Addresses { lookups: Some(lookups), ..Addresses::known(&[]) };
        // Each look-up ends by itself.
        while addresses.first_is_awaited() {
            addresses.take_in(Duration::MAX);
        }
        // IPv6 goes first. When IPv4 is known first, IPv6 gets a moment more.
        if addresses.ipv6.is_empty() {
            addresses.wait(deadline.at_most(RESOLUTION_DELAY));
        }
        match &addresses.lookups {
            Some(lookups) if addresses.is_empty() => Err(HttpsError::Resolve(Box::new(lookups.failure(name)))),
            _ => Ok(addresses),
        }
    }

    pub(super) fn known(addresses: &[SocketAddr]) -> Addresses {
        let (ipv6, ipv4) = addresses.iter().partition(|address| address.is_ipv6());
        Addresses { ipv6, ipv4, given: Vec::new(), lookups: None }
    }

    /// The next address to try. The families take turns, IPv6 first (RFC 8305 §4). A family without a route costs one
    /// try.
    pub(super) fn next(&mut self) -> Option<SocketAddr> {
        self.take_in(Duration::ZERO);
        loop {
            let ipv4_is_next = self.given.last().is_some_and(SocketAddr::is_ipv6);
            let next = match ipv4_is_next {
                true => self.ipv4.pop_front().or_else(|| self.ipv6.pop_front()),
                false => self.ipv6.pop_front().or_else(|| self.ipv4.pop_front()),
            };
            let address = next.filter(|_| self.given.len() < MAX_ADDRESSES)?;
            if !self.given.contains(&address) {
                self.given.push(address);
                return Some(address);
            }
        }
    }

    /// One more address to try.
    pub(super) fn also(&mut self, address: SocketAddr) {
        if address.is_ipv6() { &mut self.ipv6 } else { &mut self.ipv4 }.push_back(address);
    }

    /// Whether there may be another address to try, now or later.
    pub(super) fn more(&self) -> bool {
        self.given.len() < MAX_ADDRESSES && (!self.is_empty() || self.under_way())
    }

    /// Waits for a lookup that is still under way. False when there is none, or when none has answered by the deadline.
    pub(super) fn wait(&mut self, deadline: Deadline) -> bool {
        self.under_way() && self.take_in(deadline.remaining())
    }

    fn first_is_awaited(&self) -> bool {
        self.is_empty() && self.under_way()
    }

    fn is_empty(&self) -> bool {
        self.ipv6.is_empty() && self.ipv4.is_empty()
    }

    fn under_way(&self) -> bool {
        self.lookups.as_ref().is_some_and(|lookups| lookups.under_way())
    }

    /// Takes in what a lookup answers within `limit`. False when none answers.
    fn take_in(&mut self, limit: Duration) -> bool {
        let Some(found) = self.lookups.as_mut().and_then(|lookups| lookups.next(limit)) else { return false };
        for address in found {
            if address.is_ipv6() { &mut self.ipv6 } else { &mut self.ipv4 }.push_back(address);
        }
        true
    }
}

/// An address of a URL, with the link that it is on. A link that there is not now has no number; the kernel then says what is wrong.
fn on_link(address: IpAddr, url: &HttpsUrl) -> SocketAddr {
    let number = |zone: &InterfaceName| nix::net::if_::if_nametoindex(zone.as_str()).ok();
    match (address, url.zone().and_then(number)) {
        (IpAddr::V6(address), Some(link)) => SocketAddrV6::new(address, url.port(), 0, link).into(),
        _ => SocketAddr::new(address, url.port()),
    }
}

/// The longest that name servers may take.
const RESOLVE: Duration = Duration::from_secs(12);
/// RFC 8305 §3: how long an IPv4 address waits for the name's IPv6 addresses.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// How long the other family has for its answer once one says that the name has no address, where another name may have one.
const OTHER_FAMILY: Duration = Duration::from_secs(1);
/// A look-up ends at its deadline, and then tells what it came to.
const TELL: Duration = Duration::from_millis(250);
/// A look-up has its own thread, which needs little: a message and some names.
const STACK: usize = 128 * 1024;
/// The most that is read of a file.
const MOST: u64 = 1 << 20;

/// The look-ups of one name, and of those that a search list makes of it: A and AAAA at once, one name after the other.
struct Lookups {
    port: u16,
    settings: Arc<Settings>,
    /// A server that has answered: it is asked first for the next name.
    alive: Option<SocketAddr>,
    deadline: Deadline,
    /// The names that are still to be asked for, the last one first.
    names: Vec<String>,
    /// The name that is asked for now.
    name: String,
    /// Counts the names.
    round: usize,
    /// The look-ups of this name that have not ended.
    pending: usize,
    /// This name need not be waited for any longer than this.
    patience: Deadline,
    /// There is an address, so no other name is asked for.
    found: bool,
    /// A server has said that there is no address.
    answered: bool,
    /// The look-ups without an address: the name, what was asked for, and what each server said.
    without: Vec<(String, String, String)>,
    channel: (Sender<Told>, Receiver<Told>),
    /// Ends the look-ups that are under way.
    stop: Arc<EventFd>,
}

/// The round, the family, and what the look-up came to.
type Told = (usize, Kind, Outcome);

impl Lookups {
    fn begin(settings: Settings, name: &DnsName, port: u16, deadline: Deadline) -> Result<Lookups, Unresolved> {
        let mut names = settings.names(name.as_str());
        names.reverse();
        let stop = EventFd::new().map_err(|errno| Unresolved {
            name: name.clone(),
            servers: true,
            answered: false,
            said: vec![errno.desc().to_lowercase()],
        })?;
        let mut lookups = Lookups {
            port,
            settings: Arc::new(settings),
            alive: None,
            deadline,
            names,
            name: String::new(),
            round: 0,
            pending: 0,
            patience: deadline,
            found: false,
            answered: false,
            without: Vec::new(),
            channel: channel(),
            stop: Arc::new(stop),
        };
        lookups.ask_for_next();
        Ok(lookups)
    }

    /// Asks for the next name, if there is one.
    fn ask_for_next(&mut self) {
        let Some(name) = self.names.pop() else { return };
        self.name = name;
        self.round = self.round.saturating_add(1);
        self.patience = Deadline::after(self.deadline.remaining().saturating_add(TELL));
        // AAAA first, so that its answer comes first when both are equally fast.
        for kind in [Kind::Aaaa, Kind::A].into_iter().skip(self.settings.no_aaaa.into()) {
            match self.spawn(kind) {
                Ok(()) => self.pending = self.pending.saturating_add(1),
                Err(error) => self.without.push((self.name.clone(), kind.to_string(), error.to_string())),
            }
        }
    }

    fn spawn(&self, kind: Kind) -> std::io::Result<()> {
        let (settings, stop, sender) = (self.settings.clone(), self.stop.clone(), self.channel.0.clone());
        let (name, round, deadline) = (self.name.clone(), self.round, self.deadline);
        let mut servers = settings.servers.clone();
        if let Some(place) = servers.iter().position(|server| Some(*server) == self.alive) {
            servers.swap(0, place);
        }
        if servers.is_empty() {
            // resolv.conf(5): it is the one of this machine.
            servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        let look_up = move || {
            let until = Until { stop: stop.as_fd(), deadline, tcp: settings.tcp };
            // Once there is a connection, nobody wants to know any more.
            let _ = sender.send((round, kind, ask(&servers, &name, kind, until)));
        };
        std::thread::Builder::new().name("resolve".to_owned()).stack_size(STACK).spawn(look_up).map(drop)
    }

    fn under_way(&self) -> bool {
        self.pending > 0
    }

    /// What the next look-up found, if one ends within `limit`. An outcome without an address counts, too.
    fn next(&mut self, limit: Duration) -> Option<Vec<SocketAddr>> {
        match self.channel.1.recv_timeout(limit.min(self.patience.remaining())) {
            Ok((round, kind, outcome)) if round == self.round => {
                self.pending = self.pending.saturating_sub(1);
                Some(self.note(kind, outcome))
            }
            // The other name is asked for already.
            Ok(_) => Some(Vec::new()),
            Err(_) if self.pending > 0 && self.patience.expired() => {
                self.pending = 0;
                self.go_on();
                Some(Vec::new())
            }
            Err(_) => None,
        }
    }

    fn note(&mut self, kind: Kind, outcome: Outcome) -> Vec<SocketAddr> {
        let mut found = Vec::new();
        let said = outcome.said();
        match outcome {
            Outcome::Found(records, _) => {
                let address = |data| if let Data::Address(address) = data { Some(address) } else { None };
                let addresses = records.into_iter().filter_map(address);
                found.extend(addresses.map(|address: IpAddr| SocketAddr::new(address, self.port)));
                self.found = true;
            }
            Outcome::None(server, _) => {
                (self.answered, self.alive) = (true, Some(server));
                if !self.names.is_empty() {
                    self.patience = self.patience.at_most(OTHER_FAMILY);
                }
                self.without.push((self.name.clone(), kind.to_string(), said));
            }
            Outcome::Failed(all) => {
                let speaks = all.iter().any(|(_, no)| matches!(no, No::Code(_) | No::Broken | No::Tcp(_)));
                // Servers that are silent now have nothing to say about another name either.
                if !speaks && !self.answered {
                    self.names.clear();
                }
                self.without.push((self.name.clone(), kind.to_string(), said));
            }
            Outcome::Stopped => {}
        }
        self.go_on();
        found
    }

    fn go_on(&mut self) {
        if self.pending == 0 && !self.found && !self.deadline.expired() {
            self.ask_for_next();
        }
    }

    /// Why there is no address.
    fn failure(&self, name: &DnsName) -> Unresolved {
        let mut said: Vec<(String, String, String)> = Vec::new();
        for (name, kind, words) in &self.without {
            match said.iter_mut().find(|(of, _, other)| of == name && other == words) {
                Some((_, kinds, _)) => *kinds = "A and AAAA".to_owned(),
                None => said.push((name.clone(), kind.clone(), words.clone())),
            }
        }
        Unresolved {
            name: name.clone(),
            servers: !self.settings.servers.is_empty(),
            answered: self.answered,
            said: said.into_iter().map(|(name, kind, words)| format!("{kind} {name}: {words}")).collect(),
        }
    }
}

impl Drop for Lookups {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
    }
}

/// A file of the machine. One that is not there, or cannot be read, says nothing.
pub(super) fn text(path: &str) -> String {
    let mut bytes = Vec::new();
    let _ = File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
