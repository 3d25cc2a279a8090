//! Which network there is before a payload: that of the file in the image, or that of the kernel command line. Reads one file, and
//! changes nothing.

use std::io::ErrorKind;
use std::path::Path;

use crate::options::Options;
use crate::payload::{Link, MAX_LEN};
use crate::source::SourceError;

/// The file of the image, below the root.
pub const PATH: &str = "imprint/network";

/// The links of the image, or else of the kernel command line; none: the machine's own choice. Beside them, what a person should
/// know.
pub fn links(options: &Options, root: &Path) -> Result<(Vec<Link>, Vec<String>), SourceError> {
    let path = root.join(PATH);
    let said = options.network.network(options.bootif.as_ref());
    let (of_words, mut notes) = (said.links, said.unused);
    let links = match std::fs::metadata(&path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => of_words,
        Err(source) => return Err(SourceError::Read { path, source }),
        Ok(meta) => {
            // Anything but a regular file might never end.
            if !meta.is_file() || meta.len() > u64::try_from(MAX_LEN).unwrap_or(u64::MAX) {
                return Err(SourceError::Read { path, source: std::io::Error::other("it is no file of that size") });
            }
            let bytes = std::fs::read(&path).map_err(|source| SourceError::Read { path: path.clone(), source })?;
            if !options.network.is_empty() {
                notes.push(format!("ip= is not used to look for a door: the image has /{PATH}"));
            }
            Link::decode_all(&bytes).map_err(|source| SourceError::Network { path, source })?
        }
    };
    Ok((links, notes))
}
