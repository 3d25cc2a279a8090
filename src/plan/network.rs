//! Decides which links are tried, and the configuration of each. Never changes a link.

use std::net::IpAddr;

use super::stack::{self, Layer, Under, below};
use super::{PlanError, joined};
use crate::facts::{Facts, LinkFacts, matches};
use crate::payload::{
    DnsName, HardwareAddress, HttpsUrl, InterfaceName, Link, LinkKind, Match, Prefix, Route, UrlHost,
};

/// The links to try, in the payload's order. They are raced: the first usable link is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkPlan {
    /// Never empty.
    pub links: Vec<LinkPlan>,
    /// The links that are made, and those that they stand on: one for each entry of the payload. Empty if none is made.
    pub layers: Vec<Layer>,
    /// The EST servers that the payload names by address. A link with a static address may look for them as neighbours,
    /// to find out whether the link works.
    pub servers: Vec<IpAddr>,
}

/// One entry of the payload's network. Every link that matches is tried, and one of them gets the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkPlan {
    /// Which links match. BOOTIF is resolved to the MAC address that the boot loader gave. For a link that is made: its name, or which
    /// links it is made on.
    pub matching: Match,
    /// The layer of a link that is made.
    pub made: Option<usize>,
    /// The names of the links that match now, or of those that the link is made on. More may appear later.
    pub there: Vec<InterfaceName>,
    /// The configuration for the link.
    pub config: LinkConfig,
}

/// The configuration of a link.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LinkConfig {
    /// In bytes.
    pub mtu: Option<u16>,
    /// Static addresses.
    pub addresses: Vec<Prefix>,
    /// Ask for an address by DHCPv4.
    pub dhcp4: bool,
    /// The client identifier is the machine's DUID (RFC 4361), and not the hardware address.
    pub duid: bool,
    /// Take addresses from router advertisements, and ask by DHCPv6 for what they say that it has.
    pub slaac: bool,
    /// Ask for an address by DHCPv6, whatever routers say.
    pub dhcp6: bool,
    /// Static routes.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<DnsName>,
}

impl NetworkPlan {
    /// Whether several links compete. Only then a link must show that it works before it gets a static address.
    pub fn contested(&self) -> bool {
        let unique = |link: &LinkPlan| matches!(link.matching, Match::Mac(_) | Match::Name(_));
        self.links.len() > 1 || !self.links.iter().all(unique)
    }
}

impl LinkConfig {
    /// Whether the link gets an IPv6 address in any way.
    pub fn has_ipv6(&self) -> bool {
        self.slaac || self.dhcp6 || self.addresses.iter().any(|prefix| prefix.address().is_ipv6())
    }

    /// The least MTU that a DHCP server may set. The kernel disables IPv6 on a link with less than 1280 (RFC 8200 §5). Every host takes
    /// IPv4 packets of 576 bytes (RFC 791); smaller ones break more than they mend: a TLS handshake would take dozens.
    pub fn least_mtu(&self) -> u16 {
        if self.has_ipv6() { 1280 } else { 576 }
    }

    /// The routes in the order for the kernel: routes without a gateway first, because the kernel refuses a gateway
    /// that it has no route to.
    pub fn routes_in_order(&self) -> impl Iterator<Item = &Route> {
        let on_link = |route: &&Route| route.gateway.is_none();
        self.routes.iter().filter(on_link).chain(self.routes.iter().filter(move |route| !on_link(route)))
    }

    /// The static address to use towards a neighbour on this link. `None` if the neighbour is behind a gateway.
    pub fn address_towards(&self, neighbour: IpAddr) -> Option<IpAddr> {
        let mut on_link = self.routes.iter().filter(|route| route.gateway.is_none());
        let own = self.addresses.iter().find(|prefix| prefix.contains(neighbour));
        let over = |prefix: &&Prefix| prefix.address().is_ipv4() == neighbour.is_ipv4();
        let own = own.or_else(|| {
            let there = on_link.any(|route| route.destination.contains(neighbour));
            self.addresses.iter().find(over).filter(|_| there)
        });
        own.map(Prefix::address).filter(|address| *address != neighbour)
    }
}

impl LinkPlan {
    /// Whether the entry matches this link. Carrier does not count here: a link that is down never shows carrier. No link of the
    /// machine matches the entry of one that is made.
    pub fn wants(&self, link: &LinkFacts) -> bool {
        self.made.is_none() && matches(&self.matching, None, link)
    }
}

/// Decides the network plan. `None` if the payload leaves the network unchanged. `from_cmdline`: the links are those of the kernel
/// command line, which has to name one.
pub(super) fn decide(
    links: Vec<Link>,
    from_cmdline: bool,
    urls: &[&HttpsUrl],
    facts: &Facts,
) -> Result<Option<NetworkPlan>, PlanError> {
    let links = if from_cmdline { facts.cmdline.links.clone() } else { links };
    if from_cmdline && links.is_empty() {
        return Err(PlanError::NoWords { unused: joined(&facts.cmdline.unused, "; ") });
    }
    if links.is_empty() {
        return Ok(None);
    }
    let (links, layers) = all(links, &facts.links, facts.bootif.as_ref())?;
    if links.iter().all(|link| link.there.is_empty()) {
        let parts = layers.iter().filter(|layer| layer.under != Under::Nothing).filter_map(|layer| layer.what.found());
        let alone = links.iter().filter(|link| link.made.is_none()).map(|link| &link.matching);
        let want: Vec<&Match> = parts.chain(alone).collect();
        return Err(PlanError::NoSuchLink { want: joined(&want, " or "), have: joined(&facts.links, ", ") });
    }
    let servers = urls.iter().filter_map(|url| match url.host() {
        UrlHost::Ip(address) => Some(*address),
        UrlHost::Dns(_) => None,
    });
    Ok(Some(NetworkPlan { servers: servers.collect(), links, layers }))
}

/// The network before there is a payload: that of the image or of the kernel command line. Without either it is DHCP and router
/// advertisements on the link that the machine booted from, or on any link with carrier.
pub fn early(links: Vec<Link>, bootif: Option<&HardwareAddress>) -> Result<NetworkPlan, PlanError> {
    let matching = if bootif.is_some() { Match::BootIf } else { Match::AnyWithCarrier };
    let links = if links.is_empty() { vec![Link::automatic(matching)] } else { links };
    let (links, layers) = all(links, &[], bootif)?;
    Ok(NetworkPlan { links, layers, servers: Vec::new() })
}

/// The links to try, and the layers that they stand on. A link that only carries others is not tried.
fn all(
    links: Vec<Link>,
    there: &[LinkFacts],
    bootif: Option<&HardwareAddress>,
) -> Result<(Vec<LinkPlan>, Vec<Layer>), PlanError> {
    let layers = stack::decide(&links, there, bootif)?;
    let mut tried = Vec::new();
    for (index, link) in links.into_iter().enumerate() {
        let plan = one(link, index, &layers, there, bootif)?;
        if layers.get(index).is_none_or(|layer| !layer.plain) {
            tried.push(plan);
        }
    }
    Ok((tried, layers))
}

fn one(
    link: Link,
    index: usize,
    layers: &[Layer],
    there: &[LinkFacts],
    bootif: Option<&HardwareAddress>,
) -> Result<LinkPlan, PlanError> {
    let (matching, made) = match link.kind {
        LinkKind::Physical(Match::BootIf) => {
            (Match::Mac(bootif.cloned().ok_or_else(|| PlanError::NoBootIf { have: joined(there, ", ") })?), None)
        }
        LinkKind::Physical(matching) => (matching, None),
        LinkKind::Vlan { name, .. } | LinkKind::Bond { name, .. } | LinkKind::Bridge { name, .. } => {
            let many = below(layers, index).into_iter().filter_map(|lower| layers.get(lower));
            let many = many.filter(|lower| lower.what.is_many() && lower.under == Under::Vlans);
            (many.filter_map(|lower| lower.what.found()).next().cloned().unwrap_or(Match::Name(name)), Some(index))
        }
    };
    let on = below(layers, index).into_iter().filter_map(|lower| layers.get(lower));
    let names = |link: &LinkFacts| link.name.clone();
    let there = match made {
        Some(_) => on.flat_map(|lower| lower.what.found_in(there)).map(names).collect(),
        None => there.iter().filter(|link| matches(&matching, None, link)).map(names).collect(),
    };
    Ok(LinkPlan {
        matching,
        made,
        there,
        config: LinkConfig {
            mtu: link.mtu,
            addresses: link.addresses,
            dhcp4: link.dhcp4,
            duid: link.duid,
            slaac: link.slaac,
            dhcp6: link.dhcp6,
            routes: link.routes,
            dns: link.dns,
            search: link.search,
        },
    })
}
