//! Reads `[[network]]` of a record into links. Checks only the text's own rules; the payload codec checks those that hold
//! for every payload. Never looks at a machine.

use std::net::IpAddr;

use imprint::payload::{BondMode, InterfaceName, Link, LinkKind, Match, Prefix, Route};
use imprint::shown::printable;

use super::fields::{RecordError, Table, Value};
use super::{mac, one_of};

/// The links, and whether they are those of the kernel command line. `"keep"` is the same as no `network`.
pub(super) fn of(value: &Value<'_>) -> Result<(Vec<Link>, bool), RecordError> {
    match value.string() {
        Ok("keep") => Ok((Vec::new(), false)),
        Ok("cmdline") => Ok((Vec::new(), true)),
        Ok(other) => {
            let shown = printable(other);
            Err(value.error(format!("\"{shown}\" is neither \"cmdline\" nor \"keep\"; or list links as [[network]]")))
        }
        Err(_) => Ok((links(value)?, false)),
    }
}

pub(super) fn links(value: &Value<'_>) -> Result<Vec<Link>, RecordError> {
    let mut links = Vec::new();
    // The handles by which later links refer to earlier ones: the label, and the name if there is one.
    let mut handles: Vec<(String, usize)> = Vec::new();
    for item in value.array()? {
        let mut table = item.table()?;
        let label = table.take("label");
        let kind = kind(&mut table, &handles)?;
        let name = match &kind {
            LinkKind::Physical(Match::Name(name)) => Some(name),
            LinkKind::Physical(_) => None,
            LinkKind::Vlan { name, .. } | LinkKind::Bond { name, .. } | LinkKind::Bridge { name, .. } => Some(name),
        };
        let mut own = Vec::new();
        if let Some(name) = name {
            own.push((name.to_string(), table.error(format!("there is a link {name} already"))));
        }
        if let Some(label) = label {
            let text = label.string()?;
            own.push((text.to_owned(), label.error(format!("there is a link {} already", printable(text)))));
        }
        own.dedup_by(|a, b| a.0 == b.0);
        for (handle, taken) in own {
            if handles.iter().any(|(known, _)| *known == handle) {
                return Err(taken);
            }
            handles.push((handle, links.len()));
        }
        links.push(link(kind, table)?);
        // What a node would refuse, whatever machine it is.
        imprint::plan::check_links(&links).map_err(|error| item.error(error))?;
    }
    Ok(links)
}

fn kind(table: &mut Table<'_>, handles: &[(String, usize)]) -> Result<LinkKind, RecordError> {
    let given = [table.take("match"), table.take("vlan"), table.take("bond"), table.take("bridge")];
    match given {
        [Some(value), None, None, None] => Ok(LinkKind::Physical(matching(&value)?)),
        [None, Some(value), None, None] => {
            let mut table = value.table()?;
            let name = table.need("name")?.parse()?;
            let id = table.need("id")?.number("1 to 4094")?;
            let parent = lower(&table.need("on")?, handles)?;
            table.finish()?;
            Ok(LinkKind::Vlan { name, id, parent })
        }
        [None, None, Some(value), None] => {
            let mut table = value.table()?;
            let name = table.need("name")?.parse()?;
            let modes = [(BondMode::ActiveBackup, "active-backup"), (BondMode::Lacp, "802.3ad")];
            let mut mode = one_of(&table.need("mode")?, &modes)?;
            if let Some(rate) = table.take("lacp_rate") {
                let rates = [(BondMode::Lacp, "fast"), (BondMode::LacpSlow, "slow")];
                let asked = one_of(&rate, &rates)?;
                if !mode.is_lacp() {
                    return Err(rate.error("only a bond with mode = \"802.3ad\" has LACP; leave lacp_rate out"));
                }
                mode = asked;
            }
            let ports = ports(&table.need("ports")?, handles)?;
            table.finish()?;
            Ok(LinkKind::Bond { name, mode, ports })
        }
        [None, None, None, Some(value)] => {
            let mut table = value.table()?;
            let name: InterfaceName = table.need("name")?.parse()?;
            let ports = ports(&table.need("ports")?, handles)?;
            table.finish()?;
            Ok(LinkKind::Bridge { name, ports })
        }
        _ => Err(table.error("give exactly one of match, vlan, bond and bridge")),
    }
}

fn matching(value: &Value<'_>) -> Result<Match, RecordError> {
    let mut table = value.table()?;
    let mut found = Vec::new();
    if let Some(value) = table.take("mac") {
        found.push(Match::Mac(mac(&value)?));
    }
    if let Some(value) = table.take("name") {
        found.push(Match::Name(value.parse()?));
    }
    if let Some(value) = table.take("driver") {
        found.push(Match::Driver(value.parse()?));
    }
    if table.flag("bootif")? {
        found.push(Match::BootIf);
    }
    if table.flag("any")? {
        found.push(Match::AnyWithCarrier);
    }
    if let Some(value) = table.take("path") {
        found.push(Match::Path(value.parse()?));
    }
    table.finish()?;
    let one = found.pop().filter(|_| found.is_empty());
    one.ok_or_else(|| value.error("give exactly one of mac, name, driver, path, bootif = true and any = true"))
}

fn ports(value: &Value<'_>, handles: &[(String, usize)]) -> Result<Vec<usize>, RecordError> {
    let mut ports = Vec::new();
    for item in value.array()? {
        let port = lower(&item, handles)?;
        if ports.contains(&port) {
            return Err(item.error("given twice"));
        }
        ports.push(port);
    }
    if ports.is_empty() {
        return Err(value.error("an empty list; give at least one link"));
    }
    ports.sort_unstable();
    Ok(ports)
}

fn lower(value: &Value<'_>, handles: &[(String, usize)]) -> Result<usize, RecordError> {
    let name = value.string()?;
    let found = handles.iter().find(|(handle, _)| handle == name);
    found.map(|(_, index)| *index).ok_or_else(|| {
        let shown = printable(name);
        value.error(format!("no link \"{shown}\" above this one; give the label or name of a [[network]] before it"))
    })
}

fn link(kind: LinkKind, mut table: Table<'_>) -> Result<Link, RecordError> {
    let prefix = |value: &Value<'_>| value.with("an address with its prefix length, like 192.0.2.10/24", Prefix::parse);
    let address = |value: &Value<'_>| value.with("an IP address", |text| text.parse::<IpAddr>().ok());
    let link = Link {
        kind,
        addresses: table.list("addresses", |value| prefix(&value))?,
        dhcp4: table.flag("dhcp4")?,
        duid: match table.take("dhcp_client_id") {
            Some(value) if value.string()? == "duid" => true,
            Some(value) if value.string()? == "mac" => false,
            Some(value) => return Err(value.error("give \"duid\" (RFC 4361) or \"mac\", the hardware address")),
            None => false,
        },
        slaac: table.flag("slaac")?,
        dhcp6: table.flag("dhcp6")?,
        routes: table.list("routes", |value| {
            let mut table = value.table()?;
            let to = table.need("to")?;
            let gateway = table.take("via").map(|value| address(&value)).transpose()?;
            let destination = match (to.string()?, gateway) {
                ("default", Some(IpAddr::V6(_))) => to.with("a network", |_| Prefix::parse("::/0"))?,
                ("default", _) => to.with("a network", |_| Prefix::parse("0.0.0.0/0"))?,
                _ => to.with("\"default\" or a network, like 198.51.100.0/24", Prefix::parse)?,
            };
            let metric = table.take("metric").map(|value| value.number("0 to 4294967295")).transpose()?;
            table.finish()?;
            Ok(Route { destination, gateway, metric })
        })?,
        dns: table.list("dns", |value| address(&value))?,
        search: table.list("search", |value| value.parse())?,
        mtu: table.take("mtu").map(|value| value.number("68 to 65535")).transpose()?,
    };
    table.finish()?;
    Ok(link)
}
