//! Kills the server at every named point of an upload, an approval and a report, and at random times: nothing that was answered is
//! lost, nothing is there twice, and nothing that waits is overwritten.

use crate::support::stateless;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use imprint::bundle::answer::{Outcome, Report, Stand};
use imprint::bundle::{self, Expect};
use imprint::digest::sha256;
use imprint::payload::signed::Signer;
use imprint_host::crash::BUNDLES;
use imprint_host::store::BundleState;
use stateless::{LIMIT, Node, Site};

/// Kills of `serve`. An administrator's commands are killed besides.
const KILLS: usize = 500;
/// A slow machine needs more kills for that much to happen.
const LEAST: usize = 40;
const NODES: usize = 8;
/// The server takes twenty different bundles of a node in an hour.
const ROUNDS: usize = 18;

/// What one node has done and was told.
#[derive(Default)]
struct Notes {
    /// By tag: SHA-256 of each age file that was sent with it.
    sent: BTreeMap<[u8; 32], BTreeSet<[u8; 32]>>,
    /// Tags that the server has answered for.
    answered: BTreeSet<[u8; 32]>,
    /// Versions that came, and their age files.
    had: BTreeMap<u64, [u8; 32]>,
    /// Versions whose report was answered, in order.
    reported: Vec<u64>,
}

/// Does one thing until the server answers.
fn insist<T>(over: &AtomicBool, mut act: impl FnMut() -> Option<T>) -> Option<T> {
    // The limit of the whole test ends what hangs.
    loop {
        if let Some(done) = act() {
            return Some(done);
        }
        if over.load(Ordering::Relaxed) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// A node makes one bundle after the other, sends each until it is decided, and reports those that it gets.
fn live(site: &Site, node: &Node, signers: &[Signer], rounds: &AtomicUsize, over: &AtomicBool) -> Notes {
    let mut notes = Notes::default();
    let name = node.name.as_str().try_into().unwrap();
    for round in 0..ROUNDS {
        let text = format!("{} {round}", node.name);
        let sent = insist(over, || {
            let (tag, age) = node.made(1, &text);
            notes.sent.entry(tag).or_default().insert(sha256(&age));
            let answer = site.put(node, &tag, &age).ok()?;
            match answer.status {
                200 | 201 => {
                    notes.answered.insert(tag);
                    Some(tag)
                }
                // What was sent before waits still: this must not take its place.
                409 => {
                    let waits = answer.standing();
                    assert!(waits.tag.is_some() && waits.tag != Some(imprint::hex::encode(&tag)), "{}", node.name);
                    None
                }
                // It had come, and was decided before this.
                403 if answer.standing().bundle == Stand::Denied => {
                    notes.answered.insert(tag);
                    Some(tag)
                }
                503 => None,
                status => panic!("{status}: {}", answer.text()),
            }
        });
        let Some(tag) = sent else { return notes };
        let decided = insist(over, || {
            let answer = site.get(node, Some(&tag), "").ok()?;
            match answer.status {
                200 => Some(Some(answer.body)),
                404 => {
                    assert_eq!(answer.standing().bundle, Stand::Denied, "it was answered, and is gone");
                    Some(None)
                }
                _ => None,
            }
        });
        let Some(decided) = decided else { return notes };
        rounds.fetch_add(1, Ordering::Relaxed);
        let Some(sealed) = decided else { continue };
        let expect = Expect { node: &name, least: 1, signers };
        let (statement, _) = bundle::open(&sealed, &expect, &node.identity).unwrap();
        assert!(notes.sent[&tag].contains(&statement.sha256), "what the node has sent");
        let known = notes.had.insert(statement.counter, statement.sha256);
        assert!(known.is_none_or(|known| known == statement.sha256), "a version has changed");
        let report =
            serde_json::to_string(&Report::new(Outcome::Available, statement.counter, &statement.sha256)).unwrap();
        if insist(over, || site.report(node, &report).ok().filter(|answer| answer.status == 204)).is_some() {
            notes.reported.push(statement.counter);
        }
    }
    notes
}

/// Decides what waits, three approvals for each denial, by commands that are killed, too.
fn administer(site: &Site, seed: &Mutex<u64>, over: &AtomicBool) -> usize {
    let mut kills = 0;
    while !over.load(Ordering::Relaxed) {
        for node in &site.nodes {
            let pending = site.state().store.pending_bundle(&node.name).unwrap();
            let Some(row) = pending else { continue };
            let chance = next(seed);
            let arguments = match chance % 4 {
                0 => vec!["bundle", "deny", &node.name, &row.code],
                _ => vec!["bundle", "approve", &node.name, &row.code],
            };
            let point = ["", "", "bundle decided", "bundle booked"][usize::try_from(chance >> 8).unwrap() % 4];
            let mut command = Command::new(env!("CARGO_BIN_EXE_imprint-host"));
            command.arg("--dir").arg(site.path()).args(arguments).env("IMPRINT_HOST_CRASH", point);
            kills += usize::from(command.output().unwrap().status.code().is_none());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    kills
}

/// xorshift64 (Marsaglia 2003): any numbers will do, if they are the same each time.
fn next(seed: &Mutex<u64>) -> u64 {
    let mut seed = seed.lock().unwrap();
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[test]
fn nothing_is_lost_doubled_or_overwritten() {
    let rule = "bundle_key = \"payload\"";
    let names: Vec<(String, &str)> = (0..NODES).map(|number| (format!("node{number:02}"), rule)).collect();
    let site = Site::new(&names);
    let signers: Vec<Signer> = site.state().ca.signers().unwrap().into_iter().map(|(signer, _)| signer).collect();
    let events = site.dir.path().join("events");
    let hook = format!("cat >> {}", events.display());
    let (rounds, over, seed) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(0x5eed_0009_u64));
    let (notes, commands, at_points) = std::thread::scope(|scope| {
        let (site, signers, rounds, over, seed) = (&site, &signers, &rounds, &over, &seed);
        let nodes: Vec<_> =
            site.nodes.iter().map(|node| scope.spawn(move || live(site, node, signers, rounds, over))).collect();
        let administrator = scope.spawn(move || administer(site, seed, over));
        let (mut kills, mut at_points) = (0, BTreeMap::<&str, usize>::new());
        // As often at a time that the seed names. Points of every request would leave little of the others.
        let points = [&BUNDLES[..], &[""; BUNDLES.len()]].concat();
        while kills < KILLS || rounds.load(Ordering::Relaxed) < LEAST {
            kills += 1;
            let chance = next(seed);
            let point = points[usize::try_from(chance >> 20).unwrap() % points.len()];
            let mut serve = site.process(point, &["--hook", &hook]);
            let start = Instant::now();
            while TcpStream::connect(site.address).is_err() && start.elapsed() < LIMIT {
                std::thread::sleep(Duration::from_millis(1));
                if serve.0.try_wait().unwrap().is_some() {
                    break;
                }
            }
            let until = Instant::now() + Duration::from_micros(chance % 300_000);
            while serve.0.try_wait().unwrap().is_none() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            if serve.0.try_wait().unwrap().is_some() {
                *at_points.entry(point).or_default() += 1;
            }
            drop(serve);
        }
        over.store(true, Ordering::Relaxed);
        let commands = administrator.join().unwrap();
        (nodes.into_iter().map(|node| node.join().unwrap()).collect::<Vec<_>>(), commands, at_points)
    });
    let state = site.state();
    let (mut lost, mut doubled, mut overwritten, mut uploads, mut versions) = (0, 0, 0, 0, 0);
    for (node, notes) in site.nodes.iter().zip(&notes) {
        let rows = state.store.bundles(&node.name).unwrap();
        for tag in &notes.answered {
            let of_tag: Vec<_> = rows.iter().filter(|row| row.tag.as_ref() == Some(tag)).collect();
            uploads += 1;
            lost += usize::from(of_tag.is_empty());
            doubled += usize::from(of_tag.len() > 1);
            overwritten += of_tag.iter().filter(|row| !notes.sent[tag].contains(&row.sha256)).count();
        }
        let counters: Vec<u64> = rows.iter().filter_map(|row| row.counter).collect();
        let once: BTreeSet<u64> = counters.iter().copied().collect();
        doubled += counters.len() - once.len();
        assert_eq!(
            once.iter().copied().collect::<Vec<_>>(),
            (1..=once.len() as u64).collect::<Vec<_>>(),
            "{}",
            node.name
        );
        for (counter, sha256) in &notes.had {
            versions += 1;
            lost += usize::from(!rows.iter().any(|row| row.counter == Some(*counter) && row.sha256 == *sha256));
        }
        assert!(rows.iter().filter(|row| row.state == BundleState::Pending).count() <= 1, "{}", node.name);
        if let Some(last) = notes.reported.last() {
            let kept = state.store.available(&node.name).unwrap().unwrap();
            assert!(kept.counter >= *last, "{}: {} {last}", node.name, kept.counter);
        }
    }
    // The rest is told by a server that nobody kills.
    let _serve = site.process("", &["--hook", &hook]);
    let start = Instant::now();
    let told = loop {
        let text = std::fs::read_to_string(&events).unwrap_or_default();
        // A command that was ended while it wrote leaves half a line.
        let told: Vec<serde_json::Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let is_told = |node: &str, counter: u64| {
            told.iter()
                .any(|event| event["node"] == node && event["counter"] == counter && event["event"] == "available")
        };
        let missing = site.nodes.iter().zip(&notes).flat_map(|(node, notes)| {
            notes.reported.iter().filter(|counter| !is_told(&node.name, **counter)).collect::<Vec<_>>()
        });
        if missing.count() == 0 {
            break told;
        }
        assert!(start.elapsed() < LIMIT, "an event is lost");
        std::thread::sleep(Duration::from_millis(50));
    };
    for node in &site.nodes {
        let own = told.iter().filter(|event| event["node"] == node.name.as_str());
        let mut ids: Vec<i64> = Vec::new();
        // A command of a server that was killed may still run: only what is new has to be in order.
        for id in own.map(|event| event["id"].as_i64().unwrap()) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        assert!(ids.is_sorted(), "{}: out of order: {ids:?}", node.name);
    }
    println!(
        "{uploads} uploads, {versions} versions: {lost} lost, {doubled} doubled, {overwritten} overwritten; {commands} commands killed, \
         serve killed at {at_points:?}"
    );
    assert_eq!((lost, doubled, overwritten), (0, 0, 0));
}
