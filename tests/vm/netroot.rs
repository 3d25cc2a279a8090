//! Tests of a root that comes over the network with the node's identity: with each init of the initramfs, and an image that is not the
//! right one.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use imprint::digest::sha256;
use imprint::hex;
use imprint::payload::Payload;
use imprint_tests::ca::tls_server;
use imprint_tests::est_server::{Ending, EstServer, reply};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;

use crate::vm::bundle::{file, with};
use crate::vm::swap;
use crate::*;

/// A server with the certificate of the site's CA for this machine's loopback, which takes nodes of that CA only.
fn server(site: &Site, image: Vec<u8>) -> EstServer {
    let state = site.state();
    let identity = state.ca.server_identity(&state.hosts(), Timestamp::system()).unwrap();
    let chain = identity.chain.iter().map(|certificate| certificate.to_vec()).collect();
    let payload = Payload::unwrapped(&site.payload).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(payload.ca.der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let tls = tls_server(chain, identity.key.secret_der().to_vec(), &[&TLS13], verifier);
    let answer = reply("200 OK", &["ETag: \"1\"".to_owned()], &image);
    EstServer::at(IpAddr::V4(Ipv4Addr::LOCALHOST), vec![tls], Ending::Notify, move |_| answer.clone())
}

fn words(server: &EstServer, digest: &[u8; 32]) -> String {
    let port = server.address().port();
    format!("root=imprint:https://10.0.2.2:{port}/root.img imprint.root-sha256={}", hex::encode(digest))
}

/// Premise: the machine's own disk is another root, and the later `root=` counts.
#[track_caller]
fn is_entered(init: Init, kernel: Kernel, kind: &str) {
    let site = Site::typical();
    let image = std::fs::read(imprint_tests::vm::root_image(kernel, init, kind)).unwrap();
    let (digest, server) = (sha256(&image), server(&site, image));
    let entries = vec![file("etc/imprint-laid", "laid\n"), file("etc/imprint-new/deep/file", "new\n")];
    let report = with(&site, kernel, entries).init(init).append(&words(&server, &digest)).boot();
    came_up(&report);
    assert!(report.mount("/").starts_with("overlay rw,"), "{}", report.mount("/"));
    let said = format!("imprint: the root is at /sysroot: {kind}, ");
    assert!(report.console.contains(&said), "{}", report.console);
    let root = report.status().root.unwrap();
    assert_eq!((root.sha256, root.error), (hex::encode(&digest), None));
    // A bundle is laid over it as over any other root.
    assert_eq!((report.part("apply"), report.part("applied")), ("0", "7"), "{}", report.console);
    let laid: Vec<&str> = report.part("laid").lines().collect();
    assert_eq!(laid, ["laid", "new", "NAME=\"imprint test root\"", "ID=imprint-test", "VERSION_ID=1"]);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn the_root_comes_over_the_network_with_systemd() {
    is_entered(Init::SystemdNg, Kernel::Backports, "erofs");
}

#[test]
fn the_root_comes_over_the_network_plain() {
    is_entered(Init::Plain, Kernel::Stable, "squashfs");
}

/// The boot script of imprint brings it, and swap space is set up before the change to it.
#[test]
fn the_root_comes_over_the_network_with_initramfs_tools_and_has_swap_space() {
    with_swap_space(Init::InitramfsTools, "/root");
}

fn with_swap_space(init: Init, at: &str) {
    let site = Site::typical();
    let disk = swap::disk(site.work.path());
    let image = std::fs::read(imprint_tests::vm::root_image(Kernel::Stable, init, "squashfs")).unwrap();
    let (digest, server) = (sha256(&image), server(&site, image));
    let machine = site.machine(Kernel::Stable).init(init).append(&words(&server, &digest));
    let report = swap::with(&disk, machine).boot();
    came_up(&report);
    assert!(report.mount("/").starts_with("overlay rw,"), "{}", report.mount("/"));
    let said = format!("imprint: the root is at {at}: squashfs, ");
    assert!(report.console.contains(&said), "{}", report.console);
    swap::is_in_use(&report);
}

/// Nothing but the kernel knows loop devices and file systems there, and has the agent load their modules.
#[test]
fn the_root_comes_over_the_network_into_a_bare_image() {
    with_swap_space(Init::Bare, "/sysroot");
}

/// Attack: somebody has changed the image at the server.
#[test]
fn an_image_that_is_not_the_right_one_stops_the_boot() {
    let site = Site::typical();
    let server = server(&site, b"hsqs and something else".to_vec());
    let report = site.machine(Kernel::Stable).append(&words(&server, &[7; 32])).boot();
    assert_eq!((report.exit_code(), report.ended_in()), (0, "emergency"), "{}", report.console);
    let error = report.status().root.unwrap().error.unwrap();
    assert!(error.contains("the image there has the SHA-256 "), "{error}");
    let said =
        report.console.lines().filter(|line| line.contains("imprint: root: fetching the root from https://10.0.2.2:"));
    assert_eq!(said.count(), 1, "{}", report.console);
    assert!(!report.part("mounts").contains(" /sysroot "), "{}", report.part("mounts"));
}

/// The recipe for NBD of docs/root.md: hook and script of Debian's nbd-client, over the network that imprint has brought up.
#[test]
fn a_root_by_nbd_comes_up_over_the_network_of_imprint() {
    let (kernel, init) = (Kernel::Stable, Init::InitramfsToolsList);
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let site = Site::typical();
    let (extra, image) = (site.work.path().join("extra"), site.work.path().join("image"));
    let script = r#"cp -r "$2/vm/initramfs-tools" "$1" && cp -r "$3/usr/share/initramfs-tools/." "$1" && rm "$1/hooks/nbd-client" &&
        sed -i "s|copy_exec /sbin/nbd-client|copy_exec $3/sbin/nbd-client|" "$1/hooks/nbd""#;
    let client = imprint_tests::programs::cache().join("nbd-client");
    let mut copy = Command::new("sh");
    copy.args(["-ec", script, "sh"]).arg(&extra).arg(repository.join("tests")).arg(client);
    assert!(copy.status().unwrap().success(), "run scripts/install-needs vm");
    let built = imprint_tests::vm::initramfs(kernel, init).with_file_name("vmlinux").canonicalize().unwrap();
    let mut build = Command::new(repository.join("scripts/initramfs-tools-image"));
    build.arg("list").arg(built.parent().unwrap()).arg(&image).arg(&extra);
    build.env("IMPRINT_TEST", repository.join("tests/vm/91imprint-test"));
    let made = build.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let root = std::fs::read(imprint_tests::vm::initramfs(kernel, init).with_file_name("root")).unwrap();
    let port = imprint_tests::nbd::serve_tcp(root).port();
    let words = format!("root=/dev/nbd0 nbdroot=10.0.2.2:{port}/root");
    let report = site.machine(kernel).init(init).initramfs_image(&image).append(&words).boot();
    came_up(&report);
    assert!(
        report.part("mounts").lines().any(|line| line.starts_with("/dev/nbd0 / ext4 ")),
        "{}",
        report.part("mounts")
    );
}
