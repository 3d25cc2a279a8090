//! `imprint-host key`: makes admission keys for sticks and images, and lists them. `state` stores the public keys; the private
//! key is written once, and not kept.

use std::path::Path;

use base64ct::{Base64, Encoding};
use imprint::key_code::KeyCode;
use imprint::shown::line;
use imprint::time::Timestamp;
use zeroize::Zeroizing;

use super::args::{KeyCommand, KeyForm, MakeKeyArgs};
use super::payload::{Asked, destination};
use super::published::{ForgottenKey, Keys, ListedKey, MadeKey as Shown};
use super::{Cli, CliError, open, say};
use crate::output::Output;
use crate::state::{self, KeyError, MadeKey, public_key};
use crate::store::AdmissionKeyRow;
use crate::{cpio, iso, vfat};

pub(super) fn key(cli: &Cli, command: &KeyCommand, now: Timestamp) -> Result<(), CliError> {
    match command {
        KeyCommand::Make(arguments) => make(cli, arguments, now),
        KeyCommand::Add { name, file, image } => {
            let bytes = std::fs::read(file).map_err(|source| CliError::Read { path: file.clone(), source })?;
            let public = public_key(&bytes).map_err(|error| failed(error, file))?;
            open(cli)?.list_key(name, public, *image, now).map_err(CliError::Key)?;
            let shown = Shown::of(name, &public, *image, None);
            say::either(cli, &shown, &format!("{name}: admission key {}\n{}", shown.code, of_record(name)))
        }
        KeyCommand::List => list(cli),
        KeyCommand::Forget { name } => {
            let AdmissionKeyRow { public, .. } = open(cli)?.forget_key(name, now).map_err(CliError::Key)?;
            let code = KeyCode::of(&public).to_string();
            let words =
                format!("forgot admission key {name}, code {code}; records that name it let nobody in for it\n");
            say::either(cli, &ForgottenKey { forgotten: name, code: &code }, &words)
        }
    }
}

fn failed(error: KeyError, file: &Path) -> CliError {
    match error {
        KeyError::NoPublicKey => CliError::KeyFile { path: file.to_owned(), source: error },
        error => CliError::Key(error),
    }
}

fn make(cli: &Cli, arguments: &MakeKeyArgs, now: Timestamp) -> Result<(), CliError> {
    let MakeKeyArgs { name, form, image, output, overwrite } = arguments;
    // What is appended to an initramfs goes to whoever boots it.
    let in_image = *image || *form == KeyForm::Cpio;
    if output.is_none() && *form != KeyForm::Pem {
        return Err(CliError::KeyToFile);
    }
    let drives = matches!(form, KeyForm::Iso | KeyForm::Vfat);
    let asked = Asked { output: output.as_deref(), overwrite: overwrite.as_deref(), for_people: true, drives };
    let destination = destination(&asked)?;
    let made = MadeKey::new().map_err(CliError::Key)?;
    let bytes = rendered(*form, made.pem.as_bytes(), now)?;
    let staged = destination.map(|output: Output| output.stage(&bytes)).transpose().map_err(CliError::Write)?;
    let mut state = open(cli)?;
    state.list_key(name, made.public, in_image, now).map_err(CliError::Key)?;
    let whose = match in_image {
        true => "everybody who has the image has the key",
        false => "whoever has the medium has the key, and can copy it",
    };
    let Some(staged) = staged else {
        // Standard output holds the key alone, for a pipe.
        say::note(&format!("admission key {}; {whose}", KeyCode::of(&made.public)));
        say::note(of_record(name).trim_end());
        return say::raw(&bytes);
    };
    if let Err(error) = staged.finish(&bytes) {
        // Nobody has the key, so it is not listed either. The first error is the one to report.
        let _ = state.forget_key(name, now);
        return Err(CliError::Write(error));
    }
    let file = output.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let shown = Shown::of(name, &made.public, in_image, Some(&file));
    let words = format!("wrote {}: admission key {}; {whose}\n{}", line(&file), shown.code, of_record(name));
    say::either(cli, &shown, &words)
}

/// What a record needs to name the key.
fn of_record(name: &str) -> String {
    format!("records that it lets in need a bind, and: admit = \"key\", admission_key = \"{name}\"\n")
}

fn rendered(form: KeyForm, pem: &[u8], now: Timestamp) -> Result<Zeroizing<Vec<u8>>, CliError> {
    Ok(match form {
        KeyForm::Pem => Zeroizing::new(pem.to_vec()),
        KeyForm::Vfat => vfat::stick(pem).map_err(CliError::Vfat)?,
        KeyForm::Iso => iso::stick(pem, now).map_err(CliError::Iso)?,
        KeyForm::Cpio => cpio::archive_of("imprint/key", pem).map_err(CliError::Cpio)?,
    })
}

fn list(cli: &Cli) -> Result<(), CliError> {
    let state = open(cli)?;
    let rows = state.store.admission_keys().map_err(state::Error::Store)?;
    let keys: Vec<ListedKey> = rows
        .iter()
        .map(|AdmissionKeyRow { name, public, in_image, made_at }| ListedKey {
            name,
            code: KeyCode::of(public).to_string(),
            public: Base64::encode_string(public),
            in_image: *in_image,
            made_at: made_at.to_string(),
        })
        .collect();
    let words: String = keys
        .iter()
        .map(|key| {
            let place = if key.in_image { "image" } else { "stick" };
            format!("{}  {}  {place}  {}  {}\n", key.name, key.code, key.public, key.made_at)
        })
        .collect();
    let words =
        if words.is_empty() { "no admission keys; imprint-host key make makes one\n".to_owned() } else { words };
    say::either(cli, &Keys { keys }, &words)
}
