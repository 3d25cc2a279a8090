//! Tests of a node's bundle against a server with one fault in each test. The exact error, and nothing to stage.

use std::net::{IpAddr, Ipv4Addr};

use imprint::bundle::statement::{AAD, Approver, Sealed, Statement};
use imprint::bundle::{BundleError, MAX_SEALED};
use imprint::http::HttpError;
use imprint::https::HttpsError;
use imprint::payload::{CertificateNames, KeyType};
use imprint::plan::SubjectPlan;
use imprint::pool::Seeded;
use imprint::retrieval::{RetrievalError, ServerError};
use imprint_tests::ca::{Ca, Leaf};
use imprint_tests::est_server::{Ending, EstServer, Request, reply};
use imprint_tests::signer::Key as SignerKey;
use rustls::version::TLS13;

use super::*;

pub(super) const STANDING: &str = "{\"version\":1,\"bundle\":\"none\",\"next\":1}";

pub(super) fn node_name() -> NodeName {
    NodeName::try_from("node1").unwrap()
}

/// A bundle with this host name, as a good server has it.
fn sealed(hostname: &str, counter: u64) -> Vec<u8> {
    let bundle = settings(hostname).bundle(node_name(), counter).unwrap();
    seal(&bundle.encrypt(&[identity().recipient()]).unwrap(), node_name(), counter, &SignerKey::p256())
}

pub(super) fn seal(age: &[u8], node: NodeName, counter: u64, key: &SignerKey) -> Vec<u8> {
    let statement = Statement::of(age, node, counter, Timestamp::system(), Approver::try_from("alice").unwrap());
    Sealed::join(&key.sign_as(&key.signer(), AAD, &statement.encode()), age)
}

fn identity() -> Identity {
    Identity::from_bytes(&[7; 32])
}

pub(super) fn etag(sealed: &[u8]) -> String {
    format!("ETag: {}", Sealed::split(sealed).unwrap().statement().etag())
}

/// The server, and a node that has a certificate of the same CA.
pub(super) fn lying(
    ending: Ending,
    answer: impl Fn(&Request) -> Vec<u8> + Send + 'static,
) -> (EstServer, Node, tempfile::TempDir) {
    let now = Timestamp::system().as_secs();
    let ca = Ca::new("Root", (now - 3600, now + 86_400));
    let tls = ca.server(&Leaf::server(IpAddr::V4(Ipv4Addr::LOCALHOST), (now - 60, now + 3600)), &[&TLS13]);
    let server = EstServer::ending(vec![tls], ending, answer);
    let seeded = Seeded::ready(Deadline::after(PATIENCE)).unwrap();
    let plan = SubjectPlan { names: CertificateNames::default(), key: KeyType::P256 };
    let key = imprint::identity::Identity::generate(&plan, &seeded).unwrap();
    let leaf = ca.issue(&Leaf::node("node1", &[], (now - 60, now + 3600)), key.spki());
    let EstUrl::Https(url) = EstUrl::try_from(server.url().as_str()).unwrap() else { panic!() };
    let home = tempfile::tempdir().unwrap();
    let node = Node {
        home: home.path().to_owned(),
        name: node_name(),
        url: url.for_bundles(),
        ca: CaCertificate::new(ca.der()).unwrap(),
        client: key.client(&[leaf]).unwrap(),
        identity: identity(),
        least: 1,
        signers: vec![SignerKey::p256().signer()],
    };
    (server, node, home)
}

/// Why the node has no bundle, if the server gives this answer to every request.
#[track_caller]
fn error(answer: Vec<u8>) -> StatelessError {
    let (_server, node, _home) = lying(Ending::Notify, move |_| answer.clone());
    node.boot(Boot { settings: settings("x"), ..Boot::default() }).err().expect("a bundle")
}

#[track_caller]
fn server_error(answer: Vec<u8>) -> ServerError {
    match error(answer) {
        StatelessError::Retrieval(RetrievalError::Failed { mut attempts }) => attempts.remove(0).error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_honest_server_is_believed() {
    let answer = reply("200 OK", &[], &sealed("good", 3));
    let (server, node, _home) = lying(Ending::Notify, move |_| answer.clone());
    let (description, hostname) = node.booted(Boot::default());
    assert_eq!((description.counter, hostname.as_str()), (3, "good"));
    assert_eq!(description.approver, "alice");
    // It is fetched once.
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].head.starts_with("GET /.well-known/imprint/bundle HTTP/1.1\r\n"), "{}", requests[0].head);
}

#[test]
fn answers_that_are_none() {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 100_000_000).into_bytes();
    assert!(matches!(server_error(head), ServerError::Https(HttpsError::Http(HttpError::BodyTooLong(MAX_SEALED)))));
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5f5e100\r\nx".to_vec();
    assert!(matches!(server_error(chunked), ServerError::Https(HttpsError::Http(HttpError::BodyTooLong(MAX_SEALED)))));
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 40_000]].concat();
    assert!(matches!(server_error(endless), ServerError::Https(HttpsError::Http(HttpError::HeadTooLong))));
    let elsewhere = "https://elsewhere.example/";
    let ServerError::Redirect { status: 302, location } =
        server_error(reply("302 Found", &[format!("Location: {elsewhere}")], b""))
    else {
        panic!("no redirect")
    };
    assert_eq!(location.unwrap(), elsewhere);
    for (answer, want) in [
        (
            reply("403 Forbidden", &[], b"the certificate was revoked"),
            "the configuration server refuses this node: 403 the certificate was revoked; see imprint-host log there",
        ),
        (
            reply("404 Not Found", &[], b"<html>"),
            "the server knows no bundles: 404 Not Found; have imprint-host of this version serve at this URL",
        ),
        (reply("404 Not Found", &[], b"{}"), "the configuration server's answer"),
        (reply("206 Partial Content", &[], b"x"), "the configuration server refuses the request: 206 x"),
        (reply("410 Gone", &[], b"no more"), "the configuration server refuses the request: 410 no more"),
    ] {
        assert_eq!(server_error(answer).to_string(), want);
    }
}

/// What the server says about an upload.
#[test]
fn uploads_that_are_refused() {
    let stands = |bundle: &str| {
        let code = "\"code\":\"7K3M-Q0ZT-N4V8-XW1C\",\"who\":\"ask alice\"";
        format!("{{\"version\":1,\"bundle\":\"{bundle}\",\"next\":1,{code}}}").into_bytes()
    };
    for (status, body, want) in [
        ("413 Content Too Large", b"17825792 are the most".to_vec(), "413 17825792 are the most"),
        ("400 Bad Request", b"not an age file".to_vec(), "400 not an age file"),
        ("403 Forbidden", b"no bundle_key".to_vec(), "refuses this node: 403 no bundle_key"),
        ("409 Conflict", stands("pending"), "another bundle, 7K3M-Q0ZT-N4V8-XW1C, waits for approval"),
        ("409 Conflict", stands("pending"), "not taken; ask alice; then boot again or run imprint console"),
        ("403 Forbidden", stands("denied"), "the bundle 7K3M-Q0ZT-N4V8-XW1C was denied; correct the settings"),
        ("201 Created", b"{\"version\":2,\"bundle\":\"none\",\"next\":1}".to_vec(), "version 2 of the JSON"),
    ] {
        let (server, node, _home) = lying(Ending::Notify, move |request| match request.head.starts_with("PUT") {
            true => reply(status, &[], &body),
            false => reply("404 Not Found", &[], STANDING.as_bytes()),
        });
        let error = chain(&node.boot(Boot { settings: settings("x"), ..Boot::default() }).err().unwrap());
        assert!(error.contains(want), "{error}");
        assert_eq!(server.requests().len(), 2, "it is not tried again");
    }
}

#[test]
fn bundles_that_are_refused() {
    let good = sealed("good", 3);
    let refused = |bytes: Vec<u8>| match error(reply("200 OK", &[], &bytes)) {
        StatelessError::Refused { source, .. } => source,
        other => panic!("{other:?}"),
    };
    let age = settings("x").bundle(node_name(), 3).unwrap().encrypt(&[identity().recipient()]).unwrap();
    let other = NodeName::try_from("node2").unwrap();
    assert!(matches!(refused(seal(&age, other, 3, &SignerKey::p256())), BundleError::Node { .. }));
    assert!(matches!(refused(seal(&age, node_name(), 3, &SignerKey::ed25519())), BundleError::Signer { .. }));
    assert!(matches!(refused(good[..good.len() - 1].to_vec()), BundleError::Length { .. }));
    assert!(matches!(refused([good.clone(), vec![0]].concat()), BundleError::Length { .. }));
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        refused(bytes)
    };
    let file = good.len() - Sealed::split(&good).unwrap().age().len();
    assert!(matches!(flipped(good.len() - 1), BundleError::Digest));
    assert!(matches!(flipped(file - 1), BundleError::Signature(_)));
    // A bundle for another key of the node.
    let foreign = settings("x").bundle(node_name(), 3).unwrap();
    let foreign = foreign.encrypt(&[Identity::from_bytes(&[8; 32]).recipient()]).unwrap();
    assert!(matches!(refused(seal(&foreign, node_name(), 3, &SignerKey::p256())), BundleError::Age(_)));
    // gzip of 32 MiB of zeros: a signer who was tricked.
    let bomb = std::process::Command::new("sh").args(["-c", "head -c 33554432 /dev/zero | gzip -9n"]).output().unwrap();
    let bomb = imprint::age::encrypt(&bomb.stdout, &[identity().recipient()]).unwrap();
    assert!(matches!(refused(seal(&bomb, node_name(), 3, &SignerKey::p256())), BundleError::Gzip(_)));
    let (_server, node, _home) = lying(Ending::Notify, {
        let answer = reply("200 OK", &[], &good);
        move |_| answer.clone()
    });
    let node = Node { least: 4, ..node };
    let error = node.boot(Boot::default()).err().unwrap();
    let StatelessError::Refused { source: BundleError::Counter { has: 3, least: 4 }, .. } = error else {
        panic!("{error:?}")
    };
}

/// A server that gives an older bundle for the one that was uploaded, as one does that was restored from a backup.
#[test]
fn another_bundle_than_the_one_that_was_uploaded() {
    let old = sealed("old", 3);
    let (_server, node, _home) = lying(Ending::Notify, move |request| {
        let standing = "{\"version\":1,\"bundle\":\"pending\",\"next\":5}";
        match (request.head.split(' ').next().unwrap(), request.head.contains("?tag=")) {
            ("PUT", _) => reply("201 Created", &[], standing.as_bytes()),
            ("GET", true) => reply("200 OK", &[], &old),
            _ => reply("404 Not Found", &[], standing.replace("pending", "none").as_bytes()),
        }
    });
    let error = node.boot(Boot { settings: settings("mine"), ..Boot::default() }).err().unwrap();
    assert!(matches!(error, StatelessError::Another { counter: 3, next: 5 }), "{error:?}");
}

/// Attack: the code of a file that the server has made, for the node to show as its own.
#[test]
fn a_code_that_the_node_has_not_computed_is_the_servers() {
    let lie = "{\"version\":1,\"bundle\":\"pending\",\"next\":1,\"code\":\"7K3M-Q0ZT-N4V8-XW1C\"}";
    let (server, node, _home) = lying(Ending::Notify, move |request| match request.head.split(' ').next().unwrap() {
        "PUT" => reply("201 Created", &[], lie.as_bytes()),
        _ if request.head.contains("?tag=") => reply("202 Accepted", &[], lie.as_bytes()),
        _ => reply("404 Not Found", &[], STANDING.as_bytes()),
    });
    let lines = RefCell::new(Vec::new());
    let said = |line: &str| lines.borrow_mut().push(line.to_owned());
    for _ in 0..2 {
        let approval = Some(Duration::ZERO);
        let boot = Boot { settings: settings("x"), approval, said: &said, repeat: Duration::ZERO, ..Boot::default() };
        let error = chain(&node.boot(boot).err().unwrap());
        assert!(
            error.ends_with("; the code is what the server says, this node did not make it and cannot check it"),
            "{error}"
        );
    }
    let (lines, says) = (lines.borrow(), "the server says that bundle 7K3M-Q0ZT-N4V8-XW1C waits for approval at ");
    let shown: Vec<_> = lines.iter().filter(|line| line.contains(" waits for approval at ")).collect();
    assert!(
        shown
            .iter()
            .all(|line| line.starts_with(says) && line.ends_with("; this node did not make it and cannot check it"))
    );
    // It is said again while the node waits.
    assert_eq!(shown.len(), 4, "{lines:?}");
    // The same settings are the same bytes at every boot, so that the node knows the code of an upload of an earlier one.
    let sent: Vec<_> = server.requests().into_iter().filter(|request| request.head.starts_with("PUT")).collect();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].body, sent[1].body);
    let file = settings("x").bundle(node_name(), 1).unwrap().encrypt_own(&identity()).unwrap();
    assert_eq!(sent[0].body, file);
}

/// Attack: a bundle that was signed once, in place of the one that waits.
#[test]
fn an_old_bundle_in_place_of_the_new_one() {
    let answer = |request: &Request, next: u64, current: Option<&[u8]>, approved: &[u8]| {
        let stands = |bundle: &str| format!("{{\"version\":1,\"bundle\":\"{bundle}\",\"next\":{next}}}").into_bytes();
        match (request.head.split(' ').next().unwrap(), request.head.contains("?tag=")) {
            ("PUT", _) => reply("201 Created", &[], &stands("pending")),
            ("GET", _) if request.head.contains("/standing ") => reply("200 OK", &[], &stands("approved")),
            ("GET", true) if request.connection > 1 => reply("200 OK", &[], approved),
            ("GET", false) if current.is_some() && !request.head.contains("/standing ") => {
                reply("200 OK", &[], current.unwrap())
            }
            _ => reply("404 Not Found", &[], &stands("none")),
        }
    };
    // It has shown number 5, and tells of none.
    let (current, old) = (sealed("current", 5), sealed("old", 3));
    let (_server, node, _home) = lying(Ending::Abrupt, move |request| answer(request, 1, Some(&current), &old));
    let error = node.boot(Boot { settings: settings("mine"), new: true, ..Boot::default() }).err().unwrap();
    assert!(matches!(error, StatelessError::Another { counter: 3, next: 5 }), "{error:?}");
    // The node's own file is known whatever its number is.
    let file = settings("mine").bundle(node_name(), 1).unwrap().encrypt_own(&identity()).unwrap();
    let (current, own) = (sealed("current", 5), seal(&file, node_name(), 3, &SignerKey::p256()));
    let (_server, node, _home) = lying(Ending::Abrupt, move |request| answer(request, 1, Some(&current), &own));
    assert_eq!(node.booted(Boot { settings: settings("mine"), new: true, ..Boot::default() }).1, "mine");
}

/// Accident: the server that has the upload is away for a moment, and another one knows nothing of it.
#[test]
fn a_wait_stays_with_the_server_that_began_it() {
    let (good, pending) = (sealed("good", 3), STANDING.replace("none", "pending"));
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let (_server, node, _home) = lying(Ending::Notify, move |request| {
        if request.head.contains(" /other/") {
            return reply("404 Not Found", &[], STANDING.as_bytes());
        }
        match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => reply("202 Accepted", &[], pending.as_bytes()),
            1 => reply("503 Service Unavailable", &[], b"later"),
            _ => reply("200 OK", &[], &good),
        }
    });
    let other = node.url.to_string().replace("/.well-known/imprint", "/other/.well-known/est");
    let EstUrl::Https(other) = EstUrl::try_from(other.as_str()).unwrap() else { panic!() };
    assert_eq!(node.booted(Boot { other: Some(other.for_bundles()), ..Boot::default() }).1, "good");
}

/// Accident: a lease ends while a large bundle comes over a slow line.
#[test]
fn the_network_is_kept_during_a_long_transfer() {
    let answer = reply("200 OK", &[], &vec![0; 200_000]);
    let (_server, node, _home) = lying(Ending::Notify, move |_| answer.clone());
    let kept = std::cell::Cell::new(0);
    let meanwhile = || kept.set(kept.get() + 1);
    let error = node.boot(Boot { meanwhile: &meanwhile, ..Boot::default() }).err().unwrap();
    assert!(matches!(error, StatelessError::Refused { .. }), "{error:?}");
    assert!(kept.get() >= 10, "{kept:?}");
}

/// A boot that wants a new bundle looks at the one that is there, and asks again by the tag of its words: the same bytes do not
/// come twice. A 304 to a node that has nothing is none of the answers.
#[test]
fn a_bundle_that_has_not_changed_comes_once() {
    let good = sealed("good", 3);
    let tag = etag(&good);
    let of_bundle = move |request: &Request| {
        let head = &request.head;
        if head.starts_with("GET /.well-known/imprint/standing ") {
            reply("200 OK", &[], b"{\"version\":1,\"bundle\":\"approved\",\"next\":3}")
        } else if head.contains(&format!("If-None-Match: {}\r\n", &tag[6..])) {
            reply("304 Not Modified", std::slice::from_ref(&tag), b"")
        } else {
            reply("200 OK", std::slice::from_ref(&tag), &good)
        }
    };
    let (server, node, _home) = lying(Ending::Notify, of_bundle);
    let (description, hostname) = node.booted(Boot { settings: settings("good"), new: true, ..Boot::default() });
    assert_eq!((description.counter, hostname.as_str()), (3, "good"));
    let heads: Vec<String> = server.requests().into_iter().map(|request| request.head).collect();
    let of_bundle = heads.iter().filter(|head| head.starts_with("GET /.well-known/imprint/bundle"));
    let told: Vec<bool> = of_bundle.map(|head| head.contains("If-None-Match: ")).collect();
    assert_eq!(told, [false, true], "{heads:?}");
    let error = server_error(reply("304 Not Modified", &[], b"")).to_string();
    assert!(error.starts_with("the configuration server refuses the request: 304"), "{error}");
}

/// The first half of an answer. The connection breaks behind it.
fn half(bytes: &[u8], etag: &str) -> Vec<u8> {
    let whole = reply("200 OK", &[etag.to_owned()], bytes);
    whole[..whole.len() - bytes.len() / 2].to_vec()
}

fn rest(bytes: &[u8], etag: &str, from: usize) -> Vec<u8> {
    let range = format!("Content-Range: bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
    reply("206 Partial Content", &[etag.to_owned(), range], &bytes[from..])
}

/// The bundle that a node has in the end, and its requests, if the server's answers break off.
fn through(answers: Vec<Vec<u8>>) -> (u64, Vec<String>) {
    let (server, node, _home) = lying(Ending::Abrupt, move |request| answers[request.connection].clone());
    let (description, _) = node.booted(Boot::default());
    (description.counter, server.requests().into_iter().map(|request| request.head).collect())
}

#[test]
fn a_transfer_that_breaks_goes_on_where_it_stopped() {
    let (bytes, other) = (sealed("good", 3), sealed("better", 4));
    let (tag, other_tag) = (etag(&bytes), etag(&other));
    let have = bytes.len() - bytes.len() / 2;
    let asks = format!("Range: bytes={have}-\r\nIf-Range: {}", &tag[6..]);
    let (counter, heads) = through(vec![half(&bytes, &tag), rest(&bytes, &tag, have)]);
    assert_eq!((counter, heads.len()), (3, 2));
    assert!(!heads[0].contains("Range") && heads[1].contains(&asks), "{heads:?}");
    // The version has changed meanwhile, and a good server gives the whole of the new one.
    assert_eq!(through(vec![half(&bytes, &tag), reply("200 OK", std::slice::from_ref(&other_tag), &other)]).0, 4);
    // A bad one gives the rest of the new one, or another range: the whole is fetched, and no part is asked for again.
    for lie in
        [rest(&other, &other_tag, have), rest(&bytes, &tag, have - 1), reply("416 x", std::slice::from_ref(&tag), b"")]
    {
        let answers =
            vec![half(&bytes, &tag), lie, half(&bytes, &tag), reply("200 OK", std::slice::from_ref(&tag), &bytes)];
        let (counter, heads) = through(answers);
        assert_eq!((counter, heads.len()), (3, 4));
        assert!(heads[1].contains(&asks) && !heads[2].contains("Range") && !heads[3].contains("Range"), "{heads:?}");
    }
    // Nothing says which version it was.
    let (_, heads) = through(vec![half(&bytes, "X: y"), reply("200 OK", &[], &bytes)]);
    assert!(!heads[1].contains("Range"), "{heads:?}");
}
