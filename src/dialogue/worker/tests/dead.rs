//! Places where nobody answers, on a clock of the test: a node waits there for as long as it has to, and neither spins nor floods them.

use std::cell::Cell;
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;

const SECOND: u64 = 1_000_000;
const HOUR: u64 = 3600 * SECOND;
/// A node that waits for a first word wakes up about once a second. An hour took 3,600 steps when this was written.
const WAKES: usize = 4500;
/// So often something may be due at once.
const AT_ONCE: usize = 8;

thread_local! {
    static CLOCK: Cell<u64> = const { Cell::new(0) };
}

fn clock() -> u64 {
    CLOCK.get()
}

/// What a node does in an hour at these places: how often it woke up, and how often it called at the door. `answer`: what the door
/// does with a call.
fn an_hour(targets: Vec<Target>, door: Option<UnixListener>, answer: fn(&mut UnixStream)) -> (usize, usize) {
    let mut steps = steps(0);
    let begun = now();
    CLOCK.set(begun);
    steps.worker.clock = clock;
    steps.worker.obey(Command::Call(targets));
    let (mut wakes, mut still, mut calls, mut open) = (0, 0, 0, Vec::new());
    while clock() < begun + HOUR {
        let next = steps.worker.due().expect("a place is called at again");
        let mut fds = steps.worker.calls.fds();
        fds.extend(
            steps
                .worker
                .lines
                .iter()
                .filter_map(|line| line.pipe.fd())
                .map(|pipe| PollFd::new(pipe, PollFlags::POLLIN)),
        );
        // As in a run: it sleeps until something is due, unless something has come.
        let came = sys::poll(&mut fds, Deadline::after(Duration::ZERO)).unwrap();
        if !came {
            still += usize::from(next <= clock());
            CLOCK.set(clock().max(next));
        }
        wakes += 1;
        let passed = (clock() - begun) / SECOND;
        assert!(
            wakes <= WAKES && still <= AT_ONCE,
            "after {passed} s the node has woken up {wakes} times, {still} times at once"
        );
        steps.worker.call();
        steps.worker.listen();
        while let Some(Ok((mut connection, _))) = door.as_ref().map(UnixListener::accept) {
            calls += 1;
            answer(&mut connection);
            open.push(connection);
        }
    }
    assert!(steps.told().len() <= 8, "the console is not filled");
    (wakes, calls)
}

fn door(folder: &tempfile::TempDir) -> (UnixListener, Vec<Target>) {
    let path = folder.path().join("door");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    (listener, vec![Target::Unix(path), Target::Unix("/nowhere/door".into())])
}

/// It takes the call and says nothing: a node that had waited 30 s there spun, as the moment at which it had wanted to hang up was over.
#[test]
fn a_door_that_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (listener, targets) = door(&folder);
    let (wakes, calls) = an_hour(targets, Some(listener), |_| {});
    // Each call lasts 30 s, and at most 10 s pass until the next.
    assert!((90..=130).contains(&calls), "{calls} calls, {wakes} wakes");
}

/// It closes each connection at once, or speaks another protocol, or speaks without end.
#[test]
fn doors_that_are_none() {
    let nothing: fn(&mut UnixStream) = |door| door.shutdown(std::net::Shutdown::Both).unwrap();
    let ssh: fn(&mut UnixStream) = |door| door.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
    let noise: fn(&mut UnixStream) = |door| door.write_all(&[b'x'; 20_000]).unwrap();
    for answer in [nothing, ssh, noise] {
        let folder = tempfile::tempdir().unwrap();
        let (listener, targets) = door(&folder);
        let (wakes, calls) = an_hour(targets, Some(listener), answer);
        // 5 to 10 s pass between two calls once the first few have failed.
        assert!((300..=740).contains(&calls), "{calls} calls, {wakes} wakes");
    }
}

/// Nobody is there, and no link either.
#[test]
fn places_that_are_not_there() {
    let link = crate::payload::InterfaceName::try_from("nowhere7").unwrap();
    let (wakes, _) = an_hour(vec![Target::Unix("/nowhere/door".into())], None, |_| {});
    assert!((300..=1500).contains(&wakes), "{wakes}");
    let mut calls = Calls::default();
    calls.add(vec![Target::Ether(Some(link))], 0);
    let (mut at, mut looks) = (0, 0);
    while at < HOUR {
        let (_, _) = calls.step(Path::new("/nowhere"), at);
        let next = calls.next().expect("the link is looked for again");
        assert!(next > at, "it is looked for again at once");
        (at, looks) = (next, looks + 1);
    }
    assert!(looks <= 3601, "{looks}");
}
