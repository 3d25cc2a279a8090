//! The words of dracut.cmdline(7) for the network: `ip=`, `nameserver=`, `vlan=`, `bond=`, `bridge=`, `rd.route=`, `bootdev=`,
//! `ifname=`, `rd.peerdns=` and `BOOTIF=`, as a payload's links. Pure, and never an error: these words are dracut's as well, and what
//! they say here may be meant for it alone.

mod ip;
mod join;
mod made;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::payload::{HardwareAddress, HostName, InterfaceName, Link, Match, Prefix, Route};
use crate::shown::Printable;
use made::{Made, made};

/// The words as they stand on the kernel command line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NetworkWords {
    words: Vec<(&'static str, String)>,
    /// There are more words of one kind than are read.
    more: bool,
}

/// What the words say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CmdlineNetwork {
    /// Valid together, as a payload's links are.
    pub links: Vec<Link>,
    /// `ifname=`: names for the links with these hardware addresses. The links above match them by address.
    pub renames: Vec<(InterfaceName, HardwareAddress)>,
    /// The host name of an `ip=`.
    pub hostname: Option<HostName>,
    /// For each word, or part of one, that cannot be carried out: the word, why, and what to write instead.
    pub unused: Vec<String>,
}

/// The words that are read. What else dracut knows is for it alone.
const NAMES: [&str; 10] =
    ["ip", "nameserver", "rd.route", "vlan", "bond", "bridge", "team", "bootdev", "ifname", "rd.peerdns"];

/// More words of one kind are not read.
const MOST: usize = 16;

/// One `ip=`, or all that are for the same link.
struct Entry {
    /// `None`: the link that the machine booted from, or any link.
    name: Option<InterfaceName>,
    /// Its kind is not known yet.
    link: Link,
    /// The words, for messages.
    words: String,
}

impl NetworkWords {
    /// Adds a word. False if it is none of these.
    pub(super) fn push(&mut self, name: &str, value: Option<&str>) -> bool {
        let Some(name) = NAMES.iter().find(|known| **known == name) else { return false };
        // dracut.cmdline(7): what these make without parameters.
        let value = value.unwrap_or(match *name {
            "bond" => "bond0:eth0,eth1:mode=balance-rr",
            "bridge" => "br0:eth0",
            _ => "",
        });
        if self.all(name).count() < MOST {
            self.words.push((name, value.to_owned()));
        } else {
            self.more = true;
        }
        true
    }

    /// Whether there is none that makes a network. A name server or a route alone makes none.
    pub fn is_empty(&self) -> bool {
        !self.words.iter().any(|(name, _)| matches!(*name, "ip" | "vlan" | "bond" | "bridge"))
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.words.iter().filter(move |(word, _)| *word == name).map(|(_, value)| value.as_str())
    }

    /// What the words say. `bootif`: `BOOTIF=`.
    pub fn network(&self, bootif: Option<&HardwareAddress>) -> CmdlineNetwork {
        let mut found = CmdlineNetwork::default();
        let mut unused = Vec::new();
        let mut leave = |word: &str, value: &str, why: &str| unused.push(left(word, value, why));
        for value in self.all("ifname") {
            match value.split_once(':').and_then(|(name, mac)| rename(name, mac)) {
                Some((name, _)) if found.renames.iter().any(|(known, _)| *known == name) => {
                    leave("ifname", value, "another word gives that name; remove one of them");
                }
                Some(rename) => found.renames.push(rename),
                None => leave("ifname", value, "want NAME:MAC, like bootnet:52:54:00:12:34:56"),
            }
        }
        let mut entries: Vec<Entry> = Vec::new();
        for value in self.all("ip") {
            match ip::read(value) {
                Ok(said) => {
                    said.notes.iter().for_each(|note| leave("ip", value, note));
                    found.hostname = found.hostname.take().or(said.hostname);
                    merge(&mut entries, Entry { name: said.name, link: said.link, words: format!("ip={value}") });
                }
                Err(why) => leave("ip", value, why),
            }
        }
        let mut making: Vec<(InterfaceName, Made, String)> = Vec::new();
        for (word, value) in &self.words {
            let Some(read) = made(word, value) else { continue };
            match read {
                Ok((name, kind, note)) => {
                    note.iter().for_each(|note| leave(word, value, note));
                    making.push((name, kind, format!("{word}={value}")));
                }
                Err(why) => leave(word, value, why),
            }
        }
        for value in self.all("team") {
            leave("team", value, "teams are not supported; write bond=NAME:PORTS:mode=active-backup or mode=802.3ad");
        }
        if self.all("rd.peerdns").any(|value| matches!(value, "0" | "no" | "off")) {
            leave("rd.peerdns", "0", "the name servers of DHCP are used as well, behind those of nameserver=");
        }
        let bootdev = self.all("bootdev").last().filter(|value| !value.is_empty()).and_then(|value| {
            let name = InterfaceName::try_from(value).ok();
            if name.is_none() {
                leave("bootdev", value, "want the name of a link");
            }
            name
        });
        let others = join::Others {
            bootdev,
            any: if bootif.is_some() { Match::BootIf } else { Match::AnyWithCarrier },
            renames: &found.renames,
            servers: self.all("nameserver").collect(),
            routes: self.all("rd.route").collect(),
        };
        found.links = join::join(entries, making, &others, &mut leave);
        if self.more {
            unused.push(format!("more than {MOST} words of one kind for the network are not used; write fewer"));
        }
        found.unused = unused;
        found
    }
}

/// The words for the network and the link that the machine booted from, for callers that need no other word. Other words are not
/// checked.
pub fn network_words(cmdline: &str) -> (NetworkWords, Option<HardwareAddress>) {
    let (words, _) = super::words(cmdline);
    let (mut found, mut bootif, mut no_bootif) = (NetworkWords::default(), None, false);
    for word in &words {
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        match name {
            // The last one counts, as in `parse`.
            "BOOTIF" => bootif = value.and_then(boot_link),
            "rd.bootif" => no_bootif = value == Some("0"),
            name => {
                found.push(name, value);
            }
        }
    }
    (found, bootif.filter(|_| !no_bootif))
}

/// The line about a word that is not used.
fn left(word: &str, value: &str, why: &str) -> String {
    format!("{word}={} is not used: {why}", Printable::up_to(value, 80))
}

/// A link that nothing is said of yet.
fn blank() -> Link {
    Link::plain(Match::AnyWithCarrier)
}

/// One link may have several words: one for each address.
fn merge(entries: &mut Vec<Entry>, new: Entry) {
    let Some(entry) = entries.iter_mut().find(|entry| entry.name == new.name) else {
        entries.push(new);
        return;
    };
    let (link, new, words) = (&mut entry.link, new.link, new.words);
    link.addresses.extend(new.addresses.iter().filter(|address| !link.addresses.contains(address)).collect::<Vec<_>>());
    for route in new.routes {
        if !link.routes.contains(&route) {
            link.routes.push(route);
        }
    }
    link.dns.extend(new.dns);
    link.mtu = new.mtu.or(link.mtu);
    link.dhcp4 |= new.dhcp4;
    link.slaac |= new.slaac;
    link.dhcp6 |= new.dhcp6;
    entry.words.push(' ');
    entry.words.push_str(&words);
}

fn rename(name: &str, mac: &str) -> Option<(InterfaceName, HardwareAddress)> {
    Some((InterfaceName::try_from(name).ok()?, HardwareAddress::parse(mac)?))
}

/// The link that the machine booted from. PXELINUX and iPXE write the ARP hardware type before the address, 01 for Ethernet and 20
/// for InfiniBand; others write the address alone. `None`: the boot loader wrote something else, which must not stop the boot.
pub(super) fn boot_link(value: &str) -> Option<HardwareAddress> {
    let alone = || HardwareAddress::parse(value);
    let behind_kind = || {
        let (kind, mac) = value.split_at_checked(3)?;
        let kind = kind.strip_suffix(['-', ':'])?;
        kind.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| HardwareAddress::parse(mac))?
    };
    let digits = || {
        let bytes = crate::hex::decode(value)?;
        HardwareAddress::new(if bytes.len() == 7 { bytes.strip_prefix(&[1])? } else { bytes.as_slice() })
    };
    // No link has the address of a group (IEEE 802: the first bit): that is an Ethernet address with its end cut off.
    let is_link =
        |mac: &HardwareAddress| mac.as_bytes().len() != 6 || mac.as_bytes().first().is_some_and(|byte| byte & 1 == 0);
    alone().or_else(behind_kind).or_else(digits).filter(is_link)
}

/// `NETWORK/LENGTH:GATEWAY[:LINK]`; a gateway may be missing, and host bits count for nothing.
fn route(value: &str) -> Option<(Route, Option<InterfaceName>)> {
    let fields = fields(value);
    let (to, gateway, name) = match fields.as_slice() {
        [to, gateway] => (to, gateway, None),
        [to, gateway, ""] => (to, gateway, None),
        [to, gateway, name] => (to, gateway, Some(InterfaceName::try_from(*name).ok()?)),
        _ => return None,
    };
    let (network, length) = address_and_length(to)?;
    let destination = Prefix::new(network, length?)?.network();
    let gateway = if gateway.is_empty() { None } else { Some(address(gateway)?) };
    // What is neither on a link that is named nor behind a gateway is nowhere.
    (gateway.is_some() || name.is_some()).then_some((Route { destination, gateway, metric: None }, name))
}

/// Splits at colons, but not inside brackets.
fn fields(value: &str) -> Vec<&str> {
    let mut inside = false;
    let colon = |c: char| {
        inside = c == '[' || inside && c != ']';
        c == ':' && !inside
    };
    value.split(colon).collect()
}

/// An address, in brackets or without.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

/// `192.0.2.5`, `192.0.2.5/24`, `192.0.2.0/255.255.255.0`, `[2001:db8::5]/64`, `[2001:db8::5/64]`
fn address_and_length(text: &str) -> Option<(IpAddr, Option<u8>)> {
    let text = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((inner, "")) => inner.to_owned(),
        Some((inner, rest)) => format!("{inner}{rest}"),
        None => text.to_owned(),
    };
    match text.split_once('/') {
        Some((address, mask)) => Some((address.parse().ok()?, Some(length(mask)?))),
        None => Some((text.parse().ok()?, None)),
    }
}

/// `24` or `255.255.255.0`
fn length(mask: &str) -> Option<u8> {
    match mask.parse::<std::net::Ipv4Addr>() {
        Ok(mask) => {
            let bits = u32::from(mask);
            let whole = bits.leading_ones().saturating_add(bits.trailing_zeros()) >= 32;
            u8::try_from(bits.leading_ones()).ok().filter(|_| whole)
        }
        Err(_) => mask.parse().ok(),
    }
}
