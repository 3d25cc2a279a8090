//! Tests of bundle keys on media: drives that other people's programs write, and the agent's own reader processes. Plugging in and
//! pulling is done where the console is told of it, so nothing waits for a time.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use imprint::age::Identity;
use imprint::payload::BundleKey;
use imprint::source::bundle_key::{Around, BundleKeyError, Held, find};
use imprint::time::Deadline;
use imprint_host::state::MadeKey;
use imprint_tests::patience::PATIENCE;
use imprint_tests::programs;

fn identity(number: u8) -> Identity {
    Identity::from_bytes(&[number; 32])
}

/// What a payload says: the node's key is number 7, on a stick.
fn wanted(pull: bool) -> BundleKey {
    BundleKey::Stick { recipient: identity(7).recipient(), pull }
}

/// A machine, and the files that media are made of.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Machine {
        let root = tempfile::tempdir().unwrap();
        for folder in ["sys/block", "dev", "made/imprint"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        Machine(root)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Plugs in a drive with these bytes, on a USB bus.
    fn plug(&self, name: &str, image: &[u8]) {
        fs::write(self.path("dev").join(name), image).unwrap();
        symlink(format!("../devices/pci0000:00/usb1/1-1/block/{name}"), self.path("sys/block").join(name)).unwrap();
    }

    fn pull(&self, name: &str) {
        fs::remove_file(self.path("sys/block").join(name)).unwrap();
        fs::remove_file(self.path("dev").join(name)).unwrap();
    }

    /// A FAT volume of mtools with the label IMPRINT-KEY and these files below imprint/.
    fn fat(&self, files: &[(&str, &[u8])]) -> Vec<u8> {
        let image = self.path("made/fat");
        let image = image.to_str().unwrap();
        let _ = fs::remove_file(image);
        tool("mformat", &["-C", "-i", image, "-v", "IMPRINT-KEY", "-f", "1440", "::"]);
        tool("mmd", &["-i", image, "::/imprint"]);
        for (name, bytes) in files {
            let file = self.path("made/file");
            fs::write(&file, bytes).unwrap();
            tool("mcopy", &["-i", image, file.to_str().unwrap(), &format!("::/imprint/{name}")]);
        }
        fs::read(image).unwrap()
    }

    /// A disc of genisoimage.
    fn iso(&self, bytes: &[u8]) -> Vec<u8> {
        let (from, image) = (self.path("made/disc"), self.path("made/iso"));
        fs::create_dir_all(from.join("imprint")).unwrap();
        fs::write(from.join("imprint/bundle-key"), bytes).unwrap();
        let (from, to) = (from.to_str().unwrap(), image.to_str().unwrap());
        tool("genisoimage", &["-quiet", "-J", "-R", "-V", "IMPRINT-KEY", "-o", to, from]);
        fs::read(image).unwrap()
    }

    /// A stick with a key as age-keygen writes it.
    fn stick(&self, number: u8) -> Vec<u8> {
        let text = format!("# public key: {}\n{}\n", identity(number).recipient(), *identity(number).to_text());
        self.fat(&[("bundle-key", text.as_bytes())])
    }

    /// Looks for the key. `told` hears each word on the console, and may plug in and pull.
    fn find(&self, key: &BundleKey, until: Until, told: &mut dyn FnMut(&str)) -> Result<Held, BundleKeyError> {
        self.find_within(PATIENCE, key, until, told)
    }

    /// The same. `patience`: a drive that has not answered for so long is not waited for.
    fn find_within(
        &self,
        patience: Duration,
        key: &BundleKey,
        until: Until,
        told: &mut dyn FnMut(&str),
    ) -> Result<Held, BundleKeyError> {
        let around = Around {
            root: self.0.path(),
            program: &programs::agent(),
            patience,
            again: Duration::from_millis(20),
            remind: Duration::from_millis(20),
        };
        find(key, &around, until.found, until.pulled, told)
    }
}

/// Until when the key has to be found, and pulled.
#[derive(Clone, Copy)]
struct Until {
    found: Deadline,
    pulled: Deadline,
}

fn later() -> Until {
    Until { found: Deadline::after(PATIENCE), pulled: Deadline::after(PATIENCE) }
}

fn tool(name: &str, arguments: &[&str]) {
    let output = Command::new(name).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The error that is left when the time is over. How long the drives take is not known, so the time grows until they are read.
fn at_the_end(machine: &Machine, is_it: impl Fn(&BundleKeyError) -> bool) -> BundleKeyError {
    let mut seconds = 1;
    loop {
        let until = Until { found: Deadline::after(Duration::from_secs(seconds)), ..later() };
        match machine.find(&wanted(false), until, &mut |_| {}) {
            Err(error) if is_it(&error) => return error,
            other => assert!(seconds < PATIENCE.as_secs(), "{other:?}"),
        }
        seconds *= 2;
    }
}

/// The main path, for each format of a stick. Its admission key is no concern here.
#[test]
fn a_stick_brings_the_key() {
    let machine = Machine::new();
    let text = identity(7).to_text();
    let admission = MadeKey::new().unwrap();
    let both = machine.fat(&[("key", admission.pem.as_bytes()), ("bundle-key", text.as_bytes())]);
    for (name, image) in [("sdb", machine.stick(7)), ("sdc", both), ("sr0", machine.iso(text.as_bytes()))] {
        machine.plug(name, &image);
        let held = machine.find(&wanted(false), later(), &mut |words| panic!("{words}")).unwrap();
        assert_eq!((held.identity, held.from.to_string()), (identity(7), format!("{name} (IMPRINT-KEY)")));
        machine.pull(name);
    }
}

/// No stick, a stick that holds an admission key only, and then the right one.
#[test]
fn a_stick_that_comes_later_is_found() {
    let machine = Machine::new();
    let other = machine.fat(&[("key", MadeKey::new().unwrap().pem.as_bytes())]);
    let mut told = Vec::new();
    let held = machine.find(&wanted(false), later(), &mut |words| {
        match told.len() {
            0 => machine.plug("sda", &other),
            1 => machine.plug("sdb", &machine.stick(7)),
            _ => panic!("{words}"),
        }
        told.push(words.to_owned());
    });
    assert_eq!(held.unwrap().from.to_string(), "sdb (IMPRINT-KEY)");
    let rest = "; plug in the stick with the label IMPRINT-KEY and the file imprint/bundle-key; waiting up to ";
    assert!(told[0].starts_with(&format!("no medium with a bundle key{rest}")), "{told:?}");
    let near = "no medium with a bundle key (sda (IMPRINT-KEY) has no file imprint/bundle-key)";
    assert!(told[1].starts_with(&format!("{near}{rest}")), "{told:?}");
    // The time may be over.
    machine.pull("sdb");
    let error = at_the_end(&machine, |error| matches!(error, BundleKeyError::NoStick(near) if !near.is_empty()));
    assert!(error.to_string().starts_with(near), "{error}");
}

/// The accident: the stick of another node is in the machine, too. Neither counts, also if both have the same key: both would
/// have to be pulled. Once one is gone, the other counts.
#[test]
fn of_two_sticks_none_counts() {
    for (second, other) in [(8, "sdb"), (7, "sda")] {
        let machine = Machine::new();
        machine.plug("sda", &machine.stick(7));
        machine.plug("sdb", &machine.stick(second));
        let error = at_the_end(&machine, |error| matches!(error, BundleKeyError::TwoSticks { .. }));
        let words = "two media have a bundle key, sda (IMPRINT-KEY) and sdb (IMPRINT-KEY); pull the one that is not this node's";
        assert_eq!(error.to_string(), words);
        let held = machine.find(&wanted(false), later(), &mut |told| {
            assert!(told.starts_with(words), "{told}");
            machine.pull(other);
        });
        assert_eq!(held.unwrap().identity, identity(7));
    }
}

/// One that is broken beside a good one may be the one that was meant.
#[test]
fn a_broken_stick_beside_a_good_one_is_one_of_two() {
    let machine = Machine::new();
    machine.plug("sda", &machine.stick(7));
    machine.plug("sdb", &machine.fat(&[("bundle-key", b"no key")]));
    at_the_end(&machine, |error| matches!(error, BundleKeyError::TwoSticks { .. }));
}

/// A stick that was pulled half-way: its directory can be read, and its file cannot. It is named, and read again without an event.
#[test]
fn a_stick_that_was_pulled_half_way_is_read_again() {
    let machine = Machine::new();
    let whole = machine.stick(7);
    let secret = identity(7).to_text();
    let at = whole.windows(secret.len()).position(|bytes| bytes == secret.as_bytes()).unwrap();
    // A file system is read in sectors of 512 bytes; the sector with the file is missing.
    machine.plug("sdb", &whole[..at / 512 * 512]);
    let mut told = Vec::new();
    let held = machine.find(&wanted(false), later(), &mut |words| {
        fs::write(machine.path("dev/sdb"), &whole).unwrap();
        told.push(words.to_owned());
    });
    assert_eq!(held.unwrap().identity, identity(7));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("no bundle key in imprint/bundle-key on sdb (IMPRINT-KEY): reading its file "),
        "{told:?}"
    );
}

/// What is in the file is not shown: it may be a key that is a little wrong.
#[test]
fn a_stick_with_something_else_is_named() {
    let secret = identity(7).to_text();
    let recipient = identity(7).recipient().to_string();
    for (bytes, why) in [
        (&b""[..], "not an age identity; "),
        (&secret.as_bytes()[..70], "not an age identity; "),
        (recipient.as_bytes(), "this is a recipient, a public key; "),
        (&[b'#'; 5000], "it has 5000 bytes, and 4096 are read"),
    ] {
        let machine = Machine::new();
        machine.plug("sdb", &machine.fat(&[("bundle-key", bytes)]));
        let error = at_the_end(&machine, |error| matches!(error, BundleKeyError::Stick { .. })).to_string();
        let want = format!("no bundle key in imprint/bundle-key on sdb (IMPRINT-KEY): {why}");
        assert!(error.starts_with(&want) && error.ends_with("; plug it in again, or write the file again"), "{error}");
        assert!(!error.contains(&secret[..30]), "{error}");
    }
}

/// The attack: somebody plugs in a stick of his own, with the right label and a key of his own. What the node makes would be encrypted
/// for him. The boot goes on with the node's own stick.
#[test]
fn the_stick_of_a_stranger_does_not_count() {
    let machine = Machine::new();
    machine.plug("sdb", &machine.stick(9));
    // The premise: it is a good stick, and counts where it is the one that the payload names.
    let his = BundleKey::Stick { recipient: identity(9).recipient(), pull: false };
    assert_eq!(machine.find(&his, later(), &mut |words| panic!("{words}")).unwrap().identity, identity(9));
    let error = at_the_end(&machine, |error| matches!(error, BundleKeyError::OtherStick { .. }));
    let want = format!(
        "the bundle key on sdb (IMPRINT-KEY) is that of {}, and this node's is that of {}; pull it, and plug in the node's own stick; \
         if the node has a new key, write its bundle_recipient into the record and make a new payload",
        identity(9).recipient(),
        identity(7).recipient()
    );
    assert_eq!(error.to_string(), want);
    let held = machine.find(&wanted(false), later(), &mut |words| {
        if words.starts_with(&want) {
            machine.pull("sdb");
            machine.plug("sdc", &machine.stick(7));
        }
    });
    let held = held.unwrap();
    assert_eq!((held.identity, held.from.to_string()), (identity(7), "sdc (IMPRINT-KEY)".to_owned()));
}

/// The accident: the stick stays in the machine, and whoever steals the machine has the key. The boot goes on once it is gone, and
/// a person is told again and again until then.
#[test]
fn a_stick_that_has_to_be_pulled_is_waited_for() {
    let machine = Machine::new();
    machine.plug("sdb", &machine.stick(7));
    let mut told: Vec<String> = Vec::new();
    let held = machine.find(&wanted(true), later(), &mut |words| {
        told.push(words.to_owned());
        if told.len() == 3 {
            machine.pull("sdb");
        }
    });
    assert_eq!(held.unwrap().identity, identity(7));
    let pull = "pull the medium with the bundle key, sdb (IMPRINT-KEY); the boot waits for that";
    assert_eq!(told, [pull, pull, pull, "the medium with the bundle key, sdb (IMPRINT-KEY), is gone"]);
    // Nobody pulls it.
    machine.plug("sdb", &machine.stick(7));
    let until = Until { pulled: Deadline::after(Duration::ZERO), ..later() };
    let error = machine.find(&wanted(true), until, &mut |_| {}).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the medium with the bundle key, sdb (IMPRINT-KEY), was not pulled in time; pull it, and boot again"
    );
    // One that need not be pulled is not waited for.
    assert_eq!(machine.find(&wanted(false), until, &mut |words| panic!("{words}")).unwrap().identity, identity(7));
}

/// A drive that never answers, by a FIFO that nobody writes to: it is named, and the other one is used.
#[test]
fn a_drive_that_never_answers_does_not_hold_the_boot() {
    let machine = Machine::new();
    machine.plug("sda", b"");
    fs::remove_file(machine.path("dev/sda")).unwrap();
    nix::unistd::mkfifo(&machine.path("dev/sda"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    machine.plug("sdb", &machine.stick(7));
    let mut told = Vec::new();
    let patience = Duration::from_millis(200);
    let held = machine.find_within(patience, &wanted(false), later(), &mut |words| told.push(words.to_owned()));
    assert_eq!(held.unwrap().from.to_string(), "sdb (IMPRINT-KEY)");
    let want = "sda: not read for a bundle key: the drive has not answered for ";
    assert!(told.iter().any(|words| words.starts_with(want)), "{told:?}");
}

/// `imprint check` as people run it shows the public key, as a record names it, and nothing of the secret.
#[test]
fn the_agent_shows_a_key() {
    let work = tempfile::tempdir().unwrap();
    let file = work.path().join("bundle-key");
    let secret = identity(7).to_text();
    fs::write(&file, format!("{}\n", *secret)).unwrap();
    let (code, shown) = check(&file);
    assert_eq!(code, Some(0), "{shown}");
    let record = format!("               bundle_recipient = \"{}\"\n", identity(7).recipient());
    assert!(shown.contains(&record), "{shown}");
    assert!(shown.contains("chmod 0600"), "others can read it: {shown}");
    assert!(!shown.contains(&secret[..30]), "{shown}");
    fs::write(&file, &secret[..70]).unwrap();
    let (code, shown) = check(&file);
    assert_eq!(code, Some(11), "{shown}");
    assert!(!shown.contains(&secret[..30]), "{shown}");
}

fn check(file: &Path) -> (Option<i32>, String) {
    let output = Command::new(programs::agent()).arg("check").arg(file).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
}
