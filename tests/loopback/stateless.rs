//! Tests of a stateless node's bundle against imprint-host's server: fetched, made, uploaded, approved, denied. What waits in the
//! program returns at once here, and does what a person would do meanwhile.

mod asked;
mod kills;
mod lies;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use imprint::age::Identity;
use imprint::bundle::Bundle;
use imprint::bundle::answer::Stand;
use imprint::chain::chain;
use imprint::handover::staged::{self, Description};
use imprint::handover::{self, HandedOver};
use imprint::payload::signed::Signer;
use imprint::payload::{BundleKey, CaCertificate, EstUrl, HttpsUrl, NodeName, Payload};
use imprint::port::Place;
use imprint::retrieval::{Context, Hooks, Retrieval};
use imprint::run;
use imprint::setting::{Key, Settings};
use imprint::setup::SetupError;
use imprint::stateless::{Obtained, StatelessError, Wanted, obtain};
use imprint::time::{Clock, Deadline, Timestamp};
use imprint::tls::ClientCertificate;
use imprint_host::bundles::{self, Content, Source};
use imprint_host::compose::Options;
use imprint_host::enrol;
use imprint_host::est::Layout;
use imprint_host::serve::{Config, Server};
use imprint_host::state::State;
use imprint_host::store::{BundleRow, BundleState};
use imprint_host::x509::CrlReason;
use imprint_tests::patience::PATIENCE;
use imprint_tests::ports::Reserved;

/// A state directory with one node and a signer, and its server.
struct Site {
    dir: tempfile::TempDir,
    /// By how many seconds the server's clock is ahead.
    ahead: Arc<AtomicU64>,
    _server: Server,
    _port: Reserved,
}

impl Site {
    /// `approve`: who approves what the node makes.
    fn new(approve: &str) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let port = Reserved::new();
        let listen = port.address();
        let base = EstUrl::try_from(format!("https://{listen}/.well-known/est").as_str()).unwrap();
        let now = Timestamp::system();
        let mut state = State::init(&dir.path().join("state"), &[base], now).unwrap();
        let record = format!(
            "name = \"node1\"\nsubject = [\"CN=node1\"]\nbundle_key = \"payload\"\nbundle_approve = \"{approve}\"\n"
        );
        state.add_nodes(&[("node.toml".to_owned(), record)], false, now).unwrap();
        let ahead = Arc::new(AtomicU64::new(0));
        let seconds = Arc::clone(&ahead);
        let config = Config {
            dir: dir.path().join("state"),
            listen,
            metrics: None,
            doors: Vec::new(),
            layout: Layout::Wrapped,
            tell: Default::default(),
            clock: Arc::new(move || Timestamp::system().plus(Duration::from_secs(seconds.load(Ordering::SeqCst)))),
        };
        Site { _server: Server::start(config).unwrap(), dir, ahead, _port: port }
    }

    fn state(&self) -> State {
        State::open(&self.dir.path().join("state")).unwrap()
    }

    /// The node, which has its certificate.
    fn node(&self) -> Node {
        let made = self.state().payload("node1", &Options::default(), Timestamp::system()).unwrap();
        let home = self.dir.path().join("node1");
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("payload"), &*made.bytes).unwrap();
        run::enroll(Path::new("/"), &home.join("payload"), &home.join("id"), PATIENCE, None).unwrap();
        Node::read(&home)
    }

    fn rows(&self) -> Vec<BundleRow> {
        let mut state = self.state();
        let changes = state.store.changes().unwrap();
        changes.bundles("node1").unwrap()
    }

    /// The code of what waits.
    fn waiting(&self) -> Option<String> {
        self.rows().into_iter().find(|row| row.state == BundleState::Pending).map(|row| row.code)
    }

    fn approve(&self) {
        let code = self.waiting().expect("nothing waits");
        let now = Timestamp::system().plus(Duration::from_secs(self.ahead.load(Ordering::SeqCst)));
        bundles::approve(&mut self.state(), "node1", &code, now).unwrap();
    }

    /// An administrator makes a bundle.
    fn make(&self, hostname: &str) {
        let bundle = settings(hostname).bundle(NodeName::try_from("node1").unwrap(), 1).unwrap();
        let content = Content { units: bundle.units().to_vec(), entries: bundle.entries().to_vec() };
        bundles::make(&mut self.state(), "node1", Source::Content(content), &[], Timestamp::system()).unwrap();
    }
}

fn settings(hostname: &str) -> Settings {
    let mut settings = Settings::default();
    settings.add(Key::Hostname, hostname).unwrap();
    settings
}

/// A node with its certificate, and what its payload says of bundles.
struct Node {
    home: PathBuf,
    name: NodeName,
    url: HttpsUrl,
    ca: CaCertificate,
    client: ClientCertificate,
    identity: Identity,
    least: u64,
    signers: Vec<Signer>,
}

/// A run of a node.
struct Boot<'a> {
    settings: Settings,
    new: bool,
    timeout: Duration,
    approval: Option<Duration>,
    /// Called whenever the node waits.
    meanwhile: &'a dyn Fn(),
    /// Called with each line for the console.
    said: &'a dyn Fn(&str),
    repeat: Duration,
    /// Another server.
    other: Option<HttpsUrl>,
    consoles: &'a [Place],
}

impl Default for Boot<'_> {
    fn default() -> Self {
        Boot {
            settings: Settings::default(),
            new: false,
            timeout: PATIENCE,
            approval: None,
            meanwhile: &|| (),
            said: &|_| (),
            repeat: Duration::MAX,
            other: None,
            consoles: &[],
        }
    }
}

impl Node {
    fn read(home: &Path) -> Node {
        let payload = Payload::unwrapped(&std::fs::read(home.join("payload")).unwrap()).unwrap();
        let HandedOver { node, chain, ca, key } = handover::read(&home.join("id")).unwrap();
        let terms = payload.bundle.unwrap();
        let BundleKey::Payload(identity) = terms.key else { panic!("a key elsewhere") };
        let EstUrl::Https(url) = EstUrl::try_from(node.renewal.unwrap().urls[0].as_str()).unwrap() else { panic!() };
        Node {
            home: home.to_owned(),
            name: NodeName::try_from(node.name.unwrap().as_str()).unwrap(),
            url: url.for_bundles(),
            ca,
            client: ClientCertificate::new(&chain, key.expose()).unwrap(),
            identity,
            least: terms.least,
            signers: payload.signers,
        }
    }

    fn boot(&self, boot: Boot<'_>) -> Result<Obtained, StatelessError> {
        let context = Context {
            ca: &self.ca,
            client: &self.client,
            clock: Clock::starting_at(Timestamp::system()),
            user_agent: "imprint-tests",
        };
        let wanted = Wanted {
            root: Path::new("/"),
            node: &self.name,
            least: self.least,
            signers: &self.signers,
            identity: &self.identity,
            new: boot.new,
            settings: &boot.settings,
            consoles: boot.consoles,
            timeout: boot.timeout,
            approval: boot.approval,
            repeat: boot.repeat,
            say: boot.said,
        };
        let mut wait = |_: Deadline| {
            (boot.meanwhile)();
            Ok(())
        };
        let mut hooks = Hooks { wait: &mut wait, progress: &mut |_| () };
        obtain(&wanted, &mut Retrieval::new([self.url.clone()].into_iter().chain(boot.other), context), &mut hooks)
    }

    /// A boot that has its bundle, as the real root gets it.
    fn booted(&self, boot: Boot<'_>) -> (Description, String) {
        let obtained = self.boot(boot).map_err(|error| chain(&error)).unwrap();
        let folder = self.home.join("run");
        std::fs::create_dir_all(folder.join("private")).unwrap();
        obtained.stage(&folder).unwrap();
        found(&folder).unwrap()
    }
}

/// What waits for the real root: its description, and the host name in it.
fn found(folder: &Path) -> Option<(Description, String)> {
    let staged = staged::read(folder).unwrap()?;
    let bundle = Bundle::of_tar(staged::tar(folder, imprint::bundle::MAX_TAR).unwrap().expose()).unwrap();
    assert!(bundle.counter() <= staged.description.counter);
    Some((staged.description, hostname_in(&bundle)))
}

fn hostname_in(bundle: &Bundle) -> String {
    let entry = bundle.entries().iter().find(|entry| entry.path.as_str() == "etc/hostname").unwrap();
    let imprint::bundle::Content::File(text) = &entry.content else { panic!("no file") };
    String::from_utf8(text.expose().to_vec()).unwrap().trim().to_owned()
}

#[test]
fn a_node_without_settings_gets_what_an_administrator_has_made() {
    let site = Site::new("admin");
    site.make("one");
    let node = site.node();
    let (description, hostname) = node.booted(Boot::default());
    assert_eq!((description.counter, hostname.as_str()), (1, "one"));
    assert_eq!(description.url, node.url.to_string());
    // The next boot brings what was made meanwhile.
    site.make("two");
    let (description, hostname) = node.booted(Boot::default());
    assert_eq!((description.counter, hostname.as_str()), (2, "two"));
}

/// Door to root in one boot: made of the command line, uploaded, approved by a person while the node waits.
#[test]
fn a_node_makes_its_bundle_and_has_it_approved_in_one_boot() {
    let site = Site::new("admin");
    let node = site.node();
    let waits = RefCell::new(0);
    let (description, hostname) = node.booted(Boot {
        settings: settings("made"),
        meanwhile: &|| {
            *waits.borrow_mut() += 1;
            assert_eq!(site.waiting().is_some(), *waits.borrow() <= 3, "uploaded once, and waiting");
            if *waits.borrow() == 3 {
                site.approve();
            }
        },
        ..Boot::default()
    });
    assert_eq!((description.counter, hostname.as_str(), *waits.borrow()), (1, "made", 3));
    assert_eq!(description.code, site.rows()[0].code);
    // The second boot has the same words, and needs nobody.
    let (description, hostname) =
        node.booted(Boot { settings: settings("made"), meanwhile: &|| panic!("it waits"), ..Boot::default() });
    assert_eq!((description.counter, hostname.as_str(), site.rows().len()), (1, "made", 1));
}

#[test]
fn nobody_is_waited_for_where_the_record_says_so() {
    let site = Site::new("auto");
    let (description, hostname) = site.node().booted(Boot { settings: settings("auto"), ..Boot::default() });
    assert_eq!((description.counter, hostname.as_str()), (1, "auto"));
}

/// The accident: power comes back, and every boot uploads what waits already.
#[test]
fn a_reboot_storm_uploads_once() {
    let site = Site::new("admin");
    let node = site.node();
    for new in [false, true, false, true] {
        let approval = Some(Duration::ZERO);
        let lines = RefCell::new(Vec::new());
        let said = |line: &str| lines.borrow_mut().push(line.to_owned());
        let boot = Boot { settings: settings("storm"), new, approval, said: &said, ..Boot::default() };
        let error = node.boot(boot).err().unwrap();
        let code = site.waiting().unwrap();
        // The node computes its own code at each boot, and needs not believe the server.
        let want = format!("bundle {code} waits for approval at {}", node.url);
        assert!(lines.borrow().contains(&want), "{lines:?}");
        let want = format!(
            "nobody approved the bundle {code} within 0 s; run imprint-host bundle approve node1 {code}, then boot again, or allow \
             more time with imprint.approval-timeout"
        );
        assert_eq!((chain(&error), site.rows().len()), (want, 1));
    }
    let waits = RefCell::new(0);
    let meanwhile = || {
        *waits.borrow_mut() += 1;
        if *waits.borrow() == 2 {
            site.approve();
        }
    };
    let boot = Boot { settings: settings("storm"), meanwhile: &meanwhile, ..Boot::default() };
    assert_eq!((node.booted(boot).1.as_str(), site.rows().len()), ("storm", 1));
}

/// `imprint.bundle=new`: what is there is left alone, and stays in use until the new one is approved.
#[test]
fn a_new_bundle_is_made_beside_the_one_that_there_is() {
    let site = Site::new("admin");
    site.make("old");
    let node = site.node();
    let approval = Some(Duration::ZERO);
    let error = node.boot(Boot { settings: settings("new"), new: true, approval, ..Boot::default() }).err().unwrap();
    assert!(matches!(error, StatelessError::NotApproved { .. }), "{error:?}");
    // While it waits, another boot gets the old one.
    assert_eq!(node.booted(Boot::default()).1, "old");
    // Another one still is refused, and nothing is overwritten.
    let code = site.waiting().unwrap();
    let error = node.boot(Boot { settings: settings("third"), new: true, ..Boot::default() }).err().unwrap();
    assert!(matches!(&error, StatelessError::Occupied { .. }), "{error:?}");
    let text = chain(&error);
    assert!(
        text.starts_with(&format!("another bundle, {code}, waits for approval, so this one was not taken;")),
        "{text}"
    );
    assert_eq!((site.waiting(), site.rows().len()), (Some(code), 2));
    site.approve();
    let (description, hostname) = node.booted(Boot { settings: settings("new"), new: true, ..Boot::default() });
    assert_eq!((description.counter, hostname.as_str()), (2, "new"));
    // Told to make one: the server has none for this node until it has.
    bundles::renew(&mut site.state(), "node1", Timestamp::system()).unwrap();
    let approve = || {
        if site.waiting().is_some() {
            site.approve();
        }
    };
    let boot = Boot { settings: settings("renewed"), meanwhile: &approve, ..Boot::default() };
    assert_eq!(node.booted(boot).0.counter, 3);
}

/// Accident: other settings than those whose upload waits. The node does not wait for the old ones.
#[test]
fn other_settings_do_not_wait_for_those_that_wait_already() {
    let site = Site::new("admin");
    let node = site.node();
    let approval = Some(Duration::ZERO);
    node.boot(Boot { settings: settings("old"), approval, ..Boot::default() }).err().unwrap();
    let code = site.waiting().unwrap();
    let approve = || site.approve();
    let error = node.boot(Boot { settings: settings("new"), meanwhile: &approve, ..Boot::default() }).err().unwrap();
    let want = format!(
        "another bundle, {code}, waits for approval, so this one was not taken; ask an administrator to look at it (imprint-host \
         bundle diff node1), and to run: imprint-host bundle deny node1 {code}, or approve node1 {code}; then boot again or run \
         imprint console"
    );
    assert_eq!(chain(&error), want);
    // Without settings and without imprint.bundle=new, what waits is what the node is to have.
    let lines = RefCell::new(Vec::new());
    let said = |line: &str| lines.borrow_mut().push(line.to_owned());
    assert_eq!(node.booted(Boot { meanwhile: &approve, said: &said, ..Boot::default() }).1, "old");
    let lines = lines.borrow();
    let (first, second) = (&lines[0], &lines[1]);
    let want =
        format!("the server says that bundle {code} waits for approval at {}; this node did not make it", node.url);
    assert!(first.starts_with(&want), "{first}");
    let want = format!(
        "(imprint-host bundle diff node1), and run: imprint-host bundle deny node1 {code}, or approve node1 {code}"
    );
    assert!(second.ends_with(&want), "{second}");
}

/// Accident: a person has typed a new bundle in an earlier boot (`imprint.bundle=new`), and the power fails while it waits. The version
/// that there is hides what waits; without knowing of it, the node asks the person again, for answers that would be refused.
#[test]
fn what_waits_beside_a_version_is_neither_typed_nor_uploaded_again() {
    let asked = |new: bool, current: Option<u64>, site: &Site, node: &Node| {
        let lines = RefCell::new(Vec::new());
        let said = |line: &str| lines.borrow_mut().push(line.to_owned());
        // A dialogue would end as unanswered: there is no console.
        let boot = Boot { new, approval: Some(Duration::ZERO), said: &said, ..Boot::default() };
        let error = node.boot(boot).err().unwrap();
        let (lines, code) = (lines.into_inner(), site.waiting().unwrap());
        assert!(matches!(error, StatelessError::NotApproved { .. }), "{error:?}");
        let meanwhile = current.map(|counter| format!("; version {counter} stays what it is")).unwrap_or_default();
        let want = format!(
            "a new bundle waits for approval already, so no questions are asked{meanwhile}; to be asked, run imprint-host bundle deny \
             node1 {code} at the server, and boot again"
        );
        assert_eq!(lines.first() == Some(&want), new, "{lines:?}");
        let want = format!("the server says that bundle {code} waits for approval at {}; ", node.url);
        assert!(lines.iter().any(|line| line.starts_with(&want)), "{lines:?}");
    };
    let site = Site::new("admin");
    let node = site.node();
    let approval = Some(Duration::ZERO);
    node.boot(Boot { settings: settings("first"), approval, ..Boot::default() }).err().unwrap();
    asked(false, None, &site, &node);
    asked(true, None, &site, &node);
    site.approve();
    // The premise: what waits is not what the node is given.
    node.boot(Boot { settings: settings("second"), new: true, approval, ..Boot::default() }).err().unwrap();
    assert_eq!(node.booted(Boot::default()).1, "first");
    asked(true, Some(1), &site, &node);
    assert_eq!(site.rows().len(), 2, "nothing was uploaded again");
    // It is what comes once it is approved, and not the version before.
    let approve = || site.waiting().iter().for_each(|_| site.approve());
    let (description, hostname) = node.booted(Boot { new: true, meanwhile: &approve, ..Boot::default() });
    assert_eq!((description.counter, hostname.as_str()), (2, "second"));
    // A denial ends the wait, and the version is left alone.
    node.boot(Boot { settings: settings("third"), new: true, approval, ..Boot::default() }).err().unwrap();
    let deny = || {
        if let Some(code) = site.waiting() {
            bundles::deny(&mut site.state(), "node1", &code, Timestamp::system()).unwrap();
        }
    };
    let error = node.boot(Boot { new: true, meanwhile: &deny, ..Boot::default() }).err().unwrap();
    assert!(matches!(error, StatelessError::Denied { .. }), "{error:?}");
    // Now a person is asked.
    let approval = Some(Duration::from_millis(10));
    let error = node.boot(Boot { new: true, approval, ..Boot::default() }).err().unwrap();
    assert!(matches!(error, StatelessError::Setup(SetupError::Unanswered(_))), "{error:?}");
}

/// A denial stays: neither the same words nor an approval behind it bring the bundle.
#[test]
fn what_was_denied_is_not_asked_for_again() {
    let site = Site::new("admin");
    let node = site.node();
    let deny = || {
        if let Some(code) = site.waiting() {
            bundles::deny(&mut site.state(), "node1", &code, Timestamp::system()).unwrap();
        }
    };
    for _ in 0..2 {
        let boot = Boot { settings: settings("denied"), meanwhile: &deny, ..Boot::default() };
        let error = node.boot(boot).err().unwrap();
        let code = site.rows()[0].code.clone();
        assert!(matches!(&error, StatelessError::Denied { .. }), "{error:?}");
        assert!(chain(&error).starts_with(&format!("the bundle {code} was denied")), "{}", chain(&error));
        assert_eq!(site.rows().len(), 1);
        bundles::approve(&mut site.state(), "node1", &code, Timestamp::system()).expect_err("approved behind a denial");
    }
    // Other words are another bundle.
    let approve = || site.waiting().iter().for_each(|_| site.approve());
    let boot = Boot { settings: settings("better"), meanwhile: &approve, ..Boot::default() };
    assert_eq!(node.booted(boot).1, "better");
}

/// The accident: an administrator approves the wrong one, and removes it before the node has asked again.
#[test]
fn a_bundle_that_is_withdrawn_while_the_node_waits() {
    let site = Site::new("admin");
    let node = site.node();
    let withdraw = || {
        if site.waiting().is_some() {
            site.approve();
            bundles::remove(&mut site.state(), "node1", 1, Timestamp::system()).unwrap();
        }
    };
    let boot = Boot { settings: settings("wrong"), meanwhile: &withdraw, ..Boot::default() };
    let error = node.boot(boot).err().unwrap();
    assert!(matches!(error, StatelessError::Withdrawn(Stand::Removed)), "{error:?}");
    // Nothing that was removed comes back by itself; another one is made.
    let approve = || site.waiting().iter().for_each(|_| site.approve());
    let boot = Boot { settings: settings("right"), meanwhile: &approve, ..Boot::default() };
    let (description, hostname) = node.booted(boot);
    assert_eq!((description.counter, hostname.as_str()), (2, "right"));
}

/// Without settings and without a console there is nobody to ask; the node still takes what an administrator makes.
#[test]
fn nobody_is_there_to_be_asked() {
    let site = Site::new("admin");
    let approval = Some(Duration::from_millis(10));
    let error = site.node().boot(Boot { approval, ..Boot::default() }).err().unwrap();
    assert!(matches!(error, StatelessError::Setup(SetupError::Unanswered(_))), "{error:?}");
}

/// A server that was restored from an old backup, or somebody who has kept an old bundle.
#[test]
fn an_old_counter_is_a_rollback() {
    let site = Site::new("admin");
    site.make("one");
    let node = Node { least: 2, ..site.node() };
    let error = chain(&node.boot(Boot::default()).err().unwrap());
    let want = format!(
        "the bundle from {} is refused: the bundle has counter 1, and the payload wants at least 2; make a new version, with \
         imprint-host bundle rollback for old content",
        node.url
    );
    assert_eq!(error, want);
}

/// A node whose certificate was revoked gets nothing.
#[test]
fn a_revoked_certificate_gets_no_bundle() {
    let site = Site::new("admin");
    site.make("one");
    let node = site.node();
    assert_eq!(node.booted(Boot::default()).1, "one", "the premise");
    enrol::revoke(&mut site.state().store, "node1", None, CrlReason::Superseded, Timestamp::system()).unwrap();
    let error = chain(&node.boot(Boot::default()).err().unwrap());
    assert!(error.contains("the configuration server refuses this node: 403 "), "{error}");
}

/// Accident: a bundle that fits no root, on a thousand machines that stand at a prompt. The server has to know, or nobody does.
#[test]
fn a_bundle_that_cannot_be_laid_is_reported() {
    let site = Site::new("admin");
    site.make("one");
    let node = site.node();
    // The folder of the hand-over of this machine, whose root is nowhere.
    let machine = node.home.join("machine");
    std::fs::create_dir_all(machine.join("run")).unwrap();
    let folder = machine.join("run/imprint");
    std::fs::rename(node.home.join("id"), &folder).unwrap();
    node.boot(Boot::default()).map_err(|error| chain(&error)).unwrap().stage(&folder).unwrap();
    let error = run::apply(&machine, &machine.join("nowhere")).unwrap_err();
    let mut state = site.state();
    let row = state.store.changes().unwrap().available("node1").unwrap().expect("nothing was reported");
    assert_eq!((row.available, row.counter), (false, 1));
    assert_eq!(row.detail.as_deref(), std::error::Error::source(&error).map(chain).as_deref());
}
