//! Tests of lines that are commands (`exec:`).

use super::*;

fn inject(site: &Site, window: Duration, line: &str, words: &[&str]) -> Output {
    Command::new(programs::host())
        .arg("--dir")
        .arg(site.work.path().join("state"))
        .args(["inject", "node1", "--window", &format!("{}s", window.as_secs()), "--line", line])
        .args(words)
        .output()
        .unwrap()
}

/// A wrong host name or password: the reason is on the command's terminal.
#[test]
fn a_command_that_ends_is_quoted_and_no_power_is_switched() {
    let site = Site::new();
    let mark = site.work.path().join("on");
    let line = "exec:echo 'Error: no such host' >&2; echo 'bmc1 \\033[31m' >&2; exit 1";
    let (output, told) = patiently(Duration::from_secs(2), |window| {
        let output = inject(&site, window, line, &["--power", &format!("touch {}", mark.display())]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        // The command has to end within the window.
        if told.contains("node1: line lost: ") { Ok((output, told)) } else { Err(told) }
    });
    assert_eq!((output.status.code(), mark.exists()), (Some(1), false), "{told}");
    assert!(
        told.contains("node1: line lost: the command ended; it said: Error: no such host bmc1 \\u{1b}[31m\n"),
        "{told}"
    );
    assert!(
        told.contains("that speaks first: --call. Last console output: Error: no such host bmc1 \\u{1b}[31m\n"),
        "{told}"
    );
    assert!(!told.contains("node1: power: "), "{told}");
}

#[test]
fn the_power_is_switched_once_a_command_is_up() {
    let site = Site::new();
    for line in ["exec:echo connected; sleep 300", "exec:sleep 300"] {
        let mark = site.work.path().join("on");
        patiently(Duration::from_secs(2), |window| {
            let output = inject(&site, window, line, &["--power", &format!("touch {}", mark.display())]);
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{told}");
            std::fs::remove_file(&mark).map_err(|_| told.into_owned())
        });
    }
}

/// A command joins its terminal to something else, here two pipes.
#[test]
fn a_node_behind_a_command() {
    let site = Site::new();
    let (down, up, node) = behind_fifos(&site);
    let line = format!("exec:cat {} & exec cat > {}", up.display(), down.display());
    let output = inject(&site, PATIENCE, &line, &[]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains(&format!("node1: done: key {}, payload ", node.join().unwrap())), "{told}");
    assert!(told.contains("node1: listening: exec:cat …\n"), "{told}");
}

/// The shell is not the command: both end with the line.
#[test]
fn a_command_ends_with_its_line() {
    use std::os::fd::AsFd;
    let site = Site::new();
    // The command does not wait for a reader. Then there is one end for reading only.
    let (path, both) = fifo(site.work.path(), "held");
    let mut reader = File::open(&path).unwrap();
    let line = format!("exec:sleep 1000 > {}", path.display());
    patiently(Duration::from_secs(2), |window| {
        let told = String::from_utf8_lossy(&inject(&site, window, &line, &["--power", "true"]).stderr).into_owned();
        if told.contains("node1: power: switched\n") { Ok(()) } else { Err(told) }
    });
    drop(both);
    let mut fds = [nix::poll::PollFd::new(reader.as_fd(), nix::poll::PollFlags::POLLIN)];
    let gone = nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(30_000u16)).unwrap();
    assert_eq!(gone, 1, "something still has the file open");
    assert_eq!(reader.read(&mut [0; 16]).unwrap(), 0);
}
