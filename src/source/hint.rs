//! The remedies for a missing payload: where to bring one. They follow the options: an operator who named a serial line
//! is not told to write a config drive. Never looks at a source; works on the options only.

use super::order;
use crate::options::{Options, SourceName};

/// The sources that may still bring a payload, for `waiting up to 300 s for …`: drives, and lines that the operator
/// named. The names of other lines are known only once they are open; the caller adds them.
pub fn awaited(options: &Options) -> Vec<String> {
    let place = |source: &SourceName| match source {
        SourceName::ConfigDrive(label) => Some(drive(label.as_deref())),
        SourceName::Serial { name, .. } => Some(format!("a host on {name}")),
        SourceName::Virtio if !options.sources.is_empty() => Some("a host on the virtio port imprint.0".to_owned()),
        SourceName::Partition => Some(PARTITION.to_owned()),
        SourceName::Tcp { host, port } => Some(format!("the door {host}:{port}")),
        SourceName::Door => Some("the door of the site".to_owned()),
        SourceName::Vsock(_) => Some("the hypervisor's door".to_owned()),
        SourceName::Ether(_) => Some("a door next to this machine".to_owned()),
        SourceName::Virtio
        | SourceName::Cmdline
        | SourceName::File
        | SourceName::Credential
        | SourceName::EfiVar
        | SourceName::RootFile => None,
    };
    once(order(options, false).iter().filter_map(place))
}

/// Where to bring a payload, and how to boot without one.
pub(super) fn remedy(options: &Options) -> String {
    if options.sources.is_empty() {
        return format!(
            "bring one, for example on {} (imprint-host payload NODE --as iso), or boot with \
             imprint=auto to go on without",
            drive(None)
        );
    }
    let places = once(options.sources.iter().map(place)).join(", or ");
    format!("bring one where imprint.source= says: {places}; or boot with imprint=auto to go on without")
}

/// A source, and the command that brings a payload to it.
fn place(source: &SourceName) -> String {
    match source {
        SourceName::Cmdline => {
            "imprint.payload= on the kernel command line (imprint-host payload NODE --as cmdline)".to_owned()
        }
        SourceName::File => "/imprint/payload in the initramfs (imprint-host payload NODE --as cpio)".to_owned(),
        SourceName::ConfigDrive(label) => {
            format!("{} (imprint-host payload NODE --as iso)", drive(label.as_deref()))
        }
        SourceName::Credential => {
            "a credential imprint.payload (imprint-host payload NODE --as credential, smbios or qemu)".to_owned()
        }
        SourceName::Partition => format!("{PARTITION} (imprint-host payload NODE --as gpt)"),
        SourceName::EfiVar => "the EFI variable ImprintPayload (imprint-host payload NODE --as efivar)".to_owned(),
        SourceName::RootFile => "/etc/imprint/payload on the root file system (imprint-host payload NODE)".to_owned(),
        SourceName::Virtio => "the virtio port imprint.0 (imprint-host inject NODE --line unix:PATH)".to_owned(),
        SourceName::Serial { name, .. } => format!("the serial line {name} (imprint-host inject NODE --line LINE)"),
        SourceName::Tcp { host, port } => {
            format!("the door {host}:{port} (imprint-host serve --door tcp:[::]:{port})")
        }
        SourceName::Door => "the door of the site (imprint-host serve --door tcp:[::]:8444)".to_owned(),
        SourceName::Vsock(port) => format!("the hypervisor's door (imprint-host serve --door vsock:{port})"),
        SourceName::Ether(_) => "a door next to this machine (imprint-host serve --door ether:LINK)".to_owned(),
    }
}

const PARTITION: &str = "a partition labelled IMPRINT";

fn drive(label: Option<&str>) -> String {
    format!("a config drive labelled {}", label.unwrap_or("IMPRINT"))
}

/// Each text once, in order.
fn once(places: impl Iterator<Item = String>) -> Vec<String> {
    let mut all = Vec::new();
    for place in places {
        if !all.contains(&place) {
            all.push(place);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hint once told an operator who had named a line to write a config drive.
    #[test]
    fn the_hint_names_what_was_asked_for() {
        for (cmdline, want) in [
            (
                "imprint=require",
                "bring one, for example on a config drive labelled IMPRINT (imprint-host payload NODE --as iso), or boot with \
                 imprint=auto to go on without",
            ),
            (
                "imprint.source=serial:ttyS1",
                "bring one where imprint.source= says: the serial line ttyS1 (imprint-host inject NODE --line LINE); or boot \
                 with imprint=auto to go on without",
            ),
            (
                "imprint=require imprint.source=config-drive:LAB imprint.source=file imprint.source=config-drive:LAB",
                "bring one where imprint.source= says: a config drive labelled LAB (imprint-host payload NODE --as iso), or \
                 /imprint/payload in the initramfs (imprint-host payload NODE --as cpio); or boot with imprint=auto to go \
                 on without",
            ),
            (
                "imprint.source=cmdline imprint.source=virtio",
                "bring one where imprint.source= says: imprint.payload= on the kernel command line (imprint-host payload NODE \
                 --as cmdline), or the virtio port imprint.0 (imprint-host inject NODE --line unix:PATH); or boot with \
                 imprint=auto to go on without",
            ),
        ] {
            assert_eq!(remedy(&Options::parse(cmdline).unwrap()), want);
        }
    }

    #[test]
    fn what_is_waited_for_is_what_may_come() {
        let waits = |cmdline| awaited(&Options::parse(cmdline).unwrap()).join(", or ");
        assert_eq!(waits("imprint=require"), "a config drive labelled IMPRINT");
        assert_eq!(
            waits("imprint.source=serial:ttyUSB0,9600 imprint.source=config-drive:LAB"),
            "a host on ttyUSB0, or a config drive labelled LAB"
        );
        assert_eq!(waits("imprint.source=virtio"), "a host on the virtio port imprint.0");
        assert_eq!(waits("imprint.source=file"), "");
    }
}
