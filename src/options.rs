//! Parses the words of the kernel command line into [`Options`], with one published table. Never reads a file, and
//! never decodes a payload.

mod boot;
mod credential;
mod here;
mod image;
mod near;
mod network;
mod swap;
mod table;
mod show;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::hex;
use crate::payload::{DnsName, HardwareAddress, HttpsUrl, InterfaceName, UrlHost, authority_parts};
use crate::secret::Secret;
use crate::setting::{self, SettingError, Settings};
use crate::shown::Printable;
pub use boot::{BootWords, Rescue, Root};
pub use credential::{CredentialName, SetCredential};
pub use here::{NotHere, source_named};
pub use image::{ImageWords, Text};
pub use near::NearMiss;
use near::{behind_dashes, near_miss, nearest};
pub use network::{CmdlineNetwork, NetworkWords, network_words};
pub use swap::Swap;
pub use table::{WORDS, Word};

/// What the operator asked for on the kernel command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Whether to look for a payload, and whether there must be one.
    pub mode: Mode,
    /// `imprint=auto` is there as a word: then a source that is named does not make a payload required.
    pub boots_on: bool,
    /// `imprint.source=`, in order; empty: the default order.
    pub sources: Vec<SourceName>,
    /// `root-file` was among the sources, and is left to the real root: then a boot without a payload is not an error
    /// yet.
    pub left_to_root: bool,
    /// `imprint.payload=`
    pub payload: Option<CmdlinePayload>,
    /// `systemd.set_credential=` and `systemd.set_credential_binary=` with a name of ours.
    pub credentials: Vec<SetCredential>,
    /// `imprint.timeout=`: how long to wait for a required payload, and again how long everything after it may take.
    pub timeout: Duration,
    /// `imprint.approval-timeout=`: how long to wait for an administrator's approval; `None`: for ever.
    pub approval_timeout: Option<Duration>,
    /// `imprint.line=plain`: a payload from a line need not be sealed.
    pub plain: bool,
    /// `imprint.debug`: more on the console.
    pub debug: bool,
    /// `imprint.server=`: name or address, and port.
    pub server: Option<(UrlHost, u16)>,
    /// `imprint.domain=`
    pub domain: Option<DnsName>,
    /// `imprint.bundle=new`: make a new bundle, also if there is one.
    pub new_bundle: bool,
    /// `imprint.set.KEY=`: what the node's new bundle holds.
    pub settings: Settings,
    /// `root=imprint:`: where an image of the root is, the first one first. Empty: the root comes from elsewhere.
    pub root_image: Vec<HttpsUrl>,
    /// `imprint.root-sha256=`: the digest of that image.
    pub root_sha256: Option<[u8; 32]>,
    /// `ip=` and its like, as dracut has them: the network before there is a payload, and that of a payload which says so.
    pub network: NetworkWords,
    /// `imprint.swap=`
    pub swap: Swap,
    /// `BOOTIF=`, as PXELINUX and iPXE write it. Not there with `rd.bootif=0`.
    pub bootif: Option<HardwareAddress>,
    /// Words that look like imprint's and are not.
    pub near_misses: Vec<NearMiss>,
}

/// `imprint=`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Look at every device that udevd finds, and wait a moment longer; boot on if there is no payload. The default.
    Auto,
    /// Wait until the timeout; stop the boot if there is no payload.
    Require,
    /// Do nothing.
    Off,
}

/// A source that `imprint.source=` names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceName {
    /// `cmdline`: `imprint.payload=`
    Cmdline,
    /// `file`: `/imprint/payload` in the initramfs.
    File,
    /// `credential`: `imprint.payload`, as systemd names credentials, or where systemd takes them from.
    Credential,
    /// `config-drive[:LABEL]`
    ConfigDrive(Option<String>),
    /// `partition`: a partition of a disk.
    Partition,
    /// `efivar`: an EFI variable.
    EfiVar,
    /// `root-file`: a file of the real root.
    RootFile,
    /// `virtio`: the virtio-serial port named imprint.0.
    Virtio,
    /// `serial:ttyS1[,115200]`
    Serial {
        /// Name of the device in /dev.
        name: String,
        /// Bits a second; `None`: the console's speed, or the firmware's, or the present speed of the line.
        baud: Option<u32>,
    },
    /// `tcp:HOST:PORT`: the door of a host, at this address.
    Tcp {
        /// A name, or an address.
        host: UrlHost,
        /// The TCP port.
        port: u16,
    },
    /// `door`: the door of the site, which DNS names.
    Door,
    /// `vsock[:PORT]`: the door of the hypervisor.
    Vsock(u32),
    /// `ether[:LINK]`: whoever is next to one of the machine's links, or to this one.
    Ether(Option<InterfaceName>),
}

impl SourceName {
    /// Whether it can answer. What holds a payload cannot.
    pub fn is_line(&self) -> bool {
        matches!(self, SourceName::Virtio | SourceName::Serial { .. }) || self.is_far()
    }

    /// Whether others than the one at the end of a cable, or the hypervisor, may answer. There a payload has to be signed for this
    /// node and this moment.
    pub fn is_far(&self) -> bool {
        matches!(self, SourceName::Tcp { .. } | SourceName::Door | SourceName::Vsock(_) | SourceName::Ether(_))
    }
}

/// The port of a door: of TCP, and of vsock ("imp" in ASCII).
pub const DOOR_PORT: u16 = 8444;
/// See [`DOOR_PORT`].
pub const VSOCK_PORT: u32 = 0x0069_6d70;

/// A payload as it stands on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CmdlinePayload {
    /// What follows `imprint.payload=`, not yet decoded.
    pub text: Secret,
    /// The payload stands at the end of a command line of the greatest length, so the end of the payload may be
    /// missing.
    pub cut: bool,
}

/// Why the command line is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OptionsError {
    /// The word is not in the table.
    UnknownWord {
        /// The word as it stands on the command line, up to its `=`.
        word: Printable,
        /// The nearest word of the table.
        nearest: &'static str,
    },
    /// The word is in the table, but this version does not support it.
    NotYet(Printable),
    /// The word does not take this value.
    Value {
        /// The word as it stands on the command line, with its value.
        word: Printable,
        /// What the word takes.
        want: &'static str,
    },
    /// A word `imprint.set.KEY=` is no setting, or does not take the value.
    Setting {
        /// The word up to its `=`.
        word: Printable,
        /// What is wrong with it.
        source: SettingError,
    },
    /// A word that may stand once stands there twice, with different values.
    Twice(&'static str),
    /// `root=imprint:`, and no digest of the image.
    NoRootDigest,
    /// `imprint.root-sha256=` is not what the payload says.
    RootDiffers {
        /// The digest of the payload.
        payload: [u8; 32],
    },
    /// `root=imprint:` with `imprint=off`.
    RootOff,
    /// The word that is refused stands in a file of the image.
    InImage {
        /// The file in the image.
        path: PathBuf,
        /// What is wrong with the word.
        source: Box<OptionsError>,
    },
}

/// The most bytes that a command line has: COMMAND_LINE_SIZE is 2048 with the NUL at its end, on x86
/// (arch/x86/include/asm/setup.h) and on arm64 (arch/arm64/include/uapi/asm/setup.h). Boot loaders, or the kernel, drop
/// what is longer.
pub const CMDLINE_MAX: usize = 2047;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

impl Options {
    /// Parses a kernel command line as the kernel splits it (lib/cmdline.c, next_arg): blanks separate words, double
    /// quotes keep them together, and what follows `--` belongs to init.
    pub fn parse(cmdline: &str) -> Result<Options, OptionsError> {
        let (words, inits) = words(cmdline);
        // `imprint=off` wins over every other word.
        let off = words.iter().any(|word| word.as_str() == "imprint=off");
        let (mut mode, mut timeout, mut bootif) = (off.then_some(Mode::Off), None, None);
        let (mut payload, mut approval_timeout) = (None, None);
        let mut sources = Vec::new();
        let (mut debug, mut plain) = (false, false);
        let (mut server, mut domain, mut swap, mut next, mut rescue) = (None, None, None, None, None);
        let (mut new_bundle, mut settings) = (false, Settings::default());
        let (mut root_image, mut root_sha256) = (Vec::new(), None);
        let (mut near_misses, mut credentials) = (Vec::new(), Vec::new());
        let (mut words_of_network, mut no_bootif) = (NetworkWords::default(), false);
        let line = cmdline.trim_end_matches('\n');
        let cut = |text: &str| line.len() >= CMDLINE_MAX && line.ends_with(text);
        for word in words.iter().filter(|_| !off) {
            let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(n, v)| (n, Some(v)));
            let known = WORDS.iter().find(|known| known.name.trim_end_matches('=') == name);
            let want = known.map_or("nothing", |known| known.values);
            let bad = || OptionsError::Value { word: shown(word), want };
            let seconds = |most: u64| {
                let seconds = value.and_then(|text| text.parse().ok()).filter(|n| (1..=most).contains(n));
                seconds.map(Duration::from_secs).ok_or_else(bad)
            };
            match name {
                "imprint" => {
                    let given = match value {
                        Some("auto") => Mode::Auto,
                        Some("require") => Mode::Require,
                        Some("off") => Mode::Off,
                        _ => return Err(bad()),
                    };
                    once(&mut mode, given, "imprint=")?;
                }
                "imprint.source" => sources.push(source(word, value, want)?),
                "imprint.payload" => {
                    let text = value.filter(|text| !text.is_empty()).ok_or_else(bad)?;
                    let given = CmdlinePayload { text: Secret::new(text.as_bytes().to_vec()), cut: cut(text) };
                    once(&mut payload, given, "imprint.payload=")?;
                }
                "imprint.timeout" => once(&mut timeout, seconds(86_400)?, "imprint.timeout=")?,
                "imprint.approval-timeout" => {
                    once(&mut approval_timeout, seconds(2_592_000)?, "imprint.approval-timeout=")?;
                }
                "imprint.debug" => match value {
                    None => debug = true,
                    Some(_) => return Err(bad()),
                },
                "imprint.line" => match value {
                    Some("plain") => plain = true,
                    _ => return Err(bad()),
                },
                "imprint.server" => {
                    let given = value.and_then(|text| authority_parts(text).ok()).ok_or_else(bad)?;
                    once(&mut server, (given.0, given.1.unwrap_or(DOOR_PORT)), "imprint.server=")?;
                }
                "imprint.domain" => {
                    let given = value.and_then(|text| DnsName::try_from(text).ok()).ok_or_else(bad)?;
                    once(&mut domain, given, "imprint.domain=")?;
                }
                "imprint.bundle" => match value {
                    Some("new") => new_bundle = true,
                    _ => return Err(bad()),
                },
                // For the agent as /init, which reads them by itself ([`BootWords`]).
                "imprint.next" => {
                    let given = value.and_then(boot::next).ok_or_else(bad)?;
                    once(&mut next, given, "imprint.next=")?;
                }
                "imprint.rescue" => {
                    let given = value.and_then(Rescue::parse).ok_or_else(bad)?;
                    once(&mut rescue, given, "imprint.rescue=")?;
                }
                "imprint.swap" => {
                    once(&mut swap, value.and_then(Swap::parse).ok_or_else(bad)?, "imprint.swap=")?;
                }
                // The last root counts, as it does to the kernel.
                "root" => match value.and_then(|value| value.strip_prefix("imprint:")) {
                    Some(list) => {
                        root_image = list.split(',').map(HttpsUrl::of_file).collect::<Option<_>>().ok_or_else(bad)?
                    }
                    None => root_image = Vec::new(),
                },
                "imprint.root-sha256" => {
                    let given =
                        value.and_then(hex::decode).and_then(|digest| digest.try_into().ok()).ok_or_else(bad)?;
                    once(&mut root_sha256, given, "imprint.root-sha256=")?;
                }
                "BOOTIF" => bootif = value.and_then(network::boot_link),
                "rd.bootif" => no_bootif = value == Some("0"),
                name if words_of_network.push(name, value) => {}
                name if name.starts_with(setting::PREFIX) => {
                    let key = name.strip_prefix(setting::PREFIX).unwrap_or_default();
                    let added = settings.add_word(key, value.unwrap_or_default());
                    added.map_err(|source| OptionsError::Setting { word: shown(name), source })?;
                }
                name if name.starts_with("imprint.") => {
                    if known.is_some() {
                        return Err(OptionsError::NotYet(shown(name)));
                    }
                    // The error leaves the value out: the word may be a misspelt imprint.payload=.
                    return Err(OptionsError::UnknownWord { word: shown(name), nearest: nearest(name) });
                }
                name => match credential::set(name, value, value.is_some_and(cut)) {
                    Some(given) => credentials.push(given),
                    None => near_misses.extend(near_miss(name)),
                },
            }
        }
        let alone = |source| OptionsError::Setting { word: shown("imprint.set.search"), source };
        settings.check().map_err(alone)?;
        let names = inits.iter().filter(|_| !off).map(|word| word.split('=').next().unwrap_or_default());
        near_misses.extend(names.filter_map(behind_dashes));
        Ok(Options {
            mode: mode.unwrap_or(Mode::Auto),
            boots_on: mode == Some(Mode::Auto),
            sources,
            left_to_root: false,
            payload,
            credentials,
            timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
            approval_timeout,
            plain,
            debug,
            server,
            domain,
            new_bundle,
            settings,
            root_image,
            root_sha256,
            network: words_of_network,
            swap: swap.unwrap_or_default(),
            bootif: bootif.filter(|_| !no_bootif),
            near_misses,
        })
    }

    /// Whether a boot without a payload is an error: required, or a source was named without `imprint=auto`.
    pub fn insists(&self) -> bool {
        !self.left_to_root && (self.mode == Mode::Require || !self.sources.is_empty() && !self.boots_on)
    }
}

fn once<T: PartialEq>(slot: &mut Option<T>, value: T, name: &'static str) -> Result<(), OptionsError> {
    match slot {
        // Boot loaders append words; the same word twice does no harm.
        Some(before) if *before != value => Err(OptionsError::Twice(name)),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn source(word: &str, value: Option<&str>, want: &'static str) -> Result<SourceName, OptionsError> {
    let value = value.unwrap_or_default();
    let (kind, rest) = value.split_once(':').map_or((value, None), |(kind, rest)| (kind, Some(rest)));
    match (kind, rest) {
        ("cmdline", None) => Ok(SourceName::Cmdline),
        ("file", None) => Ok(SourceName::File),
        ("credential", None) => Ok(SourceName::Credential),
        ("partition", None) => Ok(SourceName::Partition),
        ("efivar", None) => Ok(SourceName::EfiVar),
        ("root-file", None) => Ok(SourceName::RootFile),
        ("config-drive", None) => Ok(SourceName::ConfigDrive(None)),
        // ISO 9660 volume identifiers have 32 characters (ECMA-119 §8.4.8).
        ("config-drive", Some(label)) if (1..=32).contains(&label.len()) => {
            Ok(SourceName::ConfigDrive(Some(label.to_owned())))
        }
        ("virtio", None) => Ok(SourceName::Virtio),
        ("serial", Some(line)) => {
            let (name, baud) = line.split_once(',').map_or((line, None), |(name, baud)| (name, Some(baud)));
            let bad = || OptionsError::Value { word: shown(word), want };
            // A file name in /dev, and no path that leads out of /dev.
            let sound = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if !(1..=32).contains(&name.len()) || name.starts_with('.') || !name.chars().all(sound) {
                return Err(bad());
            }
            let baud =
                baud.map(|text| text.parse().ok().filter(|baud| (50..=4_000_000).contains(baud)).ok_or_else(bad));
            Ok(SourceName::Serial { name: name.to_owned(), baud: baud.transpose()? })
        }
        ("tcp", Some(place)) => match authority_parts(place) {
            Ok((host, Some(port))) => Ok(SourceName::Tcp { host, port }),
            _ => Err(OptionsError::Value { word: shown(word), want }),
        },
        ("door", None) => Ok(SourceName::Door),
        ("vsock", None) => Ok(SourceName::Vsock(VSOCK_PORT)),
        ("vsock", Some(port)) => {
            // VMADDR_PORT_ANY is no port to call at (linux/vm_sockets.h).
            let port = port.parse().ok().filter(|port| *port != u32::MAX);
            port.map(SourceName::Vsock).ok_or_else(|| OptionsError::Value { word: shown(word), want })
        }
        ("ether", None) => Ok(SourceName::Ether(None)),
        ("ether", Some(link)) => {
            let link = InterfaceName::try_from(link).map_err(|_| OptionsError::Value { word: shown(word), want });
            link.map(|link| SourceName::Ether(Some(link)))
        }
        _ => Err(OptionsError::Value { word: shown(word), want }),
    }
}

/// Splits the command line as the kernel does; the second list is what stands after `--`. A quote that is not closed
/// runs to the end. Words are wiped, since one may be a payload. Each word is allocated once, because a string that
/// grows leaves copies behind.
fn words(cmdline: &str) -> (Vec<Zeroizing<String>>, Vec<Zeroizing<String>>) {
    let mut quoted = false;
    let blank = |c: char| {
        quoted ^= c == '"';
        c.is_ascii_whitespace() && !quoted
    };
    let unquoted = |raw: &str| {
        let mut word = Zeroizing::new(String::with_capacity(raw.len()));
        word.extend(raw.chars().filter(|c| *c != '"'));
        word
    };
    let mut words = cmdline.split(blank).map(unquoted).filter(|word| !word.is_empty());
    let ours = words.by_ref().take_while(|word| word.as_str() != "--").collect();
    (ours, words.collect())
}

fn shown(word: &str) -> Printable {
    Printable::up_to(word, 80)
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
                write!(f, "\"{word}\" on the kernel command line is not valid: want {want}")
            }
            OptionsError::Setting { word, .. } => write!(f, "\"{word}\" on the kernel command line"),
            OptionsError::Twice(name) => {
                write!(f, "{name} is on the kernel command line twice, with different values; remove one")
            }
            OptionsError::NoRootDigest => f.write_str(
                "root=imprint: is on the kernel command line, and nothing says the SHA-256 of the image; add imprint.root-sha256=, \
                 or root_sha256 to the record; sha256sum prints it",
            ),
            OptionsError::RootDiffers { payload } => write!(
                f,
                "imprint.root-sha256= on the kernel command line is not what the payload says, {}; correct one of them",
                hex::encode(payload)
            ),
            OptionsError::RootOff => f.write_str(
                "root=imprint: and imprint=off are both on the kernel command line, and without imprint there is no such root; \
                 remove one of them",
            ),
            OptionsError::InImage { path, .. } => {
                write!(f, "{} in this image counts as part of the kernel command line", path.display())
            }
        }
    }
}

impl std::error::Error for OptionsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OptionsError::InImage { source, .. } => Some(source),
            OptionsError::Setting { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
