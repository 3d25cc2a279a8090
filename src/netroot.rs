//! The root that comes over the network: an image that is fetched with the node's identity into memory, verified while it comes, and
//! mounted. Never reads the kernel command line or the hand-over: its caller brings what they say. Nothing is mounted unless every
//! byte is as the digest says.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::apply::image::{self, ImageError, Kind, Place};
use crate::apply::network::{Keeper, NetworkError};
use crate::chain::chain;
use crate::machine;
use crate::payload::{HostName, HttpsUrl, InterfaceName};
use crate::retrieval::{Context, Hooks, Image, Progress, Retrieval, RetrievalError};
use crate::shown::line;
use crate::time::{Deadline, since_boot};

/// How often the leases are looked at while nothing comes.
const LEASES: Duration = Duration::from_secs(1);

/// Which image, and how it comes.
#[derive(Clone)]
pub struct Wanted<'a> {
    /// The root of the machine.
    pub machine: &'a Path,
    /// The folder of the hand-over, in which the image is kept in memory.
    pub directory: &'a Path,
    /// Where the image is; asked in turn.
    pub urls: &'a [HttpsUrl],
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// How long no server may bring anything.
    pub patience: Duration,
    /// Who fetches it.
    pub context: Context<'a>,
    /// The host name that the DHCP servers know.
    pub hostname: Option<HostName>,
    /// The client identifier that they know, on this link, where it is not the hardware address.
    pub client_id: Option<(InterfaceName, Vec<u8>)>,
    /// Shows a line to whoever is at the consoles.
    pub say: &'a dyn Fn(&str),
}

/// A root that is mounted.
#[derive(Debug)]
pub struct Mounted {
    /// Its file system.
    pub kind: Kind,
    /// Bytes of the image.
    pub length: u64,
    /// The server that gave the image.
    pub url: HttpsUrl,
    /// How long the image took to come.
    pub took: Duration,
}

/// Why there is no root.
#[derive(Debug)]
pub enum NetrootError {
    /// The image did not come, or is another one.
    Fetch(RetrievalError),
    /// The image cannot be mounted.
    Mount(ImageError),
}

/// Fetches the image and mounts it at `to`. `None`: it is mounted there already.
pub fn mount(wanted: &Wanted<'_>, to: &Path) -> Result<Option<Mounted>, NetrootError> {
    if image::is_mounted(to).map_err(NetrootError::Mount)? {
        return Ok(None);
    }
    let place = Place::new(wanted.machine, wanted.directory);
    let (url, length, took) = fetch(wanted, &place)?;
    let kind = place.mount(to).map_err(NetrootError::Mount)?;
    Ok(Some(Mounted { kind, length, url, took }))
}

fn fetch(wanted: &Wanted<'_>, place: &Place) -> Result<(HttpsUrl, u64, Duration), NetrootError> {
    let began = since_boot();
    let uuid = machine::dmi(wanted.machine).uuid;
    let keeper = Keeper::open(wanted.hostname.clone(), wanted.client_id.clone(), uuid);
    let mut leases = Leases { keeper: Some(keeper), say: wanted.say };
    let mut wait = |until: Deadline| loop {
        leases.tend();
        if until.expired() {
            return Ok(());
        }
        std::thread::sleep(until.at_most(LEASES).remaining());
    };
    let mut progress = |progress: Progress<'_>| (wanted.say)(&progress.to_string());
    let mut hooks = Hooks { wait: &mut wait, progress: &mut progress };
    let mut length = 0;
    let mut room = |bytes: u64| {
        length = bytes;
        place.room(bytes)
    };
    let fetched = {
        let mut retrieval = Retrieval::new(wanted.urls.iter().cloned(), wanted.context);
        let fetched = retrieval.image(Image::new(wanted.sha256, &mut room), &mut hooks, wanted.patience);
        fetched.map(|_| retrieval.url().cloned())
    };
    let took = since_boot().saturating_sub(began);
    match fetched {
        Ok(Some(url)) => Ok((url, length, took)),
        Ok(None) => Err(NetrootError::Fetch(RetrievalError::Failed { attempts: Vec::new() })),
        Err(error) => {
            // The memory of what has come is free again.
            let cleared = place.clear();
            Err(NetrootError::Fetch(error)).inspect_err(|_| drop(cleared))
        }
    }
}

/// The leases of the run that got the identity, and that has ended. The image may take longer than they last.
struct Leases<'a> {
    keeper: Option<Result<Keeper, NetworkError>>,
    say: &'a dyn Fn(&str),
}

impl Leases<'_> {
    /// What cannot be kept is told once: the image may come in time, and a network that is gone ends the transfer by itself.
    fn tend(&mut self) {
        let Some(keeper) = self.keeper.take() else { return };
        let tended = keeper.and_then(|mut keeper| keeper.tend(self.say).map(|()| keeper));
        match tended {
            Ok(keeper) => self.keeper = Some(Ok(keeper)),
            Err(error) => (self.say)(&format!("the leases of DHCP servers are not renewed: {}", chain(&error))),
        }
    }
}

/// `squashfs, 200 MiB from https://images.example/root.sqfs in 1.6 s`
impl fmt::Display for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mounted { kind, length, url, took } = self;
        write!(
            f,
            "{kind}, {} MiB from {} in {:.1} s",
            length.div_ceil(1 << 20),
            line(&url.to_string()),
            took.as_secs_f64()
        )
    }
}

impl fmt::Display for NetrootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetrootError::Fetch(error) => error.fmt(f),
            NetrootError::Mount(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NetrootError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Display shows the error itself, so its source is the next cause.
        match self {
            NetrootError::Fetch(error) => error.source(),
            NetrootError::Mount(error) => error.source(),
        }
    }
}
