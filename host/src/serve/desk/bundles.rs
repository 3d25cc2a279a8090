//! Questions to the desk about bundles. The rules are `bundles`' and `enrol`'s: this file makes none.

use std::sync::Arc;

use axum::body::Bytes;
use imprint::bundle::answer::{Report, Standing};
use imprint::digest::sha256;

use crate::bundles::{self, BadUpload, Checked, Look, May, Put, Reported, Reporter, Upload};
use crate::enrol::{self, Alarm, Client, Desk as Bench, EnrolError, Refusal};
use crate::store::Told;

/// What a node wants.
pub(in crate::serve) struct Ask {
    /// The client's certificate, verified by TLS.
    pub(in crate::serve) certificate: Arc<[u8]>,
    pub(in crate::serve) what: What,
}

pub(in crate::serve) enum What {
    /// Its bundle, or how it stands with the one of this tag.
    Look { tag: Option<[u8; 32]> },
    /// How it stands with all of its bundles.
    Stands,
    /// The bytes of a version.
    Bytes { id: i64 },
    /// To send a bundle with this tag.
    MayUpload { tag: [u8; 32] },
    /// To store the bundle that it has sent.
    Put { tag: [u8; 32], age: Bytes, checked: Box<Result<Checked, BadUpload>> },
    /// To report.
    Report(Box<Report>),
}

impl What {
    /// Whether the answer needs no room on the disk.
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, What::Look { .. } | What::Stands | What::Bytes { .. })
    }

    fn words(&self) -> &'static str {
        match self {
            What::Look { .. } | What::Stands | What::Bytes { .. } => "asks for its bundle",
            What::MayUpload { .. } | What::Put { .. } => "sends a bundle",
            What::Report(_) => "reports",
        }
    }
}

/// The answer, and the node that the client is.
pub(in crate::serve) enum Answered {
    /// The certificate does not count.
    Refused(Refusal),
    Look(String, Look),
    Stands(Standing),
    Bytes(Option<Vec<u8>>),
    May(String, May),
    Put(String, Put),
    Reported(String, Reported),
}

pub(super) fn one(
    bench: &Bench<'_>,
    ask: &Ask,
    tell: &[Told],
    peer: &str,
) -> Result<(Answered, Option<Alarm>), EnrolError> {
    let Client { node, alarm } = enrol::client(bench, &ask.certificate, ask.what.words(), peer)?;
    let node = match node {
        Ok(node) => node,
        Err(refusal) => return Ok((Answered::Refused(refusal), alarm)),
    };
    let changes = bench.changes;
    let told = match &ask.what {
        What::Look { tag } => {
            let look = bundles::look(bench, &node, tag.as_ref())?;
            Answered::Look(node, look)
        }
        What::Stands => Answered::Stands(bundles::stands(bench, &node)?),
        What::Bytes { id } => Answered::Bytes(bundles::bytes_of(changes, *id)?),
        What::MayUpload { tag } => {
            let may = bundles::may_upload(bench, &node, tag, peer)?;
            Answered::May(node, may)
        }
        What::Put { tag, age, checked } => {
            let put = bundles::put(bench, &node, &Upload { tag, age, checked }, tell, peer)?;
            Answered::Put(node, put)
        }
        What::Report(report) => {
            let from = Reporter { node: &node, certificate: sha256(&ask.certificate), peer };
            let reported = bundles::report(bench, &from, report, tell)?;
            Answered::Reported(node, reported)
        }
    };
    Ok((told, alarm))
}
