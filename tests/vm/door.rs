//! Tests of machines without a payload that call at a door of `imprint-host serve`: over TCP, over vsock, over Ethernet frames at a tap
//! device, and over a Unix socket of the hypervisor. Each gets its certificate over the line that its payload came on.

use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64ct::{Base64, Encoding};
use imprint::line::ether::ETHERTYPE;
use imprint::sys;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{MsgFlags, recv};

use crate::*;

/// A state directory with one node, and its server with a door.
pub(super) struct Door {
    work: tempfile::TempDir,
    signer: String,
    server: Option<Server>,
}

impl Door {
    pub(super) fn new(record: &str) -> Door {
        let work = tempfile::tempdir().unwrap();
        let url = EstUrl::try_from("https://est.example.org:8443/.well-known/est").unwrap();
        let mut state = State::init(&work.path().join("state"), &[url], Timestamp::system()).unwrap();
        let signer = state.ca.signing_key().unwrap().expect("a new directory has a signer").signer().to_string();
        let record = format!(
            "name = \"node1\"\nsubject = [\"CN=node1.example.org\"]\nsans = [\"dns:node1.example.org\"]\n\
             hostname = \"node1\"\n{record}\n"
        );
        state.add_nodes(&[("node1.toml".to_owned(), record)], false, Timestamp::system()).unwrap();
        Door { work, signer, server: None }
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.work.path().join(name).display().to_string()
    }

    pub(super) fn state(&self) -> State {
        State::open(&self.work.path().join("state")).unwrap()
    }

    /// Starts the server. Where its door is.
    pub(super) fn serve(&mut self, door: &str) -> String {
        let server = Server::start(Config {
            dir: self.work.path().join("state"),
            listen: "127.0.0.1:0".parse().unwrap(),
            metrics: None,
            doors: vec![door.parse().unwrap()],
            layout: Layout::Wrapped,
            tell: Default::default(),
            clock: Arc::new(Timestamp::system),
        });
        let server = self.server.insert(server.unwrap());
        server.doors().first().unwrap().clone()
    }

    /// A machine whose image names the signer. A bare image is up first, and no door depends on the builder.
    fn machine(&self, source: &str) -> Machine {
        self.machine_of(Kernel::Stable, source)
    }

    pub(super) fn machine_of(&self, kernel: Kernel, source: &str) -> Machine {
        let pin = format!("{}\n", self.signer);
        machine(kernel)
            .init(Init::Bare)
            .append(&format!("imprint.source={source}"))
            .initramfs_file("imprint/site", pin.as_bytes())
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown();
        }
    }
}

/// It came up with a payload that was signed for it, and was let in at this level. Its own clock says 2019.
#[track_caller]
pub(super) fn let_in(report: &Report, level: &str, origin: &str) {
    came_up(report);
    let status = report.status();
    assert_eq!(status.admitted.as_deref(), Some(level), "{}", report.part("status"));
    assert!(status.signer.is_some());
    let told = status.origin.unwrap_or_default();
    assert!(told.starts_with(origin), "{told}");
}

/// The image has an admission key; DHCP on whatever link there is.
#[test]
fn over_tcp_with_the_key_of_the_image() {
    let der = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
    let public = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap();
    let public = Base64::encode_string(public.public_key().as_ref());
    let record = format!("bind = {{ serial = \"VM-0001\" }}\nadmit = \"key\"\nadmission_key = \"{public}\"");
    let mut door = Door::new(&record);
    let at = door.serve("tcp:127.0.0.1:0");
    let port = at.rsplit(':').next().unwrap();
    let key = imprint::pem::encode("PRIVATE KEY", der.as_ref());
    let machine = door.machine(&format!("door imprint.server=10.0.2.2:{port}"));
    let report = machine.initramfs_file("imprint/key", key.as_bytes()).boot();
    let_in(&report, "image-key", "line tcp:10.0.2.2:");
}

pub(super) fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().expect("this test needs iproute2");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The tap device is a fact of the hypervisor, and no other port of the bridge hears a frame of it.
#[test]
fn over_ethernet_frames_at_a_tap_device() {
    unshare(CloneFlags::CLONE_NEWNET).expect("this test makes a network namespace: run it as root");
    for words in [
        "link add br0 type bridge",
        "tuntap add tap0 mode tap",
        "link add s0 type veth peer name s1",
        "link set tap0 master br0",
        "link set s0 master br0",
        "link set lo up",
        "link set br0 up",
        "link set tap0 up",
        "link set s0 up",
        "link set s1 up",
    ] {
        ip(words);
    }
    let spy = sys::packet_socket(nix::net::if_::if_nametoindex("s1").unwrap(), ETHERTYPE).unwrap();
    let mut door = Door::new("bind = { tap = \"tap0\", serial = \"VM-0001\" }\nadmit = \"wire\"");
    door.serve("ether:tap0");
    let tap =
        ["-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=net,addr=8"];
    let report = door.machine("ether").without_network().qemu(&tap).boot();
    let_in(&report, "wire", "line ether:");
    let mut frame = [0; 2048];
    let heard = recv(std::os::fd::AsRawFd::as_raw_fd(&spy.as_fd()), &mut frame, MsgFlags::MSG_DONTWAIT);
    assert_eq!(heard, Err(nix::errno::Errno::EAGAIN), "a frame has passed the bridge");
}

/// A port of the machine whose socket the hypervisor has named after it.
#[test]
fn over_a_unix_socket_of_the_hypervisor() {
    let mut door = Door::new("bind = { vm = \"web1\", serial = \"VM-0001\" }\nadmit = \"wire\"");
    std::fs::create_dir(door.path("vms")).unwrap();
    door.serve(&format!("unix:{}/*.sock", door.path("vms")));
    let chardev = format!("socket,id=imprint,path={}/web1.sock,server=on,wait=off", door.path("vms"));
    let port = ["-chardev", &chardev, "-device", "virtserialport,chardev=imprint,name=imprint.0"];
    let report = door.machine("virtio").without_network().qemu(&port).boot();
    let_in(&report, "wire", "line virtio");
}

/// Ends with the test.
pub(super) struct Ends(pub(super) Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// vsock without the host kernel's help: a program of its own has the device, and connects to a socket beside its own.
#[test]
fn over_vsock() {
    let mut door = Door::new("bind = { vm = \"web1\", serial = \"VM-0001\" }\nadmit = \"wire\"");
    std::fs::create_dir(door.path("vms")).unwrap();
    let program = imprint_tests::programs::cache().join("vhost-device-vsock/bin/vhost-device-vsock");
    let device = Command::new(&program)
        .args(["--guest-cid", "3", "--socket", &door.path("vhost"), "--uds-path", &door.path("vms/web1.vsock")])
        .stdin(Stdio::null())
        .spawn();
    let missing = |error| panic!("{} ({error}): run scripts/install-needs vsock", program.display());
    let _device = Ends(device.unwrap_or_else(missing));
    door.serve(&format!("unix:{}/*.vsock,vsock", door.path("vms")));
    let start = std::time::Instant::now();
    // The device gives no notice.
    while !Path::new(&door.path("vhost")).exists() {
        assert!(start.elapsed() < PATIENCE, "vhost-device-vsock made no socket");
        std::thread::sleep(Duration::from_millis(5));
    }
    let chardev = format!("socket,id=vsock,path={}", door.path("vhost"));
    let vsock = [
        "-object",
        "memory-backend-memfd,id=mem,size=512M,share=on",
        "-machine",
        "memory-backend=mem",
        "-chardev",
        &chardev,
        "-device",
        "vhost-user-vsock-pci,chardev=vsock",
    ];
    let report = door.machine("vsock").without_network().qemu(&vsock).boot();
    let_in(&report, "wire", "line vsock:");
}
