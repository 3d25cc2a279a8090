use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::LocalFlags;

use super::*;
use crate::setting::Settings;

/// Two consoles, their other ends, and their settings before.
struct Room {
    ptys: Vec<Option<OpenptyResult>>,
    before: Vec<sys::Terminal>,
    seen: Vec<String>,
    root: tempfile::TempDir,
}

fn place(number: usize, slave: &OwnedFd) -> Place {
    let path = nix::unistd::ttyname(slave).unwrap();
    Place { name: format!("ttyS{number}"), path, baud: None, set: false, console: true, virtio: false, keys: false }
}

impl Room {
    fn new() -> Room {
        let ptys: Vec<_> = (0..2).map(|_| Some(openpty(None, None).unwrap())).collect();
        let before = ptys.iter().flatten().map(|pty| sys::terminal(&pty.slave).unwrap()).collect();
        Room { ptys, before, seen: vec![String::new(); 2], root: tempfile::tempdir().unwrap() }
    }

    fn pty(&self, number: usize) -> &OpenptyResult {
        self.ptys[number].as_ref().unwrap()
    }

    /// Begins to ask on both.
    fn asks(
        &self,
        limit: Option<Duration>,
        every: Duration,
        instead: Option<u8>,
    ) -> JoinHandle<Result<Answer<u8>, SetupError>> {
        let places: Vec<Place> =
            self.ptys.iter().flatten().enumerate().map(|(number, pty)| place(number, &pty.slave)).collect();
        let defaults = Settings::from_words([("hostname", "node1")].into_iter()).unwrap();
        let start = Start { node: "node1".to_owned(), links: Vec::new(), defaults, salt: [0; 16], may_quit: true };
        let root = self.root.path().to_owned();
        std::thread::spawn(move || ask(&root, places, start, Limits { limit, every }, &mut || instead))
    }

    fn types(&self, number: usize, bytes: &[u8]) {
        File::from(self.pty(number).master.try_clone().unwrap()).write_all(bytes).unwrap();
    }

    /// What this console shows up to these words.
    fn shows(&mut self, number: usize, words: &str) -> String {
        let mut master = File::from(self.pty(number).master.try_clone().unwrap());
        let until = Deadline::after(Duration::from_secs(120));
        let mut buffer = [0; 512];
        loop {
            if let Some((before, after)) = self.seen[number].split_once(words) {
                let (before, after) = (before.to_owned(), after.to_owned());
                self.seen[number] = after;
                return before;
            }
            let mut fds = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
            assert!(sys::poll(&mut fds, until).unwrap(), "no {words:?} in {:?}", self.seen[number]);
            let count = master.read(&mut buffer).unwrap();
            self.seen[number] += std::str::from_utf8(&buffer[..count]).unwrap();
        }
    }

    fn is_given_back(&self) {
        for (pty, before) in self.ptys.iter().zip(&self.before) {
            if let Some(pty) = pty {
                assert_eq!(sys::terminal(&pty.slave).unwrap(), *before);
            }
        }
    }
}

const SOON: Duration = Duration::from_secs(3600);

#[test]
fn whoever_types_first_has_it_and_a_letter_takes_it_over() {
    let mut room = Room::new();
    let asked = room.asks(None, SOON, None);
    for number in 0..2 {
        assert!(room.shows(number, "host name [node1]: ").contains("imprint: settings of node1."));
        let raw = nix::sys::termios::tcgetattr(&room.pty(number).slave).unwrap();
        assert!(!raw.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG));
    }
    room.types(1, b"node2");
    room.shows(1, "node2");
    room.shows(0, "imprint: the answers are typed at ttyS1; type a letter here to take over");
    // A line end alone does not: terminal servers and modems send some.
    room.types(0, b"\r\n\r");
    room.types(1, b"\r");
    room.shows(1, "name servers [-]: ");
    room.types(0, b"z");
    // What takes over answers nothing.
    assert!(!room.shows(0, "name servers [-]: ").contains('z'));
    room.shows(1, "imprint: the answers are typed at ttyS0; type a letter here to take over");
    room.types(0, b"192.0.2.53\r\r\r\r\r\r\r\r\ryes\r");
    let Ok(Answer::End(End::Settings(settings))) = asked.join().unwrap() else { panic!("no settings") };
    let want = [("hostname", "node2"), ("dns", "192.0.2.53")];
    assert_eq!(*settings, Settings::from_words(want.into_iter()).unwrap());
    room.shows(0, "imprint: done");
    room.shows(1, "imprint: done");
    room.is_given_back();
}

/// Accident: a line that is looped, or whose peer echoes, answers the questions with their own words.
#[test]
fn a_line_that_sends_back_what_it_gets_answers_nothing() {
    let mut room = Room::new();
    let asked = room.asks(None, SOON, None);
    let greeting = room.shows(0, "host name [node1]: ");
    // As a slow line brings it: the beginning has the dialogue before it is known.
    // Its line ends take the default of the first question before that.
    room.types(0, b"\r");
    room.shows(0, "host name [node1]: ");
    room.types(0, b"\r");
    room.shows(0, "name servers [-]: ");
    for byte in greeting.bytes() {
        room.types(0, &[byte]);
    }
    room.shows(0, "imprint: this line sends back what it gets, so nothing that it sends is an answer");
    room.types(0, b"looped\r");
    room.shows(1, "host name [node1]: ");
    room.types(1, b"\r");
    room.shows(1, "host name [node1]: ");
    room.types(1, b"\r\r\r\r\r\r\r\r\r\ryes\r");
    let Ok(Answer::End(End::Settings(settings))) = asked.join().unwrap() else { panic!("no settings") };
    assert_eq!(*settings, Settings::from_words([("hostname", "node1")].into_iter()).unwrap());
    room.shows(1, "imprint: done");
    room.is_given_back();
}

/// Accident: the program's own line pushes the question away, and Enter answers what nobody sees.
#[test]
fn a_line_of_the_program_has_the_question_shown_again() {
    let mut room = Room::new();
    let asked = room.asks(None, SOON, None);
    room.shows(1, "host name [node1]: ");
    room.types(1, b"node2");
    room.shows(1, "node2");
    console::say("a lease was renewed");
    room.types(1, b"\r");
    room.shows(1, "host name [node1]: node2");
    room.types(1, b"\r");
    room.shows(1, "name servers [-]: ");
    room.types(1, b"\r\r\r\r\r\r\r\r\ryes\r");
    assert!(matches!(asked.join().unwrap(), Ok(Answer::End(End::Settings(_)))));
    room.is_given_back();
}

/// The other end of a console is gone in the middle of an answer. The answers stay, and another console has them.
#[test]
fn a_console_that_goes_away_takes_no_answer_with_it() {
    let mut room = Room::new();
    let asked = room.asks(None, SOON, None);
    room.shows(0, "host name [node1]: ");
    room.shows(1, "host name [node1]: ");
    room.types(0, b"node2\r");
    room.shows(0, "name servers [-]: ");
    room.types(0, b"192.0.2");
    room.shows(0, "192.0.2");
    room.ptys[0] = None;
    room.shows(1, "imprint: ttyS0 is gone; Enter goes on here");
    room.types(1, b"\r");
    room.shows(1, "name servers [-]: 192.0.2");
    room.types(1, b".53\r\r\r\r\r\r\r\r\ryes\r");
    let Ok(Answer::End(End::Settings(settings))) = asked.join().unwrap() else { panic!("no settings") };
    assert_eq!((settings.hostname.unwrap().as_str(), settings.dns.len()), ("node2", 1));
    room.is_given_back();
}

#[test]
fn a_bundle_that_an_administrator_made_meanwhile_ends_it() {
    let mut room = Room::new();
    let asked = room.asks(None, Duration::ZERO, Some(7));
    room.shows(0, "imprint: no answers are needed any more");
    assert!(matches!(asked.join().unwrap(), Ok(Answer::Instead(7))));
    room.is_given_back();
}

#[test]
fn the_wait_has_a_limit() {
    let mut room = Room::new();
    let asked = room.asks(Some(Duration::ZERO), SOON, None);
    room.shows(1, "imprint: the time for answers is over");
    assert!(matches!(asked.join().unwrap(), Err(SetupError::Unanswered(Duration::ZERO))));
    room.is_given_back();
}

/// A machine without any console waits for the administrator.
#[test]
fn without_a_console_only_the_server_can_end_it() {
    let root = tempfile::tempdir().unwrap();
    let start =
        Start { node: String::new(), links: vec![], defaults: Settings::default(), salt: [0; 16], may_quit: false };
    let mut asked = 0;
    let answer = ask(root.path(), vec![], start, Limits { limit: None, every: Duration::ZERO }, &mut || {
        asked += 1;
        (asked == 3).then_some(7)
    });
    assert!(matches!(answer, Ok(Answer::Instead(7))) && asked == 3);
    let text = "sys/class/tty/console/active";
    std::fs::create_dir_all(root.path().join("sys/class/tty/console")).unwrap();
    std::fs::write(root.path().join(text), "tty0 ttyS0 ttyS1\n").unwrap();
    let names = |but| places(root.path(), "", but).into_iter().map(|place| place.name).collect::<Vec<_>>();
    assert_eq!(
        (names(None), names(Some("ttyS1"))),
        (vec!["ttyS0".into(), "ttyS1".into(), "tty0".into()], vec!["ttyS0".to_owned(), "tty0".into()])
    );
}

/// kmsg's records begin with the priority: facility and level.
#[test]
fn a_message_that_the_console_shows_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    for folder in ["dev", "proc/sys/kernel"] {
        std::fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    std::fs::write(root.path().join("dev/kmsg"), "").unwrap();
    std::fs::write(root.path().join("proc/sys/kernel/printk"), "4\t4\t1\t7\n").unwrap();
    let mut log = Log::open(root.path()).unwrap();
    let mut say = |record: &str| {
        std::fs::OpenOptions::new()
            .append(true)
            .open(root.path().join("dev/kmsg"))
            .unwrap()
            .write_all(record.as_bytes())
            .unwrap();
        log.was_shown()
    };
    assert!(!say("6,339,5140900,-;NET: Registered protocol family 10\n"));
    assert!(say("27,340,5690716,-;udevd: error\n"), "facility 3, level 3");
    assert!(!say("30,340,5690716,-;udevd: info\n") && !say(""));
}
