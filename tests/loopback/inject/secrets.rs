//! Tests of BMC passwords in commands: what every user of the machine can read of the processes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};

use super::*;

const SECRET: &str = "hunter2-5d0c";

/// Ends with the test, whatever becomes of that.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Processes that a process has started, and those that they have: their numbers and arguments (proc(5)).
fn below(top: u32) -> BTreeMap<u32, String> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let Some(pid) = entry.unwrap().file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may be gone by now.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        parents.insert(pid, rest.split(' ').nth(1).unwrap().parse::<u32>().unwrap());
    }
    let is_below = |mut pid: u32| {
        while let Some(parent) = parents.get(&pid) {
            if *parent == top {
                return true;
            }
            pid = *parent;
        }
        false
    };
    let found = parents.keys().filter(|pid| is_below(**pid)).map(|pid| (*pid, arguments(*pid)));
    found.filter(|(_, arguments)| !arguments.is_empty()).collect()
}

fn arguments(pid: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ")
}

/// A FIFO of a site, and what is read from it.
struct Fifo {
    path: PathBuf,
    file: File,
}

impl Fifo {
    fn new(site: &Site, name: &str) -> Fifo {
        let (path, file) = fifo(site.work.path(), name);
        Fifo { path, file }
    }

    fn line(&self) -> String {
        let mut line = String::new();
        BufReader::new(&self.file).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

/// A program that says its password to `to` and then does nothing until it is told to end by `from`.
fn program(site: &Site, name: &str, to: &Fifo, from: &Fifo) -> PathBuf {
    let path = site.work.path().join(name);
    let script =
        format!("echo up\necho \"$BMC_PASSWORD\" > {}\nread word < {}\n", to.path.display(), from.path.display());
    fs::write(&path, script).unwrap();
    path
}

fn start(site: &Site, words: &[&str]) -> Ends {
    let mut host = Command::new(programs::host());
    host.arg("--dir").arg(site.work.path().join("state")).arg("inject").args(words);
    host.env_remove("BMC_PASSWORD").stdin(Stdio::null()).stderr(Stdio::piped());
    Ends(host.spawn().unwrap())
}

/// Premise: what a shell is given as an argument everybody can read, a variable before the command as well.
#[test]
fn a_command_as_an_argument_is_seen() {
    let script = format!("BMC_PASSWORD={SECRET} true; sleep 45; true");
    let shell = Ends(Command::new("/bin/sh").arg("-c").arg(script).spawn().unwrap());
    // It has its arguments once it runs.
    while !arguments(shell.0.id()).contains("sleep 45") {
        std::thread::yield_now();
    }
    let found = below(std::process::id());
    assert!(found.values().any(|words| words.contains(SECRET)), "{found:?}");
    // The sleep goes when its shell is not there to wait for it: it is told to.
    for pid in below(shell.0.id()).keys() {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(*pid).unwrap()),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
}

/// Both commands run, have got their password, and nothing that runs says it.
#[test]
fn no_process_that_is_started_has_a_password_as_an_argument() {
    let site = Site::new();
    let [line_up, power_up, line_end, power_end] =
        ["line-up", "power-up", "line-end", "power-end"].map(|name| Fifo::new(&site, name));
    let line = program(&site, "line.sh", &line_up, &line_end);
    let power = program(&site, "power.sh", &power_up, &power_end);
    let [bare_line, bare_power] = [&line, &power].map(|path| format!("/bin/sh {}; true", path.display()));
    let [own_line, own_power] = [&bare_line, &bare_power].map(|command| format!("BMC_PASSWORD={SECRET} {command}"));
    let file = |name: &str, text: String| {
        let path = site.work.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let table = |line: &str, power: &str, more: &str| {
        format!("[[line]]\nnode = 'node1'\nline = 'exec:{line}'\npower = '{power}'\n{more}")
    };
    let env = format!("env = {{ BMC_PASSWORD = '{SECRET}' }}\n");
    let exec = format!("exec:{own_line}");
    let words = file("words", table(&own_line, &own_power, ""));
    let own = file("own", table(&bare_line, &bare_power, &env));
    let all = file("all", format!("[env]\nBMC_PASSWORD = '{SECRET}'\n{}", table(&bare_line, &bare_power, "")));
    for words in [
        &["node1", "--line", &exec, "--power", &own_power][..],
        &["--lines", &words],
        &["--lines", &own],
        &["--lines", &all],
    ] {
        let mut inject = start(&site, words);
        // In the order in which they come up, and both are there then.
        assert_eq!((line_up.line().as_str(), power_up.line().as_str()), (SECRET, SECRET), "{words:?}");
        let found = below(inject.0.id());
        let runs = |name: &str| found.values().any(|words| words.ends_with(&format!("/{name} ")));
        assert!(runs("line.sh") && runs("power.sh"), "{found:?}");
        assert!(!found.values().any(|words| words.contains(SECRET)), "{found:?}");
        // Its own arguments are what the operator has made of them.
        assert_eq!(arguments(inject.0.id()).contains(SECRET), words[0] == "node1");
        // The text of the command ends with the shell, and goes to nothing that the shell starts.
        for (pid, words) in found.iter().filter(|(_, words)| words.ends_with(".sh ")) {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
            assert!(!String::from_utf8_lossy(&environment).contains("IMPRINT_COMMAND"), "{words}");
        }
        (&power_end.file).write_all(b"go\n").unwrap();
        (&line_end.file).write_all(b"go\n").unwrap();
        inject.0.kill().unwrap();
        let mut told = String::new();
        inject.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert!(!told.contains(SECRET), "{told}");
        assert_eq!(told.contains("warning: --line holds a password (BMC_PASSWORD=…), "), words[0] == "node1", "{told}");
        assert_eq!(
            told.contains("warning: --power holds a password (BMC_PASSWORD=…), "),
            words[0] == "node1",
            "{told}"
        );
    }
}

/// Pipes, quotes, several lines and exit codes are the shell's, as they were when the text was its argument.
#[test]
fn a_command_is_the_shells_in_all_its_forms() {
    let site = Site::new();
    let mark = site.work.path().join("mark");
    for (command, want) in [
        ("echo one | tr a-z A-Z > MARK", "ONE\n"),
        ("printf '%s|%s' 'a b' \"c'd\" > MARK", "a b|c'd"),
        ("X='a b'; echo \"$X$$\" | sed 's/[0-9]*$//' > MARK # a comment", "a b\n"),
        ("cat > MARK <<END\nfirst\nsecond\nEND\n", "first\nsecond\n"),
        ("echo \"${IMPRINT_COMMAND-unset}\" > MARK", "unset\n"),
    ] {
        let _ = fs::remove_file(&mark);
        let command = format!("{}\nexit 3", command.replace("MARK", mark.to_str().unwrap()));
        let inject = site.inject(&["--power", &command]);
        drop(site.listener.accept().unwrap());
        let (code, told) = ended(inject);
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("--power ended with exit status: 3: \n"), "{told}");
        assert_eq!(fs::read_to_string(&mark).unwrap(), want, "{command}");
    }
}

/// `node1 exec:conman node1 | tee log`: the line was started without its pipe, and `tee log` was run as the power command.
#[test]
fn a_pipe_of_a_line_is_not_run_as_the_power_command() {
    let site = Site::new();
    let [mark, log] = ["mark", "log"].map(|name| site.work.path().join(name));
    let lines = site.work.path().join("lines");
    let line = format!("exec:echo connected; sleep 45 | tee {}", log.display());
    fs::write(&lines, format!("# rack 1\nnode1 {line}\n")).unwrap();
    let run = || {
        let mut inject = Command::new(programs::host());
        inject.arg("--dir").arg(site.work.path().join("state")).args(["inject", "--window", "2s", "--lines"]);
        let output = inject.arg(&lines).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = run();
    assert_eq!(code, Some(1));
    let place =
        format!("imprint-host: {}:2: after exec: a | could be a pipe or start the power command; ", lines.display());
    assert!(told.starts_with(&place) && !log.exists(), "{told}");
    let power = format!("echo on | tee {}", mark.display());
    fs::write(&lines, format!("[[line]]\nnode = 'node1'\nline = '{line}'\npower = '{power}'\n")).unwrap();
    let (code, told) = run();
    assert_eq!((code, log.exists()), (Some(1), true), "{told}");
    assert!(told.contains("node1: power: switched\n"), "{told}");
    assert_eq!(fs::read_to_string(mark).unwrap(), "on\n");
}

/// A file of lines that others can read, while it holds passwords.
#[test]
fn a_file_that_others_can_read_is_told_of() {
    let site = Site::new();
    let lines = site.work.path().join("lines");
    let line = format!("unix:{}", site.work.path().join("nowhere").display());
    let table = |more: &str| format!("[[line]]\nnode = 'node1'\nline = '{line}'\n{more}\n");
    let shown = lines.display();
    let open =
        format!("imprint-host: warning: {shown} holds passwords, and others can read it; run: chmod 600 {shown}\n");
    let argument = "imprint-host: warning: node1: its command has a password as an argument (-P …), which every user of this \
                    machine can read. Give it in a variable: ";
    for (text, mode, is_open, is_argument) in [
        (table("power = 'true'\nenv = { IPMI_PASSWORD = 'x' }"), 0o644, true, false),
        (table("power = 'true'\nenv = { IPMI_PASSWORD = 'x' }"), 0o640, true, false),
        (table("power = 'true'\nenv = { IPMI_PASSWORD = 'x' }"), 0o600, false, false),
        (table("power = 'IPMI_PASSWORD=x true'"), 0o644, true, false),
        (table("power = 'ipmitool -P x power on'"), 0o600, false, true),
        (table("power = 'true'"), 0o644, false, false),
    ] {
        fs::write(&lines, &text).unwrap();
        fs::set_permissions(&lines, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let mut inject = Command::new(programs::host());
        inject.arg("--dir").arg(site.work.path().join("state")).args(["inject", "--window", "1s", "--lines"]);
        let told = String::from_utf8(inject.arg(&lines).output().unwrap().stderr).unwrap();
        assert_eq!((told.contains(&open), told.contains(argument)), (is_open, is_argument), "{text}{told}");
    }
}
