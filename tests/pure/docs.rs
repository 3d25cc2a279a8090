//! Pages that are made from tables in the program. `make docs` writes them anew; this compares.

use std::path::{Path, PathBuf};

use imprint::options::{WORDS, Word};

fn page(name: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

/// The page with `content` between two marks, each a line of its own.
fn filled(text: &str, begin: &str, end: &str, content: &str) -> String {
    let (before, rest) = text.split_once(&format!("{begin}\n")).unwrap_or_else(|| panic!("no line {begin}"));
    let (_, after) = rest.split_once(&format!("{end}\n")).unwrap_or_else(|| panic!("no line {end} behind {begin}"));
    format!("{before}{begin}\n{content}{end}\n{after}")
}

/// Compares, or writes when `make docs` says so.
#[track_caller]
fn is_current((path, text): (PathBuf, String), want: &str) {
    if std::env::var_os("IMPRINT_WRITE_DOCS").is_some() {
        std::fs::write(path, want).unwrap();
    } else {
        assert!(text == want, "{} is not made from the table in the program: run make docs\n{want}", path.display());
    }
}

fn supported() -> impl Iterator<Item = &'static Word> {
    WORDS.iter().filter(|word| word.supported)
}

#[test]
fn the_command_line_page_is_the_programs_table() {
    let mut table = "\n| word | takes | when it is not there | meaning |\n|---|---|---|---|\n".to_owned();
    for Word { name, values, default, meaning, .. } in supported() {
        table += &format!("| `{name}` | {values} | {default} | {meaning} |\n");
    }
    let not_yet = WORDS.iter().filter(|word| !word.supported);
    let not_yet: Vec<_> = not_yet.map(|word| format!("`{}` ({})", word.name, word.meaning)).collect();
    let page = page("docs/cmdline.md");
    let text = filled(&page.1, "<!-- words -->", "<!-- end -->", &(table + "\n"));
    let text = filled(&text, "<!-- not yet -->", "<!-- end -->", &format!("\n{}\n\n", not_yet.join(", ")));
    is_current(page, &text);
}
