//! What a DHCPv6 server gave, and until when it counts (RFC 8415 §21.4, §21.6, §21.23). Never asks for anything.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::message::{Answer, Given};
use crate::duid::Duid;
use crate::payload::DnsName;

/// RFC 8415 §21.23, in seconds: what counts where the server does not say, and the least.
const REFRESH: (u32, u32) = (86_400, 600);

/// A server that has answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// Its identifier.
    pub duid: Duid,
    /// Where its answer came from: itself, or a relay.
    pub from: Ipv6Addr,
}

/// A lease that a server gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The address. DHCPv6 says nothing of its network.
    pub address: Ipv6Addr,
    /// The server that gave the lease.
    pub server: Server,
    /// Name servers.
    pub dns: Vec<Ipv6Addr>,
    /// Search domains.
    pub search: Vec<DnsName>,
    /// For how many seconds new connections may use the address; `u32::MAX`: for ever.
    pub preferred: u32,
    /// How long the lease lasts, in seconds; `u32::MAX`: for ever.
    pub valid: u32,
    /// When the lease was given, since boot.
    pub bound: Duration,
    /// T1, from `bound` on: the client may then ask the server for more time.
    pub renew: Duration,
    /// T2, from `bound` on: the client may then ask any server.
    pub rebind: Duration,
}

impl Lease {
    pub(super) fn of(given: Given, (t1, t2): (u32, u32), server: Server, answer: Answer, now: Duration) -> Lease {
        // RFC 8415 §21.4: where the server leaves it to the client, half and four fifths of the preferred lifetime. A time that is
        // never, or after the end of the lease, is no time to ask for more.
        let basis = if given.preferred > 0 { given.preferred } else { given.valid };
        let within = |timer: u32, or: u32| if (1..given.valid).contains(&timer) { timer } else { or }.max(1);
        let renew = within(t1, basis / 2);
        let rebind = within(t2, basis.saturating_sub(basis / 5)).max(renew);
        // As in DHCPv4: a lease of less than a minute is of no use, because the kernel would take the address away during the
        // check-in.
        let valid = given.valid.max(60);
        Lease {
            address: given.address,
            server,
            dns: answer.dns,
            search: answer.search,
            preferred: if given.preferred == 0 { 0 } else { given.preferred.max(60).min(valid) },
            valid,
            bound: now,
            renew: Duration::from_secs(renew.into()),
            rebind: Duration::from_secs(rebind.into()),
        }
    }

    /// When to ask for more time, since boot.
    pub fn renew_at(&self) -> Duration {
        self.bound.saturating_add(self.renew)
    }

    /// When the lease ends unless it is renewed, since boot.
    pub fn ends_at(&self) -> Duration {
        match self.valid {
            u32::MAX => Duration::MAX,
            seconds => self.bound.saturating_add(Duration::from_secs(seconds.into())),
        }
    }
}

/// What a server told without giving an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Information {
    /// Name servers.
    pub dns: Vec<Ipv6Addr>,
    /// Search domains.
    pub search: Vec<DnsName>,
    /// When to ask again, since boot.
    pub until: Duration,
}

impl Information {
    pub(super) fn of(answer: Answer, now: Duration) -> Information {
        let (default, least) = REFRESH;
        let seconds = answer.refresh.unwrap_or(default).max(least);
        let until = now.saturating_add(Duration::from_secs(seconds.into()));
        Information { dns: answer.dns, search: answer.search, until }
    }
}

/// Whether a host can have this address from a server.
pub(super) fn is_host(address: Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_unicast_link_local())
}
