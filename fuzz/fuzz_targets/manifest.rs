//! The bytes are the manifest of a tar without entries: an error, or a bundle that is written to the same bytes.
#![cfg_attr(fuzzing, no_main)]

use imprint::bundle::Bundle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut header = vec![0; 512];
    header[..8].copy_from_slice(b"manifest");
    for (at, text) in [
        (100, "0000644\0".to_owned()),
        (108, "0000000\0".to_owned()),
        (116, "0000000\0".to_owned()),
        (124, format!("{:011o}\0", bytes.len())),
        (136, "00000000000\0".to_owned()),
        (148, "        ".to_owned()),
        (156, "0".to_owned()),
        (257, "ustar\x0000".to_owned()),
    ] {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = [&header[..], bytes].concat();
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    match Bundle::of_tar(&tar) {
        Ok(bundle) => {
            assert_eq!(*bundle.tar(), tar);
            let again = Bundle::new(bundle.node().clone(), bundle.counter(), bundle.units().to_vec(), Vec::new());
            assert_eq!(again.unwrap(), bundle);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
