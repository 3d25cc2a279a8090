//! One test body for every medium: what happens to a boot if the medium holds a payload, no payload, a broken payload,
//! a payload with the right or the wrong signature, a payload for another node, or a payload with a secret. A medium
//! without a row fails a test. The page about sources has the table of what each row has to do.

mod rows;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use imprint::chain::chain;
use imprint::confidential::Confidential;
use imprint::error::Error;
use imprint::facts::{Dmi, Facts, LinkFacts};
use imprint::medium::{Looked, MEDIA, Readers};
use imprint::options::Options;
use imprint::payload::signed::{self, AAD, Algorithm, Signed, Signer};
use imprint::payload::{
    Binding, DriverName, Enrolment, EnrolmentToken, HardwareAddress, InterfaceName, Payload, Seed, Token, TokenMode,
};
use imprint::plan::{self, Plan, Scope};
use imprint::secret::Secret;
use imprint::site;
use imprint::source::{self, Origin, Surroundings};
use imprint::time::Deadline;
use imprint_tests::programs;
use rcgen::{KeyPair, PublicKeyData, SigningKey};

use super::docs;
use rows::{Row, Scene, UNIT};

const TYPICAL: &[u8] = include_bytes!("../data/payload-typical.cbor");
const CREDENTIALS: &[u8] = include_bytes!("../data/payload-credentials.cbor");

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(120);
/// What the firmware and the processor say about a machine.
struct Machine {
    serial: &'static str,
    confidential: Option<Confidential>,
}

/// The machine that payloads are for.
const MACHINE: Machine = Machine { serial: "VM-0001", confidential: None };

macro_rules! rows {
    ($($test:ident $row:ident)*) => {
        const ROWS: &[&Row] = &[$(&rows::$row),*];
        $(#[test] fn $test() { every_column(&rows::$row); })*
    };
}

rows! {
    cmdline CMDLINE
    initramfs INITRAMFS
    credential_of_the_unit UNIT_CREDENTIAL
    credential_of_the_system SYSTEM_CREDENTIAL
    credential_of_systemd_stub BOOT_CREDENTIAL
    smbios SMBIOS
    fw_cfg FW_CFG_FILE
    credential_on_the_command_line CMDLINE_CREDENTIAL
    config_drive_iso DRIVE_ISO
    config_drive_fat DRIVE_FAT
    user_data_of_openstack OPENSTACK_USER_DATA
    vendor_data_of_openstack OPENSTACK_VENDOR_DATA
    user_data_of_nocloud NOCLOUD_USER_DATA
    partition PARTITION
    partition_with_fat PARTITION_FAT
    partition_of_an_mbr PARTITION_MBR
    partition_that_is_logical PARTITION_LOGICAL
    partition_with_iso PARTITION_ISO
    partition_with_user_data PARTITION_USER_DATA
    partition_with_vendor_data PARTITION_VENDOR_DATA
    partition_with_user_data_of_nocloud PARTITION_NOCLOUD
    efi_variable EFI_VARIABLE
    root_file ROOT_FILE
}

/// What the medium holds, and what the image asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    /// A payload for this machine. The medium is named if the agent would not look at it otherwise.
    Good,
    /// What other programs put there, without a payload.
    Absent,
    /// A payload, and neither the image nor the command line makes the agent look at the medium.
    Unnamed,
    /// The medium is there and cannot be read.
    Broken,
    /// The end of the payload is missing.
    Cut,
    /// The image names a signer, and this signer signed.
    Signed,
    /// The image names a signer, and another signer signed.
    WrongSigner,
    /// The image names a signer, and nobody signed.
    NotSigned,
    /// The image names a signer, who signed a payload that names no machine.
    NotBound,
    /// The image names a signer, who signed a payload for another machine.
    AnotherNodes,
    /// A payload with a private key.
    PrivateKey,
    /// A payload with a token for each boot.
    EachBoot,
    /// In a confidential virtual machine, in an image without a site pin.
    Confidential,
    /// In a confidential virtual machine, in an image that names a signer, who signed.
    ConfidentialSigned,
    /// The same with a private key.
    ConfidentialKey,
    /// The same with a token for each boot.
    ConfidentialEachBoot,
}

impl Column {
    /// The image names a signer.
    fn names_a_signer(self) -> bool {
        matches!(
            self,
            Column::Signed
                | Column::WrongSigner
                | Column::NotSigned
                | Column::NotBound
                | Column::AnotherNodes
                | Column::ConfidentialSigned
                | Column::ConfidentialKey
                | Column::ConfidentialEachBoot
        )
    }

    fn is_confidential(self) -> bool {
        matches!(
            self,
            Column::Confidential | Column::ConfidentialSigned | Column::ConfidentialKey | Column::ConfidentialEachBoot
        )
    }
}

/// What happens to the boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// The plan is made.
    Used,
    /// There is no payload, and none is needed.
    BootsOn,
    /// It stops with one of these exit codes.
    Stops(&'static [u8]),
}

const COLUMNS: [(Column, &str); 16] = [
    (Column::Good, "payload"),
    (Column::Absent, "none"),
    (Column::Unnamed, "not named, no site pin"),
    (Column::Broken, "broken medium"),
    (Column::Cut, "payload cut short"),
    (Column::Signed, "signed"),
    (Column::WrongSigner, "wrong signer"),
    (Column::NotSigned, "not signed"),
    (Column::NotBound, "no `bind`"),
    (Column::AnotherNodes, "another node's"),
    (Column::PrivateKey, "private key"),
    (Column::EachBoot, "`each-boot` token"),
    (Column::Confidential, "confidential machine, no site pin"),
    (Column::ConfidentialSigned, "confidential machine, signed"),
    (Column::ConfidentialKey, "there, private key"),
    (Column::ConfidentialEachBoot, "there, `each-boot` token"),
];

fn expected(row: &Row, column: Column) -> Verdict {
    match column {
        Column::Good | Column::Signed | Column::ConfidentialSigned => Verdict::Used,
        // The boot insists on a medium that is named.
        Column::Absent if row.looked == Looked::Named => Verdict::Stops(&[11]),
        Column::Unnamed if row.looked == Looked::Always => Verdict::Used,
        Column::Absent | Column::Unnamed => Verdict::BootsOn,
        Column::Broken => Verdict::Stops(&[11]),
        // On media that know where a payload ends the source is broken (11), and on others the payload is invalid (12).
        Column::Cut => Verdict::Stops(&[11, 12]),
        Column::WrongSigner | Column::NotSigned | Column::NotBound | Column::AnotherNodes => Verdict::Stops(&[13]),
        Column::PrivateKey | Column::EachBoot | Column::ConfidentialKey | Column::ConfidentialEachBoot
            if row.medium.row().readers == Readers::Everybody =>
        {
            Verdict::Stops(&[11])
        }
        // Whoever runs the machine may have written it, and has read it.
        Column::Confidential | Column::ConfidentialKey | Column::ConfidentialEachBoot
            if row.medium.row().of_hypervisor =>
        {
            Verdict::Stops(&[11])
        }
        Column::PrivateKey | Column::EachBoot => Verdict::Used,
        Column::Confidential | Column::ConfidentialKey | Column::ConfidentialEachBoot => Verdict::Used,
    }
}

/// The test body.
fn every_column(row: &Row) {
    for (column, _) in COLUMNS {
        let ours = Key::new();
        let mut scene = Scene::new();
        let bytes = content(column, &ours);
        match column {
            Column::Absent => (row.bare)(&mut scene),
            Column::Broken => (row.spoil)(&mut scene, &bytes),
            _ => (row.lay)(&mut scene, &bytes),
        }
        let name = format!("{}, {column:?}", row.name);
        // The attack or accident first: without the pin, or on an ordinary machine, the payload is used.
        match column {
            Column::WrongSigner | Column::NotSigned | Column::NotBound => used(row, &scene, &bytes, &MACHINE, &name),
            Column::AnotherNodes => {
                used(row, &scene, &bytes, &Machine { serial: "VM-0002", confidential: None }, &name)
            }
            _ if column.is_confidential() && row.medium.row().readers == Readers::Root => {
                used(row, &scene, &bytes, &MACHINE, &name);
            }
            _ => {}
        }
        // Where a pin has the medium looked at, so that it need not be named, others use the medium, too.
        if column.names_a_signer() || column == Column::Absent && row.looked == Looked::Pinned {
            scene.put("imprint/site", format!("{}\n", ours.signer));
        }
        let before = tree(scene.root());
        let machine = Machine { confidential: column.is_confidential().then_some(Confidential::SevSnp), ..MACHINE };
        let boot = boot(row, &scene, &machine, column != Column::Unnamed);
        match (expected(row, column), &boot.end) {
            (Verdict::Used, End::Plan(plan, payload)) => {
                is_the_payload(row, &boot, payload, &bytes, &name);
                assert_eq!(plan.signed.signer().is_some(), column.names_a_signer(), "{name}");
                if column.names_a_signer() {
                    assert_eq!(plan.signed.signer(), Some(ours.signer.kid()), "{name}");
                    assert!(plan.to_string().contains(&ours.signer.kid().to_string()), "{name}: {plan}");
                }
                let credited = plan.seed.as_ref().is_some_and(|seed| seed.credit_bits > 0);
                // Whoever runs a confidential machine knows what stands on the media that it supplies.
                let known = column.is_confidential() && row.medium.row().of_hypervisor;
                assert_eq!(credited, row.medium.row().credits_seed && !known, "{name}: {plan}");
            }
            (Verdict::BootsOn, End::Nothing(_)) => {}
            (Verdict::Stops(codes), End::Stopped(code, words)) if codes.contains(code) => match &boot.origin {
                Some(origin) => is_origin(row, origin, &name),
                None if column == Column::Absent => assert!(words.contains("no payload found (no "), "{name}: {words}"),
                None => assert!(words.contains(row.place), "{name}: no {} in {words}", row.place),
            },
            (want, _) => panic!("{name}: want {want:?}, but {:?}", boot.end),
        }
        assert!(tree(scene.root()) == before, "{name}: looking at it has changed it");
    }
}

/// Asserts that this machine uses the payload, with an image without a site pin.
fn used(row: &Row, scene: &Scene, bytes: &[u8], machine: &Machine, name: &str) {
    let boot = boot(row, scene, machine, true);
    let End::Plan(_, payload) = &boot.end else { panic!("{name}: not even without a pin: {:?}", boot.end) };
    is_the_payload(row, &boot, payload, bytes, name);
}

fn is_the_payload(row: &Row, boot: &Boot, payload: &Payload, bytes: &[u8], name: &str) {
    is_origin(row, boot.origin.as_ref().unwrap(), name);
    let bytes = if signed::is_signed(bytes) { Signed::decode(bytes).unwrap().payload } else { bytes };
    let want = Payload::decode(bytes).unwrap();
    assert!(*payload == want, "{name}: another payload");
}

fn is_origin(row: &Row, origin: &Origin, name: &str) {
    let Origin::Medium { medium, .. } = origin else { panic!("{name}: {origin}") };
    assert_eq!(*medium, row.medium, "{name}");
    // In the name of an EFI variable, the GUID follows the name.
    let shown = origin.to_string();
    assert!(shown == row.origin || shown.starts_with(&format!("{}-", row.origin)), "{name}: {shown}");
}

/// The key of a signer.
struct Key {
    pair: KeyPair,
    signer: Signer,
}

impl Key {
    fn new() -> Key {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let signer = Signer::new(Algorithm::EdDsa, &pair.subject_public_key_info()).unwrap();
        Key { pair, signer }
    }

    fn sign(&self, payload: &[u8]) -> Vec<u8> {
        let kid = self.signer.kid();
        let signature = self.pair.sign(&signed::to_be_signed(Algorithm::EdDsa, kid, AAD, payload)).unwrap();
        signed::encode(Algorithm::EdDsa, kid, payload, signature.as_slice().try_into().unwrap()).to_vec()
    }
}

/// What the medium holds.
fn content(column: Column, ours: &Key) -> Vec<u8> {
    let for_machine = |serial: &str| {
        let mut payload = Payload::decode(TYPICAL).unwrap();
        payload.binding = Some(Binding { serial: Some(serial.to_owned()), ..Binding::default() });
        // A payload for one boot that names its machine: only then may a node credit a seed from a medium.
        payload.seed = Some(Seed { bytes: Secret::new(vec![7; 32]), single_boot: true });
        payload
    };
    let here = for_machine(MACHINE.serial);
    let with_key = |payload: Payload| {
        let enrolment = Payload::decode(CREDENTIALS).unwrap().enrolment;
        Payload { enrolment, ..payload }.encode()
    };
    let with_token = |mut payload: Payload| {
        let Enrolment::Csr(csr) = &mut payload.enrolment else { panic!("it enrols with a CSR") };
        let secret = Token::try_from("AAECAwQFBgcICQoLDA0ODw".to_owned()).unwrap();
        csr.token = Some(EnrolmentToken { secret, mode: TokenMode::EachBoot });
        payload.encode()
    };
    match column {
        Column::Cut => here.encode()[..300].to_vec(),
        Column::Signed | Column::ConfidentialSigned => ours.sign(&here.encode()),
        Column::WrongSigner => Key::new().sign(&here.encode()),
        Column::NotBound => ours.sign(&Payload { binding: None, ..for_machine(MACHINE.serial) }.encode()),
        Column::AnotherNodes => ours.sign(&for_machine("VM-0002").encode()),
        Column::PrivateKey => with_key(here).to_vec(),
        Column::EachBoot => with_token(here).to_vec(),
        Column::ConfidentialKey => ours.sign(&with_key(here)),
        Column::ConfidentialEachBoot => ours.sign(&with_token(here)),
        Column::Good | Column::Absent | Column::Unnamed | Column::Broken | Column::NotSigned | Column::Confidential => {
            here.encode().to_vec()
        }
    }
}

/// A boot up to its plan.
struct Boot {
    /// Where the payload came from, if there was one.
    origin: Option<Origin>,
    end: End,
}

#[derive(Debug)]
enum End {
    Plan(Box<Plan>, Box<Payload>),
    /// No payload was found; where the boot looked for it.
    Nothing(#[expect(dead_code, reason = "for failures")] String),
    /// The boot stopped: the exit code, and the line on the console.
    Stopped(u8, String),
}

/// Boots up to the plan. `named`: `imprint.source=` names the medium if nothing else makes the agent look at it.
fn boot(row: &Row, scene: &Scene, machine: &Machine, named: bool) -> Boot {
    let mut origin = None;
    let end = story(row, scene, machine, named, &mut origin);
    let root = scene.root().display().to_string();
    // The root of the test is not that of a node.
    let origin = origin.map(|origin| match origin {
        Origin::Medium { medium, place } => {
            let place = place.as_str().replace(&root, "").as_str().into();
            Origin::Medium { medium, place }
        }
        other => other,
    });
    let end = end.unwrap_or_else(|error| End::Stopped(error.stage().1, chain(&error).replace(&root, "")));
    Boot { origin, end }
}

/// The steps of a boot, in the order of `run`.
fn story(row: &Row, scene: &Scene, machine: &Machine, named: bool, origin: &mut Option<Origin>) -> Result<End, Error> {
    let root = scene.root();
    let pin = site::pin(root)?;
    let mut words = scene.words.clone();
    let looked_at = row.looked == Looked::Always || row.looked == Looked::Pinned && pin.is_some();
    if named && !looked_at {
        words.push(format!("imprint.source={}", row.word));
    }
    let options = Options::parse(&words.join(" "))?;
    let (reader, unit) = (programs::agent(), root.join(UNIT));
    let around = Surroundings { root, reader: &reader, pinned: pin.is_some(), credentials: Some(&unit) };
    let present = source::at_once(&options, &around);
    let found = match source::find(&options, &around, present, None, Deadline::after(LONG), &mut |_| {})? {
        Ok(found) => found,
        Err(looked) => return Ok(End::Nothing(looked)),
    };
    *origin = Some(found.origin.clone());
    source::admitted(&found.origin, pin.is_some(), machine.confidential)?;
    let (payload, signed) = source::decode(&found, pin.as_ref(), machine.confidential)?;
    let link = LinkFacts {
        index: 2,
        name: InterfaceName::try_from("eth0").unwrap(),
        mac: HardwareAddress::new(&[0x52, 0x54, 0, 0x12, 0x34, 0x56]),
        driver: DriverName::try_from("virtio_net").ok(),
        controller: false,
        device: Default::default(),
        carrier: false,
    };
    let facts = Facts {
        origin: found.origin,
        site_pin: pin,
        signed,
        confidential: machine.confidential,
        now: payload.composed.plus(Duration::from_secs(60)),
        fresh: None,
        now_at: std::time::Duration::ZERO,
        line_time: None,
        links: vec![link],
        dmi: Dmi { uuid: None, serial: Some(machine.serial.to_owned()) },
        bootif: None,
        cmdline: Default::default(),
    };
    let plan = plan::plan(payload.clone(), &facts, Scope::Boot)?;
    Ok(End::Plan(Box::new(plan), Box::new(payload)))
}

/// Every file below the root with its content; links with their targets.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let content = match path.symlink_metadata().unwrap().file_type() {
                kind if kind.is_dir() => {
                    folders.push(path.clone());
                    Vec::new()
                }
                kind if kind.is_symlink() => path.read_link().unwrap().into_os_string().into_encoded_bytes(),
                _ => fs::read(&path).unwrap(),
            };
            found.insert(path, content);
        }
    }
    found
}

/// The accident: a medium is empty after the boot that used its payload, and the next boot stops because the medium is named.
/// `imprint=auto` beside the name lets it boot on; a medium that is broken still stops it.
#[test]
fn a_medium_that_is_named_with_auto_may_be_empty_and_not_broken() {
    for row in ROWS {
        for broken in [false, true] {
            let mut scene = Scene::new();
            match broken {
                true => (row.spoil)(&mut scene, &content(Column::Broken, &Key::new())),
                false => (row.bare)(&mut scene),
            }
            scene.words.push(format!("imprint=auto imprint.source={}", row.word));
            match (boot(row, &scene, &MACHINE, false).end, broken) {
                (End::Nothing(_), false) | (End::Stopped(11, _), true) => {}
                (end, _) => panic!("{}, broken: {broken}: {end:?}", row.name),
            }
        }
    }
}

/// The accident: somebody adds a medium, and nobody tests what the agent does with a payload for another node on it.
#[test]
fn every_medium_has_a_row() {
    for row in &MEDIA {
        let has_one = ROWS.iter().any(|known| known.medium == row.medium && known.looked == row.looked);
        assert!(has_one, "{:?} has no row in tests/pure/media/rows.rs, or is looked at in another case", row.medium);
    }
}

/// The table on the page says what the rows have to do.
#[test]
fn the_page_about_sources_has_the_table() {
    let cell = |row: &Row, column| match expected(row, column) {
        Verdict::Used => "used".to_owned(),
        Verdict::BootsOn => "boots on".to_owned(),
        Verdict::Stops(codes) => codes.iter().map(u8::to_string).collect::<Vec<_>>().join(" or "),
    };
    let heads: Vec<&str> = COLUMNS.iter().map(|(_, head)| *head).collect();
    let mut table = format!("| medium | {} |\n|{}\n", heads.join(" | "), "---|".repeat(COLUMNS.len() + 1));
    for row in ROWS {
        let cells: Vec<String> = COLUMNS.iter().map(|(column, _)| cell(row, *column)).collect();
        table += &format!("| {} | {} |\n", row.name, cells.join(" | "));
    }
    let page = docs::page("docs/sources.md");
    let text = docs::filled(&page.1, "<!-- tests/pure/media.rs -->", "<!-- end -->", &table);
    docs::is_current(page, &text);
}
