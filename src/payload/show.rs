//! Formats a payload for people. Every item is shown; secrets are mentioned, but their values are never shown.

use std::fmt;

use super::{BundleTerms, Enrolment, Link, LinkKind, Payload, TokenMode};
use crate::hex;

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "id         {}", self.id)?;
        writeln!(f, "composed   {}", self.composed)?;
        writeln!(f, "expiry     {}", self.expiry)?;
        if let Some(binding) = &self.binding {
            let uuid = binding.uuid.map(|uuid| format!("UUID {}", hex::uuid(&uuid)));
            let serial = binding.serial.as_ref().map(|serial| format!("serial {}", serial.escape_default()));
            let macs = binding.macs.iter().map(|mac| format!("MAC {mac}"));
            let all: Vec<String> = uuid.into_iter().chain(serial).chain(macs).collect();
            writeln!(f, "bound to   {}", all.join(", "))?;
        }
        if let Some(seed) = &self.seed {
            let once = if seed.single_boot { ", for a single boot" } else { "" };
            writeln!(f, "seed       {} bytes{once} (not shown)", seed.bytes.expose().len())?;
        }
        for (index, link) in self.network.iter().enumerate() {
            writeln!(f, "link {index}     {link}")?;
        }
        if self.from_cmdline {
            writeln!(f, "network    as the kernel command line says")?;
        }
        if let Some(hostname) = &self.hostname {
            writeln!(f, "host name  {hostname}")?;
        }
        let ca = &self.ca;
        writeln!(f, "CA         {}, {} to {}", ca.subject(), ca.not_before(), ca.not_after())?;
        writeln!(f, "           sha256 {}", hex::encode(&ca.sha256()))?;
        for issuer in &self.issuers {
            writeln!(f, "issuer     sha256 {}", hex::encode(issuer))?;
        }
        match &self.enrolment {
            Enrolment::Csr(csr) => {
                writeln!(f, "names      {}", csr.names)?;
                writeln!(f, "key        {}, made by the node", csr.key)?;
                writeln!(f, "record     {}", csr.name)?;
                for url in &csr.urls {
                    writeln!(f, "server     {url}")?;
                }
                match csr.token.as_ref().map(|token| token.mode) {
                    Some(TokenMode::Once) => writeln!(f, "token      for one enrolment (not shown)")?,
                    Some(TokenMode::EachBoot) => writeln!(f, "token      for each boot (not shown)")?,
                    None => writeln!(f, "token      none")?,
                }
            }
            Enrolment::Credentials(credentials) => {
                for der in &credentials.chain {
                    writeln!(f, "given      {}", crate::certificate::shown(der))?;
                }
                writeln!(f, "key        in the payload (not shown)")?;
            }
        }
        if let Some(BundleTerms { key, least }) = &self.bundle {
            let least = if *least == 0 { String::new() } else { format!("; counter {least} or higher") };
            writeln!(f, "bundle     key {key}{least}")?;
        }
        if let Some(digest) = &self.root {
            writeln!(f, "root       sha256 {}", hex::encode(digest))?;
        }
        if !self.signers.is_empty() {
            let kids: Vec<String> = self.signers.iter().map(|signer| signer.kid().to_string()).collect();
            writeln!(f, "signers    {} sign its bundles, if the image names no signer", kids.join(" or "))?;
        }
        if let Some(word) = self.admitted() {
            writeln!(f, "admitted   {word}")?;
        }
        for extension in self.extensions.iter().filter(|extension| !self.says_admitted(extension)) {
            writeln!(f, "ignored    {extension}")?;
        }
        Ok(())
    }
}

/// One line: the link, then its configuration.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |ports: &[usize]| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
        match &self.kind {
            LinkKind::Physical(matching) => write!(f, "{matching}")?,
            LinkKind::Vlan { name, id, parent } => write!(f, "VLAN {name} id {id} on link {parent}")?,
            LinkKind::Bond { name, mode, ports } => {
                write!(f, "bond {name} ({mode}) of links {}", listed(ports))?;
            }
            LinkKind::Bridge { name, ports } => write!(f, "bridge {name} of links {}", listed(ports))?,
        }
        for address in &self.addresses {
            write!(f, "; {address}")?;
        }
        for (set, what) in
            [(self.dhcp4, "DHCPv4"), (self.duid, "client id by DUID"), (self.slaac, "SLAAC"), (self.dhcp6, "DHCPv6")]
        {
            if set {
                write!(f, "; {what}")?;
            }
        }
        for route in &self.routes {
            write!(f, "; {route}")?;
        }
        for server in &self.dns {
            write!(f, "; dns {server}")?;
        }
        for domain in &self.search {
            write!(f, "; search {domain}")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, "; mtu {mtu}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_credentials_without_the_key() {
        let payload = Payload::decode(include_bytes!("../../tests/data/payload-credentials.cbor")).unwrap();
        let (shown, ca) = (payload.to_string(), &payload.ca);
        let given = format!(
            "given      CN=imprint test root, from CN=imprint test root, valid {} to {}\nkey        in the payload (not \
             shown)\n",
            ca.not_before(),
            ca.not_after()
        );
        assert!(shown.ends_with(&given), "{shown}");
    }

    #[test]
    fn shows_everything_but_secrets() {
        let payload = Payload::decode(include_bytes!("../../tests/data/payload-full.cbor")).unwrap();
        let shown = payload.to_string();
        let ca = &payload.ca;
        assert_eq!(
            shown,
            format!(
                "\
id         f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff
composed   1970-01-01T00:00:00Z
expiry     9999-12-31T23:59:59Z
bound to   UUID 00010203-0405-0607-0809-0a0b0c0d0e0f, serial SN-0042, MAC 52:54:00:12:34:56, MAC \
00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13
seed       32 bytes, for a single boot (not shown)
link 0     MAC address 52:54:00:12:34:56; mtu 9000
link 1     name eth1
link 2     bond bond0 (802.3ad) of links 0+1; 192.0.2.10/24; 2001:db8::10/64; 0.0.0.0/0 via 192.0.2.1 metric 100; \
::/0 via fe80::1; 198.51.100.0/24; dns 192.0.2.53; dns 2001:db8::53; search example.org; search example.net; mtu 1500
link 3     VLAN vlan7 id 7 on link 2; DHCPv4
link 4     bridge br0 of links 3; SLAAC; DHCPv6
link 5     driver virtio_net; DHCPv4
link 6     BOOTIF; DHCPv4
host name  node1.example.org
CA         CN=imprint test root, {} to {}
           sha256 {}
issuer     sha256 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
names      CN=node1, O=Example, OU=Rack 7, C=DE, ST=Berlin, L=Mitte, serialNumber=SN-0042, DC=example \
dns:node1.example.org dns:node1.example.net ip:192.0.2.10 ip:2001:db8::10 uri:spiffe://example.org/node1 \
email:node1@example.org
key        p384, made by the node
record     node1
server     line:
server     https://[2001:db8::1]/.well-known/est/nodes
token      for each boot (not shown)
ignored    key -1 in network[6]
ignored    key -24 in the payload
",
                ca.not_before(),
                ca.not_after(),
                hex::encode(&ca.sha256())
            )
        );
        assert!(!shown.contains("hunter2"));
    }
}
