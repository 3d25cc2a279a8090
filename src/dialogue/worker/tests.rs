//! The worker on pseudo terminals, step by step. No thread of its own, and no sleep.

mod far;
mod dead;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::poll::{PollFd, PollFlags};
use nix::pty::openpty;
use nix::sys::eventfd::EventFd;

use super::*;
use crate::dialogue::*;
use crate::line::frame::{Frame, Packet};
use crate::line::transfer::{Sender as Pieces, Shape};
use crate::line::{End, Nonce, Side};
use crate::pool::Seeded;
use crate::port::Place;
use crate::sys;
use crate::time::Timestamp;

/// Lines that are pseudo terminals, with the hosts' ends, and a worker without a thread: the test makes each of its
/// steps.
struct Steps {
    worker: Worker,
    told: Receiver<Told>,
    shared: Arc<Mutex<Shared>>,
    hosts: Vec<File>,
    /// Keeps the terminals open, so that they keep their settings.
    slaves: Vec<OwnedFd>,
    _commands: Sender<Command>,
    _held: Held,
}

fn later() -> Deadline {
    Deadline::after(Duration::from_secs(120))
}

/// A key, and a node that takes any payload.
fn node() -> (LineKey, Hello) {
    let key = LineKey::generate(&Seeded::ready(later()).unwrap()).unwrap();
    let hello = Hello {
        heard: None,
        versions: Versions::OURS,
        plain: true,
        fresh: false,
        nonce: Nonce([7; 8]),
        key: key.public(),
        uuid: None,
        serial: None,
        macs: Vec::new(),
    };
    (key, hello)
}

fn pair(number: usize) -> (File, OwnedFd, Port) {
    let pair = openpty(None, None).unwrap();
    let path = nix::unistd::ttyname(&pair.slave).unwrap();
    let name = format!("line{number}");
    let place = Place { name, path, baud: None, set: true, console: false, virtio: false, keys: false };
    let mut port = Port::open(place).unwrap().unwrap();
    port.prepare().unwrap();
    (File::from(pair.master), pair.slave, port)
}

fn steps(lines: usize) -> Steps {
    let (key, hello) = node();
    let event = || Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
    let ((commands, orders), (tell, told)) = (channel(), channel());
    let (signals, held) = Signals::catch().unwrap();
    let shared = Arc::new(Mutex::new(Shared { lines, ..Shared::default() }));
    let (mut hosts, mut slaves, mut spoken) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..lines {
        let (host, slave, port) = pair(number);
        hosts.push(host);
        slaves.push(slave);
        spoken.push(Spoken::new(Line { pipe: port.into(), beacon: true, far: false }, &hello, [9; 32], now()));
    }
    let worker = Worker {
        lines: spoken,
        key,
        orders,
        tell,
        wake: event(),
        came: event(),
        shared: Arc::clone(&shared),
        awaited: None,
        hello,
        signals,
        seeds: Seeds::new([8; 32]),
        judge: None,
        quiet: Quiet::default(),
        root: "/nowhere".into(),
        calls: Calls::default(),
        standing: Standing::default(),
        proves: Vec::new(),
        clock: now,
    };
    Steps { worker, told, shared, hosts, slaves, _commands: commands, _held: held }
}

impl Steps {
    /// Waits for bytes from the hosts, and reads them.
    fn listen(&mut self) {
        for line in &self.worker.lines {
            let mut fds = [PollFd::new(line.pipe.fd().unwrap(), PollFlags::POLLIN)];
            assert!(sys::poll(&mut fds, later()).unwrap());
        }
        self.worker.listen();
    }

    fn told(&self) -> Vec<String> {
        self.told.try_iter().map(|told| told.to_string()).collect()
    }
}

/// The frames that a person pastes, or that a host sends which cannot hear.
fn broadcast(payload: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = Pieces::new(0, Kind::Plain, payload.to_vec(), Shape { chunk: 180, window: 1 }).unwrap();
    let mut frames = Vec::new();
    let mut index = 0;
    while let Some(frame) = pieces.next(0) {
        if matches!(frame, Frame::Data { .. }) {
            index += 1;
        }
        let mut bytes = Vec::new();
        Packet { from: Side::Host, session: None, frame }.encode(&mut bytes);
        frames.push(bytes);
        pieces.acknowledged(index, 0);
    }
    frames
}

#[test]
fn payloads_that_come_on_two_lines_at_once_are_one() {
    let mut steps = steps(2);
    for host in &mut steps.hosts {
        broadcast(b"payload").iter().for_each(|frame| host.write_all(frame).unwrap());
    }
    steps.listen();
    steps.worker.speak();
    let payloads: Vec<String> = steps.told().into_iter().filter(|told| told.contains("payload")).collect();
    assert_eq!(payloads, ["a payload came on line0, not sealed"]);
    assert_eq!(locked(&steps.shared).names, ["line0"]);
}

/// How a line changes a frame.
type Spoil = fn(&[u8]) -> Vec<u8>;

/// A terminal with 80 columns stands between the host and the node, and sends seven bits with parity. Both changes are
/// reported once, with the remedy.
#[test]
fn what_a_line_does_to_all_that_it_carries_is_told_once() {
    let wrapped: Spoil = |frame| {
        let lines: Vec<&[u8]> = frame.chunks(80).collect();
        lines.join(&b"\r\n"[..])
    };
    let even: Spoil = |frame| {
        let set = |byte: &u8| byte | if byte.count_ones() % 2 == 1 { 0x80 } else { 0 };
        frame.iter().map(set).collect()
    };
    let spoils: [(Spoil, &str); 2] = [
        (
            wrapped,
            "line0: something on the way breaks lines after 80 columns; broken frames are joined again, but set the ",
        ),
        (
            even,
            "line0: characters come with even parity in bit 7, which is cleared; set the other end and each console ",
        ),
    ];
    for (spoil, words) in spoils {
        let mut steps = steps(1);
        for frame in broadcast(&[b'p'; 400]) {
            steps.hosts[0].write_all(&spoil(&frame)).unwrap();
        }
        // A terminal hands on bytes in as many pieces as it likes.
        let (came, mut told) = ("a payload came on line0, not sealed".to_owned(), Vec::new());
        while !told.contains(&came) {
            steps.listen();
            steps.worker.speak();
            told.extend(steps.told());
        }
        assert_eq!(told.iter().filter(|told| told.starts_with(words)).count(), 1, "{told:?}");
    }
}

/// Nobody reads for a while: flow control with no cable, ^S, a busy proxy.
#[test]
fn a_line_that_takes_nothing_for_a_while_is_not_lost() {
    let mut steps = steps(1);
    let path = nix::unistd::ttyname(&steps.slaves[0]).unwrap();
    let mut full = std::fs::OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(path).unwrap();
    // The kernel moves bytes from one buffer to the next, so there is room again once or twice.
    let stalled = loop {
        while full.write(&[b'x'; 1000]).is_ok() {}
        steps.worker.lines[0].wire.end_mut().fire();
        steps.worker.speak();
        let told = steps.told();
        if !told.is_empty() {
            break told;
        }
    };
    assert!(
        matches!(stalled.as_slice(), [told] if told.ends_with(
        " takes no bytes any more; is anybody connected at the other end?")),
        "{stalled:?}"
    );
    // The stall is reported only once.
    steps.worker.lines[0].wire.end_mut().fire();
    steps.worker.speak();
    assert_eq!(steps.told(), Vec::<String>::new());
    // The host reads again, and later bytes arrive.
    let host = &mut steps.hosts[0];
    let mut buffer = [0; 4096];
    let readable = |host: &File, until| sys::poll(&mut [PollFd::new(host.as_fd(), PollFlags::POLLIN)], until).unwrap();
    while readable(host, Deadline::after(Duration::ZERO)) {
        assert!(host.read(&mut buffer).unwrap() > 0);
    }
    steps.worker.lines[0].wire.end_mut().fire();
    steps.worker.speak();
    assert!(readable(&steps.hosts[0], later()));
    let count = steps.hosts[0].read(&mut buffer).unwrap();
    assert!(buffer[..count].ends_with(b"\n"));
    assert_eq!(locked(&steps.shared).lines, 1);
}

#[test]
fn a_line_that_is_gone_ends_every_wait() {
    let (key, hello) = node();
    let (mut host, slave, port) = pair(0);
    let signals = Signals::catch().unwrap();
    let lines = vec![Line { pipe: port.into(), beacon: true, far: false }];
    let dialogue = Dialogue::start(signals, lines, key, hello, None, None, Path::new("/nowhere")).unwrap();
    let mut frame = Vec::new();
    Packet { from: Side::Host, session: None, frame: Frame::Call(Versions::OURS) }.encode(&mut frame);
    host.write_all(&frame).unwrap();
    let heard = dialogue.hear(later()).unwrap();
    assert_eq!(heard.to_string(), "a host speaks on line0");
    locked(&dialogue.shared).open = true;
    drop((host, slave));
    let for_ever = Deadline::after(Duration::MAX);
    assert!(matches!(dialogue.answer(for_ever), Err(NoAnswer::Lost(why)) if why.contains("broke")));
    assert!(dialogue.time(None, for_ever).is_none());
    assert!(dialogue.is_over() && !dialogue.is_open());
    assert_eq!(dialogue.names(), "line0");
    dialogue.report(Stage::Failed, Vec::new(), Duration::MAX, for_ever);
}

/// The host was there and is gone, or it goes on speaking and never acknowledges.
#[test]
fn a_report_that_nobody_answers_is_not_said_for_ever() {
    for speaks in [false, true] {
        let (key, hello) = node();
        let (mut host, _slave, port) = pair(0);
        let signals = Signals::catch().unwrap();
        let lines = vec![Line { pipe: port.into(), beacon: true, far: false }];
        let dialogue = Dialogue::start(signals, lines, key, hello, None, None, Path::new("/nowhere")).unwrap();
        locked(&dialogue.shared).open = true;
        let shared = Arc::clone(&dialogue.shared);
        let (silence, until) = match speaks {
            false => (Duration::from_millis(200), Deadline::after(Duration::MAX)),
            true => (Duration::MAX, Deadline::after(Duration::from_millis(500))),
        };
        let mut frame = Vec::new();
        Packet { from: Side::Host, session: None, frame: Frame::Call(Versions::OURS) }.encode(&mut frame);
        host.write_all(&frame).unwrap();
        dialogue.report(Stage::Done, b"{}".to_vec(), silence, until);
        assert!(!speaks || locked(&shared).heard.is_some());
    }
}

/// Behind the deadline the question about the time is taken back, also from lines that are made later.
#[test]
fn the_time_is_asked_for_until_the_deadline() {
    let Steps { mut worker, told, shared, _commands: commands, _held, .. } = steps(1);
    let event = || Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
    let (wake, came, hello) = (event(), event(), worker.hello.clone());
    let dialogue = Dialogue { commands, told, wake, came, hello, shared, thread: None, _held };
    assert_eq!(dialogue.time(None, Deadline::after(Duration::ZERO)), None);
    assert!(matches!(worker.orders.try_recv().map(|order| worker.obey(order)), Ok(())));
    assert!(worker.standing.asks && worker.lines[0].wire.end_mut().is_asking());
    assert!(matches!(worker.orders.try_recv().map(|order| worker.obey(order)), Ok(())));
    assert!(!worker.standing.asks && !worker.lines[0].wire.end_mut().is_asking());
}

#[test]
fn four_timestamps() {
    // 8 ms there and back, 2 of them at the host.
    let sent = now().saturating_sub(8000);
    let time = LineTime::answered(sent, sent + 8000, 1_800_000_000_000_000, 2000).unwrap();
    assert_eq!(time.bound(), Duration::from_millis(4));
    let time = time.within(Timestamp::from_secs(0), Timestamp::MAX).unwrap();
    let off = time.clock().now().since(Timestamp::from_millis(1_800_000_000_005).unwrap());
    let passed = Duration::from_micros(now() - sent);
    assert!(off <= passed, "{off:?} after {passed:?}");
    assert_eq!(LineTime::answered(10, 5, 0, 0), None);
    assert_eq!(LineTime::answered(0, 5, u64::MAX, 2), None);
}
