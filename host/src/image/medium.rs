//! A medium that boots by itself: kernel and image on a hybrid file system for USB drives and optical discs, for BIOS and UEFI. GRUB's
//! own grub-mkrescue makes it. Runs no other program, and writes to no drive.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::{ImageError, failed};
use crate::elf::{AARCH64, Machine, X86_64};

/// The label of the file system. None of those by which nodes know a config drive (docs/config-drive.md).
const LABEL: &str = "IMPRINT-BOOT";

/// A program or folder that grub-mkrescue needs, and Debian's package with it. Without one of the folders it makes a medium that
/// starts on half of the machines, and does not say so.
type Need = (&'static str, &'static str);
const NEEDS: [Need; 3] = [("grub-mkrescue", "grub-common"), ("xorriso", "xorriso"), ("mformat", "mtools")];
const NEEDS_X86_64: [Need; 2] =
    [("/usr/lib/grub/i386-pc", "grub-pc-bin"), ("/usr/lib/grub/x86_64-efi", "grub-efi-amd64-bin")];
const NEEDS_AARCH64: [Need; 1] = [("/usr/lib/grub/arm64-efi", "grub-efi-arm64-bin")];

/// The medium with this image, this kernel, and these words for the kernel's command line.
pub fn medium(image: &[u8], machine: Machine, kernel: &Path, words: &str) -> Result<Vec<u8>, ImageError> {
    let grubs: &[Need] = match machine {
        X86_64 => &NEEDS_X86_64,
        AARCH64 => &NEEDS_AARCH64,
        _ => return Err(ImageError::NoMedium(machine)),
    };
    if words.contains(|c: char| c.is_control() || matches!(c, '\'' | '"' | '\\' | '$')) {
        return Err(ImageError::MediumWords);
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| {
        let mut places = std::env::split_paths(&paths).chain(["/usr/sbin".into(), "/sbin".into()]);
        program.starts_with('/') && Path::new(program).exists()
            || places.any(|place: PathBuf| place.join(program).exists())
    };
    let missing = NEEDS.iter().chain(grubs).filter(|(what, _)| !is_there(what));
    let (what, packages): (Vec<&str>, Vec<&str>) = missing.copied().unzip();
    if !what.is_empty() {
        return Err(ImageError::NoTool { what: what.join(" "), packages: packages.join(" ") });
    }
    let work = tempfile::tempdir().map_err(failed("making a folder in", &std::env::temp_dir()))?;
    let (tree, made) = (work.path().join("tree"), work.path().join("medium.iso"));
    let grub = tree.join("boot/grub");
    fs::create_dir_all(&grub).map_err(failed("making", &grub))?;
    let vmlinuz = tree.join("boot/vmlinuz");
    fs::copy(kernel, &vmlinuz).map_err(failed("copying the kernel", kernel))?;
    let put = |name: &str, bytes: &[u8]| {
        let path = tree.join(name);
        fs::write(&path, bytes).map_err(failed("writing", &path))
    };
    put("boot/imprint.cpio", image)?;
    put("boot/grub/grub.cfg", menu(words).as_bytes())?;
    let grub_mkrescue = Path::new("grub-mkrescue");
    let output = Command::new(grub_mkrescue)
        .arg("-o")
        .args([&made, &tree])
        .args(["--", "-volid", LABEL])
        .stdin(Stdio::null())
        .output()
        .map_err(failed("running", grub_mkrescue))?;
    match fs::read(&made) {
        Ok(bytes) if output.status.success() => Ok(bytes),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("reading", &made)(error)),
        Ok(_) | Err(_) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            Err(ImageError::Tool { status: output.status.to_string(), said: last.to_owned() })
        }
    }
}

/// The menu of the medium. The second entry ends in `imprint console`, whatever the other words are.
fn menu(words: &str) -> String {
    // GRUB writes an argument with blanks in double quotes, as the kernel and imprint read it.
    let quoted: String = words.split_ascii_whitespace().map(|word| format!(" '{word}'")).collect();
    format!(
        "# Both consoles of a machine with BIOS; by UEFI the firmware looks after its own.\n\
         if [ \"$grub_platform\" = pc ]; then\n  if serial --unit=0 --speed=115200; then\n    \
         terminal_input console serial\n    terminal_output console serial\n  fi\nfi\nset timeout=3\n\
         menuentry 'imprint' {{\n  linux /boot/vmlinuz{quoted}\n  initrd /boot/imprint.cpio\n}}\n\
         menuentry 'imprint console: enrol by hand' {{\n  linux /boot/vmlinuz{quoted} 'imprint=off' \
         'imprint.next=/usr/bin/imprint console'\n  initrd /boot/imprint.cpio\n}}\n"
    )
}
