//! Compares docs/errors.md with the program's errors, both ways: names of variants, exit codes, and texts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

/// Enums that are errors and do not say so by their name.
const ALSO: [&str; 4] = ["Problem", "Failure", "Reason", "Oddity"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every source file of the agent but tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") && path.file_name().is_none_or(|n| n != "tests.rs") {
            found.push(path);
        }
    }
}

/// Each text in the tokens, with `…` for what is put in. A comment that documents an item is a text in an attribute
/// `doc`; the program never says it, so it does not count.
fn texts(tokens: TokenStream, found: &mut Vec<String>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_attribute = matches!(&token, TokenTree::Punct(mark) if mark.as_char() == '#');
        if is_attribute {
            // `#!` begins an attribute of the whole file.
            tokens.next_if(|next| matches!(next, TokenTree::Punct(mark) if mark.as_char() == '!'));
            tokens.next_if(is_doc);
            continue;
        }
        match token {
            TokenTree::Group(group) => texts(group.stream(), found),
            TokenTree::Literal(literal) => {
                let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) else { continue };
                let mut shown = String::new();
                let mut rest = text.value().replace("{{", "\u{1}").replace("}}", "\u{2}");
                while let Some((before, behind)) = rest.split_once('{') {
                    let behind = behind.split_once('}').map_or("", |(_, behind)| behind).to_owned();
                    shown += before;
                    shown += "…";
                    rest = behind;
                }
                found.push((shown + &rest).replace('\u{1}', "{").replace('\u{2}', "}"));
            }
            _ => {}
        }
    }
}

/// Whether this is the bracket of an attribute `doc`, as in `#[doc = "…"]`, which is what `/// …` becomes.
fn is_doc(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else { return false };
    let first = group.stream().into_iter().next();
    matches!(first, Some(TokenTree::Ident(name)) if name == "doc")
}

/// `Enum::Variant` of every error in the program, with the texts of the file that it is in.
fn in_the_program() -> BTreeMap<String, Vec<String>> {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut errors = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut words = Vec::new();
        texts(text.parse().unwrap(), &mut words);
        for item in syn::parse_file(&text).unwrap().items {
            let syn::Item::Enum(item) = item else { continue };
            let name = item.ident.to_string();
            if !name.ends_with("Error") && !ALSO.contains(&name.as_str()) {
                continue;
            }
            for variant in item.variants {
                let before = errors.insert(format!("{name}::{}", variant.ident), words.clone());
                assert!(before.is_none(), "two enums are called {name}; docs/errors.md could not tell them apart");
            }
        }
    }
    errors
}

/// A row of a table: heading that it stands under, cells.
fn rows(page: &str) -> Vec<(String, Vec<String>)> {
    let mut heading = String::new();
    let mut rows = Vec::new();
    for line in page.lines() {
        if let Some(text) = line.strip_prefix("## ") {
            heading = text.to_owned();
        } else if line.starts_with("| `") {
            let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
            rows.push((heading.clone(), cells.collect()));
        }
    }
    rows
}

fn spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Otherwise a message that is only in a comment would be on the page, although no console ever shows it.
#[test]
fn what_a_comment_says_is_no_text_of_the_program() {
    let source = "//! of the file\n#![doc = \"of the file, too\"]\n/// of the item\n#[doc = \"of the item, too\"]\n\
                  #[error(\"said {0}\")]\nstruct Said(/** of the field */ u8);\n\
                  fn f() { /// of a statement\nsay(\"more\"); }";
    let mut found = Vec::new();
    texts(source.parse().unwrap(), &mut found);
    assert_eq!(found, ["said …", "more"]);
}

#[test]
fn every_error_is_on_the_page_and_nothing_else() {
    let program = in_the_program();
    let page = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for (heading, cells) in rows(&page) {
        let name = cells[0].trim_matches('`').to_owned();
        let Some(texts) = program.get(&name) else {
            wrong.push(format!("{name}: on the page, not in the program"));
            continue;
        };
        for span in spans(&cells[1]) {
            if !texts.iter().any(|text| text.contains(span)) {
                wrong.push(format!("{name}: the program does not say `{span}`"));
            }
        }
        if !name.starts_with("Error::") && (cells.len() != 4 || !heading.contains(": exit code ")) {
            wrong.push(format!("{name}: want four cells, under a heading with an exit code"));
        }
        if !seen.insert(name.clone()) {
            wrong.push(format!("{name}: twice on the page"));
        }
    }
    wrong.extend(program.keys().filter(|name| !seen.contains(*name)).map(|name| format!("{name}: not on the page")));
    assert!(wrong.is_empty(), "docs/errors.md and src/ differ:\n{}", wrong.join("\n"));
    assert!(program.len() > 100, "only {} errors were found: is this the right folder?", program.len());
}

/// The stages with their exit codes: the table at the top, and a section for each.
#[test]
fn every_exit_code_has_its_section() {
    let source = std::fs::read_to_string(root().join("src/error.rs")).unwrap();
    let page = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let stages = super::stages(&source);
    for (variant, stage, code) in &stages {
        assert!(page.contains(&format!("\n| `Error::{variant}` | `{stage}` | {code} |\n")), "{variant}");
        assert!(page.contains(&format!("\n## {stage}: exit code {code}\n")), "{stage}");
    }
    assert_eq!(page.matches("\n## ").count(), stages.len());
}
