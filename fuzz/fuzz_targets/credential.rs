//! The content of a credential, and the words of a kernel command line that bring one. No error may contain bytes that
//! control the console on which it is printed.
#![cfg_attr(fuzzing, no_main)]

use imprint::options::{CredentialName, Options};
use imprint::payload::MAX_LEN;
use imprint::secret::Secret;
use imprint::source::credential::content;

fn taken(bytes: Secret) {
    match content::payload(bytes) {
        Ok(payload) => assert!(payload.expose().len() <= MAX_LEN),
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() < 300 && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{text}");
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    taken(Secret::new(bytes.to_vec()));
    if let Ok(binary) = content::base64(bytes) {
        assert!(binary.expose().len() <= bytes.len());
        taken(binary);
    }
    let line = String::from_utf8_lossy(bytes);
    let word = format!("systemd.set_credential=imprint.payload:{line}");
    for line in [&*line, word.as_str()] {
        let Ok(options) = Options::parse(line) else { continue };
        for given in options.credentials.into_iter().filter(|given| given.name == CredentialName::Payload) {
            assert!(given.text.expose().len() <= line.len());
            taken(given.text);
        }
    }
});
