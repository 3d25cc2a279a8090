//! What `--add SOURCE:DESTINATION` puts into an image: a file, a link, or a folder with all below it. Everything belongs to root in
//! the image, with the permissions that it has here, but for setuid and setgid: what another user's file may do here is nothing that root's
//! may do there. Decides nothing about what is in there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::error::{ImageError, failed};
use crate::cpio::{Node, Tree};

/// An argument of `--add`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Added {
    source: PathBuf,
    destination: String,
}

impl Added {
    /// `SOURCE:DESTINATION`. The source may have colons, the destination none.
    pub fn parse(text: &str) -> Result<Added, ImageError> {
        match text.rsplit_once(':') {
            Some((source, destination)) if !source.is_empty() && destination.starts_with('/') => {
                Ok(Added { source: source.into(), destination: destination.to_owned() })
            }
            _ => Err(ImageError::Add(text.to_owned())),
        }
    }

    /// Puts it in. Returns whether something is there that not everybody may read on this machine.
    pub(super) fn put(&self, tree: &mut Tree) -> Result<bool, ImageError> {
        // A source that is a link stands for its target; links below a folder stay links.
        let source = fs::canonicalize(&self.source).map_err(failed("finding", &self.source))?;
        put(&source, self.destination.trim_end_matches('/'), tree)
    }
}

fn put(source: &Path, destination: &str, tree: &mut Tree) -> Result<bool, ImageError> {
    let found = fs::symlink_metadata(source).map_err(failed("finding", source))?;
    let mode = found.permissions().mode() & 0o7777;
    if found.is_file() {
        let bytes = fs::read(source).map(Zeroizing::new).map_err(failed("reading", source))?;
        tree.put(destination, mode & 0o777, Node::File(bytes))?;
        return Ok(mode & 0o004 == 0);
    }
    if found.is_symlink() {
        let leads = fs::read_link(source).map_err(failed("reading", source))?;
        let leads = leads.into_os_string().into_string().map_err(|_| ImageError::AddName(source.to_owned()))?;
        tree.put(destination, 0o777, Node::Link(leads))?;
        return Ok(false);
    }
    if !found.is_dir() {
        return Err(ImageError::AddKind(source.to_owned()));
    }
    // The folder `/` of the image is there.
    if !destination.is_empty() {
        tree.put(destination, mode & 0o1777, Node::Directory)?;
    }
    let mut private = mode & 0o005 != 0o005;
    for entry in fs::read_dir(source).map_err(failed("reading", source))? {
        let entry = entry.map_err(failed("reading", source))?;
        let name = entry.file_name().into_string().map_err(|_| ImageError::AddName(entry.path()))?;
        private |= put(&entry.path(), &format!("{destination}/{name}"), tree)?;
    }
    Ok(private)
}
