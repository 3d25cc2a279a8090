//! How a machine names itself and its links to DHCP servers (RFC 8415 §11 and §12, RFC 6355): DUID and IAID, and DHCPv4's client
//! identifier that is made of both (RFC 4361). Pure: reads no firmware, and never asks a server.

use std::fmt;

use crate::payload::HardwareAddress;

/// The longest DUID, its type included (RFC 8415 §11.1).
const LONGEST: usize = 130;
/// DUID types (RFC 8415 §11.4, RFC 6355 §4).
const LINK_LAYER: u16 = 3;
const UUID: u16 = 4;
/// The type of a client identifier that has IAID and DUID (RFC 4361 §6.1).
const CLIENT_ID: u8 = 255;

/// The identifier of a client or a server: its type in two bytes, and what belongs to that type.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Duid(Vec<u8>);

impl Duid {
    /// `None`: shorter than a type and one byte, or longer than 130 bytes.
    pub fn new(bytes: &[u8]) -> Option<Duid> {
        (3..=LONGEST).contains(&bytes.len()).then(|| Duid(bytes.to_vec()))
    }

    /// DUID-UUID where firmware gives the machine a UUID of its own (never a placeholder), which is also what UEFI's network
    /// boot uses; else DUID-LL of the link. Both need no storage, so they are the same in each boot. `hardware`: ARPHRD_….
    pub fn of_machine(uuid: Option<&[u8; 16]>, hardware: u16, mac: &HardwareAddress) -> Duid {
        Duid(match uuid {
            Some(uuid) => [&UUID.to_be_bytes()[..], uuid].concat(),
            None => [&LINK_LAYER.to_be_bytes()[..], &hardware.to_be_bytes(), mac.as_bytes()].concat(),
        })
    }

    /// The whole identifier.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The type in the words of systemd.network(5), `DUIDType=`, and the bytes behind it.
    pub fn parts(&self) -> (&'static str, &[u8]) {
        match self.0.split_first_chunk::<2>() {
            Some((&[0, 4], rest)) => ("uuid", rest),
            Some((_, rest)) => ("link-layer", rest),
            None => ("link-layer", &[]),
        }
    }
}

/// `00:04:4c:4c:45:44:…`
impl fmt::Display for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::hex::separated(&self.0, ":"))
    }
}

/// The identifier of a link's association: the last four bytes of its hardware address, as NetworkManager (`dhcp-iaid=mac`)
/// and dhcpcd have it. systemd-networkd takes this number instead of its own if its file says so.
pub fn iaid(mac: &HardwareAddress) -> u32 {
    mac.as_bytes().last_chunk::<4>().copied().map_or(0, u32::from_be_bytes)
}

/// Who asks, and for which link. The next stage keeps both, or it would get another address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The client.
    pub duid: Duid,
    /// Its link.
    pub iaid: u32,
}

impl Identity {
    /// `uuid`: that of the machine, if firmware gives one and it is no placeholder.
    pub fn new(uuid: Option<&[u8; 16]>, hardware: u16, mac: &HardwareAddress) -> Identity {
        Identity { duid: Duid::of_machine(uuid, hardware, mac), iaid: iaid(mac) }
    }
    /// The value of DHCPv4's option 61 (RFC 4361 §6.1): a type, the IAID and the DUID.
    pub fn client_id(&self) -> Vec<u8> {
        [&[CLIENT_ID][..], &self.iaid.to_be_bytes(), self.duid.as_bytes()].concat()
    }

    /// The reverse of [`Identity::client_id`]. `None`: a client identifier of another kind.
    pub fn of_client_id(client_id: &[u8]) -> Option<Identity> {
        let (iaid, duid) = client_id.strip_prefix(&[CLIENT_ID])?.split_first_chunk()?;
        Some(Identity { duid: Duid::new(duid)?, iaid: u32::from_be_bytes(*iaid) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_identifier_has_both() {
        let mac = HardwareAddress::new(&[0x52, 0x54, 0, 0x12, 0x34, 0x56]).unwrap();
        let identity = Identity::new(None, 1, &mac);
        let id = identity.client_id();
        assert_eq!(id, *b"\xff\0\x12\x34\x56\0\x03\0\x01\x52\x54\0\x12\x34\x56");
        assert_eq!(Identity::of_client_id(&id), Some(identity));
        // RFC 6355 §4: type, and then the UUID.
        let uuid: [u8; 16] = std::array::from_fn(|i| i as u8);
        assert_eq!(Duid::of_machine(Some(&uuid), 1, &mac).as_bytes(), [&[0, 4][..], &uuid].concat());
        assert_eq!((Identity::of_client_id(&[1, 2, 3, 4, 5, 6, 7]), Identity::of_client_id(&[255, 1])), (None, None));
    }
}
