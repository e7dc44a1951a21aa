//! Checkpoints: what is destaged and durable, so that recovery knows where to begin and core-log space can be reused.
//!
//! Order, never bent: data written → segments synced → new folder entries synced → checkpoint slot written and synced →
//! only then is core-log space used again. All of it after the capture runs as one job on the file thread.

use crate::destage::Trim;
use crate::fatal::Fatal;
use crate::format::checkpoint::{self, Checkpoint, PartitionState, SegmentState};
use crate::index::SegmentIndex;
use crate::jobs::{JobDone, JobFor};
use crate::log::Log;
use crate::open_files::{HeldFile, is_shortage};
use crate::partition::{DestageStep, Partition};
use crate::token::{self, token};
use ringmill_reactor::{Backend, Fs, Op, is_full};
use ringmill_types::{GroupSeq, PartitionId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A checkpoint is written at least this often while anything changed, nanoseconds.
const INTERVAL_NS: u64 = 10_000_000_000;

/// A checkpoint that met a full disk is tried again after this long, nanoseconds.
const RETRY_NS: u64 = 1_000_000_000;

/// The whole content of the next checkpoint. Used by jobs on the file thread only; the lock is never contended.
#[derive(Default)]
pub(crate) struct Store {
    pub partitions: BTreeMap<u64, PartitionState>,
    pub sequence: u64,
}

pub(crate) struct CheckpointState {
    pub store: Arc<Mutex<Store>>,
    pub lives: Vec<(u128, u64)>,
    changed: BTreeSet<u32>,
    deleted: Vec<PartitionId>,
    pub new_dirs: Vec<PathBuf>,
    in_progress: Option<InProgress>,
    done: GroupSeq,
    next_ns: u64,
    /// Not before this: the disk was full.
    retry_ns: u64,
    finishing: bool,
    finished: bool,
    /// Due although nothing changed.
    forced: bool,
}

impl CheckpointState {
    pub fn new(store: Store, lives: Vec<(u128, u64)>, done: GroupSeq) -> CheckpointState {
        CheckpointState {
            store: Arc::new(Mutex::new(store)),
            lives,
            changed: BTreeSet::new(),
            deleted: Vec::new(),
            new_dirs: Vec::new(),
            in_progress: None,
            done,
            next_ns: 0,
            retry_ns: 0,
            finishing: false,
            finished: false,
            forced: false,
        }
    }

    pub fn note_changed(&mut self, slot: u32) {
        self.changed.insert(slot);
    }

    /// The next one is due now, changed or not.
    pub fn hasten(&mut self) {
        self.next_ns = 0;
        self.forced = true;
    }

    pub fn note_deleted(&mut self, slot: u32, id: PartitionId) {
        self.changed.remove(&slot);
        self.deleted.push(id);
    }

    pub fn done(&self) -> GroupSeq {
        self.done
    }

    pub fn is_under_way(&self) -> bool {
        self.in_progress.is_some()
    }

    pub fn is_final(&self) -> bool {
        self.finished
    }

    pub fn deadline_ns(&self) -> Option<u64> {
        (self.in_progress.is_none() && !self.changed.is_empty()).then_some(self.next_ns.max(self.retry_ns))
    }
}

/// A checkpoint on its way, and what must be said again if the disk has no room for it.
struct InProgress {
    upto: GroupSeq,
    deleted: Vec<PartitionId>,
    dirs: Vec<PathBuf>,
}

/// How a job on segments failed.
pub(crate) enum DiskError {
    /// Syncing what a segment holds: writes were lost, and the kernel will not say so twice.
    LostWrites(io::Error),
    /// Anything else, as writing indexes, epochs or the checkpoint itself. What was acked is where it was.
    Other(io::Error),
}

impl From<io::Error> for DiskError {
    fn from(error: io::Error) -> DiskError {
        DiskError::Other(error)
    }
}

/// Everything one checkpoint job needs.
struct Order {
    store: Arc<Mutex<Store>>,
    updates: Vec<PartitionState>,
    deletes: Vec<u64>,
    sync: Vec<HeldFile>,
    trims: Vec<(Trim, String, PathBuf)>,
    dirs: Vec<PathBuf>,
    log_dir: PathBuf,
    topics_dir: PathBuf,
    head: Checkpoint,
    skip_sync: bool,
}

impl Log {
    pub(crate) fn poll_checkpoint<B: Backend>(&mut self, io: &mut B, now_ns: u64) {
        if self.checkpoint.in_progress.is_some()
            || self.checkpoint.finished
            || now_ns < self.checkpoint.retry_ns
        {
            return;
        }
        let ready_to_stop = self.stopping
            && self.core_log.is_quiet()
            && !self.core_log.wants_mark()
            && self.undestaged_bytes == self.held_back_bytes()
            && self.destage.is_idle()
            && self.jobs.is_empty();
        let short = self.core_log.used_bytes() > self.core_log.capacity_bytes() * 3 / 8
            || !self.core_log.next_is_free();
        let due = now_ns >= self.checkpoint.next_ns
            && (!self.checkpoint.changed.is_empty()
                || !self.checkpoint.deleted.is_empty()
                || self.checkpoint.forced);
        if ready_to_stop || due || short && self.destaged_groups > self.checkpoint.done {
            self.checkpoint.finishing = ready_to_stop;
            self.checkpoint.forced = false;
            self.checkpoint.next_ns = now_ns + INTERVAL_NS;
            self.start_checkpoint(io);
        }
    }

    /// Bytes that cannot be destaged now: their partition's disk failed or is full, or the kernel has no descriptor. They stay in the core log,
    /// and the next start finds them there: a stop does not wait for them.
    fn held_back_bytes(&self) -> u64 {
        if !self.stopping {
            return 0;
        }
        let parts = self.parts.iter().map(|(_, part)| part);
        let short = self.files.is_short();
        let held = parts.filter(|p| {
            p.offline.is_some() || p.step == DestageStep::NoSpace || short && p.step == DestageStep::NoFile
        });
        held.map(|p| p.undestaged_bytes).sum()
    }

    fn start_checkpoint<B: Backend>(&mut self, io: &mut B) {
        let serial = self.serial();
        let finishing = self.checkpoint.finishing;
        let upto = self.destaged_groups;
        let place = self.core_log.place_after(upto);
        let changed: Vec<u32> = if finishing {
            self.parts.slots().collect()
        } else {
            std::mem::take(&mut self.checkpoint.changed).into_iter().collect()
        };
        let deleted = std::mem::take(&mut self.checkpoint.deleted);
        let dirs = std::mem::take(&mut self.checkpoint.new_dirs);
        let mut order = Order {
            store: self.checkpoint.store.clone(),
            updates: Vec::with_capacity(changed.len()),
            deletes: deleted.iter().map(|id| id.0).collect(),
            sync: Vec::new(),
            trims: Vec::new(),
            dirs: dirs.clone(),
            log_dir: self.options.log_dir.clone(),
            topics_dir: self.options.data_dir.join("topics"),
            head: Checkpoint {
                sequence: 0,
                lives: self.checkpoint.lives.clone(),
                core: self.options.core.0,
                start_file: place.file,
                start_offset: place.offset,
                next_group: place.sequence.0,
                prev_header_crc: place.prev_header_crc,
                durable_group: self.core_log.durable().0,
                // What is held back must be found by replay.
                clean: finishing && self.held_back_bytes() == 0,
                partitions: Vec::new(),
            },
            skip_sync: self.options.faults.reclaim_before_sync,
        };
        for slot in changed {
            let Some(part) = self.parts.get_mut(slot).filter(|p| !p.deleted) else { continue };
            if std::mem::take(&mut part.dirty) {
                order.sync.extend(part.segments.last().and_then(|s| s.open.as_ref()).map(|o| o.file.clone()));
            }
            // A segment that met a full disk before its first byte may have no file yet.
            let has_file = |s: &crate::partition::Segment| s.bytes > 0 || s.open.is_some();
            if finishing
                && part.offline.is_none()
                && part.segments.last().is_some_and(|s| !s.sealed && has_file(s))
            {
                let (dir, epochs) = (part.dir.clone(), part.epochs.to_text());
                if let Some(segment) = part.segments.last_mut() {
                    order.trims.push((Trim::of(&dir, segment), epochs, dir));
                }
            }
            // As the trim leaves it: with the last entry of the time index.
            order.updates.push(capture(part));
        }
        self.checkpoint.in_progress = Some(InProgress { upto, deleted, dirs });
        self.jobs.insert(serial, JobFor::Checkpoint);
        io.push(
            Op::Run { job: Box::new(move |fs| Box::new(JobDone::Checkpointed(order.run(fs)))) },
            token(token::JOB, serial),
        );
    }

    pub(crate) fn checkpointed(&mut self, result: Result<(), DiskError>, now_ns: u64) {
        let Some(InProgress { upto, deleted, dirs }) = self.checkpoint.in_progress.take() else { return };
        // Synced, also where the checkpoint itself found no room.
        self.files.try_now();
        match result {
            Ok(()) => {
                self.metrics.checkpoints += 1;
                self.checkpoint.done = upto;
                self.checkpoint.finished = self.checkpoint.finishing;
                // Lives whose groups are all reclaimed are forgotten at the next checkpoint.
                let first_needed = upto.0 + 1;
                let keep_from =
                    self.checkpoint.lives.iter().rposition(|(_, first)| *first <= first_needed).unwrap_or(0);
                self.checkpoint.lives.drain(..keep_from);
                self.core_log.reclaim(upto);
                self.got_a_file();
            }
            Err(DiskError::Other(error)) if is_full(&error) || is_shortage(&error) => {
                if is_shortage(&error) {
                    self.say_short(&error);
                } else {
                    tracing::error!(
                        folder = %self.options.log_dir.display(),
                        "the disk is full: no checkpoint could be written; nothing is lost, the next start replays more; free space, lower retention or delete topics"
                    );
                }
                self.checkpoint.deleted.extend(deleted);
                self.checkpoint.new_dirs.extend(dirs);
                for slot in self.parts.slots() {
                    self.checkpoint.note_changed(slot);
                }
                self.checkpoint.retry_ns = now_ns + RETRY_NS;
                // A stop does not wait for space.
                self.checkpoint.finished = self.checkpoint.finishing;
            }
            Err(DiskError::LostWrites(error) | DiskError::Other(error)) => self.lost_writes(&error),
        }
        if self.checkpoint.finished {
            // It touches no file any more, and another core may wait for the name of a folder before it can stop.
            for (_, part) in self.parts.iter() {
                self.options.folder_names.release(&part.dir, part.id);
            }
        }
    }

    /// The process ends: the next start finds in the core log what the disk may have lost.
    pub(crate) fn lost_writes(&mut self, error: &io::Error) {
        self.end_with(Fatal::segments(&self.options.log_dir, error));
    }
}

/// The partition as its segments hold it: what is only in the core log comes back by replay.
pub(crate) fn capture(part: &Partition) -> PartitionState {
    PartitionState {
        id: part.id.0,
        topic: part.topic.to_string(),
        topic_id: part.topic_id.0,
        index: part.index,
        log_start: part.log_start.0,
        next_offset: part.destaged.0,
        epochs: part
            .epochs
            .entries()
            .iter()
            .filter(|(_, start)| *start < part.destaged)
            .map(|(e, s)| (e.0, s.0))
            .collect(),
        segments: part
            .segments
            .iter()
            .map(|s| (s, s.index.as_ref().map(SegmentIndex::entries).or(s.index_left).unwrap_or_default()))
            .map(|(s, (index_entries, time_entries))| SegmentState {
                base_offset: s.base.0,
                bytes: s.bytes,
                max_timestamp_ms: s.max_timestamp_ms,
                offset_of_max_timestamp: s.offset_of_max.0,
                created_ms: s.created_ms,
                index_entries,
                time_entries,
                sealed: s.sealed,
            })
            .collect(),
        // A batch that is not in segments must not be remembered from here: if the cut loses it, its retry is no duplicate.
        producers: part.producers.snapshot(part.destaged),
        max_timestamp_ms: part.last_append_ms,
    }
}

impl Order {
    fn run(self, fs: &dyn Fs) -> Result<(), DiskError> {
        if !self.skip_sync {
            for file in &self.sync {
                fs.sync_data(&file.handle).map_err(DiskError::LostWrites)?;
            }
        }
        for (trim, epochs, dir) in &self.trims {
            trim.run(fs)?;
            fs.replace(&dir.join("leader-epoch-checkpoint"), epochs.as_bytes())?;
        }
        if !self.skip_sync && !self.dirs.is_empty() {
            sync_names(fs, self.dirs.iter())?;
            sync_names(fs, [&self.topics_dir])?;
        }
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        for state in self.updates {
            store.partitions.insert(state.id, state);
        }
        for id in self.deletes {
            store.partitions.remove(&id);
        }
        let mut next = self.head;
        next.sequence = store.sequence + 1;
        next.partitions = store.partitions.values().cloned().collect();
        checkpoint::write_slot(fs, &self.log_dir, &next)?;
        // Only now: one that found no room is written again to the same slot, and the other keeps the newest.
        store.sequence = next.sequence;
        Ok(())
    }
}

pub(crate) fn sync_names<'a, P: AsRef<Path> + 'a>(
    fs: &dyn Fs,
    dirs: impl IntoIterator<Item = P>,
) -> io::Result<()> {
    for dir in dirs {
        match fs.sync_dir(dir.as_ref()) {
            // A deleted topic's folder may be gone by now, and its names with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}
