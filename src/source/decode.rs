//! Makes a payload of the bytes of a source: judges the signature first, then decodes the payload, then checks whether
//! the source may carry what is in it. If the image names signers, a signer vouches for the bytes; if not, whoever
//! vouches for the source does. Never reads a source.

use super::{Found, Fresh, Origin, SourceError, permitted};
use crate::chain::chain;
use crate::confidential::Confidential;
use crate::dialogue::Judge;
use crate::hex;
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

/// Decodes the payload, and refuses items that its source may not carry. `pin`: the image's. If it names signers, the
/// signature is verified first: no byte is decoded before a signer has vouched for it. `machine`: the kind of
/// confidential virtual machine that this is.
pub fn decode(
    found: &Found,
    pin: Option<&SitePin>,
    machine: Option<Confidential>,
) -> Result<(Payload, SignedBy), Unusable> {
    let aad = found.fresh.map_or_else(|| signed::aad(None), |fresh| fresh.aad());
    let decoded = vouched(found.bytes.expose(), pin, &aad);
    let (payload, signed) = match decoded {
        Err(_) if found.cut => return Err(SourceError::CmdlineCut.into()),
        decoded => decoded?,
    };
    // A payload that was signed for HELLO is sealed to the key in it: whoever carries the line cannot read it.
    permitted(&found.origin, &payload, machine.filter(|_| found.fresh.is_none()))?;
    Ok((payload, signed))
}

/// Whether a payload that came on a far line is for this machine and this moment. The error says why it is not.
pub type Fits = Box<dyn Fn(&Payload, &Fresh) -> Result<(), String> + Send>;

/// Judges payloads of far lines by this pin and by what they are for, before one is used. `None`: the pin names no signer, so no far
/// line is used.
pub fn judge(pin: &SitePin, fits: Fits) -> Option<Judge> {
    let pin = pin.has_signers().then(|| pin.clone())?;
    Some(Box::new(move |bytes, fresh| {
        let origin = Origin::Line { name: String::new(), sealed: true };
        let found = Found { origin, bytes: bytes.clone(), cut: false, fresh: Some(*fresh) };
        let (payload, _) = decode(&found, Some(&pin), None).map_err(|error| match error {
            Unusable::Source(error) => chain(&error),
            Unusable::Payload(error) => chain(&error),
            Unusable::Signature(error) => chain(&error),
        })?;
        // As the plan would say later; here the search goes on.
        let ca = &payload.ca;
        if pin.takes(&ca.sha256()) {
            return fits(&payload, fresh);
        }
        let (subject, sha256, file) = (ca.subject(), hex::encode(&ca.sha256()), pin.file);
        Err(format!(
            "its CA \"{subject}\" (sha256 {sha256}) is not among those of {file}; is it a door of another site?"
        ))
    }))
}

fn vouched(bytes: &[u8], pin: Option<&SitePin>, aad: &[u8]) -> Result<(Payload, SignedBy), Unusable> {
    // A payload in another form, such as base64, may well be signed. So the error names the form, not a missing
    // signature.
    if let Some(form) = Form::of(bytes) {
        return Err(DecodeError { offset: 0, place: String::new(), problem: Problem::Form(form) }.into());
    }
    let signed = is_signed(bytes).then(|| Signed::decode(bytes)).transpose()?;
    let signed = site::judge(signed.as_ref(), pin, aad)?;
    Ok((Payload::unwrapped(bytes)?, signed))
}
