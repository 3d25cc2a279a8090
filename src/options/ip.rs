//! The words of dracut.cmdline(7) for the network: `ip=`, `nameserver=` and `rd.route=`, as far as a payload's network can say the
//! same. Pure, and never an error: these words are dracut's as well, and what they say here may be meant for it alone.

use std::net::{IpAddr, Ipv4Addr};

use crate::payload::{HardwareAddress, InterfaceName, Link, LinkKind, Match, Prefix, Route};
use crate::shown::Printable;

/// The words as they stand on the kernel command line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NetworkWords {
    ip: Vec<String>,
    servers: Vec<String>,
    routes: Vec<String>,
}

/// More words of one kind are ignored.
const MOST: usize = 16;

/// The fields of one `ip=`.
type Fields<'a> = Vec<&'a str>;

impl NetworkWords {
    pub(super) fn push(&mut self, name: &str, value: &str) {
        let list = match name {
            "ip" => &mut self.ip,
            "nameserver" => &mut self.servers,
            _ => &mut self.routes,
        };
        if list.len() < MOST {
            list.push(value.to_owned());
        }
    }

    /// Whether there is none that makes a network. A name server or a route alone makes none.
    pub fn is_empty(&self) -> bool {
        self.ip.is_empty()
    }

    /// The links that the words describe, and for each word that a payload's network cannot express, why. `bootif`: `BOOTIF=`.
    pub fn links(&self, bootif: Option<&HardwareAddress>) -> (Vec<Link>, Vec<String>) {
        let any = if bootif.is_some() { Match::BootIf } else { Match::AnyWithCarrier };
        let (mut links, mut unused): (Vec<Link>, Vec<String>) = (Vec::new(), Vec::new());
        let mut leave = |word: &str, value: &str, why: &str| {
            unused.push(format!("{word}={} is not used to look for a door: {why}", Printable::up_to(value, 80)));
        };
        for value in &self.ip {
            match link(value, &any) {
                Ok(new) => merge(&mut links, new),
                Err(why) => leave("ip", value, why),
            }
        }
        for value in &self.servers {
            match address(value) {
                Some(server) => links.iter_mut().for_each(|link| link.dns.push(server)),
                None => leave("nameserver", value, "it is no address"),
            }
        }
        for value in &self.routes {
            let Some((route, name)) = route(value) else {
                leave("rd.route", value, "want NETWORK/LENGTH:GATEWAY or NETWORK/LENGTH:GATEWAY:LINK");
                continue;
            };
            let named = |link: &&mut Link| {
                name.as_ref().is_none_or(|name| link.kind == LinkKind::Physical(Match::Name(name.clone())))
            };
            match links.iter_mut().find(named) {
                Some(link) => link.routes.push(route),
                None => leave("rd.route", value, "no ip= has its link"),
            }
        }
        // The rules of a payload's network hold here, too: one that breaks them is not used.
        let mut sound = Vec::new();
        for link in links {
            match Link::decode_all(&Link::encode_all(std::slice::from_ref(&link))) {
                Ok(_) => sound.push(link),
                Err(error) => leave("ip", &self.ip.join(" ip="), &error.to_string()),
            }
        }
        (sound, unused)
    }
}

/// One link may have several words: one for each address.
fn merge(links: &mut Vec<Link>, new: Link) {
    let Some(link) = links.iter_mut().find(|link| link.kind == new.kind) else {
        links.push(new);
        return;
    };
    link.addresses.extend(new.addresses);
    link.routes.extend(new.routes);
    link.dns.extend(new.dns);
    link.mtu = new.mtu.or(link.mtu);
    link.dhcp4 |= new.dhcp4;
    link.slaac |= new.slaac;
    link.dhcp6 |= new.dhcp6;
}

/// What one `ip=` says.
fn link(value: &str, any: &Match) -> Result<Link, &'static str> {
    let fields = fields(value);
    let at = |place: usize| fields.get(place).copied().filter(|field| !field.is_empty());
    match fields.len() {
        // ip=dhcp
        1 => with_method(Link::plain(any.clone()), at(0)),
        // ip=LINK:METHOD[:[MTU][:MAC]]
        2..=4 => {
            if at(3).is_some() {
                return Err(MAC);
            }
            mtu(with_method(Link::plain(matching(at(0), any)?), at(1))?, at(2))
        }
        // Without brackets an address has too many colons, and so has a hardware address behind the MTU.
        5 | 6 => Err("it has too few fields"),
        _ => fixed(&fields, any),
    }
}

const MAC: &str = "it sets a hardware address, which a payload's network cannot";

/// ip=ADDRESS:PEER:GATEWAY:MASK:HOSTNAME:LINK:METHOD, and behind that an MTU or two name servers.
fn fixed(fields: &Fields<'_>, any: &Match) -> Result<Link, &'static str> {
    let at = |place: usize| fields.get(place).copied().filter(|field| !field.is_empty());
    let mut link = Link::plain(matching(at(5), any)?);
    if at(1).is_some() {
        return Err("it names a peer, which a payload's network cannot");
    }
    if let Some(own) = at(0) {
        let prefix = match (own.split_once('/'), at(3)) {
            (Some((own, length)), None) => address(own).zip(length.parse().ok()),
            (None, Some(mask)) => address(own).zip(length(mask)),
            (None, None) => Err("it gives no mask")?,
            (Some(_), Some(_)) => None,
        };
        let prefix = prefix.and_then(|(own, length)| Prefix::new(own, length));
        link.addresses.push(prefix.ok_or("its address or its mask is none")?);
        if let Some(gateway) = at(2) {
            let gateway = address(gateway).ok_or("its gateway is no address")?;
            let everywhere: IpAddr =
                if gateway.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
            let destination = Prefix::new(everywhere, 0).ok_or("its gateway is no address")?;
            link.routes.push(Route { destination, gateway: Some(gateway), metric: None });
        }
        if !matches!(at(6), None | Some("none" | "off" | "static")) {
            link = with_method(link, at(6))?;
        }
    } else {
        link = with_method(link, at(6))?;
    }
    // An MTU has no dot and no bracket; a name server has one or the other.
    match at(7) {
        Some(server) if address(server).is_some() => {
            link.dns.extend([at(7), at(8)].into_iter().flatten().filter_map(address));
            Ok(link)
        }
        number if at(8).is_none() => mtu(link, number),
        _ => Err(MAC),
    }
}

/// How the link gets its addresses.
fn with_method(link: Link, method: Option<&str>) -> Result<Link, &'static str> {
    match method {
        Some("dhcp" | "on" | "any" | "dhcp4" | "single-dhcp") => Ok(Link { dhcp4: true, ..link }),
        Some("auto6" | "either6") => Ok(Link { slaac: true, ..link }),
        Some("dhcp6") => Ok(Link { dhcp6: true, ..link }),
        Some("link6" | "link-local") => {
            Err("a door is not looked for with a link-local address alone; write auto6 or dhcp")
        }
        Some("ibft") => Err("the iBFT is not read; write dhcp, or a fixed address"),
        Some("none" | "off" | "static") => Err("it gives no address"),
        _ => Err("want dhcp, auto6, LINK:dhcp or ADDRESS::GATEWAY:MASK:HOSTNAME:LINK:none"),
    }
}

fn matching(name: Option<&str>, any: &Match) -> Result<Match, &'static str> {
    let Some(name) = name else { return Ok(any.clone()) };
    InterfaceName::try_from(name).map(Match::Name).map_err(|_| "its link has no name that a link can have")
}

fn mtu(link: Link, mtu: Option<&str>) -> Result<Link, &'static str> {
    let mtu = mtu.map(|text| text.parse().map_err(|_| "its MTU is no number from 68 to 65535")).transpose()?;
    Ok(Link { mtu, ..link })
}

/// `NETWORK/LENGTH:GATEWAY[:LINK]`
fn route(value: &str) -> Option<(Route, Option<InterfaceName>)> {
    let fields = fields(value);
    let (to, gateway, name) = match fields.as_slice() {
        [to, gateway] => (to, gateway, None),
        [to, gateway, name] => (to, gateway, Some(InterfaceName::try_from(*name).ok()?)),
        _ => return None,
    };
    let (network, mask) = to.split_once('/')?;
    let destination = Prefix::new(address(network)?, length(mask)?)?;
    let gateway = if gateway.is_empty() { None } else { Some(address(gateway)?) };
    Some((Route { destination, gateway, metric: None }, name))
}

/// Splits at colons, but not inside brackets, and takes the brackets off.
fn fields(value: &str) -> Fields<'_> {
    let mut inside = false;
    let colon = |c: char| {
        inside = c == '[' || inside && c != ']';
        c == ':' && !inside
    };
    value.split(colon).collect()
}

fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

/// `24` or `255.255.255.0`
fn length(mask: &str) -> Option<u8> {
    match mask.parse::<Ipv4Addr>() {
        Ok(mask) => {
            let bits = u32::from(mask);
            let whole = bits.leading_ones().saturating_add(bits.trailing_zeros()) >= 32;
            u8::try_from(bits.leading_ones()).ok().filter(|_| whole)
        }
        Err(_) => mask.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(cmdline: &str) -> (Vec<Link>, Vec<String>) {
        let mut words = NetworkWords::default();
        for word in cmdline.split(' ') {
            let (name, value) = word.split_once('=').unwrap();
            words.push(name, value);
        }
        words.links(None)
    }

    fn named(name: &str) -> Link {
        Link::plain(Match::Name(InterfaceName::try_from(name).unwrap()))
    }

    fn route_to(to: &str, via: &str) -> Route {
        Route { destination: Prefix::parse(to).unwrap(), gateway: Some(via.parse().unwrap()), metric: None }
    }

    /// The forms of dracut.cmdline(7).
    #[test]
    fn what_a_payload_can_say_too() {
        let any = Link::plain(Match::AnyWithCarrier);
        let eth0 = named("eth0");
        let fixed = Link {
            addresses: vec![Prefix::parse("192.0.2.5/24").unwrap()],
            routes: vec![route_to("0.0.0.0/0", "192.0.2.1")],
            ..named("eth0")
        };
        let dns = |servers: &[&str], link: &Link| Link {
            dns: servers.iter().map(|server| server.parse().unwrap()).collect(),
            ..link.clone()
        };
        for (cmdline, want) in [
            ("ip=dhcp", Link { dhcp4: true, ..any.clone() }),
            ("ip=on", Link { dhcp4: true, ..any.clone() }),
            ("ip=auto6", Link { slaac: true, ..any.clone() }),
            ("ip=dhcp6", Link { dhcp6: true, ..any.clone() }),
            ("ip=eth0:dhcp", Link { dhcp4: true, ..eth0.clone() }),
            ("ip=eth0:dhcp:1400", Link { dhcp4: true, mtu: Some(1400), ..eth0.clone() }),
            ("ip=eth0:dhcp ip=eth0:auto6", Link { dhcp4: true, slaac: true, ..eth0.clone() }),
            ("ip=:::::eth0:dhcp", Link { dhcp4: true, ..eth0.clone() }),
            ("ip=192.0.2.5::192.0.2.1:255.255.255.0:node1:eth0:none", fixed.clone()),
            ("ip=192.0.2.5::192.0.2.1:24::eth0:off", fixed.clone()),
            ("ip=192.0.2.5/24::192.0.2.1:::eth0:none", fixed.clone()),
            (
                "ip=192.0.2.5::192.0.2.1:24::eth0:none:192.0.2.53:[2001:db8::53]",
                dns(&["192.0.2.53", "2001:db8::53"], &fixed),
            ),
            ("ip=192.0.2.5::192.0.2.1:24::eth0:none nameserver=192.0.2.53", dns(&["192.0.2.53"], &fixed)),
            (
                "ip=[2001:db8::5]::[2001:db8::1]:64::eth0:none:1400",
                Link {
                    addresses: vec![Prefix::parse("2001:db8::5/64").unwrap()],
                    routes: vec![route_to("::/0", "2001:db8::1")],
                    mtu: Some(1400),
                    ..named("eth0")
                },
            ),
            (
                "ip=192.0.2.5:::24::eth0:none rd.route=198.51.100.0/24:192.0.2.7:eth0",
                Link { routes: vec![route_to("198.51.100.0/24", "192.0.2.7")], ..fixed.clone() },
            ),
        ] {
            assert_eq!(words(cmdline), (vec![want], vec![]), "{cmdline}");
        }
    }

    /// Whoever wrote it for dracut alone is told in one line, and the node boots on.
    #[test]
    fn what_a_payload_cannot_say_is_said() {
        for (cmdline, why) in [
            ("ip=eth0:link6", "link-local address"),
            ("ip=ibft", "iBFT"),
            ("ip=eth0:dhcp:1500:52:54:00:12:34:56", "it names a peer"),
            ("ip=eth0:dhcp::525400123456", "sets a hardware address"),
            ("ip=192.0.2.5:192.0.2.9:192.0.2.1:24::eth0:none", "names a peer"),
            ("ip=192.0.2.5::192.0.2.1:::eth0:none", "no mask"),
            ("ip=192.0.2.5::192.0.2.1:255.0.255.0::eth0:none", "its mask is none"),
            // The rules of a payload hold: this gateway cannot be reached, and this is no address of a machine.
            ("ip=192.0.2.5::198.51.100.1:24::eth0:none", "gateway 198.51.100.1"),
            ("ip=192.0.2.0::192.0.2.1:24::eth0:none", "is not an address that a host can have"),
            ("ip=eth0:dhcp:99999", "its MTU"),
            ("ip=", "want dhcp"),
            ("ip=2001:db8::5:64", "too few fields"),
            ("ip=::::::", "want dhcp"),
        ] {
            let (links, unused) = words(cmdline);
            assert!(links.is_empty() && unused.len() == 1, "{cmdline}: {links:?} {unused:?}");
            assert!(unused[0].starts_with("ip=") && unused[0].contains(why), "{cmdline}: {unused:?}");
        }
        let (links, unused) = words("ip=dhcp nameserver=ns1 rd.route=10.0.0.0/8 rd.route=10.0.0.0/8:192.0.2.1:eth7");
        assert_eq!((links.len(), unused.len()), (1, 3), "{unused:?}");
    }

    #[test]
    fn without_a_link_it_is_the_one_that_the_machine_booted_from() {
        let mut words = NetworkWords::default();
        words.push("ip", "dhcp");
        let (links, _) = words.links(HardwareAddress::parse("52-54-00-12-34-56").as_ref());
        assert_eq!(links[0].kind, LinkKind::Physical(Match::BootIf));
    }

    proptest::proptest! {
        #[test]
        fn no_words_make_it_panic(ip in "[0-9a-f:/.\\[\\]dhcpnoe]{0,40}", route in "[0-9:/.\\[\\]e]{0,30}") {
            let mut words = NetworkWords::default();
            words.push("ip", &ip);
            words.push("rd.route", &route);
            words.push("nameserver", &route);
            let _ = words.links(None);
        }
    }
}
