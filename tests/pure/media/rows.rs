//! The rows of the test body in `media`: how a payload gets into each medium, how the medium is broken, and how it
//! looks if others use it. Asserts nothing.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use imprint::medium::{ARMOUR, Looked, Medium, PARTITION_TYPE};
use imprint::payload::MAX_LEN;
use imprint::pem;
use imprint::source::efivar;
use imprint::time::Timestamp;
use imprint_host::{iso, vfat};

use super::super::volumes::run as tool;

/// One way in which a medium holds a payload.
pub(super) struct Row {
    /// The name of the row on the page and in failures.
    pub(super) name: &'static str,
    pub(super) medium: Medium,
    /// The word of `imprint.source=`.
    pub(super) word: &'static str,
    pub(super) looked: Looked,
    /// The origin, as status.json has it.
    pub(super) origin: &'static str,
    /// What an error about the medium contains.
    pub(super) place: &'static str,
    /// Puts a payload on the medium.
    pub(super) lay: fn(&mut Scene, &[u8]),
    /// Puts a payload on the medium so that the medium is broken, and the payload is not.
    pub(super) spoil: fn(&mut Scene, &[u8]),
    /// The medium as others use it, without a payload.
    pub(super) bare: fn(&mut Scene),
}

/// The root of a machine, and its kernel command line.
pub(super) struct Scene {
    root: tempfile::TempDir,
    /// The folder in which images are made. The machine does not see it.
    work: tempfile::TempDir,
    pub(super) words: Vec<String>,
}

/// `$CREDENTIALS_DIRECTORY`, below the root.
pub(super) const UNIT: &str = "run/credentials/imprint.service";

impl Scene {
    pub(super) fn new() -> Scene {
        let (root, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in ["sys/block", "dev", "imprint"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        Scene { root, work, words: Vec::new() }
    }

    pub(super) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Writes a file below the root that only its owner can use.
    pub(super) fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn folder(&self, path: &str) {
        fs::create_dir_all(self.root().join(path)).unwrap();
    }

    /// A drive on a PCI bus, by its kernel name.
    fn drive(&self, name: &str, content: impl AsRef<[u8]>) {
        let target = format!("../devices/pci0000:00/0000:00:01.1/ata2/host1/target1:0:0/1:0:0:0/block/{name}");
        std::os::unix::fs::symlink(target, self.root().join("sys/block").join(name)).unwrap();
        fs::write(self.root().join("dev").join(name), content).unwrap();
    }

    /// The firmware's table with these strings of type 11, and a structure of another type.
    fn smbios(&self, strings: &[&str]) {
        let mut table = [b"\x01\x1b\0\0".as_slice(), &[0; 23], b"QEMU\0\0\x0b\x05\x01\0\x01"].concat();
        for string in strings {
            table.extend([string.as_bytes(), &[0]].concat());
        }
        table.extend(b"\0\x7f\x04\0\0\0\0");
        self.put("sys/firmware/dmi/tables/DMI", table);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// An ISO image of genisoimage with this file.
    fn iso(&self, label: &str, path: &str, content: impl AsRef<[u8]>) -> Vec<u8> {
        let (folder, image) = (self.file("drive"), self.file("iso"));
        let file = folder.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
        let (image, folder) = (image.to_str().unwrap(), folder.to_str().unwrap());
        tool("genisoimage", &["-quiet", "-J", "-r", "-V", label, "-o", image, folder]);
        fs::read(image).unwrap()
    }

    /// A disk that is partitioned by sfdisk as the script says, with these bytes at sector 4096.
    fn disk(&self, script: &str, content: &[u8]) -> Vec<u8> {
        let path = self.file("disk");
        let mut file = fs::File::create(&path).unwrap();
        file.set_len(8 * 1024 * 1024).unwrap();
        tool("sh", &["-c", &format!("printf '{script}' | sfdisk --quiet '{}'", path.display())]);
        file.seek(SeekFrom::Start(4096 * 512)).unwrap();
        file.write_all(content).unwrap();
        fs::read(path).unwrap()
    }

    /// A GPT whose second partition is ours.
    fn gpt(&self, content: &[u8]) -> Vec<u8> {
        let ours = format!("start=4096, size=8192, type={PARTITION_TYPE}, name=\"IMPRINT\"");
        self.disk(&format!("label: gpt\\n start=2048, size=1024\\n {ours}\\n"), content)
    }

    fn mbr(&self, content: &[u8]) -> Vec<u8> {
        self.disk("label: dos\\n start=4096, size=8192, type=c\\n", content)
    }

    /// An extended partition with one logical one.
    fn logical(&self, content: &[u8]) -> Vec<u8> {
        let script = "label: dos\\n d2 : start=2048, size=12000, type=f\\n d5 : start=4096, size=8192, type=c\\n";
        self.disk(script, content)
    }

    /// A disk of a bare-metal cloud: the config drive is the last partition.
    fn ironic(&self, content: &[u8]) -> Vec<u8> {
        self.disk("label: gpt\\n start=2048, size=1024\\n start=4096, size=8192\\n", content)
    }
}

fn text(payload: &[u8]) -> String {
    Base64::encode_string(payload)
}

fn armour(payload: &[u8]) -> String {
    pem::encode(ARMOUR, payload).to_string()
}

/// A character that no alphabet of base64 has.
fn damaged(text: &str) -> String {
    text.replacen(|c: char| c.is_ascii_lowercase(), "!", 1)
}

fn vendor(text: &str) -> String {
    serde_json::json!({ "cloud-init": CLOUD_CONFIG, "imprint": text }).to_string()
}

/// A FAT image whose allocation tables were cleared.
fn cleared(mut image: Vec<u8>) -> Vec<u8> {
    image[512..13 * 512].fill(0);
    image
}

fn fat(payload: &[u8]) -> Vec<u8> {
    vfat::image(payload).unwrap().to_vec()
}

/// The content of an EFI variable's file, with the attributes of a variable that outlives a boot.
fn variable(payload: &[u8]) -> Vec<u8> {
    [&[7, 0, 0, 0], payload].concat()
}

const CLOUD_CONFIG: &str = "#cloud-config\nusers: []\n";
const SYSTEM: &str = "run/credentials/@system";
const EXTRA: &str = ".extra/credentials";
const FW_CFG: &str = "sys/firmware/qemu_fw_cfg/by_name/opt";
const EFIVARS: &str = "sys/firmware/efi/efivars";
const USER_DATA: &str = "openstack/latest/user_data";
const VENDOR_DATA: &str = "openstack/latest/vendor_data.json";
const STRING: &str = "io.systemd.credential.binary:imprint.payload=";
const WORD: &str = "systemd.set_credential_binary=imprint.payload:";

pub(super) const CMDLINE: Row = Row {
    name: "kernel command line",
    medium: Medium::Cmdline,
    word: "cmdline",
    looked: Looked::Always,
    origin: "cmdline",
    place: "imprint.payload= on the kernel command line",
    lay: |scene, payload| scene.words.push(format!("imprint.payload={}", Base64UrlUnpadded::encode_string(payload))),
    spoil: |scene, payload| {
        scene.words.push(format!("imprint.payload={}", damaged(&Base64UrlUnpadded::encode_string(payload))));
    },
    bare: |scene| scene.words.push("payload=x console=ttyS0".to_owned()),
};

pub(super) const INITRAMFS: Row = Row {
    name: "file in the initramfs",
    medium: Medium::Initramfs,
    word: "file",
    looked: Looked::Always,
    origin: "initramfs /imprint/payload",
    place: "/imprint/payload",
    lay: |scene, payload| scene.put("imprint/payload", payload),
    spoil: |scene, _| scene.folder("imprint/payload"),
    bare: |scene| scene.put("imprint/other", "x"),
};

pub(super) const UNIT_CREDENTIAL: Row = Row {
    name: "credential of the unit",
    medium: Medium::UnitCredential,
    word: "credential",
    looked: Looked::Always,
    origin: "credential /run/credentials/imprint.service/imprint.payload",
    place: "/run/credentials/imprint.service/imprint.payload",
    lay: |scene, payload| scene.put(&format!("{UNIT}/imprint.payload"), payload),
    spoil: |scene, payload| scene.put(&format!("{UNIT}/imprint.payload"), format!("{}\0", text(payload))),
    bare: |scene| scene.put(&format!("{UNIT}/other"), "x"),
};

pub(super) const SYSTEM_CREDENTIAL: Row = Row {
    name: "credential of the system",
    medium: Medium::SystemCredential,
    word: "credential",
    looked: Looked::Always,
    origin: "credential /run/credentials/@system/imprint.payload",
    place: "/run/credentials/@system/imprint.payload",
    lay: |scene, payload| scene.put(&format!("{SYSTEM}/imprint.payload"), payload),
    spoil: |scene, _| scene.put(&format!("{SYSTEM}/imprint.payload"), ""),
    bare: |scene| scene.put(&format!("{SYSTEM}/imprint.payloads"), "x"),
};

pub(super) const BOOT_CREDENTIAL: Row = Row {
    name: "credential of systemd-stub",
    medium: Medium::BootCredential,
    word: "credential",
    looked: Looked::Always,
    origin: "credential /.extra/credentials/imprint.payload.cred",
    place: "/.extra/credentials/imprint.payload.cred",
    lay: |scene, payload| scene.put(&format!("{EXTRA}/imprint.payload.cred"), text(payload)),
    // What systemd-creds writes looks like this, and only systemd can decrypt it.
    spoil: |scene, _| scene.put(&format!("{EXTRA}/imprint.payload.cred"), text(&[0x5a; 200])),
    bare: |scene| scene.put(&format!("{EXTRA}/other.cred"), "x"),
};

pub(super) const SMBIOS: Row = Row {
    name: "SMBIOS",
    medium: Medium::Smbios,
    word: "credential",
    looked: Looked::Always,
    origin: "smbios string 2 of type 11",
    place: "smbios",
    lay: |scene, payload| scene.smbios(&["vendor", &format!("{STRING}{}", text(payload)), "io.systemd.credential:x=y"]),
    spoil: |scene, payload| scene.smbios(&["vendor", &format!("{STRING}{}", damaged(&text(payload)))]),
    bare: |scene| scene.smbios(&["vendor", "io.systemd.credential:imprint.payloads=x"]),
};

pub(super) const FW_CFG_FILE: Row = Row {
    name: "QEMU's fw_cfg",
    medium: Medium::FwCfg,
    word: "credential",
    looked: Looked::Always,
    origin: "fw_cfg",
    place: "fw_cfg",
    lay: |scene, payload| scene.put(&format!("{FW_CFG}/io.systemd.credentials/imprint.payload/raw"), payload),
    spoil: |scene, _| {
        scene.put(&format!("{FW_CFG}/io.systemd.credentials/imprint.payload/raw"), "A".repeat(2 * MAX_LEN));
    },
    bare: |scene| scene.put(&format!("{FW_CFG}/org.example/imprint.payload/raw"), "x"),
};

pub(super) const CMDLINE_CREDENTIAL: Row = Row {
    name: "credential on the kernel command line",
    medium: Medium::CmdlineCredential,
    word: "credential",
    looked: Looked::Always,
    origin: "cmdline-credential word 1",
    place: "cmdline-credential",
    lay: |scene, payload| scene.words.push(format!("{WORD}{}", text(payload))),
    spoil: |scene, payload| scene.words.push(format!("{WORD}{}", damaged(&text(payload)))),
    bare: |scene| scene.words.push("systemd.set_credential=other:x".to_owned()),
};

pub(super) const DRIVE_ISO: Row = Row {
    name: "config drive, ISO 9660",
    medium: Medium::ConfigDrive,
    word: "config-drive",
    looked: Looked::Always,
    origin: "config-drive sr0 (IMPRINT)",
    place: "volume \"IMPRINT\" on sr0",
    lay: |scene, payload| scene.drive("sr0", &*iso::image(payload, Timestamp::from_secs(0)).unwrap()),
    spoil: |scene, payload| {
        let image = iso::image(payload, Timestamp::from_secs(0)).unwrap();
        scene.drive("sr0", &image[..image.len() - 2048]);
    },
    bare: |scene| scene.drive("sr0", scene.iso("DEBIAN 12", "imprint/payload", "x")),
};

pub(super) const DRIVE_FAT: Row = Row {
    name: "config drive, FAT",
    medium: Medium::ConfigDrive,
    word: "config-drive",
    looked: Looked::Always,
    origin: "config-drive vda (IMPRINT)",
    place: "volume \"IMPRINT\" on vda",
    lay: |scene, payload| scene.drive("vda", fat(payload)),
    spoil: |scene, payload| scene.drive("vda", cleared(fat(payload))),
    bare: |scene| scene.drive("vda", vec![0; 1024 * 1024]),
};

pub(super) const OPENSTACK_USER_DATA: Row = Row {
    name: "user data of OpenStack",
    medium: Medium::OpenStackUserData,
    word: "config-drive",
    looked: Looked::Always,
    origin: "user-data sr0 (config-2)",
    place: "volume \"config-2\" on sr0",
    lay: |scene, payload| scene.drive("sr0", scene.iso("config-2", USER_DATA, armour(payload))),
    spoil: |scene, payload| scene.drive("sr0", scene.iso("config-2", USER_DATA, damaged(&armour(payload)))),
    bare: |scene| scene.drive("sr0", scene.iso("config-2", USER_DATA, CLOUD_CONFIG)),
};

pub(super) const OPENSTACK_VENDOR_DATA: Row = Row {
    name: "vendor data of OpenStack",
    medium: Medium::OpenStackVendorData,
    word: "config-drive",
    looked: Looked::Always,
    origin: "vendor-data sr0 (config-2)",
    place: "volume \"config-2\" on sr0",
    lay: |scene, payload| scene.drive("sr0", scene.iso("config-2", VENDOR_DATA, vendor(&armour(payload)))),
    spoil: |scene, payload| {
        scene.drive("sr0", scene.iso("config-2", VENDOR_DATA, vendor(&damaged(&armour(payload)))));
    },
    bare: |scene| scene.drive("sr0", scene.iso("config-2", VENDOR_DATA, "{\"cloud-init\": \"#cloud-config\"}")),
};

pub(super) const NOCLOUD_USER_DATA: Row = Row {
    name: "user data of NoCloud",
    medium: Medium::NoCloudUserData,
    word: "config-drive",
    looked: Looked::Always,
    origin: "user-data vdb (cidata)",
    place: "volume \"cidata\" on vdb",
    lay: |scene, payload| scene.drive("vdb", scene.iso("cidata", "user-data", armour(payload))),
    spoil: |scene, payload| scene.drive("vdb", scene.iso("cidata", "user-data", damaged(&armour(payload)))),
    bare: |scene| scene.drive("vdb", scene.iso("cidata", "user-data", CLOUD_CONFIG)),
};

pub(super) const PARTITION: Row = Row {
    name: "partition, the payload itself",
    medium: Medium::Partition,
    word: "partition",
    looked: Looked::Pinned,
    origin: "partition sda2 (IMPRINT)",
    place: "partition sda2",
    lay: |scene, payload| scene.drive("sda", scene.gpt(payload)),
    spoil: |scene, payload| scene.drive("sda", scene.gpt(armour(payload).as_bytes())),
    bare: |scene| scene.drive("sda", scene.ironic(b"")),
};

pub(super) const PARTITION_FAT: Row = Row {
    name: "partition (GPT), FAT volume",
    medium: Medium::PartitionVolume,
    word: "partition",
    looked: Looked::Pinned,
    origin: "partition nvme0n1p2 (IMPRINT)",
    place: "nvme0n1p2",
    lay: |scene, payload| scene.drive("nvme0n1", scene.gpt(&fat(payload))),
    spoil: |scene, payload| scene.drive("nvme0n1", scene.gpt(&cleared(fat(payload)))),
    bare: |scene| scene.drive("nvme0n1", scene.ironic(b"")),
};

pub(super) const PARTITION_MBR: Row = Row {
    name: "partition (MBR), FAT volume",
    medium: Medium::PartitionVolume,
    word: "partition",
    looked: Looked::Pinned,
    origin: "partition sda1 (IMPRINT)",
    place: "sda1",
    lay: |scene, payload| scene.drive("sda", scene.mbr(&fat(payload))),
    spoil: |scene, payload| scene.drive("sda", scene.mbr(&cleared(fat(payload)))),
    bare: |scene| scene.drive("sda", scene.mbr(b"")),
};

pub(super) const PARTITION_LOGICAL: Row = Row {
    name: "logical partition (MBR), FAT volume",
    medium: Medium::PartitionVolume,
    word: "partition",
    looked: Looked::Pinned,
    origin: "partition sda5 (IMPRINT)",
    place: "sda5",
    lay: |scene, payload| scene.drive("sda", scene.logical(&fat(payload))),
    spoil: |scene, payload| scene.drive("sda", scene.logical(&cleared(fat(payload)))),
    bare: |scene| scene.drive("sda", scene.logical(b"")),
};

pub(super) const PARTITION_ISO: Row = Row {
    name: "partition labelled config-2",
    medium: Medium::PartitionVolume,
    word: "partition",
    looked: Looked::Pinned,
    origin: "partition vda2 (config-2)",
    place: "volume \"config-2\" on vda2",
    lay: |scene, payload| scene.drive("vda", scene.ironic(&scene.iso("config-2", "imprint/payload", payload))),
    spoil: |scene, _| {
        let long = vec![0xa1; MAX_LEN + 1];
        scene.drive("vda", scene.ironic(&scene.iso("config-2", "imprint/payload", long)));
    },
    bare: |scene| scene.drive("vda", scene.ironic(&scene.iso("config-2", USER_DATA, CLOUD_CONFIG))),
};

/// The medium decides who may carry what, wherever the volume is. When the agent looks at it depends on whether the
/// volume takes up the whole disk.
pub(super) const PARTITION_USER_DATA: Row = Row {
    name: "user data of OpenStack in a partition",
    medium: Medium::OpenStackUserData,
    word: "partition",
    looked: Looked::Pinned,
    origin: "user-data vda2 (config-2)",
    place: "volume \"config-2\" on vda2",
    lay: |scene, payload| scene.drive("vda", scene.ironic(&scene.iso("config-2", USER_DATA, armour(payload)))),
    spoil: |scene, payload| {
        scene.drive("vda", scene.ironic(&scene.iso("config-2", USER_DATA, damaged(&armour(payload)))));
    },
    bare: |scene| scene.drive("vda", scene.ironic(&scene.iso("config-2", USER_DATA, CLOUD_CONFIG))),
};

pub(super) const PARTITION_VENDOR_DATA: Row = Row {
    name: "vendor data of OpenStack in a partition",
    medium: Medium::OpenStackVendorData,
    word: "partition",
    looked: Looked::Pinned,
    origin: "vendor-data vda2 (config-2)",
    place: "volume \"config-2\" on vda2",
    lay: |scene, payload| {
        scene.drive("vda", scene.ironic(&scene.iso("config-2", VENDOR_DATA, vendor(&armour(payload)))));
    },
    spoil: |scene, payload| {
        scene.drive("vda", scene.ironic(&scene.iso("config-2", VENDOR_DATA, vendor(&damaged(&armour(payload))))));
    },
    bare: |scene| scene.drive("vda", scene.ironic(&scene.iso("config-2", VENDOR_DATA, "{}"))),
};

pub(super) const PARTITION_NOCLOUD: Row = Row {
    name: "user data of NoCloud in a partition",
    medium: Medium::NoCloudUserData,
    word: "partition",
    looked: Looked::Pinned,
    origin: "user-data sda1 (cidata)",
    place: "volume \"cidata\" on sda1",
    lay: |scene, payload| scene.drive("sda", scene.mbr(&scene.iso("cidata", "user-data", armour(payload)))),
    spoil: |scene, payload| scene.drive("sda", scene.mbr(&scene.iso("cidata", "user-data", damaged(&armour(payload))))),
    bare: |scene| scene.drive("sda", scene.mbr(&scene.iso("cidata", "user-data", CLOUD_CONFIG))),
};

pub(super) const EFI_VARIABLE: Row = Row {
    name: "EFI variable",
    medium: Medium::EfiVariable,
    word: "efivar",
    looked: Looked::Named,
    origin: "efivar ImprintPayload",
    place: "ImprintPayload",
    lay: |scene, payload| scene.put(&format!("{EFIVARS}/{}", efivar::NAME), variable(payload)),
    spoil: |scene, _| scene.put(&format!("{EFIVARS}/{}", efivar::NAME), [7, 0, 0]),
    bare: |scene| scene.put(&format!("{EFIVARS}/BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c"), variable(&[0; 6])),
};

pub(super) const ROOT_FILE: Row = Row {
    name: "file of the real root",
    medium: Medium::RootFile,
    word: "root-file",
    looked: Looked::Named,
    origin: "root-file /etc/imprint/payload",
    place: "/etc/imprint/payload",
    lay: |scene, payload| scene.put("etc/imprint/payload", payload),
    spoil: |scene, _| scene.folder("etc/imprint/payload"),
    bare: |scene| scene.put("etc/imprint/other", "x"),
};
