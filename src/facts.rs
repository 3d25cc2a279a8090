//! Gathers what is true at this moment of the machine, its clock and its image. Decides nothing. Changes one thing
//! only: it makes the folder of udevd's database where the folder has to be watched before udevd makes it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::confidential::{self, Confidential};
use crate::dialogue::LineTime;
use crate::line::Fresh;
use crate::machine;
pub use crate::machine::device::speed;
pub use crate::machine::{DeviceFacts, Dmi, LinkFacts, dmi, host_interfaces, identifiers, link_facts, links, matches};
use crate::netlink::message::GROUP_LINK;
use crate::netlink::{Netlink, RequestError};
use crate::options::CmdlineNetwork;
use crate::payload::{HardwareAddress, LinkKind, Payload};
use crate::site::{SignedBy, SitePin};
use crate::source::Origin;
use crate::time::{Deadline, Timestamp, since_boot};

/// Everything that `plan` may know about the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Where the payload came from.
    pub origin: Origin,
    /// Present when the image holds `/imprint/site`.
    pub site_pin: Option<SitePin>,
    /// Whose signature the payload has.
    pub signed: SignedBy,
    /// The kind of confidential virtual machine that this is. `None`: it is not one.
    pub confidential: Option<Confidential>,
    /// If the payload came on a line: what it was signed for.
    pub fresh: Option<Fresh>,
    /// The system clock.
    pub now: Timestamp,
    /// When the system clock was read, since boot.
    pub now_at: Duration,
    /// The time that a host on a line told.
    pub line_time: Option<LineTime>,
    /// Every network link but loopback.
    pub links: Vec<LinkFacts>,
    /// What SMBIOS says of the machine.
    pub dmi: Dmi,
    /// `BOOTIF=` of the kernel command line.
    pub bootif: Option<HardwareAddress>,
    /// The network of the kernel command line, for a payload that says so.
    pub cmdline: CmdlineNetwork,
}

/// Why the links are not known.
#[derive(Debug)]
pub enum FactsError {
    /// The kernel did not answer.
    Links(RequestError),
    /// udevd cannot be waited for.
    Udev(io::Error),
}

/// How long to wait for a link that the payload asks for: its driver may still be loading.
const LINK_WAIT: Duration = Duration::from_secs(20);

/// Whether this is an initramfs: os-release(5), "/etc/initrd-release".
pub fn is_initramfs(root: &Path) -> bool {
    root.join("etc/initrd-release").exists()
}

/// What is true now, without waiting for anything.
pub fn gather(
    root: &Path,
    origin: Origin,
    site_pin: Option<SitePin>,
    signed: SignedBy,
    bootif: Option<HardwareAddress>,
    deadline: Deadline,
) -> Result<Facts, FactsError> {
    let mut netlink = Netlink::open(0).map_err(FactsError::Links)?;
    let links = links(&mut netlink, root, deadline).map_err(FactsError::Links)?;
    let (now_at, now) = (since_boot(), Timestamp::system());
    let (fresh, line_time, dmi, confidential) = (None, None, dmi(root), confidential::detect(root));
    let cmdline = CmdlineNetwork::default();
    Ok(Facts { origin, site_pin, signed, confidential, fresh, now, now_at, line_time, links, dmi, bootif, cmdline })
}

/// Waits until there is a link that the payload asks for, and a link that the payload is bound to. Gives up silently:
/// `plan` says what is missing.
pub fn await_links(facts: &mut Facts, payload: &Payload, root: &Path, deadline: Deadline) -> Result<(), FactsError> {
    let until = deadline.at_most(LINK_WAIT);
    let macs = payload.binding.as_ref().map(|binding| binding.macs.as_slice()).unwrap_or_default();
    let asked = if payload.from_cmdline { facts.cmdline.links.clone() } else { payload.network.clone() };
    let mut changes = Netlink::open(GROUP_LINK).map_err(FactsError::Links)?;
    let mut netlink = Netlink::open(0).map_err(FactsError::Links)?;
    loop {
        facts.links = links(&mut netlink, root, deadline).map_err(FactsError::Links)?;
        let wanted = |link: &LinkFacts| {
            asked.iter().any(|entry| match &entry.kind {
                LinkKind::Physical(matching) => matches(matching, facts.bootif.as_ref(), link),
                _ => false,
            })
        };
        let bound = |link: &LinkFacts| link.mac.as_ref().is_some_and(|mac| macs.contains(mac));
        if (asked.is_empty() || facts.links.iter().any(wanted)) && (macs.is_empty() || facts.links.iter().any(bound)) {
            return Ok(());
        }
        match changes.changed(until) {
            Ok(()) => {}
            Err(RequestError::Deadline) => return Ok(()),
            Err(error) => return Err(FactsError::Links(error)),
        }
    }
}

/// Tells which links udevd is done with. Before Linux 6.2 an interface that is up cannot be renamed. So a link is left
/// alone until udevd, where it runs, has named it.
pub struct Udev {
    /// `None`: no udevd runs.
    watch: Option<(Inotify, PathBuf)>,
}

impl Udev {
    /// Looks whether udevd runs. If so, it makes the folder of udevd's database where the folder does not exist yet.
    pub fn watch(root: &Path) -> Result<Udev, FactsError> {
        if !root.join("run/udev/control").exists() {
            return Ok(Udev { watch: None });
        }
        let data = root.join("run/udev/data");
        let watch = || -> io::Result<Inotify> {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            // udevd makes the folder with the first device that it is done with.
            std::fs::create_dir_all(&data)?;
            inotify.add_watch(&data, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
            Ok(inotify)
        };
        let inotify = watch().map_err(FactsError::Udev)?;
        Ok(Udev { watch: Some((inotify, data)) })
    }

    /// Whether udevd is done with a link ([`machine::is_recorded`]).
    pub fn is_done_with(&self, index: u32) -> bool {
        self.watch.as_ref().is_none_or(|(_, data)| machine::is_recorded(data, index))
    }

    /// Readable when udevd has written to its database since the last call of [`Udev::drain`].
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(|(inotify, _)| inotify.as_fd())
    }

    /// Clears the readiness of [`Udev::fd`].
    pub fn drain(&self) {
        if let Some((inotify, _)) = &self.watch {
            while inotify.read_events().is_ok() {}
        }
    }
}

impl fmt::Display for FactsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FactsError::Links(_) => "the kernel did not list the network links (rtnetlink)",
            FactsError::Udev(_) => "waiting for udev to name the link (/run/udev/data)",
        })
    }
}

impl std::error::Error for FactsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FactsError::Links(error) => Some(error),
            FactsError::Udev(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_without_loopback() {
        let root = tempfile::tempdir().unwrap();
        let bootif = HardwareAddress::new(&[0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        let origin = Origin::File("x".into());
        let deadline = Deadline::after(Duration::from_secs(5));
        let facts = gather(root.path(), origin, None, SignedBy::Nobody, bootif, deadline).unwrap();
        assert!(facts.links.iter().all(|link| link.name.as_str() != "lo"));
        assert_eq!(facts.bootif.unwrap().to_string(), "52:54:00:12:34:56");
    }
}
