//! From the bytes of a source to a payload: the signature first, then the payload, then whether its source may carry what is in
//! it. Whoever the image names as a signer vouches for the bytes; without one it is whoever vouches for the source. Nothing here
//! reads a source.

use super::{Found, Origin, SourceError, permitted};
use crate::chain::chain;
use crate::dialogue::Judge;
use crate::payload::signed::{self, Signed, is_signed};
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

/// Decodes the payload, and refuses items that its source may not carry. `pin`: that of the image. If it names signers, the
/// signature is verified first: no byte of a payload is decoded before one of them has vouched for it.
pub fn decode(found: &Found, pin: Option<&SitePin>) -> Result<(Payload, SignedBy), Unusable> {
    let aad = found.fresh.map_or_else(|| signed::aad(None), |fresh| fresh.aad());
    let decoded = vouched(found.bytes.expose(), pin, &aad);
    let (payload, signed) = match decoded {
        Err(_) if found.cut => return Err(SourceError::CmdlineCut.into()),
        decoded => decoded?,
    };
    permitted(&found.origin, &payload)?;
    Ok((payload, signed))
}

/// Judges payloads of far lines by this pin, before one is used. `None`: the pin names no signer, so no far line is used.
pub fn judge(pin: &SitePin) -> Option<Judge> {
    let pin = pin.has_signers().then(|| pin.clone())?;
    Some(Box::new(move |bytes, fresh| {
        let origin = Origin::Line { name: String::new(), sealed: true };
        let found = Found { origin, bytes: bytes.clone(), cut: false, fresh: Some(*fresh) };
        let (payload, _) = decode(&found, Some(&pin)).map_err(|error| match error {
            Unusable::Source(error) => chain(&error),
            Unusable::Payload(error) => chain(&error),
            Unusable::Signature(error) => chain(&error),
        })?;
        let ca = &payload.ca;
        if pin.takes(&ca.sha256()) { Ok(()) } else { Err(format!("its CA \"{}\" is of another site", ca.subject())) }
    }))
}

fn vouched(bytes: &[u8], pin: Option<&SitePin>, aad: &[u8]) -> Result<(Payload, SignedBy), Unusable> {
    // A payload in another form, such as base64, may well be signed: the form is the fault.
    if let Some(form) = Form::of(bytes) {
        return Err(DecodeError { offset: 0, place: String::new(), problem: Problem::Form(form) }.into());
    }
    let signed = is_signed(bytes).then(|| Signed::decode(bytes)).transpose()?;
    let signed = site::judge(signed.as_ref(), pin, aad)?;
    Ok((Payload::unwrapped(bytes)?, signed))
}
