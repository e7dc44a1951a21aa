//! The replay of one core's log: the chain of groups is followed from the newest checkpoint, applied to the partitions,
//! and judged where it ends. Then the new life begins.

use super::RecoveryReport;
use super::error::{RecoveryError, at};
use super::files::{LogFile, Window};
use super::restore::Retired;
use crate::checkpointing::{CheckpointState, Store, capture};
use crate::core_log::{CoreLog, GroupPlace, Item, Resume, RingFile, Sealed};
use crate::format::checkpoint::{self, Checkpoint, PartitionState};
use crate::format::given_up::Gap;
use crate::format::group::{
    DecodedGroup, EntryKind, GROUP_HEADER_BYTES, GroupError, GroupHeader, decode_group, salvage_group,
};
use crate::inline::Inline;
use crate::inspect::{CutOff, Decisions, Known, exchanged_files, first_elsewhere, losers_of, walk_chain};
use crate::log::Log;
use crate::options::LogOptions;
use crate::partition::segment_files;
use ringmill_reactor::{AppendBuf, Backend, FileHandle, FileId};
use ringmill_record::BatchHeader;
use ringmill_types::limits::{PAGE_BYTES, TAIL_CHUNK_BYTES};
use ringmill_types::{GroupSeq, Offset, PartitionId, PartitionSpec, TimestampType, TopicSpec};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;

/// State of one replay.
pub(super) struct Replay {
    log: Log,
    files: Vec<LogFile>,
    window: Window,
    chunk: Option<AppendBuf>,
    current: usize,
    offset: u64,
    next_sequence: u64,
    prev_header_crc: u32,
    lives: Vec<(u128, u64)>,
    durable_mark: u64,
    given_up: Vec<Gap>,
    decisions: Decisions,
    restored: HashMap<u32, ()>,
    replayed: HashMap<u32, ()>,
    doomed: Vec<u32>,
    /// Whose active segment is not there although the checkpoint names it, and where its batches end: retention has
    /// unlinked it, or the log start that replay finds says otherwise.
    retired: Vec<Retired>,
    looked_for_active: bool,
    /// Segment files that destaging attached on the way.
    destage_files: HashMap<FileId, FileHandle>,
    report: RecoveryReport,
}

impl Replay {
    pub fn new<B: Backend>(
        io: &mut B,
        options: LogOptions,
        files: Vec<LogFile>,
        start: &Checkpoint,
        topics: &[(&TopicSpec, &PartitionSpec)],
        given_up: Vec<Gap>,
        decisions: Decisions,
    ) -> Replay {
        let resume = Resume {
            incarnation: 0,
            current: start.start_file as usize,
            write_at: start.start_offset,
            next_sequence: start.next_group,
            prev_header_crc: start.prev_header_crc,
            places: VecDeque::new(),
        };
        let ring = files
            .iter()
            .map(|f| RingFile {
                file: io.attach_file(f.handle.clone()),
                bytes: f.bytes,
                last_group: GroupSeq(0),
            })
            .collect();
        let core_log = CoreLog::new(&options, ring, resume);
        let state = CheckpointState::new(Store::default(), Vec::new(), GroupSeq(start.next_group - 1));
        let mut log = Log::assemble(options, core_log, state);
        let mut states: HashMap<u64, &PartitionState> = start.partitions.iter().map(|p| (p.id, p)).collect();
        let mut restored = HashMap::new();
        for (topic, spec) in topics {
            let slot = log.upsert(topic, spec);
            if let Some(state) = states.remove(&spec.id.0) {
                log.restore(slot.0, state, start.clean);
                restored.insert(slot.0, ());
            }
        }
        let mut doomed = Vec::new();
        // Deleted while this core could not write the tombstone: the folders go now.
        for state in states.into_values() {
            doomed.push(log.add_doomed(state));
        }
        Replay {
            log,
            files,
            window: Window::default(),
            chunk: None,
            current: start.start_file as usize,
            offset: start.start_offset,
            next_sequence: start.next_group,
            prev_header_crc: start.prev_header_crc,
            lives: start.lives.clone(),
            durable_mark: start.durable_group,
            given_up,
            decisions,
            restored,
            replayed: HashMap::new(),
            doomed,
            retired: Vec::new(),
            looked_for_active: false,
            destage_files: HashMap::new(),
            report: RecoveryReport { clean: start.clean, ..RecoveryReport::default() },
        }
    }

    pub fn run<B: Backend>(&mut self, io: &mut B, start: &Checkpoint) -> Result<(), RecoveryError> {
        while self.take_group(io, decode_group)? || self.pass_over(io)? {}
        let dir = &self.log.options.log_dir;
        if self.report.groups == 0
            && let Some(found) = first_elsewhere(io.fs(), dir, start).map_err(at(dir))?
        {
            return Err(RecoveryError::Exchanged { what: exchanged_files(start, dir, &found) });
        }
        self.check_hole(io, start)
    }

    fn incarnation_of(&self, sequence: u64) -> Option<u128> {
        self.lives.iter().rev().find(|(_, first)| *first <= sequence).map(|(life, _)| *life)
    }

    /// A header that continues the chain lies there.
    fn joins<B: Backend>(&mut self, io: &mut B, file: usize, offset: u64) -> Result<bool, RecoveryError> {
        let bytes = self.window.get(io.fs(), &self.files, file, offset, GROUP_HEADER_BYTES)?;
        let Ok(header) = GroupHeader::decode(bytes) else { return Ok(false) };
        if header.sequence.0 != self.next_sequence {
            return Ok(false);
        }
        Ok(self.log.options.faults.trust_stale_groups
            || header.prev_header_crc == self.prev_header_crc
                && Some(header.incarnation) == self.incarnation_of(self.next_sequence))
    }

    /// Goes to where the chain goes on: here, or at the start of another file of the ring.
    fn find_next<B: Backend>(&mut self, io: &mut B) -> Result<bool, RecoveryError> {
        let here = (self.current, self.offset);
        let starts = (0..self.files.len()).map(|file| (file, 0)).filter(|place| *place != here);
        for (file, offset) in std::iter::once(here).chain(starts) {
            if self.joins(io, file, offset)? {
                (self.current, self.offset) = (file, offset);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes on behind groups that a repair gave up, with what is good of the first of them.
    fn pass_over<B: Backend>(&mut self, io: &mut B) -> Result<bool, RecoveryError> {
        let first = self.next_sequence;
        let Some(gap) = self.given_up.iter().find(|gap| gap.first == first).copied() else {
            return Ok(false);
        };
        self.report.given_up += 1;
        self.take_group(io, salvage_group)?;
        self.log.skip_groups(self.next_sequence, gap.next);
        (self.current, self.offset) = (gap.file as usize, gap.position);
        (self.next_sequence, self.prev_header_crc) = (gap.next, gap.prev_header_crc);
        Ok(true)
    }

    /// Applies the chain's next group, if `decode` can read it.
    fn take_group<B: Backend>(
        &mut self,
        io: &mut B,
        decode: fn(&[u8]) -> Result<DecodedGroup<'_>, GroupError>,
    ) -> Result<bool, RecoveryError> {
        if !self.find_next(io)? {
            return Ok(false);
        }
        let (file, offset) = (self.current, self.offset);
        let header =
            GroupHeader::decode(self.window.get(io.fs(), &self.files, file, offset, GROUP_HEADER_BYTES)?);
        let Ok(header) = header else { return Ok(false) };
        let total = header.total_bytes();
        let end = offset + total as u64;
        let cut = self.files.get(file).and_then(|log| CutOff::within_group(&log.path, log.bytes, end));
        if let Some(cut) = cut {
            let data_dir = self.log.options.data_dir.clone();
            return Err(RecoveryError::CutOff { data_dir, what: cut.to_string() });
        }
        if self.chunk.as_ref().is_none_or(|c| c.room() < total) {
            self.chunk =
                Some(io.pool().append_buf(total.max(TAIL_CHUNK_BYTES)).ok_or(RecoveryError::NoMemory)?);
        }
        let bytes = self.window.get(io.fs(), &self.files, file, offset, total)?;
        let Some(chunk) = self.chunk.as_mut().filter(|_| bytes.len() == total) else { return Ok(false) };
        chunk.append(bytes);
        let buf = chunk.split(total);
        let Ok(group) = decode(&buf) else { return Ok(false) };
        let own: [u8; GROUP_HEADER_BYTES] =
            buf.get(..GROUP_HEADER_BYTES).and_then(|b| b.try_into().ok()).unwrap_or([0; GROUP_HEADER_BYTES]);
        let items = self.items_of(&group, file, offset)?;
        let place = GroupPlace {
            sequence: header.sequence,
            file: file as u32,
            offset,
            bytes: total as u64,
            prev_header_crc: self.prev_header_crc,
        };
        self.log.core_log.replayed(place);
        self.report.groups += 1;
        self.report.bytes += total as u64;
        self.durable_mark = self.durable_mark.max(header.durable.0);
        self.prev_header_crc = GroupHeader::own_crc(&own);
        self.next_sequence += 1;
        self.current = file;
        self.offset = offset + total as u64;
        self.apply(Sealed { sequence: header.sequence, buf, items });
        self.make_room(io)?;
        Ok(true)
    }

    /// What was replayed may be more than memory holds: it goes into segments then, as it would in operation. No
    /// checkpoint names these bytes before `finish` synced them.
    fn make_room<B: Backend>(&mut self, io: &mut B) -> Result<(), RecoveryError> {
        let log = &mut self.log;
        if log.tail_bytes < log.options.tail_bytes / 2 {
            return Ok(());
        }
        log.durable_seen = GroupSeq(self.next_sequence - 1);
        for (_, part) in log.parts.iter_mut() {
            part.durable = part.log_end;
        }
        if !std::mem::replace(&mut self.looked_for_active, true) {
            self.retired = log.pass_over_retired(io.fs());
        }
        let mut inline = Inline::new(io, std::mem::take(&mut self.destage_files));
        loop {
            log.queue_oldest();
            log.poll_destage(&mut inline);
            let mut moved = false;
            while let Some(completion) = inline.pop() {
                log.complete(&mut inline, completion);
                moved = true;
            }
            if log.fatal.is_some() {
                break;
            }
            // In operation a checkpoint would do that.
            if !moved && log.files.has_writers() && log.sync_written(inline.fs())? {
                log.files.try_now();
                continue;
            }
            if !moved {
                break;
            }
        }
        self.destage_files = inline.into_files();
        log.evict(0);
        // The core log still has it all: the next start begins there again.
        let Some(fatal) = log.fatal.take() else { return Ok(()) };
        let path = log.options.log_dir.clone();
        Err(RecoveryError::Io { path, error: io::Error::other(fatal.to_string()) })
    }

    /// The entries that are news to their partitions. Positions count from the start of the group.
    fn items_of(
        &mut self,
        group: &DecodedGroup<'_>,
        file: usize,
        offset: u64,
    ) -> Result<Vec<Item>, RecoveryError> {
        let mut items = Vec::new();
        let mut position = GROUP_HEADER_BYTES;
        for entry in &group.entries {
            let start = position;
            position += entry.len as usize;
            if entry.kind == EntryKind::NoOp {
                continue;
            }
            let slot = self.log.by_id.get(&entry.partition).copied();
            let is_deleted = entry.kind == EntryKind::Tombstone;
            if slot.is_none() || is_deleted {
                let (id, options) = (entry.partition.0, &self.log.options);
                let state = slot.and_then(|slot| self.log.parts.get(slot)).map(capture);
                let known = Known { id, place: &options.log_dir, state: state.as_ref(), is_deleted };
                if let Some(against) = self.decisions.contradict(options.core.0, known) {
                    let what = against.sentence(&options.data_dir);
                    return Err(RecoveryError::Contradicted { what });
                }
            }
            // A deleted topic's.
            let Some(slot) = slot else { continue };
            let last = match entry.kind {
                EntryKind::Batch | EntryKind::Carry => {
                    let batch = group.bytes.get(start..position).and_then(BatchHeader::parse);
                    let Some(header) = batch else {
                        return Err(self.damage(
                            file,
                            offset,
                            format!("id {}", entry.partition),
                            "an entry is no batch".into(),
                        ));
                    };
                    header.last_offset()
                }
                EntryKind::TruncateTo
                | EntryKind::LogStart
                | EntryKind::Epoch
                | EntryKind::Tombstone
                | EntryKind::NoOp => Offset(entry.arg),
            };
            let max_timestamp_ms = group
                .bytes
                .get(start..position)
                .and_then(BatchHeader::parse)
                .map_or(-1, |h| h.max_timestamp_ms);
            items.push(Item {
                slot,
                kind: entry.kind,
                base: Offset(entry.arg),
                last,
                at: start as u32,
                len: entry.len,
                max_timestamp_ms,
            });
        }
        Ok(items)
    }

    /// Applies one group to its partitions; items already in segments are dropped.
    fn apply(&mut self, mut sealed: Sealed) {
        let buf = sealed.buf.clone();
        sealed.items.retain(|item| {
            let Some(part) = self.log.parts.get_mut(item.slot) else { return false };
            match item.kind {
                EntryKind::Batch | EntryKind::Carry => {
                    self.replayed.insert(item.slot, ());
                    // In segments already, or of a life before the log start moved, or carried and met before.
                    if item.base != part.log_end {
                        return false;
                    }
                    if let Some(header) = buf.get(item.at as usize..).and_then(BatchHeader::parse) {
                        if part.epochs.latest().is_none_or(|(latest, _)| latest < header.leader_epoch) {
                            part.epochs.assign(header.leader_epoch, item.base);
                        }
                        if header.has_producer_id() {
                            let stored_ms = header.max_timestamp_ms;
                            part.producers.apply(&header, item.base, stored_ms, stored_ms, 0);
                        }
                        // Time that was given out: the clock of this life may be behind it.
                        if header.is_log_append_time() {
                            part.last_append_ms = part.last_append_ms.max(header.max_timestamp_ms);
                        }
                    }
                    part.log_end = item.last.plus(1);
                    self.report.batches += 1;
                    true
                }
                EntryKind::LogStart => {
                    // Beyond the end only where records before it were given up.
                    part.log_start = part.log_start.max(item.base.min(part.log_end));
                    false
                }
                // Of a partition that the image has it contradicts that, and the log is not opened.
                EntryKind::TruncateTo | EntryKind::Epoch | EntryKind::Tombstone | EntryKind::NoOp => false,
            }
        });
        self.log.take_sealed(sealed);
    }

    fn damage(&self, file: usize, offset: u64, partitions: String, what: String) -> RecoveryError {
        let path = self.files.get(file).map_or_else(PathBuf::new, |f| f.path.clone());
        let data_dir = self.log.options.data_dir.clone();
        RecoveryError::Damaged { data_dir, path, offset, sequence: self.next_sequence, partitions, what }
    }

    /// The chain ends here. Was everything that was ever acked before the end?
    fn check_hole<B: Backend>(&mut self, io: &mut B, start: &Checkpoint) -> Result<(), RecoveryError> {
        // After an orderly stop everything is in segments, and the log is not needed.
        if self.report.clean {
            return Ok(());
        }
        let mut recorded = self.durable_mark;
        let (current, from) = (self.current, self.offset);
        let places = self.places_behind(io)?;
        for (file, offset) in places {
            let bytes = self.window.get(io.fs(), &self.files, file, offset, GROUP_HEADER_BYTES)?;
            if let Ok(header) = GroupHeader::decode(bytes)
                && header.sequence.0 > self.next_sequence
                // What an earlier life left beyond its end was given up when the next one began.
                && self.incarnation_of(header.sequence.0) == Some(header.incarnation)
            {
                recorded = recorded.max(header.durable.0);
            }
        }
        if recorded < self.next_sequence {
            return Ok(());
        }
        let dir = &self.log.options.log_dir;
        let chain = walk_chain(io.fs(), dir, start).map_err(at(dir))?;
        let names: Vec<String> =
            chain.lost_ends(start).0.iter().map(|lost| self.name_of(lost.partition)).collect();
        let are_all_known = chain.damage().all(|hole| hole.damaged.is_some());
        Err(self.damage(
            current,
            from,
            losers_of(&names, are_all_known),
            format!("groups up to {recorded} were acked, but the chain ends before {}", self.next_sequence),
        ))
    }

    /// Where groups behind the end of the chain may begin: the rest of the current file, the start of every other, and
    /// all of those that may have been written next unless they still begin with an older group: the first group of a
    /// file may be the damaged one.
    fn places_behind<B: Backend>(&mut self, io: &mut B) -> Result<Vec<(usize, u64)>, RecoveryError> {
        let (current, from) = (self.current, self.offset);
        let mut places = Vec::new();
        for file in (0..self.files.len()).filter(|f| *f != current) {
            places.push((file, 0));
            // Without growth the ring goes on in the next file; the last one went on in the first before it grew.
            let may_be_next = file == current + 1 || file == 0;
            let head = self.window.get(io.fs(), &self.files, file, 0, GROUP_HEADER_BYTES)?;
            let is_older = GroupHeader::decode(head).is_ok_and(|h| h.sequence.0 < self.next_sequence);
            if may_be_next && !is_older {
                let end = self.files.get(file).map_or(0, |f| f.bytes);
                places.extend((PAGE_BYTES as u64..end).step_by(PAGE_BYTES).map(|o| (file, o)));
            }
        }
        let end = self.files.get(current).map_or(0, |f| f.bytes);
        places.extend((from..end).step_by(PAGE_BYTES).map(|o| (current, o)));
        Ok(places)
    }

    fn name_of(&self, id: PartitionId) -> String {
        let part = self.log.by_id.get(&id).and_then(|s| self.log.parts.get(*s));
        part.map_or_else(|| format!("id {id}"), |p| format!("{}-{}", p.topic, p.index))
    }

    /// Flushes what was read, begins a new life, and hands the log over.
    pub fn finish<B: Backend>(
        mut self,
        io: &mut B,
        start: Checkpoint,
        incarnation: u128,
    ) -> Result<(Log, RecoveryReport), RecoveryError> {
        for file in &self.files {
            io.fs().sync_data(&file.handle).map_err(at(&file.path))?;
        }
        let mut log = self.log;
        for slot in log.parts.slots() {
            if !self.restored.contains_key(&slot) && !self.replayed.contains_key(&slot) {
                self.report.adopted += u64::from(log.adopt(io.fs(), slot)?);
            }
        }
        for retired in self.retired {
            log.settle_retired(retired);
        }
        for (slot, part) in log.parts.iter_mut() {
            let stamped = part.config.timestamp_type == TimestampType::LogAppendTime;
            if self.replayed.contains_key(&slot) && !stamped {
                // When they came is not written down; not later than now.
                part.last_append_ms = part.last_append_ms.max(io.wall_ms());
            }
            let gone = part.drop_below_start(io.fs());
            let files = gone.iter().flat_map(|s| segment_files(&part.dir, s.base)).collect::<Vec<_>>();
            for open in gone.into_iter().filter_map(|s| s.open) {
                io.detach_file(open.id);
            }
            if !files.is_empty() {
                log.doomed_files.push_back((GroupSeq(0), files));
            }
            part.epochs.truncate_start(part.log_start);
            part.producers.touch(io.now_ns());
            part.durable = part.log_end;
            part.high_watermark = part.log_end;
            part.check_watermarks();
        }
        log.events.clear();
        log.sync_destaged(io.fs())?;
        let first = self.next_sequence;
        self.lives.retain(|(_, f)| *f < first);
        self.lives.push((incarnation, first));
        let mut next = Checkpoint {
            lives: self.lives.clone(),
            clean: false,
            durable_group: first - 1,
            sequence: start.sequence + 1,
            ..start
        };
        let live: Vec<PartitionState> =
            log.parts.iter().filter(|(_, p)| !p.deleted).map(|(_, p)| capture(p)).collect();
        next.partitions = live;
        // Into both slots before anything of this life is acked: the other one may be what is left when this one rots,
        // and groups of a life that it did not know would be taken for stale ones and passed over.
        checkpoint::replace_slot(io.fs(), &log.options.log_dir, &next).map_err(at(&log.options.log_dir))?;
        next.sequence += 1;
        checkpoint::write_slot(io.fs(), &log.options.log_dir, &next).map_err(at(&log.options.log_dir))?;
        let store = Store {
            partitions: next.partitions.drain(..).map(|p| (p.id, p)).collect(),
            sequence: next.sequence,
        };
        log.checkpoint = CheckpointState::new(store, self.lives, GroupSeq(next.next_group - 1));
        log.core_log.begin_life(incarnation, self.current, self.offset, first, self.prev_header_crc);
        log.resume(GroupSeq(first - 1));
        for slot in self.doomed {
            log.doom(slot);
        }
        log.advance_destaged();
        self.report.partitions = log.by_id.len() as u64;
        Ok((log, self.report))
    }
}
