//! The steps from the plan to the hand-over: key, CSR and certificate, or the key and certificate from the payload, and the bundle of
//! a stateless node. A boot and `imprint enroll` share these steps. Never sets the clock or the network by itself; `door` does that.

use super::door::Door;
use super::limits::Limits;
use super::stateless;
use crate::chain::chain;
use crate::checkin::{self, Ask, Context};
use crate::console::say;
use crate::error::Error;
use crate::handover::credential::{self, Left};
use crate::handover::{self, Certificates, Folder, Pending, Private, units};
use crate::identity::{Given, Identity};
use crate::line::seal;
use crate::payload::EstUrl;
use crate::plan::{GivenPlan, IdentityPlan, Plan};
use crate::pool::Seeded;
use crate::status::{Node, Timeline};

/// Key, CSR, certificate, bundle and hand-over: the steps that a boot and a running system share.
pub(super) fn identify(
    plan: &Plan,
    seeded: &Seeded,
    mut door: Door<'_>,
    folder: &Folder,
    private: Private,
    timeline: &mut Timeline,
    limits: Limits,
) -> Result<Pending, Error> {
    let Limits { deadline, approval: approval_timeout, .. } = limits;
    let (subject, server) = match &plan.identity {
        IdentityPlan::Enrol { subject, server } => (subject, server),
        IdentityPlan::Given(given) => return adopt(plan, given, &mut door, folder, private, timeline),
    };
    let identity = timeline.step("identity", |detail| {
        let identity = Identity::generate(subject, seeded)?;
        *detail = format!("{} key {}", subject.key, identity.code());
        Ok::<_, Error>(identity)
    })?;
    timeline.keyed(&identity.code());
    let user_agent = format!("imprint/{} ({})", env!("CARGO_PKG_VERSION"), plan.origin.kind());
    let request = door.line.and_then(|line| {
        let token = server.token.as_ref().map(|token| token.secret.expose().as_bytes()).unwrap_or_default();
        server.urls.contains(&EstUrl::Line).then(|| (line, seal::request(token, line.hello(), identity.csr())))
    });
    let issued = timeline.step("check-in", |detail| {
        let context = Context {
            line: request.as_ref().map(|(dialogue, request)| checkin::Line { dialogue, request }),
            server,
            clock: &plan.clock,
            identity: &identity,
            renews: None,
            user_agent: &user_agent,
            approval_timeout,
        };
        let mut ask = |ask: Ask| door.answer(ask);
        let issued = checkin::enroll(&context, &mut ask, &mut |progress| say(&progress.to_string()), deadline)?;
        *detail = format!("{} by {}", issued.facts().subject, issued.server());
        Ok::<_, Error>(issued)
    });
    // Not before the check-in: some drivers take their time to tell the speed of a link.
    timeline.links(&door.links());
    let issued = issued?;
    // Before the hand-over: a lease that is renewed meanwhile is handed over as it is in the end.
    let obtained = match &plan.bundle {
        Some(bundle) => {
            let about =
                stateless::About { bundle, server, issued: &issued, identity: &identity, user_agent: &user_agent };
            Some(timeline.step("bundle", |detail| stateless::obtain(&about, &mut door, limits, detail))?)
        }
        None => None,
    };
    if let Some(obtained) = &obtained {
        let described = obtained.description();
        timeline.staged(described.counter, described.code.clone());
    }
    timeline.step("hand-over", |detail| {
        let network = door.hand_over()?;
        let node = Node::new(plan, network.as_ref(), &identity.code(), issued.facts().not_after);
        *detail = format!("{}, valid until {}", folder.path().display(), issued.facts().not_after);
        let certificates = Certificates::new(&issued, &server.ca);
        let mut pending = handover::write(folder, private, identity, &certificates, &node)?;
        if let Some(obtained) = &obtained {
            obtained.stage(folder.path())?;
        }
        leave_ca(&mut pending, &door, certificates.ca, detail);
        Ok::<_, Error>(pending)
    })
}

/// Certificate and key are in the payload: the same hand-over, without a check-in.
fn adopt(
    plan: &Plan,
    given: &GivenPlan,
    door: &mut Door<'_>,
    folder: &Folder,
    private: Private,
    timeline: &mut Timeline,
) -> Result<Pending, Error> {
    let given = timeline.step("identity", |detail| {
        let given = Given::verify(given)?;
        *detail = format!("{} with {} key {}, from the payload", given.facts().subject, given.key_type(), given.code());
        Ok::<_, Error>(given)
    })?;
    timeline.keyed(&given.code());
    timeline.links(&door.links());
    timeline.step("hand-over", |detail| {
        let network = door.hand_over()?;
        let node = Node::new(plan, network.as_ref(), &given.code(), given.facts().not_after);
        *detail = format!("{}, valid until {}", folder.path().display(), given.facts().not_after);
        let chain = given.chain().to_vec();
        let certificates = Certificates::of(&chain, plan.ca());
        let mut pending = handover::write(folder, private, given, &certificates, &node)?;
        leave_ca(&mut pending, door, certificates.ca, detail);
        Ok::<_, Error>(pending)
    })
}

/// Leaves the CA for services of the real root, and the target that they are ordered behind. The identity is complete without
/// them, so a failure is reported and stops nothing.
fn leave_ca(pending: &mut Pending, door: &Door<'_>, ca: &[u8], detail: &mut String) {
    if !door.boot {
        return;
    }
    match pending.leave_ca(door.root, ca) {
        Ok(Left::Ours | Left::Nothing) => {}
        Ok(left) => *detail = format!("{detail}; {left}"),
        Err(error) => *detail = format!("{detail}; no credential {}: {}", credential::NAME, chain(&error)),
    }
    if let Err(error) = units::leave_target(door.root, None) {
        *detail = format!("{detail}; no imprint.target: {}", chain(&error));
    }
}
