//! Which link gets what. Looks at facts and touches no link.

use std::net::IpAddr;

use super::{PlanError, listed, unsupported};
use crate::facts::{Facts, LinkFacts};
use crate::payload::{DnsName, InterfaceName, Link, LinkKind, Match, Prefix, Route};

/// One link and what it gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkPlan {
    /// Kernel interface index.
    pub index: u32,
    /// Name at the time of planning.
    pub name: InterfaceName,
    /// In bytes.
    pub mtu: Option<u16>,
    /// Static addresses.
    pub addresses: Vec<Prefix>,
    /// Static routes.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<DnsName>,
}

pub(super) fn decide(links: Vec<Link>, facts: &Facts) -> Result<Option<NetworkPlan>, PlanError> {
    let mut links = links.into_iter();
    let Some(link) = links.next() else { return Ok(None) };
    if links.next().is_some() {
        return Err(unsupported("more than one link", "give the one link that leads to the EST server"));
    }
    for (asked, item) in [(link.dhcp4, "DHCPv4"), (link.slaac, "SLAAC"), (link.dhcp6, "DHCPv6")] {
        if asked {
            return Err(unsupported(item, "give a static IPv4 address"));
        }
    }
    if link.addresses.iter().any(|prefix| prefix.address().is_ipv6())
        || link.routes.iter().any(|route| route.destination.address().is_ipv6())
    {
        return Err(unsupported("IPv6", "give a static IPv4 address"));
    }
    let matching = match &link.kind {
        LinkKind::Physical(matching) => matching,
        LinkKind::Vlan { name, .. } => return Err(unsupported(&format!("VLAN {name}"), "give a physical link")),
        LinkKind::Bond { name, .. } => return Err(unsupported(&format!("bond {name}"), "give a physical link")),
        LinkKind::Bridge { name, .. } => return Err(unsupported(&format!("bridge {name}"), "give a physical link")),
    };
    let chosen = choose(matching, facts)?;
    Ok(Some(NetworkPlan {
        index: chosen.index,
        name: chosen.name.clone(),
        mtu: link.mtu,
        addresses: link.addresses,
        routes: link.routes,
        dns: link.dns,
        search: link.search,
    }))
}

fn choose<'f>(matching: &Match, facts: &'f Facts) -> Result<&'f LinkFacts, PlanError> {
    let candidates: Vec<&LinkFacts> = facts.links.iter().filter(|link| facts.is(matching, link)).collect();
    let want = matching.to_string();
    match candidates.as_slice() {
        [] => Err(PlanError::NoSuchLink { want, have: listed(&facts.links) }),
        [one] => Ok(one),
        several => match several.iter().find(|link| link.carrier) {
            Some(first) => Ok(first),
            None => Err(PlanError::WhichLink { want, have: listed(several) }),
        },
    }
}
