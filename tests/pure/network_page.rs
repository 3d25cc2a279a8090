//! Compares the table of cases in docs/network.md with the tests: each test that it names is there.

use std::path::Path;

/// The least number of cases.
const CASES: usize = 40;

fn read(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn each_case_of_a_network_names_tests_that_are_there() {
    let page = read("docs/network.md");
    let (_, section) = page.split_once("\n## What is tried, and where\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() >= CASES, "{} cases", rows.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [case, tests] = cells.as_slice() else { panic!("a case and its tests: {row}") };
        assert!(!case.is_empty(), "{row}");
        for test in tests.split(", ") {
            let words: Vec<&str> = test.split('`').collect();
            let ["", name, " in ", file, ""] = words.as_slice() else { panic!("`TEST` in `FILE`: {test}") };
            let text = read(file);
            let (before, _) = text.split_once(&format!("fn {name}(")).unwrap_or_else(|| panic!("{file} has no {name}"));
            // Only attributes and remarks are between the mark of a test and its name.
            let mark = before.rfind("#[test]").map_or("}", |at| &before[at..]);
            assert!(!mark.contains('}') && !mark.contains("fn "), "{name} in {file} is no test");
        }
    }
}

/// Those of the guest are files, and each file there has its row.
#[test]
fn each_case_of_the_guest_has_its_row() {
    let page = read("docs/network.md");
    let (_, section) = page.split_once("\n## Cases with real peers\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut named: Vec<&str> = rows.map(|row| row.split('`').nth(1).unwrap()).collect();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/cases");
    let inside = |folder: &Path| -> Vec<std::path::PathBuf> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let folders = inside(&cases).into_iter().filter(|path| path.is_dir());
    let files = folders.flat_map(|folder| inside(&folder));
    let mut there: Vec<String> =
        files.map(|file| file.strip_prefix(&cases).unwrap().to_str().unwrap().to_owned()).collect();
    there.sort();
    named.sort_unstable();
    assert!(named.len() >= 20, "{named:?}");
    assert_eq!(named, there);
}
