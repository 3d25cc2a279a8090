//! `imprint-host signer`: shows which keys sign payloads and which lines images have to name, and changes the keys.
//! `state` makes the changes.

use std::fmt::Write as _;

use imprint::payload::signed::Signer;
use imprint::time::Timestamp;

use super::args::SignerCommand;
use super::published::{ShownSigner, Signers};
use super::{Cli, CliError, open, say, warnings};
use crate::ca::Standing;
use crate::state::{self, Signing, State};

pub(super) fn signer(cli: &Cli, command: Option<&SignerCommand>, now: Timestamp) -> Result<(), CliError> {
    let mut state = open(cli)?;
    let signing = match command {
        None => None,
        Some(SignerCommand::New { key }) => Some(Signing::New(key.as_deref())),
        Some(SignerCommand::Rotate { announce: true, key }) => Some(Signing::Announce(key.as_deref())),
        Some(SignerCommand::Rotate { announce: false, key }) => Some(Signing::Rotate(key.as_deref())),
        Some(SignerCommand::Retire { kid }) => Some(Signing::Retire(kid)),
    };
    if let Some(signing) = signing {
        let signer = state.sign_with(signing, now, &mut warnings::waits)?;
        if matches!(signing, Signing::Rotate(_)) {
            warnings::of_rotation(signer.kid());
        }
    }
    if !state.ca.signers().map_err(state::Error::State)?.is_empty() {
        warnings::of_unbound(&unbound(&state)?);
    }
    let value = Signers { signers: published(&state)? };
    say::either(cli, &value, &lines(&state)?)
}

/// The nodes whose records name no machine. A record that an update made invalid has no payloads.
fn unbound(state: &State) -> Result<Vec<String>, CliError> {
    let nodes = state.store.nodes().map_err(state::Error::Store)?;
    let names = nodes.into_iter().map(|row| row.name);
    Ok(names.filter(|name| state.record(name).is_ok_and(|record| !record.names_a_machine())).collect())
}

/// The lines for a site pin.
pub(super) fn lines(state: &State) -> Result<String, CliError> {
    let mut text = String::new();
    for (signer, standing) in state.ca.signers().map_err(state::Error::State)? {
        let kid = signer.kid();
        let words = match standing {
            Standing::Signs => "signs every payload".to_owned(),
            Standing::Announced => "announced; signs after the next imprint-host signer rotate".to_owned(),
            Standing::Listed => format!("signed before; imprint-host signer retire {kid} takes it off this list"),
        };
        let _ = writeln!(text, "{signer} # {kid}, {words}");
    }
    if text.is_empty() {
        text.push_str("# payloads are not signed; run imprint-host signer new to make a key\n");
    }
    Ok(text)
}

/// The same signers, for programs.
pub(super) fn published(state: &State) -> Result<Vec<ShownSigner>, CliError> {
    let signers = state.ca.signers().map_err(state::Error::State)?;
    let shown = |(signer, standing): &(Signer, Standing)| ShownSigner {
        kid: signer.kid().to_string(),
        algorithm: signer.algorithm().word(),
        pin: signer.to_string(),
        standing: standing.word(),
    };
    Ok(signers.iter().map(shown).collect())
}
