//! Names of this machine's users, by passwd(5). Users that are known elsewhere have a number only.

use std::fs;

/// `alice (uid 1000)`, or `uid 1000`.
pub(crate) fn described(uid: u32) -> String {
    described_in(uid, &passwd())
}

/// `alice`, where she is known here.
pub(crate) fn name(uid: u32) -> Option<String> {
    name_in(uid, &passwd())
}

/// The text of passwd(5).
pub(crate) fn passwd() -> String {
    fs::read_to_string("/etc/passwd").unwrap_or_default()
}

/// By a text of that form.
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
