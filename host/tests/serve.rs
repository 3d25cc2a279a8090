//! Tests of enrolment over real TLS: what is signed, what is refused, and the messages.

use crate::support;

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use imprint::key_code::KeyCode;
use imprint_host::compose::Options;
use imprint_host::csr::Csr;
use imprint_host::enrol;
use imprint_host::serve::{AWAY, CONNECTIONS};
use imprint_host::store::NodeRow;
use rustls::NamedGroup;
use support::{NODE, SANS, SUBJECT, Site, basic, run, shown, start, wrapped};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const UNKNOWN: &str = "no payload was made with this name and token; make one with imprint-host payload\n";

fn code(csr: &[u8]) -> KeyCode {
    Csr::parse(csr).unwrap().code()
}

/// The newest line of the audit log.
fn last(site: &Site) -> String {
    let row = site.state().store.log(1).unwrap().remove(0);
    format!("{} {}: {}", row.event, row.node.unwrap_or("-".into()), row.detail)
}

#[test]
fn what_matches_is_signed() {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options::default());
    let csr = site.good();
    let answer = site.enroll(Some(("node1", &token)), &csr);
    let text = shown(&site.verified(&answer));
    assert!(text.contains("Subject: CN = node1.example.org, O = Example\n"), "{text}");
    assert!(text.contains("DNS:node1.example.org, IP Address:192.0.2.10\n"), "{text}");
    assert!(text.contains("X509v3 Extended Key Usage: \n                TLS Web Client Authentication\n"), "{text}");
    assert!(text.contains("X509v3 Key Usage: critical\n                Digital Signature\n"), "{text}");
    assert_eq!(answer.header("Content-Type"), Some("application/pkcs7-mime; smime-type=certs-only"));
    assert_eq!(answer.header("Content-Transfer-Encoding"), Some("base64"));
    assert_eq!(answer.header("Content-Length").unwrap(), answer.body.len().to_string());
    assert!(answer.body.lines().all(|line| line.len() <= 64));
    assert_eq!(answer.group, Some(NamedGroup::X25519MLKEM768));
    let until = site.clock().plus(90 * DAY);
    let code = code(&csr);
    assert_eq!(
        last(&site),
        format!(
            "enrolled node1: CN=node1.example.org, O=Example dns:node1.example.org ip:192.0.2.10 key {code}, until {until}"
        )
    );
}

#[test]
fn a_token_is_good_for_one_key_and_its_certificate_is_sent_again() {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options::default());
    let csr = site.good();
    let first = site.enroll(Some(("node1", &token)), &csr);
    assert_eq!(first.status, 200);
    let at = site.clock();
    site.pass(Duration::from_secs(3600));

    let other = site.good();
    let answer = site.enroll(Some(("node1", &token)), &other);
    assert_eq!((answer.status, answer.body.as_str(), answer.header("Retry-After")), (202, "", Some("5")));
    let why = format!("pending node1: key {}: token already used by key {} at {at}", code(&other), code(&csr));
    assert_eq!(last(&site), why);
    for credentials in [Some(("node1", token.as_str())), Some(("node1", "wrong")), None] {
        let again = site.enroll(credentials, &csr);
        assert_eq!((again.status, &again.body), (200, &first.body));
    }
    // Not for another record, and not when it has ended.
    assert_eq!(site.enroll(Some(("node2", &token)), &csr).body, UNKNOWN);
    site.pass(91 * DAY);
    assert_eq!(site.enroll(None, &csr).status, 401);
}

/// A token that another key has used: an administrator decides, by the code of the key.
#[test]
fn what_waits_is_signed_once_it_was_approved() {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options::default());
    let ask = |csr: &[u8]| site.enroll(Some(("node1", &token)), csr);
    site.verified(&ask(&site.good()));
    // The first certificate may have been lost for as long as this.
    site.pass(15 * MINUTE);
    let (wanted, other) = (site.good(), site.good());
    let asked = site.clock();
    assert_eq!((ask(&wanted).status, ask(&other).status), (202, 202));
    let lines = site.state().store.log(100).unwrap().len();
    site.pass(Duration::from_secs(60));
    // A repeated request changes nothing; a CSR that does not match, or a wrong token, waits for nobody.
    assert_eq!(ask(&wanted).status, 202);
    assert_eq!(site.state().store.log(100).unwrap().len(), lines);
    assert_eq!(ask(&site.csr(SUBJECT, &[])).status, 403);
    assert_eq!(site.enroll(Some(("node1", "wrong")), &site.good()).status, 403);

    let waiting = site.state().store.waiting("node1", site.clock()).unwrap();
    let codes: Vec<String> = [&wanted, &other].iter().map(|csr| code(csr).to_string()).collect();
    assert_eq!(waiting.iter().map(|row| row.key_code.clone()).collect::<Vec<_>>(), codes);
    assert_eq!((waiting[0].first_at, waiting[0].last_at, waiting[1].last_at), (asked, site.clock(), asked));

    let approve = |node: &str, code: &str| enrol::approve(&mut site.state().store, node, code, site.clock());
    assert_eq!(
        approve("node1", "0000-0000-0000-0000").unwrap_err().to_string(),
        format!("no request of node1 with key 0000-0000-0000-0000 waits; waiting: {}", codes.join(", "))
    );
    assert!(approve("node9", &codes[0]).unwrap_err().to_string().starts_with("no request of node9 waits;"));
    approve("node1", &codes[0].to_lowercase().replace('-', "")).unwrap();
    // One key was approved, so the other one is not this node's.
    let denied = (403, "an administrator denied this key; make another payload\n");
    let answer = ask(&other);
    assert_eq!((answer.status, answer.body.as_str()), denied);
    let answer = ask(&wanted);
    site.verified(&answer);
    assert_eq!(ask(&wanted).body, answer.body, "and again, as any certificate");
    assert!(site.state().store.waiting("node1", site.clock()).unwrap().is_empty());
    // Approved once, not for ever: the next key waits again, and names this one.
    let next = site.good();
    assert_eq!(ask(&next).status, 202);
    assert!(last(&site).contains(&codes[0]), "{}", last(&site));
    enrol::deny(&mut site.state().store, "node1", site.clock()).unwrap();
    assert_eq!(ask(&next).status, 403);
    let events: Vec<String> = site.state().store.log(100).unwrap().into_iter().map(|row| row.event).collect();
    let decided: Vec<&str> =
        events.iter().map(String::as_str).filter(|event| ["approved", "denied"].contains(event)).collect();
    assert_eq!(decided, ["approved", "denied", "denied"]);
}

#[test]
fn requests_that_wait_are_few_and_do_not_stay() {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options { expires: 3 * DAY, ..Options::default() });
    let ask = |csr: &[u8]| site.enroll(Some(("node1", &token)), csr);
    site.verified(&ask(&site.good()));
    site.pass(15 * MINUTE);
    let first = site.good();
    assert_eq!(ask(&first).status, 202);
    for _ in 1..8 {
        assert_eq!(ask(&site.good()).status, 202);
    }
    let answer = ask(&site.good());
    let why = "8 other keys wait for approval with this payload; run imprint-host deny for its node, or make another \
               payload\n";
    assert_eq!((answer.status, answer.body.as_str(), answer.header("Retry-After")), (429, why, Some("60")));
    site.pass(DAY);
    assert!(site.state().store.waiting("node1", site.clock()).unwrap().is_empty());
    assert_eq!(ask(&site.good()).status, 202);
    assert_eq!(site.state().store.waiting("node1", site.clock()).unwrap().len(), 1);
    // Nobody approves what has expired.
    site.pass(2 * DAY);
    assert!(ask(&first).body.starts_with("payload expired at "));
}

#[test]
fn wrong_names_and_tokens_look_the_same_from_outside() {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options::default());
    let csr = site.good();
    for (credentials, why) in
        [(("node1", "wrong"), "refused node1: wrong token"), (("node9", token.as_str()), "refused node9: no such node")]
    {
        let answer = site.enroll(Some(credentials), &csr);
        assert_eq!((answer.status, answer.body.as_str()), (403, UNKNOWN));
        assert_eq!(last(&site), why);
    }
    let answer = site.enroll(None, &csr);
    assert_eq!((answer.status, answer.body.as_str()), (401, ""));
    assert_eq!(answer.header("Content-Length"), Some("0"));
    // Some clients compare letter by letter.
    assert_eq!(answer.header("WWW-Authenticate"), Some("Basic realm=\"imprint\", charset=\"UTF-8\""));
    assert_eq!(last(&site), "refused -: no credentials");
}

#[test]
fn a_csr_that_asks_for_anything_else_is_refused_and_spends_nothing() {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options::default());
    let rsa = ["-newkey", "rsa:2048"];
    let p384 = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
    let p521 = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"];
    let challenge = site.dir.path().join("challenge.cnf");
    let config = "[req]\ndistinguished_name = none\nattributes = more\nprompt = no\nstring_mask = utf8only\n\
                  [none]\nCN = node1.example.org\nO = Example\n[more]\nchallengePassword = secret\n";
    std::fs::write(&challenge, config).unwrap();
    let challenge = challenge.to_str().unwrap();
    let cases = [
        (
            site.csr(SUBJECT, &["-addext", &format!("{SANS},DNS:evil.example.org")]),
            "names in the CSR that the record lacks: dns:evil.example.org\n",
        ),
        (
            site.csr(SUBJECT, &["-addext", "subjectAltName=DNS:node1.example.org"]),
            "names in the record that the CSR lacks: ip:192.0.2.10\n",
        ),
        (site.csr(SUBJECT, &[]), "names in the record that the CSR lacks: dns:node1.example.org, ip:192.0.2.10\n"),
        (
            site.csr(SUBJECT, &["-addext", "subjectAltName=DNS:node1.example.org,IP:192.0.2.11"]),
            "names in the CSR are ip:192.0.2.11, in the record ip:192.0.2.10\n",
        ),
        (
            site.csr(SUBJECT, &["-addext", &format!("{SANS},DNS:node1.example.org")]),
            "names in the CSR and in the record are repeated differently\n",
        ),
        (
            site.csr("/O=Example/CN=node1.example.org", &["-addext", SANS]),
            "subject in the CSR is O=Example, CN=node1.example.org, in the record CN=node1.example.org, O=Example\n",
        ),
        (
            site.csr("/CN=node1.example.org+O=Example", &["-multivalue-rdn", "-addext", SANS]),
            "CSR with a subject that is not a list of single plain attributes\n",
        ),
        (
            site.csr("/", &["-addext", SANS]),
            "subject in the CSR is none, in the record CN=node1.example.org, O=Example\n",
        ),
        (
            site.csr(SUBJECT, &["-addext", SANS, "-addext", "basicConstraints=CA:TRUE"]),
            "CSR asks for extension 2.5.29.19; only subjectAltName may be asked for\n",
        ),
        (
            site.csr("", &["-addext", SANS, "-config", challenge]),
            "CSR with attribute 1.2.840.113549.1.9.7; only names may be asked for\n",
        ),
        (site.csr_for(&rsa, SUBJECT, &["-addext", SANS]), "key in the CSR is rsa2048, in the record p256\n"),
        (site.csr_for(&p384, SUBJECT, &["-addext", SANS, "-sha384"]), "key in the CSR is p384, in the record p256\n"),
        (
            site.csr_for(&p521, SUBJECT, &["-addext", SANS]),
            "CSR with an unsupported elliptic curve, 1.3.132.0.35; want p256, p384, ed25519, rsa2048 or rsa3072 with its usual \
             signature\n",
        ),
    ];
    for (csr, want) in &cases {
        let answer = site.enroll(Some(("node1", &token)), csr);
        assert_eq!((answer.status, answer.body.as_str()), (403, *want));
        assert_eq!(last(&site), format!("refused node1: {}", want.trim_end()));
    }
    let mut forged = site.good();
    let end = forged.len() - 1;
    forged[end] ^= 1;
    let answer = site.enroll(Some(("node1", &token)), &forged);
    assert_eq!((answer.status, answer.body.as_str()), (403, "the CSR is not signed by the key in it\n"));
    // Alternative names in another order are the same names.
    let turned = "subjectAltName=IP:192.0.2.10,DNS:node1.example.org";
    let answer = site.enroll(Some(("node1", &token)), &site.csr(SUBJECT, &["-addext", turned]));
    site.verified(&answer);
}

/// RFC 5280 §7.2: letter case in a DNS name does not matter. The server signs what the record says.
#[test]
fn a_csr_may_write_dns_names_in_other_letters() {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options::default());
    let louder = "subjectAltName=DNS:NODE1.Example.ORG,IP:192.0.2.10";
    let answer = site.enroll(Some(("node1", &token)), &site.csr(SUBJECT, &["-addext", louder]));
    let text = shown(&site.verified(&answer));
    assert!(text.contains("DNS:node1.example.org, IP Address:192.0.2.10"), "{text}");
}

#[test]
fn a_record_whose_certificate_could_never_be_renewed_is_refused() {
    let site = start(&[NODE]);
    let record = "name = \"node2\"\nsubject = [\"CN=node2\"]\nusages = [\"serverAuth\"]\n".to_owned();
    let files = [("node2.toml".to_owned(), record)];
    let error = site.state().add_nodes(&files, false, site.clock()).unwrap_err().to_string();
    assert_eq!(
        error,
        "node2.toml: usages lack clientAuth: a node needs it to renew its certificate, and the agent refuses a \
         certificate without it; write usages = [\"clientAuth\", \"serverAuth\"]"
    );
    assert!(site.state().store.node("node2").unwrap().is_none(), "and nothing is kept");
    let both = files[0].1.replace("\"serverAuth\"", "\"serverAuth\", \"clientAuth\"");
    site.state().add_nodes(&[("node2.toml".to_owned(), both)], false, site.clock()).unwrap();
}

#[test]
fn other_key_types_when_the_record_says_so() {
    let record = |name: &str, key: &str| {
        format!(
            "name = \"{name}\"\nsubject = [\"CN={name}\"]\nkey = \"{key}\"\nusages = [\"serverAuth\", \"clientAuth\"]\n"
        )
    };
    let records = [record("a", "rsa3072"), record("b", "ed25519"), record("c", "p384")];
    let site = start(&records.each_ref().map(String::as_str));
    let keys: [(&str, &[&str]); 3] = [
        ("a", &["-newkey", "rsa:3072"]),
        ("b", &["-newkey", "ed25519"]),
        ("c", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha384"]),
    ];
    for (name, key) in keys {
        let token = site.token(name, &Options::default());
        let answer = site.enroll(Some((name, &token)), &site.csr_for(key, &format!("/CN={name}"), &[]));
        let text = shown(&site.verified(&answer));
        assert!(text.contains("TLS Web Client Authentication, TLS Web Server Authentication\n"), "{text}");
    }
}

#[test]
fn a_payload_ends() {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options::default());
    let expiry = site.clock().plus(DAY);
    site.pass(DAY);
    let now = site.clock();
    let answer = site.enroll(Some(("node1", &token)), &site.good());
    assert_eq!(answer.status, 403);
    assert_eq!(
        answer.body,
        format!("payload expired at {expiry}, it is {now}; make another with imprint-host payload\n")
    );
    // Another payload takes its place, unless it is told not to.
    let old = site.token("node1", &Options::default());
    let kept = site.token("node1", &Options { keep: true, ..Options::default() });
    let csr = site.good();
    assert_eq!(site.enroll(Some(("node1", &old)), &csr).status, 200);
    let new = site.token("node1", &Options::default());
    let answer = site.enroll(Some(("node1", &kept)), &site.good());
    assert_eq!(answer.status, 403);
    assert_eq!(answer.body, format!("this payload was replaced by a newer one at {now}; use the newer payload\n"));
    assert_eq!(site.enroll(Some(("node1", &new)), &site.good()).status, 200);
}

#[test]
fn a_renewal_without_a_certificate_is_refused() {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options::default());
    let csr = site.good();
    site.verified(&site.enroll(Some(("node1", &token)), &csr));
    // Name and token do not replace it.
    let headers = format!("{}Content-Type: application/pkcs10\r\n", basic("node1", &token));
    for operation in ["simplereenroll", "label/simplereenroll"] {
        let answer = site.post(operation, &headers, &wrapped(&csr));
        assert_eq!(answer.status, 403);
        let want = "a renewal must show the certificate to renew as the TLS client certificate\n";
        assert_eq!(answer.body, want);
    }
}

#[test]
fn a_token_for_each_boot() {
    let site = start(&[&format!("{NODE}enrol = \"each-boot\"\n")]);
    let token = site.token("node1", &Options { expires: 3 * DAY, ..Options::default() });
    for _ in 0..2 {
        let answer = site.enroll(Some(("node1", &token)), &site.good());
        let pem = site.verified(&answer);
        let end = run("openssl", &["x509", "-in", pem.to_str().unwrap(), "-noout", "-enddate", "-dateopt", "iso_8601"]);
        let want = site.clock().plus(DAY).to_string().replace('T', " ");
        assert_eq!(end.trim(), format!("notAfter={want}"));
        site.pass(DAY);
    }
    site.pass(2 * DAY);
    assert_eq!(site.enroll(Some(("node1", &token)), &site.good()).status, 403);
}

#[test]
fn bodies_that_are_no_csr() {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options::default());
    let headers = format!("{}Content-Type: application/pkcs10\r\n", basic("node1", &token));
    let ask = |body: &[u8]| {
        let answer = site.post("simpleenroll", &headers, body);
        (answer.status, answer.body)
    };
    assert_eq!(ask(b""), (400, "the body is empty; want base64 of a CSR\n".to_owned()));
    assert_eq!(ask(b"%%%"), (400, "the body is not base64 of a CSR\n".to_owned()));
    let (status, why) = ask(b"AAAA");
    assert_eq!(status, 400);
    assert!(why.starts_with("not a CSR in DER: "), "{why}");
    assert_eq!(ask(&vec![b'A'; 65 * 1024]), (413, "body cut short or over 65536 bytes\n".to_owned()));
    let answer = site.post("simpleenroll", "Content-Type: text/plain\r\n", b"x");
    assert_eq!((answer.status, answer.body.as_str()), (415, "want Content-Type: application/pkcs10\n"));
    let answer = site.post("simpleenroll", "Authorization: Bearer x\r\n", b"x");
    assert_eq!((answer.status, answer.body.as_str()), (400, "want Authorization: Basic with node name and token\n"));
    let answer = site.post("serverkeygen", "", b"x");
    assert_eq!((answer.status, answer.body.as_str()), (404, "not an operation of this server\n"));
    assert_eq!(site.get("/.well-known/est/simpleenroll").status, 405);
}

#[test]
fn what_independent_clients_send() {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options::default());
    let csr = site.good();
    let headers = format!("Host: x\r\nConnection: close\r\n{}", basic("node1", &token));
    // Chunked, with a label, a lower-case header name and parameters.
    let body = wrapped(&csr);
    let (a, b) = body.split_at(100);
    let chunked = [
        format!(
            "POST /.well-known/est/nodes/simpleenroll HTTP/1.1\r\n{headers}content-type: Application/PKCS10; x=y\r\n\
             Transfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            a.len()
        )
        .into_bytes(),
        a.to_vec(),
        format!("\r\n{:x}\r\n", b.len()).into_bytes(),
        b.to_vec(),
        b"\r\n0\r\n\r\n".to_vec(),
    ]
    .concat();
    let first = site.send(&chunked);
    site.verified(&first);
    // DER as it is, no content type, a stray CRLF behind it, TLS 1.2.
    let head = format!("POST /.well-known/est/simpleenroll HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n", csr.len());
    let request = [head.as_bytes(), &csr, b"\r\n"].concat();
    let again = site.exchange(&[&rustls::version::TLS12], &request);
    assert_eq!((again.status, &again.body), (200, &first.body));
}

/// One address cannot take every place. It is told to come back where it finds none, and others are served meanwhile.
#[test]
fn idle_connections_of_one_address_shut_nobody_else_out() {
    let site = start(&[NODE]);
    let server = site.server.local_addr();
    let from = |last: u8| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
            socket.connect(server).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        stream
    };
    let idle: Vec<_> = (0..=CONNECTIONS / 3).map(|_| from(1)).collect();
    let get = |stream| {
        site.exchange_on(stream, &[&rustls::version::TLS13], b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    };
    let away = get(from(1));
    let after: u64 = away.header("Retry-After").unwrap().parse().unwrap();
    assert_eq!((away.status, away.body.as_str()), (503, "the server has too much to do; come back later\n"));
    assert!((10..20).contains(&after), "{after}");
    assert_eq!(get(from(2)).status, 404);
    // Whoever takes the places for that, too, is closed.
    let mut more: Vec<_> = (0..=AWAY).map(|_| from(1)).collect();
    assert!(matches!(more.last_mut().unwrap().read(&mut [0]), Ok(0)), "closed");
    assert_eq!(get(from(2)).status, 404);
    drop((idle, more));
}

#[test]
fn a_record_that_changed_signs_no_other_names() {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options::default());
    let csr = site.good();
    assert_eq!(site.enroll(Some(("node1", &token)), &csr).status, 200);
    let other = "name = \"node1\"\nsubject = [\"CN=node1.example.net\"]\n";
    site.state().add_nodes(&[("other.toml".into(), other.into())], true, site.clock()).unwrap();
    // The stored certificate is for names that are no longer the record's.
    assert_eq!(site.enroll(None, &csr).status, 401);
}

#[test]
fn of_many_keys_at_once_a_token_serves_one() {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options::default());
    let requests: Vec<_> = (0..8).map(|_| site.good()).collect();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = |csr| site.enroll(Some(("node1", &token)), csr).status;
        let running: Vec<_> = requests.iter().map(|csr| scope.spawn(move || ask(csr))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // Each came before anybody could have used the one before.
    assert_eq!(statuses, [200; 8]);
    let mut state = site.state();
    let live = state.store.changes().unwrap().live_certificates("node1", site.clock()).unwrap();
    assert_eq!(live.len(), 1, "all but the last are revoked");
}

/// Requests that are decided together. What cannot be read in the store is one node's trouble.
#[test]
fn a_fault_in_one_request_takes_none_of_the_others_with_it() {
    let site = start(&[NODE, "name = \"node2\"\nsubject = [\"CN=node2\"]\n"]);
    let tokens = ["node1", "node2"].map(|node| (node, site.token(node, &Options::default())));
    let requests: Vec<_> = (0..6).map(|_| site.good()).collect();
    let mut state = site.state();
    let broken = NodeRow { name: "node2".to_owned(), file: "node.toml".to_owned(), record: "name =".to_owned() };
    let changes = state.store.changes().unwrap();
    changes.put_node(&broken, true, site.clock()).unwrap();
    changes.commit().unwrap();
    let statuses: Vec<(&str, u16)> = std::thread::scope(|scope| {
        // The desk waits for the store, and the requests for the desk.
        let held = state.store.changes().unwrap();
        let ask = |(node, token): &(&'static str, String), csr| (*node, site.enroll(Some((node, token)), csr).status);
        let turns = tokens.iter().cycle().zip(&requests);
        let running: Vec<_> = turns.map(|(from, csr)| scope.spawn(move || ask(from, csr))).collect();
        std::thread::sleep(Duration::from_millis(500));
        drop(held);
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (node, status) in statuses {
        assert_eq!(status, if node == "node1" { 200 } else { 500 }, "{node}");
    }
    let live = state.store.changes().unwrap().live_certificates("node1", site.clock()).unwrap();
    assert_eq!(live.len(), 1);
}
