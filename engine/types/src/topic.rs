//! What every plane knows of a topic: the immutable description that control publishes.

use crate::{CoreId, LeaderEpoch, PartitionId, TopicId};
use std::sync::Arc;

/// Who sets a record's timestamp: KIP-32's `message.timestamp.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TimestampType {
    #[default]
    CreateTime,
    LogAppendTime,
}

/// Compression code of a batch, bits 0–2 of its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    /// As `compression.type` names it; `None` for `producer`, and for what was never a compression.
    pub fn of_topic(text: &str) -> Option<Compression> {
        match text {
            "uncompressed" => Some(Compression::None),
            "gzip" => Some(Compression::Gzip),
            "snappy" => Some(Compression::Snappy),
            "lz4" => Some(Compression::Lz4),
            "zstd" => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// The bits.
    pub fn code(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }
}

/// What a topic's batches are packed with before they are stored, and how hard the packer tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    pub compression: Compression,
    /// Of gzip and zstd; `None` is the codec's own default, which is Kafka's too.
    pub level: Option<i32>,
}

/// Effective settings of one topic, broker defaults already applied. Bytes and milliseconds; -1 means no limit, as in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// `flush.messages` as it acts here: 1 acks after the flush; larger acks when the group is sealed (only where the
    /// broker allows relaxed topics, otherwise control publishes 1).
    pub flush_messages: i64,
    /// `flush.ms`: the longest a relaxed topic's bytes stay unflushed.
    pub flush_ms: i64,
    pub segment_bytes: u64,
    pub segment_ms: i64,
    pub index_interval_bytes: u64,
    pub segment_index_bytes: u64,
    pub retention_bytes: i64,
    pub retention_ms: i64,
    pub file_delete_delay_ms: i64,
    pub max_message_bytes: u64,
    /// `compression.type` and the level of its kind; `None` leaves batches as they come.
    pub stored_as: Option<Packing>,
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`, `message.timestamp.after.max.ms`.
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    /// `cleanup.policy` contains `compact`: null keys are refused.
    pub compacted: bool,
    /// `cleanup.policy` contains `delete`: retention applies.
    pub delete: bool,
    /// `min.cleanable.dirty.ratio` in millionths.
    pub min_cleanable_dirty_ppm: u32,
    /// Younger records are not compacted.
    pub min_compaction_lag_ms: i64,
    /// Older ones are, whatever their share.
    pub max_compaction_lag_ms: i64,
    /// How long compaction keeps delete markers.
    pub delete_retention_ms: i64,
}

impl Default for TopicConfig {
    /// Kafka 4.3's defaults.
    fn default() -> TopicConfig {
        TopicConfig {
            flush_messages: 1,
            flush_ms: 1000,
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3600 * 1000,
            index_interval_bytes: 4096,
            segment_index_bytes: 10 << 20,
            retention_bytes: -1,
            retention_ms: 7 * 24 * 3600 * 1000,
            file_delete_delay_ms: 60_000,
            max_message_bytes: crate::limits::MESSAGE_MAX_BYTES_DEFAULT as u64,
            stored_as: None,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compacted: false,
            delete: true,
            min_cleanable_dirty_ppm: 500_000,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 24 * 3600 * 1000,
        }
    }
}

impl TopicConfig {
    /// Acks wait for the flush.
    pub fn is_durable(&self) -> bool {
        self.flush_messages <= 1
    }
}

/// One partition of a [`TopicSpec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionSpec {
    /// Number within the topic, from 0.
    pub index: i32,
    pub id: PartitionId,
    /// The only core that gives offsets for it.
    pub owner: CoreId,
    pub leader_epoch: LeaderEpoch,
}

/// A topic as cores know it. `partitions[i].index == i`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: Arc<str>,
    pub id: TopicId,
    pub config: Arc<TopicConfig>,
    pub partitions: Vec<PartitionSpec>,
}
