//! Compares the pages for people with the program and with each other: links, commands and their options, exit codes,
//! files, environment variables, items of JSON, waits, messages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use imprint_tests::programs;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(super) fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files with this ending below a folder, as paths from the root of the tree.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let name = format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap());
        if root().join(&name).is_dir() {
            found.extend(files(&name, ending));
        } else if name.ends_with(ending) {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// Every page in Markdown.
fn pages() -> Vec<(String, String)> {
    let mut names = files("docs", ".md");
    names.extend(["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned));
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

/// Source files of both programs.
pub(super) fn sources() -> Vec<(String, String)> {
    let names = ["src", "host/src"].into_iter().flat_map(|folder| files(folder, ".rs"));
    names.map(|name| (name.clone(), read(&name))).collect()
}

/// What stands between backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// First and further cells of the rows of tables between a heading and the next one.
pub(super) fn rows<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    let lines = rest.lines().take_while(|line| !line.starts_with("## "));
    let cells = lines.filter_map(|line| line.strip_prefix("| `")).map(|row| row.trim_end_matches(['|', ' ']));
    let split = cells.map(|row| row.split_once("` | ").unwrap_or((row, "")));
    split.map(|(name, rest)| std::iter::once(name).chain(rest.split(" | ")).collect()).collect()
}

/// GitHub's name for a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let anchors: BTreeMap<PathBuf, BTreeSet<String>> = pages()
        .into_iter()
        .map(|(name, text)| {
            let headings = text.lines().filter(|line| line.starts_with('#'));
            let names = headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect();
            (root().join(name).canonicalize().unwrap(), names)
        })
        .collect();
    let (mut count, mut broken) = (0, Vec::new());
    for (page, text) in pages() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            let (path, name) = link.split_once('#').map_or((link, None), |(path, name)| (path, Some(name)));
            let file = root().join(&page);
            let file = if path.is_empty() { file } else { file.parent().unwrap().join(path) };
            match (file.canonicalize(), name) {
                (Err(_), _) => broken.push(format!("{page}: {link}: no such file")),
                (Ok(file), Some(name)) if !anchors.get(&file).is_some_and(|names| names.contains(name)) => {
                    broken.push(format!("{page}: {link}: no such heading"));
                }
                _ => count += 1,
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(count > 60, "{count}");
}

/// A page that no other one leads to is not found.
#[test]
fn the_readme_leads_to_every_page() {
    let readme = read("README.md");
    for page in files("docs", "") {
        let is_linked = readme.contains(&format!("]({page})")) || page.ends_with("line.svg");
        assert!(is_linked, "README.md does not lead to {page}");
    }
}

/// Sub-commands of a program with the options of each, as its own help has them.
fn commands(program: &Path, list: &str) -> BTreeMap<String, BTreeSet<String>> {
    let help = |words: &[&str]| {
        let output = Command::new(program).args(words).arg("--help").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let names = |help: &str| -> Vec<String> {
        let Some((_, rest)) = help.split_once(list) else { return Vec::new() };
        let lines = rest.lines().skip(1).take_while(|line| !line.is_empty());
        let lines = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        lines
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .filter(|name| name != "help")
            .collect()
    };
    let options = |help: &str| -> BTreeSet<String> {
        let words = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
        let words = words
            .flat_map(|line| line.split([' ', ',']).take(3).filter(|word| word.starts_with('-')).map(str::to_owned));
        words.collect()
    };
    let mut found = BTreeMap::new();
    for name in names(&help(&[])) {
        let own = help(&[&name]);
        let below = names(&own);
        for sub in &below {
            found.insert(format!("{name} {sub}"), options(&help(&[&name, sub])));
        }
        // `[COMMAND]`: the command also does something without a word behind it.
        if below.is_empty() || own.contains(" [COMMAND]\n") {
            found.insert(name, options(&own));
        }
    }
    found
}

/// What a page says to type: `imprint WORD …` or `imprint-host WORD …` in a span or a block, up to what ends a command.
fn typed(page: &str) -> Vec<(&'static str, Vec<String>)> {
    let mut found = Vec::new();
    let mut fenced = false;
    let mut add = |text: &str| {
        for (program, mark) in [("imprint-host", "imprint-host "), ("imprint", "imprint ")] {
            let Some(words) = text.strip_prefix(mark) else { continue };
            let end = words.find(['|', ';', '>', ')', '(', '<', '\'', '"', '`', '#', '&']).unwrap_or(words.len());
            let words = words[..end].split_whitespace().map(|word| word.trim_matches(['[', ']', '…', ',', '.', ':']));
            let words: Vec<String> = words.filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect();
            if words.first().is_some_and(|word| word.starts_with(|c: char| c.is_ascii_lowercase())) {
                found.push((program, words));
            }
        }
    };
    for paragraph in page.split("\n```") {
        if fenced {
            for line in paragraph.lines() {
                add(line.trim_start().trim_start_matches("$ "));
            }
        } else {
            spans(&paragraph.replace('\n', " ")).for_each(&mut add);
        }
        fenced = !fenced;
    }
    found
}

/// A command that a page shows and that the program does not know costs a reader an hour.
#[test]
fn commands_and_options_on_pages_are_those_of_the_programs() {
    let agent = commands(&programs::agent(), "\nCommands:");
    let host = commands(&programs::host(), "\nCommands:");
    assert!(agent.len() >= 7 && host.len() >= 12, "{agent:?}\n{host:?}");
    let (mut count, mut wrong) = (0, Vec::new());
    let mut all = pages();
    all.retain(|(name, _)| name != "CHANGELOG.md"); // it tells of what was
    all.extend(files("man", "").into_iter().map(|name| {
        let text = read(&name).replace("\\&", "").replace("\\-", "-");
        // What stands behind .Ql and in literal blocks.
        let lines =
            text.lines().filter_map(|line| line.strip_prefix(".Ql ").or(line.starts_with("imprint").then_some(line)));
        (name, lines.map(|line| format!("`{line}`\n")).collect::<String>())
    }));
    for (page, text) in all {
        for (program, words) in typed(&text) {
            let known = if program == "imprint" { &agent } else { &host };
            // Options of every command may come first: --dir DIR, --json.
            let two = format!("{} {}", words[0], words.get(1).map_or("", String::as_str));
            // What keys, proofs and signatures of the line protocol cover: "imprint line request".
            if program == "imprint" && ["line", "payload", "admission"].contains(&words[0].as_str()) {
                continue;
            }
            let Some(options) = known.get(&two).or_else(|| known.get(&words[0])) else {
                // `imprint takes …` is prose; a name that is spelled like a command is none.
                wrong.push(format!("{page}: {program} {}", words.join(" ")));
                continue;
            };
            count += 1;
            for option in words.iter().filter(|word| word.starts_with('-')) {
                let option = option.split(['=', '\u{2026}']).next().unwrap();
                if !options.contains(option) {
                    wrong.push(format!("{page}: {program} {}: {option}", words.join(" ")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "the programs do not know:\n{}", wrong.join("\n"));
    assert!(count > 100, "{count}");
}

#[test]
fn the_readme_has_every_exit_code() {
    let stages = super::stages(&read("src/error.rs"));
    let readme = read("README.md");
    let (_, table) = readme.split_once("\n## Exit codes\n").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let codes: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()).collect();
    let want = [0, 2].into_iter().chain(stages.iter().map(|(_, _, code)| *code)).chain([imprint::fault::EXIT_CODE]);
    let want: Vec<String> = want.map(|code| code.to_string()).collect();
    assert_eq!(codes[1..], want);
    for (_, stage, code) in stages {
        assert!(table.contains(&format!("| {code} | {stage}")), "{stage}");
    }
}

/// What the programs read from their environment: on a page each, and nothing else is.
#[test]
fn environment_variables_are_those_of_the_programs() {
    let mut read_by = BTreeSet::new();
    for (name, text) in sources()
        .into_iter()
        .filter(|(name, _)| !["trial.rs", "crash.rs", "tests.rs"].iter().any(|test| name.ends_with(test)))
    {
        // Tests stand at the end of a file.
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
        for mark in ["env::var_os(\"", "env::var(\"", "env = \""] {
            let named = text.split(mark).skip(1).filter_map(|rest| rest.split('"').next());
            for variable in named.filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')) {
                read_by.insert((name.split('/').next().unwrap().to_owned(), variable.to_owned()));
            }
        }
    }
    assert!(read_by.contains(&("host".to_owned(), "IMPRINT_DIR".to_owned())), "{read_by:?}");
    let section = |page: &str| {
        let text = read(page);
        let (_, rest) = text.split_once("\n.Sh ENVIRONMENT\n").unwrap();
        rest.split("\n.Sh ").next().unwrap().to_owned()
    };
    let (agent, host) = (section("man/imprint.8"), section("man/imprint-host.1"));
    for (program, variable) in &read_by {
        let page = if program == "src" { &agent } else { &host };
        assert!(page.contains(&format!(".It Ev {variable}")), "{program}: {variable}");
    }
    let described = [&agent, &host].map(|page| page.matches("\n.It Ev ").count());
    assert_eq!(described.iter().sum::<usize>(), read_by.len(), "{agent}\n{host}");
    // The dracut module's own.
    let module = read("dracut/50imprint/module-setup.sh");
    let images = read("docs/images.md");
    let ends = |c: char| !c.is_ascii_uppercase() && c != '_';
    let names = module.split("${IMPRINT_").skip(1).map(|rest| rest.split(ends).next().unwrap());
    for name in names {
        assert!(images.contains(&format!("`IMPRINT_{name}`")), "docs/images.md: IMPRINT_{name}");
    }
}

/// What a person looks up is what the program says: each message in the first column stands in the sources.
#[test]
fn symptoms_are_words_of_the_program() {
    let page = read("docs/troubleshooting.md");
    // Texts that are broken over lines are one text.
    let said: String = sources()
        .into_iter()
        .map(|(_, text)| {
            let mut joined = String::new();
            for line in text.lines() {
                match joined.strip_suffix('\\') {
                    Some(before) => joined = before.to_owned() + line.trim_start(),
                    None => joined = joined + "\n" + line,
                }
            }
            joined
        })
        .collect();
    let said = said + &read("docs/errors.md");
    let (mut count, mut missing) = (0, Vec::new());
    for line in page.lines().filter_map(|line| line.strip_prefix("| ")) {
        let symptom = line.split(" | ").next().unwrap();
        for span in spans(symptom) {
            if span.starts_with("imprint ")
                || span.starts_with("imprint-host ")
                || span.starts_with('/')
                || span.contains(".md")
            {
                continue;
            }
            for part in span.split('…').map(str::trim).filter(|part| part.len() > 3) {
                let part = part.trim_start_matches("imprint-host: ").replace(" on ttyS0", "");
                count += 1;
                if !said.contains(&part) {
                    missing.push(part);
                }
            }
        }
    }
    assert!(missing.is_empty(), "docs/troubleshooting.md: the program does not say: {missing:#?}");
    assert!(count > 15, "{count}");
}

/// Every key that a record may have stands on its page, and every key on the page is one.
#[test]
fn keys_of_a_record_are_on_its_page() {
    let page = read("docs/node-toml.md");
    let mut keys = BTreeSet::new();
    for file in [
        "host/src/record.rs",
        "host/src/record/admission.rs",
        "host/src/record/bundle.rs",
        "host/src/record/network.rs",
    ] {
        for mark in ["take(\"", "need(\"", "list(\"", "flag(\""] {
            keys.extend(read(file).split(mark).skip(1).filter_map(|rest| rest.split('"').next().map(str::to_owned)));
        }
    }
    assert!(keys.len() > 30, "{keys:?}");
    let words = |text: &str| -> BTreeSet<String> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(ToOwned::to_owned).collect()
    };
    let all: BTreeSet<String> = spans(&page.replace("```", "")).flat_map(words).collect();
    let missing: Vec<&String> = keys.iter().filter(|key| !all.contains(*key)).collect();
    assert!(missing.is_empty(), "docs/node-toml.md lacks {missing:?}");
    for line in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (cell, _) = line.split_once(" | ").unwrap();
        for span in spans(&format!("`{cell}")) {
            let key = span.split(' ').next().unwrap();
            assert!(keys.contains(key), "docs/node-toml.md has {key}");
        }
    }
}

/// What a monitor is configured with: each counter that the server registers is on the page, and no other.
#[test]
fn metrics_are_those_of_the_server() {
    let page = read("docs/host.md");
    let on_page: BTreeSet<&str> = page
        .split("imprint_host_")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap())
        .collect();
    let source = read("host/src/serve/metrics.rs");
    let calls =
        source.split(".register").skip(1).filter_map(|rest| rest.split_once('(')).map(|(_, rest)| rest.trim_start());
    let registered: Vec<&str> = calls.filter_map(|rest| rest.strip_prefix('"')?.split('"').next()).collect();
    assert!(registered.len() >= 10, "{registered:?}");
    for name in &registered {
        // The format adds the unit, `_total`, and `process_`.
        let is_there = on_page.iter().any(|known| known.trim_start_matches("process_").starts_with(name));
        assert!(is_there, "docs/host.md lacks {name}: {on_page:?}");
    }
    assert_eq!(on_page.len(), registered.len(), "{on_page:?}\n{registered:?}");
}
