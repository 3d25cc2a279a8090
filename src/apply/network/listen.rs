//! Looks at the links of a running system, and listens on those that are up. Changes nothing but that they take all frames meanwhile.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};

use super::heard::Ear;
use super::kernel::{Kernel, On};
use super::report::{Carrier, LinkReport};
use super::{NetworkError, packet};
use crate::facts::{self, LinkFacts};
use crate::netlink::message::{ARPHRD_ETHER, IFF_UP, LinkMessage};
use crate::payload::Prefix;
use crate::sys;
use crate::time::Deadline;

/// One link of a running system.
pub struct Seen {
    /// Which link it is.
    pub facts: LinkFacts,
    /// What it is like, and what was heard.
    pub report: LinkReport,
    /// All that it has.
    pub addresses: Vec<Prefix>,
}

/// The sockets of a link that is listened to.
type Listening = Option<io::Result<Ear>>;

/// More links are not listened to: each takes two sockets.
const MOST: usize = 64;

/// Every link but loopback, in the kernel's order, after listening for so long.
pub fn listen(root: &Path, time: Duration) -> Result<Vec<Seen>, NetworkError> {
    let mut kernel = Kernel::open()?;
    let controllers = facts::host_interfaces(root);
    let mut links: Vec<(LinkFacts, LinkMessage, Listening)> = Vec::new();
    for message in kernel.links()? {
        let Some(facts) = facts::link_facts(&message, root, &controllers) else { continue };
        let can =
            message.flags & IFF_UP != 0 && message.hardware == ARPHRD_ETHER && links.len() < MOST && !time.is_zero();
        let ear = can.then(|| Ear::open(message.index, message.received));
        links.push((facts, message, ear));
    }
    let deadline = Deadline::after(time);
    let mut buffer = vec![0; packet::BUFFER];
    while !deadline.expired() {
        let ears = links.iter().filter_map(|(_, _, ear)| ear.as_ref()?.as_ref().ok());
        let mut fds: Vec<PollFd<'_>> = ears.map(|ear| PollFd::new(ear.switch().as_fd(), PollFlags::POLLIN)).collect();
        sys::poll(&mut fds, deadline).map_err(NetworkError::Wait)?;
        drop(fds);
        let ears = links.iter_mut().filter_map(|(_, _, ear)| ear.as_mut()?.as_mut().ok());
        ears.for_each(|ear| ear.drain(&mut buffer));
    }
    // As they are in the end.
    let now = kernel.links()?;
    let mut all = Vec::new();
    for (facts, mut message, ear) in links {
        if let Some(latest) = now.iter().find(|link| link.index == message.index) {
            message = latest.clone();
        }
        let addresses = kernel.addresses_of(On { index: facts.index, name: &facts.name })?;
        let mut tried = Vec::new();
        if message.flags & IFF_UP == 0 {
            tried.push(format!("the link is down; to see more: ip link set {} up", facts.name));
        }
        let mut report =
            LinkReport { received: message.received, ..LinkReport::untouched(&facts, Carrier::of(&message)) };
        match ear {
            Some(Ok(ear)) => report.heard = ear.heard(message.received),
            Some(Err(error)) => tried.push(match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
                Errno::EPERM => "not listened to; run imprint as root".to_owned(),
                _ => format!("not listened to: {error}"),
            }),
            None => {}
        }
        report.speed = facts::speed(root, &facts.name);
        // What a link tells of itself beside that (the LACP partner of a bond) goes behind these.
        report.tried = tried;
        all.push(Seen { facts, report, addresses });
    }
    Ok(all)
}
