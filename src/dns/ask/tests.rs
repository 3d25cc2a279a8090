use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;

use nix::sys::eventfd::EventFd;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket};

use super::*;

const NAME: &str = "door.lab.example";
const GOOD: [u8; 4] = [192, 0, 2, 7];

/// What a server makes of a question; nothing: it is silent.
pub(crate) type Serve = fn(&[u8]) -> Vec<u8>;

/// A name server on loopback. Ends with the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: UdpSocket,
    thread: Option<JoinHandle<usize>>,
}

impl Server {
    pub(crate) fn start(serve: Serve) -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut buffer, mut asked) = ([0; 512], 0);
            loop {
                let (length, from) = socket.recv_from(&mut buffer).unwrap();
                // A test's own datagram.
                if length == 0 {
                    return asked;
                }
                asked += 1;
                let answer = serve(&buffer[..length]);
                if !answer.is_empty() {
                    // Whoever asked may be gone.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Server { address, stop: UdpSocket::bind("127.0.0.1:0").unwrap(), thread: Some(thread) }
    }

    /// How often it was asked.
    pub(crate) fn asked(mut self) -> usize {
        self.stop.send_to(&[], self.address).unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

/// An answer with these flags and records: a name in wire form, a type, data.
pub(crate) fn answer_with(question: &[u8], flags: [u8; 2], records: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
    // The question's own OPT record is left out.
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let mut bytes = question[..end].to_vec();
    bytes[2..4].copy_from_slice(&flags);
    bytes[7] = u8::try_from(records.len()).unwrap();
    bytes[11] = 0;
    for (name, kind, data) in records {
        bytes.extend(*name);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 60, 0]);
        bytes.push(u8::try_from(data.len()).unwrap());
        bytes.extend(*data);
    }
    bytes
}

pub(crate) const ASKED: &[u8] = &[0xc0, 12];

fn good(question: &[u8]) -> Vec<u8> {
    answer_with(question, [0x81, 0x80], &[(ASKED, 1, &GOOD)])
}

fn silent(_: &[u8]) -> Vec<u8> {
    Vec::new()
}

fn nobody(question: &[u8]) -> Vec<u8> {
    answer_with(question, [0x81, 0x80 | NO_NAME], &[])
}

fn refuses(question: &[u8]) -> Vec<u8> {
    answer_with(question, [0x81, 0x85], &[])
}

/// The name is another name for itself, one label deeper each time: each question gets a new name.
fn deeper(question: &[u8]) -> Vec<u8> {
    answer_with(question, [0x81, 0x80], &[(ASKED, 5, &[1, b'x', 0xc0, 12])])
}

/// Somebody who guesses: another number, another name, and no answer at all.
fn wrong_then_good(question: &[u8]) -> Vec<u8> {
    let mut wrong = good(question);
    wrong[0] ^= 1;
    wrong
}

fn asks(servers: &[&Server]) -> Outcome {
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let stop = EventFd::new().unwrap();
    ask(&addresses, NAME, Kind::A, until(&stop))
}

fn until(stop: &EventFd) -> Until<'_> {
    Until { stop: stop.as_fd(), deadline: Deadline::after(ALL), tcp: false }
}

fn finds(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Found(records, _) if *records == [Data::Address(GOOD.into())])
}

/// A server that is dead, one that refuses, and one that answers something else: the next one is asked.
#[test]
fn another_server_answers() {
    for first in [silent, refuses, wrong_then_good] as [Serve; 3] {
        let (bad, well) = (Server::start(first), Server::start(good));
        assert!(finds(&asks(&[&bad, &well])));
        assert!(bad.asked() >= 1 && well.asked() >= 1);
    }
    // Nobody listens there: the kernel says so.
    let gone = Server::start(good);
    let address = gone.address;
    gone.asked();
    let well = Server::start(good);
    let stop = EventFd::new().unwrap();
    assert!(finds(&ask(&[address, well.address], NAME, Kind::A, until(&stop))));
    let Outcome::Failed(all) = ask(&[address], NAME, Kind::A, until(&stop)) else { panic!("an answer") };
    assert_eq!(all, [(address, No::Unreachable(ErrorKind::ConnectionRefused))]);
}

#[test]
fn what_each_server_said_is_known_at_the_end() {
    let (one, other) = (Server::start(silent), Server::start(refuses));
    let Outcome::Failed(all) = asks(&[&one, &other]) else { panic!("an answer") };
    assert_eq!(all, [(one.address, No::Silent(3)), (other.address, No::Code(5))]);
    assert_eq!((one.asked(), other.asked()), (3, 1));
    let none = Server::start(nobody);
    assert!(matches!(asks(&[&none]), Outcome::None(at, No::Name) if at == none.address));
    assert_eq!(none.asked(), 1, "a name that does not exist is not asked for again");
    assert!(matches!(asks(&[]), Outcome::Failed(all) if all.is_empty()));
}

/// Attack: somebody who has read the question answers it before the server does, from an address or a port of his own.
#[test]
fn an_answer_from_elsewhere_is_ignored() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let mut buffer = [0; 512];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        let question = &buffer[..length];
        let forged = answer_with(question, [0x81, 0x80], &[(ASKED, 1, &[203, 0, 113, 9])]);
        for own in ["127.0.0.1:0", "127.0.0.2:0"] {
            UdpSocket::bind(own).unwrap().send_to(&forged, from).unwrap();
        }
        socket.send_to(&good(question), from).unwrap();
    });
    let stop = EventFd::new().unwrap();
    let outcome = ask(&[address], NAME, Kind::A, until(&stop));
    thread.join().unwrap();
    assert!(finds(&outcome), "{outcome:?}");
}

/// Whoever does not read the question has to guess its number and its port (RFC 5452 §4).
#[test]
fn numbers_and_ports_differ() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let mut seen = Vec::new();
        for _ in 0..8 {
            let mut buffer = [0; 512];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&good(&buffer[..length]), from).unwrap();
            seen.push((u16::from_be_bytes([buffer[0], buffer[1]]), from.port()));
        }
        seen
    });
    let stop = EventFd::new().unwrap();
    for _ in 0..8 {
        assert!(finds(&ask(&[address], NAME, Kind::A, until(&stop))));
    }
    let (mut numbers, mut ports): (Vec<u16>, Vec<u16>) = thread.join().unwrap().into_iter().unzip();
    for seen in [&mut numbers, &mut ports] {
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() > 4, "{seen:?}");
    }
}

/// A circle of aliases over several answers ends.
#[test]
fn aliases_do_not_go_on_for_ever() {
    let server = Server::start(deeper);
    assert!(matches!(asks(&[&server]), Outcome::None(_, No::Circle)));
    assert_eq!(server.asked(), MAX_ALIASES + 1);
}

/// The answer does not fit: over TCP it does, at the same address and port.
#[test]
fn a_long_answer_is_asked_for_over_tcp() {
    for whole in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).unwrap();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            let cut = answer_with(&buffer[..length], [0x83, 0x80], &[]);
            socket.send_to(&cut, from).unwrap();
            let (mut connection, _) = listener.accept().unwrap();
            let mut head = [0; 2];
            connection.read_exact(&mut head).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(head))];
            connection.read_exact(&mut question).unwrap();
            let answer = good(&question);
            connection.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
            // In two pieces, of which the second does not always come.
            connection.write_all(&answer[..20]).unwrap();
            if whole {
                connection.write_all(&answer[20..]).unwrap();
            }
        });
        let stop = EventFd::new().unwrap();
        let outcome = ask(&[address], NAME, Kind::A, until(&stop));
        thread.join().unwrap();
        match whole {
            true => assert!(finds(&outcome), "{outcome:?}"),
            false => {
                let Outcome::Failed(all) = outcome else { panic!("{outcome:?}") };
                assert_eq!(all, [(address, No::Tcp(ErrorKind::UnexpectedEof))]);
            }
        }
    }
}

/// A server that does not know EDNS: it says so, with the question or without it, or its answer never comes.
#[test]
fn a_question_that_is_not_understood_is_asked_plainly() {
    fn is_plain(question: &[u8]) -> bool {
        question[11] == 0
    }
    fn old(question: &[u8], says: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        if is_plain(question) { good(question) } else { says(question) }
    }
    let [not_understood, header, not_done, drops]: [Serve; 4] = [
        |question| old(question, |question| answer_with(question, [0x81, 0x81], &[])),
        |question| old(question, |question| [&question[..2], &[0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]].concat()),
        |question| old(question, |question| answer_with(question, [0x81, 0x84], &[])),
        |question| old(question, silent),
    ];
    for (serve, questions) in [(not_understood, 2), (header, 2), (not_done, 2), (drops, 3)] {
        let server = Server::start(serve);
        assert!(finds(&asks(&[&server])));
        assert_eq!(server.asked(), questions);
    }
}

/// `use-vc`: nothing goes over UDP. A server without TCP costs its turn.
#[test]
fn over_tcp_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut bytes = [0; 512];
        let length = connection.read(&mut bytes).unwrap();
        let answer = good(&bytes[2..length]);
        connection.write_all(&[&u16::try_from(answer.len()).unwrap().to_be_bytes()[..], &answer].concat()).unwrap();
    });
    let gone = Server::start(silent);
    let stop = EventFd::new().unwrap();
    let until = Until { tcp: true, ..until(&stop) };
    assert!(finds(&ask(&[gone.address, address], NAME, Kind::A, until)));
    thread.join().unwrap();
    assert_eq!(gone.asked(), 0);
}

/// The caller's deadline holds for questions that nobody answers.
#[test]
fn nobody_waits_beyond_the_deadline() {
    let server = Server::start(silent);
    let stop = EventFd::new().unwrap();
    let at_once = Until { deadline: Deadline::after(Duration::ZERO), ..until(&stop) };
    let outcome = ask(&[server.address], NAME, Kind::A, at_once);
    assert_eq!(outcome.said(), "127.0.0.1: there was no time to ask it");
    assert_eq!(server.asked(), 0);
}

#[test]
fn a_caller_that_says_stop_does_not_wait() {
    let server = Server::start(silent);
    let stop = EventFd::new().unwrap();
    stop.write(1).unwrap();
    assert!(matches!(ask(&[server.address], NAME, Kind::A, until(&stop)), Outcome::Stopped));
    server.asked();
}

/// A server whose answers are too long for a datagram, and a firewall in front of its TCP port that drops everything. The network
/// is to be given back meanwhile: nobody waits for the connection.
#[test]
fn a_connection_that_is_not_made_holds_up_nobody_who_says_stop() {
    // The kernel answers no call where as many wait as may wait (tcp_input.c, tcp_conn_request).
    let full = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(full.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    listen(&full, Backlog::new(0).unwrap()).unwrap();
    let address = TcpListener::from(full.try_clone().unwrap()).local_addr().unwrap();
    let _waits = std::net::TcpStream::connect(address).unwrap();
    let server = UdpSocket::bind(address).unwrap();
    let stop = EventFd::new().unwrap();
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 512];
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&answer_with(&buffer[..length], [0x83, 0x80], &[]), from).unwrap();
            while !calls(address) {
                std::thread::yield_now();
            }
            stop.write(1).unwrap();
        });
        ask(&[address], NAME, Kind::A, until(&stop))
    });
    assert!(matches!(outcome, Outcome::Stopped), "{outcome:?}");
}

/// Whether somebody calls there and has no answer: state SYN_SENT (include/net/tcp_states.h) in proc(5), net/tcp.
fn calls(address: SocketAddr) -> bool {
    let there = format!("0100007F:{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().map(str::split_whitespace).any(|mut words| words.nth(2) == Some(&there) && words.next() == Some("02"))
}

#[test]
fn words() {
    for (no, want) in [
        (No::Name, "there is no such name"),
        (No::Circle, "its aliases (CNAME) lead in a circle, or are more than 8"),
        (No::Silent(3), "no answer to 3 questions"),
        (No::Code(5), "it refuses to answer"),
        (No::Code(4), "it answers with error 4"),
        (No::Unreachable(ErrorKind::ConnectionRefused), "it cannot be reached (connection refused)"),
        (
            No::Tcp(ErrorKind::TimedOut),
            "its answer is too long for UDP, and TCP brings none (timed out); let TCP port 53 through, or name fewer doors \
             there",
        ),
    ] {
        assert_eq!(no.to_string(), want);
    }
}
