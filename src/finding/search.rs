//! Looks places up with the name servers of the network: the service of a domain, and the addresses of its hosts. Never connects to
//! one.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::BorrowedFd;

use super::{MOST, Sought};
use crate::apply::network::AppliedLink;
use crate::dns::ask::{No, Outcome, ask};
use crate::dns::{Data, Kind, Service, in_order};
use crate::payload::{DnsName, UrlHost};
use crate::pipe::Target;
use crate::shown::Printable;

/// What a link knows.
pub(super) struct Resolver {
    index: u32,
    name: String,
    servers: Vec<SocketAddr>,
    domains: Vec<DnsName>,
}

/// Places to call at.
pub(super) struct Found {
    pub(super) targets: Vec<Target>,
    /// What a person should know of them.
    pub(super) words: Option<String>,
}

/// One look at everything.
pub(super) struct Search<'a> {
    pub(super) resolvers: &'a [Resolver],
    /// Nothing is waited for once it is readable.
    pub(super) stop: BorrowedFd<'a>,
    /// Why something was not found.
    pub(super) words: Vec<String>,
}

/// So much of what was not found is said. A domain may name a thousand doors, and a person reads one line.
const SAID: usize = 4;

/// The name of the service (RFC 2782, RFC 6335 §5.2).
const SERVICE: &str = "_imprint._tcp";
/// The port of DNS.
const PORT: u16 = 53;
/// The most domains of one link that are asked.
const DOMAINS: usize = 8;
const REMEDY: &str = "give imprint.server=HOST or imprint.domain=DOMAIN";

impl Resolver {
    pub(super) fn of(link: &AppliedLink) -> Resolver {
        let mut servers = Vec::new();
        for server in link.all_dns() {
            let server = at(server.address, PORT, link.index);
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        let mut domains: Vec<DnsName> = Vec::new();
        for domain in link.all_search().chain(link.lease.iter().flat_map(|lease| lease.domain.iter().cloned())) {
            if !domains.contains(&domain) && domains.len() < DOMAINS {
                domains.push(domain);
            }
        }
        Resolver { index: link.index, name: link.name.to_string(), servers, domains }
    }
}

/// A link-local address means nothing without its link.
fn at(address: IpAddr, port: u16, link: u32) -> SocketAddr {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, port, 0, link).into(),
        address => SocketAddr::new(address, port),
    }
}

impl Search<'_> {
    /// Why nothing more was found, in one line.
    pub(super) fn words(&self) -> String {
        let said: Vec<&str> = self.words.iter().take(SAID).map(String::as_str).collect();
        let more = match self.words.len().saturating_sub(SAID) {
            0 => String::new(),
            more => format!("; and {more} more like these"),
        };
        said.join("; ") + &more
    }

    pub(super) fn find(&mut self, sought: &Sought, found: &mut dyn FnMut(Found)) {
        match sought {
            Sought::Host(UrlHost::Ip(address), port) => {
                let links: Vec<u32> = self.resolvers.iter().map(|resolver| resolver.index).collect();
                let mut targets: Vec<Target> = Vec::new();
                for target in links.into_iter().map(|link| Target::Tcp(at(*address, *port, link))) {
                    if !targets.contains(&target) {
                        targets.push(target);
                    }
                }
                found(Found { targets, words: None });
            }
            Sought::Host(UrlHost::Dns(name), port) => self.host(name, *port, found),
            Sought::Service(domain) => self.service(domain.as_ref(), found),
        }
    }

    /// A host by its name. A name without a dot is looked for in the domains of the network first.
    fn host(&mut self, name: &DnsName, port: u16, found: &mut dyn FnMut(Found)) {
        for resolver in with_servers(self.resolvers, &mut self.words) {
            let whole = name.as_str();
            let mut names = Vec::new();
            if !whole.contains('.') {
                names.extend(resolver.domains.iter().map(|domain| format!("{whole}.{domain}")));
            }
            names.push(whole.to_owned());
            for name in names {
                let (addresses, why) = self.addresses(resolver, &name);
                if addresses.is_empty() {
                    self.words.extend(why);
                    continue;
                }
                let targets = addresses.iter().map(|address| Target::Tcp(at(*address, port, resolver.index)));
                let words = format!("{name} is {}", listed(&addresses));
                found(Found { targets: targets.collect(), words: Some(words) });
                break;
            }
        }
    }

    /// The service of a domain, or of each domain of the network.
    fn service(&mut self, domain: Option<&DnsName>, found: &mut dyn FnMut(Found)) {
        for resolver in with_servers(self.resolvers, &mut self.words) {
            let domains = domain.map_or(resolver.domains.as_slice(), std::slice::from_ref);
            if domains.is_empty() {
                self.words.push(format!(
                    "neither DHCP (options 15 and 119) nor a router (DNSSL) names a domain on {}; {REMEDY}",
                    resolver.name
                ));
            }
            for domain in domains {
                self.service_of(resolver, &format!("{SERVICE}.{domain}"), found);
            }
        }
    }

    fn service_of(&mut self, resolver: &Resolver, name: &str, found: &mut dyn FnMut(Found)) {
        let (records, answer) = match ask(&resolver.servers, name, Kind::Srv, self.stop) {
            Outcome::Found(records, answer) => (records, answer),
            Outcome::Stopped => return,
            none => {
                self.words.push(format!("{}; {REMEDY}", why(name, Kind::Srv, &none)));
                return;
            }
        };
        let services = records.into_iter().filter_map(|record| match record {
            Data::Service(service) => Some(service),
            _ => None,
        });
        let places = in_order(services.collect(), MOST, &mut random);
        for Service { port, target, .. } in places {
            // RFC 2782: "a Target of "." means that the service is decidedly not available at this domain".
            if target.is_empty() {
                self.words.push(format!("{name} says that this domain has no door (\".\"); {REMEDY}"));
                continue;
            }
            let (mut addresses, mut none) = (answer.added(&target), None);
            if addresses.is_empty() {
                (addresses, none) = self.addresses(resolver, &target);
            }
            if addresses.is_empty() {
                let none = none.unwrap_or_else(|| "it has no address".to_owned());
                self.words.push(format!("{name} names {}: {none}", Printable::up_to(&target, 80)));
                continue;
            }
            let targets = addresses.iter().map(|address| Target::Tcp(at(*address, port, resolver.index)));
            let words =
                format!("{name} names {} port {port}, which is {}", Printable::up_to(&target, 80), listed(&addresses));
            found(Found { targets: targets.collect(), words: Some(words) });
        }
    }

    /// The addresses of a host, IPv6 and IPv4 in turns (RFC 8305 §4). Without one, why.
    fn addresses(&self, resolver: &Resolver, name: &str) -> (Vec<IpAddr>, Option<String>) {
        let mut families: Vec<Vec<IpAddr>> = Vec::new();
        let mut none = None;
        for kind in [Kind::Aaaa, Kind::A] {
            match ask(&resolver.servers, name, kind, self.stop) {
                Outcome::Found(records, _) => families.push(records.into_iter().filter_map(address).collect()),
                Outcome::Stopped => return (Vec::new(), None),
                outcome => none = Some(why(name, kind, &outcome)),
            }
        }
        let mut all: Vec<IpAddr> = Vec::new();
        for place in 0..MOST {
            let next = families.iter().filter_map(|family| family.get(place).copied());
            for address in next {
                if !all.contains(&address) && all.len() < MOST {
                    all.push(address);
                }
            }
        }
        let none = none.filter(|_| all.is_empty());
        (all, none)
    }
}

/// The links that have a name server. Without any, that is why nothing is found.
fn with_servers<'a>(resolvers: &'a [Resolver], words: &mut Vec<String>) -> Vec<&'a Resolver> {
    let with: Vec<&Resolver> = resolvers.iter().filter(|resolver| !resolver.servers.is_empty()).collect();
    if with.is_empty() {
        let links: Vec<&str> = resolvers.iter().map(|resolver| resolver.name.as_str()).collect();
        words.push(format!(
            "neither DHCP (option 6) nor a router (RDNSS) names a name server on {}; give imprint.server=ADDRESS",
            links.join(" or ")
        ));
    }
    with
}

fn address(data: Data) -> Option<IpAddr> {
    match data {
        Data::Address(address) => Some(address),
        _ => None,
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// `SRV _imprint._tcp.example.org: 192.0.2.53 says there is no such name`
fn why(name: &str, kind: Kind, outcome: &Outcome) -> String {
    let name = Printable::up_to(name, 300);
    let mut text = format!("{kind} {name}: ");
    let mut add = |server: &SocketAddr, no: &No| {
        let separator = if text.ends_with(": ") { "" } else { ", " };
        let says = if matches!(no, No::Name | No::Record | No::Circle) { " says:" } else { ":" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{}{says} {no}", server.ip());
    };
    match outcome {
        Outcome::None(server, no) => add(server, no),
        Outcome::Failed(all) => all.iter().for_each(|(server, no)| add(server, no)),
        Outcome::Found(..) | Outcome::Stopped => {}
    }
    text
}

/// A number from 0 to `most`, for the share of load. Without randomness it is 0.
fn random(most: u32) -> u32 {
    let mut random = [0; 4];
    let _ = aws_lc_rs::rand::fill(&mut random);
    u32::from_le_bytes(random).checked_rem(most.saturating_add(1)).unwrap_or(0)
}
