//! Says what a DHCPv6 client has done, for an operator without a network. Never changes the client.

use super::{Client, Offer, Stage};

impl Client {
    /// The client's state in words.
    pub fn state(&self) -> String {
        let mut state = match &self.stage {
            Stage::Solicit if self.solicits == 0 => "about to ask".to_owned(),
            Stage::Solicit => format!("{} SOLICIT sent, no ADVERTISE", self.solicits),
            Stage::Request(Offer { address, server, .. }) => {
                format!("ADVERTISE of {address} by {}, {} REQUEST sent, no answer", server.from, self.sent)
            }
            Stage::Renew { address, server: Some(_), .. } => {
                format!("{} RENEW sent to keep {address}, no answer", self.sent)
            }
            Stage::Renew { address, .. } => format!("{} REBIND sent to keep {address}, no answer", self.sent),
            Stage::Decline(address, _) => format!("{} DECLINE of {address} sent", self.sent),
            Stage::Inform => format!("{} INFORMATION-REQUEST sent, no REPLY", self.sent),
            Stage::Bound(address, from) => format!("{address} by {from}"),
            Stage::Informed(from) => format!("information by {from}"),
        };
        if let Some(address) = &self.taken {
            state.push_str(&format!(", another machine has {address}"));
        }
        if let Some((from, name, words)) = &self.refusal {
            let words = if words.is_empty() { String::new() } else { format!(": \"{words}\"") };
            state.push_str(&format!(", last refusal by {from}: {name}{words}"));
        }
        if let Some((from, asked)) = &self.deaf {
            state.push_str(&format!(", no answer by {from} to {asked} REQUEST"));
        }
        for (position, (why, count)) in self.dropped.iter().enumerate() {
            let comma = if position == 0 { ", dropped: " } else { ", " };
            state.push_str(&format!("{comma}{count} {why}"));
        }
        state
    }
}
