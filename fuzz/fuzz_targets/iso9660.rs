//! A medium that nobody vouched for. Inputs are the sectors behind the system area, which nobody reads, so that the
//! corpus stays small.
#![cfg_attr(fuzzing, no_main)]

use std::io::Cursor;

use imprint::payload::MAX_LEN;
use imprint::source::iso9660::Volume;

const SYSTEM_AREA: usize = 16 * 2048;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut image = vec![0; SYSTEM_AREA];
    image.extend_from_slice(bytes);
    let mut device = Cursor::new(image);
    if let Ok(Some(volume)) = Volume::open(&mut device) {
        assert!(volume.labels().iter().all(|label| label.len() <= 3 * 32));
        if let Ok(Some(file)) = volume.file(&mut device, &["imprint", "payload"], MAX_LEN) {
            assert!(file.expose().len() <= MAX_LEN);
        }
    }
});
