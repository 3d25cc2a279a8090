//! A node's record: parses TOML into validated values. Errors name file, line and key. Makes no payload; `compose` does.

pub(crate) mod admission;
pub mod bundle;
pub mod claims;
pub mod csv;
mod entitlement;
pub(crate) mod fields;
mod network;
pub mod settings;
mod template;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use imprint::hex;
use imprint::machine::placeholder;
use imprint::payload::{
    Attribute, Binding, CaCertificate, CertificateNames, CsrEnrolment, Enrolment, EnrolmentToken, EstUrl,
    HardwareAddress, HostName, KeyType, Link, NodeName, Payload, PayloadId, Seed, Subject, SubjectAttribute, Token,
    TokenMode, UrlHost,
};
use imprint::setting::Settings;
use imprint::shown::printable;
use imprint::time::Timestamp;

use crate::admission::{Admit, Facts, Rule};
use crate::ca::Usage;
pub use entitlement::Entitlement;
pub use fields::RecordError;
use fields::{Table, Text, Value};

const DAY: Duration = Duration::from_secs(86_400);
/// Default validity for a node that keeps its certificate over reboots.
const VALIDITY_ONCE: Duration = DAY.saturating_mul(90);
/// Default validity for a stateless node, which gets a new certificate at each boot.
const VALIDITY_EACH_BOOT: Duration = DAY;
const VALIDITY_MIN: Duration = Duration::from_secs(300);
const VALIDITY_MAX: Duration = DAY.saturating_mul(3650);

/// A node's record: what the administrator has said about the node before its first boot.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    /// The node's name in the store, and its HTTP Basic user name.
    pub name: NodeName,
    /// The names in its certificate. No other names are ever signed for it.
    pub names: CertificateNames,
    /// Host name to set.
    pub hostname: Option<HostName>,
    /// Type of its key.
    pub key: KeyType,
    /// How often its token may be used.
    pub mode: TokenMode,
    /// Which machine it is: its UUID, hardware addresses or serial number.
    pub binding: Option<Binding>,
    /// Links, in the order in which they are to be tried.
    pub network: Vec<Link>,
    /// The network is as the node's kernel command line says. Never with links.
    pub from_cmdline: bool,
    /// Validity of its certificates.
    pub validity: Duration,
    /// Usages of its certificates.
    pub usages: Vec<Usage>,
    /// SHA-256 of further CAs that its certificate may chain to.
    pub issuers: Vec<[u8; 32]>,
    /// Who is let in as this node at a door. No payload has it.
    pub rule: Rule,
    /// What the node's bundle is made of. No payload has it.
    pub set: Settings,
    /// How the node gets its bundle; `None`: it has none.
    pub bundle: Option<bundle::BundleRule>,
    /// SHA-256 of the image that is the node's root, where its boot fetches one.
    pub root: Option<[u8; 32]>,
}

impl Record {
    /// Compiles a record. No name may be that of a host in `urls`. `ca` is for a trial payload: what a node would refuse is
    /// an error here, with its line.
    pub fn compile(file: &str, text: &str, ca: &CaCertificate, urls: &[EstUrl]) -> Result<Record, RecordError> {
        let text = Text::new(file, text);
        let parsed = text.parse()?;
        let record = record(text.root(parsed.get_ref()), urls)?;
        record.binding.as_ref().map_or(Ok(()), |binding| identities(&text, binding))?;
        let life = (PayloadId([0; 16]), Timestamp::from_secs(0), Timestamp::MAX);
        let trial = record.payload(ca, urls, life, Token::try_from("trial".to_owned()).ok(), None);
        match Payload::decode(&trial.encode()) {
            Ok(_) => Ok(record),
            Err(error) => Err(text.error_at(&toml_key(&error.place), error.problem)),
        }
    }

    /// As [`Record::compile`], for a record that is to be added. What an earlier version took, and no rule lets in, is an error here.
    pub fn to_add(file: &str, text: &str, ca: &CaCertificate, urls: &[EstUrl]) -> Result<Record, RecordError> {
        let record = Record::compile(file, text, ca, urls)?;
        let Rule { admit, facts, .. } = &record.rule;
        let by_facts = matches!(admit, Admit::Wire | Admit::Key | Admit::Armed) && !facts.is_empty();
        if !by_facts || record.names_a_machine() {
            return Ok(record);
        }
        let text = Text::new(file, text);
        let parsed = text.parse()?;
        let mut table = text.root(parsed.get_ref());
        let problem = format!("\"{}\" needs {}", admit.word(), admission::CHECKED);
        Err(table.take("admit").map_or_else(|| text.error_at("admit", &problem), |value| value.error(&problem)))
    }

    /// As [`Record::compile`], without the trial payload: records in the store have passed it.
    pub fn of_store(file: &str, text: &str, urls: &[EstUrl]) -> Result<Record, RecordError> {
        let text = Text::new(file, text);
        let parsed = text.parse()?;
        record(text.root(parsed.get_ref()), urls)
    }

    /// Whether `bind` names one machine. A record of an earlier version may have a placeholder there.
    pub fn names_a_machine(&self) -> bool {
        placeholder::is_named(self.binding.as_ref())
    }
}

/// Reads a file that has `[[network]]` entries alone: the network of an image, before its nodes have a payload. What a node would
/// refuse, or cannot use, is an error here.
pub fn network(file: &str, text: &str) -> Result<Vec<Link>, RecordError> {
    let text = Text::new(file, text);
    let parsed = text.parse()?;
    let mut table = text.root(parsed.get_ref());
    let links = network::links(&table.need("network")?)?;
    table.finish()?;
    Link::decode_all(&Link::encode_all(&links))
        .map_err(|error| text.error_at(&toml_key(&error.place), error.problem))?;
    // With BOOTIF= or without it, the same links can be used.
    imprint::plan::early(links.clone(), HardwareAddress::new(&[0; 6]).as_ref())
        .map_err(|error| text.error_at("network", error))?;
    Ok(links)
}

/// Translates the payload codec's name for an item to the key in a record.
fn toml_key(place: &str) -> String {
    let renamed = [("binding", "bind"), ("names.subject", "subject"), ("names", "sans")];
    for (from, to) in renamed {
        if let Some(rest) = place.strip_prefix(from) {
            return format!("{to}{rest}");
        }
    }
    place.replace(".make.", ".")
}

/// What a digest has to be.
const DIGEST: &str = "a SHA-256 digest of 64 hexadecimal digits";

fn record(mut table: Table<'_>, urls: &[EstUrl]) -> Result<Record, RecordError> {
    let name = table.need("name")?.parse()?;
    let mut names = CertificateNames::default();
    let subject = table.list("subject", |value| attribute(&value, urls))?;
    names.subject = Subject(subject);
    for value in table.list("sans", Ok)? {
        alternative(&value, &mut names, urls)?;
    }
    let hostname = table.take("hostname").map(|value| value.parse()).transpose()?;
    let key = table.take("key").map_or(Ok(KeyType::P256), |value| one_of(&value, &KeyType::ALL))?;
    let modes = [(TokenMode::Once, "once"), (TokenMode::EachBoot, "each-boot")];
    let mode = table.take("enrol").map_or(Ok(TokenMode::Once), |value| one_of(&value, &modes))?;
    let bind = table.take("bind").map(|value| binding(&value)).transpose()?;
    let (binding, facts) = bind.unwrap_or_default();
    let rule = admission::rule(&mut table, binding.as_ref(), facts)?;
    let bundle = bundle::rule(&mut table, rule.admit)?;
    let (network, from_cmdline) = table.take("network").map_or(Ok(Default::default()), |value| network::of(&value))?;
    let default = if mode == TokenMode::Once { VALIDITY_ONCE } else { VALIDITY_EACH_BOOT };
    let validity = table.take("validity").map_or(Ok(default), |value| validity(&value))?;
    let mut usages = match table.take("usages") {
        None => vec![Usage::Client],
        Some(value) => {
            let given = value.array()?.iter().map(|item| one_of(item, &Usage::ALL)).collect::<Result<Vec<_>, _>>()?;
            if given.is_empty() {
                return Err(value.error("an empty list; leave it out for clientAuth"));
            }
            given
        }
    };
    usages.sort();
    usages.dedup();
    let issuers = table.list("issuers", |value| value.with(DIGEST, |text| hex::decode(text)?.try_into().ok()))?;
    let digest = |value: &Value<'_>| value.with(DIGEST, |text| hex::decode(text)?.try_into().ok());
    let root = table.take("root_sha256").map(|value| digest(&value)).transpose()?;
    let set = table.take("set").map_or(Ok(Settings::default()), |value| settings::settings(&value))?;
    let missing = table.error("subject or sans is missing; a certificate needs a name");
    table.finish()?;
    if names == CertificateNames::default() {
        return Err(missing);
    }
    Ok(Record {
        name,
        names,
        hostname,
        key,
        mode,
        binding,
        network,
        from_cmdline,
        validity,
        usages,
        issuers,
        rule,
        set,
        bundle,
        root,
    })
}

/// Reads a subject attribute, like `CN=node1`.
fn attribute(value: &Value<'_>, urls: &[EstUrl]) -> Result<SubjectAttribute, RecordError> {
    let known = || Attribute::ALL.map(|(_, name)| name).join(", ");
    let (kind, rest) = value.string()?.split_once('=').ok_or_else(|| value.error("want TYPE=VALUE, like CN=node1"))?;
    let kind = kind.trim();
    let found = Attribute::ALL.iter().find(|(_, name)| name.eq_ignore_ascii_case(kind));
    let (attribute, _) =
        found.ok_or_else(|| value.error(format!("unknown type \"{}\"; known: {}", printable(kind), known())))?;
    let part = SubjectAttribute::new(*attribute, rest.trim()).map_err(|error| value.error(error))?;
    if *attribute == Attribute::CommonName {
        not_a_server(value, part.value(), urls)?;
    }
    Ok(part)
}

/// Reads an alternative name, like `dns:node1.example.org`.
fn alternative(value: &Value<'_>, names: &mut CertificateNames, urls: &[EstUrl]) -> Result<(), RecordError> {
    let form = "want dns:NAME, ip:ADDRESS, uri:URI or email:ADDRESS";
    let (kind, rest) = value.string()?.split_once(':').ok_or_else(|| value.error(form))?;
    fn parsed<'r, T: TryFrom<&'r str>>(value: &Value<'_>, text: &'r str) -> Result<T, RecordError>
    where
        T::Error: std::fmt::Display,
    {
        T::try_from(text).map_err(|error| value.error(error))
    }
    fn add<T: PartialEq>(value: &Value<'_>, list: &mut Vec<T>, item: T) -> Result<(), RecordError> {
        if list.contains(&item) {
            return Err(value.error("given twice"));
        }
        list.push(item);
        Ok(())
    }
    match kind {
        "dns" => add(value, &mut names.dns, parsed(value, rest)?),
        "uri" => add(value, &mut names.uris, parsed(value, rest)?),
        "email" => add(value, &mut names.emails, parsed(value, rest)?),
        "ip" => {
            let address = rest.parse::<IpAddr>();
            let shown = printable(rest);
            let ip = address.map_err(|_| value.error(format!("\"{shown}\" is not an IP address")))?;
            add(value, &mut names.ips, ip)
        }
        _ => Err(value.error(form)),
    }?;
    not_a_server(value, rest, urls)
}

/// Refuses the EST server's own name: a node with that name could impersonate the server.
fn not_a_server(value: &Value<'_>, name: &str, urls: &[EstUrl]) -> Result<(), RecordError> {
    match server_named(name, urls) {
        Some(url) => Err(value.error(format!("{name} is the EST server's own ({url}); give the node another name"))),
        None => Ok(()),
    }
}

/// The EST URL whose host is this name or address.
fn server_named<'u>(name: &str, urls: &'u [EstUrl]) -> Option<&'u EstUrl> {
    let address = name.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    urls.iter().find(|url| match url {
        EstUrl::Https(https) => match https.host() {
            UrlHost::Dns(host) => host.as_str().eq_ignore_ascii_case(name.trim_end_matches('.')),
            UrlHost::Ip(ip) => address == Some(ip.to_canonical()),
        },
        EstUrl::Line => false,
    })
}

/// The first of these names that is the EST server's own. For records that were added before the URLs changed.
pub fn names_a_server(names: &CertificateNames, urls: &[EstUrl]) -> Option<String> {
    let common = names.subject.0.iter().filter(|part| part.attribute() == Attribute::CommonName);
    let mut all = common
        .map(|part| part.value().to_owned())
        .chain(names.dns.iter().map(ToString::to_string))
        .chain(names.ips.iter().map(ToString::to_string));
    all.find(|name| server_named(name, urls).is_some())
}

/// What the node must be true to, and what the host must know of it.
fn binding(value: &Value<'_>) -> Result<(Option<Binding>, Facts), RecordError> {
    let mut table = value.table()?;
    let uuid =
        table.take("uuid").map(|value| value.with("a UUID (8-4-4-4-12 hexadecimal digits)", uuid)).transpose()?;
    let macs = table.list("macs", |value| mac(&value))?;
    let serial = table.take("serial").map(|value| value.string().map(|text| text.trim().to_owned())).transpose()?;
    let binding = Binding { uuid, macs, serial };
    let facts = admission::facts(&mut table)?;
    let empty = table.error("empty; give uuid, macs, serial, cid, tap or vm, or leave bind out");
    table.finish()?;
    let binding = Some(binding).filter(|binding| *binding != Binding::default());
    if binding.is_none() && facts.is_empty() { Err(empty) } else { Ok((binding, facts)) }
}

/// Refuses what boards of one kind have in common: a payload with it would be good for each of them. Records in the store may
/// have such items; their nodes refuse the payload.
fn identities(text: &Text<'_>, binding: &Binding) -> Result<(), RecordError> {
    let refused = |key: &str, value: &str| {
        let remedy = "many machines have it instead of one of their own; give macs";
        Err(text.error_at(key, format!("\"{value}\" is a placeholder, which names no machine: {remedy}")))
    };
    if let Some(uuid) = binding.uuid.as_ref().filter(|uuid| placeholder::is_uuid(uuid)) {
        return refused("bind.uuid", &hex::uuid(uuid));
    }
    if let Some(serial) = binding.serial.as_ref().filter(|serial| placeholder::is_serial(serial) && !serial.is_empty())
    {
        return refused("bind.serial", serial);
    }
    match binding.macs.iter().enumerate().find(|(_, mac)| placeholder::is_mac(mac)) {
        Some((at, mac)) => refused(&format!("bind.macs[{at}]"), &mac.to_string()),
        None => Ok(()),
    }
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    (lengths == [8, 4, 4, 4, 12]).then(|| hex::decode(&text.replace('-', "")))?.and_then(|b| b.try_into().ok())
}

fn mac(value: &Value<'_>) -> Result<HardwareAddress, RecordError> {
    value.with("a hardware address of 6 or 20 bytes, like 52:54:00:12:34:56", HardwareAddress::parse)
}

fn validity(value: &Value<'_>) -> Result<Duration, RecordError> {
    let duration = value.with("a duration like 90d, 24h or 30m", duration)?;
    if (VALIDITY_MIN..=VALIDITY_MAX).contains(&duration) {
        return Ok(duration);
    }
    Err(value.error(format!("{}, want 5m to 3650d", value.string()?)))
}

/// Reads a duration: `90d`, `24h`, `30m` or `45s`.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let factor: u64 = match unit {
        "d" => 86_400,
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        _ => return None,
    };
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(factor).map(Duration::from_secs)
}

fn one_of<T: Copy>(value: &Value<'_>, all: &[(T, &str)]) -> Result<T, RecordError> {
    let names = || all.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
    let want = if all.len() == 1 { names() } else { format!("one of {}", names()) };
    value.with(&want, |text| all.iter().find(|(_, name)| *name == text).map(|(item, _)| *item))
}

impl Record {
    /// A payload with all values of the record. The other values are arguments.
    pub(crate) fn payload(
        &self,
        ca: &CaCertificate,
        urls: &[EstUrl],
        (id, composed, expiry): (PayloadId, Timestamp, Timestamp),
        token: Option<Token>,
        seed: Option<Seed>,
    ) -> Payload {
        Payload {
            id,
            composed,
            expiry,
            binding: self.binding.clone(),
            seed,
            network: self.network.clone(),
            from_cmdline: self.from_cmdline,
            hostname: self.hostname.clone(),
            ca: ca.clone(),
            issuers: self.issuers.clone(),
            enrolment: Enrolment::Csr(Box::new(CsrEnrolment {
                name: self.name.clone(),
                names: self.names.clone(),
                key: self.key,
                urls: urls.to_vec(),
                token: token.map(|secret| EnrolmentToken { secret, mode: self.mode }),
            })),
            signers: Vec::new(),
            bundle: None,
            root: self.root,
            extensions: Vec::new(),
        }
    }
}
