//! Writes a cpio archive with one file in the directory `imprint` that a boot loader appends to an initramfs. Pure: bytes to
//! bytes, and never a file. The "newc" form as the kernel reads it (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::io::Write;

use zeroize::Zeroizing;

/// An archive's length is a multiple of this, in bytes, as with GNU cpio. An archive that follows another has to begin at a
/// multiple of four; boot loaders that join archives pad them, and with this length a plain `cat` works, too.
const BLOCK: usize = 512;
const DIRECTORY: u32 = 0o040_700;
const FILE: u32 = 0o100_600;

/// The file is larger than an archive of this kind can hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} bytes are too many for a cpio archive")]
pub struct TooLong(pub usize);

/// The archive. The same file always gives the same bytes. Wiped on drop, as the file is secret.
pub fn archive(file: &[u8]) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    archive_of("imprint/payload", file)
}

/// The same for a file with another name in `imprint`.
pub fn archive_of(name: &str, file: &[u8]) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    // A header has eight hexadecimal digits for a size.
    u32::try_from(file.len()).map_err(|_| TooLong(file.len()))?;
    // Allocated once: a vector that grows leaves copies of secrets in memory.
    let mut out = Zeroizing::new(Vec::with_capacity(file.len().saturating_add(2 * BLOCK)));
    entry(&mut out, 1, DIRECTORY, 2, "imprint", &[]);
    entry(&mut out, 2, FILE, 1, name, file);
    entry(&mut out, 0, 0, 1, "TRAILER!!!", &[]);
    let end = out.len().next_multiple_of(BLOCK);
    out.resize(end, 0);
    Ok(out)
}

fn entry(out: &mut Vec<u8>, inode: u32, mode: u32, links: u32, name: &str, file: &[u8]) {
    let name_len = name.len().saturating_add(1);
    // Magic; inode, mode, uid, gid, links, mtime, size, major and minor of two devices, length of the name, checksum. The
    // mtime is always 0 (1970): nodes ignore it.
    let header = format!(
        "070701{inode:08X}{mode:08X}{0:08X}{0:08X}{links:08X}{0:08X}{size:08X}{0:08X}{0:08X}{0:08X}{0:08X}{name_len:08X}{0:08X}",
        0,
        size = file.len(),
    );
    let _ = out.write_all(header.as_bytes());
    let _ = out.write_all(name.as_bytes());
    out.push(0);
    align(out);
    let _ = out.write_all(file);
    align(out);
}

fn align(out: &mut Vec<u8>) {
    let end = out.len().next_multiple_of(4);
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

    fn cpio(arguments: &[&str], folder: &Path, archive: &[u8]) -> String {
        let mut child = Command::new("cpio")
            .args(arguments)
            .current_dir(folder)
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cpio is missing: apt-get install cpio");
        child.stdin.take().unwrap().write_all(archive).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// If this test fails, do not change it: the same payload has to give the same archive.
    #[test]
    fn frozen() {
        let archive = archive(b"payload").unwrap();
        let zeros = "0".repeat(8);
        let fields = |fields: [&str; 13]| format!("070701{}", fields.join(""));
        let z = zeros.as_str();
        let folder = fields(["00000001", "000041C0", z, z, "00000002", z, z, z, z, z, z, "00000008", z]);
        let file = fields(["00000002", "00008180", z, z, "00000001", z, "00000007", z, z, z, z, "00000010", z]);
        let last = fields([z, z, z, z, "00000001", z, z, z, z, z, z, "0000000B", z]);
        let want = format!(
            "{folder}imprint\0\0\0{file}imprint/payload\0\0\0payload\0{last}TRAILER!!!\0\0\0\0{}",
            "\0".repeat(132)
        );
        assert_eq!(String::from_utf8(archive.to_vec()).unwrap(), want);
        assert_eq!(archive.len(), 512);
    }

    /// GNU cpio lists and unpacks it, and the agent finds what it unpacked.
    #[test]
    fn gnu_cpio_and_the_agent_read_it() {
        // Lengths around each boundary of four and of a block.
        for length in [0, 1, 2, 3, 4, 5, 119, 120, 121, 575, 65_536] {
            let file: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let archive = archive(&file).unwrap();
            assert_eq!(archive.len() % BLOCK, 0);
            let work = tempfile::tempdir().unwrap();
            let listed = cpio(&["-itv", "--quiet", "--numeric-uid-gid"], work.path(), &archive);
            let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
            let [folder, payload] = lines.as_slice() else { panic!("{listed}") };
            assert_eq!((folder[0], folder[2], folder[8]), ("drwx------", "0", "imprint"), "{listed}");
            let size = length.to_string();
            assert_eq!(payload[..5], ["-rw-------", "1", "0", "0", size.as_str()], "{listed}");
            assert_eq!(payload[5..], ["Jan", "1", "1970", "imprint/payload"], "{listed}");

            cpio(&["-id", "--quiet", "--no-preserve-owner"], work.path(), &archive);
            let mode = |name: &str| work.path().join(name).metadata().unwrap().permissions().mode() & 0o7777;
            assert_eq!((mode("imprint"), mode("imprint/payload")), (0o700, 0o600));
            let found = imprint::source::file::initramfs(work.path()).unwrap();
            assert_eq!(found.bytes.expose(), file);
        }
    }
}
