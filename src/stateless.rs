//! How a stateless node comes by its bundle, once it has its certificate: the configuration server has one; or it is made here, from
//! the settings of the kernel command line or of a person at a console, uploaded, and approved by an administrator. Ends with a
//! bundle that is verified and unpacked in memory, and staged for `imprint apply`. Never lays a file over the root.

mod error;
mod told;

use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

pub use error::StatelessError;
pub use told::Named;

use crate::age::Identity;
use crate::bundle::answer::{Stand, Standing};
use crate::bundle::statement::Sealed;
use crate::bundle::{self, Bundle, Expect};
use crate::digest::sha256;
use crate::handover::HandoverError;
use crate::handover::staged::{self, Description};
use crate::hex;
use crate::key_code::KeyCode;
use crate::payload::NodeName;
use crate::payload::signed::Signer;
use crate::port::Place;
use crate::retrieval::{Got, Hooks, Retrieval, RetrievalError, Uploaded};
use crate::setting::Settings;
use crate::setup::{self, Answer, End, Start};
use crate::time::{Deadline, since_boot};
use crate::trial;

/// What a node's bundle has to be, and how it may be made.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The root of the machine.
    pub root: &'a Path,
    /// This node.
    pub node: &'a NodeName,
    /// The least counter.
    pub least: u64,
    /// Who may sign.
    pub signers: &'a [Signer],
    /// The key that opens it.
    pub identity: &'a Identity,
    /// Make a new one, also if there is one.
    pub new: bool,
    /// What the kernel command line says about a new one.
    pub settings: &'a Settings,
    /// Where a person can be asked.
    pub consoles: &'a [Place],
    /// How long the configuration server may take.
    pub timeout: Duration,
    /// How long a person at a console, and then the administrator, may take; `None`: for ever.
    pub approval: Option<Duration>,
    /// How often the code of what waits is said again.
    pub repeat: Duration,
    /// Shows a line to whoever is at the consoles.
    pub say: &'a dyn Fn(&str),
}

/// A verified bundle.
pub struct Obtained {
    description: Description,
    /// Of the encrypted file.
    sha256: [u8; 32],
    tar: Zeroizing<Vec<u8>>,
}

impl Obtained {
    /// What is known of it.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Leaves it for `imprint apply` in the folder of the hand-over.
    pub fn stage(&self, directory: &Path) -> Result<(), HandoverError> {
        trial::crash("fetched");
        staged::write(directory, &self.description, &self.tar)?;
        trial::crash("staged");
        Ok(())
    }
}

/// Gets the bundle, however long that takes.
pub fn obtain(
    wanted: &Wanted<'_>,
    retrieval: &mut Retrieval<'_>,
    hooks: &mut Hooks<'_>,
) -> Result<Obtained, StatelessError> {
    let mut story = Story { wanted: *wanted, retrieval, hooks, least: 0 };
    let mut next = None;
    match story.fetch(None, Deadline::after(wanted.timeout))? {
        Got::Sealed(sealed) if !wanted.new => return story.opened(&sealed).map(|(obtained, _)| obtained),
        Got::Sealed(sealed) => {
            // It is left alone. What comes instead must not be older.
            if let Ok((shown, _)) = story.opened(&sealed) {
                story.least = shown.description.counter;
            }
            // It hides an upload of an earlier boot, for which nobody has to answer again.
            let (stands, wait) = story.standing()?;
            if stands.bundle == Stand::Pending {
                return story.already_pending(&stands, wait);
            }
        }
        Got::Stands(stands, wait) if stands.bundle == Stand::Pending => return story.already_pending(&stands, wait),
        Got::Stands(stands, _) => {
            told::none(wanted.say, &stands);
            next = Some(stands.next);
        }
    }
    let (settings, typed) = match wanted.settings.is_empty() {
        false => (wanted.settings.clone(), false),
        true => match story.ask()? {
            Asked::Settings(settings) => (*settings, true),
            Asked::Made(got) => return story.made_meanwhile(got),
        },
    };
    // What a person has typed is not thrown away because a server is away.
    let until = Deadline::after(wanted.approval.filter(|_| typed).unwrap_or(if typed {
        Duration::MAX
    } else {
        Duration::ZERO
    }));
    story.make(&settings, next, until)
}

/// Where the settings come from when the command line has none.
enum Asked {
    Settings(Box<Settings>),
    /// There is no need for them any more.
    Made(Got),
}

struct Story<'s, 'a, 'r> {
    wanted: Wanted<'s>,
    retrieval: &'s mut Retrieval<'r>,
    hooks: &'s mut Hooks<'a>,
    /// The least counter that the next answer can have, by what the server has told and shown.
    least: u64,
}

/// An upload with the settings of this boot.
struct Own<'a> {
    tag: [u8; 32],
    /// The code of the file that they make.
    code: KeyCode,
    settings: &'a Settings,
}

/// How often the configuration server is asked while a person is: an administrator may have made a bundle meanwhile.
const LOOK: Duration = Duration::from_secs(60);
/// How often the leases are looked at while a person is asked.
const LEASES: Duration = Duration::from_secs(10);

impl Story<'_, '_, '_> {
    fn fetch(&mut self, tag: Option<&[u8; 32]>, deadline: Deadline) -> Result<Got, StatelessError> {
        let got = self.retrieval.bundle(tag, self.hooks, deadline).map_err(StatelessError::Retrieval)?;
        if let Got::Stands(stands, _) = &got {
            self.least = self.least.max(stands.next);
        }
        Ok(got)
    }

    /// How it stands with what waits, too.
    fn standing(&mut self) -> Result<(Standing, Duration), StatelessError> {
        let deadline = Deadline::after(self.wanted.timeout);
        let (stands, wait) = self.retrieval.standing(self.hooks, deadline).map_err(StatelessError::Retrieval)?;
        self.least = self.least.max(stands.next);
        Ok((stands, wait))
    }

    /// Asks, and asks again until this deadline if the servers are away.
    fn patiently<T>(
        &mut self,
        until: Deadline,
        ask: &mut dyn FnMut(&mut Self) -> Result<T, StatelessError>,
    ) -> Result<T, StatelessError> {
        loop {
            match ask(self) {
                Err(StatelessError::Retrieval(RetrievalError::GaveUp { .. })) if !until.expired() => {
                    (self.wanted.say)(
                        "no configuration server answers; what is to be sent is kept, and sent once one does",
                    );
                    (self.hooks.wait)(until.at_most(FIRST_LOOK)).map_err(StatelessError::Ask)?;
                }
                other => return other,
            }
        }
    }

    /// Asks a person, on every console.
    fn ask(&mut self) -> Result<Asked, StatelessError> {
        let Wanted { root, node, consoles, approval, timeout, new, .. } = self.wanted;
        let start = Start::of_machine(root, node.as_str(), Settings::default(), Deadline::after(timeout));
        let start = start.map_err(StatelessError::Links)?;
        told::asks(self.wanted.say, node);
        let limits = setup::Limits { limit: approval, every: LEASES };
        let mut looked = since_boot();
        let mut look = || {
            if let Err(error) = (self.hooks.wait)(Deadline::after(Duration::ZERO)) {
                return Some(Err(StatelessError::Ask(error)));
            }
            // One that is there already is not the new one.
            if new || since_boot().saturating_sub(looked) < LOOK {
                return None;
            }
            looked = since_boot();
            // A person who types is not disturbed.
            let mut quiet = Hooks { wait: &mut *self.hooks.wait, progress: &mut |_| () };
            match self.retrieval.bundle(None, &mut quiet, Deadline::after(LEASES)) {
                Ok(got @ Got::Sealed(_)) => Some(Ok(got)),
                Ok(got @ Got::Stands(Standing { bundle: Stand::Pending, .. }, _)) => Some(Ok(got)),
                // The next look may go better, and the person needs no server to answer.
                Ok(Got::Stands(..)) | Err(_) => None,
            }
        };
        match setup::ask(root, consoles.to_vec(), start, limits, &mut look).map_err(StatelessError::Setup)? {
            Answer::End(End::Settings(settings)) => Ok(Asked::Settings(settings)),
            // The dialogue of a boot cannot be left.
            Answer::End(End::Quit) => Err(StatelessError::Setup(setup::SetupError::Gone)),
            Answer::Instead(got) => got.map(Asked::Made),
        }
    }

    /// What an administrator, or another boot of this node, has made while a person was asked.
    fn made_meanwhile(&mut self, got: Got) -> Result<Obtained, StatelessError> {
        match got {
            Got::Sealed(sealed) => self.opened(&sealed).map(|(obtained, _)| obtained),
            Got::Stands(stands, wait) => self.already_pending(&stands, wait),
        }
    }

    /// An upload of an earlier boot waits for its approval.
    fn already_pending(&mut self, stands: &Standing, wait: Duration) -> Result<Obtained, StatelessError> {
        let Wanted { node, identity, settings, new, timeout, say, .. } = self.wanted;
        self.retrieval.stay();
        let occupied = |stands: &Standing| StatelessError::occupied(node, stands);
        if settings.is_empty() {
            if new {
                // A person would answer in vain.
                told::unasked(say, node, stands);
                if tag_of(stands).is_none() {
                    return Err(occupied(stands));
                }
            }
            return self.once_approved(None, stands, wait);
        }
        let made = |counter| settings.bundle(node.clone(), counter).map_err(StatelessError::Make);
        let tag = made(1)?.tag(identity).map_err(StatelessError::Make)?;
        match &stands.tag {
            Some(of) if of.eq_ignore_ascii_case(&hex::encode(&tag)) => self.own_pending(settings, &tag, stands, wait),
            Some(_) => Err(occupied(stands)),
            None => match self.fetch(Some(&tag), Deadline::after(timeout))? {
                Got::Sealed(sealed) => self.ours(&sealed, settings),
                Got::Stands(stands, wait) if stands.bundle == Stand::Pending => {
                    self.own_pending(settings, &tag, &stands, wait)
                }
                Got::Stands(..) => Err(occupied(stands)),
            },
        }
    }

    /// An upload of an earlier boot with these settings waits.
    fn own_pending(
        &mut self,
        settings: &Settings,
        tag: &[u8; 32],
        stands: &Standing,
        wait: Duration,
    ) -> Result<Obtained, StatelessError> {
        let age = self.made(settings, stands.next)?;
        self.once_approved(Some(&Own { tag: *tag, code: bundle::code(&age), settings }), stands, wait)
    }

    /// The bundle that these settings make at this counter, encrypted. It has the same bytes at every boot.
    fn made(&self, settings: &Settings, counter: u64) -> Result<Vec<u8>, StatelessError> {
        let Wanted { node, identity, .. } = self.wanted;
        let bundle = settings.bundle(node.clone(), counter.max(1)).map_err(StatelessError::Make)?;
        bundle.encrypt_own(identity).map_err(StatelessError::Make)
    }

    /// Makes the bundle, uploads it, and waits for its approval. `next`: the counter that the server wants; without one it is asked.
    /// `until`: how long servers may be away.
    fn make(&mut self, settings: &Settings, next: Option<u64>, until: Deadline) -> Result<Obtained, StatelessError> {
        let Wanted { node, identity, timeout, .. } = self.wanted;
        // Whatever the counter is, the tag is the same.
        let bundle = settings.bundle(node.clone(), 1).map_err(StatelessError::Make)?;
        let tag = bundle.tag(identity).map_err(StatelessError::Make)?;
        let next = match next {
            Some(next) => next,
            // The same words as at an earlier boot have made a bundle already, or one that still waits.
            None => match self.patiently(until, &mut |story| story.fetch(Some(&tag), Deadline::after(timeout)))? {
                Got::Sealed(sealed) => return self.ours(&sealed, settings),
                Got::Stands(stands, wait) if stands.bundle == Stand::Pending => {
                    return self.own_pending(settings, &tag, &stands, wait);
                }
                Got::Stands(stands, _) => stands.next,
            },
        };
        let age = self.made(settings, next)?;
        self.least = self.least.max(next);
        trial::crash("made");
        let own = Own { tag, code: bundle::code(&age), settings };
        let uploaded = self.patiently(until, &mut |story| {
            let uploaded = story.retrieval.upload(&tag, &age, story.hooks, Deadline::after(timeout));
            uploaded.map_err(StatelessError::Retrieval)
        });
        trial::crash("uploaded");
        let uploaded = uploaded?;
        // The upload is there and nowhere else.
        self.retrieval.stay();
        match uploaded {
            Uploaded::Taken(stands) => {
                let wait = if stands.bundle == Stand::Approved { Duration::ZERO } else { FIRST_LOOK };
                self.once_approved(Some(&own), &stands, wait)
            }
            Uploaded::Waits(stands) => Err(StatelessError::occupied(node, &stands)),
            Uploaded::Denied(stands) => Err(StatelessError::denied(node, &stands, Some(&own.code))),
        }
    }

    /// Waits for the approval, and takes what comes then. `own`: it is an upload with the settings of this boot.
    fn once_approved(
        &mut self,
        own: Option<&Own<'_>>,
        stands: &Standing,
        wait: Duration,
    ) -> Result<Obtained, StatelessError> {
        let Wanted { node, new, say, .. } = self.wanted;
        let named = Named::of(stands, own.map(|own| &own.code));
        match stands.bundle {
            Stand::Approved => told::at_once(say, &named),
            _ => told::waits(say, node, &named, self.retrieval.url()),
        }
        let tag = match own {
            Some(own) => Some(own.tag),
            // Without its tag, the version that is current would be taken for what waits.
            None => tag_of(stands).filter(|_| new),
        };
        let sealed = self.approved(own, tag.as_ref(), &named, wait)?;
        match own {
            Some(own) => self.ours(&sealed, own.settings),
            None => {
                let (obtained, _) = self.opened(&sealed)?;
                self.not_older(obtained)
            }
        }
    }

    /// Waits for the approval of what is pending, or of the upload with this tag.
    fn approved(
        &mut self,
        own: Option<&Own<'_>>,
        tag: Option<&[u8; 32]>,
        named: &Named,
        mut wait: Duration,
    ) -> Result<Vec<u8>, StatelessError> {
        let Wanted { node, approval, timeout, repeat, say, .. } = self.wanted;
        // Other servers know nothing of it.
        self.retrieval.stay();
        let until = Deadline::after(approval.unwrap_or(Duration::MAX));
        let mut said = since_boot();
        loop {
            (self.hooks.wait)(until.at_most(wait)).map_err(StatelessError::Ask)?;
            trial::crash("pending");
            if since_boot().saturating_sub(said) >= repeat {
                said = since_boot();
                told::waits(say, node, named, self.retrieval.url());
            }
            // Each look has its own limit, and the wait outlives a server that is away.
            let got = match self.fetch(tag, Deadline::after(timeout)) {
                Err(StatelessError::Retrieval(RetrievalError::GaveUp { .. })) if !until.expired() => {
                    wait = FIRST_LOOK;
                    continue;
                }
                got => got?,
            };
            match got {
                Got::Sealed(sealed) => return Ok(sealed),
                Got::Stands(stands, again) if stands.bundle == Stand::Pending => match (until.expired(), approval) {
                    (true, Some(waited)) => {
                        let named = Named::of(&stands, own.map(|own| &own.code));
                        return Err(StatelessError::NotApproved { node: node.clone(), named, waited });
                    }
                    _ => wait = again,
                },
                Got::Stands(stands, _) if stands.bundle == Stand::Denied => {
                    return Err(StatelessError::denied(node, &stands, own.map(|own| &own.code)));
                }
                Got::Stands(stands, _) => return Err(StatelessError::Withdrawn(stands.bundle)),
            }
        }
    }

    /// The bundle that was made here, now or at an earlier boot, byte for byte; or a later one: an administrator may have changed
    /// something.
    fn ours(&mut self, sealed: &[u8], settings: &Settings) -> Result<Obtained, StatelessError> {
        let (obtained, bundle) = self.opened(sealed)?;
        let made = self.made(settings, bundle.counter())?;
        if sha256(&made) == obtained.sha256 {
            return Ok(obtained);
        }
        self.not_older(obtained)
    }

    fn not_older(&self, obtained: Obtained) -> Result<Obtained, StatelessError> {
        match (obtained.description.counter, self.least) {
            (counter, next) if counter < next => Err(StatelessError::Another { counter, next }),
            _ => Ok(obtained),
        }
    }

    /// Verifies a bundle and unpacks it.
    fn opened(&mut self, sealed: &[u8]) -> Result<(Obtained, Bundle), StatelessError> {
        let Wanted { node, least, signers, identity, .. } = self.wanted;
        let url = self.retrieval.url().map(ToString::to_string).unwrap_or_default();
        let refused = |source| StatelessError::Refused { url: url.clone(), source };
        let expect = Expect { node, least, signers };
        let (statement, bundle) = bundle::open(sealed, &expect, identity).map_err(refused)?;
        let kid = Sealed::split(sealed).map_err(refused)?.kid();
        let description = Description {
            version: staged::VERSION,
            node: statement.node.as_str().to_owned(),
            counter: statement.counter,
            sha256: hex::encode(&statement.sha256),
            code: statement.code().to_string(),
            signer: kid.to_string(),
            approver: statement.approver.to_string(),
            signed: statement.signed.to_string(),
            units: bundle
                .units()
                .iter()
                .map(|action| (action.verb.word().to_owned(), action.unit.as_str().to_owned()))
                .collect(),
            url,
        };
        Ok((Obtained { description, sha256: statement.sha256, tar: bundle.tar() }, bundle))
    }
}

/// The tag of what waits, by which its approval is asked for.
fn tag_of(stands: &Standing) -> Option<[u8; 32]> {
    stands.tag.as_deref().and_then(hex::decode).and_then(|bytes| bytes.try_into().ok())
}

/// When the approval of an upload is asked for first. An administrator who waits for it is quick.
const FIRST_LOOK: Duration = Duration::from_secs(5);
