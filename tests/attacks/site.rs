//! A site: its state, two nodes for each run, and what its administrator knows and does. No sockets and no server.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64ct::{Base64, Encoding};
use imprint::line::admission::AdmissionKey;
use imprint::payload::EstUrl;
use imprint::pem;
use imprint::secret::Secret;
use imprint::site::SitePin;
use imprint::time::Timestamp;
use imprint_host::compose::{Medium, Options};
use imprint_host::state::{Adding, State};

/// What lets a node in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Admit {
    Approve,
    Armed,
    Wire,
    Key,
    /// A claim suffices: to show what the other rules are for.
    Known,
}

/// A machine of the site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) serial: String,
    pub(crate) mac: [u8; 6],
    /// The tap device that it is behind.
    pub(crate) tap: String,
}

pub(crate) struct Site {
    _dir: tempfile::TempDir,
    pub(crate) state: State,
    pub(crate) admit: Admit,
    /// It names the signer and the CA of the site.
    pub(crate) pin: SitePin,
    /// A payload of another site, which has the same signer and another CA.
    pub(crate) elsewhere: Secret,
    /// The administrator's key for the nodes of this site: on a stick that the honest nodes have.
    pub(crate) stick: Arc<AdmissionKey>,
    /// The time of day at the begin of this run.
    pub(crate) epoch: Timestamp,
    /// Which node each payload was made for.
    pub(crate) made: HashMap<[u8; 16], String>,
    /// The line keys that were sent a payload.
    pub(crate) sent: HashSet<[u8; 32]>,
}

/// The two machines of a run: the first one is the attack's aim.
pub(crate) fn machines(run: usize) -> [Machine; 2] {
    ["a", "b"].map(|letter| {
        let [.., high, low] = u32::try_from(run).unwrap().to_be_bytes();
        Machine {
            name: format!("{letter}{run}"),
            serial: format!("S-{letter}-{run}"),
            mac: [2, 0, high, low, 0, letter.as_bytes()[0]],
            tap: format!("tap{letter}{run}"),
        }
    })
}

impl Site {
    pub(crate) fn new(admit: Admit, runs: std::ops::Range<usize>) -> Site {
        Site::of(admit, runs, false)
    }

    /// Who is let in is who is behind the port, and the record of the second machine of each run names the first one.
    pub(crate) fn copied(runs: std::ops::Range<usize>) -> Site {
        Site::of(Admit::Wire, runs, true)
    }

    fn of(admit: Admit, runs: std::ops::Range<usize>, copied: bool) -> Site {
        let dir = in_memory();
        let epoch = Timestamp::from_secs(Timestamp::system().as_secs());
        let url = EstUrl::try_from("https://est.example.org/.well-known/est").unwrap();
        let mut state = State::init(&dir.path().join("state"), &[url], epoch).unwrap();
        let signer = state.ca.signing_key().unwrap().unwrap().signer().clone();
        let root = imprint::hex::encode(&state.ca.root().sha256());
        let pin = SitePin::parse(format!("{signer}\n{root}\n").as_bytes()).unwrap();
        let der = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let stick = AdmissionKey::parse(pem::encode("PRIVATE KEY", der.as_ref()).as_bytes()).unwrap();
        let public = Base64::encode_string(&stick.public());
        let record = |machine: Machine| {
            let Machine { name, serial, mac, tap } = machine;
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            let said = format!("serial = \"{serial}\", macs = [\"{mac}\"]");
            let claims = format!("bind = {{ {said} }}");
            let rule = match admit {
                Admit::Approve => format!("{claims}\nadmit = \"approve\""),
                Admit::Armed => format!("{claims}\nadmit = \"armed\""),
                Admit::Wire => format!("bind = {{ {said}, tap = \"{tap}\" }}\nadmit = \"wire\""),
                Admit::Key => format!("{claims}\nadmit = \"key\"\nadmission_key = \"{public}\""),
                Admit::Known => format!("{claims}\nadmit = \"known\"\nclaims_suffice = true"),
            };
            (format!("{name}.toml"), format!("name = \"{name}\"\nsubject = [\"CN={name}\"]\n{rule}\n"))
        };
        let of_run = |run: usize| {
            let [first, mut second] = machines(run);
            if copied {
                (second.serial, second.mac) = (first.serial.clone(), first.mac);
            }
            [first, second]
        };
        let both: Vec<Machine> = runs.flat_map(of_run).collect();
        let adding = Adding {
            allow_duplicate: both.iter().filter(|_| copied).map(|machine| machine.name.clone()).collect(),
            ..Adding::default()
        };
        let files: Vec<(String, String)> = both.into_iter().map(record).collect();
        state.add_nodes_as(&files, &adding, epoch).unwrap();
        let elsewhere = elsewhere(&dir.path().join("elsewhere"), epoch);
        let (made, sent) = (HashMap::new(), HashSet::new());
        Site { _dir: dir, state, admit, pin, elsewhere, stick: Arc::new(stick), epoch, made, sent }
    }

    /// The time of day, so many microseconds after the begin of the run.
    pub(crate) fn at(&self, now: u64) -> Timestamp {
        self.epoch.plus(Duration::from_micros(now))
    }

    /// Hours later: the next run.
    pub(crate) fn later(&mut self) {
        self.epoch = self.epoch.plus(Duration::from_secs(3 * 3600));
    }
}

/// A payload of a site that has nothing to do with this one, not signed yet.
fn elsewhere(dir: &Path, now: Timestamp) -> Secret {
    let url = EstUrl::try_from("https://est.example.net/.well-known/est").unwrap();
    let mut state = State::init(dir, &[url], now).unwrap();
    let record = ("x.toml".to_owned(), "name = \"x\"\nsubject = [\"CN=x\"]\n".to_owned());
    state.add_nodes(&[record], false, now).unwrap();
    let expires = Duration::from_secs(300 * 86_400);
    let options = Options { expires, medium: Medium::Line, unsigned: true, ..Options::default() };
    Secret::new(state.payload("x", &options, now).unwrap().bytes.to_vec())
}

/// A folder for a store. In memory where there is such a file system: a run has hundreds of transactions, and what is tested is not
/// whether a disk keeps them.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Numbers from a seed (splitmix64).
#[derive(Clone)]
pub(crate) struct Seed(pub u64);

impl Seed {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next().to_be_bytes()[0])
    }
}
