//! A pattern of modules.alias and a MODALIAS, separated by NUL. Compared with a matcher that follows the definition, on short texts.
#![cfg_attr(fuzzing, no_main)]

use imprint::kmod::matches;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (pattern, text) = text.split_once('\0').unwrap_or((&text, ""));
    let found = matches(pattern, text);
    let plain = |c: char| !"[]\\-_".contains(c);
    if pattern.len() <= 12 && text.len() <= 16 && pattern.is_ascii() && text.is_ascii() && pattern.chars().all(plain) && text.chars().all(plain) {
        assert_eq!(found, defined(pattern.as_bytes(), text.as_bytes()));
    }
    if pattern == "*" {
        assert!(found);
    }
});

fn defined(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|taken| defined(rest, &text[taken..])),
        Some((first, rest)) => text.split_first().is_some_and(|(byte, text)| (*first == b'?' || first == byte) && defined(rest, text)),
    }
}
