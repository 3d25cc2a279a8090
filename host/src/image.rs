//! Makes a complete initramfs whose `/init` is the agent: the agent, the modules of a kernel with their indices, and what a site
//! gives to all its nodes. The same inputs always give the same bytes. Never puts in what belongs to one node, and no key unless it
//! was named; never needs root, and changes nothing on this machine.

mod added;
mod agent;
mod choice;
mod error;
mod folder;
mod medium;
mod pack;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use imprint::chain::chain;
use imprint::kmod;
use imprint::options::Options;
use zeroize::Zeroizing;

pub use added::Added;
pub use error::ImageError;
pub use medium::medium;
pub use pack::Compress;

use agent::Agent;
use choice::Choice;
use error::failed;
use folder::{Folder, Modules, stored};

use crate::cpio::{Node, Tree};
use crate::elf::Machine;

/// What goes into an image.
pub struct Wanted<'a> {
    /// The folder of the kernel's modules, `lib/modules/VERSION`.
    pub kernel_modules: &'a Path,
    /// Names of more modules, in lists; `=FOLDER` stands for all below a folder of the kernel.
    pub modules: &'a [String],
    /// Leave out the list of this program.
    pub only: bool,
    /// Where the firmware is that modules ask for, if it goes in.
    pub firmware: Option<&'a Path>,
    /// The agent; otherwise the one beside this program, or the one that is installed.
    pub agent: Option<&'a Path>,
    /// The site pin.
    pub site: Option<&'a Path>,
    /// The network before the payload.
    pub network: Option<&'a Path>,
    /// An admission key.
    pub key: Option<&'a Path>,
    /// A bundle key.
    pub bundle_key: Option<&'a Path>,
    /// Words like those of the kernel command line.
    pub words: Option<&'a str>,
    /// The program that is started in the place of a root.
    pub next: Option<&'a Path>,
    /// What else goes in.
    pub added: &'a [Added],
    /// How it is compressed.
    pub compress: Compress,
}

/// An image.
pub struct Image {
    /// The file.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Its length before it was compressed.
    pub unpacked: usize,
    /// The kernel that it is for.
    pub version: String,
    /// The machine that it is for.
    pub machine: Machine,
    /// The file of the agent, and its length.
    pub agent: (PathBuf, usize),
    /// Names of the modules with their lengths, unpacked, in the order of loading.
    pub modules: Vec<(String, usize)>,
    /// Names of the modules that are loaded at the start.
    pub started: Vec<String>,
    /// How many files of firmware it has.
    pub firmware: usize,
    /// The keys in it.
    pub keys: Vec<&'static str>,
    /// Others than its owner must not read it: it has a key, or an added file that not everybody may read.
    pub private: bool,
    /// What the person who makes it should know.
    pub warnings: Vec<String>,
}

/// Where the files of a site are in an image.
const SITE: &str = "/imprint/site";
const NETWORK: &str = "/imprint/network";
const KEY: &str = "/imprint/key";
const BUNDLE_KEY: &str = "/imprint/bundle-key";
/// Where a node's payload and credentials would be (docs/sources.md).
const PAYLOAD: &str = "/imprint/payload";
const CREDENTIALS: &str = "/.extra/";
/// The names of modules that no device announces, one a line.
const STARTED: &str = "/imprint/modules";
/// The program of `--next`.
const NEXT: &str = "/imprint/next";
/// Words of the image, where imprint reads them (docs/images.md, "Words in the image").
const WORDS: &str = "/etc/cmdline.d/imprint.conf";

/// Makes an image.
pub fn make(wanted: &Wanted<'_>) -> Result<Image, ImageError> {
    let folder = Folder::read(wanted.kernel_modules)?;
    let index = folder.index()?;
    unpacks(&folder, &index, wanted.compress)?;
    let Choice { paths, started, drives, links } = choice::choose(&folder, &index, wanted.modules, wanted.only)?;
    if !drives && !links {
        return Err(ImageError::NoDrivers(folder.path.clone()));
    }
    let mut warnings = Vec::new();
    for (there, what) in [(drives, "drive"), (links, "network link")] {
        if !there {
            warnings.push(format!("the image has no driver of any {what}; --modules names more"));
        }
    }
    let modules = Modules::read(&folder.path, &paths)?;
    let agent = Agent::find(wanted.agent, modules.as_ref().map(|modules| modules.machine))?;
    let (version, all) = match modules {
        Some(modules) => (modules.version, modules.all),
        // A kernel that has all of it built in.
        None => (folder.name()?, Vec::new()),
    };

    let mut tree = Tree::default();
    skeleton(&mut tree)?;
    tree.put("/init", 0o755, Node::File(Zeroizing::new(agent.bytes.clone())))?;
    let below = format!("/lib/modules/{version}");
    let [dep, alias, softdep] = index.only(&paths, stored);
    for (name, text) in
        [(kmod::DEP, dep), (kmod::ALIAS, alias), (kmod::SOFTDEP, softdep), (kmod::BUILTIN, folder.builtin.clone())]
    {
        tree.put(&format!("{below}/{name}"), 0o644, file(text))?;
    }
    let mut modules = Vec::with_capacity(all.len());
    let mut asked = BTreeSet::new();
    for module in all {
        let name = kmod::name_of(&module.path).unwrap_or_default().into_owned();
        modules.push((name, module.bytes.len()));
        asked.extend(module.firmware);
        tree.put(&format!("{below}/{}", module.path), 0o644, Node::File(Zeroizing::new(module.bytes)))?;
    }
    let firmware = put_firmware(&mut tree, wanted.firmware, &asked)?;
    if !started.is_empty() {
        tree.put(STARTED, 0o644, file(started.join("\n") + "\n"))?;
    }
    let mut origins: Vec<(&'static str, &Path)> = Vec::new();
    let mut keys = Vec::new();
    for (place, path, mode) in [
        (SITE, wanted.site, 0o644),
        (NETWORK, wanted.network, 0o644),
        (KEY, wanted.key, 0o600),
        (BUNDLE_KEY, wanted.bundle_key, 0o600),
    ] {
        let Some(path) = path else { continue };
        let bytes = fs::read(path).map(Zeroizing::new).map_err(failed("reading", path))?;
        tree.put(place, mode, Node::File(bytes))?;
        origins.push((place, path));
        keys.extend(Some(place).filter(|_| mode == 0o600));
    }
    let mut words: Vec<&str> = wanted.words.into_iter().collect();
    let next = format!("imprint.next={NEXT}");
    if let Some(path) = wanted.next {
        let bytes = fs::read(path).map(Zeroizing::new).map_err(failed("reading", path))?;
        tree.put(NEXT, 0o755, Node::File(bytes))?;
        words.push(&next);
    }
    if !words.is_empty() {
        tree.put(WORDS, 0o644, file(for_all(&words.join(" "))?))?;
    }
    let mut private = !keys.is_empty();
    for added in wanted.added {
        private |= added.put(&mut tree)?;
    }
    added_for_all(&tree)?;
    warnings.extend(agent.check(&tree, &origins)?);

    let archive = tree.archive()?;
    let unpacked = archive.len();
    let mut bytes = wanted.compress.pack(archive).map_err(ImageError::Compress)?;
    // An archive that follows has to begin at a multiple of four, and the kernel passes over zeros before it.
    let end = bytes.len().next_multiple_of(4);
    bytes.resize(end, 0);
    let (machine, agent) = (agent.machine, (agent.path, agent.bytes.len()));
    Ok(Image { bytes, unpacked, version, machine, agent, modules, started, firmware, keys, private, warnings })
}

/// What is there before anything is put in: the folders for mounts, the devices that are needed before that, and the file by which
/// programs know an initramfs (os-release(5)).
fn skeleton(tree: &mut Tree) -> Result<(), ImageError> {
    for (path, mode) in [
        ("/dev", 0o755),
        ("/etc", 0o755),
        ("/imprint", 0o700),
        ("/proc", 0o555),
        ("/run", 0o755),
        ("/sys", 0o555),
        ("/sysroot", 0o755),
        ("/tmp", 0o1777),
    ] {
        tree.put(path, mode, Node::Directory)?;
    }
    tree.put("/dev/console", 0o600, Node::Device(5, 1))?;
    // Without a console the kernel starts `/init` with no open file, and the runtime of its language then opens this one, or ends it.
    tree.put("/dev/null", 0o666, Node::Device(1, 3))?;
    tree.put("/usr/bin/imprint", 0o777, Node::Link("/init".to_owned()))?;
    let version = env!("CARGO_PKG_VERSION");
    let release = format!("NAME=imprint\nID=imprint\nVERSION_ID={version}\nPRETTY_NAME=\"imprint {version}\"\n");
    tree.put("/etc/initrd-release", 0o644, file(release))?;
    Ok(())
}

/// Words that a boot would refuse, or that are one node's, have no place in an image for all nodes of a site.
fn for_all(words: &str) -> Result<String, ImageError> {
    let options = Options::parse(words).map_err(|error| ImageError::Words(chain(&error)))?;
    if is_of_one_node(&options) {
        return Err(ImageError::OneNode("--words".to_owned()));
    }
    Ok(format!("{}\n", words.trim()))
}

fn is_of_one_node(options: &Options) -> bool {
    options.payload.is_some() || !options.credentials.is_empty()
}

/// Nor has a file that somebody adds. Wrong words in one are the agent's to refuse.
fn added_for_all(tree: &Tree) -> Result<(), ImageError> {
    for (path, _, node) in tree.iter() {
        let has_words = path == "/etc/cmdline" || (path.starts_with("/etc/cmdline.d/") && path.ends_with(".conf"));
        let is_of_one_node = match node {
            _ if path == PAYLOAD || path.starts_with(CREDENTIALS) => true,
            Node::File(bytes) if has_words => {
                let words = std::str::from_utf8(bytes).ok().and_then(|words| Options::parse(words).ok());
                words.is_some_and(|options| is_of_one_node(&options))
            }
            _ => false,
        };
        if is_of_one_node {
            return Err(ImageError::OneNode(path.to_owned()));
        }
    }
    Ok(())
}

fn file(text: String) -> Node {
    Node::File(Zeroizing::new(text.into_bytes()))
}

/// An image that the kernel cannot unpack shows at boot only, as a kernel without `/init`.
fn unpacks(folder: &Folder, index: &kmod::Index<'_>, compress: Compress) -> Result<(), ImageError> {
    let Some((method, part)) = compress.unpacker() else { return Ok(()) };
    // Without the list nothing is known of the kernel.
    if folder.builtin.is_empty() || index.resolve(part) == kmod::Resolved::Builtin {
        return Ok(());
    }
    Err(ImageError::NoUnpacker { method, part, file: folder.path.join(kmod::BUILTIN) })
}

/// The firmware that modules ask for, as far as it is there: most modules name files for more devices than anybody has.
fn put_firmware(tree: &mut Tree, folder: Option<&Path>, asked: &BTreeSet<String>) -> Result<usize, ImageError> {
    let Some(folder) = folder else { return Ok(0) };
    if !folder.is_dir() {
        let source = std::io::Error::from(std::io::ErrorKind::NotADirectory);
        return Err(failed("reading the firmware in", folder)(source));
    }
    let mut count = 0;
    for name in asked {
        // The kernel finds compressed ones under these names (drivers/base/firmware_loader/main.c).
        for ending in ["", ".xz", ".zst"] {
            let source = folder.join(format!("{name}{ending}"));
            match fs::read(&source) {
                Ok(bytes) => {
                    tree.put(&format!("/lib/firmware/{name}{ending}"), 0o644, Node::File(Zeroizing::new(bytes)))?;
                    count += 1;
                    break;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("reading", &source)(error)),
            }
        }
    }
    Ok(count)
}
