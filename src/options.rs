//! Kernel command line words → [`Options`]. One published table, one parser; reads no file.

use std::fmt;
use std::time::Duration;

use crate::payload::HardwareAddress;

/// What the operator asked for on the kernel command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Whether a payload is looked for, and whether there must be one.
    pub mode: Mode,
    /// `imprint.source=`, in order; empty: the default order.
    pub sources: Vec<SourceName>,
    /// `imprint.timeout=`: how long a required payload is waited for, and how long all that follows may take.
    pub timeout: Duration,
    /// `imprint.debug`: more on the console.
    pub debug: bool,
    /// `BOOTIF=`, as PXELINUX and iPXE write it.
    pub bootif: Option<HardwareAddress>,
}

/// `imprint=`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Look at every device that udevd finds, and a moment longer; boot on without a payload. The default.
    Auto,
    /// Wait until the timeout; stop the boot without a payload.
    Require,
    /// Do nothing.
    Off,
}

/// A source that `imprint.source=` names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceName {
    /// `config-drive[:LABEL]`
    ConfigDrive(Option<String>),
}

/// Why the command line cannot be followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OptionsError {
    /// Not in the table.
    UnknownWord {
        /// As it stands on the command line.
        word: String,
        /// The nearest word of the table.
        nearest: &'static str,
    },
    /// In the table, but not in this version.
    NotYet(String),
    /// A value that the word does not take.
    Value {
        /// As it stands on the command line.
        word: String,
        /// What the word takes.
        want: &'static str,
    },
    /// A word that may stand once stands twice, with different values.
    Twice(&'static str),
}

/// One row of the published table.
pub struct Word {
    /// Up to and without the `=`.
    pub name: &'static str,
    /// What it takes.
    pub values: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// Every word of the kernel command line that imprint knows.
pub const WORDS: [Word; 9] = [
    Word {
        name: "imprint",
        values: "auto, require or off",
        meaning: "look for a payload (auto), insist on one, or do nothing",
    },
    Word {
        name: "imprint.source",
        values: "config-drive or config-drive:LABEL",
        meaning: "look here only; repeatable, in order",
    },
    Word {
        name: "imprint.timeout",
        values: "1 to 86400 seconds",
        meaning: "how long to wait for a required payload, and for all that follows it (300)",
    },
    Word { name: "imprint.debug", values: "nothing", meaning: "say more on the console" },
    Word {
        name: "imprint.payload",
        values: "the payload in base64url",
        meaning: "the payload itself (not in this version)",
    },
    Word {
        name: "imprint.approval-timeout",
        values: "seconds",
        meaning: "how long to wait for an administrator (not in this version)",
    },
    Word {
        name: "imprint.line",
        values: "plain",
        meaning: "accept an unsealed payload from a serial line (not in this version)",
    },
    Word {
        name: "imprint.next",
        values: "a command",
        meaning: "what the bare image starts next (not in this version)",
    },
    Word {
        name: "BOOTIF",
        values: "01-52-54-00-12-34-56",
        meaning: "the link that the machine booted from; set by the boot loader",
    },
];

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

impl Options {
    /// Parses a kernel command line as the kernel splits it (lib/cmdline.c, next_arg): blanks separate words, double
    /// quotes keep them together, and what follows `--` belongs to init.
    pub fn parse(cmdline: &str) -> Result<Options, OptionsError> {
        let words = words(cmdline);
        // Off is off, whatever else is said.
        let off = words.iter().any(|word| word == "imprint=off");
        let (mut mode, mut timeout, mut bootif) = (off.then_some(Mode::Off), None, None);
        let mut sources = Vec::new();
        let mut debug = false;
        for word in words.into_iter().filter(|_| !off) {
            let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(n, v)| (n, Some(v)));
            let bad = |want| OptionsError::Value { word: shown(&word), want };
            match name {
                "imprint" => {
                    let given = match value {
                        Some("auto") => Mode::Auto,
                        Some("require") => Mode::Require,
                        Some("off") => Mode::Off,
                        _ => return Err(bad("auto, require or off")),
                    };
                    once(&mut mode, given, "imprint")?;
                }
                "imprint.source" => sources.push(source(&word, value)?),
                "imprint.timeout" => {
                    let seconds = value.and_then(|text| text.parse().ok()).filter(|n| (1..=86_400).contains(n));
                    once(&mut timeout, seconds.ok_or(bad("1 to 86400 seconds"))?, "imprint.timeout")?;
                }
                "imprint.debug" => match value {
                    None => debug = true,
                    Some(_) => return Err(bad("no value")),
                },
                "BOOTIF" => {
                    // PXELINUX: the ARP hardware type, 01 for Ethernet and 20 for InfiniBand, before the address. It is
                    // the boot loader's word, so one that cannot be read names no link and stops no boot.
                    let text = value.and_then(|text| text.split_at_checked(3)).map(|(_, mac)| mac);
                    bootif = text.and_then(HardwareAddress::parse);
                }
                name if name.starts_with("imprint.") => {
                    if WORDS.iter().any(|known| known.name == name) {
                        return Err(OptionsError::NotYet(name.to_owned()));
                    }
                    return Err(OptionsError::UnknownWord { word: shown(&word), nearest: nearest(name) });
                }
                _ => {}
            }
        }
        Ok(Options {
            mode: mode.unwrap_or(Mode::Auto),
            sources,
            timeout: timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
            debug,
            bootif,
        })
    }

    /// Whether a boot without a payload is an error: required, or a source was named.
    pub fn insists(&self) -> bool {
        self.mode == Mode::Require || !self.sources.is_empty()
    }
}

fn once<T: PartialEq>(slot: &mut Option<T>, value: T, name: &'static str) -> Result<(), OptionsError> {
    match slot {
        // Boot loaders append to what is there; the same word twice does no harm.
        Some(before) if *before != value => Err(OptionsError::Twice(name)),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn source(word: &str, value: Option<&str>) -> Result<SourceName, OptionsError> {
    let value = value.unwrap_or_default();
    let (kind, rest) = value.split_once(':').map_or((value, None), |(kind, rest)| (kind, Some(rest)));
    match (kind, rest) {
        ("config-drive", None) => Ok(SourceName::ConfigDrive(None)),
        // ISO 9660 volume identifiers have 32 characters (ECMA-119 §8.4.8).
        ("config-drive", Some(label)) if (1..=32).contains(&label.len()) => {
            Ok(SourceName::ConfigDrive(Some(label.to_owned())))
        }
        ("cmdline" | "file" | "virtio", None) | ("serial", Some(_)) => Err(OptionsError::NotYet(shown(word))),
        _ => Err(OptionsError::Value { word: shown(word), want: "config-drive or config-drive:LABEL" }),
    }
}

/// Splits as the kernel does. A quote that is not closed runs to the end.
fn words(cmdline: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in cmdline.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_ascii_whitespace() && !quoted => {
                if word == "--" {
                    return words;
                }
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() && word != "--" {
        words.push(word);
    }
    words
}

/// Hostile text must neither flood nor drive the console it is printed on.
fn shown(word: &str) -> String {
    word.chars().take(80).flat_map(char::escape_default).collect()
}

/// The word of the table that shares the longest beginning, the shorter one first.
fn nearest(name: &str) -> &'static str {
    let shared = |word: &Word| word.name.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
    WORDS
        .iter()
        .max_by_key(|word| (shared(word), std::cmp::Reverse(word.name.len())))
        .map_or("imprint", |word| word.name)
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionsError::UnknownWord { word, nearest } => {
                write!(f, "unknown word \"{word}\" on the kernel command line; the nearest that is known is {nearest}")
            }
            OptionsError::NotYet(word) => {
                write!(f, "\"{word}\" on the kernel command line is not supported by this version; remove it")
            }
            OptionsError::Value { word, want } => {
                write!(f, "\"{word}\" on the kernel command line: want {want}")
            }
            OptionsError::Twice(name) => {
                write!(f, "{name}= stands twice on the kernel command line, with different values; remove one")
            }
        }
    }
}

impl std::error::Error for OptionsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_auto() {
        let options = Options::parse("BOOT_IMAGE=/vmlinuz root=LABEL=x quiet ro").unwrap();
        assert_eq!(options.mode, Mode::Auto);
        assert_eq!(options.timeout.as_secs(), 300);
        assert!(!options.insists() && !options.debug && options.bootif.is_none());
    }

    #[test]
    fn every_word() {
        let options = Options::parse(
            "imprint=require imprint.source=config-drive imprint.source=\"config-drive:MY DISK\" imprint.timeout=5 \
             imprint.debug BOOTIF=01-52-54-00-12-34-56 -- imprint=off\n",
        )
        .unwrap();
        assert_eq!(options.mode, Mode::Require);
        let named = SourceName::ConfigDrive(Some("MY DISK".into()));
        assert_eq!(options.sources, [SourceName::ConfigDrive(None), named]);
        assert_eq!(options.timeout.as_secs(), 5);
        assert!(options.debug);
        assert_eq!(options.bootif.unwrap().to_string(), "52:54:00:12:34:56");
    }

    #[test]
    fn a_named_source_is_waited_for() {
        assert!(Options::parse("imprint.source=config-drive").unwrap().insists());
    }

    #[test]
    fn errors_name_the_word() {
        for (cmdline, want) in [
            (
                "imprint.tiemout=3",
                "unknown word \"imprint.tiemout=3\" on the kernel command line; the nearest that is known is \
                 imprint.timeout",
            ),
            ("imprint", "\"imprint\" on the kernel command line: want auto, require or off"),
            ("imprint=on", "\"imprint=on\" on the kernel command line: want auto, require or off"),
            ("imprint.timeout=0", "\"imprint.timeout=0\" on the kernel command line: want 1 to 86400 seconds"),
            ("imprint.debug=1", "\"imprint.debug=1\" on the kernel command line: want no value"),
            (
                "imprint.source=usb",
                "\"imprint.source=usb\" on the kernel command line: want config-drive or config-drive:LABEL",
            ),
            (
                "imprint.source=serial:ttyS1,115200",
                "\"imprint.source=serial:ttyS1,115200\" on the kernel command line is not supported by this version; \
                 remove it",
            ),
            (
                "imprint.payload=AAAA",
                "\"imprint.payload\" on the kernel command line is not supported by this version; remove it",
            ),
            (
                "imprint=auto imprint=require",
                "imprint= stands twice on the kernel command line, with different values; remove one",
            ),
        ] {
            assert_eq!(Options::parse(cmdline).unwrap_err().to_string(), want);
        }
        assert!(Options::parse("imprint=auto imprint=auto").is_ok());
    }

    #[test]
    fn off_is_off_whatever_else_is_said() {
        assert_eq!(Options::parse("imprint.nonsense imprint=off imprint=auto").unwrap().mode, Mode::Off);
        assert_eq!(Options::parse("imprint=auto -- imprint=off").unwrap().mode, Mode::Auto);
    }

    #[test]
    fn a_boot_loaders_nonsense_names_no_link() {
        for cmdline in ["BOOTIF", "BOOTIF=", "BOOTIF=é", "BOOTIF=01-52-54-00-12-34", "BOOTIF=01-zz-54-00-12-34-56"] {
            assert_eq!(Options::parse(cmdline).unwrap().bootif, None, "{cmdline}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(imprint|[ -~é\"= .]){0,60}") {
            let _ = Options::parse(&text);
        }
    }
}
