//! Tests of `imprint-host payload --as` as people run it: which payloads a form may carry, and what is refused before
//! it voids anything.

use crate::support::command;

use std::path::Path;
use std::process::Command;

use command::{BIND, TYPICAL, fails, fine, host, mode, payloads_made, record, site};
use imprint::payload::Payload;

#[test]
fn a_config_drive_has_a_seed_and_may_be_for_one_boot() {
    let (temp, dir) = site();
    let read = |arguments: &[&str]| {
        let form = if arguments.contains(&"--single-boot") { "vfat" } else { "iso" };
        let path = temp.path().join("drive");
        let fixed = ["payload", "node1", "--as", form, "-o", path.to_str().unwrap()];
        let said = String::from_utf8(fine(&dir, &[&fixed[..], arguments].concat())).unwrap();
        assert!(said.starts_with(&format!("wrote {}: ", path.display())), "{said}");
        assert_eq!(mode(&path), 0o600);
        let mut device = std::fs::File::open(&path).unwrap();
        let volume = imprint::source::volume::Volume::all(&mut device).unwrap().pop().unwrap();
        let found = volume.file(&mut device, &["imprint", "payload"], 65_536).unwrap().unwrap();
        Payload::unwrapped(found.expose()).unwrap()
    };
    let seed = read(&[]).seed.unwrap();
    assert_eq!((seed.bytes.expose().len(), seed.single_boot), (32, false));
    assert_eq!(read(&["--no-seed"]).seed, None);
    record(&temp, &dir, &TYPICAL.replace(BIND, ""));
    let (code, error) = fails(&dir, &["payload", "node1", "--single-boot"]);
    assert_eq!(code, 1);
    assert_eq!(
        error,
        "imprint-host: a single-boot payload must name its machine; add bind = { uuid = … } to the record of node1\n"
    );
    let file = temp.path().join("bound.toml");
    std::fs::write(&file, TYPICAL.replace(BIND, "bind = { serial = \"7\" }\n")).unwrap();
    fine(&dir, &["node", "add", "--replace", file.to_str().unwrap()]);
    let payload = read(&["--single-boot", "--expires", "30m"]);
    assert!(payload.seed.unwrap().single_boot);
    assert_eq!(payload.binding.unwrap().serial.as_deref(), Some("7"));
    assert_eq!(payload.expiry.as_secs() - payload.composed.as_secs(), 1800);
}

#[test]
fn a_word_for_the_command_line_is_one_that_the_agent_reads() {
    let (_temp, dir) = site();
    let line = String::from_utf8(fine(&dir, &["payload", "node1", "--as", "cmdline"])).unwrap();
    assert!(line.starts_with("imprint.payload=") && line.ends_with('\n') && line.lines().count() == 1, "{line}");
    println!("typical word: {} characters", line.trim_end().len());
    assert!(line.len() <= 960, "{}", line.len());
    let options = imprint::options::Options::parse(&format!("quiet {line}")).unwrap();
    let found = imprint::source::cmdline::find(&options.payload.unwrap()).unwrap();
    let payload = imprint::source::decode(&found, None, None).unwrap().0;
    assert_eq!((payload.hostname.unwrap().as_str(), payload.seed), ("node1", None));
}

#[test]
fn what_may_not_stand_on_a_command_line_is_refused_before_it_voids_anything() {
    let (temp, dir) = site();
    let stateless = TYPICAL.replace("[[network]]", "enrol = \"each-boot\"\n[[network]]");
    record(&temp, &dir, &stateless);
    let (code, error) = fails(&dir, &["payload", "node1", "--as", "cmdline"]);
    assert_eq!(code, 1);
    assert_eq!(
        error,
        "imprint-host: the payload on the kernel command line, which everybody on the node can read, holds an each-boot \
         token; bring it in the initramfs or on a config drive (imprint-host payload NODE --as cpio or --as iso)\n"
    );
    let domains: Vec<String> = (0..25).map(|i| format!("\"d{i:02}.{}.example.org\"", "x".repeat(40))).collect();
    let long = |domains: &[String]| format!("{TYPICAL}search = [{}]\n", domains.join(", "));
    record(&temp, &dir, &long(&domains));
    let (code, error) = fails(&dir, &["payload", "node1", "--as", "cmdline"]);
    assert_eq!(code, 1);
    let words = "characters, and a kernel command line has 2047 in all; make the record shorter, or bring it in the \
                 initramfs or on a config drive (--as cpio or --as iso)\n";
    assert!(error.starts_with("imprint-host: a payload of ") && error.ends_with(words), "{error}");
    for form in ["cmdline", "cpio"] {
        let (code, error) = fails(&dir, &["payload", "node1", "--as", form, "--single-boot"]);
        assert_eq!(code, 1);
        assert!(error.contains("--single-boot"), "{error}");
    }
    assert_eq!(payloads_made(&dir), 0);
    // This payload fits, and leaves little room for other words.
    record(&temp, &dir, &long(&domains[..14]));
    let output = host(&dir, &["payload", "node1", "--as", "cmdline"]);
    let (word, warning) = (output.stdout.len() - 1, String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{warning}");
    let want = format!(
        "imprint-host: warning: it takes {word} of the 2047 bytes of a kernel command line, which leaves {} for all \
         other words; --as cpio and --as iso have no such limit\n",
        2047 - word
    );
    assert_eq!(warning, want);
    assert_eq!(payloads_made(&dir), 1);
}

/// The metadata service of a cloud gives user data to every process of the instance.
#[test]
fn what_may_not_stand_in_user_data_is_refused_before_it_voids_anything() {
    let (temp, dir) = site();
    let clouds = "in user data or vendor data, which the metadata service of a cloud gives to everybody on the node,";
    let firmware = "in an EFI variable, which everybody on the node can read,";
    let refused = |words: &[&str], item: &str| {
        for (form, place) in [("user-data", clouds), ("multipart", clouds), ("efivar", firmware)] {
            let (code, error) = fails(&dir, &[&["payload", "node1", "--as", form, "-o", "/dev/null"], words].concat());
            let want = format!(
                "imprint-host: the payload {place} holds {item}; bring it in the initramfs or on a config drive (imprint-host \
                 payload NODE --as cpio or --as iso)\n"
            );
            assert_eq!((code, error), (1, want));
        }
    };
    refused(&["--credentials"], "a private key");
    record(&temp, &dir, &TYPICAL.replace("[[network]]", "enrol = \"each-boot\"\n[[network]]"));
    refused(&[], "an each-boot token");
    assert_eq!(payloads_made(&dir), 0);
    // Only root of the node can read the other media.
    let file = temp.path().join("payload");
    for form in ["cpio", "iso", "vfat", "gpt", "credential", "smbios", "qemu"] {
        for more in [&[][..], &["--credentials"]] {
            let words = ["payload", "node1", "--as", form, "-o", file.to_str().unwrap()];
            fine(&dir, &[&words, more].concat());
            assert_eq!(mode(&file), 0o600, "{form}");
        }
    }
}

/// A node credits a seed from media with `credits_seed` in their row, and from a line.
#[test]
fn a_medium_that_credits_no_seed_is_not_declared_single_boot() {
    let (temp, dir) = site();
    record(&temp, &dir, TYPICAL);
    let file = temp.path().join("payload");
    for (form, medium) in [
        ("text", "text"),
        ("cmdline", "cmdline"),
        ("cpio", "initramfs"),
        ("gpt", "partition"),
        ("credential", "credential"),
        ("smbios", "smbios"),
        ("qemu", "fw_cfg"),
        ("efivar", "efivar"),
        ("user-data", "user-data"),
        ("multipart", "user-data"),
    ] {
        let words = ["payload", "node1", "--as", form, "--single-boot", "-o", file.to_str().unwrap()];
        let want = format!(
            "imprint-host: no node credits a seed from {medium}, so --single-boot has no effect there; leave it out, or \
             write a config drive (--as iso)\n"
        );
        assert_eq!(fails(&dir, &words), (1, want), "{form}");
        assert!(!file.exists());
    }
    assert_eq!(payloads_made(&dir), 0);
}

/// Everybody can read the arguments of QEMU, so the argument names a file.
#[test]
fn qemu_is_told_of_a_file() {
    let (temp, dir) = site();
    let words = |path: &Path| ["payload", "node1", "--as", "qemu", "-o", path.to_str().unwrap()].map(str::to_owned);
    let fails_for = |path: &Path| fails(&dir, &words(path).each_ref().map(String::as_str));
    let want = "imprint-host: --as qemu writes the payload to a file and prints an argument that names the file, because \
                every user of this machine can read QEMU's arguments; give -o FILE\n";
    assert_eq!(fails(&dir, &["payload", "node1", "--as", "qemu"]), (1, want.to_owned()));
    let fifo = temp.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Opening a FIFO waits for its reader.
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    for path in [Path::new("/dev/null"), &fifo] {
        let want = format!(
            "imprint-host: {} is not a file, and QEMU reads the payload from one; give -o FILE\n",
            path.display()
        );
        assert_eq!(fails_for(path), (1, want));
    }
    drop(reader);
    let odd = temp.path().join("a\tb");
    let (code, error) = fails_for(&odd);
    assert_eq!(code, 1);
    let want = " has characters that cannot be copied from a terminal into QEMU's arguments; give -o another name\n";
    assert!(error.ends_with(want) && !odd.exists(), "{error}");
    assert_eq!(payloads_made(&dir), 0);

    let name = |path: &Path| format!("name=opt/io.systemd.credentials/imprint.payload,file={}", path.display());
    let plain = temp.path().join("node1.cbor");
    let said = fine(&dir, &words(&plain).each_ref().map(String::as_str));
    assert_eq!(String::from_utf8(said).unwrap(), format!("-fw_cfg {}\n", name(&plain)));
    assert_eq!(mode(&plain), 0o600);
    Payload::unwrapped(&std::fs::read(&plain).unwrap()).unwrap();
    // A relative path is made an absolute one, and a comma is doubled.
    let mut program = Command::new(env!("CARGO_BIN_EXE_imprint-host"));
    program.current_dir(temp.path()).arg("--dir").arg(&dir).args(["--json", "payload", "node1", "--as", "qemu"]);
    let output = program.args(["-o", "a, b"]).output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["qemu"], serde_json::json!(["-fw_cfg", name(&temp.path().join("a,, b"))]));
    assert_eq!((&said["file"], payloads_made(&dir)), (&"a, b".into(), 2));
    let said: serde_json::Value =
        serde_json::from_slice(&fine(&dir, &["--json", "payload", "node1", "-o", plain.to_str().unwrap()])).unwrap();
    assert!(!said.as_object().unwrap().contains_key("qemu"), "{said}");
}

#[test]
fn a_text_that_its_medium_may_not_take_comes_with_a_warning() {
    let warned = |(temp, dir): &(tempfile::TempDir, std::path::PathBuf), form: &str| {
        let file = temp.path().join("payload");
        let output = host(dir, &["payload", "node1", "--as", form, "-o", file.to_str().unwrap()]);
        assert!(output.status.success());
        (std::fs::metadata(&file).unwrap().len(), String::from_utf8(output.stderr).unwrap())
    };
    let small = site();
    for form in ["smbios", "user-data", "multipart"] {
        assert_eq!(warned(&small, form).1, "", "{form}");
    }
    let large = site();
    let names: Vec<String> = (0..800).map(|i| format!("\"dns:d{i:03}.{}.example.org\"", "x".repeat(40))).collect();
    record(&large.0, &large.1, &TYPICAL.replace("[\"dns:node1.example.org\"]", &format!("[{}]", names.join(", "))));
    let (bytes, said) = warned(&large, "smbios");
    let want = format!(
        "imprint-host: warning: it takes {bytes} of the 65535 bytes that all SMBIOS structures of a machine have together, \
         unless their entry point is that of SMBIOS 3 (QEMU: -machine smbios-entry-point-type=64); --as qemu has no such \
         limit\n"
    );
    assert_eq!(said, want);
    for form in ["user-data", "multipart"] {
        let (bytes, said) = warned(&large, form);
        let want = format!(
            "imprint-host: warning: it has {bytes} bytes, and OpenStack takes 49149 bytes of user data, other clouds fewer; \
             --as iso has no such limit\n"
        );
        assert_eq!(said, want);
    }
}

#[test]
fn an_archive_for_the_initramfs_holds_the_payload_with_a_seed() {
    let (temp, dir) = site();
    let path = temp.path().join("node1.cpio");
    fine(&dir, &["payload", "node1", "--as", "cpio", "-o", path.to_str().unwrap()]);
    assert_eq!(mode(&path), 0o600);
    let root = temp.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let unpacked = Command::new("cpio")
        .args(["-id", "--quiet", "--no-preserve-owner"])
        .current_dir(&root)
        .stdin(std::fs::File::open(&path).unwrap())
        .status();
    assert!(unpacked.expect("cpio is missing: apt-get install cpio").success());
    let found = imprint::source::file::initramfs(&root).unwrap();
    let seed = imprint::source::decode(&found, None, None).unwrap().0.seed.unwrap();
    assert_eq!((seed.bytes.expose().len(), seed.single_boot), (32, false));
    // Stateless nodes get theirs this way.
    record(&temp, &dir, &TYPICAL.replace("[[network]]", "enrol = \"each-boot\"\n[[network]]"));
    fine(&dir, &["payload", "node1", "--as", "cpio", "-o", path.to_str().unwrap()]);
}

#[test]
fn each_payload_is_fresh() {
    let (_temp, dir) = site();
    let [a, b] = [(); 2].map(|()| fine(&dir, &["payload", "node1", "--seed"]));
    let (a, b) = (Payload::unwrapped(&a).unwrap(), Payload::unwrapped(&b).unwrap());
    assert_ne!(a.id, b.id);
    assert_ne!(a.seed, b.seed);
    assert_ne!(a.enrolment, b.enrolment, "another token");
}
