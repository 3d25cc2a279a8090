//! Tests of odd certificates that CAs rarely issue: each is accepted, or refused with a message that names the oddity and
//! the remedy.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use imprint_tests::ca::{ca_params, tls_server};
use rcgen::{CertificateParams, DnType, DnValue, GeneralSubtree, KeyPair, NameConstraints, PublicKeyData};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;

use super::*;

/// Real bytes of `tests/data/tls`; `make.sh` there says where they come from.
fn data(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/data/tls/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn served(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Arc<ServerConfig> {
    tls_server(chain, key, &[&TLS13, &TLS12], WebPkiClientVerifier::no_client_auth())
}

/// A server with one of those certificates.
fn served_from(name: &str) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::from_pem_slice(&data(&format!("{name}.key"))).unwrap();
    served(vec![data(&format!("{name}.der"))], key.secret_der().to_vec())
}

/// What the console says, for a node that trusts this CA.
fn said(world: &World, ca: Vec<u8>, url: &str) -> String {
    let plan = Server { ca: CaCertificate::new(ca).unwrap(), ..world.server_plan(&[url.to_owned()]) };
    let error = world.run(&plan, PATIENCE, None, &mut |_| Reply::NothingMore).result.unwrap_err().to_string();
    let address = url.strip_prefix("https://").and_then(|rest| rest.split('/').next()).unwrap();
    error.replace(url, "URL").replace(address, "ADDRESS")
}

fn refused(ca: Vec<u8>, tls: Arc<ServerConfig>) -> String {
    let world = World::new();
    let server = EstServer::start(vec![tls], world.good(NOW));
    let text = said(&world, ca, &server.url());
    assert!(server.requests().is_empty(), "{text}");
    text
}

/// A key, and a server's certificate for it.
fn certified(ca: &Ca, change: impl Fn(&mut Leaf)) -> (Vec<u8>, Vec<u8>) {
    let (key, mut leaf) = (KeyPair::generate().unwrap(), Leaf::server(LOCALHOST, GOOD));
    change(&mut leaf);
    (ca.issue(&leaf, &key.subject_public_key_info()), key.serialize_der())
}

/// One node trusts all of them, but for what is odd.
#[test]
fn what_is_odd_about_a_servers_certificate_is_said_with_what_to_do() {
    let root = Ca::new("Root", GOOD);
    let below = |params: CertificateParams| root.below(params, KeyPair::generate().unwrap());
    let with = |ca: &Ca, change: &dyn Fn(&mut Leaf)| {
        let (leaf, key) = certified(ca, change);
        served(vec![leaf, ca.der()], key)
    };
    let mut constrained = ca_params("Constrained", GOOD);
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::OrganizationName, "Example");
    let permitted_subtrees = vec![GeneralSubtree::DirectoryName(name)];
    constrained.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    // Another certificate of the CA that has signed, with its name in another kind of string.
    let key = KeyPair::generate().unwrap();
    let other = below_with(&root, ca_params("Signer", GOOD), &key);
    let (leaf, leaf_key) = certified(&below_with(&root, printable("Signer"), &key), |_| ());
    let two_names = served(vec![leaf, other.der()], leaf_key);
    let lab = "CN=est server, for ip:127.0.0.1, from CN=Lab CA";
    let from = |ca: &str| format!("CN=est server, for ip:127.0.0.1, from CN={ca}");
    for (ca, tls, odd, certificate, remedy) in [
        (
            data("lab-ca.der"),
            served_from("sha1-server"),
            "\"CN=est server\" is signed with SHA-1 and ECDSA (1.2.840.10045.4.1), which is not accepted",
            lab.to_owned(),
            "have it issued again, signed with SHA-256 or better",
        ),
        (
            data("rsa1024-ca.der"),
            served_from("below-rsa1024-server"),
            "the key of \"CN=Small CA\" is RSA of 1024 bits, which is not accepted",
            from("Small CA"),
            "use a key of P-256, P-384, P-521, Ed25519 or RSA with 2048 to 8192 bits",
        ),
        (
            root.der(),
            with(&root, &|leaf| leaf.critical = vec![&[2, 5, 29, 32]]),
            "\"CN=est server\" has critical extensions that this program does not process: certificatePolicies (2.5.29.32)",
            from("Root"),
            "have the certificate issued without these extensions, or with them not critical",
        ),
        (
            root.der(),
            with(&root, &|leaf| leaf.critical = vec![&[1, 2, 3, 4], &[2, 5, 29, 36]]),
            "\"CN=est server\" has critical extensions that this program does not process: 1.2.3.4, policyConstraints \
             (2.5.29.36)",
            from("Root"),
            "have the certificate issued without these extensions, or with them not critical",
        ),
        (
            root.der(),
            with(&below(constrained), &|_| ()),
            "the CA \"CN=Constrained\" has name constraints of a kind that this program does not process, directory names for \
             example",
            from("Constrained"),
            "give the payload a CA without name constraints, or with constraints of DNS names and addresses alone",
        ),
        (
            root.der(),
            two_names,
            "the issuer of \"CN=est server\" is \"CN=Signer\", which reads like the name of that CA, but is encoded as \
             another kind of string",
            from("Signer"),
            "have it issued again, with the issuer's name encoded byte by byte as in that CA's certificate",
        ),
    ] {
        let want = format!(
            "fetching CA certificates and time from URL (ADDRESS): the server's certificate cannot be used: {odd} (the \
             server's certificate: {certificate}, valid 2029-01-01T00:00:00Z to 2039-12-30T00:00:00Z); {remedy}"
        );
        assert_eq!(refused(ca, tls), want);
    }
}

fn below_with(root: &Ca, params: CertificateParams, key: &KeyPair) -> Ca {
    root.below(params, KeyPair::try_from(key.serialize_der()).unwrap())
}

/// A CA whose name is a PrintableString; all others here have UTF8Strings.
fn printable(name: &str) -> CertificateParams {
    let mut params = ca_params(name, GOOD);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, DnValue::PrintableString(name.try_into().unwrap()));
    params
}

/// Its certificate is in order. Its key shows in the handshake only, and no TLS server of ours takes such a key.
#[test]
fn a_server_with_a_small_key_is_told_so() {
    let port = Reserved::new();
    let address = port.address().to_string();
    let folder = format!("{}/data/tls", env!("CARGO_MANIFEST_DIR"));
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", &address, "-www", "-cipher", "DEFAULT@SECLEVEL=0", "-certform", "DER"])
        .args(["-cert", &format!("{folder}/rsa1024-server.der"), "-key", &format!("{folder}/rsa1024-server.key")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl: apt-get install openssl");
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let accepts = lines.by_ref().map_while(Result::ok).any(|line| line == "ACCEPT");
    assert!(accepts, "it ended: {:?}", server.wait());
    let url = format!("https://{address}/.well-known/est");
    let text = said(&World::new(), data("lab-ca.der"), &url);
    // Ours to end.
    let _ = server.kill();
    let _ = server.wait();
    assert_eq!(
        text,
        "fetching CA certificates and time from URL (ADDRESS): the server's certificate cannot be used: the key of \
         \"CN=est server\" is RSA of 1024 bits, which is not accepted (the server's certificate: CN=est server, for \
         ip:127.0.0.1, from CN=Lab CA, valid 2029-01-01T00:00:00Z to 2039-12-30T00:00:00Z); use a key of P-256, P-384, \
         P-521, Ed25519 or RSA with 2048 to 8192 bits"
    );
}

/// What leads to another CA is for another node, however odd it is besides.
#[test]
fn a_certificate_of_another_ca_is_just_that() {
    let text = refused(Ca::new("Root", GOOD).der(), served_from("sha1-server"));
    assert!(text.contains("does not chain to this node's CA, \"CN=Root\""), "{text}");
}

#[test]
fn a_serial_number_of_36_octets_is_no_obstacle() {
    let mut world = World::new();
    world.issuers = vec![sha256(&world.root.der())];
    let server = EstServer::start(vec![served_from("serial36-server")], world.good(NOW));
    let plan =
        Server { ca: CaCertificate::new(data("issuer-string-ca.der")).unwrap(), ..world.server_plan(&[server.url()]) };
    world.run(&plan, PATIENCE, None, &mut |_| Reply::NothingMore).result.unwrap();
}

/// The CA was made anew with its old key, and its name is another kind of string now (RFC 5280 §7.1).
#[test]
fn a_ca_is_known_by_each_name_that_reads_like_its_own() {
    let mut world = World::new();
    let key = KeyPair::generate().unwrap();
    let copy = || KeyPair::try_from(key.serialize_der()).unwrap();
    let old = Ca::of(printable("Root"), copy());
    world.root = Ca::of(ca_params("Root", GOOD), copy());
    // For the server's certificate and for the one that is issued.
    world.signer = Arc::new(old.intermediate("Signer", GOOD));
    let server = EstServer::start(vec![world.tls()], world.good(NOW));
    assert_eq!(world.enroll(&server).unwrap().chain()[1], world.signer.der());
    // By another key the name is worth nothing.
    let stranger = Ca::of(printable("Root"), KeyPair::generate().unwrap());
    let tls = stranger.server(&Leaf::server(LOCALHOST, GOOD), &[&TLS13]);
    let server = EstServer::start(vec![tls], world.good(NOW));
    assert_eq!(world.refused(&server), (Step::Probe, Reason::OtherCa));
}

#[test]
fn what_is_odd_about_the_nodes_certificate_is_said_with_what_to_do() {
    let error = World::new().leaf_error(|leaf| leaf.critical = vec![&[2, 5, 29, 32]]);
    assert_eq!(
        error.to_string(),
        "the certificate cannot be used: \"CN=node1\" has critical extensions that this program does not process: \
         certificatePolicies (2.5.29.32); have the certificate issued without these extensions, or with them not \
         critical"
    );
    let error = World::new().leaf_error(|leaf| leaf.usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert_eq!(
        error.to_string(),
        "the certificate's extended key usages are 1.3.6.1.5.5.7.3.1, without clientAuth: the node could never renew \
         it, because it authenticates as a TLS client; have the CA add clientAuth"
    );
}

/// RFC 5280 §7.2: a CA may write a DNS name in other letters.
#[test]
fn letter_case_in_a_dns_name_is_no_difference() {
    let world = World::new();
    let leaf = Leaf { names: Leaf::node("", &["N1.Example", "NODE1.example"], FRESH).names, ..world.leaf() };
    let signer = Arc::clone(&world.signer);
    let server = EstServer::start(vec![world.tls()], world.issuing(NOW, move |spki| vec![signer.issue(&leaf, spki)]));
    world.enroll(&server).unwrap();
    // A name too many is one, in whatever letters.
    let error =
        World::new().leaf_error(|leaf| leaf.names = Leaf::node("", &["N1.Example", "NODE2.example"], FRESH).names);
    assert!(matches!(error, AnswerError::NameMissing { .. }), "{error}");
}
