//! What is asked for, as people write it: `80MB/s`, `20000rec/s`, `p99=2ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Why a text is no goal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAGoal(String);

impl fmt::Display for NotAGoal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotAGoal {}

/// Load, of all producers together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Of values, a second.
    Bytes(f64),
    Records(f64),
}

impl Rate {
    pub fn bytes_per_second(self, record_bytes: u32) -> f64 {
        match self {
            Rate::Bytes(bytes) => bytes,
            Rate::Records(records) => records * f64::from(record_bytes),
        }
    }
}

impl FromStr for Rate {
    type Err = NotAGoal;

    fn from_str(text: &str) -> Result<Rate, NotAGoal> {
        let refuse =
            || NotAGoal(format!("{text}: a rate is such as 80MB/s, 500kB/s, 1GiB/s or 20000rec/s, above 0"));
        let body = text.trim().strip_suffix("/s").ok_or_else(refuse)?;
        let (number, unit) = split(body).ok_or_else(refuse)?;
        let factor = match unit {
            "B" => 1.0,
            "kB" | "KB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            "KiB" => 1024.0,
            "MiB" => 1_048_576.0,
            "GiB" => 1_073_741_824.0,
            "rec" | "records" => return bounded(number, 1e9).map(Rate::Records).ok_or_else(refuse),
            "krec" | "k" => return bounded(number * 1e3, 1e9).map(Rate::Records).ok_or_else(refuse),
            "" => return Err(refuse()),
            _ => return Err(refuse()),
        };
        bounded(number * factor, 1e12).map(Rate::Bytes).ok_or_else(refuse)
    }
}

/// A latency that a part of the records must not exceed, from their intended time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slo {
    /// 0 to 1.
    pub quantile: f64,
    pub ms: f64,
}

impl Slo {
    /// `p99.9`.
    pub fn name(self) -> String {
        let text = format!("{:.4}", self.quantile * 100.0);
        format!("p{}", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl FromStr for Slo {
    type Err = NotAGoal;

    fn from_str(text: &str) -> Result<Slo, NotAGoal> {
        let refuse = || NotAGoal(format!("{text}: a goal for latency is such as p99=2ms or p99.9=800us"));
        let (name, limit) = text.trim().split_once('=').ok_or_else(refuse)?;
        let percent: f64 = name.strip_prefix('p').and_then(|p| p.parse().ok()).ok_or_else(refuse)?;
        if !(1.0..=99.999).contains(&percent) {
            return Err(refuse());
        }
        let (number, unit) = split(limit).ok_or_else(refuse)?;
        let ms = match unit {
            "us" | "µs" => number / 1e3,
            "ms" => number,
            "s" => number * 1e3,
            _ => return Err(refuse()),
        };
        let ms = bounded(ms, 3.6e6).filter(|ms| *ms >= 1e-3).ok_or_else(refuse)?;
        Ok(Slo { quantile: percent / 100.0, ms })
    }
}

/// `90s`, `3m`, `1h`; a plain number is of seconds.
///
/// # Errors
/// A sentence.
pub fn time(text: &str) -> Result<Duration, NotAGoal> {
    let refuse = || NotAGoal(format!("{text}: a time is such as 90s, 3m or 1h"));
    let (number, unit) = split(text.trim()).ok_or_else(refuse)?;
    let seconds = match unit {
        "" | "s" => number,
        "ms" => number / 1e3,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(refuse()),
    };
    bounded(seconds, 864_000.0).map(Duration::from_secs_f64).ok_or_else(refuse)
}

/// Number and unit.
fn split(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

fn bounded(value: f64, max: f64) -> Option<f64> {
    (value > 0.0 && value <= max).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn goals_are_understood() {
        assert_eq!("80MB/s".parse(), Ok(Rate::Bytes(8e7)));
        assert_eq!("1.5 GiB/s".parse(), Ok(Rate::Bytes(1.5 * 1_073_741_824.0)));
        assert_eq!("20krec/s".parse(), Ok(Rate::Records(20_000.0)));
        assert_eq!(Rate::Records(5.0).bytes_per_second(200), 1000.0);
        assert_eq!("p99=2ms".parse(), Ok(Slo { quantile: 0.99, ms: 2.0 }));
        let slo: Slo = "p99.9=800us".parse().expect("a goal");
        assert_eq!((slo.name().as_str(), slo.ms), ("p99.9", 0.8));
        assert_eq!(time("3m"), Ok(Duration::from_secs(180)));
        assert_eq!(time("90"), Ok(Duration::from_secs(90)));
        assert_eq!(time("200ms"), Ok(Duration::from_millis(200)));
    }

    #[test]
    fn what_is_no_goal_is_refused_with_an_example() {
        for text in ["", "80", "80MB", "-5MB/s", "0MB/s", "80Mb/s", "1e99GB/s", "fast", "1.2.3MB/s"] {
            let error = text.parse::<Rate>().expect_err(text);
            assert!(error.to_string().contains("80MB/s"), "{error}");
        }
        for text in ["", "p99", "p99=", "p99=2", "p100=2ms", "99=2ms", "p0=1ms", "p99=0ms", "p99=2h"] {
            let error = text.parse::<Slo>().expect_err(text);
            assert!(error.to_string().contains("p99=2ms"), "{error}");
        }
        for text in ["", "-1s", "3d", "0"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,12}") {
            let _ = (text.parse::<Rate>(), text.parse::<Slo>(), time(&text));
        }
    }
}
