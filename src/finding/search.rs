//! Looks places up with the name servers of the network: the service of a domain, and the addresses of its hosts. Never connects to
//! one.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::BorrowedFd;

use super::Wanted;
use crate::apply::network::AppliedLink;
use crate::dns::ask::{self, Outcome, Until, ask};
use crate::dns::local::PORT;
use crate::dns::{Answer, Data, Kind, Service, in_order};
use crate::payload::{DnsName, UrlHost};
use crate::pipe::Target;
use crate::shown::Printable;
use crate::time::Deadline;

/// What a link knows.
pub(super) struct Resolver {
    index: u32,
    name: String,
    servers: Vec<SocketAddr>,
    domains: Vec<DnsName>,
}

/// What a look has found.
#[derive(Default)]
pub(super) struct Places {
    /// Places to call at, the first ones first.
    pub(super) targets: Vec<Target>,
    /// What a person should know of them.
    pub(super) found: Vec<String>,
    /// Why something was not found.
    pub(super) missing: Vec<String>,
}

/// One look at everything. All questions that do not need the answer to another are asked at once, so it takes as long as the slowest
/// two.
pub(super) struct Look<'a> {
    pub(super) resolvers: &'a [Resolver],
    /// Nothing is waited for once it is readable.
    pub(super) stop: BorrowedFd<'a>,
}

/// The most places of one domain, and the most addresses of one place.
const PLACES: usize = 16;
/// The most domains of one link that are asked.
const DOMAINS: usize = 8;
/// A question has its own thread, which needs little: a message and some names.
const STACK: usize = 128 * 1024;

/// The name of the service (RFC 2782, RFC 6335 §5.2).
const SERVICE: &str = "_imprint._tcp";
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
        // The domain of the machine itself (option 15) first: a long list must not push it out.
        let own = link.lease.iter().flat_map(|lease| lease.domain.iter().cloned());
        for domain in own.chain(link.all_search()) {
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

impl Look<'_> {
    pub(super) fn all(&self, wanted: &[Wanted]) -> Places {
        let mut all = Places::default();
        for wanted in wanted {
            let parts = match wanted {
                Wanted::Host(UrlHost::Ip(address), port) => {
                    let target = |resolver: &Resolver| Target::Tcp(at(*address, *port, resolver.index));
                    let targets = self.resolvers.iter().map(target).collect();
                    vec![Places { targets, ..Places::default() }]
                }
                Wanted::Host(UrlHost::Dns(name), port) => {
                    self.at_once(&self.with_servers(&mut all), |resolver| self.host(resolver, name, *port))
                }
                Wanted::Service(domain) => {
                    let with = self.with_servers(&mut all);
                    let domains = domains(&with, domain.as_ref(), &mut all);
                    self.at_once(&domains, |(resolver, domain)| self.service(resolver, domain))
                }
            };
            // The first place of each domain, then the second of each: no domain can put the places of another off.
            let most = parts.iter().map(|part| part.targets.len()).max().unwrap_or(0);
            for place in 0..most {
                parts.iter().filter_map(|part| part.targets.get(place)).for_each(|target| all.call(target));
            }
            for Places { found, missing, .. } in parts {
                all.found.extend(found);
                all.missing.extend(missing);
            }
        }
        all
    }

    fn until(&self) -> Until<'_> {
        Until { stop: self.stop, deadline: Deadline::after(ask::ALL), tcp: false }
    }

    /// The links that have a name server. Without any, that is why nothing is found.
    fn with_servers(&self, all: &mut Places) -> Vec<&Resolver> {
        let with: Vec<&Resolver> = self.resolvers.iter().filter(|resolver| !resolver.servers.is_empty()).collect();
        if with.is_empty() {
            let links: Vec<&str> = self.resolvers.iter().map(|resolver| resolver.name.as_str()).collect();
            all.missing.push(format!(
                "neither DHCP (option 6) nor a router (RDNSS) names a name server on {}; give imprint.server=ADDRESS",
                links.join(" or ")
            ));
        }
        with
    }

    /// What becomes of each of these, in their order. `one` only waits, so each has a thread. Where the machine has none, it finds
    /// nothing this time.
    fn at_once<T: Sync>(&self, all: &[T], one: impl Fn(&T) -> Places + Sync) -> Vec<Places> {
        let one = &one;
        std::thread::scope(|scope| {
            let begin = |item| std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, move || one(item));
            let begun: Vec<_> = all.iter().map(begin).collect();
            begun.into_iter().filter_map(|thread| thread.ok()?.join().ok()).collect()
        })
    }

    /// A host by its name. A name without a dot is looked for in the domains of the network first.
    fn host(&self, resolver: &Resolver, whole: &DnsName, port: u16) -> Places {
        let mut places = Places::default();
        let whole = whole.as_str();
        let mut names = Vec::new();
        if !whole.contains('.') {
            names.extend(resolver.domains.iter().map(|domain| format!("{whole}.{domain}")));
        }
        names.push(whole.to_owned());
        for name in names {
            let (addresses, why) = self.addresses(resolver, &name, &[]);
            if !addresses.is_empty() {
                places.found.push(format!("{name} is {}", and(&addresses)));
                places.targets.extend(addresses.iter().map(|address| Target::Tcp(at(*address, port, resolver.index))));
                break;
            }
            places.missing.extend(why);
        }
        places
    }

    /// The service of a domain.
    fn service(&self, resolver: &Resolver, domain: &DnsName) -> Places {
        let name = format!("{SERVICE}.{domain}");
        let (records, answer) = match ask(&resolver.servers, &name, Kind::Srv, self.until()) {
            Outcome::Found(records, answer) => (records, answer),
            Outcome::Stopped => return Places::default(),
            none => return Places::missing(format!("{}; {REMEDY}", why(&name, Kind::Srv, &none))),
        };
        let services = records.into_iter().filter_map(|record| match record {
            Data::Service(service) => Some(service),
            _ => None,
        });
        let services = in_order(services.collect(), PLACES, &mut random);
        let mut all = Places::default();
        let of_one = |service: &Service| self.place(resolver, &name, service, &answer);
        for Places { targets, found, missing } in self.at_once(&services, of_one) {
            targets.iter().for_each(|target| all.call(target));
            all.found.extend(found);
            all.missing.extend(missing);
        }
        all
    }

    /// One place of a service. `name`: the service and its domain.
    fn place(&self, resolver: &Resolver, name: &str, service: &Service, answer: &Answer) -> Places {
        let Service { port, target, .. } = service;
        // RFC 2782: "a Target of "." means that the service is decidedly not available at this domain".
        if target.is_empty() {
            return Places::missing(format!("{name} says that this domain has no door (\".\"); {REMEDY}"));
        }
        let (addresses, none) = self.addresses(resolver, target, &answer.added(target));
        let target = Printable::up_to(target, 80);
        if addresses.is_empty() {
            let none = none.unwrap_or_else(|| "it has no address".to_owned());
            return Places::missing(format!("{name} names {target}: {none}"));
        }
        Places {
            targets: addresses.iter().map(|address| Target::Tcp(at(*address, *port, resolver.index))).collect(),
            found: vec![format!("{name} names {target} port {port}, which is {}", and(&addresses))],
            missing: Vec::new(),
        }
    }

    /// The addresses of a host, IPv6 and IPv4 in turns (RFC 8305 §4). Without one, why. `known`: addresses that came with another
    /// answer; their family is not asked for.
    fn addresses(&self, resolver: &Resolver, name: &str, known: &[IpAddr]) -> (Vec<IpAddr>, Option<String>) {
        let family = |kind| -> Result<Vec<IpAddr>, Option<String>> {
            let known: Vec<IpAddr> = known.iter().copied().filter(|ip| ip.is_ipv6() == (kind == Kind::Aaaa)).collect();
            if !known.is_empty() {
                return Ok(known);
            }
            match ask(&resolver.servers, name, kind, self.until()) {
                Outcome::Found(records, _) => Ok(records.into_iter().filter_map(address).collect()),
                Outcome::Stopped => Err(None),
                outcome => Err(Some(why(name, kind, &outcome))),
            }
        };
        let families = std::thread::scope(|scope| {
            let six = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || family(Kind::Aaaa));
            let four = family(Kind::A);
            [six.ok().and_then(|six| six.join().ok()).unwrap_or(Err(None)), four]
        });
        let mut all: Vec<IpAddr> = Vec::new();
        for place in 0..PLACES {
            for address in families.iter().flatten().filter_map(|family| family.get(place)) {
                if !all.contains(address) && all.len() < PLACES {
                    all.push(*address);
                }
            }
        }
        let none = families.into_iter().filter_map(Result::err).flatten().last();
        (all, none)
    }
}

impl Places {
    fn missing(why: String) -> Places {
        Places { missing: vec![why], ..Places::default() }
    }

    fn call(&mut self, target: &Target) {
        if !self.targets.contains(target) {
            self.targets.push(target.clone());
        }
    }
}

/// Each domain that is asked, with the link whose name servers know it. `domain`: this one alone.
fn domains<'a>(
    with: &[&'a Resolver],
    domain: Option<&'a DnsName>,
    all: &mut Places,
) -> Vec<(&'a Resolver, &'a DnsName)> {
    let mut domains = Vec::new();
    for resolver in with {
        let of_link = domain.map_or(resolver.domains.as_slice(), std::slice::from_ref);
        if of_link.is_empty() {
            all.missing.push(format!(
                "neither DHCP (options 15 and 119) nor a router (DNSSL) names a domain on {}; {REMEDY}",
                resolver.name
            ));
        }
        domains.extend(of_link.iter().map(|domain| (*resolver, domain)));
    }
    domains
}

fn address(data: Data) -> Option<IpAddr> {
    match data {
        Data::Address(address) => Some(address),
        _ => None,
    }
}

fn and(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// `SRV _imprint._tcp.example.org: 192.0.2.53 says: there is no such name`
fn why(name: &str, kind: Kind, outcome: &Outcome) -> String {
    format!("{kind} {}: {}", Printable::up_to(name, 300), outcome.said())
}

/// A number from 0 to `most`, for the share of load. Without randomness it is 0.
fn random(most: u32) -> u32 {
    let mut random = [0; 4];
    let _ = aws_lc_rs::rand::fill(&mut random);
    u32::from_le_bytes(random).checked_rem(most.saturating_add(1)).unwrap_or(0)
}
