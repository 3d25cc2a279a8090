//! `imprint setup`: the dialogue by hand, on the terminal that it is started on. Writes the answers to a file for the server, and changes
//! nothing else.

use std::path::Path;
use std::time::Duration;

use super::RUN_DIR;

use crate::apply::file;
use crate::console::say;
use crate::error::Error;
use crate::handover::HandoverError;
use crate::setting::{Key, Settings};
use crate::setup::{self, End, Start};
use crate::status::Node;
use crate::time::Deadline;

/// How long the kernel may take to list the links.
const LINKS: Duration = Duration::from_secs(10);

/// `imprint setup`: asks on this terminal, and writes `[set]` of a record to `out`.
pub fn setup(root: &Path, out: &Path) -> Result<(), Error> {
    let node = std::fs::read(root.join(RUN_DIR).join("node.json")).ok();
    let node =
        node.and_then(|json| serde_json::from_slice::<Node>(&json).ok()).and_then(|node| node.name).unwrap_or_default();
    let mut defaults = Settings::default();
    if let Some(name) = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok())
        && !matches!(name.as_str(), "localhost" | "(none)")
    {
        // A name that is no host name is no default.
        let _ = defaults.add(Key::Hostname, &name);
    }
    let start =
        Start::of_machine(root, &node, defaults, Deadline::after(LINKS)).map_err(crate::facts::FactsError::Links)?;
    match setup::ask_here(root, Start { may_quit: true, ..start })? {
        End::Quit => say("nothing was written"),
        End::Settings(settings) => {
            let folder = match out.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            let failed = |source| HandoverError::Write { path: out.to_owned(), source };
            let name = out.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
            file::replace(folder, name, settings.to_toml().as_bytes(), 0o600).map_err(failed)?;
            let node = if node.is_empty() { "NODE" } else { &node };
            say(&format!("the answers are in {}", out.display()));
            say(&format!(
                "take the file to the server, and make the bundle: imprint-host bundle make {node} --from FILE"
            ));
            say("then remove the file: it may have the hash of a password in it");
        }
    }
    Ok(())
}
