//! The JSON that commands answer with under `--json`, a type for each command. The answers are published: an item may
//! be added, and none may change. Never holds a secret, and prints nothing.

mod bundle;
mod image;

use base64ct::{Base64, Encoding};
use imprint::key_code::KeyCode;
use serde::Serialize;

pub(super) use bundle::{
    BundleDiff, BundleEntry, BundleKept, BundleLine, BundleMade, BundlePart, BundleRenewed, BundleShown, BundleSide,
    BundlesSigned,
};
pub(super) use image::{ImageFile, ImageModule};

/// `init`
#[derive(Serialize)]
pub(super) struct Made<'a> {
    pub(super) dir: String,
    pub(super) subject: &'a str,
    /// SHA-256 of the root certificate.
    pub(super) sha256: String,
    /// Length of the root certificate in bytes.
    pub(super) bytes: usize,
    pub(super) signers: Vec<ShownSigner>,
}

/// `node add`
#[derive(Serialize)]
pub(super) struct Added<'a> {
    pub(super) added: Vec<&'a str>,
    pub(super) warnings: Vec<Warned<'a>>,
}

/// One warning of `node add`.
#[derive(Serialize)]
pub(super) struct Warned<'a> {
    pub(super) about: &'a str,
    pub(super) node: &'a str,
    pub(super) other: Option<&'a str>,
    pub(super) message: String,
}

/// `payload`, if it wrote a file.
#[derive(Serialize)]
pub(super) struct Written<'a> {
    pub(super) node: &'a str,
    pub(super) file: String,
    pub(super) bytes: usize,
    /// The payload's identifier.
    pub(super) id: String,
    pub(super) expiry: String,
    /// How many earlier payloads it made void.
    pub(super) voided: usize,
    /// Key codes of the certificates that it revoked.
    pub(super) superseded: &'a [String],
    /// With `--as qemu` only: the argument of QEMU, as two words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) qemu: Option<[&'a str; 2]>,
}

/// `show`
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    pub(super) dir: String,
    pub(super) urls: Vec<String>,
    pub(super) pin: String,
    pub(super) ca: ShownCa<'a>,
    pub(super) intermediate: Intermediate,
    /// Whether the root's key is in the directory.
    pub(super) root_key: bool,
    pub(super) signers: Vec<ShownSigner>,
}

/// A key that signs payloads, in `init`, `show` and `signer`.
#[derive(Serialize)]
pub(super) struct ShownSigner {
    pub(super) kid: String,
    pub(super) algorithm: &'static str,
    /// The line of a site pin.
    pub(super) pin: String,
    pub(super) standing: &'static str,
}

/// `network`
#[derive(Serialize)]
pub(super) struct NetworkFile<'a> {
    /// The file that was written.
    pub(super) network: &'a str,
    pub(super) links: usize,
}

/// `signer`
#[derive(Serialize)]
pub(super) struct Signers {
    pub(super) signers: Vec<ShownSigner>,
}

/// `key make` and `key add`
#[derive(Serialize)]
pub(super) struct MadeKey<'a> {
    pub(super) name: &'a str,
    pub(super) code: String,
    /// Ed25519 public key, base64.
    pub(super) public: String,
    pub(super) in_image: bool,
    /// Where the private key was written to; null: it was not made here.
    pub(super) file: Option<&'a str>,
}

impl<'a> MadeKey<'a> {
    pub(super) fn of(name: &'a str, public: &[u8; 32], in_image: bool, file: Option<&'a str>) -> MadeKey<'a> {
        let (code, public) = (KeyCode::of(public).to_string(), Base64::encode_string(public));
        MadeKey { name, code, public, in_image, file }
    }
}

/// `key list`
#[derive(Serialize)]
pub(super) struct Keys<'a> {
    pub(super) keys: Vec<ListedKey<'a>>,
}

/// A key in `key list`.
#[derive(Serialize)]
pub(super) struct ListedKey<'a> {
    pub(super) name: &'a str,
    pub(super) code: String,
    /// Ed25519 public key, base64.
    pub(super) public: String,
    pub(super) in_image: bool,
    pub(super) made_at: String,
}

/// `key forget`
#[derive(Serialize)]
pub(super) struct ForgottenKey<'a> {
    pub(super) forgotten: &'a str,
    pub(super) code: &'a str,
}

/// The root certificate in `show`.
#[derive(Serialize)]
pub(super) struct ShownCa<'a> {
    pub(super) subject: &'a str,
    pub(super) not_before: String,
    pub(super) not_after: String,
}

/// The intermediate in `show`.
#[derive(Serialize)]
pub(super) struct Intermediate {
    pub(super) id: String,
    pub(super) not_after: String,
}

/// `approve`
#[derive(Serialize)]
pub(super) struct Approved<'a> {
    pub(super) node: &'a str,
    /// The key's code.
    pub(super) approved: &'a str,
}

/// `deny`
#[derive(Serialize)]
pub(super) struct Denied<'a> {
    /// `None`: the code is that of a caller at a door that may be no node, or several.
    pub(super) node: Option<&'a str>,
    /// The keys' codes.
    pub(super) denied: &'a [&'a str],
}

/// `admit CODE`
#[derive(Serialize)]
pub(super) struct Admitted<'a> {
    pub(super) node: &'a str,
    /// Code of the line key.
    pub(super) admitted: &'a str,
    /// Codes of other line keys that called as this node.
    pub(super) denied: &'a [String],
}

/// `admit NODE --for TIME`
#[derive(Serialize)]
pub(super) struct Armed<'a> {
    pub(super) node: &'a str,
    pub(super) until: String,
    /// Codes of line keys that call as this node already.
    pub(super) waiting: &'a [String],
}

/// `revoke`
#[derive(Serialize)]
pub(super) struct Revoked<'a> {
    pub(super) node: &'a str,
    /// The keys' codes.
    pub(super) revoked: &'a [&'a str],
    pub(super) payloads_void: usize,
    /// Codes of line keys that were let in at a door and had no certificate yet. Left out if there were none.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(super) not_let_in: &'a [String],
}

/// `ca rotate`
#[derive(Serialize)]
pub(super) struct Rotated<'a> {
    /// The identifier of the new intermediate.
    pub(super) intermediate: &'a str,
    pub(super) not_after: String,
}

/// `backup`
#[derive(Serialize)]
pub(super) struct Copied<'a> {
    pub(super) backup: &'a str,
}

/// `load`
#[derive(Serialize)]
pub(super) struct Stormed<'a> {
    pub(super) nodes: usize,
    pub(super) enrolled: usize,
    pub(super) doubled: usize,
    /// With `--bundle`: how many nodes have reported that they are available.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) available: Option<usize>,
    pub(super) retries: u64,
    pub(super) busy: u64,
    pub(super) memory: u64,
    pub(super) failure: Option<&'a str>,
    pub(super) half_ms: u64,
    pub(super) p99_ms: u64,
    pub(super) last_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this test fails, do not change it: programs read these names.
    #[test]
    fn published_names() {
        let intermediate = || Intermediate { id: "i".into(), not_after: "t".into() };
        let ca = ShownCa { subject: "CN=x", not_before: "s".into(), not_after: "t".into() };
        let signer = || ShownSigner { kid: "k".into(), algorithm: "a", pin: "p".into(), standing: "s" };
        let warned = Warned { about: "w", node: "n", other: None, message: "m".into() };
        let rows = [
            (
                crate::json::line(&Made {
                    dir: "d".into(),
                    subject: "CN=x",
                    sha256: "h".into(),
                    bytes: 1,
                    signers: Vec::new(),
                }),
                r#"{"bytes":1,"dir":"d","sha256":"h","signers":[],"subject":"CN=x"}"#,
            ),
            (
                crate::json::line(&Added { added: vec!["n"], warnings: vec![warned] }),
                r#"{"added":["n"],"warnings":[{"about":"w","message":"m","node":"n","other":null}]}"#,
            ),
            (
                crate::json::line(&Written {
                    node: "n",
                    file: "f".into(),
                    bytes: 1,
                    id: "i".into(),
                    expiry: "t".into(),
                    voided: 2,
                    superseded: &["k".into()],
                    qemu: None,
                }),
                r#"{"bytes":1,"expiry":"t","file":"f","id":"i","node":"n","superseded":["k"],"voided":2}"#,
            ),
            (
                crate::json::line(&Shown {
                    dir: "d".into(),
                    urls: vec!["u".into()],
                    pin: "p".into(),
                    ca,
                    intermediate: intermediate(),
                    root_key: true,
                    signers: vec![signer()],
                }),
                r#"{"ca":{"not_after":"t","not_before":"s","subject":"CN=x"},"dir":"d","intermediate":{"id":"i","not_after":"t"},"pin":"p","root_key":true,"signers":[{"algorithm":"a","kid":"k","pin":"p","standing":"s"}],"urls":["u"]}"#,
            ),
            (crate::json::line(&NetworkFile { network: "f", links: 1 }), r#"{"links":1,"network":"f"}"#),
            (
                crate::json::line(&Signers { signers: vec![signer()] }),
                r#"{"signers":[{"algorithm":"a","kid":"k","pin":"p","standing":"s"}]}"#,
            ),
            (crate::json::line(&Approved { node: "n", approved: "k" }), r#"{"approved":"k","node":"n"}"#),
            (crate::json::line(&Denied { node: Some("n"), denied: &["k"] }), r#"{"denied":["k"],"node":"n"}"#),
            (crate::json::line(&Denied { node: None, denied: &["k"] }), r#"{"denied":["k"],"node":null}"#),
            (
                crate::json::line(&Admitted { node: "n", admitted: "k", denied: &["l".into()] }),
                r#"{"admitted":"k","denied":["l"],"node":"n"}"#,
            ),
            (
                crate::json::line(&Armed { node: "n", until: "t".into(), waiting: &["k".into()] }),
                r#"{"node":"n","until":"t","waiting":["k"]}"#,
            ),
            (
                crate::json::line(&Revoked { node: "n", revoked: &["k"], payloads_void: 1, not_let_in: &[] }),
                r#"{"node":"n","payloads_void":1,"revoked":["k"]}"#,
            ),
            (
                crate::json::line(&Rotated { intermediate: "i", not_after: "t".into() }),
                r#"{"intermediate":"i","not_after":"t"}"#,
            ),
            (crate::json::line(&Copied { backup: "d" }), r#"{"backup":"d"}"#),
            (
                crate::json::line(&Stormed {
                    nodes: 1,
                    enrolled: 2,
                    doubled: 3,
                    available: None,
                    retries: 4,
                    busy: 5,
                    memory: 6,
                    failure: None,
                    half_ms: 7,
                    p99_ms: 8,
                    last_ms: 9,
                }),
                r#"{"busy":5,"doubled":3,"enrolled":2,"failure":null,"half_ms":7,"last_ms":9,"memory":6,"nodes":1,"p99_ms":8,"retries":4}"#,
            ),
        ];
        for (line, want) in rows {
            assert_eq!(line, want);
        }
    }
}
