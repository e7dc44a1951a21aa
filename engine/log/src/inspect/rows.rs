//! One line of a dump: for programs by serde, for people by `Display`.

use crate::compact::Group;
use crate::format::checkpoint::{Checkpoint, PartitionState};
use crate::format::given_up::Gap;
use crate::format::group::{Entry, GroupHeader};
use ringmill_record::BatchHeader;
use ringmill_types::PartitionId;
use serde::Serialize;
use std::fmt;

/// A row of any kind of file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "row", rename_all = "kebab-case")]
pub enum Row {
    Batch(BatchRow),
    Offset(OffsetRow),
    Time(TimeRow),
    Group(GroupRow),
    Entry(EntryRow),
    Checkpoint(CheckpointRow),
    Partition(PartitionRow),
    Epoch(EpochRow),
    Metadata(MetadataRow),
    Swap(SwapRow),
    Gap(Gap),
}

/// A record batch in a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BatchRow {
    pub position: u64,
    pub bytes: u64,
    pub base_offset: i64,
    pub last_offset: i64,
    pub records: i32,
    pub leader_epoch: i32,
    pub base_timestamp_ms: i64,
    pub max_timestamp_ms: i64,
    pub compression: &'static str,
    pub log_append_time: bool,
    pub transactional: bool,
    pub control: bool,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub crc: u32,
}

impl BatchRow {
    pub fn new(header: &BatchHeader, position: u64) -> BatchRow {
        use ringmill_record::Compression;
        BatchRow {
            position,
            bytes: header.size_bytes as u64,
            base_offset: header.base_offset.0,
            last_offset: header.last_offset().0,
            records: header.record_count,
            leader_epoch: header.leader_epoch.0,
            base_timestamp_ms: header.base_timestamp_ms,
            max_timestamp_ms: header.max_timestamp_ms,
            compression: match header.compression() {
                Some(Compression::None) => "none",
                Some(Compression::Gzip) => "gzip",
                Some(Compression::Snappy) => "snappy",
                Some(Compression::Lz4) => "lz4",
                Some(Compression::Zstd) => "zstd",
                None => "unknown",
            },
            log_append_time: header.is_log_append_time(),
            transactional: header.is_transactional(),
            control: header.is_control(),
            producer_id: header.producer_id.0,
            producer_epoch: header.producer_epoch.0,
            base_sequence: header.base_sequence,
            crc: header.crc,
        }
    }
}

/// An entry of an `.index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OffsetRow {
    pub offset: i64,
    pub position: u32,
}

/// An entry of a `.timeindex`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TimeRow {
    pub timestamp_ms: i64,
    pub offset: i64,
}

/// The header of a flush group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupRow {
    pub position: u64,
    pub bytes: u64,
    pub sequence: u64,
    pub durable: u64,
    /// 32 hexadecimal digits.
    pub incarnation: String,
    pub prev_header_crc: u32,
    pub entries: u32,
    pub payload_bytes: u32,
}

impl GroupRow {
    pub fn new(header: &GroupHeader, position: u64) -> GroupRow {
        GroupRow {
            position,
            bytes: header.total_bytes() as u64,
            sequence: header.sequence.0,
            durable: header.durable.0,
            incarnation: format!("{:032x}", header.incarnation),
            prev_header_crc: header.prev_header_crc,
            entries: header.entry_count,
            payload_bytes: header.payload_bytes,
        }
    }
}

/// An entry of a flush group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EntryRow {
    pub sequence: u64,
    pub partition: u64,
    pub kind: &'static str,
    pub arg: i64,
    pub bytes: u32,
    pub leader_epoch: i32,
}

impl EntryRow {
    pub fn new(sequence: u64, entry: &Entry) -> EntryRow {
        EntryRow {
            sequence,
            partition: entry.partition.0,
            kind: entry.kind.name(),
            arg: entry.arg,
            bytes: entry.len,
            leader_epoch: entry.epoch.0,
        }
    }
}

/// The head of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckpointRow {
    pub sequence: u64,
    pub core: u16,
    /// Incarnation and first group of each life.
    pub lives: Vec<(String, u64)>,
    pub start_file: u32,
    pub start_offset: u64,
    pub next_group: u64,
    pub durable_group: u64,
    pub clean: bool,
    pub partitions: u64,
}

impl CheckpointRow {
    pub fn new(checkpoint: &Checkpoint) -> CheckpointRow {
        CheckpointRow {
            sequence: checkpoint.sequence,
            core: checkpoint.core,
            lives: checkpoint.lives.iter().map(|(life, first)| (format!("{life:032x}"), *first)).collect(),
            start_file: checkpoint.start_file,
            start_offset: checkpoint.start_offset,
            next_group: checkpoint.next_group,
            durable_group: checkpoint.durable_group,
            clean: checkpoint.clean,
            partitions: checkpoint.partitions.len() as u64,
        }
    }
}

/// A partition in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionRow {
    pub id: u64,
    pub topic: String,
    pub index: i32,
    pub log_start: i64,
    pub next_offset: i64,
    pub segments: u64,
    pub bytes: u64,
    pub producers: u64,
    pub latest_epoch: Option<i32>,
}

impl PartitionRow {
    pub fn new(state: &PartitionState) -> PartitionRow {
        PartitionRow {
            id: state.id,
            topic: state.topic.clone(),
            index: state.index,
            log_start: state.log_start,
            next_offset: state.next_offset,
            segments: state.segments.len() as u64,
            bytes: state.segments.iter().fold(0, |sum, s| s.bytes.saturating_add(sum)),
            producers: state.producers.len() as u64,
            latest_epoch: state.epochs.last().map(|(epoch, _)| *epoch),
        }
    }
}

/// A line of `leader-epoch-checkpoint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EpochRow {
    pub leader_epoch: i32,
    pub start_offset: i64,
}

/// `partition.metadata`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MetadataRow {
    pub topic_id: String,
}

/// A group of `core-N/swap`: old segments, and the one that takes their place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SwapRow {
    pub partition: u64,
    /// Base offsets.
    pub sources: Vec<i64>,
    /// None when no record is left of the old ones.
    pub output: Option<SwapOutput>,
}

/// A segment that compaction wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SwapOutput {
    pub base_offset: i64,
    pub bytes: u64,
    pub max_timestamp_ms: i64,
}

impl SwapRow {
    pub fn new(partition: PartitionId, group: &Group) -> SwapRow {
        let output = group.output.map(|output| SwapOutput {
            base_offset: output.base.0,
            bytes: output.bytes,
            max_timestamp_ms: output.max_timestamp_ms,
        });
        SwapRow { partition: partition.0, sources: group.sources.iter().map(|base| base.0).collect(), output }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Row::Batch(row) => row.fmt(f),
            Row::Offset(row) => write!(f, "offset {} position {}", row.offset, row.position),
            Row::Time(row) => write!(f, "timestamp {} offset {}", row.timestamp_ms, row.offset),
            Row::Group(row) => write!(
                f,
                "group {} at {}: {} bytes, {} entries, {} payload bytes, durable {}, life {}, previous header {:08x}",
                row.sequence,
                row.position,
                row.bytes,
                row.entries,
                row.payload_bytes,
                row.durable,
                row.incarnation,
                row.prev_header_crc
            ),
            Row::Entry(row) => write!(
                f,
                "  {} partition {} offset {} bytes {} leader epoch {}",
                row.kind, row.partition, row.arg, row.bytes, row.leader_epoch
            ),
            Row::Checkpoint(row) => write!(
                f,
                "checkpoint {} of core {}: replay from group {} in file {:03} at {}, durable {}, {}, {} partitions, lives {:?}",
                row.sequence,
                row.core,
                row.next_group,
                row.start_file,
                row.start_offset,
                row.durable_group,
                if row.clean { "clean stop" } else { "running" },
                row.partitions,
                row.lives
            ),
            Row::Partition(row) => write!(
                f,
                "  partition {} {}-{}: offsets {}..{}, {} segments, {} bytes, {} producers",
                row.id,
                row.topic,
                row.index,
                row.log_start,
                row.next_offset,
                row.segments,
                row.bytes,
                row.producers
            ),
            Row::Epoch(row) => {
                write!(f, "leader epoch {} from offset {}", row.leader_epoch, row.start_offset)
            }
            Row::Metadata(row) => write!(f, "topic id {}", row.topic_id),
            Row::Swap(row) => row.fmt(f),
            Row::Gap(gap) => write!(
                f,
                "groups {}..{} given up; group {} follows in file {:03} at {}",
                gap.first, gap.next, gap.next, gap.file, gap.position
            ),
        }
    }
}

impl fmt::Display for SwapRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}: segments {:?} ", self.partition, self.sources)?;
        match self.output {
            Some(to) => write!(f, "become {} with {} bytes", to.base_offset, to.bytes),
            None => f.write_str("go"),
        }
    }
}

impl fmt::Display for BatchRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "offsets {}..={} position {} bytes {} records {} epoch {} timestamps {}..={} {}",
            self.base_offset,
            self.last_offset,
            self.position,
            self.bytes,
            self.records,
            self.leader_epoch,
            self.base_timestamp_ms,
            self.max_timestamp_ms,
            self.compression
        )?;
        if self.log_append_time {
            f.write_str(" log-append-time")?;
        }
        if self.producer_id >= 0 {
            write!(
                f,
                " producer {} epoch {} sequence {}",
                self.producer_id, self.producer_epoch, self.base_sequence
            )?;
        }
        if self.transactional {
            f.write_str(" transactional")?;
        }
        if self.control {
            f.write_str(" control")?;
        }
        Ok(())
    }
}
