//! The JSON of `imprint-host bundle`.

use imprint::hex;
use serde::Serialize;

use crate::store::BundleRow;

/// A bundle, in all commands.
#[derive(Serialize)]
pub(in crate::cli) struct BundleLine<'a> {
    node: &'a str,
    /// The version; null: it was never approved.
    counter: Option<u64>,
    state: &'static str,
    code: &'a str,
    sha256: String,
    /// Length of the age file.
    bytes: u64,
    key: &'a str,
    made_at: String,
    made_by: &'a str,
    peer: Option<&'a str>,
    decided_at: Option<String>,
    decided_by: Option<&'a str>,
    /// The version whose content it has again.
    content_of: Option<u64>,
}

impl BundleLine<'_> {
    pub(in crate::cli) fn of(row: &BundleRow) -> BundleLine<'_> {
        BundleLine {
            node: &row.node,
            counter: row.counter,
            state: row.state.word(),
            code: &row.code,
            sha256: hex::encode(&row.sha256),
            bytes: row.length,
            key: &row.key,
            made_at: row.made_at.to_string(),
            made_by: &row.made_by,
            peer: row.peer.as_deref(),
            decided_at: row.decided_at.map(|at| at.to_string()),
            decided_by: row.decided_by.as_deref(),
            content_of: row.content_of,
        }
    }
}

/// `bundle make`
#[derive(Serialize)]
pub(in crate::cli) struct BundleMade<'a> {
    #[serde(flatten)]
    pub(in crate::cli) bundle: BundleLine<'a>,
    /// The newest version has this content already.
    pub(in crate::cli) unchanged: bool,
}

/// `bundle renew`
#[derive(Serialize)]
pub(in crate::cli) struct BundleRenewed<'a> {
    /// The node.
    pub(in crate::cli) renew: &'a str,
}

/// `bundle renew --cancel`
#[derive(Serialize)]
pub(in crate::cli) struct BundleKept<'a> {
    /// The node.
    pub(in crate::cli) cancelled: &'a str,
}

/// `bundle sign`
#[derive(Serialize)]
pub(in crate::cli) struct BundlesSigned<'a> {
    /// The new versions.
    pub(in crate::cli) signed: Vec<BundleLine<'a>>,
}

/// `bundle show`
#[derive(Serialize)]
pub(in crate::cli) struct BundleShown<'a> {
    #[serde(flatten)]
    pub(in crate::cli) bundle: BundleLine<'a>,
    /// Without a version in the arguments: the code of the bundle that waits beside the one that is shown.
    pub(in crate::cli) waits: Option<&'a str>,
    /// Whether this host holds the key.
    pub(in crate::cli) readable: bool,
    pub(in crate::cli) units: Vec<String>,
    pub(in crate::cli) entries: Vec<BundlePart<'a>>,
}

/// An entry in `bundle show`.
#[derive(Serialize)]
pub(in crate::cli) struct BundlePart<'a> {
    pub(in crate::cli) path: &'a str,
    /// `file`, `link`, `directory`
    pub(in crate::cli) kind: &'static str,
    /// In octal.
    pub(in crate::cli) mode: String,
    pub(in crate::cli) uid: u32,
    pub(in crate::cli) gid: u32,
    /// Of a file.
    pub(in crate::cli) bytes: Option<usize>,
    /// Of a link.
    pub(in crate::cli) target: Option<&'a str>,
}

/// `bundle diff`
#[derive(Serialize)]
pub(in crate::cli) struct BundleDiff<'a> {
    pub(in crate::cli) node: &'a str,
    /// Null: there is nothing before.
    pub(in crate::cli) old: Option<BundleSide<'a>>,
    pub(in crate::cli) new: BundleSide<'a>,
    /// Whether this host holds the key of both.
    pub(in crate::cli) readable: bool,
    /// Null: this host cannot read them.
    pub(in crate::cli) differences: Option<Vec<BundleEntry>>,
}

/// One of the two bundles of `bundle diff`.
#[derive(Serialize)]
pub(in crate::cli) struct BundleSide<'a> {
    counter: Option<u64>,
    code: &'a str,
    sha256: String,
}

impl BundleSide<'_> {
    pub(in crate::cli) fn of(row: &BundleRow) -> BundleSide<'_> {
        BundleSide { counter: row.counter, code: &row.code, sha256: hex::encode(&row.sha256) }
    }
}

/// Something that differs.
#[derive(Serialize)]
pub(in crate::cli) struct BundleEntry {
    pub(in crate::cli) path: String,
    /// `added`, `removed`, `changed`
    pub(in crate::cli) change: &'static str,
    pub(in crate::cli) lines: Vec<String>,
    /// False: of a file's content only length and digest are in the lines, or hashes of passwords are masked.
    pub(in crate::cli) in_full: bool,
}

#[cfg(test)]
mod tests {
    use imprint::time::Timestamp;

    use super::*;
    use crate::store::BundleState;

    /// If this test fails, do not change it: programs read these names.
    #[test]
    fn published_names() {
        let row = BundleRow {
            id: 1,
            node: "n".into(),
            counter: Some(3),
            state: BundleState::Approved,
            tag: None,
            key: "payload age1".into(),
            sha256: [0; 32],
            code: "C".into(),
            length: 5,
            seal_length: 6,
            made_at: Timestamp::from_secs(0),
            made_by: "node".into(),
            peer: Some("a".into()),
            decided_at: Some(Timestamp::from_secs(1)),
            decided_by: Some("b".into()),
            content_of: Some(1),
        };
        let common = |more: &str, rest: &str| {
            let zeros = "0".repeat(64);
            format!(
                "{{\"bytes\":5,\"code\":\"C\",\"content_of\":1,\"counter\":3,\"decided_at\":\"1970-01-01T00:00:01Z\",\"decided_by\":\"b\",\
                 {more}\"key\":\"payload age1\",\"made_at\":\"1970-01-01T00:00:00Z\",\"made_by\":\"node\",\"node\":\"n\",\"peer\":\"a\",\
                 {rest}\"sha256\":\"{zeros}\",\"state\":\"approved\""
            )
        };
        let line = crate::json::line(&BundleLine::of(&row));
        assert_eq!(line, common("", "") + "}");
        let made = crate::json::line(&BundleMade { bundle: BundleLine::of(&row), unchanged: false });
        assert_eq!(made, common("", "") + ",\"unchanged\":false}");
        let part =
            BundlePart { path: "p", kind: "file", mode: "0644".into(), uid: 0, gid: 0, bytes: Some(1), target: None };
        let shown = BundleShown {
            bundle: BundleLine::of(&row),
            waits: None,
            readable: true,
            units: vec!["u".into()],
            entries: vec![part],
        };
        let entries = "\"entries\":[{\"bytes\":1,\"gid\":0,\"kind\":\"file\",\"mode\":\"0644\",\"path\":\"p\",\"target\":null,\"uid\":0}],";
        let want = common(entries, "\"readable\":true,") + ",\"units\":[\"u\"],\"waits\":null}";
        assert_eq!(crate::json::line(&shown), want);
        let diff = BundleDiff {
            node: "n",
            old: None,
            new: BundleSide::of(&row),
            readable: true,
            differences: Some(vec![BundleEntry {
                path: "p".into(),
                change: "added",
                lines: vec!["+x".into()],
                in_full: true,
            }]),
        };
        let want = format!(
            "{{\"differences\":[{{\"change\":\"added\",\"in_full\":true,\"lines\":[\"+x\"],\"path\":\"p\"}}],\"new\":{{\"code\":\"C\",\"counter\":3,\
             \"sha256\":\"{}\"}},\"node\":\"n\",\"old\":null,\"readable\":true}}",
            "0".repeat(64)
        );
        assert_eq!(crate::json::line(&diff), want);
        assert_eq!(crate::json::line(&BundleRenewed { renew: "n" }), "{\"renew\":\"n\"}");
        assert_eq!(crate::json::line(&BundleKept { cancelled: "n" }), "{\"cancelled\":\"n\"}");
        let signed = crate::json::line(&BundlesSigned { signed: vec![BundleLine::of(&row)] });
        assert_eq!(signed, format!("{{\"signed\":[{}}}]}}", common("", "")));
    }
}
