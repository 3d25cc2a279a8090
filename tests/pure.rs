//! Tests that need other programs (like Python's CBOR and CDDL) or the agent's command line. They need no network and
//! no machine of their own.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail tests by panicking"
)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use imprint::payload::{Enrolment, Payload};
use imprint::time::Timestamp;
use imprint_tests::patience::patiently;
use imprint_tests::ports::Reserved;
use imprint_tests::programs::{self, python};

mod pure {
    mod boots;
    mod bundle;
    mod corpora;
    mod docs;
    mod dracut;
    mod drivers;
    mod drives;
    mod errors;
    mod floors;
    mod install;
    mod line;
    mod media;
    mod network_page;
    mod mkinitcpio;
    mod outside;
    mod pages;
    mod signed;
    mod partitions;
    mod slow;
    mod terminals;
    mod units;
    mod user_data;
    mod values;
    mod volumes;
    mod writers;

    /// (variant of `Error`, stage, exit code), as `Error::stage` in src/error.rs has them.
    fn stages(source: &str) -> Vec<(String, String, u8)> {
        let arm = |line: &str| {
            let (variant, rest) = line.trim().strip_prefix("Error::")?.split_once("(_) => (\"")?;
            let (stage, code) = rest.strip_suffix("),")?.split_once("\", ")?;
            Some((variant.to_owned(), stage.to_owned(), code.parse().ok()?))
        };
        let stages: Vec<_> = source.lines().filter_map(arm).collect();
        assert_eq!(stages.len(), 11, "{stages:?}");
        stages
    }
}

/// The fuzz targets name the macro by this crate (pure/corpora.rs).
extern crate self as libfuzzer_sys;

/// A target as a function, instead of as a program that searches.
#[macro_export]
macro_rules! fuzz_target {
    (|$bytes:ident: &[u8]| $body:block) => {
        pub(crate) fn run($bytes: &[u8]) $body
    };
}

const TYPICAL: &[u8] = include_bytes!("data/payload-typical.cbor");

/// cbor2 writes the frozen payloads byte for byte as imprint does, and pycddl accepts them by docs/payload.cddl.
#[test]
fn payloads_by_an_independent_writer() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/payload_peer.py");
    let output = Command::new(python()).arg(script).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert_eq!(text.lines().filter(|line| line.starts_with("ok: ")).count(), 32, "{text}");
}

/// (exit code, standard output, standard error)
fn agent(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(programs::agent()).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("not killed by a signal"), text(&output.stdout), text(&output.stderr))
}

/// `imprint COMMAND FILE` with these bytes in the file.
fn with_file(command: &str, bytes: &[u8]) -> (i32, String, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    agent(&[command, file.path().to_str().unwrap()])
}

fn changed(change: impl FnOnce(&mut Payload)) -> Vec<u8> {
    let mut payload = Payload::decode(TYPICAL).unwrap();
    change(&mut payload);
    payload.encode().to_vec()
}

#[test]
fn check_shows_a_payload_without_its_secrets() {
    let (code, shown, errors) = with_file("check", TYPICAL);
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(shown.contains("names      CN=node1.example.org dns:node1.example.org\n"), "{shown}");
    let Enrolment::Csr(csr) = Payload::decode(TYPICAL).unwrap().enrolment else { panic!("it enrols with a CSR") };
    assert!(!shown.contains(csr.token.unwrap().secret.expose()), "{shown}");
}

/// Asserts one line of error with this text, which names place and remedy, and the documented exit code.
#[track_caller]
fn refused(result: (i32, String, String), code: i32, words: &str) {
    let (found, output, error) = result;
    assert_eq!(found, code, "{error}");
    assert_eq!(output, "");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains(words), "{error}");
}

#[test]
fn bytes_that_are_no_payload_exit_with_12() {
    for (bytes, words) in [
        (&b""[..], "payload: byte 0: the payload ends here; it was cut short, make or copy it again"),
        (&TYPICAL[..100], "byte 100: the payload ends here"),
        (&[TYPICAL, &[0]].concat(), "1 bytes after the payload; give one payload and nothing else"),
        (&[&TYPICAL[..2], &[0x18, 0x01], &TYPICAL[3..]].concat(), "a number or length is not in its shortest form"),
        (&[&[0xbf], &TYPICAL[1..], &[0xff]].concat(), "indefinite length"),
        (&[&TYPICAL[..1], &TYPICAL[3..21], &TYPICAL[1..3], &TYPICAL[21..]].concat(), "map keys out of order"),
        (&[0x82, 0x00, 0x01], "byte 0: want a map"),
        (&[0xa1, 0x00, 0x02], "byte 2, version: payload version 2, this program reads version 1; update the image"),
        (&[&[TYPICAL[0] + 1], &TYPICAL[1..], &[0x16, 0x00]].concat(), "unknown critical key 22"),
        (b"hello, this is a text file\n", "byte"),
        (
            b"070701000064",
            "not a payload in CBOR: it is a cpio archive; let the boot loader append it to the initramfs, or use the \
             output",
        ),
    ] {
        refused(with_file("check", bytes), 12, words);
        refused(with_file("plan", bytes), 12, words);
    }
}

#[test]
fn ten_thousand_random_byte_strings_are_refused() {
    // xorshift64*, so that a failure can be run again.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    for round in 0..10_000 {
        let length = usize::try_from(next() % 700).unwrap();
        // Every second input begins like a payload, so that it gets further.
        let mut bytes = if round % 2 == 0 { Vec::new() } else { TYPICAL[..length.min(TYPICAL.len())].to_vec() };
        bytes.extend((0..length).map(|_| next().to_le_bytes()[0]));
        let error = Payload::decode(&bytes).unwrap_err();
        assert!(error.offset <= bytes.len() && !error.to_string().is_empty());
        if round % 500 == 0 {
            refused(with_file("check", &bytes), 12, "payload: byte ");
        }
    }
}

#[test]
fn files_that_cannot_be_a_payload_exit_with_11() {
    refused(agent(&["check", "/nowhere/payload"]), 11, "source: reading /nowhere/payload: ");
    refused(with_file("check", &vec![0; 70_000]), 11, "has more than 65536 bytes, the most that a payload can have");
}

/// The accident: a payload in another form (text, ISO, …) is given where the payload itself belongs. Every command names
/// the form and the remedy. The other sources do, too, as they use the same decoder.
#[test]
fn a_payload_in_another_form_is_called_by_its_name() {
    use imprint_host::{compose, cpio, iso, vfat};
    let base64 = |word: &str| word.trim_start_matches("imprint.payload=").to_owned();
    let word = compose::cmdline(TYPICAL).to_string();
    let gzip = [&[0x1f, 0x8b, 8, 0][..], TYPICAL].concat();
    let image = iso::image(TYPICAL, Timestamp::from_secs(0)).unwrap();
    let mut large = image.to_vec();
    large.resize(80_000, 0);
    for (bytes, code, words) in [
        (
            base64(&word).into_bytes(),
            12,
            "a payload in base64; decode it with base64 -d, or use the output of imprint-host payload NODE --as cbor",
        ),
        (word.into_bytes(), 12, "the word for a kernel command line; append it to the kernel command line, or use"),
        (compose::text(TYPICAL).to_vec(), 12, "lines for a terminal; paste them to imprint console, or use"),
        (
            imprint::hex::encode(TYPICAL).into_bytes(),
            12,
            "a payload in hexadecimal digits; decode it with xxd -r -p, or use",
        ),
        (gzip, 12, "a gzip file; unpack it first, or use"),
        (imprint::pem::encode("CERTIFICATE", &[0; 99]).as_bytes().to_vec(), 12, "a PEM file, a certificate or a key;"),
        (
            cpio::archive(TYPICAL).unwrap().to_vec(),
            12,
            "a cpio archive; let the boot loader append it to the initramfs,",
        ),
        (image.to_vec(), 12, "an ISO 9660 image; attach it as an optical drive, or use"),
        (large, 11, "the most that a payload can have; it is an ISO 9660 image; attach it as an optical drive, or use"),
        (
            vfat::image(TYPICAL).unwrap().to_vec(),
            11,
            "it is a FAT image; attach it as a disk, or use the output of imprint-host payload NODE --as cbor",
        ),
        (b"name = \"node1\"\n".to_vec(), 12, "a node's record; give it to imprint-host node add, or use"),
    ] {
        let bytes = bytes.as_slice();
        refused(with_file("check", bytes), code, words);
        refused(with_file("plan", bytes), code, words);
        let work = tempfile::tempdir().unwrap();
        std::fs::write(work.path().join("payload"), bytes).unwrap();
        let (payload, out) = (work.path().join("payload"), work.path().join("out"));
        let enroll = ["enroll", "--payload", payload.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let (found, _, error) = agent(&enroll);
        assert!(found == code && error.contains(words), "{error}");
    }
}

#[test]
fn payloads_that_do_not_fit_this_machine_exit_with_13() {
    let binding = |uuid| Some(imprint::payload::Binding { uuid: Some(uuid), ..Default::default() });
    let elsewhere = changed(|payload| payload.binding = binding([0xee; 16]));
    refused(with_file("plan", &elsewhere), 13, "plan: the payload is for a machine with SMBIOS UUID eeeeeeee-eeee-");
    let old = changed(|payload| {
        payload.composed = Timestamp::from_secs(1_000_000_000);
        payload.expiry = Timestamp::from_secs(1_000_086_400);
    });
    refused(with_file("plan", &old), 13, "never at the same time; make a payload with a current CA");
    let names = changed(|payload| {
        let name = imprint::payload::InterfaceName::try_from("nosuchlink0").unwrap();
        payload.network[0].kind = imprint::payload::LinkKind::Physical(imprint::payload::Match::Name(name));
    });
    refused(with_file("plan", &names), 13, "plan: no network link with name nosuchlink0; this machine has: ");
}

/// The command of systemd/imprint-renew.service.
#[test]
fn a_renewal_without_an_identity_exits_with_19() {
    let unit = include_str!("../systemd/imprint-renew.service");
    let words = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/imprint ")).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let words: Vec<&str> = words.split(' ').chain(["--dir", empty.path().to_str().unwrap()]).collect();
    let (code, _, error) = agent(&words);
    assert_eq!(code, 19, "{error}");
    assert!(
        error.contains(
            "node.json, which imprint run or imprint enroll writes; run one of them first, or name their folder: No \
             such file"
        ),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [&[][..], &["frobnicate"], &["plan"], &["enroll", "--payload", "x"]] {
        let (code, _, error) = agent(arguments);
        assert_eq!(code, 2, "{arguments:?}: {error}");
        assert!(!error.is_empty());
    }
    assert_eq!(agent(&["--help"]).0, 0);
}

#[test]
fn enroll_says_who_was_asked_and_hands_nothing_over() {
    let work = tempfile::tempdir().unwrap();
    let file = work.path().join("payload");
    // No server listens on this port.
    let port = Reserved::new();
    let url = format!("https://{}/.well-known/est", port.address());
    let payload = changed(|payload| {
        let Enrolment::Csr(csr) = &mut payload.enrolment else { panic!("it enrols with a CSR") };
        csr.urls = vec![imprint::payload::EstUrl::try_from(url.as_str()).unwrap()];
    });
    std::fs::write(&file, payload).unwrap();
    let out = work.path().join("out");
    patiently(Duration::from_secs(1), |limit| {
        let (file, out, limit) = (file.to_str().unwrap(), out.to_str().unwrap(), limit.as_secs().to_string());
        let (code, _, error) = agent(&["enroll", "--payload", file, "--out", out, "--timeout", &limit]);
        assert_eq!(code, 18, "{error}");
        if error.contains(&url) && error.contains("refused") { Ok(()) } else { Err(error) }
    });
    let status: imprint::status::Status =
        serde_json::from_str(&std::fs::read_to_string(out.join("status.json")).unwrap()).unwrap();
    assert_eq!((status.exit_code, status.error.unwrap().stage.as_str()), (18, "check-in"));
    for absent in ["cert.pem", "chain.pem", "node.json", "ready", "private/key.pem"] {
        assert!(!out.join(absent).exists(), "{absent}");
    }
}

#[test]
fn a_run_that_fails_leaves_what_an_earlier_one_handed_over() {
    let work = tempfile::tempdir().unwrap();
    let out = work.path().join("id");
    std::fs::create_dir_all(out.join("private")).unwrap();
    let files = ["cert.pem", "chain.pem", "ca.pem", "node.json", "private/key.pem"];
    for file in files {
        std::fs::write(out.join(file), file).unwrap();
    }
    refused(agent(&["enroll", "--payload", "/nowhere", "--out", out.to_str().unwrap()]), 11, "reading /nowhere");
    for file in files {
        assert_eq!(std::fs::read_to_string(out.join(file)).unwrap(), file);
    }
    assert!(!out.join("status.json").exists());
}
