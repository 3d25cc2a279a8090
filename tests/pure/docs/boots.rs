//! The table of builders and media in docs/images.md, made from the names of the tests that boot them: `boots_BUILDER_MEDIUM`.

use std::collections::BTreeSet;
use std::path::Path;

use super::{filled, is_current, page};

/// A builder of an image, or a way to start one: its word in the names of tests, what the page calls it, and the media for which
/// there has to be a test.
struct Builder {
    word: &'static str,
    title: &'static str,
    wanted: &'static [&'static str],
}

const MEDIA: [(&str, &str); 4] = [
    ("config_drive", "config drive"),
    ("cmdline", "kernel command line"),
    ("cpio", "appended archive"),
    ("serial", "serial line"),
];
const ALL: [&str; 4] = ["config_drive", "cmdline", "cpio", "serial"];

/// A cell that is wanted and has no test fails, so none is dropped silently.
const BUILDERS: [Builder; 7] = [
    Builder { word: "systemd", title: "dracut, with systemd", wanted: &ALL },
    Builder { word: "plain", title: "dracut, without systemd", wanted: &ALL },
    Builder { word: "initramfs_tools", title: "initramfs-tools", wanted: &ALL },
    Builder { word: "bare", title: "bare image", wanted: &ALL },
    Builder { word: "arm64", title: "aarch64, an image made by hand", wanted: &["config_drive", "serial"] },
    Builder { word: "pxe_bios", title: "iPXE, BIOS", wanted: &["cpio"] },
    Builder { word: "pxe_uefi", title: "iPXE, UEFI", wanted: &["cpio"] },
];

/// Names of the tests in a file that boot something.
fn named(source: &str) -> Vec<String> {
    let file = syn::parse_file(source).unwrap();
    let mut names = Vec::new();
    for item in file.items {
        let syn::Item::Fn(item) = item else { continue };
        let name = item.sig.ident.to_string();
        if item.attrs.iter().any(|attribute| attribute.path().is_ident("test")) && name.starts_with("boots_") {
            names.push(name);
        }
    }
    names
}

/// Names of all such tests.
fn tests(folder: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.extend(named(&std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The cell of a test: builder and medium, both as words.
fn cell(name: &str) -> Option<(&'static str, &'static str)> {
    let rest = name.strip_prefix("boots_")?;
    let fits = |builder: &&Builder| rest.strip_prefix(builder.word).is_some_and(|medium| medium.starts_with('_'));
    let builder = BUILDERS.iter().find(fits)?.word;
    let medium = rest.strip_prefix(builder)?.strip_prefix('_')?;
    MEDIA.iter().find(|(word, _)| *word == medium).map(|(word, _)| (builder, *word))
}

fn table(cells: &BTreeSet<(&str, &str)>) -> String {
    let titles: String = MEDIA.iter().map(|(_, title)| format!(" {title} |")).collect();
    let mut table = format!("\n| |{titles}\n|---|{}\n", "---|".repeat(MEDIA.len()));
    for Builder { word, title, .. } in BUILDERS {
        if cells.iter().any(|(builder, _)| *builder == word) {
            let marks = MEDIA.iter().map(|(medium, _)| if cells.contains(&(word, medium)) { " yes |" } else { " – |" });
            table += &format!("| {title} |{}\n", marks.collect::<String>());
        }
    }
    table + "\n"
}

#[test]
fn the_boots_on_the_page_are_those_of_the_tests() {
    let mut names = Vec::new();
    tests(Path::new(env!("CARGO_MANIFEST_DIR")), &mut names);
    let cell = |name: &String| cell(name).unwrap_or_else(|| panic!("{name}: no such builder, or no such medium"));
    let cells: BTreeSet<_> = names.iter().map(cell).collect();
    for Builder { word, wanted, .. } in BUILDERS {
        let missing: Vec<_> = wanted.iter().filter(|medium| !cells.contains(&(word, **medium))).collect();
        assert!(missing.is_empty(), "no test boots_{word}_…: {missing:?}");
    }
    let page = page("docs/images.md");
    let text = filled(&page.1, "<!-- boots -->", "<!-- end of boots -->", &table(&cells));
    is_current(page, &text);
}

/// A name that is nearly one would leave its cell empty.
#[test]
fn names_of_boots_are_read() {
    assert_eq!(cell("boots_initramfs_tools_config_drive"), Some(("initramfs_tools", "config_drive")));
    assert_eq!(cell("boots_pxe_uefi_cpio"), Some(("pxe_uefi", "cpio")));
    for wrong in
        ["boots_systemd", "boots_systemd_", "boots_systemd_cpio_twice", "boots_sysv_cpio", "boots_cpio_systemd"]
    {
        assert_eq!(cell(wrong), None, "{wrong}");
    }
    let source = "#[test]\nfn boots_bare_cpio() {}\nfn boots_bare_serial() {}\n#[test]\nfn other() {}";
    assert_eq!(named(source), ["boots_bare_cpio"]);
}
