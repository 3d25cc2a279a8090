//! The beginning of a disk that may hold a root: any bytes name a device, or none.
#![cfg_attr(fuzzing, no_main)]

use imprint::superblock;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(found)) = superblock::read(&mut std::io::Cursor::new(bytes)) {
        assert!(found.uuid.is_empty() || found.uuid.len() == 36);
        assert!(!found.label.contains('\0'));
    }
});
