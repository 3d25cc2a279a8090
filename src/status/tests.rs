//! The frozen schemas of docs/status.md.

use super::*;
use crate::payload::{InterfaceName, Prefix};
use crate::plan::LinkConfig;

fn step(name: &str, detail: &str) -> Step {
    Step { name: name.to_owned(), started_us: 1_250_000, duration_us: 412_345, detail: detail.to_owned() }
}

/// If this test fails, do not change it: you have changed version 1.
#[test]
fn frozen_status() {
    let status = Status {
        version: VERSION,
        outcome: Outcome::Failed,
        exit_code: 16,
        error: Some(Failure { stage: "network".to_owned(), message: "no carrier on eth0".to_owned() }),
        origin: Some("config-drive sr0 (IMPRINT)".to_owned()),
        signer: None,
        admitted: None,
        payload_id: Some("00112233445566778899aabbccddeeff".to_owned()),
        name: Some("node1".to_owned()),
        enrolment: None,
        key_code: None,
        bundle: None,
        root: None,
        links: vec![],
        steps: vec![step("source", "config-drive sr0 (IMPRINT)")],
    };
    let json = r#"{"version":1,"outcome":"failed","exit_code":16,"error":{"stage":"network","message":"no carrier on eth0"},"origin":"config-drive sr0 (IMPRINT)","payload_id":"00112233445566778899aabbccddeeff","name":"node1","key_code":null,"steps":[{"name":"source","started_us":1250000,"duration_us":412345,"detail":"config-drive sr0 (IMPRINT)"}]}"#;
    assert_eq!(serde_json::to_string(&status).unwrap(), json);
    assert_eq!(serde_json::from_str::<Status>(json).unwrap(), status);
    let signed = Status { signer: Some("0123456789abcdef".to_owned()), ..status.clone() };
    let json = serde_json::to_string(&signed).unwrap();
    assert!(
        json.contains(r#""origin":"config-drive sr0 (IMPRINT)","signer":"0123456789abcdef","payload_id":"#),
        "{json}"
    );
    let admitted = Status { admitted: Some("stick".to_owned()), ..signed };
    let json = serde_json::to_string(&admitted).unwrap();
    assert!(json.contains(r#","signer":"0123456789abcdef","admitted":"stick","payload_id":"#), "{json}");
    let ends = Status { enrolment: Some(Enrolment::Credentials), ..status };
    let json = serde_json::to_string(&ends).unwrap();
    assert!(json.contains(r#""name":"node1","enrolment":"credentials","key_code":null"#), "{json}");
    assert_eq!(serde_json::to_string(&Enrolment::Est).unwrap(), "\"est\"");
    for (outcome, word) in [(Outcome::Done, "\"done\""), (Outcome::Absent, "\"absent\"")] {
        assert_eq!(serde_json::to_string(&outcome).unwrap(), word);
    }
}

/// If this test fails, do not change it: you have changed version 1.
#[test]
fn frozen_node() {
    let link = AppliedLink {
        index: 2,
        name: InterfaceName::try_from("eth0").unwrap(),
        mac: crate::payload::HardwareAddress::parse("52:54:00:12:34:56"),
        permanent: None,
        mtu: 1500,
        config: LinkConfig {
            addresses: vec![Prefix::parse("192.0.2.10/24").unwrap()],
            routes: vec![Route {
                destination: Prefix::parse("0.0.0.0/0").unwrap(),
                gateway: Some("192.0.2.1".parse().unwrap()),
                metric: None,
            }],
            dns: vec!["192.0.2.53".parse().unwrap()],
            search: vec![crate::payload::DnsName::try_from("example.org").unwrap()],
            ..LinkConfig::default()
        },
        client_id: None,
        lease: None,
        six: Default::default(),
        learned: Vec::new(),
        dns: Vec::new(),
        search: Vec::new(),
    };
    let node = Node {
        version: VERSION,
        name: Some("node1".to_owned()),
        payload_id: "00112233445566778899aabbccddeeff".to_owned(),
        hostname: Some("node1".to_owned()),
        key_code: "Q9W1-DFWF-077Y-MGA1".to_owned(),
        not_after: "2026-11-23T00:00:00Z".to_owned(),
        network: Some(NodeNetwork::from(&link)),
        renewal: None,
        root_sha256: None,
    };
    let json = r#"{"version":1,"name":"node1","payload_id":"00112233445566778899aabbccddeeff","hostname":"node1","key_code":"Q9W1-DFWF-077Y-MGA1","not_after":"2026-11-23T00:00:00Z","network":{"link":"eth0","mac":"52:54:00:12:34:56","mtu":1500,"addresses":["192.0.2.10/24"],"routes":[{"to":"0.0.0.0/0","via":"192.0.2.1","metric":null}],"dns":["192.0.2.53"],"search":["example.org"]}}"#;
    assert_eq!(serde_json::to_string(&node).unwrap(), json);
    assert_eq!(serde_json::from_str::<Node>(json).unwrap(), node);

    // With another client identifier than the hardware address there is one more item.
    let client_id = vec![255, 0, 0x12, 0x34, 0x56, 0, 3, 0, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56];
    let with = NodeNetwork::from(&AppliedLink { client_id: Some(client_id.clone()), ..link });
    assert_eq!(with.dhcp_client_id.as_deref(), Some("ff0012345600030001525400123456"));
    assert_eq!(with.dhcp_client_id(), Some((InterfaceName::try_from("eth0").unwrap(), client_id)));
    assert_eq!(node.network.unwrap().dhcp_client_id(), None);
}

/// If this test fails, do not change it: a later `imprint renew` reads what an earlier `imprint run` wrote.
#[test]
fn frozen_renewal() {
    let renewal = NodeRenewal {
        urls: vec!["https://192.0.2.1:8443/.well-known/est".to_owned()],
        issuers: vec!["00".repeat(32)],
        key: "p256".to_owned(),
    };
    let json = r#"{"version":1,"name":"node1","payload_id":"00112233445566778899aabbccddeeff","hostname":null,"key_code":"Q9W1-DFWF-077Y-MGA1","not_after":"2026-11-23T00:00:00Z","network":null,"renewal":{"urls":["https://192.0.2.1:8443/.well-known/est"],"issuers":["0000000000000000000000000000000000000000000000000000000000000000"],"key":"p256"}}"#;
    let node: Node = serde_json::from_str(json).unwrap();
    assert_eq!(node.renewal, Some(renewal));
    assert_eq!(serde_json::to_string(&node).unwrap(), json);
}

/// Version 1 may get new items: a reader of today ignores items that it does not know.
#[test]
fn unknown_items_are_ignored() {
    let json = r#"{"version":1,"outcome":"absent","exit_code":0,"error":null,"origin":null,"payload_id":null,"name":null,"key_code":null,"steps":[],"later":[1]}"#;
    assert_eq!(serde_json::from_str::<Status>(json).unwrap(), Timeline::new(|_| ()).absent());
}

#[test]
fn steps_are_recorded_whether_they_succeed_or_not() {
    let mut timeline = Timeline::new(|_| ());
    let ok: Result<u8, String> = timeline.step("source", |detail| {
        detail.push_str("config-drive sr0 (IMPRINT)");
        Ok(7)
    });
    assert_eq!(ok.unwrap(), 7);
    let error = timeline.step::<(), String>("network", |_| Err("no carrier on eth0".to_owned())).unwrap_err();
    let status = timeline.failed(("network", 16), error);
    let steps: Vec<(&str, &str)> = status.steps.iter().map(|step| (step.name.as_str(), step.detail.as_str())).collect();
    assert_eq!(steps, [("source", "config-drive sr0 (IMPRINT)"), ("network", "")]);
    assert_eq!((status.outcome, status.exit_code), (Outcome::Failed, 16));
    let message = "no carrier on eth0".to_owned();
    assert_eq!(status.error, Some(Failure { stage: "network".to_owned(), message }));
}

#[test]
fn for_people() {
    assert_eq!(step("network", "eth0 10.0.2.15/24").to_string(), "network: eth0 10.0.2.15/24 (0.412 s)");
    assert_eq!(step("plan", "").to_string(), "plan (0.412 s)");
    let mut status = Timeline::new(|_| ()).done();
    status.steps.push(step("plan", ""));
    status.name = Some("node1".to_owned());
    status.key_code = Some("Q9W1-DFWF-077Y-MGA1".to_owned());
    assert_eq!(
        status.to_string(),
        "    1.250 plan (0.412 s)\ndone: node1 has its certificate, key Q9W1-DFWF-077Y-MGA1\n"
    );
}

/// With systemd, `exit` only leaves the shell; without systemd, there is no systemctl. So the last words name both.
#[test]
fn the_last_words_are_right_with_and_without_systemd() {
    let status = Timeline::new(|_| ()).failed(("source", 11), "no payload found".to_owned());
    let reason = status.reason();
    let what = reason.lines().nth(1).unwrap();
    let (systemd, plain) = what.split_once(", or ").unwrap();
    assert!(systemd.ends_with("then \"systemctl default\" boots on"), "{reason}");
    assert_eq!(plain, "\"exit\" in an image without systemd");
    // A bare image has its own words for what to do, and needs the reason alone.
    assert_eq!(reason.lines().next(), status.why().map(|why| format!("imprint: {why}")).as_deref());
}

/// The identity is complete, and still the boot was stopped: the last words say why, and what helps.
#[test]
fn a_bundle_that_is_not_in_the_root_is_the_last_word() {
    let mut timeline = Timeline::new(|_| ());
    timeline.staged(7, "7K3M-Q0ZT-N4V8-XW1C".to_owned());
    let mut status = timeline.done();
    assert_eq!(status.reason(), "", "nothing was stopped");
    let text = serde_json::to_value(&status).unwrap();
    let want = serde_json::json!({ "counter": 7, "code": "7K3M-Q0ZT-N4V8-XW1C", "state": "staged" });
    assert_eq!(text["bundle"], want);
    status.bundle.as_mut().unwrap().error = Some("no overlay\nfile system".to_owned());
    assert!(
        status.reason().starts_with("imprint: the boot was stopped with exit code 20: bundle: no overlay"),
        "as error.rs has it"
    );
    assert!(
        status.reason().contains("make another version at the server")
            && status.reason().contains("\"imprint console\""),
        "the same bundle would fail again: {}",
        status.reason()
    );
    assert_eq!(status.reason().lines().count(), 2);
    let shown = status.to_string();
    assert!(shown.ends_with("was fetched, and is not in the root: no overlay\\nfile system\n"), "{shown}");
    assert_eq!(serde_json::from_str::<Status>(&serde_json::to_string(&status).unwrap()).unwrap(), status);
    status.bundle.as_mut().unwrap().state = BundleState::Applied;
    assert_eq!(status.reason(), "", "a unit that fails in the real root stops no boot");
}
