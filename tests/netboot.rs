//! The network and the check-in of a boot, as `run` does them, with the machine's clock, name and hand-over left alone:
//! for measuring in a network namespace. Prints microseconds since boot: begun, network usable, certificate there.
//! Not for a node.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a measurement that fails is to be seen

use std::path::Path;
use std::time::Duration;

use imprint::apply::network::Race;
use imprint::checkin::{self, Ask, Context, Reply};
use imprint::facts;
use imprint::identity::Identity;
use imprint::plan::{IdentityPlan, Scope, plan};
use imprint::pool::Seeded;
use imprint::site::SignedBy;
use imprint::source;
use imprint::time::{Deadline, since_boot};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [payload, root, what] = &words[..] else { panic!("usage: netboot PAYLOAD ROOT lease|enrol") };
    let begun = since_boot();
    let (root, deadline) = (Path::new(root), Deadline::after(Duration::from_secs(30)));
    let found = source::file::named(Path::new(payload)).unwrap();
    let payload = source::decode(&found, None, None).unwrap().0;
    let mut facts = facts::gather(root, found.origin, None, SignedBy::Nobody, None, deadline).unwrap();
    facts::await_links(&mut facts, &payload, root, deadline).unwrap();
    let plan = plan(payload, &facts, Scope::Boot).unwrap();
    let network = plan.network.as_ref().unwrap();
    let mut race = Race::new(network, plan.hostname.as_ref(), root).unwrap();
    assert!(race.next(deadline, &mut |_| ()).unwrap(), "{}", race.failure());
    let usable = since_boot();
    if what == "enrol" {
        let IdentityPlan::Enrol { subject, server } = &plan.identity else { panic!("nothing to enrol for") };
        let identity = Identity::generate(subject, &Seeded::ready(deadline).unwrap()).unwrap();
        let context = Context {
            server,
            clock: &plan.clock,
            identity: &identity,
            renews: None,
            user_agent: "imprint (measured)",
            approval_timeout: None,
            line: None,
        };
        let mut ask = |ask: Ask| match ask {
            Ask::NextLink(until) => Ok(match race.next(until, &mut |_| ()).unwrap() {
                true => Reply::Done,
                false => Reply::NothingMore,
            }),
            _ => Ok(Reply::Done),
        };
        checkin::enroll(&context, &mut ask, &mut |_| (), deadline).unwrap();
    }
    let done = since_boot();
    println!("{} {} {}", begun.as_micros(), usable.as_micros(), done.as_micros());
}
