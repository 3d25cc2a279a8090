//! Reads the kernel command line and the image's own words (dracut), and decodes the base64url of `imprint.payload=`.
//! Whoever configures the boot loader vouches for the command line, and whoever built the image for the image's words.
//! Never interprets another option; `options` does that.

use std::io;
use std::path::{Path, PathBuf};

use base64ct::{Base64UrlUnpadded, Encoding};
use zeroize::Zeroizing;

use super::{Found, Origin, SourceError, file};
use crate::medium::Medium;
use crate::options::{CmdlinePayload, ImageWords, Text};
use crate::order;
use crate::payload::{Form, MAX_LEN};
use crate::secret::Secret;
use crate::shown::Printable;

/// The kernel command line. It may contain a payload, so it is wiped on drop. Bytes that are not UTF-8 become
/// replacement characters.
pub fn text(root: &Path) -> Result<Zeroizing<String>, SourceError> {
    let bytes = file::read(&root.join("proc/cmdline"))?;
    Ok(Zeroizing::new(String::from_utf8_lossy(bytes.expose()).into_owned()))
}

/// The folder and the file that dracut's getarg reads before the kernel command line.
const BEFORE: (&str, &str) = ("etc/cmdline.d", "etc/cmdline");
/// The folder that dracut's getarg reads after the kernel command line, from version 110 on.
const AFTER: &str = "run/initramfs/cmdline.d";

/// The words of the image: dracut's `kernel_cmdline=`, and the words that dracut modules add.
pub fn of_image(root: &Path) -> Result<ImageWords, SourceError> {
    let (folder, file) = BEFORE;
    let mut before = files(root, folder)?;
    before.push(PathBuf::from(file));
    Ok(ImageWords { before: texts(root, before)?, after: texts(root, files(root, AFTER)?)? })
}

/// `FOLDER/*.conf` as a shell expands it: sorted by bytes, without names that begin with a dot.
fn files(root: &Path, folder: &str) -> Result<Vec<PathBuf>, SourceError> {
    let path = root.join(folder);
    let failed = |source| SourceError::Read { path: path.clone(), source };
    let entries = match path.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".conf") && !bytes.starts_with(b".") {
            names.push(Path::new(folder).join(name));
        }
    }
    order::sort(&mut names, |one, other| one < other);
    Ok(names)
}

fn texts(root: &Path, files: Vec<PathBuf>) -> Result<Vec<Text>, SourceError> {
    // Reading anything but a regular file might block or never end. getarg finds no words there either.
    let files = files.into_iter().filter(|file| root.join(file).metadata().is_ok_and(|meta| meta.is_file()));
    let text = |file: PathBuf| {
        let bytes = file::read(&root.join(&file))?;
        let words = Zeroizing::new(String::from_utf8_lossy(bytes.expose()).into_owned());
        Ok(Text { path: Path::new("/").join(file), words })
    };
    files.map(text).collect()
}

/// Decodes the value of `imprint.payload=`.
pub fn find(payload: &CmdlinePayload) -> Result<Found, SourceError> {
    let text = payload.text.expose();
    // Hexadecimal digits are valid base64url, too, but would decode to nonsense.
    if let Some(form) = Form::of(text).filter(|form| *form != Form::Base64) {
        return Err(SourceError::Form(form));
    }
    let position = text.iter().position(|byte| !byte.is_ascii_alphanumeric() && !b"-_".contains(byte));
    let broken = || match position {
        None if payload.cut => SourceError::CmdlineCut,
        position => SourceError::Base64 { length: text.len(), position: position.map(|at| at.saturating_add(1)) },
    };
    if position.is_some() {
        return Err(broken());
    }
    // Four base64 characters encode three bytes.
    if text.len() / 4 > MAX_LEN / 3 {
        return Err(SourceError::TooLong("imprint.payload=".into(), None));
    }
    let mut bytes = Zeroizing::new(vec![0; text.len()]);
    let length = Base64UrlUnpadded::decode(text, &mut bytes).map(<[u8]>::len).map_err(|_| broken())?;
    bytes.truncate(length);
    let bytes = Secret::new(std::mem::take(&mut *bytes));
    let origin = Origin::Medium { medium: Medium::Cmdline, place: Printable::default() };
    Ok(Found { origin, bytes, cut: payload.cut, fresh: None })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// For these files dracut 111's getcmdline prints `d1 d2 etc PROC r1`.
    #[test]
    fn the_files_of_dracut_in_its_order() {
        let root = tempfile::tempdir().unwrap();
        let shown = |image: &ImageWords| {
            let all = image.before.iter().chain(&image.after);
            all.map(|text| format!("{} {}", text.path.display(), text.words.trim_end())).collect::<Vec<_>>()
        };
        assert!(shown(&of_image(root.path()).unwrap()).is_empty(), "an image without any of them");
        for (file, words) in [
            ("etc/cmdline.d/20-b.conf", "d2\n"),
            ("etc/cmdline.d/10-a.conf", "d1\n"),
            ("etc/cmdline.d/30-c.conf.rpmnew", "no\n"),
            ("etc/cmdline.d/.40-d.conf", "no\n"),
            ("etc/cmdline", "etc"),
            ("run/initramfs/cmdline.d/10-r.conf", "r1\n"),
        ] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, words).unwrap();
        }
        fs::create_dir(root.path().join("etc/cmdline.d/50-folder.conf")).unwrap();
        std::os::unix::fs::symlink("/nowhere", root.path().join("etc/cmdline.d/60-link.conf")).unwrap();
        assert_eq!(
            shown(&of_image(root.path()).unwrap()),
            [
                "/etc/cmdline.d/10-a.conf d1",
                "/etc/cmdline.d/20-b.conf d2",
                "/etc/cmdline etc",
                "/run/initramfs/cmdline.d/10-r.conf r1"
            ]
        );
        fs::remove_dir_all(root.path().join("etc/cmdline.d")).unwrap();
        fs::write(root.path().join("etc/cmdline.d"), "").unwrap();
        assert!(matches!(of_image(root.path()), Err(SourceError::Read { .. })), "broken is not absent");
    }
}
