use super::*;

// Lines of the files that depmod made for Debian's linux-image-6.1.0-50-amd64.
const DEP_TEXT: &str = "\
kernel/arch/x86/crypto/crc32c-intel.ko:
kernel/crypto/crc32c_generic.ko:
kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko \
kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko:
kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko
kernel/fs/jbd2/jbd2.ko:
kernel/fs/mbcache.ko:
kernel/lib/crc16.ko:
kernel/drivers/char/ipmi/ipmi_msghandler.ko:
kernel/drivers/char/ipmi/ipmi_devintf.ko: kernel/drivers/char/ipmi/ipmi_msghandler.ko
kernel/drivers/usb/storage/usb-storage.ko:
kernel/drivers/usb/storage/uas.ko: kernel/drivers/usb/storage/usb-storage.ko
";
const ALIAS_TEXT: &str = "\
# Aliases extracted from modules themselves.
alias crypto-crc32c crc32c_intel
alias crypto-crc32c crc32c_generic
alias fs-ext4 ext4
alias virtio:d00000001v* virtio_net
alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000
alias usb:v13FDp3940d0[0-2]*dc*dsc*dp*ic*isc*ip*in* uas
alias usb:v13FDp3940d0[0-2]*dc*dsc*dp*ic*isc*ip*in* usb_storage
alias dmi:bvnIBM:*:pnIBM System x3550* ipmi_msghandler
";
const SOFTDEP_TEXT: &str = "\
# Soft dependencies extracted from modules themselves.
softdep ext4 pre: crypto-crc32c
softdep jbd2 pre: crypto-crc32c
softdep cifs gcm
softdep ipmi_msghandler post: ipmi_devintf
";
const BUILTIN_TEXT: &str = "kernel/arch/x86/crypto/libblake2s-x86_64.ko\nkernel/drivers/rtc/rtc-cmos.ko\n";

const TEXTS: Texts<'static> = Texts { dep: DEP_TEXT, alias: ALIAS_TEXT, softdep: SOFTDEP_TEXT, builtin: BUILTIN_TEXT };

fn closure<'n>(names: &[&'n str]) -> Result<Vec<String>, &'n str> {
    let index = Index::parse(&TEXTS).unwrap();
    let paths = index.closure(names.iter().copied())?;
    Ok(paths.iter().map(|path| name_of(path).unwrap().into_owned()).collect())
}

/// The accident: a module that is loaded before what it needs does not load ("Unknown symbol").
#[test]
fn what_a_module_needs_is_loaded_before_it() {
    assert_eq!(closure(&["virtio_net"]).unwrap(), ["virtio", "virtio_ring", "failover", "net_failover", "virtio_net"]);
    // Soft dependencies, which are aliases here; each module once, also for two that need it.
    assert_eq!(
        closure(&["ext4", "jbd2", "virtio"]).unwrap(),
        ["crc32c_intel", "crc32c_generic", "jbd2", "mbcache", "crc16", "ext4", "virtio"]
    );
    assert_eq!(closure(&["ipmi-msghandler"]).unwrap(), ["ipmi_msghandler", "ipmi_devintf"]);
    assert_eq!(closure(&["fs-ext4"]).unwrap().last().unwrap(), "ext4");
    assert_eq!(closure(&["rtc-cmos", "libblake2s_x86_64"]).unwrap(), [""; 0], "the kernel has them");
    assert_eq!(closure(&["virtio", "no-such"]), Err("no-such"));
}

#[test]
fn a_device_finds_its_drivers() {
    let index = Index::parse(&TEXTS).unwrap();
    // /sys/bus/virtio/devices/virtio0/modalias, and a USB disk's.
    assert_eq!(index.matching("virtio:d00000001v00001AF4"), ["virtio_net"]);
    assert_eq!(
        index.matching("usb:v13FDp3940d0209dc00dsc00dp00ic08isc06ip50in00"),
        ["uas", "usb_storage"],
        "more than one, in the order of the file"
    );
    assert_eq!(index.matching("usb:v13FDp3940d0309dc00dsc00dp00ic08isc06ip50in00"), [""; 0]);
    assert_eq!(index.matching("dmi:bvnIBM:bvr1:bd1:pnIBM System x3550 M2:x"), ["ipmi_msghandler"]);
    assert_eq!(
        index.matching("pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00"),
        [""; 0],
        "its driver has no file here"
    );
}

#[test]
fn names_are_the_same_with_either_dash() {
    let index = Index::parse(&TEXTS).unwrap();
    for name in ["usb-storage", "usb_storage"] {
        assert_eq!(index.resolve(name), Resolved::Modules(vec!["usb_storage"]), "{name}");
    }
    assert_eq!(index.resolve("rtc_cmos"), Resolved::Builtin);
    assert_eq!(index.resolve("e1000"), Resolved::Unknown);
    for (path, name) in [
        ("kernel/drivers/net/virtio_net.ko", Some("virtio_net")),
        ("kernel/a-b.ko.xz", Some("a_b")),
        ("x.ko.zst", Some("x")),
        ("updates/dkms/x.ko.gz", Some("x")),
        ("x.koala", None),
        (".ko", None),
        ("", None),
    ] {
        assert_eq!(name_of(path).as_deref(), name, "{path}");
    }
}

#[test]
fn patterns_are_those_of_the_kernel() {
    for (pattern, text, want) in [
        ("", "", true),
        ("*", "", true),
        ("*", "x", true),
        ("a*b*c", "a__b__b_c", true),
        ("a*b*c", "a__b__b_", false),
        ("*ab", "aab", true),
        ("*a*ab", "xaxaab", true),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("d0[0-2]*", "d0209", true),
        ("d0[0-2]*", "d0309", false),
        ("[!0-2]", "3", true),
        ("[^0-2]", "1", false),
        ("[]x]", "]", true),
        ("[a-]", "-", true),
        ("[", "[", true),
        ("[ab", "a", false),
        ("x[", "x[", true),
        ("\\*", "*", true),
        ("\\*", "x", false),
        ("\\", "\\", false),
        ("of:N*Cbrcm,bcm2711-pcie", "of:NpcieT(null)Cbrcm,bcm2711_pcie", true),
        ("cpu:type:x86,ven*fam*mod*:feature:*0094*", "cpu:type:x86,ven0000fam0006mod000F:feature:,0091,0094,", true),
    ] {
        assert_eq!(matches(pattern, text), want, "{pattern} {text}");
    }
    // Attack: a pattern that takes exponential time where a matcher goes back to every star.
    assert!(!matches(&"*a".repeat(1000), &format!("{}b", "a".repeat(10_000))));
}

#[test]
fn lines_that_depmod_did_not_write_are_named() {
    let of = |texts: Texts<'static>| Index::parse(&texts).unwrap_err();
    for (dep, number) in [
        ("kernel/a.ko:\nkernel/b.ko\n", 2),
        ("/lib/modules/a.ko:\n", 1),
        ("kernel/../../a.ko:\n", 1),
        ("kernel/a.ko: ../b.ko\n", 1),
        ("\n# x\nkernel/a.txt:\n", 3),
    ] {
        assert_eq!(of(Texts { dep, ..Texts::default() }), IndexError::Line { file: DEP, number }, "{dep}");
    }
    let alias = Texts { alias: "alias x\n", ..Texts::default() };
    assert_eq!(of(alias), IndexError::Line { file: ALIAS, number: 1 });
    let softdep = Texts { softdep: "x y\n", ..Texts::default() };
    assert_eq!(of(softdep), IndexError::Line { file: SOFTDEP, number: 1 });
    let long = "#".repeat(MAX_INDEX + 1);
    let error = Index::parse(&Texts { dep: &long, ..Texts::default() }).unwrap_err();
    assert_eq!(error, IndexError::TooLong { file: DEP, len: MAX_INDEX + 1 });
}

/// Attack: circles, and a chain that is longer than any stack.
#[test]
fn a_circle_and_a_long_chain_end() {
    let dep = "a.ko: b.ko\nb.ko: a.ko\nc.ko:\n";
    let index = Index::parse(&Texts { dep, softdep: "softdep c pre: c post: c\n", ..Texts::default() }).unwrap();
    assert_eq!(index.closure(["a", "c"]).unwrap(), ["b.ko", "a.ko", "c.ko"]);
    let dep: String = (0..100_000).map(|n| format!("m{n}.ko: m{}.ko\n", n + 1)).collect();
    let index = Index::parse(&Texts { dep: &dep, ..Texts::default() }).unwrap();
    let order = index.closure(["m0"]).unwrap();
    assert_eq!((order.len(), order[0]), (100_001, "m100000.ko"), "the last one has no line of its own");
}

/// The files of an image that has few modules, and has them unpacked.
#[test]
fn what_is_kept_is_the_same_for_the_modules_that_are_kept() {
    let index = Index::parse(&TEXTS).unwrap();
    let paths = index.closure(["ext4"]).unwrap();
    let [dep, alias, softdep] = index.only(&paths, |path| path.replace(".ko", ".ko.xz"));
    assert_eq!(alias, "alias crypto-crc32c crc32c_intel\nalias crypto-crc32c crc32c_generic\nalias fs-ext4 ext4\n");
    assert_eq!(softdep, "softdep ext4 pre: crypto-crc32c\nsoftdep jbd2 pre: crypto-crc32c\n");
    let again = Index::parse(&Texts { dep: &dep, alias: &alias, softdep: &softdep, builtin: BUILTIN_TEXT }).unwrap();
    let paths: Vec<String> = paths.iter().map(|path| path.replace(".ko", ".ko.xz")).collect();
    assert_eq!(again.closure(["fs-ext4"]).unwrap(), paths);
    assert_eq!(again.modules().count(), 6);
}

#[test]
fn lists_of_modules() {
    assert_eq!(listed("# drivers\nvirtio-net # of QEMU\n\n ext4\n").unwrap(), ["virtio-net", "ext4"]);
    let wrong = listed("a\nb c\n").unwrap_err();
    assert_eq!((wrong.0, wrong.1.as_str()), (2, "b c"));
    assert!(listed("../a\n").is_err());
}

mod packed {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// As gzip, xz and zstd themselves pack it.
    fn packed(program: &str, arguments: &[&str], bytes: &[u8]) -> Vec<u8> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        let bytes = bytes.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&bytes));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success(), "{program}");
        output.stdout
    }

    /// Something like a module: neither all zeros nor all noise.
    fn module() -> Vec<u8> {
        let text = (0..200_000u32).flat_map(|n| [(n % 251) as u8, (n / 7 % 13) as u8, (n.wrapping_mul(n) >> 20) as u8]);
        b"\x7fELF".iter().copied().chain(text).collect()
    }

    const PACKERS: &[(&str, &[&str], Packing)] = &[
        ("gzip", &["-9nc"], Packing::Gzip),
        ("gzip", &["-1c"], Packing::Gzip),
        // scripts/Makefile.modinst of Linux, and xz as it comes.
        ("xz", &["--check=crc32", "--lzma2=dict=1MiB", "-c"], Packing::Xz),
        ("xz", &["-c"], Packing::Xz),
        ("zstd", &["-qc"], Packing::Zstd),
        ("zstd", &["-19", "-qc"], Packing::Zstd),
    ];

    #[test]
    fn each_packer_of_modules_is_undone() {
        let module = module();
        assert_eq!(unpack(&module), Ok(module.clone()));
        for (program, arguments, packing) in PACKERS {
            let file = packed(program, arguments, &module);
            assert!(file.len() < module.len());
            assert_eq!(Packing::of(&file), *packing);
            assert!(unpack(&file).unwrap() == module, "{program} {arguments:?}");
        }
    }

    /// An initrd that was cut short, and a byte that was changed on the way.
    #[test]
    fn what_is_cut_or_damaged_is_refused() {
        let module = module();
        for (program, arguments, packing) in PACKERS {
            let file = packed(program, arguments, &module);
            for cut in [11, 100, file.len() / 2, file.len() - 30] {
                assert_eq!(unpack(&file[..cut]), Err(UnpackError::Damaged(*packing)), "{program} {cut}");
            }
        }
        assert_eq!(unpack(b""), Err(UnpackError::Unknown));
        assert_eq!(unpack(b"BZh91AY&SY"), Err(UnpackError::Unknown));
        let text = packed("gzip", &["-9nc"], b"no module");
        assert_eq!(unpack(&text), Err(UnpackError::NotElf(Packing::Gzip)));
        let mut wrong = packed("gzip", &["-9nc"], &module);
        let crc = wrong.len() - 8;
        wrong[crc] ^= 1;
        assert_eq!(unpack(&wrong), Err(UnpackError::Damaged(Packing::Gzip)));
    }

    /// Attack: a few bytes that unpack to more memory than the machine has.
    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let most = 1 << 20;
        let bomb = vec![0; most + 1];
        for (program, arguments, _) in PACKERS {
            let file = packed(program, arguments, &bomb);
            assert_eq!(pack::up_to(&file, most), Err(UnpackError::TooLong), "{program} {arguments:?}");
        }
        assert_eq!(unpack(&vec![0; MAX_MODULE + 1]), Err(UnpackError::TooLong), "not read at all");
    }
}
