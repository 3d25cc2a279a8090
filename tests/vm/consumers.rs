//! Tests that programs of the real root use the identity as docs/consumers.md says, with the files and the command of the page: a
//! unit that starts early, curl, a service with credentials, nginx; and that those that are listed take up a renewed certificate.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use crate::*;

fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn page(name: &str) -> String {
    fs::read_to_string(tree("docs").join(name)).unwrap()
}

/// The blocks of a page that are files: the first line of such a block is its path.
fn files(page: &str) -> Vec<(String, String)> {
    let blocks = page.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    let files = blocks.filter_map(|(_, block)| block.strip_prefix("# /")?.split_once('\n'));
    files.map(|(path, text)| (path.to_owned(), format!("{text}\n"))).collect()
}

/// The block of the page that is a command.
fn command(page: &str) -> &str {
    let blocks: Vec<&str> = page.split("\n```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    let [command] = blocks[..] else { panic!("{blocks:?}") };
    command
}

/// It is told to reload before the others, and fails.
const BROKEN: &str = "[Service]\nExecStart=/bin/sleep 100000\nExecReload=/bin/test -e /run/mended\n\
                      [Install]\nWantedBy=multi-user.target\n";
/// What a service of another project does: it opens the files that it is given, as its own user, and runs.
const EXAMPLE: &str = "#!/bin/sh\ncat \"$2\" \"$4\" \"$6\" >/dev/null || exit 1\nexec sleep 100000\n";

/// The disk of a real root with systemd and nginx, and the files of the page. It has no imprint.target.
fn disk(work: &Path) -> PathBuf {
    let changed = work.join("changed");
    let put = |path: &str, bytes: &[u8], mode: u32| {
        let path = changed.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let read = |path: &str| fs::read(tree(path)).unwrap();
    put("usr/bin/imprint", &read("dist/x86_64/imprint"), 0o755);
    for unit in ["imprint-renew.service", "imprint-reload.service"] {
        put(&format!("usr/lib/systemd/system/{unit}"), &read(&format!("systemd/{unit}")), 0o644);
    }
    put("usr/bin/example", EXAMPLE.as_bytes(), 0o755);
    put("etc/systemd/system/broken.service", BROKEN.as_bytes(), 0o644);
    put("etc/hosts", b"127.0.0.1 localhost node1.example.org\n", 0o644);
    put("var/tmp/.keep", b"", 0o644);
    let (consumers, status) = (page("consumers.md"), page("status.md"));
    put("usr/bin/page-curl", command(&consumers).as_bytes(), 0o755);
    let mut all = files(&consumers);
    assert_eq!(all.len(), 5, "{all:?}");
    // The page leads to it.
    all.extend(files(&status).into_iter().filter(|(path, _)| path == "etc/systemd/system/example.service"));
    all.push(("etc/imprint/reload.d/10-broken.conf".to_owned(), "broken.service\n".to_owned()));
    for (path, text) in &all {
        put(path, text.as_bytes(), 0o644);
    }
    let nginx = output(Command::new(tree("scripts/unpacked")).args(["amd64", "nginx", "nginx-common"]));
    let nginx = Path::new(&nginx);
    put("usr/sbin/nginx", &fs::read(nginx.join("usr/sbin/nginx")).unwrap(), 0o755);
    for file in ["nginx.conf", "mime.types"] {
        put(&format!("etc/nginx/{file}"), &fs::read(nginx.join("etc/nginx").join(file)).unwrap(), 0o644);
    }
    let unit = fs::read(nginx.join("lib/systemd/system/nginx.service")).unwrap();
    put("usr/lib/systemd/system/nginx.service", &unit, 0o644);
    for folder in ["var/lib/nginx/.keep", "var/log/nginx/.keep"] {
        put(folder, b"", 0o644);
    }
    // `systemctl enable` makes the links that the units' [Install] sections ask for.
    for (unit, place) in [
        ("etc/systemd/system/early.service", "sysinit.target"),
        ("etc/systemd/system/example.service", "multi-user.target"),
        ("etc/systemd/system/broken.service", "multi-user.target"),
        ("usr/lib/systemd/system/nginx.service", "multi-user.target"),
    ] {
        let text = fs::read_to_string(changed.join(unit)).unwrap();
        assert!(text.contains(&format!("\nWantedBy={place}\n")), "{unit}: {text}");
        let wants = changed.join(format!("etc/systemd/system/{place}.wants"));
        fs::create_dir_all(&wants).unwrap();
        symlink(format!("/{unit}"), wants.join(Path::new(unit).file_name().unwrap())).unwrap();
    }
    let image = work.join("root.img");
    output(
        Command::new(tree("tests/vm/quickstart/small-root"))
            .args([&image, &changed, &tree("tests/vm/consumers/report")])
            .env("ADD", "/usr/bin/curl")
            .env("LIBRARIES_OF", changed.join("usr/sbin/nginx")),
    );
    image
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What `systemctl show` says of a property.
fn shown<'a>(report: &'a Report, part: &str, property: &str) -> &'a str {
    let line = report.part(part).lines().find_map(|line| line.strip_prefix(property)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {property}: {}", report.part(part)))
}

#[test]
fn programs_use_the_identity_and_take_up_a_renewed_one() {
    // nginx is a server.
    let bind = "{ serial = \"VM-0001\" }\nusages = [\"clientAuth\", \"serverAuth\"]";
    let site = Site::new(Node { bind, ..NODE });
    let disk = disk(site.work.path());
    let report = site.machine(Kernel::Stable).root_disk(&disk).qemu(&["-m", "1024"]).boot();
    let all = format!("{}\n{}", report.part("journal"), report.console);

    // The root has no unit of that name: the initramfs left it.
    assert_eq!(shown(&report, "target", "ActiveState"), "active", "{all}");
    assert_eq!(shown(&report, "target", "FragmentPath"), "/run/systemd/system/imprint.target");
    let moment = |part: &str, property: &str| shown(&report, part, property).parse::<u64>().unwrap();
    let reached = moment("target", "ActiveEnterTimestampMonotonic");
    let early = moment("early", "ExecMainStartTimestampMonotonic");
    assert!(reached > 0 && reached <= early, "{reached} {early}");
    assert!(early < moment("sysinit", "ActiveEnterTimestampMonotonic"), "it is early");
    assert!(report.part("early-said").contains("\"name\": \"node1\""), "{}", report.part("early-said"));

    // Premise: nginx asks for a certificate.
    assert!(report.part("without").contains(" 400"), "{}\n{all}", report.part("without"));
    for turn in ["first", "second", "third"] {
        assert_eq!(report.part(&format!("{turn}-curl")), "CN=node1.example.org", "{turn}: {all}");
        assert_eq!(report.part(&format!("{turn}-served")), "", "{turn}: nginx sends the current certificate");
    }
    let same = |one: &str, other: &str| assert_eq!(report.part(one), report.part(other), "{one}, {other}\n{all}");
    let differ = |one: &str, other: &str| assert_ne!(report.part(one), report.part(other), "{one}, {other}\n{all}");

    // A renewal: one that fails keeps nobody from the new certificate.
    differ("first-current", "second-current");
    assert_eq!(report.part("second-reload").lines().count(), 2);
    assert_eq!(shown(&report, "second-reload", "ExecMainStatus"), "19", "{all}");
    assert_eq!(report.part("second-reloaded"), "2 example.service nginx.service", "{all}");
    same("first-nginx", "second-nginx");
    differ("first-example", "second-example");
    same("first-held", "first-current");
    same("second-held", "second-current");
    assert!(report.part("journal").contains("reload broken.service: systemctl ended with exit status: 1"), "{all}");

    // The next turn: no renewal, and only what had failed.
    same("second-current", "third-current");
    assert_eq!(shown(&report, "third-reload", "Result"), "success", "{all}");
    assert_eq!(report.part("third-reloaded"), "2 broken.service example.service nginx.service", "{all}");
    same("second-example", "third-example");
}
