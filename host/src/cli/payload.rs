//! `imprint-host payload`: the form of a payload, where it is written, and what the user is told. Never decides what is in
//! the payload; `compose` does.

use std::io::{self, IsTerminal};
use std::path::Path;

use imprint::options::CMDLINE_MAX;
use imprint::shown::line;
use imprint::time::Timestamp;
use zeroize::Zeroizing;

use super::args::{Form, PayloadArgs};
use super::published::Written;
use super::{Cli, CliError, open, say};
use crate::compose::{self, Medium, Options};
use crate::output::{Output, OutputError};
use crate::{cpio, iso, vfat};

/// Bytes that the rest of a kernel command line needs. With fewer bytes left, the command warns.
const CMDLINE_ROOM: usize = 256;

pub(super) fn payload(cli: &Cli, arguments: &PayloadArgs, now: Timestamp) -> Result<(), CliError> {
    if arguments.credentials && arguments.form == Form::Userpass {
        return Err(CliError::NoToken);
    }
    // Text forms may go to a terminal: a person copies them from there.
    let for_people = matches!(arguments.form, Form::Cmdline | Form::Text | Form::Userpass);
    if arguments.output.is_none() && !for_people && io::stdout().is_terminal() {
        return Err(CliError::Terminal);
    }
    let options = Options {
        expires: arguments.expires,
        // Media with enough space always get a seed: mixing it in never harms.
        seed: arguments.seed || matches!(arguments.form, Form::Cpio | Form::Iso | Form::Vfat) && !arguments.no_seed,
        single_boot: arguments.single_boot,
        keep: arguments.keep,
        credentials: arguments.credentials,
        unsigned: arguments.unsigned,
        medium: match arguments.form {
            Form::Cmdline => Medium::Cmdline,
            Form::Cpio => Medium::Initramfs,
            Form::Text => Medium::Text,
            Form::Cbor | Form::Userpass | Form::Iso | Form::Vfat => Medium::Any,
        },
    };
    let output = destination(arguments, for_people)?;
    let mut state = open(cli)?;
    let (made, (bytes, staged)) = state.payload_after(&arguments.node, &options, now, |made| {
        let bytes = rendered(arguments.form, &made.bytes, now)?;
        let staged = output.map(|output| output.stage(&bytes)).transpose().map_err(CliError::Write)?;
        Ok::<_, CliError>((bytes, staged))
    })?;
    let (id, node) = (made.id, &arguments.node);
    let voided = match made.voided {
        0 => String::new(),
        1 => format!("; an earlier payload of {node} is void now, --keep leaves it valid"),
        more => format!("; {more} earlier payloads of {node} are void now, --keep leaves them valid"),
    };
    let ended = match made.superseded.join(", key ") {
        codes if codes.is_empty() => codes,
        codes => format!("; revoked the certificates of earlier payloads: key {codes}"),
    };
    let (Some(path), Some(staged)) = (&arguments.output, staged) else {
        say::raw(&bytes)?;
        // Standard output holds the payload alone, so the note goes to standard error, if that is a terminal.
        if !(voided.is_empty() && ended.is_empty()) && io::stderr().is_terminal() {
            say::note(&format!("payload {id} for {node}, expires {}{voided}{ended}", made.expiry));
        }
        return Ok(());
    };
    staged.finish(&bytes).map_err(CliError::Write)?;
    let (file, len) = (path.display().to_string(), bytes.len());
    if cli.json {
        return say::json(&Written {
            node,
            file,
            bytes: len,
            id: id.to_string(),
            expiry: made.expiry.to_string(),
            voided: made.voided,
            superseded: &made.superseded,
        });
    }
    say::text(&format!(
        "wrote {}: {len} bytes, payload {id} for {node}, expires {}{voided}{ended}\n",
        line(&file),
        made.expiry
    ))
}

/// Opens the destination of `-o`. An error if it must not be written to.
fn destination(arguments: &PayloadArgs, for_people: bool) -> Result<Option<Output>, CliError> {
    let Some(path) = &arguments.output else { return Ok(None) };
    if let Some(overwrite) = arguments.overwrite.as_ref().filter(|overwrite| *overwrite != path) {
        let (path, overwrite) = (path.clone(), overwrite.clone());
        return Err(CliError::Write(OutputError::OtherDrive { path, overwrite }));
    }
    let output = Output::open(path).map_err(CliError::Write)?;
    if output.is_terminal() && !for_people {
        return Err(CliError::Terminal);
    }
    match output.drive() {
        None if arguments.overwrite.is_some() => Err(CliError::Write(OutputError::NoDrive(path.clone()))),
        Some(_) if !matches!(arguments.form, Form::Iso | Form::Vfat) => {
            Err(CliError::Write(OutputError::NoImage(path.clone())))
        }
        Some(drive) => {
            if let Some(holds) = drive.holds().filter(|_| arguments.overwrite.is_none())
                && !given_up(path, drive.bytes(), holds)
            {
                let (path, holds) = (path.clone(), holds.to_owned());
                return Err(CliError::Write(OutputError::Holds { path, holds }));
            }
            Ok(Some(output))
        }
        None => Ok(Some(output)),
    }
}

/// Asks at the terminal whether a drive's contents may be lost. Yes is to type the drive's name twice.
fn given_up(path: &Path, bytes: u64, holds: &str) -> bool {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return false;
    }
    let name = path.display().to_string();
    say::ask(&format!("{} has {bytes} bytes and holds {}. All of that will be lost.\n", line(&name), line(holds)));
    ["Type the name of the drive to overwrite it: ", "And once more: "].iter().all(|question| {
        say::ask(question);
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).is_ok() && answer.trim_end_matches(['\r', '\n']) == name
    })
}

/// The payload in the form that is written.
fn rendered(form: Form, payload: &[u8], now: Timestamp) -> Result<Zeroizing<Vec<u8>>, CliError> {
    Ok(match form {
        Form::Cbor => Zeroizing::new(payload.to_vec()),
        Form::Cmdline => {
            let word = compose::cmdline(payload);
            let left = CMDLINE_MAX.saturating_sub(word.len());
            if left < CMDLINE_ROOM {
                say::warn(format_args!(
                    "it takes {} of the {CMDLINE_MAX} bytes of a kernel command line, which leaves \
                     {left} for all other words; --as cpio and --as iso have no such limit",
                    word.len()
                ));
            }
            let mut line = Zeroizing::new(Vec::with_capacity(word.len().saturating_add(1)));
            line.extend_from_slice(word.as_bytes());
            line.push(b'\n');
            line
        }
        Form::Text => compose::text(payload),
        Form::Userpass => compose::userpass(payload).ok_or(CliError::NoToken)?,
        Form::Cpio => cpio::archive(payload).map_err(CliError::Cpio)?,
        Form::Iso => iso::image(payload, now).map_err(CliError::Iso)?,
        Form::Vfat => vfat::image(payload).map_err(CliError::Vfat)?,
    })
}
