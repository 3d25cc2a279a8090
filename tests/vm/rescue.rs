//! Test of the rescue in docs/troubleshooting.md: a person continues a stopped boot from the emergency shell.

use super::line::{SMBIOS, connected, text_of, until};
use crate::*;

/// What the page says to type, in its order.
fn typed() -> Vec<String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/troubleshooting.md")).unwrap();
    let (_, steps) = page.split_once("\nTo get this boot on by hand").unwrap();
    let (steps, _) = steps.split_once("\n\nWhat was wrong").unwrap();
    let commands = steps.split('`').skip(1).step_by(2).filter(|span| !span.contains("hand-over"));
    commands.map(ToOwned::to_owned).collect()
}

/// Enter, until there is a prompt: sulogin(8) forgets keys that come before it listens.
fn knock(line: &mut std::os::unix::net::UnixStream, seen: &mut String) {
    let from = seen.len();
    let mut buffer = [0; 1024];
    line.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    while !seen[from..].contains("# ") {
        std::io::Write::write_all(line, b"\n").unwrap_or_else(|error| panic!("{error}: {seen}"));
        if let Ok(count) = std::io::Read::read(line, &mut buffer) {
            assert!(count > 0, "the console ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(buffer.get(..count).unwrap()));
        }
    }
}

/// Nobody has brought a payload, so the boot is stopped: the real root must not be entered. A person then brings one by hand,
/// and without another boot the node comes up as it would have.
#[test]
fn from_the_emergency_shell_to_a_node_that_runs() {
    let commands = typed();
    assert_eq!(commands, ["imprint-host payload NODE --as text", "imprint console", "systemctl default"]);
    let site = Site::new(NODE);
    let text = text_of(&site);
    let socket = site.work.path().join("console");
    let chardev = format!("socket,path={},server=on,wait=off", socket.display());
    let person = std::thread::spawn(move || {
        let mut line = connected(&socket);
        let mut seen = String::new();
        let enter = |line: &mut std::os::unix::net::UnixStream, words: &str| {
            std::io::Write::write_all(line, format!("{words}\n").as_bytes()).unwrap();
        };
        until(&mut line, &mut seen, "Press Enter for maintenance");
        assert!(seen.contains("imprint: source: no payload"), "{seen}");
        knock(&mut line, &mut seen);
        enter(&mut line, &commands[1]);
        until(&mut line, &mut seen, "--as text");
        text.lines().for_each(|words| enter(&mut line, words));
        until(&mut line, &mut seen, "hand-over: /run/imprint");
        until(&mut line, &mut seen, "# ");
        enter(&mut line, &commands[2]);
        // The machine ends by itself; until then somebody takes what it writes.
        let _ = std::io::Read::read_to_end(&mut line, &mut Vec::new());
        seen
    });
    let report = Machine::new(Kernel::Stable)
        .append("imprint=require imprint.timeout=5")
        .limit(Duration::from_secs(1200))
        // dracut's own emergency shell, in the place of the one that reports.
        .initramfs_file("usr/lib/systemd/system/emergency.service.d/report.conf", b"[Service]\n")
        .qemu(&SMBIOS)
        .console(&chardev)
        .boot();
    let seen = person.join().unwrap();
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{seen}");
    assert_eq!(report.status().outcome, Outcome::Done);
    assert!(report.file_names().contains(&"private/key.pem"), "{:?}", report.file_names());
    assert_eq!(report.part("hostname"), "node1");
}
