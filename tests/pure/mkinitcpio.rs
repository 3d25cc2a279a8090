//! Tests of the build hook for mkinitcpio: what it puts into an image, and when it refuses to build one. mkinitcpio's functions are
//! replaced by stand-ins that record their calls, because Debian has no mkinitcpio. Builds no image.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use imprint_tests::programs;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../mkinitcpio");

/// Enough of mkinitcpio's `functions` for `build`.
const STAND_INS: &str = r#"
    die() { printf "ERROR $1\n" "${@:2}"; exit 1; }
    warning() { printf "WARNING $1\n" "${@:2}"; }
    map() { for _ in "${@:2}"; do "$1" "$_"; done; }
    add_dir() { mkdir -p -m "$2" "$BUILDROOT$1"; }
    add_binary() { echo "binary $2"; }
    add_file() { mkdir -p "$(dirname "$BUILDROOT${2:-$1}")"; install -m "${3:-644}" "${1/#-//dev/stdin}" "$BUILDROOT${2:-$1}"; echo "file ${2:-$1}"; }
    add_udev_rule() { echo "rule $1"; }
    add_module() { echo "module $1"; }
    add_checked_modules() { echo "modules $1"; }
    add_runscript() { echo runscript; }
    systemctl() { echo "systemctl $*"; }
    BUILDROOT=$2
    . "$1/install/imprint"
    build
    exit 0
"#;

struct Built {
    built: bool,
    said: String,
    image: tempfile::TempDir,
}

fn build(variables: &[(&str, &str)], systemd: bool) -> Built {
    let image = tempfile::tempdir().unwrap();
    if systemd {
        std::fs::create_dir_all(image.path().join("usr/lib/systemd")).unwrap();
        std::fs::write(image.path().join("usr/lib/systemd/systemd"), "").unwrap();
    }
    let mut bash = Command::new("bash");
    bash.args(["-c", STAND_INS, "bash", FOLDER]).arg(image.path()).env("IMPRINT_BINARY", programs::agent());
    bash.env("IMPRINT_UNIT", concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/imprint.service"));
    for name in ["IMPRINT_SITE", "IMPRINT_NETWORK", "IMPRINT_KEY", "IMPRINT_BUNDLE_KEY"] {
        bash.env(name, "");
    }
    let output = bash.envs(variables.iter().copied()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Built { built: output.status.success(), said: String::from_utf8_lossy(&said).into_owned(), image }
}

#[test]
fn what_every_image_has() {
    for systemd in [false, true] {
        let built = build(&[], systemd);
        assert!(built.built, "{}", built.said);
        let has = |line: &str| built.said.lines().any(|said| said == line);
        for line in ["binary /usr/bin/imprint", "rule 80-net-setup-link.rules", "module virtio_blk?", "module overlay?"]
        {
            assert!(has(line), "{line}\n{}", built.said);
        }
        let folder = built.image.path().join("imprint").metadata().unwrap();
        assert_eq!(folder.permissions().mode() & 0o7777, 0o700);
        assert_eq!((has("runscript"), has("file /imprint-prompt")), (!systemd, !systemd), "{}", built.said);
        for unit in ["imprint.service", "imprint-apply.service", "imprint-swap.service"] {
            assert_eq!(has(&format!("file /usr/lib/systemd/system/{unit}")), systemd, "{}", built.said);
        }
        let enabled = built.said.contains(" enable imprint.service imprint-apply.service imprint-swap.service");
        assert_eq!(enabled, systemd, "{}", built.said);
    }
}

/// mkinitcpio goes on when a hook fails, and the image has no agent, or a pin that stops every boot.
#[test]
fn what_is_wrong_ends_the_build() {
    let work = tempfile::tempdir().unwrap();
    let site = work.path().join("site");
    std::fs::write(&site, "0123\n").unwrap();
    let pin = format!(
        "ERROR imprint: every boot of this image would be stopped: imprint: source: site pin {}: line 1 is wrong",
        site.display()
    );
    for (variable, value, words) in [
        ("IMPRINT_BINARY", "/nowhere", "ERROR imprint: /nowhere is not a program; install the agent there"),
        ("IMPRINT_KEY", "/nowhere", "ERROR imprint: /nowhere is the admission key, and cannot be read"),
        ("IMPRINT_UNIT", "/nowhere", "ERROR imprint: /nowhere is no unit"),
        ("IMPRINT_SITE", site.to_str().unwrap(), pin.as_str()),
    ] {
        let built = build(&[(variable, value)], true);
        assert!(!built.built && built.said.contains(words), "{variable}={value}: {}", built.said);
    }
}

#[test]
fn files_that_are_named_are_put_in() {
    let work = tempfile::tempdir().unwrap();
    let file = work.path().join("key");
    std::fs::write(&file, imprint_host::state::MadeKey::new().unwrap().pem.as_str()).unwrap();
    let built = build(&[("IMPRINT_KEY", file.to_str().unwrap())], false);
    assert!(built.built, "{}", built.said);
    let key = built.image.path().join("imprint/key").metadata().unwrap();
    assert_eq!(key.permissions().mode() & 0o7777, 0o600);
}

/// mkinitcpio finds the functions of a run-time hook by their names, at the beginning of a line.
#[test]
fn the_run_time_hook_has_its_functions() {
    let hook = std::fs::read_to_string(Path::new(FOLDER).join("hooks/imprint")).unwrap();
    let functions: Vec<&str> = hook.lines().filter_map(|line| line.strip_suffix("() {")).collect();
    assert_eq!(functions, ["run_hook", "run_latehook", "imprint_prompt"]);
}
