//! Makes text from outside safe for a console, a log or a table: it can neither control a terminal nor forge a line.
//! Text that the program keeps in order to show it is a [`Printable`]. Text for a person passes through [`line()`] or
//! [`page`] once more, in `console`. Never use these functions on text that is compared, signed or sent.

use std::fmt;
use std::path::Path;

/// Text from outside that is safe to show anywhere. Only the functions here make one. A `String` from outside must not
/// be shown without them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Printable(String);

impl Printable {
    /// For text that nobody vouches for: a subject, a label, a header. See [`printable`].
    pub fn of(text: &str) -> Printable {
        Printable(printable(text))
    }

    /// Like [`Printable::of`], but with at most `most` characters of the text.
    pub fn up_to(text: &str, most: usize) -> Printable {
        Printable(printable_up_to(text, most))
    }

    /// Like [`Printable::of`], for bytes that need not be text.
    pub fn of_bytes(bytes: &[u8]) -> Printable {
        Printable::of(&String::from_utf8_lossy(bytes))
    }

    /// For text that an administrator gave. See [`line()`].
    pub fn given(text: &str) -> Printable {
        Printable(line(text))
    }

    /// The whole name of a file.
    pub fn path(path: &Path) -> Printable {
        Printable::given(&path.to_string_lossy())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Like [`Printable::of`].
impl From<&str> for Printable {
    fn from(text: &str) -> Printable {
        Printable::of(text)
    }
}

impl PartialEq<str> for Printable {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Printable {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Printable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// At most 200 characters of the text. Everything but printable ASCII is escaped: terminals act on control characters,
/// and letters that look alike or run from right to left mislead people. Quotes are not escaped: the text is shown, not
/// parsed.
pub fn printable(text: &str) -> String {
    printable_up_to(text, 200)
}

/// Like [`printable`], but with at most `most` characters of the text.
pub fn printable_up_to(text: &str, most: usize) -> String {
    if is_plain(text) {
        // One byte a character.
        return text.get(..most).unwrap_or(text).to_owned();
    }
    let escaped = |c: char| {
        let keep = matches!(c, ' '..='~');
        keep.then_some(c).into_iter().chain((!keep).then(|| c.escape_default()).into_iter().flatten())
    };
    text.chars().take(most).flat_map(escaped).collect()
}

/// The whole text on one line, for text that an administrator gave: names of files, records, addresses. Letters of
/// every script stay. Control characters, line breaks, invisible characters and those that change the direction of
/// writing are escaped.
pub fn line(text: &str) -> String {
    kept(text, |_| false)
}

/// Like [`line()`], for a text of several lines.
pub fn page(text: &str) -> String {
    kept(text, |c| c == '\n')
}

fn kept(text: &str, keep: fn(char) -> bool) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => out.push(c),
            _ if keep(c) => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

/// Whether nothing in the text is escaped, as in nearly every text. To look at each byte once costs much less than to push each
/// character.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: a file name that would forge a line in the log or on the screen.
    #[test]
    fn a_line_stays_one() {
        let name = "a\n2026-01-01T00:00:00Z approved node1: \x1b[2J\u{202e}\u{2028}\u{200b}\r\t\u{9b}\u{ad}";
        let want = "a\\n2026-01-01T00:00:00Z approved node1: \\u{1b}[2J\\u{202e}\\u{2028}\\u{200b}\\r\\t\\u{9b}\\u{ad}";
        assert_eq!(line(name), want);
        // Escaping twice changes nothing more, and ordinary text stays unchanged.
        assert_eq!(line(want), want);
        for text in ["O=M\u{fc}ller & S\u{f6}hne \"x\" 'y' {\u{2026}}", "\u{6771}\u{4eac}"] {
            assert_eq!(line(text), text);
        }
        assert_eq!(page("a\nb\r\n\x1b[2J"), "a\nb\\r\n\\u{1b}[2J");
    }

    #[test]
    fn what_drives_a_console_is_escaped() {
        let hostile = "a \"b\" ~\x1b[2J\u{202e}cod\n\u{e9}";
        let want = "a \"b\" ~\\u{1b}[2J\\u{202e}cod\\n\\u{e9}";
        assert_eq!(printable(hostile), want);
        assert_eq!(Printable::of(hostile).as_str(), want);
        assert_eq!(Printable::of_bytes(b"\xff\x1b").to_string(), "\\u{fffd}\\u{1b}");
        assert_eq!(Printable::path(Path::new("/a\n\u{e9}")).as_str(), "/a\\n\u{e9}");
        assert_eq!(printable(&"x".repeat(1000)).len(), 200);
        // A text with nothing to escape is cut at the same place as one with something.
        let plain: String = (' '..='~').collect();
        let other = format!("{plain}\u{7f}");
        assert_eq!(printable(&plain), plain);
        for most in [0, 1, 94, 95] {
            assert_eq!(printable_up_to(&plain, most), plain.chars().take(most).collect::<String>());
            assert_eq!(printable_up_to(&plain, most), printable_up_to(&other, most));
        }
        assert_eq!(printable_up_to(&other, 96), format!("{plain}\\u{{7f}}"));
    }

    /// Attack: texts from outside that clear the screen and forge a line. Each type that keeps such a text in order to show it
    /// shows it escaped.
    #[test]
    fn errors_show_no_text_from_outside_as_it_came() {
        use crate::certificate::Oddity;
        use crate::checkin::Failure;
        use crate::est::EstError;
        use crate::http::{HttpError, ResponseReader};
        use crate::medium::Medium;
        use crate::source::{Origin, SourceError};

        const HOSTILE: &str = "a\n\u{1b}[2J\u{9b}\u{202e}z";
        assert_eq!(HOSTILE.chars().filter(|c| !matches!(c, ' '..='~')).count(), 4, "the premise");
        let hostile = || Printable::of(HOSTILE);
        let (whose, key, issuer, algorithm) = (hostile(), hostile(), hostile(), hostile());
        let credentials =
            |sent, token, schemes: Vec<Printable>| Failure::Credentials { sent, token, schemes, text: hostile() };
        let texts = [
            HttpError::Framing(hostile()).to_string(),
            EstError::Redirect { status: 302, location: Some(hostile()) }.to_string(),
            EstError::Unauthorized { schemes: vec![hostile()], text: hostile() }.to_string(),
            EstError::Refused { status: 403, text: hostile() }.to_string(),
            EstError::Busy { status: 503, text: hostile(), retry_after: None }.to_string(),
            EstError::NotCertsOnly(hostile()).to_string(),
            Failure::NotADate(hostile()).to_string(),
            Failure::LineRefused(hostile()).to_string(),
            credentials(true, true, vec!["Basic".into()]).to_string(),
            credentials(false, false, vec![]).to_string(),
            credentials(true, true, vec![]).to_string(),
            credentials(true, true, vec![hostile()]).to_string(),
            Oddity::Signature { whose: whose.clone(), algorithm }.to_string(),
            Oddity::Key { whose: whose.clone(), key }.to_string(),
            Oddity::Critical { whose: whose.clone(), extensions: vec![hostile()] }.to_string(),
            Oddity::Constraints { whose: whose.clone() }.to_string(),
            Oddity::Issuer { whose, issuer }.to_string(),
            SourceError::Claims { device: "sda".into(), first: hostile(), second: hostile() }.to_string(),
            SourceError::NoFile { device: "sda".into(), label: hostile() }.to_string(),
            Origin::Medium { medium: Medium::ConfigDrive, place: hostile() }.to_string(),
        ];
        for text in texts {
            assert!(text.chars().all(|c| matches!(c, ' '..='~')) && text.contains("\\u{1b}[2J\\u{9b}"), "{text:?}");
        }
        // The same from the wire. HTTP forbids most control characters, but not U+009B, which terminals take for ESC [.
        let head = "HTTP/1.1 302 \u{9b}2J\r\nDate: \u{9b}2J\r\nRetry-After: \u{9b}2J\r\nLocation: \u{9b}2J\r\n\
                    WWW-Authenticate: \u{9b}2J\r\nContent-Length: 0\r\n\r\n";
        let answer = ResponseReader::default().push(head.as_bytes()).unwrap().unwrap();
        let fields = [answer.date, answer.retry_after, answer.location, answer.challenges.first().cloned()];
        for text in fields.into_iter().flatten() {
            assert_eq!(text, "\\u{9b}2J");
        }
    }
}
