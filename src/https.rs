//! What check-in and configuration server have in common: the way to a server of a URL, over names, addresses and TLS, and
//! requests with their answers on it, all bounded by a deadline. Knows HTTP's framing, never the meaning of a message.
//!
//! The type of a connection says what may be sent on it: a [`Tentative`] connection takes a [`PublicRequest`] only, and
//! nothing but a [`Strict`] one takes a [`SecretRequest`].

mod error;
pub(crate) mod nat64;
pub mod pause;
mod resolve;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{self, MsgFlags};

pub use error::{HttpsError, Phase, Unresolved};

use crate::certificate::CertificateFacts;
use crate::connect;
use crate::http::{self, HttpError, PublicRequest, Response, ResponseReader, SecretRequest};
use crate::payload::{CaCertificate, HttpsUrl};
use crate::sys;
use crate::time::{Clock, Deadline, Timestamp, since_boot};
use crate::tls::{self, ClientCertificate, Connection, Strict, Tentative, TlsError};
use crate::trial;
use resolve::Addresses;

/// An answer, and the address that it came from.
pub struct Answer {
    /// The answer.
    pub response: Response,
    /// The server's address.
    pub address: SocketAddr,
}

/// What went wrong, and the server's address once it is known.
pub type Failed = (Option<SocketAddr>, HttpsError);

/// A connection to a server that was verified. What may be sent on it depends on when the server's certificate is
/// valid.
pub struct Open<T> {
    connection: Connection<Timed, T>,
    address: SocketAddr,
    /// The last answer; `None`: the connection has not carried an answer yet.
    last: Option<Last>,
}

/// What is known of the last answer that a connection has carried.
struct Last {
    /// Bytes that came behind the answer.
    behind: Vec<u8>,
    /// How long the answer took, from the request on.
    took: Duration,
}

/// The answer to a request, and the connection if the server keeps it open. `None`: the connection has carried an
/// answer before, and does not carry this one. The request may be sent again over a new connection.
pub type Asked<T> = Option<(Answer, Option<Open<T>>)>;

/// A request whose answer may be long: what a caller allows, and what it gets beside the answer.
pub struct Transfer<'a> {
    /// The longest body.
    pub limit: usize,
    /// How long the server may take for [`PACE`] bytes, or for less if that is all.
    pub stall: Duration,
    /// Called between two pieces: how many bytes of the body have come, and how many there are; `None` while the request goes out.
    pub watch: &'a mut dyn FnMut(Option<(usize, usize)>),
    /// Takes the body of a success as it comes, however long it is. `None`: it is kept, and is in the answer.
    pub sink: Option<Sink<'a>>,
    /// What had come of an answer that broke off, and how long its body would have been. Not with a sink, which has had it.
    pub beginning: Option<(Response, usize)>,
}

/// Gets the head of an answer, how many bytes of its body are to come with these, and these.
pub type Sink<'a> = &'a mut dyn FnMut(&Response, usize, &[u8]) -> Result<(), Stopped>;

/// A sink takes no more. Whoever has given it knows why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stopped;

/// Connects to the server of `url`, whose certificate was valid at some moment of `life`.
pub fn probe(
    url: &HttpsUrl,
    ca: &CaCertificate,
    life: (Timestamp, Timestamp),
    deadline: Deadline,
) -> Result<Open<Tentative>, Failed> {
    reach(url, deadline, |stream| tls::probe(stream, url.host(), ca, life))
}

/// Connects to the server of `url`, whose certificate is valid at the time of `clock`.
pub fn open(
    url: &HttpsUrl,
    ca: &CaCertificate,
    clock: Clock,
    client: Option<&ClientCertificate>,
    deadline: Deadline,
) -> Result<Open<Strict>, Failed> {
    reach(url, deadline, |stream| tls::connect(stream, url.host(), ca, clock, client))
}

fn reach<T>(
    url: &HttpsUrl,
    deadline: Deadline,
    verified: impl FnOnce(Timed) -> Result<Connection<Timed, T>, TlsError>,
) -> Result<Open<T>, Failed> {
    let mut addresses = Addresses::of(url, deadline).map_err(|failure| (None, failure))?;
    let (stream, address) = connect(&mut addresses, deadline.at_most(CONNECT))?;
    let stream = BufReader::with_capacity(AHEAD, stream);
    let connection = verified(Timed { stream, deadline, pace: None, first: None, waits: true })
        .map_err(|error| (Some(address), failure(error, Phase::Handshake)))?;
    Ok(Open { connection, address, last: None })
}

impl Open<Tentative> {
    /// Sends a request that holds no secret, and reads the answer.
    pub fn ask(self, request: &PublicRequest) -> Result<(Answer, Option<Open<Tentative>>), Failed> {
        let address = self.address;
        // Only a connection that has carried an answer before comes here.
        let gone = || (Some(address), HttpsError::Http(HttpError::Truncated { have: 0, want: None }));
        self.talk(request.as_bytes(), &mut None)?.ok_or_else(gone)
    }

    /// What the server's certificate says.
    pub fn server(&self) -> &CertificateFacts {
        &self.connection.server
    }

    /// The same connection, if the server's certificate is valid at the time of `clock`.
    pub fn confirm(self, clock: Clock) -> Option<Open<Strict>> {
        let Open { connection, address, last } = self;
        // The reason is not reported here. The next connection reports it: the server may have another certificate by
        // then.
        let connection = connection.confirm(clock).ok()?;
        Some(Open { connection, address, last })
    }
}

impl Open<Strict> {
    /// Sends a request and reads the answer.
    pub fn ask(self, request: &SecretRequest) -> Result<Asked<Strict>, Failed> {
        self.talk(request.expose(), &mut None)
    }

    /// The same with an answer that may be long, until this deadline.
    pub fn transfer(
        mut self,
        request: &SecretRequest,
        transfer: &mut Transfer<'_>,
        deadline: Deadline,
    ) -> Result<Asked<Strict>, Failed> {
        let timed = self.connection.transport();
        (timed.deadline, timed.pace) = (deadline, Some(Pace::of(transfer.stall)));
        self.talk(request.expose(), &mut Some(transfer))
    }
}

impl<T> Open<T> {
    fn talk(mut self, request: &[u8], transfer: &mut Option<&mut Transfer<'_>>) -> Result<Asked<T>, Failed> {
        let address = self.address;
        let last = self.last.take();
        let used = last.is_some();
        if let Some(last) = last {
            if !is_blank(&last.behind) || !self.is_quiet() {
                return Ok(None);
            }
            let timed = self.connection.transport();
            timed.first = Some(timed.deadline.at_most(patience(last.took, timed.deadline.remaining())));
        }
        let mut begun = false;
        let response = match self.exchange(request, &mut begun, transfer) {
            // RFC 9110 §15.5.9: the server did not get the request in time, and closes an idle connection.
            Ok(response) if used && response.status == 408 => return Ok(None),
            Ok(response) => response,
            Err(failure) if used && !begun && self.may_go_out_again(&failure) => return Ok(None),
            Err(failure) => return Err((Some(address), failure)),
        };
        let kept = response.persistent.then_some(self);
        Ok(Some((Answer { response, address }, kept)))
    }

    /// Sends a request and reads the answer. `begun` is set once a byte of the answer has come.
    fn exchange(
        &mut self,
        request: &[u8],
        begun: &mut bool,
        transfer: &mut Option<&mut Transfer<'_>>,
    ) -> Result<Response, HttpsError> {
        let broken = |error| failure(error, Phase::Answer);
        let asked = since_boot();
        trial::crash("request");
        let mut pieces = request.chunks(PACE).peekable();
        while let Some(piece) = pieces.next() {
            self.connection.send(piece).map_err(broken)?;
            if let (Some(transfer), Some(_)) = (&mut *transfer, pieces.peek()) {
                (transfer.watch)(None);
            }
        }
        if let Some(pace) = &mut self.connection.transport().pace {
            *pace = Pace::of(pace.stall);
        }
        let mut reader = match &transfer {
            None => ResponseReader::default(),
            Some(it) if it.sink.is_some() => ResponseReader::up_to(it.limit).handing_on(),
            Some(it) => ResponseReader::up_to(it.limit),
        };
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let received = self.connection.receive(&mut buffer);
            if let (Ok(0) | Err(_), Some(Transfer { sink: None, beginning, .. })) = (&received, transfer.as_deref_mut())
            {
                *beginning = reader.beginning();
            }
            let count = received.map_err(broken)?;
            if count == 0 {
                return reader.end().map_err(HttpsError::Http);
            }
            *begun = true;
            trial::crash("answer");
            let whole = reader.push(buffer.get(..count).unwrap_or_default()).map_err(HttpsError::Http)?;
            if let Some(sink) = transfer.as_deref_mut().and_then(|it| it.sink.as_mut()) {
                hand_on(&mut reader, whole.as_ref(), sink).map_err(|Stopped| HttpsError::Stopped)?;
            }
            if let Some(response) = whole {
                let took = since_boot().saturating_sub(asked);
                self.last = Some(Last { behind: reader.behind().to_vec(), took });
                return Ok(response);
            }
            if let (Some(so_far), Some(transfer)) = (reader.so_far(), &mut *transfer) {
                (transfer.watch)(Some(so_far));
            }
        }
    }

    /// Whether a new connection may do better after this failure, which came before the first byte of an answer. Once
    /// the deadline has passed there is no time for one.
    fn may_go_out_again(&mut self, failure: &HttpsError) -> bool {
        match failure {
            HttpsError::Tls(_) | HttpsError::Http(HttpError::Truncated { .. }) => true,
            HttpsError::TimedOut(_) => !self.connection.transport().deadline.expired(),
            _ => false,
        }
    }

    /// Whether the server waits for another request. It does not if it has closed the connection, or sent something
    /// unasked: some servers announce so that they are about to close an idle connection. Such bytes must never be
    /// taken for the answer to the next request. A stray CRLF is allowed, because some servers send one.
    fn is_quiet(&mut self) -> bool {
        self.connection.transport().waits = false;
        let mut buffer = [0; 1024];
        let received = self.connection.receive(&mut buffer);
        self.connection.transport().waits = true;
        match received {
            Ok(count) => count != 0 && is_blank(buffer.get(..count).unwrap_or_default()),
            Err(TlsError::Io(error)) => error.kind() == io::ErrorKind::WouldBlock,
            Err(_) => false,
        }
    }
}

/// Gives a sink what has come of the body of a success since the last time.
fn hand_on(reader: &mut ResponseReader, whole: Option<&Response>, sink: &mut Sink<'_>) -> Result<(), Stopped> {
    match whole {
        Some(response) if http::is_success(response.status) => sink(response, response.body.len(), &response.body),
        Some(_) => Ok(()),
        None => match reader.piece() {
            Some((head, left, bytes)) => sink(head, left, bytes).map(|()| reader.forget()),
            None => Ok(()),
        },
    }
}

/// Whether there is nothing but line ends.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| b"\r\n".contains(byte))
}

/// How long a server may take for the first byte of an answer on a connection that it kept open. Some servers and
/// proxies keep the socket and never read a second request from it, so a request without an answer goes out again over
/// a new connection, which gets as much time at least. The server may have got the request, and still be at work: it
/// gets the same key and CSR twice then.
fn patience(took: Duration, left: Duration) -> Duration {
    AN_ANSWER.max(took.saturating_mul(4)).min(left.checked_div(2).unwrap_or(left))
}

/// Longer than a CA signs, and short beside the time that one URL gets.
const AN_ANSWER: Duration = Duration::from_secs(5);

fn failure(error: TlsError, phase: Phase) -> HttpsError {
    match error {
        TlsError::Io(error) if error.kind() == io::ErrorKind::TimedOut => HttpsError::TimedOut(phase),
        other => HttpsError::Tls(other),
    }
}

/// The longest that all addresses of a name together may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// If an address has not answered for this long, the next one is tried beside it (RFC 8305 §5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// How long to wait for addresses of the other family when every known address has refused. If a name server was only
/// slow, they are there in the next round.
const LATE_FAMILY: Duration = Duration::from_secs(1);

/// Connects to the first address that accepts. An address that does not answer delays the next one by a quarter of a
/// second; an address that refuses does not delay it.
fn connect(addresses: &mut Addresses, deadline: Deadline) -> Result<(TcpStream, SocketAddr), Failed> {
    let mut trying: Vec<(OwnedFd, SocketAddr)> = Vec::new();
    let mut failed: Vec<(SocketAddr, io::Error)> = Vec::new();
    while !deadline.expired() {
        if let Some(address) = addresses.next() {
            match connect::begin_tcp(address) {
                Ok(socket) => trying.push((socket, address)),
                Err(error) => {
                    // No way out for IPv4, so the network may have a NAT64.
                    if let (Some(nix::libc::ENETUNREACH), SocketAddr::V4(server)) = (error.raw_os_error(), address) {
                        nat64::ways(server, &resolve::text("/etc/resolv.conf"))
                            .into_iter()
                            .for_each(|way| addresses.also(way));
                    }
                    failed.push((address, error));
                    continue;
                }
            }
        } else if trying.is_empty() {
            match addresses.wait(deadline.at_most(LATE_FAMILY)) {
                true => continue,
                false => break,
            }
        }
        let more = addresses.more();
        let turn = if more { deadline.at_most(NEXT_ADDRESS) } else { deadline };
        while !turn.expired() && !trying.is_empty() {
            let mut fds: Vec<_> =
                trying.iter().map(|(socket, _)| PollFd::new(socket.as_fd(), PollFlags::POLLOUT)).collect();
            if let Err(error) = sys::poll(&mut fds, turn) {
                let (_, address) = trying.remove(0);
                failed.push((address, error));
                continue;
            }
            let Some(index) = fds.iter().position(|fd| fd.any().unwrap_or(false)) else { break };
            let (socket, address) = trying.remove(index);
            match finish(socket) {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => failed.push((address, error)),
            }
            if more {
                break;
            }
        }
    }
    failed.extend(trying.into_iter().map(|(_, address)| (address, io::ErrorKind::TimedOut.into())));
    let only = match failed.as_slice() {
        [(address, _)] => Some(*address),
        _ => None,
    };
    Err((only, if failed.is_empty() { HttpsError::TimedOut(Phase::Connect) } else { HttpsError::Connect(failed) }))
}

fn finish(socket: OwnedFd) -> io::Result<TcpStream> {
    connect::outcome(&socket)?;
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    // A request is written in one go, so waiting for more to send gains nothing.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// So many bytes have to come, or go, in each [`Transfer::stall`]. A server that sends one now and then would have all the time.
pub const PACE: usize = 16 * 1024;

/// A least rate.
struct Pace {
    stall: Duration,
    /// When [`PACE`] bytes have to be through.
    until: Deadline,
    /// Those that are.
    through: usize,
}

impl Pace {
    fn of(stall: Duration) -> Pace {
        Pace { stall, until: Deadline::after(stall), through: 0 }
    }

    fn moved(&mut self, count: usize) {
        self.through = self.through.saturating_add(count);
        if self.through >= PACE {
            *self = Pace::of(self.stall);
        }
    }
}

/// rustls asks for 4 KiB at a time, and each read takes two system calls. A long body is read from the kernel in pieces of this size.
const AHEAD: usize = 64 * 1024;

/// A stream whose every read and write ends by the deadline.
struct Timed {
    stream: BufReader<TcpStream>,
    deadline: Deadline,
    /// The least rate, where there is one.
    pace: Option<Pace>,
    /// When the next byte has to come, if it is expected before the deadline.
    first: Option<Deadline>,
    /// A read waits for bytes. Otherwise it takes the bytes that are there.
    waits: bool,
}

fn left(deadline: Deadline) -> io::Result<Option<Duration>> {
    match deadline.remaining() {
        // A timeout of zero would mean no timeout.
        left if left.is_zero() => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(Some(left)),
    }
}

impl Timed {
    /// When the next bytes have to have come or gone.
    fn next(&self) -> Deadline {
        self.pace.as_ref().map_or(self.deadline, |pace| self.deadline.at_most(pace.until.remaining()))
    }

    fn moved(&mut self, count: usize) {
        if let Some(pace) = &mut self.pace {
            pace.moved(count);
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stream.buffer().is_empty() {
            let stream = self.stream.get_ref();
            if !self.waits {
                return Ok(socket::recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?);
            }
            stream.set_read_timeout(left(self.first.unwrap_or(self.next()))?)?;
            self.stream.fill_buf().map_err(timed_out)?;
        }
        let count = self.stream.buffer().read(buffer)?;
        self.stream.consume(count);
        self.first = None;
        self.moved(count);
        Ok(count)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let mut stream = self.stream.get_ref();
        stream.set_write_timeout(left(self.next())?)?;
        let count = stream.write(buffer).map_err(timed_out)?;
        self.moved(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.get_ref().flush()
    }
}

/// socket(7), SO_RCVTIMEO: EAGAIN means that the timeout has passed.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage};

    use super::*;

    /// Attack: a server that sends a byte now and then has all the time there is.
    #[test]
    fn a_server_that_drips_is_stalled() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let drips = std::thread::spawn(move || {
            while peer.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let (deadline, pace) = (Deadline::after(Duration::from_secs(3600)), Some(Pace::of(Duration::from_millis(300))));
        let stream = BufReader::with_capacity(AHEAD, stream);
        let mut timed = Timed { stream, deadline, pace, first: None, waits: true };
        let mut came = 0;
        let error = loop {
            match timed.read(&mut [0; 1]) {
                Ok(count) => came += count,
                Err(error) => break error,
            }
            assert!(came < 2 * PACE, "it goes on");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(timed);
        drips.join().unwrap();
        // One that is fast enough has as long as it needs.
        let mut pace = Pace::of(Duration::ZERO);
        pace.stall = Duration::from_secs(3600);
        pace.moved(PACE - 1);
        assert!(pace.until.expired());
        pace.moved(1);
        assert!(!pace.until.expired());
    }

    #[test]
    fn an_address_that_answers_is_found_behind_those_that_do_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let live = listener.local_addr().unwrap();
        // A queue of one that nobody empties: the kernel drops every further SYN.
        let full = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let any = SockaddrStorage::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        socket::bind(full.as_raw_fd(), &any).unwrap();
        socket::listen(&full, socket::Backlog::new(0).unwrap()).unwrap();
        let full = TcpListener::from(full);
        let silent = full.local_addr().unwrap();
        let _filler = TcpStream::connect(silent).unwrap();
        // tcpmux (RFC 1078), which nobody runs.
        let closed = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        // The silent address costs no more than its turn. Without turns it would take all of this time.
        let deadline = Deadline::after(Duration::from_secs(120));
        let (_, found) =
            connect(&mut Addresses::known(&[closed, silent, live]), deadline).map_err(|(_, failure)| failure).unwrap();
        assert_eq!(found, live);
        // As short as this machine can bear: both addresses are to be tried before it has passed.
        let mut limit = Duration::from_millis(300);
        let errors = loop {
            match connect(&mut Addresses::known(&[closed, silent]), deadline.at_most(limit)).err().unwrap() {
                (None, HttpsError::Connect(errors)) if errors.len() == 2 => break errors,
                other => assert!(!deadline.expired(), "{other:?}"),
            }
            limit *= 2;
        };
        let kinds: Vec<_> = errors.iter().map(|(address, error)| (*address, error.kind())).collect();
        assert_eq!(kinds, [(closed, io::ErrorKind::ConnectionRefused), (silent, io::ErrorKind::TimedOut)]);
    }
}
