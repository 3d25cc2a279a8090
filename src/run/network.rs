//! `imprint network`: shows the links of a running system as a boot without a network shows them. Never changes a link.

use std::path::Path;
use std::time::Duration;

use crate::apply::network;
use crate::error::Error;
use crate::machine::devices;

/// The longest time to listen.
const MOST: Duration = Duration::from_secs(600);

/// One line for each link, and below it what it has. `listen`: how long to listen for the switch at the other end.
pub fn network(root: &Path, listen: Duration) -> Result<String, Error> {
    let mut text = String::new();
    for link in network::listen(root, listen.min(MOST))? {
        text.push_str(&format!("{}\n", link.report));
        let mac = link.facts.device.present.as_ref().or(link.facts.mac.as_ref()).map(ToString::to_string);
        let permanent =
            link.facts.mac.as_ref().map(ToString::to_string).filter(|permanent| Some(permanent) != mac.as_ref());
        let path = link.facts.device.path.as_ref().map(|path| format!("path {path}"));
        let words = [mac, permanent.map(|mac| format!("permanent {mac}")), path];
        let words: Vec<String> = words.into_iter().flatten().collect();
        if !words.is_empty() {
            text.push_str(&format!("  {}\n", words.join(", ")));
        }
        if let Some(vlan) = link.report.heard.neighbour.as_ref().and_then(|neighbour| neighbour.management_vlan) {
            text.push_str(&format!("  management of the switch: VLAN {vlan}\n"));
        }
        for address in &link.addresses {
            text.push_str(&format!("  {address}\n"));
        }
    }
    if text.is_empty() {
        text.push_str("no link but loopback\n");
    }
    devices::links_without_driver(root).iter().for_each(|card| text.push_str(&format!("{card}\n")));
    Ok(text)
}
