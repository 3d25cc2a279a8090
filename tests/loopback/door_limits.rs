//! Tests of the limits at the doors of `imprint-host serve`: whoever calls without a pause, makes work without a pause, or takes
//! all open files. Each test has a caller from elsewhere that gets in meanwhile.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use imprint::line::LineKey;
use imprint_host::serve::Server;
use imprint_tests::caller::{Caller, hello, seeded};
use imprint_tests::patience::PATIENCE;
use imprint_tests::programs;
use imprint_tests::served::reaches;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use std::os::fd::AsRawFd;

use super::door::{Site, talk};

const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
pub(crate) const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

pub(crate) fn door(server: &Server) -> SocketAddrV4 {
    server.doors().iter().find_map(|door| door.strip_prefix("tcp:")).unwrap().parse().unwrap()
}

/// A connection from this address of the loopback interface.
pub(crate) fn call(from: Ipv4Addr, door: SocketAddrV4) -> TcpStream {
    try_call(from, door).unwrap()
}

fn try_call(from: Ipv4Addr, door: SocketAddrV4) -> nix::Result<TcpStream> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(door))?;
    Ok(TcpStream::from(socket))
}

const TOO_OFTEN: &str = "imprint_host_connections_refused_total{reason=\"door-rate\"}";

/// Somebody who calls and hangs up, again and again, until this is dropped.
struct Hammer(Arc<AtomicBool>);

impl Hammer {
    fn at(door: SocketAddrV4) -> Hammer {
        let over = Arc::new(AtomicBool::new(false));
        let hammer = Hammer(Arc::clone(&over));
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                // Errors are ignored: the door may have closed it, and the server may have ended.
                let _ = try_call(ATTACKER, door).map(|mut stream| stream.write_all(b"#"));
            }
        });
        hammer
    }
}

impl Drop for Hammer {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Attack: one source calls, hangs up, and calls again without a pause. Most of its calls are closed before anything is done for
/// them, and a node from elsewhere gets its certificate meanwhile.
#[test]
fn whoever_calls_without_a_pause_is_turned_away_and_others_get_in() {
    let site = Site::new(&[("node1", "bind = { serial = 'S1' }\nadmit = 'known'")]);
    let server = site.serve(&["tcp:127.0.0.1:0"]);
    let door = door(&server);
    let _attacker = Hammer::at(door);
    reaches(server.metrics_addr().unwrap(), TOO_OFTEN, 100);
    let mut node = Caller::new("S1", &site.pin);
    let let_in = talk(&mut node, &mut call(HONEST, door), |node| node.over);
    assert!(let_in, "told: {:?}, refused: {:?}", node.pending, node.refused);
    assert!(site.events().iter().filter(|event| *event == "waits").count() <= 1);
}

/// Attack: somebody begins conversations on one connection without a pause. Each is a question to the desk, and a seal for a
/// caller that was let in. They cost turns like calls: with others of its source it has used them up, and is left.
#[test]
fn conversations_without_a_pause_cost_turns_like_calls() {
    let site =
        Site::new(&[("node1", "bind = { serial = 'S1' }"), ("node2", "bind = { serial = 'S2' }\nadmit = 'known'")]);
    let server = site.serve(&["tcp:127.0.0.1:0"]);
    let door = door(&server);
    let key = Arc::new(LineKey::generate(&seeded()).unwrap());
    let hello = hello(&key, "S1");
    let again = || Caller::with(Arc::clone(&key), hello.clone(), &site.pin);
    let mut attacker = again();
    let mut stream = call(ATTACKER, door);
    assert!(talk(&mut attacker, &mut stream, |node| !node.pending.is_empty()), "refused: {:?}", attacker.refused);
    let _others = Hammer::at(door);
    reaches(server.metrics_addr().unwrap(), TOO_OFTEN, 100);
    // Another conversation on the same connection, until the door has closed it.
    let mut conversations = 0;
    loop {
        let session = |node: &Caller| imprint::line::End::session(node.wire.end());
        if !talk(&mut again(), &mut stream, |node| session(node).is_some()) {
            break;
        }
        conversations += 1;
        assert!(conversations < 1000, "the door does not leave it");
    }
    let mut node = Caller::new("S2", &site.pin);
    let let_in = talk(&mut node, &mut call(HONEST, door), |node| node.over);
    assert!(let_in, "told: {:?}, refused: {:?}", node.pending, node.refused);
}

/// Ends the process when it is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Ignored: it may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Attack: callers from several addresses hold connections open on a machine that allows few open files. EST is answered all the
/// same, and the log says what to do. Without the limit the callers had all files, and nobody could even connect.
#[test]
fn callers_at_doors_leave_files_for_est() {
    const FILES: usize = 400;
    let site = Site::new(&[]);
    let serve = format!("ulimit -n {FILES}; exec \"$@\"");
    let mut server = Ended(
        Command::new("sh")
            .args(["-c", &serve, "sh"])
            .arg(programs::host())
            .arg("--dir")
            .arg(site.path("state"))
            .args(["serve", "--listen", "127.0.0.1:0", "--door", "tcp:127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(server.0.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    let (mut said, mut est) = (Vec::new(), None::<SocketAddr>);
    let door: SocketAddrV4 = loop {
        let line = lines.next().unwrap_or_else(|| panic!("it ended: {said:?}"));
        est = line.split_once("EST on ").and_then(|(_, rest)| rest.split(',').next()?.parse().ok()).or(est);
        if let Some((_, door)) = line.split_once("door tcp:") {
            break door.trim().parse().unwrap();
        }
        said.push(line);
    };
    std::thread::spawn(move || lines.count());
    // Fewer from each address than the rate allows.
    let mut held = Vec::new();
    for number in 0..FILES / 40 {
        let from = Ipv4Addr::new(127, 0, 1, u8::try_from(number).unwrap());
        held.extend((0..40).map(|_| call(from, door)));
    }
    // The door has closed those that it has no place for, and said CALL to the others.
    let mut served = 0;
    for stream in &mut held {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match stream.read(&mut [0]) {
            Ok(count) => served += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
    assert_eq!(served, 136);
    let mut asker = TcpStream::connect(est.unwrap()).unwrap();
    asker.set_read_timeout(Some(PATIENCE)).unwrap();
    asker.write_all(b"GET /crl/0.crl HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    asker.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let warned = format!(
        "this process may have {FILES} open files: 109 connections to EST are served at a time, not 2048, and \
         136 callers at doors, not 16384; raise the limit (LimitNOFILE= in the unit)"
    );
    assert!(said.iter().any(|line| line.contains(&warned)), "{said:?}");
}
