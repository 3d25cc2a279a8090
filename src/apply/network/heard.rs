//! Listens on a link for the words of its switch (LLDP) and for VLANs that frames are tagged with, for a person who looks for the fault.
//! Never waits, and decides nothing: a link on which this fails is used like any other.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::packet::{AT_ONCE, Socket};
use crate::lldp::{self, Neighbour};
use crate::sys;

/// What was heard on a link.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Heard {
    /// The switch at the other end, as it says itself.
    pub neighbour: Option<Neighbour>,
    /// VLANs that frames were tagged with, in ascending order; at most 16.
    pub vlans: Vec<u16>,
    /// Frames with a tag.
    pub tagged: u64,
    /// Frames without a tag since it listens; `None`: it does not.
    pub untagged: Option<u64>,
}

/// So many VLANs are named.
const MOST: usize = 16;

/// The sockets that listen on one link.
pub(super) struct Ear {
    index: u32,
    lldp: Socket,
    tags: OwnedFd,
    /// The link takes all frames for it.
    promiscuous: bool,
    /// Packets that the link had received before.
    before: u64,
    heard: Heard,
}

impl Ear {
    /// `received`: packets that the link has received since it was made.
    pub(super) fn open(index: u32, received: u64) -> io::Result<Ear> {
        let lldp = Socket::open(index, lldp::ETHERTYPE)?;
        lldp.join(&lldp::GROUP)?;
        let tags = sys::tagged_socket(index)?;
        // Most cards drop frames of VLANs that they were not told of.
        let promiscuous = sys::promiscuous(&tags, index, true).is_ok();
        Ok(Ear { index, lldp, tags, promiscuous, before: received, heard: Heard::default() })
    }

    /// Reads what has arrived, up to a bound.
    pub(super) fn drain(&mut self, buffer: &mut [u8]) {
        for _ in 0..AT_ONCE {
            let Ok(Some(packet)) = self.lldp.receive(buffer) else { break };
            if let Some(neighbour) = lldp::decode(packet) {
                self.heard.neighbour = Some(neighbour).filter(|neighbour| neighbour.seconds > 0);
            }
        }
        for _ in 0..AT_ONCE {
            let Ok(Some(tci)) = tag(&self.tags, buffer) else { break };
            if let Some(vlan) = tci.and_then(lldp::vlan)
                && let Err(place) = self.heard.vlans.binary_search(&vlan)
                && self.heard.vlans.len() < MOST
            {
                self.heard.vlans.insert(place, vlan);
            }
        }
        let counted = sys::packets(&self.tags).unwrap_or_default();
        self.heard.tagged = self.heard.tagged.saturating_add(u64::from(counted));
    }

    /// Readable when the switch has said something.
    pub(super) fn switch(&self) -> &Socket {
        &self.lldp
    }

    /// The link is used: other machines' frames only cost time now.
    pub(super) fn calm(&mut self) {
        if std::mem::take(&mut self.promiscuous) {
            let _ = sys::promiscuous(&self.tags, self.index, false);
        }
    }

    /// What was heard. `received`: packets that the link has received since it was made.
    pub(super) fn heard(&self, received: u64) -> Heard {
        let untagged = received.saturating_sub(self.before).saturating_sub(self.heard.tagged);
        Heard { untagged: Some(untagged), ..self.heard.clone() }
    }
}

/// The tag of the next frame that has arrived: `Some(None)` if the kernel does not tell it, `None` if there is no frame.
fn tag(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<Option<u16>>> {
    let mut space = cmsg_space!([u8; AUXDATA]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()) {
            Ok(message) => break message,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR | Errno::ENETDOWN) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    let words = message.cmsgs()?.find_map(|word| match word {
        ControlMessageOwned::Unknown(word)
            if (word.cmsg_header.cmsg_level, word.cmsg_header.cmsg_type)
                == (libc::SOL_PACKET, libc::PACKET_AUXDATA) =>
        {
            Some(word.data_bytes)
        }
        _ => None,
    });
    Ok(Some(words.as_deref().and_then(tci)))
}

/// Bytes of struct tpacket_auxdata (include/uapi/linux/if_packet.h): status, length, captured length, two offsets, tag, its EtherType.
const AUXDATA: usize = 20;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;

fn tci(words: &[u8]) -> Option<u16> {
    let status = u32::from_ne_bytes(*words.first_chunk()?);
    let tci = words.get(16..18)?.try_into().ok().map(u16::from_ne_bytes);
    tci.filter(|_| status & TP_STATUS_VLAN_VALID != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_in_the_kernels_words() {
        let words = |status: u32, tci: u16| {
            let mut bytes = [0; AUXDATA];
            bytes[..4].copy_from_slice(&status.to_ne_bytes());
            bytes[16..18].copy_from_slice(&tci.to_ne_bytes());
            bytes
        };
        assert_eq!(tci(&words(0x11, 0x600a)), Some(0x600a));
        assert_eq!(tci(&words(0x01, 0x600a)), None);
        assert_eq!(tci(&words(0x11, 0x600a)[..17]), None);
        assert_eq!(tci(&[]), None);
    }
}
