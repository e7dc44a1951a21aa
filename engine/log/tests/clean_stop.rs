//! What a log leaves behind after an orderly stop is sound by every check there is, and comes back whole.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Core, PARTITIONS, batch};
use ringmill_log::inspect::{self, Row, Severity};
use ringmill_reactor::Backend;
use ringmill_reactor::stdfs::StdFs;
use ringmill_record::HEADER_BYTES;
use ringmill_types::Offset;

#[test]
fn files_after_an_orderly_stop_are_sound_and_come_back() {
    let home = tempfile::tempdir().unwrap();
    let (mut core, report) = Core::open(home.path(), 1);
    assert_eq!(report.groups, 0);
    let mut ends = [0i64; PARTITIONS as usize];
    for turn in 0..300i64 {
        let index = (turn % 3) as i32;
        let records = 1 + (turn % 7) as i32;
        let now_ms = core.io.wall_ms();
        core.append(index, &batch(records, 200 + (turn as usize * 37) % 2000, now_ms - (turn * 7919) % 1000));
        ends[index as usize] += i64::from(records);
        if turn % 10 == 0 {
            core.turn();
        }
    }
    core.stop();

    let mut next = [0i64; PARTITIONS as usize];
    let mut indexes = 0;
    for index in 0..PARTITIONS {
        let dir = home.path().join(format!("topics/orders-{index}"));
        let reports = inspect::dump(&StdFs, &dir, &mut |row| match row {
            Row::Batch(batch) => {
                assert_eq!(batch.base_offset, next[index as usize], "offsets are dense");
                assert_eq!(batch.leader_epoch, 2);
                next[index as usize] = batch.last_offset + 1;
            }
            Row::Offset(_) | Row::Time(_) => indexes += 1,
            _ => {}
        });
        for report in reports.unwrap() {
            assert!(report.findings.is_empty(), "{report}");
        }
    }
    assert_eq!(next, ends);
    assert!(indexes > 50, "several segments with indexes: {indexes}");
    for report in inspect::verify(&StdFs, home.path()).unwrap() {
        assert!(report.findings.iter().all(|f| f.severity == Severity::Note), "{report}");
    }

    let (core, report) = Core::open(home.path(), 2);
    assert!(report.clean);
    for index in 0..PARTITIONS {
        let view = core.log.view(core.slot(index)).unwrap();
        assert_eq!(view.log_end.0, ends[index as usize]);
    }
    if let Some(keep) = std::env::var_os("RINGMILL_KEEP") {
        drop(core);
        std::fs::rename(home.path(), keep).unwrap();
    }
}

/// The first read or write of an active segment after an orderly stop takes the index that the stop left: what is in front of
/// it is not read again, however much it is. After a crash it is.
#[test]
fn the_index_that_an_orderly_stop_left_is_used() {
    let home = tempfile::tempdir().unwrap();
    let (mut core, _) = Core::open(home.path(), 1);
    for _ in 0..30 {
        let now_ms = core.io.wall_ms();
        core.append(0, &batch(1, 900, now_ms));
        core.settle();
    }
    core.stop();
    // A life that does not touch it.
    Core::open(home.path(), 2).0.stop();
    // Were all of it read, this would be met.
    let log = home.path().join("topics/orders-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[3 * (900 + HEADER_BYTES) + 16] = 0;
    std::fs::write(&log, bytes).unwrap();

    let (mut core, report) = Core::open(home.path(), 3);
    assert!(report.clean);
    assert_eq!(core.read_from(0, Offset(25)).unwrap().len(), 5);
    let now_ms = core.io.wall_ms();
    core.append(0, &batch(1, 900, now_ms));
    core.stop();
    let (mut core, _) = Core::open(home.path(), 4);
    assert_eq!(core.read_from(0, Offset(25)).unwrap().len(), 6, "and it went on from there");
    drop(core);
    let (mut core, report) = Core::open(home.path(), 5);
    assert!(!report.clean);
    assert!(core.read_from(0, Offset(25)).is_err(), "it may have grown since");
}
