//! What a client may say to the EST server over TLS: it is answered in HTTP or not at all, and never with a certificate.
#![cfg_attr(fuzzing, no_main)]

use std::sync::{Arc, OnceLock};

use imprint::payload::EstUrl;
use imprint::time::Timestamp;
use imprint_host::est::Layout;
use imprint_host::serve::{Config, Front};
use imprint_host::state::State;

/// One state for all inputs: nothing that is said here may change it but by lines of its log.
fn with<T>(said: impl FnOnce(&Front) -> T) -> T {
    thread_local! {
        static FRONT: OnceLock<Front> = const { OnceLock::new() };
    }
    FRONT.with(|front| {
        said(front.get_or_init(|| {
            let dir = std::env::temp_dir().join(format!("imprint-fuzz-{}", std::process::id()));
            let url = EstUrl::try_from("https://127.0.0.1:8443/.well-known/est").unwrap();
            let now = Timestamp::from_secs(1_800_000_000);
            let mut state = State::init(&dir, &[url], now).unwrap();
            let record = "name = \"node1\"\nsubject = [\"CN=node1\"]\n".to_owned();
            state.add_nodes(&[("node1.toml".to_owned(), record)], false, now).unwrap();
            drop(state);
            let listen = "127.0.0.1:0".parse().unwrap();
            let config = Config {
                dir,
                listen,
                metrics: None,
                doors: Vec::new(),
                layout: Layout::Wrapped,
                tell: Default::default(),
                clock: Arc::new(move || now),
            };
            Front::open(&config).unwrap()
        }))
    })
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let heard = with(|front| front.talk(bytes)).unwrap();
    assert!(heard.is_empty() || heard.starts_with(b"HTTP/1."));
    // cacerts has 200, csrattrs and lists too; whoever asks for a certificate has no token.
    if bytes.starts_with(b"POST ") {
        assert!(!heard.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&heard));
    }
});
