//! A medium that boots by itself: kernel and image on a hybrid file system for USB drives and optical discs, for BIOS and UEFI. GRUB's
//! own grub-mkrescue makes it. Runs no other program, and writes to no drive.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Image;
use super::error::{ImageError, failed};
use crate::elf::{AARCH64, X86_64};

/// The label of the file system. None of those by which nodes know a config drive (docs/config-drive.md).
const LABEL: &str = "IMPRINT-BOOT";

/// A program or folder that grub-mkrescue needs, and Debian's package with it. Without one of the folders it makes a medium that
/// starts on half of the machines, and does not say so.
type Need = (&'static str, &'static str);
const NEEDS: [Need; 3] = [("grub-mkrescue", "grub-common"), ("xorriso", "xorriso"), ("mformat", "mtools")];
const NEEDS_X86_64: [Need; 2] =
    [("/usr/lib/grub/i386-pc", "grub-pc-bin"), ("/usr/lib/grub/x86_64-efi", "grub-efi-amd64-bin")];
const NEEDS_AARCH64: [Need; 1] = [("/usr/lib/grub/arm64-efi", "grub-efi-arm64-bin")];

/// The medium with this image, this kernel, and these words for the kernel's command line; and what the person who makes it should know.
pub fn medium(image: &Image, kernel: &Path, words: &str) -> Result<(Vec<u8>, Option<String>), ImageError> {
    let grubs: &[Need] = match image.machine {
        X86_64 => &NEEDS_X86_64,
        AARCH64 => &NEEDS_AARCH64,
        machine => return Err(ImageError::NoMedium(machine)),
    };
    let vmlinuz = fs::read(kernel).map_err(failed("reading the kernel", kernel))?;
    let warning = match version(&vmlinuz) {
        Some(version) if version == image.version => None,
        Some(version) => {
            let (path, modules) = (kernel.to_owned(), image.version.clone());
            return Err(ImageError::OtherKernel { path, version, modules });
        }
        None => Some(format!(
            "{} does not say its version, so nobody has compared it with that of the modules, {}",
            kernel.display(),
            image.version
        )),
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
    let put = |name: &str, bytes: &[u8]| {
        let path = tree.join(name);
        fs::write(&path, bytes).map_err(failed("writing", &path))
    };
    put("boot/vmlinuz", &vmlinuz)?;
    put("boot/imprint.cpio", &image.bytes)?;
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
        Ok(bytes) if output.status.success() => Ok((bytes, warning)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("reading", &made)(error)),
        Ok(_) | Err(_) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            Err(ImageError::Tool { status: output.status.to_string(), said: last.to_owned() })
        }
    }
}

/// The version that the setup header of a kernel for x86 says (Documentation/arch/x86/boot.rst, "header" and "kernel_version"). `None`: it
/// says none, or is for another machine.
fn version(kernel: &[u8]) -> Option<String> {
    kernel.get(0x202..).filter(|header| header.starts_with(b"HdrS"))?;
    let offset = usize::from(u16::from_le_bytes(kernel.get(0x20e..0x210)?.try_into().ok()?));
    let text = kernel.get(offset.checked_add(0x200)?..).filter(|_| offset > 0)?;
    let first = text.split(|byte| byte.is_ascii_whitespace() || *byte == 0).next()?;
    // utsname has 64 bytes for it.
    let word = std::str::from_utf8(first).ok().filter(|word| (1..=64).contains(&word.len()))?;
    word.bytes().all(|byte| byte.is_ascii_graphic()).then(|| word.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a kernel that says this at the end.
    fn kernel(text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 0x4000];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x3c00_u16.to_le_bytes());
        bytes[0x3e00..0x3e00 + text.len()].copy_from_slice(text);
        bytes
    }

    #[test]
    fn a_kernel_says_its_version() {
        // Debian 12, /boot/vmlinuz-6.1.0-50-cloud-amd64
        let text = b"6.1.0-50-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-07-02)\0";
        let whole = kernel(text);
        assert_eq!(version(&whole).as_deref(), Some("6.1.0-50-cloud-amd64"));
        let mut unsaid = whole.clone();
        unsaid[0x20e..0x210].fill(0);
        let mut other = whole.clone();
        other[0x202] = b'h';
        // arm64: a compressed Image, or one that unpacks itself.
        for bytes in [
            &unsaid[..],
            &other,
            &whole[..0x3e00],
            &whole[..0x20f],
            b"\x1f\x8b\x08",
            b"",
            &kernel(&[b'x'; 65]),
            &kernel(b"\xff 1\0"),
        ] {
            assert_eq!(version(bytes), None);
        }
    }

    /// GRUB takes a word in single quotes as it is; the second entry does not use what the words of the first one would bring.
    #[test]
    fn the_menu_has_the_words_twice_and_the_rescue_behind_them() {
        let menu = menu("root=LABEL=root  console=ttyS0");
        let lines: Vec<&str> = menu.lines().map(str::trim).collect();
        let linux: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with("linux ")).collect();
        let first = "linux /boot/vmlinuz 'root=LABEL=root' 'console=ttyS0'";
        assert_eq!(linux, [first, &format!("{first} 'imprint=off' 'imprint.next=/usr/bin/imprint console'")]);
        let entries = lines.iter().filter(|line| line.starts_with("menuentry ") && line.ends_with('{')).count();
        assert_eq!((entries, lines.iter().filter(|line| **line == "initrd /boot/imprint.cpio").count()), (2, 2));
        assert_eq!(menu.matches('{').count(), menu.matches('}').count());
        assert!(lines.contains(&"set timeout=3"));
    }
}
