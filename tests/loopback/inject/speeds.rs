//! Tests that a node gets its certificate over a slow line whose speed the host does not know. tests/pure/slow.rs counts
//! the retransmissions, in virtual time.

use std::collections::VecDeque;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;

/// Carries bytes both ways, ten bits each, until one end is closed.
fn carry(ends: [UnixStream; 2], baud: u32) {
    let byte = Duration::from_nanos(10_000_000_000 / u64::from(baud));
    let start = Instant::now();
    let mut ways: [VecDeque<(Duration, u8)>; 2] = Default::default();
    let mut free = [Duration::ZERO; 2];
    let mut buffer = [0; 4096];
    ends.iter().for_each(|end| end.set_nonblocking(true).unwrap());
    loop {
        for (from, way) in ways.iter_mut().enumerate() {
            match (&ends[from]).read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => way.extend(buffer[..count].iter().map(|carried| {
                    free[from] = free[from].max(start.elapsed()) + byte;
                    (free[from], *carried)
                })),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
            let due = way.iter().take_while(|(at, _)| *at <= start.elapsed()).count();
            let due: Vec<u8> = way.drain(..due).map(|(_, carried)| carried).collect();
            if (&ends[1 - from]).write_all(&due).is_err() {
                return;
            }
        }
        let next = ways.iter().filter_map(|way| way.front()).map(|(at, _)| at.saturating_sub(start.elapsed())).min();
        let wait = next.map_or(50, |wait| wait.as_millis().clamp(1, 50));
        let mut fds = ends.each_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
        poll(&mut fds, PollTimeout::try_from(i32::try_from(wait).unwrap()).unwrap()).unwrap();
    }
}

#[test]
fn slow_lines_of_unknown_speed_bring_a_certificate() {
    std::thread::scope(|scope| {
        for baud in [9600, 19200] {
            scope.spawn(move || {
                let site = Site::new();
                let inject = site.inject_for("600s", &[]);
                let (host, _) = site.listener.accept().unwrap();
                let (near, far) = UnixStream::pair().unwrap();
                std::thread::spawn(move || carry([far, host], baud));
                let mut node = Remote::new(near, UUID, Twist::None);
                node.run(|node| node.over);
                drop(node.stream);
                let (code, told) = ended(inject);
                println!("{baud}: {told}");
                assert_eq!(code, Some(0), "{told}");
                assert!(told.contains(&format!("node1: done: key {}, payload ", node.code)), "{told}");
            });
        }
    });
}
