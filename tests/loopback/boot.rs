//! Tests of `imprint run` below a root of its own, with a pseudo terminal as console: what a host on the line hears at the
//! end.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use imprint::line::{Host, HostEvent, Kind, Nonce, Shape, Stage, Wire};
use imprint::run;
use imprint::status::{Outcome, Status};
use imprint::sys;
use imprint::time::{Deadline, since_boot};
use imprint_tests::patience::patiently;
use nix::poll::{PollFd, PollFlags};
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A host that speaks and has nothing to bring: the stages that it hears of, and the report.
fn host(mut line: File, over: &AtomicBool) -> (Vec<Stage>, Option<Status>) {
    let mut wire = Wire::new(Host::new(Nonce([9; 8]), true, Shape::default()), None);
    let now = || u64::try_from(since_boot().as_micros()).unwrap();
    let (mut stages, mut report, mut buffer) = (Vec::new(), None, [0; 4096]);
    while !over.load(Ordering::Relaxed) {
        let polled = wire.poll(now());
        line.write_all(&polled.bytes).unwrap();
        for event in polled.events {
            match event {
                HostEvent::Opened(_, stage) | HostEvent::Stage(stage) => stages.push(stage),
                HostEvent::Object(Kind::Report, text) => report = Some(serde_json::from_slice(&text).unwrap()),
                _ => {}
            }
        }
        let soon = Deadline::after(Duration::from_millis(10));
        if sys::poll(&mut [PollFd::new(line.as_fd(), PollFlags::POLLIN)], soon).unwrap() {
            let count = line.read(&mut buffer).unwrap();
            wire.push(&buffer[..count], now());
        }
    }
    stages.dedup();
    (stages, report)
}

/// The host waits for a node that gets its certificate; it must not take one for it that boots on without.
#[test]
fn a_host_hears_that_there_was_no_payload() {
    patiently(Duration::from_secs(4), told_of_the_end);
}

fn told_of_the_end(timeout: Duration) -> Result<(), String> {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let pty = openpty(None, None).unwrap();
    let mut settings = tcgetattr(&pty.slave).unwrap();
    cfmakeraw(&mut settings);
    tcsetattr(&pty.slave, SetArg::TCSANOW, &settings).unwrap();
    write(root, "proc/cmdline", &format!("imprint=auto imprint.timeout={} console=ttyS0\n", timeout.as_secs()));
    write(root, "sys/class/tty/console/active", "ttyS0\n");
    fs::create_dir_all(root.join("dev")).unwrap();
    std::os::unix::fs::symlink(nix::unistd::ttyname(&pty.slave).unwrap(), root.join("dev/ttyS0")).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let (ended, master) = (Arc::clone(&over), File::from(pty.master));
    let thread = std::thread::spawn(move || host(master, &ended));
    run::boot(root).unwrap();
    over.store(true, Ordering::Relaxed);
    let (stages, report) = thread.join().unwrap();
    let Some(report) = report else { return Err(format!("the host heard of {stages:?} only")) };
    assert_eq!((stages, report.outcome), (vec![Stage::Payload, Stage::Failed], Outcome::Absent));
    assert_eq!(
        report.steps[0].detail,
        "no payload (nothing on the command line; no file /imprint/payload; no credential imprint.payload; no disk \
         and no optical drive; a host spoke, but sent no payload on ttyS0), booting without one"
    );
    Ok(())
}

/// What dracut's `kernel_cmdline=` leaves in an image counts like the kernel command line: the same boot, with nothing but these
/// words in a file of the image, goes on, is stopped, or does not begin.
#[test]
fn words_of_the_image_count_in_a_boot() {
    let boot = |image: Option<&str>, cmdline: &str| {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        write(root, "proc/cmdline", cmdline);
        image.into_iter().for_each(|words| write(root, "etc/cmdline.d/10-imprint.conf", words));
        fs::create_dir_all(root.join("dev")).unwrap();
        let ended = run::boot(root).map_err(|error| error.to_string());
        let status = fs::read(root.join("run/imprint/status.json")).ok();
        (ended, status.map(|text| serde_json::from_slice::<Status>(&text).unwrap()))
    };
    let quiet = "quiet imprint=auto imprint.timeout=1\n";
    let (ended, status) = boot(None, quiet);
    assert_eq!((ended, status.map(|status| status.outcome)), (Ok(()), Some(Outcome::Absent)));

    let require = "imprint=require imprint.timeout=1\n";
    let (ended, status) = boot(Some(require), "quiet\n");
    assert!(ended.is_err(), "the image's word was passed over");
    let failure = status.unwrap().error.unwrap();
    assert!(failure.stage == "source" && failure.message.contains("no file /imprint/payload"), "{}", failure.message);
    // The kernel command line goes before the image.
    let (ended, status) = boot(Some(require), quiet);
    assert_eq!((ended, status.map(|status| status.outcome)), (Ok(()), Some(Outcome::Absent)));
    let (ended, status) = boot(Some("imprint=off\n"), "quiet\n");
    assert!(ended.is_ok() && status.is_none(), "it was off");
    let (ended, _) = boot(Some("imprint.tiemout=3\n"), "quiet\n");
    assert!(ended.is_err(), "a misspelt word of the image stops the boot, as on the kernel command line");
}
