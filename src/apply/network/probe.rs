//! Asks for the neighbours that a static address would be used with (ARP, neighbour discovery). Where several links may
//! be the right one, the address must not go to a link on which no neighbour answers. Decides nothing.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::packet::{AT_ONCE, ETH_P_ARP, ETH_P_IPV6, Socket};
use crate::neighbour;
use crate::plan::LinkConfig;

/// The time between two rounds of questions.
const AGAIN: Duration = Duration::from_secs(1);

/// Questions on one link, and the sockets on which the answers arrive.
pub(super) struct Probe {
    mac: [u8; 6],
    /// Our address that a question comes from, and the address that it asks for.
    questions: Vec<(IpAddr, IpAddr)>,
    arp: Socket,
    nd: Socket,
    pub(super) rounds: u32,
    next: Duration,
}

/// The addresses on the link that the payload names: gateways, name servers, EST servers. Each stands behind our
/// address to ask from.
fn questions(config: &LinkConfig, servers: &[IpAddr]) -> Vec<(IpAddr, IpAddr)> {
    let gateways = config.routes.iter().filter_map(|route| route.gateway);
    let mut all = Vec::new();
    for target in gateways.chain(config.dns.iter().copied()).chain(servers.iter().copied()) {
        if let Some(from) = config.address_towards(target)
            && !all.iter().any(|(_, asked)| *asked == target)
        {
            all.push((from, target));
        }
    }
    all
}

impl Probe {
    /// `None`: there is no neighbour to ask for, or the link is not Ethernet.
    pub(super) fn new(
        index: u32,
        mac: &[u8],
        config: &LinkConfig,
        servers: &[IpAddr],
        now: Duration,
    ) -> io::Result<Option<Probe>> {
        let questions = questions(config, servers);
        let Ok(mac) = <[u8; 6]>::try_from(mac) else { return Ok(None) };
        if questions.is_empty() {
            return Ok(None);
        }
        let (arp, nd) = (Socket::open(index, ETH_P_ARP)?, Socket::open(index, ETH_P_IPV6)?);
        Ok(Some(Probe { mac, questions, arp, nd, rounds: 0, next: now }))
    }

    /// Sends the questions when they are due. Returns when they are due next.
    pub(super) fn poll(&mut self, now: Duration) -> io::Result<Duration> {
        if now >= self.next {
            for (from, target) in &self.questions {
                match (from, target) {
                    (IpAddr::V4(from), IpAddr::V4(target)) => {
                        self.arp.send(&[0xff; 6], &neighbour::arp_request(self.mac, *from, *target))?;
                    }
                    (IpAddr::V6(from), IpAddr::V6(target)) => {
                        let packet = neighbour::solicitation(self.mac, *from, *target);
                        self.nd.send(&neighbour::solicited_node_mac(*target), &packet)?;
                    }
                    _ => {}
                }
            }
            self.rounds = self.rounds.saturating_add(1);
            self.next = now.saturating_add(AGAIN);
        }
        Ok(self.next)
    }

    /// Whether a neighbour that was asked for has answered.
    pub(super) fn heard(&self, buffer: &mut [u8]) -> io::Result<bool> {
        let asked = |from: IpAddr| self.questions.iter().any(|(_, target)| *target == from);
        for _ in 0..AT_ONCE {
            let Some(packet) = self.arp.receive(buffer)? else { break };
            if neighbour::arp_reply(packet).is_some_and(|from| asked(from.into())) {
                return Ok(true);
            }
        }
        for _ in 0..AT_ONCE {
            let Some(packet) = self.nd.receive(buffer)? else { break };
            if neighbour::advertisement(packet).is_some_and(|from| asked(from.into())) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn sockets(&self) -> [&Socket; 2] {
        [&self.arp, &self.nd]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{Prefix, Route};

    #[test]
    fn whom_to_ask_for() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let config = LinkConfig {
            addresses: ["192.0.2.10/24", "2001:db8::10/64"].map(|text| Prefix::parse(text).unwrap()).to_vec(),
            routes: vec![Route {
                destination: Prefix::parse("0.0.0.0/0").unwrap(),
                gateway: Some(ip("192.0.2.1")),
                metric: None,
            }],
            dns: vec![ip("192.0.2.1"), ip("198.51.100.53"), ip("2001:db8::53")],
            ..LinkConfig::default()
        };
        let mine = (ip("192.0.2.10"), ip("2001:db8::10"));
        assert_eq!(
            questions(&config, &[ip("192.0.2.7"), ip("192.0.2.10")]),
            [(mine.0, ip("192.0.2.1")), (mine.1, ip("2001:db8::53")), (mine.0, ip("192.0.2.7"))]
        );
        assert_eq!(questions(&LinkConfig::default(), &[ip("192.0.2.7")]), []);
        // A /32 address, and a route to its gateway.
        let route = |to: &str, via: Option<&str>| Route {
            destination: Prefix::parse(to).unwrap(),
            gateway: via.map(ip),
            metric: None,
        };
        let alone = LinkConfig {
            addresses: vec![Prefix::parse("203.0.113.7/32").unwrap()],
            routes: vec![route("0.0.0.0/0", Some("172.31.1.1")), route("172.31.1.1/32", None)],
            ..LinkConfig::default()
        };
        assert_eq!(questions(&alone, &[ip("192.0.2.7")]), [(ip("203.0.113.7"), ip("172.31.1.1"))]);
    }
}
