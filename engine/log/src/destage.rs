//! Destaging: durable batches move from the tail ring into segments, in large aligned writes, in the background.
//!
//! A partition is destaged when a write's worth of it is waiting, or when memory or the core log run short, oldest
//! groups first. One write per partition at a time, a few per core. Creating, allocating and sealing files is the file
//! thread's work; the ring only ever writes inside allocated space.

use crate::checkpointing::{DiskError, sync_names};
use crate::compaction::CHECKPOINTS_UNTIL_SETTLED;
use crate::folder::{self, FolderNames};
use crate::index::SegmentIndex;
use crate::jobs::{JobDone, JobFor};
use crate::log::{Log, LogEvent};
use crate::open_files::{HeldFile, JobFile, is_shortage};
use crate::partition::{DestageStep, OpenFile, Partition, Segment, is_shorter, segment_path};
use crate::segment::IndexSource;
use crate::token::{self, token};
use ringmill_reactor::buffer::CLASSES_BYTES;
use ringmill_reactor::{Backend, Errno, Flush, Fs, Op, OpenMode, is_full};
use ringmill_record::BatchHeader;
use ringmill_types::limits::{DESTAGE_BYTES, PAGE_BYTES};
use ringmill_types::{GroupSeq, Offset, PartitionId, TopicId};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;

/// Room reserved ahead for all partitions of a core together.
const ALLOCATE_TOTAL_BYTES: u64 = 4 << 30;
const ALLOCATE_MIN_BYTES: u64 = 256 << 10;
const ALLOCATE_MAX_BYTES: u64 = 64 << 20;

/// What waits of a partition is moved in about so many writes, as far as their size has bounds.
const BACKLOG_WRITES: u64 = 4;

/// A turn that copied as much into staging starts no further write: one large copy holds a core for half a millisecond.
const COPIED_BYTES_MAX: usize = 2 << 20;

/// A full disk is tried again this often.
const NO_SPACE_RETRY_NS: u64 = 1_000_000_000;

/// A folder name that a deleted partition holds is asked for this often.
const NAME_RETRY_NS: u64 = 2_000_000;

#[derive(Default)]
pub(crate) struct DestageState {
    pub queue: VecDeque<u32>,
    writes: HashMap<u32, DestageWrite>,
    pub retry_ns: u64,
    /// Who waits for the name of a folder, and when to ask again; `None`: nobody does.
    wait_for_name: Vec<u32>,
    pub names_ns: Option<u64>,
    pub remove_dirs: VecDeque<u32>,
    preparing: usize,
    /// This turn.
    copied_bytes: usize,
}

impl DestageState {
    pub fn in_flight(&self) -> usize {
        self.writes.len()
    }

    /// A write into a segment of that partition is under way.
    pub fn writes_to(&self, slot: u32) -> bool {
        self.writes.contains_key(&slot)
    }

    pub fn is_idle(&self) -> bool {
        self.writes.is_empty() && self.queue.is_empty() && self.preparing == 0 && self.remove_dirs.is_empty()
    }
}

/// One write on its way, and what it will have moved.
struct DestageWrite {
    batches: usize,
    bytes: u64,
    tail_page: Vec<u8>,
}

/// What the file thread made ready.
pub(crate) struct Prepared {
    file: HeldFile,
    allocated_bytes: u64,
    tail_page: Option<Vec<u8>>,
    index: Option<SegmentIndex>,
    made: bool,
}

/// Order for the file thread: make the segment file ready for writes up to `need_bytes`.
struct Prepare {
    dir: PathBuf,
    path: PathBuf,
    /// Make the folder this topic's own first, for the partition of this id.
    settle: Option<(TopicId, PartitionId)>,
    /// The checkpoint knows of bytes in the folder.
    holds_bytes: bool,
    base: Offset,
    /// Bytes of it that count.
    bytes: u64,
    need_bytes: u64,
    want_bytes: u64,
    file: JobFile,
    need_tail_page: bool,
    index: Option<IndexSource>,
    clean_strays: bool,
    /// Segments below it were retired.
    retired_below: Offset,
}

impl Log {
    pub(crate) fn poll_destage<B: Backend>(&mut self, io: &mut B) {
        if self.storage_full && io.now_ns() >= self.destage.retry_ns {
            self.destage.retry_ns = io.now_ns() + NO_SPACE_RETRY_NS;
            self.retry_after_full();
        }
        self.retry_files(io);
        if self.destage.names_ns.is_some_and(|at| io.now_ns() >= at) {
            self.destage.names_ns = None;
            for slot in std::mem::take(&mut self.destage.wait_for_name) {
                // It may have been deleted since, and the slot given to another.
                if self.parts.get(slot).is_some_and(|p| p.step == DestageStep::NameTaken) {
                    self.queue(slot);
                }
            }
        }
        if self.under_pressure() {
            self.queue_oldest();
        }
        let mut tries = self.destage.queue.len();
        self.destage.copied_bytes = 0;
        while tries > 0
            && self.destage.in_flight() + self.destage.preparing < self.options.destage_depth
            && self.destage.copied_bytes < COPIED_BYTES_MAX
        {
            tries -= 1;
            let Some(slot) = self.destage.queue.pop_front() else { break };
            self.start_destage(io, slot);
        }
        // Once each: a folder that is being written to goes back to the queue.
        for _ in 0..self.destage.remove_dirs.len() {
            let Some(slot) = self.destage.remove_dirs.pop_front() else { break };
            self.remove_folder(io, slot);
        }
    }

    fn destage_bytes_max(&self) -> u64 {
        write_bytes_max(self.options.tail_bytes, self.options.destage_depth)
    }

    fn under_pressure(&self) -> bool {
        self.stopping
            || self.core_log.is_short_of_memory()
            || self.held_bytes > self.options.tail_bytes / 4
            || self.core_log.used_bytes() > self.core_log.capacity_bytes() * 3 / 8
    }

    pub(crate) fn requeue_destage(&mut self, slot: u32) {
        if self.parts.get(slot).is_some_and(|p| p.step == DestageStep::Idle) {
            self.queue(slot);
        }
    }

    /// Queues the partitions of the oldest groups that hold anything not in segments. Bounded: a few groups a turn are
    /// enough to keep the writes busy, and a long queue of groups must not cost every turn a walk over it.
    pub(crate) fn queue_oldest(&mut self) {
        const GROUPS_MAX: u64 = 64;
        let wanted = self.options.destage_depth * 2;
        let Some(front) = self.groups.front().map(|g| g.sequence.0) else { return };
        let first = (self.destaged_groups.0 + 1).max(front);
        // A stop looks at all: what a full disk holds back must not hide the rest from it.
        let many = if self.stopping { u64::MAX } else { GROUPS_MAX };
        let last = self.durable_seen.0.min(first.saturating_add(many));
        let mut offline = Vec::new();
        for sequence in first..=last {
            if self.destage.queue.len() >= wanted {
                break;
            }
            let Some(group) = self.groups.get((sequence - front) as usize) else { break };
            if group.undestaged == 0 {
                continue;
            }
            for item in &group.items {
                let Some(part) = self.parts.get_mut(item.slot) else { continue };
                if part.offline.is_some() && part.carry.is_none() {
                    offline.push(item.slot);
                }
                if part.step == DestageStep::Idle
                    && part.destaged <= item.base
                    && part.offline.is_none()
                    && !part.deleted
                {
                    part.step = DestageStep::Queued;
                    self.destage.queue.push_back(item.slot);
                }
            }
        }
        for slot in offline {
            self.begin_carry(slot);
        }
    }

    pub(crate) fn queue(&mut self, slot: u32) {
        if let Some(part) = self.parts.get_mut(slot) {
            part.step = DestageStep::Queued;
            self.destage.queue.push_back(slot);
        }
    }

    fn queue_no_space(&mut self) {
        for slot in self.parts.slots() {
            if self.parts.get(slot).is_some_and(|p| p.step == DestageStep::NoSpace) {
                self.queue(slot);
            }
        }
    }

    fn retry_after_full(&mut self) {
        self.queue_no_space();
        // Whoever met the full disk was deleted, or has nothing more to write: the next to prepare a segment finds out.
        if self.destage.queue.is_empty() && self.destage.preparing == 0 && self.destage.writes.is_empty() {
            self.storage_full = false;
        }
    }

    /// The next step of one partition: prepare its segment, seal it, or write.
    fn start_destage<B: Backend>(&mut self, io: &mut B, slot: u32) {
        let (partitions, wall_ms) = (self.by_id.len() as u64, io.wall_ms());
        let (uid, write_bytes_max) = (self.serial(), self.destage_bytes_max());
        let Some(part) = self.parts.get_mut(slot) else { return };
        part.step = DestageStep::Idle;
        if part.deleted || part.offline.is_some() {
            return;
        }
        let Some(first) = part.tail.get(part.tail_destaged).filter(|e| e.last < part.durable) else { return };
        let (first_base, first_last, first_len) = (first.base, first.last, first.buf.len() as u64);
        assert_eq!(first_base, part.destaged, "destaging has no gap");
        if part
            .segments
            .last()
            .is_some_and(|s| !s.sealed && must_roll(part, s, first_last, first_len, wall_ms))
        {
            self.seal_active(io, slot);
            return;
        }
        let file = match part.segments.last().filter(|s| !s.sealed).and_then(|s| s.open.as_ref()) {
            Some(open) => JobFile::Open(open.file.clone()),
            None => match self.place_for_file(io) {
                Some(place) => JobFile::Place(place),
                None => return self.write_waits(io, slot),
            },
        };
        let Some(part) = self.parts.get_mut(slot) else { return };
        if part.segments.last().is_none_or(|s| s.sealed) {
            part.segments.push(Segment::fresh(
                first_base,
                uid,
                wall_ms,
                part.config.index_interval_bytes as u32,
            ));
            part.changed = true;
        }
        let planned = planned_bytes(part, write_bytes_max);
        let Some(segment) = part.segments.last() else { return };
        let need = (segment.bytes + planned).next_multiple_of(PAGE_BYTES as u64);
        let ready = segment.allocated_bytes >= need && segment.tail_page_known && segment.index.is_some();
        if !file.is_open() || !ready {
            self.prepare(io, slot, file, need, partitions);
            return;
        }
        self.write_run(io, slot);
    }

    fn prepare<B: Backend>(
        &mut self,
        io: &mut B,
        slot: u32,
        file: JobFile,
        need_bytes: u64,
        partitions: u64,
    ) {
        let serial = self.serial();
        let Some(part) = self.parts.get_mut(slot) else { return };
        let Some(segment) = part.segments.last() else { return };
        let step = ahead_bytes(segment.bytes, partitions);
        let limit = part.config.segment_bytes.next_multiple_of(PAGE_BYTES as u64).max(need_bytes);
        let order = Prepare {
            path: segment_path(&part.dir, segment.base, "log"),
            dir: part.dir.clone(),
            settle: (!part.folder_known).then_some((part.topic_id, part.id)),
            holds_bytes: segment.bytes > 0 || part.segments.len() > 1,
            base: segment.base,
            bytes: segment.bytes,
            need_bytes,
            want_bytes: (need_bytes + step).next_multiple_of(PAGE_BYTES as u64).min(limit),
            file,
            need_tail_page: !segment.tail_page_known,
            // Also of a segment without a byte, as a checkpoint may leave it: without an index it would be prepared for ever.
            index: part.index_source(segment),
            clean_strays: !part.folder_known,
            retired_below: part.segments.first().map_or(Offset::ZERO, |first| first.base.min(part.log_start)),
        };
        part.step = DestageStep::Preparing;
        self.destage.preparing += 1;
        self.jobs.insert(serial, JobFor::Prepare(slot));
        let names = self.options.folder_names.clone();
        io.push(
            Op::Run { job: Box::new(move |fs| Box::new(JobDone::Prepared(run_prepare(fs, &names, &order)))) },
            token(token::JOB, serial),
        );
    }

    pub(crate) fn destage_prepared<B: Backend>(
        &mut self,
        io: &mut B,
        slot: u32,
        result: io::Result<Option<Prepared>>,
    ) {
        self.destage.preparing -= 1;
        let turn = self.turn;
        let Some(part) = self.parts.get_mut(slot) else { return };
        part.step = DestageStep::Idle;
        match result {
            Ok(None) => {
                part.step = DestageStep::NameTaken;
                self.destage.wait_for_name.push(slot);
                self.destage.names_ns = Some(io.now_ns() + NAME_RETRY_NS);
            }
            Ok(Some(prepared)) => {
                part.folder_known = true;
                if prepared.made {
                    self.checkpoint.new_dirs.push(part.dir.clone());
                }
                if let Some(segment) = part.segments.last_mut() {
                    segment.allocated_bytes = prepared.allocated_bytes;
                    if prepared.index.is_some() {
                        segment.index = prepared.index;
                    }
                    if let Some(page) = prepared.tail_page {
                        segment.tail_page = page;
                        segment.tail_page_known = true;
                    }
                    if segment.open.is_none() {
                        segment.open = Some(OpenFile {
                            id: io.attach_file(prepared.file.handle.clone()),
                            file: prepared.file,
                            used_turn: turn,
                        });
                    }
                }
                self.got_a_file();
                if self.storage_full {
                    tracing::info!("disk space is back: produce goes on");
                    self.storage_full = false;
                    // Others met the full disk too, and nobody else would try them again.
                    self.queue_no_space();
                }
                self.start_destage(io, slot);
            }
            Err(error) if is_full(&error) => {
                self.destage.retry_ns = io.now_ns() + NO_SPACE_RETRY_NS;
                self.no_space(slot);
            }
            Err(error) if is_shortage(&error) => {
                self.write_waits(io, slot);
                self.ran_out_of_files(io, &error);
            }
            Err(error) => self.take_offline(slot, "preparing its segment failed", &error),
        }
    }

    fn no_space(&mut self, slot: u32) {
        let Some(part) = self.parts.get_mut(slot) else { return };
        part.step = DestageStep::NoSpace;
        if !self.storage_full {
            tracing::error!(
                folder = %part.dir.display(),
                "the disk is full: produce is answered with KAFKA_STORAGE_ERROR, reads go on; free space, lower retention or delete topics"
            );
            self.storage_full = true;
        }
    }

    pub(crate) fn take_offline(&mut self, slot: u32, what: &'static str, error: &io::Error) {
        let Some(part) = self.parts.get_mut(slot) else { return };
        if part.offline.is_none() {
            tracing::error!(partition = %part.dir.display(), %error, "{what}: the partition is offline, the broker goes on");
            part.offline = Some(what);
        }
        part.step = DestageStep::Idle;
    }

    /// Copies a run of durable batches into one aligned buffer and hands it to the disk.
    fn write_run<B: Backend>(&mut self, io: &mut B, slot: u32) {
        let (turn, write_bytes_max) = (self.turn, self.destage_bytes_max());
        let Some(part) = self.parts.get_mut(slot) else { return };
        let before = part.segments.last().map_or(0, |segment| segment.tail_page.len());
        // Where there is no room for a large write, a small one makes some, and one of a batch if need be.
        let staging = [write_bytes_max, DESTAGE_BYTES as u64, 0].into_iter().find_map(|max| {
            let planned = planned_bytes(part, max) as usize;
            let staging = io.pool().take((before + planned).next_multiple_of(PAGE_BYTES))?;
            Some((planned, staging))
        });
        let Some((planned, mut staging)) = staging else {
            part.step = DestageStep::Queued;
            self.destage.queue.push_back(slot);
            self.give_up_memory();
            return;
        };
        let Some(segment) = part.segments.last_mut() else { return };
        let start = segment.bytes - before as u64;
        self.destage.copied_bytes += planned;
        staging.extend(&segment.tail_page);
        let mut batches = 0;
        let mut bytes = 0u64;
        let index = segment
            .index
            .get_or_insert_with(|| SegmentIndex::new(segment.base, part.config.index_interval_bytes as u32));
        for entry in part.tail.iter().skip(part.tail_destaged).take_while(|e| e.last < part.durable) {
            if batches > 0 && bytes as usize + entry.buf.len() > planned {
                break;
            }
            if let Some(header) = BatchHeader::parse(&entry.buf) {
                index.append(&header, (segment.bytes + bytes) as u32);
            }
            if entry.max_timestamp_ms > segment.max_timestamp_ms {
                segment.max_timestamp_ms = entry.max_timestamp_ms;
                segment.offset_of_max = entry.last;
            }
            staging.extend(&entry.buf);
            bytes += entry.buf.len() as u64;
            batches += 1;
        }
        let keep = staging.len() % PAGE_BYTES;
        let tail_page = staging.get(staging.len() - keep..).unwrap_or_default().to_vec();
        let padded = staging.len().next_multiple_of(PAGE_BYTES);
        if let Some(padding) = staging.as_mut_full().get_mut(segment.tail_page.len() + bytes as usize..padded)
        {
            padding.fill(0);
        }
        staging.set_len(padded);
        let Some(open) = segment.open.as_mut() else { return };
        open.used_turn = turn;
        part.step = DestageStep::Writing;
        self.metrics.destage_writes += 1;
        self.metrics.destage_bytes += padded as u64;
        self.destage.writes.insert(slot, DestageWrite { batches, bytes, tail_page });
        io.push(
            Op::Write { file: open.id, buf: staging.freeze(), offset: start, flush: Flush::None },
            token(token::DESTAGE, u64::from(slot)),
        );
    }

    pub(crate) fn destage_written(&mut self, slot: u64, result: Result<u32, Errno>) {
        let slot = slot as u32;
        let Some(write) = self.destage.writes.remove(&slot) else { return };
        if result.is_err_and(Errno::is_full) {
            // A filesystem that copies on write may need space for what is allocated. The index names the batches of this
            // write already: it is made anew when it is tried again.
            let segment = self.parts.get_mut(slot).and_then(|p| p.segments.last_mut());
            if let Some(segment) = segment {
                segment.index = None;
            }
            self.no_space(slot);
            return;
        }
        if let Err(errno) = result {
            self.take_offline(slot, "writing its segment failed", &io::Error::from_raw_os_error(errno.0));
            return;
        }
        let Some(part) = self.parts.get_mut(slot) else { return };
        part.step = DestageStep::Idle;
        // Here, not when it was handed over: a checkpoint between the two syncs too early for this write.
        part.dirty = true;
        if part.deleted && part.tail.is_empty() {
            return;
        }
        let mut last_uid = 0;
        if let Some(segment) = part.segments.last_mut() {
            segment.bytes += write.bytes;
            segment.tail_page = write.tail_page;
            last_uid = segment.uid;
        }
        let moved: Vec<(GroupSeq, Offset)> = part
            .tail
            .iter()
            .skip(part.tail_destaged)
            .take(write.batches)
            .map(|e| (e.group, e.last))
            .collect();
        part.tail_destaged += moved.len();
        part.undestaged_bytes -= write.bytes;
        self.undestaged_bytes -= write.bytes;
        part.destaged = moved.last().map_or(part.destaged, |(_, last)| last.plus(1));
        let more = part.undestaged_bytes >= DESTAGE_BYTES as u64;
        self.checkpoint.note_changed(slot);
        self.cache.grew(last_uid);
        for (group, _) in moved {
            self.group_destaged(group, 1);
        }
        self.advance_destaged();
        if more {
            self.requeue_destage(slot);
        }
    }

    /// Hands the active segment to the file thread: trim, write its indexes, sync.
    pub(crate) fn seal_active<B: Backend>(&mut self, io: &mut B, slot: u32) {
        let serial = self.serial();
        let Some(part) = self.parts.get_mut(slot) else { return };
        let dir = part.dir.clone();
        let Some(segment) = part.segments.last_mut() else { return };
        let order = Trim::of(&dir, segment);
        part.step = DestageStep::Preparing;
        self.destage.preparing += 1;
        self.jobs.insert(serial, JobFor::Seal(slot));
        io.push(
            Op::Run { job: Box::new(move |fs| Box::new(JobDone::Sealed(order.run(fs)))) },
            token(token::JOB, serial),
        );
    }

    pub(crate) fn segment_sealed<B: Backend>(
        &mut self,
        io: &mut B,
        slot: u32,
        result: Result<(), DiskError>,
    ) {
        self.destage.preparing -= 1;
        let settled_at = self.metrics.checkpoints + CHECKPOINTS_UNTIL_SETTLED;
        let Some(part) = self.parts.get_mut(slot) else { return };
        part.step = DestageStep::Idle;
        match result {
            Ok(()) => {
                if let Some(segment) = part.segments.last_mut() {
                    segment.sealed = true;
                    segment.settled_at = settled_at;
                    segment.index = None;
                    segment.tail_page = Vec::new();
                    segment.allocated_bytes = segment.bytes;
                }
                self.checkpoint.note_changed(slot);
                self.requeue_destage(slot);
            }
            Err(DiskError::Other(error)) if is_full(&error) => self.no_space(slot),
            Err(DiskError::Other(error)) if is_shortage(&error) => {
                self.write_waits(io, slot);
                self.ran_out_of_files(io, &error);
            }
            Err(DiskError::Other(error)) => self.take_offline(slot, "sealing its segment failed", &error),
            // The next sync would say that all is well, and a checkpoint would believe it.
            Err(DiskError::LostWrites(error)) => self.lost_writes(&error),
        }
    }

    fn remove_folder<B: Backend>(&mut self, io: &mut B, slot: u32) {
        let serial = self.serial();
        let Some(part) = self.parts.get_mut(slot) else { return };
        if matches!(part.step, DestageStep::Preparing | DestageStep::Writing) {
            self.destage.remove_dirs.push_back(slot);
            return;
        }
        // Here ends what memory knows of it; the job has what it needs.
        let dir = part.dir.clone();
        let (topic, id, names) = (part.topic_id, part.id, self.options.folder_names.clone());
        for segment in part.segments.drain(..) {
            let waiting = self.cache.forget(segment.uid);
            self.events.extend(waiting.into_iter().map(LogEvent::Block));
            if let Some(open) = segment.open {
                io.detach_file(open.id);
            }
        }
        self.parts.forget(slot);
        self.jobs.insert(serial, JobFor::Remove);
        io.push(
            Op::Run {
                job: Box::new(move |fs| {
                    Box::new(JobDone::Removed(folder::remove(fs, &names, &dir, topic, id)))
                }),
            },
            token(token::JOB, serial),
        );
    }
}

impl Segment {
    pub(crate) fn fresh(base: Offset, uid: u64, created_ms: i64, interval_bytes: u32) -> Segment {
        Segment {
            base,
            bytes: 0,
            max_timestamp_ms: -1,
            offset_of_max: Offset(-1),
            created_ms,
            sealed: false,
            settled_at: 0,
            uid,
            allocated_bytes: 0,
            open: None,
            index: Some(SegmentIndex::new(base, interval_bytes)),
            index_left: None,
            tail_page: Vec::new(),
            tail_page_known: true,
        }
    }
}

/// Room that a segment of so many bytes is given ahead, where there is any, beside those of the other partitions.
pub(crate) fn ahead_bytes(segment_bytes: u64, partitions: u64) -> u64 {
    let ceiling = (ALLOCATE_TOTAL_BYTES / partitions.max(1)).clamp(ALLOCATE_MIN_BYTES, ALLOCATE_MAX_BYTES);
    segment_bytes.max(ALLOCATE_MIN_BYTES).min(ceiling)
}

/// One write at most: with the page before it, it fills a pooled buffer, and the buffers of all that are under way at one time
/// take an eighth of the tail ring's memory.
fn write_bytes_max(tail_bytes: u64, depth: usize) -> u64 {
    let share = tail_bytes / 8 / depth.max(1) as u64;
    let class =
        CLASSES_BYTES.iter().rev().map(|class| *class as u64).find(|class| *class <= share).unwrap_or(0);
    class.saturating_sub(PAGE_BYTES as u64).max(DESTAGE_BYTES as u64)
}

/// A write's worth of a partition of which so much waits.
fn write_bytes(waiting_bytes: u64, max: u64) -> u64 {
    (waiting_bytes / BACKLOG_WRITES).max(DESTAGE_BYTES as u64).min(max)
}

/// Bytes the next write moves: at least one batch, whole batches up to a write's worth or the segment's end. Writes grow with
/// what waits: a partition has one under way at a time, and small ones fall behind a fast producer.
fn planned_bytes(part: &Partition, write_bytes_max: u64) -> u64 {
    let used = part.segments.last().map_or(0, |s| if s.sealed { 0 } else { s.bytes });
    let wanted = write_bytes(part.undestaged_bytes, write_bytes_max);
    let mut bytes = 0;
    for entry in part.tail.iter().skip(part.tail_destaged).take_while(|e| e.last < part.durable) {
        let len = entry.buf.len() as u64;
        if bytes > 0 && (bytes + len > wanted || used + bytes + len > part.config.segment_bytes) {
            break;
        }
        bytes += len;
    }
    bytes
}

fn must_roll(part: &Partition, segment: &Segment, last: Offset, len: u64, wall_ms: i64) -> bool {
    segment.bytes > 0
        && (segment.bytes + len > part.config.segment_bytes
            || last.0 - segment.base.0 > i64::from(i32::MAX)
            || segment.index.as_ref().is_some_and(|i| i.bytes() >= part.config.segment_index_bytes as usize)
            || wall_ms.saturating_sub(segment.created_ms) > part.config.segment_ms
            // What is in the active segment is not compacted.
            || part.config.compacted
                && wall_ms.saturating_sub(segment.created_ms) > part.config.max_compaction_lag_ms)
}

/// `None` while the folder's name is taken.
fn run_prepare(fs: &dyn Fs, names: &FolderNames, order: &Prepare) -> io::Result<Option<Prepared>> {
    // A file may be there although no sync made its name durable: the life that made it was killed before its checkpoint.
    let fresh = !order.file.is_open();
    let made = fresh && (order.bytes == 0 || !fs.exists(&order.path));
    if let Some((topic, id)) = order.settle.filter(|_| fresh)
        && !folder::settle(fs, names, &order.dir, topic, id, order.holds_bytes)?
    {
        return Ok(None);
    }
    let file = order.file.get(|| fs.open(&order.path, OpenMode::CreateDirect))?;
    let handle = &file.handle;
    // Also where a reader has opened the segment before.
    if order.clean_strays {
        remove_strays(fs, order)?;
    }
    let mut size = fs.len(handle)?;
    if order.bytes == 0 && fresh && size > 0 {
        // Left over from before a crash, never part of a checkpoint: its batches come from the core log again.
        fs.set_len(handle, 0)?;
        size = 0;
    }
    if let Some(shorter) = is_shorter(&order.path, size, order.bytes) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, shorter));
    }
    // Allocate from the start: a file that an earlier life left behind may have holes or a short extent.
    if size < order.want_bytes
        && let Err(error) = fs.allocate(handle, 0, order.want_bytes)
    {
        if !is_full(&error) {
            return Err(error);
        }
        fs.allocate(handle, 0, order.need_bytes)?;
    }
    let tail_page = if order.need_tail_page {
        let keep = order.bytes % PAGE_BYTES as u64;
        let mut page = vec![0; keep as usize];
        if fs.read_at(handle, &mut page, order.bytes - keep)? != page.len() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Some(page)
    } else {
        None
    };
    let index = order.index.as_ref().map(|source| source.load(fs, handle)).transpose()?;
    Ok(Some(Prepared { allocated_bytes: fs.len(handle)?, file, tail_page, index, made }))
}

/// Segments that no checkpoint names: beyond the active one, made after it, before a crash; below the first one, retired,
/// when a power cut took back that they were unlinked.
fn remove_strays(fs: &dyn Fs, order: &Prepare) -> io::Result<()> {
    for entry in fs.list(&order.dir)? {
        let stray = entry.name.split_once('.').is_some_and(|(stem, extension)| {
            matches!(extension, "log" | "index" | "timeindex")
                && stem.parse::<i64>().is_ok_and(|base| base > order.base.0 || base < order.retired_below.0)
        });
        if stray {
            fs.remove_file(&order.dir.join(entry.name))?;
        }
    }
    Ok(())
}

/// Order for the file thread: a segment's file ends where its batches do, and its indexes are beside it.
pub(crate) struct Trim {
    dir: PathBuf,
    base: Offset,
    bytes: u64,
    file: Option<HeldFile>,
    index: Option<(Vec<u8>, Vec<u8>)>,
}

impl Trim {
    pub fn of(dir: &std::path::Path, segment: &mut Segment) -> Trim {
        let index = segment.index.as_mut().map(|i| {
            i.finish(segment.max_timestamp_ms, segment.offset_of_max);
            (i.offset_bytes(), i.time_bytes())
        });
        Trim {
            dir: dir.to_path_buf(),
            base: segment.base,
            bytes: segment.bytes,
            file: segment.open.as_ref().map(|o| o.file.clone()),
            index,
        }
    }

    pub fn run(&self, fs: &dyn Fs) -> Result<(), DiskError> {
        let handle = match &self.file {
            Some(file) => file.handle.clone(),
            None => fs.open(&segment_path(&self.dir, self.base, "log"), OpenMode::Write)?,
        };
        if fs.len(&handle)? > self.bytes {
            fs.set_len(&handle, self.bytes)?;
        }
        fs.sync_data(&handle).map_err(DiskError::LostWrites)?;
        if let Some((offsets, times)) = &self.index {
            for (extension, bytes) in [("index", offsets), ("timeindex", times)] {
                let file = fs.open(&segment_path(&self.dir, self.base, extension), OpenMode::Create)?;
                fs.set_len(&file, 0)?;
                fs.write_at(&file, bytes, 0)?;
                fs.sync_data(&file)?;
            }
        }
        Ok(sync_names(fs, [&self.dir])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_write_grows_with_what_waits_as_far_as_memory_allows() {
        let roomy = write_bytes_max(256 * MIB, 4);
        assert_eq!(
            [1, 2, 8, 12, 16, 200].map(|waiting| write_bytes(waiting * MIB, roomy)),
            [MIB / 2, MIB / 2, 2 * MIB, 3 * MIB, 4 * MIB - PAGE_BYTES as u64, 4 * MIB - PAGE_BYTES as u64]
        );
        // An eighth of 64 MiB for four writes; no less than a write's worth, however little there is.
        assert_eq!(write_bytes(200 * MIB, write_bytes_max(64 * MIB, 4)), MIB - PAGE_BYTES as u64);
        assert_eq!(write_bytes(200 * MIB, write_bytes_max(4 * MIB, 4)), MIB / 2);
    }
}
