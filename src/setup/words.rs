//! The words of the dialogue: what a question is called, and how it is explained. Asks nothing.

use crate::payload::HardwareAddress;
use crate::setting::Key;

/// What the question is called. Short: each is sent twice down a line of 9600 bits a second.
pub(super) fn label(key: Key) -> &'static str {
    match key {
        Key::Hostname => "host name",
        Key::Link => "link",
        Key::Dns => "name servers",
        Key::Search => "search domains",
        Key::Ntp => "NTP servers",
        Key::Timezone => "time zone",
        Key::Ssh => "SSH key",
        Key::Syslog => "syslog server",
        Key::Engine => "engine",
        Key::Storage => "storage",
        Key::Password => "root password",
    }
}

/// What `?` shows. `mac`: of the link that is asked about.
pub(super) fn explain(key: Key, mac: Option<&HardwareAddress>, out: &mut Vec<u8>) {
    let row = key.row();
    match key {
        Key::Link => {
            let mac = mac.map_or(String::new(), |mac| format!(" ({mac})"));
            say(
                out,
                &format!(
                    "  what this link{mac} has, with commas or blanks between: dhcp4, slaac, dhcp6, ADDRESS/LENGTH,"
                ),
            );
            say(out, "  via=GATEWAY, route=NETWORK/LENGTH-GATEWAY, mtu=BYTES; - leaves it as the image has it");
        }
        Key::Password => {
            say(out, "  root's password; it is not shown, and only its hash goes into the bundle; - is none");
        }
        _ => {
            say(out, &format!("  {}: {}", row.meaning, row.takes));
            if row.most > 1 {
                let between = if key == Key::Ssh { "one a line" } else { "with commas or blanks between" };
                say(out, &format!("  up to {}, {between}", row.most));
            }
        }
    }
}

/// One line.
pub(super) fn say(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}
