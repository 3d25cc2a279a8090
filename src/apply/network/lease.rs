//! What a link gets by DHCP: the questions, the lease, and the parts of the lease that the kernel has. Never decides
//! anything about other links.
//!
//! Nobody vouches for a DHCP server: any machine on the link may answer. Its lease is used as far as the kernel accepts
//! it. The payload's own routes and MTU take precedence.

use std::time::Duration;

use super::NetworkError;
use super::before::Before;
use super::kernel::{Kernel, On};
use super::packet::{AT_ONCE, ETH_P_IP, Socket};
use crate::chain::chain;
use crate::dhcp4::{Asker, Client, Event, Lease};
use crate::netlink::RequestError;
use crate::payload::{Prefix, Route};
use crate::plan::LinkConfig;
use crate::time::since_boot;

/// A link's lease, or the attempt to get one.
#[derive(Default)]
pub(super) struct Leased {
    /// Opened before the link goes up, so that no packet is missed.
    socket: Option<Socket>,
    /// The client, while it asks for a lease.
    client: Option<Client>,
    /// The client's last state in words.
    state: Option<String>,
    lease: Option<Lease>,
    /// Routes of the lease that the kernel has.
    routes: Vec<Route>,
    /// There was a lease, which is to be extended or replaced.
    renewing: bool,
    /// What came with the lease and is not used, with the reason.
    unused: Vec<String>,
}

/// The link that a lease is for.
pub(super) struct Onto<'a> {
    pub(super) on: On<'a>,
    pub(super) config: &'a LinkConfig,
    /// Whether the payload's own routes are set.
    pub(super) applied: bool,
    pub(super) mtu: u32,
    /// The link's broadcast hardware address.
    pub(super) broadcast: &'a [u8],
    /// The link as it was before, if it is used for a while only.
    pub(super) before: Option<&'a Before>,
    /// Why a link-local address is of no use on this link.
    pub(super) no_link_local: Option<&'static str>,
}

impl Leased {
    pub(super) fn open(&mut self, on: On<'_>) -> Result<(), NetworkError> {
        self.socket = Some(Socket::open(on.index, ETH_P_IP).map_err(|source| on.failed(DHCP, source))?);
        Ok(())
    }

    /// Starts to ask for a lease, unless there is one: a link that loses carrier for a moment keeps its lease. Some
    /// links lose carrier when their MTU is set.
    pub(super) fn begin(&mut self, asker: Option<Asker>, now: Duration) {
        if self.socket.is_some() && self.lease.is_none() {
            self.client = asker.map(|asker| Client::new(asker, random(), now));
        }
    }

    /// Stops asking while the link has no carrier.
    pub(super) fn pause(&mut self) {
        self.client = None;
    }

    /// Stops asking for good.
    pub(super) fn close(&mut self) {
        (self.socket, self.client) = (None, None);
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Asks the DHCP server for more time when the lease is half over (RFC 2131 §4.4.5).
    pub(super) fn renew(&mut self, asker: Option<Asker>, now: Duration) {
        if let Some(lease) = &self.lease
            && self.client.is_none()
            && now >= lease.renew_at()
        {
            self.renewing = true;
            self.client = asker.map(|asker| Client::renewing(asker, lease, random(), now));
        }
    }

    /// Whether the client waits for more time from a server, or for another lease after it lost one.
    pub(super) fn is_renewing(&self) -> bool {
        self.renewing && self.client.is_some()
    }

    /// When somebody has to call [`Leased::renew`], and then [`Leased::ask`], since boot. At once as long as a server is asked.
    pub(super) fn renew_at(&self) -> Option<Duration> {
        if self.is_renewing() { Some(Duration::ZERO) } else { self.lease.as_ref().map(Lease::renew_at) }
    }

    /// The socket on which answers arrive; `None` while no server is asked.
    pub(super) fn asking(&self) -> Option<&Socket> {
        self.socket.as_ref().filter(|_| self.client.is_some())
    }

    /// Does what is due, and reads what has arrived. Returns when something is due next.
    pub(super) fn ask(
        &mut self,
        onto: &Onto<'_>,
        buffer: &mut [u8],
        kernel: &mut Kernel,
    ) -> Result<Option<Duration>, NetworkError> {
        let (Some(socket), Some(client)) = (&self.socket, &mut self.client) else { return Ok(None) };
        let mut event = None;
        for _ in 0..AT_ONCE {
            let Some(packet) = socket.receive(buffer).map_err(|source| onto.on.failed(DHCP, source))? else { break };
            event = client.push(packet, since_boot());
            if event.is_some() {
                break;
            }
        }
        let poll = client.poll(since_boot());
        if let Some(packet) = poll.send {
            socket.send(onto.broadcast, &packet).map_err(|source| onto.on.failed(DHCP, source))?;
        }
        self.state = Some(client.state());
        match event {
            Some(Event::Bound(lease)) => {
                (self.client, self.renewing) = (None, false);
                self.take(lease, onto, kernel)?;
                return Ok(None);
            }
            // RFC 2131 §4.4.5: a client that is refused, or has no answer when the lease ends, begins again without the
            // address.
            Some(Event::Refused) => self.lose(onto.on, onto.before, kernel)?,
            None if self.lease.as_ref().is_some_and(|lease| since_boot() >= lease.ends_at()) => {
                self.lose(onto.on, onto.before, kernel)?;
            }
            None => {}
        }
        Ok(Some(poll.wake))
    }

    /// Removes the address and the routes of the lease.
    pub(super) fn lose(
        &mut self,
        on: On<'_>,
        before: Option<&Before>,
        kernel: &mut Kernel,
    ) -> Result<(), NetworkError> {
        let routes = std::mem::take(&mut self.routes);
        let Some(lease) = self.lease.take() else { return Ok(()) };
        let leased = Some(lease.address.address());
        routes.iter().try_for_each(|route| kernel.drop_route(on, route, leased))?;
        // An address that the link had before is not ours.
        if before.is_some_and(|before| before.had(lease.address)) { Ok(()) } else { kernel.forget(on, lease.address) }
    }

    fn take(&mut self, lease: Lease, onto: &Onto<'_>, kernel: &mut Kernel) -> Result<(), NetworkError> {
        let Onto { on, config, .. } = *onto;
        if self.lease.as_ref().is_some_and(|before| before.address != lease.address) {
            self.lose(on, onto.before, kernel)?;
        }
        self.unused.clear();
        if let (Some(why), true) = (onto.no_link_local, is_link_local(lease.address)) {
            self.unused.push(why.to_owned());
            return Ok(());
        }
        // To set it again would give it the end of our lease.
        if !onto.before.is_some_and(|before| before.had(lease.address)) {
            kernel.address(on, lease.address, Some(lease.seconds))?;
        }
        // A DHCP server may be set up for other machines as well. What does not fit this one is reported and not used.
        let mut unused = Vec::new();
        let mut may = |done: Result<(), NetworkError>| match done {
            Err(error @ NetworkError::Refused { source: RequestError::Refused { .. }, .. }) => {
                unused.push(chain(&error));
                Ok(false)
            }
            other => other.map(|()| true),
        };
        // The payload's MTU takes precedence over the server's. An MTU that is right already is not set: setting it may
        // cost the link its carrier.
        match (config.mtu, lease.mtu) {
            (None, Some(mtu)) if mtu >= config.least_mtu() && onto.mtu != u32::from(mtu) => {
                let _ = may(kernel.mtu(on, mtu))?;
            }
            _ => {}
        }
        let fixed = if onto.applied { config.routes.as_slice() } else { &[] };
        let (mut wanted, leased) = (routes(&lease, fixed), Some(lease.address.address()));
        self.unused = unusable(&lease, config, wanted.len());
        wanted.truncate(ROUTES);
        // Routes that the server does not give any more.
        let (mut there, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.routes).into_iter().partition(|route| wanted.contains(route));
        gone.iter().try_for_each(|route| kernel.drop_route(on, route, leased))?;
        // A route that is set already is not set again: it would take the place of another link's route.
        for route in wanted {
            if !there.contains(&route) && may(kernel.route(on, &route, leased))? {
                there.push(route);
            }
        }
        self.routes = there;
        self.unused.extend(unused);
        self.lease = Some(lease);
        Ok(())
    }

    /// Gives the routes of the lease the metric that systemd-networkd gives such routes, so that networkd takes them
    /// for its own.
    pub(super) fn settle(&mut self, on: On<'_>, kernel: &mut Kernel) -> Result<(), NetworkError> {
        let Some(lease) = &self.lease else { return Ok(()) };
        let leased = Some(lease.address.address());
        for route in self.routes.iter_mut().filter(|route| route.metric.is_none()) {
            let settled = Route { metric: METRIC, ..route.clone() };
            // To the kernel, a request without a metric means the route with the smallest metric. The route without a
            // metric still exists here, so the request removes that one.
            if kernel.route(on, &settled, leased).is_ok() {
                kernel.drop_route(on, route, leased)?;
                *route = settled;
            }
        }
        Ok(())
    }

    /// The client's last state in words.
    pub(super) fn state(&self) -> Option<&String> {
        self.state.as_ref()
    }

    /// What came with the lease and is not used, with the reason, in words.
    pub(super) fn unused(&self) -> &[String] {
        &self.unused
    }
}

/// The routes of a lease, each once, routes to gateways first. A route of the payload to the same destination takes
/// precedence.
fn routes(lease: &Lease, fixed: &[Route]) -> Vec<Route> {
    let on_link = || lease.routes.iter().filter(|route| route.gateway.is_none());
    let mut routes: Vec<Route> = on_link().cloned().collect();
    for gateway in lease.routes.iter().filter_map(|route| route.gateway) {
        // A gateway outside the lease's network is still on the link. Clouds with /32 leases have such gateways.
        let reached = lease.address.contains(gateway) || on_link().any(|route| route.destination.contains(gateway));
        if !reached && let Some(destination) = Prefix::new(gateway, 32) {
            routes.push(Route { destination, gateway: None, metric: None });
        }
    }
    routes.extend(lease.routes.iter().filter(|route| route.gateway.is_some()).cloned());
    let mut once: Vec<Route> = Vec::new();
    for route in routes {
        if !once.contains(&route) && !fixed.iter().any(|mine| mine.destination == route.destination) {
            once.push(route);
        }
    }
    once
}

/// What of a lease is not used, whatever the kernel says to it: with the reason, and where to mend it. `routes`: how many there are.
fn unusable(lease: &Lease, config: &LinkConfig, routes: usize) -> Vec<String> {
    let mut unusable = Vec::new();
    if let (None, Some(mtu)) = (config.mtu, lease.mtu.filter(|mtu| *mtu < config.least_mtu())) {
        let who = if config.has_ipv6() { "IPv6" } else { "TLS" };
        unusable.push(format!("MTU {mtu} of the DHCP server is not used, {who} needs {}", config.least_mtu()));
    }
    for code in &lease.unread {
        unusable.push(match code {
            0 => "an option of the DHCP server that is longer than its message is not used".to_owned(),
            code => format!("option {code} of the DHCP server cannot be read and is not used"),
        });
    }
    if routes > ROUTES {
        unusable.push(format!("only the first {ROUTES} of the DHCP server's {routes} routes are used"));
    }
    unusable
}

/// RFC 3927
fn is_link_local(prefix: Prefix) -> bool {
    matches!(prefix.address(), std::net::IpAddr::V4(address) if address.is_link_local())
}

/// The most routes of a lease. A message without fragments has no more, whatever the MTU of other links is.
const ROUTES: usize = 192;

/// systemd.network(5), RouteMetric= in [DHCPv4]
const METRIC: Option<u32> = Some(1024);

pub(super) const DHCP: &str = "asking for an address by DHCPv4";

/// Random bytes for transaction numbers and jitter. They are no secrets, so the time will do where there is no
/// randomness.
pub(super) fn random() -> [u8; 8] {
    let mut random = [0; 8];
    if aws_lc_rs::rand::fill(&mut random).is_err() {
        let now = since_boot().as_nanos().to_le_bytes();
        random.copy_from_slice(now.first_chunk::<8>().unwrap_or(&[0; 8]));
    }
    random
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    fn route(to: &str, via: Option<&str>) -> Route {
        let gateway = via.map(|via| via.parse().unwrap());
        Route { destination: Prefix::parse(to).unwrap(), gateway, metric: None }
    }

    fn lease(address: &str, routes: &[Route]) -> Lease {
        Lease {
            address: Prefix::parse(address).unwrap(),
            server: "172.31.1.1".parse().unwrap(),
            routes: routes.to_vec(),
            dns: Vec::new(),
            search: Vec::new(),
            domain: Vec::new(),
            mtu: None,
            unread: Vec::new(),
            seconds: 3600,
            bound: Duration::ZERO,
            renew: Duration::ZERO,
        }
    }

    /// The server is away for the rest of the lease, and then some. The address is gone, and a node that waited for the end of a
    /// lease which it had no more never asked for another.
    #[test]
    fn a_lease_that_was_lost_is_asked_for_until_there_is_another() {
        let asker = || {
            let mac = crate::payload::HardwareAddress::new(&[2, 0, 0, 0, 0, 1]).unwrap();
            Some(Asker { hardware: 1, mac, client_id: None, hostname: None })
        };
        let at = Duration::from_secs;
        let mut leased =
            Leased { lease: Some(Lease { renew: at(1800), ..lease("192.0.2.7/24", &[]) }), ..Leased::default() };
        assert_eq!(leased.renew_at(), Some(at(1800)));
        leased.renew(asker(), at(1799));
        assert!(!leased.is_renewing(), "too early");
        leased.renew(asker(), at(1800));
        for ended in [false, true] {
            if ended {
                leased.lease = None;
            }
            assert!(leased.is_renewing());
            assert_eq!(leased.renew_at(), Some(Duration::ZERO));
        }
        // Without carrier nobody is asked, and a link with carrier again begins anew.
        leased.pause();
        assert_eq!(leased.renew_at(), None);
    }

    #[test]
    fn what_is_not_used_is_said() {
        let given = |mtu, unread: &[u8]| Lease { mtu, unread: unread.to_vec(), ..lease("192.0.2.7/24", &[]) };
        let four = LinkConfig { dhcp4: true, ..LinkConfig::default() };
        let six = LinkConfig { slaac: true, ..four.clone() };
        let mtu = |mtu, who: &str| vec![format!("MTU {mtu} of the DHCP server is not used, {who}")];
        for (value, config, want) in [
            (68, &four, mtu(68, "TLS needs 576")),
            (575, &four, mtu(575, "TLS needs 576")),
            (576, &four, vec![]),
            (68, &six, mtu(68, "IPv6 needs 1280")),
            (1279, &six, mtu(1279, "IPv6 needs 1280")),
            (1280, &six, vec![]),
            // The payload's MTU takes precedence, so the server's does not matter.
            (68, &LinkConfig { mtu: Some(1500), ..six.clone() }, vec![]),
        ] {
            assert_eq!(unusable(&given(Some(value), &[]), config, ROUTES), want, "{value}");
        }
        assert_eq!(
            unusable(&given(None, &[0, 121]), &four, 300),
            [
                "an option of the DHCP server that is longer than its message is not used",
                "option 121 of the DHCP server cannot be read and is not used",
                "only the first 192 of the DHCP server's 300 routes are used",
            ]
        );
    }

    #[test]
    fn the_way_to_a_gateway_is_there_once_and_first() {
        let (way, default) = (route("172.31.1.1/32", None), route("0.0.0.0/0", Some("172.31.1.1")));
        let want = [way.clone(), default.clone()];
        for given in [&[way.clone(), default.clone()][..], &[default.clone(), way.clone()], from_ref(&default)] {
            assert_eq!(routes(&lease("203.0.113.7/32", given), &[]), want, "{given:?}");
        }
        // A wider route will do, and so does the address' own network.
        let wide = route("172.31.0.0/16", None);
        assert_eq!(routes(&lease("203.0.113.7/32", &[default.clone(), wide.clone()]), &[]), [wide, default.clone()]);
        assert_eq!(routes(&lease("172.31.1.7/24", from_ref(&default)), &[]), from_ref(&default));
        // The payload's routes take precedence.
        let mine = [route("0.0.0.0/0", Some("203.0.113.1"))];
        assert_eq!(routes(&lease("203.0.113.7/32", &[default]), &mine), [way]);
    }
}
