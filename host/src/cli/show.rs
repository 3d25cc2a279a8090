//! `imprint-host show`: the site's URLs, site pin and CA, for people who build images and configure nodes. Changes nothing.

use std::fmt::Write as _;

use imprint::hex;
use imprint::shown::line;
use imprint::time::Timestamp;

use super::published::{Intermediate, Shown, ShownCa};
use super::{CliError, signer};
use crate::state::{self, State};

/// For people.
pub(super) fn text(state: &State, now: Timestamp) -> Result<String, CliError> {
    let (root, current) = (state.ca.root(), state.ca.current());
    let mut text = format!("directory      {}\n", line(&state.ca.dir().display().to_string()));
    for url in &state.urls {
        let _ = writeln!(text, "url            {url}");
    }
    let valid = |not_after: Timestamp| if not_after < now { "expired" } else { "valid until" };
    let _ = writeln!(text, "CA             {}, {} {}", root.subject(), valid(root.not_after()), root.not_after());
    let _ = writeln!(text, "site pin       {}", hex::encode(&root.sha256()));
    let _ = writeln!(text, "               for /imprint/site in images; the CA itself is root.pem in the directory");
    for (signer, standing) in state.ca.signers().map_err(state::Error::State)? {
        let _ = writeln!(text, "signer         {}, {}", signer.kid(), standing.word());
    }
    let _ = writeln!(text, "intermediate   {}, {} {}", current.id(), valid(current.not_after()), current.not_after());
    let key = if has_root_key(state) { "here, root.key: move it offline" } else { "not here" };
    let _ = writeln!(text, "root key       {key}");
    Ok(text)
}

/// For programs.
pub(super) fn json(state: &State) -> Result<Shown<'_>, CliError> {
    let (root, current) = (state.ca.root(), state.ca.current());
    let urls: Vec<String> = state.urls.iter().map(ToString::to_string).collect();
    Ok(Shown {
        dir: state.ca.dir().display().to_string(),
        urls,
        pin: hex::encode(&root.sha256()),
        ca: ShownCa {
            subject: root.subject().as_str(),
            not_before: root.not_before().to_string(),
            not_after: root.not_after().to_string(),
        },
        intermediate: Intermediate { id: current.id().to_string(), not_after: current.not_after().to_string() },
        root_key: has_root_key(state),
        signers: signer::published(state)?,
    })
}

fn has_root_key(state: &State) -> bool {
    state.ca.dir().join("root.key").exists()
}
