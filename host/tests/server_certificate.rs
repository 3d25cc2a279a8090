//! Tests of the server's own certificate: when the server makes a new one, and when it does not.

use crate::support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use support::{NODE, start};

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn the_server_certificate_is_renewed_while_it_runs() {
    let site = start(&[NODE]);
    let path = site.dir.path().join("state/server.pem");
    let first = std::fs::read(&path).unwrap();
    site.get("/");
    assert_eq!(std::fs::read(&path).unwrap(), first);
    site.pass(61 * DAY);
    assert_eq!(site.get("/").status, 404);
    assert_ne!(std::fs::read(&path).unwrap(), first);
    let config = site.dir.path().join("state/server.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(config).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

/// The accident: a clock that was ahead is set right. The certificate that the server made before would not be valid
/// for months.
#[test]
fn the_server_certificate_is_renewed_when_the_clock_goes_back() {
    let site = start(&[NODE]);
    site.pass(61 * DAY);
    assert_eq!(site.get("/").status, 404);
    site.now.fetch_sub(60 * DAY.as_secs(), Ordering::SeqCst);
    assert_eq!(site.get("/").status, 404);
}

/// Near the end of the intermediate no certificate can have 30 days left. A new one for each connection would be no
/// better.
#[test]
fn at_the_end_of_the_intermediate_the_server_certificate_stays() {
    let site = start(&[NODE]);
    site.pass(3640 * DAY);
    let state = site.state();
    let end = site.clock().plus(12 * DAY);
    for renewed in [true, false] {
        let identity = state.ca.server_identity(&state.hosts(), site.clock()).unwrap();
        assert_eq!((identity.renewed, identity.renew_at), (renewed, end));
    }
}
