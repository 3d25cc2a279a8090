//! The argument with which QEMU gives a guest a payload as a credential of systemd, through its fw_cfg device. The argument
//! names the file with the payload, because every user of a machine can read the arguments of its processes. Pure; never
//! reads or writes a file.

use std::path::Path;

use imprint::shown::line;
use imprint::source::credential;

/// The option of QEMU.
pub const OPTION: &str = "-fw_cfg";

/// The value of [`OPTION`] for the file with this absolute path. `None`: the path has characters that a terminal does
/// not show as they are, so that nobody could copy the argument.
pub fn value(file: &Path) -> Option<String> {
    let file = file.to_str().filter(|name| line(name) == **name)?;
    // QEMU keeps names that begin with opt/ and a domain for users (docs/specs/fw_cfg.rst). A comma ends a value unless
    // it is doubled (qemu-options.hx).
    Some(format!("name=opt/io.systemd.credentials/{},file={}", credential::NAME, file.replace(',', ",,")))
}

/// The value as one word of a shell.
pub fn quoted(value: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-=,:+@%".contains(&byte);
    if value.bytes().all(is_plain) { value.to_owned() } else { format!("'{}'", value.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn names_of_files() {
        let name = "name=opt/io.systemd.credentials/imprint.payload,file=";
        for (file, want) in [
            ("/srv/node1", Some("/srv/node1")),
            ("/srv/a,b,,c", Some("/srv/a,,b,,,,c")),
            ("/srv/it's 1", Some("/srv/it's 1")),
            ("/srv/a\nb", None),
            ("/srv/\u{1b}[2J", None),
        ] {
            assert_eq!(value(Path::new(file)), want.map(|file| format!("{name}{file}")));
        }
        assert!(format!("opt/io.systemd.credentials/{}", credential::NAME).len() <= 55, "QEMU's limit");
    }

    #[test]
    fn a_shell_reads_one_word() {
        for text in ["name=a,file=/srv/node1.cbor", "a b", "it's", "$(reboot)", "`x`\"\\", "", "a;b&c|d>e*?~#!"] {
            let script = format!("printf '<%s>' {}", quoted(text));
            let said = Command::new("sh").args(["-c", &script]).output().unwrap().stdout;
            let want = if text.is_empty() { "<>".to_owned() } else { format!("<{text}>") };
            assert_eq!(String::from_utf8(said).unwrap(), want);
        }
    }
}
