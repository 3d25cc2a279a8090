use proptest::prelude::*;

use super::*;
use crate::bundle::{Bundle, Content, Verb};
use crate::payload::{NodeName, Problem};

/// ssh-keygen -t ed25519 -C "admin@example.org"
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFAtZ6yPj3vajxy7pdD/LTsFJftGYOcaGw54qGXwxjv2 admin@example.org";
/// openssl passwd -6 -salt saltsalt secret
const HASH: &str = "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1";

const TYPICAL: [(&str, &str); 13] = [
    ("hostname", "node1"),
    ("link", "52:54:00:12:34:56,192.0.2.10/24,2001:db8::10/64,via=192.0.2.1,via=fe80::1,mtu=9000"),
    ("link", "eth1,dhcp4,slaac,route=198.51.100.0/24-192.0.2.2"),
    ("dns", "192.0.2.53"),
    ("dns", "2001:db8::53"),
    ("search", "example.org"),
    ("ntp", "ntp.example.org"),
    ("ntp", "192.0.2.123"),
    ("timezone", "Europe/Berlin"),
    ("ssh", KEY),
    ("syslog", "tcp:[2001:db8::514]:6514"),
    ("engine", "https://engine.example.org:8443/api"),
    ("storage", "nvme-tcp://192.0.2.9:4420/nqn.2026-01.org.example:node1"),
];

fn typical() -> Settings {
    Settings::from_words(TYPICAL.into_iter()).unwrap()
}

fn refused(word: &str, value: &str) -> SettingError {
    Settings::from_words([(word, value)].into_iter()).unwrap_err()
}

#[test]
fn every_key_has_its_row() {
    for (row, place) in SETTINGS.iter().zip(0..) {
        assert_eq!((row.key.row().word, Key::named(row.word)), (row.word, Ok(row.key)));
        assert_eq!(SETTINGS.iter().position(|other| other.word == row.word), Some(place));
        assert!(row.takes.is_ascii() && row.meaning.is_ascii(), "{}", row.takes);
    }
    assert!(Settings::default().is_empty() && !typical().is_empty());
}

fn bundle(settings: &Settings) -> Bundle {
    settings.bundle(NodeName::try_from("node1").unwrap(), 3).unwrap()
}

fn text(made: &Bundle, path: &str) -> (u16, String) {
    let found = made.entries().iter().find(|made| made.path.as_str() == path).unwrap_or_else(|| panic!("no {path}"));
    let content = match &found.content {
        Content::File(bytes) => String::from_utf8(bytes.expose().to_vec()).unwrap(),
        Content::Link(target) => format!("-> {target}"),
        Content::Directory => "/".to_owned(),
    };
    (found.mode, content)
}

#[test]
fn each_setting_makes_the_files_of_the_table() {
    let mut settings = typical();
    settings.add(Key::Password, HASH).unwrap();
    let made = bundle(&settings);
    let mut paths: Vec<&str> = made.entries().iter().map(|made| made.path.as_str()).collect();
    let mut wanted: Vec<String> = SETTINGS.iter().flat_map(|row| row.files).map(|path| path[1..].to_owned()).collect();
    wanted.dedup();
    let wanted: Vec<String> = wanted
        .iter()
        .flat_map(|path| match path.contains("LINK") {
            true => vec![path.replace("LINK", "525400123456"), path.replace("LINK", "eth1")],
            false => vec![path.clone()],
        })
        .collect();
    let mut wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    paths.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(paths, wanted);
    let is = |path: &str, mode: u16, want: &str| assert_eq!(text(&made, path), (mode, want.to_owned()), "{path}");
    is("etc/hostname", 0o644, "node1\n");
    is("etc/resolv.conf", 0o644, "search example.org\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n");
    is("etc/systemd/timesyncd.conf.d/imprint.conf", 0o644, "[Time]\nNTP=ntp.example.org 192.0.2.123\n");
    is("etc/chrony/sources.d/imprint.sources", 0o644, "server ntp.example.org iburst\nserver 192.0.2.123 iburst\n");
    is("etc/localtime", 0o777, "-> /usr/share/zoneinfo/Europe/Berlin");
    is("etc/timezone", 0o644, "Europe/Berlin\n");
    is("root/.ssh", 0o700, "/");
    is("root/.ssh/authorized_keys", 0o600, &format!("{KEY}\n"));
    is("etc/imprint/engine", 0o644, "https://engine.example.org:8443/api\n");
    is("etc/imprint/storage", 0o600, "nvme-tcp://192.0.2.9:4420/nqn.2026-01.org.example:node1\n");
    is("etc/imprint-password", 0o600, &format!("root:{HASH}\n"));
    let (_, syslog) = text(&made, "etc/rsyslog.d/70-imprint.conf");
    assert!(syslog.contains("target=\"2001:db8::514\" port=\"6514\" protocol=\"tcp\""), "{syslog}");
    let (_, unit) = text(&made, "etc/systemd/network/60-imprint-525400123456.network");
    for line in
        ["MACAddress=52:54:00:12:34:56", "Address=192.0.2.10/24", "Gateway=fe80::1", "MTUBytes=9000", "DNS=192.0.2.53"]
    {
        assert!(unit.lines().any(|other| other == line), "{line} in {unit}");
    }
    let (mode, keyfile) = text(&made, "etc/NetworkManager/system-connections/imprint-set-eth1.nmconnection");
    assert_eq!(mode, 0o600);
    for line in [
        "interface-name=eth1",
        "autoconnect-priority=10",
        "route1=198.51.100.0/24,192.0.2.2",
        "dns-search=example.org;",
    ] {
        assert!(keyfile.lines().any(|other| other == line), "{line} in {keyfile}");
    }
}

/// The hash goes into /etc/shadow by a unit; all else is read by whoever reads it anyway.
#[test]
fn only_a_password_needs_a_unit() {
    let mut settings = typical();
    assert_eq!(bundle(&settings).units(), []);
    settings.add(Key::Password, HASH).unwrap();
    let bundle = bundle(&settings);
    let [unit] = bundle.units() else { panic!("{:?}", bundle.units()) };
    assert_eq!((unit.verb, unit.unit.as_str()), (Verb::Enable, "imprint-password.service"));
    // Accident: somebody logs in without the password, because the unit waits for something; so the boot itself wants it, before logins.
    let (_, link) = text(&bundle, "etc/systemd/system/multi-user.target.wants/imprint-password.service");
    assert_eq!(link, "-> /etc/systemd/system/imprint-password.service");
    let (_, unit) = text(&bundle, "etc/systemd/system/imprint-password.service");
    assert!(unit.contains("\nBefore=systemd-user-sessions.service ") && !unit.contains("network"), "{unit}");
    let made = |settings: &Settings| self::bundle(settings).pack().unwrap();
    assert_eq!(made(&settings), made(&settings.clone()), "the same settings make the same bytes");
    assert_eq!(self::bundle(&Settings::default()).entries(), []);
}

/// 2 KiB on the wire, less 500 bytes for a CA, 200 for the encryption and 170 for the signature.
#[test]
fn what_is_typical_is_small() {
    let words = [
        ("hostname", "node1"),
        ("link", "52:54:00:12:34:56,192.0.2.10/24,via=192.0.2.1"),
        ("link", "52:54:00:12:34:57,dhcp4,slaac"),
        ("dns", "192.0.2.53"),
        ("search", "example.org"),
        ("ntp", "ntp.example.org"),
        ("ssh", KEY),
        ("syslog", "log.example.org"),
    ];
    let packed = bundle(&Settings::from_words(words.into_iter()).unwrap()).pack().unwrap();
    assert!(packed.len() <= 2048 - 500 - 200 - 170, "{}", packed.len());
}

/// Everybody on the node can read /proc/cmdline.
#[test]
fn passwords_and_hashes_are_refused_on_the_command_line_and_never_shown() {
    assert_eq!(refused("password", HASH), SettingError::Secret);
    assert_eq!(refused("password", "hunter2"), SettingError::Secret);
    for (word, value) in [
        ("storage", "iscsi://user:hunter2@192.0.2.9/x"),
        ("storage", "iscsi:user:hunter2@192.0.2.9::3260::iqn.2026-01.org.example:x"),
        ("storage", "iscsi:user:secret:back:hunter2@192.0.2.9::3260::iqn.2026-01.org.example:x"),
        ("storage", "s3://bucket/x?secret=hunter2"),
        ("storage", "s3://bucket/x#hunter2"),
        ("engine", "https://192.0.2.9/p?password=hunter2"),
        ("engine", "https://u:hunter2@192.0.2.9/"),
        ("syslog", "tcp:u:hunter2@192.0.2.9"),
    ] {
        assert_eq!(refused(word, value), SettingError::Secret, "{value}");
    }
    for (word, value) in [
        ("storage", "iscsi:@192.0.2.9::3260::iqn.2026-01.org.example:x"),
        ("storage", "iscsi://user@192.0.2.9/x"),
        ("storage", "nvme-tcp://[2001:db8::9]:4420/nqn.2026-01.org.example:node1"),
        ("engine", "https://192.0.2.9:8443/p"),
    ] {
        assert_eq!(Settings::default().add_word(word, value), Ok(()), "{value}");
    }
    for (word, value) in [("password", "hunter2"), ("root_password", "hunter2"), ("storage", "hunter2")] {
        let error = refused(word, value);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    let mut settings = Settings::default();
    let error = settings.add(Key::Password, "hunter2").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    settings.add(Key::Password, HASH).unwrap();
    settings.add(Key::Storage, "iscsi://user:hunter2@192.0.2.9/x").unwrap();
    let shown = format!("{settings:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("saltsalt"), "{shown}");
}

/// Attack: a value that writes a second line into a file of the root.
#[test]
fn no_value_makes_a_line_of_its_own() {
    for row in &SETTINGS {
        for break_out in ["\n", "\r", "\0", "\u{85}", "\u{2028}"] {
            for good in TYPICAL.iter().filter(|(word, _)| *word == row.word).map(|(_, value)| *value).chain([HASH]) {
                for bad in [format!("{good}{break_out}x"), format!("x{break_out}{good}")] {
                    assert!(Settings::default().add(row.key, &bad).is_err(), "{}: {bad:?}", row.word);
                }
            }
        }
    }
    // Text that means something to rsyslog, to a shell, or in a path.
    for (word, value) in [
        ("syslog", "a\"); b"),
        ("hostname", "$(reboot)"),
        ("timezone", "../../etc/shadow"),
        ("timezone", "/etc/shadow"),
        ("timezone", "Europe//Berlin"),
        ("link", "../eth0,dhcp4"),
        ("link", "eth*,dhcp4"),
        ("ssh", &format!("command=\"reboot\" {KEY}")),
        ("engine", "https://user@engine.example.org/"),
        ("engine", "http://engine.example.org/"),
        ("storage", "/etc/shadow"),
        ("ntp", "192.0.2.300"),
        ("dns", "fe80::1"),
        ("dns", "ns.example.org"),
    ] {
        let want = Key::named(word).unwrap().row().takes;
        assert!(
            matches!(refused(word, value), SettingError::Value { want: found, .. } if found == want),
            "{word} {value}"
        );
    }
}

#[test]
fn a_key_that_was_cut_is_no_key() {
    let mut words = KEY.split(' ');
    let (kind, base64) = (words.next().unwrap(), words.next().unwrap());
    assert!(SshKey::parse(&format!("{kind} {base64}")).is_some());
    for cut in 0..base64.len() {
        assert!(SshKey::parse(&format!("{kind} {}", &base64[..cut])).is_none(), "{cut}");
    }
    assert!(SshKey::parse(&format!("ssh-rsa {base64}")).is_none(), "another type than the key says");
    assert!(SshKey::parse("-----BEGIN OPENSSH PRIVATE KEY-----").is_none());
    assert_eq!(SshKey::parse(KEY).unwrap().short(), "ssh-ed25519 ..Gw54qGXwxjv2 admin@example.org");
}

#[test]
fn a_link_keeps_the_rules_of_the_payload() {
    match refused("link", "eth0,192.0.2.10/24,2001:db8::10/64,mtu=576") {
        SettingError::Link { problem: Problem::Value(why), .. } => assert!(why.contains("1280"), "{why}"),
        other => panic!("{other:?}"),
    }
    let twice = "via=192.0.2.1";
    for (value, given) in [
        ("eth0,dhcp4,via=192.0.2.1,via=192.0.2.1", twice),
        ("eth0,dhcp5", "dhcp5"),
        ("eth0,mtu=x", "mtu=x"),
        ("eth0,via=here", "via=here"),
        ("", ""),
    ] {
        match refused("link", value) {
            SettingError::Value { given: found, .. } => assert_eq!(found, *given, "{value}"),
            other => panic!("{value}: {other:?}"),
        }
    }
    let twice = Settings::from_words([("link", "eth0,dhcp4"), ("link", "eth0,slaac")].into_iter());
    assert_eq!(twice, Err(SettingError::Twice));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    assert_eq!(refused("search", "example.org"), SettingError::NoNameServer);
    let twice = |one, other| Settings::from_words([("hostname", one), ("hostname", other)].into_iter());
    assert_eq!(twice("a", "b"), Err(SettingError::Twice));
    assert!(twice("a", "a").is_ok(), "boot loaders append words");
    let four = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.3", "192.0.2.4"].map(|server| ("dns", server));
    assert_eq!(Settings::from_words(four.into_iter()), Err(SettingError::TooMany(3)));
    for (word, nearest) in [
        ("hostnam", "hostname"),
        ("nameserver", "hostname"),
        ("ssh_key", "ssh"),
        ("rootpw", "password"),
        ("tz", "timezone"),
    ] {
        let error = refused(word, "x");
        if word != "nameserver" {
            assert_eq!(error, SettingError::Unknown(nearest), "{word}");
        }
    }
}

#[test]
fn each_way_of_a_syslog_server() {
    for (given, want) in [
        ("log.example.org", "udp:log.example.org:514"),
        ("192.0.2.5:1514", "udp:192.0.2.5:1514"),
        ("udp:[2001:db8::5]", "udp:[2001:db8::5]:514"),
        ("tcp:log.example.org:6514", "tcp:log.example.org:6514"),
    ] {
        assert_eq!(Syslog::parse(given).unwrap().to_string(), want);
    }
}

#[test]
fn settings_as_toml() {
    let mut settings = Settings::default();
    settings.add(Key::Hostname, "node1").unwrap();
    settings.add(Key::Dns, "192.0.2.53").unwrap();
    settings.add(Key::Ssh, &format!("{KEY} \"the\\admin\"")).unwrap();
    let key = format!("{KEY} \\\"the\\\\admin\\\"");
    assert_eq!(
        *settings.to_toml(),
        format!("[set]\nhostname = \"node1\"\ndns = [\"192.0.2.53\"]\nssh = [\"{key}\"]\n")
    );
}

proptest! {
    /// What a setting says of itself means the same.
    #[test]
    fn texts_are_read_again(key in 0usize..SETTINGS.len(), text in "[ -~]{0,60}", good in 0usize..TYPICAL.len()) {
        let key = SETTINGS[key].key;
        for text in [text.as_str(), TYPICAL[good].1] {
            let mut settings = Settings::default();
            if settings.add(key, text).is_ok() {
                let mut again = Settings::default();
                for text in settings.texts(key) {
                    again.add(key, &text).unwrap();
                }
                prop_assert_eq!(&settings, &again);
                settings.clear(key);
                prop_assert!(settings.is_empty());
            }
        }
    }
}
