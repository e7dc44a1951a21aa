//! Compaction as the core sees it: which partition is next, and how new segments take the place of old ones.
//!
//! The pass itself ([`crate::compact`]) is upkeep's work. Its result counts only from the moment the *swap record* of the
//! core, `core-N/swap`, is durable; it says which segments go and what comes instead. Then the file thread renames and
//! removes, and the core changes its list; a start that finds the record does all of that again, which changes nothing
//! where it was done. So at any moment it is either all old segments or all new ones:
//!
//! new segments written and synced as `.cleaned` → record durable → renamed, old ones removed, folder synced → two
//! checkpoints that know the new ones → record removed → the next pass may begin
//!
//! Only segments that both checkpoint slots know as sealed take part, so whichever slot a start goes by, the record fits
//! it. Readers go on with the old file, which stays as long as it is open; opening, searching by time and retention wait
//! for the moment in between. Offsets, leader epochs and producers are the core's and not in segments: they stay.

use crate::checkpointing::DiskError;
use crate::compact::{Cleaned, Group, Order, Output, Source, cleaned_path};
use crate::folder;
use crate::format::checkpoint::{PartitionState, SegmentState};
use crate::format::compacted_to::{self, COMPACTED_TO_NAME};
use crate::format::sealed_text;
use crate::format::swap::{SWAP_NAME, SwapRecord};
use crate::jobs::{JobDone, JobFor};
use crate::log::{Log, LogEvent, Slot};
use crate::options::Faults;
use crate::partition::{Partition, Segment, segment_path};
use crate::token::{self, token};
use ringmill_reactor::{Backend, Fs, Op};
use ringmill_types::{Offset, PartitionId, TopicId};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::TrySendError;
use std::sync::{Arc, OnceLock};

const EXTENSIONS: [&str; 3] = ["log", "index", "timeindex"];

/// How often a pass that is under way is asked after.
const ASK_NS: u64 = 200_000_000;
/// After a pass that failed.
const AFTER_FAILURE_NS: u64 = 60_000_000_000;
/// A segment takes part when this many checkpoints were completed since it was sealed: one may have been under way, two
/// then fill both slots.
pub(crate) const CHECKPOINTS_UNTIL_SETTLED: u64 = 3;

/// Where upkeep leaves the result; `None`: there is none. Dropped without one: nobody works on it.
pub type Answer = Arc<OnceLock<Option<Cleaned>>>;

/// A pass for upkeep.
#[derive(Clone, Debug)]
pub struct CompactJob {
    pub order: Box<Order>,
    pub answer: Answer,
}

#[derive(Default)]
pub(crate) struct CompactionState {
    next_ns: u64,
    running: Option<Running>,
    swapping: Option<Swapping>,
    /// The record may go once this many checkpoints were completed.
    clear_at: Option<u64>,
    clearing: bool,
    /// Everything below was compared with everything else.
    clean_to: BTreeMap<PartitionId, Offset>,
    /// Readers, and searches by time, that came in the moment of a swap.
    waiting: Vec<u64>,
    searches: Vec<(Slot, Option<i64>, u64)>,
    resting_said: bool,
}

struct Running {
    slot: u32,
    /// Names of the sources as they were.
    uids: Vec<u64>,
    answer: Answer,
}

struct Swapping {
    slot: u32,
    cleaned: Cleaned,
}

impl CompactionState {
    pub fn deadline_ns(&self) -> Option<u64> {
        (self.swapping.is_none() && !self.clearing).then_some(self.next_ns)
    }

    /// A topic may have become compacted.
    pub fn look_soon(&mut self) {
        self.next_ns = 0;
    }
}

impl Log {
    pub(crate) fn is_swapping(&self, slot: u32) -> bool {
        self.compaction.swapping.as_ref().is_some_and(|swap| swap.slot == slot)
    }

    /// The reader is told when the swap is over.
    pub(crate) fn wait_for_swap(&mut self, ticket: u64) {
        self.compaction.waiting.push(ticket);
    }

    pub(crate) fn search_after_swap(&mut self, slot: Slot, time_ms: Option<i64>, ticket: u64) {
        self.compaction.searches.push((slot, time_ms, ticket));
    }

    pub(crate) fn poll_compaction<B: Backend>(&mut self, io: &mut B, now_ns: u64) {
        let state = &mut self.compaction;
        if self.stopping || state.swapping.is_some() || state.clearing || now_ns < state.next_ns {
            return;
        }
        if let Some(at) = state.clear_at {
            if self.metrics.checkpoints < at {
                state.next_ns = now_ns + ASK_NS;
                self.checkpoint.hasten();
                return;
            }
            state.clear_at = None;
            state.clearing = true;
            self.clear_record(io);
            return;
        }
        if let Some(running) = state.running.take() {
            match running.answer.get().cloned() {
                Some(Some(cleaned)) => return self.start_swap(io, running, cleaned),
                Some(None) => state.next_ns = now_ns + AFTER_FAILURE_NS,
                None if Arc::strong_count(&running.answer) == 1 => state.next_ns = now_ns + AFTER_FAILURE_NS,
                None => {
                    state.next_ns = now_ns + ASK_NS;
                    state.running = Some(running);
                }
            }
            return;
        }
        state.next_ns = now_ns + self.options.compaction_check_ms.max(10) as u64 * 1_000_000;
        self.begin_pass(io.wall_ms());
    }

    /// The partition with the largest share of uncompared bytes, or one whose records may not wait longer.
    fn begin_pass(&mut self, wall_ms: i64) {
        let checkpoints = self.metrics.checkpoints;
        let mut best: Option<(bool, u64, u32, Order)> = None;
        let (mut unsettled, mut dirtiest_ppm) = (false, 0);
        for (slot, part) in self.parts.iter() {
            if !part.config.compacted || part.deleted || part.offline.is_some() {
                continue;
            }
            let last_settled = part.segments.iter().rfind(|s| s.sealed);
            if last_settled.is_some_and(|s| checkpoints < s.settled_at) {
                unsettled = true;
            }
            let clean_to = self.compaction.clean_to.get(&part.id).copied().unwrap_or_default();
            let look = look(part, clean_to.max(part.log_start), wall_ms, checkpoints);
            dirtiest_ppm = dirtiest_ppm.max(look.dirty_ppm);
            let Some(mut order) = look.order else { continue };
            let (overdue, ratio_ppm) = (look.overdue, look.dirty_ppm);
            if best.as_ref().is_none_or(|b| (b.0, b.1) < (overdue, ratio_ppm)) {
                order.map_bytes = self.options.compaction_map_bytes;
                order.faults = self.options.faults;
                best = Some((overdue, ratio_ppm, slot, order));
            }
        }
        self.metrics.dirty_ppm = dirtiest_ppm;
        // Sealed segments of an idle partition settle only if checkpoints are made for them.
        if unsettled {
            self.checkpoint.hasten();
        }
        let Some((_, _, slot, order)) = best else { return };
        let Some(part) = self.parts.get(slot) else { return };
        let uids = part.segments.iter().take(order.sources.len()).map(|s| s.uid).collect();
        let answer = Answer::default();
        let job = CompactJob { order: Box::new(order), answer: answer.clone() };
        let state = &mut self.compaction;
        match self.options.compactor.as_ref().map(|compactor| compactor.try_send(job)) {
            Some(Ok(())) => state.running = Some(Running { slot, uids, answer }),
            Some(Err(TrySendError::Full(_))) => {}
            Some(Err(TrySendError::Disconnected(_))) | None => {
                if !std::mem::replace(&mut state.resting_said, true) && self.options.compactor.is_some() {
                    tracing::warn!("compacted topics are not compacted: there is no upkeep thread");
                }
            }
        }
    }

    /// What upkeep wrote takes its place, if what it was made from is still there.
    fn start_swap<B: Backend>(&mut self, io: &mut B, running: Running, cleaned: Cleaned) {
        let serial = self.serial();
        let Some(part) = self.parts.get(running.slot).filter(|p| !p.deleted && p.offline.is_none()) else {
            return;
        };
        let same =
            part.segments.iter().map(|s| s.uid).take(running.uids.len()).eq(running.uids.iter().copied());
        if !same || !cleaned.groups.iter().all(|group| is_there(part, group)) {
            return;
        }
        let mut offsets = self.compaction.clean_to.clone();
        offsets.retain(|id, _| self.by_id.contains_key(id));
        offsets.insert(part.id, cleaned.clean_to);
        let order = SwapOrder {
            log_dir: self.options.log_dir.clone(),
            dir: part.dir.clone(),
            partition: part.id,
            groups: cleaned.groups.clone(),
            offsets,
        };
        self.compaction.swapping = Some(Swapping { slot: running.slot, cleaned });
        self.jobs.insert(serial, JobFor::Swap);
        io.push(
            Op::Run { job: Box::new(move |fs| Box::new(JobDone::Swapped(order.run(fs)))) },
            token(token::JOB, serial),
        );
    }

    pub(crate) fn swapped<B: Backend>(&mut self, io: &mut B, result: Result<(), DiskError>) {
        let Some(Swapping { slot, cleaned }) = self.compaction.swapping.take() else { return };
        match result {
            Ok(()) => self.take_swap(io, slot, &cleaned),
            // The record may be there: the next start goes by it.
            Err(DiskError::LostWrites(error)) => self.lost_writes(&error),
            Err(DiskError::Other(error)) => {
                tracing::warn!(%error, "a compacted segment could not take its place; it is tried again later");
                self.compaction.next_ns = io.now_ns() + AFTER_FAILURE_NS;
            }
        }
        let waiting = std::mem::take(&mut self.compaction.waiting);
        self.events.extend(waiting.into_iter().map(LogEvent::Block));
        for (slot, time_ms, ticket) in std::mem::take(&mut self.compaction.searches) {
            self.find_time(io, slot, time_ms, ticket);
        }
    }

    fn take_swap<B: Backend>(&mut self, io: &mut B, slot: u32, cleaned: &Cleaned) {
        self.metrics.compactions += 1;
        self.metrics.compacted_records += cleaned.records_dropped;
        for group in &cleaned.groups {
            let uid = self.serial();
            // Its topic may have been deleted meanwhile.
            let Some(part) = self.parts.get_mut(slot) else { break };
            let Some(first) = part.segments.iter().position(|s| Some(&s.base) == group.sources.first())
            else {
                continue;
            };
            let new = group.output.map(|output| segment_of(&output, uid));
            let new_bytes = new.as_ref().map_or(0, |segment| segment.bytes);
            let old: Vec<Segment> = part.segments.splice(first..first + group.sources.len(), new).collect();
            let old_bytes: u64 = old.iter().map(|segment| segment.bytes).sum();
            self.metrics.compacted_bytes += old_bytes.saturating_sub(new_bytes);
            part.hints.retain(|hint| old.iter().all(|s| s.uid != hint.1));
            for segment in old {
                let waiting = self.cache.forget(segment.uid);
                self.events.extend(waiting.into_iter().map(LogEvent::Block));
                if let Some(open) = segment.open {
                    io.detach_file(open.id);
                }
            }
        }
        if let Some(part) = self.parts.get(slot) {
            self.compaction.clean_to.insert(part.id, cleaned.clean_to);
        }
        self.compaction.next_ns = 0;
        if !cleaned.groups.is_empty() {
            // One checkpoint may be on its way with the old segments.
            self.compaction.clear_at = Some(self.metrics.checkpoints + CHECKPOINTS_UNTIL_SETTLED);
        }
        self.checkpoint.note_changed(slot);
    }

    fn clear_record<B: Backend>(&mut self, io: &mut B) {
        let serial = self.serial();
        let dir = self.options.log_dir.clone();
        self.jobs.insert(serial, JobFor::ClearSwap);
        io.push(
            Op::Run { job: Box::new(move |fs| Box::new(JobDone::SwapCleared(forget_swap(fs, &dir)))) },
            token(token::JOB, serial),
        );
    }

    pub(crate) fn swap_cleared(&mut self, result: io::Result<()>, now_ns: u64) {
        self.compaction.clearing = false;
        if let Err(error) = result {
            tracing::warn!(%error, "the record of a compaction could not be removed; it is tried again");
            self.compaction.clear_at = Some(0);
            self.compaction.next_ns = now_ns + AFTER_FAILURE_NS;
        }
    }

    pub(crate) fn load_compacted_to(&mut self, fs: &dyn Fs) {
        // Without it the next pass compares everything again.
        let text = fs.read_all(&self.options.log_dir.join(COMPACTED_TO_NAME)).unwrap_or_default();
        let mut offsets = compacted_to::parse(&String::from_utf8_lossy(&text));
        offsets.retain(|id, _| self.by_id.contains_key(id));
        self.compaction.clean_to = offsets;
    }
}

/// The group's sources lie one behind the other and are sealed.
fn is_there(part: &Partition, group: &Group) -> bool {
    let first = part.segments.iter().position(|s| Some(&s.base) == group.sources.first());
    let run = first.and_then(|first| part.segments.get(first..first + group.sources.len()));
    run.is_some_and(|run| run.iter().map(|s| &s.base).eq(&group.sources) && run.iter().all(|s| s.sealed))
}

fn segment_of(output: &Output, uid: u64) -> Segment {
    Segment {
        bytes: output.bytes,
        allocated_bytes: output.bytes,
        max_timestamp_ms: output.max_timestamp_ms,
        offset_of_max: output.offset_of_max,
        sealed: true,
        index: None,
        tail_page_known: false,
        ..Segment::fresh(output.base, uid, output.created_ms, 0)
    }
}

/// What a look at one partition finds.
struct Look {
    /// Its records may not wait longer.
    overdue: bool,
    /// Share of what could be compared and was not, in millionths.
    dirty_ppm: u64,
    /// A pass, if it is worth one.
    order: Option<Order>,
}

fn look(part: &Partition, dirty_from: Offset, wall_ms: i64, checkpoints: u64) -> Look {
    let config = &part.config;
    let young = |s: &Segment| {
        config.min_compaction_lag_ms > 0
            && wall_ms.saturating_sub(s.max_timestamp_ms) < config.min_compaction_lag_ms
    };
    let count =
        part.segments.iter().take_while(|s| s.sealed && checkpoints >= s.settled_at && !young(s)).count();
    let end = part.segments.get(count).map_or(part.destaged, |next| next.base);
    let ends = part.segments.iter().skip(1).map(|s| s.base).chain([end]);
    let (mut clean, mut dirty, mut overdue) = (0, 0, false);
    for (segment, segment_end) in part.segments.iter().take(count).zip(ends) {
        if segment_end <= dirty_from {
            clean += segment.bytes;
        } else {
            dirty += segment.bytes;
            overdue |= wall_ms.saturating_sub(segment.created_ms) > config.max_compaction_lag_ms;
        }
    }
    let dirty_ppm = (dirty * 1_000_000).checked_div(clean + dirty).unwrap_or(0);
    if dirty == 0 || !overdue && dirty_ppm <= u64::from(config.min_cleanable_dirty_ppm) {
        return Look { overdue, dirty_ppm, order: None };
    }
    let source = |s: &Segment| Source { base: s.base, bytes: s.bytes, created_ms: s.created_ms };
    let order = Order {
        partition: part.id,
        dir: part.dir.clone(),
        sources: part.segments.iter().take(count).map(source).collect(),
        dirty_from,
        end,
        segment_bytes: config.segment_bytes,
        index_interval_bytes: config.index_interval_bytes as u32,
        delete_retention_ms: config.delete_retention_ms,
        now_ms: wall_ms,
        map_bytes: 0,
        faults: Faults::default(),
    };
    Look { overdue, dirty_ppm, order: Some(order) }
}

/// Work of the file thread.
struct SwapOrder {
    log_dir: PathBuf,
    dir: PathBuf,
    partition: PartitionId,
    groups: Vec<Group>,
    offsets: BTreeMap<PartitionId, Offset>,
}

impl SwapOrder {
    fn run(&self, fs: &dyn Fs) -> Result<(), DiskError> {
        if !self.groups.is_empty() {
            let record = SwapRecord { partition: self.partition, groups: self.groups.clone() };
            let path = self.log_dir.join(SWAP_NAME);
            fs.replace(&path, record.to_text().as_bytes()).map_err(|error| {
                // A full disk, mostly: without its name it does not count.
                if fs.exists(&path) { DiskError::LostWrites(error) } else { DiskError::Other(error) }
            })?;
            put_in_place(fs, &self.dir, &self.groups).map_err(DiskError::LostWrites)?;
        }
        let text = compacted_to::to_text(&self.offsets);
        if let Err(error) = fs.replace(&self.log_dir.join(COMPACTED_TO_NAME), text.as_bytes()) {
            tracing::warn!(%error, "how far compaction came could not be noted; after a start it compares everything again");
        }
        Ok(())
    }
}

/// Renames and removes; what was done already is left as it is.
pub(crate) fn put_in_place(fs: &dyn Fs, dir: &Path, groups: &[Group]) -> io::Result<()> {
    // Deleted since, with its topic.
    if !fs.exists(dir) {
        return Ok(());
    }
    for group in groups {
        if let Some(output) = &group.output {
            for extension in EXTENSIONS {
                let from = cleaned_path(dir, output.base, extension);
                if fs.exists(&from) {
                    fs.rename(&from, &segment_path(dir, output.base, extension))?;
                }
            }
        }
        for base in group.sources.iter().filter(|base| group.output.is_none_or(|o| o.base != **base)) {
            for extension in EXTENSIONS {
                match fs.remove_file(&segment_path(dir, *base, extension)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        }
    }
    fs.sync_dir(dir)
}

/// The record in a core's folder; `None` when there is none, and an error in it is [`SwapError::Unreadable`].
pub(crate) fn read_swap(fs: &dyn Fs, log_dir: &Path) -> Result<Option<SwapRecord>, SwapError> {
    let path = log_dir.join(SWAP_NAME);
    if !fs.exists(&path) {
        return Ok(None);
    }
    let text = fs.read_all(&path).map_err(SwapError::Io)?;
    SwapRecord::parse(&String::from_utf8_lossy(&text)).map(Some).ok_or(SwapError::Unreadable(path))
}

/// Why a swap record cannot be followed.
#[derive(Debug)]
pub(crate) enum SwapError {
    Io(io::Error),
    /// It is not what was written; the name of the file.
    Unreadable(PathBuf),
}

/// At a start: finishes a swap that a cut may have interrupted, and makes what the checkpoint says fit it. True when there
/// was one; its record goes with [`forget_swap`] once both slots know the outcome.
pub(crate) fn finish_swap(
    fs: &dyn Fs,
    log_dir: &Path,
    states: &mut [PartitionState],
    topics: &Path,
) -> io::Result<bool> {
    let record = match read_swap(fs, log_dir) {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(false),
        Err(SwapError::Io(error)) => return Err(error),
        Err(SwapError::Unreadable(path)) => {
            tracing::error!(
                path = %path.display(),
                "the record of a compaction cannot be read and is not followed: if its partition was being changed, its segments are shorter than expected and it goes offline when they are read"
            );
            return Ok(true);
        }
    };
    let Some(state) = states.iter_mut().find(|state| state.id == record.partition.0) else { return Ok(true) };
    let dir = topics.join(format!("{}-{}", state.topic, state.index));
    if folder::is_foreign(fs, &dir, TopicId(state.topic_id))? {
        // Deleted since, and the next topic of its name has segments there.
        return Ok(true);
    }
    put_in_place(fs, &dir, &record.groups)?;
    follow_swap(&record, state);
    tracing::info!(partition = %dir.display(), "a compaction that was interrupted is finished");
    Ok(true)
}

/// Makes the segments that a checkpoint names those that the partition has once the record was followed; a checkpoint that
/// knows them already stays as it is.
pub(crate) fn follow_swap(record: &SwapRecord, state: &mut PartitionState) {
    for group in &record.groups {
        state.segments.retain(|s| !group.sources.contains(&Offset(s.base_offset)));
        if let Some(output) = &group.output {
            let at = state.segments.partition_point(|s| s.base_offset < output.base.0);
            state.segments.insert(at, state_of(output));
        }
    }
}

pub(crate) fn forget_swap(fs: &dyn Fs, log_dir: &Path) -> io::Result<()> {
    sealed_text::forget(fs, log_dir, SWAP_NAME)
}

fn state_of(output: &Output) -> SegmentState {
    SegmentState {
        base_offset: output.base.0,
        bytes: output.bytes,
        max_timestamp_ms: output.max_timestamp_ms,
        offset_of_max_timestamp: output.offset_of_max.0,
        created_ms: output.created_ms,
        index_entries: output.index_entries,
        time_entries: output.time_entries,
        sealed: true,
    }
}
