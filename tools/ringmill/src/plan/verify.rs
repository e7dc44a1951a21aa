//! Predicted against measured: the load's shape on a broker of our own on this machine.
//!
//! One node with one core, all clients beside it; producers and partitions are the plan's, as far as one machine can have
//! them. First the rate at saturation, then p50 and p99 at half and at 80 % of what was measured there, each in several
//! rounds of which the middle one counts. The prediction is made before anything runs, but for the rates of the latency
//! runs, which are the measured ones: it is the latency that is compared there, at one and the same load.
//!
//! The device is asked first what a flush takes it now. That bends no figure: errors are those of the calibration as it
//! stands. What would have been said of the device as it is now is told beside them, and that a calibration is stale.

use crate::exit::{Code, Failed};
use crate::lab::Lab;
use crate::output::counted;
use crate::perf::stop_on_signals;
use ringmill_device::{Method, Point, Probe};
use ringmill_plan::model::{self, Clients};
use ringmill_plan::sizing::Demand;
use ringmill_plan::{Calibration, Load};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What one machine takes part in.
const PARTITIONS_MAX: u32 = 2000;
const PRODUCERS_MAX: u32 = 100;
const READERS_MAX: u32 = 2;
const SECONDS: f64 = 3.0;
/// Flushes that the device is asked for before anything runs, of those that every calibration has.
const PROBES: [Point; 2] = [
    Point { method: Method::LinkedSync, size_bytes: 64 << 10, depth: 1 },
    Point { method: Method::LinkedSync, size_bytes: 1 << 20, depth: 1 },
];
const PROBE_SPAN: Duration = Duration::from_millis(700);
const PROBE_BYTES: u64 = 64 << 20;
/// A device that takes this much longer or shorter than at calibration is another one.
const STALE: f64 = 1.25;

/// What a flush of this size takes the device alone, at calibration and now.
#[derive(Clone, Debug, Serialize)]
pub struct Flush {
    pub size_bytes: u32,
    pub calibrated_mean_us: f64,
    pub mean_us: f64,
    pub calibrated_p99_us: f64,
    pub p99_us: f64,
}

/// Latencies at a part of the saturation.
#[derive(Clone, Debug, Serialize)]
pub struct Level {
    pub part: f64,
    pub records_per_second: f64,
    pub predicted_p50_ms: f64,
    pub measured_p50_ms: f64,
    pub predicted_p99_ms: f64,
    pub measured_p99_ms: f64,
    /// Of every round.
    pub rounds_p99_ms: Vec<f64>,
    pub p99_error_pct: f64,
    /// What the error would be, had a round been predicted to be as the others.
    pub repeat_p99_pct: f64,
    /// What would have been said with the device as it is now.
    pub predicted_p99_ms_now: f64,
}

/// What came of it; errors are absolute values.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    pub verified_load: String,
    pub predicted_saturation: f64,
    pub measured_saturation: f64,
    pub rounds_saturation: Vec<f64>,
    pub throughput_error_pct: f64,
    /// As of the levels.
    pub repeat_saturation_pct: f64,
    pub p99_50_error_pct: f64,
    pub p99_80_error_pct: f64,
    /// The larger of the two.
    pub p99_error_pct: f64,
    pub levels: Vec<Level>,
    pub device: Vec<Flush>,
    /// How many times as long as at calibration the device takes, and whether that makes the calibration worthless.
    pub device_slower: f64,
    pub calibration_stale: bool,
    pub predicted_saturation_now: f64,
    /// CPUs that other processes used meanwhile.
    pub others_cpus: f64,
}

/// The device, before anything runs.
fn device_now(calibration: &Calibration, folder: &Path) -> Result<Vec<Flush>, Failed> {
    let wrong = |error: ringmill_device::ProbeError| Failed::new(Code::Local, error.to_string());
    let mut probe = Probe::open(folder, PROBE_BYTES).map_err(wrong)?;
    let mut all = Vec::new();
    for point in PROBES {
        let Some(then) = calibration.device.iter().find(|at| at.point == point) else { continue };
        let now = probe.measure(point, PROBE_SPAN).map_err(wrong)?;
        all.push(Flush {
            size_bytes: point.size_bytes,
            calibrated_mean_us: then.spread.mean_us,
            mean_us: now.spread.mean_us,
            calibrated_p99_us: then.spread.p99_us,
            p99_us: now.spread.p99_us,
        });
    }
    Ok(all)
}

/// How many times as long flushes take as they did: the geometric mean, since a half and a double are none.
fn slower(device: &[Flush]) -> f64 {
    let logs = device.iter().map(|one| (one.mean_us / one.calibrated_mean_us.max(1e-9)).max(1e-9).ln());
    (logs.sum::<f64>() / device.len().max(1) as f64).exp()
}

fn error_pct(predicted: f64, measured: f64) -> f64 {
    (predicted / measured.max(1e-9) - 1.0).abs() * 100.0
}

fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// How far a round lies from the middle one of all the others: the middle of that, percent. A prediction from a model
/// cannot be expected to be nearer.
fn repeat_pct(rounds: &[f64]) -> f64 {
    let off = |at: usize, round: &f64| {
        let others: Vec<f64> =
            rounds.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, round)| *round).collect();
        (!others.is_empty()).then(|| error_pct(middle(&others), *round))
    };
    middle(&rounds.iter().enumerate().filter_map(|(at, round)| off(at, round)).collect::<Vec<_>>())
}

fn say(what: &str) {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[K{what}");
    }
}

/// The plan's load, as far as one machine can have it, as fast as it goes.
fn load_of(demand: &Demand) -> Load {
    Load {
        linger_us: demand.linger_us,
        batch_bytes: demand.batch_bytes,
        ..Load::new(
            None,
            demand.record_bytes,
            demand.partitions.min(PARTITIONS_MAX),
            demand.producers.min(PRODUCERS_MAX),
        )
    }
}

/// Runs it.
///
/// # Errors
/// A sentence, when no broker comes up here or a run fails.
pub fn verify(
    calibration: &Calibration,
    demand: &Demand,
    folder: PathBuf,
    rounds: usize,
) -> Result<Verified, Failed> {
    let load = load_of(demand);
    let readers = demand.consumers.min(READERS_MAX);
    let predicted = model::saturation(calibration, &load, Clients::Here, readers);
    ringmill_broker::host::raise_limits();
    say("the device as it is now");
    let device = device_now(calibration, &folder)?;
    let times = slower(&device);
    let as_now = calibration.with_slower_device(times);
    let mut lab = Lab::start(Some(folder), 1, stop_on_signals()?)?;
    say("warming the broker up");
    lab.warm(&load)?;
    let mut rates = Vec::new();
    for round in 0..rounds {
        say(&format!("saturation, round {} of {rounds}", round + 1));
        rates.push(lab.run("saturation", &load, SECONDS, readers as usize, false)?.run.rate);
    }
    let measured = middle(&rates);
    let mut levels = Vec::new();
    for part in [0.5, 0.8] {
        let at = Load { rate: Some((measured * part).max(1.0)), ..load.clone() };
        let (predicted_p50_ms, predicted_p99_ms) = model::latency(calibration, &at, Clients::Here, readers);
        let (_, predicted_p99_ms_now) = model::latency(&as_now, &at, Clients::Here, readers);
        let (mut p50, mut p99) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            say(&format!("{:.0} % of it, round {} of {rounds}", part * 100.0, round + 1));
            let run = lab.run("level", &at, SECONDS, readers as usize, false)?.run;
            p50.push(run.p50_ms);
            p99.push(run.p99_ms);
        }
        levels.push(Level {
            part,
            records_per_second: measured * part,
            predicted_p50_ms,
            measured_p50_ms: middle(&p50),
            predicted_p99_ms,
            measured_p99_ms: middle(&p99),
            p99_error_pct: error_pct(predicted_p99_ms, middle(&p99)),
            repeat_p99_pct: repeat_pct(&p99),
            rounds_p99_ms: p99,
            predicted_p99_ms_now,
        });
    }
    say("");
    let error = |at: usize| levels.get(at).map_or(0.0, |level| level.p99_error_pct);
    let (half, high) = (error(0), error(1));
    Ok(Verified {
        verified_load: format!(
            "one core, {}, {} and {} on this machine",
            counted(load.partitions.into(), "partition"),
            counted(load.producers.into(), "producer"),
            counted(readers.into(), "reader")
        ),
        predicted_saturation: predicted,
        measured_saturation: measured,
        repeat_saturation_pct: repeat_pct(&rates),
        rounds_saturation: rates,
        throughput_error_pct: error_pct(predicted, measured),
        p99_50_error_pct: half,
        p99_80_error_pct: high,
        p99_error_pct: half.max(high),
        levels,
        calibration_stale: !(1.0 / STALE..=STALE).contains(&times),
        device_slower: times,
        others_cpus: lab.others_cpus(),
        device,
        predicted_saturation_now: model::saturation(&as_now, &load, Clients::Here, readers),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmill_device::{Effort, matrix};

    #[test]
    fn errors_are_absolute_and_of_what_was_measured() {
        assert!((error_pct(120.0, 100.0) - 20.0).abs() < 1e-9);
        assert!((error_pct(80.0, 100.0) - 20.0).abs() < 1e-9);
        assert_eq!(middle(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(middle(&[]), 0.0);
    }

    #[test]
    fn what_a_machine_cannot_repeat_is_known_from_its_rounds() {
        assert_eq!(repeat_pct(&[]), 0.0);
        assert_eq!(repeat_pct(&[5.0]), 0.0);
        assert_eq!(repeat_pct(&[5.0, 5.0, 5.0]), 0.0);
        // Each against the middle of the other four: 2 for 2, 2 for 2, 2 for 2, 2 for 1, 2 for 8.
        assert!((repeat_pct(&[2.0, 2.0, 2.0, 1.0, 8.0]) - 0.0).abs() < 1e-9);
        // One that is twice as high as the other is off by 50 % or by 100.
        assert!((repeat_pct(&[1.0, 2.0]) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn every_calibration_has_the_points_that_are_asked_again() {
        for effort in [Effort::Quick, Effort::Full] {
            let points = matrix(effort);
            assert!(PROBES.iter().all(|point| points.contains(point)), "{effort:?}");
        }
    }

    #[test]
    fn a_device_is_slower_by_the_mean_of_what_its_flushes_say() {
        let one = |then: f64, now: f64| Flush {
            size_bytes: 4096,
            calibrated_mean_us: then,
            mean_us: now,
            calibrated_p99_us: 1.0,
            p99_us: 1.0,
        };
        assert!((slower(&[one(100.0, 200.0), one(400.0, 3200.0)]) - 4.0).abs() < 1e-9);
        assert!((slower(&[one(100.0, 50.0), one(100.0, 200.0)]) - 1.0).abs() < 1e-9);
        assert!((slower(&[]) - 1.0).abs() < 1e-9);
    }
}
