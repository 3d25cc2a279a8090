use imprint::key_code::KeyCode;
use imprint::line::{Hello, Nonce, Versions};

use super::*;

fn now() -> Timestamp {
    Timestamp::from_secs(1_900_000_000)
}

const MINUTE: Duration = Duration::from_secs(60);
const STICK: [u8; 32] = [0x51; 32];

fn hello(key: u8, serial: Option<&str>) -> Hello {
    Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh: true,
        nonce: Nonce([key; 8]),
        key: [key; 32],
        uuid: None,
        serial: serial.map(str::to_owned),
        macs: Vec::new(),
    }
}

fn caller(serial: Option<&str>) -> Caller {
    Caller {
        hello: hello(1, serial),
        from: "tcp:192.0.2.1:40000".to_owned(),
        source: "192.0.2.1".to_owned(),
        facts: Facts::default(),
        keys: Vec::new(),
    }
}

fn cid(cid: u32) -> Facts {
    Facts { cid: Some(cid), ..Facts::default() }
}

/// node1 with this rule, as the store has it when nothing stands against it: bound to serial number S, and where the rule is
/// about facts to CID 3; its window is open, and it was approved when it said S.
fn node1(admit: Admit) -> Candidate {
    let facts = if admit == Admit::Wire { cid(3) } else { Facts::default() };
    Candidate {
        node: "node1".to_owned(),
        rule: Rule { admit, facts, ..Rule::default() },
        binding: Some(Binding { serial: Some("S".to_owned()), ..Binding::default() }),
        keys: vec![ListedKey { public: STICK, in_image: false }],
        before: Some(Said::of(&caller(Some("S")))),
        window: Some(Window { opened: now().minus(MINUTE), until: now().plus(MINUTE), taken: None }),
        ..Candidate::default()
    }
}

/// The caller that the rule is for.
fn right(admit: Admit) -> Caller {
    let mut caller = caller(Some("S"));
    match admit {
        Admit::Wire => caller.facts = cid(3),
        Admit::Key => caller.keys = vec![STICK],
        _ => {}
    }
    caller
}

fn first() -> Option<Timestamp> {
    Some(now().minus(QUIET))
}

/// The level that the caller is let in at, or why it waits.
fn ruled(caller: &Caller, candidate: Candidate) -> Result<Level, String> {
    match judge(caller, first(), &[candidate], now()) {
        Ruling::Admit { node, level } => {
            assert_eq!(node, "node1");
            Ok(level)
        }
        Ruling::Wait { why, .. } => Err(why),
    }
}

fn rival(heard: Timestamp, let_in: bool) -> Rival {
    Rival { code: "7K3M-Q0ZT-N4V8-XW1C".to_owned(), from: "tcp:203.0.113.66:1".to_owned(), heard, let_in }
}

const RULED_ONES: [(Admit, Level); 5] = [
    (Admit::Armed, Level::Armed),
    (Admit::Wire, Level::Wire),
    (Admit::Key, Level::Stick),
    (Admit::ApproveOnce, Level::ApprovedOnce),
    (Admit::Known, Level::Known),
];

#[test]
fn whom_a_rule_is_for_is_let_in() {
    for (admit, level) in RULED_ONES {
        assert_eq!(ruled(&right(admit), node1(admit)), Ok(level), "{admit:?}");
    }
    assert_eq!(ruled(&right(Admit::Approve), node1(Admit::Approve)), Err("node1 is approved at every boot".to_owned()));
}

/// The attack: somebody says what the node says, and has nothing else.
#[test]
fn words_alone_are_enough_only_where_the_record_says_so() {
    for (admit, want) in [
        (Admit::Approve, Err("node1 is approved at every boot")),
        (Admit::Wire, Err("the record of node1 binds vsock CID 3, and the door does not know that of the caller")),
        (Admit::Key, Err("it has not shown the admission key of node1")),
        (Admit::Armed, Ok(Level::Armed)),
        (Admit::ApproveOnce, Ok(Level::ApprovedOnce)),
        (Admit::Known, Ok(Level::Known)),
    ] {
        assert_eq!(ruled(&caller(Some("S")), node1(admit)), want.map_err(str::to_owned), "{admit:?}");
        // A record that binds a fact as well: a claim never stands for it.
        let mut candidate = node1(admit);
        candidate.rule.facts = cid(3);
        assert!(ruled(&caller(Some("S")), candidate).is_err(), "{admit:?}");
    }
}

/// The attack: the machine behind the device passes on the call of another node, which says nothing of itself and whose payload says
/// nothing of a machine. So the record has to bind something that the node checks.
#[test]
fn facts_alone_are_not_enough() {
    let mut silent = caller(None);
    silent.facts = cid(3);
    let placeholder = Binding { serial: Some("To be filled by O.E.M.".to_owned()), ..Binding::default() };
    for (admit, _) in RULED_ONES {
        let mut candidate = Candidate { binding: None, before: None, ..node1(admit) };
        candidate.rule.facts = cid(3);
        let keys = right(admit).keys;
        assert!(ruled(&Caller { keys, ..silent.clone() }, candidate.clone()).is_err(), "{admit:?}");
        // What many machines say names none.
        candidate.binding = Some(placeholder.clone());
        let same = Caller { facts: cid(3), keys: right(admit).keys, ..caller(placeholder.serial.as_deref()) };
        assert!(ruled(&same, candidate).is_err() || admit == Admit::Known, "{admit:?}");
    }
    assert_eq!(
        ruled(&silent, Candidate { binding: None, ..node1(Admit::Wire) }),
        Err("the record of node1 binds nothing that the node itself checks; add uuid, serial or macs to its bind"
            .to_owned())
    );
    // The record names the machine, too, and the caller does not say so.
    assert_eq!(
        ruled(&silent, node1(Admit::Wire)),
        Err("no record names this machine; it is not node1: the record's serial number is \"S\", the caller says none"
            .to_owned())
    );
}

#[test]
fn every_fact_of_the_record_must_be_known() {
    let all = Facts { cid: Some(3), tap: Some("tap0".to_owned()), vm: Some("web".to_owned()) };
    let mut candidate = node1(Admit::Wire);
    candidate.rule.facts = all.clone();
    let known = |facts: Facts| Caller { facts, ..caller(Some("S")) };
    assert_eq!(ruled(&known(all.clone()), candidate.clone()), Ok(Level::Wire));
    for lacks in [
        Facts { cid: None, ..all.clone() },
        Facts { tap: None, ..all.clone() },
        Facts { vm: None, ..all.clone() },
        Facts { cid: Some(4), ..all.clone() },
        Facts { tap: Some("tap1".to_owned()), ..all.clone() },
        Facts { vm: Some("WEB".to_owned()), ..all.clone() },
    ] {
        assert!(ruled(&known(lacks.clone()), candidate.clone()).is_err(), "{lacks:?}");
    }
    // No fact in the record: nothing can prove it, whatever the door knows.
    candidate.rule.facts = Facts::default();
    assert!(ruled(&known(all), candidate).is_err());
}

/// The attack: a virtual machine says that it is another one, whose record rests on words.
#[test]
fn facts_beat_claims() {
    let (wire, mut known) = (node1(Admit::Wire), node1(Admit::Known));
    known.node = "node2".to_owned();
    let liar = Caller { facts: cid(3), ..caller(Some("S")) };
    assert_eq!(
        judge(&liar, first(), &[known.clone(), wire.clone()], now()),
        Ruling::Admit { node: "node1".to_owned(), level: Level::Wire }
    );
    // And from another machine: not even its words count for a record that the hypervisor knows to be another's.
    known.rule.facts = cid(4);
    assert!(matches!(judge(&liar, first(), &[known], now()), Ruling::Wait { nodes, .. } if nodes.is_empty()));
}

/// Two keys for one record, the forged one first or last: nobody is let in for words.
#[test]
fn two_keys_for_one_record() {
    for (admit, level) in RULED_ONES {
        for (heard, let_in) in [(now().minus(MINUTE), false), (now(), false), (now().minus(MINUTE), true)] {
            let candidate = Candidate { rivals: vec![rival(heard, let_in)], ..node1(admit) };
            let ruling = ruled(&right(admit), candidate);
            if matches!(admit, Admit::Wire | Admit::Key) {
                assert_eq!(ruling, Ok(level), "{admit:?}: nobody else can have that");
            } else {
                let what = if let_in { "was let in" } else { "waits" };
                let want =
                    format!("two keys call as node1: line key 7K3M-Q0ZT-N4V8-XW1C from tcp:203.0.113.66:1 {what}, too");
                assert_eq!(ruling, Err(want), "{admit:?}");
            }
        }
        // One that was not heard for a while does not count, unless it called within the window.
        let long_ago = Candidate { rivals: vec![rival(now().minus(RECENT), false)], ..node1(admit) };
        assert_eq!(ruled(&right(admit), long_ago), Ok(level), "{admit:?}");
    }
    let wide = Window { opened: now().minus(RECENT * 3), until: now().plus(MINUTE), taken: None };
    let within =
        Candidate { rivals: vec![rival(now().minus(RECENT * 2), false)], window: Some(wide), ..node1(Admit::Armed) };
    assert!(ruled(&right(Admit::Armed), within).is_err());
}

/// The attack: the forged HELLO is there first. The rule looks for a moment before it believes words.
#[test]
fn words_are_believed_after_a_moment_only() {
    for (admit, level) in RULED_ONES {
        for (first, left) in [
            (None, QUIET),
            (Some(now()), QUIET),
            (Some(now().minus(Duration::from_millis(500))), QUIET - Duration::from_millis(500)),
        ] {
            let ruling = judge(&right(admit), first, &[node1(admit)], now());
            if matches!(admit, Admit::Wire | Admit::Key) {
                assert_eq!(ruling, Ruling::Admit { node: "node1".to_owned(), level }, "{admit:?}");
                continue;
            }
            assert_eq!(
                ruling,
                Ruling::Wait {
                    nodes: vec!["node1".to_owned()],
                    why: "for a moment, to see whether another key calls as node1".to_owned(),
                    again: Some(left),
                    quiet: true
                },
                "{admit:?}"
            );
        }
        // The accident: the clock was set back.
        let ruling = judge(&right(admit), Some(now().plus(MINUTE)), &[node1(admit)], now());
        assert_eq!(ruling, Ruling::Admit { node: "node1".to_owned(), level }, "{admit:?}");
    }
}

#[test]
fn a_window_is_open_for_a_time_and_for_one_key() {
    let with = |window| ruled(&right(Admit::Armed), Candidate { window, ..node1(Admit::Armed) });
    let window = |opened, until| Some(Window { opened, until, taken: None });
    let shut = Err("no window is open for node1; imprint-host admit node1 --for 10m opens one".to_owned());
    assert_eq!(with(None), shut);
    assert_eq!(with(window(now().minus(MINUTE), now())), shut, "it is over");
    assert_eq!(with(window(now().plus(MINUTE), now().plus(MINUTE * 2))), shut, "the clock was set back");
    let taken = |hello| Some(Window { opened: now().minus(MINUTE), until: now().plus(MINUTE), taken: Some(hello) });
    assert_eq!(with(taken(right(Admit::Armed).hello.digest())), Ok(Level::Armed), "the same key again");
    assert!(with(taken([7; 32])).unwrap_err().ends_with("has let in another line key"));
}

/// The attack: somebody has called before, and waits for the window to be opened.
#[test]
fn a_window_is_for_those_who_call_after_it_was_opened() {
    let opened = now().minus(MINUTE);
    let with = |first| judge(&right(Admit::Armed), Some(first), &[node1(Admit::Armed)], now());
    let let_in = Ruling::Admit { node: "node1".to_owned(), level: Level::Armed };
    assert_eq!(with(opened), let_in);
    let Ruling::Wait { why, .. } = with(opened.minus(Duration::from_millis(1))) else { panic!("let in") };
    assert!(why.starts_with("it has called before the window for node1 was opened"), "{why}");
}

/// The attack: the node runs, and somebody calls with its words.
#[test]
fn a_node_whose_certificate_was_just_issued_or_shown_is_not_replaced_for_words() {
    for (admit, level) in RULED_ONES {
        let at = |in_use| judge(&right(admit), first(), &[Candidate { in_use: Some(in_use), ..node1(admit) }], now());
        let let_in = Ruling::Admit { node: "node1".to_owned(), level };
        let ruling = at(now().minus(MINUTE));
        if level.is_claim() {
            let left = RECENT - MINUTE;
            assert!(
                matches!(ruling, Ruling::Wait { again: Some(after), quiet: false, .. } if after == left),
                "{admit:?}"
            );
        } else {
            assert_eq!(ruling, let_in, "{admit:?}");
        }
        assert_eq!(at(now().minus(RECENT)), let_in, "{admit:?}");
        assert_eq!(at(now().plus(MINUTE)), let_in, "{admit:?}: from before the clock was set back");
    }
}

#[test]
fn what_an_administrator_has_revoked_no_rule_gives_back() {
    for (admit, _) in RULED_ONES {
        let candidate = Candidate { revoked: Some(now().minus(MINUTE)), ..node1(admit) };
        assert!(ruled(&right(admit), candidate).unwrap_err().starts_with("the certificates of node1 were revoked"));
    }
}

#[test]
fn a_rule_lets_in_so_many_an_hour() {
    for (admit, level) in RULED_ONES {
        let lately =
            |count: u32| (0..count).map(|n| now().minus(MINUTE * 30).plus(Duration::from_secs(n.into()))).collect();
        let with = |lately| judge(&right(admit), first(), &[Candidate { lately, ..node1(admit) }], now());
        assert_eq!(with(lately(19)), Ruling::Admit { node: "node1".to_owned(), level }, "{admit:?}");
        let after = MINUTE * 30;
        assert!(matches!(with(lately(20)), Ruling::Wait { again: Some(at), .. } if at == after), "{admit:?}");
        assert_eq!(with(vec![now().plus(MINUTE); 30]), Ruling::Admit { node: "node1".to_owned(), level }, "{admit:?}");
    }
}

#[test]
fn which_key_and_where_it_is_from() {
    const IMAGE: [u8; 32] = [2; 32];
    const A: [u8; 32] = [3; 32];
    const B: [u8; 32] = [4; 32];
    const C: [u8; 32] = [5; 32];
    let listed = vec![ListedKey { public: IMAGE, in_image: true }, ListedKey { public: STICK, in_image: false }];
    let with = |keys: &[[u8; 32]]| {
        let caller = Caller { keys: keys.to_vec(), ..caller(Some("S")) };
        ruled(&caller, Candidate { keys: listed.clone(), ..node1(Admit::Key) })
    };
    assert_eq!(with(&[STICK]), Ok(Level::Stick));
    assert_eq!(with(&[IMAGE]), Ok(Level::ImageKey));
    // Two sticks, or a stick and the image: whichever the record names counts, in any order.
    for keys in [[A, STICK], [STICK, A], [IMAGE, STICK], [STICK, IMAGE]] {
        assert_eq!(with(&keys), Ok(Level::Stick));
    }
    assert_eq!(with(&[A, IMAGE]), Ok(Level::ImageKey));
    let [a, b, c] = [A, B, C].map(|key| KeyCode::of(&key));
    let waits = [
        (&[][..], "it has not shown the admission key of node1".to_owned()),
        (&[A], format!("it has shown admission key {a}, and the record of node1 does not name it")),
        (&[A, B], format!("it has shown admission keys {a}, {b}, and the record of node1 names none")),
        (
            &[A, B, C, [6; 32], [7; 32]],
            format!("it has shown admission keys {a}, {b}, {c} and 2 more, and the record of node1 names none"),
        ),
    ];
    for (keys, why) in waits {
        assert_eq!(with(keys), Err(why));
    }
}

/// The key of the image comes first, and the stick's a moment later: that is no news for the log.
#[test]
fn another_key_may_follow_for_a_moment() {
    for keys in [vec![], vec![[3; 32]]] {
        let caller = Caller { keys, ..caller(Some("S")) };
        let ruling = judge(&caller, Some(now()), &[node1(Admit::Key)], now());
        assert!(matches!(ruling, Ruling::Wait { quiet: true, again: Some(QUIET), .. }), "{ruling:?}");
    }
}

#[test]
fn whoever_says_the_same_as_when_it_was_approved() {
    let with = |caller: &Caller, before: Option<Said>| {
        ruled(caller, Candidate { before, binding: None, ..node1(Admit::ApproveOnce) })
    };
    let before = Said { serial: Some("S".to_owned()), uuid: None, macs: Vec::new(), by: "tcp".to_owned() };
    assert_eq!(with(&caller(Some("S")), Some(before.clone())), Ok(Level::ApprovedOnce));
    let over = Caller { from: "vsock:3".to_owned(), ..caller(Some("S")) };
    for (caller, before) in [
        (caller(Some("T")), Some(before.clone())),
        (over, Some(before.clone())),
        (caller(Some("S")), Some(Said { uuid: Some("U".to_owned()), ..before.clone() })),
        (caller(Some("S")), Some(Said { macs: vec!["52:54:00:12:34:56".to_owned()], ..before.clone() })),
        (caller(Some("S")), None),
        // Every machine that says nothing says the same.
        (caller(None), Some(Said { serial: None, ..before.clone() })),
        (caller(Some("")), Some(Said { serial: Some(String::new()), ..before })),
    ] {
        assert!(with(&caller, before.clone()).is_err(), "{caller:?} {before:?}");
    }
}

#[test]
fn nobody_and_several() {
    assert_eq!(
        judge(&caller(Some("T")), first(), &[node1(Admit::Known)], now()),
        waits(
            Vec::new(),
            "no record names this machine; it is not node1: the record's serial number is \"S\", the caller says \"T\""
                .to_owned()
        )
    );
    let node2 = Candidate { node: "node2".to_owned(), ..node1(Admit::Known) };
    assert_eq!(
        judge(&caller(Some("S")), first(), &[node1(Admit::Known), node2], now()),
        waits(
            vec!["node1".to_owned(), "node2".to_owned()],
            "the records node1 and node2 all name this machine".to_owned()
        )
    );
}

/// Numbers from a seed (splitmix64).
struct Seed(u64);

impl Seed {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }

    fn maybe<T>(&mut self, value: T) -> Option<T> {
        (self.below(2) == 0).then_some(value)
    }

    fn facts(&mut self) -> Facts {
        let (cid, tap, vm) = (self.below(3), self.below(3), self.below(3));
        Facts {
            cid: (cid > 0).then(|| u32::try_from(cid).unwrap() + 2),
            tap: (tap > 0).then(|| format!("tap{tap}")),
            vm: (vm > 0).then(|| format!("vm{vm}")),
        }
    }

    fn at(&mut self) -> Timestamp {
        now().minus(RECENT * 2).plus(Duration::from_secs(self.below(2400)))
    }

    fn caller(&mut self) -> Caller {
        let serial = ["S", "T", ""][usize::try_from(self.below(3)).unwrap()];
        let mut caller = caller(self.maybe(serial));
        let (uuid, mac) = (u8::try_from(self.below(2)).unwrap(), u8::try_from(self.below(2)).unwrap());
        caller.hello.uuid = self.maybe([uuid; 16]);
        caller.hello.macs = self.maybe(vec![vec![2, 0, 0, 0, 0, mac]]).unwrap_or_default();
        caller.facts = self.facts();
        let public = [u8::try_from(self.below(3)).unwrap(); 32];
        caller.keys = [self.maybe(public), self.maybe([9; 32])].into_iter().flatten().collect();
        caller
    }

    fn candidate(&mut self, node: &str) -> Candidate {
        let mac = HardwareAddress::parse("02:00:00:00:00:01").unwrap();
        let binding = Binding { uuid: self.maybe([1; 16]), serial: self.maybe("S".to_owned()), macs: Vec::new() };
        let admit = Admit::ALL[usize::try_from(self.below(6)).unwrap()].0;
        let (opened, until) = (self.at(), self.at());
        let taken = self.maybe([7; 32]).filter(|_| self.below(3) == 0);
        let words = self.caller();
        let (heard, let_in) = (self.at(), self.below(2) == 0);
        let listed = ListedKey { public: [1; 32], in_image: self.below(2) == 0 };
        let (in_use, revoked, times) = (self.at(), self.at(), self.below(25));
        Candidate {
            node: node.to_owned(),
            rule: Rule { admit, facts: self.maybe(()).map(|()| self.facts()).unwrap_or_default(), ..Rule::default() },
            binding: (binding != Binding::default()).then_some(binding),
            links: self.maybe(vec![mac]).unwrap_or_default(),
            keys: vec![listed],
            before: self.maybe(Said::of(&words)),
            window: self.maybe(Window { opened, until, taken }),
            rivals: if self.below(3) == 0 { vec![rival(heard, let_in)] } else { Vec::new() },
            in_use: self.maybe(in_use).filter(|_| self.below(2) == 0),
            revoked: self.maybe(revoked).filter(|_| self.below(4) == 0),
            lately: if self.below(4) == 0 { (0..times).map(|_| now().minus(MINUTE)).collect() } else { Vec::new() },
        }
    }
}

/// Whatever a caller says and whatever the store has: it is let in only for what the level means, said here in other words
/// than in the rule.
#[test]
fn nobody_is_let_in_without_what_its_level_means() {
    let mut let_in = std::collections::BTreeMap::new();
    for number in 0..20_000u64 {
        let mut seed = Seed(number);
        let caller = seed.caller();
        let candidates: Vec<Candidate> = ["node1", "node2"].map(|node| seed.candidate(node)).to_vec();
        let first = seed.maybe(now().minus(Duration::from_millis(seed.0 % 4000)));
        let Ruling::Admit { node, level } = judge(&caller, first, &candidates, now()) else { continue };
        *let_in.entry(level.word()).or_insert(0) += 1;
        let its = candidates.iter().find(|candidate| candidate.node == node).unwrap();
        let Candidate { rule, binding, window, rivals, in_use, revoked, lately, before, .. } = its;
        let Facts { cid, tap, vm } = &rule.facts;
        let met = (cid.is_none() || *cid == caller.facts.cid)
            && (tap.is_none() || *tap == caller.facts.tap)
            && (vm.is_none() || *vm == caller.facts.vm);
        assert!(met && revoked.is_none() && lately.len() < RULED, "seed {number}");
        if let Some(binding) = binding {
            assert!(binding.uuid.is_none() || binding.uuid == caller.hello.uuid, "seed {number}");
            assert!(binding.serial.is_none() || binding.serial == caller.hello.serial, "seed {number}");
        }
        let alone = || {
            rivals.iter().all(|rival| rival.heard.plus(RECENT) <= now())
                && first.is_some_and(|first| first.plus(QUIET) <= now())
        };
        // What the node checks, unless its words have named it.
        let checked = matches!(level, Level::Known | Level::ApprovedOnce) || binding.is_some() || rule.facts.is_empty();
        assert!(checked, "seed {number}");
        let means = match (rule.admit, level) {
            (Admit::Armed, Level::Armed) => window.is_some_and(|window| {
                let in_it =
                    rivals.iter().all(|rival| rival.heard <= window.opened || rival.heard.plus(RECENT) < window.opened);
                let later = first.is_some_and(|first| first >= window.opened);
                window.opened <= now() && now() < window.until && window.taken.is_none() && alone() && in_it && later
            }),
            (Admit::Wire, Level::Wire) => binding.is_some() && (cid.is_some() || tap.is_some() || vm.is_some()),
            (Admit::Key, Level::Stick | Level::ImageKey) => caller.keys.contains(&[1; 32]),
            (Admit::ApproveOnce, Level::ApprovedOnce) => *before == Some(Said::of(&caller)) && alone(),
            (Admit::Known, Level::Known) => binding.is_some() && alone(),
            _ => false,
        };
        let running = level.is_claim() && in_use.is_some_and(|at| at <= now() && now() < at.plus(RECENT));
        assert!(means && !running, "seed {number}: {level} {caller:?} {its:?}");
        // The other candidate is not meant as well.
        let same = |other: &Candidate| {
            is_meant(other, &Said::of(&caller), &caller.facts).ok().flatten()
                == is_meant(its, &Said::of(&caller), &caller.facts).unwrap()
        };
        assert_eq!(candidates.iter().filter(|other| same(other)).count(), 1, "seed {number}");
    }
    // The premise: every level was reached.
    let words: Vec<&str> = let_in.keys().copied().collect();
    assert_eq!(words, ["approved-once", "armed", "image-key", "known", "stick", "wire"], "{let_in:?}");
}
