//! Finds the directories of a root that have to be covered, so that a bundle's entries can be laid over it. Reads the tree, and
//! never writes to it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{RootError, full_or};
use crate::bundle::{Entry, EntryPath};

/// The deepest directory of each entry that the root has, without those that are below another one of the same mount. Parents stand
/// before what is below them. `mounts`: what is mounted in the tree.
pub(super) fn directories(tree: &Path, entries: &[Entry], mounts: &[String]) -> Result<Vec<String>, RootError> {
    let mut found = BTreeSet::new();
    for entry in entries {
        found.insert(holder(tree, &entry.path)?);
    }
    let is_covered = |directory: &String| {
        let others = found.iter().filter(|other| is_below(directory, other));
        others.into_iter().any(|other| mount_of(directory, mounts) == mount_of(other, mounts))
    };
    Ok(found.iter().filter(|directory| !is_covered(directory)).cloned().collect())
}

/// The mount points below a directory that are below no other one there.
pub(super) fn outermost(directory: &str, mounts: &[String]) -> Vec<String> {
    let below: Vec<&String> = mounts.iter().filter(|point| is_below(point, directory)).collect();
    let is_inner = |point: &&String| below.iter().any(|other| is_below(point, other));
    below.iter().copied().filter(|point| !is_inner(point)).cloned().collect()
}

/// The deepest directory on the path of an entry that the root has; the entry itself does not count.
fn holder(tree: &Path, path: &EntryPath) -> Result<String, RootError> {
    let mut directory = String::new();
    let (parents, _) = path.as_str().rsplit_once('/').unwrap_or_default();
    for name in parents.split('/').filter(|name| !name.is_empty()) {
        let next = if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
        let place = tree.join(&next);
        let metadata = match fs::symlink_metadata(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            metadata => metadata.map_err(|source| full_or(source, "reading", &place))?,
        };
        if metadata.is_symlink() {
            let to = fs::read_link(&place).map_err(|source| full_or(source, "reading", &place))?;
            return Err(RootError::Link { entry: path.clone(), link: next, to });
        }
        if !metadata.is_dir() {
            return Err(RootError::InTheWay { path: next, has: "a file", wants: "a directory" });
        }
        directory = next;
    }
    if directory.is_empty() { Err(RootError::NoDirectory(path.clone())) } else { Ok(directory) }
}

/// The device of the deepest directory on the way to a path. A directory that may not be entered ends the way, and so does what is
/// no directory.
pub(super) fn device(root: &Path, path: &str) -> Option<u64> {
    let (mut place, mut found) = (root.to_owned(), None);
    let (parents, _) = path.rsplit_once('/')?;
    for name in parents.split('/') {
        place.push(name);
        match fs::symlink_metadata(&place) {
            Ok(there) if there.is_dir() => found = Some(there.dev()),
            _ => break,
        }
    }
    found
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// The mount point that a directory is on; empty: that of the tree.
fn mount_of<'a>(directory: &str, mounts: &'a [String]) -> &'a str {
    let on = |point: &&String| *point == directory || is_below(directory, point);
    mounts.iter().filter(on).map(String::as_str).max_by_key(|point| point.len()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::bundle::Content;

    fn entries(paths: &[&str]) -> Vec<Entry> {
        let entry = |path: &&str| Entry {
            path: EntryPath::try_from(*path).unwrap(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            content: Content::Directory,
        };
        paths.iter().map(entry).collect()
    }

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for directory in ["etc/ssh", "etc/pki/tls", "etc-old", "usr/lib", "var/lib"] {
            fs::create_dir_all(tree.path().join(directory)).unwrap();
        }
        fs::write(tree.path().join("etc/hostname"), "image").unwrap();
        symlink("usr/lib", tree.path().join("lib")).unwrap();
        symlink("/run/other", tree.path().join("etc/ssh/away")).unwrap();
        tree
    }

    #[test]
    fn as_few_and_as_deep_as_can_be() {
        let tree = tree();
        let found = |paths: &[&str], mounts: &[&str]| {
            let mounts: Vec<String> = mounts.iter().map(ToString::to_string).collect();
            directories(tree.path(), &entries(paths), &mounts).unwrap()
        };
        assert_eq!(found(&["etc/ssh/keys/a", "var/lib/x/y/z"], &[]), ["etc/ssh", "var/lib"]);
        assert_eq!(found(&["etc/ssh/keys/a", "etc/hostname"], &[]), ["etc"]);
        assert_eq!(
            found(&["etc/hostname", "etc-old/x"], &[]),
            ["etc", "etc-old"],
            "a name that begins alike is not below"
        );
        // What has a mount of its own is not covered by an overlay of what is around it.
        assert_eq!(found(&["etc/ssh/a", "etc/x", "etc/pki/tls/b"], &["etc/pki"]), ["etc", "etc/pki/tls"]);
        assert_eq!(found(&["etc/ssh/a", "etc/x"], &["etc/pki"]), ["etc"]);
        assert_eq!(found(&[], &[]), [""; 0]);
    }

    #[test]
    fn only_the_outermost_mounts_are_put_aside() {
        let mounts = ["etc/pki", "etc/pki/tls", "etc-old", "etc/ssh"].map(ToOwned::to_owned);
        assert_eq!(outermost("etc", &mounts), ["etc/pki", "etc/ssh"]);
        assert_eq!(outermost("etc/pki", &mounts), ["etc/pki/tls"]);
    }

    /// Accident: /lib is a link on most systems. A file for lib/ would end up elsewhere, or a link could lead out of the root.
    #[test]
    fn a_link_on_the_way_is_refused_with_the_path_to_use() {
        let tree = tree();
        let refused = |path: &str| directories(tree.path(), &entries(&[path]), &[]).unwrap_err();
        let RootError::Link { link, to, .. } = refused("lib/modprobe.d/x.conf") else { panic!() };
        assert_eq!((link.as_str(), to.to_str()), ("lib", Some("usr/lib")));
        assert_eq!(
            refused("etc/ssh/away/x").to_string(),
            "the bundle has etc/ssh/away/x, and in the root etc/ssh/away is a symbolic link to /run/other; settings name \
             fixed paths, so make the bundle from files with the real path, imprint-host bundle make --from DIR"
        );
    }

    #[test]
    fn a_file_where_a_directory_must_be_and_no_directory_at_all() {
        let tree = tree();
        let refused = |path: &str| directories(tree.path(), &entries(&[path]), &[]).unwrap_err().to_string();
        assert_eq!(
            refused("etc/hostname/x"),
            "the bundle has a directory etc/hostname, and the root has a file there; make a bundle that fits this root"
        );
        assert!(refused("srv/www/x").starts_with("the bundle has srv/www/x, and the root has no directory"));
    }
}
