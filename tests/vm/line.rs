//! Tests of machines without a network: payload, time and certificate come over a serial line like those of hypervisors and
//! servers.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use imprint_tests::programs;

use crate::*;

/// A host with one node, which has no network, and a place for sockets.
pub(super) struct Host {
    work: tempfile::TempDir,
}

impl Host {
    pub(super) fn new() -> Host {
        let work = tempfile::tempdir().unwrap();
        let url = EstUrl::try_from("https://est.example.org:8443/.well-known/est").unwrap();
        let mut state = State::init(&work.path().join("state"), &[url], Timestamp::system()).unwrap();
        let record = "name = \"node1\"\nsubject = [\"CN=node1.example.org\"]\nsans = [\"dns:node1.example.org\"]\n\
                      hostname = \"node1\"\nbind = { serial = \"VM-0001\" }\n";
        state.add_nodes(&[("node1.toml".to_owned(), record.to_owned())], false, Timestamp::system()).unwrap();
        Host { work }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// `imprint-host inject node1` with these words.
    pub(super) fn inject(&self, words: &[&str]) -> Inject {
        let mut command = Command::new(programs::host());
        command.arg("--dir").arg(self.path("state")).args(["inject", "node1", "--timeout", "400s"]).args(words);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Inject(Some(child))
    }

    /// The certificate that the store has for the node.
    pub(super) fn certificate_of(&self, report: &Report) {
        let state = State::open(&self.path("state")).unwrap();
        let log = state.store.log(100).unwrap();
        let events: Vec<&str> = log.iter().map(|row| row.event.as_str()).collect();
        assert!(events.contains(&"enrolled"), "{events:?}");
        assert!(report.file_names().contains(&"private/key.pem"), "{:?}", report.file_names());
    }
}

/// Does not outlive its test.
pub(super) struct Inject(Option<Child>);

impl Inject {
    /// Exit code and what it told.
    pub(super) fn ended(mut self) -> (Option<i32>, String) {
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Inject {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(super) const SMBIOS: [&str; 2] = ["-smbios", "type=1,serial=VM-0001"];

/// What a machine without a network has to come up with.
pub(super) fn certified(host: &Host, report: &Report, told: &(Option<i32>, String), origin: &str) {
    assert_eq!(told.0, Some(0), "{}\n{}", told.1, report.console);
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{}", report.console);
    let status = report.status();
    assert_eq!((status.outcome, status.origin.as_deref()), (Outcome::Done, Some(origin)));
    // The machine's own clock says 2019.
    let clock = status.steps.iter().find(|step| step.name == "clock").unwrap();
    assert!(clock.detail.contains(" by the line, to within "), "{}\n{}", clock.detail, told.1);
    report.was_set("system clock", report.date());
    host.certificate_of(report);
}

/// A unix socket at the machine's console, as virsh console has one.
pub(super) fn console(host: &Host) -> (String, String) {
    let socket = host.path("console");
    (format!("socket,path={},server=on,wait=off", socket.display()), format!("unix:{}", socket.display()))
}

/// A unix socket at another port of the machine: a chardev of the name `line`.
pub(super) fn second_line(host: &Host) -> (String, String) {
    let socket = host.path("line");
    let chardev = format!("socket,id=line,path={},server=on,wait=off", socket.display());
    (chardev, format!("unix:{}", socket.display()))
}

/// The kernel's own settings of a console, which an agent has to leave behind.
fn sane(report: &Report) {
    let stty = report.part("stty");
    for setting in [" icanon ", " echo ", " opost ", " icrnl ", " isig "] {
        assert!(format!(" {} ", stty.replace(['\n', ';'], " ")).contains(setting), "{setting} in {stty}");
    }
}

/// Nobody says where: the host hears the agent on the console, and calls.
#[track_caller]
fn the_console_itself(init: Init, kernel: Kernel) {
    let host = Host::new();
    let (chardev, line) = console(&host);
    let log = host.path("log");
    let inject = host.inject(&["--line", &line, "--call", "--log", log.to_str().unwrap()]);
    let report = Machine::new(kernel).init(init).without_network().qemu(&SMBIOS).console(&chardev).boot();
    certified(&host, &report, &inject.ended(), "line ttyS0");
    sane(&report);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("imprint: source: line ttyS0"), "{log}");
    // A terminal echoes what the host sends before the agent listens. An echo that ends where the agent takes the terminal
    // is text, and the agent's words follow on its line or on the next.
    let lines: Vec<&str> = log.lines().collect();
    let is_frame = |line: &str| line.len() > 20 && line.starts_with('#') && !line.contains("imprint: ");
    let shown = lines
        .iter()
        .enumerate()
        .find(|(at, line)| is_frame(line) && !lines.get(at + 1).is_some_and(|next| next.starts_with("imprint: ")));
    assert_eq!(shown, None, "{log}");
}

#[test]
fn boots_systemd_serial() {
    the_console_itself(Init::Systemd, Kernel::Stable);
}

#[test]
fn boots_plain_serial() {
    the_console_itself(Init::Plain, Kernel::Backports);
}

#[test]
fn boots_initramfs_tools_serial() {
    the_console_itself(Init::InitramfsTools, Kernel::Stable);
}

/// While the console is a line systemd's status lines are off: afterwards systemd says as much as before, and where it
/// said little it says no more. One signal too far, and it would log at debug level with its status off.
#[test]
fn systemd_says_as_much_afterwards_as_before() {
    for quiet in [true, false] {
        let host = Host::new();
        let (chardev, line) = console(&host);
        let inject = host.inject(&["--line", &line, "--call"]);
        let machine = Machine::new(Kernel::Stable).without_network().qemu(&SMBIOS).console(&chardev);
        let report = if quiet { machine } else { machine.without_quiet() }.boot();
        certified(&host, &report, &inject.ended(), "line ttyS0");
        sane(&report);
        let shown = if quiet { "LogLevel=info\nShowStatus=no" } else { "LogLevel=info\nShowStatus=yes" };
        assert_eq!((report.part("systemd-before"), report.part("systemd")), (shown, shown), "{}", report.console);
    }
}

/// The same when the boot is stopped.
#[test]
fn systemd_says_as_much_as_before_when_the_boot_is_stopped() {
    let host = Host::new();
    let (chardev, line) = console(&host);
    let inject = host.inject(&["--line", &line, "--call"]);
    let report = Machine::new(Kernel::Stable)
        .without_network()
        .without_quiet()
        .initramfs_file("imprint/site", format!("{}\n", "00".repeat(32)).as_bytes())
        .qemu(&SMBIOS)
        .console(&chardev)
        .boot();
    let told = inject.ended();
    assert_eq!((told.0, report.exit_code()), (Some(1), 13), "{}\n{}", told.1, report.console);
    let shown = "LogLevel=info\nShowStatus=yes";
    assert_eq!((report.part("systemd-before"), report.part("systemd")), (shown, shown), "{}", report.console);
}

#[test]
fn a_virtio_port_of_that_name() {
    let host = Host::new();
    let (chardev, line) = second_line(&host);
    let inject = host.inject(&["--line", &line]);
    let report = Machine::new(Kernel::Stable)
        .init(Init::Bare)
        .without_network()
        .qemu(&SMBIOS)
        .qemu(&["-chardev", &chardev, "-device", "virtserialport,chardev=line,name=imprint.0"])
        .boot();
    certified(&host, &report, &inject.ended(), "line virtio imprint.0");
}

/// Somebody pastes, and a line gets lost.
#[test]
fn by_hand_at_the_console() {
    let site = Site::new(NODE);
    let text = text_of(&site);
    let socket = site.work.path().join("console");
    let chardev = format!("socket,path={},server=on,wait=off", socket.display());
    let person = std::thread::spawn(move || {
        let mut line = connected(&socket);
        let mut seen = String::new();
        until(&mut line, &mut seen, "--as text");
        for (index, words) in text.lines().enumerate() {
            let words = if index == 4 { words.replacen(&words[9..12], "+++", 1) } else { words.to_owned() };
            std::io::Write::write_all(&mut line, format!("{words}\n").as_bytes()).unwrap();
        }
        until(&mut line, &mut seen, "missing or garbled: line 5; paste again");
        std::io::Write::write_all(&mut line, format!("{}\n", text.lines().nth(4).unwrap()).as_bytes()).unwrap();
        until(&mut line, &mut seen, "hand-over: ");
        seen
    });
    let report = Machine::new(Kernel::Stable)
        .init(Init::Plain)
        .append("imprint-test.console")
        .qemu(&["-smbios", "type=1,serial=VM-0001"])
        .console(&chardev)
        .boot();
    let seen = person.join().unwrap();
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{seen}");
    assert_eq!(report.status().origin.as_deref(), Some("line ttyS0 (not sealed)"));
    assert!(
        seen.contains("imprint: UUID ") && seen.contains("serial number VM-0001") && seen.contains("link e"),
        "{seen}"
    );
    sane(&report);
}

/// `imprint-host payload node1 --as text`
pub(super) fn text_of(site: &Site) -> String {
    let mut state = State::open(&site.work.path().join("state")).unwrap();
    let options = compose::Options { expires: DAY, medium: compose::Medium::Text, ..Default::default() };
    let payload = state.payload("node1", &options, Timestamp::system()).unwrap();
    let text = String::from_utf8(compose::text(&payload.bytes).to_vec()).unwrap();
    assert!(text.lines().all(|line| line.len() <= 76), "{text}");
    text
}

pub(super) fn connected(socket: &std::path::Path) -> std::os::unix::net::UnixStream {
    let start = std::time::Instant::now();
    loop {
        match std::os::unix::net::UnixStream::connect(socket) {
            Ok(stream) => return stream,
            // QEMU makes it; nothing tells when.
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(super) fn until(line: &mut std::os::unix::net::UnixStream, seen: &mut String, words: &str) {
    // No limit here: that of the machine ends it, and the line with it.
    line.set_read_timeout(None).unwrap();
    let from = seen.len();
    let mut buffer = [0; 1024];
    while !seen[from..].contains(words) {
        let count = std::io::Read::read(line, &mut buffer).unwrap_or_else(|error| panic!("{error}: {seen}"));
        assert!(count > 0, "the console ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(buffer.get(..count).unwrap()));
    }
}

/// A console server that speaks telnet, which QEMU is when asked.
#[test]
fn a_telnet_server() {
    let host = Host::new();
    let reserved = Reserved::new();
    let port = reserved.port();
    let chardev = format!("socket,id=line,host=127.0.0.1,port={port},server=on,wait=off,telnet=on");
    let inject = host.inject(&["--line", &format!("telnet:127.0.0.1:{port}")]);
    let report = Machine::new(Kernel::Stable)
        .init(Init::Bare)
        .without_network()
        .append("imprint.source=serial:ttyS1")
        .qemu(&SMBIOS)
        .qemu(&["-chardev", &chardev, "-serial", "chardev:line"])
        .boot();
    certified(&host, &report, &inject.ended(), "line ttyS1");
}

#[test]
fn serial_over_lan_by_ipmitool() {
    serial_over_lan(
        |lan| format!("ipmitool -I lanplus -C 3 -H 127.0.0.1 -p {lan} -U ipmiusr -P test sol activate"),
        "SOL Session operational",
    );
}

/// Another implementation of IPMI.
#[test]
fn serial_over_lan_by_pyghmi() {
    let python = imprint_tests::programs::python();
    let bridge = concat!(env!("CARGO_MANIFEST_DIR"), "/python/sol_bridge.py");
    serial_over_lan(|lan| format!("{} {bridge} 127.0.0.1 {lan} ipmiusr test", python.display()), "imprint: ");
}

/// A BMC: IPMI 2.0 serial-over-LAN, the console at its other end.
fn serial_over_lan(command: impl Fn(u16) -> String, greeting: &str) {
    let host = Host::new();
    // The second is one of UDP: the kernel gives both kinds from the same range, and whoever has a number of the one kind
    // seldom wants it of the other.
    let (line_port, lan_port) = (Reserved::new(), Reserved::new());
    let (serial, lan) = (line_port.port(), lan_port.port());
    let configuration = format!(
        "name \"test\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {lan}\n    priv_limit admin\n    \
         allowed_auths_callback none md2 md5 straight\n    allowed_auths_user none md2 md5 straight\n    \
         allowed_auths_operator none md2 md5 straight\n    allowed_auths_admin none md2 md5 straight\n    \
         guid a123456789abcdefa123456789abcdef\n  endlan\n  sol \"tcp:127.0.0.1:{serial}\" 115200\n  \
         user 2 true \"ipmiusr\" \"test\" admin 10 none md2 md5 straight\n"
    );
    std::fs::write(host.path("lan.conf"), configuration).unwrap();
    let commands = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
                    sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";
    std::fs::write(host.path("bmc.emu"), commands).unwrap();
    std::fs::create_dir(host.path("bmc")).unwrap();
    let mut simulator = Command::new("ipmi_sim");
    simulator.arg("-c").arg(host.path("lan.conf")).arg("-f").arg(host.path("bmc.emu")).arg("-s").arg(host.path("bmc"));
    simulator.arg("-n").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let chardev = format!("socket,host=127.0.0.1,port={serial},server=on,wait=on");
    let line = format!("exec:{}", command(lan));
    let log = host.path("log");
    let machine = std::thread::spawn(move || {
        Machine::new(Kernel::Stable).without_network().append("imprint=require").qemu(&SMBIOS).console(&chardev).boot()
    });
    // QEMU waits for it, and it for QEMU.
    let start = std::time::Instant::now();
    while !line_port.is_listened_on() {
        assert!(start.elapsed() < PATIENCE, "no machine");
        std::thread::sleep(Duration::from_millis(50));
    }
    let _simulator = Inject(Some(simulator.spawn().expect("ipmi_sim: run scripts/install-needs sol")));
    let inject = host.inject(&["--line", &line, "--log", log.to_str().unwrap()]);
    let report = machine.join().unwrap();
    let told = inject.ended();
    assert!(!told.1.contains("test"), "the command holds a password: {}", told.1);
    certified(&host, &report, &told, "line ttyS0");
    sane(&report);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains(greeting) && log.contains("hand-over: /run/imprint"), "{log}");
}

/// The firmware says where its console is, and how fast; nobody else does.
#[test]
fn the_firmwares_serial_console() {
    let host = Host::new();
    // Microsoft, "Serial Port Console Redirection Table", revision 2: what follows the header of an ACPI table, which QEMU
    // makes. A 16550 at I/O port 0x2f8 (ttyS1), 57600 baud.
    let mut table = vec![0u8; 80 - 36];
    table[4..8].copy_from_slice(&[1, 8, 0, 1]);
    table[8..10].copy_from_slice(&[0xf8, 0x02]);
    table[58 - 36] = 6;
    std::fs::write(host.path("spcr"), &table).unwrap();
    let acpi = format!("sig=SPCR,rev=2,data={}", host.path("spcr").display());
    let (chardev, line) = second_line(&host);
    let inject = host.inject(&["--line", &line]);
    let report = Machine::new(Kernel::Stable)
        .init(Init::Bare)
        .without_network()
        .append("imprint=require")
        .qemu(&SMBIOS)
        .qemu(&["-acpitable", &acpi, "-chardev", &chardev, "-serial", "chardev:line"])
        .boot();
    certified(&host, &report, &inject.ended(), "line ttyS1");
    assert!(report.console.contains("ttyS1 at 57600"), "{}", report.console);
}

/// A node that does not want what it is given says so to the host, and the host to the operator.
#[test]
fn a_node_that_refuses_its_payload_tells_the_host() {
    let host = Host::new();
    let (chardev, line) = second_line(&host);
    let inject = host.inject(&["--line", &line]);
    let report = Machine::new(Kernel::Stable)
        .without_network()
        .initramfs_file("imprint/site", format!("{}\n", "00".repeat(32)).as_bytes())
        .append("imprint.source=serial:ttyS1,115200")
        .qemu(&SMBIOS)
        .qemu(&["-chardev", &chardev, "-serial", "chardev:line"])
        .boot();
    let (code, told) = inject.ended();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("node1: failed: the node says: plan: ") && told.contains("site"), "{told}");
    assert_eq!(report.exit_code(), 13);
    assert!(!report.file_names().contains(&"private/key.pem"));
}

#[test]
fn a_second_serial_port_at_its_own_speed() {
    let host = Host::new();
    let (chardev, line) = second_line(&host);
    let inject = host.inject(&["--line", &line]);
    let report = Machine::new(Kernel::Stable)
        .init(Init::Bare)
        .without_network()
        .append("imprint.source=serial:ttyS1,115200")
        .qemu(&SMBIOS)
        .qemu(&["-chardev", &chardev, "-serial", "chardev:line"])
        .boot();
    certified(&host, &report, &inject.ended(), "line ttyS1");
}

/// The port is there, but no host has opened its other end: what is said there goes nowhere, and holds up nothing.
#[test]
fn a_virtio_port_with_nobody_at_its_other_end() {
    let host = Host::new();
    let (chardev, _) = second_line(&host);
    let report = Machine::new(Kernel::Stable)
        .init(Init::Bare)
        .append("imprint=auto")
        .qemu(&["-chardev", &chardev, "-device", "virtserialport,chardev=line,name=imprint.0"])
        .boot();
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{}", report.console);
    assert_eq!(report.status().outcome, Outcome::Absent);
}

/// Whoever is at the other end reads nothing. Giving the line back takes its time, but not for ever.
#[test]
fn a_line_whose_other_end_reads_nothing() {
    use std::os::unix::fs::OpenOptionsExt;
    let host = Host::new();
    let end = |way: &str| host.path(&format!("line.{way}"));
    for way in ["in", "out"] {
        nix::unistd::mkfifo(&end(way), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let full = std::fs::OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(end("out"));
    let mut full = full.unwrap();
    while std::io::Write::write(&mut full, &[0; 4096]).is_ok() {}
    let report = Machine::new(Kernel::Stable)
        .without_network()
        .append("imprint.source=serial:ttyS1,115200 imprint.timeout=5")
        .qemu(&["-chardev", &format!("pipe,id=line,path={}", host.path("line").display()), "-serial", "chardev:line"])
        .boot();
    stopped(&report, 11, "source", "no host spoke on ttyS1 at 115200");
}
