//! What the micro-benchmarks share: batches as a producer sends them, and one core's log turned by hand.
//!
//! Measurement only: nothing of the broker depends on this crate.

pub mod frames;

use ringmill_log::{AppendError, Log, LogEvent, LogMetrics, LogOptions, Slot};
use ringmill_reactor::Backend;
use ringmill_record::write::{Sealing, no_headers, put_record, seal};
use ringmill_record::{BatchHeader, HEADER_BYTES};
use ringmill_types::{CoreId, LeaderEpoch, Offset, PartitionId, PartitionSpec, TopicConfig, TopicSpec};
use std::sync::Arc;

/// How long a turn waits in the kernel when nothing completes.
const TURN_NS_MAX: u64 = 5_000_000;
/// Of partition 0.
const FIRST_ID: u64 = 10;

/// A batch of `records` uncompressed records with values of `value_bytes`, as librdkafka lays it out.
pub fn batch(records: i32, value_bytes: usize, timestamp_ms: i64) -> Vec<u8> {
    let value: Vec<u8> = (0..value_bytes).map(|at| (at % 251) as u8).collect();
    let mut out = vec![0; HEADER_BYTES];
    for index in 0..records {
        put_record(&mut out, 0, index, None, Some(&value), no_headers());
    }
    seal(&mut out, &Sealing::plain(timestamp_ms, timestamp_ms, records));
    out
}

/// The topic that the frames name, all its partitions on core 0.
pub fn topic(partitions: i32) -> TopicSpec {
    let spec = |index| PartitionSpec {
        index,
        id: PartitionId(FIRST_ID + index as u64),
        owner: CoreId(0),
        leader_epoch: LeaderEpoch(0),
    };
    TopicSpec {
        name: "bench".into(),
        id: frames::TOPIC_ID,
        config: Arc::new(TopicConfig::default()),
        partitions: (0..partitions).map(spec).collect(),
    }
}

/// One core's log with partitions `0..count` of one topic, on any backend.
pub struct LogRig<B: Backend> {
    pub io: B,
    pub log: Log,
}

impl<B: Backend> LogRig<B> {
    /// Opens an empty log.
    ///
    /// # Panics
    /// When it cannot be opened: a benchmark has nobody to tell.
    pub fn open(mut io: B, options: LogOptions, count: i32) -> LogRig<B> {
        let next_id = FIRST_ID + count as u64;
        let (log, _) = Log::open(&mut io, options, &[topic(count)], next_id, 1).expect("an empty log opens");
        LogRig { io, log }
    }

    /// One turn of the core's loop, without connections.
    ///
    /// # Panics
    /// When the disk fails.
    pub fn turn(&mut self) {
        self.log.poll(&mut self.io);
        let until = self.io.now_ns() + TURN_NS_MAX;
        self.io.enter(Some(until));
        while let Some(completion) = self.io.pop() {
            self.log.complete(&mut self.io, completion);
        }
        while let Some(event) = self.log.next_event() {
            assert!(!matches!(event, LogEvent::Fatal(_)), "{event:?}");
        }
    }

    pub fn slot(&self, index: i32) -> Slot {
        self.log.slot_of(PartitionId(FIRST_ID + index as u64)).expect("partitions are there from the start")
    }

    /// False when there is no room at the moment.
    ///
    /// # Panics
    /// When the batch is refused.
    pub fn try_append(&mut self, slot: Slot, header: &BatchHeader, batch: &[u8]) -> bool {
        let wall_ms = header.max_timestamp_ms;
        match self.log.append(&mut self.io, slot, header, batch, wall_ms) {
            Ok(_) => true,
            Err(AppendError::Busy) => false,
            Err(refused) => panic!("{refused:?}"),
        }
    }

    pub fn durable(&self, slot: Slot) -> Offset {
        self.log.view(slot).map_or(Offset(0), |view| view.durable)
    }

    pub fn metrics(&self) -> LogMetrics {
        self.log.metrics()
    }

    /// Destages and syncs everything, and ends.
    pub fn stop(&mut self) {
        self.log.stop();
        while !self.log.is_stopped() {
            self.turn();
        }
    }
}
