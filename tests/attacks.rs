//! Attacks by somebody in the network between nodes and the door, simulated: nodes and door are the ends of `imprint::line`, the
//! decisions are those of the agent and of the host's state, and the clock is the simulation's own. No sockets, no threads.
//!
//! Each test first counts what the same attacks come to without the defence.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "helpers of tests fail tests by panicking"
)]

mod attacks {
    pub(super) mod outcome;
    pub(super) mod site;
    pub(super) mod node;
    pub(super) mod door;
    pub(super) mod attacker;
    pub(super) mod world;
    pub(super) mod calls;
    pub(super) mod way;
}

use std::ops::AddAssign;

use attacks::attacker::Attack;
use attacks::outcome::{Case, Defence, Outcome};
use attacks::site::{Admit, Site};
use attacks::world::run;

/// Runs of each rule: 1000 in all.
const RUNS: usize = 250;

/// Runs in which a defence is left out.
const WITHOUT: usize = 20;

impl AddAssign<Outcome> for Outcome {
    fn add_assign(&mut self, out: Outcome) {
        for (sum, more) in [
            (&mut self.wrong, out.wrong),
            (&mut self.secrets, out.secrets),
            (&mut self.handed, out.handed),
            (&mut self.mistaken, out.mistaken),
            (&mut self.clocks, out.clocks),
            (&mut self.clocks_off, out.clocks_off),
            (&mut self.believed, out.believed),
            (&mut self.old, out.old),
            (&mut self.echoes_heard, out.echoes_heard),
            (&mut self.given, out.given),
            (&mut self.not_used, out.not_used),
            (&mut self.unsealed, out.unsealed),
            (&mut self.stale, out.stale),
            (&mut self.met, out.met),
            (&mut self.bad_proofs, out.bad_proofs),
            (&mut self.held, out.held),
            (&mut self.repeated, out.repeated),
            (&mut self.crossed, out.crossed),
            (&mut self.echoed, out.echoed),
            (&mut self.injected, out.injected),
            (&mut self.forged, out.forged),
        ] {
            *sum += more;
        }
        self.done &= out.done;
        self.hung |= out.hung;
        self.turns = self.turns.max(out.turns);
        self.faults.extend(out.faults);
    }
}

fn nothing_yet() -> Outcome {
    Outcome { done: true, ..Outcome::default() }
}

/// All attacks in turn, against one rule.
fn all(admit: Admit, name: &str) {
    let mut site = Site::new(admit, 0..RUNS);
    let mut sums: Vec<(Attack, Outcome)> = Attack::ALL.map(|attack| (attack, nothing_yet())).into();
    let (mut broken, mut first) = (0, None);
    for number in 0..RUNS {
        let (attack, sum) = &mut sums[number % Attack::ALL.len()];
        let case = Case { attack: *attack, run: number, without: None };
        let seed = u64::try_from(number).unwrap() * 8 + u64::from(name.as_bytes()[0]);
        let out = run(&mut site, case, seed);
        if out.bad() > 0 || !out.done || !out.faults.is_empty() {
            broken += 1;
            first = first.or(Some(format!("seed {seed}: {case:?}: {out:?}")));
        }
        *sum += out;
    }
    for (attack, sum) in &sums {
        println!("{name} {attack:?}: {sum:?}");
    }
    assert_eq!(first, None, "{name}: {broken} of {RUNS} runs");
    // The attacks have come to the nodes and to the door.
    let of = |attack: Attack| &sums.iter().find(|(other, _)| *other == attack).unwrap().1;
    assert!(of(Attack::AnswersFirst).forged > 0);
    assert!(of(Attack::AnswersFirst).not_used > 0 && of(Attack::AnothersPayload).not_used > 0);
    assert!(of(Attack::AnothersPayload).stale > 0 && of(Attack::Delays).held > 0 && of(Attack::Delays).stale > 0);
    assert!(of(Attack::Replays).repeated > 0 && of(Attack::Replays).met > 0);
    assert!(of(Attack::Relays).crossed > 0 && of(Attack::SwapsKeys).met > 0 && of(Attack::Spoofs).met > 0);
    assert!(of(Attack::AnotherCa).not_used > 0 && of(Attack::Echoes).echoed > 0 && of(Attack::Injects).injected > 0);
    // Only what rests on the node's port is given to somebody who owns that port.
    assert_eq!(of(Attack::SwapsKeys).handed > 0, admit == Admit::Wire);
    // A stolen proof of a key was shown, too.
    assert!(admit != Admit::Key || of(Attack::SwapsKeys).bad_proofs > 0 && of(Attack::Spoofs).bad_proofs > 0);
    let sum = sums.into_iter().fold(nothing_yet(), |mut sum, (_, more)| {
        sum += more;
        sum
    });
    println!("{name}: {RUNS} runs: {sum:?}");
}

#[test]
fn nobody_gets_in_the_way_of_approve() {
    all(Admit::Approve, "approve");
}

#[test]
fn nobody_gets_in_the_way_of_armed() {
    all(Admit::Armed, "armed");
}

#[test]
fn nobody_gets_in_the_way_of_wire() {
    all(Admit::Wire, "wire");
}

#[test]
fn nobody_gets_in_the_way_of_key() {
    all(Admit::Key, "key");
}

/// Some runs of an attack, without a defence.
fn several(admit: Admit, attack: Attack, without: Option<Defence>) -> Outcome {
    let mut site = Site::new(admit, 0..WITHOUT);
    let mut sum = nothing_yet();
    for number in 0..WITHOUT {
        let case = Case { attack, run: number, without };
        sum += run(&mut site, case, u64::try_from(number).unwrap());
    }
    println!("{admit:?} {attack:?}, left out: {without:?}: {sum:?}");
    sum
}

/// Premise: the same attacks work where a defence is left out.
#[test]
fn without_the_defence_each_attack_works() {
    use Admit::{Approve, Key};
    // Nobody looks at signatures: payloads of others are used, and the clock is theirs.
    let sum = several(Approve, Attack::AnswersFirst, Some(Defence::Judge));
    assert!(sum.wrong > 0 && sum.clocks_off > 0);
    assert!(several(Approve, Attack::AnothersPayload, Some(Defence::Judge)).wrong > 0);
    // The console says what a host says: the administrator admits the attacker's key.
    assert!(several(Approve, Attack::SwapsKeys, Some(Defence::Console)).secrets > 0);
    // Any signer's CA counts.
    assert!(several(Key, Attack::AnotherCa, Some(Defence::Ca)).wrong > 0);
    // Anybody tells the time.
    assert!(several(Key, Attack::AnswersFirst, Some(Defence::Proof)).believed > 0);
    // Challenges count for ever: a payload that was held for minutes is used.
    assert!(several(Key, Attack::Delays, Some(Defence::Age)).old > 0);
    // The boots of a machine are all alike: yesterday's conversation is one of today.
    let sum = several(Key, Attack::Replays, Some(Defence::Boot));
    assert!(sum.wrong > 0 && sum.clocks_off > 0);
}

/// What admits a node is not what it should be: the administrator does not compare codes, the hypervisor names the wrong port, the
/// attacker has a stick, or he calls in the window while the node is not heard. The words of a machine are never enough for more than
/// that.
#[test]
fn without_the_rule_the_attacker_is_let_in() {
    for admit in [Admit::Known, Admit::Approve, Admit::Wire, Admit::Key, Admit::Armed] {
        for attack in [Attack::Spoofs, Attack::SwapsKeys] {
            let sum = several(admit, attack, Some(Defence::Admission));
            assert!(sum.secrets > 0, "{admit:?} {attack:?}");
        }
    }
}

/// The record of one virtual machine was copied from that of another, all but the port: what the node checks is another node's.
/// Premise of the rule that a record binds more than the port: the machine behind that port passes on the call of the other node,
/// which uses the payload that it is given.
#[test]
fn without_a_binding_that_is_its_own_a_relay_changes_payloads() {
    let sum = relayed(Site::copied(0..WITHOUT));
    assert!(sum.wrong > 0, "{sum:?}");
    let sum = relayed(Site::new(Admit::Wire, 0..WITHOUT));
    assert!(sum.wrong == 0 && sum.done && sum.crossed > 0, "{sum:?}");
}

fn relayed(mut site: Site) -> Outcome {
    let mut sum = nothing_yet();
    for number in 0..WITHOUT {
        let case = Case { attack: Attack::Relays, run: number, without: None };
        sum += run(&mut site, case, u64::try_from(number).unwrap());
    }
    sum
}

/// Two nodes that were born alike (one image, and no lot at the boot) say different things of themselves. Premise: the relay leads the
/// host to seal the payload of one of them on the connection of the other, which gets it. The HELLO in the seal is another, so the node
/// cannot open it.
#[test]
fn what_is_sealed_for_one_hello_is_not_opened_by_another() {
    let sum = several(Admit::Key, Attack::Relays, Some(Defence::Boot));
    assert!(sum.mistaken > 0 && sum.unsealed > 0, "{sum:?}");
    assert!(sum.wrong == 0 && sum.clocks_off == 0 && sum.done, "{sum:?}");
}
