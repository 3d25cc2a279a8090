//! What a link was like before a race used it for a while, and how it becomes so again. Decides nothing about other links.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::NetworkError;
use super::kernel::{IPV6_SETTINGS, Kernel, On, ipv6_folder};
use crate::netlink::message::{IFF_UP, LinkMessage};
use crate::payload::{InterfaceName, Prefix};

/// A link as it was.
pub(super) struct Before {
    up: bool,
    mtu: u32,
    addresses: Vec<Prefix>,
    /// The kernel's IPv6 settings of the link that the race may change. Empty: it changes none.
    settings: Vec<(PathBuf, String)>,
}

/// How a link that was down is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// As it was.
    Down,
    /// Up: somebody else uses it from now on. Its carrier would take seconds to come back.
    Up,
    /// Up and without IPv6: whoever uses it from now on turns IPv6 on. The kernel then asks for routers anew.
    UpForIpv6,
}

impl Before {
    /// To be called before the link is changed.
    pub(super) fn of(link: &LinkMessage, on: On<'_>, root: &Path, kernel: &mut Kernel) -> Result<Before, NetworkError> {
        let up = link.flags & IFF_UP != 0;
        // The first one turns IPv6 off. On a link that is up and has IPv6, whoever brought it up decides about IPv6.
        let read = |file: &&str| {
            let path = ipv6_folder(root, on.name).join(file);
            fs::read_to_string(&path).ok().map(|value| (path, value))
        };
        let mut settings: Vec<(PathBuf, String)> = IPV6_SETTINGS.iter().filter_map(read).collect();
        if up && settings.first().is_none_or(|(_, off)| off.trim() == "0") {
            settings.clear();
        }
        Ok(Before { up, mtu: link.mtu, addresses: kernel.addresses_of(on)?, settings })
    }

    /// Whether the race may change the kernel's IPv6 settings of the link.
    pub(super) fn ipv6_is_free(&self) -> bool {
        !self.settings.is_empty()
    }

    /// Whether the link had this address.
    pub(super) fn had(&self, prefix: Prefix) -> bool {
        self.addresses.contains(&prefix)
    }

    /// The same, whatever its network was.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|prefix| prefix.address() == address)
    }

    /// Gives the link back. Its own addresses and routes are gone already. The first error is returned; the rest is done all
    /// the same.
    pub(super) fn restore(
        &self,
        on: On<'_>,
        now: &LinkMessage,
        left: Left,
        kernel: &mut Kernel,
    ) -> Result<(), NetworkError> {
        let down = !self.up && left == Left::Down;
        let first = if down { kernel.down(on) } else { Ok(()) };
        let mtu = match u16::try_from(self.mtu) {
            Ok(mtu) if self.mtu != now.mtu => kernel.mtu(on, mtu),
            _ => Ok(()),
        };
        // Without IPv6 the kernel drops the addresses and routes that routers gave.
        if let Some((switch, _)) = self.settings.first() {
            let _ = fs::write(switch, "1");
        }
        let kept_off = !self.up && left == Left::UpForIpv6;
        for (path, value) in self.settings.iter().skip(usize::from(kept_off)).rev() {
            let _ = fs::write(path, value);
        }
        first.and(mtu)
    }
}

/// For messages.
pub(super) fn given_back(name: &InterfaceName, error: &NetworkError) -> String {
    format!("{name} was not given back as it was: {}", crate::chain::chain(error))
}
