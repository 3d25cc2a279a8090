//! Each form in which a payload leaves the host is unpacked by other programs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use imprint::hex;
use imprint::medium::{EFI_VARIABLE, PARTITION_TYPE};
use imprint_tests::{dmi, programs};
use serde_json::{Value, json};

const URL: &str = "https://est.example.org:8443/.well-known/est";

/// A state directory with one node.
struct Site {
    temp: tempfile::TempDir,
}

impl Site {
    fn new(record: &str) -> Site {
        let site = Site { temp: tempfile::tempdir().unwrap() };
        site.host(&["init", "--url", URL]);
        std::fs::write(site.file("node.toml"), record).unwrap();
        site.host(&["node", "add", site.file("node.toml").to_str().unwrap()]);
        site
    }

    fn file(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn host(&self, arguments: &[&str]) -> Vec<u8> {
        let state = self.file("state");
        run(programs::host().to_str().unwrap(), &[&["--dir", state.to_str().unwrap()], arguments].concat())
    }

    /// The line of the signer, as an image has it.
    fn signer(&self) -> String {
        let line = String::from_utf8(self.host(&["signer"])).unwrap();
        line.split(" # ").next().unwrap().to_owned()
    }

    /// What an independent reader says of a payload in this form.
    fn payload(&self, form: &str, more: &[&str]) -> Value {
        let made = self.file(&format!("payload.{form}"));
        self.host(&[&["payload", "node1", "--as", form, "-o", made.to_str().unwrap()], more].concat());
        let (kind, file) = match form {
            "cpio" => ("cbor", self.unpacked(&made)),
            "iso" => ("cbor", self.disc_holds(&made)),
            "vfat" => ("cbor", self.disk_holds(&made)),
            "gpt" => ("partition", self.partition_holds(&made)),
            "credential" => ("cbor", self.systemd_holds(&made)),
            "qemu" => ("cbor", made.clone()),
            "smbios" => ("smbios", self.firmware_holds(&made)),
            "efivar" => ("cbor", self.variable_holds(&made)),
            _ => (form, made.clone()),
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/payload_reader.py");
        let python = super::super::python();
        let signer = self.signer();
        let words = [script.to_str().unwrap(), kind, file.to_str().unwrap(), &signer];
        let read = serde_json::from_slice(&run(python.to_str().unwrap(), &words)).unwrap();
        std::fs::remove_file(made).unwrap();
        read
    }

    /// By GNU cpio, which warns of what it had to put right.
    fn unpacked(&self, archive: &Path) -> PathBuf {
        let file = self.file("unpacked");
        let bytes = run("cpio", &["-i", "--quiet", "--to-stdout", "-F", archive.to_str().unwrap(), "imprint/payload"]);
        std::fs::write(&file, bytes).unwrap();
        file
    }

    /// By cdrkit and by libisofs, who have nothing in common.
    fn disc_holds(&self, image: &Path) -> PathBuf {
        let (file, image) = (self.file("from-disc"), image.to_str().unwrap());
        let bytes = run("isoinfo", &["-i", image, "-x", "/IMPRINT/PAYLOAD.;1"]);
        let _ = std::fs::remove_file(&file);
        let copy = ["-report_about", "SORRY", "-osirrox", "on", "-indev", image, "-extract_single", "/IMPRINT/PAYLOAD"];
        run("xorriso", &[&copy[..], &[file.to_str().unwrap()]].concat());
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        file
    }

    /// By mtools, after fsck.fat has nothing to say.
    fn disk_holds(&self, image: &Path) -> PathBuf {
        let (file, image) = (self.file("from-disk"), image.to_str().unwrap());
        let said = String::from_utf8(run("fsck.fat", &["-n", image])).unwrap();
        // A line with its version, and one with how many files and clusters there are.
        assert_eq!(said.lines().count(), 2, "{said}");
        let described = String::from_utf8(run("minfo", &["-i", image, "::"])).unwrap();
        for line in ["disk label=\"IMPRINT    \"", "disk type=\"FAT12   \"", "small size: 2048 sectors"] {
            assert!(described.lines().any(|found| found == line), "{described}");
        }
        let _ = std::fs::remove_file(&file);
        run("mcopy", &["-i", image, "::/imprint/payload", file.to_str().unwrap()]);
        file
    }

    /// What is in the partition, by sfdisk, after sfdisk and GPT fdisk have verified both tables.
    fn partition_holds(&self, image: &Path) -> PathBuf {
        let (file, name) = (self.file("from-partition"), image.to_str().unwrap());
        let said = String::from_utf8(run("sgdisk", &["--verify", name])).unwrap();
        assert!(said.starts_with("\nNo problems found. "), "{said}");
        let said = String::from_utf8(run("sfdisk", &["--verify", name])).unwrap();
        assert!(said.contains("No errors detected.\n"), "{said}");
        let table: Value = serde_json::from_slice(&run("sfdisk", &["--json", name])).unwrap();
        let table = &table["partitiontable"];
        assert_eq!((&table["label"], &table["sectorsize"]), (&json!("gpt"), &json!(512)));
        let [partition] = table["partitions"].as_array().unwrap().as_slice() else { panic!("{table}") };
        assert_eq!(
            (&partition["type"], &partition["name"]),
            (&json!(PARTITION_TYPE.to_uppercase()), &json!("IMPRINT"))
        );
        let number = |key: &str| usize::try_from(partition[key].as_u64().unwrap()).unwrap() * 512;
        let bytes = std::fs::read(image).unwrap();
        std::fs::write(&file, &bytes[number("start")..][..number("size")]).unwrap();
        file
    }

    /// What a service would read, by systemd-creds.
    fn systemd_holds(&self, credential: &Path) -> PathBuf {
        let (file, folder) = (self.file("from-systemd"), self.file("credentials"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(credential, folder.join("imprint.payload")).unwrap();
        let variable = format!("CREDENTIALS_DIRECTORY={}", folder.display());
        std::fs::write(&file, run("env", &[&variable, "systemd-creds", "cat", "imprint.payload"])).unwrap();
        file
    }

    /// What the firmware would have, by dmidecode, in a table with strings of others.
    fn firmware_holds(&self, string: &Path) -> PathBuf {
        let (file, ours) = (self.file("from-firmware"), std::fs::read(string).unwrap());
        let strings = [b"somebody else's", &ours[..], b"io.systemd.credential:a=b"];
        let mut table = vec![11, 5, 0, 0, 3];
        strings.iter().for_each(|string| table.extend([string, &b"\0"[..]].concat()));
        table.extend(b"\0\x7f\x04\x01\0\0\0");
        let found = dmi::oem_strings(&table);
        let [_, ours, _] = found.as_slice() else { panic!("{found:?}") };
        std::fs::write(&file, ours).unwrap();
        file
    }

    /// The value of the variable, by the library of efibootmgr, which takes the folder for efivarfs.
    fn variable_holds(&self, variable: &Path) -> PathBuf {
        let (file, folder) = (self.file("from-variable"), self.file("efivars"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(variable, folder.join(EFI_VARIABLE)).unwrap();
        let (name, guid) = EFI_VARIABLE.split_once('-').unwrap();
        let place = format!("EFIVARFS_PATH={}/", folder.display());
        let said = run("env", &[&place, "efivar", "--print", "--name", &format!("{guid}-{name}")]);
        let said = String::from_utf8(said).unwrap();
        let (attributes, value) = said.split_once("Value:\n").unwrap();
        let want = "Attributes:\n\tNon-Volatile\n\tBoot Service Access\n\tRuntime Service Access\n";
        assert!(attributes.ends_with(want), "{attributes}");
        // 00000000  70 61 79 6c 6f 61 64                              |payload         |
        let digits = value.lines().map(|line| line.split_once('|').unwrap().0.split_once(' ').unwrap().1);
        let digits: String = digits.flat_map(str::split_whitespace).collect();
        std::fs::write(&file, hex::decode(&digits).unwrap()).unwrap();
        file
    }
}

/// What a program writes to standard output. It has nothing else to say.
fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    // Programs that look after disks are not always in a user's path.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(program).args(arguments).env("PATH", path).env("LC_ALL", "C").output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; run scripts/install-needs test"));
    let errors = String::from_utf8(output.stderr).unwrap();
    // xorriso always says its name first, and `imprint-host signer` warns of a record that names no machine.
    let usual = |line: &str| line.ends_with(", libburnia project.") || line.contains("no bind that names a machine");
    let said = errors.lines().filter(|line| !line.is_empty() && !usual(line));
    assert!(output.status.success() && said.count() == 0, "{program} {arguments:?}: {errors}");
    output.stdout
}

/// No network, and hardly a name.
const SMALL: &str = "name = \"node1\"\nsubject = [\"CN=n\"]\n";
const ROOM: &str = "name = \"node1\"\nsubject = [\"CN=node1.example.org\", \"O=Example, Inc.\"]\nhostname = \"node1\"\n\
                    key = \"p384\"\nbind = { macs = [\"52:54:00:12:34:56\"], serial = \"SN-7\" }\n";

/// More than one sector of any medium: as many names, and links with routes.
fn large() -> (String, Value, Value) {
    let names: Vec<String> = (0..200).map(|n| format!("name{n:03}.{}.example.org", "x".repeat(30))).collect();
    let sans: Vec<String> = names.iter().map(|name| format!("\"dns:{name}\"")).collect();
    let mut record = format!("{ROOM}sans = [{}]\n", sans.join(", "));
    let mut links = Vec::new();
    for n in 1..=8u8 {
        record += &format!(
            "[[network]]\nmatch = {{ mac = \"52:54:00:00:00:0{n}\" }}\naddresses = [\"192.0.2.{n}/24\"]\n\
             routes = [{{ to = \"198.51.100.{n}/32\", via = \"192.0.2.254\", metric = {n} }}]\nmtu = 9000\n"
        );
        links.push(json!({
            "0": { "0": format!("52540000000{n}") },
            "2": [format!("c00002{n:02x}18")],
            "6": [{ "0": format!("c63364{n:02x}20"), "1": "c00002fe", "2": n }],
            "9": 9000,
        }));
    }
    (record, json!(names), json!(links))
}

/// Everything but what is fresh in each payload is what the record says, in every form; what is fresh is.
#[test]
fn every_form_is_read_by_others() {
    let (record, names, links) = large();
    let subject = json!([{ "0": 0, "1": "node1.example.org" }, { "0": 1, "1": "Example, Inc." }]);
    let large = json!({ "4": { "1": ["525400123456"], "2": "SN-7" }, "6": links, "14": "node1" });
    let enrolled = json!({ "7": { "0": subject, "1": names }, "10": [URL], "11": "node1", "15": 1 });
    let named = json!({ "7": { "0": [{ "0": 0, "1": "n" }] }, "10": [URL], "11": "node1" });
    let mut fresh = BTreeSet::new();
    for (record, fixed, forms) in [
        (SMALL, merged(&json!({}), &named), &FORMS[..]),
        // Too long for a command line, which is a test of its own.
        (&record, merged(&large, &enrolled), &FORMS[1..]),
    ] {
        let site = Site::new(record);
        for form in forms {
            let found = site.payload(form, &[]);
            let mut payload = fresh_in(found["payload"].clone(), form, &site, &mut fresh);
            let token = payload.remove("12").unwrap();
            assert_eq!(token.as_object().unwrap().len(), 1, "once");
            assert_eq!(token["0"].as_str().unwrap().len(), 22, "128 bits in base64url");
            assert!(fresh.insert(token["0"].to_string()));
            assert_eq!(Value::Object(payload), fixed, "{form}");
            let bytes = found["bytes"].as_u64().unwrap();
            assert!(if record == SMALL { bytes < 1024 } else { bytes > 5 * 2048 }, "{form}: {bytes} bytes");
        }
    }
    // Key and certificate, where they may be; that other forms refuse them is a test of its own.
    let site = Site::new(&record);
    for form in FORMS.into_iter().filter(|form| !["text", "cmdline", "efivar", "user-data", "multipart"].contains(form))
    {
        let found = site.payload(form, &["--credentials"]);
        assert_eq!(found["certified"], json!({ "subject": "O=Example\\, Inc.,CN=node1.example.org", "dns": names }));
        let mut payload = fresh_in(found["payload"].clone(), form, &site, &mut fresh);
        let credentials = payload.remove("13").unwrap();
        assert_eq!(credentials["0"].as_array().unwrap().len(), 2, "its own and the intermediate's");
        assert!(fresh.insert(credentials["1"].to_string()), "a key of its own");
        assert_eq!(Value::Object(payload), large, "{form}");
    }
}

const FORMS: [&str; 13] = [
    "cmdline",
    "cbor",
    "text",
    "cpio",
    "iso",
    "vfat",
    "gpt",
    "credential",
    "smbios",
    "qemu",
    "efivar",
    "user-data",
    "multipart",
];
/// The forms with room for a seed that not everybody on the node can read.
const SEEDED: [&str; 6] = ["cpio", "iso", "vfat", "gpt", "credential", "qemu"];

/// cloud-init passes over our part without an error, and handles the part beside it. Its log shows nothing of the
/// token.
#[test]
fn cloud_init_passes_it_over() {
    let site = Site::new(ROOM);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/cloud_init.py");
    let beside = site.file("cloud-config");
    std::fs::write(&beside, "#cloud-config\nhostname: node1\n").unwrap();
    let unhandled = |what: &str| {
        let text = format!("Unhandled {what} userdata: 'b'-----BEGIN IMPRINT PAYLO'...'");
        json!([["WARNING", text]])
    };
    let ours = "application/x-imprint-payload";
    for (form, more, kind, config, messages) in [
        ("multipart", None, ours, Value::Null, unhandled(&format!("unknown content-type ({ours})"))),
        (
            "multipart",
            Some(&beside),
            ours,
            json!({ "hostname": "node1" }),
            unhandled(&format!("unknown content-type ({ours})")),
        ),
        ("user-data", None, "text/x-not-multipart", Value::Null, unhandled("non-multipart (text/x-not-multipart)")),
    ] {
        let made = site.file("made");
        site.host(&["payload", "node1", "--as", form, "-o", made.to_str().unwrap()]);
        let mut words = vec![script.to_str().unwrap(), made.to_str().unwrap()];
        words.extend(more.map(|path| path.to_str().unwrap()));
        let read: Value = serde_json::from_slice(&run("/usr/bin/python3", &words)).unwrap();
        assert_eq!((&read["config"], &read["messages"]), (&config, &messages), "{form}");
        let parts = read["parts"].as_array().unwrap();
        assert_eq!((parts.len(), &parts[0][0]), (1 + usize::from(more.is_some()), &json!(kind)), "{form}");
        let text = std::fs::read_to_string(&made).unwrap();
        let armour = parts[0][1].as_str().unwrap();
        assert!(armour.starts_with("-----BEGIN IMPRINT PAYLOAD-----\n") && text.contains(armour.trim_end()), "{form}");
    }
}

fn merged(one: &Value, other: &Value) -> Value {
    let pairs = [one, other].into_iter().flat_map(|map| map.as_object().unwrap().clone());
    Value::Object(pairs.collect())
}

/// The payload without version, id, times, seed and CA, which are as they have to be.
fn fresh_in(payload: Value, form: &str, site: &Site, fresh: &mut BTreeSet<String>) -> serde_json::Map<String, Value> {
    let Value::Object(mut payload) = payload else { panic!("{payload}") };
    let mut take = |key: &str| payload.remove(key);
    assert_eq!(take("0"), Some(json!(1)));
    assert!(fresh.insert(take("1").unwrap().to_string()), "an id of its own");
    let [composed, expiry] = ["2", "3"].map(|key| take(key).unwrap().as_u64().unwrap());
    assert_eq!(expiry - composed, 24 * 3_600_000);
    match take("5") {
        Some(seed) => {
            assert!(SEEDED.contains(&form), "{form}");
            assert_eq!((seed.as_object().unwrap().len(), seed["0"].as_str().unwrap().len()), (1, 64), "{form}");
            assert!(fresh.insert(seed.to_string()));
        }
        None => assert!(!SEEDED.contains(&form), "{form}"),
    }
    let root = site.file("state/root.pem");
    let der = run("openssl", &["x509", "-outform", "DER", "-in", root.to_str().unwrap()]);
    assert_eq!(take("8"), Some(json!(hex::encode(&der))));
    payload
}
