//! Tests of the program as people run it: exit codes, one line on standard error, files and their modes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use imprint::payload::Payload;

const URL: &str = "https://est.example.org:8443/.well-known/est";
/// One static address, one URL, a token: what the bar of 640 bytes is about.
const TYPICAL: &str = r#"
name = "node1"
subject = ["CN=node1.example.org"]
sans = ["dns:node1.example.org"]
hostname = "node1"

[[network]]
match = { mac = "52:54:00:12:34:56" }
addresses = ["192.0.2.10/24"]
routes = [{ to = "default", via = "192.0.2.1" }]
dns = ["192.0.2.53"]
"#;

fn host(dir: &Path, arguments: &[&str]) -> Output {
    let program = Command::new(env!("CARGO_BIN_EXE_imprint-host")).arg("--dir").arg(dir).args(arguments).output();
    program.unwrap()
}

fn fine(dir: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = host(dir, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Exit code and standard error.
fn fails(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let output = host(dir, arguments);
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A state with node1 in a temporary directory.
fn site() -> (tempfile::TempDir, std::path::PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    fine(&dir, &["init", "--url", URL]);
    let file = temp.path().join("node1.toml");
    std::fs::write(&file, TYPICAL).unwrap();
    fine(&dir, &["node", "add", file.to_str().unwrap()]);
    (temp, dir)
}

#[test]
fn certificate_and_key_in_a_payload() {
    let (temp, dir) = site();
    let file = temp.path().join("node1.cbor");
    let file = file.to_str().unwrap();
    // Refused where everybody can read it, and then nothing is booked.
    let (code, error) = fails(&dir, &["payload", "node1", "--credentials", "--as", "cmdline"]);
    assert_eq!(code, 1);
    assert!(error.starts_with("imprint-host: the payload on the kernel command line, which everybody on the node can read, holds a private key; "), "{error}");
    let log = || String::from_utf8(fine(&dir, &["log"])).unwrap();
    assert!(!log().contains("payload"), "{}", log());
    for form in ["cbor", "cpio", "iso"] {
        fine(&dir, &["payload", "node1", "--credentials", "--as", form, "-o", file]);
        assert_eq!(mode(Path::new(file)), 0o600);
        std::fs::remove_file(file).unwrap();
    }
    fine(&dir, &["payload", "node1", "--credentials", "-o", file]);
    let payload = Payload::unwrapped(&std::fs::read(file).unwrap()).unwrap();
    let shown = payload.to_string();
    assert!(shown.contains("\nkey        in the payload (not shown)\n") && !shown.contains("token"), "{shown}");
    let nodes = String::from_utf8(fine(&dir, &["nodes"])).unwrap();
    let code = log().lines().last().unwrap().split("with certificate and key ").nth(1).unwrap()[..19].to_owned();
    assert!(nodes.contains(&code) && nodes.contains("used "), "{nodes}");
}

/// For EST clients that read no payloads.
#[test]
fn name_and_token_on_a_line() {
    let (temp, dir) = site();
    let line = String::from_utf8(fine(&dir, &["payload", "node1", "--as", "userpass"])).unwrap();
    let token = line.strip_prefix("node1:").and_then(|rest| rest.strip_suffix('\n')).unwrap();
    assert_eq!((token.len(), token.contains(char::is_whitespace)), (22, false), "128 bits in base64url");
    let file = temp.path().join("userpass");
    fine(&dir, &["payload", "node1", "--as", "userpass", "-o", file.to_str().unwrap()]);
    assert_eq!(mode(&file), 0o600);
    let other = std::fs::read_to_string(file).unwrap();
    assert!(other.starts_with("node1:") && other != line);
    let (code, error) = fails(&dir, &["payload", "node1", "--as", "userpass", "--credentials"]);
    let want = "imprint-host: a payload with --credentials has no token; leave that out with --as userpass\n";
    assert_eq!((code, error.as_str()), (1, want));
}

#[test]
fn a_new_state_is_private() {
    let (_temp, dir) = site();
    assert_eq!(mode(&dir), 0o700);
    for (name, want) in [
        ("root.key", 0o600),
        ("signer.key", 0o600),
        ("intermediates", 0o700),
        ("imprint.db", 0o600),
        ("root.pem", 0o644),
        ("intermediate.pem", 0o644),
    ] {
        assert_eq!(mode(&dir.join(name)), want, "{name}");
    }
    // Key and certificate, named after the key.
    let mut files: Vec<std::path::PathBuf> =
        std::fs::read_dir(dir.join("intermediates")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.iter().map(|path| mode(path)).collect::<Vec<_>>(), [0o600, 0o644], "{files:?}");
    let text = |pem: &str| {
        let path = dir.join(pem);
        let output = Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(path).output();
        String::from_utf8(output.expect("openssl is missing: apt-get install openssl").stdout).unwrap()
    };
    let (root, intermediate) = (text("root.pem"), text("intermediate.pem"));
    let root_extensions = "Basic Constraints: critical\n                CA:TRUE\n            X509v3 Key Usage: \
                           critical\n                Certificate Sign, CRL Sign\n";
    assert!(root.contains(root_extensions), "{root}");
    assert!(intermediate.contains("CA:TRUE, pathlen:0\n"), "{intermediate}");
    assert!(intermediate.contains("Certificate Sign, CRL Sign\n"), "{intermediate}");
}

#[test]
fn a_root_key_that_is_offline_is_not_missed() {
    let (_temp, dir) = site();
    std::fs::remove_file(dir.join("root.key")).unwrap();
    let bytes = fine(&dir, &["payload", "node1"]);
    Payload::unwrapped(&bytes).unwrap();
}

#[test]
fn a_typical_payload_fits_a_kernel_command_line() {
    let (_temp, dir) = site();
    let unsigned = fine(&dir, &["payload", "node1", "--unsigned"]);
    let payload = Payload::decode(&unsigned).unwrap();
    println!("typical payload: {} bytes, {} of them the CA", unsigned.len(), payload.ca.der().len());
    assert!(unsigned.len() <= 640, "{} bytes", unsigned.len());
    let signed = fine(&dir, &["payload", "node1"]);
    println!("typical signed payload: {} bytes", signed.len());
    assert!(signed.len() <= 700, "{} bytes", signed.len());
    let payload = Payload::unwrapped(&signed).unwrap();
    assert_eq!(payload.seed, None);
    assert_eq!(payload.expiry, payload.composed.plus(std::time::Duration::from_secs(86_400)));
}

/// What an image that names these lines accepts: the key id of the signer, or the reason.
fn judged(bytes: &[u8], lines: &str) -> Result<Option<String>, String> {
    use imprint::source::{Found, Origin};
    let bytes = imprint::secret::Secret::new(bytes.to_vec());
    let found = Found { origin: Origin::File("x".into()), bytes, cut: false };
    let pin = imprint::site::SitePin::parse(lines.as_bytes()).unwrap();
    match imprint::source::decode(&found, Some(&pin)) {
        Ok((_, signed)) => Ok(signed.signer().map(|kid| kid.to_string())),
        Err(error) => Err(imprint::chain::chain(&imprint::error::Error::from(error))),
    }
}

/// The lines that `signer` prints, which are those of a site pin.
fn signers(dir: &Path) -> String {
    String::from_utf8(fine(dir, &["signer"])).unwrap()
}

/// Key id of a line, which is in its remark.
fn kid(line: &str) -> &str {
    let (_, remark) = line.split_once(" # ").unwrap();
    remark.split_once(", ").unwrap().0
}

/// A rotation in which no image refuses a payload on its way, and one at once.
#[test]
fn signers_come_and_go_with_an_overlap() {
    let (temp, dir) = site();
    let made = || fine(&dir, &["payload", "node1"]);
    let first = signers(&dir);
    assert_eq!((first.lines().count(), first.ends_with(", signs every payload\n")), (1, true), "{first}");
    let old = kid(first.trim_end()).to_owned();
    assert_eq!(judged(&made(), &first), Ok(Some(old.clone())));
    let error = judged(&fine(&dir, &["payload", "node1", "--unsigned"]), &first).unwrap_err();
    assert!(error.contains(&format!("names signers ({old})")), "{error}");
    let (code, error) = fails(&dir, &["signer", "new"]);
    let want = format!("imprint-host: {old} signs already; imprint-host signer rotate puts another one in its place\n");
    assert_eq!((code, error), (1, want));

    let before = made();
    let both = String::from_utf8(fine(&dir, &["signer", "rotate", "--announce"])).unwrap();
    assert_eq!(both, signers(&dir));
    let lines: Vec<&str> = both.lines().collect();
    assert!(lines.len() == 2 && format!("{}\n", lines[0]) == first && lines[1].contains(", announced: "), "{both}");
    let new = kid(lines[1]).to_owned();
    assert_eq!(judged(&made(), &both), Ok(Some(old.clone())), "the old one signs");
    let (code, error) = fails(&dir, &["signer", "rotate", "--announce"]);
    assert!(code == 1 && error.contains(&format!("{new} is announced already")), "{error}");
    let (code, error) = fails(&dir, &["signer", "retire", &old]);
    assert!(code == 1 && error.contains(&format!("{old} signs; ")), "{error}");

    fine(&dir, &["signer", "rotate"]);
    let after = made();
    assert_eq!(judged(&after, &both), Ok(Some(new.clone())));
    assert_eq!(judged(&before, &both), Ok(Some(old.clone())), "what is on its way");
    assert!(judged(&after, &first).unwrap_err().contains(&format!("is signed by {new}")));
    let listed = signers(&dir);
    assert!(listed.contains(&format!("# {old}, signed before; ")), "{listed}");
    for name in ["signer.key", "signers"] {
        assert_eq!(mode(&dir.join(name)), if name == "signers" { 0o644 } else { 0o600 });
    }
    assert!(!dir.join("signer-next.key").exists());

    // A copy of the state has them all.
    let copy = temp.path().join("copy");
    fine(&dir, &["backup", copy.to_str().unwrap()]);
    assert_eq!((signers(&copy), mode(&copy.join("signer.key"))), (listed, 0o600));
    fine(&dir, &["signer", "retire", &old]);
    assert_eq!(signers(&dir).lines().map(kid).collect::<Vec<_>>(), [new.as_str()]);
    let (code, error) = fails(&dir, &["signer", "retire", &old]);
    let want = format!("imprint-host: there is no signer {old}; imprint-host signer lists them\n");
    assert_eq!((code, error), (1, want));
    // At once, and what was announced is taken back.
    fine(&dir, &["signer", "rotate"]);
    let announced = String::from_utf8(fine(&dir, &["signer", "rotate", "--announce"])).unwrap();
    fine(&dir, &["signer", "retire", kid(announced.lines().nth(1).unwrap())]);
    assert_eq!(signers(&dir).lines().count(), 2);
    let log = String::from_utf8(fine(&dir, &["log"])).unwrap();
    for words in [
        format!("{new} is announced: signer p256 "),
        format!("{new} signs payloads from now on, {old} stays listed: signer p256 "),
        format!("{old} is retired: signer p256 "),
    ] {
        assert!(log.contains(&words), "{words}: {log}");
    }
    let json: serde_json::Value = serde_json::from_slice(&fine(&dir, &["--json", "signer"])).unwrap();
    let standings: Vec<_> = json["signers"].as_array().unwrap().iter().map(|one| one["standing"].clone()).collect();
    assert_eq!(standings, ["signs", "listed"]);
    let show = String::from_utf8(fine(&dir, &["show"])).unwrap();
    assert!(show.contains(&format!("signer         {new}, listed\n")), "{show}");
}

/// Keys of other people's programs; and a state directory that an earlier version made, which goes on as before.
#[test]
fn a_signer_may_be_given() {
    let (temp, dir) = site();
    std::fs::remove_file(dir.join("signer.key")).unwrap();
    Payload::decode(&fine(&dir, &["payload", "node1"])).unwrap();
    assert_eq!(signers(&dir), "# payloads are not signed; imprint-host signer new makes a key for that\n");
    let (code, error) = fails(&dir, &["signer", "rotate"]);
    assert!(code == 1 && error.contains("make one with imprint-host signer new"), "{error}");
    let key = |name: &str, words: &[&str]| {
        let file = temp.path().join(name);
        let made = Command::new("openssl").args(words).arg("-out").arg(&file).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        file.to_str().unwrap().to_owned()
    };
    let ed25519 = key("ed25519", &["genpkey", "-algorithm", "ed25519"]);
    let p256 = key("p256", &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let p384 = key("p384", &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    let sec1 = key("sec1", &["ecparam", "-name", "prime256v1", "-genkey"]);
    let empty = temp.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    for file in [&p384, &sec1, empty.to_str().unwrap()] {
        let (code, error) = fails(&dir, &["signer", "new", "--key", file]);
        let want = format!(
            "imprint-host: {file} is no key of a signer: want one private key on P-256 or Ed25519, in PEM (PKCS#8)\n"
        );
        assert_eq!((code, error), (1, want));
        assert!(!dir.join("signer.key").exists());
    }
    let (code, error) = fails(&dir, &["signer", "new", "--key", "/nowhere/key"]);
    assert!(code == 1 && error.starts_with("imprint-host: reading /nowhere/key"), "{error}");
    fine(&dir, &["signer", "new", "--key", &ed25519]);
    let lines = signers(&dir);
    assert!(lines.starts_with("signer ed25519 MCowBQYDK2VwAyEA"), "{lines}");
    assert_eq!(judged(&fine(&dir, &["payload", "node1"]), &lines), Ok(Some(kid(lines.trim_end()).to_owned())));
    assert_eq!(mode(&dir.join("signer.key")), 0o600);
    // The key of the pin is the one that OpenSSL knows.
    let public = Command::new("openssl").args(["pkey", "-pubout", "-in", &ed25519]).output().unwrap();
    let public = String::from_utf8(public.stdout).unwrap();
    assert_eq!(lines.split(' ').nth(2), public.lines().nth(1));
    let (code, error) = fails(&dir, &["signer", "rotate", "--key", &ed25519]);
    assert!(code == 1 && error.contains("signs already"), "{error}");
    let lines = String::from_utf8(fine(&dir, &["signer", "rotate", "--key", &p256])).unwrap();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert_eq!(
        judged(&fine(&dir, &["payload", "node1"]), &lines),
        Ok(Some(kid(lines.lines().next().unwrap()).to_owned()))
    );
}

#[test]
fn a_config_drive_has_a_seed_and_may_be_for_one_boot() {
    let (temp, dir) = site();
    let read = |arguments: &[&str]| {
        let form = if arguments.contains(&"--single-boot") { "vfat" } else { "iso" };
        let path = temp.path().join("drive");
        let fixed = ["payload", "node1", "--as", form, "-o", path.to_str().unwrap()];
        let said = String::from_utf8(fine(&dir, &[&fixed[..], arguments].concat())).unwrap();
        assert!(said.starts_with(&format!("wrote {}: ", path.display())), "{said}");
        assert_eq!(mode(&path), 0o600);
        let mut device = std::fs::File::open(&path).unwrap();
        let volume = imprint::source::volume::Volume::all(&mut device).unwrap().pop().unwrap();
        let found = volume.file(&mut device, &["imprint", "payload"], 65_536).unwrap().unwrap();
        Payload::unwrapped(found.expose()).unwrap()
    };
    let seed = read(&[]).seed.unwrap();
    assert_eq!((seed.bytes.expose().len(), seed.single_boot), (32, false));
    assert_eq!(read(&["--no-seed"]).seed, None);
    let (code, error) = fails(&dir, &["payload", "node1", "--single-boot"]);
    assert_eq!(code, 1);
    assert_eq!(
        error,
        "imprint-host: a single-boot payload must name its machine; add bind = { uuid = … } to the record of node1\n"
    );
    let file = temp.path().join("bound.toml");
    std::fs::write(&file, TYPICAL.replace("[[network]]", "[bind]\nserial = \"7\"\n[[network]]")).unwrap();
    fine(&dir, &["node", "add", "--replace", file.to_str().unwrap()]);
    let payload = read(&["--single-boot", "--expires", "30m"]);
    assert!(payload.seed.unwrap().single_boot);
    assert_eq!(payload.binding.unwrap().serial.as_deref(), Some("7"));
    assert_eq!(payload.expiry.as_secs() - payload.composed.as_secs(), 1800);
}

/// Adds or changes node1.
fn record(temp: &tempfile::TempDir, dir: &Path, text: &str) {
    let file = temp.path().join("changed.toml");
    std::fs::write(&file, text).unwrap();
    fine(dir, &["node", "add", "--replace", file.to_str().unwrap()]);
}

/// How many payloads the log tells of.
fn payloads_made(dir: &Path) -> usize {
    let log = String::from_utf8(fine(dir, &["log"])).unwrap();
    log.lines().filter(|line| line.contains(" payload ")).count()
}

#[test]
fn a_word_for_the_command_line_is_one_that_the_agent_reads() {
    let (_temp, dir) = site();
    let line = String::from_utf8(fine(&dir, &["payload", "node1", "--as", "cmdline"])).unwrap();
    assert!(line.starts_with("imprint.payload=") && line.ends_with('\n') && line.lines().count() == 1, "{line}");
    println!("typical word: {} characters", line.trim_end().len());
    assert!(line.len() <= 960, "{}", line.len());
    let options = imprint::options::Options::parse(&format!("quiet {line}")).unwrap();
    let found = imprint::source::cmdline::find(&options.payload.unwrap()).unwrap();
    let payload = imprint::source::decode(&found, None).unwrap().0;
    assert_eq!((payload.hostname.unwrap().as_str(), payload.seed), ("node1", None));
}

#[test]
fn what_may_not_stand_on_a_command_line_is_refused_before_it_voids_anything() {
    let (temp, dir) = site();
    let stateless = TYPICAL.replace("[[network]]", "enrol = \"each-boot\"\n[[network]]");
    record(&temp, &dir, &stateless);
    let (code, error) = fails(&dir, &["payload", "node1", "--as", "cmdline"]);
    assert_eq!(code, 1);
    assert_eq!(
        error,
        "imprint-host: the payload on the kernel command line, which everybody on the node can read, holds an each-boot \
         token; bring it in the initramfs or on a config drive (imprint-host payload NODE --as cpio or --as iso)\n"
    );
    let domains: Vec<String> = (0..25).map(|i| format!("\"d{i:02}.{}.example.org\"", "x".repeat(40))).collect();
    let long = |domains: &[String]| format!("{TYPICAL}search = [{}]\n", domains.join(", "));
    record(&temp, &dir, &long(&domains));
    let (code, error) = fails(&dir, &["payload", "node1", "--as", "cmdline"]);
    assert_eq!(code, 1);
    let words = "characters, and a kernel command line has 2047 in all; make the record shorter, or bring it in the \
                 initramfs or on a config drive (--as cpio or --as iso)\n";
    assert!(error.starts_with("imprint-host: a payload of ") && error.ends_with(words), "{error}");
    for form in ["cmdline", "cpio"] {
        let (code, error) = fails(&dir, &["payload", "node1", "--as", form, "--single-boot"]);
        assert_eq!(code, 1);
        assert!(error.contains("--single-boot"), "{error}");
    }
    assert_eq!(payloads_made(&dir), 0);
    // It fits, but little else does.
    record(&temp, &dir, &long(&domains[..14]));
    let output = host(&dir, &["payload", "node1", "--as", "cmdline"]);
    let (word, warning) = (output.stdout.len() - 1, String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{warning}");
    let want = format!(
        "imprint-host: warning: it takes {word} of the 2047 bytes of a kernel command line, which leaves {} for all \
         other words; --as cpio and --as iso have no such limit\n",
        2047 - word
    );
    assert_eq!(warning, want);
    assert_eq!(payloads_made(&dir), 1);
}

/// Forms for user data: the metadata service of a cloud gives it to every process of the instance.
#[test]
fn what_may_not_stand_in_user_data_is_refused_before_it_voids_anything() {
    let (temp, dir) = site();
    let clouds = "in user data or vendor data, which the metadata service of a cloud gives to everybody on the node,";
    let firmware = "in an EFI variable, which everybody on the node can read,";
    let refused = |words: &[&str], item: &str| {
        for (form, place) in [("user-data", clouds), ("multipart", clouds), ("efivar", firmware)] {
            let (code, error) = fails(&dir, &[&["payload", "node1", "--as", form, "-o", "/dev/null"], words].concat());
            let want = format!(
                "imprint-host: the payload {place} holds {item}; bring it in the initramfs or on a config drive (imprint-host \
                 payload NODE --as cpio or --as iso)\n"
            );
            assert_eq!((code, error), (1, want));
        }
    };
    refused(&["--credentials"], "a private key");
    record(&temp, &dir, &TYPICAL.replace("[[network]]", "enrol = \"each-boot\"\n[[network]]"));
    refused(&[], "an each-boot token");
    assert_eq!(payloads_made(&dir), 0);
    // Only root of the node can read the others.
    let file = temp.path().join("payload");
    for form in ["cpio", "iso", "vfat", "gpt", "credential", "smbios", "qemu"] {
        for more in [&[][..], &["--credentials"]] {
            let words = ["payload", "node1", "--as", form, "-o", file.to_str().unwrap()];
            fine(&dir, &[&words, more].concat());
            assert_eq!(mode(&file), 0o600, "{form}");
        }
    }
}

/// A seed is credited from media with `credits_seed` in their row, and from a line.
#[test]
fn a_medium_that_credits_no_seed_is_not_declared_single_boot() {
    let (temp, dir) = site();
    record(&temp, &dir, &TYPICAL.replace("[[network]]", "[bind]\nserial = \"7\"\n[[network]]"));
    let file = temp.path().join("payload");
    for (form, medium) in [
        ("text", "text"),
        ("cmdline", "cmdline"),
        ("cpio", "initramfs"),
        ("gpt", "partition"),
        ("credential", "credential"),
        ("smbios", "smbios"),
        ("qemu", "fw_cfg"),
        ("efivar", "efivar"),
        ("user-data", "user-data"),
        ("multipart", "user-data"),
    ] {
        let words = ["payload", "node1", "--as", form, "--single-boot", "-o", file.to_str().unwrap()];
        let want = format!(
            "imprint-host: no node credits a seed from {medium}, so --single-boot has no effect there; leave it out, or \
             write a config drive (--as iso)\n"
        );
        assert_eq!(fails(&dir, &words), (1, want), "{form}");
        assert!(!file.exists());
    }
    assert_eq!(payloads_made(&dir), 0);
}

/// The argument names the file, as everybody can read the arguments of QEMU.
#[test]
fn qemu_is_told_of_a_file() {
    let (temp, dir) = site();
    let words = |path: &Path| ["payload", "node1", "--as", "qemu", "-o", path.to_str().unwrap()].map(str::to_owned);
    let fails_for = |path: &Path| fails(&dir, &words(path).each_ref().map(String::as_str));
    let want = "imprint-host: --as qemu writes the payload to a file and prints an argument that names the file, because \
                every user of this machine can read QEMU's arguments; give -o FILE\n";
    assert_eq!(fails(&dir, &["payload", "node1", "--as", "qemu"]), (1, want.to_owned()));
    let fifo = temp.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Opening a FIFO waits for its reader.
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    for path in [Path::new("/dev/null"), &fifo] {
        let want = format!(
            "imprint-host: {} is not a file, and QEMU reads the payload from one; give -o FILE\n",
            path.display()
        );
        assert_eq!(fails_for(path), (1, want));
    }
    drop(reader);
    let odd = temp.path().join("a\tb");
    let (code, error) = fails_for(&odd);
    assert_eq!(code, 1);
    let want = " has characters that cannot be copied from a terminal into QEMU's arguments; give -o another name\n";
    assert!(error.ends_with(want) && !odd.exists(), "{error}");
    assert_eq!(payloads_made(&dir), 0);

    let name = |path: &Path| format!("name=opt/io.systemd.credentials/imprint.payload,file={}", path.display());
    let plain = temp.path().join("node1.cbor");
    let said = fine(&dir, &words(&plain).each_ref().map(String::as_str));
    assert_eq!(String::from_utf8(said).unwrap(), format!("-fw_cfg {}\n", name(&plain)));
    assert_eq!(mode(&plain), 0o600);
    Payload::unwrapped(&std::fs::read(&plain).unwrap()).unwrap();
    // A relative name is made a full one, and a comma is doubled.
    let mut program = Command::new(env!("CARGO_BIN_EXE_imprint-host"));
    program.current_dir(temp.path()).arg("--dir").arg(&dir).args(["--json", "payload", "node1", "--as", "qemu"]);
    let output = program.args(["-o", "a, b"]).output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["qemu"], serde_json::json!(["-fw_cfg", name(&temp.path().join("a,, b"))]));
    assert_eq!((&said["file"], payloads_made(&dir)), (&"a, b".into(), 2));
    let said: serde_json::Value =
        serde_json::from_slice(&fine(&dir, &["--json", "payload", "node1", "-o", plain.to_str().unwrap()])).unwrap();
    assert!(!said.as_object().unwrap().contains_key("qemu"), "{said}");
}

#[test]
fn a_text_that_its_medium_may_not_take_comes_with_a_warning() {
    let warned = |(temp, dir): &(tempfile::TempDir, std::path::PathBuf), form: &str| {
        let file = temp.path().join("payload");
        let output = host(dir, &["payload", "node1", "--as", form, "-o", file.to_str().unwrap()]);
        assert!(output.status.success());
        (std::fs::metadata(&file).unwrap().len(), String::from_utf8(output.stderr).unwrap())
    };
    let small = site();
    for form in ["smbios", "user-data", "multipart"] {
        assert_eq!(warned(&small, form).1, "", "{form}");
    }
    let large = site();
    let names: Vec<String> = (0..800).map(|i| format!("\"dns:d{i:03}.{}.example.org\"", "x".repeat(40))).collect();
    record(&large.0, &large.1, &TYPICAL.replace("[\"dns:node1.example.org\"]", &format!("[{}]", names.join(", "))));
    let (bytes, said) = warned(&large, "smbios");
    let want = format!(
        "imprint-host: warning: it takes {bytes} of the 65535 bytes that all SMBIOS structures of a machine have together, \
         unless their entry point is that of SMBIOS 3 (QEMU: -machine smbios-entry-point-type=64); --as qemu has no such \
         limit\n"
    );
    assert_eq!(said, want);
    for form in ["user-data", "multipart"] {
        let (bytes, said) = warned(&large, form);
        let want = format!(
            "imprint-host: warning: it has {bytes} bytes, and OpenStack takes 49149 bytes of user data, other clouds fewer; \
             --as iso has no such limit\n"
        );
        assert_eq!(said, want);
    }
}

#[test]
fn an_archive_for_the_initramfs_holds_the_payload_with_a_seed() {
    let (temp, dir) = site();
    let path = temp.path().join("node1.cpio");
    fine(&dir, &["payload", "node1", "--as", "cpio", "-o", path.to_str().unwrap()]);
    assert_eq!(mode(&path), 0o600);
    let root = temp.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let unpacked = Command::new("cpio")
        .args(["-id", "--quiet", "--no-preserve-owner"])
        .current_dir(&root)
        .stdin(std::fs::File::open(&path).unwrap())
        .status();
    assert!(unpacked.expect("cpio is missing: apt-get install cpio").success());
    let found = imprint::source::file::initramfs(&root).unwrap();
    let seed = imprint::source::decode(&found, None).unwrap().0.seed.unwrap();
    assert_eq!((seed.bytes.expose().len(), seed.single_boot), (32, false));
    // Stateless nodes get theirs this way.
    record(&temp, &dir, &TYPICAL.replace("[[network]]", "enrol = \"each-boot\"\n[[network]]"));
    fine(&dir, &["payload", "node1", "--as", "cpio", "-o", path.to_str().unwrap()]);
}

#[test]
fn each_payload_is_fresh() {
    let (_temp, dir) = site();
    let [a, b] = [(); 2].map(|()| fine(&dir, &["payload", "node1", "--seed"]));
    let (a, b) = (Payload::unwrapped(&a).unwrap(), Payload::unwrapped(&b).unwrap());
    assert_ne!(a.id, b.id);
    assert_ne!(a.seed, b.seed);
    assert_ne!(a.enrolment, b.enrolment, "another token");
}

#[test]
fn failures_are_one_line_with_a_remedy() {
    let (temp, dir) = site();
    let absent = temp.path().join("absent");
    let shown = |path: &Path| path.display().to_string();
    assert_eq!(
        fails(&absent, &["nodes"]),
        (1, format!("imprint-host: no CA in {}; make one with imprint-host init, or give its --dir\n", shown(&absent)))
    );
    let (code, error) = fails(&dir, &["init", "--url", URL]);
    assert_eq!(code, 1);
    assert!(error.starts_with(&format!("imprint-host: {} holds ", shown(&dir))), "{error}");
    assert!(error.ends_with("; nothing is overwritten, give an empty directory\n"), "{error}");
    assert_eq!(
        fails(&dir, &["payload", "node9"]),
        (1, "imprint-host: there is no node node9; imprint-host nodes lists them, node add makes one\n".to_owned())
    );
    let node1 = shown(&temp.path().join("node1.toml"));
    assert_eq!(
        fails(&dir, &["node", "add", &node1]),
        (1, "imprint-host: there is a node node1 already; give its record another name, or use --replace\n".to_owned())
    );
    assert_eq!(
        fails(&dir, &["node", "add", "--replace", &node1, &node1]),
        (1, format!("imprint-host: {node1}: name: node1 is in another file, too; give each its own\n"))
    );
    let nowhere = shown(&absent.join("x.toml"));
    assert_eq!(
        fails(&dir, &["node", "add", &nowhere]),
        (1, format!("imprint-host: reading {nowhere}: No such file or directory (os error 2)\n"))
    );
    let (code, error) = fails(&dir, &["payload", "node1", "-o", &nowhere]);
    assert_eq!(code, 1);
    let folder = shown(&absent);
    assert_eq!(error, format!("imprint-host: finding {folder}: No such file or directory (os error 2)\n"));
    // Neither a payload nor a file is left of what failed.
    let files = || std::fs::read_dir(temp.path()).unwrap().count();
    let before = files();
    let (code, _) = fails(&dir, &["payload", "node9", "-o", &shown(&temp.path().join("x"))]);
    assert_eq!((code, files()), (1, before));
    let log = String::from_utf8(fine(&dir, &["log"])).unwrap();
    assert!(!log.contains(" payload "), "{log}");
}

#[test]
fn usage_errors_are_2() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    for arguments in [
        &["init"][..],
        &["init", "--url", "http://est.example.org/.well-known/est"],
        &["payload", "node1", "--as", "floppy"],
        &["payload", "node1", "--expires", "soon"],
        &["payload", "node1", "--seed", "--no-seed"],
        &["serve", "--listen", "everywhere"],
        &["inject", "node1", "--line", "unix:/run/line", "--window", "18446744073709551615s"],
        &["inject", "node1", "--line", "unix:/run/line", "--timeout", "31d"],
        &["inject", "node1", "--line", "unix:/run/line", "--power", " "],
        &["inject", "node1", "--line", "unix:/run/line", "--power-every", "often"],
        &["inject", "node1", "--line", "unix:/run/line", "--power-at-once", "0"],
        &["payload", "node1", "--overwrite", "/dev/sdx"],
        &["frobnicate"],
        &[],
    ] {
        assert_eq!(fails(&dir, arguments).0, 2, "{arguments:?}");
    }
    let (_, error) = fails(&dir, &["init", "--url", "http://est.example.org/.well-known/est"]);
    assert!(error.contains("is not an https:// URL; EST is spoken over TLS only"), "{error}");
    let (_, error) = fails(&dir, &["inject", "node1", "--line", "unix:/run/line", "--window", "31d"]);
    assert!(error.contains("want 30d at most"), "{error}");
    assert!(!dir.exists());
}

#[test]
fn a_file_of_lines_without_a_line_is_an_error() {
    let (temp, dir) = site();
    let lines = temp.path().join("lines");
    std::fs::write(&lines, "# rack 1 follows\n").unwrap();
    let (code, error) = fails(&dir, &["inject", "--lines", lines.to_str().unwrap()]);
    let want = format!(
        "imprint-host: {}:1: there is no line in it; want [[line]] with node = \"NODE\" and line = \"LINE\", or NODE LINE\n",
        lines.display()
    );
    assert_eq!((code, error), (1, want));
}

#[test]
fn one_bad_record_adds_none() {
    let (temp, dir) = site();
    let (good, bad) = (temp.path().join("good.toml"), temp.path().join("bad.toml"));
    std::fs::write(&good, "name = \"node2\"\nsubject = [\"CN=node2\"]\n").unwrap();
    std::fs::write(&bad, "name = \"node3\"\nsubjcet = [\"CN=node3\"]\n").unwrap();
    let (code, error) = fails(&dir, &["node", "add", good.to_str().unwrap(), bad.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert_eq!(error, format!("imprint-host: {}:2: subjcet: unknown key; did you mean subject?\n", bad.display()));
    let listed: serde_json::Value = serde_json::from_slice(&fine(&dir, &["nodes", "--json"])).unwrap();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["node1"]);
    assert_eq!(listed[0]["enrol"], "once");
    assert_eq!(listed[0]["certificate"], serde_json::Value::Null);
}

#[test]
fn the_log_tells_what_was_done() {
    let (_temp, dir) = site();
    fine(&dir, &["payload", "node1"]);
    let rows: serde_json::Value = serde_json::from_slice(&fine(&dir, &["log", "--json"])).unwrap();
    let events: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["init", "node", "payload"]);
    let text = String::from_utf8(fine(&dir, &["log", "--last", "1"])).unwrap();
    assert_eq!(text.lines().count(), 1);
    // Who it was, as far as a test can know that, too.
    let who = rows[2]["by"].as_str().unwrap();
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    assert!(who.contains(&format!("uid {uid}")), "{who}");
    assert!(text.contains(&format!(" payload  node1 by {who}: payload ")), "{text}");
}

/// A server in a storm writes all the time. Those who only look waited for the same lock, and gave up in the end.
#[test]
fn nodes_and_log_answer_while_somebody_writes() {
    let (_temp, dir) = site();
    let writer = rusqlite::Connection::open(dir.join("imprint.db")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(String::from_utf8(fine(&dir, &["nodes"])).unwrap().contains("node1"));
    assert!(String::from_utf8(fine(&dir, &["log"])).unwrap().contains(" init "));
    writer.execute_batch("COMMIT").unwrap();
}

#[test]
fn what_nobody_asked_for_cannot_be_decided() {
    let (_temp, dir) = site();
    let nothing = "imprint-host: no request of node1 waits; a request is forgotten a day after the node last asked\n";
    assert_eq!(fails(&dir, &["approve", "node1", "7K3M-Q0ZT-N4V8-XW1C"]), (1, nothing.to_owned()));
    assert_eq!(fails(&dir, &["deny", "node1"]), (1, nothing.to_owned()));
}

/// A copy that was made while the server works is a state directory: nodes go on with it.
#[test]
fn a_backup_is_a_state_directory() {
    let (temp, dir) = site();
    let payload = temp.path().join("payload");
    fine(&dir, &["payload", "node1", "-o", payload.to_str().unwrap()]);
    let copy = temp.path().join("copy");
    let said = fine(&dir, &["backup", copy.to_str().unwrap()]);
    let want = format!(
        "copied {} to {}, without root.key; keep it as secret as the original\n",
        dir.display(),
        copy.display()
    );
    assert_eq!(String::from_utf8(said).unwrap(), want);
    let (_, again) = fails(&dir, &["backup", copy.to_str().unwrap()]);
    assert!(again.ends_with("; nothing is overwritten, give an empty directory\n"), "{again}");
    assert!(!copy.join("root.key").exists());
    let files = |of: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(of.join("intermediates")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names.into_iter().map(|name| (mode(&of.join("intermediates").join(&name)), name)).collect::<Vec<_>>()
    };
    assert_eq!((mode(&copy), mode(&copy.join("imprint.db")), files(&copy)), (0o700, 0o600, files(&dir)));
    // What was made before is known to the copy; what is made with it is signed by the same CA.
    assert_eq!(fine(&dir, &["log"])[..], fine(&copy, &["log"])[..]);
    fine(&copy, &["payload", "node1", "-o", payload.to_str().unwrap()]);
    let (_, rotate) = fails(&copy, &["ca", "rotate"]);
    assert!(rotate.contains("the root's key is not at "), "{rotate}");
    fine(&copy, &["ca", "rotate", "--root-key", dir.join("root.key").to_str().unwrap()]);
}

/// A thousand nodes from a table, with what they have in common in a template; one bad row adds none.
#[test]
fn nodes_from_a_table() {
    let (temp, dir) = site();
    let file = |name: &str, text: &str| {
        let path = temp.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let template = file(
        "rack.toml",
        "enrol = \"each-boot\"\n[[network]]\nmatch = { any = true }\naddresses = [\"{address}/16\"]\n",
    );
    let mut table = "name,subject,sans,bind.serial,address\n".to_owned();
    for n in 0..1000 {
        let (address, name) = (format!("10.1.{}.{}", n / 250, n % 250 + 1), format!("rack{n:04}"));
        table
            .push_str(&format!("{name},CN={name};O=\"Example\",dns:{name}.example.org;ip:{address},SN{n},{address}\n"));
    }
    let nodes = || {
        let listed: serde_json::Value = serde_json::from_slice(&fine(&dir, &["nodes", "--json"])).unwrap();
        listed.as_array().unwrap().len()
    };
    let before = nodes();
    let bad = file("bad.csv", &table.replace("dns:rack0500.example.org", "dns:rack 0500"));
    let (code, error) = fails(&dir, &["node", "add", "--csv", &bad, "--template", &template]);
    assert!(code == 1 && error.starts_with(&format!("imprint-host: {bad}:502: sans[0]: ")), "{error}");
    let twice = file("twice.csv", &format!("{table}rack0007,CN=x,,,10.2.0.1\n"));
    let (_, error) = fails(&dir, &["node", "add", "--csv", &twice, "--template", &template]);
    assert_eq!(
        error,
        format!("imprint-host: {twice}:1002: name: rack0007 is in another file, too; give each its own\n")
    );
    assert_eq!(nodes(), before);
    let good = file("nodes.csv", &table);
    let added: serde_json::Value =
        serde_json::from_slice(&fine(&dir, &["--json", "node", "add", "--csv", &good, "--template", &template]))
            .unwrap();
    assert_eq!((added["added"].as_array().unwrap().len(), nodes()), (1000, before + 1000));
    let output = temp.path().join("payload");
    fine(&dir, &["payload", "rack0999", "-o", output.to_str().unwrap()]);
    let shown = Payload::unwrapped(&std::fs::read(output).unwrap()).unwrap().to_string();
    assert!(shown.contains("10.1.3.250/16") && shown.contains("CN=rack0999"), "{shown}");
}

/// Each command that prints, prints one JSON value with --json; shells complete each.
#[test]
fn json_for_programs_and_completions_for_shells() {
    let (temp, dir) = site();
    let file = |name: &str| temp.path().join(name).display().to_string();
    std::fs::write(file("node7.toml"), "name = \"node7\"\nsubject = [\"CN=node7\"]\n").unwrap();
    for words in [
        vec!["node", "add", &file("node7.toml")],
        vec!["payload", "node7", "--credentials", "-o", &file("payload")],
        vec!["nodes"],
        vec!["log"],
        vec!["revoke", "node7", "--reason", "keyCompromise"],
        vec!["backup", &file("copy")],
        vec!["ca", "rotate"],
        vec!["load", "--nodes", "3"],
    ] {
        let printed = fine(&dir, &[&["--json"], &words[..]].concat());
        serde_json::from_slice::<serde_json::Value>(&printed).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(fine(&dir, &["completions", shell])).unwrap();
        for word in ["payload", "approve", "revoke", "rotate", "backup"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}
