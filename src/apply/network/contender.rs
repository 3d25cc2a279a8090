//! One link in the race: what was done to it, what it waits for, and what it can be used for now. Never looks at the
//! other links: the race tells it when it may take its static addresses.

mod told;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use super::NetworkError;
use super::before::{Before, Left};
use super::heard::Ear;
use super::kernel::{self, Address6, Kernel, On};
use super::lease::{Leased, Onto};
use super::probe::Probe;
use super::six::{Onto6, Six};
use crate::dhcp4::Asker;
use crate::dhcp6::{self, Identity};
use crate::facts::LinkFacts;
use crate::neighbour::{Names, UserOptions};
use crate::netlink::message::{IFF_UP, LinkMessage};
use crate::payload::{HardwareAddress, HostName, Prefix};
use crate::plan::LinkConfig;
use crate::time::since_boot;

/// How long a link with carrier has to show a sign of life before it gets its static addresses without one: longer than
/// a second question takes, shorter than an operator's patience.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// How long a link with carrier is of no use before its switch is listened for.
const LISTEN: Duration = Duration::from_secs(2);

/// What a link can be used for. Each way is a gain when it appears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// The link has carrier, and the payload asks for nothing else.
    Bare,
    Static4,
    Static6,
    Dhcp4,
    Slaac,
    Dhcp6,
    /// Name servers by DHCPv6, without an address.
    Names,
}

impl Way {
    pub(super) fn is_static(self) -> bool {
        matches!(self, Way::Static4 | Way::Static6)
    }
}

pub(super) struct Contender {
    /// Index of its entry in the plan.
    pub(super) entry: usize,
    pub(super) facts: LinkFacts,
    /// What the link can be used for now.
    pub(super) ways: Vec<Way>,
    /// How often the link has had the static configuration of its entry.
    pub(super) turns: u32,
    asked: Asked,
    message: LinkMessage,
    /// What the link was like, if it is used for a while only.
    before: Option<Before>,
    /// The link was brought up.
    up: bool,
    /// Since when packets can pass; `None`: they cannot.
    carrier: Option<Duration>,
    leased: Leased,
    six: Six,
    probe: Option<Probe>,
    /// A neighbour answered on this link, or there is no neighbour to ask for.
    alive: bool,
    /// The link may have the static configuration of its entry. Only one link of an entry has the static addresses at a
    /// time.
    entitled: bool,
    /// The static configuration was applied.
    applied: bool,
    learned: Vec<Prefix>,
    advertised: Names,
    /// The error that ended the race for this link. The other links go on.
    trouble: Option<NetworkError>,
    /// Listens for the switch. Opened once, if the link has been of no use for a while.
    ear: Option<io::Result<Ear>>,
}

/// What the plan asks of this link.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) config: LinkConfig,
    /// Other links may be the right one.
    pub(super) contested: bool,
    /// The payload asks for any link with carrier, not for this one.
    pub(super) any: bool,
    pub(super) servers: Vec<IpAddr>,
    pub(super) hostname: Option<HostName>,
    /// The machine's UUID, for its DUID.
    pub(super) uuid: Option<[u8; 16]>,
    /// The link is used for a while, and then given back as it was.
    pub(super) for_a_while: bool,
}

impl Contender {
    pub(super) fn new(entry: usize, asked: Asked, facts: LinkFacts) -> Contender {
        Contender {
            entry,
            facts,
            ways: Vec::new(),
            turns: 0,
            message: LinkMessage::default(),
            before: None,
            up: false,
            carrier: None,
            leased: Leased::default(),
            six: Six::default(),
            probe: None,
            alive: false,
            entitled: !asked.contested || asked.config.addresses.is_empty(),
            asked,
            applied: false,
            learned: Vec::new(),
            advertised: Names::default(),
            trouble: None,
            ear: None,
        }
    }

    /// Records the link's present state, and acts on it. If other links may be the right one and the kernel refuses
    /// something on this link, the race ends for this link only.
    pub(super) fn tend(&mut self, message: LinkMessage, root: &Path, kernel: &mut Kernel) -> Result<(), NetworkError> {
        if let Some(name) = &message.name {
            self.facts.name = name.clone();
        }
        self.message = message;
        self.bear(kernel, |link, kernel| link.advance(root, kernel)).map(drop)
    }

    fn bear<T>(
        &mut self,
        kernel: &mut Kernel,
        act: impl FnOnce(&mut Contender, &mut Kernel) -> Result<T, NetworkError>,
    ) -> Result<Option<T>, NetworkError> {
        if self.trouble.is_some() {
            return Ok(None);
        }
        match act(self, kernel) {
            Ok(done) => Ok(Some(done)),
            Err(error) if self.asked.contested => {
                self.trouble = Some(error);
                self.leased.close();
                self.six.close();
                self.probe = None;
                // Another link gets the addresses. Errors of the clean-up are ignored: the first error is the one to
                // report.
                if self.entitled {
                    let _ = self.withdraw(kernel);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn advance(&mut self, root: &Path, kernel: &mut Kernel) -> Result<(), NetworkError> {
        let config = &self.asked.config;
        let on = On { index: self.facts.index, name: &self.facts.name };
        if !self.up {
            if self.asked.for_a_while && self.before.is_none() {
                self.before = Some(Before::of(&self.message, on, root, kernel)?);
            }
            if let Some(mtu) = config.mtu {
                kernel.mtu(on, mtu)?;
            }
            if config.has_ipv6() && self.before.as_ref().is_none_or(Before::ipv6_is_free) {
                kernel::before_ipv6(root, on.name, config.slaac, config.dhcp6);
            }
            if config.dhcp4 {
                self.leased.open(on)?;
            }
            if config.slaac || config.dhcp6 {
                self.six.open(on, self.message.flags & IFF_UP != 0)?;
            }
            kernel.up(on)?;
            self.up = true;
        }
        let now = since_boot();
        match (self.message.operational(), self.carrier) {
            (true, None) => {
                self.carrier = Some(now);
                self.leased.begin(self.asker(), now);
                if !self.entitled && !self.alive {
                    let probe = Probe::new(on.index, &self.message.address, config, &self.asked.servers, now);
                    self.probe = probe.map_err(|source| on.failed(NEIGHBOURS, source))?;
                    // Without a neighbour to ask for, carrier is enough.
                    self.alive = self.probe.is_none() && !self.is_doubtful();
                }
            }
            (false, Some(_)) => {
                self.leased.pause();
                self.six.pause();
                (self.carrier, self.probe) = (None, None);
            }
            _ => {}
        }
        self.apply(kernel)
    }

    /// Applies the static configuration once the link may have it. An only link may have it before there is carrier, so
    /// that an error of the kernel is reported at once and not after a wait for a cable.
    fn apply(&mut self, kernel: &mut Kernel) -> Result<(), NetworkError> {
        let config = &self.asked.config;
        let on = On { index: self.facts.index, name: &self.facts.name };
        if self.entitled && !self.applied {
            for prefix in &config.addresses {
                kernel.address(on, *prefix, None)?;
            }
            for route in config.routes_in_order() {
                kernel.route(on, route, None)?;
            }
            self.applied = true;
        }
        if self.applied && self.carrier.is_some() {
            if config.addresses.iter().any(|prefix| prefix.address().is_ipv4()) {
                self.gain(Way::Static4);
            } else if config.addresses.is_empty()
                && !config.dhcp4
                && !config.slaac
                && !config.dhcp6
                && !self.is_doubtful()
            {
                self.gain(Way::Bare);
            }
        }
        Ok(())
    }

    fn gain(&mut self, way: Way) {
        if !self.ways.contains(&way) {
            self.ways.push(way);
            self.ear.iter_mut().flatten().for_each(Ear::calm);
        }
    }

    /// Records the link's IPv6 addresses, as the kernel lists them.
    pub(super) fn addresses(&mut self, all: &[Address6], kernel: &mut Kernel) -> Result<(), NetworkError> {
        let mine = || all.iter().filter(|address| address.index == self.facts.index && address.global);
        let is_static = |address: &&Address6| self.asked.config.addresses.contains(&address.prefix);
        if let Some(taken) = mine().filter(is_static).find(|address| address.duplicate) {
            let error = NetworkError::Duplicate { prefix: taken.prefix, name: self.facts.name.clone() };
            return self.bear(kernel, |_, _| Err(error)).map(|_: Option<()>| ());
        }
        let ready = |address: &&Address6| !address.tentative && !address.duplicate;
        let usable = self.carrier.is_some();
        let static6 = mine().filter(is_static).any(|address| ready(&address));
        self.learned =
            mine().filter(|address| !is_static(address) && ready(address)).map(|found| found.prefix).collect();
        self.addresses6(all, kernel)?;
        let (own, six) = (&mut self.learned, &self.six);
        own.retain(|prefix| !six.has_leased(*prefix));
        if usable && self.applied && static6 {
            self.gain(Way::Static6);
        }
        let named = !self.asked.config.dns.is_empty() || self.advertised.dns(since_boot()).next().is_some();
        let awaited = !named && self.six.names_awaited(since_boot()).is_some();
        if usable && self.asked.config.slaac && !self.learned.is_empty() && !awaited {
            self.gain(Way::Slaac);
        }
        Ok(())
    }

    /// Records what the kernel says of the leased IPv6 address. If another machine has it, the server is told.
    fn addresses6(&mut self, all: &[Address6], kernel: &mut Kernel) -> Result<(), NetworkError> {
        let mine = all.iter().filter(|address| address.index == self.facts.index);
        let mut six = std::mem::take(&mut self.six);
        let onto = self.onto6();
        let taken = six.addresses(&onto, mine);
        let done = if taken { six.lose(onto.on, onto.before, kernel) } else { Ok(()) };
        self.six = six;
        if self.six.has_address() && self.carrier.is_some() {
            self.gain(Way::Dhcp6);
        } else {
            self.ways.retain(|way| *way != Way::Dhcp6);
        }
        self.bear(kernel, |_, _| done).map(drop)
    }

    fn onto6(&self) -> Onto6<'_> {
        Onto6 {
            on: On { index: self.facts.index, name: &self.facts.name },
            config: &self.asked.config,
            asker: self.asker6(),
            carrier: self.carrier.is_some(),
            before: self.before.as_ref(),
        }
    }

    /// `None`: DHCPv6 has no room for the link's hardware address.
    fn asker6(&self) -> Option<dhcp6::Asker> {
        let mac = HardwareAddress::new(&self.message.address)?;
        let identity = Identity::new(self.asked.uuid.as_ref(), self.message.hardware, &mac);
        Some(dhcp6::Asker { identity, hostname: self.asked.hostname.clone() })
    }

    fn work6(&mut self, buffer: &mut [u8], kernel: &mut Kernel) -> Result<Option<Duration>, NetworkError> {
        let mut six = std::mem::take(&mut self.six);
        let wake = six.work(&self.onto6(), buffer, kernel);
        self.six = six;
        // Where there are no other names, this is one more reason to try again.
        if self.six.has_information() && self.is_used() {
            self.gain(Way::Names);
        }
        let awaited = self.six.names_awaited(since_boot()).filter(|_| self.asked.config.slaac);
        Ok([wake?, awaited].into_iter().flatten().min())
    }

    /// Records name servers and search domains that a router advertised.
    pub(super) fn advertised(&mut self, options: UserOptions) {
        self.advertised.take(options, since_boot());
    }

    /// Does what is due, and reads what has arrived. Returns when something is due next.
    pub(super) fn drive(&mut self, buffer: &mut [u8], kernel: &mut Kernel) -> Result<Option<Duration>, NetworkError> {
        Ok(self.bear(kernel, |link, kernel| link.work(buffer, kernel))?.flatten())
    }

    fn work(&mut self, buffer: &mut [u8], kernel: &mut Kernel) -> Result<Option<Duration>, NetworkError> {
        let asks = self.ask_for_lease(buffer, kernel)?;
        let asks6 = self.work6(buffer, kernel)?;
        let probes = self.ask_neighbours(buffer)?;
        let listens = self.listen(buffer);
        Ok([asks, asks6, probes, listens].into_iter().flatten().min())
    }

    /// Listens for the switch on a link that has carrier and is of no use yet. A link that works is not burdened with it.
    fn listen(&mut self, buffer: &mut [u8]) -> Option<Duration> {
        if let Some(ear) = &mut self.ear {
            ear.iter_mut().for_each(|ear| ear.drain(buffer));
            return None;
        }
        let from = self.carrier.filter(|_| self.ways.is_empty())?.saturating_add(LISTEN);
        if since_boot() < from {
            return Some(from);
        }
        self.ear = Some(Ear::open(self.facts.index, self.message.received));
        None
    }

    fn ask_for_lease(&mut self, buffer: &mut [u8], kernel: &mut Kernel) -> Result<Option<Duration>, NetworkError> {
        let onto = Onto {
            on: On { index: self.facts.index, name: &self.facts.name },
            config: &self.asked.config,
            applied: self.applied,
            mtu: self.message.mtu,
            broadcast: &self.message.broadcast,
            before: self.before.as_ref(),
            no_link_local: self.is_doubtful().then_some(DOUBTFUL),
        };
        let wake = self.leased.ask(&onto, buffer, kernel)?;
        match self.leased.lease() {
            Some(_) => self.gain(Way::Dhcp4),
            None => self.ways.retain(|way| *way != Way::Dhcp4),
        }
        Ok(wake)
    }

    /// Leaves the routes of the lease as the next stage would make them.
    pub(super) fn settle(&mut self, kernel: &mut Kernel) -> Result<(), NetworkError> {
        self.bear(kernel, |link, kernel| {
            link.leased.settle(On { index: link.facts.index, name: &link.facts.name }, kernel)
        })
        .map(drop)
    }

    /// Whether the link may lead to nothing but the management controller: a USB link to a single peer, where the
    /// payload asks for any link. On such a link a link-local address is of no use, and the static configuration is not
    /// given without a sign of life.
    fn is_doubtful(&self) -> bool {
        self.asked.any && self.facts.is_usb_peer()
    }

    fn ask_neighbours(&mut self, buffer: &mut [u8]) -> Result<Option<Duration>, NetworkError> {
        let on = On { index: self.facts.index, name: &self.facts.name };
        let Some(probe) = &mut self.probe else { return Ok(None) };
        if !probe.heard(buffer).map_err(|source| on.failed(NEIGHBOURS, source))? {
            return probe.poll(since_boot()).map(Some).map_err(|source| on.failed(NEIGHBOURS, source));
        }
        (self.alive, self.probe) = (true, None);
        Ok(None)
    }

    /// Since when the link has had carrier and no sign of life; `None`: it does not wait for one.
    pub(super) fn waiting(&self) -> Option<Duration> {
        self.carrier.filter(|_| self.probe.is_some() && self.trouble.is_none() && !self.is_doubtful())
    }

    /// Whether the link may have the static configuration of its entry.
    pub(super) fn holds(&self) -> bool {
        self.entitled
    }

    /// Whether the link can be used for anything.
    pub(super) fn is_used(&self) -> bool {
        !self.ways.is_empty()
    }

    /// Whether the link would do for the static configuration of its entry.
    pub(super) fn could_hold(&self) -> bool {
        self.alive && !self.entitled && self.carrier.is_some() && self.trouble.is_none()
    }

    /// Gives the link its static configuration, even if no neighbour has answered.
    pub(super) fn entitle(&mut self, kernel: &mut Kernel) -> Result<(), NetworkError> {
        (self.entitled, self.probe) = (true, None);
        self.turns = self.turns.saturating_add(1);
        self.bear(kernel, Contender::apply).map(drop)
    }

    /// Takes the static addresses and routes away, because another link is to have them.
    pub(super) fn release(&mut self, kernel: &mut Kernel) -> Result<(), NetworkError> {
        self.alive = true;
        self.bear(kernel, Contender::withdraw).map(drop)
    }

    /// Takes the entry's addresses and routes away, even those that were there before this run: an earlier run of the
    /// agent may have left them, and the next link cannot work while this one has the same address and the same route
    /// to its network.
    fn withdraw(&mut self, kernel: &mut Kernel) -> Result<(), NetworkError> {
        (self.entitled, self.applied) = (false, false);
        self.ways.retain(|way| !way.is_static());
        let on = On { index: self.facts.index, name: &self.facts.name };
        let routes = self.asked.config.routes.iter().try_for_each(|route| kernel.drop_route(on, route, None));
        let addresses = self.asked.config.addresses.iter().try_for_each(|prefix| kernel.forget(on, *prefix));
        routes.and(addresses)
    }

    /// Gives the link back as it was before the race. Returns the first error; the rest is done all the same.
    pub(super) fn give_back(&mut self, left: Left, kernel: &mut Kernel) -> Result<(), NetworkError> {
        let Some(before) = self.before.take() else { return Ok(()) };
        let on = On { index: self.facts.index, name: &self.facts.name };
        self.leased.close();
        self.six.close();
        self.ear = None;
        let leased = self.leased.lose(on, Some(&before), kernel);
        let leased = leased.and(self.six.lose(on, Some(&before), kernel));
        let mut fixed = Ok(());
        if std::mem::take(&mut self.applied) {
            let config = &self.asked.config;
            fixed = config.routes.iter().try_for_each(|route| kernel.drop_route(on, route, None));
            let mine = config.addresses.iter().filter(|prefix| !before.had(**prefix));
            fixed = fixed.and(mine.map(|prefix| kernel.forget(on, *prefix)).fold(Ok(()), Result::and));
        }
        (self.ways, self.probe, self.up) = (Vec::new(), None, false);
        leased.and(fixed).and(before.restore(on, &self.message, left, kernel))
    }

    /// Asks the DHCP server for more time when the lease is half over (RFC 2131 §4.4.5).
    pub(super) fn renew(&mut self, now: Duration) {
        self.leased.renew(self.asker(), now);
        self.six.renew(self.asker6(), now);
    }

    /// When the lease is to be renewed, since boot. At once if it is gone, and no other is there.
    pub(super) fn renew_at(&self) -> Option<Duration> {
        let due = [self.leased.renew_at(), self.six.renew_at()];
        due.into_iter().flatten().min().filter(|_| self.trouble.is_none())
    }

    /// Whether the link waits for more time from a DHCP server, or for another lease after it lost one.
    pub(super) fn is_renewing(&self) -> bool {
        self.leased.is_renewing() || self.six.is_renewing()
    }

    /// `None`: DHCP has no room for the link's hardware address.
    fn asker(&self) -> Option<Asker> {
        let mac = HardwareAddress::new(&self.message.address)?;
        let (hardware, client_id) = (self.message.hardware, self.client_id());
        Some(Asker { hardware, mac, client_id, hostname: self.asked.hostname.clone() })
    }

    /// The client identifier of RFC 4361, where the payload asks for one.
    fn client_id(&self) -> Option<Vec<u8>> {
        let mac = HardwareAddress::new(&self.message.address).filter(|_| self.asked.config.duid)?;
        Some(Identity::new(self.asked.uuid.as_ref(), self.message.hardware, &mac).client_id())
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let packets = self.leased.asking().into_iter().chain(self.probe.iter().flat_map(Probe::sockets));
        packets.map(AsFd::as_fd).chain(self.six.sockets())
    }
}

const NEIGHBOURS: &str = "looking for neighbours (ARP, neighbour discovery)";
const DOUBTFUL: &str = "a USB link with a link-local address is taken for the management controller's and not used; match it \
                        by mac, name or driver to use it";
