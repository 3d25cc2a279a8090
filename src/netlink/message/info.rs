//! Decodes what the kernel says of a VLAN, a bond and the port of a bond (IFLA_LINKINFO). Never opens a socket.

use super::{Attributes, LinkMessage};

// include/uapi/linux/if_link.h
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
pub(super) const IFLA_VLAN_ID: u16 = 1;
pub(super) const IFLA_BOND_MODE: u16 = 1;
pub(super) const IFLA_BOND_MIIMON: u16 = 3;
pub(super) const IFLA_BOND_AD_LACP_RATE: u16 = 21;
const IFLA_BOND_AD_INFO: u16 = 23;
const IFLA_BOND_AD_INFO_AGGREGATOR: u16 = 1;
const IFLA_BOND_AD_INFO_PARTNER_MAC: u16 = 5;
const IFLA_BOND_SLAVE_PERM_HWADDR: u16 = 4;
const IFLA_BOND_SLAVE_AD_AGGREGATOR_ID: u16 = 6;
const IFLA_BOND_SLAVE_AD_ACTOR_OPER_PORT_STATE: u16 = 7;
const IFLA_BOND_SLAVE_AD_PARTNER_OPER_PORT_STATE: u16 = 8;

/// What the kernel says of a VLAN, a bond, and the port of a bond. Everything else is left out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Info {
    /// The id of a VLAN.
    pub vlan: Option<u16>,
    /// The link is a bond.
    pub bond: Option<Bond>,
    /// The link is the port of a bond.
    pub port: Option<Port>,
}

/// A bond.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bond {
    /// [`Bond::ACTIVE_BACKUP`], [`Bond::LACP`], or one that imprint does not make.
    pub mode: u8,
    /// It asks its partner for a LACPDU each second, and else every 30 s.
    pub fast: bool,
    /// The number of the active aggregator; `None` without LACP.
    pub aggregator: Option<u16>,
    /// The partner's system: zeros until one has been heard; empty without LACP.
    pub partner: Vec<u8>,
}

impl Bond {
    /// BOND_MODE_ACTIVEBACKUP (include/uapi/linux/if_bonding.h).
    pub const ACTIVE_BACKUP: u8 = 1;
    /// BOND_MODE_8023AD
    pub const LACP: u8 = 4;
}

/// The port of a bond.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Port {
    /// Its own hardware address: it has that of the bond now.
    pub permanent: Vec<u8>,
    /// The number of its aggregator.
    pub aggregator: Option<u16>,
    /// What this end says of itself: LACP_STATE_… (IEEE 802.1AX, 6.4.2.3).
    pub actor: u8,
    /// What the partner says of itself.
    pub partner: u16,
}

/// The partner was heard, and its numbers are used: synchronization, collecting, distributing.
const AGREED: u8 = 0x08 | 0x10 | 0x20;

impl Port {
    /// Whether both ends carry frames over this port.
    pub fn agreed(&self) -> bool {
        self.actor & AGREED == AGREED && self.partner & u16::from(AGREED) == u16::from(AGREED)
    }
}

/// Reads IFLA_LINKINFO.
pub(super) fn read(value: &[u8], link: &mut LinkMessage) {
    let (mut data, mut port, mut master) = (None, None, None);
    for (kind, value) in Attributes(value) {
        match kind {
            IFLA_INFO_KIND => link.kind = Some(text(value)),
            IFLA_INFO_DATA => data = Some(value),
            IFLA_INFO_SLAVE_KIND => master = Some(text(value)),
            IFLA_INFO_SLAVE_DATA => port = Some(value),
            _ => {}
        }
    }
    let data = Attributes(data.unwrap_or_default());
    match link.kind.as_deref() {
        Some("vlan") => {
            link.info.vlan = data.into_iter().find(|(kind, _)| *kind == IFLA_VLAN_ID).and_then(|(_, id)| number(id));
        }
        Some("bond") => link.info.bond = Some(bond(data)),
        _ => {}
    }
    if master.as_deref() == Some("bond") {
        link.info.port = Some(port_of_bond(Attributes(port.unwrap_or_default())));
    }
}

fn bond(data: Attributes<'_>) -> Bond {
    let mut bond = Bond::default();
    for (kind, value) in data {
        match kind {
            IFLA_BOND_MODE => bond.mode = byte(value),
            IFLA_BOND_AD_LACP_RATE => bond.fast = byte(value) != 0,
            IFLA_BOND_AD_INFO => {
                for (kind, value) in Attributes(value) {
                    match kind {
                        IFLA_BOND_AD_INFO_AGGREGATOR => bond.aggregator = number(value),
                        IFLA_BOND_AD_INFO_PARTNER_MAC => bond.partner = value.to_vec(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    bond
}

fn port_of_bond(data: Attributes<'_>) -> Port {
    let mut port = Port::default();
    for (kind, value) in data {
        match kind {
            IFLA_BOND_SLAVE_PERM_HWADDR => port.permanent = value.to_vec(),
            IFLA_BOND_SLAVE_AD_AGGREGATOR_ID => port.aggregator = number(value),
            IFLA_BOND_SLAVE_AD_ACTOR_OPER_PORT_STATE => port.actor = byte(value),
            IFLA_BOND_SLAVE_AD_PARTNER_OPER_PORT_STATE => port.partner = number(value).unwrap_or_default(),
            _ => {}
        }
    }
    port
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

fn number(value: &[u8]) -> Option<u16> {
    value.try_into().ok().map(u16::from_ne_bytes)
}

fn byte(value: &[u8]) -> u8 {
    value.first().copied().unwrap_or_default()
}
