//! Narrows the site pin of the image by credentials named `imprint.site`. Whoever brings a payload as a credential
//! vouches for these, too, and is not trusted. So such a credential never adds a CA or a signer to those of the image:
//! it can only leave some out. In an image without a site pin it does not count.

use std::path::Path;

use super::content::CredentialError;
use super::{broken, everywhere};
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
    for given in everywhere(root, unit, words, CredentialName::Site)? {
        let origin = given.origin.clone();
        let Some(before) = &pin else {
            notes.push(format!(
                "credential imprint.site ({origin}) is ignored: it can only narrow the site pin of an image, and this image has none"
            ));
            continue;
        };
        let failed = |source| broken(CredentialName::Site, &origin, source);
        let text = given.content().map_err(failed)?;
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

fn unreadable(error: PinTextError, file: PinFile) -> CredentialError {
    let line = match error {
        PinTextError::Line { line } | PinTextError::Signer { line, .. } => Some(line),
        PinTextError::Empty => None,
    };
    CredentialError::PinLine { line, file }
}
