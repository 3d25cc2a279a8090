//! What frames tell of the switch at the other end: LLDP (IEEE 802.1AB-2016) and tags of VLANs (IEEE 802.1Q-2018 §9.6). No sockets
//! here. Nobody vouches for what a neighbour says of itself: it is for people to read, and nothing is decided by it.

use std::fmt;

use crate::hex;
use crate::shown::Printable;

/// The EtherType of LLDP.
pub const ETHERTYPE: u16 = 0x88cc;
/// The group address that bridges do not forward (IEEE 802.1AB-2016 §7.1).
pub const GROUP: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0x0e];

/// The longest text of a neighbour that is shown, in characters. TLVs may have 255.
const MOST: usize = 64;

// Types of TLVs (IEEE 802.1AB-2016 §8.4).
const END: u8 = 0;
const CHASSIS: u8 = 1;
const PORT: u8 = 2;
const TIME_TO_LIVE: u8 = 3;
const PORT_DESCRIPTION: u8 = 4;
const SYSTEM_NAME: u8 = 5;
const ORGANIZATION: u8 = 127;
/// IEEE 802.1, and its subtypes for the VLAN of untagged frames and for that of management (IEEE 802.1Q-2018 §D.2).
const IEEE_802_1: [u8; 3] = [0x00, 0x80, 0xc2];
const PORT_VLAN: u8 = 1;
const MANAGEMENT_VLAN: u8 = 6;

/// The port of a switch that a link leads to, as it says itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Neighbour {
    /// Its address or name as a device.
    pub chassis: Printable,
    /// The port.
    pub port: Printable,
    /// What somebody has written about the port; may be empty.
    pub description: Printable,
    /// The system's name; may be empty.
    pub system: Printable,
    /// How long this holds, in seconds; 0: the neighbour goes away.
    pub seconds: u16,
    /// The VLAN of frames without a tag.
    pub vlan: Option<u16>,
    /// The VLAN of the switch's own management.
    pub management_vlan: Option<u16>,
}

/// Decodes what stands behind the Ethernet header. `None`: not LLDP, or damaged. TLVs that are not known are skipped.
pub fn decode(bytes: &[u8]) -> Option<Neighbour> {
    let (chassis, rest) = mandatory(bytes, CHASSIS)?;
    let (port, rest) = mandatory(rest, PORT)?;
    let (seconds, mut rest) = mandatory(rest, TIME_TO_LIVE)?;
    let mut found = Neighbour {
        chassis: id(chassis, [4, 5])?,
        port: id(port, [3, 4])?,
        seconds: u16::from_be_bytes(*seconds.first_chunk()?),
        ..Neighbour::default()
    };
    // A TLV that stands there twice says the same (§9.2.8.7.1), or the first counts.
    while let Some((kind, value, behind)) = tlv(rest) {
        rest = behind;
        match kind {
            END => return Some(found),
            // The first three TLVs stand there once (§9.2.8.7.2).
            CHASSIS | PORT | TIME_TO_LIVE => return None,
            PORT_DESCRIPTION if found.description.is_empty() => found.description = text(value),
            SYSTEM_NAME if found.system.is_empty() => found.system = text(value),
            ORGANIZATION => {
                let Some((subtype, value)) = value.strip_prefix(&IEEE_802_1).and_then(<[u8]>::split_first) else {
                    continue;
                };
                let vlan = value.first_chunk().map(|id| u16::from_be_bytes(*id)).and_then(vlan);
                match *subtype {
                    PORT_VLAN => found.vlan = found.vlan.or(vlan),
                    MANAGEMENT_VLAN => found.management_vlan = found.management_vlan.or(vlan),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    // Senders leave the end out where the frame ends, too; a TLV that is longer than the frame is damage.
    rest.is_empty().then_some(found)
}

/// The VLAN of a tag, from its 16 bits (§9.6). `None`: priority only, or a number that no VLAN has.
pub fn vlan(tci: u16) -> Option<u16> {
    Some(tci & 0x0fff).filter(|id| (1..=4094).contains(id))
}

/// The VLAN of a whole frame whose tag the kernel has not taken off.
pub fn vlan_of_frame(frame: &[u8]) -> Option<u16> {
    let (kind, rest) = frame.get(12..)?.split_first_chunk::<2>()?;
    // IEEE 802.1Q-2018 §9.5: a customer's tag, and a service's.
    matches!(kind, [0x81, 0x00] | [0x88, 0xa8])
        .then(|| rest.first_chunk().map(|tci| u16::from_be_bytes(*tci)))?
        .and_then(vlan)
}

/// Type, value, and what is behind. `None`: the bytes end inside it.
fn tlv(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([first, second], rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::from(first & 1) << 8 | usize::from(*second);
    let (value, behind) = rest.split_at_checked(length)?;
    Some((first >> 1, value, behind))
}

/// The value of a TLV that has to stand here.
fn mandatory(bytes: &[u8], want: u8) -> Option<(&[u8], &[u8])> {
    tlv(bytes).filter(|(kind, ..)| *kind == want).map(|(_, value, rest)| (value, rest))
}

/// Subtype and identifier (§8.5.2, §8.5.3): these subtypes are a hardware and a network address, the others text.
fn id(value: &[u8], [mac, address]: [u8; 2]) -> Option<Printable> {
    let (subtype, id) = value.split_first()?;
    if id.is_empty() || id.len() > 255 {
        return None;
    }
    Some(match (*subtype, id) {
        (kind, [_, _, _, _, _, _]) if kind == mac => Printable::of(&hex::separated(id, ":")),
        // The family is one of IANA's address families: 1 is IPv4, 2 is IPv6.
        (kind, [1, a, b, c, d]) if kind == address => {
            Printable::of(&std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string())
        }
        (kind, [2, six @ ..]) if kind == address && six.len() == 16 => {
            let six: [u8; 16] = six.try_into().ok()?;
            Printable::of(&std::net::Ipv6Addr::from(six).to_string())
        }
        _ if id.iter().all(|byte| matches!(byte, b' '..=b'~')) => text(id),
        _ => Printable::up_to(&hex::separated(id, ":"), MOST),
    })
}

/// Some senders end a text with a NUL.
fn text(value: &[u8]) -> Printable {
    Printable::up_to(String::from_utf8_lossy(value).trim_end_matches('\0').trim(), MOST)
}

/// `switch sw1 port ge-0/0/1, untagged frames are VLAN 10`
impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let system = if self.system.is_empty() { &self.chassis } else { &self.system };
        write!(f, "switch {system} port {}", self.port)?;
        if !self.description.is_empty() && self.description != self.port {
            write!(f, " ({})", self.description)?;
        }
        match self.vlan {
            Some(vlan) => write!(f, ", untagged frames are VLAN {vlan}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(kind: u8, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        let head = u16::from(kind) << 9 | length;
        [&head.to_be_bytes()[..], value].concat()
    }

    fn least() -> Vec<u8> {
        [put(1, b"\x04\x00\x1b\x21\x00\x00\x01"), put(2, b"\x05ge-0/0/1"), put(3, &[0, 120])].concat()
    }

    /// Built by the tables of IEEE 802.1AB-2016 §8.5 and IEEE 802.1Q-2018 §D.2.
    #[test]
    fn a_switch_with_everything() {
        let frame = [
            least(),
            put(4, b"node7, rack 3"),
            put(5, b"sw1.example.org\0"),
            put(6, b"A switch"),
            put(7, &[0, 4, 0, 4]),
            put(8, &[5, 1, 192, 0, 2, 1, 2, 0, 0, 0, 1, 0]),
            put(127, &[0x00, 0x80, 0xc2, 1, 0x00, 0x0a]),
            put(127, &[0x00, 0x80, 0xc2, 6, 0x00, 0x63]),
            put(127, &[0x00, 0x12, 0x0f, 1, 3, 0, 0, 0, 0x1e]),
            put(0, &[]),
            vec![0xff; 20],
        ]
        .concat();
        let found = decode(&frame).unwrap();
        assert_eq!((found.chassis.as_str(), found.port.as_str()), ("00:1b:21:00:00:01", "ge-0/0/1"));
        assert_eq!((found.system.as_str(), found.description.as_str()), ("sw1.example.org", "node7, rack 3"));
        assert_eq!((found.seconds, found.vlan, found.management_vlan), (120, Some(10), Some(99)));
        let want = "switch sw1.example.org port ge-0/0/1 (node7, rack 3), untagged frames are VLAN 10";
        assert_eq!(found.to_string(), want);
    }

    #[test]
    fn the_least_and_what_is_less() {
        let found = decode(&least()).unwrap();
        assert_eq!(found.to_string(), "switch 00:1b:21:00:00:01 port ge-0/0/1");
        for end in 0..least().len() {
            assert_eq!(decode(&least()[..end]), None, "{end}");
        }
        // What lies about its length, what stands there twice, in another order, or without an identifier.
        let [chassis, port, time] = [put(1, b"\x07a"), put(2, b"\x07b"), put(3, &[0, 1])];
        assert!(decode(&[&chassis[..], &port, &time].concat()).is_some());
        for bad in [
            [least(), vec![0x08, 0x05, b'x']].concat(),
            [least(), vec![0x08]].concat(),
            [least(), chassis.clone()].concat(),
            [port.clone(), chassis.clone(), time.clone()].concat(),
            [put(1, b"\x07"), port.clone(), time.clone()].concat(),
            [put(1, &[7; 257]), port.clone(), time.clone()].concat(),
            [chassis.clone(), port.clone(), put(3, &[1])].concat(),
        ] {
            assert_eq!(decode(&bad), None, "{bad:02x?}");
        }
        assert_eq!(decode(&[chassis, port, put(3, &[0, 1, 2]), put(0, &[])].concat()).unwrap().seconds, 1);
    }

    /// Attack: a neighbour that would drive the console, or fill it.
    #[test]
    fn words_of_a_neighbour_are_harmless_and_short() {
        let system = put(5, &b"\x1b[2J\nroot: ".repeat(20));
        let found = decode(&[least(), system].concat()).unwrap();
        assert!(found.to_string().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{found}");
        let long =
            decode(&[put(1, &[7; 200]), put(2, &[[5].as_slice(), &[b'x'; 255]].concat()), put(3, &[0, 1])].concat());
        let long = long.unwrap().to_string();
        assert!(long.len() < 160, "{long}");
    }

    #[test]
    fn identifiers_of_every_kind() {
        for (subtype, id, want) in [
            (4, &[0, 0x1b, 0x21, 0, 0, 1][..], "00:1b:21:00:00:01"),
            (4, &[0, 0x1b], "00:1b"),
            (5, &[1, 192, 0, 2, 1], "192.0.2.1"),
            (5, &[2, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "2001:db8::1"),
            (5, &[9, 1], "09:01"),
            (7, b"rack 3", "rack 3"),
            (1, &[0xff, 0], "ff:00"),
        ] {
            let chassis = [&[subtype], id].concat();
            let found = decode(&[put(1, &chassis), put(2, b"\x05p"), put(3, &[0, 1])].concat()).unwrap();
            assert_eq!(found.chassis.as_str(), want);
        }
    }

    #[test]
    fn tags() {
        assert_eq!(
            [0x000a, 0xe00a, 0x0000, 0x0fff, 0xffff, 0x0ffe].map(vlan),
            [Some(10), Some(10), None, None, None, Some(4094)]
        );
        let frame = |kind: [u8; 2], tci: [u8; 2]| [&[0; 12][..], &kind, &tci, &[8, 0]].concat();
        assert_eq!(vlan_of_frame(&frame([0x81, 0], [0x60, 20])), Some(20));
        assert_eq!(vlan_of_frame(&frame([0x88, 0xa8], [0, 7])), Some(7));
        assert_eq!(vlan_of_frame(&frame([0x08, 0], [0, 7])), None);
        assert_eq!(vlan_of_frame(&frame([0x81, 0], [0, 7])[..15]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = (decode(&bytes), vlan_of_frame(&bytes));
            let _ = decode(&[least(), bytes].concat());
        }
    }
}
