//! Sets clock, host name and network before the check-in, and changes clock and network when the check-in asks for it.
//! Never decides; the plan says what to do.

use std::path::Path;

use super::making::Making;
use crate::apply::clock::ClockError;
use crate::apply::network::{LinkReport, Network, NetworkError, Race};
use crate::apply::{clock, network};
use crate::chain::chain;
use crate::checkin::{Ask, AskError, Reply};
use crate::console::say;
use crate::dialogue::Dialogue;
use crate::error::Error;
use crate::handover;
use crate::machine::devices;
use crate::plan::Plan;
use crate::time::{Deadline, Timestamp};

/// The only way for a check-in to change clock and network, and the network that results. What is needed of the machine to make a bundle
/// comes in here, too.
pub(super) struct Door<'a> {
    pub(super) root: &'a Path,
    /// False on a running system: its clock and network must not be changed.
    pub(super) boot: bool,
    pub(super) race: Option<Race<'a>>,
    /// The line that the payload came on.
    pub(super) line: Option<&'a Dialogue>,
    pub(super) making: Making<'a>,
}

impl Door<'_> {
    pub(super) fn answer(&mut self, ask: Ask) -> Result<Reply, AskError> {
        match (ask, &mut self.race) {
            (Ask::SetClock(now), _) if self.boot => {
                clock::set(now).map_err(AskError::Clock)?;
                write_rtc(self.root, now);
                Ok(Reply::Done)
            }
            (Ask::NextLink(until), Some(race)) => {
                let more = race.next(until, &mut |_| ()).map_err(AskError::Network)?;
                Ok(if more { Reply::Done } else { Reply::NothingMore })
            }
            (Ask::RenewLease(until), Some(race)) => {
                race.renew(until).map_err(AskError::Network)?;
                Ok(Reply::Done)
            }
            _ => Ok(Reply::NothingMore),
        }
    }

    /// What became of the links; none if the network was not changed.
    pub(super) fn links(&self) -> Vec<LinkReport> {
        self.race.iter().flat_map(Race::report).collect()
    }

    /// Writes the final network down, for the program that manages the network in the next stage.
    pub(super) fn hand_over(&mut self) -> Result<Option<Network>, Error> {
        let Some(race) = &mut self.race else { return Ok(None) };
        let network = race.network()?;
        race.settle()?;
        handover::network::write(self.root, &network)?;
        Ok(Some(network))
    }
}

pub(super) fn prepare_clock(plan: &Plan, root: &Path, detail: &mut String) -> Result<(), ClockError> {
    let set = clock::prepare(&plan.clock)?;
    if let Some(clock) = plan.clock.quality.told().filter(|_| set) {
        write_rtc(root, clock.now());
    }
    *detail = plan.clock_words();
    Ok(())
}

fn write_rtc(root: &Path, now: Timestamp) {
    if let Err(error) = clock::write_rtc(root, now) {
        say(&format!("{}; the next boot asks again", chain(&error)));
    }
}

pub(super) fn configure<'p>(
    plan: &'p Plan,
    root: &'p Path,
    deadline: Deadline,
    detail: &mut String,
) -> Result<Option<Race<'p>>, NetworkError> {
    if let Some(hostname) = &plan.hostname {
        network::set_hostname(hostname)?;
    }
    let Some(wanted) = &plan.network else { return Ok(None) };
    let mut race = Race::new(wanted, plan.hostname.as_ref(), root)?;
    if !race.next(deadline, &mut |links| no_link_yet(root, links))? {
        return Err(race.failure());
    }
    *detail = race.network()?.links.first().map(ToString::to_string).unwrap_or_default();
    Ok(Some(race))
}

fn no_link_yet(root: &Path, links: &[LinkReport]) {
    say("no link is usable yet:");
    if links.is_empty() {
        say("  no link that the payload asks for has appeared; is its driver in the image?");
    }
    links.iter().for_each(|link| say(&format!("  {link}")));
    devices::links_without_driver(root).iter().for_each(|card| say(&format!("  {card}")));
}
