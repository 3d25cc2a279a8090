//! The words for whoever leaves the initramfs: `root=` and its companions, as the kernel, dracut and initramfs-tools have them, and
//! `imprint.next=` and `imprint.rescue=`. Only the agent that is `/init` of a bare image follows them. Pure: looks for no device.

use std::time::Duration;

use super::{DEFAULT_TIMEOUT, ImageWords, words};
use crate::kmod::normal;

/// What the boot is to end in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootWords {
    /// `root=`
    pub root: Option<Root>,
    /// `rootfstype=`: the kinds of file system to try. Empty: what the superblock says.
    pub kinds: Vec<String>,
    /// `rootflags=`
    pub flags: String,
    /// `rw`, and no `ro` behind it.
    pub writable: bool,
    /// `rootdelay=`: how long after the start of the kernel the root is looked for at the earliest.
    pub delay: Duration,
    /// `imprint.timeout=`: how long the root is waited for.
    pub timeout: Duration,
    /// `init=`
    pub init: Option<String>,
    /// `imprint.next=`: a program and its arguments.
    pub next: Option<Vec<String>>,
    /// `imprint.rescue=`
    pub rescue: Rescue,
    /// `modprobe.blacklist=`: modules that no device loads, by their normal names.
    pub blacklist: Vec<String>,
    /// Options of modules: normal name, and `KEY=VALUE`.
    parameters: Vec<(String, String)>,
}

/// Where the root is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Root {
    /// `UUID=`, in lower case
    Uuid(String),
    /// `LABEL=`
    Label(String),
    /// `PARTUUID=`, in lower case
    PartUuid(String),
    /// `PARTLABEL=`
    PartLabel(String),
    /// `/dev/…`
    Device(String),
    /// `imprint:URL`: `imprint root` downloads it.
    Imprint,
    /// Anything else, which a bare image cannot mount.
    Other(String),
}

/// What happens after a failure.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Rescue {
    /// A prompt on the console. The machine stays as it is until somebody comes.
    #[default]
    Prompt,
    /// The machine reboots.
    Reboot,
    /// The machine is switched off.
    PowerOff,
}

impl BootWords {
    /// Reads the words of the image and of the kernel command line. Of a word that stands there twice the last one counts, as in the
    /// kernel. What cannot be read counts as not there: `imprint run` refuses wrong words of imprint's.
    pub fn of(image: &ImageWords, cmdline: &str) -> BootWords {
        let mut found = BootWords {
            root: None,
            kinds: Vec::new(),
            flags: String::new(),
            writable: false,
            delay: Duration::ZERO,
            timeout: DEFAULT_TIMEOUT,
            init: None,
            next: None,
            rescue: Rescue::default(),
            blacklist: Vec::new(),
            parameters: Vec::new(),
        };
        let before = image.before.iter().map(|text| text.words.as_str());
        let after = image.after.iter().map(|text| text.words.as_str());
        for text in before.chain([cmdline]).chain(after) {
            for word in &words(text).0 {
                found.take(word);
            }
        }
        found
    }

    fn take(&mut self, word: &str) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let seconds = || value.parse().ok().map(Duration::from_secs);
        match name {
            "ro" => self.writable = false,
            "rw" => self.writable = true,
            "root" => self.root = Root::parse(value),
            "rootfstype" => self.kinds = listed(value).collect(),
            "rootflags" => value.clone_into(&mut self.flags),
            "rootdelay" => self.delay = seconds().unwrap_or_default(),
            "imprint.timeout" => self.timeout = seconds().unwrap_or(DEFAULT_TIMEOUT),
            "init" => self.init = Some(value.to_owned()).filter(|init| init.starts_with('/')),
            "imprint.next" => self.next = next(value),
            "imprint.rescue" => self.rescue = Rescue::parse(value).unwrap_or_default(),
            "modprobe.blacklist" => self.blacklist.extend(listed(value).map(|name| normal(&name).into_owned())),
            // Words of ours may be secrets, and no module is called like that.
            _ if name.starts_with("imprint.") || name.starts_with("systemd.") => {}
            _ => {
                if let Some((module, option)) = word.split_once('.') {
                    self.parameters.push((normal(module).into_owned(), option.to_owned()));
                }
            }
        }
    }

    /// The options of a module, as `MODULE.KEY=VALUE` gives them on the kernel command line. modprobe(8) takes them from there, too.
    pub fn parameters(&self, module: &str) -> String {
        let module = normal(module);
        let own = self.parameters.iter().filter(|(name, _)| *name == module).map(|(_, option)| quoted(option));
        own.collect::<Vec<_>>().join(" ")
    }
}

/// The kernel, too, takes a value with blanks in quotes for one option (lib/cmdline.c, next_arg).
fn quoted(option: &str) -> String {
    match option.split_once('=') {
        Some((key, value)) if value.contains(|c: char| c.is_ascii_whitespace()) => format!("{key}=\"{value}\""),
        _ => option.to_owned(),
    }
}

impl Root {
    fn parse(value: &str) -> Option<Root> {
        let (kind, name) = value.split_once('=').unwrap_or(("", value));
        // The quotes that kernel command lines bear at times: root="LABEL=a b".
        let name = name.trim_matches('\'');
        Some(match kind {
            _ if value.is_empty() => return None,
            "UUID" => Root::Uuid(name.to_ascii_lowercase()),
            "LABEL" => Root::Label(name.to_owned()),
            "PARTUUID" => Root::PartUuid(name.to_ascii_lowercase()),
            "PARTLABEL" => Root::PartLabel(name.to_owned()),
            "" if name.starts_with("/dev/") => Root::Device(name.to_owned()),
            _ if value.starts_with("imprint:") => Root::Imprint,
            _ => Root::Other(value.to_owned()),
        })
    }
}

impl Rescue {
    /// The value of `imprint.rescue=`.
    pub(super) fn parse(value: &str) -> Option<Rescue> {
        match value {
            "prompt" => Some(Rescue::Prompt),
            "reboot" => Some(Rescue::Reboot),
            "poweroff" => Some(Rescue::PowerOff),
            _ => None,
        }
    }
}

/// The value of `imprint.next=`: the path of a program, and its arguments behind blanks.
pub(super) fn next(value: &str) -> Option<Vec<String>> {
    let words: Vec<String> = value.split_ascii_whitespace().map(str::to_owned).collect();
    words.first().is_some_and(|program| program.starts_with('/')).then_some(words)
}

fn listed(value: &str) -> impl Iterator<Item = String> {
    value.split(',').filter(|word| !word.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::super::Text;
    use super::*;

    fn of(cmdline: &str) -> BootWords {
        BootWords::of(&ImageWords::default(), cmdline)
    }

    #[test]
    fn roots_are_named_as_everywhere() {
        for (value, want) in [
            ("UUID=01234567-89AB-cdef-1032-547698badcfe", Root::Uuid("01234567-89ab-cdef-1032-547698badcfe".into())),
            ("LABEL=imprint-root", Root::Label("imprint-root".into())),
            ("PARTUUID=DEADBEEF-01", Root::PartUuid("deadbeef-01".into())),
            ("PARTLABEL=Linux", Root::PartLabel("Linux".into())),
            ("/dev/vda1", Root::Device("/dev/vda1".into())),
            ("imprint:https://a/b=c", Root::Imprint),
            ("live:LABEL=x", Root::Other("live:LABEL=x".into())),
            ("/dev", Root::Other("/dev".into())),
        ] {
            assert_eq!(of(&format!("root={value}")).root, Some(want), "{value}");
        }
        assert_eq!(of("\"root=LABEL=two words\"").root, Some(Root::Label("two words".into())));
        assert_eq!(of("root= quiet").root, None);
    }

    #[test]
    fn the_last_word_counts() {
        let words = of(
            "ro rw root=/dev/a root=/dev/b rootfstype=xfs,ext4 rootflags=subvol=x,noatime rootdelay=3 init=/bin/x imprint.timeout=7",
        );
        assert!(words.writable);
        assert_eq!(words.root, Some(Root::Device("/dev/b".into())));
        assert_eq!((words.kinds.join("+").as_str(), words.flags.as_str()), ("xfs+ext4", "subvol=x,noatime"));
        assert_eq!((words.delay.as_secs(), words.timeout.as_secs()), (3, 7));
        assert_eq!(words.init.as_deref(), Some("/bin/x"));
        assert!(!of("rw ro").writable);
        assert_eq!(of("init=x -- root=/dev/a"), of(""), "init's own words, and a path that is none");
        let image = Text { path: "/etc/cmdline".into(), words: Zeroizing::new("root=/dev/a rw".to_owned()) };
        let image = ImageWords { before: vec![image], after: Vec::new() };
        assert_eq!(BootWords::of(&image, "root=/dev/b").root, Some(Root::Device("/dev/b".into())));
        assert!(BootWords::of(&image, "root=/dev/b").writable);
    }

    #[test]
    fn what_follows_and_what_rescues() {
        assert_eq!(of("imprint.next=\"/bin/x -a b\"").next.unwrap(), ["/bin/x", "-a", "b"]);
        assert_eq!(of("imprint.next=x").next, None);
        assert_eq!(of("").rescue, Rescue::Prompt);
        assert_eq!(of("imprint.rescue=poweroff imprint=off").rescue, Rescue::PowerOff);
    }

    #[test]
    fn modules_have_their_options_and_nothing_of_ours() {
        let words = of("virtio-net.napi_tx=0 virtio_net.gso=1 imprint.payload=c2VjcmV0 modprobe.blacklist=a-b,c");
        assert_eq!(words.parameters("virtio_net"), "napi_tx=0 gso=1");
        assert_eq!(words.parameters("imprint"), "");
        for word in ["nvme.dyndbg=\"func x +p\"", "\"nvme.dyndbg=func x +p\""] {
            assert_eq!(of(&format!("{word} nvme.poll=1")).parameters("nvme"), "dyndbg=\"func x +p\" poll=1");
        }
        assert_eq!(words.blacklist, ["a_b", "c"]);
        assert!(!format!("{words:?}").contains("c2VjcmV0"));
    }
}
