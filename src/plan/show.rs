//! Formats a plan: the dry run that users read and the golden file that tests compare. Never shows a secret.

use std::fmt;

use super::{ClockQuality, IdentityPlan, LinkConfig, NetworkPlan, Plan, stack};
use crate::certificate::shown;
use crate::facts::LinkFacts;
use crate::hex;
use crate::payload::{InterfaceName, TokenMode};
use crate::site::SignedBy;

/// `eth0 (52:54:00:12:34:56, virtio_net)`
impl fmt::Display for LinkFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = self.mac.as_ref().map_or("no MAC address".to_owned(), ToString::to_string);
        let driver = self.driver.as_ref().map_or("virtual", |driver| driver.as_str());
        let whose = if self.controller { ", link to the management controller" } else { "" };
        let part = if self.device.is_function { ", virtual function" } else { "" };
        write!(f, "{} ({mac}, {driver}{part}{whose})", self.name)
    }
}

impl Plan {
    /// The clock of the plan, in words: for the step of a run that sets the clock.
    pub fn clock_words(&self) -> String {
        let words = match self.clock.quality {
            ClockQuality::Rtc => "plausible".to_owned(),
            ClockQuality::Line(time) => time.to_string(),
            ClockQuality::Signed(time) => time.to_string(),
            ClockQuality::Unknown => {
                let until = match self.identity {
                    IdentityPlan::Enrol { .. } => " until a server tells the time",
                    IdentityPlan::Given(_) => "; no server is asked",
                };
                format!("unknown, set to {}{until}", self.clock.floor)
            }
        };
        match self.disbelieved {
            Some(told) if matches!(self.clock.quality, ClockQuality::Signed(_)) => {
                format!(
                    "{words}; the host on the line says {told}, which the signature contradicts, and which is ignored"
                )
            }
            Some(told) => {
                format!(
                    "{words}; the host on the line says {told}, which is before the payload was made and is ignored; \
                     correct the host's clock"
                )
            }
            None => words,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "payload    {} from {}", self.id, self.origin)?;
        let pin = match (self.pinned, self.signed.signer()) {
            (true, _) => "named by this image",
            (false, Some(_)) => "vouched for by the signer",
            (false, None) => "not pinned: anybody who can change the payload can choose the CA",
        };
        writeln!(f, "trust      {}, sha256 {} ({pin})", self.ca().subject(), hex::encode(&self.ca().sha256()))?;
        if self.signed != SignedBy::Nobody {
            writeln!(f, "signed by  {}", self.signed)?;
        }
        for issuer in self.issuers() {
            writeln!(f, "issuer     sha256 {}", hex::encode(issuer))?;
        }
        let clock = match self.clock.quality {
            ClockQuality::Rtc => "plausible, kept",
            ClockQuality::Unknown => "not within the payload's time, set to its start",
            ClockQuality::Line(_) => "set by the line",
            ClockQuality::Signed(time) if time.own => "confirmed by the signature, kept",
            ClockQuality::Signed(_) => "set by the signature",
        };
        let until = match self.identity {
            IdentityPlan::Enrol { .. } if self.clock.quality.told().is_none() => " until a server tells the time",
            _ => "",
        };
        writeln!(f, "clock      {clock}{until}; credible from {} to {}", self.clock.floor, self.clock.expiry)?;
        if let Some(told) = self.disbelieved {
            let why = match self.clock.quality {
                ClockQuality::Signed(_) => "the signature contradicts it",
                _ => "it is before the payload was made",
            };
            writeln!(f, "time       {told} by the line, ignored: {why}")?;
        }
        if let Some(seed) = &self.seed {
            writeln!(f, "seed       {} bytes, {} bits credited", seed.bytes.expose().len(), seed.credit_bits)?;
        }
        if let Some(hostname) = &self.hostname {
            writeln!(f, "host name  {hostname}")?;
        }
        match &self.network {
            Some(network) => network.fmt(f)?,
            None => writeln!(f, "network    left as it is")?,
        }
        self.identity.fmt(f)?;
        if let Some(bundle) = &self.bundle {
            writeln!(f, "bundle     {bundle}")?;
        }
        if let Some(digest) = &self.root {
            writeln!(f, "root       sha256 {}", hex::encode(digest))?;
        }
        match self.spent() {
            Some(_) => writeln!(f, "after that removed from {}", self.origin),
            None => Ok(()),
        }
    }
}

impl fmt::Display for IdentityPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subject, server) = match self {
            IdentityPlan::Enrol { subject, server } => (subject, server),
            IdentityPlan::Given(given) => {
                writeln!(f, "key        in the payload (not shown)")?;
                for der in &given.chain {
                    writeln!(f, "given      {}", shown(der))?;
                }
                return writeln!(f, "enrol      no: certificate and key are in the payload");
            }
        };
        writeln!(f, "key        {}", subject.key)?;
        writeln!(f, "names      {}", subject.names)?;
        let token = match server.token.as_ref().map(|token| token.mode) {
            Some(TokenMode::Once) => "a token for one enrolment",
            Some(TokenMode::EachBoot) => "a token for each boot",
            None => "no token",
        };
        writeln!(f, "enrol      as {} with {token}", server.name)?;
        for url in &server.urls {
            writeln!(f, "server     {url}")?;
        }
        Ok(())
    }
}

impl fmt::Display for NetworkPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        stack::show(&self.layers, f)?;
        for link in &self.links {
            let on: Vec<&str> = link.there.iter().map(InterfaceName::as_str).collect();
            let on = if on.is_empty() { "none yet".to_owned() } else { on.join(", ") };
            match link.made.and_then(|made| self.layers.get(made)) {
                Some(layer) => writeln!(f, "link       {} (to be made on: {on})", layer.what)?,
                None => writeln!(f, "link       {} (now: {on})", link.matching)?,
            }
            link.config.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for LinkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LinkConfig { mtu, addresses, dhcp4, duid, slaac, dhcp6, routes, dns, search } = self;
        if let Some(mtu) = mtu {
            writeln!(f, "mtu        {mtu}")?;
        }
        for address in addresses {
            writeln!(f, "address    {address}")?;
        }
        if *dhcp4 {
            let by = if *duid { " with the machine's DUID (RFC 4361)" } else { "" };
            writeln!(f, "address    by DHCPv4{by}")?;
        }
        if *slaac {
            writeln!(f, "address    by router advertisements")?;
        }
        if *dhcp6 {
            writeln!(f, "address    by DHCPv6")?;
        }
        for route in routes {
            writeln!(f, "route      {route}")?;
        }
        for server in dns {
            writeln!(f, "dns        {server}")?;
        }
        for domain in search {
            writeln!(f, "search     {domain}")?;
        }
        Ok(())
    }
}
