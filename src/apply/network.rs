//! Configures one link as the plan says: MTU, up, addresses, routes, carrier; then resolv.conf. The host name, too.
//! Chooses nothing, and takes nothing away that it did not put there.

mod resolv;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use crate::facts::FactsError;
use crate::netlink::message::{Answer, GROUP_LINK, LinkMessage, Request};
use crate::netlink::{Netlink, RequestError};
use crate::payload::{DnsName, HardwareAddress, HostName, InterfaceName, Prefix, Route};
use crate::plan::NetworkPlan;
use crate::time::{Deadline, since_boot};

/// What was applied: for the hand-over, which tells the next stage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// Kernel interface index.
    pub index: u32,
    /// Name of the link now; udev may have renamed it since the plan was made.
    pub name: InterfaceName,
    /// Its current hardware address; `None`: neither 6 nor 20 bytes.
    pub mac: Option<HardwareAddress>,
    /// In bytes.
    pub mtu: u32,
    /// Static addresses.
    pub addresses: Vec<Prefix>,
    /// Static routes.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<DnsName>,
}

/// Why there is no network.
#[derive(Debug)]
pub enum NetworkError {
    /// No rtnetlink socket.
    Open(RequestError),
    /// The link is gone, or never was.
    NoSuchLink {
        /// Name in the plan.
        name: InterfaceName,
        /// Index in the plan.
        index: u32,
    },
    /// The kernel did not do one thing.
    Refused {
        /// What, with its value: `address 10.0.0.5/24`.
        what: String,
        /// On which link.
        name: InterfaceName,
        /// What the kernel said.
        source: RequestError,
    },
    /// The link is up and has no carrier.
    NoCarrier {
        /// Which link.
        name: InterfaceName,
        /// Its kernel driver; `None` for virtual links.
        driver: Option<String>,
        /// How long it was waited for.
        waited: Duration,
    },
    /// resolv.conf cannot be written.
    ResolvConf {
        /// The file that was to be written, symbolic links followed.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel did not say which links there are.
    Facts(FactsError),
    /// The host name cannot be set.
    HostName {
        /// The name.
        name: HostName,
        /// Why not.
        source: io::Error,
    },
}

/// Applies the plan and waits for carrier. Running it twice changes nothing the second time.
///
/// Everything is configured before carrier is waited for, so that what the kernel refuses is said at once and not after
/// a wait for a cable.
pub fn configure(plan: &NetworkPlan, root: &Path, deadline: Deadline) -> Result<Network, NetworkError> {
    // Opened before the link goes up: no change after that can be missed.
    let mut changes = Netlink::open(GROUP_LINK).map_err(NetworkError::Open)?;
    let mut kernel = Kernel { netlink: Netlink::open(0).map_err(NetworkError::Open)?, plan, deadline };

    kernel.link()?;
    if let Some(mtu) = plan.mtu {
        let request = Request::SetLink { index: plan.index, mtu: Some(u32::from(mtu)), up: false };
        kernel.ask(&request, || format!("MTU {mtu}"))?;
    }
    let up = Request::SetLink { index: plan.index, mtu: None, up: true };
    kernel.ask(&up, || "bringing the link up".to_owned())?;
    for prefix in &plan.addresses {
        kernel.add_address(*prefix)?;
    }
    for route in &plan.routes {
        let request = Request::SetRoute { index: plan.index, route: route.clone() };
        kernel.ask(&request, || describe(route))?;
    }
    let link = kernel.wait_for_carrier(&mut changes, root)?;
    resolv::write(root, &plan.dns, &plan.search)?;

    Ok(Network {
        index: plan.index,
        name: link.name.unwrap_or_else(|| plan.name.clone()),
        mac: HardwareAddress::new(&link.address),
        mtu: link.mtu,
        addresses: plan.addresses.clone(),
        routes: plan.routes.clone(),
        dns: plan.dns.clone(),
        search: plan.search.clone(),
    })
}

/// Sets the kernel's host name. `/etc/hostname` is the image's own and stays as it is.
pub fn set_hostname(name: &HostName) -> Result<(), NetworkError> {
    nix::unistd::sethostname(name.as_str())
        .map_err(|errno| NetworkError::HostName { name: name.clone(), source: errno.into() })
}

/// `route default via 10.0.0.1 metric 100`
fn describe(route: &Route) -> String {
    let mut text = match route.destination.length() {
        0 => "route default".to_owned(),
        _ => format!("route {}", route.destination),
    };
    if let Some(gateway) = route.gateway {
        text.push_str(&format!(" via {gateway}"));
    }
    if let Some(metric) = route.metric {
        text.push_str(&format!(" metric {metric}"));
    }
    text
}

/// The kernel, asked about one link.
struct Kernel<'a> {
    netlink: Netlink,
    plan: &'a NetworkPlan,
    deadline: Deadline,
}

impl Kernel<'_> {
    fn link(&mut self) -> Result<LinkMessage, NetworkError> {
        let NetworkPlan { index, name, .. } = self.plan;
        self.netlink.link(*index, self.deadline).map_err(|source| match source {
            RequestError::Refused { errno: Errno::ENODEV, .. } => {
                NetworkError::NoSuchLink { name: name.clone(), index: *index }
            }
            source => NetworkError::Refused { what: "reading the link".to_owned(), name: name.clone(), source },
        })
    }

    fn ask(&mut self, request: &Request, what: impl Fn() -> String) -> Result<Vec<Answer>, NetworkError> {
        self.netlink.request(request, self.deadline).map_err(|source| NetworkError::Refused {
            what: what(),
            name: self.plan.name.clone(),
            source,
        })
    }

    /// An address that is there already is as good as one that was added, if it is the same on the same link.
    fn add_address(&mut self, prefix: Prefix) -> Result<(), NetworkError> {
        let index = self.plan.index;
        let what = || format!("address {prefix}");
        match self.ask(&Request::AddAddress { index, prefix }, what) {
            Err(NetworkError::Refused {
                source: RequestError::Refused { errno: Errno::EEXIST, words },
                what,
                name,
            }) => {
                let ipv6 = prefix.address().is_ipv6();
                let there = self.ask(&Request::Addresses { ipv6 }, || "reading the addresses".to_owned())?;
                if there.contains(&Answer::Address { index, prefix: Some(prefix) }) {
                    return Ok(());
                }
                let source = RequestError::Refused { errno: Errno::EEXIST, words };
                Err(NetworkError::Refused { what, name, source })
            }
            other => other.map(drop),
        }
    }

    fn wait_for_carrier(&mut self, changes: &mut Netlink, root: &Path) -> Result<LinkMessage, NetworkError> {
        let start = since_boot();
        loop {
            let link = self.link()?;
            if link.operational() {
                return Ok(link);
            }
            match changes.changed(self.deadline) {
                Ok(()) => {}
                Err(RequestError::Deadline) => {
                    let name = link.name.unwrap_or_else(|| self.plan.name.clone());
                    let driver = driver(root, &name);
                    return Err(NetworkError::NoCarrier { name, driver, waited: since_boot().saturating_sub(start) });
                }
                Err(source) => {
                    let (what, name) = ("waiting for carrier".to_owned(), self.plan.name.clone());
                    return Err(NetworkError::Refused { what, name, source });
                }
            }
        }
    }
}

/// The driver's name, from the last part of a symbolic link in sysfs.
fn driver(root: &Path, name: &InterfaceName) -> Option<String> {
    let link = root.join("sys/class/net").join(name.as_str()).join("device/driver");
    let target = std::fs::read_link(link).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::Open(_) => f.write_str("cannot ask the kernel about its links"),
            NetworkError::NoSuchLink { name, index } => {
                write!(f, "link {name} (index {index}) is gone; was it unplugged, or its driver unloaded?")
            }
            NetworkError::Refused { what, name, source: RequestError::Refused { errno: Errno::EPERM, .. } } => {
                write!(f, "{what} on {name}, which takes CAP_NET_ADMIN; run it as root")
            }
            NetworkError::Refused { what, name, .. } => write!(f, "{what} on {name}"),
            NetworkError::NoCarrier { name, driver, waited } => {
                let driver = driver.as_deref().unwrap_or("none, a virtual link");
                let waited = waited.as_secs_f64();
                write!(
                    f,
                    "no carrier on {name} (driver {driver}) after {waited:.1} s; check the cable and the switch port"
                )
            }
            NetworkError::ResolvConf { path, .. } => write!(f, "writing {}", path.display()),
            NetworkError::Facts(error) => error.fmt(f),
            NetworkError::HostName { name, .. } => write!(f, "setting the host name {}", name.as_str()),
        }
    }
}

impl std::error::Error for NetworkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            NetworkError::Open(source) | NetworkError::Refused { source, .. } => Some(source),
            NetworkError::ResolvConf { source, .. } | NetworkError::HostName { source, .. } => Some(source),
            NetworkError::Facts(error) => error.source(),
            NetworkError::NoSuchLink { .. } | NetworkError::NoCarrier { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, gateway: Option<&str>, metric: Option<u32>) -> Route {
        let destination = Prefix::parse(destination).unwrap();
        Route { destination, gateway: gateway.map(|g| g.parse().unwrap()), metric }
    }

    #[test]
    fn routes_in_words() {
        assert_eq!(describe(&route("0.0.0.0/0", Some("10.0.0.1"), Some(100))), "route default via 10.0.0.1 metric 100");
        assert_eq!(describe(&route("192.0.2.0/24", None, None)), "route 192.0.2.0/24");
    }

    #[test]
    fn errors_say_what_where_and_why() {
        let name = InterfaceName::try_from("eth0").unwrap();
        let refused = NetworkError::Refused {
            what: describe(&route("0.0.0.0/0", Some("10.9.9.1"), None)),
            name: name.clone(),
            source: RequestError::Refused {
                errno: Errno::ENETUNREACH,
                words: Some("Nexthop has invalid gateway".to_owned()),
            },
        };
        assert_eq!(
            crate::chain::chain(&refused),
            "route default via 10.9.9.1 on eth0: network is unreachable (the kernel says: Nexthop has invalid gateway)"
        );
        let none =
            NetworkError::NoCarrier { name, driver: Some("e1000e".to_owned()), waited: Duration::from_millis(30_049) };
        assert_eq!(
            crate::chain::chain(&none),
            "no carrier on eth0 (driver e1000e) after 30.0 s; check the cable and the switch port"
        );
    }

    #[test]
    fn the_driver_comes_from_sysfs() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("sys/class/net/eth0/device");
        std::fs::create_dir_all(&device).unwrap();
        std::os::unix::fs::symlink("../../../bus/virtio/drivers/virtio_net", device.join("driver")).unwrap();
        let name = |text: &str| InterfaceName::try_from(text).unwrap();
        assert_eq!(driver(root.path(), &name("eth0")), Some("virtio_net".to_owned()));
        assert_eq!(driver(root.path(), &name("eth1")), None);
    }
}
