//! Commands of the operator that the shell runs: lines and power. Their text and their variables may hold passwords, so
//! neither is ever shown, or an argument of a process that is started here: everybody can read those (proc(5): cmdline).

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

/// A command, and variables that it gets.
#[derive(Clone, PartialEq, Eq)]
pub struct Script {
    text: Zeroizing<String>,
    variables: Vec<(String, Zeroizing<String>)>,
}

/// How the words of a command would show a password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shows {
    /// A variable before the command: shown to nobody, unless the text itself is an argument.
    Variable(String),
    /// An argument of the command, which the command itself shows to everybody.
    Argument(String),
}

/// The shell, and its arguments: the same for every command. The shell reads the command from a variable, which only the
/// same user can read (proc(5): environ), and takes that out of the environment before anything is started by it.
pub(super) const SHELL: &str = "/bin/sh";
/// For a command without a terminal.
pub(super) const PLAIN: [&str; 2] = ["-c", "eval \"unset IMPRINT_COMMAND\n$IMPRINT_COMMAND\""];
/// For one that is a line: its terminal is raw before it begins, so that nothing is echoed. Its own settings come on top.
pub(super) const RAW: [&str; 2] =
    ["-c", "eval \"unset IMPRINT_COMMAND\nstty raw -echo 2>/dev/null\n$IMPRINT_COMMAND\""];
const COMMAND: &str = "IMPRINT_COMMAND";

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Script, String> {
        if text.trim().is_empty() {
            return Err("it is empty; want a command".to_owned());
        }
        no_nul(text)?;
        Ok(Script { text: Zeroizing::new(text.to_owned()), variables: Vec::new() })
    }
}

impl Script {
    /// Gives it a variable.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(is_name) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err("is no name for a variable; want letters, digits and _".to_owned());
        }
        if name == COMMAND {
            return Err("is used by imprint-host itself; give it another name".to_owned());
        }
        no_nul(value)?;
        self.variables.push((name.to_owned(), Zeroizing::new(value.to_owned())));
        Ok(())
    }

    /// What its process has in its environment, beside what this one has.
    pub(super) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        own.chain([(COMMAND, self.text.as_str())])
    }

    /// The name of the program, where that is plain to see: quotes, blanks in values and the like are the shell's to take
    /// apart, not ours.
    pub(super) fn program(&self) -> Option<&str> {
        let plain = |word: &str, marks: &[u8]| word.bytes().all(|b| b.is_ascii_alphanumeric() || marks.contains(&b));
        let variable = |word: &str| {
            word.split_once('=').is_some_and(|(name, value)| plain(name, b"_") && plain(value, b"_-+./:,@%"))
        };
        self.text.split_whitespace().find(|word| !variable(word)).filter(|word| plain(word, b"_-+./~"))
    }

    /// Whether it has variables, which are there for passwords.
    pub fn has_variables(&self) -> bool {
        !self.variables.is_empty()
    }

    /// The first password in its words, as far as that can be told from outside the shell. A value that begins with `$`
    /// is none: the shell finds it elsewhere.
    pub fn shows(&self) -> Option<Shows> {
        let words: Vec<&str> = self.text.split_whitespace().collect();
        let is_literal = |value: &str| {
            let value = value.trim_start_matches(['"', '\'']);
            !value.is_empty() && !value.starts_with(['$', '`'])
        };
        let has = |program: &str| words.iter().any(|word| word.ends_with(program));
        let options = [("ipmitool", "-P"), ("ipmiconsole", "-p"), ("ipmipower", "-p"), ("sshpass", "-p")];
        words.iter().enumerate().find_map(|(index, word)| {
            let word = word.trim_start_matches(['(', '{', '"', '\'', ';', '&', '|', '`', '$']);
            if let Some((name, value)) = word.split_once('=') {
                let secret = ["PASS", "SECRET", "TOKEN"].iter().any(|part| name.to_ascii_uppercase().contains(part));
                let shown = format!("{name}=…");
                return match (secret && is_literal(value), name.starts_with('-')) {
                    (false, _) => None,
                    (true, false) => Some(Shows::Variable(shown)),
                    (true, true) => Some(Shows::Argument(shown)),
                };
            }
            let option = options.iter().find(|(program, option)| word == *option && has(program)).map(|(_, o)| *o);
            let option = option.or((word == "--password").then_some("--password"))?;
            let literal = words.get(index.saturating_add(1)).is_some_and(|value| is_literal(value));
            literal.then(|| Shows::Argument(format!("{option} …")))
        })
    }
}

/// A process cannot be given such a text.
fn no_nul(text: &str) -> Result<(), String> {
    if text.contains('\0') { Err("it holds a NUL character".to_owned()) } else { Ok(()) }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Script {
        text.parse().unwrap()
    }

    #[test]
    fn debug_shows_nothing() {
        let mut secret = script("ipmitool -P hunter2");
        secret.set("IPMI_PASSWORD", "hunter2").unwrap();
        assert_eq!(format!("{secret:?}"), "Script { .. }");
    }

    #[test]
    fn passwords_in_words_are_seen() {
        let variable =
            |text: &str, name: &str| assert_eq!(script(text).shows(), Some(Shows::Variable(name.to_owned())));
        variable("IPMI_PASSWORD=x ipmitool -E sol activate", "IPMI_PASSWORD=…");
        variable("LANG=C SSHPASS='x y' sshpass -e ssh h", "SSHPASS=…");
        variable("(cd /tmp; IPMITOOL_PASS=x ipmitool)", "IPMITOOL_PASS=…");
        let argument =
            |text: &str, word: &str| assert_eq!(script(text).shows(), Some(Shows::Argument(word.to_owned())));
        argument("ipmitool -H h -P x sol activate", "-P …");
        argument("/usr/bin/ipmitool -P x power on", "-P …");
        argument("sshpass -p x ssh h", "-p …");
        argument("redfish --password=x on", "--password=…");
        argument("redfish --password x on", "--password …");
        for text in [
            "ipmitool -E sol activate",
            "LANG=C ipmitool -f /etc/bmc/password sol activate",
            "IPMI_PASSWORD=$(pass show bmc1) ipmitool -E sol activate",
            "IPMI_PASSWORD=\"$BMC1\" ipmitool -E sol activate",
            "ipmitool -P \"$BMC1\" sol activate",
            "scp -P 2222 a b",
            "conman -d h node1",
        ] {
            assert_eq!(script(text).shows(), None, "{text}");
        }
    }

    #[test]
    fn variables_have_names() {
        for (name, fine) in [("A", true), ("_a1", true), ("", false), ("1a", false), ("a-b", false), (COMMAND, false)] {
            assert_eq!(script("x").set(name, "v").is_ok(), fine, "{name}");
        }
        assert!(script("x").set("A", "a\0b").is_err() && "a\0b".parse::<Script>().is_err());
        assert!(" ".parse::<Script>().is_err());
    }
}
