//! Counters and histograms of one core: plain fields, touched by its thread only, copied out when control asks.

use ringmill_wire::ApiKey;

/// Log-scaled histogram of microseconds or bytes: eight buckets per power of two, so a value is known within 12.5 %.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Box<[u64; Histogram::BUCKETS]>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Histogram {
    const BUCKETS: usize = 512;

    pub fn record(&mut self, value: u64) {
        let at = Self::bucket_of(value);
        if let Some(bucket) = self.buckets.get_mut(at) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
        self.max = self.max.max(value);
    }

    fn bucket_of(value: u64) -> usize {
        if value < 8 {
            return value as usize;
        }
        let power = 63 - value.leading_zeros() as usize;
        ((power - 2) << 3) + ((value >> (power - 3)) as usize & 7)
    }

    /// Largest value of the bucket at `at`.
    fn upper(at: usize) -> u64 {
        if at < 8 {
            return at as u64;
        }
        let (power, eighth) = ((at >> 3) + 2, (at & 7) as u64);
        ((8 + eighth + 1) << (power - 3)).saturating_sub(1)
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn sum(&self) -> u64 {
        self.sum
    }

    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value that `q` (0..=1) of the records do not exceed, rounded up to its bucket.
    pub fn quantile(&self, q: f64) -> u64 {
        let want = ((self.count as f64) * q).ceil() as u64;
        let mut seen = 0;
        for (at, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= want && *n > 0 {
                return Self::upper(at).min(self.max);
            }
        }
        self.max
    }

    /// (upper bound, count at or below it) at each power of two, for Prometheus `le` buckets.
    pub fn cumulative(&self) -> Vec<(u64, u64)> {
        let mut out = Vec::new();
        let mut seen = 0;
        for (at, n) in self.buckets.iter().enumerate() {
            seen += n;
            if at & 7 == 7 {
                out.push((Self::upper(at), seen));
            }
        }
        out
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: Box::new([0; Self::BUCKETS]), count: 0, sum: 0, max: 0 }
    }
}

/// What requests are counted and timed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKind {
    Produce,
    Fetch,
    /// ApiVersions, Metadata, and everything that control decides.
    Other,
}

impl ApiKind {
    pub fn of(api: ApiKey) -> ApiKind {
        match api {
            ApiKey::PRODUCE => ApiKind::Produce,
            ApiKey::FETCH => ApiKind::Fetch,
            _ => ApiKind::Other,
        }
    }
}

/// Requests of one kind. Each that was taken has one receive time and one wait, and one send time if it was answered.
#[derive(Clone, Debug, Default)]
pub struct ApiMetrics {
    pub requests: u64,
    pub errors: u64,
    /// First byte to whole frame.
    pub receive_us: Histogram,
    /// Whole frame to answer ready: for Produce the wait for the flush.
    pub wait_us: Histogram,
    /// Answer ready to last byte taken by the kernel.
    pub send_us: Histogram,
}

impl ApiMetrics {
    /// A request is here, as a whole, and its header can be read.
    #[inline]
    pub fn taken(&mut self, receive_us: u64) {
        self.requests += 1;
        self.receive_us.record(receive_us);
    }

    /// Its answer is ready, or it will have none.
    #[inline]
    pub fn answered(&mut self, wait_us: u64, failed: bool) {
        self.wait_us.record(wait_us);
        self.errors += u64::from(failed);
    }
}

/// Connections by what their clients call themselves (KIP-511). Bounded: names come from clients.
#[derive(Clone, Debug, Default)]
pub struct SoftwareCounts {
    rows: Vec<(Software, u64)>,
}

/// What a client calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Software {
    pub name: String,
    pub version: String,
}

impl SoftwareCounts {
    /// Kinds told apart by one core; further ones are counted together as `other`.
    const KINDS_MAX: usize = 32;
    /// A longer name or version counts as `other`.
    const TEXT_BYTES_MAX: usize = 48;

    pub fn note(&mut self, name: &str, version: &str) {
        let known = |rows: &[(Software, u64)], name: &str, version: &str| {
            rows.iter().position(|(s, _)| s.name == name && s.version == version)
        };
        let room = self.rows.len() < Self::KINDS_MAX - 1 && Self::is_shown(name, version);
        let (name, version) = match known(&self.rows, name, version) {
            Some(_) => (name, version),
            None if room => (name, version),
            None => ("other", "other"),
        };
        match known(&self.rows, name, version).and_then(|at| self.rows.get_mut(at)) {
            Some((_, count)) => *count += 1,
            None => self.rows.push((Software { name: name.into(), version: version.into() }, 1)),
        }
    }

    /// Whether a name and version are short enough to be kept.
    pub fn is_shown(name: &str, version: &str) -> bool {
        name.len() <= Self::TEXT_BYTES_MAX && version.len() <= Self::TEXT_BYTES_MAX
    }

    /// Kinds and how often each connected.
    pub fn rows(&self) -> &[(Software, u64)] {
        &self.rows
    }
}

/// Requests over a client quota, and the pauses that followed.
#[derive(Clone, Debug, Default)]
pub struct Throttled {
    pub requests: u64,
    pub pauses_ns: u64,
}

/// Everything a core counts.
#[derive(Clone, Debug, Default)]
pub struct CoreMetrics {
    pub produce: ApiMetrics,
    pub fetch: ApiMetrics,
    /// ApiVersions, Metadata, and everything control answered.
    pub other: ApiMetrics,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Of fetch answers: sent from tail ring or cache where they lay, and copied on the way.
    pub fetch_bytes_in_place: u64,
    pub fetch_bytes_copied: u64,
    pub records_in: u64,
    pub batches_in: u64,
    pub connections: u64,
    pub connections_accepted: u64,
    /// Of them, closed unread because their address connects too often.
    pub connections_refused: u64,
    pub connections_closed_idle: u64,
    pub connections_closed_error: u64,
    pub client_software: SoftwareCounts,
    pub flush_groups: u64,
    pub flush_group_bytes: Histogram,
    pub flush_us: Histogram,
    pub core_log_used_bytes: u64,
    pub core_log_capacity_bytes: u64,
    pub tail_bytes: u64,
    pub tail_limit_bytes: u64,
    pub destage_bytes: u64,
    pub destage_writes: u64,
    pub destage_lag_bytes: u64,
    pub checkpoints: u64,
    pub compactions: u64,
    pub compacted_records: u64,
    pub compacted_bytes: u64,
    /// Largest uncompared share of a compacted partition, in millionths.
    pub compaction_dirty_ppm: u64,
    pub cold_reads: u64,
    pub cold_read_bytes: u64,
    pub cache_hits: u64,
    pub cache_bytes: u64,
    pub produce_waiting: u64,
    pub fetch_waiting: u64,
    pub muted_connections: u64,
    pub throttled_connections: u64,
    pub throttled_produce: Throttled,
    pub throttled_fetch: Throttled,
    pub throttled_time: Throttled,
    pub throttled_mutations: Throttled,
    pub partitions: u64,
    pub partitions_offline: u64,
    pub relaxed_partitions: u64,
    pub turns: u64,
    pub turn_us: Histogram,
    pub thread_cpu_ns: u64,
    pub pool_mapped_bytes: u64,
    pub pool_used_bytes: u64,
    pub storage_full: bool,
}

impl CoreMetrics {
    #[inline]
    pub fn of(&mut self, kind: ApiKind) -> &mut ApiMetrics {
        match kind {
            ApiKind::Produce => &mut self.produce,
            ApiKind::Fetch => &mut self.fetch,
            ApiKind::Other => &mut self.other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_software_are_bounded_however_many_names_come() {
        let mut counts = SoftwareCounts::default();
        for n in 0..1000 {
            counts.note(&format!("client-{n}"), "1");
            counts.note("librdkafka", "2.12.1");
        }
        counts.note(&"x".repeat(1000), "1");
        assert_eq!(counts.rows().len(), SoftwareCounts::KINDS_MAX);
        let of = |name: &str| counts.rows().iter().find(|(s, _)| s.name == name).map_or(0, |(_, n)| *n);
        assert_eq!((of("librdkafka"), of("client-0")), (1000, 1));
        assert_eq!(counts.rows().iter().map(|(_, n)| n).sum::<u64>(), 2001);
        assert!(of("other") > 900);
    }
}
