//! Attack: anonymous clients ask for CRLs as often as they like.

use crate::support;

use std::io::{Read, Write};
use std::net::TcpStream;

use imprint_host::compose::Options;
use imprint_host::enrol;
use imprint_host::est::Layout;
use imprint_host::serve::{Config, LISTS_EVERY, Server};
use imprint_host::x509::CrlReason;
use support::{NODE, SANS, SUBJECT, Site, run, start};

/// A site whose node has a certificate, and the path of the list.
fn site() -> (Site, String) {
    let site = start(&[NODE]);
    let token = site.token("node1", &Options::default());
    let csr = site.csr(SUBJECT, &["-addext", SANS]);
    assert_eq!(site.enroll(Some(("node1", &token)), &csr).status, 200);
    let path = format!("/crl/{}.crl", site.state().ca.current().id());
    (site, path)
}

fn revoke(site: &Site) {
    let mut state = site.state();
    enrol::revoke(&mut state.store, "node1", None, CrlReason::KeyCompromise, site.clock()).unwrap();
}

/// Number of a list, and how many certificates are in it.
fn read(site: &Site, der: &[u8]) -> (u64, usize) {
    let path = site.dir.path().join("read.crl");
    std::fs::write(&path, der).unwrap();
    let text = run("openssl", &["crl", "-inform", "DER", "-noout", "-text", "-in", path.to_str().unwrap()]);
    let number = text.split("X509v3 CRL Number: \n").nth(1).unwrap().lines().next().unwrap().trim();
    (number.parse().unwrap(), text.matches("Serial Number: ").count())
}

fn made(site: &Site) -> String {
    let (_, body) = site.plain(site.server.metrics_addr().unwrap(), "/metrics");
    let text = String::from_utf8(body).unwrap();
    text.lines().find(|line| line.starts_with("imprint_host_lists_total ")).unwrap().to_owned()
}

/// Every poller finds a list that is out of date, all at once: it is made once, for all of them.
#[test]
fn a_list_that_many_ask_for_is_made_once() {
    let (site, path) = site();
    let first = site.plain(site.server.local_addr(), &path).1;
    assert_eq!(read(&site, &first), (1, 0));
    revoke(&site);
    site.pass(LISTS_EVERY);
    let lists: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let poll = || (0..5).map(|_| site.plain(site.server.local_addr(), &path).1).collect::<Vec<_>>();
        let pollers: Vec<_> = (0..8).map(|_| scope.spawn(poll)).collect();
        pollers.into_iter().flat_map(|poller| poller.join().unwrap()).collect()
    });
    assert_eq!(lists.len(), 40);
    assert_eq!(read(&site, &lists[0]), (2, 1), "the revocation of another process is in it");
    assert!(lists.iter().all(|list| *list == lists[0]));
    assert_eq!(made(&site), "imprint_host_lists_total 2");
}

/// Somebody else writes to the store all the time, so that nothing can be decided: every list is answered, also when it
/// has to be looked at again.
#[test]
fn the_thread_that_decides_is_not_asked_for_lists() {
    let (site, path) = site();
    let address = site.server.local_addr();
    let first = site.plain(address, &path);
    let mut state = site.state();
    let _held = state.store.changes().unwrap();
    for _ in 0..10 {
        site.pass(LISTS_EVERY);
        assert_eq!(site.plain(address, &path).1, first.1);
    }
    let (head, _) = site.plain(address, "/crl/00.crl");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
}

/// A restarted server goes on counting, and its first list has everything.
#[test]
fn a_number_is_never_given_twice() {
    let (site, path) = site();
    assert_eq!(read(&site, &site.plain(site.server.local_addr(), &path).1), (1, 0));
    revoke(&site);
    let clock = site.clock();
    let config = Config {
        dir: site.dir.path().join("copy"),
        listen: "127.0.0.1:0".parse().unwrap(),
        metrics: None,
        doors: Vec::new(),
        layout: Layout::Wrapped,
        tell: Default::default(),
        clock: std::sync::Arc::new(move || clock),
    };
    // The state, as a server that is started on it finds it.
    site.state().back_up(&config.dir, &mut |_| ()).unwrap();
    let again = Server::start(config).unwrap();
    assert_eq!(read(&site, &site.plain(again.local_addr(), &path).1), (2, 1));
}

/// A client that has the list is not sent it again.
#[test]
fn a_list_that_is_there_already() {
    let (site, path) = site();
    let (head, der) = site.plain(site.server.local_addr(), &path);
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let (tag, made) = (header("ETag: "), header("Last-Modified: "));
    assert_eq!((tag.as_str(), header("Cache-Control: ").as_str()), ("\"1\"", "max-age=5"));
    assert_eq!(made, header("Date: "));
    let ask = |condition: &str| {
        let mut stream = TcpStream::connect(site.server.local_addr()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{condition}\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        (String::from_utf8_lossy(&bytes[9..12]).into_owned(), bytes.ends_with(&der))
    };
    for condition in [
        format!("If-None-Match: {tag}"),
        format!("If-None-Match: \"0\", W/{tag}"),
        "If-None-Match: *".to_owned(),
        format!("If-Modified-Since: {made}"),
    ] {
        assert_eq!(ask(&condition), ("304".to_owned(), false), "{condition}");
    }
    for condition in [
        "If-None-Match: \"0\"".to_owned(),
        format!("If-None-Match: \"0\"\r\nIf-Modified-Since: {made}"),
        "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT".to_owned(),
    ] {
        assert_eq!(ask(&condition), ("200".to_owned(), true), "{condition}");
    }
}
