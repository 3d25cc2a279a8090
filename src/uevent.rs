//! Waiting for devices without polling: the kernel's uevents, and udev's queue where udevd runs. Says when to look again
//! and whether anything is still on its way; looks at no device itself.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, recvmsg, socket,
};

use crate::sys;
use crate::time::{Deadline, since_boot};

/// Without udevd: devices are taken to be complete this long after the last block uevent.
const QUIET_WITHOUT_UDEV: Duration = Duration::from_secs(1);
/// With udevd its queue says when it is done; but SCSI and libata probe in threads of their own (drivers/scsi/scsi_scan.c,
/// do_scan_async), so a drive may appear a moment after the queue ran empty.
const QUIET_WITH_UDEV: Duration = Duration::from_millis(300);

/// USB is slow, and silent: a hub waits until a plug has settled (drivers/usb/core/hub.c, HUB_DEBOUNCE_TIMEOUT: 2 s at
/// most), and usb-storage for a second before it looks for disks (drivers/usb/storage/usb.c, delay_use).
const QUIET_WITH_USB: Duration = Duration::from_secs(2);

/// Hears about block devices from the moment it is opened.
pub struct Watch {
    kernel: OwnedFd,
    udev: Option<Udev>,
    /// Where USB buses are to be seen, if their media count.
    usb: Option<PathBuf>,
    last_event: Duration,
    /// How long udev may be busy without anything happening.
    patience: Duration,
    /// Something that brings drives has happened since udev's queue was last seen empty: what udev does now may be about it.
    stirred: bool,
}

struct Udev {
    inotify: Inotify,
    queue: PathBuf,
}

/// What a wait ended with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Something happened to this block device; `None`: so much happened that the kernel dropped some of it.
    Block(Option<String>),
    /// All devices that there are have appeared, or udev does not get on.
    Settled,
    /// This one of the descriptors that were given is readable.
    Readable(usize),
    /// The deadline passed.
    Deadline,
}

/// The kernel's own events (group 1; udevd repeats them in group 2).
fn kernel() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let kernel = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)?;
    bind(kernel.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
    Ok(kernel)
}

/// Readable when any device came, changed or went: for whoever looks again then, and needs to know no more.
pub struct Stir(OwnedFd);

impl Stir {
    /// From now on.
    pub fn open() -> io::Result<Stir> {
        kernel().map(Stir)
    }

    /// Forgets what has happened so far.
    pub fn drain(&self) {
        let mut buffer = [0; 2048];
        // What the kernel had to drop is no less of a stir.
        while !matches!(recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()), Err(errno) if errno != Errno::ENOBUFS)
        {
        }
    }
}

impl AsFd for Stir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Watch {
    /// To be opened before devices are looked at for the first time, so that nothing falls in between. `usb`: drives on
    /// USB are waited for, too. `patience`: a drive that does not answer keeps udev busy for ever, as udev reads it as well;
    /// when nothing has happened for that long, its queue does not count.
    pub fn open(root: &Path, usb: bool, patience: Duration) -> io::Result<Watch> {
        let kernel = kernel()?;
        let run = root.join("run/udev");
        let udev = if run.join("control").exists() {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            inotify.add_watch(&run, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE)?;
            Some(Udev { inotify, queue: run.join("queue") })
        } else {
            None
        };
        let usb = usb.then(|| root.join("sys/bus/usb/devices"));
        Ok(Watch { kernel, udev, usb, last_event: since_boot(), patience, stirred: true })
    }

    /// Waits until a block device changed or everything has settled. `settled`: it has, and that ends no wait any more.
    /// `others` end it at once when they are readable.
    pub fn wait(&mut self, settled: bool, others: &[BorrowedFd<'_>], deadline: Deadline) -> io::Result<Change> {
        loop {
            let until = if settled { deadline } else { self.settles_at(deadline) };
            let others = others.iter().map(|other| PollFd::new(*other, PollFlags::POLLIN));
            let mut fds: Vec<PollFd<'_>> = others.collect();
            let count = fds.len();
            fds.push(PollFd::new(self.kernel.as_fd(), PollFlags::POLLIN));
            if let Some(udev) = &self.udev {
                fds.push(PollFd::new(udev.inotify.as_fd(), PollFlags::POLLIN));
            }
            if !sys::poll(&mut fds, until)? {
                return Ok(if deadline.expired() { Change::Deadline } else { Change::Settled });
            }
            if let Some(index) = fds.iter().take(count).position(|fd| fd.any().unwrap_or(false)) {
                return Ok(Change::Readable(index));
            }
            // The kernel's events first: they say what udev's queue is about.
            let device = self.block_event()?;
            if let Some(udev) = &self.udev {
                while let Ok(events) = udev.inotify.read_events() {
                    if self.stirred && events.iter().any(|event| event.name.as_deref() == Some("queue".as_ref())) {
                        self.last_event = since_boot();
                        self.stirred = udev.queue.exists();
                    }
                }
            }
            if let Some(device) = device {
                return Ok(Change::Block(device));
            }
        }
    }

    fn settles_at(&self, deadline: Deadline) -> Deadline {
        // udevd removes the file when it has nothing left to do (src/udev/udevd.c, event_queue_cleanup).
        let busy = self.stirred && self.udev.as_ref().is_some_and(|udev| udev.queue.exists());
        let quiet = if busy { self.patience } else { self.quiet() };
        let left = (self.last_event + quiet).saturating_sub(since_boot());
        deadline.at_most(left)
    }

    /// How long nothing has to happen.
    fn quiet(&self) -> Duration {
        let has_bus = |usb: &PathBuf| usb.read_dir().is_ok_and(|mut devices| devices.next().is_some());
        match &self.udev {
            _ if self.usb.as_ref().is_some_and(has_bus) => QUIET_WITH_USB,
            Some(_) => QUIET_WITH_UDEV,
            None => QUIET_WITHOUT_UDEV,
        }
    }

    /// The next block event that has arrived, if any.
    fn block_event(&mut self) -> io::Result<Option<Option<String>>> {
        let mut buffer = [0; 8192]; // UEVENT_BUFFER_SIZE is 2048, include/linux/kobject.h
        loop {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let received = recvmsg::<NetlinkAddr>(self.kernel.as_raw_fd(), &mut slices, None, MsgFlags::empty());
            let (length, sender) = match received {
                Ok(message) => (message.bytes, message.address),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => continue,
                Err(Errno::ENOBUFS) => return Ok(Some(None)),
                Err(errno) => return Err(errno.into()),
            };
            // Only the kernel has port 0; anybody with CAP_NET_ADMIN could send the rest.
            if sender.is_none_or(|sender| sender.pid() != 0) {
                continue;
            }
            if self.udev.is_some() && brings_drives(buffer.get(..length).unwrap_or_default()) {
                self.last_event = since_boot();
                self.stirred = true;
            }
            if let Some(device) = block_device(buffer.get(..length).unwrap_or_default()) {
                self.last_event = since_boot();
                return Ok(Some(Some(device)));
            }
        }
    }
}

/// Subsystems whose devices are drives, or are what drives hang on. All others, network links above all, prolong no wait.
const DRIVES: [&str; 13] = [
    "block",
    "scsi",
    "scsi_host",
    "ata_port",
    "nvme",
    "nvme-subsystem",
    "mmc",
    "mmc_host",
    "pci",
    "usb",
    "virtio",
    "xen",
    "vmbus",
];

/// Whether a drive may be there now, or soon.
fn brings_drives(event: &[u8]) -> bool {
    let subsystem = event.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"SUBSYSTEM="));
    subsystem.is_some_and(|subsystem| DRIVES.iter().any(|drives| drives.as_bytes() == subsystem))
}

/// The whole disk that a kernel uevent is about: `ACTION@DEVPATH`, then `KEY=VALUE`, all ended by NUL.
fn block_device(event: &[u8]) -> Option<String> {
    let value = |key: &[u8]| {
        let field = event.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(key))?;
        std::str::from_utf8(field).ok()
    };
    if value(b"SUBSYSTEM=")? != "block" || value(b"DEVTYPE=")? != "disk" {
        return None;
    }
    // As sysfs has it: slashes of kernel names stand as exclamation marks there (drivers/base/core.c, device_add).
    value(b"DEVNAME=").map(|name| name.replace('/', "!"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usb_is_given_its_time_where_its_media_count() {
        let root = tempfile::tempdir().unwrap();
        let quiet = |usb| Watch::open(root.path(), usb, Duration::ZERO).unwrap().quiet();
        assert_eq!((quiet(true), quiet(false)), (QUIET_WITHOUT_UDEV, QUIET_WITHOUT_UDEV));
        std::fs::create_dir_all(root.path().join("sys/bus/usb/devices/usb1")).unwrap();
        assert_eq!((quiet(true), quiet(false)), (QUIET_WITH_USB, QUIET_WITHOUT_UDEV));
    }

    #[test]
    fn block_events() {
        // udevadm monitor --kernel --property, when a virtio disk was plugged in
        let event = b"add@/devices/pci0000:00/0000:00:04.0/virtio1/block/vda\0ACTION=add\0\
            DEVPATH=/devices/pci0000:00/0000:00:04.0/virtio1/block/vda\0SUBSYSTEM=block\0MAJOR=254\0MINOR=0\0\
            DEVNAME=vda\0DEVTYPE=disk\0DISKSEQ=1\0SEQNUM=1234\0";
        assert_eq!(block_device(event), Some("vda".to_owned()));
        let partition = String::from_utf8_lossy(event).replace("DEVTYPE=disk", "DEVTYPE=partition");
        assert_eq!(block_device(partition.as_bytes()), None);
        let net = String::from_utf8_lossy(event).replace("SUBSYSTEM=block", "SUBSYSTEM=net");
        assert_eq!(block_device(net.as_bytes()), None);
        assert!(brings_drives(event) && brings_drives(partition.as_bytes()) && !brings_drives(net.as_bytes()));
        assert!(!brings_drives(b"") && !brings_drives(b"SUBSYSTEM=blocks\0"));
        let pci = net.replace("SUBSYSTEM=net", "SUBSYSTEM=pci");
        assert!(brings_drives(pci.as_bytes()));
        // DEVNAME has slashes where sysfs has exclamation marks.
        let smart_array = String::from_utf8_lossy(event).replace("DEVNAME=vda", "DEVNAME=cciss/c0d0");
        assert_eq!(block_device(smart_array.as_bytes()), Some("cciss!c0d0".to_owned()));
        assert_eq!(block_device(b""), None);
        assert_eq!(block_device(&[0xff; 100]), None);
    }
}
