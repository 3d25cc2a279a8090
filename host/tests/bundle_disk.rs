//! Tests of a full disk: an upload, an approval and other decisions about bundles then, and afterwards. They use a small file system in
//! a mount namespace, so they need root.

use crate::support::stateless;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use imprint::bundle::answer::{Outcome, Report, Stand};
use imprint_host::serve::Tell;
use imprint_host::store::BundleState;
use stateless::Site;

/// Fills the disk to its last byte. What is written is whole blocks, and then single bytes.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for block in [vec![0; 65536], vec![0; 4096], vec![0; 1]] {
        while file.write_all(&block).is_ok() {}
    }
}

/// Runs this test once more, in a mount namespace and with a disk of its own.
fn in_a_namespace(test: &str) {
    let disk = tempfile::tempdir().unwrap();
    let script =
        "mount -t tmpfs -o size=8m,mode=0700 none \"$IMPRINT_TEST_DISK\"; exec \"$0\" --exact \"$1\" --nocapture";
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-euc", script])
        .args([std::env::current_exe().unwrap().as_os_str(), test.as_ref()])
        .env("IMPRINT_TEST_DISK", disk.path())
        .status();
    assert!(status.unwrap().success());
}

/// The accident: the disk is full while a bundle waits, another comes, and an administrator decides.
#[test]
fn a_full_disk_loses_nothing_and_applies_nothing_by_half() {
    let name = "a_full_disk_loses_nothing_and_applies_nothing_by_half";
    let Some(disk) = std::env::var_os("IMPRINT_TEST_DISK") else { return in_a_namespace(name) };
    let disk = PathBuf::from(disk);
    let work = tempfile::tempdir().unwrap();
    let rule = "bundle_key = \"payload\"";
    let site = Site::within(&disk, &[("node1".to_owned(), rule), ("node2".to_owned(), rule)]);
    let server = site.serve(Tell::default());
    let (node1, node2) = (&site.nodes[0], &site.nodes[1]);
    let (tag1, age1) = node1.made(1, "first");
    let code = site.put(node1, &tag1, &age1).unwrap().standing().code.unwrap();
    let rows = |node: &str| site.state().store.bundles(node).unwrap();

    let filler = disk.join("filler");
    fill(&filler);
    // An upload, also one that is longer than a page: one line, the node asks again, and nothing is there.
    let (tag2, age2) = node2.made(1, &"x".repeat(20_000));
    for _ in 0..3 {
        let refused = site.put(node2, &tag2, &age2).unwrap();
        assert_eq!((refused.status, refused.header("Retry-After").is_some()), (503, true), "{}", refused.text());
        assert_eq!(refused.text().lines().count(), 1, "{}", refused.text());
    }
    // Questions are answered, and what waits is still there.
    let waits = site.get(node1, Some(&tag1), "").unwrap();
    assert_eq!((waits.status, waits.standing().code), (202, Some(code.clone())));
    assert_eq!(site.get(node2, None, "").unwrap().standing().bundle, Stand::None);

    // What needs room for a bundle says in one line that there is none, and makes nothing.
    let big = work.path().join("big.toml");
    let text: String = (0..400_000_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    std::fs::write(&big, format!("[[file]]\npath = \"etc/x\"\ntext = \"{text}\"\n")).unwrap();
    let (status, said, error) = site.run(&["bundle", "make", "node2", "--from", big.to_str().unwrap()]);
    assert_eq!((status, said.as_str(), error.lines().count()), (1, "", 1), "{error}");
    assert!(error.contains("full"), "{error}");

    // The approval has the reserve: it is whole, and the node gets its bundle.
    let (status, said, error) = site.run(&["bundle", "approve", "node1", &code]);
    assert_eq!((status, said.starts_with("approved ")), (0, true), "{error}");
    let sealed = site.get(node1, Some(&tag1), "").unwrap();
    assert_eq!(sealed.status, 200, "{}", sealed.text());
    assert!(sealed.body.ends_with(&age1), "what the node has sent, byte for byte");
    let report = |digest| serde_json::to_string(&Report::new(Outcome::Available, 1, digest)).unwrap();
    let digest = imprint::digest::sha256(&age1);
    let told = site.report(node1, &report(&digest)).unwrap();
    assert!([204, 503].contains(&told.status), "{}: {}", told.status, told.text());
    assert_eq!(site.state().store.available("node1").unwrap().is_some(), told.status == 204, "answered is stored");
    assert_eq!(rows("node1").len(), 1);
    assert!(rows("node2").is_empty(), "{:?}", rows("node2"));

    // There is room again: all goes on where it stopped, also after the server was started anew.
    drop(server);
    std::fs::remove_file(&filler).unwrap();
    let _server = site.serve(Tell::default());
    assert_eq!(site.put(node2, &tag2, &age2).unwrap().status, 201);
    assert_eq!(site.report(node1, &report(&digest)).unwrap().status, 204);
    assert_eq!(site.get(node1, None, "").unwrap().body, sealed.body);
    let [first] = rows("node1").try_into().unwrap();
    assert_eq!((first.state, first.counter), (BundleState::Approved, Some(1)));
    let [second] = rows("node2").try_into().unwrap();
    assert_eq!((second.state, second.counter, second.tag), (BundleState::Pending, None, Some(tag2)));
    let store = rusqlite::Connection::open(site.path().join("imprint.db")).unwrap();
    let sound: String = store.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}
