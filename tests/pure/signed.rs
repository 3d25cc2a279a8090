//! The attack: somebody who controls a medium, a line or a boot server changes bytes of a payload. An image that names
//! signers uses no payload without the signature of one of them.

use imprint::error::Error;
use imprint::medium::MEDIA;
use imprint::payload::signed::{self, AAD, Algorithm, Signed};
use imprint::payload::{Binding, Payload};
use imprint::secret::Secret;
use imprint::site::{SignedBy, SitePin};
use imprint::source::{self, Found, Origin};
use imprint_tests::signer::{self, Key};

use super::super::{TYPICAL, agent};

/// How many changed payloads of each signer are tried.
const TRIES: usize = 10_000;

/// Numbers that are the same in each run (xorshift64, Marsaglia 2003).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % limit.max(1)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

/// Every place that a payload may come from.
fn origins() -> Vec<Origin> {
    let media = MEDIA.iter().map(|row| Origin::Medium { medium: row.medium, place: "x".into() });
    let lines = [true, false].map(|sealed| Origin::Line { name: "ttyS0".into(), sealed });
    media.chain(lines).chain([Origin::File("x".into())]).collect()
}

fn decoded(origin: &Origin, bytes: &[u8], pin: Option<&SitePin>) -> Result<SignedBy, Error> {
    let found = Found { origin: origin.clone(), bytes: Secret::new(bytes.to_vec()), cut: false, fresh: None };
    Ok(source::decode(&found, pin, None)?.1)
}

fn bound(serial: &str) -> Vec<u8> {
    let mut payload = Payload::decode(TYPICAL).unwrap();
    payload.binding = Some(Binding { serial: Some(serial.to_owned()), ..Binding::default() });
    payload.encode().to_vec()
}

/// Makes one change. `turn` goes round the kinds of changes.
fn changed(good: &[u8], turn: usize, numbers: &mut Numbers) -> Vec<u8> {
    let parts = Signed::decode(good).unwrap();
    let (mut bytes, length) = (good.to_vec(), good.len());
    let at = numbers.below(length);
    let rebuilt = |protected: &[u8], unprotected: &[u8], payload: &[u8], signature: &[u8]| {
        let string = |bytes: &[u8]| {
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            let head = if bytes.len() < 24 {
                vec![0x40 | length[1]]
            } else if bytes.len() < 256 {
                vec![0x58, length[1]]
            } else {
                vec![0x59, length[0], length[1]]
            };
            [&head[..], bytes].concat()
        };
        [&[0xd2, 0x84], &string(protected)[..], unprotected, &string(payload), &string(signature)].concat()
    };
    let header = &good[3..16];
    match turn % 20 {
        0..=3 => bytes[at] ^= 1 << numbers.below(8),
        4 => {
            for _ in 0..numbers.below(8) + 2 {
                bytes[numbers.below(length)] ^= 1 << numbers.below(8);
            }
        }
        5 => bytes.truncate(at),
        6 => drop(bytes.drain(..at)),
        7 => bytes.insert(at, numbers.byte()),
        8 => drop(bytes.remove(at)),
        9 => {
            let other = numbers.below(length);
            bytes.swap(at, other);
        }
        10 => bytes.extend((0..=numbers.below(4)).map(|_| numbers.byte())),
        // The key id of another key, or of no key.
        11 => bytes[8 + numbers.below(8)] = numbers.byte(),
        12 => {
            let other = SitePin::parse(signer::LINES.as_bytes()).unwrap().signers;
            let other = &other[numbers.below(2)];
            let (kid, algorithm) =
                (other.kid(), if numbers.below(2) == 0 { other.algorithm() } else { parts.algorithm });
            bytes = signed::encode(algorithm, kid, parts.payload, parts.signature).to_vec();
        }
        13 => {
            let other = if parts.algorithm == Algorithm::Es256 { Algorithm::EdDsa } else { Algorithm::Es256 };
            bytes = signed::encode(other, parts.kid, parts.payload, parts.signature).to_vec();
        }
        // A payload of somebody else, with a signature of the signer's for another payload.
        14 => {
            let other = bound(&format!("SN-{}", numbers.below(100_000)));
            bytes = signed::encode(parts.algorithm, parts.kid, &other, parts.signature).to_vec();
        }
        15 => {
            let signature: Vec<u8> = match numbers.below(4) {
                0 => Vec::new(),
                1 => vec![0; 64],
                2 => vec![numbers.byte(); numbers.below(80)],
                _ => [&parts.signature[32..], &parts.signature[..32]].concat(),
            };
            bytes = rebuilt(header, &[0xa0], parts.payload, &signature);
        }
        // Other shapes of COSE: another tag, no tag, headers that moved or are missing, a payload in another place.
        16 => {
            let tag: &[u8] = [&[][..], &[0xd8, 98], &[0xd1], &[0xd0], &[0xd8, 18], &[0xd2, 0xd2]][numbers.below(6)];
            bytes = [tag, &good[1..]].concat();
        }
        17 => {
            let unprotected: Vec<u8> = match numbers.below(3) {
                0 => [&[0xa1, 4, 0x48], &parts.kid.0[..]].concat(),
                1 => vec![0xa1, 1, 0x26],
                _ => vec![0xbf, 0xff],
            };
            let protected = if numbers.below(2) == 0 { header } else { &[][..] };
            bytes = rebuilt(protected, &unprotected, parts.payload, parts.signature);
        }
        18 => {
            // Indefinite lengths, and numbers that are longer than they have to be.
            let (old, new): (&[u8], &[u8]) = match numbers.below(4) {
                0 => (&good[1..2], &[0x9f]),
                1 => (&good[2..3], &[0x58, 13]),
                2 => (&good[17..18], &[0x5a, 0, 0]),
                _ => (&good[16..17], &[0xb8, 0]),
            };
            let at = good.windows(old.len()).position(|part| part == old).unwrap();
            bytes = [&good[..at], new, &good[at + old.len()..]].concat();
            if old == [0x84] {
                bytes.push(0xff);
            }
        }
        _ => {
            let (from, to) = (numbers.below(length), numbers.below(length));
            let piece = good[from.min(to)..from.max(to)].to_vec();
            bytes.splice(at..at, piece);
        }
    }
    bytes
}

/// 20,000 payloads that no signer has signed, from every source in turn. The agent uses none of them, whatever is wrong
/// with it.
#[test]
fn nothing_but_what_was_signed_is_used() {
    let pin = SitePin::parse(signer::LINES.as_bytes()).unwrap();
    let (origins, payload) = (origins(), bound("SN-0042"));
    let mut numbers = Numbers(0x696d_7072_696e_7401);
    for key in [Key::p256(), Key::ed25519()] {
        let good = key.sign(&payload);
        let (mut premise, mut refused, mut turn) = (0, 0, 0);
        while refused < TRIES {
            turn += 1;
            let origin = &origins[turn % origins.len()];
            assert_eq!(decoded(origin, &good, Some(&pin)).unwrap(), SignedBy::Signer(key.signer().kid()));
            let bytes = changed(&good, turn, &mut numbers);
            if bytes == good {
                // Two equal bytes have changed places.
                continue;
            }
            premise += usize::from(decoded(origin, &bytes, None).is_ok());
            match decoded(origin, &bytes, Some(&pin)).map_err(|error| error.stage()) {
                Err(("payload", 12) | ("plan", 13)) => refused += 1,
                other => panic!("{other:?} from {origin}: {}", bytes.escape_ascii()),
            }
        }
        // Premise: without a signer in the pin, the agent uses many of them.
        assert!(premise > TRIES / 5, "{premise} of {refused}");
    }
}

/// Each is a payload that a node uses without the pin.
#[test]
fn what_others_have_signed_or_nobody_is_not_used() {
    let pin = SitePin::parse(signer::LINES.as_bytes()).unwrap();
    let (payload, stranger) = (bound("SN-0042"), Key::stranger());
    let [p256, ed25519] = [Key::p256(), Key::ed25519()];
    let attacks = [
        ("nobody", payload.clone(), "is not signed"),
        ("a stranger", stranger.sign(&payload), "is signed by"),
        (
            "a stranger under a name that is known",
            stranger.sign_as(&p256.signer(), AAD, &payload),
            "the signature does not fit",
        ),
        (
            "one signer under the name of the other",
            ed25519.sign_as(&p256.signer(), AAD, &payload),
            "the signature does not fit",
        ),
        (
            "a signer, for another purpose",
            p256.sign_as(&p256.signer(), b"imprint bundle 1", &payload),
            "the signature does not fit",
        ),
        (
            "a signer, for version 2",
            ed25519.sign_as(&ed25519.signer(), b"imprint payload 2", &payload),
            "the signature does not fit",
        ),
    ];
    for origin in origins() {
        for (who, bytes, words) in &attacks {
            decoded(&origin, bytes, None).unwrap_or_else(|error| panic!("premise: {who}: {error}"));
            let error = decoded(&origin, bytes, Some(&pin)).unwrap_err();
            assert_eq!(error.stage(), ("plan", 13), "{who}, from {origin}");
            let shown = imprint::chain::chain(&error);
            assert!(shown.contains(words), "{who}: {shown}");
        }
    }
}

/// `imprint check` says who signed a payload, and that nobody has verified it.
#[test]
fn check_says_who_signed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for key in [Key::p256(), Key::ed25519()] {
        std::fs::write(file.path(), key.sign(TYPICAL)).unwrap();
        let (code, shown, error) = agent(&["check", file.path().to_str().unwrap()]);
        assert_eq!((code, error.as_str()), (0, ""));
        let want = format!("signed by  {}, not verified: there is no signer in a site pin\n", key.signer().kid());
        assert!(shown.ends_with(&want), "{shown}");
    }
}

/// The accident: a machine that a credential narrows to one signer boots with no payload of the other, and `imprint check` and
/// `plan` say that such a payload is good.
#[test]
fn what_narrows_the_pin_of_a_boot_narrows_that_of_a_check() {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, text: String| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    let [p256, ed25519] = [Key::p256(), Key::ed25519()];
    put("imprint/site", format!("{}\n{}\n", p256.signer(), ed25519.signer()));
    let file = root.path().join("payload");
    // Bound to another machine: `plan` gets past the signature, and says so.
    std::fs::write(&file, p256.sign(&bound("SN-0042"))).unwrap();
    let check = || imprint::run::check(root.path(), Some(&file)).map(|_| ());
    let plan = || imprint::run::plan(root.path(), &file).map(|_| ());
    let code = |result: Result<(), imprint::error::Error>| result.map_err(|error| imprint::chain::chain(&error));
    code(check()).unwrap();
    assert!(code(plan()).unwrap_err().contains("serial number SN-0042"));
    put("run/credentials/@system/imprint.site", format!("{}\n", ed25519.signer()));
    for error in [code(check()).unwrap_err(), code(plan()).unwrap_err()] {
        assert!(error.contains(&format!("is signed by {}", p256.signer().kid())), "{error}");
    }
}
