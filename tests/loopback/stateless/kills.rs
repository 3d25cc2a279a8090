//! Kills the node at named points while it fetches, uploads, waits and stages: afterwards the folder has the old bundle, the new one
//! or none, and the server has each upload once. The node is this program itself, begun anew.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use super::*;

const HOME: &str = "IMPRINT_TEST_HOME";
const HOSTNAME: &str = "IMPRINT_TEST_HOSTNAME";
/// How the node ends when nobody has approved anything.
const WAITS: i32 = 33;
/// Nodes at a time, and how often each is killed.
const NODES: u64 = 4;
const KILLS: usize = 125;

/// How often it dies at each point at least.
const EACH: usize = 10;

/// Where it is killed, and how often it comes there at most. A boot that ends before it comes there is not killed.
const POINTS: [(&str, u64); 9] = [
    ("request", 5),
    ("answer", 5),
    ("made", 1),
    ("uploaded", 1),
    ("pending", 2),
    ("fetched", 1),
    ("tar", 1),
    ("staged", 1),
    ("nowhere", 1),
];

#[test]
#[ignore = "the node of the other test"]
fn node() {
    let home = std::env::var_os(HOME).map(PathBuf::from).unwrap();
    let polls = RefCell::new(0);
    let impatient = || {
        *polls.borrow_mut() += 1;
        if *polls.borrow() > 2 {
            std::process::exit(WAITS);
        }
    };
    let settings = settings(&std::env::var(HOSTNAME).unwrap());
    Node::read(&home).booted(Boot { settings, new: true, meanwhile: &impatient, ..Boot::default() });
}

#[derive(PartialEq, Eq)]
enum Ended {
    /// It has its bundle.
    Done,
    /// It waits for an approval.
    Waits,
    Killed,
}

/// One boot.
fn boot(home: &Path, hostname: &str, point: &str) -> Ended {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "loopback::stateless::kills::node"])
        .env(HOME, home)
        .env(HOSTNAME, hostname)
        .env("IMPRINT_CRASH", point)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    match (status.code(), status.signal()) {
        (Some(0), _) => Ended::Done,
        (Some(WAITS), _) => Ended::Waits,
        (_, Some(9)) => Ended::Killed,
        _ => panic!("{status} at {point}"),
    }
}

/// xorshift64*: the same kills every time.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }
}

#[test]
fn a_kill_leaves_the_old_bundle_or_the_new_one_or_none() {
    let mut deaths: BTreeMap<&str, usize> = BTreeMap::new();
    std::thread::scope(|scope| {
        let nodes: Vec<_> = (1..=NODES).map(|seed| scope.spawn(move || killed(Seeded(seed * 0x9e37_79b9)))).collect();
        for (point, died) in nodes.into_iter().flat_map(|node| node.join().unwrap()) {
            *deaths.entry(point).or_default() += died;
        }
    });
    println!("{deaths:?}");
    for (point, _) in POINTS {
        let least = if point == "nowhere" { 0 } else { EACH };
        let died = deaths.get(point).copied().unwrap_or(0);
        assert!(
            died >= least && (point != "nowhere" || died == 0),
            "{died} deaths at {point}, want {least}: {deaths:?}"
        );
    }
}

/// One node, killed again and again: how often it died at each point.
fn killed(mut random: Seeded) -> BTreeMap<&'static str, usize> {
    let site = Site::new("admin");
    let home = site.node().home;
    // What each version has in it.
    let mut versions: BTreeMap<u64, String> = BTreeMap::new();
    let mut deaths: BTreeMap<&'static str, usize> = BTreeMap::new();
    let (mut number, mut kills, mut boots) = (0, 0, 0);
    while kills < KILLS {
        let hostname = format!("h{number}");
        let (point, most) = POINTS[usize::try_from(random.below(9)).unwrap()];
        let place = format!("{point}:{}", random.below(most) + 1);
        boots += 1;
        let ended = boot(&home, &hostname, &place);
        if ended == Ended::Killed {
            kills += 1;
            *deaths.entry(point).or_default() += 1;
        }
        if random.below(3) == 0 && site.waiting().is_some() {
            site.approve();
        }
        // The server has this upload once at most, and it does not take the place of another.
        let rows = site.rows();
        assert!(rows.iter().filter(|row| row.state == BundleState::Pending).count() <= 1);
        let mut tags: Vec<_> = rows.iter().map(|row| row.tag.unwrap()).collect();
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), rows.len(), "an upload is there twice");
        for row in &rows {
            if let Some(counter) = row.counter {
                versions.entry(counter).or_insert_with(|| hostname.clone());
            }
        }
        // The folder has a whole version, or none.
        if let Some((description, in_it)) = found(&home.join("run")) {
            assert_eq!(versions.get(&description.counter), Some(&in_it), "{place}: half of one");
        }
        if ended == Ended::Done {
            assert_eq!(found(&home.join("run")).unwrap().1, hostname);
            number += 1;
            // A node may upload only so much an hour.
            site.ahead.fetch_add(3600, Ordering::SeqCst);
        }
    }
    // Nothing was lost: the last one comes through.
    let hostname = format!("h{number}");
    while boot(&home, &hostname, "nowhere") != Ended::Done {
        if site.waiting().is_some() {
            site.approve();
        }
    }
    assert_eq!(found(&home.join("run")).unwrap().1, hostname);
    assert_eq!(site.rows().len(), number + 1);
    println!("{kills} kills in {boots} boots, {} versions", number + 1);
    deaths
}
