//! How a stateless node comes by its bundle, once it has its certificate: the configuration server has one; or it is made here, from
//! the settings of the kernel command line or of a person at a console, uploaded, and approved by an administrator. Ends with a
//! bundle that is verified and unpacked in memory, and staged for `imprint apply`. Never lays a file over the root.

mod error;
mod told;

use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

pub use error::StatelessError;

use crate::age::Identity;
use crate::bundle::answer::{Stand, Standing};
use crate::bundle::statement::Sealed;
use crate::bundle::{self, Bundle, Expect};
use crate::console::say;
use crate::handover::HandoverError;
use crate::handover::staged::{self, Description};
use crate::hex;
use crate::key_code::KeyCode;
use crate::payload::NodeName;
use crate::payload::signed::Signer;
use crate::port::Place;
use crate::retrieval::{Got, Hooks, Retrieval, Uploaded};
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
}

/// A verified bundle.
pub struct Obtained {
    description: Description,
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
    let mut story = Story { wanted: *wanted, retrieval, hooks };
    let mut next = None;
    if !wanted.new {
        match story.fetch(None, Deadline::after(wanted.timeout))? {
            Got::Sealed(sealed) => return story.opened(&sealed).map(|(obtained, _)| obtained),
            Got::Stands(stands, wait) if stands.bundle == Stand::Pending => {
                return story.already_pending(&stands, wait);
            }
            Got::Stands(stands, _) => {
                told::none(&stands);
                next = Some(stands.next);
            }
        }
    }
    let settings = match wanted.settings.is_empty() {
        false => wanted.settings.clone(),
        true => match story.ask()? {
            Asked::Settings(settings) => *settings,
            Asked::Made(got) => return story.made_meanwhile(got),
        },
    };
    story.make(&settings, next)
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
}

/// How often the configuration server is asked while a person is: an administrator may have made a bundle meanwhile.
const LOOK: Duration = Duration::from_secs(60);
/// How often the leases are looked at while a person is asked.
const LEASES: Duration = Duration::from_secs(10);

impl Story<'_, '_, '_> {
    fn fetch(&mut self, tag: Option<&[u8; 32]>, deadline: Deadline) -> Result<Got, StatelessError> {
        self.retrieval.bundle(tag, self.hooks, deadline).map_err(StatelessError::Retrieval)
    }

    /// Asks a person, on every console.
    fn ask(&mut self) -> Result<Asked, StatelessError> {
        let Wanted { root, node, consoles, approval, timeout, new, .. } = self.wanted;
        let start = Start::of_machine(root, node.as_str(), Settings::default(), Deadline::after(timeout));
        let start = start.map_err(StatelessError::Links)?;
        told::asks(node);
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
            match self.retrieval.bundle(None, self.hooks, Deadline::after(LEASES)) {
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
        told::pending(self.wanted.node, stands.code.as_deref().unwrap_or("?"), self.retrieval.url());
        let sealed = self.approved(None, wait)?;
        self.opened(&sealed).map(|(obtained, _)| obtained)
    }

    /// Makes the bundle, uploads it, and waits for its approval. `next`: the counter that the server wants; without one it is asked.
    fn make(&mut self, settings: &Settings, next: Option<u64>) -> Result<Obtained, StatelessError> {
        let Wanted { node, identity, timeout, .. } = self.wanted;
        let bundle = |counter| settings.bundle(node.clone(), counter).map_err(StatelessError::Make);
        // Whatever the counter is, the tag is the same.
        let tag = bundle(1)?.tag(identity).map_err(StatelessError::Make)?;
        let next = match next {
            Some(next) => next,
            // The same words as at an earlier boot have made a bundle already, or one that still waits.
            None => match self.fetch(Some(&tag), Deadline::after(timeout))? {
                Got::Sealed(sealed) => return self.ours(&sealed, &tag, 0),
                Got::Stands(stands, wait) if stands.bundle == Stand::Pending => {
                    told::pending(node, stands.code.as_deref().unwrap_or("?"), self.retrieval.url());
                    return self.once_approved(&tag, wait, stands.next);
                }
                Got::Stands(stands, _) => stands.next,
            },
        };
        let age = bundle(next)?.encrypt(&[identity.recipient()]).map_err(StatelessError::Make)?;
        trial::crash("made");
        let code = bundle::code(&age);
        let uploaded = self.retrieval.upload(&tag, &age, self.hooks, Deadline::after(timeout));
        trial::crash("uploaded");
        // The upload is there and nowhere else.
        self.retrieval.stay();
        match uploaded.map_err(StatelessError::Retrieval)? {
            Uploaded::Taken(stands) => {
                self.tell_taken(&stands, &code);
                let wait = if stands.bundle == Stand::Approved { Duration::ZERO } else { FIRST_LOOK };
                self.once_approved(&tag, wait, next)
            }
            Uploaded::Waits(stands) => Err(StatelessError::Occupied(Box::new(stands))),
            Uploaded::Denied(stands) => Err(StatelessError::denied(node, &stands)),
        }
    }

    fn tell_taken(&self, stands: &Standing, code: &KeyCode) {
        let known = stands.code.as_deref().filter(|known| code.is_contradicted(known));
        match (stands.bundle, known) {
            (Stand::Approved, _) => say(&format!("bundle {}: approved at once", known.unwrap_or(&code.to_string()))),
            (_, Some(known)) => told::pending_since(self.wanted.node, known, self.retrieval.url()),
            (_, None) => told::pending(self.wanted.node, &code.to_string(), self.retrieval.url()),
        }
    }

    fn once_approved(&mut self, tag: &[u8; 32], wait: Duration, next: u64) -> Result<Obtained, StatelessError> {
        let sealed = self.approved(Some(tag), wait)?;
        self.ours(&sealed, tag, next)
    }

    /// Waits for the approval of what is pending, or of the upload with this tag.
    fn approved(&mut self, tag: Option<&[u8; 32]>, mut wait: Duration) -> Result<Vec<u8>, StatelessError> {
        let Wanted { node, approval, timeout, .. } = self.wanted;
        let until = Deadline::after(approval.unwrap_or(Duration::MAX));
        loop {
            (self.hooks.wait)(until.at_most(wait)).map_err(StatelessError::Ask)?;
            trial::crash("pending");
            match self.fetch(tag, until.or_later(Deadline::after(timeout)))? {
                Got::Sealed(sealed) => return Ok(sealed),
                Got::Stands(stands, again) if stands.bundle == Stand::Pending => match (until.expired(), approval) {
                    (true, Some(waited)) => {
                        return Err(StatelessError::not_approved(node, &stands, waited));
                    }
                    _ => wait = again,
                },
                Got::Stands(stands, _) if stands.bundle == Stand::Denied => {
                    return Err(StatelessError::denied(node, &stands));
                }
                Got::Stands(stands, _) => return Err(StatelessError::Withdrawn(stands.bundle)),
            }
        }
    }

    /// The bundle that was made here, or a later one: an administrator may have changed something.
    fn ours(&mut self, sealed: &[u8], tag: &[u8; 32], next: u64) -> Result<Obtained, StatelessError> {
        let (obtained, bundle) = self.opened(sealed)?;
        let counter = obtained.description.counter;
        let same = bundle.tag(self.wanted.identity).is_ok_and(|other| other == *tag);
        if !same && counter < next.max(1) {
            return Err(StatelessError::Another { counter, next });
        }
        Ok(obtained)
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
        Ok((Obtained { description, tar: bundle.tar() }, bundle))
    }
}

/// When the approval of an upload is asked for first. An administrator who waits for it is quick.
const FIRST_LOOK: Duration = Duration::from_secs(5);
