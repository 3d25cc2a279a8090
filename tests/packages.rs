//! Tests of what is given away: Debian packages, and the bills of materials. They need root, what `make build` built, and a small
//! Debian in the cache (scripts/debian-chroot), into which packages are installed below an overlay. No network, no machine.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail tests by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const PACKAGES: [&str; 4] = ["imprint", "imprint-dracut", "imprint-host", "imprint-initramfs-tools"];
const NONE: Option<&str> = None;

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Runs a command, and shows all of it when it fails.
#[track_caller]
fn output(command: &mut Command) -> String {
    let done = command.env_remove("MAKEFLAGS").output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(done.status.success(), "{command:?}: {said}");
    said
}

/// The packages of this tree in `out`, by name.
fn make(out: &Path, version: Option<&str>) -> BTreeMap<String, PathBuf> {
    let programs = tree().join("dist/x86_64");
    assert!(programs.join("imprint-host").exists(), "{} has no programs: run make build", programs.display());
    output(Command::new(tree().join("scripts/make-deb")).arg("amd64").arg(programs).arg(out).args(version));
    packages(out)
}

fn packages(out: &Path) -> BTreeMap<String, PathBuf> {
    let files = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path());
    let name = |file: &Path| file.file_name().unwrap().to_str().unwrap().split_once('_').unwrap().0.to_owned();
    let made: BTreeMap<_, _> = files.map(|file| (name(&file), file)).collect();
    assert_eq!(made.keys().collect::<Vec<_>>(), PACKAGES);
    made
}

/// What Debian's own check calls an error keeps a package out of most archives.
#[test]
fn lintian_has_no_error() {
    let out = tempfile::tempdir().unwrap();
    let made = make(out.path(), None);
    // Debian's archive would want a bug number; nobody has asked for these packages there.
    let said = output(
        Command::new("lintian").args(["--fail-on", "error", "--allow-root", "--show-overrides"]).args(made.values()),
    );
    println!("{said}");
    assert!(!said.contains("unused-override"), "{said}");
}

/// The agent is built for aarch64 by the tests of virtual machines; the host tool is not, so a file stands in its place here, and nobody
/// looks at its package.
#[test]
fn packages_for_arm64_have_its_agent_and_no_error() {
    let work = tempfile::tempdir().unwrap();
    let (programs, out) = (work.path().join("programs"), work.path().join("out"));
    fs::create_dir(&programs).unwrap();
    let agent = tree().join("dist/aarch64/imprint");
    for name in ["imprint", "imprint-host"] {
        fs::copy(&agent, programs.join(name))
            .unwrap_or_else(|error| panic!("{}: {error}: run make agent-aarch64", agent.display()));
    }
    output(Command::new(tree().join("scripts/make-deb")).arg("arm64").args([&programs, &out]));
    let mut made = packages(&out);
    made.remove("imprint-host");
    for (name, file) in &made {
        let architecture = output(Command::new("dpkg-deb").arg("-f").arg(file).arg("Architecture"));
        assert_eq!(architecture.trim(), if name == "imprint" { "arm64" } else { "all" }, "{name}");
    }
    let unpacked = work.path().join("unpacked");
    output(Command::new("dpkg-deb").arg("-x").args([&made["imprint"], &unpacked]));
    let program = fs::read(unpacked.join("usr/bin/imprint")).unwrap();
    // e_machine: EM_AARCH64
    assert_eq!((&program[..4], &program[18..20]), (&b"\x7fELF"[..], &[183, 0][..]));
    // With --show-overrides it fails at an error that is overridden, too.
    let check = ["--fail-on", "error", "--allow-root"];
    let said = output(Command::new("lintian").args(check).args(made.values()));
    assert!(!said.contains("unused-override"), "{said}");
}

/// Who builds again must get the same bytes, whatever his shell and his clock are; and what `make install` installs is in one
/// package, or on the list of what is left out.
#[test]
fn another_maker_gets_the_same_bytes_and_no_file_is_forgotten() {
    let (one, another) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mine = make(one.path(), None);
    // Programs that were copied later, with other times, by somebody with another umask in another time zone.
    let programs = another.path().join("programs");
    let make_again =
        "umask 027; mkdir \"$1\"; cp dist/x86_64/imprint* \"$1\"; exec scripts/make-deb amd64 \"$1\" \"$2\"";
    let out = another.path().join("out");
    let mut shell = Command::new("sh");
    shell.args(["-c", make_again, "sh"]).args([&programs, &out]).current_dir(tree());
    output(shell.envs([("TZ", "Pacific/Kiritimati"), ("LC_ALL", "C.UTF-8"), ("TMPDIR", "/var/tmp")]));
    for (name, theirs) in packages(&out) {
        assert!(fs::read(&mine[&name]).unwrap() == fs::read(theirs).unwrap(), "{name} differs");
    }

    let installed = one.path().join("root");
    output(
        Command::new("make")
            .args(["-s", "-C"])
            .arg(tree())
            .args(["install".to_owned(), format!("DESTDIR={}", installed.display())]),
    );
    let left_out = fs::read_to_string(tree().join("packaging/deb/not-installed")).unwrap();
    let left_out: Vec<&str> = left_out.lines().filter(|line| !line.starts_with('#')).collect();
    let listed = output(Command::new("find").arg(&installed).args(["-type", "f", "-printf", "%P\n"]));
    let want: BTreeSet<String> = listed
        .lines()
        .filter(|path| !left_out.iter().any(|out| path == out || path.starts_with(&format!("{out}/"))))
        .map(|path| if path.contains("/share/man/") { format!("{path}.gz") } else { path.to_owned() })
        .collect();
    let mut found = BTreeMap::<String, Vec<&str>>::new();
    for (name, file) in &mine {
        for line in output(Command::new("dpkg-deb").arg("-c").arg(file)).lines() {
            assert!(line.contains(" root/root "), "{line}");
            if line.starts_with('-') {
                found.entry(line.split_once(" ./").unwrap().1.to_owned()).or_default().push(name);
            }
        }
    }
    let twice: Vec<_> = found.iter().filter(|(_, names)| names.len() != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    // What a Debian package has besides.
    let added = ["copyright", "changelog.gz", "changelog.Debian.gz", "third-party-licences.gz"];
    let is_added = |path: &str| {
        path.starts_with("usr/share/lintian/") || added.iter().any(|name| path.ends_with(&format!("/{name}")))
    };
    let found: BTreeSet<String> = found.into_keys().filter(|path| !is_added(path)).collect();
    assert_eq!(found, want);
}

/// A Debian that is thrown away: the one of the cache, below an overlay in memory.
struct Debian {
    root: PathBuf,
    _work: tempfile::TempDir,
}

impl Debian {
    /// In namespaces of its own, without a network.
    fn new() -> Debian {
        let cached = output(&mut Command::new(tree().join("scripts/debian-chroot")));
        let cached = cached.lines().last().unwrap();
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("this test makes namespaces: run it as root");
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
        let work = tempfile::tempdir().unwrap();
        mount(Some("tmpfs"), work.path(), Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
        let [upper, scratch, root] = ["upper", "scratch", "root"].map(|name| {
            let folder = work.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
            folder
        });
        let options = format!("lowerdir={cached},upperdir={},workdir={}", upper.display(), scratch.display());
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
        mount(Some("proc"), &root.join("proc"), Some("proc"), MsFlags::empty(), NONE).unwrap();
        mount(Some("/dev"), &root.join("dev"), NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE).unwrap();
        Debian { root, _work: work }
    }

    /// What a shell in it says.
    #[track_caller]
    fn shell(&self, script: &str) -> String {
        let mut chroot = Command::new("chroot");
        chroot.arg(&self.root).args(["/bin/sh", "-ec", script]).env_clear();
        output(chroot.envs([
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("LC_ALL", "C"),
            ("DEBIAN_FRONTEND", "noninteractive"),
        ]))
    }

    /// Installs as README says, with the dependencies that are there: nothing can be downloaded.
    fn install(&self, version: &str, names: &[&str]) {
        let files: Vec<String> = names.iter().map(|name| format!("/{version}/{name}_*.deb")).collect();
        self.shell(&format!("apt-get install -y {}", files.join(" ")));
    }

    /// What an operator has made: each file with its owner, mode and content, each link with its target.
    fn kept(&self) -> String {
        self.shell(
            "find /var/lib/imprint-host /etc/imprint /etc/dracut.conf.d/imprint.conf /etc/initramfs-tools/conf.d \
             /etc/systemd/system -name '*imprint*' -o -path '*imprint*' | LC_ALL=C sort | while read -r path; do \
             stat -c '%n %U:%G %a' \"$path\"; readlink \"$path\" || [ ! -f \"$path\" ] || sha256sum <\"$path\"; done",
        )
    }

    fn enabled(&self, unit: &str) -> String {
        self.shell(&format!("systemctl is-enabled {unit} || true")).trim().to_owned()
    }
}

/// Turns a package into one of another version: with a document that later ones do not have, and another text in one that they have.
fn other_content(package: &Path) {
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("package");
    output(Command::new("dpkg-deb").arg("-R").args([package, &folder]));
    let documents = folder.join("usr/share/doc/imprint");
    fs::write(documents.join("gone.md"), "of the old version\n").unwrap();
    fs::write(documents.join("README.md"), "of the old version\n").unwrap();
    output(Command::new("dpkg-deb").args(["--root-owner-group", "-Zxz", "--build"]).args([&folder, package]));
}

/// The accidents: an upgrade that forgets what an operator has set; a purge that takes the only CA of a site with it; a package
/// that starts a server before there is anything to serve, or leaves rubbish behind.
#[test]
fn a_ca_survives_upgrade_removal_and_purge() {
    let debian = Debian::new();
    let new = format!("{}-1", env!("CARGO_PKG_VERSION"));
    for version in ["0.0.9-1", &new] {
        let out = debian.root.join(version);
        fs::create_dir(&out).unwrap();
        let made = make(&out, Some(version));
        if version == "0.0.9-1" {
            other_content(&made["imprint"]);
        }
    }
    // An image builder puts its files in place first; nobody may be asked whose are right.
    debian.shell(
        "mkdir -p /etc/imprint /etc/dracut.conf.d /etc/initramfs-tools/conf.d; echo pin >/etc/imprint/site; \
         echo 'add_dracutmodules+=\" imprint \"' >/etc/dracut.conf.d/imprint.conf; \
         echo 'export IMPRINT=yes' >/etc/initramfs-tools/conf.d/imprint",
    );

    debian.install("0.0.9-1", &PACKAGES);
    assert_eq!(debian.shell("stat -c '%U:%G %a' /var/lib/imprint-host"), "imprint-host:imprint-host 700\n");
    let user = debian.shell("getent passwd imprint-host");
    assert!(user.ends_with(":/var/lib/imprint-host:/usr/sbin/nologin\n"), "{user}");
    let units = debian.shell("dpkg -L imprint imprint-host | sed -n 's:^/usr/lib/systemd/system/::p'");
    assert!(units.lines().count() >= 7, "{units}");
    for unit in units.lines() {
        assert!(
            ["disabled", "indirect", "static"].contains(&debian.enabled(unit).as_str()),
            "{unit} {}",
            debian.enabled(unit)
        );
    }
    let modules = debian.shell("mkdir -p /lib/modules/none; dracut --list-modules --kver none 2>&1");
    assert!(modules.lines().any(|module| module == "imprint"), "{modules}");
    let hook =
        debian.shell("ls -l /usr/share/initramfs-tools/hooks/imprint /usr/share/initramfs-tools/scripts/*/imprint");
    assert!(hook.lines().count() >= 2 && hook.lines().all(|line| line.starts_with("-rwxr-xr-x")), "{hook}");
    assert!(debian.shell("imprint version").contains(env!("CARGO_PKG_VERSION")));

    // The operator's part.
    debian.shell(
        "imprint-host init --url https://192.0.2.1:8443/.well-known/est; \
         systemctl enable imprint-host.service imprint-renew.timer; mkdir /etc/systemd/system/imprint-host.service.d; \
         echo '[Service]' >/etc/systemd/system/imprint-host.service.d/site.conf",
    );
    let made = debian.kept();
    assert!(made.contains("/var/lib/imprint-host/root.key imprint-host:imprint-host 600"), "{made}");
    assert!(made.contains("timers.target.wants/imprint-renew.timer"), "{made}");
    let user = debian.shell("id imprint-host");

    let documents = "cd /usr/share/doc/imprint; head -qn 1 README.md gone.md 2>/dev/null || true";
    assert_eq!(debian.shell(documents), "of the old version\n".repeat(2), "the premise");

    debian.install(&new, &PACKAGES);
    assert_eq!(debian.shell(documents), "# imprint\n");
    let versions = debian.shell("dpkg-query -W -f '${Version} ${db:Status-Status}\\n' 'imprint*'");
    assert_eq!(versions, format!("{new} installed\n").repeat(PACKAGES.len()));
    assert_eq!(debian.kept(), made);

    // As on a system that runs: what the packages ask of systemd.
    debian.shell(
        "mkdir -p /run/systemd/system; mv /usr/bin/deb-systemd-invoke /usr/bin/deb-systemd-invoke.real; \
         printf '#!/bin/sh\\necho \"$*\" >>/asked\\n' >/usr/bin/deb-systemd-invoke; chmod 755 /usr/bin/deb-systemd-invoke",
    );
    let asked = || {
        let said = debian.shell("sort /asked; rm /asked");
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let names = PACKAGES.join(" ");
    debian.shell(&format!("apt-get remove -y {names}"));
    assert_eq!(asked(), ["stop imprint-host.service", "stop imprint-renew.timer"]);
    assert_eq!(debian.shell("ls /usr/bin/imprint* 2>/dev/null || true"), "");
    assert_eq!(debian.kept(), made);
    debian.install(&new, &PACKAGES);
    // Debian's program starts what is enabled, and nothing else.
    assert_eq!(asked(), ["restart imprint-host.service", "start imprint-renew.timer"]);
    debian.shell("rm -r /run/systemd/system; mv /usr/bin/deb-systemd-invoke.real /usr/bin/deb-systemd-invoke");
    assert_eq!((debian.kept(), debian.enabled("imprint-host.service").as_str()), (made.clone(), "enabled"));
    assert_eq!(debian.shell("id imprint-host"), user);

    let said = debian.shell(&format!("apt-get purge -y {names}"));
    assert!(said.contains("imprint-host: /var/lib/imprint-host is kept: it may have the only copy"), "{said}");
    // All but the links that enabled the units, which lead nowhere now.
    let links = |line: &&str| !line.contains(".wants/imprint-") && !line.contains("/lib/systemd/system/imprint-");
    let want: Vec<&str> = made.lines().filter(links).collect();
    assert_eq!(debian.kept().lines().collect::<Vec<_>>(), want);
    let rubbish = debian.shell(&format!(
        "find / -xdev -name '*imprint*' ! -path '/0.0.9-1*' ! -path '/{new}*' ! -path '/var/lib/imprint-host*' \
         ! -path '/etc/imprint*'"
    ));
    let mut rubbish: Vec<&str> = rubbish.lines().collect();
    rubbish.sort_unstable();
    assert_eq!(
        rubbish,
        [
            "/etc/dracut.conf.d/imprint.conf",
            "/etc/initramfs-tools/conf.d/imprint",
            "/etc/systemd/system/imprint-host.service.d"
        ]
    );

    // Where there never was a CA, nothing stays. The server needs no agent.
    debian.shell("rm -r /var/lib/imprint-host");
    debian.install(&new, &["imprint-host"]);
    let said = debian.shell("apt-get purge -y imprint-host; test ! -e /var/lib/imprint-host");
    assert!(!said.contains("is kept"), "{said}");
}

/// A bill that lacks what is in the program hides the next hole from whoever reads it. Panics name their source files, so the
/// program itself says which crates are in it; other people's reader says whether the form is right.
#[test]
fn a_bill_of_materials_has_what_is_in_the_program() {
    let lock = fs::read_to_string(tree().join("Cargo.lock")).unwrap();
    for (program, c_code) in [("imprint", &["aws-lc"][..]), ("imprint-host", &["aws-lc", "mimalloc", "sqlite"])] {
        let file = tree().join("dist/x86_64").join(program);
        let bytes = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}: run make build", file.display()));
        let text =
            output(Command::new(tree().join("scripts/sbom")).args([program, "x86_64-unknown-linux-musl"]).arg(&file));
        let work = tempfile::NamedTempFile::new().unwrap();
        fs::write(work.path(), &text).unwrap();
        let python = imprint_tests::programs::cache().join("bill/bin/python3");
        assert!(python.exists(), "{} is missing: run scripts/install-needs deb", python.display());
        let reader = tree().join("tests/python/bill.py");
        assert_eq!(output(Command::new(python).arg(reader).arg(work.path())), "valid\n");

        let bill: serde_json::Value = serde_json::from_str(&text).unwrap();
        let required = |name: &str, version: Option<&str>| {
            bill["components"].as_array().unwrap().iter().any(|one| {
                one["name"] == name
                    && version.is_none_or(|version| one["version"] == version)
                    && one["scope"] == "required"
            })
        };
        // …/registry/src/index.crates.io-0123456789abcdef/NAME-VERSION/src/…
        let words = String::from_utf8_lossy(&bytes);
        let named: BTreeSet<&str> =
            words.split("/index.crates.io-").skip(1).filter_map(|rest| rest.split('/').nth(1)).collect();
        assert!(named.len() > 10, "{program} names no source files: {named:?}");
        for one in named {
            let at =
                one.match_indices('-').map(|(at, _)| at).find(|at| one.as_bytes()[at + 1].is_ascii_digit()).unwrap();
            assert!(required(&one[..at], Some(&one[at + 1..])), "the bill of {program} lacks {one}");
        }
        assert!(c_code.iter().all(|name| required(name, None)) && required("rust-std", None), "{text}");
        for component in bill["components"].as_array().unwrap() {
            assert!(component["licenses"][0]["expression"].is_string(), "{component}");
            let (name, version) = (component["name"].as_str().unwrap(), component["version"].as_str().unwrap());
            let Some(digest) = component["hashes"][0]["content"].as_str() else { continue };
            let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            let (_, entry) = lock.split_once(&entry).unwrap_or_else(|| panic!("Cargo.lock has no {name} {version}"));
            assert!(entry.split("\n\n").next().unwrap().contains(digest), "{name}");
        }
        let hosts = ["axum", "clap", "rusqlite"].iter().filter(|name| required(name, None)).count();
        assert_eq!(hosts, if program == "imprint" { 0 } else { 3 });
        assert!(!required("proptest", None) && !required("dhcproto", None));
    }
}
