//! Tests of the program as people run it: exit codes, one line on standard error, files and their modes.

use crate::support::command;

use std::path::Path;
use std::process::Command;

use command::{TYPICAL, URL, fails, fine, mode, record, site};
use imprint::key_code::KeyCode;
use imprint::line::{Hello, Nonce, Versions};
use imprint::payload::Payload;
use imprint::time::Timestamp;
use imprint_host::admission::{Admission, Caller, Facts};
use imprint_host::state::State;

#[test]
fn certificate_and_key_in_a_payload() {
    let (temp, dir) = site();
    let file = temp.path().join("node1.cbor");
    let file = file.to_str().unwrap();
    // Refused where everybody can read it, and then nothing is booked.
    let (code, error) = fails(&dir, &["payload", "node1", "--credentials", "--as", "cmdline"]);
    assert_eq!(code, 1);
    assert!(error.starts_with("imprint-host: the payload on the kernel command line, which everybody on the node can read, holds a private key; "), "{error}");
    let log = || String::from_utf8(fine(&dir, &["log"])).unwrap();
    assert!(!log().contains("payload"), "{}", log());
    for form in ["cbor", "cpio", "iso"] {
        fine(&dir, &["payload", "node1", "--credentials", "--as", form, "-o", file]);
        assert_eq!(mode(Path::new(file)), 0o600);
        std::fs::remove_file(file).unwrap();
    }
    fine(&dir, &["payload", "node1", "--credentials", "-o", file]);
    let payload = Payload::unwrapped(&std::fs::read(file).unwrap()).unwrap();
    let shown = payload.to_string();
    assert!(shown.contains("\nkey        in the payload (not shown)\n") && !shown.contains("token"), "{shown}");
    let nodes = String::from_utf8(fine(&dir, &["nodes"])).unwrap();
    let code = log().lines().last().unwrap().split("with certificate and key ").nth(1).unwrap()[..19].to_owned();
    assert!(nodes.contains(&code) && nodes.contains("used "), "{nodes}");
}

/// For EST clients that read no payloads.
#[test]
fn name_and_token_on_a_line() {
    let (temp, dir) = site();
    let line = String::from_utf8(fine(&dir, &["payload", "node1", "--as", "userpass"])).unwrap();
    let token = line.strip_prefix("node1:").and_then(|rest| rest.strip_suffix('\n')).unwrap();
    assert_eq!((token.len(), token.contains(char::is_whitespace)), (22, false), "128 bits in base64url");
    let file = temp.path().join("userpass");
    fine(&dir, &["payload", "node1", "--as", "userpass", "-o", file.to_str().unwrap()]);
    assert_eq!(mode(&file), 0o600);
    let other = std::fs::read_to_string(file).unwrap();
    assert!(other.starts_with("node1:") && other != line);
    let (code, error) = fails(&dir, &["payload", "node1", "--as", "userpass", "--credentials"]);
    let want = "imprint-host: a payload with --credentials has no token; leave that out with --as userpass\n";
    assert_eq!((code, error.as_str()), (1, want));
}

#[test]
fn a_new_state_is_private() {
    let (_temp, dir) = site();
    assert_eq!(mode(&dir), 0o700);
    for (name, want) in [
        ("root.key", 0o600),
        ("signer.key", 0o600),
        ("intermediates", 0o700),
        ("imprint.db", 0o600),
        ("root.pem", 0o644),
        ("intermediate.pem", 0o644),
    ] {
        assert_eq!(mode(&dir.join(name)), want, "{name}");
    }
    // Key and certificate, named after the key.
    let mut files: Vec<std::path::PathBuf> =
        std::fs::read_dir(dir.join("intermediates")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.iter().map(|path| mode(path)).collect::<Vec<_>>(), [0o600, 0o644], "{files:?}");
    let text = |pem: &str| {
        let path = dir.join(pem);
        let output = Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(path).output();
        String::from_utf8(output.expect("openssl is missing: apt-get install openssl").stdout).unwrap()
    };
    let (root, intermediate) = (text("root.pem"), text("intermediate.pem"));
    let root_extensions = "Basic Constraints: critical\n                CA:TRUE\n            X509v3 Key Usage: \
                           critical\n                Certificate Sign, CRL Sign\n";
    assert!(root.contains(root_extensions), "{root}");
    assert!(intermediate.contains("CA:TRUE, pathlen:0\n"), "{intermediate}");
    assert!(intermediate.contains("Certificate Sign, CRL Sign\n"), "{intermediate}");
}

#[test]
fn a_root_key_that_is_offline_is_not_missed() {
    let (_temp, dir) = site();
    std::fs::remove_file(dir.join("root.key")).unwrap();
    let bytes = fine(&dir, &["payload", "node1"]);
    Payload::unwrapped(&bytes).unwrap();
}

#[test]
fn a_typical_payload_fits_a_kernel_command_line() {
    let (_temp, dir) = site();
    let unsigned = fine(&dir, &["payload", "node1", "--unsigned"]);
    let payload = Payload::decode(&unsigned).unwrap();
    println!("typical payload: {} bytes, {} of them the CA", unsigned.len(), payload.ca.der().len());
    assert!(unsigned.len() <= 640, "{} bytes", unsigned.len());
    let signed = fine(&dir, &["payload", "node1"]);
    println!("typical signed payload: {} bytes", signed.len());
    assert!(signed.len() <= 700, "{} bytes", signed.len());
    assert!(Payload::unwrapped(&signed).unwrap().binding.is_some(), "images that name signers take no other");
    let payload = Payload::unwrapped(&signed).unwrap();
    assert_eq!(payload.seed, None);
    assert_eq!(payload.expiry, payload.composed.plus(std::time::Duration::from_secs(86_400)));
}

#[test]
fn failures_are_one_line_with_a_remedy() {
    let (temp, dir) = site();
    let absent = temp.path().join("absent");
    let shown = |path: &Path| path.display().to_string();
    assert_eq!(
        fails(&absent, &["nodes"]),
        (1, format!("imprint-host: no CA in {}; make one with imprint-host init, or give its --dir\n", shown(&absent)))
    );
    let (code, error) = fails(&dir, &["init", "--url", URL]);
    assert_eq!(code, 1);
    assert!(error.starts_with(&format!("imprint-host: {} holds ", shown(&dir))), "{error}");
    assert!(error.ends_with("; nothing is overwritten, give an empty directory\n"), "{error}");
    assert_eq!(
        fails(&dir, &["payload", "node9"]),
        (1, "imprint-host: there is no node node9; imprint-host nodes lists them, node add makes one\n".to_owned())
    );
    let node1 = shown(&temp.path().join("node1.toml"));
    assert_eq!(
        fails(&dir, &["node", "add", &node1]),
        (1, "imprint-host: there is a node node1 already; give its record another name, or use --replace\n".to_owned())
    );
    assert_eq!(
        fails(&dir, &["node", "add", "--replace", &node1, &node1]),
        (1, format!("imprint-host: {node1}: name: node1 is in another file, too; give each its own\n"))
    );
    let nowhere = shown(&absent.join("x.toml"));
    assert_eq!(
        fails(&dir, &["node", "add", &nowhere]),
        (1, format!("imprint-host: reading {nowhere}: No such file or directory (os error 2)\n"))
    );
    let (code, error) = fails(&dir, &["payload", "node1", "-o", &nowhere]);
    assert_eq!(code, 1);
    let folder = shown(&absent);
    assert_eq!(error, format!("imprint-host: finding {folder}: No such file or directory (os error 2)\n"));
    // Neither a payload nor a file is left of what failed.
    let files = || std::fs::read_dir(temp.path()).unwrap().count();
    let before = files();
    let (code, _) = fails(&dir, &["payload", "node9", "-o", &shown(&temp.path().join("x"))]);
    assert_eq!((code, files()), (1, before));
    let log = String::from_utf8(fine(&dir, &["log"])).unwrap();
    assert!(!log.contains(" payload "), "{log}");
}

#[test]
fn usage_errors_are_2() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    for arguments in [
        &["init"][..],
        &["init", "--url", "http://est.example.org/.well-known/est"],
        &["payload", "node1", "--as", "floppy"],
        &["payload", "node1", "--expires", "soon"],
        &["payload", "node1", "--seed", "--no-seed"],
        &["serve", "--listen", "everywhere"],
        &["inject", "node1", "--line", "unix:/run/line", "--window", "18446744073709551615s"],
        &["inject", "node1", "--line", "unix:/run/line", "--timeout", "31d"],
        &["inject", "node1", "--line", "unix:/run/line", "--power", " "],
        &["inject", "node1", "--line", "unix:/run/line", "--power-every", "often"],
        &["inject", "node1", "--line", "unix:/run/line", "--power-at-once", "0"],
        &["payload", "node1", "--overwrite", "/dev/sdx"],
        &["frobnicate"],
        &[],
    ] {
        assert_eq!(fails(&dir, arguments).0, 2, "{arguments:?}");
    }
    let (_, error) = fails(&dir, &["init", "--url", "http://est.example.org/.well-known/est"]);
    assert!(error.contains("is not an https:// URL; EST is spoken over TLS only"), "{error}");
    let (_, error) = fails(&dir, &["inject", "node1", "--line", "unix:/run/line", "--window", "31d"]);
    assert!(error.contains("want 30d at most"), "{error}");
    assert!(!dir.exists());
}

#[test]
fn a_file_of_lines_without_a_line_is_an_error() {
    let (temp, dir) = site();
    let lines = temp.path().join("lines");
    std::fs::write(&lines, "# rack 1 follows\n").unwrap();
    let (code, error) = fails(&dir, &["inject", "--lines", lines.to_str().unwrap()]);
    let want = format!(
        "imprint-host: {}:1: there is no line in it; want [[line]] with node = \"NODE\" and line = \"LINE\", or NODE LINE\n",
        lines.display()
    );
    assert_eq!((code, error), (1, want));
}

#[test]
fn one_bad_record_adds_none() {
    let (temp, dir) = site();
    let (good, bad) = (temp.path().join("good.toml"), temp.path().join("bad.toml"));
    std::fs::write(&good, "name = \"node2\"\nsubject = [\"CN=node2\"]\n").unwrap();
    std::fs::write(&bad, "name = \"node3\"\nsubjcet = [\"CN=node3\"]\n").unwrap();
    let (code, error) = fails(&dir, &["node", "add", good.to_str().unwrap(), bad.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert_eq!(error, format!("imprint-host: {}:2: subjcet: unknown key; did you mean subject?\n", bad.display()));
    let listed: serde_json::Value = serde_json::from_slice(&fine(&dir, &["nodes", "--json"])).unwrap();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["node1"]);
    assert_eq!(listed[0]["enrol"], "once");
    assert_eq!(listed[0]["certificate"], serde_json::Value::Null);
}

#[test]
fn the_log_tells_what_was_done() {
    let (_temp, dir) = site();
    fine(&dir, &["payload", "node1"]);
    let rows: serde_json::Value = serde_json::from_slice(&fine(&dir, &["log", "--json"])).unwrap();
    let events: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["init", "node", "payload"]);
    let text = String::from_utf8(fine(&dir, &["log", "--last", "1"])).unwrap();
    assert_eq!(text.lines().count(), 1);
    // Who it was, as far as a test can know that, too.
    let who = rows[2]["by"].as_str().unwrap();
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    assert!(who.contains(&format!("uid {uid}")), "{who}");
    assert!(text.contains(&format!(" payload  node1 by {who}: payload ")), "{text}");
}

/// A server in a storm writes all the time. Those who only look waited for the same lock, and gave up in the end.
#[test]
fn nodes_and_log_answer_while_somebody_writes() {
    let (_temp, dir) = site();
    let writer = rusqlite::Connection::open(dir.join("imprint.db")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(String::from_utf8(fine(&dir, &["nodes"])).unwrap().contains("node1"));
    assert!(String::from_utf8(fine(&dir, &["log"])).unwrap().contains(" init "));
    writer.execute_batch("COMMIT").unwrap();
}

#[test]
fn what_nobody_asked_for_cannot_be_decided() {
    let (_temp, dir) = site();
    let nothing = "imprint-host: no request of node1 waits; a request is forgotten a day after the node last asked\n";
    assert_eq!(fails(&dir, &["approve", "node1", "7K3M-Q0ZT-N4V8-XW1C"]), (1, nothing.to_owned()));
    assert_eq!(fails(&dir, &["deny", "node1"]), (1, nothing.to_owned()));
}

/// A copy that was made while the server works is a state directory: nodes go on with it.
#[test]
fn a_backup_is_a_state_directory() {
    let (temp, dir) = site();
    let payload = temp.path().join("payload");
    fine(&dir, &["payload", "node1", "-o", payload.to_str().unwrap()]);
    let copy = temp.path().join("copy");
    let said = fine(&dir, &["backup", copy.to_str().unwrap()]);
    let want = format!(
        "copied {} to {}, without root.key; keep it as secret as the original\n",
        dir.display(),
        copy.display()
    );
    assert_eq!(String::from_utf8(said).unwrap(), want);
    let (_, again) = fails(&dir, &["backup", copy.to_str().unwrap()]);
    assert!(again.ends_with("; nothing is overwritten, give an empty directory\n"), "{again}");
    assert!(!copy.join("root.key").exists());
    let files = |of: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(of.join("intermediates")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names.into_iter().map(|name| (mode(&of.join("intermediates").join(&name)), name)).collect::<Vec<_>>()
    };
    assert_eq!((mode(&copy), mode(&copy.join("imprint.db")), files(&copy)), (0o700, 0o600, files(&dir)));
    // What was made before is known to the copy; what is made with it is signed by the same CA.
    assert_eq!(fine(&dir, &["log"])[..], fine(&copy, &["log"])[..]);
    fine(&copy, &["payload", "node1", "-o", payload.to_str().unwrap()]);
    let (_, rotate) = fails(&copy, &["ca", "rotate"]);
    assert!(rotate.contains("the root's key is not at "), "{rotate}");
    fine(&copy, &["ca", "rotate", "--root-key", dir.join("root.key").to_str().unwrap()]);
}

/// A thousand nodes from a table, with what they have in common in a template; one bad row adds none.
#[test]
fn nodes_from_a_table() {
    let (temp, dir) = site();
    let file = |name: &str, text: &str| {
        let path = temp.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let template = file(
        "rack.toml",
        "enrol = \"each-boot\"\n[[network]]\nmatch = { any = true }\naddresses = [\"{address}/16\"]\n",
    );
    let mut table = "name,subject,sans,bind.serial,address\n".to_owned();
    for n in 0..1000 {
        let (address, name) = (format!("10.1.{}.{}", n / 250, n % 250 + 1), format!("rack{n:04}"));
        table
            .push_str(&format!("{name},CN={name};O=\"Example\",dns:{name}.example.org;ip:{address},SN{n},{address}\n"));
    }
    let nodes = || {
        let listed: serde_json::Value = serde_json::from_slice(&fine(&dir, &["nodes", "--json"])).unwrap();
        listed.as_array().unwrap().len()
    };
    let before = nodes();
    let bad = file("bad.csv", &table.replace("dns:rack0500.example.org", "dns:rack 0500"));
    let (code, error) = fails(&dir, &["node", "add", "--csv", &bad, "--template", &template]);
    assert!(code == 1 && error.starts_with(&format!("imprint-host: {bad}:502: sans[0]: ")), "{error}");
    let twice = file("twice.csv", &format!("{table}rack0007,CN=x,,,10.2.0.1\n"));
    let (_, error) = fails(&dir, &["node", "add", "--csv", &twice, "--template", &template]);
    assert_eq!(
        error,
        format!("imprint-host: {twice}:1002: name: rack0007 is in another file, too; give each its own\n")
    );
    assert_eq!(nodes(), before);
    let good = file("nodes.csv", &table);
    let added: serde_json::Value =
        serde_json::from_slice(&fine(&dir, &["--json", "node", "add", "--csv", &good, "--template", &template]))
            .unwrap();
    assert_eq!((added["added"].as_array().unwrap().len(), nodes()), (1000, before + 1000));
    let output = temp.path().join("payload");
    fine(&dir, &["payload", "rack0999", "-o", output.to_str().unwrap()]);
    let shown = Payload::unwrapped(&std::fs::read(output).unwrap()).unwrap().to_string();
    assert!(shown.contains("10.1.3.250/16") && shown.contains("CN=rack0999"), "{shown}");
}

/// Each command that prints, prints one JSON value with --json; shells complete each.
#[test]
fn json_for_programs_and_completions_for_shells() {
    let (temp, dir) = site();
    let file = |name: &str| temp.path().join(name).display().to_string();
    std::fs::write(file("node7.toml"), "name = \"node7\"\nsubject = [\"CN=node7\"]\n").unwrap();
    for words in [
        vec!["node", "add", &file("node7.toml")],
        vec!["payload", "node7", "--credentials", "-o", &file("payload")],
        vec!["nodes"],
        vec!["log"],
        vec!["revoke", "node7", "--reason", "keyCompromise"],
        vec!["backup", &file("copy")],
        vec!["ca", "rotate"],
        vec!["load", "--nodes", "3"],
    ] {
        let printed = fine(&dir, &[&["--json"], &words[..]].concat());
        serde_json::from_slice::<serde_json::Value>(&printed).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(fine(&dir, &["completions", shell])).unwrap();
        for word in ["payload", "approve", "revoke", "rotate", "backup"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

/// Who calls at a door is listed, let in and denied by the code on its console, as a person types it.
#[test]
fn callers_at_a_door() {
    let (temp, dir) = site();
    let caller = |key: u8| Caller {
        hello: Hello {
            heard: None,
            versions: Versions::OURS,
            plain: false,
            fresh: true,
            nonce: Nonce([key; 8]),
            key: [key; 32],
            // That of node1.
            uuid: Some(0x4c4c_4544_0042_3510_8054_b4c0_4f56_4433_u128.to_be_bytes()),
            serial: None,
            macs: vec![vec![0x52, 0x54, 0, 0x12, 0x34, 0x56]],
        },
        from: format!("tcp:192.0.2.{key}:40000"),
        source: format!("192.0.2.{key}"),
        facts: Facts::default(),
        keys: Vec::new(),
    };
    let call = |key| State::open(&dir).unwrap().call(&caller(key), Timestamp::system()).unwrap();
    let code = |key: u8| KeyCode::of(&[key; 32]).to_string();
    let said = |arguments: &[&str]| String::from_utf8(fine(&dir, arguments)).unwrap();
    assert_eq!(said(&["nodes", "--door"]), "nobody waits at a door\n");
    for key in 1..4 {
        assert!(matches!(call(key), Admission::Waits { .. }));
    }
    let waits = format!("node1 waits at the door: line key {} from tcp:192.0.2.2:40000 since ", code(2));
    for arguments in [&["nodes"][..], &["nodes", "--door"]] {
        assert!(said(arguments).contains(&waits), "{}", said(arguments));
    }
    assert_eq!(said(&["deny", &code(1).to_lowercase()]), format!("denied node1 key {}\n", code(1)));
    let (status, error) = fails(&dir, &["deny", &code(1)]);
    assert!(status == 1 && error.contains(&format!("no caller with line key {} waits", code(1))), "{error}");
    assert_eq!(
        said(&["admit", &code(2)]),
        format!(
            "admitted line key {} as node1, and denied line key {}, which called as node1, too\n",
            code(2),
            code(3)
        )
    );
    assert!(matches!(call(2), Admission::Admitted { .. }));
    assert!(matches!(call(1), Admission::Refused { .. }) && matches!(call(3), Admission::Refused { .. }));
    let log = said(&["log"]);
    let line = log.lines().find(|line| line.contains(" admitted ")).unwrap();
    assert!(line.contains(", asked from tcp:192.0.2.2:40000: level approved, line key "), "{line}");
    assert!(said(&["nodes"]).contains(&format!("(approved): line key {} from tcp:192.0.2.2:40000", code(2))));
    // For a while, by the record.
    let (_, error) = fails(&dir, &["admit", "node1", "--for", "10m"]);
    assert!(
        error.contains("the record of node1 says admit = \"approve\", and --for is for admit = \"armed\""),
        "{error}"
    );
    let (_, error) = fails(&dir, &["admit", "node1"]);
    assert!(error.contains("node1 is not the code of a line key") && error.contains("--for 10m"), "{error}");
    record(&temp, &dir, &TYPICAL.replace("hostname", "admit = \"armed\"\nhostname"));
    let armed = String::from_utf8(fine(&dir, &["--json", "admit", "node1", "--for", "10m"])).unwrap();
    let armed: serde_json::Value = serde_json::from_str(&armed).unwrap();
    assert_eq!((&armed["node"], armed["waiting"].as_array().map(Vec::len)), (&"node1".into(), Some(0)));
    // A name: all that waits under it, who was let in and has no certificate yet, and the window.
    let all = format!("denied node1 key {}\nclosed the window of node1\n", code(2));
    assert_eq!(said(&["deny", "node1"]), all);
    assert!(matches!(call(2), Admission::Refused { .. }));
    let (_, error) = fails(&dir, &["deny", "node1"]);
    assert!(error.contains("no request of node1 waits"), "{error}");
}
