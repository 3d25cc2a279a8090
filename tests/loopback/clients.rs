//! Tests of other people's EST clients against `imprint-host serve`, with the very commands of docs/est.md.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use imprint_tests::served::{Served, clients};

const RECORD: &str = "name = \"node1\"\nsubject = [\"CN=node1.example.org\", \"O=Example\"]\n\
                      sans = [\"dns:node1.example.org\"]\n";
const HOST: &str = "est.example.org:8443";

/// The commands below this heading.
fn commands(heading: &str) -> String {
    let page = include_str!("../../docs/est.md");
    let section = page.split_once(&format!("\n### {heading}\n")).unwrap().1;
    let block = section.split_once("\n```sh\n").unwrap().1.split_once("\n```\n").unwrap().0;
    assert!(block.contains(HOST), "{block}");
    block.to_owned()
}

/// A folder with what goes to a node.
fn node(served: &Served) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let userpass = folder.path().join("userpass");
    served.host(&["payload", "node1", "--as", "userpass", "-o", userpass.to_str().unwrap()]);
    std::fs::copy(served.root(), folder.path().join("root.pem")).unwrap();
    folder
}

/// Runs commands in the node's folder. What they say comes back.
fn run(served: &Served, folder: &Path, commands: &str, settings: &[(&str, &str)]) -> Output {
    let script = format!("set -euo pipefail\n{}", commands.replace(HOST, served.address()));
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(folder).envs(settings.iter().copied());
    let output = bash.output().unwrap();
    assert!(output.status.success(), "{}\n{}{}", script, text(&output.stdout), text(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn openssl(arguments: &[&str], files: &[&Path]) -> String {
    let output = Command::new("openssl").args(arguments).args(files).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The certificate is for the key, has the record's names, and leads to the root.
fn holds(served: &Served, folder: &Path, certificate: &str, key: &str) {
    let (certificate, key) = (folder.join(certificate), folder.join(key));
    let chain = ["verify", "-purpose", "sslclient", "-x509_strict", "-CAfile"];
    let intermediate = served.dir().join("intermediate.pem");
    openssl(&chain, &[&served.root(), Path::new("-untrusted"), &intermediate, &certificate]);
    let public = openssl(&["x509", "-noout", "-pubkey", "-in"], &[&certificate]);
    assert_eq!(public, openssl(&["pkey", "-pubout", "-in"], &[&key]));
    let names = openssl(&["x509", "-noout", "-subject", "-ext", "subjectAltName", "-in"], &[&certificate]);
    let want =
        "subject=CN = node1.example.org, O = Example\nX509v3 Subject Alternative Name: \n    DNS:node1.example.org\n";
    assert_eq!(names, want);
}

/// A first certificate, and another one with it.
fn enrolled(served: &Served, folder: &Path) {
    holds(served, folder, "cert.pem", "key.pem");
    holds(served, folder, "new-cert.pem", "new-key.pem");
    let log = served.host(&["--json", "log"]);
    let count = |event: &str| log.matches(&format!("\"event\":\"{event}\"")).count();
    assert_eq!((count("enrolled"), count("renewed")), (1, 1), "{log}");
}

#[test]
fn curl_and_openssl() {
    clients(&["curl", "openssl"]);
    for (version, setting) in [("TLSv1.2", "tls-max = 1.2\n"), ("TLSv1.3", "tlsv1.3\n")] {
        let served = Served::start(&[RECORD], &[]);
        let folder = node(&served);
        std::fs::write(folder.path().join(".curlrc"), format!("verbose\n{setting}")).unwrap();
        let home = folder.path().to_str().unwrap();
        let output = run(&served, folder.path(), &commands("curl and openssl"), &[("CURL_HOME", home)]);
        enrolled(&served, folder.path());
        let (said, attributes) = (text(&output.stderr), text(&output.stdout));
        let uses = said.lines().filter_map(|line| line.strip_prefix("* SSL connection using ")).collect::<Vec<_>>();
        assert!(uses.len() == 4 && uses.iter().all(|uses| uses.starts_with(version)), "{uses:?}");
        for want in [":id-ecPublicKey\n", ":prime256v1\n", ":ecdsa-with-SHA256\n"] {
            assert!(attributes.contains(want), "{attributes}");
        }
        // Root and intermediate.
        let authorities = std::fs::read_to_string(folder.path().join("cacerts.pem")).unwrap();
        assert_eq!(authorities.matches("BEGIN CERTIFICATE").count(), 2, "{authorities}");
    }
}

/// With a label, in chunks, DER as it is, behind an empty line (RFC 9112 §2.2): what clients send that nobody foresees.
#[test]
fn curl_and_openssl_with_forms_of_their_own() {
    clients(&["curl", "openssl"]);
    let served = Served::start(&[RECORD], &[]);
    let folder = node(&served);
    let chunked = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem \
                   -subj /CN=node1.example.org/O=Example -addext subjectAltName=DNS:node1.example.org -outform DER -out csr
                   ask() { curl -v -sSf --cacert root.pem --user \"$(cat userpass)\" -H 'Content-Type: application/pkcs10' \
                   -H \"$1\" --data-binary @\"$2\" https://est.example.org:8443/.well-known/est/nodes/simpleenroll; }
                   openssl base64 -in csr -out csr.b64
                   ask 'Transfer-Encoding: chunked' csr.b64 >first
                   ask 'Content-Transfer-Encoding: binary' csr >second
                   cmp first second
                   openssl base64 -d -in first | openssl pkcs7 -inform DER -print_certs -out cert.pem";
    let output = run(&served, folder.path(), chunked, &[]);
    assert!(text(&output.stderr).contains("\n> Transfer-Encoding: chunked\r\n"), "{}", text(&output.stderr));
    holds(&served, folder.path(), "cert.pem", "key.pem");

    let crlf =
        "printf '\\r\\n\\r\\nGET /.well-known/est/cacerts HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' |
                openssl s_client -quiet -verify_return_error -CAfile root.pem -connect est.example.org:8443";
    let output = run(&served, folder.path(), crlf, &[]);
    let answer = text(&output.stdout);
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/pkcs7-mime; smime-type=certs-only\r\n"),
        "{answer}"
    );
}

#[test]
fn strongswan() {
    // Without that plugin it has no elliptic curves.
    clients(&["openssl", "pki", "/usr/lib/ipsec/plugins/libstrongswan-openssl.so"]);
    let served = Served::start(&[RECORD], &["--base64", "one-line"]);
    let folder = node(&served);
    run(&served, folder.path(), &commands("strongSwan"), &[]);
    enrolled(&served, folder.path());
}

#[test]
fn bouncy_castle() {
    clients(&["openssl", "javac", "/usr/share/java/bcpkix.jar"]);
    for versions in ["TLSv1.2", "TLSv1.3"] {
        let served = Served::start(&[RECORD], &[]);
        let folder = node(&served);
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("java/Est.java");
        std::fs::copy(program, folder.path().join("Est.java")).unwrap();
        let options = format!("-Djdk.tls.client.protocols={versions}");
        let settings = [("JDK_JAVA_OPTIONS", options.as_str())];
        let output = run(&served, folder.path(), &commands("Bouncy Castle"), &settings);
        enrolled(&served, folder.path());
        let said = text(&output.stdout);
        let want = "csrattrs 1.2.840.10045.2.1\ncsrattrs 1.2.840.10045.4.3.2\n";
        assert!(said.starts_with(want), "{said}");
        let protocols = said.lines().filter_map(|line| line.strip_prefix("protocol "));
        assert_eq!(protocols.collect::<Vec<_>>(), [versions], "{said}");
    }
}
