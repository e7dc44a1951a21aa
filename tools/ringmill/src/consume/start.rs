//! `--from`: where reading begins.

use ringmill_client::Start;
use std::time::{SystemTime, UNIX_EPOCH};

/// Understands what `--help` lists.
pub fn parse(text: &str) -> Result<Start, String> {
    match text {
        "beginning" | "earliest" => return Ok(Start::Beginning),
        "end" | "latest" => return Ok(Start::End),
        _ => {}
    }
    if let Some(digits) = text.strip_prefix('-') {
        let count = digits.parse().ok().filter(|count: &i64| *count >= 0);
        return count.map(Start::Last).ok_or_else(|| format!("-{digits} is not a number of records"));
    }
    if let Some((kind, rest)) = text.split_once(':') {
        return match kind {
            "offset" => rest.parse().map_err(|_| format!("{rest} is not an offset")).and_then(offset),
            "timestamp" => timestamp(rest).map(Start::Timestamp),
            "ago" => ago(rest).map(|span| Start::Timestamp(now_ms().saturating_sub(span))),
            _ => Err(format!("{kind}: is none of offset:, timestamp:, ago:")),
        };
    }
    text.parse()
        .map_err(|_| "it takes beginning, end, an offset, -COUNT, timestamp:… or ago:…".to_string())
        .and_then(offset)
}

fn offset(offset: i64) -> Result<Start, String> {
    if offset < 0 { Err("offsets begin at 0".to_string()) } else { Ok(Start::Offset(offset)) }
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds of `30s`, `5m`, `2h`, `7d`.
pub fn ago(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text} is not a time such as 30s, 5m, 2h or 7d");
    let unit = match text.chars().last() {
        Some('s') => 1000,
        Some('m') => 60_000,
        Some('h') => 3_600_000,
        Some('d') => 86_400_000,
        Some(_) | None => return Err(wrong()),
    };
    let count: i64 = text.get(..text.len() - 1).unwrap_or_default().parse().map_err(|_| wrong())?;
    count.checked_mul(unit).filter(|ms| *ms >= 0).ok_or_else(wrong)
}

/// Milliseconds since 1970, or a date and time in UTC.
pub fn timestamp(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse::<i64>() {
        return if ms < 0 { Err("timestamps begin at 0".to_string()) } else { Ok(ms) };
    }
    utc(text)
        .ok_or_else(|| format!("{text} is neither milliseconds since 1970 nor like 2026-11-21T06:00:00Z"))
}

/// `2026-11-21`, with `T06:00`, `T06:00:00` or `T06:00:00.123`, with or without `Z`.
fn utc(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, millis) = time.split_once('.').unwrap_or((time, "0"));
    let millis: i64 = format!("{millis:0<3}").get(..3)?.parse().ok()?;
    let mut time = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next().unwrap_or(Some(0))?);
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of_month(year, month)).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..60).contains(&second);
    if !in_range {
        return None;
    }
    let days = days_since_1970(year, month, day);
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let years: i64 = (1970..year).map(|year| 365 + i64::from(is_leap(year))).sum();
    let months: i64 = (1..month).map(|month| days_of_month(year, month)).sum();
    years + months + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood() {
        assert_eq!(parse("beginning"), Ok(Start::Beginning));
        assert_eq!(parse("end"), Ok(Start::End));
        assert_eq!(parse("42"), Ok(Start::Offset(42)));
        assert_eq!(parse("offset:42"), Ok(Start::Offset(42)));
        assert_eq!(parse("-10"), Ok(Start::Last(10)));
        assert_eq!(parse("timestamp:1000"), Ok(Start::Timestamp(1000)));
        // date -u -d '2026-11-21 06:00:00' +%s
        assert_eq!(parse("timestamp:2026-11-21T06:00:00Z"), Ok(Start::Timestamp(1_795_240_800_000)));
        assert_eq!(parse("timestamp:2024-02-29T00:00:00.5Z"), Ok(Start::Timestamp(1_709_164_800_500)));
        assert_eq!(parse("timestamp:1970-01-01"), Ok(Start::Timestamp(0)));
        assert!(matches!(parse("ago:5m"), Ok(Start::Timestamp(at)) if at < now_ms() - 290_000));
    }

    #[test]
    fn nonsense_is_explained() {
        for wrong in [
            "",
            "middle",
            "offset:-1",
            "--5",
            "timestamp:2026-13-01",
            "timestamp:2026-02-29",
            "timestamp:-1",
            "ago:5",
            "ago:m",
            "ago:5é",
            "ago:9223372036854775807d",
            "when:5",
            "timestamp:2026-11-21T24:00",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
