//! Turns CBOR values into a `Payload`; [`encode`] does the reverse. The keys are those of `docs/payload.cddl` and are
//! frozen. This module never decides whether a payload suits the machine or the time; that is the work of `plan`.

mod encode;

pub(in crate::payload) use encode::{encode, encode_network};

use std::net::IpAddr;

use super::address::address_from;
use super::cbor::{self, DecodeError, Extension, Fields, Item, Place, Problem};
use super::form::Form;
use super::*;

/// Keys of the payload map.
mod key {
    pub(super) const VERSION: i8 = 0;
    pub(super) const ID: i8 = 1;
    pub(super) const COMPOSED: i8 = 2;
    pub(super) const EXPIRY: i8 = 3;
    pub(super) const BINDING: i8 = 4;
    pub(super) const SEED: i8 = 5;
    pub(super) const NETWORK: i8 = 6;
    pub(super) const NAMES: i8 = 7;
    pub(super) const CA: i8 = 8;
    pub(super) const ISSUERS: i8 = 9;
    pub(super) const URLS: i8 = 10;
    pub(super) const NAME: i8 = 11;
    pub(super) const TOKEN: i8 = 12;
    pub(super) const CREDENTIALS: i8 = 13;
    pub(super) const HOSTNAME: i8 = 14;
    pub(super) const KEY_TYPE: i8 = 15;
    pub(super) const SIGNERS: i8 = 16;
    pub(super) const BUNDLE: i8 = 17;
    pub(super) const ROOT: i8 = 18;
    pub(super) const FROM_CMDLINE: i8 = 19;
}

/// The only version that exists.
const VERSION: u64 = 1;

type Result<T> = std::result::Result<T, DecodeError>;

pub(super) fn decode(bytes: &[u8]) -> Result<Payload> {
    let root = Place::root(bytes);
    // For a payload in another form, such as base64, a CBOR error and its offset would say nothing useful.
    if let Some(form) = Form::of(bytes) {
        return Err(root.error(Problem::Form(form)));
    }
    if bytes.len() > MAX_LEN {
        return Err(root.error(Problem::TooLong(bytes.len())));
    }
    let mut fields = Item::new(cbor::read(bytes)?, root).map()?;
    let mut extensions = Vec::new();
    let version = fields.need(key::VERSION, "version")?;
    match version.uint()? {
        VERSION => {}
        other => return Err(version.place.error(Problem::Version(other))),
    }
    let id = PayloadId(fields.need(key::ID, "id")?.fixed()?);
    let composed = timestamp(fields.need(key::COMPOSED, "composed")?)?;
    let expiry_item = fields.need(key::EXPIRY, "expiry")?;
    let expiry_place = expiry_item.place.clone();
    let expiry = timestamp(expiry_item)?;
    if expiry <= composed {
        let why = format!("expiry {expiry} is not after composed {composed}");
        return Err(expiry_place.error(Problem::Value(why)));
    }
    let ext = &mut extensions;
    let binding = fields.take(key::BINDING, "binding").map(|item| binding(item, ext)).transpose()?;
    let seed = fields.take(key::SEED, "seed").map(|item| seed(item, ext)).transpose()?;
    let network = match fields.take(key::NETWORK, "network") {
        Some(item) => network(item, ext)?,
        None => Vec::new(),
    };
    let from_cmdline = match fields.take(key::FROM_CMDLINE, "from-cmdline") {
        Some(item) if !network.is_empty() => {
            let why =
                "links are listed and are to be those of the kernel command line; remove one of the two".to_owned();
            return Err(item.place.error(Problem::Value(why)));
        }
        Some(item) => item.flag()?,
        None => false,
    };
    let hostname = fields.take(key::HOSTNAME, "hostname").map(Item::parse).transpose()?;
    let ca_item = fields.need(key::CA, "ca")?;
    let ca_place = ca_item.place.clone();
    let ca = CaCertificate::new(ca_item.bytes()?).map_err(|e| ca_place.error(Problem::Value(e.to_string())))?;
    let issuers = fields.list(key::ISSUERS, "issuers", Item::fixed)?;
    let enrolment = enrolment(&mut fields, ext)?;
    let signers = fields.list(key::SIGNERS, "signers", bundle::signer)?;
    let bundle = match fields.take(key::BUNDLE, "bundle") {
        Some(item) if matches!(enrolment, Enrolment::Credentials(_)) => {
            let why =
                "credentials and bundle exclude each other; remove one: a bundle comes from the server that gives the \
                       node its certificate"
                    .to_owned();
            return Err(item.place.error(Problem::Value(why)));
        }
        Some(item) => Some(bundle::terms(item, ext)?),
        None => None,
    };
    let root = fields.take(key::ROOT, "root").map(Item::fixed).transpose()?;
    fields.finish(ext)?;
    Ok(Payload {
        id,
        composed,
        expiry,
        binding,
        seed,
        network,
        from_cmdline,
        hostname,
        ca,
        issuers,
        enrolment,
        signers,
        bundle,
        root,
        extensions,
    })
}

/// Reads a network without the rest of a payload: the items of a payload's version and network, and no other.
pub(super) fn decode_network(bytes: &[u8]) -> Result<Vec<Link>> {
    let root = Place::root(bytes);
    if bytes.len() > MAX_LEN {
        return Err(root.error(Problem::TooLong(bytes.len())));
    }
    let mut fields = Item::new(cbor::read(bytes)?, root).map()?;
    let version = fields.need(key::VERSION, "version")?;
    match version.uint()? {
        VERSION => {}
        other => return Err(version.place.error(Problem::Version(other))),
    }
    let mut extensions = Vec::new();
    let links = network(fields.need(key::NETWORK, "network")?, &mut extensions)?;
    fields.finish(&mut extensions)?;
    Ok(links)
}

fn timestamp(item: Item<'_>) -> Result<Timestamp> {
    let millis = item.uint()?;
    Timestamp::from_millis(millis)
        .ok_or_else(|| item.place.error(Problem::Value(format!("{millis} ms is after the year 9999"))))
}

fn binding(item: Item<'_>, ext: &mut Vec<Extension>) -> Result<Binding> {
    let mut fields = item.map()?;
    let uuid = fields.take(0, "uuid").map(Item::fixed).transpose()?;
    let macs = fields.list(1, "macs", mac)?;
    let serial = match fields.take(2, "serial") {
        Some(item) => {
            let place = item.place.clone();
            let text = item.text()?;
            if !(1..=128).contains(&text.len()) || text.chars().any(char::is_control) {
                let why = "a serial number has 1 to 128 bytes and no control characters".to_owned();
                return Err(place.error(Problem::Value(why)));
            }
            Some(text)
        }
        None => None,
    };
    let empty = uuid.is_none() && macs.is_empty() && serial.is_none();
    let place = fields.place.clone();
    fields.finish(ext)?;
    if empty {
        return Err(place.error(Problem::Missing("uuid, macs or serial")));
    }
    Ok(Binding { uuid, macs, serial })
}

fn mac(item: Item<'_>) -> Result<HardwareAddress> {
    let place = item.place.clone();
    let bytes = item.bytes()?;
    HardwareAddress::new(&bytes).ok_or_else(|| {
        place.error(Problem::Value(format!("a hardware address of {} bytes, want 6 or 20", bytes.len())))
    })
}

fn seed(item: Item<'_>, ext: &mut Vec<Extension>) -> Result<Seed> {
    let mut fields = item.map()?;
    let bytes_item = fields.need(0, "bytes")?;
    let place = bytes_item.place.clone();
    let bytes = Secret::new(bytes_item.bytes()?);
    let len = bytes.expose().len();
    if !(32..=512).contains(&len) {
        return Err(place.error(Problem::Value(format!("a seed of {len} bytes, want 32 to 512"))));
    }
    let single_boot = fields.flag(1, "single-boot")?;
    fields.finish(ext)?;
    Ok(Seed { bytes, single_boot })
}

fn network(item: Item<'_>, ext: &mut Vec<Extension>) -> Result<Vec<Link>> {
    item.array()?.into_iter().enumerate().map(|(index, item)| link(item, index, ext)).collect()
}

fn link(item: Item<'_>, own_index: usize, ext: &mut Vec<Extension>) -> Result<Link> {
    let mut fields = item.map()?;
    let place = fields.place.clone();
    let kind = match (fields.take(0, "match"), fields.take(1, "make")) {
        (Some(item), None) => LinkKind::Physical(link_match(item, ext)?),
        (None, Some(item)) => virtual_link(item, own_index, ext)?,
        _ => return Err(place.error(Problem::Value("exactly one of match and make is needed".to_owned()))),
    };
    let addresses = fields.list(2, "addresses", |item| {
        let place = item.place.clone();
        let prefix = prefix(item)?;
        if !prefix.is_host() {
            let why = format!("{prefix} is not an address that a host can have in that prefix");
            return Err(place.error(Problem::Value(why)));
        }
        Ok(prefix)
    })?;
    let dhcp4 = fields.flag(3, "dhcp4")?;
    let slaac = fields.flag(4, "slaac")?;
    let dhcp6 = fields.flag(5, "dhcp6")?;
    let routes = fields.take(6, "routes").map(|item| routes(item, &addresses, ext)).transpose()?.unwrap_or_default();
    let dns = fields.list(7, "dns", address)?;
    let search = fields.list(8, "search", Item::parse)?;
    let mtu = match fields.take(9, "mtu") {
        Some(item) => {
            let mtu: u16 = item.number("68 to 65535")?;
            let least = if slaac || dhcp6 || addresses.iter().any(|a| a.address().is_ipv6()) { 1280 } else { 68 };
            if mtu < least {
                return Err(item.place.error(Problem::Value(format!("{mtu}, want {least} to 65535"))));
            }
            Some(mtu)
        }
        None => None,
    };
    let duid = match fields.take(10, "dhcp_client_id") {
        Some(item) if !dhcp4 => return Err(item.place.error(Problem::Value("it goes with dhcp4 only".to_owned()))),
        Some(item) => item.flag()?,
        None => false,
    };
    fields.finish(ext)?;
    Ok(Link { kind, addresses, dhcp4, duid, slaac, dhcp6, routes, dns, search, mtu })
}

fn link_match(item: Item<'_>, ext: &mut Vec<Extension>) -> Result<Match> {
    let mut fields = item.map()?;
    let place = fields.place.clone();
    let one = "exactly one of mac, name, driver, bootif, any and path is needed";
    let mut found = None;
    let mut set = |value: Match| match found.replace(value) {
        None => Ok(()),
        Some(_) => Err(place.error(Problem::Value(one.to_owned()))),
    };
    if let Some(item) = fields.take(0, "mac") {
        set(Match::Mac(mac(item)?))?;
    }
    if let Some(item) = fields.take(1, "name") {
        set(Match::Name(item.parse()?))?;
    }
    if let Some(item) = fields.take(2, "driver") {
        set(Match::Driver(item.parse()?))?;
    }
    if fields.flag(3, "bootif")? {
        set(Match::BootIf)?;
    }
    if fields.flag(4, "any")? {
        set(Match::AnyWithCarrier)?;
    }
    if let Some(item) = fields.take(5, "path") {
        set(Match::Path(item.parse()?))?;
    }
    fields.finish(ext)?;
    found.ok_or_else(|| place.error(Problem::Value(one.to_owned())))
}

fn virtual_link(item: Item<'_>, own_index: usize, ext: &mut Vec<Extension>) -> Result<LinkKind> {
    // A lower link must come before the link that is made on it; this rules out cycles.
    let lower = |item: Item<'_>| {
        let index: usize = item.number("the index of an earlier link")?;
        if index >= own_index {
            let why = format!("link {index} does not come before link {own_index}, which uses it");
            return Err(item.place.error(Problem::Value(why)));
        }
        Ok(index)
    };
    let ports = |item: Item<'_>| {
        let place = item.place.clone();
        let ports = item.each(lower)?;
        if ports.windows(2).any(|pair| matches!(pair, [a, b] if a >= b)) {
            return Err(place.error(Problem::Value("ports must be in ascending order, each once".to_owned())));
        }
        Ok(ports)
    };
    let mut fields = item.map()?;
    let place = fields.place.clone();
    let name: InterfaceName = fields.need(0, "name")?.parse()?;
    let kind = match (fields.take(1, "vlan"), fields.take(2, "bond"), fields.take(3, "bridge")) {
        (Some(item), None, None) => {
            let mut fields = item.map()?;
            let id_item = fields.need(0, "id")?;
            let id: u16 = id_item.number("1 to 4094")?;
            if !(1..=4094).contains(&id) {
                return Err(id_item.place.error(Problem::Value(format!("{id}, want 1 to 4094"))));
            }
            let parent = lower(fields.need(1, "parent")?)?;
            fields.finish(ext)?;
            LinkKind::Vlan { name, id, parent }
        }
        (None, Some(item), None) => {
            let mut fields = item.map()?;
            let mode_item = fields.need(0, "mode")?;
            let mode = match mode_item.uint()? {
                0 => BondMode::ActiveBackup,
                1 => BondMode::Lacp,
                2 => BondMode::LacpSlow,
                n => {
                    let why = format!("{n}, want 0 (active-backup), 1 (802.3ad) or 2 (802.3ad with slow LACP)");
                    return Err(mode_item.place.error(Problem::Value(why)));
                }
            };
            let ports = ports(fields.need(1, "ports")?)?;
            fields.finish(ext)?;
            LinkKind::Bond { name, mode, ports }
        }
        (None, None, Some(item)) => LinkKind::Bridge { name, ports: ports(item)? },
        _ => {
            let why = "exactly one of vlan, bond and bridge is needed".to_owned();
            return Err(place.error(Problem::Value(why)));
        }
    };
    fields.finish(ext)?;
    Ok(kind)
}

/// A prefix on the wire is the address bytes, then one byte with the prefix length.
fn prefix(item: Item<'_>) -> Result<Prefix> {
    let place = item.place.clone();
    let bytes = item.bytes()?;
    let (length, address) =
        bytes.split_last().ok_or_else(|| place.error(Problem::Value("0 bytes, want 5 or 17".into())))?;
    let address = address_from(address)
        .ok_or_else(|| place.error(Problem::Value(format!("{} bytes, want 5 or 17", bytes.len()))))?;
    Prefix::new(address, *length)
        .ok_or_else(|| place.error(Problem::Value(format!("prefix length {length} is too long for {address}"))))
}

fn address(item: Item<'_>) -> Result<IpAddr> {
    let place = item.place.clone();
    let bytes = item.bytes()?;
    address_from(&bytes)
        .ok_or_else(|| place.error(Problem::Value(format!("an address of {} bytes, want 4 or 16", bytes.len()))))
}

fn routes(item: Item<'_>, addresses: &[Prefix], ext: &mut Vec<Extension>) -> Result<Vec<Route>> {
    let routes = item.array()?.into_iter().map(|item| route(item, ext)).collect::<Result<Vec<_>>>()?;
    let on_link: Vec<Prefix> =
        routes.iter().map(|(route, _)| route).filter(|route| route.gateway.is_none()).map(|r| r.destination).collect();
    for (route, place) in &routes {
        let Some(gateway) = route.gateway else { continue };
        // If the link has static addresses of the gateway's family, the gateway must lie in the network of one of them
        // or in the destination of a route without a gateway, anywhere in the list. Without static addresses of that
        // family nothing is checked: DHCP or SLAAC may provide them.
        let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let same_family: Vec<_> = addresses.iter().filter(|a| a.address().is_ipv4() == gateway.is_ipv4()).collect();
        let reached = same_family.iter().copied().chain(&on_link).any(|network| network.contains(gateway));
        if !link_local && !same_family.is_empty() && !reached {
            let known = same_family.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let why = format!(
                "gateway {gateway} is outside {known}; it cannot be reached from this link without a route to \
                 {gateway}/{} that has no gateway",
                if gateway.is_ipv4() { 32 } else { 128 }
            );
            return Err(place.error(Problem::Value(why)));
        }
    }
    Ok(routes.into_iter().map(|(route, _)| route).collect())
}

/// A route, and the place of its gateway, or of its destination if it has no gateway.
fn route<'a>(item: Item<'a>, ext: &mut Vec<Extension>) -> Result<(Route, Place<'a>)> {
    let mut fields = item.map()?;
    let to = fields.need(0, "to")?;
    let to_place = to.place.clone();
    let destination = prefix(to)?;
    if !destination.is_network() {
        return Err(
            to_place.error(Problem::Value(format!("{destination} has host bits set; a route leads to a network")))
        );
    }
    let mut place = to_place;
    let gateway = match fields.take(1, "via") {
        Some(item) => {
            place = item.place.clone();
            let gateway = address(item)?;
            if gateway.is_ipv4() != destination.address().is_ipv4() {
                return Err(place.error(Problem::Value(format!("gateway {gateway} for {destination}: two families"))));
            }
            Some(gateway)
        }
        None => None,
    };
    let metric = fields.take(2, "metric").map(|item| item.number("0 to 4294967295")).transpose()?;
    fields.finish(ext)?;
    Ok((Route { destination, gateway, metric }, place))
}

fn enrolment(fields: &mut Fields<'_>, ext: &mut Vec<Extension>) -> Result<Enrolment> {
    if let Some(item) = fields.take(key::CREDENTIALS, "credentials") {
        let place = item.place.clone();
        let mut inner = item.map()?;
        let chain = inner.need(0, "chain")?.each(Item::bytes)?;
        let secret = Secret::new(inner.need(1, "key")?.bytes()?);
        inner.finish(ext)?;
        let csr_keys = [
            (key::NAMES, "names"),
            (key::URLS, "urls"),
            (key::NAME, "name"),
            (key::TOKEN, "token"),
            (key::KEY_TYPE, "key type"),
        ];
        for (key, name) in csr_keys {
            if fields.take(key, name).is_some() {
                let why = format!(
                    "credentials and {name} exclude each other; remove one: the node either gets a key or makes one"
                );
                return Err(place.error(Problem::Value(why)));
            }
        }
        return Ok(Enrolment::Credentials(Credentials { chain, key: secret }));
    }
    let names_item = fields.need(key::NAMES, "names")?;
    let names = names(names_item, ext)?;
    let key = match fields.take(key::KEY_TYPE, "key type") {
        None => KeyType::P256,
        // P-256 is the default; a payload asks for it by leaving the key out.
        Some(item) => match item.uint()? {
            1 => KeyType::P384,
            2 => KeyType::Ed25519,
            3 => KeyType::Rsa2048,
            4 => KeyType::Rsa3072,
            n => {
                let why = format!("{n}, want 1 to 4 (P-256 is written by leaving the key out)");
                return Err(item.place.error(Problem::Value(why)));
            }
        },
    };
    let urls = fields.need(key::URLS, "urls")?.each(Item::parse)?;
    let name = fields.need(key::NAME, "name")?.parse()?;
    let token = match fields.take(key::TOKEN, "token") {
        Some(item) => {
            let mut inner = item.map()?;
            let secret_item = inner.need(0, "secret")?;
            let place = secret_item.place.clone();
            let secret =
                Token::try_from(secret_item.text()?).map_err(|e| place.error(Problem::Value(e.to_string())))?;
            let mode = if inner.flag(1, "each-boot")? { TokenMode::EachBoot } else { TokenMode::Once };
            inner.finish(ext)?;
            Some(EnrolmentToken { secret, mode })
        }
        None => None,
    };
    Ok(Enrolment::Csr(Box::new(CsrEnrolment { name, names, key, urls, token })))
}

fn names(item: Item<'_>, ext: &mut Vec<Extension>) -> Result<CertificateNames> {
    let mut fields = item.map()?;
    let place = fields.place.clone();
    let subject = match fields.take(0, "subject") {
        Some(item) => Subject(item.array()?.into_iter().map(|item| attribute(item, ext)).collect::<Result<_>>()?),
        None => Subject::default(),
    };
    let names = CertificateNames {
        subject,
        dns: fields.list(1, "dns", Item::parse)?,
        ips: fields.list(2, "ips", address)?,
        uris: fields.list(3, "uris", Item::parse)?,
        emails: fields.list(4, "emails", Item::parse)?,
    };
    fields.finish(ext)?;
    if names == CertificateNames::default() {
        return Err(place.error(Problem::Missing("a subject or a subject alternative name")));
    }
    Ok(names)
}

fn attribute(item: Item<'_>, ext: &mut Vec<Extension>) -> Result<SubjectAttribute> {
    let mut fields = item.map()?;
    let type_item = fields.need(0, "type")?;
    let number = type_item.uint()?;
    let attribute = Attribute::from_number(number).ok_or_else(|| {
        type_item.place.error(Problem::Value(format!("{number}, want 0 to {}", Attribute::ALL.len().saturating_sub(1))))
    })?;
    let value_item = fields.need(1, "value")?;
    let place = value_item.place.clone();
    let value = SubjectAttribute::new(attribute, &value_item.text()?)
        .map_err(|error| place.error(Problem::Value(error.to_string())))?;
    fields.finish(ext)?;
    Ok(value)
}

#[cfg(test)]
mod tests;
