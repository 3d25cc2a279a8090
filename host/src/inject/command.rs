//! The operator's shell commands, for lines and power. Their text and variables may hold passwords, so this program never
//! shows them and never passes them as arguments: every user can read arguments (proc(5): cmdline).

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

/// A command with its variables.
#[derive(Clone, PartialEq, Eq)]
pub struct Script {
    text: Zeroizing<String>,
    variables: Vec<(String, Zeroizing<String>)>,
}

/// How a command's words would expose a password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shows {
    /// A variable before the command. Exposed only if the command's text itself is an argument of a process.
    Variable(String),
    /// An argument of the command. Every user can read it while the command runs.
    Argument(String),
}

/// The shell. Its arguments are the same for every command. It reads the command from a variable, which only the same user
/// can read (proc(5): environ), and removes the variable before it starts anything.
pub(crate) const SHELL: &str = "/bin/sh";
/// Arguments of the shell for a command without a terminal.
pub(crate) const PLAIN: [&str; 2] = ["-c", "eval \"unset IMPRINT_COMMAND\n$IMPRINT_COMMAND\""];
/// Arguments of the shell for a command that is a line: its terminal is raw from the start, so that nothing is echoed. The
/// command may change the settings.
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
    /// Adds a variable.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(is_name) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err("is not a name for a variable; want letters, digits and _".to_owned());
        }
        if name == COMMAND {
            return Err("is used by imprint-host itself; give it another name".to_owned());
        }
        no_nul(value)?;
        self.variables.push((name.to_owned(), Zeroizing::new(value.to_owned())));
        Ok(())
    }

    /// The variables that the shell's process gets in addition to this process's environment.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        own.chain([(COMMAND, self.text.as_str())])
    }

    /// The name of the program, if it is plain. `None` for text with quotes and the like, which only the shell can parse.
    pub(super) fn program(&self) -> Option<&str> {
        let plain = |word: &str, marks: &[u8]| word.bytes().all(|b| b.is_ascii_alphanumeric() || marks.contains(&b));
        let variable = |word: &str| {
            word.split_once('=').is_some_and(|(name, value)| plain(name, b"_") && plain(value, b"_-+./:,@%"))
        };
        self.text.split_whitespace().find(|word| !variable(word)).filter(|word| plain(word, b"_-+./~"))
    }

    /// Whether the command has variables of its own. They usually hold passwords.
    pub fn has_variables(&self) -> bool {
        !self.variables.is_empty()
    }

    /// The first password in the command's words, as far as this program can tell without the shell. A value that begins
    /// with `$` is not a password: the shell expands it.
    pub fn shows(&self) -> Option<Shows> {
        let words: Vec<&str> = self.text.split_whitespace().collect();
        words.iter().enumerate().find_map(|(index, word)| {
            let word = word.trim_start_matches(['(', '{', '"', '\'', ';', '&', '|', '`', '$']);
            let before = words.get(..index).unwrap_or_default();
            let next = words.get(index.saturating_add(1)).copied().unwrap_or_default();
            assigned(word).or_else(|| in_url(word)).or_else(|| optional(before, word, next))
        })
    }
}

/// Finds `IPMI_PASSWORD=x` and `--password=x`.
fn assigned(word: &str) -> Option<Shows> {
    let (name, value) = word.split_once('=')?;
    let secret = ["PASS", "SECRET", "TOKEN"].iter().any(|part| name.to_ascii_uppercase().contains(part));
    if !secret || !is_literal(value) {
        return None;
    }
    let shown = format!("{name}=…");
    Some(if name.starts_with('-') { Shows::Argument(shown) } else { Shows::Variable(shown) })
}

/// Finds `https://admin:x@bmc1/` (RFC 3986 §3.2.1).
fn in_url(word: &str) -> Option<Shows> {
    let (_, rest) = word.split_once("://").filter(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()))?;
    let (user, host) = rest.split(['/', '?', '#']).next()?.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    is_literal(password).then(|| Shows::Argument(format!("…@{host}/…")))
}

/// Finds `-P x` and `-Px` of known programs. The program's name has to come before the option, because other programs use
/// the same option for something else.
fn optional(before: &[&str], word: &str, next: &str) -> Option<Shows> {
    OPTIONS.iter().find_map(|known| {
        let between = before.iter().rposition(|word| word.ends_with(known.program));
        let between = before.get(between?.saturating_add(1)..).unwrap_or_default();
        let own = |(at, word): (usize, &&str)| {
            let before = at.checked_sub(1).and_then(|at| between.get(at).copied());
            word.starts_with('-') || before.is_some_and(|before| known.values.contains(&before))
        };
        if known.first && !between.iter().enumerate().all(own) {
            return None;
        }
        let rest = match known.option.strip_prefix("--") {
            Some(_) => word.strip_prefix(known.option).filter(|rest| rest.is_empty())?,
            None => {
                let flags = word.strip_prefix('-')?.trim_start_matches(|flag| known.flags.contains(flag));
                flags.strip_prefix(known.option.trim_start_matches('-'))?
            }
        };
        let (value, shown) = match rest {
            "" => (next, format!("{} …", known.option)),
            rest => (rest, format!("{}…", known.option)),
        };
        let password = if known.named { value.split_once(':')?.1 } else { value };
        is_literal(password).then_some(Shows::Argument(shown))
    })
}

fn is_literal(value: &str) -> bool {
    let value = value.trim_start_matches(['"', '\'']);
    !value.is_empty() && !value.starts_with(['$', '`'])
}

/// An option of a program whose value is a password.
struct Known {
    program: &'static str,
    option: &'static str,
    /// Options of one letter without a value, which may come before this one in the same word.
    flags: &'static str,
    /// The value is NAME:PASSWORD.
    named: bool,
    /// The words after the options belong to another program.
    first: bool,
    /// Other options of such a program that have a value in the next word.
    values: &'static [&'static str],
}

const PLAIN_OPTION: Known =
    Known { program: "", option: "--password", flags: "", named: false, first: false, values: &[] };
const CURL: Known =
    Known { program: "curl", option: "", flags: "0123456afgiIjJklLnNOpqRsSvZ#", named: true, ..PLAIN_OPTION };
const OPTIONS: [Known; 9] = [
    PLAIN_OPTION,
    Known { program: "ipmitool", option: "-P", ..PLAIN_OPTION },
    Known { program: "ipmiconsole", option: "-p", ..PLAIN_OPTION },
    Known { program: "ipmipower", option: "-p", ..PLAIN_OPTION },
    Known { program: "sshpass", option: "-p", first: true, values: &["-P", "-f", "-d"], ..PLAIN_OPTION },
    Known { option: "-u", ..CURL },
    Known { option: "--user", ..CURL },
    Known { option: "-U", ..CURL },
    Known { option: "--proxy-user", ..CURL },
];

/// An error for a text with NUL: an environment cannot hold it.
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
        argument("ipmitool -H h -Phunter2 sol activate", "-P…");
        argument("ipmiconsole -h bmc1 -u admin -phunter2", "-p…");
        argument("ipmipower -h bmc1 -p'hunter2' --on", "-p…");
        argument("sshpass -p x ssh h", "-p …");
        argument("sshpass -v -phunter2 ssh -p22 h", "-p…");
        argument("sshpass -P assphrase -p hunter2 ssh h", "-p …");
        argument("sh -c \"sshpass -phunter2 ssh h\"", "-p…");
        argument("curl -u admin:hunter2 https://bmc1/redfish/v1", "-u …");
        argument("curl -uadmin:hunter2 https://bmc1/redfish/v1", "-u…");
        argument("curl -sku admin:hunter2 -X POST https://bmc1/redfish/v1", "-u …");
        argument("curl -skuadmin:hunter2 https://bmc1/redfish/v1", "-u…");
        argument("/usr/bin/curl --user 'admin:hunter2' https://bmc1/redfish/v1", "--user …");
        argument("curl --user \"$NAME:hunter2\" https://bmc1/redfish/v1", "--user …");
        argument("curl -X POST https://admin:hunter2@bmc1/redfish/v1?x=y", "…@bmc1/…");
        argument("redfish --password=x on", "--password=…");
        argument("redfish --password x on", "--password …");
        for text in [
            "ipmitool -E sol activate",
            "LANG=C ipmitool -f /etc/bmc/password sol activate",
            "IPMI_PASSWORD=$(pass show bmc1) ipmitool -E sol activate",
            "IPMI_PASSWORD=\"$BMC1\" ipmitool -E sol activate",
            "ipmitool -P \"$BMC1\" sol activate",
            "ipmitool -P\"$BMC1\" sol activate",
            "sshpass -p\"$BMC1\" ssh h",
            "sshpass -e ssh -p 22 h",
            "sshpass -e ssh -p22 h",
            "sshpass -f /etc/bmc/password ssh -p22 h",
            "curl -u admin https://bmc1/redfish/v1",
            "curl -u : --negotiate https://bmc1:8443/redfish/v1",
            "curl -u \"admin:$BMC1\" https://bmc1/redfish/v1",
            "curl -u \"$BMC1\" -H Accept:text/plain https://bmc1/redfish/v1",
            "curl -sn -H Content-Type:application/json https://bmc1:8443/redfish/v1@x",
            "curl https://admin@bmc1:8443/ --netrc-file /etc/bmc/netrc",
            "scp -P 2222 a b",
            "scp -P2222 a b",
            "su -u admin:staff",
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
