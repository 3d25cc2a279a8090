//! Requests about a node's bundle to the configuration server, over TLS on which the node shows its certificate: fetch it, upload
//! one, report what became of it; and for an image of its root. Decides which server to ask, when to ask again, and whether the
//! rest of a broken transfer can be had. Never judges a bundle: whoever fetches one verifies it.

mod error;
mod image;
mod part;
mod progress;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use error::{Attempt, RetrievalError, ServerError};
pub use image::Image;
pub use progress::Progress;

use crate::bundle::MAX_SEALED;
use crate::bundle::answer::{Report, Standing};
use crate::checkin::AskError;
use crate::est::{self, RetryAfter};
use crate::hex;
use crate::http::{Address, Head, MAX_BODY, Response, SecretRequest};
use crate::https::pause::{self, Rounds};
use crate::https::{self, HttpsError, Open, Sink, Transfer};
use crate::payload::{CaCertificate, HttpsUrl};
use crate::time::{Clock, Deadline, since_boot};
use crate::tls::{ClientCertificate, Strict};
use part::{Part, Version};

/// Who asks, and whom.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The CA that the servers' certificates have to chain to.
    pub ca: &'a CaCertificate,
    /// The node's certificate and key.
    pub client: &'a ClientCertificate,
    /// The time of day.
    pub clock: Clock,
    /// User-Agent.
    pub user_agent: &'a str,
}

/// What a retrieval has its caller do meanwhile.
pub struct Hooks<'a> {
    /// Waits until the deadline, and keeps the network as it is.
    pub wait: &'a mut dyn FnMut(Deadline) -> Result<(), AskError>,
    /// Shows an event on a console.
    pub progress: &'a mut dyn FnMut(Progress<'_>),
}

/// What a server has.
#[derive(Debug)]
pub enum Got {
    /// A sealed bundle. Nobody has verified it.
    Sealed(Vec<u8>),
    /// None that may be fetched. How it stands, and when to ask again.
    Stands(Standing, Duration),
}

/// What became of an upload.
#[derive(Debug)]
pub enum Uploaded {
    /// It is there, now or since an earlier time.
    Taken(Standing),
    /// Another one waits for the administrator.
    Waits(Standing),
    /// An administrator has denied the same before.
    Denied(Standing),
}

/// Requests to the servers of these URLs.
pub struct Retrieval<'a> {
    context: Context<'a>,
    /// The first one is asked first.
    sites: Vec<Site>,
    /// The connection of the first site, as long as the server keeps it open.
    open: Option<(HttpsUrl, Open<Strict>)>,
    part: Option<Part>,
    /// The bundle that came last, so that it need not come twice.
    whole: Option<Whole>,
    /// The image that is fetched.
    image: Option<Image<'a>>,
}

/// A bundle as its server sent it.
struct Whole {
    url: HttpsUrl,
    etag: String,
    sealed: Vec<u8>,
}

struct Site {
    url: HttpsUrl,
    failed: Option<Attempt>,
    /// Another try is of no use.
    over: bool,
    /// The server asked for a wait until this moment since boot.
    not_before: Option<Duration>,
    /// The server has not given a wrong range yet.
    resumes: bool,
    /// The most that it may be expected to bring of an image in [`image::SPAN`], in bytes: what it has brought before it was left; 0 if
    /// it brings nothing, or breaks off again and again. `None`: nobody knows.
    brings: Option<usize>,
}

#[derive(Clone, Copy)]
enum What<'a> {
    Bundle { tag: Option<&'a [u8; 32]> },
    Standing,
    Upload { tag: &'a [u8; 32], age: &'a [u8] },
    Report { json: &'a [u8] },
    Image,
}

/// The longest that connection and handshake may take before the next URL gets its turn.
const ATTEMPT: Duration = Duration::from_secs(30);
/// How long a server may take for each 16 KiB, or for all of it if that is less.
const STALL: Duration = Duration::from_secs(30);
/// How often a transfer that takes long is shown.
const SHOW: Duration = Duration::from_secs(5);
/// A report that has not changed is repeated after this long.
const REPEAT: Duration = Duration::from_secs(60);
/// The wait for an administrator, if the server does not say one.
const POLL: Duration = Duration::from_secs(20);

impl<'a> Retrieval<'a> {
    /// `urls`: base URLs for bundles, in the order in which they are asked.
    pub fn new(urls: impl IntoIterator<Item = HttpsUrl>, context: Context<'a>) -> Retrieval<'a> {
        let mut sites: Vec<Site> = Vec::new();
        for url in urls {
            if !sites.iter().any(|site| site.url == url) {
                sites.push(Site { url, failed: None, over: false, not_before: None, resumes: true, brings: None });
            }
        }
        Retrieval { context, sites, open: None, part: None, whole: None, image: None }
    }

    /// The server that answered last.
    pub fn url(&self) -> Option<&HttpsUrl> {
        self.sites.first().map(|site| &site.url)
    }

    /// From here on only the server that answered last is asked: the upload is there and nowhere else.
    pub fn stay(&mut self) {
        self.sites.truncate(1);
    }

    /// Fetches the node's bundle; with `tag`, how the upload with this tag stands, or the bundle that it has become.
    pub fn bundle(
        &mut self,
        tag: Option<&[u8; 32]>,
        hooks: &mut Hooks<'_>,
        deadline: Deadline,
    ) -> Result<Got, RetrievalError> {
        self.ask(What::Bundle { tag }, hooks, deadline, &mut Retrieval::got)
    }

    /// How it stands with all bundles of the node, and when to ask again: an upload may wait beside the version that is current.
    pub fn standing(
        &mut self,
        hooks: &mut Hooks<'_>,
        deadline: Deadline,
    ) -> Result<(Standing, Duration), RetrievalError> {
        self.ask(What::Standing, hooks, deadline, &mut |retrieval, response| match response.status {
            200 => {
                let stands = Standing::read(&response.body).map_err(ServerError::Standing)?;
                Ok((stands, retrieval.pause(&response)))
            }
            _ => Err(error::of(&response)),
        })
    }

    /// Uploads an encrypted bundle. Doing it twice does no harm: the server knows it by its tag.
    pub fn upload(
        &mut self,
        tag: &[u8; 32],
        age: &[u8],
        hooks: &mut Hooks<'_>,
        deadline: Deadline,
    ) -> Result<Uploaded, RetrievalError> {
        self.ask(What::Upload { tag, age }, hooks, deadline, &mut |_, response| {
            let stands = || Standing::read(&response.body).map_err(ServerError::Standing);
            match response.status {
                200 | 201 => stands().map(Uploaded::Taken),
                409 => stands().map(Uploaded::Waits),
                // Without a standing it is this node that is refused, and not the bundle.
                403 if response.body.starts_with(b"{") => stands().map(Uploaded::Denied),
                _ => Err(error::of(&response)),
            }
        })
    }

    /// Reports what became of a bundle.
    pub fn report(&mut self, report: &Report, hooks: &mut Hooks<'_>, deadline: Deadline) -> Result<(), RetrievalError> {
        let json = serde_json::to_vec(report).map_err(RetrievalError::Json)?;
        self.ask(What::Report { json: &json }, hooks, deadline, &mut |_, response| match response.status {
            200..=299 => Ok(()),
            _ => Err(error::of(&response)),
        })
    }

    /// Asks each server in turn, and all of them again until the deadline, until `read` takes an answer. The server that gave
    /// it is the first from then on.
    fn ask<T>(
        &mut self,
        what: What<'_>,
        hooks: &mut Hooks<'_>,
        deadline: Deadline,
        read: &mut dyn FnMut(&mut Retrieval<'a>, Response) -> Result<T, ServerError>,
    ) -> Result<T, RetrievalError> {
        let (begun, mut rounds, mut said) = (since_boot(), Rounds::default(), None::<(String, Duration)>);
        for site in &mut self.sites {
            (site.failed, site.over, site.not_before) = (None, false, None);
        }
        let mut last = false;
        loop {
            let before = self.came();
            for turn in 0..self.sites.len() {
                let early = |site: &Site| !last && site.not_before.is_some_and(|moment| since_boot() < moment);
                let tried = |site: &Site| site.failed.is_some() && deadline.expired();
                if self.sites.first().is_some_and(|site| !site.over && !early(site) && !tried(site)) {
                    let answer = self.visit(what, hooks, deadline.at_most(share(deadline, &self.sites, turn)));
                    match answer
                        .and_then(|(address, response)| read(self, response).map_err(|error| (Some(address), error)))
                    {
                        Ok(got) => return Ok(got),
                        Err((address, error)) => self.failed(what, address, error),
                    }
                }
                // After a whole round the order is the same again.
                self.sites.rotate_left(1);
            }
            if self.sites.iter().all(|site| site.over) {
                return Err(RetrievalError::Failed { attempts: self.failures() });
            }
            if self.came() > before {
                // What breaks and comes further each time needs no longer and longer waits.
                rounds = Rounds::default();
            }
            let open = self.sites.iter().filter(|site| !site.over);
            let asked = open.map(|site| site.not_before).min().flatten();
            let asked = asked.map(|moment| moment.saturating_sub(since_boot()));
            let Some((delay, is_last)) = rounds.next(asked, deadline) else {
                let waited = since_boot().saturating_sub(begun);
                return Err(RetrievalError::GaveUp { waited, attempts: self.failures() });
            };
            last = is_last;
            let attempts: Vec<&Attempt> = self.sites.iter().filter_map(|site| site.failed.as_ref()).collect();
            let (text, now): (String, _) = (attempts.iter().map(ToString::to_string).collect(), since_boot());
            if said.as_ref().is_none_or(|(before, at)| *before != text || now.saturating_sub(*at) >= REPEAT) {
                (hooks.progress)(Progress::Waiting { attempts: &attempts, delay });
                said = Some((text, now));
            }
            (hooks.wait)(deadline.at_most(delay)).map_err(RetrievalError::Ask)?;
        }
    }

    /// One try at the first site.
    fn visit(
        &mut self,
        what: What<'_>,
        hooks: &mut Hooks<'_>,
        deadline: Deadline,
    ) -> Result<(std::net::SocketAddr, Response), (Option<std::net::SocketAddr>, ServerError)> {
        let Some(url) = self.url().cloned() else { return Err((None, ServerError::NoServer)) };
        let failed = |(address, error): https::Failed| (address, ServerError::Https(error));
        loop {
            let Context { ca, client, clock, .. } = self.context;
            let open = match self.open.take().filter(|(of, _)| *of == url) {
                Some((_, open)) => open,
                None => https::open(&url, ca, clock, Some(client), deadline.at_most(ATTEMPT)).map_err(failed)?,
            };
            let request = self.request(what, &url);
            let before = match (what, &self.image) {
                (What::Image, Some(image)) => self.image_version(&url).map_or(0, |_| image.have),
                _ => self.resumable(&url).map_or(0, |part| part.bytes.len()),
            };
            let mut shown = since_boot();
            let mut watch = |so_far: Option<(usize, usize)>| {
                // Leases end during a long transfer, too. What is wrong with them is said at the next wait.
                let _ = (hooks.wait)(Deadline::after(Duration::ZERO));
                let now = since_boot();
                if let Some((have, want)) = so_far.filter(|_| now.saturating_sub(shown) >= SHOW) {
                    shown = now;
                    let (have, want) = (have.saturating_add(before), want.saturating_add(before));
                    (hooks.progress)(match what {
                        What::Image => Progress::Image { have, want },
                        _ => Progress::Transfer { have, want },
                    });
                }
            };
            let is_image = matches!(what, What::Image);
            let others = best(self.sites.iter().skip(1));
            let mut image = self.image.as_mut().filter(|_| is_image);
            if let Some(image) = &mut image {
                image.expect(others);
            }
            let mut sink = |head: &Response, left: usize, bytes: &[u8]| match &mut image {
                Some(image) => image.take(&url, head, left, bytes),
                None => Ok(()),
            };
            // The whole of a bundle may come instead of a rest. An image may take as long as it comes: the least rate ends it.
            let (limit, until) =
                if is_image { (MAX_BODY, Deadline::after(Duration::MAX)) } else { (MAX_SEALED, deadline) };
            let sink: Option<Sink<'_>> = if is_image { Some(&mut sink) } else { None };
            let mut transfer = Transfer { limit, stall: STALL, watch: &mut watch, sink, beginning: None };
            let asked = open.transfer(&request, &mut transfer, until);
            let beginning = transfer.beginning.take();
            match asked {
                Ok(Some((answer, kept))) => {
                    self.open = kept.map(|open| (url, open));
                    return Ok((answer.address, answer.response));
                }
                // The connection was kept open, and was closed meanwhile.
                Ok(None) => {}
                Err(error) => {
                    if let (Some((beginning, total)), What::Bundle { .. }) = (beginning, what) {
                        self.part = Part::grown(self.part.take(), &url, beginning, total);
                    }
                    let (address, stopped) = (error.0, self.image.as_mut().and_then(Image::trouble));
                    if let Some(ServerError::Range { .. }) = stopped {
                        self.resumes_not();
                    }
                    return Err(stopped.map_or_else(|| failed(error), |trouble| (address, trouble)));
                }
            }
        }
    }

    /// The part of a bundle whose rest this server may have.
    fn resumable(&self, url: &HttpsUrl) -> Option<&Part> {
        let resumes = self.sites.first().is_some_and(|site| site.resumes);
        self.part.as_ref().filter(|part| resumes && part.version.url == *url)
    }

    /// The same of an image.
    fn image_version(&self, url: &HttpsUrl) -> Option<&Version> {
        let resumes = self.sites.first().is_some_and(|site| site.resumes);
        self.image.as_ref().and_then(|image| image.version(url)).filter(|_| resumes)
    }

    /// The first site has given a wrong range: a proxy that knows no ranges, perhaps. The next try wants the whole.
    fn resumes_not(&mut self) {
        if let Some(site) = self.sites.first_mut() {
            site.resumes = false;
        }
    }

    /// How much of what is fetched has come.
    fn came(&self) -> usize {
        let part = self.part.as_ref().map_or(0, |part| part.bytes.len());
        self.image.as_ref().map_or(part, |image| image.most)
    }

    fn request(&self, what: What<'_>, url: &HttpsUrl) -> SecretRequest {
        let to = Address { authority: url.authority(), path: url.path(), user_agent: self.context.user_agent };
        let of_tag = |tag: Option<&[u8; 32]>| match tag {
            Some(tag) => format!("bundle?tag={}", hex::encode(tag)),
            None => "bundle".to_owned(),
        };
        let with = |mut head: Head, kind: &str, body: &[u8]| {
            head.field("Content-Type", kind);
            head.field("Content-Length", &body.len().to_string());
            head.with(body)
        };
        match what {
            What::Bundle { tag } => {
                let mut head = Head::new("GET", &to, &of_tag(tag), "*/*");
                if let Some(part) = self.resumable(url) {
                    resume(&mut head, part.bytes.len(), &part.version);
                } else if let Some(whole) = self.whole.as_ref().filter(|whole| whole.url == *url) {
                    head.field("If-None-Match", &whole.etag);
                }
                head.with(&[])
            }
            What::Standing => Head::new("GET", &to, "standing", "application/json").with(&[]),
            What::Upload { tag, age } => {
                let head = Head::new("PUT", &to, &of_tag(Some(tag)), "application/json");
                with(head, "application/octet-stream", age)
            }
            What::Report { json } => {
                let head = Head::new("POST", &to, "available", "application/json");
                with(head, "application/json", json)
            }
            What::Image => {
                let (folder, name) = url.path().rsplit_once('/').unwrap_or_default();
                let mut head = Head::new("GET", &Address { path: folder, ..to }, name, "*/*");
                if let (Some(version), Some(image)) = (self.image_version(url), &self.image) {
                    resume(&mut head, image.have, version);
                }
                head.with(&[])
            }
        }
    }

    fn got(&mut self, response: Response) -> Result<Got, ServerError> {
        let stands = |body: &[u8], wait| Standing::read(body).map(|stands| Got::Stands(stands, wait));
        match response.status {
            200 => {
                self.part = None;
                self.whole = self.url().zip(response.etag.as_ref().and_then(part::strong)).map(|(url, etag)| Whole {
                    url: url.clone(),
                    etag,
                    sealed: response.body.clone(),
                });
                Ok(Got::Sealed(response.body))
            }
            // What was asked with If-None-Match (RFC 9110 §15.4.5).
            304 => {
                let whole = self.whole.as_ref().filter(|whole| Some(&whole.url) == self.url());
                whole.map(|whole| Got::Sealed(whole.sealed.clone())).ok_or_else(|| error::of(&response))
            }
            206 | 416 => {
                let whole = self.part.take().ok_or_else(|| error::of(&response))?.whole(&response);
                if whole.is_err() {
                    self.resumes_not();
                }
                whole.map(Got::Sealed)
            }
            202 => {
                let wait = self.pause(&response);
                stands(&response.body, wait).map_err(ServerError::Standing)
            }
            // A server that knows no bundles has no JSON.
            404 if response.body.starts_with(b"{") => stands(&response.body, POLL).map_err(ServerError::Standing),
            _ => Err(error::of(&response)),
        }
    }

    /// When to ask again how it stands.
    fn pause(&self, response: &Response) -> Duration {
        let told = est::retry_after(response).map_or(POLL, |when| self.wait(when));
        pause::honoured(told, true)
    }

    fn wait(&self, when: RetryAfter) -> Duration {
        match when {
            RetryAfter::Delay(delay) => delay,
            RetryAfter::At(at) => at.since(self.context.clock.now()),
        }
    }

    fn failed(&mut self, what: What<'_>, address: Option<std::net::SocketAddr>, error: ServerError) {
        let told = error.retry_after().map(|when| pause::honoured(self.wait(when), false));
        let broke_off = self.image.as_ref().is_some_and(Image::has_begun);
        let Some(site) = self.sites.first_mut() else { return };
        site.over = error.lasts();
        site.brings = match &error {
            ServerError::Slow { came, .. } => Some(*came),
            _ if broke_off && site.failed.is_none() => site.brings,
            _ => Some(0),
        };
        site.not_before = told.map(|wait| since_boot().saturating_add(wait));
        // A try for which there was too little time tells less than the one before.
        if site.failed.is_some() && matches!(error, ServerError::Https(HttpsError::TimedOut(_))) {
            return;
        }
        let doing = match what {
            What::Bundle { .. } => "fetching the bundle from",
            What::Standing => "asking how the bundle stands at",
            What::Upload { .. } => "uploading the bundle to",
            What::Report { .. } => "reporting the bundle to",
            What::Image => "fetching the root from",
        };
        site.failed = Some(Attempt { doing, url: site.url.clone(), address, error });
    }

    fn failures(&mut self) -> Vec<Attempt> {
        self.sites.iter_mut().filter_map(|site| site.failed.take()).collect()
    }
}

/// Asks for the rest behind what there is, or for the whole if the version is another one by now (RFC 9110 §13.1.5).
fn resume(head: &mut Head, have: usize, version: &Version) {
    head.field("Range", &format!("bytes={have}-"));
    head.field("If-Range", &version.etag);
}

/// The most that one of these sites may be expected to bring of an image in [`image::SPAN`], in bytes.
fn best<'s>(sites: impl Iterator<Item = &'s Site>) -> usize {
    sites.filter(|site| !site.over).map(|site| site.brings.unwrap_or(usize::MAX)).max().unwrap_or(0)
}

/// How long the first site may take, after so many others in this round: none of those behind it loses its turn to a slow one.
fn share(deadline: Deadline, sites: &[Site], turn: usize) -> Duration {
    let still = sites.iter().take(sites.len().saturating_sub(turn)).filter(|site| !site.over);
    deadline.remaining() / u32::try_from(still.count()).unwrap_or(u32::MAX).max(1)
}
