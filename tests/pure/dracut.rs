//! Tests of the dracut module alone: what it puts into an image, and when it refuses to build one. dracut's functions are
//! replaced by stand-ins that record their calls. Builds no image; tests/vm does.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dracut/50imprint");

/// Enough of dracut-init.sh for `install`. A file that is not there is passed over, as there.
const STAND_INS: &str = r#"
    dfatal() { echo "FATAL $*"; }
    dwarn() { echo "WARNING $*"; }
    dracut_module_included() { [[ $included == "$1" ]]; }
    inst_simple() { [[ -e $1 ]] || return 1; mkdir -p "$(dirname "$initdir${2:-$1}")"; cp "$1" "$initdir${2:-$1}"; echo "file ${2:-$1}"; }
    inst_multiple() { echo "files $*"; }
    inst_rules() { echo "rules $*"; }
    inst_hook() { echo "hook $1"; }
    moddir=$1 initdir=$2 included=$3 hostonly='' SYSTEMCTL=true
    systemdnetwork=/usr/lib/systemd/network systemdsystemunitdir=/usr/lib/systemd/system
    . "$moddir/module-setup.sh"
    install
    exit 0
"#;

const SIGNERS: &str = include_str!("../data/site-signers");

/// Starts the agent: a small file where the agent itself would be copied into many images.
fn agent(folder: &Path) -> String {
    let path = folder.join("agent");
    std::fs::write(&path, format!("#!/bin/sh\nexec {} \"$@\"\n", imprint_tests::programs::agent().display())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

struct Built {
    built: bool,
    said: String,
    image: tempfile::TempDir,
}

/// With an agent that does not run, unless the variables name one.
fn build(variables: &[(&str, &str)], included: &str) -> Built {
    let image = tempfile::tempdir().unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-c", STAND_INS, "bash", MODULE]).arg(image.path()).arg(included).env("IMPRINT_BINARY", "/bin/sh");
    bash.env("IMPRINT_UNIT", concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/imprint.service"))
        .env("IMPRINT_SITE", "")
        .env("IMPRINT_NETWORK", "")
        .env("IMPRINT_KEY", "")
        .env("IMPRINT_BUNDLE_KEY", "");
    let output = bash.envs(variables.iter().copied()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Built { built: output.status.success(), said: String::from_utf8_lossy(&said).into_owned(), image }
}

/// A pin that is none shows at boot only, on every machine of the site: exit code 11. The agent itself is asked.
#[test]
fn a_site_pin_that_the_agent_refuses_ends_the_build() {
    let digest = "0123456789abcdefABCDEF0123456789abcdefABCDEF0123456789abcdefABCD";
    let work = tempfile::tempdir().unwrap();
    let (agent, site) = (agent(work.path()), work.path().join("pin"));
    for (good, text) in [
        (true, format!("# our CA\n\n  {digest}\t# the old one\r\n{digest}")),
        (true, SIGNERS.to_owned()),
        (false, SIGNERS.replace("p256", "p384")),
        (false, SIGNERS.replace("MFkwEwYH", "MFkwEwYI")),
        (false, String::new()),
        (false, format!("{digest}0\n")),
    ] {
        std::fs::write(&site, &text).unwrap();
        let built = build(&[("IMPRINT_BINARY", &agent), ("IMPRINT_SITE", site.to_str().unwrap())], "");
        assert_eq!(built.built, good, "{text:?}\n{}", built.said);
        // The file that somebody can correct is named, and not its copy.
        let words = format!(
            "FATAL imprint: every boot of this image would be stopped: imprint: source: site pin {}: ",
            site.display()
        );
        assert_eq!(built.said.contains(&words), !good, "{}", built.said);
    }
}

/// An agent for another kind of machine cannot be asked.
#[test]
fn an_agent_that_does_not_run_here_is_said_to_have_checked_nothing() {
    let work = tempfile::tempdir().unwrap();
    let site = work.path().join("site");
    std::fs::write(&site, "none\n").unwrap();
    let built = build(&[("IMPRINT_SITE", site.to_str().unwrap())], "");
    assert!(built.built, "{}", built.said);
    let words = "WARNING imprint: /bin/sh does not run on this machine, so what goes into /imprint of the image was not checked";
    assert!(built.said.contains(words), "{}", built.said);
    assert_eq!(std::fs::read_to_string(built.image.path().join("imprint/site")).unwrap(), "none\n");
}

/// dracut passes over a file that is not there, and the image has no agent, no unit, or no pin.
#[test]
fn a_file_that_was_named_and_is_not_there_ends_the_build() {
    let text = tempfile::NamedTempFile::new().unwrap();
    let no_program = text.path().to_str().unwrap();
    for (variable, value, words) in [
        (
            "IMPRINT_BINARY",
            "/nowhere",
            "FATAL imprint: /nowhere is not a program; install the agent there, or name it with",
        ),
        ("IMPRINT_BINARY", "/tmp", "FATAL imprint: /tmp is not a program"),
        ("IMPRINT_BINARY", no_program, "is not a program; install the agent there, or name it with IMPRINT_BINARY"),
        (
            "IMPRINT_UNIT",
            "/nowhere",
            "FATAL imprint: /nowhere is no unit; install imprint.service there, or name it with",
        ),
        ("IMPRINT_SITE", "/nowhere", "FATAL imprint: /nowhere is the site pin, and cannot be read"),
        ("IMPRINT_SITE", "/tmp", "FATAL imprint: /tmp is the site pin, and cannot be read"),
        (
            "IMPRINT_NETWORK",
            "/nowhere",
            "FATAL imprint: /nowhere is the network before the payload, and cannot be read",
        ),
        (
            "IMPRINT_NETWORK",
            "/dev/null",
            "FATAL imprint: /dev/null is the network before the payload, and cannot be read",
        ),
    ] {
        let built = build(&[(variable, value)], "systemd-initrd");
        assert!(!built.built && built.said.contains(words), "{variable}={value}: {}", built.said);
    }
}

#[test]
fn the_network_before_the_payload_is_put_in() {
    let folder = tempfile::tempdir().unwrap();
    let network = folder.path().join("network");
    std::fs::write(&network, "cbor").unwrap();
    let built = build(&[("IMPRINT_NETWORK", network.to_str().unwrap())], "");
    assert!(built.built, "{}", built.said);
    assert_eq!(std::fs::read_to_string(built.image.path().join("imprint/network")).unwrap(), "cbor");
}

/// The key goes into the image for its owner's eyes alone; what is none ends the build, and not a boot of every machine.
#[test]
fn the_admission_key_of_an_image() {
    let work = tempfile::tempdir().unwrap();
    let (agent, file) = (agent(work.path()), work.path().join("key"));
    let made = imprint_host::state::MadeKey::new().unwrap();
    for (good, text) in [(true, made.pem.as_str()), (false, ""), (false, "-----BEGIN PUBLIC KEY-----\n")] {
        std::fs::write(&file, text).unwrap();
        let built = build(&[("IMPRINT_BINARY", &agent), ("IMPRINT_KEY", file.to_str().unwrap())], "");
        assert_eq!(built.built, good, "{text:?}: {}", built.said);
        let key = built.image.path().join("imprint/key");
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(built.said.contains(&format!("admission key {}", file.display())), !good, "{}", built.said);
    }
    let built = build(&[("IMPRINT_KEY", "/nowhere")], "");
    assert!(!built.built && built.said.contains("FATAL imprint: /nowhere is the admission key, and cannot be read"));
}

/// The same for the key of the node's bundles, of which nothing is shown.
#[test]
fn the_bundle_key_of_an_image() {
    let work = tempfile::tempdir().unwrap();
    let (agent, file) = (agent(work.path()), work.path().join("bundle-key"));
    let secret = imprint::age::Identity::from_bytes(&[7; 32]).to_text();
    for (good, text) in [
        (true, format!("# created: 2026-11-30T00:00:00Z\n\n  {}\r\n# end", *secret)),
        (false, String::new()),
        (false, format!("{}\n{}\n", *secret, *secret)),
        (false, format!("{}Q", *secret)),
    ] {
        std::fs::write(&file, &text).unwrap();
        let built = build(&[("IMPRINT_BINARY", &agent), ("IMPRINT_BUNDLE_KEY", file.to_str().unwrap())], "");
        assert_eq!(built.built, good, "{text:?}\n{}", built.said);
        let key = built.image.path().join("imprint/bundle-key");
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(built.said.contains(&file.display().to_string()), !good, "{}", built.said);
        assert!(!built.said.contains(&secret[..30]), "{}", built.said);
    }
    let built = build(&[("IMPRINT_BUNDLE_KEY", "/nowhere")], "");
    assert!(!built.built && built.said.contains("FATAL imprint: /nowhere is the bundle key, and cannot be read"));
}

/// The kernel unpacks a file of a later archive into a folder that is there, and drops it silently where there is none.
/// Without net-lib, dracut 110 and later leave out the rules that links are named by.
#[test]
fn what_every_image_has() {
    for included in ["systemd-initrd", ""] {
        let built = build(&[], included);
        assert!(built.built, "{}", built.said);
        let folder = built.image.path().join("imprint").metadata().unwrap();
        assert!(folder.is_dir());
        assert_eq!(folder.permissions().mode() & 0o7777, 0o700);
        assert!(!built.image.path().join("imprint/site").exists());
        assert!(!built.image.path().join("imprint/network").exists());
        for line in [
            "file /usr/bin/imprint",
            "rules 75-net-description.rules 80-net-name-slot.rules 80-net-setup-link.rules",
            "files -o /usr/lib/systemd/network/*.link",
        ] {
            assert!(built.said.lines().any(|said| said == line), "{line}\n{}", built.said);
        }
        let unit = built.said.contains("file /usr/lib/systemd/system/imprint.service");
        assert_eq!((unit, built.said.contains("hook initqueue\n")), (!included.is_empty(), included.is_empty()));
    }
    assert!(Path::new(MODULE).join("imprint-run.sh").exists());
}
