//! The keys of a record that say who is let in as its node at a door. They stay on the host: no payload has them. Knows no
//! caller.

use base64ct::{Base64, Encoding};
use imprint::payload::{Binding, NodeName};

use super::fields::{RecordError, Table, Value};
use super::one_of;
use crate::admission::{Admit, Facts, KeyName, Rule};

/// The DER of an Ed25519 public key before its 32 bytes (RFC 8410 §4).
pub(crate) const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The longest name of a network device (`IFNAMSIZ` less the zero byte).
const TAP_MAX: usize = 15;
/// The longest name of a virtual machine: that of a file.
const VM_MAX: usize = 255;

/// What a rule needs beside what the hypervisor knows.
pub(super) const CHECKED: &str = "uuid, serial or macs in bind, which the node itself checks: without them the machine behind this \
                                  device can pass on the call of another node, and have it use this record's payload";

/// Takes `admit` and what belongs to it.
pub(super) fn rule(table: &mut Table<'_>, binding: Option<&Binding>, facts: Facts) -> Result<Rule, RecordError> {
    let given = table.take("admit");
    let admit = given.as_ref().map_or(Ok(Admit::default()), |value| one_of(value, &Admit::ALL))?;
    let suffice = table.take("claims_suffice");
    let claims_suffice = suffice.as_ref().map_or(Ok(false), Value::bool)?;
    let named = table.take("admission_key");
    let keys = named.as_ref().map_or(Ok(Vec::new()), keys)?;
    if let Some(value) = &suffice
        && !matches!(admit, Admit::ApproveOnce | Admit::Known)
    {
        return Err(value.error("only with admit = \"approve-once\" or \"known\": the others do not rest on claims"));
    }
    if let Some(value) = named.as_ref().filter(|_| admit != Admit::Key) {
        return Err(value.error("only with admit = \"key\""));
    }
    if let Some(value) = given {
        let needs = match admit {
            Admit::Wire if facts.is_empty() => "cid, tap or vm in bind: what the hypervisor knows of the node",
            Admit::Known if binding.is_none() => "uuid, macs or serial in bind: what the node is known by",
            Admit::Key if keys.is_empty() => "admission_key: the name of a key, or its public key in base64",
            Admit::Armed | Admit::Key if binding.is_none() && facts.is_empty() => {
                "a bind: the door has to know which caller is the node"
            }
            _ => "",
        };
        if !needs.is_empty() {
            return Err(value.error(format!("\"{}\" needs {needs}", admit.word())));
        }
    }
    Ok(Rule { admit, claims_suffice, keys, facts })
}

/// Takes the keys of `bind` that only the host can know.
pub(super) fn facts(bind: &mut Table<'_>) -> Result<Facts, RecordError> {
    let cid = bind.take("cid").map(|value| {
        let cid: u32 = value.number(CIDS)?;
        // vsock(7): 0 to 2 are the hypervisor and the hosts, the highest is no address.
        if (3..u32::MAX).contains(&cid) { Ok(cid) } else { Err(value.error(format!("{cid}, want {CIDS}"))) }
    });
    let tap = bind.take("tap").map(|value| name(&value, TAP_MAX, "the name of a network device"));
    let vm = bind.take("vm").map(|value| name(&value, VM_MAX, "the name of a virtual machine"));
    Ok(Facts { cid: cid.transpose()?, tap: tap.transpose()?, vm: vm.transpose()? })
}

const CIDS: &str = "3 to 4294967294";

fn name(value: &Value<'_>, most: usize, what: &str) -> Result<String, RecordError> {
    let is_one = |text: &str| {
        (1..=most).contains(&text.len())
            && !matches!(text, "." | "..")
            && !text.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
    };
    value.with(what, |text| is_one(text).then(|| text.to_owned()))
}

/// One key or a list of keys.
fn keys(value: &Value<'_>) -> Result<Vec<KeyName>, RecordError> {
    let items = if value.string().is_ok() { vec![value.clone()] } else { value.array()? };
    if items.is_empty() {
        return Err(value.error("an empty list; name a key"));
    }
    items.iter().map(|item| item.with("the name of a key, or an Ed25519 public key in base64", key)).collect()
}

/// A public key (32 bytes, or its SubjectPublicKeyInfo), or a name.
fn key(text: &str) -> Option<KeyName> {
    let bytes = Base64::decode_vec(text).ok();
    let public = bytes.as_deref().map(|bytes| bytes.strip_prefix(&ED25519).unwrap_or(bytes));
    if let Some(public) = public.and_then(|public| <[u8; 32]>::try_from(public).ok()) {
        return Some(KeyName::Public(public));
    }
    NodeName::try_from(text).ok().map(|name| KeyName::Named(name.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::Record;
    use super::*;

    const LEAST: &str = "name = \"node1\"\nsubject = [\"CN=node1\"]\n";

    fn read(text: &str) -> Result<Record, RecordError> {
        Record::of_store("node1.toml", &format!("{LEAST}{text}\n"), &[])
    }

    #[test]
    fn what_a_record_says_about_callers() {
        assert_eq!(read("").unwrap().rule, Rule::default());
        let record = read("admit = \"wire\"\nbind = { cid = 3, tap = \"tap0\", vm = \"web-1\", serial = \"S\" }");
        let record = record.unwrap();
        let facts = Facts { cid: Some(3), tap: Some("tap0".to_owned()), vm: Some("web-1".to_owned()) };
        assert_eq!(record.rule, Rule { admit: Admit::Wire, facts, ..Rule::default() });
        assert_eq!(record.binding.unwrap().serial.as_deref(), Some("S"));
        // The hypervisor's knowledge alone: no item of a payload.
        assert_eq!(read("bind = { tap = \"tap0\" }").unwrap().binding, None);
        let known = read("admit = \"known\"\nclaims_suffice = true\nbind = { serial = \"S\" }").unwrap().rule;
        assert!(known.claims_suffice && known.admit == Admit::Known);
        let raw = Base64::encode_string(&[7; 32]);
        let spki = Base64::encode_string(&[&ED25519[..], &[8; 32]].concat());
        let text =
            format!("admit = \"key\"\nbind = {{ cid = 3 }}\nadmission_key = [\"rack-7\", \"{raw}\", \"{spki}\"]");
        let keys = [KeyName::Named("rack-7".to_owned()), KeyName::Public([7; 32]), KeyName::Public([8; 32])];
        assert_eq!(read(&text).unwrap().rule.keys, keys);
        let text = "admit = \"key\"\nbind = { cid = 3 }\nadmission_key = \"rack-7\"";
        assert_eq!(read(text).unwrap().rule.keys, keys[..1]);
    }

    /// Each case is appended to a minimal record, so that its first line is line 3.
    #[test]
    fn an_error_names_file_line_and_key() {
        let cases = [
            (
                "admit = \"always\"",
                "node1.toml:3: admit: \"always\" is not one of approve, armed, wire, key, approve-once, known",
            ),
            (
                "admit = \"wire\"\nbind = { serial = \"S\" }",
                "node1.toml:3: admit: \"wire\" needs cid, tap or vm in bind: what the hypervisor knows of the node",
            ),
            (
                "admit = \"known\"\nbind = { cid = 3 }",
                "node1.toml:3: admit: \"known\" needs uuid, macs or serial in bind: what the node is known by",
            ),
            (
                "admit = \"armed\"",
                "node1.toml:3: admit: \"armed\" needs a bind: the door has to know which caller is the node",
            ),
            (
                "admit = \"key\"\nbind = { cid = 3 }",
                "node1.toml:3: admit: \"key\" needs admission_key: the name of a key, or its public key in base64",
            ),
            ("admission_key = \"a\"", "node1.toml:3: admission_key: only with admit = \"key\""),
            (
                "claims_suffice = true",
                "node1.toml:3: claims_suffice: only with admit = \"approve-once\" or \"known\": the others do not rest on \
                 claims",
            ),
            ("claims_suffice = \"yes\"", "node1.toml:3: claims_suffice: want true or false, not string"),
            (
                "admit = \"key\"\nadmission_key = [\"a/b\"]",
                "node1.toml:4: admission_key[0]: \"a/b\" is not the name of a key, or an Ed25519 public key in base64",
            ),
            ("admit = \"key\"\nadmission_key = []", "node1.toml:4: admission_key: an empty list; name a key"),
            ("bind = { cid = 2 }", "node1.toml:3: bind.cid: 2, want 3 to 4294967294"),
            ("bind = { cid = 4294967295 }", "node1.toml:3: bind.cid: 4294967295, want 3 to 4294967294"),
            ("bind = { cid = -1 }", "node1.toml:3: bind.cid: -1, want 3 to 4294967294"),
            (
                "bind = { tap = \"sixteen-letters-\" }",
                "node1.toml:3: bind.tap: \"sixteen-letters-\" is not the name of a network device",
            ),
            ("bind = { vm = \"../x\" }", "node1.toml:3: bind.vm: \"../x\" is not the name of a virtual machine"),
        ];
        for (text, want) in cases {
            assert_eq!(read(text).unwrap_err().to_string(), want, "{text}");
        }
    }
}
