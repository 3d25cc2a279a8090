//! The dialogue of `imprint setup` as a person has it: on a terminal, through screen, through telnet, and through a BMC's
//! serial-over-LAN. The node's terminal is dumb in each case. The terminal's state after each way out.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use imprint_tests::patience::PATIENCE;
use imprint_tests::ports::Reserved;
use imprint_tests::programs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// ssh-keygen -t ed25519 -C "admin@example.org"
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFAtZ6yPj3vajxy7pdD/LTsFJftGYOcaGw54qGXwxjv2 admin@example.org";

/// The first words of a question, and the answer. Links, which differ from machine to machine, are left as they are.
const ANSWERS: [(&str, &str); 13] = [
    ("host name", "web7"),
    ("name servers", "192.0.2.53, 2001:db8::53"),
    ("search domains", "example.org"),
    ("NTP servers", "ntp.example.org"),
    ("time zone", "Europe/Berlin"),
    ("SSH key", KEY),
    ("one more", ""),
    ("syslog server", "tcp:log.example.org:6514"),
    ("engine", "engine.example.org"),
    ("storage", "/dev/sdx\x7fa"),
    ("root password", "correct horse"),
    ("again", "correct horse"),
    ("number to change", "yes"),
];

/// A program on a terminal, with a test at the other end of it.
struct Terminal {
    child: Child,
    pty: OpenptyResult,
    seen: Vec<u8>,
}

fn on(command: &mut Command, pty: &OpenptyResult) -> Child {
    let end = |slave: &OwnedFd| Stdio::from(slave.try_clone().unwrap());
    let mut own = Command::new("setsid");
    own.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
    own.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    own.stdin(end(&pty.slave)).stdout(end(&pty.slave)).stderr(end(&pty.slave));
    own.spawn().expect("setsid: apt-get install util-linux")
}

fn agent(root: &Path, pty: &OpenptyResult) -> Child {
    let out = root.join("answers.toml");
    on(
        Command::new(programs::agent()).args(["setup", "--out"]).arg(out).env("IMPRINT_ROOT", root).env("TERM", "dumb"),
        pty,
    )
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Terminal {
    fn new(command: &mut Command) -> Terminal {
        let pty = openpty(None, None).unwrap();
        Terminal { child: on(command, &pty), pty, seen: Vec::new() }
    }

    /// Reads until this is so; tells what was seen.
    fn until(&mut self, what: &str, mut so: impl FnMut(&str) -> bool) -> String {
        let mut master = File::from(self.pty.master.try_clone().unwrap());
        let (start, mut buffer) = (Instant::now(), [0; 512]);
        loop {
            let text = plain(&self.seen);
            if so(&text) {
                return text;
            }
            assert!(start.elapsed() < PATIENCE, "no {what} in {text:?}");
            let mut fds = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(100u8)).unwrap() > 0 {
                let count = master.read(&mut buffer).unwrap();
                self.seen.extend(&buffer[..count]);
            }
        }
    }

    fn shows(&mut self, words: &str) -> String {
        self.until(words, |text| text.contains(words))
    }

    fn types(&mut self, bytes: &[u8]) {
        File::from(self.pty.master.try_clone().unwrap()).write_all(bytes).unwrap();
    }

    /// Answers each question as it comes, up to the end.
    fn answers(&mut self) {
        self.shows("host name [");
        let mut from = 0;
        loop {
            let seen = self.until("a question", |text| {
                text.get(from..).is_some_and(|new| new.ends_with(": ") && (from == 0 || new.contains('\n')))
            });
            from = seen.len();
            let line = seen.rsplit(['\n', '\r']).next().unwrap();
            let known = ANSWERS.iter().find(|(question, _)| line.trim_start().starts_with(question));
            let answer = known.map_or("-", |(_, answer)| *answer);
            self.types(format!("{answer}\r").as_bytes());
            if answer == "yes" {
                break;
            }
        }
        self.shows("done");
    }
}

/// Without what a terminal of screen's draws with: a sequence that moves the cursor counts as a line end.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                let end = chars.by_ref().find(|c| ('@'..='~').contains(c));
                if matches!(end, Some('H' | 'f' | 'd' | 'E' | 'B')) {
                    out.push('\n');
                }
            }
            // A character set is chosen by one more character.
            '\u{1b}' => {
                if chars.next().is_some_and(|c| matches!(c, '(' | ')')) {
                    chars.next();
                }
            }
            c => out.push(c),
        }
    }
    out
}

fn is_written(root: &Path) {
    let path = root.join("answers.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let (before, hash) = text.split_once("password = \"").unwrap();
    let want = format!(
        "[set]\nhostname = \"web7\"\ndns = [\"192.0.2.53\", \"2001:db8::53\"]\nsearch = [\"example.org\"]\nntp = [\"ntp.example.org\"]\n\
         timezone = \"Europe/Berlin\"\nssh = [\"{KEY}\"]\nsyslog = \"tcp:log.example.org:6514\"\nengine = \"engine.example.org\"\n\
         storage = \"/dev/sda\"\n"
    );
    assert_eq!(before, want);
    let salt = hash.split('$').nth(2).unwrap();
    let theirs = Command::new("openssl").args(["passwd", "-6", "-salt", salt, "correct horse"]).output().unwrap();
    assert_eq!(hash.trim_end().trim_end_matches('"'), String::from_utf8(theirs.stdout).unwrap().trim_end());
    let set = imprint_host::record::settings::of_file("answers.toml", &text).unwrap();
    assert_eq!(*set.to_toml(), text);
}

fn ends(child: &mut Child) -> bool {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        assert!(start.elapsed() < PATIENCE, "it goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn on_a_terminal() {
    let root = tempfile::tempdir().unwrap();
    let pty = openpty(None, None).unwrap();
    let before = tcgetattr(&pty.slave).unwrap();
    let mut terminal = Terminal { child: agent(root.path(), &pty), pty, seen: Vec::new() };
    terminal.answers();
    let told = terminal.shows("then remove the file");
    assert!(told.contains("imprint-host bundle make NODE --from FILE") && !told.contains("correct"), "{told}");
    assert!(ends(&mut terminal.child));
    assert_eq!(tcgetattr(&terminal.pty.slave).unwrap(), before);
    is_written(root.path());
}

/// The node's console, which others bring to a person.
struct Node {
    root: tempfile::TempDir,
    pty: OpenptyResult,
    before: Termios,
    agent: Option<Child>,
}

impl Node {
    fn new() -> Node {
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        Node { root: tempfile::tempdir().unwrap(), pty, before, agent: None }
    }

    /// Copies bytes between the node's console and this, both ways, from here on.
    fn connect(&self, mut to: impl Write + Send + 'static, mut from: impl Read + Send + 'static) {
        let master = || File::from(self.pty.master.try_clone().unwrap());
        let (mut ours, mut theirs) = (master(), master());
        std::thread::spawn(move || std::io::copy(&mut ours, &mut to));
        std::thread::spawn(move || std::io::copy(&mut from, &mut theirs));
    }

    /// The whole dialogue at this terminal.
    fn set_up_at(mut self, mut terminal: Terminal) {
        terminal.seen.clear();
        self.agent = Some(agent(self.root.path(), &self.pty));
        terminal.answers();
        let ended = self.agent.as_mut().is_some_and(ends);
        assert!(ended, "{}", plain(&terminal.seen));
        assert_eq!(tcgetattr(&self.pty.slave).unwrap(), self.before);
        is_written(self.root.path());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

#[test]
fn through_screen() {
    let node = Node::new();
    // screen opens a line; the test carries its bytes to the node, as a cable does.
    let cable = openpty(None, None).unwrap();
    let mut raw = tcgetattr(&cable.slave).unwrap();
    cfmakeraw(&mut raw);
    tcsetattr(&cable.slave, SetArg::TCSANOW, &raw).unwrap();
    let line = nix::unistd::ttyname(&cable.slave).unwrap();
    let end = || File::from(cable.master.try_clone().unwrap());
    node.connect(end(), end());
    let sockets = tempfile::tempdir().unwrap();
    std::fs::set_permissions(sockets.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut screen = Command::new("screen");
    // A terminal that cannot clear itself is not enough for screen.
    screen.args(["-c", "/dev/null"]).arg(line).arg("9600").env("TERM", "vt100").env("SCREENDIR", sockets.path());
    let mut terminal = Terminal::new(&mut screen);
    // It clears its terminal when it is there.
    terminal.until("screen", |_| true);
    let mut said = terminal.pty.master.try_clone().map(File::from).unwrap();
    let mut buffer = [0; 512];
    assert!(said.read(&mut buffer).unwrap() > 0);
    node.set_up_at(terminal);
}

/// A console server that speaks telnet: it echoes, and takes characters as they come (RFC 857, RFC 858).
#[test]
fn through_telnet() {
    const WILL_ECHO_AND_GO_AHEAD: [u8; 6] = [255, 251, 1, 255, 251, 3];
    let node = Node::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    let mut terminal = Terminal::new(Command::new("telnet").args(["127.0.0.1", &port]).env("TERM", "dumb"));
    let (mut stream, _) = server.accept().unwrap();
    stream.write_all(&WILL_ECHO_AND_GO_AHEAD).unwrap();
    node.connect(stream.try_clone().unwrap(), Characters(stream));
    terminal.shows("Escape character");
    node.set_up_at(terminal);
}

/// What a telnet client sends, without its commands.
struct Characters(TcpStream);

impl Read for Characters {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let mut byte = [0];
            if self.0.read(&mut byte)? == 0 {
                return Ok(0);
            }
            if byte != [255] {
                out[0] = byte[0];
                return Ok(1);
            }
            // IAC, DO or DONT, option (RFC 854).
            self.0.read_exact(&mut [0; 2])?;
        }
    }
}

/// A BMC: IPMI 2.0 serial-over-LAN.
#[test]
fn through_ipmitool() {
    let node = Node::new();
    let folder = node.root.path().join("bmc");
    std::fs::create_dir(&folder).unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let serial = server.local_addr().unwrap().port();
    let reserved = Reserved::new();
    let lan = reserved.port();
    let configuration = format!(
        "name \"test\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {lan}\n    priv_limit admin\n    \
         allowed_auths_callback none md2 md5 straight\n    allowed_auths_user none md2 md5 straight\n    \
         allowed_auths_operator none md2 md5 straight\n    allowed_auths_admin none md2 md5 straight\n    \
         guid a123456789abcdefa123456789abcdef\n  endlan\n  sol \"tcp:127.0.0.1:{serial}\" 115200\n  \
         user 2 true \"ipmiusr\" \"test\" admin 10 none md2 md5 straight\n"
    );
    std::fs::write(folder.join("lan.conf"), configuration).unwrap();
    let commands = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
                    sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";
    std::fs::write(folder.join("bmc.emu"), commands).unwrap();
    let mut simulator = Command::new("ipmi_sim");
    simulator.arg("-c").arg(folder.join("lan.conf")).arg("-f").arg(folder.join("bmc.emu")).arg("-s").arg(&folder);
    simulator.arg("-n").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let pty = openpty(None, None).unwrap();
    let _simulator = Terminal { child: simulator.spawn().expect("ipmi_sim"), pty, seen: Vec::new() };
    let (stream, _) = server.accept().unwrap();
    node.connect(stream.try_clone().unwrap(), stream);
    let mut ipmitool = Command::new("ipmitool");
    ipmitool.args([
        "-I",
        "lanplus",
        "-C",
        "3",
        "-H",
        "127.0.0.1",
        "-p",
        &lan.to_string(),
        "-U",
        "ipmiusr",
        "-P",
        "test",
    ]);
    let mut terminal = Terminal::new(ipmitool.args(["sol", "activate"]).env("TERM", "dumb"));
    terminal.shows("SOL Session operational");
    node.set_up_at(terminal);
}

#[test]
fn every_way_out_gives_the_terminal_back_and_writes_nothing() {
    for way in ["quit", "TERM", "HUP", "INT"] {
        let root = tempfile::tempdir().unwrap();
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let mut terminal = Terminal { child: agent(root.path(), &pty), pty, seen: Vec::new() };
        terminal.shows("host name [");
        assert_ne!(tcgetattr(&terminal.pty.slave).unwrap(), before);
        if way == "quit" {
            terminal.types(b"node2\r\x03");
            terminal.shows("restart? yes, quit or Enter: ");
            terminal.types(b"quit\r");
            terminal.shows("nothing was written");
        } else {
            // The agent is the child of setsid, which has no other.
            let children = format!("/proc/{0}/task/{0}/children", terminal.child.id());
            let agent = std::fs::read_to_string(children).unwrap();
            let agent = agent.split_whitespace().next().map_or_else(|| terminal.child.id().to_string(), str::to_owned);
            assert!(Command::new("kill").args([&format!("-{way}"), &agent]).status().unwrap().success());
        }
        assert_eq!(ends(&mut terminal.child), way == "quit", "{way}");
        assert_eq!(tcgetattr(&terminal.pty.slave).unwrap(), before, "{way}");
        assert!(!root.path().join("answers.toml").exists());
    }
}

#[test]
fn without_a_terminal_there_is_nobody_to_ask() {
    let output = Command::new(programs::agent()).arg("setup").stdin(Stdio::null()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(20));
    assert!(told.starts_with("imprint: bundle: no terminal to ask on; "), "{told}");
}
