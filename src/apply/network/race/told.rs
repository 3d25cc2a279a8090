//! Tells what has become of the links of a race: to people, and to resolv.conf. Never changes a link.

use super::super::report::{Carrier, LinkReport};
use super::super::{AppliedLink, NetworkError, resolv};
use super::{Contender, Race};
use crate::facts;
use crate::order;
use crate::time::since_boot;

impl Race<'_> {
    /// The state of each link, in the plan's order.
    pub fn report(&self) -> Vec<LinkReport> {
        let unnamed = self.unnamed.iter().map(|link| (link.entry, LinkReport::untouched(&link.facts, Carrier::Udev)));
        let left = self.left.iter().map(|(entry, link)| (*entry, LinkReport::untouched(link, Carrier::Controller)));
        // The speed is asked for here only: some drivers ask their firmware for it.
        let tried = self.contenders.iter().map(|link| {
            let report = link.report();
            (link.entry, LinkReport { speed: facts::speed(self.root, &report.name), ..report })
        });
        let mut links: Vec<(usize, LinkReport)> =
            tried.chain(unnamed).chain(left).chain(self.stack.report(self.plan)).collect();
        order::sort(&mut links, |(one, _), (other, _)| one < other);
        links.into_iter().map(|(_, link)| link).collect()
    }

    /// Why there is no network.
    pub fn failure(&self) -> NetworkError {
        NetworkError::NoLink { links: self.report(), waited: since_boot().saturating_sub(self.begun) }
    }

    pub(super) fn name_servers(&self) -> Result<(), NetworkError> {
        if self.stop.is_some() {
            return Ok(());
        }
        let links: Vec<AppliedLink> =
            self.contenders.iter().filter(|link| link.is_used()).map(Contender::applied).collect();
        let (mut dns, mut search) = (Vec::new(), Vec::new());
        let nat64: Vec<_> = links.iter().flat_map(|link| link.six.nat64.iter().copied()).collect();
        for link in &links {
            link.all_dns().for_each(|server| {
                if !dns.contains(&server) {
                    dns.push(server)
                }
            });
            link.all_search().for_each(|name| {
                if !search.contains(&name) {
                    search.push(name)
                }
            });
        }
        resolv::write(self.root, &dns, &search, &nat64)
    }
}
