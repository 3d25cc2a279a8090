//! Tests of `imprint-host signer` as people run it: how keys that sign payloads are added and removed, and which
//! payloads images then accept.

use crate::support::command;

use std::path::Path;
use std::process::Command;

use command::{BIND, TYPICAL, fails, fine, host, mode, record, site};
use imprint::payload::Payload;

/// What an image that names these lines accepts: the key id of the signer, or the reason.
fn judged(bytes: &[u8], lines: &str) -> Result<Option<String>, String> {
    use imprint::source::{Found, Origin};
    let bytes = imprint::secret::Secret::new(bytes.to_vec());
    let found = Found { origin: Origin::File("x".into()), bytes, cut: false, fresh: None };
    let pin = imprint::site::SitePin::parse(lines.as_bytes()).unwrap();
    match imprint::source::decode(&found, Some(&pin), None) {
        Ok((_, signed)) => Ok(signed.signer().map(|kid| kid.to_string())),
        Err(error) => Err(imprint::chain::chain(&imprint::error::Error::from(error))),
    }
}

/// The lines that `signer` prints, which are those of a site pin.
fn signers(dir: &Path) -> String {
    String::from_utf8(fine(dir, &["signer"])).unwrap()
}

/// The key id of a line, which is in the line's comment.
fn kid(line: &str) -> &str {
    let (_, remark) = line.split_once(" # ").unwrap();
    remark.split_once(", ").unwrap().0
}

/// Rotates, and returns the lines. The operator is told that images may not know the new key.
fn rotated(dir: &Path, words: &[&str]) -> String {
    let output = host(dir, words);
    assert!(output.status.success(), "{output:?}");
    let (lines, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let new = kid(lines.lines().next().unwrap());
    let want = format!("imprint-host: {new} signs every payload from now on; images that do not name it refuse them\n");
    assert_eq!(said, want);
    lines
}

/// The accident: a signer is put into the pin of images, and the payloads of some nodes are refused there.
#[test]
fn whoever_asks_for_the_line_of_a_signer_is_told_which_records_name_no_machine() {
    let (temp, dir) = site();
    let said = |command: &[&str]| {
        let output = host(&dir, command);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let rest = "no bind that names a machine, and images that name a signer refuse payloads without: add bind before you build \
                them\n";
    record(&temp, &dir, &TYPICAL.replace(BIND, ""));
    for command in [&["signer"][..], &["signer", "rotate", "--announce"]] {
        assert_eq!(said(command), format!("imprint-host: warning: the record of node1 has {rest}"));
    }
    for name in ["node2", "node3"] {
        let text = format!("name = \"{name}\"\nsubject = [\"CN={name}\"]\n");
        record(&temp, &dir, &text);
    }
    assert_eq!(said(&["signer"]), format!("imprint-host: warning: 3 records have (node1 and 2 more) {rest}"));
    record(&temp, &dir, TYPICAL);
    assert_eq!(said(&["signer"]), format!("imprint-host: warning: 2 records have (node2 and 1 more) {rest}"));
    assert_eq!(said(&["payload", "node2"]), "", "no pin may name a signer");
}

/// What is sent to a node that has sent a challenge: the payload that is in the store, as of this moment, and good for this HELLO
/// and this challenge alone.
#[test]
fn a_payload_is_signed_again_for_each_challenge() {
    use std::time::Duration;

    use imprint::line::{Challenge, Hello, Nonce, Versions};
    use imprint::payload::signed::{Signed, aad};
    use imprint_host::admission::Level;
    use imprint_host::compose::{ComposeError, Medium, Options};
    use imprint_host::state::{Error, State};
    let (_temp, dir) = site();
    let mut state = State::open(&dir).unwrap();
    let now = imprint::time::Timestamp::system();
    let expires = Duration::from_secs(3600);
    let options = Options { medium: Medium::Line, expires, admitted: Some(Level::Stick), ..Options::default() };
    let made = state.payload("node1", &options, now).unwrap();
    let hello = |key: u8| Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh: true,
        nonce: Nonce([1; 8]),
        key: [key; 32],
        uuid: None,
        serial: None,
        macs: Vec::new(),
    };
    let signer = state.ca.signers().unwrap().remove(0).0;
    let before = Payload::unwrapped(&made.bytes).unwrap();
    assert_eq!((before.composed, before.admitted()), (now, Some("stick")));
    for minutes in [0, 1, 59] {
        let later = now.plus(Duration::from_secs(60 * minutes));
        let challenge = Challenge([u8::try_from(minutes).unwrap(); 16]);
        let object = state.fresh(&made.bytes, &hello(7), &challenge, later).unwrap().unwrap();
        let (answered, signed) = imprint::line::seal::answer(&object).unwrap();
        assert_eq!(answered, challenge);
        let signed = Signed::decode(signed.expose()).unwrap();
        let covers =
            |hello: &Hello, challenge: [u8; 16]| signed.is_by(&signer, &aad(Some((&hello.digest(), &challenge))));
        assert!(covers(&hello(7), challenge.0));
        assert!(!covers(&hello(8), challenge.0) && !covers(&hello(7), [99; 16]) && !signed.is_by(&signer, &aad(None)));
        // Nothing else has changed: the store knows its id and its token.
        let after = Payload::decode(signed.payload).unwrap();
        assert_eq!(after, Payload { composed: later, ..before.clone() });
    }
    let error = state.fresh(&made.bytes, &hello(7), &Challenge([1; 16]), now.plus(expires)).unwrap_err();
    assert!(matches!(error, Error::Compose(ComposeError::Expired(at)) if at == before.expiry), "{error}");
    std::fs::remove_file(dir.join("signer.key")).unwrap();
    assert!(state.fresh(&made.bytes, &hello(7), &Challenge([1; 16]), now).unwrap().is_none());
}

/// One rotation with an announcement, in which no image refuses a payload that is on its way; and one without.
#[test]
fn signers_come_and_go_with_an_overlap() {
    let (temp, dir) = site();
    let made = || fine(&dir, &["payload", "node1"]);
    let first = signers(&dir);
    assert_eq!((first.lines().count(), first.ends_with(", signs every payload\n")), (1, true), "{first}");
    let old = kid(first.trim_end()).to_owned();
    assert_eq!(judged(&made(), &first), Ok(Some(old.clone())));
    let error = judged(&fine(&dir, &["payload", "node1", "--unsigned"]), &first).unwrap_err();
    assert!(error.contains(&format!("names signers ({old})")), "{error}");
    let (code, error) = fails(&dir, &["signer", "new"]);
    let want = format!("imprint-host: signer {old} signs already; to replace it, run imprint-host signer rotate\n");
    assert_eq!((code, error), (1, want));

    let before = made();
    let both = String::from_utf8(fine(&dir, &["signer", "rotate", "--announce"])).unwrap();
    assert_eq!(both, signers(&dir));
    let lines: Vec<&str> = both.lines().collect();
    assert!(lines.len() == 2 && format!("{}\n", lines[0]) == first && lines[1].contains(", announced; "), "{both}");
    let new = kid(lines[1]).to_owned();
    assert_eq!(judged(&made(), &both), Ok(Some(old.clone())), "the old one signs");
    let (code, error) = fails(&dir, &["signer", "rotate", "--announce"]);
    assert!(code == 1 && error.contains(&format!("{new} is announced already")), "{error}");
    let (code, error) = fails(&dir, &["signer", "retire", &old]);
    assert!(code == 1 && error.contains(&format!("signer {old} signs the payloads now; ")), "{error}");

    rotated(&dir, &["signer", "rotate"]);
    let after = made();
    assert_eq!(judged(&after, &both), Ok(Some(new.clone())));
    assert_eq!(judged(&before, &both), Ok(Some(old.clone())), "what is on its way");
    assert!(judged(&after, &first).unwrap_err().contains(&format!("is signed by {new}")));
    let listed = signers(&dir);
    assert!(listed.contains(&format!("# {old}, signed before; ")), "{listed}");
    for name in ["signer.key", "signers"] {
        assert_eq!(mode(&dir.join(name)), if name == "signers" { 0o644 } else { 0o600 });
    }
    assert!(!dir.join("signer-next.key").exists());

    // A copy of the state directory has all signers.
    let copy = temp.path().join("copy");
    fine(&dir, &["backup", copy.to_str().unwrap()]);
    assert_eq!((signers(&copy), mode(&copy.join("signer.key"))), (listed, 0o600));
    fine(&dir, &["signer", "retire", &old]);
    assert_eq!(signers(&dir).lines().map(kid).collect::<Vec<_>>(), [new.as_str()]);
    let (code, error) = fails(&dir, &["signer", "retire", &old]);
    let want = format!("imprint-host: there is no signer {old}; run imprint-host signer to list the signers\n");
    assert_eq!((code, error), (1, want));
    // A rotation without an announcement, and an announcement that is taken back.
    rotated(&dir, &["signer", "rotate"]);
    let announced = String::from_utf8(fine(&dir, &["signer", "rotate", "--announce"])).unwrap();
    fine(&dir, &["signer", "retire", kid(announced.lines().nth(1).unwrap())]);
    assert_eq!(signers(&dir).lines().count(), 2);
    let log = String::from_utf8(fine(&dir, &["log"])).unwrap();
    for words in [
        format!("{new} is announced: signer p256 "),
        format!("{new} signs payloads from now on, {old} stays listed: signer p256 "),
        format!("{old} is retired: signer p256 "),
    ] {
        assert!(log.contains(&words), "{words}: {log}");
    }
    let json: serde_json::Value = serde_json::from_slice(&fine(&dir, &["--json", "signer"])).unwrap();
    let standings: Vec<_> = json["signers"].as_array().unwrap().iter().map(|one| one["standing"].clone()).collect();
    assert_eq!(standings, ["signs", "listed"]);
    let show = String::from_utf8(fine(&dir, &["show"])).unwrap();
    assert!(show.contains(&format!("signer         {new}, listed\n")), "{show}");
}

/// The keys of other programs; and a state directory of an earlier version, which works as before.
#[test]
fn a_signer_may_be_given() {
    let (temp, dir) = site();
    std::fs::remove_file(dir.join("signer.key")).unwrap();
    Payload::decode(&fine(&dir, &["payload", "node1"])).unwrap();
    assert_eq!(signers(&dir), "# payloads are not signed; run imprint-host signer new to make a key\n");
    let (code, error) = fails(&dir, &["signer", "rotate"]);
    assert!(code == 1 && error.contains("make one with imprint-host signer new"), "{error}");
    let key = |name: &str, words: &[&str]| {
        let file = temp.path().join(name);
        let made = Command::new("openssl").args(words).arg("-out").arg(&file).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        file.to_str().unwrap().to_owned()
    };
    let ed25519 = key("ed25519", &["genpkey", "-algorithm", "ed25519"]);
    let p256 = key("p256", &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let p384 = key("p384", &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    let sec1 = key("sec1", &["ecparam", "-name", "prime256v1", "-genkey"]);
    let empty = temp.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let encrypted = key("encrypted", &["genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:x"]);
    let legacy = temp.path().join("legacy");
    let convert = ["ec", "-in", &sec1, "-aes256", "-passout", "pass:x", "-out", legacy.to_str().unwrap()];
    assert!(Command::new("openssl").args(convert).output().unwrap().status.success());
    for (file, what) in [
        (sec1.as_str(), "a key in another form than PKCS#8"),
        (&encrypted, "an encrypted key"),
        (legacy.to_str().unwrap(), "an encrypted key"),
    ] {
        let (code, error) = fails(&dir, &["signer", "new", "--key", file]);
        let want = format!(
            "imprint-host: {file} holds {what}; convert it: openssl pkcs8 -topk8 -nocrypt -in {file} -out NEW\n"
        );
        assert_eq!((code, error), (1, want));
        assert!(!dir.join("signer.key").exists());
    }
    for file in [&p384, empty.to_str().unwrap()] {
        let (code, error) = fails(&dir, &["signer", "new", "--key", file]);
        let want = format!(
            "imprint-host: {file} is not the key of a signer; give one private key on P-256 or Ed25519, in PEM (PKCS#8)\n"
        );
        assert_eq!((code, error), (1, want));
        assert!(!dir.join("signer.key").exists());
    }
    let (code, error) = fails(&dir, &["signer", "new", "--key", "/nowhere/key"]);
    assert!(code == 1 && error.starts_with("imprint-host: reading /nowhere/key"), "{error}");
    // What the error advises makes a key that is taken.
    let converted = key("converted", &["pkcs8", "-topk8", "-nocrypt", "-in", &sec1]);
    let other = temp.path().join("other");
    fine(&other, &["init", "--url", command::URL]);
    rotated(&other, &["signer", "rotate", "--key", &converted]);
    fine(&dir, &["signer", "new", "--key", &ed25519]);
    let lines = signers(&dir);
    assert!(lines.starts_with("signer ed25519 MCowBQYDK2VwAyEA"), "{lines}");
    assert_eq!(judged(&fine(&dir, &["payload", "node1"]), &lines), Ok(Some(kid(lines.trim_end()).to_owned())));
    assert_eq!(mode(&dir.join("signer.key")), 0o600);
    // The key of the pin is the one that OpenSSL knows.
    let public = Command::new("openssl").args(["pkey", "-pubout", "-in", &ed25519]).output().unwrap();
    let public = String::from_utf8(public.stdout).unwrap();
    assert_eq!(lines.split(' ').nth(2), public.lines().nth(1));
    let (code, error) = fails(&dir, &["signer", "rotate", "--key", &ed25519]);
    assert!(code == 1 && error.contains("signs already"), "{error}");
    let lines = rotated(&dir, &["signer", "rotate", "--key", &p256]);
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert_eq!(
        judged(&fine(&dir, &["payload", "node1"]), &lines),
        Ok(Some(kid(lines.lines().next().unwrap()).to_owned()))
    );
}
