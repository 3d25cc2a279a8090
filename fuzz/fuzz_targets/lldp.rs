//! What a switch says (LLDP), and tags of VLANs. Its words are short, and drive no console.
#![cfg_attr(fuzzing, no_main)]

use imprint::lldp;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    assert!(lldp::vlan_of_frame(bytes).is_none_or(|vlan| (1..=4094).contains(&vlan)));
    let Some(neighbour) = lldp::decode(bytes) else { return };
    let shown = neighbour.to_string();
    assert!(shown.len() < 2000 && shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{shown}");
    assert!(neighbour.vlan.is_none_or(|vlan| (1..=4094).contains(&vlan)));
    assert!(!neighbour.chassis.is_empty() || !neighbour.port.is_empty() || bytes.len() < 4096);
});
