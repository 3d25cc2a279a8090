//! Reads the payload in an EFI variable with a vendor GUID of our own. Root of every system that ever ran on this
//! machine vouches for it, and in a virtual machine whoever runs it: each of them can have written it. So it is read
//! only if `imprint.source=` names it. Every process can read it: the kernel gives the files of efivarfs mode 0644.
//! Never decodes a payload.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};

use super::{Found, Origin, SourceError, file};
use crate::medium::{EFI_VARIABLE, Medium};
use crate::payload::{Form, MAX_LEN};
use crate::secret::Secret;

/// The variable, as efivarfs names its file.
pub const NAME: &str = EFI_VARIABLE;
/// Where efivarfs is mounted. The kernel makes this folder if the firmware has variables.
const FOLDER: &str = "sys/firmware/efi/efivars";

/// EFI_VARIABLE_NON_VOLATILE, _BOOTSERVICE_ACCESS and _RUNTIME_ACCESS (UEFI Specification 2.10, §8.2, GetVariable()). A
/// variable with fewer attributes is lost at the next boot, or the kernel cannot use it. A variable with more can be
/// changed only by the owner of its key.
const ATTRIBUTES: u32 = 0x7;
/// efivarfs puts the attributes in front of the value (Documentation/filesystems/efivarfs.rst).
pub const HEADER: usize = 4;

/// Why the variable is not used.
#[derive(Debug)]
pub enum EfiVarError {
    /// efivarfs cannot be mounted.
    Mount {
        /// The mount point.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The variable has no value.
    Empty,
    /// The variable has these attributes, and should have others.
    Attributes(u32),
}

/// Finds the payload. `None`: there is no such variable, or the firmware has no variables.
pub fn find(root: &Path) -> Result<Option<Found>, SourceError> {
    let Some(variables) = Variables::open(root)? else { return Ok(None) };
    let path = variables.payload();
    let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(&path);
    let failed = |source| SourceError::Read { path: path.clone(), source };
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    if !opened.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let bytes = file::read_from(opened, &path, MAX_LEN.saturating_add(HEADER))?;
    let value = value(bytes.expose())?;
    if value.len() > MAX_LEN {
        return Err(SourceError::TooLong(path, Form::of(value)));
    }
    let origin = Origin::Medium { medium: Medium::EfiVariable, place: NAME.into() };
    Ok(Some(Found { origin, bytes: Secret::new(value.to_vec()), cut: false, fresh: None }))
}

/// The value of a variable, without its attributes.
fn value(bytes: &[u8]) -> Result<&[u8], EfiVarError> {
    match bytes.split_first_chunk::<HEADER>() {
        None | Some((_, [])) => Err(EfiVarError::Empty),
        Some((attributes, value)) => match u32::from_le_bytes(*attributes) {
            ATTRIBUTES => Ok(value),
            other => Err(EfiVarError::Attributes(other)),
        },
    }
}

/// The folder of the variables. If nobody has mounted efivarfs, it is mounted for as long as this value lives.
pub struct Variables {
    folder: PathBuf,
    mounted: bool,
}

impl Variables {
    /// Finds the folder, and mounts efivarfs there if nobody has. `None`: the firmware has no variables.
    pub fn open(root: &Path) -> Result<Option<Variables>, EfiVarError> {
        let folder = root.join(FOLDER);
        let failed = |source| EfiVarError::Mount { path: root.join(FOLDER), source };
        let empty = match folder.read_dir() {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(source) => return Err(failed(source)),
        };
        // Every firmware has variables, such as the order of boot entries, so an empty folder has no efivarfs on it.
        // systemd as PID 1 has mounted efivarfs, and dracut's shell scripts have not.
        if empty {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            nix::mount::mount(Some("imprint"), &folder, Some("efivarfs"), flags, None::<&str>)
                .map_err(|errno| failed(errno.into()))?;
        }
        Ok(Some(Variables { folder, mounted: empty }))
    }

    /// The file of the payload's variable.
    pub fn payload(&self) -> PathBuf {
        self.folder.join(NAME)
    }
}

impl Drop for Variables {
    fn drop(&mut self) {
        if self.mounted {
            // Errors are ignored: a mount that stays does no harm.
            let _ = nix::mount::umount2(&self.folder, MntFlags::MNT_DETACH);
        }
    }
}

impl From<EfiVarError> for SourceError {
    fn from(error: EfiVarError) -> SourceError {
        SourceError::EfiVar(error)
    }
}

impl fmt::Display for EfiVarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EfiVarError::Mount { path, .. } => {
                write!(f, "mounting efivarfs on {}; is the kernel module efivarfs in the image?", path.display())
            }
            EfiVarError::Empty => {
                write!(f, "the EFI variable {NAME} is empty; write the output of imprint-host payload NODE --as efivar")
            }
            EfiVarError::Attributes(found) => write!(
                f,
                "the EFI variable {NAME} has the attributes {found:#x} instead of {ATTRIBUTES:#x} (non-volatile, with boot \
                 service and runtime access); write the whole output of imprint-host payload NODE --as efivar, which \
                 begins with four bytes of attributes"
            ),
        }
    }
}

impl std::error::Error for EfiVarError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            EfiVarError::Mount { source, .. } => Some(source),
            EfiVarError::Empty | EfiVarError::Attributes(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A root whose firmware has another variable, and ours if there are bytes for it.
    fn root(bytes: Option<&[u8]>) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(FOLDER);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c"), [7, 0, 0, 0, 0, 0]).unwrap();
        if let Some(bytes) = bytes {
            fs::write(folder.join(NAME), bytes).unwrap();
        }
        root
    }

    fn refused(bytes: &[u8]) -> String {
        find(root(Some(bytes)).path()).unwrap_err().to_string()
    }

    #[test]
    fn a_variable_without_its_attributes() {
        let root = root(Some(&[7, 0, 0, 0, 0xa1, 1, 1]));
        let found = find(root.path()).unwrap().unwrap();
        assert_eq!(found.bytes.expose(), [0xa1, 1, 1]);
        assert_eq!(found.origin.to_string(), format!("efivar {NAME}"));
    }

    #[test]
    fn a_machine_without_the_variable_or_without_efi() {
        assert!(find(root(None).path()).unwrap().is_none());
        assert!(find(tempfile::tempdir().unwrap().path()).unwrap().is_none());
    }

    /// Without this check, the first bytes of a payload would be taken for attributes and cut off.
    #[test]
    fn a_variable_that_is_short() {
        for short in [&[][..], &[7], &[7, 0, 0], &[7, 0, 0, 0]] {
            assert!(refused(short).starts_with(&format!("the EFI variable {NAME} is empty; ")), "{short:?}");
        }
    }

    /// A boot loader's variable that is lost after this boot, one that the kernel cannot write, and one that has a key.
    #[test]
    fn a_variable_with_other_attributes() {
        for (attributes, shown) in [(0x6, "0x6"), (0x3, "0x3"), (0x27, "0x27"), (0, "0x0"), (0x0101_01a1, "0x10101a1")]
        {
            let bytes = [&u32::to_le_bytes(attributes)[..], &[0xa1, 1, 1]].concat();
            let want = format!("the EFI variable {NAME} has the attributes {shown} instead of 0x7 (non-volatile, ");
            assert!(refused(&bytes).starts_with(&want), "{}", refused(&bytes));
        }
    }

    #[test]
    fn a_variable_that_is_long() {
        let bytes = |length| [&[7, 0, 0, 0][..], &vec![0; length]].concat();
        assert_eq!(find(root(Some(&bytes(MAX_LEN))).path()).unwrap().unwrap().bytes.expose().len(), MAX_LEN);
        assert!(refused(&bytes(MAX_LEN + 1)).contains("the most that a payload can have"));
    }

    #[test]
    fn what_is_no_file_is_no_variable() {
        let root = root(None);
        fs::create_dir(root.path().join(FOLDER).join(NAME)).unwrap();
        assert!(matches!(find(root.path()), Err(SourceError::Read { .. })));
    }
}
