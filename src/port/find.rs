//! Finds the ports: the virtio port named imprint.0, the serial lines that are consoles, and a line that the operator
//! names. Reads sysfs, and never opens a port.

use std::path::{Path, PathBuf};

use super::spcr;

use crate::order;

/// A port that exists, or may appear.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// For messages: `ttyS0`, `virtio imprint.0`.
    pub name: String,
    /// In /dev.
    pub path: PathBuf,
    /// Bits a second, if known.
    pub baud: Option<u32>,
    /// The agent sets up the line: it is not a console, or the operator gave its speed.
    pub set: bool,
    /// The kernel writes its messages there.
    pub console: bool,
    /// A virtio port: it is not a terminal and has no speed.
    pub virtio: bool,
    /// A person types there: keys such as ^C still end the program.
    pub keys: bool,
}

/// The name of the agent's virtio-serial port.
const VIRTIO_NAME: &str = "imprint.0";

/// The virtio-serial port named imprint.0 (drivers/char/virtio_console.c, attribute `name`).
pub fn virtio(root: &Path) -> Option<Place> {
    let mut ports: Vec<_> = root.join("sys/class/virtio-ports").read_dir().ok()?.flatten().collect();
    order::sort(&mut ports, |one, other| one.file_name() < other.file_name());
    let ours = ports.iter().find(|port| {
        std::fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim_end() == VIRTIO_NAME)
    })?;
    let path = root.join("dev").join(ours.file_name());
    let name = format!("virtio {VIRTIO_NAME}");
    Some(Place { name, path, baud: None, set: false, console: false, virtio: true, keys: false })
}

/// The serial lines that are consoles, and the line of the firmware's console.
pub fn consoles(root: &Path, cmdline: &str) -> Vec<Place> {
    let active = std::fs::read_to_string(root.join("sys/class/tty/console/active")).unwrap_or_default();
    let mut names: Vec<String> = active.split_whitespace().filter(|name| is_line(name)).map(str::to_owned).collect();
    if let Some((name, _)) = firmware(root)
        && !names.contains(&name)
    {
        names.push(name);
    }
    names.iter().map(|name| named(root, cmdline, name, None)).collect()
}

/// The consoles that are screens with a keyboard. The protocol of a line is of no use there; people are.
pub fn screens(root: &Path, cmdline: &str) -> Vec<Place> {
    let active = std::fs::read_to_string(root.join("sys/class/tty/console/active")).unwrap_or_default();
    let names = active.split_whitespace().filter(|name| !is_line(name) && !name.contains('/'));
    names.map(|name| named(root, cmdline, name, None)).collect()
}

/// The line of this name. The speed is `baud`, or else the one of `console=`, or else the firmware's. The kernel has
/// set the speed of a console already.
pub fn named(root: &Path, cmdline: &str, name: &str, baud: Option<u32>) -> Place {
    let active = std::fs::read_to_string(root.join("sys/class/tty/console/active")).unwrap_or_default();
    let firmware = || firmware(root).filter(|(firmware, _)| firmware == name).and_then(|(_, baud)| baud);
    let said = baud.is_some();
    let baud = baud.or_else(|| console_baud(cmdline, name)).or_else(firmware);
    let console = active.split_whitespace().any(|active| active == name);
    let path = root.join("dev").join(name);
    Place { name: name.to_owned(), path, baud, set: said || !console, console, virtio: false, keys: false }
}

/// The terminal on standard input. `None` if standard input is not a terminal.
pub fn terminal() -> Option<Place> {
    let path = nix::unistd::ttyname(std::io::stdin()).ok()?;
    let name = path.file_name()?.to_str()?.to_owned();
    Some(Place { name, path, baud: None, set: false, console: true, virtio: false, keys: true })
}

/// Whether the console is a line: not a screen with a keyboard (tty, tty0, tty1, …).
fn is_line(name: &str) -> bool {
    let screen = name.strip_prefix("tty").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    !screen && !name.is_empty() && !name.contains('/')
}

/// The speed in `console=NAME,115200n8` (Documentation/admin-guide/kernel-parameters.txt). If a line has several
/// `console=`, the kernel uses the options of the first (kernel/printk/printk.c, __add_preferred_console).
pub fn console_baud(cmdline: &str, name: &str) -> Option<u32> {
    let consoles = cmdline.split_ascii_whitespace().filter_map(|word| word.strip_prefix("console="));
    let mut split = consoles.map(|console| console.split_once(',').unwrap_or((console, "")));
    let (_, options) = split.find(|(device, _)| *device == name)?;
    let digits = options.find(|c: char| !c.is_ascii_digit()).unwrap_or(options.len());
    options.get(..digits)?.parse().ok().filter(|baud| *baud != 0)
}

/// The line that the firmware's SPCR table names by the address of its registers, and the speed in that table.
fn firmware(root: &Path) -> Option<(String, Option<u32>)> {
    let table = std::fs::read(root.join("sys/firmware/acpi/tables/SPCR")).ok()?;
    let spcr = spcr::parse(&table)?;
    let mut lines: Vec<_> = root.join("sys/class/tty").read_dir().ok()?.flatten().collect();
    order::sort(&mut lines, |one, other| one.file_name() < other.file_name());
    // drivers/tty/serial/serial_core.c: hexadecimal; 0x0 if the line has no such address.
    let address = |line: &Path, item: &str| {
        let text = std::fs::read_to_string(line.join(item)).ok()?;
        u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    let found = lines.iter().find(|line| {
        ["port", "iomem_base"].into_iter().any(|item| address(&line.path(), item) == Some(spcr.address))
    })?;
    Some((found.file_name().to_str()?.to_owned(), spcr.baud))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn root(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_virtio_port_that_is_ours() {
        let root = root(&[
            ("sys/class/virtio-ports/vport1p1/name", b"org.qemu.guest_agent.0\n"),
            ("sys/class/virtio-ports/vport1p2/name", b"imprint.0\n"),
        ]);
        let place = virtio(root.path()).unwrap();
        assert_eq!((place.name.as_str(), place.path), ("virtio imprint.0", root.path().join("dev/vport1p2")));
        assert_eq!(virtio(Path::new("/nowhere")), None);
    }

    #[test]
    fn consoles_without_screens_at_their_speeds() {
        let root = root(&[("sys/class/tty/console/active", b"tty0 ttyS1 ttyS0 hvc0\n")]);
        let cmdline = "console=tty0 console=ttyS0,115200n8 console=ttyS1 console=ttyS0,9600 console=ttyS1,9600 quiet";
        let places = consoles(root.path(), cmdline);
        let seen: Vec<_> = places.iter().map(|place| (place.name.as_str(), place.baud, place.console)).collect();
        assert_eq!(seen, [("ttyS1", None, true), ("ttyS0", Some(115_200), true), ("hvc0", None, true)]);
        let [screen] = screens(root.path(), cmdline).try_into().unwrap();
        assert_eq!((screen.path, screen.set, screen.console), (root.path().join("dev/tty0"), false, true));
        let other = named(root.path(), cmdline, "ttyS2", Some(57_600));
        assert_eq!((other.baud, other.set, other.console), (Some(57_600), true, false));
        let console = named(root.path(), cmdline, "ttyS0", None);
        assert_eq!((console.baud, console.set), (Some(115_200), false));
        assert!(named(root.path(), cmdline, "ttyS0", Some(9600)).set);
    }

    #[test]
    fn the_firmwares_line_by_its_address() {
        let mut table = vec![0; 80];
        table[..9].copy_from_slice(b"SPCR\x50\0\0\0\x02");
        table[44..46].copy_from_slice(&[0xf8, 0x02]);
        table[58] = 3;
        let root = root(&[
            ("sys/class/tty/console/active", b"tty0\n"),
            ("sys/class/tty/ttyS0/port", b"0x3F8\n"),
            ("sys/class/tty/ttyS1/port", b"0x2F8\n"),
            ("sys/firmware/acpi/tables/SPCR", &table),
        ]);
        let [place] = consoles(root.path(), "").try_into().unwrap();
        assert_eq!((place.name.as_str(), place.baud, place.console), ("ttyS1", Some(9600), false));
    }
}
