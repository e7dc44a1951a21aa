//! Which policies to try first, from what the device alone can do.
//!
//! Only an order: the device without a broker says much about methods and depths and little about the rest, so that
//! every combination of ack, method and depth has its best guess among the first.

use crate::policy::{Method, Policy};
use std::collections::BTreeSet;

/// Durable writes of one size, so many under way at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceRow {
    pub method: Method,
    pub depth: u32,
    pub size_bytes: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub per_second: f64,
}

/// Positions of `policies`, the most promising first. `core_bytes_per_second`: what one core has to take.
pub fn order(policies: &[Policy], rows: &[DeviceRow], core_bytes_per_second: f64) -> Vec<usize> {
    let mut scored: Vec<(f64, usize)> = policies
        .iter()
        .enumerate()
        .map(|(at, policy)| (guess_ms(policy, rows, core_bytes_per_second).unwrap_or(f64::MAX), at))
        .collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut seen = BTreeSet::new();
    let is_first = |at: usize, seen: &mut BTreeSet<_>| {
        policies.get(at).is_some_and(|p| seen.insert((p.ack, p.method, p.depth)))
    };
    let (first, rest): (Vec<_>, Vec<_>) = scored.into_iter().partition(|(_, at)| is_first(*at, &mut seen));
    first.into_iter().chain(rest).map(|(_, at)| at).collect()
}

/// A guess at the latency of a record: it waits for the flush under way, for its group's linger and its own flush.
fn guess_ms(policy: &Policy, rows: &[DeviceRow], core_bytes_per_second: f64) -> Option<f64> {
    let linger_ms = policy.linger_us as f64 / 1e3;
    let mut bytes = 4096.0;
    let mut flush = at(policy, rows, bytes)?;
    // What comes in during a flush is the next group, which makes the next flush longer: a few rounds find where it ends.
    for _ in 0..4 {
        let period_ms = (1e3 / flush.per_second.max(1e-3)).max(linger_ms);
        bytes = (core_bytes_per_second * period_ms / 1e3).clamp(4096.0, policy.group_bytes as f64);
        flush = at(policy, rows, bytes)?;
    }
    let carried = flush.per_second * policy.group_bytes.min(flush.size_bytes) as f64;
    // More than it carries is a queue that grows.
    let overload = (core_bytes_per_second / carried.max(1.0)).max(1.0);
    Some((linger_ms + 2.0 * flush.p99_ms) * overload * overload)
}

/// The row of the policy's method whose depth and then size are nearest.
fn at(policy: &Policy, rows: &[DeviceRow], bytes: f64) -> Option<DeviceRow> {
    let far = |row: &&DeviceRow| {
        let depth = (f64::from(row.depth) / f64::from(policy.depth)).ln().abs();
        let size = (row.size_bytes as f64 / bytes).ln().abs();
        100.0 * depth + size
    };
    let of_method = rows.iter().filter(|row| row.method == policy.method);
    of_method.min_by(|a, b| far(a).total_cmp(&far(b))).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Ack, Space};

    fn row(method: Method, depth: u32, size_bytes: u64, p99_ms: f64, per_second: f64) -> DeviceRow {
        DeviceRow { method, depth, size_bytes, p50_ms: p99_ms / 3.0, p99_ms, per_second }
    }

    #[test]
    fn what_the_device_does_best_comes_first_and_nothing_is_left_out() {
        let policies = Space::usual(&[Ack::Durable]).policies();
        let rows = [
            row(Method::Fdatasync, 1, 4096, 0.15, 18_000.0),
            row(Method::Fdatasync, 1, 1 << 20, 0.5, 3600.0),
            row(Method::Dsync, 1, 4096, 4.0, 940.0),
            row(Method::Dsync, 4, 4096, 0.3, 44_000.0),
        ];
        let order = order(&policies, &rows, 4e7);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..policies.len()).collect::<Vec<_>>());
        let first = policies[order[0]];
        assert_eq!((first.method, first.linger_us), (Method::Fdatasync, 0));
        let six: BTreeSet<_> =
            order[..6].iter().map(|at| (policies[*at].method, policies[*at].depth)).collect();
        assert_eq!(six.len(), 6, "each method and depth once among the first");
    }

    #[test]
    fn without_a_probe_every_policy_is_still_there() {
        let policies = Space::usual(&[Ack::Durable]).policies();
        assert_eq!(order(&policies, &[], 1e6).len(), policies.len());
    }
}
