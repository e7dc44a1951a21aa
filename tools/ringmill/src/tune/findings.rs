//! Everything that was measured, in the form in which it is told.

use ringmill_tune::{Ack, DeviceRow, Estimate, Point, Policy, Rate, Sample, Slo, Spread, frontier};
use serde::Serialize;

/// Deviations before anything is known, of logarithms.
const TAIL_ASSUMED: f64 = 0.25;
const COST_ASSUMED: f64 = 0.08;
/// Loads that are the same but for rounding.
const SAME_LOAD: f64 = 0.005;

/// One policy at one load, and its runs.
#[derive(Clone, Debug)]
pub struct Trial {
    pub policy: Policy,
    /// Bytes of values a second; `None`: as fast as it went.
    pub asked: Option<f64>,
    pub samples: Vec<Sample>,
}

/// All trials of a search.
#[derive(Clone, Debug, Default)]
pub struct Trials(pub Vec<Trial>);

impl Trials {
    pub fn add(&mut self, policy: &Policy, asked: Option<f64>, sample: Sample) {
        match self.0.iter_mut().find(|trial| trial.policy == *policy && same_load(trial.asked, asked)) {
            Some(trial) => trial.samples.push(sample),
            None => self.0.push(Trial { policy: *policy, asked, samples: vec![sample] }),
        }
    }

    /// Every trial with its middles and intervals.
    pub fn rows(&self) -> Vec<Row> {
        let (mut tails, mut costs) = (Spread::assumed(TAIL_ASSUMED), Spread::assumed(COST_ASSUMED));
        for trial in &self.0 {
            tails.learn(&trial.values(|s| s.tail_ms));
            costs.learn(&trial.values(|s| s.cpu_seconds_per_gb));
        }
        let row = |trial: &Trial| {
            let middle =
                |of: fn(&Sample) -> f64| Some(Spread::assumed(1.0).estimate(&trial.values(of))?.value);
            Some(Row {
                policy: PolicyText::of(&trial.policy),
                raw: trial.policy,
                asked_bytes_per_second: trial.asked,
                bytes_per_second: middle(|s| s.bytes_per_second)?,
                p50_ms: middle(|s| s.p50_ms)?,
                tail_ms: Interval::of(tails.estimate(&trial.values(|s| s.tail_ms))?),
                cpu_seconds_per_gb: Interval::of(costs.estimate(&trial.values(|s| s.cpu_seconds_per_gb))?),
                runs: trial.samples.len(),
                kept_up: trial.samples.iter().filter(|s| s.kept_up).count() * 2 > trial.samples.len(),
            })
        };
        self.0.iter().filter_map(row).collect()
    }
}

impl Trial {
    fn values(&self, of: fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(of).collect()
    }
}

pub fn same_load(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a / b - 1.0).abs() < SAME_LOAD,
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// A middle and the interval that holds it with a confidence of 90 %.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Interval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Interval {
    fn of(estimate: Estimate) -> Interval {
        let Estimate { value, low, high, .. } = estimate;
        Interval { value, low, high }
    }
}

/// A policy, key by key.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyText {
    pub ack: &'static str,
    pub flush_method: &'static str,
    pub flush_depth: u32,
    pub group_linger_us: u64,
    pub group_bytes: u64,
}

impl PolicyText {
    pub fn of(policy: &Policy) -> PolicyText {
        PolicyText {
            ack: policy.ack.name(),
            flush_method: policy.method.name(),
            flush_depth: policy.depth,
            group_linger_us: policy.linger_us,
            group_bytes: policy.group_bytes,
        }
    }
}

/// A trial as it is told.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub policy: PolicyText,
    #[serde(skip)]
    pub raw: Policy,
    pub asked_bytes_per_second: Option<f64>,
    pub bytes_per_second: f64,
    pub p50_ms: f64,
    /// At the quantile of the goal.
    pub tail_ms: Interval,
    pub cpu_seconds_per_gb: Interval,
    pub runs: usize,
    pub kept_up: bool,
}

/// Positions of rows on the frontier of one kind of ack: those with the lowest latency at their load or more.
pub fn on_frontier(rows: &[Row], ack: Ack) -> Vec<usize> {
    let of: Vec<usize> = (0..rows.len())
        .filter(|at| {
            rows.get(*at).is_some_and(|row| row.raw.ack == ack && row.asked_bytes_per_second.is_some())
        })
        .filter(|at| rows.get(*at).is_some_and(|row| row.kept_up))
        .collect();
    let points: Vec<Point> = of
        .iter()
        .filter_map(|at| rows.get(*at))
        .map(|row| Point { bytes_per_second: row.bytes_per_second, tail_ms: row.tail_ms.value })
        .collect();
    frontier(&points).into_iter().filter_map(|at| of.get(at).copied()).collect()
}

/// One fresh run that was made to check what was found.
#[derive(Clone, Debug, Serialize)]
pub struct Fresh {
    pub policy: PolicyText,
    #[serde(skip)]
    pub raw: Policy,
    pub asked_bytes_per_second: f64,
    pub bytes_per_second: f64,
    pub p50_ms: f64,
    pub tail_ms: f64,
    pub cpu_seconds_per_gb: f64,
    pub kept_up: bool,
    /// Whether it keeps within the goal; without one whether it kept up.
    pub meets: bool,
}

impl Fresh {
    pub fn of(policy: &Policy, asked: f64, sample: &Sample, slo: Option<Slo>) -> Fresh {
        Fresh {
            policy: PolicyText::of(policy),
            raw: *policy,
            asked_bytes_per_second: asked,
            bytes_per_second: sample.bytes_per_second,
            p50_ms: sample.p50_ms,
            tail_ms: sample.tail_ms,
            cpu_seconds_per_gb: sample.cpu_seconds_per_gb,
            kept_up: sample.kept_up,
            meets: sample.kept_up && slo.is_none_or(|slo| sample.tail_ms <= slo.ms),
        }
    }
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    pub rate_bytes_per_second: Option<f64>,
    pub record_bytes: u32,
    pub partitions: i32,
    pub producers: usize,
    pub producer_linger_ms: f64,
    pub quantile: f64,
    pub quantile_name: String,
    pub limit_ms: Option<f64>,
    #[serde(skip)]
    pub slo: Option<Slo>,
}

impl Asked {
    pub fn rate(rate: Option<Rate>, record_bytes: u32) -> Option<f64> {
        rate.map(|rate| rate.bytes_per_second(record_bytes))
    }
}

/// A point of the device's curves.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DeviceText {
    pub method: &'static str,
    pub depth: u32,
    pub size_bytes: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub per_second: f64,
}

impl DeviceText {
    pub fn of(row: &DeviceRow) -> DeviceText {
        let DeviceRow { method, depth, size_bytes, p50_ms, p99_ms, per_second } = *row;
        DeviceText { method: method.name(), depth, size_bytes, p50_ms, p99_ms, per_second }
    }
}

/// What the search came to.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Verdict {
    /// This policy, as its fresh run shows.
    Recommended { fresh: Fresh, changes: Vec<(&'static str, String)> },
    /// No policy meets the goal: the lowest latency at that load, and the largest load within that latency.
    Nearest { at_load: Option<Fresh>, within_latency: Option<Fresh> },
    /// Nothing was asked for but the picture.
    Frontier { fresh: Vec<Fresh> },
    /// Stopped before there was an answer.
    Unfinished,
}

/// What brute force found beside the recommendation.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sweep {
    /// Run once each.
    pub policies: usize,
    /// That seemed better by more than a tenth in that run.
    pub challengers: usize,
    /// Of those, the best that met the recommendation again.
    pub duels: usize,
    /// Of those, how many met the goal where the recommendation, run in turns with them, missed it.
    pub missed: usize,
    /// How much better the best of the others was then, as a part; negative: worse.
    pub best_gain: Option<f64>,
    pub best: Option<PolicyText>,
    /// By more than a tenth, or where the recommendation missed the goal.
    pub beaten: bool,
    pub complete: bool,
}

impl Sweep {
    /// A challenger and the recommendation were run in turns; none: missed the goal.
    pub fn met(&mut self, challenger: PolicyText, theirs: Option<f64>, own: Option<f64>) {
        self.duels += 1;
        match (theirs, own) {
            (Some(theirs), Some(own)) => {
                let better = 1.0 - theirs / own;
                if self.best_gain.is_none_or(|gain| better > gain) {
                    self.best_gain = Some(better);
                    if self.missed == 0 {
                        self.best = Some(challenger);
                    }
                }
            }
            (Some(_), None) => {
                self.missed += 1;
                self.best = Some(challenger);
            }
            (None, Some(_) | None) => {}
        }
    }
}

/// Everything, as `--json` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    pub asked: Asked,
    pub device_name: String,
    pub device: Vec<DeviceText>,
    pub verdict: Verdict,
    /// A fresh run of the default policy at the load of the goal.
    pub default: Option<Fresh>,
    pub trials: Vec<Row>,
    /// Positions among the trials.
    pub frontier_durable: Vec<usize>,
    pub frontier_relaxed: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
    /// Policies that could not be run, and why.
    pub failed: Vec<(String, String)>,
    pub runs: usize,
    pub seconds: f64,
    pub complete: bool,
}
