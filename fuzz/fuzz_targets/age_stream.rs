//! The stream of an age file: what is encrypted is decrypted, and with a change it is not. The input is the change, and then the
//! text: where, what with, and how many bytes are cut.
#![cfg_attr(fuzzing, no_main)]

use imprint::age::{self, Identity};

const IDENTITY: &str = include_str!("../../tests/data/bundle-identity");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(([a, b, c, with, cut], plain)) = bytes.split_first_chunk() else { return };
    let identity = Identity::parse(IDENTITY).unwrap();
    // More than one chunk, now and then.
    let plain = if *a & 0x80 == 0 { plain.to_vec() } else { plain.repeat(70_000 / plain.len().max(1) + 1) };
    let good = age::encrypt(&plain, &[identity.recipient()]).unwrap();
    assert_eq!(good.len(), age::encrypted_len(plain.len(), 1));
    assert_eq!(*age::decrypt(&good, &identity).unwrap(), plain);
    let at = usize::from(*a & 0x7f) << 16 | usize::from(*b) << 8 | usize::from(*c);
    let mut bad = good.clone();
    if let Some(byte) = bad.get_mut(at) {
        *byte ^= with;
    }
    bad.truncate(good.len() - usize::from(*cut).min(good.len()));
    assert!(bad == good || age::decrypt(&bad, &identity).is_err());
    // As a whole file, too: the seeds are some.
    let _ = age::decrypt(bytes, &identity);
});
