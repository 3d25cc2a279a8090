//! A node calls at a door: finds the records that may be its own, asks the rule, and stores what becomes of the caller. A call
//! that changes nothing writes nothing, since thousands of callers may wait. Never talks to a node; the rule is `admission`'s.

use std::time::Duration;

use imprint::key_code::KeyCode;
use imprint::payload::{EstUrl, LinkKind, Match, PayloadId};
use imprint::time::Timestamp;

use super::{Error, State};
use crate::admission::{
    Admission, Admit, Caller, Candidate, KeyName, Level, ListedKey, Rule, Ruling, Said, counts_since, judge,
};
use crate::record::Record;
use crate::record::claims::{Kind, folded};
use crate::store::{Books, Budget, CallerRow, Changes, Event, PayloadRow, Standing, StoreError};

/// The most callers that wait. One takes about a kilobyte in the store.
pub const CALLERS: usize = 16_384;
/// The time of a caller's last call is stored at most this often.
const NOTED: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3600);
/// A serial number of this length may have been cut for HELLO.
const CUT: usize = 32;
/// The most records that one caller is compared with.
const COMPARED: usize = 32;

impl State {
    /// A node calls at a door: is it let in? Ask again whenever the store has changed.
    pub fn call(&mut self, caller: &Caller, now: Timestamp) -> Result<Admission, Error> {
        let seen = self.store.reading::<_, StoreError>(|store| seen(store, &self.urls, caller, now))?;
        if !seen.is_news(now) {
            return Ok(seen.admission(caller));
        }
        let changes = self.store.changes()?.for_nodes();
        let admission = call_within(&changes, &self.urls, caller, now)?;
        changes.commit()?;
        Ok(admission)
    }
}

/// As [`State::call`], in a transaction with other things. After an error nothing in the transaction may be kept.
pub(crate) fn call_within(
    changes: &Changes<'_>,
    urls: &[EstUrl],
    caller: &Caller,
    now: Timestamp,
) -> Result<Admission, StoreError> {
    let seen = seen(changes, urls, caller, now)?;
    if seen.is_news(now) {
        note(changes, &seen, now)?;
    }
    Ok(seen.admission(caller))
}

/// How the caller with this HELLO is let in as this node at this moment. `None`: it is not, or not any more: an administrator
/// denied it, revoked the node's certificates or picked another line key, its record was replaced, or another line key has
/// the certificate.
pub(crate) fn stands(books: &Books, hello: &[u8; 32], node: &str, now: Timestamp) -> Result<Option<Level>, StoreError> {
    Ok(let_in(books, hello, node, now)?.and_then(|row| row.standing.level()))
}

/// The caller with this HELLO, if it is let in as this node.
pub(super) fn let_in(
    books: &Books,
    hello: &[u8; 32],
    node: &str,
    now: Timestamp,
) -> Result<Option<CallerRow>, StoreError> {
    let is_let_in = |row: &CallerRow| row.standing.level().is_some() && row.nodes == [node];
    Ok(books.caller(hello, now)?.filter(is_let_in))
}

/// Whether a payload that was made for a caller ([`super::payload_for`]) may still be sent to it: the caller stands, and the
/// payload is neither void nor expired. Otherwise forget it, and ask for another.
pub(crate) fn may_be_sent(
    books: &Books,
    payload: PayloadId,
    hello: &[u8; 32],
    node: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let is_good = |row: &PayloadRow| row.id == payload && row.void_at.is_none() && now < row.expiry;
    Ok(stands(books, hello, node, now)?.is_some() && books.payloads(node)?.iter().any(is_good))
}

/// A caller as it is now, and as the store has it.
struct Seen {
    before: Option<CallerRow>,
    row: CallerRow,
    /// For one that waits: when a rule may let it in.
    again: Option<Duration>,
    /// It waits only to see whether another key says the same.
    quiet: bool,
}

impl Seen {
    /// Whether the store has to learn of this.
    fn is_news(&self, now: Timestamp) -> bool {
        let Some(before) = &self.before else { return true };
        let same = CallerRow { last_at: before.last_at, ..self.row.clone() } == *before;
        !same || before.last_at > now || before.last_at.plus(NOTED) <= now
    }

    fn is_let_in_now(&self) -> bool {
        self.row.standing.level().is_some()
            && self.before.as_ref().is_none_or(|before| before.standing.level().is_none())
    }

    /// The answer for the door. It is told to the node, which may be anybody: it has nothing that a record says.
    fn admission(&self, caller: &Caller) -> Admission {
        let CallerRow { nodes, standing, .. } = &self.row;
        match (standing, standing.level(), nodes.as_slice()) {
            (_, Some(level), [node]) => Admission::Admitted { node: node.clone(), level },
            (Standing::Denied, ..) => Admission::Refused {
                why: "an administrator has denied this line key; start the node again for another".to_owned(),
            },
            _ => {
                // No code: whoever stands between could have this host name another key than the node's on the node's console.
                let why = if self.quiet {
                    "a moment, to see who else calls and with what"
                } else {
                    "an administrator must compare the codes, and admit this node"
                };
                let why = why.to_owned();
                Admission::Waits { code: KeyCode::of(&caller.hello.key), why, again: self.again }
            }
        }
    }
}

fn seen(books: &Books, urls: &[EstUrl], caller: &Caller, now: Timestamp) -> Result<Seen, StoreError> {
    let hello = caller.hello.digest();
    let before = books.caller(&hello, now)?;
    // Anybody can say a HELLO again: of a caller that is decided about nothing changes but when it was heard.
    let is_decided = |row: &&CallerRow| !matches!(row.standing, Standing::Waits | Standing::Ended);
    if let Some(decided) = before.as_ref().filter(is_decided) {
        let row = CallerRow { last_at: now, ..decided.clone() };
        return Ok(Seen { row, before, again: None, quiet: false });
    }
    let mut row = CallerRow {
        hello,
        key: caller.hello.key,
        code: KeyCode::of(&caller.hello.key).to_string(),
        nodes: Vec::new(),
        said: Said::of(caller),
        facts: caller.facts.clone(),
        // It takes the place that it took first: somebody else who says its HELLO must not move it into a crowd.
        source: before.as_ref().map_or_else(|| caller.source.clone(), |before| before.source.clone()),
        from: caller.from.clone(),
        why: String::new(),
        first_at: before.as_ref().map_or(now, |before| before.first_at),
        last_at: now,
        standing: Standing::Waits,
        since: before.as_ref().filter(|before| before.standing == Standing::Waits).map_or(now, |before| before.since),
    };
    let (candidates, unread) = candidates(books, urls, caller, &row.said, now)?;
    let first = before.as_ref().map(|before| before.first_at);
    let (mut again, mut quiet) = (None, false);
    match judge(caller, first, &candidates, now) {
        Ruling::Admit { node, level } => (row.nodes, row.standing) = (vec![node], Standing::LetIn(level)),
        Ruling::Wait { nodes, mut why, again: after, quiet: is_quiet } => {
            for reason in unread {
                why.push_str(&format!("; {reason}"));
            }
            (row.nodes, row.why, again, quiet) = (nodes, why, after, is_quiet);
            row.nodes.sort();
        }
    }
    Ok(Seen { before, row, again, quiet })
}

fn note(changes: &Changes<'_>, seen: &Seen, now: Timestamp) -> Result<(), StoreError> {
    let Seen { before, row, quiet, .. } = seen;
    if before.is_none() {
        changes.forget_callers(now)?;
        if row.standing == Standing::Waits && changes.callers_waiting()? >= CALLERS {
            changes.crowd_out()?;
        }
    }
    let node = match row.nodes.as_slice() {
        [node] => Some(node.as_str()),
        _ => None,
    };
    let event = |event, detail| Event { event, node, peer: Some(&row.from), detail };
    if let (Standing::LetIn(level), Some(node)) = (row.standing, node)
        && seen.is_let_in_now()
    {
        changes.let_in(std::slice::from_ref(row), node, level, now)?;
        return changes.audit(&event("admitted", &row.as_let_in(level)), now);
    }
    changes.put_caller(row)?;
    match row.standing {
        Standing::Waits if !quiet && before.as_ref().is_none_or(|before| before.why != row.why) => {
            let detail = format!("line key {}: {}", row.code, row.why);
            changes.audit_within(&Budget::Caller, &event("waits", &detail), now).map(|_| ())
        }
        _ => Ok(()),
    }
}

/// The records that may be the caller's, each with what the rule asks about; and what in records is of no use.
fn candidates(
    books: &Books,
    urls: &[EstUrl],
    caller: &Caller,
    said: &Said,
    now: Timestamp,
) -> Result<(Vec<Candidate>, Vec<String>), StoreError> {
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    for name in named(books, caller, said)? {
        let Some(row) = books.node(&name)? else { continue };
        match Record::of_store(&row.file, &row.record, urls) {
            Ok(record) => found.push(candidate(books, caller, record, &mut unread, now)?),
            Err(error) => unread.push(format!("the record of {name} is invalid: {error}")),
        }
    }
    Ok((found, unread))
}

/// The names of records that name something that the caller says or the door knows, each once.
fn named(books: &Books, caller: &Caller, said: &Said) -> Result<Vec<String>, StoreError> {
    let Caller { hello, facts, .. } = caller;
    let mut keys: Vec<(Kind, String, bool)> = Vec::new();
    keys.extend(facts.cid.map(|cid| (Kind::Cid, cid.to_string(), false)));
    keys.extend(facts.tap.clone().map(|tap| (Kind::Tap, tap, false)));
    keys.extend(facts.vm.clone().map(|vm| (Kind::Vm, vm, false)));
    keys.extend(hello.uuid.map(|uuid| (Kind::Uuid, imprint::hex::encode(&uuid), false)));
    let serial = hello.serial.as_deref().filter(|serial| !serial.trim().is_empty());
    keys.extend(serial.map(|serial| (Kind::Serial, folded(serial), serial.len() >= CUT)));
    keys.extend(said.macs.iter().map(|mac| (Kind::Mac, mac.clone(), false)));
    let mut names: Vec<String> = Vec::new();
    let mut add = |more: Vec<String>| more.into_iter().for_each(|name| push(&mut names, name));
    for (kind, value, cut) in keys {
        add(books.claimants(kind.word(), &value, cut)?);
    }
    if !said.is_empty() {
        add(books.who_said(said)?);
    }
    Ok(names)
}

fn push(names: &mut Vec<String>, name: String) {
    if names.len() < COMPARED && !names.contains(&name) {
        names.push(name);
    }
}

fn candidate(
    books: &Books,
    caller: &Caller,
    record: Record,
    unread: &mut Vec<String>,
    now: Timestamp,
) -> Result<Candidate, StoreError> {
    let node = record.name.to_string();
    let Rule { admit, keys, .. } = &record.rule;
    let links = record.network.iter().filter_map(|link| match &link.kind {
        LinkKind::Physical(Match::Mac(mac)) => Some(mac.clone()),
        _ => None,
    });
    let mut found = Candidate {
        links: links.collect(),
        before: books.said(&node)?,
        node,
        rule: record.rule.clone(),
        binding: record.binding,
        ..Candidate::default()
    };
    // The other rules ask for more.
    if *admit == Admit::Approve {
        return Ok(found);
    }
    let node = found.node.as_str();
    for key in keys {
        match (listed(books, key)?, key) {
            (Some(listed), _) => found.keys.push(listed),
            (None, KeyName::Named(name)) => unread.push(format!("this host has no admission key of the name {name}")),
            (None, KeyName::Public(_)) => {}
        }
    }
    found.window = books.window(node)?.filter(|_| *admit == Admit::Armed);
    found.rivals = books.rivals(node, &caller.hello.key, counts_since(found.window.as_ref(), now))?;
    found.in_use = books.in_use_last(node, now)?;
    found.revoked = books.ended_at(node)?;
    found.lately = books.ruled_since(node, now.minus(HOUR))?;
    Ok(found)
}

/// A key of a record as this host knows it. `None`: there is no key of this name.
fn listed(books: &Books, key: &KeyName) -> Result<Option<ListedKey>, StoreError> {
    let row = match key {
        KeyName::Named(name) => books.admission_key(name)?,
        KeyName::Public(public) => match books.admission_key_of(public)? {
            // Nothing is known of it: everybody may have it.
            None => return Ok(Some(ListedKey { public: *public, in_image: true })),
            known => known,
        },
    };
    Ok(row.map(|row| ListedKey { public: row.public, in_image: row.in_image }))
}
