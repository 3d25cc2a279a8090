//! Decides which links are made for a network: VLANs, bonds and bridges, what each stands on, and what cannot be. Never looks at a
//! kernel, and never makes a link.

use std::fmt;

use super::PlanError;
use crate::facts::{LinkFacts, matches};
use crate::payload::{BondMode, HardwareAddress, InterfaceName, Link, LinkKind, Match};

/// One entry of a network in which links are made. Indices are those of the payload's entries, and always lower than its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layer {
    /// The link.
    pub what: What,
    /// What stands on it.
    pub under: Under,
    /// What it gets before anything stands on it, in bytes.
    pub mtu: Option<u16>,
    /// It carries others, and has no addresses of its own.
    pub plain: bool,
    /// It gets IPv6 addresses of its own.
    pub ipv6: bool,
}

/// Where a link comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// The machine has it.
    Found(Match),
    /// An IEEE 802.1Q VLAN.
    Vlan {
        /// Its name, on the first link that the parent's entry matches.
        name: InterfaceName,
        /// 1 to 4094.
        id: u16,
        /// The entry of the link that carries it.
        parent: usize,
    },
    /// A bond. It is made of the ports that are there, and takes the others when they appear.
    Bond {
        /// Its name.
        name: InterfaceName,
        /// How it uses its ports.
        mode: BondMode,
        /// The entries of its ports.
        ports: Vec<usize>,
    },
    /// A bridge; likewise.
    Bridge {
        /// Its name.
        name: InterfaceName,
        /// The entries of its ports.
        ports: Vec<usize>,
    },
}

/// What stands on a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Under {
    /// Nothing.
    Nothing,
    /// VLANs.
    Vlans,
    /// The bond or bridge that has it as a port.
    Master(usize),
}

/// Why links cannot stand on each other as a network asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StackError {
    /// Two entries make or name this link.
    NameTwice(InterfaceName),
    /// A link carries a VLAN of this id already.
    VlanTwice {
        /// The second VLAN.
        name: InterfaceName,
        /// The id of both.
        id: u16,
        /// The first VLAN.
        other: InterfaceName,
        /// What carries both.
        parent: String,
    },
    /// A bond or a bridge cannot have this port.
    WrongPort {
        /// `bond bond1`
        master: String,
        /// `bond bond0`
        port: String,
    },
    /// A link is a port, and something else uses it as well.
    PortTwice {
        /// The port.
        port: String,
        /// What uses it first.
        first: String,
        /// What uses it as well.
        second: String,
    },
    /// A port has addresses, routes or name servers.
    PortConfigured {
        /// The port.
        port: String,
        /// The bond or bridge.
        master: String,
    },
    /// The entry of a port may match several links.
    PortOfMany {
        /// The port.
        port: String,
        /// The bond or bridge.
        master: String,
    },
    /// A link carries less than what stands on it sends.
    Mtu {
        /// What stands on the other.
        upper: String,
        /// Its MTU.
        mtu: u16,
        /// What carries it.
        lower: String,
        /// The MTU of that one.
        most: u16,
    },
    /// The kernel has no IPv6 on a link with less than 1280.
    MtuForIpv6 {
        /// The link with IPv6.
        name: InterfaceName,
        /// The MTU that it gets from what carries it.
        mtu: u16,
    },
    /// A device has the name of a link that is to be made.
    Exists {
        /// The kind and name of the link to be made.
        what: String,
        /// The device.
        link: String,
    },
    /// Several links match the entry of a port.
    Several {
        /// The port.
        port: String,
        /// The links.
        links: String,
    },
}

/// Whether the links can stand on each other, whatever machine it is. Part of the check of every record.
pub fn check(links: &[Link]) -> Result<(), StackError> {
    (0..).zip(links).try_for_each(|(index, link)| one(links, index, link))
}

/// The layers of a network; empty if it makes no link. `there`: the links of the machine, as far as they are known.
pub(super) fn decide(
    links: &[Link],
    there: &[LinkFacts],
    bootif: Option<&HardwareAddress>,
) -> Result<Vec<Layer>, PlanError> {
    if links.iter().all(|link| matches!(link.kind, LinkKind::Physical(_))) {
        return Ok(Vec::new());
    }
    check(links).map_err(PlanError::Stack)?;
    let layers: Vec<Layer> = (0..).zip(links).map(|(index, link)| layer(links, index, link, bootif)).collect();
    on_machine(&layers, there).map_err(PlanError::Stack)?;
    Ok(layers)
}

/// What must be true of the machine.
fn on_machine(layers: &[Layer], there: &[LinkFacts]) -> Result<(), StackError> {
    let mut ports: Vec<(&str, &Layer)> = Vec::new();
    for layer in layers {
        if let Some(name) = layer.what.name() {
            // A link without a driver may be one that an earlier run has made. Its kind shows when it is looked at.
            if let Some(link) = there.iter().find(|link| link.name == *name && link.driver.is_some()) {
                return Err(StackError::Exists { what: layer.what.to_string(), link: link.to_string() });
            }
            continue;
        }
        let Under::Master(master) = layer.under else { continue };
        let found: Vec<&LinkFacts> = layer.what.found_in(there).collect();
        if found.len() > 1 {
            let links = super::joined(&found, ", ");
            return Err(StackError::Several { port: layer.what.to_string(), links });
        }
        for link in found {
            if let Some((_, other)) = ports.iter().find(|(name, _)| *name == link.name.as_str()) {
                return Err(StackError::PortTwice {
                    port: link.name.to_string(),
                    first: other.what.to_string(),
                    second: layers.get(master).map_or(String::new(), |master| master.what.to_string()),
                });
            }
            ports.push((link.name.as_str(), layer));
        }
    }
    Ok(())
}

impl What {
    /// The name of a link that is made.
    pub fn name(&self) -> Option<&InterfaceName> {
        match self {
            What::Found(_) => None,
            What::Vlan { name, .. } | What::Bond { name, .. } | What::Bridge { name, .. } => Some(name),
        }
    }

    /// Which links match.
    pub fn found(&self) -> Option<&Match> {
        match self {
            What::Found(matching) => Some(matching),
            _ => None,
        }
    }

    /// The entries that it stands on.
    pub fn lower(&self) -> &[usize] {
        match self {
            What::Found(_) => &[],
            What::Vlan { parent, .. } => std::slice::from_ref(parent),
            What::Bond { ports, .. } | What::Bridge { ports, .. } => ports,
        }
    }

    /// Whether several links may match: then a VLAN is made on each of them.
    pub fn is_many(&self) -> bool {
        matches!(self, What::Found(Match::AnyWithCarrier | Match::Driver(_)))
    }

    /// The links of the machine that match.
    pub fn found_in<'a>(&self, there: &'a [LinkFacts]) -> impl Iterator<Item = &'a LinkFacts> {
        there.iter().filter(move |link| matches!(self, What::Found(matching) if matches(matching, None, link)))
    }
}

/// `VLAN vlan7`, `MAC address 52:54:00:12:34:56`
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Found(matching) => matching.fmt(f),
            What::Vlan { name, .. } => write!(f, "VLAN {name}"),
            What::Bond { name, .. } => write!(f, "bond {name}"),
            What::Bridge { name, .. } => write!(f, "bridge {name}"),
        }
    }
}

/// The entries that a layer stands on, and those below them.
pub fn below(layers: &[Layer], index: usize) -> Vec<usize> {
    let mut found = vec![index];
    let mut at = 0;
    while let Some(layer) = found.get(at).and_then(|index| layers.get(*index)) {
        let new: Vec<usize> = layer.what.lower().iter().copied().filter(|lower| !found.contains(lower)).collect();
        found.extend(new);
        at += 1;
    }
    found
}

fn kind(links: &[Link], index: usize) -> String {
    links.get(index).map_or(String::new(), named)
}

/// `VLAN vlan7`, `MAC address 52:54:00:12:34:56`
fn named(link: &Link) -> String {
    match &link.kind {
        LinkKind::Physical(matching) => matching.to_string(),
        LinkKind::Vlan { name, .. } => format!("VLAN {name}"),
        LinkKind::Bond { name, .. } => format!("bond {name}"),
        LinkKind::Bridge { name, .. } => format!("bridge {name}"),
    }
}

fn name(link: &Link) -> Option<&InterfaceName> {
    match &link.kind {
        LinkKind::Physical(Match::Name(name)) => Some(name),
        LinkKind::Physical(_) => None,
        LinkKind::Vlan { name, .. } | LinkKind::Bond { name, .. } | LinkKind::Bridge { name, .. } => Some(name),
    }
}

fn lower(link: &Link) -> &[usize] {
    match &link.kind {
        LinkKind::Physical(_) => &[],
        LinkKind::Vlan { parent, .. } => std::slice::from_ref(parent),
        LinkKind::Bond { ports, .. } | LinkKind::Bridge { ports, .. } => ports,
    }
}

fn is_made(link: &Link) -> bool {
    !matches!(link.kind, LinkKind::Physical(_))
}

/// Whether the link itself is to be usable, and not only what stands on it.
pub(super) fn is_configured(link: &Link) -> bool {
    link.dhcp4
        || link.slaac
        || link.dhcp6
        || !(link.addresses.is_empty() && link.routes.is_empty() && link.dns.is_empty() && link.search.is_empty())
}

/// What stands on an entry.
pub(super) fn under(links: &[Link], index: usize) -> Under {
    let mut users = (0..).zip(links).filter(|(_, link)| lower(link).contains(&index));
    match users.next() {
        None => Under::Nothing,
        Some((_, Link { kind: LinkKind::Vlan { .. }, .. })) => Under::Vlans,
        Some((master, _)) => Under::Master(master),
    }
}

/// The MTU that an entry has, as far as the network says. A bond or bridge without one of its own has the smallest of its ports'.
fn mtu(links: &[Link], index: usize) -> Option<u16> {
    let link = links.get(index)?;
    // Only downwards, whatever the indices are.
    link.mtu.or_else(|| lower(link).iter().filter(|lower| **lower < index).filter_map(|lower| mtu(links, *lower)).min())
}

/// What Ethernet has where nobody says otherwise.
const USUAL_MTU: u16 = 1500;

/// What one entry must be, with regard to those before it.
fn one(links: &[Link], index: usize, link: &Link) -> Result<(), StackError> {
    let before = || links.iter().take(index);
    if let Some(own) = name(link)
        && before().any(|other| name(other) == Some(own) && (is_made(link) || is_made(other)))
    {
        return Err(StackError::NameTwice(own.clone()));
    }
    if let LinkKind::Vlan { name, id, parent } = &link.kind {
        let same = |other: &Link| match &other.kind {
            LinkKind::Vlan { name, id: other, parent: on } if (other, on) == (id, parent) => Some(name.clone()),
            _ => None,
        };
        if let Some(other) = before().find_map(same) {
            let (name, parent) = (name.clone(), kind(links, *parent));
            return Err(StackError::VlanTwice { name, id: *id, other, parent });
        }
    }
    lower(link).iter().try_for_each(|port| on(links, index, link, *port))?;
    if let (Some(name), Some(mtu), true) = (name(link), mtu(links, index), is_made(link))
        && mtu < 1280
        && (link.slaac || link.dhcp6 || link.addresses.iter().any(|prefix| prefix.address().is_ipv6()))
    {
        return Err(StackError::MtuForIpv6 { name: name.clone(), mtu });
    }
    Ok(())
}

/// What `port` must be, for `link` to stand on it.
fn on(links: &[Link], index: usize, link: &Link, port: usize) -> Result<(), StackError> {
    let Some(at) = links.get(port) else { return Ok(()) };
    let is_vlan = matches!(link.kind, LinkKind::Vlan { .. });
    if !is_vlan {
        match (&link.kind, &at.kind) {
            (LinkKind::Bond { .. }, LinkKind::Bond { .. } | LinkKind::Bridge { .. })
            | (LinkKind::Bridge { .. }, LinkKind::Bridge { .. }) => {
                return Err(StackError::WrongPort { master: named(link), port: named(at) });
            }
            (_, LinkKind::Physical(Match::AnyWithCarrier)) => {
                return Err(StackError::PortOfMany { port: named(at), master: named(link) });
            }
            // The VLAN may stand on several links.
            (_, LinkKind::Vlan { parent, .. }) => {
                let parent = links.get(*parent).map(|parent| &parent.kind);
                if matches!(parent, Some(LinkKind::Physical(Match::AnyWithCarrier | Match::Driver(_)))) {
                    return Err(StackError::PortOfMany { port: named(at), master: named(link) });
                }
            }
            _ => {}
        }
        if is_configured(at) {
            return Err(StackError::PortConfigured { port: named(at), master: named(link) });
        }
    }
    let other = links
        .iter()
        .take(index)
        .find(|other| lower(other).contains(&port) && !(is_vlan && matches!(other.kind, LinkKind::Vlan { .. })));
    if let Some(other) = other {
        let (port, first, second) = (named(at), named(other), named(link));
        return Err(StackError::PortTwice { port, first, second });
    }
    // A port without an MTU gets that of its bond or bridge.
    let most = mtu(links, port).or(is_vlan.then_some(USUAL_MTU));
    match (link.mtu, most) {
        (Some(mtu), Some(most)) if mtu > most => {
            Err(StackError::Mtu { upper: named(link), mtu, lower: named(at), most })
        }
        _ => Ok(()),
    }
}

fn layer(links: &[Link], index: usize, link: &Link, bootif: Option<&HardwareAddress>) -> Layer {
    let what = match &link.kind {
        LinkKind::Physical(Match::BootIf) => What::Found(bootif.cloned().map_or(Match::BootIf, Match::Mac)),
        LinkKind::Physical(matching) => What::Found(matching.clone()),
        LinkKind::Vlan { name, id, parent } => What::Vlan { name: name.clone(), id: *id, parent: *parent },
        LinkKind::Bond { name, mode, ports } => What::Bond { name: name.clone(), mode: *mode, ports: ports.clone() },
        LinkKind::Bridge { name, ports } => What::Bridge { name: name.clone(), ports: ports.clone() },
    };
    let under = under(links, index);
    let of_master = |master| if let Under::Master(master) = master { mtu(links, master) } else { None };
    // A VLAN without an MTU takes that of its parent when it is made.
    let own = if matches!(link.kind, LinkKind::Vlan { .. }) { link.mtu } else { mtu(links, index) };
    Layer {
        what,
        under,
        mtu: own.or_else(|| of_master(under)),
        plain: under != Under::Nothing && !is_configured(link),
        ipv6: link.slaac || link.dhcp6 || link.addresses.iter().any(|prefix| prefix.address().is_ipv6()),
    }
}

/// For the dry run: the links that others stand on, and those that are made.
pub(super) fn show(layers: &[Layer], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let named = |entries: &[usize]| {
        let names = entries.iter().filter_map(|entry| layers.get(*entry)).map(|layer| layer.what.to_string());
        names.collect::<Vec<_>>().join(" + ")
    };
    for layer in layers {
        match &layer.what {
            What::Found(_) if layer.under == Under::Nothing => continue,
            What::Found(matching) => writeln!(f, "part       {matching}")?,
            What::Vlan { name, id, parent } => {
                writeln!(f, "make       VLAN {name} (id {id}) on {}", named(&[*parent]))?;
            }
            What::Bond { name, mode, ports } => writeln!(f, "make       bond {name} ({mode}) of {}", named(ports))?,
            What::Bridge { name, ports } => writeln!(f, "make       bridge {name} of {}", named(ports))?,
        }
        // That of a link with addresses is shown with them.
        if let (Some(mtu), true) = (layer.mtu, layer.plain) {
            writeln!(f, "mtu        {mtu}")?;
        }
    }
    Ok(())
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StackError::NameTwice(name) => {
                write!(f, "two entries of the network are the link {name}; give the link that is made another name")
            }
            StackError::VlanTwice { name, id, other, parent } => {
                write!(f, "VLANs {other} and {name} both have id {id} on {parent}; leave one of them out")
            }
            StackError::WrongPort { master, port } => write!(
                f,
                "{port} cannot be a port of {master}; give {} instead",
                if master.starts_with("bond") { "the links of devices" } else { "its ports" }
            ),
            StackError::PortTwice { port, first, second } => write!(
                f,
                "{port} cannot be used by both {first} and {second}: the port of a bond or bridge carries nothing else; leave it \
                 out of one of them"
            ),
            StackError::PortConfigured { port, master } => write!(
                f,
                "{port} is a port of {master} and cannot have addresses, routes or name servers of its own; give them to {master}"
            ),
            StackError::PortOfMany { port, master } => write!(
                f,
                "a port of {master} (\"{port}\") may be several links; match each port by mac, name or bootif, in an entry of its own"
            ),
            StackError::Mtu { upper, mtu, lower, most } => write!(
                f,
                "MTU {mtu} of {upper} is above the {most} of {lower}, which carries it; give {lower} an mtu of {mtu} or more"
            ),
            StackError::MtuForIpv6 { name, mtu } => write!(
                f,
                "{name} has IPv6, and what carries it has an MTU of {mtu}, where IPv6 needs 1280; raise that mtu, or leave IPv6 out"
            ),
            StackError::Exists { what, link } => {
                write!(f, "{what} cannot be made: the machine has a link of that name, {link}; give it another name")
            }
            StackError::Several { port, links } => write!(
                f,
                "several links match \"{port}\", which is to be one port: {links}; match each port by mac or name, in an entry of \
                 its own"
            ),
        }
    }
}
