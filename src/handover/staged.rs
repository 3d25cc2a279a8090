//! The bundle on its way from the check-in to the real root: `bundle.json`, which everybody may read, `private/bundle.tar`, the
//! plain tar on the memory file system of the key, and `applied`. Whoever fetched the bundle has verified it; this module never
//! does, and never looks into the tar.
//!
//! The order of the writes makes each state that a kill can leave a state that the next run understands: `bundle.json` appears after
//! the tar that it describes, and the tar goes after `applied` says that nobody needs it any more.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{HandoverError, PRIVATE, json, private_is_ours, put, remove};
use crate::secret::Secret;
use crate::trial;

/// What is known of a bundle besides its content.
pub const DESCRIPTION: &str = "bundle.json";
/// The counter of the bundle that the real root has.
pub const APPLIED: &str = "applied";
/// Which of the bundle's units were started.
const STARTED: &str = "started";
/// Which paths the bundle has laid over the root.
const LAID: &str = "laid";
/// A run has begun anew because the bundle before could not be laid over the root.
const ANEW: &str = "anew";
const TAR: &str = "bundle.tar";

/// Version of the schema of bundle.json. A new item does not change it; any other change does.
pub const VERSION: u32 = 1;

/// bundle.json
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Description {
    /// [`VERSION`]
    pub version: u32,
    /// Name of the node that the bundle is for.
    pub node: String,
    /// The counter that was signed.
    pub counter: u64,
    /// SHA-256 of the encrypted file, in hexadecimal.
    pub sha256: String,
    /// The code of the encrypted file, for people.
    pub code: String,
    /// Key id of the signer.
    pub signer: String,
    /// Who approved it.
    pub approver: String,
    /// When it was signed, RFC 3339 in UTC.
    pub signed: String,
    /// What the real root does with which unit: `["restart", "chrony.service"]`, in the order in which it does so.
    pub units: Vec<(String, String)>,
    /// Base URL of the configuration server, up to and including `/.well-known/imprint`.
    pub url: String,
}

/// A bundle that is described, and perhaps waits to be applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staged {
    /// What is known of it.
    pub description: Description,
    /// The counter of the bundle that the root has already.
    pub applied: Option<u64>,
}

impl Staged {
    /// Whether the root has this bundle.
    pub fn is_applied(&self) -> bool {
        self.applied == Some(self.description.counter)
    }
}

/// Leaves a bundle for `imprint apply`: the plain tar, and what is known of it. A bundle that waits there already is replaced.
/// The private folder has been made before; it is the key's.
pub fn write(directory: &Path, description: &Description, tar: &[u8]) -> Result<(), HandoverError> {
    private_is_ours(directory)?;
    // First, so that no description is ever beside the tar of another one; and the memory has room for one tar only.
    remove(&directory.join(DESCRIPTION))?;
    remove(&tar_of(directory))?;
    put(&directory.join(PRIVATE), TAR, tar, 0o600)?;
    trial::crash("tar");
    put(directory, DESCRIPTION, &json(description)?, 0o644)
}

/// What waits in the folder. `None`: no bundle was left there.
pub fn read(directory: &Path) -> Result<Option<Staged>, HandoverError> {
    let path = directory.join(DESCRIPTION);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|source| HandoverError::Read { path: path.clone(), source })?,
    };
    let damaged = |why| HandoverError::Damaged { path: path.clone(), why };
    let description: Description = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if description.version != VERSION {
        return Err(damaged(format!("version {}, this program knows version {VERSION}", description.version)));
    }
    Ok(Some(Staged { description, applied: number(directory, APPLIED)? }))
}

/// The plain tar that waits to be applied, of at most `limit` bytes.
pub fn tar(directory: &Path, limit: usize) -> Result<Secret, HandoverError> {
    private_is_ours(directory)?;
    let path = tar_of(directory);
    let failed = |source| HandoverError::Read { path: path.clone(), source };
    let file = fs::File::open(&path).map_err(failed)?;
    let size = usize::try_from(file.metadata().map_err(failed)?.len()).unwrap_or(usize::MAX);
    if size > limit {
        return Err(HandoverError::Damaged { path, why: format!("{size} bytes, at most {limit} are allowed") });
    }
    // A buffer that grows would leave copies of what it held behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size.saturating_add(1)));
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Secret::new(std::mem::take(&mut *bytes)))
}

/// Records that the root has the bundle, with these paths, and removes the tar.
pub fn applied<'a>(directory: &Path, counter: u64, paths: impl Iterator<Item = &'a str>) -> Result<(), HandoverError> {
    private_is_ours(directory)?;
    // No path has a line feed in it.
    let number = format!("{counter}\n");
    let lines: String = std::iter::once(number.as_str()).chain(paths.flat_map(|path| [path, "\n"])).collect();
    put(&directory.join(PRIVATE), LAID, lines.as_bytes(), 0o600)?;
    put(directory, APPLIED, format!("{counter}\n").as_bytes(), 0o644)?;
    remove_spent(directory)
}

/// Removes what nobody needs any more once the root has the bundle. A kill may have come before.
pub fn remove_spent(directory: &Path) -> Result<(), HandoverError> {
    remove(&directory.join(ANEW)).and(remove(&tar_of(directory)))
}

/// The paths that [`applied`] has recorded for this bundle.
pub fn laid(directory: &Path, counter: u64) -> Result<Vec<String>, HandoverError> {
    private_is_ours(directory)?;
    let path = directory.join(PRIVATE).join(LAID);
    let text = fs::read_to_string(&path).map_err(|source| HandoverError::Read { path: path.clone(), source })?;
    let mut lines = text.lines();
    if lines.next().and_then(|line| line.parse().ok()) != Some(counter) {
        return Err(HandoverError::Damaged { path, why: format!("it is not about bundle number {counter}") });
    }
    Ok(lines.map(ToOwned::to_owned).collect())
}

/// Records that the root does not have the bundle any more.
pub fn lost(directory: &Path) -> Result<(), HandoverError> {
    remove(&directory.join(APPLIED))
}

/// Whether a bundle is described that the root does not have. One whose description cannot be read counts.
pub(super) fn waits(directory: &Path) -> bool {
    directory.join(DESCRIPTION).exists()
        && !read(directory).is_ok_and(|left| left.is_some_and(|left| left.is_applied()))
}

/// Records that a run begins anew, and that the root is not to be entered before that run has completed.
pub(super) fn begin_anew(directory: &Path) -> Result<(), HandoverError> {
    put(directory, ANEW, b"", 0o644)
}

/// Whether [`begin_anew`] was called, and no bundle was laid over the root since.
pub fn is_anew(directory: &Path) -> bool {
    directory.join(ANEW).exists()
}

/// Which of the bundle's units were started, by their place in the manifest, as [`started`] has recorded it.
pub fn which_started(directory: &Path, counter: u64) -> Result<BTreeSet<usize>, HandoverError> {
    let path = directory.join(STARTED);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        text => text.map_err(|source| HandoverError::Read { path, source })?,
    };
    let mut words = text.split_whitespace();
    // That of another bundle says nothing about this one; nor does what cannot be read.
    let same = words.next().and_then(|word| word.parse().ok()) == Some(counter);
    Ok(words.filter(|_| same).filter_map(|word| word.parse().ok()).collect())
}

/// Records which of the bundle's units were started, so that nothing is started twice when the report has to be repeated.
pub fn started(directory: &Path, counter: u64, units: &BTreeSet<usize>) -> Result<(), HandoverError> {
    let units: String = units.iter().map(|unit| format!(" {unit}")).collect();
    put(directory, STARTED, format!("{counter}{units}\n").as_bytes(), 0o644)
}

/// Removes what an earlier run has left for `imprint apply`: it was never handed over.
pub(super) fn discard(directory: &Path) -> Result<(), HandoverError> {
    remove(&directory.join(DESCRIPTION)).and(remove(&tar_of(directory)))
}

fn tar_of(directory: &Path) -> PathBuf {
    directory.join(PRIVATE).join(TAR)
}

fn number(directory: &Path, name: &str) -> Result<Option<u64>, HandoverError> {
    let path = directory.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(HandoverError::Damaged { path, why: "not a number".to_owned() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HandoverError::Read { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn description(counter: u64) -> Description {
        Description {
            version: VERSION,
            node: "node1".to_owned(),
            counter,
            sha256: "00".repeat(32),
            code: "7K3M-Q0ZT-N4V8-XW1C".to_owned(),
            signer: "0123456789abcdef".to_owned(),
            approver: "alice".to_owned(),
            signed: "2026-11-23T00:00:00Z".to_owned(),
            units: vec![("restart".to_owned(), "chrony.service".to_owned())],
            url: "https://est.example.org:8443/.well-known/imprint".to_owned(),
        }
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(PRIVATE)).unwrap();
        folder
    }

    /// If this test fails, do not change it: you have changed version 1 of bundle.json.
    #[test]
    fn frozen_description() {
        let want = "{\n  \"version\": 1,\n  \"node\": \"node1\",\n  \"counter\": 7,\n  \"sha256\": \"ZEROS\",\n  \
                    \"code\": \"7K3M-Q0ZT-N4V8-XW1C\",\n  \"signer\": \"0123456789abcdef\",\n  \"approver\": \"alice\",\n  \
                    \"signed\": \"2026-11-23T00:00:00Z\",\n  \"units\": [\n    [\n      \"restart\",\n      \
                    \"chrony.service\"\n    ]\n  ],\n  \"url\": \"https://est.example.org:8443/.well-known/imprint\"\n}\n";
        let want = want.replace("ZEROS", &"00".repeat(32));
        assert_eq!(String::from_utf8(json(&description(7)).unwrap()).unwrap(), want);
        assert_eq!(serde_json::from_str::<Description>(&want).unwrap(), description(7));
    }

    #[test]
    fn what_is_left_is_found_and_gone_once_it_is_applied() {
        let folder = folder();
        let directory = folder.path();
        assert_eq!(read(directory).unwrap(), None);
        write(directory, &description(7), b"the tar").unwrap();
        let mode = |name: &str| fs::metadata(directory.join(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode("private/bundle.tar"), mode(DESCRIPTION)), (0o600, 0o644));
        let staged = read(directory).unwrap().unwrap();
        assert_eq!((staged.description.clone(), staged.applied), (description(7), None));
        assert!(!staged.is_applied());
        assert_eq!(tar(directory, 7).unwrap().expose(), b"the tar");
        applied(directory, 7, ["etc/a"].into_iter()).unwrap();
        assert_eq!((mode("private/laid"), laid(directory, 7).unwrap()), (0o600, vec!["etc/a".to_owned()]));
        assert!(matches!(laid(directory, 8), Err(HandoverError::Damaged { .. })), "of another bundle");
        assert!(!tar_of(directory).exists());
        assert!(read(directory).unwrap().unwrap().is_applied());
        // A newer one waits beside what the root has.
        write(directory, &description(8), b"another").unwrap();
        let staged = read(directory).unwrap().unwrap();
        assert_eq!((staged.applied, staged.is_applied()), (Some(7), false));
        assert_eq!(tar(directory, 7).unwrap().expose(), b"another");
    }

    /// Accident: a kill between two of the writes. No description is ever beside the tar of another bundle.
    #[test]
    fn a_tar_that_has_no_description_is_no_bundle() {
        let folder = folder();
        write(folder.path(), &description(7), b"the tar").unwrap();
        // The description's file cannot be written, as after a kill before it.
        fs::create_dir(folder.path().join(format!(".{DESCRIPTION}.new"))).unwrap();
        write(folder.path(), &description(8), b"another").unwrap_err();
        assert_eq!(read(folder.path()).unwrap(), None);
    }

    /// Attack: somebody who can write there has the root's next configuration come from elsewhere, or has a small machine run out
    /// of memory.
    #[test]
    fn what_imprint_did_not_write_is_refused() {
        let folder = folder();
        let directory = folder.path();
        write(directory, &description(7), b"the tar").unwrap();
        let error = tar(directory, 6).unwrap_err();
        assert!(
            matches!(&error, HandoverError::Damaged { why, .. } if why == "7 bytes, at most 6 are allowed"),
            "{error}"
        );
        for (text, want) in [("{}", "missing field"), ("", "EOF"), ("[]", "invalid")] {
            fs::write(directory.join(DESCRIPTION), text).unwrap();
            let error = read(directory).unwrap_err();
            assert!(matches!(&error, HandoverError::Damaged { why, .. } if why.contains(want)), "{error}");
        }
        let text =
            String::from_utf8(json(&description(7)).unwrap()).unwrap().replace("\"version\": 1", "\"version\": 2");
        fs::write(directory.join(DESCRIPTION), text).unwrap();
        let error = read(directory).unwrap_err();
        assert!(matches!(&error, HandoverError::Damaged { why, .. } if why.starts_with("version 2")), "{error}");
        fs::remove_dir_all(directory.join(PRIVATE)).unwrap();
        symlink("/tmp", directory.join(PRIVATE)).unwrap();
        let error = tar(directory, 7).unwrap_err();
        assert!(matches!(&error, HandoverError::NotOurs { .. }), "{error}");
        assert!(matches!(write(directory, &description(7), b"x"), Err(HandoverError::NotOurs { .. })));
    }

    /// A report that did not reach the server is repeated; what it reports is not done again.
    #[test]
    fn units_of_another_bundle_do_not_count() {
        let folder = folder();
        let none = BTreeSet::new();
        assert_eq!(which_started(folder.path(), 7).unwrap(), none);
        let some = BTreeSet::from([0, 2]);
        started(folder.path(), 7, &some).unwrap();
        assert_eq!(which_started(folder.path(), 7).unwrap(), some);
        assert_eq!(which_started(folder.path(), 8).unwrap(), none);
        fs::write(folder.path().join(STARTED), "garbage").unwrap();
        assert_eq!(which_started(folder.path(), 7).unwrap(), none);
    }
}
