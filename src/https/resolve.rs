//! Looks up the addresses of a server with the C library, within a deadline. Never connects to one.
//!
//! Each address family has a lookup of its own (RFC 8305 §3). Name servers of isolated networks answer for A, but
//! refuse AAAA or stay silent about it, and musl gives up a lookup of both families when one of the two answers is an
//! error. A name server's answer is only a place to try: the certificate decides which server is there.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::error::{HttpsError, Unresolved};
use crate::payload::{DnsName, HttpsUrl, InterfaceName, UrlHost};
use crate::sys::{self, NoAddress};
use crate::time::Deadline;

/// Addresses to try, in order. More addresses of a name may become known while the first ones are tried.
pub(super) struct Addresses {
    ipv6: VecDeque<SocketAddr>,
    ipv4: VecDeque<SocketAddr>,
    /// The addresses that were tried.
    given: Vec<SocketAddr>,
    lookups: Option<Lookups>,
}

/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

impl Addresses {
    /// The addresses of a URL's host. For a name, it waits until there is an address to begin with, or until none can
    /// come.
    pub(super) fn of(url: &HttpsUrl, deadline: Deadline) -> Result<Addresses, HttpsError> {
        let name = match url.host() {
            UrlHost::Ip(address) => return Ok(Addresses::known(&[on_link(*address, url)])),
            UrlHost::Dns(name) => name,
        };
        let lookups = Lookups::begin(name, url.port(), deadline.at_most(RESOLVE));
        let mut addresses = Addresses { lookups: Some(lookups), ..Addresses::known(&[]) };
        while addresses.first_is_awaited() {
            addresses.wait(deadline);
        }
        // IPv6 goes first. When IPv4 is known first, IPv6 gets a moment more.
        if addresses.ipv6.is_empty() {
            addresses.wait(deadline.at_most(RESOLUTION_DELAY));
        }
        match &addresses.lookups {
            Some(lookups) if addresses.is_empty() => Err(lookups.failure(name)),
            _ => Ok(addresses),
        }
    }

    pub(super) fn known(addresses: &[SocketAddr]) -> Addresses {
        let (ipv6, ipv4) = addresses.iter().partition(|address| address.is_ipv6());
        Addresses { ipv6, ipv4, given: Vec::new(), lookups: None }
    }

    /// The next address to try. The families take turns, IPv6 first (RFC 8305 §4). A family without a route costs one
    /// try.
    pub(super) fn next(&mut self) -> Option<SocketAddr> {
        self.take_in(Duration::ZERO);
        loop {
            let ipv4_is_next = self.given.last().is_some_and(SocketAddr::is_ipv6);
            let next = match ipv4_is_next {
                true => self.ipv4.pop_front().or_else(|| self.ipv6.pop_front()),
                false => self.ipv6.pop_front().or_else(|| self.ipv4.pop_front()),
            };
            let address = next.filter(|_| self.given.len() < MAX_ADDRESSES)?;
            if !self.given.contains(&address) {
                self.given.push(address);
                return Some(address);
            }
        }
    }

    /// One more address to try.
    pub(super) fn also(&mut self, address: SocketAddr) {
        if address.is_ipv6() { &mut self.ipv6 } else { &mut self.ipv4 }.push_back(address);
    }

    /// Whether there may be another address to try, now or later.
    pub(super) fn more(&self) -> bool {
        self.given.len() < MAX_ADDRESSES && (!self.is_empty() || self.under_way())
    }

    /// Waits for a lookup that is still under way. False when there is none, or when none has answered by the deadline.
    pub(super) fn wait(&mut self, deadline: Deadline) -> bool {
        self.under_way() && self.take_in(deadline.remaining())
    }

    fn first_is_awaited(&self) -> bool {
        self.is_empty() && self.under_way()
    }

    fn is_empty(&self) -> bool {
        self.ipv6.is_empty() && self.ipv4.is_empty()
    }

    fn under_way(&self) -> bool {
        self.lookups.as_ref().is_some_and(|lookups| lookups.under_way())
    }

    /// Takes in what a lookup answers within `limit`. False when none answers.
    fn take_in(&mut self, limit: Duration) -> bool {
        let Some(lookups) = &mut self.lookups else { return false };
        let Some(found) = lookups.next(limit) else { return false };
        for address in found {
            if address.is_ipv6() { &mut self.ipv6 } else { &mut self.ipv4 }.push_back(address);
        }
        true
    }
}

/// An address of a URL, with the link that it is on. A link that there is not now has no number; the kernel then says what is wrong.
fn on_link(address: IpAddr, url: &HttpsUrl) -> SocketAddr {
    let number = |zone: &InterfaceName| nix::net::if_::if_nametoindex(zone.as_str()).ok();
    match (address, url.zone().and_then(number)) {
        (IpAddr::V6(address), Some(link)) => SocketAddrV6::new(address, url.port(), 0, link).into(),
        _ => SocketAddr::new(address, url.port()),
    }
}

/// The longest that name servers may take. musl asks all of them at once, twice, and waits 5 s each time.
const RESOLVE: Duration = Duration::from_secs(11);
/// RFC 8305 §3: how long an IPv4 address waits for the name's IPv6 addresses.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// One lookup for each family.
///
/// getaddrinfo(3) has no deadline, so each lookup runs in a thread of its own. A lookup that takes too long finds no
/// receiver any more, and its thread ends. The C library's own timeouts see to that.
struct Lookups {
    port: u16,
    deadline: Deadline,
    answers: Receiver<(bool, Found)>,
    /// The lookups without an address: whether it was the one for IPv6, and why there is none.
    without: Vec<(bool, NoAddress)>,
    answered: usize,
}

type Found = Result<Vec<IpAddr>, NoAddress>;

/// Whether IPv6 is looked up. AAAA goes first, so that its answer comes first when both are equally fast.
const FAMILIES: [bool; 2] = [true, false];

impl Lookups {
    fn begin(name: &DnsName, port: u16, deadline: Deadline) -> Lookups {
        let (sender, answers) = channel();
        let mut lookups = Lookups { port, deadline, answers, without: Vec::new(), answered: 0 };
        for ipv6 in FAMILIES {
            if let Err(source) = spawn(name, ipv6, sender.clone()) {
                lookups.note(ipv6, Err(NoAddress::Failed(source.to_string())));
            }
        }
        lookups
    }

    fn under_way(&self) -> bool {
        self.answered < FAMILIES.len() && !self.deadline.expired()
    }

    /// What the next lookup found, if one answers within `limit`. An answer without an address counts, too.
    fn next(&mut self, limit: Duration) -> Option<Vec<SocketAddr>> {
        match self.answers.recv_timeout(limit.min(self.deadline.remaining())) {
            Ok((ipv6, found)) => Some(self.note(ipv6, found)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.answered = FAMILIES.len();
                None
            }
        }
    }

    fn note(&mut self, ipv6: bool, found: Found) -> Vec<SocketAddr> {
        self.answered = self.answered.saturating_add(1);
        match found {
            Ok(found) => found.into_iter().map(|address| SocketAddr::new(address, self.port)).collect(),
            Err(none) => {
                self.without.push((ipv6, none));
                Vec::new()
            }
        }
    }

    /// Why there is no address.
    fn failure(&self, name: &DnsName) -> HttpsError {
        let mut why = [NoAddress::Unusable, NoAddress::Unusable];
        for (ipv6, none) in &self.without {
            let [aaaa, a] = &mut why;
            *(if *ipv6 { aaaa } else { a }) = none.clone();
        }
        let [aaaa, a] = why;
        let servers = fs::read_to_string("/etc/resolv.conf").map(|text| name_servers(&text)).unwrap_or_default();
        HttpsError::Resolve(Box::new(Unresolved { name: name.clone(), servers, a, aaaa }))
    }
}

fn spawn(name: &DnsName, ipv6: bool, sender: Sender<(bool, Found)>) -> std::io::Result<()> {
    let name = CString::new(name.as_str())?;
    let look_up = move || {
        // Once the deadline has passed or a connection exists, there is no receiver any more.
        let _ = sender.send((ipv6, sys::look_up(&name, ipv6)));
    };
    std::thread::Builder::new().name("resolve".to_owned()).spawn(look_up).map(drop)
}

/// resolv.conf(5): the C library asks the first three name servers, and skips words that are not an address.
fn name_servers(text: &str) -> Vec<String> {
    let is_address = |word: &&str| {
        let (address, zone) = word.split_once('%').unwrap_or((word, "lo"));
        let zone_is_plain = (1..16).contains(&zone.len()) && zone.chars().all(|c| c.is_ascii_graphic());
        address.parse::<IpAddr>().is_ok() && zone_is_plain
    };
    let servers = text.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    let servers =
        servers.filter(|rest| rest.starts_with([' ', '\t'])).filter_map(|rest| rest.split_whitespace().next());
    servers.filter(is_address).take(3).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::EstUrl;

    fn sockets(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 443)).collect()
    }

    fn all(mut addresses: Addresses) -> Vec<SocketAddr> {
        std::iter::from_fn(|| addresses.next()).collect()
    }

    #[test]
    fn families_take_turns() {
        let found = sockets(&["192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8::1", "192.0.2.2"]);
        let want = sockets(&["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]);
        assert_eq!(all(Addresses::known(&found)), want);
        let one = sockets(&["192.0.2.1", "192.0.2.2"]);
        assert_eq!(all(Addresses::known(&one)), one);
        let many: Vec<_> = (0..50).map(|n| SocketAddr::from(([192, 0, 2, n], 443))).collect();
        assert_eq!(all(Addresses::known(&many)).len(), MAX_ADDRESSES);
    }

    /// Two lookups whose answers the test gives.
    fn looking_up() -> (Sender<(bool, Found)>, Addresses) {
        let (sender, answers) = channel();
        let deadline = Deadline::after(Duration::from_secs(600));
        let lookups = Lookups { port: 443, deadline, answers, without: Vec::new(), answered: 0 };
        (sender, Addresses { lookups: Some(lookups), ..Addresses::known(&[]) })
    }

    #[test]
    fn what_becomes_known_while_others_are_tried_is_tried_as_well() {
        let (sender, mut addresses) = looking_up();
        assert!(addresses.first_is_awaited());
        sender.send((false, Ok(vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()]))).unwrap();
        assert_eq!(addresses.next(), Some(sockets(&["192.0.2.1"])[0]));
        assert!(addresses.more());
        sender.send((true, Ok(vec!["2001:db8::1".parse().unwrap()]))).unwrap();
        assert_eq!(all(addresses), sockets(&["2001:db8::1", "192.0.2.2"]));

        let (sender, mut addresses) = looking_up();
        sender.send((true, Err(NoAddress::Unknown))).unwrap();
        assert!(addresses.wait(Deadline::after(Duration::ZERO)) && addresses.first_is_awaited());
        sender.send((false, Err(NoAddress::Unusable))).unwrap();
        assert!(addresses.wait(Deadline::after(Duration::ZERO)) && !addresses.first_is_awaited() && !addresses.more());
        // No lookup is under way any more.
        assert!(!addresses.wait(Deadline::after(Duration::from_secs(600))));
    }

    #[test]
    fn a_name_that_does_not_exist() {
        // RFC 6761 §6.4.
        let url = EstUrl::try_from("https://host.invalid/.well-known/est").unwrap();
        let EstUrl::Https(url) = url else { panic!("{url}") };
        let unresolved = |seconds| match Addresses::of(&url, Deadline::after(Duration::from_secs(seconds))).err() {
            Some(HttpsError::Resolve(unresolved)) => unresolved,
            other => panic!("{other:?}"),
        };
        assert_eq!(unresolved(30).name.as_str(), "host.invalid");
        let at_once = unresolved(0);
        assert!(at_once.has_no_answer(), "{at_once:?}");
    }

    #[test]
    fn who_is_asked() {
        let text = "# nameserver 192.0.2.1\nsearch nameserver\nnameserver\t192.0.2.2 # the first\n nameserver fe80::1%eth0\n\
                    nameserver none\nnameservers 192.0.2.3\nnameserver fe80::1%\x1b[2J\nnameserver 2001:db8::53\n\
                    nameserver 192.0.2.4\n";
        assert_eq!(name_servers(text), ["192.0.2.2", "fe80::1%eth0", "2001:db8::53"]);
    }
}
