//! A module as it is stored: gzip, xz, zstd. No input takes more memory than the limit, and what comes out is an ELF file.
#![cfg_attr(fuzzing, no_main)]

use imprint::kmod::{MAX_MODULE, Packing, unpack};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(module) = unpack(bytes) {
        assert!(module.len() <= MAX_MODULE);
        assert_eq!(Packing::of(&module), Packing::None);
    }
});
