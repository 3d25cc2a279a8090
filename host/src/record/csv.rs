//! Reads many records from one CSV file (RFC 4180): each row becomes the TOML of a record. A template holds what the nodes
//! have in common; cells fill in its values. A cell is never read as TOML. Compiles no record.

use std::collections::BTreeMap;

use imprint::shown::printable;

use super::RecordError;
use super::template::{Template, bare_value, escaped};

/// Columns whose cell is one string.
const STRINGS: [&str; 10] = [
    "name",
    "hostname",
    "key",
    "enrol",
    "validity",
    "admit",
    "bundle_key",
    "bundle_approve",
    "bundle_recipient",
    "root_sha256",
];
/// Columns whose cell is a list, separated by semicolons.
const LISTS: [&str; 5] = ["subject", "sans", "usages", "issuers", "admission_key"];
/// Columns whose cell is true or false.
const FLAGS: [&str; 2] = ["claims_suffice", "bundle_pull"];
/// Columns of the table `bind`: strings, lists, numbers.
const BIND_STRINGS: [&str; 4] = ["bind.uuid", "bind.serial", "bind.tap", "bind.vm"];
const BIND_LISTS: [&str; 1] = ["bind.macs"];
const BIND_NUMBERS: [&str; 1] = ["bind.cid"];

/// A row of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The line where it begins, from 1.
    pub line: usize,
    /// Its record, in TOML.
    pub record: String,
}

/// Reads the file. The template, given as (file name, TOML), is appended to each row's own keys; `{COLUMN}` in one of its
/// strings stands for the row's cell in that column.
pub fn rows(file: &str, bytes: &[u8], (template_file, template): (&str, &str)) -> Result<Vec<Row>, RecordError> {
    let error = |line: usize, key: &str, problem: String| RecordError {
        file: file.to_owned(),
        line,
        key: key.to_owned(),
        problem,
    };
    // Excel writes a byte order mark at the start.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // The line where the row begins: the reader's position may still be before the line end of the row before.
    let line_of = |position: Option<&csv::Position>| {
        let start = position.and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or_default();
        let rest = bytes.get(start..).unwrap_or_default();
        let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let before = bytes.get(..start.saturating_add(blank)).unwrap_or(bytes);
        before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1)
    };
    let broken = |failure: csv::Error| {
        let line = line_of(failure.position());
        let problem = match failure.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("{len} cells, the header has {expected_len}")
            }
            csv::ErrorKind::Utf8 { .. } => "not UTF-8; save it as CSV in UTF-8".to_owned(),
            _ => failure.to_string(),
        };
        error(line, "", problem)
    };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let header = reader.headers().map_err(broken)?.clone();
    let columns: Vec<&str> = header.iter().collect();
    let template = Template::parse(template_file, template, &columns)?;
    for (index, column) in header.iter().enumerate() {
        if header.iter().take(index).any(|before| before == column) {
            return Err(error(1, &printable(column), "a column of this name is there already".to_owned()));
        }
        if !is_key(column) && !template.has(column) {
            let (keys, column) = (keys().join(", "), printable(column));
            let used = format!("used as \"{{{column}}}\" in the template");
            return Err(error(1, &column, format!("unknown column; known: {keys}; others must be {used}")));
        }
    }
    if !header.iter().any(|column| column == "name") {
        return Err(error(1, "", "no column is called name; the first line names the columns".to_owned()));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let line = line_of(record.position());
        let cells: BTreeMap<&str, &str> = header.iter().zip(record.iter()).collect();
        rows.push(Row { line, record: toml(&cells, &template) });
    }
    if rows.is_empty() {
        return Err(error(1, "", "no rows; the first line names the columns, each other one is a node".to_owned()));
    }
    Ok(rows)
}

fn is_key(column: &str) -> bool {
    keys().contains(&column)
}

fn keys() -> Vec<&'static str> {
    [&STRINGS[..], &LISTS, &FLAGS, &BIND_STRINGS, &BIND_LISTS, &BIND_NUMBERS].concat()
}

/// The keys of a row as TOML. An empty cell leaves its key out, so that the template can have the key.
fn toml(cells: &BTreeMap<&str, &str>, template: &Template) -> String {
    let given = |column: &str| cells.get(column).copied().filter(|cell| !cell.is_empty());
    let mut text = String::new();
    for key in STRINGS {
        if let Some(cell) = given(key) {
            text.push_str(&format!("{key} = {}\n", quoted(cell)));
        }
    }
    for key in LISTS {
        if let Some(cell) = given(key) {
            text.push_str(&format!("{key} = {}\n", list(cell)));
        }
    }
    for key in FLAGS {
        if let Some(cell) = given(key) {
            text.push_str(&format!("{key} = {}\n", bare(key, cell)));
        }
    }
    let mut bind = Vec::new();
    for column in BIND_STRINGS {
        bind.extend(given(column).map(|cell| format!("{} = {}", inner(column), quoted(cell))));
    }
    for column in BIND_LISTS {
        bind.extend(given(column).map(|cell| format!("{} = {}", inner(column), list(cell))));
    }
    for column in BIND_NUMBERS {
        bind.extend(given(column).map(|cell| format!("{} = {}", inner(column), bare(inner(column), cell))));
    }
    if !bind.is_empty() {
        text.push_str(&format!("bind = {{ {} }}\n", bind.join(", ")));
    }
    text.push_str(&template.filled(cells));
    text
}

/// A number or a flag; any other cell is a string, and compiling the record reports the wrong type.
fn bare(key: &str, cell: &str) -> String {
    bare_value(key, cell).unwrap_or_else(|| quoted(cell))
}

fn inner(column: &str) -> &str {
    column.strip_prefix("bind.").unwrap_or(column)
}

fn list(cell: &str) -> String {
    let items: Vec<String> = cell.split(';').map(str::trim).filter(|item| !item.is_empty()).map(quoted).collect();
    format!("[{}]", items.join(", "))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str, template: &str) -> String {
        rows("nodes.csv", text.as_bytes(), ("template.toml", template)).unwrap_err().to_string()
    }

    #[test]
    fn rows_become_records() {
        let text = "\u{feff}name, subject ,sans,bind.macs,address\r\n\
                    node1,\"CN=node1;O=Example, Inc.\",dns:node1.example.org; ip:192.0.2.1,52:54:00:00:00:01,192.0.2.1\r\n\
                    \"node2\",CN=\"\"node2,,,192.0.2.2\r\n";
        let template = "key = \"p384\"\n[[network]]\nmatch = { any = true }\naddresses = [\"{address}/24\"]\n";
        // A quote inside an unquoted cell is a plain character: RFC 4180 does not say, spreadsheets read it so.
        let rows = rows("nodes.csv", text.as_bytes(), ("template.toml", template)).unwrap();
        assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(
            rows[0].record,
            "name = \"node1\"\nsubject = [\"CN=node1\", \"O=Example, Inc.\"]\n\
             sans = [\"dns:node1.example.org\", \"ip:192.0.2.1\"]\nbind = { macs = [\"52:54:00:00:00:01\"] }\n\
             key = \"p384\"\n[[network]]\nmatch = { any = true }\naddresses = [\"192.0.2.1/24\"]\n"
        );
        assert!(
            rows[1].record.starts_with("name = \"node2\"\nsubject = [\"CN=\\\"\\\"node2\"]\nkey = "),
            "{}",
            rows[1].record
        );
    }

    #[test]
    fn who_is_let_in() {
        let text = "name,admit,claims_suffice,admission_key,bind.cid,bind.tap,bind.vm\n\
                    a,key,,rack-7;rack-8,3,tap0,web-1\nb,known,true,,,,\nc,known,yes,,x,,\n";
        let rows = rows("nodes.csv", text.as_bytes(), ("template.toml", "")).unwrap();
        let records: Vec<&str> = rows.iter().map(|row| row.record.as_str()).collect();
        assert_eq!(
            records,
            [
                "name = \"a\"\nadmit = \"key\"\nadmission_key = [\"rack-7\", \"rack-8\"]\n\
                 bind = { tap = \"tap0\", vm = \"web-1\", cid = 3 }\n",
                "name = \"b\"\nadmit = \"known\"\nclaims_suffice = true\n",
                "name = \"c\"\nadmit = \"known\"\nclaims_suffice = \"yes\"\nbind = { cid = \"x\" }\n",
            ]
        );
    }

    #[test]
    fn whose_bundles() {
        let text =
            "name,bundle_key,bundle_approve,bundle_recipient,bundle_pull\na,payload,auto,,\nb,stick,,age1x,true\n";
        let rows = rows("nodes.csv", text.as_bytes(), ("template.toml", "")).unwrap();
        let records: Vec<&str> = rows.iter().map(|row| row.record.as_str()).collect();
        assert_eq!(
            records,
            [
                "name = \"a\"\nbundle_key = \"payload\"\nbundle_approve = \"auto\"\n",
                "name = \"b\"\nbundle_key = \"stick\"\nbundle_recipient = \"age1x\"\nbundle_pull = true\n",
            ]
        );
    }

    #[test]
    fn errors_name_file_line_and_column() {
        assert_eq!(
            problem("name,rack\nnode1,7\n", ""),
            "nodes.csv:1: rack: unknown column; known: name, hostname, key, enrol, validity, admit, bundle_key, \
             bundle_approve, bundle_recipient, root_sha256, subject, sans, usages, issuers, admission_key, claims_suffice, bundle_pull, bind.uuid, bind.serial, bind.tap, bind.vm, bind.macs, \
             bind.cid; others must be used as \"{rack}\" in the template"
        );
        assert_eq!(problem("name,name\n", ""), "nodes.csv:1: name: a column of this name is there already");
        assert_eq!(
            problem("subject\nCN=a\n", ""),
            "nodes.csv:1: no column is called name; the first line names the columns"
        );
        assert_eq!(problem("name,key\nnode1\n", ""), "nodes.csv:2: 1 cells, the header has 2");
        assert_eq!(
            problem("name\n", ""),
            "nodes.csv:1: no rows; the first line names the columns, each other one is a node"
        );
        let latin = rows("nodes.csv", b"name\nn\xe9\n", ("", "")).unwrap_err().to_string();
        assert_eq!(latin, "nodes.csv:2: not UTF-8; save it as CSV in UTF-8");
    }

    /// Attack: a cell with quotes and line breaks cannot leave its string.
    #[test]
    fn a_cell_cannot_leave_its_string() {
        let text = "name,note\n\"a\"\"]\nkey = \"\"rsa\",\"x\\\"\n";
        let rows = rows("nodes.csv", text.as_bytes(), ("template.toml", "hostname = \"{note}\"\n")).unwrap();
        assert_eq!(rows[0].record, "name = \"a\\\"]\\u000Akey = \\\"rsa\"\nhostname = \"x\\\\\"\n");
    }

    /// Attack: cells that try to add keys or items to the record, in every kind of TOML string, in a list, and as the name
    /// of another column. Each stays one value.
    #[test]
    fn a_cell_is_a_value_wherever_it_stands() {
        let hostile = [
            "x'\nsans = ['dns:admin.example.org']\n#",
            "x\"\nsans = [\"dns:admin.example.org\"]\n#",
            "x\"\"\"\nsans = [\"dns:admin.example.org\"]\n#",
            "x'''\nsans = ['dns:admin.example.org']\n#",
            "x', 'dns:admin.example.org",
            "x;dns:admin.example.org",
            "{other}",
            "\\u0022]",
        ];
        let places =
            ["'{note}'", "\"{note}\"", "'''{note}'''", "\"\"\"\n{note}\"\"\"", "['a', '{note}']", "{ to = '{note}' }"];
        for cell in hostile {
            for place in places {
                let text = format!("name,note,other\nn,\"{}\",admin\n", cell.replace('"', "\"\""));
                // The comment uses the column, so that it is known.
                let template = format!("# {{note}}\nhostname = {place}\nkey = \"{{other}}\"\n");
                let rows = rows("nodes.csv", text.as_bytes(), ("template.toml", &template)).unwrap();
                let parsed: toml::Table =
                    rows[0].record.parse().unwrap_or_else(|error| panic!("{cell} {place}: {error}"));
                let keys: Vec<&str> = parsed.keys().map(String::as_str).collect();
                assert_eq!(keys, ["hostname", "key", "name"], "{cell} {place}");
                let value = match &parsed["hostname"] {
                    toml::Value::Array(items) => {
                        assert_eq!(items.len(), 2, "{cell}");
                        items[1].as_str().unwrap()
                    }
                    toml::Value::Table(table) => table["to"].as_str().unwrap(),
                    value => value.as_str().unwrap(),
                };
                assert_eq!((value, parsed["key"].as_str().unwrap()), (cell, "admin"), "{place}");
            }
        }
    }

    /// A cell becomes a number or flag only where the record has one.
    #[test]
    fn numbers_and_flags() {
        let template = "hostname = \"{mtu}\"\n[[network]]\nmatch = { any = \"{any}\" }\nmtu = {mtu}\nroutes = [\n  { to = \
                        \"default\", metric = {metric} },\n]\n";
        let read = |cells: &str| {
            let text = format!("name,mtu,any,metric\n{cells}\n");
            rows("nodes.csv", text.as_bytes(), ("template.toml", template)).unwrap().remove(0).record
        };
        let want = "name = \"n\"\nhostname = \"1500\"\n[[network]]\nmatch = { any = true }\nmtu = 1500\nroutes = [\n  { to = \
                    \"default\", metric = 7 },\n]\n";
        assert_eq!(read("n,1500,true,07"), want);
        // Other text stays a string; compiling the record reports the wrong type.
        assert!(read("n,\"1500\nslaac = true\",true,7").contains("mtu = \"1500\\u000Aslaac = true\"\n"));
        assert!(read("n,-1,yes,7").contains("any = \"yes\" }\nmtu = \"-1\"\n"));
    }

    #[test]
    fn a_template_that_is_none() {
        let template = |text: &str| problem("name,x\nn,1\n", text);
        assert_eq!(
            template("hostname = \"{x}\"\nkey = \n"),
            "template.toml:2: string values must be quoted, expected literal string"
        );
        // A column's name in a comment or a key does not count as used.
        for text in ["# {x}\n", "\"{x}\" = 1\n"] {
            assert!(template(text).contains("others must be used as \"{x}\" in the template"), "{text}");
        }
        let text = "name,\u{1b}[2J\u{202e}\nn,1\n";
        assert!(
            problem(text, "").starts_with("nodes.csv:1: \\u{1b}[2J\\u{202e}: unknown column; "),
            "{}",
            problem(text, "")
        );
    }
}
