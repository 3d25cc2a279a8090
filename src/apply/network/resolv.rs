//! Writes `/etc/resolv.conf` under a root. Never writes outside that root, even where symbolic links lead out of it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{NameServer, NetworkError};
use crate::https::nat64;
use crate::payload::{DnsName, Prefix};

/// The most symbolic links that are followed. The kernel's own limit is 40 (path_resolution(7)).
const MAX_LINKS: usize = 8;

/// Writes name servers and search domains. With neither, it leaves the file as it is.
///
/// Where `etc/resolv.conf` is a symbolic link (systemd-resolved and others point it into /run), its target is written
/// and the link stays: later stages of the boot expect the link.
///
/// `nat64`: prefixes of a NAT64, for this agent's own connections.
pub(super) fn write(root: &Path, dns: &[NameServer], search: &[DnsName], nat64: &[Prefix]) -> Result<(), NetworkError> {
    if dns.is_empty() && search.is_empty() && nat64.is_empty() {
        return Ok(());
    }
    let path = follow(root, Path::new("etc/resolv.conf"))?;
    let failed = |source| NetworkError::ResolvConf { path: path.clone(), source };
    let directory = path.parent().unwrap_or(root);
    std::fs::create_dir_all(directory).map_err(failed)?;
    crate::apply::file::replace(directory, &name_of(&path), contents(dns, search, nat64).as_bytes(), 0o644)
        .map_err(failed)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// resolv.conf(5)
fn contents(dns: &[NameServer], search: &[DnsName], nat64: &[Prefix]) -> String {
    let mut text = "# written by imprint from the bootstrap payload\n".to_owned();
    for prefix in nat64 {
        let _ = writeln!(text, "{}{prefix}", nat64::WORD);
    }
    for server in dns {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    if !search.is_empty() {
        let names: Vec<&str> = search.iter().map(DnsName::as_str).collect();
        let _ = writeln!(text, "search {}", names.join(" "));
    }
    text
}

/// Follows symbolic links at the end of `path`, as if `root` were the root directory.
fn follow(root: &Path, path: &Path) -> Result<PathBuf, NetworkError> {
    let mut path = path.to_owned();
    for _ in 0..=MAX_LINKS {
        let full = root.join(&path);
        match std::fs::read_link(&full) {
            Ok(target) => path = inside(path.parent().unwrap_or(Path::new("")), &target),
            // EINVAL: not a symbolic link.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => {
                return Ok(full);
            }
            Err(source) => return Err(NetworkError::ResolvConf { path: full, source }),
        }
    }
    let source = io::Error::other(format!("more than {MAX_LINKS} symbolic links"));
    Err(NetworkError::ResolvConf { path: root.join(path), source })
}

/// `target` as seen from `directory`, relative to the root. `..` cannot leave the root.
fn inside(directory: &Path, target: &Path) -> PathBuf {
    let mut parts: Vec<OsString> = Vec::new();
    for part in directory.join(target).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_owned()),
            Component::ParentDir => drop(parts.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    parts.iter().collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::payload::InterfaceName;

    fn servers() -> Vec<NameServer> {
        let server = |text: &str| NameServer { address: text.parse().unwrap(), zone: None };
        let zone = InterfaceName::try_from("eth0").ok();
        vec![server("192.0.2.53"), server("2001:db8::53"), NameServer { zone, ..server("fe80::1") }]
    }

    fn domains() -> Vec<DnsName> {
        ["example.com", "example.net"].map(|name| DnsName::try_from(name).unwrap()).to_vec()
    }

    const WANT: &str = "# written by imprint from the bootstrap payload\n\
                        nameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver fe80::1%eth0\nsearch example.com example.net\n";

    #[test]
    fn replaces_a_file_and_makes_a_directory() {
        let root = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            write(root.path(), &servers(), &domains(), &[]).unwrap();
            assert_eq!(fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap(), WANT);
        }
        assert_eq!(fs::read_dir(root.path().join("etc")).unwrap().count(), 1);
    }

    #[test]
    fn nothing_to_say_leaves_the_file_alone() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &[], &[], &[]).unwrap();
        assert!(!root.path().join("etc").exists());
    }

    #[test]
    fn a_symbolic_link_stays_and_its_target_is_written() {
        for target in ["../run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/stub-resolv.conf"] {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("etc")).unwrap();
            symlink(target, root.path().join("etc/resolv.conf")).unwrap();
            write(root.path(), &servers(), &domains(), &[]).unwrap();
            assert!(root.path().join("etc/resolv.conf").is_symlink());
            let written = root.path().join("run/systemd/resolve/stub-resolv.conf");
            assert_eq!(fs::read_to_string(written).unwrap(), WANT, "{target}");
        }
    }

    #[test]
    fn no_link_leads_out_of_the_root_or_in_circles() {
        assert_eq!(inside(Path::new("etc"), Path::new("../../../../run/x")), Path::new("run/x"));
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        symlink("resolv.conf", root.path().join("etc/resolv.conf")).unwrap();
        let error = write(root.path(), &servers(), &[], &[]).unwrap_err();
        let path = root.path().join("etc/resolv.conf");
        assert_eq!(crate::chain::chain(&error), format!("writing {}: more than 8 symbolic links", path.display()));
    }
}
