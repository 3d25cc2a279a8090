//! Test of docs/quickstart.md: takes the commands from the page and runs them on copies of this machine. Then two machines
//! boot from the changed copies: one serves, the other comes up with its certificate.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::super::{Kernel, Machine, Report};

/// The page is for people, who have other things to do.
const MOST: usize = 15;

fn tests() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Commands by the heading above them. A command is a line, with its here-document. What the console shows is none.
fn commands(page: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut place, mut heading, mut lines) = (String::new(), String::new(), page.lines());
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("## ") {
            heading = name.to_owned();
            place.clone_from(&heading);
        }
        // Where one heading has commands of both machines.
        if let Some(name) = line.strip_suffix(':').filter(|name| name.starts_with("On the ")) {
            place = format!("{heading}: {name}");
        }
        if line != "```" {
            continue;
        }
        let block = found.entry(place.clone()).or_default();
        while let Some(line) = lines.next().filter(|line| *line != "```") {
            let mut command = line.to_owned();
            if let Some((_, mark)) = line.split_once("<<'") {
                let mark = mark.trim_end_matches('\'');
                for line in lines.by_ref() {
                    command = format!("{command}\n{line}");
                    if line == mark {
                        break;
                    }
                }
            }
            block.push(command);
        }
    }
    for block in found.values_mut() {
        block.retain(|command| !command.starts_with("imprint: "));
    }
    found.retain(|_, block| !block.is_empty());
    found
}

/// What the commands print; what they have changed is in `out`.
fn rehearse(commands: &[String], kernel: &Path, out: &Path) -> String {
    let temporary = out.join("tmp");
    fs::create_dir_all(&temporary).unwrap();
    let file = out.join("commands");
    fs::write(&file, commands.join("\n") + "\n").unwrap();
    let script = tests().join("vm/quickstart/rehearse");
    let output = Command::new(script).args([out, kernel, &temporary, &file]).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    said.into_owned()
}

/// A disk with what the commands have changed, whose last service runs `report`, which runs `then`.
fn disk(out: &Path, report: &str, then: &[String]) -> PathBuf {
    fs::write(out.join("disk/etc/page-commands"), then.join("\n") + "\n").unwrap();
    let image = out.join("root.img");
    let output = Command::new(tests().join("vm/quickstart/small-root"))
        .args([&image, &out.join("disk"), &tests().join("vm/quickstart").join(report)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    image
}

fn kernel() -> PathBuf {
    let output = Command::new(tests().join("../scripts/kernel")).arg("stable").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// What `systemctl show` says, in any order.
#[track_caller]
fn is(report: &Report, part: &str, want: &[&str]) {
    let mut said: Vec<&str> = report.part(part).lines().collect();
    let mut want = want.to_vec();
    said.sort_unstable();
    want.sort_unstable();
    assert_eq!(said, want, "{part}: {}", report.console);
}

#[test]
fn every_command_of_the_quickstart_works_as_it_stands_on_the_page() {
    let page = fs::read_to_string(tests().join("../docs/quickstart.md")).unwrap();
    let mut blocks = commands(&page);
    let count: usize = blocks.values().map(Vec::len).sum();
    assert!((5..=MOST).contains(&count), "{count} commands: {blocks:#?}");
    let mut take = |place: &str| blocks.remove(place).unwrap_or_else(|| panic!("no commands under {place}"));
    let (on_server, mut on_node) = (take("On the server"), take("On the node"));
    let (see_node, see_server) = (take("Look at it: On the node"), take("Look at it: On the server"));
    assert!(blocks.is_empty(), "commands that nothing here runs: {blocks:#?}");
    assert_eq!(on_node.pop().as_deref(), Some("reboot"), "the last one on the node; here it is a machine that boots");

    let work = tempfile::tempdir().unwrap();
    let (server, node) = (work.path().join("server"), work.path().join("node"));
    let kernel = kernel();
    let said = rehearse(&on_server, &kernel, &server);
    // What `init` printed goes where the page says.
    let (_, digest) = said.split_once("sha256 ").unwrap_or_else(|| panic!("no digest: {said}"));
    let digest = digest.split_whitespace().next().unwrap();
    assert!(on_node.iter().any(|command| command.contains("DIGEST")), "{on_node:#?}");
    let on_node: Vec<String> = on_node.iter().map(|command| command.replace("DIGEST", digest)).collect();
    rehearse(&on_node, &kernel, &node);
    let boot = fs::read_dir(node.join("disk/boot")).unwrap().map(|entry| entry.unwrap().path());
    let images: Vec<PathBuf> = boot.collect();
    assert_eq!(images.len(), 1, "{images:?}");
    let initramfs = work.path().join("initramfs");
    fs::rename(&images[0], &initramfs).unwrap();

    // One cable between the two.
    let cable = work.path().join("cable");
    let network = |end: &str| format!("stream,id=net,server={end},addr.type=unix,addr.path={}", cable.display());
    let machine = |image: &Path, end: &str, address: &str| {
        let card = format!("virtio-net-pci,netdev=net,addr=8,mac={address}");
        let machine = Machine::new(Kernel::Stable).root_disk(image).without_network().limit(Duration::from_secs(1200));
        machine.qemu(&["-netdev", &network(end), "-device", &card, "-m", "1024"])
    };
    let serving = machine(&disk(&server, "server-report", &see_server), "on", "52:54:00:00:00:01");
    let serving = serving.append("imprint=off").rtc("utc");
    let booting = machine(&disk(&node, "node-report", &see_node), "off", "52:54:00:00:00:02");
    let booting = booting.initramfs_image(&initramfs).optical(&server.join("tree/node1.iso"));
    let (server, node) = std::thread::scope(|scope| {
        let server = scope.spawn(|| serving.boot());
        // QEMU makes the socket when it starts; the other end wants it to be there.
        while !cable.exists() && !server.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let node = booting.boot();
        (server.join().unwrap(), node)
    });

    let all = format!("{}\n{}", node.part("commands"), node.console);
    assert!(node.part("commands").contains("done"), "{all}");
    assert!(node.part("cert").starts_with("-----BEGIN CERTIFICATE-----"), "{all}");
    assert!(!node.console.contains("no site pin"), "{all}");
    assert_eq!(node.part("hostname"), "node1");
    assert!(server.part("commands").contains("node1"), "{}", server.part("commands"));
    is(&server, "unit", &["ActiveState=active", "NRestarts=0"]);
    assert_eq!(server.part("user"), "imprint-host 700\nimprint-host 600");

    // The timer is there without anybody's doing, and its service, in its sandbox, replaces key and certificate.
    is(&node, "timer", &["Triggers=imprint-renew.service", "ActiveState=active"]);
    for part in ["if-due-result", "renew-result"] {
        is(&node, part, &["Result=success", "ExecMainStatus=0"]);
    }
    assert!(node.part("renew-journal").contains("renewal due from"), "{}", node.part("renew-journal"));
    assert!(node.part("renew-journal").contains("renewed by https://192.0.2.1:8443"), "{}", node.part("renew-journal"));
    assert_ne!(node.part("renewed"), node.part("cert"));
    let files = "/run/imprint/cert.pem 777 root\n/run/imprint/current/cert.pem 644 root\n/run/imprint/ready 644 root\n\
                 /run/imprint/private 700 root\n/run/imprint/private/key.pem 777 root";
    assert_eq!(node.part("files"), files);
}
