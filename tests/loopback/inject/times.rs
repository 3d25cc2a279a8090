//! Tests of long waits: consoles that are never silent, power commands that do not end, administrators.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;

/// A machine that boots on writes to its console without a pause; `inject` must not stay because of that.
#[test]
fn a_console_that_goes_on_talking_keeps_nobody() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::None);
    node.run(|node| node.over);
    let mut stream = node.stream.try_clone().unwrap();
    // Ends when the host closes the line.
    let console = std::thread::spawn(move || {
        let start = Instant::now();
        while stream.write_all(b"[   12.345678] systemd[1]: Started something.\r\n").is_ok() {
            if start.elapsed() > PATIENCE {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    });
    assert!(console.join().unwrap(), "the host still listens");
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
}

/// A machine that is started in the background holds the command's standard output and error for as long as it runs.
#[test]
fn what_a_power_command_leaves_running_is_not_waited_for() {
    let site = Site::new();
    let [(go, mut go_file), (end, mut end_file)] = ["go", "end"].map(|name| fifo(site.work.path(), name));
    let machine = format!("read word < {}; echo late; echo late >&2; echo alive > {}", go.display(), end.display());
    let mut inject = site.inject(&["--power", &format!("{{ {machine}; }} & echo started")]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::None);
    node.run(|node| node.over);
    let start = Instant::now();
    while inject.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            inject.kill().unwrap();
            panic!("it waits for what the command left running");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("node1: power: switched\n"), "{told}");
    // It outlives whoever read its words, also when it says more.
    go_file.write_all(b"go\n").unwrap();
    let mut fds = [PollFd::new(end_file.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::try_from(PATIENCE).unwrap()).unwrap(), 1, "it was ended by its next word");
    let mut word = [0; 6];
    end_file.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"alive\n");
}

#[test]
fn a_power_command_that_does_not_end_is_ended() {
    let site = Site::new();
    let line = format!("unix:{}", site.work.path().join("line").display());
    let mut inject = Command::new(programs::host())
        .arg("--dir")
        .arg(site.work.path().join("state"))
        .args(["inject", "node1", "--line", &line, "--window", "1s", "--power", "echo calling; sleep 45; true"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while inject.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            inject.kill().unwrap();
            panic!("it waits for the command");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1));
    let want =
        "node1: failed: --power did not end within 1 s, and was ended; try the command by hand. It said: calling\n";
    assert!(told.contains(want), "{told}");
}

/// Both what it says and what it complains about.
#[test]
fn a_power_command_that_fails_is_quoted() {
    let site = Site::new();
    let inject = site.inject(&["--power", "echo outlet 7; echo no such outlet >&2; exit 3"]);
    drop(site.listener.accept().unwrap());
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1));
    assert!(told.contains("--power ended with exit status: 3: outlet 7\\nno such outlet\n"), "{told}");
}

/// The power that was switched explains a second key, not another machine.
#[test]
fn another_machine_after_the_power_was_switched_gets_nothing() {
    let site = Site::new();
    let inject = site.inject(&["--power", "true"]);
    let (stream, _) = site.listener.accept().unwrap();
    let mut first = Remote::new(stream.try_clone().unwrap(), UUID, Twist::None);
    // Says HELLO, and is gone before it is answered.
    let polled = first.wire.poll(1);
    first.stream.write_all(&polled.bytes).unwrap();
    let mut second = Remote::new(stream, [8; 16], Twist::None);
    second.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1), "{told}");
    let want = "another machine is on this line: the record's SMBIOS UUID is 07070707-0707-0707-0707-070707070707, HELLO \
                says 08080808-0808-0808-0808-080808080808";
    assert!(told.contains(want), "{told}");
    assert!(!site.events().contains(&"payload".to_owned()), "{:?}", site.events());
}

/// The store is asked every two seconds, the node and the administrator are told once.
#[test]
fn a_request_that_waits_is_told_of_once() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::Again);
    node.run(|node| node.first);
    in_use(&mut site.state(), "node1");
    node.ask_again();
    node.run(|node| node.pending.is_some());
    let words = node.pending.take().unwrap();
    let start = Instant::now();
    // Long enough for the store to be asked twice more.
    node.run(|_| start.elapsed() > Duration::from_secs(5));
    assert_eq!(node.pending, None);
    let code = words.split("key ").nth(1).unwrap().split(':').next().unwrap().to_owned();
    approve(&mut site.state().store, "node1", &code, Timestamp::system()).unwrap();
    node.run(|node| node.over);
    let (exit, told) = ended(inject);
    assert_eq!((exit, told.matches("node1: pending: ").count()), (Some(0), 1), "{told}");
}

/// Administrators have their own hours.
#[test]
fn the_time_for_a_node_does_not_run_while_an_administrator_is_waited_for() {
    patiently(Duration::from_secs(3), approved_after_that);
}

fn approved_after_that(timeout: Duration) -> Result<(), String> {
    let site = Site::new();
    let line = format!("unix:{}", site.work.path().join("line").display());
    let inject = Command::new(programs::host())
        .arg("--dir")
        .arg(site.work.path().join("state"))
        .args(["inject", "node1", "--line", &line, "--timeout", &format!("{}s", timeout.as_secs())])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::Again);
    node.run(|node| node.first);
    if !node.first {
        return Err(ended(inject).1);
    }
    in_use(&mut site.state(), "node1");
    node.ask_again();
    node.run(|node| node.pending.is_some());
    if node.pending.is_none() {
        return Err(ended(inject).1);
    }
    let start = Instant::now();
    node.run(|_| start.elapsed() > timeout + Duration::from_secs(1));
    approve(&mut site.state().store, "node1", &node.code, Timestamp::system()).unwrap();
    node.run(|node| node.over);
    let (exit, told) = ended(inject);
    assert_eq!(exit, Some(0), "{told}");
    let run = format!("; compare the code with the node's console and run: imprint-host approve node1 {}\n", node.code);
    assert!(told.contains(&run), "{told}");
    Ok(())
}

/// It asks and asks and takes no answer: the host stops listening, since it would have to keep all that it has to say.
#[test]
fn somebody_who_never_reads_is_not_listened_to_without_an_end() {
    let site = Site::new();
    let mut inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::None);
    node.run(|node| node.opened);
    node.wire.end_mut().ask_time();
    let questions = node.wire.poll(1).bytes.repeat(1000);
    node.stream.set_write_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut written = 0;
    let ended = loop {
        match node.stream.write(&questions) {
            Ok(count) => written += count,
            Err(error) => break error.kind(),
        }
        assert!(written < 16 * 1024 * 1024, "it listens on");
    };
    inject.kill().unwrap();
    inject.wait().unwrap();
    assert_eq!(ended, ErrorKind::WouldBlock);
}

/// Somebody writes to the books, and more lines wait for that than the program has threads.
#[test]
fn lines_that_wait_for_the_books_do_not_hold_up_others() {
    let site = Site::new();
    let names = ["a", "b", "c", "d", "e", "f"];
    let record = |name: &&str| (format!("{name}.toml"), format!("name = \"{name}\"\nsubject = [\"CN={name}\"]\n"));
    let mut state = site.state();
    state.add_nodes(&names.iter().map(record).collect::<Vec<_>>(), false, Timestamp::system()).unwrap();
    let path = |name: &str| site.work.path().join(format!("line-{name}"));
    let listeners = names.map(|name| UnixListener::bind(path(name)).unwrap());
    let lines: String = names.iter().map(|name| format!("{name} unix:{}\n", path(name).display())).collect();
    std::fs::write(site.work.path().join("lines"), lines).unwrap();
    let inject = Command::new(programs::host())
        .arg("--dir")
        .arg(site.work.path().join("state"))
        .args(["inject", "--lines"])
        .arg(site.work.path().join("lines"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut nodes = listeners.map(|listener| Remote::new(listener.accept().unwrap().0, UUID, Twist::None));
    let changes = state.store.changes().unwrap();
    // Each begins a conversation; from then on the host makes its payload.
    for node in &mut nodes {
        node.run(|node| node.opened);
    }
    drop(changes);
    for node in &mut nodes {
        node.run(|node| node.over);
    }
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
}
