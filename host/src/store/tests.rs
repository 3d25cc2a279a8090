use imprint::payload::KeyType;

use super::*;
use crate::state::State;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let url = EstUrl::try_from("https://est.example.org/.well-known/est").unwrap();
    let store = Store::create(&dir.path().join("imprint.db"), &[url], Timestamp::from_secs(1)).unwrap();
    (dir, store)
}

fn path(store: &Store) -> std::path::PathBuf {
    store.connection().path().unwrap().into()
}

#[test]
fn a_newer_store_is_refused() {
    let (_dir, store) = store();
    store.connection().pragma_update(None, "user_version", VERSION + 1).unwrap();
    let path = path(&store);
    drop(store);
    match Store::open(&path) {
        Err(StoreError::Newer { version, .. }) => assert_eq!(version, VERSION + 1),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    }
}

/// A store of the first version.
#[test]
fn an_older_store_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("imprint.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(STEPS[0]).unwrap();
    old.execute_batch(
        "INSERT INTO nodes VALUES ('node1', 'f', 'r', 1); PRAGMA user_version = 1;
         INSERT INTO payloads (id, node, token_hash, mode, composed, expiry)
         VALUES (zeroblob(16), 'node1', zeroblob(32), 'once', 1, 2);
         INSERT INTO audit (at, event, detail) VALUES (1, 'init', 'new CA');
             INSERT INTO certificates VALUES (x'01', 'node1', zeroblob(16), zeroblob(32), 'K', x'30', 1, 2);",
    )
    .unwrap();
    drop(old);
    let store = Store::open(&path).unwrap();
    let certificate = store.latest("node1").unwrap().0.unwrap();
    assert_eq!((certificate.der, certificate.renews, certificate.seen_at), (vec![0x30], None, None));
}

/// A store of each older version is updated: nothing is lost, and the log only grows.
#[test]
fn a_store_of_each_older_version_is_brought_up_to_date() {
    for version in 1..STEPS.len() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("imprint.db");
        let old = Connection::open(&path).unwrap();
        for step in &STEPS[..version] {
            old.execute_batch(step).unwrap();
        }
        old.execute_batch(&format!(
            "INSERT INTO nodes (name, file, record, added_at)
             VALUES ('node1', 'f', 'name = \"node1\"\nsans = [\"dns:a\"]\nkey = \"p384\"\n', 1);
             PRAGMA user_version = {version};
             INSERT INTO payloads (id, node, token_hash, mode, composed, expiry)
             VALUES (zeroblob(16), 'node1', zeroblob(32), 'once', 1, 99000);
             INSERT INTO audit (at, event, detail) VALUES (1, 'init', 'new CA');
             INSERT INTO certificates (serial, node, payload, spki_hash, key_code, der, issued_at, not_after)
             VALUES (x'01', 'node1', zeroblob(16), zeroblob(32), 'K', x'30', 1, 99000);"
        ))
        .unwrap();
        if version >= 3 {
            let sql = "INSERT INTO requests (node, spki_hash, key_code, why, peer, first_at, last_at)
                       VALUES ('node1', zeroblob(32), 'K', 'w', '192.0.2.1', 1000, 1000)";
            old.execute_batch(sql).unwrap();
        }
        drop(old);
        let now = Timestamp::from_secs(2);
        let mut store = Store::open(&path).unwrap();
        let (certificate, payload) = store.latest("node1").unwrap();
        let (certificate, payload) = (certificate.unwrap(), payload.unwrap());
        assert_eq!((certificate.peer, certificate.revoked, payload.denied_at), (None, None, None), "{version}");
        let waiting: Vec<_> = store.waiting("node1", now).unwrap().into_iter().map(|row| row.payload).collect();
        assert_eq!(waiting, vec![None; usize::from(version >= 3)], "{version}");
        let event = Event { event: "refused", node: None, peer: Some("192.0.2.1"), detail: "no credentials" };
        let changes = store.changes().unwrap();
        changes.audit_within(&Budget::Stranger, &event, now).unwrap();
        changes.commit().unwrap();
        assert_eq!(store.log(10).unwrap().iter().map(|row| row.actor.as_deref()).collect::<Vec<_>>(), [None; 2]);
        assert!(store.connection().execute("DELETE FROM audit", []).is_err(), "{version}");
        assert_eq!(store.unentitled().unwrap().len(), 1, "{version}");
        drop(store);
        // The store is put beside a CA that `init` made.
        let site = tempfile::tempdir().unwrap();
        let url = EstUrl::try_from("https://est.example.org/.well-known/est").unwrap();
        drop(State::init(site.path(), &[url], now).unwrap());
        std::fs::remove_file(site.path().join("imprint.db")).unwrap();
        Store::open(&path).unwrap().back_up(&site.path().join("imprint.db")).unwrap();
        let State { store, .. } = State::open(site.path()).unwrap();
        let entitlement = store.entitlement("node1").unwrap().unwrap();
        assert_eq!((entitlement.names.to_string(), entitlement.key), ("dns:a".to_owned(), KeyType::P384), "{version}");
        assert_eq!((store.unentitled().unwrap().len(), store.unclaimed().unwrap().len()), (0, 0), "{version}");
        let at: i64 = store.connection().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(at, VERSION);
    }
}

#[test]
fn an_unfinished_init_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("imprint.db");
    let unfinished = || match Store::open(&path) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("opened"),
    };
    let want = format!("{} is missing: init was not finished; remove the directory and run it again", path.display());
    assert_eq!(unfinished(), want);
    // The file exists, but init was killed before it wrote the URLs.
    std::fs::write(&path, b"").unwrap();
    let want = format!("{} is empty: init was not finished; remove the directory and run it again", path.display());
    assert_eq!((unfinished(), unfinished()), (want.clone(), want));
}

#[test]
fn the_audit_log_only_grows() {
    let (_dir, store) = store();
    for sql in ["DELETE FROM audit", "UPDATE audit SET detail = ''"] {
        let error = store.connection().execute(sql, []).unwrap_err();
        assert_eq!(error.to_string(), "the audit log is append-only");
    }
    assert_eq!(store.log(10).unwrap().len(), 1);
}

/// Refusals use up a budget while the clock is a day ahead; after the clock is set right, the budget is whole. Two
/// processes on one store share one budget.
#[test]
fn the_budget_of_an_hour_is_that_of_the_clock_and_of_all_programs() {
    let (_dir, mut store) = store();
    let mut other = Store::open(&path(&store)).unwrap();
    let now = Timestamp::from_secs(100_000);
    let (ahead, later) = (now.plus(Duration::from_secs(86_400)), now.plus(Duration::from_secs(3600)));
    let lines = |store: &mut Store, now, count: usize| {
        let before = store.log(100_000).unwrap().len();
        for number in 0..count {
            let peer = format!("192.0.2.{}", number % 200);
            let event = Event { event: "refused", node: None, peer: Some(&peer), detail: "no credentials" };
            let changes = store.changes().unwrap();
            changes.audit_within(&Budget::Stranger, &event, now).unwrap();
            changes.commit().unwrap();
        }
        store.log(100_000).unwrap().len() - before
    };
    assert_eq!((lines(&mut store, ahead, 200), lines(&mut other, ahead, 200)), (90, 0));
    assert_eq!((lines(&mut other, now, 60), lines(&mut store, now, 60)), (60, 30));
    assert_eq!(lines(&mut store, later, 200), 90);
    let counted: u64 = store.not_written().unwrap().map_or(0, |unwritten| unwritten.count);
    assert!(counted > 0);
}

#[test]
fn changes_that_are_dropped_did_not_happen() {
    let (_dir, mut store) = store();
    let now = Timestamp::from_secs(2);
    let node = NodeRow { name: "node1".into(), file: "f".into(), record: "r".into() };
    let changes = store.changes().unwrap();
    changes.put_node(&node, false, now).unwrap();
    drop(changes);
    assert!(store.node("node1").unwrap().is_none());
}

/// Committed data stays: write-ahead log, synced at each commit.
#[test]
fn durability() {
    let (_dir, store) = store();
    let pragma =
        |name| store.connection().pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
    assert_eq!(pragma("journal_mode").unwrap(), rusqlite::types::Value::Text("wal".into()));
    assert_eq!(pragma("synchronous").unwrap(), rusqlite::types::Value::Integer(2));
    assert_eq!(pragma("foreign_keys").unwrap(), rusqlite::types::Value::Integer(1));
}

/// A long write, as in a boot storm, must not block readers. Once, opening the store took the writers' lock, so that
/// `nodes` and `log` had to wait.
#[test]
fn who_reads_waits_for_nobody() {
    let (_dir, mut store) = store();
    let path = path(&store);
    let writing = store.changes().unwrap();
    let refused = Connection::open(&path).unwrap().execute_batch("PRAGMA busy_timeout = 0; BEGIN IMMEDIATE");
    assert_eq!(refused.unwrap_err().sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy), "the lock is held");
    let reader = Store::connect_within(&path, Duration::ZERO).unwrap();
    assert_eq!(reader.reading(|store| store.log(10)).unwrap().len(), 1);
    assert_eq!(reader.nodes().unwrap().len(), 0);
    drop(writing);
}
