use std::collections::BTreeMap;

use serde_cbor::Value;

use super::*;

const TYPICAL: &[u8] = include_bytes!("../../../tests/data/payload-typical.cbor");
const FULL: &[u8] = include_bytes!("../../../tests/data/payload-full.cbor");
const CREDENTIALS: &[u8] = include_bytes!("../../../tests/data/payload-credentials.cbor");
const CA: &[u8] = include_bytes!("../../../tests/data/ca.der");
const NOT_A_CA: &[u8] = include_bytes!("../../../tests/data/ca-not-a-ca.der");
const NO_KEY_CERT_SIGN: &[u8] = include_bytes!("../../../tests/data/ca-no-key-cert-sign.der");

fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).unwrap()
}

fn link(kind: LinkKind) -> Link {
    Link {
        kind,
        addresses: vec![],
        dhcp4: false,
        slaac: false,
        dhcp6: false,
        duid: false,
        routes: vec![],
        dns: vec![],
        search: vec![],
        mtu: None,
    }
}

/// Readers of before refuse the item: with another client identifier they would get another lease.
#[test]
fn a_client_identifier_by_duid_goes_with_dhcp4_only() {
    let kind = || LinkKind::Physical(Match::AnyWithCarrier);
    let links = |dhcp4| [Link { dhcp4, duid: true, ..link(kind()) }];
    let bytes = Link::encode_all(&links(true));
    assert!(bytes.ends_with(b"\x03\xf5\x0a\xf5"), "{bytes:02x?}");
    assert_eq!(Link::decode_all(&bytes).unwrap(), links(true));
    let error = Link::decode_all(&Link::encode_all(&links(false))).unwrap_err().to_string();
    assert!(error.contains("network[0].dhcp_client_id") && error.contains("it goes with dhcp4 only"), "{error}");
}

/// Readers of before ignore the entry. If this test fails, do not change it: you have changed version 1.
#[test]
fn how_a_node_was_let_in_stands_below_the_keys_that_a_reader_has_to_know() {
    let mut payload = typical();
    assert_eq!(payload.admitted(), None);
    payload.admit("approved");
    payload.admit("image-key");
    let bytes = payload.encode();
    // Key -1 stands behind those of 0 and above (RFC 8949 §4.2.1), and here last.
    assert!(bytes.ends_with(b"\x20\x69image-key"), "{bytes:02x?}");
    let read = Payload::decode(&bytes).unwrap();
    assert_eq!((read.admitted(), &read), (Some("image-key"), &payload));
    assert_eq!(read.encode(), bytes);
    let shown = read.to_string();
    assert!(shown.contains("\nadmitted   image-key\n") && !shown.contains("ignored"), "{shown}");
}

/// Only a short word is one: it goes to consoles and into files.
#[test]
fn what_is_no_word_says_nothing_about_the_door() {
    let long = "a".repeat(33);
    for word in ["", "Stick", "two words", "a\nb", "\u{1b}[2J", long.as_str()] {
        let mut payload = typical();
        payload.admit(word);
        let read = Payload::decode(&payload.encode()).unwrap();
        assert_eq!(read.admitted(), None, "{word:?}");
        assert!(read.to_string().ends_with("\nignored    key -1 in the payload\n"), "{read}");
    }
    // The same key in another map of the payload is not this one.
    let full = Payload::decode(FULL).unwrap();
    assert!(full.to_string().contains("ignored    key -1 in network[6]") && full.admitted().is_none());
}

/// Some clouds, such as Hetzner, give a node a /32 address and a gateway outside that prefix.
#[test]
fn a_gateway_outside_the_address_has_a_way_of_its_own() {
    let route = |to: &str, via: Option<&str>| Route {
        destination: prefix(to),
        gateway: via.map(|via| via.parse().unwrap()),
        metric: None,
    };
    let decoded = |address: &str, routes: &[Route]| {
        let addresses = vec![prefix(address)];
        let network = vec![Link { addresses, routes: routes.to_vec(), ..typical().network.remove(0) }];
        Payload::decode(Payload { network, ..typical() }.encode().as_slice())
            .map(|payload| payload.network[0].routes.clone())
    };
    for (address, way, default) in [
        ("203.0.113.7/32", "172.31.1.1/32", route("0.0.0.0/0", Some("172.31.1.1"))),
        ("203.0.113.7/32", "172.31.1.0/24", route("0.0.0.0/0", Some("172.31.1.1"))),
        ("2001:db8::7/128", "2001:db8:1::1/128", route("::/0", Some("2001:db8:1::1"))),
    ] {
        let way = route(way, None);
        for routes in [[way.clone(), default.clone()], [default.clone(), way.clone()]] {
            assert_eq!(decoded(address, &routes).unwrap(), routes);
        }
        // No route to the gateway, a route to another network, and a route that has a gateway itself.
        let elsewhere =
            route(if way.destination.address().is_ipv4() { "198.51.100.0/24" } else { "2001:db8:2::/64" }, None);
        let behind = Route { gateway: default.gateway, ..way.clone() };
        for routes in [vec![default.clone()], vec![default.clone(), elsewhere], vec![behind, default.clone()]] {
            let error = decoded(address, &routes).unwrap_err().to_string();
            assert!(error.contains("it cannot be reached from this link without a route to"), "{error}");
        }
    }
}

fn typical() -> Payload {
    let gateway = "192.0.2.1".parse().unwrap();
    Payload {
        id: PayloadId(std::array::from_fn(|i| i as u8)),
        composed: Timestamp::from_millis(1_795_400_000_000).unwrap(),
        expiry: Timestamp::from_millis(1_795_486_400_000).unwrap(),
        binding: None,
        seed: None,
        network: vec![Link {
            addresses: vec![prefix("192.0.2.10/24")],
            routes: vec![Route { destination: prefix("0.0.0.0/0"), gateway: Some(gateway), metric: None }],
            dns: vec![gateway],
            ..link(LinkKind::Physical(Match::AnyWithCarrier))
        }],
        from_cmdline: false,
        hostname: Some(HostName::try_from("node1").unwrap()),
        ca: CaCertificate::new(CA.to_vec()).unwrap(),
        issuers: vec![],
        enrolment: Enrolment::Csr(Box::new(CsrEnrolment {
            name: NodeName::try_from("node1").unwrap(),
            names: CertificateNames {
                subject: Subject(vec![SubjectAttribute::new(Attribute::CommonName, "node1.example.org").unwrap()]),
                dns: vec![DnsName::try_from("node1.example.org").unwrap()],
                ..Default::default()
            },
            key: KeyType::P256,
            urls: vec![EstUrl::try_from("https://192.0.2.1:8443/.well-known/est").unwrap()],
            token: Some(EnrolmentToken {
                secret: Token::try_from("AAECAwQFBgcICQoLDA0ODw".to_owned()).unwrap(),
                mode: TokenMode::Once,
            }),
        })),
        signers: vec![],
        bundle: None,
        root: None,
        extensions: vec![],
    }
}

/// If this test fails, do not change it: you have changed version 1.
#[test]
fn frozen_typical() {
    assert_eq!(decode(TYPICAL).unwrap(), typical());
    assert_eq!(*typical().encode(), TYPICAL);
    assert!(TYPICAL.len() <= 640, "a typical payload has to fit a kernel command line: {} bytes", TYPICAL.len());
}

/// Agents of before refuse number 2 by name. If this test fails, do not change it: you have changed version 1.
#[test]
fn frozen_modes_of_bonds() {
    for (number, mode) in [(0, BondMode::ActiveBackup), (1, BondMode::Lacp), (2, BondMode::LacpSlow)] {
        let name = InterfaceName::try_from("bond0").unwrap();
        let eth0 = link(LinkKind::Physical(Match::Name(InterfaceName::try_from("eth0").unwrap())));
        let bytes =
            Link::encode_all(&[eth0.clone(), link(LinkKind::Bond { name: name.clone(), mode, ports: vec![0] })]);
        // {0: 1, 6: [{0: {1: "eth0"}}, {1: {0: "bond0", 2: {0: number, 1: [0]}}}]}
        let raw = format!("a200010682a100a1016465746830a101a20065626f6e643002a200{number:02x}018100");
        assert_eq!(crate::hex::encode(&bytes), raw);
        let read = Link::decode_all(&bytes).unwrap();
        assert_eq!(read, [eth0, link(LinkKind::Bond { name, mode, ports: vec![0] })]);
    }
    let unknown = crate::hex::decode("a200010682a100a1016465746830a101a20065626f6e643002a20003018100").unwrap();
    let error = Link::decode_all(&unknown).unwrap_err().to_string();
    assert!(error.contains("3, want 0 (active-backup), 1 (802.3ad) or 2 (802.3ad with slow LACP)"), "{error}");
}

/// If this test fails, do not change it: you have changed version 1.
#[test]
fn frozen_root() {
    let payload = Payload { root: Some(std::array::from_fn(|i| i as u8)), ..typical() };
    let bytes = payload.encode();
    // The map has one entry more, and everything else is as it was.
    let (first, rest) = TYPICAL.split_first().unwrap();
    let item = [&[0x12, 0x58, 0x20][..], &(0..32).collect::<Vec<u8>>()].concat();
    assert_eq!(*bytes, [&[first + 1][..], rest, &item].concat());
    assert_eq!(decode(&bytes).unwrap(), payload);
    assert!(payload.to_string().contains("\nroot       sha256 000102"), "{payload}");
}

/// If this test fails, do not change it: you have changed version 1.
#[test]
fn frozen_from_cmdline() {
    let links = typical().network;
    let payload = Payload { network: vec![], from_cmdline: true, ..typical() };
    let bytes = payload.encode();
    let without = Payload { from_cmdline: false, ..payload.clone() }.encode();
    let (first, rest) = without.split_first().unwrap();
    assert_eq!(*bytes, [&[first + 1][..], rest, &[0x13, 0xf5]].concat());
    assert_eq!(decode(&bytes).unwrap(), payload);
    assert!(payload.to_string().contains("\nnetwork    as the kernel command line says\n"), "{payload}");
    // Both at once is an error, and so is false.
    let both = Payload { network: links, ..payload };
    let error = decode(&both.encode()).unwrap_err().to_string();
    assert!(error.contains("from-cmdline: links are listed and are to be those of the kernel command line"), "{error}");
    let mut no = bytes.to_vec();
    *no.last_mut().unwrap() = 0xf4;
    assert!(decode(&no).unwrap_err().to_string().contains("from-cmdline: false"), "false is left out");
}

/// If this test fails, do not change it: you have changed version 1.
#[test]
fn frozen_path() {
    let path = DevicePath::try_from("pci-0000:03:00.0").unwrap();
    let links = [link(LinkKind::Physical(Match::Path(path)))];
    let want = [&b"\xa2\x00\x01\x06\x81\xa1\x00\xa1\x05\x70"[..], b"pci-0000:03:00.0"].concat();
    assert_eq!(Link::encode_all(&links), want);
    assert_eq!(Link::decode_all(&want).unwrap(), links);
    for bad in ["", "pci 0", "pci-*", &"a".repeat(129)] {
        assert!(DevicePath::try_from(bad).is_err(), "{bad}");
    }
}

/// If this test fails, do not change it: you have changed version 1.
#[test]
fn frozen_full() {
    let payload = decode(FULL).unwrap();
    assert_eq!(*payload.encode(), FULL);
    assert_eq!(payload.expiry, Timestamp::MAX);
    let binding = payload.binding.as_ref().unwrap();
    assert_eq!(binding.uuid, Some(std::array::from_fn(|i| i as u8)));
    assert_eq!(binding.macs[1].as_bytes().len(), 20);
    assert_eq!(binding.serial.as_deref(), Some("SN-0042"));
    assert!(payload.seed.as_ref().unwrap().single_boot);
    let LinkKind::Physical(Match::Mac(mac)) = &payload.network[0].kind else { panic!("link 0 is matched by MAC") };
    assert_eq!(mac.to_string(), "52:54:00:12:34:56");
    assert_eq!(payload.network[0].mtu, Some(9000));
    let bond = &payload.network[2];
    let name = InterfaceName::try_from("bond0").unwrap();
    assert_eq!(bond.kind, LinkKind::Bond { name, mode: BondMode::Lacp, ports: vec![0, 1] });
    assert_eq!(bond.addresses, [prefix("192.0.2.10/24"), prefix("2001:db8::10/64")]);
    assert_eq!(bond.routes[0].metric, Some(100));
    assert_eq!(bond.routes[1].gateway, Some("fe80::1".parse().unwrap()));
    assert_eq!(bond.routes[2].gateway, None);
    assert_eq!(bond.search[1].as_str(), "example.net");
    let name = InterfaceName::try_from("vlan7").unwrap();
    assert_eq!(payload.network[3].kind, LinkKind::Vlan { name, id: 7, parent: 2 });
    let name = InterfaceName::try_from("br0").unwrap();
    assert_eq!(payload.network[4].kind, LinkKind::Bridge { name, ports: vec![3] });
    assert!(payload.network[4].slaac && payload.network[4].dhcp6 && !payload.network[4].dhcp4);
    let driver = DriverName::try_from("virtio_net").unwrap();
    assert_eq!(payload.network[5].kind, LinkKind::Physical(Match::Driver(driver)));
    assert_eq!(payload.network[6].kind, LinkKind::Physical(Match::BootIf));
    assert_eq!(payload.issuers.len(), 1);
    assert_eq!(payload.extensions.len(), 2);
    let Enrolment::Csr(csr) = &payload.enrolment else { panic!("it enrols with a CSR") };
    assert_eq!(
        csr.names.subject.to_string(),
        "CN=node1, O=Example, OU=Rack 7, C=DE, ST=Berlin, L=Mitte, serialNumber=SN-0042, DC=example"
    );
    assert_eq!(csr.names.ips[1], "2001:db8::10".parse::<IpAddr>().unwrap());
    assert_eq!(csr.names.uris[0].as_str(), "spiffe://example.org/node1");
    assert_eq!(csr.names.emails[0].as_str(), "node1@example.org");
    assert_eq!(csr.key, KeyType::P384);
    assert_eq!(csr.urls[0], EstUrl::Line);
    assert_eq!(csr.urls[1].to_string(), "https://[2001:db8::1]/.well-known/est/nodes");
    assert_eq!(csr.token.as_ref().unwrap().mode, TokenMode::EachBoot);
}

/// If this test fails, do not change it: you have changed version 1.
#[test]
fn frozen_credentials() {
    let payload = decode(CREDENTIALS).unwrap();
    assert_eq!(*payload.encode(), CREDENTIALS);
    let Enrolment::Credentials(credentials) = &payload.enrolment else { panic!("it is given credentials") };
    assert_eq!(credentials.chain, [CA]);
    assert_eq!(credentials.key.expose(), [0x30, 0]);
}

/// The error for the typical payload after `change` has changed its CBOR tree.
fn changed(change: impl FnOnce(&mut BTreeMap<Value, Value>)) -> String {
    let Ok(Value::Map(mut map)) = serde_cbor::from_slice(TYPICAL) else { panic!("a map") };
    change(&mut map);
    decode(&cbor::write(&Value::Map(map), MAX_LEN)).unwrap_err().to_string()
}

fn int(n: i64) -> Value {
    Value::Integer(n.into())
}

fn map<const N: usize>(entries: [(i64, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (int(key), value)).collect())
}

fn any_link<const N: usize>(entries: [(i64, Value); N]) -> Value {
    let Value::Map(mut link) = map(entries) else { panic!("a map") };
    link.insert(int(0), map([(4, Value::Bool(true))]));
    Value::Array(vec![Value::Map(link)])
}

#[test]
fn every_item_is_checked_by_name_and_place() {
    let with = |key: i64, value: Value| changed(|map| drop(map.insert(int(key), value)));
    let without = |key: i64| changed(|map| drop(map.remove(&int(key))));
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    let two_cas = [CA, CA].concat();
    let text = |text: &str| Value::Text(text.to_owned());
    let texts = |one: &str| Value::Array(vec![Value::Text(one.to_owned())]);
    for (error, want) in [
        (with(0, int(2)), "byte 2, version: payload version 2, this program reads version 1; update the image"),
        (without(1), "byte 0: id is missing"),
        (with(1, bytes(&[0; 15])), "byte 4, id: 15 bytes, want 16"),
        (with(2, int(-1)), "byte 22, composed: want an unsigned integer"),
        (with(3, int(5)), "byte 32, expiry: expiry 1970-01-01T00:00:00Z is not after composed 2026-11-23T02:13:20Z"),
        (with(3, int(i64::MAX)), "byte 32, expiry: 9223372036854775807 ms is after the year 9999"),
        (with(4, map([])), "byte 42, binding: uuid, macs or serial is missing"),
        (
            with(4, map([(1, Value::Array(vec![bytes(&[0; 7])]))])),
            "byte 45, binding.macs[0]: a hardware address of 7 bytes, want 6 or 20",
        ),
        (with(5, map([(0, bytes(&[0; 31]))])), "byte 44, seed.bytes: a seed of 31 bytes, want 32 to 512"),
        (
            with(5, map([(0, bytes(&[0; 32])), (1, Value::Bool(false))])),
            "byte 79, seed.single-boot: false; leave the key out instead",
        ),
        (with(6, Value::Array(vec![])), "byte 42, network: an empty array; leave the key out instead"),
        (with(6, Value::Array(vec![map([])])), "byte 43, network[0]: exactly one of match and make is needed"),
        (
            with(6, any_link([(2, Value::Array(vec![bytes(&[192, 0, 2, 10, 33])]))])),
            "byte 50, network[0].addresses[0]: prefix length 33 is too long for 192.0.2.10",
        ),
        (
            with(6, any_link([(2, Value::Array(vec![bytes(&[192, 0, 2, 255, 24])]))])),
            "byte 50, network[0].addresses[0]: 192.0.2.255/24 is not an address that a host can have in that prefix",
        ),
        (
            with(
                6,
                any_link([
                    (2, Value::Array(vec![bytes(&[192, 0, 2, 10, 24])])),
                    (6, Value::Array(vec![map([(0, bytes(&[0; 5])), (1, bytes(&[192, 0, 3, 1]))])])),
                ]),
            ),
            "byte 67, network[0].routes[0].via: gateway 192.0.3.1 is outside 192.0.2.10/24; it cannot be reached from \
             this link without a route to 192.0.3.1/32 that has no gateway",
        ),
        (
            with(6, any_link([(6, Value::Array(vec![map([(0, bytes(&[10, 0, 0, 1, 8]))])]))])),
            "byte 52, network[0].routes[0].to: 10.0.0.1/8 has host bits set; a route leads to a network",
        ),
        (with(6, any_link([(9, int(67))])), "byte 49, network[0].mtu: 67, want 68 to 65535"),
        (
            with(6, any_link([(17, int(1))])),
            "byte 49, network[0].?: unknown critical key 17; the payload is newer than \
             this program, update the image",
        ),
        (
            with(6, Value::Array(vec![map([(1, map([(0, text("v0")), (1, map([(0, int(1)), (1, int(0))]))]))])])),
            "byte 55, network[0].make.vlan.parent: link 0 does not come before link 0, which uses it",
        ),
        (
            with(6, Value::Array(vec![map([(0, map([(3, Value::Bool(true)), (4, Value::Bool(true))]))])])),
            "byte 45, network[0].match: exactly one of mac, name, driver, bootif, any and path is needed",
        ),
        (with(7, map([])), "byte 80, names: a subject or a subject alternative name is missing"),
        (
            with(7, map([(1, texts("a b"))])),
            "byte 83, names.dns[0]: \"a b\" is not a DNS name: labels of 1 to 63 letters, digits and inner hyphens, \
             253 in all, no trailing dot",
        ),
        (
            with(7, map([(0, Value::Array(vec![map([(0, int(0)), (1, text(&"n".repeat(65)))])]))])),
            &format!(
                "byte 87, names.subject[0].value: \"{}\" is not a subject attribute: 1 to 64 characters, no control \
                 characters",
                "n".repeat(65)
            ),
        ),
        (
            with(8, bytes(&two_cas)),
            "byte 126, ca: 371 bytes after the first certificate; give exactly one CA certificate",
        ),
        (
            with(8, bytes(b"-----BEGIN CERTIFICATE-----")),
            "byte 126, ca: PEM text where DER bytes belong; convert it with \
             openssl x509 -outform DER",
        ),
        (
            with(8, bytes(NOT_A_CA)),
            "byte 126, ca: \"CN=imprint test server\" is not a CA (no basicConstraints CA:TRUE); give the CA's own \
             certificate",
        ),
        (
            with(8, bytes(NO_KEY_CERT_SIGN)),
            "byte 126, ca: \"CN=imprint test crl signer\" may not sign certificates (keyUsage without keyCertSign); give \
             another CA",
        ),
        (
            with(10, texts("http://192.0.2.1/.well-known/est")),
            "byte 502, urls[0]: \"http://192.0.2.1/.well-known/est\" is not an https:// URL; EST is spoken over TLS only",
        ),
        (
            with(11, text("a:b")),
            "byte 543, name: \"a:b\" is not a node name: 1 to 64 letters, digits, dots, hyphens and underscores, not \
             starting with a dot or hyphen",
        ),
        (
            with(12, map([(0, text("a b"))])),
            "byte 552, token.secret: \"(not shown)\" is not a token: 1 to 255 printable ASCII characters without spaces",
        ),
        (
            with(13, map([(0, Value::Array(vec![bytes(&[0])])), (1, bytes(&[0]))])),
            "byte 576, credentials: credentials and names exclude each other; remove one: the node either gets a key \
             or makes one",
        ),
        (
            with(14, text("-")),
            "byte 576, hostname: \"-\" is not a host name: labels of letters, digits and inner hyphens, at \
             most 64 bytes in all",
        ),
        (with(15, int(0)), "byte 583, key type: 0, want 1 to 4 (P-256 is written by leaving the key out)"),
        (
            with(19, Value::Bool(true)),
            "byte 583, from-cmdline: links are listed and are to be those of the kernel command line; remove one of the two",
        ),
        (
            with(20, int(0)),
            "byte 583, ?: unknown critical key 20; the payload is newer than this program, update the image",
        ),
        (with(-25, int(0)), "byte 0: map key -25, want -24 to 23"),
        (changed(|map| drop(map.insert(text("x"), int(0)))), "byte 0: a map key that is not an integer"),
    ] {
        assert_eq!(error, want);
    }
}

#[test]
fn strict_about_encoding() {
    let say = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
    let not_deterministic = |offset: usize, why: &str| {
        format!(
            "byte {offset}: not in deterministic CBOR (RFC 8949 section 4.2): {why}; use the encoder's canonical mode"
        )
    };
    assert_eq!(say(&[]), "byte 0: the payload ends here; it was cut short, make or copy it again");
    for len in 0..TYPICAL.len() {
        let error = decode(&TYPICAL[..len]).unwrap_err();
        assert_eq!(error.problem, Problem::Truncated, "cut to {len} bytes: {error}");
    }
    assert_eq!(
        say(&[TYPICAL, b"\x00\x00"].concat()),
        "byte 582: 2 bytes after the payload; give one payload and nothing else"
    );
    assert_eq!(say(&vec![1; MAX_LEN + 1]), "byte 0: 65537 bytes are too many for a payload, the limit is 65536");
    // version 1 as 0x18 0x01
    let long_form = [&TYPICAL[..2], &[0x18, 0x01], &TYPICAL[3..]].concat();
    assert_eq!(say(&long_form), not_deterministic(2, "a number or length is not in its shortest form"));
    // an indefinite map
    let indefinite = [&[0xbf], &TYPICAL[1..], &[0xff]].concat();
    assert_eq!(say(&indefinite), not_deterministic(0, "indefinite length"));
    // keys 1 and 0 swapped
    let swapped = [&TYPICAL[..1], &TYPICAL[3..21], &TYPICAL[1..3], &TYPICAL[21..]].concat();
    assert_eq!(say(&swapped), not_deterministic(1, "map keys out of order or repeated"));
    // key 0 twice
    let repeated = [&[TYPICAL[0] + 1], &TYPICAL[1..3], &TYPICAL[1..]].concat();
    assert_eq!(say(&repeated), not_deterministic(0, "map keys repeated"));
    let tagged = [&TYPICAL[..2], &[0xc0, 0x01], &TYPICAL[3..]].concat();
    assert_eq!(say(&tagged), not_deterministic(2, "tags are not used"));
    // an array in place of the map: serde would read it as a struct
    assert_eq!(say(&[0x82, 0x00, 0x01]), "byte 0: want a map");
    let nested = vec![0x81; 60_000];
    assert!(matches!(decode(&nested).unwrap_err().problem, Problem::NotCbor(_)));
}

#[test]
fn an_unknown_version_is_reported_before_anything_else_of_that_version() {
    assert_eq!(decode(&[0xa1, 0x00, 0x02]).unwrap_err().problem, Problem::Version(2));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(10_000))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
        let error = decode(&bytes).unwrap_err();
        proptest::prop_assert!(error.offset <= bytes.len());
        proptest::prop_assert!(!error.to_string().is_empty());
    }

    /// Damaged bytes that `decode` accepts are encoded to the same bytes again.
    #[test]
    fn damaged_payloads_are_refused_or_are_payloads(at in 0..FULL.len(), byte in proptest::prelude::any::<u8>()) {
        let mut bytes = FULL.to_vec();
        bytes[at] = byte;
        match decode(&bytes) {
            Ok(payload) => proptest::prop_assert_eq!(&*payload.encode(), &bytes),
            Err(error) => proptest::prop_assert!(error.offset <= bytes.len()),
        }
    }
}

/// If this test fails, do not change it: you have changed version 1 of a file that images have.
#[test]
fn a_network_without_a_payload() {
    let links = [Link::automatic(Match::AnyWithCarrier)];
    let bytes = Link::encode_all(&links);
    assert_eq!(crate::hex::encode(&bytes), "a200010681a300a104f503f504f5");
    assert_eq!(Link::decode_all(&bytes).unwrap(), links);
    for (wrong, why) in [
        ("a200020681a300a104f503f504f5", ""),
        ("a10001", "network"),
        ("a300010681a300a104f503f504f50e6161", ""),
        ("a200010681a300a104f503f504f500", ""),
        ("a200010681a300a104f503f504", ""),
        ("", ""),
    ] {
        let error = Link::decode_all(&crate::hex::decode(wrong).unwrap()).unwrap_err().to_string();
        assert!(error.contains(why), "{wrong}: {error}");
    }
}
