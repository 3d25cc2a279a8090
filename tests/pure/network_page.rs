//! Compares the table of cases in docs/network.md with the tests: each test that it names is there.

use std::path::Path;

/// The least number of cases.
const CASES: usize = 30;

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
