//! Makes webpki's trust anchors from a CA certificate. Verifies nothing.

use der::{Decode, Encode};
use rustls::pki_types::{CertificateDer, Der, TrustAnchor};

use super::{Certificate, same_text};

/// The CA under its own subject, and under each issuer name in `chain` that reads the same. webpki compares names byte
/// by byte, but RFC 5280 §7.1 says that the kind of string does not matter. The key is the same under every name.
pub(crate) fn anchors<'a>(
    ca: &[u8],
    chain: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<TrustAnchor<'static>>, webpki::Error> {
    let own = webpki::anchor_from_trusted_cert(&CertificateDer::from(ca))?.to_owned();
    let mut anchors = vec![own.clone()];
    let Ok(ca) = Certificate::from_der(ca) else { return Ok(anchors) };
    for certificate in chain.filter_map(|der| Certificate::from_der(der).ok()) {
        let issuer = &certificate.tbs_certificate.issuer;
        let Ok(name) = issuer.0.to_der() else { continue };
        // A trust anchor holds the value of the SEQUENCE, without tag and length.
        let Ok(value) = der::asn1::AnyRef::from_der(&name).map(|any| any.value().to_vec()) else { continue };
        let known = anchors.iter().any(|anchor| anchor.subject.as_ref() == value);
        if !known && same_text(issuer, &ca.tbs_certificate.subject) {
            anchors.push(TrustAnchor { subject: Der::from(value), ..own.clone() });
        }
    }
    Ok(anchors)
}
