//! What a guest says of itself: the parts that tests/vm/91imprint-test/imprint-report writes. Decides nothing.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::Init;

/// The guest's report.
pub struct Report {
    parts: BTreeMap<String, String>,
    /// Everything on the serial console.
    pub console: String,
    init: Init,
    /// The seconds of this machine's clock in which the guest ran.
    ran: RangeInclusive<u64>,
}

impl Report {
    /// `report`: what the guest wrote. `ran`: the seconds of this machine's clock in which it ran.
    pub(super) fn new(report: &str, console: String, init: Init, ran: RangeInclusive<u64>) -> Report {
        Report { parts: parts(report), console, init, ran }
    }

    /// One part of the report, trimmed.
    pub fn part(&self, name: &str) -> &str {
        self.parts.get(name).map(|text| text.trim()).unwrap_or_else(|| panic!("no part {name} in the report"))
    }

    /// `root` when the boot went on, `emergency` when it was stopped.
    pub fn ended_in(&self) -> &str {
        self.part("where")
    }

    /// The agent's exit code.
    pub fn exit_code(&self) -> u8 {
        if self.init == Init::Bare {
            // Nobody but process 1 sees it, and that goes on to a root only after 0 (src/init.rs, `part`).
            assert_ne!(self.ended_in(), "emergency", "a bare image that was stopped has its exit code on no file");
            return 0;
        }
        self.part("exit").parse().unwrap_or_else(|_| panic!("exit code: {}", self.part("exit")))
    }

    /// status.json
    pub fn status(&self) -> imprint::status::Status {
        serde_json::from_str(self.part("status")).unwrap_or_else(|error| panic!("{error}: {}", self.part("status")))
    }

    /// Stage and message of the failure in status.json.
    pub fn failure(&self) -> (String, String) {
        let failure = self.status().error.expect("status.json has an error");
        (failure.stage, failure.message)
    }

    /// File system and options of the mount at `place`, as in /proc/mounts.
    pub fn mount(&self, place: &str) -> String {
        let fields = |line: &str| line.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
        let mounts: Vec<_> = self.part("mounts").lines().map(fields).filter(|fields| fields[1] == place).collect();
        assert_eq!(mounts.len(), 1, "mounts on {place}: {mounts:?}");
        format!("{} {}", mounts[0][2], mounts[0][3])
    }

    /// Permissions as `ls` shows them.
    pub fn mode(&self, path: &str) -> &str {
        let mode = |line: &'_ str| line.split(' ').nth(1).is_some_and(|name| name == path);
        let line = self.part("modes").lines().find(|line| mode(line));
        line.and_then(|line| line.split(' ').next()).unwrap_or_else(|| panic!("no {path}: {}", self.part("modes")))
    }

    /// Every file under /run/imprint, sorted.
    pub fn file_names(&self) -> Vec<&str> {
        let files = self.part("modes").lines().filter(|line| line.starts_with('-'));
        let mut names: Vec<&str> = files.filter_map(|line| line.split("/run/imprint/").nth(1)).collect();
        names.sort_unstable();
        names
    }

    /// Asserts that this machine's clock set a clock of the guest while the guest ran. `value` is that clock in the
    /// guest's report. So `value` is not before the guest was switched on, even if the emulated machine lost time, and
    /// not after the guest was seen to be off. Both moments were measured, so no limit is needed.
    #[track_caller]
    pub fn was_set(&self, clock: &str, value: u64) {
        // A Date names a second, and the agent takes its middle. Emulated clocks that were calibrated on a busy machine
        // run fast.
        let (first, last) = (self.ran.start() - 1, self.ran.end() + 1);
        let fast = (last - first) / 10;
        assert!((first..=last + fast).contains(&value), "{clock}: {value}, it ran from {first} to {last}");
    }

    /// Seconds since the epoch in the guest when it reported.
    pub fn date(&self) -> u64 {
        self.part("date").parse().unwrap()
    }
}

fn parts(report: &str) -> BTreeMap<String, String> {
    let mut parts = BTreeMap::new();
    for part in report.split("@@ ").skip(1) {
        let (name, text) = part.split_once('\n').unwrap_or((part, ""));
        parts.insert(name.trim().to_owned(), text.to_owned());
    }
    parts
}
