//! Tests that need programs of other people, but neither network nor machine: Python's CBOR and CDDL, openssl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The virtual environment that `scripts/install-needs python` makes.
fn python() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache"));
    let python = cache.join("imprint/python/bin/python3");
    assert!(python.exists(), "{} is missing: run scripts/install-needs python", python.display());
    python
}

/// cbor2 writes the frozen payloads byte for byte as we do, and pycddl accepts them by docs/payload.cddl.
#[test]
fn payloads_by_an_independent_writer() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/payload_peer.py");
    let output = Command::new(python()).arg(script).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert_eq!(text.lines().filter(|line| line.starts_with("ok: ")).count(), 12, "{text}");
}
