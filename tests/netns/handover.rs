//! Tests that the next stage takes the network over without a change: a real systemd-networkd goes on with imprint's lease,
//! and NetworkManager's own parser reads the keyfiles.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command};

use imprint::apply::network::{Network, Race};
use imprint::handover::network::write;
use imprint::payload::{DnsName, Prefix};
use imprint::plan::LinkConfig;
use nix::mount::{MsFlags, mount};

use super::dhcp::{dhcp, one, serve};
use super::enterprise::{DUID, root_with_uuid};
use super::network::{config, configure, only, root};
use super::rooms::{ALONE, alone};
use crate::{index, ip, later, veth};

/// networkd waits for udevd, unless /sys cannot be written; then it takes itself to be in a container.
pub(super) fn folders_of_the_next_stage() {
    let none: Option<&str> = None;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::MS_RDONLY, none).unwrap();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let user = nix::unistd::User::from_name("systemd-network").unwrap().expect("these tests need systemd");
    fs::create_dir_all("/run/systemd").unwrap();
    for folder in
        ["/run/systemd/netif", "/run/systemd/netif/links", "/run/systemd/netif/leases", "/run/systemd/netif/lldp"]
    {
        fs::create_dir(folder).unwrap();
        chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
}

pub(super) struct Networkd(Child);

impl Networkd {
    pub(super) fn start() -> Networkd {
        let command = Command::new("/lib/systemd/systemd-networkd").spawn();
        Networkd(command.expect("these tests need systemd"))
    }

    /// Waits until it is done with eth0.
    pub(super) fn configured(&self) -> String {
        let state = format!("/run/systemd/netif/links/{}", index("eth0"));
        let deadline = later();
        loop {
            let text = fs::read_to_string(&state).unwrap_or_default();
            if text.contains("ADMIN_STATE=configured") {
                return text;
            }
            assert!(!deadline.expired() && !text.contains("ADMIN_STATE=failed"), "{text}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Networkd {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn networkd_goes_on_with_the_lease() {
    goes_on(dhcp());
}

/// The same with the machine's DUID, which networkd is told byte for byte: it would make another one of its own.
#[test]
fn networkd_goes_on_with_the_lease_of_a_duid() {
    let lease = goes_on(LinkConfig { duid: true, ..dhcp() });
    let duid = DUID.replace(':', "");
    assert!(lease.lines().any(|line| line.starts_with("CLIENTID=ff") && line.ends_with(&duid)), "{lease}");
}

/// Returns what networkd has saved of the lease.
#[track_caller]
fn goes_on(config: LinkConfig) -> String {
    veth();
    folders_of_the_next_stage();
    // Fifty-one addresses to choose from: only the client identifier makes it the same one.
    let _server = serve("--dhcp-range=192.0.2.100,192.0.2.150,255.255.255.0,1h --dhcp-option=6,192.0.2.53");
    let root = root_with_uuid();
    let plan = only(config);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    let network = race.network().unwrap();
    race.settle().unwrap();
    write(Path::new("/"), &network).unwrap();
    let address = one(network).lease.unwrap().address;

    let changes = root.path().join("changes");
    let out = fs::File::create(&changes).unwrap();
    let mut monitor = Command::new("ip").args(["-o", "monitor", "address"]).stdout(out).spawn().unwrap();
    let networkd = Networkd::start();
    let state = networkd.configured();
    assert!(state.contains("NETWORK_FILE=/run/systemd/network/70-imprint-eth0.network"), "{state}");
    assert!(state.contains("DNS=192.0.2.53"), "{state}");
    let lease = fs::read_to_string(format!("/run/systemd/netif/leases/{}", index("eth0"))).unwrap();
    assert!(lease.contains(&format!("ADDRESS={}\n", address.address())), "{address} became {lease}");
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    let changes = fs::read_to_string(&changes).unwrap();
    assert!(!changes.contains(&format!("Deleted {}", address.address())), "{changes}");
    assert!(ip("-o -4 addr show dev eth0").contains(&format!("inet {address}")));
    // One default route, which networkd manages, and not beside it one that nobody does.
    let routes = ip("-4 route show default");
    assert!(routes.lines().count() == 1 && routes.contains("proto dhcp"), "{routes}");
    lease
}

#[test]
fn networkd_keeps_both_routes_of_a_lease_for_one_address() {
    veth();
    folders_of_the_next_stage();
    let _server = serve(ALONE);
    let (root, plan) = (root(&[]), only(dhcp()));
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    let network = race.network().unwrap();
    race.settle().unwrap();
    write(Path::new("/"), &network).unwrap();
    let networkd = Networkd::start();
    networkd.configured();
    let routes = ip("-4 route");
    let count = |start: &str| routes.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((count("default via 172.31.1.1 dev eth0"), count("172.31.1.1 dev eth0")), (1, 1), "{routes}");
    assert!(routes.lines().all(|line| line.contains("metric 1024")), "{routes}");
}

#[test]
fn networkd_keeps_a_static_address_alone_and_the_way_to_its_gateway() {
    veth();
    ip("link set p0 up");
    folders_of_the_next_stage();
    let (root, plan) = (root(&[]), only(alone()));
    let network = configure(&plan, root.path(), later()).unwrap();
    write(Path::new("/"), &network).unwrap();
    let networkd = Networkd::start();
    networkd.configured();
    let routes = ip("-4 route");
    assert!(routes.contains("default via 172.31.1.1 dev eth0 proto static"), "{routes}");
    assert!(routes.lines().any(|line| line.starts_with("172.31.1.1 dev eth0")), "{routes}");
}

#[test]
fn networkd_keeps_what_is_static() {
    veth();
    ip("link set p0 up");
    folders_of_the_next_stage();
    let root = root(&[]);
    let plan = only(config());
    let network = configure(&plan, root.path(), later()).unwrap();
    write(Path::new("/"), &network).unwrap();
    let networkd = Networkd::start();
    let state = networkd.configured();
    assert!(state.contains("DOMAINS=example.org"), "{state}");
    let link = ip("-o addr show dev eth0");
    assert!(link.contains("192.0.2.10/24") && link.contains("2001:db8::10/64"), "{link}");
    let routes = ip("route");
    assert!(routes.contains("default via 192.0.2.1 dev eth0 proto static metric 100"), "{routes}");
    assert!(routes.contains("198.51.100.0/24 dev eth0"), "{routes}");
    assert!(ip("link show dev eth0").contains("mtu 1400"));
}

/// What NetworkManager reads out of a keyfile, as it would write it.
const READ: &str = r#"
import sys, gi
gi.require_version("NM", "1.0")
from gi.repository import GLib, NM
for path in sys.argv[1:]:
    file = GLib.KeyFile()
    file.load_from_file(path, GLib.KeyFileFlags.NONE)
    def warn(file, connection, kind, data, user):
        print("warning:", data.get_message() if hasattr(data, "get_message") else data)
        return True
    connection = NM.keyfile_read(file, "/run", NM.KeyfileHandlerFlags.NONE, warn, None)
    connection.normalize(None)
    connection.verify()
    four, six = connection.get_setting_ip4_config(), connection.get_setting_ip6_config()
    for ip in (four, six):
        print(ip.get_method(), [ip.get_address(i).get_address() for i in range(ip.get_num_addresses())],
              [(r.get_dest(), r.get_prefix(), r.get_next_hop(), r.get_metric()) for r in
               (ip.get_route(i) for i in range(ip.get_num_routes()))],
              [ip.get_dns(i) for i in range(ip.get_num_dns())],
              [ip.get_dns_search(i) for i in range(ip.get_num_dns_searches())])
    wired = connection.get_setting_wired()
    print(connection.get_id(), wired.get_mac_address(), wired.get_mtu(), four.get_dhcp_client_id())
"#;

#[test]
fn network_manager_reads_the_keyfiles() {
    veth();
    ip("link set p0 up");
    let root = root(&[]);
    let plan = only(config());
    let mut network: Network = configure(&plan, root.path(), later()).unwrap();
    let mut second = network.links[0].clone();
    second.name = imprint::payload::InterfaceName::try_from("eth1").unwrap();
    let search = vec![DnsName::try_from("example.net").unwrap()];
    second.config = LinkConfig {
        dhcp4: true,
        slaac: true,
        addresses: vec![Prefix::parse("198.51.100.7/24").unwrap()],
        search,
        ..LinkConfig::default()
    };
    let mac = network.links[0].mac.clone().unwrap().to_string().to_uppercase();
    network.idle.push(second);
    write(root.path(), &network).unwrap();
    let path = |name: &str| root.path().join("run/NetworkManager/system-connections").join(name);
    let output = Command::new("/usr/bin/python3")
        .args(["-c", READ])
        .args([path("imprint-eth0.nmconnection"), path("imprint-eth1.nmconnection")])
        .output()
        .unwrap();
    let (said, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "this test needs python3-gi and gir1.2-nm-1.0: {errors}");
    let none = "4294967295";
    let metric = if said.contains(none) { none } else { "-1" };
    let want = format!(
        "manual ['192.0.2.10'] [('0.0.0.0', 0, '192.0.2.1', 100), ('198.51.100.0', 24, None, {metric})] \
         ['192.0.2.53'] ['example.org']\n\
         manual ['2001:db8::10'] [('2001:db8:1::', 48, '2001:db8::1', {metric})] [] []\n\
         imprint-eth0 {mac} 1400 None\n\
         auto ['198.51.100.7'] [] [] ['example.net']\n\
         auto [] [] [] []\n\
         imprint-eth1 {mac} 0 mac\n"
    );
    assert_eq!(said, want, "{errors}");
}
