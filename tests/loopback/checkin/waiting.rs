//! Tests of a check-in that has to wait for an administrator, a server or a network.

use imprint::time::since_boot;
use imprint_tests::est_server::Ending;

use super::*;

/// tcp(7): a multicast address is none to connect to, ENETUNREACH at once, whatever the routes are.
const UNREACHABLE: &str = "https://224.0.0.1/.well-known/est";
const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";

/// The same, and to be asked again once this limit has passed.
fn accepted_beyond(limit: Duration) -> Vec<u8> {
    let later = limit.as_secs() + 1;
    format!("HTTP/1.1 202 Accepted\r\nRetry-After: {later}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// A check-in at these URLs with time enough for it, and this long for an approval.
fn run(world: &World, urls: &[String], approval: Option<Duration>) -> Run {
    world.run(&world.server_plan(urls), PATIENCE, approval, &mut |_| Reply::NothingMore)
}

/// A server that answers a CSR with `answers`, one after another and the last one for ever.
fn answering(world: &World, answers: Vec<Vec<u8>>) -> EstServer {
    let good = world.good(NOW);
    EstServer::start(vec![world.tls()], move |request| match request.connection.checked_sub(1) {
        None => good(request),
        Some(index) => answers.get(index).or(answers.last()).unwrap().clone(),
    })
}

#[test]
fn the_approval_may_take_longer_than_everything_else() {
    let world = World::new();
    patiently(Duration::from_millis(700), |limit| {
        let good = world.good(NOW);
        let server = EstServer::start(vec![world.tls()], move |request| match request.connection {
            1 => accepted_beyond(limit),
            _ => good(request),
        });
        let plan = world.server_plan(&[server.url()]);
        let run = world.run(&plan, limit, None, &mut |_| Reply::NothingMore);
        match run.result {
            // The request did not come to the server by then.
            Err(error) if server.requests().len() < 2 => Err(error.to_string()),
            result => Ok(result.unwrap()),
        }
    });
}

#[test]
fn an_approval_that_does_not_come_names_node_and_key() {
    let world = World::new();
    let server = answering(&world, vec![ACCEPTED.to_vec()]);
    let Err(CheckinError::NotApproved(error)) = run(&world, &[server.url()], Some(Duration::from_secs(1))).result
    else {
        panic!("nobody approved")
    };
    assert_eq!((error.node.as_str(), error.code), ("node1", world.identity.code()));
    let (code, waited) = (error.code, error.waited.as_secs());
    assert_eq!(
        CheckinError::NotApproved(error).to_string(),
        format!(
            "nobody approved key {code} at {} within {waited} s; compare the code and run imprint-host approve node1 {code}, \
             then boot again, or allow more time with imprint.approval-timeout",
            server.url()
        )
    );
}

#[test]
fn a_request_that_is_denied_after_all_ends_it() {
    let world = World::new();
    let server = answering(&world, vec![ACCEPTED.to_vec(), reply("403 Forbidden", &[], b"denied by alice\n")]);
    let error = run(&world, &[server.url()], None).result.unwrap_err().to_string();
    assert!(error.ends_with(": the server refuses: 403 denied by alice"), "{error}");
    assert_eq!(server.requests().len(), 3);
}

/// Without a Date beside it, it counts from the time that the probe told; this machine's clock is years behind.
#[test]
fn a_server_that_names_the_moment_to_ask_again_is_asked_then() {
    let world = World::new();
    let (good, moment) = (world.good(NOW), date_field(NOW + 2).replace("Date", "Retry-After"));
    let dated = EstServer::start(vec![world.tls()], move |request| match request.connection {
        1 => reply("503 Service Unavailable", std::slice::from_ref(&moment), b""),
        _ => good(request),
    });
    let good = world.good(NOW);
    let slow = EstServer::start(vec![world.tls()], move |request| match request.connection {
        0 => reply("503 Service Unavailable", &["Retry-After: 60".to_owned()], b""),
        _ => good(request),
    });
    let issued = run(&world, &[slow.url(), dated.url()], None).result.unwrap();
    assert_eq!(issued.server(), format!("{} ({})", dated.url(), dated.address()));
    assert_eq!((slow.requests().len(), dated.requests().len()), (1, 4));
}

#[test]
fn a_certificate_that_comes_after_the_expiry_is_not_taken() {
    let world = World::new();
    // The Date is not after it; the middle of the second that it names is.
    let server = EstServer::start(vec![world.tls()], world.good(EXPIRY));
    let run = run(&world, &[server.url()], None);
    assert!(run.asked.is_empty(), "a clock was set past the expiry: {:?}", run.asked);
    let CheckinError::Expired { expiry, date, server } = run.result.unwrap_err() else { panic!("not expired") };
    assert!(expiry == secs(EXPIRY) && date >= expiry.plus(Duration::from_millis(500)), "{date}");
    assert!(server.ends_with(" (confirmed time)"), "{server}");
}

/// What an administrator's approval adds to the time of a check-in, leases need as well.
#[test]
fn leases_are_given_time_after_the_deadline_too() {
    let world = World::new();
    // Leases are looked at every ten seconds: once by then.
    let left = patiently(Duration::from_secs(3), |limit| {
        let later = accepted_beyond(limit.max(Duration::from_secs(11)));
        let server = answering(&world, vec![later, reply("403 Forbidden", &[], b"denied\n")]);
        let plan = world.server_plan(&[server.url()]);
        let mut left = Vec::new();
        let run = world.run(&plan, limit, None, &mut |ask| {
            if let Ask::RenewLease(until) = ask {
                left.push(until.remaining());
            }
            Reply::Done
        });
        let error = run.result.unwrap_err().to_string();
        if error.contains("403 denied") { Ok(left) } else { Err(error) }
    });
    assert!(left.last().is_some_and(|left| !left.is_zero()), "{left:?}");
}

/// The limit of a renewal is one for all of it.
#[test]
fn an_approval_of_a_renewal_has_what_is_left_of_the_deadline() {
    let world = World::new();
    let server = answering(&world, vec![ACCEPTED.to_vec()]);
    let error = patiently(Duration::from_secs(4), |limit| {
        match world.renew(&server, limit) {
            // A last visit that was cut short is told, too.
            Err(CheckinError::NotApproved(error)) if error.failed.is_none() => Ok(error),
            other => Err(format!("{other:?}")),
        }
    });
    let (code, url) = (world.identity.code(), server.url());
    let text = CheckinError::NotApproved(error).to_string();
    assert!(text.starts_with(&format!("nobody approved key {code} at {url} within ")), "{text}");
    assert!(
        text.ends_with(" s; approve it there while it waits, and allow more time for that with --timeout"),
        "{text}"
    );
}

/// Design §7: a payload is refused past its expiry, also by whoever has waited since before it.
#[test]
fn a_payload_that_expires_while_its_request_is_held_is_not_used_any_more() {
    let world = World::new();
    // So long before the expiry the node asks, and after it it is to ask again.
    patiently(Duration::from_secs(1), |left| {
        let (began, good) = (since_boot(), world.good(EXPIRY - left.as_secs()));
        let server = EstServer::start(vec![world.tls()], move |request| match request.connection {
            1 => accepted_beyond(left),
            _ => good(request),
        });
        let error = run(&world, &[server.url()], None).result.unwrap_err();
        let CheckinError::Expired { expiry, date, .. } = error else { panic!("{error:?}") };
        // The server's time, and on from there.
        let latest = secs(EXPIRY - left.as_secs() + 1).plus(since_boot().saturating_sub(began));
        assert!(expiry == secs(EXPIRY) && date > expiry && date <= latest, "{date}");
        match server.requests().len() {
            // It expired before the node had asked at all.
            1 => Err("the request was not sent".to_owned()),
            count => {
                assert_eq!(count, 2, "neither token nor CSR after the expiry");
                Ok(())
            }
        }
    });
}

#[test]
fn after_a_denial_the_others_have_what_is_left_of_their_own_time() {
    let world = World::new();
    patiently(Duration::from_millis(700), |limit| {
        let denied = reply("403 Forbidden", &[], b"denied by alice\n");
        let holder = answering(&world, vec![accepted_beyond(limit), denied]);
        let other = EstServer::start(vec![world.tls()], world.good(NOW));
        let plan = world.server_plan(&[holder.url(), other.url()]);
        let result = world.run(&plan, limit, None, &mut |_| Reply::NothingMore).result;
        if holder.requests().len() < 2 {
            return Err(format!("the request did not come to its holder: {result:?}"));
        }
        let error = result.unwrap_err();
        assert!(matches!(error, CheckinError::GaveUp { .. }), "{error:?}");
        assert!(error.to_string().ends_with(": the server refuses: 403 denied by alice"), "{error}");
        assert_eq!(other.requests().len(), 0);
        Ok(())
    });
}

#[test]
fn a_server_that_asks_for_time_gets_it_whatever_the_others_ask_for() {
    let world = World::new();
    let later =
        |seconds: u64| move |_: &Request| reply("503 Service Unavailable", &[format!("Retry-After: {seconds}")], b"");
    patiently(Duration::from_secs(6), |limit| {
        let (slow, quick) = (later(60), later(1));
        let (slow, quick) = (EstServer::start(vec![world.tls()], slow), EstServer::start(vec![world.tls()], quick));
        let plan = world.server_plan(&[slow.url(), quick.url()]);
        let run = world.run(&plan, limit, None, &mut |_| Reply::NothingMore);
        let CheckinError::GaveUp { attempts, .. } = run.result.unwrap_err() else { panic!("nobody answers") };
        assert!(attempts.len() <= 2 && slow.requests().len() <= 2, "once, and at the very end");
        let asked = quick.requests().len();
        if attempts.len() == 2 && asked >= 3 { Ok(()) } else { Err(format!("the quick one was asked {asked} times")) }
    });
}

#[test]
fn another_link_brings_back_who_was_not_the_right_server_and_no_reason_is_lost() {
    let world = World::new();
    let stranger = Ca::new("Stranger", GOOD).server(&Leaf::server(LOCALHOST, GOOD), &[&TLS13]);
    let portal = EstServer::start(vec![stranger], world.good(NOW));
    let plan = world.server_plan(&[portal.url(), UNREACHABLE.to_owned()]);
    patiently(Duration::from_secs(3), |limit| {
        let mut links = 0;
        let run = world.run(&plan, limit, None, &mut |ask| match ask {
            Ask::NextLink(_) if links < 1 => {
                links += 1;
                Reply::Done
            }
            _ => Reply::NothingMore,
        });
        let error = run.result.unwrap_err().to_string();
        let both = error.contains("does not chain to this node's CA") && error.contains("Network is unreachable");
        if both { Ok(()) } else { Err(error) }
    });
}

#[test]
fn the_server_that_holds_the_request_is_asked_first_and_the_others_when_it_is_gone() {
    let world = World::new();
    let holder = answering(&world, vec![ACCEPTED.to_vec(), ACCEPTED.to_vec(), b"SSH-2.0-OpenSSH\r\n".to_vec()]);
    // Busy at first, so that the other one gets the request.
    let good = world.good(NOW);
    let other = EstServer::start(vec![world.tls()], move |request| match request.connection {
        0 => reply("503 Service Unavailable", &[], b""),
        _ => good(request),
    });
    let run = run(&world, &[other.url(), holder.url()], None);
    let issued = run.result.unwrap();
    assert_eq!(issued.server(), format!("{} ({})", other.url(), other.address()));
    // The probe, three times the CSR; and the other one only once the holder had failed.
    assert_eq!((holder.requests().len(), other.requests().len()), (4, 3));
    assert_eq!(run.told.iter().filter(|line| line.contains("waits for approval")).count(), 1, "{:?}", run.told);
}

#[test]
fn a_server_that_goes_away_while_it_holds_the_request_is_waited_for() {
    let world = World::new();
    let good = world.good(NOW);
    let server = EstServer::start(vec![world.tls()], move |request| match request.connection {
        1 => ACCEPTED.to_vec(),
        2 => Vec::new(),
        _ => good(request),
    });
    run(&world, &[server.url()], None).result.unwrap();
    let operations: Vec<String> = server.requests().iter().map(|request| request.operation().to_owned()).collect();
    // After a failure the time is asked for again.
    assert_eq!(operations, ["cacerts", "simpleenroll", "simpleenroll", "cacerts", "simpleenroll"]);
}

#[test]
fn when_no_server_can_be_reached_another_link_is_asked_for_and_leases_are_looked_at() {
    let world = World::new();
    let plan = world.server_plan(&[UNREACHABLE.to_owned(), UNREACHABLE.replace("0.0.1", "0.0.2")]);
    let run = patiently(Duration::from_secs(4), |limit| {
        let mut replies = vec![Reply::Done, Reply::NothingMore];
        let run = world.run(&plan, limit, None, &mut |ask| match ask {
            Ask::NextLink(until) => {
                assert!(until.remaining() <= limit);
                replies.pop().unwrap_or(Reply::NothingMore)
            }
            _ => Reply::Done,
        });
        if run.asked.len() >= 2 { Ok(run) } else { Err(format!("asked for {:?}", run.asked)) }
    });
    assert!(matches!(run.asked[..2], [Ask::NextLink(_), Ask::RenewLease(_)]), "{:?}", run.asked);
    let error = run.result.unwrap_err().to_string();
    assert!(
        error.contains(
            "https://224.0.0.1/.well-known/est (224.0.0.1:443): no connection; check the node's network and that the \
             server runs: Network is unreachable (os error 101); fetching"
        ),
        "{error}"
    );
}

#[test]
fn a_server_that_refuses_is_there_and_no_other_link_is_asked_for() {
    let world = World::new();
    let urls = [UNREACHABLE.to_owned(), "https://127.0.0.1:1/.well-known/est".to_owned()];
    let plan = world.server_plan(&urls);
    let run = world.run(&plan, Duration::from_secs(3), None, &mut |_| Reply::NothingMore);
    assert!(matches!(run.result, Err(CheckinError::GaveUp { .. })));
    assert!(!run.asked.iter().any(|ask| matches!(ask, Ask::NextLink(_))), "{:?}", run.asked);
}

#[test]
fn what_does_not_happen_in_time_is_told_apart() {
    let world = World::new();
    let times_out = |url: String, phase: Phase| {
        patiently(Duration::from_millis(600), |limit| match world.enroll_at(std::slice::from_ref(&url), limit).0 {
            Err(CheckinError::GaveUp { attempts, .. }) if matches!(attempts[..], [Attempt { failure: Failure::Https(HttpsError::TimedOut(found)), .. }] if found == phase) => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        });
    };
    // The kernel takes the connection; nobody else does.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    times_out(format!("https://{}/.well-known/est", silent.local_addr().unwrap()), Phase::Handshake);
    let mute = EstServer::ending(vec![world.tls()], Ending::Open, |_| Vec::new());
    times_out(mute.url(), Phase::Answer);
    let half = EstServer::ending(vec![world.tls()], Ending::Open, |_| b"HTTP/1.1 200 OK\r\nContent-Le".to_vec());
    times_out(half.url(), Phase::Answer);
}

/// The last visit is cut short by the deadline: that nobody answered it in time says nothing about the server.
#[test]
fn what_a_server_said_is_not_hidden_by_a_visit_that_was_cut_short() {
    let world = World::new();
    let cacerts = base64(&certs_only(&world.cacerts()));
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let server = EstServer::start(vec![world.tls()], move |request| match request.connection {
        0 => reply("200 OK", &[date_field(NOW)], cacerts.as_bytes()),
        1 => reply("500 Internal Server Error", &[], b"the disk is full\n"),
        // Until the test is over.
        _ => wait.recv().map(|()| Vec::new()).unwrap_or_default(),
    });
    let (result, _) = world.enroll_at(&[server.url()], Duration::from_secs(8));
    drop(release);
    let error = result.unwrap_err().to_string();
    let want = format!(
        "; asking for a certificate at {} ({}): the server cannot answer now: 500 the disk is full; last: the server did \
         not answer the request in time",
        server.url(),
        server.address()
    );
    assert!(error.starts_with("gave up after ") && error.ends_with(&want), "{error}");
}

/// A visit begun with next to no time left fails for want of time, whatever the server does.
#[test]
fn a_second_visit_is_not_begun_without_time_for_it() {
    let world = World::new();
    let server = EstServer::start(vec![world.tls()], |_| reply("503 Service Unavailable", &[], b"later\n"));
    let (result, _) = world.enroll_at(&[server.url()], Duration::from_millis(990));
    assert!(matches!(result, Err(CheckinError::GaveUp { .. })), "{result:?}");
    assert!(server.requests().len() <= 1, "the first wait is 550 ms at most");
}

/// Nobody can approve anything at a server that is gone.
#[test]
fn an_approval_that_does_not_come_from_a_server_that_is_gone_says_so() {
    let world = World::new();
    let server = answering(&world, vec![ACCEPTED.to_vec(), Vec::new()]);
    let error = run(&world, &[server.url()], Some(Duration::from_secs(6))).result.unwrap_err().to_string();
    assert!(error.starts_with(&format!("nobody approved key {} at ", world.identity.code())), "{error}");
    assert!(
        error.ends_with(" with imprint.approval-timeout; last: the connection was closed without an answer"),
        "{error}"
    );
}
