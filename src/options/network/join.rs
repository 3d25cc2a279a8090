//! Joins what single words say to the links of one network: each on those below it, which stand before it. Never reads a word but
//! `nameserver=` and `rd.route=`.

use super::made::Made;
use super::{Entry, address, blank, merge, route};
use crate::order;
use crate::payload::{HardwareAddress, InterfaceName, Link, LinkKind, Match};

/// What the words say beside the links.
pub(super) struct Others<'a> {
    pub(super) bootdev: Option<InterfaceName>,
    /// The link of an `ip=` that names none.
    pub(super) any: Match,
    pub(super) renames: &'a [(InterfaceName, HardwareAddress)],
    pub(super) servers: Vec<&'a str>,
    pub(super) routes: Vec<&'a str>,
}

type Making = (InterfaceName, Made, String);

/// Takes the word, its value, and why it is not used.
type Leave<'a> = dyn FnMut(&str, &str, &str) + 'a;

/// Of a stack of links, more than anybody builds.
const DEPTH: usize = 8;

pub(super) fn join(
    mut entries: Vec<Entry>,
    making: Vec<Making>,
    others: &Others<'_>,
    leave: &mut Leave<'_>,
) -> Vec<Link> {
    let mut refused = Vec::new();
    let making = sound(making, &mut refused, leave);
    give_unnamed(&mut entries, &making, others, leave);
    // A port has no addresses of its own, and a link that is not made has none either.
    entries.retain(|entry| {
        let Some(name) = &entry.name else { return true };
        let above = making.iter().find(|(_, made, _)| !matches!(made, Made::Vlan(..)) && made.lower().contains(name));
        let why = match above {
            Some((above, ..)) => format!("{name} is a port of {above}; give the addresses to {above}"),
            None if refused.contains(name) => format!("{name} is not made; correct the word that makes it"),
            None => return true,
        };
        leave_all(&entry.words, &why, leave);
        false
    });
    // The link to boot from goes before the others.
    if let Some(first) = entries.iter().position(|entry| others.bootdev.is_some() && entry.name == others.bootdev) {
        entries.get_mut(..=first).into_iter().for_each(|before| before.rotate_right(1));
    }
    add_servers(&mut entries, others, leave);
    add_routes(&mut entries, others, leave);
    // The rules of a payload's network hold here, too: what breaks them is not used.
    entries.retain(|entry| {
        let alone = Link { kind: blank().kind, ..entry.link.clone() };
        let read = Link::decode_all(&Link::encode_all(std::slice::from_ref(&alone)));
        if let Err(error) = &read {
            leave_all(&entry.words, &error.problem.to_string(), leave);
        }
        read.is_ok()
    });
    let mut placing = Placing { entries: &entries, making: &making, others, links: Vec::new(), placed: Vec::new() };
    for entry in &entries {
        let (links, placed) = (placing.links.len(), placing.placed.len());
        let done = match &entry.name {
            Some(name) => placing.place(name, 0),
            None => {
                placing.links.push(Link { kind: LinkKind::Physical(others.any.clone()), ..entry.link.clone() });
                continue;
            }
        };
        if done.is_none() {
            placing.links.truncate(links);
            placing.placed.truncate(placed);
            leave_all(
                &entry.words,
                "its link is on itself, or on too many others; correct vlan=, bond= or bridge=",
                leave,
            );
        }
    }
    let Placing { links, placed, .. } = placing;
    for (name, _, word) in &making {
        if !placed.iter().any(|(other, _)| other == name) {
            let why = format!("no ip= has {name}, or a link on it; write ip={name}:dhcp as well");
            leave_all(word, &why, leave);
        }
    }
    match links.is_empty() || Link::decode_all(&Link::encode_all(&links)).is_ok() {
        true => links,
        false => Vec::new(),
    }
}

/// `words`: one or several, each with its value.
fn leave_all(words: &str, why: &str, leave: &mut Leave<'_>) {
    if let Some((word, value)) = words.split_once('=') {
        leave(word, value, why);
    }
}

/// Leaves out what cannot be made beside what stands before it.
fn sound(making: Vec<Making>, refused: &mut Vec<InterfaceName>, leave: &mut Leave<'_>) -> Vec<Making> {
    let mut sound: Vec<Making> = Vec::new();
    let is_made: Vec<(InterfaceName, bool)> =
        making.iter().map(|(name, made, _)| (name.clone(), matches!(made, Made::Vlan(..)))).collect();
    let all_ports: Vec<(InterfaceName, InterfaceName)> = making
        .iter()
        .filter(|(_, made, _)| matches!(made, Made::Bond(..)))
        .flat_map(|(name, made, _)| made.lower().iter().map(|port| (port.clone(), name.clone())))
        .collect();
    for (name, made, word) in making {
        let port_of = |port: &InterfaceName| {
            let masters = sound.iter().filter(|(_, made, _)| !matches!(made, Made::Vlan(..)));
            masters.filter(|(_, made, _)| made.lower().contains(port)).map(|(master, ..)| master).next()
        };
        let why = if sound.iter().any(|(other, ..)| *other == name) {
            Some(format!("there is a link {name} already; give this one another name"))
        } else if made.lower().contains(&name) {
            Some(format!("{name} cannot be on itself; name the link below it"))
        } else {
            match &made {
                Made::Vlan(id, parent) => {
                    let same = |other: &Made| matches!(other, Made::Vlan(n, on) if n == id && on == parent);
                    let twin = sound.iter().find(|(_, other, _)| same(other));
                    let master = all_ports.iter().find(|(port, _)| port == parent);
                    twin.map(|(twin, ..)| format!("{twin} is VLAN {id} of {parent} already; remove one of them"))
                        .or(master.map(|(_, bond)| format!("{parent} is a port of {bond}; put the VLAN on {bond}")))
                }
                Made::Bond(_, ports, _) | Made::Bridge(ports) => {
                    let taken = ports.iter().find_map(|port| Some((port, port_of(port)?)));
                    let is_bond = matches!(made, Made::Bond(..));
                    let above = ports.iter().find(|port| is_made.iter().any(|(made, _)| made == *port));
                    taken.map(|(port, master)| format!("{port} is a port of {master} already; name it once")).or(above
                        .filter(|_| is_bond)
                        .map(|port| {
                            format!("{port} is a link to be made, and a bond's ports have to be devices; name devices")
                        }))
                }
            }
        };
        match why {
            None => sound.push((name, made, word)),
            Some(why) => {
                leave_all(&word, &why, leave);
                // Another word may have made the link of this name.
                if !sound.iter().any(|(other, ..)| *other == name) {
                    refused.push(name);
                }
            }
        }
    }
    sound
}

/// What an `ip=` without a link says is for `bootdev=`, or for the links to be made that no other `ip=` has and that no link is on.
fn give_unnamed(entries: &mut Vec<Entry>, making: &[Making], others: &Others<'_>, leave: &mut Leave<'_>) {
    let Some(at) = entries.iter().position(|entry| entry.name.is_none()) else { return };
    let has_own = |name: &InterfaceName| entries.iter().any(|entry| entry.name.as_ref() == Some(name));
    let is_lower = |name: &InterfaceName| making.iter().any(|(_, made, _)| made.lower().contains(name));
    let tops = making.iter().map(|(name, ..)| name).filter(|name| !has_own(name) && !is_lower(name));
    let targets: Vec<InterfaceName> = match &others.bootdev {
        Some(name) => vec![name.clone()],
        None => tops.cloned().collect(),
    };
    if targets.is_empty() {
        return;
    }
    let entry = entries.remove(at);
    if targets.len() > 1 && !entry.link.addresses.is_empty() {
        leave_all(&entry.words, "it names no link, and several are to be made; name one in the sixth field", leave);
        return;
    }
    for name in targets {
        merge(entries, Entry { name: Some(name), link: entry.link.clone(), words: entry.words.clone() });
    }
}

fn add_servers(entries: &mut [Entry], others: &Others<'_>, leave: &mut Leave<'_>) {
    for value in &others.servers {
        match address(value) {
            Some(server) => entries.iter_mut().for_each(|entry| {
                if !entry.link.dns.contains(&server) {
                    entry.link.dns.push(server);
                }
            }),
            None => leave("nameserver", value, "it is no address; write one, IPv6 with or without brackets"),
        }
    }
}

fn add_routes(entries: &mut [Entry], others: &Others<'_>, leave: &mut Leave<'_>) {
    for value in &others.routes {
        let Some((route, name)) = route(value) else {
            leave(
                "rd.route",
                value,
                "want NETWORK/LENGTH:GATEWAY, NETWORK/LENGTH:GATEWAY:LINK or NETWORK/LENGTH::LINK",
            );
            continue;
        };
        let of_link = entries.iter().position(|entry| name.is_some() && entry.name == name);
        let near = |entry: &Entry| {
            let reaches = |gateway| entry.link.addresses.iter().any(|prefix| prefix.contains(gateway));
            route.gateway.is_some_and(reaches)
        };
        // Without a link it is on the one whose network has the gateway, or else on the first.
        let at = match name {
            Some(_) => of_link,
            None => entries.iter().position(near).or(if entries.is_empty() { None } else { Some(0) }),
        };
        match at.and_then(|at| entries.get_mut(at)) {
            Some(entry) if !entry.link.routes.contains(&route) => {
                entry.link.routes.push(route);
                entry.words.push_str(&format!(" rd.route={value}"));
            }
            Some(_) => {}
            None => leave("rd.route", value, "no ip= has its link; write an ip= for that link as well"),
        }
    }
}

/// Links that have their place, each behind those below it.
struct Placing<'a> {
    entries: &'a [Entry],
    making: &'a [Making],
    others: &'a Others<'a>,
    links: Vec<Link>,
    placed: Vec<(InterfaceName, usize)>,
}

impl Placing<'_> {
    /// The place of the link of this name. `None`: it is on itself.
    fn place(&mut self, name: &InterfaceName, depth: usize) -> Option<usize> {
        if let Some((_, at)) = self.placed.iter().find(|(placed, _)| placed == name) {
            return Some(*at);
        }
        if depth > DEPTH {
            return None;
        }
        let (making, entries) = (self.making, self.entries);
        let kind = match making.iter().find(|(made, ..)| made == name).map(|(_, made, _)| made) {
            None => {
                let renamed = self.others.renames.iter().find(|(new, _)| new == name);
                let by_name = || Match::Name(name.clone());
                LinkKind::Physical(renamed.map_or_else(by_name, |(_, mac)| Match::Mac(mac.clone())))
            }
            Some(made) => {
                let mut lower = Vec::new();
                for below in made.lower() {
                    lower.push(self.place(below, depth.saturating_add(1))?);
                }
                order::sort(&mut lower, |one, other| one < other);
                let name = name.clone();
                match made {
                    Made::Vlan(id, _) => LinkKind::Vlan { name, id: *id, parent: lower.first().copied()? },
                    Made::Bond(mode, ..) => LinkKind::Bond { name, mode: *mode, ports: lower },
                    Made::Bridge(_) => LinkKind::Bridge { name, ports: lower },
                }
            }
        };
        let entry = entries.iter().find(|entry| entry.name.as_ref() == Some(name));
        let mut link = entry.map_or_else(blank, |entry| entry.link.clone());
        if let Some((_, Made::Bond(_, _, mtu), _)) = making.iter().find(|(made, ..)| made == name) {
            link.mtu = link.mtu.or(*mtu);
        }
        let at = self.links.len();
        self.links.push(Link { kind, ..link });
        self.placed.push((name.clone(), at));
        Some(at)
    }
}
