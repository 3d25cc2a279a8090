//! Tests of a search for a door against name servers that answer badly: the search ends for none of them, and what is said is one line
//! that a person can act on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};

use imprint_tests::far_host::node;

use super::finding::{RANGE, SERVER, begin, dnsmasq, machine, state};
use super::peer::Peer;
use crate::{later, veth};

const ADDRESS: &str = "192.0.2.1:53";
const NAME: &str = "_imprint._tcp.lab.example";
const REMEDY: &str = "give imprint.server=HOST or imprint.domain=DOMAIN";
/// QR, RD and RA, no error (RFC 1035 §4.1.1).
const ANSWER: [u8; 2] = [0x81, 0x80];
/// The same, cut.
const CUT: [u8; 2] = [0x83, 0x80];
const NO_NAME: [u8; 2] = [0x81, 0x83];
const CNAME: u16 = 5;
const SRV: u16 = 33;

/// A record: name in wire form, type, data.
type Record = (Vec<u8>, u16, Vec<u8>);
/// What the server makes of a question, over UDP, and over TCP. `None` over TCP: it closes the connection.
type Serve = (fn(&[u8]) -> Vec<u8>, Option<fn(&[u8]) -> Vec<u8>>);

fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn srv(priority: u16, target: &str) -> Record {
    let numbers = [priority, 1, 8444].map(u16::to_be_bytes);
    (wire(NAME), SRV, [numbers.as_flattened(), &wire(target)].concat())
}

fn answer(question: &[u8], flags: [u8; 2], records: &[Record]) -> Vec<u8> {
    let mut bytes = question.to_vec();
    bytes[2..4].copy_from_slice(&flags);
    bytes[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
    for (name, kind, data) in records {
        bytes.extend(name);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 60]);
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
    }
    bytes
}

/// Whether it is the service that is asked for, and no address.
fn asks_for_service(question: &[u8]) -> bool {
    question.ends_with(&[0, 33, 0, 1])
}

fn nothing(question: &[u8]) -> Vec<u8> {
    answer(question, ANSWER, &[])
}

fn nowhere(question: &[u8]) -> Vec<u8> {
    answer(question, ANSWER, &[srv(0, "")])
}

fn circle(question: &[u8]) -> Vec<u8> {
    let (here, there) = (wire(NAME), wire("other.lab.example"));
    answer(question, ANSWER, &[(here.clone(), CNAME, there.clone()), (there, CNAME, here)])
}

/// One step of the circle in each answer.
fn long_circle(question: &[u8]) -> Vec<u8> {
    let asked = question[12..question.len() - 4].to_vec();
    let next = if asked == wire(NAME) { wire("other.lab.example") } else { wire(NAME) };
    answer(question, ANSWER, &[(asked, CNAME, next)])
}

fn cut(question: &[u8]) -> Vec<u8> {
    answer(question, CUT, &[])
}

fn garbage(question: &[u8]) -> Vec<u8> {
    let (name, kind, _) = srv(0, "x");
    let mut bytes = answer(question, ANSWER, &[(name, kind, vec![0; 20])]);
    bytes.truncate(question.len() + 30);
    bytes
}

/// A domain with a thousand doors, of which none has an address.
fn thousand(question: &[u8]) -> Vec<u8> {
    match asks_for_service(question) {
        true => answer(question, ANSWER, &(0..1000).map(|n| srv(n, &format!("n{n}.lab.example"))).collect::<Vec<_>>()),
        false => answer(question, NO_NAME, &[]),
    }
}

fn thousand_are_cut(question: &[u8]) -> Vec<u8> {
    if asks_for_service(question) { cut(question) } else { thousand(question) }
}

/// A question without EDNS, as a server that knows none reads it.
fn plain(question: &[u8]) -> Vec<u8> {
    let mut end = 12;
    while question[end] != 0 {
        end += usize::from(question[end]) + 1;
    }
    let mut plain = question[..end + 5].to_vec();
    plain[10..12].fill(0);
    plain
}

/// The server in the peer's network. It ends with the test's process.
fn name_server(peer: &Peer, (udp, tcp): Serve) {
    let (ready, waits) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            peer.enter();
            let address: SocketAddr = ADDRESS.parse().unwrap();
            // Without a listener the kernel refuses the connection.
            let listener = tcp.map(|_| TcpListener::bind(address).unwrap());
            ready.send((UdpSocket::bind(address).unwrap(), listener)).unwrap();
        });
    });
    let (socket, listener) = waits.recv().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            // Whoever asked may be gone.
            let _ = socket.send_to(&udp(&plain(&buffer[..length])), from);
        }
    });
    let Some((listener, tcp)) = listener.zip(tcp) else { return };
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut length = [0; 2];
            connection.read_exact(&mut length).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            connection.read_exact(&mut question).unwrap();
            let answer = tcp(&plain(&question));
            if !answer.is_empty() {
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                let _ = connection.write_all(&[&length[..], &answer].concat());
            }
        }
    });
}

#[test]
fn bad_answers_are_said_in_one_line() {
    let says = |no: &str| format!("SRV {NAME}: 192.0.2.1 says: {no}; {REMEDY}");
    let fails = |no: &str| format!("SRV {NAME}: 192.0.2.1: {no}; {REMEDY}");
    let tcp = |kind: &str| {
        fails(&format!(
            "its answer is too long for UDP, and TCP brings none ({kind}); let TCP port 53 through, or name fewer doors there"
        ))
    };
    let no_address =
        |n: u16| format!("{NAME} names n{n}.lab.example: A n{n}.lab.example: 192.0.2.1 says: there is no such name");
    let first: Vec<String> = (0..4).map(no_address).collect();
    let in_circle = says("its aliases (CNAME) lead in a circle, or are more than 8");
    let rows: [(&str, Serve, String); 9] = [
        ("no target", (nothing, None), says("the name has no such record")),
        ("the root", (nowhere, None), format!("{NAME} says that this domain has no door (\".\"); {REMEDY}")),
        ("a circle in one answer", (circle, None), in_circle.clone()),
        ("a circle over answers", (long_circle, None), in_circle),
        ("garbage", (garbage, None), fails("its answer cannot be read")),
        ("cut, and no TCP", (cut, None), tcp("connection refused")),
        ("cut, and TCP without an answer", (cut, Some(|_| Vec::new())), tcp("unexpected end of file")),
        ("cut, and cut over TCP as well", (cut, Some(cut)), says("the name has no such record")),
        ("a thousand", (thousand_are_cut, Some(thousand)), format!("{}; and 12 more like these", first.join("; "))),
    ];
    for (what, serve, want) in rows {
        veth();
        let options = format!("{RANGE} --port=0 --dhcp-option=6,192.0.2.1 --domain=lab.example");
        let peer = Peer::start(&["p0"], &format!("{SERVER}; {}", dnsmasq("p0", &options)));
        name_server(&peer, serve);
        let (dialogue, root, before) = (node(b"good"), machine(), state());
        let finding = begin("imprint.source=door", root.path(), &dialogue);
        let told = dialogue.hear(later()).expect("why there is no door is told").to_string();
        assert_eq!(told, format!("the door: {want}; the search goes on"), "{what}");
        assert_eq!(dialogue.tried(), [("the door".to_owned(), want)], "{what}");
        assert!(!dialogue.is_over(), "{what}");
        drop(finding);
        assert_eq!(state(), before, "{what}");
    }
}
