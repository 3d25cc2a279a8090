//! Swap space on a partition: dm-crypt with a key that is drawn here, given to the kernel and wiped. The key is never in a file, in an
//! argument or in a table that a program could read. The partition is claimed first, then its margins are compared once more, and only
//! then something is written: between the margins, and nowhere else.

use std::ffi::CString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use zeroize::Zeroizing;

use super::find::Partition;
use super::mapper::{self, Call, Command, Target};
use super::{Area, Kind, SwapError, header, sysfs};
use crate::pool::Seeded;
use crate::source::swap_mark::{self, Layout, Mark};
use crate::sys;

/// AES-256 in XTS mode takes two keys of 32 bytes.
const KEY: usize = 64;
/// How dm-crypt is told of a key in the kernel's keyring (Documentation/admin-guide/device-mapper/dm-crypt.rst), and its name there.
const KEY_NAME: &std::ffi::CStr = c"imprint:swap";
/// A first and a last piece of what lies between the margins are cleared through the mapping, so that a program that reads the decrypted
/// device finds swap space there and nothing else.
const CLEARED: u64 = 1024 * 1024;
/// DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG, …_DISK_RULES_FLAG, …_OTHER_RULES_FLAG and DM_UDEV_PRIMARY_SOURCE_FLAG (libdm, libdevmapper.h):
/// udev does not look at the device before the header is on it. libdm has no cookie 0, so no semaphore belongs to this one.
const COOKIE: u32 = (0x02 | 0x04 | 0x08 | 0x40) << 16;
/// SWAP_FLAG_PREFER, include/linux/swap.h. The flag SWAP_FLAG_DISCARD is not there: it would tell the disk which pages are in use.
const PREFER: i32 = 0x8000;
/// Before swap space that somebody sets up without a priority, and behind compressed memory.
const PRIORITY: i32 = 10;
/// How often a device is tried to be removed that somebody has open, and the wait in between: udev looks at each device for a moment.
const TRIES: u32 = 20;
const WAIT: Duration = Duration::from_millis(100);

/// Has the kernel use the partition. Does nothing if it does so already.
pub(super) fn enable(root: &Path, partition: &Partition, _: &Seeded) -> Result<Area, SwapError> {
    let Some(layout) = Layout::of(partition.bytes) else {
        return Err(SwapError::Small { device: partition.name.clone(), bytes: partition.bytes });
    };
    let name = format!("imprint-swap-{}", partition.name);
    // device-mapper itself would let a second table have the partition, too.
    let holder = sysfs::holder(root, &partition.name);
    let in_use = |by: &str| SwapError::InUse { device: partition.name.clone(), by: Some(by.to_owned()) };
    let ours = match &holder {
        Some(by) => Some(mapped(root, &partition.name).filter(|_| *by == name).ok_or_else(|| in_use(by))?),
        None => None,
    };
    if let Some(device) = &ours
        && sysfs::is_swap(root, &[device.clone(), format!("mapper/{name}")])
    {
        return Ok(area(device.clone(), partition, layout));
    }
    let control = control(root)?;
    if ours.is_some() {
        // A run ended before the kernel used it, or somebody has switched it off. How far it came is not known, so it is made anew.
        remove(&control, &name).map_err(|_| in_use(&name))?;
    }
    create(&control, &name)?;
    let used = use_it(root, &control, &name, partition, layout);
    if used.is_err() {
        // Errors of the clean-up are ignored: the first error is reported.
        let _ = remove(&control, &name);
    }
    used
}

fn area(device: String, partition: &Partition, layout: Layout) -> Area {
    let (_, bytes) = layout.inner();
    Area { kind: Kind::Disk, device, partition: Some(partition.name.clone()), bytes }
}

/// The device that holds a partition.
fn mapped(root: &Path, partition: &str) -> Option<String> {
    let folder = root.join("sys/class/block").join(partition).join("holders");
    Some(std::fs::read_dir(folder).ok()?.flatten().next()?.file_name().to_str()?.to_owned())
}

fn use_it(root: &Path, control: &File, name: &str, partition: &Partition, layout: Layout) -> Result<Area, SwapError> {
    load(control, name, partition, layout)?;
    // From here on the kernel lets nobody else use the partition. A reader has seen the whole disk; this is the device that is used.
    verify(root, partition)?;
    let answer = call(control, Call { command: Command::Resume, name, uuid: "", cookie: COOKIE, target: None })
        .map_err(|source| SwapError::Mapper { what: "using the table", source })?;
    let device = mapper::device(&answer).and_then(|device| sysfs::name(root, device));
    let device =
        device.ok_or_else(|| SwapError::Mapper { what: "finding the device", source: Errno::ENODEV.into() })?;
    let node = sysfs::node(root, &device);
    let (_, bytes) = layout.inner();
    write(&node, bytes).map_err(|source| SwapError::Write { device: device.clone(), source })?;
    activate(&node, PRIORITY).map_err(|source| SwapError::Activate { device: device.clone(), source })?;
    Ok(area(device, partition, layout))
}

/// Opens device-mapper. In an image without the node the kernel's number of it does.
fn control(root: &Path) -> Result<File, SwapError> {
    let path = root.join("dev/mapper/control");
    let failed = |source| SwapError::Mapper { what: "opening /dev/mapper/control", source };
    let open = || OpenOptions::new().read(true).write(true).open(&path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = root.join("dev/mapper");
            DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed)?;
            match sys::make_device_mapper(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
            open().map_err(failed)
        }
        opened => opened.map_err(failed),
    }
}

fn create(control: &File, name: &str) -> Result<(), SwapError> {
    let uuid = uuid(name);
    let make = || call(control, Call { command: Command::Create, name, uuid: &uuid, cookie: 0, target: None });
    let made = match make() {
        // It holds no partition, so a run has ended before it could load a table.
        Err(error) if is_busy(&error) => remove(control, name).and_then(|()| make()),
        made => made,
    };
    made.map(|_| ()).map_err(|source| SwapError::Mapper { what: "making a device", source })
}

/// cryptsetup shows and closes devices with such an identifier.
fn uuid(name: &str) -> String {
    format!("CRYPT-PLAIN-{name}")
}

/// Removes the device with our identifier, whatever its name: somebody else's with our name stays. The kernel keeps one that is in use.
fn remove(control: &File, name: &str) -> io::Result<()> {
    let uuid = uuid(name);
    let once = || call(control, Call { command: Command::Remove, name: "", uuid: &uuid, cookie: COOKIE, target: None });
    let mut removed = once();
    for _ in 1..TRIES {
        if !removed.as_ref().is_err_and(is_busy) {
            break;
        }
        std::thread::sleep(WAIT);
        removed = once();
    }
    removed.map(drop)
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::EBUSY)
}

/// Loads the table, which claims the partition and takes the key.
fn load(control: &File, name: &str, partition: &Partition, layout: Layout) -> Result<(), SwapError> {
    let number = {
        let mut key = Zeroizing::new([0; KEY]);
        sys::fill_random(&mut *key).map_err(SwapError::Key)?;
        sys::give_key(KEY_NAME, &*key).map_err(SwapError::Key)?
    };
    let ((start, len), (major, minor)) = (layout.inner(), partition.device);
    let key = format!(":{KEY}:logon:{}", KEY_NAME.to_string_lossy());
    // plain64: the number of the sector is the initialisation vector, which for XTS is enough.
    let parameters = format!("aes-xts-plain64 {key} 0 {major}:{minor} {}", start / 512);
    let target = Target { sectors: len / 512, kind: "crypt", parameters: &parameters };
    let loaded = call(control, Call { command: Command::Load, name, uuid: "", cookie: 0, target: Some(target) });
    // dm-crypt has a copy.
    sys::forget_key(number);
    loaded.map(|_| ()).map_err(|source| match is_busy(&source) {
        true => SwapError::InUse { device: partition.name.clone(), by: None },
        false => SwapError::Mapper { what: "loading the table for dm-crypt", source },
    })
}

fn call(control: &File, call: Call<'_>) -> io::Result<Vec<u8>> {
    let mut bytes = call.encode().ok_or(io::ErrorKind::InvalidInput)?;
    sys::device_mapper(control, call.command.number(), &mut bytes)?;
    Ok(bytes)
}

fn verify(root: &Path, partition: &Partition) -> Result<(), SwapError> {
    let device = || partition.name.clone();
    let mut file = File::open(sysfs::node(root, &partition.name))
        .map_err(|source| SwapError::Open { device: device(), source })?;
    let mark =
        swap_mark::look(&mut file, partition.bytes).map_err(|source| SwapError::Read { device: device(), source })?;
    let why = match mark {
        Mark::Ours => return Ok(()),
        Mark::Changed(at) => format!("byte {at} of it was changed"),
        Mark::None => "it has no marker any more".to_owned(),
    };
    Err(SwapError::Changed { device: device(), why })
}

/// Writes zeros at both ends, and the header.
fn write(node: &Path, bytes: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(node)?;
    zeros(&mut file, 0, CLEARED)?;
    zeros(&mut file, bytes.saturating_sub(CLEARED), CLEARED)?;
    put_header(&mut file, bytes)?;
    file.sync_all()
}

pub(super) fn put_header(file: &mut (impl Write + Seek), bytes: u64) -> io::Result<()> {
    let mut uuid = [0; 16];
    sys::fill_random(&mut uuid)?;
    let page = header::page(sys::page_size()?, bytes, &uuid).ok_or(io::ErrorKind::InvalidInput)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&page)
}

pub(super) fn zeros(file: &mut (impl Write + Seek), start: u64, len: u64) -> io::Result<()> {
    let piece = vec![0; 64 * 1024];
    file.seek(SeekFrom::Start(start))?;
    let mut left = len;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        file.write_all(piece.get(..count).unwrap_or_default())?;
        left = left.saturating_sub(u64::try_from(count).unwrap_or(0));
    }
    Ok(())
}

/// swapon(2).
pub(super) fn activate(node: &Path, priority: i32) -> io::Result<()> {
    let path = CString::new(node.as_os_str().as_bytes())?;
    sys::swap_on(&path, PREFER | priority)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// Whatever an earlier boot left there, the decrypted device is swap space and nothing else, as blkid sees it.
    #[test]
    fn the_decrypted_device_is_swap_space_to_others() {
        let work = tempfile::tempdir().unwrap();
        let path = work.path().join("device");
        let bytes = 11 * 1024 * 1024;
        let mut noise = vec![0; bytes];
        sys::fill_random(&mut noise).unwrap();
        // Something that udev would act on.
        noise[65_600..65_608].copy_from_slice(b"_BHRfS_M");
        noise[1080..1082].copy_from_slice(b"\x53\xef");
        std::fs::write(&path, &noise).unwrap();
        write(&path, bytes as u64).unwrap();
        let search = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
        let said =
            std::process::Command::new("blkid").args(["-p", "-o", "export"]).arg(&path).env("PATH", search).output();
        let said = String::from_utf8(said.expect("blkid of util-linux").stdout).unwrap();
        for line in ["LABEL=imprint", "TYPE=swap", "VERSION=1"] {
            assert!(said.lines().any(|found| found == line), "{said}");
        }
        let after = std::fs::read(&path).unwrap();
        assert_eq!(after[1 << 20..10 << 20], noise[1 << 20..10 << 20], "the rest is as it was");
    }

    #[test]
    fn zeros_are_written_where_they_belong() {
        let mut file = Cursor::new(vec![1; 300_000]);
        zeros(&mut file, 100_000, 100_001).unwrap();
        let bytes = file.into_inner();
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == u8::from(!(100_000..200_001).contains(&at))));
    }
}
