//! Tests of DNS look-ups by the static agent, against dnsmasq, unbound and scripted name servers: the files of the machine
//! (resolv.conf, hosts) are those of a namespace. No kernel is booted.

#![allow(clippy::indexing_slicing, reason = "a test panics")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::*;

const NAME: &str = "est.lab.example.org";
/// Where the server is, and the name server.
const HERE: &str = "192.0.2.1";
const HERE6: &str = "2001:db8::1";

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().expect("these tests need iproute2");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A server by name, and a payload for it; this thread and those that it starts are in a network of their own.
struct House {
    work: tempfile::TempDir,
    server: Option<Server>,
}

impl House {
    fn new() -> House {
        House::of(NAME, &format!("nameserver {HERE}\n"), "")
    }

    /// A server of this name, and a machine with these files. All of 192.0.2.0/24 is this machine.
    fn of(name: &str, resolv: &str, hosts: &str) -> House {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("these tests make namespaces: run them as root");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        ip("link set lo up");
        ip(&format!("addr add {HERE}/24 dev lo"));
        ip(&format!("-6 addr add {HERE6}/128 dev lo nodad"));
        let work = tempfile::tempdir().unwrap();
        for (file, text) in [("resolv.conf", resolv), ("hosts", hosts)] {
            std::fs::write(work.path().join(file), text).unwrap();
            mount(Some(&work.path().join(file)), Path::new(&format!("/etc/{file}")), none, MsFlags::MS_BIND, none)
                .unwrap();
        }
        let url = EstUrl::try_from(format!("https://{name}:8443/.well-known/est").as_str()).unwrap();
        let mut state = State::init(&work.path().join("state"), &[url], Timestamp::system()).unwrap();
        let record = "name = \"node1\"\nsubject = [\"CN=node1\"]\nenrol = \"each-boot\"\n";
        state.add_nodes(&[("node1.toml".to_owned(), record.to_owned())], false, Timestamp::system()).unwrap();
        let options = compose::Options { expires: DAY, ..Default::default() };
        let payload = state.payload("node1", &options, Timestamp::system()).unwrap();
        std::fs::write(work.path().join("payload"), &*payload.bytes).unwrap();
        drop(state);
        let server = Server::start(Config {
            dir: work.path().join("state"),
            listen: "[::]:8443".parse().unwrap(),
            metrics: None,
            doors: Vec::new(),
            layout: Layout::Wrapped,
            tell: Default::default(),
            clock: Arc::new(Timestamp::system),
        });
        House { work, server: Some(server.unwrap()) }
    }

    /// What the static agent says: nothing when it has a certificate.
    fn enroll(&self, timeout: u32) -> Result<(), String> {
        let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/x86_64/imprint");
        assert!(agent.exists(), "{} is missing: run make build", agent.display());
        let out = tempfile::tempdir_in(self.work.path()).unwrap();
        let output = Command::new(agent)
            .args(["enroll", "--timeout", &timeout.to_string(), "--payload"])
            .arg(self.work.path().join("payload"))
            .arg("--out")
            .arg(out.path().join("identity"))
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(words)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown();
        }
    }
}

struct Dnsmasq(Child);

impl Dnsmasq {
    fn start(options: &[&str]) -> Dnsmasq {
        let mut dnsmasq = Command::new("dnsmasq");
        dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--user=root", "--no-resolv"]);
        dnsmasq.args(["--no-hosts", "--bind-interfaces", "--log-facility=-", &format!("--listen-address={HERE}")]);
        let child = dnsmasq.args(options).stderr(Stdio::null()).spawn().expect("these tests need dnsmasq");
        answers_at_all();
        Dnsmasq(child)
    }
}

/// A name server answers once its socket is there.
fn answers_at_all() {
    let asker = UdpSocket::bind((HERE, 0)).unwrap();
    asker.connect((HERE, 53)).unwrap();
    asker.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let limit = imprint::time::Deadline::after(PATIENCE);
    while asker.send(&question()).and_then(|_| asker.recv(&mut [0; 4096])).is_err() {
        assert!(!limit.expired(), "the name server does not answer");
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// RFC 1035 §4.1: one question, for the name's A.
fn question() -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in NAME.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// What a name server says to a question for one family: a code, the address with code 0, or nothing at all.
type Says = Option<u8>;

/// A name server until the test ends: A and AAAA each have an answer of their own.
fn name_server(a: Says, aaaa: Says) {
    answers(UdpSocket::bind((HERE, 53)).unwrap(), a, aaaa);
}

fn answers(socket: UdpSocket, a: Says, aaaa: Says) {
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, asker)) = socket.recv_from(&mut buffer) {
            let asked = &buffer[..length];
            let end = 12 + asked[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            let is_aaaa = asked[end - 3] == 28;
            let Some(code) = (if is_aaaa { aaaa } else { a }) else { continue };
            let mut answer = asked[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, u8::from(code == 0), 0, 0, 0, 0]);
            if code == 0 {
                let address = match is_aaaa {
                    true => HERE6.parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec(),
                    false => HERE.parse::<Ipv4Addr>().unwrap().octets().to_vec(),
                };
                answer.extend([
                    0xc0,
                    12,
                    0,
                    asked[end - 3],
                    0,
                    1,
                    0,
                    0,
                    0,
                    60,
                    0,
                    u8::try_from(address.len()).unwrap(),
                ]);
                answer.extend(address);
            }
            let asker: SocketAddr = asker;
            socket.send_to(&answer, asker).unwrap();
        }
    });
}

/// The usual name server of an isolated network: it has no AAAA, or refuses it.
#[test]
fn a_name_with_an_a_record_only_in_an_isolated_network() {
    let house = House::new();
    let (record, address) = (format!("--host-record={NAME},{HERE}"), format!("--address=/{NAME}/{HERE}"));
    for options in [&[&record[..]][..], &[&address], &[&address, "--local=/lab.example.org/"]] {
        let _dnsmasq = Dnsmasq::start(options);
        assert_eq!(house.enroll(30), Ok(()), "{options:?}");
    }
}

/// One family answers; the other one is refused, unknown, out of order, not there, or keeps silent.
#[track_caller]
fn one_family_is_enough(row: (Says, Says)) {
    let house = House::new();
    name_server(row.0, row.1);
    assert_eq!(house.enroll(30), Ok(()), "{row:?}");
}

#[test]
fn one_family_is_enough_whatever_becomes_of_the_other() {
    for code in [Some(2), Some(3), Some(4), Some(5), None] {
        // Each row has a network of its own.
        for row in [(Some(0), code), (code, Some(0))] {
            std::thread::spawn(move || one_family_is_enough(row)).join().unwrap();
        }
    }
}

#[test]
fn a_name_that_nobody_knows_is_told_with_those_who_were_asked() {
    let house = House::new();
    name_server(Some(3), Some(3));
    let words = house.enroll(3).unwrap_err();
    let want = format!(
        "{NAME} has no address: A and AAAA {NAME}: {HERE} says: there is no such name; check the URL and what the name \
         servers know"
    );
    assert!(words.contains(&want), "{words}");
}

/// The message says what came of each family.
#[track_caller]
fn has_no_usable_answer(house: &House, said: &[&str]) {
    let words = patiently(Duration::from_secs(2), |limit| {
        let words = house.enroll(u32::try_from(limit.as_secs()).unwrap()).unwrap_err();
        if words.contains("usable answer about") { Ok(words) } else { Err(words) }
    });
    let (_, line) = words.split_once(&format!("no usable answer about {NAME}: ")).unwrap();
    assert!(said.iter().all(|said| line.contains(&format!("{NAME}: {HERE}: {said}"))), "{words}");
    assert!(
        line.contains("; check the URL, that the name servers know the name, and that the node reaches them"),
        "{words}"
    );
}

fn said(code: Says) -> &'static str {
    match code {
        None => "no answer to ",
        Some(2) => "it cannot find out (SERVFAIL)",
        Some(5) => "it refuses to answer",
        Some(_) => "it answers with error 4",
    }
}

#[test]
fn name_servers_without_a_usable_answer_are_named() {
    // Silence, SERVFAIL, NOTIMP, REFUSED, for both families and for one each.
    for row in
        [(None, None), (Some(2), Some(2)), (Some(4), Some(4)), (Some(5), Some(5)), (Some(2), None), (None, Some(5))]
    {
        // Each row has a network of its own.
        let run = move || {
            let house = House::new();
            name_server(row.0, row.1);
            has_no_usable_answer(&house, &[said(row.0), said(row.1)]);
        };
        assert!(std::thread::spawn(run).join().is_ok(), "{row:?}");
    }
}

/// Such a name server refuses a name that it does not know, because it has no other name server to ask.
#[test]
fn the_name_server_of_an_isolated_network_that_does_not_know_the_name() {
    let house = House::new();
    let _dnsmasq = Dnsmasq::start(&["--host-record=other.lab.example.org,192.0.2.1"]);
    has_no_usable_answer(&house, &["it refuses to answer"]);
}

/// The first name server is dead, the second one refuses, and the name needs the search list.
#[test]
fn a_short_name_and_a_dead_server() {
    let resolv =
        format!("nameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver {HERE}\nsearch none.example lab.example.org\n");
    let house = House::of("est", &resolv, "");
    let _dead = UdpSocket::bind("192.0.2.2:53").unwrap();
    // Nobody listens at 192.0.2.3. dnsmasq refuses to say anything about none.example.
    let _dnsmasq = Dnsmasq::start(&[&format!("--host-record={NAME},{HERE}")]);
    assert_eq!(house.enroll(30), Ok(()));
}

#[test]
fn a_name_of_the_hosts_file_is_not_asked_for() {
    let house = House::of(NAME, "", &format!("{HERE}\tserver.example {NAME} # the server\n"));
    assert_eq!(house.enroll(30), Ok(()));
}

#[test]
fn without_a_name_server_the_message_names_the_remedy() {
    let house = House::of(NAME, "", "");
    let words = house.enroll(3).unwrap_err();
    let want = format!(
        "no usable answer about {NAME}: /etc/resolv.conf has no name server; add a name server (dns) to the record, or use an \
         IP address in the URL"
    );
    assert!(words.contains(&want), "{words}");
}

/// unbound with a name that has a hundred addresses: the answer is too long for a datagram, and comes over TCP.
#[test]
fn unbounds_answer_that_is_too_long_comes_over_tcp() {
    let house = House::new();
    let records: String = (100..200).map(|n| format!("local-data: \"{NAME}. A 192.0.2.{n}\"\n")).collect();
    let _unbound = Unbound::start(&house, &format!("local-zone: \"example.org.\" static\n{records}"));
    assert_eq!(house.enroll(30), Ok(()));
}

/// unbound reaches nobody whom it could ask, and fails (SERVFAIL); the other name server knows the name.
#[test]
fn where_unbound_fails_the_next_server_is_asked() {
    let house = House::of(NAME, &format!("nameserver {HERE}\nnameserver 192.0.2.2\n"), "");
    let _unbound = Unbound::start(&house, "");
    let socket = UdpSocket::bind("192.0.2.2:53").unwrap();
    answers(socket, Some(0), Some(3));
    assert_eq!(house.enroll(30), Ok(()));
}

struct Unbound(Child);

impl Unbound {
    fn start(house: &House, zone: &str) -> Unbound {
        let conf = house.work.path().join("unbound.conf");
        let text = format!(
            "server:\nchroot: \"\"\nusername: \"\"\npidfile: \"\"\ndirectory: \"/\"\nuse-syslog: no\nmodule-config: \"iterator\"\n\
             interface: {HERE}\naccess-control: 0.0.0.0/0 allow\ndo-ip6: no\n{zone}remote-control:\ncontrol-enable: no\n"
        );
        std::fs::write(&conf, text).unwrap();
        let mut unbound = Command::new("unbound");
        let child = unbound.arg("-d").arg("-c").arg(conf).stderr(Stdio::null()).spawn();
        let unbound = Unbound(child.expect("these tests need unbound"));
        answers_at_all();
        unbound
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
