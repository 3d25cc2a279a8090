//! Finds the doors of the site before there is a payload: brings up a network for that, asks DNS, and gives the places that it
//! finds to the lines, which call there. Goes on in a thread of its own while the lines are heard. Takes the network away before
//! the payload's own network is applied.
//!
//! The image and the kernel command line vouch for what they say of the network; nobody vouches for what DHCP, routers and name
//! servers say. So whatever is found is a place to call at, and never trust: a payload from there has to be signed for this node
//! and this moment.

mod early;
mod search;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::apply::network::{NetworkError, Race};
use crate::chain::chain;
use crate::console::say;
use crate::dialogue::Seeker;
use crate::dns::ask::listed;
use crate::options::{Options, SourceName};
use crate::payload::{DnsName, InterfaceName, UrlHost};
use crate::plan::NetworkPlan;
use crate::sys;
use crate::time::{Deadline, since_boot};
pub use early::{PATH, links};
use search::{Look, Places, Resolver};

/// A search for doors, and the network that it goes over.
pub struct Finding {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

/// What is searched for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// A door whose name or address is known.
    Host(UrlHost, u16),
    /// The door that the site's domain names. `None`: the domains are those of the network.
    Service(Option<DnsName>),
}

/// What the thread is to do.
struct Orders {
    order: AtomicU8,
    /// Readable once the search is to end.
    changed: EventFd,
    /// The network that takes the place of this one.
    next: Mutex<Next>,
}

/// What comes after this network.
#[derive(Default)]
struct Next {
    network: Option<NetworkPlan>,
    /// A link that a line needs.
    link: Option<InterfaceName>,
}

/// Places are looked for.
const SEEK: u8 = 0;
/// The network is kept, and nothing is looked for.
const HOLD: u8 = 1;
/// The network is taken away.
const STOP: u8 = 2;

/// How long places that were named have to answer, before others are looked for, and more links tried.
const PATIENCE: Duration = Duration::from_secs(15);
/// The pauses between two searches: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// When a person is told how it goes: after the first time, then after twice as long each time, up to the second.
const TELL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// The most different messages about what was found.
const MESSAGES: usize = 32;
/// For messages.
const WHAT: &str = "the door";

/// What the sources say that is to be found over a network.
pub fn wanted(options: &Options) -> Vec<Wanted> {
    let one = |source: &SourceName| match source {
        SourceName::Tcp { host, port } => Some(Wanted::Host(host.clone(), *port)),
        SourceName::Door => Some(match &options.server {
            Some((host, port)) => Wanted::Host(host.clone(), *port),
            None => Wanted::Service(options.domain.clone()),
        }),
        _ => None,
    };
    let mut all = Vec::new();
    for wanted in options.sources.iter().filter_map(one) {
        if !all.contains(&wanted) {
            all.push(wanted);
        }
    }
    all
}

impl Finding {
    /// Begins. `network`: what to bring up. `root`: where the files of the kernel are.
    pub fn begin(wanted: Vec<Wanted>, network: NetworkPlan, root: &Path, seeker: Seeker) -> std::io::Result<Finding> {
        let changed = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let orders = Arc::new(Orders { order: AtomicU8::new(SEEK), changed, next: Mutex::default() });
        let work = Work { wanted, network, root: root.to_owned(), seeker, orders: Arc::clone(&orders) };
        let thread = std::thread::Builder::new().name("door".to_owned()).spawn(move || work.run())?;
        Ok(Finding { orders, thread: Some(thread) })
    }

    /// A payload has come: nothing is looked for any more, and the network stays for the line that brought it.
    pub fn hold(&self) {
        self.orders.give(HOLD);
    }

    /// Takes the network away. Links that `network` wants stay up for it, as their carrier would take seconds to come back, and
    /// so does `link`, which a line needs.
    pub fn give_back(mut self, network: Option<&NetworkPlan>, link: Option<&InterfaceName>) {
        *self.orders.next() = Next { network: network.cloned(), link: link.cloned() };
        self.end();
    }

    fn end(&mut self) {
        self.orders.give(STOP);
        if let Some(thread) = self.thread.take() {
            // The thread cannot panic, so its result is ignored.
            drop(thread.join());
        }
    }
}

impl Drop for Finding {
    fn drop(&mut self) {
        self.end();
    }
}

impl Orders {
    fn give(&self, order: u8) {
        self.order.store(order, Ordering::SeqCst);
        let _ = self.changed.write(1);
    }

    fn next(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, order: u8) -> bool {
        self.order.load(Ordering::SeqCst) == order
    }

    /// Waits for another order.
    fn wait(&self, until: Deadline) {
        let mut fds = [PollFd::new(self.changed.as_fd(), PollFlags::POLLIN)];
        // Without poll there is nothing to wait with.
        if sys::poll(&mut fds, until).is_err() {
            self.give(STOP);
        }
    }
}

/// The thread's part.
struct Work {
    wanted: Vec<Wanted>,
    network: NetworkPlan,
    root: PathBuf,
    seeker: Seeker,
    orders: Arc<Orders>,
}

/// What a person was told.
struct Telling {
    told: Vec<String>,
    /// When it is told how the search goes, and how long afterwards again.
    next: (Duration, Duration),
}

impl Telling {
    /// Tells a person, once.
    fn once(&mut self, work: &Work, words: &str) {
        if self.told.len() < MESSAGES && !self.told.iter().any(|told| told == words) {
            work.seeker.tell(format!("{WHAT}: {words}"));
            self.told.push(words.to_owned());
        }
    }

    /// Tells a person how the search goes, when it is time to.
    fn now_and_then(&mut self, work: &Work, words: &str) {
        let now = since_boot();
        if now >= self.next.0 {
            work.seeker.tell(format!("{WHAT}: {words}"));
            self.next = (now.saturating_add(self.next.1), self.next.1.saturating_mul(2).min(TELL.1));
        }
    }
}

impl Work {
    fn run(self) {
        let stop = self.orders.changed.as_fd();
        let mut race = match Race::for_a_while(&self.network, &self.root, stop) {
            Ok(race) => race,
            Err(error) => return self.seeker.tell(format!("{WHAT}: {}", self.trouble(&error))),
        };
        let mut telling = Telling { told: Vec::new(), next: (since_boot().saturating_add(TELL.0), TELL.0) };
        while self.orders.is(SEEK) {
            // A link that is pulled out in the middle of something is an error, too. It may come back.
            if let Err(error) = self.seek(&mut race, &mut telling) {
                telling.once(&self, &self.trouble(&error));
                self.orders.wait(Deadline::after(PAUSE.1));
            }
        }
        // From here on the descriptor would end each wait at once.
        let _ = self.orders.changed.read();
        self.hold(&mut race);
        let Next { network, link } = std::mem::take(&mut *self.orders.next());
        for failed in race.give_back(network.as_ref(), link.as_ref()) {
            say(&failed);
        }
    }

    fn trouble(&self, error: &NetworkError) -> String {
        let words = format!("there is no network to look for it: {}", chain(error));
        self.seeker.is_at(WHAT, words.clone());
        words
    }

    /// Looks for places to call at until a payload has come. Whoever answers before, answers for nobody: the search goes on.
    fn seek(&self, race: &mut Race<'_>, telling: &mut Telling) -> Result<(), NetworkError> {
        self.seeker.is_at(WHAT, "no network yet".to_owned());
        let mut pause = PAUSE.0;
        while self.orders.is(SEEK) {
            // More than one link may lead somewhere, and the first one that works need not lead to the door.
            let until = Deadline::after(pause);
            let until = race.renew_at().map_or(until, |at| until.at(at));
            let gained = race.next(until, &mut |_| ())?;
            pause = if gained { PAUSE.0 } else { pause.saturating_mul(2).min(PAUSE.1) };
            race.renew_due(Deadline::after(Duration::MAX))?;
            let network = race.network()?;
            if network.links.is_empty() {
                let words = self.no_network(race);
                telling.now_and_then(self, &words);
                self.seeker.is_at(WHAT, words);
                continue;
            }
            let resolvers: Vec<Resolver> = network.links.iter().map(Resolver::of).collect();
            let look = Look { resolvers: &resolvers, stop: self.orders.changed.as_fd() };
            let Places { targets, found, missing } = look.all(&self.wanted);
            let words = listed(&missing);
            self.seeker.is_at(WHAT, words.clone());
            for words in found {
                telling.once(self, &words);
            }
            if targets.is_empty() {
                telling.once(self, &format!("{words}; the search goes on"));
                continue;
            }
            self.seeker.call(targets);
            race.keep(Deadline::after(PATIENCE))?;
            telling.now_and_then(self, &self.seeker.tried());
        }
        Ok(())
    }

    /// Keeps the network until it is to be taken away.
    fn hold(&self, race: &mut Race<'_>) {
        while !self.orders.is(STOP) {
            if race.keep(Deadline::after(Duration::MAX)).is_err() {
                // Without the kernel's answers nothing can be kept.
                self.orders.wait(Deadline::after(Duration::MAX));
            }
            let _ = self.orders.changed.read();
        }
    }

    fn no_network(&self, race: &Race<'_>) -> String {
        let links: Vec<String> = race.report().iter().map(ToString::to_string).collect();
        match links.as_slice() {
            [] => format!("no network to look for it: {}", self.no_such_link()),
            links => format!("no network to look for it: {}", links.join("; ")),
        }
    }

    fn no_such_link(&self) -> String {
        let wanted: Vec<String> = self.network.links.iter().map(|link| link.matching.to_string()).collect();
        format!("no link is there ({}); is its driver in the image?", wanted.join(" or "))
    }
}
