//! Speeds of the machine that no broker is needed for: memory, checksums, timers, stalls.

use crate::exit::{Code, Failed};
use ringmill_plan::Quantiles;
use ringmill_plan::calibration::Machine;
use ringmill_reactor::Backend;
use ringmill_reactor::ring::{RingBackend, RingFeatures, RingOptions};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Larger than the caches.
const COPY_BYTES: usize = 128 << 20;
const CRC_BYTES: usize = 1 << 20;
const SLEEPS: usize = 400;
const SLEEP_NS: u64 = 200_000;
/// What is shorter is not told from the loop itself.
const STALL_MIN_US: f64 = 100.0;
const RING_BYTES: u64 = 16 << 20;

/// Measures all of it for about three times `span`.
///
/// # Errors
/// When there is no ring.
pub fn measure(span: Duration, cpus: usize) -> Result<(Machine, Option<Quantiles>), Failed> {
    let (stalls_per_second, stalls) = stalls(span, cpus);
    let machine = Machine {
        copy_bytes_per_second: copying(span),
        crc_bytes_per_second: checksums(span),
        timer_us: timer()?,
        stalls_per_second,
        others_cpus: 0.0,
    };
    Ok((machine, stalls))
}

fn per_second(span: Duration, bytes: usize, mut work: impl FnMut()) -> f64 {
    work();
    let (began, mut rounds) = (Instant::now(), 0u32);
    while began.elapsed() < span {
        work();
        rounds += 1;
    }
    f64::from(rounds) * bytes as f64 / began.elapsed().as_secs_f64()
}

/// Read and written bytes, both counted.
fn copying(span: Duration) -> f64 {
    let source = vec![1u8; COPY_BYTES];
    let mut target = vec![0u8; COPY_BYTES];
    per_second(span / 2, 2 * COPY_BYTES, || target.copy_from_slice(black_box(&source)))
}

fn checksums(span: Duration) -> f64 {
    let block: Vec<u8> = (0..CRC_BYTES).map(|at| (at % 251) as u8).collect();
    per_second(span / 2, CRC_BYTES, || {
        black_box(crc32c::crc32c(black_box(&block)));
    })
}

/// How late a ring's thread runs after the time it slept for: the middle one of many.
fn timer() -> Result<f64, Failed> {
    let options = RingOptions { pool_limit_bytes: RING_BYTES, features: RingFeatures::ALL };
    let mut ring = RingBackend::new(options).map_err(|e| Failed::new(Code::Local, e.to_string()))?;
    let mut late: Vec<u64> = (0..SLEEPS)
        .map(|_| {
            let until = ring.now_ns() + SLEEP_NS;
            ring.enter(Some(until));
            while ring.pop().is_some() {}
            ring.now_ns().saturating_sub(until)
        })
        .collect();
    late.sort_unstable();
    Ok(late.get(SLEEPS / 2).copied().unwrap_or(0) as f64 / 1e3)
}

/// Gaps in which a thread that never waits did not run: how many a second on each CPU, and how long they were.
fn stalls(span: Duration, cpus: usize) -> (f64, Option<Quantiles>) {
    let found: Vec<(f64, Vec<f64>)> = std::thread::scope(|scope| {
        let watchers: Vec<_> = (0..cpus.max(1)).map(|_| scope.spawn(|| watch(span))).collect();
        watchers.into_iter().filter_map(|watcher| watcher.join().ok()).collect()
    });
    let seconds: f64 = found.iter().map(|(seconds, _)| seconds).sum();
    let mut gaps: Vec<f64> = found.into_iter().flat_map(|(_, gaps)| gaps).collect();
    if gaps.is_empty() || seconds <= 0.0 {
        return (0.0, None);
    }
    gaps.sort_by(f64::total_cmp);
    let rate = gaps.len() as f64 / seconds;
    const PARTS: [f64; 9] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 1.0];
    let values = PARTS.iter().filter_map(|part| gaps.get(((gaps.len() - 1) as f64 * part) as usize).copied());
    (rate, Some(Quantiles { parts: PARTS.to_vec(), values: values.collect() }))
}

fn watch(span: Duration) -> (f64, Vec<f64>) {
    let began = Instant::now();
    let (mut last, mut gaps) = (began, Vec::new());
    loop {
        let now = Instant::now();
        let gap_us = (now - last).as_secs_f64() * 1e6;
        if gap_us >= STALL_MIN_US {
            gaps.push(gap_us);
        }
        last = now;
        if now - began >= span {
            return ((now - began).as_secs_f64(), gaps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_above_nothing_and_stalls_are_a_distribution() {
        let (machine, stalls) = measure(Duration::from_millis(30), 1).expect("a ring");
        assert!(machine.copy_bytes_per_second > 1e7 && machine.crc_bytes_per_second > 1e6, "{machine:?}");
        assert!(machine.timer_us >= 0.0 && machine.timer_us < 1e6);
        assert!(stalls.is_none_or(|stalls| stalls.is_sound()));
    }
}
