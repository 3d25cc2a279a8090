//! What a node says of itself. Every word of it is a claim: it can be compared, and proves nothing.

use std::fmt;

use imprint::hex;
use imprint::line::Hello;
use imprint::line::frame::cut_serial;
use imprint::payload::Binding;
use serde::{Deserialize, Serialize};

use super::Caller;

/// What a node says of itself, and over what kind of line. Two boots of one machine over one kind of line say the same. As
/// JSON it is in the store, where equal words are equal text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Said {
    /// SMBIOS system UUID.
    pub uuid: Option<String>,
    /// SMBIOS system serial number, as far as a HELLO has it.
    pub serial: Option<String>,
    /// Hardware addresses, sorted.
    pub macs: Vec<String>,
    /// `tcp`, `vsock`, `unix`, `ether`
    pub by: String,
}

impl Said {
    /// What this caller says.
    pub fn of(caller: &Caller) -> Said {
        let by = caller.from.split_once(':').map_or(caller.from.as_str(), |(by, _)| by);
        Said::by(&caller.hello, by)
    }

    /// What a HELLO says that came over this kind of line.
    pub fn by(hello: &Hello, by: &str) -> Said {
        let mut macs: Vec<String> = hello.macs.iter().map(|mac| hex::separated(mac, ":")).collect();
        macs.sort();
        macs.dedup();
        Said { uuid: hello.uuid.map(|uuid| hex::uuid(&uuid)), serial: hello.serial.clone(), macs, by: by.to_owned() }
    }

    /// Whether it says nothing: then it is like every other node that says nothing.
    pub fn is_empty(&self) -> bool {
        self.uuid.is_none() && self.serial.as_deref().is_none_or(str::is_empty) && self.macs.is_empty()
    }

    /// Whether it says at least one thing that the binding names.
    pub fn names(&self, binding: &Binding) -> bool {
        let uuid = binding.uuid.is_some_and(|want| self.uuid.as_deref() == Some(&hex::uuid(&want)));
        let serial = binding.serial.as_deref().is_some_and(|want| self.serial.as_deref() == Some(cut_serial(want)));
        uuid || serial || binding.macs.iter().any(|want| self.macs.contains(&want.to_string()))
    }
}

/// `UUID …, serial number "…", MAC address …`
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uuid = self.uuid.as_ref().map(|uuid| format!("UUID {uuid}"));
        let serial = self.serial.as_ref().map(|serial| format!("serial number {}", quoted(serial)));
        let macs = (!self.macs.is_empty()).then(|| format!("MAC address {}", self.macs.join(", ")));
        let all: Vec<String> = [uuid, serial, macs].into_iter().flatten().collect();
        if all.is_empty() { f.write_str("nothing of itself") } else { f.write_str(&all.join(", ")) }
    }
}

/// A difference between what a record names and what a node says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Differs {
    /// `serial number`
    pub what: &'static str,
    /// The record's value.
    pub want: String,
    /// What the node says.
    pub have: String,
}

/// The first difference between binding and words. `None`: they may be of one machine.
pub fn differs(binding: &Binding, said: &Said) -> Option<Differs> {
    let none = || "none".to_owned();
    let uuid = binding.uuid.map(|uuid| hex::uuid(&uuid));
    if let Some(want) = uuid
        && said.uuid.as_ref() != Some(&want)
    {
        return Some(Differs { what: "SMBIOS UUID", want, have: said.uuid.clone().unwrap_or_else(none) });
    }
    if let Some(want) = &binding.serial
        && said.serial.as_deref() != Some(cut_serial(want))
    {
        let have = said.serial.as_deref().map_or_else(none, quoted);
        return Some(Differs { what: "serial number", want: quoted(want), have });
    }
    // A HELLO may lack a hardware address whose driver is not loaded yet. The node checks its binding again itself.
    let want: Vec<String> = binding.macs.iter().map(ToString::to_string).collect();
    if !want.is_empty() && !said.macs.is_empty() && !said.macs.iter().any(|mac| want.contains(mac)) {
        return Some(Differs { what: "MAC address", want: want.join(", "), have: said.macs.join(", ") });
    }
    None
}

/// Text in quotes that cannot end them: behind it stands what is known, not claimed.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\\\""))
}
