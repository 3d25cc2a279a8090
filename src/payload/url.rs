//! Parses EST base URLs, and URLs of files. Never resolves a name and never connects.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use super::names::{DnsName, InterfaceName};
use crate::shown::Printable;

/// The server that signs the node's CSR.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EstUrl {
    /// EST over TLS.
    Https(HttpsUrl),
    /// The serial line that the payload came on.
    Line,
}

/// `https://HOST[:PORT]/PATH`, up to and including `/.well-known/est[/LABEL]` (RFC 7030 §3.2.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpsUrl {
    /// The URL as it was given, so that it is encoded and shown unchanged.
    text: String,
    host: UrlHost,
    /// The link of a link-local address, `%25eth0` (RFC 6874).
    zone: Option<InterfaceName>,
    port: u16,
    path: String,
}

/// The host of a URL. The server's certificate must be valid for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UrlHost {
    /// A name that has to be resolved.
    Dns(DnsName),
    /// An address.
    Ip(IpAddr),
}

/// Why a text is not such a URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UrlError {
    /// The URL does not begin with `https://`.
    NotHttps(Printable),
    /// The host is neither a DNS name nor an address.
    Host(Printable),
    /// The port is not 1 to 65535.
    Port(Printable),
    /// The path does not end as an EST base URL does, the text is longer than 512 bytes, or the path contains a query,
    /// a fragment or a character that a URL cannot have.
    Path(Printable),
}

impl HttpsUrl {
    /// Host name or address.
    pub fn host(&self) -> &UrlHost {
        &self.host
    }

    /// The link that a link-local address is on. It means something on this machine alone: no server gets to see it.
    pub fn zone(&self) -> Option<&InterfaceName> {
        self.zone.as_ref()
    }

    /// 443 unless the URL says otherwise.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Begins with a slash and ends without one; operations are appended to it: `{path}/simpleenroll`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The base URL of the same server for bundles: `/.well-known/imprint` in the place of `/.well-known/est` and what
    /// follows it.
    #[must_use]
    pub fn for_bundles(&self) -> HttpsUrl {
        let prefix = self.path.rsplit_once("/.well-known/").map_or("", |(prefix, _)| prefix);
        let path = format!("{prefix}{BUNDLES}");
        let authority = match &self.zone {
            Some(zone) => self.authority().replacen(']', &format!("%25{zone}]"), 1),
            None => self.authority(),
        };
        HttpsUrl { text: format!("https://{authority}{path}"), path, ..self.clone() }
    }

    /// The inverse: the base URL for bundles that this text is.
    pub fn read_for_bundles(text: &str) -> Result<HttpsUrl, UrlError> {
        let refused = || UrlError::Path(Printable::up_to(text, 120));
        let prefix = text.strip_suffix(BUNDLES).ok_or_else(refused)?;
        match EstUrl::try_from(format!("{prefix}/.well-known/est").as_str())? {
            EstUrl::Https(url) => Ok(url.for_bundles()),
            EstUrl::Line => Err(refused()),
        }
    }

    /// `https://HOST[:PORT]/FOLDER/FILE`. No comma, because a comma separates such URLs in a list; no query, which a file does not
    /// need.
    pub fn of_file(text: &str) -> Option<HttpsUrl> {
        let (host, zone, port, path) = https_parts(text).ok()?;
        let sound =
            is_path(path) && !path.contains(',') && path.rsplit_once('/').is_some_and(|(_, name)| !name.is_empty());
        sound.then(|| HttpsUrl { text: text.to_owned(), host, zone, port, path: path.to_owned() })
    }

    /// `host` or `host:port`, as the Host header field wants it (RFC 9112 §3.2).
    pub fn authority(&self) -> String {
        if self.port == 443 { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// How the base URL for bundles ends.
const BUNDLES: &str = "/.well-known/imprint";

/// Host, zone, port and path of `https://HOST[:PORT]/PATH`, of which the path was not looked at.
fn https_parts(text: &str) -> Result<(UrlHost, Option<InterfaceName>, u16, &str), UrlError> {
    let path = || UrlError::Path(Printable::up_to(text, 120));
    let rest = text.strip_prefix("https://").ok_or_else(|| UrlError::NotHttps(Printable::up_to(text, 120)))?;
    let (authority, rest) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).unwrap_or((rest, ""));
    let (authority, zone) = without_zone(authority).ok_or_else(|| UrlError::Host(Printable::up_to(text, 120)))?;
    let (host, port) = authority_parts(&authority)?;
    let link_local = matches!(host, UrlHost::Ip(IpAddr::V6(address)) if address.is_unicast_link_local());
    if zone.is_some() && !link_local {
        return Err(UrlError::Host(Printable::up_to(text, 120)));
    }
    if text.len() > 512 { Err(path()) } else { Ok((host, zone, port.unwrap_or(443), rest)) }
}

/// `[fe80::1%25eth0]:8443` without the zone, and the zone. `None`: it is no name that a link can have and a URL can carry as it is.
fn without_zone(authority: &str) -> Option<(Cow<'_, str>, Option<InterfaceName>)> {
    let Some((address, rest)) = authority.split_once("%25").filter(|_| authority.starts_with('[')) else {
        return Some((Cow::Borrowed(authority), None));
    };
    let (zone, rest) = rest.split_once(']')?;
    let plain = zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_~".contains(&byte));
    let zone = InterfaceName::try_from(zone).ok().filter(|_| plain)?;
    Some((Cow::Owned(format!("{address}]{rest}")), Some(zone)))
}

/// Whether a path has no query, no fragment, no empty folder, and only characters that a URL can have.
fn is_path(path: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&b);
    path.bytes().all(legal) && !path.contains("//")
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT` (RFC 3986 §3.2): the host, and the port where one is given.
pub fn authority_parts(text: &str) -> Result<(UrlHost, Option<u16>), UrlError> {
    let shown = || Printable::up_to(text, 120);
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, port) = bracketed.split_once(']').ok_or_else(|| UrlError::Host(shown()))?;
            let address = host.parse().map_err(|_| UrlError::Host(shown()))?;
            (UrlHost::Ip(IpAddr::V6(address)), port)
        }
        None => {
            let colon = text.find(':').unwrap_or(text.len());
            let (host, port) = text.split_at_checked(colon).unwrap_or((text, ""));
            let host = match host.parse() {
                Ok(address) => UrlHost::Ip(IpAddr::V4(address)),
                Err(_) => UrlHost::Dns(DnsName::try_from(host).map_err(|_| UrlError::Host(shown()))?),
            };
            (host, port)
        }
    };
    if port.is_empty() {
        return Ok((host, None));
    }
    let digits = port.strip_prefix(':').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok()).filter(|number| *number != 0);
    Ok((host, Some(number.ok_or_else(|| UrlError::Port(shown()))?)))
}

impl TryFrom<&str> for EstUrl {
    type Error = UrlError;
    fn try_from(text: &str) -> Result<EstUrl, UrlError> {
        if text == "line:" {
            return Ok(EstUrl::Line);
        }
        let shown = || Printable::up_to(text, 120);
        let (host, zone, port, path) = https_parts(text)?;
        let (base, label) = path.rsplit_once("/.well-known/est").ok_or_else(|| UrlError::Path(shown()))?;
        let label_ok =
            label.is_empty() || label.strip_prefix('/').is_some_and(|label| !label.is_empty() && !label.contains('/'));
        if !label_ok || !is_path(path) || base.contains("//") {
            return Err(UrlError::Path(shown()));
        }
        Ok(EstUrl::Https(HttpsUrl { text: text.to_owned(), host, zone, port, path: path.to_owned() }))
    }
}

impl fmt::Display for UrlHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UrlHost::Dns(name) => write!(f, "{name}"),
            UrlHost::Ip(IpAddr::V4(v4)) => write!(f, "{v4}"),
            UrlHost::Ip(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
        }
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for EstUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EstUrl::Https(url) => url.fmt(f),
            EstUrl::Line => f.write_str("line:"),
        }
    }
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UrlError::NotHttps(url) => write!(f, "\"{url}\" is not an https:// URL; EST is spoken over TLS only"),
            UrlError::Host(url) => write!(f, "\"{url}\" has no valid host: want a DNS name, an IPv4 address or [IPv6]"),
            UrlError::Port(url) => write!(f, "\"{url}\" has a port that is not 1 to 65535"),
            UrlError::Path(url) => {
                write!(f, "\"{url}\" is not an EST base URL: it must end in /.well-known/est or /.well-known/est/LABEL")
            }
        }
    }
}

impl std::error::Error for UrlError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_prints() {
        for text in [
            "https://ca.example/.well-known/est",
            "https://ca.example:8443/.well-known/est/nodes",
            "https://192.0.2.1:8443/.well-known/est",
            "https://[2001:db8::1]/prefix/.well-known/est",
            "https://[2001:DB8::1]:443/.well-known/est",
            "https://[fe80::1%25eth0]:8443/.well-known/est",
            "line:",
        ] {
            assert_eq!(EstUrl::try_from(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn bundles_are_beside_est() {
        let https = |text: &str| match EstUrl::try_from(text).unwrap() {
            EstUrl::Https(url) => url,
            EstUrl::Line => panic!("{text}"),
        };
        for (est, want) in [
            ("https://ca.example/.well-known/est", "https://ca.example/.well-known/imprint"),
            ("https://ca.example:8443/a/.well-known/est/nodes", "https://ca.example:8443/a/.well-known/imprint"),
            ("https://[2001:db8::1]/.well-known/est", "https://[2001:db8::1]/.well-known/imprint"),
        ] {
            let url = https(est).for_bundles();
            assert_eq!(url.to_string(), want);
            assert_eq!(HttpsUrl::read_for_bundles(want).unwrap(), url);
        }
        for text in
            ["https://ca.example/.well-known/est", "http://ca/.well-known/imprint", "https:///.well-known/imprint"]
        {
            HttpsUrl::read_for_bundles(text).unwrap_err();
        }
    }

    /// RFC 6874 §3: what is behind the per cent sign means something on this machine alone.
    #[test]
    fn a_link_local_address_has_its_link() {
        let Ok(EstUrl::Https(url)) = EstUrl::try_from("https://[fe80::1%25eth0.7]:8443/.well-known/est") else {
            panic!()
        };
        assert_eq!((url.zone().unwrap().as_str(), url.authority().as_str()), ("eth0.7", "[fe80::1]:8443"));
        assert_eq!(url.host(), &UrlHost::Ip("fe80::1".parse().unwrap()));
        let bundles = url.for_bundles();
        assert_eq!(bundles.to_string(), "https://[fe80::1%25eth0.7]:8443/.well-known/imprint");
        assert_eq!(HttpsUrl::read_for_bundles(&bundles.to_string()).unwrap(), bundles);
        for host in [
            "[2001:db8::1%25eth0]",
            "[fe80::1%eth0]",
            "[fe80::1%25]",
            "[fe80::1%25a b]",
            "[fe80::1%25eth0",
            "ca%25eth0",
        ] {
            let error = EstUrl::try_from(format!("https://{host}/.well-known/est").as_str()).unwrap_err();
            assert!(matches!(error, UrlError::Host(_)), "{host}: {error}");
        }
    }

    #[test]
    fn a_file_has_a_name_and_nothing_behind_it() {
        for text in ["https://h/root.sqfs", "https://[2001:db8::1]:8443/a/b%20c/root.erofs", "https://192.0.2.1/x"] {
            assert_eq!(HttpsUrl::of_file(text).unwrap().to_string(), text);
        }
        for text in [
            "http://h/x",
            "https://h",
            "https://h/",
            "https://h/a/",
            "https://h/a//b",
            "https://h/a?b",
            "https://h/a,b",
        ] {
            assert_eq!(HttpsUrl::of_file(text), None, "{text}");
        }
        assert_eq!(HttpsUrl::of_file(&format!("https://h/{}", "x".repeat(600))), None);
    }

    #[test]
    fn refuses_by_part() {
        let error = |text: &str| EstUrl::try_from(text).unwrap_err();
        assert!(matches!(error("http://ca.example/.well-known/est"), UrlError::NotHttps(_)));
        assert!(matches!(error("https://user@ca/.well-known/est"), UrlError::Host(_)));
        assert!(matches!(error("https://2001:db8::1/.well-known/est"), UrlError::Port(_)));
        assert!(matches!(error("https:///.well-known/est"), UrlError::Host(_)));
        assert!(matches!(error("https://ca:0/.well-known/est"), UrlError::Port(_)));
        assert!(matches!(error("https://ca:+80/.well-known/est"), UrlError::Port(_)));
        assert!(matches!(error("https://ca/est"), UrlError::Path(_)));
        assert!(matches!(error("https://ca/.well-known/est/"), UrlError::Path(_)));
        assert!(matches!(error("https://ca/.well-known/est?x"), UrlError::Path(_)));
        assert!(matches!(error("https://ca/.well-known/est/a\r\nb"), UrlError::Path(_)));
    }
}
