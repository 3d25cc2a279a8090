//! `imprint-host payload`: the form of a payload, where it is written, and what the user is told. Never decides what is in
//! the payload; `compose` does.

use std::io::{self, IsTerminal};
use std::path::{self, Path, PathBuf};

use imprint::medium;
use imprint::options::CMDLINE_MAX;
use imprint::shown::line;
use imprint::time::Timestamp;
use zeroize::Zeroizing;

use super::args::{Form, PayloadArgs};
use super::published::Written;
use super::{Cli, CliError, open, say};
use crate::compose::{self, Medium, Options};
use crate::output::{Output, OutputError};
use crate::{cpio, efivar, gpt, iso, qemu, smbios, user_data, vfat};

/// Bytes that the rest of a kernel command line needs. With fewer bytes left, the command warns.
const CMDLINE_ROOM: usize = 256;
/// The bytes that the other SMBIOS structures of a machine may need.
const SMBIOS_ROOM: usize = 4096;

pub(super) fn payload(cli: &Cli, arguments: &PayloadArgs, now: Timestamp) -> Result<(), CliError> {
    if arguments.credentials && arguments.form == Form::Userpass {
        return Err(CliError::NoToken);
    }
    if arguments.output.is_none() && arguments.form == Form::Qemu {
        return Err(CliError::QemuStandardOutput);
    }
    let about = About::of(arguments.form);
    let for_people = about.for_people;
    if arguments.output.is_none() && !for_people && io::stdout().is_terminal() {
        return Err(CliError::Terminal);
    }
    let options = Options {
        expires: arguments.expires,
        seed: arguments.seed || about.has_seed && !arguments.no_seed,
        single_boot: arguments.single_boot,
        keep: arguments.keep,
        credentials: arguments.credentials,
        unsigned: arguments.unsigned,
        admitted: None,
        medium: about.medium,
    };
    let asked = Asked {
        output: arguments.output.as_deref(),
        overwrite: arguments.overwrite.as_deref(),
        for_people,
        drives: matches!(arguments.form, Form::Iso | Form::Vfat),
    };
    let output = destination(&asked)?;
    let for_qemu = for_qemu(arguments, output.as_ref())?;
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
        if !bytes.ends_with(b"\n") && for_people && io::stdout().is_terminal() {
            say::raw(b"\n")?;
        }
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
            qemu: for_qemu.as_deref().map(|value| [qemu::OPTION, value]),
        });
    }
    if let Some(value) = for_qemu {
        // Standard output holds the argument alone, for a script.
        if io::stderr().is_terminal() {
            say::note(&format!("payload {id} for {node}, expires {}{voided}{ended}", made.expiry));
        }
        return say::text(&format!("{} {}\n", qemu::OPTION, qemu::quoted(&value)));
    }
    say::text(&format!(
        "wrote {}: {len} bytes, payload {id} for {node}, expires {}{voided}{ended}\n",
        line(&file),
        made.expiry
    ))
}

/// What the command knows of a form.
struct About {
    /// The medium in which the payload ends up. A form for several media has the rules of the strictest of them.
    medium: Medium,
    /// Whether it is text that a person copies, so that it may go to a terminal.
    for_people: bool,
    /// Whether it always has a seed, because there is room for one, and mixing in a seed never harms.
    has_seed: bool,
}

impl About {
    fn of(form: Form) -> About {
        use medium::Medium as Held;
        let (medium, for_people, has_seed) = match form {
            Form::Cbor => (Medium::Any, false, false),
            Form::Userpass => (Medium::Any, true, false),
            Form::Text => (Medium::Text, true, false),
            Form::Cmdline => (Medium::Held(Held::Cmdline), true, false),
            Form::Cpio => (Medium::Held(Held::Initramfs), false, true),
            Form::Iso | Form::Vfat => (Medium::Held(Held::ConfigDrive), false, true),
            Form::Gpt => (Medium::Held(Held::Partition), false, true),
            Form::Credential => (Medium::Held(Held::UnitCredential), false, true),
            Form::Smbios => (Medium::Held(Held::Smbios), true, false),
            Form::Qemu => (Medium::Held(Held::FwCfg), false, true),
            // The memory for variables is small, and some machines whose memory was full did not start.
            Form::Efivar => (Medium::Held(Held::EfiVariable), false, false),
            // Everybody on the node can read it, so a seed would not be secret.
            Form::UserData | Form::Multipart => (Medium::Held(Held::OpenStackUserData), true, false),
        };
        About { medium, for_people, has_seed }
    }
}

/// The value of QEMU's argument, for a payload that QEMU is to read from a file.
fn for_qemu(arguments: &PayloadArgs, output: Option<&Output>) -> Result<Option<String>, CliError> {
    if arguments.form != Form::Qemu {
        return Ok(None);
    }
    let (Some(path), Some(output)) = (&arguments.output, output) else { return Err(CliError::QemuStandardOutput) };
    if !output.is_file() {
        return Err(CliError::QemuNoFile(path.clone()));
    }
    // QEMU may be started in another directory.
    let full: PathBuf = path::absolute(path).map_err(|source| CliError::Read { path: path.clone(), source })?;
    qemu::value(&full).map(Some).ok_or(CliError::QemuName(full))
}

/// What is asked of a destination.
pub(super) struct Asked<'a> {
    /// `-o`
    pub(super) output: Option<&'a Path>,
    /// `--overwrite`
    pub(super) overwrite: Option<&'a Path>,
    /// What is written is text that a person copies.
    pub(super) for_people: bool,
    /// What is written is the image of a drive.
    pub(super) drives: bool,
}

/// Opens the destination of `-o`. An error if it must not be written to.
pub(super) fn destination(asked: &Asked<'_>) -> Result<Option<Output>, CliError> {
    let Some(path) = asked.output else { return Ok(None) };
    if let Some(overwrite) = asked.overwrite.filter(|overwrite| *overwrite != path) {
        let (path, overwrite) = (path.to_owned(), overwrite.to_owned());
        return Err(CliError::Write(OutputError::OtherDrive { path, overwrite }));
    }
    let output = Output::open(path).map_err(CliError::Write)?;
    if output.is_terminal() && !asked.for_people {
        return Err(CliError::Terminal);
    }
    match output.drive() {
        None if asked.overwrite.is_some() => Err(CliError::Write(OutputError::NoDrive(path.to_owned()))),
        Some(_) if !asked.drives => Err(CliError::Write(OutputError::NoImage(path.to_owned()))),
        Some(drive) => {
            if let Some(holds) = drive.holds().filter(|_| asked.overwrite.is_none())
                && !given_up(path, drive.bytes(), holds)
            {
                let (path, holds) = (path.to_owned(), holds.to_owned());
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
        Form::Cbor | Form::Credential | Form::Qemu => Zeroizing::new(payload.to_vec()),
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
        Form::Gpt => gpt::image(payload).map_err(CliError::Gpt)?,
        Form::Efivar => efivar::file(payload),
        Form::Smbios => fitting(smbios::string(payload), smbios::ALL_STRUCTURES - SMBIOS_ROOM, |bytes| {
            format!(
                "it takes {bytes} of the {} bytes that all SMBIOS structures of a machine have together, unless their \
                 entry point is that of SMBIOS 3 (QEMU: -machine smbios-entry-point-type=64); --as qemu has no such limit",
                smbios::ALL_STRUCTURES
            )
        }),
        Form::UserData => fitting(user_data::armour(payload), user_data::OPENSTACK_MAX, too_long_for_a_cloud),
        Form::Multipart => fitting(user_data::multipart(payload), user_data::OPENSTACK_MAX, too_long_for_a_cloud),
    })
}

/// Warns if a text has more bytes than its medium may have. The limit depends on the machine or the cloud, so this is
/// not an error.
fn fitting(text: Zeroizing<Vec<u8>>, most: usize, warning: impl Fn(usize) -> String) -> Zeroizing<Vec<u8>> {
    if text.len() > most {
        say::warn(format_args!("{}", warning(text.len())));
    }
    text
}

fn too_long_for_a_cloud(bytes: usize) -> String {
    format!(
        "it has {bytes} bytes, and OpenStack takes {} bytes of user data, other clouds fewer; --as iso has no such limit",
        user_data::OPENSTACK_MAX
    )
}
