//! The commands of `imprint-host`: arguments in, text or JSON out, exit code 0 or 1 (clap itself exits with 2). Decides
//! nothing about certificates; `enrol` does.

mod actor;
mod args;
mod bundle;
mod callers;
mod error;
mod image;
mod network;
mod payload;
mod published;
mod say;
mod show;
mod key;
mod signer;
mod warnings;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::CommandFactory;
use imprint::hex;
use imprint::payload::EstUrl;
use imprint::shown::line;
use imprint::time::Timestamp;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing_subscriber::fmt::format::debug_fn;
use zeroize::Zeroizing;

pub use args::Cli;
use args::{CaCommand, Command, InjectArgs, NodeCommand};
pub use error::CliError;
use published::{Approved, Copied, Made, Revoked, Rotated, Stormed, Warned};

use crate::inject::{self, Job, Pace};
use crate::load::{self, LoadError, Storm};
use crate::serve::{Config, ServeError, Server, Tell, Webhook};
use crate::state::{self, Added, Adding, State};
use crate::store::StoreError;
use crate::{enrol, list, record, room};

/// Runs one command. Its answer goes to standard output.
pub fn run(cli: &Cli, now: Timestamp) -> Result<(), CliError> {
    match &cli.command {
        Command::Init { url } => init(cli, url, now),
        Command::Node(NodeCommand::Add { files, csv, template, replace, allow_duplicate }) => {
            let adding = Adding { replace: *replace, allow_duplicate: allow_duplicate.clone() };
            add(cli, files, csv.as_ref(), template.as_ref(), &adding, now)
        }
        Command::Payload(arguments) => payload::payload(cli, arguments, now),
        Command::Show => {
            let state = open(cli)?;
            if cli.json { say::json(&show::json(&state)?) } else { say::text(&show::text(&state, now)?) }
        }
        Command::Serve { listen, metrics, door, hook, webhook, webhook_ca, base64 } => {
            let webhook = webhook.clone().map(|address| Webhook::new(address, webhook_ca.as_deref()));
            let tell = Tell { hook: hook.clone(), webhook: webhook.transpose().map_err(CliError::Webhook)? };
            serve(Config {
                dir: cli.dir.clone(),
                listen: *listen,
                metrics: *metrics,
                doors: door.clone(),
                layout: *base64,
                tell,
                clock: Arc::new(Timestamp::system),
            })
        }
        Command::Bundle(command) => bundle::bundle(cli, command, now),
        Command::Inject(arguments) => inject(cli, arguments),
        Command::Nodes { door } => callers::nodes(cli, *door, now),
        Command::Admit { caller, node, within: None } => callers::admit(cli, caller, node.as_deref(), now),
        Command::Admit { caller, within: Some(within), .. } => callers::arm(cli, caller, *within, now),
        Command::Approve { node, code } => {
            let approve = |state: &mut State| enrol::approve(&mut state.store, node, code, now);
            let row = decided(cli, |state| approve(state).map_err(CliError::Decide))?;
            say::either(cli, &Approved { node: &row.node, approved: &row.key_code }, &{
                format!("approved {} key {}; it gets its certificate when it asks again\n", row.node, row.key_code)
            })
        }
        Command::Deny { node } => callers::deny(cli, node, now),
        Command::Revoke { node, key, reason } => {
            let revoke = |state: &mut State| enrol::revoke(&mut state.store, node, key.as_deref(), reason.code(), now);
            let enrol::Revoked { certificates, payloads, callers } =
                decided(cli, |state| revoke(state).map_err(CliError::Revoke))?;
            let codes: Vec<&str> = certificates.iter().map(|row| row.key_code.as_str()).collect();
            say::either(cli, &Revoked { node, revoked: &codes, payloads_void: payloads, not_let_in: &callers }, &{
                let certificates =
                    if codes.is_empty() { "none".to_owned() } else { format!("key {}", codes.join(", key ")) };
                let callers = match callers.as_slice() {
                    [] => String::new(),
                    callers => format!("; not let in any more: line key {}", state::some(callers)),
                };
                format!("revoked certificates of {node}: {certificates}; payloads made void: {payloads}{callers}\n")
            })
        }
        Command::Ca(CaCommand::Rotate { root_key }) => {
            let mut state = open(cli)?;
            state.rotate(root_key.as_deref(), now, &mut warnings::waits)?;
            let (id, until) = (state.ca.current().id(), state.ca.current().not_after());
            say::either(cli, &Rotated { intermediate: &id, not_after: until.to_string() }, &{
                format!(
                    "made intermediate {id}, valid until {until}; serve uses it from its next request on. Take the root's \
                     key offline again\n"
                )
            })
        }
        Command::Key(command) => key::key(cli, command, now),
        Command::Signer { command } => signer::signer(cli, command.as_ref(), now),
        Command::Network { file, output } => network::network(cli, file, output),
        Command::Image(arguments) => image::image(cli, arguments),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "imprint-host", &mut script);
            say::raw(&script)
        }
        Command::Backup { to } => {
            State::open(&cli.dir)?.back_up(to, &mut warnings::waits)?;
            let shown = to.display().to_string();
            say::either(cli, &Copied { backup: &shown }, &{
                format!(
                    "copied {} to {}, without root.key; keep it as secret as the original\n",
                    line(&cli.dir.display().to_string()),
                    line(&shown)
                )
            })
        }
        Command::Load { nodes, timeout, bundle } => {
            load(cli, load::Wanted { nodes: *nodes, bundles: *bundle, limit: *timeout })
        }
        Command::Log { last } => {
            let read = |state: &mut State| {
                state.store.reading(|store| Ok::<_, StoreError>((store.log(*last)?, store.not_written()?)))
            };
            let (rows, unwritten) = decided(cli, |state| Ok(read(state).map_err(state::Error::Store)?))?;
            if cli.json {
                say::json(&list::log_json(&rows))
            } else {
                say::text(&list::log_text(&rows, unwritten.as_ref()))
            }
        }
    }
}

/// Opens the state and notes for the audit log who runs this command.
fn open(cli: &Cli) -> Result<State, CliError> {
    let mut state = State::open(&cli.dir)?;
    state.store.run_by(actor::name());
    Ok(state)
}

/// Runs a command that has to work on a full disk, too. If the disk is full, shortens the reserve (`room`) and tries again.
fn decided<T>(cli: &Cli, mut act: impl FnMut(&mut State) -> Result<T, CliError>) -> Result<T, CliError> {
    let mut given_up = false;
    loop {
        let done = open(cli).and_then(|mut state| act(&mut state));
        let no_room = done.as_ref().err().is_some_and(|error| room::is_missing(error, &cli.dir));
        if no_room && room::give_up(&cli.dir).unwrap_or_default() {
            given_up = true;
            continue;
        }
        if given_up {
            // Best effort: `serve` reports a reserve that is too small.
            let _ = room::restore(&cli.dir, 0);
        }
        return done;
    }
}

fn init(cli: &Cli, urls: &[EstUrl], now: Timestamp) -> Result<(), CliError> {
    let state = State::init_in_turn(&cli.dir, urls, now, &mut warnings::waits)?;
    let root = state.ca.root();
    let (sha256, bytes, dir) = (hex::encode(&root.sha256()), root.der().len(), cli.dir.display());
    if cli.json {
        let (dir, subject) = (dir.to_string(), root.subject().as_str());
        return say::json(&Made { dir, subject, sha256, bytes, signers: signer::published(&state)? });
    }
    let dir = line(&dir.to_string());
    let mut text = format!("made {} in {dir}\n", root.subject());
    let _ = writeln!(text, "root certificate  {bytes} bytes, sha256 {sha256}");
    let _ = writeln!(
        text,
        "root key          {dir}/root.key: not needed until the intermediate is renewed; keep it offline"
    );
    let _ = writeln!(text, "site pin          put the sha256 into /imprint/site of your images");
    for (signer, _) in state.ca.signers().map_err(state::Error::State)? {
        let _ = writeln!(
            text,
            "signer            {}, signer.key: signs every payload. Images with this line in /imprint/site, too, take no other:",
            signer.kid()
        );
        let _ = writeln!(text, "                  {signer}");
    }
    say::text(&text)
}

fn add(
    cli: &Cli,
    files: &[PathBuf],
    csv: Option<&PathBuf>,
    template: Option<&PathBuf>,
    adding: &Adding,
    now: Timestamp,
) -> Result<(), CliError> {
    let mut state = open(cli)?;
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source| CliError::Read { path, source }
    };
    let read = |path: &PathBuf| fs::read_to_string(path).map_err(failed(path));
    let Added { records, warnings } = match csv {
        None => {
            let named = |path: &PathBuf| Ok((path.display().to_string(), read(path)?));
            let files = files.iter().map(named).collect::<Result<Vec<_>, CliError>>()?;
            state.add_nodes_as(&files, adding, now)?
        }
        Some(path) => {
            let template =
                template.map(|path| Ok::<_, CliError>((path.display().to_string(), read(path)?))).transpose()?;
            let (file, bytes) = (path.display().to_string(), fs::read(path).map_err(failed(path))?);
            let (template_file, template) = template.unwrap_or_default();
            let rows = record::csv::rows(&file, &bytes, (&template_file, &template)).map_err(state::Error::Record)?;
            state.add_rows(&file, &rows, adding, now)?
        }
    };
    warnings::of_records(&warnings);
    let mut text = String::new();
    for record in &records {
        let _ = writeln!(text, "added {}: {}", record.name, line(&record.names.to_string()));
    }
    if cli.json {
        let names: Vec<&str> = records.iter().map(|record| record.name.as_str()).collect();
        let warnings = warnings.iter().map(|warning| Warned {
            about: warning.word(),
            node: warning.node(),
            other: warning.other(),
            message: warning.to_string(),
        });
        return say::json(&published::Added { added: names, warnings: warnings.collect() });
    }
    say::text(&text)
}

/// Raises the limit of open files to the hard limit: each connection is an open file.
fn more_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn serve(config: Config) -> Result<(), CliError> {
    more_files();
    // Each event is one line: `line` escapes line breaks in values.
    let field = debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{}", line(&format!("{value:?}"))),
        name => write!(writer, " {name}={}", line(&format!("{value:?}"))),
    });
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // No internal errors: tracing would report a failed write to standard error on standard error, and panic.
    log.with_target(false).fmt_fields(field).log_internal_errors(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Serve(ServeError::Runtime(error)))?;
    // Before the server starts, so that no signal is lost in between.
    let stop = runtime.block_on(async { signals() }).map_err(|error| CliError::Serve(ServeError::Runtime(error)))?;
    let dir = config.dir.clone();
    let server = Server::start(config).map_err(CliError::Serve)?;
    tracing::info!("EST on {}, CA in {}", server.local_addr(), dir.display());
    if let Some(address) = server.metrics_addr() {
        tracing::info!("metrics on http://{address}/metrics");
    }
    for door in server.doors() {
        tracing::info!("door {door}");
    }
    let name = runtime.block_on(stop.first());
    tracing::info!("{name}: stopping");
    server.shutdown();
    Ok(())
}

fn load(cli: &Cli, wanted: load::Wanted) -> Result<(), CliError> {
    more_files();
    let failed = |what| move |error| CliError::Load(Box::new(LoadError::System(what, error)));
    let program = std::env::current_exe().map_err(failed("finding this program"))?;
    let work = tempfile::tempdir().map_err(failed("making a directory"))?;
    let storm = load::storm(&program, work.path(), wanted, &mut |text| {
        if !cli.json {
            say::ask(&format!("{text}\n"));
        }
    });
    let storm = storm.map_err(|error| CliError::Load(Box::new(error)))?;
    let millis = |of_hundred| u64::try_from(storm.percentile(of_hundred).as_millis()).unwrap_or(u64::MAX);
    let Storm { nodes, enrolled, doubled, available, retries, busy, memory, failure, .. } = &storm;
    let report = Stormed {
        nodes: *nodes,
        enrolled: *enrolled,
        doubled: *doubled,
        available: *available,
        retries: *retries,
        busy: *busy,
        memory: *memory,
        failure: failure.as_deref(),
        half_ms: millis(50),
        p99_ms: millis(99),
        last_ms: millis(100),
    };
    say::either(cli, &report, &format!("{storm}\n"))?;
    match (storm.failed(), storm.doubled) {
        (0, 0) => Ok(()),
        (failed, doubled) => Err(CliError::Stormed { failed, doubled }),
    }
}

fn inject(cli: &Cli, arguments: &InjectArgs) -> Result<(), CliError> {
    let state = open(cli)?;
    let mut jobs = match (&arguments.lines, &arguments.node, &arguments.line) {
        (Some(path), ..) => {
            let jobs = lines(path)?;
            warnings::of_file(path, &jobs);
            jobs
        }
        (None, Some(node), Some(line)) => {
            warnings::of_words(line.script(), arguments.power.as_ref());
            vec![Job {
                node: node.clone(),
                line: line.clone(),
                power: arguments.power.clone(),
                log: arguments.log.clone(),
            }]
        }
        // clap requires either --lines, or a node with --line.
        _ => Vec::new(),
    };
    // A node without a valid record is an error before any line is opened.
    for job in &jobs {
        state.record(&job.node)?;
    }
    if let (Some(_), Some(folder)) = (&arguments.lines, &arguments.log) {
        // Other users must not read what nodes print on their consoles.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| CliError::LogFolder { path: folder.clone(), source })?;
        for job in &mut jobs {
            job.log = Some(folder.join(format!("{}.log", job.node)));
        }
    }
    let config = inject::Config {
        window: arguments.window,
        timeout: arguments.timeout,
        call: arguments.call,
        plain: arguments.plain,
        unsigned: arguments.unsigned,
        expires: arguments.expires,
        json: cli.json,
        pace: Pace { every: arguments.power_every, at_once: arguments.power_at_once },
    };
    let outcomes = inject::run(state, jobs, config).map_err(|error| CliError::Serve(ServeError::Runtime(error)))?;
    let failed = outcomes.iter().filter(|(_, outcome)| !outcome.is_done()).count();
    if failed == 0 { Ok(()) } else { Err(CliError::Injected { failed, of: outcomes.len() }) }
}

/// Reads a file of lines. It may be a pipe, and may hold passwords, so its text is wiped.
fn lines(path: &Path) -> Result<Vec<Job>, CliError> {
    let text = fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|source| CliError::Read { path: path.to_owned(), source })?;
    inject::jobs(&path.display().to_string(), &text).map_err(CliError::Lines)
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
