//! Turns HTTP dates (RFC 9110 §5.6.7) into points in time. Never asks a clock.

use std::time::Duration;

use crate::time::Timestamp;

/// A Date as servers send it: IMF-fixdate, or one of the two obsolete forms that a recipient must accept. `None`: it is
/// anything else, or before 1970.
pub fn date(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let (weekday, rest) = text.split_at_checked(3)?;
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let (day, month, year, time) = match words.as_slice() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        [",", day, month, year, time, "GMT"] => (digits(day, 2)?, *month, digits(year, 4)?, *time),
        // Sunday, 06-Nov-94 08:49:37 GMT
        [tail, date, time, "GMT"] if tail.ends_with("day,") => {
            let (day, rest) = date.split_once('-')?;
            let (month, year) = rest.split_once('-')?;
            // There is no clock to ask, so two digits mean 1970 to 2069.
            let year = digits(year, 2)?;
            (digits(day, 2)?, month, if year < 70 { year + 2000 } else { year + 1900 }, *time)
        }
        // Sun Nov  6 08:49:37 1994
        [month, day, time, year] => (digits(day, day.len())?, *month, digits(year, 4)?, *time),
        _ => return None,
    };
    let month = (1..).zip(MONTHS).find(|(_, name)| *name == month).map(|(number, _)| number)?;
    let mut parts = time.split(':').map(|part| digits(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    // 60 is a leap second.
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_since_epoch(year, month, day)?;
    // 1970-01-01 was a Thursday.
    let index = usize::try_from((days + 4) % 7).ok()?;
    if WEEKDAYS.get(index) != Some(&weekday) {
        return None;
    }
    let secs = days * 86_400 + hour * 3600 + minute * 60 + second;
    let at = Timestamp::from_secs(0).plus(Duration::from_secs(secs));
    (at.as_secs() == secs).then_some(at)
}

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Exactly `count` digits, which may be one to four.
fn digits(text: &str, count: usize) -> Option<u64> {
    let right = text.len() == count && (1..=4).contains(&count) && text.bytes().all(|b| b.is_ascii_digit());
    right.then(|| text.parse().ok()).flatten()
}

/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil, for years from 1970 on.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if year < 1970 || !(1..=length).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, yoe) = (year / 400, year % 400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    (era * 146_097 + doe).checked_sub(719_468)
}
