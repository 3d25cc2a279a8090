//! Tests of the configuration server: what a node gets, what becomes of a bundle that it sends, and what an administrator decides.

use crate::support::stateless;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::Duration;

use imprint::bundle::answer::{Outcome, Report, Stand};
use imprint::bundle::statement::Sealed;
use imprint::bundle::{self, Expect, MAX_SEALED};
use imprint::payload::signed::Signer;
use imprint::time::Timestamp;
use imprint_host::bundles::{self, BundleError, Content, Source};
use imprint_host::enrol;
use imprint_host::serve::Tell;
use imprint_host::store::BundleState;
use imprint_host::x509::CrlReason;
use stateless::{Answer, LIMIT, Node, Site, put};

const ADMIN: &str = "bundle_key = \"payload\"";
const AUTO: &str = "bundle_key = \"payload\"\nbundle_approve = \"auto\"";

fn now() -> Timestamp {
    Timestamp::system()
}

fn site(rule: &str) -> Site {
    Site::new(&[("node1".to_owned(), rule), ("node2".to_owned(), rule)])
}

fn signers(site: &Site) -> Vec<Signer> {
    site.state().ca.signers().unwrap().into_iter().map(|(signer, _)| signer).collect()
}

/// What a node does with what it gets: verified, decrypted, and the text of the one file.
#[track_caller]
fn opened(site: &Site, node: &Node, answer: &Answer) -> (u64, String, String) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (name, signers) = (node.name.as_str().try_into().unwrap(), signers(site));
    let expect = Expect { node: &name, least: 1, signers: &signers };
    let (statement, bundle) = bundle::open(&answer.body, &expect, &node.identity).unwrap();
    let imprint::bundle::Content::File(bytes) = &bundle.entries()[0].content else { panic!("a file") };
    let text = String::from_utf8(bytes.expose().to_vec()).unwrap();
    (statement.counter, statement.approver.to_string(), text)
}

fn content(text: &str) -> Source {
    let text = format!("[[file]]\npath = \"etc/motd\"\ntext = \"{text}\"\n");
    Source::Content(Content::of_toml("f", &text, std::path::Path::new("")).unwrap())
}

/// The whole story of a node without a bundle, which makes one.
#[test]
fn a_node_sends_a_bundle_and_gets_it_once_it_is_approved() {
    let site = site(ADMIN);
    let _server = site.serve(Tell::default());
    let node = &site.nodes[0];
    let nothing = site.get(node, None, "").unwrap();
    assert_eq!((nothing.status, nothing.standing().bundle, nothing.standing().next), (404, Stand::None, 1));
    let (tag, age) = node.made(1, "hello");
    let stored = site.put(node, &tag, &age).unwrap();
    assert_eq!((stored.status, stored.standing().bundle), (201, Stand::Pending), "{}", stored.text());
    let code = bundle::code(&age).to_string();
    assert_eq!(stored.standing().code, Some(code.clone()));
    for asked in [None, Some(&tag)] {
        let waits = site.get(node, asked, "").unwrap();
        assert_eq!((waits.status, waits.standing().bundle), (202, Stand::Pending));
        assert_eq!(waits.header("Retry-After"), Some("5"));
    }
    // The same bundle, encrypted again: it is known by its tag.
    let again = site.put(node, &tag, &node.made(1, "hello").1).unwrap();
    assert_eq!((again.status, again.standing().code), (200, Some(code.clone())));
    // Another one does not overwrite it, and says whom to ask.
    let (other_tag, other) = node.made(1, "other");
    let waits = site.put(node, &other_tag, &other).unwrap();
    assert_eq!((waits.status, waits.standing().code), (409, Some(code.clone())));
    let who = waits.standing().who.unwrap();
    assert!(who.contains(&format!("imprint-host bundle deny node1 {code}, or approve node1 {code}")), "{who}");
    assert_eq!(site.get(node, Some(&other_tag), "").unwrap().standing().bundle, Stand::None);
    // Nobody else's business.
    assert_eq!(site.get(&site.nodes[1], Some(&tag), "").unwrap().standing().bundle, Stand::None);

    let mut state = site.state();
    let wrong = bundles::approve(&mut state, "node1", "0000-0000-0000-0000", now()).unwrap_err();
    assert!(matches!(wrong, BundleError::OtherCode { ref waiting, .. } if *waiting == code), "{wrong}");
    let row = bundles::approve(&mut state, "node1", &code.to_lowercase().replace('-', ""), now()).unwrap();
    assert_eq!(row.counter, Some(1));
    let sealed = site.get(node, None, "").unwrap();
    assert_eq!(opened(&site, node, &sealed), (1, "alice (uid 1000)".to_owned(), "hello".to_owned()));
    assert_eq!(site.get(node, Some(&tag), "").unwrap().body, sealed.body);
    let split = Sealed::split(&sealed.body).unwrap();
    assert_eq!(split.age(), age, "what the node has sent, byte for byte");
    assert_eq!(site.put(node, &tag, &age).unwrap().standing().bundle, Stand::Approved, "known still");

    let etag = sealed.header("ETag").unwrap().to_owned();
    let digest = imprint::hex::encode(&imprint::digest::sha256(&age));
    assert_eq!(etag, format!("\"1-{}\"", &digest[..16]));
    let same = site.get(node, None, &format!("If-None-Match: {etag}\r\n")).unwrap();
    assert_eq!((same.status, same.body.len()), (304, 0));
    let half = sealed.body.len() / 2;
    let range = format!("Range: bytes={half}-\r\n");
    let rest = site.get(node, None, &format!("{range}If-Range: {etag}\r\n")).unwrap();
    assert_eq!((rest.status, rest.body.as_slice()), (206, &sealed.body[half..]));
    let want = format!("bytes {half}-{}/{}", sealed.body.len() - 1, sealed.body.len());
    assert_eq!(rest.header("Content-Range"), Some(want.as_str()));
    let whole = site.get(node, None, &format!("{range}If-Range: \"0-0\"\r\n")).unwrap();
    assert_eq!((whole.status, whole.body.len()), (200, sealed.body.len()), "of another version");
    let beyond = site.get(node, None, "Range: bytes=999999-\r\n").unwrap();
    assert_eq!((beyond.status, beyond.header("Content-Range").unwrap().starts_with("bytes */")), (416, true));
    let head =
        site.ask(&node.client, b"HEAD /.well-known/imprint/bundle HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let head = head.unwrap();
    assert_eq!((head.status, head.body.len(), head.header("ETag")), (200, 0, Some(etag.as_str())));

    let report = |counter, digest: &str| {
        let mut report = Report::new(Outcome::Available, counter, &[0; 32]);
        report.sha256 = digest.to_owned();
        serde_json::to_string(&report).unwrap()
    };
    assert_eq!(site.report(node, &report(1, &digest)).unwrap().status, 204);
    for wrong in [report(2, &digest), report(1, &"0".repeat(64)), "{}".to_owned(), String::new()] {
        assert_eq!(site.report(node, &wrong).unwrap().status, 400, "{wrong}");
    }
    let (code, nodes, _) = site.run(&["nodes", "--json"]);
    let nodes: serde_json::Value = serde_json::from_str(&nodes).unwrap();
    assert_eq!(
        (code, &nodes[0]["bundle"]["counter"], &nodes[0]["bundle"]["available"]["counter"]),
        (0, &1.into(), &1.into())
    );
    assert!(nodes[1]["bundle"].is_null());
    let log = site.state().store.log(100).unwrap();
    let events: Vec<&str> =
        log.iter().filter(|row| row.node.as_deref() == Some("node1")).map(|row| row.event.as_str()).collect();
    assert!(
        events.ends_with(&["bundle", "refused", "bundle approved", "available", "refused", "refused"]),
        "{events:?}"
    );
}

/// A denial stays, whatever comes after it, until the node is asked for another one.
#[test]
fn an_approval_after_a_denial_is_refused() {
    let site = site(ADMIN);
    let _server = site.serve(Tell::default());
    let (node, mut state) = (&site.nodes[0], site.state());
    let (tag, age) = node.made(1, "bad");
    let code = site.put(node, &tag, &age).unwrap().standing().code.unwrap();
    // The accident: another upload waits by now than the administrator has looked at.
    let other = bundles::deny(&mut state, "node1", "0000-0000-0000-0000", now()).unwrap_err();
    assert!(matches!(other, BundleError::OtherCode { ref waiting, .. } if *waiting == code), "{other}");
    assert_eq!(site.get(node, Some(&tag), "").unwrap().status, 202, "it waits still");
    bundles::deny(&mut state, "node1", &code, now()).unwrap();
    let refused = bundles::approve(&mut state, "node1", &code, now()).unwrap_err();
    assert!(matches!(refused, BundleError::DeniedBefore { .. }) && !refused.to_string().contains('\n'), "{refused}");
    assert!(matches!(bundles::deny(&mut state, "node1", &code, now()), Err(BundleError::DeniedBefore { .. })));
    assert!(matches!(bundles::deny(&mut state, "node1", "x", now()), Err(BundleError::NothingWaits(_))));
    let denied = site.put(node, &tag, &age).unwrap();
    assert_eq!((denied.status, denied.standing().bundle), (403, Stand::Denied));
    for asked in [None, Some(&tag)] {
        let denied = site.get(node, asked, "").unwrap();
        assert_eq!((denied.status, denied.standing().bundle), (404, Stand::Denied));
    }
    // Another one may come.
    let (other, age2) = node.made(1, "better");
    let code = site.put(node, &other, &age2).unwrap().standing().code.unwrap();
    assert!(matches!(bundles::renew(&mut state, "node1", now()), Err(BundleError::Waits { .. })), "while one waits");
    bundles::approve(&mut state, "node1", &code, now()).unwrap();
    assert!(matches!(
        bundles::approve(&mut state, "node1", &code, now()),
        Err(BundleError::ApprovedBefore { counter: 1, .. })
    ));
    bundles::renew(&mut state, "node1", now()).unwrap();
    let renew = site.get(node, None, "").unwrap();
    assert_eq!((renew.status, renew.standing().bundle, renew.standing().next), (404, Stand::Renew, 2));
    // What was denied may come again now, and what there is stays while it waits.
    assert_eq!(site.put(node, &tag, &age).unwrap().status, 201);
    assert_eq!(opened(&site, node, &site.get(node, None, "").unwrap()).2, "better");
    // A version that an administrator makes ends the wait.
    bundles::make(&mut state, "node1", content("made"), &[], now()).unwrap();
    assert_eq!(
        opened(&site, node, &site.get(node, Some(&tag), "").unwrap()),
        (2, "alice (uid 1000)".to_owned(), "made".to_owned())
    );
}

/// Versions: removed ones are not served, their numbers are not used again, and old content comes back as a new version.
#[test]
fn versions_are_removed_and_rolled_back() {
    let site = site(ADMIN);
    let _server = site.serve(Tell::default());
    let (node, mut state) = (&site.nodes[0], site.state());
    for text in ["one", "two", "three"] {
        bundles::make(&mut state, "node1", content(text), &[], now()).unwrap();
    }
    let same = bundles::make(&mut state, "node1", content("three"), &[], now()).unwrap();
    assert_eq!((same.unchanged, same.row.counter), (true, Some(3)));
    assert!(matches!(bundles::rollback(&mut state, "node1", 3, now()), Err(BundleError::Current { .. })));
    let row = bundles::rollback(&mut state, "node1", 1, now()).unwrap();
    assert_eq!((row.counter, row.content_of), (Some(4), Some(1)));
    assert_eq!(opened(&site, node, &site.get(node, None, "").unwrap()).2, "one");
    bundles::remove(&mut state, "node1", 4, now()).unwrap();
    let removed = site.get(node, None, "").unwrap();
    assert_eq!((removed.status, removed.standing().bundle, removed.standing().next), (404, Stand::Removed, 5));
    for refused in [
        bundles::rollback(&mut state, "node1", 4, now()).map(|_| ()),
        bundles::remove(&mut state, "node1", 4, now()).map(|_| ()),
    ] {
        assert!(matches!(refused, Err(BundleError::Removed { counter: 4, .. })), "{refused:?}");
    }
    assert!(matches!(bundles::rollback(&mut state, "node1", 9, now()), Err(BundleError::NoSuchVersion { .. })));
    assert_eq!(bundles::rollback(&mut state, "node1", 2, now()).unwrap().counter, Some(5));
    assert_eq!(opened(&site, node, &site.get(node, None, "").unwrap()).2, "two");
    // The key is another one now: the node could open nothing of before.
    let recipient = imprint::age::Identity::from_bytes(&[9; 32]).recipient();
    let text = format!(
        "name = \"node1\"\nsubject = [\"CN=node1\"]\nbundle_key = \"stick\"\nbundle_recipient = \"{recipient}\"\n"
    );
    state.add_nodes(&[("f".to_owned(), text)], true, now()).unwrap();
    let refused = bundles::rollback(&mut state, "node1", 1, now()).unwrap_err();
    assert!(matches!(refused, BundleError::KeyChanged { .. }), "{refused}");
    // A backup has all of it.
    let copy = site.dir.path().join("copy");
    state.back_up(&copy, &mut |_| ()).unwrap();
    let copy = imprint_host::state::State::open(&copy).unwrap();
    assert_eq!(copy.store.bundles("node1").unwrap(), state.store.bundles("node1").unwrap());
    let id = state.store.bundle("node1", 5).unwrap().unwrap().id;
    assert_eq!(copy.store.bundle_bytes(id).unwrap(), state.store.bundle_bytes(id).unwrap());
    assert_eq!(copy.store.bundle_key("node1").unwrap(), state.store.bundle_key("node1").unwrap());
}

/// Bad uploads and bad clients: one clear line, and nothing is stored.
#[test]
fn what_is_no_upload() {
    let site = Site::new(&[
        ("node1".to_owned(), ADMIN),
        ("node2".to_owned(), ADMIN),
        ("node3".to_owned(), ""),
        ("node4".to_owned(), ADMIN),
    ]);
    let _server = site.serve(Tell::default());
    let (node, (tag, age)) = (&site.nodes[0], site.nodes[0].made(1, "x"));
    let mut flipped = age.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let others = stateless::bundle("node2", 1, b"x");
    let others = (others.tag(&node.identity).unwrap(), others.encrypt(&[node.identity.recipient()]).unwrap());
    let foreign = stateless::bundle("node1", 1, b"x").encrypt(&[site.nodes[1].identity.recipient()]).unwrap();
    let late = node.made(2, "x");
    let head = |length: &str| {
        format!(
            "PUT /.well-known/imprint/bundle?tag={} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}\r\n",
            imprint::hex::encode(&tag)
        )
    };
    let rows: [(&str, Vec<u8>, u16, &str); 12] = [
        ("garbage", put(&tag, b"garbage"), 400, "not an age file"),
        ("nothing", put(&tag, b""), 400, "not an age file"),
        ("a bit flipped", put(&tag, &flipped), 400, "chunk 1 of the age file is damaged"),
        ("cut", put(&tag, &age[..age.len() - 1]), 400, "chunk 1 of the age file is damaged"),
        ("another node's", put(&others.0, &others.1), 400, "names the node node2, and the certificate node1"),
        ("another key's", put(&tag, &foreign), 400, "encrypted for other keys"),
        ("another tag", put(&[0; 32], &age), 400, "the tag of the upload is not that of its content"),
        ("a later counter", put(&late.0, &late.1), 400, "has the counter 2, and the next is 1"),
        (
            "no tag",
            b"PUT /.well-known/imprint/bundle HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                .to_vec(),
            400,
            "want ?tag=HEX",
        ),
        (
            "no length",
            [head("Transfer-Encoding: chunked\r\n").as_bytes(), b"0\r\n\r\n"].concat(),
            411,
            "want Content-Length",
        ),
        // The body never comes: this is decided before.
        ("100 MB", head("Content-Length: 104857600\r\n").into_bytes(), 413, "104857600 bytes"),
        ("too long", head(&format!("Content-Length: {}\r\n", MAX_SEALED - 100)).into_bytes(), 413, "are the most"),
    ];
    for (what, request, status, why) in rows {
        let answer = site.ask(&node.client, &request).unwrap();
        assert_eq!((answer.status, answer.text().contains(why)), (status, true), "{what}: {}", answer.text());
        assert_eq!(answer.text().lines().count(), 1, "{what}");
    }
    let stranger = site.ask(&site.strangers, &put(&tag, &age)).unwrap();
    assert_eq!((stranger.status, stranger.text().contains("TLS client certificate")), (401, true));
    let off = site.put(&site.nodes[2], &tag, &age).unwrap();
    assert_eq!((off.status, off.text().contains("has no bundle_key")), (403, true), "{}", off.text());
    // A certificate that an administrator has revoked, and one that another has replaced.
    let mut state = site.state();
    enrol::revoke(&mut state.store, "node1", None, CrlReason::KeyCompromise, now()).unwrap();
    let revoked = site.put(node, &tag, &age).unwrap();
    assert_eq!((revoked.status, revoked.text().contains("was revoked at")), (403, true), "{}", revoked.text());
    assert_eq!(site.get(node, None, "").unwrap().status, 403);
    assert_eq!(
        site.report(node, &serde_json::to_string(&Report::new(Outcome::Failed, 1, &[0; 32])).unwrap()).unwrap().status,
        403
    );
    let text = "name = \"node4\"\nsubject = [\"CN=node4\", \"O=Other\"]\nbundle_key = \"payload\"\n".to_owned();
    state.add_nodes(&[("f".to_owned(), text)], true, now()).unwrap();
    let changed = site.get(&site.nodes[3], None, "").unwrap();
    assert_eq!(
        (changed.status, changed.text().contains("record (names or key type) has changed")),
        (403, true),
        "{}",
        changed.text()
    );
    for node in ["node1", "node2", "node3", "node4"] {
        assert!(state.store.bundles(node).unwrap().is_empty(), "{node}");
    }
    let log = state.store.log(1000).unwrap();
    assert!(log.iter().any(|row| row.event == "refused" && row.detail.starts_with("bundle: the upload")));
    assert!(log.iter().any(|row| row.event == "alarm" && row.node.as_deref() == Some("node1")));
}

/// 64 machines with one node's certificate and key send at once, each another bundle: one waits. Then all send the same.
#[test]
fn one_waits_whatever_comes_at_once() {
    let site = site(ADMIN);
    let _server = site.serve(Tell::default());
    let at_once = |node: &Node, uploads: &[([u8; 32], Vec<u8>)]| {
        let start = Barrier::new(uploads.len());
        let mut statuses = std::thread::scope(|scope| {
            let send = |(tag, age): &([u8; 32], Vec<u8>)| {
                start.wait();
                site.put(node, tag, age).unwrap().status
            };
            let threads: Vec<_> = uploads.iter().map(|upload| scope.spawn(move || send(upload))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<u16>>()
        });
        statuses.sort_unstable();
        statuses
    };
    let different: Vec<_> = (0..64).map(|number| site.nodes[0].made(1, &number.to_string())).collect();
    let statuses = at_once(&site.nodes[0], &different);
    assert_eq!((statuses[0], &statuses[1..]), (201, &[409; 63][..]));
    let same: Vec<_> = (0..64).map(|_| site.nodes[1].made(1, "same")).collect();
    let statuses = at_once(&site.nodes[1], &same);
    assert_eq!((&statuses[..63], statuses[63]), (&[200; 63][..], 201));
    let state = site.state();
    for node in ["node1", "node2"] {
        assert_eq!(state.store.bundles(node).unwrap().len(), 1, "{node}");
    }
}

/// Without an administrator: an upload is a version at once; a node that sends another one each time fills no disk.
#[test]
fn nobody_has_to_approve() {
    let site = site(AUTO);
    let _server = site.serve(Tell::default());
    let node = &site.nodes[0];
    for number in 1..=20u64 {
        let (tag, age) = node.made(number, &number.to_string());
        let stored = site.put(node, &tag, &age).unwrap();
        assert_eq!(
            (stored.status, stored.standing().bundle, stored.standing().counter),
            (201, Stand::Approved, Some(number))
        );
        let sealed = site.get(node, Some(&tag), "").unwrap();
        assert_eq!(opened(&site, node, &sealed), (number, "auto".to_owned(), number.to_string()));
    }
    let (tag, age) = node.made(21, "more");
    let later = site.put(node, &tag, &age).unwrap();
    assert_eq!((later.status, later.header("Retry-After").is_some()), (429, true));
    let rows = site.state().store.bundles("node1").unwrap();
    let kept = rows.iter().filter(|row| row.state == BundleState::Approved).count();
    assert_eq!((rows.len(), kept), (20, 8), "older ones lose their content");
    // Nothing signs: it waits, and nothing is lost.
    let state = site.path();
    std::fs::rename(state.join("signer.key"), state.join("gone")).unwrap();
    let (tag, age) = site.nodes[1].made(1, "x");
    let waits = site.put(&site.nodes[1], &tag, &age).unwrap();
    assert_eq!((waits.status, waits.standing().bundle), (201, Stand::Pending));
    let code = waits.standing().code.unwrap();
    let refused = bundles::approve(&mut site.state(), "node2", &code, now()).unwrap_err();
    assert!(refused.to_string().contains("imprint-host signer new"), "{refused}");
    std::fs::rename(state.join("gone"), state.join("signer.key")).unwrap();
    bundles::approve(&mut site.state(), "node2", &code, now()).unwrap();
}

/// A key that this host does not hold: it stores what it cannot read, and compares codes only.
#[test]
fn what_this_host_cannot_read() {
    let site = site("bundle_key = \"image\"");
    let _server = site.serve(Tell::default());
    let node = &site.nodes[0];
    let (tag, age) = node.made(1, "secret");
    assert_eq!(site.put(node, &tag, b"garbage").unwrap().status, 400);
    let code = site.put(node, &tag, &age).unwrap().standing().code.unwrap();
    let (status, said, _) = site.run(&["bundle", "diff", "node1"]);
    assert_eq!((status, said.contains("cannot read") && said.contains(&code)), (0, true), "{said}");
    let (status, _, error) = site.run(&["bundle", "make", "node1", "--from", "/etc/hostname"]);
    assert_eq!(status, 1, "{error}");
    let dir = site.dir.path().join("files/etc");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("motd"), "made here").unwrap();
    let from = site.dir.path().join("files").display().to_string();
    let (status, _, error) = site.run(&["bundle", "make", "node1", "--from", &from]);
    assert!(status == 1 && error.contains("--recipient"), "{error}");
    let recipient = node.identity.recipient().to_string();
    let (status, said, error) =
        site.run(&["bundle", "make", "node1", "--from", &from, "--recipient", &recipient, "--json"]);
    assert_eq!(status, 0, "{error}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said).unwrap()["counter"], 1);
    let sealed = site.get(node, None, "").unwrap();
    assert_eq!(opened(&site, node, &sealed).2, "made here");
    let (status, said, error) = site.run(&["bundle", "approve", "node1", &code]);
    assert_eq!((status, said.starts_with("approved ")), (0, true), "{error}");
    assert_eq!(opened(&site, node, &site.get(node, Some(&tag), "").unwrap()).0, 2);
}

/// The commands, as people and programs see them.
#[test]
fn commands() {
    let site = site(ADMIN);
    let _server = site.serve(Tell::default());
    let node = &site.nodes[0];
    let file = site.dir.path().join("node1.toml");
    let text = "enable = [\"chrony.service\"]\n[[file]]\npath = \"/etc/shadow\"\nmode = \"0600\"\n\
                text = \"root:$6$abcdefgh$Jq0ZPpFZ8Pn6n8K1oG7J/kP1i6mYpQ1h0mE0lq7XnJc3a9eK\
                J8vW3m5D2pQ1xYABCDEFGHIJKLMNOPQRSTUVWX:1::::::\\n\"\n";
    std::fs::write(&file, text).unwrap();
    let run = |arguments: &[&str]| {
        let (status, said, error) = site.run(arguments);
        assert_eq!((status, error.as_str()), (0, ""), "{arguments:?}");
        said
    };
    let json = |arguments: &[&str]| {
        serde_json::from_str::<serde_json::Value>(&run(&[arguments, &["--json"]].concat())).unwrap()
    };
    assert!(run(&["bundle", "list"]).starts_with("no bundles"));
    assert!(run(&["bundle", "make", "node1", "--from", file.to_str().unwrap()]).starts_with("version 1 of node1: "));
    assert_eq!(json(&["bundle", "make", "node1", "--from", file.to_str().unwrap()])["unchanged"], true);
    let shown = run(&["bundle", "show", "node1"]);
    assert!(shown.contains("unit      enable chrony.service\nfile      0600 0:0  etc/shadow  "), "{shown}");
    let age = site.dir.path().join("out.age");
    run(&["bundle", "show", "node1", "1", "--age", age.to_str().unwrap()]);
    let read = imprint::bundle::Bundle::decrypt(&std::fs::read(&age).unwrap(), &node.identity).unwrap();
    assert_eq!(read.entries().len(), 1);
    let diff = run(&["bundle", "diff", "node1"]);
    assert!(
        diff.contains("added etc/shadow") && diff.contains("[hash of a password, ") && !diff.contains("Jq0ZPpFZ"),
        "{diff}"
    );
    let (tag, upload) = node.made(1, "hi\\n");
    let code = site.put(node, &tag, &upload).unwrap().standing().code.unwrap();
    let diff = json(&["bundle", "diff", "node1"]);
    let paths: Vec<&str> =
        diff["differences"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(
        (paths, diff["new"]["code"].as_str()),
        (vec!["manifest", "etc/motd", "etc/shadow"], Some(code.as_str()))
    );
    let nodes = run(&["nodes"]);
    assert!(nodes.contains(&format!("node1 waits for approval: bundle {code} from 127.0.0.1")), "{nodes}");
    assert_eq!(json(&["bundle", "list", "node1"]).as_array().unwrap().len(), 2);
    assert_eq!(json(&["bundle", "deny", "node1", &code])["state"], "denied");
    assert_eq!(json(&["bundle", "renew", "node1"])["renew"], "node1");
    assert_eq!(json(&["nodes"])[0]["bundle"]["renew"], true);
    assert_eq!(json(&["bundle", "renew", "node1", "--cancel"])["cancelled"], "node1");
    assert_eq!(json(&["nodes"])[0]["bundle"]["renew"], false);
    assert_eq!(json(&["bundle", "make", "node1", "--age", age.to_str().unwrap()])["counter"], 2);
    assert_eq!(json(&["bundle", "rollback", "node1", "1"])["content_of"], 1);
    assert_eq!(json(&["bundle", "remove", "node1", "1"])["state"], "removed");
    for (arguments, why) in [
        (&["bundle", "show", "node9"][..], "there is no node node9"),
        (&["bundle", "approve", "node1", &code], "was denied at"),
        (&["bundle", "deny", "node1", "x"], "no bundle of node1 waits"),
        (&["bundle", "renew", "node1", "--cancel"], "node1 is not asked for another bundle"),
        (&["bundle", "show", "node1", "1"], "version 1 of node1 was removed"),
        (&["bundle", "show", "node2"], "node2 has no bundle"),
        (&["bundle", "make", "node1"], "nothing to make a bundle of"),
    ] {
        let (status, _, error) = site.run(arguments);
        assert!(status == 1 && error.contains(why) && error.lines().count() == 1, "{arguments:?}: {error}");
    }
}

/// A program is told what happens, also if it fails at first and the server is started again in between. In order for each node.
#[test]
fn programs_are_told() {
    let site = site(ADMIN);
    let (log, ready) = (site.dir.path().join("events"), site.dir.path().join("ready"));
    let script = format!("test -e {} || exit 1; cat >> {}", ready.display(), log.display());
    let tell = || Tell { hook: Some(script.parse().unwrap()), webhook: None };
    let mut state = site.state();
    let made = bundles::make(&mut state, "node1", content("one"), &[], now()).unwrap();
    let (digest, node) = (made.row.sha256, &site.nodes[0]);
    let server = site.serve(tell());
    let report = |outcome| serde_json::to_string(&Report::new(outcome, 1, &digest)).unwrap();
    assert_eq!(site.report(node, &report(Outcome::Failed)).unwrap().status, 204);
    assert_eq!(site.report(node, &report(Outcome::Available)).unwrap().status, 204);
    let (tag, age) = site.nodes[1].made(1, "x");
    assert_eq!(site.put(&site.nodes[1], &tag, &age).unwrap().status, 201);
    drop(server);
    std::fs::write(&ready, "").unwrap();
    let _server = site.serve(tell());
    let start = std::time::Instant::now();
    let lines = loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.lines().count() >= 3 {
            break text;
        }
        assert!(start.elapsed() < LIMIT, "{text}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let events: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |node: &str| -> Vec<String> {
        events
            .iter()
            .filter(|event| event["node"] == node)
            .map(|event| event["event"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        (of("node1"), of("node2")),
        (vec!["failed".to_owned(), "available".to_owned()], vec!["pending".to_owned()])
    );
    assert!(events.iter().all(|event| event["version"] == 1 && event["id"].is_i64() && event["at"].is_string()));
}

/// Attack: a stolen certificate sends garbage again and again. Its node waits an hour, and the others go on.
#[test]
fn a_node_that_sends_garbage_has_to_wait() {
    let site = site(ADMIN);
    let _server = site.serve(Tell::default());
    let (tag, age) = site.nodes[0].made(1, "x");
    for _ in 0..20 {
        assert_eq!(site.put(&site.nodes[0], &tag, b"garbage").unwrap().status, 400);
    }
    let later = site.put(&site.nodes[0], &tag, &age).unwrap();
    assert_eq!((later.status, later.header("Retry-After").is_some()), (429, true), "{}", later.text());
    let (tag, age) = site.nodes[1].made(1, "x");
    assert_eq!(site.put(&site.nodes[1], &tag, &age).unwrap().status, 201);
}

/// The accident: the key of bundles leaks, and with it what was removed, because it still lies in the file of the store.
#[test]
fn what_was_removed_is_gone_from_the_disk() {
    let site = site(ADMIN);
    let mut state = site.state();
    bundles::make(&mut state, "node1", content("secret"), &[], now()).unwrap();
    let row = state.store.bundle("node1", 1).unwrap().unwrap();
    let (_, age) = state.store.bundle_bytes(row.id).unwrap().unwrap();
    drop(state);
    let part = age[age.len() - 32..].to_vec();
    let holds = || std::fs::read(site.path().join("imprint.db")).unwrap().windows(32).any(|bytes| bytes == part);
    assert!(holds());
    bundles::remove(&mut site.state(), "node1", 1, now()).unwrap();
    assert!(!holds());
}

/// Attack: a connection sends a long body slowly, and another of the same node does so, too. Others are served meanwhile.
#[test]
fn long_bodies_of_one_node_hold_up_no_other() {
    let site = site(ADMIN);
    let _server = site.serve(Tell::default());
    let begin = |node: &Node| {
        let stream = TcpStream::connect(site.address).unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let connection = rustls::ClientConnection::new(node.client.clone(), name).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        let head = format!(
            "PUT /.well-known/imprint/bundle?tag={} HTTP/1.1\r\nHost: x\r\nContent-Length: 16000000\r\nExpect: 100-continue\r\n\r\n",
            "0".repeat(64)
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut line = [0; 12];
        stream.read_exact(&mut line).unwrap();
        (stream, String::from_utf8(line.to_vec()).unwrap())
    };
    let (_first, said) = begin(&site.nodes[0]);
    assert_eq!(said, "HTTP/1.1 100");
    assert_eq!(begin(&site.nodes[0]).1, "HTTP/1.1 503", "one at a time");
    // It holds up no answer, not even one to the same node.
    let mut random = Vec::new();
    std::fs::File::open("/dev/urandom").unwrap().take(200_000).read_to_end(&mut random).unwrap();
    bundles::make(&mut site.state(), "node1", content(&imprint::hex::encode(&random)), &[], now()).unwrap();
    let long = site.get(&site.nodes[0], None, "").unwrap();
    assert_eq!((long.status, long.body.len() > 64 * 1024), (200, true));
    let (_other, said) = begin(&site.nodes[1]);
    assert_eq!(said, "HTTP/1.1 100");
    let (tag, age) = site.nodes[1].made(1, "short");
    assert_eq!(site.put(&site.nodes[1], &tag, &age).unwrap().status, 201);
}
