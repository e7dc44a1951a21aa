//! The newest checkpoint may name a segment as active that was sealed and retired after it. A start has nothing to write
//! to then, and must not take the partition offline for that.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Core, batch, batch_of};
use ringmill_log::LogOptions;
use ringmill_reactor::Backend;
use ringmill_types::{CoreId, Offset};
use std::path::{Path, PathBuf};
use std::process::Command;

fn options(data: &Path, tail_bytes: u64) -> LogOptions {
    LogOptions {
        first_file_bytes: 2 << 20,
        file_bytes: 2 << 20,
        tail_bytes,
        group_bytes: 16 << 10,
        ..LogOptions::new(CoreId(0), data.to_path_buf())
    }
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(data.join("topics/orders-0")).unwrap();
    let mut found: Vec<PathBuf> = folder.map(|e| e.unwrap().path()).collect();
    found.retain(|p| p.extension().is_some_and(|e| e == "log"));
    found.sort();
    found
}

fn append(core: &mut Core, batches: u8) {
    for number in 0..batches {
        let bytes = batch_of(1, &[number], 4000, core.io.wall_ms());
        core.append(0, &bytes);
    }
    core.settle();
}

/// Lives until the checkpoint names the first segment as active; then that is filled, sealed and retired, and the
/// process killed. Returns the log start.
fn live(data: &Path) -> Offset {
    let (mut core, _) = Core::open_with(64 << 20, options(data, 64 << 10), 1);
    append(&mut core, 7);
    core.stop();
    let (mut core, _) = Core::open_with(64 << 20, options(data, 64 << 10), 2);
    let first = segments(data).remove(0);
    append(&mut core, 60);
    while segments(data).len() < 3 {
        core.turn();
    }
    let checkpoints = core.log.metrics().checkpoints;
    let slot = core.slot(0);
    let start = Offset(50);
    core.log.delete_records(&mut core.io, slot, start).unwrap();
    while first.exists() {
        core.turn();
    }
    // Written after the kill of the first checkpoint of this life at the latest, which this test is not about.
    assert_eq!(core.log.metrics().checkpoints, checkpoints, "no checkpoint between retiring and the kill");
    start
}

/// Goes on after the kill, writes to the partition, and reads all of it, in this life and in the next.
fn goes_on(data: &Path, tail_bytes: u64, start: Offset) {
    for life in 3..5 {
        let (mut core, _) = Core::open_with(64 << 20, options(data, tail_bytes), life);
        let slot = core.slot(0);
        let before = core.log.view(slot).unwrap();
        assert_eq!((before.offline, before.log_start), (None, start));
        append(&mut core, 60);
        let read = core.read_from(0, start).unwrap();
        let view = core.log.view(slot).unwrap();
        assert_eq!(view.offline, None);
        assert_eq!(view.log_end, before.log_end.plus(60));
        assert_eq!(read.len() as i64, view.log_end.0 - start.0);
        let last: Vec<u8> = read.iter().rev().take(60).rev().map(|b| b[0]).collect();
        assert_eq!(last, (0..60).collect::<Vec<u8>>());
        core.stop();
    }
}

#[test]
fn an_active_segment_of_the_checkpoint_that_was_retired_is_not_missed() {
    for tail_bytes in [16 << 20, 64 << 10] {
        let home = tempfile::tempdir().unwrap();
        let start = live(home.path());
        goes_on(home.path(), tail_bytes, start);
    }
}

/// Nobody retired it: what is gone is gone, and said.
#[test]
fn an_active_segment_that_somebody_removed_takes_the_partition_offline() {
    for tail_bytes in [16 << 20, 64 << 10] {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        let (mut core, _) = Core::open_with(64 << 20, options(&data, 64 << 10), 1);
        append(&mut core, 7);
        core.stop();
        let (mut core, _) = Core::open_with(64 << 20, options(&data, 16 << 20), 2);
        append(&mut core, 40);
        let killed = home.path().join("killed");
        assert!(Command::new("cp").arg("-a").arg(&data).arg(&killed).status().unwrap().success());
        std::fs::remove_file(segments(&killed).remove(0)).unwrap();
        let (mut core, _) = Core::open_with(64 << 20, options(&killed, tail_bytes), 3);
        let slot = core.slot(0);
        for _ in 0..2_000 {
            if core.log.view(slot).unwrap().offline.is_some() {
                break;
            }
            let bytes = batch(1, 4000, core.io.wall_ms());
            let (header, wall_ms) = (ringmill_record::BatchHeader::parse(&bytes).unwrap(), core.io.wall_ms());
            let _ = core.log.append(&mut core.io, slot, &header, &bytes, wall_ms);
            core.turn();
        }
        assert!(core.log.view(slot).unwrap().offline.is_some(), "{tail_bytes} bytes of memory");
    }
}
