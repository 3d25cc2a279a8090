//! Boots a real kernel with a real initramfs in QEMU and reads the guest's own report. The report alone gives the verdict;
//! the console is only shown when there is no report.

mod report;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use imprint::time::Timestamp;

use crate::nbd;
pub use report::Report;

/// The kernel. 6.1 has no tmpfs without swap (noswap); the one of backports has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kernel {
    /// The release's own.
    Stable,
    /// The newest of backports.
    Backports,
    /// The release's own for all machines. The others are made for clouds and have no USB.
    Generic,
    /// The release's own for another machine: QEMU's `virt` with EFI and ACPI, whose SPCR table names the console. Its initramfs is
    /// that of scripts/arm64-images, a bare image, whatever [`Machine::init`] says.
    Arm64,
}

/// The init of the initramfs, and the builder of its image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Init {
    /// systemd, with imprint's unit, by dracut.
    Systemd,
    /// dracut's own shell scripts, with imprint's hooks.
    Plain,
    /// systemd, by the dracut of later distributions (scripts/dracut-ng), with `imprint.debug` in the image's own kernel
    /// words (kernel_cmdline=).
    SystemdNg,
    /// The shell scripts, in the same way.
    PlainNg,
    /// The agent itself: an image by `imprint-host image`, with a shell for the report of a stopped boot.
    Bare,
    /// The shell scripts of initramfs-tools, with MODULES=most and busybox.
    InitramfsTools,
    /// The same with MODULES=list and without busybox.
    InitramfsToolsList,
    /// systemd, by the later dracut, with a live root: a squashfs on the disk, under an overlay.
    SystemdLive,
    /// The shell scripts, in the same way.
    PlainLive,
}

/// What brings kernel and initramfs.
enum Start {
    /// QEMU.
    Direct,
    /// The machine's firmware, and what that loads.
    Firmware,
    /// A boot loader that QEMU starts like a kernel, with this file as its initramfs.
    Loader(PathBuf, PathBuf),
}

/// A machine to boot once.
pub struct Machine {
    kernel: Kernel,
    init: Init,
    arguments: Vec<String>,
    append: String,
    extra: Vec<(String, Vec<u8>)>,
    archive: Vec<u8>,
    initrd: Option<PathBuf>,
    /// It starts from this medium, in a device of this kind, and QEMU loads no kernel.
    medium: Option<(PathBuf, &'static str)>,
    rtc: String,
    cpu: &'static str,
    network: bool,
    quiet: bool,
    console: Option<String>,
    /// Cut its power once it has reported: with a drive that never answers, it does not shut down.
    cut: bool,
    root: Option<PathBuf>,
    base: Option<PathBuf>,
    /// Whether the firmware is EFI. It starts the packed kernel, not the ELF file.
    efi: bool,
    start: Start,
    limit: Duration,
}

/// What every machine has on its kernel command line. The kernel tries whether timer interrupts come, and panics if the
/// host gives it no time for them (arch/x86/kernel/apic/io_apic.c, check_timer).
pub const WORDS: &str = "console=ttyS0 panic=-1 mitigations=off no_timer_check root=LABEL=imprint-root rootfstype=ext4";

/// The longest a boot may take. Emulated boots take 8 to 20 s, and several times that on a loaded machine.
const LIMIT: Duration = Duration::from_secs(400);

/// The emulated processor. A simple one: a boot computes a fifth less than with `max`, whose protections and vector registers are
/// emulated at every turn. QEMU 7.2 emulates cmpxchg16b wrongly, and Linux 6.12's slab allocator uses it; without the flag,
/// Linux avoids it. The random numbers are for guests that want a generator in the processor.
const CPU: &str = "qemu64,-cx16,+rdrand";

/// Program, processor and words for QEMU.
const ARM64: (&str, &str, [&str; 6]) = (
    "qemu-system-aarch64",
    "cortex-a72",
    ["-M", "virt", "-bios", "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd", "-device", "virtio-rng-pci"],
);

impl Machine {
    /// A machine with a disk for the real root, a network on which this machine's loopback is 10.0.2.2, and a clock that
    /// says 2019.
    pub fn new(kernel: Kernel) -> Machine {
        Machine {
            kernel,
            init: Init::Systemd,
            arguments: Vec::new(),
            append: String::new(),
            extra: Vec::new(),
            archive: Vec::new(),
            initrd: None,
            medium: None,
            rtc: "2019-01-02T03:04:05".to_owned(),
            cpu: CPU,
            network: true,
            quiet: true,
            console: None,
            cut: false,
            root: None,
            base: None,
            efi: false,
            start: Start::Direct,
            limit: LIMIT,
        }
    }

    /// An initramfs with another init than systemd.
    #[must_use]
    pub fn init(mut self, init: Init) -> Machine {
        self.init = init;
        self
    }

    /// More words for the kernel command line.
    #[must_use]
    pub fn append(mut self, words: &str) -> Machine {
        self.append = format!("{} {words}", self.append);
        self
    }

    /// More words for QEMU.
    #[must_use]
    pub fn qemu(mut self, words: &[&str]) -> Machine {
        self.arguments.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// A SCSI optical drive with this image in it, as most hypervisors attach one.
    #[must_use]
    pub fn optical(self, image: &Path) -> Machine {
        self.image(image, &["-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=image"])
    }

    /// An IDE optical drive with this image in it. libata probes such drives in a thread of its own.
    #[must_use]
    pub fn ide_optical(self, image: &Path) -> Machine {
        self.image(image, &["-device", "ide-cd,drive=image"])
    }

    /// A plain disk with this image on it, behind the disk of the real root.
    #[must_use]
    pub fn disk(self, image: &Path) -> Machine {
        self.image(image, &["-device", "virtio-blk-pci,drive=image,addr=1e"])
    }

    /// A network block device as a plain disk, behind the disk of the real root. Its geometry is given, or QEMU would read
    /// the disk to guess it.
    #[must_use]
    pub fn network_disk(mut self, disk: &nbd::Disk) -> Machine {
        self.cut = true;
        let drive =
            format!("file=nbd+unix:///?socket={},if=none,id=far,format=raw,readonly=on", disk.socket().display());
        self.qemu(&["-drive", &drive, "-device", "virtio-blk-pci,drive=far,addr=1e,cyls=2,heads=16,secs=63"])
    }

    /// A USB stick with this image on it.
    #[must_use]
    pub fn usb_stick(self, image: &Path) -> Machine {
        self.image(image, &["-device", "qemu-xhci", "-device", "usb-storage,drive=image,removable=on"])
    }

    fn image(self, image: &Path, devices: &[&str]) -> Machine {
        let drive = format!("file={},if=none,id=image,format=raw,readonly=on", image.display());
        self.qemu(&["-drive", &drive]).qemu(devices)
    }

    /// A file in the initramfs, in a cpio archive behind the image's own, as boot loaders append it.
    #[must_use]
    pub fn initramfs_file(mut self, path: &str, content: &[u8]) -> Machine {
        self.extra.push((path.to_owned(), content.to_vec()));
        self
    }

    /// A cpio archive behind the image's own, byte for byte.
    #[must_use]
    pub fn initramfs_archive(mut self, archive: &[u8]) -> Machine {
        self.archive = archive.to_vec();
        self
    }

    /// This initramfs, as it is, instead of [`initramfs`].
    #[must_use]
    pub fn initrd(mut self, file: &Path) -> Machine {
        self.initrd = Some(file.to_owned());
        self
    }

    /// Starts from a medium by its own boot loader, which has kernel, initramfs and command line. `device`: `ide-cd`, or
    /// `usb-storage`.
    #[must_use]
    pub fn medium(mut self, image: &Path, device: &'static str) -> Machine {
        self.medium = Some((image.to_owned(), device));
        self
    }

    /// Time of the machine's real-time clock at power-on, UTC.
    #[must_use]
    pub fn rtc(mut self, base: &str) -> Machine {
        self.rtc = base.to_owned();
        self
    }

    /// The emulated processor.
    #[must_use]
    pub fn cpu(mut self, cpu: &'static str) -> Machine {
        self.cpu = cpu;
        self
    }

    /// Connects the first serial port, the console, to this QEMU chardev (given without id and logfile).
    #[must_use]
    pub fn console(mut self, chardev: &str) -> Machine {
        self.console = Some(chardev.to_owned());
        self
    }

    /// Lets kernel and systemd print their messages on the console.
    #[must_use]
    pub fn without_quiet(mut self) -> Machine {
        self.quiet = false;
        self
    }

    /// Another disk for the real root. The machine writes to it.
    #[must_use]
    pub fn root_disk(mut self, image: &Path) -> Machine {
        self.root = Some(image.to_owned());
        self.append("rw")
    }

    /// Another initramfs image than the one of `scripts/vm-images`.
    #[must_use]
    pub fn initramfs_image(mut self, image: &Path) -> Machine {
        self.base = Some(image.to_owned());
        self
    }

    /// Starts by EFI, with this store of variables. The machine writes to it.
    #[must_use]
    pub fn efi(mut self, variables: &Path) -> Machine {
        self.efi = true;
        let code = "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd";
        let variables = format!("if=pflash,format=raw,unit=1,file={}", variables.display());
        self.qemu(&["-drive", code, "-drive", &variables])
    }

    /// Lets the firmware find what to boot, with [`WORDS`] on the kernel command line. It says on the console what it does.
    #[must_use]
    pub fn from_firmware(mut self) -> Machine {
        self.start = Start::Firmware;
        self.qemu(&["-machine", "graphics=off"])
    }

    /// Starts a boot loader, and lets it find what to boot, with [`WORDS`] on the kernel command line.
    #[must_use]
    pub fn from_loader(mut self, loader: &Path, file: &Path) -> Machine {
        self.start = Start::Loader(loader.to_owned(), file.to_owned());
        self.qemu(&["-machine", "graphics=off"])
    }

    /// Another limit than that of a boot, for a machine that waits for others.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Machine {
        self.limit = limit;
        self
    }

    /// A machine without the usual network.
    #[must_use]
    pub fn without_network(mut self) -> Machine {
        self.network = false;
        self
    }

    /// Boots the machine and waits for its report.
    pub fn boot(self) -> Report {
        let (cut, limit, init) = (self.cut, self.limit, self.init);
        let began = Timestamp::system().as_secs();
        let (qemu, files) = self.start();
        let ended = qemu.wait(limit, &|| cut && files.text("report").contains("@@ end"));
        let (console, report) = (files.text("console"), files.text("report"));
        let tail: Vec<&str> = console.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        assert!(ended, "the machine did not end within {limit:?}; its console:\n{}", tail.join("\n"));
        assert!(report.contains("@@ end"), "the machine sent no report; its console:\n{}", tail.join("\n"));
        Report::new(&report, console, init, began..=Timestamp::system().as_secs())
    }

    /// Boots a machine that ends without a report, for example because its kernel panics: what its console says.
    pub fn dies(self) -> String {
        let limit = self.limit;
        let (qemu, files) = self.without_quiet().start();
        assert!(qemu.wait(limit, &|| false), "the machine did not end; its console:\n{}", files.text("console"));
        assert!(!files.text("report").contains("@@ end"), "the machine has reported:\n{}", files.text("report"));
        files.text("console")
    }

    /// Boots the machine, and cuts its power as soon as `when` returns true.
    pub fn cut_when(self, when: impl Fn() -> bool) {
        let (mut qemu, files) = self.start();
        let start = Instant::now();
        while !when() {
            assert!(start.elapsed() < LIMIT, "the moment did not come; its console:\n{}", files.text("console"));
            assert!(qemu.runs(), "it ended before that; its console:\n{}", files.text("console"));
            // Polling: the moment is in the store of another process, which gives no notice.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn start(self) -> (Running, Files) {
        let images = images(self.kernel, self.init);
        let files = Files(tempfile::tempdir().unwrap());
        let (console, report) = (files.0.path().join("console"), files.0.path().join("report"));
        let arm64 = self.kernel == Kernel::Arm64;
        let quiet = if self.quiet { " quiet" } else { "" };
        // With panic= initramfs-tools restarts the machine, where it would have a shell. A check of the root, which is read-only,
        // would fail and take its time. EFI names the console of the arm64 machine.
        let words = match (self.init, arm64) {
            (_, true) => WORDS.replace("console=ttyS0 ", "").replace("no_timer_check ", ""),
            (Init::InitramfsTools | Init::InitramfsToolsList, _) => {
                WORDS.replace("panic=-1", "sysctl.kernel.panic=-1 fsck.mode=skip")
            }
            _ => WORDS.to_owned(),
        };
        let mut append = format!("{words}{quiet} {}", self.append);
        // Boot loaders cut a line that is too long (cmdline_size in Documentation/arch/x86/boot.rst). QEMU does not, and
        // the kernel then copies it without its terminating NUL (arch/x86/kernel/head64.c, copy_bootdata).
        append.truncate(imprint::options::CMDLINE_MAX);
        let chardev = self.console.as_deref().unwrap_or("file");
        let file = if self.console.is_some() { "logfile" } else { "path" };
        let root = match &self.root {
            Some(image) => format!("file={},if=none,id=root,format=raw", image.display()),
            None => format!("file={},if=none,id=root,format=raw,readonly=on", images.join("root").display()),
        };
        let (program, cpu) = if arm64 { (ARM64.0, ARM64.1) } else { ("qemu-system-x86_64", self.cpu) };
        let mut qemu = Command::new(program);
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", cpu, "-m", "512", "-display", "none", "-nodefaults"])
            .args(arm64.then_some(ARM64.2).iter().flatten())
            .args(["-no-reboot", "-rtc", &format!("base={}", self.rtc)])
            .args(["-serial", "chardev:console"])
            .args(["-chardev", &format!("{chardev},id=console,{file}={}", console.display())])
            .args(["-device", "virtio-serial-pci", "-chardev", &format!("file,id=report,path={}", report.display())])
            .args(["-device", "virtserialport,chardev=report,name=imprint.test"])
            .args(["-drive", &root])
            .args(["-device", "virtio-blk-pci,drive=root,addr=10"])
            .args(
                self.network
                    .then_some(["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,addr=8"])
                    .iter()
                    .flatten(),
            )
            .args(&self.arguments)
            .stdin(Stdio::null());
        match &self.medium {
            Some((image, device)) => {
                let drive = format!("file={},if=none,id=medium,format=raw,readonly=on", image.display());
                qemu.args(["-drive", &drive])
                    .args((*device == "usb-storage").then_some(["-device", "qemu-xhci"]).iter().flatten());
                qemu.args(["-device", &format!("{device},drive=medium,bootindex=0")]);
            }
            None => {
                qemu.args(self.boots(&images, files.0.path(), &append));
            }
        }
        (
            Running(qemu.spawn().unwrap_or_else(|error| panic!("{program}: {error}: run scripts/install-needs vm"))),
            files,
        )
    }

    /// What QEMU is told of kernel, initramfs and words.
    fn boots(&self, images: &Path, work: &Path, append: &str) -> Vec<OsString> {
        let (kernel, initramfs) = match &self.start {
            Start::Firmware => return Vec::new(),
            Start::Loader(loader, file) => {
                return ["-kernel".into(), loader.into(), "-initrd".into(), file.into()].into();
            }
            Start::Direct if self.efi => (packed(images), self.initramfs(images, work)),
            Start::Direct => (images.join("vmlinux"), self.initramfs(images, work)),
        };
        ["-kernel".into(), kernel.into(), "-initrd".into(), initramfs.into(), "-append".into(), append.into()].into()
    }

    fn initramfs(&self, images: &Path, work: &Path) -> PathBuf {
        if let Some(file) = &self.initrd {
            return file.clone();
        }
        let base = self.base.clone().unwrap_or_else(|| images.join("initramfs"));
        if self.extra.is_empty() && self.archive.is_empty() {
            return base;
        }
        let joined = work.join("initramfs");
        let mut file = std::fs::File::create(&joined).unwrap();
        let mut image = std::fs::read(base).unwrap();
        // Archives start at multiples of four bytes (Documentation/driver-api/early-userspace/buffer-format.rst).
        image.resize(image.len().next_multiple_of(4), 0);
        file.write_all(&image).unwrap();
        file.write_all(&self.archive).unwrap();
        if self.extra.is_empty() {
            return joined;
        }
        let folder = work.join("extra");
        for (path, content) in &self.extra {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let script = "cd \"$0\" && find . | cpio --quiet -o -H newc";
        let cpio = Command::new("sh").args(["-c", script]).arg(&folder).output().unwrap();
        assert!(cpio.status.success(), "cpio: {}", String::from_utf8_lossy(&cpio.stderr));
        file.write_all(&cpio.stdout).unwrap();
        joined
    }
}

/// The folder that a machine writes into.
struct Files(tempfile::TempDir);

impl Files {
    fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.0.path().join(name)).unwrap_or_default()).into_owned()
    }
}

/// A child process that ends with its test.
struct Running(Child);

impl Running {
    fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Waits until the child has ended or `done` is true. False: neither happened within the limit.
    fn wait(mut self, limit: Duration, done: &dyn Fn() -> bool) -> bool {
        let start = Instant::now();
        while start.elapsed() < limit {
            match self.0.try_wait() {
                Ok(Some(_)) => return true,
                _ if done() => return true,
                // The standard library cannot wait for a child with a limit, so poll. 50 ms is nothing compared with a
                // boot.
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The initramfs that machines with this kernel and init boot, compressed.
pub fn initramfs(kernel: Kernel, init: Init) -> PathBuf {
    images(kernel, init).join("initramfs")
}

/// The kernel as the distribution packs it, which boot loaders start.
pub fn vmlinuz(kernel: Kernel, init: Init) -> PathBuf {
    packed(&images(kernel, init))
}

fn packed(images: &Path) -> PathBuf {
    images.join("vmlinux").canonicalize().unwrap().with_file_name("vmlinuz")
}

/// The root that machines with this kernel and init have on their disk, as an image: `squashfs` or `erofs`.
pub fn root_image(kernel: Kernel, init: Init, kind: &str) -> PathBuf {
    images(kernel, init).join(format!("root.{kind}"))
}

/// The folder of images that `make test-vm` has made. Fails if they are stale.
fn images(kernel: Kernel, init: Init) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
    let kernel = match kernel {
        Kernel::Arm64 => return made_by(&mut Command::new(folder.join("arm64-images"))),
        Kernel::Stable => "stable",
        Kernel::Backports => "backports",
        Kernel::Generic => "generic",
    };
    let init = match init {
        Init::Systemd => "systemd",
        Init::Plain => "plain",
        Init::SystemdNg => "systemd-ng",
        Init::PlainNg => "plain-ng",
        Init::Bare => "bare",
        Init::InitramfsTools => "initramfs-tools",
        Init::InitramfsToolsList => "initramfs-tools-list",
        Init::SystemdLive => "systemd-ng-live",
        Init::PlainLive => "plain-ng-live",
    };
    made_by(Command::new(folder.join("vm-images")).args([kernel, init]))
}

fn made_by(script: &mut Command) -> PathBuf {
    let output = script.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "images are missing: run make test-vm\n{errors}");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}
