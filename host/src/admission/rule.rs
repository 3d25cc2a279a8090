//! The rule: is a caller let in, and as which node? Takes what the node says, what the door knows and what the store has, and
//! gives a ruling. Pure: reads no store and no clock. A claim never counts as a fact, and what several callers say is never
//! put together.

use std::time::Duration;

use imprint::key_code::KeyCode;
use imprint::machine::placeholder;
use imprint::payload::{Binding, HardwareAddress};
use imprint::time::Timestamp;

use super::{Admit, Caller, Facts, Level, Rule, Said, differs};

/// So long a caller waits before its words alone let it in. A second key that says the same is then seen.
pub const QUIET: Duration = Duration::from_secs(2);
/// So long a caller that was heard last counts as another key for its record; and so long a certificate that was issued or
/// shown counts as in use.
pub const RECENT: Duration = Duration::from_secs(600);
/// The most callers an hour that are let in as one node without an administrator. A node in a boot loop is broken, or is
/// somebody else.
pub const RULED: usize = 20;
const HOUR: Duration = Duration::from_secs(3600);
/// The most admission keys that a reason names.
const SHOWN: usize = 3;

/// A node that a caller may be, with what the store has of it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Candidate {
    /// Name of the record.
    pub node: String,
    /// What the record says about callers.
    pub rule: Rule,
    /// The record's `bind`.
    pub binding: Option<Binding>,
    /// Hardware addresses of the links in the record.
    pub links: Vec<HardwareAddress>,
    /// The keys of the rule, each as this host knows it.
    pub keys: Vec<ListedKey>,
    /// What was said when an administrator let the node in last.
    pub before: Option<Said>,
    /// The window that was opened for it.
    pub window: Option<Window>,
    /// Other line keys that call as this node, or are let in as it and have no certificate yet.
    pub rivals: Vec<Rival>,
    /// When a valid certificate of the node was issued or shown last.
    pub in_use: Option<Timestamp>,
    /// When an administrator revoked the node's certificates, if nobody has let it in since.
    pub revoked: Option<Timestamp>,
    /// When callers were let in as this node within the last hour without an administrator, oldest first.
    pub lately: Vec<Timestamp>,
}

/// An admission key of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListedKey {
    /// Ed25519 public key.
    pub public: [u8; 32],
    /// Whether everybody who has an image may have it.
    pub in_image: bool,
}

/// A time within which one caller is let in as a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// When it was opened.
    pub opened: Timestamp,
    /// When it closes.
    pub until: Timestamp,
    /// SHA-256 of the HELLO that it was used for.
    pub taken: Option<[u8; 32]>,
}

/// Another line key that calls as the same node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rival {
    /// The code of its line key.
    pub code: String,
    /// Where it calls from.
    pub from: String,
    /// When it was heard last.
    pub heard: Timestamp,
    /// Whether it was let in.
    pub let_in: bool,
}

/// What becomes of a caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ruling {
    /// It is let in.
    Admit {
        /// As this node.
        node: String,
        /// Why.
        level: Level,
    },
    /// It waits.
    Wait {
        /// The nodes that it may be: none, one, or several that an administrator has to choose from.
        nodes: Vec<String>,
        /// Why it is not let in by rule.
        why: String,
        /// When a rule may let it in.
        again: Option<Duration>,
        /// It waits only to see whether another key says the same.
        quiet: bool,
    },
}

/// Why a candidate is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meant {
    /// The hypervisor knows all that the record asks for.
    Fact,
    /// The node says so.
    Claim,
}

/// Rules about a caller that no administrator has decided about. `first`: when it called first.
pub fn judge(caller: &Caller, first: Option<Timestamp>, candidates: &[Candidate], now: Timestamp) -> Ruling {
    let said = Said::of(caller);
    let (mut meant, mut not_meant) = (Vec::new(), Vec::new());
    for candidate in candidates {
        match is_meant(candidate, &said, &caller.facts) {
            Ok(Some(how)) => meant.push((candidate, how)),
            Ok(None) => {}
            Err(why) => not_meant.push(format!("it is not {}: {why}", candidate.node)),
        }
    }
    // Facts beat claims.
    if meant.iter().any(|(_, how)| *how == Meant::Fact) {
        meant.retain(|(_, how)| *how == Meant::Fact);
    }
    match meant.as_slice() {
        [] => {
            let mut why = "no record names this machine".to_owned();
            for reason in not_meant.iter().take(2) {
                why.push_str(&format!("; {reason}"));
            }
            waits(Vec::new(), why)
        }
        [(candidate, how)] => by_record(caller, first, candidate, *how, now),
        several => {
            let names: Vec<String> = several.iter().map(|(candidate, _)| candidate.node.clone()).collect();
            let why = format!("the records {} all name this machine", names.join(" and "));
            waits(names, why)
        }
    }
}

/// Whether and why a caller may be the candidate. The error: the two contradict each other.
fn is_meant(candidate: &Candidate, said: &Said, facts: &Facts) -> Result<Option<Meant>, String> {
    let Candidate { rule, binding, links, before, .. } = candidate;
    if let Some((want, have)) = contradicts(&rule.facts, facts) {
        return Err(format!("the record binds {want}, and it calls from {have}"));
    }
    if let Some(differs) = binding.as_ref().and_then(|binding| differs(binding, said)) {
        return Err(format!("the record's {} is {}, the caller says {}", differs.what, differs.want, differs.have));
    }
    if !rule.facts.is_empty() && unmet(&rule.facts, facts).is_none() {
        return Ok(Some(Meant::Fact));
    }
    let named = binding.as_ref().is_some_and(|binding| said.names(binding))
        || links.iter().any(|mac| said.macs.contains(&mac.to_string()))
        || (!said.is_empty() && before.as_ref() == Some(said));
    Ok(named.then_some(Meant::Claim))
}

/// A fact of the record that is known to be otherwise: what the record has, and what the door knows.
pub fn contradicts(record: &Facts, door: &Facts) -> Option<(Facts, Facts)> {
    let cid = |cid| Facts { cid: Some(cid), ..Facts::default() };
    let tap = |tap: &String| Facts { tap: Some(tap.clone()), ..Facts::default() };
    let vm = |vm: &String| Facts { vm: Some(vm.clone()), ..Facts::default() };
    match (record, door) {
        (Facts { cid: Some(want), .. }, Facts { cid: Some(have), .. }) if want != have => {
            Some((cid(*want), cid(*have)))
        }
        (Facts { tap: Some(want), .. }, Facts { tap: Some(have), .. }) if want != have => Some((tap(want), tap(have))),
        (Facts { vm: Some(want), .. }, Facts { vm: Some(have), .. }) if want != have => Some((vm(want), vm(have))),
        _ => None,
    }
}

/// The facts of the record that are not known. `None`: all are.
fn unmet(record: &Facts, door: &Facts) -> Option<Facts> {
    let unmet = Facts {
        cid: record.cid.filter(|cid| door.cid != Some(*cid)),
        tap: record.tap.clone().filter(|tap| door.tap.as_ref() != Some(tap)),
        vm: record.vm.clone().filter(|vm| door.vm.as_ref() != Some(vm)),
    };
    (!unmet.is_empty()).then_some(unmet)
}

/// The record that is meant has the word.
fn by_record(caller: &Caller, first: Option<Timestamp>, candidate: &Candidate, how: Meant, now: Timestamp) -> Ruling {
    let Candidate { node, rule, .. } = candidate;
    let wait = |why: String| waits(vec![node.clone()], why);
    if rule.admit == Admit::Approve {
        return wait(format!("{node} is approved at every boot"));
    }
    if let Some(unmet) = unmet(&rule.facts, &caller.facts) {
        return wait(format!("the record of {node} binds {unmet}, and the door does not know that of the caller"));
    }
    if let Some(why) = revoked(candidate) {
        return wait(why);
    }
    // The door knows which device a call comes by, and not which machine has made it: one can pass on the call of another. A node
    // takes no payload that binds what it is not, so where a fact says who it is, the record has to bind something of that kind.
    if how == Meant::Fact
        && matches!(rule.admit, Admit::Wire | Admit::Key | Admit::Armed)
        && !placeholder::is_named(candidate.binding.as_ref())
    {
        return wait(format!(
            "the record of {node} binds nothing that the node itself checks; add uuid, serial or macs to its bind"
        ));
    }
    let level = match rule.admit {
        // Not reached: it was answered above.
        Admit::Approve => return wait(String::new()),
        // A record with admit = "wire" has facts; without any nothing is proven.
        Admit::Wire if how == Meant::Fact => Level::Wire,
        Admit::Wire => return wait(format!("nothing that the hypervisor knows shows that it is {node}")),
        // Each proof is an object of its own, and comes after HELLO.
        Admit::Key => match key_level(caller, candidate) {
            Ok(level) => level,
            Err(_) if !settles(first, now).is_zero() => {
                let (why, left) = (format!("for a moment, for the admission key of {node}"), settles(first, now));
                return Ruling::Wait { nodes: vec![node.clone()], why, again: Some(left), quiet: true };
            }
            Err(why) => return wait(why),
        },
        Admit::Armed => match armed(caller, first, candidate, now) {
            Ok(()) => Level::Armed,
            Err(why) => return wait(why),
        },
        Admit::ApproveOnce => match says_the_same(caller, candidate) {
            Ok(()) => Level::ApprovedOnce,
            Err(why) => return wait(why),
        },
        Admit::Known => match candidate.binding.as_ref() {
            Some(binding) if Said::of(caller).names(binding) => Level::Known,
            _ => return wait(format!("it says nothing by which {node} is known")),
        },
    };
    if let Some(after) = too_often(&candidate.lately, now) {
        let why = format!("{RULED} callers were let in as {node} within an hour");
        return Ruling::Wait { nodes: vec![node.clone()], why, again: Some(after), quiet: false };
    }
    if !matches!(level, Level::Wire | Level::Stick | Level::ImageKey)
        && let Err(ruling) = alone(candidate, level, first, now)
    {
        return *ruling;
    }
    Ruling::Admit { node: node.clone(), level }
}

/// An administrator has ended the node's identity, so an administrator has to begin it again.
fn revoked(candidate: &Candidate) -> Option<String> {
    let Candidate { node, revoked, .. } = candidate;
    let at = (*revoked)?;
    Some(format!("the certificates of {node} were revoked at {at}"))
}

fn key_level(caller: &Caller, candidate: &Candidate) -> Result<Level, String> {
    let Candidate { node, keys, .. } = candidate;
    let named = keys.iter().filter(|key| caller.keys.contains(&key.public));
    // With several keys of the record, the one counts that fewer people have.
    match named.map(|key| key.in_image).min() {
        Some(false) => Ok(Level::Stick),
        Some(true) => Ok(Level::ImageKey),
        None => Err(shown_others(node, &caller.keys)),
    }
}

/// Names the keys by their codes, which the node's console shows, too.
fn shown_others(node: &str, keys: &[[u8; 32]]) -> String {
    let codes: Vec<String> = keys.iter().take(SHOWN).map(|key| KeyCode::of(key).to_string()).collect();
    let more = match keys.len().saturating_sub(codes.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match codes.as_slice() {
        [] => format!("it has not shown the admission key of {node}"),
        [code] => format!("it has shown admission key {code}, and the record of {node} does not name it"),
        codes => format!("it has shown admission keys {}{more}, and the record of {node} names none", codes.join(", ")),
    }
}

fn armed(caller: &Caller, first: Option<Timestamp>, candidate: &Candidate, now: Timestamp) -> Result<(), String> {
    let node = &candidate.node;
    let open = |window: &&Window| window.opened <= now && now < window.until;
    let Some(window) = candidate.window.as_ref().filter(open) else {
        return Err(format!("no window is open for {node}; imprint-host admit {node} --for 10m opens one"));
    };
    // Whoever lies in wait for the window is not the node that is started within it.
    if first.is_some_and(|first| first < window.opened) {
        let Window { opened, .. } = window;
        return Err(format!(
            "it has called before the window for {node} was opened at {opened}, which is for later callers"
        ));
    }
    match window.taken {
        Some(hello) if hello != caller.hello.digest() => {
            Err(format!("the window that was opened for {node} at {} has let in another line key", window.opened))
        }
        _ => Ok(()),
    }
}

fn says_the_same(caller: &Caller, candidate: &Candidate) -> Result<(), String> {
    let (node, said) = (&candidate.node, Said::of(caller));
    match &candidate.before {
        None => Err(format!("{node} was not approved yet")),
        Some(_) if said.is_empty() => Err(format!("it says nothing by which {node} could be known")),
        Some(before) if *before == said => Ok(()),
        Some(before) => Err(format!(
            "it says {said} over {}, and when {node} was approved it said {before} over {}",
            said.by, before.by
        )),
    }
}

/// Whether nobody else says the same, as far as this host knows. The caller's words are all that there is for it.
fn alone(candidate: &Candidate, level: Level, first: Option<Timestamp>, now: Timestamp) -> Result<(), Box<Ruling>> {
    let Candidate { node, window, rivals, in_use, .. } = candidate;
    let wait = |why: String, again: Option<Duration>, quiet: bool| {
        Err(Box::new(Ruling::Wait { nodes: vec![node.clone()], why, again, quiet }))
    };
    let since = counts_since(window.as_ref().filter(|_| level == Level::Armed), now);
    // Heard in the future: before the clock was set back. It counts: nothing else shows that it is gone.
    if let Some(rival) = rivals.iter().filter(|rival| rival.heard > since).max_by_key(|rival| rival.heard) {
        let Rival { code, from, let_in, .. } = rival;
        let what = if *let_in { "was let in" } else { "waits" };
        let why = format!("two keys call as {node}: line key {code} from {from} {what}, too");
        let over = rival.heard.plus(RECENT).since(now).max(Duration::from_secs(1));
        return wait(why, (level != Level::Armed).then_some(over), false);
    }
    if level.is_claim()
        && let Some(at) = in_use.filter(|at| *at <= now && now < at.plus(RECENT))
    {
        let why = format!("a certificate of {node} was issued or shown at {at}, so {node} may be running");
        return wait(why, Some(at.plus(RECENT).since(now)), false);
    }
    let left = settles(first, now);
    if left.is_zero() {
        return Ok(());
    }
    wait(format!("for a moment, to see whether another key calls as {node}"), Some(left), true)
}

/// Another line key that was heard after this time counts. One that has called since the window was opened keeps it shut,
/// however long ago that was.
pub fn counts_since(window: Option<&Window>, now: Timestamp) -> Timestamp {
    let recent = now.minus(RECENT);
    window.map_or(recent, |window| window.opened.minus(Duration::from_millis(1)).min(recent))
}

/// How much of [`QUIET`] is left for a caller that called first at this time.
fn settles(first: Option<Timestamp>, now: Timestamp) -> Duration {
    match first {
        None => QUIET,
        // A time in the future is from before the clock was set back.
        Some(first) if first > now => Duration::ZERO,
        Some(first) => first.plus(QUIET).since(now),
    }
}

/// How long until another caller may be let in by rule. `None`: now.
fn too_often(lately: &[Timestamp], now: Timestamp) -> Option<Duration> {
    // Times in the future are from before the clock was set back: they do not count.
    let lately: Vec<&Timestamp> = lately.iter().filter(|at| **at <= now && now < at.plus(HOUR)).collect();
    let oldest = lately.get(lately.len().checked_sub(RULED)?)?;
    Some(oldest.plus(HOUR).since(now).clamp(Duration::from_secs(1), HOUR))
}

fn waits(nodes: Vec<String>, why: String) -> Ruling {
    Ruling::Wait { nodes, why, again: None, quiet: false }
}

#[cfg(test)]
mod tests;
