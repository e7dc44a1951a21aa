//! What repeated runs say: a middle and an interval.
//!
//! Latencies and costs scatter by factors, so both are looked at as logarithms: the middle is the geometric mean. One
//! policy has few runs, so how far runs scatter is learnt from those of all policies together.

/// One run of one policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub p50_ms: f64,
    /// At the quantile of the goal, from the intended time.
    pub tail_ms: f64,
    /// Acked bytes of values a second.
    pub bytes_per_second: f64,
    /// Of the broker.
    pub cpu_seconds_per_gb: f64,
    /// The load that was asked for was taken.
    pub kept_up: bool,
}

/// A middle and the interval that holds it with a confidence of 90 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub runs: usize,
}

impl Estimate {
    /// ± in percent, the larger side.
    pub fn percent(&self) -> f64 {
        (self.high / self.value - 1.0) * 100.0
    }
}

/// How far runs of one policy scatter around their middle, in logarithms; learnt from all policies.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    squares: f64,
    freedom: f64,
}

/// How many runs the assumption at the beginning weighs.
const ASSUMED_RUNS: f64 = 4.0;
/// Less scatter than 2 % is luck.
const LEAST: f64 = 0.02;

impl Spread {
    /// `assumed`: the deviation before anything was measured.
    pub fn assumed(assumed: f64) -> Spread {
        Spread { squares: assumed * assumed * ASSUMED_RUNS, freedom: ASSUMED_RUNS }
    }

    /// Adds the runs of one policy. Of many, the largest and the smallest are not told apart from the others: a
    /// disturbed run widens every interval, which is what it should do.
    pub fn learn(&mut self, values: &[f64]) {
        if values.len() < 2 {
            return;
        }
        let middle = mean_ln(values);
        self.squares += values.iter().map(|value| (ln(*value) - middle).powi(2)).sum::<f64>();
        self.freedom += values.len() as f64 - 1.0;
    }

    /// Deviation of one run's logarithm.
    pub fn deviation(&self) -> f64 {
        (self.squares / self.freedom).sqrt().max(LEAST)
    }

    /// Middle and interval of these runs; `None` without any.
    pub fn estimate(&self, values: &[f64]) -> Option<Estimate> {
        if values.is_empty() {
            return None;
        }
        let half = student(self.freedom) * self.deviation() / (values.len() as f64).sqrt();
        let middle = mean_ln(values);
        Some(Estimate {
            value: middle.exp(),
            low: (middle - half).exp(),
            high: (middle + half).exp(),
            runs: values.len(),
        })
    }
}

fn mean_ln(values: &[f64]) -> f64 {
    values.iter().map(|value| ln(*value)).sum::<f64>() / values.len() as f64
}

/// A cost of nothing is one too small to be seen.
fn ln(value: f64) -> f64 {
    value.max(1e-9).ln()
}

/// Student's t that 5 % exceed on either side.
fn student(freedom: f64) -> f64 {
    const TABLE: [(f64, f64); 10] = [
        (1.0, 6.314),
        (2.0, 2.920),
        (3.0, 2.353),
        (4.0, 2.132),
        (5.0, 2.015),
        (7.0, 1.895),
        (10.0, 1.812),
        (15.0, 1.753),
        (30.0, 1.697),
        (100.0, 1.660),
    ];
    // The row at or below: the wider one.
    TABLE.iter().rev().find(|(rows, _)| *rows <= freedom).map_or(6.314, |(_, t)| *t)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random numbers of a normal distribution, from sums of equal ones.
    struct Normal(u64);

    impl Normal {
        fn next(&mut self) -> f64 {
            (0..12).map(|_| self.equal()).sum::<f64>() - 6.0
        }

        fn equal(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    #[test]
    fn intervals_hold_the_truth_about_as_often_as_they_say() {
        let mut normal = Normal(7);
        let (mut held, mut all) = (0, 0);
        for _ in 0..200 {
            let policies: Vec<Vec<f64>> =
                (0..10).map(|_| (0..3).map(|_| (0.3 * normal.next()).exp() * 5.0).collect()).collect();
            let mut spread = Spread::assumed(0.2);
            policies.iter().for_each(|runs| spread.learn(runs));
            for runs in &policies {
                let estimate = spread.estimate(runs).expect("runs");
                all += 1;
                held += usize::from(estimate.low <= 5.0 && 5.0 <= estimate.high);
            }
        }
        let part = held as f64 / all as f64;
        assert!((0.85..=0.95).contains(&part), "{part}");
    }

    #[test]
    fn more_runs_narrow_an_interval() {
        let spread = Spread::assumed(0.2);
        let one = spread.estimate(&[2.0]).expect("a run");
        let four = spread.estimate(&[2.0; 4]).expect("runs");
        assert!((four.value - 2.0).abs() < 1e-9 && four.high < one.high && four.low > one.low);
        assert_eq!(spread.estimate(&[]), None);
        assert!(spread.estimate(&[0.0]).expect("a run").value > 0.0, "no logarithm of nothing");
    }
}
