//! Tests of the doors of `imprint-host serve`: nodes that do everything right, and peers that are no nodes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use imprint::payload::EstUrl;
use imprint::pipe::Target;
use imprint::site::SitePin;
use imprint::time::{Deadline, Timestamp};
use imprint_host::est::Layout;
use imprint_host::serve::{Config, DoorSpec, ServeError, Server};
use imprint_host::state::State;
use imprint_tests::caller::Caller;
use imprint_tests::far_host::node;
use imprint_tests::patience::PATIENCE;

use super::door_limits::{ATTACKER, call, door};

pub(crate) struct Site {
    work: tempfile::TempDir,
    pub(crate) pin: SitePin,
}

impl Site {
    /// Nodes that have a name, a serial number, and what else is in their records.
    pub(crate) fn new(nodes: &[(&str, &str)]) -> Site {
        let work = tempfile::tempdir().unwrap();
        let url = EstUrl::try_from("https://est.example.org:8443/.well-known/est").unwrap();
        let mut state = State::init(&work.path().join("state"), &[url], Timestamp::system()).unwrap();
        let signer = state.ca.signers().unwrap().remove(0).0;
        let pin = SitePin::parse(format!("{signer}\n").as_bytes()).unwrap();
        let file = |(name, more): &(&str, &str)| {
            (format!("{name}.toml"), format!("name = \"{name}\"\nsubject = [\"CN={name}.example.org\"]\n{more}\n"))
        };
        let files: Vec<_> = nodes.iter().map(file).collect();
        state.add_nodes(&files, false, Timestamp::system()).unwrap();
        Site { work, pin }
    }

    pub(crate) fn state(&self) -> State {
        State::open(&self.work.path().join("state")).unwrap()
    }

    fn config(&self, doors: &[&str]) -> Config {
        Config {
            dir: self.work.path().join("state"),
            listen: "127.0.0.1:0".parse().unwrap(),
            metrics: Some("127.0.0.1:0".parse().unwrap()),
            doors: doors.iter().map(|door| door.parse::<DoorSpec>().unwrap()).collect(),
            layout: Layout::Wrapped,
            tell: Default::default(),
            clock: Arc::new(Timestamp::system),
        }
    }

    pub(crate) fn serve(&self, doors: &[&str]) -> Server {
        Server::start(self.config(doors)).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.state().store.log(1000).unwrap().into_iter().map(|row| row.event).collect()
    }
}

pub(crate) fn tcp(server: &Server) -> TcpStream {
    let door = server.doors().iter().find_map(|door| door.strip_prefix("tcp:")).unwrap();
    TcpStream::connect(door).unwrap()
}

/// A connection of either kind.
pub(crate) trait Stream: Read + Write {
    fn patient(&self, timeout: Duration);
}

impl Stream for TcpStream {
    fn patient(&self, timeout: Duration) {
        self.set_read_timeout(Some(timeout)).unwrap();
    }
}

impl Stream for UnixStream {
    fn patient(&self, timeout: Duration) {
        self.set_read_timeout(Some(timeout)).unwrap();
    }
}

/// Until `done` (true), or until the door closes (false).
pub(crate) fn talk(node: &mut Caller, stream: &mut impl Stream, done: impl Fn(&Caller) -> bool) -> bool {
    let start = Instant::now();
    let mut buffer = [0; 4096];
    loop {
        let (bytes, next) = node.poll();
        if !bytes.is_empty() && stream.write_all(&bytes).is_err() {
            return done(node);
        }
        if done(node) {
            return true;
        }
        assert!(start.elapsed() < PATIENCE, "the door said nothing more; told: {:?}", node.pending);
        let wait = next.unwrap_or(Duration::from_secs(1)).clamp(Duration::from_millis(1), Duration::from_secs(1));
        stream.patient(wait);
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => node.push(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
            Err(error) => assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}"),
        }
    }
}

/// What the door sends until it closes the connection.
fn rest(stream: &mut impl Stream) -> Vec<u8> {
    stream.patient(PATIENCE);
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    all
}

/// Mistake: a node is sent to the port of EST, to that of the page of metrics, or to the port of SSH, whose server waits after its
/// greeting. Each is told in one line that names what answers there and what to look at. The door beside them is found.
#[test]
fn a_node_that_calls_at_another_port_of_the_server_says_what_answers_there() {
    let site = Site::new(&[]);
    let server = site.serve(&["tcp:127.0.0.1:0"]);
    let ssh = TcpListener::bind("127.0.0.1:0").unwrap();
    let shell = ssh.local_addr().unwrap();
    // RFC 4253 §4.2: the server's greeting comes at once. It then waits for that of the client.
    std::thread::spawn(move || {
        let mut waits = Vec::new();
        for connection in ssh.incoming() {
            let mut connection = connection.unwrap();
            connection.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n").unwrap();
            waits.push(connection);
        }
    });
    let (est, metrics) = (server.local_addr(), server.metrics_addr().unwrap());
    let dialogue = node(b"good");
    dialogue.call([est, metrics, shell].map(Target::Tcp).to_vec());
    let port = "is that the port of a door (imprint-host serve --door)?";
    let want = [
        // Lists of revoked certificates are served there without TLS, so the answer is one of HTTP.
        format!("tcp:{est}: it speaks HTTP; {port}"),
        format!("tcp:{metrics}: it speaks HTTP; {port}"),
        format!("tcp:{shell}: it speaks SSH; {port}"),
    ];
    let mut told: Vec<String> = Vec::new();
    while !want.iter().all(|words| told.contains(words)) {
        let words = dialogue.hear(Deadline::after(PATIENCE)).unwrap_or_else(|| panic!("{told:?}")).to_string();
        assert!(want.contains(&words), "{words}");
        assert!(!told.contains(&words), "told twice: {words}");
        told.push(words);
    }
    drop(dialogue);
    server.shutdown();
}

/// Without a signer nothing that leaves a door could be told from what an attacker sends.
#[test]
fn a_door_needs_a_signer() {
    let work = tempfile::tempdir().unwrap();
    let url = EstUrl::try_from("https://est.example.org:8443/.well-known/est").unwrap();
    drop(State::init(&work.path().join("state"), &[url], Timestamp::system()).unwrap());
    // As releases before signed payloads have left it.
    std::fs::remove_file(work.path().join("state/signer.key")).unwrap();
    let config = |doors: &[&str]| Config {
        dir: work.path().join("state"),
        listen: "127.0.0.1:0".parse().unwrap(),
        metrics: None,
        doors: doors.iter().map(|door| door.parse().unwrap()).collect(),
        layout: Layout::Wrapped,
        tell: Default::default(),
        clock: Arc::new(Timestamp::system),
    };
    let error = Server::start(config(&["tcp:127.0.0.1:0"])).err().unwrap();
    assert!(matches!(error, ServeError::Door(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "--door tcp:127.0.0.1:0: at a door every payload is signed, and this directory has no signer; make one with \
         imprint-host signer new, and put its line into /imprint/site of the nodes' images"
    );
    // Premise: the same directory serves EST.
    Server::start(config(&[])).unwrap().shutdown();
}

#[test]
fn a_door_that_cannot_be_opened_is_named() {
    let site = Site::new(&[]);
    let why = |door: &str| Server::start(site.config(&[door])).err().unwrap().to_string();
    assert!(why("unix:/nonexistent/door").starts_with("--door unix:/nonexistent/door: make its directory"));
    assert!(why("unix:/nonexistent/*.sock").starts_with("--door unix:/nonexistent/*.sock: make the directory"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let door = format!("tcp:{}", taken.local_addr().unwrap());
    assert!(why(&door).starts_with(&format!("--door {door}: is the address this machine's, and free?")));
    let twice = Server::start(site.config(&["tcp:127.0.0.1:0", "tcp:127.0.0.1:0"])).err().unwrap();
    assert_eq!(twice.to_string(), "--door tcp:127.0.0.1:0: is given twice");
    // One link with two sockets: each node there would be answered twice.
    let both = Server::start(site.config(&["ether:p0", "ether:p1,p0"])).err().unwrap();
    assert_eq!(both.to_string(), "--door ether:p1,p0: the link p0 belongs to --door ether:p0, too; name it once");
}

/// A node waits for an administrator, who admits its code; then it gets its certificate over the same connection. Over TCP and
/// over a Unix socket alike.
#[test]
fn an_administrator_admits_a_node_and_it_gets_its_certificate() {
    let site = Site::new(&[("node1", "bind = { serial = 'S1' }"), ("node2", "bind = { serial = 'S2' }")]);
    let path = site.path("door");
    let server = site.serve(&["tcp:127.0.0.1:0", &format!("unix:{}", path.display())]);
    for (name, serial) in [("node1", "S1"), ("node2", "S2")] {
        let before = Timestamp::system();
        let mut node = Caller::new(serial, &site.pin);
        let mut tcp = (name == "node1").then(|| tcp(&server));
        let mut unix = (name == "node2").then(|| UnixStream::connect(&path).unwrap());
        let mut until = |node: &mut Caller, done: fn(&Caller) -> bool| match (&mut tcp, &mut unix) {
            (Some(stream), _) => talk(node, stream, done),
            (_, Some(stream)) => talk(node, stream, done),
            _ => false,
        };
        assert!(until(&mut node, |node| !node.pending.is_empty()));
        // Without a code: whoever is between could have the host say another one.
        assert_eq!(node.pending[0], "an administrator must compare the codes, and admit this node");
        // Premise: nothing was made for it yet.
        assert!(node.payloads.is_empty() && site.state().store.payloads(name).unwrap().is_empty());
        assert_eq!(site.state().admit(&node.code(), None, Timestamp::system()).unwrap().node, name);
        assert!(until(&mut node, |node| node.over), "refused: {:?}", node.refused);
        let payload = &node.payloads[0];
        assert!((before..=Timestamp::system()).contains(&payload.composed), "the moment of signing");
        assert_eq!(payload.admitted(), Some("approved"));
        let certificates = imprint::est::certs_only(node.certificates.as_ref().unwrap()).unwrap();
        assert_eq!(certificates.len(), 2, "the node's and the intermediate");
    }
    let events = site.events();
    for event in ["admitted", "payload", "enrolled"] {
        assert_eq!(events.iter().filter(|other| *other == event).count(), 2, "{event} in {events:?}");
    }
}

/// `admit = "known"`: nobody has to decide. The node calls at two addresses of the host at once, and takes what comes first. Or it is
/// an attack: somebody says the node's HELLO again, which everybody on the network has heard. The second call must not make the
/// node's payload void.
#[test]
fn a_node_that_calls_twice_gets_one_certificate() {
    let site = Site::new(&[("node1", "bind = { serial = 'S1' }\nadmit = 'known'")]);
    let server = site.serve(&["tcp:127.0.0.1:0"]);
    let key = Arc::new(imprint::line::LineKey::generate(&imprint_tests::caller::seeded()).unwrap());
    let hello = imprint_tests::caller::hello(&key, "S1");
    let mut first = Caller::with(Arc::clone(&key), hello.clone(), &site.pin);
    first.lazy = true;
    let mut one = tcp(&server);
    assert!(talk(&mut first, &mut one, |node| !node.payloads.is_empty()));
    let mut second = Caller::with(key, hello, &site.pin);
    second.lazy = true;
    let mut other = tcp(&server);
    assert!(talk(&mut second, &mut other, |node| !node.payloads.is_empty()));
    // The same payload, of another moment.
    let [one_of, other_of] = [&first.payloads[0], &second.payloads[0]];
    assert!(one_of.id == other_of.id && one_of.composed < other_of.composed);
    drop(other);
    first.asks();
    assert!(talk(&mut first, &mut one, |node| node.over), "refused: {:?}", first.refused);
    let events = site.events();
    let count = |event: &str| events.iter().filter(|other| *other == event).count();
    assert_eq!((count("payload"), count("enrolled")), (1, 1), "{events:?}");
}

/// Accident: `serve` is started again while one node waits for an administrator, and another one has its payload.
#[test]
fn nodes_call_again_after_a_restart_and_nothing_is_lost() {
    let site =
        Site::new(&[("node1", "bind = { serial = 'S1' }"), ("node2", "bind = { serial = 'S2' }\nadmit = 'known'")]);
    let server = site.serve(&["tcp:127.0.0.1:0"]);
    let mut waits = Caller::new("S1", &site.pin);
    let mut busy = Caller::new("S2", &site.pin);
    busy.lazy = true;
    let (mut one, mut other) = (tcp(&server), tcp(&server));
    assert!(talk(&mut waits, &mut one, |node| !node.pending.is_empty()));
    assert!(talk(&mut busy, &mut other, |node| !node.payloads.is_empty()));
    server.shutdown();
    assert!(!talk(&mut waits, &mut one, |node| node.over) && !talk(&mut busy, &mut other, |node| node.over));
    site.state().admit(&waits.code(), None, Timestamp::system()).unwrap();
    let server = site.serve(&["tcp:127.0.0.1:0"]);
    busy.calls_again();
    busy.asks();
    assert!(talk(&mut busy, &mut tcp(&server), |node| node.over), "refused: {:?}", busy.refused);
    waits.calls_again();
    assert!(talk(&mut waits, &mut tcp(&server), |node| node.over), "refused: {:?}", waits.refused);
    assert_eq!((busy.payloads.len(), waits.payloads.len()), (1, 1));
}

/// The name of the socket is a fact: who calls there is that machine, and nobody decides.
#[test]
fn a_virtual_machine_is_let_in_by_its_socket() {
    let site = Site::new(&[("node1", "bind = { vm = 'web1', serial = 'S1' }\nadmit = 'wire'")]);
    std::fs::create_dir(site.path("vms")).unwrap();
    let server = site.serve(&[&format!("unix:{}/*.sock", site.path("vms").display()), "tcp:127.0.0.1:0"]);
    let listener = UnixListener::bind(site.path("vms/web1.sock")).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut node = Caller::new("S1", &site.pin);
    assert!(talk(&mut node, &mut stream, |node| node.over), "told: {:?}, refused: {:?}", node.pending, node.refused);
    assert_eq!(node.payloads[0].admitted(), Some("wire"));
    // Attack: somebody says the same from elsewhere.
    let mut other = Caller::new("S1", &site.pin);
    assert!(talk(&mut other, &mut tcp(&server), |node| !node.pending.is_empty()));
    assert!(other.payloads.is_empty());
}

/// Attack: somebody elsewhere opens connections and says nothing. How many places one address has, a unit test of the places shows.
#[test]
fn silent_callers_keep_nobody_out() {
    let site = Site::new(&[("node1", "bind = { serial = 'S1' }\nadmit = 'known'")]);
    let server = site.serve(&["tcp:127.0.0.1:0"]);
    let silent: Vec<TcpStream> = (0..200).map(|_| call(ATTACKER, door(&server))).collect();
    let mut node = Caller::new("S1", &site.pin);
    let mut stream = tcp(&server);
    assert!(talk(&mut node, &mut stream, |node| node.over), "told: {:?}", node.pending);
    drop(silent);
}

/// Bad input: peers that speak something else. Each is left at once, and gets no byte that it did not ask for after that.
#[test]
fn peers_of_other_protocols_are_left() {
    let site = Site::new(&[]);
    let path = site.path("door");
    let server = site.serve(&["tcp:127.0.0.1:0", &format!("unix:{}", path.display())]);
    let tls = [&[22, 3, 1, 0, 200][..], &[0; 200]].concat();
    let noise = vec![b'x'; 4096];
    for said in
        [&b"GET / HTTP/1.1\r\nHost: door\r\n\r\n"[..], &b"POST /x HTTP/1.1\r\n\r\n"[..], &tls, b"SSH-2.0-x\r\n", &noise]
    {
        for unix in [false, true] {
            // The door's CALL may come first; nothing else does.
            let heard = if unix {
                let mut stream = UnixStream::connect(&path).unwrap();
                stream.write_all(said).unwrap();
                rest(&mut stream)
            } else {
                let mut stream = tcp(&server);
                stream.write_all(said).unwrap();
                rest(&mut stream)
            };
            assert!(heard.len() < 64, "{}", String::from_utf8_lossy(&heard));
        }
    }
}

/// Bad input: callers that go away at each moment. The door goes on.
#[test]
fn callers_that_hang_up_do_no_harm() {
    let site = Site::new(&[]);
    let server = site.serve(&["tcp:127.0.0.1:0"]);
    for _ in 0..3 {
        drop(tcp(&server));
        let mut node = Caller::new("S1", &site.pin);
        let mut stream = tcp(&server);
        stream.write_all(&node.poll().0).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(rest(&mut stream).len() < 2048);
    }
    let mut node = Caller::new("S1", &site.pin);
    assert!(talk(&mut node, &mut tcp(&server), |node| !node.pending.is_empty()));
}

/// Attack: a HELLO that says one thing, and then another with another key on the same connection.
#[test]
fn a_second_hello_has_to_call_for_itself() {
    let site = Site::new(&[]);
    let server = site.serve(&["tcp:127.0.0.1:0"]);
    let mut stream = tcp(&server);
    let mut node = Caller::new("S1", &site.pin);
    assert!(talk(&mut node, &mut stream, |node| !node.pending.is_empty()));
    let mut other = Caller::new("S2", &site.pin);
    assert!(!talk(&mut other, &mut stream, |node| !node.pending.is_empty() || !node.payloads.is_empty()));
}

/// A node of an older release, or whose image names no signer, would take what anybody has sent.
#[test]
fn a_node_that_sends_no_challenge_is_turned_away() {
    let site = Site::new(&[]);
    let server = site.serve(&["tcp:127.0.0.1:0"]);
    let key = imprint::line::LineKey::generate(&imprint_tests::caller::seeded()).unwrap();
    let hello = imprint::line::Hello { fresh: false, ..imprint_tests::caller::hello(&key, "S1") };
    let mut node = Caller::with(Arc::new(key), hello, &site.pin);
    assert!(talk(&mut node, &mut tcp(&server), |node| node.refused.is_some()));
    assert!(node.refused.unwrap().starts_with("its image names no signer in /imprint/site"), "the reason");
}

/// The hypervisor makes a socket for each machine, and the door connects to it, again after the machine has started again.
#[test]
fn sockets_of_virtual_machines() {
    let site = Site::new(&[]);
    std::fs::create_dir(site.path("vms")).unwrap();
    let server = site.serve(&[&format!("unix:{}/*.sock", site.path("vms").display())]);
    let listener = UnixListener::bind(site.path("vms/web1.sock")).unwrap();
    for _ in 0..2 {
        let (mut stream, _) = listener.accept().unwrap();
        let mut node = Caller::new("S1", &site.pin);
        assert!(talk(&mut node, &mut stream, |node| !node.pending.is_empty()));
    }
    server.shutdown();
}

/// Accident: every socket in the directory is a machine's, and the door makes sockets there itself. None of them is a machine, and
/// none is left when the server stops.
#[test]
fn the_sockets_of_the_door_are_no_machines() {
    let site = Site::new(&[]);
    std::fs::create_dir(site.path("vms")).unwrap();
    let server = site.serve(&[&format!("unix:{}/*,vsock=1024", site.path("vms").display())]);
    let names = || {
        let names = std::fs::read_dir(site.path("vms")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    let start = Instant::now();
    let mut machines = Vec::new();
    // The directory is looked at once a second: the door has seen its socket of one machine when it makes that of the next.
    for machine in ["web1", "web2", "web3"] {
        machines.push(UnixListener::bind(site.path("vms").join(machine)).unwrap());
        while !names().contains(&format!("{machine}_1024")) {
            assert!(start.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
    }
    assert_eq!(names(), ["web1", "web1_1024", "web2", "web2_1024", "web3", "web3_1024"]);
    server.shutdown();
    assert_eq!(names(), ["web1", "web2", "web3"]);
}

/// Firecracker, cloud-hypervisor and vhost-device-vsock connect to the socket's name with the port behind it.
#[test]
fn vsock_of_hypervisors_without_vhost() {
    let site = Site::new(&[]);
    std::fs::create_dir(site.path("vms")).unwrap();
    let server = site.serve(&[&format!("unix:{}/*.vsock,vsock=1024", site.path("vms").display())]);
    let _device = UnixListener::bind(site.path("vms/web1.vsock")).unwrap();
    let start = Instant::now();
    let mut stream = loop {
        match UnixStream::connect(site.path("vms/web1.vsock_1024")) {
            Ok(stream) => break stream,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::yield_now();
    };
    let mut node = Caller::new("S1", &site.pin);
    assert!(talk(&mut node, &mut stream, |node| !node.pending.is_empty()));
    server.shutdown();
}
