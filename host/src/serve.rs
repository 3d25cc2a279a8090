//! The EST server: sockets, TLS and HTTP around `enrol`. Never decides what is signed.

mod bulk;
mod checks;
mod desk;
mod door;
mod files;
mod guests;
mod http;
mod lists;
mod metrics;
mod outbox;
mod pace;
mod spelling;
mod tls;
mod tries;

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::Extensions;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use imprint::time::Timestamp;
use nix::fcntl::{Flock, FlockArg, OFlag};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::ca::{self, StateError};
use crate::crash;
use crate::est::Layout;
use crate::origin;
use crate::state::{Error, State};
use crate::store::StoreError;
use desk::Desk;
pub use door::{DoorError, DoorSpec};
use files::{Listening, Places};
pub use guests::{AWAY, CALLERS, CONNECTIONS};
use guests::{Guest, Guests, Place};
pub use lists::EVERY as LISTS_EVERY;
use lists::Lists;
use metrics::Metrics;
use outbox::Outbox;
pub use outbox::{Address, Tell, Webhook, WebhookError};

/// The server's clock. Dates, certificates and expiry all use it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// The most time from the start of a connection to the end of its first request's head. Heads of later requests get no more
/// time than that.
const HEAD: Duration = Duration::from_secs(15);
/// The longest a connection may last, whatever the number of its requests.
const CONNECTION: Duration = Duration::from_secs(120);
/// The longest a connection may last that is only told to come back.
const BRIEF: Duration = Duration::from_secs(5);
/// The longest head of a request. Heads of EST requests have a few hundred bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// The most connections for metrics at a time: few systems ask for them.
const METRICS_CONNECTIONS: usize = 16;

/// How to serve.
pub struct Config {
    /// The state directory.
    pub dir: PathBuf,
    /// The address to listen on; port 0 picks a free port.
    pub listen: SocketAddr,
    /// The address for metrics, without TLS.
    pub metrics: Option<SocketAddr>,
    /// Where nodes call with the line protocol.
    pub doors: Vec<DoorSpec>,
    /// Line breaks in the base64 of answers.
    pub layout: Layout,
    /// Programs that are told what happens to nodes.
    pub tell: Tell,
    /// The clock.
    pub clock: Clock,
}

/// A running server. Dropping it stops it.
pub struct Server {
    local_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    doors: Vec<String>,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
    _lock: Flock<File>,
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The state directory.
    #[error(transparent)]
    State(Error),
    /// Another server runs on this state directory.
    #[error("another imprint-host serve runs on {}; stop it first, or give this one another --dir", .0.display())]
    Running(PathBuf),
    /// The lock file that keeps a second server off cannot be opened.
    #[error(
        "opening the lock file {}; give it to the owner of the directory (chown)",
        .0.display()
    )]
    Lock(PathBuf, #[source] io::Error),
    /// The server cannot listen on the address.
    #[error("listening on {0}; use --listen for another address")]
    Listen(SocketAddr, #[source] io::Error),
    /// A door cannot be opened.
    #[error(transparent)]
    Door(Box<DoorError>),
    /// A thread or the async runtime cannot be made.
    #[error("starting the server")]
    Runtime(#[source] io::Error),
    /// Key and certificate do not make a TLS server.
    #[error("server certificate and key")]
    Tls(#[source] rustls::Error),
}

/// What every connection shares.
pub(crate) struct Shared {
    desk: Desk,
    lists: Lists,
    pace: pace::Pace<IpAddr>,
    /// The pace of requests with an invalid CSR.
    bad: pace::Few,
    clock: Clock,
    tls: tls::Tls,
    metrics: Arc<Metrics>,
    layout: Layout,
    tries: tries::Tries,
    /// The memory of long answers.
    bulk: bulk::Bulk,
    /// The memory of long uploads: clients that are slow to send hold up no answer.
    uploads: bulk::Bulk,
    /// The turn to check a bundle.
    checks: checks::Checks,
    outbox: Arc<Outbox>,
    /// An extension for answers that have a header whose spelling is not title case.
    spelling: Extensions,
}

impl Server {
    /// Opens the state, renews the server certificate if it is due, and listens. Returns once connections are accepted;
    /// threads of the server do the work.
    pub fn start(config: Config) -> Result<Server, ServeError> {
        let state = State::open(&config.dir).map_err(ServeError::State)?;
        let lock = lock(&config)?;
        door::may_open(&config.doors, &state)?;
        let shared = Arc::new(shared(&config, state)?);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(ServeError::Runtime)?;
        let listen = |address: SocketAddr| {
            let bound = runtime.block_on(TcpListener::bind(address));
            let bound = bound.and_then(|listener| Ok((listener.local_addr()?, listener)));
            bound.map_err(|error| ServeError::Listen(address, error))
        };
        let (local_addr, listener) = listen(config.listen)?;
        let (metrics_addr, metrics) = config.metrics.map(listen).transpose()?.unzip();
        let doors = runtime.block_on(door::open(&config.doors))?;
        let open = doors.names().map_err(ServeError::Runtime)?;
        let places = Places::here(!open.is_empty());
        let stores = shared.outbox.told().iter().map(|_| Ok(State::open(&config.dir)?.store));
        let stores = stores.collect::<Result<Vec<_>, Error>>().map_err(ServeError::State)?;
        let tell = config.tell.clone();
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new().name("serve".to_owned());
        let thread = thread.spawn(move || {
            runtime.block_on(async {
                if let Some(listener) = metrics {
                    tokio::spawn(serve_metrics(listener, shared.clone()));
                }
                let doors = door::serve(doors, shared.clone(), places.callers, stopped.clone());
                let told = shared.outbox.clone().run(tell, stores, shared.metrics.clone(), stopped.clone());
                tokio::join!(accept(listener, shared, places, stopped), doors, told);
            });
        });
        let thread = Some(thread.map_err(ServeError::Runtime)?);
        Ok(Server { local_addr, metrics_addr, doors: open, stop, thread, _lock: lock })
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The address of its metrics.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// Its doors, as they were given; TCP doors with the port that they have.
    pub fn doors(&self) -> &[String] {
        &self.doors
    }

    /// Stops accepting connections, and waits until open ones have ended, at most 10 s.
    pub fn shutdown(mut self) {
        self.stop_and_join();
    }

    fn stop_and_join(&mut self) {
        // Sending fails only if the server's thread has ended already.
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

fn shared(config: &Config, state: State) -> Result<Shared, ServeError> {
    let metrics = Arc::new(Metrics::new((config.clock)()));
    let tls = tls::Tls::new(&config.dir, state.hosts(), config.clock.clone(), &metrics)?;
    let outbox = Arc::new(Outbox::new(&config.tell));
    let desk = Desk::start(state, config.clock.clone(), metrics.clone(), outbox.clone())?;
    let lists = State::open(&config.dir).map_err(ServeError::State)?;
    let lists = Lists::start(lists, config.clock.clone(), metrics.clone())?;
    let (clock, layout) = (config.clock.clone(), config.layout);
    let (tries, pace, bad) = (tries::Tries::default(), pace::Pace::default(), pace::Few::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(ServeError::Runtime)?;
    let spelling = runtime.block_on(spelling::spelling()).map_err(ServeError::Runtime)?;
    let (bulk, uploads, checks) = (bulk::Bulk::default(), bulk::Bulk::default(), checks::Checks::default());
    Ok(Shared { desk, lists, pace, bad, clock, tls, metrics, layout, tries, bulk, uploads, checks, outbox, spelling })
}

/// The HTTP server behind TLS, without sockets and TLS: for fuzzing it with bytes.
pub struct Front {
    runtime: tokio::runtime::Runtime,
    shared: Arc<Shared>,
    routers: Routers,
}

impl Front {
    /// Opens the state. Ignores the configuration's addresses.
    pub fn open(config: &Config) -> Result<Front, ServeError> {
        let state = State::open(&config.dir).map_err(ServeError::State)?;
        let shared = Arc::new(shared(config, state)?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(ServeError::Runtime)?;
        let routers = Routers { est: http::router(shared.clone()), plain: http::plain_router(shared.clone()) };
        Ok(Front { runtime, shared, routers })
    }

    /// Plays a connection on which a client sends these bytes and no more. Returns everything that the server answers.
    pub fn talk(&self, said: &[u8]) -> io::Result<Vec<u8>> {
        let ca_certs = self.shared.tls.current().1;
        let guest = http::Peer { peer: Ipv4Addr::LOCALHOST.into(), certificate: None, ca_certs, place: Place::Served };
        let (_stop, stopped) = watch::channel(false);
        self.runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            client.write_all(said).await?;
            client.shutdown().await?;
            let mut heard = Vec::new();
            let served = serve_to(server, &self.routers.est, guest, Instant::now(), stopped);
            // Errors of the connection are for the server's log, not for the client.
            let (_, read) = tokio::join!(served, client.read_to_end(&mut heard));
            read.map(|_| heard)
        })
    }
}

/// Takes the lock that allows one server per directory: two servers would each count rates and connections separately.
/// Other commands may run at the same time; the store's transactions allow that.
fn lock(config: &Config) -> Result<Flock<File>, ServeError> {
    let path = config.dir.join("serve.lock");
    let mut options = OpenOptions::new();
    // No symlinks: the directory's owner must not make root open another file.
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
    let file = options.open(&path);
    let at = |source| ServeError::Lock(path.clone(), source);
    match Flock::lock(file.map_err(at)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            // Also gives away a lock file that an older imprint-host left to root.
            ca::given_away(&path).map_err(at)?;
            Ok(lock)
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(ServeError::Running(config.dir.clone())),
        Err((_, errno)) => Err(at(errno.into())),
    }
}

/// The routers, made once. Each connection uses the one that it needs.
struct Routers {
    est: axum::Router,
    plain: axum::Router,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, places: Places, mut stopped: watch::Receiver<bool>) {
    let routers = Arc::new(Routers { est: http::router(shared.clone()), plain: http::plain_router(shared.clone()) });
    let guests = Guests::new(places.connections, places.away);
    let mut listening = Listening::new("EST");
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let Some(guest) = guests.admit(origin::of_address(peer.ip())) else {
                    tracing::debug!("connection from {peer}: closed, there are too many");
                    shared.metrics.turned_away("closed");
                    continue;
                };
                let (shared, routers) = (shared.clone(), routers.clone());
                connections.spawn(connection(stream, peer, guest, shared, routers, stopped.clone()));
            }
            Err(error) => listening.failed(&error).await,
        }
    }
    drop(listener);
    let _ = timeout(HANDSHAKE, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    guest: Guest<IpAddr>,
    shared: Arc<Shared>,
    routers: Arc<Routers>,
    stopped: watch::Receiver<bool>,
) {
    shared.metrics.connections.inc();
    let (limit, handshake) = match guest.place() {
        Place::Served => (CONNECTION, HANDSHAKE),
        Place::Away => {
            shared.metrics.turned_away("busy");
            (BRIEF, BRIEF)
        }
    };
    let talked = talk(stream, (peer, guest.place()), handshake, &shared, &routers, stopped);
    match timeout(limit, talked).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::info!("connection from {peer}: {why}"),
        Err(_) => tracing::info!("connection from {peer}: took too long"),
    }
    shared.metrics.connections.dec();
}

/// First byte of a TLS record with a handshake message (RFC 8446 §5.1). No HTTP method begins so.
const TLS_HANDSHAKE: u8 = 22;

async fn talk(
    stream: TcpStream,
    (peer, place): (SocketAddr, Place),
    limit: Duration,
    shared: &Shared,
    routers: &Routers,
    stopped: watch::Receiver<bool>,
) -> Result<(), String> {
    let begun = Instant::now();
    // Answers are written whole; Nagle's algorithm would only delay them.
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut first = [0];
    let peeked = timeout(limit, stream.peek(&mut first)).await.map_err(|_| "it said nothing".to_owned())?;
    if peeked.map_err(|error| error.to_string())? == 0 {
        return Ok(());
    }
    if first != [TLS_HANDSHAKE] {
        return serve_to(stream, &routers.plain, http::Asker(peer.ip()), begun, stopped).await;
    }
    let (acceptor, ca_certs) = shared.tls.current();
    let accepted = timeout(limit.saturating_sub(begun.elapsed()), acceptor.accept(stream)).await;
    let accepted = accepted.map_err(|_| "no TLS handshake in time".to_owned());
    let stream = accepted.and_then(|accepted| accepted.map_err(|error| error.to_string())).inspect_err(|_| {
        shared.metrics.handshakes_failed.inc();
    })?;
    let certificate =
        stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|leaf| Arc::from(leaf.to_vec()));
    if let Some(certificate) = &certificate {
        let asked = desk::Asked::Shown { certificate: Arc::clone(certificate) };
        // The answer is ignored: the request is served even if this could not be noted.
        shared.desk.ask(asked, peer.ip().to_string()).await;
    }
    let guest = http::Peer { peer: peer.ip(), certificate, ca_certs, place };
    serve_to(stream, &routers.est, guest, begun, stopped).await?;
    crash::point("answered");
    Ok(())
}

/// Serves HTTP on a stream. `guest` is put into each request's extensions.
async fn serve_to<G: Clone + Send + Sync + 'static>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: &axum::Router,
    guest: G,
    begun: Instant,
    stopped: watch::Receiver<bool>,
) -> Result<(), String> {
    let router = TowerToHyperService::new(router.clone());
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(guest.clone());
        router.call(request)
    });
    serve_http(stream, service, begun, stopped).await
}

async fn serve_http<S>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    service: S,
    begun: Instant,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), String>
where
    S: Service<hyper::Request<hyper::body::Incoming>, Response = axum::response::Response, Error = Infallible>,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD.saturating_sub(begun.elapsed()))
        .max_buf_size(HEAD_BYTES)
        // Some clients compare header names as they are printed in RFC 7030.
        .title_case_headers(true)
        // The routers add a Date by the server's own clock.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = served.as_mut() => return ended.map_err(|error| error.to_string()),
            _ = stopped.changed(), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Serves metrics to everybody who can reach the address. They hold no secrets, but they show the load.
async fn serve_metrics(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(METRICS_CONNECTIONS));
    // No stop signal is needed: the listener ends with the runtime.
    let (_stop, stopped) = watch::channel(false);
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let stopped = stopped.clone();
                let router = TowerToHyperService::new(http::metrics_router(shared.clone()));
                tokio::spawn(async move {
                    // Errors are ignored: the monitoring system sees a missing or bad answer itself.
                    let _ = timeout(BRIEF, serve_http(stream, router, Instant::now(), stopped)).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

impl From<DoorError> for ServeError {
    fn from(error: DoorError) -> ServeError {
        ServeError::Door(Box::new(error))
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
