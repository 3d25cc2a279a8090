//! The claims of a record: names, bindings and addresses, each in one canonical spelling, so that equal claims of two
//! records are equal strings. Compares nothing and decides nothing; `state::adding` does.

use std::net::IpAddr;

use imprint::hex;
use imprint::payload::{Attribute, LinkKind, Match};

use super::Record;
use crate::admission::Facts;

/// The kind of a claim.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// The record's own name, compared without case.
    Record,
    /// A name in the certificate.
    Name,
    /// SMBIOS system UUID.
    Uuid,
    /// Hardware address in `bind` or of a link.
    Mac,
    /// SMBIOS system serial number.
    Serial,
    /// serialNumber in the certificate's subject.
    SubjectSerial,
    /// Host name.
    HostName,
    /// Static address of a link.
    Address,
    /// The context id of its vsock device.
    Cid,
    /// The port that its frames come from.
    Tap,
    /// The name of its virtual machine.
    Vm,
}

impl Kind {
    /// Every kind, with its word in the store and in JSON.
    pub const ALL: [(Kind, &str); 11] = [
        (Kind::Record, "record"),
        (Kind::Name, "name"),
        (Kind::Uuid, "uuid"),
        (Kind::Mac, "mac"),
        (Kind::Serial, "serial"),
        (Kind::SubjectSerial, "subject-serial"),
        (Kind::HostName, "hostname"),
        (Kind::Address, "address"),
        (Kind::Cid, "cid"),
        (Kind::Tap, "tap"),
        (Kind::Vm, "vm"),
    ];

    /// The kind's word.
    pub fn word(self) -> &'static str {
        Kind::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }

    /// The kind with this word.
    pub fn of(word: &str) -> Option<Kind> {
        Kind::ALL.iter().find(|(_, known)| *known == word).map(|(kind, _)| *kind)
    }

    /// Whether a claim of this kind identifies a machine, so that two records must not share it. Not: a host name (it can
    /// exist in two domains), an address (in two networks), and a subject's serialNumber (free text: a device's, a
    /// contract's).
    pub fn identifies(self) -> bool {
        !matches!(self, Kind::HostName | Kind::Address | Kind::SubjectSerial)
    }
}

/// A claim of a record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Claim {
    /// Its kind.
    pub kind: Kind,
    /// The canonical spelling, which is compared.
    pub value: String,
    /// The record's own spelling, for people.
    pub shown: String,
}

impl Record {
    /// All claims of the record, each once.
    pub fn claims(&self) -> Vec<Claim> {
        let mut claims: Vec<Claim> = Vec::new();
        let mut add = |kind: Kind, value: String, shown: String| {
            if !claims.iter().any(|known| known.kind == kind && known.value == value) {
                claims.push(Claim { kind, value, shown });
            }
        };
        add(Kind::Record, self.name.to_string().to_lowercase(), format!("the record name {}", self.name));
        let names = &self.names;
        for name in &names.dns {
            add(Kind::Name, dns(name.as_str()), format!("dns:{name}"));
        }
        for ip in &names.ips {
            add(Kind::Name, address(*ip), format!("ip:{ip}"));
        }
        for given in &names.uris {
            add(Kind::Name, format!("uri:{}", uri(given.as_str())), format!("uri:{given}"));
        }
        for given in &names.emails {
            add(Kind::Name, format!("email:{}", given.as_str().to_lowercase()), format!("email:{given}"));
        }
        let parts = &names.subject.0;
        let common = || parts.iter().filter(|part| part.attribute() == Attribute::CommonName);
        for part in common() {
            // Many programs read a common name as a DNS name or an address.
            let value = match part.value().parse::<IpAddr>() {
                Ok(ip) => address(ip),
                Err(_) => dns(&folded(part.value())),
            };
            add(Kind::Name, value, format!("CN={}", part.value()));
        }
        for part in parts.iter().filter(|part| part.attribute() == Attribute::SerialNumber) {
            add(Kind::SubjectSerial, folded(part.value()), format!("serialNumber={}", part.value()));
        }
        // Without a common name, the whole subject is the name, if it has a serialNumber or there are no alternative names.
        // Otherwise it may name only an organisation.
        let numbered = parts.iter().any(|part| part.attribute() == Attribute::SerialNumber);
        let alone = names.dns.is_empty() && names.ips.is_empty() && names.uris.is_empty() && names.emails.is_empty();
        if common().next().is_none() && (numbered || alone) {
            add(Kind::Name, format!("subject:{}", folded(&names.subject.to_string())), names.subject.to_string());
        }
        if let Some(binding) = &self.binding {
            if let Some(uuid) = &binding.uuid {
                add(Kind::Uuid, hex::encode(uuid), format!("UUID {}", dashed(uuid)));
            }
            if let Some(serial) = &binding.serial {
                add(Kind::Serial, folded(serial), format!("serial number {serial}"));
            }
            for mac in &binding.macs {
                add(Kind::Mac, mac.to_string(), format!("hardware address {mac}"));
            }
        }
        let Facts { cid, tap, vm } = &self.rule.facts;
        if let Some(cid) = cid {
            add(Kind::Cid, cid.to_string(), format!("vsock CID {cid}"));
        }
        if let Some(tap) = tap {
            add(Kind::Tap, tap.clone(), format!("tap {tap}"));
        }
        if let Some(vm) = vm {
            add(Kind::Vm, vm.clone(), format!("virtual machine {vm}"));
        }
        for link in &self.network {
            if let LinkKind::Physical(Match::Mac(mac)) = &link.kind {
                add(Kind::Mac, mac.to_string(), format!("hardware address {mac}"));
            }
            for prefix in link.addresses.iter().filter(|prefix| !is_of_its_link(prefix.address())) {
                add(Kind::Address, address(prefix.address()), format!("address {}", prefix.address()));
            }
        }
        if let Some(name) = &self.hostname {
            add(Kind::HostName, name.to_string().to_lowercase(), format!("host name {name}"));
        }
        claims
    }
}

fn dns(name: &str) -> String {
    format!("dns:{}", name.trim_end_matches('.').to_lowercase())
}

/// `192.0.2.1` and `::ffff:192.0.2.1` are one address; the standard library writes each in one way (RFC 5952).
fn address(ip: IpAddr) -> String {
    format!("ip:{}", ip.to_canonical())
}

/// Link-local and loopback addresses: every link may have the same ones (RFC 3927, RFC 4291 §2.5.6).
fn is_of_its_link(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_loopback(),
    }
}

/// Lower case with single spaces, for comparison (RFC 5280 §7.1).
pub(crate) fn folded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// A normalised URI: scheme and authority in lower case, needless escapes removed (RFC 3986 §6.2.2).
fn uri(text: &str) -> String {
    let plain = unescaped(text);
    let authority = plain.find("://").map_or(0, |at| at.saturating_add(3));
    let rest = plain.get(authority..).unwrap_or_default();
    let scheme_end = plain.find(':').unwrap_or(0);
    let end = if authority == 0 {
        scheme_end
    } else {
        authority.saturating_add(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
    };
    let (head, tail) = plain.split_at_checked(end).unwrap_or((plain.as_str(), ""));
    format!("{}{tail}", head.to_lowercase())
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let byte = after.get(..2).and_then(hex::decode).and_then(|bytes| bytes.first().copied());
        let Some(byte) = byte else {
            out.push('%');
            rest = after;
            continue;
        };
        match char::from(byte) {
            c if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~') => out.push(c),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        rest = after.get(2..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// A UUID in groups of 8-4-4-4-12 digits.
fn dashed(uuid: &[u8; 16]) -> String {
    let digits = hex::encode(uuid);
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(text: &str) -> Vec<Claim> {
        let text = format!("name = \"node1\"\n{text}");
        Record::of_store("node1.toml", &text, &[]).unwrap().claims()
    }

    fn values(text: &str, wanted: Kind) -> Vec<String> {
        claims(text).into_iter().filter(|claim| claim.kind == wanted).map(|claim| claim.value).collect()
    }

    /// Two spellings of one thing give one claim.
    #[test]
    fn spellings() {
        let one = "subject = [\"CN=Node1.Example.ORG\"]\n";
        let same = [
            (
                Kind::Name,
                "sans = [\"dns:node1.example.org\"]".to_owned(),
                "sans = [\"dns:NODE1.Example.Org\"]".to_owned(),
            ),
            (Kind::Name, one.to_owned(), "sans = [\"dns:node1.example.org\"]".to_owned()),
            (Kind::Name, "subject = [\"CN=the  Node\"]".to_owned(), "subject = [\"CN=The node\", \"O=X\"]".to_owned()),
            (Kind::Name, "sans = [\"ip:192.0.2.1\"]".to_owned(), "sans = [\"ip:::ffff:192.0.2.1\"]".to_owned()),
            (Kind::Name, "sans = [\"ip:2001:db8::1\"]".to_owned(), "subject = [\"CN=2001:DB8:0:0::1\"]".to_owned()),
            (Kind::Name, "sans = [\"email:a@b.org\"]".to_owned(), "sans = [\"email:A@B.ORG\"]".to_owned()),
            (
                Kind::Name,
                "sans = [\"uri:spiffe://example.org/node1\"]".to_owned(),
                "sans = [\"uri:SPIFFE://Example.org/n%6fde1\"]".to_owned(),
            ),
            (Kind::Name, "subject = [\"O=A\", \"OU=b\"]".to_owned(), "subject = [\"O=a\", \"OU=B\"]".to_owned()),
            (
                Kind::Mac,
                format!("{one}bind = {{ macs = [\"52:54:00:AB:cd:ef\"] }}"),
                format!("{one}[[network]]\nmatch = {{ mac = \"52-54-00-ab-CD-EF\" }}"),
            ),
            (
                Kind::Uuid,
                format!("{one}bind = {{ uuid = \"4C4C4544-0042-3510-8054-B4C04F564433\" }}"),
                format!("{one}bind = {{ uuid = \"4c4c4544-0042-3510-8054-b4c04f564433\" }}"),
            ),
            (
                Kind::Serial,
                format!("{one}bind = {{ serial = \"SN-1 \" }}"),
                format!("{one}bind = {{ serial = \"sn-1\" }}"),
            ),
            (
                Kind::SubjectSerial,
                "subject = [\"CN=a\", \"serialNumber=SN 1\"]".to_owned(),
                "subject = [\"O=b\", \"serialNumber=sn  1\"]".to_owned(),
            ),
            (Kind::HostName, format!("{one}hostname = \"Web\""), format!("{one}hostname = \"web\"")),
            (
                Kind::Address,
                format!("{one}[[network]]\nmatch = {{ any = true }}\naddresses = [\"2001:db8::1/64\"]"),
                format!("{one}[[network]]\nmatch = {{ any = true }}\naddresses = [\"2001:DB8:0::0:1/128\"]"),
            ),
        ];
        for (kind, left, right) in same {
            let (left_values, right_values) = (values(&left, kind), values(&right, kind));
            assert_eq!(left_values.len(), 1, "{left}");
            assert_eq!(left_values, right_values, "{left}\n{right}");
        }
    }

    #[test]
    fn what_differs() {
        let differ = [
            ("sans = [\"uri:spiffe://example.org/node1\"]", "sans = [\"uri:spiffe://example.org/Node1\"]"),
            ("sans = [\"uri:urn:a%2Fb\"]", "sans = [\"uri:urn:a/b\"]"),
            ("sans = [\"dns:a.org\"]", "sans = [\"email:a@a.org\"]"),
        ];
        for (left, right) in differ {
            assert_ne!(values(left, Kind::Name), values(right, Kind::Name), "{left}\n{right}");
        }
        // A subject that all nodes of a site share is not a claim.
        assert_eq!(values("subject = [\"O=Example\"]\nsans = [\"dns:a\"]", Kind::Name), ["dns:a"]);
        let own = "subject = [\"CN=a\"]\n[[network]]\nmatch = { any = true }\naddresses = [\"fe80::1/64\", \"169.254.0.1/16\"]";
        assert_eq!(values(own, Kind::Address), Vec::<String>::new());
        // The same name as common name and as alternative name gives one claim.
        assert_eq!(values("subject = [\"CN=a\"]\nsans = [\"dns:a\"]", Kind::Name), ["dns:a"]);
    }

    #[test]
    fn kinds_have_words() {
        for (kind, word) in Kind::ALL {
            assert_eq!((kind.word(), Kind::of(word)), (word, Some(kind)));
        }
    }
}
