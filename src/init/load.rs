//! Loads modules into the kernel: those that are listed in the image, those that the devices need, and those that the kernel asks for by
//! name. Each runs in a process of its own. Whoever built the image vouches for the modules. Decides nothing about the boot.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module, init_module};
use nix::poll::{PollFd, PollFlags};

use super::error::{InitError, LoadError};
use super::worker::Worker;
use super::{FOLDER, LISTED, boot_words};
use crate::chain::chain;
use crate::console::complain;
use crate::kernel_log;
use crate::kmod::{self, Index, MAX_MODULE, Packing, Resolved, Texts, UnpackError};
use crate::machine::devices;
use crate::options::BootWords;
use crate::shown::{Printable, printable_up_to};
use crate::sys;
use crate::time::Deadline;
use crate::uevent::{Appeared, Devices, QUEUE};

const MODULES: &str = "lib/modules";
const RELEASE: &str = "proc/sys/kernel/osrelease";
/// include/uapi/linux/module.h, MODULE_INIT_COMPRESSED_FILE: Linux 5.17, with CONFIG_MODULE_DECOMPRESS.
const COMPRESSED: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);
/// Devices without a driver are named when nothing has appeared for so long: a driver that the kernel has may still be at work.
const QUIET: Duration = Duration::from_secs(1);
/// How long a driver may take before the others are loaded without waiting for it. It goes on beside them. A search for a payload
/// waits longer than this for drivers (config_drive::PATIENCE).
const LIMIT: Duration = Duration::from_secs(5);
/// The same, once one has taken longer: the kernel then ends no load before that one has ended (do_init_module waits for all devices
/// that are looked at beside it), though it has loaded the module.
const LIMIT_AFTER: Duration = Duration::from_secs(1);
/// The same for a module that the machine is not to boot without.
const LIMIT_LISTED: Duration = Duration::from_secs(60);

/// Shows whether drivers are being loaded ([`crate::uevent::LOADER`]).
pub(super) fn busy(root: &Path, is: bool) {
    let queue = root.join(FOLDER).join(QUEUE);
    // Errors are ignored: a search then waits a moment less, or longer.
    let _ = if is { fs::write(queue, "") } else { fs::remove_file(queue) };
}

/// Loads what `/imprint/modules` lists. One that does not load stops the boot.
pub(super) fn listed(root: &Path) -> Result<(), InitError> {
    let path = root.join(LISTED);
    let text = fs::read_to_string(&path).map_err(|source| InitError::Listed(LoadError::Read { path, source }))?;
    let names = kmod::listed(&text).map_err(|(number, line)| InitError::List { number, line })?;
    let files = Files::read(root).map_err(InitError::Listed)?;
    let mut loader = Loader::new(root, &files, Some(LIMIT_LISTED)).map_err(InitError::Listed)?;
    names.iter().try_for_each(|name| loader.load(name)).map_err(InitError::Listed)
}

/// What the kernel starts as modprobe: `-q -- NAME`. Silent, as it asks to be. Whoever has asked the kernel waits for as long as it takes.
pub(super) fn modprobe(root: &Path, words: &[&str]) -> ExitCode {
    let loaded = Files::read(root).and_then(|files| {
        let mut loader = Loader::new(root, &files, None)?;
        words.iter().filter(|word| !word.starts_with('-')).try_for_each(|name| loader.load(name))
    });
    if loaded.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Loads the drivers of all devices that are there, and then of those that appear. Ends only if it cannot do that.
pub(super) fn devices(root: &Path) -> Result<(), InitError> {
    let events = Devices::open().map_err(InitError::Watch)?;
    let mut told = BTreeSet::new();
    let files = match Files::read(root) {
        Ok(files) => files,
        Err(error) => return without(root, &error),
    };
    let mut loader = match Loader::new(root, &files, Some(LIMIT)) {
        Ok(loader) => loader,
        Err(error) => return without(root, &error),
    };
    loader.all();
    loop {
        while let Some(appeared) = events.next().map_err(InitError::Watch)? {
            busy(root, true);
            match appeared {
                Appeared::Device(modalias) => loader.device(&modalias),
                Appeared::Any => loader.all(),
            }
        }
        let waits = loader.waits();
        busy(root, waits);
        let fds = || [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
        if !sys::poll(&mut fds(), Deadline::after(QUIET)).map_err(InitError::Watch)? {
            name(root, &|modalias| loader.has(modalias), &mut told);
            if !waits {
                sys::poll(&mut fds(), Deadline::after(Duration::MAX)).map_err(InitError::Watch)?;
            }
        }
    }
}

/// The image has no modules for this kernel: that is not yet a reason to stop, as the kernel may have all drivers itself.
fn without(root: &Path, error: &LoadError) -> Result<(), InitError> {
    complain(&format!("no drivers are loaded: {}", chain(error)));
    busy(root, false);
    name(root, &|_| false, &mut BTreeSet::new());
    Ok(())
}

/// Tells the console, once, of each link and drive that has no driver.
fn name(root: &Path, has: &dyn Fn(&str) -> bool, told: &mut BTreeSet<String>) {
    for device in devices::without_driver(root) {
        if told.len() < MOST && !has(&device.modalias) && told.insert(device.name.clone()) {
            complain(&device.to_string());
        }
    }
}

/// How many devices without a driver are named.
const MOST: usize = 16;

/// The indices of the running kernel's modules.
struct Files {
    folder: PathBuf,
    texts: [String; 4],
}

impl Files {
    fn read(root: &Path) -> Result<Files, LoadError> {
        let kernel = text(&root.join(RELEASE))?;
        let folder = root.join(MODULES).join(kernel.trim());
        if !folder.is_dir() {
            let there = root.join(MODULES).read_dir().into_iter().flatten().flatten();
            let there: Vec<String> = there.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            let (kernel, there) = (Printable::of(kernel.trim()), Printable::up_to(&there.join(", "), 200));
            return Err(LoadError::OtherVersion { kernel, there });
        }
        let optional = |name| match text(&folder.join(name)) {
            Err(LoadError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            text => text,
        };
        let texts = [
            text(&folder.join(kmod::DEP))?,
            optional(kmod::ALIAS)?,
            optional(kmod::SOFTDEP)?,
            optional(kmod::BUILTIN)?,
        ];
        Ok(Files { folder, texts })
    }
}

fn text(path: &Path) -> Result<String, LoadError> {
    let bytes = fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct Loader<'a> {
    root: &'a Path,
    folder: &'a Path,
    index: Index<'a>,
    words: BootWords,
    /// The modules that were loaded, and those that did not load with the reason.
    tried: BTreeMap<String, Result<(), String>>,
    seen: BTreeSet<String>,
    /// The modules that the console was told of.
    told: BTreeSet<String>,
    /// How long a module may take. `None`: it is loaded in this very process.
    limit: Option<Duration>,
    worker: Option<Worker>,
    /// Those that nobody waits for.
    hanging: Vec<Worker>,
}

impl<'a> Loader<'a> {
    fn new(root: &'a Path, files: &'a Files, limit: Option<Duration>) -> Result<Loader<'a>, LoadError> {
        let [dep, alias, softdep, builtin] = &files.texts;
        let index = Index::parse(&Texts { dep, alias, softdep, builtin }).map_err(LoadError::Index)?;
        let words = boot_words(root);
        Ok(Loader {
            root,
            folder: &files.folder,
            index,
            words,
            tried: BTreeMap::new(),
            seen: BTreeSet::new(),
            told: BTreeSet::new(),
            limit,
            worker: None,
            hanging: Vec::new(),
        })
    }

    /// The drivers of all devices that are there, and after them those of processor and machine, which nobody waits for.
    fn all(&mut self) {
        devices::modaliases(self.root).iter().for_each(|modalias| self.device(modalias));
        devices::machine(self.root).iter().for_each(|modalias| self.device(modalias));
    }

    /// Whether a driver is still at work that nobody waits for.
    fn waits(&mut self) -> bool {
        self.hanging.retain_mut(Worker::works);
        !self.hanging.is_empty()
    }

    /// The drivers of a device. One that does not load is named on the console, and does not hinder the others.
    fn device(&mut self, modalias: &str) {
        if !self.seen.insert(modalias.to_owned()) {
            return;
        }
        let wanted: Vec<String> = self.index.matching(modalias).into_iter().map(str::to_owned).collect();
        for name in wanted {
            let is_wanted = !self.words.blacklist.contains(&name) && self.is_there(&name);
            if is_wanted
                && let Err(error) = self.load(&name)
                && self.told.insert(name)
            {
                complain(&format!("a driver for {}: {}", printable_up_to(modalias, 80), chain(&error)));
            }
        }
    }

    /// Whether the image has a driver for a device.
    fn has(&self, modalias: &str) -> bool {
        self.index.matching(modalias).iter().any(|name| self.is_there(name))
    }

    /// Whether the image has the file of a module: the indices of an image may be those of all modules of its kernel.
    fn is_there(&self, name: &str) -> bool {
        self.index.module(name).is_some_and(|module| self.folder.join(module.path).exists())
    }

    /// A module or an alias, after what it needs. A soft dependency need not load.
    fn load(&mut self, name: &str) -> Result<(), LoadError> {
        let wanted: Vec<String> = match self.index.resolve(name) {
            Resolved::Modules(modules) => modules.into_iter().map(str::to_owned).collect(),
            Resolved::Builtin => return Ok(()),
            Resolved::Unknown => return Err(LoadError::Missing(Printable::up_to(name, 80))),
        };
        let paths = self.index.closure([name]).map_err(|name| LoadError::Missing(Printable::up_to(name, 80)))?;
        for path in paths {
            let Some(name) = kmod::name_of(path) else { continue };
            if !self.tried.contains_key(name.as_ref()) {
                let loaded = self.insert(&name, path).map_err(|error| chain(&error));
                self.tried.insert(name.into_owned(), loaded);
            }
        }
        // An alias may stand for several modules, of which one does the work.
        if wanted.is_empty() || wanted.iter().any(|name| matches!(self.tried.get(name), Some(Ok(())))) {
            return Ok(());
        }
        Err(LoadError::Said(wanted.iter().find_map(|name| self.why(name)).unwrap_or_default()))
    }

    /// Why a module did not load: because of the first module that it needs and that did not load, or by itself. A soft dependency is no
    /// reason.
    fn why(&self, name: &str) -> Option<String> {
        let needs = self.index.module(name).into_iter().flat_map(|module| module.needs.iter().rev());
        let names = needs.filter_map(|path| kmod::name_of(path)).chain([kmod::normal(name)]);
        names.filter_map(|name| self.tried.get(name.as_ref())?.clone().err()).next()
    }

    fn insert(&mut self, name: &str, path: &str) -> Result<(), LoadError> {
        if self.root.join("sys/module").join(name).join("initstate").exists() {
            return Ok(());
        }
        let path = self.folder.join(path);
        packing(&path)?;
        // The module of bonds makes bond0 by itself (Documentation/networking/bonding.rst, max_bonds). What comes later counts.
        let own = if name == "bonding" { "max_bonds=0 " } else { "" };
        let parameters = format!("{own}{}", self.words.parameters(name));
        let Some(limit) = self.limit else { return ask(self.root, &path, &parameters) };
        let worker = match &mut self.worker {
            Some(worker) => worker,
            none => none.insert(Worker::start().map_err(LoadError::Worker)?),
        };
        match worker.load(&path, &parameters, limit) {
            Ok(Some(said)) if said.is_empty() => Ok(()),
            Ok(Some(said)) => Err(LoadError::Said(said)),
            Ok(None) => {
                self.hanging.extend(self.worker.take());
                self.limit = Some(LIMIT_AFTER);
                Err(LoadError::Hangs { path, seconds: limit.as_secs() })
            }
            Err(source) => {
                self.worker = None;
                Err(LoadError::Worker(source))
            }
        }
    }
}

/// How a module is stored, if that is known.
fn packing(path: &Path) -> Result<Packing, LoadError> {
    let mut beginning = Vec::new();
    let read = File::open(path).and_then(|file| file.take(8).read_to_end(&mut beginning));
    read.map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    match Packing::of(&beginning) {
        Packing::Unknown => Err(LoadError::Unpack { path: path.to_owned(), source: UnpackError::Unknown }),
        packing => Ok(packing),
    }
}

/// Asks the kernel to load a module. Returns when its driver has looked at the devices that are there.
pub(super) fn ask(root: &Path, path: &Path, parameters: &str) -> Result<(), LoadError> {
    let packing = packing(path)?;
    let path = path.to_owned();
    let read = |source| LoadError::Read { path: path.clone(), source };
    let file = File::open(&path).map_err(read)?;
    let parameters = CString::new(parameters).unwrap_or_default();
    let loaded = match packing {
        Packing::None => finit_module(&file, &parameters, ModuleInitFlags::empty()),
        _ => match finit_module(&file, &parameters, COMPRESSED) {
            // Without CONFIG_MODULE_DECOMPRESS the kernel does not know the flag, and with it it knows one packing of three. EINVAL may
            // also be what the module itself says.
            Err(errno @ (Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS)) => {
                let mut bytes = Vec::new();
                let most = u64::try_from(MAX_MODULE).unwrap_or(u64::MAX).saturating_add(1);
                file.take(most).read_to_end(&mut bytes).map_err(read)?;
                match kmod::unpack(&bytes) {
                    Ok(module) => init_module(&module, &parameters),
                    Err(UnpackError::NotHere(packing)) if errno == Errno::EINVAL => {
                        return Err(LoadError::Compressed { said: said(root, &path, errno), path, packing });
                    }
                    Err(source) => return Err(LoadError::Unpack { path, source }),
                }
            }
            loaded => loaded,
        },
    };
    match loaded {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        // kernel/module/main.c: another version magic, or a symbol that this kernel does not have.
        Err(errno @ (Errno::ENOEXEC | Errno::ENOENT)) => {
            Err(LoadError::Format { said: said(root, &path, errno), path })
        }
        Err(errno @ (Errno::EKEYREJECTED | Errno::ENOKEY | Errno::EPERM | Errno::EBADMSG | Errno::ENOPKG)) => {
            Err(LoadError::Signature { path, source: errno.into() })
        }
        Err(errno) => Err(LoadError::Refused { path, source: errno.into() }),
    }
}

/// Why the kernel refused a module: it says so in its log only.
fn said(root: &Path, path: &Path, errno: Errno) -> String {
    let name = path.to_str().and_then(kmod::name_of).unwrap_or_default();
    let reasons = ["version magic", "Unknown symbol", "disagrees about", "nvalid", "ELF"];
    let said = kernel_log::first(root, |message| {
        let is = message.starts_with(&*name) && reasons.iter().any(|reason| message.contains(reason));
        is.then(|| printable_up_to(message, 200))
    });
    said.unwrap_or_else(|| io::Error::from(errno).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(kernel: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        fs::write(root.path().join(RELEASE), "6.1.0-50-amd64\n").unwrap();
        fs::create_dir_all(root.path().join(MODULES).join(kernel).join("kernel")).unwrap();
        fs::create_dir_all(root.path().join("imprint")).unwrap();
        root
    }

    /// The accident: an image that was built for the kernel before the update.
    #[test]
    fn an_image_for_another_kernel_says_so() {
        let root = root("6.1.0-49-amd64");
        fs::write(root.path().join(LISTED), "ext4\n").unwrap();
        let error = listed(root.path()).unwrap_err();
        assert_eq!(
            chain(&error),
            "/imprint/modules lists a module that the machine is not to boot without: the image has modules for Linux \
             6.1.0-49-amd64, and this is Linux 6.1.0-50-amd64; boot that kernel, or build the image for this one"
        );
        fs::remove_dir_all(root.path().join(MODULES)).unwrap();
        let error = Files::read(root.path()).map(drop).unwrap_err();
        assert!(chain(&error).starts_with("the image has no modules, and this is Linux 6.1.0-50-amd64"), "{error}");
    }

    /// Each bad module is one clear line, and stops a boot only if it is listed. The kernel is never asked: no test may load a module
    /// into the machine that it runs on.
    #[test]
    fn what_is_missing_or_packed_in_a_way_that_nobody_knows_is_named() {
        let root = root("6.1.0-50-amd64");
        let folder = root.path().join(MODULES).join("6.1.0-50-amd64");
        fs::write(folder.join(kmod::DEP), "kernel/a.ko.bz2:\nkernel/b.ko:\nkernel/n.ko: kernel/a.ko.bz2\n").unwrap();
        fs::write(folder.join(kmod::SOFTDEP), "softdep b pre: a\n").unwrap();
        fs::write(folder.join("kernel/a.ko.bz2"), "BZh91AY&SY").unwrap();
        let listed = |names: &str| {
            fs::write(root.path().join(LISTED), names).unwrap();
            chain(&super::listed(root.path()).unwrap_err())
        };
        assert!(listed("a\n").ends_with(
            "kernel/a.ko.bz2: it is neither a module nor compressed with gzip, xz or zstd; store modules unpacked in the image, as \
             imprint-host image does"
        ));
        assert!(listed("b\n").contains("kernel/b.ko: No such file or directory"), "a soft dependency is no reason");
        assert!(listed("n\n").contains("kernel/a.ko.bz2: it is neither"), "what it needs is the reason");
        assert!(listed("c-d\n").ends_with("the image has no module c-d; build it with --modules c-d"));
        assert_eq!(
            listed("a b\n"),
            "line 1 of /imprint/modules is no name of a module: \"a b\"; write one name a line"
        );
        assert_eq!(modprobe(root.path(), &["-q", "--", "c"]), ExitCode::FAILURE);
    }

    #[test]
    fn a_module_that_is_loaded_is_not_loaded_again() {
        let root = root("6.1.0-50-amd64");
        let folder = root.path().join(MODULES).join("6.1.0-50-amd64");
        fs::write(folder.join(kmod::DEP), "kernel/a-b.ko:\n").unwrap();
        fs::write(folder.join(kmod::ALIAS), "alias virtio:d00000001v* a_b\n").unwrap();
        fs::create_dir_all(root.path().join("sys/module/a_b")).unwrap();
        fs::write(root.path().join("sys/module/a_b/initstate"), "live\n").unwrap();
        assert_eq!(modprobe(root.path(), &["-q", "a-b"]), ExitCode::SUCCESS);
        assert_eq!(modprobe(root.path(), &["-q", "virtio:d00000001v00001AF4"]), ExitCode::SUCCESS);
    }
}
