use super::*;

#[test]
fn nothing_said_is_auto() {
    let options = Options::parse("BOOT_IMAGE=/vmlinuz root=LABEL=x quiet ro").unwrap();
    assert_eq!(options.mode, Mode::Auto);
    assert_eq!((options.timeout.as_secs(), options.approval_timeout), (300, None));
    assert!(options.payload.is_none() && options.sources.is_empty());
    assert!(!options.insists() && !options.debug && options.bootif.is_none());
}

/// A payload that is removed after its boot is not there at the next one. The operator who named its medium could only let
/// that boot stop, or stop looking at the medium.
#[test]
fn auto_wins_over_a_source_that_is_named() {
    for (cmdline, insists) in [
        ("", false),
        ("imprint=auto", false),
        ("imprint.source=efivar", true),
        ("imprint=auto imprint.source=efivar", false),
        ("imprint.source=serial:ttyS1 imprint=auto imprint.source=partition", false),
        ("imprint=require imprint.source=efivar", true),
    ] {
        let options = Options::parse(cmdline).unwrap();
        assert_eq!(options.insists(), insists, "{cmdline}");
        assert_eq!(options.sources.is_empty(), !cmdline.contains("source"), "only what is named is looked at");
    }
}

#[test]
fn every_word() {
    let options = Options::parse(
        "imprint=require imprint.source=config-drive imprint.source=\"config-drive:MY DISK\" imprint.source=file \
         imprint.source=cmdline imprint.payload=oQEB imprint.timeout=5 imprint.approval-timeout=86401 \
         imprint.debug BOOTIF=01-52-54-00-12-34-56 -- imprint=off\n",
    )
    .unwrap();
    assert_eq!(options.mode, Mode::Require);
    let named = SourceName::ConfigDrive(Some("MY DISK".into()));
    assert_eq!(options.sources, [SourceName::ConfigDrive(None), named, SourceName::File, SourceName::Cmdline]);
    let payload = options.payload.unwrap();
    assert_eq!((payload.text.expose(), payload.cut), (&b"oQEB"[..], false));
    assert_eq!(options.timeout.as_secs(), 5);
    assert_eq!(options.approval_timeout.unwrap().as_secs(), 86_401);
    assert!(options.debug);
    assert_eq!(options.bootif.unwrap().to_string(), "52:54:00:12:34:56");
}

#[test]
fn lines_by_name_and_speed() {
    let options = Options::parse("imprint.source=virtio imprint.source=serial:ttyS1,9600 imprint.source=serial:hvc0");
    let options = options.unwrap();
    let serial = |name: &str, baud| SourceName::Serial { name: name.into(), baud };
    assert_eq!(options.sources, [SourceName::Virtio, serial("ttyS1", Some(9600)), serial("hvc0", None)]);
    assert!(!options.plain && Options::parse("imprint.line=plain").unwrap().plain);
    for bad in ["serial:", "serial:ttyS1,", "serial:ttyS1,fast", "serial:ttyS1,49", "serial:.x", "serial", "virtio:1"] {
        assert!(matches!(Options::parse(&format!("imprint.source={bad}")), Err(OptionsError::Value { .. })), "{bad}");
    }
}

#[test]
fn a_named_source_is_waited_for() {
    assert!(Options::parse("imprint.source=config-drive").unwrap().insists());
}

#[test]
fn errors_name_the_word() {
    for (cmdline, want) in [
        (
            "imprint.tiemout=3",
            "unknown word \"imprint.tiemout\" on the kernel command line; the nearest that is known is \
             imprint.timeout=",
        ),
        (
            "imprint.paylaod=c2VjcmV0",
            "unknown word \"imprint.paylaod\" on the kernel command line; the nearest that is known is \
             imprint.payload=",
        ),
        ("imprint", "\"imprint\" on the kernel command line is not valid: want auto, require or off"),
        ("imprint=on", "\"imprint=on\" on the kernel command line is not valid: want auto, require or off"),
        ("imprint.timeout=0", "\"imprint.timeout=0\" on the kernel command line is not valid: want 1 to 86400 seconds"),
        ("imprint.debug=1", "\"imprint.debug=1\" on the kernel command line is not valid: want no value"),
        (
            "imprint.source=usb",
            "\"imprint.source=usb\" on the kernel command line is not valid: want cmdline, file, credential, \
             config-drive, config-drive:LABEL, partition, efivar, root-file, virtio, serial:ttyS1, \
             serial:ttyS1,115200, tcp:HOST:PORT, door, vsock, vsock:PORT, ether or ether:eth0",
        ),
        (
            "imprint.source=serial:../ttyS1",
            "\"imprint.source=serial:../ttyS1\" on the kernel command line is not valid: want cmdline, file, credential, \
             config-drive, config-drive:LABEL, partition, efivar, root-file, virtio, serial:ttyS1, \
             serial:ttyS1,115200, tcp:HOST:PORT, door, vsock, vsock:PORT, ether or ether:eth0",
        ),
        ("imprint.line=sealed", "\"imprint.line=sealed\" on the kernel command line is not valid: want plain"),
        (
            "imprint.next=sh",
            "\"imprint.next=sh\" on the kernel command line is not valid: want the path of a program in the image, and its \
             arguments behind blanks",
        ),
        (
            "imprint.rescue=shell",
            "\"imprint.rescue=shell\" on the kernel command line is not valid: want prompt, reboot or poweroff",
        ),
        (
            "imprint.payload=",
            "\"imprint.payload=\" on the kernel command line is not valid: want a payload in base64url without \
             padding, as imprint-host payload NODE --as cmdline prints it",
        ),
        (
            "imprint.payload=oQEB imprint.payload=oQEC",
            "imprint.payload= is on the kernel command line twice, with different values; remove one",
        ),
        (
            "imprint.approval-timeout=1h",
            "\"imprint.approval-timeout=1h\" on the kernel command line is not valid: want 1 to 2592000 seconds",
        ),
        (
            "imprint=auto imprint=require",
            "imprint= is on the kernel command line twice, with different values; remove one",
        ),
    ] {
        assert_eq!(Options::parse(cmdline).unwrap_err().to_string(), want);
    }
    assert!(Options::parse("imprint=auto imprint=auto").is_ok());
}

#[test]
fn a_payload_is_shown_to_nobody() {
    let shown = format!("{:?}", Options::parse("imprint.payload=c2VjcmV0").unwrap());
    assert!(shown.contains("payload: Some(CmdlinePayload") && !shown.contains("c2VjcmV0"), "{shown}");
}

/// /proc/cmdline when the boot loader handed over more than the kernel keeps.
#[test]
fn a_payload_at_the_end_of_a_full_command_line_may_be_cut() {
    let text = |padding| format!("{} imprint.payload=oQEB", "x".repeat(padding));
    for (cmdline, cut) in [
        (text(CMDLINE_MAX - 21) + "\n", true),
        (text(CMDLINE_MAX - 22) + "\n", false),
        (format!("imprint.payload=oQEB {}\n", "x".repeat(CMDLINE_MAX - 21)), false),
    ] {
        assert_eq!(Options::parse(&cmdline).unwrap().payload.unwrap().cut, cut, "{}", cmdline.len());
    }
}

/// A word that the table says is supported is parsed, and no other.
#[test]
fn the_table_and_the_parser_agree() {
    for word in &WORDS {
        // A value that no word takes.
        let error = Options::parse(&format!("{}?", word.name)).map(|_| ());
        let name = word.name.trim_end_matches('=');
        let found = match error {
            Err(OptionsError::Value { want, .. }) => want == word.values && word.supported,
            Err(OptionsError::NotYet(found)) => found.as_str() == name && !word.supported,
            // `imprint.debug?` is another word. Only the source decodes base64url. Words that are not imprint's own are
            // ignored if they cannot be read.
            Err(OptionsError::UnknownWord { nearest, .. }) => nearest == word.name && !word.name.ends_with('='),
            Ok(()) => !word.name.starts_with("imprint") || word.name == "imprint.payload=",
            // KEY is no setting.
            Err(OptionsError::Setting { .. }) => word.name == "imprint.set.KEY=",
            Err(
                OptionsError::Twice(_)
                | OptionsError::InImage { .. }
                | OptionsError::NoRootDigest
                | OptionsError::RootDiffers { .. }
                | OptionsError::RootOff,
            ) => false,
        };
        assert!(found, "{}", word.name);
    }
}

#[test]
fn settings_for_a_new_bundle() {
    let options = Options::parse(
        "imprint.bundle=new imprint.set.hostname=node1 imprint.set.dns=192.0.2.53 imprint.set.dns=2001:db8::53 \
         imprint.set.link=eth0,dhcp4 imprint.set.hostname=node1",
    )
    .unwrap();
    assert!(options.new_bundle);
    let words = [("hostname", "node1"), ("dns", "192.0.2.53"), ("dns", "2001:db8::53"), ("link", "eth0,dhcp4")];
    assert_eq!(options.settings, Settings::from_words(words.into_iter()).unwrap());
    let options = Options::parse("imprint=off imprint.set.hostname=a_b imprint.set.password=x").unwrap();
    assert!(options.settings.is_empty() && !options.new_bundle);
    let twice = Options::parse("imprint.set.hostname=a imprint.set.hostname=b").unwrap_err();
    assert_eq!(twice, OptionsError::Setting { word: shown("imprint.set.hostname"), source: SettingError::Twice });
    let alone = Options::parse("imprint.set.search=example.org").unwrap_err();
    assert_eq!(alone, OptionsError::Setting { word: shown("imprint.set.search"), source: SettingError::NoNameServer });
}

/// Every user of the node can read /proc/cmdline.
#[test]
fn a_password_is_refused_and_not_repeated() {
    for word in [
        "password=hunter2",
        "password=$6$hunter2$hunter2",
        "root-password=hunter2",
        "storage=iscsi://x:hunter2@192.0.2.9/",
    ] {
        let error = Options::parse(&format!("imprint.set.{word}")).unwrap_err();
        let text = crate::chain::chain(&error);
        assert!(!text.contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{text}");
        if !word.starts_with("root") {
            assert!(text.contains("every user of the node can read the kernel command line"), "{text}");
        }
    }
}

#[test]
fn off_is_off_whatever_else_is_said() {
    assert_eq!(Options::parse("imprint.nonsense imprint=off imprint=auto").unwrap().mode, Mode::Off);
    assert_eq!(Options::parse("imprint=auto -- imprint=off").unwrap().mode, Mode::Auto);
}

#[test]
fn a_root_that_imprint_brings_is_a_list_of_urls_and_every_other_root_is_not_its_business() {
    let urls = |cmdline: &str| {
        let options = Options::parse(cmdline).unwrap();
        options.root_image.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(urls("root=imprint:https://a/r,https://b:8443/x/r"), ["https://a/r", "https://b:8443/x/r"]);
    for other in ["root=/dev/vda1", "root=UUID=0123", "root=nfs:192.0.2.1:/x", "root=", "root", "quiet"] {
        assert!(urls(other).is_empty(), "{other}");
    }
    // The last one counts, as it does to the kernel.
    assert_eq!(urls("root=/dev/vda1 root=imprint:https://a/r"), ["https://a/r"]);
    assert!(urls("root=imprint:https://a/r root=/dev/vda1").is_empty());
    let digest = "0f".repeat(32);
    let options = Options::parse(&format!("imprint.root-sha256={}", digest.to_uppercase())).unwrap();
    assert_eq!(options.root_sha256, Some([15; 32]));
    for wrong in [
        "root=imprint:".to_owned(),
        "root=imprint:https://a/r,".to_owned(),
        "root=imprint:http://a/r".to_owned(),
        "root=imprint:https://a/r?x".to_owned(),
        "imprint.root-sha256".to_owned(),
        format!("imprint.root-sha256={}", "0f".repeat(31)),
        format!("imprint.root-sha256={}", "0g".repeat(32)),
    ] {
        assert!(matches!(Options::parse(&wrong), Err(OptionsError::Value { .. })), "{wrong}");
    }
    let twice = format!("imprint.root-sha256={digest} imprint.root-sha256={}", "00".repeat(32));
    assert_eq!(Options::parse(&twice), Err(OptionsError::Twice("imprint.root-sha256=")));
}

#[test]
fn a_boot_loaders_nonsense_names_no_link() {
    for cmdline in ["BOOTIF", "BOOTIF=", "BOOTIF=é", "BOOTIF=01-52-54-00-12-34", "BOOTIF=01-zz-54-00-12-34-56"] {
        assert_eq!(Options::parse(cmdline).unwrap().bootif, None, "{cmdline}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(imprint|[ -~é\"= .]){0,60}") {
        let _ = Options::parse(&text);
    }
}
