//! Brings up all links that the payload wants at the same time, and uses the first that works, so that a dead link
//! never delays a live one. Waits in one place, for all links at once, until a deadline. Never touches a link that the
//! plan does not want.

mod told;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::before::{Left, given_back};
use super::contender::{Asked, Contender, GRACE, Way};
use super::kernel::Kernel;
use super::report::LinkReport;
use super::stack::{Pass, Stack};
use super::{AppliedLink, Network, NetworkError, packet};
use crate::facts::{self, LinkFacts, Udev};
use crate::machine;
use crate::neighbour;
use crate::netlink::Netlink;
use crate::netlink::message::{Answer, GROUP_IPV6_ADDRESS, GROUP_LINK, GROUP_ND_OPTIONS, LinkMessage};
use crate::order;
use crate::payload::{HostName, InterfaceName, Match};
use crate::plan::{LinkPlan, NetworkPlan};
use crate::smbios::HostInterface;
use crate::sys;
use crate::time::{Deadline, since_boot};

/// How long udevd may take to name a link. After that the link is used under the name that it has.
const UDEV_WAIT: Duration = Duration::from_secs(10);
/// After this long without a usable link the console is told why. It is told again each time that the wait has doubled.
const NOTICE: Duration = Duration::from_secs(5);

/// How many times in a row links are made. A plan has fewer layers.
const STEPS: usize = 64;

/// How long a server has to renew a lease before the links are looked at again.
const RENEW: Duration = Duration::from_secs(10);

/// The links of a plan, from their first appearance until the hand-over.
pub struct Race<'a> {
    plan: &'a NetworkPlan,
    hostname: Option<&'a HostName>,
    root: &'a Path,
    /// The machine's own UUID, by which DHCPv6 knows it.
    uuid: Option<[u8; 16]>,
    begun: Duration,
    news: Netlink,
    kernel: Kernel,
    udev: Udev,
    /// Links that udevd has not named yet.
    unnamed: Vec<Unnamed>,
    /// The interfaces that lead to the management controller, according to SMBIOS.
    controllers: Vec<HostInterface>,
    /// Links that are not tried because they lead to the management controller, each with the plan's entry that would
    /// want it.
    left: Vec<(usize, LinkFacts)>,
    contenders: Vec<Contender>,
    /// The links that are made, and those that they stand on.
    stack: Stack,
    /// Everything that can be used, in the order in which it became usable.
    gains: Vec<(u32, Way)>,
    /// Links that were usable when the caller asked for one more. It seems that they do not lead to a server.
    tried: Vec<u32>,
    buffer: Vec<u8>,
    /// The links are used for a while only, until this descriptor is readable.
    stop: Option<BorrowedFd<'a>>,
}

/// A link that the plan wants and that udevd has not named yet.
struct Unnamed {
    /// Index of its entry in the plan.
    entry: usize,
    facts: LinkFacts,
    /// When the link was first seen.
    since: Duration,
}

/// The purpose of a look at the links.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// To find one more way to the servers.
    Gain,
    /// To keep what is in use. Links that are not in use are left as they are: they would put their routes in the place
    /// of routes that are in use.
    Keep,
}

impl Look {
    /// Whether this look drives the link.
    fn concerns(self, link: &Contender) -> bool {
        self == Look::Gain || link.is_renewing()
    }
}

impl<'a> Race<'a> {
    /// Opens the sockets. Brings up no link yet.
    pub fn new(
        plan: &'a NetworkPlan,
        hostname: Option<&'a HostName>,
        root: &'a Path,
    ) -> Result<Race<'a>, NetworkError> {
        Ok(Race {
            plan,
            hostname,
            root,
            uuid: machine::dmi(root).uuid,
            begun: since_boot(),
            // Opened before any link goes up, so that no change is missed.
            news: Netlink::open(GROUP_LINK | GROUP_IPV6_ADDRESS | GROUP_ND_OPTIONS).map_err(NetworkError::Netlink)?,
            kernel: Kernel::open()?,
            udev: Udev::watch(root).map_err(NetworkError::Facts)?,
            unnamed: Vec::new(),
            controllers: facts::host_interfaces(root),
            left: Vec::new(),
            contenders: Vec::new(),
            stack: Stack::default(),
            gains: Vec::new(),
            tried: Vec::new(),
            buffer: vec![0; packet::BUFFER],
            stop: None,
        })
    }

    /// The same for a network that is used for a while and then given back ([`Race::give_back`]). It writes no resolv.conf.
    /// Nothing is waited for once `stop` is readable.
    pub fn for_a_while(plan: &'a NetworkPlan, root: &'a Path, stop: BorrowedFd<'a>) -> Result<Race<'a>, NetworkError> {
        Ok(Race { stop: Some(stop), ..Race::new(plan, None, root)? })
    }

    /// Waits until one more thing can be used: the first link, a second link, or a second address of the first. Returns
    /// false when the deadline passes before that. `notice` is called when it takes long.
    pub fn next(&mut self, deadline: Deadline, notice: &mut dyn FnMut(&[LinkReport])) -> Result<bool, NetworkError> {
        let mut noticed = (since_boot(), NOTICE);
        self.tried = self.used();
        loop {
            let mut wake = self.look(Look::Gain)?;
            if self.pass_on()? {
                wake = self.look(Look::Gain)?;
            }
            if self.gained() {
                self.name_servers()?;
                return Ok(true);
            }
            if deadline.expired() || self.is_stopped() {
                return Ok(false);
            }
            if since_boot() >= noticed.0.saturating_add(noticed.1) {
                notice(&self.report());
                noticed.1 = noticed.1.saturating_mul(2);
            }
            let wake = wake.map_or(deadline, |wake| deadline.at(wake));
            self.wait(Look::Gain, wake.at(noticed.0.saturating_add(noticed.1)))?;
        }
    }

    /// Renews the leases that are half over, as far as their servers answer by the deadline.
    pub fn renew(&mut self, deadline: Deadline) -> Result<(), NetworkError> {
        let now = since_boot();
        self.contenders.iter_mut().for_each(|link| link.renew(now));
        loop {
            let wake = self.look(Look::Keep)?;
            if !self.contenders.iter().any(Contender::is_renewing) || deadline.expired() || self.is_stopped() {
                // The server may name other name servers than last time.
                return self.name_servers();
            }
            self.wait(Look::Keep, wake.map_or(deadline, |wake| deadline.at(wake)))?;
        }
    }

    /// Keeps what can be used until the deadline, or until the caller says stop: renews leases when it is time to, and where no link
    /// is left that can be used, because it was pulled out, takes one that comes.
    pub fn keep(&mut self, deadline: Deadline) -> Result<(), NetworkError> {
        while !deadline.expired() && !self.is_stopped() {
            if self.renew_due(deadline)? {
                continue;
            }
            let due = self.renew_at();
            // The look before may have lost the last one.
            self.look(Look::Keep)?;
            let look = if self.contenders.iter().any(Contender::is_used) { Look::Keep } else { Look::Gain };
            let wake = if look == Look::Gain { self.look(look)? } else { None };
            let until = [wake, due].into_iter().flatten().min();
            self.wait(look, until.map_or(deadline, |until| deadline.at(until)))?;
        }
        Ok(())
    }

    /// Renews the leases for which it is time. Whether there were any.
    pub fn renew_due(&mut self, deadline: Deadline) -> Result<bool, NetworkError> {
        let is_due = self.renew_at().is_some_and(|at| since_boot() >= at);
        if is_due {
            self.renew(deadline.at_most(RENEW))?;
        }
        Ok(is_due)
    }

    /// Ends the race. No link takes another link's place any more, and the routes of leases are left as the next stage
    /// would make them.
    pub fn settle(&mut self) -> Result<(), NetworkError> {
        self.stack.settle(self.plan, &self.used(), &mut self.kernel);
        self.contenders.iter_mut().try_for_each(|link| link.settle(&mut self.kernel))
    }

    /// Ends the race, and gives its links back as they were. A link that `next` wants stays up for it, and so does the link
    /// `kept`. Returns what did not work, in words.
    pub fn give_back(&mut self, next: Option<&NetworkPlan>, kept: Option<&InterfaceName>) -> Vec<String> {
        // For what is to be undone, the links have to be known as they are now.
        let _ = self.look(Look::Keep);
        let mut failed = Vec::new();
        for link in &mut self.contenders {
            let entry = next.and_then(|plan| plan.links.iter().find(|entry| entry.wants(&link.facts)));
            let left = match entry {
                None if kept == Some(&link.facts.name) => Left::Up,
                None => Left::Down,
                Some(entry) if entry.config.has_ipv6() => Left::UpForIpv6,
                Some(_) => Left::Up,
            };
            let done = link.give_back(left, &mut self.kernel);
            failed.extend(done.err().map(|error| given_back(&link.facts.name, &error)));
        }
        failed.extend(self.stack.give_back(self.plan, next, kept, &mut self.kernel));
        failed
    }

    /// When the next lease has to be renewed, since boot.
    pub fn renew_at(&self) -> Option<Duration> {
        self.contenders.iter().filter_map(Contender::renew_at).min()
    }

    /// The network that can be used now, for the hand-over.
    pub fn network(&mut self) -> Result<Network, NetworkError> {
        self.look(Look::Keep)?;
        let mut links: Vec<(usize, AppliedLink)> = Vec::new();
        for link in self.contenders.iter().filter(|link| link.is_used()) {
            // The link that became usable last is the one that the check-in went over.
            let last = self.gains.iter().rposition(|(index, _)| *index == link.facts.index);
            links.push((last.unwrap_or(0), link.applied()));
        }
        order::sort(&mut links, |(one, _), (other, _)| one > other);
        let named = |link: &&Contender| {
            let entry = self.plan.links.get(link.entry);
            !link.is_used() && entry.is_some_and(|entry| matches!(entry.matching, Match::Mac(_) | Match::Name(_)))
        };
        let mut idle: Vec<AppliedLink> = self.contenders.iter().filter(named).map(Contender::applied).collect();
        idle.extend(self.stack.pending_links(self.plan));
        let standing = self.stack.standing(self.plan, &self.used());
        Ok(Network { links: links.into_iter().map(|(_, link)| link).collect(), idle, standing })
    }

    /// Looks at everything once, and acts on it. Returns when to look again.
    fn look(&mut self, look: Look) -> Result<Option<Duration>, NetworkError> {
        self.udev.drain();
        for answer in self.news.news().map_err(NetworkError::Netlink)? {
            // The kernel reports the name servers of a router advertisement once, and cannot be asked for them later.
            if let Answer::UserOptions(body) = answer
                && let Some(options) = neighbour::user_options(&body)
                && let Some(link) = self.contenders.iter_mut().find(|link| link.facts.index == options.index)
            {
                link.advertised(options);
            }
        }
        let mut wakes = Vec::new();
        let messages = self.messages(look, &mut wakes)?;
        let is_there = |index: u32| messages.iter().any(|message| message.index == index);
        self.contenders.retain(|link| is_there(link.facts.index));
        self.unnamed.retain(|link| is_there(link.facts.index));
        self.left.retain(|(_, link)| is_there(link.index));
        for message in messages {
            let index = message.index;
            if look == Look::Gain && !self.contenders.iter().any(|link| link.facts.index == index) {
                wakes.extend(self.join(&message));
            }
            if let Some(link) = self.contenders.iter_mut().find(|link| link.facts.index == index) {
                link.tend(message, self.root, &mut self.kernel)?;
            }
        }
        if self.plan.links.iter().any(|entry| entry.config.has_ipv6()) {
            let addresses = self.kernel.addresses6()?;
            self.contenders.iter_mut().try_for_each(|link| link.addresses(&addresses, &mut self.kernel))?;
        }
        for link in self.contenders.iter_mut().filter(|link| look.concerns(link)) {
            wakes.extend(link.drive(&mut self.buffer, &mut self.kernel)?);
        }
        if look == Look::Gain {
            wakes.extend(self.entitle()?);
        }
        Ok(wakes.into_iter().min())
    }

    /// The links of the kernel, after those were made that can be.
    fn messages(&mut self, look: Look, wakes: &mut Vec<Duration>) -> Result<Vec<LinkMessage>, NetworkError> {
        let mut messages = self.kernel.links()?;
        if look == Look::Keep || self.plan.layers.is_empty() {
            return Ok(messages);
        }
        // Each time at least one more link is made, or gets one more port.
        for _ in 0..STEPS {
            let (plan, root, controllers) = (self.plan, self.root, &self.controllers);
            let (udev, unnamed) = (&self.udev, &mut self.unnamed);
            let mut facts = |message: &LinkMessage| {
                let link = facts::link_facts(message, root, controllers)?;
                plan.layers.iter().find(|layer| layer.what.found_in(std::slice::from_ref(&link)).next().is_some())?;
                match unnamed_until(udev, unnamed, 0, &link) {
                    Some(until) => {
                        wakes.push(until);
                        None
                    }
                    None => Some(link),
                }
            };
            let kernel = &mut self.kernel;
            let mut pass = Pass { plan, root, messages: &messages, kernel, facts: &mut facts };
            if !self.stack.advance(&mut pass)? {
                break;
            }
            messages = self.kernel.links()?;
        }
        Ok(messages)
    }

    /// Admits a link that the plan wants and that udevd is done with. Otherwise returns when to look again.
    fn join(&mut self, message: &LinkMessage) -> Option<Duration> {
        let link = facts::link_facts(message, self.root, &self.controllers)?;
        let made = self.stack.layer_of(self.plan, link.index);
        if made.is_some_and(|made| !self.stack.is_open(self.plan, made)) || self.stack.keeps(self.plan, &link) {
            return None;
        }
        let is_wanted = |entry: &LinkPlan| if made.is_some() { entry.made == made } else { entry.wants(&link) };
        let Some((entry, wanted)) = (0..).zip(&self.plan.links).find(|(_, entry)| is_wanted(entry)) else {
            self.leave(link);
            return None;
        };
        if !self.stack.carries(link.index)
            && let Some(until) = unnamed_until(&self.udev, &mut self.unnamed, entry, &link)
        {
            return Some(until);
        }
        let asked = Asked {
            config: wanted.config.clone(),
            contested: self.plan.contested(),
            any: wanted.matching == Match::AnyWithCarrier,
            servers: self.plan.servers.clone(),
            hostname: self.hostname.cloned(),
            uuid: self.uuid,
            for_a_while: self.stop.is_some(),
        };
        self.contenders.push(Contender::new(entry, asked, link));
        None
    }

    /// Remembers, for the report, a link that is not tried because it leads to the management controller.
    fn leave(&mut self, link: LinkFacts) {
        let any = self.plan.links.iter().position(|entry| entry.matching == Match::AnyWithCarrier);
        if let Some(entry) = any.filter(|_| link.controller) {
            self.left.retain(|(_, left)| left.index != link.index);
            self.left.push((entry, link));
        }
    }

    /// Gives each entry's static configuration to the first of the entry's links that shows a sign of life. If no new
    /// link is usable and no neighbour has answered for a while, the most wanted link with carrier gets its
    /// configuration, unless another link of the entry has it: a silent neighbour does not prove a dead link.
    fn entitle(&mut self) -> Result<Option<Duration>, NetworkError> {
        for entry in self.entries() {
            // The kernel may refuse the configuration on one link. Then the next link gets its turn.
            while !self.contenders.iter().any(|link| link.entry == entry && link.holds())
                && let Some(link) = next_in_turn(&mut self.contenders, entry)
            {
                link.entitle(&mut self.kernel)?;
            }
        }
        if self.contenders.iter().any(|link| link.is_used() && !self.tried.contains(&link.facts.index)) {
            return Ok(None);
        }
        let held: Vec<usize> = self.contenders.iter().filter(|link| link.holds()).map(|link| link.entry).collect();
        let free = self.contenders.iter_mut().filter(|link| !held.contains(&link.entry));
        let silent = free.filter_map(|link| link.waiting().map(|since| (since, link)));
        let Some((since, link)) = silent.min_by_key(|(since, link)| (link.entry, *since)) else { return Ok(None) };
        let until = since.saturating_add(GRACE);
        if since_boot() < until {
            return Ok(Some(until));
        }
        link.entitle(&mut self.kernel)?;
        Ok(None)
    }

    /// Moves an entry's static configuration on to the next link that would do, if the link that has it was of no use.
    /// Returns whether any was moved.
    fn pass_on(&mut self) -> Result<bool, NetworkError> {
        let mut passed = false;
        for entry in self.entries() {
            let Some(next) = next_in_turn(&mut self.contenders, entry).map(|link| link.facts.index) else { continue };
            let mut links = self.contenders.iter_mut().filter(|link| link.entry == entry);
            let Some(before) = links.find(|link| link.holds() && self.tried.contains(&link.facts.index)) else {
                continue;
            };
            before.release(&mut self.kernel)?;
            if let Some(link) = self.contenders.iter_mut().find(|link| link.facts.index == next) {
                link.entitle(&mut self.kernel)?;
                passed = true;
            }
        }
        Ok(passed)
    }

    fn used(&self) -> Vec<u32> {
        self.contenders.iter().filter(|link| link.is_used()).map(|link| link.facts.index).collect()
    }

    fn is_stopped(&self) -> bool {
        let readable = |stop| nix::poll::poll(&mut [PollFd::new(stop, PollFlags::POLLIN)], PollTimeout::ZERO);
        self.stop.is_some_and(|stop| readable(stop).is_ok_and(|count| count > 0))
    }

    fn entries(&self) -> std::ops::Range<usize> {
        0..self.plan.links.len()
    }

    fn gained(&mut self) -> bool {
        // A way that was lost may come back, and is a gain then.
        let has = |index: u32, way: Way| {
            self.contenders.iter().any(|link| link.facts.index == index && link.ways.contains(&way))
        };
        self.gains.retain(|(index, way)| has(*index, *way));
        let before = self.gains.len();
        for link in &self.contenders {
            for way in &link.ways {
                let gain = (link.facts.index, *way);
                if !self.gains.contains(&gain) {
                    self.gains.push(gain);
                }
            }
        }
        self.gains.len() > before
    }

    fn wait(&mut self, look: Look, deadline: Deadline) -> Result<(), NetworkError> {
        let mut fds = vec![PollFd::new(self.news.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.stop.map(|stop| PollFd::new(stop, PollFlags::POLLIN)));
        fds.extend(self.udev.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        for socket in self.contenders.iter().filter(|link| look.concerns(link)).flat_map(Contender::sockets) {
            fds.push(PollFd::new(socket, PollFlags::POLLIN));
        }
        loop {
            let pending = self.stack.wake(self.plan).filter(|_| look == Look::Gain);
            let until = pending.map_or(deadline, |wake| deadline.at(wake));
            let is_ready = sys::poll(&mut fds, until).map_err(NetworkError::Wait)?;
            if is_ready || deadline.expired() || self.stack.has_agreed(self.plan, &mut self.kernel) {
                return Ok(());
            }
        }
    }
}

/// When a link may be used that udevd has not named yet.
fn unnamed_until(udev: &Udev, unnamed: &mut Vec<Unnamed>, entry: usize, link: &LinkFacts) -> Option<Duration> {
    let since = unnamed.iter().find(|seen| seen.facts.index == link.index).map(|seen| seen.since);
    unnamed.retain(|seen| seen.facts.index != link.index);
    if udev.is_done_with(link.index) {
        return None;
    }
    let now = since_boot();
    let since = since.unwrap_or(now);
    let until = since.saturating_add(UDEV_WAIT);
    if now >= until {
        return None;
    }
    unnamed.push(Unnamed { entry, facts: link.clone(), since });
    Some(until)
}

fn next_in_turn(contenders: &mut [Contender], entry: usize) -> Option<&mut Contender> {
    contenders.iter_mut().filter(|link| link.entry == entry && link.could_hold()).min_by_key(|link| link.turns)
}
