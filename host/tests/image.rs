//! Tests of `imprint-host image` with a kernel's folder of modules that has few and small ones: what goes in, what is refused, and
//! that the same inputs give the same bytes. tests/vm boots images of real kernels.

use crate::support::command;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use command::mode;

include!("support/module.rs");

const MAGIC: &str = "vermagic=6.1.0-9-test SMP preempt mod_unload modversions ";
const X86_64: u8 = 62;
const AARCH64: u8 = 183;

/// A folder of modules, an agent, and a place for images.
struct Kernel {
    work: tempfile::TempDir,
}

/// Path, what it needs, its `.modinfo` beside the version.
const MODULES: [(&str, &str, &str); 8] = [
    ("kernel/drivers/net/virtio_net.ko", "kernel/net/core/failover.ko", ""),
    ("kernel/net/core/failover.ko", "", ""),
    ("kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko", "", "firmware=intel/e1000e.fw\0"),
    ("kernel/drivers/net/wireless/ath/ath9k.ko", "", ""),
    ("kernel/drivers/block/virtio_blk.ko", "", ""),
    ("kernel/fs/ext4/ext4.ko", "", ""),
    ("kernel/crypto/crc32c_generic.ko", "", ""),
    ("kernel/net/packet/af_packet.ko", "", ""),
];

impl Kernel {
    fn new(machine: u8) -> Kernel {
        let kernel = Kernel { work: tempfile::tempdir().unwrap() };
        let mut dep = String::new();
        for (path, needs, info) in MODULES {
            kernel.put(path, &module(&format!("license=GPL\0{info}{MAGIC}\0"), machine));
            dep += &format!("{path}: {needs}\n");
        }
        kernel.put("modules.dep", dep.as_bytes());
        let alias = "alias virtio:d00000001v* virtio_net\nalias virtio:d00000002v* virtio_blk\nalias pci:v00008086d* e1000e\n\
                     alias pci:v0000168Cd* ath9k\nalias fs-ext4 ext4\nalias crc32c crc32c_generic\nalias net-pf-17 af_packet\n";
        kernel.put("modules.alias", alias.as_bytes());
        kernel.put("modules.softdep", b"softdep ext4 pre: crc32c\nsoftdep ath9k pre: crc32c\n");
        kernel.put("modules.builtin", b"kernel/lib/zstd/zstd_decompress.ko\nkernel/net/ipv6/ipv6.ko\n");
        fs::write(kernel.path("agent"), program(machine)).unwrap();
        fs::set_permissions(kernel.path("agent"), fs::Permissions::from_mode(0o755)).unwrap();
        kernel
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// A file of the folder of modules.
    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path("modules").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// `imprint-host image` with these words and the agent of [`Kernel::new`].
    fn image(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imprint-host"));
        command.arg("image").arg("--kernel-modules").arg(self.path("modules"));
        if !words.contains(&"--agent") {
            command.arg("--agent").arg(self.path("agent"));
        }
        if !words.contains(&"-o") {
            command.arg("-o").arg(self.path("image"));
        }
        command.args(words).current_dir(self.work.path()).output().unwrap()
    }

    #[track_caller]
    fn made(&self, words: &[&str]) -> (Vec<u8>, String) {
        let output = self.image(words);
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        (fs::read(self.path("image")).unwrap(), text(&output.stdout))
    }

    /// The error, which leaves no image behind.
    #[track_caller]
    fn refused(&self, words: &[&str], want: &str) {
        let output = self.image(words);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        let want = want.replace("DIR", &self.work.path().display().to_string());
        assert!(said.trim_end().starts_with(&format!("imprint-host: {want}")), "{words:?}: {said}\n{want}");
        assert!(!self.path("image").exists(), "{words:?}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A static program that ends at once, with exit code 0 on x86_64: whatever it is asked, it has nothing against it.
fn program(machine: u8) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, machine, 0, 1, 0, 0, 0];
    bytes.extend(0x0040_0078_u64.to_le_bytes());
    bytes.extend(64_u64.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // A segment to load (PT_LOAD), to be read and run, the whole file.
    bytes.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for field in [0_u64, 0x0040_0000, 0x0040_0000, 129, 129, 0x1000] {
        bytes.extend(field.to_le_bytes());
    }
    // mov eax, 60 (exit); xor edi, edi; syscall
    bytes.extend([0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]);
    bytes
}

fn cpio(arguments: &[&str], folder: &Path, archive: &[u8]) -> String {
    let mut child = Command::new("cpio")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cpio is missing: run scripts/install-needs test");
    let mut into = child.stdin.take().unwrap();
    into.write_all(archive).unwrap();
    drop(into);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    text(&output.stdout)
}

#[test]
fn an_image_has_the_modules_that_it_needs_and_always_the_same_bytes() {
    let kernel = Kernel::new(X86_64);
    // Distributions compress modules: in the image they are not.
    let packed = kernel.path("modules/kernel/fs/ext4/ext4.ko");
    assert!(Command::new("gzip").arg(&packed).status().unwrap().success());
    let dep = fs::read_to_string(kernel.path("modules/modules.dep")).unwrap();
    kernel.put("modules.dep", dep.replace("ext4.ko", "ext4.ko.gz").as_bytes());
    kernel.file("site", &format!("{}\n", "ab".repeat(32)));

    let words = ["--compress", "none", "--site", "site", "--words", "imprint=require"];
    let (image, said) = kernel.made(&words);
    assert!(said.starts_with(&format!("wrote {}: ", kernel.path("image").display())), "{said}");
    assert!(said.contains("kernel   6.1.0-9-test (x86_64)\n"), "{said}");
    assert!(said.contains("loaded at the start: af_packet\n"), "{said}");
    assert_eq!(mode(&kernel.path("image")), 0o644);
    let listed = cpio(&["-it", "--quiet"], kernel.work.path(), &image);
    let m = "lib/modules/6.1.0-9-test";
    let want = format!(
        "dev\ndev/console\ndev/null\netc\netc/cmdline.d\netc/cmdline.d/imprint.conf\netc/initrd-release\nimprint\nimprint/modules\n\
         imprint/site\ninit\nlib\nlib/modules\n{m}\n{m}/kernel\n{m}/kernel/crypto\n{m}/kernel/crypto/crc32c_generic.ko\n\
         {m}/kernel/drivers\n{m}/kernel/drivers/block\n{m}/kernel/drivers/block/virtio_blk.ko\n{m}/kernel/drivers/net\n\
         {m}/kernel/drivers/net/ethernet\n{m}/kernel/drivers/net/ethernet/intel\n\
         {m}/kernel/drivers/net/ethernet/intel/e1000e\n{m}/kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko\n\
         {m}/kernel/drivers/net/virtio_net.ko\n{m}/kernel/fs\n{m}/kernel/fs/ext4\n{m}/kernel/fs/ext4/ext4.ko\n\
         {m}/kernel/net\n{m}/kernel/net/core\n{m}/kernel/net/core/failover.ko\n{m}/kernel/net/packet\n\
         {m}/kernel/net/packet/af_packet.ko\n{m}/modules.alias\n{m}/modules.builtin\n{m}/modules.dep\n{m}/modules.softdep\n\
         proc\nrun\nsys\nsysroot\ntmp\nusr\nusr/bin\nusr/bin/imprint\n"
    );
    assert_eq!(listed, want);

    let root = kernel.path("root");
    fs::create_dir(&root).unwrap();
    // Root only makes devices.
    cpio(&["-id", "--quiet", "--no-preserve-owner", "-f", "dev/*"], &root, &image);
    let found = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    assert_eq!(fs::read(root.join("init")).unwrap(), program(X86_64));
    assert_eq!(fs::read_link(root.join("usr/bin/imprint")).unwrap(), Path::new("/init"));
    assert_eq!(found("imprint/modules"), "af_packet\n");
    assert_eq!(found("etc/cmdline.d/imprint.conf"), "imprint=require\n");
    assert_eq!(mode(&root.join("imprint")), 0o700);
    assert!(fs::read(root.join(m).join("kernel/fs/ext4/ext4.ko")).unwrap().starts_with(b"\x7fELF"));
    // The indices are about what is there, under the names that it has there.
    let dep = found(&format!("{m}/modules.dep"));
    assert!(dep.contains("kernel/fs/ext4/ext4.ko:") && !dep.contains(".gz") && !dep.contains("ath9k"), "{dep}");
    let alias = found(&format!("{m}/modules.alias"));
    assert!(alias.contains("alias fs-ext4 ext4\n") && !alias.contains("ath9k"), "{alias}");
    assert_eq!(found(&format!("{m}/modules.softdep")), "softdep ext4 pre: crc32c\n");

    assert!(kernel.made(&words).0 == image, "another time, another folder of this user: the same bytes");
    let (zstd, _) = kernel.made(&[]);
    assert!(zstd.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]), "zstd is the form when nothing is said");
}

/// What was put in by name counts, and what a program reads is the same as what a person reads.
#[test]
fn modules_firmware_programs_and_files_go_in_by_name() {
    let kernel = Kernel::new(X86_64);
    kernel.file("init2", "#!/bin/sh\n");
    fs::create_dir_all(kernel.path("fw/intel")).unwrap();
    kernel.file("fw/intel/e1000e.fw", "firmware");
    fs::create_dir_all(kernel.path("tree/bin")).unwrap();
    kernel.file("tree/bin/busybox", "program");
    fs::set_permissions(kernel.path("tree/bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("busybox", kernel.path("tree/bin/sh")).unwrap();
    kernel.file("tree/bin/su", "program of another user");
    fs::set_permissions(kernel.path("tree/bin/su"), fs::Permissions::from_mode(0o6755)).unwrap();
    for path in ["tree", "tree/bin"] {
        fs::set_permissions(kernel.path(path), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let words = [
        "--json",
        "--compress",
        "none",
        "--only",
        "--modules",
        "ath9k,=drivers/net/ethernet",
        "--modules",
        "ext4 ipv6",
        "--firmware",
        "fw",
        "--next",
        "init2",
        "--add",
        "tree:/",
        "--add",
        "tree/bin:/opt/bin",
    ];
    let (image, said) = kernel.made(&words);
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    let names: Vec<&str> =
        json["modules"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["crc32c_generic", "ath9k", "e1000e", "ext4"]);
    assert_eq!(json["started"], serde_json::json!(["ext4"]), "no device announces a file system");
    assert_eq!((&json["firmware"], &json["kernel"]), (&1.into(), &"6.1.0-9-test".into()));
    assert_eq!(json["bytes"], image.len());
    assert_eq!(json["warnings"].as_array().unwrap().len(), 1, "no drive: {said}");
    let listed = cpio(&["-itv", "--quiet"], kernel.work.path(), &image);
    for (mode, name) in [
        ("-rw-r--r--", "lib/firmware/intel/e1000e.fw"),
        ("-rwxr-xr-x", "imprint/next"),
        ("-rwxr-xr-x", "bin/busybox"),
        ("lrwxrwxrwx", "bin/sh -> busybox"),
        ("-rwxr-xr-x", "bin/su"),
        ("crw-rw-rw-", "dev/null"),
        ("-rwxr-xr-x", "opt/bin/busybox"),
    ] {
        let line = listed.lines().find(|line| line.ends_with(&format!(" {name}")));
        assert!(line.is_some_and(|line| line.starts_with(mode)), "{name}: {listed}");
    }
    assert_eq!(mode(&kernel.path("image")), 0o644);

    // A file that not everybody may read here must not become one that everybody can read there.
    fs::set_permissions(kernel.path("tree/bin/busybox"), fs::Permissions::from_mode(0o700)).unwrap();
    kernel.made(&words);
    assert_eq!(mode(&kernel.path("image")), 0o600);
}

/// The accident: a key in an image that everybody can read, and nobody was told.
#[test]
fn an_image_with_a_key_is_its_owners_alone_and_says_so() {
    let kernel = Kernel::new(X86_64);
    kernel.file("key", "-----BEGIN PRIVATE KEY-----\n");
    kernel.file("bundle-key", "AGE-SECRET-KEY-1\n");
    let (image, said) = kernel.made(&["--compress", "none", "--key", "key", "--bundle-key", "bundle-key"]);
    for place in ["/imprint/key", "/imprint/bundle-key"] {
        assert!(said.contains(&format!("{place} is a private key: everybody who can read the image has it")), "{said}");
    }
    assert_eq!(mode(&kernel.path("image")), 0o600);
    let listed = cpio(&["-itv", "--quiet"], kernel.work.path(), &image);
    assert!(listed.lines().any(|line| line.starts_with("-rw-------") && line.ends_with(" imprint/key")), "{listed}");
    // The next image has none, and no trace of it.
    let (image, said) = kernel.made(&["--compress", "none"]);
    assert!(!said.contains("private"), "{said}");
    assert!(!image.windows(11).any(|bytes| bytes == b"PRIVATE KEY"));
    assert_eq!(mode(&kernel.path("image")), 0o644);
}

/// An agent for another machine cannot be asked here, so its files are judged by the same code in this program.
#[test]
fn files_that_a_boot_would_refuse_end_the_build_for_another_machine_too() {
    let kernel = Kernel::new(AARCH64);
    kernel.file("pin", "0123456789abcdef\n");
    kernel.refused(
        &["--site", "pin"],
        "with this image every node would stop: source: site pin pin: line 1 is wrong; it must be the SHA-256 of a CA certificate",
    );
    kernel.file("key", "no key\n");
    kernel.refused(
        &["--key", "key"],
        "with this image every node would stop: source: admission key key: it has no block \"PRIVATE KEY\"",
    );
    kernel.file("pin", &format!("{}\n", "ab".repeat(32)));
    let output = kernel.image(&["--site", "pin"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("imprint-host: warning: the agent ") && said.contains(" is for aarch64 and cannot run here"),
        "{said}"
    );
}

#[test]
fn what_cannot_become_an_image_is_named() {
    let kernel = Kernel::new(X86_64);
    kernel.refused(
        &["--modules", "no_such"],
        "--modules no_such: DIR/modules has no such module, and it is not built into the kernel; correct the name, or install",
    );
    kernel.refused(&["--modules", "=drivers/no"], "--modules =drivers/no: DIR/modules has no such module");
    kernel.refused(&["--modules", "../x"], "--modules ../x: want names of modules");
    kernel.refused(&["--only", "--modules", "ext4"], "DIR/modules has no driver of any drive or network link");
    kernel.refused(
        &["--compress", "gzip"],
        "this kernel unpacks no gzip: DIR/modules/modules.builtin does not list zlib_inflate",
    );
    kernel.refused(&["--words", "imprint=no"], "--words: ");
    kernel.refused(&["--words", "imprint.payload=AAAA"], "--words");
    kernel.refused(&["--words", "imprint.next=/bin/x", "--next", "agent"], "--words: ");
    for (file, place) in
        [("/imprint/payload", "/imprint/payload"), ("/.extra/credentials/imprint.payload.cred", "/.extra/credentials")]
    {
        let want = format!("{place} has what belongs to one node, and the image is for all nodes of a site");
        kernel.refused(&["--add", &format!("agent:{file}")], &want);
    }
    kernel.file("words", "imprint.payload=oQEB\n");
    kernel.refused(&["--add", "words:/etc/cmdline.d/a.conf"], "/etc/cmdline.d/a.conf has what belongs to one node");
    kernel.refused(&["--add", "agent:/init"], "/init is in the image already");
    kernel.refused(&["--add", "agent:/../x"], "/../x is no path in an image");
    kernel.refused(&["--add", "missing:/x"], "finding missing");
    kernel.refused(&["--site", "missing"], "reading missing");
    kernel.refused(&["--firmware", "missing"], "reading the firmware in missing");
    kernel.refused(
        &["--agent", "missing"],
        "there is no agent at missing; build it (make build), or name it with --agent",
    );
    kernel.file("text", "#!/bin/sh\n");
    kernel.refused(&["--agent", "text"], "the agent text is no ELF program");
    kernel.refused(&["-o", "/dev/null"], "/dev/null is no place for a file");
    fs::write(kernel.path("arm"), program(AARCH64)).unwrap();
    kernel.refused(
        &["--agent", "arm"],
        "the agent arm is for aarch64, and the modules for x86_64; make build ARCH=x86_64",
    );
    let mut dynamic = program(X86_64);
    dynamic[64] = 3;
    fs::write(kernel.path("dynamic"), dynamic).unwrap();
    kernel.refused(&["--agent", "dynamic"], "the agent dynamic is linked dynamically, and the image has no libraries");

    // Two kernels, two machines, and files that are no modules.
    let blk = "kernel/drivers/block/virtio_blk.ko";
    for (bytes, want) in [
        (
            module("vermagic=6.2.0 SMP \0", X86_64),
            "modules/kernel/drivers/block/virtio_blk.ko for 6.2.0; a kernel loads only its own modules",
        ),
        (module(&format!("{MAGIC}\0"), AARCH64), "is for x86_64, and other modules of the folder for aarch64"),
        (module("license=GPL\0", X86_64), "is no kernel module: it is no ELF file with a version (vermagic)"),
        (b"BZh91AY".to_vec(), "it is neither a module nor compressed"),
    ] {
        kernel.put(blk, &bytes);
        let output = kernel.image(&[]);
        let said = text(&output.stderr).replace(&kernel.work.path().display().to_string(), "DIR");
        assert!(!output.status.success() && said.contains(want) && said.contains("modules/kernel/"), "{said}");
    }
    fs::remove_file(kernel.path("modules").join(blk)).unwrap();
    kernel.refused(&[], &format!("DIR/modules/{blk}: modules.dep lists it, and it cannot be read; install"));
    kernel.put("modules.dep", b"nonsense\n");
    kernel.refused(&[], "DIR/modules: line 1 of modules.dep is not as depmod writes it");
    fs::remove_file(kernel.path("modules/modules.dep")).unwrap();
    kernel.refused(
        &[],
        "DIR/modules is no folder of kernel modules: it has no modules.dep; give the folder lib/modules/VERSION",
    );
}

/// The accident: the disk is full in the middle of the image. The one that is there stays, and nothing is left behind. It needs root,
/// for a small file system in a mount namespace.
#[test]
fn an_image_that_is_there_stays_when_the_disk_is_full() {
    let kernel = Kernel::new(X86_64);
    let script = "mount -t tmpfs -o size=8k,mode=0700 none \"$0\"; echo before >\"$0/image\"; \
                  \"$@\" -o \"$0/image\" && exit 9; cat \"$0/image\"; ls -A \"$0\"";
    let disk = kernel.path("disk");
    fs::create_dir(&disk).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-euc", script])
        .arg(&disk)
        .arg(env!("CARGO_BIN_EXE_imprint-host"))
        .args(["image", "--compress", "none", "--kernel-modules"])
        .arg(kernel.path("modules"))
        .arg("--agent")
        .arg(kernel.path("agent"))
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "before\nimage\n", "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(said.contains("No space left on device"), "{said}");
}

/// What would make a medium that starts nothing.
#[test]
fn a_medium_with_another_kernel_or_without_its_tools_is_refused() {
    let kernel = Kernel::new(X86_64);
    let says = |version: &str| {
        let mut bytes = vec![0; 0x1000];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x400_u16.to_le_bytes());
        bytes[0x600..0x600 + version.len()].copy_from_slice(version.as_bytes());
        fs::write(kernel.path("vmlinuz"), bytes).unwrap();
    };
    let words = ["--iso", "--kernel", "vmlinuz", "--append"];
    says("6.1.0-10-test (somebody) #1 SMP");
    let want = "the kernel vmlinuz is Linux 6.1.0-10-test, and the image has the modules of 6.1.0-9-test, which it could not load";
    kernel.refused(&[&words[..], &["quiet"]].concat(), want);
    says("6.1.0-9-test (somebody) #1 SMP");
    for wrong in ["a'b", "a\"b", "a\\b", "$a", "a\nb"] {
        let want = "--append: want words without quotes, backslashes and $, as they go into the menu of the medium";
        kernel.refused(&[&words[..], &[wrong]].concat(), want);
    }
    let output = Command::new(env!("CARGO_BIN_EXE_imprint-host"))
        .args(["image", "--kernel-modules", "modules", "--agent", "agent", "-o", "image"])
        .args(words)
        .arg("quiet")
        .env("PATH", "/nonexistent")
        .current_dir(kernel.work.path())
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(said.starts_with("imprint-host: --iso needs grub-mkrescue xorriso mformat"), "{said}");
    assert!(said.contains("; on Debian: apt-get install grub-common xorriso mtools"), "{said}");
    assert!(!kernel.path("image").exists());
}
