use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::dhcp4::Lease;
use crate::link_files::Kind;
use crate::payload::{DnsName, HardwareAddress, Prefix, Route};
use crate::plan::LinkConfig;

fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).unwrap()
}

fn route(to: &str, via: Option<&str>, metric: Option<u32>) -> Route {
    Route { destination: prefix(to), gateway: via.map(|via| via.parse().unwrap()), metric }
}

fn unit(link: &AppliedLink) -> String {
    link_files::unit(&described(link, None))
}

fn keyfile(link: &AppliedLink) -> String {
    link_files::keyfile(&described(link, None))
}

fn link(name: &str, config: LinkConfig) -> AppliedLink {
    AppliedLink {
        index: 2,
        name: InterfaceName::try_from(name).unwrap(),
        mac: HardwareAddress::parse("52:54:00:12:34:56"),
        permanent: None,
        mtu: 1500,
        config,
        client_id: None,
        lease: None,
        six: Default::default(),
        learned: vec![],
        dns: vec![],
        search: vec![],
    }
}

fn fixed() -> AppliedLink {
    let config = LinkConfig {
        mtu: Some(9000),
        addresses: vec![prefix("192.0.2.10/24"), prefix("2001:db8::10/64")],
        routes: vec![
            route("0.0.0.0/0", Some("192.0.2.1"), Some(100)),
            route("198.51.100.0/24", None, None),
            route("::/0", Some("2001:db8::1"), None),
        ],
        dns: vec!["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()],
        search: vec![DnsName::try_from("example.org").unwrap(), DnsName::try_from("example.net").unwrap()],
        ..LinkConfig::default()
    };
    link("eth0", config)
}

fn leased() -> AppliedLink {
    let lease = Lease {
        address: prefix("192.0.2.100/24"),
        server: [192, 0, 2, 1].into(),
        routes: vec![route("0.0.0.0/0", Some("192.0.2.1"), None)],
        dns: vec![],
        search: vec![],
        domain: Vec::new(),
        mtu: None,
        unread: vec![],
        seconds: 3600,
        bound: std::time::Duration::ZERO,
        renew: std::time::Duration::ZERO,
    };
    let config = LinkConfig { dhcp4: true, slaac: true, ..LinkConfig::default() };
    AppliedLink { lease: Some(lease), ..link("eth1", config) }
}

#[test]
fn a_unit_with_everything_static() {
    assert_eq!(
        unit(&fixed()),
        "\
# Written by imprint from the bootstrap payload. To change it, put a file of this name into /etc.
[Match]
MACAddress=52:54:00:12:34:56
Type=!vlan bridge bond

[Link]
MTUBytes=9000

[Network]
DHCP=no
IPv6AcceptRA=no
Address=192.0.2.10/24
Address=2001:db8::10/64
DNS=192.0.2.53
DNS=2001:db8::53
Domains=example.org example.net

[Route]
Destination=0.0.0.0/0
Gateway=192.0.2.1
Metric=100

[Route]
Destination=198.51.100.0/24

[Route]
Destination=::/0
Gateway=2001:db8::1
"
    );
}

#[test]
fn a_unit_with_everything_from_the_network() {
    // Leased values are not in the unit: networkd asks for them again, and gets the same with the same client
    // identifier.
    assert_eq!(
        unit(&leased()),
        "\
# Written by imprint from the bootstrap payload. To change it, put a file of this name into /etc.
[Match]
MACAddress=52:54:00:12:34:56
Type=!vlan bridge bond

[Network]
DHCP=ipv4
IPv6AcceptRA=yes
KeepConfiguration=dhcp

[DHCPv4]
ClientIdentifier=mac
UseDomains=yes
UseMTU=yes

[IPv6AcceptRA]
UseDomains=yes
"
    );
}

#[test]
fn keyfiles() {
    assert_eq!(
        keyfile(&fixed()),
        "\
# Written by imprint from the bootstrap payload. To change it, put a file of this name into /etc.
[connection]
id=imprint-eth0
type=ethernet

[ethernet]
mac-address=52:54:00:12:34:56
mtu=9000

[ipv4]
method=manual
address1=192.0.2.10/24
route1=0.0.0.0/0,192.0.2.1,100
route2=198.51.100.0/24,0.0.0.0
dns=192.0.2.53;
dns-search=example.org;example.net;

[ipv6]
method=manual
address1=2001:db8::10/64
route1=::/0,2001:db8::1
dns=2001:db8::53;
"
    );
    let permanent = HardwareAddress::parse("52:54:00:ab:cd:ef");
    assert_eq!(
        keyfile(&AppliedLink { permanent, ..leased() }),
        "\
# Written by imprint from the bootstrap payload. To change it, put a file of this name into /etc.
[connection]
id=imprint-eth1
type=ethernet

[ethernet]
mac-address=52:54:00:AB:CD:EF

[ipv4]
method=auto
dhcp-client-id=mac

[ipv6]
method=auto
addr-gen-mode=eui64
"
    );
}

#[test]
fn infiniband_and_a_link_without_an_address() {
    let mac = HardwareAddress::new(&[7; 20]);
    let text = keyfile(&AppliedLink { mac, ..leased() });
    assert!(text.contains("type=infiniband\n") && text.contains("transport-mode=datagram\n"), "{text}");
    let nameless = AppliedLink { mac: None, ..leased() };
    assert!(unit(&nameless).contains("[Match]\nName=eth1\n"));
    assert!(keyfile(&nameless).contains("interface-name=eth1\n"));
}

#[test]
fn domains_are_said_once_and_where_they_are_read() {
    let search = vec![DnsName::try_from("example.org").unwrap()];
    let six = LinkConfig { slaac: true, search, ..LinkConfig::default() };
    let text = keyfile(&link("eth0", six.clone()));
    assert!(text.contains("[ipv4]\nmethod=disabled\n"), "{text}");
    assert!(text.ends_with("addr-gen-mode=eui64\ndns-search=example.org;\n"), "{text}");
    let both = keyfile(&link("eth0", LinkConfig { dhcp4: true, ..six }));
    assert_eq!(both.matches("dns-search").count(), 1);
}

/// NetworkManager makes its folder for all users, since they read resolv.conf there, and does not change a folder that
/// exists.
#[test]
fn the_folders_of_others_are_as_their_owners_make_them() {
    for umask in [0o022, 0o077] {
        let root = tempfile::tempdir().unwrap();
        let before = umask_to(umask);
        write(root.path(), &Network { links: vec![fixed()], idle: vec![], standing: vec![] }).unwrap();
        umask_to(before);
        let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o7777;
        for (path, want) in [
            ("run", 0o755),
            ("run/NetworkManager", 0o755),
            ("run/NetworkManager/system-connections", 0o700),
            ("run/systemd", 0o755),
            ("run/systemd/network", 0o755),
        ] {
            assert_eq!(mode(path), want, "{path} is {:o} with umask {umask:o}", mode(path));
        }
        // A folder that existed before keeps its mode.
        fs::set_permissions(root.path().join("run/systemd/network"), fs::Permissions::from_mode(0o750)).unwrap();
        write(root.path(), &Network { links: vec![leased()], idle: vec![], standing: vec![] }).unwrap();
        assert_eq!(mode("run/systemd/network"), 0o750);
    }
}

fn umask_to(mask: u32) -> u32 {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask)).bits()
}

#[test]
fn the_files_of_an_earlier_run_are_replaced_and_no_others() {
    let root = tempfile::tempdir().unwrap();
    let network = |links, idle| Network { links, idle, standing: Vec::new() };
    write(root.path(), &network(vec![fixed()], vec![leased()])).unwrap();
    let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("run/systemd/network/70-imprint-eth0.network"), 0o644);
    assert_eq!(mode("run/NetworkManager/system-connections/imprint-eth0.nmconnection"), 0o600);
    assert!(root.path().join("run/systemd/network/70-imprint-eth1.network").exists());
    fs::write(root.path().join("run/systemd/network/70-own.network"), "").unwrap();
    write(root.path(), &network(vec![leased()], vec![])).unwrap();
    let mut left: Vec<String> = fs::read_dir(root.path().join("run/systemd/network"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["70-imprint-eth1.network", "70-own.network"]);
}

/// The lease continues with the same client identifier, whichever it was.
#[test]
fn the_client_identifier_of_rfc_4361_is_handed_over() {
    let with = |client_id: &[u8]| AppliedLink { client_id: Some(client_id.to_vec()), ..leased() };
    let by_uuid = with(b"\xff\x00\x12\x34\x56\x00\x04\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f");
    let by_link = with(b"\xff\x00\x12\x34\x56\x00\x03\x00\x01\x52\x54\x00\x12\x34\x56");
    let want = "\n[DHCPv4]\nClientIdentifier=duid\nIAID=1193046\nDUIDType=uuid\n\
                DUIDRawData=00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f\nUseDomains=yes\n";
    assert!(unit(&by_uuid).contains(want), "{}", unit(&by_uuid));
    let want = "\nDUIDType=link-layer\nDUIDRawData=00:01:52:54:00:12:34:56\n";
    assert!(unit(&by_link).contains(want), "{}", unit(&by_link));
    let want = "\ndhcp-client-id=ff:00:12:34:56:00:03:00:01:52:54:00:12:34:56\n";
    assert!(keyfile(&by_link).contains(want), "{}", keyfile(&by_link));
    assert!(unit(&leased()).contains("ClientIdentifier=mac\n") && keyfile(&leased()).contains("dhcp-client-id=mac\n"));
}

/// The kernel disables IPv6 on a link with an MTU of less than 1280, whoever sets the MTU.
#[test]
fn an_mtu_that_would_take_ipv6_away_is_not_left_to_the_next_stage() {
    let leased = |config: LinkConfig, mtu: u16| {
        let lease = Lease {
            address: prefix("192.0.2.100/24"),
            server: "192.0.2.1".parse().unwrap(),
            routes: vec![],
            dns: vec![],
            search: vec![],
            domain: Vec::new(),
            mtu: Some(mtu),
            unread: vec![],
            seconds: 3600,
            bound: std::time::Duration::ZERO,
            renew: std::time::Duration::ZERO,
        };
        AppliedLink { lease: Some(lease), ..link("eth0", config) }
    };
    let four = || LinkConfig { dhcp4: true, ..LinkConfig::default() };
    let both = leased(LinkConfig { slaac: true, ..four() }, 576);
    assert!(unit(&both).contains("UseMTU=no\n"), "{}", unit(&both));
    assert!(keyfile(&both).contains("\nmtu=1500\n"), "{}", keyfile(&both));
    assert!(unit(&leased(four(), 575)).contains("UseMTU=no\n"));
    for other in [leased(four(), 576), leased(LinkConfig { slaac: true, ..four() }, 1280)] {
        assert!(unit(&other).contains("UseMTU=yes\n") && !keyfile(&other).contains("\nmtu="));
    }
}

#[test]
fn the_scripts_of_initramfs_tools_find_the_link_as_ipconfig_leaves_it() {
    let root = tempfile::tempdir().unwrap();
    let network =
        Network { links: vec![fixed(), link("it's", leased().config)], idle: Vec::new(), standing: Vec::new() };
    write(root.path(), &network).unwrap();
    let files = || {
        fs::read_dir(root.path().join("run")).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file()).count()
    };
    assert_eq!(files(), 0, "another builder's image");
    fs::create_dir(root.path().join("conf")).unwrap();
    fs::write(root.path().join(INITRAMFS_TOOLS), "").unwrap();
    write(root.path(), &network).unwrap();
    let script = ". ./net-eth0.conf; echo $DEVICE $PROTO $IPV4ADDR $IPV4NETMASK $IPV4GATEWAY $IPV4DNS0 $IPV4DNS1
        . \"./net-it's.conf\"; echo $DEVICE $PROTO $IPV4ADDR $IPV4NETMASK $IPV4GATEWAY $ROOTSERVER";
    let shell =
        std::process::Command::new("sh").args(["-ec", script]).current_dir(root.path().join("run")).output().unwrap();
    let text = String::from_utf8(shell.stdout).unwrap();
    let want =
        "eth0 none 192.0.2.10 255.255.255.0 192.0.2.1 192.0.2.53 0.0.0.0\nit's none 0.0.0.0 0.0.0.0 0.0.0.0 0.0.0.0\n";
    assert_eq!(text, want, "{}", String::from_utf8_lossy(&shell.stderr));
    assert!(ipconfig(&leased()).contains("PROTO='dhcp'\nIPV4ADDR='192.0.2.100'\nIPV4NETMASK='255.255.255.0'\n"));
}

fn named(text: &str) -> InterfaceName {
    InterfaceName::try_from(text).unwrap()
}

/// eth0 and eth1 in bond0 (LACP), vlan7 on it, br0 of vlan7; br0 has the addresses.
fn stack() -> Vec<Standing> {
    let mac = HardwareAddress::parse("52:54:00:12:34:56");
    let plain = |name: &str| Standing {
        name: named(name),
        mac: mac.clone(),
        mtu: None,
        plain: true,
        kind: None,
        master: None,
        vlans: Vec::new(),
    };
    let bond = Some((named("bond0"), true));
    vec![
        Standing { master: bond.clone(), mtu: Some(9000), ..plain("eth0") },
        Standing { master: bond, mtu: Some(9000), mac: None, ..plain("eth1") },
        Standing {
            kind: Some(Kind::Bond { fast: Some(true) }),
            mtu: Some(9000),
            vlans: vec![named("vlan7")],
            ..plain("bond0")
        },
        Standing {
            kind: Some(Kind::Vlan { id: 7, parent: named("bond0") }),
            master: Some((named("br0"), false)),
            ..plain("vlan7")
        },
        Standing { kind: Some(Kind::Bridge), plain: false, ..plain("br0") },
    ]
}

#[test]
fn the_next_stage_makes_the_same_links() {
    let root = tempfile::tempdir().unwrap();
    let config = LinkConfig { dhcp4: true, ..LinkConfig::default() };
    write(root.path(), &Network { links: vec![link("br0", config)], idle: vec![], standing: stack() }).unwrap();
    let units = root.path().join(UNITS);
    let read = |name: &str| fs::read_to_string(units.join(name)).unwrap();
    let body = |name: &str| read(name).split_once('\n').unwrap().1.to_owned();
    assert_eq!(
        body("70-imprint-eth0.network"),
        "[Match]\nPermanentMACAddress=52:54:00:12:34:56\n\n[Link]\nMTUBytes=9000\n\n[Network]\nDHCP=no\nIPv6AcceptRA=no\n\
         LinkLocalAddressing=no\nKeepMaster=yes\nBond=bond0\n"
    );
    // Without a permanent address a port has no address of its own.
    assert!(body("70-imprint-eth1.network").starts_with("[Match]\nName=eth1\n"));
    assert_eq!(
        body("70-imprint-bond0.netdev"),
        "[NetDev]\nName=bond0\nKind=bond\nMACAddress=52:54:00:12:34:56\nMTUBytes=9000\n\n[Bond]\nMode=802.3ad\n\
         MIIMonitorSec=100ms\nLACPTransmitRate=fast\n"
    );
    assert!(body("70-imprint-bond0.network").contains("\nLinkLocalAddressing=no\nVLAN=vlan7\n"));
    assert_eq!(body("70-imprint-vlan7.netdev"), "[NetDev]\nName=vlan7\nKind=vlan\n\n[VLAN]\nId=7\n");
    assert_eq!(
        body("70-imprint-vlan7.network"),
        "[Match]\nName=vlan7\n\n[Network]\nDHCP=no\nIPv6AcceptRA=no\nLinkLocalAddressing=no\nBridge=br0\n"
    );
    assert!(body("70-imprint-br0.network").starts_with("[Match]\nName=br0\n\n[Network]\nDHCP=ipv4\n"));
    let keyfile = |name: &str| {
        let text = fs::read_to_string(root.path().join(KEYFILES).join(name)).unwrap();
        text.split_once('\n').unwrap().1.to_owned()
    };
    assert_eq!(
        keyfile("imprint-eth0.nmconnection"),
        "[connection]\nid=imprint-eth0\ntype=ethernet\nmaster=bond0\nslave-type=bond\n\n[ethernet]\n\
         mac-address=52:54:00:12:34:56\nmtu=9000\n"
    );
    assert_eq!(
        keyfile("imprint-bond0.nmconnection"),
        "[connection]\nid=imprint-bond0\ntype=bond\ninterface-name=bond0\n\n[bond]\nmode=802.3ad\nmiimon=100\nlacp_rate=fast\n\n\
         [ethernet]\ncloned-mac-address=52:54:00:12:34:56\nmtu=9000\n\n[ipv4]\nmethod=disabled\n\n[ipv6]\nmethod=disabled\n"
    );
    assert_eq!(
        keyfile("imprint-vlan7.nmconnection"),
        "[connection]\nid=imprint-vlan7\ntype=vlan\ninterface-name=vlan7\nmaster=br0\nslave-type=bridge\n\n[vlan]\nid=7\n\
         parent=bond0\nflags=1\n\n[ethernet]\n"
    );
    assert!(keyfile("imprint-br0.nmconnection").contains("type=bridge\ninterface-name=br0\n\n[bridge]\nstp=false\n"));
    // A run without them leaves none of them behind.
    write(root.path(), &Network { links: vec![fixed()], idle: vec![], standing: vec![] }).unwrap();
    let left: Vec<String> =
        fs::read_dir(&units).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(left, ["70-imprint-eth0.network"]);
}
