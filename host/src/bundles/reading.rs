//! What an administrator sees of bundles: the content, where this host holds the key, and what differs between two of them.
//! Hashes of passwords are masked. Changes nothing.

use imprint::bundle::{Bundle, Content, Entry};
use imprint::digest::sha256;
use imprint::hex;
use similar::TextDiff;

use super::error::BundleError;
use super::masked::{hides, masked};
use super::upload::opened;
use super::{Key, terms};
use crate::enrol::Desk;
use crate::store::{BundleRow, BundleState};

/// The most lines of text files, those before and after together, that one difference compares: the time grows with their square.
const FILE_LINES: usize = 4000;
/// The same, in bytes.
const FILE_BYTES: usize = 256 * 1024;
/// The most bytes of text that are compared in all. What comes after them is told by its length and digest.
const ALL_BYTES: usize = 1024 * 1024;
/// The most lines in all.
const ALL_LINES: usize = 16000;

/// Which bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// The version with this counter.
    Version(u64),
    /// The one that waits.
    Waiting,
}

/// A bundle with what this host can read of it.
pub struct Read {
    /// Its row in the store.
    pub row: BundleRow,
    /// The age file.
    pub age: Vec<u8>,
    /// The content. `None`: this host does not hold the key.
    pub bundle: Option<Bundle>,
}

/// A bundle of a node: without `which` the newest version.
pub fn read(desk: &Desk<'_>, node: &str, which: Option<Which>) -> Result<Read, BundleError> {
    let terms = terms(desk, node)?;
    let row = match which {
        Some(Which::Version(counter)) => super::decide::version(desk, node, counter)?,
        Some(Which::Waiting) => {
            desk.changes.pending_bundle(node)?.ok_or_else(|| BundleError::NothingWaits(node.to_owned()))?
        }
        None => match (desk.changes.newest_bundle(node)?, waiting(desk, node)?) {
            (Some(row), _) => row,
            (None, Some(code)) => return Err(BundleError::OnlyWaits { node: node.to_owned(), code }),
            (None, None) => return Err(BundleError::NoVersion(node.to_owned())),
        },
    };
    let gone = || BundleError::Removed { node: node.to_owned(), counter: row.counter.unwrap_or_default() };
    let (_, age) = desk.changes.bundle_bytes(row.id)?.ok_or_else(gone)?;
    let bundle = match &terms.key {
        Key::Held(key) if terms.key.opens(&row) => {
            let what = named(&row);
            let unreadable = |source| BundleError::Unreadable { node: node.to_owned(), what, source: Box::new(source) };
            Some(opened(&age, key).map_err(unreadable)?)
        }
        _ => None,
    };
    Ok(Read { row, age, bundle })
}

/// The code of the bundle of a node that waits.
pub fn waiting(desk: &Desk<'_>, node: &str) -> Result<Option<String>, BundleError> {
    Ok(desk.changes.pending_bundle(node)?.map(|row| row.code))
}

/// `version 3`, or `the bundle CODE`.
pub fn named(row: &BundleRow) -> String {
    match row.counter {
        Some(counter) => format!("version {counter}"),
        None => format!("the bundle {}", row.code),
    }
}

/// The two bundles that an administrator most likely wants to compare: the newest version and the one that waits, or the newest
/// two versions. `None` in front: there is nothing before.
pub fn newest_two(desk: &Desk<'_>, node: &str) -> Result<(Option<Which>, Which), BundleError> {
    let rows = desk.changes.bundles(node)?;
    let mut versions: Vec<u64> =
        rows.iter().filter(|row| row.state == BundleState::Approved).filter_map(|row| row.counter).collect();
    versions.sort_unstable();
    if rows.iter().any(|row| row.state == BundleState::Pending) {
        return Ok((versions.pop().map(Which::Version), Which::Waiting));
    }
    let newest = versions.pop().ok_or_else(|| BundleError::NoVersion(node.to_owned()))?;
    Ok((versions.pop().map(Which::Version), Which::Version(newest)))
}

/// One thing that differs.
pub struct Difference {
    /// The path from the root, or `manifest`.
    pub path: String,
    /// `added`, `removed` or `changed`
    pub change: &'static str,
    /// Lines for people, without ends. Those of a text file are a unified diff.
    pub lines: Vec<String>,
    /// The lines tell all of it: no content is told by its digest, and no hash of a password is masked.
    pub in_full: bool,
}

/// What differs between two bundles that this host can read, in the order of their paths. `None`: an empty one.
pub fn differences(old: Option<&Bundle>, new: &Bundle) -> Vec<Difference> {
    let units = |bundle: Option<&Bundle>| -> String {
        bundle.map(|bundle| bundle.units().iter().map(|unit| format!("{unit}\n")).collect()).unwrap_or_default()
    };
    let mut all = Vec::new();
    let mut room = Room { bytes: ALL_BYTES, lines: ALL_LINES };
    let (before, after) = (units(old), units(Some(new)));
    if before != after {
        let change = if before.is_empty() { "added" } else { "changed" };
        all.push(Difference { path: "manifest".to_owned(), change, lines: unified(&before, &after), in_full: true });
    }
    let entries =
        |bundle: Option<&Bundle>| -> Vec<Entry> { bundle.map(|bundle| bundle.entries().to_vec()).unwrap_or_default() };
    let (old, new) = (entries(old), entries(Some(new)));
    let (mut left, mut right) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let (before, after) = match (left.peek(), right.peek()) {
            (None, None) => return all,
            (Some(_), None) => (left.next(), None),
            (None, Some(_)) => (None, right.next()),
            (Some(one), Some(other)) => match one.path.cmp(&other.path) {
                std::cmp::Ordering::Less => (left.next(), None),
                std::cmp::Ordering::Greater => (None, right.next()),
                std::cmp::Ordering::Equal => (left.next(), right.next()),
            },
        };
        all.extend(difference(before, after, &mut room));
    }
}

fn difference(before: Option<&Entry>, after: Option<&Entry>, room: &mut Room) -> Option<Difference> {
    if before == after {
        return None;
    }
    let path = before.or(after).map(|entry| entry.path.as_str().to_owned())?;
    let change = match (before, after) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    let texts = room.texts(before, after);
    let about = |entry: &Entry| about(entry, texts.is_some());
    let (old, new) = (before.map(about), after.map(about));
    let mut lines = Vec::new();
    if old != new {
        lines.extend(old.map(|old| format!("-{old}")));
        lines.extend(new.map(|new| format!("+{new}")));
    }
    let is_file = |entry: Option<&Entry>| entry.is_some_and(|entry| matches!(entry.content, Content::File(_)));
    let hidden = |entry: Option<&Entry>| entry.and_then(raw).is_some_and(hides);
    let in_full = match &texts {
        // What was a text and is a link now has no texts to compare, and its own line each.
        None => !is_file(before) && !is_file(after),
        Some(_) => !hidden(before) && !hidden(after),
    };
    if let Some((before, after)) = texts {
        lines.extend(unified(&before, &after));
    }
    Some(Difference { path, change, lines, in_full })
}

/// An entry in a line. `shown`: its content is in the lines that follow, if it is a text.
fn about(entry: &Entry, shown: bool) -> String {
    let Entry { mode, uid, gid, content, .. } = entry;
    match content {
        Content::Directory => format!("directory {mode:04o} {uid}:{gid}"),
        Content::Link(to) => format!("link to {to}"),
        Content::File(_) if shown => format!("file {mode:04o} {uid}:{gid}"),
        Content::File(bytes) => {
            let what = if raw(entry).is_some() { "too long to be compared here" } else { "no text" };
            let (length, digest) = (bytes.expose().len(), hex::encode(&sha256(bytes.expose())));
            format!("file {mode:04o} {uid}:{gid}, {length} bytes, {what}, sha256 {digest}")
        }
    }
}

/// How much text may still be compared.
struct Room {
    bytes: usize,
    lines: usize,
}

impl Room {
    /// The two texts, masked, if both are texts (or nothing), and there is room.
    fn texts(&mut self, before: Option<&Entry>, after: Option<&Entry>) -> Option<(String, String)> {
        let one = |entry: Option<&Entry>| match entry {
            None => Some(String::new()),
            Some(entry) => raw(entry).filter(|text| text.len() <= FILE_BYTES).map(str::to_owned),
        };
        let (before, after) = (one(before)?, one(after)?);
        let bytes = before.len().saturating_add(after.len());
        let lines = before.lines().count().saturating_add(after.lines().count());
        if bytes > FILE_BYTES || lines > FILE_LINES {
            return None;
        }
        self.bytes = self.bytes.checked_sub(bytes)?;
        self.lines = self.lines.checked_sub(lines)?;
        Some((masked(&before), masked(&after)))
    }
}

/// As it is. Not for people: it may have hashes of passwords.
fn raw(entry: &Entry) -> Option<&str> {
    let Content::File(bytes) = &entry.content else { return None };
    let text = std::str::from_utf8(bytes.expose()).ok()?;
    let is_text = !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r'));
    is_text.then_some(text)
}

fn unified(before: &str, after: &str) -> Vec<String> {
    let diff = TextDiff::from_lines(before, after);
    diff.unified_diff().context_radius(3).to_string().lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use imprint::bundle::{EntryPath, UnitAction, Verb};
    use imprint::secret::Secret;

    use super::*;

    fn file(path: &str, mode: u16, content: &[u8]) -> Entry {
        let path = EntryPath::try_from(path).unwrap();
        Entry { path, mode, uid: 0, gid: 0, content: Content::File(Secret::new(content.to_vec())) }
    }

    fn bundle(units: &[&str], entries: Vec<Entry>) -> Bundle {
        let unit = |name: &&str| UnitAction { verb: Verb::Restart, unit: (*name).try_into().unwrap() };
        Bundle::new("node1".try_into().unwrap(), 1, units.iter().map(unit).collect(), entries).unwrap()
    }

    #[test]
    fn what_differs() {
        let old = bundle(
            &["a.service"],
            vec![
                file("etc/a", 0o644, b"one\ntwo\n"),
                file("etc/b", 0o644, b"gone\n"),
                file("etc/same", 0o644, b"same"),
                file("etc/x", 0o644, b"\0\x01"),
            ],
        );
        let new = bundle(
            &["a.service", "b.service"],
            vec![
                file("etc/a", 0o600, b"one\nthree\n"),
                file("etc/c", 0o644, b"new\n"),
                file("etc/same", 0o644, b"same"),
                file("etc/x", 0o644, b"\0\x02"),
            ],
        );
        let shown: Vec<String> = differences(Some(&old), &new)
            .iter()
            .map(|one| format!("{} {}\n{}", one.change, one.path, one.lines.join("\n")))
            .collect();
        let want = [
            "changed manifest\n@@ -1 +1,2 @@\n restart a.service\n+restart b.service",
            "changed etc/a\n-file 0644 0:0\n+file 0600 0:0\n@@ -1,2 +1,2 @@\n one\n-two\n+three",
            "removed etc/b\n-file 0644 0:0\n@@ -1 +0,0 @@\n-gone",
            "added etc/c\n+file 0644 0:0\n@@ -0,0 +1 @@\n+new",
        ];
        assert_eq!(shown[..4], want);
        assert!(shown[4].starts_with("changed etc/x\n-file 0644 0:0, 2 bytes, no text, sha256 "), "{}", shown[4]);
        assert_eq!(shown.len(), 5);
        assert_eq!(differences(None, &new).len(), 5);
        assert!(differences(Some(&new), &new).is_empty());
    }

    /// The attack: a node sends files that take minutes to compare, and fill the terminal of the administrator who looks at them.
    #[test]
    fn long_files_are_told_by_length_and_digest() {
        let lines = |count: usize, word: &str| (0..count).map(|n| format!("{word}{n}\n")).collect::<String>();
        let long = |word: &str| file("etc/x", 0o644, lines(500_000, word).as_bytes());
        let only = |old: Option<Entry>, new: Entry| {
            let old = old.map(|old| bundle(&[], vec![old]));
            differences(old.as_ref(), &bundle(&[], vec![new])).remove(0).lines
        };
        let (old, new) = (long("a"), long("b"));
        let about = |entry: &Entry| {
            let Content::File(bytes) = &entry.content else { panic!() };
            let (length, digest) = (bytes.expose().len(), hex::encode(&sha256(bytes.expose())));
            format!("file 0644 0:0, {length} bytes, too long to be compared here, sha256 {digest}")
        };
        assert_eq!(only(Some(old.clone()), new.clone()), [format!("-{}", about(&old)), format!("+{}", about(&new))]);
        assert_eq!(only(None, new.clone()), [format!("+{}", about(&new))]);
        // Many lines are slow, and many bytes fill a screen.
        assert_eq!(only(None, file("etc/x", 0o644, &b"\n".repeat(4001))).len(), 1);
        assert_eq!(only(None, file("etc/x", 0o644, &b"x".repeat(256 * 1024 + 1))).len(), 1);
        assert_eq!(only(None, file("etc/x", 0o644, lines(4000, "x").as_bytes())).len(), 4002);
        // So do many files: the last ones have a line each.
        let text = "x".repeat(79) + "\n";
        let many = (0..2000).map(|n| file(&format!("etc/x{n:04}"), 0o644, text.repeat(10).as_bytes())).collect();
        let all = differences(None, &bundle(&[], many));
        let shown: usize = all.iter().flat_map(|one| &one.lines).map(String::len).sum();
        assert!(all.len() == 2000 && all[0].lines.len() == 12 && all[1999].lines.len() == 1);
        assert!(shown < 2 * ALL_BYTES, "{shown}");
    }

    /// The attack: an administrator approves what he was not shown, and nothing says so.
    #[test]
    fn what_is_not_shown_in_full() {
        let of = |old: Option<&Entry>, new: &Entry| {
            let old = old.map(|old| bundle(&[], vec![old.clone()]));
            differences(old.as_ref(), &bundle(&[], vec![new.clone()])).remove(0).in_full
        };
        let text = file("etc/x", 0o644, b"text\n");
        let link = Entry { content: Content::Link("/etc/y".to_owned()), mode: 0o777, ..text.clone() };
        let hash = file("etc/x", 0o600, format!("root:$6$abcdefgh${}:1\n", "a".repeat(86)).as_bytes());
        let long = file("etc/x", 0o644, &b"x\n".repeat(5000));
        let binary = file("etc/x", 0o644, b"\0");
        assert!(of(None, &text) && of(None, &link));
        for other in [&hash, &long, &binary] {
            assert!(!of(None, other) && !of(Some(&text), other) && !of(Some(other), &text));
        }
    }

    /// The accident: a diff goes into a ticket or a chat, and with it the hash of root's password.
    #[test]
    fn hashes_of_passwords_are_masked() {
        let (old, new) = ("a".repeat(86), "b".repeat(86));
        let shadow = |hash: &str| {
            let row = format!("root:$6$abcdefgh${hash}:19000:0:99999:7:::\n");
            bundle(&[], vec![file("etc/shadow", 0o600, row.as_bytes())])
        };
        let lines = differences(Some(&shadow(&old)), &shadow(&new)).remove(0).lines;
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[1].starts_with("-root:[hash of a password, ") && lines[2].starts_with("+root:[hash of a password, ")
        );
        assert!(lines[1].ends_with("]:19000:0:99999:7:::") && lines[1][1..] != lines[2][1..]);
        assert!(lines.iter().all(|line| !line.contains("abcdefgh") && !line.contains(&old[..8])), "{lines:?}");
        let digits = lines[1].chars().skip_while(|c| *c != ',').filter(char::is_ascii_hexdigit).count();
        assert!(digits >= 32, "{lines:?}");
    }
}
