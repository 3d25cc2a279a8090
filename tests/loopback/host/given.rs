//! Tests of a payload that holds certificate and key: the agent asks no server.

use super::*;

/// A payload with certificate and key for a node, made by our host tool.
pub(super) fn with_credentials(site: &Site, node: &str) -> Payload {
    let options = Options { credentials: true, ..Options::default() };
    let made = site.state().payload(node, &options, Timestamp::system()).unwrap();
    Payload::unwrapped(&made.bytes).unwrap()
}

pub(super) fn enroll_with(site: &Site, payload: &Payload, out: &Path) -> Result<(), Error> {
    let file = site.file("given.cbor");
    std::fs::write(&file, &*payload.encode()).unwrap();
    run::enroll(Path::new("/"), &file, out, LIMIT, None)
}

#[test]
fn certificate_and_key_in_the_payload_need_no_server() {
    let record = |(_, key): &(KeyType, &str)| {
        format!("name = \"{key}\"\nsubject = [\"CN={key}\"]\nsans = [\"dns:{key}.example\"]\nkey = \"{key}\"\n")
    };
    let mut site = Site::new(&KeyType::ALL.iter().map(record).collect::<Vec<_>>());
    drop(site.server.take());
    for (_, key) in KeyType::ALL {
        let out = site.file(key);
        enroll_with(&site, &with_credentials(&site, key), &out).unwrap();
        let (certificate, private) = certified(&out);
        assert_eq!(certificate, private, "{key}");
        let output = Command::new("openssl")
            .args(["verify", "-purpose", "sslclient", "-CAfile"])
            .args([out.join("ca.pem"), PathBuf::from("-untrusted"), out.join("chain.pem"), out.join("cert.pem")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let status: Status = serde_json::from_str(&read(&out, "status.json")).unwrap();
        assert_eq!((status.outcome, status.enrolment), (Outcome::Done, Some(Enrolment::Credentials)));
        let steps: Vec<&str> = status.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(steps, ["source", "payload", "plan", "entropy", "identity", "hand-over"]);
        assert!(status.steps[4].detail.starts_with(&format!("CN={key} with {key} key ")), "{}", status.steps[4].detail);
        let node: imprint::status::Node = serde_json::from_str(&read(&out, "node.json")).unwrap();
        assert_eq!((node.name, node.renewal, Some(node.key_code)), (None, None, status.key_code));
        let (event, detail) = site.last();
        assert_eq!(event, "payload");
        assert!(detail.contains(&format!(", with certificate and key {}, until ", status_key(&out))), "{detail}");
        let error = chain(&renewed(&out, NEW_KEY).unwrap_err());
        assert!(error.contains("names no EST server, so this certificate cannot be renewed"), "{error}");
    }
}

fn status_key(out: &Path) -> String {
    serde_json::from_str::<Status>(&read(out, "status.json")).unwrap().key_code.unwrap()
}

#[test]
fn credentials_that_are_of_no_use_are_refused() {
    let mut site = Site::new(&[NODE1.to_owned()]);
    drop(site.server.take());
    let good = with_credentials(&site, "node1");
    let now = Timestamp::system().as_secs();
    let root = Ca::new("Root", (now - 1000, now + 1000));
    let seeded = Seeded::ready(Deadline::after(LIMIT)).unwrap();
    let key = || {
        let names = CertificateNames { dns: vec![DnsName::try_from("node1").unwrap()], ..Default::default() };
        Identity::generate(&SubjectPlan { names, key: KeyType::P256 }, &seeded).unwrap()
    };
    let refused = |change: &dyn Fn(&mut Payload, &mut Credentials)| {
        let mut payload = good.clone();
        let payload::Enrolment::Credentials(mut credentials) = payload.enrolment.clone() else { panic!("credentials") };
        change(&mut payload, &mut credentials);
        payload.enrolment = payload::Enrolment::Credentials(credentials);
        let out = site.file("refused");
        let error = enroll_with(&site, &payload, &out).unwrap_err();
        assert_eq!(error.stage(), ("identity", 17));
        // Nothing is handed over.
        let files: Vec<_> = contents(&out).into_iter().map(|(path, _)| path).collect();
        assert_eq!(files, [out.join(".lock"), out.join("status.json")]);
        chain(&error)
    };
    // A certificate by another CA, of this shape, with its own key.
    let issued = |shape: &dyn Fn(&mut Leaf)| {
        let mut leaf = Leaf::node("node1", &["node1"], (now - 60, now + 600));
        shape(&mut leaf);
        refused(&|payload, credentials| {
            let identity = key();
            payload.ca = CaCertificate::new(root.der()).unwrap();
            credentials.chain = vec![root.issue(&leaf, identity.spki())];
            credentials.key = identity.into();
        })
    };
    let says = |error: String, want: &str| assert!(error.contains(want), "{error}\nwants {want}");

    says(refused(&|_, given| given.key = key().into()), "the private key (code ");
    says(
        refused(&|_, given| given.key = Secret::new(vec![0x30, 0])),
        "the private key cannot be used: not PKCS#8 in DER",
    );
    says(refused(&|_, given| given.chain.rotate_left(1)), "the private key (code ");
    says(refused(&|_, given| given.chain[0].truncate(100)), "the certificate cannot be read");
    says(refused(&|_, given| given.chain.truncate(1)), "does not chain to this node's CA");
    says(
        refused(&|payload, _| payload.ca = CaCertificate::new(root.der()).unwrap()),
        "does not chain to this node's CA",
    );
    says(issued(&|leaf| leaf.ca = true), "the certificate is one of a CA");
    says(issued(&|leaf| leaf.usages = vec![ExtendedKeyUsagePurpose::ServerAuth]), "without clientAuth");
    says(issued(&|leaf| leaf.validity = (now - 600, now - 60)), "certificate valid from ");
    says(issued(&|leaf| leaf.validity = (now + 900, now + 1000)), "certificate valid from ");
    enroll_with(&site, &good, &site.file("fine")).unwrap();

    // By openssl: a key that is too weak, and one on another curve.
    for (arguments, want) in [
        (["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"], "refuses (TooSmall)"),
        (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"], "an unsupported elliptic curve, 1.3.132.0.35"),
    ] {
        let output = Command::new("openssl").arg("genpkey").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let key = imprint::pem::decode("PRIVATE KEY", &text).unwrap().remove(0).to_vec();
        says(refused(&|_, given| given.key = Secret::new(key.clone())), want);
    }
    // And those that openssl makes are as good as ours.
    let (pem, csr) = (site.file("openssl.pem"), site.file("openssl.csr"));
    let request = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes", "-subj", "/CN=x"];
    let made = Command::new("openssl")
        .args(request)
        .args(["-sha384", "-outform", "DER", "-keyout", pem.to_str().unwrap(), "-out", csr.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = std::fs::read_to_string(&pem).unwrap();
    let key = imprint::pem::decode("PRIVATE KEY", &text).unwrap().remove(0).to_vec();
    let leaf = root.issue(&Leaf::node("x", &[], (now - 60, now + 600)), &spki_of_csr(&std::fs::read(csr).unwrap()));
    let payload = Payload {
        ca: CaCertificate::new(root.der()).unwrap(),
        enrolment: payload::Enrolment::Credentials(Credentials { chain: vec![leaf], key: Secret::new(key) }),
        ..good.clone()
    };
    let out = site.file("openssl");
    enroll_with(&site, &payload, &out).unwrap();
    assert_eq!(read(&out, "private/key.pem"), text);
}
