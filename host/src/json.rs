//! JSON on one line, for programs and safe to print on a terminal. Changes no value.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

/// The value on one line. Characters that could control a terminal or change the direction of writing become `\u` escapes (RFC
/// 8259 §7): a JSON parser gets the same text back.
pub fn line(value: &impl Serialize) -> String {
    // Only a map whose keys are not text, or a type whose serialization fails, cannot become JSON. No caller has one.
    // The members of an object are sorted by name, whatever the order of a struct's fields.
    let plain = serde_json::to_value(value).unwrap_or(Value::Null).to_string();
    let mut out = String::with_capacity(plain.len());
    for c in plain.chars() {
        // serde_json has already escaped quotes and backslashes.
        if matches!(c, ' '..='~') || c.escape_debug().len() == 1 {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_drives_a_terminal_and_nothing_is_lost() {
        let text = "a\u{9b}31m\u{202e}\u{1b}[2J\n\"\\\u{e9}\u{6771}\u{e0001}\u{7f}";
        let line = line(&json!({ "text": text }));
        assert!(line.chars().all(|c| !c.is_control() && c != '\u{202e}' && c != '\u{e0001}'), "{line}");
        assert!(line.contains("\\u009b31m\\u202e") && line.contains("\u{e9}\u{6771}"), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), json!({ "text": text }));
    }
}
