//! What a stateless node says on its console: for somebody who is tired, and has to type something elsewhere. Decides nothing.

use crate::bundle::answer::{Stand, Standing};
use crate::console::say;
use crate::payload::{HttpsUrl, NodeName};
use crate::shown::Printable;

/// The configuration server has no bundle.
pub(super) fn none(stands: &Standing) {
    let who = stands.who.as_deref().map(|who| format!(" ({})", Printable::of(who))).unwrap_or_default();
    say(&match stands.bundle {
        Stand::None | Stand::Approved | Stand::Pending => {
            "the configuration server has no bundle for this node".to_owned()
        }
        Stand::Denied => format!("the last bundle of this node was denied; another one is needed{who}"),
        Stand::Renew => format!("this node is to make a new bundle{who}"),
        Stand::Removed => format!("the bundle of this node was removed; another one is needed{who}"),
    });
}

/// A person is asked.
pub(super) fn asks(node: &NodeName) {
    say(&format!(
        "answer the questions on a console of this node, or make the bundle at the server: imprint-host bundle make {node} \
         --from FILE.toml"
    ));
}

/// An upload waits.
pub(super) fn pending(node: &NodeName, code: &str, url: Option<&HttpsUrl>) {
    waits(node, code, url, "");
}

/// The server has the same since an earlier boot.
pub(super) fn pending_since(node: &NodeName, code: &str, url: Option<&HttpsUrl>) {
    waits(node, code, url, " since an earlier boot");
}

fn waits(node: &NodeName, code: &str, url: Option<&HttpsUrl>, since: &str) {
    let code = Printable::of(code);
    let at = url.map(|url| format!(" at {url}")).unwrap_or_default();
    say(&format!("bundle {code} waits for approval{at}{since}"));
    say(&format!("compare the code there and run: imprint-host bundle approve {node} {code}"));
}
