//! Keeps the addresses that an earlier run has leased, for a program that uses its network on: asks the DHCP servers for more time. The
//! kernel counts the leases down, so it says which addresses are leased, and when half of a lease is over. Changes how long the kernel
//! keeps an address, and nothing else: another address and other routes are for the network manager of the real root.
//!
//! Nobody vouches for a DHCP server: any machine on the link may answer, and keep an address there for as long as it says.

use std::net::IpAddr;
use std::time::Duration;

use super::NetworkError;
use super::kernel::{Kernel, On};
use super::lease::{DHCP, random};
use super::packet::{self, AT_ONCE, ETH_P_IP, Socket};
use crate::dhcp4::{Asker, Client, Event};
use crate::payload::{HardwareAddress, HostName, InterfaceName, Prefix};
use crate::time::since_boot;

/// How often the kernel is asked.
const LOOK: Duration = Duration::from_secs(1);

/// The leased addresses of all links.
pub struct Keeper {
    kernel: Kernel,
    hostname: Option<HostName>,
    client_id: Option<(InterfaceName, Vec<u8>)>,
    held: Vec<Held>,
    /// When the kernel was asked last, since boot.
    looked: Option<Duration>,
    buffer: Vec<u8>,
}

/// An address that the kernel takes away at some time.
struct Held {
    index: u32,
    prefix: Prefix,
    /// The most that was ever left of it, in seconds.
    most: u32,
    asking: Option<Asking>,
    /// A server does not extend it.
    refused: bool,
}

/// A question to the servers of a link.
struct Asking {
    name: InterfaceName,
    broadcast: Vec<u8>,
    socket: Socket,
    client: Client,
}

impl Keeper {
    /// What the run has told the servers: `hostname`, and `client_id` on the link where it was not the hardware address.
    pub fn open(
        hostname: Option<HostName>,
        client_id: Option<(InterfaceName, Vec<u8>)>,
    ) -> Result<Keeper, NetworkError> {
        let buffer = vec![0; packet::BUFFER];
        Ok(Keeper { kernel: Kernel::open()?, hostname, client_id, held: Vec::new(), looked: None, buffer })
    }

    /// Does what is due, and never waits. To be called every second or so. `say` gets a line for a console if a server refuses.
    pub fn tend(&mut self, say: &dyn Fn(&str)) -> Result<(), NetworkError> {
        let now = since_boot();
        if self.looked.is_none_or(|looked| now.saturating_sub(looked) >= LOOK) {
            self.looked = Some(now);
            self.look(now)?;
        }
        self.held.iter_mut().try_for_each(|held| held.ask(&mut self.buffer, &mut self.kernel, say))
    }

    fn look(&mut self, now: Duration) -> Result<(), NetworkError> {
        let there = self.kernel.leased()?;
        let is_there =
            |held: &Held| there.iter().any(|(index, prefix, _)| (*index, *prefix) == (held.index, held.prefix));
        self.held.retain(is_there);
        for (index, prefix, left) in there {
            if !self.held.iter().any(|held| (held.index, held.prefix) == (index, prefix)) {
                self.held.push(Held { index, prefix, most: left, asking: None, refused: false });
            }
            let held = self.held.iter_mut().find(|held| (held.index, held.prefix) == (index, prefix));
            if let Some(held) = held
                && held.is_due(left)
            {
                let client_id = self.client_id.as_ref();
                let told = (self.hostname.as_ref(), client_id);
                held.asking = Asking::begin(&mut self.kernel, (index, prefix, left), told, now)?;
            }
        }
        Ok(())
    }
}

impl Held {
    /// Whether the servers are to be asked from now on, with so many seconds left (RFC 2131 §4.4.5).
    fn is_due(&mut self, left: u32) -> bool {
        self.most = self.most.max(left);
        let is_half_over = left <= self.most / 2;
        if !is_half_over {
            // Somebody else has renewed it.
            self.asking = None;
        }
        is_half_over && self.asking.is_none() && !self.refused
    }

    fn ask(&mut self, buffer: &mut [u8], kernel: &mut Kernel, say: &dyn Fn(&str)) -> Result<(), NetworkError> {
        let Some(Asking { name, broadcast, socket, client }) = &mut self.asking else { return Ok(()) };
        let on = On { index: self.index, name };
        let mut event = None;
        for _ in 0..AT_ONCE {
            let Some(packet) = socket.receive(buffer).map_err(|source| on.failed(DHCP, source))? else { break };
            event = client.push(packet, since_boot());
            if event.is_some() {
                break;
            }
        }
        match event {
            None => match client.poll(since_boot()).send {
                Some(packet) => socket.send(broadcast, &packet).map_err(|source| on.failed(DHCP, source)),
                None => Ok(()),
            },
            Some(Event::Bound(lease)) if lease.address.address() == self.prefix.address() => {
                kernel.address(on, self.prefix, Some(lease.seconds))?;
                (self.most, self.asking) = (lease.seconds, None);
                Ok(())
            }
            Some(_) => {
                say(&format!("{}: the DHCP server does not extend the lease of {}", name.as_str(), self.prefix));
                (self.refused, self.asking) = (true, None);
                Ok(())
            }
        }
    }
}

impl Asking {
    /// `None`: DHCP cannot be used there.
    fn begin(
        kernel: &mut Kernel,
        (index, prefix, left): (u32, Prefix, u32),
        (hostname, client_id): (Option<&HostName>, Option<&(InterfaceName, Vec<u8>)>),
        now: Duration,
    ) -> Result<Option<Asking>, NetworkError> {
        let Some(link) = kernel.links()?.into_iter().find(|link| link.index == index) else { return Ok(None) };
        let (Some(name), Some(mac)) = (link.name, HardwareAddress::new(&link.address)) else { return Ok(None) };
        let IpAddr::V4(address) = prefix.address() else { return Ok(None) };
        let socket = Socket::open(index, ETH_P_IP).map_err(|source| On { index, name: &name }.failed(DHCP, source))?;
        let client_id = client_id.filter(|(link, _)| *link == name).map(|(_, client_id)| client_id.clone());
        let asker = Asker { hardware: link.hardware, mac, client_id, hostname: hostname.cloned() };
        let ends = now.saturating_add(Duration::from_secs(left.into()));
        let client = Client::keeping(asker, address, ends, random(), now);
        Ok(Some(Asking { name, broadcast: link.broadcast, socket, client }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_time_is_asked_for_once_half_of_it_is_over() {
        let prefix = Prefix::parse("192.0.2.7/24").unwrap();
        let mut held = Held { index: 2, prefix, most: 300, asking: None, refused: false };
        assert!(!held.is_due(300) && !held.is_due(151) && held.is_due(150) && held.is_due(1));
        // Somebody has renewed it for longer.
        assert!(!held.is_due(3600) && !held.is_due(1801) && held.is_due(1800));
        held.refused = true;
        assert!(!held.is_due(1));
    }
}
