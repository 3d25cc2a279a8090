//! Payloads on a line where somebody else than the host may answer: what is used, and what becomes of the line.

use super::*;
use crate::line::frame::Challenge;
use crate::line::{Session, seal};

const SECOND: u64 = 1_000_000;

/// A worker with one far line. Its judge takes the payload `good`.
fn far() -> Steps {
    let mut steps = steps(1);
    steps.worker.hello.fresh = true;
    steps.worker.judge = Some(Box::new(|bytes, _| match bytes.expose() {
        b"good" => Ok(()),
        _ => Err("it is of another site".to_owned()),
    }));
    let before = steps.worker.lines.remove(0);
    let line = Line { pipe: before.pipe, beacon: true, far: true };
    steps.worker.lines.push(Spoken::new(line, &steps.worker.hello, [9; 32], now()));
    steps
}

/// A host begins a conversation: the conversation, and the challenge that the node has sent.
fn opened(steps: &mut Steps, host: u8) -> (Session, Challenge) {
    let session = Session { node: steps.worker.hello.nonce, host: Nonce([host; 8]) };
    let node = steps.worker.lines[0].wire.end_mut();
    node.receive(Packet { from: Side::Host, session: None, frame: Frame::Open { version: 1, session } }, now());
    let challenge = std::iter::from_fn(|| node.packet(now(), 0)).find_map(|packet| match packet.frame {
        Frame::Challenge(challenge) => Some(challenge),
        _ => None,
    });
    (session, challenge.unwrap())
}

/// An object of kind 6 in this conversation, announced this long after its challenge was made.
fn came(steps: &Steps, session: Session, challenge: Challenge, age: u64, payload: &[u8]) -> Came {
    let (kind, number) = (Kind::Fresh, 0);
    let made = steps.worker.lines[0].wire.end().made(&challenge).unwrap_or_else(now);
    let plain = Secret::new([&challenge.0[..], payload].concat());
    let bytes = seal::seal(&plain, &steps.worker.hello, session, kind, number).unwrap();
    Came { kind, number, session: Some(session), announced: made + age, bytes }
}

/// Whether the node is in a conversation, and wants a payload.
fn waits(steps: &Steps) -> (bool, Stage) {
    let node = steps.worker.lines[0].wire.end();
    (node.session().is_some(), node.stage())
}

/// Attacks: a door of another site answers first, again and again; then somebody with a payload that he has heard. The honest
/// host is still heard.
#[test]
fn a_payload_that_the_judge_does_not_take_ends_no_search() {
    let mut steps = far();
    for round in 0..5 {
        let (session, challenge) = opened(&mut steps, round);
        let came = came(&steps, session, challenge, SECOND, b"other");
        steps.worker.payload(0, came);
        assert_eq!(waits(&steps), (false, Stage::Payload));
        let told: &[&str] = match round {
            0 => &["the payload that came on line0 is not used: it is of another site"],
            _ => &[],
        };
        assert_eq!(steps.told(), told);
    }
    let (session, challenge) = opened(&mut steps, 99);
    let came = came(&steps, session, challenge, SECOND, b"good");
    steps.worker.payload(0, came);
    let told: Vec<Told> = steps.told.try_iter().collect();
    let [Told::Payload { line, sealed: true, fresh: Some(fresh), bytes }] = &told[..] else { panic!("{told:?}") };
    assert_eq!((line.as_str(), bytes.expose(), fresh.challenge), ("line0", &b"good"[..], challenge));
    assert_eq!((fresh.hello, fresh.age()), (steps.worker.hello.digest(), Duration::from_secs(1)));
}

/// Attack: what was signed for a challenge is kept back, and announced later; or it was signed for one of another node.
#[test]
fn a_payload_for_a_challenge_that_is_too_old_is_asked_for_anew() {
    let mut steps = far();
    let (session, challenge) = opened(&mut steps, 1);
    let words = "a payload came on line0 that was signed for no challenge of the last minute; it is not used, and the host has a \
                 new challenge";
    for (index, (challenge, age)) in
        [(challenge, 60 * SECOND + 1), (Challenge([7; 16]), 0), (challenge, 3600 * SECOND)].into_iter().enumerate()
    {
        let came = came(&steps, session, challenge, age, b"good");
        steps.worker.payload(0, came);
        // It stays in the conversation, as the host may be the right one.
        assert_eq!(waits(&steps), (true, Stage::Payload), "{index}");
        assert_eq!(steps.told(), if index == 0 { vec![words] } else { Vec::new() });
        let node = steps.worker.lines[0].wire.end_mut();
        let said: Vec<Frame> = std::iter::from_fn(|| node.packet(now(), 0)).map(|packet| packet.frame).collect();
        assert!(matches!(said[..], [Frame::Ready(Stage::Payload), Frame::Challenge(_)]), "{said:?}");
    }
    // Premise: a moment earlier it would have been used.
    let came = came(&steps, session, challenge, 60 * SECOND, b"good");
    steps.worker.payload(0, came);
    assert!(matches!(steps.told.try_iter().next(), Some(Told::Payload { .. })));
}

/// Attack: nonsense, until the node gives the line up. On a cable it does, as nobody else can be there.
#[test]
fn seals_that_cannot_be_opened_end_no_search_where_others_may_answer() {
    for is_far in [false, true] {
        let mut steps = if is_far { far() } else { steps(1) };
        for round in 0..9 {
            let session = Session { node: steps.worker.hello.nonce, host: Nonce([round; 8]) };
            let node = steps.worker.lines[0].wire.end_mut();
            node.receive(Packet { from: Side::Host, session: None, frame: Frame::Open { version: 1, session } }, now());
            let kind = if is_far { Kind::Fresh } else { Kind::Sealed };
            let came = Came { kind, number: 0, session: Some(session), announced: now(), bytes: vec![1; 90] };
            steps.worker.payload(0, came);
        }
        assert_eq!(steps.worker.lines[0].lost, !is_far);
        if is_far {
            let (session, challenge) = opened(&mut steps, 99);
            steps.told();
            let came = came(&steps, session, challenge, SECOND, b"good");
            steps.worker.payload(0, came);
            assert!(matches!(steps.told.try_iter().next(), Some(Told::Payload { .. })));
        }
    }
}

/// A door says that an administrator has to admit the node: the console says so once, with the node's own code, and the conversation
/// goes on. One that has no payload for the node is left.
#[test]
fn what_a_door_says_is_told_once() {
    let mut steps = far();
    for round in 0..3 {
        opened(&mut steps, 10 + round);
        steps.worker.turned_away(0, true, b"somebody will come\x1b[2J");
        assert_eq!(waits(&steps), (true, Stage::Payload));
        let told = steps.told();
        let code = KeyCode::of(&steps.worker.hello.key);
        let words = format!(
            "the host on line0 lets this node wait: an administrator has to admit this node: where imprint-host nodes shows line key \
             {code}, run imprint-host admit {code}; it says, and nothing proves it: somebody will come"
        );
        assert_eq!(told.len(), usize::from(round == 0), "{told:?}");
        assert!(told.iter().all(|told| told.starts_with(&words) && !told.contains('\x1b')), "{told:?}");
    }
    for round in 0..3 {
        opened(&mut steps, 20 + round);
        steps.worker.turned_away(0, false, b"no such node");
        assert_eq!(waits(&steps), (false, Stage::Payload));
        let told = steps.told();
        assert_eq!(told.len(), usize::from(round == 0), "{told:?}");
        assert!(
            told.iter().all(|told| {
                told == "the host on line0 has no payload for this node; it says, and nothing proves it: no such node"
            }),
            "{told:?}"
        );
    }
}

/// Attack: somebody on the way has put another line key into HELLO, or has a door of his own. What he has a host say is meant for the
/// eyes of whoever compares codes: his own code, and what to enter.
#[test]
fn no_code_but_the_nodes_own_comes_to_the_console() {
    let own = |steps: &Steps| KeyCode::of(&steps.worker.hello.key).to_string();
    let his = "7K3M-Q0ZT-N4V8-XW1C";
    let rows: [(String, &str); 5] = [
        (
            format!("an administrator must admit line key {his}: run imprint-host admit {his}; line key {his}"),
            "ADMIT NOBODY: ",
        ),
        (format!("admit {}", his.to_lowercase()), "ADMIT NOBODY: "),
        (format!("admit {}", his.replace('-', " ")), "what it says is not shown, as it looks like a code or a command"),
        ("run imprint-host admit node1".to_owned(), "what it says is not shown, as it looks like a code or a command"),
        (String::new(), "lets this node wait: an administrator has to admit this node: "),
    ];
    for (text, want) in rows {
        for pending in [true, false] {
            let mut steps = far();
            opened(&mut steps, 1);
            steps.worker.turned_away(0, pending, text.as_bytes());
            let told = steps.told();
            assert!(told.len() == 1 && (told[0].contains(want) || text.is_empty()), "{told:?}");
            let shown = told[0].to_uppercase();
            assert!(
                !shown.contains(his) && !shown.contains(&his.replace('-', " ")) && !shown.contains("NODE1"),
                "{told:?}"
            );
            let (code, admits) = (own(&steps), pending && !want.starts_with("ADMIT NOBODY"));
            assert_eq!(told[0].contains(&format!("run imprint-host admit {code}")), admits, "{told:?}");
        }
    }
    // A host of the node's own code has heard this node.
    let mut steps = far();
    opened(&mut steps, 1);
    let text = format!("compare {}", own(&steps));
    steps.worker.turned_away(0, true, text.as_bytes());
    assert!(!steps.told()[0].contains("ADMIT NOBODY"));
}

/// A forged word and a right one: what the search goes on for keeps its warning.
#[test]
fn a_warning_is_not_taken_back_by_another_host() {
    let mut steps = far();
    opened(&mut steps, 1);
    steps.worker.turned_away(0, true, b"admit 7K3M-Q0ZT-N4V8-XW1C");
    steps.worker.turned_away(0, true, b"somebody will come");
    let waits = locked(&steps.shared).waits.clone().unwrap();
    assert!(waits.words.starts_with("ADMIT NOBODY: ") && waits.since <= waits.heard);
}

/// Attack: somebody acknowledges for the node what its host sends, or for the host what the node sends. Then neither sends anything
/// more; so the node begins another conversation. While an administrator is waited for, it does so more rarely.
#[test]
fn a_conversation_that_leads_to_nothing_is_begun_anew() {
    const HOUR: u64 = 3600 * SECOND;
    static CLOCK: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    for (stage, waits, most) in [
        (Stage::Payload, false, 120),
        (Stage::Request, false, 120),
        (Stage::Payload, true, 600),
        (Stage::Busy, false, 0),
        (Stage::Done, false, 0),
    ] {
        let mut steps = far();
        steps.worker.clock = || CLOCK.load(std::sync::atomic::Ordering::SeqCst);
        let begin = now() + HOUR;
        opened(&mut steps, 1);
        let line = &mut steps.worker.lines[0];
        line.wire.end_mut().set_stage(stage);
        (line.led, line.waits) = (begin, waits);
        let mut anew = Vec::new();
        for second in 0..1300 {
            CLOCK.store(begin + second * SECOND, std::sync::atomic::Ordering::SeqCst);
            steps.worker.call();
            let node = steps.worker.lines[0].wire.end_mut();
            if node.session().is_none() {
                anew.push(second);
                let said: Vec<Frame> = std::iter::from_fn(|| node.packet(0, 0)).map(|packet| packet.frame).collect();
                assert!(matches!(said[..], [Frame::Hello(_)]), "{said:?}");
                let host = Nonce([u8::try_from(anew.len()).unwrap() + 1; 8]);
                let session = Session { node: node.hello().nonce, host };
                node.receive(Packet { from: Side::Host, session: None, frame: Frame::Open { version: 1, session } }, 0);
            }
        }
        let wants: Vec<u64> = (1..).map(|round| round * most).take_while(|at| most > 0 && *at < 1300).collect();
        assert_eq!(anew, wants, "{stage:?} {waits}");
    }
}
