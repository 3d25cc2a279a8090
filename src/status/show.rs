//! The record of a run for people: what `imprint status` prints, and the lines on the console. Never decides anything.

use std::fmt;
use std::time::Duration;

use super::{BundleState, BundleStatus, Failure, Outcome, RootStatus, Status, Step};
use crate::shown::line;

/// `network: eth0 10.0.2.15/24 (0.412 s)`
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::from_micros(self.duration_us).as_secs_f64();
        match self.detail.as_str() {
            "" => write!(f, "{} ({seconds:.3} s)", self.name),
            detail => write!(f, "{}: {detail} ({seconds:.3} s)", self.name),
        }
    }
}

/// `source: no payload found (…)`, on one line
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", line(&self.stage), line(&self.message))
    }
}

/// For `imprint status`: a line for each step, and how the run ended.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let started = Duration::from_micros(step.started_us).as_secs_f64();
            writeln!(f, "{started:9.3} {}", line(&step.to_string()))?;
        }
        match (&self.outcome, &self.error) {
            (Outcome::Done, _) => {
                let code = self.key_code.as_deref().unwrap_or("?");
                match &self.name {
                    Some(name) => writeln!(f, "done: {} has its certificate, key {}", line(name), line(code)),
                    None => writeln!(f, "done: certificate and key {} came with the payload", line(code)),
                }
            }
            (Outcome::Absent, _) => writeln!(f, "absent: no payload was found, and none was required"),
            (Outcome::Failed, Some(failure)) => writeln!(f, "failed with exit code {}: {failure}", self.exit_code),
            (Outcome::Failed, None) => writeln!(f, "failed with exit code {}", self.exit_code),
        }?;
        self.bundle.as_ref().map_or(Ok(()), |bundle| writeln!(f, "bundle: {bundle}"))?;
        self.root.as_ref().map_or(Ok(()), |root| writeln!(f, "root: {root}"))
    }
}

/// `number 7 (7K3M-Q0ZT-N4V8-XW1C) was fetched, and is not in the root: …`
impl fmt::Display for BundleStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "number {} ({}) ", self.counter, line(&self.code))?;
        f.write_str(match self.state {
            BundleState::Staged => "was fetched, and is not in the root",
            BundleState::Applied => "is in the root, and the configuration server does not know that it is in use",
            BundleState::Available => "is in use, and the configuration server knows",
        })?;
        self.error.as_ref().map_or(Ok(()), |error| write!(f, ": {}", line(error)))
    }
}

/// `https://images.example/root.sqfs, SHA-256 0123…`
impl fmt::Display for RootStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.url, &self.error) {
            (Some(url), _) => write!(f, "{}, SHA-256 {}", line(url), line(&self.sha256)),
            (None, Some(error)) => write!(f, "none: {}", line(error)),
            (None, None) => f.write_str("none"),
        }
    }
}
