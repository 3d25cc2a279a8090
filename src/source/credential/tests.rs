use std::fs;

use base64ct::{Base64, Encoding};

use super::*;
use crate::options::Options;
use crate::site::SitePin;

const TYPICAL: &[u8] = include_bytes!("../../../tests/data/payload-typical.cbor");
const OTHER: &[u8] = include_bytes!("../../../tests/data/payload-full.cbor");

/// A root of a test, and the unit's folder in it.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Root {
        Root(tempfile::tempdir().unwrap())
    }

    fn put(&self, path: &str, content: &[u8]) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// An SMBIOS table with these strings.
    fn strings(&self, strings: &[&[u8]]) {
        self.put(TABLE, &oem(strings));
    }

    fn find(&self, cmdline: &str) -> Result<Option<Found>, SourceError> {
        let words = Options::parse(cmdline).unwrap().credentials;
        find(self.0.path(), Some(&self.0.path().join("unit")), &words)
    }

    fn medium(&self, cmdline: &str) -> Option<(Medium, Vec<u8>)> {
        let found = self.find(cmdline).unwrap()?;
        let Origin::Medium { medium, .. } = found.origin else { panic!("{}", found.origin) };
        Some((medium, found.bytes.expose().to_vec()))
    }

    fn refused(&self, cmdline: &str) -> String {
        let error = self.find(cmdline).unwrap_err();
        // The root of the test is not that of a node.
        crate::chain::chain(&error).replace(&format!("{}/", self.0.path().display()), "/")
    }
}

/// A table with a foreign structure and these strings of type 11.
fn oem(strings: &[&[u8]]) -> Vec<u8> {
    let mut table = b"\x01\x1b\0\0".to_vec();
    table.extend([0; 23]);
    table.extend(b"QEMU\0\0");
    table.extend(b"\x0b\x05\x01\0\x01");
    for string in strings {
        table.extend(*string);
        table.push(0);
    }
    table.extend(b"\0\x7f\x04\0\0\0\0");
    table
}

fn text(prefix: &str, payload: &[u8]) -> String {
    format!("{prefix}{}", Base64::encode_string(payload))
}

const WORD: &str = "systemd.set_credential_binary=imprint.payload:";
const STRING: &str = "io.systemd.credential.binary:imprint.payload=";
const FW_CFG: &str = "sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials/imprint.payload/raw";
const SYSTEM: &str = "run/credentials/@system/imprint.payload";
const BOOT: &str = ".extra/credentials/imprint.payload.cred";

#[test]
fn a_payload_is_found_wherever_systemd_takes_credentials_from() {
    assert!(Root::new().find("quiet").unwrap().is_none());
    for (medium, path) in [
        (Medium::UnitCredential, "unit/imprint.payload"),
        (Medium::SystemCredential, SYSTEM),
        (Medium::BootCredential, BOOT),
        (Medium::BootCredential, ".extra/global_credentials/imprint.payload.cred"),
        (Medium::FwCfg, FW_CFG),
    ] {
        for content in [TYPICAL, text("", TYPICAL).as_bytes()] {
            let root = Root::new();
            root.put(path, content);
            assert_eq!(root.medium(""), Some((medium, TYPICAL.to_vec())), "{path}");
        }
    }
    for string in [text(STRING, TYPICAL), text("io.systemd.credential:imprint.payload=", TYPICAL)] {
        let root = Root::new();
        root.strings(&[string.as_bytes()]);
        assert_eq!(root.medium(""), Some((Medium::Smbios, TYPICAL.to_vec())), "{string}");
    }
    // QEMU takes the string from a file, which may end with a line break.
    let root = Root::new();
    root.strings(&[format!("{}\n", text(STRING, TYPICAL)).as_bytes()]);
    assert_eq!(root.medium(""), Some((Medium::Smbios, TYPICAL.to_vec())));
    for word in [text(WORD, TYPICAL), text("systemd.set_credential=imprint.payload:", TYPICAL)] {
        assert_eq!(Root::new().medium(&word), Some((Medium::CmdlineCredential, TYPICAL.to_vec())), "{word}");
    }
    // The text may be encoded once more: systemd would write the text into a file, which is read in the same way.
    let twice = text(WORD, text("", TYPICAL).as_bytes());
    assert_eq!(Root::new().medium(&twice), Some((Medium::CmdlineCredential, TYPICAL.to_vec())));
}

/// The attack: the hypervisor offers megabytes under our name. The kernel reads the device anew for each 4096 bytes, so
/// even what is read before the limit takes seconds.
#[test]
fn a_file_of_fw_cfg_that_is_too_long_is_not_read() {
    let size = FW_CFG.replace("/raw", "/size");
    let root = Root::new();
    // What the limit would let pass if it were read.
    root.put(FW_CFG, TYPICAL);
    for (length, is_read) in
        [("574\n", true), ("98304\n", true), ("98305\n", false), ("4294967295\n", false), ("", true)]
    {
        root.put(&size, length.as_bytes());
        match root.find("") {
            Ok(found) => assert!(is_read && found.unwrap().bytes.expose() == TYPICAL, "{length}"),
            Err(error) => {
                let want = "credential imprint.payload (fw_cfg): it has more than 65536 bytes, the most that a payload can have; give \
                            the payload itself";
                assert_eq!((crate::chain::chain(&error).as_str(), is_read), (want, false), "{length}");
            }
        }
    }
}

/// Firmware has many strings, and systemd has other credentials.
#[test]
fn what_belongs_to_others_is_passed_over() {
    let foreign: Vec<String> = (0..200).map(|n| format!("io.systemd.credential:other.{n}={}", "x".repeat(n))).collect();
    let mut strings: Vec<&[u8]> = foreign.iter().map(String::as_bytes).collect();
    let odd: [&[u8]; 5] = [
        b"io.systemd.credential:imprint.payloads=x",
        b"io.systemd.credentials:imprint.payload=x",
        b"io.systemd.credential.text:imprint.payload=x",
        b"imprint.payload=x",
        b"io.systemd.credential:imprint.payload",
    ];
    strings.extend(odd);
    let root = Root::new();
    root.strings(&strings);
    root.put("run/credentials/@system/imprint", b"x");
    root.put(".extra/credentials/imprint.payload", b"x");
    root.put("sys/firmware/qemu_fw_cfg/by_name/opt/imprint.payload/raw", b"x");
    assert!(root.find("systemd.set_credential=other:x").unwrap().is_none());
    let ours = text(STRING, TYPICAL);
    strings.push(ours.as_bytes());
    root.strings(&strings);
    assert_eq!(root.medium(""), Some((Medium::Smbios, TYPICAL.to_vec())));
    // A megabyte of strings in several structures.
    let long = vec![b'x'; 1 << 20];
    let mut table = oem(&[&long]);
    table.truncate(table.len() - 6);
    table.extend(&oem(&[ours.as_bytes()])[27 + 6..]);
    root.put(TABLE, &table);
    assert_eq!(root.medium(""), Some((Medium::Smbios, TYPICAL.to_vec())));
}

/// systemd imports what it finds, so a payload is usually there twice. The place that most processes can read counts.
#[test]
fn the_same_payload_in_several_places_is_one() {
    let root = Root::new();
    root.strings(&[text(STRING, TYPICAL).as_bytes()]);
    root.put(SYSTEM, TYPICAL);
    assert_eq!(root.medium("").unwrap().0, Medium::SystemCredential);
    assert_eq!(root.medium(&text(WORD, TYPICAL)).unwrap().0, Medium::CmdlineCredential);
    root.put("unit/imprint.payload", text("", TYPICAL).as_bytes());
    assert_eq!(root.medium("").unwrap().0, Medium::UnitCredential);
    assert_eq!(root.medium(&text(WORD, TYPICAL)).unwrap().0, Medium::CmdlineCredential);
}

/// systemd would silently take the first of them.
#[test]
fn different_payloads_stop_the_boot_and_both_are_named() {
    let root = Root::new();
    root.strings(&[text(STRING, TYPICAL).as_bytes(), text(STRING, OTHER).as_bytes()]);
    assert_eq!(
        root.refused(""),
        "two different payloads: one from smbios string 1 of type 11, one from smbios string 2 of type 11; remove one"
    );
    root.strings(&[text(STRING, TYPICAL).as_bytes()]);
    assert_eq!(
        root.refused(&text(WORD, OTHER)),
        "two different payloads: one from smbios string 1 of type 11, one from cmdline-credential word 1; remove one"
    );
    let error = Root::new().refused(&format!("quiet {} {}", text(WORD, TYPICAL), text(WORD, OTHER)));
    assert_eq!(
        error,
        "two different payloads: one from cmdline-credential word 1, one from cmdline-credential word 2; remove one"
    );
    // The number is that among all strings, as dmidecode shows them.
    root.strings(&[b"Dell System", text(STRING, TYPICAL).as_bytes(), b"other", text(STRING, OTHER).as_bytes()]);
    let error = root.refused("");
    assert!(error.contains("smbios string 2 of type 11, one from smbios string 4 of type 11;"), "{error}");
    root.strings(&[text(STRING, TYPICAL).as_bytes()]);
    root.put(SYSTEM, OTHER);
    let error = root.refused("");
    assert!(
        error.contains("one from credential ") && error.ends_with("one from smbios string 1 of type 11; remove one"),
        "{error}"
    );
}

#[test]
fn what_is_broken_stops_the_boot_and_is_named() {
    let refused = |path: &str, content: &[u8]| {
        let root = Root::new();
        root.put(path, content);
        root.refused("")
    };
    let cut = text("", TYPICAL);
    assert_eq!(
        refused(FW_CFG, &cut.as_bytes()[..41]),
        "credential imprint.payload (fw_cfg): its base64 ends within a byte, so some of it is missing; copy the whole text"
    );
    assert_eq!(
        refused(SYSTEM, &[cut.as_bytes(), b"\0"].concat()),
        format!(
            "credential imprint.payload (credential /{SYSTEM}): byte {} is a NUL, which text must not contain; give the \
             payload in base64",
            cut.len() + 1
        )
    );
    assert_eq!(
        refused(SYSTEM, b""),
        format!("credential imprint.payload (credential /{SYSTEM}): it is empty; give the payload in base64")
    );
    assert!(refused(SYSTEM, &vec![b'A'; MAX_TEXT + 1]).contains("has more than 65536 bytes"));
    let root = Root::new();
    // Some firmware cuts long strings.
    root.strings(&[&text(STRING, TYPICAL).as_bytes()[..STRING.len() + 41]]);
    assert_eq!(
        root.refused(""),
        "credential imprint.payload (smbios string 1 of type 11): its base64 ends within a byte, so some of it is missing; copy the whole text"
    );
    root.strings(&[&[STRING.as_bytes(), b"rwAB*"].concat()]);
    assert_eq!(
        root.refused(""),
        "credential imprint.payload (smbios string 1 of type 11): character 5 is not base64; copy the text again"
    );
    root.strings(&[&[STRING.as_bytes(), &vec![b'A'; 1 << 20]].concat()]);
    assert_eq!(
        root.refused(""),
        "credential imprint.payload (smbios string 1 of type 11): it has more than 65536 bytes, the most that a payload can have; give the \
         payload itself"
    );
    assert_eq!(
        Root::new().refused("systemd.set_credential=imprint.payload:"),
        "credential imprint.payload (cmdline-credential word 1): it is empty; give the payload in base64"
    );
    // A folder, a FIFO or /dev/zero would block, or never end.
    let root = Root::new();
    fs::create_dir_all(root.0.path().join(SYSTEM)).unwrap();
    assert_eq!(root.refused(""), format!("reading /{SYSTEM}: it is not a regular file"));
    let root = Root::new();
    root.put("sys/firmware/dmi/tables/DMI/x", b"");
    assert!(root.refused("").starts_with("reading /sys/firmware/dmi/tables/DMI: "), "broken is not absent");
}

/// The payload is at the end of a full command line, in base64 that ends too early in any way.
#[test]
fn a_command_line_that_was_cut_short_is_said_to_be_one() {
    let word = text(WORD, TYPICAL);
    let word = word.trim_end_matches('=');
    for missing in 1..=4 {
        let mut line = format!("{} {word}", "x".repeat(crate::options::CMDLINE_MAX - 1 - word.len() + missing));
        line.truncate(crate::options::CMDLINE_MAX);
        match Root::new().find(&line) {
            Ok(Some(found)) => assert!(found.cut, "the decoder finds that the end is missing"),
            Err(SourceError::CmdlineCut) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// systemd-stub puts what is on the EFI system partition into the initramfs, as it is there: usually encrypted. Only systemd
/// can decrypt it, for a unit.
#[test]
fn an_encrypted_credential_counts_once_systemd_has_decrypted_it() {
    // The id of systemd 252 for a key that is in no TPM and on no disk.
    let encrypted =
        text("", &[b"\x05\x84\x69\xda\xf6\xf5\x43\x24\x80\x05\x49\xda\x0f\x8e\xa2\xfb", &[9; 60][..]].concat());
    let root = Root::new();
    root.put(BOOT, encrypted.as_bytes());
    let error = root.refused("");
    assert!(
        error.starts_with(&format!(
            "credential imprint.payload (credential /{BOOT}): its base64 does not contain a payload;"
        )) && error.contains("LoadCredentialEncrypted=imprint.payload"),
        "{error}"
    );
    root.put("unit/imprint.payload", TYPICAL);
    assert_eq!(root.medium(""), Some((Medium::UnitCredential, TYPICAL.to_vec())));
    // Only systemd-stub brings the encrypted form. Elsewhere the same bytes are a payload that is broken.
    for (path, place) in [(SYSTEM, format!("credential /{SYSTEM}")), (FW_CFG, "fw_cfg".to_owned())] {
        let root = Root::new();
        root.put("unit/imprint.payload", TYPICAL);
        root.put(path, encrypted.as_bytes());
        let error = root.refused("");
        assert!(
            error.starts_with(&format!("credential imprint.payload ({place}): its base64 does not contain a payload")),
            "{error}"
        );
    }
    // A credential that is not encrypted still has to agree.
    root.put(BOOT, OTHER);
    assert!(matches!(root.find(""), Err(SourceError::Differ { .. })));
}

/// The pin of an image with two CAs and one signer, and what a credential leaves of it.
#[test]
fn a_site_pin_from_elsewhere_can_only_narrow_that_of_the_image() {
    let (one, two, foreign) = ("1".repeat(64), "2".repeat(64), "f".repeat(64));
    let signers = include_str!("../../../tests/data/site-signers");
    let image = SitePin::parse(format!("{one}\n{two}\n{}\n", signers.lines().next().unwrap()).as_bytes()).unwrap();
    let narrowed = |root: &Root, cmdline: &str, image: Option<&SitePin>| {
        let words = Options::parse(cmdline).unwrap().credentials;
        pin::narrow(image.cloned(), root.0.path(), None, &words)
    };
    // systemd imports what the firmware has, so it is there twice.
    let root = Root::new();
    root.put("run/credentials/@system/imprint.site", one.as_bytes());
    root.strings(&[format!("io.systemd.credential:imprint.site={one}").as_bytes()]);
    let (left, notes) = narrowed(&root, "", Some(&image)).unwrap();
    assert_eq!(left, Some(SitePin { cas: vec![[0x11; 32]], signers: image.signers.clone(), ..SitePin::default() }));
    assert!(notes.is_empty(), "{notes:?}");

    // CAs and signers that the image does not list do not count.
    let root = Root::new();
    let text = Base64::encode_string(format!("{foreign}\n{two} # ours\n").as_bytes());
    let word = format!("systemd.set_credential_binary=imprint.site:{text}");
    let (left, notes) = narrowed(&root, &word, Some(&image)).unwrap();
    assert_eq!(left.unwrap().cas, [[0x22; 32]]);
    assert_eq!(
        notes,
        [
            "credential imprint.site (cmdline-credential word 1): 1 of its lines is not in /imprint/site in this image and is ignored"
        ]
    );

    // Two credentials with nothing in common leave nothing of a pin that has both.
    root.strings(&[format!("io.systemd.credential:imprint.site={one}").as_bytes()]);
    let error = crate::chain::chain(&narrowed(&root, &word, Some(&image)).unwrap_err());
    assert!(error.starts_with(
        "credential imprint.site (cmdline-credential word 1): none of its CAs or none of its signers is in "
    ));
    root.strings(&[format!("io.systemd.credential:imprint.site={foreign}").as_bytes()]);
    let error = crate::chain::chain(&narrowed(&root, "", Some(&image)).unwrap_err());
    assert!(
        error.starts_with(
            "credential imprint.site (smbios string 1 of type 11): none of its CAs or none of its signers is in "
        ),
        "{error}"
    );

    // In an image without a pin the credential is ignored, even if it is broken: whoever brings a payload could bring a
    // pin as well.
    for text in [one.as_str(), "nonsense"] {
        root.strings(&[format!("io.systemd.credential:imprint.site={text}").as_bytes()]);
        let (left, notes) = narrowed(&root, "", None).unwrap();
        assert_eq!(left, None);
        assert_eq!(
            notes,
            [
                "credential imprint.site (smbios string 1 of type 11) is ignored: it can only narrow the site pin of an image, and this image has none"
            ]
        );
    }
    let error = crate::chain::chain(&narrowed(&root, "", Some(&image)).unwrap_err());
    assert_eq!(
        error,
        "credential imprint.site (smbios string 1 of type 11): line 1 does not name a CA or a signer; copy lines from /imprint/site in this image"
    );
    for (string, want) in [
        (&b"io.systemd.credential.binary:imprint.site=!"[..], "character 1 is not base64; copy the text again"),
        (
            b"io.systemd.credential:imprint.site=",
            "it names no CA and no signer; copy lines from /imprint/site in this image",
        ),
    ] {
        root.strings(&[string]);
        let error = crate::chain::chain(&narrowed(&root, "", Some(&image)).unwrap_err());
        assert_eq!(error, format!("credential imprint.site (smbios string 1 of type 11): {want}"));
    }
    assert_eq!(narrowed(&Root::new(), "", Some(&image)).unwrap(), (Some(image), Vec::new()));
}

/// Without a pin in the image the credential stopped the boot if it was long or no file, though it does not count. With a
/// pin the errors spoke of a payload.
#[test]
fn a_site_pin_that_cannot_be_read() {
    let image = SitePin { cas: vec![[0x11; 32]], ..SitePin::default() };
    let narrowed = |root: &Root, image: Option<&SitePin>| pin::narrow(image.cloned(), root.0.path(), None, &[]);
    let place = "run/credentials/@system/imprint.site";
    let refused = |root: &Root| {
        let error = crate::chain::chain(&narrowed(root, Some(&image)).unwrap_err());
        error.replace(&format!("{}/", root.0.path().display()), "/")
    };
    let too_long =
        "it has more than 98304 bytes, the most that a site pin can have; copy lines from /imprint/site in this image";

    let long = Root::new();
    long.put(place, &vec![b'1'; 200 << 10]);
    let folder = Root::new();
    folder.put(&format!("{place}/x"), b"");
    for root in [&long, &folder] {
        let (left, notes) = narrowed(root, None).unwrap();
        assert_eq!((left, notes.len()), (None, 1));
        assert!(notes[0].contains("/imprint.site) is ignored: it can only narrow the site pin"), "{notes:?}");
    }
    assert_eq!(refused(&long), format!("credential imprint.site (credential /{place}): {too_long}"));
    assert_eq!(refused(&folder), format!("reading /{place}: it is not a regular file"));

    for prefix in ["io.systemd.credential:imprint.site=", "io.systemd.credential.binary:imprint.site="] {
        let strings = Root::new();
        strings.strings(&[&[prefix.as_bytes(), &vec![b'1'; 400 << 10]].concat()]);
        assert_eq!(narrowed(&strings, None).unwrap().1.len(), 1);
        assert_eq!(refused(&strings), format!("credential imprint.site (smbios string 1 of type 11): {too_long}"));
    }

    // A table that cannot be read says nothing of a credential, and the search for the payload names it.
    let table = Root::new();
    table.put(&format!("{TABLE}/x"), b"");
    assert_eq!(narrowed(&table, None).unwrap(), (None, Vec::new()));
    assert!(refused(&table).starts_with(&format!("reading /{TABLE}: ")));
}

#[test]
fn a_table_that_is_broken_is_said_to_be_so() {
    let root = Root::new();
    assert_eq!(fault(root.0.path()), None);
    root.strings(&[b"x"]);
    assert_eq!(fault(root.0.path()), None);
    let mut broken = oem(&[b"x"]);
    let at = broken.len() - 6;
    broken.truncate(at);
    broken.extend(b"\x0b\x03\0\0\0\0");
    root.put(TABLE, &broken);
    let want = format!("SMBIOS table is broken at byte {at}: what is behind that is not read");
    assert_eq!(fault(root.0.path()), Some(want));
}
