//! Points that no other beats in throughput and latency at once.

/// One policy at one load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub bytes_per_second: f64,
    pub tail_ms: f64,
}

/// Positions of the points on the frontier, from the least throughput to the most. Throughputs within 1 % are the same
/// load, of which the lowest latency counts.
pub fn frontier(points: &[Point]) -> Vec<usize> {
    const SAME: f64 = 0.01;
    let mut by_throughput: Vec<usize> = (0..points.len()).collect();
    let at = |index: &usize| {
        points.get(*index).copied().unwrap_or(Point { bytes_per_second: 0.0, tail_ms: f64::MAX })
    };
    by_throughput.sort_by(|a, b| {
        let (a, b) = (at(a), at(b));
        b.bytes_per_second.total_cmp(&a.bytes_per_second).then(a.tail_ms.total_cmp(&b.tail_ms))
    });
    let mut kept: Vec<usize> = Vec::new();
    // Where the load that the last one stands for begins: measured from there, so that small steps do not add up.
    let mut load = f64::MAX;
    for index in by_throughput {
        let point = at(&index);
        if kept.last().is_some_and(|last| point.tail_ms >= at(last).tail_ms) {
            continue;
        }
        if point.bytes_per_second >= load * (1.0 - SAME) {
            kept.pop();
        } else {
            load = point.bytes_per_second;
        }
        kept.push(index);
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point(bytes_per_second: f64, tail_ms: f64) -> Point {
        Point { bytes_per_second, tail_ms }
    }

    #[test]
    fn dominated_points_are_not_on_it() {
        let points =
            [point(10.0, 1.0), point(20.0, 2.0), point(15.0, 3.0), point(20.1, 1.9), point(5.0, 1.0)];
        assert_eq!(frontier(&points), [0, 3]);
        assert_eq!(frontier(&[]), [0usize; 0]);
    }

    proptest! {
        #[test]
        fn latency_rises_along_it_and_nothing_beats_it(
            raw in prop::collection::vec((1.0f64..1e3, 0.01f64..1e3), 1..40)
        ) {
            let points: Vec<Point> = raw.iter().map(|(x, y)| point(*x, *y)).collect();
            let on: Vec<Point> = frontier(&points).into_iter().map(|at| points[at]).collect();
            prop_assert!(!on.is_empty());
            let rises = on.windows(2).all(|pair| {
                pair[0].bytes_per_second < pair[1].bytes_per_second && pair[0].tail_ms < pair[1].tail_ms
            });
            prop_assert!(rises);
            for point in &points {
                // Up to what counts as the same load.
                let least = point.bytes_per_second * 0.985;
                let reached = on.iter().any(|best| best.bytes_per_second >= least && best.tail_ms <= point.tail_ms);
                prop_assert!(reached, "nothing reaches {:?}", point);
            }
        }
    }
}
