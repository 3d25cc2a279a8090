//! Who runs a command, for the audit log. Proves nothing: root can change both login uid and SUDO_USER. It helps honest
//! administrators.

use std::fs;

use imprint::shown::printable_up_to;
use nix::unistd::getuid;

use crate::users::{described_in, passwd};

/// `alice (uid 1000)`, `root (uid 0), logged in as alice (uid 1000)`, `root (uid 0), sudo of alice`.
pub(super) fn name() -> String {
    let users = passwd();
    let login = fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse().ok());
    let sudo = std::env::var("SUDO_USER").ok();
    described(getuid().as_raw(), login, sudo.as_deref(), &users)
}

/// `(uid_t) -1`: no login, as in a service (proc_pid_loginuid(5)).
const UNSET: u32 = u32::MAX;

fn described(uid: u32, login: Option<u32>, sudo: Option<&str>, users: &str) -> String {
    let mut text = described_in(uid, users);
    match (login, sudo) {
        (Some(login), _) if login != UNSET && login != uid => {
            text.push_str(&format!(", logged in as {}", described_in(login, users)));
        }
        (None | Some(UNSET), Some(sudo)) if !sudo.is_empty() => {
            text.push_str(&format!(", sudo of {}", printable_up_to(sudo, 64)));
        }
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_the_log_names() {
        let users = "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        for (uid, login, sudo, want) in [
            (1000, None, None, "alice (uid 1000)"),
            (0, Some(UNSET), None, "root (uid 0)"),
            (0, Some(0), Some("alice"), "root (uid 0)"),
            (0, Some(1000), Some("bob"), "root (uid 0), logged in as alice (uid 1000)"),
            (0, Some(UNSET), Some("alice"), "root (uid 0), sudo of alice"),
            (0, None, Some("a\n\u{1b}"), "root (uid 0), sudo of a\\n\\u{1b}"),
            (7, Some(7), None, "uid 7"),
        ] {
            assert_eq!(described(uid, login, sudo, users), want);
        }
    }
}
