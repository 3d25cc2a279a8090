//! What a link gets by IPv6 beside what the kernel does itself: what routers say of DHCPv6 and NAT64, the questions of DHCPv6,
//! and its lease. Never decides anything about other links.
//!
//! Nobody vouches for a router or a DHCPv6 server: any machine on the link may answer. What they give is used as far as the
//! kernel accepts it.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::NetworkError;
use super::before::Before;
use super::ip6::Socket6;
use super::kernel::{Address6, Kernel, On};
use super::lease::random;
use super::packet::AT_ONCE;
use crate::dhcp6::{Asker, Client, Event, Identity, Information, Lease};
use crate::neighbour::router::{Advertisement, Routers, SOLICITATION};
use crate::payload::{DnsName, Prefix};
use crate::plan::LinkConfig;
use crate::time::since_boot;

/// How long addresses of routers wait for name servers by DHCPv6, where routers name none.
const NAMES: Duration = Duration::from_secs(2);

/// What DHCPv6 and routers gave a link, for the next stage.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Given6 {
    /// Who asks by DHCPv6. `None`: nobody does.
    pub identity: Option<Identity>,
    /// The leased address, with its network if a router says that it is on the link.
    pub address: Option<Prefix>,
    /// Name servers of DHCPv6.
    pub dns: Vec<Ipv6Addr>,
    /// Search domains of DHCPv6.
    pub search: Vec<DnsName>,
    /// Routers say that addresses are to be had by DHCPv6.
    pub managed: bool,
    /// Prefixes of a NAT64 that routers advertise.
    pub nat64: Vec<Prefix>,
}

/// What is to be asked for by DHCPv6.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Address,
    Information,
}

/// The state of one link.
#[derive(Default)]
pub(super) struct Six {
    /// Advertisements of routers. Opened before the link goes up, so that none is missed.
    heard: Option<Socket6>,
    routers: Routers,
    /// The link was up already, so the kernel does not ask for routers.
    solicit: bool,
    /// A link-local address that is usable, and the socket on it.
    own: Option<Ipv6Addr>,
    socket: Option<Socket6>,
    /// The client while it asks, what it asks for, and since when.
    client: Option<(Client, Wanted, Duration)>,
    /// The client's last state in words.
    state: Option<String>,
    lease: Option<(Lease, Prefix)>,
    /// The kernel has found that no other machine has the leased address.
    ready: bool,
    information: Option<Information>,
    /// There was a lease, which is to be extended or replaced.
    renewing: bool,
}

/// The link that an address is for.
pub(super) struct Onto6<'a> {
    pub(super) on: On<'a>,
    pub(super) config: &'a LinkConfig,
    /// `None`: DHCPv6 has no room for the link's hardware address.
    pub(super) asker: Option<Asker>,
    pub(super) carrier: bool,
    /// The link as it was before, if it is used for a while only.
    pub(super) before: Option<&'a Before>,
}

impl Six {
    /// `up`: the link is up already.
    pub(super) fn open(&mut self, on: On<'_>, up: bool) -> Result<(), NetworkError> {
        self.heard = Socket6::routers(on).map_err(|source| on.failed(ROUTERS, source))?;
        self.solicit = up;
        Ok(())
    }

    /// Stops asking while the link has no carrier.
    pub(super) fn pause(&mut self) {
        (self.client, self.socket, self.own) = (None, None, None);
    }

    /// Stops asking for good.
    pub(super) fn close(&mut self) {
        self.pause();
        self.heard = None;
    }

    /// Records the link's addresses, as the kernel lists them.
    pub(super) fn addresses<'a>(&mut self, onto: &Onto6<'_>, mine: impl Iterator<Item = &'a Address6> + Clone) -> bool {
        let usable = |address: &&Address6| !address.tentative && !address.duplicate;
        let own = mine.clone().filter(usable).filter(|address| !address.global).find_map(|address| v6(address.prefix));
        if own != self.own {
            (self.own, self.socket) = (own, None);
        }
        let Some((lease, _)) = &self.lease else { return false };
        let there = mine.clone().find(|address| v6(address.prefix) == Some(lease.address));
        let now = since_boot();
        let taken = match there {
            Some(address) => address.duplicate,
            // The kernel removes an address with a lifetime that another machine has (net/ipv6/addrconf.c, addrconf_dad_stop).
            None => !self.ready && now < lease.ends_at(),
        };
        if taken && let Some(asker) = onto.asker.clone() {
            self.client = Some((Client::declining(asker, lease, random(), now), Wanted::Address, now));
            return true;
        }
        self.ready = there.is_some_and(|address| usable(&address));
        false
    }

    /// Whether the link has a leased address that it can use.
    pub(super) fn has_address(&self) -> bool {
        self.lease.is_some() && self.ready
    }

    pub(super) fn has_information(&self) -> bool {
        self.information.is_some()
    }

    /// Whether this address is the leased one.
    pub(super) fn has_leased(&self, address: Prefix) -> bool {
        self.lease.as_ref().is_some_and(|(lease, _)| Some(lease.address) == v6(address))
    }

    /// Until when addresses of routers wait for name servers by DHCPv6, since boot. `None`: they do not wait.
    pub(super) fn names_awaited(&self, now: Duration) -> Option<Duration> {
        let until = self.client.as_ref().map(|(_, _, since)| since.saturating_add(NAMES));
        until.filter(|until| *until > now && !self.renewing)
    }

    /// Does what is due, and reads what has arrived. Returns when something is due next.
    pub(super) fn work(
        &mut self,
        onto: &Onto6<'_>,
        buffer: &mut [u8],
        kernel: &mut Kernel,
    ) -> Result<Option<Duration>, NetworkError> {
        let now = since_boot();
        self.listen(onto.on, buffer, now)?;
        let config = onto.config;
        let wanted =
            match (config.dhcp6 || config.slaac && self.routers.managed(), config.slaac && self.routers.other()) {
                (true, _) => Some(Wanted::Address),
                (_, true) => Some(Wanted::Information),
                _ => None,
            };
        if let (Some(wanted), Some(own), Some(asker), true) = (wanted, self.own, &onto.asker, onto.carrier) {
            if self.socket.is_none() {
                self.socket = Some(Socket6::dhcp(onto.on, own).map_err(|source| onto.on.failed(DHCP6, source))?);
            }
            self.begin(wanted, asker, now);
        }
        self.ask(onto, buffer, kernel)
    }

    /// Starts to ask, unless there is an answer already.
    fn begin(&mut self, wanted: Wanted, asker: &Asker, now: Duration) {
        let asks = self.client.as_ref().map(|(_, asks, _)| *asks);
        let client = match wanted {
            Wanted::Address if self.lease.is_none() && asks != Some(Wanted::Address) => Client::new,
            Wanted::Information if self.information.is_none() && self.lease.is_none() && asks.is_none() => {
                Client::informing
            }
            _ => return,
        };
        self.client = Some((client(asker.clone(), random(), now), wanted, now));
    }

    /// Hears what routers say.
    fn listen(&mut self, on: On<'_>, buffer: &mut [u8], now: Duration) -> Result<(), NetworkError> {
        let Some(socket) = &self.heard else { return Ok(()) };
        let failed = |source| on.failed(ROUTERS, source);
        for _ in 0..AT_ONCE {
            let Some(arrived) = socket.receive(buffer).map_err(failed)? else { break };
            if let Some(advertisement) = Advertisement::decode(arrived.from, arrived.hops, arrived.bytes) {
                self.routers.take(&advertisement, now);
            }
        }
        if self.own.is_some() && std::mem::take(&mut self.solicit) && !self.routers.heard() {
            socket.send(&SOLICITATION).map_err(failed)?;
        }
        Ok(())
    }

    fn ask(
        &mut self,
        onto: &Onto6<'_>,
        buffer: &mut [u8],
        kernel: &mut Kernel,
    ) -> Result<Option<Duration>, NetworkError> {
        let (Some(socket), Some((client, _, _))) = (&self.socket, &mut self.client) else { return Ok(None) };
        let failed = |source| onto.on.failed(DHCP6, source);
        let mut event = None;
        for _ in 0..AT_ONCE {
            let Some(arrived) = socket.receive(buffer).map_err(failed)? else { break };
            event = client.push(arrived.from, arrived.bytes, since_boot());
            if event.is_some() {
                break;
            }
        }
        let poll = client.poll(since_boot());
        if let Some(message) = poll.send {
            socket.send(&message).map_err(failed)?;
        }
        self.state = Some(client.state());
        match event {
            Some(Event::Bound(lease)) => {
                (self.client, self.renewing) = (None, false);
                self.take(lease, onto, kernel)?;
                return Ok(None);
            }
            Some(Event::Informed(information)) => {
                (self.client, self.renewing, self.information) = (None, false, Some(information));
                return Ok(None);
            }
            Some(Event::Refused) => self.lose(onto.on, onto.before, kernel)?,
            // RFC 8415 §18.2.10.1: when the valid lifetime is over, the address is gone.
            None if self.lease.as_ref().is_some_and(|(lease, _)| since_boot() >= lease.ends_at()) => {
                self.lose(onto.on, onto.before, kernel)?;
            }
            None => {}
        }
        Ok(Some(poll.wake))
    }

    fn take(&mut self, lease: Lease, onto: &Onto6<'_>, kernel: &mut Kernel) -> Result<(), NetworkError> {
        let same = self.lease.as_ref().filter(|(before, _)| before.address == lease.address).map(|(_, prefix)| *prefix);
        if same.is_none() {
            self.lose(onto.on, onto.before, kernel)?;
        }
        let prefix = same.or_else(|| self.routers.with_network(lease.address, since_boot()));
        let Some(prefix) = prefix else { return Ok(()) };
        // To set an address that was there before would give it the end of our lease.
        if !onto.before.is_some_and(|before| before.has(lease.address.into())) {
            kernel.address6(onto.on, prefix, lease.preferred, lease.valid)?;
        }
        self.lease = Some((lease, prefix));
        Ok(())
    }

    /// Removes the leased address.
    pub(super) fn lose(
        &mut self,
        on: On<'_>,
        before: Option<&Before>,
        kernel: &mut Kernel,
    ) -> Result<(), NetworkError> {
        self.ready = false;
        let Some((_, prefix)) = self.lease.take() else { return Ok(()) };
        if before.is_some_and(|before| before.has(prefix.address())) { Ok(()) } else { kernel.forget(on, prefix) }
    }

    /// Asks for more time when it is time to, and for information that is old.
    pub(super) fn renew(&mut self, asker: Option<Asker>, now: Duration) {
        if self.client.is_some() || self.renew_at().is_none_or(|at| now < at) {
            return;
        }
        self.renewing = true;
        self.client = asker.map(|asker| match &self.lease {
            Some((lease, _)) => (Client::renewing(asker, lease, random(), now), Wanted::Address, now),
            None => (Client::informing(asker, random(), now), Wanted::Information, now),
        });
    }

    /// Whether the client waits for more time from a server, or for another lease after it lost one.
    pub(super) fn is_renewing(&self) -> bool {
        self.renewing && self.client.is_some()
    }

    /// When somebody has to call [`Six::renew`], since boot. At once as long as a server is asked.
    pub(super) fn renew_at(&self) -> Option<Duration> {
        if self.is_renewing() {
            return Some(Duration::ZERO);
        }
        let information = self.information.as_ref().filter(|_| self.lease.is_none()).map(|known| known.until);
        self.lease.as_ref().map(|(lease, _)| lease.renew_at()).or(information)
    }

    /// The sockets on which answers arrive.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let asking = self.socket.iter().filter(|_| self.client.is_some());
        self.heard.iter().chain(asking).map(AsFd::as_fd)
    }

    /// For the next stage. `asker`: who would ask.
    pub(super) fn given(&self, asker: Option<Asker>) -> Given6 {
        let lease = self.lease.as_ref().filter(|_| self.ready);
        let (mut dns, mut search) = (Vec::new(), Vec::new());
        if let Some((lease, _)) = lease {
            (dns, search) = (lease.dns.clone(), lease.search.clone());
        } else if let Some(known) = &self.information {
            (dns, search) = (known.dns.clone(), known.search.clone());
        }
        Given6 {
            identity: asker.map(|asker| asker.identity),
            address: lease.map(|(_, prefix)| *prefix),
            dns,
            search,
            managed: self.routers.managed(),
            nat64: self.routers.nat64(since_boot()),
        }
    }

    /// What was tried, in words.
    pub(super) fn report(&self, config: &LinkConfig) -> Vec<String> {
        let mut words = Vec::new();
        match &self.state {
            Some(state) => words.push(format!("DHCPv6: {state}")),
            None if config.dhcp6 => words.push("DHCPv6: waits for a link-local address".to_owned()),
            None => {}
        }
        if self.routers.heard() && !self.routers.lead_out(since_boot()) {
            words.push("routers advertise, but none is a way out (lifetime 0)".to_owned());
        }
        words
    }
}

fn v6(prefix: Prefix) -> Option<Ipv6Addr> {
    match prefix.address() {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

pub(super) const DHCP6: &str = "asking for an address by DHCPv6";
const ROUTERS: &str = "hearing router advertisements";
