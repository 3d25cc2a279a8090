//! Compares values on the pages with the program's sources: items of JSON, origins, files of the hand-over, waits.

use std::collections::BTreeSet;

use imprint::payload::KeyType;

use super::pages::{read, rows, sources};

fn items() -> impl Iterator<Item = syn::Item> {
    sources()
        .into_iter()
        .flat_map(|(name, text)| syn::parse_file(&text).unwrap_or_else(|error| panic!("{name}: {error}")).items)
}

/// What src/status.rs defines.
fn in_status() -> impl Iterator<Item = syn::Item> {
    let files = sources().into_iter().filter(|(file, _)| file.starts_with("src/status"));
    files.flat_map(|(_, text)| syn::parse_file(&text).unwrap().items)
}

/// The fields of a struct in src/status.rs, each with its type as text.
fn fields(name: &str) -> Vec<(String, String)> {
    let found = in_status().find_map(|item| match item {
        syn::Item::Struct(item) if item.ident == name => Some(item),
        _ => None,
    });
    let found = found.unwrap_or_else(|| panic!("no struct {name} in src/status.rs"));
    found.fields.iter().map(|field| (field.ident.as_ref().unwrap().to_string(), kind(&field.ty))).collect()
}

/// `Option<Failure>`
fn kind(of: &syn::Type) -> String {
    let syn::Type::Path(path) = of else { return String::new() };
    let last = path.path.segments.last().unwrap();
    let inner = match &last.arguments {
        syn::PathArguments::AngleBracketed(inner) => inner.args.first(),
        _ => None,
    };
    match inner {
        Some(syn::GenericArgument::Type(inner)) => format!("{}<{}>", last.ident, kind(inner)),
        _ => last.ident.to_string(),
    }
}

/// The items of a JSON object as docs/status.md names them: `steps[].name`.
fn json_items(name: &str, prefix: &str, below: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    for (field, kind) in fields(name) {
        found.push(format!("{prefix}{field}"));
        for (inner, shown) in below {
            if kind == format!("Option<{inner}>") {
                found.extend(json_items(inner, &format!("{prefix}{shown}."), below));
            } else if kind == format!("Vec<{inner}>") && !shown.is_empty() {
                found.extend(json_items(inner, &format!("{prefix}{shown}[]."), below));
            }
        }
    }
    found
}

fn variants(name: &str) -> Vec<String> {
    let found = in_status().find_map(|item| match item {
        syn::Item::Enum(item) if item.ident == name => Some(item),
        _ => None,
    });
    found
        .unwrap_or_else(|| panic!("no enum {name}"))
        .variants
        .iter()
        .map(|v| v.ident.to_string().to_lowercase())
        .collect()
}

/// Each item of both files has its row, each row is an item, and what an item may say is in its row.
#[test]
fn status_and_node_json_are_as_the_page_says() {
    let page = read("docs/status.md");
    let names = |heading: &str| -> Vec<String> { rows(&page, heading).iter().map(|row| row[0].to_owned()).collect() };
    assert_eq!(
        names("## status.json"),
        json_items(
            "Status",
            "",
            &[
                ("Failure", "error"),
                ("BundleStatus", "bundle"),
                ("RootStatus", "root"),
                ("LinkStatus", "links"),
                ("Step", "steps")
            ]
        )
    );
    // The maps of `network.routes` stand in its row.
    let node = json_items("Node", "", &[("NodeNetwork", "network"), ("NodeRenewal", "renewal")]);
    assert_eq!(names("## node.json"), node);
    let meaning = |heading: &str, item: &str| -> String {
        rows(&page, heading).into_iter().find(|row| row[0] == item).unwrap().join(" | ")
    };
    let says = |row: &str, values: &[String]| {
        for value in values {
            assert!(row.contains(&format!("`{value}`")), "{value}: {row}");
        }
    };
    says(
        &meaning("## node.json", "network.routes"),
        &fields("NodeRoute").into_iter().map(|(name, _)| name).collect::<Vec<_>>(),
    );
    says(&meaning("## status.json", "outcome"), &variants("Outcome"));
    says(&meaning("## status.json", "enrolment"), &variants("Enrolment"));
    says(&meaning("## status.json", "bundle.state"), &variants("BundleState"));
    says(
        &meaning("## node.json", "renewal.key"),
        &KeyType::ALL.iter().map(|(_, name)| (*name).to_owned()).collect::<Vec<_>>(),
    );
    let stages: Vec<String> = super::stages(&read("src/error.rs")).into_iter().map(|(_, stage, _)| stage).collect();
    says(&meaning("## status.json", "error.stage"), &stages);
    // A step is a stage, or its name is in the row.
    let mut steps = BTreeSet::new();
    for (_, text) in sources().into_iter().filter(|(name, _)| name.starts_with("src/") && !name.contains("tests")) {
        steps.extend(text.split(".step(\"").skip(1).filter_map(|rest| rest.split('"').next().map(str::to_owned)));
    }
    assert!(steps.len() >= 10, "{steps:?}");
    let others: Vec<String> = steps.into_iter().filter(|step| !stages.contains(step)).collect();
    says(&meaning("## status.json", "steps[].name"), &others);
    // What a reader copies.
    let examples: Vec<&str> = page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    serde_json::from_str::<imprint::status::Status>(examples[0]).unwrap();
    serde_json::from_str::<imprint::status::Node>(examples[1]).unwrap();
}

/// Where a payload may come from, in the words that the program uses for it.
#[test]
fn every_origin_is_on_the_page() {
    let shown = sources().into_iter().find_map(|(_, text)| {
        let (_, rest) = text.split_once("\nimpl fmt::Display for Origin {")?;
        rest.split_once("\n}\n").map(|(body, _)| body.to_owned())
    });
    let shown = shown.expect("impl Display for Origin");
    let page = read("docs/status.md");
    let row = rows(&page, "## status.json").into_iter().find(|row| row[0] == "origin").unwrap().join(" ");
    let texts: Vec<&str> = shown.split('"').skip(1).step_by(2).collect();
    // The media have their words in the table.
    assert!(texts.len() >= 4, "{texts:?}");
    for text in texts {
        for part in text.split(['{', '}']).step_by(2).map(str::trim).filter(|part| part.len() > 1) {
            assert!(row.contains(part), "{part}: {row}");
        }
    }
    // By its kind it is in the User-Agent, and as a word it is taken by imprint.source=.
    let sources = read("docs/sources.md");
    let manual = read("man/imprint.cmdline.7");
    let word = imprint::options::WORDS.iter().find(|word| word.name == "imprint.source=").unwrap();
    // The media by their table, then the lines.
    let mut names: Vec<&str> = imprint::medium::MEDIA.iter().map(|row| row.word.name()).collect();
    names.dedup();
    names.extend(["virtio", "serial", "tcp", "door", "vsock", "ether"]);
    let mut places = Vec::new();
    for name in &names {
        assert!(word.values.contains(name), "{name}");
        let place = sources.find(&format!("\n| `{name}"));
        let manual = manual.split_once("\n.Ss Sources\n").unwrap().1;
        places.push((place, manual.find(&format!("\n.It Cm {name}"))));
        assert!(places.iter().all(|(page, manual)| page.is_some() && manual.is_some()), "{name}: {places:?}");
    }
    assert!(places.is_sorted(), "pages and program have one order: {places:?}");
    let listed: BTreeSet<&str> = word.values.split([',', ' ']).filter(|word| !["", "or"].contains(word)).collect();
    let kinds: BTreeSet<&str> = listed
        .iter()
        .map(|value| value.split([':', ',']).next().unwrap())
        .filter(|kind| !kind.chars().all(|c| c.is_ascii_digit()))
        .collect();
    assert_eq!(kinds, names.into_iter().collect());
    for medium in &imprint::medium::MEDIA {
        assert!(sources.contains(&format!("| `{}` | `{}` |", medium.word.name(), medium.kind)), "{:?}", medium.medium);
    }
}

/// Names of files that are handed over, by the constants that the program has for them.
#[test]
fn every_file_that_is_handed_over_is_on_both_pages() {
    let page = read("docs/status.md");
    let manual = read("man/imprint.8");
    let (_, files) = manual.split_once("\n.Sh FILES\n").unwrap();
    let (files, _) = files.split_once("\n.Sh ").unwrap();
    let constants = constants();
    let mut count = 0;
    for (constant, place) in [
        ("STATUS", ""),
        ("NODE", ""),
        ("CERT", ""),
        ("CHAIN", ""),
        ("CA", ""),
        ("READY", ""),
        ("KEY", "private/"),
        ("DESCRIPTION", ""),
        ("APPLIED", ""),
        ("STARTED", ""),
        ("ANEW", ""),
        ("SWAP", ""),
        ("RELOADED", ""),
        ("TAR", "private/"),
    ] {
        let name = constants.iter().find(|(found, value)| found == constant && !value.ends_with('s'));
        let name = &name.unwrap_or_else(|| panic!("no constant {constant}")).1;
        assert!(page.contains(&format!("\n| `{place}{name}` | 0")), "docs/status.md: {name}");
        assert!(files.contains(&format!("\n.It Pa /run/imprint/{place}{name}\n")), "imprint(8): {name}");
        count += 1;
    }
    let all: String = sources().into_iter().map(|(_, text)| text).collect();
    // The other way round: nothing but these, the link, the program's own lock, and the folder for the root.
    let described: Vec<&str> = files.lines().filter_map(|line| line.strip_prefix(".It Pa /run/imprint/")).collect();
    assert_eq!(described.len(), count + 3, "{described:?}");
    for place in [
        "/run/credentials/@initrd",
        "/run/systemd/network",
        "/run/NetworkManager/system-connections",
        "/imprint/payload",
        "/imprint/site",
    ] {
        let below = place.trim_start_matches('/');
        assert!(constants.iter().any(|(_, value)| value == below) || all.contains(below), "{place}");
        assert!(files.contains(&format!("\n.It Pa {place}")), "imprint(8): {place}");
    }
}

/// (name, value) of each constant in the sources that is a text or a duration: `15 s`, `300 ms`.
fn constants() -> Vec<(String, String)> {
    let number = |call: &syn::ExprCall| match call.args.first() {
        Some(syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(number), .. })) => {
            Some(number.base10_digits().to_owned())
        }
        _ => None,
    };
    let value = |expression: &syn::Expr| match expression {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
        syn::Expr::Call(call) => {
            let syn::Expr::Path(function) = &*call.func else { return None };
            match function.path.segments.last()?.ident.to_string().as_str() {
                "from_secs" => Some(format!("{} s", number(call)?)),
                "from_millis" => Some(format!("{} ms", number(call)?)),
                _ => None,
            }
        }
        _ => None,
    };
    let named = |item| match item {
        syn::Item::Const(item) => Some((item.ident.to_string(), value(&item.expr)?)),
        _ => None,
    };
    items().filter_map(named).collect()
}

/// Each wait that a page gives is the program's.
#[test]
fn waits_on_pages_are_those_of_the_program() {
    let constants = constants();
    let cmdline = read("docs/cmdline.md").replace('\n', " ");
    let drive = read("docs/config-drive.md").replace('\n', " ");
    let manual = read("man/imprint.cmdline.7").replace('\n', " ");
    for (constant, page, words) in [
        ("QUIET_WITH_UDEV", &cmdline, "for {} the kernel has announced nothing"),
        ("QUIET_WITH_UDEV", &manual, "has been empty for {}"),
        ("QUIET_WITHOUT_UDEV", &cmdline, "until {} after the search began"),
        ("QUIET_WITH_USB", &cmdline, "| {} in the place of"),
        ("PATIENCE", &cmdline, "| {}; then the console names it and the search goes on"),
        ("PATIENCE", &drive, "A drive has {} to answer"),
        ("PATIENCE", &manual, "A drive that is there has {} to answer"),
        ("AUTO", &cmdline, "| {} for a first word from a host"),
        ("SPOKEN", &cmdline, "{} more each time it goes on"),
        ("POOL", &cmdline, "| {}, then exit code 11"),
        ("LINK_WAIT", &cmdline, "({} of it at most, until one is there)"),
    ] {
        let values = constants.iter().filter(|(name, _)| name == constant).map(|(_, value)| value.clone());
        // On a page it may be written in full.
        let values: Vec<String> = values.flat_map(|value| [value.replace(" s", " seconds"), value]).collect();
        let found = values.iter().any(|value| page.contains(&words.replace("{}", value)));
        assert!(found, "{constant} is {values:?}; no page says so: {words}");
    }
}
