//! Makes the VLANs, bonds and bridges of a plan, brings up what they stand on, and says when the uppermost can be used. Takes apart what
//! it has made if a part cannot be made, or if the network was there for a while only. A link that was there already is used if it is
//! just as the plan wants it, and is never changed into another.
//!
//! The partner of a bond says of itself that it has agreed; whoever has the cable can say so.

mod apart;
mod told;

use std::path::Path;
use std::time::Duration;

use super::NetworkError;
use super::before::{Before, Left};
use super::kernel::{self, Kernel, On};
use crate::facts::LinkFacts;
use crate::netlink::RequestError;
use crate::netlink::message::{Bond, IFF_UP, LinkMessage, NewLink};
use crate::payload::{BondMode, HardwareAddress, InterfaceName};
use crate::plan::{Layer, NetworkPlan, Under, What, below};
use crate::time::since_boot;
use nix::errno::Errno;

/// How often the kernel is asked about a bond whose partner has not agreed: not every change of its state is announced.
const LACP: Duration = Duration::from_millis(5);
/// The most links of one machine that a VLAN is tried on.
const MANY: usize = 64;

/// The links that are made, and those that they stand on.
#[derive(Default)]
pub(super) struct Stack {
    /// In the order in which they came: what stands on another comes after it.
    places: Vec<Place>,
    /// The names of the links that this run has made.
    made: Vec<InterfaceName>,
    /// What could not be made, and why.
    trouble: Vec<(usize, NetworkError)>,
}

/// A link that is a layer of the plan.
struct Place {
    layer: usize,
    /// For a VLAN the index of the link that carries it, else 0.
    base: u32,
    on: (u32, InterfaceName),
    /// Of a link that the machine has: what it is, and what it was like.
    found: Option<(LinkFacts, Before)>,
    /// The permanent address that its driver gave when it was nobody's port.
    permanent: Option<Vec<u8>>,
    /// This run has made it.
    made: bool,
    /// It was made ready for what stands on it.
    ready: bool,
    /// This run has made it a port.
    joined: bool,
    /// The partner of a bond has agreed.
    agreed: bool,
    /// What the kernel said last.
    seen: LinkMessage,
}

impl Place {
    fn on(&self) -> On<'_> {
        On { index: self.on.0, name: &self.on.1 }
    }
}

/// What one pass over the layers works with.
pub(super) struct Pass<'a> {
    pub(super) plan: &'a NetworkPlan,
    pub(super) root: &'a Path,
    pub(super) messages: &'a [LinkMessage],
    pub(super) kernel: &'a mut Kernel,
    /// A link that may be used; `None`: udevd has not named it yet.
    pub(super) facts: &'a mut dyn FnMut(&LinkMessage) -> Option<LinkFacts>,
}

impl Pass<'_> {
    fn named(&self, name: &InterfaceName) -> Option<&LinkMessage> {
        self.messages.iter().find(|message| message.name.as_ref() == Some(name))
    }

    fn at(&self, index: u32) -> Option<&LinkMessage> {
        self.messages.iter().find(|message| message.index == index)
    }
}

impl Stack {
    /// Makes what can be made now. Whether anything was: the kernel has to be asked for its links again then. The error of the only
    /// network is returned, that of one of several is kept for the report.
    pub(super) fn advance(&mut self, pass: &mut Pass<'_>) -> Result<bool, NetworkError> {
        self.places.retain(|place| pass.messages.iter().any(|message| message.index == place.on.0));
        for place in &mut self.places {
            if let Some(message) = pass.messages.iter().find(|message| message.index == place.on.0) {
                place.seen = message.clone();
                place.on.1 = message.name.clone().unwrap_or_else(|| place.on.1.clone());
            }
        }
        let needed = self.needed(pass.plan);
        let mut changed = false;
        for (index, layer) in (0..).zip(&pass.plan.layers).filter(|(index, _)| needed.contains(index)) {
            let done = match &layer.what {
                What::Found(_) => self.find(index, layer, pass),
                What::Vlan { name, id, parent } => self.vlans(index, layer, (name, *id, *parent), pass),
                What::Bond { name, ports, .. } | What::Bridge { name, ports } => {
                    self.gather(index, layer, name, ports, pass)
                }
            };
            match done {
                Ok(done) => changed |= done,
                Err(error) => {
                    self.trouble.push((index, error));
                    let needed = self.needed(pass.plan);
                    // Errors of the clean-up are ignored: the first error is the one to report.
                    let _ = self.take_apart(pass.plan, &needed, |_| Left::Down, pass.kernel);
                    return match self.trouble.pop() {
                        Some((_, error)) if !pass.plan.contested() => Err(error),
                        kept => {
                            self.trouble.extend(kept);
                            Ok(true)
                        }
                    };
                }
            }
        }
        Ok(changed)
    }

    /// The layers that a network of the plan stands on, and that can be made as far as is known.
    fn needed(&self, plan: &NetworkPlan) -> Vec<usize> {
        let tops = plan.links.iter().filter_map(|link| link.made).map(|top| below(&plan.layers, top));
        let sound = |layers: &Vec<usize>| !self.trouble.iter().any(|(layer, _)| layers.contains(layer));
        tops.filter(sound).flatten().collect()
    }

    fn of(&self, layer: usize) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(move |place| place.layer == layer)
    }

    /// Links of the machine that a layer matches.
    fn find(&mut self, index: usize, layer: &Layer, pass: &mut Pass<'_>) -> Result<bool, NetworkError> {
        for message in pass.messages {
            if !layer.what.is_many() && self.of(index).next().is_some() {
                break;
            }
            let is_port = |place: &Place| {
                pass.plan.layers.get(place.layer).is_none_or(|other| matches!(other.under, Under::Master(_)))
            };
            let mut used = self.places.iter().filter(|place| place.on.0 == message.index);
            if used.any(|place| place.layer == index || layer.under != Under::Vlans || is_port(place)) {
                continue;
            }
            let Some(facts) = (pass.facts)(message) else { continue };
            let is_it = layer.what.found_in(std::slice::from_ref(&facts)).next().is_some();
            if !is_it || (layer.what.is_many() && self.keeps(pass.plan, &facts)) {
                continue;
            }
            let on = (message.index, facts.name.clone());
            let before = Before::of(message, On { index: on.0, name: &on.1 }, pass.root, pass.kernel)?;
            self.places.push(Place::new(index, on, message, Some((facts, before)), false));
        }
        for place in self.places.iter_mut().filter(|place| place.layer == index && !place.ready) {
            place.ready = layer.under == Under::Vlans && place.raise(layer, pass)?;
        }
        Ok(false)
    }

    /// A VLAN on each link that its parent is.
    fn vlans(
        &mut self,
        index: usize,
        layer: &Layer,
        (name, id, parent): (&InterfaceName, u16, usize),
        pass: &mut Pass<'_>,
    ) -> Result<bool, NetworkError> {
        let mut changed = false;
        let many = pass.plan.layers.get(parent).is_some_and(|parent| parent.what.is_many());
        let bases: Vec<(u32, InterfaceName)> = self.of(parent).map(|place| place.on.clone()).collect();
        for (base, on) in bases {
            if self.of(index).any(|place| place.base == base) {
                continue;
            }
            let is_it = |message: &&LinkMessage| {
                message.kind.as_deref() == Some("vlan") && message.info.vlan == Some(id) && message.lower == Some(base)
            };
            let is_ours = |found: &InterfaceName| found == name || (many && is_numbered(found, name));
            if let Some(message) = pass.messages.iter().find(is_it) {
                let Some(found) = message.name.clone().filter(is_ours) else {
                    let there = message.name.clone().map_or_else(String::new, |there| there.to_string());
                    let found = format!("{on} has VLAN {id} already, as {there}");
                    return Err(NetworkError::Taken { what: layer.what.to_string(), found, name: name.clone() });
                };
                let made = self.made.contains(&found);
                let mut place = Place::new(index, (message.index, found), message, None, made);
                place.base = base;
                self.places.push(place);
                continue;
            }
            let is_free = |name: &InterfaceName| pass.named(name).is_none() && !self.made.contains(name);
            let free = std::iter::once(Some(name.clone())).chain((1..MANY).map(|number| numbered(name, number)));
            let free = free.take(if many { MANY } else { 1 }).flatten().find(is_free);
            let Some(free) = free else {
                if self.made.contains(name) {
                    continue;
                }
                return Err(taken(layer, name, pass));
            };
            pass.kernel.make(&free, NewLink::Vlan { id, parent: base }, None)?;
            self.made.push(free);
            changed = true;
        }
        for place in self.places.iter_mut().filter(|place| place.layer == index && !place.ready) {
            place.ready = match layer.under {
                Under::Vlans => place.raise(layer, pass)?,
                Under::Nothing => place.size(layer, pass)?,
                Under::Master(_) => continue,
            };
        }
        Ok(changed)
    }

    /// A bond or a bridge of the ports that are there.
    fn gather(
        &mut self,
        index: usize,
        layer: &Layer,
        name: &InterfaceName,
        ports: &[usize],
        pass: &mut Pass<'_>,
    ) -> Result<bool, NetworkError> {
        let Some(new) = new_link(&layer.what) else { return Ok(false) };
        let there: Vec<usize> = (0..self.places.len())
            .filter(|at| self.places.get(*at).is_some_and(|place| ports.contains(&place.layer)))
            .collect();
        let Some(first) = there.first().and_then(|first| self.places.get(*first)) else { return Ok(false) };
        let Some(master) = self.of(index).next().map(|place| place.on.0) else {
            return match pass.named(name) {
                Some(message) if is_same(message, new) => {
                    let on = (message.index, name.clone());
                    let place = Place::new(index, on, message, None, self.made.contains(name));
                    place.size(layer, pass)?;
                    self.places.push(place);
                    self.gather(index, layer, name, ports, pass)
                }
                Some(_) => Err(taken(layer, name, pass)),
                None => {
                    // The kernel would take that of a port as well, but udevd gives a link without one of its own another
                    // (systemd.link(5), MACAddressPolicy=).
                    let own = first.found.as_ref().and_then(|(facts, _)| facts.mac.clone());
                    let address = own.or_else(|| HardwareAddress::new(&first.seen.address));
                    let address = address.filter(|address| address.as_bytes().len() == 6);
                    make(name, new, address, pass)?;
                    self.made.push(name.clone());
                    Ok(true)
                }
            };
        };
        let mut changed = false;
        for port in there {
            let Some(port) = self.places.get_mut(port) else { continue };
            let lower = pass.plan.layers.get(port.layer);
            match port.seen.master {
                Some(now) if now == master => continue,
                Some(other) => {
                    let other = pass.at(other).and_then(|message| message.name.clone());
                    let other = other.map_or_else(|| "another link".to_owned(), |name| name.to_string());
                    let port = port.on.1.clone();
                    return Err(NetworkError::PortTaken { port, other, what: layer.what.to_string() });
                }
                None => {}
            }
            let is_bond = matches!(new, NewLink::Bond { .. });
            if is_bond && port.seen.flags & IFF_UP != 0 {
                pass.kernel.down(port.on())?;
            }
            if let (false, Some(lower)) = (is_bond, lower) {
                port.size(lower, pass)?;
            }
            // A bond gives its ports its own MTU, and brings them up.
            pass.kernel.enslave(port.on(), master, name)?;
            port.joined = true;
            if !is_bond {
                pass.kernel.up(port.on())?;
            }
            changed = true;
        }
        let agreed = is_lacp(&layer.what) && self.agreed(master, pass.messages);
        if let Some(place) = self.places.iter_mut().find(|place| place.layer == index) {
            // LACP runs on a bond that is up. What nothing stands on comes up when it is tried.
            if !place.ready && (layer.under != Under::Nothing || is_lacp(&layer.what)) {
                place.ready = place.raise(layer, pass)?;
            }
            if agreed && !place.agreed {
                place.agreed = true;
                if !layer.ipv6 && !layer.plain {
                    kernel::ipv6_off(pass.root, &place.on.1, false);
                }
            }
        }
        Ok(changed)
    }

    fn agreed(&self, bond: u32, messages: &[LinkMessage]) -> bool {
        let Some(info) = messages.iter().find(|message| message.index == bond).and_then(|bond| bond.info.bond.as_ref())
        else {
            return false;
        };
        let ports = messages.iter().filter(|message| message.master == Some(bond));
        info.partner.iter().any(|byte| *byte != 0)
            && ports
                .filter_map(|port| port.info.port.as_ref())
                .any(|port| port.agreed() && port.aggregator == info.aggregator)
    }

    /// The layer of a link that is made.
    pub(super) fn layer_of(&self, plan: &NetworkPlan, index: u32) -> Option<usize> {
        let place = self.places.iter().find(|place| place.on.0 == index && place.found.is_none())?;
        plan.layers.get(place.layer).map(|_| place.layer)
    }

    /// Whether a link that the machine has is in use here: it was waited for already.
    pub(super) fn carries(&self, index: u32) -> bool {
        self.places.iter().any(|place| place.on.0 == index && place.found.is_some())
    }

    /// Whether a link is, or is to be, the port of a bond or bridge, so that nothing else may use it.
    pub(super) fn keeps(&self, plan: &NetworkPlan, link: &LinkFacts) -> bool {
        if plan.layers.is_empty() {
            return false;
        }
        let needed = self.needed(plan);
        let of_link = |layer: &Layer| layer.what.found_in(std::slice::from_ref(link)).next().is_some();
        (0..)
            .zip(&plan.layers)
            .any(|(index, layer)| matches!(layer.under, Under::Master(_)) && needed.contains(&index) && of_link(layer))
    }

    /// Whether frames can pass, as far as partners of bonds decide that.
    pub(super) fn is_open(&self, plan: &NetworkPlan, layer: usize) -> bool {
        let Some(Layer { what, .. }) = plan.layers.get(layer) else { return false };
        match what {
            What::Found(_) => self.of(layer).next().is_some(),
            What::Vlan { parent, .. } => self.is_open(plan, *parent),
            What::Bond { .. } if is_lacp(what) => self.of(layer).any(|place| place.agreed),
            What::Bond { ports, .. } | What::Bridge { ports, .. } => ports.iter().any(|port| self.is_open(plan, *port)),
        }
    }

    /// The bonds whose partner has not agreed, with their ports.
    fn pending<'a>(&'a self, plan: &'a NetworkPlan) -> impl Iterator<Item = &'a Place> {
        let waits =
            |place: &&Place| !place.agreed && plan.layers.get(place.layer).is_some_and(|layer| is_lacp(&layer.what));
        self.places.iter().filter(waits)
    }

    /// When to ask about bonds whose partner has not agreed, since boot.
    pub(super) fn wake(&self, plan: &NetworkPlan) -> Option<Duration> {
        self.pending(plan).next().map(|_| since_boot().saturating_add(LACP))
    }

    /// Asks the kernel whether a partner has agreed since the last pass. Errors are ignored: the next pass finds the same.
    pub(super) fn has_agreed(&self, plan: &NetworkPlan, kernel: &mut Kernel) -> bool {
        self.pending(plan).any(|bond| {
            let ports = self.places.iter().filter(|place| place.seen.master == Some(bond.on.0));
            let indices = std::iter::once(bond.on.0).chain(ports.map(|port| port.on.0));
            let messages: Vec<LinkMessage> = indices.filter_map(|index| kernel.link(index).ok()).collect();
            self.agreed(bond.on.0, &messages)
        })
    }
}

impl Place {
    fn new(
        layer: usize,
        on: (u32, InterfaceName),
        seen: &LinkMessage,
        found: Option<(LinkFacts, Before)>,
        made: bool,
    ) -> Place {
        let permanent = seen.permanent_address.clone().filter(|_| seen.info.port.is_none());
        let seen = seen.clone();
        Place { layer, base: 0, on, found, permanent, made, ready: false, joined: false, agreed: false, seen }
    }

    /// Its MTU, before anything stands on it.
    fn size(&self, layer: &Layer, pass: &mut Pass<'_>) -> Result<bool, NetworkError> {
        match layer.mtu {
            Some(mtu) if u32::from(mtu) != self.seen.mtu => pass.kernel.mtu(self.on(), mtu).map(|()| true),
            _ => Ok(true),
        }
    }

    /// Makes it ready to carry what stands on it.
    fn raise(&self, layer: &Layer, pass: &mut Pass<'_>) -> Result<bool, NetworkError> {
        self.size(layer, pass)?;
        if layer.plain {
            // Whatever routers say here is not meant for this node.
            kernel::before_ipv6(pass.root, &self.on.1, false, false);
        } else if is_lacp(&layer.what) && self.seen.flags & IFF_UP == 0 {
            // The kernel would ask for routers, and for others that have its address, when nobody can hear it.
            kernel::ipv6_off(pass.root, &self.on.1, true);
        }
        pass.kernel.up(self.on()).map(|()| true)
    }
}

fn new_link(what: &What) -> Option<NewLink> {
    match what {
        What::Bond { mode, .. } => Some(match mode {
            BondMode::ActiveBackup => NewLink::Bond { mode: Bond::ACTIVE_BACKUP, fast: None },
            BondMode::Lacp => NewLink::Bond { mode: Bond::LACP, fast: Some(true) },
            BondMode::LacpSlow => NewLink::Bond { mode: Bond::LACP, fast: Some(false) },
        }),
        What::Bridge { .. } => Some(NewLink::Bridge),
        What::Found(_) | What::Vlan { .. } => None,
    }
}

fn is_lacp(what: &What) -> bool {
    matches!(what, What::Bond { mode, .. } if mode.is_lacp())
}

/// Whether a link is what would be made: an earlier run may have left it.
fn is_same(message: &LinkMessage, new: NewLink) -> bool {
    let alike = match new {
        NewLink::Bond { mode, fast } => message
            .info
            .bond
            .as_ref()
            .is_some_and(|bond| bond.mode == mode && fast.is_none_or(|fast| bond.fast == fast)),
        NewLink::Bridge | NewLink::Vlan { .. } => true,
    };
    message.kind.as_deref() == Some(new.kind()) && alike
}

fn taken(layer: &Layer, name: &InterfaceName, pass: &Pass<'_>) -> NetworkError {
    let kind = pass.named(name).and_then(|message| message.kind.clone()).unwrap_or_else(|| "device".to_owned());
    let alike =
        if pass.named(name).is_some_and(|message| message.info.bond.is_some()) { " with other settings" } else { "" };
    let found = format!("there is a link {name} already ({kind}{alike})");
    NetworkError::Taken { what: layer.what.to_string(), found, name: name.clone() }
}

/// Makes a bond or a bridge. The module of bonds makes one of its own, `bond0`, when it is loaded, if nobody tells it otherwise
/// (Documentation/networking/bonding.rst, max_bonds).
fn make(
    name: &InterfaceName,
    new: NewLink,
    address: Option<HardwareAddress>,
    pass: &mut Pass<'_>,
) -> Result<(), NetworkError> {
    const OWN: &str = "bond0";
    let has = |messages: &[LinkMessage]| {
        let is_own = |message: &&LinkMessage| message.name.as_ref().is_some_and(|name| name.as_str() == OWN);
        messages
            .iter()
            .find(is_own)
            .filter(|message| message.kind.as_deref() == Some("bond"))
            .map(|message| message.index)
    };
    let is_loaded = new.kind() != "bond" || pass.root.join("sys/module/bonding").exists();
    let made = pass.kernel.make(name, new, address.clone());
    if is_loaded || has(pass.messages).is_some() || (made.is_ok() && name.as_str() == OWN) {
        return made;
    }
    let Ok(own) = InterfaceName::try_from(OWN) else { return made };
    if let Some(index) = has(&pass.kernel.links()?) {
        pass.kernel.remove(On { index, name: &own })?;
    }
    match made {
        Err(NetworkError::Refused { source: RequestError::Refused { errno: Errno::EEXIST, .. }, .. }) => {
            pass.kernel.make(name, new, address)
        }
        made => made,
    }
}

/// `vlan7.1`: the same VLAN on another link.
fn numbered(name: &InterfaceName, number: usize) -> Option<InterfaceName> {
    let suffix = format!(".{number}");
    let most = 15usize.saturating_sub(suffix.len());
    let begin: String = name.as_str().chars().take(most).collect();
    InterfaceName::try_from(format!("{begin}{suffix}").as_str()).ok()
}

fn is_numbered(found: &InterfaceName, name: &InterfaceName) -> bool {
    (1..MANY).any(|number| numbered(name, number).as_ref() == Some(found))
}
