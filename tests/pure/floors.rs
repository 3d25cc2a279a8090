//! Checks the layers of both crates: a module uses only modules that are listed below it in `lib.rs`, no two modules below
//! one file use each other, and no file is too long. A file and the modules below it count as one module.

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use imports::{Crate, Module, on_disk, read};

/// So many lines a file has at most, its tests not counted.
const LINES: usize = 500;

fn crates() -> [PathBuf; 2] {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    [root.join("src"), root.join("host/src")]
}

/// Arrows between floors that lead up: `plan → run: crate::run::boot`.
fn up(found: &Crate) -> Vec<String> {
    let floors = &found.children[&Module::new()];
    let floor = |module: &Module| module.first().and_then(|name| floors.iter().position(|floor| floor == name));
    let leads_up = |(from, to, _): &&(Module, Module, String)| match (floor(from), floor(to)) {
        // lib.rs holds all of them.
        (None, _) => false,
        // What is in lib.rs itself stands above all of them.
        (Some(_), None) => true,
        (Some(from), Some(to)) => to < from,
    };
    found.arrows.iter().filter(leads_up).map(shown).collect()
}

fn shown((from, to, words): &(Module, Module, String)) -> String {
    format!("{} → {}: {words}", from.join("::"), to.join("::"))
}

/// Circles: modules below one file, or below lib.rs, that need each other. Each with the arrows that it is made of.
fn circles(found: &Crate) -> Vec<String> {
    let mut circles = Vec::new();
    for parent in found.children.keys() {
        let below = |module: &Module| module.strip_prefix(parent.as_slice()).and_then(<[String]>::first).cloned();
        let mut needs: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for arrow in &found.arrows {
            if let (Some(from), Some(to)) = (below(&arrow.0), below(&arrow.1))
                && from != to
            {
                needs.entry(from).or_default().insert(to, shown(arrow));
            }
        }
        // Whoever needs nobody, or is needed by nobody, is in no circle; nor is, then, whoever needs only such.
        loop {
            let before = needs.len();
            let left: BTreeSet<String> = needs.keys().cloned().collect();
            needs.values_mut().for_each(|others| others.retain(|name, _| left.contains(name)));
            let needed: BTreeSet<String> = needs.values().flat_map(BTreeMap::keys).cloned().collect();
            needs.retain(|name, others| !others.is_empty() && needed.contains(name));
            if needs.len() == before {
                break;
            }
        }
        circles.extend(needs.into_values().flat_map(BTreeMap::into_values));
    }
    circles
}

#[test]
fn no_module_names_one_above_it() {
    for folder in crates() {
        let found = read(&on_disk(&folder));
        assert!(found.arrows.len() > 100, "{}: something was read", folder.display());
        let up = up(&found);
        assert!(up.is_empty(), "lib.rs says which floor is above; move what both need below both:\n{}", up.join("\n"));
    }
}

#[test]
fn no_modules_need_each_other() {
    for folder in crates() {
        let circles = circles(&read(&on_disk(&folder)));
        assert!(circles.is_empty(), "move what both need into a module below both:\n{}", circles.join("\n"));
    }
}

#[test]
fn no_file_is_too_long() {
    let mut long = Vec::new();
    for folder in crates() {
        let found = read(&on_disk(&folder));
        let text = on_disk(&folder);
        for module in found.children.keys() {
            let lines = lines(&text(module));
            if lines > LINES {
                long.push(format!("{} {}: {lines}", folder.display(), module.join("::")));
            }
        }
    }
    assert!(
        long.is_empty(),
        "cut along a seam what has more than {LINES} lines without its tests:\n{}",
        long.join("\n")
    );
}

/// Lines of a file without its test modules, wherever those stand.
fn lines(text: &str) -> usize {
    let mut lines = text.lines().peekable();
    let mut count = 0;
    while let Some(line) = lines.next() {
        if line != "#[cfg(test)]" || !lines.peek().is_some_and(|next| next.starts_with("mod ")) {
            count += 1;
            continue;
        }
        // rustfmt puts the closing brace of a module of this file at the beginning of a line.
        if lines.next().is_some_and(|head| head.ends_with('{')) {
            lines.by_ref().find(|line| *line == "}");
        }
    }
    count
}

/// A crate of these files: (name of the module, its source).
fn planted(files: &[(&str, &str)]) -> Crate {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    read(&|module: &Module| files[module.join("::").as_str()].to_owned())
}

/// Somebody lets a lower module know a higher one, in every way in which Rust can say it.
#[test]
fn an_arrow_up_is_found_however_it_is_written() {
    for words in [
        "use crate::run::boot;",
        "use crate::{chain::chain, run::boot as start};",
        "use super::run::{self, boot};",
        "pub use super::run::*;",
        "fn f() { crate::run::boot() }",
        "fn f() -> String { format!(\"{}\", crate::run::boot()) }",
        "macro_rules! m { () => { $crate::run::boot() } }",
        "mod inner { fn f() { super::super::run::boot() } }",
        "fn f(x: Vec<<crate::run::Boot as Trait>::Out>) {}",
        "#[cfg(not(test))] use crate::run::boot;",
        "#[cfg_attr(test, allow(unused))] use crate::run::boot;",
        "#[derive(Debug)] struct S(crate::run::Boot);",
        "#[cfg(test)] mod tests { fn f() {} } use crate::run::boot;",
        "use self::super::run::boot;",
        "mod inner { fn f() { self::super::super::run::boot() } }",
        "macro_rules! m { () => { use $crate::run::boot; } }",
        "#[cfg(any(test, unix))] use crate::run::boot;",
        "#[cfg(any(unix, all(test, unix)))] use crate::run::boot;",
        "#[cfg(not(all(test, unix)))] use crate::run::boot;",
        "#[cfg(feature = \"test\")] use crate::run::boot;",
        "struct S { #[cfg(test)] a: u8, b: crate::run::Boot }",
        "struct S(#[cfg(test)] u8, crate::run::Boot);",
        "struct S { #[cfg(test)] a: Vec<u8>, b: crate::run::Boot }",
        "struct S { #[cfg(test)] pub(crate) a: fn() -> u8, b: crate::run::Boot }",
        "enum E { #[cfg(test)] A, B(crate::run::Boot) }",
        "enum E { #[cfg(test)] A { a: u8 }, B(crate::run::Boot) }",
        "fn f(#[cfg(test)] a: u8, b: crate::run::Boot) {}",
        "fn f() { match 1 { #[cfg(test)] 2 => 1, _ => crate::run::boot() } }",
        "fn f() { match 1 { #[cfg(test)] 2 => { 1 } _ => crate::run::boot() } }",
        "#[cfg(test)] #[path = \"x.rs\"] mod tests; use crate::run::boot;",
        "#[cfg(test)] use crate::{chain::a, chain::b}; use crate::run::boot;",
    ] {
        let found = planted(&[
            ("", "mod run; mod plan; mod chain;"),
            ("run", "use crate::plan::Plan;"),
            ("plan", words),
            ("chain", ""),
        ]);
        let up = up(&found);
        assert!(!up.is_empty() && up.iter().all(|arrow| arrow.starts_with("plan → run: ")), "{words}: {up:?}");
    }
    // From a module below, and to one below.
    let found = planted(&[
        ("", "pub mod run; mod plan;"),
        ("run", "mod door;"),
        ("run::door", "use super::super::plan::Plan;"),
        ("plan", "mod show;"),
        ("plan::show", "use super::super::run::door::Door;"),
    ]);
    assert_eq!(up(&found), ["plan::show → run::door: super::super::run::door::Door"]);
    // What stands in lib.rs is above everything.
    assert_eq!(up(&planted(&[("", "mod plan; pub fn f() {}"), ("plan", "use crate::f;")])), ["plan → : crate::f"]);
}

#[test]
fn what_is_no_arrow_up() {
    for words in [
        "//! As [`crate::run::boot`] says.\n// use crate::run::boot;\n/* crate::run::boot */",
        "const WORDS: &str = \"use crate::run::boot;\";",
        "#[cfg(test)] mod tests { use crate::run::boot; }",
        "#[cfg(test)] mod tests;",
        "#[cfg(all(test, unix))] use crate::run::boot;",
        "#[cfg(all(unix, any(test, test)))] use crate::run::boot;",
        "struct S { a: u8, #[cfg(test)] b: Vec<u8, crate::run::Boot>, c: u8 }",
        "#[cfg(test)] fn f<A, B>(a: A) where A: Sized, B: crate::run::Boot {}",
        "#[cfg(test)] use crate::{chain::a, run::boot};",
        "#[cfg(test)] const A: X = X { a: 1 }.and(crate::run::boot());",
        "pub(in crate::run) fn f() {}",
        "use std::run::boot;",
        "fn f<'a>() -> impl Sized + use<'a> { run::boot() }",
        "use crate::chain::chain;",
    ] {
        let found = planted(&[
            ("", "mod run; mod plan; mod chain;"),
            ("run", "use crate::plan::Plan;"),
            ("plan", words),
            ("chain", ""),
        ]);
        assert_eq!(up(&found), Vec::<String>::new(), "{words}");
    }
}

#[test]
fn a_circle_is_found_and_one_way_is_none() {
    let of = |a: &str, b: &str, c: &str| {
        let head = "mod a; mod b; mod c; pub use a::A;";
        circles(&planted(&[("", "mod x;"), ("x", head), ("x::a", a), ("x::b", b), ("x::c", c)]))
    };
    let (to_a, to_b, to_c) = ("use super::a::A;", "use crate::x::b::B;", "fn f() { super::c::C }");
    assert_eq!(of(to_b, to_a, ""), ["x::a → x::b: crate::x::b::B", "x::b → x::a: super::a::A"]);
    assert_eq!(of(to_b, to_c, to_a).len(), 3);
    // Who leads into a circle is not in it.
    let into = planted(&[
        ("", "mod a; mod b; mod c;"),
        ("a", "use crate::b::B;"),
        ("b", "use crate::c::C;"),
        ("c", "use crate::b::B;"),
    ]);
    assert_eq!(circles(&into), ["b → c: crate::c::C", "c → b: crate::b::B"]);
    // A file and the modules below it are one: a module below may need its head.
    for (a, b, c) in [(to_b, to_c, ""), (to_b, "", to_b), ("use super::X;", "", "")] {
        assert_eq!(of(a, b, c), Vec::<String>::new());
    }
    // Between floors.
    let found = planted(&[("", "mod a; mod b;"), ("a", "use crate::b::B;"), ("b", "use crate::a::A;")]);
    assert_eq!(circles(&found).len(), 2);
}

/// A macro builds a path from its argument, so that no text says where it leads.
#[test]
fn a_path_that_a_macro_completes_is_refused() {
    for words in [
        "macro_rules! m { ($a:ident) => { crate::$a::boot() } } m!(run);",
        "macro_rules! m { ($a:ident) => { $crate::$a::boot() } } m!(run);",
        "macro_rules! m { ($a:ident) => { use crate::$a::boot; } } m!(run);",
        "macro_rules! m { ($a:ident) => { super::$a::boot() } } m!(run);",
    ] {
        let files = [("", "mod run; mod plan;"), ("run", ""), ("plan", words)];
        assert!(std::panic::catch_unwind(|| planted(&files)).is_err(), "{words}");
    }
    // The name of something inside a known module may come from an argument.
    let words = "macro_rules! m { ($a:ident) => { chain::$a() } }";
    planted(&[("", "mod plan;"), ("plan", words)]);
}

#[test]
fn test_modules_are_not_counted_wherever_they_stand() {
    assert_eq!(lines("a\n\nb\n\n#[cfg(test)]\nmod tests {\n    c\n}\n"), 4);
    assert_eq!(lines("a\n#[cfg(test)]\nuse x;\nb\n"), 4);
    // Attack: code behind the test module.
    assert_eq!(lines("a\n#[cfg(test)]\nmod tests {\n    c\n}\nb\nb\n"), 3);
    assert_eq!(lines("a\n#[cfg(test)]\nmod tests;\nb\n"), 2);
}
