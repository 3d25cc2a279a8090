//! Tests of hostile clients, one kind after the other, while nodes enrol. Prints the cost of each kind for the nodes.

use crate::support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use support::basic;
use support::fleet::{Fleet, Serve};

/// For so long each kind goes on.
const WINDOW: Duration = Duration::from_secs(3);

/// So many nodes enrol meanwhile at most.
const MOST: usize = 100;

/// A connection from another address of this machine.
fn from(last: (u8, u8), to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    bind(fd, &SockaddrIn::new(127, 0, last.0, last.1, 0))?;
    let SocketAddr::V4(to) = to else { panic!("an IPv4 address") };
    connect(fd, &SockaddrIn::from(to))?;
    Ok(TcpStream::from(socket))
}

/// How the nodes fared.
struct Fared {
    enrolled: usize,
    slowest: Duration,
}

/// Runs an attack, over and over, while nodes from another address enrol one after the other.
fn while_nodes_enrol(fleet: &Fleet, next: &AtomicUsize, attack: impl Fn(&AtomicBool) + Sync) -> Fared {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    attack(&over);
                }
            });
        }
        let start = Instant::now();
        let mut fared = Fared { enrolled: 0, slowest: Duration::ZERO };
        while start.elapsed() < WINDOW {
            if fared.enrolled == MOST {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            let request = &fleet.nodes[next.fetch_add(1, Ordering::Relaxed)].1;
            let begun = Instant::now();
            let answer = from((1, 1), fleet.address).and_then(|stream| fleet.exchange(stream, request));
            let answer = answer.unwrap_or_else(|error| panic!("a node was not answered: {error}"));
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            fared.enrolled += 1;
            fared.slowest = fared.slowest.max(begun.elapsed());
        }
        over.store(true, Ordering::Relaxed);
        fared
    })
}

fn memory(serve: &Serve) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", serve.0.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// What a confused or malicious client says over TLS.
fn malformed() -> Vec<Vec<u8>> {
    let post = "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: x\r\n";
    let mut all: Vec<Vec<u8>> = Vec::new();
    for head in [
        "",
        "\r\n\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "get / http/1.1\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.1\r\n: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost x\r\n\r\n",
        "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /crl/%00.crl HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /crl/..%2f..%2froot.key.crl HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    ] {
        all.push(head.as_bytes().to_vec());
    }
    for headers in [
        "Content-Length: -1\r\n\r\n",
        "Content-Length: 99999999999999999999\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nMAMC",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        "Transfer-Encoding: gzip\r\n\r\n",
        "Content-Length: 4\r\n\r\n\0\0\0\0",
        "Content-Type: text/plain\r\nContent-Length: 4\r\n\r\nMAMC",
        "Authorization: Basic !!!\r\nContent-Length: 4\r\n\r\nMAMC",
        "Authorization: Bearer x\r\nContent-Length: 4\r\n\r\nMAMC",
        "Expect: 100-continue\r\nContent-Length: 4\r\n\r\nMAMC",
        "Content-Length: 4\r\n\r\nMIIB",
        "Content-Length: 8\r\n\r\nMIIBAAAA",
        "Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n",
        "Content-Length: 0\r\n\r\n",
    ] {
        all.push(format!("{post}{headers}").into_bytes());
    }
    let long = "x".repeat(20_000);
    for text in [
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n"),
        format!("{post}Authorization: Basic {long}\r\nContent-Length: 4\r\n\r\nMAMC"),
        format!("{long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(5000)),
    ] {
        all.push(text.into_bytes());
    }
    // Bytes from a fixed sequence.
    let mut seed = 0x5eed_u64;
    while all.len() < 50 {
        let mut bytes = Vec::new();
        for _ in 0..400 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.push(seed.to_be_bytes()[0]);
        }
        all.push(bytes);
    }
    all
}

#[test]
fn nodes_enrol_while_others_do_their_worst() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(hard >= 12_000, "10,000 connections need as many files, and {hard} are allowed: raise ulimit -n");
    let fleet = Fleet::new(7 * MOST + 100);
    let serve = fleet.serve("");
    fleet.listening();
    let next = AtomicUsize::new(0);
    let mut table = Vec::new();
    let mut run = |what: &'static str, attack: &(dyn Fn(&AtomicBool) + Sync)| {
        let fared = while_nodes_enrol(&fleet, &next, attack);
        println!(
            "{what:<28} {:>5} nodes enrolled, slowest {:>6.1} ms, memory of serve {} MiB",
            fared.enrolled,
            fared.slowest.as_secs_f64() * 1000.0,
            memory(&serve)
        );
        table.push((what, fared));
    };
    let end = |stream: std::io::Result<TcpStream>, request: &[u8]| stream.and_then(|s| fleet.exchange(s, request));

    run("nothing", &|_| std::thread::sleep(Duration::from_millis(50)));
    let worst = malformed();
    run("50 malformed requests", &|over| {
        for request in worst.iter().take_while(|_| !over.load(Ordering::Relaxed)) {
            // Nothing of what a client does wrong is answered with anything but an error, if at all. Those that wait for
            // more of it are left behind.
            let Ok(stream) = from((2, 1), fleet.address) else { continue };
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let answer = fleet.exchange(stream, request).unwrap_or_default();
            assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
        }
    });
    run("slow loris", &|over| {
        let slow: Vec<_> = (0..200u8).filter_map(|n| from((3, n + 1), fleet.address).ok()).collect();
        // The head of a TLS handshake message, a byte at a time.
        for byte in [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3] {
            for mut stream in &slow {
                let _ = stream.write(&[byte]);
            }
            std::thread::sleep(Duration::from_millis(200));
            if over.load(Ordering::Relaxed) {
                break;
            }
        }
    });
    let idle: Vec<_> =
        (0..10_000u32).filter_map(|n| from((4, u8::try_from(n % 16).unwrap() + 1), fleet.address).ok()).collect();
    assert_eq!(idle.len(), 10_000);
    run("10,000 idle connections", &|_| std::thread::sleep(Duration::from_millis(50)));
    drop(idle);
    run("bodies of 100 MB", &|over| {
        let head = b"POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n";
        let body = vec![b'M'; 100_000_000 / 64];
        if over.load(Ordering::Relaxed) {
            return;
        }
        // It is refused once there is more of it than a CSR can have.
        let answer = end(from((5, 1), fleet.address), &[head.as_slice(), &body].concat());
        if let Ok(answer) = answer {
            assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        }
    });
    run("garbage instead of TLS", &|over| {
        for (number, garbage) in worst.iter().enumerate().take_while(|_| !over.load(Ordering::Relaxed)) {
            let Ok(mut stream) = from((6, u8::try_from(number).unwrap() + 1), fleet.address) else { continue };
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            // Half of it looks like TLS at first.
            let start: &[u8] = if number % 2 == 0 { &[22, 3, 1, 2, 0] } else { &[] };
            let _ = stream.write_all(&[start, garbage].concat());
            let _ = stream.read(&mut [0; 512]);
        }
    });
    let guessed = AtomicUsize::new(0);
    let slowed = AtomicUsize::new(0);
    let guess = || {
        // The record of the node that comes after the next ones.
        let (name, request) = &fleet.nodes[(next.load(Ordering::Relaxed) + 3).min(fleet.nodes.len() - 1)];
        let text = String::from_utf8(request.clone()).unwrap();
        let (head, body) = text.split_once("Authorization: ").unwrap();
        let rest = body.split_once("\r\n").unwrap().1;
        let guess = format!("{:08}", guessed.fetch_add(1, Ordering::Relaxed));
        let request = format!("{head}{}{rest}", basic(name, &guess));
        let answer = end(from((7, 1), fleet.address), request.as_bytes()).unwrap_or_default();
        assert!(answer.starts_with("HTTP/1.1 403 ") || answer.starts_with("HTTP/1.1 429 "), "{answer}");
        slowed.fetch_add(usize::from(answer.starts_with("HTTP/1.1 429 ")), Ordering::Relaxed);
    };
    run("guessing tokens", &|over| {
        if !over.load(Ordering::Relaxed) {
            guess();
        }
    });
    // On a machine that has much to do, so few guesses come in that time that nobody has to slow them down.
    for _ in (0..500).take_while(|_| slowed.load(Ordering::Relaxed) == 0) {
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(guess))));
    }
    println!("{} guesses, {} of them told to wait", guessed.load(Ordering::Relaxed), slowed.load(Ordering::Relaxed));
    assert!(slowed.load(Ordering::Relaxed) > 0);
    // Every kind left room for nodes, and the server is as it was.
    assert!(table.iter().all(|(_, fared)| fared.enrolled > 0));
    assert!(memory(&serve) <= 256, "{} MiB", memory(&serve));
}
