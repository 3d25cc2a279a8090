//! Writes cpio archives: one with one file in the directory `imprint`, which a boot loader appends to an initramfs, and whole
//! trees, which are an initramfs. Pure: bytes to bytes, and never a file. The "newc" form as the kernel reads it
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;
use std::io::Write;

use zeroize::Zeroizing;

/// An archive's length is a multiple of this, in bytes, as with GNU cpio. An archive that follows another has to begin at a
/// multiple of four; boot loaders that join archives pad them, and with this length a plain `cat` works, too.
const BLOCK: usize = 512;
const DIRECTORY: u32 = 0o040_700;
const FILE: u32 = 0o100_600;

/// The file is larger than an archive of this kind can hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} bytes are too many for a cpio archive")]
pub struct TooLong(pub usize);

/// The archive. The same file always gives the same bytes. Wiped on drop, as the file is secret.
pub fn archive(file: &[u8]) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    archive_of("imprint/payload", file)
}

/// The same for a file with another name in `imprint`.
pub fn archive_of(name: &str, file: &[u8]) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    // A header has eight hexadecimal digits for a size.
    u32::try_from(file.len()).map_err(|_| TooLong(file.len()))?;
    // Allocated once: a vector that grows leaves copies of secrets in memory.
    let mut out = Zeroizing::new(Vec::with_capacity(file.len().saturating_add(2 * BLOCK)));
    entry(&mut out, 1, DIRECTORY, 2, (0, 0), "imprint", &[]);
    entry(&mut out, 2, FILE, 1, (0, 0), name, file);
    end(&mut out);
    Ok(out)
}

/// What an initramfs consists of. Everything belongs to root, and has no time. The same tree always gives the same bytes.
#[derive(Default)]
pub struct Tree(BTreeMap<String, (u32, Node)>);

/// One thing in a tree.
pub enum Node {
    /// A directory.
    Directory,
    /// A file. Wiped on drop, as it may be secret.
    File(Zeroizing<Vec<u8>>),
    /// A symbolic link to this path.
    Link(String),
    /// A character device: major and minor number.
    Device(u32, u32),
}

/// Why something has no place in a tree.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TreeError {
    /// A path that is not absolute, or leads out of the tree.
    #[error("{0} is no path in an image; it must begin with a slash, and have neither .. nor empty parts")]
    Path(String),
    /// The kernel passes over a name that is longer (init/initramfs.c, PATH_MAX).
    #[error("the path {0} is longer than 4095 bytes, and the kernel would pass over it; give it another place")]
    Long(String),
    /// Something is there already.
    #[error("{0} is in the image already; give it another place")]
    Taken(String),
    /// Something that is no directory is on the way to it.
    #[error("{path} has no place in the image: {at} is no directory there; give it another place")]
    NoDirectory {
        /// The path.
        path: String,
        /// What is on the way.
        at: String,
    },
}

/// The longest name with its NUL that the kernel takes.
const PATH_MAX: usize = 4096;

impl Tree {
    /// Puts something at an absolute path. Directories on the way that are missing are made, with mode 0755. A directory that is
    /// there already stays, with the new mode.
    pub fn put(&mut self, path: &str, mode: u32, node: Node) -> Result<(), TreeError> {
        let name = path
            .strip_prefix('/')
            .filter(|name| name.split('/').all(|part| !matches!(part, "" | "." | "..")) && !name.contains('\0'));
        let name = name.ok_or_else(|| TreeError::Path(path.to_owned()))?;
        if name.len() >= PATH_MAX {
            return Err(TreeError::Long(path.to_owned()));
        }
        for (end, _) in name.match_indices('/') {
            let parent = name.get(..end).unwrap_or_default();
            let (_, found) = self.0.entry(parent.to_owned()).or_insert((0o755, Node::Directory));
            if !matches!(found, Node::Directory) {
                return Err(TreeError::NoDirectory { path: path.to_owned(), at: format!("/{parent}") });
            }
        }
        if let Some((known, there)) = self.0.get_mut(name) {
            return match (there, node) {
                (Node::Directory, Node::Directory) => {
                    *known = mode;
                    Ok(())
                }
                _ => Err(TreeError::Taken(path.to_owned())),
            };
        }
        self.0.insert(name.to_owned(), (mode, node));
        Ok(())
    }

    /// Each path in its order, with its permissions: absolute.
    pub fn iter(&self) -> impl Iterator<Item = (String, u32, &Node)> {
        self.0.iter().map(|(name, (mode, node))| (format!("/{name}"), *mode, node))
    }

    /// The archive. Wiped on drop, as files may be secret.
    pub fn archive(&self) -> Result<Zeroizing<Vec<u8>>, TooLong> {
        // Header, name and padding of each. Allocated once, as above.
        let room = |(name, (_, node)): (&String, &(u32, Node))| {
            128_usize.saturating_add(name.len()).saturating_add(node.len())
        };
        let room: usize = self.0.iter().map(room).fold(2 * BLOCK, usize::saturating_add);
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        for ((name, (mode, node)), inode) in self.0.iter().zip(1_u32..) {
            u32::try_from(node.len()).map_err(|_| TooLong(node.len()))?;
            match node {
                Node::Directory => entry(&mut out, inode, 0o040_000 | mode, 2, (0, 0), name, &[]),
                Node::File(bytes) => entry(&mut out, inode, 0o100_000 | mode, 1, (0, 0), name, bytes),
                Node::Link(to) => entry(&mut out, inode, 0o120_777, 1, (0, 0), name, to.as_bytes()),
                Node::Device(major, minor) => {
                    entry(&mut out, inode, 0o020_000 | mode, 1, (*major, *minor), name, &[]);
                }
            }
        }
        end(&mut out);
        Ok(out)
    }
}

impl Node {
    fn len(&self) -> usize {
        match self {
            Node::Directory | Node::Device(..) => 0,
            Node::File(bytes) => bytes.len(),
            Node::Link(to) => to.len(),
        }
    }
}

fn end(out: &mut Vec<u8>) {
    entry(out, 0, 0, 1, (0, 0), "TRAILER!!!", &[]);
    let end = out.len().next_multiple_of(BLOCK);
    out.resize(end, 0);
}

fn entry(out: &mut Vec<u8>, inode: u32, mode: u32, links: u32, device: (u32, u32), name: &str, file: &[u8]) {
    let name_len = name.len().saturating_add(1);
    let (major, minor) = device;
    // Magic; inode, mode, uid, gid, links, mtime, size, major and minor of two devices, length of the name, checksum. The
    // mtime is always 0 (1970): nodes ignore it.
    let header = format!(
        "070701{inode:08X}{mode:08X}{0:08X}{0:08X}{links:08X}{0:08X}{size:08X}{0:08X}{0:08X}{major:08X}{minor:08X}{name_len:08X}{0:08X}",
        0,
        size = file.len(),
    );
    let _ = out.write_all(header.as_bytes());
    let _ = out.write_all(name.as_bytes());
    out.push(0);
    align(out);
    let _ = out.write_all(file);
    align(out);
}

fn align(out: &mut Vec<u8>) {
    let end = out.len().next_multiple_of(4);
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

    fn cpio(arguments: &[&str], folder: &Path, archive: &[u8]) -> String {
        let mut child = Command::new("cpio")
            .args(arguments)
            .current_dir(folder)
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cpio is missing: apt-get install cpio");
        child.stdin.take().unwrap().write_all(archive).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// If this test fails, do not change it: the same payload has to give the same archive.
    #[test]
    fn frozen() {
        let archive = archive(b"payload").unwrap();
        let zeros = "0".repeat(8);
        let fields = |fields: [&str; 13]| format!("070701{}", fields.join(""));
        let z = zeros.as_str();
        let folder = fields(["00000001", "000041C0", z, z, "00000002", z, z, z, z, z, z, "00000008", z]);
        let file = fields(["00000002", "00008180", z, z, "00000001", z, "00000007", z, z, z, z, "00000010", z]);
        let last = fields([z, z, z, z, "00000001", z, z, z, z, z, z, "0000000B", z]);
        let want = format!(
            "{folder}imprint\0\0\0{file}imprint/payload\0\0\0payload\0{last}TRAILER!!!\0\0\0\0{}",
            "\0".repeat(132)
        );
        assert_eq!(String::from_utf8(archive.to_vec()).unwrap(), want);
        assert_eq!(archive.len(), 512);
    }

    /// GNU cpio lists and unpacks it, and the agent finds what it unpacked.
    #[test]
    fn gnu_cpio_and_the_agent_read_it() {
        // Lengths around each boundary of four and of a block.
        for length in [0, 1, 2, 3, 4, 5, 119, 120, 121, 575, 65_536] {
            let file: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let archive = archive(&file).unwrap();
            assert_eq!(archive.len() % BLOCK, 0);
            let work = tempfile::tempdir().unwrap();
            let listed = cpio(&["-itv", "--quiet", "--numeric-uid-gid"], work.path(), &archive);
            let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
            let [folder, payload] = lines.as_slice() else { panic!("{listed}") };
            assert_eq!((folder[0], folder[2], folder[8]), ("drwx------", "0", "imprint"), "{listed}");
            let size = length.to_string();
            assert_eq!(payload[..5], ["-rw-------", "1", "0", "0", size.as_str()], "{listed}");
            assert_eq!(payload[5..], ["Jan", "1", "1970", "imprint/payload"], "{listed}");

            cpio(&["-id", "--quiet", "--no-preserve-owner"], work.path(), &archive);
            let mode = |name: &str| work.path().join(name).metadata().unwrap().permissions().mode() & 0o7777;
            assert_eq!((mode("imprint"), mode("imprint/payload")), (0o700, 0o600));
            let found = imprint::source::file::initramfs(work.path()).unwrap();
            assert_eq!(found.bytes.expose(), file);
        }
    }

    /// GNU cpio lists what was put in, in one order, with the directories on the way; and the order of putting does not count.
    #[test]
    fn a_tree_is_what_gnu_cpio_lists() {
        let file = |text: &str| Node::File(Zeroizing::new(text.as_bytes().to_vec()));
        let puts: [(&str, u32, &dyn Fn() -> Node); 6] = [
            ("/usr/bin/imprint", 0o777, &|| Node::Link("../../init".to_owned())),
            ("/init", 0o755, &|| file("agent")),
            ("/dev/console", 0o600, &|| Node::Device(5, 1)),
            ("/imprint", 0o700, &|| Node::Directory),
            ("/imprint/site", 0o644, &|| file("pin\n")),
            ("/imprint-more", 0o644, &|| file("")),
        ];
        let (mut tree, mut other) = (Tree::default(), Tree::default());
        puts.iter().for_each(|(path, mode, node)| tree.put(path, *mode, node()).unwrap());
        puts.iter().rev().for_each(|(path, mode, node)| other.put(path, *mode, node()).unwrap());
        let archive = tree.archive().unwrap();
        assert_eq!(*archive, *other.archive().unwrap());
        assert_eq!(archive.len() % BLOCK, 0);
        let work = tempfile::tempdir().unwrap();
        let listed = cpio(&["-itv", "--quiet", "--numeric-uid-gid"], work.path(), &archive);
        let listed: Vec<String> = listed
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let time = words.iter().position(|word| *word == "Jan").unwrap();
                assert_eq!(words[2..4], ["0", "0"], "{line}");
                assert_eq!(words[time..time + 3], ["Jan", "1", "1970"], "{line}");
                format!("{} {}", words[0], words[time + 3..].join(" "))
            })
            .collect();
        assert_eq!(
            listed,
            [
                "drwxr-xr-x dev",
                "crw------- dev/console",
                "drwx------ imprint",
                "-rw-r--r-- imprint-more",
                "-rw-r--r-- imprint/site",
                "-rwxr-xr-x init",
                "drwxr-xr-x usr",
                "drwxr-xr-x usr/bin",
                "lrwxrwxrwx usr/bin/imprint -> ../../init"
            ]
        );
        let numbers: Vec<&str> = std::str::from_utf8(&archive).unwrap().split("070701").skip(1).collect();
        assert_eq!(numbers[1].get(72..88).unwrap(), "0000000500000001", "/dev/console has its number");
    }

    /// The accident: a place outside the image, or one that something else has.
    #[test]
    fn a_path_that_is_taken_or_leads_out_is_refused() {
        let mut tree = Tree::default();
        tree.put("/init", 0o755, Node::Link("x".to_owned())).unwrap();
        for path in ["init", "", "/", "/a/../b", "/a//b", "/a/", "/./a", "/a\0b"] {
            assert_eq!(tree.put(path, 0o644, Node::Directory), Err(TreeError::Path(path.to_owned())), "{path}");
        }
        assert_eq!(tree.put("/init", 0o644, Node::Directory), Err(TreeError::Taken("/init".to_owned())));
        let below = TreeError::NoDirectory { path: "/init/x".to_owned(), at: "/init".to_owned() };
        assert_eq!(tree.put("/init/x", 0o644, Node::Directory), Err(below));
        let long = format!("/{}", "a/".repeat(2048) + "b");
        assert_eq!(tree.put(&long, 0o644, Node::Directory), Err(TreeError::Long(long.clone())));
    }
}
