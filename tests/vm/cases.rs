//! Tests of networks with real peers inside one guest of Debian: trunks, bonds with LACP, bridges. Each file of tests/vm/cases/FOLDER is
//! a case, and a folder is one boot.

use imprint_tests::guest;

/// VLANs, bonds, bridges, stacks of them, and what stands in their way.
#[test]
fn links() {
    let cases = guest::run("links", "");
    cases.all_passed("links");
    let late = cases.measured("lacp-agreed-to-discover").expect("the case measures it");
    println!("the first DISCOVER left {late} ms after the first LACPDU that says so; below 0: before it");
}

/// systemd-networkd takes over what the agent has made, and changes nothing.
#[test]
fn managers() {
    guest::run("managers", "net.ifnames=0").all_passed("managers");
}
