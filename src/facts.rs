//! What is true of this machine: links, DMI, clock, site pin. Gathers, decides nothing.

use crate::payload::{DriverName, HardwareAddress, InterfaceName};
use crate::source::Origin;
use crate::time::Timestamp;

/// Everything that `plan` may know about the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Where the payload came from.
    pub origin: Origin,
    /// Present when the image holds `/imprint/site`.
    pub site_pin: Option<SitePin>,
    /// The system clock.
    pub now: Timestamp,
    /// Every network link but loopback.
    pub links: Vec<LinkFacts>,
    /// SMBIOS.
    pub dmi: Dmi,
    /// `BOOTIF=` of the kernel command line.
    pub bootif: Option<HardwareAddress>,
}

/// SHA-256 digests of the CA certificates that this site uses. A file of hex digests, one a line, `#` comments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SitePin(pub Vec<[u8; 32]>);

/// One network link as rtnetlink and sysfs show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkFacts {
    /// Kernel interface index.
    pub index: u32,
    /// Its name now; udev may still change it.
    pub name: InterfaceName,
    /// Permanent hardware address where the kernel tells it, else the current one. `None`: neither 6 nor 20 bytes.
    pub mac: Option<HardwareAddress>,
    /// `/sys/class/net/NAME/device/driver`; `None` for virtual links.
    pub driver: Option<DriverName>,
    /// IFF_LOWER_UP. A link that is down shows none.
    pub carrier: bool,
}

/// What SMBIOS says; absent on machines without it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dmi {
    /// System UUID in the order in which sysfs prints it.
    pub uuid: Option<[u8; 16]>,
    /// System serial number, trimmed.
    pub serial: Option<String>,
}
