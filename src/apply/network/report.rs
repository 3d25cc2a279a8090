//! Says in one line each what became of the links, for an operator without a network. Never asks the kernel.

use std::fmt;

use super::heard::Heard;
use crate::facts::LinkFacts;
use crate::netlink::message::LinkMessage;
use crate::payload::{DriverName, InterfaceName};

/// One link that was tried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkReport {
    /// Its present name.
    pub name: InterfaceName,
    /// Its kernel driver; `None` for virtual links.
    pub driver: Option<DriverName>,
    /// Whether packets can pass, and if not, why.
    pub carrier: Carrier,
    /// Packets received since the link was created.
    pub received: u64,
    /// In Mb/s, if the driver tells it.
    pub speed: Option<u32>,
    /// It is a virtual function of an SR-IOV device.
    pub is_function: bool,
    /// What was heard on the link beside what it was asked for.
    pub heard: Heard,
    /// What was tried on the link and with what result, in a few words each.
    pub tried: Vec<String>,
}

impl LinkReport {
    /// A report on a link that was not touched. `carrier` says why.
    pub(super) fn untouched(link: &LinkFacts, carrier: Carrier) -> LinkReport {
        LinkReport {
            name: link.name.clone(),
            driver: link.driver.clone(),
            carrier,
            received: 0,
            speed: None,
            is_function: link.device.is_function,
            heard: Heard::default(),
            tried: Vec::new(),
        }
    }
}

/// Whether packets can pass on a link, and if not, why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    /// udevd has not named the link yet, so the link was not touched.
    Udev,
    /// SMBIOS says that the link leads to the management controller, so a payload that wants any link does not get this
    /// one.
    Controller,
    /// The link is to be made, and is not there.
    Unmade,
    /// The link is on a bond whose partner has not agreed to carry its frames.
    Lacp,
    /// The link has no signal from the other end.
    None,
    /// The link has a signal, but something (802.1X, a bond without ports) holds packets back.
    Dormant,
    /// Packets can pass.
    Up,
}

impl Carrier {
    /// The state of a link that udevd has named.
    pub(super) fn of(link: &LinkMessage) -> Carrier {
        match (link.operational(), link.carrier()) {
            (true, _) => Carrier::Up,
            (_, true) => Carrier::Dormant,
            _ => Carrier::None,
        }
    }
}

/// `eth0 (igb): carrier, 1000 Mb/s, 0 packets received untagged, VLAN ids on the wire: 10, 20, switch sw1 port ge-0/0/1, DHCPv4: 4
/// DISCOVER sent, no OFFER`
impl fmt::Display for LinkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let driver = self.driver.as_ref().map_or("virtual", DriverName::as_str);
        let carrier = match self.carrier {
            Carrier::Udev => "not used because udevd has not named it yet",
            Carrier::Controller => {
                "not used because it leads to the management controller (SMBIOS type 42); match it by mac, name or \
                 driver to use it"
            }
            Carrier::Unmade => "not made",
            Carrier::Lacp => "waiting for LACP",
            Carrier::None => "no carrier, check cable and switch port",
            Carrier::Dormant => "carrier, but packets are held back (802.1X?)",
            Carrier::Up => "carrier",
        };
        let part = if self.is_function { ", virtual function" } else { "" };
        write!(f, "{} ({driver}{part}): {carrier}", self.name)?;
        if let Some(speed) = self.speed.filter(|_| self.carrier == Carrier::Up) {
            write!(f, ", {speed} Mb/s")?;
        }
        if !matches!(self.carrier, Carrier::Udev | Carrier::Controller | Carrier::Unmade) {
            // Of a link with VLANs a person wants to know whether anything comes without a tag.
            let (count, how) = match self.heard.untagged.filter(|_| !self.heard.vlans.is_empty()) {
                Some(untagged) => (untagged, " untagged"),
                None => (self.received, ""),
            };
            write!(f, ", {count} {} received{how}", if count == 1 { "packet" } else { "packets" })?;
        }
        if !self.heard.vlans.is_empty() {
            let vlans: Vec<String> = self.heard.vlans.iter().map(ToString::to_string).collect();
            write!(f, ", VLAN ids on the wire: {}", vlans.join(", "))?;
        }
        if let Some(neighbour) = &self.heard.neighbour {
            write!(f, ", {neighbour}")?;
        }
        self.tried.iter().try_for_each(|what| write!(f, ", {what}"))
    }
}
