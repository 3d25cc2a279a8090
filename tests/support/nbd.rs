//! A network block device: over a Unix socket for QEMU, a disk that answers late, or never; and over TCP for the client of a guest. The
//! protocol is that of <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>, as far as those two need it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// A disk. Its thread ends with the connection.
pub struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// A disk with these bytes. The first read takes as long as `delay`, or for ever.
    pub fn start(content: Vec<u8>, delay: Option<Duration>) -> Disk {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // Errors are ignored: the connection ends with QEMU.
                let _ = serve(&mut stream.unwrap(), &content, delay);
            }
        });
        Disk { folder }
    }

    /// The socket for QEMU.
    pub fn socket(&self) -> std::path::PathBuf {
        Path::join(self.folder.path(), "socket")
    }
}

/// A disk with these bytes, which cannot be written to, under any name at this address. Its thread ends with the test.
pub fn serve_tcp(content: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Errors are ignored: the connection ends with the guest.
            let _ = serve(&mut stream.unwrap(), &content, Some(Duration::ZERO));
        }
    });
    address
}

const OPTION: u64 = 0x4948_4156_454f_5054; // "IHAVEOPT"
const GO: u32 = 7;
const ACK: u32 = 1;
const INFO: u32 = 3;
const UNSUPPORTED: u32 = 0x8000_0001;
const READ: u16 = 0;
const DISCONNECT: u16 = 2;

fn serve<S: Read + Write>(stream: &mut S, content: &[u8], delay: Option<Duration>) -> io::Result<()> {
    // Fixed newstyle, no zeroes.
    stream.write_all(&[b"NBDMAGIC", &OPTION.to_be_bytes()[..], &3u16.to_be_bytes()].concat())?;
    take::<4>(stream)?;
    loop {
        take::<8>(stream)?;
        let option = u32::from_be_bytes(take(stream)?);
        let length = u32::from_be_bytes(take(stream)?);
        io::copy(&mut Read::by_ref(stream).take(length.into()), &mut io::sink())?;
        let mut reply = |kind: u32, data: &[u8]| {
            let magic = 0x0003_e889_0455_65a9u64.to_be_bytes();
            let length = u32::try_from(data.len()).unwrap().to_be_bytes();
            stream.write_all(&[&magic[..], &option.to_be_bytes(), &kind.to_be_bytes(), &length, data].concat())
        };
        if option != GO {
            reply(UNSUPPORTED, &[])?;
            continue;
        }
        // The size of the export, and its flags: has flags, read-only.
        let size = u64::try_from(content.len()).unwrap().to_be_bytes();
        reply(INFO, &[&[0, 0], &size[..], &[0, 3]].concat())?;
        reply(ACK, &[])?;
        break;
    }
    let mut first: Option<Instant> = None;
    loop {
        take::<6>(stream)?;
        let kind = u16::from_be_bytes(take(stream)?);
        let cookie: [u8; 8] = take(stream)?;
        let offset = usize::try_from(u64::from_be_bytes(take(stream)?)).unwrap();
        let length = usize::try_from(u32::from_be_bytes(take(stream)?)).unwrap();
        let mut data: &[u8] = &[];
        match (kind, delay) {
            (READ, None) => continue,
            (READ, Some(delay)) => {
                // A disk that spins up delays its first answer.
                std::thread::sleep(delay.saturating_sub(first.get_or_insert_with(Instant::now).elapsed()));
                data = content.get(offset..offset + length).unwrap();
            }
            (DISCONNECT, _) => return Ok(()),
            _ => {}
        }
        stream.write_all(&[&0x6744_6698u32.to_be_bytes()[..], &[0; 4], &cookie, data].concat())?;
    }
}

fn take<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}
