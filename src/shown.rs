//! Text that somebody else wrote, for a console, a log or a table: it can neither drive it nor forge a line of it.

/// At most 200 characters; whatever is not printable ASCII is escaped, because terminals act on control characters, and
/// people on letters that look like others or run the other way. Quotes stay as they are: it is shown, not parsed.
pub fn printable(text: &str) -> String {
    printable_up_to(text, 200)
}

/// The same, with at most so many characters of the text.
pub fn printable_up_to(text: &str, most: usize) -> String {
    let escaped = |c: char| {
        let keep = matches!(c, ' '..='~');
        keep.then_some(c).into_iter().chain((!keep).then(|| c.escape_default()).into_iter().flatten())
    };
    text.chars().take(most).flat_map(escaped).collect()
}

/// The whole text on one line, for what an administrator gave: names of files, records, addresses. Letters of every
/// script stay; controls, line breaks, what changes the direction of writing, and what cannot be seen are escaped.
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file name that would be a line of its own, in the log or on the screen.
    #[test]
    fn a_line_stays_one() {
        let name = "a\n2026-01-01T00:00:00Z approved node1: \x1b[2J\u{202e}\u{2028}\u{200b}\r\t\u{9b}\u{ad}";
        let want = "a\\n2026-01-01T00:00:00Z approved node1: \\u{1b}[2J\\u{202e}\\u{2028}\\u{200b}\\r\\t\\u{9b}\\u{ad}";
        assert_eq!(line(name), want);
        // Once more changes nothing, and what people write stays.
        assert_eq!(line(want), want);
        for text in ["O=M\u{fc}ller & S\u{f6}hne \"x\" 'y' {\u{2026}}", "\u{6771}\u{4eac}"] {
            assert_eq!(line(text), text);
        }
    }

    #[test]
    fn what_drives_a_console_is_escaped() {
        assert_eq!(printable("a \"b\" ~\x1b[2J\u{202e}cod\n\u{e9}"), "a \"b\" ~\\u{1b}[2J\\u{202e}cod\\n\\u{e9}");
        assert_eq!(printable(&"x".repeat(1000)).len(), 200);
    }
}
