//! What the device takes for flushes, found by playing.
//!
//! A broker's metrics tell a flush from the seal of its group to when the core came to its completion. The core is in the
//! model already, so a fit of those times would have it twice, and more of it the busier it is. Instead the device's part
//! is searched for with which the model gives the rates and the medians that designed runs had: those that went as fast
//! as possible say what full groups take behind each other, paced ones what single flushes take, and runs over many
//! partitions what the syncs of a checkpoint do to both. Tails have no say: a single stall makes one.

use crate::calibration::{Calibration, Run};
use crate::fit;
use crate::model::{self, Clients, SINGLE};
use crate::sim::{Node, Stalls};

/// Base, each KiB, each segment of a checkpoint: where the search begins and how far it may go, microseconds.
const BEGIN_US: [f64; 3] = [100.0, 0.5, 200.0];
const LEAST_US: [f64; 3] = [1.0, 0.005, 1.0];
const MOST_US: [f64; 3] = [1e5, 1e3, 1e5];
/// What is changed at a time: one of them, or one up and another down, since what one takes less another may take more.
const WAYS: [[i32; 3]; 6] = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, -1, 0], [1, 0, -1], [0, 1, -1]];
/// By which factor, and how often all ways are tried with it.
const STEPS: [f64; 3] = [1.6, 1.25, 1.1];
const PASSES: u32 = 4;
/// What is not better by so much is not better.
const BETTER: f64 = 0.998;
/// A run that is wrong by more than this factor met something else, and does not bend the others.
const WRONG_MAX: f64 = 2.0;

/// Sets the device's part of flushes and the wait of a waking thread; `runs` are designed ones.
pub fn find(calibration: &mut Calibration, runs: &[Run]) {
    let mut at = BEGIN_US;
    let mut error = error_with(calibration, runs, at);
    for step in STEPS {
        for _ in 0..PASSES {
            let before = error;
            for way in WAYS {
                for factor in [step, 1.0 / step] {
                    let next = moved(at, way, factor);
                    let found = error_with(calibration, runs, next);
                    if found < error * BETTER {
                        (at, error) = (next, found);
                        break;
                    }
                }
            }
            if error >= before {
                break;
            }
        }
    }
    calibration.flush.error_pct = error_with(calibration, runs, at).exp_m1() * 100.0;
}

fn moved(from: [f64; 3], way: [i32; 3], factor: f64) -> [f64; 3] {
    let mut to = from;
    for (((us, power), least), most) in to.iter_mut().zip(way).zip(LEAST_US).zip(MOST_US) {
        *us = (*us * factor.powi(power)).clamp(least, most);
    }
    to
}

/// The mean of how far the model is off, as logarithms; the calibration is left with these times.
fn error_with(calibration: &mut Calibration, runs: &[Run], [base_us, kib_us, sync_us]: [f64; 3]) -> f64 {
    let flush = &mut calibration.flush;
    (flush.base_us, flush.kib_us, flush.sync_us) = (base_us, kib_us, sync_us);
    if let Some(single) = runs.iter().find(|run| run.name == SINGLE) {
        let quiet = Stalls::default();
        let node = model::node(calibration, Clients::Here, &single.load(), 0);
        calibration.waits.wake_us =
            fit::wake_us(&Node { stalls: quiet.clone(), holds: quiet, ..node }, single);
    }
    // Each run is played by itself, and this is most of what a search takes.
    let (calibration, threads) = (&*calibration, std::thread::available_parallelism().map_or(1, usize::from));
    let sum: f64 = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|first| {
                let part = runs.iter().skip(first).step_by(threads);
                scope.spawn(move || part.map(|run| off(calibration, run)).collect::<Vec<_>>())
            })
            .collect();
        let parts: Vec<Vec<f64>> =
            parts.into_iter().map(|part| part.join().expect("a play does not panic")).collect();
        parts.into_iter().flatten().sum()
    });
    sum / runs.len().max(1) as f64
}

/// How far the model is off one run.
fn off(calibration: &Calibration, run: &Run) -> f64 {
    let played = model::play(calibration, &run.load(), Clients::Here, run.readers).simulated;
    let ratio = if run.asked == 0.0 { played.rate / run.rate } else { played.ms(0.5) / run.p50_ms };
    if ratio.is_finite() && ratio > 0.0 { ratio.ln().abs().min(WRONG_MAX.ln()) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::tests::example;

    #[test]
    fn times_that_made_runs_say_how_fast_another_one_is() {
        let mut known = example();
        let flush = &mut known.flush;
        (flush.base_us, flush.kib_us, flush.sync_us) = (150.0, 0.8, 300.0);
        known.disk_bytes_per_second = 1e12;
        let run = |asked: f64, record_bytes: u32, partitions: u32, producers: u32| {
            let mut run = Run {
                record_bytes,
                partitions,
                producers,
                linger_us: 5000.0,
                batch_bytes: 16_384,
                asked,
                ..Run::default()
            };
            let played = model::play(&known, &run.load(), Clients::Here, 0).simulated;
            (run.rate, run.p50_ms) = (played.rate, played.ms(0.5));
            run
        };
        let full = run(0.0, 1000, 8, 1);
        let runs = [run(full.rate / 2.0, 1000, 8, 1), run(0.0, 10_000, 16, 3), run(0.0, 1000, 150, 6), full];
        let mut found = example();
        found.disk_bytes_per_second = 1e12;
        find(&mut found, &runs);
        assert!(found.flush.error_pct < 6.0, "{:?}", found.flush);
        for other in [run(0.0, 500, 60, 4), run(0.0, 3000, 3, 2)] {
            let played = model::play(&found, &other.load(), Clients::Here, 0).simulated;
            assert!((played.rate / other.rate - 1.0).abs() < 0.08, "{} for {}", played.rate, other.rate);
        }
    }
}
