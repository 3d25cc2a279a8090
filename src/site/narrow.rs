//! Narrows the site pin of an image by the CAs and signers that somebody else names. Pure.

use super::SitePin;

impl SitePin {
    /// Keeps the CAs and signers of this pin that `given` names as well. Also returns how many CAs and signers of
    /// `given` do not count because this pin does not have them. `None`: the narrowed pin would accept no payload.
    ///
    /// Whoever gave `given` is not trusted, so the narrowed pin never accepts what this pin refuses. A signer that this
    /// pin does not have never counts, even if this pin has no signer at all: whoever gave `given` would become a
    /// signer.
    pub fn narrowed_by(&self, given: &SitePin) -> Option<(SitePin, usize)> {
        // A pin without CAs accepts every CA that a signer vouches for.
        let cas: Vec<_> = given.cas.iter().filter(|ca| self.cas.is_empty() || self.cas.contains(ca)).copied().collect();
        let signers: Vec<_> = given.signers.iter().filter(|signer| self.signers.contains(signer)).cloned().collect();
        let foreign = given.cas.len().saturating_sub(cas.len()) + given.signers.len().saturating_sub(signers.len());
        let none_in_common = cas.is_empty() && signers.is_empty();
        let no_ca = cas.is_empty() && !given.cas.is_empty();
        let no_signer = signers.is_empty() && !given.signers.is_empty() && !self.signers.is_empty();
        if none_in_common || no_ca || no_signer {
            return None;
        }
        let pin = SitePin {
            cas: if cas.is_empty() { self.cas.clone() } else { cas },
            signers: if signers.is_empty() { self.signers.clone() } else { signers },
            file: self.file,
        };
        Some((pin, foreign))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNERS: &str = include_str!("../../tests/data/site-signers");

    /// A pin with CAs a, b, c … and signers 1 and 2, as `ab2`.
    fn pin(names: &str) -> SitePin {
        let known = SitePin::parse(SIGNERS.as_bytes()).unwrap().signers;
        let cas = names.bytes().filter(u8::is_ascii_lowercase).map(|name| [name; 32]).collect();
        let signers = names.bytes().filter(u8::is_ascii_digit).map(|name| known[usize::from(name - b'1')].clone());
        SitePin { cas, signers: signers.collect(), ..SitePin::default() }
    }

    #[test]
    fn only_what_both_have_counts() {
        for (image, given, want) in [
            ("abc", "b", Some(("b", 0))),
            ("abc", "bx", Some(("b", 1))),
            ("ab", "x", None),
            ("ab", "ab", Some(("ab", 0))),
            ("ab12", "2", Some(("ab2", 0))),
            ("ab12", "a", Some(("a12", 0))),
            ("ab12", "b1", Some(("b1", 0))),
            // They share a CA and no signer, so no payload could be accepted.
            ("ab1", "a2", None),
            ("ab1", "x1", None),
            // Whoever gave the pin would become a signer.
            ("ab", "1", None),
            ("ab", "a1", Some(("a", 1))),
            // The image takes any CA that its signers vouch for, so one CA is narrower.
            ("12", "x", Some(("x12", 0))),
            ("12", "1", Some(("1", 0))),
        ] {
            let want = want.map(|(left, foreign)| (pin(left), foreign));
            assert_eq!(pin(image).narrowed_by(&pin(given)), want, "{image} {given}");
        }
    }

    /// No given pin makes the image accept what it refuses.
    #[test]
    fn nothing_is_ever_wider() {
        let all = ["a", "ab", "1", "a1", "ab12", "2", "b2", "x", "x2"];
        for (image, given) in all.iter().flat_map(|image| all.iter().map(move |given| (pin(image), pin(given)))) {
            let Some((left, _)) = image.narrowed_by(&given) else { continue };
            let takes_ca = |pin: &SitePin, ca| pin.cas.is_empty() || pin.cas.contains(ca);
            assert!(left.cas.iter().all(|ca| takes_ca(&image, ca)));
            assert!(!left.cas.is_empty() || image.cas.is_empty());
            assert!(left.signers.iter().all(|signer| image.signers.contains(signer)));
            assert_eq!(left.signers.is_empty(), image.signers.is_empty());
        }
    }
}
