//! `imprint console`: a boot by hand, on the console of a node. Shows the node's identifiers, takes a payload that is
//! pasted or that a host sends on this line, and then continues like a boot. Never looks at another source.

use std::path::Path;
use std::time::Duration;

use super::end::{finish, report, stopped};
use super::find::pin_of_machine;
use super::look::network_words;
use super::making::Asks;
use super::{Lines, RUN_DIR, begin, story_of};

use crate::confidential;
use crate::console::say;
use crate::dialogue::Dialogue;
use crate::error::Error;
use crate::facts;
use crate::fault;
use crate::handover::{Folder, Pending};
use crate::hex;
use crate::options::Options;
use crate::site::SignedBy;
use crate::source::{self, Origin};
use crate::status::Timeline;
use crate::time::Deadline;

/// `imprint console`: shows the node's identifiers, and takes a payload on this terminal.
pub fn console(root: &Path, timeout: Duration) -> Result<(), Error> {
    let mut timeline = Timeline::new(|step| say(&step.to_string()));
    let directory = root.join(RUN_DIR);
    let Some(folder) = begin(&directory)? else { return Ok(()) };
    fault::recorded_in(&directory, timeline.record());
    let mut line = None;
    let result = match by_hand(root, &folder, timeout, &mut timeline, &mut line) {
        Ok(pending) => finish(&directory, pending, &timeline),
        Err(error) => Err(stopped(&directory, &timeline, error)),
    };
    if let Some(line) = line {
        report(line, &result, &timeline);
    }
    result
}

fn by_hand(
    root: &Path,
    folder: &Folder,
    timeout: Duration,
    timeline: &mut Timeline,
    line: &mut Option<Dialogue>,
) -> Result<Pending, Error> {
    let deadline = Deadline::after(timeout);
    // The options on the kernel command line are for the boot and do not count here. BOOTIF and the network are facts and count, and so
    // do credentials, which can only narrow the site pin, and the words about the node's bundle: they say what the node is, not
    // what the boot does.
    let (network, bootif) = network_words(root);
    let of_boot = source::cmdline::text(root).ok().and_then(|text| Options::parse(&text).ok());
    let (new_bundle, settings) = of_boot.map(|of_boot| (of_boot.new_bundle, of_boot.settings)).unwrap_or_default();
    let options = Options { timeout, bootif: bootif.clone(), network, new_bundle, settings, ..Options::parse("")? };
    let pin = pin_of_machine(root, say)?;
    let origin = Origin::Line { name: String::new(), sealed: false };
    let facts = facts::gather(root, origin, None, SignedBy::Nobody, bootif, deadline)?;
    let dialogue = line.insert(source::line::terminal(root, pin.as_ref(), deadline)?);
    let uuid = facts.dmi.uuid.map_or("unknown".to_owned(), |uuid| hex::uuid(&uuid));
    say(&format!("UUID {uuid}, serial number {}", facts.dmi.serial.as_deref().unwrap_or("unknown")));
    for link in &facts.links {
        say(&format!("link {link}, {}", if link.carrier { "carrier" } else { "no carrier, or down" }));
    }
    say(&format!("line key {}, for a host that speaks on this line (imprint-host inject --call)", dialogue.code()));
    say("or paste what this prints: imprint-host payload NODE --as text");
    let found = timeline.step("source", |detail| {
        source::line::pasted(dialogue, deadline, &mut |words| say(words))
            .inspect(|found| *detail = found.origin.to_string())
    })?;
    source::admitted(&found.origin, pin.is_some(), confidential::detect(root))?;
    if line.as_ref().is_some_and(|line| !line.is_open()) {
        // No host speaks there, so the terminal is that of the person again, who may be asked about the node's bundle.
        *line = None;
    }
    let asks = if line.is_none() { Asks::Here } else { Asks::Nowhere };
    let lines = Lines { line: line.as_ref(), doors: &mut None, places: asks };
    let (pending, _) = story_of(root, folder, &options, found, pin, timeline, lines)?;
    Ok(pending)
}
