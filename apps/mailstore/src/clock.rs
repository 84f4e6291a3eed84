//! Dates as mail writes them. All of ours are in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const DAY_SECONDS: i64 = 86_400;

/// A day of the calendar, ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day {
    pub year: i64,
    pub month: u32,
    pub day: u32,
}

/// `Sun, 29 Nov 2026 01:02:03 +0000` (RFC 5322, section 3.3).
pub fn rfc5322(time: SystemTime) -> String {
    let seconds = seconds(time);
    let Day { year, month, day } = Day::of_seconds(seconds);
    let week_day = DAYS[seconds.div_euclid(DAY_SECONDS).rem_euclid(7) as usize];
    format!(
        "{week_day}, {day:02} {} {year:04} {} +0000",
        MONTHS[month as usize - 1],
        of_day(seconds)
    )
}

/// `"29-Nov-2026 01:02:03 +0000"` without the quotes (RFC 3501, date-time).
pub fn imap(time: SystemTime) -> String {
    let seconds = seconds(time);
    let Day { year, month, day } = Day::of_seconds(seconds);
    format!(
        "{day:2}-{}-{year:04} {} +0000",
        MONTHS[month as usize - 1],
        of_day(seconds)
    )
}

/// `2026-11-29T01:02:03Z`, for the log.
pub fn iso(time: SystemTime) -> String {
    let seconds = seconds(time);
    let Day { year, month, day } = Day::of_seconds(seconds);
    format!("{year:04}-{month:02}-{day:02}T{}Z", of_day(seconds))
}

/// Reads IMAP's date-time: `" 1-Nov-2026 01:02:03 +0100"` without the quotes.
pub fn parse_imap(text: &str) -> Option<SystemTime> {
    let (date, rest) = text.trim_start().split_once(' ')?;
    let (time, zone) = rest.split_once(' ')?;
    let day = parse_imap_day(date)?;
    let mut parts = time.split(':').map(|part| digits(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (sign, zone) = match zone.split_at_checked(1)? {
        ("+", zone) => (1, zone),
        ("-", zone) => (-1, zone),
        _ => return None,
    };
    let zone = digits(zone, 4)?;
    let offset = sign * (zone / 100 * 60 + zone % 100) * 60;
    let seconds = day.seconds() + hour * 3600 + minute * 60 + second - offset;
    Some(if seconds >= 0 {
        UNIX_EPOCH + Duration::from_secs(seconds as u64)
    } else {
        UNIX_EPOCH
    })
}

/// Reads IMAP's date: `1-Nov-2026`.
pub fn parse_imap_day(text: &str) -> Option<Day> {
    let mut parts = text.split('-');
    let day = parts.next().filter(|d| (1..=2).contains(&d.len()))?;
    let day = digits(day, day.len())? as u32;
    let name = parts.next()?;
    let month = MONTHS
        .iter()
        .position(|month| month.eq_ignore_ascii_case(name))? as u32
        + 1;
    let year = digits(parts.next()?, 4)?;
    (parts.next().is_none() && (1..=31).contains(&day)).then_some(Day { year, month, day })
}

impl Day {
    pub fn of(time: SystemTime) -> Day {
        Day::of_seconds(seconds(time))
    }

    /// From days since 1970, in eras of 400 years that begin with March.
    fn of_seconds(seconds: i64) -> Day {
        let days = seconds.div_euclid(DAY_SECONDS) + 719_468;
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let day = (of_year - (153 * shifted + 2) / 5 + 1) as u32;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        } as u32;
        Day {
            year: year + era * 400 + i64::from(month <= 2),
            month,
            day,
        }
    }

    fn seconds(self) -> i64 {
        let year = if self.month <= 2 {
            self.year - 1
        } else {
            self.year
        };
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let shifted = i64::from((self.month + 9) % 12);
        let of_year = (153 * shifted + 2) / 5 + i64::from(self.day) - 1;
        let days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
        (era * 146_097 + days - 719_468) * DAY_SECONDS
    }
}

fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs() as i64,
        Err(before) => -(before.duration().as_secs() as i64),
    }
}

fn of_day(seconds: i64) -> String {
    let second = seconds.rem_euclid(DAY_SECONDS);
    format!(
        "{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_and_read() {
        let time = UNIX_EPOCH + Duration::from_secs(1_795_914_123);
        assert_eq!(rfc5322(time), "Sun, 29 Nov 2026 01:02:03 +0000");
        assert_eq!(imap(time), "29-Nov-2026 01:02:03 +0000");
        assert_eq!(iso(UNIX_EPOCH), "1970-01-01T00:00:00Z");
        assert_eq!(parse_imap("29-nov-2026 02:02:03 +0100"), Some(time));
        assert_eq!(parse_imap(" 1-Jan-1970 00:00:00 +0000"), Some(UNIX_EPOCH));
        for day in 0..200_000 {
            let time = UNIX_EPOCH + Duration::from_secs(day * DAY_SECONDS as u64);
            assert_eq!(parse_imap(&imap(time)), Some(time));
        }
    }

    #[test]
    fn wrong_dates_are_none() {
        for wrong in [
            "",
            "1-Foo-2026 00:00:00 +0000",
            "1-Jan-2026 24:00:00 +0000",
            "1-Jan-2026 00:00 +0000",
            "32-Jan-2026 00:00:00 +0000",
            "1-Jan-2026 00:00:00 0000",
            "1-Jan-+026 00:00:00 +0000",
            "1-Jan-2026 00:00:00 +\u{e4}00",
        ] {
            assert_eq!(parse_imap(wrong), None, "{wrong}");
        }
    }
}
