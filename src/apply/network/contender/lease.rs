//! The lease of one link in the race: asked for, taken, renewed, given up.

use std::time::Duration;

use super::super::NetworkError;
use super::super::kernel::{Kernel, On};
use super::super::packet::AT_ONCE;
use super::{Contender, DHCP, Way, failed, random};
use crate::dhcp4::{Asker, Client, Event, Lease};
use crate::netlink::RequestError;
use crate::payload::{HardwareAddress, Prefix, Route};
use crate::time::since_boot;

impl Contender {
    pub(super) fn ask_for_lease(
        &mut self,
        buffer: &mut [u8],
        kernel: &mut Kernel,
    ) -> Result<Option<Duration>, NetworkError> {
        let on = On { index: self.facts.index, name: &self.facts.name };
        let (Some(socket), Some(client)) = (&self.dhcp, &mut self.client) else { return Ok(None) };
        let mut event = None;
        for _ in 0..AT_ONCE {
            let Some(packet) = socket.receive(buffer).map_err(|source| failed(on, DHCP, source))? else { break };
            event = client.push(packet, since_boot());
            if event.is_some() {
                break;
            }
        }
        let poll = client.poll(since_boot());
        if let Some(packet) = poll.send {
            socket.send(&self.message.broadcast, &packet).map_err(|source| failed(on, DHCP, source))?;
        }
        self.state = Some(client.state());
        match event {
            Some(Event::Bound(lease)) => {
                self.take(lease, kernel)?;
                (self.client, self.renewing) = (None, false);
                return Ok(None);
            }
            // RFC 2131 §4.4.5: whoever is refused, or was not heard before the end, begins again without the address.
            Some(Event::Refused) => self.lose(kernel)?,
            None if self.lease.as_ref().is_some_and(|lease| since_boot() >= lease.ends_at()) => self.lose(kernel)?,
            None => {}
        }
        Ok(Some(poll.wake))
    }

    /// Takes away what came with the lease.
    pub(super) fn lose(&mut self, kernel: &mut Kernel) -> Result<(), NetworkError> {
        let on = On { index: self.facts.index, name: &self.facts.name };
        let Some(lease) = self.lease.take() else { return Ok(()) };
        self.ways.retain(|way| *way != Way::Dhcp4);
        let leased = Some(lease.address.address());
        self.routes(&lease).iter().try_for_each(|route| kernel.drop_route(on, route, leased))?;
        kernel.forget(on, lease.address)
    }

    pub(super) fn take(&mut self, lease: Lease, kernel: &mut Kernel) -> Result<(), NetworkError> {
        if self.lease.as_ref().is_some_and(|before| before.address != lease.address) {
            self.lose(kernel)?;
        }
        let on = On { index: self.facts.index, name: &self.facts.name };
        kernel.address(on, lease.address, Some(lease.seconds))?;
        // Whoever set up that server has other machines in mind, too: what does not fit this one is reported, and not
        // used.
        let mut refused = Vec::new();
        let mut may = |done: Result<(), NetworkError>| match done {
            Err(error @ NetworkError::Refused { source: RequestError::Refused { .. }, .. }) => {
                refused.push(error);
                Ok(())
            }
            other => other,
        };
        // The payload's word goes before the server's, and an MTU that is right already is not set: it may cost the
        // link its carrier.
        if let (None, Some(mtu)) = (self.asked.config.mtu, lease.mtu)
            && self.message.mtu != u32::from(mtu)
        {
            may(kernel.mtu(on, mtu))?;
        }
        // Those that are there since the lease was new would, set again, take the place of another link's.
        let before = self.lease.as_ref().map(|before| self.routes(before)).unwrap_or_default();
        for route in self.routes(&lease).iter().filter(|route| !before.contains(route)) {
            may(kernel.route(on, route, Some(lease.address.address())))?;
        }
        self.refused = refused;
        self.lease = Some(lease);
        self.gain(Way::Dhcp4);
        Ok(())
    }

    /// The routes that a lease brings; the payload's go before them.
    pub(super) fn routes(&self, lease: &Lease) -> Vec<Route> {
        let mut routes = Vec::new();
        for route in &lease.routes {
            // A gateway outside the network, as clouds with /32 leases have it, is on the link all the same.
            let outside = route.gateway.filter(|gateway| !lease.address.contains(*gateway));
            if let Some(destination) = outside.and_then(|gateway| Prefix::new(gateway, 32)) {
                routes.push(Route { destination, gateway: None, metric: None });
            }
            routes.push(route.clone());
        }
        let is_fixed = |theirs: &Route| {
            self.applied && self.asked.config.routes.iter().any(|mine| mine.destination == theirs.destination)
        };
        routes.retain(|theirs| !is_fixed(theirs));
        routes
    }

    /// Asks for more time when the lease is half over (RFC 2131 §4.4.5).
    pub(in crate::apply::network) fn renew(&mut self, now: Duration) {
        if let Some(lease) = &self.lease
            && self.client.is_none()
            && now >= lease.renew_at()
        {
            self.renewing = true;
            self.client = self.asker().map(|asker| Client::renewing(asker, lease, random(), now));
        }
    }

    /// Whether it waits for more time from a DHCP server, or for another lease where there was one.
    pub(in crate::apply::network) fn is_renewing(&self) -> bool {
        self.renewing && self.client.is_some()
    }

    /// `None`: an address that DHCP has no room for.
    pub(super) fn asker(&self) -> Option<Asker> {
        let mac = HardwareAddress::new(&self.message.address)?;
        Some(Asker { hardware: self.message.hardware, mac, hostname: self.asked.hostname.clone() })
    }
}
