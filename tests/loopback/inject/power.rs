//! Tests of switching many nodes on, a few at a time.

use std::fs;

use super::*;

/// Lines that are open at once, for nodes that say nothing.
struct Rack {
    site: Site,
    names: Vec<String>,
    _listeners: Vec<UnixListener>,
}

impl Rack {
    fn new(nodes: usize) -> Rack {
        let site = Site::new();
        let names: Vec<String> = (1..=nodes).map(|number| format!("rack{number}")).collect();
        let record =
            |name: &String| (format!("{name}.toml"), format!("name = \"{name}\"\nsubject = [\"CN={name}\"]\n"));
        let records: Vec<_> = names.iter().map(record).collect();
        site.state().add_nodes(&records, false, Timestamp::system()).unwrap();
        let listeners = names.iter().map(|name| UnixListener::bind(site.work.path().join(name)).unwrap()).collect();
        Rack { site, names, _listeners: listeners }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.work.path().join(name)
    }

    /// `power`: the command for a node.
    fn inject(&self, power: impl Fn(&str) -> String, words: &[&str]) -> Child {
        let table = |name: &String| {
            format!(
                "[[line]]\nnode = '{name}'\nline = 'unix:{}'\npower = '{}'\n",
                self.path(name).display(),
                power(name)
            )
        };
        fs::write(self.path("lines"), self.names.iter().map(table).collect::<String>()).unwrap();
        Command::new(programs::host())
            .arg("--dir")
            .arg(self.path("state"))
            .args(["inject", "--lines"])
            .arg(self.path("lines"))
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

/// Premise: as many run as may, all of them at once if that is allowed.
#[test]
fn no_more_commands_run_than_are_allowed() {
    for most in [6, 2] {
        let (found, told) = at_the_same_time(most);
        assert_eq!(found, most, "{told}");
        let waits = "waiting: for its turn: 2 at the same time (--power-every, --power-at-once)\n";
        assert_eq!(told.contains(waits), most == 2, "{told}");
    }
}

/// How many of six commands run at the same time, if no more than `most` may: each says when it begins and ends, and ends
/// when it is told to.
fn at_the_same_time(most: usize) -> (usize, String) {
    let rack = Rack::new(6);
    let log = rack.path("log");
    fs::write(&log, "").unwrap();
    let go = |name: &str| rack.path(&format!("{name}.go"));
    let fifos: Vec<File> = rack.names.iter().map(|name| fifo(rack.site.work.path(), &format!("{name}.go")).1).collect();
    let power = |name: &str| {
        let log = log.display();
        format!("echo begin {name} >> {log}; read word < {}; echo end {name} >> {log}", go(name).display())
    };
    let at_once = most.to_string();
    let mut inject = rack.inject(power, &["--window", "60s", "--power-every", "0s", "--power-at-once", &at_once]);
    let until = Instant::now() + Duration::from_secs(60);
    let mut released: Vec<String> = Vec::new();
    loop {
        let text = fs::read_to_string(&log).unwrap();
        if text.matches("end ").count() == 6 {
            break;
        }
        assert!(Instant::now() < until, "{text}");
        let begun: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("begin ")).collect();
        // The next one is let go once as many run as may.
        if released.len() < 6 && begun.len() - released.len() >= most.min(6 - released.len()) {
            let next = begun.iter().find(|name| !released.iter().any(|done| done == *name)).unwrap();
            let index = rack.names.iter().position(|name| name == next).unwrap();
            (&fifos[index]).write_all(b"go\n").unwrap();
            released.push((*next).to_owned());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    inject.kill().unwrap();
    let (_, told) = ended(inject);
    let text = fs::read_to_string(&log).unwrap();
    let (mut running, mut found) = (0usize, 0usize);
    for line in text.lines() {
        running = if line.starts_with("begin ") { running + 1 } else { running - 1 };
        found = found.max(running);
    }
    (found, told)
}

/// The second waits longer for its turn than a node may take to say HELLO, and that wait is not the node's.
#[test]
fn the_window_begins_when_the_power_was_switched() {
    let rack = Rack::new(2);
    let inject = rack.inject(|_| "true".to_owned(), &["--json", "--window", "5s", "--power-every", "6s"]);
    let Output { status, stdout, .. } = inject.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(1));
    let lines = String::from_utf8(stdout).unwrap();
    let events: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for node in &rack.names {
        let at = |event: &str| {
            let found = events.iter().find(|told| told["node"] == node.as_str() && told["event"] == event);
            found.unwrap_or_else(|| panic!("{node} {event}: {lines}"))["seconds"].as_f64().unwrap()
        };
        // At least: a machine that is busy may take longer.
        assert!(at("failed") - at("power") >= 5.0, "{lines}");
    }
    let waited: Vec<_> = events.iter().filter(|told| told["event"] == "waiting").collect();
    assert_eq!(waited.len(), 1, "{lines}");
    assert_eq!(
        waited[0]["detail"],
        "for its turn: one node each 6 s, 8 at the same time (--power-every, --power-at-once)"
    );
}

#[test]
fn the_power_is_switched_once_the_line_is_open() {
    let site = Site::new();
    let mark = site.work.path().join("on");
    let inject = site.inject(&["--power", &format!("touch {}", mark.display())]);
    let (stream, _) = site.listener.accept().unwrap();
    let mut node = Remote::new(stream, UUID, Twist::None);
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!((code, mark.exists()), (Some(0), true), "{told}");
    let inject = site.inject(&["--power", "echo no such outlet >&2; exit 3"]);
    drop(site.listener.accept().unwrap());
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1));
    assert!(told.contains("--power ended with exit status: 3: no such outlet"), "{told}");
}
