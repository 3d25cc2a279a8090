//! The header of swap space, as mkswap(8) writes it (include/linux/swap.h, union swap_header). Never writes it anywhere.

/// The label that `swapon --show` and blkid show.
const LABEL: &[u8] = b"imprint";
/// SWAP_HEADER_VERSION
const VERSION: u32 = 1;
/// The end of the first page.
const MAGIC: &[u8] = b"SWAPSPACE2";
/// `bootbits`: the first fields stand behind so many bytes.
const FIELDS: usize = 1024;

/// The first page of swap space of so many bytes. `None`: it is too small, or no machine has such pages.
pub(super) fn page(page: usize, bytes: u64, uuid: &[u8; 16]) -> Option<Vec<u8>> {
    let pages = bytes.checked_div(u64::try_from(page).ok()?)?;
    // The kernel does not use more pages than this number can name.
    let last = u32::try_from(pages.checked_sub(1)?).unwrap_or(u32::MAX);
    if last == 0 || !page.is_power_of_two() || page < 4096 {
        return None;
    }
    let mut header = vec![0; page];
    let no_bad_pages = 0u32;
    let numbers = [VERSION, last, no_bad_pages].into_iter().flat_map(u32::to_ne_bytes);
    let fields = numbers.chain(*uuid).chain(LABEL.iter().copied());
    header.iter_mut().skip(FIELDS).zip(fields).for_each(|(place, byte)| *place = byte);
    let end = header.get_mut(page.checked_sub(MAGIC.len())?..)?;
    end.copy_from_slice(MAGIC);
    Some(header)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// mkswap of util-linux is the peer: with the same UUID and label it writes the same page.
    #[test]
    fn the_same_as_mkswap_writes() {
        let work = tempfile::tempdir().unwrap();
        let (file, bytes) = (work.path().join("swap"), 3 * 1024 * 1024 + 4096);
        std::fs::File::create(&file).unwrap().set_len(bytes).unwrap();
        let uuid = "00112233-4455-6677-8899-aabbccddeeff";
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
        let done = Command::new("mkswap").args(["-L", "imprint", "-U", uuid]).arg(&file).env("PATH", path).output();
        let done = done.unwrap_or_else(|error| panic!("mkswap: {error}: run scripts/install-needs test"));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let theirs = std::fs::read(&file).unwrap();
        let size = crate::sys::page_size().unwrap();
        let uuid = core::array::from_fn(|index| index as u8 * 0x11);
        assert_eq!(page(size, bytes, &uuid).unwrap(), theirs[..size]);
    }

    #[test]
    fn sizes_that_no_machine_has() {
        for (size, bytes) in [(0, 1 << 20), (1000, 1 << 20), (2048, 1 << 20), (4096, 4096), (4096, 0), (65_536, 65_536)]
        {
            assert_eq!(page(size, bytes, &[0; 16]), None, "{size} {bytes}");
        }
        let huge = page(4096, u64::MAX, &[0; 16]).unwrap();
        assert_eq!(huge[1028..1032], u32::MAX.to_ne_bytes());
        let large = page(65_536, 1 << 20, &[0; 16]).unwrap();
        assert_eq!((large[1028..1032].to_vec(), &large[65_526..]), (15u32.to_ne_bytes().to_vec(), &b"SWAPSPACE2"[..]));
    }
}
