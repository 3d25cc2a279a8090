//! Tests of a stateless node from a live server to the real root: the bundle is fetched and applied, its units run, and the server
//! knows; and a bundle that cannot be had stops the boot, until somebody at the console helps.

use std::net::Shutdown;
use std::process::{Command, Stdio};
use std::time::Duration;

use imprint::bundle::{UnitAction, Verb};
use imprint::payload::{NodeName, Payload, UnitName};
use imprint::setting::{Key, Settings};
use imprint::status::BundleState;
use imprint_host::bundles::{self, Content, Source};
use imprint_host::store::AvailableRow;
use imprint_tests::programs;

use super::super::line::{connected, until};
use super::super::prompt::{PROMPT, SOON, types, types_until, with_a_person};
use super::file;
use crate::*;

const STATELESS: Node = Node { bind: "{ serial = \"VM-0001\" }\nbundle_key = \"payload\"", enrol: "each-boot", ..NODE };

const UNIT: &str = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'echo ran >>/run/from-bundle'\n\
                    [Install]\nWantedBy=multi-user.target\n";

/// As the dialogue makes one.
const HASH: &str = "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1";

/// An administrator makes the node's next bundle. Root has a password by it, as by the dialogue.
fn make(site: &Site, hostname: &str, unit: &str) {
    let mut settings = Settings::default();
    settings.add(Key::Password, HASH).unwrap();
    let of_settings = settings.bundle(NodeName::try_from("node1").unwrap(), 1).unwrap();
    let mut entries = vec![
        file("etc/hostname", &format!("{hostname}\n")),
        file("etc/imprint-laid", "laid\n"),
        file("etc/imprint-new/deep/file", "new\n"),
        file("etc/systemd/system/from-bundle.service", UNIT),
    ];
    entries.extend_from_slice(of_settings.entries());
    let mut units = vec![UnitAction { verb: Verb::Enable, unit: UnitName::try_from(unit).unwrap() }];
    units.extend_from_slice(of_settings.units());
    bundles::make(&mut site.state(), "node1", Source::Content(Content { units, entries }), &[], Timestamp::system())
        .unwrap();
}

/// The payload of each boot, now that there is a bundle.
fn payload(site: &Site) -> Payload {
    let options = compose::Options { expires: DAY, ..Default::default() };
    let made = site.state().payload("node1", &options, Timestamp::system()).unwrap();
    Payload::unwrapped(&made.bytes).unwrap()
}

/// A root with systemd, and without imprint.
fn root(work: &Path) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (image, changed) = (work.join("root.img"), work.join("changed"));
    // The folders of a real system that the sandbox of the unit names.
    std::fs::create_dir_all(changed.join("var/tmp")).unwrap();
    std::fs::create_dir(changed.join("etc")).unwrap();
    std::fs::write(changed.join("etc/shadow"), "root:*:20000:0:99999:7:::\n").unwrap();
    let made = Command::new(tests.join("vm/quickstart/small-root"))
        .args([&image, &changed, &tests.join("vm/bundle/report")])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    image
}

fn told(site: &Site) -> Option<AvailableRow> {
    site.state().store.available("node1").unwrap()
}

fn boot(site: &Site, image: &Path) -> Report {
    let drive = site.config_drive(&payload(site).encode());
    machine(Kernel::Stable).optical(&drive).root_disk(image).qemu(&["-m", "1024"]).boot()
}

/// Two boots and nobody at the console; between them the administrator changes the configuration. The root's disk is written by
/// neither of them, below what the bundle covers.
#[test]
fn each_boot_has_the_current_configuration_without_anybody() {
    let site = Site::new(STATELESS);
    let image = root(site.work.path());
    for (counter, hostname) in [(1, "first"), (2, "second")] {
        make(&site, hostname, "from-bundle.service");
        let report = boot(&site, &image);
        let all = format!("{}\n{}", report.part("journal"), report.console);
        assert_eq!(report.part("applied"), counter.to_string(), "{all}");
        assert_eq!(report.part("hostname-file"), hostname, "{all}");
        let available = report.part("available");
        assert!(available.contains("ActiveState=active") && available.contains("Result=success"), "{available}\n{all}");
        // Enabled by the bundle, and started once.
        assert_eq!(
            (report.part("unit"), report.part("ran")),
            ("ActiveState=active\nUnitFileState=enabled-runtime", "ran")
        );
        assert!(report.part("shadow").starts_with(&format!("root:{HASH}:")), "{}\n{all}", report.part("shadow"));
        let bundle = report.status().bundle.unwrap();
        assert_eq!((bundle.counter, bundle.state, bundle.error), (counter, BundleState::Available, None), "{all}");
        let row = told(&site).expect("the server knows");
        assert_eq!((row.counter, row.available), (counter, true));
    }
}

/// A unit that is not there: the machine runs, and the server knows why it is not available.
#[test]
fn a_unit_that_fails_is_reported() {
    let site = Site::new(STATELESS);
    let image = root(site.work.path());
    make(&site, "first", "missing.service");
    let report = boot(&site, &image);
    let all = format!("{}\n{}", report.part("journal"), report.console);
    assert_eq!(report.part("hostname-file"), "first", "{all}");
    assert!(report.part("available").contains("Result=exit-code"), "{}\n{all}", report.part("available"));
    let row = told(&site).expect("the server knows");
    assert_eq!((row.counter, row.available), (1, false), "{all}");
    assert!(
        row.detail.is_some_and(|detail| detail.starts_with("enable missing.service: systemctl ended with")),
        "{all}"
    );
    let bundle = report.status().bundle.unwrap();
    assert_eq!(bundle.state, BundleState::Applied);
    assert!(bundle.error.is_some(), "{all}");
}

/// An old bundle, as somebody may have kept it: the payload asks for a newer one. The boot stops. The administrator makes another
/// version, and somebody at the console lets the host in, which brings a payload down the same line, sealed: pasted, the bundle's
/// key would be in the logs of the line.
#[test]
fn a_bundle_that_cannot_be_had_stops_the_boot_until_somebody_helps() {
    let site = Site::new(STATELESS);
    make(&site, "first", "from-bundle.service");
    let mut asks_more = payload(&site);
    asks_more.bundle.as_mut().unwrap().least = 2;
    let drive = site.config_drive(&asks_more.encode());
    let console = site.work.path().join("console");
    let machine = machine(Kernel::Stable).init(Init::Plain).optical(&drive).limit(Duration::from_secs(1200));
    let (report, seen) = with_a_person(machine, site.work.path(), |line, seen| {
        until(line, seen, PROMPT);
        assert!(seen.contains("the bundle has counter 1, and the payload wants at least 2"), "{seen}");
        assert!(seen.contains("stopped with exit code 20: bundle: "), "{seen}");
        make(&site, "second", "from-bundle.service");
        types_until(line, seen, ("imprint console", PATIENCE), &["--as text"]);
        // The host takes the line over from whoever typed.
        line.shutdown(Shutdown::Both).unwrap();
        let injected = Command::new(programs::host())
            .arg("--dir")
            .arg(site.work.path().join("state"))
            .args(["inject", "node1", "--timeout", "400s", "--call", "--line", &format!("unix:{}", console.display())])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(injected.status.success(), "{}", String::from_utf8_lossy(&injected.stderr));
        *line = connected(&console);
        types_until(line, seen, ("", SOON), &[PROMPT]);
        types(line, "exit");
    });
    assert_eq!(report.ended_in(), "root", "{seen}");
    assert_eq!((report.part("apply"), report.part("applied")), ("0", "2"), "{seen}");
    assert!(report.part("laid").starts_with("laid\nnew\n"), "{}", report.part("laid"));
}
