//! Makes a payload of the bytes of a source: judges the signature first, then decodes the payload, then checks whether
//! the source may carry what is in it. If the image names signers, a signer vouches for the bytes; if not, whoever
//! vouches for the source does. Never reads a source.

use super::{Found, SourceError, permitted};
use crate::confidential::Confidential;
use crate::payload::signed::{Signed, is_signed};
use crate::payload::{DecodeError, Form, Payload, Problem};
use crate::site::{self, SignatureError, SignedBy, SitePin};

/// Why the bytes of a source cannot be used.
#[derive(Debug)]
pub enum Unusable {
    /// The source may not carry an item of the payload, or the source cut the payload short.
    Source(SourceError),
    /// The bytes are not a payload.
    Payload(DecodeError),
    /// The image names signers, and the payload has no signature of one of them.
    Signature(SignatureError),
}

impl From<SourceError> for Unusable {
    fn from(error: SourceError) -> Unusable {
        Unusable::Source(error)
    }
}

impl From<SignatureError> for Unusable {
    fn from(error: SignatureError) -> Unusable {
        Unusable::Signature(error)
    }
}

impl From<DecodeError> for Unusable {
    fn from(error: DecodeError) -> Unusable {
        Unusable::Payload(error)
    }
}

/// Decodes the payload, and refuses items that its source may not carry. `pin`: the image's. If it names signers, the
/// signature is verified first: no byte is decoded before a signer has vouched for it. `machine`: the kind of
/// confidential virtual machine that this is.
pub fn decode(
    found: &Found,
    pin: Option<&SitePin>,
    machine: Option<Confidential>,
) -> Result<(Payload, SignedBy), Unusable> {
    let decoded = vouched(found.bytes.expose(), pin);
    let (payload, signed) = match decoded {
        Err(_) if found.cut => return Err(SourceError::CmdlineCut.into()),
        decoded => decoded?,
    };
    permitted(&found.origin, &payload, machine)?;
    Ok((payload, signed))
}

fn vouched(bytes: &[u8], pin: Option<&SitePin>) -> Result<(Payload, SignedBy), Unusable> {
    // A payload in another form, such as base64, may well be signed. So the error names the form, not a missing
    // signature.
    if let Some(form) = Form::of(bytes) {
        return Err(DecodeError { offset: 0, place: String::new(), problem: Problem::Form(form) }.into());
    }
    let signed = is_signed(bytes).then(|| Signed::decode(bytes)).transpose()?;
    let signed = site::judge(signed.as_ref(), pin)?;
    Ok((Payload::unwrapped(bytes)?, signed))
}
