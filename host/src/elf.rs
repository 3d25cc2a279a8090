//! What an image builder asks of an ELF file: for which machine it is, whether it needs an interpreter (a dynamic linker), and
//! the text of a kernel module's `.modinfo`. Pure: bytes to values, within their bounds. Loads nothing and runs nothing.

use std::fmt;

/// Not an ELF file, or one that ends too early. System V ABI, "ELF Header"; elf(5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an ELF file, or one that is cut short")]
pub struct NotElf;

/// The machine that a program or module is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// `e_machine`
    number: u16,
    /// Whether it has 64 bits.
    wide: bool,
}

/// x86_64
pub const X86_64: Machine = Machine { number: 62, wide: true };
/// aarch64
pub const AARCH64: Machine = Machine { number: 183, wide: true };

impl Machine {
    /// The machine that this program was built for.
    pub fn of_this_program() -> Option<Machine> {
        match std::env::consts::ARCH {
            "x86_64" => Some(X86_64),
            "aarch64" => Some(AARCH64),
            _ => None,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.number, self.wide) {
            (62, true) => f.write_str("x86_64"),
            (183, true) => f.write_str("aarch64"),
            (3, false) => f.write_str("i386"),
            (40, false) => f.write_str("arm"),
            (243, true) => f.write_str("riscv64"),
            (number, _) => write!(f, "machine number {number}"),
        }
    }
}

/// An ELF file.
#[derive(Clone, Copy)]
pub struct Elf<'a> {
    bytes: &'a [u8],
    little: bool,
    wide: bool,
}

/// `p_type` of the segment that names the interpreter.
const PT_INTERP: u64 = 3;

impl<'a> Elf<'a> {
    /// Looks at the head.
    pub fn new(bytes: &'a [u8]) -> Result<Elf<'a>, NotElf> {
        match bytes.get(..20).ok_or(NotElf)? {
            [0x7f, b'E', b'L', b'F', class @ (1 | 2), order @ (1 | 2), ..] => {
                Ok(Elf { bytes, little: *order == 1, wide: *class == 2 })
            }
            _ => Err(NotElf),
        }
    }

    /// The machine that it is for.
    pub fn machine(&self) -> Result<Machine, NotElf> {
        let number = u16::try_from(self.number(18, 2)?).map_err(|_| NotElf)?;
        Ok(Machine { number, wide: self.wide })
    }

    /// Whether the kernel starts another program to load it: a program that is linked dynamically.
    pub fn has_interpreter(&self) -> Result<bool, NotElf> {
        let (table, size, count) = match self.wide {
            true => (self.number(32, 8)?, self.number(54, 2)?, self.number(56, 2)?),
            false => (self.number(28, 4)?, self.number(42, 2)?, self.number(44, 2)?),
        };
        for index in 0..count {
            let at = index.checked_mul(size).and_then(|offset| offset.checked_add(table)).ok_or(NotElf)?;
            if self.number(at, 4)? == PT_INTERP {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The content of the first section with this name.
    pub fn section(&self, name: &str) -> Result<Option<&'a [u8]>, NotElf> {
        let (table, size, count, names) = match self.wide {
            true => (self.number(40, 8)?, self.number(58, 2)?, self.number(60, 2)?, self.number(62, 2)?),
            false => (self.number(32, 4)?, self.number(46, 2)?, self.number(48, 2)?, self.number(50, 2)?),
        };
        let header = |index: u64| index.checked_mul(size).and_then(|offset| offset.checked_add(table)).ok_or(NotElf);
        let content = |header: u64| {
            let (offset, length) = match self.wide {
                true => (self.number(header.saturating_add(24), 8)?, self.number(header.saturating_add(32), 8)?),
                false => (self.number(header.saturating_add(16), 4)?, self.number(header.saturating_add(20), 4)?),
            };
            self.slice(offset, length)
        };
        if count == 0 {
            return Ok(None);
        }
        let names = content(header(names)?)?;
        for index in 0..count {
            let at = header(index)?;
            let start = usize::try_from(self.number(at, 4)?).map_err(|_| NotElf)?;
            let called = names.get(start..).ok_or(NotElf)?.split(|byte| *byte == 0).next();
            if called == Some(name.as_bytes()) {
                return content(at).map(Some);
            }
        }
        Ok(None)
    }

    /// The values of an item of a kernel module's `.modinfo`, such as `vermagic`: texts `NAME=VALUE`, each with a NUL behind it
    /// (include/linux/moduleparam.h, `__MODULE_INFO`).
    pub fn modinfo(&self, name: &str) -> Result<Vec<String>, NotElf> {
        let section = self.section(".modinfo")?.unwrap_or_default();
        let texts = section.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let values = texts.filter_map(|text| {
            let (key, value) = text.split_once('=')?;
            (key == name).then(|| value.to_owned())
        });
        Ok(values.collect())
    }

    fn slice(&self, offset: u64, length: u64) -> Result<&'a [u8], NotElf> {
        let offset = usize::try_from(offset).map_err(|_| NotElf)?;
        let length = usize::try_from(length).map_err(|_| NotElf)?;
        let end = offset.checked_add(length).ok_or(NotElf)?;
        self.bytes.get(offset..end).ok_or(NotElf)
    }

    fn number(&self, offset: u64, length: u64) -> Result<u64, NotElf> {
        let bytes = self.slice(offset, length)?;
        let add = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Ok(match self.little {
            true => bytes.iter().rev().fold(0, add),
            false => bytes.iter().fold(0, add),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    include!("../tests/support/module.rs");

    /// This very test is a program for this machine, and rustc links it with the C library's dynamic linker or without.
    #[test]
    fn this_program_is_one_for_this_machine() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let elf = Elf::new(&bytes).unwrap();
        assert_eq!(elf.machine().ok(), Machine::of_this_program());
        let interp = elf.section(".interp").unwrap();
        assert_eq!(elf.has_interpreter(), Ok(interp.is_some()));
        assert!(elf.section(".text").unwrap().is_some_and(|text| text.len() > 1000));
        assert_eq!(elf.section(".no-such-section"), Ok(None));
        assert_eq!(elf.modinfo("vermagic"), Ok(Vec::new()));
    }

    /// The accident: a file that was cut short, or one with lengths of its own. No panic, whatever the length.
    #[test]
    fn a_file_that_is_cut_short_is_no_elf_file() {
        let bytes = module("vermagic=6.1.0 SMP mod_unload \0license=GPL\0", 62);
        let elf = Elf::new(&bytes).unwrap();
        assert_eq!(elf.modinfo("vermagic"), Ok(vec!["6.1.0 SMP mod_unload ".to_owned()]));
        assert_eq!(elf.machine(), Ok(X86_64));
        for length in 0..bytes.len() {
            let short = &bytes[..length];
            if let Ok(elf) = Elf::new(short) {
                // The last fields of the last section are not looked at.
                let whole = Ok(vec!["6.1.0 SMP mod_unload ".to_owned()]);
                let found = elf.modinfo("vermagic");
                assert!([whole, Ok(Vec::new()), Err(NotElf)].contains(&found), "{length}: {found:?}");
                let _ = (elf.machine(), elf.has_interpreter());
            }
            let mut odd = bytes.clone();
            odd[length] ^= 0xff;
            if let Ok(elf) = Elf::new(&odd) {
                let _ = (elf.machine(), elf.has_interpreter(), elf.modinfo("vermagic"));
            }
        }
    }
}
