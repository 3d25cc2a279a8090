//! What an administrator sees of bundles: the content, where this host holds the key, and what differs between two of them.
//! Hashes of passwords are masked. Changes nothing.

use imprint::bundle::{Bundle, Content, Entry};
use imprint::digest::sha256;
use imprint::hex;
use similar::TextDiff;

use super::error::BundleError;
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
        None => desk.changes.newest_bundle(node)?.ok_or_else(|| BundleError::NoVersion(node.to_owned()))?,
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
        all.push(Difference { path: "manifest".to_owned(), change, lines: unified(&before, &after) });
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
    if let Some((before, after)) = texts {
        lines.extend(unified(&before, &after));
    }
    Some(Difference { path, change, lines })
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

/// The content of a text file, with hashes of passwords masked.
pub fn text(entry: &Entry) -> Option<String> {
    raw(entry).map(masked)
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

/// By so many characters a hash of a password is known.
const BEGIN: usize = 64;

/// Masks hashes of passwords, `$ID$…` (crypt(5)). Equal hashes look equal, so that a change is seen.
fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(before);
        let is_other = |c: char| !(c.is_ascii_alphanumeric() || "$./=,+-_".contains(c));
        // The beginning tells, and a text of nothing but these characters is not read again for each of them.
        let begin = from.char_indices().take(BEGIN).find(|(_, c)| is_other(*c)).map(|(at, _)| at);
        let begin = from.get(..begin.unwrap_or(BEGIN.min(from.len()))).unwrap_or_default();
        if is_hash(begin) {
            let end = from.find(is_other).unwrap_or(from.len());
            let (word, after) = from.split_at_checked(end).unwrap_or((from, ""));
            let digest = hex::encode(sha256(word.as_bytes()).get(..3).unwrap_or_default());
            out.push_str(&format!("[hash of a password, {digest}]"));
            rest = after;
        } else {
            out.push('$');
            rest = from.get(1..).unwrap_or_default();
        }
    }
    out.push_str(rest);
    out
}

/// `$6$…$…`, `$y$…`, `$2b$…`
fn is_hash(word: &str) -> bool {
    let mut parts = word.split('$').skip(1);
    let id = parts.next().unwrap_or_default();
    let known = ["1", "2a", "2b", "2x", "2y", "5", "6", "7", "md5", "sha1", "y", "gy", "argon2i", "argon2id", "3"];
    known.contains(&id) && parts.next().is_some() && word.len() >= 20
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
        // A text of one character after the other that begins a hash is read once.
        assert_eq!(only(None, file("etc/x", 0o644, &b"$".repeat(250_000))).len(), 4);
        assert_eq!(text_of(&"$6$".repeat(4_000_000)).len(), "[hash of a password, 123456]".len());
    }

    fn text_of(content: &str) -> String {
        text(&file("etc/x", 0o644, content.as_bytes())).unwrap()
    }

    /// The accident: a diff goes into a ticket or a chat, and with it the hash of root's password.
    #[test]
    fn hashes_of_passwords_are_masked() {
        let rows = [
            "root:$6$abcdefgh$Jq0ZPpFZ8Pn6n8K1oG7J/kP1i6mYpQ1h0mE0lq7XnJc3a9eKJ8vW3m5D2pQ1xY:19000:0:99999:7:::\n",
            "root:$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7:1::::::\n",
            "x $2b$12$GhvMmNVjRW29ulnudl.LbuAnUtN/LRfe1JsBm1Xu6LE3059z5Tr8m y\n",
        ];
        for row in rows {
            let entry = file("etc/shadow", 0o600, row.as_bytes());
            let text = text(&entry).unwrap();
            let secret = row.split('$').find(|part| part.len() > 30).unwrap();
            assert!(text.contains("[hash of a password, ") && !text.contains(&secret[..8]), "{text}");
        }
        for plain in ["PATH=$HOME/bin:$PATH\n", "$1 $2\n", "costs $5$\n"] {
            assert_eq!(text(&file("etc/x", 0o644, plain.as_bytes())).unwrap(), plain);
        }
    }
}
