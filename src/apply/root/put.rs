//! Writes the entries of a bundle into a tree whose directories are covered, and compares what is there afterwards. Never follows a
//! link: the last name of a path is replaced, and those before it are directories.

use std::fs::{self, DirBuilder, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown, symlink};
use std::path::Path;

use super::{RootError, full_or};
use crate::bundle::{Content, Entry};

/// Writes one entry, and the directories above it that are missing.
pub(super) fn put(tree: &Path, entry: &Entry) -> Result<(), RootError> {
    parents(tree, entry)?;
    let path = tree.join(entry.path.as_str());
    let failed = |source| full_or(source, "writing", &path);
    let there = metadata(&path).map_err(failed)?;
    let in_the_way = |has, wants| Err(RootError::InTheWay { path: entry.path.as_str().to_owned(), has, wants });
    match (&entry.content, there) {
        (Content::Directory, Some(there)) if !there.is_dir() => in_the_way("a file", "a directory"),
        (Content::Directory, Some(there)) if has_attributes(entry, &there) => Ok(()),
        (Content::Directory, there) => {
            let made = if there.is_some() { Ok(()) } else { DirBuilder::new().mode(0o700).create(&path) };
            made.and_then(|()| lchown(&path, Some(entry.uid), Some(entry.gid)))
                .and_then(|()| fs::set_permissions(&path, mode(entry)))
                .map_err(failed)
        }
        (_, Some(there)) if there.is_dir() => in_the_way("a directory", "a file"),
        (content, there) => {
            let removed = if there.is_some() { fs::remove_file(&path) } else { Ok(()) };
            removed
                .and_then(|()| match content {
                    Content::Link(to) => {
                        symlink(to, &path).and_then(|()| lchown(&path, Some(entry.uid), Some(entry.gid)))
                    }
                    Content::File(bytes) => file(&path, entry, bytes.expose()),
                    Content::Directory => Ok(()),
                })
                .map_err(failed)
        }
    }
}

/// Compares what is in the tree with the entry.
pub(super) fn check(tree: &Path, entry: &Entry) -> Result<(), RootError> {
    let path = tree.join(entry.path.as_str());
    let same = (|| {
        let Some(there) = metadata(&path)? else { return Ok(false) };
        Ok::<_, io::Error>(match &entry.content {
            Content::Directory => there.is_dir() && has_attributes(entry, &there),
            Content::Link(to) => there.is_symlink() && fs::read_link(&path)? == Path::new(to),
            Content::File(bytes) => {
                there.is_file() && has_attributes(entry, &there) && has_bytes(&path, bytes.expose())?
            }
        })
    })();
    match same {
        Ok(true) => Ok(()),
        Ok(false) => Err(RootError::Differs(entry.path.clone())),
        Err(source) => Err(full_or(source, "reading", &path)),
    }
}

/// Compares piece by piece: no copy of a secret is left in memory that is not wiped.
fn has_bytes(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let (mut file, mut rest) = (fs::File::open(path)?, bytes);
    let mut piece = zeroize::Zeroizing::new([0; 4096]);
    loop {
        let read = file.read(&mut *piece)?;
        let Some((same, more)) = rest.split_at_checked(read) else { return Ok(false) };
        match piece.get(..read) {
            _ if read == 0 => return Ok(more.is_empty()),
            Some(found) if found == same => rest = more,
            _ => return Ok(false),
        }
    }
}

fn parents(tree: &Path, entry: &Entry) -> Result<(), RootError> {
    let path = entry.path.as_str();
    for (end, _) in path.match_indices('/') {
        let part = path.get(..end).unwrap_or_default();
        let place = tree.join(part);
        let failed = |source| full_or(source, "making", &place);
        match metadata(&place).map_err(failed)? {
            Some(there) if there.is_dir() => {}
            Some(_) => return Err(RootError::InTheWay { path: part.to_owned(), has: "a file", wants: "a directory" }),
            None => DirBuilder::new()
                .create(&place)
                .and_then(|()| fs::set_permissions(&place, Permissions::from_mode(0o755))) // whatever the umask
                .map_err(failed)?,
        }
    }
    Ok(())
}

fn file(path: &Path, entry: &Entry, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    fchown(&file, Some(entry.uid), Some(entry.gid))?;
    // Last: a change of the owner takes bits away.
    file.set_permissions(mode(entry))
}

fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        metadata => metadata.map(Some),
    }
}

fn mode(entry: &Entry) -> Permissions {
    Permissions::from_mode(u32::from(entry.mode))
}

fn has_attributes(entry: &Entry, there: &Metadata) -> bool {
    let wanted = (u32::from(entry.mode), entry.uid, entry.gid);
    (there.mode() & 0o7777, there.uid(), there.gid()) == wanted
}
