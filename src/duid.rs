//! How a machine names itself to DHCP servers beside its hardware addresses: the DUID of RFC 8415 §11 and RFC 6355, the number of an
//! interface (IAID), and the client identifier of RFC 4361 that is made of both. To bytes only: never asks for them, never stores them.

/// A DUID: by the machine's UUID (type 4, RFC 6355 §4) where it has one, so that it is the same over each of its links and in each
/// system on it; else by the link's hardware type and address (type 3, RFC 8415 §11.4).
pub fn duid(uuid: Option<[u8; 16]>, hardware: u16, mac: &[u8]) -> Vec<u8> {
    match uuid {
        Some(uuid) => [&[0, 4][..], &uuid].concat(),
        None => [&[0, 3][..], &hardware.to_be_bytes(), mac].concat(),
    }
}

/// The number of an interface: the end of its hardware address, which differs between the links of one machine and stays the same
/// from boot to boot (RFC 8415 §12).
pub fn iaid(mac: &[u8]) -> [u8; 4] {
    mac.last_chunk::<4>().copied().unwrap_or_default()
}

/// The value of DHCPv4's option 61 (RFC 4361 §6.1): a type, the IAID and the DUID.
pub fn client_id(uuid: Option<[u8; 16]>, hardware: u16, mac: &[u8]) -> Vec<u8> {
    [&[CLIENT_ID][..], &iaid(mac), &duid(uuid, hardware, mac)].concat()
}

/// The type of such a client identifier.
const CLIENT_ID: u8 = 255;

/// IAID and DUID of a client identifier; `None`: it is of another kind.
pub fn parts(client_id: &[u8]) -> Option<([u8; 4], &[u8])> {
    let (iaid, duid) = client_id.strip_prefix(&[CLIENT_ID])?.split_first_chunk()?;
    Some((*iaid, duid))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    #[test]
    fn by_the_uuid_or_by_the_link() {
        // RFC 6355 §4 and RFC 8415 §11.4: type, and then the UUID; or the hardware type and address.
        let uuid: [u8; 16] = std::array::from_fn(|i| i as u8);
        assert_eq!(duid(Some(uuid), 1, &MAC), *b"\0\x04\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f");
        assert_eq!(duid(None, 1, &MAC), *b"\0\x03\0\x01\x52\x54\0\x12\x34\x56");
        assert_eq!(duid(None, 32, &[7; 20]).len(), 24);
        assert_eq!((iaid(&MAC), iaid(&[1])), ([0, 0x12, 0x34, 0x56], [0; 4]));
    }

    #[test]
    fn a_client_identifier_has_both() {
        let id = client_id(None, 1, &MAC);
        assert_eq!(id, *b"\xff\0\x12\x34\x56\0\x03\0\x01\x52\x54\0\x12\x34\x56");
        assert_eq!(parts(&id), Some((iaid(&MAC), &duid(None, 1, &MAC)[..])));
        assert_eq!((parts(&[1, 2, 3, 4, 5, 6, 7]), parts(&[255, 1])), (None, None));
    }
}
