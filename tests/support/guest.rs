//! Runs the cases of tests/vm/cases in a guest with a real Debian (scripts/debian-guest), many in one boot, and reads what each said.
//! Decides nothing about a case: the case itself does, and the test that asks for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a boot of the guest said of its cases.
pub struct Cases {
    /// Each case: whether it passed, and everything that it said.
    pub cases: BTreeMap<String, (bool, String)>,
}

/// Long enough for a machine on which everything is slow: a case takes some seconds.
const LIMIT: Duration = Duration::from_secs(1500);
/// The emulated processor, as in other boots.
const CPU: &str = "qemu64,-cx16,+rdrand";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The names of the cases of a folder.
pub fn cases_in(folder: &str) -> Vec<String> {
    let files = fs::read_dir(repository().join("tests/vm/cases").join(folder)).unwrap();
    let names = files.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> =
        names.filter_map(|name| Some(format!("{folder}/{}", name.strip_suffix(".sh")?))).collect();
    names.sort();
    names
}

/// Boots the guest once, and runs all cases of a folder. `words`: more for the kernel command line.
pub fn run(folder: &str, words: &str) -> Cases {
    let base = PathBuf::from(printed(Command::new(repository().join("scripts/debian-guest")).arg("stable")));
    let work = tempfile::tempdir().unwrap();
    let file = |name: &str| work.path().join(name);
    let disk = file("disk");
    fs::create_dir_all(disk.join("bin")).unwrap();
    printed(Command::new("cp").arg("-rT").arg(repository().join("tests/vm/cases")).arg(&disk));
    for program in ["imprint", "imprint-host"] {
        let built = repository().join("dist/x86_64").join(program);
        fs::copy(&built, disk.join("bin").join(program)).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
    }
    printed(Command::new("mksquashfs").arg(&disk).arg(file("cases")).args([
        "-quiet",
        "-no-progress",
        "-all-root",
        "-comp",
        "gzip",
    ]));
    let append = format!(
        "console=ttyS0 panic=-1 mitigations=off no_timer_check quiet imprint.timeout=60 cases={folder} {words}"
    );
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        CPU,
        "-m",
        "1024",
        "-display",
        "none",
        "-nodefaults",
        "-no-reboot",
    ]);
    qemu.arg("-kernel").arg(base.join("vmlinux")).arg("-initrd").arg(base.join("initramfs")).args(["-append", &append]);
    for (id, image) in [("root", base.join("root")), ("cases", file("cases"))] {
        let drive = format!("file={},if=none,id={id},format=raw,readonly=on", image.display());
        qemu.args(["-drive", &drive, "-device", &format!("virtio-blk-pci,drive={id}")]);
    }
    // Two links of devices, and the far end of each, which a case may give to the switch.
    for number in 1..=2 {
        for (end, side) in [("near", 0), ("far", 1)] {
            qemu.args(["-netdev", &format!("hubport,id={end}{number},hubid={number}")]);
            let mac = format!("52:54:00:00:0{side}:0{number}");
            qemu.args(["-device", &format!("virtio-net-pci,netdev={end}{number},mac={mac},speed=10000,duplex=full")]);
        }
    }
    for port in ["console", "report"] {
        qemu.args(["-serial", &format!("file:{}", file(port).display())]);
    }
    let mut running = qemu.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("qemu-system-x86_64: {error}"));
    let began = Instant::now();
    while running.try_wait().unwrap().is_none() && began.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(200));
    }
    let _ = running.kill();
    let _ = running.wait();
    let text = |name: &str| String::from_utf8_lossy(&fs::read(file(name)).unwrap_or_default()).replace('\r', "");
    let (report, console) = (text("report"), text("console"));
    assert!(report.ends_with("END\n"), "the guest did not end; its report:\n{report}\nits console:\n{console}");
    Cases { cases: parse(&report) }
}

fn parse(report: &str) -> BTreeMap<String, (bool, String)> {
    let mut cases = BTreeMap::new();
    let mut name = String::new();
    for line in report.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["CASE", case, verdict, ..] = words.as_slice() {
            name = (*case).to_owned();
            cases.insert(name.clone(), (*verdict == "PASS", String::new()));
        }
        if let Some((_, said)) = cases.get_mut(&name) {
            said.push_str(line);
            said.push('\n');
        }
    }
    cases
}

impl Cases {
    /// Fails if a case of the folder failed or was not run.
    pub fn all_passed(&self, folder: &str) {
        let names: Vec<String> = self.cases.keys().cloned().collect();
        assert_eq!(names, cases_in(folder), "each file is a case that was run");
        let failed: Vec<&str> =
            self.cases.values().filter(|(passed, _)| !passed).map(|(_, said)| said.as_str()).collect();
        assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), names.len(), failed.join("\n"));
    }

    /// What a case has measured: `MEASURED NAME VALUE`.
    pub fn measured(&self, name: &str) -> Option<f64> {
        let lines = self.cases.values().flat_map(|(_, said)| said.lines());
        lines
            .filter_map(|line| {
                line.strip_prefix("MEASURED ")?.strip_prefix(name)?.split_whitespace().next()?.parse().ok()
            })
            .next()
    }
}
