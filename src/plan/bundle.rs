//! Decides about the bundle that a payload asks for: whether this run fetches it, and whose signature it needs. Never looks for a
//! key and never reads a bundle.

use std::fmt;

use super::{PlanError, Scope};
use crate::payload::signed::Signer;
use crate::payload::{BundleKey, BundleTerms, HttpsUrl};
use crate::site::SitePin;

/// The bundle that the node has to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BundlePlan {
    /// Where the key comes from that opens it.
    pub key: BundleKey,
    /// The least counter: a bundle with a lower one is an old one.
    pub least: u64,
    /// One of them has to have signed it. There is at least one.
    pub signers: Vec<Signer>,
    /// The signers are those of the site pin, and not those of the payload.
    pub pinned: bool,
}

/// `signers`: those of the payload. `urls`: those that use the network.
pub(super) fn decide(
    BundleTerms { key, least }: BundleTerms,
    signers: Vec<Signer>,
    urls: &[&HttpsUrl],
    pin: Option<&SitePin>,
    scope: Scope,
) -> Result<Option<BundlePlan>, PlanError> {
    match scope {
        Scope::Boot => {}
        Scope::RealRoot => return Err(PlanError::BundleInRealRoot),
        // The bundle is the configuration of a boot, as the network and the host name are.
        Scope::CertificateOnly => return Ok(None),
    }
    // Whoever makes the image vouches for more than whoever makes payloads.
    let pin = pin.filter(|pin| pin.has_signers());
    let (signers, pinned) = match pin {
        Some(pin) => (pin.signers.clone(), true),
        None => (signers, false),
    };
    if signers.is_empty() {
        return Err(PlanError::BundleSigner);
    }
    if urls.is_empty() {
        return Err(PlanError::BundleOverLine);
    }
    Ok(Some(BundlePlan { key, least, signers, pinned }))
}

/// `key in the image; counter 7 or higher; signed by 0011223344556677, named by this image`
impl fmt::Display for BundlePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids: Vec<String> = self.signers.iter().map(|signer| signer.kid().to_string()).collect();
        let whose = if self.pinned { "this image" } else { "the payload" };
        write!(f, "key {}; ", self.key)?;
        if self.least > 0 {
            write!(f, "counter {} or higher; ", self.least)?;
        }
        write!(f, "signed by {}, named by {whose}", kids.join(" or "))
    }
}

#[cfg(test)]
mod tests;
