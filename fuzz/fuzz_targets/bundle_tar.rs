//! A tar that is read is written to the same bytes, and so is a gzip file's content. The headers' checksums are mended first, so that
//! the fuzzer gets past them.
#![cfg_attr(fuzzing, no_main)]

use imprint::bundle::{Bundle, EntryPath};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut tar = bytes.to_vec();
    for header in tar.chunks_mut(512).filter(|block| block.len() == 512 && block[257..].starts_with(b"ustar")) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    for tar in [bytes, &tar] {
        match Bundle::of_tar(tar) {
            Ok(bundle) => {
                assert_eq!(*bundle.tar(), tar);
                assert_eq!(Bundle::unpack(&bundle.pack().unwrap()).unwrap(), bundle);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    if let Ok(bundle) = Bundle::unpack(bytes) {
        assert_eq!(Bundle::of_tar(&bundle.tar()).unwrap(), bundle);
    }
    if let Ok(path) = EntryPath::from_bytes(bytes) {
        let text = path.as_str();
        assert!(!text.starts_with('/') && text.split('/').all(|name| !["", ".", ".."].contains(&name)));
    }
});
