//! Tests of every known form of EST answers, each over TLS 1.3 and TLS 1.2. docs/est.md describes each form under its id,
//! and names the servers that send it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use imprint::chain::chain;
use imprint_tests::ca::certs_only_ber;
use imprint_tests::est_server::Ending;
use rustls::SupportedProtocolVersion;

use super::*;

/// A form and what is right.
struct Form {
    id: &'static str,
    check: Check,
}

enum Check {
    /// Both answers come in this shape, and the certificate is taken.
    Shape(Ending, fn(&Plain) -> Vec<u8>),
    /// The answer to the CSR holds these, of leaf, signer and root, and the certificate is taken.
    Holds(fn([Vec<u8>; 3]) -> Vec<Vec<u8>>),
    /// Something else.
    Talk(fn(&Scene)),
}

/// An answer that is right but for its shape.
struct Plain {
    certificates: Vec<Vec<u8>>,
}

/// One form under one version of TLS.
struct Scene {
    world: World,
    version: &'static SupportedProtocolVersion,
}

use Check::{Holds, Shape, Talk};

const fn form(id: &'static str, check: Check) -> Form {
    Form { id, check }
}

const FORMS: &[Form] = &[
    // Bodies.
    form("E01", Shape(Ending::Notify, |plain| plain.fields(&[], plain.base64().as_bytes()))),
    form("E02", Shape(Ending::Notify, |plain| plain.fields(&[], plain.one_line().as_bytes()))),
    form("E03", Shape(Ending::Notify, |plain| plain.fields(&[], plain.mime().as_bytes()))),
    form("E04", Shape(Ending::Notify, |plain| plain.fields(&[], &plain.der()))),
    form("E05", Shape(Ending::Notify, |plain| plain.fields(&[], plain.one_line().trim_end_matches('=').as_bytes()))),
    form("E06", Shape(Ending::Notify, |plain| plain.fields(&[], base64(&plain.ber()).as_bytes()))),
    form("E07", Shape(Ending::Notify, |plain| plain.fields(&[], &plain.ber()))),
    // Header fields.
    form("E08", Shape(Ending::Notify, |plain| plain.field("Content-Transfer-Encoding: base64"))),
    form("E09", Shape(Ending::Notify, |plain| plain.field("Content-Transfer-Encoding: binary"))),
    form("E10", Shape(Ending::Notify, |plain| plain.field(PKCS7))),
    form("E11", Shape(Ending::Notify, |plain| plain.field(&PKCS7.replace("certs-only", "\"certs-only\"")))),
    form("E12", Shape(Ending::Notify, |plain| plain.field("Content-Type: application/pkcs7-mime"))),
    form(
        "E13",
        Shape(Ending::Notify, |plain| {
            plain.field("Content-Type: application/PKCS7-Mime;charset=utf-8;name=smime.p7m ; smime-type=CERTS-ONLY")
        }),
    ),
    form("E14", Shape(Ending::Notify, |plain| plain.field("Content-Type: text/plain"))),
    form(
        "E15",
        Shape(Ending::Notify, |plain| {
            let (fields, body) = (["content-transfer-encoding: base64".to_owned()], plain.base64());
            let answer = String::from_utf8(plain.fields(&fields, body.as_bytes())).unwrap();
            answer.replace("Date:", "date:").replace("Content-Length: ", "content-length:").into_bytes()
        }),
    ),
    // Framing.
    form("E16", Shape(Ending::Notify, |plain| plain.chunked(usize::MAX, "", ""))),
    form("E17", Shape(Ending::Open, |plain| plain.chunked(7, ";name=value", "X-Trailer: yes\r\n"))),
    form("E18", Shape(Ending::Notify, |plain| plain.unbounded("1.1"))),
    form("E19", Shape(Ending::Abrupt, |plain| plain.unbounded("1.1"))),
    form("E20", Shape(Ending::Abrupt, |plain| plain.field("Connection: close"))),
    form("E21", Shape(Ending::Notify, |plain| plain.field("Connection: close"))),
    form("E22", Shape(Ending::Open, |plain| plain.field("Connection: keep-alive"))),
    form("E23", Shape(Ending::Notify, |plain| replaced(&plain.field(PKCS7), "HTTP/1.1", "HTTP/1.0"))),
    form("E24", Shape(Ending::Notify, |plain| plain.unbounded("1.0"))),
    form("E25", Shape(Ending::Notify, |plain| [plain.field(PKCS7), b"\r\n".to_vec()].concat())),
    form(
        "E26",
        Shape(Ending::Notify, |plain| {
            let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".to_vec();
            [interim, plain.field(PKCS7)].concat()
        }),
    ),
    form("E27", Shape(Ending::Bytewise, |plain| plain.field(PKCS7))),
    form("E28", Shape(Ending::Notify, |plain| replaced(&plain.field(PKCS7), "Tue, 01 Jan 2030", "Tuesday, 01-Jan-30"))),
    form(
        "E29",
        Shape(Ending::Notify, |plain| {
            replaced(&plain.field(PKCS7), "Tue, 01 Jan 2030 01:00:00 GMT", "Tue Jan  1 01:00:00 2030")
        }),
    ),
    // Certificates.
    form("E30", Holds(|[leaf, _, _]| vec![leaf])),
    form("E31", Holds(|[leaf, signer, _]| vec![leaf, signer])),
    form("E32", Holds(|[leaf, signer, _]| vec![signer, leaf])),
    form("E33", Holds(|[leaf, signer, root]| vec![root, signer, leaf])),
    form("E34", Holds(|[leaf, signer, _]| vec![leaf.clone(), signer, leaf])),
    form("E35", Talk(chain_by_a_listed_issuer)),
    // Waiting.
    form("E40", Talk(|scene| scene.approved(&["Retry-After: 1"], Some(b"wait for approval\n"), Ending::Notify))),
    form("E41", Talk(|scene| scene.approved(&["Retry-After: 1"], Some(b""), Ending::Notify))),
    form("E42", Talk(|scene| scene.approved(&["Retry-After: 1"], None, Ending::Open))),
    form("E43", Talk(|scene| scene.approved(&["Retry-After: Tue, 01 Jan 2030 01:00:01 GMT"], None, Ending::Notify))),
    form("E44", Talk(|scene| scene.approved(&["Retry-After: Tuesday, 01-Jan-30 01:00:01 GMT"], None, Ending::Notify))),
    form("E45", Talk(|scene| scene.approved(&["Retry-After: Tue Jan  1 01:00:01 2030"], None, Ending::Notify))),
    form("E46", Talk(|scene| scene.approved(&[], Some(b""), Ending::Notify))),
    form("E47", Talk(|scene| scene.approved(&["Retry-After: 99999999999999999999"], Some(b""), Ending::Notify))),
    form("E48", Talk(|scene| scene.approved(&["Retry-After: soon"], Some(b""), Ending::Notify))),
    form("E49", Talk(busy)),
    // Credentials.
    form("E50", Talk(cacerts_for_credentials_only)),
    form(
        "E51",
        Talk(|scene| {
            let failure = scene.unauthorized(&["WWW-Authenticate: Basic realm=\"est\""], true);
            assert!(matches!(&failure, Failure::Credentials { sent: true, token: true, .. }), "{failure:?}");
            assert_eq!(
                failure.to_string(),
                "the server refuses name and token: 401 who are you?; make a new payload, the token is unknown, used or \
             expired at the server"
            );
        }),
    ),
    form(
        "E52",
        Talk(|scene| {
            assert_eq!(
                scene.unauthorized(&[], true).to_string(),
                "the server wants credentials, but does not say which (401 who are you?, no WWW-Authenticate); \
                 configure the server to offer HTTP Basic"
            );
        }),
    ),
    form(
        "E53",
        Talk(|scene| {
            let digest = "WWW-Authenticate: Digest realm=\"Basic\", nonce=\"a, Basic\", qop=\"auth\"";
            assert_eq!(
                scene.unauthorized(&[digest], true).to_string(),
                "the server wants credentials by Digest only (401 who are you?), but this node sends name and token by \
                 HTTP Basic; configure the server to offer HTTP Basic"
            );
        }),
    ),
    form(
        "E54",
        Talk(|scene| {
            let failure = scene.unauthorized(&["WWW-Authenticate: Basic realm=\"est\""], false);
            assert_eq!(
                failure.to_string(),
                "the server wants credentials, and the payload holds no token: 401 who are you?; make a payload with a token"
            );
        }),
    ),
    // Requests.
    form("E60", Talk(a_body_on_one_line)),
    form("E61", Talk(a_bad_request_stays_one)),
    form("E62", Talk(|scene| scene.client_certificate(false))),
    form("E63", Talk(|scene| scene.client_certificate(true))),
    form("E64", Talk(several_urls)),
    form("E65", Talk(a_redirect)),
    form("E66", Talk(no_date)),
    form(
        "E67",
        Shape(Ending::Notify, |plain| plain.fields(&[], imprint::pem::encode("PKCS7", &plain.der()).as_bytes())),
    ),
    form("E68", Talk(bare_certificates)),
    form(
        "E69",
        Shape(Ending::Notify, |plain| {
            let parts = plain.certificates.iter().map(|der| imprint::pem::encode("CERTIFICATE", der));
            let text: String = parts.map(|part| format!("subject=CN = x\n\n{}\n", part.as_str())).collect();
            plain.fields(&[], text.as_bytes())
        }),
    ),
];

#[test]
fn every_form_of_est() {
    let runs: Vec<(&Form, &'static SupportedProtocolVersion)> =
        FORMS.iter().flat_map(|form| [(form, &TLS13), (form, &TLS12)]).collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    // Most of the time they wait.
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while let Some((form, version)) = runs.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let run = || Scene { world: World::new(), version }.check(&form.check);
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
                        failed.lock().unwrap().push(format!("{} over {:?}", form.id, version.version));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let bad = FORMS.iter().filter(|form| failed.iter().any(|name| name.starts_with(form.id))).count();
    println!("EST forms: {} of {}", FORMS.len() - bad, FORMS.len());
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn every_form_is_documented_and_every_documented_form_is_tested() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/est.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| E")?.split(' ').next());
    let documented: Vec<String> = rows.map(|number| format!("E{number}")).collect();
    let tested: Vec<&str> = FORMS.iter().map(|form| form.id).collect();
    assert_eq!(documented, tested);
}

impl Plain {
    fn der(&self) -> Vec<u8> {
        certs_only(&self.certificates)
    }

    fn ber(&self) -> Vec<u8> {
        certs_only_ber(&self.certificates)
    }

    fn base64(&self) -> String {
        base64(&self.der())
    }

    fn one_line(&self) -> String {
        self.base64().replace('\n', "")
    }

    /// 76 columns and CRLF (RFC 2045 §6.8), as Java's MIME encoder and Python's email package write it.
    fn mime(&self) -> String {
        let dense = self.one_line();
        dense.as_bytes().chunks(76).map(|line| format!("{}\r\n", std::str::from_utf8(line).unwrap())).collect()
    }

    fn fields(&self, fields: &[String], body: &[u8]) -> Vec<u8> {
        reply("200 OK", &[fields, &[date_field(NOW)]].concat(), body)
    }

    fn field(&self, field: &str) -> Vec<u8> {
        self.fields(&[field.to_owned()], self.base64().as_bytes())
    }

    fn chunked(&self, size: usize, extension: &str, trailer: &str) -> Vec<u8> {
        let mut answer = format!("HTTP/1.1 200 OK\r\n{}\r\nTransfer-Encoding: chunked\r\n\r\n", date_field(NOW));
        for chunk in self.base64().as_bytes().chunks(size) {
            answer += &format!("{:X}{extension}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap());
        }
        (answer + "0\r\n" + trailer + "\r\n").into_bytes()
    }

    /// Its end is that of the connection.
    fn unbounded(&self, version: &str) -> Vec<u8> {
        format!("HTTP/{version} 200 OK\r\n{}\r\n\r\n{}", date_field(NOW), self.base64()).into_bytes()
    }
}

fn replaced(answer: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(answer).unwrap();
    assert!(text.contains(from), "{text}");
    text.replace(from, to).into_bytes()
}

impl Scene {
    fn check(&self, check: &Check) {
        match check {
            Shape(ending, shape) => {
                let (shape, cacerts, issue) = (*shape, self.world.cacerts(), self.issue());
                let answer = move |request: &Request| {
                    let certificates = match request.operation() {
                        "cacerts" => cacerts.clone(),
                        _ => vec![issue(request)],
                    };
                    shape(&Plain { certificates })
                };
                self.takes(EstServer::ending(vec![self.tls()], *ending, answer));
            }
            Holds(holds) => {
                let (holds, cacerts, issue) = (*holds, self.world.cacerts(), self.issue());
                let answer = move |request: &Request| {
                    let certificates = match (request.operation(), &cacerts[..]) {
                        ("cacerts", _) => cacerts.clone(),
                        (_, [root, signer]) => holds([issue(request), signer.clone(), root.clone()]),
                        _ => unreachable!(),
                    };
                    Plain { certificates }.field(PKCS7)
                };
                self.takes(EstServer::start(vec![self.tls()], answer));
            }
            Talk(talk) => talk(self),
        }
    }

    fn tls(&self) -> Arc<ServerConfig> {
        self.world.signer.server(&Leaf::server(LOCALHOST, GOOD), &[self.version])
    }

    /// The certificate that a CSR asks for.
    fn issue(&self) -> impl Fn(&Request) -> Vec<u8> + Send + 'static {
        let (signer, leaf) = (Arc::clone(&self.world.signer), self.world.leaf());
        move |request| signer.issue(&leaf, &spki_of_csr(&request.csr()))
    }

    /// What is right.
    fn good(&self) -> impl Fn(&Request) -> Vec<u8> + Send + 'static {
        self.world.good(NOW)
    }

    fn run(&self, server: &EstServer) -> Run {
        self.approved_within(server, PATIENCE)
    }

    fn approved_within(&self, server: &EstServer, approval: Duration) -> Run {
        self.world.run(&self.world.server_plan(&[server.url()]), PATIENCE, Some(approval), &mut |_| Reply::NothingMore)
    }

    fn takes(&self, server: EstServer) {
        let issued = self.run(&server).result.unwrap();
        assert_eq!(issued.chain()[1..], [self.world.signer.der()]);
        let requests = server.requests();
        assert_eq!(requests.iter().map(Request::operation).collect::<Vec<_>>(), ["cacerts", "simpleenroll"]);
        assert!(requests.iter().all(|request| request.version == self.version.version));
    }

    /// The first answer to the CSR is a 202; the certificate comes with the second.
    fn approved(&self, fields: &[&str], body: Option<&[u8]>, ending: Ending) {
        let mut pending = format!("HTTP/1.1 202 Accepted\r\n{}\r\n", date_field(NOW));
        fields.iter().for_each(|field| pending += &format!("{field}\r\n"));
        let pending = match body {
            Some(body) => [format!("{pending}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat(),
            None => format!("{pending}\r\n").into_bytes(),
        };
        // A server that asks for a century is asked again shortly before the end.
        let (server, run) = patiently(Duration::from_millis(3500), |approval| {
            let (good, pending) = (self.good(), pending.clone());
            let server = EstServer::ending(vec![self.tls()], ending, move |request| match request.connection {
                1 => pending.clone(),
                _ => good(request),
            });
            let run = self.approved_within(&server, approval);
            match &run.result {
                Err(error @ CheckinError::NotApproved(_)) => Err(error.to_string()),
                _ => Ok((server, run)),
            }
        });
        run.result.unwrap();
        let requests = server.requests();
        let operations: Vec<&str> = requests.iter().map(Request::operation).collect();
        assert_eq!(operations, ["cacerts", "simpleenroll", "simpleenroll"]);
        assert_eq!(requests[1].head, requests[2].head);
        assert_eq!(requests[1].body, requests[2].body, "the same key, the same CSR");
        let code = self.world.identity.code();
        let approval = format!(
            "key {code} waits for approval at {}; compare the code there and run: imprint-host approve node1 {code}",
            server.url()
        );
        assert_eq!(
            run.told,
            [format!("clock: 2030-01-01T01:00:00Z by {} ({})", server.url(), server.address()), approval]
        );
    }

    /// The answer to a CSR is a 401.
    fn unauthorized(&self, fields: &[&str], with_token: bool) -> Failure {
        let good = self.good();
        let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
        let server = EstServer::start(vec![self.tls()], move |request| match request.operation() {
            "cacerts" => good(request),
            _ => reply("401 Unauthorized", &fields, b"who are you?\n"),
        });
        let mut plan = self.world.server_plan(&[server.url()]);
        plan.token = plan.token.filter(|_| with_token);
        let run = self.world.run(&plan, PATIENCE, None, &mut |_| Reply::NothingMore);
        let requests = server.requests();
        assert_eq!(requests.len(), 2, "no loop");
        assert_eq!(requests[1].head.contains("\r\nAuthorization: Basic "), with_token);
        only(run.result, Step::Enrol)
    }

    /// The server asks for a client certificate, which a node does not have yet.
    fn client_certificate(&self, must: bool) {
        let clients = self.world.root.verifier(must);
        let tls = self.world.signer.asking_server(&Leaf::server(LOCALHOST, GOOD), &[self.version], clients);
        let server = EstServer::start(vec![tls], self.good());
        if !must {
            return self.takes(server);
        }
        assert_eq!(
            chain(&only(self.run(&server).result, Step::Probe)),
            "the server insists on a client certificate, which a node shows at a renewal only, and never to fetch \
             the CA certificates; let the server ask for one without insisting: received fatal alert: CertificateRequired"
        );
        assert!(server.requests().is_empty());
    }
}

/// The one failure of a check-in that must fail at once.
fn only(result: Result<Issued, CheckinError>, want: Step) -> Failure {
    match result {
        Err(CheckinError::Failed { mut attempts }) if attempts.len() == 1 => {
            let Attempt { step, failure, .. } = attempts.remove(0);
            assert_eq!(step, want);
            failure
        }
        other => panic!("{other:?}"),
    }
}

fn chain_by_a_listed_issuer(scene: &Scene) {
    let site = Ca::new("Site Root", GOOD);
    let nodes = site.intermediate("Node CA", GOOD);
    let mut world = World::new();
    world.issuers = vec![sha256(&nodes.der())];
    let (leaf, cacerts, chain) = (world.leaf(), vec![world.root.der(), nodes.der()], nodes.der());
    let tls = world.signer.server(&Leaf::server(LOCALHOST, GOOD), &[scene.version]);
    let server = EstServer::start(vec![tls], move |request| {
        let certificates = match request.operation() {
            "cacerts" => cacerts.clone(),
            _ => vec![nodes.issue(&leaf, &spki_of_csr(&request.csr()))],
        };
        Plain { certificates }.field(PKCS7)
    });
    assert_eq!(world.enroll(&server).unwrap().chain()[1..], [chain]);
}

/// A server that cannot answer now, and says for how long.
fn busy(scene: &Scene) {
    let good = scene.good();
    let server = EstServer::start(vec![scene.tls()], move |request| match request.connection {
        0 => reply("503 Service Unavailable", &["Retry-After: 1".to_owned()], b""),
        _ => good(request),
    });
    let run = scene.run(&server);
    run.result.unwrap();
    assert_eq!(server.requests().len(), 3);
    assert!(run.told[0].contains(": the server cannot answer now: 503 Service Unavailable; trying again in 1."));
}

/// No PKCS#7 around the certificate: as it is for the CA, in base64 for the node.
fn bare_certificates(scene: &Scene) {
    let (signer, issue) = (scene.world.signer.der(), scene.issue());
    let server = EstServer::start(vec![scene.tls()], move |request| match request.operation() {
        "cacerts" => reply("200 OK", &[date_field(NOW)], &signer),
        _ => reply("200 OK", &[date_field(NOW)], base64(&issue(request)).as_bytes()),
    });
    scene.takes(server);
}

/// A server that gives its CA certificates only to whoever shows credentials: the probe shows none.
fn cacerts_for_credentials_only(scene: &Scene) {
    let good = scene.good();
    let fields = [
        date_field(NOW),
        "WWW-Authenticate: Digest realm=\"a, b\", nonce=x".to_owned(),
        "WWW-Authenticate: Negotiate, Basic realm=\"est\"".to_owned(),
    ];
    let server = EstServer::start(vec![scene.tls()], move |request| {
        if request.head.contains("\r\nAuthorization: Basic bm9kZTE6czNjcmV0") {
            return good(request);
        }
        reply("401 Unauthorized", &fields, b"")
    });
    let run = scene.run(&server);
    run.result.unwrap();
    let requests = server.requests();
    let sent: Vec<(&str, bool)> =
        requests.iter().map(|r| (r.operation(), r.head.contains("\r\nAuthorization: Basic "))).collect();
    assert_eq!(sent, [("cacerts", false), ("cacerts", true), ("simpleenroll", true)]);
    assert!(matches!(run.asked[..], [Ask::SetClock(_)]), "{:?}", run.asked);
}

fn a_body_on_one_line(scene: &Scene) {
    let good = scene.good();
    let server = EstServer::start(vec![scene.tls()], move |request| {
        if request.body.contains(&b'\n') {
            return reply("400 Bad Request", &[], b"Illegal base64 character a\n");
        }
        good(request)
    });
    scene.run(&server).result.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[1].csr(), requests[2].csr());
}

fn a_bad_request_stays_one(scene: &Scene) {
    let good = scene.good();
    let server = EstServer::start(vec![scene.tls()], move |request| match request.operation() {
        "cacerts" => good(request),
        _ => reply("400 Bad Request", &[], b"no P-256 here\x1b[2J\n"),
    });
    let failure = only(scene.run(&server).result, Step::Enrol);
    assert_eq!(failure.to_string(), "the server refuses: 400 no P-256 here\\u{1b}[2J");
    assert_eq!(server.requests().len(), 3);
}

/// One is down, one refuses, one has a foreign CA; the fourth is right.
fn several_urls(scene: &Scene) {
    let closed = Reserved::new();
    let refusing = EstServer::start(vec![scene.tls()], |_| reply("403 Forbidden", &[date_field(NOW)], b""));
    let stranger = Ca::new("Stranger", GOOD).server(&Leaf::server(LOCALHOST, GOOD), &[scene.version]);
    let foreign = EstServer::start(vec![stranger], |_| Vec::new());
    let server = EstServer::start(vec![scene.tls()], scene.good());
    let urls = [format!("https://{}/.well-known/est", closed.address()), refusing.url(), foreign.url(), server.url()];
    let issued = scene.world.enroll_at(&urls, PATIENCE).0.unwrap();
    assert_eq!(issued.server(), format!("{} ({})", server.url(), server.address()));
}

fn a_redirect(scene: &Scene) {
    let fields = [date_field(NOW), "Location: https://elsewhere.example/.well-known/est/cacerts".to_owned()];
    let server = EstServer::start(vec![scene.tls()], move |_| reply("301 Moved Permanently", &fields, b""));
    assert_eq!(
        only(scene.run(&server).result, Step::Probe).to_string(),
        "the server redirects (301) to https://elsewhere.example/.well-known/est/cacerts; redirects are not followed, \
         give nodes the final URL"
    );
}

/// Without a Date the machine's own clock counts, if nothing speaks against it, and nobody is told the time.
fn no_date(scene: &Scene) {
    let mut world = World::new();
    let now = Timestamp::system().as_secs();
    for (quality, composed) in [
        (ClockQuality::Rtc, now - 600),
        // The payload was made after what the clock says, or has expired by it; or the clock is known to be wrong.
        (ClockQuality::Rtc, now + 600),
        (ClockQuality::Rtc, now - DAY - 600),
        (ClockQuality::Unknown, now - 600),
    ] {
        world.composed = composed;
        world.quality = quality;
        let good = (now - YEAR, now + YEAR);
        world.root = Ca::new("Root", good);
        world.signer = Arc::new(world.root.intermediate("Signer", good));
        let (signer, leaf) = (Arc::clone(&world.signer), Leaf { validity: (now - 60, now + DAY), ..world.leaf() });
        let cacerts = world.cacerts();
        let tls = world.signer.server(&Leaf::server(LOCALHOST, good), &[scene.version]);
        let server = EstServer::start(vec![tls], move |request| {
            let certificates = match request.operation() {
                "cacerts" => cacerts.clone(),
                _ => vec![signer.issue(&leaf, &spki_of_csr(&request.csr()))],
            };
            reply("200 OK", &[], base64(&certs_only(&certificates)).as_bytes())
        });
        let (result, asked) = world.enroll_at(&[server.url()], PATIENCE);
        assert!(asked.is_empty());
        if (quality, composed) == (ClockQuality::Rtc, now - 600) {
            result.unwrap();
        } else {
            assert!(matches!(only(result, Step::Probe), Failure::NoDate));
        }
    }
}
