//! The answer of a drive's reader, to bytes and back. A malicious medium may have taken over the reader, so nobody
//! vouches for these bytes: [`Answer::decode`] checks every length before it allocates memory. An answer never carries
//! more than labels, payloads that are not decoded yet, and messages for people.

use crate::payload::MAX_LEN;
use crate::secret::Secret;

/// The longest answer in bytes: two volumes, each with a payload, their labels, and a few messages.
pub const MAX_ANSWER: usize = 2 * MAX_LEN + 16 * 1024;
/// One volume for each supported format.
const MAX_VOLUMES: usize = 2;
/// An ISO 9660 volume has one label, and a second one in its Joliet descriptor.
const MAX_LABELS: usize = 2;
/// In bytes. A label has at most 32 bytes on the medium, and is longer here as escapes or UTF-8.
const MAX_LABEL: usize = 512;
/// Messages are cut to this many bytes.
const MAX_WORDS: usize = 1024;

/// The result of reading a drive.
#[derive(PartialEq, Eq, Debug)]
pub enum Answer {
    /// The device node cannot be opened; the errno.
    Closed(u32),
    /// The reader could not give up its rights, so it did not read the medium.
    Unconfined(String),
    /// The medium cannot be read.
    Unreadable(String),
    /// The medium was read.
    Medium(Medium),
}

/// The content of a medium.
#[derive(PartialEq, Eq, Debug)]
pub struct Medium {
    /// A system call filter (seccomp) was active while the medium was read.
    pub filtered: bool,
    /// The volumes in supported formats.
    pub volumes: Vec<Content>,
    /// Another file system or partition table on the medium.
    pub beside: Option<String>,
}

/// A volume and its payload file.
#[derive(PartialEq, Eq, Debug)]
pub struct Content {
    /// `ISO 9660`
    pub format: String,
    /// The labels as they stand on the medium.
    pub labels: Vec<String>,
    /// The result of looking for the payload file.
    pub file: Looked,
}

/// The result of looking for the payload file on a volume.
#[derive(PartialEq, Eq, Debug)]
pub enum Looked {
    /// No label of the volume is wanted, so the reader did not look.
    Unwanted,
    /// The volume has no payload file.
    Absent,
    /// The volume is in the partition of this number. Payload files in partitions are not read.
    InPartition(u32),
    /// The bytes of the file.
    Found(Secret),
    /// The file cannot be read.
    Broken {
        /// The error concerns the file itself, and not the directories that lead to it.
        at_the_file: bool,
        /// The error message.
        why: String,
    },
}

impl Answer {
    /// Writes the answer for the pipe.
    pub fn encode(&self) -> Secret {
        // Allocated at its full size: a buffer that grows would leave copies of a payload behind.
        let mut bytes = Vec::with_capacity(MAX_ANSWER);
        match self {
            Answer::Closed(errno) => {
                bytes.push(CLOSED);
                bytes.extend(errno.to_be_bytes());
            }
            Answer::Unconfined(why) => put(&mut bytes, UNCONFINED, cut(why)),
            Answer::Unreadable(why) => put(&mut bytes, UNREADABLE, cut(why)),
            Answer::Medium(medium) => {
                let count = u8::try_from(medium.volumes.len()).unwrap_or(u8::MAX);
                bytes.extend([MEDIUM, u8::from(medium.filtered), count]);
                put(&mut bytes, BESIDE, cut(medium.beside.as_deref().unwrap_or_default()));
                for volume in &medium.volumes {
                    put(&mut bytes, VOLUME, volume.format.as_bytes());
                    for label in &volume.labels {
                        put(&mut bytes, LABEL, label.as_bytes());
                    }
                    match &volume.file {
                        Looked::Unwanted => put(&mut bytes, UNWANTED, &[]),
                        Looked::Absent => put(&mut bytes, ABSENT, &[]),
                        Looked::InPartition(number) => put(&mut bytes, IN_PARTITION, &number.to_be_bytes()),
                        Looked::Found(file) => put(&mut bytes, FOUND, file.expose()),
                        Looked::Broken { at_the_file: true, why } => put(&mut bytes, BROKEN_FILE, cut(why)),
                        Looked::Broken { at_the_file: false, why } => put(&mut bytes, BROKEN_VOLUME, cut(why)),
                    }
                }
            }
        }
        Secret::new(bytes)
    }

    /// False if the medium was read without a system call filter.
    pub fn is_filtered(&self) -> bool {
        !matches!(self, Answer::Medium(Medium { filtered: false, .. }))
    }

    /// Reads an answer. `None` if the bytes are not an answer.
    pub fn decode(mut bytes: &[u8]) -> Option<Answer> {
        let rest = &mut bytes;
        let answer = match byte(rest)? {
            CLOSED => Answer::Closed(number(rest)?),
            UNCONFINED => Answer::Unconfined(text(rest, MAX_WORDS)?),
            UNREADABLE => Answer::Unreadable(text(rest, MAX_WORDS)?),
            MEDIUM => {
                let filtered = match byte(rest)? {
                    0 => false,
                    1 => true,
                    _ => return None,
                };
                let count = usize::from(byte(rest)?);
                if count > MAX_VOLUMES {
                    return None;
                }
                let beside = (byte(rest)? == BESIDE).then(|| text(rest, MAX_WORDS)).flatten()?;
                let mut volumes = Vec::new();
                for _ in 0..count {
                    volumes.push(content(rest)?);
                }
                Answer::Medium(Medium { filtered, volumes, beside: Some(beside).filter(|words| !words.is_empty()) })
            }
            _ => return None,
        };
        rest.is_empty().then_some(answer)
    }
}

const CLOSED: u8 = 1;
const UNCONFINED: u8 = 2;
const UNREADABLE: u8 = 3;
const MEDIUM: u8 = 4;
const BESIDE: u8 = 5;
const VOLUME: u8 = 6;
const LABEL: u8 = 7;
const UNWANTED: u8 = 8;
const ABSENT: u8 = 9;
const FOUND: u8 = 10;
const BROKEN_FILE: u8 = 11;
const BROKEN_VOLUME: u8 = 12;
const IN_PARTITION: u8 = 13;

fn content(rest: &mut &[u8]) -> Option<Content> {
    let format = (byte(rest)? == VOLUME).then(|| text(rest, MAX_LABEL)).flatten()?;
    let mut labels = Vec::new();
    let file = loop {
        match byte(rest)? {
            LABEL if labels.len() < MAX_LABELS => labels.push(text(rest, MAX_LABEL)?),
            UNWANTED => break span(rest, 0).map(|_| Looked::Unwanted)?,
            ABSENT => break span(rest, 0).map(|_| Looked::Absent)?,
            IN_PARTITION => break span(rest, 4).and_then(|mut four| number(&mut four)).map(Looked::InPartition)?,
            FOUND => break Looked::Found(Secret::new(span(rest, MAX_LEN)?.to_vec())),
            BROKEN_FILE => break Looked::Broken { at_the_file: true, why: text(rest, MAX_WORDS)? },
            BROKEN_VOLUME => break Looked::Broken { at_the_file: false, why: text(rest, MAX_WORDS)? },
            _ => return None,
        }
    };
    Some(Content { format, labels, file })
}

/// Writes one piece: kind, length, bytes.
fn put(bytes: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    bytes.push(kind);
    bytes.extend(length.to_be_bytes());
    bytes.extend(content);
}

/// Cuts a message to the length that `decode` accepts.
fn cut(words: &str) -> &[u8] {
    words.get(..words.floor_char_boundary(MAX_WORDS)).unwrap_or_default().as_bytes()
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    Some(*first)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (number, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(u32::from_be_bytes(*number))
}

fn span<'a>(rest: &mut &'a [u8], most: usize) -> Option<&'a [u8]> {
    let length = usize::try_from(number(rest)?).ok().filter(|length| *length <= most)?;
    let (span, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(span)
}

fn text(rest: &mut &[u8], most: usize) -> Option<String> {
    String::from_utf8(span(rest, most)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn medium() -> Answer {
        let found = Content {
            format: "ISO 9660".into(),
            labels: vec!["CONFIG_2".into(), "cidata".into()],
            file: Looked::Found(Secret::new(vec![7; MAX_LEN])),
        };
        let file = Looked::Broken { at_the_file: true, why: "reading at byte 5".into() };
        let broken = Content { format: "FAT".into(), labels: vec![String::new()], file };
        Answer::Medium(Medium { filtered: true, volumes: vec![found, broken], beside: Some("swap space".into()) })
    }

    #[test]
    fn answers_arrive_as_they_are() {
        let absent = Content { format: "FAT".into(), labels: vec!["IMPRINT".into()], file: Looked::Absent };
        let unwanted = Content { format: "FAT".into(), labels: vec![], file: Looked::Unwanted };
        let way = Looked::Broken { at_the_file: false, why: "é".into() };
        let one = |volume| Answer::Medium(Medium { filtered: false, volumes: vec![volume], beside: None });
        for answer in [
            medium(),
            one(absent),
            one(unwanted),
            one(Content { format: "FAT".into(), labels: vec!["IMPRINT".into()], file: Looked::InPartition(128) }),
            one(Content { format: "FAT".into(), labels: vec![], file: way }),
            Answer::Medium(Medium { filtered: true, volumes: vec![], beside: None }),
            Answer::Closed(123),
            Answer::Unconfined("confining the process: groups".into()),
            Answer::Unreadable("reading at byte 0".into()),
        ] {
            let bytes = answer.encode();
            assert!(bytes.expose().len() <= MAX_ANSWER);
            assert_eq!(Answer::decode(bytes.expose()), Some(answer));
        }
    }

    /// A message that is too long is cut, and the answer still arrives.
    #[test]
    fn words_that_are_too_long_are_cut() {
        let long = Answer::Unreadable("é".repeat(MAX_WORDS)).encode();
        assert_eq!(Answer::decode(long.expose()), Some(Answer::Unreadable("é".repeat(MAX_WORDS / 2))));
    }

    /// A reader that a medium has taken over may send any bytes.
    #[test]
    fn what_is_no_answer_is_refused() {
        let good = medium().encode().expose().to_vec();
        for end in (0..100).chain(good.len() - 100..good.len()) {
            assert_eq!(Answer::decode(&good[..end]), None, "{end} bytes");
        }
        assert_eq!(Answer::decode(&[&good[..], &[0]].concat()), None, "a byte too many");
        let piece = |kind: u8, length: u32, content: &[u8]| [&[kind], &length.to_be_bytes()[..], content].concat();
        let many = |count, volumes: &[u8]| [&[MEDIUM, 1, count][..], &piece(BESIDE, 0, b""), volumes].concat();
        let of = |volume: &[Vec<u8>]| many(1, &volume.concat());
        let (start, end) = (piece(VOLUME, 3, b"FAT"), piece(ABSENT, 0, b""));
        assert!(Answer::decode(&of(&[start.clone(), end.clone()])).is_some());
        for (why, bytes) in [
            ("a length of 4 GiB", of(&[start.clone(), piece(FOUND, u32::MAX, b"x")])),
            ("a payload that is too long", of(&[start.clone(), piece(FOUND, 65_537, &[0; 65_537])])),
            ("a label that is too long", of(&[start.clone(), piece(LABEL, 513, &[b'x'; 513]), end.clone()])),
            ("a label in no encoding", of(&[start.clone(), piece(LABEL, 1, &[0xff]), end.clone()])),
            ("three labels", of(&[start.clone(), piece(LABEL, 0, b"").repeat(3), end.clone()])),
            ("three volumes", many(3, &[&start[..], &end[..]].concat().repeat(3))),
            ("a volume fewer than it says", many(2, &[&start[..], &end[..]].concat())),
            ("a volume more than it says", many(0, &[&start[..], &end[..]].concat())),
            ("words that are too long", piece(UNREADABLE, 1025, &[b'x'; 1025])),
            ("a partition without a number", of(&[start.clone(), piece(IN_PARTITION, 3, b"123")])),
            ("a kind that there is not", piece(14, 0, b"")),
            ("neither true nor false", vec![MEDIUM, 2, 0]),
        ] {
            assert_eq!(Answer::decode(&bytes), None, "{why}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Answer::decode(&bytes);
        }

        #[test]
        fn a_damaged_answer_is_bounded(at in 0..400usize, value in proptest::prelude::any::<u8>()) {
            let mut bytes = medium().encode().expose().to_vec();
            bytes[at] = value;
            if let Some(Answer::Medium(medium)) = Answer::decode(&bytes) {
                assert!(medium.volumes.len() <= MAX_VOLUMES);
            }
        }
    }
}
