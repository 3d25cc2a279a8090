//! What sysfs says of the device below a link: where it is, and whether it is a part of another. Never writes to sysfs.

use std::path::Path;

use crate::payload::{DevicePath, HardwareAddress, InterfaceName};

/// What is known of the device of a link.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceFacts {
    /// Where it is, as udev's ID_PATH says it; `None` for virtual links, and for buses that this program does not know.
    pub path: Option<DevicePath>,
    /// It is a virtual function of an SR-IOV device.
    pub is_function: bool,
    /// The present hardware address of the link. `None`: neither 6 nor 20 bytes.
    pub present: Option<HardwareAddress>,
}

/// The most devices that one is below.
const DEPTH: usize = 32;

/// Looks at the device of a link. `present` stays empty.
pub(super) fn facts(root: &Path, name: &InterfaceName) -> DeviceFacts {
    let link = root.join("sys/class/net").join(name.as_str()).join("device");
    // A virtio link is below its PCI device; a virtual function of any kind has `physfn` in the PCI device.
    let is_function = ["physfn", "../physfn"].iter().any(|there| link.join(there).exists());
    DeviceFacts { path: path(root, &link), is_function, present: None }
}

/// The path of a device as udev builds it (src/udev/udev-builtin-path_id.c): of each bus the lowest device counts, the nearest to
/// the processor first. Buses other than PCI, USB and platform are left out.
fn path(root: &Path, device: &Path) -> Option<DevicePath> {
    let devices = root.join("sys/devices").canonicalize().ok()?;
    let mut place = device.canonicalize().ok()?;
    let mut parts: Vec<String> = Vec::new();
    let mut before = String::new();
    for _ in 0..DEPTH {
        if place == devices || !place.starts_with(&devices) {
            break;
        }
        let bus = place.join("subsystem").read_link().ok();
        let bus = bus.as_deref().and_then(Path::file_name).and_then(|bus| bus.to_str()).unwrap_or_default().to_owned();
        let name = place.file_name()?.to_str()?.to_owned();
        if bus != before {
            match bus.as_str() {
                "usb" => parts.push(format!("usb-0:{}", name.split_once('-')?.1)),
                "pci" | "platform" => parts.push(format!("{bus}-{name}")),
                _ => {}
            }
            if !bus.is_empty() {
                before = bus;
            }
        }
        if !place.pop() {
            break;
        }
    }
    // What no bus of these is below has a name of its own each time.
    if !parts.last().is_some_and(|part| part.starts_with("pci-") || part.starts_with("platform-")) {
        return None;
    }
    parts.reverse();
    DevicePath::try_from(parts.join("-").as_str()).ok()
}

/// The speed of a link in Mb/s, while it has carrier and the driver tells it.
pub fn speed(root: &Path, name: &InterfaceName) -> Option<u32> {
    let text = std::fs::read_to_string(root.join("sys/class/net").join(name.as_str()).join("speed")).ok()?;
    // -1, also as an unsigned number: unknown (drivers/net/…, SPEED_UNKNOWN).
    text.trim().parse().ok().filter(|speed| (1..=10_000_000).contains(speed))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Makes the devices from the top down, each with its bus, and a link on the last one.
    fn link(root: &Path, name: &str, devices: &[(&str, &str)]) -> InterfaceName {
        let mut place = root.join("sys/devices");
        for (device, bus) in devices {
            place.push(device);
            fs::create_dir_all(&place).unwrap();
            let folder = root.join("sys/bus").join(bus);
            fs::create_dir_all(&folder).unwrap();
            let _ = symlink(&folder, place.join("subsystem"));
        }
        let net = root.join("sys/class/net").join(name);
        fs::create_dir_all(&net).unwrap();
        symlink(&place, net.join("device")).unwrap();
        InterfaceName::try_from(name).unwrap()
    }

    /// What `udevadm info` shows as ID_PATH for these devices.
    #[test]
    fn device_paths_are_udevs() {
        let root = tempfile::tempdir().unwrap();
        let bridge = [("pci0000:00", "none"), ("0000:00:1c.0", "pci"), ("0000:03:00.0", "pci")];
        for (number, (devices, want)) in [
            (&bridge[..2], Some("pci-0000:00:1c.0")),
            // The device counts, and not the bridge that it is behind.
            (&bridge[..], Some("pci-0000:03:00.0")),
            (&[("pci0000:00", "none"), ("0000:00:03.0", "pci"), ("virtio0", "virtio")], Some("pci-0000:00:03.0")),
            (
                &[
                    ("pci0000:00", "none"),
                    ("0000:00:14.0", "pci"),
                    ("usb1", "usb"),
                    ("1-3", "usb"),
                    ("1-3.2", "usb"),
                    ("1-3.2:1.0", "usb"),
                ],
                Some("pci-0000:00:14.0-usb-0:3.2:1.0"),
            ),
            (&[("platform", "none"), ("fd580000.ethernet", "platform")], Some("platform-fd580000.ethernet")),
            (&[("virtual", "none"), ("thing", "thing")], None),
        ]
        .into_iter()
        .enumerate()
        {
            let name = link(root.path(), &format!("eth{number}"), devices);
            let facts = facts(root.path(), &name);
            assert_eq!(facts.path.as_ref().map(DevicePath::as_str), want, "{devices:?}");
            assert!(!facts.is_function);
        }
        assert_eq!(facts(root.path(), &InterfaceName::try_from("veth0").unwrap()), DeviceFacts::default());
    }

    #[test]
    fn a_virtual_function_is_known_by_its_physical_one() {
        let root = tempfile::tempdir().unwrap();
        let name = link(root.path(), "enp3s0v1", &[("pci0000:00", "none"), ("0000:03:10.1", "pci")]);
        fs::create_dir_all(root.path().join("sys/devices/pci0000:00/0000:03:00.0")).unwrap();
        let device = root.path().join("sys/devices/pci0000:00/0000:03:10.1");
        symlink("../0000:03:00.0", device.join("physfn")).unwrap();
        let facts = facts(root.path(), &name);
        assert!(facts.is_function);
        assert_eq!(facts.path.unwrap().as_str(), "pci-0000:03:10.1");
    }

    #[test]
    fn a_speed_that_is_not_known_is_none() {
        let root = tempfile::tempdir().unwrap();
        let name = InterfaceName::try_from("eth0").unwrap();
        assert_eq!(speed(root.path(), &name), None);
        let net = root.path().join("sys/class/net/eth0");
        fs::create_dir_all(&net).unwrap();
        for (text, want) in [("1000\n", Some(1000)), ("-1\n", None), ("0\n", None), ("4294967295\n", None), ("x", None)]
        {
            fs::write(net.join("speed"), text).unwrap();
            assert_eq!(speed(root.path(), &name), want, "{text}");
        }
    }
}
