//! The folder of a kernel's modules, `lib/modules/VERSION`: its indices, and the modules themselves, unpacked. Whoever installed the
//! kernel vouches for it. Refuses modules of two kernels or machines in one folder. Decides nothing about which modules go in.

use std::fs;
use std::path::{Path, PathBuf};

use imprint::kmod::{self, Index, Texts};

use super::error::{ImageError, failed};
use crate::elf::{Elf, Machine};

/// The texts of the indices.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    dep: String,
    pub(super) alias: String,
    softdep: String,
    pub(super) builtin: String,
}

impl Folder {
    /// Reads the indices. Only `modules.dep` must be there: a kernel with one module need not have the others.
    pub(super) fn read(path: &Path) -> Result<Folder, ImageError> {
        let text = |name: &str| {
            let file = path.join(name);
            match fs::read(&file) {
                Ok(bytes) => String::from_utf8(bytes)
                    .map(Some)
                    .map_err(|_| ImageError::Index { path: file, why: "it is not text".to_owned() }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(failed("reading", &file)(error)),
            }
        };
        let no_folder = || ImageError::NoFolder(path.to_owned());
        if !path.is_dir() {
            return Err(no_folder());
        }
        Ok(Folder {
            path: path.to_owned(),
            dep: text(kmod::DEP)?.ok_or_else(no_folder)?,
            alias: text(kmod::ALIAS)?.unwrap_or_default(),
            softdep: text(kmod::SOFTDEP)?.unwrap_or_default(),
            builtin: text(kmod::BUILTIN)?.unwrap_or_default(),
        })
    }

    /// The kernel's version, as the folder is called.
    pub(super) fn name(&self) -> Result<String, ImageError> {
        let full = fs::canonicalize(&self.path).map_err(failed("finding", &self.path))?;
        let name = full.file_name().and_then(|name| name.to_str()).map(ToOwned::to_owned);
        name.ok_or_else(|| ImageError::NoFolder(self.path.clone()))
    }

    pub(super) fn index(&self) -> Result<Index<'_>, ImageError> {
        let texts = Texts { dep: &self.dep, alias: &self.alias, softdep: &self.softdep, builtin: &self.builtin };
        Index::parse(&texts).map_err(|error| ImageError::Index { path: self.path.clone(), why: error.to_string() })
    }
}

/// A module as it goes into the image.
pub(super) struct Module {
    /// Below the folder, without the ending of its compression.
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
    /// The files that it asks the kernel for, below the folder of firmware.
    pub(super) firmware: Vec<String>,
}

/// Modules of one kernel.
pub(super) struct Modules {
    pub(super) version: String,
    pub(super) machine: Machine,
    pub(super) all: Vec<Module>,
}

/// What a path of `modules.dep` is in the image.
pub(super) fn stored(path: &str) -> String {
    match path.rfind(".ko") {
        Some(at) => path.get(..at).map(|start| format!("{start}.ko")).unwrap_or_else(|| path.to_owned()),
        None => path.to_owned(),
    }
}

impl Modules {
    /// Reads and unpacks these modules of the folder; a signature stays, as it is a part of the module's file
    /// (Documentation/admin-guide/module-signing.rst). `None`: no module was asked for.
    pub(super) fn read(folder: &Path, paths: &[&str]) -> Result<Option<Modules>, ImageError> {
        let mut found: Option<(Modules, PathBuf)> = None;
        for path in paths {
            let file = folder.join(path);
            let packed = fs::read(&file).map_err(|source| ImageError::Missing { path: file.clone(), source })?;
            let bytes = kmod::unpack(&packed)
                .map_err(|error| ImageError::Packed { path: file.clone(), why: error.to_string() })?;
            let no_module = || ImageError::NotAModule(file.clone());
            let elf = Elf::new(&bytes).map_err(|_| no_module())?;
            let machine = elf.machine().map_err(|_| no_module())?;
            // `6.1.0-50-amd64 SMP preempt mod_unload modversions`: the kernel's version, and how it was configured
            // (include/linux/vermagic.h).
            let magic = elf.modinfo("vermagic").map_err(|_| no_module())?;
            let version = magic.first().and_then(|magic| magic.split(' ').next()).filter(|version| !version.is_empty());
            let version = version.ok_or_else(no_module)?;
            let firmware = elf.modinfo("firmware").map_err(|_| no_module())?;
            let (modules, first) = found.get_or_insert_with(|| {
                (Modules { version: version.to_owned(), machine, all: Vec::new() }, file.clone())
            });
            if modules.version != version {
                return Err(ImageError::Mixed {
                    path: file,
                    version: version.to_owned(),
                    other: first.clone(),
                    other_version: modules.version.clone(),
                });
            }
            if modules.machine != machine {
                return Err(ImageError::MixedMachines { path: file, machine, other: modules.machine });
            }
            modules.all.push(Module { path: stored(path), bytes, firmware });
        }
        Ok(found.map(|(modules, _)| modules))
    }
}
