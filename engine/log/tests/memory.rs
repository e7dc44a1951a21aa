//! The tail ring and replay stay within memory, and one partition's bad disk does not hold the others' log.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Core, batch_of};
use ringmill_log::{LogOptions, ReadOutcome, ReadRequest};
use ringmill_reactor::Backend;
use ringmill_record::BatchHeader;
use ringmill_types::{CoreId, Offset};
use std::path::Path;

const POOL_BYTES: u64 = 24 << 20;
const TAIL_BYTES: u64 = 8 << 20;

fn options(data: &Path) -> LogOptions {
    LogOptions {
        tail_bytes: TAIL_BYTES,
        cache_bytes: 2 << 20,
        ..LogOptions::new(CoreId(0), data.to_path_buf())
    }
}

/// A batch whose payload says which it is.
fn numbered(number: u32, payload_bytes: usize, now_ms: i64) -> Vec<u8> {
    batch_of(1, &number.to_be_bytes(), payload_bytes, now_ms)
}

fn assert_counts_up(payloads: &[Vec<u8>], count: u32) {
    for (at, payload) in payloads.iter().enumerate() {
        assert_eq!(u32::from_be_bytes(payload[..4].try_into().unwrap()), at as u32);
    }
    assert_eq!(payloads.len(), count as usize);
}

#[test]
fn small_batches_alone_in_their_groups_stay_within_memory_and_so_does_their_replay() {
    const BATCHES: u32 = 6_000;
    let home = tempfile::tempdir().unwrap();
    let (mut core, _) = Core::open_with(POOL_BYTES, options(home.path()), 1);
    for number in 0..BATCHES {
        let now_ms = core.io.wall_ms();
        core.append(0, &numbered(number, 100, now_ms));
        core.settle();
        let (tail, ..) = core.log.gauges();
        assert!(tail <= TAIL_BYTES + (1 << 20), "the tail ring holds {tail} B");
    }
    let written = core.log.metrics().group_bytes;
    assert!(written > POOL_BYTES * 9 / 10, "a page a group: {written} B");
    core.settle();
    // As a kill does: no stop, no checkpoint.
    drop(core);
    let tight = LogOptions { tail_bytes: 2 << 20, ..options(home.path()) };
    let (mut core, report) = Core::open_with(16 << 20, tight, 2);
    assert!(!report.clean);
    assert_counts_up(&core.read_all(0), BATCHES);
    core.append(0, &numbered(BATCHES, 100, 0));
    core.stop();
    let (mut core, report) = Core::open_with(16 << 20, options(home.path()), 3);
    assert!(report.clean);
    assert_counts_up(&core.read_all(0), BATCHES + 1);
}

#[test]
fn an_offline_partition_does_not_pin_the_log_and_comes_back_with_its_disk() {
    const KEPT: u32 = 40;
    const OTHERS: u32 = 1_500;
    let home = tempfile::tempdir().unwrap();
    let small = || LogOptions {
        first_file_bytes: 1 << 20,
        file_bytes: 1 << 20,
        files_max: 3,
        group_bytes: 64 << 10,
        ..options(home.path())
    };
    let (mut core, _) = Core::open_with(POOL_BYTES, small(), 1);
    // What is in the way of its folder fails every try to make a segment.
    let obstacle = home.path().join("topics/orders-0");
    std::fs::write(&obstacle, b"").unwrap();
    for number in 0..KEPT {
        let now_ms = core.io.wall_ms();
        core.append(0, &numbered(number, 3_000, now_ms));
    }
    for number in 0..OTHERS {
        let now_ms = core.io.wall_ms();
        core.append(1, &numbered(number, 9_000, now_ms));
        core.turn();
    }
    assert!(core.log.view(core.slot(0)).unwrap().offline.is_some());
    assert!(core.log.metrics().carried_bytes > 0, "{}", core.log.describe());
    assert!(core.log.metrics().group_bytes > 3 * (3 << 20), "the ring went round: {}", core.log.describe());
    core.settle();
    drop(core);
    std::fs::remove_file(&obstacle).unwrap();
    let (mut core, _) = Core::open_with(POOL_BYTES, small(), 2);
    assert_counts_up(&core.read_all(0), KEPT);
    assert_counts_up(&core.read_all(1), OTHERS);
    core.append(0, &numbered(KEPT, 3_000, 0));
    core.stop();
    let (mut core, report) = Core::open_with(POOL_BYTES, small(), 3);
    assert!(report.clean);
    assert_counts_up(&core.read_all(0), KEPT + 1);
}

/// Readers that stop reading hold what was read for them; when they are gone nothing of it may be in the way.
#[test]
fn answers_that_nobody_took_in_leave_room_for_what_comes_after_them() {
    const BATCHES: u32 = 80;
    const MORE: u32 = 40;
    let home = tempfile::tempdir().unwrap();
    let (mut core, _) = Core::open_with(POOL_BYTES, options(home.path()), 1);
    for number in 0..BATCHES {
        let now_ms = core.io.wall_ms();
        core.append(0, &numbered(number, 900_000, now_ms));
    }
    core.settle();
    let slot = core.slot(0);
    // The segment is open and its index known.
    core.read_from(0, Offset(i64::from(BATCHES) - 1)).unwrap();
    core.read_from(0, Offset(0)).unwrap();
    // All at once, so that every block is asked for before one is there.
    let held: Vec<_> = (0..BATCHES)
        .filter_map(|at| {
            let (offset, ticket) = (Offset(i64::from(at)), 1_000 + u64::from(at));
            let request = ReadRequest { slot, offset, max_bytes: 50 << 20, at_least_one: true, ticket };
            match core.log.read(&mut core.io, request).unwrap() {
                ReadOutcome::Data { bufs, .. } => Some(bufs),
                ReadOutcome::Wait => None,
            }
        })
        .collect();
    assert!(held.len() < BATCHES as usize / 2, "most is cold");
    for _ in 0..200 {
        core.turn();
    }
    // Nobody comes for what was read, and who got an answer is gone.
    drop(held);
    let mut turns = 0;
    for number in BATCHES..BATCHES + MORE {
        let now_ms = core.io.wall_ms();
        let batch = numbered(number, 900_000, now_ms);
        let header = BatchHeader::parse(&batch).unwrap();
        while core.log.append(&mut core.io, slot, &header, &batch, now_ms).is_err() {
            turns += 1;
            let (log, pool) = (core.log.describe(), core.io.pool().stats());
            assert!(turns < 2_000, "batch {number} finds no room: {log} {pool:?}");
            core.turn();
        }
    }
    core.settle();
    let used = core.io.pool().stats().used_bytes;
    assert!(used <= POOL_BYTES * 3 / 4, "{used} B for nobody");
    assert_counts_up(&core.read_all(0), BATCHES + MORE);
    core.stop();
}

#[test]
fn a_topic_deleted_while_its_segment_is_written_goes_and_the_core_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let (mut core, _) = Core::open_with(POOL_BYTES, options(home.path()), 1);
    let slot = core.slot(0);
    let id = core.log.view(slot).unwrap().id;
    // Enough for a destage write of its own.
    for number in 0..80 {
        let now_ms = core.io.wall_ms();
        core.append(0, &numbered(number, 16_000, now_ms));
    }
    // Until its folder is there and a write to it may be under way; a delete at any of these turns must end.
    let dir = home.path().join("topics/orders-0");
    while !dir.exists() {
        core.turn();
    }
    assert!(core.log.delete(&mut core.io, id));
    while dir.exists() {
        core.turn();
    }
    core.append(1, &numbered(0, 100, 0));
    core.settle();
    core.stop();
}

#[test]
fn every_group_that_became_durable_is_told_of_once_however_many_at_a_time() {
    const BATCHES: u32 = 24;
    let home = tempfile::tempdir().unwrap();
    let options =
        LogOptions { group_bytes: 1 << 20, ..LogOptions::new(CoreId(0), home.path().to_path_buf()) };
    let (mut core, _) = Core::open_with(128 << 20, options, 1);
    let before = core.log.metrics();
    while core.log.take_flush_sample().is_some() {}
    let now_ms = core.io.wall_ms();
    for number in 0..BATCHES {
        // Each fills a group; those that run ahead of the flush become durable with another's.
        core.append(0, &numbered(number, 950 << 10, now_ms));
    }
    core.settle();
    let (mut groups, mut bytes) = (0, 0);
    while let Some((_, of_group)) = core.log.take_flush_sample() {
        groups += 1;
        bytes += of_group;
    }
    let after = core.log.metrics();
    assert!(groups >= u64::from(BATCHES), "{groups} groups for {BATCHES} batches of a group's size");
    assert_eq!((groups, bytes), (after.groups - before.groups, after.group_bytes - before.group_bytes));
}
