//! The arguments of `imprint-host`, as clap parses them. Runs no command.

pub(super) mod bundle;
pub(super) mod image;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use imprint::payload::EstUrl;

use crate::est::Layout;
use crate::inject::command::Script;
use crate::inject::transport::LineSpec;
use crate::record;
use crate::serve::{Address, DoorSpec};
use crate::x509::CrlReason;

/// Makes bootstrap payloads for imprint and signs the CSRs that match a record.
#[derive(Parser)]
#[command(name = "imprint-host", version)]
pub struct Cli {
    /// Directory with CA and store
    #[arg(long, global = true, env = "IMPRINT_DIR", default_value = "/var/lib/imprint-host")]
    pub(super) dir: PathBuf,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a CA and a store in an empty directory
    Init {
        /// EST base that nodes use, https://HOST[:PORT]/.well-known/est; repeat it for more, in order
        #[arg(long, required = true, value_parser = est_url)]
        url: Vec<EstUrl>,
    },
    /// Node records
    #[command(subcommand)]
    Node(NodeCommand),
    /// Make a payload for a node, with a fresh id and token
    Payload(PayloadArgs),
    /// Serve EST: sign what matches, refuse the rest
    Serve {
        /// Address and port to listen on
        #[arg(long, default_value = "0.0.0.0:8443")]
        listen: SocketAddr,
        /// Address and port for metrics in the format of Prometheus, without TLS, like 127.0.0.1:9469
        #[arg(long)]
        metrics: Option<SocketAddr>,
        /// Where nodes call with the line protocol; repeat it for more: tcp:[::]:8444, vsock[:PORT], unix:PATH,
        /// unix:DIRECTORY/*.sock for a socket of each virtual machine, ether:LINK,LINK
        #[arg(long, value_name = "DOOR")]
        door: Vec<DoorSpec>,
        /// Command of the shell that is told when a node is available, has failed, or has sent a bundle: a JSON object on its
        /// standard input. It is run again until it succeeds
        #[arg(long, value_name = "COMMAND")]
        hook: Option<Script>,
        /// The same by POST to a server: http://HOST[:PORT]/PATH, or https:// with --webhook-ca
        #[arg(long, value_name = "URL")]
        webhook: Option<Address>,
        /// CA of the server of --webhook, PEM
        #[arg(long, value_name = "FILE", requires = "webhook")]
        webhook_ca: Option<PathBuf>,
        /// Layout of the base64 in answers: one-line for clients that take no line breaks, like pki --est of Debian 12
        #[arg(long, value_enum, value_name = "LAYOUT", default_value_t = Layout::Wrapped)]
        base64: Layout,
    },
    /// Bundles, the configuration of nodes that keep nothing
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Send payloads over serial lines, and sign the CSRs that come back
    Inject(InjectArgs),
    /// List the nodes, and who waits at a door
    Nodes {
        /// Only who waits at a door, also machines that no record names
        #[arg(long)]
        door: bool,
    },
    /// The keys that sign payloads: show their lines for /imprint/site in images, or change them
    Signer {
        #[command(subcommand)]
        command: Option<SignerCommand>,
    },
    /// Keys of sticks and images that let nodes in at a door (admit = "key")
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make the file /imprint/network of an image: the network over which its nodes call at a door, before they have a payload
    Network {
        /// TOML with the [[network]] entries of a record, and nothing else
        file: PathBuf,
        /// Write to this file
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Make a complete initramfs whose /init is the agent
    Image(image::ImageArgs),
    /// Show what images and nodes need to know of this site: URLs, site pin, CA
    Show,
    /// Approve a request that waits: compare the code with the one on the node's console
    Approve {
        /// Name of the record
        node: String,
        /// Code of the key, like 7K3M-Q0ZT-N4V8-XW1C
        code: String,
    },
    /// Let a node in that calls at a door: compare the code with the one on the node's console. With --for: let in the first
    /// that calls as this node
    Admit {
        /// Code of the line key, like 7K3M-Q0ZT-N4V8-XW1C; with --for the name of a record
        #[arg(value_name = "CODE|NODE")]
        caller: String,
        /// Which node it is, if no record or more than one names the machine
        #[arg(long = "as", value_name = "NODE", conflicts_with = "within")]
        node: Option<String>,
        /// For so long, like 10m, and for one delivery; the record must say admit = "armed"
        #[arg(long = "for", value_name = "TIME", value_parser = wait)]
        within: Option<Duration>,
    },
    /// Deny all that waits under a node's name, or the caller at a door with this code
    Deny {
        /// Name of the record, or code of a line key
        #[arg(value_name = "NODE|CODE")]
        node: String,
    },
    /// Revoke certificates of a node: all that are valid, and then its payloads are void, too
    Revoke {
        /// Name of the record
        node: String,
        /// Only those of the key with this code
        #[arg(long)]
        key: Option<String>,
        /// Reason in the list of revoked certificates
        #[arg(long, value_enum, default_value_t = Reason::Unspecified)]
        reason: Reason,
    },
    /// The CA itself
    #[command(subcommand)]
    Ca(CaCommand),
    /// Let many nodes check in at once with a server of their own on this machine, and say how it went
    Load {
        /// How many
        #[arg(long, default_value_t = 1000)]
        nodes: usize,
        /// How long each may take
        #[arg(long, default_value = "10m", value_parser = wait)]
        timeout: Duration,
        /// Each also fetches, verifies and opens a bundle, and reports that it is available
        #[arg(long)]
        bundle: bool,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Copy the state, also while serve runs, into an empty directory: a state directory itself, without the root's key
    Backup {
        /// The new directory
        to: PathBuf,
    },
    /// Show the audit log
    Log {
        /// How many lines
        #[arg(long, default_value_t = 100)]
        last: u32,
    },
}

#[derive(Subcommand)]
pub(super) enum CaCommand {
    /// Give the CA a new intermediate, signed by the root; certificates of the intermediate before stay valid
    Rotate {
        /// The root's key; root.key in the directory when left out
        #[arg(long)]
        root_key: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key, write its private half for a stick or an image, and list its public half; the private half is not kept
    Make(MakeKeyArgs),
    /// List the public key of a key that was made elsewhere
    Add {
        /// Its name, for records
        name: String,
        /// PEM, as openssl pkey -pubout writes it
        file: PathBuf,
        /// The key is in an image: everybody who has the image has it
        #[arg(long)]
        image: bool,
    },
    /// List the keys
    List,
    /// List a key no longer; records that name it let nobody in for it
    Forget {
        /// Its name
        name: String,
    },
}

#[derive(Args)]
pub(super) struct MakeKeyArgs {
    /// Its name, for records
    pub(super) name: String,
    /// What is written
    #[arg(long = "as", value_enum, default_value_t = KeyForm::Pem)]
    pub(super) form: KeyForm,
    /// The key is for an image: everybody who has the image has it. A cpio archive always is
    #[arg(long)]
    pub(super) image: bool,
    /// Where to; standard output when left out. A file is made anew, a drive is written to in place
    #[arg(short, long)]
    pub(super) output: Option<PathBuf>,
    /// The drive of -o a second time: what it holds may be lost
    #[arg(long, value_name = "DRIVE", requires = "output")]
    pub(super) overwrite: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum KeyForm {
    /// The file imprint/key of a stick, or /imprint/key of an image
    Pem,
    /// A stick, whole
    Vfat,
    /// An optical disc
    Iso,
    /// An initramfs to append
    Cpio,
}

#[derive(Subcommand)]
pub(super) enum SignerCommand {
    /// Make a key that signs every payload from now on, in a directory that has none
    New {
        /// Take the private key in this file instead: PEM (PKCS#8), P-256 or Ed25519
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Put another key in the place of the one that signs: the announced one, or a new one. The one before stays listed
    Rotate {
        /// Only announce the other key: it signs after the next rotation, and images can name it before
        #[arg(long)]
        announce: bool,
        /// Take the private key in this file instead of a new one: PEM (PKCS#8), P-256 or Ed25519
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// List a signer no longer, once no image names it and none of its payloads is on its way
    Retire {
        /// Its key id, 16 hexadecimal digits
        kid: String,
    },
}

/// RFC 5280 §5.3.1
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "camelCase")]
pub(super) enum Reason {
    Unspecified,
    KeyCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
}

impl Reason {
    pub(super) fn code(self) -> CrlReason {
        match self {
            Reason::Unspecified => CrlReason::Unspecified,
            Reason::KeyCompromise => CrlReason::KeyCompromise,
            Reason::AffiliationChanged => CrlReason::AffiliationChanged,
            Reason::Superseded => CrlReason::Superseded,
            Reason::CessationOfOperation => CrlReason::CessationOfOperation,
        }
    }
}

#[derive(Subcommand)]
pub(super) enum NodeCommand {
    /// Add nodes from TOML files: all of them or none
    Add {
        /// One record each
        #[arg(required_unless_present = "csv")]
        files: Vec<PathBuf>,
        /// A node in each row, as the first line names the columns: name, subject, sans, … and lists with ; between
        #[arg(long, conflicts_with = "files")]
        csv: Option<PathBuf>,
        /// TOML that the rows have in common; {COLUMN} stands for the cell of any other column
        #[arg(long, requires = "csv")]
        template: Option<PathBuf>,
        /// Give nodes that are known another record
        #[arg(long)]
        replace: bool,
        /// Let this one of the added nodes have names and bindings that another record has; repeat it for more
        #[arg(long, value_name = "NODE")]
        allow_duplicate: Vec<String>,
    },
}

#[derive(Args)]
pub(super) struct PayloadArgs {
    /// Name of the record
    pub(super) node: String,
    /// What is written
    #[arg(long = "as", value_enum, default_value_t = Form::Cbor)]
    pub(super) form: Form,
    /// Where to; standard output when left out. A file is made anew, a device is written to in place
    #[arg(short, long)]
    pub(super) output: Option<PathBuf>,
    /// The drive of -o a second time: what it holds may be lost
    #[arg(long, value_name = "DRIVE", requires = "output")]
    pub(super) overwrite: Option<PathBuf>,
    /// How long it is good for, like 24h, 30m or 7d
    #[arg(long, default_value = "24h", value_parser = duration)]
    pub(super) expires: Duration,
    /// This medium is used for one boot only: the node may credit its seed. The record must have a bind
    #[arg(long, conflicts_with = "no_seed")]
    pub(super) single_boot: bool,
    /// Put an entropy seed in, also where it is only mixed in
    #[arg(long, conflicts_with = "no_seed")]
    pub(super) seed: bool,
    /// Put no entropy seed in, even on a config drive
    #[arg(long)]
    pub(super) no_seed: bool,
    /// Leave earlier payloads of this node valid
    #[arg(long)]
    pub(super) keep: bool,
    /// Put a certificate and its private key in, made here, so that the node needs no server; never on a command line
    #[arg(long)]
    pub(super) credentials: bool,
    /// Leave the signature out: images of before signed payloads refuse it, and images that name a signer need it
    #[arg(long)]
    pub(super) unsigned: bool,
}

#[derive(Args)]
pub(super) struct InjectArgs {
    /// Name of the record
    #[arg(required_unless_present = "lines", requires = "line")]
    pub(super) node: Option<String>,
    /// Its line: /dev/ttyUSB0[,115200], unix:PATH[,BAUD], tcp:HOST:PORT[,BAUD], telnet:HOST:PORT[,BAUD], or
    /// exec[,BAUD]:COMMAND that is one, like ipmitool -I lanplus -C 3 … sol activate. With a terminal of 80 columns on the
    /// way: columns=80 where BAUD is, or after it
    #[arg(long, requires = "node")]
    pub(super) line: Option<LineSpec>,
    /// File of lines: TOML with node, line, power and env in each [[line]], or NODE LINE on each line of text
    #[arg(long, conflicts_with_all = ["node", "line", "power"])]
    pub(super) lines: Option<PathBuf>,
    /// Command that switches the node on, run once the line is open
    #[arg(long)]
    pub(super) power: Option<Script>,
    /// From one node that is switched on to the next, at least, like 1s or 200ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = pace)]
    pub(super) power_every: Duration,
    /// How many power commands run at the same time, at most
    #[arg(long, value_name = "NUMBER", default_value = "8", value_parser = at_once)]
    pub(super) power_at_once: usize,
    /// How long a node may take to say HELLO, like 5m
    #[arg(long, default_value = "5m", value_parser = wait)]
    pub(super) window: Duration,
    /// How long the rest may take once the node was heard
    #[arg(long, default_value = "10m", value_parser = wait)]
    pub(super) timeout: Duration,
    /// Call at once. A boot loader or a login prompt on the line takes that for keys; without it the host waits until
    /// it hears the agent
    #[arg(long)]
    pub(super) call: bool,
    /// Send the payload unsealed, to a node that was booted with imprint.line=plain
    #[arg(long)]
    pub(super) plain: bool,
    /// Leave the signature out: images of before signed payloads refuse it, and images that name a signer need it
    #[arg(long)]
    pub(super) unsigned: bool,
    /// How long the payload is good for
    #[arg(long, default_value = "24h", value_parser = duration)]
    pub(super) expires: Duration,
    /// File for the node's console: all that comes on the line beside imprint's own frames. With --lines a folder, for a
    /// NODE.log each
    #[arg(long)]
    pub(super) log: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Form {
    /// The payload itself
    Cbor,
    /// Lines to paste into imprint console
    Text,
    /// NAME:TOKEN, for other EST clients
    Userpass,
    /// A word for the kernel command line
    Cmdline,
    /// An initramfs to append
    Cpio,
    /// A config drive: an optical disc
    Iso,
    /// A config drive: a disk
    Vfat,
    /// A disk with one partition, which holds the payload
    Gpt,
    /// The file of a credential imprint.payload, for systemd
    Credential,
    /// A string for the firmware tables of a virtual machine (type 11)
    Smbios,
    /// The file of -o, and an argument with which QEMU gives it to a guest
    Qemu,
    /// A file for efivarfs: an EFI variable
    Efivar,
    /// Text for the user data of a cloud instance
    UserData,
    /// The same as a MIME multipart, for cloud-init beside it
    Multipart,
}

fn est_url(text: &str) -> Result<EstUrl, String> {
    match EstUrl::try_from(text) {
        Ok(EstUrl::Line) => Err("line: needs no server; give an https:// URL".to_owned()),
        Ok(url) => Ok(url),
        Err(error) => Err(error.to_string()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    record::duration(text).ok_or_else(|| "want a duration like 24h, 30m or 7d".to_owned())
}

/// The longest wait that is accepted: now plus the wait must stay in the range of the clock.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 86_400);

fn wait(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|wait| if wait <= LONGEST_WAIT { Ok(wait) } else { Err("want 30d at most".to_owned()) })
}

fn pace(text: &str) -> Result<Duration, String> {
    match text.strip_suffix("ms").map(str::parse::<u16>) {
        Some(Ok(millis)) => Ok(Duration::from_millis(millis.into())),
        Some(Err(_)) => Err("want a time like 1s or 200ms, and 65535ms at most".to_owned()),
        None => wait(text),
    }
}

fn at_once(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "want a number, 1 or more".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// imprint-host(1) describes every command with its options, and no other command.
    #[test]
    fn the_manual_has_every_command_and_option() {
        let page = include_str!("../../../man/imprint-host.1");
        let (_, list) = page.split_once("The commands are:\n").unwrap();
        let (list, _) = list.split_once("\n.El\n").unwrap();
        let entries: Vec<&str> = list.split("\n.It Cm ").skip(1).collect();
        let mut described: Vec<String> = Vec::new();
        let mut options = 0;
        let mut check = |name: String, command: &clap::Command| {
            let own: String = entries.iter().copied().filter(|entry| entry.starts_with(&name)).collect();
            assert!(!own.is_empty(), "{name} is not on the page");
            for option in command.get_arguments().filter(|option| !option.is_positional() && !option.is_global_set()) {
                let long = option.get_long().unwrap();
                assert!(own.contains(&format!("Fl Fl {long}")), "{name} --{long}");
                options += 1;
            }
            described.push(name);
        };
        for command in Cli::command().get_subcommands() {
            let name = command.get_name().to_owned();
            let subcommands = command.get_subcommands().count();
            // A command that does something by itself, and more with a word behind it.
            if subcommands > 0 && !command.is_subcommand_required_set() {
                check(name.clone(), command);
            }
            match subcommands {
                0 => check(name, command),
                _ => command.get_subcommands().for_each(|sub| check(format!("{name} {}", sub.get_name()), sub)),
            }
        }
        assert!(options > 20, "{options}");
        for entry in entries {
            let known = described.iter().any(|name| entry.starts_with(name.as_str()));
            assert!(known, "{}", entry.lines().next().unwrap());
        }
        for option in Cli::command().get_arguments() {
            let long = option.get_long().unwrap();
            assert!(page.contains(&format!(".It Fl Fl {long}")), "--{long}");
        }
    }
}
