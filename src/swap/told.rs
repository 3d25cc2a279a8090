//! What became of swap space: the values of swap.json (docs/status.md) and of the lines for people. Never holds a key, and never writes a
//! file.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::chain::chain;
use crate::shown::line;

/// The file in the folder of the hand-over. It is there only where swap space was set up, or should have been.
pub const SWAP: &str = "swap.json";
/// A new item does not change the version; any other change does.
const VERSION: u32 = 1;

/// swap.json
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Told {
    /// [`VERSION`]
    pub version: u32,
    /// The swap space that is in use.
    pub areas: Vec<Area>,
    /// Why there is no other, as on the console.
    pub errors: Vec<String>,
}

/// Swap space.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Area {
    /// Where its pages are.
    pub kind: Kind,
    /// The kernel's name of the device in use: `dm-0`, `zram0`.
    pub device: String,
    /// The partition below it; `None`: memory.
    pub partition: Option<String>,
    /// Its size.
    pub bytes: u64,
}

/// Where the pages of swap space are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// On a disk, encrypted.
    Disk,
    /// In memory, compressed.
    Zram,
}

impl Told {
    /// What swap.json says of it.
    pub fn of(outcome: &Outcome) -> Told {
        let errors = outcome.errors.iter().map(|error| chain(error)).collect();
        Told { version: VERSION, areas: outcome.areas.clone(), errors }
    }
}

/// `1019 MiB on vdb2 (dm-0), encrypted with a key that is kept nowhere`
impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mib, device) = (self.bytes / 1024 / 1024, line(&self.device));
        match (self.kind, &self.partition) {
            (Kind::Disk, partition) => {
                let partition = partition.as_deref().unwrap_or("?");
                write!(f, "{mib} MiB on {} ({device}), encrypted with a key that is kept nowhere", line(partition))
            }
            (Kind::Zram, _) => write!(f, "{mib} MiB of compressed memory ({device})"),
        }
    }
}

/// A line for each, for `imprint status`.
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.areas.iter().try_for_each(|area| writeln!(f, "swap: {area}"))?;
        self.errors.iter().try_for_each(|error| writeln!(f, "swap: {}", line(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swap::SwapError;

    /// If this test fails, do not change it: programs read this file.
    #[test]
    fn frozen_json() {
        let disk = Area { kind: Kind::Disk, device: "dm-0".into(), partition: Some("vdb2".into()), bytes: 1 << 30 };
        let zram = Area { kind: Kind::Zram, device: "zram0".into(), partition: None, bytes: 1 << 20 };
        let changed = SwapError::Changed { device: "vdc1".into(), why: "byte 7 of it was changed".into() };
        let told = Told::of(&Outcome { areas: vec![disk, zram], errors: vec![changed] });
        let json = serde_json::to_string(&told).unwrap();
        assert_eq!(
            json,
            "{\"version\":1,\"areas\":[{\"kind\":\"disk\",\"device\":\"dm-0\",\"partition\":\"vdb2\",\"bytes\":1073741824},\
             {\"kind\":\"zram\",\"device\":\"zram0\",\"partition\":null,\"bytes\":1048576}],\"errors\":[\"vdc1 was prepared for \
             swap space and is not used: byte 7 of it was changed; run imprint swap prepare on it again, or give it the type \
             of what is on it now\"]}"
        );
        assert_eq!(serde_json::from_str::<Told>(&json).unwrap(), told);
        let shown = told.to_string();
        assert!(
            shown.starts_with(
                "swap: 1024 MiB on vdb2 (dm-0), encrypted with a key that is kept nowhere\nswap: 1 MiB of "
            )
        );
    }
}
