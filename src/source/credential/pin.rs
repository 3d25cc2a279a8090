//! Narrows the site pin of the image by credentials named `imprint.site`. Whoever brings a payload as a credential
//! vouches for these, too, and is not trusted. So such a credential never adds a CA or a signer to those of the image:
//! it can only leave some out. In an image without a site pin it does not count.

use std::path::Path;

use super::content::{CredentialError, MAX_TEXT};
use super::{Unread, broken, everywhere};
use crate::options::{CredentialName, SetCredential};
use crate::secret::Secret;
use crate::site::{PinFile, PinTextError, SitePin};
use crate::source::SourceError;

/// The site pin of the image, narrowed by every credential; and notes about the credentials for the operator.
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
                    "credential imprint.site ({origin}) is ignored: it can only narrow the site pin of an image, and this \
                     image has none"
                )
            }));
            continue;
        };
        let given = given.map_err(|unread| in_words_of_a_pin(unread, before.file))?;
        let origin = given.origin.clone();
        let failed = |source| broken(CredentialName::Site, &origin, of_a_pin(source, before.file));
        let text = given.content().map_err(failed)?;
        if text.expose().len() > MAX_TEXT {
            return Err(failed(CredentialError::PinLength(before.file)));
        }
        // systemd imports what it finds, so the same credential is there twice.
        if seen.contains(&text) {
            continue;
        }
        let given = SitePin::parse(text.expose()).map_err(|error| failed(unreadable(error, before.file)))?;
        let (left, foreign) =
            before.narrowed_by(&given).ok_or_else(|| failed(CredentialError::PinApart(before.file)))?;
        let file = before.file;
        pin = Some(left);
        seen.push(text);
        if foreign > 0 {
            let verb = if foreign == 1 { "is" } else { "are" };
            notes.push(format!(
                "credential imprint.site ({origin}): {foreign} of its lines {verb} not in {file} and {verb} ignored"
            ));
        }
    }
    Ok((pin, notes))
}

/// The place cannot be read. What is longer than a payload is longer than a pin as well.
fn in_words_of_a_pin(Unread { origin, source }: Unread, file: PinFile) -> SourceError {
    match (origin, source) {
        (Some(origin), SourceError::TooLong(..) | SourceError::Credential { source: CredentialError::Length, .. }) => {
            broken(CredentialName::Site, &origin, CredentialError::PinLength(file))
        }
        (_, source) => source,
    }
}

/// The same fault in words about a pin.
fn of_a_pin(error: CredentialError, file: PinFile) -> CredentialError {
    match error {
        CredentialError::Length => CredentialError::PinLength(file),
        error => error,
    }
}

fn unreadable(error: PinTextError, file: PinFile) -> CredentialError {
    let line = match error {
        PinTextError::Line { line } | PinTextError::Signer { line, .. } => Some(line),
        PinTextError::Empty => None,
    };
    CredentialError::PinLine { line, file }
}
