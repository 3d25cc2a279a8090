//! Tests of the places that a node calls at over TCP, in a network of their own, against doors and against what is no door.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use imprint::dialogue::{Answer, Told};
use imprint::line::{HostEvent, Kind, Stage};
use imprint::pipe::Target;
use imprint_tests::far_host::{Door, node, payload};

use crate::{ip, later, namespaces};

fn loopback() {
    namespaces();
    ip("link set lo up");
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Serves each connection like this.
fn serving(serve: impl Fn(TcpStream) + Send + 'static) -> (SocketAddr, Served) {
    let (listener, address) = listener();
    let thread = std::thread::spawn(move || {
        let mut calls = 0;
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut first = [0; 1];
            // The test's own connection says this.
            if connection.read(&mut first).unwrap_or(0) == 1 && first == *b"." {
                break;
            }
            calls += 1;
            serve(connection);
        }
        calls
    });
    (address, Served { address, thread })
}

struct Served {
    address: SocketAddr,
    thread: JoinHandle<usize>,
}

impl Served {
    /// How often the node has called.
    fn calls(self) -> usize {
        TcpStream::connect(self.address).unwrap().write_all(b".").unwrap();
        self.thread.join().unwrap()
    }
}

/// A port of EST, a web server, a port where nobody listens, a server that is silent, a door with another site's payload: none
/// of them ends the search, and each is told once. The door whose payload is accepted is kept, and the others are left.
#[test]
fn the_door_whose_payload_is_accepted_is_kept() {
    loopback();
    let (tls, one) = serving(|mut connection| connection.write_all(b"\x15\x03\x03\x00\x02\x02\x32").unwrap());
    let (http, two) = serving(|mut connection| connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap());
    let (full, three) = serving(drop);
    let (other_site, four) = serving(|connection| {
        let mut door = Door::stream(connection);
        // The node hangs up.
        door.give(b"of another site");
        door.linger();
    });
    let (nobody, none) = listener();
    drop(nobody);
    let (silent, mute) = listener();
    let (good, address) = listener();
    let all = [tls, http, full, other_site, none, mute, address];
    let dialogue = node(b"good");
    dialogue.call(all.map(Target::Tcp).to_vec());
    // Each of the others has had its turn before the good door answers.
    let want = [
        (tls, "it speaks TLS; is that the port of a door (imprint-host serve --door)?"),
        (http, "it speaks HTTP; is that the port of a door (imprint-host serve --door)?"),
        (full, "it closed the connection without a word"),
        (other_site, "its payload is not used: nobody has signed it"),
        (none, "nobody listens there (connection refused)"),
    ];
    let mut told = Vec::new();
    while want.iter().any(|(at, words)| !told.contains(&format!("tcp:{at}: {words}"))) {
        told.push(dialogue.hear(later()).expect("a place that was called at is told").to_string());
    }
    let tried = dialogue.tried();
    for (at, words) in want {
        let (_, last) = tried.iter().find(|(place, _)| *place == format!("tcp:{at}")).unwrap();
        assert!(last == words || last == "no answer yet" || last == "it sent no payload", "{at}: {last}");
    }
    let door = std::thread::spawn(move || {
        let mut door = Door::stream(good.accept().unwrap().0);
        assert!(door.give(b"good"));
        door
    });
    let (line, bytes, more) = payload(&dialogue);
    assert_eq!((line, &bytes[..]), (format!("tcp:{address}"), &b"good"[..]));
    told.extend(more);
    for (index, words) in told.iter().enumerate() {
        assert!(!told[..index].contains(words), "told twice: {words}");
    }
    let door = door.join().unwrap();
    // All others are left: the silent server's connection ends, and nobody calls there again.
    let (mut connection, _) = silent.accept().unwrap();
    let mut said = Vec::new();
    connection.read_to_end(&mut said).unwrap();
    assert!(said.starts_with(b"#"));
    assert_eq!(dialogue.tried().len(), 1);
    assert_eq!(dialogue.names(), format!("tcp:{address}"));
    for served in [one, two, three, four] {
        assert!(served.calls() >= 1);
    }
    drop(dialogue);
    door.linger();
}

/// The door is stopped, or its machine is: it has spoken the line protocol, so the port is right, and the node says what happened.
#[test]
fn a_door_that_closes_after_it_has_spoken_is_no_other_server() {
    loopback();
    let (address, served) = serving(|connection| {
        assert!(Door::stream(connection).until(|event| matches!(event, HostEvent::Opened(..))));
    });
    let dialogue = node(b"good");
    dialogue.call(vec![Target::Tcp(address)]);
    let place = format!("tcp:{address}: ");
    let told = loop {
        let told = dialogue.hear(later()).expect("a place that was called at is told").to_string();
        if let Some(why) = told.strip_prefix(&place) {
            break why.to_owned();
        }
    };
    assert_eq!(told, "it closed the connection");
    drop(dialogue);
    assert!(served.calls() >= 1);
}

/// The door is restarted after the payload, before it has answered the request.
#[test]
fn a_connection_that_breaks_is_made_again_and_the_request_is_said_there() {
    loopback();
    let (listener, address) = listener();
    let dialogue = node(b"good");
    dialogue.call(vec![Target::Tcp(address)]);
    let mut door = Door::stream(listener.accept().unwrap().0);
    assert!(door.give(b"good"));
    payload(&dialogue);
    drop(door);
    dialogue.stage(Stage::Request);
    dialogue.say(Kind::Request, b"csr".to_vec());
    assert!(!dialogue.is_over());
    for last in [false, true] {
        let mut door = Door::stream(listener.accept().unwrap().0);
        assert!(door.until(|event| *event == HostEvent::Object(Kind::Request, b"csr".to_vec())));
        if last {
            door.host().send(Kind::Certificates, b"certificates".to_vec());
            assert!(door.until(|event| *event == HostEvent::Delivered(Kind::Certificates)));
            assert!(matches!(dialogue.answer(later()), Ok(Some(Answer::Certificates(der))) if der == b"certificates"));
            // Answered: on the next connection the request is not said again.
            drop(door);
            let mut door = Door::stream(listener.accept().unwrap().0);
            assert!(door.until(|event| matches!(event, HostEvent::Opened(_, Stage::Busy))));
            let end =
                std::thread::spawn(move || dialogue.report(Stage::Done, b"{}".to_vec(), later().remaining(), later()));
            let Some(HostEvent::Object(kind, _)) = std::iter::from_fn(|| door.event()).find(is_object) else {
                panic!()
            };
            assert_eq!(kind, Kind::Report);
            door.linger();
            end.join().unwrap();
            return;
        }
    }
}

fn is_object(event: &HostEvent) -> bool {
    matches!(event, HostEvent::Object(..))
}

/// A door that says that an administrator must admit the node, is restarted, and says so again.
#[test]
fn a_door_that_keeps_a_node_waiting_is_told_once_and_called_again() {
    loopback();
    let (listener, address) = listener();
    let dialogue = node(b"good");
    dialogue.call(vec![Target::Tcp(address)]);
    let mut told: Vec<Told> = Vec::new();
    for _ in 0..3 {
        let mut door = Door::stream(listener.accept().unwrap().0);
        assert!(door.until(|event| *event == HostEvent::Challenged));
        door.host().send(Kind::Pending, b"somebody has to decide".to_vec());
        assert!(door.until(|event| *event == HostEvent::Delivered(Kind::Pending)));
        if told.is_empty() {
            while !matches!(told.last(), Some(Told::Waits { .. })) {
                told.push(dialogue.hear(later()).expect("the door has it wait"));
            }
            // For the error, if nothing more comes.
            let tried = dialogue.tried();
            assert!(tried[0].1.starts_with("an administrator has to admit this node: where "), "{tried:?}");
        }
    }
    let mut door = Door::stream(listener.accept().unwrap().0);
    assert!(door.give(b"good"));
    let (_, _, more) = payload(&dialogue);
    let words: Vec<String> = told.iter().map(ToString::to_string).chain(more).collect();
    assert_eq!(words.iter().filter(|words| words.contains("somebody has to decide")).count(), 1, "{words:?}");
    assert_eq!(words.iter().filter(|words| words.contains("a host speaks")).count(), 1, "{words:?}");
    drop(dialogue);
    door.linger();
}

/// Bytes without end that are no line, and a door that refuses: the next call brings the payload all the same.
#[test]
fn a_place_is_called_again_after_noise_and_after_a_refusal() {
    loopback();
    let (listener, address) = listener();
    let dialogue = node(b"good");
    dialogue.call(vec![Target::Tcp(address)]);
    let (mut connection, _) = listener.accept().unwrap();
    while connection.write_all(&[b'x'; 4096]).is_ok() {}
    let mut door = Door::stream(listener.accept().unwrap().0);
    assert!(door.until(|event| *event == HostEvent::Challenged));
    door.host().send(Kind::Refused, b"no such node".to_vec());
    door.linger();
    let mut door = Door::stream(listener.accept().unwrap().0);
    assert!(door.give(b"good"));
    let (_, _, words) = payload(&dialogue);
    for want in ["it does not speak the line protocol; is that the port of a door", "no such node"] {
        assert_eq!(words.iter().filter(|words| words.contains(want)).count(), 1, "{words:?}");
    }
    drop(dialogue);
    door.linger();
}

/// Whoever waits for a payload hears at once when there is nothing to wait for any more.
#[test]
fn a_search_lasts_as_long_as_there_is_a_place_to_call_at() {
    loopback();
    let (_listener, address) = listener();
    let dialogue = node(b"good");
    assert!(dialogue.is_over() && dialogue.is_empty());
    assert!(dialogue.hear(later()).is_none());
    dialogue.call(vec![Target::Tcp(address)]);
    assert!(!dialogue.is_over() && !dialogue.is_empty());
    assert_eq!(dialogue.tried()[0].0, format!("tcp:{address}"));
    assert!(!matches!(dialogue.news(), Some(Told::Lost(_))));
}
