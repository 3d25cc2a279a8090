//! Narrows the site pin of the image by credentials named `imprint.site`. Whoever brings a payload as a credential
//! vouches for these, too, and is not trusted. So such a credential never adds a CA or a signer to those of the image:
//! it can only leave some out. In an image without a site pin it does not count.

use std::path::Path;

use super::content::CredentialError;
use super::{broken, everywhere};
use crate::options::{CredentialName, SetCredential};
use crate::secret::Secret;
use crate::site::{PinError, SitePin};
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
    for given in everywhere(root, unit, words, CredentialName::Site)? {
        let origin = given.origin.clone();
        let Some(before) = &pin else {
            notes.push(format!(
                "credential imprint.site ({origin}) does not count: it can only narrow a site pin, and this image has none"
            ));
            continue;
        };
        let failed = |source| broken(CredentialName::Site, &origin, source);
        let text = given.content().map_err(failed)?;
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

fn unreadable(error: &PinError) -> CredentialError {
    CredentialError::PinLine(match error {
        PinError::Line { line } | PinError::Signer { line, .. } => Some(*line),
        PinError::Read { .. } | PinError::Empty => None,
    })
}
