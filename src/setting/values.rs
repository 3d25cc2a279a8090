//! Types for the values of settings. Parsing is the only way to make one, so each is valid and can stand in its file as it is.
//! Never looks a name up.

use std::fmt;
use std::net::IpAddr;

use base64ct::{Base64, Encoding};

use crate::payload::{DnsName, UrlHost, authority_parts};
use crate::secret::Secret;

/// A name server can be asked from anywhere on the node: no address that counts on one link only.
pub(super) fn name_server(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    let local = matches!(address, IpAddr::V6(six) if six.is_unicast_link_local());
    (!local && !address.is_unspecified() && !address.is_multicast()).then_some(address)
}

/// A name or an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host(String);

impl Host {
    /// `None`: neither a name nor an address.
    pub fn parse(text: &str) -> Option<Host> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Host(address.to_string()));
        }
        // An address that is misspelt is no name.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        DnsName::try_from(text).ok().filter(|_| !digits).map(|name| Host(name.to_string()))
    }
}

/// A name of the tz database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimeZone(String);

impl TimeZone {
    /// `None`: no such name. Whether the image has the zone is not looked at.
    pub fn parse(text: &str) -> Option<TimeZone> {
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-'))
        };
        (text.len() <= 64 && text.split('/').all(part)).then(|| TimeZone(text.to_owned()))
    }
}

/// A public key of OpenSSH, in one line (sshd(8), "AUTHORIZED_KEYS FILE FORMAT"), without options.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SshKey(String);

impl SshKey {
    const TYPES: [&str; 7] = [
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "ssh-rsa",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    ];

    /// `None`: another kind of text, or a key that was cut.
    pub fn parse(text: &str) -> Option<SshKey> {
        let text = text.trim();
        let mut words = text.splitn(3, ' ');
        let (kind, base64) = (words.next()?, words.next()?);
        let printable = text.len() <= 4096 && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let mut rest = Base64::decode_vec(base64).ok().filter(|_| printable && SshKey::TYPES.contains(&kind))?;
        // RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4: the type again, and then at least one more string.
        let first = string(&mut rest)?;
        let mut strings = 0u8;
        while !rest.is_empty() {
            string(&mut rest)?;
            strings = strings.saturating_add(1);
        }
        (first == kind.as_bytes() && strings > 0).then(|| SshKey(text.to_owned()))
    }

    /// Type, the end of the key, and comment.
    pub fn short(&self) -> String {
        let mut words = self.0.splitn(3, ' ');
        let (kind, base64) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let end = base64.get(base64.len().saturating_sub(12)..).unwrap_or_default();
        let comment = words.next().map_or(String::new(), |comment| format!(" {comment}"));
        format!("{kind} …{end}{comment}").replace('…', "..")
    }
}

/// Takes a string with its length before it (RFC 4251 §5).
fn string(rest: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let (string, behind) = behind.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let (string, behind) = (string.to_vec(), behind.to_vec());
    *rest = behind;
    Some(string)
}

/// Where rsyslog sends what it logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Syslog {
    pub(super) tcp: bool,
    pub(super) host: UrlHost,
    pub(super) port: u16,
}

impl Syslog {
    /// RFC 5426 §3.3.
    const PORT: u16 = 514;

    /// `None`: no such place.
    pub fn parse(text: &str) -> Option<Syslog> {
        let (tcp, place) = match (text.strip_prefix("tcp:"), text.strip_prefix("udp:")) {
            (Some(place), _) => (true, place),
            (_, place) => (false, place.unwrap_or(text)),
        };
        let (host, port) = authority_parts(place).ok()?;
        Some(Syslog { tcp, host, port: port.unwrap_or(Syslog::PORT) })
    }
}

impl fmt::Display for Syslog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", if self.tcp { "tcp" } else { "udp" }, self.host, self.port)
    }
}

/// The address of a configuration engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Engine(String);

impl Engine {
    /// `None`: neither host and port nor an https URL, or a URL with user or password.
    pub fn parse(text: &str) -> Option<Engine> {
        let rest = text.strip_prefix("https://").unwrap_or(text);
        let end = if rest.len() == text.len() { rest.len() } else { rest.find(['/', '?', '#']).unwrap_or(rest.len()) };
        authority_parts(rest.get(..end)?).ok()?;
        (text.len() <= 512 && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Engine(text.to_owned()))
    }
}

/// Where the node keeps its data. Only programs of the image read it.
#[derive(Clone, PartialEq, Eq)]
pub struct Storage(Secret);

impl Storage {
    /// `None`: neither a URI nor the path of a device.
    pub fn parse(text: &str) -> Option<Storage> {
        let scheme = text.split_once(':').is_some_and(|(scheme, rest)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
                && !rest.is_empty()
        });
        let sound = text.len() <= 512 && text.bytes().all(|byte| byte.is_ascii_graphic());
        (sound && (scheme || text.starts_with("/dev/"))).then(|| Storage(Secret::new(text.as_bytes().to_vec())))
    }

    fn expose(&self) -> &str {
        std::str::from_utf8(self.0.expose()).unwrap_or_default()
    }
}

/// Whether the text has a place where URIs have a password: before an `@` behind a colon, whether `//` stands before it or not
/// (`https://user:password@host`, dracut's `iscsi:user:password@host`), or in a query or fragment (`?password=`).
pub(super) fn may_have_password(text: &str) -> bool {
    // The first colon may be the scheme's.
    let rest = text.split_once(':').map_or(text, |(_, rest)| rest);
    text.contains(['?', '#']) || rest.rsplit_once('@').is_some_and(|(before, _)| before.contains(':'))
}

/// A hash of root's password, as crypt(5) has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PasswordHash(Secret);

impl PasswordHash {
    /// Those that no machine breaks by the by. DES and MD5 are too weak.
    const KINDS: [&str; 7] = ["6", "5", "y", "gy", "7", "2b", "2y"];

    /// `None`: not a hash that can stand in /etc/shadow.
    pub fn parse(text: &str) -> Option<PasswordHash> {
        let (kind, rest) = text.strip_prefix('$')?.split_once('$')?;
        // No colon and no line end: nothing else may come into /etc/shadow.
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"./$=,+-".contains(&byte);
        let length = (30..=256).contains(&text.len());
        let ok = PasswordHash::KINDS.contains(&kind) && rest.bytes().all(sound) && length;
        ok.then(|| PasswordHash(Secret::new(text.as_bytes().to_vec())))
    }

    /// The hash.
    pub fn expose(&self) -> &str {
        // `parse` has checked that the bytes are ASCII.
        std::str::from_utf8(self.0.expose()).unwrap_or_default()
    }
}

/// May have a password in it.
impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Storage").finish_non_exhaustive()
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expose())
    }
}

macro_rules! shows_its_text {
    ($($type:ident),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

shows_its_text!(Host, TimeZone, SshKey, Engine);
