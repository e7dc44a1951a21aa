//! Rates, sizes, times and goals as people write them.

/// Reads `1000`, `64KiB`, `1.5MB`: decimal units count in thousands, binary ones in 1,024.
///
/// # Errors
/// A sentence.
pub fn bytes(text: &str) -> Result<f64, String> {
    const UNITS: [(&str, f64); 13] = [
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("TiB", 1_099_511_627_776.0),
        ("kB", 1e3),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("B", 1.0),
    ];
    let refuse = || format!("{text} is not a size such as 1000, 64KiB or 1.5MB");
    positive(text, &UNITS).ok_or_else(refuse)
}

/// What is asked: bytes or records per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    Bytes(f64),
    Records(f64),
}

impl Rate {
    /// Records per second at this size.
    pub fn records(self, record_bytes: u32) -> f64 {
        match self {
            Rate::Bytes(bytes) => bytes / f64::from(record_bytes.max(1)),
            Rate::Records(records) => records,
        }
    }
}

/// Reads `80MB/s`, `20000rec/s`, or a number of records per second.
///
/// # Errors
/// A sentence.
pub fn rate(text: &str) -> Result<Rate, String> {
    const COUNTS: [(&str, f64); 3] = [("k", 1e3), ("M", 1e6), ("G", 1e9)];
    let refuse = || format!("{text} is not a rate such as 80MB/s, 20000 or 20krec/s");
    let records = |text: &str| positive(text, &COUNTS).map(Rate::Records);
    let found = match text.strip_suffix("/s") {
        Some(rest) => match rest.strip_suffix("records").or_else(|| rest.strip_suffix("rec")) {
            Some(count) => records(count.trim_end()),
            None => rest.ends_with('B').then(|| bytes(rest).ok().map(Rate::Bytes)).flatten(),
        },
        None => records(text),
    };
    found.ok_or_else(refuse)
}

/// Reads `3d`, `12h`, `90m`, `30s`, `500ms`, `200us`; seconds.
///
/// # Errors
/// A sentence.
pub fn seconds(text: &str) -> Result<f64, String> {
    const UNITS: [(&str, f64); 8] = [
        ("ms", 1e-3),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
        ("d", 86_400.0),
        ("w", 604_800.0),
    ];
    let bare = text.trim().ends_with(|c: char| c.is_ascii_digit());
    let zero = text.trim() == "0";
    let found = if bare { None } else { positive(text, &UNITS) };
    if zero {
        Ok(0.0)
    } else {
        found.ok_or_else(|| format!("{text} is not a time such as 3d, 12h, 30s or 5ms"))
    }
}

/// A time as people say it, from seconds: `40 ms`, `12 s`, `24 min`, `5.0 h`, `3.0 days`.
#[must_use]
pub fn span(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

/// A latency that must not be exceeded by this part of the records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    pub part: f64,
    pub ms: f64,
}

/// Reads `p99=5ms`. The model tells p50 and p99.
///
/// # Errors
/// A sentence.
pub fn goal(text: &str) -> Result<Goal, String> {
    let refuse = || format!("{text} is not a goal such as p99=5ms or p50=1ms");
    let (name, time) = text.split_once('=').ok_or_else(refuse)?;
    let part = match name.trim() {
        "p50" => 0.5,
        "p99" => 0.99,
        _ => return Err(refuse()),
    };
    let ms = seconds(time.trim()).map_err(|_| refuse())? * 1e3;
    if ms > 0.0 { Ok(Goal { part, ms }) } else { Err(refuse()) }
}

/// Reads `2x/y`, `1.5x/year`, `10%/m`: the factor of a year.
///
/// # Errors
/// A sentence.
pub fn growth(text: &str) -> Result<f64, String> {
    let refuse = || format!("{text} is not a growth such as 2x/y, 20%/y or 5%/m");
    let (much, span) = text.split_once('/').ok_or_else(refuse)?;
    let much = much.trim();
    let factor = match (much.strip_suffix('x'), much.strip_suffix('%')) {
        (Some(factor), _) => number(factor).ok_or_else(refuse)?,
        (None, Some(percent)) => 1.0 + number(percent).ok_or_else(refuse)? / 100.0,
        (None, None) => return Err(refuse()),
    };
    let yearly = match span.trim() {
        "y" | "year" => factor,
        "m" | "month" => factor.powf(12.0),
        _ => return Err(refuse()),
    };
    if (0.01..=1e6).contains(&yearly) { Ok(yearly) } else { Err(refuse()) }
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0)
}

/// A number above 0 with one of these units, or none.
fn positive(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let unit = units.iter().find(|(unit, _)| text.ends_with(unit));
    let (digits, factor) = match unit {
        Some((unit, factor)) => (text.strip_suffix(unit)?, *factor),
        None => (text, 1.0),
    };
    number(digits).map(|n| n * factor).filter(|n| *n > 0.0 && *n <= 1e18)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write_is_understood() {
        assert_eq!(bytes("1000"), Ok(1000.0));
        assert_eq!(bytes("64KiB"), Ok(65_536.0));
        assert_eq!(bytes("1.5 MB"), Ok(1.5e6));
        assert_eq!(rate("80MB/s"), Ok(Rate::Bytes(8e7)));
        assert_eq!(rate("20000"), Ok(Rate::Records(20_000.0)));
        assert_eq!(rate("20krec/s"), Ok(Rate::Records(20_000.0)));
        assert_eq!(rate("5 records/s"), Ok(Rate::Records(5.0)));
        assert_eq!(seconds("3d"), Ok(259_200.0));
        assert_eq!(seconds("5ms"), Ok(0.005));
        assert_eq!(seconds("0"), Ok(0.0));
        assert_eq!(goal("p99=5ms"), Ok(Goal { part: 0.99, ms: 5.0 }));
        assert_eq!(growth("2x/y"), Ok(2.0));
        assert!((growth("10%/m").expect("a growth") - 3.138).abs() < 0.001);
    }

    #[test]
    fn times_are_told_as_people_say_them() {
        let told = [0.04, 12.0, 1458.5, 18_000.0, 259_200.0].map(span);
        assert_eq!(told, ["40 ms", "12 s", "24 min", "5.0 h", "3.0 days"]);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in ["", "-1", "0", "1XB", "nan", "inf", "B", "1e400"] {
            assert!(bytes(text).is_err(), "{text}");
            assert!(rate(text).is_err(), "{text}");
        }
        for text in ["80MB", "5/s", "MB/s", "5x/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
        for text in ["p98=5ms", "p99", "p99=5", "p99=0", "=1ms", "p99=-1ms"] {
            assert!(goal(text).is_err(), "{text}");
        }
        for text in ["2x", "2/y", "x/y", "2x/d", "-5%/y", "nanx/y", "0x/y"] {
            assert!(growth(text).is_err(), "{text}");
        }
        assert!(seconds("5").is_err() && seconds("5y").is_err() && seconds("").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in "\\PC{0,12}") {
            let _ = (bytes(&text), rate(&text), seconds(&text), goal(&text), growth(&text));
        }
    }
}
