//! One partition as its core holds it: watermarks, the tail in memory, the segments on disk.
//!
//! Owned by one core's `Log`. Ends when the topic is deleted or the core stops.

use crate::carry::Carry;
use crate::epochs::EpochCache;
use crate::format::checkpoint::PartitionState;
use crate::index::SegmentIndex;
use crate::open_files::HeldFile;
use crate::producer::ProducerTable;
use crate::segment::IndexSource;
use ringmill_reactor::{Buf, FileId, Fs};
use ringmill_record::BatchHeader;
use ringmill_types::{GroupSeq, LeaderEpoch, Offset, PartitionId, TopicConfig, TopicId};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A batch in the tail ring.
#[derive(Clone)]
pub struct TailEntry {
    pub base: Offset,
    pub last: Offset,
    pub max_timestamp_ms: i64,
    pub group: GroupSeq,
    pub buf: Buf,
}

/// One segment file. Sizes and offsets count what was destaged, not what is allocated.
pub struct Segment {
    pub base: Offset,
    pub bytes: u64,
    pub max_timestamp_ms: i64,
    pub offset_of_max: Offset,
    pub created_ms: i64,
    pub sealed: bool,
    /// Compaction may take it from this many completed checkpoints on.
    pub settled_at: u64,
    /// Never reused within a process: the cache's name for this file.
    pub uid: u64,
    pub allocated_bytes: u64,
    pub open: Option<OpenFile>,
    pub index: Option<SegmentIndex>,
    /// Entries of offsets and of times that an orderly stop left beside the active segment, until it is loaded.
    pub index_left: Option<(u32, u32)>,
    /// Bytes past the last whole page, kept so that the next write can begin with them.
    pub tail_page: Vec<u8>,
    /// The in-memory `tail_page` is valid (not so after recovery until the file was opened).
    pub tail_page_known: bool,
}

/// A segment's file, attached to the ring.
#[derive(Clone)]
pub struct OpenFile {
    pub id: FileId,
    pub(crate) file: HeldFile,
    pub used_turn: u64,
}

/// What the partition's destaging waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestageStep {
    Idle,
    /// In the queue.
    Queued,
    /// A job creates, opens, allocates or seals the segment.
    Preparing,
    Writing,
    /// The last attempt met a full disk; tried again when space is back.
    NoSpace,
    /// A deleted partition still holds the folder's name; tried again soon.
    NameTaken,
    /// No descriptor is to be had; tried again when one may be.
    NoFile,
}

pub struct Partition {
    pub id: PartitionId,
    pub topic: Arc<str>,
    pub topic_id: TopicId,
    pub index: i32,
    pub dir: PathBuf,
    pub config: Arc<TopicConfig>,
    pub leader_epoch: LeaderEpoch,
    /// `log_start <= high_watermark <= durable <= log_end` on a durable topic; on a relaxed one the high watermark
    /// follows what is sealed and may be ahead of `durable`.
    pub log_start: Offset,
    pub high_watermark: Offset,
    pub durable: Offset,
    pub log_end: Offset,
    /// First offset that is not yet written to a segment.
    pub destaged: Offset,
    pub epochs: EpochCache,
    pub producers: ProducerTable,
    pub tail: VecDeque<TailEntry>,
    /// Entries at the front of `tail` that are in a segment already.
    pub tail_destaged: usize,
    pub undestaged_bytes: u64,
    /// In base-offset order; only the last may be unsealed.
    pub segments: Vec<Segment>,
    pub step: DestageStep,
    /// Written since the last sync that a checkpoint waited for.
    pub dirty: bool,
    /// Changed since the last checkpoint.
    pub changed: bool,
    pub offline: Option<&'static str>,
    /// Its batches on their way into newer groups, so that they do not hold the core log's oldest.
    pub(crate) carry: Option<Carry>,
    pub folder_known: bool,
    pub last_append_ms: i64,
    /// Where sequential readers stopped: (offset, segment uid, position), newest last.
    pub hints: VecDeque<(Offset, u64, u64)>,
    pub records_in: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub deleted: bool,
}

impl Partition {
    pub fn new(
        id: PartitionId,
        topic: Arc<str>,
        topic_id: TopicId,
        index: i32,
        data_dir: &Path,
        config: Arc<TopicConfig>,
        leader_epoch: LeaderEpoch,
    ) -> Partition {
        Partition {
            id,
            dir: partition_dir(data_dir, &topic, index),
            topic,
            topic_id,
            index,
            config,
            leader_epoch,
            log_start: Offset::ZERO,
            high_watermark: Offset::ZERO,
            durable: Offset::ZERO,
            log_end: Offset::ZERO,
            destaged: Offset::ZERO,
            epochs: EpochCache::default(),
            producers: ProducerTable::default(),
            tail: VecDeque::new(),
            tail_destaged: 0,
            undestaged_bytes: 0,
            segments: Vec::new(),
            step: DestageStep::Idle,
            dirty: false,
            changed: true,
            offline: None,
            carry: None,
            folder_known: false,
            last_append_ms: -1,
            hints: VecDeque::new(),
            records_in: 0,
            bytes_in: 0,
            bytes_out: 0,
            deleted: false,
        }
    }

    /// As a checkpoint names it, and nothing that it knows of it yet.
    pub(crate) fn named(state: &PartitionState, data_dir: &Path) -> Partition {
        Partition::new(
            PartitionId(state.id),
            state.topic.as_str().into(),
            TopicId(state.topic_id),
            state.index,
            data_dir,
            Arc::default(),
            LeaderEpoch(0),
        )
    }

    /// Puts back what the checkpoint knew of it. Its segments are named from `first_uid` on.
    /// `is_clean`: an orderly stop wrote it, and the indexes beside its active segment.
    pub(crate) fn restore(&mut self, state: &PartitionState, first_uid: u64, is_clean: bool) {
        self.log_start = Offset(state.log_start);
        self.destaged = Offset(state.next_offset);
        self.log_end = Offset(state.next_offset);
        self.last_append_ms = state.max_timestamp_ms;
        self.epochs =
            EpochCache::from_entries(state.epochs.iter().map(|(e, s)| (LeaderEpoch(*e), Offset(*s))));
        self.producers = ProducerTable::restore(&state.producers);
        self.segments = state
            .segments
            .iter()
            .zip(first_uid..)
            .map(|(s, uid)| Segment {
                bytes: s.bytes,
                max_timestamp_ms: s.max_timestamp_ms,
                offset_of_max: Offset(s.offset_of_max_timestamp),
                sealed: s.sealed,
                index: None,
                index_left: (is_clean && !s.sealed && s.index_entries > 0)
                    .then_some((s.index_entries, s.time_entries)),
                tail_page_known: false,
                ..Segment::fresh(Offset(s.base_offset), uid, s.created_ms, 0)
            })
            .collect();
    }

    /// Where the segment's index comes from, if it is not in memory.
    pub(crate) fn index_source(&self, segment: &Segment) -> Option<IndexSource> {
        segment.index.is_none().then(|| IndexSource {
            dir: self.dir.clone(),
            base: segment.base,
            bytes: segment.bytes,
            interval_bytes: self.config.index_interval_bytes as u32,
            sealed: segment.sealed,
            left: segment.index_left,
        })
    }

    /// The epochs, as Kafka has them: a leadership begins where the log ends, also when nothing was written under it yet.
    pub fn epochs_till_now(&self) -> EpochCache {
        let mut epochs = self.epochs.clone();
        if epochs.latest().is_none_or(|(latest, _)| latest < self.leader_epoch) {
            epochs.assign(self.leader_epoch, self.log_end);
        }
        epochs
    }

    /// A batch with this header lies in the open group, at the end of the log, with `stored_ms` as its largest timestamp.
    pub fn took(&mut self, header: &BatchHeader, stored_ms: i64, append_ms: i64, now_ns: u64) {
        let base = self.log_end;
        if self.epochs.latest().is_none_or(|(latest, _)| latest < self.leader_epoch) {
            self.epochs.assign(self.leader_epoch, base);
        }
        if header.has_producer_id() {
            self.producers.apply(header, base, stored_ms, append_ms, now_ns);
        }
        self.log_end = base.plus(i64::from(header.last_offset_delta) + 1);
        self.last_append_ms = self.last_append_ms.max(append_ms);
        self.records_in += header.record_count as u64;
        self.bytes_in += header.size_bytes as u64;
    }

    /// Offset of the first batch the tail holds; reads below it are cold.
    pub fn tail_start(&self) -> Offset {
        self.tail.front().map_or(self.log_end, |e| e.base)
    }

    pub fn check_watermarks(&self) {
        assert!(self.log_start <= self.high_watermark, "log start beyond the high watermark");
        assert!(self.durable <= self.log_end, "durable beyond the log end");
        assert!(self.high_watermark <= self.log_end, "high watermark beyond the log end");
        if self.config.is_durable() {
            assert!(self.high_watermark <= self.durable, "readers would see what is not on disk");
        }
    }

    /// Index in `tail` of the batch that holds `offset`, or of the first one after it.
    pub fn tail_at(&self, offset: Offset) -> usize {
        self.tail.partition_point(|e| e.last < offset)
    }

    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum::<u64>() + self.undestaged_bytes
    }

    /// The segment whose range holds `offset`: the last with a base at or below it.
    pub fn segment_at(&self, offset: Offset) -> Option<usize> {
        self.segments.partition_point(|s| s.base <= offset).checked_sub(1)
    }

    /// The active segment holds bytes by the checkpoint, and has no file.
    pub fn misses_active(&self, fs: &dyn Fs) -> bool {
        let active = self.segments.last().filter(|s| !s.sealed && s.bytes > 0);
        active.is_some_and(|s| s.open.is_none() && !fs.exists(&segment_path(&self.dir, s.base, "log")))
    }

    /// Takes out the segments that retention has unlinked, or would have: its entry is durable. The active one is among
    /// them when it was sealed and retired after the newest checkpoint, which still names it as active; its file is
    /// asked for only where the log start is past all of it.
    pub fn drop_below_start(&mut self, fs: &dyn Fs) -> Vec<Segment> {
        let keep = self.segments.partition_point(|s| s.base <= self.log_start).saturating_sub(1);
        let mut gone: Vec<Segment> = self.segments.drain(..keep).collect();
        if self.destaged <= self.log_start && self.misses_active(fs) {
            gone.append(&mut self.segments);
        }
        gone
    }

    /// Remembers where a sequential reader continues.
    pub fn note_hint(&mut self, offset: Offset, uid: u64, position: u64) {
        const HINTS_MAX: usize = 16;
        self.hints.retain(|h| h.0 != offset);
        if self.hints.len() >= HINTS_MAX {
            self.hints.pop_front();
        }
        self.hints.push_back((offset, uid, position));
    }
}

/// Why a partition whose active segment is not there is offline.
pub(crate) const MISSES_ACTIVE: &str = "its active segment is missing";

/// The sentence for a segment's file that is shorter than what a checkpoint says to be in it.
pub(crate) fn is_shorter(path: &Path, file_bytes: u64, bytes: u64) -> Option<String> {
    (file_bytes < bytes)
        .then(|| format!("{} holds {file_bytes} bytes, the checkpoint says {bytes}", path.display()))
}

/// `DATA/topics/NAME-N`.
pub fn partition_dir(data_dir: &Path, topic: &str, index: i32) -> PathBuf {
    data_dir.join("topics").join(format!("{topic}-{index}"))
}

/// A segment and its indexes.
pub fn segment_files(dir: &Path, base: Offset) -> impl Iterator<Item = PathBuf> {
    ["log", "index", "timeindex"].map(|extension| segment_path(dir, base, extension)).into_iter()
}

/// `…/00000000000000000000.log` and its siblings.
pub fn segment_path(dir: &Path, base: Offset, extension: &str) -> PathBuf {
    dir.join(format!("{:020}.{extension}", base.0))
}
