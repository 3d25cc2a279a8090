//! A program that hands over without a pause is killed at random times. Afterwards the folder must hold an identity
//! whose key and certificate belong together; or none, if it held none before.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use der::{Decode, Encode};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};

use super::*;
use crate::certificate::Certificate;

/// How the program hands over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// As imprint does it.
    Beside,
    /// File by file, over the files that exist: as earlier versions did it.
    InPlace,
}

const DIRECTORY: &str = "IMPRINT_TEST_DIRECTORY";
const IN_PLACE: &str = "IMPRINT_TEST_IN_PLACE";

#[test]
#[ignore = "no test: the program that the tests below start and kill"]
fn hands_over_without_a_pause() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let in_place = std::env::var_os(IN_PLACE).is_some();
    // A kill releases the lock, and the next program takes the lock at once.
    let _folder = Folder::make(&directory).unwrap();
    private_folder(&directory, Private::Directory).unwrap();
    let mut out = std::io::stdout();
    out.write_all(b"\nbegins\n").unwrap();
    out.flush().unwrap();
    loop {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["node1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let certificate = pem::encode("CERTIFICATE", certificate.der());
        let key = pem::encode("PRIVATE KEY", key.serialized_der());
        let files = [CERT, CHAIN, CA, NODE, STATUS].map(|name| (name, certificate.as_bytes()));
        if in_place {
            remove(&directory.join(READY)).unwrap();
            files.iter().for_each(|(name, bytes)| put(&directory, name, bytes, 0o644).unwrap());
            put(&directory.join(PRIVATE), KEY, key.as_bytes(), 0o600).unwrap();
            put(&directory, READY, b"", 0o644).unwrap();
        } else {
            let beside = generation::write(&directory, &files, key.as_bytes()).unwrap();
            beside.switch(&directory, Duration::ZERO).unwrap();
        }
    }
}

struct Program(Child);

impl Program {
    /// Starts the program, and returns when the program has begun.
    fn start(directory: &Path, how: How) -> Program {
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args(["--exact", "handover::tests::kills::hands_over_without_a_pause", "--ignored", "--nocapture"]);
        program.env(DIRECTORY, directory).stdout(Stdio::piped());
        if how == How::InPlace {
            program.env(IN_PLACE, "1");
        }
        let mut program = Program(program.spawn().unwrap());
        let said = BufReader::new(program.0.stdout.take().unwrap());
        assert!(said.lines().map_while(Result::ok).any(|line| line == "begins"), "{:?}", program.0.wait());
        program
    }
}

/// Kills the program with SIGKILL.
impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// xorshift64 (Marsaglia 2003): any numbers will do, if they are the same in each run of the test.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Nothing,
    /// Every file and the key belong together.
    Whole,
    /// Parts of two identities, or not all parts of one.
    Torn,
}

fn found(directory: &Path) -> Found {
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    let (files, key) = ([CERT, CHAIN, CA, NODE, STATUS].map(read), read("private/key.pem"));
    if files.iter().all(Option::is_none) && key.is_none() {
        return Found::Nothing;
    }
    let spki = |certificate: &Option<String>| {
        let der = pem::decode("CERTIFICATE", certificate.as_ref()?)?.remove(0);
        Certificate::from_der(&der).ok()?.tbs_certificate.subject_public_key_info.to_der().ok()
    };
    let of_key = key.and_then(|key| {
        let der = pem::decode("PRIVATE KEY", &key)?.remove(0).to_vec();
        KeyPair::try_from(der).ok().map(|key| key.subject_public_key_info())
    });
    let [certificate, ..] = &files;
    let whole = of_key.is_some() && files.iter().all(|file| file == certificate) && spki(certificate) == of_key;
    if whole { Found::Whole } else { Found::Torn }
}

/// Premise: when files are written in place, a kill leaves a key and a certificate of two identities.
#[test]
fn in_place_a_kill_leaves_parts_of_two() {
    let root = tempfile::tempdir().unwrap();
    let mut seed = 0x1d5e_ed00_u64;
    let torn = (0..60).filter(|_| {
        let program = Program::start(root.path(), How::InPlace);
        std::thread::sleep(Duration::from_micros(random(&mut seed) % 10_000));
        drop(program);
        found(root.path()) == Found::Torn
    });
    assert!(torn.count() > 0);
}

/// Kills two hundred times: half of them where an identity was, half of them where there was none.
#[test]
fn a_kill_leaves_the_old_one_or_the_new_one() {
    let (root, first) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut seed = 0x1d5e_ed00_u64;
    let mut counts = [0; 2];
    for number in 0..200 {
        let fresh = number % 2 == 1;
        let directory = if fresh { first.path().join(number.to_string()) } else { root.path().to_owned() };
        let was = found(&directory);
        let program = Program::start(&directory, How::Beside);
        std::thread::sleep(Duration::from_micros(random(&mut seed) % 30_000));
        drop(program);
        let is = found(&directory);
        match (was, is) {
            (Found::Nothing, Found::Nothing) => counts[0] += 1,
            (_, Found::Whole) => counts[1] += 1,
            other => panic!("kill {number}: {other:?}"),
        }
        // The kill has released the lock, and opening the folder removes what is of no use any more.
        let _folder = Folder::open(&directory).unwrap();
        assert_eq!((found(&directory), is_complete(&directory)), (is, is == Found::Whole), "kill {number}");
        let keys = fs::read_dir(directory.join(PRIVATE)).unwrap().map(|entry| entry.unwrap().file_name());
        let keys = keys.filter(|name| name.to_str().unwrap().contains("key-")).count();
        assert_eq!(keys, usize::from(is == Found::Whole), "kill {number}");
    }
    writeln!(std::io::stdout(), "nothing, as before: {}; whole: {}", counts[0], counts[1]).unwrap();
}
