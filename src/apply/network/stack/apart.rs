//! Takes apart what was made: if a part of it cannot be made, and when the network is not needed any more. Never removes a link that was
//! there before.

use super::super::before::{Left, given_back};
use super::super::kernel::Kernel;
use super::{Place, Stack};
use crate::facts::LinkFacts;
use crate::payload::InterfaceName;
use crate::plan::{Layer, NetworkPlan, What, below};

impl Stack {
    /// Removes the links that this run has made, and gives the others back. What the next network has as well, stays as it is.
    pub(in super::super) fn give_back(
        &mut self,
        plan: &NetworkPlan,
        next: Option<&NetworkPlan>,
        kept: Option<&InterfaceName>,
        kernel: &mut Kernel,
    ) -> Vec<String> {
        let stays = |index: usize| {
            next.is_some_and(|next| {
                (0..next.layers.len()).any(|other| is_equal(&plan.layers, index, &next.layers, other))
            })
        };
        let under_kept = self.places.iter().filter(|place| kept == Some(&place.on.1));
        let mut keep: Vec<usize> = under_kept.flat_map(|place| below(&plan.layers, place.layer)).collect();
        keep.extend((0..plan.layers.len()).filter(|index| stays(*index)).flat_map(|top| below(&plan.layers, top)));
        self.take_apart(
            plan,
            &keep,
            |link| {
                let parts = next.iter().flat_map(|next| &next.layers);
                let is_part =
                    parts.clone().any(|layer| layer.what.found_in(std::slice::from_ref(link)).next().is_some());
                let entry = next.and_then(|next| next.links.iter().find(|entry| entry.wants(link)));
                match entry {
                    Some(entry) if entry.config.has_ipv6() => Left::UpForIpv6,
                    None if !is_part => Left::Down,
                    _ => Left::Up,
                }
            },
            kernel,
        )
    }

    /// Removes the VLANs that were tried on further links and are not `used`, and gives those links back.
    pub(in super::super) fn settle(&mut self, plan: &NetworkPlan, used: &[u32], kernel: &mut Kernel) {
        for index in self.in_vain(plan, used) {
            let Some(at) = self.places.iter().position(|place| place.on.0 == index && place.made) else { continue };
            let gone = self.places.remove(at);
            // Errors are ignored: the link that is used works.
            let _ = kernel.remove(gone.on());
            let carries = self.places.iter().any(|place| place.base == gone.base);
            let lower = self.places.iter().position(|place| place.on.0 == gone.base).filter(|_| !carries);
            let Some(lower) = lower.map(|lower| self.places.remove(lower)) else { continue };
            let plain = plan.layers.get(lower.layer).is_some_and(|layer| layer.plain);
            if let (Some((_, before)), true, Ok(now)) = (&lower.found, plain, kernel.link(lower.on.0)) {
                let _ = before.restore(lower.on(), &now, Left::Down, kernel);
            }
        }
    }

    /// The VLANs that were tried on several links, where one of the others is used.
    pub(super) fn in_vain(&self, plan: &NetworkPlan, used: &[u32]) -> Vec<u32> {
        let is_many = |place: &&Place| {
            let lower = plan.layers.get(place.layer).map(|layer| layer.what.lower()).unwrap_or_default();
            lower.iter().filter_map(|lower| plan.layers.get(*lower)).any(|lower| lower.what.is_many())
        };
        let of_used = |place: &&Place| self.of(place.layer).any(|other| used.contains(&other.on.0));
        let tried = self.places.iter().filter(is_many).filter(of_used).map(|place| place.on.0);
        tried.filter(|index| !used.contains(index)).collect()
    }

    /// Takes apart what is in none of the layers `keep`, the uppermost first. Returns what did not work, in words.
    pub(super) fn take_apart(
        &mut self,
        plan: &NetworkPlan,
        keep: &[usize],
        left: impl Fn(&LinkFacts) -> Left,
        kernel: &mut Kernel,
    ) -> Vec<String> {
        let mut failed = Vec::new();
        let (kept, gone) = std::mem::take(&mut self.places).into_iter().partition(|place| keep.contains(&place.layer));
        self.places = kept;
        let gone: Vec<Place> = gone;
        for place in gone.iter().rev() {
            let done = match &place.found {
                None if place.made => kernel.remove(place.on()),
                _ if place.joined => kernel.enslave(place.on(), 0, place.on().name),
                _ => Ok(()),
            };
            let plain = plan.layers.get(place.layer).is_some_and(|layer| layer.plain);
            let restored = match &place.found {
                Some((facts, before)) if plain => {
                    kernel.link(place.on.0).and_then(|now| before.restore(place.on(), &now, left(facts), kernel))
                }
                _ => Ok(()),
            };
            failed.extend(done.and(restored).err().map(|error| given_back(&place.on.1, &error)));
        }
        self.made.retain(|name| self.places.iter().any(|place| place.made && place.on.1 == *name));
        failed
    }
}

/// Whether two layers of two plans are the same, with all that they stand on.
fn is_equal(layers: &[Layer], index: usize, others: &[Layer], other: usize) -> bool {
    let (Some(one), Some(two)) = (layers.get(index), others.get(other)) else { return false };
    let alike = match (&one.what, &two.what) {
        (What::Found(one), What::Found(two)) => one == two,
        (What::Vlan { name, id, .. }, What::Vlan { name: other, id: same, .. }) => (name, id) == (other, same),
        (What::Bond { name, mode, .. }, What::Bond { name: other, mode: same, .. }) => (name, mode) == (other, same),
        (What::Bridge { name, .. }, What::Bridge { name: other, .. }) => name == other,
        _ => false,
    };
    let (lower, beneath) = (one.what.lower(), two.what.lower());
    let pairs = || lower.iter().zip(beneath);
    alike && lower.len() == beneath.len() && pairs().all(|(one, two)| is_equal(layers, *one, others, *two))
}
