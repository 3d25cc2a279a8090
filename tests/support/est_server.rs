//! A TLS server whose answers the test chooses, valid or not. Serves one connection at a time; never checks a request.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imprint::time::Timestamp;
use rustls::{NamedGroup, ProtocolVersion, ServerConfig, ServerConnection, StreamOwned};

use crate::listening::Listening;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Number of the connection, from 0.
    pub connection: usize,
    /// Request line and header fields.
    pub head: String,
    /// Body, as it came.
    pub body: Vec<u8>,
    /// TLS version of the connection.
    pub version: ProtocolVersion,
    /// Key exchange of the connection.
    pub group: NamedGroup,
}

impl Request {
    /// `cacerts`, `simpleenroll`.
    pub fn operation(&self) -> &str {
        let path = self.head.split(' ').nth(1).unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }

    /// The body of `simpleenroll`, DER.
    pub fn csr(&self) -> Vec<u8> {
        imprint::est::base64(&self.body).expect("base64")
    }
}

/// How a connection ends after an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// close_notify, then the connection is closed.
    Notify,
    /// The connection is closed without close_notify.
    Abrupt,
    /// The connection stays open until the client closes it, however long that takes. Further requests are read and
    /// never answered.
    Open,
    /// As `Notify`. The answer is sent byte by byte, each byte in a TLS record of its own.
    Bytewise,
    /// The server takes further requests on the connection until the client closes it. An answer with `Connection: close`
    /// is the last one. An empty answer closes the connection without close_notify.
    Keep,
}

/// Stops when it is dropped.
pub struct EstServer {
    listening: Listening,
    requests: Arc<Mutex<Vec<Request>>>,
    unanswered: Arc<Mutex<Vec<Request>>>,
}

impl EstServer {
    /// Listens on 127.0.0.1. Connection n is made with configuration n, or the last one; `answer` gives the bytes to
    /// send, an HTTP head and all. After each answer the connection is closed.
    pub fn start(configs: Vec<Arc<ServerConfig>>, answer: impl Fn(&Request) -> Vec<u8> + Send + 'static) -> EstServer {
        EstServer::ending(configs, Ending::Notify, answer)
    }

    /// The same, with this ending of each connection.
    pub fn ending(
        configs: Vec<Arc<ServerConfig>>,
        ending: Ending,
        answer: impl Fn(&Request) -> Vec<u8> + Send + 'static,
    ) -> EstServer {
        EstServer::at(IpAddr::V4(Ipv4Addr::LOCALHOST), configs, ending, answer)
    }

    /// The same, at another address of this machine.
    pub fn at(
        address: IpAddr,
        configs: Vec<Arc<ServerConfig>>,
        ending: Ending,
        answer: impl Fn(&Request) -> Vec<u8> + Send + 'static,
    ) -> EstServer {
        let (requests, unanswered) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let seen = [Arc::clone(&requests), Arc::clone(&unanswered)];
        let listening = Listening::at(address, move |connection, stream| {
            let config = configs.get(connection).or(configs.last()).unwrap();
            // Many tests make the client break off. Then the client reports the reason, and this server ignores it.
            drop(serve(connection, stream, Arc::clone(config), ending, &seen, &answer));
        });
        EstServer { listening, requests, unanswered }
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.listening.address()
    }

    /// `https://127.0.0.1:PORT/.well-known/est`
    pub fn url(&self) -> String {
        format!("https://{}/.well-known/est", self.address())
    }

    /// All requests so far that were answered.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// All requests so far that [`Ending::Open`] left without an answer.
    pub fn unanswered(&self) -> Vec<Request> {
        self.unanswered.lock().unwrap().clone()
    }
}

fn serve(
    connection: usize,
    stream: TcpStream,
    config: Arc<ServerConfig>,
    ending: Ending,
    [requests, unanswered]: &[Arc<Mutex<Vec<Request>>>; 2],
    answer: &impl Fn(&Request) -> Vec<u8>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let session = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(session, stream);
    let (mut bytes, mut answered) = (Vec::new(), false);
    while let Some((head, body)) = next_request(&mut stream, &mut bytes)? {
        let group = stream.conn.negotiated_key_exchange_group().unwrap().name();
        let version = stream.conn.protocol_version().unwrap();
        let request = Request { connection, head, body, version, group };
        if ending == Ending::Open && answered {
            unanswered.lock().unwrap().push(request);
            continue;
        }
        requests.lock().unwrap().push(request.clone());
        let answer = answer(&request);
        let piece = if ending == Ending::Bytewise { 1 } else { usize::MAX };
        for piece in answer.chunks(piece) {
            stream.write_all(piece)?;
            stream.flush()?;
        }
        match ending {
            Ending::Keep if answer.is_empty() => return Ok(()),
            Ending::Keep if answer.windows(17).any(|window| window == b"Connection: close") => {
                stream.conn.send_close_notify();
            }
            Ending::Keep => continue,
            Ending::Notify | Ending::Bytewise => stream.conn.send_close_notify(),
            Ending::Abrupt => {}
            Ending::Open => {
                stream.sock.set_read_timeout(None)?;
                answered = true;
                continue;
            }
        }
        return stream.flush();
    }
    Ok(())
}

/// The next request from `bytes` and the stream; `None` if the client has closed the connection.
fn next_request(
    stream: &mut StreamOwned<ServerConnection, TcpStream>,
    bytes: &mut Vec<u8>,
) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).expect("an ASCII head");
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let whole = end + 4 + length.map_or(0, |length| length.parse::<usize>().unwrap());
            if let Some(body) = bytes.get(end + 4..whole) {
                let body = body.to_vec();
                bytes.drain(..whole);
                return Ok(Some((head, body)));
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(None),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// An HTTP answer with these fields, a Content-Length and this body.
pub fn reply(status: &str, fields: &[String], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for field in fields {
        head.push_str(field);
        head.push_str("\r\n");
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    [head.into_bytes(), body.to_vec()].concat()
}

/// `Date: Tue, 01 Jan 2030 00:00:00 GMT`
pub fn date_field(secs: u64) -> String {
    let text = Timestamp::from_secs(secs).to_string();
    let (date, time) = text.trim_end_matches('Z').split_once('T').unwrap();
    let [year, month, day] = date.split('-').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months[month.parse::<usize>().unwrap() - 1];
    let days = usize::try_from(secs / 86_400).unwrap();
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][days % 7];
    format!("Date: {weekday}, {day} {month} {year} {time} GMT")
}
