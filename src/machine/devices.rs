//! The devices in sysfs: what they call themselves (MODALIAS), and which links and drives have no driver. The kernel vouches for sysfs.
//! Never loads a driver.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

/// A link or a drive without a driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bare {
    /// `0000:00:03.0`
    pub name: String,
    /// What it calls itself.
    pub modalias: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Link,
    Drive,
}

const BUSES: &str = "sys/bus";
const MACHINE: [&str; 2] = ["sys/devices/system/cpu/modalias", "sys/class/dmi/id/modalias"];

/// What the devices on all buses call themselves, each once.
pub fn modaliases(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    each(root, &mut |_, modalias, _| {
        found.insert(modalias.to_owned());
    });
    found
}

/// What processor and firmware call themselves, which are on no bus (drivers/base/cpu.c, drivers/firmware/dmi-id.c): ciphers that
/// the processor has instructions for, and drivers for one product.
pub fn machine(root: &Path) -> Vec<String> {
    let files = MACHINE.iter().filter_map(|file| fs::read_to_string(root.join(file)).ok());
    files.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
}

/// The links and drives without a driver.
pub fn without_driver(root: &Path) -> Vec<Bare> {
    let mut found = Vec::new();
    each(root, &mut |name, modalias, device| {
        if let Some(kind) = kind(modalias).filter(|_| !device.join("driver").exists()) {
            found.push(Bare { name: name.to_owned(), modalias: modalias.to_owned(), kind });
        }
    });
    found
}

/// The links without a driver: why a link is missing.
pub fn links_without_driver(root: &Path) -> Vec<Bare> {
    let mut found = without_driver(root);
    found.retain(|device| device.kind == Kind::Link);
    found
}

fn each(root: &Path, act: &mut dyn FnMut(&str, &str, &Path)) {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    for bus in entries(&root.join(BUSES)) {
        for device in entries(&bus.path().join("devices")) {
            // Most devices on some buses have none.
            if let Ok(modalias) = fs::read_to_string(device.path().join("modalias"))
                && !modalias.trim().is_empty()
            {
                act(&device.file_name().to_string_lossy(), modalias.trim(), &device.path());
            }
        }
    }
}

/// What a device is for, by its class in the MODALIAS. `None`: neither link nor drive, or a class that does not say so.
fn kind(modalias: &str) -> Option<Kind> {
    let (bus, rest) = modalias.split_once(':')?;
    let field = |name: &str, length: usize| {
        let (_, value) = rest.rsplit_once(name)?;
        value.get(..length)
    };
    match bus {
        // include/linux/pci_ids.h: the base class is storage (01) or network (02).
        "pci" => match field("bc", 2)? {
            "01" => Some(Kind::Drive),
            "02" => Some(Kind::Link),
            _ => None,
        },
        // include/uapi/linux/virtio_ids.h: net, block, SCSI host.
        "virtio" => match rest.get(..9)? {
            "d00000001" => Some(Kind::Link),
            "d00000002" | "d00000008" => Some(Kind::Drive),
            _ => None,
        },
        // USB classes: mass storage; communications, as an Ethernet adapter (CDC ECM and NCM).
        "usb" => match (field("ic", 2)?, field("isc", 2)?) {
            ("08", _) => Some(Kind::Drive),
            ("02", "06" | "0D") => Some(Kind::Link),
            _ => None,
        },
        // include/linux/hyperv.h: HV_NIC_GUID, HV_SCSI_GUID, HV_IDE_GUID
        "vmbus" => match rest {
            "635161f83edfc546913ff2d2f965ed0e" => Some(Kind::Link),
            "d96361baa104294db60572e2ffb1dc7f" | "32264132cb86a2449b5c50d1417354f5" => Some(Kind::Drive),
            _ => None,
        },
        "xen" => match rest {
            "vif" => Some(Kind::Link),
            "vbd" => Some(Kind::Drive),
            _ => None,
        },
        // include/scsi/scsi_proto.h: a disk, an optical drive.
        "scsi" => ["t-0x00", "t-0x05"].contains(&rest).then_some(Kind::Drive),
        "mmc" => (rest == "block").then_some(Kind::Drive),
        _ => None,
    }
}

impl fmt::Display for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bare { name, modalias, kind } = self;
        let kind = match kind {
            Kind::Link => "the network link",
            Kind::Drive => "the drive or its controller",
        };
        write!(f, "{kind} {name} has no driver in this image ({modalias}); add its module to the image")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The image without our drivers: the console names the link and the drive, and nothing else.
    #[test]
    fn links_and_drives_without_a_driver_are_named() {
        let root = tempfile::tempdir().unwrap();
        for (bus, name, modalias, driver) in [
            // /sys/bus/*/devices/*/modalias of QEMU's pc with e1000, virtio and AHCI
            ("pci", "0000:00:02.0", "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00", false),
            ("pci", "0000:00:01.1", "pci:v00008086d00007010sv00001AF4sd00001100bc01sc01i80", true),
            ("pci", "0000:00:00.0", "pci:v00008086d00001237sv00001AF4sd00001100bc06sc00i00", false),
            ("virtio", "virtio0", "virtio:d00000002v00001AF4", false),
            ("virtio", "virtio1", "virtio:d00000001v00001AF4", true),
            ("virtio", "virtio2", "virtio:d00000004v00001AF4", false),
            ("usb", "1-1:1.0", "usb:v46F4p0001d0000dc00dsc00dp00ic08isc06ip50in00", false),
            ("platform", "serial8250", "platform:serial8250", false),
        ] {
            let device = root.path().join(BUSES).join(bus).join("devices").join(name);
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("modalias"), format!("{modalias}\n")).unwrap();
            if driver {
                fs::create_dir(device.join("driver")).unwrap();
            }
        }
        let mut found: Vec<String> = without_driver(root.path()).iter().map(ToString::to_string).collect();
        found.sort();
        assert_eq!(
            found,
            [
                "the drive or its controller 1-1:1.0 has no driver in this image \
                 (usb:v46F4p0001d0000dc00dsc00dp00ic08isc06ip50in00); add its module to the image",
                "the drive or its controller virtio0 has no driver in this image (virtio:d00000002v00001AF4); add its module to \
                 the image",
                "the network link 0000:00:02.0 has no driver in this image \
                 (pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00); add its module to the image",
            ]
        );
        assert_eq!(modaliases(root.path()).len(), 8);
        assert_eq!(machine(root.path()), [""; 0]);
        for (file, text) in MACHINE.into_iter().zip(["cpu:type:x86,ven0000fam0006mod003A:feature:,0099,\n", "\n"]) {
            fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
            fs::write(root.path().join(file), text).unwrap();
        }
        assert_eq!(machine(root.path()), ["cpu:type:x86,ven0000fam0006mod003A:feature:,0099,"]);
    }

    #[test]
    fn classes() {
        for (modalias, want) in [
            ("vmbus:635161f83edfc546913ff2d2f965ed0e", Some(Kind::Link)),
            ("xen:vbd", Some(Kind::Drive)),
            ("scsi:t-0x05", Some(Kind::Drive)),
            ("scsi:t-0x0d", None),
            ("usb:v0525pA4A2d0404dc02dsc00dp00ic02isc06ip00in00", Some(Kind::Link)),
            ("usb:v0627p0001d0000dc00dsc00dp00ic03isc01ip01in00", None),
            ("acpi:PNP0A03:", None),
            ("", None),
            ("pci:", None),
        ] {
            assert_eq!(kind(modalias), want, "{modalias}");
        }
    }
}
