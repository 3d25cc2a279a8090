//! Turns a `Payload` into CBOR values. Empty and absent items are left out, so that each payload has only one
//! encoding. This module never checks a payload; the types have done so.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_cbor::Value;
use zeroize::Zeroizing;

use super::super::address::address_bytes;
use super::super::{bundle, cbor};
use super::{VERSION, key};
use crate::payload::{
    BondMode, CsrEnrolment, Enrolment, InterfaceName, KeyType, Link, LinkKind, MAX_LEN, Match, Payload, Prefix,
    TokenMode,
};

pub(in crate::payload) fn encode(payload: &Payload) -> Zeroizing<Vec<u8>> {
    let mut root = Map::default();
    root.put(key::VERSION, uint(VERSION));
    root.put(key::ID, Value::Bytes(payload.id.0.to_vec()));
    root.put(key::COMPOSED, uint(payload.composed.as_millis()));
    root.put(key::EXPIRY, uint(payload.expiry.as_millis()));
    if let Some(binding) = &payload.binding {
        let mut map = Map::default();
        map.some(0, binding.uuid.map(|uuid| Value::Bytes(uuid.to_vec())));
        map.list(1, &binding.macs, |mac| Value::Bytes(mac.as_bytes().to_vec()));
        map.some(2, binding.serial.clone().map(Value::Text));
        root.put(key::BINDING, map.value());
    }
    if let Some(seed) = &payload.seed {
        let mut map = Map::default();
        map.put(0, Value::Bytes(seed.bytes.expose().to_vec()));
        map.flag(1, seed.single_boot);
        root.put(key::SEED, map.value());
    }
    root.list(key::NETWORK, &payload.network, link_value);
    root.flag(key::FROM_CMDLINE, payload.from_cmdline);
    root.some(key::HOSTNAME, payload.hostname.as_ref().map(text));
    root.put(key::CA, Value::Bytes(payload.ca.der().to_vec()));
    root.list(key::ISSUERS, &payload.issuers, |digest| Value::Bytes(digest.to_vec()));
    match &payload.enrolment {
        Enrolment::Csr(csr) => csr_values(csr, &mut root),
        Enrolment::Credentials(credentials) => {
            let mut map = Map::default();
            map.list(0, &credentials.chain, |der| Value::Bytes(der.clone()));
            map.put(1, Value::Bytes(credentials.key.expose().to_vec()));
            root.put(key::CREDENTIALS, map.value());
        }
    }
    root.list(key::SIGNERS, &payload.signers, |signer| Value::Bytes(signer.spki().to_vec()));
    root.some(key::BUNDLE, payload.bundle.as_ref().map(bundle::terms_value));
    root.some(key::ROOT, payload.root.map(|digest| Value::Bytes(digest.to_vec())));
    let mut value = root.value();
    for extension in &payload.extensions {
        cbor::restore(&mut value, extension);
    }
    let bytes = cbor::write(&value, MAX_LEN);
    cbor::wipe(&mut value);
    bytes
}

/// A network without the rest of a payload.
pub(in crate::payload) fn encode_network(links: &[Link]) -> Vec<u8> {
    let mut root = Map::default();
    root.put(key::VERSION, uint(VERSION));
    root.list(key::NETWORK, links, link_value);
    std::mem::take(&mut *cbor::write(&root.value(), MAX_LEN))
}

fn csr_values(csr: &CsrEnrolment, root: &mut Map) {
    let mut names = Map::default();
    names.list(0, &csr.names.subject.0, |part| {
        let mut map = Map::default();
        map.put(0, uint(part.attribute().number()));
        map.put(1, Value::Text(part.value().to_owned()));
        map.value()
    });
    names.list(1, &csr.names.dns, text);
    names.list(2, &csr.names.ips, address_value);
    names.list(3, &csr.names.uris, text);
    names.list(4, &csr.names.emails, text);
    root.put(key::NAMES, names.value());
    let key_type = match csr.key {
        KeyType::P256 => None,
        KeyType::P384 => Some(1),
        KeyType::Ed25519 => Some(2),
        KeyType::Rsa2048 => Some(3),
        KeyType::Rsa3072 => Some(4),
    };
    root.some(key::KEY_TYPE, key_type.map(uint));
    root.list(key::URLS, &csr.urls, text);
    root.put(key::NAME, text(&csr.name));
    if let Some(token) = &csr.token {
        let mut map = Map::default();
        map.put(0, Value::Text(token.secret.expose().to_owned()));
        map.flag(1, token.mode == TokenMode::EachBoot);
        root.put(key::TOKEN, map.value());
    }
}

fn link_value(link: &Link) -> Value {
    let mut map = Map::default();
    match &link.kind {
        LinkKind::Physical(matching) => {
            let mut inner = Map::default();
            match matching {
                Match::Mac(mac) => inner.put(0, Value::Bytes(mac.as_bytes().to_vec())),
                Match::Name(name) => inner.put(1, text(name)),
                Match::Driver(driver) => inner.put(2, text(driver)),
                Match::BootIf => inner.flag(3, true),
                Match::AnyWithCarrier => inner.flag(4, true),
                Match::Path(path) => inner.put(5, text(path)),
            }
            map.put(0, inner.value());
        }
        LinkKind::Vlan { name, id, parent } => {
            let mut vlan = Map::default();
            vlan.put(0, uint(u64::from(*id)));
            vlan.put(1, index(*parent));
            map.put(1, made(name, 1, vlan.value()));
        }
        LinkKind::Bond { name, mode, ports } => {
            let mut bond = Map::default();
            let number = match mode {
                BondMode::ActiveBackup => 0,
                BondMode::Lacp => 1,
                BondMode::LacpSlow => 2,
            };
            bond.put(0, uint(number));
            bond.list(1, ports, |port| index(*port));
            map.put(1, made(name, 2, bond.value()));
        }
        LinkKind::Bridge { name, ports } => {
            map.put(1, made(name, 3, Value::Array(ports.iter().map(|port| index(*port)).collect())));
        }
    }
    map.list(2, &link.addresses, prefix_value);
    map.flag(3, link.dhcp4);
    map.flag(4, link.slaac);
    map.flag(5, link.dhcp6);
    map.list(6, &link.routes, |route| {
        let mut map = Map::default();
        map.put(0, prefix_value(&route.destination));
        map.some(1, route.gateway.as_ref().map(address_value));
        map.some(2, route.metric.map(|metric| uint(u64::from(metric))));
        map.value()
    });
    map.list(7, &link.dns, address_value);
    map.list(8, &link.search, text);
    map.some(9, link.mtu.map(|mtu| uint(u64::from(mtu))));
    map.flag(10, link.duid);
    map.value()
}

fn made(name: &InterfaceName, key: i8, kind: Value) -> Value {
    let mut map = Map::default();
    map.put(0, text(name));
    map.put(key, kind);
    map.value()
}

fn uint(number: u64) -> Value {
    Value::Integer(i128::from(number))
}

fn index(index: usize) -> Value {
    uint(u64::try_from(index).unwrap_or(u64::MAX))
}

fn text(text: &impl ToString) -> Value {
    Value::Text(text.to_string())
}

fn address_value(address: &IpAddr) -> Value {
    Value::Bytes(address_bytes(*address))
}

fn prefix_value(prefix: &Prefix) -> Value {
    let mut bytes = address_bytes(prefix.address());
    bytes.push(prefix.length());
    Value::Bytes(bytes)
}

/// A map under construction. Empty lists, absent values and false flags are left out.
#[derive(Default)]
struct Map(BTreeMap<Value, Value>);

impl Map {
    fn put(&mut self, key: i8, value: Value) {
        self.0.insert(Value::Integer(i128::from(key)), value);
    }

    fn some(&mut self, key: i8, value: Option<Value>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn list<T>(&mut self, key: i8, items: &[T], each: impl Fn(&T) -> Value) {
        if !items.is_empty() {
            self.put(key, Value::Array(items.iter().map(each).collect()));
        }
    }

    fn flag(&mut self, key: i8, set: bool) {
        if set {
            self.put(key, Value::Bool(true));
        }
    }

    fn value(self) -> Value {
        Value::Map(self.0)
    }
}
