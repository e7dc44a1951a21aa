//! What the micro-benchmarks share: batches as a producer sends them, and one core's log turned by hand.
//!
//! Measurement only: nothing of the broker depends on this crate.

use ringmill_log::{AppendError, Log, LogEvent, LogMetrics, LogOptions, Slot};
use ringmill_reactor::Backend;
use ringmill_record::{BatchHeader, HEADER_BYTES};
use ringmill_types::{
    CoreId, LeaderEpoch, Offset, PartitionId, PartitionSpec, TopicConfig, TopicId, TopicSpec,
};
use std::sync::Arc;

/// How long a turn waits in the kernel when nothing completes.
const TURN_NS_MAX: u64 = 5_000_000;

/// A batch of `records` uncompressed records with values of `value_bytes`, as librdkafka lays it out.
pub fn batch(records: i32, value_bytes: usize, timestamp_ms: i64) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    for index in 0..records {
        let mut record = vec![0u8];
        varint(&mut record, 0);
        varint(&mut record, i64::from(index));
        varint(&mut record, -1);
        varint(&mut record, value_bytes as i64);
        record.extend((0..value_bytes).map(|at| (at % 251) as u8));
        varint(&mut record, 0);
        varint(&mut out, record.len() as i64);
        out.extend_from_slice(&record);
    }
    let put = |out: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        out.get_mut(at..at + bytes.len()).expect("the header is there").copy_from_slice(bytes);
    };
    let length = (out.len() - 12) as i32;
    put(&mut out, 8, &length.to_be_bytes());
    put(&mut out, 16, &[2]);
    put(&mut out, 23, &(records - 1).to_be_bytes());
    put(&mut out, 27, &timestamp_ms.to_be_bytes());
    put(&mut out, 35, &timestamp_ms.to_be_bytes());
    put(&mut out, 43, &(-1i64).to_be_bytes());
    put(&mut out, 51, &(-1i16).to_be_bytes());
    put(&mut out, 53, &(-1i32).to_be_bytes());
    put(&mut out, 57, &records.to_be_bytes());
    let crc = crc32c::crc32c(out.get(21..).expect("the header is there"));
    put(&mut out, 17, &crc.to_be_bytes());
    out
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
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
        let spec = |index| PartitionSpec {
            index,
            id: PartitionId(10 + index as u64),
            owner: CoreId(0),
            leader_epoch: LeaderEpoch(0),
        };
        let topic = TopicSpec {
            name: "bench".into(),
            id: TopicId([7; 16]),
            config: Arc::new(TopicConfig::default()),
            partitions: (0..count).map(spec).collect(),
        };
        let own: Vec<_> = topic.partitions.iter().map(|p| (&topic, p)).collect();
        let next_id = 10 + count as u64;
        let (log, _) = Log::open(&mut io, options, &own, next_id, 1).expect("an empty log opens");
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
        self.log.slot_of(PartitionId(10 + index as u64)).expect("partitions are there from the start")
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
            Err(AppendError::Refused(code, text)) => panic!("refused: {code:?} {text}"),
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
