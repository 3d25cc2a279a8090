//! Asks the kernel to change one thing about one link. A change that is in place already is not an error. Decides
//! nothing.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::NetworkError;
use crate::netlink::message::{
    Answer, IFA_F_DADFAILED, IFA_F_NOPREFIXROUTE, IFA_F_TENTATIVE, LinkMessage, NewLink, RT_SCOPE_LINK, Request,
};
use crate::netlink::{Netlink, RequestError};
use crate::payload::{HardwareAddress, InterfaceName, Prefix, Route};
use crate::time::Deadline;

/// A link: its index for the kernel, its name for people.
#[derive(Clone, Copy)]
pub(super) struct On<'a> {
    pub(super) index: u32,
    pub(super) name: &'a InterfaceName,
}

impl On<'_> {
    /// The error of a socket on this link. `what` says what the socket was for.
    pub(super) fn failed(self, what: &'static str, source: io::Error) -> NetworkError {
        NetworkError::Socket { what, name: self.name.clone(), source }
    }
}

/// An IPv6 address that a link has.
pub(super) struct Address6 {
    pub(super) index: u32,
    pub(super) prefix: Prefix,
    /// Its scope is wider than the link.
    pub(super) global: bool,
    pub(super) tentative: bool,
    /// Another machine has the address.
    pub(super) duplicate: bool,
}

/// The kernel answers at once. If it does not, that is a fault, and more time would not help. So this limit does not
/// depend on the boot's deadline.
const ANSWER: Duration = Duration::from_secs(10);

pub(super) struct Kernel {
    netlink: Netlink,
}

impl Kernel {
    pub(super) fn open() -> Result<Kernel, NetworkError> {
        Ok(Kernel { netlink: Netlink::open(0).map_err(NetworkError::Netlink)? })
    }

    pub(super) fn links(&mut self) -> Result<Vec<LinkMessage>, NetworkError> {
        self.netlink.links(Deadline::after(ANSWER)).map_err(NetworkError::Netlink)
    }

    pub(super) fn addresses6(&mut self) -> Result<Vec<Address6>, NetworkError> {
        let answers = self
            .netlink
            .request(&Request::Addresses { ipv6: true }, Deadline::after(ANSWER))
            .map_err(NetworkError::Netlink)?;
        let address = |answer| match answer {
            Answer::Address { index, prefix: Some(prefix), flags, scope, .. } => Some(Address6 {
                index,
                prefix,
                // fec0::/10 has RT_SCOPE_SITE. QEMU's user network uses it.
                global: scope < RT_SCOPE_LINK,
                tentative: flags & IFA_F_TENTATIVE != 0,
                duplicate: flags & IFA_F_DADFAILED != 0,
            }),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(address).collect())
    }

    /// The IPv4 addresses of all links that it takes away at some time: index of the link, address, seconds until then.
    pub(super) fn leased(&mut self) -> Result<Vec<(u32, Prefix, u32)>, NetworkError> {
        let request = Request::Addresses { ipv6: false };
        let answers = self.netlink.request(&request, Deadline::after(ANSWER)).map_err(NetworkError::Netlink)?;
        let leased = |answer| match answer {
            Answer::Address { index, prefix: Some(prefix), left: Some(left), .. } => Some((index, prefix, left)),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(leased).collect())
    }

    /// The same for IPv6 addresses that were leased; those of router advertisements have a network's route.
    pub(super) fn leased6(&mut self) -> Result<Vec<(u32, Prefix, u32)>, NetworkError> {
        let request = Request::Addresses { ipv6: true };
        let answers = self.netlink.request(&request, Deadline::after(ANSWER)).map_err(NetworkError::Netlink)?;
        let leased = |answer| match answer {
            Answer::Address { index, prefix: Some(prefix), left: Some(left), flags, .. }
                if flags & IFA_F_NOPREFIXROUTE != 0 =>
            {
                Some((index, prefix, left))
            }
            _ => None,
        };
        Ok(answers.into_iter().filter_map(leased).collect())
    }

    /// Every address that the link has.
    pub(super) fn addresses_of(&mut self, on: On<'_>) -> Result<Vec<Prefix>, NetworkError> {
        let mut all = Vec::new();
        for ipv6 in [false, true] {
            let answers = self.ask(on, &Request::Addresses { ipv6 }, || "reading the addresses".to_owned())?;
            all.extend(answers.into_iter().filter_map(|answer| match answer {
                Answer::Address { index, prefix, .. } if index == on.index => prefix,
                _ => None,
            }));
        }
        Ok(all)
    }

    pub(super) fn mtu(&mut self, on: On<'_>, mtu: u16) -> Result<(), NetworkError> {
        let request = Request::SetLink { index: on.index, mtu: Some(u32::from(mtu)), up: false };
        self.ask(on, &request, || format!("MTU {mtu}")).map(drop)
    }

    pub(super) fn up(&mut self, on: On<'_>) -> Result<(), NetworkError> {
        let request = Request::SetLink { index: on.index, mtu: None, up: true };
        self.ask(on, &request, || "bringing the link up".to_owned()).map(drop)
    }

    pub(super) fn down(&mut self, on: On<'_>) -> Result<(), NetworkError> {
        self.ask(on, &Request::LinkDown { index: on.index }, || "bringing the link down".to_owned()).map(drop)
    }

    /// One link.
    pub(super) fn link(&mut self, index: u32) -> Result<LinkMessage, NetworkError> {
        self.netlink.link(index, Deadline::after(ANSWER)).map_err(NetworkError::Netlink)
    }

    /// Makes a link. The kernel loads the module that it needs.
    pub(super) fn make(
        &mut self,
        name: &InterfaceName,
        new: NewLink,
        address: Option<HardwareAddress>,
    ) -> Result<(), NetworkError> {
        let request = Request::MakeLink { name: name.clone(), new, address };
        match self.ask(On { index: 0, name }, &request, || format!("making a {}", new.kind())) {
            // net/core/rtnetlink.c, __rtnl_newlink: "Unknown device type".
            Err(NetworkError::Refused { source: RequestError::Refused { errno: Errno::EOPNOTSUPP, .. }, .. }) => {
                Err(NetworkError::NoModule { name: name.clone(), module: new.module() })
            }
            other => other.map(drop),
        }
    }

    /// Removes a link that was made. One that is gone already is not an error.
    pub(super) fn remove(&mut self, on: On<'_>) -> Result<(), NetworkError> {
        match self.ask(on, &Request::DropLink { index: on.index }, || "removing the link".to_owned()) {
            Err(NetworkError::Refused { source: RequestError::Refused { errno: Errno::ENODEV, .. }, .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Makes a link the port of a bond or bridge; 0: of none.
    pub(super) fn enslave(&mut self, on: On<'_>, master: u32, to: &InterfaceName) -> Result<(), NetworkError> {
        let what = || if master == 0 { "leaving its master".to_owned() } else { format!("becoming a port of {to}") };
        self.ask(on, &Request::SetMaster { index: on.index, master }, what).map(drop)
    }

    /// Adds an address. An address that is there already is not an error, if it is the same address on the same link.
    pub(super) fn address(&mut self, on: On<'_>, prefix: Prefix, lifetime: Option<u32>) -> Result<(), NetworkError> {
        let what = || format!("address {prefix}");
        let request = Request::AddAddress { index: on.index, prefix, lifetime };
        match self.ask(on, &request, what) {
            Err(NetworkError::Refused {
                source: RequestError::Refused { errno: Errno::EEXIST, words },
                what,
                name,
            }) => {
                let ipv6 = prefix.address().is_ipv6();
                let there = self.ask(on, &Request::Addresses { ipv6 }, || "reading the addresses".to_owned())?;
                let same = |answer: &Answer| matches!(answer, Answer::Address { index, prefix: Some(at), .. } if *index == on.index && *at == prefix);
                if there.iter().any(same) {
                    return Ok(());
                }
                let source = RequestError::Refused { errno: Errno::EEXIST, words };
                Err(NetworkError::Refused { what, name, source })
            }
            other => other.map(drop),
        }
    }

    /// Adds a leased IPv6 address, or gives one that is there these lifetimes, in seconds.
    pub(super) fn address6(
        &mut self,
        on: On<'_>,
        prefix: Prefix,
        preferred: u32,
        valid: u32,
    ) -> Result<(), NetworkError> {
        let request = Request::Lease6 { index: on.index, prefix, preferred, valid };
        self.ask(on, &request, || format!("address {prefix}")).map(drop)
    }

    /// Removes an address. An address that is gone already is not an error.
    pub(super) fn forget(&mut self, on: On<'_>, prefix: Prefix) -> Result<(), NetworkError> {
        let request = Request::DropAddress { index: on.index, prefix };
        match self.ask(on, &request, || format!("removing address {prefix}")) {
            Err(NetworkError::Refused {
                source: RequestError::Refused { errno: Errno::EADDRNOTAVAIL, .. }, ..
            }) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Sets a route. `leased`: the address of the lease that the route came with.
    pub(super) fn route(&mut self, on: On<'_>, route: &Route, leased: Option<IpAddr>) -> Result<(), NetworkError> {
        let request = Request::SetRoute { index: on.index, route: route.clone(), leased };
        self.ask(on, &request, || describe(route)).map(drop)
    }

    /// Removes a route. A route that is gone already, maybe with its address, is not an error.
    pub(super) fn drop_route(&mut self, on: On<'_>, route: &Route, leased: Option<IpAddr>) -> Result<(), NetworkError> {
        let request = Request::DropRoute { index: on.index, route: route.clone(), leased };
        match self.ask(on, &request, || format!("removing {}", describe(route))) {
            Err(NetworkError::Refused { source: RequestError::Refused { errno: Errno::ESRCH, .. }, .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    fn ask(&mut self, on: On<'_>, request: &Request, what: impl Fn() -> String) -> Result<Vec<Answer>, NetworkError> {
        self.netlink.request(request, Deadline::after(ANSWER)).map_err(|source| NetworkError::Refused {
            what: what(),
            name: on.name.clone(),
            source,
        })
    }
}

/// Prepares the kernel before the link goes up, so that IPv6 is usable soon. Errors are ignored. A kernel without IPv6
/// does not have these files: it refuses a static address later, and the report says when no router advertisement came.
pub(super) fn before_ipv6(root: &Path, name: &InterfaceName, slaac: bool, dhcp6: bool) {
    let folder = ipv6_folder(root, name);
    // With static addresses, router advertisements must not add routes beside the payload's. The files for the next
    // stage say the same.
    let advertisements: &[_] = match (slaac, dhcp6) {
        (true, _) => &[("accept_ra", "1"), ("autoconf", "1")],
        // DHCPv6 gives no routes: they are the routers' to give.
        (_, true) => &[("accept_ra", "1"), ("autoconf", "0")],
        _ => &[("accept_ra", "0")],
    };
    for (file, value) in [
        ("disable_ipv6", "0"),
        // No random wait of up to a second before the first solicitation and before each duplicate address detection.
        // RFC 4861 §6.3.7 wants the wait because many hosts may start on one link at the same moment. A router answers
        // a thousand hosts with one advertisement.
        ("router_solicitation_delay", "0"),
    ]
    .iter()
    .chain(advertisements)
    {
        let _ = std::fs::write(folder.join(file), value);
    }
}

/// Turns IPv6 off on a link, or on again. Errors are ignored, as in [`before_ipv6`].
pub(super) fn ipv6_off(root: &Path, name: &InterfaceName, off: bool) {
    let _ = std::fs::write(ipv6_folder(root, name).join("disable_ipv6"), if off { "1" } else { "0" });
}

/// The settings of a link that [`before_ipv6`] may change; the first one turns IPv6 off.
pub(super) const IPV6_SETTINGS: [&str; 4] = ["disable_ipv6", "router_solicitation_delay", "accept_ra", "autoconf"];

/// Where the kernel keeps the IPv6 settings of a link.
pub(super) fn ipv6_folder(root: &Path, name: &InterfaceName) -> PathBuf {
    root.join("proc/sys/net/ipv6/conf").join(name.as_str())
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
}
