//! The words of systemd on the kernel command line that bring a credential, `systemd.set_credential=` and
//! `systemd.set_credential_binary=`. The configuration of the boot loader vouches for them. Pure: never decodes the
//! credential.

use crate::secret::Secret;

/// The credentials that imprint knows by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CredentialName {
    /// A payload.
    Payload,
    /// A site pin.
    Site,
}

impl CredentialName {
    /// The name that systemd uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            CredentialName::Payload => "imprint.payload",
            CredentialName::Site => "imprint.site",
        }
    }
}

/// A credential as it stands on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetCredential {
    /// Its name.
    pub name: CredentialName,
    /// Whether the word is `systemd.set_credential_binary=`: then the text is base64 of the credential.
    pub encoded: bool,
    /// The text behind the colon.
    pub text: Secret,
    /// Whether the word is at the end of a command line with the greatest length, so that its end may be missing.
    pub cut: bool,
}

/// Reads one word. `None`: it brings no credential with a name of ours.
pub(super) fn set(key: &str, value: Option<&str>, cut: bool) -> Option<SetCredential> {
    // systemd takes a hyphen for an underscore (src/basic/proc-cmdline.c, proc_cmdline_key_streq).
    let encoded = match key.replace('-', "_").as_str() {
        "systemd.set_credential" => false,
        "systemd.set_credential_binary" => true,
        _ => return None,
    };
    let (name, text) = value?.split_once(':')?;
    let name = [CredentialName::Payload, CredentialName::Site].into_iter().find(|known| known.as_str() == name)?;
    Some(SetCredential { name, encoded, text: Secret::new(text.as_bytes().to_vec()), cut })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{CMDLINE_MAX, Options};

    fn found(cmdline: &str) -> Vec<(CredentialName, bool, String)> {
        let credentials = Options::parse(cmdline).unwrap().credentials;
        let text = |text: &Secret| String::from_utf8(text.expose().to_vec()).unwrap();
        credentials.iter().map(|found| (found.name, found.encoded, text(&found.text))).collect()
    }

    #[test]
    fn credentials_with_our_names() {
        let payload = |encoded, text: &str| (CredentialName::Payload, encoded, text.to_owned());
        for (cmdline, want) in [
            ("systemd.set_credential=imprint.payload:oQEB", vec![payload(false, "oQEB")]),
            ("systemd.set-credential=imprint.payload:oQEB", vec![payload(false, "oQEB")]),
            ("systemd.set_credential_binary=imprint.payload:oQE=", vec![payload(true, "oQE=")]),
            (
                "\"systemd.set_credential=imprint.site:signer x y\"",
                vec![(CredentialName::Site, false, "signer x y".into())],
            ),
            (
                "systemd.set_credential=imprint.payload:a systemd.set_credential_binary=imprint.payload:b:c",
                vec![payload(false, "a"), payload(true, "b:c")],
            ),
            ("systemd.set_credential=imprint.payload:", vec![payload(false, "")]),
            // Credentials of others, and words that systemd ignores as well.
            ("systemd.set_credential=imprint.payloads:x systemd.set_credential=a:b", vec![]),
            ("systemd.set_credential systemd.set_credential=imprint.payload", vec![]),
            ("rd.systemd.set_credential=imprint.payload:x", vec![]),
            ("-- systemd.set_credential=imprint.payload:x", vec![]),
            ("imprint=off systemd.set_credential=imprint.payload:x", vec![]),
        ] {
            assert_eq!(found(cmdline), want, "{cmdline}");
        }
    }

    #[test]
    fn the_end_of_a_full_command_line_may_be_missing() {
        let word = "systemd.set_credential_binary=imprint.payload:oQEB";
        let full = format!("{} {word}\n", "x".repeat(CMDLINE_MAX - 1 - word.len()));
        assert!(Options::parse(&full).unwrap().credentials[0].cut);
        assert!(!Options::parse(&full[1..]).unwrap().credentials[0].cut, "one byte shorter");
        let elsewhere = format!("{word} {}", "x".repeat(CMDLINE_MAX));
        assert!(!Options::parse(&elsewhere).unwrap().credentials[0].cut);
    }
}
