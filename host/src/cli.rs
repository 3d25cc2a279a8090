//! The commands of `imprint-host`: arguments in, text or JSON out, exit code 0 or 1 (clap says 2 itself).

use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use imprint::hex;
use imprint::options::CMDLINE_MAX;
use imprint::payload::EstUrl;
use imprint::time::Timestamp;
use serde_json::json;
use zeroize::Zeroizing;

use crate::ca::NewFile;
use crate::compose::{self, Medium, Options};
use crate::inject::transport::LineSpec;
use crate::inject::{self, Job};
use crate::serve::{Config, ServeError, Server};
use crate::state::{self, State};
use crate::{cpio, enrol, iso, list, record, vfat};

/// Makes bootstrap payloads for imprint and signs the CSRs that match what was injected.
#[derive(Parser)]
#[command(name = "imprint-host", version)]
pub struct Cli {
    /// Directory with CA and store
    #[arg(long, global = true, env = "IMPRINT_DIR", default_value = "/var/lib/imprint-host")]
    dir: PathBuf,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a CA and a store in an empty directory
    Init {
        /// EST base that nodes use, https://HOST[:PORT]/.well-known/est; repeat it for more, in order
        #[arg(long, required = true, value_parser = est_url)]
        url: Vec<EstUrl>,
    },
    /// Node records
    #[command(subcommand)]
    Node(NodeCommand),
    /// Make a payload for a node, with a fresh id and token
    Payload(PayloadArgs),
    /// Serve EST: sign what matches, refuse the rest
    Serve {
        /// Address and port to listen on
        #[arg(long, default_value = "0.0.0.0:8443")]
        listen: SocketAddr,
    },
    /// Bring payloads down serial lines, and sign what comes up
    Inject(InjectArgs),
    /// List the nodes
    Nodes,
    /// Approve a request that waits: compare the code with the one on the node's console
    Approve {
        /// Name of the record
        node: String,
        /// Code of the key, like 7K3M-Q0ZT-N4V8-XW1C
        code: String,
    },
    /// Deny all requests that wait under a node's name
    Deny {
        /// Name of the record
        node: String,
    },
    /// Show the audit log
    Log {
        /// How many lines
        #[arg(long, default_value_t = 100)]
        last: u32,
    },
}

#[derive(Subcommand)]
enum NodeCommand {
    /// Add nodes from TOML files: all of them or none
    Add {
        /// One record each
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Give nodes that are known another record
        #[arg(long)]
        replace: bool,
    },
}

#[derive(Args)]
struct PayloadArgs {
    /// Name of the record
    node: String,
    /// cbor: the payload itself; text: lines to paste into imprint console; cmdline: a word for the kernel command
    /// line; cpio: an initramfs to append; iso and vfat: a config drive
    #[arg(long = "as", value_enum, default_value_t = Form::Cbor)]
    form: Form,
    /// Where to; standard output when left out
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// How long it is good for, like 24h, 30m or 7d
    #[arg(long, default_value = "24h", value_parser = duration)]
    expires: Duration,
    /// This medium is used for one boot only: the node may credit its seed. The record must have a bind
    #[arg(long, conflicts_with = "no_seed")]
    single_boot: bool,
    /// Put an entropy seed in, also where it is only mixed in
    #[arg(long, conflicts_with = "no_seed")]
    seed: bool,
    /// Put no entropy seed in, even on a config drive
    #[arg(long)]
    no_seed: bool,
    /// Leave earlier payloads of this node valid
    #[arg(long)]
    keep: bool,
    /// Put a certificate and its private key in, made here, so that the node needs no server; never on a command line
    #[arg(long)]
    credentials: bool,
}

#[derive(Args)]
struct InjectArgs {
    /// Name of the record
    #[arg(required_unless_present = "lines", requires = "line")]
    node: Option<String>,
    /// Its line: /dev/ttyUSB0[,115200], unix:PATH, tcp:HOST:PORT, telnet:HOST:PORT, or exec:COMMAND that is one, like
    /// ipmitool -I lanplus -C 3 … sol activate
    #[arg(long, requires = "node")]
    line: Option<LineSpec>,
    /// File with a NODE and its line on each line, and behind " | " a command that switches it on
    #[arg(long, conflicts_with_all = ["node", "line", "power"])]
    lines: Option<PathBuf>,
    /// Command that switches the node on, run once the line is open
    #[arg(long)]
    power: Option<String>,
    /// How long a node may take to say HELLO, like 5m
    #[arg(long, default_value = "5m", value_parser = duration)]
    window: Duration,
    /// How long it may take from then on
    #[arg(long, default_value = "10m", value_parser = duration)]
    timeout: Duration,
    /// Call at once. A boot loader or a login prompt on the line takes that for keys; without it the host waits until
    /// it hears the agent
    #[arg(long)]
    call: bool,
    /// Send the payload unsealed, to a node that was booted with imprint.line=plain
    #[arg(long)]
    plain: bool,
    /// How long the payload is good for
    #[arg(long, default_value = "24h", value_parser = duration)]
    expires: Duration,
    /// File for what comes on the line and is not ours: the node's console
    #[arg(long)]
    log: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Cbor,
    Text,
    Cmdline,
    Cpio,
    Iso,
    Vfat,
}

/// What the rest of a kernel command line needs; with less than this left there is a warning.
const CMDLINE_ROOM: usize = 256;

/// Runs one command; what it prints goes to standard output.
pub fn run(cli: &Cli, now: Timestamp) -> Result<(), CliError> {
    match &cli.command {
        Command::Init { url } => init(cli, url, now),
        Command::Node(NodeCommand::Add { files, replace }) => add(cli, files, *replace, now),
        Command::Payload(arguments) => payload(cli, arguments, now),
        Command::Serve { listen } => serve(cli, *listen),
        Command::Inject(arguments) => inject(cli, arguments),
        Command::Nodes => {
            let state = State::open(&cli.dir)?;
            let nodes = list::nodes(&state, now)?;
            print(&if cli.json { format!("{}\n", list::nodes_json(&nodes)) } else { list::nodes_table(&nodes) })
        }
        Command::Approve { node, code } => {
            let mut state = State::open(&cli.dir)?;
            let row = enrol::approve(&mut state.store, node, code, now).map_err(CliError::Decide)?;
            print(&if cli.json {
                format!("{}\n", json!({ "node": row.node, "approved": row.key_code }))
            } else {
                format!("approved {} key {}; it gets its certificate when it asks again\n", row.node, row.key_code)
            })
        }
        Command::Deny { node } => {
            let mut state = State::open(&cli.dir)?;
            let rows = enrol::deny(&mut state.store, node, now).map_err(CliError::Decide)?;
            let codes: Vec<&str> = rows.iter().map(|row| row.key_code.as_str()).collect();
            print(&if cli.json {
                format!("{}\n", json!({ "node": node, "denied": codes }))
            } else {
                format!("denied {node} key {}\n", codes.join(", key "))
            })
        }
        Command::Log { last } => {
            let state = State::open(&cli.dir)?;
            let rows = state.store.log(*last).map_err(state::Error::Store)?;
            print(&if cli.json { format!("{}\n", list::log_json(&rows)) } else { list::log_text(&rows) })
        }
    }
}

fn init(cli: &Cli, urls: &[EstUrl], now: Timestamp) -> Result<(), CliError> {
    let state = State::init(&cli.dir, urls, now)?;
    let root = state.ca.root();
    let (sha256, bytes, dir) = (hex::encode(&root.sha256()), root.der().len(), cli.dir.display());
    if cli.json {
        return print(&format!(
            "{}\n",
            json!({ "dir": dir.to_string(), "subject": root.subject(), "sha256": sha256, "bytes": bytes })
        ));
    }
    let mut text = format!("made {} in {dir}\n", root.subject());
    let _ = writeln!(text, "root certificate  {bytes} bytes, sha256 {sha256}");
    let _ = writeln!(
        text,
        "root key          {dir}/root.key: not needed until the intermediate is renewed; keep it offline"
    );
    let _ = writeln!(text, "site pin          put the sha256 into /imprint/site of your images");
    print(&text)
}

fn add(cli: &Cli, files: &[PathBuf], replace: bool, now: Timestamp) -> Result<(), CliError> {
    let mut state = State::open(&cli.dir)?;
    let read = |path: &PathBuf| match fs::read_to_string(path) {
        Ok(text) => Ok((path.display().to_string(), text)),
        Err(source) => Err(CliError::Read { path: path.clone(), source }),
    };
    let files = files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let records = state.add_nodes(&files, replace, now)?;
    let mut text = String::new();
    for record in &records {
        let _ = writeln!(text, "added {}: {}", record.name, record.names);
    }
    if cli.json {
        let names: Vec<&str> = records.iter().map(|record| record.name.as_str()).collect();
        text = format!("{}\n", json!({ "added": names }));
    }
    print(&text)
}

fn payload(cli: &Cli, arguments: &PayloadArgs, now: Timestamp) -> Result<(), CliError> {
    // What is text is there for a person to copy.
    let for_people = matches!(arguments.form, Form::Cmdline | Form::Text);
    if arguments.output.is_none() && !for_people && io::stdout().is_terminal() {
        return Err(CliError::Terminal);
    }
    let options = Options {
        expires: arguments.expires,
        // A seed is always worth mixing in, and on a disk its bytes cost nothing.
        seed: arguments.seed || matches!(arguments.form, Form::Cpio | Form::Iso | Form::Vfat) && !arguments.no_seed,
        single_boot: arguments.single_boot,
        keep: arguments.keep,
        credentials: arguments.credentials,
        medium: match arguments.form {
            Form::Cmdline => Medium::Cmdline,
            Form::Cpio => Medium::Initramfs,
            Form::Text => Medium::Text,
            Form::Cbor | Form::Iso | Form::Vfat => Medium::Any,
        },
    };
    let mut state = State::open(&cli.dir)?;
    // The file before the payload: one that nobody can have must not void those before it.
    let file = arguments.output.as_ref().map(|path| NewFile::create(path, 0o600)).transpose();
    let file = file.map_err(state::Error::State)?;
    let made = state.payload(&arguments.node, &options, now)?;
    let bytes = match arguments.form {
        Form::Cbor => made.bytes,
        Form::Cmdline => {
            let word = compose::cmdline(&made.bytes);
            let left = CMDLINE_MAX.saturating_sub(word.len());
            if left < CMDLINE_ROOM {
                eprintln!(
                    "imprint-host: warning: it takes {} of the {CMDLINE_MAX} bytes of a kernel command line, which leaves \
                     {left} for all other words; --as cpio and --as iso have no such limit",
                    word.len()
                );
            }
            let mut line = Zeroizing::new(Vec::with_capacity(word.len().saturating_add(1)));
            line.extend_from_slice(word.as_bytes());
            line.push(b'\n');
            line
        }
        Form::Text => compose::text(&made.bytes),
        Form::Cpio => cpio::archive(&made.bytes).map_err(CliError::Cpio)?,
        Form::Iso => iso::image(&made.bytes, now).map_err(CliError::Iso)?,
        Form::Vfat => vfat::image(&made.bytes).map_err(CliError::Vfat)?,
    };
    let (Some(path), Some(file)) = (&arguments.output, file) else {
        return io::stdout().lock().write_all(&bytes).map_err(CliError::Output);
    };
    file.finish(&bytes).map_err(state::Error::State)?;
    let (shown, len) = (path.display(), bytes.len());
    print(&if cli.json {
        let (id, expiry) = (made.id.to_string(), made.expiry.to_string());
        let file = shown.to_string();
        format!("{}\n", json!({ "node": arguments.node, "file": file, "bytes": len, "id": id, "expiry": expiry }))
    } else {
        format!("wrote {shown}: {len} bytes, payload {} for {}, expires {}\n", made.id, arguments.node, made.expiry)
    })
}

fn serve(cli: &Cli, listen: SocketAddr) -> Result<(), CliError> {
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Serve(ServeError::Runtime(error)))?;
    // Listened for before the server starts, so that a signal in between is not lost.
    let stop = runtime.block_on(async { signals() }).map_err(|error| CliError::Serve(ServeError::Runtime(error)))?;
    let clock = Arc::new(Timestamp::system);
    let server = Server::start(Config { dir: cli.dir.clone(), listen, clock }).map_err(CliError::Serve)?;
    tracing::info!("EST on {}, CA in {}", server.local_addr(), cli.dir.display());
    let name = runtime.block_on(stop.first());
    tracing::info!("{name}: stopping");
    server.shutdown();
    Ok(())
}

fn inject(cli: &Cli, arguments: &InjectArgs) -> Result<(), CliError> {
    let state = State::open(&cli.dir)?;
    let jobs = match (&arguments.lines, &arguments.node, &arguments.line) {
        (Some(path), ..) => {
            let text = fs::read_to_string(path).map_err(|source| CliError::Read { path: path.clone(), source })?;
            inject::jobs(&text).map_err(|error| CliError::Jobs { path: path.clone(), error })?
        }
        (None, Some(node), Some(line)) => {
            vec![Job { node: node.clone(), line: line.clone(), power: arguments.power.clone() }]
        }
        // clap sees to it that one of them is there.
        _ => Vec::new(),
    };
    // What is wrong with one is told before any line is opened.
    for job in &jobs {
        state.record(&job.node)?;
    }
    let config = inject::Config {
        window: arguments.window,
        timeout: arguments.timeout,
        call: arguments.call,
        plain: arguments.plain,
        expires: arguments.expires,
        log: arguments.log.clone(),
        json: cli.json,
    };
    let outcomes = inject::run(state, jobs, config).map_err(|error| CliError::Serve(ServeError::Runtime(error)))?;
    let failed = outcomes.iter().filter(|(_, outcome)| !outcome.is_done()).count();
    if failed == 0 { Ok(()) } else { Err(CliError::Injected { failed, of: outcomes.len() }) }
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

fn signals() -> io::Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
}

impl Signals {
    async fn first(mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

fn print(text: &str) -> Result<(), CliError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever read us has seen enough: `imprint-host log | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(CliError::Output),
    }
}

fn est_url(text: &str) -> Result<EstUrl, String> {
    match EstUrl::try_from(text) {
        Ok(EstUrl::Line) => Err("line: needs no server; give an https:// URL".to_owned()),
        Ok(url) => Ok(url),
        Err(error) => Err(error.to_string()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    record::duration(text).ok_or_else(|| "want a duration like 24h, 30m or 7d".to_owned())
}

/// Why a command failed.
#[derive(Debug)]
pub enum CliError {
    /// Something with the state.
    State(state::Error),
    /// A record cannot be read.
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Secrets for a screen.
    Terminal,
    /// Standard output.
    Output(io::Error),
    /// The image.
    Iso(iso::TooLong),
    /// The payload does not fit into a FAT image.
    Vfat(vfat::TooLong),
    /// The archive.
    Cpio(cpio::TooLong),
    /// The server.
    Serve(ServeError),
    /// A request that waits.
    Decide(enrol::Decided),
    /// A file of lines is none.
    Jobs {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: inject::JobsError,
    },
    /// Not every node has its certificate.
    Injected {
        /// How many have not.
        failed: usize,
        /// Of how many.
        of: usize,
    },
}

impl From<state::Error> for CliError {
    fn from(error: state::Error) -> CliError {
        CliError::State(error)
    }
}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CliError::State(error) => error.fmt(f),
            CliError::Read { path, .. } => write!(f, "reading {}", Path::display(path)),
            CliError::Terminal => write!(f, "a payload is binary and secret, not for a terminal; give -o FILE"),
            CliError::Output(_) => write!(f, "writing to standard output"),
            CliError::Iso(error) => error.fmt(f),
            CliError::Vfat(error) => error.fmt(f),
            CliError::Cpio(error) => error.fmt(f),
            CliError::Serve(error) => error.fmt(f),
            CliError::Decide(error) => error.fmt(f),
            CliError::Jobs { path, error } => write!(f, "{}: {error}", Path::display(path)),
            CliError::Injected { failed, of } => write!(f, "{failed} of {of} nodes failed; see above"),
        }
    }
}

impl std::error::Error for CliError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CliError::State(error) => error.source(),
            CliError::Read { source, .. } | CliError::Output(source) => Some(source),
            CliError::Serve(error) => error.source(),
            CliError::Decide(error) => error.source(),
            CliError::Terminal
            | CliError::Iso(_)
            | CliError::Vfat(_)
            | CliError::Cpio(_)
            | CliError::Jobs { .. }
            | CliError::Injected { .. } => None,
        }
    }
}
