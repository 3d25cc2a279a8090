//! Tests of a person's answers at a node's console, when the configuration server is away behind them.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::AtomicBool;

use imprint_tests::est_server::{Ending, reply};
use nix::pty::openpty;

use super::lies::{STANDING, etag, lying, node_name, seal};
use super::*;

/// Answers each question that the terminal shows, until it shows no more.
fn answers(mut terminal: File) {
    let (mut seen, mut buffer) = (String::new(), [0; 512]);
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        seen += &String::from_utf8_lossy(&buffer[..count]);
        if !seen.ends_with(": ") {
            continue;
        }
        let question = seen.rsplit('\n').next().unwrap().trim_start();
        let answer = if question.starts_with("host name") {
            "typed"
        } else if question.starts_with("number to change") {
            "yes"
        } else {
            "-"
        };
        seen.clear();
        terminal.write_all(format!("{answer}\r").as_bytes()).unwrap();
    }
}

/// Accident: the server is away once the person has answered everything. The answers are kept until it is there again.
#[test]
fn answers_outlive_a_server_that_is_away() {
    let away = Arc::new(AtomicBool::new(true));
    let is_away = Arc::clone(&away);
    let sealed = std::sync::Mutex::new(None);
    let (_server, node, _home) = lying(Ending::Notify, move |request| match request.head.split(' ').next().unwrap() {
        "PUT" if is_away.load(Ordering::SeqCst) => reply("503 Service Unavailable", &[], b"later"),
        "PUT" => {
            *sealed.lock().unwrap() = Some(seal(&request.body, node_name(), 1, &imprint_tests::signer::Key::p256()));
            reply("201 Created", &[], STANDING.replace("none", "pending").as_bytes())
        }
        _ => match &*sealed.lock().unwrap() {
            Some(sealed) => reply("200 OK", &[etag(sealed)], sealed),
            None => reply("404 Not Found", &[], STANDING.as_bytes()),
        },
    });
    let pty = openpty(None, None).unwrap();
    let path = nix::unistd::ttyname(&pty.slave).unwrap();
    let name = "ttyS0".to_owned();
    let consoles = [Place { name, path, baud: None, set: false, console: false, virtio: false, keys: false }];
    let terminal = File::from(pty.master);
    let person = std::thread::spawn(move || answers(terminal));
    let lines = RefCell::new(Vec::new());
    let said = |line: &str| {
        lines.borrow_mut().push(line.to_owned());
        if line.starts_with("no configuration server answers; what is to be sent is kept") {
            away.store(false, Ordering::SeqCst);
        }
    };
    // As short as the first request can bear: so long the server is asked before the node says anything.
    let timeout = Duration::from_secs(10);
    let boot =
        Boot { timeout, consoles: &consoles, said: &said, meanwhile: &std::thread::yield_now, ..Boot::default() };
    assert_eq!(node.booted(boot).1, "typed", "{lines:?}");
    assert!(!away.load(Ordering::SeqCst), "{lines:?}");
    drop(pty.slave);
    person.join().unwrap();
}
