//! The machine at the other end of a veth pair: a network namespace with the processes in it. Ends with the test. Contains
//! no tests.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::ip;

pub(super) struct Peer {
    child: Child,
    /// Closed: everything in there ends.
    _stdin: Option<ChildStdin>,
}

impl Peer {
    /// Moves these links there, and runs `script` until what it starts in the background is ready.
    pub(super) fn start(links: &[&str], script: &str) -> Peer {
        let script = format!("set -e; read go; ip link set lo up; {script}\necho ready; read end");
        let mut child = Command::new("unshare")
            .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need util-linux");
        // unshare(1) is in the new network namespace before it forks, but not before it has begun.
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", child.id());
        while std::fs::read_link(&theirs).unwrap() == own {
            std::thread::yield_now();
        }
        for link in links {
            ip(&format!("link set {link} netns {}", child.id()));
        }
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"go\n").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the peer's script failed");
        Peer { child, _stdin: Some(stdin) }
    }

    /// Moves a link there that was made later.
    pub(super) fn takes(&self, link: &str) {
        ip(&format!("link set {link} netns {}", self.child.id()));
    }

    /// Moves the calling thread to the peer's network. It does not come back.
    pub(super) fn enter(&self) {
        let net = std::fs::File::open(format!("/proc/{}/ns/net", self.child.id())).unwrap();
        nix::sched::setns(net, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // unshare was told to take what it started with it.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
