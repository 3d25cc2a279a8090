//! Checks in the sources that only a few known places write to people, and that those make text from outside printable. A
//! new place fails the test.

use std::path::{Path, PathBuf};

/// What may write to standard output and standard error, and why it needs no look.
const WRITERS: [(&str, &str); 8] = [
    ("src/console.rs", "makes everything printable"),
    ("src/init/names.rs", "bytes for process 1, which started it"),
    ("src/init/worker.rs", "bytes for the process that has drivers loaded, which started it"),
    ("src/source/reader.rs", "bytes for the agent, which started it"),
    ("host/src/cli/say.rs", "makes everything printable"),
    ("host/src/cli.rs", "the log of serve, which makes each field printable"),
    ("host/src/main.rs", "one line, made printable"),
    ("host/src/inject.rs", "one line for each event, made printable"),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is = |name: &str| path.file_name().is_some_and(|n| n == name);
        if path.is_dir() && !is("tests") {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") && !is("tests.rs") {
            found.push(path);
        }
    }
}

/// Whether this source writes to a person: it takes standard output or standard error for anything but the question what they
/// are.
fn writes(text: &str) -> bool {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let taken = ["stdout", "stderr"].iter().flat_map(|stream| {
        let (call, name) = (format!("io::{stream}()"), format!("io::{stream})"));
        let calls = code.match_indices(&call).map(|(at, found)| code[at + found.len()..].to_owned());
        // `with_writer(io::stderr)`
        let names = code.match_indices(&name).map(|_| String::new());
        calls.chain(names).collect::<Vec<_>>()
    });
    let asks = |rest: &String| rest.starts_with(".is_terminal()");
    taken.filter(|rest| !asks(rest)).count() != 0
}

#[test]
fn the_reader_of_sources_sees_what_it_should() {
    for text in [
        "fn a() { let _ = writeln!(io::stderr(), \"{subject}\"); }",
        "fn a() { std::io::stdout()\n    .lock().write_all(b\"\"); }",
        "fn a() { log.with_writer(io::stderr).init(); }",
    ] {
        assert!(writes(text), "{text}");
    }
    for text in ["fn a() { io::stderr().is_terminal() }", "#[cfg(test)] mod tests { fn a() { io::stdout().lock(); } }"]
    {
        assert!(!writes(text), "{text}");
    }
}

#[test]
fn people_are_written_to_in_few_places() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["src", "host/src"] {
        sources(&root.join(folder), &mut files);
    }
    assert!(files.len() > 100, "only {} sources: is this the right folder?", files.len());
    let mut found: Vec<String> = Vec::new();
    for file in &files {
        if writes(&std::fs::read_to_string(file).unwrap()) {
            found.push(file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
        }
    }
    found.sort();
    let mut known: Vec<&str> = WRITERS.iter().map(|(file, _)| *file).collect();
    known.sort_unstable();
    assert_eq!(found, known, "say it through console (agent) or cli::say (host), which make it printable");
}
