//! What a failure means for the check-in: whether another try is of use, when to try, and how much the failure tells
//! about the cause. Sends nothing and waits for nothing.

use std::io;
use std::time::Duration;

use super::error::{Attempt, Failure};
use crate::est::{EstError, RetryAfter};
use crate::http::HttpError;
use crate::https::{HttpsError, Phase};
use crate::time::Timestamp;
use crate::tls::TlsError;

/// How far a try came, and so how much its failure tells. The least telling comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Tells {
    /// Nothing answered in time. Maybe the time was too short.
    Silence,
    /// The network or a name server says that there is no way to the server.
    NoWay,
    /// Some machine answers, but takes no connection or drops it.
    NoConnection,
    /// The right server is there, but gave no answer or half of one.
    NoAnswer,
    /// The machine that answers is not the right server, or does not accept this node.
    NoTrust,
    /// The right server said what is wrong.
    Answer,
}

/// The failure of a URL that is reported: the newer one, unless it tells less. If it does, the older one is
/// reported, with the newer one behind it.
pub(super) fn more_telling(before: Option<Attempt>, now: Attempt) -> Attempt {
    match before {
        Some(before) if before.failure.tells() > now.failure.tells() => Attempt { last: Some(now.failure), ..before },
        _ => now,
    }
}

impl Failure {
    /// Whether the failure is permanent, so that another try is of no use.
    pub fn lasts(&self) -> bool {
        match self {
            Failure::Https(error) => error.lasts(),
            Failure::Est(EstError::Busy { .. }) => false,
            Failure::Est(_)
            | Failure::NoDate
            | Failure::NotADate(_)
            | Failure::DateOutsideCertificate { .. }
            | Failure::DateBeforeFloor { .. }
            | Failure::Credentials { .. }
            | Failure::Answer(_)
            | Failure::NoLine
            | Failure::LineRefused(_)
            | Failure::LineLost(_)
            | Failure::LineNotTaken(_) => true,
        }
    }

    /// How long a server that cannot answer now wants this node to wait. A Retry-After date counts from the answer's
    /// Date. Without a Date, and before a server told the time, it counts from this machine's clock, for want of a
    /// better one.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Est(EstError::Busy { retry_after: Some(RetryAfter::Delay(delay)), .. }) => Some(*delay),
            Failure::Est(EstError::Busy { retry_after: Some(RetryAfter::At(at)), .. }) => {
                Some(at.since(Timestamp::system()))
            }
            _ => None,
        }
    }

    /// Whether the network may be at fault and not the server. Another link may lead to the server.
    pub fn unreachable(&self) -> bool {
        matches!(self, Failure::Https(error) if error.unreachable())
    }

    /// How much the failure tells.
    pub(super) fn tells(&self) -> Tells {
        match self {
            Failure::Https(error) => match error {
                HttpsError::TimedOut(Phase::Connect | Phase::Handshake) => Tells::Silence,
                HttpsError::Resolve(unresolved) if unresolved.has_no_answer() => Tells::Silence,
                HttpsError::Connect(errors)
                    if errors.iter().all(|(_, error)| error.kind() == io::ErrorKind::TimedOut) =>
                {
                    Tells::Silence
                }
                HttpsError::Resolve(_) => Tells::NoWay,
                HttpsError::Connect(_) if error.unreachable() => Tells::NoWay,
                HttpsError::Connect(_) | HttpsError::Tls(TlsError::Io(_)) => Tells::NoConnection,
                HttpsError::TimedOut(Phase::Answer) | HttpsError::Http(HttpError::Truncated { .. }) => Tells::NoAnswer,
                HttpsError::Tls(TlsError::Refused(_) | TlsError::Protocol(_)) => Tells::NoTrust,
                HttpsError::Http(_) | HttpsError::Stopped => Tells::Answer,
            },
            Failure::NoLine | Failure::LineLost(_) => Tells::NoConnection,
            Failure::Est(_)
            | Failure::NoDate
            | Failure::NotADate(_)
            | Failure::DateOutsideCertificate { .. }
            | Failure::DateBeforeFloor { .. }
            | Failure::Credentials { .. }
            | Failure::Answer(_)
            | Failure::LineRefused(_)
            | Failure::LineNotTaken(_) => Tells::Answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::super::error::Step;
    use super::*;
    use crate::https::Unresolved;
    use crate::payload::{DnsName, EstUrl};

    fn connect(kinds: &[io::ErrorKind]) -> Failure {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Failure::Https(HttpsError::Connect(kinds.iter().map(|kind| (address, (*kind).into())).collect()))
    }

    fn unresolved(answered: bool) -> Failure {
        let name = DnsName::try_from("est.example.org").unwrap();
        let said = vec!["A est.example.org: 192.0.2.53: no answer to 3 questions".to_owned()];
        Failure::Https(HttpsError::Resolve(Box::new(Unresolved { name, servers: true, answered, said })))
    }

    fn busy() -> Failure {
        Failure::Est(EstError::Busy { status: 500, text: "a fault".into(), retry_after: None })
    }

    /// One list for each rank, the least telling rank first.
    fn ranks() -> Vec<Vec<Failure>> {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, NetworkUnreachable, TimedOut};
        vec![
            vec![
                Failure::Https(HttpsError::TimedOut(Phase::Handshake)),
                unresolved(false),
                Failure::Https(HttpsError::TimedOut(Phase::Connect)),
                connect(&[TimedOut, TimedOut]),
            ],
            vec![unresolved(true), connect(&[NetworkUnreachable, TimedOut])],
            // Of several addresses, the one that tells most counts.
            vec![
                connect(&[NetworkUnreachable, ConnectionRefused]),
                Failure::Https(HttpsError::Tls(TlsError::Io(ConnectionReset.into()))),
                Failure::LineLost("it broke".to_owned()),
            ],
            vec![
                Failure::Https(HttpsError::TimedOut(Phase::Answer)),
                Failure::Https(HttpsError::Http(HttpError::Truncated { have: 0, want: None })),
            ],
            vec![Failure::Https(HttpsError::Tls(TlsError::Protocol(rustls::Error::DecryptError)))],
            vec![busy(), Failure::NoDate, Failure::LineRefused("no".into())],
        ]
    }

    fn attempt(failure: Failure) -> Attempt {
        let url = EstUrl::try_from("https://192.0.2.1/.well-known/est").unwrap();
        Attempt::new(url, None, Step::Enrol, failure)
    }

    #[test]
    fn whoever_came_further_tells_more() {
        let mut ranks: Vec<Vec<Tells>> = ranks().iter().map(|rank| rank.iter().map(Failure::tells).collect()).collect();
        for rank in &mut ranks {
            rank.dedup();
            assert_eq!(rank.len(), 1, "{rank:?}");
        }
        assert!(ranks.is_sorted_by(|less, more| less < more), "{ranks:?}");
    }

    #[test]
    fn the_newer_one_is_told_unless_it_tells_less() {
        for (less, rank) in ranks().iter().enumerate() {
            for more in 0..ranks().len() {
                for at in 0..rank.len() {
                    let older = attempt(ranks().remove(more).remove(0));
                    let newer = attempt(ranks().remove(less).remove(at));
                    let (older_text, newer_text) = (older.to_string(), newer.to_string());
                    let words = crate::chain::chain(&newer.failure);
                    let told = more_telling(Some(older), newer).to_string();
                    match less < more {
                        true => assert_eq!(told, format!("{older_text}; last: {words}")),
                        false => assert_eq!(told, newer_text),
                    }
                }
            }
        }
    }

    #[test]
    fn only_the_last_of_those_that_tell_less_is_told() {
        let failures = [
            busy(),
            connect(&[io::ErrorKind::ConnectionRefused]),
            Failure::Https(HttpsError::TimedOut(Phase::Handshake)),
        ];
        let told = failures.into_iter().fold(None, |before, failure| Some(more_telling(before, attempt(failure))));
        let text = told.unwrap().to_string();
        assert!(text.contains("500 a fault; last: the server took the connection, but no TLS handshake"), "{text}");
        assert!(!text.contains("refused"), "{text}");
    }
}
