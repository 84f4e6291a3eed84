//! Points of time as operators write them: an LSN, a time of day, or how long ago.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Error, Result};

/// Now, in microseconds since 1970.
pub fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as u64)
}

/// A point of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Lsn(u64),
    /// Microseconds since 1970.
    Time(u64),
}

/// Reads `1234` or `lsn:1234` (an LSN), `-10m`, `-2h30m`, `-3d` (before now), `@1700000000` (seconds since
/// 1970), or `2026-11-29T12:30:00Z` (UTC; the seconds may have a fraction).
pub fn parse(text: &str, now_us: u64) -> Result<When> {
    let wrong = || {
        Error::new(format!("point of time {text:?}"), "read", "it has no form that is known")
            .advise("write an LSN like 1234, -10m or -2h30m for a time ago, @SECONDS, or 2026-11-29T12:30:00Z")
    };
    let text = text.trim();
    if let Ok(lsn) = text.trim_start_matches("lsn:").parse() {
        return Ok(When::Lsn(lsn));
    }
    if let Some(ago) = text.strip_prefix('-') {
        let us = ago_us(ago).ok_or_else(wrong)?;
        return Ok(When::Time(now_us.saturating_sub(us)));
    }
    if let Some(seconds) = text.strip_prefix('@') {
        let seconds: f64 = seconds.parse().map_err(|_| wrong())?;
        return Ok(When::Time((seconds * 1e6) as u64));
    }
    date_us(text).map(When::Time).ok_or_else(wrong)
}

fn ago_us(text: &str) -> Option<u64> {
    let mut total = 0u64;
    let mut number = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        number.clear();
    }
    if !number.is_empty() || text.is_empty() {
        None
    } else {
        total.checked_mul(1_000_000)
    }
}

fn date_us(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' '])?;
    let date: Vec<i64> = date
        .split('-')
        .map(|p| p.parse().ok())
        .collect::<Option<_>>()?;
    let [year, month, day] = date[..] else {
        return None;
    };
    let mut parts = time.split(':');
    let hour: u64 = parts.next()?.parse().ok()?;
    let minute: u64 = parts.next()?.parse().ok()?;
    let second: f64 = parts.next().unwrap_or("0").parse().ok()?;
    let valid =
        (1..=12).contains(&month) && (1..=31).contains(&day) && (1970..10_000).contains(&year);
    if !valid
        || hour > 23
        || minute > 59
        || !(0.0..61.0).contains(&second)
        || parts.next().is_some()
    {
        return None;
    }
    let days = days_from_civil(year, month, day);
    let seconds = days as u64 * 86_400 + hour * 3600 + minute * 60;
    Some(seconds * 1_000_000 + (second * 1e6) as u64)
}

/// Days since 1970-01-01 in the Gregorian calendar: years begin in March, so that the leap day is
/// their last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// A time as `2026-11-29T12:30:00.123Z`.
pub fn show(us: u64) -> String {
    let (days, rest) = ((us / 86_400_000_000) as i64, us % 86_400_000_000);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * of_year + 2) / 153;
    let day = of_year - (153 * m + 2) / 5 + 1;
    let month = if m < 10 { m + 3 } else { m - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let seconds = rest / 1_000_000;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        rest / 1000 % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_again() {
        for seconds in [
            0u64,
            951_782_399,
            951_782_400,
            1_709_164_800,
            1_796_000_000,
            4_107_542_399,
        ] {
            let us = seconds * 1_000_000;
            assert_eq!(parse(&show(us), 0).unwrap(), When::Time(us), "{}", show(us));
        }
        assert_eq!(show(1_709_164_800_000_000), "2024-02-29T00:00:00.000Z");
    }

    #[test]
    fn every_form_is_read_and_nonsense_is_refused() {
        let now = 10_000_000_000;
        assert_eq!(parse("12", now).unwrap(), When::Lsn(12));
        assert_eq!(parse("lsn:12", now).unwrap(), When::Lsn(12));
        assert_eq!(
            parse("-1h2m3s", now).unwrap(),
            When::Time(now - 3_723_000_000)
        );
        assert_eq!(parse("@5.5", now).unwrap(), When::Time(5_500_000));
        for wrong in [
            "",
            "-",
            "-5",
            "-5x",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "2026-11-29",
            "@x",
        ] {
            assert!(parse(wrong, now).is_err(), "{wrong}");
        }
    }
}
