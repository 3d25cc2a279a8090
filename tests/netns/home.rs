//! The programs themselves: `imprint run` on a machine without a payload, and the doors of `imprint-host serve` behind a bridge. The
//! node's link is in a network namespace of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use imprint::key_code::KeyCode;
use imprint::line::Side;
use imprint::line::ether::{Capsule, ETHERTYPE, Mac, frames};
use imprint::line::frame::{Frame, Packet};
use imprint::line::{Hello, LineKey};
use imprint::status::Status;
use imprint::sys;
use imprint_tests::caller::seeded;
use imprint_tests::far_host::{all_on, mac};
use imprint_tests::patience::PATIENCE;
use imprint_tests::programs;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{LinkAddr, recvfrom};

use crate::{index, ip, later, namespaces};

/// The node's link eth0 (in its own namespace) behind the port p0 of the bridge br0; the spy's link s1 behind the port s0.
pub(super) fn bridge(more: &str) {
    namespaces();
    for words in [
        &format!("link add br0 type bridge{more}"),
        "link add eth0 type veth peer name p0",
        "link add s0 type veth peer name s1",
        "link set p0 master br0",
        "link set s0 master br0",
        "link set lo up",
        "addr add 192.0.2.1/24 dev br0",
        "link set br0 up",
        "link set p0 up",
        "link set s0 up",
        "link set s1 up",
    ] {
        ip(words);
    }
}

/// A site with its server.
pub(super) struct Site {
    work: tempfile::TempDir,
    pub(super) signer: String,
    pub(super) server: Option<Child>,
}

impl Site {
    fn new(record: &str) -> Site {
        Site::at("https://est.example.org:8443/.well-known/est", record)
    }

    pub(super) fn at(url: &str, record: &str) -> Site {
        let mut site = Site { work: tempfile::tempdir().unwrap(), signer: String::new(), server: None };
        site.host(&["init", "--url", url]);
        site.signer = site.host(&["signer"]).lines().find(|line| line.starts_with("signer ")).unwrap().to_owned();
        let file = site.work.path().join("node1.toml");
        std::fs::write(&file, format!("name = \"node1\"\nsubject = [\"CN=node1.example.org\"]\n{record}\n")).unwrap();
        site.host(&["node", "add", file.to_str().unwrap()]);
        site
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(programs::host());
        command.arg("--dir").arg(self.work.path().join("state"));
        command
    }

    pub(super) fn host(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts the server with this door. Where it answers: `ether:p0`, `tcp:192.0.2.1:40000`.
    fn serve(&mut self, door: &str) -> String {
        let mut serve = self.command();
        serve.args(["serve", "--listen", "192.0.2.1:0", "--door", door]);
        let mut server = serve.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
        let opened = said.by_ref().find_map(|line| line.split_once("door ").map(|(_, door)| door.trim().to_owned()));
        self.server = Some(server);
        // The log has to be read, or the server would wait.
        std::thread::spawn(move || said.for_each(drop));
        opened.expect("serve ended")
    }

    /// The line of a site pin that names its CA.
    fn ca(&self) -> String {
        let shown = self.host(&["show"]);
        shown.lines().find_map(|line| line.strip_prefix("site pin ")).unwrap().trim().to_owned()
    }

    /// From now on payloads are signed with the key of that site.
    fn signs_as(&mut self, other: &Site) {
        std::fs::copy(other.work.path().join("state/signer.key"), self.work.path().join("state/signer.key")).unwrap();
        self.signer = other.signer.clone();
    }

    fn certificates(&self) -> usize {
        self.host(&["log"]).lines().filter(|line| line.contains(" enrolled ")).count()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A machine that boots: the agent, whose link eth0 is its own.
pub(super) struct Machine {
    root: tempfile::TempDir,
    pub(super) agent: Child,
    console: Receiver<String>,
    said: Vec<String>,
}

impl Machine {
    pub(super) fn boot(cmdline: &str, pin: &str) -> Machine {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let timeout = if cmdline.contains("imprint.timeout=") {
            String::new()
        } else {
            format!(" imprint.timeout={}", PATIENCE.as_secs())
        };
        write("proc/cmdline", &format!("{cmdline}{timeout}\n"));
        // The node's own network: what it does there must be seen in /proc/sys.
        std::os::unix::fs::symlink("/proc/sys", root.path().join("proc/sys")).unwrap();
        write("imprint/site", &format!("{pin}\n"));
        ["run/.keep", "dev/.keep", "etc/initrd-release"].iter().for_each(|path| write(path, ""));
        for device in ["random", "urandom"] {
            std::os::unix::fs::symlink(format!("/dev/{device}"), root.path().join("dev").join(device)).unwrap();
        }
        write("sys/class/dmi/id/product_serial", "SN-1\n");
        let device = root.path().join("sys/class/net/eth0/device");
        std::fs::create_dir_all(&device).unwrap();
        std::os::unix::fs::symlink("../../../bus/pci/drivers/virtio_net", device.join("driver")).unwrap();
        // Whatever goes wrong, it sets no clock of this machine, though it believes so.
        let script = "read go; ip link set lo up; exec 2>&1; setpriv --bounding-set=-sys_time -- python3 \"$0\" \"$1\" run; code=$?; \
             for what in addr route; do ip -o -4 $what show dev eth0 | sed 's/^/after: /'; done; exit $code";
        let mut agent = Command::new("unshare")
            .args(["--net", "--mount", "--uts", "sh", "-c", script])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/clock_stays.py"))
            .arg(programs::agent())
            .env("IMPRINT_ROOT", root.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need util-linux");
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{}/ns/net", agent.id())).unwrap() == own {
            std::thread::yield_now();
        }
        ip(&format!("link set eth0 netns {}", agent.id()));
        agent.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let (tell, console) = channel();
        let lines = BufReader::new(agent.stdout.take().unwrap()).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Machine { root, agent, console, said: Vec::new() }
    }

    /// Waits until a line with these words has come on the console.
    pub(super) fn says(&mut self, words: &str) -> String {
        loop {
            match self.console.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(_) => panic!("it did not say {words:?}:\n{}", self.said.join("\n")),
            }
        }
    }

    /// The line with these words that has come on the console, or that comes.
    fn has_said(&mut self, words: &str) -> String {
        let said = self.said.iter().find(|line| line.contains(words)).cloned();
        said.unwrap_or_else(|| self.says(words))
    }

    /// A socket on this link of the machine, for the frames that come in there.
    fn listen(&self, link: &'static str) -> OwnedFd {
        let net = std::fs::File::open(format!("/proc/{}/ns/net", self.agent.id())).unwrap();
        let opened = std::thread::spawn(move || {
            nix::sched::setns(net, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            sys::packet_socket(index(link), ETHERTYPE).unwrap()
        });
        opened.join().unwrap()
    }

    /// The code of its line key, as a person reads it from the console.
    fn code(&mut self) -> String {
        let line = self.says("line key ");
        line.split("line key ").nth(1).unwrap().split([' ', ':', ';', ',']).next().unwrap().to_owned()
    }

    /// Exit code, what it said, and its status.
    pub(super) fn ended(mut self) -> (Option<i32>, String, Status, PathBuf, tempfile::TempDir) {
        while let Ok(line) = self.console.recv_timeout(PATIENCE) {
            self.said.push(line);
        }
        let code = self.agent.wait().unwrap().code();
        let run = self.root.path().join("run/imprint");
        let status = std::fs::read(run.join("status.json")).unwrap_or_default();
        let said = self.said.join("\n");
        let status = serde_json::from_slice(&status).unwrap_or_else(|error| panic!("{error}:\n{said}"));
        (code, said, status, run, self.root)
    }
}

/// It has what a node has to have.
fn is_certified(
    (code, said, status, run, _root): (Option<i32>, String, Status, PathBuf, tempfile::TempDir),
    level: &str,
) {
    assert_eq!(code, Some(0), "{said}");
    let chain = std::fs::read_to_string(run.join("chain.pem")).unwrap_or_default();
    // The key is on a file system of the agent's own namespace, which has ended.
    assert!(chain.contains("BEGIN CERTIFICATE") && run.join("ready").exists(), "{said}");
    assert!(status.key_code.is_some() && status.signer.is_some(), "{said}");
    assert_eq!(status.admitted.as_deref(), Some(level), "{said}");
}

/// Spies hear an ordinary multicast frame of the same kind, and nothing else.
fn heard_nothing(spy: &OwnedFd) {
    assert_eq!(all_on(spy).len(), 0, "frames of the node, or of the door");
    let br0 = sys::packet_socket(index("br0"), ETHERTYPE).unwrap();
    sys::send_packet(&br0, index("br0"), ETHERTYPE, &[1, 0, 0x5e, 0, 0, 0xfb], &[b'.'; 46]).unwrap();
    assert!(sys::poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(spy), PollFlags::POLLIN)], later()).unwrap());
    assert_eq!(all_on(spy).len(), 1);
}

/// The port is a fact: nobody has to decide. A spy behind another port of the bridge hears nothing of it.
#[test]
fn ethernet_behind_a_port_of_a_bridge() {
    bridge("");
    let mut site = Site::new("bind = { tap = \"p0\", serial = \"SN-1\" }\nadmit = \"wire\"");
    assert_eq!(site.serve("ether:p0"), "ether:p0");
    let spy = sys::packet_socket(index("s1"), ETHERTYPE).unwrap();
    let machine = Machine::boot("imprint.source=ether:eth0", &site.signer);
    is_certified(machine.ended(), "wire");
    heard_nothing(&spy);
    assert_eq!(site.certificates(), 1);
}

/// Accident: a switch sends everything back out of the port that it came in by, so the node hears its own frames. Premise: they have
/// come. The node neither answers them nor takes its own address for a host's.
#[test]
fn ethernet_behind_a_switch_that_echoes() {
    bridge(" group_fwd_mask 0x4000");
    let hairpin = Command::new("bridge").args(["link", "set", "dev", "p0", "hairpin", "on"]).status().unwrap();
    assert!(hairpin.success());
    let own = mac("eth0");
    let mut site = Site::new("bind = { serial = \"SN-1\" }\nadmit = \"approve\"");
    site.serve("ether:br0");
    let mut machine = Machine::boot("imprint.source=ether", &site.signer);
    let code = machine.code();
    let spy = machine.listen("eth0");
    machine.says("an administrator has to admit");
    site.host(&["admit", &code]);
    let ended = machine.ended();
    let [a, b, c, d, e, f] = own;
    let own_name = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    assert!(!ended.1.contains(&own_name), "it has taken itself for a host:\n{}", ended.1);
    is_certified(ended, "approved");
    let mut echoes = 0;
    while let Some((from, bytes)) = received(&spy) {
        let capsule = Capsule::decode(&bytes).unwrap();
        assert_eq!(from == own, capsule.from == Side::Node);
        if from == own {
            echoes += 1;
            assert_ne!(capsule.to, Some(own), "it has answered an echo");
        }
    }
    assert!(echoes > 0, "the switch has sent nothing back");
}

/// The next frame on a socket, with the address of its sender.
fn received(socket: &OwnedFd) -> Option<(Mac, Vec<u8>)> {
    let mut buffer = [0; 2048];
    loop {
        return match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((count, from)) => Some((from?.addr()?, buffer[..count].to_vec())),
            // The node has given the link back, which was down.
            Err(Errno::ENETDOWN) => continue,
            Err(Errno::EAGAIN) => None,
            Err(error) => panic!("{error}"),
        };
    }
}

/// A door of the site at this address; the administrator compares the code.
#[test]
fn tcp_to_an_address() {
    bridge("");
    let mut site = Site::new("bind = { serial = \"SN-1\" }");
    let door = site.serve("tcp:192.0.2.1:0");
    let cmdline = format!("ip=192.0.2.2::192.0.2.1:255.255.255.0::eth0:none imprint.source={door}");
    let mut machine = Machine::boot(&cmdline, &site.signer);
    let line = machine.says("an administrator has to admit");
    // The code on the node's own console is that of its own key.
    let code = line.rsplit("line key ").next().unwrap().split([' ', ':', ';', ',']).next().unwrap().to_owned();
    site.host(&["admit", &code]);
    is_certified(machine.ended(), "approved");
    assert_eq!(site.certificates(), 1);
}

/// Passes on what a node and this door say to each other, with another line key in HELLO. Where it listens.
fn swaps_keys(door: &str, key: [u8; 32]) -> String {
    let door = door.strip_prefix("tcp:").unwrap().to_owned();
    let listener = TcpListener::bind("192.0.2.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for node in listener.incoming() {
            let (mut node, mut door) = (node.unwrap(), TcpStream::connect(&door).unwrap());
            let (mut to_node, mut from_door) = (node.try_clone().unwrap(), door.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from_door, &mut to_node));
            std::thread::spawn(move || {
                let (mut buffer, mut said) = ([0; 4096], Vec::new());
                while let Ok(count @ 1..) = node.read(&mut buffer) {
                    said.extend(&buffer[..count]);
                    let Some(end) = said.iter().rposition(|byte| *byte == b'\n') else { continue };
                    let whole: Vec<u8> = said.drain(..=end).collect();
                    let mut changed = Vec::new();
                    for text in frames(&whole) {
                        let digits = text.strip_prefix(b"#").unwrap_or(text).trim_ascii_end();
                        match Packet::decode(digits, None) {
                            Some(Packet { from, session, frame: Frame::Hello(hello) }) => {
                                Packet { from, session, frame: Frame::Hello(Hello { key, ..hello }) }
                                    .encode(&mut changed);
                            }
                            _ => changed.extend(text),
                        }
                    }
                    if door.write_all(&changed).is_err() {
                        break;
                    }
                }
            });
        }
    });
    format!("tcp:{at}")
}

/// Attack: somebody on the way puts a line key of his own into HELLO, and the host has that one wait. Whoever reads the console and
/// does what it says must not admit him: the only code there is the node's own, which the host does not know.
#[test]
fn the_console_shows_no_code_of_somebody_who_swaps_keys_on_the_way() {
    bridge("");
    let mut site = Site::new("bind = { serial = \"SN-1\" }");
    let door = site.serve("tcp:192.0.2.1:0");
    let key = LineKey::generate(&seeded()).unwrap().public();
    let his = KeyCode::of(&key).to_string();
    let at = swaps_keys(&door, key);
    let cmdline = format!("ip=192.0.2.2::192.0.2.1:255.255.255.0::eth0:none imprint.source={at}");
    let mut machine = Machine::boot(&cmdline, &site.signer);
    let line = machine.says("an administrator has to admit");
    let (before, rest) = line.split_once("run imprint-host admit ").unwrap();
    let own = rest.split([' ', ';']).next().unwrap();
    assert!(before.ends_with(&format!("where imprint-host nodes shows line key {own}, ")), "{line}");
    // The premise: the host has heard his key, and an administrator would be shown it.
    let nodes = site.host(&["nodes"]);
    assert!(nodes.contains(&his) && !nodes.contains(own), "{nodes}");
    let said = machine.said.join("\n");
    assert!(!said.contains(&his), "{said}");
    // What the console says is to be entered lets nobody in.
    let output = site.command().args(["admit", own]).output().unwrap();
    assert!(!output.status.success());
    machine.agent.kill().unwrap();
    machine.agent.wait().unwrap();
}

/// dnsmasq on the bridge: a network, and the doors of the site in this order.
fn dnsmasq(doors: &[u16], work: &Path) -> Child {
    let mut dnsmasq = Command::new("dnsmasq");
    dnsmasq.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--user=root",
        "--leasefile-ro",
        "--no-ping",
        "--dhcp-authoritative",
        "--no-resolv",
        "--no-hosts",
        "--interface=br0",
        "--bind-interfaces",
        "--local=/lab.example/",
        "--domain=lab.example",
        "--dhcp-range=192.0.2.100,192.0.2.200,255.255.255.0,1h",
        "--host-record=door.lab.example,192.0.2.1",
        "--log-dhcp",
    ]);
    dnsmasq.arg(format!("--log-facility={}", work.join("dnsmasq.log").display()));
    dnsmasq.arg(format!("--pid-file={}", work.join("dnsmasq.pid").display()));
    for (priority, port) in (1..).zip(doors) {
        dnsmasq.arg(format!("--srv-host=_imprint._tcp.lab.example,door.lab.example,{port},{priority},5"));
    }
    dnsmasq.stderr(Stdio::null()).spawn().expect("dnsmasq: apt-get install dnsmasq-base")
}

/// Ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn port(door: &str) -> u16 {
    door.rsplit(':').next().unwrap().parse().unwrap()
}

/// A port where a web server, or EST, or nobody answers.
fn wrong_doors() -> [u16; 3] {
    let http = TcpListener::bind("192.0.2.1:0").unwrap();
    let tls = TcpListener::bind("192.0.2.1:0").unwrap();
    let nobody = TcpListener::bind("192.0.2.1:0").unwrap();
    let ports = [&http, &tls, &nobody].map(|listener| listener.local_addr().unwrap().port());
    drop(nobody);
    for (listener, said) in
        [(http, &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]), (tls, &b"\x15\x03\x03\x00\x02\x02\x32"[..])]
    {
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let _ = connection.and_then(|mut connection| connection.write_all(said));
            }
        });
    }
    ports
}

/// The whole: the machine gets a network, finds the doors by SRV, passes those of another site and what is no door, and gets its
/// certificate over its own.
#[test]
fn tcp_by_srv_past_everything_that_is_no_door_of_the_site() {
    bridge("");
    let mut other = Site::new("bind = { serial = \"SN-1\" }\nadmit = \"known\"");
    let mut site = Site::new("bind = { serial = \"SN-1\" }");
    let (other_door, door) = (port(&other.serve("tcp:192.0.2.1:0")), port(&site.serve("tcp:192.0.2.1:0")));
    let [http, tls, nobody] = wrong_doors();
    let _dnsmasq = Ends(dnsmasq(&[nobody, http, tls, other_door, door], site.work.path()));
    let mut machine = Machine::boot("imprint.source=door", &site.signer);
    let line = machine.says("an administrator has to admit");
    let code = line.rsplit("line key ").next().unwrap().split([' ', ':', ';', ',']).next().unwrap().to_owned();
    // The other site's payload has come, and was not used.
    if !machine.said.iter().any(|line| line.contains("its payload is not used")) {
        machine.says("its payload is not used");
    }
    site.host(&["admit", &code]);
    let ended = machine.ended();
    for words in ["it speaks HTTP", "it speaks TLS", "nobody listens there"] {
        assert!(ended.1.contains(words), "{words}:\n{}", ended.1);
    }
    is_certified(ended, "approved");
    // Nothing that the other site has given was used.
    assert_eq!((other.certificates(), site.certificates()), (0, 1));
}

/// The payload's network takes the place of the one that was brought up to find the door: another one on the same link, one with the
/// same address, and DHCP again. The certificate comes over the line all the same, and nothing is left of the network before.
#[test]
fn the_network_of_the_payload_takes_the_place_of_the_one_before() {
    let fixed = "ip=192.0.2.2::192.0.2.1:255.255.255.0::eth0:none nameserver=192.0.2.53";
    let rows = [
        ("another", "", "addresses = [\"198.51.100.9/24\"]\nroutes = [{ to = \"default\", via = \"198.51.100.1\" }]"),
        ("the same", fixed, "addresses = [\"192.0.2.2/24\"]"),
        ("DHCP again", "", "dhcp4 = true"),
    ];
    for (what, words, network) in rows {
        bridge("");
        ip("addr add 198.51.100.1/24 dev br0");
        let record = format!(
            "bind = {{ serial = \"SN-1\" }}\nadmit = \"known\"\n[[network]]\nmatch = {{ name = \"eth0\" }}\n{network}"
        );
        let mut site = Site::new(&record);
        let door = site.serve("tcp:192.0.2.1:0");
        let _dnsmasq = Ends(dnsmasq(&[port(&door)], site.work.path()));
        let source = if words.is_empty() { "door" } else { &door };
        // Less than the 75 s of silence after which a node gives a connection up that leads nowhere.
        let machine = Machine::boot(&format!("{words} imprint.source={source} imprint.timeout=60"), &site.signer);
        let ended = machine.ended();
        let (said, root) = (ended.1.clone(), ended.4.path());
        let after: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("after: ")).collect();
        let addresses: Vec<&str> = after.iter().filter_map(|line| line.split("inet ").nth(1)).collect();
        let routes: Vec<&str> = after.iter().filter(|line| !line.contains("inet ")).copied().collect();
        let resolv = std::fs::read_to_string(root.join("etc/resolv.conf")).unwrap_or_default();
        let leases = std::fs::read_to_string(site.work.path().join("dnsmasq.log")).unwrap_or_default();
        let acks: Vec<&str> = leases.lines().filter_map(|line| line.split("DHCPACK(br0) ").nth(1)).collect();
        let [address] = addresses[..] else { panic!("{what}: {after:?}\n{said}") };
        match what {
            "another" => {
                assert!(address.starts_with("198.51.100.9/24 ") && address.contains("valid_lft forever"), "{after:?}");
                assert!(routes.iter().any(|route| route.starts_with("default via 198.51.100.1")), "{after:?}");
                assert!(!routes.iter().any(|route| route.contains("192.0.2.")), "{after:?}");
                assert_eq!(acks.len(), 1, "{leases}");
            }
            "the same" => {
                assert!(address.starts_with("192.0.2.2/24 ") && address.contains("valid_lft forever"), "{after:?}");
                // The gateway was that of the network before.
                assert!(!routes.iter().any(|route| route.starts_with("default")), "{after:?}");
                assert_eq!(acks.len(), 0, "{leases}");
            }
            _ => {
                // It is asked for anew, and not given up before: the server gives the same machine the same address.
                assert_eq!(acks.len(), 2, "{leases}");
                assert_eq!(acks[0], acks[1]);
                assert!(address.starts_with(acks[0].split(' ').next().unwrap()), "{after:?}");
                assert!(!address.contains("valid_lft forever"), "{after:?}");
                assert!(!leases.contains("DHCPRELEASE"), "{leases}");
            }
        }
        assert_eq!(resolv.contains("nameserver 192.0.2.1\n"), what == "DHCP again", "{what}: {resolv}");
        assert!(!resolv.contains("192.0.2.53"), "{what}: {resolv}");
        is_certified(ended, "known");
        assert_eq!(site.certificates(), 1);
    }
}

/// No door of the site: the boot stops, and the last line says what was tried and what to do.
#[test]
fn no_door_of_the_site_at_all() {
    bridge("");
    let mut other = Site::new("bind = { serial = \"SN-1\" }\nadmit = \"known\"");
    let other_door = port(&other.serve("tcp:192.0.2.1:0"));
    let [http, tls, nobody] = wrong_doors();
    let pin = Site::new("").signer.clone();
    let _dnsmasq = Ends(dnsmasq(&[nobody, http, tls, other_door], other.work.path()));
    let machine = Machine::boot("imprint.source=door imprint.timeout=30", &pin);
    let (code, said, status, run, _root) = machine.ended();
    assert_eq!(code, Some(11), "{said}");
    let why = status.error.unwrap().message;
    for words in [
        format!("tcp:192.0.2.1:{nobody}: nobody listens there"),
        format!("tcp:192.0.2.1:{http}: it speaks HTTP"),
        format!("tcp:192.0.2.1:{tls}: it speaks TLS"),
        format!("tcp:192.0.2.1:{other_door}: its payload is not used"),
    ] {
        assert!(why.contains(&words), "{words}\n{why}\n{said}");
    }
    assert!(!run.join("private/key.pem").exists());
    assert_eq!(other.certificates(), 0);
}

/// Two sites on one network with one signer, each with a door and a CA of its own. The image names the CA beside the signer: the other
/// site's door answers first, is told about once, and the search goes on.
#[test]
fn a_door_of_another_site_with_the_same_signer() {
    bridge("");
    let mut site = Site::new("bind = { serial = \"SN-1\" }");
    let mut other = Site::new("bind = { serial = \"SN-1\" }\nadmit = \"known\"");
    other.signs_as(&site);
    let (door, other_door) = (site.serve("tcp:192.0.2.1:0"), other.serve("tcp:192.0.2.1:0"));
    let network = "ip=192.0.2.2::192.0.2.1:255.255.255.0::eth0:none";
    let cmdline = format!("{network} imprint.source={other_door} imprint.source={door}");
    let mut machine = Machine::boot(&cmdline, &format!("{}\n{}", site.signer, site.ca()));
    let code = machine.code();
    machine.says("an administrator has to admit");
    let not_used = machine.has_said("its payload is not used");
    let want = format!("(sha256 {}) is not among those of /imprint/site in this image", other.ca());
    assert!(not_used.contains(&format!("{other_door}: ")) && not_used.contains(&want), "{not_used}");
    site.host(&["admit", &code]);
    let ended = machine.ended();
    assert_eq!(ended.1.matches("its payload is not used").count(), 1, "told once:\n{}", ended.1);
    is_certified(ended, "approved");
    assert_eq!((site.certificates(), other.certificates()), (1, 0));
}

/// The same where the image names the signer alone: the word of the signer is enough, and the CA in the payload counts.
#[test]
fn a_signer_without_a_ca_stands_for_any_site_of_the_signer() {
    bridge("");
    let site = Site::new("");
    let mut other = Site::new("bind = { serial = \"SN-1\" }\nadmit = \"known\"");
    other.signs_as(&site);
    let door = other.serve("tcp:192.0.2.1:0");
    let cmdline = format!("ip=192.0.2.2::192.0.2.1:255.255.255.0::eth0:none imprint.source={door}");
    is_certified(Machine::boot(&cmdline, &site.signer).ended(), "known");
    assert_eq!(other.certificates(), 1);
}
