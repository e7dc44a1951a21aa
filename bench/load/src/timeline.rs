//! What happened when: throughput and latencies of each stretch of a run.
//!
//! Memory is bounded: when there are too many stretches, each two become one of twice the length.

use crate::latency::Latency;
use std::time::Duration;

const STRETCHES_MAX: usize = 256;
const FIRST_NS: u64 = 250_000_000;

/// One stretch. Latencies are under the time at which records were meant to be sent, counts under that at which they
/// were done.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    pub records: u64,
    pub bytes: u64,
    pub latency: Option<Latency>,
}

impl Stretch {
    fn merge(&mut self, other: Stretch) {
        self.records += other.records;
        self.bytes += other.bytes;
        match (&mut self.latency, other.latency) {
            (Some(own), Some(other)) => own.merge(&other),
            (own @ None, other) => *own = other,
            (Some(_), None) => {}
        }
    }
}

/// A run, stretch by stretch.
#[derive(Clone, Debug)]
pub struct Timeline {
    stretch_ns: u64,
    stretches: Vec<Stretch>,
    /// When the last records were done.
    end_ns: u64,
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline { stretch_ns: FIRST_NS, stretches: Vec::new(), end_ns: 0 }
    }
}

impl Timeline {
    pub fn stretch(&self) -> Duration {
        Duration::from_nanos(self.stretch_ns)
    }

    pub fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// Records a second of each stretch. The last is as long as the run was in it, and left out if that is less than half
    /// of it: so few records say nothing of a rate.
    pub fn rates(&self) -> Vec<f64> {
        let mut rates = Vec::with_capacity(self.stretches.len());
        for (at, stretch) in self.stretches.iter().enumerate() {
            let left_ns = self.end_ns.saturating_sub(at as u64 * self.stretch_ns);
            let is_last = at + 1 == self.stretches.len();
            if is_last && at > 0 && left_ns < self.stretch_ns / 2 {
                break;
            }
            let lasted_ns = if is_last { left_ns.clamp(1, self.stretch_ns) } else { self.stretch_ns };
            rates.push(stretch.records as f64 * 1e9 / lasted_ns as f64);
        }
        rates
    }

    /// Records that were done `at_ns` after the start.
    pub fn count(&mut self, at_ns: u64, records: u64, bytes: u64) {
        self.end_ns = self.end_ns.max(at_ns);
        if let Some(stretch) = self.at(at_ns) {
            stretch.records += records;
            stretch.bytes += bytes;
        }
    }

    /// The latency of `records` that were meant for `at_ns` after the start.
    pub fn latency(&mut self, at_ns: u64, ns: u64, records: u64) {
        if let Some(stretch) = self.at(at_ns) {
            stretch.latency.get_or_insert_with(Latency::small).record_many(ns, records);
        }
    }

    fn at(&mut self, at_ns: u64) -> Option<&mut Stretch> {
        while at_ns / self.stretch_ns >= STRETCHES_MAX as u64 {
            self.halve();
        }
        let index = (at_ns / self.stretch_ns) as usize;
        if index >= self.stretches.len() {
            self.stretches.resize_with(index + 1, Stretch::default);
        }
        self.stretches.get_mut(index)
    }

    fn halve(&mut self) {
        let mut old = std::mem::take(&mut self.stretches).into_iter();
        while let Some(mut first) = old.next() {
            if let Some(second) = old.next() {
                first.merge(second);
            }
            self.stretches.push(first);
        }
        self.stretch_ns *= 2;
    }

    /// Adds another run with the same start.
    pub fn merge(&mut self, mut other: Timeline) {
        while self.stretch_ns < other.stretch_ns {
            self.halve();
        }
        while other.stretch_ns < self.stretch_ns {
            other.halve();
        }
        self.end_ns = self.end_ns.max(other.end_ns);
        for (index, stretch) in other.stretches.into_iter().enumerate() {
            if let Some(own) = self.at(index as u64 * self.stretch_ns) {
                own.merge(stretch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_ends_early_in_a_stretch_does_not_end_in_a_fall() {
        // A record a millisecond for ten seconds, and some milliseconds more.
        for (end_ms, stretches) in [(10_004, 40), (10_200, 41)] {
            let mut line = Timeline::default();
            (1..=end_ms).for_each(|ms| line.count(ms * 1_000_000, 1, 10));
            let rates = line.rates();
            assert_eq!(rates.len(), stretches);
            assert!(rates.iter().all(|rate| (990.0..=1010.0).contains(rate)), "{rates:?}");
        }
        let mut short = Timeline::default();
        (1..=20).for_each(|ms| short.count(ms * 1_000_000, 1, 10));
        assert_eq!(short.rates(), [1000.0], "all there is");
    }

    #[test]
    fn a_long_run_keeps_every_record_in_bounded_memory() {
        let mut line = Timeline::default();
        let mut other = Timeline::default();
        for second in 0..1000u64 {
            line.count(second * 1_000_000_000, 2, 20);
            line.latency(second * 1_000_000_000, 5_000, 2);
            other.count(second * 1_000_000, 1, 1);
        }
        line.merge(other);
        assert!(line.stretches().len() <= STRETCHES_MAX);
        assert_eq!(line.stretch(), Duration::from_secs(4));
        assert_eq!(line.stretches().iter().map(|s| s.records).sum::<u64>(), 3000);
        let latencies = line.stretches().iter().filter_map(|s| s.latency.as_ref());
        assert_eq!(latencies.map(Latency::count).sum::<u64>(), 2000);
        assert_eq!(line.stretches()[0].records, 8 + 1000);
    }
}
