//! Media: whatever holds a payload and, unlike a line, cannot answer. Each row of [`MEDIA`] says where the medium is,
//! who vouches for it, and what it may therefore carry. The words of `imprint.source=`, the tables on the pages about
//! sources, and the rules of `source` and `plan` come from the rows. Never reads a medium and decides nothing.

/// What holds a payload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Medium {
    /// `imprint.payload=` on the kernel command line.
    Cmdline,
    /// `/imprint/payload` in the initramfs.
    Initramfs,
    /// A credential that systemd handed to our own unit, in `$CREDENTIALS_DIRECTORY`.
    UnitCredential,
    /// A credential that systemd imported for the whole system.
    SystemCredential,
    /// A credential that systemd-stub put into the initramfs.
    BootCredential,
    /// A string of an SMBIOS structure of type 11.
    Smbios,
    /// A file that QEMU offers through its fw_cfg device.
    FwCfg,
    /// `systemd.set_credential=` or `systemd.set_credential_binary=` on the kernel command line.
    CmdlineCredential,
    /// The file `imprint/payload` on a volume that takes up a whole disk or optical drive.
    ConfigDrive,
    /// `openstack/latest/user_data` on a config drive.
    OpenStackUserData,
    /// Key `imprint` of `openstack/latest/vendor_data.json` or of `vendor_data2.json` on a config drive.
    OpenStackVendorData,
    /// `user-data` on a volume labelled cidata.
    NoCloudUserData,
    /// The payload itself, at the beginning of a partition.
    Partition,
    /// A file on a volume in a partition.
    PartitionVolume,
    /// An EFI variable.
    EfiVariable,
    /// A file on the root file system.
    RootFile,
}

/// A word of `imprint.source=` that names media. Media of one word have the same rank: two different payloads on them stop the
/// boot, and of copies of one payload the medium that may carry least counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// `cmdline`
    Cmdline,
    /// `file`
    File,
    /// `credential`
    Credential,
    /// `config-drive`
    ConfigDrive,
    /// `partition`
    Partition,
    /// `efivar`
    EfiVar,
    /// `root-file`
    RootFile,
}

impl Word {
    /// The word, as `imprint.source=` has it.
    pub fn name(self) -> &'static str {
        match self {
            Word::Cmdline => "cmdline",
            Word::File => "file",
            Word::Credential => "credential",
            Word::ConfigDrive => "config-drive",
            Word::Partition => "partition",
            Word::EfiVar => "efivar",
            Word::RootFile => "root-file",
        }
    }
}

/// When the agent looks at a medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Looked {
    /// In every image.
    Always,
    /// In an image with a site pin, or if `imprint.source=` names it. Without a pin, a payload that somebody once wrote
    /// to a disk of this machine would be used before the operator's.
    Pinned,
    /// Only if `imprint.source=` names it.
    Named,
}

/// Who can read the payload on the medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readers {
    /// Root of the node, and the person who wrote the payload.
    Root,
    /// Every process of the node. Such a medium may not carry a private key or an `each-boot` token. It may carry a
    /// `once` token, because that is spent before anybody else can log in.
    Everybody,
}

/// A row of the table.
#[derive(PartialEq, Eq, Debug)]
pub struct Row {
    /// The medium of this row.
    pub medium: Medium,
    /// The word of `imprint.source=` that names it. Other media may have the same word.
    pub word: Word,
    /// First word of `origin` in status.json, and the word in the User-Agent of the check-in.
    pub kind: &'static str,
    /// Where the payload is.
    pub place: &'static str,
    /// Who vouches for what is there.
    pub voucher: &'static str,
    /// Who can read it.
    pub readers: Readers,
    /// Whether a node may credit a seed from it. The payload has to say that the medium is for one boot, and has to
    /// name its machine.
    pub credits_seed: bool,
    /// When the agent looks at it.
    pub looked: Looked,
    /// Whether the person who runs the virtual machine can write it. If so, a confidential virtual machine uses it only
    /// in an image with a site pin.
    pub of_hypervisor: bool,
    /// The option of `imprint-host payload NODE` that makes it.
    pub made_with: &'static str,
}

/// The type of a GPT partition that holds a payload: a random UUID (RFC 9562, version 4), for this use only.
pub const PARTITION_TYPE: &str = "5475f39d-8543-45d4-a1d3-ea7b16c42612";
/// The label of the armour around a payload in base64 text, between `-----BEGIN ` or `-----END ` and `-----`.
pub const ARMOUR: &str = "IMPRINT PAYLOAD";
/// The EFI variable that holds a payload, as efivarfs names its file: the name, a hyphen, and the GUID of the vendor.
/// The GUID is a random UUID (RFC 9562, version 4), for variables of imprint only.
pub const EFI_VARIABLE: &str = "ImprintPayload-5b70963a-8692-4b44-a6fa-f134e3971993";

/// Every medium, in the order in which their words are searched by default.
pub const MEDIA: [Row; 16] = [
    Row {
        medium: Medium::Cmdline,
        word: Word::Cmdline,
        kind: "cmdline",
        place: "`imprint.payload=` on the kernel command line, the payload in base64url without padding",
        voucher: "the configuration of the boot loader",
        readers: Readers::Everybody,
        credits_seed: false,
        looked: Looked::Always,
        of_hypervisor: true,
        made_with: "--as cmdline",
    },
    Row {
        medium: Medium::Initramfs,
        word: Word::File,
        kind: "initramfs",
        place: "the file `/imprint/payload` in the initramfs, the payload itself in CBOR",
        voucher: "the server or disk that the boot loader loads archives from",
        readers: Readers::Root,
        credits_seed: false,
        looked: Looked::Always,
        // Whoever measures the kernel measures the initramfs, too. An owner who measures neither cannot trust the
        // machine.
        of_hypervisor: false,
        made_with: "--as cpio",
    },
    Row {
        medium: Medium::UnitCredential,
        word: Word::Credential,
        kind: "credential",
        place: "the file `imprint.payload` in `$CREDENTIALS_DIRECTORY`",
        voucher: "whoever wrote the unit, or gave systemd the credential",
        readers: Readers::Root,
        credits_seed: false,
        looked: Looked::Always,
        of_hypervisor: true,
        made_with: "--as credential",
    },
    Row {
        medium: Medium::SystemCredential,
        word: Word::Credential,
        kind: "credential",
        place: "the file `/run/credentials/@system/imprint.payload`, which systemd imported",
        voucher: "the hypervisor, the firmware, or the boot loader: systemd does not say which",
        readers: Readers::Root,
        credits_seed: false,
        looked: Looked::Always,
        of_hypervisor: true,
        made_with: "--as credential",
    },
    Row {
        medium: Medium::BootCredential,
        word: Word::Credential,
        kind: "credential",
        place: "the file `imprint.payload.cred` in `/.extra/credentials` or `/.extra/global_credentials`, which systemd-stub \
                took from the EFI system partition",
        voucher: "whoever can write to the EFI system partition",
        readers: Readers::Root,
        credits_seed: false,
        looked: Looked::Always,
        of_hypervisor: true,
        made_with: "--as credential",
    },
    Row {
        medium: Medium::Smbios,
        word: Word::Credential,
        kind: "smbios",
        place: "the SMBIOS string (type 11) `io.systemd.credential:imprint.payload=TEXT` or \
                `io.systemd.credential.binary:imprint.payload=BASE64`",
        voucher: "the hypervisor, or the firmware",
        readers: Readers::Root,
        credits_seed: false,
        looked: Looked::Always,
        of_hypervisor: true,
        made_with: "--as smbios",
    },
    Row {
        medium: Medium::FwCfg,
        word: Word::Credential,
        kind: "fw_cfg",
        place: "the file `opt/io.systemd.credentials/imprint.payload` of QEMU's fw_cfg device",
        voucher: "the hypervisor",
        readers: Readers::Root,
        credits_seed: false,
        looked: Looked::Always,
        of_hypervisor: true,
        made_with: "--as qemu",
    },
    Row {
        medium: Medium::CmdlineCredential,
        word: Word::Credential,
        kind: "cmdline-credential",
        place: "`systemd.set_credential_binary=imprint.payload:BASE64` or `systemd.set_credential=imprint.payload:TEXT` on the \
                kernel command line",
        voucher: "the configuration of the boot loader",
        readers: Readers::Everybody,
        credits_seed: false,
        looked: Looked::Always,
        of_hypervisor: true,
        made_with: "--as credential",
    },
    Row {
        medium: Medium::ConfigDrive,
        word: Word::ConfigDrive,
        kind: "config-drive",
        place: "the file `imprint/payload` on an ISO 9660 or FAT volume labelled IMPRINT, config-2 or cidata that has a whole \
                disk or optical drive",
        voucher: "whoever attached the drive; a USB medium needs a site pin or has to be named",
        readers: Readers::Root,
        credits_seed: true,
        looked: Looked::Always,
        of_hypervisor: true,
        made_with: "--as iso, or --as vfat",
    },
    Row {
        medium: Medium::OpenStackUserData,
        word: Word::ConfigDrive,
        kind: "user-data",
        place: "the file `openstack/latest/user_data` on a volume labelled config-2",
        voucher: "the cloud, and whoever may start instances in it",
        // The metadata service of the cloud serves it to every process.
        readers: Readers::Everybody,
        credits_seed: false,
        looked: Looked::Always,
        of_hypervisor: true,
        made_with: "--as user-data, or --as multipart",
    },
    Row {
        medium: Medium::OpenStackVendorData,
        word: Word::ConfigDrive,
        kind: "vendor-data",
        place: "key `imprint` of the file `openstack/latest/vendor_data.json` or `vendor_data2.json` on a volume labelled config-2",
        voucher: "the cloud",
        readers: Readers::Everybody,
        credits_seed: false,
        looked: Looked::Always,
        of_hypervisor: true,
        made_with: "--as user-data",
    },
    Row {
        medium: Medium::NoCloudUserData,
        word: Word::ConfigDrive,
        kind: "user-data",
        place: "the file `user-data` on a volume labelled cidata",
        voucher: "whoever attached the drive",
        readers: Readers::Root,
        credits_seed: false,
        looked: Looked::Always,
        of_hypervisor: true,
        made_with: "--as user-data, or --as multipart",
    },
    Row {
        medium: Medium::Partition,
        word: Word::Partition,
        kind: "partition",
        place: "the payload itself at the beginning of a GPT partition with the type or the name of imprint",
        voucher: "everybody who ever wrote to the disk",
        readers: Readers::Root,
        credits_seed: false,
        looked: Looked::Pinned,
        of_hypervisor: true,
        made_with: "--as gpt",
    },
    Row {
        medium: Medium::PartitionVolume,
        word: Word::Partition,
        kind: "partition",
        place: "a volume in a partition: what a config drive may hold, in a partition labelled IMPRINT, config-2 or cidata",
        voucher: "everybody who ever wrote to the disk",
        readers: Readers::Root,
        credits_seed: false,
        looked: Looked::Pinned,
        of_hypervisor: true,
        made_with: "--as vfat, or --as iso, written to the partition",
    },
    Row {
        medium: Medium::EfiVariable,
        word: Word::EfiVar,
        kind: "efivar",
        place: "the EFI variable ImprintPayload",
        voucher: "root of every system that ran on this machine",
        // The kernel gives the files of efivarfs mode 0644 (fs/efivarfs/super.c).
        readers: Readers::Everybody,
        credits_seed: false,
        looked: Looked::Named,
        of_hypervisor: true,
        made_with: "--as efivar",
    },
    Row {
        medium: Medium::RootFile,
        word: Word::RootFile,
        kind: "root-file",
        place: "the file `/etc/imprint/payload` of the real root",
        voucher: "whoever wrote the root file system",
        readers: Readers::Root,
        credits_seed: false,
        looked: Looked::Named,
        of_hypervisor: false,
        made_with: "--as cbor",
    },
];

impl Medium {
    /// Whether the agent can remove the payload from this medium. It removes a payload for one boot after the
    /// hand-over.
    pub fn is_cleared(self) -> bool {
        matches!(self, Medium::EfiVariable | Medium::RootFile)
    }

    /// The row of this medium.
    pub fn row(self) -> &'static Row {
        // A test checks that every medium has a row. The first row is the fallback, because it may carry the least.
        let [first, ..] = &MEDIA;
        MEDIA.iter().find(|row| row.medium == self).unwrap_or(first)
    }
}
