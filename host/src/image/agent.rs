//! Finds the agent that becomes `/init`, and asks it whether it would take what the image has for all nodes. The program that is
//! asked is the agent itself, so its answer is the one of a boot. Runs nothing else, and nothing that is for another machine.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use imprint::chain::chain;
use zeroize::Zeroizing;

use super::error::{ImageError, failed};
use crate::cpio::{Node, Tree};
use crate::elf::{Elf, Machine, NotElf};

/// Where the agent is installed.
const INSTALLED: &str = "/usr/bin/imprint";

/// The agent's file.
pub(super) struct Agent {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) machine: Machine,
}

impl Agent {
    /// Takes the file that is named, or else the one beside this program, or the one that is installed. It must be a static
    /// program for the machine of the modules, if there are any.
    pub(super) fn find(named: Option<&Path>, modules: Option<Machine>) -> Result<Agent, ImageError> {
        let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join("imprint")));
        let places = match named {
            Some(path) => vec![path.to_owned()],
            None => beside.into_iter().chain([INSTALLED.into()]).collect(),
        };
        for path in &places {
            match fs::read(path) {
                Ok(bytes) => return judged(path.clone(), bytes, modules),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("reading the agent", path)(error)),
            }
        }
        let places: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
        Err(ImageError::NoAgent(places.join(" or ")))
    }

    /// Refuses an image that would stop each boot. `origins`: which file on this machine became which path of the image, so that
    /// an error names the file that somebody can correct. Answers with a warning if the agent cannot be asked here.
    pub(super) fn check(&self, tree: &Tree, origins: &[(&'static str, &Path)]) -> Result<Option<String>, ImageError> {
        let made =
            tempfile::Builder::new().prefix("imprint-image-").permissions(fs::Permissions::from_mode(0o700)).tempdir();
        let staged = made.map_err(failed("making a folder in", &std::env::temp_dir()))?;
        lay(tree, staged.path())?;
        let (said, warning) = if Machine::of_this_program() == Some(self.machine) {
            // A name without a slash would be looked for in $PATH.
            let program = fs::canonicalize(&self.path).map_err(failed("finding the agent", &self.path))?;
            let asked = Command::new(program)
                .arg("check")
                .arg("--image")
                .arg(staged.path())
                .stdin(Stdio::null())
                .output()
                .map_err(failed("running the agent", &self.path))?;
            let said = String::from_utf8_lossy(&asked.stderr).trim_end().replace("imprint: ", "");
            ((!asked.status.success()).then_some(said), None)
        } else {
            // The same code, in this program: of its version, which need not be the agent's.
            let refused = imprint::run::check(staged.path(), None).err().map(|error| chain(&error));
            let warning = format!(
                "the agent {} is for {} and cannot run here, so imprint-host itself has checked what the image has for all nodes",
                self.path.display(),
                self.machine
            );
            (refused, Some(warning))
        };
        match said {
            None => Ok(warning),
            Some(said) => Err(ImageError::Refused(origins.iter().fold(said, |said, (place, file)| {
                said.replace(
                    &staged.path().join(place.trim_start_matches('/')).display().to_string(),
                    &file.display().to_string(),
                )
            }))),
        }
    }
}

fn judged(path: PathBuf, bytes: Vec<u8>, modules: Option<Machine>) -> Result<Agent, ImageError> {
    let not_elf = |NotElf| ImageError::NotAnAgent(path.clone());
    let elf = Elf::new(&bytes).map_err(not_elf)?;
    let (machine, dynamic) = (elf.machine().map_err(not_elf)?, elf.has_interpreter().map_err(not_elf)?);
    match modules {
        Some(modules) if modules != machine => Err(ImageError::OtherMachine { path, agent: machine, modules }),
        _ if dynamic => Err(ImageError::Dynamic(path)),
        _ => Ok(Agent { path, bytes, machine }),
    }
}

/// Lays out what the agent looks at: `/imprint` and `/etc`.
fn lay(tree: &Tree, at: &Path) -> Result<(), ImageError> {
    let looked_at =
        |path: &str| ["/imprint", "/etc"].iter().any(|top| path == *top || path.starts_with(&format!("{top}/")));
    for (path, mode, node) in tree.iter().filter(|(path, ..)| looked_at(path)) {
        let place = at.join(path.trim_start_matches('/'));
        let private = fs::Permissions::from_mode(mode);
        match node {
            Node::Directory => fs::create_dir(&place).map_err(failed("making", &place))?,
            Node::File(bytes) => write(&place, private, bytes).map_err(failed("writing", &place))?,
            // The agent reads neither.
            Node::Link(_) | Node::Device(..) => {}
        }
    }
    Ok(())
}

/// The folder is this user's alone, so nobody sees the file before it has its mode.
fn write(place: &Path, mode: fs::Permissions, bytes: &Zeroizing<Vec<u8>>) -> io::Result<()> {
    fs::write(place, bytes)?;
    fs::set_permissions(place, mode)
}
