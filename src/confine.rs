//! Gives up a process's rights before the process reads data that nobody vouches for: privileges, capabilities, new
//! files and processes, and all system calls but the few that it needs. Never gives a right back, so only a process
//! that does nothing else may call this.

use std::fmt;
use std::io;

use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};

use crate::sys::{self, FilterLine};

/// A right could not be given up.
#[derive(Debug)]
pub struct ConfineError {
    /// The right: `capabilities`
    what: &'static str,
    source: io::Error,
}

/// Whether the filter of system calls holds. A kernel that was built without CONFIG_SECCOMP_FILTER has no filters, and
/// this program has none for other architectures than x86-64 and AArch64. All other limits hold in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Confined {
    /// The filter holds.
    pub filtered: bool,
}

/// Keeps open files, reading, writing, memory, and the right to end. The process is killed when its parent ends.
pub fn confine() -> Result<Confined, ConfineError> {
    let failed = |what| move |source: io::Error| ConfineError { what, source };
    prctl::set_no_new_privs().map_err(io::Error::from).map_err(failed("new privileges"))?;
    for (what, limit) in LIMITS {
        let (resource, most) = limit;
        setrlimit(resource, most, most).map_err(io::Error::from).map_err(failed(what))?;
    }
    if geteuid().is_root() {
        sys::empty_bounding_set().map_err(failed("the capability bounding set"))?;
        setgroups(&[]).map_err(io::Error::from).map_err(failed("groups"))?;
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        setresgid(group, group, group).map_err(io::Error::from).map_err(failed("the group"))?;
        setresuid(user, user, user).map_err(io::Error::from).map_err(failed("the user"))?;
    }
    sys::no_capabilities().map_err(failed("capabilities"))?;
    // The change of the user ID has undone both (prctl(2)).
    prctl::set_dumpable(false).map_err(io::Error::from).map_err(failed("core dumps"))?;
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from).map_err(failed("the parent-death signal"))?;
    let filtered = match filter() {
        Some(mut filter) => sys::filter_system_calls(&mut filter).map_err(failed("system calls"))?,
        None => false,
    };
    Ok(Confined { filtered })
}

/// The user and the group `nobody`, who own no file (systemd's UIDS-GIDS.md).
const NOBODY: u32 = 65_534;

/// No new descriptors, and so no other file and no socket; no byte into a file; no other process or thread; memory for
/// many times the largest directory and the largest payload.
const LIMITS: [(&str, (Resource, u64)); 5] = [
    ("open files", (Resource::RLIMIT_NOFILE, 0)),
    ("the size of files", (Resource::RLIMIT_FSIZE, 0)),
    ("processes", (Resource::RLIMIT_NPROC, 0)),
    ("core dumps", (Resource::RLIMIT_CORE, 0)),
    ("memory", (Resource::RLIMIT_AS, 128 * 1024 * 1024)),
];

/// System calls to read and write open files, for memory, and to end. The C libraries and Rust's standard library need
/// these for just that.
const ALLOWED: [libc::c_long; 17] = [
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_write,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
/// System calls for memory. They are allowed unless the memory is to be executable.
const MEMORY: [libc::c_long; 2] = [libc::SYS_mmap, libc::SYS_mprotect];

/// include/uapi/linux/audit.h, AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64: the numbers of system calls are those of this
/// architecture only.
const ARCHITECTURE: Option<u32> = match () {
    () if cfg!(target_arch = "x86_64") => Some(0xc000_003e),
    () if cfg!(target_arch = "aarch64") => Some(0xc000_00b7),
    () => None,
};

/// The filter, for architectures whose number is known. A system call that is not allowed ends the process.
fn filter() -> Option<Vec<FilterLine>> {
    let architecture = ARCHITECTURE?;
    // include/uapi/linux/seccomp.h, struct seccomp_data: nr at 0, arch at 4, args from 16, of eight bytes each. Both
    // architectures are little-endian, so the lower half of the third argument is at 32.
    let load = |offset| line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let is = |value, yes, no| line(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value);
    let end = |with| line(libc::BPF_RET | libc::BPF_K, 0, 0, with);
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    // How many lines a jump passes over.
    let over = |lines: usize| u8::try_from(lines).unwrap_or(u8::MAX);
    let calls = MEMORY.len() + ALLOWED.len();
    let mut filter = vec![load(4), is(architecture, 0, over(1 + calls)), load(0)];
    for (index, call) in MEMORY.iter().chain(&ALLOWED).enumerate() {
        // The lines behind the last call: kill; the test for executable memory, two lines; kill; allow.
        let left = calls - index - 1;
        let target = if index < MEMORY.len() { left + 1 } else { left + 4 };
        filter.push(is(number(*call), over(target), 0));
    }
    let executable = u32::try_from(libc::PROT_EXEC).unwrap_or(u32::MAX);
    filter.extend([
        end(libc::SECCOMP_RET_KILL_PROCESS),
        load(32),
        line(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, executable),
        end(libc::SECCOMP_RET_KILL_PROCESS),
        end(libc::SECCOMP_RET_ALLOW),
    ]);
    Some(filter)
}

fn line(code: u32, jt: u8, jf: u8, k: u32) -> FilterLine {
    FilterLine { code: u16::try_from(code).unwrap_or(0), jt, jf, k }
}

impl fmt::Display for ConfineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "confining the process: {}", self.what)
    }
}

impl std::error::Error for ConfineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
