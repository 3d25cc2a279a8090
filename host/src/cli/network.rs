//! `imprint-host network`: the file of an image with the network before a payload. Needs no state directory, and makes no payload.

use std::fs;
use std::path::Path;

use imprint::payload::Link;

use super::published::NetworkFile;
use super::{Cli, CliError, say};
use crate::output::Output;
use crate::record;

pub(super) fn network(cli: &Cli, file: &Path, output: &Path) -> Result<(), CliError> {
    let text = fs::read_to_string(file).map_err(|source| CliError::Read { path: file.to_owned(), source })?;
    let links = record::network(&file.display().to_string(), &text).map_err(CliError::Network)?;
    let bytes = Link::encode_all(&links);
    let staged = Output::open(output).and_then(|output| output.stage(&bytes)).map_err(CliError::Write)?;
    staged.finish(&bytes).map_err(CliError::Write)?;
    let shown = output.display().to_string();
    say::either(cli, &NetworkFile { network: &shown, links: links.len() }, &{
        let links = if links.len() == 1 { "1 link".to_owned() } else { format!("{} links", links.len()) };
        format!("wrote {links} to {}; it goes into images as /imprint/network\n", imprint::shown::line(&shown))
    })
}
