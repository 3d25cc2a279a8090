//! Text that somebody else wrote, for a console: it can neither flood nor drive it.

/// At most 200 characters; whatever is not printable ASCII is escaped, because terminals act on control characters, and
/// people on letters that look like others or run the other way. Quotes stay as they are: it is shown, not parsed.
pub(crate) fn printable(text: &str) -> String {
    let escaped = |c: char| {
        let keep = matches!(c, ' '..='~');
        keep.then_some(c).into_iter().chain((!keep).then(|| c.escape_default()).into_iter().flatten())
    };
    text.chars().take(200).flat_map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drives_a_console_is_escaped() {
        assert_eq!(printable("a \"b\" ~\x1b[2J\u{202e}cod\n\u{e9}"), "a \"b\" ~\\u{1b}[2J\\u{202e}cod\\n\\u{e9}");
        assert_eq!(printable(&"x".repeat(1000)).len(), 200);
    }
}
