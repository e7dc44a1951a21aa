//! Predicted against measured: the load's shape on a broker of our own on this machine.
//!
//! One node with one core, all clients beside it; producers and partitions are the plan's, as far as one machine can have
//! them. First the rate at saturation, then p50 and p99 at half and at 80 % of what was measured there, each in several
//! rounds of which the middle one counts. The prediction is made before anything runs, but for the rates of the latency
//! runs, which are the measured ones: it is the latency that is compared there, at one and the same load.

use crate::exit::Failed;
use crate::lab::Lab;
use crate::perf::stop_on_signals;
use ringmill_plan::model::{self, Clients};
use ringmill_plan::sizing::Demand;
use ringmill_plan::{Calibration, Load};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

/// What one machine takes part in.
const PARTITIONS_MAX: u32 = 2000;
const PRODUCERS_MAX: u32 = 100;
const READERS_MAX: u32 = 2;
const WARM_SECONDS: f64 = 1.5;
const SECONDS: f64 = 2.5;

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
}

/// What came of it; errors are absolute values.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    pub verified_load: String,
    pub predicted_saturation: f64,
    pub measured_saturation: f64,
    pub rounds_saturation: Vec<f64>,
    pub throughput_error_pct: f64,
    pub p99_50_error_pct: f64,
    pub p99_80_error_pct: f64,
    /// The larger of the two.
    pub p99_error_pct: f64,
    pub levels: Vec<Level>,
}

fn error_pct(predicted: f64, measured: f64) -> f64 {
    (predicted / measured.max(1e-9) - 1.0).abs() * 100.0
}

fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn say(what: &str) {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[K{what}");
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
    let load = Load {
        linger_us: demand.linger_us,
        batch_bytes: demand.batch_bytes,
        ..Load::new(
            None,
            demand.record_bytes,
            demand.partitions.min(PARTITIONS_MAX),
            demand.producers.min(PRODUCERS_MAX),
        )
    };
    let readers = demand.consumers.min(READERS_MAX);
    let predicted = model::saturation(calibration, &load, Clients::Here, readers);
    ringmill_broker::host::raise_limits();
    let mut lab = Lab::start(Some(folder), 1, stop_on_signals()?)?;
    say("warming the broker up");
    lab.run("warm", &load, WARM_SECONDS, readers as usize, false)?;
    let mut rates = Vec::new();
    for round in 0..rounds {
        say(&format!("saturation, round {} of {rounds}", round + 1));
        rates.push(lab.run("saturation", &load, SECONDS, readers as usize, false)?.run.rate);
    }
    let measured = middle(&rates);
    let mut levels = Vec::new();
    for part in [0.5, 0.8] {
        let at = Load { rate: Some((measured * part).max(1.0)), ..load.clone() };
        let (predicted_p50_ms, predicted_p99_ms) =
            model::latency(calibration, &at, Clients::Here, readers, part);
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
            rounds_p99_ms: p99,
        });
    }
    say("");
    let error = |at: usize| levels.get(at).map_or(0.0, |level| level.p99_error_pct);
    let (half, high) = (error(0), error(1));
    Ok(Verified {
        verified_load: format!(
            "one core, {} partitions, {} producers and {readers} readers on this machine",
            load.partitions, load.producers
        ),
        predicted_saturation: predicted,
        measured_saturation: measured,
        rounds_saturation: rates,
        throughput_error_pct: error_pct(predicted, measured),
        p99_50_error_pct: half,
        p99_80_error_pct: high,
        p99_error_pct: half.max(high),
        levels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_absolute_and_of_what_was_measured() {
        assert!((error_pct(120.0, 100.0) - 20.0).abs() < 1e-9);
        assert!((error_pct(80.0, 100.0) - 20.0).abs() < 1e-9);
        assert_eq!(middle(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(middle(&[]), 0.0);
    }
}
