//! Tests of terminals between host and node that are narrower than a frame, and of programs that read their terminal's
//! width.

use super::*;

/// What comes from the node is broken after so many columns, or cut there; to the node it goes as it is. Ends with either.
fn terminal(node: UnixStream, host: UnixStream, columns: usize, line_break: Option<&'static [u8]>) {
    let (to_node, from_host) = (node.try_clone().unwrap(), host.try_clone().unwrap());
    std::thread::spawn(move || {
        pass(from_host, &to_node);
        let _ = to_node.shutdown(std::net::Shutdown::Both);
    });
    std::thread::spawn(move || {
        let (mut node, mut host) = (node, host);
        let (mut buffer, mut column) = ([0; 4096], 0);
        while let Ok(count @ 1..) = node.read(&mut buffer) {
            let mut shown = Vec::new();
            for byte in &buffer[..count] {
                let printed = !b"\r\n".contains(byte);
                if printed && column >= columns {
                    let Some(line_break) = line_break else { continue };
                    shown.extend(line_break);
                    column = 0;
                }
                column = if printed { column + 1 } else { 0 };
                shown.push(*byte);
            }
            if host.write_all(&shown).is_err() {
                break;
            }
        }
        let _ = host.shutdown(std::net::Shutdown::Both);
    });
}

/// Nothing of what such a node says arrived, and nobody said why.
#[test]
fn a_console_server_that_breaks_lines_is_named_and_the_node_gets_its_certificate() {
    for (columns, line_break) in [(80, b"\r\n"), (80, b"\r\r"), (132, b"\r\n")] {
        let site = Site::new();
        let inject = site.inject(&[]);
        let (host, _) = site.listener.accept().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        terminal(far, host, columns, Some(line_break));
        let mut node = Remote::new(near, UUID, Twist::None);
        node.run(|node| node.over);
        let (code, told) = ended(inject);
        assert_eq!(code, Some(0), "{told}");
        let line = format!(
            "node1: line: something on the way breaks lines after {columns} columns; broken frames are joined again, but \
             set the terminal or console server on the way to 255 columns or more\n"
        );
        assert_eq!(told.matches(&line).count(), 1, "{told}");
    }
}

/// HELLO does not arrive whole, whatever the host does.
#[test]
fn a_console_server_that_cuts_lines_is_named() {
    patiently(Duration::from_secs(8), |window| {
        let site = Site::new();
        let line = format!("unix:{}", site.work.path().join("line").display());
        let inject = Command::new(programs::host())
            .arg("--dir")
            .arg(site.work.path().join("state"))
            .args(["inject", "node1", "--line", &line, "--window", &format!("{}s", window.as_secs())])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (host, _) = site.listener.accept().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        terminal(far, host, 80, None);
        Remote::new(near, UUID, Twist::None).run(|node| node.over);
        let (code, told) = ended(inject);
        assert_eq!(code, Some(1), "{told}");
        let words = "the same frame came 3 times with the same damage, at 80 columns: something on the way cuts lines";
        // In its own line, and with the outcome.
        let times = told.matches(words).count();
        if times == 2 && told.contains(&format!("speaks first: --call; {words}")) { Ok(()) } else { Err(told) }
    });
}

/// The host is told of the terminal: no frame of it or of the node is longer, HELLO but.
#[test]
fn columns_that_were_named_are_kept_by_both_ends() {
    let site = Site::new();
    let line = format!("unix:{},9600,columns=80", site.work.path().join("line").display());
    let inject = Command::new(programs::host())
        .arg("--dir")
        .arg(site.work.path().join("state"))
        .args(["inject", "node1", "--window", "100s", "--line", &line])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (host, _) = site.listener.accept().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let recorded: [_; 2] = std::array::from_fn(|_| std::sync::Arc::new(std::sync::Mutex::new(Vec::new())));
    let ways = [(host.try_clone().unwrap(), far.try_clone().unwrap()), (far, host)];
    for ((mut from, mut to), record) in ways.into_iter().zip(&recorded) {
        let record = std::sync::Arc::clone(record);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                record.lock().unwrap().extend(&buffer[..count]);
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
    }
    let mut node = Remote::new(near, UUID, Twist::None);
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("node1: listening: unix:") && told.contains(",9600,columns=80\n"), "{told}");
    for record in &recorded {
        let record = record.lock().unwrap();
        let frames = record.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"#0S"));
        let longest = frames.map(|line| line.trim_ascii_end().len()).max().unwrap();
        assert_eq!(longest, 79);
    }
}

/// Many programs that show a console look how wide their terminal is, and break lines there. The terminal of a command had
/// 80 columns.
#[test]
fn a_program_that_breaks_lines_at_the_width_of_its_terminal_breaks_no_frame() {
    let site = Site::new();
    let (down, up, node) = behind_fifos(&site);
    let shows = "while IFS= read -r line; do printf '%s\\n' \"$line\" | fold -w \"$columns\"; done";
    let line = format!(
        "exec:columns=$(stty size | cut -d' ' -f2); ({shows} < {}) & exec cat > {}",
        up.display(),
        down.display()
    );
    let output = Command::new(programs::host())
        .arg("--dir")
        .arg(site.work.path().join("state"))
        .args(["inject", "node1", "--window", "100s", "--line", &line])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    node.join().unwrap();
    assert!(!told.contains("columns"), "{told}");
}
