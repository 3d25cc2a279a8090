//! Tests with user data and vendor data as other programs make them, on drives that other programs make.

use std::path::{Path, PathBuf};
use std::process::Command;

use imprint::payload::MAX_LEN;
use imprint::source::SourceError;
use imprint::source::user_data::{Content, user_data};
use imprint_tests::programs;

use super::drives::with_partitions;
use super::volumes::run as tool;

const PAYLOAD: &[u8] = include_bytes!("../data/payload-typical.cbor");
/// cloud-init 22.4.2: cloud-init devel make-mime -f -a config.yaml:cloud-config -a payload.txt:x-imprint-payload. The text has
/// a comment line before the armour.
const MAKE_MIME: &[u8] = include_bytes!("../data/user-data-make-mime.eml");
const CLOUD_CONFIG: &str = "#cloud-config\nusers: []\n";

/// The payload in armour, by Python's base64.
fn armour() -> String {
    python(
        "import base64, sys\nprint('-----BEGIN IMPRINT PAYLOAD-----\\n' + base64.encodebytes(sys.stdin.buffer.read()).decode() \
            + '-----END IMPRINT PAYLOAD-----')",
        PAYLOAD,
    )
}

/// Runs this Python script with these bytes as its input. Returns what it prints.
fn python(script: &str, input: &[u8]) -> String {
    let temp = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(temp.path(), input).unwrap();
    let input = std::fs::File::open(temp.path()).unwrap();
    let output = Command::new("python3").args(["-c", script]).stdin(input).output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn is_payload(bytes: &[u8]) {
    match user_data(bytes) {
        Content::Payload(payload) => assert_eq!(payload.expose(), PAYLOAD),
        other => panic!("{other:?}: {}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn what_cloud_init_makes() {
    is_payload(MAKE_MIME);
}

/// Each transfer encoding, line end and nesting that Python's email module writes; cloud-init uses that module.
#[test]
fn messages_of_python() {
    const SCRIPT: &str = "import sys, email.policy, itertools\n\
        from email.encoders import encode_quopri, encode_base64, encode_7or8bit\n\
        from email.mime.multipart import MIMEMultipart\n\
        from email.mime.nonmultipart import MIMENonMultipart\n\
        from email.mime.text import MIMEText\n\
        text = sys.stdin.read()\n\
        encoders = [encode_quopri, encode_base64, encode_7or8bit]\n\
        for encode, nested, linesep in itertools.product(encoders, [0, 1, 3], ['\\n', '\\r\\n']):\n\
        \x20   part = MIMENonMultipart('text', 'x-imprint-payload', name='a; b\\\"c')\n\
        \x20   part.set_payload(text)\n\
        \x20   encode(part)\n\
        \x20   for level in range(nested):\n\
        \x20       outer = MIMEMultipart('alternative' if level % 2 else 'mixed', 'b' * 60 + str(level))\n\
        \x20       outer.attach(MIMEText('#cloud-config\\nusers: []\\n', 'cloud-config', 'utf-8'))\n\
        \x20       outer.attach(part)\n\
        \x20       outer.attach(MIMEText('#!/bin/sh\\n', 'x-shellscript'))\n\
        \x20       part = outer\n\
        \x20   message = part.as_bytes(policy=email.policy.compat32.clone(linesep=linesep))\n\
        \x20   sys.stdout.buffer.write(message + b'\\0')\n";
    let messages = python(SCRIPT, armour().as_bytes());
    let messages: Vec<&str> = messages.split_terminator('\0').collect();
    assert_eq!(messages.len(), 18);
    for message in messages {
        is_payload(message.as_bytes());
    }
}

/// A drive with these files, made with these options.
fn iso(folder: &Path, label: &str, options: &[&str], files: &[(&str, &[u8])]) -> PathBuf {
    let drive = folder.join("drive");
    if drive.exists() {
        std::fs::remove_dir_all(&drive).unwrap();
    }
    for (path, content) in files {
        let path = drive.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let image = folder.join("image.iso");
    let fixed = ["-quiet", "-V", label, "-o", image.to_str().unwrap()];
    tool("genisoimage", &[&fixed[..], options, &[drive.to_str().unwrap()]].concat());
    image
}

fn look(
    folder: &Path,
    label: &str,
    options: &[&str],
    files: &[(&str, &[u8])],
) -> Result<Result<String, String>, SourceError> {
    let found = with_partitions(&[("sr0", &iso(folder, label, options, files))])?;
    Ok(found.map(|found| {
        assert_eq!(found.bytes.expose(), PAYLOAD);
        found.origin.to_string()
    }))
}

/// The options of Nova and Ironic, of cloud-localds, and of the documents of cloud-init.
const JOLIET_ROCK: [&str; 2] = ["-J", "-R"];

#[test]
fn drives_of_openstack_and_nocloud() {
    let temp = tempfile::tempdir().unwrap();
    let text = armour();
    let vendor = serde_json::json!({ "cloud-init": CLOUD_CONFIG, "imprint": text }).to_string();
    let vendor_bare =
        serde_json::json!({ "imprint": text.lines().filter(|line| !line.starts_with('-')).collect::<String>() });
    let meta = ("openstack/latest/meta_data.json", &b"{}"[..]);
    let user = "openstack/latest/user_data";
    for (label, files, want) in [
        ("config-2", &[meta, (user, text.as_bytes())][..], "user-data sr0 (config-2)"),
        ("CONFIG-2", &[meta, (user, MAKE_MIME)], "user-data sr0 (CONFIG-2)"),
        ("config-2", &[meta, ("openstack/latest/vendor_data.json", vendor.as_bytes())], "vendor-data sr0 (config-2)"),
        // Nova's dynamic vendor data: the name of a target is the key of its answer.
        (
            "config-2",
            &[
                meta,
                ("openstack/latest/vendor_data.json", b"{}"),
                ("openstack/latest/vendor_data2.json", vendor_bare.to_string().as_bytes()),
            ],
            "vendor-data sr0 (config-2)",
        ),
        (
            "config-2",
            &[("openstack/latest/vendor_data.json", vendor_bare.to_string().as_bytes()), (user, b"#cloud-config\n")],
            "vendor-data sr0 (config-2)",
        ),
        ("cidata", &[("meta-data", b""), ("user-data", text.as_bytes())], "user-data sr0 (cidata)"),
        ("cidata", &[("meta-data", b""), ("user-data", MAKE_MIME)], "user-data sr0 (cidata)"),
        (
            "cidata",
            &[("imprint/payload", PAYLOAD), ("user-data", CLOUD_CONFIG.as_bytes())],
            "config-drive sr0 (cidata)",
        ),
    ] {
        assert_eq!(look(temp.path(), label, &JOLIET_ROCK, files).unwrap().unwrap(), want);
    }
    for options in [&["-R"][..], &["-J"], &["-r", "-J", "-l", "-ldots", "-allow-lowercase", "-allow-multidot"]] {
        let files = [(user, text.as_bytes())];
        assert_eq!(look(temp.path(), "config-2", options, &files).unwrap().unwrap(), "user-data sr0 (config-2)");
    }
    // ISO 9660 alone cannot spell the names, so the files are not found: -l gives USER_DATA.;1 in OPENSTACK, and no
    // option gives user-data.
    let files = [("openstack/latest/user_data", text.as_bytes())];
    assert_eq!(look(temp.path(), "config-2", &["-l"], &files).unwrap().unwrap(), "user-data sr0 (config-2)");
    for (label, options, file) in [("config-2", &[][..], user), ("cidata", &["-l"], "user-data")] {
        let looked = look(temp.path(), label, options, &[(file, text.as_bytes())]).unwrap().unwrap_err();
        assert_eq!(looked, format!("sr0: volume \"{label}\" without imprint/payload"));
    }
}

#[test]
fn data_for_somebody_else_is_passed_over_and_named() {
    let temp = tempfile::tempdir().unwrap();
    let long = vec![b'#'; 300 * 1024];
    for (label, path, content, why) in [
        ("cidata", "user-data", CLOUD_CONFIG.as_bytes(), "it is for somebody else"),
        ("cidata", "user-data", b"\x1f\x8b\x08\0", "it is compressed with gzip, which is not read"),
        ("cidata", "user-data", &long, "it has 307200 bytes, and 262144 are read"),
        ("config-2", "openstack/latest/user_data", CLOUD_CONFIG.as_bytes(), "it is for somebody else"),
        ("config-2", "openstack/latest/vendor_data.json", b"{}", "it has no key imprint"),
        (
            "config-2",
            "openstack/latest/vendor_data2.json",
            b"{\"static\": {\"imprint\": \"oA==\"}}",
            "it has no key imprint",
        ),
    ] {
        let looked = look(temp.path(), label, &JOLIET_ROCK, &[(path, content)]).unwrap().unwrap_err();
        assert_eq!(looked, format!("sr0: volume \"{label}\" without imprint/payload, and not in {path}: {why}"));
    }
    // Only we use the label IMPRINT, so such a volume has to have imprint/payload. Its other files are not ours.
    let error = look(temp.path(), "IMPRINT", &JOLIET_ROCK, &[("user-data", armour().as_bytes())]).unwrap_err();
    assert!(matches!(error, SourceError::NoFile { .. }), "{error}");
}

#[test]
fn a_payload_in_user_data_that_is_damaged_stops_the_boot() {
    let temp = tempfile::tempdir().unwrap();
    let cut = &armour()[..300];
    for (label, path) in [("cidata", "user-data"), ("config-2", "openstack/latest/user_data")] {
        let error = look(temp.path(), label, &JOLIET_ROCK, &[(path, cut.as_bytes())]).unwrap_err();
        assert_eq!(
            imprint::chain::chain(&error),
            format!(
                "volume \"{label}\" on sr0: its file {path}: its payload has no line -----END IMPRINT PAYLOAD-----; it was cut short"
            )
        );
    }
}

/// One volume, two places.
#[test]
fn two_places_on_one_volume_have_to_agree() {
    let temp = tempfile::tempdir().unwrap();
    let text = armour();
    let same = [("imprint/payload", PAYLOAD), ("openstack/latest/user_data", text.as_bytes())];
    // Everybody can read the user data, so its rules hold.
    assert_eq!(look(temp.path(), "config-2", &JOLIET_ROCK, &same).unwrap().unwrap(), "user-data sr0 (config-2)");
    let differ = [("imprint/payload", &PAYLOAD[1..]), ("openstack/latest/user_data", text.as_bytes())];
    let error = look(temp.path(), "config-2", &JOLIET_ROCK, &differ).unwrap_err();
    assert_eq!(
        error.to_string(),
        "two different payloads: one from config-drive sr0 (config-2), one from user-data sr0 (config-2); remove one"
    );
    let vendor = serde_json::json!({ "imprint": "oA==" }).to_string();
    let differ =
        [("openstack/latest/vendor_data.json", vendor.as_bytes()), ("openstack/latest/user_data", text.as_bytes())];
    let error = look(temp.path(), "config-2", &JOLIET_ROCK, &differ).unwrap_err();
    assert_eq!(
        error.to_string(),
        "two different payloads: one from user-data sr0 (config-2), one from vendor-data sr0 (config-2); remove one"
    );
}

/// The longest payload, in base64 twice.
#[test]
fn the_longest_payload_fits() {
    let temp = tempfile::tempdir().unwrap();
    let longest = vec![0xa5; MAX_LEN];
    let script = "import base64, sys\nfrom email.mime.text import MIMEText\n\
        text = '-----BEGIN IMPRINT PAYLOAD-----\\n' + base64.encodebytes(sys.stdin.buffer.read()).decode() + '-----END IMPRINT PAYLOAD-----'\n\
        print(MIMEText(text, 'x-imprint-payload', 'utf-8'))";
    let message = python(script, &longest);
    let image = iso(temp.path(), "cidata", &JOLIET_ROCK, &[("user-data", message.as_bytes())]);
    let found = with_partitions(&[("sr0", &image)]).unwrap().unwrap();
    assert!(found.bytes.expose() == longest);
}

/// The accident: a person runs `imprint read-drive`, which is for the agent only.
#[test]
fn a_reader_that_is_asked_for_neither_disk_nor_partitions_refuses() {
    let output =
        Command::new(programs::agent()).args([imprint::source::reader::WORD, "/dev/null", "other"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
}
