//! Tests of what QEMU offers a guest if it is started with the files and arguments of our forms. QEMU makes the machine
//! and starts no processor. The tests read the fw_cfg device of the machine through QEMU's own test protocol
//! (docs/devel/qtest.rst).

#![allow(clippy::indexing_slicing, reason = "a test panics")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use imprint_tests::{dmi, programs};

/// A machine whose processors do not run.
struct Still {
    qemu: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Still {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Still {
    fn with(words: &[&str]) -> Still {
        let machine = ["-accel", "tcg", "-S", "-display", "none", "-nodefaults", "-vga", "none", "-M", "pc"];
        let mut qemu = Command::new("qemu-system-x86_64")
            .args(machine)
            .args(["-qtest", "stdio", "-qtest-log", "none"])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need QEMU: run scripts/install-needs vm");
        let (asks, answers) = (qemu.stdin.take().unwrap(), BufReader::new(qemu.stdout.take().unwrap()));
        Still { qemu, asks, answers }
    }

    fn ask(&mut self, words: &str) -> String {
        writeln!(self.asks, "{words}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().strip_prefix("OK").unwrap_or_else(|| panic!("{words}: {line}")).trim().to_owned()
    }

    /// docs/specs/fw_cfg.rst: port 0x510 selects an item, port 0x511 gives its bytes.
    fn item(&mut self, key: u16, length: usize) -> Vec<u8> {
        self.ask(&format!("outw 0x510 {key:#x}"));
        let byte =
            |text: String| u8::try_from(u16::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()).unwrap();
        (0..length).map(|_| byte(self.ask("inb 0x511"))).collect()
    }

    /// The content of a file in fw_cfg.
    fn file(&mut self, name: &str) -> Vec<u8> {
        const DIRECTORY: u16 = 0x19;
        let count = self.item(DIRECTORY, 4);
        let count = u32::from_be_bytes(count.try_into().unwrap());
        let entries = self.item(DIRECTORY, 4 + 64 * usize::try_from(count).unwrap());
        let entry =
            entries[4..].chunks(64).find(|entry| entry[8..].split(|byte| *byte == 0).next() == Some(name.as_bytes()));
        let entry = entry.unwrap_or_else(|| panic!("no {name}"));
        let length = u32::from_be_bytes(entry[..4].try_into().unwrap());
        self.item(u16::from_be_bytes(entry[4..6].try_into().unwrap()), length.try_into().unwrap())
    }
}

/// Makes a payload in a file with a name that QEMU and a shell would take apart.
fn made(form: &str) -> (tempfile::TempDir, PathBuf, String) {
    let work = tempfile::tempdir().unwrap();
    let host = |words: &[&str]| {
        let output =
            Command::new(programs::host()).arg("--dir").arg(work.path().join("state")).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    host(&["init", "--url", "https://est.example.org:8443/.well-known/est"]);
    let record = work.path().join("node1.toml");
    std::fs::write(&record, "name = \"node1\"\nsubject = [\"CN=node1\"]\n").unwrap();
    host(&["node", "add", record.to_str().unwrap()]);
    let file = work.path().join("node 1,a");
    let said = host(&["payload", "node1", "--as", form, "-o", file.to_str().unwrap()]);
    (work, file, said)
}

/// The words that a shell makes of a line.
fn words(line: &str) -> Vec<String> {
    let script = format!("printf '%s\\n' {line}");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn arguments(process: u32) -> Vec<u8> {
    std::fs::read(Path::new("/proc").join(process.to_string()).join("cmdline")).unwrap()
}

#[test]
fn the_argument_for_qemu_gives_the_guest_the_file() {
    let (_work, file, said) = made("qemu");
    let words = words(&said);
    assert_eq!((words.len(), words[0].as_str()), (2, "-fw_cfg"), "{said}");
    let mut machine = Still::with(&[&words[0], &words[1]]);
    let payload = std::fs::read(&file).unwrap();
    assert_eq!(machine.file("opt/io.systemd.credentials/imprint.payload"), payload);
    imprint::payload::Payload::unwrapped(&payload).unwrap();
    // Every user of the machine can read this.
    let seen = arguments(machine.qemu.id());
    assert!(seen.windows(7).any(|part| part == b"-fw_cfg") && !seen.windows(16).any(|part| part == &payload[..16]));
}

#[test]
fn a_string_for_smbios_stands_in_the_tables_of_the_guest() {
    let (_work, file, said) = made("smbios");
    assert!(said.starts_with("wrote "), "{said}");
    let name = file.to_str().unwrap().replace(',', ",,");
    let mut machine = Still::with(&["-smbios", &format!("type=11,value=another,path={name}")]);
    let table = machine.file("etc/smbios/smbios-tables");
    assert_eq!(dmi::oem_strings(&table), ["another", &std::fs::read_to_string(&file).unwrap()]);
}
