//! Calls of device-mapper to bytes, and its answers back (include/uapi/linux/dm-ioctl.h, in the order of bytes of this machine). Never
//! makes a call, and never holds a key: a table names a key of the kernel's keyring.

/// sizeof(struct dm_ioctl) and sizeof(struct dm_target_spec)
const HEAD: usize = 312;
const SPEC: usize = 40;
/// Places of fields.
const NAME: usize = 48;
const UUID: usize = 176;
/// Their lengths, with a NUL.
const NAME_LEN: usize = 128;
const UUID_LEN: usize = 129;
const KIND_LEN: usize = 16;
/// The version of the interface that is asked for: 4.0.0, which every kernel since 2.6 has.
const VERSION: [u32; 3] = [4, 0, 0];

/// What is asked for. The number is that of the ioctl.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Command {
    /// Make a device without a table.
    Create,
    /// Remove a device that nobody has open.
    Remove,
    /// Use the table that was loaded.
    Resume,
    /// Load a table, which claims the devices in it.
    Load,
}

impl Command {
    /// DM_DEV_CREATE_CMD, DM_DEV_REMOVE_CMD, DM_DEV_SUSPEND_CMD without DM_SUSPEND_FLAG, DM_TABLE_LOAD_CMD
    pub(super) fn number(self) -> u8 {
        match self {
            Command::Create => 3,
            Command::Remove => 4,
            Command::Resume => 6,
            Command::Load => 9,
        }
    }
}

/// A call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Call<'a> {
    /// What is asked for.
    pub command: Command,
    /// The name of the device. Empty: the one with the identifier.
    pub name: &'a str,
    /// An identifier for the device. Beside a name only for [`Command::Create`].
    pub uuid: &'a str,
    /// What the uevent of the call tells udev (libdm, DM_COOKIE).
    pub cookie: u32,
    /// The only target of a table; only for [`Command::Load`].
    pub target: Option<Target<'a>>,
}

/// A target of a table, which begins at sector 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Target<'a> {
    /// In sectors of 512 bytes.
    pub sectors: u64,
    /// `crypt`
    pub kind: &'a str,
    /// What this kind takes.
    pub parameters: &'a str,
}

impl Call<'_> {
    /// `None`: a text is too long, or has a NUL or a slash.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; HEAD];
        if let Some(target) = &self.target {
            bytes.extend(target.encode()?);
        }
        let length = u32::try_from(bytes.len()).ok()?;
        let targets = u32::from(self.target.is_some());
        let numbers =
            [VERSION[0], VERSION[1], VERSION[2], length, u32::try_from(HEAD).ok()?, targets, 0, 0, self.cookie];
        bytes.iter_mut().zip(numbers.into_iter().flat_map(u32::to_ne_bytes)).for_each(|(place, byte)| *place = byte);
        put(bytes.get_mut(NAME..NAME + NAME_LEN)?, self.name)?;
        put(bytes.get_mut(UUID..UUID + UUID_LEN)?, self.uuid)?;
        Some(bytes)
    }
}

impl Target<'_> {
    fn encode(&self) -> Option<Vec<u8>> {
        // The next target would begin at a multiple of eight bytes.
        let length = (SPEC + self.parameters.len() + 1).next_multiple_of(8);
        let mut bytes = Vec::with_capacity(length);
        bytes.extend(0u64.to_ne_bytes());
        bytes.extend(self.sectors.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(u32::try_from(length).ok()?.to_ne_bytes());
        bytes.resize(SPEC, 0);
        put(bytes.get_mut(SPEC - KIND_LEN..)?, self.kind)?;
        bytes.extend(self.parameters.bytes());
        bytes.resize(length, 0);
        (!self.parameters.contains('\0')).then_some(bytes)
    }
}

/// Writes a text into a field that has room for a NUL behind it.
fn put(field: &mut [u8], text: &str) -> Option<()> {
    if text.len() >= field.len() || text.contains(['\0', '/']) {
        return None;
    }
    field.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
    Some(())
}

/// Major and minor number of the device, from the answer (include/linux/kdev_t.h, huge_encode_dev). `None`: it is no answer.
pub(super) fn device(answer: &[u8]) -> Option<(u64, u64)> {
    let number = u64::from_ne_bytes(answer.get(40..48)?.try_into().ok()?);
    Some(((number & 0xf_ff00) >> 8, number & 0xff | number >> 12 & 0xf_ff00))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Call<'_> = Call { command: Command::Create, name: "x", uuid: "u", cookie: 0, target: None };

    /// offsetof and sizeof in a C program on x86_64, and the bytes that `dmsetup create` sends (strace -X raw), with its own name.
    #[test]
    fn a_call_has_the_kernels_layout() {
        let bytes = Call { cookie: 0x004e_0000, ..CALL }.encode().unwrap();
        assert_eq!(bytes.len(), 312);
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        // version, data_size, data_start, target_count, open_count, flags, event_nr
        assert_eq!([0, 4, 8, 12, 16, 20, 24, 28, 32].map(word), [4, 0, 0, 312, 312, 0, 0, 0, 0x004e_0000]);
        assert_eq!((&bytes[48..50], &bytes[176..178]), (&b"x\0"[..], &b"u\0"[..]));
        assert!(bytes[305..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_table_has_the_kernels_layout() {
        let target =
            Target { sectors: 2048, kind: "crypt", parameters: "aes-xts-plain64 :64:logon:imprint:swap 0 253:2 8192" };
        let bytes = Call { command: Command::Load, target: Some(target), ..CALL }.encode().unwrap();
        let spec = &bytes[312..];
        assert_eq!(bytes.len() % 8, 0);
        assert_eq!(u32::from_ne_bytes(bytes[12..16].try_into().unwrap()) as usize, bytes.len(), "data_size");
        assert_eq!(u32::from_ne_bytes(bytes[20..24].try_into().unwrap()), 1, "target_count");
        assert_eq!(u64::from_ne_bytes(spec[8..16].try_into().unwrap()), 2048, "length");
        assert_eq!(u32::from_ne_bytes(spec[20..24].try_into().unwrap()) as usize, spec.len(), "next");
        assert_eq!(&spec[24..30], b"crypt\0");
        assert!(spec[40..].starts_with(b"aes-xts-plain64 :64:logon:imprint:swap 0 253:2 8192\0"));
    }

    #[test]
    fn a_text_that_does_not_fit_is_no_call() {
        let longest = "n".repeat(127);
        assert!(Call { name: &longest, ..CALL }.encode().is_some());
        let (long, uuid) = ("n".repeat(128), "u".repeat(129));
        for call in [
            Call { name: &long, ..CALL },
            Call { uuid: &uuid, ..CALL },
            Call { name: "a/b", ..CALL },
            Call { name: "a\0b", ..CALL },
            Call { target: Some(Target { sectors: 1, kind: "0123456789abcdef", parameters: "" }), ..CALL },
            Call { target: Some(Target { sectors: 1, kind: "crypt", parameters: "a\0b" }), ..CALL },
        ] {
            assert_eq!(call.encode(), None, "{call:?}");
        }
    }

    /// huge_encode_dev(MKDEV(253, 0)) and (MKDEV(253, 300)), by hand.
    #[test]
    fn the_device_is_in_the_answer() {
        let mut answer = vec![0; 312];
        answer[40..48].copy_from_slice(&0xfd00u64.to_ne_bytes());
        assert_eq!(device(&answer), Some((253, 0)));
        answer[40..48].copy_from_slice(&0x0010_fd2cu64.to_ne_bytes());
        assert_eq!(device(&answer), Some((253, 300)));
        assert_eq!(device(&answer[..47]), None);
    }
}
