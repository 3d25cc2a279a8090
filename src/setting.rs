//! The settings of a stateless node: one table of keys, what each takes, and the files of the node's bundle that it makes.
//! Words of the kernel command line (`imprint.set.KEY=`), the dialogue and `[set]` in records share it. Pure: never reads or
//! writes a file.

mod error;
mod files;
mod link;
mod values;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::net::IpAddr;

use zeroize::Zeroizing;

use crate::payload::{DnsName, HostName, Link};
pub use error::SettingError;
pub use values::{Engine, Host, PasswordHash, SshKey, Storage, Syslog, TimeZone};

/// One row of the published table, from which docs/bundle.md is made (`make docs`).
pub struct Setting {
    /// Which setting.
    pub key: Key,
    /// The key in records, and behind `imprint.set.`.
    pub word: &'static str,
    /// What one value is, as an error shows it.
    pub takes: &'static str,
    /// What the setting does.
    pub meaning: &'static str,
    /// How many values there may be. 1: a single one.
    pub most: usize,
    /// Whether the setting may stand on the kernel command line.
    pub cmdline: bool,
    /// The files of the bundle, with what varies in capitals.
    pub files: &'static [&'static str],
}

/// A setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the table says it")]
pub enum Key {
    Hostname,
    Link,
    Dns,
    Search,
    Ntp,
    Timezone,
    Ssh,
    Syslog,
    Engine,
    Storage,
    Password,
}

/// Every setting, in the order of the dialogue.
pub const SETTINGS: [Setting; 11] = [
    Setting {
        key: Key::Hostname,
        word: "hostname",
        takes: "a host name: labels of letters, digits and inner hyphens, at most 64 bytes in all",
        meaning: "the host name",
        most: 1,
        cmdline: true,
        files: &["/etc/hostname"],
    },
    Setting {
        key: Key::Link,
        word: "link",
        takes: "LINK,ITEM,ITEM and so on, where LINK is a link's name or hardware address, and an ITEM is dhcp4, slaac, dhcp6, ADDRESS/LENGTH, \
                via=GATEWAY, route=NETWORK/LENGTH-GATEWAY, route=NETWORK/LENGTH or mtu=BYTES",
        meaning: "one network link and what it has. Other links stay as the image has them",
        most: 16,
        cmdline: true,
        files: &[
            "/etc/systemd/network/60-imprint-LINK.network",
            "/etc/NetworkManager/system-connections/imprint-set-LINK.nmconnection",
        ],
    },
    Setting {
        key: Key::Dns,
        word: "dns",
        takes: "an IP address",
        meaning: "a name server. The links of the settings get it, too",
        most: 3, // resolv.conf(5): MAXNS
        cmdline: true,
        files: &["/etc/resolv.conf"],
    },
    Setting {
        key: Key::Search,
        word: "search",
        takes: "a domain name without trailing dot",
        meaning: "a search domain; needs a name server. The links of the settings get it, too",
        most: 6,
        cmdline: true,
        files: &["/etc/resolv.conf"],
    },
    Setting {
        key: Key::Ntp,
        word: "ntp",
        takes: "a name or an IP address",
        meaning: "a time server, for systemd-timesyncd and for chrony",
        most: 8,
        cmdline: true,
        files: &["/etc/systemd/timesyncd.conf.d/imprint.conf", "/etc/chrony/sources.d/imprint.sources"],
    },
    Setting {
        key: Key::Timezone,
        word: "timezone",
        takes: "a time zone of the tz database, like Europe/Berlin or UTC",
        meaning: "the time zone",
        most: 1,
        cmdline: true,
        files: &["/etc/localtime", "/etc/timezone"],
    },
    Setting {
        key: Key::Ssh,
        word: "ssh",
        takes: "a public key as ssh-keygen writes it: TYPE BASE64 or TYPE BASE64 COMMENT, in printable ASCII",
        meaning: "a key with which root may log in by SSH",
        most: 32,
        cmdline: true,
        files: &["/root/.ssh", "/root/.ssh/authorized_keys"],
    },
    Setting {
        key: Key::Syslog,
        word: "syslog",
        takes: "HOST, HOST:PORT, udp:HOST:PORT or tcp:HOST:PORT, an IPv6 address in brackets",
        meaning: "where rsyslog sends what it logs; UDP and port 514 if the value does not say otherwise",
        most: 1,
        cmdline: true,
        files: &["/etc/rsyslog.d/70-imprint.conf"],
    },
    Setting {
        key: Key::Engine,
        word: "engine",
        takes: "HOST, HOST:PORT or an https:// URL without user and password",
        meaning: "the address of the configuration engine, in one line, for the programs of the image",
        most: 1,
        cmdline: true,
        files: &["/etc/imprint/engine"],
    },
    Setting {
        key: Key::Storage,
        word: "storage",
        takes: "a URI or the path of a device, in printable ASCII, at most 512 bytes",
        meaning: "the storage of the node, in one line, for the programs of the image. A password, or a query, in the URI is refused \
                  on the kernel command line",
        most: 1,
        cmdline: true,
        files: &["/etc/imprint/storage"],
    },
    Setting {
        key: Key::Password,
        word: "password",
        takes: "a hash of crypt(5) that begins with $6$, $5$, $y$, $gy$, $7$, $2b$ or $2y$",
        meaning: "the hash of root's password. The dialogue makes it from a password; the manifest enables the unit, which runs \
                  chpasswd -e",
        most: 1,
        cmdline: false,
        files: &[
            "/etc/imprint-password",
            "/etc/systemd/system/imprint-password.service",
            "/etc/systemd/system/multi-user.target.wants/imprint-password.service",
        ],
    },
];

impl Key {
    /// The row of the table.
    pub fn row(self) -> &'static Setting {
        // Every key has its row: a test looks.
        SETTINGS.iter().find(|row| row.key == self).unwrap_or(&SETTINGS[0])
    }

    /// The key that this word names.
    pub fn named(word: &str) -> Result<Key, SettingError> {
        let known = SETTINGS.iter().find(|row| row.word == word);
        known.map(|row| row.key).ok_or_else(|| SettingError::unknown(word))
    }
}

/// The prefix of the words of the kernel command line.
pub const PREFIX: &str = "imprint.set.";

/// What a node is to have. Every value is valid.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// See [`SETTINGS`].
    pub hostname: Option<HostName>,
    /// Matched by name or hardware address.
    pub links: Vec<Link>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<DnsName>,
    /// Time servers.
    pub ntp: Vec<Host>,
    /// Time zone.
    pub timezone: Option<TimeZone>,
    /// Keys of root.
    pub ssh: Vec<SshKey>,
    /// Log server.
    pub syslog: Option<Syslog>,
    /// Configuration engine.
    pub engine: Option<Engine>,
    /// Storage target.
    pub storage: Option<Storage>,
    /// Root's password.
    pub password: Option<PasswordHash>,
}

impl Settings {
    /// Reads the words of a kernel command line: what follows `imprint.set.`, and the value.
    pub fn from_words<'a>(words: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Settings, SettingError> {
        let mut settings = Settings::default();
        for (word, value) in words {
            settings.add_word(word, value)?;
        }
        settings.check()?;
        Ok(settings)
    }

    /// Adds a word of the kernel command line. Passwords are refused there: every user of the node can read it.
    pub fn add_word(&mut self, word: &str, value: &str) -> Result<(), SettingError> {
        let key = Key::named(word)?;
        let uri = matches!(key, Key::Storage | Key::Engine | Key::Syslog);
        if !key.row().cmdline || uri && values::may_have_password(value) {
            return Err(SettingError::Secret);
        }
        self.add(key, value)
    }

    /// Adds one value. The same value twice is one.
    pub fn add(&mut self, key: Key, value: &str) -> Result<(), SettingError> {
        let invalid = || SettingError::value(key, value);
        match key {
            Key::Hostname => once(&mut self.hostname, HostName::try_from(value).ok().ok_or_else(invalid)?),
            Key::Link => link::add(&mut self.links, value),
            Key::Dns => more(&mut self.dns, key, values::name_server(value).ok_or_else(invalid)?),
            Key::Search => more(&mut self.search, key, DnsName::try_from(value).ok().ok_or_else(invalid)?),
            Key::Ntp => more(&mut self.ntp, key, Host::parse(value).ok_or_else(invalid)?),
            Key::Timezone => once(&mut self.timezone, TimeZone::parse(value).ok_or_else(invalid)?),
            Key::Ssh => more(&mut self.ssh, key, SshKey::parse(value).ok_or_else(invalid)?),
            Key::Syslog => once(&mut self.syslog, Syslog::parse(value).ok_or_else(invalid)?),
            Key::Engine => once(&mut self.engine, Engine::parse(value).ok_or_else(invalid)?),
            Key::Storage => once(&mut self.storage, Storage::parse(value).ok_or_else(invalid)?),
            Key::Password => once(&mut self.password, PasswordHash::parse(value).ok_or_else(invalid)?),
        }
    }

    /// Removes every value of a key.
    pub fn clear(&mut self, key: Key) {
        match key {
            Key::Hostname => self.hostname = None,
            Key::Link => self.links.clear(),
            Key::Dns => self.dns.clear(),
            Key::Search => self.search.clear(),
            Key::Ntp => self.ntp.clear(),
            Key::Timezone => self.timezone = None,
            Key::Ssh => self.ssh.clear(),
            Key::Syslog => self.syslog = None,
            Key::Engine => self.engine = None,
            Key::Storage => self.storage = None,
            Key::Password => self.password = None,
        }
    }

    /// The rules that hold between settings.
    pub fn check(&self) -> Result<(), SettingError> {
        if !self.search.is_empty() && self.dns.is_empty() { Err(SettingError::NoNameServer) } else { Ok(()) }
    }

    /// Whether there is no setting.
    pub fn is_empty(&self) -> bool {
        *self == Settings::default()
    }

    /// The values of a key as text that [`Settings::add`] reads. Wiped: one may be a hash.
    pub fn texts(&self, key: Key) -> Vec<Zeroizing<String>> {
        fn all<'a, T: ToString + 'a>(values: impl IntoIterator<Item = &'a T>) -> Vec<Zeroizing<String>> {
            values.into_iter().map(|value| Zeroizing::new(value.to_string())).collect()
        }
        match key {
            Key::Hostname => all(&self.hostname),
            Key::Link => self.links.iter().map(|link| Zeroizing::new(link::text(link))).collect(),
            Key::Dns => all(&self.dns),
            Key::Search => all(&self.search),
            Key::Ntp => all(&self.ntp),
            Key::Timezone => all(&self.timezone),
            Key::Ssh => all(&self.ssh),
            Key::Syslog => all(&self.syslog),
            Key::Engine => all(&self.engine),
            Key::Storage => all(&self.storage),
            Key::Password => self.password.iter().map(|hash| Zeroizing::new(hash.expose().to_owned())).collect(),
        }
    }

    /// `[set]` of a record with these settings.
    pub fn to_toml(&self) -> Zeroizing<String> {
        // The capacity is enough for all of the text: a buffer that grows would leave a copy of a hash behind.
        let texts = SETTINGS.iter().map(|row| (row, self.texts(row.key)));
        let texts: Vec<_> = texts.filter(|(_, texts)| !texts.is_empty()).collect();
        let length = |texts: &[Zeroizing<String>]| -> usize { texts.iter().map(|text| text.len() * 2 + 8).sum() };
        let room = texts.iter().map(|(row, texts)| length(texts) + row.word.len() + 16).sum::<usize>();
        let mut toml = Zeroizing::new(String::with_capacity(room + 16));
        toml.push_str("[set]\n");
        for (row, texts) in texts {
            let _ = write!(*toml, "{} = ", row.word);
            if row.most > 1 {
                toml.push('[');
            }
            for (number, text) in texts.iter().enumerate() {
                toml.push_str(if number == 0 { "\"" } else { ", \"" });
                for c in text.chars() {
                    // Every value is printable ASCII, of which a basic string escapes these two.
                    if matches!(c, '"' | '\\') {
                        toml.push('\\');
                    }
                    toml.push(c);
                }
                toml.push('"');
            }
            toml.push_str(if row.most > 1 { "]\n" } else { "\n" });
        }
        toml
    }
}

fn once<T: PartialEq>(slot: &mut Option<T>, value: T) -> Result<(), SettingError> {
    match slot {
        Some(before) if *before != value => Err(SettingError::Twice),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn more<T: PartialEq>(list: &mut Vec<T>, key: Key, value: T) -> Result<(), SettingError> {
    if list.contains(&value) {
        return Ok(());
    }
    if list.len() >= key.row().most {
        return Err(SettingError::TooMany(key.row().most));
    }
    list.push(value);
    Ok(())
}
