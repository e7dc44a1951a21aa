//! When each record is meant to be sent.
//!
//! A schedule knows nothing of the broker: it is fixed before the first record leaves.

use ringmill_types::Random;
use std::fmt;
use std::str::FromStr;

const SECOND_NS: f64 = 1e9;

/// How intended times follow each other. Rates in records per second.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// As fast as the connections take them; the intended time is the time at which a record could be made.
    Unlimited,
    Constant(f64),
    /// Independent arrivals: exponential gaps.
    Poisson(f64),
    /// `count` records at once, at this mean rate.
    Burst {
        rate: f64,
        count: u32,
    },
    /// `from` at first, `to` after so many seconds.
    Step {
        from: f64,
        to: f64,
        after_s: f64,
    },
    /// Rates of a recorded run, one for each second, from the beginning again when they end.
    Replay(Vec<f64>),
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotASchedule(String);

impl fmt::Display for NotASchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: a schedule is RATE, poisson:RATE, burst:RATE:COUNT, step:FROM:TO:SECONDS or \
             replay:RATE,RATE,… with rates above 0, or -1 for no limit",
            self.0
        )
    }
}

impl std::error::Error for NotASchedule {}

impl FromStr for Schedule {
    type Err = NotASchedule;

    fn from_str(text: &str) -> Result<Schedule, NotASchedule> {
        let refuse = || NotASchedule(text.to_string());
        let number = |part: &str| {
            let value: f64 = part.parse().map_err(|_| refuse())?;
            if value.is_finite() && value > 0.0 && value <= 1e9 { Ok(value) } else { Err(refuse()) }
        };
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            // Kafka's tool reads a number with a point too.
            ["-1" | "-1.0"] => Ok(Schedule::Unlimited),
            [rate] | ["constant", rate] => Ok(Schedule::Constant(number(rate)?)),
            ["poisson", rate] => Ok(Schedule::Poisson(number(rate)?)),
            ["burst", rate, count] => match count.parse() {
                Ok(count) if count > 0 => Ok(Schedule::Burst { rate: number(rate)?, count }),
                _ => Err(refuse()),
            },
            ["step", from, to, after] => {
                Ok(Schedule::Step { from: number(from)?, to: number(to)?, after_s: number(after)? })
            }
            ["replay", rates] => {
                Ok(Schedule::Replay(rates.split(',').map(number).collect::<Result<_, _>>()?))
            }
            _ => Err(refuse()),
        }
    }
}

impl Schedule {
    /// The mean over the first `seconds`; `None` without a limit.
    pub fn rate(&self, seconds: f64) -> Option<f64> {
        match self {
            Schedule::Unlimited => None,
            Schedule::Constant(rate) | Schedule::Poisson(rate) | Schedule::Burst { rate, .. } => Some(*rate),
            Schedule::Step { from, to, after_s } => {
                let first = after_s.min(seconds);
                Some((from * first + to * (seconds - first)) / seconds.max(f64::MIN_POSITIVE))
            }
            Schedule::Replay(rates) => Some(rates.iter().sum::<f64>() / rates.len().max(1) as f64),
        }
    }

    /// Intended times in nanoseconds from the start, never falling; the same for the same seed.
    pub fn times(&self, seed: u64) -> Times {
        Times { schedule: self.clone(), at_ns: 0.0, index: 0, random: Random::new(seed) }
    }
}

/// See [`Schedule::times`]. Endless; `None` only for [`Schedule::Unlimited`], which has no times of its own.
#[derive(Clone, Debug)]
pub struct Times {
    schedule: Schedule,
    at_ns: f64,
    index: u64,
    random: Random,
}

impl Iterator for Times {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let now = self.at_ns;
        let gap = match &self.schedule {
            Schedule::Unlimited => return None,
            Schedule::Constant(rate) => SECOND_NS / rate,
            Schedule::Poisson(rate) => self.random.exponential(SECOND_NS / rate),
            Schedule::Burst { rate, count } => {
                let last = (self.index + 1).is_multiple_of(u64::from(*count));
                if last { f64::from(*count) * SECOND_NS / rate } else { 0.0 }
            }
            Schedule::Step { from, to, after_s } => {
                SECOND_NS / if now < after_s * SECOND_NS { from } else { to }
            }
            Schedule::Replay(rates) => {
                let second = (now / SECOND_NS) as usize % rates.len().max(1);
                SECOND_NS / rates.get(second).copied().unwrap_or(1.0)
            }
        };
        self.index += 1;
        self.at_ns += gap;
        Some(now as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(text: &str, count: usize) -> Vec<u64> {
        text.parse::<Schedule>().expect("a schedule").times(7).take(count).collect()
    }

    #[test]
    fn times_are_those_of_the_rate() {
        assert_eq!(times("1000", 4), [0, 1_000_000, 2_000_000, 3_000_000]);
        assert_eq!(times("burst:100:3", 7), [0, 0, 0, 30_000_000, 30_000_000, 30_000_000, 60_000_000]);
        assert_eq!(times("step:1:2:2", 5), [0, 1_000_000_000, 2_000_000_000, 2_500_000_000, 3_000_000_000]);
        assert_eq!(times("replay:2,1", 4), [0, 500_000_000, 1_000_000_000, 2_000_000_000]);
        assert_eq!(times("-1", 1), []);
    }

    #[test]
    fn poisson_has_the_mean_and_the_spread_of_independent_arrivals() {
        let times = times("poisson:1000", 200_001);
        let gaps: Vec<f64> = times.windows(2).map(|w| (w[1] - w[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 1e6 - 1.0).abs() < 0.01, "mean gap {mean} ns");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "an exponential's deviation is its mean");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "0",
            "-2",
            "nan",
            "inf",
            "burst:10:0",
            "burst:10",
            "step:1:2",
            "replay:",
            "replay:1,0",
            "x:1",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }
}
