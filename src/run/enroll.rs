//! `imprint enroll`: a certificate for a running system. Never changes its clock or its network.

use std::path::Path;
use std::time::Duration;

use super::certify::identify;
use super::door::Door;
use super::end::{finish, stopped};
use super::find::pin_of_machine;
use super::limits::Limits;
use super::look::{Judged, planned};
use super::making::Making;
use super::signed_words;
use crate::console::say;
use crate::error::Error;
use crate::fault;
use crate::handover::{Folder, Pending, Private};
use crate::plan::Scope;
use crate::pool::Seeded;
use crate::source;
use crate::status::Timeline;
use crate::time::Deadline;

/// `imprint enroll`: the steps from decoding to hand-over on a running system. `approval`: how long an administrator
/// may take to approve.
pub fn enroll(
    root: &Path,
    file: &Path,
    out: &Path,
    timeout: Duration,
    approval: Option<Duration>,
) -> Result<(), Error> {
    let mut timeline = Timeline::new(|step| say(&step.to_string()));
    let limits = Limits { deadline: Deadline::after(timeout), timeout, approval };
    let folder = Folder::make(out)?;
    fault::recorded_in(out, timeline.record());
    match enroll_story(root, file, &folder, limits, &mut timeline) {
        Ok(pending) => finish(out, pending, &timeline),
        Err(error) => Err(stopped(out, &timeline, error)),
    }
}

fn enroll_story(
    root: &Path,
    file: &Path,
    folder: &Folder,
    limits: Limits,
    timeline: &mut Timeline,
) -> Result<Pending, Error> {
    let deadline = limits.deadline;
    let found = timeline.step("source", |_| source::file::named(file))?;
    timeline.found(&found.origin);
    let pin = pin_of_machine(root, say)?;
    let (payload, signed) = timeline.step("payload", |detail| {
        source::decode(&found, pin.as_ref(), None).inspect(|(_, signed)| *detail = signed_words(signed))
    })?;
    timeline.signed(&signed, &payload);
    let judged = Judged { payload, signed, pin };
    let plan = timeline.step("plan", |_| planned(root, found, judged, Scope::CertificateOnly, deadline))?;
    timeline.planned(&plan);
    let seeded = timeline.step("entropy", |_| Seeded::ready(deadline))?;
    // A running system has its configuration: its plan has no bundle.
    let door = Door { root, boot: false, race: None, line: None, making: Making::default() };
    identify(&plan, &seeded, door, folder, Private::Directory, timeline, limits)
}
