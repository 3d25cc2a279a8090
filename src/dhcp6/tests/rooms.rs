//! Servers that are broken, that disagree, or that are somebody else's.

use super::*;

fn kinds(client: &mut Client, mut now: Duration, count: usize) -> Vec<(MessageType, Option<u8>)> {
    let mut kinds = Vec::new();
    while kinds.len() < count {
        let poll = client.poll(now);
        if let Some(message) = poll.send {
            let message = read(&message);
            let server = message.opts().get(OptionCode::ServerId).map(|option| match option {
                DhcpOption::ServerId(bytes) => bytes[9],
                other => panic!("{other:?}"),
            });
            kinds.push((message.msg_type(), server));
        }
        now = poll.wake;
    }
    kinds
}

use MessageType::{Advertise, Reconfigure, Reply, Request, Solicit};

#[test]
fn of_two_servers_the_preferred_one_is_asked_and_then_the_other() {
    let (mut client, solicit) = asking();
    let offer = |last, preference| by(last, &solicit, Advertise, &[usual(), DhcpOption::Preference(preference)]);
    client.push(from(1), &offer(1, 10), second(0));
    client.push(from(2), &offer(2, 20), second(0));
    // Neither answers: two questions each, then both are looked for again.
    let want = [(Request, Some(2)), (Request, Some(2)), (Request, Some(1))];
    assert_eq!(kinds(&mut client.clone(), Duration::from_millis(250), 3), want);
    // One that must be taken at once is.
    client.push(from(3), &offer(3, 255), second(0));
    assert_eq!(client.poll(second(0)).wake, second(0) + Duration::from_secs_f64(0.9 + 0.2 * 128.0 / 255.0));
    assert!(client.state().starts_with("ADVERTISE of 2001:db8::5 by fe80::3"), "{}", client.state());
    // A late one is kept for when that one is deaf.
    client.push(from(4), &offer(4, 200), second(0));
    assert_eq!(kinds(&mut client, second(2), 3), [(Request, Some(3)), (Request, Some(4)), (Request, Some(4))]);
    assert!(client.state().contains("no answer by fe80::3 to 2 REQUEST"), "{}", client.state());
}

#[test]
fn an_offer_that_is_refused_or_not_kept_does_not_stop_the_others() {
    let (client, request) = offered();
    for refused in [
        vec![status(v6::Status::NoAddrsAvail, "")],
        vec![association(0, 0, &[status(v6::Status::NoAddrsAvail, "")])],
        vec![association(0, 0, &[status(v6::Status::NotOnLink, "")])],
    ] {
        let mut client = client.clone();
        assert_eq!(client.push(from(1), &reply(&request, &refused), second(0)), Some(Event::Refused), "{refused:?}");
        assert_eq!(client.poll(second(0)), Poll { send: None, wake: second(1) });
        // The server that has refused is asked after all others only.
        let solicit = read(&client.poll(second(1)).send.unwrap());
        let offer = |last| by(last, &solicit, Advertise, &[usual(), DhcpOption::Preference(255)]);
        client.push(from(1), &offer(1), second(1));
        client.push(from(2), &offer(2), second(1));
        assert_eq!(kinds(&mut client, second(1), 1), [(Request, Some(2))]);
    }
    // "Later": the same question goes out again.
    for code in [v6::Status::UnspecFail, v6::Status::UseMulticast] {
        let mut client = client.clone();
        assert_eq!(client.push(from(1), &reply(&request, &[status(code, "")]), second(0)), None);
        let again = kinds(&mut client, second(0), 4);
        assert_eq!(again, [(Request, Some(1)), (Request, Some(1)), (Request, Some(1)), (Solicit, None)]);
    }
}

#[test]
fn what_is_for_somebody_else_is_counted_and_nothing_else() {
    let (mut client, solicit) = asking();
    let before = client.clone();
    let good = advertise(&solicit, &[usual()]);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut message = good.clone();
        change(&mut message);
        message
    };
    let mut other_duid = solicit.clone();
    other_duid.set_opts([DhcpOption::ClientId(vec![0, 3, 0, 1, 9, 9, 9, 9, 9, 9])].into_iter().collect());
    let only = |option: DhcpOption| {
        let mut message = v6::Message::new_with_id(Advertise, solicit.xid());
        message.opts_mut().insert(option);
        let mut bytes = Vec::new();
        message.encode(&mut dhcproto::Encoder::new(&mut bytes)).unwrap();
        bytes
    };
    let client_id = solicit.opts().get(OptionCode::ClientId).unwrap().clone();
    let twice = by(1, &solicit, Advertise, &[usual(), DhcpOption::ServerId(vec![0, 3, 9, 9, 9])]);
    for (message, why) in [
        (changed(&|message| message[3] ^= 1), "of another exchange"),
        (advertise(&other_duid, &[usual()]), "for another DUID"),
        (only(client_id), "that name no server (option 2)"),
        (only(DhcpOption::ServerId(SERVER.to_vec())), "that name no client (option 1)"),
        (twice, "with two values of one option"),
        (changed(&|message| message[0] = 1), "that are not answers from a server"),
        (changed(&|message| message[0] = 13), "that are not answers from a server"),
        (by(1, &solicit, Reconfigure, &[]), "RECONFIGURE, which nobody may send"),
        (good[..good.len() - 1].to_vec(), "cut short"),
        (good[..3].to_vec(), "cut short"),
        // The length of the last byte of an option's length field, and one inside the association.
        (changed(&|message| message[7] = 200), "cut short"),
        (advertise(&solicit, &[association(161, 160, &[given("2001:db8::5", 200, 400)])]), "with a T1 later than T2"),
        (advertise(&solicit, &[]), "without a usable address"),
        (advertise(&solicit, &[association(0, 0, &[given("2001:db8::5", 401, 400)])]), "without a usable address"),
        (advertise(&solicit, &[association(0, 0, &[given("2001:db8::5", 0, 0)])]), "without a usable address"),
        (advertise(&solicit, &[association(0, 0, &[given("fe80::5", 200, 400)])]), "without a usable address"),
        (advertise(&solicit, &[association(0, 0, &[given("ff02::5", 200, 400)])]), "without a usable address"),
        (advertise(&solicit, &[association(0, 0, &[given("::1", 200, 400)])]), "without a usable address"),
        (reply(&solicit, &[usual()]), "that were not asked for"),
    ] {
        let mut client = client.clone();
        assert_eq!(client.push(from(1), &message, second(0)), None, "{why}");
        assert_eq!(client.state(), format!("1 SOLICIT sent, no ADVERTISE, dropped: 1 {why}"));
        client.dropped.clear();
        assert_eq!(client, before, "{why}");
    }
    // The premise: without the fault it is an offer.
    client.push(from(1), &good, second(0));
    assert_ne!(client, before);

    let (mut client, request) = offered();
    client.push(from(2), &by(2, &request, Reply, &[usual()]), second(0));
    assert!(client.state().ends_with("dropped: 1 by a server that was not asked"), "{}", client.state());
}

#[test]
fn times_that_make_no_sense_are_not_used() {
    let lease = |t1, t2, preferred, valid| {
        let (mut client, solicit) = asking();
        let written = association(t1, t2, &[given("2001:db8::5", preferred, valid)]);
        let lease = bound(&mut client, &reply(&solicit, &[written, DhcpOption::RapidCommit]), 0);
        (lease.renew.as_secs(), lease.rebind.as_secs(), lease.preferred, lease.valid)
    };
    // RFC 8415 §21.4: the client's own choice.
    assert_eq!(lease(0, 0, 200, 400), (100, 160, 200, 400));
    // Never, or after the end.
    assert_eq!(lease(u32::MAX, u32::MAX, 200, 400), (100, 160, 200, 400));
    assert_eq!(lease(500, 600, 200, 400), (100, 160, 200, 400));
    // An address for ever, and one that new connections must not use any more.
    assert_eq!(lease(3600, 7200, u32::MAX, u32::MAX), (3600, 7200, u32::MAX, u32::MAX));
    assert_eq!(lease(0, 0, 0, 400), (200, 320, 0, 400));
    let (mut client, solicit) = asking();
    let for_ever = association(0, 0, &[given("2001:db8::5", u32::MAX, u32::MAX)]);
    let lease_for_ever = bound(&mut client, &reply(&solicit, &[for_ever, DhcpOption::RapidCommit]), 0);
    assert_eq!(lease_for_ever.ends_at(), Duration::MAX);
    // Attack: a lease that is over at once, so that the client is never done with asking.
    assert_eq!(lease(0, 0, 1, 1), (1, 1, 60, 60));
    assert_eq!(lease(1, 1, 20, 30), (1, 1, 60, 60));
}

/// dhcproto reads what this client writes, and finds nothing in it that it does not know.
#[test]
fn every_question_is_read_by_dhcproto() {
    let identity = asker().identity;
    let server = Duid::new(&SERVER).unwrap();
    for (kind, want) in [
        (Kind::Solicit, Solicit),
        (Kind::Request, Request),
        (Kind::Renew, MessageType::Renew),
        (Kind::Rebind, MessageType::Rebind),
        (Kind::Decline, MessageType::Decline),
        (Kind::Information, MessageType::InformationRequest),
    ] {
        for hostname in [None, Some("node17"), Some("node17.example.org")] {
            let address = Some(v6a("2001:db8::5"));
            let xid = [1, 2, 3];
            let question =
                Question { kind, xid, identity: &identity, server: Some(&server), address, elapsed: 7, hostname };
            let bytes = question.encode();
            let message = read(&bytes);
            assert_eq!((message.msg_type(), message.xid()), (want, xid));
            let mut again = Vec::new();
            message.encode(&mut dhcproto::Encoder::new(&mut again)).unwrap();
            assert_eq!(again.len(), bytes.len(), "{kind:?}");
        }
    }
}
