//! The beginning of a bundle, or of an image, whose transfer broke off, until the rest has come. Pure: decides whether a rest fits.

use super::ServerError;
use crate::http::Response;
use crate::payload::HttpsUrl;
use crate::shown::Printable;

/// A version of something that a server has.
pub(super) struct Version {
    /// The server that it came from. Another server's bytes are not put behind it.
    pub(super) url: HttpsUrl,
    /// What the server calls it.
    pub(super) etag: String,
    /// The length of the whole.
    pub(super) total: usize,
}

impl Version {
    /// The version of which this answer has the whole, `total` bytes. `None`: its server gives it no name that tells bytes apart.
    pub(super) fn of(url: &HttpsUrl, answer: &Response, total: usize) -> Option<Version> {
        Some(Version { url: url.clone(), etag: strong(answer.etag.as_ref()?)?, total })
    }

    /// Whether an answer with so many bytes is the rest behind those that are there (RFC 9110 §14.4).
    pub(super) fn fits(&self, have: usize, rest: &Response, length: usize) -> Result<(), ServerError> {
        let last = self.total.saturating_sub(1);
        let want = format!("bytes {have}-{last}/{}", self.total);
        let got = rest.content_range.as_ref().map_or("none", Printable::as_str);
        let same = rest.etag.as_ref().is_some_and(|etag| etag.as_str() == self.etag);
        if rest.status == 206 && got.trim() == want && have.checked_add(length) == Some(self.total) && same {
            return Ok(());
        }
        let etag = rest.etag.as_ref().map_or("none", Printable::as_str);
        let got = format!("{got} ({length} bytes, ETag {etag}, status {})", rest.status);
        Err(ServerError::Range { want: format!("{want} (ETag {})", self.etag), got: Printable::of(&got) })
    }
}

/// The beginning of a bundle.
pub(super) struct Part {
    pub(super) version: Version,
    pub(super) bytes: Vec<u8>,
}

impl Part {
    /// What is known after this answer broke off, whose body would have had `length` bytes.
    pub(super) fn grown(before: Option<Part>, url: &HttpsUrl, beginning: Response, length: usize) -> Option<Part> {
        match beginning.status {
            200 => {
                let version = Version::of(url, &beginning, length)?;
                let bytes = Some(beginning.body).filter(|body| !body.is_empty())?;
                Some(Part { version, bytes })
            }
            206 => {
                let mut part = before?;
                if part.version.fits(part.bytes.len(), &beginning, length).is_ok() {
                    part.bytes.extend_from_slice(&beginning.body);
                }
                Some(part)
            }
            // A broken answer of another kind says nothing about the bundle.
            _ => before,
        }
    }

    /// The whole bundle, if this answer is the rest of it.
    pub(super) fn whole(mut self, rest: &Response) -> Result<Vec<u8>, ServerError> {
        self.version.fits(self.bytes.len(), rest, rest.body.len())?;
        self.bytes.extend_from_slice(&rest.body);
        Ok(self.bytes)
    }
}

/// A weak tag says nothing about bytes (RFC 9110 §8.8.1). It goes into a request as it came, so it has only what a tag may have.
pub(super) fn strong(etag: &Printable) -> Option<String> {
    let inner = etag.as_str().strip_prefix('"')?.strip_suffix('"')?;
    let plain = inner.len() <= 128 && inner.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    plain.then(|| etag.as_str().to_owned())
}
