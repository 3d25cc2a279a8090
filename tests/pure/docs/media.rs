//! Makes the tables of media on the pages from the rows of `imprint::medium`. A page has the words of the rows, so that
//! it says what the program does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use imprint::medium::{EFI_VARIABLE, Looked, MEDIA, PARTITION_TYPE, Readers, Row, Word};
use imprint::options::{Options, SourceName, WORDS};

use super::{filled, is_current, page};

/// The words of `imprint.source=` that name media, each with its rows, in the order of the table.
fn words() -> Vec<(Word, Vec<&'static Row>)> {
    let mut words: Vec<(Word, Vec<&Row>)> = Vec::new();
    for row in &MEDIA {
        match words.iter_mut().find(|(word, _)| *word == row.word) {
            Some((_, rows)) => rows.push(row),
            None => words.push((row.word, vec![row])),
        }
    }
    words
}

/// When all media of a word are looked at. The search is by words, so that rows of one word cannot differ.
fn looked(word: Word, rows: &[&Row]) -> Looked {
    assert!(
        rows.iter().all(|row| row.looked == rows[0].looked),
        "{word:?}: its media are looked at together, or none is"
    );
    rows[0].looked
}

fn looked_words(looked: Looked) -> &'static str {
    match looked {
        Looked::Always => "always",
        Looked::Pinned => "with a site pin in the image, or when it is named",
        Looked::Named => "only when it is named",
    }
}

/// `--as iso, or --as vfat` with each form as code.
fn made_with(row: &Row) -> String {
    let mut words = row.made_with.split(' ');
    let mut shown = Vec::new();
    while let Some(word) = words.next() {
        if word != "--as" {
            shown.push(word.to_owned());
            continue;
        }
        let form = words.next().unwrap_or_else(|| panic!("{:?}: --as what?", row.medium));
        let comma = if form.ends_with(',') { "," } else { "" };
        shown.push(format!("`--as {}`{comma}", form.trim_end_matches(',')));
    }
    shown.join(" ")
}

/// The media that need a site pin in a confidential virtual machine, told by the media that need none.
fn confidential() -> String {
    let without: Vec<String> =
        MEDIA.iter().filter(|row| !row.of_hypervisor).map(|row| format!("`{}`", row.kind)).collect();
    assert!(!without.is_empty() && without.len() < MEDIA.len(), "{without:?}");
    format!(
        "In a confidential virtual machine (AMD SEV-SNP, Intel TDX) the hypervisor is not trusted. There all of these need a \
         site pin in the\nimage, except {}.\n",
        without.join(" and ")
    )
}

#[test]
fn the_page_of_sources_has_every_medium() {
    let mut table = "\n| source | `origin` | where the payload is | who vouches | private key, `each-boot` token | \
                     credits a seed | looked at | made with `imprint-host payload NODE` |\n|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for row in words().iter().flat_map(|(_, rows)| rows) {
        let carries = match row.readers {
            Readers::Root => "yes",
            Readers::Everybody => "refused",
        };
        let credits = if row.credits_seed { "yes" } else { "no" };
        table += &format!(
            "| `{}` | `{}` | {} | {} | {carries} | {credits} | {} | {} |\n",
            row.word.name(),
            row.kind,
            row.place,
            row.voucher,
            looked_words(row.looked),
            made_with(row)
        );
    }
    let page = page("docs/sources.md");
    let text = filled(&page.1, "<!-- media -->", "<!-- end -->", &format!("{table}\n{}\n", confidential()));
    is_current(page, &text);
}

/// A text with code between backticks, as mdoc wants it: each piece of code on a line of its own.
fn mdoc(text: &str) -> String {
    let mut lines = String::new();
    let mut code = false;
    for piece in text.split('`') {
        if code {
            let quoted = if piece.contains(' ') { format!("\"{piece}\"") } else { piece.to_owned() };
            lines += &format!(".Ql {quoted}\n");
        } else {
            // Punctuation right behind code is an argument of the code's macro.
            let rest = piece.trim_start_matches([',', '.', ';']);
            let marks = &piece[..piece.len() - rest.len()];
            if !marks.is_empty() {
                lines.pop();
                lines += &format!(" {}\n", marks.chars().map(String::from).collect::<Vec<_>>().join(" "));
            }
            if !rest.trim().is_empty() {
                lines += &format!("{}\n", rest.trim());
            }
        }
        code = !code;
    }
    lines
}

/// A sentence, which begins with a capital unless it begins with code.
fn sentence(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    mdoc(&format!("{}{rest}.", first.to_uppercase()))
}

#[test]
fn the_manual_has_every_medium() {
    let mut list = String::new();
    for (word, rows) in words() {
        let label = if word == Word::ConfigDrive { " Ns Op : Ns Ar label" } else { "" };
        list += &format!(".It Cm {}{label}\n", word.name());
        match looked(word, &rows) {
            Looked::Always => {}
            Looked::Pinned => list += "Looked at with a site pin in the image, or when it is named.\n",
            Looked::Named => list += "Looked at only when it is named.\n",
        }
        if word == Word::ConfigDrive {
            list += "With a label only volumes of that label count.\n";
        }
        let many = rows.len() > 1;
        list += if many { ".Bl -dash -compact\n" } else { "" };
        for row in rows {
            list += if many { ".It\n" } else { "" };
            list += &sentence(row.place);
            list += &mdoc(&format!("Vouched for by {}.", row.voucher));
            if row.readers == Readers::Everybody {
                list += "Every process of the node can read it.\n";
            }
        }
        list += if many { ".El\n" } else { "" };
    }
    let page = page("man/imprint.cmdline.7");
    let text = filled(&page.1, ".\\\" media", ".\\\" end", &list);
    is_current(page, &text);
}

/// The accident: the parser knows a word that the table does not have, or the page has another default order. Both
/// would send an operator to the wrong medium.
#[test]
fn the_words_of_the_command_line_are_those_of_the_table() {
    let source = WORDS.iter().find(|word| word.name == "imprint.source=").unwrap();
    let (mut takes, mut order) = (Vec::new(), Vec::new());
    for (word, rows) in words() {
        let name = word.name();
        takes.push(name.to_owned());
        if word == Word::ConfigDrive {
            takes.push(format!("{name}:LABEL"));
        }
        match looked(word, &rows) {
            Looked::Always => order.push(name.to_owned()),
            Looked::Pinned => order.push(format!("{name} (with a site pin only)")),
            Looked::Named => {}
        }
        let options =
            Options::parse(&format!("imprint.source={name}")).unwrap_or_else(|error| panic!("{name}: {error}"));
        let named = matches!(
            (word, &options.sources[..]),
            (Word::Cmdline, [SourceName::Cmdline])
                | (Word::File, [SourceName::File])
                | (Word::Credential, [SourceName::Credential])
                | (Word::ConfigDrive, [SourceName::ConfigDrive(None)])
                | (Word::Partition, [SourceName::Partition])
                | (Word::EfiVar, [SourceName::EfiVar])
                | (Word::RootFile, [SourceName::RootFile])
        );
        assert!(named, "{name} is {:?}", options.sources);
    }
    let lines =
        "virtio, serial:ttyS1, serial:ttyS1,115200, tcp:HOST:PORT, door, vsock, vsock:PORT, ether or ether:eth0";
    assert_eq!(source.values, format!("{}, {lines}", takes.join(", ")));
    assert_eq!(source.default, format!("{}, virtio, and the serial lines that are consoles", order.join(", ")));
}

/// An operator copies the name of the variable and the type of the partition from a page. With another GUID the agent never finds
/// the payload.
#[test]
fn the_pages_have_the_programs_guids() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (_, variable) = EFI_VARIABLE.split_once('-').unwrap();
    let known = [variable, PARTITION_TYPE];
    let files =
        ["docs", "man"].map(|folder| fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    let mut seen = BTreeSet::new();
    for path in files.into_iter().flatten().chain([root.join("README.md"), root.join("SECURITY.md")]) {
        let text = fs::read_to_string(&path).unwrap();
        for (mark, known) in
            [("ImprintPayload-", variable), ("--typecode=0:", PARTITION_TYPE), ("--part-type ", PARTITION_TYPE)]
        {
            // A device behind it: a type of another kind (docs/swap.md).
            let here = text.match_indices(mark).filter(|(at, _)| !text[at + mark.len()..].starts_with("/dev/"));
            for (at, _) in here {
                assert!(text[at + mark.len()..].starts_with(known), "{}: {mark} with another GUID", path.display());
                seen.insert(known);
            }
        }
    }
    assert_eq!(seen, BTreeSet::from(known), "pages name both");
}

/// A medium that stands among the lines, or in a second table, is told twice, and one day differently.
#[test]
fn lines_are_not_media() {
    let (_, text) = page("docs/sources.md");
    let (_, rest) = text.split_once("<!-- end -->").unwrap();
    let (rest, _) = rest.split_once("\n## ").unwrap();
    let rows: Vec<&str> = rest.lines().filter(|line| line.starts_with("| `")).collect();
    let lines = ["virtio", "serial:", "tcp:", "door", "vsock", "ether"].map(|line| format!("| `{line}"));
    assert_eq!(rows.len(), lines.len(), "{rows:?}");
    assert!(rows.iter().zip(&lines).all(|(row, line)| row.starts_with(line.as_str())), "{rows:?}");
    for (word, _) in words() {
        let row = format!("| `{}` ", word.name());
        assert!(!rows.iter().any(|found| found.starts_with(&row)), "{rows:?}");
    }
}
