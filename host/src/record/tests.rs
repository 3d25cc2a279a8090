use imprint::payload::{BondMode, LinkKind, Match};

use super::*;

const CA: &[u8] = include_bytes!("../../../tests/data/ca.der");

fn compile(text: &str) -> Result<Record, RecordError> {
    let urls = ["https://est.example.org:8443/.well-known/est", "https://192.0.2.1/.well-known/est"];
    let urls = urls.map(|url| EstUrl::try_from(url).unwrap());
    Record::compile("node1.toml", text, &CaCertificate::new(CA.to_vec()).unwrap(), &urls)
}

fn error(text: &str) -> String {
    compile(text).unwrap_err().to_string()
}

const FULL: &str = r#"
name = "node1"
subject = ["CN=node1", "DC=example", "DC=org"]
sans = [
    "dns:node1.example.org", "ip:192.0.2.10", "ip:2001:db8::10",
    "uri:spiffe://example.org/node1", "email:node1@example.org",
]
hostname = "node1"
key = "p384"
enrol = "each-boot"
validity = "12h"
usages = ["serverAuth", "clientAuth"]
issuers = ["000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"]
root_sha256 = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

[bind]
uuid = "00010203-0405-0607-0809-0a0b0c0d0e0f"
macs = ["52:54:00:12:34:56", "00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13"]
serial = "SN-0042"

[[network]]
match = { mac = "52:54:00:12:34:56" }
label = "first"
mtu = 9000

[[network]]
match = { name = "eth1" }

[[network]]
bond = { name = "bond0", mode = "802.3ad", ports = ["eth1", "first"] }
addresses = ["192.0.2.10/24", "2001:db8::10/64"]
routes = [
    { to = "default", via = "192.0.2.1", metric = 100 },
    { to = "default", via = "fe80::1" },
    { to = "198.51.100.0/24" },
]
dns = ["192.0.2.53", "2001:db8::53"]
search = ["example.org"]

[[network]]
vlan = { name = "vlan7", id = 7, on = "bond0" }

[[network]]
bridge = { name = "br0", ports = ["vlan7"] }
dhcp4 = true
slaac = true
dhcp6 = true

[[network]]
match = { driver = "virtio_net" }

[[network]]
match = { bootif = true }

[[network]]
match = { any = true }
"#;

#[test]
fn everything() {
    let record = compile(FULL).unwrap();
    assert_eq!(
        record.names.to_string(),
        "CN=node1, DC=example, DC=org dns:node1.example.org ip:192.0.2.10 ip:2001:db8::10 \
         uri:spiffe://example.org/node1 email:node1@example.org"
    );
    assert_eq!((record.key, record.mode), (KeyType::P384, TokenMode::EachBoot));
    assert_eq!(record.validity, Duration::from_secs(12 * 3600));
    assert_eq!(record.usages, [Usage::Client, Usage::Server]);
    assert_eq!(record.issuers, [std::array::from_fn(|i| i as u8)]);
    assert_eq!(record.root, Some(std::array::from_fn(|i| i as u8)));
    let binding = record.binding.unwrap();
    assert_eq!(binding.uuid, Some(std::array::from_fn(|i| i as u8)));
    assert_eq!((binding.macs.len(), binding.serial.as_deref()), (2, Some("SN-0042")));
    let shown: Vec<String> = record.network.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "MAC address 52:54:00:12:34:56; mtu 9000",
            "name eth1",
            "bond bond0 (802.3ad) of links 0+1; 192.0.2.10/24; 2001:db8::10/64; 0.0.0.0/0 via 192.0.2.1 metric 100; \
             ::/0 via fe80::1; 198.51.100.0/24; dns 192.0.2.53; dns 2001:db8::53; search example.org",
            "VLAN vlan7 id 7 on link 2",
            "bridge br0 of links 3; DHCPv4; SLAAC; DHCPv6",
            "driver virtio_net",
            "BOOTIF",
            "any with carrier",
        ]
    );
    assert!(matches!(record.network[2].kind, LinkKind::Bond { mode: BondMode::Lacp, .. }));
    assert_eq!(record.network[7].kind, LinkKind::Physical(Match::AnyWithCarrier));
}

#[test]
fn the_least() {
    let record = compile("name = \"node1\"\nsubject = [\"CN=node1\"]").unwrap();
    assert_eq!((record.key, record.mode, record.network.len()), (KeyType::P256, TokenMode::Once, 0));
    assert_eq!((record.validity, record.usages.as_slice()), (90 * DAY, &[Usage::Client][..]));
    let each_boot = compile("name = \"node1\"\nsubject = [\"CN=node1\"]\nenrol = \"each-boot\"").unwrap();
    assert_eq!(each_boot.validity, DAY);
}

/// The order of routes must not matter.
#[test]
fn a_gateway_that_a_route_of_the_same_link_leads_to() {
    let link = "name = \"node1\"\nsubject = [\"CN=node1\"]\n[[network]]\nmatch = { name = \"eth0\" }\n\
                addresses = [\"203.0.113.7/32\"]\n";
    let [way, default] = ["{ to = \"172.31.1.1/32\" }", "{ to = \"default\", via = \"172.31.1.1\" }"];
    for routes in [format!("routes = [{way}, {default}]\n"), format!("routes = [{default}, {way}]\n")] {
        let record = compile(&format!("{link}{routes}")).unwrap();
        assert_eq!(record.network[0].routes.len(), 2, "{routes}");
    }
    let alone = error(&format!("{link}routes = [{default}]\n"));
    assert!(alone.ends_with("without a route to 172.31.1.1/32 that has no gateway"), "{alone}");
}

const LEAST: &str = "name = \"node1\"\nsubject = [\"CN=node1\"]\n";

/// Each case is appended to a minimal record, so that its error is in line 3.
#[test]
fn an_error_names_file_line_and_key() {
    let cases = [
        ("hostnam = \"x\"", "node1.toml:3: hostnam: unknown key; did you mean hostname?"),
        (
            "colour = 1",
            "node1.toml:3: colour: unknown key; known here: name, subject, sans, hostname, key, enrol, bind, admit, \
             claims_suffice, admission_key, bundle_key, bundle_approve, bundle_recipient, bundle_pull, network, validity, \
             usages, issuers, root_sha256, set",
        ),
        ("hostname = 7", "node1.toml:3: hostname: want a string, not integer"),
        (
            "hostname = \"-x\"",
            "node1.toml:3: hostname: \"-x\" is not a host name: labels of letters, digits and inner hyphens, at most \
             64 bytes in all",
        ),
        ("key = \"p512\"", "node1.toml:3: key: \"p512\" is not one of p256, p384, ed25519, rsa2048, rsa3072"),
        ("enrol = \"twice\"", "node1.toml:3: enrol: \"twice\" is not one of once, each-boot"),
        ("validity = \"1y\"", "node1.toml:3: validity: \"1y\" is not a duration like 90d, 24h or 30m"),
        ("validity = \"1s\"", "node1.toml:3: validity: 1s, want 5m to 3650d"),
        ("usages = []", "node1.toml:3: usages: an empty list; leave it out for clientAuth"),
        ("usages = [\"any\"]", "node1.toml:3: usages[0]: \"any\" is not one of clientAuth, serverAuth"),
        ("root_sha256 = \"00\"", "node1.toml:3: root_sha256: \"00\" is not a SHA-256 digest of 64 hexadecimal digits"),
        ("issuers = [\"00\"]", "node1.toml:3: issuers[0]: \"00\" is not a SHA-256 digest of 64 hexadecimal digits"),
        ("sans = \"dns:x\"", "node1.toml:3: sans: want a list [ ], not string"),
        ("sans = [\"x\"]", "node1.toml:3: sans[0]: want dns:NAME, ip:ADDRESS, uri:URI or email:ADDRESS"),
        ("sans = [\n\"dns:a\",\n\"ip:300.1.1.1\"]", "node1.toml:5: sans[1]: \"300.1.1.1\" is not an IP address"),
        ("sans = [\"dns:a\", \"dns:a\"]", "node1.toml:3: sans[1]: given twice"),
        (
            "sans = [\"dns:*.a\"]",
            "node1.toml:3: sans[0]: \"*.a\" is not a DNS name: labels of 1 to 63 letters, digits and inner hyphens, \
             253 in all, no trailing dot",
        ),
        (
            "sans = [\"dns:EST.example.org\"]",
            "node1.toml:3: sans[0]: EST.example.org is the EST server's own \
             (https://est.example.org:8443/.well-known/est); give the node another name",
        ),
        (
            "sans = [\"ip:::ffff:192.0.2.1\"]",
            "node1.toml:3: sans[0]: ::ffff:192.0.2.1 is the EST server's own (https://192.0.2.1/.well-known/est); \
             give the node another name",
        ),
        ("bind = {}", "node1.toml:3: bind: empty; give uuid, macs, serial, cid, tap or vm, or leave bind out"),
        ("bind = { uid = \"x\" }", "node1.toml:3: bind.uid: unknown key; did you mean uuid?"),
        ("bind = { uuid = \"x\" }", "node1.toml:3: bind.uuid: \"x\" is not a UUID (8-4-4-4-12 hexadecimal digits)"),
        (
            "bind = { macs = [\"52:54\"] }",
            "node1.toml:3: bind.macs[0]: \"52:54\" is not a hardware address of 6 or 20 bytes, like 52:54:00:12:34:56",
        ),
        (
            "bind = { serial = \"\" }",
            "node1.toml:3: bind.serial: a serial number has 1 to 128 bytes and no control characters",
        ),
        (
            "bind = { uuid = \"FFFFFFFF-ffff-ffff-ffff-ffffffffffff\" }",
            "node1.toml:3: bind.uuid: \"ffffffff-ffff-ffff-ffff-ffffffffffff\" is a placeholder, which names no machine: many \
             machines have it instead of one of their own; give macs",
        ),
        (
            "bind = { uuid = \"4c4c4544-0042-3510-8054-b4c04f564433\", serial = \" To be filled by O.E.M.\" }",
            "node1.toml:3: bind.serial: \"To be filled by O.E.M.\" is a placeholder, which names no machine: many machines \
             have it instead of one of their own; give macs",
        ),
        (
            "bind = { macs = [\"52:54:00:12:34:56\", \"00:00:00:00:00:00\"] }",
            "node1.toml:3: bind.macs[1]: \"00:00:00:00:00:00\" is a placeholder, which names no machine: many machines have \
             it instead of one of their own; give macs",
        ),
        ("name = \"again\"", "node1.toml:3: duplicate key"),
        ("key = ", "node1.toml:3: string values must be quoted, expected literal string"),
    ];
    for (line, want) in cases {
        assert_eq!(error(&format!("{LEAST}{line}\n")), want, "{line}");
    }
}

#[test]
fn lacp_may_be_slow() {
    let record = |rate: &str| {
        let bond = format!("bond = {{ name = \"b\", mode = \"802.3ad\", {rate}ports = [\"eth0\"] }}");
        compile(&format!("{LEAST}[[network]]\nmatch = {{ name = \"eth0\" }}\n[[network]]\n{bond}\n")).unwrap()
    };
    let shown = |rate: &str| record(rate).network[1].to_string();
    assert_eq!(shown(""), "bond b (802.3ad) of links 0");
    assert_eq!(shown("lacp_rate = \"fast\", "), "bond b (802.3ad) of links 0");
    assert_eq!(shown("lacp_rate = \"slow\", "), "bond b (802.3ad, slow LACP) of links 0");
}

#[test]
fn errors_in_the_network() {
    let cases = [
        ("", "node1.toml:3: network[0]: give exactly one of match, vlan, bond and bridge"),
        (
            "match = {}",
            "node1.toml:4: network[0].match: give exactly one of mac, name, driver, path, bootif = true and any = true",
        ),
        (
            "match = { any = true, bootif = true }",
            "node1.toml:4: network[0].match: give exactly one of mac, name, driver, path, bootif = true and any = true",
        ),
        (
            "match = { any = true }\naddresses = [\"192.0.2.10\"]",
            "node1.toml:5: network[0].addresses[0]: \"192.0.2.10\" is not an address with its prefix length, like \
             192.0.2.10/24",
        ),
        // The rules below are the codec's; the errors name lines of the record.
        (
            "match = { any = true }\naddresses = [\n  \"192.0.2.10/24\",\n  \"198.51.100.0/24\",\n]",
            "node1.toml:7: network[0].addresses[1]: 198.51.100.0/24 is not an address that a host can have in that \
             prefix",
        ),
        (
            "match = { any = true }\naddresses = [\"192.0.2.10/24\"]\nroutes = [{ to = \"default\", via = \
             \"198.51.100.1\" }]",
            "node1.toml:6: network[0].routes[0].via: gateway 198.51.100.1 is outside 192.0.2.10/24; it cannot be \
             reached from this link without a route to 198.51.100.1/32 that has no gateway",
        ),
        (
            "match = { any = true }\nroutes = [{ to = \"192.0.2.1/24\" }]",
            "node1.toml:5: network[0].routes[0].to: 192.0.2.1/24 has host bits set; a route leads to a network",
        ),
        ("match = { any = true }\nslaac = true\nmtu = 576", "node1.toml:6: network[0].mtu: 576, want 1280 to 65535"),
        (
            "match = { any = true }\ndhcp_client_id = \"duid\"",
            "node1.toml:5: network[0].dhcp_client_id: it goes with dhcp4 only",
        ),
        (
            "match = { any = true }\ndhcp4 = true\ndhcp_client_id = \"uuid\"",
            "node1.toml:6: network[0].dhcp_client_id: give \"duid\" (RFC 4361) or \"mac\", the hardware address",
        ),
        ("match = { any = true }\nmtu = 70000", "node1.toml:5: network[0].mtu: 70000, want 68 to 65535"),
        ("match = { any = true }\nroute = []", "node1.toml:5: network[0].route: unknown key; did you mean routes?"),
        (
            "vlan = { name = \"v\", id = 1, on = \"eth0\" }",
            "node1.toml:4: network[0].vlan.on: no link \"eth0\" above this one; give the label or name of a \
             [[network]] before it",
        ),
        (
            "match = { name = \"eth0\" }\n[[network]]\nvlan = { name = \"v\", id = 4095, on = \"eth0\" }",
            "node1.toml:6: network[1].vlan.id: 4095, want 1 to 4094",
        ),
        (
            "match = { name = \"eth0\" }\n[[network]]\nbridge = { name = \"b\", ports = [\"eth0\", \"eth0\"] }",
            "node1.toml:6: network[1].bridge.ports[1]: given twice",
        ),
        (
            "match = { name = \"eth0\" }\n[[network]]\nlabel = \"eth0\"\nmatch = { any = true }",
            "node1.toml:6: network[1].label: there is a link eth0 already",
        ),
        (
            "bond = { name = \"b\", mode = \"fast\", ports = [] }",
            "node1.toml:4: network[0].bond.mode: \"fast\" is not one of active-backup, 802.3ad",
        ),
        (
            "match = { name = \"eth0\" }\n[[network]]\nbond = { name = \"b\", mode = \"active-backup\", lacp_rate = \"slow\", \
             ports = [\"eth0\"] }",
            "node1.toml:6: network[1].bond.lacp_rate: only a bond with mode = \"802.3ad\" has LACP; leave lacp_rate out",
        ),
        // The plan's own rules.
        (
            "match = { name = \"eth0\" }\n[[network]]\nvlan = { name = \"a\", id = 7, on = \"eth0\" }\n[[network]]\n\
             vlan = { name = \"b\", id = 7, on = \"eth0\" }",
            "node1.toml:7: network[2]: VLANs a and b both have id 7 on name eth0; leave one of them out",
        ),
    ];
    for (lines, want) in cases {
        assert_eq!(error(&format!("{LEAST}[[network]]\n{lines}\n")), want, "{lines}");
    }
}

#[test]
fn names_and_what_is_missing() {
    let cases = [
        ("", "node1.toml:1: name: is missing"),
        ("name = \"node1\"", "node1.toml:1: subject or sans is missing; a certificate needs a name"),
        (
            "name = \"a:b\"",
            "node1.toml:1: name: \"a:b\" is not a node name: 1 to 64 letters, digits, dots, hyphens \
          and underscores, not starting with a dot or hyphen",
        ),
        ("name = \"n\"\nsubject = [\"node1\"]", "node1.toml:2: subject[0]: want TYPE=VALUE, like CN=node1"),
        (
            "name = \"n\"\nsubject = [\"X=node1\"]",
            "node1.toml:2: subject[0]: unknown type \"X\"; known: CN, O, OU, C, ST, L, serialNumber, DC",
        ),
        (
            "name = \"n\"\nsubject = [\"C=germany\"]",
            "node1.toml:2: subject[0]: \"germany\" is not a countryName: two upper-case letters (ISO 3166)",
        ),
        (
            "name = \"n\"\nsubject = [\"CN=est.example.org\"]",
            "node1.toml:2: subject[0]: est.example.org is the EST server's own \
             (https://est.example.org:8443/.well-known/est); give the node another name",
        ),
    ];
    for (text, want) in cases {
        assert_eq!(error(text), want, "{text}");
    }
}

/// The example in docs/node-toml.md compiles.
#[test]
fn the_documented_example() {
    let page = include_str!("../../../docs/node-toml.md");
    let (_, from) = page.split_once("```toml\n").unwrap();
    let (example, _) = from.split_once("```").unwrap();
    let record = compile(example).unwrap();
    assert_eq!(record.names.to_string(), "CN=node1.example.org, O=Example dns:node1.example.org ip:192.0.2.10");
    assert!(record.binding.is_some());
}

#[test]
fn a_network_that_is_somebody_elses_or_the_command_lines() {
    let of = |network: &str| compile(&format!("{LEAST}{network}\n"));
    let (keep, absent) = (of("network = \"keep\"").unwrap(), of("").unwrap());
    assert_eq!((&keep.network, keep.from_cmdline), (&absent.network, absent.from_cmdline));
    let words = of("network = \"cmdline\"").unwrap();
    assert!(words.network.is_empty() && words.from_cmdline && !keep.from_cmdline);
    for (network, want) in [
        (
            "network = \"dhcp\"",
            "node1.toml:3: network: \"dhcp\" is neither \"cmdline\" nor \"keep\"; or list links as [[network]]",
        ),
        ("network = 1", "node1.toml:3: network: want a list [ ], not integer"),
        ("network = \"cmdline\"\n[[network]]\nmatch = { any = true }", "node1.toml:4"),
        (
            "[[network]]\nmatch = { path = \"a b\" }",
            "node1.toml:4: network[0].match.path: \"a b\" is not a device path",
        ),
    ] {
        let error = error(&format!("{LEAST}{network}\n"));
        assert!(error.starts_with(want), "{error}");
    }
    let path = of("[[network]]\nmatch = { path = \"pci-0000:03:00.0\" }\ndhcp4 = true").unwrap();
    assert_eq!(path.network[0].to_string(), "device path pci-0000:03:00.0; DHCPv4");
}

/// A network for an image has the entries of a record and nothing else, and only what a node can use.
#[test]
fn the_network_of_an_image() {
    let good = "[[network]]\nmatch = { any = true }\ndhcp4 = true\n[[network]]\nmatch = { bootif = true }\nslaac = true\ndhcp6 = true\n";
    assert_eq!(network("n.toml", good).unwrap().len(), 2);
    for (text, why) in [
        ("", "network"),
        ("name = \"node1\"\n[[network]]\nmatch = { any = true }\ndhcp4 = true\n", "n.toml:1"),
        ("[[network]]\nmatch = { any = true }\naddresses = [\"192.0.2.0/24\"]\n", "network[0].addresses"),
    ] {
        let error = network("n.toml", text).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

/// The attack: the machine behind a device passes on the call of another node. Where the record binds nothing that a node checks, that
/// node would use its payload. Records of earlier versions are still read: their nodes renew their certificates.
#[test]
fn a_record_that_binds_a_fact_alone_is_not_added() {
    let urls = [EstUrl::try_from("https://est.example.org/.well-known/est").unwrap()];
    let ca = CaCertificate::new(CA.to_vec()).unwrap();
    let name = "name = \"node1\"\nsubject = [\"CN=node1\"]\n";
    for (rule, refused) in [
        ("admit = \"wire\"\nbind = { tap = \"tap0\" }", true),
        ("admit = \"armed\"\nbind = { cid = 3 }", true),
        ("admit = \"key\"\nadmission_key = \"rack7\"\nbind = { vm = \"web1\" }", true),
        ("admit = \"wire\"\nbind = { tap = \"tap0\", serial = \"S\" }", false),
        ("admit = \"wire\"\nbind = { tap = \"tap0\", macs = [\"02:00:00:00:00:01\"] }", false),
        ("admit = \"approve\"\nbind = { tap = \"tap0\" }", false),
        ("admit = \"armed\"\nbind = { serial = \"S\" }", false),
    ] {
        let text = format!("{name}{rule}\n");
        let added = Record::to_add("node1.toml", &text, &ca, &urls);
        let word = rule.split('"').nth(1).unwrap();
        let want = format!(
            "node1.toml:3: admit: \"{word}\" needs uuid, serial or macs in bind, which the node itself checks: without them the \
             machine behind this device can pass on the call of another node, and have it use this record's payload"
        );
        assert_eq!(added.err().map(|error| error.to_string()), refused.then_some(want), "{rule}");
        assert!(Record::compile("node1.toml", &text, &ca, &urls).is_ok(), "{rule}");
    }
}
