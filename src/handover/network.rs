//! Writes the network configuration for the network manager of the next stage: systemd-networkd units
//! (systemd.network(5)) and NetworkManager keyfiles (nm-settings-keyfile(5)) under /run. An administrator's files in
//! /etc take precedence over both. Units and keyfiles carry the DHCP client identifier that imprint used, so that the
//! lease continues. Never changes an interface.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::HandoverError;
use crate::apply::file;
use crate::apply::network::{AppliedLink, Network};
use crate::payload::{InterfaceName, Prefix, Route};

const UNITS: &str = "run/systemd/network";
const KEYFILES: &str = "run/NetworkManager/system-connections";
/// Sorts before the units of distributions (80-…, 99-default), and after an administrator's units with numbers like
/// those of the manual's examples.
const UNIT: (&str, &str) = ("70-imprint-", ".network");
const KEYFILE: (&str, &str) = ("imprint-", ".nmconnection");

/// Writes a unit and a keyfile for each link, and removes those that an earlier run wrote.
pub fn write(root: &Path, network: &Network) -> Result<(), HandoverError> {
    let links = || network.links.iter().chain(&network.idle);
    // systemd-networkd runs as a user of its own and must read the units. NetworkManager ignores a keyfile that other
    // users can read (nm-settings-keyfile(5), "FILE PERMISSIONS").
    put_all(&root.join(UNITS), UNIT, 0o755, 0o644, links().map(|link| (&link.name, unit(link))))?;
    put_all(&root.join(KEYFILES), KEYFILE, 0o700, 0o600, links().map(|link| (&link.name, keyfile(link))))
}

fn put_all<'a>(
    folder: &Path,
    (prefix, suffix): (&str, &str),
    folder_mode: u32,
    mode: u32,
    files: impl Iterator<Item = (&'a InterfaceName, String)>,
) -> Result<(), HandoverError> {
    let failed = |path: PathBuf| move |source| HandoverError::Write { path, source };
    made(folder, folder_mode).and_then(|()| clear(folder, prefix, suffix)).map_err(failed(folder.to_owned()))?;
    for (link, text) in files {
        let name = format!("{prefix}{}{suffix}", link.as_str());
        file::replace(folder, &name, text.as_bytes(), mode).map_err(failed(folder.join(&name)))?;
    }
    Ok(())
}

/// Makes the folder with this mode. Missing parent folders get mode 0755, as NetworkManager makes them:
/// /run/NetworkManager holds files for all users, for example resolv.conf. A folder that exists keeps its mode.
pub(super) fn made(folder: &Path, mode: u32) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        made(above, 0o755)?;
    }
    match DirBuilder::new().mode(mode).create(folder) {
        Ok(()) => fs::set_permissions(folder, Permissions::from_mode(mode)), // whatever the umask
        // The network manager made the folder at the same time.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

fn clear(folder: &Path, prefix: &str, suffix: &str) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(suffix)) {
            file::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Appends a line. Writing to a String cannot fail.
macro_rules! line {
    ($text:expr, $($words:tt)*) => {
        let _ = writeln!($text, $($words)*);
    };
}

const HEADER: &str =
    "# Written by imprint from the bootstrap payload. To change it, put a file of this name into /etc.\n";

/// systemd.network(5), as of systemd 247.
fn unit(link: &AppliedLink) -> String {
    let config = &link.config;
    let mut text = HEADER.to_owned();
    line!(text, "[Match]");
    match &link.mac {
        Some(mac) => {
            line!(text, "MACAddress={mac}");
            // A VLAN, bridge or bond on top of the link has the same address and must not match.
            line!(text, "Type=!vlan bridge bond");
        }
        None => {
            line!(text, "Name={}", link.name);
        }
    }
    if let Some(mtu) = config.mtu {
        line!(text, "\n[Link]\nMTUBytes={mtu}");
    }
    line!(text, "\n[Network]");
    line!(text, "DHCP={}", if config.dhcp4 { "ipv4" } else { "no" });
    line!(text, "IPv6AcceptRA={}", if config.slaac { "yes" } else { "no" });
    if config.dhcp4 {
        // networkd keeps the address while it asks for the lease again.
        line!(text, "KeepConfiguration=dhcp");
    }
    config.addresses.iter().for_each(|prefix| {
        line!(text, "Address={prefix}");
    });
    config.dns.iter().for_each(|server| {
        line!(text, "DNS={server}");
    });
    if !config.search.is_empty() {
        let names: Vec<&str> = config.search.iter().map(|name| name.as_str()).collect();
        line!(text, "Domains={}", names.join(" "));
    }
    for route in &config.routes {
        line!(text, "\n[Route]\nDestination={}", route.destination);
        if let Some(gateway) = route.gateway {
            line!(text, "Gateway={gateway}");
        }
        if let Some(metric) = route.metric {
            line!(text, "Metric={metric}");
        }
    }
    if config.dhcp4 {
        line!(text, "\n[DHCPv4]\nClientIdentifier=mac\nUseDomains=yes");
        line!(text, "UseMTU={}", if config.mtu.is_none() && !refuses_mtu(link) { "yes" } else { "no" });
    }
    if config.slaac {
        line!(text, "\n[IPv6AcceptRA]\nUseDomains=yes");
    }
    text
}

/// nm-settings-keyfile(5), as of NetworkManager 1.30.
fn keyfile(link: &AppliedLink) -> String {
    let config = &link.config;
    let infiniband = link.mac.as_ref().is_some_and(|mac| mac.as_bytes().len() == 20);
    let kind = if infiniband { "infiniband" } else { "ethernet" };
    let mut text = HEADER.to_owned();
    line!(text, "[connection]\nid=imprint-{}\ntype={kind}", link.name);
    // NetworkManager compares mac-address= with the link's permanent address, where there is one.
    let mac = link.permanent.as_ref().or(link.mac.as_ref());
    if mac.is_none() {
        line!(text, "interface-name={}", link.name);
    }
    line!(text, "\n[{kind}]");
    if let Some(mac) = mac {
        line!(text, "mac-address={}", mac.to_string().to_uppercase());
    }
    if infiniband {
        line!(text, "transport-mode=datagram");
    }
    match config.mtu {
        Some(mtu) => {
            line!(text, "mtu={mtu}");
        }
        None if refuses_mtu(link) => {
            line!(text, "mtu={}", link.mtu);
        }
        None => {}
    }
    let (four, six) = (config.addresses.iter().any(is_ipv4), config.addresses.iter().any(|prefix| !is_ipv4(prefix)));
    let method = match (config.dhcp4, four) {
        (true, _) => "auto",
        (_, true) => "manual",
        _ => "disabled",
    };
    line!(text, "\n[ipv4]\nmethod={method}");
    if config.dhcp4 {
        line!(text, "dhcp-client-id=mac");
    }
    if method != "disabled" {
        family(&mut text, link, false);
    }
    let method = match (config.slaac, six) {
        (true, _) => "auto",
        (_, true) => "manual",
        _ => "link-local",
    };
    line!(text, "\n[ipv6]\nmethod={method}");
    if config.slaac {
        // The kernel made the SLAAC address from the hardware address (net/ipv6/addrconf.c); with eui64 NetworkManager
        // makes the same one.
        line!(text, "addr-gen-mode=eui64");
    }
    if method != "link-local" {
        family(&mut text, link, true);
    }
    text
}

/// Whether the DHCP server's MTU would disable IPv6 on the link. The next stage must not use such an MTU either.
fn refuses_mtu(link: &AppliedLink) -> bool {
    let given = link.lease.as_ref().and_then(|lease| lease.mtu);
    given.is_some_and(|mtu| !link.config.allows_mtu(mtu))
}

fn is_ipv4(prefix: &Prefix) -> bool {
    prefix.address().is_ipv4()
}

/// Writes the lines that the sections `[ipv4]` and `[ipv6]` have in common: addresses, routes, DNS.
fn family(text: &mut String, link: &AppliedLink, ipv6: bool) {
    let config = &link.config;
    let mine = |address: &IpAddr| address.is_ipv6() == ipv6;
    for (number, prefix) in (1..).zip(config.addresses.iter().filter(|prefix| mine(&prefix.address()))) {
        line!(text, "address{number}={prefix}");
    }
    for (number, route) in (1..).zip(config.routes.iter().filter(|route| mine(&route.destination.address()))) {
        line!(text, "route{number}={}", via(route, ipv6));
    }
    let servers: Vec<String> =
        config.dns.iter().filter(|server| mine(server)).map(|server| format!("{server};")).collect();
    if !servers.is_empty() {
        line!(text, "dns={}", servers.concat());
    }
    // Search domains are written for one family only: NetworkManager joins the lists of both.
    let with_ipv4 = config.dhcp4 || config.addresses.iter().any(is_ipv4);
    if !config.search.is_empty() && ipv6 != with_ipv4 {
        let names: Vec<String> = config.search.iter().map(|name| format!("{};", name.as_str())).collect();
        line!(text, "dns-search={}", names.concat());
    }
}

/// `DESTINATION[,GATEWAY[,METRIC]]`; a gateway of zeros means on-link.
fn via(route: &Route, ipv6: bool) -> String {
    let none = if ipv6 { "::" } else { "0.0.0.0" };
    let gateway = route.gateway.map_or(none.to_owned(), |gateway| gateway.to_string());
    let metric = route.metric.map_or(String::new(), |metric| format!(",{metric}"));
    format!("{},{gateway}{metric}", route.destination)
}

#[cfg(test)]
mod tests;
