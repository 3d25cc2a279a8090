//! Finds words of the kernel command line that are nearly imprint's, and tells which word was meant. Never refuses a
//! word, and never repeats a value, which may be a payload.

use std::fmt;

use super::{WORDS, Word};
use crate::shown::Printable;

/// A word that looks like one of imprint's and is not. imprint ignores the word, and tells its author.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NearMiss {
    /// The word as it stands on the command line, up to its `=`.
    pub word: Printable,
    /// The word of the table that was meant.
    pub meant: &'static str,
    /// The word is spelt right, but stands after `--`, where the words of init stand.
    pub behind_dashes: bool,
}

impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NearMiss { word, meant, behind_dashes } = self;
        if *behind_dashes {
            write!(
                f,
                "\"{word}\" on the kernel command line was ignored: words after -- are for init; write it before --"
            )
        } else {
            write!(f, "\"{word}\" on the kernel command line was ignored; if you mean {meant}, write it like that")
        }
    }
}

/// The word that was meant by `name` (a word up to its `=`), if `name` looks like a word of imprint. Only for words
/// that the parser neither takes nor refuses.
pub(super) fn near_miss(name: &str) -> Option<NearMiss> {
    let folded: String = name.chars().take(LONGEST).map(folded).collect();
    // dracut's own words begin with `rd.`.
    let folded = folded.strip_prefix("rd.").unwrap_or(&folded);
    let meant = if folded.replace('.', "") == "bootif" {
        "BOOTIF="
    } else {
        let end = folded.find('.').unwrap_or(folded.len());
        let (stem, rest) = match folded.strip_prefix(STEM) {
            Some(rest) => (STEM, rest),
            None => folded.split_at_checked(end)?,
        };
        let rest = rest.trim_start_matches('.');
        if distance(stem, STEM) > 1 {
            return None;
        }
        if rest.is_empty() {
            "imprint="
        } else {
            let (away, meant) = nearest_by(&format!("{STEM}.{rest}"));
            // Too many letters differ: the word is somebody else's, not a slip of the pen.
            if away > SLIP {
                return None;
            }
            meant
        }
    };
    Some(NearMiss { word: Printable::up_to(name, 80), meant, behind_dashes: false })
}

/// A word after `--` that is imprint's, or begins like one.
pub(super) fn behind_dashes(name: &str) -> Option<NearMiss> {
    let ours = name == STEM || name.starts_with("imprint.") || name == "BOOTIF";
    let word = Printable::up_to(name, 80);
    ours.then_some(NearMiss { word, meant: "", behind_dashes: true })
}

/// The word of the table that is spelt most alike; of several, the shortest.
pub(super) fn nearest(name: &str) -> &'static str {
    nearest_by(name).1
}

/// The nearest word of the table, and its distance.
fn nearest_by(name: &str) -> (usize, &'static str) {
    let name: String = name.chars().take(LONGEST).collect();
    let away = |word: &Word| distance(word.name.trim_end_matches('='), &name);
    let all = WORDS.iter().map(|word| (away(word), word.name));
    all.min_by_key(|(away, word)| (*away, word.len())).unwrap_or((LONGEST, "imprint="))
}

/// How many letters may be wrong.
const SLIP: usize = 3;

/// Every word of imprint but BOOTIF= begins with this.
const STEM: &str = "imprint";
/// How many characters of a word are compared. No word of imprint is nearly as long; a payload without its name may be
/// much longer.
const LONGEST: usize = 40;

/// Ignores case, and takes every separator for a dot.
fn folded(c: char) -> char {
    if matches!(c, '_' | '-' | ':' | '/') { '.' } else { c.to_ascii_lowercase() }
}

/// How many letters have to be put in, left out, changed, or swapped with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (mut before, mut last) = (Vec::new(), (0..=b.len()).collect::<Vec<usize>>());
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i.saturating_add(1)];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX);
            let next = j.saturating_add(1);
            let mut best = at(&last, j).saturating_add(usize::from(x != y));
            best = best.min(at(&last, next).saturating_add(1)).min(at(&row, j).saturating_add(1));
            let swapped = i.checked_sub(1).zip(j.checked_sub(1));
            if let Some((_, j)) = swapped.filter(|(i, j)| a.get(*i) == Some(y) && b.get(*j) == Some(x)) {
                best = best.min(at(&before, j).saturating_add(1));
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;

    #[test]
    fn distances() {
        for (a, b, want) in [
            ("", "abc", 3),
            ("imprint", "imprint", 0),
            ("imrpint", "imprint", 1),
            ("imprnt", "imprint", 1),
            ("inprint", "imprint", 1),
            ("print", "imprint", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (want, want), "{a} {b}");
        }
    }

    /// Earlier versions ignored each of these silently, and the node booted on as if the word were not there.
    #[test]
    fn what_looks_like_a_word_of_ours_is_said() {
        for (word, meant) in [
            ("IMPRINT=require", "imprint="),
            ("Imprint=require", "imprint="),
            ("imrpint=require", "imprint="),
            ("rd.imprint=require", "imprint="),
            ("imprint_source=file", "imprint.source="),
            ("imprint-source=file", "imprint.source="),
            ("imprintsource=file", "imprint.source="),
            ("IMPRINT.SOURCE=file", "imprint.source="),
            ("rd.imprint.source=file", "imprint.source="),
            ("imprimt.source=file", "imprint.source="),
            ("imprint_approval_timeout=5", "imprint.approval-timeout="),
            ("imprint_sources=file", "imprint.source="),
            ("imprint:debug", "imprint.debug"),
            ("bootif=01-52-54-00-12-34-56", "BOOTIF="),
            ("BOOT_IF=01-52-54-00-12-34-56", "BOOTIF="),
        ] {
            let options = Options::parse(&format!("quiet {word} ro")).unwrap();
            let [near] = &options.near_misses[..] else { panic!("{word}: {:?}", options.near_misses) };
            assert_eq!(near.meant, meant, "{word}");
            let plain = Options { near_misses: Vec::new(), ..options };
            assert_eq!(plain, Options::parse("").unwrap(), "{word}: it must change nothing");
        }
        let near = Options::parse("IMPRINT=require").unwrap().near_misses;
        assert_eq!(
            near[0].to_string(),
            "\"IMPRINT\" on the kernel command line was ignored; if you mean imprint=, write it like that"
        );
    }

    /// Words of other programs, from real command lines.
    #[test]
    fn what_is_not_ours_is_nobodys_business() {
        let line = "BOOT_IMAGE=/vmlinuz root=UUID=1 ro quiet splash console=ttyS0,115200n8 print-fatal-signals=1 \
                    printk.time=1 ip=dhcp rd.neednet=1 rd.live.image sprint=1 blueprint.x=1 reprint=2 imp=1 bootdev=eth0 imprint-test.prompt \
                    systemd.unit=x init=/bin/sh";
        assert_eq!(Options::parse(line).unwrap().near_misses, []);
    }

    /// A misspelt imprint.payload= is a secret all the same.
    #[test]
    fn no_value_is_shown() {
        let near = Options::parse("imprint_payload=c2VjcmV0 -- imprint.payload=c2VjcmV0").unwrap().near_misses;
        let shown: Vec<String> = near.iter().map(|near| format!("{near} {near:?}")).collect();
        assert_eq!(shown.len(), 2);
        assert!(!shown.concat().contains("c2VjcmV0"), "{shown:?}");
    }

    #[test]
    fn what_stands_behind_dashes_is_said() {
        let options = Options::parse("quiet -- imprint=require").unwrap();
        let [near] = &options.near_misses[..] else { panic!("{:?}", options.near_misses) };
        assert_eq!(
            near.to_string(),
            "\"imprint\" on the kernel command line was ignored: words after -- are for init; write it before --"
        );
        assert!(Options::parse("imprint=auto -- quiet").unwrap().near_misses.is_empty());
    }
}
