//! Tests of the text at the prompt of a stopped boot, and that its advice works. The test plays the person at the console.

#![allow(clippy::string_slice, clippy::indexing_slicing, reason = "a test panics")]

use std::io::{ErrorKind, Read, Write};

use super::line::{connected, until};
use crate::*;

/// Boots the machine with a console that somebody is at, who does something there. What that person has seen, and the report.
pub(super) fn with_a_person(
    machine: Machine,
    folder: &Path,
    person: impl FnOnce(&mut std::os::unix::net::UnixStream, &mut String) + Send,
) -> (Report, String) {
    let socket = folder.join("console");
    let chardev = format!("socket,path={},server=on,wait=on", socket.display());
    let machine = machine.append("imprint-test.prompt").console(&chardev);
    std::thread::scope(|scope| {
        let person = scope.spawn(move || {
            let (mut line, mut seen) = (connected(&socket), String::new());
            person(&mut line, &mut seen);
            // Whoever does not read holds the console up.
            let _ = std::io::copy(&mut line, &mut std::io::sink());
            seen
        });
        let report = machine.boot();
        (report, person.join().unwrap())
    })
}

pub(super) fn types(line: &mut std::os::unix::net::UnixStream, words: &str) {
    line.write_all(format!("{words}\n").as_bytes()).unwrap();
}

pub(super) const REASON: &str = "source: no payload found (no file /imprint/payload); bring one where imprint.source= says: \
                      /imprint/payload in the initramfs (imprint-host payload NODE --as cpio); or boot with imprint=auto to \
                      go on without";
/// How long an answer may take before the same is typed again.
pub(super) const SOON: Duration = Duration::from_secs(10);
/// Of dracut's shell without systemd.
pub(super) const PROMPT: &str = "dracut:/# ";
pub(super) const WHAT_TO_DO: &str = "imprint: \"imprint status\" shows every step; \"imprint console\" takes a payload that is pasted here; \
                          then \"systemctl default\" boots on, or \"exit\" in an image without systemd";

/// Types it, and again when nothing was said for so long, until an answer comes: what is typed while sulogin or a shell begins,
/// they throw away. What came since.
pub(super) fn types_until(
    line: &mut std::os::unix::net::UnixStream,
    seen: &mut String,
    (typed, again): (&str, Duration),
    answers: &[&str],
) -> String {
    let (from, start) = (seen.len(), std::time::Instant::now());
    line.set_read_timeout(Some(again)).unwrap();
    types(line, typed);
    let mut buffer = [0; 1024];
    while !answers.iter().any(|answer| seen[from..].contains(answer)) {
        assert!(start.elapsed() < 2 * PATIENCE, "{answers:?} did not come: {seen}");
        match line.read(&mut buffer) {
            Ok(0) => panic!("the console ended: {seen}"),
            Ok(count) => seen.push_str(&String::from_utf8_lossy(buffer.get(..count).unwrap())),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => types(line, typed),
            Err(error) => panic!("{error}: {seen}"),
        }
    }
    seen[from..].to_owned()
}

/// An emulated line loses and doubles a letter now and then, when the machine that emulates it is busy.
pub(super) fn is_nearly(line: &str, want: &str) -> bool {
    let words: Vec<&str> = want.split(' ').collect();
    let there = words.iter().filter(|word| line.contains(**word)).count();
    there * 10 >= words.len() * 8
}

/// The two lines are the last ones, and what the agent itself has said is far above them.
#[track_caller]
fn says_why(seen: &str, prompt: &str) {
    let stopped = format!("imprint: the boot was stopped with exit code 11: {REASON}");
    let (before, _) = seen.split_once(prompt).unwrap();
    let lines: Vec<&str> = before.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let [.., why, what] = &lines[..] else { panic!("{seen}") };
    assert!(is_nearly(why, &stopped) && is_nearly(what, WHAT_TO_DO), "{seen}");
    let own = lines.iter().position(|line| is_nearly(line, &format!("imprint: {REASON}"))).unwrap();
    assert!(lines.len() - own > 7, "the premise: other lines come between\n{seen}");
}

/// systemd writes what it stops, dracut what its report is called; then sulogin asks.
#[test]
fn the_reason_is_the_last_word_before_the_prompt_with_systemd() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(Kernel::Stable).without_quiet().append("imprint.source=file");
    let (report, _) = with_a_person(machine, folder.path(), |line, seen| {
        until(line, seen, "Press Enter for maintenance");
        says_why(seen, "Press Enter for maintenance");
        types_until(line, seen, ("", SOON), &[":/root# "]);
        types_until(line, seen, ("imprint status", SOON), &["exit code 11: source: "]);
        types(line, "imprint-report prompt");
    });
    assert_eq!((report.exit_code(), report.ended_in()), (11, "prompt"), "{}", report.console);
}

/// dracut without systemd: its shell is the prompt. A payload that is pasted there is used, and the boot goes on; in the shell
/// that `die` opens it could not.
#[test]
fn the_reason_is_the_last_word_before_the_prompt_without_systemd_and_its_advice_works() {
    let site = Site::typical();
    let options = compose::Options { expires: DAY, medium: compose::Medium::Text, ..Default::default() };
    let payload = site.state().payload("node1", &options, Timestamp::system()).unwrap();
    // By the link that the machine booted from, which `imprint console` did not know.
    let mut payload = imprint::payload::Payload::unwrapped(&payload.bytes).unwrap();
    payload.network[0].kind = imprint::payload::LinkKind::Physical(imprint::payload::Match::BootIf);
    let text = String::from_utf8(compose::text(&payload.encode()).to_vec()).unwrap();
    // QEMU's first link has this address.
    let words = "imprint.source=file BOOTIF=01-52-54-00-12-34-56";
    let machine = machine(Kernel::Stable).init(Init::Plain).append(words);
    let (report, seen) = with_a_person(machine, site.work.path(), |line, seen| {
        until(line, seen, PROMPT);
        says_why(seen, PROMPT);
        types_until(line, seen, ("imprint console", PATIENCE), &["--as text"]);
        // Once more where a letter was lost.
        let paste = (text.trim_end(), PATIENCE);
        while !types_until(line, seen, paste, &[PROMPT, "paste again", "paste all"]).contains(PROMPT) {}
        assert!(seen.contains("imprint: hand-over: "), "{seen}");
        types(line, "exit");
    });
    assert_eq!(report.ended_in(), "root", "{seen}");
    assert_eq!(report.status().outcome, Outcome::Done);
    assert!(report.file_names().contains(&"private/key.pem"), "{:?}", report.file_names());
}
