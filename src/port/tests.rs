use std::fs;
use std::os::fd::OwnedFd;

use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{InputFlags, LocalFlags, OutputFlags};
use proptest::prelude::*;

use super::*;

/// A pseudoterminal with the kernel's default settings, and its other end.
fn pair() -> (OpenptyResult, Place) {
    let pair = openpty(None, None).unwrap();
    let path = nix::unistd::ttyname(&pair.slave).unwrap();
    let name = "ttyS1".to_owned();
    let place = Place { name, path, baud: None, set: false, console: false, virtio: false, keys: false };
    (pair, place)
}

fn opened(place: Place) -> Port {
    Port::open(place).unwrap().unwrap()
}

fn take(port: &mut Port, root: &Path) {
    port.take(root, &mut Quiet::default()).unwrap();
}

fn nowhere() -> &'static Path {
    Path::new("/nowhere")
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

fn now() -> Deadline {
    Deadline::after(Duration::ZERO)
}

/// Waits until the port is readable, and reads.
fn heard(port: &mut Port) -> Vec<u8> {
    assert!(sys::poll(&mut [PollFd::new(port.as_fd(), PollFlags::POLLIN)], soon()).unwrap());
    let mut buffer = [0; 100];
    let count = port.read(&mut buffer).unwrap();
    buffer[..count].to_vec()
}

fn write(to: &OwnedFd, bytes: &[u8]) {
    assert_eq!(nix::unistd::write(to, bytes).unwrap(), bytes.len());
}

#[test]
fn opening_changes_nothing_and_taking_is_undone() {
    let (pair, place) = pair();
    let before = sys::terminal(&pair.slave).unwrap();
    let mut port = opened(place);
    assert_eq!(sys::terminal(&pair.slave).unwrap(), before);
    take(&mut port, nowhere());
    let raw = termios::tcgetattr(&pair.slave).unwrap();
    assert!(!raw.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG));
    assert!(!raw.input_flags.intersects(InputFlags::IXON | InputFlags::ICRNL));
    assert!(!raw.output_flags.contains(OutputFlags::OPOST));
    assert!(raw.control_flags.contains(ControlFlags::CLOCAL | ControlFlags::CREAD | ControlFlags::CS8));
    drop(port);
    assert_eq!(sys::terminal(&pair.slave).unwrap(), before);
}

proptest! {
    /// Any settings, also speeds without a constant and obsolete flags.
    #[test]
    fn all_settings_are_put_back(input in any::<u32>(), output in any::<u32>(), local in any::<u32>(),
                                 control in any::<u32>(), speed in 1u32..4_000_000, named in any::<bool>()) {
        let (pair, mut place) = pair();
        let mut odd = sys::terminal(&pair.slave).unwrap();
        // glibc reserves this bit (IBAUD0, sysdeps/unix/sysv/linux/speed.c).
        odd.c_iflag = input & !0x8000_0000;
        odd.c_oflag = output;
        odd.c_lflag = local;
        // termbits.h: BOTHER, the speed is a number.
        odd.c_cflag = control & !(nix::libc::CBAUD | nix::libc::CIBAUD) | nix::libc::BOTHER;
        (odd.c_ispeed, odd.c_ospeed) = (speed, speed);
        sys::set_terminal(&pair.slave, &odd).unwrap();
        let before = sys::terminal(&pair.slave).unwrap();
        prop_assert_eq!(before.c_ospeed, speed);
        (place.set, place.baud) = (named, named.then_some(115_200));
        let mut port = opened(place);
        take(&mut port, nowhere());
        prop_assert!(sys::terminal(&pair.slave).unwrap() != before);
        drop(port);
        prop_assert_eq!(sys::terminal(&pair.slave).unwrap(), before);
    }
}

/// A host can be heard only at the right speed, so the speed must be set first.
#[test]
fn a_line_that_is_no_console_has_its_speed_before_anybody_is_heard() {
    let (pair, mut place) = pair();
    (place.set, place.baud) = (true, Some(57_600));
    let before = sys::terminal(&pair.slave).unwrap();
    let mut port = opened(place);
    port.prepare().unwrap();
    let raw = sys::terminal(&pair.slave).unwrap();
    assert_eq!((raw.c_ispeed, raw.c_ospeed, raw.c_lflag & nix::libc::ECHO), (57_600, 57_600, 0));
    drop(port);
    assert_eq!(sys::terminal(&pair.slave).unwrap(), before);
}

/// If a host was heard on a console, the console's speed is right, whatever the command line or the firmware say.
#[test]
fn a_console_keeps_its_speed_and_its_line_ends() {
    let (pair, mut place) = pair();
    (place.console, place.baud) = (true, Some(57_600));
    let before = sys::terminal(&pair.slave).unwrap();
    let mut port = opened(place.clone());
    port.prepare().unwrap();
    assert_eq!(sys::terminal(&pair.slave).unwrap(), before);
    take(&mut port, nowhere());
    let raw = sys::terminal(&pair.slave).unwrap();
    assert_eq!((raw.c_ospeed, raw.c_oflag), (before.c_ospeed, before.c_oflag));
    drop(port);
    // The operator named the line with a speed.
    place.set = true;
    let mut port = opened(place);
    port.prepare().unwrap();
    let raw = sys::terminal(&pair.slave).unwrap();
    assert_eq!((raw.c_ospeed, raw.c_oflag), (57_600, before.c_oflag));
    drop(port);
    assert_eq!(sys::terminal(&pair.slave).unwrap(), before);
}

#[test]
fn an_end_of_file_that_somebody_typed_is_no_end() {
    let (pair, place) = pair();
    let mut port = opened(place);
    write(&pair.master, b"\x04");
    assert_eq!(heard(&mut port), b"");
    write(&pair.master, b"#frame\r");
    assert_eq!(heard(&mut port), b"#frame\n");
    drop(pair);
    let broken = port.read(&mut [0; 10]);
    assert!(matches!(broken, Err(PortError::Broken { .. })), "{broken:?}");
}

#[test]
fn keys_of_a_person_end_the_program_and_stop_it_never() {
    let (pair, mut place) = pair();
    place.keys = true;
    let mut port = opened(place);
    take(&mut port, nowhere());
    let raw = sys::terminal(&pair.slave).unwrap();
    let keys = [nix::libc::VINTR, nix::libc::VQUIT, nix::libc::VSUSP].map(|key| raw.c_cc[key]);
    assert_eq!((raw.c_lflag & nix::libc::ISIG, keys), (nix::libc::ISIG, [3, 28, 0]));
}

#[test]
fn what_came_late_is_no_command_for_the_next_reader() {
    let (pair, place) = pair();
    let mut port = opened(place.clone());
    take(&mut port, nowhere());
    write(&pair.master, b"#late\n");
    assert!(sys::poll(&mut [PollFd::new(port.as_fd(), PollFlags::POLLIN)], soon()).unwrap());
    drop(port);
    assert_eq!(opened(place).read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn a_line_that_nobody_reads_is_stalled() {
    let (_pair, place) = pair();
    let mut port = opened(place.clone());
    take(&mut port, nowhere());
    let stalled = port.write_all(&[b'x'; 100_000], Deadline::after(Duration::from_millis(10)));
    assert!(matches!(&stalled, Err(PortError::Stalled(path)) if *path == place.path), "{stalled:?}");
}

/// A virtio port without a host acts like a pipe without a writer: read(2) gives nothing and poll(2) reports a hang-up.
#[test]
fn a_port_that_nobody_has_opened_is_not_asked_over_and_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vport1p1");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let open =
        |write: bool| OpenOptions::new().read(!write).write(write).custom_flags(nix::libc::O_NONBLOCK).open(&path);
    let file = open(false).unwrap();
    // A pipe that never had a writer is not hung up.
    drop(open(true).unwrap());
    let peer = Some(Peer::of(&file).unwrap());
    let (_, place) = pair();
    let place = Place { virtio: true, ..place };
    let mut port = Port { file, place, before: None, console: None, peer };
    let readable = |port: &Port, until| sys::poll(&mut [PollFd::new(port.as_fd(), PollFlags::POLLIN)], until).unwrap();
    assert!(readable(&port, now()));
    assert_eq!(port.read(&mut [0; 10]).unwrap(), 0);
    assert!(!readable(&port, now()));
    let mut host = open(true).unwrap();
    host.write_all(b"#frame\n").unwrap();
    assert_eq!(heard(&mut port), b"#frame\n");
    assert!(!readable(&port, now()));
    drop(host);
    assert_eq!(heard(&mut port), b"");
    assert!(!readable(&port, now()));
}

/// Checks the computed settings: a pseudoterminal always has eight bits and no parity, whatever is set.
#[test]
fn a_console_on_which_a_host_was_heard_keeps_its_characters() {
    let (pair, place) = pair();
    let mut seven = termios::tcgetattr(&pair.slave).unwrap();
    let all = ControlFlags::CSIZE | ControlFlags::PARENB | ControlFlags::PARODD | ControlFlags::CSTOPB;
    let odd = ControlFlags::CS7 | ControlFlags::PARENB | ControlFlags::PARODD | ControlFlags::CSTOPB;
    seven.control_flags.remove(all);
    seven.control_flags.insert(odd);
    for (console, set, kept) in [(true, false, true), (true, true, false), (false, false, false), (false, true, false)]
    {
        let place = Place { console, set, ..place.clone() };
        let taken = raw(seven.clone(), seven.output_flags, &place).control_flags & all;
        let eight = taken.contains(ControlFlags::CS8) && !taken.intersects(ControlFlags::PARENB | ControlFlags::CSTOPB);
        assert_eq!((taken == odd, eight), (kept, !kept), "console {console}, set {set}: {taken:?}");
    }
}

/// Two hosts on two consoles. The console that was taken first is given back first.
#[test]
fn consoles_are_quiet_until_the_last_is_given_back() {
    let root = tempfile::tempdir().unwrap();
    let printk = root.path().join("proc/sys/kernel/printk");
    fs::create_dir_all(printk.parent().unwrap()).unwrap();
    fs::write(&printk, "7\t4\t1\t7\n").unwrap();
    let mut quiet = Quiet::default();
    let [(_one, one), (_two, two)] = [pair(), pair()];
    let mut ports = [one, two].map(|place| {
        let mut port = opened(Place { console: true, ..place });
        port.take(root.path(), &mut quiet).unwrap();
        Some(port)
    });
    let level = || fs::read_to_string(&printk).unwrap();
    assert_eq!(level(), "1");
    ports[0] = None;
    assert_eq!(level(), "1");
    ports[1] = None;
    // The kernel accepts the first number alone.
    assert_eq!(level(), "7");
}

#[test]
fn a_line_that_is_not_there() {
    let (_, place) = pair();
    let absent = |path: &str| Port::open(Place { path: path.into(), ..place.clone() });
    assert!(absent("/nowhere/ttyS9").unwrap().is_none());
    assert!(matches!(absent("/"), Err(PortError::Open { .. })));
}
