//! The addresses of a host name, by the C library, within a deadline. Connects to none of them.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::error::{Failure, Phase};
use crate::payload::DnsName;
use crate::time::Deadline;

/// The longest that name servers may take. musl asks all of them at once, twice in 5 s each time.
const RESOLVE: Duration = Duration::from_secs(11);

/// The addresses of a name, IPv6 and IPv4 in turn (RFC 8305 §4).
///
/// getaddrinfo(3) has no deadline, so a thread of its own waits for it. One that comes too late finds nobody who
/// listens, and ends; the C library's own timeouts see to that.
pub(super) fn resolve(name: &DnsName, deadline: Deadline) -> Result<Vec<IpAddr>, Failure> {
    let deadline = deadline.at_most(RESOLVE);
    let (sender, receiver) = sync_channel(1);
    let host = name.as_str().to_owned();
    let look_up = move || {
        let found = (host.as_str(), 0).to_socket_addrs();
        // Nobody listens any more when the deadline has passed.
        let _ = sender.send(found.map(|found| found.map(|address| address.ip()).collect::<Vec<_>>()));
    };
    std::thread::Builder::new().name("resolve".to_owned()).spawn(look_up).map_err(Failure::Resolve)?;
    match receiver.recv_timeout(deadline.remaining()) {
        Ok(Ok(found)) if found.is_empty() => Err(Failure::Resolve(io::ErrorKind::NotFound.into())),
        Ok(Ok(found)) => Ok(interleaved(found)),
        Ok(Err(error)) => Err(Failure::Resolve(error)),
        Err(RecvTimeoutError::Timeout) => Err(Failure::TimedOut(Phase::Resolve)),
        Err(RecvTimeoutError::Disconnected) => Err(Failure::Resolve(io::ErrorKind::Other.into())),
    }
}

/// The families in turn, the C library's first choice first (it sorts by RFC 6724), so that a family without a route
/// costs one try and not all of them.
fn interleaved(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|ip| ip.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all: Vec<IpAddr> = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] || all.len() >= MAX_ADDRESSES {
            return all;
        }
        for address in pair.into_iter().flatten() {
            if !all.contains(&address) {
                all.push(address);
            }
        }
    }
}

/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let found = ["2001:db8::1", "2001:db8::2", "2001:db8::1", "192.0.2.1", "192.0.2.2"].map(ip).to_vec();
        assert_eq!(interleaved(found), ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"].map(ip));
        let one = ["192.0.2.1", "192.0.2.2"].map(ip);
        assert_eq!(interleaved(one.to_vec()), one);
        assert!(interleaved((0..50).map(|n| IpAddr::from([192, 0, 2, n])).collect()).len() <= MAX_ADDRESSES);
    }

    #[test]
    fn a_name_that_does_not_exist() {
        // RFC 6761 §6.4.
        let name = DnsName::try_from("host.invalid").unwrap();
        let failure = resolve(&name, Deadline::after(Duration::from_secs(30))).unwrap_err();
        assert!(matches!(failure, Failure::Resolve(_) | Failure::TimedOut(Phase::Resolve)), "{failure:?}");
        let failure = resolve(&name, Deadline::after(Duration::ZERO)).unwrap_err();
        assert!(matches!(failure, Failure::TimedOut(Phase::Resolve)), "{failure:?}");
    }
}
