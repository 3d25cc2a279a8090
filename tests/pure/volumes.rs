//! Config drives that other programs make are read by imprint, and config drives of imprint are read by other programs.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use imprint::payload::MAX_LEN;
use imprint::source::volume::Volume;
use imprint_host::vfat;

pub(super) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("MTOOLS_SKIP_CHECK", "1").env("PATH", path()).output();
    let output = output.unwrap_or_else(|error| panic!("this test needs {program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Programs that format disks are not always in a user's path.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap())
}

/// (labels, content)
fn read(image: &Path) -> (Vec<String>, Vec<u8>) {
    let mut device = File::open(image).unwrap();
    let volume = Volume::all(&mut device).unwrap().pop().unwrap_or_else(|| panic!("{} is no volume", image.display()));
    let labels = volume.labels().map(ToOwned::to_owned).collect();
    let found = volume.file(&mut device, &["imprint", "payload"], MAX_LEN).unwrap().expect("no payload on it");
    (labels, found.expose().to_vec())
}

fn payload() -> Vec<u8> {
    (0..5000u32).flat_map(u32::to_be_bytes).collect()
}

#[test]
fn fat_of_every_width() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("payload"), payload()).unwrap();
    std::fs::write(at("other"), vec![7; 3000]).unwrap();
    // Kilobytes that give each width, with clusters of one sector and of more.
    for (bits, kilobytes, cluster) in
        [("12", "1440", "1"), ("12", "20000", "16"), ("16", "20000", "1"), ("32", "40000", "1"), ("32", "300000", "8")]
    {
        let image = at(&format!("fat{bits}-{kilobytes}"));
        run("mkfs.fat", &["-F", bits, "-s", cluster, "-n", "IMPRINT", "-C", &image, kilobytes]);
        let mtools = |arguments: &[&str]| run(arguments[0], &[&[arguments[1], "-i", &image], &arguments[2..]].concat());
        mtools(&["mmd", "-Ds", "::/Imprint"]);
        // Forty entries with long names before it, and holes in the FAT, so that directory and file are in pieces.
        for number in 0..40 {
            mtools(&["mcopy", "-Do", &at("other"), &format!("::/Imprint/a file with a rather long name {number}")]);
        }
        for number in (0..40).step_by(2) {
            mtools(&["mdel", "-v", &format!("::/Imprint/a file with a rather long name {number}")]);
        }
        mtools(&["mcopy", "-Do", &at("payload"), "::/Imprint/payload"]);
        let (labels, content) = read(Path::new(&image));
        assert_eq!(labels, ["IMPRINT"]);
        assert!(content == payload(), "FAT{bits}, {kilobytes} KiB");
    }
}

/// Every length around a cluster's end, with sectors of 4096 bytes as well.
#[test]
fn fat_files_of_every_length() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    for (sector, bits, kilobytes) in [("512", "12", "1024"), ("4096", "12", "4096"), ("512", "16", "4096")] {
        let image = at(&format!("fat{bits}-{sector}"));
        run("mkfs.fat", &["-F", bits, "-S", sector, "-s", "1", "-n", "CIDATA", "-C", &image, kilobytes]);
        run("mmd", &["-i", &image, "::/imprint"]);
        for length in [0, 1, 511, 512, 513, 4095, 4096, 4097, 65_536] {
            let content: Vec<u8> = (0..=250).cycle().take(length).collect();
            std::fs::write(at("payload"), &content).unwrap();
            run("mcopy", &["-o", "-i", &image, &at("payload"), "::/imprint/payload"]);
            assert!(read(Path::new(&image)).1 == content, "FAT{bits}, sectors of {sector}, {length} bytes");
        }
        run("fsck.fat", &["-n", &image]);
    }
}

/// FAT32 with fewer clusters than Microsoft wants is FAT32 for Linux and for mkfs.fat, and so for us. mtools takes it for
/// something else, so there is no file on it.
#[test]
fn a_small_fat32_volume() {
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().join("image");
    run("mkfs.fat", &["-F", "32", "-s", "1", "-n", "IMPRINT", "-C", image.to_str().unwrap(), "1024"]);
    let mut device = File::open(image).unwrap();
    let volume = Volume::all(&mut device).unwrap().pop().unwrap();
    assert_eq!(volume.labels().collect::<Vec<_>>(), ["IMPRINT"]);
    assert_eq!(volume.file(&mut device, &["imprint", "payload"], MAX_LEN).unwrap(), None);
}

/// It pads the label with NUL in both places where FAT has one, mkfs.fat with blanks.
#[test]
fn a_volume_of_busybox() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    let image = at("image");
    File::create(&image).unwrap().set_len(64 * 1024 * 1024).unwrap();
    run("busybox", &["mkdosfs", "-n", "IMPRINT", &image]);
    assert!(std::fs::read(&image).unwrap()[..512].windows(9).any(|window| window == b"IMPRINT\0\0"), "padded with NUL");
    std::fs::write(at("payload"), payload()).unwrap();
    run("mmd", &["-i", &image, "::/imprint"]);
    run("mcopy", &["-i", &image, &at("payload"), "::/imprint/payload"]);
    let (labels, content) = read(Path::new(&image));
    assert_eq!(labels, ["IMPRINT"]);
    assert!(content == payload());
}

/// mkisofs gives the resource fork of a Macintosh file the name of the file, as an associated file in front of it.
#[test]
fn a_macintosh_file_on_a_hybrid_image() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir_all(temp.path().join("drive/imprint")).unwrap();
    std::fs::write(at("drive/imprint/payload"), payload()).unwrap();
    // AppleDouble (RFC 1740, appendix B): magic, version, filler, one entry: a resource fork of 100 bytes at 38.
    let head: [&[u8]; 4] = [b"\0\x05\x16\x07\0\x02\0\0", &[0; 16], b"\0\x01", b"\0\0\0\x02\0\0\0\x26\0\0\0\x64"];
    std::fs::write(at("drive/imprint/._payload"), [&head.concat()[..], &[b'r'; 100]].concat()).unwrap();
    let (image, drive) = (at("image"), at("drive"));
    for options in [&[][..], &["-R"], &["-J", "-R"]] {
        let fixed = ["-quiet", "-hfs", "--osx-double", "-V", "IMPRINT", "-o", &image];
        run("genisoimage", &[&fixed[..], options, &[&drive]].concat());
        let listed = run("isoinfo", &["-l", "-i", &image]);
        assert_eq!(listed.matches("PAYLOAD.;1").count(), 2, "{listed}");
        let (labels, content) = read(Path::new(&image));
        assert_eq!(labels[0], "IMPRINT");
        assert!(content == payload(), "{options:?}");
    }
}

#[test]
fn long_names_and_their_short_ones() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    let image = at("image");
    run("mkfs.fat", &["-F", "12", "-n", "IMPRINT", "-C", &image, "1024"]);
    std::fs::write(at("payload"), payload()).unwrap();
    let long = "A name that is longer than the thirteen units of one entry.cbor";
    run("mcopy", &["-i", &image, &at("payload"), &format!("::/{long}")]);
    let mut device = File::open(&image).unwrap();
    let volume = Volume::all(&mut device).unwrap().pop().unwrap();
    for name in [long, &long.to_ascii_uppercase(), "ANAMET~1.CBO"] {
        let found = volume.file(&mut device, &[name], MAX_LEN).unwrap();
        assert!(found.is_some_and(|found| found.expose() == payload()), "{name}");
    }
    assert_eq!(volume.file(&mut device, &[&long[..26]], MAX_LEN).unwrap(), None);
}

#[test]
fn iso_9660_with_every_extension() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir_all(temp.path().join("drive/imprint")).unwrap();
    std::fs::write(temp.path().join("drive/imprint/payload"), payload()).unwrap();
    std::fs::write(temp.path().join("drive/user-data"), "#cloud-config\n").unwrap();
    let (image, drive) = (at("image"), at("drive"));
    for options in [&[][..], &["-J"], &["-R"], &["-J", "-R"], &["-J", "-hide", "imprint"], &["-iso-level", "4"]] {
        run("genisoimage", &[&["-quiet", "-V", "cidata", "-o", &image], options, &[&drive]].concat());
        let (labels, content) = read(Path::new(&image));
        assert_eq!(labels[0], "cidata", "{options:?}");
        assert!(content == payload(), "{options:?}");
    }
    for options in [&[][..], &["-J", "-R"]] {
        std::fs::remove_file(&image).unwrap();
        let fixed = ["-report_about", "FAILURE", "-as", "mkisofs", "-V", "config-2", "-o", &image];
        run("xorriso", &[&fixed[..], options, &[&drive]].concat());
        let (labels, content) = read(Path::new(&image));
        assert!(labels.iter().any(|label| label.eq_ignore_ascii_case("config-2")), "{labels:?}");
        assert!(content == payload(), "{options:?}");
    }
}

#[test]
fn our_fat_image_is_one_for_others() {
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().join("drive.img");
    std::fs::write(&image, &*vfat::image(&payload()).unwrap()).unwrap();
    let image = image.to_str().unwrap();
    run("fsck.fat", &["-n", "-v", image]);
    assert!(run("mlabel", &["-s", "-i", image, "::"]).contains("Volume label is IMPRINT"));
    let copy = temp.path().join("copy");
    run("mcopy", &["-i", image, "::/imprint/payload", copy.to_str().unwrap()]);
    assert!(std::fs::read(copy).unwrap() == payload());
}
