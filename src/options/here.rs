//! Decides which sources a run searches: those that the kernel command line names, those of `imprint run --source`, or
//! the default order; and which of them an initramfs leaves to the real root. Pure: never looks at a source.

use std::fmt;

use super::{Options, SourceName, WORDS, source};

/// Why a run has no source to search. This is not an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotHere {
    /// The kernel command line names sources, and `--source` names none of them.
    NotNamed,
    /// The only source is a file of the real root, and this is an initramfs.
    RealRoot,
}

impl Options {
    /// Decides where this run searches. `given`: the sources of `--source`, which replace the default order. If the
    /// kernel command line names sources, only those that it names as well count: the configuration of the boot loader
    /// has the last word. `imprint=auto` there holds for the sources that it names, and not for those of `--source`
    /// alone. In an initramfs the file of the real root is not there yet. It is left to the unit of the
    /// real root, so this run does not insist on a payload.
    pub fn here(&mut self, given: &[SourceName], initramfs: bool) -> Result<(), NotHere> {
        if !given.is_empty() {
            let named = |source: &&SourceName| self.sources.is_empty() || self.sources.contains(source);
            let sources: Vec<SourceName> = given.iter().filter(named).cloned().collect();
            if sources.is_empty() {
                return Err(NotHere::NotNamed);
            }
            self.boots_on &= !self.sources.is_empty();
            self.sources = sources;
        }
        if initramfs && self.sources.contains(&SourceName::RootFile) {
            self.sources.retain(|source| *source != SourceName::RootFile);
            self.left_to_root = true;
            if self.sources.is_empty() {
                return Err(NotHere::RealRoot);
            }
        }
        Ok(())
    }
}

/// Reads a source of `--source`, in the words of `imprint.source=`. The error says which words there are.
pub fn source_named(word: &str) -> Result<SourceName, String> {
    let want = WORDS.iter().find(|known| known.name == "imprint.source=").map_or("", |known| known.values);
    source(word, Some(word), want).map_err(|_| format!("want {want}"))
}

impl fmt::Display for NotHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotHere::NotNamed => {
                "imprint.source= on the kernel command line names other sources, and so nothing is searched here"
            }
            NotHere::RealRoot => "root-file is left to imprint-root.service in the real root",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(cmdline: &str, given: &[SourceName], initramfs: bool) -> Result<(Vec<SourceName>, bool), NotHere> {
        let mut options = Options::parse(cmdline).unwrap();
        options.here(given, initramfs).map(|()| (options.sources.clone(), options.insists()))
    }

    const ROOT_FILE: &[SourceName] = &[SourceName::RootFile];

    /// The accident: in an initramfs that path is another file, and the file of the real root is not there yet. An
    /// agent that insisted on the file would stop every boot.
    #[test]
    fn an_initramfs_leaves_the_file_to_the_real_root() {
        assert_eq!(here("imprint.source=root-file", &[], true), Err(NotHere::RealRoot));
        assert_eq!(here("imprint=require imprint.source=root-file", &[], true), Err(NotHere::RealRoot));
        assert_eq!(
            here("imprint.source=file imprint.source=root-file", &[], true),
            Ok((vec![SourceName::File], false)),
            "the payload may still come from the real root"
        );
        assert_eq!(here("imprint.source=file", &[], true), Ok((vec![SourceName::File], true)));
        assert_eq!(here("imprint.source=root-file", &[], false), Ok((ROOT_FILE.to_vec(), true)));
        assert_eq!(here("", &[], true), Ok((vec![], false)));
    }

    /// The accident: a file that was left on a disk must not replace the source that the boot loader names.
    #[test]
    fn the_command_line_has_the_last_word() {
        for cmdline in ["", "quiet", "imprint=require", "imprint.source=file imprint.source=root-file"] {
            assert_eq!(here(cmdline, ROOT_FILE, false), Ok((ROOT_FILE.to_vec(), true)), "{cmdline}");
        }
        assert_eq!(here("imprint.source=config-drive", ROOT_FILE, false), Err(NotHere::NotNamed));
        // The file is removed once it is used; whoever names it need not stop the boot after that.
        let auto = "imprint=auto imprint.source=root-file";
        assert_eq!(here(auto, ROOT_FILE, false), Ok((ROOT_FILE.to_vec(), false)));
        assert_eq!(here("imprint=auto", ROOT_FILE, false), Ok((ROOT_FILE.to_vec(), true)));
        let both = [SourceName::RootFile, SourceName::File];
        assert_eq!(here("imprint.source=file", &both, false), Ok((vec![SourceName::File], true)));
    }

    #[test]
    fn words_of_the_option_are_those_of_the_command_line() {
        assert_eq!(source_named("root-file"), Ok(SourceName::RootFile));
        assert_eq!(source_named("config-drive:LAB"), Ok(SourceName::ConfigDrive(Some("LAB".into()))));
        for wrong in ["", "rootfile", "/etc/imprint/payload", "root-file:x"] {
            assert!(source_named(wrong).unwrap_err().starts_with("want cmdline, file, "), "{wrong}");
        }
    }
}
