//! The tar of a bundle: ustar (POSIX.1-1988) in one form only, to and from entries. What another program could take in another
//! way is refused: the bytes that are read are those that would be written. Never writes a file.

use std::fmt;

use zeroize::Zeroizing;

use super::path::{EntryPath, NAME_LEN, PathError, ROOT};
use super::{Content, Entry};
use crate::secret::Secret;

/// Why an entry of a tar, or the tar, is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TarError {
    /// The tar ends inside the entry, or without two blocks of zeros.
    Cut,
    /// So many bytes follow the end.
    Trailing(usize),
    /// A block of zeros that another one does not follow.
    End,
    /// Another kind of tar, such as GNU's.
    NotUstar,
    /// An entry that is no file, link or directory: the name of its kind.
    Kind(&'static str),
    /// The first entry is not the file `manifest`, or another one is not below `root/`.
    Place,
    /// A field is not a number in octal digits, with zeros before it and a NUL at its end.
    Number(&'static str),
    /// A header that another program could read in another way: its checksum, its names, its unused fields.
    Form,
    /// The bytes behind a file, up to the next block, are not zeros.
    Padding,
    /// The path.
    Path(PathError),
    /// A mode with bits for set-user-ID, set-group-ID or sticky; sticky is allowed for a directory. A link has 0777.
    Mode(u32),
    /// An owner that does not fit the tar.
    Owner(u32),
    /// A link to nothing, or to more than fits; or a control character in it, or bytes that are not UTF-8.
    Target,
    /// A link or directory with content, or a file with a link's target.
    Content,
    /// The entries are not sorted by the bytes of their paths.
    Order,
    /// The same path twice.
    Duplicate,
    /// More entries than [`super::MAX_ENTRIES`].
    TooMany,
}

impl fmt::Display for TarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TarError::Cut => f.write_str("the tar ends too early"),
            TarError::Trailing(extra) => write!(f, "{extra} bytes after the end of the tar"),
            TarError::End => f.write_str("one block of zeros, want two at the end of the tar"),
            TarError::NotUstar => f.write_str("not a ustar header; make the tar in the form of docs/bundle.md"),
            TarError::Kind(kind) => write!(f, "{kind}; a bundle has files, symbolic links and directories only"),
            TarError::Place => f.write_str("the first entry is the file manifest, and all others are below root/"),
            TarError::Number(field) => write!(f, "the field {field} is not an octal number of its full length"),
            TarError::Form => f.write_str("a header that is not in the one form of docs/bundle.md"),
            TarError::Padding => f.write_str("bytes that are not zeros between the file and the next block"),
            TarError::Path(_) => f.write_str("refused"),
            TarError::Mode(mode) => {
                write!(f, "mode {mode:04o}; want at most 0777 (a directory may be sticky), and 0777 for a link")
            }
            TarError::Owner(number) => write!(f, "owner {number}, want at most {MAX_OWNER}"),
            TarError::Target => {
                write!(f, "the target of a link has 1 to {NAME_LEN} bytes of UTF-8 without control characters")
            }
            TarError::Content => f.write_str("content that its kind of entry cannot have"),
            TarError::Order => f.write_str("not at its place; entries are sorted by the bytes of their paths"),
            TarError::Duplicate => f.write_str("the same path twice"),
            TarError::TooMany => write!(f, "more than {} entries", super::MAX_ENTRIES),
        }
    }
}

impl std::error::Error for TarError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TarError::Path(error) => Some(error),
            _ => None,
        }
    }
}

/// An error, and the name of the entry that it is about.
pub(super) type Fault = (Vec<u8>, TarError);

/// The largest number of a user or group that fits seven octal digits.
pub(super) const MAX_OWNER: u32 = 0o777_7777;
const BLOCK: usize = 512;
const MANIFEST: &str = "manifest";

/// How many bytes the tar has.
pub(super) fn length(manifest: usize, entries: &[Entry]) -> usize {
    let padded = |length: usize| BLOCK.saturating_add(length.div_ceil(BLOCK).saturating_mul(BLOCK));
    let contents = entries.iter().map(|entry| match &entry.content {
        Content::File(bytes) => bytes.expose().len(),
        Content::Link(_) | Content::Directory => 0,
    });
    contents.map(padded).fold(padded(manifest).saturating_add(2 * BLOCK), usize::saturating_add)
}

/// Gives the bytes of the tar to `sink`, one piece after the other. The entries are in order and checked.
pub(super) fn write(manifest: &str, entries: &[Entry], sink: &mut dyn FnMut(&[u8])) {
    let manifest = manifest.as_bytes();
    let head =
        Head { prefix: "", name: MANIFEST, mode: 0o644, uid: 0, gid: 0, kind: b'0', size: manifest.len(), target: "" };
    put_head(&head, sink);
    put_content(manifest, sink);
    for entry in entries {
        let (prefix, name) = entry.path.fields();
        let head = Head {
            prefix: &prefix,
            name: &name,
            mode: u32::from(entry.mode),
            uid: entry.uid,
            gid: entry.gid,
            kind: b'5',
            size: 0,
            target: "",
        };
        match &entry.content {
            Content::File(bytes) => {
                put_head(&Head { kind: b'0', size: bytes.expose().len(), ..head }, sink);
                put_content(bytes.expose(), sink);
            }
            Content::Link(target) => put_head(&Head { kind: b'2', target, ..head }, sink),
            Content::Directory => put_head(&head, sink),
        }
    }
    sink(&[0; 2 * BLOCK]);
}

/// The bytes of the manifest, and the entries. Each entry is checked by itself, and that it is at its place.
pub(super) fn read(tar: &[u8]) -> Result<(&[u8], Vec<Entry>), Fault> {
    let mut rest = tar;
    let mut manifest = None;
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let (block, behind) = rest.split_first_chunk::<BLOCK>().ok_or((Vec::new(), TarError::Cut))?;
        if *block == [0; BLOCK] {
            end(behind)?;
            let manifest = manifest.ok_or((Vec::new(), TarError::Place))?;
            return Ok((manifest, entries));
        }
        let full_name = full_name(block);
        let fault = |why| (full_name.clone(), why);
        let raw = Raw::read(block).map_err(fault)?;
        let (content, behind) = content(raw.size, behind).map_err(fault)?;
        rest = behind;
        if manifest.is_none() {
            // The only entry that is not below `root/`.
            let (name, text) = (MANIFEST, "");
            let head =
                Head { prefix: "", name, mode: 0o644, uid: 0, gid: 0, kind: b'0', size: content.len(), target: text };
            if full_name != MANIFEST.as_bytes() {
                return Err(fault(TarError::Place));
            }
            if !is(&head, block) {
                return Err(fault(TarError::Form));
            }
            manifest = Some(content);
            continue;
        }
        if entries.len() >= super::MAX_ENTRIES {
            return Err(fault(TarError::TooMany));
        }
        let entry = entry(&raw, &full_name, content, block).map_err(fault)?;
        match entries.last().map(|before| before.path.cmp(&entry.path)) {
            Some(std::cmp::Ordering::Equal) => return Err(fault(TarError::Duplicate)),
            Some(std::cmp::Ordering::Greater) => return Err(fault(TarError::Order)),
            Some(std::cmp::Ordering::Less) | None => entries.push(entry),
        }
    }
}

/// Checks what the type of an entry does not.
pub(super) fn check(entry: &Entry) -> Result<(), TarError> {
    let mode = u32::from(entry.mode);
    let (fits, target) = match &entry.content {
        Content::File(_) => (mode <= 0o777, None),
        Content::Directory => (mode & !0o1777 == 0, None),
        Content::Link(target) => (mode == 0o777, Some(target)),
    };
    if !fits {
        return Err(TarError::Mode(mode));
    }
    if let Some(number) = [entry.uid, entry.gid].into_iter().find(|number| *number > MAX_OWNER) {
        return Err(TarError::Owner(number));
    }
    match target {
        Some(target) if !(1..=NAME_LEN).contains(&target.len()) || target.chars().any(char::is_control) => {
            Err(TarError::Target)
        }
        _ => Ok(()),
    }
}

fn entry(raw: &Raw<'_>, full_name: &[u8], content: &[u8], block: &[u8; BLOCK]) -> Result<Entry, TarError> {
    let path = full_name.strip_prefix(ROOT.as_bytes()).ok_or(TarError::Place)?;
    let path = EntryPath::from_bytes(path).map_err(TarError::Path)?;
    let target = std::str::from_utf8(raw.target).map_err(|_| TarError::Target)?;
    let mode = u16::try_from(raw.mode).map_err(|_| TarError::Mode(raw.mode))?;
    if raw.kind != b'0' && !content.is_empty() || raw.kind != b'2' && !target.is_empty() {
        return Err(TarError::Content);
    }
    let content_of = match raw.kind {
        b'0' => Content::File(Secret::new(content.to_vec())),
        b'2' => Content::Link(target.to_owned()),
        _ => Content::Directory,
    };
    let entry = Entry { path, mode, uid: raw.uid, gid: raw.gid, content: content_of };
    check(&entry)?;
    let (prefix, name) = entry.path.fields();
    let Raw { mode, uid, gid, kind, size, .. } = *raw;
    let head = Head { prefix: &prefix, name: &name, mode, uid, gid, kind, size, target };
    if is(&head, block) { Ok(entry) } else { Err(TarError::Form) }
}

/// What is behind the first block of zeros: another one, and nothing else.
fn end(behind: &[u8]) -> Result<(), Fault> {
    let fault = |why| (Vec::new(), why);
    let (block, extra) = behind.split_first_chunk::<BLOCK>().ok_or(fault(TarError::Cut))?;
    match (*block == [0; BLOCK], extra.len()) {
        (false, _) => Err(fault(TarError::End)),
        (true, 0) => Ok(()),
        (true, extra) => Err(fault(TarError::Trailing(extra))),
    }
}

fn content(size: usize, behind: &[u8]) -> Result<(&[u8], &[u8]), TarError> {
    let padded = size.div_ceil(BLOCK).saturating_mul(BLOCK);
    let (blocks, rest) = behind.split_at_checked(padded).ok_or(TarError::Cut)?;
    let (content, padding) = blocks.split_at_checked(size).ok_or(TarError::Cut)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(TarError::Padding);
    }
    Ok((content, rest))
}

/// The values of a header.
struct Head<'a> {
    prefix: &'a str,
    name: &'a str,
    mode: u32,
    uid: u32,
    gid: u32,
    kind: u8,
    size: usize,
    target: &'a str,
}

/// The fields of a header as they were read, before any check but those of numbers.
struct Raw<'a> {
    mode: u32,
    uid: u32,
    gid: u32,
    kind: u8,
    size: usize,
    target: &'a [u8],
}

impl Raw<'_> {
    fn read(block: &[u8; BLOCK]) -> Result<Raw<'_>, TarError> {
        if field(block, MAGIC_AT, MAGIC.len()) != MAGIC {
            return Err(TarError::NotUstar);
        }
        let kind = field(block, KIND_AT, 1).first().copied().unwrap_or_default();
        match kind {
            b'0' | b'2' | b'5' => {}
            b'1' => return Err(TarError::Kind("a hard link")),
            b'3' => return Err(TarError::Kind("a character device")),
            b'4' => return Err(TarError::Kind("a block device")),
            b'6' => return Err(TarError::Kind("a named pipe")),
            b'x' | b'g' | b'L' | b'K' => return Err(TarError::Kind("an extended header (pax or GNU)")),
            _ => return Err(TarError::Kind("an entry of an unknown kind")),
        }
        let number = |at, length, name| octal(field(block, at, length)).ok_or(TarError::Number(name));
        let small = |at, name| number(at, 8, name)?.try_into().map_err(|_| TarError::Number(name));
        Ok(Raw {
            mode: small(MODE_AT, "mode")?,
            uid: small(UID_AT, "uid")?,
            gid: small(GID_AT, "gid")?,
            kind,
            size: number(SIZE_AT, 12, "size")?.try_into().map_err(|_| TarError::Number("size"))?,
            target: text(field(block, TARGET_AT, NAME_LEN)),
        })
    }
}

const MODE_AT: usize = 100;
const UID_AT: usize = 108;
const GID_AT: usize = 116;
const SIZE_AT: usize = 124;
const KIND_AT: usize = 156;
const TARGET_AT: usize = 157;
const MAGIC_AT: usize = 257;
const PREFIX_AT: usize = 345;
const MAGIC: &[u8] = b"ustar\x0000";

fn field(block: &[u8; BLOCK], at: usize, length: usize) -> &[u8] {
    block.get(at..at.saturating_add(length)).unwrap_or_default()
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn octal(field: &[u8]) -> Option<u64> {
    let (end, digits) = field.split_last()?;
    let value = |value: u64, digit: &u8| matches!(digit, b'0'..=b'7').then(|| value << 3 | u64::from(digit & 7));
    (*end == 0).then_some(())?;
    digits.iter().try_fold(0, value)
}

/// Prefix and name. A name that is longer than its field has no NUL.
fn full_name(block: &[u8; BLOCK]) -> Vec<u8> {
    let (prefix, name) = (text(field(block, PREFIX_AT, 155)), text(field(block, 0, NAME_LEN)));
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

fn is(head: &Head<'_>, block: &[u8; BLOCK]) -> bool {
    let mut same = false;
    put_head(head, &mut |bytes| same = bytes == block);
    same
}

fn put_content(bytes: &[u8], sink: &mut dyn FnMut(&[u8])) {
    sink(bytes);
    let padding = bytes.len().next_multiple_of(BLOCK) - bytes.len();
    sink([0; BLOCK].get(..padding).unwrap_or_default());
}

fn put_head(head: &Head<'_>, sink: &mut dyn FnMut(&[u8])) {
    let mut block = Vec::with_capacity(BLOCK);
    let Head { prefix, name, mode, uid, gid, kind, size, target } = head;
    let put = |block: &mut Vec<u8>, bytes: &[u8], length: usize| {
        let end = block.len() + length;
        block.extend_from_slice(bytes);
        block.resize(end, 0);
    };
    put(&mut block, name.as_bytes(), NAME_LEN);
    for number in [mode, uid, gid] {
        put(&mut block, format!("{number:07o}").as_bytes(), 8);
    }
    put(&mut block, format!("{size:011o}").as_bytes(), 12);
    put(&mut block, b"00000000000", 12);
    put(&mut block, b"        ", 8);
    block.push(*kind);
    put(&mut block, target.as_bytes(), NAME_LEN);
    put(&mut block, MAGIC, 8);
    // No names of user and group, and no numbers of a device.
    put(&mut block, b"", 64 + 16);
    put(&mut block, prefix.as_bytes(), 155);
    put(&mut block, b"", 12);
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    if let Some(place) = block.get_mut(148..156) {
        place.copy_from_slice(sum.as_bytes());
    }
    sink(&block);
}

/// The whole tar in memory. It has the length that was computed from the start: a buffer that grows would leave copies of secrets.
pub(super) fn whole(manifest: &str, entries: &[Entry]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(length(manifest.len(), entries)));
    write(manifest, entries, &mut |piece| bytes.extend_from_slice(piece));
    bytes
}
