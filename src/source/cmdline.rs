//! `imprint.payload=` on the kernel command line: base64url to bytes. Knows nothing of what they say.

use std::path::Path;

use base64ct::{Base64UrlUnpadded, Encoding};
use zeroize::Zeroizing;

use super::{Found, Origin, SourceError, file};
use crate::options::CmdlinePayload;
use crate::payload::MAX_LEN;
use crate::secret::Secret;

/// The kernel command line, which may hold a payload and is therefore wiped. Bytes that are no UTF-8 become replacement
/// characters.
pub fn text(root: &Path) -> Result<Zeroizing<String>, SourceError> {
    let bytes = file::read(&root.join("proc/cmdline"))?;
    Ok(Zeroizing::new(String::from_utf8_lossy(bytes.expose()).into_owned()))
}

/// Decodes what stands there.
pub fn find(payload: &CmdlinePayload) -> Result<Found, SourceError> {
    let text = payload.text.expose();
    let position = text.iter().position(|byte| !byte.is_ascii_alphanumeric() && !b"-_".contains(byte));
    let broken = || match position {
        None if payload.cut => SourceError::CmdlineCut,
        position => SourceError::Base64 { length: text.len(), position: position.map(|at| at.saturating_add(1)) },
    };
    if position.is_some() {
        return Err(broken());
    }
    // Four characters are three bytes.
    if text.len() / 4 > MAX_LEN / 3 {
        return Err(SourceError::TooLong("imprint.payload=".into()));
    }
    let mut bytes = Zeroizing::new(vec![0; text.len()]);
    let length = Base64UrlUnpadded::decode(text, &mut bytes).map(<[u8]>::len).map_err(|_| broken())?;
    bytes.truncate(length);
    let bytes = Secret::new(std::mem::take(&mut *bytes));
    Ok(Found { origin: Origin::Cmdline, bytes, cut: payload.cut })
}
