//! Types for names. `TryFrom` is the only way to make a value, so each value is valid. Never looks a name up.

use std::fmt;

use crate::secret::Secret;
use crate::shown::{Printable, line};

/// Why a text is not a valid name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameError {
    what: &'static str,
    rule: &'static str,
    given: Printable,
}

impl NameError {
    fn new(what: &'static str, rule: &'static str, given: &str) -> NameError {
        NameError { what, rule, given: Printable::up_to(given, 80) }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a {}: {}", self.given, self.what, self.rule)
    }
}

impl std::error::Error for NameError {}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub struct $type(String);

        impl $type {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $type {
            type Error = NameError;
            fn try_from(text: &str) -> Result<$type, NameError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok($type(text.to_owned())) } else { Err(NameError::new($what, $rule, text)) }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Labels of letters, digits and inner hyphens (RFC 1123 §2.1).
fn dns_labels(text: &str) -> bool {
    text.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

/// Whether the text is an IPv4 address. A certificate needs an address as iPAddress; as dNSName clients ignore it.
fn looks_like_ipv4(text: &str) -> bool {
    text.parse::<std::net::Ipv4Addr>().is_ok()
}

name! {
    /// A DNS name without trailing dot (RFC 1123 §2.1), at most 253 bytes.
    DnsName, "DNS name", "labels of 1 to 63 letters, digits and inner hyphens, 253 in all, no trailing dot",
    |text| text.len() <= 253 && dns_labels(text) && !looks_like_ipv4(text)
}

name! {
    /// A name for sethostname(2): at most 64 bytes (HOST_NAME_MAX on Linux).
    HostName, "host name", "labels of letters, digits and inner hyphens, at most 64 bytes in all",
    |text| text.len() <= 64 && dns_labels(text) && !looks_like_ipv4(text)
}

name! {
    /// A name that the kernel accepts for a network link (net/core/dev.c, dev_valid_name), printable ASCII only.
    InterfaceName, "link name", "1 to 15 printable ASCII characters without space, slash or colon, not . or ..",
    |text| {
        (1..=15).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
            && text != "." && text != ".."
    }
}

name! {
    /// The name of a kernel module.
    DriverName, "driver name", "1 to 63 letters, digits, hyphens and underscores",
    |text| (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

name! {
    /// Where the device of a link is, as udev's ID_PATH and `networkctl status` name it: `pci-0000:03:00.0`.
    DevicePath, "device path", "1 to 128 letters, digits and the characters . : - _ + @, like pci-0000:03:00.0 (udevadm info, ID_PATH)",
    |text| {
        (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b':' | b'-' | b'_' | b'+' | b'@'))
    }
}

name! {
    /// The name of a node's record. It is the HTTP Basic user name, too, and so contains no colon (RFC 7617 §2).
    NodeName, "node name", "1 to 64 letters, digits, dots, hyphens and underscores, not starting with a dot or hyphen",
    |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            && !text.starts_with(['.', '-'])
    }
}

name! {
    /// The name of a systemd unit (systemd.unit(5)), which no shell and no option parser takes for anything else.
    UnitName, "unit name",
    "1 to 255 of A-Z a-z 0-9 : _ . \\ @ -, not starting with a dot or hyphen, and one of systemd's suffixes, such as .service",
    |text| {
        let (stem, suffix) = text.rsplit_once('.').unwrap_or_default();
        text.len() <= 255
            && !stem.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'_' | b'.' | b'\\' | b'@' | b'-'))
            && !text.starts_with(['.', '-'])
            && UNIT_SUFFIXES.contains(&suffix)
    }
}

const UNIT_SUFFIXES: [&str; 11] =
    ["service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope"];

name! {
    /// An absolute URI in ASCII (RFC 3986): a scheme, a colon and at least one more character.
    Uri, "URI", "scheme:rest in printable ASCII, at most 512 bytes",
    |text| {
        let Some((scheme, rest)) = text.split_once(':') else { return false };
        text.len() <= 512
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
            && !rest.is_empty()
            && rest.bytes().all(|b| b.is_ascii_graphic())
    }
}

name! {
    /// A mail address in ASCII (RFC 5280 §4.2.1.6, rfc822Name).
    Email, "mail address", "local@domain in printable ASCII, at most 254 bytes",
    |text| {
        let Some((local, domain)) = text.rsplit_once('@') else { return false };
        text.len() <= 254
            && !local.is_empty()
            && local.bytes().all(|b| b.is_ascii_graphic() && b != b'@')
            && domain.len() <= 253
            && dns_labels(domain)
    }
}

/// An enrolment secret: 1 to 255 printable ASCII characters, so that HTTP Basic (RFC 7617) carries it unchanged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token(Secret);

impl Token {
    /// The secret, for the Authorization header.
    pub fn expose(&self) -> &str {
        // `try_from` has checked that the bytes are ASCII.
        std::str::from_utf8(self.0.expose()).unwrap_or_default()
    }
}

impl TryFrom<String> for Token {
    type Error = NameError;
    fn try_from(text: String) -> Result<Token, NameError> {
        let secret = Secret::new(text.into_bytes());
        let bytes = secret.expose();
        if (1..=255).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic) {
            Ok(Token(secret))
        } else {
            Err(NameError::new("token", "1 to 255 printable ASCII characters without spaces", "(not shown)"))
        }
    }
}

/// Attribute types of a subject, with the number that stands for each on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Attribute {
    /// 0: commonName, 2.5.4.3
    CommonName,
    /// 1: organizationName, 2.5.4.10
    Organization,
    /// 2: organizationalUnitName, 2.5.4.11
    OrganizationalUnit,
    /// 3: countryName, 2.5.4.6
    Country,
    /// 4: stateOrProvinceName, 2.5.4.8
    State,
    /// 5: localityName, 2.5.4.7
    Locality,
    /// 6: serialNumber, 2.5.4.5
    SerialNumber,
    /// 7: domainComponent, 0.9.2342.19200300.100.1.25
    DomainComponent,
}

impl Attribute {
    /// Every attribute type with its short name (RFC 4514 §3; serialNumber has none there).
    pub const ALL: [(Attribute, &str); 8] = [
        (Attribute::CommonName, "CN"),
        (Attribute::Organization, "O"),
        (Attribute::OrganizationalUnit, "OU"),
        (Attribute::Country, "C"),
        (Attribute::State, "ST"),
        (Attribute::Locality, "L"),
        (Attribute::SerialNumber, "serialNumber"),
        (Attribute::DomainComponent, "DC"),
    ];

    /// The number of the attribute type on the wire.
    pub fn number(self) -> u64 {
        Attribute::ALL.iter().zip(0..).find(|((attribute, _), _)| *attribute == self).map_or(0, |(_, n)| n)
    }

    /// The attribute type with this number.
    pub fn from_number(number: u64) -> Option<Attribute> {
        Attribute::ALL.get(usize::try_from(number).ok()?).map(|(attribute, _)| *attribute)
    }

    /// The short name of the attribute type.
    pub fn short_name(self) -> &'static str {
        Attribute::ALL.iter().find(|(attribute, _)| *attribute == self).map_or("?", |(_, name)| name)
    }
}

/// One attribute of a subject with a value that its type allows (upper bounds: RFC 5280 appendix A.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubjectAttribute {
    attribute: Attribute,
    value: String,
}

impl SubjectAttribute {
    /// Checks the value against its type.
    pub fn new(attribute: Attribute, value: &str) -> Result<SubjectAttribute, NameError> {
        let length = value.chars().count();
        let printable = |c: char| c.is_ascii_alphanumeric() || " '()+,-./:=?".contains(c); // X.680 §41.4
        let clean = !value.chars().any(char::is_control);
        let (ok, what, rule) = match attribute {
            Attribute::Country => (
                length == 2 && value.bytes().all(|b| b.is_ascii_uppercase()),
                "countryName",
                "two upper-case letters (ISO 3166)",
            ),
            Attribute::SerialNumber => (
                (1..=64).contains(&length) && value.chars().all(printable),
                "serialNumber",
                "1 to 64 characters of a PrintableString",
            ),
            Attribute::DomainComponent => {
                (length <= 63 && dns_labels(value) && !value.contains('.'), "domainComponent", "one DNS label")
            }
            Attribute::State | Attribute::Locality => (
                (1..=128).contains(&length) && clean,
                "subject attribute",
                "1 to 128 characters, no control characters",
            ),
            Attribute::CommonName | Attribute::Organization | Attribute::OrganizationalUnit => {
                ((1..=64).contains(&length) && clean, "subject attribute", "1 to 64 characters, no control characters")
            }
        };
        if ok {
            Ok(SubjectAttribute { attribute, value: value.to_owned() })
        } else {
            Err(NameError::new(what, rule, value))
        }
    }

    /// The attribute's type.
    pub fn attribute(&self) -> Attribute {
        self.attribute
    }

    /// The attribute's value.
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// A distinguished name in the order in which it is encoded; each attribute is an RDN of its own. May be empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subject(pub Vec<SubjectAttribute>);

/// `CN=node1, O=Example` in the order of the encoding, for people; RFC 4514 would reverse it.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}={}", part.attribute.short_name(), line(&part.value))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_refuses_what_would_hurt_later() {
        assert!(InterfaceName::try_from("eth0\n").is_err());
        assert!(InterfaceName::try_from("a/b").is_err());
        assert!(InterfaceName::try_from("enp0s31f6").is_ok());
        assert!(HostName::try_from("node-1.example").is_ok());
        assert!(HostName::try_from("-node").is_err());
        assert!(DnsName::try_from("10.0.0.1").is_err());
        assert!(NodeName::try_from("a:b").is_err());
        assert!(NodeName::try_from("../x").is_err());
        assert!(Uri::try_from("spiffe://example/node").is_ok());
        assert!(Uri::try_from("no-scheme").is_err());
        assert!(Email::try_from("root@node.example").is_ok());
        assert!(Token::try_from("a b".to_owned()).is_err());
        assert!(SubjectAttribute::new(Attribute::Country, "germany").is_err());
        assert!(SubjectAttribute::new(Attribute::CommonName, &"n".repeat(65)).is_err());
    }

    #[test]
    fn an_error_neither_floods_nor_drives_the_console() {
        let error = InterfaceName::try_from("\x1b[2Jeth0").unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"\\u{1b}[2Jeth0\" is not a link name: 1 to 15 printable ASCII characters without space, slash or colon, \
             not . or .."
        );
        assert!(DnsName::try_from("x".repeat(10_000).as_str()).unwrap_err().to_string().len() < 250);
    }

    #[test]
    fn attribute_numbers_are_their_positions() {
        for (position, (attribute, _)) in Attribute::ALL.iter().enumerate() {
            assert_eq!(attribute.number(), position as u64);
            assert_eq!(Attribute::from_number(position as u64), Some(*attribute));
        }
        assert_eq!(Attribute::from_number(8), None);
    }
}
