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
    pub(super) mod attacker;
    pub(super) mod door;
    pub(super) mod node;
    pub(super) mod site;
    pub(super) mod world;
}

use attacks::attacker::Attack;
use attacks::node::Without;
use attacks::site::{Admit, Site};
use attacks::world::{Case, Outcome, run};

/// Runs of each rule: 1000 in all.
const RUNS: usize = 250;

#[derive(Default, Debug)]
struct Total {
    runs: usize,
    done: usize,
    wrong: usize,
    secrets: usize,
    mistaken: usize,
    clocks: usize,
    clocks_off: usize,
    old: usize,
    hung: usize,
    given: usize,
    not_used: usize,
    unsealed: usize,
    stale: usize,
    met: usize,
    bad_proofs: usize,
    held: usize,
    repeated: usize,
    crossed: usize,
    forged: usize,
    most_turns: usize,
}

impl Total {
    fn add(&mut self, out: &Outcome) {
        self.runs += 1;
        self.done += usize::from(out.done);
        self.wrong += out.wrong;
        self.secrets += out.secrets;
        self.mistaken += out.mistaken;
        self.clocks += out.clocks;
        self.clocks_off += out.clocks_off;
        self.old += out.old;
        self.hung += usize::from(out.hung);
        self.given += out.given;
        self.not_used += out.not_used;
        self.unsealed += out.unsealed;
        self.stale += out.stale;
        self.met += out.met;
        self.bad_proofs += out.bad_proofs;
        self.held += out.held;
        self.repeated += out.repeated;
        self.crossed += out.crossed;
        self.forged += out.forged;
        self.most_turns = self.most_turns.max(out.turns);
    }
}

/// All attacks in turn, against one rule.
fn all(admit: Admit, name: &str) {
    let mut site = Site::new(admit, 0..RUNS);
    let mut totals: Vec<(Attack, Total)> = Attack::ALL.map(|attack| (attack, Total::default())).into();
    for number in 0..RUNS {
        let (attack, total) = &mut totals[number % Attack::ALL.len()];
        let case = Case { attack: *attack, run: number, without: Without::default(), unguarded: false };
        let seed = u64::try_from(number).unwrap() * 8 + u64::from(name.as_bytes()[0]);
        let out = run(&mut site, case, seed);
        let bad = out.wrong + out.secrets + out.mistaken + out.clocks_off + out.old + usize::from(out.hung);
        assert!(bad == 0 && out.done && out.faults.is_empty(), "{name}, seed {seed}: {case:?}: {out:?}");
        total.add(&out);
    }
    for (attack, total) in &totals {
        println!("{name} {attack:?}: {total:?}");
    }
    // The attacks have come to the nodes and to the door.
    let of = |attack: Attack| &totals.iter().find(|(other, _)| *other == attack).unwrap().1;
    assert!(of(Attack::AnswersFirst).forged > 0);
    assert!(of(Attack::AnswersFirst).not_used > 0 && of(Attack::AnothersPayload).not_used > 0);
    assert!(of(Attack::AnothersPayload).stale > 0 && of(Attack::Delays).held > 0 && of(Attack::Delays).stale > 0);
    assert!(of(Attack::Replays).repeated > 0 && of(Attack::Replays).met > 0);
    assert!(of(Attack::Relays).crossed > 0 && of(Attack::SwapsKeys).met > 0 && of(Attack::Spoofs).met > 0);
    let runs: usize = totals.iter().map(|(_, total)| total.runs).sum();
    let sum = |of: fn(&Total) -> usize| totals.iter().map(|(_, total)| of(total)).sum::<usize>();
    println!(
        "{name}: {runs} runs, {} done, {} wrong payloads, {} secrets given away, {} of {} clocks outside, {} hung",
        sum(|total| total.done),
        sum(|total| total.wrong),
        sum(|total| total.secrets),
        sum(|total| total.clocks_off),
        sum(|total| total.clocks),
        sum(|total| total.hung),
    );
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

/// Premise: the same attacks work where a defence is left out.
#[test]
fn without_the_defence_each_attack_works() {
    let several = |admit: Admit, attack: Attack, without: Without, unguarded: bool| {
        let mut site = Site::new(admit, 0..6);
        let mut total = Total::default();
        for number in 0..6 {
            let case = Case { attack, run: number, without, unguarded };
            total.add(&run(&mut site, case, u64::try_from(number).unwrap()));
        }
        println!("{admit:?} {attack:?} {without:?} unguarded {unguarded}: {total:?}");
        total
    };
    let (judge, age) = (Without { judge: true, age: false }, Without { judge: false, age: true });
    let none = Without::default();
    // Nobody looks at signatures: payloads of others are used, and the clock is theirs.
    let total = several(Admit::Approve, Attack::AnswersFirst, judge, false);
    assert!(total.wrong > 0 && total.clocks_off > 0);
    assert!(several(Admit::Approve, Attack::AnothersPayload, judge, false).wrong > 0);
    // Challenges count for ever: a payload that was held for minutes is used.
    assert!(several(Admit::Key, Attack::Delays, age, false).old > 0);
    // The words of a machine suffice; the administrator does not compare codes; the hypervisor names the wrong port; he has a
    // stick; nobody else calls in the window.
    for admit in [Admit::Known, Admit::Approve, Admit::Wire, Admit::Key, Admit::Armed] {
        for attack in [Attack::Spoofs, Attack::SwapsKeys] {
            assert!(several(admit, attack, none, true).secrets > 0, "{admit:?} {attack:?}");
        }
    }
}
