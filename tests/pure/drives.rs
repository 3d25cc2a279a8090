//! Tests of the process that reads a drive: what it can still do after it has given up its rights, and how it handles
//! drives that are slow, hostile, or hold remains of an older use.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use imprint::payload::MAX_LEN;
use imprint::source::config_drive::{Search, Wanted, find};
use imprint::source::reader::WORD;
use imprint::source::{Found, SourceError};
use imprint::time::Deadline;
use imprint_tests::programs;

use super::volumes::run as tool;

/// Nothing that works takes as long.
const LONG: Duration = Duration::from_secs(120);

/// A child that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Each attempt works without confinement, and the kernel ends the process that makes it with.
#[test]
fn whoever_takes_a_reader_over_can_open_nothing_and_start_nothing() {
    const SIGSYS: i32 = 31;
    let probe = |attempt: &str, confined: &[&str]| {
        let mut command = Command::new(programs::probe());
        let status = command.arg(attempt).args(confined).stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        (status.code(), status.signal())
    };
    assert_eq!(probe("nothing", &["confined"]), (Some(0), None), "it can end");
    for attempt in
        ["inet", "listen", "unix", "pair", "pipe", "dup", "open", "write", "thread", "start", "signal", "user", "stat"]
    {
        assert_eq!(probe(attempt, &[]), (Some(0), None), "{attempt}, if it were not confined");
        assert_eq!(probe(attempt, &["confined"]), (None, Some(SIGSYS)), "{attempt}");
    }
}

/// An ISO image with this label, and a payload of this length.
fn iso(folder: &Path, label: &str, length: usize) -> PathBuf {
    let drive = folder.join(format!("drive-{label}"));
    std::fs::create_dir_all(drive.join("imprint")).unwrap();
    std::fs::write(drive.join("imprint/payload"), vec![7; length]).unwrap();
    let image = folder.join(format!("{label}.iso"));
    tool("genisoimage", &["-quiet", "-V", label, "-o", image.to_str().unwrap(), drive.to_str().unwrap()]);
    image
}

/// The reader itself, as the agent starts it, held where it writes its answer: nobody takes that, and a pipe does not hold a
/// payload of 64 KiB.
#[test]
fn a_reader_has_given_up_everything_before_it_reads() {
    let temp = tempfile::tempdir().unwrap();
    let image = iso(temp.path(), "IMPRINT", MAX_LEN);
    // Whatever else is open when the agent starts it: a shell's own file, for example.
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$@\" 7</etc/passwd", "sh"])
        .arg(programs::agent())
        .arg(WORD)
        .arg(&image)
        .args(["whole", "IMPRINT"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut reader = Running(child);
    let mut pipe = reader.0.stdout.take().unwrap();
    // The first byte of the answer: what came before it is over.
    pipe.read_exact(&mut [0]).unwrap();
    let proc = PathBuf::from(format!("/proc/{}", reader.0.id()));
    let status = std::fs::read_to_string(proc.join("status")).unwrap();
    let status: BTreeMap<&str, &str> =
        status.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect();
    for (name, want) in [
        ("Seccomp", "2"),
        ("NoNewPrivs", "1"),
        ("Groups", ""),
        ("Threads", "1"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
    ] {
        assert_eq!(status[name], want, "{name}");
    }
    for name in ["Uid", "Gid"] {
        assert_eq!(status[name].split_whitespace().collect::<Vec<_>>(), ["65534"; 4], "{name}");
    }
    let limits = std::fs::read_to_string(proc.join("limits")).unwrap();
    for limit in ["Max open files", "Max file size", "Max processes", "Max core file size"] {
        let line = limits.lines().find_map(|line| line.strip_prefix(limit)).unwrap();
        assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), ["0"; 2], "{limit}");
    }
    // Input and errors go nowhere, output to the pipe, and the one more is the drive, which it can only read.
    let mut open: Vec<(String, PathBuf)> = std::fs::read_dir(proc.join("fd"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path().read_link().unwrap()))
        .collect();
    open.sort();
    let [(_, input), (_, output), (_, errors), (number, drive)] = &open[..] else { panic!("{open:?}") };
    assert_eq!((input.as_path(), errors.as_path()), (Path::new("/dev/null"), Path::new("/dev/null")));
    assert!(output.to_str().unwrap().starts_with("pipe:") && *drive == image, "{open:?}");
    let flags = std::fs::read_to_string(proc.join("fdinfo").join(number)).unwrap();
    let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    assert_eq!(u32::from_str_radix(flags, 8).unwrap() & 3, 0, "opened for reading only: {flags}");
}

/// A root with these drives on a PCI bus, by their kernel names.
fn root(drives: &[(&str, &Path)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("sys/block")).unwrap();
    std::fs::create_dir_all(root.path().join("dev")).unwrap();
    for (name, image) in drives {
        let target = format!("../devices/pci0000:00/0000:00:01.1/ata2/host1/target1:0:0/1:0:0:0/block/{name}");
        std::os::unix::fs::symlink(target, root.path().join("sys/block").join(name)).unwrap();
        std::os::unix::fs::symlink(image, root.path().join("dev").join(name)).unwrap();
    }
    root
}

fn search(drives: &[(&str, &Path)], insist: bool, patience: Duration) -> Result<Result<Found, String>, SourceError> {
    let program = programs::agent();
    let root = root(drives);
    let search = Search {
        wanted: &[Wanted::Label(None)],
        named: false,
        pinned: false,
        insist,
        patience,
        program: &program,
        other: None,
    };
    find(&search, root.path(), Deadline::after(LONG), &mut |_| {})
}

/// A search in an image with a site pin: partitions count, too.
pub(super) fn with_partitions(drives: &[(&str, &Path)]) -> Result<Result<Found, String>, SourceError> {
    let program = programs::agent();
    let root = root(drives);
    let search = Search {
        wanted: &[Wanted::Label(None), Wanted::Partition],
        named: false,
        pinned: true,
        insist: false,
        patience: LONG,
        program: &program,
        other: None,
    };
    find(&search, root.path(), Deadline::after(LONG), &mut |_| {})
}

/// An ISO image or a FAT image with this file in the place of a payload.
fn drive_with(folder: &Path, format: &str, file: &Path) -> PathBuf {
    let image = folder.join(format!("drive.{format}"));
    let (path, file) = (image.to_str().unwrap(), file.to_str().unwrap());
    if format == "iso" {
        let graft = format!("imprint/payload={file}");
        tool("genisoimage", &["-quiet", "-V", "IMPRINT", "-graft-points", "-o", path, &graft]);
    } else {
        let _ = std::fs::remove_file(&image);
        tool("mkfs.fat", &["-n", "IMPRINT", "-C", path, "1440"]);
        tool("mmd", &["-i", path, "::/imprint"]);
        tool("mcopy", &["-i", path, file, "::/imprint/payload"]);
    }
    image
}

/// The accident: somebody wrote the wrong file to the drive. The error names its form, even if the file is too long for
/// a payload: then the beginning is read.
#[test]
fn a_foreign_file_in_the_place_of_a_payload_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    let typical = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/data/payload-typical.cbor")).unwrap();
    std::fs::write(at("long"), [typical, vec![7; 100_000]].concat()).unwrap();
    std::fs::write(at("base64"), tool("base64", &[&at("long")])).unwrap();
    let hex = imprint::hex::encode(&std::fs::read(at("long")).unwrap());
    std::fs::write(at("hex"), hex.as_bytes().chunks(60).collect::<Vec<_>>().join(&b'\n')).unwrap();
    std::fs::write(at("image"), std::fs::read(iso(temp.path(), "OTHER", 100)).unwrap()).unwrap();
    std::fs::write(at("noise"), (0..=250u8).cycle().take(100_000).collect::<Vec<_>>()).unwrap();
    tool("gzip", &["-1", "-k", "-n", &at("image")]);
    let padded = [std::fs::read(at("image.gz")).unwrap(), vec![0; 70_000]].concat();
    std::fs::write(at("gzip"), padded).unwrap();
    for (file, what) in [
        (
            "base64",
            "it is a payload in base64; decode it with base64 -d, or use the output of imprint-host payload NODE --as cbor",
        ),
        (
            "hex",
            "it is a payload in hexadecimal digits; decode it with xxd -r -p, or use the output of imprint-host payload NODE --as cbor",
        ),
        (
            "image",
            "it is an ISO 9660 image; attach it as an optical drive, or use the output of imprint-host payload NODE --as cbor",
        ),
        ("gzip", "it is a gzip file; unpack it first, or use the output of imprint-host payload NODE --as cbor"),
        ("long", "put a payload there"),
        ("noise", "put a payload there"),
    ] {
        let len = std::fs::metadata(at(file)).unwrap().len();
        assert!(len > MAX_LEN.try_into().unwrap(), "{file}: {len}");
        let want = format!("imprint/payload has {len} bytes, a payload has at most 65536; {what}");
        for format in ["iso", "fat"] {
            let drive = drive_with(temp.path(), format, Path::new(&at(file)));
            let error = search(&[("sr0", &drive)], false, LONG).err().unwrap();
            let said = imprint::chain::chain(&error);
            assert!(said.ends_with(&want), "{file} on {format}: {said}");
        }
    }
}

/// A stick as people make them: partitioned by sfdisk, and the first partition formatted. The reader itself looks at it.
#[test]
fn a_partitioned_stick_is_named_with_what_is_in_it() {
    let temp = tempfile::tempdir().unwrap();
    for (table, name) in [("dos", "a partition table (MBR)"), ("gpt", "a partition table (GPT)")] {
        let disk = temp.path().join(table);
        let path = disk.to_str().unwrap();
        std::fs::File::create(&disk).unwrap().set_len(16 * 1024 * 1024).unwrap();
        let script = format!("echo 'start=2048, size=20480' | sfdisk --quiet --label {table} '{path}'");
        tool("sh", &["-c", &script]);
        let found = search(&[("sda", &disk)], false, LONG).unwrap().err().unwrap();
        assert_eq!(found, format!("sda: {name}, and neither ISO 9660 nor FAT on the whole disk"));
        tool("mkfs.fat", &["-F", "12", "-n", "IMPRINT", "--offset", "2048", path, "10240"]);
        tool("mmd", &["-i", &format!("{path}@@1M"), "::/imprint"]);
        let found = search(&[("sda", &disk)], false, LONG).unwrap().err().unwrap();
        assert_eq!(
            found,
            format!(
                "sda: {name} with a FAT volume \"IMPRINT\" in partition 1, and partitions are not read without a site pin: \
                 name them with imprint.source=partition, or write the config drive to the whole disk, /dev/sda"
            )
        );
    }
}

/// Somebody else has a lease on the file, so whoever opens it sleeps in the kernel until that is given back
/// (fcntl(2), F_SETLEASE): a drive that answers late.
#[test]
fn a_drive_that_answers_late_is_used() {
    const HOLDER: &str = "import fcntl, os, signal, sys\n\
        fd = os.open(sys.argv[1], os.O_RDWR)\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])\n\
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
        print('held', flush=True)\n\
        signal.sigwait([signal.SIGIO])\n\
        print('asked', flush=True)\n\
        sys.stdin.readline()\n\
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)\n";
    let temp = tempfile::tempdir().unwrap();
    let image = iso(temp.path(), "IMPRINT", 100);
    let mut command = Command::new("python3");
    command.args(["-c", HOLDER]).arg(&image).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = Running(command.spawn().expect("python3"));
    let mut said = std::io::BufReader::new(holder.0.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        line
    };
    assert_eq!(line(), "held\n");
    let root = root(&[("sda", &image)]);
    let program = programs::agent();
    // It has had its time long before it answers; whoever insists is told so, and only then is the lease given back.
    let patience = Duration::from_millis(1);
    let search = Search {
        wanted: &[Wanted::Label(None)],
        named: false,
        pinned: false,
        insist: true,
        patience,
        program: &program,
        other: None,
    };
    let mut late = 0;
    let found = find(&search, root.path(), Deadline::after(LONG), &mut |notice| {
        assert!(!matches!(notice, imprint::source::Notice::Left(_)), "it has answered");
        if let imprint::source::Notice::Drive(words) = notice {
            assert!(words.starts_with("sda: the drive has not answered for "), "{words}");
            assert_eq!(line(), "asked\n");
            holder.0.stdin.take().unwrap().write_all(b"\n").unwrap();
            late += 1;
        }
    });
    assert_eq!(found.unwrap().unwrap().origin.to_string(), "config-drive sda (IMPRINT)");
    assert_eq!(late, 1);
}

/// mkfs.fat leaves what stands behind its own tables.
#[test]
fn a_stale_iso_under_a_new_fat_file_system_stops_the_boot() {
    let temp = tempfile::tempdir().unwrap();
    let image = iso(temp.path(), "IMPRINT", 300);
    let path = image.to_str().unwrap();
    assert!(search(&[("sda", &image)], false, LONG).unwrap().is_ok());
    std::fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(1440 * 1024).unwrap();
    tool("mkfs.fat", &["-n", "IMPRINT", path]);
    std::fs::write(temp.path().join("payload"), [9; 500]).unwrap();
    tool("mmd", &["-i", path, "::imprint"]);
    tool("mcopy", &["-i", path, temp.path().join("payload").to_str().unwrap(), "::imprint/payload"]);
    let error = search(&[("sda", &image)], false, LONG).unwrap_err();
    assert_eq!(
        error.to_string(),
        "sda has an ISO 9660 volume \"IMPRINT\" and a FAT volume \"IMPRINT\", one of which is left from an earlier \
         use; save the data that you need, clear the drive with wipefs -a /dev/sda, and write the config drive again"
    );
    // As it says.
    tool("wipefs", &["--quiet", "--all", path]);
    tool("mkfs.fat", &["-n", "IMPRINT", path]);
    tool("mmd", &["-i", path, "::imprint"]);
    tool("mcopy", &["-i", path, temp.path().join("payload").to_str().unwrap(), "::imprint/payload"]);
    assert_eq!(search(&[("sda", &image)], false, LONG).unwrap().unwrap().bytes.expose(), [9; 500]);
}

/// Partitioning programs and most others leave what stands behind their own tables.
#[test]
fn whatever_stands_beside_a_stale_iso_stops_the_boot() {
    const SIZE: u64 = 4 * 1024 * 1024;
    let partition = |label: &str| {
        let label = label.to_owned();
        move |path: &Path| {
            let mut command = Command::new("sfdisk");
            command.args(["--quiet", "--wipe", "never"]).arg(path).env("PATH", "/usr/sbin:/sbin").stdin(Stdio::piped());
            let mut child = command.spawn().expect("sfdisk");
            let table = format!("label: {label}\nstart=2048, size=2048\n");
            child.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success());
        }
    };
    let mark = |offset: u64, mark: &'static [u8]| {
        move |path: &Path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, mark, offset).unwrap();
        }
    };
    let md = b"\xfc\x4e\x2b\xa9";
    type Write<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Write<'_>); 10] = [
        ("a partition table (GPT)", &partition("gpt")),
        ("a partition table (MBR)", &partition("dos")),
        ("an NTFS file system", &mark(3, b"NTFS    ")),
        ("an exFAT file system", &mark(3, b"EXFAT   ")),
        ("a physical volume of LVM", &mark(1536, b"LABELONE")),
        ("swap space", &mark(16_374, b"SWAPSPACE2")),
        ("a member of a RAID (md)", &mark(0, md)),
        ("a member of a RAID (md)", &mark(4096, md)),
        ("a member of a RAID (md)", &mark(SIZE - 8192, md)),
        ("a member of a RAID (md)", &mark(SIZE - 65_536, md)),
    ];
    for (index, (name, write)) in cases.into_iter().enumerate() {
        let temp = tempfile::tempdir().unwrap();
        let image = iso(temp.path(), "IMPRINT", 300);
        std::fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(SIZE).unwrap();
        assert!(search(&[("sda", &image)], false, LONG).unwrap().is_ok(), "{index}: alone it is used");
        write(&image);
        let error = search(&[("sda", &image)], false, LONG).unwrap_err().to_string();
        assert!(error.contains(name), "{index}: {error}");
    }
}

/// Images of xorriso that start as a disk as well, with partition tables of each kind, bring their payload.
#[test]
fn a_config_drive_that_has_a_partition_table_of_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let drive = temp.path().join("drive");
    std::fs::create_dir_all(drive.join("imprint")).unwrap();
    std::fs::write(drive.join("imprint/payload"), [7; 300]).unwrap();
    std::fs::write(temp.path().join("efi"), vec![0; 64 * 1024]).unwrap();
    std::fs::write(drive.join("efi.img"), vec![0; 64 * 1024]).unwrap();
    let efi = temp.path().join("efi");
    let efi = efi.to_str().unwrap();
    for (number, (options, table)) in [
        (&["--protective-msdos-label"][..], "DOS"),
        (&["-partition_offset", "16"], "DOS"),
        (&["-append_partition", "2", "0xef", efi], "DOS"),
        (&["-e", "efi.img", "-no-emul-boot", "-efi-boot-part", "--efi-boot-image"], "GPT"),
        (&["-append_partition", "2", "0xef", efi, "-appended_part_as_gpt"], "GPT"),
    ]
    .into_iter()
    .enumerate()
    {
        let image = temp.path().join(format!("{number}.iso"));
        let fixed = ["-report_about", "FAILURE", "-as", "mkisofs", "-V", "IMPRINT", "-o", image.to_str().unwrap()];
        tool("xorriso", &[&fixed[..], options, &[drive.to_str().unwrap()]].concat());
        let bytes = std::fs::read(&image).unwrap();
        let gpt = bytes[512..].starts_with(b"EFI PART");
        let dos = bytes[446..510].iter().any(|byte| *byte != 0) && bytes[510..512] == [0x55, 0xaa];
        assert_eq!((dos, gpt), (true, table == "GPT"), "{options:?}: xorriso wrote another table");
        let found = search(&[("sda", &image)], false, LONG).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        assert_eq!(found.unwrap().bytes.expose(), [7; 300], "{options:?}");
    }
}
