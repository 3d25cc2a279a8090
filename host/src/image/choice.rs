//! Which modules go into an image, and which of them are loaded at its start because no device asks for them. Pure: decides by the
//! indices of the kernel, and reads no file.

use imprint::kmod::{Index, Resolved, name_of, normal};

use super::error::ImageError;
use super::folder::Folder;

/// Controllers of drives that hypervisors, BMCs and servers have.
const DRIVES: [&str; 22] = [
    "virtio_blk",
    "virtio_scsi",
    "ata_piix",
    "ata_generic",
    "ahci",
    "nvme",
    "usb_storage",
    "uas",
    "hv_storvsc",
    "vmw_pvscsi",
    "xen_blkfront",
    "mptspi",
    "mptsas",
    "mpt3sas",
    "megaraid_sas",
    "hpsa",
    "smartpqi",
    "aacraid",
    "sdhci_pci",
    "sdhci_acpi",
    "virtio_pmem",
    "nd_pmem",
];

/// Links that hypervisors have. Those of real machines are the folders of Ethernet.
const LINKS: [&str; 4] = ["virtio_net", "hv_netvsc", "vmxnet3", "xen_netfront"];
const LINK_FOLDERS: [&str; 2] = ["drivers/net/ethernet", "drivers/net/phy"];

/// What stands above those; buses, lines, doors, credentials, entropy, swap space; VLANs, bonds and bridges; keyboards for the person at the console.
const OTHERS: [&str; 37] = [
    "sd_mod",
    "sr_mod",
    "cdrom",
    "mmc_block",
    "virtio_pci",
    "virtio_mmio",
    "pci_hyperv",
    "xhci_pci",
    "ehci_pci",
    "ohci_pci",
    "uhci_hcd",
    "virtio_console",
    "virtio_rng",
    "qemu_fw_cfg",
    "vsock",
    "vmw_vsock_virtio_transport",
    "vmw_vsock_vmci_transport",
    "hv_sock",
    "usbhid",
    "hid_generic",
    "efivarfs",
    "overlay",
    "loop",
    "zram",
    "dm_mod",
    "dm_crypt",
    "xts",
    "ecb",
    "aes_generic",
    "aesni_intel",
    "aes_ce_blk",
    "aes_neon_blk",
    "zstd",
    "lzo_rle",
    "8021q",
    "bonding",
    "bridge",
];

/// File systems of a root, with the tables of characters that FAT asks for.
const FILE_SYSTEMS: [&str; 11] = [
    "ext4",
    "xfs",
    "btrfs",
    "vfat",
    "isofs",
    "squashfs",
    "erofs",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_utf8",
];

/// Parts that no device announces, and that most kernels have built in: DHCP and questions to neighbours need them at once.
const STARTED: [&str; 2] = ["af_packet", "ipv6"];

/// What goes in.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Choice<'a> {
    /// Paths below the folder, in the order in which they are loaded.
    pub(super) paths: Vec<&'a str>,
    /// The names of `/imprint/modules`.
    pub(super) started: Vec<String>,
    /// Whether the image can use drives, and links.
    pub(super) drives: bool,
    pub(super) links: bool,
}

/// `asked`: the arguments of `--modules`. `only`: leave out the list of this module.
pub(super) fn choose<'a>(
    folder: &'a Folder,
    index: &Index<'a>,
    asked: &[String],
    only: bool,
) -> Result<Choice<'a>, ImageError> {
    let mut names: Vec<String> = Vec::new();
    let mut started: Vec<String> = Vec::new();
    if !only {
        // What a kernel does not have is passed over: no kernel has all of them.
        let known = [&DRIVES[..], &LINKS, &OTHERS, &FILE_SYSTEMS, &STARTED].concat();
        names.extend(known.into_iter().filter(|name| has(index, name)).map(str::to_owned));
        names.extend(LINK_FOLDERS.iter().flat_map(|below| in_folder(index, below)));
        started.extend(STARTED.iter().filter(|name| has(index, name)).map(|name| (*name).to_owned()));
    }
    let words = asked.iter().flat_map(|list| list.split([',', ' ', '\n', '\t'])).filter(|word| !word.is_empty());
    for word in words {
        let unknown = || ImageError::NoModule { name: word.to_owned(), folder: folder.path.clone() };
        if let Some(below) = word.strip_prefix('=') {
            match in_folder(index, below.trim_matches('/')) {
                found if found.is_empty() => return Err(unknown()),
                found => names.extend(found),
            }
            continue;
        }
        if word.contains('/') || word.chars().any(char::is_control) {
            return Err(ImageError::NoName(word.to_owned()));
        }
        match index.resolve(word) {
            Resolved::Unknown => return Err(unknown()),
            Resolved::Builtin => {}
            Resolved::Modules(found) => {
                // Whoever names a module wants it: one that no device announces is loaded by name, or not at all.
                started.extend(found.iter().filter(|name| !is_announced(folder, name)).map(|name| (*name).to_owned()));
                names.push(word.to_owned());
            }
        }
    }
    let unknown = |name: &str| ImageError::NoModule { name: name.to_owned(), folder: folder.path.clone() };
    let paths = index.closure(names.iter().map(String::as_str)).map_err(unknown)?;
    started.dedup();
    let builtin: Vec<&str> = folder.builtin.lines().map(str::trim).collect();
    let there = |is: fn(&str) -> bool| paths.iter().chain(&builtin).any(|path| is(path));
    Ok(Choice { drives: there(is_drive), links: there(is_link), paths, started })
}

/// Whether the module at this path is the driver of a controller of drives.
fn is_drive(path: &str) -> bool {
    let name = name_of(path).unwrap_or_default();
    // What stands above the controllers.
    let above = ["sd_mod", "sr_mod", "st", "sg", "ses", "ch"].contains(&name.as_ref()) || name.starts_with("scsi_");
    let controllers = ["ata", "nvme/host", "mmc/host", "message/fusion", "usb/storage", "scsi"];
    DRIVES.contains(&name.as_ref()) || (!above && is_below(path, &controllers))
}

/// Whether the module at this path is the driver of a network link of a machine.
fn is_link(path: &str) -> bool {
    let name = name_of(path).unwrap_or_default();
    LINKS.contains(&name.as_ref()) || is_below(path, &["net/ethernet", "net/wireless", "net/usb"])
}

fn is_below(path: &str, folders: &[&str]) -> bool {
    let below = path.strip_prefix("kernel/drivers/").unwrap_or_default();
    folders.iter().any(|folder| below.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
}

/// Whether a device asks for this module: one of its aliases is a MODALIAS, which begins with the name of a bus and a colon. Others
/// are names for what the kernel asks modprobe for: `fs-ext4`, `crypto-crc32c`, `devname:loop-control`.
fn is_announced(folder: &Folder, name: &str) -> bool {
    folder.alias.lines().any(|line| {
        let alias = line.strip_prefix("alias ").and_then(|rest| rest.rsplit_once(' '));
        alias.is_some_and(|(pattern, module)| {
            pattern.contains(':') && !pattern.starts_with("devname:") && normal(module) == normal(name)
        })
    })
}

fn has(index: &Index<'_>, name: &str) -> bool {
    matches!(index.resolve(name), Resolved::Modules(_))
}

fn in_folder(index: &Index<'_>, below: &str) -> Vec<String> {
    let below = format!("kernel/{}/", below.strip_prefix("kernel/").unwrap_or(below));
    let found = index.modules().filter(|(_, module)| module.path.starts_with(&below));
    found.map(|(name, _)| name.to_owned()).collect()
}
