//! Tests of `line:` among the URLs: a host on a pseudo terminal that signs or refuses, before or after an EST server.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use imprint::checkin::Line;
use imprint::dialogue;
use imprint::facts::{Dmi, Facts};
use imprint::line::frame::{Hello, Nonce, Versions};
use imprint::line::{Host, HostEvent, Kind, LineKey, Shape, Wire, seal};
use imprint::payload::Payload;
use imprint::plan::{Scope, plan};
use imprint::port::{Place, Port, Signals};
use imprint::site::SignedBy;
use imprint::source::Origin;
use imprint::time::since_boot;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use super::*;

const DEAD: &str = "https://127.0.0.1:1/.well-known/est";

/// What the host does with a request.
#[derive(Clone, Copy)]
enum HostDoes {
    Signs,
    Refuses,
    /// First it says that somebody has to approve.
    Waits,
    Silent,
    HangsUp,
}

/// A node's end of a line, and the terminal that the line is.
fn spoken() -> (dialogue::Dialogue, OpenptyResult) {
    let pty = openpty(None, None).unwrap();
    let mut settings = tcgetattr(&pty.slave).unwrap();
    cfmakeraw(&mut settings);
    tcsetattr(&pty.slave, SetArg::TCSANOW, &settings).unwrap();
    let path = nix::unistd::ttyname(&pty.slave).unwrap();
    let place = Place { name: "pty".into(), path, baud: None, set: false, console: false, virtio: true, keys: false };
    let seeded = Seeded::ready(Deadline::after(PATIENCE)).unwrap();
    let key = LineKey::generate(&seeded).unwrap();
    let hello = Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh: false,
        nonce: Nonce([1; 8]),
        key: key.public(),
        uuid: None,
        serial: None,
        macs: Vec::new(),
    };
    let lines = vec![dialogue::Line { pipe: Port::open(place).unwrap().unwrap().into(), beacon: true, far: false }];
    let dialogue =
        dialogue::Dialogue::start(Signals::catch().unwrap(), lines, key, hello, None, None, Path::new("/nowhere"))
            .unwrap();
    (dialogue, pty)
}

/// A check-in over these URLs, with a host at the other end of the line.
fn run_with(world: &World, urls: &[String], host: HostDoes, deadline: Duration) -> Run {
    let (dialogue, pty) = spoken();
    let (over, over_there) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let ended = Arc::clone(&over);
    let (signer, leaf) = (Arc::clone(&world.signer), world.leaf());
    let mut master = std::fs::File::from(pty.master);
    let thread = std::thread::spawn(move || {
        let mut wire = Wire::new(Host::new(Nonce([9; 8]), true, Shape::default()), None);
        let now = || u64::try_from(since_boot().as_micros()).unwrap();
        let mut buffer = [0; 4096];
        'line: while !ended.load(Ordering::Relaxed) {
            let polled = wire.poll(now());
            master.write_all(&polled.bytes).unwrap();
            for event in polled.events {
                let HostEvent::Object(Kind::Request, request) = event else { continue };
                let (_, csr) = seal::open_request(&request).unwrap();
                let certificate = || certs_only(&[signer.issue(&leaf, &spki_of_csr(csr)), signer.der()]);
                let end = wire.end_mut();
                match host {
                    HostDoes::Signs => end.send(Kind::Certificates, certificate()),
                    HostDoes::Refuses => end.send(Kind::Refused, b"not this one".to_vec()),
                    HostDoes::Waits => {
                        end.send(Kind::Pending, b"alice has to approve".to_vec());
                        end.send(Kind::Certificates, certificate());
                    }
                    HostDoes::Silent => {}
                    HostDoes::HangsUp => break 'line,
                }
            }
            let mut fds = [nix::poll::PollFd::new(master.as_fd(), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(10u8)).unwrap();
            if fds[0].any() == Some(true) {
                match master.read(&mut buffer) {
                    Ok(count) => wire.push(&buffer[..count], now()),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Other, "{error}"),
                }
            }
        }
        drop(master);
        over_there.store(true, Ordering::Relaxed);
    });
    let (server, identity) = (world.server_plan(urls), &world.identity);
    let request = seal::request(b"s3cret", dialogue.hello(), identity.csr());
    let told_time = dialogue::LineTime::new(imprint::time::Clock::starting_at(secs(NOW)), Duration::from_millis(5));
    let mut clock = world.clock();
    clock.quality = ClockQuality::Line(told_time.within(clock.floor, clock.expiry).unwrap());
    let line = Some(Line { dialogue: &dialogue, request: &request });
    let context = Context { approval_timeout: Some(PATIENCE), line, ..world.context(&server, &clock) };
    let (mut asked, mut told) = (Vec::new(), Vec::new());
    let mut ask = |ask: Ask| -> Result<Reply, AskError> {
        asked.push(ask);
        Ok(Reply::NothingMore)
    };
    let mut progress = |progress: Progress<'_>| told.push(progress.to_string());
    let result = enroll(&context, &mut ask, &mut progress, Deadline::after(deadline));
    over.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    drop(dialogue);
    drop(pty.slave);
    Run { result, asked, told }
}

const LATER: Duration = PATIENCE;

#[test]
fn the_line_first_and_the_server_is_not_asked() {
    let world = World::new();
    let server = EstServer::start(vec![world.tls()], world.good(NOW));
    let run = run_with(&world, &["line:".to_owned(), server.url()], HostDoes::Signs, LATER);
    assert_eq!(run.result.unwrap().server(), "line: (pty)");
    assert!(server.requests().is_empty());
}

#[test]
fn the_server_first_and_the_line_when_it_is_not_there() {
    let world = World::new();
    let run = run_with(&world, &[DEAD.to_owned(), "line:".to_owned()], HostDoes::Signs, LATER);
    assert_eq!(run.result.unwrap().server(), "line: (pty)");
    let server = EstServer::start(vec![world.tls()], world.good(NOW));
    let run = run_with(&world, &[server.url(), "line:".to_owned()], HostDoes::Signs, LATER);
    assert_eq!(run.result.unwrap().server(), format!("{} ({})", server.url(), server.address()));
    // The time is known from the line: no probe, and nothing to set.
    assert!(run.asked.is_empty(), "{:?}", run.asked);
    assert_eq!(server.requests().len(), 2, "cacerts and the CSR, both verified at that time");
}

#[test]
fn a_host_that_refuses_leaves_it_to_the_server() {
    let world = World::new();
    let server = EstServer::start(vec![world.tls()], world.good(NOW));
    let run = run_with(&world, &["line:".to_owned(), server.url()], HostDoes::Refuses, LATER);
    assert!(run.result.unwrap().server().starts_with("https://"));
    let run = run_with(&world, &["line:".to_owned()], HostDoes::Refuses, LATER);
    let error = run.result.unwrap_err().to_string();
    assert_eq!(error, "asking for a certificate at line:: the host refuses: not this one");
}

#[test]
fn a_host_that_waits_for_an_administrator_is_waited_for() {
    let world = World::new();
    let run = run_with(&world, &["line:".to_owned()], HostDoes::Waits, LATER);
    run.result.unwrap();
    assert_eq!(
        run.told.iter().filter(|line| line.contains("waits for approval at line:")).count(),
        1,
        "{:?}",
        run.told
    );
}

#[test]
fn a_host_that_says_nothing_and_a_line_that_is_not_there() {
    let world = World::new();
    let error = run_with(&world, &["line:".to_owned()], HostDoes::Silent, Duration::from_secs(1)).result.unwrap_err();
    assert!(error.to_string().contains("line:: the server did not answer the request in time"), "{error}");
    let error = world.enroll_at(&["line:".to_owned()], LATER).0.unwrap_err().to_string();
    assert_eq!(
        error,
        "asking for a certificate at line:: there is no line to a host; run imprint-host inject while the node waits"
    );
}

#[test]
fn a_line_that_breaks_is_not_waited_for() {
    let world = World::new();
    let run = run_with(&world, &["line:".to_owned()], HostDoes::HangsUp, LATER);
    let error = run.result.unwrap_err().to_string();
    assert!(error.starts_with("asking for a certificate at line:: the line to the host is gone: "), "{error}");
    assert!(error.ends_with("; plug the line in again, and boot again or run imprint console"), "{error}");
    let server = EstServer::start(vec![world.tls()], world.good(NOW));
    let run = run_with(&world, &["line:".to_owned(), server.url()], HostDoes::HangsUp, LATER);
    assert!(run.result.unwrap().server().starts_with("https://"));
}

/// A host on a line that says it is 2015, and a server whose certificate ended in 2016: somebody has its key.
#[test]
fn a_host_that_sets_the_clock_back_gets_no_token_for_an_old_server() {
    const IN_2015: u64 = 1_435_708_800;
    let good = (IN_2015 - 2 * YEAR, COMPOSED + 10 * YEAR);
    let mut world = World::new();
    world.root = Ca::new("Root", good);
    world.signer = Arc::new(world.root.intermediate("Signer", good));
    let ended = || world.signer.server(&Leaf::server(LOCALHOST, (IN_2015 - YEAR, IN_2015 + YEAR)), &[&TLS13]);
    let run = |server: &EstServer, clock: ClockPlan| {
        let plan = world.server_plan(&[server.url()]);
        let context = world.context(&plan, &clock);
        enroll(&context, &mut |_| Ok(Reply::NothingMore), &mut |_| (), Deadline::after(Duration::from_secs(60)))
    };
    let told = told_over_a_line(IN_2015);

    // Held against nothing, it is the time that the server's certificate is verified at, and the token goes out.
    let server = EstServer::start(vec![ended()], world.good(IN_2015));
    let believed = told.within(secs(0), Timestamp::MAX).unwrap();
    let clock = ClockPlan { floor: secs(0), expiry: Timestamp::MAX, quality: ClockQuality::Line(believed) };
    run(&server, clock).unwrap_err();
    let got: Vec<String> = server.requests().into_iter().map(|request| request.head).collect();
    assert!(got.iter().any(|head| head.contains("\r\nAuthorization: Basic bm9kZTE6czNjcmV0\r\n")), "{got:?}");

    // A time outside the life of the payload does not count. The machine's own clock may be right or wrong.
    let mut payload = Payload::decode(include_bytes!("../../data/payload-typical.cbor")).unwrap();
    (payload.composed, payload.expiry) = (secs(COMPOSED), secs(EXPIRY));
    payload.ca = CaCertificate::new(world.root.der()).unwrap();
    for now in [NOW, IN_2015] {
        let facts = Facts {
            origin: Origin::Line { name: "pty".into(), sealed: true },
            site_pin: None,
            signed: SignedBy::Nobody,
            confidential: None,
            fresh: None,
            now: secs(now),
            now_at: since_boot(),
            line_time: Some(told),
            links: Vec::new(),
            dmi: Dmi::default(),
            bootif: None,
            cmdline: Default::default(),
        };
        let plan = plan(payload.clone(), &facts, Scope::CertificateOnly).unwrap();
        assert!(plan.disbelieved.is_some_and(|told| told < secs(IN_2015 + YEAR)), "{plan}");
        let server = EstServer::start(vec![ended()], world.good(IN_2015));
        let error = run(&server, plan.clock).unwrap_err();
        let CheckinError::Failed { attempts } = &error else { panic!("{error}") };
        let [Attempt { step: Step::Probe, failure: Failure::Https(HttpsError::Tls(TlsError::Refused(refused))), .. }] =
            &attempts[..]
        else {
            panic!("{error}")
        };
        assert!(matches!(refused.reason, Reason::NeverWithin(..)), "{error}");
        assert!(server.requests().is_empty(), "the old server was told something");
    }
}

/// What a node makes of a host that says this time, over a pseudo terminal.
fn told_over_a_line(secs: u64) -> dialogue::LineTime {
    let (dialogue, pty) = spoken();
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let mut master = std::fs::File::from(pty.master);
    let thread = std::thread::spawn(move || {
        let mut wire = Wire::new(Host::new(Nonce([9; 8]), true, Shape::default()), None);
        // The host's clock: what it says that the time is, at the moment that it began.
        let begun = since_boot();
        let wall = || u64::try_from((Duration::from_secs(secs) + (since_boot() - begun)).as_micros()).unwrap();
        let mut buffer = [0; 4096];
        while !ended.load(Ordering::Relaxed) {
            master.write_all(&wire.poll(wall()).bytes).unwrap();
            let mut fds = [nix::poll::PollFd::new(master.as_fd(), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(10u8)).unwrap();
            if fds[0].any() == Some(true) {
                let count = master.read(&mut buffer).unwrap();
                wire.push(&buffer[..count], wall());
            }
        }
    });
    let deadline = Deadline::after(Duration::from_secs(60));
    while !dialogue.is_open() {
        assert!(dialogue.hear(deadline.at_most(Duration::from_millis(50))).is_some() || !deadline.expired());
    }
    let told = dialogue.time(None, deadline).expect("the host says what time it is");
    over.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    drop(dialogue);
    drop(pty.slave);
    told
}
