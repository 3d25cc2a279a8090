//! Open files: how many connections their limit leaves places for, and what is said when there are none left. Each connection
//! is an open file, and so are the store, the CA's files and the doors. Opens and closes no connection itself.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use tokio::time::sleep;

use super::guests::{AWAY, CALLERS, CONNECTIONS};

/// Files for everything that is no connection.
const KEPT: u64 = 128;
/// After an error, no connection is accepted for this long.
const PAUSE: Duration = Duration::from_millis(100);
/// An error is told at most this often.
const TOLD: Duration = Duration::from_secs(60);

/// The places for connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Places {
    /// Nodes at doors at a time.
    pub(super) callers: usize,
    /// Connections to EST that are served at a time.
    pub(super) connections: usize,
    /// Connections to EST that are told to come back.
    pub(super) away: usize,
}

impl Places {
    /// The places that the limit of this process allows. Says so if there are fewer than there could be.
    pub(super) fn here(doors: bool) -> Places {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        let places = Places::within(limit, doors);
        if places.connections < CONNECTIONS || doors && places.callers < CALLERS {
            let Places { callers, connections, .. } = places;
            let at_doors =
                if doors { format!(", and {callers} callers at doors, not {CALLERS}") } else { String::new() };
            tracing::warn!(
                "this process may have {limit} open files: {connections} connections to EST are served at a time, not \
                 {CONNECTIONS}{at_doors}; raise the limit (LimitNOFILE= in the unit)"
            );
        }
        places
    }

    /// Those of EST come first, up to half: whoever calls at a door must not keep renewals waiting.
    fn within(limit: u64, doors: bool) -> Places {
        let free = usize::try_from(limit.saturating_sub(KEPT)).unwrap_or(usize::MAX);
        let all = CONNECTIONS.saturating_add(AWAY);
        let est = if doors { (free / 2).max(free.saturating_sub(CALLERS)) } else { free }.min(all);
        let away = est / (all / AWAY);
        let connections = est.saturating_sub(away).max(1);
        let callers = free.saturating_sub(connections).saturating_sub(away).min(CALLERS);
        Places { callers, connections, away }
    }
}

/// A listener that may be unable to accept.
pub(super) struct Listening {
    /// For messages: `door tcp`.
    what: &'static str,
    told: Option<Instant>,
}

impl Listening {
    pub(super) fn new(what: &'static str) -> Listening {
        Listening { what, told: None }
    }

    /// A connection could not be accepted. Says why, once a minute, and waits a moment: other connections may end meanwhile.
    pub(super) async fn failed(&mut self, error: &io::Error) {
        // The caller has hung up already.
        if error.raw_os_error() == Some(Errno::ECONNABORTED as i32) {
            return;
        }
        let now = Instant::now();
        if self.is_told(now) {
            tracing::warn!("{}: {}", self.what, words(error));
        }
        sleep(PAUSE).await;
    }

    /// Whether it is to be told now. Notes that it was.
    fn is_told(&mut self, now: Instant) -> bool {
        let again = self.told.is_none_or(|at| now.saturating_duration_since(at) >= TOLD);
        if again {
            self.told = Some(now);
        }
        again
    }
}

/// Why no connection is accepted, and what can be done.
fn words(error: &io::Error) -> String {
    let new = "those who connect now wait until other connections end";
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => {
            let limit =
                getrlimit(Resource::RLIMIT_NOFILE).map_or_else(|_| "all".to_owned(), |(soft, _)| soft.to_string());
            format!(
                "{limit} files are open, and this process may have no more: {new}; raise the limit (LimitNOFILE= in the unit)"
            )
        }
        Some(Errno::ENFILE) => format!("this machine can open no more files: {new}; raise fs.file-max (sysctl)"),
        Some(Errno::ENOBUFS | Errno::ENOMEM) => format!("this machine has no memory for another connection: {new}"),
        _ => format!("accepting a connection: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Places = Places { callers: CALLERS, connections: CONNECTIONS, away: AWAY };

    /// Accident: a container in which a process may have few open files. Callers at the doors and EST each have a share, and
    /// together they leave some for the store.
    #[test]
    fn few_files_are_shared_by_doors_and_est() {
        assert_eq!(Places::within(32_768, true), ALL);
        assert_eq!(Places::within(19_072, true), ALL);
        assert_eq!(Places::within(u64::MAX, true), ALL);
        assert_eq!(Places::within(1024, true), Places { callers: 448, connections: 359, away: 89 });
        assert_eq!(Places::within(1024, false), Places { callers: 0, connections: 717, away: 179 });
        assert_eq!(Places::within(8192, true), Places { callers: 5504, ..ALL });
        for limit in 0..20_000 {
            for doors in [false, true] {
                let Places { callers, connections, away } = Places::within(limit, doors);
                let all = u64::try_from(callers + connections + away).unwrap();
                assert!(all + KEPT <= limit.max(KEPT + 1), "{limit}");
                assert!(connections > 0);
            }
        }
    }

    #[test]
    fn what_is_told_has_a_remedy_and_is_not_told_again_at_once() {
        let error = |errno: Errno| words(&io::Error::from_raw_os_error(errno as i32));
        assert!(
            error(Errno::EMFILE).ends_with("raise the limit (LimitNOFILE= in the unit)"),
            "{}",
            error(Errno::EMFILE)
        );
        assert!(error(Errno::ENFILE).ends_with("raise fs.file-max (sysctl)"));
        let (mut listening, start) = (Listening::new("door tcp"), Instant::now());
        assert!(listening.is_told(start) && !listening.is_told(start + PAUSE));
        assert!(listening.is_told(start + TOLD));
    }
}
