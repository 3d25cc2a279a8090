//! Why an image is not made: errors and their messages. Does no I/O.

use std::io;
use std::path::PathBuf;

use crate::cpio::{TooLong, TreeError};
use crate::elf::Machine;

/// Why an image is not made. Nothing was written then.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The system refused an operation.
    #[error("{action} {}", .path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `--kernel-modules` names something else.
    #[error(
        "{} is no folder of kernel modules: it has no modules.dep; give the folder lib/modules/VERSION of a kernel, and run \
         depmod if it is new",
        .0.display()
    )]
    NoFolder(PathBuf),
    /// An index of the folder cannot be used.
    #[error("{}: {why}; run depmod for this folder", .path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// `--modules` names a module that is not there.
    #[error(
        "--modules {name}: {} has no such module, and it is not built into the kernel; correct the name, or install the \
         package of the kernel that has it",
        .folder.display()
    )]
    NoModule {
        /// The name, as it was given.
        name: String,
        /// The folder of modules.
        folder: PathBuf,
    },
    /// `--modules` has something that is no name.
    #[error("--modules {0}: want names of modules, or =FOLDER below kernel/, with commas or blanks between them")]
    NoName(String),
    /// `modules.dep` lists a file that is not there.
    #[error(
        "{}: modules.dep lists it, and it cannot be read; install the package of the kernel anew, or run depmod",
        .path.display()
    )]
    Missing {
        /// The module's file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A module is compressed in a way that is not known, or is damaged.
    #[error("{}: {why}; install the package of the kernel anew", .path.display())]
    Packed {
        /// The module's file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file is no kernel module.
    #[error("{} is no kernel module: it is no ELF file with a version (vermagic); install the package of the kernel anew", .0.display())]
    NotAModule(PathBuf),
    /// Modules of two kernels in one folder.
    #[error(
        "{} is for the kernel {version}, and {} for {other_version}; a kernel loads only its own modules: give a folder with the \
         modules of one kernel",
        .path.display(), .other.display()
    )]
    Mixed {
        /// A module.
        path: PathBuf,
        /// Its kernel.
        version: String,
        /// A module before it.
        other: PathBuf,
        /// The kernel of that.
        other_version: String,
    },
    /// Modules for two kinds of machines in one folder.
    #[error("{} is for {machine}, and other modules of the folder for {other}; give a folder with the modules of one kernel", .path.display())]
    MixedMachines {
        /// A module.
        path: PathBuf,
        /// Its machine.
        machine: Machine,
        /// That of the others.
        other: Machine,
    },
    /// A node with this image could use nothing.
    #[error(
        "{} has no driver of any drive or network link, as a module or built into the kernel; a node would find neither payload \
         nor server. Give the folder of the whole kernel, or name its drivers with --modules",
        .0.display()
    )]
    NoDrivers(PathBuf),
    /// No agent was found.
    #[error("there is no agent at {0}; build it (make build), or name it with --agent")]
    NoAgent(String),
    /// The agent is no program.
    #[error("the agent {} is no ELF program; give the file imprint that make build makes", .0.display())]
    NotAnAgent(PathBuf),
    /// The agent needs a dynamic linker, which the image does not have.
    #[error(
        "the agent {} is linked dynamically, and the image has no libraries; give the static program that make build makes in dist/",
        .0.display()
    )]
    Dynamic(PathBuf),
    /// The agent is for another kind of machine than the modules.
    #[error("the agent {} is for {agent}, and the modules for {modules}; make build ARCH={modules} makes one for them, --agent names it", .path.display())]
    OtherMachine {
        /// The agent.
        path: PathBuf,
        /// Its machine.
        agent: Machine,
        /// That of the modules.
        modules: Machine,
    },
    /// The agent would refuse what the image has at each boot.
    #[error("with this image every node would stop: {0}")]
    Refused(String),
    /// The kernel cannot unpack an image that is compressed in this way.
    #[error("this kernel unpacks no {method}: {} does not list {part}; give another --compress", .file.display())]
    NoUnpacker {
        /// The value of `--compress`.
        method: &'static str,
        /// The part of the kernel.
        part: &'static str,
        /// modules.builtin
        file: PathBuf,
    },
    /// Words that a boot would refuse.
    #[error("--words: {0}")]
    Words(String),
    /// Words or a file that belong to one node.
    #[error(
        "{0} has what belongs to one node, and the image is for all nodes of a site; bring a payload by another medium"
    )]
    OneNode(String),
    /// An argument of `--add`.
    #[error("--add {0}: want SOURCE:DESTINATION, like /usr/bin/busybox:/bin/busybox")]
    Add(String),
    /// A source of `--add` that is neither file, folder nor link.
    #[error("--add {} is neither a file, a folder nor a link; an image takes only those", .0.display())]
    AddKind(PathBuf),
    /// A name that is no UTF-8.
    #[error("{} has a name that is not UTF-8; rename it", .0.display())]
    AddName(PathBuf),
    /// Something has no place in the image.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A file is too large.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// No medium for this kind of machine.
    #[error(
        "--iso makes media for x86_64 and aarch64, and this image is for {0}; leave --iso out, and start the image by its boot loader"
    )]
    NoMedium(Machine),
    /// The kernel is another one than the image has modules for.
    #[error(
        "the kernel {} is Linux {version}, and the image has the modules of {modules}, which it could not load: there would be no \
         driver. Give --kernel and --kernel-modules of one version",
        .path.display()
    )]
    OtherKernel {
        /// The file of the kernel.
        path: PathBuf,
        /// Its version.
        version: String,
        /// That of the modules.
        modules: String,
    },
    /// `--append` has what the menu of the medium cannot hold.
    #[error("--append: want words without quotes, backslashes and $, as they go into the menu of the medium")]
    MediumWords,
    /// Programs that make the medium are not installed.
    #[error("--iso needs {what}, and this machine has none; on Debian: apt-get install {packages}")]
    NoTool {
        /// The programs and folders.
        what: String,
        /// Their packages.
        packages: String,
    },
    /// The program that makes the medium failed.
    #[error("grub-mkrescue ended with {status}: {said}; look at what it says, and whether there is room in /tmp")]
    Tool {
        /// How it ended.
        status: String,
        /// Its last words.
        said: String,
    },
    /// The image could not be compressed.
    #[error("compressing the image")]
    Compress(#[source] io::Error),
}

/// For `map_err`: an error of the system, with what was done to what.
pub(crate) fn failed(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::Io { action, path, source }
}
