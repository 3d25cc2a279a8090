//! Checks a handed-over identity with openssl. Changes no file.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use imprint::status::{Node, Status};

/// The files of an identity, in the order of [`found`].
pub const FILES: [&str; 7] =
    ["cert.pem", "chain.pem", "ca.pem", "node.json", "status.json", "ready", "private/key.pem"];

/// All files of the identity in the folder. `None`: the folder has neither a certificate nor a key.
#[track_caller]
pub fn found(directory: &Path) -> Option<Vec<String>> {
    let read = |name: &&str| std::fs::read_to_string(directory.join(name));
    if ["cert.pem", "private/key.pem"].iter().all(|name| read(name).is_err()) {
        return None;
    }
    Some(FILES.iter().map(|name| read(name).unwrap_or_else(|error| panic!("{name}: {error}"))).collect())
}

/// Asserts that key, certificate, chain, node.json and status.json belong together.
#[track_caller]
pub fn whole(directory: &Path) {
    let path = |name: &str| directory.join(name);
    let of_certificate = openssl(["x509", "-noout", "-pubkey", "-in"].map(OsStr::new), &path("cert.pem"));
    assert_eq!(of_certificate, openssl(["pkey", "-pubout", "-in"].map(OsStr::new), &path("private/key.pem")));
    let (ca, chain) = (path("ca.pem"), path("chain.pem"));
    let options = ["verify", "-purpose", "sslclient", "-CAfile"].map(OsStr::new);
    let files = [ca.as_os_str(), OsStr::new("-untrusted"), chain.as_os_str()];
    openssl(options.into_iter().chain(files), &path("cert.pem"));
    let json = |name: &str| std::fs::read(path(name)).unwrap();
    let node: Node = serde_json::from_slice(&json("node.json")).unwrap();
    let status: Status = serde_json::from_slice(&json("status.json")).unwrap();
    assert_eq!(status.outcome, imprint::status::Outcome::Done);
    // A renewal keeps the status.json of the run before.
    assert_eq!(status.payload_id, Some(node.payload_id));
}

#[track_caller]
fn openssl<'a>(arguments: impl IntoIterator<Item = &'a OsStr>, file: &Path) -> String {
    let output = Command::new("openssl").args(arguments).arg(file).output().expect("openssl: apt-get install openssl");
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
