//! Measures this machine's own disk for a moment: not how fast it is, but that what comes out is consistent.

use ringmill_device::{Method, Point, Probe, ProbeError};
use std::time::Duration;

const SPAN: Duration = Duration::from_millis(60);

#[test]
fn a_point_is_consistent_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut probe = Probe::open(folder.path(), 8 << 20).expect("a probe");
    for method in [Method::LinkedSync, Method::Dsync, Method::Write, Method::Read] {
        for (size_bytes, depth) in [(4 << 10, 1), (64 << 10, 4)] {
            let point = Point { method, size_bytes, depth };
            let measured = probe.measure(point, SPAN).expect("a measurement");
            let spread = measured.spread;
            assert!(measured.operations > 0, "{point:?}");
            assert_eq!(measured.operations, measured.histogram.len());
            assert!(spread.p50_us > 0.0 && spread.p50_us <= spread.p90_us && spread.p90_us <= spread.p99_us);
            assert!(spread.p99_us <= spread.p999_us && spread.p999_us <= spread.max_us);
            // Little's law: what is outstanding is the rate times the time, and what those took that were under way
            // when counting began: all but the one that began it.
            let outstanding = measured.per_second * spread.mean_us / 1e6;
            let seconds = measured.operations as f64 / measured.per_second;
            let before = f64::from(depth - 1) * spread.max_us / 1e6 / seconds;
            let most = (f64::from(depth) + before) * 1.01;
            assert!(outstanding <= most, "{point:?}: {outstanding} outstanding of {most}");
            let bytes = measured.per_second * f64::from(size_bytes);
            assert!((measured.bytes_per_second / bytes - 1.0).abs() < 1e-9);
        }
    }
    drop(probe);
    let left = std::fs::read_dir(folder.path()).expect("the folder is there").count();
    assert_eq!(left, 0, "files are left behind");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut probe = Probe::open(folder.path(), 8 << 20).expect("a probe");
    for (size_bytes, depth) in [(4097, 1), (0, 1), (8 << 20, 1), (4096, 0), (4096, 65)] {
        let point = Point { method: Method::Dsync, size_bytes, depth };
        assert!(matches!(probe.measure(point, SPAN), Err(ProbeError::Point(_))), "{point:?}");
    }
    let huge = Probe::open(folder.path(), u64::MAX >> 2);
    assert!(matches!(huge.err(), Some(ProbeError::NoRoom { .. })));
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("nowhere");
    let error = Probe::open(&missing, 8 << 20).err().expect("nothing to measure in");
    assert!(matches!(error, ProbeError::NoFolder(_)), "{error}");
    assert!(error.to_string().contains("nowhere: there is no such folder"), "{error}");
    assert!(!missing.exists());
}
