mod links;
mod stacks;

use std::time::Duration;

use super::*;
use crate::confidential::Confidential;
use crate::dialogue::LineTime;
use crate::facts::{DeviceFacts, Dmi, LinkFacts};
use crate::line::{Challenge, Fresh};
use crate::medium::Medium;
use crate::options::CmdlineNetwork;
use crate::payload::{
    Binding, Credentials, DevicePath, DriverName, HardwareAddress, InterfaceName, Link, LinkKind, Match,
};
use crate::site::PinFile;
use crate::time::{Clock, since_boot};
use crate::tls::SKEW;

const TYPICAL: &[u8] = include_bytes!("../../tests/data/payload-typical.cbor");
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

pub(super) fn typical() -> Payload {
    Payload::decode(TYPICAL).unwrap()
}

fn eth(index: u32, last: u8) -> LinkFacts {
    let mut mac = MAC;
    mac[5] = last;
    LinkFacts {
        index,
        name: InterfaceName::try_from(format!("eth{}", index - 2).as_str()).unwrap(),
        mac: HardwareAddress::new(&mac),
        driver: Some(DriverName::try_from("virtio_net").unwrap()),
        controller: false,
        carrier: false,
        device: DeviceFacts::default(),
    }
}

fn medium(medium: Medium, place: &str) -> Origin {
    Origin::Medium { medium, place: place.into() }
}

pub(super) fn facts() -> Facts {
    Facts {
        fresh: None,
        now_at: Duration::ZERO,
        line_time: None,
        origin: medium(Medium::ConfigDrive, "sr0 (IMPRINT)"),
        site_pin: None,
        signed: SignedBy::Nobody,
        confidential: None,
        now: Timestamp::from_secs(1_795_400_060),
        links: vec![eth(2, 0x56)],
        dmi: Dmi { uuid: Some([7; 16]), serial: Some("SN-1".into()) },
        bootif: None,
        cmdline: CmdlineNetwork::default(),
    }
}

pub(super) fn refused(payload: Payload, facts: &Facts) -> PlanError {
    plan(payload, facts, Scope::Boot).unwrap_err()
}

#[test]
fn the_dry_run_of_a_typical_payload() {
    let plan = plan(typical(), &facts(), Scope::Boot).unwrap();
    assert_eq!(
        plan.to_string(),
        format!(
            "\
payload    000102030405060708090a0b0c0d0e0f from config-drive sr0 (IMPRINT)
trust      CN=imprint test root, sha256 {} (not pinned: anybody who can change the payload can choose the CA)
clock      plausible, kept until a server tells the time; credible from 2026-11-23T02:08:20Z to 2026-11-24T02:13:20Z
host name  node1
link       any with carrier (now: eth0)
address    192.0.2.10/24
route      0.0.0.0/0 via 192.0.2.1
dns        192.0.2.1
key        p256
names      CN=node1.example.org dns:node1.example.org
enrol      as node1 with a token for one enrolment
server     https://192.0.2.1:8443/.well-known/est
",
            hex::encode(&typical().ca.sha256())
        )
    );
    assert!(!format!("{plan:?}{plan}").contains("AAECAwQFBgcICQoLDA0ODw"), "the token is a secret");
}

#[test]
fn a_running_system_keeps_its_network_and_name() {
    let plan = plan(typical(), &Facts { links: vec![], ..facts() }, Scope::CertificateOnly).unwrap();
    assert_eq!((plan.network, plan.hostname), (None, None));
}

#[test]
fn the_clock_is_believed_inside_the_interval_only() {
    let (composed, expiry) = (typical().composed, typical().expiry);
    let day = std::time::Duration::from_secs(86_400);
    let ms = std::time::Duration::from_millis(1);
    // The host's clock may be fast.
    let floor = composed.minus(std::time::Duration::from_secs(300));
    for (now, quality) in [
        (floor, ClockQuality::Rtc),
        (composed, ClockQuality::Rtc),
        (expiry, ClockQuality::Rtc),
        (floor.minus(ms), ClockQuality::Unknown),
        (expiry.plus(ms), ClockQuality::Unknown),
        (composed.minus(7 * 365 * day), ClockQuality::Unknown),
        (composed.plus(2 * day), ClockQuality::Unknown),
    ] {
        let plan = plan(typical(), &Facts { now, ..facts() }, Scope::Boot).unwrap();
        assert_eq!(plan.clock, ClockPlan { floor, expiry, quality }, "{now}");
    }
}

/// The time that a host on a line tells.
fn told(at: Timestamp) -> Option<LineTime> {
    Some(LineTime::new(Clock::starting_at(at), std::time::Duration::from_millis(4)))
}

/// The line of the plan about the clock, and the one below it.
fn shown_clock(plan: &Plan) -> String {
    let text = plan.to_string();
    let lines = text.lines().skip_while(|line| !line.starts_with("clock "));
    lines.take_while(|line| !line.starts_with("host name ")).map(|line| format!("{line}\n")).collect()
}

/// Attack: a host on the line says that it is 2015, so that a server certificate that expired in 2016 is valid again.
#[test]
fn a_host_on_the_line_is_believed_inside_the_interval_only() {
    let (composed, expiry) = (typical().composed, typical().expiry);
    let (floor, minute) = (composed.minus(SKEW), std::time::Duration::from_secs(60));
    let origin = Origin::Line { name: "ttyS0".into(), sealed: true };
    let planned = |now: Timestamp, at: Timestamp| {
        plan(typical(), &Facts { now, line_time: told(at), origin: origin.clone(), ..facts() }, Scope::Boot)
    };
    for at in [floor.plus(minute), composed, expiry.minus(minute)] {
        let plan = planned(Timestamp::from_secs(0), at).unwrap();
        let ClockQuality::Line(time) = plan.clock.quality else { panic!("{at}: {:?}", plan.clock) };
        assert!(time.clock().now() >= at && plan.disbelieved.is_none());
        assert_eq!(
            shown_clock(&plan),
            "clock      set by the line; credible from 2026-11-23T02:08:20Z to 2026-11-24T02:13:20Z\n"
        );
    }
    // The node ignores the host's time: it uses its own clock if that is plausible, and asks a server.
    let in_2015 = Timestamp::from_secs(1_435_708_800);
    for at in [in_2015, Timestamp::from_secs(0), floor.minus(minute)] {
        for (now, quality) in [(facts().now, ClockQuality::Rtc), (in_2015, ClockQuality::Unknown)] {
            let plan = planned(now, at).unwrap();
            assert_eq!(plan.clock, ClockPlan { floor, expiry, quality });
            assert!(plan.disbelieved.is_some_and(|told| told >= at && told < at.plus(minute)));
        }
    }
    let plan = planned(facts().now, in_2015).unwrap();
    // The host's clock runs on during the test.
    let told = plan.disbelieved.unwrap();
    assert_eq!(
        shown_clock(&plan),
        format!(
            "clock      plausible, kept until a server tells the time; \
             credible from 2026-11-23T02:08:20Z to 2026-11-24T02:13:20Z\n\
             time       {told} by the line, ignored: it is before the payload was made\n"
        )
    );
    let plan = planned(in_2015, in_2015).unwrap();
    let told = plan.disbelieved.unwrap();
    assert_eq!(
        plan.clock_words(),
        format!(
            "unknown, set to 2026-11-23T02:08:20Z until a server tells the time; the host on the line says {told}, which \
             is before the payload was made and is ignored; correct the host's clock"
        )
    );
    let error = planned(facts().now, Timestamp::MAX).unwrap_err();
    assert_eq!(error, PlanError::ExpiredByLine { expiry, told: Timestamp::MAX });
    assert!(matches!(planned(facts().now, expiry.plus(minute)), Err(PlanError::ExpiredByLine { .. })));
}

/// No server is asked here. A host that is not believed must not make an expired payload valid again.
#[test]
fn a_host_that_is_not_believed_changes_nothing_for_certificate_and_key_in_the_payload() {
    let credentials = Credentials { chain: vec![vec![1]], key: Secret::new(vec![7]) };
    let payload = || Payload { enrolment: Enrolment::Credentials(credentials.clone()), ..typical() };
    let late = typical().expiry.plus(std::time::Duration::from_secs(60));
    let planned = |now, line_time| plan(payload(), &Facts { now, line_time, ..facts() }, Scope::Boot);
    let given = |now, line_time| match planned(now, line_time).unwrap().identity {
        IdentityPlan::Given(given) => given.now,
        IdentityPlan::Enrol { .. } => panic!("nothing to enrol"),
    };
    let early = told(Timestamp::from_secs(1_435_708_800));
    assert_eq!(given(facts().now, early), facts().now);
    assert_eq!(given(Timestamp::from_secs(0), early), typical().composed.minus(SKEW));
    assert_eq!(planned(late, early).unwrap_err(), PlanError::Expired { expiry: typical().expiry, now: late });
    // A host that is believed counts more than a system clock that is ahead.
    assert!(given(late, told(typical().composed)) >= typical().composed);
}

#[test]
fn a_seed_is_credited_only_when_it_is_fresh_for_this_boot() {
    let seed = |single_boot| Some(Seed { bytes: Secret::new(vec![1; 32]), single_boot });
    let bound = Some(Binding { uuid: Some([7; 16]), ..Default::default() });
    let file = Origin::File("/tmp/payload".into());
    for (seed, binding, origin, bits) in [
        (seed(true), bound.clone(), facts().origin, 256),
        (seed(false), bound.clone(), facts().origin, 0),
        (seed(true), None, facts().origin, 0),
        (seed(true), bound.clone(), file, 0),
        (seed(true), bound.clone(), medium(Medium::Cmdline, ""), 0),
        (seed(true), bound, medium(Medium::Initramfs, "/imprint/payload"), 0),
    ] {
        let plan = plan(Payload { seed, binding, ..typical() }, &Facts { origin, ..facts() }, Scope::Boot).unwrap();
        assert_eq!(plan.seed.unwrap().credit_bits, bits);
    }
}

/// The hypervisor of a confidential machine makes a drive, or answers on a line in the node's place, with a seed that it knows.
#[test]
fn a_seed_that_the_hypervisor_knows_is_not_credited() {
    let bound = Some(Binding { uuid: Some([7; 16]), ..Default::default() });
    let line = Origin::Line { name: "ttyS0".into(), sealed: true };
    for origin in [facts().origin, line] {
        for (confidential, bits) in [(None, 256), (Some(Confidential::SevSnp), 0), (Some(Confidential::Tdx), 0)] {
            let seed = Some(Seed { bytes: Secret::new(vec![7; 32]), single_boot: true });
            let payload = Payload { seed, binding: bound.clone(), ..typical() };
            let facts = Facts { origin: origin.clone(), confidential, ..facts() };
            let seed = plan(payload, &facts, Scope::Boot).unwrap().seed.unwrap();
            assert_eq!(seed.credit_bits, bits, "{origin}, {confidential:?}");
        }
    }
}

#[test]
fn a_payload_for_another_machine_is_refused_by_each_item() {
    let mac = HardwareAddress::new(&[2; 6]).unwrap();
    for (binding, item, want, have) in [
        (
            Binding { uuid: Some([8; 16]), ..Default::default() },
            "SMBIOS UUID",
            "08080808-0808-0808-0808-080808080808",
            "07070707-0707-0707-0707-070707070707",
        ),
        (Binding { serial: Some("SN-2".into()), ..Default::default() }, "serial number", "SN-2", "SN-1"),
        (Binding { macs: vec![mac], ..Default::default() }, "MAC address", "02:02:02:02:02:02", "52:54:00:12:34:56"),
    ] {
        let error = refused(Payload { binding: Some(binding), ..typical() }, &facts());
        assert_eq!(error, PlanError::OtherMachine { item, want: want.into(), have: have.into() });
    }
    let binding = Binding {
        uuid: Some([7; 16]),
        macs: vec![HardwareAddress::new(&[2; 6]).unwrap(), HardwareAddress::new(&MAC).unwrap()],
        serial: Some(" SN-1 ".into()),
    };
    assert_eq!(plan(Payload { binding: Some(binding), ..typical() }, &facts(), Scope::Boot).err(), None);
}

#[test]
fn the_site_pin_decides_about_the_ca() {
    let pinned = |digest| Facts {
        site_pin: Some(SitePin { cas: vec![[0; 32], digest], signers: Vec::new(), file: PinFile::Image }),
        ..facts()
    };
    assert!(plan(typical(), &pinned(typical().ca.sha256()), Scope::Boot).unwrap().pinned);
    let (subject, sha256) = ("CN=imprint test root".into(), typical().ca.sha256());
    assert_eq!(refused(typical(), &pinned([1; 32])), PlanError::NotThisSite { subject, sha256, file: PinFile::Image });
}

/// A signed payload must not be good for another node: it names its machine, or was signed for the node that asked.
#[test]
fn where_signatures_are_needed_a_payload_names_its_machine() {
    let pin = crate::site::SitePin::parse(include_bytes!("../../tests/data/site-signers")).unwrap();
    let kid = pin.signers[0].kid();
    let facts = |origin: &Origin, cas: &[[u8; 32]]| Facts {
        origin: origin.clone(),
        site_pin: Some(SitePin { cas: cas.to_vec(), ..pin.clone() }),
        signed: SignedBy::Signer(kid),
        ..facts()
    };
    let bound = |serial: &str| Payload {
        binding: Some(Binding { serial: Some(serial.to_owned()), ..Binding::default() }),
        ..typical()
    };
    let drive = medium(Medium::ConfigDrive, "sr0 (IMPRINT)");
    // Sent to another node once, it could be sent to this one, where nothing is sealed.
    let lines = [true, false].map(|sealed| Origin::Line { name: "ttyS0".into(), sealed });
    let files = [drive, medium(Medium::Cmdline, ""), medium(Medium::RootFile, "x"), Origin::File("x".into())];
    for origin in files.into_iter().chain(lines) {
        // Premise: without a signer in the pin the payload is accepted.
        let without = Facts { origin: origin.clone(), ..self::facts() };
        assert!(plan(typical(), &without, Scope::Boot).is_ok());
        assert_eq!(refused(typical(), &facts(&origin, &[])), PlanError::NotBound(origin.clone(), PinFile::Image));
        let error = refused(bound("SN-2"), &facts(&origin, &[]));
        assert!(matches!(error, PlanError::OtherMachine { item: "serial number", .. }), "{error}");
        // Any CA counts that the signer vouches for. If the pin names CAs, only those count.
        let plan = plan(bound("SN-1"), &facts(&origin, &[]), Scope::Boot).unwrap();
        let shown = plan.to_string();
        assert!(shown.contains(" (vouched for by the signer)\n"), "{shown}");
        assert!(shown.contains(&format!("\nsigned by  {kid}, a signer of the site pin\n")), "{shown}");
        let error = refused(bound("SN-1"), &facts(&origin, &[[1; 32]]));
        assert!(matches!(error, PlanError::NotThisSite { .. }), "{error}");
        let both = super::plan(bound("SN-1"), &facts(&origin, &[typical().ca.sha256()]), Scope::Boot).unwrap();
        assert!(both.pinned && both.to_string().contains(" (named by this image)\n"));
    }
    let line = Origin::Line { name: "ttyS0".into(), sealed: true };
    let asked = Facts { fresh: Some(fresh(10, 990, 1000)), now_at: Duration::from_secs(1000), ..facts(&line, &[]) };
    assert_eq!(plan(typical(), &asked, Scope::Boot).err(), None);
    // And if it names a machine, it is that of the node.
    assert!(matches!(refused(bound("SN-2"), &asked), PlanError::OtherMachine { .. }));
}

/// What boards of one kind have in common: a payload with it would be good for each of them.
#[test]
fn a_placeholder_names_no_machine() {
    let pin = crate::site::SitePin::parse(include_bytes!("../../tests/data/site-signers")).unwrap();
    let (mac, zeros) = (HardwareAddress::new(&MAC), HardwareAddress::new(&[0; 6]));
    let link = |mac: &Option<HardwareAddress>| LinkFacts { mac: mac.clone(), ..eth(2, 0x56) };
    let facts = || Facts {
        site_pin: Some(SitePin { cas: Vec::new(), ..pin.clone() }),
        signed: SignedBy::Signer(pin.signers[0].kid()),
        // Of the firmware of such a machine nothing is left.
        dmi: Dmi::default(),
        links: vec![link(&zeros), link(&mac)],
        ..facts()
    };
    let origin = self::facts().origin;
    let payload = |binding: &Binding| Payload { binding: Some(binding.clone()), ..typical() };
    for binding in [
        Binding { uuid: Some([0xff; 16]), ..Binding::default() },
        Binding { serial: Some("Default string".into()), ..Binding::default() },
        Binding { macs: zeros.iter().cloned().collect(), ..Binding::default() },
        Binding { uuid: Some([0xff; 16]), serial: Some("Default string".into()), macs: Vec::new() },
    ] {
        let error = refused(payload(&binding), &facts());
        assert_eq!(error, PlanError::NotBound(origin.clone(), PinFile::Image), "{binding:?}");
        // Without signers in the pin it fits no machine.
        let unpinned = Facts { site_pin: None, signed: SignedBy::Nobody, ..facts() };
        assert!(matches!(refused(payload(&binding), &unpinned), PlanError::OtherMachine { .. }), "{binding:?}");
        // Beside an item that names this machine, the machine is known.
        let named = Binding { macs: zeros.iter().chain(&mac).cloned().collect(), ..binding };
        assert_eq!(plan(payload(&named), &facts(), Scope::Boot).err(), None);
    }
}

/// A payload that came at `came`, for a challenge made at `made`, in seconds since boot; the host's HELLO does not matter.
fn fresh(hello: u8, made: u64, came: u64) -> Fresh {
    let [made, came] = [made, came].map(Duration::from_secs);
    Fresh { hello: [hello; 32], challenge: Challenge([7; 16]), made, came }
}

/// The signature was made between the challenge and the announcement, so now lies in an interval that nobody on the line can
/// move. A clock inside it stays. Attack: a host on the line tells another time.
#[test]
fn a_signature_for_a_challenge_tells_the_time() {
    let composed = typical().composed;
    let secs = Duration::from_secs;
    // The challenge was 30 s old, and that was 100 s ago.
    let ms = Duration::from_millis;
    let (low, high) = (composed.plus(secs(100)), composed.plus(secs(130) + ms(3)));
    let planned = |now: Timestamp, line_time| {
        // Times of a line run on while the test runs, and so does the interval.
        let now_at = since_boot();
        let came = now_at.saturating_sub(secs(100));
        let fresh = Fresh { made: came.saturating_sub(secs(30)), came, ..fresh(0, 0, 0) };
        let facts = Facts { fresh: Some(fresh), now, now_at, line_time, ..facts() };
        (plan(typical(), &facts, Scope::Boot).unwrap(), now_at)
    };
    for now in [low, composed.plus(secs(117)), high] {
        let (plan, now_at) = planned(now, None);
        let time = SignedTime { clock: Clock::at(now_at, now), bound: secs(30) + ms(3), own: true };
        assert_eq!(plan.clock.quality, ClockQuality::Signed(time));
        assert_eq!(plan.clock_words(), "confirmed by the signature of the payload, to within 30003.0 ms");
        assert!(shown_clock(&plan).starts_with("clock      confirmed by the signature, kept; credible from "));
    }
    for now in [low.minus(ms(1)), high.plus(ms(1)), Timestamp::from_secs(0), Timestamp::MAX, composed] {
        let (plan, now_at) = planned(now, None);
        let bound = Duration::from_micros(15_001_500);
        let time = SignedTime { clock: Clock::at(now_at, low.plus(bound)), bound, own: false };
        assert_eq!(plan.clock.quality, ClockQuality::Signed(time), "{now}");
        assert!(plan.clock_words().contains(" by the signature of the payload, to within 15001.5 ms"));
        assert!(shown_clock(&plan).starts_with("clock      set by the signature; credible from "));
    }
    // Premise: this host is believed about every other payload.
    let hour = composed.plus(secs(3600));
    let without = plan(typical(), &Facts { line_time: told(hour), ..facts() }, Scope::Boot).unwrap();
    assert!(matches!(without.clock.quality, ClockQuality::Line(_)));
    for at in [hour, composed, composed.minus(secs(60)), Timestamp::from_secs(0), Timestamp::MAX] {
        let (plan, _) = planned(low, told(at));
        assert!(matches!(plan.clock.quality, ClockQuality::Signed(SignedTime { own: true, .. })), "{at}");
        assert!(plan.disbelieved.is_some_and(|told| told >= at));
        assert!(plan.clock_words().ends_with(", which the signature contradicts, and which is ignored"));
        assert!(shown_clock(&plan).ends_with(" by the line, ignored: the signature contradicts it\n"));
    }
    // Inside it, and where its own error reaches into it.
    for (at, most) in [(low.plus(secs(7)), secs(8)), (low.minus(ms(3)), secs(1))] {
        let (plan, _) = planned(low, told(at));
        let ClockQuality::Line(time) = plan.clock.quality else { panic!("{at}: {:?}", plan.clock) };
        let off = time.clock().now().since(low);
        assert!(time.clock().now() >= low && off < most + secs(60), "{off:?}");
    }
}

/// Whoever delays a payload until it has expired gets no node to use it, whatever the machine's clock says.
#[test]
fn a_payload_that_was_signed_for_a_challenge_expires_by_that_time() {
    let (composed, expiry) = (typical().composed, typical().expiry);
    let life = expiry.since(composed);
    let at = |age: Duration| {
        let now_at = Duration::from_secs(1000) + age;
        let facts = Facts { fresh: Some(fresh(0, 990, 1000)), now: Timestamp::from_secs(0), now_at, ..facts() };
        plan(typical(), &facts, Scope::Boot).err()
    };
    assert_eq!(at(life), None);
    let told = expiry.plus(Duration::from_millis(1));
    assert_eq!(at(life + Duration::from_millis(1)), Some(PlanError::ExpiredByLine { expiry, told }));
}

#[test]
fn a_ca_that_is_never_valid_while_the_payload_is() {
    let (composed, expiry) = (Timestamp::from_secs(1_000_000_000), Timestamp::from_secs(1_000_086_400));
    let error = refused(Payload { composed, expiry, ..typical() }, &facts());
    let ca = typical().ca;
    let (not_before, not_after) = (ca.not_before(), ca.not_after());
    let subject = ca.subject().to_owned();
    assert_eq!(error, PlanError::CaValidity { subject, not_before, not_after, composed, expiry });
}

/// No server tells the time, so the clock of the machine counts.
#[test]
fn certificate_and_key_in_the_payload_need_no_server() {
    let ca = typical().ca.der().to_vec();
    let credentials = Credentials { chain: vec![ca.clone(), vec![1]], key: Secret::new(vec![7]) };
    let payload = || Payload { enrolment: Enrolment::Credentials(credentials.clone()), ..typical() };
    let planned = |now: Timestamp| plan(payload(), &Facts { now, ..facts() }, Scope::Boot);
    let given = |now: Timestamp| match planned(now).unwrap().identity {
        IdentityPlan::Given(given) => given,
        IdentityPlan::Enrol { .. } => panic!("nothing to enrol"),
    };
    let shown = planned(facts().now).unwrap().to_string();
    let (subject, from, to) = (typical().ca.subject().to_owned(), typical().ca.not_before(), typical().ca.not_after());
    let lines = format!(
        "key        in the payload (not shown)\ngiven      {subject}, from {subject}, valid {from} to {to}\ngiven      a \
         certificate that cannot be read\nenrol      no: certificate and key are in the payload\n"
    );
    assert!(shown.ends_with(&lines), "{shown}");
    assert!(shown.contains("\nclock      plausible, kept; credible from "), "{shown}");
    // The clock is inside the interval, before it, and after it.
    assert_eq!(given(facts().now).now, facts().now);
    assert_eq!(given(Timestamp::from_secs(0)).now, typical().composed.minus(SKEW));
    let late = typical().expiry.plus(std::time::Duration::from_millis(1));
    assert_eq!(planned(late).unwrap_err(), PlanError::Expired { expiry: typical().expiry, now: late });
}

/// A spent token that stays on a disk stops the next boot. If an each-boot token were removed, the next boot would have
/// no identity.
#[test]
fn a_payload_for_one_boot_is_removed_from_where_that_can_be_done() {
    let token = |mode| {
        let mut payload = typical();
        let Enrolment::Csr(csr) = &mut payload.enrolment else { panic!("no CSR") };
        match mode {
            Some(mode) => csr.token.as_mut().unwrap().mode = mode,
            None => csr.token = None,
        }
        payload
    };
    let spent = |payload: Payload, origin| {
        let plan = plan(payload, &Facts { origin, ..facts() }, Scope::Boot).unwrap();
        let removed = plan.to_string().lines().any(|line| line.starts_with("after that removed from "));
        assert_eq!(removed, plan.spent().is_some(), "{plan}");
        plan.spent()
    };
    let root_file = || medium(Medium::RootFile, "/etc/imprint/payload");
    assert_eq!(spent(token(Some(TokenMode::Once)), root_file()), Some(Medium::RootFile));
    assert_eq!(spent(token(None), root_file()), Some(Medium::RootFile));
    assert_eq!(spent(token(Some(TokenMode::EachBoot)), root_file()), None);
    assert_eq!(spent(typical(), medium(Medium::EfiVariable, "ImprintPayload")), Some(Medium::EfiVariable));
    for kept in [medium(Medium::ConfigDrive, "sr0"), medium(Medium::Initramfs, ""), Origin::File("x".into())] {
        assert_eq!(spent(typical(), kept), None);
    }
}

/// Attack: a payload of the site reaches a node that it was not made for, or reaches its node too late. The search goes on then, where
/// the plan would stop the boot; so both say the same.
#[test]
fn what_does_not_fit_this_machine_is_told_before_it_is_used() {
    let (dmi, macs) = (facts().dmi, [HardwareAddress::new(&MAC).unwrap()]);
    let bound = |binding: Binding| Payload { binding: Some(binding), ..typical() };
    let fits_at = |payload: &Payload, since| fits(payload, since, &dmi, &macs);
    let other = HardwareAddress::new(&[2, 0, 0, 0, 0, 9]).unwrap();
    for (binding, wrong) in [
        (Binding { serial: Some("SN-1".into()), ..Binding::default() }, None),
        (Binding { uuid: Some([7; 16]), macs: macs.to_vec(), ..Binding::default() }, None),
        (Binding { macs: vec![other.clone(), macs[0].clone()], ..Binding::default() }, None),
        (Binding { serial: Some("SN-2".into()), ..Binding::default() }, Some("serial number")),
        (Binding { uuid: Some([8; 16]), serial: Some("SN-1".into()), ..Binding::default() }, Some("SMBIOS UUID")),
        (Binding { macs: vec![other], serial: Some("SN-1".into()), ..Binding::default() }, Some("MAC address")),
    ] {
        let payload = bound(binding.clone());
        let item = |error| match error {
            PlanError::OtherMachine { item, .. } => item,
            error => panic!("{error}"),
        };
        assert_eq!(fits_at(&payload, Duration::ZERO).err().map(item), wrong, "{binding:?}");
        assert_eq!(plan(payload, &facts(), Scope::Boot).err().map(item), wrong, "{binding:?}");
    }
    let payload = typical();
    let life = payload.expiry.since(payload.composed);
    assert_eq!(fits_at(&payload, life), Ok(()));
    let late = fits_at(&payload, life + Duration::from_millis(1)).unwrap_err();
    assert!(matches!(late, PlanError::ExpiredByLine { .. }), "{late}");
}
