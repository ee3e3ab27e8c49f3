//! Moments and durations as people write them (RFC 3339; Go's `time.ParseDuration`).

use std::time::Duration;

use vswitch_sys::wallclock;

/// A moment, counted from 1970-01-01T00:00:00Z, in UTC with nanoseconds, as Docker writes it.
pub fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let nanos = since_epoch.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Year, month and day of a day counted from 1970-01-01. A year here begins on the first of March, so
/// that a leap day is its last; five months of it take 153 days, 400 years 146,097.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    (era * 400 + year, month, date)
}

/// The day of a date, counted from 1970-01-01: the inverse of [`civil`]. `None` for no date, and for one
/// before that.
fn day(year: u64, month: u64, date: u64) -> Option<u64> {
    let shifted = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let (era, in_era) = (shifted.0 / 400, shifted.0 % 400);
    let of_year = in_era * 365 + in_era / 4 - in_era / 100;
    let day = era * 146_097 + of_year + (153 * shifted.1 + 2) / 5 + date.checked_sub(1)?;
    let day = day.checked_sub(719_468)?;
    (civil(day) == (year, month, date)).then_some(day)
}

/// A moment, counted from 1970-01-01T00:00:00Z: seconds since then, or `2026-11-20`, `2026-11-20T08:30` or
/// `2026-11-20T08:30:15.5`, each of the latter two with `Z` or an offset as in `+01:00`, or in UTC.
pub fn moment(text: &str) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|seconds| *seconds < SECONDS_MAX).map(Duration::from_secs);
    }
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00"));
    let [year, month, date] = numbers(date, '-')?[..] else { return None };
    if year >= 10_000 {
        return None;
    }
    let midnight = day(year, month, date)? * 86_400;
    let (time, offset) = match time.strip_suffix('Z') {
        Some(time) => (time, None),
        None => time.find(['+', '-']).map_or((time, None), |at| (&time[..at], Some(&time[at..]))),
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let (hour, minute, second) = match numbers(time, ':')?[..] {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    if hour > 23 || minute > 59 || second > 60 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction = Duration::try_from_secs_f64(format!("0.{fraction}").parse().ok()?).ok()?;
    let local = Duration::from_secs(midnight + hour * 3600 + minute * 60 + second) + fraction;
    let Some(offset) = offset else { return Some(local) };
    let [hours, minutes] = numbers(&offset[1..], ':')?[..] else { return None };
    let ahead = Duration::from_secs(hours.min(24) * 3600 + minutes.min(60) * 60);
    if offset.starts_with('+') { local.checked_sub(ahead) } else { local.checked_add(ahead) }
}

/// The first second of the year 10000, which has no date here.
const SECONDS_MAX: u64 = 253_402_300_800;

fn numbers(text: &str, separator: char) -> Option<Vec<u64>> {
    let digits =
        |part: &str| !part.is_empty() && part.len() <= 5 && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split(separator).map(|part| part.parse().ok().filter(|_| digits(part))).collect()
}

/// A duration: numbers with units, as in `1h30m` or `1.5s`.
pub fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(number_end);
        let unit_end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let part = number.parse::<f64>().ok()? * seconds;
        total = total.checked_add(Duration::try_from_secs_f64(part).ok()?)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(total)
}

/// The present moment, as people write it.
pub fn now() -> String {
    rfc3339(wallclock::since_epoch())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_date_prints_them() {
        let at = |seconds| rfc3339(Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.000000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59.000000000Z");
        assert_eq!(at(1_709_251_200), "2024-03-01T00:00:00.000000000Z");
        assert_eq!(at(1_795_132_800), "2026-11-20T00:00:00.000000000Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59.000000000Z");
        assert_eq!(rfc3339(Duration::new(1_735_689_600, 7)), "2025-01-01T00:00:00.000000007Z");
    }

    #[test]
    fn moments_are_read_as_they_are_written() {
        for seconds in [0, 951_782_399, 951_782_400, 1_709_251_199, 1_709_251_200, 1_795_132_800] {
            let at = Duration::new(seconds, 500_000_000);
            assert_eq!(moment(&rfc3339(at)), Some(at), "{seconds}");
            assert_eq!(moment(&seconds.to_string()), Some(Duration::from_secs(seconds)));
        }
        let same = ["2026-11-20", "2026-11-20T00:00", "2026-11-20T01:30:00+01:30", "2026-11-19T23:00-01:00"];
        for text in same {
            assert_eq!(moment(text), Some(Duration::from_secs(1_795_132_800)), "{text}");
        }
        let nonsense = [
            "",
            "x",
            "2026-11",
            "2026-02-30",
            "2026-00-01",
            "2026-11-20T",
            "2026-11-20T24:00",
            "1969-12-31",
            "2026-11-20T00:60",
            "2026-11-20T00:00:00.x",
            "2026-11-20T00:00+1",
            "99999-01-01",
            "999999999999999",
        ];
        for text in nonsense {
            assert_eq!(moment(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("10ms"), Some(Duration::from_millis(10)));
        for text in ["", "1", "h", "1d", "-1h", "1h 2m", "1..5s", "99999999999999999999h"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
