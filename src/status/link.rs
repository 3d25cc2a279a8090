//! The links of a run, for status.json and `imprint network`: what each was like, and what was heard on it. Never asks the kernel.

use serde::{Deserialize, Serialize};

use crate::apply::network::{Carrier, LinkReport};
use crate::lldp::Neighbour;
use crate::payload::DriverName;

/// One link that was tried.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Its name.
    pub name: String,
    /// Its kernel driver; `None` for virtual links.
    pub driver: Option<String>,
    /// Whether packets can pass: `up`, `dormant`, `none`; or why it was not touched: `unnamed`, `controller`.
    pub carrier: String,
    /// In Mb/s. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<u32>,
    /// It is a virtual function of an SR-IOV device.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub virtual_function: bool,
    /// Packets received since the link was made.
    pub received: u64,
    /// Packets without a tag while it was listened to. Absent: it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untagged: Option<u64>,
    /// VLANs that frames were tagged with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vlans: Vec<u16>,
    /// The switch at the other end. Absent: none was heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbour: Option<NeighbourStatus>,
    /// What was tried on the link and with what result, as on the console.
    pub tried: Vec<String>,
}

/// A switch, as it says itself (LLDP). Nobody vouches for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NeighbourStatus {
    /// Its address or name as a device.
    pub chassis: String,
    /// The port that the link leads to.
    pub port: String,
    /// What somebody has written about the port; may be empty.
    pub description: String,
    /// The system's name; may be empty.
    pub system: String,
    /// The VLAN of frames without a tag.
    pub vlan: Option<u16>,
    /// The VLAN of the switch's own management.
    pub management_vlan: Option<u16>,
}

impl From<&LinkReport> for LinkStatus {
    fn from(link: &LinkReport) -> LinkStatus {
        let carrier = match link.carrier {
            Carrier::Up => "up",
            Carrier::Dormant => "dormant",
            Carrier::None => "none",
            Carrier::Udev => "unnamed",
            Carrier::Controller => "controller",
            Carrier::Unmade => "unmade",
            Carrier::Lacp => "lacp",
        };
        LinkStatus {
            name: link.name.as_str().to_owned(),
            driver: link.driver.as_ref().map(DriverName::to_string),
            carrier: carrier.to_owned(),
            speed: link.speed,
            virtual_function: link.is_function,
            received: link.received,
            untagged: link.heard.untagged,
            vlans: link.heard.vlans.clone(),
            neighbour: link.heard.neighbour.as_ref().map(NeighbourStatus::from),
            tried: link.tried.clone(),
        }
    }
}

impl From<&Neighbour> for NeighbourStatus {
    fn from(neighbour: &Neighbour) -> NeighbourStatus {
        NeighbourStatus {
            chassis: neighbour.chassis.to_string(),
            port: neighbour.port.to_string(),
            description: neighbour.description.to_string(),
            system: neighbour.system.to_string(),
            vlan: neighbour.vlan,
            management_vlan: neighbour.management_vlan,
        }
    }
}
