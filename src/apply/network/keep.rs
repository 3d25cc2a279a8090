//! Keeps the addresses that an earlier run has leased, for a program that uses its network on: asks the DHCP servers for more time. The
//! kernel counts the leases down, so it says which addresses are leased, and when half of a lease is over. Changes how long the kernel
//! keeps an address, and nothing else: another address and other routes are for the network manager of the real root.
//!
//! Nobody vouches for a DHCP server: any machine on the link may answer, and keep an address there for as long as it says.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::NetworkError;
use super::ip6::Socket6;
use super::kernel::{Kernel, On};
use super::lease::{DHCP, random};
use super::packet::{self, AT_ONCE, ETH_P_IP, Socket};
use super::six::DHCP6;
use crate::dhcp4::{Asker, Client, Event};
use crate::dhcp6::{self, Identity};
use crate::payload::{HardwareAddress, HostName, InterfaceName, Prefix};
use crate::time::since_boot;

/// How often the kernel is asked.
const LOOK: Duration = Duration::from_secs(1);

/// The leased addresses of all links.
pub struct Keeper {
    kernel: Kernel,
    told: Told,
    held: Vec<Held>,
    /// When the kernel was asked last, since boot.
    looked: Option<Duration>,
    buffer: Vec<u8>,
}

/// What the run has told the servers.
struct Told {
    hostname: Option<HostName>,
    client_id: Option<(InterfaceName, Vec<u8>)>,
    /// The machine's own UUID.
    uuid: Option<[u8; 16]>,
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
    how: How,
}

/// The protocol of a question.
enum How {
    Four { broadcast: Vec<u8>, socket: Socket, client: Box<Client> },
    Six { socket: Socket6, client: Box<dhcp6::Client> },
}

/// What a server has said.
enum Said {
    /// Preferred and valid lifetimes, in seconds.
    Extended(u32, u32),
    Refused,
}

impl Keeper {
    /// What the run has told the servers: `hostname`, and `client_id` on the link where it was not the hardware address. `uuid`: the
    /// machine's own, by which DHCPv6 knows it.
    pub fn open(
        hostname: Option<HostName>,
        client_id: Option<(InterfaceName, Vec<u8>)>,
        uuid: Option<[u8; 16]>,
    ) -> Result<Keeper, NetworkError> {
        let buffer = vec![0; packet::BUFFER];
        let told = Told { hostname, client_id, uuid };
        Ok(Keeper { kernel: Kernel::open()?, told, held: Vec::new(), looked: None, buffer })
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
        let mut there = self.kernel.leased()?;
        there.extend(self.kernel.leased6()?);
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
                held.asking = Asking::begin(&mut self.kernel, (index, prefix, left), &self.told, now)?;
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
        let Some(Asking { name, how }) = &mut self.asking else { return Ok(()) };
        let on = On { index: self.index, name };
        match how.ask(on, self.prefix, buffer)? {
            None => Ok(()),
            Some(Said::Extended(preferred, valid)) => {
                match self.prefix.address() {
                    IpAddr::V4(_) => kernel.address(on, self.prefix, Some(valid))?,
                    IpAddr::V6(_) => kernel.address6(on, self.prefix, preferred, valid)?,
                }
                (self.most, self.asking) = (valid, None);
                Ok(())
            }
            Some(Said::Refused) => {
                say(&format!("{}: the DHCP server does not extend the lease of {}", name.as_str(), self.prefix));
                (self.refused, self.asking) = (true, None);
                Ok(())
            }
        }
    }
}

impl How {
    /// Reads what has arrived, and sends what is due.
    fn ask(&mut self, on: On<'_>, prefix: Prefix, buffer: &mut [u8]) -> Result<Option<Said>, NetworkError> {
        match self {
            How::Four { broadcast, socket, client } => {
                for _ in 0..AT_ONCE {
                    let Some(packet) = socket.receive(buffer).map_err(|source| on.failed(DHCP, source))? else { break };
                    match client.push(packet, since_boot()) {
                        Some(Event::Bound(lease)) if lease.address.address() == prefix.address() => {
                            return Ok(Some(Said::Extended(lease.seconds, lease.seconds)));
                        }
                        Some(_) => return Ok(Some(Said::Refused)),
                        None => {}
                    }
                }
                let due = client.poll(since_boot()).send;
                due.map_or(Ok(()), |packet| socket.send(broadcast, &packet))
                    .map_err(|source| on.failed(DHCP, source))?;
            }
            How::Six { socket, client } => {
                for _ in 0..AT_ONCE {
                    let arrived = socket.receive(buffer).map_err(|source| on.failed(DHCP6, source))?;
                    let Some(arrived) = arrived else { break };
                    match client.push(arrived.from, arrived.bytes, since_boot()) {
                        Some(dhcp6::Event::Bound(lease)) if IpAddr::V6(lease.address) == prefix.address() => {
                            return Ok(Some(Said::Extended(lease.preferred, lease.valid)));
                        }
                        Some(_) => return Ok(Some(Said::Refused)),
                        None => {}
                    }
                }
                let due = client.poll(since_boot()).send;
                due.map_or(Ok(()), |message| socket.send(&message)).map_err(|source| on.failed(DHCP6, source))?;
            }
        }
        Ok(None)
    }
}

impl Asking {
    /// `None`: DHCP cannot be used there.
    fn begin(
        kernel: &mut Kernel,
        (index, prefix, left): (u32, Prefix, u32),
        told: &Told,
        now: Duration,
    ) -> Result<Option<Asking>, NetworkError> {
        let Some(link) = kernel.links()?.into_iter().find(|link| link.index == index) else { return Ok(None) };
        let (Some(name), Some(mac)) = (link.name, HardwareAddress::new(&link.address)) else { return Ok(None) };
        let on = On { index, name: &name };
        let ends = now.saturating_add(Duration::from_secs(left.into()));
        let hostname = told.hostname.clone();
        let how = match prefix.address() {
            IpAddr::V4(address) => {
                let socket = Socket::open(index, ETH_P_IP).map_err(|source| on.failed(DHCP, source))?;
                let own = told.client_id.as_ref().filter(|(link, _)| *link == name);
                let client_id = own.map(|(_, client_id)| client_id.clone());
                let asker = Asker { hardware: link.hardware, mac, client_id, hostname };
                let client = Box::new(Client::keeping(asker, address, ends, random(), now));
                How::Four { broadcast: link.broadcast, socket, client }
            }
            IpAddr::V6(address) => {
                let Some(own) = link_local(kernel, index)? else { return Ok(None) };
                let socket = Socket6::dhcp(on, own).map_err(|source| on.failed(DHCP6, source))?;
                let asker = dhcp6::Asker { identity: Identity::new(told.uuid.as_ref(), link.hardware, &mac), hostname };
                How::Six { socket, client: Box::new(dhcp6::Client::keeping(asker, address, ends, random(), now)) }
            }
        };
        Ok(Some(Asking { name, how }))
    }
}

/// A link-local address of the link that is usable.
fn link_local(kernel: &mut Kernel, index: u32) -> Result<Option<Ipv6Addr>, NetworkError> {
    let all = kernel.addresses6()?;
    let mut usable =
        all.iter().filter(|found| found.index == index && !found.global && !found.tentative && !found.duplicate);
    Ok(usable.find_map(|found| match found.prefix.address() {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }))
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
