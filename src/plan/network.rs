//! Decides which links are tried, and the configuration of each. Never changes a link.

use std::net::IpAddr;

use super::{PlanError, joined, unsupported};
use crate::facts::{Facts, LinkFacts, matches};
use crate::payload::{
    DnsName, HardwareAddress, HttpsUrl, InterfaceName, Link, LinkKind, Match, Prefix, Route, UrlHost,
};

/// The links to try, in the payload's order. They are raced: the first usable link is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkPlan {
    /// Never empty.
    pub links: Vec<LinkPlan>,
    /// The EST servers that the payload names by address. A link with a static address may look for them as neighbours,
    /// to find out whether the link works.
    pub servers: Vec<IpAddr>,
}

/// One entry of the payload's network. Every link that matches is tried, and one of them gets the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkPlan {
    /// Which links match. BOOTIF is resolved to the MAC address that the boot loader gave.
    pub matching: Match,
    /// The names of the links that match now. More may appear later.
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
    /// Take addresses from router advertisements.
    pub slaac: bool,
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
        self.slaac || self.addresses.iter().any(|prefix| prefix.address().is_ipv6())
    }

    /// Whether a DHCP server may set this MTU. The kernel disables IPv6 on a link with less than 1280 (RFC 8200 §5).
    pub fn allows_mtu(&self, mtu: u16) -> bool {
        mtu >= 1280 || !self.has_ipv6()
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
    /// Whether the entry matches this link. Carrier does not count here: a link that is down never shows carrier.
    pub fn wants(&self, link: &LinkFacts) -> bool {
        matches(&self.matching, None, link)
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
    let links: Vec<LinkPlan> =
        links.into_iter().map(|link| one(link, &facts.links, facts.bootif.as_ref())).collect::<Result<_, _>>()?;
    if links.iter().all(|link| link.there.is_empty()) {
        let want: Vec<&Match> = links.iter().map(|link| &link.matching).collect();
        return Err(PlanError::NoSuchLink { want: joined(&want, " or "), have: joined(&facts.links, ", ") });
    }
    let servers = urls.iter().filter_map(|url| match url.host() {
        UrlHost::Ip(address) => Some(*address),
        UrlHost::Dns(_) => None,
    });
    Ok(Some(NetworkPlan { servers: servers.collect(), links }))
}

/// The network before there is a payload: that of the image or of the kernel command line. Without either it is DHCP and router
/// advertisements on the link that the machine booted from, or on any link with carrier.
pub fn early(links: Vec<Link>, bootif: Option<&HardwareAddress>) -> Result<NetworkPlan, PlanError> {
    let matching = if bootif.is_some() { Match::BootIf } else { Match::AnyWithCarrier };
    let links = if links.is_empty() { vec![Link::automatic(matching)] } else { links };
    let links = links.into_iter().map(|link| one(link, &[], bootif)).collect::<Result<_, _>>()?;
    Ok(NetworkPlan { links, servers: Vec::new() })
}

fn one(link: Link, links: &[LinkFacts], bootif: Option<&HardwareAddress>) -> Result<LinkPlan, PlanError> {
    if link.dhcp6 {
        return Err(unsupported("DHCPv6", "give a static IPv6 address, or slaac = true"));
    }
    let matching = match link.kind {
        LinkKind::Physical(Match::BootIf) => {
            Match::Mac(bootif.cloned().ok_or_else(|| PlanError::NoBootIf { have: joined(links, ", ") })?)
        }
        LinkKind::Physical(matching) => matching,
        LinkKind::Vlan { name, .. } => return Err(unsupported(&format!("VLAN {name}"), "give a physical link")),
        LinkKind::Bond { name, .. } => return Err(unsupported(&format!("bond {name}"), "give a physical link")),
        LinkKind::Bridge { name, .. } => return Err(unsupported(&format!("bridge {name}"), "give a physical link")),
    };
    let there = links.iter().filter(|link| matches(&matching, None, link)).map(|link| link.name.clone()).collect();
    Ok(LinkPlan {
        matching,
        there,
        config: LinkConfig {
            mtu: link.mtu,
            addresses: link.addresses,
            dhcp4: link.dhcp4,
            slaac: link.slaac,
            routes: link.routes,
            dns: link.dns,
            search: link.search,
        },
    })
}
