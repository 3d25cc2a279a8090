//! Tests of `imprint-host signer` as people run it: keys that sign payloads come and go, and what images accept then.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "support/command.rs"]
mod command;

use std::path::Path;
use std::process::Command;

use command::{fails, fine, mode, site};
use imprint::payload::Payload;

/// What an image that names these lines accepts: the key id of the signer, or the reason.
fn judged(bytes: &[u8], lines: &str) -> Result<Option<String>, String> {
    use imprint::source::{Found, Origin};
    let bytes = imprint::secret::Secret::new(bytes.to_vec());
    let found = Found { origin: Origin::File("x".into()), bytes, cut: false, fresh: None };
    let pin = imprint::site::SitePin::parse(lines.as_bytes()).unwrap();
    match imprint::source::decode(&found, Some(&pin)) {
        Ok((_, signed)) => Ok(signed.signer().map(|kid| kid.to_string())),
        Err(error) => Err(imprint::chain::chain(&imprint::error::Error::from(error))),
    }
}

/// The lines that `signer` prints, which are those of a site pin.
fn signers(dir: &Path) -> String {
    String::from_utf8(fine(dir, &["signer"])).unwrap()
}

/// Key id of a line, which is in its remark.
fn kid(line: &str) -> &str {
    let (_, remark) = line.split_once(" # ").unwrap();
    remark.split_once(", ").unwrap().0
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

/// A rotation in which no image refuses a payload on its way, and one at once.
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
    let want = format!("imprint-host: {old} signs already; imprint-host signer rotate puts another one in its place\n");
    assert_eq!((code, error), (1, want));

    let before = made();
    let both = String::from_utf8(fine(&dir, &["signer", "rotate", "--announce"])).unwrap();
    assert_eq!(both, signers(&dir));
    let lines: Vec<&str> = both.lines().collect();
    assert!(lines.len() == 2 && format!("{}\n", lines[0]) == first && lines[1].contains(", announced: "), "{both}");
    let new = kid(lines[1]).to_owned();
    assert_eq!(judged(&made(), &both), Ok(Some(old.clone())), "the old one signs");
    let (code, error) = fails(&dir, &["signer", "rotate", "--announce"]);
    assert!(code == 1 && error.contains(&format!("{new} is announced already")), "{error}");
    let (code, error) = fails(&dir, &["signer", "retire", &old]);
    assert!(code == 1 && error.contains(&format!("{old} signs; ")), "{error}");

    fine(&dir, &["signer", "rotate"]);
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

    // A copy of the state has them all.
    let copy = temp.path().join("copy");
    fine(&dir, &["backup", copy.to_str().unwrap()]);
    assert_eq!((signers(&copy), mode(&copy.join("signer.key"))), (listed, 0o600));
    fine(&dir, &["signer", "retire", &old]);
    assert_eq!(signers(&dir).lines().map(kid).collect::<Vec<_>>(), [new.as_str()]);
    let (code, error) = fails(&dir, &["signer", "retire", &old]);
    let want = format!("imprint-host: there is no signer {old}; imprint-host signer lists them\n");
    assert_eq!((code, error), (1, want));
    // At once, and what was announced is taken back.
    fine(&dir, &["signer", "rotate"]);
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

/// Keys of other people's programs; and a state directory that an earlier version made, which goes on as before.
#[test]
fn a_signer_may_be_given() {
    let (temp, dir) = site();
    std::fs::remove_file(dir.join("signer.key")).unwrap();
    Payload::decode(&fine(&dir, &["payload", "node1"])).unwrap();
    assert_eq!(signers(&dir), "# payloads are not signed; imprint-host signer new makes a key for that\n");
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
    for file in [&p384, &sec1, empty.to_str().unwrap()] {
        let (code, error) = fails(&dir, &["signer", "new", "--key", file]);
        let want = format!(
            "imprint-host: {file} is no key of a signer: want one private key on P-256 or Ed25519, in PEM (PKCS#8)\n"
        );
        assert_eq!((code, error), (1, want));
        assert!(!dir.join("signer.key").exists());
    }
    let (code, error) = fails(&dir, &["signer", "new", "--key", "/nowhere/key"]);
    assert!(code == 1 && error.starts_with("imprint-host: reading /nowhere/key"), "{error}");
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
    let lines = String::from_utf8(fine(&dir, &["signer", "rotate", "--key", &p256])).unwrap();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert_eq!(
        judged(&fine(&dir, &["payload", "node1"]), &lines),
        Ok(Some(kid(lines.lines().next().unwrap()).to_owned()))
    );
}
