//! One core's log on a real ring, turned by hand.
#![allow(clippy::unwrap_used, dead_code)]

use ringmill_log::{AppendError, Log, LogEvent, LogOptions, ReadError, ReadOutcome, ReadRequest, Slot};
use ringmill_log::{RecoveryError, RecoveryReport};
use ringmill_reactor::Backend;
use ringmill_reactor::ring::{RingBackend, RingFeatures, RingOptions};
use ringmill_record::write::{Sealing, seal};
use ringmill_record::{BatchHeader, Batches, HEADER_BYTES};
use ringmill_types::{
    CoreId, LeaderEpoch, Offset, PartitionId, PartitionSpec, TopicConfig, TopicId, TopicSpec,
};
use std::path::Path;
use std::sync::Arc;

pub const PARTITIONS: i32 = 3;

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

/// A payload that nobody unpacks.
pub fn batch(records: i32, payload_bytes: usize, timestamp_ms: i64) -> Vec<u8> {
    batch_of(records, &[], payload_bytes, timestamp_ms)
}

/// The same, with a payload that begins with a mark.
pub fn batch_of(records: i32, mark: &[u8], payload_bytes: usize, timestamp_ms: i64) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    out.extend_from_slice(mark);
    out.extend((mark.len()..payload_bytes).map(|i| (i % 251) as u8));
    seal(&mut out, &Sealing { attributes: 3, ..Sealing::plain(timestamp_ms, timestamp_ms, records) });
    out
}

pub struct Core {
    pub io: RingBackend,
    pub log: Log,
    reads: u64,
}

impl Core {
    pub fn open(data: &Path, life: u128) -> (Core, RecoveryReport) {
        Core::open_with(256 << 20, LogOptions::new(CoreId(0), data.to_path_buf()), life)
    }

    pub fn open_with(pool_bytes: u64, options: LogOptions, life: u128) -> (Core, RecoveryReport) {
        Core::try_open_with(pool_bytes, options, life).unwrap()
    }

    pub fn try_open_with(
        pool_bytes: u64,
        options: LogOptions,
        life: u128,
    ) -> Result<(Core, RecoveryReport), RecoveryError> {
        Core::try_open_topics(pool_bytes, options, &[topic()], life)
    }

    pub fn try_open_topics(
        pool_bytes: u64,
        options: LogOptions,
        topics: &[TopicSpec],
        life: u128,
    ) -> Result<(Core, RecoveryReport), RecoveryError> {
        let ring = RingOptions { pool_limit_bytes: pool_bytes, features: RingFeatures::ALL };
        let mut io = RingBackend::new(ring).unwrap();
        let (log, report) = Log::open(&mut io, options, topics, 100, life)?;
        Ok((Core { io, log, reads: 0 }, report))
    }

    pub fn slot(&self, index: i32) -> Slot {
        self.log.slot_of(PartitionId(10 + index as u64)).unwrap()
    }

    pub fn turn(&mut self) {
        self.log.poll(&mut self.io);
        let until = self.io.now_ns() + 5_000_000;
        self.io.enter(Some(until));
        while let Some(completion) = self.io.pop() {
            self.log.complete(&mut self.io, completion);
        }
        while let Some(event) = self.log.next_event() {
            assert!(!matches!(event, LogEvent::Fatal(_)), "{event:?}");
        }
    }

    pub fn append(&mut self, index: i32, batch: &[u8]) {
        self.append_to(self.slot(index), batch);
    }

    pub fn append_to(&mut self, slot: Slot, batch: &[u8]) {
        let header = BatchHeader::parse(batch).unwrap();
        let wall_ms = self.io.wall_ms();
        while let Err(error) = self.log.append(&mut self.io, slot, &header, batch, wall_ms) {
            assert_eq!(error, AppendError::Busy);
            self.turn();
        }
    }

    /// Until all that was appended is acked.
    pub fn settle(&mut self) {
        while self.log.slots().any(|slot| self.log.view(slot).is_some_and(|v| v.durable < v.log_end)) {
            self.turn();
        }
    }

    /// Everything from the start: the payload of each batch.
    pub fn read_all(&mut self, index: i32) -> Vec<Vec<u8>> {
        self.try_read_all(index).unwrap()
    }

    pub fn try_read_all(&mut self, index: i32) -> Result<Vec<Vec<u8>>, ReadError> {
        self.read_from(index, Offset(0))
    }

    pub fn read_from(&mut self, index: i32, start: Offset) -> Result<Vec<Vec<u8>>, ReadError> {
        let slot = self.slot(index);
        let end = self.log.view(slot).unwrap().high_watermark;
        let (mut offset, mut out) = (start, Vec::new());
        while offset < end {
            self.reads += 1;
            assert!(
                self.reads < 1_000_000,
                "reading at {offset} of {end} does not end: {}",
                self.log.describe()
            );
            let request =
                ReadRequest { slot, offset, max_bytes: 1 << 20, at_least_one: true, ticket: self.reads };
            match self.log.read(&mut self.io, request)? {
                ReadOutcome::Wait => self.turn(),
                ReadOutcome::Data { bufs, .. } => {
                    let bytes: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
                    for (header, batch) in Batches::new(&bytes) {
                        assert_eq!(header.base_offset, offset, "offsets are dense");
                        offset = header.next_offset();
                        out.push(batch[HEADER_BYTES..].to_vec());
                    }
                }
            }
        }
        Ok(out)
    }

    pub fn stop(mut self) {
        self.log.stop();
        while !self.log.is_stopped() {
            self.turn();
        }
    }
}
