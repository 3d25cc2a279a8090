//! Tests of lines that are not sockets, and of a node that is another implementation of the protocol.

use super::*;

/// A pseudo terminal, as a USB adapter would be: set to raw by the host.
#[test]
fn a_device() {
    let site = Site::new();
    let pty = nix::pty::openpty(None, None).unwrap();
    let path = nix::unistd::ttyname(&pty.slave).unwrap();
    let inject = Command::new(programs::host())
        .arg("--dir")
        .arg(site.work.path().join("state"))
        .args(["inject", "node1", "--window", "100s", "--line"])
        .arg(format!("{},115200", path.display()))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let mut master = std::fs::File::from(pty.master);
    let mut reader = master.try_clone().unwrap();
    let (mut to, mut from) = (far.try_clone().unwrap(), far);
    // What one writes the other reads; both threads end with the test.
    std::thread::spawn(move || drop(std::io::copy(&mut reader, &mut to)));
    std::thread::spawn(move || drop(std::io::copy(&mut from, &mut master)));
    let mut node = Remote::new(near, UUID, Twist::None);
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
    drop(pty.slave);
}

/// Written in Python from docs/line-protocol.md, and nothing else.
#[test]
fn an_independent_node() {
    independent(false);
}

/// The same with a signer: it takes only what is signed for a challenge of its own, and a time that is proven.
#[test]
fn an_independent_node_that_sends_challenges() {
    independent(true);
}

fn independent(signer: bool) {
    use std::io::BufRead;
    let site = Site::new();
    let signers = site.state().ca.signers().unwrap();
    let signer = signer.then(|| signers[0].0.to_string());
    let socket = site.work.path().join("python");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/line_peer.py");
    let mut node = Command::new(programs::python())
        .arg(script)
        .arg(&socket)
        .args(&signer)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut words = std::io::BufReader::new(node.stdout.take().unwrap());
    let mut line = String::new();
    words.read_line(&mut line).unwrap();
    let output = Command::new(programs::host())
        .arg("--dir")
        .arg(site.work.path().join("state"))
        .args(["inject", "node1", "--window", "100s", "--line", &format!("unix:{}", socket.display())])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let node = node.wait_with_output().unwrap();
    assert!(node.status.success(), "{}{told}", String::from_utf8_lossy(&node.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}");
    if signer.is_some() {
        assert!(told.contains("payload, sealed and signed for this node"), "{told}");
        for want in ["signed for a challenge\n", "time: proven\n"] {
            line.clear();
            words.read_line(&mut line).unwrap();
            assert_eq!(line, want);
        }
    }
    line.clear();
    words.read_line(&mut line).unwrap();
    // A SET in DER is ordered by its bytes.
    let names = line.trim().strip_prefix("certificates: ").unwrap();
    assert_eq!(names.split(", ").count(), 2, "{line}");
    assert!(names.split(", ").any(|name| name == "CN=node1.example.org"), "{line}");
    let code = site.state().store.latest("node1").unwrap().0.unwrap().key_code;
    assert!(told.contains(&format!("node1: done: key {code}, payload ")), "{told}");
}
