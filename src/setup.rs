//! The dialogue with a person at a console: what a node without a bundle and without settings on its kernel command line asks. The
//! questions are pure ([`Script`]); [`ask`] brings them to every console of the machine. Never builds a bundle, and never uses the
//! network: its caller does.

mod consoles;
mod hash;
mod script;
mod typed;
mod words;

use std::path::Path;

pub use consoles::{Answer, Limits, SetupError, ask, ask_here, places};
pub use script::{End, Port, Script, Start};

use crate::machine::{LinkFacts, links};
use crate::netlink::{Netlink, RequestError};
use crate::setting::Settings;
use crate::time::Deadline;

impl Start {
    /// A dialogue about this machine. The kernel's random pool has to be ready.
    pub fn of_machine(root: &Path, node: &str, defaults: Settings, deadline: Deadline) -> Result<Start, RequestError> {
        let mut found = links(&mut Netlink::open(0)?, root, deadline)?;
        // Links without a driver are virtual; where there are no others, the machine is a container.
        if found.iter().any(|link| link.driver.is_some()) {
            found.retain(|link| link.driver.is_some() && !link.controller);
        }
        let mut salt = [0; 16];
        // A salt is no secret. Without one the hash still is what its password makes it.
        let _ = aws_lc_rs::rand::fill(&mut salt);
        let links = found.into_iter().map(|link| shown(root, link)).collect();
        Ok(Start { node: node.to_owned(), links, defaults, salt, may_quit: false })
    }
}

fn shown(root: &Path, link: LinkFacts) -> Port {
    let driver = link.driver.as_ref().map_or("virtual", |driver| driver.as_str());
    // Documentation/ABI/testing/sysfs-class-net: -1, or an error, where the speed is not known.
    let path = root.join("sys/class/net").join(link.name.as_str()).join("speed");
    let speed =
        std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok()).filter(|speed| *speed > 0);
    let words = match (link.carrier, speed) {
        (false, _) => format!("{driver}, no carrier"),
        (true, Some(speed)) => format!("{driver}, {speed} Mb/s"),
        (true, None) => format!("{driver}, carrier"),
    };
    Port { name: link.name, mac: link.mac, words, carrier: link.carrier }
}
