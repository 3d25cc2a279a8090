use std::fs;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};

use super::*;
use crate::error::Error;
use crate::options::CMDLINE_MAX;
use crate::payload::{Form, MAX_LEN, Token};
use crate::site::{self, SignatureError, SignedBy, SitePin};

const TYPICAL: &[u8] = include_bytes!("../../tests/data/payload-typical.cbor");
const CREDENTIALS: &[u8] = include_bytes!("../../tests/data/payload-credentials.cbor");
const BUNDLE: &[u8] = include_bytes!("../../tests/data/payload-bundle.cbor");
const ISO: &[u8] = include_bytes!("../../tests/data/iso-plain.iso");

/// Searches with this command line, in a root with this payload file and with an optical drive if `drive` is set.
fn find(cmdline: &str, file: Option<&[u8]>, drive: bool) -> Result<Option<Found>, SourceError> {
    let root = tempfile::tempdir().unwrap();
    for folder in ["imprint", "sys/block", "dev"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    if let Some(bytes) = file {
        fs::write(root.path().join("imprint/payload"), bytes).unwrap();
    }
    if drive {
        let target = "../devices/pci0000:00/0000:00:01.1/ata2/host1/target1:0:0/1:0:0:0/block/sr0";
        std::os::unix::fs::symlink(target, root.path().join("sys/block/sr0")).unwrap();
        fs::write(root.path().join("dev/sr0"), ISO).unwrap();
    }
    let options = Options::parse(cmdline).unwrap();
    // If a payload is required and there is none, the deadline ends the wait.
    let deadline = Deadline::after(Duration::from_secs(if drive { 120 } else { 2 }));
    let reader = reader::program();
    let around = Surroundings { root: root.path(), reader: &reader, pinned: false, credentials: None };
    let present = at_once(&options, &around);
    let found = super::find(&options, &around, present, None, deadline, &mut |_| {})?;
    Ok(found.ok())
}

/// The pages make the order from the table of media. A search in another order would prefer a medium that the pages
/// rank lower.
#[test]
fn the_default_order_is_that_of_the_table() {
    use crate::medium::{Looked, MEDIA, Word};
    for pinned in [false, true] {
        let mut words: Vec<Word> = MEDIA
            .iter()
            .filter(|row| row.looked == Looked::Always || (pinned && row.looked == Looked::Pinned))
            .map(|row| row.word)
            .collect();
        words.dedup();
        let mut want: Vec<String> = words.iter().map(|word| word.name().to_owned()).collect();
        want.push("virtio".to_owned());
        // The source that a word names, as the parser of the command line reads it.
        let want: Vec<SourceName> =
            want.iter().flat_map(|name| Options::parse(&format!("imprint.source={name}")).unwrap().sources).collect();
        assert_eq!(order(&Options::parse("").unwrap(), pinned), want);
        for named in ["root-file", "efivar"] {
            let options = Options::parse(&format!("imprint.source={named} imprint.source=cmdline")).unwrap();
            assert_eq!(order(&options, pinned), options.sources, "what is named replaces the order");
        }
    }
}

/// Media of the same rank: copies of one payload are one payload, in whatever order they were found, and what may be done with
/// it is what the strictest of the media allows.
#[test]
fn of_copies_the_medium_that_may_carry_least_counts() {
    let found = |medium: Medium, place: &str, bytes: &[u8]| Found {
        origin: Origin::Medium { medium, place: Printable::of(place) },
        bytes: Secret::new(bytes.to_vec()),
        cut: false,
        fresh: None,
    };
    let which = |media: &[(Medium, &str, &[u8])]| {
        let all = media.iter().map(|(medium, place, bytes)| found(*medium, place, bytes));
        agreed(all, |one| one)
            .map(|found| found.map(|found| found.origin.to_string()))
            .map_err(|(first, second)| (first.origin.to_string(), second.origin.to_string()))
    };
    let drive: (Medium, &str, &[u8]) = (Medium::ConfigDrive, "sda", b"x");
    let second: (Medium, &str, &[u8]) = (Medium::ConfigDrive, "sdb", b"x");
    let nocloud: (Medium, &str, &[u8]) = (Medium::NoCloudUserData, "sdc", b"x");
    let openstack: (Medium, &str, &[u8]) = (Medium::OpenStackUserData, "sdd", b"x");
    assert_eq!(which(&[]), Ok(None));
    for (media, want) in [
        (&[drive, second][..], "config-drive sda"),
        // A seed from a config drive is credited, one from user data is not.
        (&[drive, nocloud], "user-data sdc"),
        (&[nocloud, drive], "user-data sdc"),
        // User data of OpenStack may carry no private key.
        (&[drive, openstack, nocloud], "user-data sdd"),
        (&[openstack, nocloud, drive], "user-data sdd"),
        (&[nocloud, drive, openstack], "user-data sdd"),
    ] {
        assert_eq!(which(media), Ok(Some(want.to_owned())));
    }
    let other: (Medium, &str, &[u8]) = (Medium::ConfigDrive, "sde", b"y");
    let two = |one: &str, other: &str| Err((one.to_owned(), other.to_owned()));
    assert_eq!(which(&[drive, second, other]), two("config-drive sda", "config-drive sde"));
    assert_eq!(which(&[other, drive, second]), two("config-drive sde", "config-drive sda"));
    assert_eq!(which(&[drive, openstack, other]), two("user-data sdd", "config-drive sde"));
}

fn origin(cmdline: &str, file: Option<&[u8]>, drive: bool) -> String {
    let found = find(cmdline, file, drive).unwrap().unwrap().origin;
    // The root of the test is not that of a node.
    match found {
        Origin::Medium { medium: Medium::Initramfs, .. } => "initramfs /imprint/payload".to_owned(),
        other => other.to_string(),
    }
}

fn medium(medium: Medium, place: &str) -> Origin {
    Origin::Medium { medium, place: place.into() }
}

#[test]
fn the_first_source_that_is_present_wins() {
    const DRIVE: &str = "config-drive sr0 (IMPRINT)";
    const FILE: &str = "initramfs /imprint/payload";
    let file = Some(TYPICAL);
    for (cmdline, file, drive, want) in [
        ("imprint.payload=oQEB", file, true, "cmdline"),
        ("", file, true, FILE),
        ("", None, true, DRIVE),
        ("imprint.payload=oQEB imprint.source=file", file, true, FILE),
        ("imprint.payload=oQEB imprint.source=file imprint.source=cmdline", None, true, "cmdline"),
        ("imprint.payload=oQEB imprint.source=config-drive imprint.source=cmdline", file, true, DRIVE),
        ("imprint.source=config-drive imprint.source=file imprint.source=cmdline", file, false, FILE),
        // The named drive is missing, so the next source is used once the disks have settled.
        ("imprint.source=config-drive:OTHER imprint.source=file", file, true, FILE),
        ("imprint.source=file imprint.source=config-drive", None, true, DRIVE),
    ] {
        assert_eq!(origin(cmdline, file, drive), want, "{cmdline}");
    }
}

#[test]
fn what_was_found_is_what_was_given() {
    let word = format!("imprint.payload={}", Base64UrlUnpadded::encode_string(TYPICAL));
    for found in [find(&word, None, false), find("", Some(TYPICAL), false)] {
        assert_eq!(found.unwrap().unwrap().bytes.expose(), TYPICAL);
    }
}

/// A broken source stops the search, although a later source would work.
#[test]
fn a_broken_source_stops_the_search() {
    let stopped = |cmdline, file| find(cmdline, file, true).unwrap_err().to_string();
    assert_eq!(
        stopped("imprint.payload=oQ+B", Some(TYPICAL)),
        "imprint.payload= on the kernel command line is not base64url: character 3 of 4 is not one of A-Z a-z 0-9 - _; \
         copy the output of imprint-host payload NODE --as cmdline"
    );
    for half in ["imprint.payload=oQEBA", "imprint.payload=oQEBAB"] {
        let error = stopped(half, Some(TYPICAL));
        assert!(error.contains("characters of base64url end within a byte; copy it again"), "{error}");
    }
    let error = stopped("", Some(&[1; MAX_LEN + 1]));
    assert!(
        error.ends_with(
            "/imprint/payload has more than 65536 bytes, the most that a payload can have; give the \
         payload itself, in CBOR"
        ),
        "{error}"
    );
    assert_eq!(find("", Some(&[0; MAX_LEN]), true).unwrap().unwrap().bytes.expose().len(), MAX_LEN);
}

#[test]
fn what_lies_where_the_file_should_be_is_not_absent() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("imprint")).unwrap();
    let path = root.path().join("imprint/payload");
    let refused = || {
        assert!(file::is_present(root.path()));
        match file::initramfs(root.path()) {
            Err(SourceError::Read { path: found, source }) if found == path => source.to_string(),
            other => panic!("{other:?}"),
        }
    };
    fs::create_dir(&path).unwrap();
    assert_eq!(refused(), "it is not a regular file");
    fs::remove_dir(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert_eq!(refused(), "it is not a regular file");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    assert_eq!(refused(), "No such file or directory (os error 2)");
    fs::remove_dir_all(root.path().join("imprint")).unwrap();
    assert!(!file::is_present(root.path()));
    fs::write(root.path().join("imprint"), "a file").unwrap();
    assert!(!file::is_present(root.path()));
}

#[test]
fn nothing_found_says_where_it_was_looked_for() {
    assert!(find("", None, false).unwrap().is_none());
    let nothing = |cmdline| match find(cmdline, None, false) {
        Err(SourceError::Nothing { looked, .. }) => looked,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        nothing("imprint=require"),
        "nothing on the command line; no file /imprint/payload; no credential imprint.payload; no disk and no optical drive"
    );
    // The options name no drive, so the search does not wait for one. The payload on the command line does not count.
    let before = crate::time::since_boot();
    assert_eq!(nothing("imprint.source=file imprint.payload=oQEB"), "no file /imprint/payload");
    assert!(crate::time::since_boot() - before < Duration::from_secs(1));
    assert_eq!(nothing("imprint.source=cmdline"), "nothing on the command line");
}

fn typical(mode: TokenMode) -> Payload {
    let mut payload = Payload::decode(TYPICAL).unwrap();
    let Enrolment::Csr(csr) = &mut payload.enrolment else { panic!("it enrols with a CSR") };
    let secret = Token::try_from("AAECAwQFBgcICQoLDA0ODw".to_owned()).unwrap();
    csr.token = Some(crate::payload::EnrolmentToken { secret, mode });
    payload
}

#[test]
fn what_others_can_read_may_not_bring_what_stays_secret() {
    let credentials = Payload::decode(CREDENTIALS).unwrap();
    let line = |sealed| Origin::Line { name: "ttyS0".into(), sealed };
    for (payload, item) in [
        (credentials, "a private key"),
        (typical(TokenMode::EachBoot), "an each-boot token"),
        (Payload::decode(BUNDLE).unwrap(), "a bundle key"),
    ] {
        let clouds = [
            medium(Medium::OpenStackUserData, "sr0 (config-2)"),
            medium(Medium::OpenStackVendorData, "sda1 (config-2)"),
        ];
        for open in [medium(Medium::Cmdline, ""), line(false)].into_iter().chain(clouds) {
            match permitted(&open, &payload, None) {
                Err(SourceError::Forbidden { item: found, .. }) => assert_eq!(found, item),
                other => panic!("{other:?}"),
            }
        }
        permitted(&line(true), &payload, None).unwrap();
        let media = [
            Medium::Initramfs,
            Medium::ConfigDrive,
            Medium::NoCloudUserData,
            Medium::Partition,
            Medium::PartitionVolume,
        ];
        let media = media.map(|one| medium(one, "sr0 (IMPRINT)"));
        for origin in media.into_iter().chain([Origin::File("payload".into())]) {
            permitted(&origin, &payload, None).unwrap();
        }
    }
    permitted(&medium(Medium::Cmdline, ""), &typical(TokenMode::Once), None).unwrap();
    // A bundle whose key is elsewhere is no secret of the payload.
    let recipient = crate::age::Identity::from_bytes(&[7; 32]).recipient();
    for key in [BundleKey::Image(None), BundleKey::Stick { recipient, pull: true }] {
        let payload = Payload { bundle: Some(BundleTerms { key, least: 3 }), ..typical(TokenMode::Once) };
        permitted(&medium(Medium::Cmdline, ""), &payload, None).unwrap();
    }
}

/// Finds and decodes the payload of this command line.
fn decoded(cmdline: &str) -> Result<Payload, Error> {
    let found = find(cmdline, None, false)?.unwrap();
    Ok(decode(&found, None, None)?.0)
}

#[test]
fn a_forbidden_payload_is_the_sources_failure() {
    let word = |payload: &Payload| format!("imprint.payload={}", Base64UrlUnpadded::encode_string(&payload.encode()));
    let error = decoded(&word(&typical(TokenMode::EachBoot))).unwrap_err();
    assert_eq!(error.stage(), ("source", 11));
    assert_eq!(
        crate::chain::chain(&error),
        "source: the payload on the kernel command line, which everybody on the node can read, holds an each-boot \
         token; bring it in the initramfs or on a config drive (imprint-host payload NODE --as cpio or --as iso)"
    );
    assert_eq!(decoded(&word(&typical(TokenMode::Once))).unwrap(), typical(TokenMode::Once));
}

/// The kernel cuts the command line at its limit. Cuts at four successive characters cover every way in which base64
/// can end.
#[test]
fn a_payload_that_was_cut_short_is_said_to_be_one() {
    let word = format!("imprint.payload={}", Base64UrlUnpadded::encode_string(TYPICAL));
    for missing in 1..=4 {
        let mut cmdline = format!("{} {word}", "x".repeat(CMDLINE_MAX - 1 - word.len() + missing));
        cmdline.truncate(CMDLINE_MAX);
        let error = decoded(&format!("{cmdline}\n")).unwrap_err();
        assert!(matches!(error, Error::Source(SourceError::CmdlineCut)), "{error:?}");
        // On a shorter line the kernel has not cut the word, so the error must be another one.
        let error = decoded(cmdline.trim_start_matches('x')).unwrap_err();
        assert!(!matches!(error, Error::Source(SourceError::CmdlineCut)), "{error:?}");
    }
    // A line that is full and still has the whole payload.
    let cmdline = format!("{} {word}\n", "x".repeat(CMDLINE_MAX - 1 - word.len()));
    assert_eq!(decoded(&cmdline).unwrap(), typical(TokenMode::Once));
}

const SIGNED: &[u8] = include_bytes!("../../tests/data/payload-signed-p256.cbor");
const SIGNERS: &[u8] = include_bytes!("../../tests/data/site-signers");

/// Without a signer in the pin a payload of either form is taken from every source. With one, a payload without a good
/// signature is refused from every source, whatever else is wrong with it, and before it is decoded.
#[test]
fn a_signature_is_needed_wherever_the_payload_comes_from() {
    let pin = SitePin::parse(SIGNERS).unwrap();
    let media = crate::medium::MEDIA.iter().map(|row| medium(row.medium, "x"));
    let lines = [true, false].map(|sealed| Origin::Line { name: "ttyS0".into(), sealed });
    let kids = || site::Kids(pin.signers.iter().map(crate::payload::signed::Signer::kid).collect());
    let mut forged = SIGNED.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    // No node accepts this payload from a command line, and without a signature it is not even decoded.
    let each_boot = typical(TokenMode::EachBoot).encode();
    for origin in media.chain(lines).chain([Origin::File("x".into())]) {
        let decoded = |bytes: &[u8], pin: Option<&SitePin>| {
            decode(
                &Found { origin: origin.clone(), bytes: Secret::new(bytes.to_vec()), cut: false, fresh: None },
                pin,
                None,
            )
        };
        assert_eq!(decoded(TYPICAL, None).unwrap(), (typical(TokenMode::Once), SignedBy::Nobody), "{origin}");
        let kid = pin.signers[0].kid();
        for bytes in [SIGNED, &forged] {
            let unverified = (typical(TokenMode::Once), SignedBy::Unverified(kid));
            assert_eq!(decoded(bytes, None).unwrap(), unverified, "{origin}");
        }
        assert_eq!(decoded(SIGNED, Some(&pin)).unwrap(), (typical(TokenMode::Once), SignedBy::Signer(kid)), "{origin}");
        for bytes in [TYPICAL, &each_boot, b"", b"\xa1\0\x02", b"neither"] {
            let error = decoded(bytes, Some(&pin)).unwrap_err();
            let Unusable::Signature(error) = error else { panic!("{origin}: {error:?}") };
            assert_eq!(error, SignatureError::Missing { signers: kids(), file: site::PinFile::Image }, "{origin}");
        }
        let error = decoded(&forged, Some(&pin)).unwrap_err();
        let Unusable::Signature(error) = error else { panic!("{origin}: {error:?}") };
        assert_eq!(error, SignatureError::Wrong { kid }, "{origin}");
        let other = SitePin { signers: pin.signers[1..].to_vec(), ..SitePin::default() };
        let error = Error::from(decoded(SIGNED, Some(&other)).unwrap_err());
        assert_eq!(error.stage(), ("plan", 13), "{origin}");
    }
}

/// The keys of the signers that the tests' pin names, second one.
fn ed25519() -> aws_lc_rs::signature::Ed25519KeyPair {
    let text = include_str!("../../tests/data/signer-ed25519.pem");
    let der = crate::pem::decode("PRIVATE KEY", text).unwrap().remove(0);
    aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8(&der).unwrap()
}

/// Attacks: a payload that was signed for another node that asked, for another challenge, for a file, or not at all; and one
/// for this node that somebody puts into a file.
#[test]
fn what_is_signed_for_a_challenge_is_good_for_nothing_else() {
    use crate::payload::signed::{Algorithm, aad, encode, to_be_signed};
    let pin = SitePin::parse(SIGNERS).unwrap();
    let (signer, key) = (&pin.signers[1], ed25519());
    let sign = |aad: &[u8]| {
        let text = to_be_signed(Algorithm::EdDsa, signer.kid(), aad, TYPICAL);
        encode(Algorithm::EdDsa, signer.kid(), TYPICAL, key.sign(&text).as_ref().try_into().unwrap()).to_vec()
    };
    let fresh = |hello: u8, challenge: u8| Fresh {
        hello: [hello; 32],
        challenge: crate::line::Challenge([challenge; 16]),
        made: Duration::ZERO,
        came: Duration::ZERO,
    };
    let judged = |bytes: &[u8], fresh: Option<Fresh>| {
        let origin = Origin::Line { name: "net".into(), sealed: true };
        decode(&Found { origin, bytes: Secret::new(bytes.to_vec()), cut: false, fresh }, Some(&pin), None)
    };
    let asked = fresh(1, 2);
    let good = sign(&asked.aad());
    assert_eq!(judged(&good, Some(asked)).unwrap().1, SignedBy::Signer(signer.kid()));
    let judge = judge(&pin, any()).unwrap();
    assert_eq!(judge(&Secret::new(good.clone()), &asked), Ok(()));
    let mut others = vec![
        (good.clone(), Some(fresh(3, 2))),
        (good.clone(), Some(fresh(1, 3))),
        (good.clone(), None),
        (sign(&aad(None)), Some(asked)),
        (sign(&[&aad(None)[..], &[1; 32]].concat()), Some(asked)),
        (sign(b""), Some(asked)),
    ];
    others.push((SIGNED.to_vec(), Some(asked)));
    for (index, (bytes, fresh)) in others.into_iter().enumerate() {
        let error = judged(&bytes, fresh).unwrap_err();
        assert!(matches!(error, Unusable::Signature(SignatureError::Wrong { .. })), "{index}: {error:?}");
        if let Some(fresh) = fresh {
            let words = judge(&Secret::new(bytes), &fresh).unwrap_err();
            assert!(words.contains("and the signature does not fit"), "{words}");
        }
    }
    let unsigned = judge(&Secret::new(TYPICAL.to_vec()), &asked).unwrap_err();
    assert!(unsigned.starts_with("the payload is not signed"), "{unsigned}");
    let junk = judge(&Secret::new(sign(&[0; 9])[..40].to_vec()), &asked).unwrap_err();
    assert!(junk.starts_with("byte "), "{junk}");
}

/// Whatever the payload is for.
fn any() -> Fits {
    Box::new(|_, _| Ok(()))
}

/// Two doors with different sites on one network: that of the other site is left, and the search goes on.
#[test]
fn a_door_of_another_site_is_not_used() {
    let pin = SitePin::parse(SIGNERS).unwrap();
    let asked = Fresh {
        hello: [1; 32],
        challenge: crate::line::Challenge([2; 16]),
        made: Duration::ZERO,
        came: Duration::ZERO,
    };
    let other = SitePin { signers: pin.signers[1..].to_vec(), ..SitePin::default() };
    let words = judge(&other, any()).unwrap()(&Secret::new(SIGNED.to_vec()), &asked).unwrap_err();
    assert!(words.starts_with("the payload is signed by ") && words.contains(" in this image names "), "{words}");
    let (signer, key) = (&pin.signers[1], ed25519());
    let text = crate::payload::signed::to_be_signed(signer.algorithm(), signer.kid(), &asked.aad(), TYPICAL);
    let signature = key.sign(&text);
    let signature = signature.as_ref().try_into().unwrap();
    let bytes = crate::payload::signed::encode(signer.algorithm(), signer.kid(), TYPICAL, signature).to_vec();
    let of = |cas: Vec<[u8; 32]>| {
        judge(&SitePin { cas, ..pin.clone() }, any()).unwrap()(&Secret::new(bytes.clone()), &asked)
    };
    assert_eq!(of(Vec::new()), Ok(()));
    assert_eq!(of(vec![typical(TokenMode::Once).ca.sha256()]), Ok(()));
    let words = of(vec![[7; 32]]).unwrap_err();
    assert!(words.starts_with("its CA \"CN=imprint test root\" (sha256 "), "{words}");
    assert!(
        words.ends_with(") is not among those of /imprint/site in this image; is it a door of another site?"),
        "{words}"
    );
    // Without a signer nobody could judge: no far line is used.
    assert!(judge(&SitePin { cas: vec![[7; 32]], ..SitePin::default() }, any()).is_none());
}

/// No error text and no Debug form shows the payload of the command line.
#[test]
fn the_payload_is_never_printed() {
    let word = Base64UrlUnpadded::encode_string(&typical(TokenMode::EachBoot).encode());
    for text in [word.clone(), format!("{word}+"), word[..word.len() - 1].to_owned(), word[..200].to_owned()] {
        let error = decoded(&format!("imprint.payload={text}")).unwrap_err();
        for shown in [crate::chain::chain(&error), format!("{error:?}")] {
            assert!(
                !text.as_bytes().windows(12).any(|part| shown.contains(std::str::from_utf8(part).unwrap())),
                "{shown}"
            );
        }
    }
}

/// For every source, the error names the form of a payload that is in the wrong form.
#[test]
fn another_form_is_called_by_its_name_wherever_it_comes_from() {
    let hex = crate::hex::encode(TYPICAL);
    let base64 = Base64UrlUnpadded::encode_string(TYPICAL);
    let drive = medium(Medium::ConfigDrive, "sr0 (IMPRINT)");
    let line = Origin::Line { name: "ttyS0".into(), sealed: true };
    for origin in [medium(Medium::Initramfs, "x"), drive, line, Origin::File("x".into())] {
        for (text, form) in [(&hex, Form::Hex), (&base64, Form::Base64)] {
            let found =
                Found { origin: origin.clone(), bytes: Secret::new(text.as_bytes().to_vec()), cut: false, fresh: None };
            let error = decode(&found, None, None).unwrap_err();
            let Unusable::Payload(error) = error else { panic!("{error:?}") };
            assert_eq!(error.problem, crate::payload::Problem::Form(form), "{origin}");
        }
    }
    // Hexadecimal digits are valid base64url, too. A payload may also have been encoded twice.
    let error = decoded(&format!("imprint.payload={hex}")).unwrap_err();
    assert!(matches!(error, Error::Source(SourceError::Form(Form::Hex))), "{error:?}");
    let error =
        decoded(&format!("imprint.payload={}", Base64UrlUnpadded::encode_string(base64.as_bytes()))).unwrap_err();
    let words = "payload: byte 0: not a payload in CBOR: it is a payload in base64; decode it with base64 -d, or use \
                 the output of imprint-host payload NODE --as cbor";
    assert_eq!(crate::chain::chain(&error), words);
}

/// The person who runs a confidential virtual machine is not trusted, and can write everything that is not measured
/// with the image.
#[test]
fn a_confidential_machine_takes_nothing_from_its_hypervisor_without_a_pin() {
    let line = Origin::Line { name: "ttyS0".to_owned(), sealed: true };
    for machine in [Confidential::Sev, Confidential::SevEs, Confidential::SevSnp, Confidential::Tdx, Confidential::Cca]
    {
        for row in &crate::medium::MEDIA {
            let origin = medium(row.medium, "x");
            let refused = admitted(&origin, false, Some(machine)).is_err();
            // The owner of the machine measures the kernel, what is loaded with it, and the root file system.
            let own = matches!(row.medium, Medium::Initramfs | Medium::RootFile);
            assert_eq!(refused, !own, "{machine}: {}", row.kind);
            assert!(admitted(&origin, true, Some(machine)).is_ok(), "with a pin");
            assert!(admitted(&origin, false, None).is_ok(), "on other machines");
        }
        assert!(admitted(&line, false, Some(machine)).is_err(), "also one that is sealed");
        assert!(admitted(&line, true, Some(machine)).is_ok() && admitted(&line, false, None).is_ok());
        assert!(admitted(&Origin::File("x".into()), false, Some(machine)).is_ok());
    }
    let error: Error = admitted(&line, false, Some(Confidential::SevSnp)).unwrap_err().into();
    assert_eq!(error.stage(), ("source", 11));
    assert_eq!(
        crate::chain::chain(&error),
        "source: this is a confidential virtual machine (SEV-SNP); whoever runs it could have written the payload (line \
         ttyS0), and this image has no site pin; use an image with a site pin, or bring the payload in the initramfs"
    );
}

/// A site pin does not hide what the hypervisor supplies.
#[test]
fn a_confidential_machine_takes_no_lasting_secret_from_its_hypervisor() {
    let line = Origin::Line { name: "ttyS0".to_owned(), sealed: true };
    let machine = Some(Confidential::SevSnp);
    let media = crate::medium::MEDIA.iter().map(|row| medium(row.medium, "x"));
    for (payload, item) in [
        (Payload::decode(CREDENTIALS).unwrap(), "a private key"),
        (typical(TokenMode::EachBoot), "an each-boot token"),
        (Payload::decode(BUNDLE).unwrap(), "a bundle key"),
    ] {
        for origin in media.clone().chain([line.clone(), Origin::File("x".into())]) {
            let own =
                matches!(origin, Origin::File(_) | Origin::Medium { medium: Medium::Initramfs | Medium::RootFile, .. });
            match permitted(&origin, &payload, machine) {
                Ok(()) => assert!(own, "{origin}"),
                Err(SourceError::ReadByHypervisor { item: found, .. }) => assert!(!own && found == item, "{origin}"),
                Err(other) => panic!("{origin}: {other}"),
            }
        }
        assert!(permitted(&line, &payload, None).is_ok(), "on other machines");
    }
    for origin in media.chain([line.clone()]) {
        permitted(&origin, &typical(TokenMode::Once), machine).unwrap();
    }
    let error: Error = permitted(&line, &typical(TokenMode::EachBoot), machine).unwrap_err().into();
    assert_eq!(error.stage(), ("source", 11));
    assert_eq!(
        crate::chain::chain(&error),
        "source: this is a confidential virtual machine (SEV-SNP), whoever runs it can read the payload (line ttyS0), and \
         the payload holds an each-boot token; have the node make its key, with a token that is good once, and have it take \
         the key of its bundles from the image, or bring the payload on an encrypted root (/etc/imprint/payload)"
    );
}

/// Every process of the node reads the files of efivarfs.
#[test]
fn an_efi_variable_carries_no_key_and_no_lasting_token() {
    let key = Payload::decode(CREDENTIALS).unwrap();
    let error = permitted(&medium(Medium::EfiVariable, "x"), &key, None).unwrap_err().to_string();
    assert!(
        error.starts_with("the payload in an EFI variable, which everybody on the node can read, holds a private key"),
        "{error}"
    );
    assert!(permitted(&medium(Medium::RootFile, "x"), &key, None).is_ok());
    assert!(permitted(&medium(Medium::EfiVariable, "x"), &Payload::decode(TYPICAL).unwrap(), None).is_ok());
}
