//! Waits for devices without polling, by the kernel's uevents and by udev's queue if udevd runs. Tells the caller when
//! to look for devices again, and when no more are expected. Never opens a device.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, recvmsg, setsockopt, socket,
};

use crate::sys;
use crate::time::{Deadline, since_boot};

/// Without udevd, no more devices are expected after this long without a block uevent.
const QUIET_WITHOUT_UDEV: Duration = Duration::from_secs(1);
/// With udevd, its queue shows when udevd has finished. But SCSI and libata probe in threads of their own
/// (drivers/scsi/scsi_scan.c, do_scan_async), so a drive may appear shortly after the queue is empty.
const QUIET_WITH_UDEV: Duration = Duration::from_millis(300);

/// USB is slow and sends no events meanwhile: a hub debounces a new connection (drivers/usb/core/hub.c,
/// HUB_DEBOUNCE_TIMEOUT: 2 s at most), and usb-storage waits a second before it looks for disks
/// (drivers/usb/storage/usb.c, delay_use).
const QUIET_WITH_USB: Duration = Duration::from_secs(2);

/// The folder in which this program as `/init` of an image shows that it is loading drivers: there is a file [`QUEUE`] meanwhile, as in
/// udevd's folder.
pub const LOADER: &str = "run/imprint-init";
/// See [`LOADER`].
pub const QUEUE: &str = "queue";

/// Receives events of block devices from the moment it is opened.
pub struct Watch {
    kernel: OwnedFd,
    udev: Option<Udev>,
    /// The folder of the USB devices in sysfs, if USB media count.
    usb: Option<PathBuf>,
    last_event: Duration,
    /// How long udev may be busy without an event.
    patience: Duration,
    /// A device that may bring drives has changed since udev's queue was last empty, so udev may still be working on
    /// it.
    stirred: bool,
}

/// Who loads drivers, and shows in a folder that it is at work: udevd, or this program as `/init` ([`LOADER`]).
struct Udev {
    inotify: Inotify,
    queue: PathBuf,
}

/// Why a wait ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// This block device changed. `None`: the kernel dropped events, so any device may have changed.
    Block(Option<String>),
    /// No more devices are expected, or udev makes no progress.
    Settled,
    /// The descriptor of this index in `others` is readable.
    Readable(usize),
    /// The deadline passed.
    Deadline,
}

/// A socket for the kernel's own events (group 1; udevd repeats them in group 2).
fn kernel() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let kernel = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)?;
    bind(kernel.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
    Ok(kernel)
}

/// Readable after any device appeared, changed or disappeared. For callers that rescan on any event.
pub struct Stir(OwnedFd);

impl Stir {
    /// Begins to receive events.
    pub fn open() -> io::Result<Stir> {
        kernel().map(Stir)
    }

    /// Discards all events so far.
    pub fn drain(&self) {
        let mut buffer = [0; 2048];
        // ENOBUFS: the kernel dropped events; go on until the socket is empty.
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
    /// Open it before the first look for devices, so that no device is missed in between. `usb`: also wait for drives
    /// on USB. `patience`: udev reads drives, too, so a drive that does not answer keeps udev busy for ever. After this
    /// long without an event, udev's queue does not count.
    pub fn open(root: &Path, usb: bool, patience: Duration) -> io::Result<Watch> {
        let kernel = kernel()?;
        let (udevd, loader) = (root.join("run/udev"), root.join(LOADER));
        let folder = if udevd.join("control").exists() { Some(udevd) } else { Some(loader).filter(|one| one.is_dir()) };
        let udev = match folder {
            Some(folder) => {
                let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
                inotify.add_watch(&folder, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE)?;
                Some(Udev { inotify, queue: folder.join(QUEUE) })
            }
            None => None,
        };
        let usb = usb.then(|| root.join("sys/bus/usb/devices"));
        Ok(Watch { kernel, udev, usb, last_event: since_boot(), patience, stirred: true })
    }

    /// Waits until a block device changes, or no more devices are expected. `settled`: the caller knows the latter
    /// already, so it does not end the wait. The wait also ends when one of `others` is readable.
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
            // Take the kernel's events first: they tell whether udev's work may concern drives.
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

    /// How long there must be no event until no more devices are expected.
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
        let mut buffer = [0; EVENT];
        loop {
            let length = match receive(&self.kernel, &mut buffer)? {
                Received::Event(length) => length,
                Received::Nothing => return Ok(None),
                Received::Lost => return Ok(Some(None)),
            };
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

/// In bytes. UEVENT_BUFFER_SIZE is 2048, include/linux/kobject.h.
const EVENT: usize = 8192;

enum Received {
    /// So many bytes.
    Event(usize),
    Nothing,
    /// The kernel dropped events.
    Lost,
}

/// The next event of the kernel that has arrived, if any.
fn receive(kernel: &OwnedFd, buffer: &mut [u8]) -> io::Result<Received> {
    loop {
        let mut slices = [IoSliceMut::new(buffer)];
        match recvmsg::<NetlinkAddr>(kernel.as_raw_fd(), &mut slices, None, MsgFlags::empty()) {
            // The kernel sends from port 0. Ignore other senders: any process with CAP_NET_ADMIN can send here.
            Ok(message) if message.address.is_none_or(|sender| sender.pid() != 0) => {}
            Ok(message) => return Ok(Received::Event(message.bytes)),
            Err(Errno::EAGAIN) => return Ok(Received::Nothing),
            Err(Errno::EINTR) => {}
            Err(Errno::ENOBUFS) => return Ok(Received::Lost),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The devices that appear, for whoever loads their drivers.
pub struct Devices(OwnedFd);

/// What has become of the devices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Appeared {
    /// There is a device with this MODALIAS.
    Device(String),
    /// Any device may be there: the kernel dropped events.
    Any,
}

impl Devices {
    /// Begins to receive events.
    pub fn open() -> io::Result<Devices> {
        let kernel = kernel()?;
        // A bus that is enumerated brings hundreds of events while one driver is loaded. An error is ignored: with a smaller buffer
        // events are dropped, and then all devices are looked at again.
        let _ = setsockopt(&kernel, RcvBufForce, &(16 * 1024 * 1024));
        Ok(Devices(kernel))
    }

    /// The next device that has appeared, if any. Does not wait.
    pub fn next(&self) -> io::Result<Option<Appeared>> {
        let mut buffer = [0; EVENT];
        loop {
            match receive(&self.0, &mut buffer)? {
                Received::Nothing => return Ok(None),
                Received::Lost => return Ok(Some(Appeared::Any)),
                Received::Event(length) => {
                    if let Some(modalias) = modalias(buffer.get(..length).unwrap_or_default()) {
                        return Ok(Some(Appeared::Device(modalias.to_owned())));
                    }
                }
            }
        }
    }
}

impl AsFd for Devices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The MODALIAS of an event that announces a device. udevd loads drivers at every event but that of a device that goes.
fn modalias(event: &[u8]) -> Option<&str> {
    let fields = || event.split(|byte| *byte == 0);
    if fields().any(|field| field == b"ACTION=remove") {
        return None;
    }
    let field = fields().find_map(|field| field.strip_prefix(b"MODALIAS="))?;
    std::str::from_utf8(field).ok().filter(|modalias| !modalias.is_empty())
}

/// Subsystems of drives, and of the devices that drives are attached to. Events of other subsystems, such as network
/// links, do not prolong a wait.
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

/// Whether the event announces a drive, or a device that drives are attached to.
fn brings_drives(event: &[u8]) -> bool {
    let subsystem = event.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"SUBSYSTEM="));
    subsystem.is_some_and(|subsystem| DRIVES.iter().any(|drives| drives.as_bytes() == subsystem))
}

/// The whole disk that a kernel uevent concerns. The event is `ACTION@DEVPATH`, then `KEY=VALUE`, each ended by NUL.
fn block_device(event: &[u8]) -> Option<String> {
    let value = |key: &[u8]| {
        let field = event.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(key))?;
        std::str::from_utf8(field).ok()
    };
    if value(b"SUBSYSTEM=")? != "block" || value(b"DEVTYPE=")? != "disk" {
        return None;
    }
    // The name as in sysfs, which replaces slashes by exclamation marks (drivers/base/core.c, device_add).
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

    /// This program as `/init` shows its work as udevd does: without that, a search would end before the driver of the drive is loaded.
    #[test]
    fn a_loader_that_is_at_work_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(LOADER);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(QUEUE), "").unwrap();
        let watch = || Watch::open(root.path(), false, Duration::from_secs(1000)).unwrap();
        let far = Deadline::after(Duration::from_secs(2000));
        assert!(watch().settles_at(far).remaining() > Duration::from_secs(900));
        std::fs::remove_file(folder.join(QUEUE)).unwrap();
        assert!(watch().settles_at(far).remaining() <= QUIET_WITH_UDEV);
    }

    #[test]
    fn devices_that_appear() {
        // udevadm monitor --kernel --property, when a virtio disk was plugged in
        let event = b"add@/devices/pci0000:00/0000:00:04.0/virtio1\0ACTION=add\0DEVPATH=/devices/pci0000:00/0000:00:04.0/virtio1\0\
            SUBSYSTEM=virtio\0MODALIAS=virtio:d00000002v00001AF4\0SEQNUM=1233\0";
        assert_eq!(modalias(event), Some("virtio:d00000002v00001AF4"));
        let gone = String::from_utf8_lossy(event).replace("ACTION=add", "ACTION=remove");
        assert_eq!(modalias(gone.as_bytes()), None);
        for none in [&b""[..], b"MODALIAS=\0", b"MODALIAS=\xff\0", b"XMODALIAS=a\0"] {
            assert_eq!(modalias(none), None);
        }
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
