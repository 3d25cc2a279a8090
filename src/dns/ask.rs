//! Asks name servers: over UDP, again where no answer comes, and over TCP where the answer is too long. Waits until an answer is
//! there, or nobody has one, or somebody says stop. Never decides what is asked.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use super::{Answer, Data, Kind, MAX_ALIASES, NO_ERROR, NO_NAME, NOT_DONE, NOT_UNDERSTOOD, Said, answer, question};
use crate::connect;
use crate::sys;
use crate::time::{Deadline, since_boot};

/// What came of a question.
#[derive(Debug)]
pub enum Outcome {
    /// These records, and the answer that had them.
    Found(Vec<Data>, Answer),
    /// A server says that there are none, and why.
    None(SocketAddr, No),
    /// No server gave an answer that can be used: what each one did.
    Failed(Vec<(SocketAddr, No)>),
    /// The caller said stop.
    Stopped,
}

/// Why there is no record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum No {
    /// The name does not exist.
    Name,
    /// The name has no such record.
    Record,
    /// Aliases lead in a circle, or are too many.
    Circle,
    /// The server does not answer so many questions.
    Silent(usize),
    /// The server refuses, or fails: RCODE.
    Code(u8),
    /// The answer cannot be read.
    Broken,
    /// The question cannot be sent, or the answer not be received.
    Unreachable(ErrorKind),
    /// The answer is too long for UDP, and does not come over TCP.
    Tcp(ErrorKind),
    /// It is no name that can be asked for.
    Unnamed,
}

/// The waits for an answer, one after the other.
const WAITS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// How long a server has to itself before the next one is asked as well.
const STAGGER: Duration = Duration::from_millis(500);
/// How long a TCP connection may take, and then the answer.
const TCP: Duration = Duration::from_secs(3);
/// How long all questions may take together that follow the aliases of one name.
pub const ALL: Duration = Duration::from_secs(10);
/// The most servers that are asked. A router may name many that are none.
pub const SERVERS: usize = 12;
/// Nothing longer comes than the question allows. More room costs nothing.
const DATAGRAM: usize = 4096;

/// How long a caller waits for an answer.
#[derive(Clone, Copy)]
pub struct Until<'a> {
    /// Nothing is waited for once it is readable.
    pub stop: BorrowedFd<'a>,
    /// Nor then.
    pub deadline: Deadline,
    /// The questions go over TCP only.
    pub tcp: bool,
}

/// Asks for records of a name, aliases followed.
pub fn ask(servers: &[SocketAddr], name: &str, kind: Kind, until: Until<'_>) -> Outcome {
    let (mut name, mut followed) = (name.to_owned(), 0);
    // Each question follows an alias at least.
    for _ in 0..=MAX_ALIASES {
        let once = if until.tcp { ask_over_tcp } else { ask_once };
        let (server, answer) = match once(servers, &name, kind, until) {
            Ok(Some(answer)) => answer,
            Ok(None) => return Outcome::Stopped,
            Err(failed) => return Outcome::Failed(failed),
        };
        match answer.says(&name, kind, &mut followed) {
            Said::Records(records) => return Outcome::Found(records, answer),
            Said::Circle => return Outcome::None(server, No::Circle),
            Said::Nothing | Said::Alias(_) if answer.code == NO_NAME => return Outcome::None(server, No::Name),
            Said::Nothing if answer.broken => return Outcome::Failed(vec![(server, No::Broken)]),
            Said::Nothing => return Outcome::None(server, No::Record),
            Said::Alias(next) => name = next,
        }
    }
    Outcome::Failed(Vec::new())
}

impl Outcome {
    /// What each server said, for people: `192.0.2.53 says: there is no such name`. Empty where there are records.
    pub fn said(&self) -> String {
        let one = |(server, no): &(SocketAddr, No)| {
            let says = if no.is_answer() { " says:" } else { ":" };
            format!("{}{says} {no}", server.ip())
        };
        match self {
            Outcome::None(server, no) => one(&(*server, no.clone())),
            Outcome::Failed(all) => all.iter().map(one).collect::<Vec<_>>().join(", "),
            Outcome::Found(..) | Outcome::Stopped => String::new(),
        }
    }
}

/// Why nothing was found, in one line. A search may have a thousand reasons, and a person reads a few.
pub fn listed(missing: &[String]) -> String {
    let said: Vec<&str> = missing.iter().take(LISTED).map(String::as_str).collect();
    let more = match missing.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!("; and {more} more like these"),
    };
    said.join("; ") + &more
}

/// So many reasons are listed.
const LISTED: usize = 4;

/// Asks one server after the other over TCP (`use-vc` of resolv.conf(5)).
fn ask_over_tcp(servers: &[SocketAddr], name: &str, kind: Kind, until: Until<'_>) -> Answered {
    let mut failed = Vec::new();
    for server in servers.iter().take(SERVERS) {
        match over_tcp(*server, random(), name, kind, until).and_then(Answer::useful) {
            Ok(answer) => return Ok(Some((*server, answer))),
            Err(Halt::Stopped) => return Ok(None),
            Err(Halt::No(no)) => failed.push((*server, no)),
        }
    }
    Err(failed)
}

impl Answer {
    /// An answer that says something.
    fn useful(self) -> Result<Answer, Halt> {
        if matches!(self.code, NO_ERROR | NO_NAME) { Ok(self) } else { Err(Halt::No(No::Code(self.code))) }
    }
}

/// A server, and how far the question to it is.
struct Asked {
    server: SocketAddr,
    id: u16,
    socket: Option<UdpSocket>,
    sent: usize,
    next: Duration,
    /// Whether the question has an OPT record. Old servers do not understand it, and some filters drop it (RFC 6891 §7).
    edns: bool,
    /// Why it has no answer.
    no: Option<No>,
}

type Answered = Result<Option<(SocketAddr, Answer)>, Vec<(SocketAddr, No)>>;

fn ask_once(servers: &[SocketAddr], name: &str, kind: Kind, until: Until<'_>) -> Answered {
    let Until { stop, deadline, .. } = until;
    let begun = since_boot();
    let mut all: Vec<Asked> = Vec::new();
    for (server, later) in servers.iter().take(SERVERS).zip(0..) {
        let next = begun.saturating_add(STAGGER.saturating_mul(later));
        all.push(Asked { server: *server, id: random(), socket: None, sent: 0, next, edns: true, no: None });
    }
    loop {
        let now = since_boot();
        for asked in &mut all {
            match deadline.expired() {
                true => asked.no = asked.no.take().or(Some(No::Silent(asked.sent))),
                false => asked.send(name, kind, now),
            }
        }
        let Some(wake) = all.iter().filter(|asked| asked.no.is_none()).map(|asked| asked.next).min() else {
            return Err(all.into_iter().filter_map(|asked| Some((asked.server, asked.no?))).collect());
        };
        let mut fds = vec![PollFd::new(stop, PollFlags::POLLIN)];
        let sockets = all.iter().filter(|asked| asked.no.is_none()).filter_map(|asked| asked.socket.as_ref());
        fds.extend(sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
        let polled = sys::poll(&mut fds, deadline.at(wake));
        if fds.first().is_none_or(|stop| stop.any() == Some(true)) || polled.is_err() {
            return Ok(None);
        }
        for place in 0..all.len() {
            let Some(asked) = all.get_mut(place).filter(|asked| asked.no.is_none()) else { continue };
            if let Some(answer) = asked.receive(name, kind) {
                if asked.edns && matches!(answer.code, NOT_UNDERSTOOD | NOT_DONE) {
                    (asked.edns, asked.next) = (false, Duration::ZERO);
                    continue;
                }
                match asked.whole(answer, name, kind, until) {
                    Ok(answer) => return Ok(Some((asked.server, answer))),
                    Err(Halt::Stopped) => return Ok(None),
                    Err(Halt::No(no)) => asked.no = Some(no),
                }
            }
        }
        // Where one has failed, the next one is asked at once.
        if all.iter().any(|asked| asked.no.is_some())
            && !all.iter().any(|asked| asked.no.is_none() && asked.sent > 0)
            && let Some(next) = all.iter_mut().find(|asked| asked.no.is_none())
        {
            next.next = Duration::ZERO;
        }
    }
}

impl Asked {
    /// Sends the question if it is time to.
    fn send(&mut self, name: &str, kind: Kind, now: Duration) {
        if self.no.is_some() || self.next > now {
            return;
        }
        let Some(wait) = WAITS.get(self.sent) else {
            self.no = Some(No::Silent(self.sent));
            return;
        };
        // The last question is as plain as it can be.
        self.edns &= self.sent.saturating_add(1) < WAITS.len();
        let Some(question) = question(self.id, name, kind, self.edns) else {
            self.no = Some(No::Unnamed);
            return;
        };
        self.next = now.saturating_add(*wait);
        self.sent = self.sent.saturating_add(1);
        let sent = match &self.socket {
            Some(socket) => socket.send(&question).map(drop),
            None => open(self.server).and_then(|socket| {
                let sent = socket.send(&question).map(drop);
                self.socket = Some(socket);
                sent
            }),
        };
        self.failed(sent.err());
    }

    /// The answer, if it has come.
    fn receive(&mut self, name: &str, kind: Kind) -> Option<Answer> {
        let mut buffer = [0; DATAGRAM];
        loop {
            match self.socket.as_ref()?.recv(&mut buffer) {
                Ok(length) => {
                    // Something else is late, or from somebody who guesses.
                    let found = answer(buffer.get(..length).unwrap_or_default(), self.id, name, kind);
                    if found.is_some() {
                        return found;
                    }
                }
                Err(error) => {
                    self.failed(Some(error));
                    return None;
                }
            }
        }
    }

    /// An answer that says something, asked for anew over TCP if it did not fit.
    fn whole(&self, answer: Answer, name: &str, kind: Kind, until: Until<'_>) -> Result<Answer, Halt> {
        match answer.truncated {
            false => answer.useful(),
            true => over_tcp(self.server, self.id, name, kind, until)?.useful(),
        }
    }

    /// Whoever asks again later may have more luck.
    fn failed(&mut self, error: Option<io::Error>) {
        let lasting = |error: &io::Error| !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted);
        if let Some(error) = error.filter(lasting) {
            self.no = Some(No::Unreachable(error.kind()));
        }
    }
}

/// A socket that hears this server only.
fn open(server: SocketAddr) -> io::Result<UdpSocket> {
    let own: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(own)?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    Ok(socket)
}

/// Why there is no answer over TCP.
enum Halt {
    /// The caller said stop.
    Stopped,
    No(No),
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Halt {
        Halt::No(No::Tcp(error.kind()))
    }
}

/// RFC 1035 §4.2.2: the length stands before the message.
fn over_tcp(server: SocketAddr, id: u16, name: &str, kind: Kind, until: Until<'_>) -> Result<Answer, Halt> {
    let Until { stop, deadline: last, .. } = until;
    let question = question(id, name, kind, false).ok_or(Halt::No(No::Unnamed))?;
    let length = u16::try_from(question.len()).unwrap_or_default();
    let fd = connect::begin_tcp(server)?;
    wait(fd.as_fd(), PollFlags::POLLOUT, stop, last.at_most(TCP))?;
    connect::outcome(&fd)?;
    let mut stream = TcpStream::from(fd);
    // A new connection has room for a question.
    stream.write_all(&[&length.to_be_bytes()[..], &question].concat())?;
    let (deadline, mut bytes) = (last.at_most(TCP), Vec::new());
    loop {
        if let Some((length, message)) = bytes.split_first_chunk::<2>()
            && let Some(message) = message.get(..usize::from(u16::from_be_bytes(*length)))
        {
            return answer(message, id, name, kind).ok_or(Halt::No(No::Broken));
        }
        wait(stream.as_fd(), PollFlags::POLLIN, stop, deadline)?;
        let mut buffer = [0; DATAGRAM];
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            Ok(count) => bytes.extend(buffer.get(..count).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until the connection is ready, unless the caller says stop.
fn wait(fd: BorrowedFd<'_>, flags: PollFlags, stop: BorrowedFd<'_>, deadline: Deadline) -> Result<(), Halt> {
    let mut fds = [PollFd::new(stop, PollFlags::POLLIN), PollFd::new(fd, flags)];
    let ready = sys::poll(&mut fds, deadline)?;
    let [stopped, _] = fds.map(|fd| fd.any() == Some(true));
    match (stopped, ready) {
        (true, _) => Err(Halt::Stopped),
        (false, true) => Ok(()),
        (false, false) => Err(io::Error::from(ErrorKind::TimedOut).into()),
    }
}

/// The number of a question. It is no secret: whoever can read the question owns the network, and nothing of an answer is trusted.
fn random() -> u16 {
    let mut random = [0; 2];
    let _ = aws_lc_rs::rand::fill(&mut random);
    u16::from_be_bytes(random)
}

impl No {
    /// Whether the server says so of the name. Anything else may be mended by another try.
    fn is_answer(&self) -> bool {
        matches!(self, No::Name | No::Record | No::Circle)
    }
}

/// What a server said: `there is no such name`.
impl fmt::Display for No {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            No::Name => f.write_str("there is no such name"),
            No::Record => f.write_str("the name has no such record"),
            No::Circle => write!(f, "its aliases (CNAME) lead in a circle, or are more than {MAX_ALIASES}"),
            No::Silent(0) => f.write_str("there was no time to ask it"),
            No::Silent(1) => f.write_str("no answer to 1 question"),
            No::Silent(questions) => write!(f, "no answer to {questions} questions"),
            // RFC 1035 §4.1.1
            No::Code(5) => f.write_str("it refuses to answer"),
            No::Code(2) => f.write_str("it cannot find out (SERVFAIL)"),
            No::Code(code) => write!(f, "it answers with error {code}"),
            No::Broken => f.write_str("its answer cannot be read"),
            No::Unreachable(kind) => write!(f, "it cannot be reached ({kind})"),
            No::Tcp(kind) => write!(
                f,
                "its answer is too long for UDP, and TCP brings none ({kind}); let TCP port 53 through, or name fewer doors there"
            ),
            No::Unnamed => f.write_str("this is no name that can be asked for"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
