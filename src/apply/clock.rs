//! Sets the system clock and the real-time clock. Whether and to what, somebody else decided (design: a clock is only
//! ever moved to a floor, to a server's confirmed Date, or to the time on a live line, all of them within the life of a
//! payload).

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
    /// The system clock.
    System {
        /// To what.
        to: Timestamp,
        /// Why not.
        source: io::Error,
    },
    /// The real-time clock.
    Rtc {
        /// The device.
        path: PathBuf,
        /// To what.
        to: Timestamp,
        /// Why not.
        source: io::Error,
    },
}

/// Before anybody was asked for the time: a clock that cannot be right is set to the earliest time that can be, and
/// the caller is told whether it was.
///
/// The check-in does not need this, it keeps a clock of its own. Everybody else on the machine does: file times, logs
/// and the tools of the next stage are off by less from the floor than from 1970 or from a battery that ran wild. The
/// real-time clock is left alone: a floor is no time of day.
///
/// The time by a line is the time of day, and the machine is told at once.
pub fn prepare(plan: &ClockPlan) -> Result<bool, ClockError> {
    match plan.quality {
        ClockQuality::Rtc => Ok(false),
        ClockQuality::Unknown => set(plan.floor).map(|()| true),
        ClockQuality::Line(time) => set(time.clock().now()).map(|()| true),
    }
}

/// Sets the system clock, forwards or backwards.
pub fn set(to: Timestamp) -> Result<(), ClockError> {
    let time = TimeSpec::from(std::time::Duration::from_millis(to.as_millis()));
    clock_settime(ClockId::CLOCK_REALTIME, time).map_err(|errno| ClockError::System { to, source: errno.into() })
}

/// Sets the real-time clock, in UTC; false when the machine has none. Only for a confirmed time. A failure deserves a
/// line on the console, but not to stop a boot: the system clock is right, and the next boot asks again.
///
/// The ioctl knows whole seconds, so the clock is up to a second slow: it is read at the next boot, as a first guess.
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
                    io::ErrorKind::PermissionDenied => f.write_str(", which takes CAP_SYS_TIME; run it as root"),
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
