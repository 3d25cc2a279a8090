//! Words in files of the image, which count like those on the kernel command line, in dracut's order. Pure: never reads
//! a file.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::{CMDLINE_MAX, Options, OptionsError, words};

/// The files with words that dracut's getarg reads beside the kernel command line (modules.d/*base/dracut-lib.sh,
/// getcmdline). A word in a later text replaces the words of the same name in earlier texts: getarg, too, takes the last.
#[derive(Default)]
pub struct ImageWords {
    /// Texts whose words the kernel command line replaces.
    pub before: Vec<Text>,
    /// Texts whose words replace those of the kernel command line.
    pub after: Vec<Text>,
}

/// The words in one of these files.
pub struct Text {
    /// The path of the file in the image.
    pub path: PathBuf,
    /// The words; one may be a payload, so they are wiped.
    pub words: Zeroizing<String>,
}

impl Options {
    /// What the image and the kernel command line ask for together.
    pub fn with_image(image: &ImageWords, cmdline: &str) -> Result<Options, OptionsError> {
        let after: Vec<&str> = image.after.iter().map(|text| text.words.as_str()).collect();
        // A kernel command line of which no word is replaced stays as it is, with `--` and what follows it.
        let cmdline = match names(cmdline).iter().any(|name| after.iter().any(|text| names(text).contains(name))) {
            true => left_of(cmdline, &after),
            false => Zeroizing::new(cmdline.to_owned()),
        };
        let mut later = [&[cmdline.as_str()], &after[..]].concat();
        let mut kept = Vec::new();
        for text in image.before.iter().rev() {
            kept.push((text, left_of(&text.words, &later)));
            later.push(&text.words);
        }
        for (number, text) in image.after.iter().enumerate() {
            kept.push((text, left_of(&text.words, after.get(number.saturating_add(1)..).unwrap_or_default())));
        }
        // The kernel command line comes last: a payload that may be cut off is known by its place at the end.
        let mut all = Zeroizing::new(String::with_capacity(length(&kept).saturating_add(cmdline.len())));
        kept.iter().for_each(|(_, words)| all.push_str(words));
        all.push_str(&cmdline);
        let mut options = Options::parse(&all).map_err(|error| blame(error, &cmdline, &kept))?;
        let full = cmdline.trim_end().len() >= CMDLINE_MAX;
        if let Some(payload) = &mut options.payload {
            payload.cut &= full;
        }
        options.credentials.iter_mut().for_each(|credential| credential.cut &= full);
        Ok(options)
    }
}

/// Adds to an error the file that it is about. An error of the kernel command line alone stays as it is.
fn blame(error: OptionsError, cmdline: &str, kept: &[(&Text, Zeroizing<String>)]) -> OptionsError {
    if Options::parse(cmdline).is_err() {
        return error;
    }
    match kept.iter().find_map(|(text, words)| Options::parse(words).err().map(|source| (text, source))) {
        Some((text, source)) => OptionsError::InImage { path: text.path.clone(), source: Box::new(source) },
        None => error,
    }
}

/// The words of a text that no later text replaces, each followed by a blank.
fn left_of(text: &str, later: &[&str]) -> Zeroizing<String> {
    let later: Vec<String> = later.iter().flat_map(|text| names(text)).collect();
    // Each word grows by two quotes and a blank. The text is allocated once, because a string that grows leaves copies
    // of a payload behind.
    let mut left = Zeroizing::new(String::with_capacity(text.len().saturating_mul(2).saturating_add(3)));
    for word in words(text).0 {
        if !later.contains(&name(&word)) {
            left.push('"');
            left.push_str(&word);
            left.push_str("\" ");
        }
    }
    left
}

fn names(text: &str) -> Vec<String> {
    words(text).0.iter().map(|word| name(word)).collect()
}

/// The word up to its `=`.
fn name(word: &str) -> String {
    word.split('=').next().unwrap_or_default().to_owned()
}

fn length(kept: &[(&Text, Zeroizing<String>)]) -> usize {
    kept.iter().map(|(_, words)| words.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Mode, SourceName};

    fn text((path, words): &(&str, &str)) -> Text {
        Text { path: path.into(), words: Zeroizing::new((*words).to_owned()) }
    }

    fn parsed(before: &[(&str, &str)], cmdline: &str, after: &[(&str, &str)]) -> Result<Options, OptionsError> {
        let image = ImageWords { before: before.iter().map(text).collect(), after: after.iter().map(text).collect() };
        Options::with_image(&image, cmdline)
    }

    const PRESET: (&str, &str) = ("/etc/cmdline.d/10-default.conf", "imprint=require imprint.timeout=60\n");

    #[test]
    fn the_image_has_words_that_the_kernel_command_line_replaces() {
        let options = parsed(&[PRESET], "quiet", &[]).unwrap();
        assert_eq!((options.mode, options.timeout.as_secs()), (Mode::Require, 60));
        let options = parsed(&[PRESET], "imprint=auto quiet", &[]).unwrap();
        assert_eq!((options.mode, options.timeout.as_secs()), (Mode::Auto, 60));
        // A word of the image counts like one of the kernel command line.
        let named = ("/etc/cmdline.d/10-x.conf", "imprint.source=efivar");
        for (image, cmdline, insists) in
            [(named, "", true), (named, "imprint=auto", false), (("/etc/cmdline", "imprint=auto"), named.1, false)]
        {
            assert_eq!(parsed(&[image], cmdline, &[]).unwrap().insists(), insists, "{cmdline}");
        }
        // `imprint=off` in the image is replaced like any other word; on the kernel command line it wins.
        let off = ("/etc/cmdline", "imprint=off");
        assert_eq!(parsed(&[PRESET, off], "", &[]).unwrap().mode, Mode::Off);
        assert_eq!(parsed(&[off], "imprint=require", &[]).unwrap().mode, Mode::Require);
        assert_eq!(parsed(&[PRESET], "imprint=off", &[]).unwrap().mode, Mode::Off);
    }

    #[test]
    fn later_texts_go_before_earlier_ones() {
        let later = ("/etc/cmdline.d/20-mine.conf", "imprint.timeout=61");
        let run = ("/run/initramfs/cmdline.d/10-x.conf", "imprint.timeout=63 imprint.debug");
        for (before, cmdline, after, seconds) in [
            (&[PRESET, later][..], "", &[][..], 61),
            (&[later, PRESET], "", &[], 60),
            (&[PRESET, later], "imprint.timeout=62", &[], 62),
            (&[PRESET, later], "imprint.timeout=62 x -- y", &[run], 63),
            (&[], "", &[run, ("/run/initramfs/cmdline.d/20-x.conf", "imprint.timeout=64")], 64),
        ] {
            assert_eq!(parsed(before, cmdline, after).unwrap().timeout.as_secs(), seconds);
        }
    }

    /// Several words of one name are a list, and a later text replaces the whole list.
    #[test]
    fn sources_of_the_image_are_one_list() {
        let image = ("/etc/cmdline.d/10-x.conf", "imprint.source=file \"imprint.source=config-drive:MY DISK\"\n");
        let named = SourceName::ConfigDrive(Some("MY DISK".into()));
        assert_eq!(parsed(&[image], "quiet", &[]).unwrap().sources, [SourceName::File, named]);
        assert_eq!(parsed(&[image], "imprint.source=virtio", &[]).unwrap().sources, [SourceName::Virtio]);
    }

    #[test]
    fn an_error_names_the_file() {
        let wrong = ("/etc/cmdline.d/20-x.conf", "imprint.tiemout=3");
        let error = parsed(&[PRESET, wrong], "quiet", &[]).err().unwrap();
        assert_eq!(
            crate::chain::chain(&error),
            "/etc/cmdline.d/20-x.conf in this image counts as part of the kernel command line: unknown word \
             \"imprint.tiemout\" on the kernel command line; the nearest that is known is imprint.timeout="
        );
        let own = parsed(&[PRESET], "imprint.nonsense", &[]).err().unwrap();
        assert!(matches!(own, OptionsError::UnknownWord { .. }), "{own}");
        // A word twice in one file is an error of that file.
        let twice = ("/etc/cmdline", "imprint=auto imprint=require");
        assert!(matches!(parsed(&[twice], "", &[]).err().unwrap(), OptionsError::InImage { .. }));
        assert!(parsed(&[twice], "imprint=auto", &[]).is_ok(), "it was replaced");
        assert!(parsed(&[wrong], "imprint=off", &[]).is_ok(), "off is off");
    }

    /// Only the kernel command line has an end that boot loaders cut off.
    #[test]
    fn a_payload_of_the_image_is_not_cut() {
        let long = "x".repeat(CMDLINE_MAX);
        let image = ("/etc/cmdline.d/10-x.conf", "imprint.payload=oQEB");
        assert!(!parsed(&[image], &long, &[]).unwrap().payload.unwrap().cut);
        let padded = (image.0, format!("{long} imprint.payload=oQEB"));
        assert!(!parsed(&[(padded.0, &padded.1)], "quiet", &[]).unwrap().payload.unwrap().cut);
        let cmdline = format!("{} imprint.payload=oQEC", "x".repeat(CMDLINE_MAX - 21));
        let payload = parsed(&[image], &cmdline, &[]).unwrap().payload.unwrap();
        assert_eq!((payload.text.expose(), payload.cut), (&b"oQEC"[..], true));
    }

    proptest::proptest! {
        /// An image without words changes nothing.
        #[test]
        fn without_files_it_is_the_kernel_command_line(text in "(imprint=(auto|off)|imprint\\.debug| |\"|--|x=){0,12}") {
            proptest::prop_assert_eq!(Options::with_image(&ImageWords::default(), &text), Options::parse(&text));
        }
    }
}
