//! TOML values that know their line and key, for errors; and tables that report unknown keys. Knows nothing about nodes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use imprint::shown::printable;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Why a record is invalid, and where: `node1.toml:7: network[0].mtu: 20, want 68 to 65535`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{file}:{line}: {}{problem}", if .key.is_empty() { String::new() } else { format!("{}: ", .key) })]
pub struct RecordError {
    /// The file's name, as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// `network[0].mtu`; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub problem: String,
}

/// The text, and the offset of each key that was taken.
pub(crate) struct Text<'t> {
    pub(crate) file: &'t str,
    pub(crate) text: &'t str,
    places: RefCell<BTreeMap<String, usize>>,
}

impl<'t> Text<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Text<'t> {
        Text { file, text, places: RefCell::default() }
    }

    pub(crate) fn error(&self, offset: usize, key: &str, problem: impl fmt::Display) -> RecordError {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        let line = before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1);
        RecordError { file: self.file.to_owned(), line, key: key.to_owned(), problem: problem.to_string() }
    }

    /// An error about a key. If the text does not have the key, the error is at the nearest enclosing key.
    pub(crate) fn error_at(&self, key: &str, problem: impl fmt::Display) -> RecordError {
        let places = self.places.borrow();
        let mut around = key;
        loop {
            if let Some(offset) = places.get(around) {
                return self.error(*offset, key, problem);
            }
            match around.rfind(['.', '[']) {
                Some(end) => around = around.get(..end).unwrap_or_default(),
                None => return self.error(0, key, problem),
            }
        }
    }

    pub(crate) fn parse(&'t self) -> Result<Spanned<DeTable<'t>>, RecordError> {
        DeTable::parse(self.text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            self.error(offset, "", error.message())
        })
    }

    pub(crate) fn root<'v>(&'v self, table: &'v DeTable<'t>) -> Table<'v> {
        Table::new(self, String::new(), 0, table)
    }
}

/// A table without the keys that were taken.
pub(crate) struct Table<'v> {
    text: &'v Text<'v>,
    pub(crate) path: String,
    offset: usize,
    entries: BTreeMap<&'v str, (Range<usize>, &'v Spanned<DeValue<'v>>)>,
    known: Vec<&'static str>,
}

/// A value with its key and offset.
#[derive(Clone)]
pub(crate) struct Value<'v> {
    text: &'v Text<'v>,
    pub(crate) path: String,
    offset: usize,
    value: &'v DeValue<'v>,
}

impl<'v> Table<'v> {
    fn new<'t>(text: &'v Text<'t>, path: String, offset: usize, table: &'v DeTable<'t>) -> Table<'v>
    where
        't: 'v,
    {
        let entries = table.iter().map(|(key, value)| (key.get_ref().as_ref(), (key.span(), value)));
        Table { text, path, offset, entries: entries.collect(), known: Vec::new() }
    }

    pub(crate) fn take(&mut self, key: &'static str) -> Option<Value<'v>> {
        self.known.push(key);
        let (span, value) = self.entries.remove(key)?;
        let path = self.path_of(key);
        self.text.places.borrow_mut().insert(path.clone(), span.start);
        Some(Value { text: self.text, path, offset: span.start, value: value.get_ref() })
    }

    pub(crate) fn need(&mut self, key: &'static str) -> Result<Value<'v>, RecordError> {
        self.take(key).ok_or_else(|| self.text.error(self.offset, &self.path_of(key), "is missing"))
    }

    pub(crate) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl FnMut(Value<'v>) -> Result<T, RecordError>,
    ) -> Result<Vec<T>, RecordError> {
        self.take(key).map_or(Ok(Vec::new()), |value| value.array()?.into_iter().map(read).collect())
    }

    pub(crate) fn flag(&mut self, key: &'static str) -> Result<bool, RecordError> {
        self.take(key).map_or(Ok(false), |value| value.bool())
    }

    /// Takes all remaining keys, for tables with free keys.
    pub(crate) fn all(self) -> Vec<(&'v str, Value<'v>)> {
        let mut all: Vec<_> = self.entries.iter().map(|(key, (span, value))| (*key, span.start, *value)).collect();
        all.sort_by_key(|(_, start, _)| *start);
        let value = |(key, offset, value): (&'v str, usize, &'v Spanned<DeValue<'v>>)| {
            (key, Value { text: self.text, path: self.path_of(key), offset, value: value.get_ref() })
        };
        all.into_iter().map(value).collect()
    }

    pub(crate) fn error(&self, problem: impl fmt::Display) -> RecordError {
        self.text.error(self.offset, &self.path, problem)
    }

    /// An error if a key is left: it is unknown. A mistyped key must not be ignored, or the node would lack, say, a route.
    pub(crate) fn finish(self) -> Result<(), RecordError> {
        let first = self.entries.iter().min_by_key(|(_, (span, _))| span.start);
        let Some((key, (span, _))) = first else { return Ok(()) };
        let shown = printable(key);
        let distance = |known: &&str| strsim::osa_distance(known, &key.to_lowercase());
        // Of equally near ones the first, which is the more common.
        let near = self.known.iter().map(|known| (distance(known), *known)).min_by_key(|(distance, _)| *distance);
        let problem = match near {
            Some((distance, near)) if distance <= 2 => format!("unknown key; did you mean {near}?"),
            _ => format!("unknown key; known here: {}", self.known.join(", ")),
        };
        Err(self.text.error(span.start, &self.path_of(&shown), problem))
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl<'v> Value<'v> {
    pub(crate) fn error(&self, problem: impl fmt::Display) -> RecordError {
        self.text.error(self.offset, &self.path, problem)
    }

    fn wrong(&self, want: &str) -> RecordError {
        self.error(format!("want {want}, not {}", self.value.type_str()))
    }

    pub(crate) fn string(&self) -> Result<&'v str, RecordError> {
        self.value.as_str().ok_or_else(|| self.wrong("a string"))
    }

    pub(crate) fn bool(&self) -> Result<bool, RecordError> {
        self.value.as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    pub(crate) fn number<T: TryFrom<i64>>(&self, range: &str) -> Result<T, RecordError> {
        let number = self.value.as_integer().ok_or_else(|| self.wrong(range))?;
        let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok().and_then(|n| T::try_from(n).ok());
        parsed.ok_or_else(|| self.error(format!("{}, want {range}", number.as_str())))
    }

    pub(crate) fn array(&self) -> Result<Vec<Value<'v>>, RecordError> {
        let items = self.value.as_array().ok_or_else(|| self.wrong("a list [ ]"))?;
        let item = |(index, item): (usize, &'v Spanned<DeValue<'v>>)| {
            let (path, offset) = (format!("{}[{index}]", self.path), item.span().start);
            self.text.places.borrow_mut().insert(path.clone(), offset);
            Value { text: self.text, path, offset, value: item.get_ref() }
        };
        Ok(items.iter().enumerate().map(item).collect())
    }

    pub(crate) fn table(&self) -> Result<Table<'v>, RecordError> {
        let table = self.value.as_table().ok_or_else(|| self.wrong("a table { }"))?;
        Ok(Table::new(self.text, self.path.clone(), self.offset, table))
    }

    pub(crate) fn parse<T>(&self) -> Result<T, RecordError>
    where
        T: TryFrom<&'v str>,
        T::Error: fmt::Display,
    {
        T::try_from(self.string()?).map_err(|error| self.error(error))
    }

    /// Parses a string by a parser that gives no reason for failure.
    pub(crate) fn with<T>(&self, want: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, RecordError> {
        let text = self.string()?;
        let shown = printable(text);
        parse(text).ok_or_else(|| self.error(format!("\"{shown}\" is not {want}")))
    }
}
