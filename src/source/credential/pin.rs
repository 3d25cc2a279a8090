//! Credentials named `imprint.site`. Whoever brings a payload as a credential can bring such a credential as well, so it
//! never adds a CA or a signer to those of the image: it can only leave some out, and without a site pin in the image it
//! does not count.

use std::path::Path;

use super::content::{CredentialError, MAX_TEXT};
use super::{Unread, broken, everywhere};
use crate::options::{CredentialName, SetCredential};
use crate::secret::Secret;
use crate::site::{PinError, SitePin};
use crate::source::SourceError;

/// The site pin of the image, narrowed by every credential; and what a person should know of the credentials.
pub fn narrow(
    image: Option<SitePin>,
    root: &Path,
    unit: Option<&Path>,
    words: &[SetCredential],
) -> Result<(Option<SitePin>, Vec<String>), SourceError> {
    let (mut pin, mut notes) = (image, Vec::new());
    let mut seen: Vec<Secret> = Vec::new();
    for given in everywhere(root, unit, words, CredentialName::Site) {
        let Some(before) = &pin else {
            // Whatever it holds, and whether it can be read or not.
            let origin = given.map_or_else(|unread| unread.origin, |given| Some(given.origin));
            notes.extend(origin.map(|origin| {
                format!(
                    "credential imprint.site ({origin}) does not count: it can only narrow a site pin, and this image has \
                     none"
                )
            }));
            continue;
        };
        let given = given.map_err(unread)?;
        let origin = given.origin.clone();
        let failed = |source| broken(CredentialName::Site, &origin, of_a_pin(source));
        let text = given.content().map_err(failed)?;
        if text.expose().len() > MAX_TEXT {
            return Err(failed(CredentialError::PinLength));
        }
        // systemd imports what it finds, so the same credential is there twice.
        if seen.contains(&text) {
            continue;
        }
        let given = SitePin::parse(text.expose()).map_err(|error| failed(unreadable(&error)))?;
        let (left, foreign) = before.narrowed_by(&given).ok_or_else(|| failed(CredentialError::PinApart))?;
        pin = Some(left);
        seen.push(text);
        if foreign > 0 {
            let (verb, other) = if foreign == 1 { ("is", "does") } else { ("are", "do") };
            notes.push(format!(
                "credential imprint.site ({origin}): {foreign} of its lines {verb} not in /imprint/site of this image and \
                 {other} not count"
            ));
        }
    }
    Ok((pin, notes))
}

/// The place cannot be read. What is longer than a payload is longer than a pin as well.
fn unread(Unread { origin, source }: Unread) -> SourceError {
    match (origin, source) {
        (Some(origin), SourceError::TooLong(..)) => broken(CredentialName::Site, &origin, CredentialError::PinLength),
        (_, source) => source,
    }
}

/// The same fault in words about a pin.
fn of_a_pin(error: CredentialError) -> CredentialError {
    match error {
        CredentialError::Length => CredentialError::PinLength,
        error => error,
    }
}

fn unreadable(error: &PinError) -> CredentialError {
    CredentialError::PinLine(match error {
        PinError::Line { line } | PinError::Signer { line, .. } => Some(*line),
        PinError::Read { .. } | PinError::Owner { .. } | PinError::Mode { .. } | PinError::Empty => None,
    })
}
