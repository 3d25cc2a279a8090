use super::super::tests::{facts, refused, typical};
use super::super::{Plan, plan};
use super::*;
use crate::facts::Facts;
use crate::payload::{EstUrl, Payload};
use crate::site::PinFile;

const BUNDLE: &[u8] = include_bytes!("../../../tests/data/payload-bundle.cbor");
const SIGNERS: &[u8] = include_bytes!("../../../tests/data/site-signers");

fn payload() -> Payload {
    Payload::decode(BUNDLE).unwrap()
}

fn signers() -> Vec<Signer> {
    SitePin::parse(SIGNERS).unwrap().signers
}

fn pinned(cas: Vec<[u8; 32]>, signers: Vec<Signer>) -> Facts {
    Facts { site_pin: Some(SitePin { cas, signers, file: PinFile::Image }), ..facts() }
}

fn planned(payload: Payload, facts: &Facts) -> Plan {
    plan(payload, facts, Scope::Boot).unwrap()
}

/// The attack: whoever can write payloads names a signer of his own beside those of the image.
#[test]
fn the_signers_of_the_image_count_before_those_of_the_payload() {
    let [p256, ed25519]: [Signer; 2] = signers().try_into().unwrap();
    let bound = Payload {
        binding: Some(crate::payload::Binding { serial: Some("SN-1".to_owned()), ..Default::default() }),
        signers: vec![ed25519.clone()],
        ..payload()
    };
    let facts = pinned(vec![], vec![p256.clone()]);
    let bundle = planned(bound, &facts).bundle.unwrap();
    assert_eq!((bundle.signers, bundle.pinned), (vec![p256], true));
    // A pin that names CAs alone, and no pin: those of the payload.
    for facts in [pinned(vec![typical().ca.sha256()], vec![]), self::facts()] {
        let bundle = planned(Payload { signers: vec![ed25519.clone()], ..payload() }, &facts).bundle.unwrap();
        assert_eq!((bundle.signers, bundle.pinned), (vec![ed25519.clone()], false));
    }
}

/// The accident: a node takes a bundle that nobody signed.
#[test]
fn without_a_signer_there_is_no_plan() {
    let without = || Payload { signers: vec![], ..payload() };
    for facts in [facts(), pinned(vec![typical().ca.sha256()], vec![])] {
        assert_eq!(refused(without(), &facts), PlanError::BundleSigner);
        assert_eq!(crate::error::Error::from(PlanError::BundleSigner).stage(), ("plan", 13));
    }
    // Signers alone ask for nothing.
    assert_eq!(planned(Payload { bundle: None, ..payload() }, &facts()).bundle, None);
}

#[test]
fn a_bundle_needs_a_server_on_the_network() {
    let mut over_line = payload();
    let crate::payload::Enrolment::Csr(csr) = &mut over_line.enrolment else { panic!("it enrols with a CSR") };
    csr.urls = vec![EstUrl::Line];
    let line = crate::source::Origin::Line { name: "imprint.0".to_owned(), sealed: true };
    assert_eq!(refused(over_line, &Facts { origin: line, ..facts() }), PlanError::BundleOverLine);
}

/// The accident: a node of a deployed root takes its certificate and leaves its configuration, and looks complete.
#[test]
fn a_boot_without_an_initramfs_refuses_a_bundle() {
    assert_eq!(plan(payload(), &facts(), Scope::RealRoot).unwrap_err(), PlanError::BundleInRealRoot);
    assert!(plan(typical(), &facts(), Scope::RealRoot).unwrap().network.is_some(), "nothing else differs");
    // A running system that takes a certificate takes nothing else of its payload.
    let running = Facts { links: vec![], ..facts() };
    assert_eq!(plan(payload(), &running, Scope::CertificateOnly).unwrap().bundle, None);
}

#[test]
fn the_dry_run_shows_no_key() {
    let shown = planned(payload(), &facts()).to_string();
    let kids: Vec<String> = signers().iter().map(|signer| signer.kid().to_string()).collect();
    let want = format!(
        "\nbundle     key in the payload (not shown); counter 7 or higher; signed by {}, named by the payload\n",
        kids.join(" or ")
    );
    assert!(shown.contains(&want), "{shown}");
    let debug = format!("{:?}", planned(payload(), &facts()));
    assert!(!debug.contains("64, 65, 66"), "{debug}");
    let least = BundleTerms { key: BundleKey::Image(None), least: 0 };
    let shown = planned(Payload { bundle: Some(least), ..payload() }, &facts()).to_string();
    assert!(shown.contains("\nbundle     key in the image; signed by "), "{shown}");
}
