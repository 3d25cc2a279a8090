//! Says what became of links that are made: for the report, and for the next stage. Never asks the kernel.

use super::super::AppliedLink;
use super::super::heard::Heard;
use super::super::report::{Carrier, LinkReport};
use super::{Place, Stack, is_lacp};
use crate::chain::chain;
use crate::link_files::{Kind, Standing};
use crate::netlink::message::LinkMessage;
use crate::payload::{BondMode, HardwareAddress, InterfaceName};
use crate::plan::{LinkPlan, NetworkPlan, Under, What, below};

impl Stack {
    /// The entries of the plan whose link is not made, or whose bond waits for its partner.
    pub(in super::super) fn report(&self, plan: &NetworkPlan) -> Vec<(usize, LinkReport)> {
        let entries = (0..).zip(&plan.links).filter_map(|(entry, link)| Some((entry, link.made?)));
        entries.filter_map(|(entry, top)| Some((entry, self.report_of(plan, top)?))).collect()
    }

    fn report_of(&self, plan: &NetworkPlan, top: usize) -> Option<LinkReport> {
        let layers = below(&plan.layers, top);
        let name = plan.layers.get(top)?.what.name()?.clone();
        let report = |carrier, received, tried| LinkReport {
            name: name.clone(),
            driver: None,
            carrier,
            received,
            speed: None,
            is_function: false,
            heard: Heard::default(),
            tried,
        };
        if let Some((_, error)) = self.trouble.iter().find(|(layer, _)| layers.contains(layer)) {
            return Some(report(Carrier::Unmade, 0, vec![chain(error)]));
        }
        let what = |layer: &usize| plan.layers.get(*layer).map(|layer| &layer.what);
        if self.of(top).next().is_none() {
            let missing = layers.iter().filter(|layer| self.of(**layer).next().is_none()).filter_map(what);
            let missing: Vec<String> =
                missing.filter_map(What::found).map(|want| format!("no link with {want}")).collect();
            return Some(report(Carrier::Unmade, 0, missing));
        }
        if self.is_open(plan, top) {
            return None;
        }
        let bonds = layers.iter().filter(|layer| what(layer).is_some_and(is_lacp));
        let bonds: Vec<&Place> = bonds.flat_map(|layer| self.of(*layer)).filter(|bond| !bond.agreed).collect();
        let received = bonds.first().map_or(0, |bond| bond.seen.received);
        Some(report(Carrier::Lacp, received, bonds.iter().map(|bond| self.partner(bond)).collect()))
    }

    /// `bond0: partner 02:00:00:00:00:07: eth0: the partner is not in sync`
    fn partner(&self, bond: &Place) -> String {
        let partner = bond.seen.info.bond.as_ref().map(|bond| bond.partner.as_slice()).unwrap_or_default();
        let shown: Vec<String> = partner.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut words = format!("{}: partner {}", bond.on.1, shown.join(":"));
        if partner.iter().all(|byte| *byte == 0) {
            words.push_str(": no LACPDU has come, check that the switch has LACP on these ports");
        }
        for port in self.places.iter().filter(|port| port.seen.master == Some(bond.on.0)) {
            words.push_str(&format!(", {}: {}", port.on.1, state(&port.seen)));
        }
        words
    }

    /// The links that are made and those that they stand on, as the next stage is to make them. `used`: the indices of the links
    /// that can be used.
    pub(in super::super) fn standing(&self, plan: &NetworkPlan, used: &[u32]) -> Vec<Standing> {
        let (needed, in_vain) = (self.needed(plan), self.in_vain(plan, used));
        let of = |layer: usize| self.of(layer).next().map(|place| place.on.1.clone());
        let standing = |place: &Place| {
            let is_wanted = needed.contains(&place.layer) && !in_vain.contains(&place.on.0);
            let layer = plan.layers.get(place.layer).filter(|_| is_wanted)?;
            let kind = match &layer.what {
                What::Found(_) => None,
                What::Vlan { id, .. } => {
                    let parent = self.places.iter().find(|parent| parent.on.0 == place.base)?;
                    Some(Kind::Vlan { id: *id, parent: parent.on.1.clone() })
                }
                What::Bond { mode: BondMode::ActiveBackup, .. } => Some(Kind::Bond { fast: None }),
                What::Bond { mode, .. } => Some(Kind::Bond { fast: Some(*mode == BondMode::Lacp) }),
                What::Bridge { .. } => Some(Kind::Bridge),
            };
            let master = match layer.under {
                Under::Master(master) => {
                    let is_bond = plan.layers.get(master).is_some_and(|over| matches!(over.what, What::Bond { .. }));
                    of(master).map(|name| (name, is_bond))
                }
                _ => None,
            };
            let vlans = self.on(place.on.0).filter(|vlan| !in_vain.contains(&vlan.0)).map(|vlan| vlan.1.clone());
            let vlans: Vec<InterfaceName> = vlans.collect();
            // A link that was tried and that carries nothing in the end is left as it was.
            if kind.is_none() && master.is_none() && vlans.is_empty() {
                return None;
            }
            Some(Standing {
                name: place.on.1.clone(),
                mac: if place.found.is_some() {
                    place.permanent.as_deref().and_then(HardwareAddress::new)
                } else {
                    HardwareAddress::new(&place.seen.address)
                },
                mtu: layer.mtu,
                plain: layer.plain,
                kind,
                master,
                vlans,
            })
        };
        self.places.iter().filter_map(standing).collect()
    }

    /// Networks on bonds whose partner has not agreed: it may, later.
    pub(in super::super) fn pending_links(&self, plan: &NetworkPlan) -> Vec<AppliedLink> {
        let waits = |link: &&LinkPlan| link.made.is_some_and(|made| !self.is_open(plan, made));
        let applied = |link: &LinkPlan| {
            let place = self.of(link.made?).next()?;
            Some(AppliedLink {
                index: place.on.0,
                name: place.on.1.clone(),
                mac: HardwareAddress::new(&place.seen.address),
                permanent: None,
                mtu: place.seen.mtu,
                config: link.config.clone(),
                lease: None,
                client_id: None,
                six: Default::default(),
                learned: Vec::new(),
                dns: Vec::new(),
                search: Vec::new(),
            })
        };
        plan.links.iter().filter(waits).filter_map(applied).collect()
    }

    /// The VLANs on a link.
    fn on(&self, index: u32) -> impl Iterator<Item = &(u32, InterfaceName)> {
        self.places.iter().filter(move |place| place.base == index).map(|place| &place.on)
    }
}

/// Why a port of a bond carries nothing yet (IEEE 802.1AX, 6.4.2.3).
fn state(port: &LinkMessage) -> &'static str {
    let Some(info) = &port.info.port else { return "not a port of the bond yet" };
    if !port.carrier() {
        return "no carrier";
    }
    match (info.agreed(), info.partner & 0x08 != 0, info.partner & 0x10 != 0, info.actor & 0x08 != 0) {
        (true, ..) => "agreed, in another aggregator",
        (_, _, _, false) => "this end is not in sync",
        (_, false, ..) => "the partner is not in sync",
        (_, _, false, _) => "the partner takes no frames (not collecting)",
        _ => "the partner sends no frames (not distributing)",
    }
}
