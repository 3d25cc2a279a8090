//! Tells which machine this is, from SMBIOS and the kernel: its identifiers and its links. Never changes anything.

pub mod device;
pub mod devices;
pub mod placeholder;

use std::path::Path;

use crate::hex;
use crate::netlink::message::{ARPHRD_LOOPBACK, LinkMessage};
use crate::netlink::{Netlink, RequestError};
use crate::order;
use crate::payload::{DriverName, HardwareAddress, InterfaceName, Match};
use crate::smbios::{self, Device, HostInterface};
use crate::time::Deadline;
pub use device::DeviceFacts;

/// One network link as rtnetlink and sysfs show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkFacts {
    /// Kernel interface index.
    pub index: u32,
    /// The name of the link now; udev may still change the name.
    pub name: InterfaceName,
    /// Permanent hardware address where the kernel tells it, else the current one. `None`: neither 6 nor 20 bytes.
    pub mac: Option<HardwareAddress>,
    /// `/sys/class/net/NAME/device/driver`; `None` for virtual links.
    pub driver: Option<DriverName>,
    /// IFF_LOWER_UP. A link that is down shows no carrier.
    pub carrier: bool,
    /// SMBIOS says that the link leads to the machine's management controller.
    pub controller: bool,
    /// What else is known of its device.
    pub device: DeviceFacts,
}

/// Drivers of USB links to a single peer: a management controller, a telephone, another computer.
const USB_PEERS: [&str; 5] = ["cdc_ether", "cdc_eem", "cdc_ncm", "cdc_subset", "rndis_host"];

impl LinkFacts {
    /// Whether the link is a USB link to a single peer (CDC, RNDIS).
    pub fn is_usb_peer(&self) -> bool {
        self.driver.as_ref().is_some_and(|driver| USB_PEERS.contains(&driver.as_str()))
    }
}

/// The machine's identifiers in SMBIOS; `None` on machines without SMBIOS, and where firmware shows a placeholder.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dmi {
    /// System UUID in the order in which sysfs prints it.
    pub uuid: Option<[u8; 16]>,
    /// System serial number, trimmed.
    pub serial: Option<String>,
}

/// Whether a link is the one that is asked for. Ignores carrier, because a link that is down shows no carrier.
pub fn matches(matching: &Match, bootif: Option<&HardwareAddress>, link: &LinkFacts) -> bool {
    match matching {
        Match::Mac(mac) => has_mac(link, mac),
        Match::Name(name) => link.name == *name,
        Match::Driver(driver) => link.driver.as_ref() == Some(driver),
        Match::BootIf => bootif.is_some_and(|mac| has_mac(link, mac)),
        Match::Path(path) => link.device.path.as_ref() == Some(path),
        // A link without a driver is virtual: no cable is plugged into it. A link to the management controller leads
        // nowhere else, and has carrier as soon as the machine has power.
        Match::AnyWithCarrier => link.driver.is_some() && !link.controller,
    }
}

/// By the permanent address. A locally administered address (IEEE 802, the second bit of the first byte) that was given to a device
/// is its present one only: that of a virtual function, or one that the firmware has set. What is made on top of a device (a VLAN,
/// a bond) has the same present address, and no driver.
fn has_mac(link: &LinkFacts, mac: &HardwareAddress) -> bool {
    let is_local = mac.as_bytes().len() == 6 && mac.as_bytes().first().is_some_and(|first| first & 2 != 0);
    link.mac.as_ref() == Some(mac) || (is_local && link.driver.is_some() && link.device.present.as_ref() == Some(mac))
}

/// Every link but loopback.
pub fn links(netlink: &mut Netlink, root: &Path, deadline: Deadline) -> Result<Vec<LinkFacts>, RequestError> {
    let messages = netlink.links(deadline)?;
    let controllers = host_interfaces(root);
    Ok(messages.into_iter().filter_map(|message| link_facts(&message, root, &controllers)).collect())
}

/// Whether udevd is done with a link, or does not run. udevd writes `/run/udev/data/n<index>` once it is done. It also does so
/// before it renames a link, and then says so in the file: E:ID_RENAMING=1 (src/udev/udev-event.c, rename_netif).
pub fn is_named(root: &Path, index: u32) -> bool {
    let udev = root.join("run/udev");
    !udev.join("control").exists() || is_recorded(&udev.join("data"), index)
}

/// Whether udevd's database says that udevd is done with a link.
pub fn is_recorded(database: &Path, index: u32) -> bool {
    let record = std::fs::read(database.join(format!("n{index}")));
    record.is_ok_and(|record| !record.split(|byte| *byte == b'\n').any(|line| line == b"E:ID_RENAMING=1"))
}

/// Network interfaces of the management controller, from SMBIOS. Empty without SMBIOS, or without the right to read it.
pub fn host_interfaces(root: &Path) -> Vec<HostInterface> {
    let table = std::fs::read(root.join("sys/firmware/dmi/tables/DMI"));
    table.map(|table| smbios::host_interfaces(&table)).unwrap_or_default()
}

/// Facts about one link. `None`: loopback, or a link with a name that no payload can contain.
pub fn link_facts(message: &LinkMessage, root: &Path, controllers: &[HostInterface]) -> Option<LinkFacts> {
    if message.hardware == ARPHRD_LOOPBACK {
        return None;
    }
    let carrier = message.carrier();
    let name = message.name.clone()?;
    let driver = root.join("sys/class/net").join(name.as_str()).join("device/driver").read_link().ok();
    let driver = driver.and_then(|path| DriverName::try_from(path.file_name()?.to_str()?).ok());
    let permanent = message.permanent_address.as_deref().and_then(HardwareAddress::new);
    // A VLAN, bond or bridge has the address of a link that it stands on, and is not the link that is meant by it.
    let stands = matches!(message.kind.as_deref(), Some("vlan" | "bond" | "bridge"));
    let mac = permanent.or_else(|| HardwareAddress::new(&message.address).filter(|_| !stands));
    let current = HardwareAddress::new(&message.address);
    let controller = controllers.iter().any(|there| is_controller(there, [&mac, &current], &name, root));
    let device = DeviceFacts { present: current, ..device::facts(root, &name) };
    Some(LinkFacts { index: message.index, name, mac, driver, carrier, controller, device })
}

/// Whether SMBIOS means this link: by its hardware address, or by the IDs of its device. The machine's other links may
/// have the same PCI IDs, so these count only where SMBIOS gives no address and one link alone has them. The IDs of a
/// USB device are the controller's own.
fn is_controller(
    there: &HostInterface,
    macs: [&Option<HardwareAddress>; 2],
    name: &InterfaceName,
    root: &Path,
) -> bool {
    let has_mac =
        there.mac.is_some_and(|mac| macs.iter().any(|own| own.as_ref().is_some_and(|own| own.as_bytes() == mac)));
    let has_numbers = |link: &Path| numbers(link).is_some_and(|device| device == there.device);
    let net = root.join("sys/class/net");
    has_mac
        || (has_numbers(&net.join(name.as_str()))
            && match there.device {
                Device::Usb { .. } => true,
                Device::Pci { .. } => {
                    let links = std::fs::read_dir(&net).into_iter().flatten().flatten();
                    there.mac.is_none() && links.filter(|link| has_numbers(&link.path())).count() == 1
                }
            })
}

/// The USB or PCI IDs of a link's device, from sysfs.
fn numbers(link: &Path) -> Option<Device> {
    let number = |file: &str| {
        let text = std::fs::read_to_string(link.join("device").join(file)).ok()?;
        u16::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    // A USB link belongs to a USB interface; the folder above it is the USB device.
    let usb = || Some(Device::Usb { vendor: number("../idVendor")?, product: number("../idProduct")? });
    let pci = || {
        Some(Device::Pci {
            vendor: number("vendor")?,
            device: number("device")?,
            subsystem: [number("subsystem_vendor")?, number("subsystem_device")?],
        })
    };
    usb().or_else(pci)
}

/// The machine's identifiers: SMBIOS, and the hardware addresses of the present links. Identifiers that cannot be read
/// are left out.
pub fn identifiers(root: &Path, deadline: Deadline) -> (Dmi, Vec<HardwareAddress>) {
    let links = Netlink::open(0).ok().and_then(|mut netlink| links(&mut netlink, root, deadline).ok());
    let mut macs: Vec<HardwareAddress> = links.unwrap_or_default().into_iter().filter_map(|link| link.mac).collect();
    order::sort(&mut macs, |one, other| one.as_bytes() < other.as_bytes());
    macs.dedup();
    (dmi(root), macs)
}

/// The identifiers in SMBIOS, from sysfs. A placeholder is none.
pub fn dmi(root: &Path) -> Dmi {
    let read = |item: &str| {
        let text = std::fs::read_to_string(root.join("sys/class/dmi/id").join(item)).ok()?;
        Some(text.trim().to_owned())
    };
    let uuid = read("product_uuid").and_then(|text| hex::decode(&text.replace('-', ""))?.try_into().ok());
    let serial = read("product_serial").filter(|text| !placeholder::is_serial(text));
    Dmi { uuid: uuid.filter(|uuid| !placeholder::is_uuid(uuid)), serial }
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
        for uuid in ["FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "03000200-0400-0500-0006-000700080009"] {
            fs::write(id.join("product_uuid"), format!("{uuid}\n")).unwrap();
            assert_eq!(dmi(root.path()).uuid, None, "{uuid}");
        }
    }

    /// Makes the sysfs folder of a link, and that of its device at `path`.
    fn device(root: &Path, name: &str, path: &str, files: &[(&str, &str)]) {
        let device = root.join("sys/devices").join(path);
        fs::create_dir_all(&device).unwrap();
        let net = root.join("sys/class/net").join(name);
        fs::create_dir_all(&net).unwrap();
        std::os::unix::fs::symlink(&device, net.join("device")).unwrap();
        for (file, text) in files {
            fs::write(device.join(file), text).unwrap();
        }
    }

    fn link(name: &str, last: u8) -> LinkMessage {
        let address = vec![2, 0, 0, 0, 0, last];
        LinkMessage { name: InterfaceName::try_from(name).ok(), address, ..LinkMessage::default() }
    }

    #[test]
    fn links_to_the_management_controller() {
        let root = tempfile::tempdir().unwrap();
        // A USB device on the board, and a link on an interface of it.
        device(root.path(), "usb0", "pci0/usb1/1-3/1-3:1.0", &[("../idVendor", "046b\n"), ("../idProduct", "ffb0\n")]);
        let pci = |device: &'static str| {
            [
                ("vendor", "0x8086\n"),
                ("device", device),
                ("subsystem_vendor", "0x15d9\n"),
                ("subsystem_device", "0x1f5b\n"),
            ]
        };
        device(root.path(), "eth0", "pci0/0000:01:00.0", &pci("0x153b\n"));
        let usb = Device::Usb { vendor: 0x046b, product: 0xffb0 };
        let card = Device::Pci { vendor: 0x8086, device: 0x153b, subsystem: [0x15d9, 0x1f5b] };
        let is = |name: &str, last: u8, device: &Device, mac: Option<[u8; 6]>| {
            let controllers = [HostInterface { device: device.clone(), mac }];
            link_facts(&link(name, last), root.path(), &controllers).unwrap().controller
        };
        // By the IDs, by the address, and by neither.
        assert!(is("usb0", 1, &usb, None) && is("usb0", 1, &usb, Some([2, 0, 0, 0, 0, 9])));
        assert!(is("eth9", 7, &usb, Some([2, 0, 0, 0, 0, 7])));
        assert!(!is("eth0", 1, &usb, None) && !is("usb0", 1, &card, None));
        assert!(!is("usb0", 1, &Device::Usb { vendor: 0x046b, product: 0xffb1 }, None));
        // A PCI card of that kind is the controller's only if it is the only one, and SMBIOS gives no address.
        assert!(is("eth0", 1, &card, None) && !is("eth0", 1, &card, Some([2, 0, 0, 0, 0, 9])));
        device(root.path(), "eth1", "pci0/0000:01:00.1", &pci("0x153b\n"));
        assert!(!is("eth0", 1, &card, None) && !is("eth1", 2, &card, None));
        // The SMBIOS table as the kernel shows it; without the table no link is a controller's.
        assert_eq!(host_interfaces(root.path()), []);
        fs::create_dir_all(root.path().join("sys/firmware/dmi/tables")).unwrap();
        let table = [&[42, 15, 1, 0, 0x40, 9, 2, 0x6b, 0x04, 0xb0, 0xff, 2, 3, 0, 0][..], &[0, 0, 127, 4, 2, 0, 0, 0]];
        fs::write(root.path().join("sys/firmware/dmi/tables/DMI"), table.concat()).unwrap();
        assert_eq!(host_interfaces(root.path()), [HostInterface { device: usb, mac: None }]);
    }
}
