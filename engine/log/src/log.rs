//! The log of one core: appends, seals, durable marks, and the events that come of them.

use crate::block_cache::BlockCache;
use crate::checkpointing::CheckpointState;
use crate::cold::{STARVED_NS, pool_free, pool_reserve};
use crate::compaction::CompactionState;
use crate::core_log::{CoreLog, Item, NoRoom};
use crate::destage::DestageState;
use crate::examine;
use crate::fatal::Fatal;
use crate::format::group::{Entry, EntryKind};
use crate::jobs::JobFor;
use crate::open_files::OpenFiles;
use crate::options::LogOptions;
use crate::partition::Partition;
use crate::partitions::Partitions;
use crate::producer::Verdict;
use crate::tail::TailGroup;
use crate::time::TimeFound;
use crate::token;
use crate::view::LogMetrics;
use ringmill_reactor::{Backend, Completion};
use ringmill_record::batch::{patch_create_time, patch_log_append_time, patch_placement};
use ringmill_record::{BadRecords, BatchHeader, Produced};
use ringmill_types::limits::{GROUP_OVERHEAD_BYTES_MAX, TAIL_CHUNK_BYTES};
use ringmill_types::{
    ErrorCode, GroupSeq, LeaderEpoch, Offset, PartitionId, PartitionSpec, TimestampType, TopicSpec,
};
use std::collections::{HashMap, VecDeque};

/// Index of a partition in its core's log; never another's in the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// When the answer to an append may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckAt {
    /// It is on disk already.
    Now,
    /// When this group's write was handed to the disk (relaxed topics).
    Sealed(GroupSeq),
    /// When this group is durable.
    Durable(GroupSeq),
}

/// A batch that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    /// Set on `LogAppendTime` topics; of a duplicate the timestamp of the original.
    pub log_append_ms: Option<i64>,
    pub log_start: Offset,
    pub ack: AckAt,
}

/// A batch that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// No room at this moment: try again at [`LogEvent::Room`].
    Busy,
    Refused(ErrorCode, &'static str),
    /// Single records break the topic's rules.
    BadRecords(Box<BadRecords>),
}

/// What the core must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// All groups up to this one were handed to the disk.
    Sealed(GroupSeq),
    /// All groups up to this one are on disk.
    Durable(GroupSeq),
    /// Readers of the partition may see more.
    Advanced(Slot),
    /// A cold read with this ticket can be tried again.
    Block(u64),
    /// The answer to [`Log::find_time`].
    Found { ticket: u64, found: Option<TimeFound> },
    /// Appends that met [`AppendError::Busy`] may be tried again.
    Room,
    /// The process must end: a flush, a sync or a core-log write failed, and the kernel will not say so twice. Nothing
    /// follows: the log takes, writes and says no more.
    Fatal(Fatal),
}

pub struct Log {
    pub(crate) options: LogOptions,
    pub(crate) core_log: CoreLog,
    pub(crate) parts: Partitions,
    pub(crate) by_id: HashMap<PartitionId, u32>,
    pub(crate) groups: VecDeque<TailGroup>,
    pub(crate) tail_bytes: u64,
    pub(crate) undestaged_bytes: u64,
    /// Of `tail_bytes`, the groups after `destaged_groups`: what cannot leave memory.
    pub(crate) held_bytes: u64,
    /// Every group up to here is in segments.
    pub(crate) destaged_groups: GroupSeq,
    /// Groups whose items were already marked durable.
    pub(crate) durable_seen: GroupSeq,
    pub(crate) events: VecDeque<LogEvent>,
    pub(crate) jobs: HashMap<u64, JobFor>,
    pub(crate) next_serial: u64,
    pub(crate) destage: DestageState,
    pub(crate) files: OpenFiles,
    /// Offline partitions whose batches are being carried forward.
    pub(crate) carrying: Vec<u32>,
    pub(crate) checkpoint: CheckpointState,
    pub(crate) compaction: CompactionState,
    pub(crate) cache: BlockCache,
    pub(crate) metrics: LogMetrics,
    /// The least that found no room since the last `Room` event, with all that it takes of a group.
    starved_bytes: Option<usize>,
    /// A mark had no memory: not tried again before this.
    mark_retry_ns: u64,
    /// Somebody had no memory: the tail ring keeps only what it has to.
    memory_wanted: bool,
    /// Since when no block can be read for want of memory.
    pub(crate) cold_starved_ns: Option<u64>,
    /// Partitions cannot be written to until space is back.
    pub(crate) storage_full: bool,
    pub(crate) last_append_ns: u64,
    pub(crate) adding_file: bool,
    pub(crate) turn: u64,
    pub(crate) stopping: bool,
    pub(crate) next_retention_ns: u64,
    /// Instead of what the options say.
    pub(crate) producer_expiration_ms: Option<i64>,
    /// Files below the log start; they go once the group that moved it is durable.
    pub(crate) doomed_files: VecDeque<(GroupSeq, Vec<std::path::PathBuf>)>,
    /// Why nothing is taken, written, synced or said any more. The process ends, but not at once: a checkpoint that came
    /// after the one that failed would call synced what only that one was to sync.
    pub(crate) fatal: Option<Fatal>,
}

impl Log {
    pub(crate) fn assemble(options: LogOptions, core_log: CoreLog, checkpoint: CheckpointState) -> Log {
        let durable = core_log.durable();
        let cache = BlockCache::new(options.cache_bytes, options.cold_reads_max);
        Log {
            options,
            destaged_groups: durable,
            durable_seen: durable,
            core_log,
            parts: Partitions::default(),
            by_id: HashMap::new(),
            groups: VecDeque::new(),
            tail_bytes: 0,
            undestaged_bytes: 0,
            held_bytes: 0,
            carrying: Vec::new(),
            events: VecDeque::new(),
            jobs: HashMap::new(),
            next_serial: 1,
            destage: DestageState::default(),
            files: OpenFiles::default(),
            checkpoint,
            compaction: CompactionState::default(),
            cache,
            metrics: LogMetrics::default(),
            starved_bytes: None,
            mark_retry_ns: 0,
            memory_wanted: false,
            cold_starved_ns: None,
            storage_full: false,
            last_append_ns: 0,
            adding_file: false,
            turn: 0,
            stopping: false,
            next_retention_ns: 0,
            producer_expiration_ms: None,
            doomed_files: VecDeque::new(),
            fatal: None,
        }
    }

    pub fn slot_of(&self, id: PartitionId) -> Option<Slot> {
        self.by_id.get(&id).map(|s| Slot(*s))
    }

    pub(crate) fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    pub fn next_event(&mut self) -> Option<LogEvent> {
        self.events.pop_front()
    }

    /// The last event that there will be.
    pub(crate) fn end_with(&mut self, fatal: Fatal) {
        if self.fatal.is_none() {
            self.fatal = Some(fatal.clone());
            self.events.push_back(LogEvent::Fatal(fatal));
        }
    }

    /// Makes a partition known, or changes its settings. Its folder is made when it is first destaged.
    pub fn upsert(&mut self, topic: &TopicSpec, spec: &PartitionSpec) -> Slot {
        if topic.config.compacted {
            self.compaction.look_soon();
        }
        if let Some(slot) = self.by_id.get(&spec.id) {
            if let Some(part) = self.parts.get_mut(*slot) {
                if part.config != topic.config {
                    // Whoever lowers a retention, on a full disk say, waits for nothing else.
                    self.next_retention_ns = 0;
                    part.config = topic.config.clone();
                }
                part.leader_epoch = part.leader_epoch.max(spec.leader_epoch);
                part.changed = true;
            }
            return Slot(*slot);
        }
        let slot = self.parts.push(Partition::new(
            spec.id,
            topic.name.clone(),
            topic.id,
            spec.index,
            &self.options.data_dir,
            topic.config.clone(),
            spec.leader_epoch,
        ));
        self.by_id.insert(spec.id, slot);
        self.checkpoint.note_changed(slot);
        Slot(slot)
    }

    /// Writes a tombstone; the folder goes once that is durable. False when there is no room yet: call again.
    pub fn delete<B: Backend>(&mut self, io: &mut B, id: PartitionId) -> bool {
        let Some(slot) = self.by_id.get(&id).copied() else { return true };
        if self.fatal.is_some() {
            return false;
        }
        let entry = Entry {
            partition: id,
            arg: 0,
            len: 0,
            crc: 0,
            epoch: LeaderEpoch(0),
            kind: EntryKind::Tombstone,
        };
        if self.core_log.append_event(io.pool(), io.now_ns(), slot, entry).is_err() {
            self.found_no_room(0);
            return false;
        }
        self.by_id.remove(&id);
        if let Some(part) = self.parts.get_mut(slot) {
            part.deleted = true;
        }
        true
    }

    /// Takes a batch whose header is believed.
    ///
    /// # Errors
    /// [`AppendError`]; nothing changed then.
    pub fn append<B: Backend>(
        &mut self,
        io: &mut B,
        slot: Slot,
        header: &BatchHeader,
        batch: &[u8],
        wall_ms: i64,
    ) -> Result<Appended, AppendError> {
        self.append_produced(io, slot, &Produced::on_trust(*header), batch, wall_ms)
    }

    /// Takes a validated batch: assigns offsets, copies it into the open group.
    ///
    /// # Errors
    /// [`AppendError`]; nothing changed then.
    pub fn append_produced<B: Backend>(
        &mut self,
        io: &mut B,
        slot: Slot,
        produced: &Produced,
        batch: &[u8],
        wall_ms: i64,
    ) -> Result<Appended, AppendError> {
        let header = &produced.header;
        let now_ns = io.now_ns();
        let (has_room, storage_full) = (self.has_room(), self.storage_full);
        if self.fatal.is_some() {
            return Err(AppendError::Refused(
                ErrorCode::KafkaStorageError,
                "the disk lost a write: the broker ends",
            ));
        }
        let part =
            self.parts.get_mut(slot.0).ok_or(AppendError::Refused(ErrorCode::UnknownTopicOrPartition, ""))?;
        check_topic_rules(part, produced, batch, wall_ms, storage_full)?;
        if !has_room {
            self.found_no_room(batch.len());
            return Err(AppendError::Busy);
        }
        if let Some(original) = original_of(part, &self.core_log, header)? {
            return Ok(original);
        }
        let (base, epoch) = (part.log_end, part.leader_epoch);
        let append_ms = (part.config.timestamp_type == TimestampType::LogAppendTime)
            .then(|| wall_ms.max(part.last_append_ms));
        let stored_ms = append_ms.unwrap_or(produced.max_timestamp_ms);
        let item = Item {
            slot: slot.0,
            kind: EntryKind::Batch,
            base,
            last: base.plus(i64::from(header.last_offset_delta)),
            at: 0,
            len: 0,
            max_timestamp_ms: stored_ms,
        };
        let patch = |bytes: &mut [u8]| {
            patch_placement(bytes, base, epoch);
            if let Some(ms) = append_ms {
                patch_log_append_time(bytes, ms);
            } else if produced.is_to_be_put_right() {
                patch_create_time(bytes, produced.max_timestamp_ms);
            }
        };
        let group = match self.core_log.append(io.pool(), now_ns, (part.id, epoch), item, batch, patch) {
            Ok(group) => group,
            Err(NoRoom::Busy) => {
                self.found_no_room(batch.len());
                self.memory_wanted |= batch.len() > TAIL_CHUNK_BYTES;
                return Err(AppendError::Busy);
            }
            Err(NoRoom::TooLarge) => {
                return Err(AppendError::Refused(
                    ErrorCode::MessageTooLarge,
                    "the batch is larger than a core-log file",
                ));
            }
        };
        part.took(header, stored_ms, append_ms.unwrap_or(wall_ms), now_ns);
        self.last_append_ns = now_ns;
        let ack = if part.config.is_durable() { AckAt::Durable(group) } else { AckAt::Sealed(group) };
        Ok(Appended { base_offset: base, log_append_ms: append_ms, log_start: part.log_start, ack })
    }

    /// Somebody is to hear of room for so much.
    fn found_no_room(&mut self, bytes: usize) {
        let need = bytes + GROUP_OVERHEAD_BYTES_MAX;
        self.starved_bytes = Some(self.starved_bytes.map_or(need, |least| least.min(need)));
    }

    /// What is carried forward has the rest of the ring: without it, the ring could not be freed.
    fn has_room(&self) -> bool {
        let carry_needs =
            !self.carrying.is_empty() && self.core_log.free_bytes() < self.core_log.capacity_bytes() / 4;
        self.tail_bytes < self.options.tail_bytes && !carry_needs
    }

    /// Seals what may leave, starts destaging, cold reads, checkpoints. Once a turn, before entering the kernel.
    pub fn poll<B: Backend>(&mut self, io: &mut B) {
        if self.fatal.is_some() {
            return;
        }
        let now_ns = io.now_ns();
        self.turn += 1;
        while let Some(sealed) = self.core_log.poll(io, now_ns) {
            self.take_sealed(sealed);
        }
        self.mark_when_idle(io, now_ns);
        self.poll_files(io);
        self.remove_retired(io);
        self.poll_destage(io);
        self.poll_carry(io);
        self.poll_checkpoint(io, now_ns);
        self.poll_cold(io);
        self.poll_retention(io, now_ns);
        self.poll_compaction(io, now_ns);
        // Memory that others need goes before what readers might still want.
        let (free, reserve) = (pool_free(io.pool()), pool_reserve(io.pool()));
        let wanted = std::mem::take(&mut self.memory_wanted) || self.core_log.is_short_of_memory();
        let short = wanted || free < reserve;
        if short {
            self.cache.give_back(if wanted { u64::MAX } else { reserve - free });
        }
        if wanted {
            self.core_log.give_up_chunk();
        }
        self.evict(if short { 0 } else { self.options.tail_bytes * 3 / 4 });
        self.core_log.look_for_memory(io.pool());
        if self.starved_bytes.is_some_and(|need| self.core_log.can_take(need)) && self.has_room() {
            self.starved_bytes = None;
            self.events.push_back(LogEvent::Room);
        }
    }

    /// The next [`Log::poll`] gives back what only readers might still want.
    pub fn give_up_memory(&mut self) {
        self.memory_wanted = true;
    }

    /// When `poll` wants to run again although nothing completes.
    pub fn deadline_ns(&self) -> Option<u64> {
        if self.fatal.is_some() {
            return None;
        }
        let mark = self.can_mark().then_some(self.mark_retry_ns.max(self.last_append_ns + MARK_AFTER_NS));
        let retry = self.storage_full.then_some(self.destage.retry_ns);
        [
            self.core_log.deadline_ns(),
            self.cache.has_more().then_some(0),
            self.cold_starved_ns.map(|since_ns| since_ns + STARVED_NS),
            mark,
            retry,
            self.destage.names_ns,
            self.files.deadline_ns(),
            (!self.stopping).then_some(self.next_retention_ns),
            self.checkpoint.deadline_ns(),
            self.compaction.deadline_ns().filter(|_| !self.stopping),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// A full ring has no room for a mark either. What makes room is a checkpoint, and that comes with a completion:
    /// trying until then would turn the core without a rest.
    fn can_mark(&self) -> bool {
        self.core_log.wants_mark() && self.core_log.can_take(GROUP_OVERHEAD_BYTES_MAX)
    }

    /// The last acked group is protected by a later record of it: an empty group says how far durable had come.
    fn mark_when_idle<B: Backend>(&mut self, io: &mut B, now_ns: u64) {
        if self.can_mark() && (self.stopping || now_ns >= self.last_append_ns + MARK_AFTER_NS) {
            let entry = Entry {
                partition: PartitionId(0),
                arg: 0,
                len: 0,
                crc: 0,
                epoch: LeaderEpoch(0),
                kind: EntryKind::NoOp,
            };
            if self.core_log.append_event(io.pool(), now_ns, u32::MAX, entry).is_err() {
                self.mark_retry_ns = now_ns + MARK_AFTER_NS;
                return;
            }
            if let Some(sealed) = self.core_log.poll_now(io, now_ns) {
                self.take_sealed(sealed);
            }
        }
    }

    /// Hands in a completion whose token [`token::is_logs`].
    pub fn complete<B: Backend>(&mut self, io: &mut B, completion: Completion) {
        if self.fatal.is_some() {
            return;
        }
        let (kind, value) = token::split(completion.token);
        let outcome = match kind {
            token::LOG_WRITE => {
                let done = self.core_log.on_write(value, completion.result, io.now_ns());
                self.after_durable();
                done
            }
            token::LOG_SYNC => {
                let done = self.core_log.on_sync(value, completion.result, io.now_ns());
                self.after_durable();
                done
            }
            token::DESTAGE => {
                self.destage_written(value, completion.result);
                Ok(())
            }
            token::BLOCK => {
                self.block_read(value, completion.result, completion.payload);
                Ok(())
            }
            _ => {
                self.job_done(io, value, completion.payload);
                Ok(())
            }
        };
        if let Err(errno) = outcome {
            self.end_with(Fatal::core_log(&self.options.log_dir, errno));
        }
    }

    /// How long a silent producer is remembered from now on; `None`: as long as at the start.
    pub fn set_producer_expiration(&mut self, ms: Option<i64>) {
        self.producer_expiration_ms = ms;
    }

    /// Begins an orderly stop: everything is flushed, destaged and checkpointed; ends when [`Log::is_stopped`].
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    pub fn is_stopped(&self) -> bool {
        self.stopping && self.core_log.is_quiet() && !self.core_log.wants_mark() && self.checkpoint.is_final()
    }
}

/// How long after the last append an idle core records its durable mark, nanoseconds.
const MARK_AFTER_NS: u64 = 20_000_000;

/// What was said of the batch when it came before; `None`: it comes for the first time.
fn original_of(
    part: &Partition,
    core_log: &CoreLog,
    header: &BatchHeader,
) -> Result<Option<Appended>, AppendError> {
    if !header.has_producer_id() {
        return Ok(None);
    }
    match part.producers.check(header) {
        Verdict::Append => Ok(None),
        Verdict::Refused(code) => Err(AppendError::Refused(code, "")),
        Verdict::Duplicate { base_offset, last_offset, timestamp_ms } => {
            let ack = duplicate_ack(part, core_log, last_offset);
            // Kafka tells the timestamp of the original, whoever set it.
            let log_append_ms = Some(timestamp_ms);
            Ok(Some(Appended { base_offset, log_append_ms, log_start: part.log_start, ack }))
        }
    }
}

/// A duplicate is acked when its original is: at once if that is durable, else with everything before now.
fn duplicate_ack(part: &Partition, core_log: &CoreLog, last_offset: Offset) -> AckAt {
    if last_offset < part.durable || !part.config.is_durable() && last_offset < part.high_watermark {
        return AckAt::Now;
    }
    let newest = core_log.newest();
    if part.config.is_durable() { AckAt::Durable(newest) } else { AckAt::Sealed(newest) }
}

fn check_topic_rules(
    part: &Partition,
    produced: &Produced,
    batch: &[u8],
    wall_ms: i64,
    storage_full: bool,
) -> Result<(), AppendError> {
    let header = &produced.header;
    let refuse = |code, text| Err(AppendError::Refused(code, text));
    if part.deleted {
        return refuse(ErrorCode::UnknownTopicOrPartition, "");
    }
    if let Some(why) = part.offline {
        return refuse(ErrorCode::KafkaStorageError, why);
    }
    if storage_full {
        return refuse(ErrorCode::KafkaStorageError, "the disk is full; produce goes on when space is back");
    }
    let config = &part.config;
    if header.size_bytes as u64 > config.max_message_bytes {
        return refuse(ErrorCode::MessageTooLarge, examine::TOO_LARGE);
    }
    let at = (&*part.topic, part.index);
    examine::check_records(produced, batch, config, at, wall_ms)
        .map_err(|bad| AppendError::BadRecords(Box::new(bad)))
}
