//! Which machine this is, by what SMBIOS and the kernel say: its identifiers and its links. Only looks.

use std::path::Path;

use crate::hex;
use crate::netlink::message::{ARPHRD_LOOPBACK, LinkMessage};
use crate::netlink::{Netlink, RequestError};
use crate::payload::{DriverName, HardwareAddress, InterfaceName, Match};
use crate::time::Deadline;

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

/// Whether a link is the one that is asked for. Carrier is not looked at: a link that is down shows none.
pub fn matches(matching: &Match, bootif: Option<&HardwareAddress>, link: &LinkFacts) -> bool {
    match matching {
        Match::Mac(mac) => link.mac.as_ref() == Some(mac),
        Match::Name(name) => link.name == *name,
        Match::Driver(driver) => link.driver.as_ref() == Some(driver),
        Match::BootIf => bootif.is_some() && link.mac.as_ref() == bootif,
        // A link without a driver is a virtual one: nothing is plugged into it.
        Match::AnyWithCarrier => link.driver.is_some(),
    }
}

/// Every link but loopback.
pub fn links(netlink: &mut Netlink, root: &Path, deadline: Deadline) -> Result<Vec<LinkFacts>, RequestError> {
    let messages = netlink.links(deadline)?;
    Ok(messages.into_iter().filter_map(|message| link_facts(&message, root)).collect())
}

/// `None`: loopback, or a link whose name no payload could say.
pub fn link_facts(message: &LinkMessage, root: &Path) -> Option<LinkFacts> {
    if message.hardware == ARPHRD_LOOPBACK {
        return None;
    }
    let carrier = message.carrier();
    let name = message.name.clone()?;
    let driver = root.join("sys/class/net").join(name.as_str()).join("device/driver").read_link().ok();
    let driver = driver.and_then(|path| DriverName::try_from(path.file_name()?.to_str()?).ok());
    let permanent = message.permanent_address.as_deref().and_then(HardwareAddress::new);
    let mac = permanent.or_else(|| HardwareAddress::new(&message.address));
    Some(LinkFacts { index: message.index, name, mac, driver, carrier })
}

/// Firmware that was never told a serial number says so in one of these ways.
const PLACEHOLDERS: [&str; 6] =
    ["", "none", "not specified", "to be filled by o.e.m.", "default string", "system serial number"];

/// What tells this machine from others: SMBIOS, and the hardware addresses of the links that there are now. What cannot
/// be learned is left out.
pub fn identifiers(root: &Path, deadline: Deadline) -> (Dmi, Vec<HardwareAddress>) {
    let links = Netlink::open(0).ok().and_then(|mut netlink| links(&mut netlink, root, deadline).ok());
    let mut macs: Vec<HardwareAddress> = links.unwrap_or_default().into_iter().filter_map(|link| link.mac).collect();
    macs.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    macs.dedup();
    (dmi(root), macs)
}

/// What SMBIOS says, by way of sysfs.
pub fn dmi(root: &Path) -> Dmi {
    let read = |item: &str| {
        let text = std::fs::read_to_string(root.join("sys/class/dmi/id").join(item)).ok()?;
        Some(text.trim().to_owned())
    };
    let uuid = read("product_uuid").and_then(|text| hex::decode(&text.replace('-', "")));
    let serial = read("product_serial").filter(|text| !PLACEHOLDERS.contains(&text.to_lowercase().as_str()));
    Dmi { uuid: uuid.and_then(|bytes| bytes.try_into().ok()), serial }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn smbios() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(dmi(root.path()), Dmi::default());
        let id = root.path().join("sys/class/dmi/id");
        fs::create_dir_all(&id).unwrap();
        fs::write(id.join("product_uuid"), "00010203-0405-0607-0809-0a0b0c0d0e0f\n").unwrap();
        fs::write(id.join("product_serial"), "SN-0042 \n").unwrap();
        let uuid = Some(std::array::from_fn(|i| i as u8));
        assert_eq!(dmi(root.path()), Dmi { uuid, serial: Some("SN-0042".into()) });
        fs::write(id.join("product_serial"), "To be filled by O.E.M.\n").unwrap();
        assert_eq!(dmi(root.path()).serial, None);
    }
}
