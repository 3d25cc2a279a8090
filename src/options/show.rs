//! Sources in the words of the kernel command line. Never reads a command line.

use std::fmt;

use super::SourceName;

/// As the kernel command line has it.
impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceName::Cmdline => f.write_str("cmdline"),
            SourceName::File => f.write_str("file"),
            SourceName::Credential => f.write_str("credential"),
            SourceName::Partition => f.write_str("partition"),
            SourceName::EfiVar => f.write_str("efivar"),
            SourceName::RootFile => f.write_str("root-file"),
            SourceName::ConfigDrive(None) => f.write_str("config-drive"),
            SourceName::ConfigDrive(Some(label)) => write!(f, "config-drive:{label}"),
            SourceName::Virtio => f.write_str("virtio"),
            SourceName::Serial { name, baud: None } => write!(f, "serial:{name}"),
            SourceName::Serial { name, baud: Some(baud) } => write!(f, "serial:{name},{baud}"),
            SourceName::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            SourceName::Door => f.write_str("door"),
            SourceName::Vsock(port) => write!(f, "vsock:{port}"),
            SourceName::Ether(None) => f.write_str("ether"),
            SourceName::Ether(Some(link)) => write!(f, "ether:{link}"),
        }
    }
}
