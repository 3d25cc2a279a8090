//! Tests of what reaches a node in its image: archives that are appended to it, kernel words that dracut writes into it,
//! and images of later dracuts.

use std::process::Command;

use imprint_tests::vm;

use crate::*;

/// One entry of a cpio archive in the "newc" form, and its end.
fn entry(mode: u32, name: &str, file: &[u8]) -> Vec<u8> {
    let padded = |mut bytes: Vec<u8>| {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let fields = [
        1,
        mode,
        0,
        0,
        1,
        0,
        u32::try_from(file.len()).unwrap(),
        0,
        0,
        0,
        0,
        u32::try_from(name.len()).unwrap() + 1,
        0,
    ];
    let header: String = fields.iter().map(|field| format!("{field:08x}")).collect();
    let head = padded(format!("070701{header}{name}\0").into_bytes());
    [head, padded(file.to_vec())].concat()
}

/// What iPXE makes of `initrd URL /imprint/payload`: the file alone, without the folder that it is in.
#[test]
fn a_file_without_its_folder_arrives() {
    let site = Site::typical();
    let archive = [entry(0o100_644, "imprint/payload", &site.payload), entry(0, "TRAILER!!!", b"")].concat();
    let report = machine(Kernel::Stable).init(Init::Plain).initramfs_archive(&archive).boot();
    came_up(&report);
    assert_eq!(report.status().origin.as_deref(), Some("initramfs /imprint/payload"));
}

/// An image whose length is this far from a multiple of four: compressed ones have any length.
fn image_of(work: &Path, rest: usize) -> PathBuf {
    let mut image = std::fs::read(vm::initramfs(Kernel::Stable, Init::Plain)).unwrap();
    image.resize(image.len().next_multiple_of(4) + rest, 0);
    let path = work.join("initramfs.img");
    std::fs::write(&path, image).unwrap();
    path
}

/// The commands of docs/sources.md, as they stand there.
fn commands() -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sources.md")).unwrap();
    let block = page.split("```\n").skip(1).step_by(2).find(|block| block.contains("truncate"));
    block.expect("docs/sources.md shows how to join archives").to_owned()
}

/// The kernel wants archives at multiples of four bytes, and boots on without one that is elsewhere: the node has no
/// identity. That is said; and the commands of the page put the archive where it has to be.
#[test]
fn archives_are_joined_at_multiples_of_four() {
    let site = Site::new(Node { enrol: "each-boot", ..NODE });
    let work = site.work.path();
    image_of(work, 1);
    std::fs::write(work.join("node1.cpio"), &*imprint_host::cpio::archive(&site.payload).unwrap()).unwrap();
    let sh = |script: &str| {
        let status = Command::new("sh").args(["-ec", script]).current_dir(work).status().unwrap();
        assert!(status.success(), "{script}");
        work.join("node1.img")
    };
    let boot = |image: &Path| machine(Kernel::Stable).init(Init::Plain).initrd(image).boot();

    let report = boot(&sh("cat initramfs.img node1.cpio >node1.img"));
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{}", report.console);
    assert_eq!(report.status().outcome, Outcome::Absent);
    let words =
        "the kernel could not unpack an archive of the initramfs (invalid magic at start of compressed archive)";
    for said in [&report.status().steps.first().unwrap().detail, &report.console] {
        assert!(said.contains(words), "{said}");
    }

    let report = boot(&sh("gzip -nk node1.cpio; cat initramfs.img node1.cpio.gz >node1.img"));
    came_up(&report);
    assert_eq!(report.status().origin.as_deref(), Some("initramfs /imprint/payload"));

    for rest in [0, 1, 2, 3] {
        image_of(work, rest);
        let joined = std::fs::read(sh(&commands())).unwrap();
        let archive = std::fs::read(work.join("node1.cpio")).unwrap();
        assert!(joined.ends_with(&archive) && (joined.len() - archive.len()).is_multiple_of(4), "{rest}");
    }
    let report = boot(&work.join("node1.img"));
    came_up(&report);
    assert_eq!(report.status().origin.as_deref(), Some("initramfs /imprint/payload"));
}

/// dracut 110 and later name no links in an image without net-lib; the real root asks for the predictable name, and before
/// Linux 6.2 no link that is up gets another. The words of kernel_cmdline= count like those of the kernel command line.
#[track_caller]
fn later_dracut(init: Init, kernel: Kernel) {
    let site = Site::typical();
    let report = site.machine(kernel).init(init).boot();
    came_up(&report);
    assert_eq!(report.part("links").split_whitespace().collect::<Vec<_>>(), ["ens8", "lo"]);
    let plan = report.console.lines().find(|line| line.contains("names      CN=node1.example.org"));
    assert!(plan.is_some(), "imprint.debug of the image was passed over:\n{}", report.console);
}

#[test]
fn a_later_dracut_with_systemd() {
    later_dracut(Init::SystemdNg, Kernel::Stable);
}

#[test]
fn a_later_dracut_plain() {
    later_dracut(Init::PlainNg, Kernel::Stable);
}

/// Each builder, with a pin that the agent would refuse on every machine.
#[test]
fn a_site_pin_that_is_none_ends_the_build() {
    let work = tempfile::tempdir().unwrap();
    let script = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(name);
    let kernel = Command::new(script("kernel")).arg("stable").output().unwrap();
    let kernel = String::from_utf8(kernel.stdout).unwrap();
    let site = work.path().join("site");
    std::fs::write(&site, "0123456789abcdef\n").unwrap();
    for (builder, flavour) in
        [("dracut-image", "plain"), ("dracut-image", "plain-ng"), ("initramfs-tools-image", "list")]
    {
        let image = work.path().join("image");
        let build = Command::new(script(builder))
            .args([flavour, kernel.trim()])
            .arg(&image)
            .env("IMPRINT_SITE", &site)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&build.stderr).into_owned();
        let want = format!("site pin {}: line 1 is wrong; it must be the SHA-256 of a CA certificate", site.display());
        assert!(!build.status.success() && said.contains(&want), "{flavour}: {said}");
        assert!(!image.exists());
    }
}

/// The accident: the disk of the boot server was full, and TFTP tells nobody how long a file should be (docs/pxe.md).
#[test]
fn an_archive_that_was_cut_short_is_said_to_be_one() {
    let site = Site::new(Node { enrol: "each-boot", ..NODE });
    let archive = imprint_host::cpio::archive(&site.payload).unwrap();
    // One block of TFTP: the end of the file is missing, and the kernel fills the file with zeros.
    let cut = archive.get(..512).unwrap();
    let report = machine(Kernel::Stable).init(Init::Plain).initramfs_archive(cut).boot();
    stopped(&report, 12, "payload", "nothing but zeros from here on; the payload was cut short");
    assert_eq!(site.certificates_issued(), 0);
}

/// Nothing of imprint is there to say anything. The kernel does, and does not start again by itself.
#[test]
fn an_image_that_was_cut_short_stops_in_a_panic() {
    let work = tempfile::tempdir().unwrap();
    let image = std::fs::read(vm::initramfs(Kernel::Stable, Init::Plain)).unwrap();
    let cut = work.path().join("initramfs.img");
    std::fs::write(&cut, image.get(..image.len() / 4).unwrap()).unwrap();
    let console = machine(Kernel::Stable).init(Init::Plain).initrd(&cut).dies();
    for words in ["Initramfs unpacking failed: ", "Kernel panic - not syncing: "] {
        assert!(console.contains(words), "{console}");
    }
}
