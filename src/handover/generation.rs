//! Certificate and key that change places with their successors in one step. Each pair is a generation: a folder of its
//! own, with the key in the private folder, where it stays in memory that is never swapped out.
//!
//! ```text
//! current -> .generation-2                  the one step: this link is replaced by rename(2)
//! cert.pem -> current/cert.pem              so are chain.pem and node.json
//! private/key.pem -> ../current/key.pem
//! .generation-2/cert.pem  chain.pem  node.json  key.pem -> ../private/key-2.pem
//! ```
//!
//! A hand-over writes plain files. The first renewal makes generation 1 of them and puts links in their places, whose
//! content is the same at every moment; only then does generation 2 take over.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::{CERT, CHAIN, HandoverError, KEY, NODE, PRIVATE, put, remove};

/// What points at the generation that counts.
const CURRENT: &str = "current";
const GENERATION: &str = ".generation-";

/// Makes a new generation, lets it take over, and removes the others after a while: whoever is on the way through the
/// links at the moment of the change still arrives.
pub(super) fn replace(
    directory: &Path,
    files: &[(&str, &[u8])],
    key: &[u8],
    grace: Duration,
) -> Result<(), HandoverError> {
    let number = match current(directory)? {
        Some(number) => number,
        None => adopt(directory)?,
    };
    // Also after a crash in the middle of this.
    for name in [CERT, CHAIN, NODE] {
        link(directory, name, &format!("{CURRENT}/{name}"))?;
    }
    link(&directory.join(PRIVATE), KEY, &format!("../{CURRENT}/{KEY}"))?;
    let next = number.wrapping_add(1);
    make(directory, next, files, key)?;
    link(directory, CURRENT, &format!("{GENERATION}{next}"))?;
    std::thread::sleep(grace);
    remove_others(directory, Some(next))
}

/// Removes `current` and every generation.
pub(super) fn remove_all(directory: &Path) -> Result<(), HandoverError> {
    remove(&directory.join(CURRENT))?;
    remove_others(directory, None)
}

fn current(directory: &Path) -> Result<Option<u32>, HandoverError> {
    let path = directory.join(CURRENT);
    let number = |to: &Path| to.to_str()?.strip_prefix(GENERATION)?.parse().ok();
    match fs::read_link(&path) {
        Ok(to) => match number(&to) {
            Some(number) => Ok(Some(number)),
            None => Err(HandoverError::Damaged { path, why: format!("it points at {}", to.display()) }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HandoverError::Read { path, source }),
    }
}

/// Makes the first generation of the plain files that a hand-over wrote.
fn adopt(directory: &Path) -> Result<u32, HandoverError> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read(&path).map_err(|source| HandoverError::Read { path, source })
    };
    let (cert, chain, node) = (read(CERT)?, read(CHAIN)?, read(NODE)?);
    let key = Zeroizing::new(read(&format!("{PRIVATE}/{KEY}"))?);
    make(directory, 1, &[(CERT, &cert), (CHAIN, &chain), (NODE, &node)], &key)?;
    link(directory, CURRENT, &format!("{GENERATION}1"))?;
    Ok(1)
}

fn make(directory: &Path, number: u32, files: &[(&str, &[u8])], key: &[u8]) -> Result<(), HandoverError> {
    let (folder, key_name) = (folder(directory, number), key_name(number));
    // Left over by a run that was killed.
    remove_one(directory, number)?;
    let failed = |source| HandoverError::Write { path: folder.clone(), source };
    DirBuilder::new().mode(0o755).create(&folder).map_err(failed)?;
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).map_err(failed)?; // whatever the umask
    for (name, bytes) in files {
        put(&folder, name, bytes, 0o644)?;
    }
    put(&directory.join(PRIVATE), &key_name, key, 0o600)?;
    link(&folder, KEY, &format!("../{PRIVATE}/{key_name}"))
}

/// Puts a symbolic link in the place of what has this name, in one step.
fn link(directory: &Path, name: &str, to: &str) -> Result<(), HandoverError> {
    let (path, temporary) = (directory.join(name), directory.join(format!(".{name}.new")));
    remove(&temporary)?;
    let made = symlink(to, &temporary).and_then(|()| fs::rename(&temporary, &path));
    made.map_err(|source| HandoverError::Write { path, source })
}

fn folder(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{GENERATION}{number}"))
}

fn key_name(number: u32) -> String {
    format!("key-{number}.pem")
}

fn remove_one(directory: &Path, number: u32) -> Result<(), HandoverError> {
    remove(&directory.join(PRIVATE).join(key_name(number)))?;
    let path = folder(directory, number);
    match fs::remove_dir_all(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(HandoverError::Write { path, source }),
        _ => Ok(()),
    }
}

/// Every generation but this one; private keys first.
fn remove_others(directory: &Path, keep: Option<u32>) -> Result<(), HandoverError> {
    let numbers = |folder: &Path, prefix: &str, suffix: &str| -> Vec<u32> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let number = |entry: fs::DirEntry| {
            entry.file_name().to_str()?.strip_prefix(prefix)?.strip_suffix(suffix)?.parse::<u32>().ok()
        };
        entries.filter_map(number).filter(|number| Some(*number) != keep).collect()
    };
    let keys = numbers(&directory.join(PRIVATE), "key-", ".pem");
    let folders = numbers(directory, GENERATION, "");
    keys.into_iter().chain(folders).try_for_each(|number| remove_one(directory, number))
}
