//! An HTTP answer in pieces: however it is cut, it means the same.
#![cfg_attr(fuzzing, no_main)]

use imprint::est;
use imprint::http::ResponseReader;

fn read(pieces: &[&[u8]]) -> String {
    let mut reader = ResponseReader::default();
    for piece in pieces {
        match reader.push(piece) {
            Ok(Some(response)) => return format!("{:?}", est::outcome(&response)),
            Ok(None) => {}
            Err(error) => return format!("error {error}"),
        }
    }
    match reader.end() {
        Ok(response) => format!("{:?}", est::outcome(&response)),
        Err(error) => format!("error {error}"),
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The first eight say where the others are cut.
    let (cut, bytes) = bytes.split_at(bytes.len().min(8));
    let cut = cut.iter().rev().fold(0, |sum: usize, byte| sum.wrapping_mul(256).wrapping_add(usize::from(*byte)));
    let (first, second) = bytes.split_at(cut.checked_rem(bytes.len() + 1).unwrap_or(0));
    let (whole, cut) = (read(&[bytes]), read(&[first, second]));
    // An error may be noticed earlier or later, and then has other numbers in it.
    if !whole.starts_with("error") && !cut.starts_with("error") {
        assert_eq!(whole, cut);
    }
});
