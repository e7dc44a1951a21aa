//! The simulator finds faults that are planted in the broker, and nothing where none is planted.
#![allow(clippy::unwrap_used)]

use ringmill_log::Faults;
use ringmill_sim::{Settings, run};
use ringmill_types::limits::DESTAGE_BYTES;

/// They take longer each than others do.
const LARGE_SEEDS: u64 = 3;

/// Within so many a stale group is read.
const STALE_SEEDS: u64 = 40;

fn settings(planted: Faults) -> Settings {
    Settings { ops: 120, planted, disk_errors: false, ..Settings::default() }
}

/// The first of these seeds that breaks a promise, by the model or by an assertion of the broker or the simulator.
fn found_with(settings: Settings, seeds: u64) -> Option<String> {
    let broken = |seed| match std::panic::catch_unwind(|| run(seed, settings)) {
        Ok(outcome) => outcome.err().map(|v| v.to_string()),
        Err(panic) => Some(panic.downcast_ref::<String>().cloned().unwrap_or_default()),
    };
    (0..seeds).find_map(|seed| broken(seed).map(|why| format!("seed {seed}: {why}")))
}

fn found(planted: Faults, seeds: u64) -> Option<String> {
    found_with(settings(planted), seeds)
}

#[test]
fn an_honest_broker_keeps_its_promises() {
    for seed in 0..40 {
        let outcome = run(seed, settings(Faults::default()));
        assert!(outcome.is_ok(), "seed {seed}, 120 operations, sound disks: {}", outcome.unwrap_err());
    }
}

/// Batches of hundreds of kilobytes: groups and destage writes grow with what waits.
#[test]
fn an_honest_broker_keeps_its_promises_with_large_writes() {
    let mut largest = 0;
    for seed in 0..LARGE_SEEDS {
        let report = run(seed, Settings { ops: 150, large: true, ..Settings::default() });
        let report =
            report.unwrap_or_else(|why| panic!("ringmill-sim --large --seeds {seed} --ops 150: {why}"));
        largest = largest.max(report.destage_write_bytes_max);
    }
    // With the page before its bytes and the rest of its last one.
    assert!(largest > 3 * DESTAGE_BYTES as u64, "no destage write grew: {largest} bytes at most");
}

#[test]
fn an_honest_broker_keeps_its_promises_on_failing_disks() {
    for seed in 0..40 {
        let outcome = run(seed, Settings { ops: 120, ..Settings::default() });
        assert!(outcome.is_ok(), "ringmill-sim --seeds {seed} --ops 120: {}", outcome.unwrap_err());
    }
}

/// Compaction passes between cuts, errors and full disks: the newest record of each key stays, and passes take effect.
#[test]
fn compaction_keeps_what_it_has_to() {
    let (mut compactions, mut superseded, mut markers) = (0, 0, 0);
    for seed in 0..48 {
        let settings =
            Settings { ops: 300, compaction: true, disk_errors: seed % 2 == 0, ..Settings::default() };
        match run(seed, settings) {
            Ok(report) => {
                compactions += report.compactions;
                superseded += report.superseded;
                markers += report.markers_gone;
            }
            Err(why) => {
                panic!("seed {seed}, 300 operations, compaction, disk errors {}: {why}", settings.disk_errors)
            }
        }
    }
    assert!(
        compactions > 40 && superseded > 1_000 && markers > 20,
        "{compactions} passes took {superseded} records, {markers} of them markers whose time was over"
    );
}

fn found_compacting(planted: Faults) -> String {
    let settings = Settings { ops: 300, compaction: true, full_disk: false, ..settings(planted) };
    found_with(settings, 40).expect("found in 40 seeds")
}

#[test]
fn delete_markers_that_go_too_early_are_found() {
    let found = found_compacting(Faults { markers_go_at_once: true, ..Faults::default() });
    assert!(found.contains("no newer record of its key"), "found as something else: {found}");
}

#[test]
fn values_that_outlive_their_delete_markers_are_found() {
    let found = found_compacting(Faults { markers_supersede_nothing: true, ..Faults::default() });
    assert!(found.contains("deleted its key"), "found as something else: {found}");
}

/// Seeds that once broke a promise, and what was wrong then.
const ONCE_BROKEN: [(u64, &str); 18] = [
    (126, "a checkpoint named a segment as active that retention had unlinked: offline for ever"),
    (455, "the same, with small memory"),
    (475, "the same"),
    (719, "the same, met by a change of the number of cores"),
    (923, "the same, met on another core"),
    (932, "the same"),
    (944, "the same"),
    (1107, "the same, on two cores at once"),
    (1474, "a cut after a change of the number of cores brought back files that retention had unlinked"),
    (
        2377,
        "a start wrote over the only slot that was on the disk, after a life whose sync of the other had failed",
    ),
    (4014, "files that retention had unlinked came back"),
    (5859, "a start wrote over the only slot that was on the disk"),
    (6498, "the same"),
    (7233, "files of retired segments came back, and with them records at two places"),
    (8047, "the same, and a producer was refused as out of order"),
    (4690, "one partition found room again, and the others that had met the full disk waited for ever"),
    (
        10787,
        "nothing came after a tombstone that would have given its room in the core log back: a stop did not end",
    ),
    (11937, "a deleted topic whose core had not heard of it yet took the next one's folder"),
];

#[test]
fn what_was_once_broken_stays_whole() {
    for (seed, what) in ONCE_BROKEN {
        let outcome = run(seed, Settings::default());
        assert!(outcome.is_ok(), "ringmill-sim --seeds {seed} ({what}): {}", outcome.unwrap_err());
    }
    // A write into its segment was under way when a failed read took the partition offline: what it took along was being carried
    // into newer groups as well, and the core ended on an assertion.
    let outcome = run(103, Settings { ops: 300, compaction: true, ..Settings::default() });
    assert!(outcome.is_ok(), "ringmill-sim --seeds 103 --ops 300 --compaction: {}", outcome.unwrap_err());
}

#[test]
fn equal_seeds_are_equal_runs() {
    for seed in 0..8 {
        let once = run(seed, Settings::default());
        assert_eq!(once, run(seed, Settings::default()), "seed {seed}");
        assert_ne!(once.map(|r| r.trace), run(seed + 1, Settings::default()).map(|r| r.trace));
    }
}

#[test]
fn acking_before_the_flush_is_found() {
    let found = found(Faults { ack_before_flush: true, ..Faults::default() }, 60);
    assert!(found.is_some(), "60 seeds did not notice acks before the flush");
}

#[test]
fn reclaiming_before_the_segments_are_synced_is_found() {
    let found = found(Faults { reclaim_before_sync: true, ..Faults::default() }, 200);
    assert!(found.is_some(), "200 seeds did not notice space reclaimed too early");
}

#[test]
fn reusing_a_buffer_before_its_completion_is_found() {
    let found = found_with(Settings { release_early: true, ..settings(Faults::default()) }, 200);
    let found = found.expect("200 seeds did not notice buffers reused too early");
    assert!(found.contains("a buffer changed while its"), "found as something else: {found}");
}

/// One page a group, many under way, short lives: the stale group that a cut left lies where the chain goes on.
#[test]
fn trusting_a_stale_group_is_found_and_nothing_else_on_the_same_seeds() {
    let planted = Faults { trust_stale_groups: true, ..Faults::default() };
    let one_page = |planted| Settings { one_page: true, ..settings(planted) };
    let found = found_with(one_page(planted), STALE_SEEDS).expect("a stale group is noticed");
    assert!(found.contains("is back, which was lost"), "found as something else: {found}");
    for seed in 0..STALE_SEEDS {
        let outcome = run(seed, one_page(Faults::default()));
        assert!(
            outcome.is_ok(),
            "ringmill-sim --one-page --seeds {seed} --ops 120: {}",
            outcome.unwrap_err()
        );
    }
}
