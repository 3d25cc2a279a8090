//! Tests of an image of the root that comes over mutual TLS: cut transfers, servers with one fault each, and several servers. Mounts
//! nothing; tests/netns/netroot.rs does.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use imprint::apply::image::{ImageError, ROOM};
use imprint::digest::sha256;
use imprint::hex;
use imprint::http::HttpError;
use imprint::https::HttpsError;
use imprint::payload::{CaCertificate, CertificateNames, HttpsUrl, KeyType};
use imprint::plan::SubjectPlan;
use imprint::pool::Seeded;
use imprint::retrieval::{Context, Hooks, Image, Progress, Retrieval, RetrievalError, ServerError};
use imprint::time::{Clock, Deadline, Timestamp};
use imprint::tls::ClientCertificate;
use imprint_tests::ca::{Ca, Leaf};
use imprint_tests::est_server::{Ending, EstServer, Request, reply};
use imprint_tests::patience::{PATIENCE, patiently};
use rustls::version::TLS13;

/// A CA, and the certificate of a node.
struct Site {
    ca: Ca,
    client: ClientCertificate,
    now: u64,
}

impl Site {
    fn new() -> Site {
        let now = Timestamp::system().as_secs();
        let ca = Ca::new("Root", (now - 3600, now + 86_400));
        let seeded = Seeded::ready(Deadline::after(PATIENCE)).unwrap();
        let plan = SubjectPlan { names: CertificateNames::default(), key: KeyType::P256 };
        let key = imprint::identity::Identity::generate(&plan, &seeded).unwrap();
        let leaf = ca.issue(&Leaf::node("node1", &[], (now - 60, now + 3600)), key.spki());
        Site { client: key.client(&[leaf]).unwrap(), ca, now }
    }

    /// A server that takes nobody without a certificate of the CA.
    fn server(&self, ending: Ending, answer: impl Fn(&Request) -> Vec<u8> + Send + 'static) -> EstServer {
        let leaf = Leaf::server(IpAddr::V4(Ipv4Addr::LOCALHOST), (self.now - 60, self.now + 3600));
        EstServer::ending(vec![self.ca.asking_server(&leaf, &[&TLS13], self.ca.verifier(true))], ending, answer)
    }

    /// Fetches the image with this digest. Servers that cannot answer now are asked again until `patience`.
    fn fetch(
        &self,
        servers: &[&EstServer],
        want: [u8; 32],
        patience: Duration,
        room: &mut dyn FnMut(u64) -> Result<File, ImageError>,
    ) -> Result<(Vec<u8>, String), RetrievalError> {
        let ca = CaCertificate::new(self.ca.der()).unwrap();
        let clock = Clock::starting_at(Timestamp::system());
        let context = Context { ca: &ca, client: &self.client, clock, user_agent: "imprint/test (root)" };
        let urls = servers.iter().map(|server| url(server));
        // The waits of a real boot are longer, and not what is tested.
        let mut wait = |until: Deadline| {
            std::thread::sleep(until.at_most(Duration::from_millis(20)).remaining());
            Ok(())
        };
        let mut progress = |_: Progress<'_>| ();
        let mut hooks = Hooks { wait: &mut wait, progress: &mut progress };
        let mut retrieval = Retrieval::new(urls, context);
        let file = retrieval.image(Image::new(want, room), &mut hooks, patience)?;
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        Ok((bytes, retrieval.url().unwrap().to_string()))
    }

    /// The requests until the image is there, if connection `n` gets answer `n`.
    #[track_caller]
    fn through(&self, want: &[u8], answers: Vec<Vec<u8>>) -> Vec<String> {
        let server = self.server(Ending::Abrupt, move |request| answers[request.connection].clone());
        let (bytes, _) = self.fetch(&[&server], sha256(want), PATIENCE, &mut in_file).unwrap();
        assert!(bytes == want, "{} bytes that are others", bytes.len());
        server.requests().into_iter().map(|request| request.head).collect()
    }

    /// The only error of a server that gives this answer to every request.
    #[track_caller]
    fn error(&self, answer: Vec<u8>) -> ServerError {
        let server = self.server(Ending::Notify, move |_| answer.clone());
        match self.fetch(&[&server], sha256(&image(1)), PATIENCE, &mut in_file) {
            Err(RetrievalError::Failed { mut attempts }) if attempts.len() == 1 => {
                assert_eq!(server.requests().len(), 1);
                attempts.remove(0).error
            }
            other => panic!("{other:?}"),
        }
    }
}

fn url(server: &EstServer) -> HttpsUrl {
    HttpsUrl::of_file(&format!("https://{}/images/root.sqfs", server.address())).unwrap()
}

fn in_file(_: u64) -> Result<File, ImageError> {
    Ok(tempfile::tempfile().unwrap())
}

/// More than one piece of everything that cuts it into pieces.
fn image(seed: u8) -> Vec<u8> {
    (0..300_001_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect()
}

const TAG: &str = "ETag: \"v1\"";

/// An answer that breaks off after so many bytes of its body.
fn cut(bytes: &[u8], tag: &str, at: usize) -> Vec<u8> {
    let whole = reply("200 OK", &[tag.to_owned()], bytes);
    whole[..whole.len() - bytes.len() + at].to_vec()
}

/// The rest, of which the answer says what `from` is.
fn rest(bytes: &[u8], tag: &str, from: usize) -> Vec<u8> {
    let range = format!("Content-Range: bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
    reply("206 Partial Content", &[tag.to_owned(), range], &bytes[from..])
}

#[test]
fn an_image_comes_whole_to_a_node_that_shows_its_certificate() {
    let (site, want) = (Site::new(), image(1));
    let heads = site.through(&want, vec![reply("200 OK", &[TAG.to_owned()], &want)]);
    assert_eq!(heads.len(), 1);
    assert!(heads[0].starts_with("GET /images/root.sqfs HTTP/1.1\r\nHost: 127.0.0.1:"), "{}", heads[0]);
    // Without an end of the whole answer, too, and empty.
    site.through(&[], vec![reply("200 OK", &[], &[])]);
    let short = b"hsqs".to_vec();
    site.through(&short, vec![reply("200 OK", &[], &short)]);
}

/// The accident: a link that goes away in the middle, wherever that is.
#[test]
fn a_transfer_that_breaks_goes_on_where_it_stopped() {
    let (site, want) = (Site::new(), image(1));
    let last = want.len() - 1;
    for at in [1, 16_384, 16_385, 100_000, last] {
        let heads = site.through(&want, vec![cut(&want, TAG, at), rest(&want, TAG, at)]);
        assert_eq!(heads.len(), 2);
        assert!(!heads[0].contains("Range"), "{heads:?}");
        assert!(heads[1].contains(&format!("Range: bytes={at}-\r\nIf-Range: \"v1\"")), "{heads:?}");
    }
    // Twice, the second time in the rest.
    let mut half = rest(&want, TAG, 100_000);
    half.truncate(half.len() - 100_001);
    let heads = site.through(&want, vec![cut(&want, TAG, 100_000), half, rest(&want, TAG, 200_000)]);
    assert!(heads[2].contains("Range: bytes=200000-\r\nIf-Range: \"v1\""), "{heads:?}");
}

/// The accident: somebody puts another image there between two parts. A good server gives the whole of the new one.
#[test]
fn an_image_that_changes_meanwhile_begins_anew() {
    let (site, old, new) = (Site::new(), image(1), image(2));
    let other = "ETag: \"v2\"";
    let heads = site.through(&new, vec![cut(&old, TAG, 100_000), reply("200 OK", &[other.to_owned()], &new)]);
    assert!(heads[1].contains("Range: bytes=100000-"), "{heads:?}");
    // A bad one gives the rest of the new one, another range, or none at all: the whole is fetched, and no part is asked for again.
    let shorter = [TAG.to_owned(), "Content-Range: bytes */1000".to_owned()];
    for lie in [rest(&new, other, 100_000), rest(&new, TAG, 99_999), reply("416 x", &shorter, b"")] {
        let answers =
            vec![cut(&old, TAG, 100_000), lie, cut(&new, other, 7), reply("200 OK", &[other.to_owned()], &new)];
        let heads = site.through(&new, answers);
        let ranged: Vec<bool> = heads.iter().map(|head| head.contains("Range: ")).collect();
        assert_eq!(ranged, [false, true, false, false], "{heads:?}");
    }
    // Nothing says which version it was.
    for tag in ["X: y", "ETag: W/\"v1\""] {
        let heads = site.through(&new, vec![cut(&old, tag, 100_000), reply("200 OK", &[], &new)]);
        assert!(!heads[1].contains("Range"), "{heads:?}");
    }
}

/// Attack: everything is right but the last byte.
#[test]
fn an_image_whose_last_byte_is_wrong_is_refused_in_one_line() {
    let (site, want) = (Site::new(), image(1));
    let mut wrong = want.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let got = hex::encode(&sha256(&wrong));
    let error = site.error(reply("200 OK", &[TAG.to_owned()], &wrong));
    let words = format!(
        "the image there has the SHA-256 {got}, and {} is wanted; nothing was mounted. Put the right image there, or correct \
         the digest",
        hex::encode(&sha256(&want))
    );
    assert_eq!(error.to_string(), words);
    // So it is where only the rest was wrong.
    let answers = [cut(&want, TAG, 1000), rest(&wrong, TAG, 1000)];
    let server = site.server(Ending::Abrupt, move |request| answers[request.connection].clone());
    let error = site.fetch(&[&server], sha256(&want), PATIENCE, &mut in_file).unwrap_err();
    assert!(error.to_string().ends_with(&words) && !error.to_string().contains('\n'), "{error}");
}

/// One server is away, one has nothing, one has another image; the last one is right.
#[test]
fn servers_are_asked_in_turn_until_one_has_the_image() {
    let (site, want) = (Site::new(), image(1));
    let away = site.server(Ending::Notify, |_| reply("503 x", &[], b"later"));
    let empty = site.server(Ending::Notify, |_| reply("404 Not Found", &[], b"<html>"));
    let other = site.server(Ending::Notify, |_| reply("200 OK", &[TAG.to_owned()], &image(2)));
    let cut_off = cut(&want, TAG, 200_000);
    let breaks = site.server(Ending::Abrupt, move |_| cut_off.clone());
    let right = site.server(Ending::Notify, move |_| reply("200 OK", &[TAG.to_owned()], &image(1)));
    let servers = [&away, &empty, &other, &breaks, &right];
    let (bytes, from) = site.fetch(&servers, sha256(&want), PATIENCE, &mut in_file).unwrap();
    assert!(bytes == want);
    assert_eq!(from, url(&right).to_string());
    // Another server's bytes are not put behind those that broke off.
    assert!(!right.requests()[0].head.contains("Range"), "{:?}", right.requests());
    // None of them has it: each says why.
    let error = site.fetch(&[&empty, &other], sha256(&want), PATIENCE, &mut in_file).unwrap_err();
    let said = error.to_string();
    assert!(matches!(&error, RetrievalError::Failed { attempts } if attempts.len() == 2), "{error:?}");
    assert!(said.contains("the server does not give this node the image: 404 Not Found; check the URL"), "{said}");
    assert!(said.contains("fetching the root from https://127.0.0.1:"), "{said}");
    // A server that is away is asked again, until it has brought nothing for too long.
    patiently(Duration::from_secs(1), |limit| {
        let error = site.fetch(&[&away], sha256(&want), limit, &mut in_file).unwrap_err();
        let (busy, said) = ("the server cannot answer now: 503 later", error.to_string());
        if said.starts_with("gave up after ") && said.contains(busy) { Ok(()) } else { Err(said) }
    });
}

/// A machine whose memory is too small fetches nothing but the head of the answer, and one whose memory is full says so.
#[test]
fn an_image_without_room_is_refused() {
    let (site, want) = (Site::new(), image(1));
    let answer = reply("200 OK", &[TAG.to_owned()], &want);
    let server = site.server(Ending::Notify, move |_| answer.clone());
    let mut lengths = Vec::new();
    let error = site.fetch(&[&server], sha256(&want), PATIENCE, &mut |length| {
        lengths.push(length);
        Err(ImageError::TooBig { length, available: ROOM })
    });
    let said = error.unwrap_err().to_string();
    assert_eq!(lengths, [300_001]);
    assert!(said.contains("the image has 1 MiB, and this machine has 128 MiB of memory available"), "{said}");
    let full = &mut |_| Ok(File::options().write(true).open("/dev/full").unwrap());
    let said = site.fetch(&[&server], sha256(&want), PATIENCE, full).unwrap_err().to_string();
    let words =
        "keeping the image in memory, after 0 of 300001 bytes; give the machine more memory: No space left on device";
    assert!(said.contains(words), "{said}");
}

#[test]
fn answers_that_are_no_image() {
    let site = Site::new();
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5f5e100\r\nx".to_vec();
    for unclear in [chunked, b"HTTP/1.1 200 OK\r\n\r\nx".to_vec()] {
        let error = site.error(unclear);
        assert!(matches!(&error, ServerError::Https(HttpsError::Http(HttpError::Framing(_)))), "{error:?}");
        assert_eq!(error.to_string(), "the answer's length is unclear: no Content-Length");
    }
    // A page of an error is short, whatever it says.
    let head = format!("HTTP/1.1 404 x\r\nContent-Length: {}\r\n\r\n", 100_000_000).into_bytes();
    assert!(matches!(site.error(head), ServerError::Https(HttpsError::Http(HttpError::BodyTooLong(_)))));
    let refused = "; check the URL, and that the server takes certificates of this node's CA";
    for (answer, want) in [
        (reply("403 Forbidden", &[], b"<html>"), format!("the server does not give this node the image: 403 Forbidden{refused}")),
        (
            reply("400 Bad Request", &[], b"No required SSL certificate was sent"),
            format!("the server does not give this node the image: 400 No required SSL certificate was sent{refused}"),
        ),
        (rest(&image(1), TAG, 1000), format!("the server does not give this node the image: 206 Partial Content{refused}")),
        (
            reply("302 Found", &["Location: https://elsewhere.example/".to_owned()], b""),
            "the server redirects (302) to https://elsewhere.example/; redirects are not followed, give nodes the final URL"
                .to_owned(),
        ),
    ] {
        assert_eq!(site.error(answer).to_string(), want);
    }
}

/// Premise of all these tests: the server would not talk to just anybody.
#[test]
fn a_server_of_another_ca_and_a_node_of_another_ca_get_nothing() {
    let (site, other) = (Site::new(), Site::new());
    let want = image(1);
    let answer = reply("200 OK", &[TAG.to_owned()], &want);
    let server = other.server(Ending::Notify, move |_| answer.clone());
    let error = site.fetch(&[&server], sha256(&want), PATIENCE, &mut in_file).unwrap_err();
    assert!(error.to_string().contains("does not chain to this node's CA"), "{error}");
    // A node with the right CA and another one's certificate.
    let stranger = Site { ca: other.ca, client: site.client, now: other.now };
    // An alert of a server may be a fault that passes, so the node asks until its time is over.
    let error = stranger.fetch(&[&server], sha256(&want), Duration::from_secs(2), &mut in_file).unwrap_err();
    assert!(matches!(&error, RetrievalError::Failed { .. } | RetrievalError::GaveUp { .. }), "{error:?}");
    assert!(server.requests().is_empty());
}
