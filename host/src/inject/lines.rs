//! Reads a file of lines: node, line and power command of each. Either TOML, which is never ambiguous; or a short form with
//! one line of text each, which refuses ambiguous text. Opens no line.

use imprint::shown::Printable;

use crate::record::RecordError;
use crate::record::fields::{Table, Text, Value};

use super::Job;
use super::command::Script;
use super::transport::LineSpec;

/// Reads the text of a file. `file` is its name, for errors.
pub fn jobs(file: &str, text: &str) -> Result<Vec<Job>, RecordError> {
    let places = Text::new(file, text);
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let jobs = match first {
        Some(line) if line.starts_with('[') => tables(&places)?,
        _ => short(&places)?,
    };
    if jobs.is_empty() {
        let problem = "there is no line in it; want [[line]] with node = \"NODE\" and line = \"LINE\", or NODE LINE";
        return Err(places.error(0, "", problem));
    }
    Ok(jobs)
}

/// Reads `[[line]]` tables with `node`, `line`, `power` and `env`; `[env]` applies to all of them.
fn tables(places: &Text<'_>) -> Result<Vec<Job>, RecordError> {
    let parsed = places.parse()?;
    let mut root = places.root(parsed.get_ref());
    let for_all = variables(&mut root)?;
    let mut jobs: Vec<Job> = Vec::new();
    for value in root.take("line").map_or(Ok(Vec::new()), |lines| lines.array())? {
        let mut table = value.table()?;
        let node = table.need("node")?;
        let line = table.need("line")?;
        let mut spec: LineSpec = line.string()?.parse().map_err(|why: String| line.error(why))?;
        let mut power = match table.take("power") {
            None => None,
            Some(power) => Some(power.string()?.parse::<Script>().map_err(|why| power.error(why))?),
        };
        let own = variables(&mut table)?;
        table.finish()?;
        // The line's own variables come last, so they win.
        for value in for_all.iter().chain(&own) {
            let (name, text) = (value.name, value.value.string()?);
            let mut scripts: Vec<&mut Script> = power.iter_mut().collect();
            scripts.extend(spec.script_mut());
            for script in scripts {
                script.set(name, text).map_err(|why| value.value.error(why))?;
            }
        }
        let job = Job { node: node.string()?.to_owned(), line: spec, power, log: None };
        add(&mut jobs, job).map_err(|why| value.error(why))?;
    }
    root.finish()?;
    Ok(jobs)
}

struct Variable<'v> {
    name: &'v str,
    value: Value<'v>,
}

fn variables<'v>(table: &mut Table<'v>) -> Result<Vec<Variable<'v>>, RecordError> {
    let Some(env) = table.take("env") else { return Ok(Vec::new()) };
    Ok(env.table()?.all().into_iter().map(|(name, value)| Variable { name, value }).collect())
}

/// Reads the short form: `NODE LINE [| POWER COMMAND]` on each line of text; `#` begins a comment.
fn short(places: &Text<'_>) -> Result<Vec<Job>, RecordError> {
    let mut jobs: Vec<Job> = Vec::new();
    for text in places.text.lines() {
        let offset = text.as_ptr().addr().saturating_sub(places.text.as_ptr().addr());
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let job = short_job(text).and_then(|job| add(&mut jobs, job));
        job.map_err(|why| places.error(offset, "", why))?;
    }
    Ok(jobs)
}

fn short_job(text: &str) -> Result<Job, String> {
    let (node, rest) = text.split_once(char::is_whitespace).ok_or("want NODE LINE")?;
    let rest = rest.trim();
    let (line, power) = match rest.split_once(" | ") {
        Some((line, power)) => (line.trim(), Some(power.trim().parse()?)),
        None => (rest, None),
    };
    let line: LineSpec = line.parse()?;
    if line.script().is_some() && rest.contains('|') {
        // This | may be a pipe of the command or begin the power command. A wrong guess could switch a machine.
        return Err(format!(
            "after exec: a | could be a pipe or start the power command; write [[line]] with node = \"{}\", and the \
             commands in quotes: line = '…' and power = '…'. Then the whole file must have that form",
            Printable::given(node)
        ));
    }
    Ok(Job { node: node.to_owned(), line, power, log: None })
}

fn add(jobs: &mut Vec<Job>, job: Job) -> Result<(), String> {
    if jobs.iter().any(|other| other.node == job.node) {
        return Err(format!("{} has a line already", Printable::given(&job.node)));
    }
    if let Some(other) = jobs.iter().find(|other| other.line.is_same(&job.line)) {
        return Err(format!("{} is the line of {} already", job.line, Printable::given(&other.node)));
    }
    jobs.push(job);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        jobs("lines", text).unwrap_err().to_string()
    }

    /// The command's text that the shell gets.
    fn said(script: &Script) -> String {
        script.environment().last().unwrap().1.to_owned()
    }

    #[test]
    fn the_short_form() {
        let found = jobs("lines", "# rack 1\n\nnode1 unix:/run/1\nnode2  tcp:bmc2:9001 | ipmitool -H bmc2 power on\n");
        let found = found.unwrap();
        let shown: Vec<_> = found.iter().map(|job| (job.node.as_str(), job.line.to_string())).collect();
        assert_eq!(shown, [("node1", "unix:/run/1".to_owned()), ("node2", "tcp:bmc2:9001".to_owned())]);
        assert_eq!(found[1].power.as_ref().map(said).as_deref(), Some("ipmitool -H bmc2 power on"));
        let none =
            "lines:1: there is no line in it; want [[line]] with node = \"NODE\" and line = \"LINE\", or NODE LINE";
        assert_eq!(wrong("# none\n\n"), none);
        assert_eq!(wrong("node1\n"), "lines:1: want NODE LINE");
        assert_eq!(wrong("a unix:x\na unix:y\n"), "lines:2: a has a line already");
        assert_eq!(wrong("a unix:x\n\nb unix:x | true\n"), "lines:3: unix:x is the line of a already");
        assert_eq!(wrong("a exec:sol -P 1 x\nb exec:sol -P 1 x\n"), "lines:2: exec:sol … is the line of a already");
        assert_eq!(jobs("lines", "a exec:sol -P 1 x\nb exec:sol -P 1 y\n").unwrap().len(), 2);
        assert_eq!(wrong("a /dev/ttyS1,9600\nb /dev/ttyS1\n"), "lines:2: /dev/ttyS1,115200 is the line of a already");
    }

    /// The accident: `conman node1 | tee log` was started without its pipe, and `tee log` was run as the power command.
    #[test]
    fn a_pipe_that_may_be_a_power_command_is_refused() {
        for line in ["exec:conman node1 | tee log", "exec:a|b", "exec:a || b", "exec:sol 1 | power 1"] {
            let want = "lines:2: after exec: a | could be a pipe or start the power command; write [[line]] with node \
                        = \"b\", and the commands in quotes: line = '…' and power = '…'. Then the whole file must have \
                        that form";
            assert_eq!(wrong(&format!("a unix:x\nb {line}\n")), want);
        }
        // Lines that are not commands have no pipes.
        let found = jobs("lines", "a unix:/run/x | echo on | nc pdu 23\n").unwrap();
        assert_eq!(found[0].power.as_ref().map(said).as_deref(), Some("echo on | nc pdu 23"));
    }

    #[test]
    fn tables_have_a_place_for_each_command() {
        let text = "# rack 1\n[env]\nIPMI_PASSWORD = 'for all'\nLANG = 'C'\n\n[[line]]\nnode = 'a'\n\
                    line = 'exec:sol a | tee log'\npower = 'on a | tee log'\nenv = { IPMI_PASSWORD = 'own' }\n\n\
                    [[line]]\nnode = 'b'\nline = '/dev/ttyS1,9600'\n";
        let found = jobs("lines", text).unwrap();
        assert_eq!((found.len(), found[1].line.to_string()), (2, "/dev/ttyS1,9600".to_owned()));
        let LineSpec::Exec(line) = &found[0].line else { panic!("a command") };
        for (script, command) in [(line, "sol a | tee log"), (found[0].power.as_ref().unwrap(), "on a | tee log")] {
            // The later of two values wins (std::process::Command::env).
            let all: Vec<_> = script.environment().collect();
            let want =
                [("IPMI_PASSWORD", "for all"), ("LANG", "C"), ("IPMI_PASSWORD", "own"), ("IMPRINT_COMMAND", command)];
            assert_eq!(all, want);
        }
    }

    #[test]
    fn what_is_wrong_with_a_table_is_told_with_its_place() {
        let line = "[[line]]\nnode = 'a'\nline = 'unix:x'\n";
        assert_eq!(wrong(&format!("{line}powr = 'on'\n")), "lines:4: line[0].powr: unknown key; did you mean power?");
        assert_eq!(wrong("[[line]]\nnode = 'a'\n"), "lines:1: line[0].line: is missing");
        assert_eq!(wrong("[[lines]]\nnode = 'a'\n"), "lines:1: lines: unknown key; did you mean line?");
        assert!(
            wrong("[[line]]\nnode = 'a'\nline = 'ssh:x'\n")
                .starts_with("lines:3: line[0].line: \"ssh\" begins no line")
        );
        assert_eq!(wrong(&format!("{line}{line}")), "lines:4: line[1]: a has a line already");
        let bad = "[env]\n1X = 'y'\n[[line]]\nnode = 'a'\nline = 'exec:sol'\n";
        assert_eq!(wrong(bad), "lines:2: env.1X: is not a name for a variable; want letters, digits and _");
        assert!(wrong(&format!("{line}power = ''\n")).starts_with("lines:4: line[0].power: it is empty"));
        assert!(wrong("[env]\nA = 1\n[[line]]\nnode = 'a'\nline = 'exec:sol'\n").contains("want a string"), "a number");
    }
}
