//! The table of builders and media in docs/images.md, made from the names of the tests that boot them: `boots_BUILDER_MEDIUM`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
    Builder { word: "arm64", title: "bare image, aarch64", wanted: &["config_drive", "serial"] },
    Builder { word: "pxe_bios_systemd", title: "dracut, with systemd, by iPXE and BIOS", wanted: &["cpio"] },
    Builder { word: "pxe_uefi_bare", title: "bare image, by iPXE and UEFI", wanted: &["cpio"] },
];

/// What a file or module of tests has: names of the tests that boot something, and the modules with files of their own, by their paths.
#[derive(Default, PartialEq, Eq, Debug)]
struct Found {
    boots: Vec<String>,
    files: Vec<String>,
}

impl Found {
    /// `below`: the path of the module. A test or module that another attribute may leave out proves nothing, and panics here.
    fn read(&mut self, items: &[syn::Item], below: &str) {
        for item in items {
            match item {
                syn::Item::Fn(item) if item.sig.ident.to_string().starts_with("boots_") => {
                    let name = item.sig.ident.to_string();
                    assert_eq!(attributes(&item.attrs), ["test"], "{name}: it need not run");
                    self.boots.push(name);
                }
                syn::Item::Mod(item) => {
                    let path = format!("{below}{}", item.ident);
                    assert_eq!(attributes(&item.attrs), [""; 0], "{path}: it need not be there");
                    match &item.content {
                        Some((_, items)) => self.read(items, &format!("{path}/")),
                        None => self.files.push(format!("{path}.rs")),
                    }
                }
                _ => {}
            }
        }
    }
}

/// Names of all attributes but comments.
fn attributes(all: &[syn::Attribute]) -> Vec<String> {
    let paths = all.iter().filter_map(|one| one.path().segments.last()).map(|segment| segment.ident.to_string());
    paths.filter(|name| name != "doc").collect()
}

/// Names of the tests that boot something: those of tests/vm.rs and of the files that it names.
fn tests(folder: &Path) -> Vec<String> {
    let (mut found, mut read) = (Found::default(), BTreeSet::new());
    found.files.push("vm.rs".to_owned());
    while let Some(file) = found.files.pop() {
        let source = std::fs::read_to_string(folder.join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        // The modules of a program's own file lie beside it.
        let below = if file == "vm.rs" { String::new() } else { file.replace(".rs", "/") };
        found.read(&syn::parse_file(&source).unwrap().items, &below);
        read.insert(folder.join(file));
    }
    built(&folder.join("vm"), &read);
    found.boots
}

/// Asserts that no other file is there.
fn built(folder: &Path, read: &BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            built(&path, read);
        } else if path.extension().is_some_and(|end| end == "rs") {
            assert!(read.contains(&path), "tests/vm.rs does not lead to {}: it is never built", path.display());
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
    let names = tests(Path::new(env!("CARGO_MANIFEST_DIR")));
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
    assert_eq!(cell("boots_pxe_uefi_bare_cpio"), Some(("pxe_uefi_bare", "cpio")));
    for wrong in
        ["boots_systemd", "boots_systemd_", "boots_systemd_cpio_twice", "boots_sysv_cpio", "boots_cpio_systemd"]
    {
        assert_eq!(cell(wrong), None, "{wrong}");
    }
}

/// The accident: a test that is ignored, or that no machine builds, and a cell that says yes.
#[test]
fn tests_that_need_not_run_do_not_count() {
    let read = |source: &str| {
        let mut found = Found::default();
        found.read(&syn::parse_file(source).unwrap().items, "");
        found
    };
    let found = read(
        "mod vm { mod a; #[test] fn boots_bare_cpio() {} } /// Words.\n#[test] fn boots_bare_serial() {} fn other() {}",
    );
    let [boots, files] = [vec!["boots_bare_cpio", "boots_bare_serial"], vec!["vm/a.rs"]];
    assert_eq!(
        (found.boots, found.files),
        (boots.into_iter().map(Into::into).collect(), files.into_iter().map(Into::into).collect())
    );
    for wrong in [
        "fn boots_bare_cpio() {}",
        r#"#[test] #[ignore = "it takes long"] fn boots_bare_cpio() {}"#,
        "#[cfg(any())] #[test] fn boots_bare_cpio() {}",
        "#[cfg(any())] mod vm { mod a; }",
        "mod vm { #[cfg(any())] mod a; }",
    ] {
        assert!(std::panic::catch_unwind(|| read(wrong)).is_err(), "{wrong}");
    }
}
