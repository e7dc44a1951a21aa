//! Latencies of records, and how they are told.

use hdrhistogram::Histogram;

/// An hour: nothing is waited for longer.
const HIGHEST_NS: u64 = 3_600_000_000_000;
/// Three digits: an error below 0.1 %.
const DIGITS: u8 = 3;

/// One distribution. Merged over producers, never averaged.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Latency {
        Latency(Histogram::new_with_bounds(1, HIGHEST_NS, DIGITS).expect("constant bounds that are in order"))
    }
}

impl Latency {
    /// One that takes memory only for what it holds.
    pub fn small() -> Latency {
        let mut histogram = Histogram::new(DIGITS).expect("a constant number of digits");
        histogram.auto(true);
        Latency(histogram)
    }

    pub fn record(&mut self, ns: u64) {
        self.record_many(ns, 1);
    }

    pub fn record_many(&mut self, ns: u64, count: u64) {
        // A small one grows; the other holds all of this range.
        self.0.record_n(ns.clamp(1, HIGHEST_NS), count).expect("a value within the bounds");
    }

    pub fn merge(&mut self, other: &Latency) {
        self.0 += &other.0;
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The latency that the part `quantile` (0 to 1) does not exceed, milliseconds; 0 when there is none.
    pub fn ms(&self, quantile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.value_at_quantile(quantile) as f64 / 1e6 }
    }

    pub fn mean_ms(&self) -> f64 {
        self.0.mean() / 1e6
    }

    pub fn max_ms(&self) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.max() as f64 / 1e6 }
    }

    /// How many were longer than this.
    pub fn count_above(&self, ns: u64) -> u64 {
        self.0.len() - self.0.count_between(0, ns)
    }

    /// What came since an earlier state of this one.
    pub fn since(&self, earlier: &Latency) -> Latency {
        let mut recent = self.clone();
        // An earlier state holds nothing that this one does not.
        let _ = recent.0.subtract(&earlier.0);
        recent
    }

    /// Which part lies between these, both included, nanoseconds.
    pub fn part_between(&self, low_ns: u64, high_ns: u64) -> f64 {
        self.0.count_between(low_ns, high_ns) as f64 / self.0.len().max(1) as f64
    }

    /// The histogram itself, nanoseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }
}
