//! Which points make the curves of a device.

use crate::probe::{Method, Point, SIZE_BYTES_MAX};
use std::time::Duration;

/// How much time the curves may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// About ten seconds.
    Quick,
    /// About a minute and a half: every point, and tails worth the name.
    Full,
}

/// Bytes of a page: the least a core log writes.
const PAGE: u32 = 4 << 10;
const MEBIBYTE: u32 = 1 << 20;

impl Effort {
    /// How long one point is measured.
    pub fn span(self) -> Duration {
        match self {
            Effort::Quick => Duration::from_millis(400),
            Effort::Full => Duration::from_millis(1500),
        }
    }

    fn sizes(self) -> &'static [u32] {
        match self {
            Effort::Quick => &[PAGE, 64 << 10, MEBIBYTE, SIZE_BYTES_MAX],
            Effort::Full => &[PAGE, 16 << 10, 64 << 10, 256 << 10, MEBIBYTE, SIZE_BYTES_MAX],
        }
    }

    fn depths(self) -> &'static [u32] {
        match self {
            Effort::Quick => &[1, 4],
            Effort::Full => &[1, 2, 4, 8],
        }
    }
}

/// Every point worth a measurement: both ways to flush over size and depth, large writes without one (what destaging
/// does), and large reads (what a cold consumer does).
pub fn matrix(effort: Effort) -> Vec<Point> {
    let mut points = Vec::new();
    for method in [Method::LinkedSync, Method::Dsync] {
        for size_bytes in effort.sizes() {
            for depth in effort.depths() {
                points.push(Point { method, size_bytes: *size_bytes, depth: *depth });
            }
        }
    }
    for (method, size_bytes) in
        [(Method::Write, MEBIBYTE), (Method::Write, SIZE_BYTES_MAX), (Method::Read, 256 << 10)]
    {
        for depth in effort.depths() {
            points.push(Point { method, size_bytes, depth: *depth });
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_there_once_and_the_time_is_as_promised() {
        for (effort, seconds_max) in [(Effort::Quick, 12.0), (Effort::Full, 90.0)] {
            let points = matrix(effort);
            for (at, point) in points.iter().enumerate() {
                assert!(!points[..at].contains(point), "{point:?} twice");
            }
            let seconds = effort.span().as_secs_f64() * points.len() as f64;
            assert!(seconds <= seconds_max, "{effort:?} takes {seconds} s");
        }
    }
}
