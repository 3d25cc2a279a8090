//! Why `/init` of a bare image stopped the boot, or could not load a module. Prints nothing.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::kmod::{IndexError, Packing, UnpackError};
use crate::shown::Printable;

/// How a process has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// With this code.
    Exit(i32),
    /// By this signal.
    Killed(i32),
}

/// Why the boot was stopped.
#[derive(Debug)]
pub enum InitError {
    /// Process 1 had a fault.
    Fault(String),
    /// A process could not be started.
    Start {
        /// What it was for.
        what: &'static str,
        /// The error of the kernel.
        source: io::Error,
    },
    /// A part of the boot has failed, in its own words.
    Said(String),
    /// A part of the boot has failed, and left its reason in status.json.
    Part {
        /// Which one.
        what: &'static str,
        /// How.
        ended: Ended,
    },
    /// Neither root= nor imprint.next= is there.
    NoRoot,
    /// The form of root= is not known.
    Form(Printable),
    /// The root has not appeared.
    NotFound {
        /// `root=LABEL=x`
        root: Printable,
        /// How long it was waited for.
        seconds: u64,
        /// What is there instead.
        there: String,
    },
    /// The device has no file system that is known.
    NoKind(Printable),
    /// The root could not be mounted.
    Mount {
        /// The device.
        device: Printable,
        /// The file system.
        kind: Printable,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The root has no init.
    NoInit {
        /// What was looked for.
        tried: String,
        /// The last error.
        source: io::Error,
    },
    /// The root was entered, and its init could not be started.
    Init {
        /// The program.
        init: String,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The root could not be entered.
    Switch {
        /// The step.
        step: &'static str,
        /// The error of the kernel.
        source: io::Error,
    },
    /// What imprint.next= names could not be started.
    Next {
        /// The program.
        program: String,
        /// The error of the kernel.
        source: io::Error,
    },
    /// What imprint.next= names has ended.
    NextEnded {
        /// The program.
        program: String,
        /// How.
        ended: Ended,
    },
    /// The devices cannot be watched.
    Watch(io::Error),
    /// A module that is listed could not be loaded.
    Listed(LoadError),
    /// The list of modules is wrong.
    List {
        /// The number of the line.
        number: usize,
        /// The line.
        line: Printable,
    },
}

/// Why a module could not be loaded.
#[derive(Debug)]
pub enum LoadError {
    /// The image has no modules for this kernel.
    OtherVersion {
        /// The kernel that runs.
        kernel: Printable,
        /// The kernels that the image has modules for.
        there: Printable,
    },
    /// A file cannot be read.
    Read {
        /// Its path.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// An index is wrong.
    Index(IndexError),
    /// There is no such module.
    Missing(Printable),
    /// The process that asks the kernel cannot do it.
    Worker(io::Error),
    /// The kernel has not answered.
    Hangs {
        /// The file.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// As it was said before, or by the process that asks the kernel.
    Said(String),
    /// The kernel refused a compressed module, and the agent does not unpack it.
    Compressed {
        /// The file.
        path: PathBuf,
        /// How it is compressed.
        packing: Packing,
        /// What the kernel's log says, or its error.
        said: String,
    },
    /// It cannot be unpacked.
    Unpack {
        /// The file.
        path: PathBuf,
        /// Why.
        source: UnpackError,
    },
    /// It was made for another kernel, or is damaged.
    Format {
        /// The file.
        path: PathBuf,
        /// What the kernel's log says.
        said: String,
    },
    /// The kernel wants a signature.
    Signature {
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The kernel refused it for another reason.
    Refused {
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InitError::Fault(words) | InitError::Said(words) => f.write_str(words),
            InitError::Start { what, .. } => write!(f, "{what} could not be started"),
            InitError::Part { what, ended } => write!(f, "{what} {ended}; its own message is above"),
            InitError::NoRoot => f.write_str(
                "the kernel command line has neither root= nor imprint.next=; add what the machine is to boot into",
            ),
            InitError::Form(root) => write!(
                f,
                "root={root} is not a form that a bare image knows; write UUID=, LABEL=, PARTUUID=, PARTLABEL=, imprint: or \
                 the path of a device"
            ),
            InitError::NotFound { root, seconds, there } => write!(
                f,
                "{root} has not appeared within {seconds} s, and there is {there}; check the word and the disk, and whether the \
                 image has the disk's driver"
            ),
            InitError::NoKind(device) => {
                write!(f, "{device} has no file system that is known here; name it with rootfstype=")
            }
            InitError::Mount { device, kind, .. } => write!(
                f,
                "mounting {device} as {kind}; check rootfstype=, rootflags= and whether the image has the file system's module"
            ),
            InitError::NoInit { tried, .. } => {
                write!(f, "the root has no program at {tried}; check root=, or name the program with init=")
            }
            InitError::Init { init, .. } => write!(
                f,
                "{init} of the root cannot be started; check whether the root has its interpreter and is for this kind of machine"
            ),
            InitError::Switch { step, .. } => write!(f, "entering the root: {step}"),
            InitError::Next { program, .. } => {
                write!(f, "imprint.next={program} cannot be started; put the program into the image")
            }
            InitError::NextEnded { program, ended } => write!(f, "imprint.next={program} {ended}"),
            InitError::Watch(_) => f.write_str("watching for devices"),
            InitError::Listed(_) => {
                f.write_str("/imprint/modules lists a module that the machine is not to boot without")
            }
            InitError::List { number, line } => {
                write!(f, "line {number} of /imprint/modules is no name of a module: \"{line}\"; write one name a line")
            }
        }
    }
}

impl std::error::Error for InitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            InitError::Start { source, .. }
            | InitError::Mount { source, .. }
            | InitError::NoInit { source, .. }
            | InitError::Init { source, .. }
            | InitError::Switch { source, .. }
            | InitError::Next { source, .. }
            | InitError::Watch(source) => Some(source),
            InitError::Listed(source) => Some(source),
            _ => None,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::OtherVersion { kernel, there } if there.is_empty() => {
                write!(f, "the image has no modules, and this is Linux {kernel}; build it with --kernel-modules")
            }
            LoadError::OtherVersion { kernel, there } => write!(
                f,
                "the image has modules for Linux {there}, and this is Linux {kernel}; boot that kernel, or build the image for this one"
            ),
            LoadError::Read { path, .. } => write!(f, "reading {}", path.display()),
            LoadError::Index(error) => error.fmt(f),
            LoadError::Missing(name) => write!(f, "the image has no module {name}; build it with --modules {name}"),
            LoadError::Worker(_) => f.write_str("starting the process that loads modules"),
            LoadError::Hangs { path, seconds } => write!(
                f,
                "module {}: its driver has not answered for {seconds} s, and the boot goes on without waiting; look for a device that \
                 hangs",
                path.display()
            ),
            LoadError::Said(words) => f.write_str(words),
            LoadError::Compressed { path, packing, said } => write!(
                f,
                "the kernel refused the module {}, which is compressed with {packing} ({said}); store modules unpacked in the image, as \
                 imprint-host image does",
                path.display()
            ),
            LoadError::Unpack { path, .. } => write!(f, "module {}", path.display()),
            LoadError::Format { path, said } => write!(
                f,
                "module {} was made for another kernel, or is damaged ({said}); build the image for this kernel",
                path.display()
            ),
            LoadError::Signature { path, .. } => write!(
                f,
                "module {} is not signed by anybody whom this kernel trusts; take the module of the kernel's own package, or sign it",
                path.display()
            ),
            LoadError::Refused { path, .. } => write!(f, "the kernel refused the module {}", path.display()),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LoadError::Read { source, .. }
            | LoadError::Signature { source, .. }
            | LoadError::Refused { source, .. } => Some(source),
            LoadError::Unpack { source, .. } => Some(source),
            LoadError::Worker(source) => Some(source),
            _ => None,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Exit(code) => write!(f, "has ended with exit code {code}"),
            Ended::Killed(signal) => write!(f, "was killed by signal {signal}"),
        }
    }
}
