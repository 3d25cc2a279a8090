//! What configuration server and node tell each other about a node's bundle, in JSON: how it stands, and what became of it. Never
//! sends anything. Unknown items are ignored, so that either end may be newer.

use serde::{Deserialize, Serialize};

/// The version of both.
const VERSION: u32 = 1;
/// The longest of either, in bytes.
pub const MAX_ANSWER: usize = 4096;

/// How a node's bundle, or an upload of it, stands at the server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Standing {
    /// 1
    pub version: u32,
    /// How it stands.
    pub bundle: Stand,
    /// The counter for the next bundle that the node makes.
    pub next: u64,
    /// The tag of the upload, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The code of the encrypted file, for people to compare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The counter of the bundle, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<u64>,
    /// Whom to ask, or who has decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// The counter of the version that is current, where the question was how it stands with all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
}

/// Where a bundle stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stand {
    /// There is none.
    None,
    /// It waits for an administrator.
    Pending,
    /// It is approved and signed.
    Approved,
    /// An administrator has denied it.
    Denied,
    /// The node is to make a new one.
    Renew,
    /// An administrator has removed it.
    Removed,
}

impl Standing {
    /// A standing with nothing but what every one has.
    pub fn new(bundle: Stand, next: u64) -> Standing {
        Standing { version: VERSION, bundle, next, tag: None, code: None, counter: None, who: None, current: None }
    }

    /// Reads a standing.
    pub fn read(bytes: &[u8]) -> Result<Standing, JsonError> {
        read(bytes, |standing: &Standing| standing.version)
    }
}

/// What became of a bundle at the node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// 1
    pub version: u32,
    /// What became of it.
    pub state: Outcome,
    /// The bundle's counter.
    pub counter: u64,
    /// SHA-256 of the encrypted file, 64 hexadecimal digits.
    pub sha256: String,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What became of a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The node runs with it.
    Available,
    /// It could not be applied, or a unit failed.
    Failed,
}

impl Report {
    /// A report without a detail.
    pub fn new(state: Outcome, counter: u64, sha256: &[u8; 32]) -> Report {
        Report { version: VERSION, state, counter, sha256: crate::hex::encode(sha256), detail: None }
    }

    /// Reads a report.
    pub fn read(bytes: &[u8]) -> Result<Report, JsonError> {
        read(bytes, |report: &Report| report.version)
    }
}

/// Why bytes are no standing or report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JsonError {
    /// More than [`MAX_ANSWER`] bytes.
    TooLong(usize),
    /// Not the JSON that is expected; the parser's words.
    Json(String),
    /// A version that this program does not know.
    Version(u32),
}

impl std::fmt::Display for JsonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JsonError::TooLong(length) => write!(f, "{length} bytes of JSON, the limit is {MAX_ANSWER}"),
            JsonError::Json(why) => write!(f, "not the JSON of docs/bundle.md: {why}"),
            JsonError::Version(version) => {
                write!(f, "version {version} of the JSON, this program reads version {VERSION}; update the older side")
            }
        }
    }
}

impl std::error::Error for JsonError {}

fn read<T: serde::de::DeserializeOwned>(bytes: &[u8], version: fn(&T) -> u32) -> Result<T, JsonError> {
    if bytes.len() > MAX_ANSWER {
        return Err(JsonError::TooLong(bytes.len()));
    }
    let value: T = serde_json::from_slice(bytes).map_err(|error| JsonError::Json(error.to_string()))?;
    match version(&value) {
        VERSION => Ok(value),
        other => Err(JsonError::Version(other)),
    }
}
