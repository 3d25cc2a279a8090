//! Finds a payload inside data for cloud-init: as the whole of the user data, as one part of a MIME multipart, or as a
//! key of the vendor data. Whoever may start instances in a cloud vouches for user data, and the cloud for vendor data.
//! Most such data is for somebody else: it is passed over without an error. Pure, bytes to a payload: never decodes the
//! payload itself.

mod mime;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::credential::content::{self, CredentialError, is_comment};
use crate::medium::ARMOUR;
use crate::payload::MAX_LEN;
use crate::secret::Secret;
use mime::Read;

/// The most bytes of such a file that are read. A payload of the greatest length, twice in base64, has 120 KiB.
pub const MAX_FILE: usize = 256 * 1024;

/// What such a file holds.
#[derive(PartialEq, Eq, Debug)]
pub enum Content {
    /// A payload, not yet decoded.
    Payload(Secret),
    /// Data for somebody else, and what is known of it.
    Foreign(&'static str),
    /// A payload that is damaged, and why.
    Damaged(&'static str),
}

/// Reads `user_data` of OpenStack or `user-data` of NoCloud: text with our armour, or a MIME message with such a part.
pub fn user_data(bytes: &[u8]) -> Content {
    let bytes = without_mark(bytes);
    let mut found = None;
    match mime::each_part(bytes, &mut |part| merge(&mut found, text(part))) {
        Read::NoMime => merge(&mut found, text(bytes)),
        Read::Whole => {}
        Read::Some => merge(&mut found, Content::Foreign(MANY)),
    }
    found.unwrap_or(Content::Foreign(OTHER))
}

/// Reads `vendor_data.json` of OpenStack: key `imprint` of the object has text with our armour, or plain base64.
pub fn vendor_data(bytes: &[u8]) -> Content {
    #[derive(Deserialize)]
    struct VendorData {
        imprint: Option<String>,
    }
    if let Some(content) = utf16(bytes) {
        return content;
    }
    let bytes = without_mark(bytes);
    // A list, too, would be taken for the fields of the object.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Content::Foreign("it is no JSON object");
    }
    match serde_json::from_slice(bytes) {
        Ok(VendorData { imprint: None }) => Content::Foreign("it has no key imprint"),
        Ok(VendorData { imprint: Some(value) }) => {
            let value = Zeroizing::new(value);
            match text(value.as_bytes()) {
                Content::Foreign(_) => base64(value.as_bytes()),
                content => content,
            }
        }
        // Only the key imprint has a type, and must not stand twice.
        Err(error) if error.is_data() && error.to_string().starts_with("duplicate field") => {
            Content::Damaged("its key imprint stands twice; remove one")
        }
        Err(error) if error.is_data() => Content::Damaged(
            "its key imprint is not a string; give it what imprint-host payload NODE --as user-data prints",
        ),
        Err(_) if holds(bytes, b"\"imprint\"") => {
            Content::Damaged("it is not valid JSON, and has the word \"imprint\"; a JSON checker shows the place")
        }
        Err(_) => Content::Foreign("it is no JSON object"),
    }
}

const OTHER: &str = "it is for somebody else";
const MANY: &str = "it has more than 256 parts, or parts more than 8 deep, and those were not read";
/// RFC 1952 §2.3.1
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Reads text: comment lines that begin with `#` and blank lines, then the armour, then such lines again.
fn text(bytes: &[u8]) -> Content {
    if let Some(content) = utf16(bytes) {
        return content;
    }
    let bytes = without_mark(bytes);
    if bytes.starts_with(&GZIP) {
        return Content::Foreign("it is compressed with gzip, which is not read");
    }
    match content::armoured(bytes) {
        Ok(Some((_, body))) => base64(body),
        Ok(None) => without_armour(bytes),
        Err(CredentialError::ArmourBehind) => {
            Content::Damaged("other text stands behind its payload; give one payload and nothing else")
        }
        Err(_) => Content::Damaged("its payload has no line -----END IMPRINT PAYLOAD-----; it was cut short"),
    }
}

/// What is known of text that does not begin with the armour.
fn without_armour(bytes: &[u8]) -> Content {
    let begin = format!("-----BEGIN {ARMOUR}-----");
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.by_ref().find(|line| !is_comment(line)).unwrap_or_default();
    if holds(first, b"BEGIN ") && holds(first, ARMOUR.as_bytes()) {
        Content::Damaged("the line where its payload begins is not -----BEGIN IMPRINT PAYLOAD-----")
    } else if lines.any(|line| line == begin.as_bytes()) {
        Content::Foreign("a payload in it is not read, as other text stands before it")
    } else {
        Content::Foreign(OTHER)
    }
}

const LONG: &str = "its payload has more than 65536 bytes";

/// Decodes a payload in base64, as in a credential.
fn base64(bytes: &[u8]) -> Content {
    match content::base64(bytes.trim_ascii()) {
        Ok(payload) if payload.expose().is_empty() => Content::Damaged("its payload is empty"),
        Ok(payload) if payload.expose().len() > MAX_LEN => Content::Damaged(LONG),
        Ok(payload) => Content::Payload(payload),
        Err(CredentialError::Length) => Content::Damaged(LONG),
        Err(_) => Content::Damaged("the base64 of its payload is damaged; copy it again"),
    }
}

/// Adds what one part holds to what other parts hold. A payload replaces data for others, and damage replaces both.
fn merge(found: &mut Option<Content>, content: Content) {
    *found = Some(match (found.take(), content) {
        (None | Some(Content::Foreign(OTHER)), content) => content,
        (Some(before @ Content::Damaged(_)), _) => before,
        (_, content @ Content::Damaged(_)) => content,
        (Some(Content::Payload(one)), Content::Payload(other)) if one != other => {
            Content::Damaged("it has two parts with different payloads; remove one")
        }
        (Some(before), Content::Foreign(_)) => before,
        (Some(_), content @ Content::Payload(_)) => content,
    });
}

/// Without the byte order mark that some editors write.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Text in UTF-16, as some editors write it, is not read. Where our armour or our key is in it, somebody meant it for us.
fn utf16(bytes: &[u8]) -> Option<Content> {
    // What the little-endian form and the big-endian form of a word have in common.
    let wide = |word: &str| word.bytes().flat_map(|byte| [0, byte]).skip(1).collect::<Vec<u8>>();
    if holds(bytes, &wide(ARMOUR)) || holds(bytes, &wide("\"imprint\"")) {
        return Some(Content::Damaged("its text is in UTF-16; save it in UTF-8"));
    }
    let marked = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    marked.then_some(Content::Foreign("its text is in UTF-16, which is not read"))
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[cfg(test)]
mod tests;
