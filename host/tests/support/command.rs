//! Runs the program as people do, with a state directory that has node1. Contains no tests.
#![allow(dead_code, unreachable_pub)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

pub const URL: &str = "https://est.example.org:8443/.well-known/est";
/// The line of [`TYPICAL`] that names the machine.
pub const BIND: &str = "bind = { uuid = \"4c4c4544-0042-3510-8054-b4c04f564433\" }\n";
/// One static address, one URL, a token, a machine: what the bars of 640 bytes, and of 700 with a signature, are about.
pub const TYPICAL: &str = r#"
name = "node1"
subject = ["CN=node1.example.org"]
sans = ["dns:node1.example.org"]
hostname = "node1"
bind = { uuid = "4c4c4544-0042-3510-8054-b4c04f564433" }

[[network]]
match = { mac = "52:54:00:12:34:56" }
addresses = ["192.0.2.10/24"]
routes = [{ to = "default", via = "192.0.2.1" }]
dns = ["192.0.2.53"]
"#;

pub fn host(dir: &Path, arguments: &[&str]) -> Output {
    let program = Command::new(env!("CARGO_BIN_EXE_imprint-host")).arg("--dir").arg(dir).args(arguments).output();
    program.unwrap()
}

pub fn fine(dir: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = host(dir, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Exit code and standard error.
pub fn fails(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let output = host(dir, arguments);
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

pub fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A state with node1 in a temporary directory.
pub fn site() -> (tempfile::TempDir, std::path::PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    fine(&dir, &["init", "--url", URL]);
    let file = temp.path().join("node1.toml");
    std::fs::write(&file, TYPICAL).unwrap();
    fine(&dir, &["node", "add", file.to_str().unwrap()]);
    (temp, dir)
}

/// Adds or changes node1.
pub fn record(temp: &tempfile::TempDir, dir: &Path, text: &str) {
    let file = temp.path().join("changed.toml");
    std::fs::write(&file, text).unwrap();
    fine(dir, &["node", "add", "--replace", file.to_str().unwrap()]);
}

/// How many payloads the audit log records.
pub fn payloads_made(dir: &Path) -> usize {
    let log = String::from_utf8(fine(dir, &["log"])).unwrap();
    log.lines().filter(|line| line.contains(" payload ")).count()
}
