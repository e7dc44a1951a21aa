//! Bounds of record timestamps are those of the records, not of what the batch's header claims.
#![allow(clippy::unwrap_used)]

mod common;

use common::Core;
use ringmill_log::{AppendError, LogEvent};
use ringmill_reactor::Backend;
use ringmill_record::write::{Sealing, no_headers, put_record, seal};
use ringmill_record::{Compression, HEADER_BYTES, validate_produced};
use ringmill_types::{
    CoreId, ErrorCode, LeaderEpoch, Offset, PartitionId, PartitionSpec, TimestampType, TopicConfig, TopicId,
    TopicSpec,
};
use std::sync::Arc;

/// Records of these timestamps, with a header that claims `base` and `max`.
fn batch(stamps: &[i64], base: i64, max: i64, attributes: i16) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    for (delta, stamp) in (0..).zip(stamps) {
        put_record(&mut out, stamp - base, delta, None, Some(b"x"), no_headers());
    }
    seal(&mut out, &Sealing { attributes, ..Sealing::plain(base, max, stamps.len() as i32) });
    out
}

fn configure(core: &mut Core, config: TopicConfig) {
    let spec =
        PartitionSpec { index: 0, id: PartitionId(10), owner: CoreId(0), leader_epoch: LeaderEpoch(2) };
    let topic = TopicSpec {
        name: "orders".into(),
        id: TopicId([7; 16]),
        config: Arc::new(config),
        partitions: vec![spec.clone()],
    };
    core.log.upsert(&topic, &spec);
}

/// What a lookup by time gives: offset and timestamp.
fn find(core: &mut Core, time_ms: i64) -> Option<(i64, i64)> {
    find_or_largest(core, Some(time_ms))
}

fn find_or_largest(core: &mut Core, time_ms: Option<i64>) -> Option<(i64, i64)> {
    let slot = core.slot(0);
    core.log.find_time(&mut core.io, slot, time_ms, 7);
    loop {
        core.log.poll(&mut core.io);
        let until = core.io.now_ns() + 5_000_000;
        core.io.enter(Some(until));
        while let Some(completion) = core.io.pop() {
            core.log.complete(&mut core.io, completion);
        }
        while let Some(event) = core.log.next_event() {
            if let LogEvent::Found { ticket, found } = event {
                assert_eq!(ticket, 7);
                return found.map(|found| (found.offset.0, found.timestamp_ms));
            }
        }
    }
}

/// Lookups by time do not see what DeleteRecords took, and see what is behind it: in memory and in segments, also where the
/// log begins within a batch.
#[test]
fn lookups_begin_where_the_log_does() {
    for stamped in [false, true] {
        for in_segments in [false, true] {
            let home = tempfile::tempdir().unwrap();
            let (mut core, _) = Core::open(home.path(), 1);
            if stamped {
                let config =
                    TopicConfig { timestamp_type: TimestampType::LogAppendTime, ..TopicConfig::default() };
                configure(&mut core, config);
            }
            let now = core.io.wall_ms();
            for first in [now, now + 10, now + 20] {
                core.append(0, &batch(&[first + 2, first, first + 1], first, first + 2, 0));
            }
            core.settle();
            if in_segments {
                core.stop();
                core = Core::open(home.path(), 2).0;
            }
            for (start, expected) in [(0, 0), (1, 1), (3, 3), (5, 5), (8, 8)] {
                let slot = core.slot(0);
                core.log.delete_records(&mut core.io, slot, Offset(start)).unwrap();
                let found = find(&mut core, 0);
                assert_eq!(
                    found.map(|(offset, _)| offset),
                    Some(expected),
                    "from {start}, stamped: {stamped}, in segments: {in_segments}"
                );
            }
            let slot = core.slot(0);
            core.log.delete_records(&mut core.io, slot, Offset(9)).unwrap();
            assert_eq!(find(&mut core, 0), None);
        }
    }
    // Its first record alone is as new as asked for, and gone.
    let home = tempfile::tempdir().unwrap();
    let (mut core, _) = Core::open(home.path(), 1);
    let now = core.io.wall_ms();
    core.append(0, &batch(&[now + 50, now], now, now + 50, 0));
    core.append(0, &batch(&[now + 60], now + 60, now + 60, 0));
    core.settle();
    let slot = core.slot(0);
    core.log.delete_records(&mut core.io, slot, Offset(1)).unwrap();
    assert_eq!(find(&mut core, now + 40), Some((2, now + 60)));
}

/// As Kafka answers: the largest timestamp counts while its batch is there, deleted or not, until nothing is left to read.
#[test]
fn the_largest_timestamp_may_be_a_deleted_records() {
    let home = tempfile::tempdir().unwrap();
    let (mut core, _) = Core::open(home.path(), 1);
    let now = core.io.wall_ms();
    core.append(0, &batch(&[now + 50, now], now, now + 50, 0));
    core.append(0, &batch(&[now + 20], now + 20, now + 20, 0));
    core.settle();
    for (start, expected) in [(0, Some((0, now + 50))), (1, Some((0, now + 50))), (3, None)] {
        let slot = core.slot(0);
        core.log.delete_records(&mut core.io, slot, Offset(start)).unwrap();
        assert_eq!(find_or_largest(&mut core, None), expected, "from {start}");
    }
}

#[test]
fn every_record_is_judged_by_its_own_timestamp() {
    let home = tempfile::tempdir().unwrap();
    let (mut core, _) = Core::open(home.path(), 1);
    let now = core.io.wall_ms();
    let taken = |core: &mut Core, batch: &[u8]| {
        let produced = validate_produced(Some(batch), 9).unwrap();
        let (slot, wall_ms) = (core.slot(0), now);
        match core.log.append_produced(&mut core.io, slot, &produced, batch, wall_ms) {
            Ok(_) => true,
            Err(AppendError::BadRecords(bad)) => {
                assert_eq!(bad.code, ErrorCode::InvalidTimestamp);
                assert!(!bad.records.is_empty());
                false
            }
            Err(AppendError::Refused(code, why)) => panic!("{code:?} {why}"),
            Err(AppendError::Busy) => panic!("an empty log has room"),
        }
    };
    let bounds = TopicConfig {
        timestamp_before_max_ms: 60_000,
        timestamp_after_max_ms: 60_000,
        ..TopicConfig::default()
    };
    configure(&mut core, bounds);
    let old = now - 100_000;
    let ahead = now + 100_000;
    assert!(taken(&mut core, &batch(&[now, now + 1], now, now + 1, 0)));
    assert!(!taken(&mut core, &batch(&[now, old], now, now, 0)), "the second is old");
    assert!(!taken(&mut core, &batch(&[old, now], old, now, 0)), "the first is old");
    assert!(!taken(&mut core, &batch(&[now, ahead], now, now, 0)), "the header's maximum is a lie");
    assert!(taken(&mut core, &batch(&[now, now], old, now, 0)), "no record has the base");
    assert!(taken(&mut core, &batch(&[now, now], now, ahead, 0)), "no record has the maximum");
    assert!(taken(&mut core, &batch(&[-1, now], -1, now, 0)), "no timestamp is in every range");

    let stamped_here = TopicConfig { timestamp_type: TimestampType::LogAppendTime, ..TopicConfig::default() };
    configure(&mut core, stamped_here);
    assert!(taken(&mut core, &batch(&[old], old, old, 0)), "its time is that of the broker");
    assert!(!taken(&mut core, &batch(&[now], now, now, 8)), "the clock is not the producer's to choose");
}

/// Packed bytes are stored as they came: what they hold is found out by whoever reads them, within bounds.
#[test]
fn a_batch_that_cannot_be_looked_into_is_found_by_its_beginning() {
    let packed = |payload: Vec<u8>, from: i64| {
        let mut out = vec![0; HEADER_BYTES];
        out.extend(payload);
        seal(&mut out, &Sealing { attributes: 4, ..Sealing::plain(from, from + 9, 3) });
        out
    };
    let zstd = |payload: Vec<u8>| ringmill_compression::compress(Compression::Zstd, payload).unwrap();
    let records = |from: i64| batch(&[from, from + 5, from + 9], from, from + 9, 0)[HEADER_BYTES..].to_vec();
    for in_segments in [false, true] {
        let home = tempfile::tempdir().unwrap();
        let (mut core, _) = Core::open(home.path(), 1);
        let now = core.io.wall_ms();
        // What does not end within the bound, what is no zstd, what is none of records, and what is in order.
        let endless = zstd(vec![0x80; 64 << 20]);
        assert!(endless.len() < 64 << 10);
        for (at, payload) in
            [endless, vec![7; 100], zstd(vec![0xff; 100]), zstd(records(now + 300))].into_iter().enumerate()
        {
            core.append(0, &packed(payload, now + 100 * at as i64));
        }
        core.settle();
        if in_segments {
            core.stop();
            core = Core::open(home.path(), 2).0;
        }
        for (time_ms, expected) in [(0, 0), (2, 0), (50, 3), (105, 3), (150, 6), (301, 10), (306, 11)] {
            let found = find(&mut core, now + time_ms).map(|(offset, _)| offset);
            assert_eq!(found, Some(expected), "{time_ms} ms, in segments: {in_segments}");
        }
        assert_eq!(find(&mut core, now + 310), None);
        let slot = core.slot(0);
        core.log.delete_records(&mut core.io, slot, Offset(1)).unwrap();
        assert_eq!(find(&mut core, now).map(|(offset, _)| offset), Some(1), "not before the log's start");
    }
}
