//! Reads and writes deterministic CBOR (RFC 8949 §4.2) whose map keys are small integers. serde_cbor accepts other
//! encodings, too; this module therefore writes again what it has read, and compares the bytes. It never interprets a
//! payload's items; `codec` does that.

use std::collections::BTreeMap;
use std::fmt;

use serde_cbor::Value;
use zeroize::{Zeroize, Zeroizing};

use super::form::Form;

/// One step from the root of the payload to an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The value of this key of a map.
    Key(i8),
    /// This element of an array.
    Index(usize),
}

/// A map entry with a negative key. It is ignored, and kept so that it can be written again.
#[derive(Clone, PartialEq, Debug)]
pub struct Extension {
    path: Vec<Step>,
    place: String,
    key: i8,
    value: Value,
}

impl Extension {
    /// A text in the map of the payload itself.
    pub(super) fn text(key: i8, text: &str) -> Extension {
        Extension { path: Vec::new(), place: String::new(), key, value: Value::Text(text.to_owned()) }
    }

    /// The text with this key in the map of the payload itself, if this is it.
    pub(super) fn as_text(&self, key: i8) -> Option<&str> {
        match &self.value {
            Value::Text(text) if self.path.is_empty() && self.key == key => Some(text),
            _ => None,
        }
    }
}

/// `key -1 in network[6]`
impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.place.is_empty() { "the payload" } else { &self.place };
        write!(f, "key {} in {place}", self.key)
    }
}

/// Why bytes are not a payload: the place, the item and the broken rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecodeError {
    /// Byte offset of the item from the start of the payload.
    pub offset: usize,
    /// The item's name, `network[0].match`; empty for the payload as a whole.
    pub place: String,
    /// The fault of the item.
    pub problem: Problem,
}

/// A fault of an item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// More than [`super::MAX_LEN`] bytes.
    TooLong(usize),
    /// The bytes end inside an item, or the input is empty.
    Truncated,
    /// Zeros from here to the end: the kernel gives a file of a cpio archive the length that the archive says, and fills it
    /// with zeros if the archive was cut short (init/initramfs.c, `do_name`).
    Zeros,
    /// This many bytes follow the payload.
    Trailing(usize),
    /// A payload in another form, or a file of a known other kind.
    Form(Form),
    /// Not CBOR, or CBOR that serde_cbor does not read, such as deep nesting.
    NotCbor(&'static str),
    /// CBOR, but not in deterministic encoding.
    NotDeterministic(&'static str),
    /// A version that this program does not know.
    Version(u64),
    /// A mandatory item is missing.
    Missing(&'static str),
    /// A critical key (0 or above) that version 1 does not define.
    UnknownKey(i128),
    /// The item has another CBOR type than this one.
    Kind(&'static str),
    /// The item has the right CBOR type, but its value is not allowed.
    Value(String),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.place.is_empty() { "" } else { ", " };
        write!(f, "byte {}{place}{}: {}", self.offset, self.place, self.problem)
    }
}

/// The fault without its place, for callers that know a better place, such as the line of a record.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::TooLong(len) => {
                write!(f, "{len} bytes are too many for a payload, the limit is {}", super::MAX_LEN)
            }
            Problem::Truncated => write!(f, "the payload ends here; it was cut short, make or copy it again"),
            Problem::Zeros => {
                write!(f, "nothing but zeros from here on; the payload was cut short, make or copy it again")
            }
            Problem::Trailing(extra) => {
                write!(f, "{extra} bytes after the payload; give one payload and nothing else")
            }
            Problem::Form(form) => write!(
                f,
                "not a payload in CBOR: it is {form}, or use the output of imprint-host payload NODE --as cbor"
            ),
            Problem::NotCbor(why) => write!(f, "not a payload: {why}"),
            Problem::NotDeterministic(why) => {
                write!(f, "not in deterministic CBOR (RFC 8949 section 4.2): {why}; use the encoder's canonical mode")
            }
            Problem::Version(version) => {
                write!(f, "payload version {version}, this program reads version 1; update the image")
            }
            Problem::Missing(what) => write!(f, "{what} is missing"),
            Problem::UnknownKey(key) => {
                write!(f, "unknown critical key {key}; the payload is newer than this program, update the image")
            }
            Problem::Kind(want) => write!(f, "want {want}"),
            Problem::Value(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Reads one item and refuses every encoding but the deterministic one. The caller has checked the length.
pub(super) fn read(bytes: &[u8]) -> Result<Value, DecodeError> {
    let at = |offset: usize, problem| DecodeError { offset, place: String::new(), problem };
    let mut value: Value = serde_cbor::from_slice(bytes).map_err(|error| {
        let offset = usize::try_from(error.offset()).unwrap_or(bytes.len()).min(bytes.len());
        if error.is_eof() {
            at(bytes.len(), Problem::Truncated)
        } else if error.to_string().contains("trailing") {
            let extra = skip(bytes).len();
            at(bytes.len().saturating_sub(extra), Problem::Trailing(extra))
        } else {
            at(offset, Problem::NotCbor(not_cbor(bytes, &error)))
        }
    })?;
    let again = write(&value, bytes.len());
    if let Some(offset) = first_difference(bytes, &again) {
        wipe(&mut value);
        return Err(at(offset, Problem::NotDeterministic(classify(bytes, &again, offset))));
    }
    Ok(value)
}

/// Why bytes are not CBOR. The library's own words are for programmers.
fn not_cbor(bytes: &[u8], error: &serde_cbor::Error) -> &'static str {
    let is_text = |text: &str| !text.chars().any(|c| c.is_control() && !c.is_whitespace());
    if std::str::from_utf8(bytes).is_ok_and(is_text) {
        "it is text; take the file that imprint-host payload wrote"
    } else if error.to_string().contains("recursion") {
        "its items are nested too deeply; make it again"
    } else {
        "its bytes are damaged or of another format; make or copy it again"
    }
}

/// Writes one item. `capacity` must be enough for all of it: a buffer that grows leaves a copy of a secret behind.
pub(super) fn write(value: &Value, capacity: usize) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    // Writing a Value to memory cannot fail. If it did, `read` would see an empty result and refuse the payload.
    if serde_cbor::to_writer(&mut *bytes, value).is_err() {
        bytes.zeroize();
    }
    bytes
}

fn first_difference(given: &[u8], again: &[u8]) -> Option<usize> {
    if given == again {
        return None;
    }
    let common = given.iter().zip(again).take_while(|(a, b)| a == b).count();
    Some(common)
}

/// The rule against numbers in more bytes than they need.
pub(super) const NOT_SHORTEST: &str = "a number or length is not in its shortest form";

/// Guesses the broken rule from the first byte that differs.
fn classify(given: &[u8], again: &[u8], offset: usize) -> &'static str {
    let (Some(ours), Some(theirs)) = (again.get(offset), given.get(offset)) else {
        return "map keys repeated";
    };
    let (major, info) = (theirs >> 5, theirs & 0x1f);
    match (major, info) {
        (6, _) => "tags are not used",
        (2..=5, 31) => "indefinite length",
        (5, _) if ours >> 5 == 5 && info < 24 => "map keys repeated",
        (_, 24..=27) if ours >> 5 == major => NOT_SHORTEST,
        _ => "map keys out of order or repeated",
    }
}

/// Wipes every text and byte string in a tree that may hold secrets.
pub(super) fn wipe(value: &mut Value) {
    match value {
        Value::Bytes(bytes) => bytes.zeroize(),
        Value::Text(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Map(map) => map.values_mut().for_each(wipe),
        Value::Tag(_, inner) => wipe(inner),
        _ => {}
    }
}

/// Where an item is: its steps from the root and its name. The byte offset is computed from the steps when an error
/// needs it.
#[derive(Clone)]
pub(super) struct Place<'a> {
    bytes: &'a [u8],
    steps: Vec<Step>,
    name: String,
}

impl<'a> Place<'a> {
    pub(super) fn root(bytes: &'a [u8]) -> Place<'a> {
        Place { bytes, steps: Vec::new(), name: String::new() }
    }

    fn key(&self, key: i8, name: &str) -> Place<'a> {
        let dot = if self.name.is_empty() { "" } else { "." };
        self.step(Step::Key(key), format!("{}{dot}{name}", self.name))
    }

    fn index(&self, index: usize) -> Place<'a> {
        self.step(Step::Index(index), format!("{}[{index}]", self.name))
    }

    fn step(&self, step: Step, name: String) -> Place<'a> {
        let mut steps = self.steps.clone();
        steps.push(step);
        Place { bytes: self.bytes, steps, name }
    }

    pub(super) fn error(&self, problem: Problem) -> DecodeError {
        DecodeError { offset: offset(self.bytes, &self.steps), place: self.name.clone(), problem }
    }
}

/// Follows the steps through bytes that `read` has accepted as deterministic CBOR.
fn offset(bytes: &[u8], steps: &[Step]) -> usize {
    let mut rest = bytes;
    for step in steps {
        let Some((_, count, after)) = head(rest) else { break };
        rest = after;
        match step {
            Step::Index(index) => rest = (0..*index).fold(rest, |rest, _| skip(rest)),
            Step::Key(key) => {
                for _ in 0..count {
                    let value = skip(rest);
                    let found = matches!(head(rest), Some((0, n, _)) if i64::try_from(n).is_ok_and(|n| n == i64::from(*key)))
                        || matches!(head(rest), Some((1, n, _)) if i64::try_from(n).is_ok_and(|n| -1 - n == i64::from(*key)));
                    rest = value;
                    if found {
                        break;
                    }
                    rest = skip(value);
                }
            }
        }
    }
    bytes.len().saturating_sub(rest.len())
}

/// (major type, argument, the bytes after the head)
pub(super) fn head(bytes: &[u8]) -> Option<(u8, u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let width = match first & 0x1f {
        info @ 0..=23 => return Some((first >> 5, u64::from(info), rest)),
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => return None,
    };
    let (argument, rest) = rest.split_at_checked(width)?;
    Some((first >> 5, argument.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)), rest))
}

/// The first item, without the bytes behind it. `None`: the bytes end inside the item, or the item has an indefinite
/// length. Never recurses, because the bytes come from outside and may be nested deeply.
pub fn first_item(bytes: &[u8]) -> Option<&[u8]> {
    let (mut rest, mut items) = (bytes, 1u64);
    while let Some(fewer) = items.checked_sub(1) {
        let (major, argument, behind) = head(rest)?;
        let (content, inner) = match major {
            2 | 3 => (usize::try_from(argument).ok()?, 0),
            4 => (0, argument),
            5 => (0, argument.saturating_mul(2)),
            6 => (0, 1),
            _ => (0, 0),
        };
        rest = behind.get(content..)?;
        items = fewer.saturating_add(inner);
    }
    bytes.get(..bytes.len() - rest.len())
}

/// The bytes after one item.
fn skip(bytes: &[u8]) -> &[u8] {
    let Some((major, argument, rest)) = head(bytes) else { return &[] };
    let count = usize::try_from(argument).unwrap_or(usize::MAX);
    match major {
        2 | 3 => rest.get(count..).unwrap_or_default(),
        4 => (0..count).try_fold(rest, skip_some).unwrap_or_default(),
        5 => (0..count.saturating_mul(2)).try_fold(rest, skip_some).unwrap_or_default(),
        _ => rest,
    }
}

fn skip_some(rest: &[u8], _: usize) -> Option<&[u8]> {
    (!rest.is_empty()).then(|| skip(rest))
}

/// One value and where it is.
pub(super) struct Item<'a> {
    value: Value,
    pub(super) place: Place<'a>,
}

impl<'a> Item<'a> {
    pub(super) fn new(value: Value, place: Place<'a>) -> Item<'a> {
        Item { value, place }
    }

    pub(super) fn map(self) -> Result<Fields<'a>, DecodeError> {
        let Value::Map(entries) = self.value else { return Err(self.place.error(Problem::Kind("a map"))) };
        Ok(Fields { entries, place: self.place })
    }

    /// An array with at least one element. An empty array is an error: a payload leaves it out.
    pub(super) fn array(self) -> Result<Vec<Item<'a>>, DecodeError> {
        match self.value {
            Value::Array(items) if items.is_empty() => {
                Err(self.place.error(Problem::Value("an empty array; leave the key out instead".to_owned())))
            }
            Value::Array(items) => {
                let place = self.place;
                Ok(items.into_iter().enumerate().map(|(i, value)| Item { value, place: place.index(i) }).collect())
            }
            _ => Err(self.place.error(Problem::Kind("an array"))),
        }
    }

    /// Reads each element of an array with `read`.
    pub(super) fn each<T>(self, read: impl Fn(Item<'a>) -> Result<T, DecodeError>) -> Result<Vec<T>, DecodeError> {
        self.array()?.into_iter().map(read).collect()
    }

    pub(super) fn bytes(self) -> Result<Vec<u8>, DecodeError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.place.error(Problem::Kind("a byte string"))),
        }
    }

    pub(super) fn fixed<const N: usize>(self) -> Result<[u8; N], DecodeError> {
        let place = self.place.clone();
        let bytes = self.bytes()?;
        let len = bytes.len();
        bytes.try_into().map_err(|_| place.error(Problem::Value(format!("{len} bytes, want {N}"))))
    }

    pub(super) fn text(self) -> Result<String, DecodeError> {
        match self.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.place.error(Problem::Kind("a text string"))),
        }
    }

    pub(super) fn uint(&self) -> Result<u64, DecodeError> {
        match self.value {
            Value::Integer(n) => u64::try_from(n).map_err(|_| self.place.error(Problem::Kind("an unsigned integer"))),
            _ => Err(self.place.error(Problem::Kind("an unsigned integer"))),
        }
    }

    /// An unsigned integer that fits `T`; `want` names the range for the error.
    pub(super) fn number<T: TryFrom<u64>>(&self, want: &str) -> Result<T, DecodeError> {
        let number = self.uint()?;
        T::try_from(number).map_err(|_| self.place.error(Problem::Value(format!("{number}, want {want}"))))
    }

    /// A flag is either `true` or absent, so that it has only one encoding.
    pub(super) fn flag(self) -> Result<bool, DecodeError> {
        match self.value {
            Value::Bool(true) => Ok(true),
            Value::Bool(false) => Err(self.place.error(Problem::Value("false; leave the key out instead".to_owned()))),
            _ => Err(self.place.error(Problem::Kind("true"))),
        }
    }

    /// A text string of a validated type.
    pub(super) fn parse<T>(self) -> Result<T, DecodeError>
    where
        T: for<'t> TryFrom<&'t str, Error: fmt::Display>,
    {
        let place = self.place.clone();
        let text = self.text()?;
        T::try_from(&text).map_err(|error| place.error(Problem::Value(error.to_string())))
    }
}

/// The entries of a map, taken one by one.
pub(super) struct Fields<'a> {
    entries: BTreeMap<Value, Value>,
    pub(super) place: Place<'a>,
}

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, key: i8, name: &'static str) -> Option<Item<'a>> {
        let value = self.entries.remove(&Value::Integer(i128::from(key)))?;
        Some(Item { value, place: self.place.key(key, name) })
    }

    pub(super) fn need(&mut self, key: i8, name: &'static str) -> Result<Item<'a>, DecodeError> {
        self.take(key, name).ok_or_else(|| self.place.error(Problem::Missing(name)))
    }

    /// Reads each element of an array; an absent array has no elements.
    pub(super) fn list<T>(
        &mut self,
        key: i8,
        name: &'static str,
        read: impl Fn(Item<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        self.take(key, name).map_or(Ok(Vec::new()), |item| item.each(read))
    }

    pub(super) fn flag(&mut self, key: i8, name: &'static str) -> Result<bool, DecodeError> {
        self.take(key, name).map_or(Ok(false), Item::flag)
    }

    /// Collects the entries that were not taken; all of them must be extensions.
    pub(super) fn finish(mut self, extensions: &mut Vec<Extension>) -> Result<(), DecodeError> {
        for (key, value) in std::mem::take(&mut self.entries) {
            let Value::Integer(number) = key else {
                return Err(self.place.error(Problem::Value("a map key that is not an integer".to_owned())));
            };
            match i8::try_from(number) {
                Ok(key @ -24..=-1) => {
                    extensions.push(Extension {
                        path: self.place.steps.clone(),
                        place: self.place.name.clone(),
                        key,
                        value,
                    });
                }
                Ok(key) if key >= 0 => return Err(self.place.key(key, "?").error(Problem::UnknownKey(number))),
                _ => {
                    let why = format!("map key {number}, want -24 to 23");
                    return Err(self.place.error(Problem::Value(why)));
                }
            }
        }
        Ok(())
    }
}

/// When decoding stops at an error, the entries that were not taken may contain a token or a key: wipe them.
impl Drop for Fields<'_> {
    fn drop(&mut self) {
        self.entries.values_mut().for_each(wipe);
    }
}

/// Puts an extension back into the map that it was read from. If the map no longer exists, the extension is dropped.
pub(super) fn restore(root: &mut Value, extension: &Extension) {
    let mut value = root;
    for step in &extension.path {
        let next = match (step, value) {
            (Step::Key(key), Value::Map(map)) => map.get_mut(&Value::Integer(i128::from(*key))),
            (Step::Index(index), Value::Array(items)) => items.get_mut(*index),
            _ => None,
        };
        let Some(next) = next else { return };
        value = next;
    }
    if let Value::Map(map) = value {
        map.insert(Value::Integer(i128::from(extension.key)), extension.value.clone());
    }
}
