//! Replaces certificate and key in one step, the first pair and every later one. Each pair is a generation: a folder of
//! its own. The generation's key is a file in the private folder, which at boot is a memory file system that is never
//! swapped out. Never looks into a certificate or key.
//!
//! ```text
//! current -> .generation-2                  the one step: this link is replaced by rename(2)
//! cert.pem -> current/cert.pem              so are chain.pem, ca.pem, node.json and status.json
//! private/key.pem -> ../current/key.pem
//! .generation-2/cert.pem  chain.pem  ca.pem  node.json  status.json  key.pem -> ../private/key-2.pem
//! ```
//!
//! A new generation is written beside the current one, and synced to disk before the step. No name leads to it before
//! the step, so a crash leaves the current generation in use. The next run repeats what follows the step.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::crash;
use super::{CA, CERT, CHAIN, HandoverError, KEY, NODE, PRIVATE, READY, STATUS, discard, put, remove};

/// The link to the current generation.
pub(super) const CURRENT: &str = "current";
const GENERATION: &str = ".generation-";
/// The number of the generation of a run that found no identity.
pub(super) const FIRST: u32 = 1;
/// The files of a generation besides its key.
const FILES: [&str; 5] = [CERT, CHAIN, CA, NODE, STATUS];
/// The next `ready`, made before the step and renamed after it: a full disk then fails before the step, while nothing
/// has changed.
const READY_NEXT: &str = ".ready-next";

/// A new generation that is not yet the current one.
#[derive(Debug)]
pub(super) struct Beside {
    number: u32,
    /// The current generation; `None`: there is no identity.
    before: Option<u32>,
}

/// Writes a new generation. The current one stays current.
pub(super) fn write(directory: &Path, files: &[(&str, &[u8])], key: &[u8]) -> Result<Beside, HandoverError> {
    let before = adopt(directory)?;
    let number = free(directory, before.map_or(FIRST, |before| before.wrapping_add(1)));
    let beside = Beside { number, before };
    match make(directory, number, files, key) {
        Ok(()) => Ok(beside),
        Err(error) => Err(beside.removed(directory, error)),
    }
}

impl Beside {
    /// Adds a file to the new generation.
    pub(super) fn add(&self, directory: &Path, name: &str, bytes: &[u8]) -> Result<(), HandoverError> {
        put(&folder(directory, self.number), name, bytes, 0o644)
    }

    /// The step. The previous generation is removed after `grace`: a reader that is following the links during the step
    /// still finds its files. After an error one whole generation is current, the previous or the new one; or none, if
    /// there was none before.
    pub(super) fn switch(self, directory: &Path, grace: Duration) -> Result<(), HandoverError> {
        let number = self.number;
        if let Err(error) = lead_to(directory, number) {
            return Err(self.removed(directory, error));
        }
        if self.before.is_some() {
            std::thread::sleep(grace);
        }
        remove_others(directory, Some(number))
    }

    /// Removes the new generation, unless it has already replaced another one, and returns `error`. Errors of the
    /// removal are ignored: the first error is the one to report, and the next run removes what is left.
    pub(super) fn removed(self, directory: &Path, error: HandoverError) -> HandoverError {
        let counts = current(directory).ok().flatten() == Some(self.number);
        let _ = match (counts, self.before) {
            (_, None) => discard(directory),
            (false, Some(_)) => remove(&directory.join(READY_NEXT)).and_then(|()| remove_one(directory, self.number)),
            (true, Some(_)) => Ok(()),
        };
        error
    }
}

/// Repairs what a killed run left. Writes nothing if there is nothing to repair.
pub(super) fn settle(directory: &Path) -> Result<(), HandoverError> {
    let number = current(directory)?;
    let next = directory.join(READY_NEXT);
    if let Some(number) = number {
        lead_names(directory, number)?;
        // The run was killed around the step: programs that wait for `ready` may not have seen it.
        if next.exists() || !directory.join(READY).exists() {
            put(directory, READY, b"", 0o644)?;
        }
    }
    // A read-only file system refuses to remove even a file that does not exist.
    if next.exists() {
        remove(&next)?;
    }
    remove_others(directory, number)
}

/// Removes the names that lead through `current`, `current` itself and every generation; other files stay. Tries every
/// removal, and returns the first error.
pub(super) fn remove_all(directory: &Path) -> Result<(), HandoverError> {
    let names = FILES.map(|name| (directory.join(name), format!("{CURRENT}/{name}")));
    let key = (directory.join(PRIVATE).join(KEY), format!("../{CURRENT}/{KEY}"));
    let ours = |(path, to): &(PathBuf, String)| fs::read_link(path).is_ok_and(|there| there == Path::new(to));
    let names = names.into_iter().chain([key]).filter(ours).map(|(path, _)| path);
    let mut removed: Vec<_> = names.map(|path| remove(&path)).collect();
    removed.extend([CURRENT, READY_NEXT].map(|name| remove(&directory.join(name))));
    removed.push(remove_others(directory, None));
    removed.into_iter().collect()
}

/// The number of the current generation; `None`: there is none.
pub(super) fn current(directory: &Path) -> Result<Option<u32>, HandoverError> {
    let path = directory.join(CURRENT);
    let number = |to: &Path| to.to_str()?.strip_prefix(GENERATION)?.parse().ok();
    match fs::read_link(&path) {
        Ok(to) => match number(&to) {
            Some(number) => Ok(folder(directory, number).is_dir().then_some(number)),
            None => Err(HandoverError::NotOurs { path, what: "a link that imprint did not make" }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // readlink(2): EINVAL, not a link. A copy of the folder that followed all links has a folder there.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(HandoverError::NotOurs {
            path,
            what: "not a symbolic link, perhaps because the folder was copied with links followed",
        }),
        Err(source) => Err(HandoverError::Read { path, source }),
    }
}

/// The current generation, with every name leading to it. Plain files, as earlier versions handed them over, become the
/// first generation; a reader finds the same contents at every moment.
fn adopt(directory: &Path) -> Result<Option<u32>, HandoverError> {
    let number = match current(directory)? {
        Some(number) => number,
        None => {
            let Some((files, key)) = plain(directory)? else { return Ok(None) };
            let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
            let number = free(directory, FIRST);
            let made = make(directory, number, &files, &key)
                .and_then(|()| sync_all(directory, number))
                .and_then(|()| link(directory, CURRENT, &format!("{GENERATION}{number}")));
            if let Err(error) = made {
                let _ = remove_one(directory, number); // the first error is the one to report
                return Err(error);
            }
            number
        }
    };
    crash::point("adopted");
    lead_names(directory, number)?;
    Ok(Some(number))
}

/// Refuses a folder that holds certificates or keys but no complete identity: they may belong to somebody else.
pub(super) fn nothing_of_others(directory: &Path) -> Result<(), HandoverError> {
    if current(directory)?.is_some() || plain(directory)?.is_some() {
        return Ok(());
    }
    let mut names =
        [CERT, CHAIN, NODE].map(|name| directory.join(name)).into_iter().chain([directory.join(PRIVATE).join(KEY)]);
    // A dangling link does not count: a run that was killed before its step left it.
    match names.find(|path| path.exists()) {
        Some(path) => Err(HandoverError::NotOurs { path, what: "part of an incomplete identity" }),
        None => Ok(()),
    }
}

/// The first number, from this one on, that no generation and no key file has.
fn free(directory: &Path, number: u32) -> u32 {
    let taken = |number: u32| {
        let paths = [folder(directory, number), directory.join(PRIVATE).join(key_name(number))];
        paths.iter().any(|path| fs::symlink_metadata(path).is_ok())
    };
    let numbers = (0..=u32::MAX).map(|more| number.wrapping_add(more));
    numbers.into_iter().find(|number| !taken(*number)).unwrap_or(number)
}

type Plain = (Vec<(&'static str, Vec<u8>)>, Zeroizing<Vec<u8>>);

/// An identity in plain files; `None` when one of them is missing.
fn plain(directory: &Path) -> Result<Option<Plain>, HandoverError> {
    let read = |name: &str| {
        let path = directory.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(source) => Err(HandoverError::Read { path, source }),
        }
    };
    let mut files = Vec::new();
    for name in FILES {
        match read(name)? {
            Some(bytes) => files.push((name, bytes)),
            None if name == STATUS => {}
            None => return Ok(None),
        }
    }
    Ok(read(&format!("{PRIVATE}/{KEY}"))?.map(|key| (files, Zeroizing::new(key))))
}

fn make(directory: &Path, number: u32, files: &[(&str, &[u8])], key: &[u8]) -> Result<(), HandoverError> {
    let (folder, key_name) = (folder(directory, number), key_name(number));
    let failed = |source| HandoverError::Write { path: folder.clone(), source };
    // The folder is made before its key, because the folder shows that the key is imprint's to remove.
    DirBuilder::new().mode(0o755).create(&folder).map_err(failed)?;
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).map_err(failed)?; // whatever the umask
    put(&directory.join(PRIVATE), &key_name, key, 0o600)?;
    crash::point("key");
    for (name, bytes) in files {
        put(&folder, name, bytes, 0o644)?;
    }
    link(&folder, KEY, &format!("../{PRIVATE}/{key_name}"))
}

/// The part of [`Beside::switch`] before the previous generation is removed.
fn lead_to(directory: &Path, number: u32) -> Result<(), HandoverError> {
    put(directory, READY_NEXT, b"", 0o644)?;
    sync_all(directory, number)?;
    crash::point("beside");
    // If there is no previous generation, the names dangle until the step, which is like having no files.
    lead_names(directory, number)?;
    crash::point("linked");
    link(directory, CURRENT, &format!("{GENERATION}{number}"))?;
    crash::point("switched");
    let ready = directory.join(READY);
    fs::rename(directory.join(READY_NEXT), &ready)
        .map_err(|source| HandoverError::Write { path: ready.clone(), source })?;
    // The step must be on disk before the previous generation is removed.
    sync(directory)?;
    crash::point("ready");
    Ok(())
}

/// Makes every name a link through `current`. Generation `number` gets copies of the plain files that it lacks:
/// generations of earlier versions had neither ca.pem nor status.json.
fn lead_names(directory: &Path, number: u32) -> Result<(), HandoverError> {
    let folder = folder(directory, number);
    for name in FILES {
        if !folder.join(name).exists()
            && let Ok(bytes) = fs::read(directory.join(name))
        {
            put(&folder, name, &bytes, 0o644)?;
        }
        link(directory, name, &format!("{CURRENT}/{name}"))?;
    }
    link(&directory.join(PRIVATE), KEY, &format!("../{CURRENT}/{KEY}"))
}

/// Replaces whatever has this name by a symbolic link, in one step.
fn link(directory: &Path, name: &str, to: &str) -> Result<(), HandoverError> {
    let (path, temporary) = (directory.join(name), directory.join(format!(".{name}.new")));
    match fs::read_link(&path) {
        Ok(there) if there == Path::new(to) => return Ok(()),
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            return Err(HandoverError::Read { path, source });
        }
        _ => {}
    }
    remove(&temporary)?;
    let made = symlink(to, &temporary).and_then(|()| fs::rename(&temporary, &path));
    if made.is_err() {
        let _ = remove(&temporary); // the first error is the one to report
    }
    made.map_err(|source| HandoverError::Write { path, source })
}

/// Syncs a generation to disk, where there is one, before anything later is written.
fn sync_all(directory: &Path, number: u32) -> Result<(), HandoverError> {
    let (folder, private) = (folder(directory, number), directory.join(PRIVATE));
    FILES.iter().map(|name| folder.join(name)).filter(|path| path.exists()).try_for_each(|path| sync(&path))?;
    [&private.join(key_name(number)), &folder, &private, directory].into_iter().try_for_each(sync)
}

fn sync(path: impl AsRef<Path>) -> Result<(), HandoverError> {
    match fs::File::open(&path).and_then(|file| file.sync_all()) {
        // fsync(2): EINVAL, this file cannot be synced, because it is on no disk.
        Err(source) if source.kind() != io::ErrorKind::InvalidInput => {
            Err(HandoverError::Write { path: path.as_ref().to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn folder(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{GENERATION}{number}"))
}

fn key_name(number: u32) -> String {
    format!("key-{number}.pem")
}

fn remove_one(directory: &Path, number: u32) -> Result<(), HandoverError> {
    let (private, key) = (directory.join(PRIVATE), key_name(number));
    remove(&private.join(format!(".{key}.new")))?; // left by a run that was killed while writing it
    remove(&private.join(key))?;
    let path = folder(directory, number);
    match fs::remove_dir_all(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(HandoverError::Write { path, source }),
        _ => Ok(()),
    }
}

/// Removes every generation except `keep`, with its key.
fn remove_others(directory: &Path, keep: Option<u32>) -> Result<(), HandoverError> {
    let number = |name: &str| name.strip_prefix(GENERATION)?.parse().ok();
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let numbers: Vec<u32> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    let others = numbers.into_iter().filter(|number| Some(*number) != keep);
    others.into_iter().try_for_each(|number| remove_one(directory, number))
}
