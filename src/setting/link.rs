//! A link as one text: `eth0,192.0.2.10/24,via=192.0.2.1,mtu=9000`. The rules for what fits together are those of the payload.
//! Never looks at a machine.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{Key, SettingError, more};
use crate::payload::{HardwareAddress, InterfaceName, Link, LinkKind, Match, Prefix, Route};
use crate::shown::Printable;

/// Adds the link that the text describes. A link is described once.
pub(super) fn add(links: &mut Vec<Link>, text: &str) -> Result<(), SettingError> {
    let link = parse(text)?;
    match links.iter().find(|other| other.kind == link.kind) {
        Some(other) if *other != link => Err(SettingError::Twice),
        _ => more(links, Key::Link, link),
    }
}

/// Commas or blanks are between the items.
fn parse(text: &str) -> Result<Link, SettingError> {
    let mut items = text.split([',', ' ']).filter(|item| !item.is_empty());
    let bad = |given: &str| SettingError::value(Key::Link, given);
    let matching = items.next().and_then(matching).ok_or_else(|| bad(text))?;
    let mut link = Link::plain(matching);
    for item in items {
        read(&mut link, item).ok_or_else(|| bad(item))?;
    }
    // The rules of the payload, and its canonical order.
    let encoded = Link::encode_all(std::slice::from_ref(&link));
    match Link::decode_all(&encoded) {
        Ok(_) => Ok(link),
        Err(error) => Err(SettingError::Link { given: Printable::up_to(text, 120), problem: error.problem }),
    }
}

fn matching(text: &str) -> Option<Match> {
    if let Some(mac) = HardwareAddress::parse(text) {
        return Some(Match::Mac(mac));
    }
    // The name is part of a file's name, and a pattern for systemd-networkd: no character that either of them takes otherwise.
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    InterfaceName::try_from(text).ok().filter(|_| plain && !text.starts_with(['.', '-'])).map(Match::Name)
}

fn read(link: &mut Link, item: &str) -> Option<()> {
    match item.split_once('=') {
        Some(("via", gateway)) => {
            let gateway = gateway.parse().ok()?;
            let route = Route { destination: everywhere(&gateway)?, gateway: Some(gateway), metric: None };
            route_once(link, route)?;
        }
        Some(("route", route)) => {
            let (to, gateway) = route.split_once('-').map_or((route, None), |(to, gateway)| (to, Some(gateway)));
            let gateway = gateway.map(|gateway| gateway.parse().ok().ok_or(())).transpose().ok()?;
            route_once(link, Route { destination: Prefix::parse(to)?, gateway, metric: None })?;
        }
        Some(("mtu", mtu)) if link.mtu.is_none() => link.mtu = Some(mtu.parse().ok()?),
        Some(_) => return None,
        None if matches!(item, "dhcp4" | "dhcp") => link.dhcp4 = true,
        None if item == "slaac" => link.slaac = true,
        None if item == "dhcp6" => link.dhcp6 = true,
        None => link.addresses.push(Prefix::parse(item)?),
    }
    Some(())
}

/// Two routes to one place are not both meant.
fn route_once(link: &mut Link, route: Route) -> Option<()> {
    let known = link.routes.iter().any(|other| other.destination == route.destination);
    (!known).then(|| link.routes.push(route))
}

fn everywhere(gateway: &IpAddr) -> Option<Prefix> {
    Prefix::parse(if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" })
}

/// The reverse of [`parse`]. What a setting cannot say (a metric) is left out.
pub(super) fn text(link: &Link) -> String {
    let mut text = match &link.kind {
        LinkKind::Physical(Match::Mac(mac)) => mac.to_string(),
        LinkKind::Physical(Match::Name(name)) => name.to_string(),
        _ => return String::new(),
    };
    items(link, &mut text);
    text
}

/// Each item with a comma before it.
pub(super) fn items(link: &Link, text: &mut String) {
    if link.dhcp4 {
        text.push_str(",dhcp4");
    }
    if link.slaac {
        text.push_str(",slaac");
    }
    if link.dhcp6 {
        text.push_str(",dhcp6");
    }
    for address in &link.addresses {
        let _ = write!(text, ",{address}");
    }
    for Route { destination, gateway, .. } in &link.routes {
        let _ = match gateway {
            Some(gateway) if destination.length() == 0 => write!(text, ",via={gateway}"),
            Some(gateway) => write!(text, ",route={destination}-{gateway}"),
            None => write!(text, ",route={destination}"),
        };
    }
    if let Some(mtu) = link.mtu {
        let _ = write!(text, ",mtu={mtu}");
    }
}
