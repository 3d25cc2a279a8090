//! The TOML template for the rows of a CSV file. The template is parsed first; then cells fill in the values that name
//! their columns. A cell never adds a key or an item of a list.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::RecordError;

/// Keys whose value is a number: a cell is written there as a number.
const NUMBERS: [&str; 4] = ["cid", "id", "metric", "mtu"];
/// Keys whose value is true or false.
const FLAGS: [&str; 7] = ["any", "bootif", "bundle_pull", "claims_suffice", "dhcp4", "dhcp6", "slaac"];

/// The template's text, and the values that cells fill in.
pub(super) struct Template {
    text: String,
    /// In the order of the text.
    holes: Vec<Hole>,
}

/// A string value that names columns.
struct Hole {
    /// Byte range in the text, quotes included.
    place: Range<usize>,
    /// The key of the value.
    key: String,
    pieces: Vec<Piece>,
}

#[derive(PartialEq)]
enum Piece {
    Text(String),
    Column(String),
}

impl Template {
    pub(super) fn parse(file: &str, text: &str, columns: &[&str]) -> Result<Template, RecordError> {
        let mut text = text.to_owned();
        // Each iteration puts quotes around one more bare `{COLUMN}`.
        for _ in 0..=text.matches('{').count() {
            let failure = match DeTable::parse(&text) {
                Ok(table) => {
                    let mut holes = Vec::new();
                    find(table.get_ref(), columns, &mut holes);
                    holes.sort_by_key(|hole| hole.place.start);
                    return Ok(Template { holes, text });
                }
                Err(failure) => failure,
            };
            let offset = failure.span().map_or(0, |span| span.start);
            let Some(bare) = bare(&text, columns, offset) else {
                return Err(broken(file, &text, offset, failure.message()));
            };
            let quoted = format!("\"{}\"", text.get(bare.clone()).unwrap_or_default());
            text.replace_range(bare, &quoted);
        }
        Err(broken(file, &text, 0, "braces within braces"))
    }

    /// Whether the template uses this column.
    pub(super) fn has(&self, column: &str) -> bool {
        let is_it = |piece: &Piece| matches!(piece, Piece::Column(name) if name == column);
        self.holes.iter().any(|hole| hole.pieces.iter().any(is_it))
    }

    /// The text, with the cells of a row filled in.
    pub(super) fn filled(&self, cells: &BTreeMap<&str, &str>) -> String {
        let mut out = String::with_capacity(self.text.len());
        let mut done = 0;
        for Hole { place, key, pieces } in &self.holes {
            out.push_str(self.text.get(done..place.start).unwrap_or_default());
            let cell = |column: &String| cells.get(column.as_str()).copied().unwrap_or_default();
            let whole = match pieces.as_slice() {
                [Piece::Column(column)] => bare_value(key, cell(column)),
                _ => None,
            };
            out.push_str(&whole.unwrap_or_else(|| {
                let value: String = pieces
                    .iter()
                    .map(|piece| match piece {
                        Piece::Text(text) => text.as_str(),
                        Piece::Column(column) => cell(column),
                    })
                    .collect();
                format!("\"{}\"", escaped(&value))
            }));
            done = place.end;
        }
        out.push_str(self.text.get(done..).unwrap_or_default());
        out
    }
}

fn broken(file: &str, text: &str, offset: usize, why: &str) -> RecordError {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    let line = before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1);
    RecordError { file: file.to_owned(), line, key: String::new(), problem: why.to_owned() }
}

fn find(table: &DeTable<'_>, columns: &[&str], holes: &mut Vec<Hole>) {
    for (key, value) in table {
        find_in(key.get_ref(), value, columns, holes);
    }
}

fn find_in(key: &str, value: &Spanned<DeValue<'_>>, columns: &[&str], holes: &mut Vec<Hole>) {
    match value.get_ref() {
        DeValue::String(text) => {
            let pieces = pieces(text, columns);
            if pieces.iter().any(|piece| matches!(piece, Piece::Column(_))) {
                holes.push(Hole { place: value.span(), key: key.to_owned(), pieces });
            }
        }
        DeValue::Array(items) => items.iter().for_each(|item| find_in(key, item, columns, holes)),
        DeValue::Table(table) => find(table, columns, holes),
        _ => {}
    }
}

/// Splits a string into plain text and columns. This happens before cells are filled in, so a cell's `{COLUMN}` is plain
/// text.
fn pieces(text: &str, columns: &[&str]) -> Vec<Piece> {
    let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some(c) = rest.chars().next() {
        let column = rest.strip_prefix('{').and_then(|inner| inner.split_once('}')).map(|(name, _)| name);
        match column.filter(|name| columns.contains(name)) {
            Some(name) => {
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Column(name.to_owned()));
                rest = rest.get(name.len().saturating_add(2)..).unwrap_or_default();
            }
            None => {
                plain.push(c);
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
            }
        }
    }
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    pieces
}

/// Finds a `{COLUMN}` without quotes at the offset of a parse error: `mtu = {mtu}` is not TOML.
fn bare(text: &str, columns: &[&str], offset: usize) -> Option<Range<usize>> {
    let mut names = columns.iter().flat_map(|column| {
        let word = format!("{{{column}}}");
        text.match_indices(&word).map(|(at, found)| at..at.saturating_add(found.len())).collect::<Vec<_>>()
    });
    names.find(|place| {
        let before = text.get(..place.start).unwrap_or_default();
        (place.start..=place.end).contains(&offset) && !before.ends_with(['"', '\''])
    })
}

/// The cell as a number or flag, if the key has one. It is parsed and formatted anew, so that nothing else of the cell gets
/// in.
pub(super) fn bare_value(key: &str, cell: &str) -> Option<String> {
    if NUMBERS.contains(&key) && cell.bytes().all(|byte| byte.is_ascii_digit()) {
        return cell.parse::<u32>().ok().map(|number| number.to_string());
    }
    let flag = FLAGS.contains(&key).then(|| cell.parse::<bool>().ok()).flatten()?;
    Some(flag.to_string())
}

/// Escapes a text for a basic string (TOML 1.0, "String").
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}
