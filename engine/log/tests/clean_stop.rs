//! What a log leaves behind after an orderly stop is sound by every check there is, and comes back whole.
#![allow(clippy::unwrap_used)]

use ringmill_log::inspect::{self, Row, Severity};
use ringmill_log::{AppendError, Log, LogOptions, RecoveryReport, Slot};
use ringmill_reactor::Backend;
use ringmill_reactor::ring::{RingBackend, RingFeatures, RingOptions};
use ringmill_reactor::stdfs::StdFs;
use ringmill_record::{BatchHeader, HEADER_BYTES};
use ringmill_types::{CoreId, LeaderEpoch, PartitionId, PartitionSpec, TopicConfig, TopicId, TopicSpec};
use std::path::Path;
use std::sync::Arc;

const PARTITIONS: i32 = 3;

fn topic() -> TopicSpec {
    let config =
        TopicConfig { segment_bytes: 64 << 10, index_interval_bytes: 1000, ..TopicConfig::default() };
    let spec = |index| PartitionSpec {
        index,
        id: PartitionId(10 + index as u64),
        owner: CoreId(0),
        leader_epoch: LeaderEpoch(2),
    };
    TopicSpec {
        name: "orders".into(),
        id: TopicId([7; 16]),
        config: Arc::new(config),
        partitions: (0..PARTITIONS).map(spec).collect(),
    }
}

fn batch(records: i32, payload_bytes: usize, timestamp_ms: i64) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    out.extend((0..payload_bytes).map(|i| (i % 251) as u8));
    let length = out.len() as i32 - 12;
    out[8..12].copy_from_slice(&length.to_be_bytes());
    out[16] = 2;
    out[21..23].copy_from_slice(&3i16.to_be_bytes());
    out[23..27].copy_from_slice(&(records - 1).to_be_bytes());
    out[27..35].copy_from_slice(&timestamp_ms.to_be_bytes());
    out[35..43].copy_from_slice(&timestamp_ms.to_be_bytes());
    out[43..51].copy_from_slice(&(-1i64).to_be_bytes());
    out[51..53].copy_from_slice(&(-1i16).to_be_bytes());
    out[53..57].copy_from_slice(&(-1i32).to_be_bytes());
    out[57..61].copy_from_slice(&records.to_be_bytes());
    let crc = crc32c::crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out
}

/// One core's log on a real ring, turned by hand.
struct Core {
    io: RingBackend,
    log: Log,
}

impl Core {
    fn open(data: &Path, life: u128) -> (Core, RecoveryReport) {
        let options = RingOptions { pool_limit_bytes: 256 << 20, features: RingFeatures::ALL };
        let mut io = RingBackend::new(options).unwrap();
        let topic = topic();
        let own: Vec<_> = topic.partitions.iter().map(|p| (&topic, p)).collect();
        let options = LogOptions::new(CoreId(0), data.to_path_buf());
        let (log, report) = Log::open(&mut io, options, &own, 100, life).unwrap();
        (Core { io, log }, report)
    }

    fn slot(&self, index: i32) -> Slot {
        self.log.slot_of(PartitionId(10 + index as u64)).unwrap()
    }

    fn turn(&mut self) {
        self.log.poll(&mut self.io);
        let until = self.io.now_ns() + 5_000_000;
        self.io.enter(Some(until));
        while let Some(completion) = self.io.pop() {
            self.log.complete(&mut self.io, completion);
        }
        while self.log.next_event().is_some() {}
    }

    fn append(&mut self, index: i32, batch: &[u8]) {
        let header = BatchHeader::parse(batch).unwrap();
        let slot = self.slot(index);
        let wall_ms = self.io.wall_ms();
        while let Err(error) = self.log.append(&mut self.io, slot, &header, batch, wall_ms) {
            assert_eq!(error, AppendError::Busy);
            self.turn();
        }
    }

    fn stop(mut self) {
        self.log.stop();
        while !self.log.is_stopped() {
            self.turn();
        }
    }
}

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
