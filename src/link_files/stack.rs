//! What the files say of VLANs, bonds and bridges, and of the links that these stand on (systemd.netdev(5), nm-settings-keyfile(5)).
//! Pure: never writes a file.

use std::fmt::Write as _;

use crate::payload::{HardwareAddress, InterfaceName};

/// A link that was made, or that others stand on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its name.
    pub name: InterfaceName,
    /// The hardware address of a link that was made; of another the permanent one, where the driver knows it.
    pub mac: Option<HardwareAddress>,
    /// In bytes.
    pub mtu: Option<u16>,
    /// It has no addresses of its own.
    pub plain: bool,
    /// What was made; `None`: the machine has the link.
    pub kind: Option<Kind>,
    /// The bond (`true`) or bridge that has it as a port.
    pub master: Option<(InterfaceName, bool)>,
    /// The VLANs on it.
    pub vlans: Vec<InterfaceName>,
}

/// A kind of link that is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// IEEE 802.1Q.
    Vlan {
        /// 1 to 4094.
        id: u16,
        /// What carries it.
        parent: InterfaceName,
    },
    /// A bond.
    Bond {
        /// LACP, with a LACPDU each second (`true`) or each 30 s; `None`: active-backup.
        fast: Option<bool>,
    },
    /// A bridge without the spanning tree protocol.
    Bridge,
}

impl Kind {
    /// As both network managers and the kernel call it.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Vlan { .. } => "vlan",
            Kind::Bond { .. } => "bond",
            Kind::Bridge => "bridge",
        }
    }
}

impl Standing {
    /// The permanent address of a port: the present one may be that of its bond.
    pub(super) fn permanent(&self) -> Option<&HardwareAddress> {
        self.mac.as_ref().filter(|_| self.master.is_some() && self.kind.is_none())
    }

    /// Lines of the section `[Network]` of a unit.
    pub(super) fn of_unit(&self) -> String {
        let mut text = String::new();
        if self.plain {
            text.push_str("LinkLocalAddressing=no\n");
        }
        if let Some((master, is_bond)) = &self.master {
            if *is_bond {
                // networkd 252 takes a port down to make it what it is already. With KeepMaster= it makes no port of a link that is
                // none.
                text.push_str("KeepMaster=yes\n");
            }
            let _ = writeln!(text, "{}={master}", if *is_bond { "Bond" } else { "Bridge" });
        }
        self.vlans.iter().for_each(|vlan| {
            let _ = writeln!(text, "VLAN={vlan}");
        });
        text
    }

    /// Sections of a keyfile, after lines of the section `[connection]`.
    pub(super) fn of_keyfile(&self) -> String {
        let mut text = String::new();
        if let Some((master, is_bond)) = &self.master {
            let kind = if *is_bond { "bond" } else { "bridge" };
            let _ = writeln!(text, "master={master}\nslave-type={kind}");
        }
        match &self.kind {
            Some(Kind::Vlan { id, parent }) => {
                let _ = writeln!(text, "\n[vlan]\nid={id}\nparent={parent}\nflags=1");
            }
            Some(Kind::Bond { fast }) => {
                let _ = write!(text, "\n[bond]\nmode={}\nmiimon={MIIMON}\n", mode(*fast));
                if let Some(fast) = fast {
                    let _ = writeln!(text, "lacp_rate={}", rate(*fast));
                }
            }
            Some(Kind::Bridge) => text.push_str("\n[bridge]\nstp=false\n"),
            None => {}
        }
        text
    }

    /// The address that a bond or bridge took: another would be another machine to a DHCP server.
    pub(super) fn taken(&self) -> Option<&HardwareAddress> {
        self.mac.as_ref().filter(|_| self.kind.is_some() && !self.is_vlan())
    }

    fn is_vlan(&self) -> bool {
        matches!(self.kind, Some(Kind::Vlan { .. }))
    }
}

/// As rtnetlink was told when the bond was made.
const MIIMON: u32 = 100;

fn mode(fast: Option<bool>) -> &'static str {
    if fast.is_some() { "802.3ad" } else { "active-backup" }
}

fn rate(fast: bool) -> &'static str {
    if fast { "fast" } else { "slow" }
}

/// systemd.netdev(5), as of systemd 247. `None`: the machine has the link.
pub fn netdev(link: &Standing, origin: &str) -> Option<String> {
    let kind = link.kind.as_ref()?;
    let mut text = format!("# Written by imprint {origin}\n[NetDev]\nName={}\nKind={}\n", link.name, kind.name());
    if let Some(mac) = link.taken() {
        let _ = writeln!(text, "MACAddress={mac}");
    }
    if let Some(mtu) = link.mtu {
        let _ = writeln!(text, "MTUBytes={mtu}");
    }
    match kind {
        Kind::Vlan { id, .. } => {
            let _ = writeln!(text, "\n[VLAN]\nId={id}");
        }
        Kind::Bond { fast } => {
            let _ = writeln!(text, "\n[Bond]\nMode={}\nMIIMonitorSec={MIIMON}ms", mode(*fast));
            if let Some(fast) = fast {
                let _ = writeln!(text, "LACPTransmitRate={}", rate(*fast));
            }
        }
        Kind::Bridge => text.push_str("\n[Bridge]\nSTP=no\n"),
    }
    Some(text)
}
