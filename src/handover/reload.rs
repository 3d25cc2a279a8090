//! Which services take up a renewed certificate: the units that the files of `/etc/imprint/reload.d` list, and which of them have
//! taken up the current one. Root of this system vouches for the list, because root does what it says: so a file that anybody
//! else could have written is refused. Never tells a unit anything.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use super::{HandoverError, NODE, generation, is_complete, put};
use crate::payload::UnitName;
use crate::shown::Printable;

/// The folder of the list, below the root.
pub const FOLDER: &str = "etc/imprint/reload.d";
/// The folders that root has to own: whoever can write one of them can exchange what is below it.
const FOLDERS: [&str; 2] = ["etc/imprint", FOLDER];
/// What the names of its files end in.
const ENDING: &str = "conf";
/// The most that a file may have.
const MAX_LEN: u64 = 64 * 1024;
/// Which generation of the certificate was taken up, and by which units.
const RELOADED: &str = "reloaded";

/// What a running unit is told after a renewal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// To reload: it goes on with its work.
    Reload,
    /// To restart: it loses its connections and what it has in memory, so it has to be asked for.
    Restart,
}

/// A unit of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The unit.
    pub unit: UnitName,
    /// What it is told.
    pub how: How,
    /// The file that lists it.
    pub file: PathBuf,
}

/// What the files list, in the order of their names, and what is wrong with them.
#[derive(Debug, Default)]
pub struct List {
    /// Each unit once. One that two files list is restarted if one of them says so.
    pub units: Vec<Listed>,
    /// Files and lines that do not count.
    pub wrong: Vec<ReloadError>,
}

/// Reads the list. What is wrong in one file, or in one line, takes nothing away from the others.
pub fn list(root: &Path) -> List {
    let mut list = List::default();
    match files(root) {
        Ok(files) => files.iter().for_each(|file| list.add(file)),
        Err(error) => list.wrong.push(error),
    }
    list
}

impl List {
    fn add(&mut self, file: &Path) {
        let text = match text(file) {
            Ok(text) => text,
            Err(error) => return self.wrong.push(error),
        };
        for (line, number) in text.lines().zip(1_usize..) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (how, unit) = match line.split_once(char::is_whitespace) {
                Some(("restart", unit)) => (How::Restart, unit.trim_start()),
                _ => (How::Reload, line),
            };
            match UnitName::try_from(unit) {
                Ok(unit) => self.unit(Listed { unit, how, file: file.to_owned() }),
                Err(_) => {
                    self.wrong.push(ReloadError::Line { path: file.to_owned(), number, line: Printable::of(line) })
                }
            }
        }
    }

    fn unit(&mut self, listed: Listed) {
        match self.units.iter_mut().find(|known| known.unit == listed.unit) {
            Some(known) if listed.how == How::Restart => *known = listed,
            Some(_) => {}
            None => self.units.push(listed),
        }
    }
}

/// The files of the list, by name. Without the folder there are none.
fn files(root: &Path) -> Result<Vec<PathBuf>, ReloadError> {
    for folder in FOLDERS {
        let path = root.join(folder);
        let Some(found) = metadata(&path)? else { return Ok(Vec::new()) };
        only_roots(&path, &found, found.is_dir())?;
    }
    let folder = root.join(FOLDER);
    let failed = |source| ReloadError::Read { path: folder.clone(), source };
    let entries = fs::read_dir(&folder).map_err(failed)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>().map_err(failed)?;
    let mut files: Vec<PathBuf> =
        paths.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == ENDING)).collect();
    files.sort();
    Ok(files)
}

fn text(path: &Path) -> Result<String, ReloadError> {
    let failed = |source| ReloadError::Read { path: path.to_owned(), source };
    let Some(found) = metadata(path)? else { return Ok(String::new()) };
    // Only root can exchange it between this look and the next line: the folder is root's.
    only_roots(path, &found, found.is_file())?;
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_LEN.saturating_add(1)).read_to_string(&mut text))
        .map_err(failed)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > MAX_LEN) {
        return Err(ReloadError::TooLong(path.to_owned()));
    }
    Ok(text)
}

/// Does not follow a link. `None`: it is not there.
fn metadata(path: &Path) -> Result<Option<fs::Metadata>, ReloadError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some).map_err(|source| ReloadError::Read { path: path.to_owned(), source }),
    }
}

/// Refuses what others than the user that imprint runs as, which is root, could have written.
fn only_roots(path: &Path, found: &fs::Metadata, is_kind: bool) -> Result<(), ReloadError> {
    let (path, user, mode) = (path.to_owned(), found.uid(), found.mode() & 0o7777);
    if !is_kind {
        return Err(ReloadError::Kind(path));
    }
    if user != nix::unistd::geteuid().as_raw() || mode & 0o022 != 0 {
        return Err(ReloadError::Others { path, user, mode });
    }
    Ok(())
}

/// Which units have taken up the current certificate.
#[derive(Debug)]
pub struct TakenUp {
    directory: PathBuf,
    generation: u32,
    units: BTreeSet<String>,
}

/// Which units have taken up the certificate in this folder. `None`: it is the first one, with which they have started.
pub fn taken_up(directory: &Path) -> Result<Option<TakenUp>, HandoverError> {
    let Some(generation) = generation::current(directory)? else {
        return match is_complete(directory) {
            // Plain files of a version that made no generations; a renewal makes one.
            true => Ok(None),
            false => Err(HandoverError::Read {
                path: directory.join(NODE),
                source: io::Error::from(io::ErrorKind::NotFound),
            }),
        };
    };
    let path = directory.join(RELOADED);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if generation <= generation::FIRST {
                return Ok(None);
            }
            String::new()
        }
        text => text.map_err(|source| HandoverError::Read { path, source })?,
    };
    let mut words = text.split_whitespace();
    // What was taken up of another generation says nothing about this one.
    let same = words.next().and_then(|word| word.parse().ok()) == Some(generation);
    let units = words.filter(|_| same).map(ToOwned::to_owned).collect();
    Ok(Some(TakenUp { directory: directory.to_owned(), generation, units }))
}

impl TakenUp {
    /// Whether this unit has.
    pub fn by(&self, unit: &UnitName) -> bool {
        self.units.contains(unit.as_str())
    }

    /// Records that this unit has, so that it is not told again when others have to be.
    pub fn record(&mut self, unit: &UnitName) -> Result<(), HandoverError> {
        self.units.insert(unit.as_str().to_owned());
        let units: String = self.units.iter().map(|unit| format!(" {unit}")).collect();
        put(&self.directory, RELOADED, format!("{}{units}\n", self.generation).as_bytes(), 0o644)
    }
}

/// Why a unit was not reloaded.
#[derive(Debug)]
pub enum ReloadError {
    /// A file or folder of the list cannot be read.
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A link, or something else than a file or folder, has the name of one.
    Kind(PathBuf),
    /// Others than root could have written it.
    Others {
        /// The file or folder.
        path: PathBuf,
        /// Its owner.
        user: u32,
        /// Its permissions.
        mode: u32,
    },
    /// The file is longer than any list.
    TooLong(PathBuf),
    /// A line names no unit.
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number.
        number: usize,
        /// Its words.
        line: Printable,
    },
    /// systemctl cannot be run.
    Systemctl(io::Error),
    /// systemd does not know the unit.
    Unknown(Listed),
    /// The unit has nothing to reload with.
    CannotReload(Listed),
    /// systemctl failed.
    Failed {
        /// What it was told.
        verb: &'static str,
        /// The unit.
        unit: UnitName,
        /// How systemctl ended.
        status: ExitStatus,
    },
    /// systemctl did not end.
    Late {
        /// What it was told.
        verb: &'static str,
        /// The unit.
        unit: UnitName,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Some of the list failed; each was told before.
    Left {
        /// How many.
        failed: usize,
    },
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReloadError::Read { path, .. } => write!(f, "reading {}, which lists what is reloaded", path.display()),
            ReloadError::Kind(path) => write!(
                f,
                "{} is a link or something else that imprint does not read; put a plain file or folder of root's there",
                path.display()
            ),
            ReloadError::Others { path, user, mode } => {
                let path = path.display();
                write!(
                    f,
                    "{path} belongs to user {user} and has mode {mode:04o}, so others than root could say what is reloaded; look \
                     at it, then run chown root {path} and chmod go-w {path}"
                )
            }
            ReloadError::TooLong(path) => write!(f, "{} has more than {MAX_LEN} bytes; shorten it", path.display()),
            ReloadError::Line { path, number, line } => write!(
                f,
                "line {number} of {} is \"{line}\": want a unit, such as nginx.service, or restart and a unit",
                path.display()
            ),
            ReloadError::Systemctl(_) => {
                f.write_str("running systemctl, which reloads the units; only a system with systemd has it")
            }
            ReloadError::Unknown(Listed { unit, file, .. }) => {
                write!(f, "systemd does not know {unit}; correct its name in {}, or remove it there", file.display())
            }
            ReloadError::CannotReload(Listed { unit, file, .. }) => write!(
                f,
                "{unit} cannot be reloaded (it has no ExecReload=); if a restart does no harm, write \"restart {unit}\" in {}",
                file.display()
            ),
            ReloadError::Failed { verb, unit, status } => {
                write!(f, "{verb} {unit}: systemctl ended with {status}; see journalctl -u {unit}")
            }
            ReloadError::Late { verb, unit, waited } => {
                write!(f, "{verb} {unit}: not done after {} s; see systemctl status {unit}", waited.as_secs())
            }
            ReloadError::Left { failed } => write!(
                f,
                "{failed} of what {FOLDER} lists failed, see above; the certificate is renewed all the same, and imprint-renew.timer \
                 has it tried again"
            ),
        }
    }
}

impl std::error::Error for ReloadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReloadError::Read { source, .. } | ReloadError::Systemctl(source) => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Tree {
            let tree = Tree(tempfile::tempdir().unwrap());
            fs::create_dir_all(tree.folder()).unwrap();
            mode(&tree.folder(), 0o755);
            mode(tree.folder().parent().unwrap(), 0o755);
            tree
        }

        fn folder(&self) -> PathBuf {
            self.0.path().join(FOLDER)
        }

        fn put(&self, name: &str, text: &str) -> PathBuf {
            let path = self.folder().join(name);
            fs::write(&path, text).unwrap();
            mode(&path, 0o644);
            path
        }

        fn units(&self) -> Vec<(How, String)> {
            let list = list(self.0.path());
            assert!(list.wrong.is_empty(), "{:?}", list.wrong);
            list.units.into_iter().map(|listed| (listed.how, listed.unit.to_string())).collect()
        }

        /// What is wrong, in words, without the folder of the test.
        fn wrong(&self) -> Vec<String> {
            let root = format!("{}/", self.0.path().display());
            list(self.0.path()).wrong.iter().map(|error| error.to_string().replace(&root, "/")).collect()
        }
    }

    #[test]
    fn units_come_in_the_order_of_the_files_and_each_once() {
        let tree = Tree::new();
        assert_eq!(list(Path::new("/nowhere")).units, []);
        tree.put("20-b.conf", "b.service # the proxy\n\n# c.service\n  restart \t d@x.socket\na.service\n");
        tree.put("10-a.conf", "a.service\nd@x.socket");
        tree.put("10-a.conf.dpkg-old", "old.service");
        tree.put("README", "Put files here.");
        let listed = [
            (How::Reload, "a.service".to_owned()),
            (How::Restart, "d@x.socket".to_owned()),
            (How::Reload, "b.service".to_owned()),
        ];
        assert_eq!(tree.units(), listed);
    }

    /// A typing error in one file must not keep the others from their certificate.
    #[test]
    fn a_line_that_is_wrong_takes_nothing_away_from_the_others() {
        let tree = Tree::new();
        tree.put("a.conf", "nginx\nreload b.service\nrestart c.service d.service\nb.service\n../x.service\nrestart\n");
        tree.put("b.conf", "e.service");
        let units: Vec<String> = list(tree.0.path()).units.iter().map(|listed| listed.unit.to_string()).collect();
        assert_eq!(units, ["b.service", "e.service"]);
        let want = "want a unit, such as nginx.service, or restart and a unit";
        let wrong =
            |number: u32, line: &str| format!("line {number} of /etc/imprint/reload.d/a.conf is \"{line}\": {want}");
        assert_eq!(
            tree.wrong(),
            [
                wrong(1, "nginx"),
                wrong(2, "reload b.service"),
                wrong(3, "restart c.service d.service"),
                wrong(5, "../x.service"),
                wrong(6, "restart"),
            ]
        );
    }

    /// The attack: root restarts what somebody else has written into the list.
    #[test]
    fn what_others_could_have_written_does_not_count() {
        let tree = Tree::new();
        assert_eq!(tree.units(), [], "premise");
        let path = tree.put("a.conf", "a.service");
        tree.put("b.conf", "b.service");
        assert_eq!(tree.units().len(), 2, "premise");
        for bad in [0o664, 0o646] {
            mode(&path, bad);
            let [said] = &tree.wrong()[..] else { panic!("{:?}", tree.wrong()) };
            assert!(said.contains(&format!("a.conf belongs to user 0 and has mode {bad:04o}")), "{said}");
            assert_eq!(list(tree.0.path()).units.len(), 1, "the other file counts");
        }
        mode(&path, 0o644);
        std::os::unix::fs::chown(&path, Some(1), None).unwrap();
        assert!(tree.wrong()[0].contains("belongs to user 1"), "{:?}", tree.wrong());
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        for folder in [tree.folder(), tree.folder().parent().unwrap().to_owned()] {
            mode(&folder, 0o777);
            assert_eq!(tree.wrong().len(), 1);
            assert!(list(tree.0.path()).units.is_empty(), "anybody can put a file there");
            mode(&folder, 0o755);
        }
        fs::remove_file(&path).unwrap();
        symlink("b.conf", &path).unwrap();
        assert!(tree.wrong()[0].contains("/etc/imprint/reload.d/a.conf is a link"), "{:?}", tree.wrong());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(&list(tree.0.path()).wrong[..], [ReloadError::Kind(_)]));
        fs::remove_dir(&path).unwrap();
        tree.put("a.conf", &"#".repeat(70_000));
        assert!(matches!(&list(tree.0.path()).wrong[..], [ReloadError::TooLong(_)]));
        fs::write(&path, [0xff; 3]).unwrap();
        assert!(matches!(&list(tree.0.path()).wrong[..], [ReloadError::Read { .. }]));
    }

    fn lead_to(directory: &Path, number: u32) {
        let _ = fs::remove_file(directory.join(generation::CURRENT));
        fs::create_dir_all(directory.join(format!(".generation-{number}"))).unwrap();
        symlink(format!(".generation-{number}"), directory.join(generation::CURRENT)).unwrap();
    }

    /// A unit that was reloaded is not reloaded each hour because another one fails.
    #[test]
    fn what_a_unit_has_taken_up_is_known_until_the_next_renewal() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let unit = |name: &str| UnitName::try_from(name).unwrap();
        let (a, b) = (unit("a.service"), unit("b.service"));
        let HandoverError::Read { path, .. } = taken_up(directory).unwrap_err() else { panic!("another error") };
        assert_eq!(path, directory.join("node.json"));
        fs::write(directory.join("ready"), "").unwrap();
        assert!(taken_up(directory).unwrap().is_none(), "plain files were never renewed");
        lead_to(directory, 1);
        assert!(taken_up(directory).unwrap().is_none(), "all have started with it");
        lead_to(directory, 2);
        let mut up = taken_up(directory).unwrap().unwrap();
        assert!(!up.by(&a) && !up.by(&b));
        up.record(&b).unwrap();
        up.record(&a).unwrap();
        assert_eq!(fs::read_to_string(directory.join(RELOADED)).unwrap(), "2 a.service b.service\n");
        let up = taken_up(directory).unwrap().unwrap();
        assert!(up.by(&a) && up.by(&b));
        for number in [3, 1] {
            lead_to(directory, number);
            assert!(!taken_up(directory).unwrap().unwrap().by(&a), "another certificate");
        }
    }
}
