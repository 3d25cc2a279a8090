//! What a bundle is made of: a folder, or a file in TOML with the files, links and units of a node. Reads files of whoever runs the
//! command, and follows no link in a folder. Never makes a bundle.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use imprint::bundle::{
    BundleError as Fault, Content as Kind, Entry, EntryPath, MAX_ENTRIES, MAX_TAR, PathError, UnitAction, Verb,
};
use imprint::payload::{NodeName, UnitName};
use imprint::secret::Secret;
use imprint::setting::Settings;
use nix::fcntl::OFlag;

use crate::record::fields::{Table, Text, Value};
use crate::record::{RecordError, settings};

/// What a bundle is made of.
#[derive(Default)]
pub struct Content {
    /// What is done with units.
    pub units: Vec<UnitAction>,
    /// Files, links and directories.
    pub entries: Vec<Entry>,
}

/// Why a folder or file is not what a bundle can be made of.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// It cannot be read.
    #[error("{} cannot be read; give another one, or make it readable", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A device, a named pipe or the like, or a folder where a file is wanted.
    #[error("{} is not a regular file; give a file, for a pipe or a device one with what comes out of it", .0.display())]
    NoFile(PathBuf),
    /// A file that is too long to be what it is to be.
    #[error("{} has more than {most} bytes, the most that can go into a bundle; give the right file", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        most: usize,
    },
    /// It is not text.
    #[error("{} is neither a folder nor a file in TOML: it is not UTF-8; give --age for an age file", .0.display())]
    NotText(PathBuf),
    /// More files, links and directories than a bundle can hold.
    #[error("{} has more than {MAX_ENTRIES} files, links and directories, the most of a bundle; give a folder with fewer", .0.display())]
    TooMany(PathBuf),
    /// A path that no bundle can have.
    #[error("{}: {error}", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        error: PathError,
    },
    /// Neither file, nor link, nor directory.
    #[error("{} is neither a file nor a link nor a directory; remove it from the folder", .0.display())]
    Special(PathBuf),
    /// A link whose target is not UTF-8.
    #[error("{}: the target of the link is not UTF-8; make it again", .0.display())]
    Target(PathBuf),
    /// More than a bundle can hold.
    #[error("{} and what was read before it have more than {MAX_TAR} bytes, the most of a bundle; put large files into the image", .0.display())]
    TooMuch(PathBuf),
    /// A name that no node has.
    #[error("the name of a node is invalid")]
    Name,
    /// The settings make no bundle.
    #[error(transparent)]
    Settings(Box<Fault>),
    /// The TOML.
    #[error(transparent)]
    Toml(#[from] RecordError),
}

/// Permissions that a bundle keeps. Set-user-ID, set-group-ID and sticky bits are left out.
const PERMISSIONS: u32 = 0o777;
const FILE: u16 = 0o644;
const DIRECTORY: u16 = 0o755;
const LINK: u16 = 0o777;

impl Content {
    /// What `--from` names: a folder, whose files are the root's; or a file in TOML.
    pub fn read(from: &Path) -> Result<Content, ContentError> {
        let read = |error| ContentError::Read(from.to_owned(), error);
        if fs::metadata(from).map_err(read)?.is_dir() {
            return Content::of_folder(from);
        }
        let bytes = read_file(from, MAX_TAR)?;
        let text = String::from_utf8(bytes).map_err(|_| ContentError::NotText(from.to_owned()))?;
        let near = from.parent().unwrap_or(Path::new("")).to_owned();
        Content::of_toml(&from.display().to_string(), &text, &near)
    }

    /// Everything in a folder, as it is to be in the root: owned by root, with the permissions that it has. A directory is an entry
    /// only if it is empty; the others are made where the root has none.
    pub fn of_folder(folder: &Path) -> Result<Content, ContentError> {
        let mut content = Content::default();
        content.walk(folder, folder, "", &mut Room(MAX_TAR))?;
        Ok(content)
    }

    fn walk(&mut self, from: &Path, folder: &Path, below: &str, room: &mut Room) -> Result<(), ContentError> {
        let read = |path: &Path| {
            let path = path.to_owned();
            move |error| ContentError::Read(path, error)
        };
        let mut names = Vec::new();
        for found in fs::read_dir(folder).map_err(read(folder))? {
            names.push(found.map_err(read(folder))?.path());
            if self.entries.len().saturating_add(names.len()) > MAX_ENTRIES {
                return Err(ContentError::TooMany(from.to_owned()));
            }
        }
        names.sort();
        if names.is_empty() && !below.is_empty() {
            let mode = permissions(&fs::symlink_metadata(folder).map_err(read(folder))?);
            self.entries.push(entry(path_of(folder, below)?, mode, Kind::Directory));
        }
        for path in names {
            let bad = |error| ContentError::Path { path: path.clone(), error };
            let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| bad(PathError::NotUtf8))?;
            let inner = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
            let about = fs::symlink_metadata(&path).map_err(read(&path))?;
            if about.is_dir() {
                // A path has an end, so that folders that were mounted into themselves have one, too. A folder directly below the
                // root is no entry, and holds some.
                if !below.is_empty() {
                    path_of(&path, &inner)?;
                }
                self.walk(from, &path, &inner, room)?;
                continue;
            }
            let (mode, kind) = if about.is_symlink() {
                let target = fs::read_link(&path).map_err(read(&path))?;
                let target = target.into_os_string().into_string().map_err(|_| ContentError::Target(path.clone()))?;
                (LINK, Kind::Link(target))
            } else if about.is_file() {
                (permissions(&about), Kind::File(room.file(&path, OFlag::O_NOFOLLOW)?))
            } else {
                return Err(ContentError::Special(path));
            };
            self.entries.push(entry(path_of(&path, &inner)?, mode, kind));
        }
        Ok(())
    }

    /// What settings make.
    pub fn of_settings(settings: &Settings) -> Result<Content, ContentError> {
        // Files and units are the same for each node.
        let node = NodeName::try_from("node").map_err(|_| ContentError::Name)?;
        let bundle = settings.bundle(node, 1).map_err(|error| ContentError::Settings(Box::new(error)))?;
        Ok(Content { units: bundle.units().to_vec(), entries: bundle.entries().to_vec() })
    }

    /// A file in TOML. Files that it names are looked for in the folder `near`.
    pub fn of_toml(file: &str, text: &str, near: &Path) -> Result<Content, ContentError> {
        let text = Text::new(file, text);
        let parsed = text.parse()?;
        let mut table = text.root(parsed.get_ref());
        let mut content = match table.take("set") {
            None => Content::default(),
            Some(value) => Content::of_settings(&settings::settings(&value)?)?,
        };
        let mut room = Room(MAX_TAR);
        for value in table.list("file", Ok)? {
            content.entries.push(file_entry(&value, near, &mut room)?);
        }
        content.entries.extend(table.list("link", |value| link_entry(&value))?);
        content.entries.extend(table.list("directory", |value| directory_entry(&value))?);
        for (verb, key) in [(Verb::Enable, "enable"), (Verb::Restart, "restart"), (Verb::Reload, "reload")] {
            let units = table.list(key, |value| value.parse::<UnitName>())?;
            content.units.extend(units.into_iter().map(|unit| UnitAction { verb, unit }));
        }
        table.finish()?;
        Ok(content)
    }
}

/// How many bytes may still be read.
struct Room(usize);

impl Room {
    fn file(&mut self, path: &Path, flags: OFlag) -> Result<Secret, ContentError> {
        let bytes =
            bounded(path, self.0, flags)?.map(Secret::new).map_err(|_| ContentError::TooMuch(path.to_owned()))?;
        self.0 = self.0.saturating_sub(bytes.expose().len());
        Ok(bytes)
    }
}

/// A regular file of at most this many bytes.
pub fn read_file(path: &Path, most: usize) -> Result<Vec<u8>, ContentError> {
    let too_long = |Longer| ContentError::TooLong { path: path.to_owned(), most };
    bounded(path, most, OFlag::empty())?.map_err(too_long)
}

/// The file is longer.
struct Longer;

/// The bytes of a regular file, if it has at most this many. Opening a pipe would wait for a writer, and a device may have no end.
fn bounded(path: &Path, most: usize, flags: OFlag) -> Result<Result<Vec<u8>, Longer>, ContentError> {
    let failed = |error| ContentError::Read(path.to_owned(), error);
    let flags = flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        // A socket cannot be opened.
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENXIO as i32) => {
            return Err(ContentError::NoFile(path.to_owned()));
        }
        other => other.map_err(failed)?,
    };
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(ContentError::NoFile(path.to_owned()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or_default().min(most).saturating_add(1));
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    Ok(if bytes.len() > most { Err(Longer) } else { Ok(bytes) })
}

fn entry(path: EntryPath, mode: u16, content: Kind) -> Entry {
    Entry { path, mode, uid: 0, gid: 0, content }
}

fn path_of(path: &Path, inner: &str) -> Result<EntryPath, ContentError> {
    EntryPath::try_from(inner).map_err(|error| ContentError::Path { path: path.to_owned(), error })
}

fn permissions(about: &fs::Metadata) -> u16 {
    u16::try_from(about.permissions().mode() & PERMISSIONS).unwrap_or_default()
}

fn file_entry(value: &Value<'_>, near: &Path, room: &mut Room) -> Result<Entry, ContentError> {
    let mut table = value.table()?;
    let path = path(&mut table)?;
    let mode = mode(&mut table, FILE)?;
    let (uid, gid) = owner(&mut table)?;
    let (text, from) = (table.take("text"), table.take("from"));
    let one = table.error("want text or from: the file's content, or the name of a file that has it");
    table.finish()?;
    let content = match (text, from) {
        (Some(text), None) => Secret::new(text.string()?.as_bytes().to_vec()),
        (None, Some(from)) => room.file(&near.join(from.string()?), OFlag::empty())?,
        _ => return Err(one.into()),
    };
    Ok(Entry { path, mode, uid, gid, content: Kind::File(content) })
}

fn link_entry(value: &Value<'_>) -> Result<Entry, RecordError> {
    let mut table = value.table()?;
    let path = path(&mut table)?;
    let to = table.need("to")?.string()?.to_owned();
    table.finish()?;
    Ok(entry(path, LINK, Kind::Link(to)))
}

fn directory_entry(value: &Value<'_>) -> Result<Entry, RecordError> {
    let mut table = value.table()?;
    let path = path(&mut table)?;
    let mode = mode(&mut table, DIRECTORY)?;
    let (uid, gid) = owner(&mut table)?;
    table.finish()?;
    Ok(Entry { path, mode, uid, gid, content: Kind::Directory })
}

/// `/etc/motd` or `etc/motd`
fn path(table: &mut Table<'_>) -> Result<EntryPath, RecordError> {
    let value = table.need("path")?;
    let text = value.string()?;
    EntryPath::try_from(text.strip_prefix('/').unwrap_or(text)).map_err(|error| value.error(error))
}

fn mode(table: &mut Table<'_>, default: u16) -> Result<u16, RecordError> {
    let Some(value) = table.take("mode") else { return Ok(default) };
    value.with("permissions in octal, like \"0644\", without set-user-ID and the like", |text| {
        let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        u16::from_str_radix(text, 8).ok().filter(|mode| is_octal && u32::from(*mode) <= PERMISSIONS)
    })
}

fn owner(table: &mut Table<'_>) -> Result<(u32, u32), RecordError> {
    let mut number = |key| table.take(key).map_or(Ok(0), |value| value.number("a number, 0 to 2097151"));
    Ok((number("uid")?, number("gid")?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn shown(content: &Content) -> Vec<String> {
        let what = |kind: &Kind| match kind {
            Kind::File(bytes) => String::from_utf8_lossy(bytes.expose()).into_owned(),
            Kind::Link(to) => format!("-> {to}"),
            Kind::Directory => "/".to_owned(),
        };
        let line = |entry: &Entry| {
            let Entry { path, mode, uid, gid, content } = entry;
            format!("{} {mode:04o} {uid}:{gid} {}", path.as_str(), what(content))
        };
        content.entries.iter().map(line).collect()
    }

    #[test]
    fn a_folder_as_it_is_to_be_in_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("etc/cron.d")).unwrap();
        std::fs::create_dir_all(at("var/empty")).unwrap();
        std::fs::write(at("etc/hostname"), "node1\n").unwrap();
        std::fs::write(at("etc/cron.d/x"), "x").unwrap();
        std::fs::set_permissions(at("etc/cron.d/x"), fs::Permissions::from_mode(0o4750)).unwrap();
        std::fs::set_permissions(at("etc/hostname"), fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::set_permissions(at("var/empty"), fs::Permissions::from_mode(0o700)).unwrap();
        // A link is data, wherever it leads.
        symlink("/etc/shadow", at("etc/outside")).unwrap();
        let want = [
            "etc/cron.d/x 0750 0:0 x",
            "etc/hostname 0644 0:0 node1\n",
            "etc/outside 0777 0:0 -> /etc/shadow",
            "var/empty 0700 0:0 /",
        ];
        assert_eq!(shown(&Content::read(dir.path()).unwrap()), want);
        nix::unistd::mkfifo(&at("etc/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(Content::read(dir.path()), Err(ContentError::Special(path)) if path == at("etc/fifo")));
        std::fs::remove_file(at("etc/fifo")).unwrap();
        std::fs::write(at("motd"), "x").unwrap();
        let error = Content::read(dir.path()).err().unwrap();
        assert!(matches!(error, ContentError::Path { error: PathError::TopLevel, .. }), "{error}");
        std::fs::remove_file(at("motd")).unwrap();
        let huge = fs::File::create(at("etc/huge")).unwrap();
        huge.set_len(MAX_TAR as u64).unwrap();
        assert!(matches!(Content::read(dir.path()), Err(ContentError::TooMuch(_))), "before it is read");
    }

    #[test]
    fn toml() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), "secret").unwrap();
        let text = "enable = [\"chrony.service\"]\nreload = [\"a.service\"]\n\
                    [[file]]\npath = \"/etc/motd\"\ntext = \"hi\"\n\
                    [[file]]\npath = \"etc/key\"\nfrom = \"key\"\nmode = \"0600\"\nuid = 7\n\
                    [[link]]\npath = \"etc/localtime\"\nto = \"/usr/share/zoneinfo/UTC\"\n\
                    [[directory]]\npath = \"etc/ssl/private\"\nmode = \"700\"\n";
        std::fs::write(dir.path().join("node1.toml"), text).unwrap();
        let content = Content::read(&dir.path().join("node1.toml")).unwrap();
        let want = [
            "etc/motd 0644 0:0 hi",
            "etc/key 0600 7:0 secret",
            "etc/localtime 0777 0:0 -> /usr/share/zoneinfo/UTC",
            "etc/ssl/private 0755 0:0 /",
        ];
        let want: Vec<String> = want.iter().map(|line| line.replace("private 0755", "private 0700")).collect();
        assert_eq!(shown(&content), want);
        let units: Vec<String> = content.units.iter().map(ToString::to_string).collect();
        assert_eq!(units, ["enable chrony.service", "reload a.service"]);
        let rows = [
            (
                "[[file]]\npath = \"etc/../x\"\ntext = \"\"\n",
                "f:2: file[0].path: the path has the name .., and would leave the root",
            ),
            (
                "[[file]]\npath = \"etc/x\"\n",
                "f:1: file[0]: want text or from: the file's content, or the name of a file that has it",
            ),
            (
                "[[file]]\npath = \"etc/x\"\ntext = \"\"\nmode = \"4755\"\n",
                "f:4: file[0].mode: \"4755\" is not permissions in octal, like \"0644\", without set-user-ID and the like",
            ),
            ("fiel = 1\n", "f:1: fiel: unknown key; did you mean file?"),
        ];
        for (text, want) in rows {
            assert_eq!(Content::of_toml("f", text, Path::new("")).err().unwrap().to_string(), want);
        }
    }
}
