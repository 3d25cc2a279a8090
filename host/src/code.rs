//! Codes of keys as people type them. Makes no code; `imprint::key_code` does.

/// Normalises a code that a person typed: any case, with or without hyphens, O for 0, I and L for 1 (Crockford's base32).
pub fn plain(code: &str) -> String {
    let letters = code.chars().filter(|c| *c != '-' && !c.is_whitespace()).map(|c| c.to_ascii_uppercase());
    letters
        .map(|c| match c {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect()
}

/// The code as it is shown, if this is one: `7K3M-Q0ZT-N4V8-XW1C`.
pub fn shown(text: &str) -> Option<String> {
    let plain = plain(text);
    let digits = |c: char| c.is_ascii_digit() || (c.is_ascii_uppercase() && c != 'U');
    if plain.len() != 16 || !plain.chars().all(digits) {
        return None;
    }
    let group = |from: usize| plain.get(from..from.saturating_add(4)).unwrap_or_default();
    Some([group(0), group(4), group(8), group(12)].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_as_people_copy_them() {
        for text in ["7K3M-Q0ZT-N4V8-XW1C", "7k3m q0zt n4v8 xw1c", "7K3MQOZTN4V8XWIC", "7k3m-qozt-n4v8-xwlc"] {
            assert_eq!(plain(text), "7K3MQ0ZTN4V8XW1C");
            assert_eq!(shown(text).as_deref(), Some("7K3M-Q0ZT-N4V8-XW1C"));
        }
        for text in ["node1", "", "7K3M-Q0ZT-N4V8-XW1", "7K3M-Q0ZT-N4V8-XW1CX", "7K3M-Q0ZT-N4V8-XW1U", "ééééééééé"]
        {
            assert_eq!(shown(text), None, "{text}");
        }
    }
}
