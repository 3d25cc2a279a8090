//! Kills the server at every named point between request and answer, and at random times: no certificate that a node has
//! got is lost, and no node has two.

use crate::support;

use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use imprint_host::crash::POINTS;
use imprint_host::state::State;
use support::fleet::{Fleet, LIMIT, Serve};

/// Each of these nodes has the one certificate that it was given, and no other.
#[track_caller]
fn audit(fleet: &Fleet, given: &[(usize, Vec<u8>)]) {
    let mut state = State::open(&fleet.dir.path().join("state")).unwrap();
    let enrolled = state.store.log(1_000_000).unwrap();
    let changes = state.store.changes().unwrap();
    let (mut lost, mut doubled) = (0, 0);
    for (number, certificate) in given {
        let name = &fleet.nodes[*number].0;
        let rows = changes.certificates(name).unwrap();
        lost += usize::from(!rows.iter().any(|row| row.der == *certificate));
        doubled += usize::from(rows.len() > 1);
        // Signed once, whatever was answered again.
        let line = |row: &&imprint_host::store::AuditRow| row.event == "enrolled" && row.node.as_ref() == Some(name);
        let signed = enrolled.iter().filter(line).filter(|row| !row.detail.contains(" same certificate again"));
        let signed: Vec<&str> = signed.map(|row| row.detail.as_str()).collect();
        assert_eq!(signed.len(), 1, "{name}: {signed:?}");
        assert!(rows.iter().all(|row| row.revoked.is_none()), "{name}");
    }
    println!("{} nodes: {lost} lost, {doubled} doubled", given.len());
    assert_eq!((lost, doubled), (0, 0));
}

fn wait(mut serve: Serve) {
    let start = Instant::now();
    while serve.0.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < LIMIT, "it goes on");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn killed_at_every_named_point() {
    let fleet = Fleet::new(POINTS.len());
    for (number, point) in POINTS.iter().enumerate() {
        let serve = fleet.serve(point);
        let request = &fleet.nodes[number].1;
        fleet.listening();
        let answer = fleet.ask(request);
        wait(serve);
        assert_eq!(answer.is_ok(), *point == "answered", "{point}");
        let certificates = |fleet: &Fleet| {
            let mut state = State::open(&fleet.dir.path().join("state")).unwrap();
            state.store.changes().unwrap().certificates(&fleet.nodes[number].0).unwrap().len()
        };
        assert_eq!(certificates(&fleet), usize::from(matches!(*point, "booked" | "answered")), "{point}");
        let _serve = fleet.serve("");
        let certificate = fleet.insist(request);
        audit(&fleet, &[(number, answer.unwrap_or(certificate.clone())), (number, certificate)]);
    }
}

/// Two hundred kills, at moments that a seed names, while clients ask without a pause.
#[test]
fn killed_at_random() {
    const KILLS: usize = 200;
    /// So many nodes say something; a slow machine needs more kills for that.
    const LEAST: usize = 60;
    let fleet = Fleet::new(4000);
    let (next, done, over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let given = std::thread::scope(|scope| {
        let client = || {
            let mut given = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some((_, request)) = fleet.nodes.get(number) else { return given };
                given.push((number, fleet.insist(request)));
                done.fetch_add(1, Ordering::Relaxed);
            }
            given
        };
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(client)).collect();
        let mut seed = 0x1d5e_ed00_u64;
        let mut kills = 0;
        while kills < KILLS || done.load(Ordering::Relaxed) < LEAST {
            kills += 1;
            let serve = fleet.serve("");
            let start = Instant::now();
            while TcpStream::connect(fleet.address).is_err() && start.elapsed() < LIMIT {
                std::thread::sleep(Duration::from_millis(1));
            }
            // xorshift64 (Marsaglia 2003): any numbers will do, if they are the same each time.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            std::thread::sleep(Duration::from_micros(seed % 150_000));
            drop(serve);
        }
        over.store(true, Ordering::Relaxed);
        // What is under way comes to its end.
        let _serve = fleet.serve("");
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    audit(&fleet, &given);
}

/// The state directory is as it was between two commands, whatever stopped: nothing is left that stops the next one.
#[test]
fn nothing_is_left_over() {
    let fleet = Fleet::new(1);
    drop(fleet.serve(""));
    let dir: &Path = &fleet.dir.path().join("state");
    std::fs::write(dir.join("server.pem.new"), "half").unwrap();
    std::fs::write(dir.join("server.key"), "").unwrap();
    let _serve = fleet.serve("");
    fleet.insist(&fleet.nodes[0].1);
}
