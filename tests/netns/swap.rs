//! Tests of a folder whose disk is full, out of inodes or read-only: a working identity goes on working.

use std::path::PathBuf;

use imprint::renew::{self, Request};
use imprint::{chain, run};
use imprint_tests::identity::{found, whole};
use imprint_tests::served::Served;

use crate::*;

const LIMIT: Duration = Duration::from_secs(60);
/// The smallest piece of a tmpfs.
const PAGE: usize = 4096;
const OPTIONS: &str = "size=256k,nr_inodes=200,mode=0755";

struct Site {
    served: Served,
    work: tempfile::TempDir,
}

impl Site {
    /// A server, and a disk of 64 pages for the node.
    fn new() -> Site {
        namespaces();
        ip("link set lo up");
        let node = "name = \"node1\"\nsubject = [\"CN=node1\"]\nsans = [\"dns:node1.example\"]\n";
        let site = Site { served: Served::start(&[node], &[]), work: tempfile::tempdir().unwrap() };
        fs::create_dir(site.path("disk")).unwrap();
        nix::mount::mount(Some("none"), &site.path("disk"), Some("tmpfs"), MsFlags::empty(), Some(OPTIONS)).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn payload(&self, words: &[&str]) -> PathBuf {
        let file = self.path("payload");
        let all = [&["payload", "node1", "-o", file.to_str().unwrap()], words].concat();
        let _ = fs::remove_file(&file);
        self.served.host(&all);
        file
    }

    fn enroll(&self, payload: &Path, out: &str) -> Result<(), imprint::error::Error> {
        run::enroll(Path::new("/"), payload, &self.path(out), LIMIT, None)
    }

    /// Takes everything of the disk but this many pages.
    fn leave_pages(&self, pages: usize) {
        let mut filler = fs::OpenOptions::new().create(true).append(true).open(self.path("disk/filler")).unwrap();
        while std::io::Write::write(&mut filler, &[0; PAGE]).is_ok_and(|written| written > 0) {}
        let length = filler.metadata().unwrap().len();
        filler.set_len(length - u64::try_from(pages * PAGE).unwrap()).unwrap();
    }

    /// Leaves room for this many files and links more.
    fn leave_inodes(&self, inodes: usize) {
        fs::create_dir_all(self.path("disk/many")).unwrap();
        let file = |number: usize| self.path("disk/many").join(number.to_string());
        let made = (0..).take_while(|number| fs::File::create(file(*number)).is_ok()).count();
        (made - inodes..made).for_each(|number| fs::remove_file(file(number)).unwrap());
    }

    fn free(&self) {
        fs::remove_file(self.path("disk/filler")).ok();
        fs::remove_dir_all(self.path("disk/many")).ok();
    }

    fn read_only(&self, flag: MsFlags) {
        let none: Option<&str> = None;
        nix::mount::mount(none, &self.path("disk"), none, MsFlags::MS_REMOUNT | flag, Some(OPTIONS)).unwrap();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.path("disk"), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[track_caller]
fn refused(result: Result<(), imprint::error::Error>, why: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.stage(), ("hand-over", 19), "{}", chain::chain(&error));
    assert!(chain::chain(&error).contains(why), "{}", chain::chain(&error));
}

/// With no room at all, with room for one file, for two, until there is enough for all: wherever it stops, the identity
/// that was there is there, and nothing else.
#[test]
fn an_enrolment_that_finds_no_room_leaves_the_identity_that_works() {
    let site = Site::new();
    let out = site.path("disk/out");
    let payload = site.payload(&["--credentials"]);
    site.enroll(&payload, "disk/out").unwrap();
    let payload = site.payload(&["--credentials"]);
    for what in ["pages", "inodes"] {
        let mut stops = 0;
        loop {
            let was = found(&out).unwrap();
            match what {
                "pages" => site.leave_pages(stops),
                _ => site.leave_inodes(stops),
            }
            let result = site.enroll(&payload, "disk/out");
            site.free();
            whole(&out);
            if result.is_ok() {
                assert_ne!(found(&out).unwrap(), was);
                break;
            }
            refused(result, "No space left on device");
            assert_eq!(found(&out).unwrap(), was, "room for {stops} {what}");
            let keys = fs::read_dir(out.join("private")).unwrap().count();
            assert_eq!(keys, 2, "the key and its name");
            stops += 1;
            assert!(stops < 50, "{what}");
        }
        // Key, certificate, chain, trust anchor, node.json and status.json.
        assert!(stops >= 6, "{what}: {stops}");
        println!("stopped at {stops} {what}");
    }
}

#[test]
fn a_first_enrolment_that_finds_no_room_leaves_no_identity() {
    let site = Site::new();
    let payload = site.payload(&["--credentials"]);
    let out = site.path("disk/out");
    let mut stops = 0;
    loop {
        fs::create_dir(&out).unwrap();
        site.leave_pages(stops);
        let result = site.enroll(&payload, "disk/out");
        if result.is_ok() {
            break;
        }
        refused(result, "No space left on device");
        assert_eq!(found(&out), None);
        assert!(!out.join("ready").exists());
        // With one page it has a place; what was written beside is gone by then.
        let status = fs::read(out.join("status.json")).map(|text| serde_json::from_slice::<Status>(&text).unwrap());
        assert_eq!(status.ok().map(|status| status.exit_code), (stops > 0).then_some(19), "{stops}");
        site.free();
        fs::remove_dir_all(&out).unwrap();
        stops += 1;
        assert!(stops < 50);
    }
    whole(&out);
    assert!(stops >= 6, "{stops}");
}

#[test]
fn a_disk_that_can_only_be_read_keeps_its_identity() {
    let site = Site::new();
    let out = site.path("disk/out");
    let payload = site.payload(&["--credentials"]);
    site.enroll(&payload, "disk/out").unwrap();
    let was = found(&out);
    site.read_only(MsFlags::MS_RDONLY);
    refused(site.enroll(&payload, "disk/out"), "Read-only file system");
    assert_eq!(found(&out), was);
    site.read_only(MsFlags::empty());
    site.enroll(&payload, "disk/out").unwrap();
    whole(&out);
}

#[test]
fn a_renewal_that_finds_no_room_leaves_the_identity_that_works() {
    let site = Site::new();
    let out = site.path("disk/out");
    let payload = site.payload(&[]);
    site.enroll(&payload, "disk/out").unwrap();
    let was = found(&out);
    site.leave_pages(2);
    let request = Request { timeout: LIMIT, keep_key: false, if_due: false };
    refused(renew::renew(&out, request, Timestamp::system()), "No space left on device");
    assert_eq!(found(&out), was);
    whole(&out);
}
