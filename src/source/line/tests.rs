use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags};
use nix::pty::openpty;

use super::super::Surroundings;
use super::*;
use crate::line::Kind;
use crate::line::Side;
use crate::line::frame::{Frame, Packet};
use crate::line::transfer::{Sender, Shape};

/// A root without drives.
fn around(root: &Path) -> Surroundings<'_> {
    Surroundings { root, reader: Path::new("/nowhere"), pinned: false, credentials: None }
}

/// An image without a pin, and one with this pin.
fn nobody() -> (Option<&'static SitePin>, Fits) {
    by(None)
}

fn by(pin: Option<&SitePin>) -> (Option<&SitePin>, Fits) {
    (pin, Box::new(|_, _| Ok(())))
}

fn for_nobody(dialogue: &Dialogue) -> Waiting<'_> {
    Waiting::new(dialogue, &Options::parse("").unwrap(), true)
}

/// A line that is a pseudo terminal, the host's end of it, and what keeps it open.
fn line(until: Deadline) -> (Dialogue, File, OwnedFd) {
    let pair = openpty(None, None).unwrap();
    let path = nix::unistd::ttyname(&pair.slave).unwrap();
    let name = "line".to_owned();
    let place = Place { name, path, baud: None, set: true, console: false, virtio: false, keys: false };
    let mut port = Port::open(place).unwrap().unwrap();
    port.prepare().unwrap();
    let lines = vec![Line { pipe: port.into(), beacon: false, far: false }];
    let seeded = Seeded::ready(until).unwrap();
    let dialogue = start(
        Signals::catch().unwrap(),
        lines,
        &seeded,
        Takes { plain: true, pin: None, judge: None },
        None,
        Path::new("/nowhere"),
        until,
    );
    (dialogue.unwrap(), File::from(pair.master), pair.slave)
}

/// The search waits for drives meanwhile. The person at the console must not have to wait for the report of the
/// host.
#[test]
fn what_a_host_says_is_shown_before_its_payload_comes() {
    let later = Deadline::after(Duration::from_secs(30));
    let (dialogue, mut host, _slave) = line(later);
    let mut say = |frame| {
        let mut bytes = Vec::new();
        Packet { from: Side::Host, session: None, frame }.encode(&mut bytes);
        host.write_all(&bytes).unwrap();
    };
    say(Frame::Call(Versions { lowest: 7, highest: 8 }));
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("sys/block")).unwrap();
    let mut told = Vec::new();
    // The host sends its payload only after its report was shown.
    let mut notice = |notice: Notice<'_>| {
        if let Notice::Line(line) = notice {
            told.push(line.to_string());
            if matches!(line, Told::Foreign(_)) {
                let mut pieces = Sender::new(0, Kind::Plain, vec![7; 100], Shape::default()).unwrap();
                while let Some(frame) = pieces.next(0) {
                    say(frame);
                }
            }
        }
    };
    let options = Options::parse("imprint=require").unwrap();
    let found = super::super::find(&options, &around(root.path()), None, Some(&dialogue), later, &mut notice);
    assert!(found.unwrap().unwrap().bytes.expose() == [7; 100]);
    assert!(
        matches!(&told[..], [heard, foreign, ..] if heard.starts_with("a host speaks") && foreign.contains("7 to 8"))
    );
}

/// A slow transfer takes longer than the patience. The node must not give up while pieces still arrive.
#[test]
fn a_host_that_goes_on_is_heard_to_the_end() {
    let later = Deadline::after(Duration::from_secs(60));
    let (dialogue, mut host, _slave) = line(later);
    let payload = vec![7; 4000];
    let sent = payload.clone();
    let thread = std::thread::spawn(move || {
        let mut pieces = Sender::new(0, Kind::Plain, sent, Shape { chunk: 180, window: 1 }).unwrap();
        let mut next = 0;
        while let Some(frame) = pieces.next(0) {
            next += u16::from(matches!(frame, Frame::Data { .. }));
            let mut bytes = Vec::new();
            Packet { from: Side::Host, session: None, frame }.encode(&mut bytes);
            host.write_all(&bytes).unwrap();
            pieces.acknowledged(next, 0);
            // The pace of a slow line: POLLPRI never comes, so poll waits for the whole time.
            let pace = Deadline::after(Duration::from_millis(150));
            sys::poll(&mut [PollFd::new(host.as_fd(), PollFlags::POLLPRI)], pace).unwrap();
        }
        host
    });
    let mut told = Vec::new();
    let mut notice = |notice: Notice<'_>| match notice {
        Notice::Line(line) => told.push(line.to_string()),
        Notice::Waiting(_) | Notice::Admission(_) | Notice::Drive(_) | Notice::Left(_) => {}
    };
    let patience = Duration::from_millis(1500);
    let found = hear(&for_nobody(&dialogue), later, Some(patience), later, Heard::default(), &mut notice).unwrap();
    assert!(found.bytes.expose() == payload);
    assert_eq!(told.first().map(String::as_str), Some("a host speaks on line"));
    thread.join().unwrap();
}

/// A pseudoterminal with a link to it in `/dev`.
fn named_line(root: &Path, name: &str) -> nix::pty::OpenptyResult {
    let pair = openpty(None, None).unwrap();
    std::fs::create_dir_all(root.join("dev")).unwrap();
    std::os::unix::fs::symlink(nix::unistd::ttyname(&pair.slave).unwrap(), root.join("dev").join(name)).unwrap();
    pair
}

/// A USB adapter appears after a second, and later if its module is loaded late. The search once ended at once with
/// `no payload found ()`.
#[test]
fn a_named_line_that_is_not_there_yet_is_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let later = Deadline::after(Duration::from_secs(60));
    let _there = named_line(root.path(), "early");
    let options = Options::parse("imprint.source=serial:early imprint.source=serial:late").unwrap();
    let dialogue = listen(&options, (root.path(), ""), nobody(), None, false, later).unwrap().unwrap();
    assert_eq!((dialogue.names().as_str(), dialogue.missing()), ("early", vec!["late".to_owned()]));
    assert_eq!(
        lines_so_far(&dialogue, "listening on", "is not there yet", false),
        "listening on early; late is not there yet"
    );
    let _late = named_line(root.path(), "late");
    // Like a uevent, this makes the dialogue look for the missing lines again.
    dialogue.stage(crate::line::Stage::Payload);
    let Some(Told::Came { line }) = dialogue.hear(later) else { panic!("it did not come") };
    assert_eq!((line.as_str(), dialogue.names().as_str()), ("late", "early, late"));
    assert!(dialogue.missing().is_empty());
}

#[test]
fn a_line_that_never_comes_is_named() {
    let root = tempfile::tempdir().unwrap();
    let at_once = Deadline::after(Duration::ZERO);
    let mut told = Vec::new();
    for (words, want) in [
        (
            "imprint.source=serial:ttyUSB0,9600",
            "no payload found (ttyUSB0 did not appear; is its driver in the image, and its name right?); bring one \
             where imprint.source= says: the serial line ttyUSB0 (imprint-host inject NODE --line LINE); or boot \
             with imprint=auto to go on without",
        ),
        (
            "imprint.source=virtio",
            "no payload found (the virtio port imprint.0 did not appear; is its driver in the image, and its name \
             right?); bring one where imprint.source= says: the virtio port imprint.0 (imprint-host inject NODE --line \
             unix:PATH); or boot with imprint=auto to go on without",
        ),
    ] {
        let options = Options::parse(words).unwrap();
        let dialogue = listen(&options, (root.path(), ""), nobody(), None, false, at_once).unwrap();
        let mut notice = |notice: Notice<'_>| {
            if let Notice::Waiting(looked) = notice {
                told.push(looked.to_owned());
            }
        };
        let around = around(root.path());
        let found = super::super::find(&options, &around, None, dialogue.as_ref(), at_once, &mut notice);
        assert_eq!(found.unwrap_err().to_string(), want);
    }
    assert_eq!(told, ["ttyUSB0 is not there yet", "the virtio port imprint.0 is not there yet"]);
}

/// Whoever owns the network could have the node take any payload. So nothing is sent, and no link is brought up.
#[test]
fn a_line_of_a_network_needs_a_signer() {
    let root = tempfile::tempdir().unwrap();
    let later = Deadline::after(Duration::from_secs(60));
    let cas = SitePin { cas: vec![[1; 32]], ..SitePin::default() };
    for source in ["tcp:192.0.2.1:8444", "door", "vsock:7", "ether", "ether:eth7"] {
        let options = Options::parse(&format!("imprint.source={source} imprint.source=virtio")).unwrap();
        for pin in [None, Some(&cas)] {
            let Err(error) = listen(&options, (root.path(), ""), by(pin), None, false, later) else {
                panic!("{source}")
            };
            assert_eq!(
                error.to_string(),
                format!(
                    "imprint.source={source} leads to a network, where anybody can answer, so its payloads have to be \
                     signed, and the site pin of this image names no signer; put the line that imprint-host signer \
                     prints into /imprint/site"
                )
            );
        }
    }
    // A medium before it in the order: the line is not needed, and no error.
    let options = Options::parse("imprint.source=cmdline imprint.payload=oQEB imprint.source=ether:eth7").unwrap();
    let present = super::super::at_once(&options, &around(root.path()));
    assert!(present.is_some());
    assert!(listen(&options, (root.path(), ""), nobody(), present.as_ref(), false, later).unwrap().is_none());
}

/// The end of a search names each place that was called at, and what happened there.
#[test]
fn a_search_that_called_names_each_place() {
    let root = tempfile::tempdir().unwrap();
    let pin = SitePin::parse(include_bytes!("../../../tests/data/site-signers")).unwrap();
    let options = Options::parse("imprint.source=ether:nowhere7").unwrap();
    let later = Deadline::after(Duration::from_secs(60));
    let dialogue = listen(&options, (root.path(), ""), by(Some(&pin)), None, false, later).unwrap().unwrap();
    let told = dialogue.hear(later).unwrap().to_string();
    let missing = "there is no such link; is its driver in the image, and its name right?";
    assert_eq!(told, format!("ether:nowhere7: {missing}"));
    let (mut words, at_once) = (Vec::new(), Deadline::after(Duration::ZERO));
    let mut notice = |notice: Notice<'_>| {
        if let Notice::Waiting(looked) = notice {
            words.push(looked.to_owned());
        }
    };
    let around = around(root.path());
    let found = super::super::find(&options, &around, None, Some(&dialogue), at_once, &mut notice);
    assert_eq!(
        found.unwrap_err().to_string(),
        format!(
            "no payload found (ether:nowhere7: {missing}); bring one where imprint.source= says: a door next to this \
             machine (imprint-host serve --door ether:LINK); or boot with imprint=auto to go on without"
        )
    );
    assert_eq!(words, ["calling ether:nowhere7"]);
}

/// A domain names sixteen doors, and nobody listens at any of them: one line that a person can read.
#[test]
fn the_same_at_many_places_is_said_once() {
    let tried =
        |count: u16, words: &str| (0..count).map(|n| (format!("tcp:192.0.2.1:{n}"), words.to_owned())).collect();
    let [one, two, three, many]: [Vec<(String, String)>; 4] = [1, 2, 3, 16].map(|count| tried(count, "no answer"));
    assert_eq!(happened(&one), ["tcp:192.0.2.1:0: no answer"]);
    assert_eq!(happened(&two), ["tcp:192.0.2.1:0 and tcp:192.0.2.1:1: no answer"]);
    assert_eq!(happened(&three), ["tcp:192.0.2.1:0, tcp:192.0.2.1:1 and tcp:192.0.2.1:2: no answer"]);
    let other = ("ether".to_owned(), "no payload came".to_owned());
    let all: Vec<(String, String)> = many.into_iter().chain([other]).collect();
    assert_eq!(
        happened(&all),
        ["tcp:192.0.2.1:0, tcp:192.0.2.1:1, tcp:192.0.2.1:2 and 13 more: no answer", "ether: no payload came",]
    );
    assert!(happened(&[]).is_empty());
}

/// `imprint=auto` beside a door: the boot goes on without one, and not before the network, DNS and the door have had their time.
#[test]
fn a_boot_with_auto_waits_for_a_door_as_long_as_the_page_says() {
    let (begun, now) = (Duration::from_secs(7), since_boot());
    assert_eq!(first_word(true, true, begun), None);
    assert_eq!(first_word(true, false, begun), None);
    assert_eq!(first_word(false, false, begun), Some(begun + AUTO));
    // From the moment when nothing but the lines is left.
    assert!(first_word(false, true, begun).unwrap() >= now + FAR);
    for (words, far, insists) in [
        ("imprint=auto imprint.source=door", true, false),
        ("imprint=auto imprint.source=tcp:192.0.2.1:8444", true, false),
        ("imprint=auto imprint.source=vsock", true, false),
        ("imprint=auto imprint.source=ether", true, false),
        ("imprint=auto imprint.source=virtio", false, false),
        ("imprint.source=door", true, true),
    ] {
        let options = Options::parse(words).unwrap();
        let is_far = options.sources.iter().any(SourceName::is_far);
        assert_eq!((is_far, options.insists()), (far, insists), "{words}");
    }
    let page = include_str!("../../../docs/cmdline.md");
    let row = page.lines().find(|line| line.starts_with("| a door, ")).expect("a row about doors");
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    assert!(cells[2].starts_with(&format!("{} s ", FAR.as_secs())), "{row}");
    assert_eq!(cells[3], "until `imprint.timeout`");
}

/// Nobody answers at a door that was named: the boot goes on, and what is said names the place.
#[test]
fn a_boot_with_auto_goes_on_without_a_door() {
    let root = tempfile::tempdir().unwrap();
    let pin = SitePin::parse(include_bytes!("../../../tests/data/site-signers")).unwrap();
    let options = Options::parse("imprint=auto imprint.source=ether:nowhere7").unwrap();
    let later = Deadline::after(Duration::from_secs(60));
    let dialogue = listen(&options, (root.path(), ""), by(Some(&pin)), None, false, later).unwrap().unwrap();
    dialogue.hear(later).expect("the link is missing");
    let at_once = Deadline::after(Duration::ZERO);
    let found = super::super::find(&options, &around(root.path()), None, Some(&dialogue), at_once, &mut |_| {});
    assert_eq!(
        found.unwrap().unwrap_err(),
        "ether:nowhere7: there is no such link; is its driver in the image, and its name right?"
    );
}

/// For every combination of sources, the message names what was searched.
#[test]
fn no_search_ends_without_a_word() {
    let root = tempfile::tempdir().unwrap();
    let at_once = Deadline::after(Duration::ZERO);
    let sources = [
        "cmdline",
        "file",
        "credential",
        "partition",
        "efivar",
        "root-file",
        "config-drive",
        "config-drive:LAB",
        "virtio",
        "serial:ttyS9",
        "serial:hvc7",
    ];
    let named = |names: &[&str]| names.iter().map(|name| format!("imprint.source={name} ")).collect::<String>();
    let mut lines = vec!["imprint=require".to_owned()];
    for one in sources {
        lines.push(named(&[one]));
        lines.extend(sources.iter().map(|other| format!("imprint=require {}", named(&[one, other]))));
    }
    for words in lines {
        let options = Options::parse(&words).unwrap();
        let dialogue = listen(&options, (root.path(), ""), nobody(), None, false, at_once).unwrap();
        let mut notice = |notice: Notice<'_>| {
            if let Notice::Waiting(looked) = notice {
                assert!(!looked.trim().is_empty(), "{words}");
            }
        };
        let around = around(root.path());
        let found = super::super::find(&options, &around, None, dialogue.as_ref(), at_once, &mut notice);
        let error = found.unwrap_err().to_string();
        assert!(error.starts_with("no payload found ("), "{words}: {error}");
        let (looked, _) = error.trim_start_matches("no payload found (").split_once("); ").unwrap();
        assert!(looked.split("; ").all(|part| !part.trim().is_empty()), "{words}: {error}");
    }
}

/// `imprint=auto` beside the name: nothing is said on the line before a host speaks, also on a line that appears late, and a
/// boot without a host goes on.
#[test]
fn a_line_that_is_named_with_auto_is_listened_to_and_not_insisted_on() {
    for (auto, beacons) in [("", true), ("imprint=auto ", false)] {
        let root = tempfile::tempdir().unwrap();
        let later = Deadline::after(Duration::from_secs(60));
        let words = format!("{auto}imprint.source=serial:early imprint.source=serial:late");
        let early = named_line(root.path(), "early");
        let options = Options::parse(&words).unwrap();
        let dialogue = listen(&options, (root.path(), ""), nobody(), None, true, later).unwrap().unwrap();
        let late = named_line(root.path(), "late");
        // Like a uevent, this makes the dialogue look for the missing lines again.
        dialogue.stage(crate::line::Stage::Payload);
        let Some(Told::Came { .. }) = dialogue.hear(later) else { panic!("it did not come") };
        if beacons {
            for line in [&early, &late] {
                let mut ready = [PollFd::new(line.master.as_fd(), PollFlags::POLLIN)];
                assert!(sys::poll(&mut ready, later).unwrap(), "no HELLO");
            }
            continue;
        }
        let found = super::super::find(&options, &around(root.path()), None, Some(&dialogue), later, &mut |_| {});
        assert_eq!(found.unwrap().unwrap_err(), "no host spoke on early, late");
        for line in [&early, &late] {
            let mut ready = [PollFd::new(line.master.as_fd(), PollFlags::POLLIN)];
            assert!(!sys::poll(&mut ready, Deadline::after(Duration::ZERO)).unwrap(), "a HELLO");
        }
    }
}

/// A door at a socket that has the node wait, and gives it the payload when it is told to.
fn keeps_waiting(path: &Path, admit: std::sync::mpsc::Receiver<()>) -> std::thread::JoinHandle<()> {
    use crate::line::{End, Host, HostEvent, Nonce, Wire, seal};
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut wire = Wire::new(Host::new(Nonce([3; 8]), true, Shape::default()), None);
        let (mut waits, mut given) = (false, false);
        loop {
            let polled = wire.poll(u64::try_from(since_boot().as_micros()).unwrap());
            if stream.write_all(&polled.bytes).is_err() {
                return;
            }
            if polled.events.contains(&HostEvent::Challenged) && !waits {
                waits = true;
                wire.end_mut().send(Kind::Pending, b"somebody has to decide".to_vec());
                continue;
            }
            if waits && !given && admit.try_recv().is_ok() {
                let end = wire.end();
                let (hello, session) = (end.node().cloned().unwrap(), end.session().unwrap());
                let (challenge, _) = end.challenge().unwrap();
                let object = crate::secret::Secret::new([&challenge.0[..], b"good"].concat());
                let number = end.next_number();
                let sealed = seal::seal(&object, &hello, session, Kind::Fresh, number).unwrap();
                wire.end_mut().send(Kind::Fresh, sealed);
                given = true;
                continue;
            }
            let moment = Deadline::after(Duration::from_millis(20));
            if sys::poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], moment).unwrap() {
                let mut buffer = [0; 4096];
                match std::io::Read::read(&mut stream, &mut buffer) {
                    Ok(0) | Err(_) => return,
                    Ok(count) => {
                        wire.push(&buffer[..count], u64::try_from(since_boot().as_micros()).unwrap());
                    }
                }
            }
        }
    })
}

/// A node that calls at this socket and takes the payload `good`.
fn calls_at(path: &Path, later: Deadline) -> Dialogue {
    let key = LineKey::generate(&Seeded::ready(later).unwrap()).unwrap();
    let hello = Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh: true,
        nonce: Nonce([7; 8]),
        key: key.public(),
        uuid: None,
        serial: None,
        macs: Vec::new(),
    };
    let judge: Judge = Box::new(|bytes, _| (bytes.expose() == b"good").then_some(()).ok_or_else(String::new));
    let signals = Signals::catch().unwrap();
    let dialogue = Dialogue::start(signals, Vec::new(), key, hello, Some(judge), None, Path::new("/nowhere")).unwrap();
    dialogue.call(vec![Target::Unix(path.to_owned())]);
    while !matches!(dialogue.hear(later).expect("the door has it wait"), Told::Waits { pending: true, .. }) {}
    dialogue
}

/// The accident: an approval takes longer than `imprint.timeout`. The search goes on, whether a payload has to come or not, beside
/// drives as well; and the payload is used when it comes.
#[test]
fn a_search_goes_on_for_an_administrator() {
    for words in [
        "imprint.source=vsock",
        "imprint=auto imprint.source=vsock",
        "imprint.source=config-drive imprint.source=vsock",
        "imprint.source=vsock imprint.approval-timeout=86400",
    ] {
        let (root, later) = (tempfile::tempdir().unwrap(), Deadline::after(Duration::from_secs(120)));
        std::fs::create_dir_all(root.path().join("sys/block")).unwrap();
        let path = root.path().join("door");
        let (admit, admitted) = std::sync::mpsc::channel();
        let door = keeps_waiting(&path, admitted);
        let dialogue = calls_at(&path, later);
        let code = dialogue.code();
        let mut told = Vec::new();
        let mut notice = |notice: Notice<'_>| {
            if let Notice::Admission(words) = notice {
                told.push(words.to_owned());
                // Only a search that still goes on is given the payload.
                admit.send(()).unwrap();
            }
        };
        let (options, at_once) = (Options::parse(words).unwrap(), Deadline::after(Duration::ZERO));
        let waiting = Waiting::new(&dialogue, &options, true);
        let found = if words.contains("config-drive") {
            super::super::find(&options, &around(root.path()), None, Some(&dialogue), at_once, &mut notice).unwrap()
        } else {
            let heard = Heard::default();
            hear(&waiting, at_once, (!options.insists()).then_some(SPOKEN), at_once, heard, &mut notice)
        };
        assert_eq!(found.unwrap().bytes.expose(), b"good", "{words}");
        let want = format!(
            "no payload yet; a host has let this node wait for 0 min: an administrator has to admit this node: where imprint-host \
             nodes shows line key {code}, run imprint-host admit {code}; it says, and nothing proves it: somebody has to decide"
        );
        assert_eq!(told, [want], "{words}");
        drop(dialogue);
        door.join().unwrap();
    }
}

/// Attack: somebody at an address says for ever that the node waits. A medium that is there is used; and what an administrator may
/// take has its limit. The error then says what was awaited.
#[test]
fn a_host_that_has_the_node_wait_holds_up_no_medium_and_has_a_limit() {
    let (root, later) = (tempfile::tempdir().unwrap(), Deadline::after(Duration::from_secs(120)));
    let path = root.path().join("door");
    let (_admit, admitted) = std::sync::mpsc::channel();
    let door = keeps_waiting(&path, admitted);
    let dialogue = calls_at(&path, later);
    let code = dialogue.code();
    let at_once = Deadline::after(Duration::ZERO);
    let options = Options::parse("imprint.source=vsock imprint.source=cmdline imprint.payload=oQEB").unwrap();
    let present = super::super::at_once(&options, &around(root.path()));
    let found = super::super::find(&options, &around(root.path()), present, Some(&dialogue), at_once, &mut |_| {});
    assert!(matches!(found.unwrap().unwrap().origin, Origin::Medium { .. }));
    // The limit of one second is over at some time.
    let options = Options::parse("imprint.source=vsock imprint.approval-timeout=1").unwrap();
    let found = super::super::find(&options, &around(root.path()), None, Some(&dialogue), at_once, &mut |_| {});
    let error = found.unwrap_err().to_string();
    let admission = format!(
        "unix:{}: an administrator has to admit this node: where imprint-host nodes shows line key {code}, run imprint-host admit \
         {code}; ",
        path.display()
    );
    assert!(error.contains(&admission), "{error}");
    drop(dialogue);
    door.join().unwrap();
}
