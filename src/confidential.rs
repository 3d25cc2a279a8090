//! Tells whether this machine is a confidential virtual machine: one whose memory even the hypervisor cannot read. The
//! owner of such a machine does not trust the hypervisor, nor anything that the hypervisor supplies. Never decides
//! about payloads: `source::admitted` does. Only [`detect`] reads files and registers.
//!
//! The processor vouches for its registers. The hypervisor can forge those registers that the attestation does not
//! cover, and so hide that the machine is confidential. It gains nothing where the owner attests the machine before
//! trusting it.
//!
//! The signs are those that systemd looks at (src/basic/confidential-virt.c), and two more: the device that Linux makes
//! in an SEV-SNP guest, and what Linux says in its log of encrypted memory. They are needed because the status register
//! of SEV can be read only with the kernel module msr and CAP_SYS_RAWIO. Few images load the module, and imprint.service
//! does not have the capability, which would allow it to write any register.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::kernel_log;
use crate::sys;

/// The kind of a confidential virtual machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Confidential {
    /// AMD SEV: encrypted memory.
    Sev,
    /// AMD SEV-ES: registers as well.
    SevEs,
    /// AMD SEV-SNP: memory that cannot be replaced.
    SevSnp,
    /// Intel TDX.
    Tdx,
    /// Arm CCA.
    Cca,
}

/// What the processor and the kernel say. Each leaf of CPUID has the registers EAX, EBX, ECX and EDX, in this order. A
/// leaf that does not exist has zeros.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Signs {
    /// Leaf 0: the greatest leaf, and the vendor.
    pub vendor: [u32; 4],
    /// Leaf 1: features.
    pub features: [u32; 4],
    /// Leaf 0x21: the signature of TDX.
    pub tdx: [u32; 4],
    /// Leaf 0x40000000: the greatest leaf of the hypervisor, and its signature.
    pub hypervisor: [u32; 4],
    /// Leaf 0x40000003: what a guest of Hyper-V may do.
    pub hyperv_features: [u32; 4],
    /// Leaf 0x4000000C: how Hyper-V isolates the guest.
    pub hyperv_isolation: [u32; 4],
    /// Leaf 0x80000000: the greatest extended leaf.
    pub extended: [u32; 4],
    /// Leaf 0x8000001F: AMD's encrypted memory.
    pub encryption: [u32; 4],
    /// AMD's register SEV_STATUS. `None`: the register cannot be read.
    pub sev_status: Option<u64>,
    /// What Linux says in its log that its memory is encrypted with: `AMD SEV SEV-ES`. Empty: nothing.
    pub encrypted: String,
    /// Linux has the device of an SEV-SNP guest.
    pub sev_guest: bool,
    /// Linux has the device of an Arm CCA guest.
    pub cca_guest: bool,
}

/// The number of the register (AMD64 Architecture Programmer's Manual, volume 2, "SEV_STATUS MSR").
const SEV_STATUS: u64 = 0xc001_0131;
/// Platform devices that Linux makes in guests: for SEV-SNP in drivers/virt/coco and arch/x86/coco/sev/core.c, for Arm
/// CCA in arch/arm64/kernel/rsi.c.
const SEV_GUEST: &str = "sys/devices/platform/sev-guest";
const CCA_GUEST: &str = "sys/devices/platform/arm-cca-dev";

/// The kind of this machine. `None`: it is not a confidential virtual machine, or no sign says that it is one.
pub fn detect(root: &Path) -> Option<Confidential> {
    let leaf = sys::cpuid;
    let mut signs = Signs {
        vendor: leaf(0),
        features: leaf(1),
        tdx: leaf(0x21),
        hypervisor: leaf(0x4000_0000),
        hyperv_features: leaf(0x4000_0003),
        hyperv_isolation: leaf(0x4000_000c),
        extended: leaf(0x8000_0000),
        encryption: leaf(0x8000_001f),
        sev_status: None,
        encrypted: String::new(),
        sev_guest: root.join(SEV_GUEST).exists(),
        cca_guest: root.join(CCA_GUEST).exists(),
    };
    if may_be_sev(&signs) {
        signs.sev_status = sev_status(root);
        signs.encrypted = encrypted(root);
    }
    decide(&signs)
}

/// Reads SEV_STATUS. The number of the register is the offset in the file (msr(4)). `None`: the register cannot be
/// read.
fn sev_status(root: &Path) -> Option<u64> {
    let mut value = [0; 8];
    File::open(root.join("dev/cpu/0/msr")).and_then(|msr| msr.read_exact_at(&mut value, SEV_STATUS)).ok()?;
    Some(u64::from_le_bytes(value))
}

/// arch/x86/mm/mem_encrypt.c, print_mem_encrypt_feature_info, of Linux: the kernel has read the same register, early in
/// the boot, and says what it found. `AMD Memory Encryption Features active: SEV SEV-ES` until Linux 5.18, then
/// `Memory Encryption Features active: AMD SEV SEV-ES`. `AMD SME` is a host that encrypts its own memory.
const ACTIVE: &str = "Memory Encryption Features active: ";

fn encrypted(root: &Path) -> String {
    let features = |message: &str| message.split_once(ACTIVE).map(|(_, features)| features.to_owned());
    kernel_log::first(root, features).unwrap_or_default()
}

/// Decides from the signs alone. `None`: no sign says that this is a confidential virtual machine.
pub fn decide(signs: &Signs) -> Option<Confidential> {
    if signs.sev_guest {
        return Some(Confidential::SevSnp);
    }
    if signs.cca_guest {
        return Some(Confidential::Cca);
    }
    if !is_guest(signs) {
        return None;
    }
    let isolated = |kind, confidential| (hyperv_isolation(signs) == Some(kind)).then_some(confidential);
    match &vendor(signs) {
        b"AuthenticAMD" if may_be_sev(signs) => {
            let status = signs.sev_status.unwrap_or(0);
            let says = |word: &str| signs.encrypted.split_whitespace().any(|said| said == word);
            let is = |bit: u64, word: &str| status & bit != 0 || says(word);
            let kinds = [
                (4, "SEV-SNP", Confidential::SevSnp),
                (2, "SEV-ES", Confidential::SevEs),
                (1, "SEV", Confidential::Sev),
            ];
            kinds.into_iter().find_map(|(bit, word, kind)| is(bit, word).then_some(kind))
        }
        // Azure hides the leaf of encrypted memory from its guests, so the leaf of Hyper-V decides.
        b"AuthenticAMD" => isolated(HYPERV_SNP, Confidential::SevSnp),
        b"GenuineIntel" => {
            let [_, b, c, d] = signs.tdx;
            let [greatest, ..] = signs.vendor;
            if greatest >= 0x21 && text(b, d, c) == *b"IntelTDX    " {
                return Some(Confidential::Tdx);
            }
            isolated(HYPERV_TDX, Confidential::Tdx)
        }
        _ => None,
    }
}

fn vendor(signs: &Signs) -> [u8; 12] {
    let [_, b, c, d] = signs.vendor;
    text(b, d, c)
}

/// Whether a hypervisor runs this machine: leaf 1, ECX bit 31. On bare metal the same processor has the other signs,
/// too.
fn is_guest(signs: &Signs) -> bool {
    let [_, _, c, _] = signs.features;
    c & (1 << 31) != 0
}

/// Whether the processor has SEV. This guest need not use it.
fn may_be_sev(signs: &Signs) -> bool {
    let ([greatest, ..], [encryption, ..]) = (signs.extended, signs.encryption);
    is_guest(signs) && vendor(signs) == *b"AuthenticAMD" && greatest >= 0x8000_001f && encryption & 2 != 0
}

/// Hypervisor Top Level Functional Specification, "Feature and Interface Discovery": isolation types.
const HYPERV_SNP: u32 = 2;
const HYPERV_TDX: u32 = 3;

/// How Hyper-V isolates this guest. `None`: it does not isolate the guest, or the hypervisor is not Hyper-V.
fn hyperv_isolation(signs: &Signs) -> Option<u32> {
    let ([greatest, b, c, d], [_, features, ..], [_, isolation, ..]) =
        (signs.hypervisor, signs.hyperv_features, signs.hyperv_isolation);
    let is_hyperv = (0x4000_0005..=0x4000_ffff).contains(&greatest) && text(b, c, d) == *b"Microsoft Hv";
    // Bit 22: the partition is isolated. Bit 12: this is the root partition, which manages the others and is not a
    // guest.
    let is_isolated = features & (1 << 22) != 0 && features & (1 << 12) == 0;
    (is_hyperv && is_isolated).then_some(isolation & 0xf)
}

fn text(first: u32, second: u32, third: u32) -> [u8; 12] {
    let mut text = [0; 12];
    for (place, register) in text.chunks_exact_mut(4).zip([first, second, third]) {
        place.copy_from_slice(&register.to_le_bytes());
    }
    text
}

impl fmt::Display for Confidential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Confidential::Sev => "SEV",
            Confidential::SevEs => "SEV-ES",
            Confidential::SevSnp => "SEV-SNP",
            Confidential::Tdx => "TDX",
            Confidential::Cca => "CCA",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leaf with a text in EBX, EDX, ECX, as vendors write it.
    fn vendor_leaf(greatest: u32, text: &[u8; 12]) -> [u32; 4] {
        let [b, c, d] = hypervisor_words(text);
        [greatest, b, d, c]
    }

    /// A leaf with a text in EBX, ECX, EDX, as hypervisors write it.
    fn hypervisor_leaf(greatest: u32, text: &[u8; 12]) -> [u32; 4] {
        let [b, c, d] = hypervisor_words(text);
        [greatest, b, c, d]
    }

    fn hypervisor_words(text: &[u8; 12]) -> [u32; 3] {
        let word = |at: usize| u32::from_le_bytes(text[at..at + 4].try_into().unwrap());
        [word(0), word(4), word(8)]
    }

    const GUEST: [u32; 4] = [0, 0, 1 << 31, 0];

    /// An AMD guest of KVM on a processor with SEV: leaf 0x8000001F as a Milan gives it.
    fn amd(sev_status: Option<u64>) -> Signs {
        Signs {
            vendor: vendor_leaf(0x10, b"AuthenticAMD"),
            features: GUEST,
            hypervisor: hypervisor_leaf(0x4000_0001, b"KVMKVMKVM\0\0\0"),
            extended: [0x8000_001f, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
            encryption: [0x0100_fd3f, 0x0000_4173, 0x1fd, 1],
            sev_status,
            ..Signs::default()
        }
    }

    fn intel() -> Signs {
        Signs {
            vendor: vendor_leaf(0x21, b"GenuineIntel"),
            features: GUEST,
            hypervisor: hypervisor_leaf(0x4000_0001, b"KVMKVMKVM\0\0\0"),
            extended: [0x8000_0008, 0, 0, 0],
            ..Signs::default()
        }
    }

    fn hyperv(of: Signs, features: u32, isolation: u32) -> Signs {
        Signs {
            hypervisor: hypervisor_leaf(0x4000_000c, b"Microsoft Hv"),
            hyperv_features: [0, features, 0, 0],
            hyperv_isolation: [0, isolation, 0, 0],
            encryption: [0; 4],
            ..of
        }
    }

    #[test]
    fn the_status_register_of_amd() {
        for (status, want) in [
            (Some(0), None),
            (Some(1), Some(Confidential::Sev)),
            (Some(3), Some(Confidential::SevEs)),
            (Some(7), Some(Confidential::SevSnp)),
            // As in systemd, a register that cannot be read says nothing.
            (None, None),
        ] {
            assert_eq!(decide(&amd(status)), want, "{status:?}");
        }
        assert_eq!(decide(&Signs { sev_guest: true, ..amd(None) }), Some(Confidential::SevSnp));
    }

    /// The accident: an SEV or SEV-ES guest is taken for a plain one, because nothing but the kernel can read the register.
    #[test]
    fn what_linux_says_of_its_memory() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(encrypted(root.path()), "");
        std::fs::create_dir(root.path().join("dev")).unwrap();
        for (record, want) in [
            ("6,200,310000,-;AMD Memory Encryption Features active: SEV\n", Some(Confidential::Sev)),
            ("6,200,310000,-;AMD Memory Encryption Features active: SEV SEV-ES\n", Some(Confidential::SevEs)),
            ("6,200,310000,-;Memory Encryption Features active: AMD SEV\n", Some(Confidential::Sev)),
            ("6,200,310000,-;Memory Encryption Features active: AMD SEV SEV-ES\n", Some(Confidential::SevEs)),
            ("6,200,310000,-;Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP\n", Some(Confidential::SevSnp)),
            ("6,200,310000,-;Memory Encryption Features active: AMD SME\n", None),
            ("12,200,310000,-;Memory Encryption Features active: AMD SEV\n", None),
        ] {
            std::fs::write(root.path().join("dev/kmsg"), record).unwrap();
            let signs = Signs { encrypted: encrypted(root.path()), ..amd(None) };
            assert_eq!(decide(&signs), want, "{record}");
            // A host says so of its own memory, and is no guest.
            assert_eq!(decide(&Signs { features: [0; 4], ..signs }), None, "{record}");
        }
    }

    #[test]
    fn the_signature_of_tdx() {
        let tdx = Signs { tdx: vendor_leaf(0, b"IntelTDX    "), ..intel() };
        assert_eq!(decide(&tdx), Some(Confidential::Tdx));
        assert_eq!(decide(&Signs { tdx: vendor_leaf(0, b"            "), ..intel() }), None);
        // For a leaf beyond the greatest, the processor repeats another leaf.
        assert_eq!(decide(&Signs { vendor: vendor_leaf(0x20, b"GenuineIntel"), ..tdx }), None);
    }

    /// Azure hides the processor's own leaves.
    #[test]
    fn the_isolation_of_hyper_v() {
        let isolated = 1 << 22;
        for (signs, want) in [
            (hyperv(amd(None), isolated, 0x22), Some(Confidential::SevSnp)),
            (hyperv(intel(), isolated, 0x23), Some(Confidential::Tdx)),
            (hyperv(amd(None), isolated, 3), None),
            (hyperv(intel(), isolated, 2), None),
            // Only software isolates this guest.
            (hyperv(amd(None), isolated, 1), None),
            (hyperv(amd(None), 0, 2), None),
            (hyperv(amd(None), isolated | 1 << 12, 2), None),
        ] {
            assert_eq!(decide(&signs), want, "{signs:x?}");
        }
        let kvm = Signs { hypervisor: amd(None).hypervisor, ..hyperv(amd(None), isolated, 2) };
        assert_eq!(decide(&kvm), None, "the leaves of another hypervisor mean other things");
        let short =
            Signs { hypervisor: hypervisor_leaf(0x4000_0004, b"Microsoft Hv"), ..hyperv(amd(None), isolated, 2) };
        assert_eq!(decide(&short), None);
    }

    #[test]
    fn plain_guests_and_bare_metal() {
        assert_eq!(decide(&Signs::default()), None);
        assert_eq!(decide(&intel()), None);
        // The memory of a host can be encrypted, too. It has the same registers, and no hypervisor below it.
        let host = Signs { features: [0; 4], ..amd(Some(7)) };
        assert_eq!(decide(&host), None);
        assert_eq!(decide(&Signs { vendor: vendor_leaf(0x10, b"HygonGenuine"), ..amd(Some(7)) }), None);
    }

    #[test]
    fn arm() {
        assert_eq!(decide(&Signs { cca_guest: true, ..Signs::default() }), Some(Confidential::Cca));
    }

    /// The devices that the kernel makes in such guests.
    #[test]
    fn the_devices_of_linux() {
        let root = tempfile::tempdir().unwrap();
        let plain = detect(root.path());
        assert!(plain.is_none_or(|kind| !matches!(kind, Confidential::SevSnp | Confidential::Cca)), "{plain:?}");
        std::fs::create_dir_all(root.path().join(SEV_GUEST)).unwrap();
        assert_eq!(detect(root.path()), Some(Confidential::SevSnp));
    }

    #[test]
    fn the_status_register_is_read_at_its_number() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(sev_status(root.path()), None);
        let path = root.path().join("dev/cpu/0/msr");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::create(&path).unwrap();
        file.write_all_at(&7u64.to_le_bytes(), SEV_STATUS).unwrap();
        assert_eq!(sev_status(root.path()), Some(7));
        file.set_len(SEV_STATUS + 4).unwrap();
        assert_eq!(sev_status(root.path()), None);
    }
}
