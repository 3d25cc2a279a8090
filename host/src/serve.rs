//! The EST server: sockets, TLS and HTTP around `enrol`. What is signed is not decided here.

mod guests;
mod http;
mod tls;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use imprint::time::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::ca::StateError;
use crate::state::{Error, State};
use crate::store::StoreError;

/// What time it is. Dates, certificates and expiry all follow it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 512;
/// Connections of one address at a time; more are closed.
pub const CONNECTIONS_OF_ONE: usize = 128;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// From the first byte of a connection to the end of its first request's head; a second one has no more time than that.
const HEAD: Duration = Duration::from_secs(15);
/// From the first byte of a connection to its last, however many requests it carries.
const CONNECTION: Duration = Duration::from_secs(120);
/// Heads of EST requests are a few hundred bytes.
const HEAD_BYTES: usize = 16 * 1024;

/// How to serve.
pub struct Config {
    /// The state directory.
    pub dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What time it is.
    pub clock: Clock,
}

/// A server that runs until it is told to stop or dropped.
pub struct Server {
    local_addr: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Why the server does not start.
#[derive(Debug)]
pub enum ServeError {
    /// The state directory.
    State(Error),
    /// The address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// No thread or no reactor.
    Runtime(io::Error),
    /// Key and certificate do not make a TLS server.
    Tls(rustls::Error),
}

/// What every connection shares.
pub(crate) struct Shared {
    /// Signing and the store: one at a time, which SQLite would see to anyway.
    pub(crate) state: Mutex<State>,
    pub(crate) clock: Clock,
    /// Body of the cacerts answer.
    pub(crate) ca_certs: String,
}

impl Server {
    /// Opens the state, renews the server certificate if it is due, and listens. Returns once connections are
    /// accepted; the work is done by threads of its own.
    pub fn start(config: Config) -> Result<Server, ServeError> {
        let state = State::open(&config.dir).map_err(ServeError::State)?;
        let ca_certs = crate::est::certs_only(&[state.ca.root().der(), state.ca.intermediate()])
            .map_err(|error| ServeError::State(StateError::X509(error.into()).into()))?;
        let shared = Arc::new(Shared { state: Mutex::new(state), clock: config.clock, ca_certs });
        let tls = tls::Tls::new(&shared)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(ServeError::Runtime)?;
        let listener = runtime.block_on(TcpListener::bind(config.listen));
        let listener = listener.map_err(|error| ServeError::Listen(config.listen, error))?;
        let local_addr = listener.local_addr().map_err(|error| ServeError::Listen(config.listen, error))?;
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new().name("serve".to_owned());
        let thread = thread.spawn(move || runtime.block_on(accept(listener, shared, tls, stopped)));
        Ok(Server { local_addr, stop, thread: Some(thread.map_err(ServeError::Runtime)?) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops accepting, lets what is going on finish, and waits for that.
    pub fn shutdown(mut self) {
        self.stop_and_join();
    }

    fn stop_and_join(&mut self) {
        // It fails only when the server thread is gone already.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_and_join();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tls: tls::Tls, mut stopped: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let guests = Arc::new(guests::Guests::default());
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(stream, peer)| (place, stream, peer))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            _ = stopped.changed() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((place, stream, peer)) => {
                let Some(guest) = guests.admit(peer.ip(), CONNECTIONS_OF_ONE) else {
                    tracing::debug!("connection from {peer}: closed, it has {CONNECTIONS_OF_ONE} already");
                    continue;
                };
                let acceptor = tls.acceptor(&shared);
                let (shared, stopped) = (shared.clone(), stopped.clone());
                connections.spawn(async move {
                    if let Err(why) = connection(stream, peer, acceptor, shared, stopped).await {
                        tracing::info!("connection from {peer}: {why}");
                    }
                    drop((place, guest));
                });
            }
            // Out of file descriptors, mostly: connections that end give some back.
            Err(error) => {
                tracing::warn!("accepting a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let _ = timeout(HANDSHAKE, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), String> {
    let begun = Instant::now();
    // Answers are small and whole; waiting to fill a segment only delays them.
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await;
    let stream = stream.map_err(|_| "no TLS handshake in time".to_owned())?.map_err(|error| error.to_string())?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|leaf| leaf.to_vec());
    let service = TowerToHyperService::new(http::router(shared, peer, certificate));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD.saturating_sub(begun.elapsed()))
        .max_buf_size(HEAD_BYTES)
        // Some clients compare header names as they are printed in RFC 7030.
        .title_case_headers(true)
        // Ours comes from the clock that was given to the server.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let deadline = tokio::time::sleep(CONNECTION);
    tokio::pin!(deadline);
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = served.as_mut() => return ended.map_err(|error| error.to_string()),
            () = deadline.as_mut() => return Err("took too long".to_owned()),
            _ = stopped.changed(), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

impl From<StateError> for ServeError {
    fn from(error: StateError) -> ServeError {
        ServeError::State(error.into())
    }
}

impl From<StoreError> for ServeError {
    fn from(error: StoreError) -> ServeError {
        ServeError::State(error.into())
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::State(error) => error.fmt(f),
            ServeError::Listen(address, _) => write!(f, "listening on {address}; use --listen for another address"),
            ServeError::Runtime(_) => write!(f, "starting the server"),
            ServeError::Tls(_) => write!(f, "server certificate and key"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ServeError::State(error) => error.source(),
            ServeError::Listen(_, error) | ServeError::Runtime(error) => Some(error),
            ServeError::Tls(error) => Some(error),
        }
    }
}
