use proptest::strategy::Strategy;

use super::*;

/// ssh-keygen -t ed25519 -C "admin@example.org"
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFAtZ6yPj3vajxy7pdD/LTsFJftGYOcaGw54qGXwxjv2 admin@example.org";

fn port(name: &str, last: u8, words: &str, carrier: bool) -> Port {
    let mac = HardwareAddress::new(&[0x52, 0x54, 0, 0, 0, last]);
    Port { name: InterfaceName::try_from(name).unwrap(), mac, words: words.to_owned(), carrier }
}

fn start() -> Start {
    let defaults = Settings::from_words([("hostname", "node1")].into_iter()).unwrap();
    let links = vec![port("eno1", 1, "ixgbe, 10000 Mb/s", true), port("eno2", 2, "ixgbe, no carrier", false)];
    Start { node: "node1".to_owned(), links, defaults, salt: [7; 16], may_quit: false }
}

/// A dialogue, what its terminal has shown, and how it ended.
struct Terminal {
    script: Script,
    shown: Vec<u8>,
    end: Option<End>,
}

impl Terminal {
    fn new(start: Start) -> Terminal {
        let script = Script::new(start);
        let mut shown = Vec::new();
        script.greet(&mut shown);
        Terminal { script, shown, end: None }
    }

    /// What is shown after these bytes.
    fn types(&mut self, bytes: &[u8]) -> String {
        assert!(self.end.is_none(), "it has ended");
        let mut out = Vec::new();
        self.end = self.script.typed(bytes, &mut out);
        self.shown.extend_from_slice(&out);
        String::from_utf8(out).unwrap()
    }

    fn lines(&mut self, lines: &[&str]) -> String {
        lines.iter().map(|line| self.types(format!("{line}\r").as_bytes())).collect()
    }

    fn settings(self) -> Settings {
        match self.end {
            Some(End::Settings(settings)) => *settings,
            other => panic!("{other:?} after {}", String::from_utf8_lossy(&self.shown)),
        }
    }
}

/// Enters to the last screen: host name, two links, 8 more, and the password.
const ALL: usize = 12;

fn skip(terminal: &mut Terminal, count: usize) -> String {
    (0..count).map(|_| terminal.types(b"\r")).collect()
}

#[test]
fn enter_takes_every_default() {
    let mut terminal = Terminal::new(start());
    let last = skip(&mut terminal, ALL);
    assert!(last.ends_with(" 1 host name node1\r\n 2 eno1 dhcp4,slaac\r\n 3 eno2 -\r\n 4 name servers -\r\n 5 search domains -\r\n 6 NTP \
                            servers -\r\n 7 time zone -\r\n 8 SSH key -\r\n 9 syslog server -\r\n10 engine -\r\n11 storage -\r\n12 \
                            root password -\r\nnumber to change, yes to go on: "), "{last}");
    terminal.types(b"yes\r");
    let want = [("hostname", "node1"), ("link", "52:54:00:00:00:01,dhcp4,slaac")];
    assert_eq!(terminal.settings(), Settings::from_words(want.into_iter()).unwrap());
}

const TYPICAL: [&str; 13] = [
    "web7.example.org",
    "192.0.2.10/24 2001:db8::10/64 via=192.0.2.1",
    "dhcp4",
    "192.0.2.53 2001:db8::53",
    "example.org",
    "ntp1.example.org, ntp2.example.org",
    "Europe/Berlin",
    KEY,
    "",
    "tcp:log.example.org:6514",
    "engine.example.org",
    "",
    "",
];

#[test]
fn every_answer_arrives() {
    let mut terminal = Terminal::new(start());
    terminal.lines(&TYPICAL[..12]);
    terminal.lines(&["correct horse", "correct horse", "yes"]);
    let settings = terminal.settings();
    let hash = sha512_crypt(b"correct horse", &[7; 16]);
    let mut want = Settings::from_words(
        [
            ("hostname", "web7.example.org"),
            ("link", "52:54:00:00:00:01,192.0.2.10/24,2001:db8::10/64,via=192.0.2.1"),
            ("link", "52:54:00:00:00:02,dhcp4"),
            ("dns", "192.0.2.53"),
            ("dns", "2001:db8::53"),
            ("search", "example.org"),
            ("ntp", "ntp1.example.org"),
            ("ntp", "ntp2.example.org"),
            ("timezone", "Europe/Berlin"),
            ("ssh", KEY),
            ("syslog", "tcp:log.example.org:6514"),
            ("engine", "engine.example.org"),
        ]
        .into_iter(),
    )
    .unwrap();
    want.add(Key::Password, &hash).unwrap();
    assert_eq!(settings, want);
}

/// 9600 bits a second are 960 bytes: the whole dialogue, echo included, is to be there in less than three seconds.
#[test]
fn the_whole_dialogue_is_short() {
    const MOST: usize = 2560;
    let mut terminal = Terminal::new(start());
    terminal.lines(&TYPICAL[..12]);
    terminal.lines(&["correct horse", "correct horse", "yes"]);
    // A console turns a line feed into CR LF, and what is sent is CR LF already.
    let typical = terminal.shown.len() + terminal.shown.iter().filter(|byte| **byte == b'\n').count();
    assert!(typical <= MOST, "{typical} bytes:\n{}", String::from_utf8_lossy(&terminal.shown));
    let mut terminal = Terminal::new(start());
    skip(&mut terminal, ALL);
    terminal.types(b"yes\r");
    let defaults = terminal.shown.len();
    assert!(defaults <= MOST / 2, "{defaults} bytes:\n{}", String::from_utf8_lossy(&terminal.shown));
}

/// A console server that sends LF, a terminal that sends CR LF, telnet that sends CR NUL.
#[test]
fn each_line_end_gives_the_same_settings() {
    let settings = |end: &str| {
        let mut terminal = Terminal::new(start());
        for line in TYPICAL.iter().chain(&["yes"]) {
            terminal.types(format!("{line}{end}").as_bytes());
        }
        terminal.settings()
    };
    let want = settings("\r");
    for end in ["\n", "\r\n", "\r\0"] {
        assert_eq!(settings(end), want, "{end:?}");
    }
    // All at once, as a script pastes it; and each byte alone.
    let all: String = TYPICAL.iter().chain(&["yes"]).map(|line| format!("{line}\r\n")).collect();
    let mut terminal = Terminal::new(start());
    terminal.types(all.as_bytes());
    assert_eq!(terminal.settings(), want);
    let mut terminal = Terminal::new(start());
    for byte in all.as_bytes() {
        if terminal.end.is_none() {
            terminal.types(&[*byte]);
        }
    }
    assert_eq!(terminal.settings(), want);
}

#[test]
fn what_is_not_valid_is_said_at_once_and_asked_again() {
    let mut terminal = Terminal::new(start());
    let said = terminal.types(b"node_1\r");
    assert!(
        said.contains("\"node_1\" is not valid: want a host name") && said.ends_with("host name [node1]: "),
        "{said}"
    );
    terminal.types(b"\r");
    let said = terminal.types(b"dhcp4, 192.0.2.10\r");
    assert!(
        said.contains("\"192.0.2.10\" is not valid") && said.ends_with("eno1, ixgbe, 10000 Mb/s [dhcp4,slaac]: "),
        "{said}"
    );
    let said = terminal.types(b"192.0.2.10/24 2001:db8::1/64 mtu=576\r");
    assert!(said.contains("is no link that works: ") && said.contains("1280"), "{said}");
    skip(&mut terminal, 4);
    // What does not fit together is said at the end.
    terminal.lines(&["", "", "", "", "", "", "", "5", "example.org"]);
    let said = terminal.types(b"yes\r");
    assert!(said.contains("search domains need a name server") && terminal.end.is_none(), "{said}");
    terminal.lines(&["5", "-", "yes"]);
    assert!(terminal.settings().search.is_empty());
}

#[test]
fn a_question_mark_explains_and_a_dash_takes_away() {
    let mut terminal = Terminal::new(start());
    let said = terminal.types(b"?\r");
    assert!(said.contains("labels of letters") && said.ends_with("host name [node1]: "), "{said}");
    terminal.types(b"-\r");
    let said = terminal.types(b"?\r");
    assert!(said.contains("(52:54:00:00:00:01)") && said.contains("via=GATEWAY"), "{said}");
    terminal.types(b"-\r");
    // Each question explains itself.
    for _ in 2..ALL {
        let said = terminal.types(b"?\r");
        assert!(said.lines().count() >= 3 && said.is_ascii(), "{said}");
        terminal.types(b"\r");
    }
    terminal.types(b"yes\r");
    assert_eq!(terminal.settings(), Settings::default());
}

#[test]
fn any_line_of_the_last_screen_is_changed_by_its_number() {
    let mut terminal = Terminal::new(start());
    skip(&mut terminal, ALL);
    assert!(terminal.types(b"1\r").ends_with("host name [node1]: "));
    let said = terminal.types(b"node2\r");
    assert!(said.contains(" 1 host name node2\r\n") && said.ends_with("yes to go on: "), "{said}");
    assert!(terminal.types(b"3\r").ends_with("eno2, ixgbe, no carrier [-]: "));
    terminal.types(b"slaac\r");
    terminal.lines(&["8", KEY, ""]);
    assert!(terminal.types(b"8\r").ends_with("SSH key [1 key]: "));
    terminal.types(b"\r");
    for nonsense in ["0", "13", "-1", "99999999999999999999", "no", "y", ""] {
        let said = terminal.types(format!("{nonsense}\r").as_bytes());
        assert!(said.contains("12 root password -") && terminal.end.is_none(), "{nonsense}: {said}");
    }
    terminal.types(b"YES\r");
    let settings = terminal.settings();
    assert_eq!((settings.hostname.unwrap().as_str(), settings.links.len(), settings.ssh.len()), ("node2", 2, 1));
}

/// Attack: somebody who reads the line, or its log, later.
#[test]
fn a_password_is_never_shown() {
    let mut terminal = Terminal::new(start());
    skip(&mut terminal, ALL - 1);
    terminal.types(b"hunter2");
    terminal.types(b"\x0c\x12");
    terminal.script.disturbed();
    terminal.types(b"\r");
    terminal.types(b"\r");
    assert!(terminal.types(b"hunter3\r").contains("these two differ"));
    terminal.types(b"hunter2\r");
    terminal.script.away();
    terminal.types(b"\r");
    terminal.types(b"hunter2\r");
    assert!(terminal.types(b"12\r").ends_with("root password [set]: "));
    terminal.types(b"\r");
    terminal.types(b"yes\r");
    let shown = String::from_utf8(terminal.shown.clone()).unwrap();
    assert!(!shown.contains("hunt") && !shown.contains("$6$") && !shown.contains('*'), "{shown}");
    let hash = sha512_crypt(b"hunter2", &[7; 16]);
    assert_eq!(terminal.settings().password.unwrap().expose(), hash.as_str());
}

/// Blanks and letters of every script are part of a password.
#[test]
fn a_password_is_bytes() {
    let mut terminal = Terminal::new(start());
    skip(&mut terminal, ALL - 1);
    let password = " pa\u{df} w\u{f6}rt ";
    terminal.lines(&[password, password, "yes"]);
    let hash = sha512_crypt(password.as_bytes(), &[7; 16]);
    assert_eq!(terminal.settings().password.unwrap().expose(), hash.as_str());
}

#[test]
fn a_password_that_was_set_is_taken_away() {
    let mut terminal = Terminal::new(start());
    skip(&mut terminal, ALL - 1);
    terminal.lines(&["x", "x", "12", "-", "yes"]);
    assert_eq!(terminal.settings().password, None);
}

#[test]
fn ctrl_c_asks_whether_to_begin_anew() {
    let mut terminal = Terminal::new(start());
    terminal.types(b"node2\r");
    let said = terminal.types(b"192.0.2\x03");
    assert!(said.ends_with("192.0.2^C\r\nrestart? yes or Enter: "), "{said}");
    // No: the question that was open, and answers as they are.
    assert!(terminal.types(b"\x03\x03\r").ends_with("\r\neno1, ixgbe, 10000 Mb/s [dhcp4,slaac]: "));
    skip(&mut terminal, ALL - 1);
    let said = terminal.types(b"\x03yes\r");
    assert!(said.ends_with("host name [node1]: "), "{said}");
    skip(&mut terminal, ALL);
    terminal.types(b"yes\r");
    assert_eq!(terminal.settings().hostname.unwrap().as_str(), "node1");
    // Only at a shell there is somewhere to go.
    let mut terminal = Terminal::new(start());
    terminal.types(b"\x03quit\r");
    assert!(terminal.end.is_none());
    let mut terminal = Terminal::new(Start { may_quit: true, ..start() });
    terminal.types(b"\x03quit\r");
    assert!(matches!(terminal.end, Some(End::Quit)));
}

/// The kernel writes into the middle of a line.
#[test]
fn enter_after_a_message_of_the_kernel_shows_the_line_again() {
    let mut terminal = Terminal::new(start());
    terminal.types(b"node2");
    terminal.script.disturbed();
    assert_eq!(terminal.types(b"\r"), "\r\nhost name [node1]: node2");
    assert!(terminal.types(b"3\r").ends_with("[dhcp4,slaac]: "));
    terminal.script.disturbed();
    assert!(terminal.types(b"\r").ends_with("[dhcp4,slaac]: "), "a default is not taken unseen");
    skip(&mut terminal, ALL - 1);
    terminal.types(b"yes\r");
    assert_eq!(terminal.settings().hostname.unwrap().as_str(), "node23");
}

/// A console server that loses its connection: whoever comes back sees where the dialogue is, and their first Enter answers nothing.
#[test]
fn a_line_that_was_dropped_keeps_the_answers() {
    let mut terminal = Terminal::new(start());
    terminal.types(b"node2\rdhcp");
    terminal.script.away();
    assert_eq!(terminal.types(b"\r"), "\r\neno1, ixgbe, 10000 Mb/s [dhcp4,slaac]: dhcp");
    terminal.types(b"4\r");
    skip(&mut terminal, ALL - 2);
    terminal.script.away();
    assert_eq!(terminal.types(b"y"), "\r\nnumber to change, yes to go on: y");
    terminal.types(b"es\r");
    let settings = terminal.settings();
    assert_eq!(settings.hostname.unwrap().as_str(), "node2");
    assert!(settings.links[0].dhcp4 && !settings.links[0].slaac);
}

/// The links of the payload are the answers that Enter takes; one that is not there is shown as such.
#[test]
fn defaults_for_links_that_are_there_and_for_one_that_is_not() {
    let words = [("link", "eno2,192.0.2.10/24"), ("link", "52:54:00:00:00:09,dhcp4")];
    let defaults = Settings::from_words(words.into_iter()).unwrap();
    let mut terminal = Terminal::new(Start { defaults: defaults.clone(), ..start() });
    let said = skip(&mut terminal, ALL + 1);
    for want in [
        "eno1, ixgbe, 10000 Mb/s [-]: ",
        "eno2, ixgbe, no carrier [192.0.2.10/24]: ",
        "link, 52:54:00:00:00:09, not there [dhcp4]: ",
    ] {
        assert!(said.contains(want), "{want} in {said}");
    }
    terminal.types(b"\x03yes\r");
    skip(&mut terminal, ALL + 1);
    terminal.types(b"yes\r");
    assert_eq!(terminal.settings(), defaults);
}

proptest::proptest! {
    /// Whatever is typed: only printable ASCII, line ends, backspace and the bell go out, and no line ends the dialogue unasked.
    #[test]
    fn any_bytes(pieces in proptest::collection::vec(proptest::prop_oneof![
        proptest::collection::vec(proptest::prelude::any::<u8>(), 0..12),
        "(yes|quit|-|\\?|[0-9]{1,2}|dhcp4|192\\.0\\.2\\.[0-9]/24)\r".prop_map(String::into_bytes),
        proptest::prelude::Just(b"\x03".to_vec()),
    ], 0..60), disturbed in proptest::prelude::any::<u64>()) {
        let mut terminal = Terminal::new(start());
        for (number, piece) in pieces.iter().enumerate() {
            if disturbed >> (number % 64) & 1 == 1 {
                terminal.script.disturbed();
            }
            if disturbed >> ((number * 7) % 64) & 3 == 3 {
                terminal.script.away();
            }
            terminal.types(piece);
            if terminal.end.is_some() {
                break;
            }
        }
        for byte in &terminal.shown {
            proptest::prop_assert!(matches!(byte, b' '..=b'~' | b'\r' | b'\n' | 7 | 8), "{}", byte);
        }
        if let Some(End::Settings(settings)) = &terminal.end {
            proptest::prop_assert!(settings.check().is_ok());
        }
    }
}
