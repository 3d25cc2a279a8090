//! Tests of two records for one machine or one identity: what is refused, the messages, and what an administrator can
//! allow.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output};

use imprint::time::Timestamp;
use imprint_host::state::State;
use serde_json::Value;

const URL: &str = "https://127.0.0.1:8443/.well-known/est";

struct Site {
    temp: tempfile::TempDir,
    dir: PathBuf,
}

impl Site {
    fn new() -> Site {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("state");
        let site = Site { temp, dir };
        site.fine(&["init", "--url", URL]);
        site
    }

    fn host(&self, arguments: &[&str]) -> Output {
        let program = env!("CARGO_BIN_EXE_imprint-host");
        Command::new(program)
            .arg("--dir")
            .arg(&self.dir)
            .args(arguments)
            .current_dir(self.temp.path())
            .output()
            .unwrap()
    }

    /// Standard output and standard error.
    fn fine(&self, arguments: &[&str]) -> (String, String) {
        let output = self.host(arguments);
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{arguments:?}: {err}");
        (out, err)
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.host(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.temp.path().join(name), text).unwrap();
    }

    fn state(&self) -> State {
        State::open(&self.dir).unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.state().store.nodes().unwrap().into_iter().map(|row| row.name).collect()
    }

    fn log(&self, event: &str) -> Vec<String> {
        let rows = self.state().store.log(1000).unwrap();
        let rows = rows.into_iter().filter(|row| row.event == event);
        rows.map(|row| format!("{}: {}", row.node.unwrap_or_default(), row.detail)).collect()
    }
}

fn record(name: &str, text: &str) -> String {
    format!("name = \"{name}\"\n{text}\n")
}

/// What the one record has and the other, too, in other letters; and what each is called.
const ROWS: [(&str, &str, &str, &str); 9] = [
    (
        "subject = [\"CN=web.example.org\"]",
        "subject = [\"CN=Web.Example.org\", \"O=B\"]",
        "CN=web.example.org",
        "CN=Web.Example.org",
    ),
    (
        "sans = [\"dns:web.example.org\"]",
        "sans = [\"dns:WEB.example.org\"]",
        "dns:web.example.org",
        "dns:WEB.example.org",
    ),
    (
        "subject = [\"CN=web.example.org\"]",
        "sans = [\"dns:web.example.org\"]",
        "CN=web.example.org",
        "dns:web.example.org",
    ),
    ("sans = [\"ip:2001:db8::1\"]", "sans = [\"ip:2001:DB8:0:0::1\"]", "ip:2001:db8::1", "ip:2001:db8::1"),
    (
        "sans = [\"uri:spiffe://example.org/a\"]",
        "sans = [\"uri:spiffe://EXAMPLE.org/a\"]",
        "uri:spiffe://example.org/a",
        "uri:spiffe://EXAMPLE.org/a",
    ),
    (
        "sans = [\"email:a@example.org\"]",
        "sans = [\"email:A@example.org\"]",
        "email:a@example.org",
        "email:A@example.org",
    ),
    (
        "sans = [\"dns:a\"]\nbind = { uuid = \"4C4C4544-0042-3510-8054-B4C04F564433\" }",
        "sans = [\"dns:b\"]\nbind = { uuid = \"4c4c4544-0042-3510-8054-b4c04f564433\" }",
        "UUID 4c4c4544-0042-3510-8054-b4c04f564433",
        "UUID 4c4c4544-0042-3510-8054-b4c04f564433",
    ),
    (
        "sans = [\"dns:a\"]\nbind = { macs = [\"52:54:00:12:34:56\", \"52:54:00:AB:CD:EF\"] }",
        "sans = [\"dns:b\"]\n[[network]]\nmatch = { mac = \"52-54-00-ab-cd-ef\" }",
        "hardware address 52:54:00:ab:cd:ef",
        "hardware address 52:54:00:ab:cd:ef",
    ),
    (
        "sans = [\"dns:a\"]\nbind = { serial = \"SN-0042\" }",
        "sans = [\"dns:b\"]\nbind = { serial = \"sn-0042\" }",
        "serial number SN-0042",
        "serial number sn-0042",
    ),
];

/// Somebody copies a record and forgets to change one line of it: both machines would get certificates of one identity,
/// or a payload would go to either. One after the other, both at once, and as rows of a table.
#[test]
fn one_identity_in_two_records_is_refused() {
    for (first, second, has, wants) in ROWS {
        let site = Site::new();
        site.file("one.toml", &record("node1", first));
        site.file("two.toml", &record("node2", second));
        let also = if has == wants { String::new() } else { format!(": {has}") };
        let want = format!(
            "imprint-host: two.toml: node2: {wants} is node1's already (one.toml{also}); two records must not be one \
             identity: change one of them (node add --replace), or allow it with --allow-duplicate node2\n"
        );
        assert_eq!(site.refused(&["node", "add", "one.toml", "two.toml"]), want);
        assert_eq!(site.names(), Vec::<String>::new(), "all of them or none");
        site.fine(&["node", "add", "one.toml"]);
        assert_eq!(site.refused(&["node", "add", "two.toml"]), want);
        assert_eq!(site.names(), ["node1"]);
        // Only the one that is named may.
        site.file("three.toml", &record("node3", "sans = [\"dns:c\"]"));
        let error = site.refused(&["node", "add", "two.toml", "three.toml", "--allow-duplicate", "node3"]);
        assert_eq!(error, want);
        let (_, warning) = site.fine(&["node", "add", "two.toml", "three.toml", "--allow-duplicate", "node2"]);
        let said = format!(
            "{wants} is node1's, too (one.toml), and was allowed: programs that use it cannot tell the nodes apart"
        );
        assert_eq!(warning, format!("imprint-host: warning: node2: {said}\n"));
        assert_eq!(site.log("duplicate"), [format!("node2: {wants} is node1's, too ({has})")]);
        // Who has given it up has it no more, and the other one still has.
        site.file("one.toml", &record("node1", "sans = [\"dns:other\"]"));
        site.fine(&["node", "add", "--replace", "one.toml"]);
        site.file("four.toml", &record("node4", first));
        let error = site.refused(&["node", "add", "four.toml"]);
        assert!(error.contains(&format!("four.toml: node4: {has} is node2's already (two.toml")), "{error}");
    }
}

#[test]
fn one_identity_in_two_rows_is_refused() {
    let site = Site::new();
    let row = |name: &str, serial: &str| format!("{name},CN={name},{serial}\n");
    site.file("nodes.csv", &format!("name,subject,bind.serial\n{}{}", row("node1", "S1"), row("node2", "s1")));
    let error = site.refused(&["node", "add", "--csv", "nodes.csv"]);
    assert!(
        error.starts_with(
            "imprint-host: nodes.csv:3: node2: serial number s1 is node1's already (nodes.csv:2: serial number S1)"
        ),
        "{error}"
    );
    site.file("nodes.csv", &format!("name,subject\n{}", "Node1,CN=a\nnode1,CN=b\nnode2,CN=A\n"));
    let error = site.refused(&["node", "add", "--csv", "nodes.csv"]);
    assert!(
        error.starts_with("imprint-host: nodes.csv:3: node1: the record name node1 is Node1's already "),
        "{error}"
    );
    assert!(error.ends_with(" --allow-duplicate node1; 1 more names or bindings belong to other nodes\n"), "{error}");
    let error = site.refused(&["node", "add", "--csv", "nodes.csv", "--allow-duplicate", "node9"]);
    let want = "imprint-host: --allow-duplicate node9: none of the records to add has this name\n";
    assert_eq!(error, want);
    let allowed = ["--allow-duplicate", "node1", "--allow-duplicate", "node2"];
    site.fine(&[&["node", "add", "--csv", "nodes.csv"], &allowed[..]].concat());
    assert_eq!(site.names().len(), 3);
}

/// Every record says the same organisation, and its own name beside it.
#[test]
fn what_names_nobody_may_stand_in_many() {
    let site = Site::new();
    site.file("one.toml", &record("node1", "subject = [\"O=Example\"]\nsans = [\"dns:a\"]"));
    site.file("two.toml", &record("node2", "subject = [\"O=Example\"]\nsans = [\"dns:b\"]"));
    assert_eq!(site.fine(&["node", "add", "one.toml", "two.toml"]).1, "");
}

/// Whatever a later version of this program forgets to ask, the table does not forget.
#[test]
fn the_table_itself_has_each_once() {
    let site = Site::new();
    site.file("one.toml", &record("node1", "sans = [\"dns:a\"]"));
    site.file("two.toml", &record("node2", "sans = [\"dns:b\"]"));
    site.fine(&["node", "add", "one.toml", "two.toml"]);
    let store = rusqlite::Connection::open(site.dir.join("imprint.db")).unwrap();
    let add = |shared: u8| {
        let sql = "INSERT INTO claims (node, kind, value, shown, shared) VALUES ('node2', 'name', 'dns:a', '', ?1)";
        store.execute(sql, [shared]).map_err(|error| error.to_string())
    };
    let want = "UNIQUE constraint failed: claims.kind, claims.value".to_owned();
    assert_eq!((add(0), add(1)), (Err(want), Ok(1)));
}

/// They are right in two networks, and wrong in one.
#[test]
fn addresses_and_host_names_that_stand_twice_are_said() {
    let site = Site::new();
    let text = |name: &str, address: &str| {
        let network = format!("[[network]]\nmatch = {{ any = true }}\naddresses = [\"{address}\"]");
        record(name, &format!("subject = [\"CN={name}\"]\nhostname = \"Web\"\n{network}"))
    };
    site.file("one.toml", &text("node1", "2001:db8::1/64"));
    site.file("two.toml", &text("node2", "2001:DB8::0:1/48").replace("Web", "web"));
    let (out, warning) = site.fine(&["--json", "node", "add", "one.toml", "two.toml"]);
    let address =
        "node2: address 2001:db8::1 is node1's, too (one.toml): two nodes with one address conflict in one network";
    let name = "node2: host name web is node1's, too (one.toml)";
    assert_eq!(warning, format!("imprint-host: warning: {address}\nimprint-host: warning: {name}\n"));
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(said["added"], serde_json::json!(["node1", "node2"]));
    let want = serde_json::json!([
        { "about": "address", "node": "node2", "other": "node1", "message": address },
        { "about": "hostname", "node": "node2", "other": "node1", "message": name },
    ]);
    assert_eq!(said["warnings"], want);
}

/// Free text beside a common name that differs: it may be the machine's, and then one of the two is wrong.
#[test]
fn serial_numbers_of_subjects_that_stand_twice_are_said() {
    let site = Site::new();
    site.file("one.toml", &record("node1", "subject = [\"CN=c\", \"serialNumber=X1\"]"));
    site.file("two.toml", &record("node2", "subject = [\"O=B\", \"CN=d\", \"serialNumber=x1\"]"));
    site.file("three.toml", &record("node3", "subject = [\"O=C\", \"serialNumber=X1\"]\nbind = { serial = \"X1\" }"));
    let said = |node: &str, shown: &str| {
        format!(
            "{node}: serialNumber={shown} is node1's, too (one.toml): programs that use it cannot tell the nodes apart"
        )
    };
    let (out, warning) = site.fine(&["--json", "node", "add", "one.toml", "two.toml"]);
    assert_eq!(warning, format!("imprint-host: warning: {}\n", said("node2", "x1")));
    let json: Value = serde_json::from_str(&out).unwrap();
    let want = serde_json::json!([
        { "about": "subject-serial", "node": "node2", "other": "node1", "message": said("node2", "x1") },
    ]);
    assert_eq!(json["warnings"], want);
    let (_, warning) = site.fine(&["node", "add", "three.toml"]);
    assert_eq!(warning, format!("imprint-host: warning: {}\n", said("node3", "X1")));
    assert_eq!(site.log("duplicate"), Vec::<String>::new(), "nothing had to be allowed");
}

#[test]
fn records_that_are_replaced_keep_what_they_have() {
    let site = Site::new();
    let text = |name: &str, dns: &str| record(name, &format!("sans = [\"dns:{dns}\"]"));
    site.file("one.toml", &text("node1", "a"));
    site.file("two.toml", &text("node2", "b"));
    site.fine(&["node", "add", "one.toml", "two.toml"]);
    assert_eq!(site.fine(&["node", "add", "--replace", "one.toml"]).1, "");
    // They change places; one of them alone cannot.
    site.file("one.toml", &text("node1", "b"));
    site.file("two.toml", &text("node2", "a"));
    let error = site.refused(&["node", "add", "--replace", "one.toml"]);
    assert!(error.contains("one.toml: node1: dns:b is node2's already (two.toml)"), "{error}");
    assert_eq!(site.fine(&["node", "add", "--replace", "one.toml", "two.toml"]).1, "");
    // What was allowed once stays so for as long as the record has it.
    site.file("two.toml", &text("node2", "b"));
    site.fine(&["node", "add", "--replace", "two.toml", "--allow-duplicate", "node2"]);
    for file in ["one.toml", "two.toml"] {
        let (_, warning) = site.fine(&["node", "add", "--replace", file]);
        assert!(warning.contains("dns:b is node") && warning.contains("'s, too ("), "{warning}");
    }
    site.file("two.toml", &text("node2", "c"));
    site.fine(&["node", "add", "--replace", "two.toml"]);
    site.file("two.toml", &text("node2", "b"));
    site.refused(&["node", "add", "--replace", "two.toml"]);
}

/// What the first record gives another machine's name is a mistake in that record, wherever it stands in the command: what
/// another record keeps lets nothing in. As files, and as rows of a table.
#[test]
fn the_order_of_what_is_replaced_lets_nothing_in() {
    let before = [("node1", "dns:a", "S1"), ("node2", "dns:web", "S2")];
    let after = [("node1", "dns:Web", "s2"), ("node2", "dns:web", "S2")];
    let names = ["one.toml", "two.toml"];
    let write = |site: &Site, rows: [(&str, &str, &str); 2], order: [usize; 2]| {
        for ((node, san, serial), name) in rows.iter().zip(names) {
            site.file(name, &record(node, &format!("sans = [\"{san}\"]\nbind = {{ serial = \"{serial}\" }}")));
        }
        let lines = order.map(|at| format!("{},{},{}\n", rows[at].0, rows[at].1, rows[at].2));
        site.file("nodes.csv", &format!("name,sans,bind.serial\n{}", lines.concat()));
    };
    for order in [[0, 1], [1, 0]] {
        let files = order.map(|at| names[at]);
        for given in [files, ["--csv", "nodes.csv"]] {
            let add = |more: &[&'static str]| [&["node", "add", "--replace"], more, &given[..]].concat();
            let site = Site::new();
            write(&site, before, order);
            site.fine(&add(&[]));
            write(&site, after, order);
            let error = site.refused(&add(&[]));
            assert!(error.contains(": node1: dns:Web is node2's already ("), "{given:?}: {error}");
            assert!(
                error.ends_with(" --allow-duplicate node1; 1 more names or bindings belong to other nodes\n"),
                "{given:?}: {error}"
            );
            site.refused(&add(&["--allow-duplicate", "node2"]));
            // It is the newcomer that is allowed, in either order; both keep it then.
            let (_, warning) = site.fine(&add(&["--allow-duplicate", "node1"]));
            let twice = |warning: &str| warning.matches("imprint-host: warning: ").count();
            assert_eq!((twice(&warning), site.log("duplicate").len()), (2, 2), "{warning}");
            assert!(warning.contains("node1: dns:Web is node2's, too ("), "{warning}");
            assert_eq!(twice(&site.fine(&add(&[])).1), 2);
        }
    }
}

/// A node has its certificate, and its record gets another name: its next renewal would be the first to say so.
#[test]
fn what_a_replaced_record_breaks_is_said() {
    let site = Site::new();
    let text = |names: &str| record("node1", names);
    site.file("one.toml", &text("sans = [\"dns:a\"]"));
    site.fine(&["node", "add", "one.toml"]);
    site.fine(&["payload", "node1", "--credentials", "-o", "drive"]);
    let row = site.state().store.latest("node1").unwrap().0.unwrap();
    let (code, until) = (row.key_code, row.not_after);
    // Nothing that matters to the certificate.
    site.file("one.toml", &text("sans = [\"dns:a\"]\nhostname = \"a\""));
    assert_eq!(site.fine(&["node", "add", "--replace", "one.toml"]).1, "");
    site.file("one.toml", &text("sans = [\"dns:b\"]"));
    let (out, warning) = site.fine(&["--json", "node", "add", "--replace", "one.toml"]);
    let said = format!(
        "node1: its certificate of key {code}, until {until}, has other names than the new record: its renewals are \
         refused from now on. Give the node a new payload before then (imprint-host payload node1), and revoke the \
         certificate if it must not have the old names until then (imprint-host revoke node1 --key {code})"
    );
    assert_eq!(warning, format!("imprint-host: warning: {said}\n"));
    let json: Value = serde_json::from_str(&out).unwrap();
    let want = serde_json::json!([{ "about": "renewal", "node": "node1", "other": null, "message": said }]);
    assert_eq!(json["warnings"], want);
    // Another type of key, and a payload that nobody has used.
    site.fine(&["payload", "node1", "-o", "drive"]);
    site.file("one.toml", &text("sans = [\"dns:a\"]\nkey = \"p384\""));
    let (_, warning) = site.fine(&["node", "add", "--replace", "one.toml"]);
    assert!(
        warning.contains("has a key of type p256, the new record wants p384: its renewals are refused"),
        "{warning}"
    );
    let payloads = "imprint-host: warning: node1: 1 of its payloads were made from the old record, and requests \
                    with them are refused; make another one (imprint-host payload node1)\n";
    assert!(warning.ends_with(payloads), "{warning}");
    site.fine(&["revoke", "node1"]);
    site.file("one.toml", &text("sans = [\"dns:b\"]"));
    assert_eq!(site.fine(&["node", "add", "--replace", "one.toml"]).1, "", "nothing is left that could break");
}

/// A store of the time when nobody looked: it is opened as it is, what stands twice in it stays and is said, and nothing
/// new is let in.
#[test]
fn a_store_that_holds_duplicates_is_brought_up_to_date() {
    let site = Site::new();
    site.file("one.toml", &record("node1", "sans = [\"dns:a\"]"));
    site.fine(&["node", "add", "one.toml"]);
    let old = rusqlite::Connection::open(site.dir.join("imprint.db")).unwrap();
    old.execute_batch(
        "DROP TRIGGER bundles_stay; DROP TABLE bundles; DROP TABLE bundle_keys; DROP TABLE renewals; DROP TABLE available; DROP TABLE outbox;
         ALTER TABLE payloads DROP COLUMN line_key; DROP TABLE called_for; DROP TABLE callers; DROP TABLE callers_count;
         DROP TABLE callers_by_source; DROP TABLE callers_by_net; DROP TABLE windows; DROP TABLE said; DROP TABLE admissions; DROP TABLE admission_keys;
         ALTER TABLE certificates DROP COLUMN shown_at; ALTER TABLE nodes DROP COLUMN ended_at;
         DROP TRIGGER nodes_record; DROP TABLE entitlements; DROP INDEX nodes_unentitled; ALTER TABLE nodes DROP COLUMN entitled;
         DROP TABLE claims; DROP INDEX nodes_unclaimed; ALTER TABLE nodes DROP COLUMN claimed;
         PRAGMA user_version = 5;",
    )
    .unwrap();
    for (name, text, at) in [
        ("node0", record("node0", "sans = [\"dns:A\"]"), Timestamp::system().as_millis() + 1000),
        // Refused by this program: it must not stop it.
        ("node9", record("node9", "sans = [\"dns:a\"]\ncolour = 1"), 1),
    ] {
        let sql = "INSERT INTO nodes (name, file, record, added_at) VALUES (?1, ?1, ?2, ?3)";
        old.execute(sql, rusqlite::params![name, text, i64::try_from(at).unwrap()]).unwrap();
    }
    drop(old);
    let (out, _) = site.fine(&["--json", "nodes"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap().as_array().unwrap().len(), 3);
    let want = ["node0: dns:A is node1's, too (dns:a)"];
    assert_eq!(site.log("duplicate"), want);
    site.fine(&["nodes"]);
    assert_eq!(site.log("duplicate"), want, "once");
    site.file("two.toml", &record("node2", "sans = [\"dns:a\"]"));
    let error = site.refused(&["node", "add", "two.toml"]);
    assert!(error.contains("dns:a is node1's already (one.toml)"), "{error}");
    site.fine(&["node", "add", "--replace", "one.toml"]);
}

/// A file whose name would be a line of the log, and one that would drive a terminal.
#[test]
fn names_of_files_forge_no_lines() {
    let site = Site::new();
    let name = "x\n2026-01-01T00:00:00Z approved node1: key AAAA\u{1b}[2J\u{202e}.toml";
    let shown = "x\\n2026-01-01T00:00:00Z approved node1: key AAAA\\u{1b}[2J\\u{202e}.toml";
    let is_one_line = |text: &str| text.matches('\n').count() == 1 && !text.contains(['\u{1b}', '\u{202e}']);
    let error = site.refused(&["node", "add", name]);
    assert!(is_one_line(&error) && error.starts_with(&format!("imprint-host: reading {shown}: ")), "{error}");
    site.file(name, "name = 1");
    let error = site.refused(&["node", "add", name]);
    assert!(is_one_line(&error) && error.starts_with(&format!("imprint-host: {shown}:1: ")), "{error}");
    site.file(name, &record("node1", "sans = [\"dns:a\"]"));
    site.fine(&["node", "add", name]);
    assert_eq!(site.log("node"), [format!("node1: record from {shown}: dns:a")]);
    let (log, _) = site.fine(&["log"]);
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(!log.contains(['\u{1b}', '\u{202e}']), "{log}");
    // The record is invalid by now: the table says why, in its own lines.
    let store = rusqlite::Connection::open(site.dir.join("imprint.db")).unwrap();
    store.execute("UPDATE nodes SET record = 'name = 1'", []).unwrap();
    drop(store);
    let (table, _) = site.fine(&["nodes"]);
    assert!(!table.contains(['\u{1b}', '\u{202e}']) && !table.contains("\n2026"), "{table}");
    // What becomes of it elsewhere: where a payload goes, where a copy goes, and a directory that is none.
    let (out, _) = {
        site.file("good.toml", &record("node2", "sans = [\"dns:b\"]"));
        site.fine(&["node", "add", "good.toml"]);
        site.fine(&["payload", "node2", "-o", name])
    };
    assert!(is_one_line(&out) && out.contains(shown), "{out}");
    let (out, _) = site.fine(&["backup", &format!("copy{name}")]);
    assert!(is_one_line(&out) && out.contains(shown), "{out}");
    let output = Command::new(env!("CARGO_BIN_EXE_imprint-host")).args(["nodes", "--dir", name]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(is_one_line(&error) && error.contains(shown), "{error}");
    // Other names of nodes than there are.
    let error = site.refused(&["payload", "a\nb"]);
    assert!(is_one_line(&error) && error.contains("there is no node a\\nb; "), "{error}");
}

/// The log of a server is read by a program, line by line.
#[test]
fn a_server_forges_no_lines_of_its_log() {
    let site = Site::new();
    let name = "state\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J";
    std::fs::rename(&site.dir, site.temp.path().join(name)).unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_imprint-host"))
        .args(["--dir", name, "serve", "--listen", "127.0.0.1:0"])
        .current_dir(site.temp.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(serve.stderr.take().unwrap()).lines();
    let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains("CA in ")).unwrap();
    serve.kill().unwrap();
    serve.wait().unwrap();
    let want = ", CA in state\\n2026-01-01T00:00:00Z ERROR forged\\u{1b}[2J";
    assert!(line.contains(" INFO EST on 127.0.0.1:") && line.ends_with(want), "{line}");
    assert_eq!(lines.map_while(Result::ok).find(|line| line.contains("forged")), None);
}
