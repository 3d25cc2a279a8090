//! The answer of a drive's reader, to bytes and back. A malicious medium may have taken over the reader, so nobody
//! vouches for these bytes: [`Answer::decode`] checks every length before it allocates memory. An answer never carries
//! more than labels, payloads that are not decoded yet, and messages for people.

use crate::payload::MAX_LEN;
use crate::secret::Secret;

/// The labels of volumes that are wanted by default. Case does not matter.
pub const LABELS: [&str; 3] = ["IMPRINT", "config-2", "cidata"];
/// The label of a medium with an admission key or a bundle key. Such a volume is never a source of payloads.
pub const KEY_LABEL: &str = "IMPRINT-KEY";
/// The longest answer in bytes: [`MAX_PAYLOADS`], and for each part less than 16 KiB of labels and messages.
pub const MAX_ANSWER: usize = MAX_PAYLOADS * MAX_LEN + MAX_PARTS * 16 * 1024 + 2048;
/// How many payloads an answer carries. Copies of one payload stop no boot, but nobody needs as many on one medium.
pub const MAX_PAYLOADS: usize = 4;
/// The most parts in an answer: the medium itself, and partitions on it.
pub const MAX_PARTS: usize = 8;
/// One volume for each supported format.
const MAX_VOLUMES: usize = 2;
/// An ISO 9660 volume has one label, and a second one in its Joliet descriptor.
const MAX_LABELS: usize = 2;
/// The longest label or name in bytes. A label has at most 32 bytes on the medium, and a partition's name 72. Both are
/// longer here, as escapes or UTF-8.
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
    /// Why the partition table cannot be used, if there is one and partitions are wanted.
    pub fault: Option<Fault>,
    /// The medium as a whole, and the partitions that hold something of use.
    pub parts: Vec<Part>,
}

/// A partition table that cannot be used.
#[derive(PartialEq, Eq, Debug)]
pub struct Fault {
    /// The error message.
    pub why: String,
    /// Whether one of its partitions has our type or our name.
    pub ours: bool,
}

/// The whole medium, or a partition.
#[derive(PartialEq, Eq, Debug)]
pub struct Part {
    /// The number of the partition; 0: the whole medium.
    pub number: u32,
    /// The name of the partition in its table.
    pub name: String,
    /// Whether the partition has our type or our name.
    pub ours: bool,
    /// The result of looking for the payload itself at the beginning of the partition.
    pub raw: Looked,
    /// The volumes in supported formats.
    pub volumes: Vec<Content>,
    /// The name of another file system or partition table in the same place, if there is one.
    pub beside: Option<String>,
}

/// A volume, and the files on it that may hold a payload.
#[derive(PartialEq, Eq, Debug)]
pub struct Content {
    /// `ISO 9660`
    pub format: String,
    /// The labels as they stand on the medium.
    pub labels: Vec<String>,
    /// The result for each place that volumes with such a label may have a payload in; empty if no label is wanted.
    pub files: Vec<(Place, Looked)>,
}

/// A file on a volume that may hold a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The payload itself.
    File,
    /// See [`super::user_data::user_data`].
    OpenStackUserData,
    /// See [`super::user_data::vendor_data`].
    OpenStackVendorData,
    /// The same, made for each instance by a service of the cloud (dynamic vendor data).
    OpenStackVendorData2,
    /// See [`super::user_data::user_data`].
    NoCloudUserData,
    /// An admission key, on a volume with the label [`KEY_LABEL`].
    Key,
    /// The key of the node's bundles, on such a volume.
    BundleKey,
}

impl Place {
    /// Every place, and the label of the volumes that may have it. `None`: every wanted volume may have it.
    pub const ALL: [(Place, Option<&str>); 5] = [
        (Place::File, None),
        (Place::OpenStackUserData, Some("config-2")),
        (Place::OpenStackVendorData, Some("config-2")),
        (Place::OpenStackVendorData2, Some("config-2")),
        (Place::NoCloudUserData, Some("cidata")),
    ];

    /// The path of the file.
    pub fn path(self) -> &'static [&'static str] {
        match self {
            Place::File => &["imprint", "payload"],
            Place::OpenStackUserData => &["openstack", "latest", "user_data"],
            Place::OpenStackVendorData => &["openstack", "latest", "vendor_data.json"],
            Place::OpenStackVendorData2 => &["openstack", "latest", "vendor_data2.json"],
            Place::NoCloudUserData => &["user-data"],
            Place::Key => &["imprint", "key"],
            Place::BundleKey => &["imprint", "bundle-key"],
        }
    }
}

/// The result of looking for a payload in one place.
#[derive(PartialEq, Eq, Debug)]
pub enum Looked {
    /// The reader was not asked to look there.
    Unwanted,
    /// There is no such file.
    Absent,
    /// There is data for somebody else; what is known of it.
    Foreign(String),
    /// The payload.
    Found(Secret),
    /// The data there cannot be read.
    Broken {
        /// Whether the error concerns the payload itself, and not the directories that lead to it.
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
                bytes.extend([MEDIUM, u8::from(medium.filtered)]);
                if let Some(Fault { why, ours }) = &medium.fault {
                    put(&mut bytes, if *ours { FAULT_OURS } else { FAULT }, cut(why));
                }
                for part in &medium.parts {
                    put(&mut bytes, if part.ours { PART_OURS } else { PART }, &part.number.to_be_bytes());
                    put(&mut bytes, NAME, part.name.as_bytes());
                    put(&mut bytes, BESIDE, cut(part.beside.as_deref().unwrap_or_default()));
                    put_looked(&mut bytes, &part.raw);
                    for volume in &part.volumes {
                        put(&mut bytes, VOLUME, volume.format.as_bytes());
                        for label in &volume.labels {
                            put(&mut bytes, LABEL, label.as_bytes());
                        }
                        for (place, looked) in &volume.files {
                            put(&mut bytes, FILE, &[code(*place)]);
                            put_looked(&mut bytes, looked);
                        }
                    }
                }
                bytes.push(END);
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
                let fault = match rest.first() {
                    Some(&(FAULT | FAULT_OURS)) => {
                        let ours = byte(rest)? == FAULT_OURS;
                        Some(Fault { why: text(rest, MAX_WORDS)?, ours })
                    }
                    _ => None,
                };
                let mut parts = Vec::new();
                // An answer that was cut short does not end with this byte.
                while rest.first() != Some(&END) {
                    parts.push(part(rest)?);
                    if parts.len() > MAX_PARTS || parts.iter().map(Part::payloads).sum::<usize>() > MAX_PAYLOADS {
                        return None;
                    }
                }
                byte(rest)?;
                Answer::Medium(Medium { filtered, fault, parts })
            }
            _ => return None,
        };
        rest.is_empty().then_some(answer)
    }
}

impl Part {
    /// How many payloads are in this part.
    pub fn payloads(&self) -> usize {
        self.looked().filter(|looked| matches!(looked, Looked::Found(_))).count()
    }

    /// Whether it is more than absent: a payload, something broken in its place, or a volume that should have one.
    pub fn counts(&self) -> bool {
        let nothing = |looked| matches!(looked, &Looked::Unwanted | &Looked::Absent | &Looked::Foreign(_));
        let [own, ..] = LABELS;
        let mut labels = self.volumes.iter().flat_map(|volume| &volume.labels);
        !self.looked().all(nothing) || labels.any(|label| self.ours || label.eq_ignore_ascii_case(own))
    }

    fn looked(&self) -> impl Iterator<Item = &Looked> {
        let files = self.volumes.iter().flat_map(|volume| volume.files.iter().map(|(_, looked)| looked));
        files.chain([&self.raw])
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
const FOREIGN: u8 = 13;
const FAULT: u8 = 14;
const FAULT_OURS: u8 = 15;
const PART: u8 = 16;
const PART_OURS: u8 = 17;
const NAME: u8 = 18;
const FILE: u8 = 19;
const END: u8 = 20;

fn code(place: Place) -> u8 {
    match place {
        Place::File => 0,
        Place::OpenStackUserData => 1,
        Place::OpenStackVendorData => 2,
        Place::OpenStackVendorData2 => 3,
        Place::NoCloudUserData => 4,
        Place::Key => 5,
        Place::BundleKey => 6,
    }
}

fn part(rest: &mut &[u8]) -> Option<Part> {
    let ours = match byte(rest)? {
        PART => false,
        PART_OURS => true,
        _ => return None,
    };
    let number = span(rest, 4).and_then(|mut four| number(&mut four))?;
    let name = (byte(rest)? == NAME).then(|| text(rest, MAX_LABEL)).flatten()?;
    let beside = (byte(rest)? == BESIDE).then(|| text(rest, MAX_WORDS)).flatten()?;
    let raw = looked(rest)?;
    let mut volumes = Vec::new();
    while rest.first() == Some(&VOLUME) && volumes.len() < MAX_VOLUMES {
        volumes.push(content(rest)?);
    }
    Some(Part { number, name, ours, raw, volumes, beside: Some(beside).filter(|words| !words.is_empty()) })
}

fn content(rest: &mut &[u8]) -> Option<Content> {
    let format = (byte(rest)? == VOLUME).then(|| text(rest, MAX_LABEL)).flatten()?;
    let (mut labels, mut files) = (Vec::new(), Vec::new());
    while rest.first() == Some(&LABEL) && labels.len() < MAX_LABELS {
        byte(rest)?;
        labels.push(text(rest, MAX_LABEL)?);
    }
    while rest.first() == Some(&FILE) && files.len() < Place::ALL.len() {
        byte(rest)?;
        let [code] = span(rest, 1)? else { return None };
        let keys = [Place::Key, Place::BundleKey];
        let place = Place::ALL.map(|(place, _)| place).into_iter().chain(keys).nth(usize::from(*code))?;
        files.push((place, looked(rest)?));
    }
    Some(Content { format, labels, files })
}

fn looked(rest: &mut &[u8]) -> Option<Looked> {
    Some(match byte(rest)? {
        UNWANTED => span(rest, 0).map(|_| Looked::Unwanted)?,
        ABSENT => span(rest, 0).map(|_| Looked::Absent)?,
        FOREIGN => Looked::Foreign(text(rest, MAX_WORDS)?),
        FOUND => Looked::Found(Secret::new(span(rest, MAX_LEN)?.to_vec())),
        BROKEN_FILE => Looked::Broken { at_the_file: true, why: text(rest, MAX_WORDS)? },
        BROKEN_VOLUME => Looked::Broken { at_the_file: false, why: text(rest, MAX_WORDS)? },
        _ => return None,
    })
}

fn put_looked(bytes: &mut Vec<u8>, looked: &Looked) {
    match looked {
        Looked::Unwanted => put(bytes, UNWANTED, &[]),
        Looked::Absent => put(bytes, ABSENT, &[]),
        Looked::Foreign(why) => put(bytes, FOREIGN, cut(why)),
        Looked::Found(file) => put(bytes, FOUND, file.expose()),
        Looked::Broken { at_the_file: true, why } => put(bytes, BROKEN_FILE, cut(why)),
        Looked::Broken { at_the_file: false, why } => put(bytes, BROKEN_VOLUME, cut(why)),
    }
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

    fn part(volumes: Vec<Content>) -> Part {
        Part { number: 0, name: String::new(), ours: false, raw: Looked::Unwanted, volumes, beside: None }
    }

    fn medium() -> Answer {
        let found = Content {
            format: "ISO 9660".into(),
            labels: vec!["CONFIG_2".into(), "cidata".into()],
            files: vec![
                (Place::File, Looked::Found(Secret::new(vec![7; MAX_LEN]))),
                (Place::NoCloudUserData, Looked::Foreign("for somebody else".into())),
            ],
        };
        let file = Looked::Broken { at_the_file: true, why: "reading at byte 5".into() };
        let broken = Content { format: "FAT".into(), labels: vec![String::new()], files: vec![(Place::File, file)] };
        let whole = Part { beside: Some("swap space".into()), ..part(vec![found, broken]) };
        let raw = Looked::Found(Secret::new(vec![8; MAX_LEN]));
        let third = Part { number: 3, name: "IMPRINT".into(), ours: true, raw, ..part(vec![]) };
        let fault = Some(Fault { why: "partitions 1 and 2 overlap".into(), ours: true });
        Answer::Medium(Medium { filtered: true, fault, parts: vec![whole, third] })
    }

    #[test]
    fn answers_arrive_as_they_are() {
        let volume = |label: &str, file| Content {
            format: "FAT".into(),
            labels: vec![label.into()],
            files: Place::ALL.into_iter().map(|(place, _)| (place, file_of(&file))).collect(),
        };
        let way = Looked::Broken { at_the_file: false, why: "é".into() };
        let one = |volume| Answer::Medium(Medium { filtered: false, fault: None, parts: vec![part(vec![volume])] });
        let fault = Some(Fault { why: String::new(), ours: false });
        for answer in [
            medium(),
            one(volume("IMPRINT", Looked::Absent)),
            one(volume("cidata", way)),
            one(Content { format: "FAT".into(), labels: vec![], files: vec![] }),
            Answer::Medium(Medium { filtered: true, fault, parts: vec![] }),
            Answer::Closed(123),
            Answer::Unconfined("confining the process: groups".into()),
            Answer::Unreadable("reading at byte 0".into()),
        ] {
            let bytes = answer.encode();
            assert!(bytes.expose().len() <= MAX_ANSWER);
            assert_eq!(Answer::decode(bytes.expose()), Some(answer));
        }
    }

    fn file_of(looked: &Looked) -> Looked {
        match looked {
            Looked::Broken { at_the_file, why } => Looked::Broken { at_the_file: *at_the_file, why: why.clone() },
            _ => Looked::Absent,
        }
    }

    /// An answer in which every item has its greatest length.
    #[test]
    fn the_longest_answer_fits() {
        let words = || "x".repeat(MAX_WORDS);
        let broken = || Looked::Broken { at_the_file: true, why: words() };
        let volume = || Content {
            format: "x".repeat(MAX_LABEL),
            labels: vec!["x".repeat(MAX_LABEL); MAX_LABELS],
            files: Place::ALL.into_iter().map(|(place, _)| (place, broken())).collect(),
        };
        let parts = (0..MAX_PARTS).map(|number| Part {
            number: u32::try_from(number).unwrap(),
            name: "x".repeat(MAX_LABEL),
            ours: true,
            raw: if number < MAX_PAYLOADS { Looked::Found(Secret::new(vec![0; MAX_LEN])) } else { broken() },
            volumes: vec![volume(), volume()],
            beside: Some(words()),
        });
        let fault = Some(Fault { why: words(), ours: true });
        let answer = Answer::Medium(Medium { filtered: true, fault, parts: parts.collect() });
        let bytes = answer.encode();
        assert!(bytes.expose().len() <= MAX_ANSWER, "{}", bytes.expose().len());
        assert_eq!(Answer::decode(bytes.expose()), Some(answer));
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
        for end in (0..200).chain(MAX_LEN..MAX_LEN + 300).chain(good.len() - 100..good.len()) {
            assert_eq!(Answer::decode(&good[..end]), None, "{end} bytes");
        }
        assert_eq!(Answer::decode(&[&good[..], &[0]].concat()), None, "a byte too many");
        let piece = |kind: u8, length: u32, content: &[u8]| [&[kind], &length.to_be_bytes()[..], content].concat();
        let begin =
            [piece(PART, 4, &[0; 4]), piece(NAME, 0, b""), piece(BESIDE, 0, b""), piece(UNWANTED, 0, b"")].concat();
        let all = |parts: &[u8]| [&[MEDIUM, 1][..], parts, &[END]].concat();
        let of = |volume: &[Vec<u8>]| all(&[&begin[..], &volume.concat()].concat());
        let (start, end) = (piece(VOLUME, 3, b"FAT"), [piece(FILE, 1, &[0]), piece(ABSENT, 0, b"")].concat());
        let found = [piece(FILE, 1, &[0]), piece(FOUND, 1, b"x")].concat();
        assert!(Answer::decode(&of(&[start.clone(), end.clone()])).is_some());
        let raw = |looked: &[u8]| all(&[&begin[..begin.len() - 5], looked].concat());
        assert!(Answer::decode(&raw(&piece(FOUND, 1, b"x"))).is_some());
        for (why, bytes) in [
            ("a length of 4 GiB", raw(&piece(FOUND, u32::MAX, b"x"))),
            ("a payload that is too long", raw(&piece(FOUND, 65_537, &[0; 65_537]))),
            ("five payloads", of(&[start.clone(), found.repeat(4), start.clone(), found.clone()])),
            ("more files than places", of(&[start.clone(), end.repeat(Place::ALL.len() + 1)])),
            (
                "a file that there is not",
                // Behind those of payloads there are those of keys.
                of(&[
                    start.clone(),
                    piece(FILE, 1, &[u8::try_from(Place::ALL.len() + 2).unwrap()]),
                    piece(ABSENT, 0, b""),
                ]),
            ),
            ("a label that is too long", of(&[start.clone(), piece(LABEL, 513, &[b'x'; 513]), end.clone()])),
            ("a label in no encoding", of(&[start.clone(), piece(LABEL, 1, &[0xff]), end.clone()])),
            ("three labels", of(&[start.clone(), piece(LABEL, 0, b"").repeat(3), end.clone()])),
            ("three volumes", of(&[[&start[..], &end[..]].concat().repeat(3)])),
            ("nine parts", all(&begin.repeat(9))),
            ("no end", of(&[start.clone(), end.clone()]).split_last().unwrap().1.to_vec()),
            ("words that are too long", piece(UNREADABLE, 1025, &[b'x'; 1025])),
            ("a partition without a number", all(&piece(PART, 3, b"123"))),
            ("a kind that there is not", piece(21, 0, b"")),
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
                assert!(medium.parts.len() <= MAX_PARTS);
            }
        }
    }
}
