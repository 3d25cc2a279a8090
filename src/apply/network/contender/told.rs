//! Describes a link of the race: to the next stage, and to people. Never changes one.

use std::net::IpAddr;

use super::super::AppliedLink;
use super::super::report::{Carrier, LinkReport};
use super::Contender;
use crate::chain::chain;
use crate::payload::HardwareAddress;
use crate::time::since_boot;

impl Contender {
    /// The link as the hand-over describes it to the next stage.
    pub(in super::super) fn applied(&self) -> AppliedLink {
        let mut config = self.asked.config.clone();
        // For a usable link, what it has. For another, what it was to have.
        if !self.applied && self.is_used() {
            (config.addresses, config.routes) = (Vec::new(), Vec::new());
        }
        AppliedLink {
            index: self.facts.index,
            name: self.facts.name.clone(),
            mac: HardwareAddress::new(&self.message.address),
            permanent: self.message.permanent_address.as_deref().and_then(HardwareAddress::new),
            mtu: self.message.mtu,
            config,
            client_id: self.client_id(),
            lease: self.leased.lease().cloned(),
            six: self.six.given(self.asker6().filter(|_| self.asked.config.slaac || self.asked.config.dhcp6)),
            learned: self.learned.clone(),
            dns: self.advertised.dns(since_boot()).map(IpAddr::V6).collect(),
            search: self.advertised.search(since_boot()).cloned().collect(),
        }
    }

    pub(in super::super) fn report(&self) -> LinkReport {
        let carrier = Carrier::of(&self.message);
        let mut tried = Vec::new();
        if carrier == Carrier::Up {
            tried.extend(self.leased.state().map(|state| format!("DHCPv4: {state}")));
            tried.extend(
                self.probe
                    .as_ref()
                    .map(|probe| format!("no neighbour answered in {} rounds of questions", probe.rounds)),
            );
            tried.extend(self.six.report(&self.asked.config));
            if self.asked.config.slaac && self.learned.is_empty() && !self.six.has_address() {
                tried.push("no router advertisement gave an address".to_owned());
            }
        }
        tried.extend(self.leased.unused().iter().cloned());
        tried.extend(self.trouble.as_ref().map(|error| chain(error)));
        LinkReport {
            name: self.facts.name.clone(),
            driver: self.facts.driver.clone(),
            carrier,
            received: self.message.received,
            speed: None,
            is_function: self.facts.device.is_function,
            heard: self.ear.iter().flatten().map(|ear| ear.heard(self.message.received)).next().unwrap_or_default(),
            tried,
        }
    }
}
