//! What the machine itself says of names: the text of resolv.conf(5) and of hosts(5), and in which order a search list completes a
//! name. Never opens a file, and asks nobody.
//!
//! The administrator vouches for both files, or the agent, which wrote resolv.conf from what the network said.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use super::ask::SERVERS;
use crate::payload::DnsName;

/// What resolv.conf(5) says, as far as the agent heeds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The name servers, the first one first. None: the file names none.
    pub servers: Vec<SocketAddr>,
    /// The domains that complete a name.
    pub search: Vec<DnsName>,
    /// A name with so many dots is asked for as it is first.
    pub ndots: usize,
    /// Questions go over TCP only (`use-vc`).
    pub tcp: bool,
    /// No IPv6 addresses are asked for (`no-aaaa`).
    pub no_aaaa: bool,
}

/// The port of DNS.
pub const PORT: u16 = 53;
/// The most domains of a search list that are asked in.
const DOMAINS: usize = 8;
/// resolv.conf(5): larger values are cut to this one.
const MAX_NDOTS: usize = 15;
/// The most addresses of a name in hosts(5).
const ADDRESSES: usize = 16;

impl Settings {
    /// Reads resolv.conf(5). `index`: the number of a link, for `fe80::1%eth0`. What cannot be read is left out, as the C libraries do.
    /// Of several lists the last one holds. Options that are not in [`Settings`] concern programs with other waits and answers.
    pub fn read(text: &str, index: &dyn Fn(&str) -> Option<u32>) -> Settings {
        let mut all = Settings { servers: Vec::new(), search: Vec::new(), ndots: 1, tcp: false, no_aaaa: false };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| server(word, index));
                    all.servers.extend(server.filter(|server| !all.servers.contains(server)));
                }
                Some("search" | "domain") => {
                    let names = words.map(|name| name.strip_suffix('.').unwrap_or(name));
                    all.search = names.filter_map(|name| DnsName::try_from(name).ok()).take(DOMAINS).collect();
                }
                Some("options") => words.for_each(|word| all.option(word)),
                _ => {}
            }
        }
        all.servers.truncate(SERVERS);
        all
    }

    fn option(&mut self, word: &str) {
        match word.split_once(':') {
            Some(("ndots", number)) => self.ndots = number.parse().unwrap_or(self.ndots).min(MAX_NDOTS),
            None if word == "use-vc" => self.tcp = true,
            None if word == "no-aaaa" => self.no_aaaa = true,
            _ => {}
        }
    }

    /// The names that are asked for, one after the other, until one has an address: the name itself first if it has as many dots
    /// as `ndots` says, else last (resolv.conf(5), RFC 1535 §6).
    pub fn names(&self, name: &str) -> Vec<String> {
        let completed = self.search.iter().map(|domain| format!("{name}.{domain}")).filter(|name| name.len() <= 253);
        let mut names: Vec<String> = completed.collect();
        let whole_first = name.bytes().filter(|byte| *byte == b'.').count() >= self.ndots;
        names.insert(if whole_first { 0 } else { names.len() }, name.to_owned());
        names
    }
}

fn server(word: &str, index: &dyn Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    match word.split_once('%') {
        None => Some(SocketAddr::new(word.parse().ok()?, PORT)),
        Some((address, zone)) => {
            let link = zone.parse().ok().or_else(|| index(zone))?;
            Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, link).into())
        }
    }
}

/// The addresses of a name in hosts(5). A name that is there is not asked for, in neither family.
pub fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        if words.any(|word| word.eq_ignore_ascii_case(name)) {
            found.extend(address.filter(|address| !found.contains(address) && found.len() < ADDRESSES));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Settings {
        Settings::read(text, &|name| (name == "eth0").then_some(7))
    }

    fn domains(settings: &Settings) -> Vec<&str> {
        settings.search.iter().map(DnsName::as_str).collect()
    }

    #[test]
    fn who_is_asked() {
        let text = "# nameserver 192.0.2.1\nsearch nameserver\nnameserver\t192.0.2.2 # the first\n nameserver fe80::1%eth0\n\
                    nameserver none\nnameservers 192.0.2.3\nnameserver fe80::1%\x1b[2J\nnameserver 2001:db8::53\n\
                    nameserver 192.0.2.2\nnameserver fe80::2%3\nnameserver 192.0.2.1%eth0\nnameserver\n";
        let servers: Vec<String> = read(text).servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.2:53", "[fe80::1%7]:53", "[2001:db8::53]:53", "[fe80::2%3]:53"]);
        assert!(read("").servers.is_empty());
        let many: String = (0..100).map(|n| format!("nameserver 192.0.2.{n}\n")).collect();
        assert_eq!(read(&many).servers.len(), SERVERS);
    }

    #[test]
    fn the_last_search_list_holds() {
        let settings = read("search a.example b.example.\ndomain c.example\nsearch lab.example . under_score x.\n");
        assert_eq!(domains(&settings), ["lab.example", "x"]);
        assert_eq!(domains(&read("search a.example\ndomain c.example d.example\n")), ["c.example", "d.example"]);
        let many: String = (0..100).map(|n| format!(" d{n}.example")).collect();
        assert_eq!(read(&format!("search{many}")).search.len(), DOMAINS);
    }

    #[test]
    fn options_that_matter() {
        let settings = read("options timeout:1 ndots:2 rotate edns0\noptions use-vc no-aaaa attempts:x ndots:\n");
        assert_eq!((settings.ndots, settings.tcp, settings.no_aaaa), (2, true, true));
        assert_eq!(read("options ndots:99").ndots, 15);
        let none = read("# options use-vc\noptions use-vcx ndots:-1");
        assert_eq!((none.ndots, none.tcp, none.no_aaaa), (1, false, false));
    }

    #[test]
    fn a_name_with_enough_dots_is_asked_for_as_it_is_first() {
        let mut settings = read("search a.example b.example\n");
        let completed = ["est.a.example", "est.b.example"];
        assert_eq!(settings.names("est"), [&completed[..], &["est"]].concat());
        assert_eq!(settings.names("est.lab"), ["est.lab", "est.lab.a.example", "est.lab.b.example"]);
        settings.ndots = 2;
        assert_eq!(settings.names("est.lab"), ["est.lab.a.example", "est.lab.b.example", "est.lab"]);
        settings.ndots = 0;
        assert_eq!(settings.names("est"), [&["est"], &completed[..]].concat());
        // A name that would be too long is none.
        let long = ["x".repeat(63), "x".repeat(63), "x".repeat(63), "x".repeat(55)].join(".");
        assert_eq!(settings.names(&long), [long]);
    }

    #[test]
    fn what_the_hosts_file_says() {
        let text = "127.0.0.1 localhost\n192.0.2.7\tEst.example est # 192.0.2.8 est\n#192.0.2.9 est\nnone est\n\
                    2001:db8::7 other EST\n192.0.2.7 est\nfe80::1%eth0 est\n";
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(hosts(text, "est"), [ip("192.0.2.7"), ip("2001:db8::7")]);
        assert_eq!(hosts(text, "est.example"), [ip("192.0.2.7")]);
        assert!(hosts(text, "192.0.2.7").is_empty() && hosts("", "est").is_empty());
    }
}
