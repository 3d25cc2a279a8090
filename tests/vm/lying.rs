//! Attack: a host on a line claims that it is 2015. Tests what it can do to the machine's clocks.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use imprint::line::{Host, HostEvent, Kind, Nonce, Shape, Wire};
use imprint::payload::{Enrolment, Payload};
use imprint::sys;
use imprint::time::{Deadline, since_boot};
use nix::poll::{PollFd, PollFlags};

use super::line::{SMBIOS, connected};
use crate::*;

/// 2015-07-01
const IN_2015: u64 = 1_435_708_800;

/// Brings the payload, says that it is 2015, refuses to sign, and returns what the node reports.
fn liar(mut line: UnixStream, payload: &[u8]) -> String {
    let mut wire = Wire::new(Host::new(Nonce([9; 8]), true, Shape::default()), None);
    let begun = since_boot();
    let wall = || u64::try_from((Duration::from_secs(IN_2015) + (since_boot() - begun)).as_micros()).unwrap();
    let mut buffer = [0; 4096];
    loop {
        let polled = wire.poll(wall());
        line.write_all(&polled.bytes).unwrap();
        for event in polled.events {
            match event {
                HostEvent::Opened(..) => wire.end_mut().send(Kind::Plain, payload.to_vec()),
                HostEvent::Object(Kind::Request, _) => wire.end_mut().send(Kind::Refused, b"not today".to_vec()),
                HostEvent::Object(Kind::Report, report) => {
                    // The acknowledgement, so that the node need not wait for it.
                    line.write_all(&wire.poll(wall()).bytes).unwrap();
                    return String::from_utf8(report).unwrap();
                }
                _ => {}
            }
        }
        let soon = Deadline::after(Duration::from_millis(20));
        if sys::poll(&mut [PollFd::new(line.as_fd(), PollFlags::POLLIN)], soon).unwrap() {
            let count = line.read(&mut buffer).unwrap();
            assert!(count > 0, "the machine ended without a report");
            wire.push(buffer.get(..count).unwrap(), wall());
        }
    }
}

/// The machine's own clock says 2019, so nobody there knows better. That nothing was sent to a server whose certificate
/// ended in 2016 is shown without a machine (tests/loopback/checkin/line.rs).
#[test]
fn a_host_that_says_2015_sets_no_clock() {
    let site = Site::typical();
    let mut state = State::open(&site.work.path().join("state")).unwrap();
    let options = compose::Options { expires: DAY, medium: compose::Medium::Text, ..Default::default() };
    let made = state.payload("node1", &options, Timestamp::system()).unwrap();
    let mut payload = Payload::unwrapped(&made.bytes).unwrap();
    payload.network.clear();
    let Enrolment::Csr(csr) = &mut payload.enrolment else { panic!("it enrols with a CSR") };
    csr.urls = vec![EstUrl::Line];
    let bytes = payload.encode().to_vec();
    let socket = site.work.path().join("line");
    let chardev = format!("socket,id=line,path={},server=on,wait=off", socket.display());
    let host = std::thread::spawn(move || liar(connected(&socket), &bytes));
    let report = Machine::new(Kernel::Stable)
        .without_network()
        .append("imprint.source=serial:ttyS1,115200 imprint.line=plain imprint.timeout=60")
        .qemu(&SMBIOS)
        .qemu(&["-chardev", &chardev, "-serial", "chardev:line"])
        .boot();
    let heard = host.join().unwrap();
    assert_eq!(report.exit_code(), 18, "{}\n{heard}", report.console);
    let status = report.status();
    let clock = status.steps.iter().find(|step| step.name == "clock").unwrap();
    // Less than an hour after the host began.
    assert!(clock.detail.contains("2015-07-01T00:") && clock.detail.contains("is ignored"), "{}", clock.detail);
    assert!(heard.contains("is ignored") && report.console.contains("is ignored"), "{heard}");
    // The system clock was set to the earliest time that can be; the real-time clock goes on by itself.
    let (floor, now) = (payload.composed.as_secs() - 301, Timestamp::system().as_secs());
    assert!((floor..=now).contains(&report.date()), "{} is not from {floor} to {now}", report.date());
    let rtc: u64 = report.part("rtc").parse().unwrap();
    assert!((1_546_398_245..1_546_398_245 + 3600).contains(&rtc), "{rtc}");
}
