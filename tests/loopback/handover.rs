//! Tests of `enroll` and `renew` that are stopped at any point: the folder then holds the old identity or the new one,
//! whole, or none if there was none. Only one program at a time works in a folder.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use imprint::chain::chain;
use imprint::handover::Folder;
use imprint::handover::crash::POINTS;
use imprint::run;
use imprint_tests::identity::{FILES, found, whole};
use imprint_tests::programs;
use imprint_tests::served::Served;

const NODE1: &str = "name = \"node1\"\nsubject = [\"CN=node1\"]\nsans = [\"dns:node1.example\"]\n";

struct Site {
    served: Served,
    work: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        Site { served: Served::start(&[NODE1], &[]), work: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// Payloads with certificate and key, so that no server is asked.
    fn payloads<const N: usize>(&self, names: [&str; N]) -> [PathBuf; N] {
        names.map(|name| {
            let file = self.file(name);
            self.served.host(&["payload", "node1", "--credentials", "-o", file.to_str().unwrap()]);
            file
        })
    }
}

/// The agent, killed at one of its points, or not.
fn agent(words: &[&str], files: [&Path; 2], crash: &str) -> Output {
    let [first, second] = files;
    let mut agent = Command::new(programs::agent());
    agent.args(words).arg(first).arg("--out").arg(second).env("IMPRINT_CRASH", crash).output().unwrap()
}

fn enroll(payload: &Path, out: &Path, crash: &str) -> Output {
    agent(&["enroll", "--payload"], [payload, out], crash)
}

fn renew(out: &Path, words: &[&str], crash: &str) -> Output {
    let mut agent = Command::new(programs::agent());
    agent.args(["renew", "--dir"]).arg(out).args(words).env("IMPRINT_CRASH", crash).output().unwrap()
}

#[track_caller]
fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn killed(output: &Output, point: &str) {
    let kill = Some(nix::sys::signal::Signal::SIGKILL as i32);
    assert_eq!(output.status.signal(), kill, "{point}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether the step was made when it is killed here.
fn behind_the_step(point: &str) -> bool {
    ["switched", "ready"].contains(&point)
}

/// Nothing of the run that was killed is left once another one has had the folder.
#[track_caller]
fn tidy(out: &Path, identities: usize) {
    let count = |folder: &Path, prefix: &str| {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.trim_start_matches('.').starts_with(prefix)).count()
    };
    assert_eq!((count(out, "generation-"), count(&out.join("private"), "key-")), (identities, identities));
}

#[test]
fn an_enrolment_that_is_killed_leaves_the_old_identity_or_the_new_one() {
    let site = Site::new();
    let [first, second] = site.payloads(["first", "second"]);
    for plain in [false, true] {
        for point in POINTS {
            let out = site.file(&format!("{point}-{plain}"));
            succeeded(&enroll(&first, &out, ""));
            if plain {
                // As earlier versions handed it over.
                let files = found(&out).unwrap();
                std::fs::remove_dir_all(&out).unwrap();
                std::fs::create_dir_all(out.join("private")).unwrap();
                FILES.iter().zip(files).for_each(|(name, text)| std::fs::write(out.join(name), text).unwrap());
            }
            let was = found(&out);
            killed(&enroll(&second, &out, point), point);
            whole(&out);
            assert_eq!(found(&out) == was, !behind_the_step(point), "{point}");
            let is = found(&out);
            drop(Folder::open(&out).unwrap());
            assert_eq!(found(&out), is, "{point}");
            // Of plain files the first key that is written is the copy for the generation that they become.
            tidy(&out, usize::from(!plain || point != "key"));
            succeeded(&enroll(&second, &out, ""));
            whole(&out);
            assert_ne!(found(&out), was, "{point}");
        }
    }
}

#[test]
fn a_first_enrolment_that_is_killed_leaves_one_identity_or_none() {
    let site = Site::new();
    let [payload] = site.payloads(["payload"]);
    // Without an identity there is none to adopt.
    for point in POINTS.iter().filter(|point| **point != "adopted") {
        let out = site.file(point);
        killed(&enroll(&payload, &out, point), point);
        let readable = out.join("cert.pem").exists() && out.join("private/key.pem").exists();
        let some = out.join("cert.pem").exists() || out.join("private/key.pem").exists();
        assert_eq!((readable, some), (behind_the_step(point), behind_the_step(point)), "{point}");
        assert_eq!(out.join("ready").exists(), *point == "ready", "complete is what has been told to be");
        // Whoever has the folder next ends what was begun, or removes it.
        drop(Folder::open(&out).unwrap());
        assert_eq!(found(&out).is_some(), behind_the_step(point), "{point}");
        tidy(&out, usize::from(behind_the_step(point)));
        succeeded(&enroll(&payload, &out, ""));
        whole(&out);
    }
}

#[test]
fn a_renewal_that_is_killed_leaves_the_old_identity_or_the_new_one() {
    let site = Site::new();
    for point in POINTS {
        let (payload, out) = (site.file(&format!("payload-{point}")), site.file(point));
        site.served.host(&["payload", "node1", "-o", payload.to_str().unwrap()]);
        succeeded(&enroll(&payload, &out, ""));
        let was = found(&out).unwrap();
        killed(&renew(&out, &[], point), point);
        whole(&out);
        let is = found(&out).unwrap();
        assert_eq!(is == was, !behind_the_step(point), "{point}");
        // The status stays that of the enrolment.
        assert_eq!(is[4], was[4]);
        // It is not due, so this one only looks after the folder.
        succeeded(&renew(&out, &["--if-due"], ""));
        assert_eq!(found(&out).unwrap(), is);
        tidy(&out, 1);
    }
}

/// What is handed over by two at once is that of the one that ends last; and what it was for, the other one's token, is
/// lost. So the second one is refused before it asks anybody.
#[test]
fn one_program_at_a_time_works_in_a_folder() {
    let site = Site::new();
    let [payload] = site.payloads(["payload"]);
    let out = site.file("out");
    succeeded(&enroll(&payload, &out, ""));
    let was = found(&out);
    let folder = Folder::open(&out).unwrap();
    let want = format!(
        "imprint: hand-over: another imprint is at work in {} (process {}); wait until it has ended, or end it, and try \
         again\n",
        out.display(),
        std::process::id()
    );
    for output in [enroll(&payload, &out, ""), renew(&out, &[], ""), renew(&out, &["--if-due"], "")] {
        assert_eq!(output.status.code(), Some(19));
        assert_eq!(String::from_utf8(output.stderr).unwrap(), want);
    }
    assert_eq!(found(&out), was);
    drop(folder);
    succeeded(&enroll(&payload, &out, ""));
}

/// A certificate that cannot be handed over would be lost, and its token with it.
#[test]
fn a_folder_with_keys_of_others_is_refused_before_anybody_is_asked() {
    let site = Site::new();
    let (payload, out) = (site.file("payload"), site.file("ssl"));
    site.served.host(&["payload", "node1", "-o", payload.to_str().unwrap()]);
    std::fs::create_dir_all(out.join("private")).unwrap();
    std::fs::write(out.join("private/key.pem"), "theirs").unwrap();
    let output = enroll(&payload, &out, "");
    let want = format!("imprint: hand-over: {}/private/key.pem is part of an incomplete identity; ", out.display());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(19) && said.starts_with(&want), "{said}");
    assert_eq!(std::fs::read(out.join("private/key.pem")).unwrap(), b"theirs");
    assert!(!site.served.host(&["log"]).contains("enrolled"), "nothing was signed");
    succeeded(&enroll(&payload, &site.file("out"), ""));
    assert!(site.served.host(&["log"]).contains("enrolled"));
}

/// Neither a status nor anything else is written into the folder of a run that goes on.
#[test]
fn a_boot_is_not_begun_beside_another_one() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("run/imprint");
    std::fs::create_dir_all(root.path().join("proc")).unwrap();
    let cmdline = |words: &str| std::fs::write(root.path().join("proc/cmdline"), words).unwrap();
    cmdline("imprint=off");
    run::boot(root.path()).unwrap();
    assert!(!out.exists(), "imprint=off leaves no trace");
    let folder = Folder::make(&out).unwrap();
    for words in ["imprint=auto imprint.timeout=1\n", "imprint=nonsense\n"] {
        cmdline(words);
        for error in [run::boot(root.path()), run::console(root.path(), Duration::from_secs(1))].map(Result::unwrap_err)
        {
            assert_eq!(error.stage(), ("hand-over", 19));
            assert!(chain(&error).contains("another imprint is at work in "), "{}", chain(&error));
        }
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1, "nothing but the lock");
    }
    drop(folder);
    assert_eq!(run::boot(root.path()).unwrap_err().stage(), ("options", 10));
    assert!(out.join("status.json").exists());
}
