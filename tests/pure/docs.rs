//! Compares generated pages with the tables in the program that they are made from. `make docs` writes the pages; these
//! tests never do.

mod boots;
mod media;

use std::path::{Path, PathBuf};

use imprint::options::{WORDS, Word};
use imprint::setting::{SETTINGS, Setting};

pub(super) fn page(name: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

/// The page with `content` between two marks, each a line of its own.
pub(super) fn filled(text: &str, begin: &str, end: &str, content: &str) -> String {
    let (before, rest) = text.split_once(&format!("{begin}\n")).unwrap_or_else(|| panic!("no line {begin}"));
    let (_, after) = rest.split_once(&format!("{end}\n")).unwrap_or_else(|| panic!("no line {end} behind {begin}"));
    format!("{before}{begin}\n{content}{end}\n{after}")
}

/// Compares, or writes when `make docs` says so.
#[track_caller]
pub(super) fn is_current((path, text): (PathBuf, String), want: &str) {
    if std::env::var_os("IMPRINT_WRITE_DOCS").is_some() {
        std::fs::write(path, want).unwrap();
    } else {
        assert!(text == want, "{} is not made from the table in the program: run make docs\n{want}", path.display());
    }
}

fn supported() -> impl Iterator<Item = &'static Word> {
    WORDS.iter().filter(|word| word.supported)
}

/// A sentence of the table as mdoc wants it: a capital at its beginning, a full stop, each sentence on a line.
fn sentence(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    format!("{}{}.\n", first.to_uppercase(), rest.replace(". ", ".\n"))
}

#[test]
fn the_command_line_manual_is_the_programs_table() {
    let list = |words: Vec<&Word>, entry: fn(&Word) -> String| {
        let entries: String = words.into_iter().map(|word| format!(".It Cm {}\n{}", word.name, entry(word))).collect();
        format!(".Bl -tag -width Ds\n{entries}.El\n")
    };
    let known = list(supported().collect(), |word| {
        let takes = format!("Takes {}.\nDefault: {}.\n", word.values, word.default);
        format!("{}{takes}", sentence(word.meaning))
    });
    let page = page("man/imprint.cmdline.7");
    let text = filled(&page.1, ".\\\" words", ".\\\" end", &known);
    is_current(page, &text);
}

/// What stands behind `.It`, between the heading `.S? NAME` and the next one.
fn items(page: &str, heading: &str) -> Vec<String> {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    let lines = rest.lines().take_while(|line| !line.starts_with(".S"));
    lines.filter_map(|line| line.strip_prefix(".It ").map(ToOwned::to_owned)).collect()
}

/// Subcommands and their options as the program itself lists them, exit codes as src/error.rs has them; both ways.
#[test]
fn the_manual_names_every_subcommand_and_exit_code() {
    let (_, page) = page("man/imprint.8");
    let (_, help, _) = super::super::agent(&["--help"]);
    let (_, list) = help.split_once("\nCommands:\n").unwrap();
    let word = |line: &str| {
        line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next().map(str::to_owned)
    };
    let mut commands: Vec<String> = list.lines().filter_map(word).collect();
    let described = items(&page, ".Sh DESCRIPTION");
    let mut described: Vec<String> = described.iter().map(|item| item.split(' ').nth(1).unwrap().to_owned()).collect();
    let (_, synopsis) = page.split_once(".Sh SYNOPSIS\n").unwrap();
    let (synopsis, _) = synopsis.split_once(".Sh").unwrap();
    let lines = synopsis.lines().filter_map(|line| line.strip_prefix(".Cm "));
    let mut synopsis: Vec<String> = lines.map(ToOwned::to_owned).collect();
    for list in [&mut commands, &mut described, &mut synopsis] {
        list.sort();
    }
    assert!(commands.len() >= 6, "{help}");
    assert_eq!(described, commands);
    assert_eq!(synopsis, commands);
    let mut options = 0;
    for command in &commands {
        let (_, help, _) = super::super::agent(&[command, "--help"]);
        for option in help.lines().filter_map(|line| line.strip_prefix("  --")) {
            let name = option.split([' ', ',']).next().unwrap();
            assert!(name == "help" || page.contains(&format!("Fl Fl {name}")), "{command} --{name}");
            options += 1;
        }
    }
    assert!(options >= 2 * commands.len(), "{options}");

    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/error.rs")).unwrap();
    let stages = super::stages(&source);
    let codes = [0, 2].into_iter().chain(stages.iter().map(|(_, _, code)| *code)).chain([imprint::fault::EXIT_CODE]);
    let codes = codes.map(|code| code.to_string());
    assert_eq!(items(&page, ".Sh EXIT STATUS"), codes.collect::<Vec<_>>());
    for (_, stage, code) in &stages {
        assert!(page.contains(&format!("\n.It {code}\n{stage}: ")), "{stage}");
    }
}

/// Every map of the CDDL with its keys, both ways; what is mandatory is marked.
#[test]
fn the_payload_manual_has_every_item_of_the_format() {
    let (_, cddl) = page("docs/payload.cddl");
    let (_, manual) = page("man/imprint-payload.5");
    let mut maps = 0;
    for (name, rest) in cddl.match_indices(" = {\n").map(|(at, mark)| {
        let before = &cddl[..at];
        (before.rsplit('\n').next().unwrap(), &cddl[at + mark.len()..])
    }) {
        let (body, _) = rest.split_once("\n}").unwrap();
        let key = |line: &str| {
            let line = line.split(';').next().unwrap().trim();
            let (key, _) = line.split_once(" => ")?;
            let optional = key.strip_prefix("? ");
            Some((optional.unwrap_or(key).to_owned(), optional.is_none()))
        };
        let keys: Vec<(String, bool)> = body.lines().filter_map(key).collect();
        let marked = |item: String| {
            let mandatory = manual.split_once(&format!("\n.Ss {name}\n")).unwrap().1;
            let mandatory = mandatory.split_once(&format!(".It {item}\n")).unwrap().1.starts_with("* ");
            (item, mandatory)
        };
        let described: Vec<(String, bool)> = items(&manual, &format!(".Ss {name}")).into_iter().map(marked).collect();
        assert_eq!(described, keys, "{name}");
        maps += 1;
    }
    assert_eq!(maps, manual.matches("\n.Ss ").count());
}

#[test]
fn the_command_line_page_is_the_programs_table() {
    let mut table = "\n| word | takes | when it is not there | meaning |\n|---|---|---|---|\n".to_owned();
    for Word { name, values, default, meaning, .. } in supported() {
        table += &format!("| `{name}` | {values} | {default} | {meaning} |\n");
    }
    let page = page("docs/cmdline.md");
    let text = filled(&page.1, "<!-- words -->", "<!-- end -->", &(table + "\n"));
    is_current(page, &text);
}

/// What a row says of its values: how many, and where they may not stand.
fn how_many(row: &Setting) -> String {
    let many = if row.most > 1 { format!("up to {}", row.most) } else { "one".to_owned() };
    if row.cmdline { many } else { format!("{many}; not on the kernel command line") }
}

#[test]
fn the_settings_on_the_page_are_the_programs_table() {
    let mut table = "\n| key | takes | how many | meaning | makes |\n|---|---|---|---|---|\n".to_owned();
    for row in &SETTINGS {
        let files: Vec<String> = row.files.iter().map(|file| format!("`{file}`")).collect();
        let (word, takes, meaning) = (row.word, row.takes, row.meaning);
        table += &format!("| `{word}` | {takes} | {} | {meaning} | {} |\n", how_many(row), files.join(", "));
    }
    let page = page("docs/bundle.md");
    let text = filled(&page.1, "<!-- settings -->", "<!-- end of settings -->", &(table + "\n"));
    is_current(page, &text);
}

#[test]
fn the_settings_in_the_manual_are_the_programs_table() {
    let mut list = ".Bl -tag -width Ds\n".to_owned();
    for row in SETTINGS.iter().filter(|row| row.cmdline) {
        list += &format!(
            ".It Cm imprint.set.{}=\n{}Takes {}; {}.\n",
            row.word,
            sentence(row.meaning),
            row.takes,
            how_many(row)
        );
    }
    let page = page("man/imprint.cmdline.7");
    let text = filled(&page.1, ".\\\" settings", ".\\\" end of settings", &(list + ".El\n"));
    is_current(page, &text);
}

/// What `make bench-readme` has written into a page.
fn measured(name: &str) -> (PathBuf, String) {
    let (path, text) = page(name);
    let (_, rest) = text.split_once("<!-- written by make bench-readme -->\n").expect("the first mark");
    let (table, _) = rest.split_once("<!-- end of what make bench-readme writes -->\n").expect("the second mark");
    (path, table.to_owned())
}

fn commit(table: &str) -> &str {
    let commit = table.split("Measured on commit `").nth(1).and_then(|rest| rest.split('`').next());
    commit.expect("the commit: run make bench, then make bench-readme")
}

fn rows(table: &str) -> Vec<&str> {
    table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what")).collect()
}

/// Figures that were copied by hand drift. The table is written from what a bench measured, with the commit that it was
/// measured on, and that commit can be looked at.
#[test]
fn the_measured_figures_are_those_of_a_commit_that_exists() {
    let (path, table) = measured("docs/benchmarks.md");
    let commit = commit(&table);
    assert!(commit.len() >= 7 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{commit}");
    let git = std::process::Command::new("git")
        .arg("-C")
        .arg(path.parent().unwrap())
        .args(["merge-base", "--is-ancestor", commit, "HEAD"])
        .output()
        .expect("git");
    let said = String::from_utf8_lossy(&git.stderr);
    assert!(git.status.success(), "{commit} is no commit before this one (a shallow clone has no history): {said}");
    assert!(rows(&table).len() > 20, "a whole bench has more rows:\n{table}");
}

/// README has six of the rows, of the same bench.
#[test]
fn the_readme_has_a_summary_of_what_was_measured() {
    let (_, table) = measured("docs/benchmarks.md");
    let (_, summary) = measured("README.md");
    assert_eq!(commit(&summary), commit(&table));
    let rows = rows(&summary);
    assert_eq!(rows.len(), 6, "{summary}");
    for row in rows {
        assert!(table.contains(&format!("{row}\n")), "{row}");
    }
}
