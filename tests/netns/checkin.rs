//! Tests of a check-in whose server answers over the second link only, with the kernel's own routes and errors.

use std::net::IpAddr;
use std::sync::mpsc::channel;
use std::time::Duration;

use imprint::apply::network::Race;
use imprint::checkin::{Ask, Context, Reply, enroll};
use imprint::identity::Identity;
use imprint::payload::{CaCertificate, CertificateNames, DnsName, EstUrl, KeyType, NodeName, Prefix};
use imprint::plan::{ClockPlan, ClockQuality, LinkConfig, NetworkPlan, Server, SubjectPlan};
use imprint::pool::Seeded;
use imprint::time::Timestamp;
use imprint_tests::ca::{Ca, Leaf, certs_only, spki_of_csr};
use imprint_tests::est_server::{Ending, EstServer, date_field, reply};
use nix::sched::{CloneFlags, unshare};
use rustls::version::TLS13;

use super::network::{link, named, root, route};
use super::peer::Peer;
use crate::{ip, later, namespaces};

/// 2030-01-01.
const NOW: u64 = 1_893_456_000;
const DAY: u64 = 86_400;

/// eth0 has a gateway that knows no way to the server. The server is on eth1, whose other end comes up late.
#[test]
fn the_second_link_is_asked_for_when_the_first_one_leads_nowhere() {
    namespaces();
    ip("link add eth0 type veth peer name p0");
    ip("link add eth1 type veth peer name p1");
    let _gateway = Peer::start(
        &["p0"],
        "ip addr add 192.0.2.1/24 dev p0; ip link set p0 up; echo 1 > /proc/sys/net/ipv4/ip_forward; \
         ip route add unreachable 198.51.100.0/24",
    );
    let address: IpAddr = "198.51.100.1".parse().unwrap();
    let ca = Ca::new("Root", (NOW - DAY, NOW + DAY));
    let ca_der = ca.der();

    // The server's own network; it ends when nobody asks any more.
    let (announce, announced) = channel();
    let (plug, plugged) = channel::<()>();
    let server = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        announce.send((nix::unistd::gettid().to_string(), String::new())).unwrap();
        plugged.recv().unwrap();
        ip("link set lo up");
        ip("addr add 198.51.100.1/24 dev p1");
        let tls = ca.server(&Leaf::server(address, (NOW - DAY, NOW + DAY)), &[&TLS13]);
        let est = EstServer::at(address, vec![tls], Ending::Notify, move |request| {
            let certificates =
                match request.operation() {
                    "cacerts" => vec![ca.der()],
                    _ => vec![ca.issue(
                        &Leaf::node("node1", &["node1.example"], (NOW, NOW + DAY)),
                        &spki_of_csr(&request.csr()),
                    )],
                };
            reply("200 OK", &[date_field(NOW + 60)], &certs_only(&certificates))
        });
        announce.send((String::new(), est.url())).unwrap();
        plugged.recv().unwrap();
        ip("link set p1 up");
        // Until the other end has been dropped.
        let _ = plugged.recv();
    });
    ip(&format!("link set p1 netns {}", announced.recv().unwrap().0));
    plug.send(()).unwrap();
    let url = announced.recv().unwrap().1;

    let root = root(&[]);
    let config = |address: &str, gateway: Option<&str>| LinkConfig {
        addresses: vec![Prefix::parse(address).unwrap()],
        routes: gateway.map(|gateway| route("0.0.0.0/0", Some(gateway), None)).into_iter().collect(),
        ..LinkConfig::default()
    };
    let plan = NetworkPlan {
        links: vec![
            link(named("eth0"), config("192.0.2.10/24", Some("192.0.2.1"))),
            link(named("eth1"), config("198.51.100.10/24", None)),
        ],
        layers: Vec::new(),
        servers: vec![address],
    };
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());

    let url = EstUrl::try_from(url.as_str()).unwrap();
    let asked_of = Server {
        urls: vec![url],
        name: NodeName::try_from("node1").unwrap(),
        token: None,
        ca: CaCertificate::new(ca_der).unwrap(),
        issuers: Vec::new(),
    };
    let names = CertificateNames {
        subject: imprint::payload::Subject(vec![
            imprint::payload::SubjectAttribute::new(imprint::payload::Attribute::CommonName, "node1").unwrap(),
        ]),
        dns: vec![DnsName::try_from("node1.example").unwrap()],
        ..CertificateNames::default()
    };
    let seeded = Seeded::ready(later()).unwrap();
    let identity = Identity::generate(&SubjectPlan { names, key: KeyType::P256 }, &seeded).unwrap();
    let clock = ClockPlan {
        floor: Timestamp::from_secs(NOW),
        expiry: Timestamp::from_secs(NOW + DAY),
        quality: ClockQuality::Unknown,
    };
    let context = Context {
        server: &asked_of,
        clock: &clock,
        identity: &identity,
        renews: None,
        user_agent: "imprint/test",
        approval_timeout: Some(Duration::ZERO),
        line: None,
    };
    let (mut next, mut told) = (0, Vec::new());
    let mut ask = |ask: Ask| {
        Ok(match ask {
            Ask::SetClock(_) => Reply::Done,
            Ask::NextLink(until) => {
                next += 1;
                if next == 1 {
                    plug.send(()).unwrap();
                }
                if race.next(until, &mut |_| ()).unwrap() { Reply::Done } else { Reply::NothingMore }
            }
            Ask::RenewLease(until) => {
                race.renew(until).unwrap();
                Reply::Done
            }
        })
    };
    let issued = enroll(&context, &mut ask, &mut |progress| told.push(progress.to_string()), later()).unwrap();
    assert_eq!(issued.facts().subject, "CN=node1");
    assert!(next >= 1);
    assert!(told[0].contains("no connection; check the node's network and that the server runs: "), "{told:?}");
    let links: Vec<_> = race.network().unwrap().links.iter().map(|link| link.name.as_str().to_owned()).collect();
    assert_eq!(links, ["eth1", "eth0"], "the one that the server was reached over comes first");
    drop(plug);
    server.join().unwrap();
}
