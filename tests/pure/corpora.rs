//! Every input that a fuzz target has found or was given, once more, in the ordinary build: what was mended stays mended. The search
//! for new inputs, with the sanitizer, is fuzz/run.

use std::fs;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(name)
}

/// Runs a target with each file of its corpus. A target panics at what must not be.
fn replay(target: &str, run: fn(&[u8])) {
    let inputs: Vec<_> =
        fs::read_dir(folder("corpus").join(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!inputs.is_empty(), "{target} has no seeds; put one in fuzz/corpus/{target}");
    for input in inputs {
        run(&fs::read(input).unwrap());
    }
}

/// A module and a test for each target, and their names.
macro_rules! targets {
    ($($name:ident: $path:literal,)+) => {
        $(
            #[path = $path]
            #[allow(clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub, reason = "a program of its own")]
            mod $name;
        )+

        mod corpus {
            $(
                #[test]
                fn $name() {
                    super::replay(stringify!($name), super::$name::run);
                }
            )+
        }

        const TARGETS: &[&str] = &[$(stringify!($name)),+];
    };
}

targets! {
    admission: "../../fuzz/fuzz_targets/admission.rs",
    age_header: "../../fuzz/fuzz_targets/age_header.rs",
    age_stream: "../../fuzz/fuzz_targets/age_stream.rs",
    bundle: "../../fuzz/fuzz_targets/bundle.rs",
    bundle_tar: "../../fuzz/fuzz_targets/bundle_tar.rs",
    cose: "../../fuzz/fuzz_targets/cose.rs",
    credential: "../../fuzz/fuzz_targets/credential.rs",
    csr: "../../fuzz/fuzz_targets/csr.rs",
    dhcp4: "../../fuzz/fuzz_targets/dhcp4.rs",
    dhcp6: "../../fuzz/fuzz_targets/dhcp6.rs",
    dns: "../../fuzz/fuzz_targets/dns.rs",
    drive_answer: "../../fuzz/fuzz_targets/drive_answer.rs",
    est_certs: "../../fuzz/fuzz_targets/est_certs.rs",
    est_response: "../../fuzz/fuzz_targets/est_response.rs",
    ether: "../../fuzz/fuzz_targets/ether.rs",
    fat: "../../fuzz/fuzz_targets/fat.rs",
    http: "../../fuzz/fuzz_targets/http.rs",
    iso9660: "../../fuzz/fuzz_targets/iso9660.rs",
    kmod_alias: "../../fuzz/fuzz_targets/kmod_alias.rs",
    kmod_index: "../../fuzz/fuzz_targets/kmod_index.rs",
    kmod_unpack: "../../fuzz/fuzz_targets/kmod_unpack.rs",
    line_frame: "../../fuzz/fuzz_targets/line_frame.rs",
    line_host: "../../fuzz/fuzz_targets/line_host.rs",
    line_node: "../../fuzz/fuzz_targets/line_node.rs",
    lldp: "../../fuzz/fuzz_targets/lldp.rs",
    manifest: "../../fuzz/fuzz_targets/manifest.rs",
    neighbour: "../../fuzz/fuzz_targets/neighbour.rs",
    netlink: "../../fuzz/fuzz_targets/netlink.rs",
    network_words: "../../fuzz/fuzz_targets/network_words.rs",
    options: "../../fuzz/fuzz_targets/options.rs",
    partition: "../../fuzz/fuzz_targets/partition.rs",
    payload: "../../fuzz/fuzz_targets/payload.rs",
    port: "../../fuzz/fuzz_targets/port.rs",
    record: "../../fuzz/fuzz_targets/record.rs",
    setup_dialogue: "../../fuzz/fuzz_targets/setup_dialogue.rs",
    smbios: "../../fuzz/fuzz_targets/smbios.rs",
    superblock: "../../fuzz/fuzz_targets/superblock.rs",
    telnet: "../../fuzz/fuzz_targets/telnet.rs",
    user_data: "../../fuzz/fuzz_targets/user_data.rs",
}

#[test]
fn no_target_is_left_out() {
    let files = fs::read_dir(folder("fuzz_targets")).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, TARGETS);
}
