//! The files of the root that settings make, and the bundle with them. Pure: never writes a file, and never looks at a root.

use std::net::IpAddr;

use zeroize::Zeroizing;

use super::{Key, Settings, Syslog};
use crate::bundle::{Bundle, BundleError, Content, Entry, EntryPath, TarError, UnitAction, Verb};
use crate::link_files::{self, LinkFile};
use crate::payload::{HardwareAddress, Link, LinkKind, Match, NodeName, UnitName, UrlHost};
use crate::secret::Secret;
use crate::shown::Printable;

/// The unit that sets root's password.
const PASSWORD_UNIT: &str = "imprint-password.service";

const ORIGIN: &str = "from the settings of this node.";

/// The unit asks systemd's search path for chpasswd (systemd.service(5), as of systemd 239). /etc/shadow is written in the
/// overlay of /etc: the file with the hash is in /etc itself so that there is one.
const PASSWORD: &str = "\
[Unit]
Description=Set root's password as imprint was told
Before=systemd-user-sessions.service getty-pre.target ssh.service sshd.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=chpasswd -e
StandardInput=file:/etc/imprint-password

[Install]
WantedBy=multi-user.target
";

/// Path, mode and content of what belongs to root.
type Made = (String, u16, Content);

impl Settings {
    /// The bundle that these settings make.
    pub fn bundle(&self, node: NodeName, counter: u64) -> Result<Bundle, BundleError> {
        let entry = |(path, mode, content): Made| match EntryPath::try_from(path.as_str()) {
            Ok(path) => Ok(Entry { path, mode, uid: 0, gid: 0, content }),
            Err(error) => Err(BundleError::Entry { name: Printable::of(&path), error: TarError::Path(error) }),
        };
        let entries = self.files().into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        let unit = self.password.as_ref().and_then(|_| UnitName::try_from(PASSWORD_UNIT).ok());
        let units = unit.into_iter().map(|unit| UnitAction { verb: Verb::Enable, unit });
        Bundle::new(node, counter, units.collect(), entries)
    }

    /// The files, in the order of the table; then what is no file.
    fn files(&self) -> Vec<Made> {
        let mut made = Vec::new();
        let mut put = |path: String, mode: u16, text: &str| {
            made.push((path, mode, Content::File(Secret::new(text.as_bytes().to_vec()))));
        };
        if let Some(name) = &self.hostname {
            put("etc/hostname".to_owned(), 0o644, &format!("{name}\n"));
        }
        for link in &self.links {
            let Some((name, mac)) = matched(link) else { continue };
            let file = described(link, &name, mac, self);
            put(format!("etc/systemd/network/60-imprint-{name}.network"), 0o644, &link_files::unit(&file));
            let path = format!("etc/NetworkManager/system-connections/imprint-set-{name}.nmconnection");
            // NetworkManager ignores a keyfile that other users can read (nm-settings-keyfile(5), "FILE PERMISSIONS").
            put(path, 0o600, &link_files::keyfile(&file));
        }
        if !self.dns.is_empty() {
            let mut text = String::new();
            if !self.search.is_empty() {
                text.push_str(&format!("search {}\n", self.joined(Key::Search)));
            }
            self.dns.iter().for_each(|server| text.push_str(&format!("nameserver {server}\n")));
            put("etc/resolv.conf".to_owned(), 0o644, &text);
        }
        if !self.ntp.is_empty() {
            let text = format!("[Time]\nNTP={}\n", self.joined(Key::Ntp));
            put("etc/systemd/timesyncd.conf.d/imprint.conf".to_owned(), 0o644, &text);
            let text: String = self.ntp.iter().map(|server| format!("server {server} iburst\n")).collect();
            put("etc/chrony/sources.d/imprint.sources".to_owned(), 0o644, &text);
        }
        if let Some(zone) = &self.timezone {
            put("etc/timezone".to_owned(), 0o644, &format!("{zone}\n"));
        }
        if !self.ssh.is_empty() {
            let text: String = self.ssh.iter().map(|key| format!("{key}\n")).collect();
            put("root/.ssh/authorized_keys".to_owned(), 0o600, &text);
        }
        if let Some(syslog) = &self.syslog {
            put("etc/rsyslog.d/70-imprint.conf".to_owned(), 0o644, &forwarding(syslog));
        }
        if let Some(engine) = &self.engine {
            put("etc/imprint/engine".to_owned(), 0o644, &format!("{engine}\n"));
        }
        if let Some(storage) = &self.storage {
            // It may have a password in it.
            put("etc/imprint/storage".to_owned(), 0o600, &Zeroizing::new(format!("{storage}\n")));
        }
        if let Some(hash) = &self.password {
            put("etc/imprint-password".to_owned(), 0o600, &Zeroizing::new(format!("root:{}\n", hash.expose())));
            put(format!("etc/systemd/system/{PASSWORD_UNIT}"), 0o644, PASSWORD);
            // In the boot's own transaction, in which its Before= counts: nobody is asked for a password that is not set yet.
            let content = Content::Link(format!("/etc/systemd/system/{PASSWORD_UNIT}"));
            made.push((format!("etc/systemd/system/multi-user.target.wants/{PASSWORD_UNIT}"), 0o777, content));
        }
        if let Some(zone) = &self.timezone {
            let content = Content::Link(format!("/usr/share/zoneinfo/{zone}"));
            made.push(("etc/localtime".to_owned(), 0o777, content));
        }
        if !self.ssh.is_empty() {
            // sshd(8) reads no keys from a folder that others can write.
            made.push(("root/.ssh".to_owned(), 0o700, Content::Directory));
        }
        made
    }

    fn joined(&self, key: Key) -> String {
        self.texts(key).iter().map(|text| text.as_str()).collect::<Vec<_>>().join(" ")
    }
}

/// How files name the link, and its address. A setting matches by nothing else.
fn matched(link: &Link) -> Option<(String, Option<&HardwareAddress>)> {
    match &link.kind {
        LinkKind::Physical(Match::Mac(mac)) => Some((crate::hex::encode(mac.as_bytes()), Some(mac))),
        LinkKind::Physical(Match::Name(name)) => Some((name.to_string(), None)),
        _ => None,
    }
}

/// The number puts the unit before those of the hand-over (70-imprint-…), and the priority puts the keyfile before its keyfiles:
/// what the node was told goes before what it came up with.
fn described<'a>(link: &'a Link, name: &'a str, mac: Option<&'a HardwareAddress>, all: &'a Settings) -> LinkFile<'a> {
    LinkFile {
        origin: ORIGIN,
        name,
        mac,
        permanent: None,
        priority: Some(10),
        mtu: link.mtu,
        instead_of_dhcp: None,
        dhcp4: link.dhcp4,
        client_id: None,
        slaac: link.slaac,
        dhcp6: link.dhcp6,
        identity: None,
        managed: false,
        addresses: &link.addresses,
        routes: &link.routes,
        dns: &all.dns,
        search: &all.search,
        standing: None,
    }
}

/// rsyslog's omfwd. A queue of its own: a log server that does not answer must not hold up the other logs.
fn forwarding(Syslog { tcp, host, port }: &Syslog) -> String {
    let protocol = if *tcp { "tcp" } else { "udp" };
    let target = match host {
        UrlHost::Ip(IpAddr::V6(six)) => six.to_string(),
        host => host.to_string(),
    };
    format!(
        "*.* action(type=\"omfwd\" target=\"{target}\" port=\"{port}\" protocol=\"{protocol}\" queue.type=\"LinkedList\" \
         action.resumeRetryCount=\"-1\")\n"
    )
}
