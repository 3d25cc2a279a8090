//! Configures the network as the plan says: links, addresses, routes, resolv.conf and the host name. Chooses one thing
//! only: which of the plan's links comes first. Never removes an address or a route that the plan or a lease did not
//! give.

mod before;
mod contender;
mod error;
mod ip6;
mod heard;
mod keep;
mod kernel;
mod lease;
mod listen;
mod packet;
mod probe;
mod race;
mod report;
mod resolv;
mod six;
mod stack;

use std::net::IpAddr;

pub use error::NetworkError;
pub use heard::Heard;
pub use keep::Keeper;
pub use listen::{Seen, listen};
pub use race::Race;
pub use report::{Carrier, LinkReport};
pub use six::Given6;

use crate::dhcp4::Lease;
use crate::link_files::Standing;
use crate::payload::{DnsName, HardwareAddress, HostName, InterfaceName, Prefix, Route};
use crate::plan::LinkConfig;

/// The network as it was configured. The hand-over tells it to the next stage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// Links that can be used. The first one became usable last: the check-in went over it.
    pub links: Vec<AppliedLink>,
    /// Links that the payload names and that cannot be used yet. The next stage may get them to work.
    pub idle: Vec<AppliedLink>,
    /// The links that were made, and those that they stand on. Those with addresses are also among the others.
    pub standing: Vec<Standing>,
}

/// One link and what it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppliedLink {
    /// Kernel interface index.
    pub index: u32,
    /// The link's present name.
    pub name: InterfaceName,
    /// Its present hardware address; `None` when that has neither 6 nor 20 bytes.
    pub mac: Option<HardwareAddress>,
    /// Its permanent hardware address, where the driver knows it.
    pub permanent: Option<HardwareAddress>,
    /// In bytes.
    pub mtu: u32,
    /// Its configuration from the payload: what it got or, for an idle link, what it was to get.
    pub config: LinkConfig,
    /// The client identifier for DHCPv4 (RFC 4361). `None`: the hardware address.
    pub client_id: Option<Vec<u8>>,
    /// What DHCP gave.
    pub lease: Option<Lease>,
    /// What DHCPv6 and routers gave.
    pub six: Given6,
    /// Addresses from router advertisements.
    pub learned: Vec<Prefix>,
    /// Name servers that routers advertise.
    pub dns: Vec<IpAddr>,
    /// Search domains that routers advertise.
    pub search: Vec<DnsName>,
}

impl AppliedLink {
    /// Static addresses, then the leased ones, then those from router advertisements.
    pub fn all_addresses(&self) -> impl Iterator<Item = Prefix> {
        let leased = self.lease.iter().map(|lease| lease.address);
        let leased = leased.chain(self.six.address);
        self.config.addresses.iter().copied().chain(leased).chain(self.learned.iter().copied())
    }

    /// Static routes, then leased routes.
    pub fn all_routes(&self) -> impl Iterator<Item = &Route> {
        self.config.routes.iter().chain(self.lease.iter().flat_map(|lease| &lease.routes))
    }

    /// Name servers of the payload, then of DHCP, then of routers.
    pub fn all_dns(&self) -> impl Iterator<Item = NameServer> {
        let leased = self.lease.iter().flat_map(|lease| lease.dns.iter().copied());
        let leased = leased.chain(self.six.dns.iter().copied().map(IpAddr::V6));
        let all = self.config.dns.iter().copied().chain(leased).chain(self.dns.iter().copied());
        all.map(|address| {
            let on_link = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            NameServer { address, zone: on_link.then(|| self.name.clone()) }
        })
    }

    /// Search domains of the payload, then of DHCP, then of routers.
    pub fn all_search(&self) -> impl Iterator<Item = DnsName> {
        let leased = self.lease.iter().flat_map(|lease| &lease.search);
        self.config.search.iter().chain(leased).chain(&self.six.search).chain(&self.search).cloned()
    }
}

/// A name server as resolv.conf(5) names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameServer {
    /// The name server's address.
    pub address: IpAddr,
    /// The link of a link-local address, which means nothing without it (RFC 4007 §11).
    pub zone: Option<InterfaceName>,
}

/// `192.0.2.53`, `fe80::1%eth0`
impl std::fmt::Display for NameServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)?;
        self.zone.iter().try_for_each(|zone| write!(f, "%{zone}"))
    }
}

/// `eth0 192.0.2.10/24 2001:db8::10/64`
impl std::fmt::Display for AppliedLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.name.fmt(f)?;
        self.all_addresses().try_for_each(|prefix| write!(f, " {prefix}"))
    }
}

/// Sets the kernel's host name. `/etc/hostname` belongs to the image and is not changed.
pub fn set_hostname(name: &HostName) -> Result<(), NetworkError> {
    nix::unistd::sethostname(name.as_str())
        .map_err(|errno| NetworkError::HostName { name: name.clone(), source: errno.into() })
}
