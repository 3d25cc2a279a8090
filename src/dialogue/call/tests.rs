use super::place::MESSAGES;
use super::*;

fn nowhere(count: usize) -> Calls {
    let mut calls = Calls::default();
    calls.add((0..count).map(|door| Target::Unix(format!("/nowhere/door{door}").into())).collect(), 0);
    calls
}

/// A host that is down, or a network of an attacker: neither may fill the console or be flooded with calls.
#[test]
fn a_place_that_fails_is_called_again_after_longer_pauses_and_told_once() {
    let (mut calls, mut now, mut told) = (nowhere(1), 0, 0);
    for round in 0..12 {
        let (came, changed) = calls.step(Path::new("/"), now);
        told += came.len();
        assert!(!changed || round == 0, "what is said of the place stays the same");
        let next = calls.next().unwrap();
        let longest = micros(PAUSE.0 * (1 << round)).min(micros(PAUSE.1));
        assert!((longest / 2..=longest).contains(&(next - now)), "{round}: {}", next - now);
        // Nothing is due before.
        assert!(calls.step(Path::new("/"), next - 1).0.is_empty());
        now = next;
    }
    assert_eq!(told, 1);
    assert_eq!(calls.tried(), [("unix:/nowhere/door0".to_owned(), "there is no such socket".to_owned())]);
}

#[test]
fn several_places_are_called_one_after_the_other() {
    let mut calls = nowhere(3);
    for (turn, at) in [(1, 0), (2, micros(STAGGER)), (3, 2 * micros(STAGGER))] {
        calls.step(Path::new("/"), at);
        let called = calls.tried().iter().filter(|(_, words)| words != "not called yet").count();
        assert_eq!(called, turn);
    }
}

/// A door that says something else each time.
#[test]
fn only_so_many_words_of_one_place_are_told() {
    let mut calls = nowhere(1);
    let told = (0..50).filter(|word| calls.says(0, format!("word {word}"))).count();
    assert_eq!(told, MESSAGES);
    assert_eq!(calls.tried()[0].1, "word 49");
    let lines = (0..100).filter(|line| calls.speaks(&format!("ether:eth0 {line}"))).count();
    assert_eq!(lines, SPOKEN);
}

#[test]
fn after_the_payload_only_its_place_is_called() {
    let mut calls = nowhere(3);
    calls.settle(Some(1), None);
    assert_eq!(calls.tried(), [("unix:/nowhere/door1".to_owned(), "not called yet".to_owned())]);
    assert_eq!(calls.settled_on().as_deref(), Some("unix:/nowhere/door1"));
    calls.settle(None, None);
    assert!(calls.tried().is_empty() && calls.next().is_none() && calls.is_settled());
}

/// Somebody names a hundred places where nobody is, and one of them is the door's.
#[test]
fn places_take_turns() {
    let target = |door: usize| Target::Tcp(([127, 0, 0, 1], u16::try_from(door).unwrap()).into());
    let mut calls = Calls::default();
    calls.add((1..=100).map(target).collect(), 0);
    // Each connection is being made for ever: the place is mute.
    let mut begun = std::collections::BTreeSet::new();
    let mut now = 0;
    for _ in 0..100 {
        let room = AT_A_TIME.saturating_sub(calls.connecting());
        let last = calls.turn(room, now);
        let due: Vec<usize> =
            calls.all.iter().filter(|call| call.since() <= last.min(now)).map(|call| call.number).collect();
        assert!(due.len() <= AT_A_TIME, "{due:?}");
        for number in due {
            begun.insert(number);
            let call = calls.all.iter_mut().find(|call| call.number == number).unwrap();
            call.failed("no answer".to_owned(), now);
        }
        now += micros(PAUSE.1);
    }
    assert_eq!(begun.len(), 100);
}

/// More places than there is room for: those that have failed make room, those that were not called yet keep theirs.
#[test]
fn a_place_that_fails_makes_room() {
    let mut calls = nowhere(PLACES);
    let late = || vec![Target::Unix("/nowhere/late".into())];
    calls.add(late(), 0);
    assert_eq!(calls.all.len(), PLACES);
    assert!(!calls.tried().iter().any(|(place, _)| place == "unix:/nowhere/late"), "nothing has failed yet");
    calls.step(Path::new("/"), 0);
    calls.add(late(), 0);
    assert_eq!(calls.all.len(), PLACES);
    let tried: Vec<String> = calls.tried().into_iter().map(|(place, _)| place).collect();
    assert!(tried.contains(&"unix:/nowhere/late".to_owned()) && !tried.contains(&"unix:/nowhere/door0".to_owned()));
    // Once more: nothing is there twice.
    calls.add(late(), 0);
    assert_eq!(calls.tried().iter().filter(|(place, _)| place == "unix:/nowhere/late").count(), 1);
}
