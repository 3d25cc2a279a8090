//! The words of dracut for the network, as they stand on a kernel command line. Whatever they say, the links that they make keep the
//! rules of a payload, and what is told of the others is short and drives no console.
#![cfg_attr(fuzzing, no_main)]

use imprint::options::network_words;
use imprint::payload::Link;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let line = String::from_utf8_lossy(bytes);
    let (words, bootif) = network_words(&line);
    let said = words.network(bootif.as_ref());
    if !said.links.is_empty() {
        assert_eq!(Link::decode_all(&Link::encode_all(&said.links)).as_ref(), Ok(&said.links));
    }
    assert!(said.links.len() <= 1000 && said.unused.len() <= 200);
    for line in &said.unused {
        assert!(line.len() < 1000 && line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{line}");
    }
    // Nothing but these words counts.
    assert!(!words.is_empty() || said.links.is_empty());
});
