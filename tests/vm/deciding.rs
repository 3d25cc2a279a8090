//! Tests of the server's decisions when machines boot again: with a token for one use, with one for each boot, with
//! approval, and after a power cut. Most boot a bare image, which is up first: none depends on the builder.

use imprint_host::enrol::approve;
use imprint_tests::books::in_use;

use crate::*;

/// Codes of the keys of node1's certificates, those that are revoked with a mark, oldest first.
fn keys(site: &Site) -> Vec<(String, bool)> {
    let mut state = site.state();
    let changes = state.store.changes().unwrap();
    let rows = changes.certificates("node1").unwrap();
    rows.into_iter().map(|row| (row.key_code, row.revoked.is_some())).collect()
}

/// A stateless node: the same config drive each time, another key each time, and the one before is revoked.
#[test]
fn an_each_boot_record_booted_three_times() {
    let site = Site::new(Node { enrol: "each-boot", ..NODE });
    for _ in 0..3 {
        let report = site.machine(Kernel::Stable).init(Init::Bare).boot();
        came_up(&report);
        let (code, revoked) = keys(&site).pop().unwrap();
        assert_eq!((report.status().key_code, revoked), (Some(code), false));
    }
    assert_eq!(keys(&site).iter().map(|(_, revoked)| *revoked).collect::<Vec<_>>(), [true, true, false]);
}

/// Power fails once the server has signed: nothing of it is left on the node, which boots again and comes up by itself.
#[test]
fn a_power_cut_between_signature_and_hand_over() {
    let site = Site::typical();
    site.machine(Kernel::Stable).init(Init::Bare).cut_when(|| keys(&site).len() == 1);
    let report = site.machine(Kernel::Stable).init(Init::Bare).boot();
    came_up(&report);
    let keys = keys(&site);
    assert_eq!(keys.iter().map(|(_, revoked)| *revoked).collect::<Vec<_>>(), [true, false]);
    assert_eq!(report.status().key_code.as_ref(), Some(&keys[1].0));
}

/// Another key with a token that was used is signed by an administrator's word only; the console says what to compare.
#[test]
fn a_payload_that_was_used_is_used_again_with_approval_only() {
    let site = Site::typical();
    came_up(&site.machine(Kernel::Stable).init(Init::Bare).boot());
    in_use(&mut site.state(), "node1");
    let waiting = || site.state().store.waiting("node1", Timestamp::system()).unwrap();

    let report = site.machine(Kernel::Stable).append("imprint.approval-timeout=3").boot();
    stopped(&report, 18, "check-in", "nobody approved key ");
    let [first] = &waiting()[..] else { panic!("one request waits") };
    assert!(
        report.console.contains(&format!("run: imprint-host approve node1 {}", first.key_code)),
        "{}",
        report.console
    );

    // Without a limit: somebody approves while it waits.
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            let second = loop {
                if let Some(row) = waiting().into_iter().find(|row| row.key_code != first.key_code) {
                    break row;
                }
                std::thread::sleep(Duration::from_millis(100));
            };
            approve(&mut site.state().store, "node1", &second.key_code, Timestamp::system()).unwrap();
        });
        site.machine(Kernel::Stable).init(Init::Bare).boot()
    });
    came_up(&report);
    assert_eq!(report.console.matches("waits for approval").count(), 1, "{}", report.console);
}
