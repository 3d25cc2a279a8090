//! Checks that a virtual machine boots from each medium at least once, in tests/vm.rs or a file below tests/vm. Boots
//! nothing.

use std::collections::BTreeSet;
use std::path::Path;

use imprint::medium::MEDIA;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The functions that assert, after a boot, that the payload came from the medium that they are given.
const ASSERTIONS: [&str; 2] = ["came_from", "came_up_from"];

/// What one function of a test names.
#[derive(Default)]
struct Names {
    media: BTreeSet<String>,
    asserts: bool,
}

/// The media for which a boot asserts that the payload came from there. A medium that is named for anything else is an
/// error, because this count would be wrong.
fn booted_from(source: &str) -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    for (function, body) in functions(source.parse().map_err(|error| format!("{error}"))?) {
        let mut names = Names::default();
        read(body, &mut names);
        // A type of the host tool has this name, too.
        names.media.retain(|name| MEDIA.iter().any(|row| format!("{:?}", row.medium) == *name));
        match (names.media.is_empty(), names.asserts) {
            (false, false) => return Err(format!("{function} names {:?}, and never asserts it", names.media)),
            (false, true) => found.extend(names.media),
            (true, _) => {}
        }
    }
    Ok(found)
}

/// Name and body of each function that is not inside another one.
fn functions(tokens: TokenStream) -> Vec<(String, TokenStream)> {
    let mut found = Vec::new();
    let mut name = None;
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(word) if word == "fn" => name = tokens.next().map(|name| name.to_string()),
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => match name.take() {
                Some(name) => found.push((name, group.stream())),
                // The body of a module or of an implementation.
                None => found.extend(functions(group.stream())),
            },
            _ => {}
        }
    }
    found
}

fn read(tokens: TokenStream, names: &mut Names) {
    let mut last = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                read(group.stream(), names);
                last.clear();
            }
            other => {
                let word = other.to_string();
                names.asserts |= ASSERTIONS.contains(&word.as_str());
                if last.ends_with(&["Medium".to_owned(), ":".to_owned(), ":".to_owned()]) {
                    names.media.insert(word.clone());
                }
                last.push(word);
            }
        }
    }
}

/// The accident: a medium is added with tests of fake folders only, and real firmware has the payload somewhere else.
#[test]
fn a_virtual_machine_boots_from_every_medium() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::fs::read_dir(tests.join("vm")).unwrap().map(|entry| entry.unwrap().path());
    let sources = folder.filter(|path| path.extension().is_some_and(|end| end == "rs")).chain([tests.join("vm.rs")]);
    let mut booted = BTreeSet::new();
    for path in sources {
        let found = booted_from(&std::fs::read_to_string(&path).unwrap());
        booted.extend(found.unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    }
    let without = without_boot(&media(), &booted);
    assert!(
        without.is_empty(),
        "no test in tests/vm boots from {without:?} and asserts that with came_from or came_up_from"
    );
}

/// The medium of each row of the table.
fn media() -> Vec<String> {
    MEDIA.iter().map(|row| format!("{:?}", row.medium)).collect()
}

/// The rows that no boot stands for. A boot stands for one row: a second row of the same medium has none.
fn without_boot(media: &[String], booted: &BTreeSet<String>) -> Vec<String> {
    let mut counted = BTreeSet::new();
    media.iter().filter(|medium| !counted.insert(*medium) || !booted.contains(*medium)).cloned().collect()
}

/// The accident: a seventeenth row, of a medium of its own or of one that has a row already.
#[test]
fn a_further_row_without_a_boot_is_named() {
    let booted = media().into_iter().collect();
    assert_eq!(without_boot(&media(), &booted), Vec::<String>::new());
    for further in ["Seventeenth", "Smbios"] {
        let rows = [media(), vec![further.to_owned()]].concat();
        assert_eq!(without_boot(&rows, &booted), [further]);
    }
}

#[test]
fn a_medium_counts_where_a_boot_is_asserted() {
    let boot = "mod vm { impl Site { #[test] fn one() { let x = (machine, Medium::Smbios); came_up_from(&report, x.1, \"\"); } } }";
    assert_eq!(booted_from(boot).unwrap(), BTreeSet::from(["Smbios".to_owned()]));
    assert!(
        booted_from("fn one() { came_up_from(&report, medium, \"Medium::Smbios\"); } // Medium::Smbios")
            .unwrap()
            .is_empty()
    );
    assert!(booted_from("fn one() { let options = Medium::Text; }").unwrap().is_empty());
    // A medium that is named without an assertion must not count.
    let claim = booted_from("fn one() { let boots_from = Medium::Smbios; }").unwrap_err();
    assert_eq!(claim, "one names {\"Smbios\"}, and never asserts it");
}
