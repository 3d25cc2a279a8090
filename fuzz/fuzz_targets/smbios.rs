//! The SMBIOS table of the firmware. Every string that comes out is part of the table.
#![cfg_attr(fuzzing, no_main)]

use imprint::smbios;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut length = 0;
    for string in smbios::oem_strings(bytes) {
        assert!(!string.is_empty() && !string.contains(&0));
        length += string.len();
    }
    assert!(length <= bytes.len());
    assert!(smbios::host_interfaces(bytes).len() <= bytes.len() / 4);
});
