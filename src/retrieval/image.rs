//! An image that is too long to be kept in this program: each piece goes into a file and into a digest as it comes. Decides whether
//! the rest of a broken transfer fits, and whether the whole is the image that was asked for. Never mounts it.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use super::part::Version;
use super::{Hooks, Retrieval, RetrievalError, ServerError, What, error};
use crate::apply::image::ImageError;
use crate::digest::Sha256;
use crate::http::Response;
use crate::https::Stopped;
use crate::payload::HttpsUrl;
use crate::time::{Deadline, since_boot};

/// For so long a server is looked at where another one may be faster.
pub(super) const SPAN: Duration = Duration::from_secs(30);
/// What a server has to bring in [`SPAN`] then, in bytes.
const ENOUGH: usize = 2 * 1024 * 1024;

/// An image on its way.
pub struct Image<'a> {
    /// Its SHA-256.
    want: [u8; 32],
    /// Makes room for an image of this length, in the place of one that was there, and returns the empty file.
    room: &'a mut dyn FnMut(u64) -> Result<File, ImageError>,
    file: Option<File>,
    digest: Sha256,
    pub(super) have: usize,
    /// What there is a beginning of; `None`: of nothing that could be resumed.
    version: Option<Version>,
    /// The answer that comes now has begun.
    begun: bool,
    /// Why the sink has stopped.
    trouble: Option<ServerError>,
    /// The most that another server may be expected to bring in [`SPAN`], in bytes.
    others: usize,
    /// When this [`SPAN`] has begun, since boot, and what there was then.
    since: (Duration, usize),
    /// The most that there ever was of it.
    pub(super) most: usize,
}

impl<'a> Image<'a> {
    /// Nothing of the image with this SHA-256. `room` makes room for it once its length is known.
    pub fn new(want: [u8; 32], room: &'a mut dyn FnMut(u64) -> Result<File, ImageError>) -> Image<'a> {
        Image {
            want,
            room,
            file: None,
            digest: Sha256::default(),
            have: 0,
            version: None,
            begun: false,
            trouble: None,
            others: 0,
            since: (Duration::ZERO, 0),
            most: 0,
        }
    }

    /// The version that this server may have the rest of.
    pub(super) fn version(&self, url: &HttpsUrl) -> Option<&Version> {
        self.version.as_ref().filter(|version| version.url == *url && self.have > 0)
    }

    /// Another answer is asked for. `others`: the most that another server may be expected to bring in [`SPAN`], in bytes.
    pub(super) fn expect(&mut self, others: usize) {
        (self.begun, self.trouble, self.others) = (false, None, others);
    }

    /// Whether something has come of the answer that was asked for last.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Why the sink has stopped.
    pub(super) fn trouble(&mut self) -> Option<ServerError> {
        self.trouble.take()
    }

    /// Takes a piece of an answer, with which `left` bytes are to come.
    pub(super) fn take(&mut self, url: &HttpsUrl, head: &Response, left: usize, bytes: &[u8]) -> Result<(), Stopped> {
        let begun = std::mem::replace(&mut self.begun, true);
        let result = if begun { Ok(()) } else { self.begin(url, head, left) };
        let result = result.and_then(|()| self.put(left, bytes));
        let behind = left.saturating_sub(bytes.len());
        result.and_then(|()| self.hurry(behind, since_boot())).map_err(|error| {
            self.trouble = Some(error);
            Stopped
        })
    }

    /// Leaves a slow server for another one, which may be faster, with so many bytes still to come. Each may turn out to be slow, so
    /// one is left only for twice as much: whatever the link can do, the image comes in the end.
    fn hurry(&mut self, behind: usize, now: Duration) -> Result<(), ServerError> {
        let (since, had) = self.since;
        let (took, came) = (now.saturating_sub(since), self.have.saturating_sub(had));
        if took < SPAN {
            return Ok(());
        }
        self.since = (now, self.have);
        if came >= ENOUGH || behind <= came || self.others / 2 <= came {
            Ok(())
        } else {
            Err(ServerError::Slow { came, took })
        }
    }

    /// Puts the beginning of the span so far into the past.
    #[cfg(test)]
    pub(super) fn began(&mut self, ago: Duration) {
        self.since.0 = self.since.0.saturating_sub(ago);
    }

    fn begin(&mut self, url: &HttpsUrl, head: &Response, length: usize) -> Result<(), ServerError> {
        if head.status == 206 {
            self.since = (since_boot(), self.have);
            let version = self.version.as_ref().filter(|version| version.url == *url);
            return version.ok_or_else(|| error::of_image(head))?.fits(self.have, head, length);
        }
        // The whole: what there was is another version, or of another server.
        (self.have, self.digest, self.version, self.since) = (0, Sha256::default(), None, (since_boot(), 0));
        // The memory of an image that was there is free before there is room for another.
        self.file = None;
        self.file = Some((self.room)(u64::try_from(length).unwrap_or(u64::MAX)).map_err(ServerError::Room)?);
        self.version = Version::of(url, head, length);
        Ok(())
    }

    fn put(&mut self, left: usize, bytes: &[u8]) -> Result<(), ServerError> {
        let total = self.have.saturating_add(left);
        if let Some(mut file) = self.file.as_ref() {
            let written = file.write_all(bytes);
            written.map_err(|source| ServerError::Keep { have: self.have, total, source })?;
        }
        self.digest.update(bytes);
        self.have = self.have.saturating_add(bytes.len());
        self.most = self.most.max(self.have);
        Ok(())
    }

    /// The whole image, if it is the right one.
    fn whole(&mut self) -> Result<File, ServerError> {
        let got = std::mem::take(&mut self.digest).finish();
        (self.have, self.version) = (0, None);
        match self.file.take() {
            Some(file) if got == self.want => Ok(file),
            _ => Err(ServerError::Digest { want: self.want, got }),
        }
    }
}

impl<'a> Retrieval<'a> {
    /// Fetches an image, and returns its file. `patience`: how long it may take until a byte more comes than ever before.
    pub fn image(
        &mut self,
        image: Image<'a>,
        hooks: &mut Hooks<'_>,
        patience: Duration,
    ) -> Result<File, RetrievalError> {
        self.image = Some(image);
        loop {
            let before = self.came();
            match self.ask(What::Image, hooks, Deadline::after(patience), &mut Retrieval::imaged) {
                Err(RetrievalError::GaveUp { .. }) if self.came() > before => {}
                ended => return ended,
            }
        }
    }

    /// The sink has had the body of a success.
    fn imaged(&mut self, response: Response) -> Result<File, ServerError> {
        let url = self.url().cloned();
        let Some(image) = &mut self.image else { return Err(ServerError::NoServer) };
        match response.status {
            200 | 206 => image.whole(),
            // The image is shorter than what has come of it.
            416 => {
                let version = url.as_ref().and_then(|url| image.version(url));
                let wrong = version.and_then(|version| version.fits(image.have, &response, 0).err());
                self.resumes_not();
                Err(wrong.unwrap_or_else(|| error::of_image(&response)))
            }
            _ => Err(error::of_image(&response)),
        }
    }
}
