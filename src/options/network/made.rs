//! `vlan=`, `bond=` and `bridge=` of dracut.cmdline(7). Knows no other word.

use crate::payload::{BondMode, InterfaceName};

/// A link to be made, and the links below it by name.
pub(super) enum Made {
    /// Its id, and what it is on.
    Vlan(u16, InterfaceName),
    /// Mode, ports, and MTU.
    Bond(BondMode, Vec<InterfaceName>, Option<u16>),
    Bridge(Vec<InterfaceName>),
}

impl Made {
    /// The links below this one.
    pub(super) fn lower(&self) -> &[InterfaceName] {
        match self {
            Made::Vlan(_, parent) => std::slice::from_ref(parent),
            Made::Bond(_, ports, _) | Made::Bridge(ports) => ports,
        }
    }
}

/// Name, kind, and a part that is not used.
type Read = (InterfaceName, Made, Option<&'static str>);

/// Reads a word; `None` if it makes no link.
pub(super) fn made(word: &str, value: &str) -> Option<Result<Read, &'static str>> {
    match word {
        "vlan" => Some(vlan(value)),
        "bond" => Some(bond(value)),
        "bridge" => Some(bridge(value)),
        _ => None,
    }
}

/// `NAME:PARENT`. The id is the number at the end of the name, as in vlan5, vlan0005, eth0.5 and eth0.0005.
fn vlan(value: &str) -> Result<Read, &'static str> {
    const WANT: &str = "want NAME:PARENT, like vlan5:eth0 or eth0.5:eth0";
    let (name, parent) = value.split_once(':').ok_or(WANT)?;
    let (own, parent) = (named(name)?, named(parent)?);
    let digits = name.len().saturating_sub(name.trim_end_matches(|c: char| c.is_ascii_digit()).len());
    let number = name.split_at_checked(name.len().saturating_sub(digits)).map(|(_, number)| number);
    let id = number.and_then(|number| number.parse().ok()).filter(|id| (1..=4094).contains(id));
    let id = id.ok_or("its name has to end in the number of the VLAN, 1 to 4094, like vlan5 or eth0.5")?;
    Ok((own, Made::Vlan(id, parent), None))
}

/// `NAME[:PORTS[:OPTIONS[:MTU]]]`
fn bond(value: &str) -> Result<Read, &'static str> {
    let fields: Vec<&str> = value.split(':').collect();
    let (name, listed, options, mtu) = match *fields.as_slice() {
        [name] => (name, "eth0,eth1", "", None),
        [name, listed] => (name, listed, "", None),
        [name, listed, options] => (name, listed, options, None),
        [name, listed, options, mtu] => (name, listed, options, Some(mtu).filter(|mtu| !mtu.is_empty())),
        _ => return Err("want NAME:PORTS:mode=802.3ad, or mode=active-backup, and behind that an MTU"),
    };
    let (mut mode, mut other) = ("balance-rr", false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("mode", given)) => mode = given,
            // The agent watches the carrier of ports, and asks for a LACPDU each second.
            Some(("miimon" | "use_carrier", _) | ("lacp_rate", "fast" | "1")) => {}
            _ => other = true,
        }
    }
    let mode = match mode {
        "active-backup" | "1" => BondMode::ActiveBackup,
        "802.3ad" | "4" => BondMode::Lacp,
        _ => {
            return Err(
                "its mode is not supported (without one it is balance-rr); write mode=active-backup or mode=802.3ad",
            );
        }
    };
    let mtu = mtu.map(|mtu| mtu.parse().map_err(|_| "its MTU is no number from 68 to 65535")).transpose()?;
    let note = other.then_some("of its options only mode is used; the bond is made without the others");
    Ok((named(name)?, Made::Bond(mode, ports(listed)?, mtu), note))
}

/// `NAME:PORTS`
fn bridge(value: &str) -> Result<Read, &'static str> {
    let (name, listed) = value.split_once(':').ok_or("want NAME:PORTS, like br0:eth0")?;
    Ok((named(name)?, Made::Bridge(ports(listed)?), None))
}

fn ports(listed: &str) -> Result<Vec<InterfaceName>, &'static str> {
    let ports = listed.split(',').map(named).collect::<Result<Vec<_>, _>>()?;
    let twice = ports.iter().enumerate().any(|(at, port)| ports.iter().take(at).any(|other| other == port));
    if twice { Err("it has a port twice; write each once") } else { Ok(ports) }
}

fn named(name: &str) -> Result<InterfaceName, &'static str> {
    InterfaceName::try_from(name).map_err(|_| "a name in it is none that a link can have")
}
