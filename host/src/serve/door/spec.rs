//! `--door` as text: which kind of door, and where. Opens nothing.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use imprint::shown::Printable;

/// A door, as the user has given it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DoorSpec {
    /// `tcp:ADDRESS:PORT`
    Tcp(SocketAddr),
    /// `vsock[:PORT]`
    Vsock(u32),
    /// `unix:PATH`: nodes, or the hypervisors of nodes, connect to it.
    Unix(PathBuf),
    /// `unix:DIRECTORY/PATTERN`: a socket for each virtual machine.
    Machines(Machines),
    /// `ether:LINK,LINK`
    Ether(Vec<String>),
}

/// The sockets that a hypervisor makes, one for each virtual machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machines {
    /// The directory.
    pub directory: PathBuf,
    /// What the names of the sockets begin with, before the name of the virtual machine.
    pub before: String,
    /// What they end with.
    pub after: String,
    /// The port that guests call at over vsock, if the sockets are those of a vsock device: the hypervisor then connects to
    /// `SOCKET_PORT` for a guest. `None`: the sockets are those of serial or virtio-serial ports.
    pub vsock: Option<u32>,
}

/// The vsock port of a door: "imp".
const VSOCK_PORT: u32 = 0x0069_6d70;

const WANT: &str = "want tcp:ADDRESS:PORT like tcp:[::]:8444, vsock[:PORT], unix:PATH, unix:DIRECTORY/*.sock for a socket of \
                    each virtual machine, or ether:LINK,LINK";

impl FromStr for DoorSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<DoorSpec, String> {
        let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        match (kind, rest) {
            ("tcp", Some(address)) => address.parse().map(DoorSpec::Tcp).map_err(|_| {
                format!(
                    "{}: want an address and a port, like tcp:[::]:8444 or tcp:192.0.2.1:8444",
                    Printable::given(text)
                )
            }),
            ("vsock", None) => Ok(DoorSpec::Vsock(VSOCK_PORT)),
            ("vsock", Some(port)) => Ok(DoorSpec::Vsock(vsock_port(port)?)),
            ("unix", Some(path)) => unix(path),
            ("ether", Some(links)) => ether(links),
            _ => Err(format!("{} is not a kind of door; {WANT}", Printable::given(text))),
        }
    }
}

fn vsock_port(text: &str) -> Result<u32, String> {
    let port = text.parse().ok().filter(|port| *port < u32::MAX);
    port.ok_or_else(|| {
        format!("{}: want a port below 4294967295 (vsock(7)); nodes call at {VSOCK_PORT}", Printable::given(text))
    })
}

fn unix(text: &str) -> Result<DoorSpec, String> {
    let (path, vsock) = match text.rsplit_once(',') {
        Some((path, "vsock")) => (path, Some(VSOCK_PORT)),
        Some((path, option)) if option.starts_with("vsock=") => {
            (path, Some(vsock_port(option.trim_start_matches("vsock="))?))
        }
        _ => (text, None),
    };
    if !path.starts_with('/') {
        return Err(format!("{}: want a path that begins with /", Printable::given(text)));
    }
    let (directory, name) = path.rsplit_once('/').unwrap_or_default();
    if directory.contains('*') || name.matches('*').count() > 1 {
        return Err(format!("{}: one * is allowed, in the name of the socket", Printable::given(text)));
    }
    match (name.split_once('*'), vsock) {
        (None, None) if name.is_empty() => Err(format!("{}: is a directory; want a socket", Printable::given(text))),
        (None, None) => Ok(DoorSpec::Unix(path.into())),
        (None, Some(_)) => Err(format!(
            "{}: ,vsock goes with a pattern, like unix:/run/vm/*.vsock,vsock: the * is the name of the virtual machine",
            Printable::given(text)
        )),
        (Some((before, after)), vsock) => Ok(DoorSpec::Machines(Machines {
            directory: if directory.is_empty() { "/".into() } else { directory.into() },
            before: before.to_owned(),
            after: after.to_owned(),
            vsock,
        })),
    }
}

fn ether(text: &str) -> Result<DoorSpec, String> {
    let mut links: Vec<String> = Vec::new();
    for link in text.split(',') {
        // IFNAMSIZ of the kernel is 16, with the NUL.
        let sound = !link.is_empty() && link.len() < 16 && !link.contains(['/', ' ', ':']) && !link.starts_with('.');
        if !sound || !link.chars().all(|c| c.is_ascii_graphic()) {
            return Err(format!("{}: is not the name of a link; want ether:tap0,tap1", Printable::given(link)));
        }
        if links.iter().any(|other| other == link) {
            return Err(format!("{}: is named twice", Printable::given(link)));
        }
        links.push(link.to_owned());
    }
    Ok(DoorSpec::Ether(links))
}

impl DoorSpec {
    /// What belongs to both doors, for people. The kernel itself keeps two doors from one address.
    pub fn shares(&self, other: &DoorSpec) -> Option<String> {
        match (self, other) {
            (DoorSpec::Ether(links), DoorSpec::Ether(others)) => {
                links.iter().find(|link| others.contains(link)).map(|link| format!("the link {link}"))
            }
            (DoorSpec::Machines(machines), DoorSpec::Machines(others)) => {
                let (one, two) = ((&machines.before, &machines.after), (&others.before, &others.after));
                let meet = (one.0.starts_with(two.0.as_str()) || two.0.starts_with(one.0.as_str()))
                    && (one.1.ends_with(two.1.as_str()) || two.1.ends_with(one.1.as_str()));
                // Two ports of one vsock device are two doors.
                let both = machines.vsock.is_none() || others.vsock.is_none() || machines.vsock == others.vsock;
                (machines.directory == others.directory && meet && both)
                    .then(|| "a socket whose name fits both patterns".to_owned())
            }
            (DoorSpec::Machines(machines), DoorSpec::Unix(path))
            | (DoorSpec::Unix(path), DoorSpec::Machines(machines)) => {
                let name = path.file_name()?.to_str()?;
                let inside = path.parent() == Some(machines.directory.as_path());
                (inside && machines.machine(name).is_some()).then(|| format!("the socket {}", path.display()))
            }
            _ => None,
        }
    }
}

impl Machines {
    /// The name of the virtual machine whose socket has this file name.
    pub fn machine<'n>(&self, name: &'n str) -> Option<&'n str> {
        let machine = name.strip_prefix(self.before.as_str())?.strip_suffix(self.after.as_str())?;
        Some(machine).filter(|machine| !machine.is_empty())
    }
}

impl fmt::Display for DoorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DoorSpec::Tcp(address) => write!(f, "tcp:{address}"),
            DoorSpec::Vsock(port) => write!(f, "vsock:{port}"),
            DoorSpec::Unix(path) => write!(f, "unix:{}", path.display()),
            DoorSpec::Machines(Machines { directory, before, after, vsock }) => {
                write!(f, "unix:{}/{before}*{after}", directory.display().to_string().trim_end_matches('/'))?;
                vsock.map_or(Ok(()), |port| write!(f, ",vsock={port}"))
            }
            DoorSpec::Ether(links) => write!(f, "ether:{}", links.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<DoorSpec, String> {
        text.parse()
    }

    #[test]
    fn each_kind_and_back() {
        for text in [
            "tcp:[::]:8444",
            "tcp:192.0.2.1:8444",
            "vsock:6909296",
            "unix:/run/door",
            "unix:/run/vm/*.sock",
            "unix:/run/vm/vm-*,vsock=1024",
            "unix:/*",
            "ether:tap0",
            "ether:tap0,br0.12",
        ] {
            assert_eq!(parsed(text).unwrap().to_string(), text);
        }
        assert_eq!(parsed("vsock").unwrap(), DoorSpec::Vsock(6_909_296));
        assert_eq!(parsed("unix:/run/*.vsock,vsock").unwrap().to_string(), "unix:/run/*.vsock,vsock=6909296");
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, want) in [
            ("http:x", "http:x is not a kind of door; want tcp:ADDRESS:PORT"),
            ("tcp", "tcp is not a kind of door"),
            ("tcp:8444", "tcp:8444: want an address and a port"),
            ("tcp:door.example.org:8444", "tcp:door.example.org:8444: want an address and a port"),
            ("vsock:x", "x: want a port below"),
            ("vsock:4294967295", "4294967295: want a port below"),
            ("unix:run/x", "run/x: want a path that begins with /"),
            ("unix:/run/", "/run/: is a directory"),
            ("unix:/run/*/x", "/run/*/x: one * is allowed"),
            ("unix:/run/*-*", "/run/*-*: one * is allowed"),
            ("unix:/run/x,vsock", "/run/x,vsock: ,vsock goes with a pattern"),
            ("ether:", ": is not the name of a link"),
            ("ether:tap0,tap0", "tap0: is named twice"),
            ("ether:a/b", "a/b: is not the name of a link"),
        ] {
            let why = parsed(text).unwrap_err();
            assert!(why.starts_with(want), "{text}: {why}");
        }
    }

    /// Accident: two doors for one link or one socket. Each caller there would be heard by both.
    #[test]
    fn what_belongs_to_two_doors_is_named() {
        for (one, two, want) in [
            ("ether:p0", "ether:p0,p1", Some("the link p0")),
            ("ether:p0,p1", "ether:p2,p3", None),
            ("unix:/run/vm/*.sock", "unix:/run/vm/web*", Some("a socket whose name fits both patterns")),
            ("unix:/run/vm/*.sock", "unix:/run/vm/*.vsock", None),
            ("unix:/run/vm/a-*", "unix:/run/vm/b-*", None),
            ("unix:/run/vm/*", "unix:/run/other/*", None),
            ("unix:/run/vm/*", "unix:/run/vm/*,vsock", Some("a socket whose name fits both patterns")),
            ("unix:/run/vm/*,vsock=1", "unix:/run/vm/*,vsock=2", None),
            ("unix:/run/vm/*.sock", "unix:/run/vm/door.sock", Some("the socket /run/vm/door.sock")),
            ("unix:/run/vm/*.sock", "unix:/run/door.sock", None),
            ("unix:/run/a", "unix:/run/b", None),
            ("tcp:127.0.0.1:1", "vsock", None),
        ] {
            let (one, two) = (parsed(one).unwrap(), parsed(two).unwrap());
            assert_eq!(one.shares(&two).as_deref(), want, "{one} {two}");
            assert_eq!(two.shares(&one).as_deref(), want, "{two} {one}");
        }
    }

    #[test]
    fn the_name_of_a_machine_is_what_the_star_stands_for() {
        let DoorSpec::Machines(machines) = parsed("unix:/run/vm-*.sock").unwrap() else { panic!("a pattern") };
        assert_eq!(machines.machine("vm-web1.sock"), Some("web1"));
        for other in ["vm-.sock", "web1.sock", "vm-web1", "vm-web1.sock_6909296", "vm.sock"] {
            assert_eq!(machines.machine(other), None, "{other}");
        }
    }
}
