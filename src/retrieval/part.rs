//! The beginning of a bundle whose transfer broke off, until the rest has come. Pure: decides whether a rest fits.

use super::ServerError;
use crate::http::Response;
use crate::payload::HttpsUrl;
use crate::shown::Printable;

/// The beginning of a bundle.
pub(super) struct Part {
    /// The server that it came from. Another server's bytes are not put behind it.
    pub(super) url: HttpsUrl,
    /// The version that it is of.
    pub(super) etag: String,
    pub(super) bytes: Vec<u8>,
    /// The length of the whole.
    total: usize,
}

impl Part {
    /// What is known after this answer broke off, whose body would have had `length` bytes.
    pub(super) fn grown(before: Option<Part>, url: &HttpsUrl, beginning: Response, length: usize) -> Option<Part> {
        match beginning.status {
            200 => {
                let etag = strong(beginning.etag.as_ref()?)?;
                let bytes = Some(beginning.body).filter(|body| !body.is_empty())?;
                Some(Part { url: url.clone(), etag, bytes, total: length })
            }
            206 => {
                let mut part = before?;
                if part.fits(&beginning, length).is_ok() {
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
        self.fits(rest, rest.body.len())?;
        self.bytes.extend_from_slice(&rest.body);
        Ok(self.bytes)
    }

    /// Whether an answer with so many bytes is the rest (RFC 9110 §14.4).
    fn fits(&self, rest: &Response, length: usize) -> Result<(), ServerError> {
        let have = self.bytes.len();
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

/// A weak tag says nothing about bytes (RFC 9110 §8.8.1). It goes into a request as it came, so it has only what a tag may have.
pub(super) fn strong(etag: &Printable) -> Option<String> {
    let inner = etag.as_str().strip_prefix('"')?.strip_suffix('"')?;
    let plain = inner.len() <= 128 && inner.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    plain.then(|| etag.as_str().to_owned())
}
