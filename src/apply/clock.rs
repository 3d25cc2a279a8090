//! Sets the system clock and the real-time clock. Never decides whether a clock is set, or to what time: its callers
//! do. (Design: a clock is only ever moved to a floor, to a server's confirmed Date, or to the time from a host on a
//! line, and always to a time within the payload's life.)

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use crate::plan::{ClockPlan, ClockQuality};
use crate::sys::{self, RtcTime};
use crate::time::Timestamp;

/// Why a clock was not set.
#[derive(Debug)]
pub enum ClockError {
    /// The system clock was not set.
    System {
        /// The time that it was to be set to.
        to: Timestamp,
        /// The error of the system call.
        source: io::Error,
    },
    /// The real-time clock was not set.
    Rtc {
        /// The device file.
        path: PathBuf,
        /// The time that it was to be set to.
        to: Timestamp,
        /// The error of the system call.
        source: io::Error,
    },
}

/// Sets the system clock before a server is asked for the time. Returns whether it set it. A clock outside the
/// payload's life is set to the floor, the earliest time that it can be. A clock inside is kept.
///
/// The check-in does not need this: it keeps a clock of its own. Other programs do: file times, logs and the tools of
/// the next stage are off by less from the floor than from 1970 or from a faulty real-time clock. The real-time clock
/// is not written, because the floor is not the time of day.
///
/// The time from a host on a line, and that of a signature made for this node, is the time of day, so the system clock is set to
/// it at once.
pub fn prepare(plan: &ClockPlan) -> Result<bool, ClockError> {
    let to = match plan.quality {
        ClockQuality::Rtc => return Ok(false),
        ClockQuality::Signed(time) if time.own => return Ok(false),
        ClockQuality::Unknown => plan.floor,
        ClockQuality::Line(time) => time.clock().now(),
        ClockQuality::Signed(time) => time.clock.now(),
    };
    set(to).map(|()| true)
}

/// Sets the system clock, forwards or backwards.
pub fn set(to: Timestamp) -> Result<(), ClockError> {
    let time = TimeSpec::from(std::time::Duration::from_millis(to.as_millis()));
    clock_settime(ClockId::CLOCK_REALTIME, time).map_err(|errno| ClockError::System { to, source: errno.into() })
}

/// Sets the real-time clock, in UTC. Returns false when the machine has none. Callers pass a confirmed time only. A
/// failure is worth a line on the console, but must not stop the boot: the system clock is right, and the next boot
/// asks a server again.
///
/// The ioctl takes whole seconds, so the clock is up to a second slow. That is good enough: the next boot takes it as a
/// first guess.
pub fn write_rtc(root: &Path, to: Timestamp) -> Result<bool, ClockError> {
    let path = root.join("dev/rtc0");
    let failed = |source| ClockError::Rtc { path: path.clone(), to, source };
    let rtc = match OpenOptions::new().write(true).open(&path) {
        Ok(rtc) => rtc,
        // ENODEV, ENXIO: a device node without a device.
        Err(error)
            if matches!(error.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ENODEV | nix::libc::ENXIO)) =>
        {
            return Ok(false);
        }
        Err(error) => return Err(failed(error)),
    };
    sys::set_rtc(&rtc, &rtc_time(to)).map_err(failed)?;
    Ok(true)
}

fn rtc_time(at: Timestamp) -> RtcTime {
    let (year, month, day, hour, minute, second) = at.civil();
    // Timestamp ends with the year 9999, so every field fits.
    let int = |n: u64| nix::libc::c_int::try_from(n).unwrap_or(0);
    RtcTime {
        second: int(second),
        minute: int(minute),
        hour: int(hour),
        day: int(day),
        month: int(month.saturating_sub(1)),
        year: int(year.saturating_sub(1900)),
        weekday: 0,
        yearday: 0,
        dst: 0,
    }
}

impl fmt::Display for ClockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClockError::System { to, source } => {
                write!(f, "setting the system clock from {} to {to}", Timestamp::system())?;
                match source.kind() {
                    io::ErrorKind::PermissionDenied => f.write_str(", which needs CAP_SYS_TIME; run imprint as root"),
                    _ => Ok(()),
                }
            }
            ClockError::Rtc { path, to, .. } => write!(f, "setting the real-time clock {} to {to}", path.display()),
        }
    }
}

impl std::error::Error for ClockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ClockError::System { source, .. } | ClockError::Rtc { source, .. } => Some(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_real_time_clock_is_fine() {
        let root = tempfile::tempdir().unwrap();
        assert!(!write_rtc(root.path(), Timestamp::from_secs(0)).unwrap());
    }

    #[test]
    fn a_real_time_clock_that_cannot_be_set_is_named() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        std::fs::write(root.path().join("dev/rtc0"), "").unwrap();
        let error = write_rtc(root.path(), Timestamp::from_secs(951_782_400)).unwrap_err();
        assert_eq!(
            crate::chain::chain(&error),
            format!(
                "setting the real-time clock {} to 2000-02-29T00:00:00Z: Inappropriate ioctl for device (os error 25)",
                root.path().join("dev/rtc0").display()
            )
        );
    }

    #[test]
    fn rtc_fields_count_as_struct_tm_does() {
        // TZ=UTC date -d @951782459
        let time = rtc_time(Timestamp::from_secs(951_782_459));
        let want =
            RtcTime { second: 59, minute: 0, hour: 0, day: 29, month: 1, year: 100, weekday: 0, yearday: 0, dst: 0 };
        assert_eq!(time, want);
    }

    #[test]
    fn a_plausible_clock_is_left_alone() {
        let (floor, expiry) = (Timestamp::from_secs(0), Timestamp::MAX);
        assert!(!prepare(&ClockPlan { floor, expiry, quality: ClockQuality::Rtc }).unwrap());
    }
}
