//! Tests of `imprint reload`: units that are listed take up a renewed certificate, each once, and one that fails keeps nobody
//! else from it. systemctl is a stand-in here; tests/vm/consumers.rs has the real one.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use imprint_tests::programs;
use imprint_tests::served::Served;

const NODE1: &str = "name = \"node1\"\nsubject = [\"CN=node1\"]\nsans = [\"dns:node1.example\"]\n";

/// It notes what it is told, and answers what the file of the unit says. The word `fails` in that file makes it fail.
const SYSTEMCTL: &str = "#!/bin/sh\nshift 2\nfor unit; do :; done\ncase $1 in\n\
                         show) cat \"$NOTES/$unit\" 2>/dev/null || echo LoadState=not-found ;;\n\
                         *) echo \"$*\" >>\"$NOTES/told\"; ! grep -q fails \"$NOTES/$unit\" ;;\nesac\n";
const RUNS: &str = "LoadState=loaded\nActiveState=active\nCanReload=yes\n";

/// Exit code, and what it said.
fn ended(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

struct Machine {
    work: tempfile::TempDir,
    served: Served,
}

impl Machine {
    fn new() -> Machine {
        let machine = Machine { work: tempfile::tempdir().unwrap(), served: Served::start(&[NODE1], &[]) };
        let payload = machine.path("payload");
        machine.served.host(&["payload", "node1", "-o", payload.to_str().unwrap()]);
        let mut agent = Command::new(programs::agent());
        let enrolled = ended(agent.args(["enroll", "--payload"]).arg(&payload).arg("--out").arg(machine.path("id")));
        assert_eq!(enrolled.0, Some(0), "{}", enrolled.1);
        for folder in ["notes", "etc/imprint/reload.d"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        machine.put("notes/systemctl", SYSTEMCTL, 0o755);
        for folder in ["etc/imprint", "etc/imprint/reload.d"] {
            fs::set_permissions(machine.path(folder), Permissions::from_mode(0o755)).unwrap();
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn put(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    fn reload_in(&self, folder: &str) -> (Option<i32>, String) {
        let path = format!("{}:{}", self.path("notes").display(), std::env::var("PATH").unwrap());
        let mut agent = Command::new(programs::agent());
        agent.args(["reload", "--dir"]).arg(self.path(folder));
        ended(agent.env("IMPRINT_ROOT", self.work.path()).env("NOTES", self.path("notes")).env("PATH", path))
    }

    /// Exit code, what it said, and what systemctl was told.
    fn reload(&self) -> (Option<i32>, String, Vec<String>) {
        let (code, said) = self.reload_in("id");
        let told = fs::read_to_string(self.path("notes/told")).unwrap_or_default();
        let _ = fs::remove_file(self.path("notes/told"));
        (code, said, told.lines().map(ToOwned::to_owned).collect())
    }

    fn renew(&self) {
        let (code, said) = ended(Command::new(programs::agent()).args(["renew", "--dir"]).arg(self.path("id")));
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn after_a_renewal_each_unit_is_told_once_and_one_that_fails_again() {
    let machine = Machine::new();
    machine.put("etc/imprint/reload.d/10.conf", "broken.service\nproxy.service\n", 0o644);
    machine.put("etc/imprint/reload.d/20.conf", "restart database.service\nstopped.service", 0o644);
    for unit in ["proxy.service", "database.service"] {
        machine.put(&format!("notes/{unit}"), RUNS, 0o644);
    }
    machine.put("notes/broken.service", &format!("{RUNS}fails\n"), 0o644);
    machine.put("notes/stopped.service", &RUNS.replace("=active", "=inactive"), 0o644);
    // Without a renewal all have started with what is there.
    let (code, said, told) = machine.reload();
    assert_eq!((code, told.len()), (Some(0), 0), "{said}");
    assert!(said.contains("was not renewed yet, nothing to reload"), "{said}");

    machine.renew();
    let (code, said, told) = machine.reload();
    let all = ["reload -- broken.service", "reload -- proxy.service", "try-restart -- database.service"];
    assert_eq!((code, &told[..]), (Some(19), &all.map(ToOwned::to_owned)[..]), "{said}");
    assert!(
        said.contains("reload broken.service: systemctl ended with exit status: 1; see journalctl -u broken.service"),
        "{said}"
    );
    assert!(said.contains("stopped.service does not run; it gets the new certificate when it starts"), "{said}");
    assert!(said.contains("hand-over: 1 of what etc/imprint/reload.d lists failed, see above"), "{said}");

    // The timer's next turn.
    let (code, _, told) = machine.reload();
    assert_eq!((code, &told[..]), (Some(19), &all[..1].iter().map(|told| (*told).to_owned()).collect::<Vec<_>>()[..]));
    machine.put("notes/broken.service", RUNS, 0o644);
    let (code, said, told) = machine.reload();
    assert_eq!((code, told.len()), (Some(0), 1), "{said}");
    let (code, said, told) = machine.reload();
    assert_eq!((code, told.len()), (Some(0), 0), "{said}");
    assert!(said.contains("4 units have the current certificate, nothing to reload"), "{said}");

    machine.renew();
    assert_eq!(machine.reload().2, all, "another certificate");
}

/// The accident: a typing error, a unit that has nothing to reload with, and a file that everybody can write. Each is told in
/// words, also before the first renewal, and the other units get their certificate.
#[test]
fn what_is_wrong_with_the_list_is_told_and_takes_nothing_from_the_others() {
    let machine = Machine::new();
    machine.put("etc/imprint/reload.d/10.conf", "misspelt.service\nplain.service\nnginx\nproxy.service\n", 0o644);
    machine.put("etc/imprint/reload.d/20.conf", "other.service", 0o666);
    machine.put("notes/proxy.service", RUNS, 0o644);
    machine.put("notes/plain.service", &RUNS.replace("CanReload=yes", "CanReload=no"), 0o644);
    let (code, said, told) = machine.reload();
    assert_eq!((code, told.len()), (Some(19), 0), "{said}");
    assert!(said.contains("reload.d/10.conf is \"nginx\": want a unit, such as nginx.service"), "{said}");
    assert!(
        said.contains("reload.d/20.conf belongs to user 0 and has mode 0666, so others than root could say"),
        "{said}"
    );
    machine.renew();
    let (code, said, told) = machine.reload();
    assert_eq!((code, &told[..]), (Some(19), &["reload -- proxy.service".to_owned()][..]), "{said}");
    assert!(said.contains("systemd does not know misspelt.service; correct its name in "), "{said}");
    assert!(
        said.contains("plain.service cannot be reloaded (it has no ExecReload=); if a restart does no harm"),
        "{said}"
    );
    assert!(said.contains("4 of what etc/imprint/reload.d lists failed"), "{said}");
}

#[test]
fn without_an_identity_there_is_nothing_to_take_up() {
    let machine = Machine::new();
    let (code, said) = machine.reload_in("notes");
    assert_eq!(code, Some(19), "{said}");
    assert!(said.contains("node.json, which imprint run or imprint enroll writes; run one of them first"), "{said}");
}
