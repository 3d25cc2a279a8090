//! Names of this machine's users, from /etc/passwd (passwd(5)). Asks no other user database (LDAP, NSS): such users are
//! shown by number.

use std::fs;

/// `alice (uid 1000)`, or `uid 1000`.
pub(crate) fn described(uid: u32) -> String {
    described_in(uid, &passwd())
}

/// `alice`, if /etc/passwd has the number.
pub(crate) fn name(uid: u32) -> Option<String> {
    name_in(uid, &passwd())
}

/// The text of /etc/passwd; empty if it cannot be read.
pub(crate) fn passwd() -> String {
    fs::read_to_string("/etc/passwd").unwrap_or_default()
}

/// As [`described`], with `users` in the format of passwd(5).
pub(crate) fn described_in(uid: u32, users: &str) -> String {
    name_in(uid, users).map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"))
}

fn name_in(uid: u32, users: &str) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| imprint::shown::printable(name))
    })
}
