//! Reads the options of a DHCPv4 message (RFC 2132, 3396, 3397, 3442) by their numbers. Never looks at the message
//! around them, and asks for nothing.

use std::net::{IpAddr, Ipv4Addr};

use crate::payload::{DnsName, Prefix, Route};

/// A fixed-size option occurs more than once, with different values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Contradiction;

/// The options of one message, in all places where they may stand (option overload, RFC 2132 §9.3).
pub(super) struct Options<'a>([&'a [u8]; 3]);

impl<'a> Options<'a> {
    pub(super) fn new(fixed: &'a [u8], area: &'a [u8]) -> Options<'a> {
        let alone = Options([area, &[], &[]]);
        let more = alone.number::<1>(52).ok().flatten().map_or(0, |[more]| more);
        let field = |bit: u8, range: std::ops::Range<usize>| -> &'a [u8] {
            if more & bit != 0 { fixed.get(range).unwrap_or_default() } else { &[] }
        };
        Options([area, field(1, 108..236), field(2, 44..108)])
    }

    /// The value of each occurrence of an option.
    fn pieces(&self, wanted: u8) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        for mut rest in self.0 {
            while let Some((code, after)) = rest.split_first() {
                match *code {
                    0 => rest = after,
                    255 => break,
                    code => {
                        let Some((length, after)) = after.split_first() else { break };
                        let Some((bytes, after)) = after.split_at_checked(usize::from(*length)) else { break };
                        if code == wanted {
                            pieces.push(bytes);
                        }
                        rest = after;
                    }
                }
            }
        }
        pieces
    }

    /// The value of an option, joined if it was too long for one occurrence (RFC 3396).
    fn get(&self, code: u8) -> Option<Vec<u8>> {
        Some(self.pieces(code)).filter(|pieces| !pieces.is_empty()).map(|pieces| pieces.concat())
    }

    /// A value of fixed size. An option that occurs more than once, whole each time, is not one value in pieces: its
    /// values have to be equal. `None`: the option is missing, or has another size.
    pub(super) fn number<const N: usize>(&self, code: u8) -> Result<Option<[u8; N]>, Contradiction> {
        let pieces = self.pieces(code);
        if let Ok(value) = <[u8; N]>::try_from(pieces.concat()) {
            return Ok(Some(value));
        }
        let whole: Vec<[u8; N]> = pieces.iter().filter_map(|piece| <[u8; N]>::try_from(*piece).ok()).collect();
        match once(whole).as_slice() {
            [value] => Ok(Some(*value)),
            [] => Ok(None),
            _ => Err(Contradiction),
        }
    }

    /// A text. Its pieces are joined, unless all of them are equal.
    pub(super) fn text(&self, code: u8) -> Option<String> {
        let pieces = once(self.pieces(code));
        (!pieces.is_empty()).then(|| String::from_utf8_lossy(&pieces.concat()).into_owned())
    }

    /// A list of fixed-size items; empty if the length is not a multiple of the size.
    pub(super) fn all<const N: usize>(&self, code: u8) -> Vec<[u8; N]> {
        let value = self.get(code).unwrap_or_default();
        let (items, rest) = value.as_chunks::<N>();
        if rest.is_empty() { items.to_vec() } else { Vec::new() }
    }

    pub(super) fn prefix(&self, address: Ipv4Addr) -> Result<Option<Prefix>, Contradiction> {
        let mask = self.number(1)?.map_or(u32::MAX, u32::from_be_bytes);
        // A mask has ones, and then zeros only.
        let length = u8::try_from(mask.leading_ones()).ok();
        let length = length.filter(|_| mask.leading_ones().saturating_add(mask.trailing_zeros()) >= 32);
        Ok(length.and_then(|length| Prefix::new(IpAddr::V4(address), length)))
    }

    /// Classless routes (RFC 3442). Host bits are ignored, as that RFC says. `None`: the list is missing, malformed or
    /// empty.
    pub(super) fn classless(&self) -> Option<Vec<Route>> {
        let value = self.get(121).filter(|value| !value.is_empty())?;
        let mut rest = value.as_slice();
        let mut routes = Vec::new();
        while let Some((length, after)) = rest.split_first() {
            let octets = usize::from(length.div_ceil(8));
            let (significant, after) = after.split_at_checked(octets)?;
            let (gateway, after) = after.split_first_chunk::<4>()?;
            let mut network = [0; 4];
            network.get_mut(..octets)?.copy_from_slice(significant);
            let mask = u32::MAX.checked_shl(32_u32.checked_sub((*length).into())?).unwrap_or(0);
            let network = Ipv4Addr::from(u32::from_be_bytes(network) & mask);
            let destination = Prefix::new(network.into(), *length)?;
            let gateway = Some(Ipv4Addr::from(*gateway)).filter(|gateway| !gateway.is_unspecified()).map(IpAddr::V4);
            routes.push(Route { destination, gateway, metric: None });
            rest = after;
        }
        Some(routes)
    }

    /// The options that the agent has a use for, that are there, and that cannot be read; 0: an option is longer than what is left of
    /// its field.
    pub(super) fn unread(&self) -> Vec<u8> {
        let mut unread = Vec::new();
        let mut is_bad = |code: u8, bad: bool| unread.extend(bad.then_some(code));
        is_bad(0, self.0.iter().any(|area| cut(area)));
        for code in [3, 6] {
            is_bad(code, self.get(code).is_some() && self.all::<4>(code).is_empty());
        }
        is_bad(26, self.get(26).is_some() && !matches!(self.number::<2>(26), Ok(Some(_))));
        is_bad(119, self.get(119).is_some_and(|list| names_end(&list) < list.len()));
        is_bad(121, self.get(121).is_some() && self.classless().is_none());
        unread
    }

    /// Search domains (RFC 3397), or else the domain name (RFC 2132 §3.17).
    pub(super) fn search(&self) -> Vec<DnsName> {
        self.get(119).map_or_else(|| self.domain(), |list| names(&list))
    }

    /// The domain of the node (RFC 2132 §3.17). Some servers write several.
    pub(super) fn domain(&self) -> Vec<DnsName> {
        let text = self.text(15).unwrap_or_default();
        // A final dot says that the name is complete. A search domain always is.
        let names = text.trim_end_matches('\0').split_whitespace().map(|name| name.strip_suffix('.').unwrap_or(name));
        names.filter_map(|name| DnsName::try_from(name).ok()).collect()
    }
}

/// Whether an option of a field is longer than what is left of the field.
fn cut(mut area: &[u8]) -> bool {
    while let Some((code, rest)) = area.split_first() {
        area = match (*code, rest.split_first()) {
            (0, _) => rest,
            (255, _) => return false,
            (_, None) => return true,
            (_, Some((length, rest))) => match rest.split_at_checked(usize::from(*length)) {
                Some((_, rest)) => rest,
                None => return true,
            },
        };
    }
    false
}

/// Each item once, at its first place. Servers that send an option twice send a list twice.
pub(super) fn once<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

/// Names in the encoding of RFC 1035 §4.1.4, with pointers into the same list. Stops at the first malformed name.
pub(crate) fn names(list: &[u8]) -> Vec<DnsName> {
    let mut names = Vec::new();
    each_name(list, |name| names.extend(DnsName::try_from(name)));
    names
}

/// Where the names of a list end that can be read.
fn names_end(list: &[u8]) -> usize {
    each_name(list, |_| ())
}

fn each_name(list: &[u8], mut take: impl FnMut(&str)) -> usize {
    let mut at = 0;
    while let Some((name, next)) = name(list, at).filter(|_| at < list.len()) {
        take(&name);
        at = next;
    }
    at
}

/// The name at an offset, and where the next one begins.
pub(crate) fn name(list: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut labels, mut at, mut next): (Vec<&str>, _, _) = (Vec::new(), start, None);
    loop {
        let length = *list.get(at)?;
        let after = at.checked_add(1)?;
        match length {
            0 => return Some((labels.join("."), next.unwrap_or(after))),
            1..64 => {
                let end = after.checked_add(usize::from(length))?;
                labels.push(std::str::from_utf8(list.get(after..end)?).ok()?);
                at = end;
            }
            // A pointer leads backwards, so the loop ends.
            192.. => {
                let target = usize::from(u16::from_be_bytes([length & 63, *list.get(after)?]));
                next = next.or(after.checked_add(1));
                at = Some(target).filter(|target| *target < at)?;
            }
            _ => return None,
        }
        if labels.len() > 127 {
            return None;
        }
    }
}
