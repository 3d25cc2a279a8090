//! One request and its answer over a connection of their own, bounded by a deadline. Knows HTTP's frame, not EST.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::error::Failure;
use crate::est::{Response, ResponseReader};
use crate::payload::{CaCertificate, HttpsUrl, UrlHost};
use crate::time::Deadline;
use crate::tls::{self, CertificateFacts, ClientCertificate, TlsError, When};

/// An answer and who gave it.
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) server: CertificateFacts,
    pub(super) address: SocketAddr,
}

/// Sends `request` to the server of `url` and reads its answer. An error comes with the address, once there is one.
pub(super) fn exchange(
    url: &HttpsUrl,
    ca: &CaCertificate,
    when: When,
    client: Option<&ClientCertificate>,
    request: &[u8],
    deadline: Deadline,
) -> Result<Answer, (Option<SocketAddr>, Failure)> {
    let (stream, address) = connect(url, deadline)?;
    let talk = || -> Result<Answer, TalkError> {
        let mut connection = tls::connect(Timed { stream, deadline }, url.host(), ca, when, client)?;
        connection.send(request)?;
        let mut reader = ResponseReader::default();
        let mut buffer = vec![0; 16 * 1024];
        let response = loop {
            let count = connection.receive(&mut buffer)?;
            if count == 0 {
                break reader.end()?;
            }
            if let Some(response) = reader.push(buffer.get(..count).unwrap_or_default())? {
                break response;
            }
        };
        Ok(Answer { response, server: connection.server, address })
    };
    talk().map_err(|TalkError(failure)| (Some(address), failure))
}

/// The first address that takes a connection.
fn connect(url: &HttpsUrl, deadline: Deadline) -> Result<(TcpStream, SocketAddr), (Option<SocketAddr>, Failure)> {
    let addresses: Vec<SocketAddr> = match url.host() {
        UrlHost::Ip(address) => vec![SocketAddr::new(*address, url.port())],
        UrlHost::Dns(name) => match (name.as_str(), url.port()).to_socket_addrs() {
            Ok(addresses) => addresses.collect(),
            Err(error) => return Err((None, Failure::Resolve(error))),
        },
    };
    let mut last = (None, Failure::Resolve(io::ErrorKind::NotFound.into()));
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        // Each address gets its share of the time that is left, so that one that swallows packets hides no other.
        let share = (deadline.remaining() / left.max(1)).min(CONNECT);
        left = left.saturating_sub(1);
        if share.is_zero() {
            return Err((Some(address), Failure::TimedOut));
        }
        match TcpStream::connect_timeout(&address, share) {
            Ok(stream) => {
                // One request in one go: nothing is gained by waiting for more to send.
                drop(stream.set_nodelay(true));
                return Ok((stream, address));
            }
            Err(error) => last = (Some(address), Failure::Connect(error)),
        }
    }
    Err(last)
}

/// The longest that one address may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// A stream whose every read and write ends by the deadline.
struct Timed {
    stream: TcpStream,
    deadline: Deadline,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.deadline.remaining() {
            // A timeout of zero would mean none at all.
            left if left.is_zero() => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer).map_err(timed_out)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(buffer).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// socket(7), SO_RCVTIMEO: a timeout shows as EAGAIN.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

struct TalkError(Failure);

impl From<TlsError> for TalkError {
    fn from(error: TlsError) -> TalkError {
        TalkError(match error {
            TlsError::Io(error) if error.kind() == io::ErrorKind::TimedOut => Failure::TimedOut,
            other => Failure::Tls(other),
        })
    }
}

impl From<crate::est::EstError> for TalkError {
    fn from(error: crate::est::EstError) -> TalkError {
        TalkError(Failure::Est(error))
    }
}
