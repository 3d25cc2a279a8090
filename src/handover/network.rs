//! Writes the network configuration for the network manager of the next stage: systemd-networkd units and
//! NetworkManager keyfiles ([`link_files`]) under /run. An administrator's files in
//! /etc take precedence over both. Units and keyfiles carry the DHCP client identifier that imprint used, so that the
//! lease continues. In an image of initramfs-tools its own scripts are told as well, which would configure the link once more. Never
//! changes an interface.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::HandoverError;
use crate::apply::file;
use crate::apply::network::{AppliedLink, Network};
use crate::link_files::{self, LinkFile, Standing};
use crate::payload::{InterfaceName, Route};

/// What initramfs-tools puts into each image (mkinitramfs).
const INITRAMFS_TOOLS: &str = "conf/initramfs.conf";
const UNITS: &str = "run/systemd/network";
const KEYFILES: &str = "run/NetworkManager/system-connections";
/// Sorts before the units of distributions (80-…, 99-default), and after an administrator's units with numbers like
/// those of the manual's examples.
const UNIT: (&str, &str) = ("70-imprint-", ".network");
const NETDEV: (&str, &str) = ("70-imprint-", ".netdev");
const KEYFILE: (&str, &str) = ("imprint-", ".nmconnection");

/// Writes a unit and a keyfile for each link, and removes those that an earlier run wrote.
pub fn write(root: &Path, network: &Network) -> Result<(), HandoverError> {
    let links = || network.links.iter().chain(&network.idle);
    let has = |name: &InterfaceName| links().any(|link| link.name == *name);
    // Those that only carry others.
    let plain = || network.standing.iter().filter(|standing| !has(&standing.name));
    let on = |link: &AppliedLink| network.standing.iter().find(|standing| standing.name == link.name);
    // systemd-networkd runs as a user of its own and must read the units. NetworkManager ignores a keyfile that other
    // users can read (nm-settings-keyfile(5), "FILE PERMISSIONS").
    let units = links().map(|link| (&link.name, link_files::unit(&described(link, on(link)))));
    let units = units.chain(plain().map(|link| (&link.name, link_files::unit(&carrier(link)))));
    put_all(&root.join(UNITS), UNIT, 0o755, 0o644, units)?;
    let made = network.standing.iter().filter_map(|link| Some((&link.name, link_files::netdev(link, HEADER)?)));
    put_all(&root.join(UNITS), NETDEV, 0o755, 0o644, made)?;
    let keyfiles = links().map(|link| (&link.name, link_files::keyfile(&described(link, on(link)))));
    let keyfiles = keyfiles.chain(plain().map(|link| (&link.name, link_files::keyfile(&carrier(link)))));
    put_all(&root.join(KEYFILES), KEYFILE, 0o700, 0o600, keyfiles)?;
    if root.join(INITRAMFS_TOOLS).exists() {
        // Its scripts for a root in the network bring no link up while there is such a file (scripts/functions, configure_networking).
        for link in &network.links {
            let (folder, name) = (root.join("run"), format!("net-{}.conf", link.name.as_str()));
            let failed = |source| HandoverError::Write { path: folder.join(&name), source };
            file::replace(&folder, &name, ipconfig(link).as_bytes(), 0o644).map_err(failed)?;
        }
    }
    Ok(())
}

/// What klibc's ipconfig leaves for shell scripts: a variable in each line, and zeros for what there is not
/// (usr/kinit/ipconfig/main.c, dump_device_config). It knows IPv4 alone.
fn ipconfig(link: &AppliedLink) -> String {
    let address = link.all_addresses().find(|prefix| prefix.address().is_ipv4());
    let (own, length) =
        address.map_or((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), |prefix| (prefix.address(), prefix.length()));
    let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or_default();
    let is_default = |route: &&Route| route.destination.length() == 0 && route.destination.address().is_ipv4();
    let gateway = link.all_routes().find(is_default).and_then(|route| route.gateway);
    let mut servers = link.all_dns().map(|server| server.address).filter(IpAddr::is_ipv4);
    let or_none = |address: Option<IpAddr>| address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()).to_string();
    let values = [
        ("DEVICE", link.name.as_str().to_owned()),
        ("PROTO", if link.lease.is_some() { "dhcp" } else { "none" }.to_owned()),
        ("IPV4ADDR", own.to_string()),
        ("IPV4NETMASK", Ipv4Addr::from(mask).to_string()),
        ("IPV4GATEWAY", or_none(gateway)),
        ("IPV4DNS0", or_none(servers.next())),
        ("IPV4DNS1", or_none(servers.next())),
        ("ROOTSERVER", or_none(link.lease.as_ref().map(|lease| lease.server.into()))),
    ];
    values.into_iter().map(|(name, value)| format!("{name}='{}'\n", value.replace('\'', r"'\''"))).collect()
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

const HEADER: &str = "from the bootstrap payload. To change it, put a file of this name into /etc.";

fn described<'a>(link: &'a AppliedLink, standing: Option<&'a Standing>) -> LinkFile<'a> {
    let config = &link.config;
    // The DHCP server's MTU would disable IPv6 on the link. The next stage must not use such an MTU either.
    let given = link.lease.as_ref().and_then(|lease| lease.mtu);
    let refuses = given.is_some_and(|mtu| mtu < config.least_mtu());
    LinkFile {
        origin: HEADER,
        name: link.name.as_str(),
        mac: link.mac.as_ref(),
        permanent: link.permanent.as_ref(),
        priority: None,
        mtu: config.mtu.or(standing.and_then(|standing| standing.mtu)),
        instead_of_dhcp: refuses.then_some(link.mtu),
        dhcp4: config.dhcp4,
        client_id: link.client_id.as_deref(),
        slaac: config.slaac,
        dhcp6: config.dhcp6,
        identity: link.six.identity.as_ref(),
        managed: link.six.managed,
        addresses: &config.addresses,
        routes: &config.routes,
        dns: &config.dns,
        search: &config.search,
        standing,
    }
}

/// A link that only carries others.
fn carrier(link: &Standing) -> LinkFile<'_> {
    LinkFile {
        origin: HEADER,
        name: link.name.as_str(),
        mac: link.mac.as_ref(),
        permanent: link.mac.as_ref().filter(|_| link.kind.is_none()),
        priority: None,
        mtu: link.mtu,
        instead_of_dhcp: None,
        dhcp4: false,
        client_id: None,
        slaac: false,
        dhcp6: false,
        identity: None,
        managed: false,
        addresses: &[],
        routes: &[],
        dns: &[],
        search: &[],
        standing: Some(link),
    }
}

#[cfg(test)]
mod tests;
