//! Tests that this version opens a store of an older imprint-host and finds everything in it.

use std::collections::BTreeMap;
use std::path::Path;

use imprint::payload::EstUrl;
use imprint::secret::Secret;
use imprint::time::Timestamp;
use imprint_host::compose::Options;
use imprint_host::csr::Csr;
use imprint_host::enrol::{self, Answer, Credentials, Proof, Refusal, Request};
use imprint_host::list;
use imprint_host::record::Record;
use imprint_host::state::State;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rusqlite::Connection;
use rusqlite::types::Value;

/// What version 6 wrote: `init`, records of every kind of key and name, also from a CSV file and one that is allowed to be a
/// duplicate; payloads that are good, void, used and with a certificate; certificates that are valid, renewed and revoked; a
/// request that waits; refusals. And a record that it did not understand itself.
const VERSION_6: &str = include_str!("data/store-6/imprint.sql");
/// What its `--json nodes` and `--json log` said of that.
const NODES: &str = include_str!("data/store-6/nodes.json");
const LOG: &str = include_str!("data/store-6/log.json");
/// The token of a payload that nobody has used.
const TOKEN: &str = "hNA1GaGKzrtu0DzHwPATrA";

/// Half an hour after that.
fn now() -> Timestamp {
    Timestamp::from_secs(1_795_957_200)
}

/// A directory with that store and a CA.
fn older() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let url = EstUrl::try_from("https://127.0.0.1:18443/.well-known/est").unwrap();
    drop(State::init(dir.path(), &[url], now()).unwrap());
    let path = dir.path().join("imprint.db");
    for file in std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()) {
        if file.file_name().unwrap().to_string_lossy().starts_with("imprint.db") {
            std::fs::remove_file(file).unwrap();
        }
    }
    Connection::open(&path).unwrap().execute_batch(VERSION_6).unwrap();
    dir
}

/// Every row of every table, with the columns that the older program knew.
fn rows(dir: &Path, columns: &BTreeMap<String, Vec<String>>) -> BTreeMap<String, Vec<Vec<Value>>> {
    let store = Connection::open(dir.join("imprint.db")).unwrap();
    let of = |(table, columns): (&String, &Vec<String>)| {
        let mut found = store.prepare(&format!("SELECT {} FROM {table} ORDER BY rowid", columns.join(", "))).unwrap();
        let row = |row: &rusqlite::Row<'_>| (0..columns.len()).map(|index| row.get(index)).collect();
        (table.clone(), found.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap())
    };
    columns.iter().map(of).collect()
}

fn columns(dir: &Path) -> BTreeMap<String, Vec<String>> {
    let store = Connection::open(dir.join("imprint.db")).unwrap();
    let texts = |sql: &str| -> Vec<String> {
        store.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let tables = texts("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'");
    let of = |table: String| (texts(&format!("SELECT name FROM pragma_table_info('{table}')")), table);
    tables.into_iter().map(of).map(|(columns, table)| (table, columns)).collect()
}

fn csr(state: &mut State, token: &str, pair: &KeyPair, dns: &str) -> Answer {
    let mut params = CertificateParams::new([dns.to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    ask(state, "ed25519", token, &params, pair)
}

fn ask(state: &mut State, node: &str, token: &str, params: &CertificateParams, pair: &KeyPair) -> Answer {
    let csr = Csr::parse(params.serialize_request(pair).unwrap().der());
    let proof = Proof::Token(Secret::new(token.as_bytes().to_vec()));
    let credentials = Credentials { name: node.to_owned(), proof };
    let request = Request { csr: csr.as_ref(), credentials: Some(&credentials), peer: "192.0.2.1" };
    state.decide(now(), |desk| enrol::simple_enroll(desk, &request)).unwrap().answer
}

#[test]
fn nothing_in_it_is_lost() {
    let dir = older();
    let columns = columns(dir.path());
    let before = rows(dir.path(), &columns);
    assert!(before.len() >= 9 && before["audit"].len() > 40 && before["certificates"].len() == 3, "{columns:?}");
    let state = State::open(dir.path()).unwrap();
    assert_eq!(list::nodes_json(&list::nodes(&state, now()).unwrap()).to_string(), NODES.trim_end());
    assert_eq!(list::log_json(&state.store.log(1000).unwrap()).to_string(), LOG.trim_end());
    drop(state);
    assert_eq!(rows(dir.path(), &columns), before);
    // The second time there is nothing to do.
    let store = Connection::open(dir.path().join("imprint.db")).unwrap();
    let changes = || -> i64 { store.pragma_query_value(None, "data_version", |row| row.get(0)).unwrap() };
    let known = changes();
    drop(State::open(dir.path()).unwrap());
    assert_eq!(changes(), known, "opening it wrote something");
}

/// What is decided by is in columns now: they say what the records say.
#[test]
fn nodes_are_entitled_to_what_their_records_say() {
    let dir = older();
    let state = State::open(dir.path()).unwrap();
    let nodes = state.store.nodes().unwrap();
    assert_eq!(nodes.len(), 9);
    for row in nodes {
        let found = state.store.entitlement(&row.name).unwrap();
        let record = Record::of_store(&row.file, &row.record, &state.urls);
        assert_eq!(found, record.as_ref().ok().map(Record::entitlement), "{}", row.name);
        assert_eq!(found.is_none(), row.name == "obsolete");
    }
}

/// A payload that was made before is good for what it was good for, and for nothing else.
#[test]
fn its_payloads_are_good_still() {
    let dir = older();
    let mut state = State::open(dir.path()).unwrap();
    let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let refused = csr(&mut state, TOKEN, &pair, "other.example.org");
    assert!(matches!(refused, Answer::Refused(Refusal::Csr(_))), "{refused:?}");
    let refused = csr(&mut state, "another", &pair, "ed25519.example.org");
    assert_eq!(refused, Answer::Refused(Refusal::Unknown { node_exists: true }));
    let issued = csr(&mut state, TOKEN, &pair, "ed25519.example.org");
    assert!(matches!(issued, Answer::Issued { .. }), "{issued:?}");
    let again = csr(&mut state, TOKEN, &KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(), "ed25519.example.org");
    assert!(matches!(again, Answer::Issued { .. }), "the first may have got lost: {again:?}");
}

/// A record that was not understood before either: it is named, and once it is replaced all is well.
#[test]
fn a_record_that_is_not_understood_can_be_replaced() {
    let dir = older();
    let mut state = State::open(dir.path()).unwrap();
    assert_eq!(state.store.entitlement("obsolete").unwrap(), None);
    assert!(state.record("obsolete").unwrap_err().to_string().starts_with("obsolete.toml:3: colour: unknown key"));
    let better = ("obsolete.toml".to_owned(), "name = \"obsolete\"\nsubject = [\"CN=obsolete\"]\n".to_owned());
    state.add_nodes(&[better], true, now()).unwrap();
    assert_eq!(state.store.entitlement("obsolete").unwrap().unwrap().names.to_string(), "CN=obsolete");
    // What the old record said is gone with it.
    let other = ("obsolete.toml".to_owned(), "name = \"obsolete\"\nsans = [\"dns:b\"]\nkey = \"p384\"\n".to_owned());
    state.add_nodes(&[other], true, now()).unwrap();
    let found = state.store.entitlement("obsolete").unwrap().unwrap();
    assert_eq!((found.names.to_string(), found.key.to_string()), ("dns:b".to_owned(), "p384".to_owned()));
    let store = Connection::open(dir.path().join("imprint.db")).unwrap();
    store.execute("UPDATE nodes SET record = 'name = 1' WHERE name = 'obsolete'", []).unwrap();
    assert_eq!(state.store.entitlement("obsolete").unwrap(), None, "also when somebody changes it in the store");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "obsolete");
    let refused = ask(&mut state, "obsolete", "none", &params, &KeyPair::generate().unwrap());
    assert_eq!(refused, Answer::Refused(Refusal::Unknown { node_exists: true }));
}

/// An older version took a record without clientAuth. No command makes a payload of it any more, and a failed attempt
/// voids no earlier payload or certificate.
#[test]
fn a_record_whose_certificate_could_never_be_renewed_yields_no_payload() {
    let dir = older();
    let only_server =
        "name = \"ed25519\"\nsans = [\"dns:ed25519.example.org\"]\nkey = \"ed25519\"\nusages = [\"serverAuth\"]\n";
    let store = Connection::open(dir.path().join("imprint.db")).unwrap();
    let changed = store.execute("UPDATE nodes SET record = ?1 WHERE name = 'ed25519'", [only_server]).unwrap();
    assert_eq!(changed, 1, "the premise: the record is in the store");
    drop(store);
    let mut state = State::open(dir.path()).unwrap();
    let options = Options::default();
    let refused = [
        state.payload("ed25519", &options, now()).map(|_| ()).unwrap_err(),
        state.payloads(&["ed25519".to_owned()], &options, now()).map(|_| ()).unwrap_err(),
        // The first call of inject.
        state.record("ed25519").map(|_| ()).unwrap_err(),
    ];
    for error in refused {
        let error = error.to_string();
        assert!(
            error.contains("usages lack clientAuth") && error.contains("write usages = [\"clientAuth\""),
            "{error}"
        );
    }
    let nodes = list::nodes_json(&list::nodes(&state, now()).unwrap()).to_string();
    assert!(nodes.contains("usages lack clientAuth"), "nodes says so, too: {nodes}");
    let better = only_server.replace("[\"serverAuth\"]", "[\"clientAuth\", \"serverAuth\"]");
    state.add_nodes(&[("ed25519.toml".to_owned(), better)], true, now()).unwrap();
    state.payload("ed25519", &options, now()).unwrap();
}
