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
    let judged = |bytes: &[u8]| vouched(bytes, pin, &aad);
    let bytes = found.bytes.expose();
    let decoded = judged(bytes).map_err(|error| cut_short(bytes, error, &judged));
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

/// What becomes of these bytes as a payload.
type Judged<'a> = &'a dyn Fn(&[u8]) -> Result<(Payload, SignedBy), Unusable>;

/// The error for bytes that end in zeros, which no payload does: what else is wrong with them comes from that.
fn cut_short(bytes: &[u8], error: Unusable, judged: Judged<'_>) -> Unusable {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
    let is_cause = match &error {
        Unusable::Payload(DecodeError { problem, .. }) => match problem {
            // Zeros are items of CBOR, too, so the map may end among them. Behind a whole payload they are something else.
            Problem::Trailing(extra) => {
                bytes.get(..bytes.len().saturating_sub(*extra)).is_some_and(|first| judged(first).is_err())
            }
            Problem::Form(_) | Problem::TooLong(_) => false,
            _ => true,
        },
        Unusable::Signature(SignatureError::Wrong { .. }) => true,
        Unusable::Signature(_) | Unusable::Source(_) => false,
    };
    if is_cause && bytes.len().saturating_sub(end) >= ZEROS {
        return DecodeError { offset: end, place: String::new(), problem: Problem::Zeros }.into();
    }
    error
}

/// So many zeros, in bytes, are no part of a payload: its last items are texts, digests, keys and signatures.
const ZEROS: usize = 16;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    const TYPICAL: &[u8] = include_bytes!("../../tests/data/payload-typical.cbor");

    fn decoded(bytes: Vec<u8>) -> Result<(), Unusable> {
        let origin = Origin::File("payload".into());
        let found = Found { origin, bytes: Secret::new(bytes), cut: false, fresh: None };
        decode(&found, None, None).map(|_| ())
    }

    /// The accident: an archive was cut short at a block of TFTP, and the kernel has filled the file with zeros.
    #[test]
    fn a_payload_whose_end_is_zeros_was_cut_short() {
        decoded(TYPICAL.to_vec()).unwrap();
        let mut said = 0;
        for end in 3..TYPICAL.len() - ZEROS {
            let mut bytes = TYPICAL[..end].to_vec();
            bytes.resize(TYPICAL.len(), 0);
            // A cut within the last text or byte string may leave something that decodes; a signature would not fit it.
            let Err(error) = decoded(bytes) else { continue };
            let Unusable::Payload(DecodeError { offset, problem: Problem::Zeros, .. }) = error else {
                panic!("{end}: {error:?}")
            };
            assert!(offset <= end, "{offset} of {end}");
            said += 1;
        }
        assert!(said > TYPICAL.len() * 3 / 4, "{said} of {}", TYPICAL.len());
        // Zeros behind a whole payload are something else.
        let longer = [TYPICAL, &[0; 512]].concat();
        let Err(Unusable::Payload(error)) = decoded(longer) else { panic!("it decodes") };
        assert_eq!(error.problem, Problem::Trailing(512));
    }
}
