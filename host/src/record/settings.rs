//! Reads `[set]`, the settings that a node's bundle is made of, of a record or of a file alone. The agent's table has the rules
//! (`imprint::setting`). Makes no bundle.

use imprint::setting::{SETTINGS, Settings};

use super::fields::{RecordError, Text, Value};

/// `[set]` of a record.
pub(crate) fn settings(value: &Value<'_>) -> Result<Settings, RecordError> {
    let mut table = value.table()?;
    let mut settings = Settings::default();
    let mut search = None;
    for row in &SETTINGS {
        let Some(value) = table.take(row.word) else { continue };
        let items = if row.most > 1 { value.array()? } else { vec![value.clone()] };
        for item in items {
            settings.add(row.key, item.string()?).map_err(|error| item.error(error))?;
        }
        if !settings.search.is_empty() && search.is_none() {
            search = Some(value);
        }
    }
    table.finish()?;
    settings.check().map_err(|error| search.as_ref().unwrap_or(value).error(error))?;
    Ok(settings)
}

/// A file that has `[set]` alone, as `imprint setup` writes it: what `bundle make --from FILE.toml` reads.
pub fn of_file(file: &str, text: &str) -> Result<Settings, RecordError> {
    let text = Text::new(file, text);
    let parsed = text.parse()?;
    let mut table = text.root(parsed.get_ref());
    let settings = settings(&table.need("set")?)?;
    table.finish()?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFAtZ6yPj3vajxy7pdD/LTsFJftGYOcaGw54qGXwxjv2 \\\"the\\\\admin\\\"";

    fn said(text: &str) -> String {
        of_file("f.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn what_the_dialogue_writes_is_read() {
        let text = format!(
            "[set]\nhostname = \"node1\"\nlink = [\"52:54:00:12:34:56,dhcp4\"]\ndns = [\"192.0.2.53\"]\nsearch = [\"example.org\"]\n\
             ssh = [\"{KEY}\"]\nsyslog = \"udp:192.0.2.5:514\"\n"
        );
        let settings = of_file("f.toml", &text).unwrap();
        assert_eq!(settings.to_toml().as_str(), text);
        assert_eq!(of_file("f.toml", &Settings::default().to_toml()), Ok(Settings::default()));
    }

    #[test]
    fn errors_name_file_line_and_key() {
        for (text, want) in [
            ("[set]\nhostname = \"a_b\"\n", "f.toml:2: set.hostname: \"a_b\" is not valid: want a host name: "),
            ("[set]\nhostnam = \"a\"\n", "f.toml:2: set.hostnam: unknown key; did you mean hostname?"),
            ("[set]\ndns = \"192.0.2.53\"\n", "f.toml:2: set.dns: want a list [ ], not string"),
            (
                "[set]\n\ndns = [\"192.0.2.53\",\n  \"ns\"]\n",
                "f.toml:4: set.dns[1]: \"ns\" is not valid: want an IP address",
            ),
            ("[set]\nntp = []\nsearch = [\"a.b\"]\n", "f.toml:3: set.search: search domains need a name server; "),
            ("[set]\npassword = \"hunter2\"\n", "f.toml:2: set.password: not valid: want a hash of crypt(5) "),
            ("x = 1\n[set]\n", "f.toml:1: x: unknown key; "),
            ("", "f.toml:1: set: is missing"),
        ] {
            let said = said(text);
            assert!(said.starts_with(want) && !said.contains("hunter2"), "{said}");
        }
    }
}
