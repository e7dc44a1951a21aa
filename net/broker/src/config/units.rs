//! Sizes, durations and CPU lists as people write them, and back.
//!
//! Pure text: every function takes a string or a number and returns one; overflow is an error, never a wrap.

/// `4096`, `64MiB`, `64M`, `1.5GiB`, `10MB`. K, M, G and T without `iB` count by 1024, `KB`…`TB` by 1000.
///
/// # Errors
/// A phrase that fits after "KEY: ".
pub fn parse_bytes(text: &str) -> Result<i64, String> {
    let (number, unit) = split_unit(text);
    let factor: i64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => {
            return Err(format!(
                "`{text}` is not a size: write bytes, or a number with KiB, MiB, GiB or TiB"
            ));
        }
    };
    scale(number, factor)
        .ok_or_else(|| format!("`{text}` is not a size: write bytes, or a number with KiB, MiB, GiB or TiB"))
}

/// The unit that a plain number of a time key is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    Micros,
    Millis,
    Minutes,
    Hours,
}

impl TimeUnit {
    fn micros(self) -> i64 {
        match self {
            TimeUnit::Micros => 1,
            TimeUnit::Millis => 1_000,
            TimeUnit::Minutes => 60_000_000,
            TimeUnit::Hours => 3_600_000_000,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            TimeUnit::Micros => "µs",
            TimeUnit::Millis => "ms",
            TimeUnit::Minutes => "minutes",
            TimeUnit::Hours => "hours",
        }
    }
}

/// `250`, `250us`, `5ms`, `30s`, `10min`, `12h`, `7d`, as a count of `unit`. What does not divide into it is refused.
///
/// # Errors
/// A phrase that fits after "KEY: ".
pub fn parse_time(text: &str, unit: TimeUnit) -> Result<i64, String> {
    let bad = || {
        format!("`{text}` is not a duration: write {}, or a number with us, ms, s, min, h or d", unit.name())
    };
    let (number, suffix) = split_unit(text);
    let micros: i64 = match suffix {
        "" => return number.parse().map_err(|_| bad()),
        "us" | "µs" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" | "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err(bad()),
    };
    let total = scale(number, micros).ok_or_else(bad)?;
    if total % unit.micros() != 0 {
        return Err(format!("`{text}` is not a whole number of {}", unit.name()));
    }
    Ok(total / unit.micros())
}

/// Digits (with sign and fraction) in front, the rest behind, blanks between them dropped.
fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | '_')).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    (number.trim(), unit.trim())
}

/// `number * factor` for a whole number, or a fraction whose product is whole.
fn scale(number: &str, factor: i64) -> Option<i64> {
    let number = number.replace('_', "");
    let Some((whole, fraction)) = number.split_once('.') else {
        return number.parse::<i64>().ok()?.checked_mul(factor);
    };
    if whole.starts_with('-')
        || fraction.is_empty()
        || fraction.len() > 6
        || !fraction.bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let tenths = 10i64.pow(u32::try_from(fraction.len()).ok()?);
    let part = fraction.parse::<i64>().ok()?.checked_mul(factor)?;
    if part % tenths != 0 {
        return None;
    }
    whole.parse::<i64>().ok()?.checked_mul(factor)?.checked_add(part / tenths)
}

/// The largest unit that divides `bytes`: `64MiB`, `1048588`.
pub fn show_bytes(bytes: i64) -> String {
    for (factor, unit) in [(1i64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes != 0 && bytes % factor == 0 {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// Highest CPU number accepted; also bounds what a range may expand to.
pub const CPU_MAX: usize = 4095;

/// `0-3`, `0,2`, `0-1,4-5`: sorted. A CPU that is named twice is a slip: as many were meant as were written.
///
/// # Errors
/// A phrase that fits after "KEY: ".
pub fn parse_cpus(text: &str) -> Result<Vec<usize>, String> {
    let bad = || format!("`{text}` is not a list of CPUs: write `0-3`, `0,2` or both combined");
    let mut cpus = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let from: usize = from.trim().parse().map_err(|_| bad())?;
        let to: usize = to.trim().parse().map_err(|_| bad())?;
        if from > to || to > CPU_MAX {
            return Err(bad());
        }
        cpus.extend(from..=to);
    }
    cpus.sort_unstable();
    if let Some((twice, _)) = cpus.iter().zip(cpus.iter().skip(1)).find(|(one, next)| one == next) {
        return Err(format!("`{text}` names CPU {twice} twice"));
    }
    if cpus.is_empty() { Err(bad()) } else { Ok(cpus) }
}

/// The shortest text that [`parse_cpus`] reads as `cpus` (sorted).
pub fn show_cpus(cpus: &[usize]) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(&first) = cpus.get(at) {
        let run = cpus.iter().skip(at).zip(first..).take_while(|(cpu, want)| **cpu == *want).count();
        let last = first + run - 1;
        out.push(if run == 1 { first.to_string() } else { format!("{first}-{last}") });
        at += run;
    }
    out.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1048588", 1_048_588),
            ("64MiB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("2G", 2 << 30),
            ("1.5GiB", 3 << 29),
            ("10MB", 10_000_000),
            ("-1", -1),
            ("1_000k", 1_024_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "1.3", "1e6", "64MiBs", "9999999999TiB", "--1", "1.0000000001k"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, unit, count) in [
            ("250", TimeUnit::Micros, 250),
            ("7d", TimeUnit::Millis, 604_800_000),
            ("1ms", TimeUnit::Micros, 1000),
            ("168", TimeUnit::Hours, 168),
            ("2d", TimeUnit::Hours, 48),
            ("-1", TimeUnit::Millis, -1),
            ("9223372036854775807", TimeUnit::Millis, i64::MAX),
            ("0.5s", TimeUnit::Millis, 500),
        ] {
            assert_eq!(parse_time(text, unit), Ok(count), "{text}");
        }
        for (text, unit) in [
            ("10us", TimeUnit::Millis),
            ("90min", TimeUnit::Hours),
            ("1y", TimeUnit::Millis),
            ("x", TimeUnit::Micros),
        ] {
            assert!(parse_time(text, unit).is_err(), "{text}");
        }
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpus("0-3"), Ok(vec![0, 1, 2, 3]));
        assert_eq!(parse_cpus("4,0-1, 2"), Ok(vec![0, 1, 2, 4]));
        for (text, cpu) in [("1,1", 1), ("4,0-2, 2", 2)] {
            assert_eq!(parse_cpus(text), Err(format!("`{text}` names CPU {cpu} twice")));
        }
        for text in ["", "3-1", "a", "0-99999999", "-1"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
        assert_eq!(show_cpus(&[0, 1, 2, 4, 6, 7]), "0-2,4,6-7");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(bytes in any::<i64>(), mut cpus in proptest::collection::vec(0..=CPU_MAX, 1..40)) {
            prop_assert_eq!(parse_bytes(&show_bytes(bytes)), Ok(bytes));
            cpus.sort_unstable();
            cpus.dedup();
            prop_assert_eq!(parse_cpus(&show_cpus(&cpus)), Ok(cpus));
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,24}") {
            let _ = parse_bytes(&text);
            let _ = parse_time(&text, TimeUnit::Hours);
            let _ = parse_cpus(&text);
        }
    }
}
