//! What a stateless node says on its console: for somebody who is tired, and has to type something elsewhere. Decides nothing.

use crate::bundle::answer::{Stand, Standing};
use crate::key_code::KeyCode;
use crate::payload::{HttpsUrl, NodeName};
use crate::shown::Printable;

/// The configuration server has no bundle.
pub(super) fn none(say: &dyn Fn(&str), stands: &Standing) {
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
pub(super) fn asks(say: &dyn Fn(&str), node: &NodeName) {
    say(&format!(
        "answer the questions on a console of this node, or make the bundle at the server: imprint-host bundle make {node} \
         --from FILE.toml"
    ));
}

/// A bundle that waits, or was denied, by its code.
#[derive(Debug)]
pub struct Named {
    /// The code.
    pub code: Printable,
    /// This node has computed it from its own file. Otherwise it is what the server says.
    pub own: bool,
}

impl Named {
    /// `own`: the code of the file that this node has made. The server's is shown only if it is another one.
    pub(super) fn of(stands: &Standing, own: Option<&KeyCode>) -> Named {
        match (stands.code.as_deref(), own) {
            (known, Some(own)) if !known.is_some_and(|known| own.is_contradicted(known)) => {
                Named { code: Printable::of(&own.to_string()), own: true }
            }
            (known, _) => Named { code: Printable::of(known.unwrap_or("?")), own: false },
        }
    }
}

/// An upload waits.
pub(super) fn waits(say: &dyn Fn(&str), node: &NodeName, named: &Named, url: Option<&HttpsUrl>) {
    let Named { code, own } = named;
    let at = url.map(|url| format!(" at {url}")).unwrap_or_default();
    say(&match own {
        true => format!("bundle {code} waits for approval{at}"),
        false => format!("the server says that bundle {code} waits for approval{at}; {FOREIGN}"),
    });
    say(&match own {
        true => format!("compare the code there and run: imprint-host bundle approve {node} {code}"),
        false => format!(
            "look at it there (imprint-host bundle diff {node}), and run: imprint-host bundle deny {node} {code}, or approve \
             {node} {code}"
        ),
    });
}

/// Nobody is asked for a new bundle, because one waits.
pub(super) fn unasked(say: &dyn Fn(&str), node: &NodeName, stands: &Standing) {
    let meanwhile = stands.current.map(|counter| format!("; version {counter} stays what it is")).unwrap_or_default();
    let code = stands.code.as_deref().map_or("CODE".into(), Printable::of);
    say(&format!(
        "a new bundle waits for approval already, so no questions are asked{meanwhile}; to be asked, run imprint-host bundle deny \
         {node} {code} at the server, and boot again"
    ));
}

/// An upload was approved without a person.
pub(super) fn at_once(say: &dyn Fn(&str), named: &Named) {
    let Named { code, own } = named;
    say(&match own {
        true => format!("bundle {code}: approved at once"),
        false => format!("the server says that bundle {code} is approved; {FOREIGN}"),
    });
}

/// Behind a code that the node has not computed.
pub(super) const FOREIGN: &str = "this node did not make it and cannot check it";
