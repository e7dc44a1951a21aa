//! What a log says of itself: the numbers of its partitions, counters for metrics, the line for the dump of a stuck core.
//!
//! Only looks; nothing here changes what is stored.

use crate::destage::ahead_bytes;
use crate::log::{Log, Slot};
use crate::partition::{DestageStep, Partition};
use crate::producer::ProducerView;
use ringmill_types::limits::PAGE_BYTES;
use ringmill_types::{GroupSeq, LeaderEpoch, Offset, PartitionId};

/// Numbers of one partition, for answers and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionView {
    pub id: PartitionId,
    pub log_start: Offset,
    pub high_watermark: Offset,
    pub durable: Offset,
    pub log_end: Offset,
    pub leader_epoch: LeaderEpoch,
    pub size_bytes: u64,
    pub segments: u32,
    /// Why it is offline, if it is.
    pub offline: Option<&'static str>,
    pub relaxed: bool,
    pub records_in: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// Counters for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogMetrics {
    pub groups: u64,
    pub group_bytes: u64,
    pub destage_bytes: u64,
    pub destage_writes: u64,
    pub checkpoints: u64,
    /// Written again for offline partitions.
    pub carried_bytes: u64,
    pub cold_reads: u64,
    pub cold_read_bytes: u64,
    pub cache_hits: u64,
    /// Passes whose result took its place, and the records and bytes that went.
    pub compactions: u64,
    pub compacted_records: u64,
    pub compacted_bytes: u64,
    /// Of the compacted partition with the largest uncompared share, that share in millionths, at the last look.
    pub dirty_ppm: u64,
}

/// Batches that a full disk keeps from their segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WithoutRoom {
    pub bytes: u64,
    /// With this much they surely fit: what segments take ahead included.
    pub room_bytes: u64,
}

impl WithoutRoom {
    pub fn plus(self, other: WithoutRoom) -> WithoutRoom {
        WithoutRoom { bytes: self.bytes + other.bytes, room_bytes: self.room_bytes + other.room_bytes }
    }
}

/// What a segment takes beside its batches: its folder, both indexes, and what the file system notes of them.
const SEGMENT_EXTRA_BYTES: u64 = 16 * PAGE_BYTES as u64;

impl Log {
    /// Bytes of the tail ring, undestaged bytes, core-log used and capacity, cache.
    pub fn gauges(&self) -> (u64, u64, u64, u64, u64) {
        (
            self.tail_bytes,
            self.undestaged_bytes,
            self.core_log.used_bytes(),
            self.core_log.capacity_bytes(),
            self.cache.bytes(),
        )
    }

    pub fn metrics(&self) -> LogMetrics {
        self.metrics
    }

    pub fn durable_group(&self) -> GroupSeq {
        self.core_log.durable()
    }

    /// What found no room in segments on the full disk: after a stop it stays in the core log.
    pub fn without_room(&self) -> WithoutRoom {
        let partitions = self.by_id.len() as u64;
        let waiting =
            self.parts.iter().map(|(_, part)| part).filter(|p| !p.deleted && p.step == DestageStep::NoSpace);
        let room = waiting.map(|part| {
            let held = part.segments.last().map_or(0, |s| if s.sealed { 0 } else { s.bytes });
            let pages = part.undestaged_bytes.next_multiple_of(PAGE_BYTES as u64);
            WithoutRoom {
                bytes: part.undestaged_bytes,
                room_bytes: pages
                    + SEGMENT_EXTRA_BYTES
                    + ahead_bytes(held + part.undestaged_bytes, partitions),
            }
        });
        room.fold(WithoutRoom::default(), WithoutRoom::plus)
    }

    pub fn is_storage_full(&self) -> bool {
        self.storage_full
    }

    pub fn tail_limit_bytes(&self) -> u64 {
        self.options.tail_bytes
    }

    /// Microseconds from seal to durable and bytes of a group that became durable, each once, oldest first.
    pub fn take_flush_sample(&mut self) -> Option<(u64, u64)> {
        self.core_log.flushed.pop_front().map(|f| (f.micros, f.bytes))
    }

    /// Numbers of one partition; `None` for a slot of a deleted one.
    pub fn view(&self, slot: Slot) -> Option<PartitionView> {
        let part = self.parts.get(slot.0).filter(|p| !p.deleted)?;
        Some(PartitionView {
            id: part.id,
            log_start: part.log_start,
            high_watermark: part.high_watermark,
            durable: part.durable,
            log_end: part.log_end,
            leader_epoch: part.leader_epoch,
            size_bytes: part.size_bytes(),
            segments: part.segments.len() as u32,
            offline: part.offline,
            relaxed: !part.config.is_durable(),
            records_in: part.records_in,
            bytes_in: part.bytes_in,
            bytes_out: part.bytes_out,
        })
    }

    /// At most `most` of a partition's producers; `None` for a slot of a deleted one.
    pub fn producers(&self, slot: Slot, most: usize) -> Option<Vec<ProducerView>> {
        let part = self.parts.get(slot.0).filter(|p| !p.deleted)?;
        Some(part.producers.views(most))
    }

    /// Slots in use.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.parts.iter().filter(|(_, p)| !p.deleted).map(|(slot, _)| Slot(slot))
    }

    /// The epoch under which `offset` was written, or will be as the next one; -1 when neither.
    pub fn epoch_at(&self, slot: Slot, offset: Offset) -> LeaderEpoch {
        let epochs = self.parts.get(slot.0).map(Partition::epochs_till_now);
        epochs.and_then(|epochs| epochs.epoch_of(offset)).unwrap_or(LeaderEpoch(-1))
    }

    /// OffsetForLeaderEpoch: the largest epoch at or below `epoch`, and where it ends.
    pub fn epoch_end(&self, slot: Slot, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let part = self.parts.get(slot.0)?;
        Some(part.epochs_till_now().end_offset(epoch, part.log_end))
    }

    /// A line for the dump of a stuck core.
    pub fn describe(&self) -> String {
        format!(
            "durable group {}, sealed {}, destaged {}, checkpointed {}; tail {} B ({} B not destaged); core log {} of {} B; jobs {}; destage writes {}, queued {}; storage full: {}; partitions {} of {}",
            self.core_log.durable(),
            self.core_log.sealed(),
            self.destaged_groups,
            self.checkpoint.done(),
            self.tail_bytes,
            self.undestaged_bytes,
            self.core_log.used_bytes(),
            self.core_log.capacity_bytes(),
            self.jobs.len(),
            self.destage.in_flight(),
            self.destage.queue.len(),
            self.storage_full,
            self.parts.iter().count(),
            self.parts.slots().len()
        )
    }
}
