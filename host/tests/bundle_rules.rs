//! Tests of rules about bundles that accidents of administrators have made: signers and keys that change, and input that has no end.

use crate::support::stateless;

use std::path::Path;
use std::time::Duration;

use imprint::age::Identity;
use imprint::bundle::answer::{Outcome, Report, Stand};
use imprint::bundle::statement::Sealed;
use imprint::bundle::{self, Expect};
use imprint::payload::signed::{Kid, Signer};
use imprint::time::Timestamp;
use imprint_host::bundles::{self, BundleError, Content, Source};
use imprint_host::serve::Tell;
use imprint_host::state::{self, Signing, Warning};
use imprint_host::store::{BundleRow, Told};
use stateless::{Node, Site};

const PAYLOAD: &str = "bundle_key = \"payload\"";

fn now() -> Timestamp {
    Timestamp::system()
}

fn content(text: &str) -> Source {
    let text = format!("[[file]]\npath = \"etc/motd\"\ntext = \"{text}\"\n");
    Source::Content(Content::of_toml("f", &text, Path::new("")).unwrap())
}

fn change(site: &Site, signing: Signing<'_>) -> Result<Signer, state::Error> {
    site.state().sign_with(signing, now(), &mut |_| ())
}

/// Who has signed what a node gets.
fn kid(site: &Site, node: &Node) -> Kid {
    let answer = site.get(node, None, "").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    Sealed::split(&answer.body).unwrap().kid()
}

/// Replaces a record. The answer: the warnings.
fn record(site: &Site, node: &str, rule: &str) -> Vec<Warning> {
    let text = format!("name = \"{node}\"\nsubject = [\"CN={node}\"]\n{rule}\n");
    let adding = state::Adding { replace: true, allow_duplicate: Vec::new() };
    let added = site.state().add_nodes_as(&[("f".to_owned(), text)], &adding, now()).unwrap();
    added.warnings.into_iter().filter(|warning| warning.word() == "bundle_key").collect()
}

/// The accident: a key is rotated and retired, and every node whose bundle it has signed is locked out at its next boot, because no
/// payload names that key any more.
#[test]
fn a_signer_is_not_retired_while_nodes_get_what_it_has_signed() {
    let names: Vec<(String, &str)> = (1..=8)
        .map(|number| (format!("node{number}"), if number == 2 { "bundle_key = \"image\"" } else { PAYLOAD }))
        .collect();
    let site = Site::new(&names);
    let _server = site.serve(Tell::default());
    let foreign = Identity::generate().unwrap().recipient();
    for (name, rule) in &names {
        let recipients = if *rule == PAYLOAD { vec![] } else { vec![foreign] };
        bundles::make(&mut site.state(), name, content("one"), &recipients, now()).unwrap();
    }
    let old = site.state().ca.signers().unwrap()[0].0.kid();
    let new = change(&site, Signing::Rotate(None)).unwrap().kid();
    let stand = |node: usize| kid(&site, &site.nodes[node]);
    assert!((0..8).all(|node| stand(node) == old));
    let (status, _, error) = site.run(&["signer", "retire", &old.to_string()]);
    let want = format!(
        "imprint-host: signer {old} has signed the current bundles of 8 nodes (node1, node2, node3, node4, node5 and 3 more), which \
         could not verify them any more; sign them anew first: imprint-host bundle sign --all\n"
    );
    assert_eq!((status, error), (1, want));
    // Each of these signs anew. The same content is no reason to leave it.
    let made = bundles::make(&mut site.state(), "node1", content("one"), &[], now()).unwrap();
    assert_eq!((made.unchanged, made.row.counter), (false, Some(2)));
    let made = bundles::make(&mut site.state(), "node1", content("one"), &[], now()).unwrap();
    assert_eq!((made.unchanged, made.row.counter), (true, Some(2)));
    let row = bundles::rollback(&mut site.state(), "node3", 1, now()).unwrap();
    assert_eq!((row.counter, row.content_of), (Some(2), Some(1)));
    let again = bundles::rollback(&mut site.state(), "node3", 2, now());
    assert!(matches!(again, Err(BundleError::Current { .. })), "{again:?}");
    // One that this host cannot read, and one whose node is to make another one: that stays asked for.
    bundles::renew(&mut site.state(), "node4", now()).unwrap();
    let before = site.get(&site.nodes[1], None, "").unwrap();
    let (status, said, error) = site.run(&["bundle", "sign", "node2", "node4", "node1"]);
    assert_eq!((status, error.as_str(), said.lines().count()), (0, "", 3), "{said}");
    assert!(said.contains("node1: the key that signs now has signed"), "{said}");
    let after = site.get(&site.nodes[1], None, "").unwrap();
    let (before, after) = (Sealed::split(&before.body).unwrap(), Sealed::split(&after.body).unwrap());
    assert_eq!((after.statement().counter, after.age()), (2, before.age()));
    assert_eq!(site.get(&site.nodes[3], None, "").unwrap().standing().bundle, Stand::Renew);
    bundles::keep(&mut site.state(), "node4", now()).unwrap();
    assert!([0, 1, 2, 3].iter().all(|node| stand(*node) == new));
    assert!(matches!(change(&site, Signing::Retire(&old.to_string())), Err(state::Error::SignsBundles { nodes, .. })
        if nodes == ["node5", "node6", "node7", "node8"]));
    // A removed version, and one for another key than the node has now, bind nobody; one whose record is not understood does, and
    // holds up none of the others.
    bundles::remove(&mut site.state(), "node7", 1, now()).unwrap();
    assert_eq!(record(&site, "node8", "bundle_key = \"image\"").len(), 1);
    let spoil = |record: &str| {
        let store = rusqlite::Connection::open(site.path().join("imprint.db")).unwrap();
        store.execute("UPDATE nodes SET record = ?1 WHERE name = 'node5'", [record]).unwrap();
    };
    spoil("name = \"node5\"\nsubject = [\"CN=node5\"]\nbundle_key = \"stick\"\nbundle_approve = \"auto\"\n");
    let (status, said, error) = site.run(&["bundle", "sign", "--all", "--json"]);
    assert!(status == 1 && error.contains("bundle_approve: \"auto\" needs"), "{error}");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((said["signed"].as_array().unwrap().len(), &said["signed"][0]["node"]), (1, &"node6".into()));
    assert!(matches!(change(&site, Signing::Retire(&old.to_string())), Err(state::Error::SignsBundles { nodes, .. })
        if nodes == ["node5"]));
    record(&site, "node5", PAYLOAD);
    assert_eq!(site.run(&["bundle", "sign", "--all"]).0, 0);
    assert!(site.run(&["bundle", "sign", "--all"]).1.starts_with("nothing to sign"));
    change(&site, Signing::Retire(&old.to_string())).unwrap();
    // What the site is now: every node that has a bundle takes it.
    let signers: Vec<Signer> = site.state().ca.signers().unwrap().into_iter().map(|(signer, _)| signer).collect();
    for number in [0, 2, 3, 4, 5] {
        let node = &site.nodes[number];
        let sealed = site.get(node, None, "").unwrap();
        let (name, signers) = (node.name.as_str().try_into().unwrap(), &signers);
        bundle::open(&sealed.body, &Expect { node: &name, least: 2, signers }, &node.identity).unwrap();
    }
    for (arguments, why) in [
        (&["bundle", "sign", "node7"][..], "version 1 of node7 was removed"),
        (&["bundle", "sign", "node8"], "is encrypted for another key"),
        (&["bundle", "sign", "node9"], "there is no node node9"),
    ] {
        let (status, _, error) = site.run(arguments);
        assert!(status == 1 && error.contains(why) && error.lines().count() == 1, "{arguments:?}: {error}");
    }
}

/// The accident: an administrator has asked a node for another bundle, and gets no more boots of it until it has made one.
#[test]
fn what_was_asked_of_a_node_is_taken_back() {
    let site = Site::new(&[("node1".to_owned(), PAYLOAD)]);
    let _server = site.serve(Tell::default());
    let node = &site.nodes[0];
    bundles::make(&mut site.state(), "node1", content("one"), &[], now()).unwrap();
    bundles::renew(&mut site.state(), "node1", now()).unwrap();
    assert_eq!(site.get(node, None, "").unwrap().standing().bundle, Stand::Renew);
    let (status, said, _) = site.run(&["bundle", "renew", "node1", "--cancel"]);
    assert_eq!(
        (status, said.as_str()),
        (0, "node1 need not make another bundle, and gets the version that there is\n")
    );
    assert_eq!(site.get(node, None, "").unwrap().status, 200);
    let (status, _, error) = site.run(&["bundle", "renew", "node1", "--cancel"]);
    let want = "imprint-host: node1 is not asked for another bundle; there is nothing to take back\n";
    assert_eq!((status, error.as_str()), (1, want));
}

/// The accident: the record names another key, the node gets what it cannot open, and boots no more.
#[test]
fn a_version_for_another_key_is_none() {
    let site = Site::new(&[("node1".to_owned(), PAYLOAD), ("node2".to_owned(), "bundle_key = \"image\"")]);
    let _server = site.serve(Tell::default());
    let node = &site.nodes[0];
    bundles::make(&mut site.state(), "node1", content("one"), &[], now()).unwrap();
    assert!(record(&site, "node1", "bundle_key = \"payload\"\nbundle_approve = \"auto\"").is_empty());
    let warnings = record(&site, "node1", "bundle_key = \"image\"");
    let own = node.identity.recipient();
    let want = format!(
        "node1: version 1 of its bundle was made for another key (payload {own}) than the new record names (image), and counts as none \
         from now on; make another one (imprint-host bundle make node1), or the node does"
    );
    assert_eq!(warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), [want]);
    let none = site.get(node, None, "").unwrap();
    assert_eq!((none.status, none.standing().bundle, none.standing().next), (404, Stand::None, 2));
    assert!(site.run(&["nodes"]).1.contains("1, for another key"));
    // The same key in another place is the same key.
    assert!(record(&site, "node1", &format!("bundle_key = \"stick\"\nbundle_recipient = \"{own}\"")).is_empty());
    assert_eq!(site.get(node, None, "").unwrap().status, 200);

    // Of a key that is not here, the recipients that were given count.
    let node = &site.nodes[1];
    let (own, other) = (node.identity.recipient(), Identity::generate().unwrap().recipient());
    bundles::make(&mut site.state(), "node2", content("one"), &[other, own], now()).unwrap();
    let named = |recipient| format!("bundle_key = \"image\"\nbundle_recipient = \"{recipient}\"");
    for recipient in [own, other] {
        assert!(record(&site, "node2", &named(recipient)).is_empty());
        assert_eq!(site.get(node, None, "").unwrap().status, 200);
    }
    let third = Identity::generate().unwrap().recipient();
    assert_eq!(record(&site, "node2", &named(third)).len(), 1);
    assert_eq!(site.get(node, None, "").unwrap().standing().bundle, Stand::None);
    // What a node sends is for the key that the record names. It counts no more when that is another.
    let (tag, age) = node.made(1, "sent");
    let code = site.put(node, &tag, &age).unwrap().standing().code.unwrap();
    bundles::approve(&mut site.state(), "node2", &code, now()).unwrap();
    assert_eq!(site.get(node, Some(&tag), "").unwrap().status, 200);
    record(&site, "node2", &named(own));
    for asked in [None, Some(&tag)] {
        assert_eq!(site.get(node, asked, "").unwrap().standing().bundle, Stand::None, "{asked:?}");
    }
    let again = site.put(node, &tag, &age).unwrap();
    assert_eq!((again.status, again.standing().bundle), (201, Stand::Pending), "{}", again.text());
    let code = again.standing().code.unwrap();
    bundles::approve(&mut site.state(), "node2", &code, now()).unwrap();
    assert_eq!(site.get(node, Some(&tag), "").unwrap().status, 200);
}

/// The accident: somebody who may no longer read a node's bundles is left out of the command, and can read the next one as well,
/// because its content is the same.
#[test]
fn other_recipients_are_another_version() {
    let site = Site::new(&[("node1".to_owned(), PAYLOAD)]);
    let [a, b] = [(); 2].map(|()| Identity::generate().unwrap());
    let make = |recipients: &[&Identity]| {
        let recipients: Vec<_> = recipients.iter().map(|one| one.recipient()).collect();
        let made = bundles::make(&mut site.state(), "node1", content("one"), &recipients, now()).unwrap();
        (made.unchanged, made.row)
    };
    let opens = |row: &BundleRow, key: &Identity| {
        let (_, age) = site.state().store.bundle_bytes(row.id).unwrap().unwrap();
        bundle::Bundle::decrypt(&age, key).is_ok()
    };
    let (unchanged, row) = make(&[&a, &b]);
    assert!(!unchanged && opens(&row, &a) && opens(&row, &b));
    assert!(make(&[&b, &a, &b]).0, "in whatever order");
    let (unchanged, row) = make(&[]);
    assert!(!unchanged && !opens(&row, &a) && opens(&row, &site.nodes[0].identity));
}

/// The attack: a node, or who has stolen its certificate, reports again and again, and the store, the log and an engine get it each
/// time.
#[test]
fn reports_that_say_nothing_new_are_not_written() {
    let site = Site::new(&[("node1".to_owned(), PAYLOAD), ("node2".to_owned(), PAYLOAD)]);
    let made = bundles::make(&mut site.state(), "node1", content("one"), &[], now()).unwrap();
    let mut report = Report::new(Outcome::Available, 1, &made.row.sha256);
    let mut state = site.state();
    let mut say = |report: &Report, boot: u8, at: Timestamp| {
        let state::State { ca, store, urls } = &mut state;
        let changes = store.changes().unwrap();
        let desk = imprint_host::enrol::Desk { changes: &changes, ca, urls, now: at };
        let from = bundles::Reporter { node: "node1", certificate: [boot; 32], peer: "192.0.2.1" };
        let said = bundles::report(&desk, &from, report, &[Told::Hook]).unwrap();
        let writes = changes.writes();
        changes.commit().unwrap();
        (said, writes)
    };
    let start = now();
    assert_eq!(say(&report, 1, start), (bundles::Reported::Noted, true));
    for minute in 1..100 {
        let at = start.plus(Duration::from_secs(60 * minute));
        assert_eq!(say(&report, 1, at), (bundles::Reported::Known, false), "the same");
    }
    let later = start.plus(Duration::from_secs(7200));
    assert_eq!(say(&report, 2, later), (bundles::Reported::Noted, true), "another boot");
    // One that says something else each time: so many at once, and then one a minute.
    let mut flood = |at: Timestamp, name: &str| {
        (0..50)
            .filter(|number| {
                report.detail = Some(format!("{name} {number}"));
                let (said, writes) = say(&report, 2, at);
                assert_eq!(matches!(said, bundles::Reported::Noted), writes);
                writes
            })
            .count()
    };
    assert_eq!(flood(later, "a"), 19);
    assert_eq!(flood(later, "b"), 0);
    assert_eq!(flood(later.plus(Duration::from_secs(60)), "c"), 1);
    assert_eq!(flood(later.minus(Duration::from_secs(3600)), "the clock is set back"), 1);
    assert_eq!(flood(later.minus(Duration::from_secs(3600)).plus(Duration::from_secs(120)), "d"), 2);
    drop(state);
    // The node is told when to come back.
    let _server = site.serve(Tell::default());
    let statuses: Vec<u16> = (0..25)
        .map(|number| {
            report.detail = Some(format!("now {number}"));
            let answer = site.report(&site.nodes[0], &serde_json::to_string(&report).unwrap()).unwrap();
            assert_eq!(answer.header("Retry-After").is_some(), answer.status == 429);
            answer.status
        })
        .collect();
    assert_eq!((statuses.contains(&429), statuses[24]), (true, 429), "{statuses:?}");
}

/// The accident: a device, a pipe, or a folder that leads to itself in place of the files of a node. The command hung, or ate all
/// memory.
#[test]
fn what_no_bundle_is_made_of() {
    use nix::sys::stat::Mode;

    let site = Site::new(&[("node1".to_owned(), PAYLOAD)]);
    let work = site.dir.path();
    let make = |name: &str| {
        let dir = work.join(name);
        std::fs::create_dir_all(dir.join("etc")).unwrap();
        dir
    };
    let (pipe, long, text) = (work.join("pipe"), work.join("long"), work.join("latin"));
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    std::fs::File::create(&long).unwrap().set_len(1 << 40).unwrap();
    std::fs::write(&text, b"\xff\xfe").unwrap();
    std::os::unix::fs::symlink(work.join("loop"), work.join("loop")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(work.join("socket")).unwrap();
    let with_pipe = make("with-pipe");
    nix::unistd::mkfifo(&with_pipe.join("etc/pipe"), Mode::S_IRWXU).unwrap();
    let with_long = make("with-long");
    std::fs::File::create(with_long.join("etc/long")).unwrap().set_len(1 << 40).unwrap();
    let many = make("many");
    for number in 0..4097 {
        std::os::unix::fs::symlink("x", many.join(format!("etc/{number}"))).unwrap();
    }
    let mut deep = make("deep").join("etc");
    for _ in 0..200 {
        deep.push("abc");
    }
    std::fs::create_dir_all(&deep).unwrap();
    let toml = |from: &Path| {
        let file = work.join(format!("{}.toml", from.file_name().unwrap().display()));
        std::fs::write(&file, format!("[[file]]\npath = \"etc/x\"\nfrom = \"{}\"\n", from.display())).unwrap();
        file
    };
    let (zero, no_file, too_long) = (Path::new("/dev/zero"), "is not a regular file", "bytes, the most");
    let rows: [(&str, &Path, &str); 16] = [
        ("--from", zero, no_file),
        ("--age", zero, no_file),
        ("--from", &toml(zero), no_file),
        ("--from", &pipe, no_file),
        ("--age", &pipe, no_file),
        ("--from", &toml(&pipe), no_file),
        ("--from", &work.join("socket"), no_file),
        ("--age", work, no_file),
        ("--from", &long, too_long),
        ("--age", &long, too_long),
        ("--from", &toml(&long), too_long),
        ("--from", &with_long, too_long),
        ("--from", &with_pipe, "is neither a file nor a link nor a directory"),
        ("--from", &work.join("loop"), "Too many levels of symbolic links"),
        ("--from", &many, "has more than 4096 files, links and directories"),
        ("--from", &work.join("deep"), "bytes"),
    ];
    for (option, path, why) in rows {
        let (status, said, error) = site.run(&["bundle", "make", "node1", option, path.to_str().unwrap()]);
        assert_eq!((status, said.as_str(), error.lines().count()), (1, "", 1), "{option} {path:?}: {error}");
        assert!(error.contains(why), "{option} {path:?}: {error}");
    }
    let (_, _, error) = site.run(&["bundle", "make", "node1", "--from", text.to_str().unwrap()]);
    assert!(error.contains("it is not UTF-8; give --age for an age file"), "{error}");
    // A link to itself within a folder is a link, and is copied.
    let round = make("round");
    std::os::unix::fs::symlink("..", round.join("etc/up")).unwrap();
    let (status, _, error) = site.run(&["bundle", "make", "node1", "--from", round.to_str().unwrap()]);
    assert_eq!((status, error.as_str()), (0, ""));
    assert!(site.run(&["bundle", "show", "node1"]).1.contains("etc/up  -> .."));
}

/// The attack: whoever has a node's certificate asks for its tag, and takes back in silence what an administrator has asked for.
#[test]
fn a_tag_alone_takes_back_no_renewal() {
    let site = Site::new(&[("node1".to_owned(), PAYLOAD), ("node2".to_owned(), "bundle_key = \"image\"")]);
    let _server = site.serve(Tell::default());
    let asked = |node: &Node| {
        let answer = site.get(node, None, "").unwrap();
        answer.status == 404 && answer.standing().bundle == Stand::Renew
    };
    let log = || -> Vec<String> {
        let events = site.state().store.log(100).unwrap();
        events.into_iter().filter(|event| event.event == "bundle").map(|event| event.detail).collect()
    };
    for node in &site.nodes {
        let (tag, age) = node.made(1, "same");
        let code = site.put(node, &tag, &age).unwrap().standing().code.unwrap();
        bundles::approve(&mut site.state(), &node.name, &code, now()).unwrap();
        bundles::renew(&mut site.state(), &node.name, now()).unwrap();
        let lines = log().len();
        // No body, one that is cut short, and no bundle.
        let tagged = imprint::hex::encode(&tag);
        let head = |length: usize| {
            let head =
                format!("PUT /.well-known/imprint/bundle?tag={tagged} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
            format!("{head}Content-Length: {length}\r\n\r\n").into_bytes()
        };
        assert_eq!(site.ask(&node.client, &head(0)).unwrap().status, 400);
        assert_eq!(site.put(node, &tag, b"no bundle").unwrap().status, 400);
        assert_eq!(site.put(node, &tag, &age[..age.len() / 4]).unwrap().status, 400);
        assert!(asked(node) && log().len() == lines, "{:?}", log());
    }
    // The node makes the same content again, with the next counter: it is done, and the log says so.
    let node = &site.nodes[0];
    let (tag, again) = node.made(2, "same");
    let known = site.put(node, &tag, &again).unwrap();
    let standing = known.standing();
    assert_eq!((known.status, standing.bundle, standing.counter, standing.next), (200, Stand::Approved, Some(1), 2));
    assert!(log().iter().any(|line| line.ends_with("makes the same: version 1 stays")), "{:?}", log());
    assert_eq!(site.get(node, Some(&tag), "").unwrap().status, 200);
    assert!(!asked(node));
    // What this host cannot read may be anything, whatever tag it has: it waits.
    let node = &site.nodes[1];
    let (tag, _) = node.made(2, "same");
    let (_, other) = node.made(2, "something else");
    let stored = site.put(node, &tag, &other).unwrap();
    assert_eq!((stored.status, stored.standing().bundle), (201, Stand::Pending));
    assert_eq!(site.get(node, Some(&tag), "").unwrap().status, 202);
    let code = stored.standing().code.unwrap();
    bundles::approve(&mut site.state(), "node2", &code, now()).unwrap();
    let got = site.get(node, Some(&tag), "").unwrap();
    assert_eq!(Sealed::split(&got.body).unwrap().age(), other);
}

/// The accident: a backup is put in place of a directory that has given out more versions since. Their counters are used again, for
/// other content, and a node that has seen them takes none of it.
#[test]
fn counters_that_a_backup_does_not_know_are_not_used_again() {
    let site = Site::new(&[("node1".to_owned(), PAYLOAD)]);
    let make = |text: &str| bundles::make(&mut site.state(), "node1", content(text), &[], now()).unwrap().row.counter;
    assert_eq!(make("one"), Some(1));
    let file = site.dir.path().join("node1.toml");
    std::fs::write(&file, "[[file]]\npath = \"etc/motd\"\ntext = \"one\"\n").unwrap();
    let above =
        |above: &str| site.run(&["bundle", "make", "node1", "--from", file.to_str().unwrap(), "--above", above]);
    for (number, why) in [
        ("0", "--above 0: node1 has version 1 already"),
        ("1", "--above 1: node1 has version 1 already"),
        ("1000002", "--above 1000002 is more than 1000000 above version 1 of node1"),
        ("18446744073709551615", "is more than 1000000 above"),
    ] {
        let (status, _, error) = above(number);
        assert!(status == 1 && error.contains(why) && error.lines().count() == 1, "{error}");
    }
    // Also with the content that there is.
    let (status, said, error) = above("7");
    assert!((status, error.as_str()) == (0, "") && said.starts_with("version 8 of node1: "), "{said}");
    assert_eq!(make("two"), Some(9));
    assert!(above("1000009").1.starts_with("version 1000010 "), "as far as it goes");
    let _server = site.serve(Tell::default());
    let standing = site.ask(
        &site.nodes[0].client,
        b"GET /.well-known/imprint/standing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(standing.unwrap().standing().next, 1_000_011);
}

/// The attack: a node sends files that are too long to be compared, and the administrator has no way to see what he approves; or he
/// looks at the version that there is, and approves the one that waits.
#[test]
fn an_administrator_sees_all_of_what_he_approves() {
    use std::os::unix::fs::PermissionsExt;

    let site = Site::new(&[("node1".to_owned(), PAYLOAD), ("node2".to_owned(), "bundle_key = \"image\"")]);
    let _server = site.serve(Tell::default());
    let node = &site.nodes[0];
    let (tag, age) = node.made(1, &"line\n".repeat(5000));
    let code = site.put(node, &tag, &age).unwrap().standing().code.unwrap();
    let (status, _, error) = site.run(&["bundle", "show", "node1"]);
    let want =
        format!("node1 has no version yet, and the bundle {code} waits: imprint-host bundle diff node1 shows it");
    assert_eq!((status, error), (1, format!("imprint-host: {want}\n")));
    let diff = site.run(&["bundle", "diff", "node1"]).1;
    let want = "1 file is not shown in full; imprint-host bundle show node1 pending --tar FILE writes all of them";
    assert_eq!(diff.lines().last(), Some(want));
    let json: serde_json::Value = serde_json::from_str(&site.run(&["bundle", "diff", "node1", "--json"]).1).unwrap();
    assert_eq!(json["differences"][0]["in_full"], false);
    let (tar, file) = (site.dir.path().join("tar"), site.dir.path().join("tar").display().to_string());
    let (status, _, error) = site.run(&["bundle", "show", "node1", "pending", "--tar", &file]);
    assert_eq!((status, error.as_str()), (0, ""));
    assert_eq!(*std::fs::read(&tar).unwrap(), **bundle::Bundle::decrypt(&age, &node.identity).unwrap().tar());
    assert_eq!(std::fs::metadata(&tar).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&tar, "mine").unwrap();
    let (status, _, error) = site.run(&["bundle", "show", "node1", "pending", "--tar", &file]);
    let want = format!("imprint-host: {file} is there already, and stays as it is; give the name of a new file\n");
    assert_eq!((status, error, std::fs::read(&tar).unwrap()), (1, want, b"mine".to_vec()));

    bundles::approve(&mut site.state(), "node1", &code, now()).unwrap();
    assert!(!site.run(&["bundle", "show", "node1"]).1.contains("waits"));
    let (tag, age) = node.made(2, "short");
    let code = site.put(node, &tag, &age).unwrap().standing().code.unwrap();
    let said = site.run(&["bundle", "show", "node1"]).1;
    let want = format!("the bundle {code} waits, and is another one: imprint-host bundle diff node1 shows it");
    assert_eq!(said.lines().last(), Some(want.as_str()));
    assert!(!site.run(&["bundle", "show", "node1", "1"]).1.contains(&code));
    let json: serde_json::Value = serde_json::from_str(&site.run(&["bundle", "show", "node1", "--json"]).1).unwrap();
    assert_eq!(json["waits"], code.as_str());

    // What this host cannot read.
    let node = &site.nodes[1];
    let (tag, age) = node.made(1, "x");
    site.put(node, &tag, &age).unwrap();
    let (out, code) = (site.dir.path().join("out"), bundle::code(&age));
    let (status, _, error) = site.run(&["bundle", "show", "node2", "pending", "--tar", out.to_str().unwrap()]);
    let want = format!(
        "this host cannot read the bundle {code} of node2: it is encrypted for another key (image) than those that are here"
    );
    assert!(status == 1 && error.contains(&want) && error.lines().count() == 1 && !out.exists(), "{error}");
}
