//! Alone in its process: what is switched off is off for all of it.

#![allow(clippy::unwrap_used)]

use ringmill_reactor::ring::HostFeature;
use ringmill_reactor::stdfs::StdFs;
use ringmill_reactor::{Fs, OpenMode};

#[test]
fn what_is_switched_off_is_not_tried() {
    let dir = tempfile::tempdir().unwrap();
    let is_direct =
        |name: &str| StdFs.open(&dir.path().join(name), OpenMode::CreateDirect).unwrap().is_direct();
    let by_itself = is_direct("a");
    HostFeature::set_off(&[HostFeature::DirectIo, HostFeature::Nocow, HostFeature::Fallocate]);
    assert!(!is_direct("b"));
    let on = HostFeature::ALL.map(|feature| (feature.name(), feature.is_on()));
    assert_eq!(on, [("direct_io", false), ("huge_pages", true), ("nocow", false), ("fallocate", false)]);
    let file = StdFs.open(&dir.path().join("b"), OpenMode::Write).unwrap();
    StdFs.write_at(&file, &[7; 5000], 4096).unwrap();
    let mut back = [0; 5000];
    assert_eq!(StdFs.read_at(&file, &mut back, 4096).unwrap(), 5000);
    assert_eq!(back, [7; 5000]);
    // Zeros from the next whole page on, and what is there stays.
    StdFs.allocate(&file, 8192, 100_000).unwrap();
    assert!(StdFs.len(&file).unwrap() >= 108_192);
    assert_eq!(StdFs.read_at(&file, &mut back, 4096).unwrap(), 5000);
    assert_eq!(back, [7; 5000]);
    HostFeature::set_off(&[]);
    assert_eq!(is_direct("c"), by_itself);
}
