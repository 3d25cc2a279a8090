//! Tests of partitions, and of the data that clouds put on drives. Other programs make each drive.

use std::io::{Seek, SeekFrom, Write};
use std::process::Command;

use imprint::medium::PARTITION_TYPE;
use imprint::pem;

use crate::*;

fn run(program: &str, arguments: &[&str]) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.unwrap_or_else(|error| panic!("this test needs {program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Site {
    fn file(&self, name: &str) -> String {
        self.work.path().join(name).to_str().unwrap().to_owned()
    }

    /// A disk of 16 MiB that is partitioned by sfdisk as the script says, with these bytes at 2 MiB.
    fn partitioned(&self, script: &str, content: &[u8]) -> PathBuf {
        let disk = self.file("disk");
        let mut file = std::fs::File::create(&disk).unwrap();
        file.set_len(16 * 1024 * 1024).unwrap();
        run("sh", &["-c", &format!("printf '{script}' | sfdisk --quiet '{disk}'")]);
        file.seek(SeekFrom::Start(2 * 1024 * 1024)).unwrap();
        file.write_all(content).unwrap();
        disk.into()
    }

    /// An ISO image with this label and this file, as Ironic, Nova and cloud-localds make it.
    fn drive(&self, label: &str, path: &str, content: &[u8]) -> PathBuf {
        let (folder, image) = (self.work.path().join("drive"), self.file("drive.iso"));
        let file = folder.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
        run("genisoimage", &["-quiet", "-J", "-r", "-V", label, "-o", &image, folder.to_str().unwrap()]);
        image.into()
    }

    fn armour(&self) -> String {
        pem::encode(imprint::medium::ARMOUR, &self.payload).to_string()
    }

    /// The machine's image holds a site pin with the site's own CA.
    fn pinned(&self, machine: Machine) -> Machine {
        let ca = imprint::payload::Payload::unwrapped(&self.payload).unwrap().ca;
        machine.initramfs_file("imprint/site", format!("{}\n", imprint::hex::encode(&ca.sha256())).as_bytes())
    }
}

fn raw() -> String {
    format!("label: gpt\\n start=2048, size=1024\\n start=4096, size=256, type={PARTITION_TYPE}, name=\"IMPRINT\"\\n")
}

#[test]
fn the_payload_itself_in_a_partition_with_a_site_pin() {
    let site = Site::typical();
    let disk = site.partitioned(&raw(), &site.payload);
    came_up_from(&site.pinned(machine(Kernel::Stable)).disk(&disk).boot(), Medium::Partition, "vdb2 (IMPRINT)");
}

#[test]
fn a_fat_volume_in_a_partition_of_an_mbr_that_is_named() {
    let site = Site::typical();
    let volume = imprint_host::vfat::image(&site.payload).unwrap();
    let disk = site.partitioned("label: dos\\n start=4096, size=8192, type=c\\n", &volume);
    let report = machine(Kernel::Backports).disk(&disk).append("imprint.source=partition").boot();
    came_up_from(&report, Medium::PartitionVolume, "vdb1 (IMPRINT)");
}

/// Ironic writes the config drive to the last partition of the disk that it deploys to.
#[test]
fn a_config_2_partition() {
    let site = Site::typical();
    let volume = std::fs::read(site.drive("config-2", "openstack/latest/user_data", site.armour().as_bytes())).unwrap();
    let disk = site.partitioned("label: gpt\\n start=2048, size=1024\\n start=4096, size=8192\\n", &volume);
    came_up_from(
        &site.pinned(machine(Kernel::Stable)).disk(&disk).boot(),
        Medium::OpenStackUserData,
        "vdb2 (config-2)",
    );
}

#[test]
fn user_data_of_nocloud() {
    let site = Site::typical();
    let text = format!("# for node1\n{}", site.armour());
    let drive = site.drive("cidata", "user-data", text.as_bytes());
    came_up_from(&machine(Kernel::Backports).disk(&drive).boot(), Medium::NoCloudUserData, "vdb (cidata)");
}

#[test]
fn user_data_of_openstack_in_a_multipart_message() {
    let site = Site::typical();
    let message = format!(
        "Content-Type: multipart/mixed; boundary=\"b\"\nMIME-Version: 1.0\n\n--b\nContent-Type: text/cloud-config\n\n\
         #cloud-config\nusers: []\n--b\nContent-Type: application/x-imprint-payload\n\n{}--b--\n",
        site.armour()
    );
    let drive = site.drive("config-2", "openstack/latest/user_data", message.as_bytes());
    came_up_from(&machine(Kernel::Stable).optical(&drive).boot(), Medium::OpenStackUserData, "sr0 (config-2)");
}

#[test]
fn vendor_data_of_openstack() {
    let site = Site::typical();
    let json = serde_json::json!({ "cloud-init": "#cloud-config\n", "imprint": site.armour() }).to_string();
    let drive = site.drive("config-2", "openstack/latest/vendor_data.json", json.as_bytes());
    came_up_from(&machine(Kernel::Stable).optical(&drive).boot(), Medium::OpenStackVendorData, "sr0 (config-2)");
}
