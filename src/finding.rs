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

use crate::apply::network::{LinkReport, NetworkError, Race};
use crate::chain::chain;
use crate::console::say;
use crate::dialogue::Seeker;
use crate::options::{Options, SourceName};
use crate::payload::{DnsName, InterfaceName, UrlHost};
use crate::pipe::Target;
use crate::plan::NetworkPlan;
use crate::sys;
use crate::time::Deadline;
pub use early::{PATH, links};
use search::{Found, Resolver, Search};

/// A search for doors, and the network that it goes over.
pub struct Finding {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

/// What is searched for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sought {
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

/// How long places that were called at have to answer, before others are looked for, and more links tried.
const PATIENCE: Duration = Duration::from_secs(15);
/// As long as a host was heard within this time, its network is the right one. A host that keeps the node waiting asks for it
/// every 20 s (docs/line-protocol.md, "Timers").
const HEARD: Duration = Duration::from_secs(90);
/// The pauses between two searches: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The most places that are called at.
const MOST: usize = 16;
/// For messages.
const WHAT: &str = "the door";

/// What the sources say that is to be found over a network.
pub fn sought(options: &Options) -> Vec<Sought> {
    let one = |source: &SourceName| match source {
        SourceName::Tcp { host, port } => Some(Sought::Host(host.clone(), *port)),
        SourceName::Door => Some(match &options.server {
            Some((host, port)) => Sought::Host(host.clone(), *port),
            None => Sought::Service(options.domain.clone()),
        }),
        _ => None,
    };
    let mut all = Vec::new();
    for sought in options.sources.iter().filter_map(one) {
        if !all.contains(&sought) {
            all.push(sought);
        }
    }
    all
}

impl Finding {
    /// Begins. `network`: what to bring up. `root`: where the files of the kernel are.
    pub fn begin(sought: Vec<Sought>, network: NetworkPlan, root: &Path, seeker: Seeker) -> std::io::Result<Finding> {
        let changed = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let orders = Arc::new(Orders { order: AtomicU8::new(SEEK), changed, next: Mutex::default() });
        let work = Work { sought, network, root: root.to_owned(), seeker, orders: Arc::clone(&orders) };
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
    sought: Vec<Sought>,
    network: NetworkPlan,
    root: PathBuf,
    seeker: Seeker,
    orders: Arc<Orders>,
}

/// What a search has come to.
#[derive(Default)]
struct SoFar {
    /// The places that are called at.
    called: Vec<Target>,
    told: Vec<String>,
}

impl SoFar {
    /// Tells a person, once.
    fn tell(&mut self, work: &Work, words: &str) {
        if self.told.len() < MOST && !self.told.iter().any(|told| told == words) {
            work.seeker.tell(format!("{WHAT}: {words}"));
            self.told.push(words.to_owned());
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
        let mut so_far = SoFar::default();
        while self.orders.is(SEEK) {
            // A link that is pulled out in the middle of something is an error, too. It may come back.
            if let Err(error) = self.seek(&mut race, &mut so_far) {
                so_far.tell(&self, &self.trouble(&error));
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

    /// Looks for places to call at until a payload has come.
    fn seek(&self, race: &mut Race<'_>, so_far: &mut SoFar) -> Result<(), NetworkError> {
        self.seeker.is_at(WHAT, "no network yet".to_owned());
        let mut pause = PAUSE.0;
        while self.orders.is(SEEK) {
            // More than one link may lead somewhere, and the first one that works need not lead to the door.
            let until = Deadline::after(pause);
            let until = race.renew_at().map_or(until, |at| until.at(at));
            let gained = race.next(until, &mut |links| self.no_link(links))?;
            pause = if gained { PAUSE.0 } else { pause.saturating_mul(2).min(PAUSE.1) };
            race.renew_due(Deadline::after(Duration::MAX))?;
            let network = race.network()?;
            if network.links.is_empty() {
                self.seeker.is_at(WHAT, self.no_network(race));
                continue;
            }
            let resolvers: Vec<Resolver> = network.links.iter().map(Resolver::of).collect();
            let mut search = Search { resolvers: &resolvers, stop: self.orders.changed.as_fd(), words: Vec::new() };
            let before = so_far.called.len();
            let called = &mut so_far.called;
            for sought in &self.sought {
                search.find(sought, &mut |Found { targets, words }| {
                    let new: Vec<Target> = targets.into_iter().filter(|target| !called.contains(target)).collect();
                    let room = MOST.saturating_sub(called.len());
                    let new: Vec<Target> = new.into_iter().take(room).collect();
                    if !new.is_empty() {
                        called.extend(new.iter().cloned());
                        if let Some(words) = words {
                            self.seeker.tell(format!("{WHAT}: {words}"));
                        }
                        self.seeker.call(new);
                    }
                });
            }
            let words = search.words();
            self.seeker.is_at(WHAT, words.clone());
            if !words.is_empty() && so_far.called.is_empty() {
                so_far.tell(self, &format!("{words}; the search goes on"));
            }
            if so_far.called.len() > before {
                self.rest(race)?;
            }
        }
        Ok(())
    }

    /// Keeps the network while somebody answers.
    fn rest(&self, race: &mut Race<'_>) -> Result<(), NetworkError> {
        race.keep(Deadline::after(PATIENCE))?;
        while self.orders.is(SEEK) && self.seeker.hears(HEARD) {
            race.keep(Deadline::after(PATIENCE))?;
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

    fn no_link(&self, links: &[LinkReport]) {
        let words: Vec<String> = links.iter().map(ToString::to_string).collect();
        let words = if words.is_empty() { self.no_such_link() } else { words.join("; ") };
        self.seeker.tell(format!("{WHAT}: no network yet: {words}"));
    }
}
